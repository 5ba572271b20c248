r"""A real search, as its user runs it: how much faster the best model trains than the default.

The first trial has the settings one would use without a search: AdamW at the library's learning
rate and 16 questions a step, as in the README's run on real SQuAD; for ``--what demo`` those of
``make demo``, which were tuned by hand. When the search is over, default and best are trained
again, in turn, since one training's time says little on a machine that does other work.

    python -m benchmarks.advisor.live_search --folder live --out benchmarks/results/live_search.json
    python -m benchmarks.advisor.live_search --what demo --folder live-demo \
        --out benchmarks/results/live_search_demo.json
    python -m benchmarks.advisor.live_search --what squad --data squad --folder live-squad \
        --out benchmarks/results/live_search_squad.json

A stopped call is gone on with by the same command.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine
from benchmarks.report import show
from bertkit import SDA, Cluster, Predictor
from bertkit.advisor.console import describe_search, describe_trial, save_pictures
from bertkit.advisor.experiment import Experiment
from bertkit.advisor.trial import Assignment, Origin, Trial
from bertkit.advisor.trial_runner import trial_config
from bertkit.config import Config
from bertkit.run import Result, Run
from bertkit.squad.reading import read_squad
from bertkit.squad.sample import write_sample

Settings = dict[str, Any]

SHARED: Settings = {
    "training_time_threshold": 3600,
    "evaluate_every": 25,
    "evaluate_fraction": 1.0,  # of the questions that `some_questions` draws
    "checkpoint_every": 0,
}


LAYERS = {"name": "num_hidden_layers", "type": "int", "grid": [2, 3, 4, 5, 6]}
DROPOUT = {"name": "dropout", "type": "double", "grid": [0.0, 0.05, 0.1]}
LENGTHS = {"name": "group_by_length", "type": "categorical", "grid": [False, True]}


def _space(low: float, high: float, *others: dict[str, Any]) -> list[dict[str, Any]]:
    """Learning rates around the default's, and what else makes a step cheaper or worth more."""
    return [
        {"name": "learning_rate", "type": "double", "transformation": "log",
         "bounds": {"min": low, "max": high}},
        {"name": "warmup_rate", "type": "double", "bounds": {"min": 0.02, "max": 0.3}},
        {"name": "batch_size", "type": "int", "grid": [8, 12, 16, 24, 32]},
        *others,
    ]  # fmt: skip


UNTUNED: Settings = {
    **SHARED,
    "optimizer": "adamw",
    "learning_rate": 1e-4,
    "batch_size": 16,
    "num_epochs": 3,
}
"""bertkit train --optimizer adamw --batch_size 16, as in the README's run on real SQuAD."""

SETTINGS: dict[str, Settings] = {
    # A few hundred steps are too few to overfit: a smaller dropout is among the choices.
    "sample": {
        **UNTUNED,
        "data_path": "sample",
        "metric_threshold": 65,
        "parameters": _space(3e-5, 1e-3, LAYERS, DROPOUT),
    },
    # On real questions an earlier search gained little by leaving layers out; there paragraphs
    # differ in length, so that batches of like length are tried instead.
    "squad": {
        **UNTUNED,
        "metric_threshold": 45,
        "parameters": _space(3e-5, 1e-3, DROPOUT, LENGTHS),
    },
    # All but what decides when to stop is the preset "demo".
    "demo": {
        **SHARED,
        "data_path": "sample",
        "metric_threshold": 65,
        "parameters": _space(5e-4, 1e-2, LAYERS),
    },
}
DEV_QUESTIONS = 250
"""Trials are judged by so many: scoring all would take as long as much of a trial's training."""

PATHS = ("data_path", "train_file", "dev_file")
ROUNDS = 2


