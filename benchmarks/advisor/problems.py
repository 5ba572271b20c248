"""What samplers are compared on: the recorded table, and test functions with known Pareto fronts.

Each problem has a space, goals and a worst corner for the hypervolume. The corner is what the worst
of the table's trainings, or of a thousand random assignments, comes to in every metric, so that
nearly every trial counts for something; the figure that is compared is the share of the hypervolume
of the true Pareto front.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertkit.advisor.goals import Goals, hypervolume
from bertkit.advisor.space import Space, fingerprint
from bertkit.advisor.trial import Assignment

Floats = npt.NDArray[np.float64]
Metrics = Mapping[str, float]

TABLE = Path(__file__).with_name("table.jsonl")
PARAMETERS = ("learning_rate", "warmup_rate", "batch_size", "num_hidden_layers")
DIMENSIONS = 6


@dataclass(frozen=True)
class Problem:
    """Something to search.

    Args:
        space: What is searched.
        goals: What is wanted.
        evaluate: The metrics of an assignment.
        corner: Worst value of each metric, as a cost.
        most: Hypervolume of the true Pareto front from there.
    """

    space: Space
    goals: Goals
    evaluate: Callable[[Assignment], Metrics]
    corner: Floats
    most: float

    def share(self, metrics: list[Metrics]) -> float:
        """How much of the true front's hypervolume some trials cover, from 0 to 1."""
        return hypervolume(self.goals.costs(metrics), self.corner) / self.most


def read_table(path: Path = TABLE) -> list[dict[str, Any]]:
    """The recorded trainings."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def recorded(path: Path = TABLE) -> Problem:
    """The table of real trainings; an assignment is looked up, each one is in the table."""
    rows = read_table(path)
    space = Space.read({name: sorted({row[name] for row in rows}) for name in PARAMETERS})
    known = {
        fingerprint({name: row[name] for name in PARAMETERS}): {
            "training_time": float(row["training_time"]),
            "f1": float(row["f1"]),
        }
        for row in rows
    }
    lacking = [cell for cell in space.cells() if fingerprint(cell) not in known]
    if lacking:
        raise SystemExit(f"{path.name} lacks {len(lacking)} trainings; go on with make_table.py")
    goals = Goals.read([("training_time", "minimize"), ("f1", "maximize")])
    costs = goals.costs(list(known.values()))
    corner = costs.max(axis=0)
    return Problem(
        space,
        goals,
        lambda assignment: known[fingerprint(assignment)],
        corner,
        hypervolume(costs, corner),
    )


def zdt1() -> Problem:
    """Two objectives, a convex front.

    Source: Zitzler, Deb, Thiele, "Comparison of multiobjective evolutionary algorithms: empirical
    results" (2000).
    """
    first = np.linspace(0.0, 1.0, 2001)
    return _function(_zdt(lambda ratio: 1 - np.sqrt(ratio)), np.stack([first, 1 - first**0.5], 1))


def zdt2() -> Problem:
    """Two objectives, a concave front. Source: as `zdt1`."""
    first = np.linspace(0.0, 1.0, 2001)
    return _function(_zdt(lambda ratio: 1 - ratio**2), np.stack([first, 1 - first**2], 1))


def dtlz2() -> Problem:
    """Three objectives, the front an eighth of a sphere.

    Source: Deb et al., "Scalable test problems for evolutionary multiobjective optimization"
    (2005).
    """
    a, b = np.meshgrid(*[np.linspace(0.0, np.pi / 2, 25)] * 2)
    front = np.stack([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)], -1).reshape(-1, 3)

    def value(x: Floats) -> Floats:
        radius = 1 + np.sum((x[2:] - 0.5) ** 2)
        a, b = x[:2] * np.pi / 2
        return np.asarray(
            radius * np.array([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)])
        )

    return _function(value, front)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "table": recorded,
    "ZDT1": zdt1,
    "ZDT2": zdt2,
    "DTLZ2": dtlz2,
}


def _zdt(shape: Callable[[float], float]) -> Callable[[Floats], Floats]:
    def value(x: Floats) -> Floats:
        slope = 1 + 9 * float(np.mean(x[1:]))
        return np.array([x[0], slope * shape(float(x[0]) / slope)])

    return value


def _function(value: Callable[[Floats], Floats], front: Floats) -> Problem:
    space = Space.read({f"x{i}": (0.0, 1.0) for i in range(1, DIMENSIONS + 1)})
    goals = Goals.read([(f"f{i}", "minimize") for i in range(1, front.shape[1] + 1)])

    def evaluate(assignment: Assignment) -> Metrics:
        x = np.array([float(assignment[name] or 0) for name in space.names])
        return dict(zip(goals.names, map(float, value(x)), strict=True))

    random = np.random.default_rng(0)
    seen = [evaluate(space.sample(random)) for _ in range(1000)]
    corner = goals.costs(seen).max(axis=0)
    return Problem(space, goals, evaluate, corner, hypervolume(front, corner))
