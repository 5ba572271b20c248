"""What the trials so far say about all others: Gaussian processes over the space.

scikit-optimize's Gaussian process with a Matérn 5/2 kernel and one length scale a parameter. Its
scales are not fitted by likelihood alone, as usual, but with log-normal priors (their maximum a
posteriori): from half a dozen trials, likelihood alone too often explains everything as noise and
proposes at random.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize  # type: ignore[import-untyped]
from skopt.learning import GaussianProcessRegressor
from skopt.learning.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from skopt.space import Categorical, Integer, Real
from skopt.space import Space as SkoptSpace

from bertkit.advisor.goals import Goals, Metric
from bertkit.advisor.parameters import Choices, Parameter, Range
from bertkit.advisor.space import Space
from bertkit.advisor.trial import Assignment, Prediction, State, Trial
from bertkit.config import Scalar
from bertkit.errors import AdvisorError

Floats = npt.NDArray[np.float64]

LENGTH_SCALE, LENGTH_SPREAD = 0.6, 0.8
NOISE, NOISE_SPREAD = 1e-3, 1.5
"""Medians of the priors (the space is a unit cube, metrics have variance 1) and their widths in
natural logarithms."""

RELATIVE_JITTER = 1e-8
WIDEST_RATIO = 1000.0
"""What comes so near to zero is no time; its logarithm would be all that counts."""

SAMPLES = 256
"""Assignments an effect is averaged over."""


class Encoding:
    """The space in scikit-optimize's terms: ordered grids by position, others one column each.

    Args:
        space: What is searched.

    Example:
        >>> space = Space.published()
        >>> Encoding(space).transform([space.at([0.5, 0.5, 0.5])]).round(2).tolist()
        [[0.5, 0.5, 0.5]]
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.dimensions = [_dimension(p) for p in space.parameters]
        self._skopt = SkoptSpace(self.dimensions)

    def point(self, assignment: Assignment) -> list[Any]:
        """An assignment as scikit-optimize is told of it."""
        return [_coordinate(p, assignment[p.name]) for p in self.space.parameters]

    def assignment(self, point: Sequence[Any]) -> dict[str, Scalar]:
        """The assignment that scikit-optimize means, with readable numbers."""
        return {
            p.name: _value(p, coordinate)
            for p, coordinate in zip(self.space.parameters, point, strict=True)
        }

    def transform(self, assignments: Sequence[Assignment]) -> Floats:
        """Assignments as rows of the unit cube; float64 ``[N, columns]``."""
        columns: Floats = self._skopt.transform([self.point(a) for a in assignments])
        return columns


def gaussian_process(columns: int, noise: Floats | None = None) -> Any:
    """An unfitted Gaussian process, fit for scikit-optimize's ``Optimizer`` too.

    Args:
        columns: Columns of its input.
        noise: Variance of each observation as a share of the variance of all, float64 ``[N]``,
            in addition to the noise it finds by itself.
    """
    kernel = ConstantKernel(1.0, (0.05, 20.0)) * Matern(
        length_scale=np.full(columns, LENGTH_SCALE),
        length_scale_bounds=[(0.03, 20.0)] * columns,
        nu=2.5,
    ) + WhiteKernel(NOISE, (1e-6, 0.5))
    return GaussianProcessRegressor(
        kernel=kernel,
        alpha=RELATIVE_JITTER if noise is None else noise + RELATIVE_JITTER,
        optimizer=_most_probable,
        normalize_y=True,
        noise="gaussian",
    )


def _most_probable(
    loss: Callable[..., tuple[float, Floats]], initial: Floats, bounds: Floats
) -> tuple[Floats, float]:
    """Kernel parameters of largest posterior probability; called by scikit-learn.

    Args:
        loss: Negative log likelihood and its gradient at the parameters' logarithms.
        initial: Where scikit-learn would start.
        bounds: Smallest and largest logarithm of each, float64 ``[P, 2]``.
    """
    scales = len(initial) - 2
    center = np.log(np.array([1.0] + [LENGTH_SCALE] * scales + [NOISE]))
    spread = np.array([1.0] + [LENGTH_SPREAD] * scales + [NOISE_SPREAD])

    def posterior(theta: Floats) -> tuple[float, Floats]:
        value, gradient = loss(theta)
        distance = (theta - center) / spread
        return value + 0.5 * float(distance @ distance), gradient + distance / spread

    found = minimize(
        posterior, center, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 60}
    )
    return found.x, float(found.fun)


@dataclass(frozen=True)
class PartialDependence:
    """What one parameter does to one metric, averaged over all other parameters.

    Args:
        parameter, metric: Their names.
        values: Values of the parameter.
        mean: Expected metric at each of them, float64 ``[N]``.
        std: Standard deviation of that expectation, float64 ``[N]``.
        log: Whether the parameter is searched on a logarithmic scale.
    """

    parameter: str
    metric: str
    values: tuple[Scalar, ...]
    mean: Floats
    std: Floats
    log: bool


