"""Which values to try next, and why.

`ParEgo` is the advisor; `RandomSampler` is what it has to beat. Both see all trials so far, never
propose one of them again, and are fixed by a seed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from skopt import Optimizer
from skopt.acquisition import gaussian_ei

from bertkit.advisor.goals import Goals, nondominated
from bertkit.advisor.scalarization import (
    Scalarization,
    spread_points,
    weights_at,
    weights_of_the_first,
)
from bertkit.advisor.space import Space, fingerprint
from bertkit.advisor.surrogate import Encoding, Surrogate, gaussian_process, is_ratio_scale
from bertkit.advisor.trial import Assignment, Origin, Proposal, State, Trial
from bertkit.config import Scalar
from bertkit.errors import AdvisorError

Floats = npt.NDArray[np.float64]

SMALL_SPACE = 4096
"""A space of at most so many assignments is looked at as a whole."""

RANDOM_CANDIDATES, NEAR_CANDIDATES, REFINED_CANDIDATES = 2000, 1000, 300
REFINEMENTS = 2

_SPREAD, _WEIGHTS, _PROPOSAL = 0, 1, 2  # keep the random numbers of different uses apart


class SpaceExhaustedError(AdvisorError):
    """Every assignment of the space has been tried."""


class Sampler(Protocol):
    """Proposes the next trial."""

    def propose(self, space: Space, goals: Goals, trials: Sequence[Trial], seed: int) -> Proposal:
        """Propose an assignment that is none of the trials'.

        Args:
            space: What is searched.
            goals: What is wanted.
            trials: All trials so far, in any state.
            seed: Fixes the proposal together with the trials.

        Raises:
            SpaceExhaustedError: If there is none left.
        """


class RandomSampler:
    """Draws uniformly over the space."""

    def propose(self, space: Space, goals: Goals, trials: Sequence[Trial], seed: int) -> Proposal:
        """See `Sampler`."""
        del goals
        rng = np.random.default_rng([seed, _PROPOSAL, len(trials)])
        parameters = _first_new(space, trials, lambda: space.sample(rng))
        return Proposal(
            parameters=parameters, origin=Origin.RANDOM, reason="Drawn at random from the space."
        )


@dataclass(frozen=True)
class ParEgo:
    """Walks the Pareto front: weighs the metrics anew for each proposal and models the sum.

    Where every metric but the first has a threshold, what is good enough is known, and the best
    trial is the one of them that leads in the first metric. Every other proposal then looks for
    that one alone: searches of 12 trials spent theirs on the far ends of the front otherwise.

    scikit-optimize's ``Optimizer`` is told all trials under the new weights, and asked for the
    assignment of largest expected improvement; what it answers is compared with every assignment
    nearby. Trials that are still going on are told at the value of the best one (constant liar),
    so several proposals at once differ; failed ones at that of the worst, pruned ones no better
    than the median.

    Args:
        initial: Trials spread evenly over the space before there is a model; by default two more
            than there are parameters.
        leader_only: Where good enough is stated, look with every proposal for the best trial
            alone. It is so where trials that fall behind it are stopped (`stops_the_slower`):
            what lies further along the front would be stopped too.

    Source: Knowles, "ParEGO" (2006); Ginsbourger et al., "Kriging is well-suited to parallelize
    optimization" (2010) for the constant liar.
    """

    initial: int | None = None
    leader_only: bool = False

    def propose(self, space: Space, goals: Goals, trials: Sequence[Trial], seed: int) -> Proposal:
        """See `Sampler`."""
        _check_not_exhausted(space, trials)
        initial = len(space.parameters) + 2 if self.initial is None else self.initial
        finished = [t for t in trials if t.state is State.FINISHED]
        tried = [t for t in trials if t.state is not State.SKIPPED]
        if len(finished) < 2 or len(tried) < initial:
            return _spread(space, trials, seed, initial)
        weights = _weights(goals, trials, seed, self.leader_only)
        return _Round(space, goals, trials, finished, seed, weights).proposal()


def _spread(space: Space, trials: Sequence[Trial], seed: int, initial: int) -> Proposal:
    """The next point of an even sequence that has not been tried."""
    shift = np.random.default_rng([seed, _SPREAD]).random(len(space.parameters))
    points = iter(spread_points(len(trials) + SMALL_SPACE, len(space.parameters), shift).tolist())
    parameters = _first_new(space, trials, lambda: space.at(next(points)))
    reason = (
        f"One of the first {initial} trials, which are spread evenly over the space so that "
        "there is something to learn from."
    )
    return Proposal(parameters=parameters, origin=Origin.SPREAD, reason=reason)


def _weights(goals: Goals, trials: Sequence[Trial], seed: int, leader_only: bool) -> Floats:
    """How much each metric counts in the next proposal."""
    count = len(goals.metrics)
    position = sum(t.origin in (Origin.MODEL, Origin.EDITED) for t in trials)
    if goals.good_enough_is_stated:
        if leader_only or position % 2 == 0:
            return weights_of_the_first(count)
        position //= 2
    shift = np.random.default_rng([seed, _WEIGHTS]).random(count - 1)
    return weights_at(position, count, shift)


class _Round:
    """One proposal from the model: weights, model, candidates, choice."""

    def __init__(
        self,
        space: Space,
        goals: Goals,
        trials: Sequence[Trial],
        finished: Sequence[Trial],
        seed: int,
        weights: Floats,
    ) -> None:
        self._space, self._goals = space, goals
        self._trials, self._finished = trials, finished
        self._rng = np.random.default_rng([seed, _PROPOSAL, len(trials)])
        self._encoding = Encoding(space)
        self._taken = {fingerprint(t.parameters) for t in trials}
        self.weights = weights

    def proposal(self) -> Proposal:
        """Fit, look around and choose."""
        told, values = self._tell()
        optimizer = self._optimizer(values, len(told))
        with warnings.catch_warnings():
            # It warns of repeated points and of length scales at their bounds; both are dealt with.
            warnings.simplefilter("ignore")
            optimizer.tell([self._encoding.point(t.parameters) for t in told], values.tolist())
            asked = self._encoding.assignment(optimizer.ask())
        model, best = optimizer.models[-1], float(self._observed.min())

        def gain(assignments: Sequence[Assignment]) -> Floats:
            rows = self._encoding.transform(assignments)
            improvement: Floats = gaussian_ei(rows, model, y_opt=best, xi=0.0)
            return improvement

        candidates, gains = self._look_around(asked, gain)
        parameters = self._best_new(candidates, gains)
        mean = float(model.predict(self._encoding.transform([parameters]))[0])
        surrogate = Surrogate(self._space, self._goals, self._trials)
        return Proposal(
            parameters=parameters,
            origin=Origin.MODEL,
            reason=self._reason(len(candidates), mean < best),
            predicted=surrogate.predict([parameters])[0],
        )

    def _tell(self) -> tuple[list[Trial], Floats]:
        """Every trial with the one number it is told at."""
        costs = self._costs(self._finished)
        weigh = Scalarization.fitted(costs, self._limits(), self.weights)
        self._weigh = weigh
        self._observed = weigh(costs)
        told, values = list(self._finished), self._observed.tolist()
        for trial in self._trials:
            value = self._stand_in(trial)
            if value is not None:
                told.append(trial)
                values.append(value)
        return told, np.array(values)

    def _stand_in(self, trial: Trial) -> float | None:
        """The number that an unfinished trial is told at, if any."""
        if trial.state.open:
            return float(self._observed.min())
        if trial.state is State.FAILED:
            return float(self._observed.max())
        if trial.state is State.PRUNED:
            median = float(np.median(self._observed))
            if set(self._goals.names) <= set(trial.metrics):
                return max(float(self._weigh(self._costs([trial]))[0]), median)
            return median
        return None

    def _costs(self, trials: Sequence[Trial]) -> Floats:
        costs = self._goals.costs([t.metrics for t in trials])
        ratio = self._ratio_metrics()
        costs[:, ratio] = np.log(np.maximum(costs[:, ratio], 1e-12))
        return costs

    def _limits(self) -> Floats:
        limits = self._goals.limits()
        ratio = self._ratio_metrics() & np.isfinite(limits)
        limits[ratio] = np.log(np.maximum(limits[ratio], 1e-12))
        return limits

    def _ratio_metrics(self) -> npt.NDArray[np.bool_]:
        """Metrics such as times, of which ratios count."""
        costs = self._goals.costs([t.metrics for t in self._finished])
        return np.array(
            [m.sign > 0 and is_ratio_scale(costs[:, i]) for i, m in enumerate(self._goals.metrics)]
        )

    def _optimizer(self, values: Floats, told: int) -> Any:
        columns = self._encoding.transform([self._finished[0].parameters]).shape[1]
        known = [[t.noise.get(m, 0.0) for m in self._goals.names] for t in self._finished]
        noise = np.zeros(told)
        noise[: len(known)] = self._weigh.noise(np.array(known, dtype=np.float64))
        return Optimizer(
            self._encoding.dimensions,
            base_estimator=gaussian_process(columns, noise / max(float(np.var(values)), 1e-12)),
            n_initial_points=0,
            acq_func="EI",
            acq_func_kwargs={"xi": 0.0},
            acq_optimizer="sampling",
            acq_optimizer_kwargs={"n_points": RANDOM_CANDIDATES},
            random_state=int(self._rng.integers(2**31 - 1)),
        )

    def _look_around(
        self, asked: dict[str, Scalar], gain: Callable[[Sequence[Assignment]], Floats]
    ) -> tuple[list[dict[str, Scalar]], Floats]:
        """Candidates with their expected improvements."""
        if self._space.size is not None and self._space.size <= SMALL_SPACE:
            everything: list[dict[str, Scalar]] = list(self._space.cells())
            return everything, gain(everything)
        front = nondominated(self._costs(self._finished))
        leaders = {*np.flatnonzero(front).tolist(), *np.argsort(self._observed)[:3].tolist()}
        centers = [self._finished[i].parameters for i in sorted(leaders)]
        candidates = [
            asked,
            *(self._space.sample(self._rng) for _ in range(RANDOM_CANDIDATES)),
            *self._near(centers, NEAR_CANDIDATES),
        ]
        gains = gain(candidates)
        for _ in range(REFINEMENTS):
            top = [candidates[i] for i in np.argsort(-gains)[:10]]
            closer = self._near(top, REFINED_CANDIDATES)
            candidates += closer
            gains = np.append(gains, gain(closer))
        return candidates, gains

    def _near(self, centers: Sequence[Assignment], count: int) -> list[dict[str, Scalar]]:
        """Assignments that differ from one of these in some parameters, by much or little."""
        places = np.array([self._space.shares(c) for c in centers])
        places = places[self._rng.integers(0, len(places), count)]
        moved = self._rng.random(places.shape) < 0.5
        moved[np.arange(count), self._rng.integers(0, places.shape[1], count)] = True
        reach = 10 ** self._rng.uniform(-2.7, -0.3, (count, 1))
        places = places + moved * reach * self._rng.standard_normal(places.shape)
        return [self._space.at(row) for row in np.clip(places, 0.0, 1.0).tolist()]

    def _best_new(
        self, candidates: Sequence[dict[str, Scalar]], gains: Floats
    ) -> dict[str, Scalar]:
        order: list[int] = np.argsort(-gains, kind="stable").tolist()
        for index in order:
            if fingerprint(candidates[index]) not in self._taken:
                return candidates[index]
        return _first_new(self._space, self._trials, lambda: self._space.sample(self._rng))

    def _reason(self, candidates: int, better: bool) -> str:
        shares = " and ".join(
            f"{name} {weight:.0%}"
            for name, weight in zip(self._goals.names, self.weights, strict=True)
        )
        why = (
            "the model expects it to beat all trials so far"
            if better
            else "the model knows little there and it may beat all trials so far"
        )
        aim = (
            f"With {shares} of the weight"
            if len(self.weights) > 1
            else "Looking for the best value"
        )
        met = any(self._goals.meets(t.metrics) for t in self._finished)
        wanted = "" if met else " No trial reaches every threshold yet, so that comes first."
        return f"{aim}, this promises most of {candidates:,} assignments: {why}.{wanted}"


def _check_not_exhausted(space: Space, trials: Sequence[Trial]) -> None:
    tried = {fingerprint(t.parameters) for t in trials if t.parameters in space}
    if space.size is not None and len(tried) >= space.size:
        raise SpaceExhaustedError(
            f"all {space.size} assignments of the space have been tried; widen the space to go on"
        )


def _first_new(
    space: Space, trials: Sequence[Trial], draw: Callable[[], dict[str, Scalar]]
) -> dict[str, Scalar]:
    """Draw until something has not been tried; then take the first that has not."""
    _check_not_exhausted(space, trials)
    taken = {fingerprint(t.parameters) for t in trials}
    for _ in range(SMALL_SPACE):
        parameters = draw()
        if fingerprint(parameters) not in taken:
            return parameters
    return next(cell for cell in space.cells() if fingerprint(cell) not in taken)
