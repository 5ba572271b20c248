"""What is wanted: metrics with an objective and a threshold, and what follows from them.

With several metrics there is seldom one best trial. The Pareto set holds every trial that no other
one beats in all metrics; the hypervolume says how much of the wanted region that set covers; and
one stated rule picks the one best assignment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertkit.errors import AdvisorError

Floats = npt.NDArray[np.float64]
Values = Mapping[str, float]
"""A value for every metric, by name."""

OBJECTIVES = ("minimize", "maximize")
_SPELLINGS = {"minimise": "minimize", "maximise": "maximize", "maxmize": "maximize"}
_KEYS = ("name", "objective", "threshold", "strategy", "unit")


@dataclass(frozen=True)
class Metric:
    """One number a trial is judged by.

    Args:
        name: Such as ``"f1"``.
        objective: ``"minimize"`` or ``"maximize"``.
        threshold: Value it should reach; trials that do not are of little use. ``None`` for none.
        unit: For tables and pictures, such as ``"s"``.

    Raises:
        AdvisorError: If the objective or the threshold is neither of that.

    Example:
        >>> Metric("f1", "maximize", threshold=90.87).meets(91.0)
        True
    """

    name: str
    objective: str
    threshold: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        objective = _SPELLINGS.get(self.objective, self.objective)
        if objective not in OBJECTIVES:
            raise AdvisorError(
                f"metric {self.name!r}: objective is {self.objective!r}; expected 'minimize' or "
                "'maximize'"
            )
        object.__setattr__(self, "objective", objective)
        if self.threshold is not None and not is_number(self.threshold):
            raise AdvisorError(
                f"metric {self.name!r}: threshold is {self.threshold!r}; expected a number or none"
            )

    @property
    def sign(self) -> float:
        """1 where less is better, -1 where more is."""
        return 1.0 if self.objective == "minimize" else -1.0

    def meets(self, value: float) -> bool:
        """Whether a value reaches the threshold."""
        return self.threshold is None or self.sign * value <= self.sign * self.threshold

    def to_dict(self) -> dict[str, Any]:
        """The metric as SigOpt writes it."""
        values: dict[str, Any] = {"name": self.name, "objective": self.objective}
        if self.threshold is not None:
            values["threshold"] = self.threshold
        if self.unit:
            values["unit"] = self.unit
        return values


@dataclass(frozen=True)
class Goals:
    """All metrics of an experiment; the first one decides among trials that are good enough.

    Args:
        metrics: At least one, each with a name of its own.

    Raises:
        AdvisorError: If there is none, or two have the same name.

    Example:
        >>> goals = Goals.published()
        >>> trials = [{"training_time": 900, "f1": 91.2}, {"training_time": 300, "f1": 90.9},
        ...           {"training_time": 200, "f1": 85.0}, {"training_time": 950, "f1": 91.0}]
        >>> goals.pareto(trials)
        [0, 1, 2]
        >>> goals.best(trials)
        1
    """

    metrics: tuple[Metric, ...]

    def __post_init__(self) -> None:
        if not self.metrics:
            raise AdvisorError("there is no metric to search by; expected at least one")
        twice = [name for name in self.names if self.names.count(name) > 1]
        if twice:
            raise AdvisorError(f"metric {twice[0]!r} is named twice; keep one")

    @classmethod
    def published(cls) -> Goals:
        """Intel's demo: at most 10000 s of training and at least 90.87 % F1, each its best."""
        return cls(
            (
                Metric("training_time", "minimize", threshold=10000.0, unit="s"),
                Metric("f1", "maximize", threshold=90.87, unit="%"),
            )
        )

    @classmethod
    def read(cls, metrics: Any) -> Goals:
        """Read goals as SigOpt writes them, or as pairs of name and objective.

        Raises:
            AdvisorError: If they cannot be understood; the message names the metric.

        Example:
            >>> Goals.read([("accuracy", "maximize"),
            ...             {"name": "training_time", "objective": "minimize", "threshold": 60}]
            ... ).names
            ('accuracy', 'training_time')
        """
        if isinstance(metrics, Goals):
            return metrics
        if isinstance(metrics, str | Mapping) or not isinstance(metrics, Sequence):
            raise AdvisorError(f"metrics are {metrics!r}; expected a list of names with objectives")
        return cls(tuple(map(_read_metric, metrics)))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics, in order."""
        return tuple(m.name for m in self.metrics)

    def check(self, values: Mapping[str, object]) -> dict[str, float]:
        """Return the metrics of a trial as numbers, others left out.

        Raises:
            AdvisorError: If one is missing or is not a finite number.
        """
        checked: dict[str, float] = {}
        for metric in self.metrics:
            value = values.get(metric.name)
            if not is_number(value):
                raise AdvisorError(
                    f"metric {metric.name!r} is {value!r}; expected a finite number from the trial"
                )
            checked[metric.name] = float(value)  # type: ignore[arg-type]
        return checked

    def costs(self, trials: Sequence[Values]) -> Floats:
        """All metrics turned so that less is better.

        Returns:
            float64 ``[trials, metrics]``.
        """
        rows = [[m.sign * values[m.name] for m in self.metrics] for values in trials]
        return np.array(rows, dtype=np.float64).reshape(len(trials), len(self.metrics))

    def limits(self) -> Floats:
        """The thresholds among `costs`, infinite where there is none; float64 ``[metrics]``."""
        return np.array(
            [math.inf if m.threshold is None else m.sign * m.threshold for m in self.metrics]
        )

    @property
    def good_enough_is_stated(self) -> bool:
        """Whether there are several metrics and all but the first have a threshold."""
        others = self.metrics[1:]
        return bool(others) and all(m.threshold is not None for m in others)

    def meets(self, values: Values) -> bool:
        """Whether every metric reaches its threshold."""
        return all(m.meets(values[m.name]) for m in self.metrics)

    def pareto(self, trials: Sequence[Values]) -> list[int]:
        """Positions of the trials that no other trial beats; equal ones are all kept."""
        return np.flatnonzero(nondominated(self.costs(trials))).tolist()

    def hypervolume(self, trials: Sequence[Values], reference: Values | None = None) -> float:
        """How much of the wanted region the trials cover.

        Args:
            trials: Their metrics.
            reference: The region's worst corner; by default the thresholds.

        Raises:
            AdvisorError: If there is neither a reference nor a threshold for every metric.
        """
        corner = self.limits() if reference is None else self.costs([reference])[0]
        if not np.all(np.isfinite(corner)):
            raise AdvisorError(
                "the hypervolume needs a worst value for every metric; give each one a threshold "
                "or give a reference"
            )
        return hypervolume(self.costs(trials), corner)

    def best(self, trials: Sequence[Values]) -> int | None:
        """Position of the one best trial, by this rule.

        Among the trials that reach the thresholds of all metrics but the first, the one with the
        best first metric: the fastest of those that are good enough. If none is good enough, the
        one that comes nearest to the thresholds: with F1 alone, the best F1. Equal ones are told
        apart by the other metrics, then by who came first.

        Returns:
            ``None`` if there are no trials.
        """
        if not trials:
            return None
        costs, limits = self.costs(trials), self.limits()
        enough = np.all(costs[:, 1:] <= limits[1:], axis=1)
        if enough.any():
            rows = [(*costs[i], i) for i in np.flatnonzero(enough)]
            return int(min(rows)[-1])
        lacking = _lack(costs[:, 1:], limits[1:])
        rows = [(lacking[i], *costs[i, 1:], costs[i, 0], i) for i in range(len(trials))]
        return int(min(rows)[-1])

    def rule(self) -> str:
        """`best` in one sentence, with these metrics' names."""
        first, others = self.metrics[0], [m for m in self.metrics[1:] if m.threshold is not None]
        aim = "lowest" if first.objective == "minimize" else "highest"
        if not others:
            return f"The best trial is the one with the {aim} {first.name}."
        needs = " and ".join(
            f"{m.name} {'of at most' if m.objective == 'minimize' else 'of at least'} "
            f"{m.threshold:g}{m.unit and ' ' + m.unit}"
            for m in others
        )
        return (
            f"The best trial is the one with the {aim} {first.name} among those with {needs}; "
            "if there is none, the one that comes nearest to that."
        )

    def to_list(self) -> list[dict[str, Any]]:
        """The goals as SigOpt writes them; `read` reads them back."""
        return [m.to_dict() for m in self.metrics]


