"""Stopping trials that cannot win, by their curves.

A curve is one metric, such as F1, over the seconds trained; where the search is for the fastest
model that is good enough, seconds are what trials must be compared along: a large batch takes
fewer steps, but longer ones. Both rules look at the best value so far, so one bad validation does
not end a trial.

Each rule is chosen by one word: ``"halving"``, ``"median"``, or ``"off"``. Halving is the default:
over recorded trainings it saved more time than the median, and both kept the winner
(``benchmarks/advisor/replay_pruning.py``).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bertkit.advisor.goals import Goals
from bertkit.advisor.trial import CurvePoint, State, Trial
from bertkit.errors import AdvisorError

Curve = Sequence[CurvePoint]

TIME_METRIC = "training_time"
"""Seconds trained: the one metric that a curve's own time says something about."""


class Pruner(Protocol):
    """Says whether a trial should be stopped, and why."""

    def verdict(self, curve: Curve, trials: Sequence[Trial], goals: Goals) -> str | None:
        """Look at the newest point of a running trial.

        Args:
            curve: The trial's curve so far, oldest point first, of the last metric of the goals.
            trials: All other trials.
            goals: What is wanted.

        Returns:
            Why it should be stopped, in one sentence, or ``None`` to let it go on.
        """


class NeverPruner:
    """Lets every trial go on: the word ``"off"``."""

    def verdict(self, curve: Curve, trials: Sequence[Trial], goals: Goals) -> str | None:
        """See `Pruner`."""
        del curve, trials, goals
        return None


@dataclass(frozen=True)
class MedianPruner:
    """Stops a trial whose best value is worse than the median of the others' after as long.

    Others are all trials that came so far, however they ended: were those left out that were
    stopped, the median would rise with each of them. Who finished before counts with its best
    value. Where the search is for the fastest trial that meets every threshold, one that has
    trained longer than the fastest so far is stopped in any case.

    Args:
        startup: Others that must have come so far before any trial is stopped by the median.
        grace: Share of the fastest finished trial's time in which no trial is stopped. F1 rises
            late, and latest where the learning rate is small or warms up for long: what leads in
            the first half says little about the end.

    Source: Golovin et al., "Google Vizier: a service for black-box optimization" (2017), 3.2.2.
    """

    startup: int = 2
    grace: float = 0.5

    def verdict(self, curve: Curve, trials: Sequence[Trial], goals: Goals) -> str | None:
        """See `Pruner`."""
        too_slow = _too_slow(curve, trials, goals)
        if too_slow or not curve or curve[-1].seconds < self.grace * _shortest(trials):
            return too_slow
        own, others = _compared(curve, trials, goals)
        if len(others) < self.startup or own <= float(np.median(others)):
            return None
        name, now = goals.metrics[-1].name, curve[-1].seconds
        return (
            f"after {now:.0f} s its best {name} was {abs(own):.2f}; half of the others had reached "
            f"{abs(float(np.median(others))):.2f} by then"
        )


@dataclass(frozen=True)
class HalvingPruner:
    """Asynchronous successive halving: only the best part of the trials passes each rung.

    Trials that have trained longer than the fastest good one are stopped as by `MedianPruner`.

    Args:
        factor: Each rung is so many times as late as the one before, and one trial in so many
            passes it.
        first: Time of the first rung as a share of the fastest finished trial's; early enough to
            save time, late enough for late risers, see `MedianPruner`.
        startup: Others that must have come to a rung before any trial is stopped there.

    Source: Li et al., "A system for massively parallel hyperparameter tuning" (2020).
    """

    factor: float = 2.0
    first: float = 0.4
    startup: int = 2

    def verdict(self, curve: Curve, trials: Sequence[Trial], goals: Goals) -> str | None:
        """See `Pruner`."""
        too_slow, begin = _too_slow(curve, trials, goals), self.first * _shortest(trials)
        if too_slow or not _passes_rung(curve, begin, self.factor):
            return too_slow
        own, others = _compared(curve, trials, goals)
        passing = max(1, math.ceil((len(others) + 1) / self.factor))
        if len(others) < self.startup or bisect.bisect_left(others, own) < passing:
            return None
        name, now = goals.metrics[-1].name, curve[-1].seconds
        return (
            f"after {now:.0f} s its best {name} was {abs(own):.2f}; only the best {passing} of "
            f"{len(others) + 1} trials go on from there"
        )


