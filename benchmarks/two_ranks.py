"""What a second rank brings: the same training on one core by one rank, and on two by two.

The 22M model trains on the bundled sample, each engine bound to one core of its own, in turns whose
order is swapped from pair to pair. A rank's batch stays the same, so two ranks' global batch is
twice as large; with ``--strong`` the global batch stays the same, and a rank's update takes as long
for half of the examples. Both clusters stay up; engines
that have nothing to do take no time. What is counted is the time from step to step, with pauses.

    python -m benchmarks.two_ranks --out benchmarks/results/two_ranks.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.live_view_cost import LEFT_OUT, examples_per_second
from benchmarks.machine import describe_machine
from benchmarks.report import show
from bertkit import Cluster, Config
from bertkit.events import Step
from bertkit.squad.sample import write_sample

DEV_PARAGRAPHS = 2
"""A run scores its model at the end; a few questions do."""


def few_dev_questions(folder: Path) -> Path:
    """Cut the sample's validation file down."""
    content = json.loads((folder / "dev-v1.1.json").read_text(encoding="utf-8"))
    article = content["data"][0]
    article["paragraphs"] = article["paragraphs"][:DEV_PARAGRAPHS]
    path = folder / "dev-few.json"
    path.write_text(json.dumps({**content, "data": [article]}), encoding="utf-8")
    return path


def train(cluster: Cluster, config: Config) -> dict[str, float]:
    """Train once; gives examples/sec and where a step's time went, medians over the steps."""
    run = cluster.train(config)
    run.wait()
    steps = [event for event in run.history() if isinstance(event, Step)][LEFT_OUT:]

    def median(values: list[float]) -> float:
        return round(statistics.median(values), 4)

    return {
        "examples_per_second": round(examples_per_second(run), 3),
        "step_seconds": median([step.seconds for step in steps]),
        "sum_seconds": median([step.communication_seconds for step in steps]),
        "input_seconds": median([step.input_seconds for step in steps]),
        "straggler_share": median([step.straggler_share for step in steps]),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train in pairs; gives every speed and the medians."""
    machine = describe_machine()
    pairs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bertkit-ranks-") as name:
        folder = Path(name)
        write_sample(folder / "sample")
        config = Config(
            data=str(folder / "sample"), dev_file=str(few_dev_questions(folder / "sample")),
            batch_size=options.batch, num_epochs=1000.0, compression=options.compression,
            output=str(folder / "runs"), target_f1=100.1,
            step_threshold=LEFT_OUT + options.steps, evaluate_every=0, checkpoint_every=0,
        )  # fmt: skip
        with Cluster(n=1, cores_per_engine=1) as one, Cluster(n=2, cores_per_engine=1) as two:
            for cluster in (one, two):  # compile and fill caches
                train(cluster, config.replace(step_threshold=LEFT_OUT + 2))
            for number in range(options.pairs):
                order = [(2, two), (1, one)] if number % 2 else [(1, one), (2, two)]
                pairs.append(
                    {
                        str(ranks): train(
                            cluster,
                            config.replace(
                                batch_size=options.batch * (1 if options.strong else ranks)
                            ),
                        )
                        for ranks, cluster in order
                    }
                )
                print(pairs[-1], flush=True)
    ratios = [p["2"]["examples_per_second"] / p["1"]["examples_per_second"] for p in pairs]
    return {
        "machine": machine,
        "batch_of_a_rank_alone": options.batch,
        "global_batch_stays_the_same": options.strong,
        "steps": options.steps,
        "compression": options.compression,
        "pairs": pairs,
        "two_ranks_times_as_fast": {
            "median": round(statistics.median(ratios), 3),
            "least": round(min(ratios), 3),
            "most": round(max(ratios), 3),
        },
    }


def main() -> None:
    """Measure, print and write."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--pairs", type=int, default=5)
    words.add_argument("--steps", type=int, default=30)
    words.add_argument("--batch", type=int, default=32)
    words.add_argument("--strong", action="store_true", help="keep the global batch")
    words.add_argument("--compression", default="none")
    words.add_argument("--out", type=Path)
    options = words.parse_args()
    show(measure(options), options.out)


if __name__ == "__main__":
    main()
