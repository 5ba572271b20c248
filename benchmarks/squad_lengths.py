"""Training on real questions: what padding costs, and what is left where the peer does not pad.

The same examples, drawn at random from a folder of real questions, are trained on by

- Hugging Face's PyTorch as its ``run_qa.py`` does by default: float32, padded to 384,
- Hugging Face's PyTorch at its best: batches of like length padded to bertkit's buckets,
- bertkit by default: random batches, cut by length into passes whose padding only attention sees,
- bertkit in the same passes with all padding computed, which says what leaving it out brings.

All but the first compute in bfloat16 where the processor has instructions for it.

    python -m benchmarks.squad_lengths --data squad --out squad_lengths.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.contest import Entry, contest_words, contestants, hold, summarize
from benchmarks.machine import describe_machine
from benchmarks.report import show
from bertkit.training.precision import resolve_precision

OURS = "bertkit"


def entries(options: argparse.Namespace) -> list[Entry]:
    """Who takes part."""

    def entry(name: str, program: str, cut: str, precision: str, **more: Any) -> Entry:
        work = {
            "model": options.model, "batch": options.batch, "length": 384,
            "steps": options.steps, "data": str(options.data.resolve()), "cut": cut,
        }  # fmt: skip
        return Entry(name, program, {"work": work, "precision": precision, "dropout": 0.1, **more})

    best = resolve_precision(options.precision)
    return [
        entry(OURS, "bertkit", "micro_batches", best),
        entry("bertkit, padded passes", "bertkit", "padded_micro_batches", best),
        entry("bertkit, length-grouped", "bertkit", "grouped", best),
        entry("Hugging Face, defaults", "hugging_face", "padded", "float32"),
        entry("Hugging Face, length-grouped", "hugging_face", "grouped", best),
        entry(
            "Hugging Face, length-grouped, compiled", "hugging_face", "grouped", best, compile=True
        ),
    ]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Hold the contest; gives everything that was measured."""
    machine = describe_machine()
    with contestants(entries(options), options.cores, options.log) as running:
        seconds = hold(running, options.rounds)
    return {
        "machine": machine,
        "model": options.model, "batch": options.batch, "steps": options.steps,
        "precision": resolve_precision(options.precision),
        "cores": options.cores, "rounds": options.rounds,
        "contestants": summarize(seconds, options.batch * options.steps, OURS),
    }  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    words = contest_words(__doc__, model="minilm", batch=16)
    words.add_argument("--data", type=Path, required=True, help="folder of real questions")
    words.add_argument("--steps", type=int, default=8)
    words.add_argument("--precision", choices=("auto", "bfloat16", "float32"), default="auto")
    options = words.parse_args()
    show(measure(options), options.out)


if __name__ == "__main__":
    main()