DEFAULT_PRUNING = "halving"

PRUNERS: Mapping[str, type[NeverPruner] | type[MedianPruner] | type[HalvingPruner]] = {
    "median": MedianPruner,
    "halving": HalvingPruner,
    "off": NeverPruner,
}


def pruner(word: str) -> Pruner:
    """The rule that goes by one word.

    Raises:
        AdvisorError: If there is no such rule.
    """
    if word not in PRUNERS:
        raise AdvisorError(f"pruning is {word!r}; expected one of {', '.join(PRUNERS)}")
    return PRUNERS[word]()


def stops_the_slower(word: str, goals: Goals) -> bool:
    """Whether a rule stops every trial that trains longer than the fastest good one.

    Args:
        word: The rule's, as in `pruner`.
        goals: What is wanted.

    Example:
        >>> [stops_the_slower(word, Goals.published()) for word in ("halving", "off")]
        [True, False]
    """
    return word != "off" and _fastest_wins(goals)


def best_cost(curve: Curve, seconds: float, sign: float = -1.0) -> float:
    """The best value of a curve by some time, turned so that less is better.

    Args:
        curve: Oldest point first.
        seconds: Points after this time do not count.
        sign: 1 where less is better, -1 where more is.

    Returns:
        Infinity if the curve has no point by then.
    """
    return min((sign * p.value for p in curve if p.seconds <= seconds), default=math.inf)


def _shortest(trials: Sequence[Trial]) -> float:
    """Time of the fastest finished trial; infinite if there is none."""
    finished = [t.curve[-1].seconds for t in trials if t.state is State.FINISHED and t.curve]
    return min(finished, default=math.inf)


def _compared(curve: Curve, trials: Sequence[Trial], goals: Goals) -> tuple[float, list[float]]:
    """Best cost of a trial so far, and those of the others by then, the best first.

    Others are those that have come so far, however they ended, and those that finished before.
    """
    sign, now = goals.metrics[-1].sign, curve[-1].seconds
    others = [
        best_cost(t.curve, now, sign)
        for t in trials
        if t.curve and (t.state is State.FINISHED or t.curve[-1].seconds >= now)
    ]
    return best_cost(curve, now, sign), sorted(others)


def _passes_rung(curve: Curve, begin: float, factor: float) -> bool:
    """Whether the newest point is the first one after a rung."""
    if not curve or begin <= 0 or curve[-1].seconds < begin:
        return False
    now, before = curve[-1].seconds, curve[-2].seconds if len(curve) > 1 else 0.0
    newest: float = begin * factor ** math.floor(math.log(now / begin, factor) + 1e-9)
    return before < newest


def _fastest_wins(goals: Goals) -> bool:
    first = goals.metrics[0]
    return first.name == TIME_METRIC and first.sign > 0 and len(goals.metrics) > 1


def _too_slow(curve: Curve, trials: Sequence[Trial], goals: Goals) -> str | None:
    """Time only grows: who is behind the best trial already cannot become the fastest."""
    if not curve or not _fastest_wins(goals):
        return None
    finished = [t.metrics for t in trials if t.state is State.FINISHED]
    times = [metrics[TIME_METRIC] for metrics in finished if goals.meets(metrics)]
    now = curve[-1].seconds
    if not times or now <= min(times):
        return None
    return (
        f"after {now:.0f} s it was still training; the fastest trial that reaches every threshold "
        f"took {min(times):.0f} s"
    )
