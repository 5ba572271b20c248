"""Replays searches with and without early stopping of trials: time saved, and the winner kept.

    python -m benchmarks.advisor.replay_pruning --out benchmarks/results/replay_pruning.json

A replay is a sequence of 25 recorded trainings, as random search draws it and as bertkit's proposer
chooses it, run once to the end and once under each rule. As in a real search, training stops by
itself where F1 reaches its target, and the winner is the fastest training that reached it.

The rules' numbers were chosen while looking at the first 20 seeds; the next 20 were held out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.advisor.make_table import GRID, read_table
from benchmarks.machine import describe_machine
from bertkit.advisor.goals import Goals, Metric
from bertkit.advisor.parameters import Choices
from bertkit.advisor.proposing import ParEgo, RandomSampler, Sampler
from bertkit.advisor.pruning import Pruner, pruner
from bertkit.advisor.space import Space, fingerprint
from bertkit.advisor.trial import CurvePoint, Origin, State, Trial

F1_THRESHOLD = 90.87
"""The published one."""

TRIALS, REPLAYS = 25, 20
SEEDS = {"": range(REPLAYS), ", held out": range(REPLAYS, 2 * REPLAYS)}
RULES = ("median", "halving")

SPACE = Space(tuple(Choices(name, values) for name, values in GRID.items()))
GOALS = Goals(
    (Metric("training_time", "minimize", None, "s"), Metric("f1", "maximize", F1_THRESHOLD, "%"))
)


def whole_trainings() -> dict[str, Trial]:
    """Every recorded training as a finished trial, up to where its F1 reaches the target."""
    found = {}
    for row in read_table():
        points = [CurvePoint(*point) for point in row["curve"]]
        reached = [i for i, point in enumerate(points, 1) if point.value >= F1_THRESHOLD]
        parameters = {name: row[name] for name in SPACE.names}
        curve = tuple(points[: reached[0]] if reached else points)
        found[fingerprint(parameters)] = Trial(
            number=0, parameters=parameters, state=State.FINISHED, origin=Origin.MODEL,
            metrics={
                "training_time": curve[-1].seconds, "f1": max(point.value for point in curve)
            },
            curve=curve,
        )  # fmt: skip
    return found


def sequence(sampler: Sampler, known: Mapping[str, Trial], seed: int) -> list[Trial]:
    """The trainings that a sampler asks for where none is stopped."""
    trials: list[Trial] = []
    for number in range(1, TRIALS + 1):
        proposal = sampler.propose(SPACE, GOALS, trials, seed)
        whole = known[fingerprint(proposal.parameters)]
        trials.append(_changed(whole, number=number))
    return trials


def replay(trials: Sequence[Trial], rule: Pruner) -> list[Trial]:
    """The same trainings, each stopped where the rule says so."""
    seen: list[Trial] = []
    for trial in trials:
        seen.append(_until_stopped(trial, seen, rule))
    return seen


def _until_stopped(trial: Trial, others: Sequence[Trial], rule: Pruner) -> Trial:
    for count in range(1, len(trial.curve)):  # at the last point it is over anyway
        curve = trial.curve[:count]
        reason = rule.verdict(curve, others, GOALS)
        if reason:
            return _changed(trial, state=State.PRUNED, curve=curve, message=reason)
    return trial


def _changed(trial: Trial, **changes: Any) -> Trial:
    return Trial(**{**vars(trial), **changes})


def winner(trials: Sequence[Trial]) -> Trial:
    """The best finished trial by the stated rule."""
    finished = [t for t in trials if t.state is State.FINISHED]
    position = GOALS.best([t.metrics for t in finished])
    assert position is not None
    return finished[position]


def seconds(trials: Sequence[Trial]) -> float:
    """Training time of all trials together."""
    return sum(trial.curve[-1].seconds for trial in trials)


def compare(sequences: Sequence[Sequence[Trial]], rule: Pruner) -> dict[str, Any]:
    """All replays under one rule."""
    saved, same, slower = [], [], []
    for whole in sequences:
        stopped = replay(whole, rule)
        saved.append(round(1 - seconds(stopped) / seconds(whole), 4))
        first, second = winner(whole), winner(stopped)
        same.append(first.number == second.number)
        slower.append(round(second.curve[-1].seconds / first.curve[-1].seconds, 3))
    return {
        "same_winner": sum(same),
        "replays": len(sequences),
        "saved_median": round(float(np.median(saved)), 3),
        "saved_least": min(saved),
        "other_winners_time_ratio": [r for r, s in zip(slower, same, strict=True) if not s],
        "saved": saved,
    }


def _compare_all() -> dict[str, Any]:
    known, found = whole_trainings(), {}
    for name, sampler in (
        ("random search", RandomSampler()),
        ("bertkit", ParEgo(leader_only=True)),
    ):
        for part, seeds in SEEDS.items():
            sequences = [sequence(sampler, known, seed) for seed in seeds]
            for rule in RULES:
                found[f"{name}, {rule}{part}"] = one = compare(sequences, pruner(rule))
                print(
                    f"{name}, {rule}{part}: saves {one['saved_median']:.0%} (least "
                    f"{one['saved_least']:.0%}), same winner in {one['same_winner']} of {REPLAYS}",
                    flush=True,
                )
    return found


def main() -> None:
    """Replay all, print and keep what came out."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, required=True)
    out = options.parse_args().out
    found = _compare_all()
    content = {
        "what": f"{TRIALS} recorded trainings a replay, target F1 {F1_THRESHOLD}",
        "command": "python -m benchmarks.advisor.replay_pruning",
        "machine": describe_machine(),
        "replays": found,
    }
    out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
