"""A real search, as its user runs it: how much faster the best model trains than the default.

The settings are those of the published example; the first trial has the default settings. When the
search is over, default and best are trained again, in turn, since one training's time says little
on a machine that does other work.

    python -m benchmarks.advisor.live_search --folder live --out benchmarks/results/live_search.json

A stopped call is gone on with by the same command.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from bertkit import SDA, Cluster
from bertkit.advisor.console import describe_search, describe_trial, save_pictures
from bertkit.advisor.experiment import Experiment
from bertkit.advisor.trial import Assignment, Origin, Trial
from bertkit.advisor.trial_runner import trial_config
from bertkit.config import Config

SETTINGS: dict[str, dict[str, Any]] = {
    "sample": {
        "data_path": "sample",
        "metric_threshold": 85,
        "target_f1": 86,  # validation sees a part of the questions; a little more is sure to do
        "training_time_threshold": 600,
        "evaluate_fraction": 0.25,
        "evaluate_every": 20,
        "checkpoint_every": 0,
        "parameters": [
            {"name": "learning_rate", "type": "double", "transformation": "log",
             "bounds": {"min": 1e-3, "max": 2e-2}},
            {"name": "warmup_rate", "type": "double", "bounds": {"min": 0.02, "max": 0.3}},
            {"name": "batch_size", "type": "int", "grid": [12, 16, 24, 32, 64]},
            {"name": "num_hidden_layers", "type": "int", "grid": [2, 3, 4, 5, 6]},
        ],
    },
}  # fmt: skip
ROUNDS = 2


def search(settings: dict[str, Any], folder: Path, budget: int, ranks: int) -> SDA:
    """Search, or go on with the search of this folder."""
    sda = SDA(
        model="BERT",
        settings={
            "enable_sigopt": True,
            "save_path": str(folder),
            "observation_budget": budget,
            "mpi_num_processes": ranks,
            **settings,
        },
        on_trial=lambda trial: print(describe_trial(trial, sda.goals, budget), flush=True),
    )
    if (folder / "bert" / "advisor.db").is_file():
        sda.resume(1)
    sda.launch()
    return sda


def train_again(config: Config, ranks: int, wanted: dict[str, Assignment]) -> dict[str, Any]:
    """Train each assignment `ROUNDS` times, in turn."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}
    with Cluster(n=ranks) as cluster:
        for number in range(1, ROUNDS + 1):
            for name, parameters in wanted.items():
                run = cluster.train(trial_config(config, parameters), name=f"{name}-{number}")
                result = run.wait()
                found[name].append(
                    {
                        "training_time": round(result.wall_seconds, 2),
                        "f1": round(result.f1, 2),
                        "exact_match": round(result.exact_match, 2),
                        "steps": result.global_step,
                        "stopped_by": result.stopped_by,
                    }
                )
                print(name, found[name][-1], flush=True)
    return found


def _row(trial: Trial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "state": str(trial.state),
        "origin": str(trial.origin),
        **trial.parameters,
        **{name: round(value, 2) for name, value in trial.metrics.items()},
        "seconds_with_start_and_scoring": round(trial.seconds or 0.0, 1),
        "message": trial.message,
    }


def main() -> None:
    """Search, train the two again, and write the result."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--what", choices=list(SETTINGS), default="sample")
    words.add_argument("--folder", type=Path, required=True, help="runs and the experiment")
    words.add_argument("--budget", type=int, default=12)
    words.add_argument("--ranks", type=int, default=2)
    words.add_argument("--data", help="data folder instead of that of the settings")
    words.add_argument("--out", type=Path)
    options = words.parse_args()
    machine = describe_machine()
    settings = SETTINGS[options.what]
    given = {"data_path": options.data} if options.data else {}
    sda = search({**settings, **given}, options.folder, options.budget, options.ranks)
    with Experiment(options.folder / "bert" / "advisor.db", 1) as experiment:
        print(describe_search(experiment))
        save_pictures(experiment, options.folder / "pictures")
        trials, best, goals = experiment.trials, experiment.best, experiment.goals
    (default,) = [trial for trial in trials if trial.origin is Origin.DEFAULT]
    assert best is not None
    assert sda.config is not None
    config = sda.config.replace(output=str(options.folder / "again"))
    wanted = {"default": default.parameters, "best": best.parameters}
    again = train_again(config, options.ranks, wanted)
    medians = {
        name: statistics.median([float(one["training_time"]) for one in runs])
        for name, runs in again.items()
    }
    result = {
        "command": f"python -m benchmarks.advisor.live_search --what {options.what} "
        f"--budget {options.budget} --ranks {options.ranks}",
        "machine": machine,
        "settings": settings,
        "trials": [_row(trial) for trial in trials],
        "default": default.number,
        "best": best.number,
        "rule": goals.rule(),
        "times_as_fast_in_the_search": round(
            default.metrics["training_time"] / best.metrics["training_time"], 2
        ),
        "trained_again": again,
        "times_as_fast_trained_again": round(medians["default"] / medians["best"], 2),
        "best_reached_every_threshold_again": [
            goals.meets({"training_time": one["training_time"], "f1": one["f1"]})
            for one in again["best"]
        ],
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
