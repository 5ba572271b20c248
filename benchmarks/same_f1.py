"""Does leaving out padding and rounding to bfloat16 cost F1? The same training both ways, by seed.

Fast: passes by length without padding, in the precision that this processor is fastest at,
bfloat16 or float32. Exact: float32, every example padded to 384 tokens. Both train the 22M model on
the same real questions in the same batches of the same order. Seeds that are in the file already
are not trained again.

    python -m benchmarks.same_f1 --data squad --out benchmarks/results/same_f1.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from bertkit import Cluster, Config
from bertkit.training.precision import resolve_precision

WAYS: dict[str, dict[str, Any]] = {
    "fast": {"precision": "auto"},
    "exact": {"precision": "float32", "pad_to_max_length": True},
}


def train(cluster: Cluster, options: argparse.Namespace, way: str, seed: int) -> dict[str, Any]:
    """Train once; gives the last model's scores on all dev questions."""
    with tempfile.TemporaryDirectory(prefix="bertkit-f1-") as output:
        config = Config(
            data=str(options.data), optimizer="adamw", batch_size=16,
            learning_rate=options.learning_rate,
            num_epochs=options.epochs, max_train_questions=options.questions, seed=seed,
            target_f1=100.1, evaluate_every=0, checkpoint_every=0, output=output, **WAYS[way],
        )  # fmt: skip
        result = cluster.train(config).wait()
    return {
        "way": way, "seed": seed, "f1": round(result.f1, 3),
        "exact_match": round(result.exact_match, 3), "global_step": result.global_step,
        "examples_per_second": round(result.examples_per_second, 2),
    }  # fmt: skip


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and spreads of each way, and the difference seed by seed."""
    f1 = {way: {row["seed"]: row["f1"] for row in rows if row["way"] == way} for way in WAYS}
    both = sorted(f1["fast"].keys() & f1["exact"].keys())
    ways = {
        way: {
            "mean": round(statistics.mean(values.values()), 2),
            "standard_deviation": round(statistics.stdev(values.values()), 2),
        }
        for way, values in f1.items()
        if len(values) > 1
    }
    differences = [round(f1["fast"][seed] - f1["exact"][seed], 2) for seed in both]
    return {**ways, "fast_minus_exact": differences}


def main() -> None:
    """Train what is not in the file yet, and write."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--data", type=Path, required=True, help="folder of real questions")
    words.add_argument("--questions", type=int, default=1000, help="training questions")
    words.add_argument("--epochs", type=float, default=2.0)
    words.add_argument("--learning-rate", type=float, default=3e-4)
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--engines", type=int, default=1)
    words.add_argument("--out", type=Path, required=True)
    options = words.parse_args()
    same = {
        "questions": options.questions,
        "epochs": options.epochs,
        "learning_rate": options.learning_rate,
        "precision_of_the_fast_way": resolve_precision("auto"),
    }
    rows: list[dict[str, Any]] = []
    if options.out.exists():
        found = json.loads(options.out.read_text(encoding="utf-8"))
        rows = found["runs"] if {name: found.get(name) for name in same} == same else []
    with Cluster(n=options.engines) as cluster:
        for seed in range(1, options.seeds + 1):
            for way in WAYS:
                if any((row["way"], row["seed"]) == (way, seed) for row in rows):
                    continue
                rows.append(train(cluster, options, way, seed))
                print(rows[-1], flush=True)
                result = {"machine": describe_machine(), **same, "runs": rows}
                result["summary"] = summarize(rows)
                options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
