"""What a second rank brings: the same training on one core by one rank, and on two by two.

The 22M model trains on the bundled sample, each engine bound to one core of its own, in turns whose
order is swapped from pair to pair. A rank's batch stays the same, so two ranks' global batch is
twice as large; with ``--strong`` the global batch stays the same, and a rank's update takes as long
for half of the examples. Both clusters stay up; engines
that have nothing to do take no time. What is counted is the time from step to step, with pauses.

No rank can bring more than its core does: two cores of a virtual machine may be two threads of one,
or share what multiplies matrices, the cache and the way to memory. So two processes that know
nothing of each other are timed as well, one on each core, in turn and at once: with whole steps,
and with a step's matrix products alone.

    python -m benchmarks.two_ranks --out benchmarks/results/two_ranks.json
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.contest import Entry, contestants
from benchmarks.machine import describe_machine
from benchmarks.report import show
from benchmarks.short_runs import LEFT_OUT, counted_steps, examples_per_second, sample_config
from bertkit import Cluster, Config
from bertkit.cluster.cores import usable_cpus
from bertkit.training.precision import resolve_precision


def train(cluster: Cluster, config: Config) -> dict[str, float]:
    """Train once; gives examples/sec and where a step's time went, medians over the steps."""
    run = cluster.train(config)
    run.wait()
    steps = counted_steps(run)

    def median(values: list[float]) -> float:
        return round(statistics.median(values), 4)

    return {
        "examples_per_second": round(examples_per_second(run), 3),
        "step_seconds": median([step.seconds for step in steps]),
        "sum_seconds": median([step.communication_seconds for step in steps]),
        "input_seconds": median([step.input_seconds for step in steps]),
        "straggler_share": median([step.straggler_share for step in steps]),
    }


def of_two_cores(
    program: str, settings: dict[str, Any], rounds: int, log: Path
) -> dict[str, float]:
    """How much two cores get done at once, as a multiple of what one does while the other rests."""
    work = {"model": "minilm", "batch": 16, "length": 128, "steps": 1}
    precision = resolve_precision("auto")
    entry = Entry(program, program, {"work": work, "precision": precision, **settings})
    ratios = []
    with contestants([entry, entry], 1, log) as running, ThreadPoolExecutor(2) as threads:
        for contestant, cpu in zip(running, usable_cpus(), strict=False):
            contestant.bind(cpu)
        for _ in range(rounds):
            alone = statistics.mean(contestant.turn()["seconds"] for contestant in running)
            together = threads.map(lambda contestant: contestant.turn()["seconds"], running)
            ratios.append(2 * alone / max(together))
    return {
        "median": round(statistics.median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train in pairs; gives every speed and the medians."""
    machine = describe_machine()
    pairs: list[dict[str, Any]] = []
    products = of_two_cores("products", {}, options.pairs, options.log)
    steps = of_two_cores("bertkit", {"dropout": 0.1}, options.pairs, options.log)
    with tempfile.TemporaryDirectory(prefix="bertkit-ranks-") as name:
        config = sample_config(Path(name), options.steps).replace(
            batch_size=options.batch, compression=options.compression
        )
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
        "two_cores_times_as_fast_at_products": products,
        "two_cores_times_as_fast_at_steps_of_their_own": steps,
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
    words.add_argument("--log", type=Path, default=Path("contest.log"))
    words.add_argument("--out", type=Path)
    options = words.parse_args()
    show(measure(options), options.out)


if __name__ == "__main__":
    main()