def nondominated(costs: Floats) -> npt.NDArray[np.bool_]:
    """Which rows no other row beats: as good everywhere and better somewhere.

    Args:
        costs: float64 ``[N, metrics]``, less is better.

    Returns:
        bool ``[N]``.
    """
    as_good = np.all(costs[:, None, :] <= costs[None, :, :], axis=2)
    better = np.any(costs[:, None, :] < costs[None, :, :], axis=2)
    beaten: npt.NDArray[np.bool_] = np.any(as_good & better, axis=0)
    return ~beaten


def hypervolume(costs: Floats, corner: Floats) -> float:
    """Volume between a worst corner and everything that is at least as bad as some row.

    The volume is cut into slices along the last metric (Zitzler's "hypervolume by slicing
    objectives"), which is exact and quick for the few metrics and trials of a search.

    Args:
        costs: float64 ``[N, metrics]``, less is better.
        corner: float64 ``[metrics]``; rows that are not better than it everywhere do not count.

    Example:
        >>> hypervolume(np.array([[0.0, 0.5], [0.5, 0.0]]), np.array([1.0, 1.0]))
        0.75
    """
    inside = costs[np.all(costs < corner, axis=1)]
    if not len(inside):
        return 0.0
    if costs.shape[1] == 1:
        return float(corner[0] - inside.min())
    inside = inside[nondominated(inside)]
    inside = inside[np.argsort(inside[:, -1], kind="stable")]
    ends = np.append(inside[1:, -1], corner[-1])
    return sum(
        float(end - row[-1]) * hypervolume(inside[: i + 1, :-1], corner[:-1])
        for i, (row, end) in enumerate(zip(inside, ends, strict=True))
        if end > row[-1]
    )


