r"""What the live view costs: the same training with and without someone looking, in turns.

Engines of their own process group train once without a panel and once with a live panel that
follows them in this process, turn by turn, the order swapped from pair to pair. The panel's thread
reads and draws as it does in a notebook; only the page is missing, which takes another process's
time. The tiny BERT makes steps of some 40 ms, so that drawing has as much to do as it ever has; the
22M model on the bundled sample is what one would look at.

Where steps take a second, one run is as long as another only within a tenth or two on a virtual
machine. So the time that this process takes of a core is measured too: a rank that shares that core
loses about as much, and the others wait for it.

    python -m benchmarks.live_view_cost --pairs 7 --out benchmarks/results/live_view_cost.json
    python -m benchmarks.live_view_cost --model minilm --steps 30 --pairs 5 \
        --out benchmarks/results/live_view_cost_minilm.json
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bertkit_widgets import LivePanel

from benchmarks.machine import describe_machine
from benchmarks.report import show
from benchmarks.short_runs import LEFT_OUT, examples_per_second, sample_config
from bertkit import Cluster, Config
from tests import tiny


def train(cluster: Cluster, config: Config, *, watched: bool) -> dict[str, float]:
    """Train once.

    Returns:
        Examples/sec after the first steps, the pauses between steps included, and the share of
        one core, in percent, that this process took from start to end.
    """
    run = cluster.train(config)
    wall, processor = time.monotonic(), time.process_time()
    if watched:
        panel = LivePanel(run)
        panel.wait()
    else:
        run.wait()
    share = (time.process_time() - processor) / (time.monotonic() - wall)
    return {
        "examples_per_second": round(examples_per_second(run), 2),
        "percent_of_a_core": round(100 * share, 2),
    }


def config_of(model: str, folder: Path, steps: int) -> Config:
    """What to train: the tiny BERT, or the 22M model."""
    if model == "minilm":
        return sample_config(folder, steps)
    config = Config(
        **tiny.settings(  # type: ignore[arg-type]
            tiny.write_model(folder / "model", layers=2, hidden=128),
            tiny.write_questions(folder / "squad", train=800),
        )
    )
    return config.replace(
        output=str(folder / "runs"), target_f1=100.1, num_epochs=1000.0,
        step_threshold=LEFT_OUT + steps, evaluate_every=0,
    )  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train in pairs; gives every speed and the medians."""
    machine = describe_machine()
    pairs: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory(prefix="bertkit-live-cost-") as name:
        config = config_of(options.model, Path(name), options.steps)
        with Cluster(n=options.engines) as cluster:
            train(cluster, config.replace(step_threshold=2 * LEFT_OUT), watched=False)
            for number in range(options.pairs):
                order = (False, True) if number % 2 else (True, False)
                found = {watched: train(cluster, config, watched=watched) for watched in order}
                pairs.append({"alone": found[False], "watched": found[True]})
                print(pairs[-1], flush=True)

    def of(name: str, way: str) -> list[float]:
        return [pair[way][name] for pair in pairs]

    def median(name: str, way: str) -> float:
        return round(statistics.median(of(name, way)), 2)

    speeds = "examples_per_second"
    ratios = [w / a for w, a in zip(of(speeds, "watched"), of(speeds, "alone"), strict=True)]
    return {
        "machine": machine,
        "engines": options.engines,
        "model": options.model,
        "steps": options.steps,
        "pairs": pairs,
        "median_alone": median(speeds, "alone"),
        "median_watched": median(speeds, "watched"),
        "percent_of_a_core_alone": median("percent_of_a_core", "alone"),
        "percent_of_a_core_watched": median("percent_of_a_core", "watched"),
        "cost_percent": {
            "median": round(100 * (1 - statistics.median(ratios)), 2),
            "least": round(100 * (1 - max(ratios)), 2),
            "most": round(100 * (1 - min(ratios)), 2),
        },
    }


def main() -> None:
    """Measure, print and write."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--model", choices=("tiny", "minilm"), default="tiny")
    words.add_argument("--pairs", type=int, default=5)
    words.add_argument("--steps", type=int, default=400)
    words.add_argument("--engines", type=int, default=2)
    words.add_argument("--out", type=Path)
    options = words.parse_args()
    show(measure(options), options.out)


if __name__ == "__main__":
    main()