class Surrogate:
    """One Gaussian process a metric, fitted to the finished trials.

    Args:
        space: What is searched.
        goals: The metrics.
        trials: All trials so far; those that did not finish are left out.

    Raises:
        AdvisorError: If fewer than two have finished.
    """

    def __init__(self, space: Space, goals: Goals, trials: Sequence[Trial]) -> None:
        finished = [t for t in trials if t.state is State.FINISHED]
        if len(finished) < 2:
            raise AdvisorError(
                f"{len(finished)} trials have finished; a model of them needs at least 2"
            )
        self.space, self.goals = space, goals
        self._encoding = Encoding(space)
        columns = self._encoding.transform([t.parameters for t in finished])
        self._models = {m.name: _MetricModel(m, columns, finished) for m in goals.metrics}

    def predict(self, assignments: Sequence[Assignment]) -> list[dict[str, Prediction]]:
        """What each assignment should come to, by metric."""
        rows = self._encoding.transform(assignments)
        found = {name: model.predict(rows) for name, model in self._models.items()}
        return [
            {name: Prediction(float(mean[i]), float(std[i])) for name, (mean, std) in found.items()}
            for i in range(len(assignments))
        ]

    def partial_dependence(
        self, parameter: str, metric: str, points: int = 25, seed: int = 0
    ) -> PartialDependence:
        """Average one metric over the space along one parameter.

        Args:
            parameter: Its name.
            metric: Its name.
            points: Values of a continuous parameter to look at.
            seed: Fixes the assignments it is averaged over.

        Raises:
            AdvisorError: If the space has no such parameter, or the goals no such metric.

        Source: Friedman, "Greedy function approximation" (2001), section 8.2.
        """
        along, model = self._parameter(parameter), self._model(metric)
        values = _values_along(along, points)
        rng = np.random.default_rng([seed, 1])
        others = [self.space.sample(rng) for _ in range(SAMPLES // 4)]
        rows = self._encoding.transform([{**o, parameter: v} for v in values for o in others])
        mean, std = (a.reshape(len(values), -1).mean(axis=1) for a in model.predict(rows))
        log = isinstance(along, Range) and along.log
        return PartialDependence(parameter, metric, values, mean, std, log)

    def importance(self, metric: str, seed: int = 0) -> dict[str, float]:
        """Share of a metric's variation over the space that goes with each parameter.

        Shares of parameters that act together count for each of them, so they may add up to more
        than 1 (total-effect indices).

        Args:
            metric: Its name.
            seed: Fixes the assignments it is estimated from.

        Raises:
            AdvisorError: If the goals have no such metric.

        Source: Jansen, "Analysis of variance designs for model output" (1999).
        """
        model = self._model(metric)
        rng = np.random.default_rng([seed, 2])
        first = [self.space.sample(rng) for _ in range(SAMPLES)]
        second = [self.space.sample(rng) for _ in range(SAMPLES)]
        base = model.latent(self._encoding.transform(first))
        variance = max(float(np.var(base)), 1e-12)
        shares = {}
        for name in self.space.names:
            swapped = [{**a, name: b[name]} for a, b in zip(first, second, strict=True)]
            change = base - model.latent(self._encoding.transform(swapped))
            shares[name] = min(float(np.mean(change**2)) / (2 * variance), 1.0)
        return shares

    def _parameter(self, name: str) -> Parameter:
        for parameter in self.space.parameters:
            if parameter.name == name:
                return parameter
        raise AdvisorError(
            f"parameter {name!r} is not searched; expected one of {', '.join(self.space.names)}"
        )

    def _model(self, metric: str) -> _MetricModel:
        if metric not in self._models:
            raise AdvisorError(
                f"metric {metric!r} is not a goal; expected one of {', '.join(self._models)}"
            )
        return self._models[metric]


class _MetricModel:
    """A Gaussian process of one metric, on a logarithmic scale where that suits it better."""

    def __init__(self, metric: Metric, columns: Floats, trials: Sequence[Trial]) -> None:
        values = np.array([t.metrics[metric.name] for t in trials], dtype=np.float64)
        known = np.array([t.noise.get(metric.name, 0.0) for t in trials], dtype=np.float64)
        self._log = is_ratio_scale(values)
        latent = np.log(values) if self._log else values
        spread = known / values if self._log else known
        variance = max(float(np.var(latent)), 1e-12)
        self._process = gaussian_process(columns.shape[1], spread**2 / variance)
        with warnings.catch_warnings():
            # A length scale at its bound means that a parameter does not matter: no news.
            warnings.simplefilter("ignore")
            self._process.fit(columns, latent)

    def latent(self, rows: Floats) -> Floats:
        mean: Floats = self._process.predict(rows)
        return mean

    def predict(self, rows: Floats) -> tuple[Floats, Floats]:
        mean, std = self._process.predict(rows, return_std=True)
        return (np.exp(mean), np.exp(mean) * std) if self._log else (mean, std)


def is_ratio_scale(values: Floats) -> bool:
    """Whether a metric such as a time is better compared by ratios than by differences."""
    low, high = float(values.min()), float(values.max())
    return 0 < 3 * low < high < WIDEST_RATIO * low


def _values_along(parameter: Parameter, points: int) -> tuple[Scalar, ...]:
    if parameter.size is not None and parameter.size <= points:
        return parameter.values
    return tuple(dict.fromkeys(parameter.at(s) for s in np.linspace(0.0, 1.0, points).tolist()))


def _dimension(parameter: Parameter) -> Any:
    if isinstance(parameter, Range):
        prior = "log-uniform" if parameter.log else "uniform"
        kind = Integer if parameter.whole else Real
        return kind(parameter.low, parameter.high, prior=prior, transform="normalize")
    last = (parameter.size or 1) - 1
    if not parameter.ordered or last == 0:
        return Categorical(list(range(last + 1)), transform="onehot")
    return Integer(0, last, transform="normalize")


def _coordinate(parameter: Parameter, value: Scalar) -> Any:
    return parameter.index(value) if isinstance(parameter, Choices) else value


def _value(parameter: Parameter, coordinate: Any) -> Scalar:
    if isinstance(parameter, Choices):
        return parameter.choices[int(coordinate)]
    number = coordinate.item() if isinstance(coordinate, np.generic) else coordinate
    return parameter.at(parameter.share(number)) if not parameter.size else int(number)