def _lack(costs: Floats, limits: Floats) -> Floats:
    """By how much the worst metric misses its threshold, as a share of the metric's spread."""
    finite = np.isfinite(limits)
    costs, limits = costs[:, finite], limits[finite]
    spread = np.maximum(np.ptp(costs, axis=0), 1e-12)
    lack: Floats = np.max(np.maximum(costs - limits, 0.0) / spread, axis=1)
    return lack


def _read_metric(item: Any) -> Metric:
    if isinstance(item, Metric):
        return item
    if isinstance(item, Mapping):
        unknown = [key for key in item if key not in _KEYS]
        if unknown or not isinstance(item.get("name"), str):
            what = f"{unknown[0]!r} is not known" if unknown else "it has no name"
            raise AdvisorError(f"metric {dict(item)!r}: {what}; expected {', '.join(_KEYS)}")
        strategy = item.get("strategy", "optimize")
        if strategy != "optimize":
            raise AdvisorError(
                f"metric {item['name']!r}: strategy is {strategy!r}; expected 'optimize'"
            )
        return Metric(
            item["name"],
            str(item.get("objective", "maximize")),
            item.get("threshold"),
            str(item.get("unit", "")),
        )
    if isinstance(item, list | tuple) and len(item) in (2, 3) and isinstance(item[0], str):
        return Metric(*item)
    raise AdvisorError(f"metric {item!r}: expected a name and an objective")


def is_number(value: object) -> bool:
    """Whether a value is a finite number, Python's or NumPy's."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return math.isfinite(float(value))