def settings_of(
    what: str, folder: Path, data: str | None, f1: float | None
) -> tuple[Settings, Path]:
    """The settings of a search, with what the command line changes, and all its questions."""
    settings = dict(SETTINGS[what])
    if f1 is not None:
        settings["metric_threshold"] = f1
    if what != "squad":
        source = folder / "sample"
        write_sample(source)
        settings["train_file"] = str(source / "train-v1.1.json")
    else:
        data = data or os.environ.get("BERTKIT_SQUAD_DIR")
        if data is None:
            raise SystemExit("give the folder of SQuAD's files with --data or BERTKIT_SQUAD_DIR")
        settings["data_path"], source = data, Path(data)
    settings["dev_file"] = str(some_questions(source, folder))
    return settings, source / "dev-v1.1.json"


def some_questions(data: Path, folder: Path) -> Path:
    """Write the questions of some paragraphs, drawn once, as a validation file of their own."""
    content = json.loads((data / "dev-v1.1.json").read_text(encoding="utf-8"))
    paragraphs = [
        (article["title"], paragraph)
        for article in content["data"]
        for paragraph in article["paragraphs"]
    ]
    chosen: list[dict[str, Any]] = []
    questions = 0
    for index in np.random.default_rng(42).permutation(len(paragraphs)).tolist():
        if questions >= DEV_QUESTIONS:
            break
        title, paragraph = paragraphs[index]
        chosen.append({"title": title, "paragraphs": [paragraph]})
        questions += len(paragraph["qas"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"dev-{DEV_QUESTIONS}.json"
    path.write_text(json.dumps({"version": "1.1", "data": chosen}), encoding="utf-8")
    return path


def search(settings: Settings, folder: Path, budget: int, ranks: int) -> SDA:
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


def train_again(
    config: Config, ranks: int, wanted: dict[str, Assignment], rounds: int
) -> dict[str, Any]:
    """Train each assignment so many times, in turn."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}
    with Cluster(n=ranks) as cluster:
        for number in range(1, rounds + 1):
            for name, parameters in wanted.items():
                result = _trained(cluster, trial_config(config, parameters), f"{name}-{number}")
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


def _trained(cluster: Cluster, config: Config, name: str) -> Result:
    """The result of the run of this name, which is trained unless an earlier call has done so."""
    folder = Path(config.output) / name
    if folder.exists():
        if (known := Run(folder).result) is not None:
            return known
        shutil.rmtree(folder)
    return cluster.train(config, name=name).wait()


def _f1_of(trial: Trial, questions: Path) -> float:
    assert trial.artifact is not None
    scores, _ = Predictor(trial.artifact).evaluate(read_squad(questions))
    return scores.f1


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
    words.add_argument("--rounds", type=int, default=ROUNDS)
    words.add_argument("--f1", type=float, help="threshold instead of that of the settings")
    words.add_argument("--data", help="the folder of SQuAD's files")
    words.add_argument("--out", type=Path)
    options = words.parse_args()
    machine = describe_machine()
    settings, all_questions = settings_of(options.what, options.folder, options.data, options.f1)
    sda = search(settings, options.folder, options.budget, options.ranks)
    with Experiment(options.folder / "bert" / "advisor.db", 1) as experiment:
        print(describe_search(experiment))
        save_pictures(experiment, options.folder / "pictures")
        trials, best, goals = experiment.trials, experiment.best, experiment.goals
    (default,) = [trial for trial in trials if trial.origin is Origin.DEFAULT]
    assert best is not None
    assert sda.config is not None
    config = sda.config.replace(output=str(options.folder / "again"))
    wanted = {"default": default.parameters, "best": best.parameters}
    again = train_again(config, options.ranks, wanted, options.rounds)
    on_all = _f1_of(best, all_questions)
    medians = {
        name: statistics.median([float(one["training_time"]) for one in runs])
        for name, runs in again.items()
    }
    result = {
        "command": f"python -m benchmarks.advisor.live_search --what {options.what} "
        f"--budget {options.budget} --ranks {options.ranks} --rounds {options.rounds}",
        "machine": machine,
        "settings": {k: v for k, v in settings.items() if k not in PATHS},
        "validation_questions": DEV_QUESTIONS,
        "f1_of_the_best_on_all_validation_questions": round(on_all, 2),
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
    show(result, options.out)


if __name__ == "__main__":
    main()
