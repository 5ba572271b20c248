"""One training step at a fixed shape: bertkit, Hugging Face's PyTorch, keras-hub, and the ceiling.

Every token is real, so that nothing can be won by leaving out padding. The ceiling is the step's
matrix products alone through the same library in the same rounds; the share of it is
``seconds of the products / seconds of the step``.

    python -m benchmarks.fixed_length --out benchmarks/results/fixed_length_base.json
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from benchmarks.contest import Entry, contest_words, contestants, hold, summarize
from benchmarks.flops import step_flops
from benchmarks.machine import describe_machine
from benchmarks.report import show
from benchmarks.work import SIZES


def entries(options: argparse.Namespace) -> list[Entry]:
    """Who takes part."""
    work = {name: getattr(options, name) for name in ("model", "batch", "length", "steps")}

    def entry(name: str, program: str, **settings: Any) -> Entry:
        return Entry(name, program, {"work": work, **settings})

    found = []
    for precision in options.precisions:
        same = {"precision": precision, "dropout": 0.1}
        found += [
            entry(f"bertkit {precision}", "bertkit", **same),
            entry(f"Hugging Face {precision}", "hugging_face", **same),
            entry(f"Hugging Face {precision}, compiled", "hugging_face", compile=True, **same),
            entry(f"keras-hub {precision}", "keras_hub", **same),
            entry(f"products {precision}", "products", precision=precision),
        ]
    return [one for one in found if not {one.program, one.name} & set(options.without)]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Hold the contest; gives everything that was measured."""
    machine = describe_machine()
    with contestants(entries(options), options.cores, options.log) as running:
        seconds = hold(running, options.rounds)
        warm_up = {c.entry.name: round(c.warm_up["warm_up_seconds"], 1) for c in running}
        memory = {c.entry.name: c.turn()["peak_gib"] for c in running}
    flops = options.steps * step_flops(SIZES[options.model], options.batch, options.length)
    precision = options.precisions[0]
    summary = summarize(seconds, options.batch * options.steps, f"bertkit {precision}")
    peers = [name for name in summary if not name.startswith(("bertkit", "products"))]
    best = min(peers, key=lambda name: statistics.median(seconds[name]))
    for name, row in summary.items():
        row["gigaflops_per_second"] = round(flops / statistics.median(seconds[name]) / 1e9)
        row["peak_gib"], row["warm_up_seconds"] = memory[name], warm_up[name]
    return {
        "machine": machine,
        "model": options.model, "batch": options.batch, "length": options.length,
        "cores": options.cores, "rounds": options.rounds, "steps_of_a_turn": options.steps,
        "teraflop_of_a_step": round(flops / options.steps / 1e12, 3),
        "best_peer": best,
        "times_as_fast_as_best_peer": summary[best]["ours_times_as_fast"],
        "share_of_ceiling": summary.get(f"products {precision}", {}).get("ours_times_as_fast"),
        "contestants": summary,
    }  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    words = contest_words(__doc__, model="base", batch=8)
    words.add_argument("--length", type=int, default=384)
    words.add_argument("--steps", type=int, default=2, help="steps of a turn, one after the other")
    words.add_argument("--precisions", nargs="+", default=["bfloat16"], help="the first is ours")
    words.add_argument("--without", nargs="+", default=[], metavar="NAME", help="leave out")
    options = words.parse_args()
    show(measure(options), options.out)


if __name__ == "__main__":
    main()
