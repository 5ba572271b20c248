"""Peak resident memory of a rank: the 22M model, BERT-base, and BERT-large at a batch of 96.

Two steps of bertkit's own, in passes as training cuts them by default, in the precision that this
processor is fastest at; all tokens are real, so that no shorter passes flatter the figure.

    python -m benchmarks.memory --out benchmarks/results/memory.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.contest import Contestant, Entry
from benchmarks.machine import describe_machine
from benchmarks.report import show
from bertkit.training.precision import resolve_precision

LENGTH = 384
BATCHES = (("minilm", 32), ("base", 32), ("large", 96))


def peak(model: str, batch: int, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """Make two steps in a process of its own."""
    work = {"model": model, "batch": batch, "length": LENGTH, "cut": "micro_batches"}
    entry = Entry(
        f"{model} {precision}", "bertkit", {"work": work, "precision": precision, "dropout": 0.1}
    )
    with options.log.open("ab") as log:
        rank = Contestant(entry, options.cores, log)
    rank.end()
    print(entry.name, rank.warm_up, flush=True)
    return {"model": model, "batch_of_the_rank": batch, "length": LENGTH, "precision": precision,
            "peak_gib": rank.warm_up["peak_gib"]}  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--cores", type=int, default=2)
    words.add_argument("--precision", choices=("auto", "bfloat16", "float32"), default="auto")
    words.add_argument("--log", type=Path, default=Path("memory.log"))
    words.add_argument("--out", type=Path)
    options = words.parse_args()
    machine = describe_machine()
    precision = resolve_precision(options.precision)
    rows = [peak(model, batch, precision, options) for model, batch in BATCHES]
    show({"machine": machine, "ranks": rows}, options.out)


if __name__ == "__main__":
    main()
