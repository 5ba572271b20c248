"""Several metrics as one number to be minimised, weighed anew for each proposal.

The augmented Tchebycheff norm of ParEGO (Knowles, "ParEGO: a hybrid algorithm with on-line
landscape approximation for expensive multiobjective optimization problems", 2006): with weights
that go over the simplex, its minima go over the whole Pareto front, be it convex or not. What lies
beyond a threshold pays extra, so the walk stays where a trial would be of use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bertkit.advisor.goals import nondominated

Floats = npt.NDArray[np.float64]

AUGMENTATION = 0.05
"""Share of the plain weighted sum, so that of two equal maxima the better rest wins."""

FIRST_SHARE = 0.95
"""Weight of the first metric where the search is for the best of it alone."""

PENALTY = 2.0
"""Added for each unit (the front's extent) by which the worst threshold is missed."""


@dataclass(frozen=True)
class Scalarization:
    """One way of weighing all metrics.

    Args:
        weights: Weight of each metric, float64 ``[metrics]``; they add up to 1.
        low: Best cost of each metric so far, float64 ``[metrics]``.
        span: From there to the worst cost on the Pareto front, float64 ``[metrics]``.
        limits: Thresholds as costs, infinite where there is none, float64 ``[metrics]``.

    Example:
        >>> costs = np.array([[0.0, 1.0], [1.0, 0.0], [0.4, 0.4]])
        >>> weigh = Scalarization.fitted(costs, np.full(2, np.inf), np.array([0.5, 0.5]))
        >>> int(np.argmin(weigh(costs)))
        2
    """

    weights: Floats
    low: Floats
    span: Floats
    limits: Floats

    @classmethod
    def fitted(cls, costs: Floats, limits: Floats, weights: Floats) -> Scalarization:
        """Take ideal and extent from the trials so far.

        Args:
            costs: Their costs, float64 ``[N, metrics]`` with ``N`` of at least 1.
            limits: See above.
            weights: See above.
        """
        useful = costs[np.all(costs <= limits, axis=1)]
        among = useful if len(useful) else costs
        front = among[nondominated(among)]
        low = front.min(axis=0)
        # One trial alone has no extent; then everything seen, up to the threshold, gives one.
        widest = np.minimum(costs.max(axis=0), np.maximum(limits, low))
        span = np.where(np.ptp(front, axis=0) > 0, np.ptp(front, axis=0), widest - low)
        span = np.where(span > 0, span, np.maximum(np.ptp(costs, axis=0), 1e-9))
        return cls(weights, low, span, limits)

    def __call__(self, costs: Floats) -> Floats:
        """Weigh costs, float64 ``[N, metrics]``, into one number each, float64 ``[N]``."""
        weighed = self.weights * (costs - self.low) / self.span
        missed = np.maximum(costs - self.limits, 0.0) / self.span
        total: Floats = (
            weighed.max(axis=1) + AUGMENTATION * weighed.sum(axis=1) + PENALTY * missed.max(axis=1)
        )
        # What is far from the front only needs to be known as bad, not how bad.
        return np.where(total > 1.0, 1.0 + np.log(np.maximum(total, 1.0)), total)

    def noise(self, deviations: Floats) -> Floats:
        """Variance of the weighed number from standard deviations ``[N, metrics]``."""
        variance: Floats = np.sum((self.weights * deviations / self.span) ** 2, axis=1)
        return variance


def spread_points(count: int, dimensions: int, shift: Floats) -> Floats:
    """The first points of a sequence that fills the unit cube evenly however long it becomes.

    Args:
        count: Number of points.
        dimensions: Of the cube.
        shift: Moves all points around, float64 ``[dimensions]``.

    Returns:
        float64 ``[count, dimensions]``.

    Source: Roberts, "The unreasonable effectiveness of quasirandom sequences" (2018).
    """
    golden = 2.0
    for _ in range(64):  # the positive root of x^(d+1) = x + 1
        golden = (1.0 + golden) ** (1.0 / (dimensions + 1))
    steps = golden ** -np.arange(1.0, dimensions + 1)
    points: Floats = np.mod(shift + np.arange(1, count + 1)[:, None] * steps, 1.0)
    return points


def weights_at(position: int, metrics: int, shift: Floats) -> Floats:
    """Weights of one proposal; those of the following ones fill the simplex evenly.

    Args:
        position: From 0.
        metrics: Number of weights.
        shift: See `spread_points`, float64 ``[metrics - 1]``.
    """
    if metrics == 1:
        return np.ones(1)
    cuts = np.sort(spread_points(position + 1, metrics - 1, shift)[-1])
    return np.diff(np.concatenate([[0.0], cuts, [1.0]]))


def weights_of_the_first(metrics: int) -> Floats:
    """Weights that look for the best first metric; the others tell equal ones apart.

    Args:
        metrics: Number of weights, at least 2.

    Example:
        >>> weights_of_the_first(2).round(2).tolist()
        [0.95, 0.05]
    """
    others = metrics - 1
    return np.array([FIRST_SHARE] + others * [(1.0 - FIRST_SHARE) / others])
