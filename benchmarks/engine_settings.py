"""What each setting of an engine's process brings to a training step, one left out at a time.

python -m benchmarks.engine_settings --out benchmarks/results/engine_settings.json
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.contest import Entry, contest_words, contestants, hold, summarize
from benchmarks.machine import describe_machine
from benchmarks.report import show
from bertkit.loading_tensorflow import PRODUCTS_BY_ONEDNN
from bertkit.training.precision import resolve_precision

OURS = "as engines are"


def entries(options: argparse.Namespace, precision: str) -> list[Entry]:
    """The step with all settings, and with each left out."""
    work = {name: getattr(options, name) for name in ("model", "batch", "length", "steps")}
    settings = {"work": work, "precision": precision, "dropout": 0.1}
    forgetful = {**settings, "keep_memory": False}
    without_onednn = dict.fromkeys(PRODUCTS_BY_ONEDNN, "0")
    return [
        Entry(OURS, "bertkit", settings),
        Entry("freed memory is given back", "bertkit", forgetful),
        Entry("without oneDNN", "bertkit", settings, without_onednn),
        Entry("neither", "bertkit", forgetful, without_onednn),
    ]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Hold the contest; gives everything that was measured."""
    machine = describe_machine()
    precision = resolve_precision("auto")
    with contestants(entries(options, precision), options.cores, options.log) as running:
        seconds = hold(running, options.rounds)
        memory = {c.entry.name: c.turn()["peak_gib"] for c in running}
    summary = summarize(seconds, options.batch * options.steps, OURS)
    for name, row in summary.items():
        row["peak_gib"] = memory[name]
    return {
        "machine": machine,
        "model": options.model, "batch": options.batch, "length": options.length,
        "precision": precision, "cores": options.cores, "steps_of_a_turn": options.steps,
        "contestants": summary,
    }  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    words = contest_words(__doc__, model="minilm", batch=8)
    words.add_argument("--length", type=int, default=192)
    words.add_argument("--steps", type=int, default=2, help="steps of a turn, one after the other")
    options = words.parse_args()
    show(measure(options), options.out)


if __name__ == "__main__":
    main()
