"""What is known of one trial: the values it tries, how it goes and what it came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bertkit.config import Scalar

Assignment = Mapping[str, Scalar]
"""A value for every searched parameter, by name."""


class State(StrEnum):
    """Where a trial stands."""

    WAITING = "waiting"
    """Proposed, or taken back from a process that died; the next who asks gets it."""
    RUNNING = "running"
    FINISHED = "finished"
    PRUNED = "pruned"
    """Stopped early by its curve; its metrics are those of that moment."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """Refused by hand; never proposed again."""

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self in (State.FINISHED, State.PRUNED, State.FAILED, State.SKIPPED)

    @property
    def open(self) -> bool:
        """Whether its outcome is still to come."""
        return self in (State.WAITING, State.RUNNING)


class Origin(StrEnum):
    """Where a trial's values came from."""

    DEFAULT = "default"
    """The settings one would have used without a search."""
    SPREAD = "spread"
    """Spread evenly over the space, before there is anything to learn from."""
    MODEL = "model"
    """Proposed by the model of all trials so far."""
    RANDOM = "random"
    EDITED = "edited"
    """Proposed, then changed by hand."""
    IMPORTED = "imported"
    """Taken over from an earlier search; costs no budget."""


@dataclass(frozen=True)
class Prediction:
    """What the model expects of one metric.

    Args:
        mean: Expected value, in the metric's own unit.
        std: Standard deviation of that expectation.
    """

    mean: float
    std: float


@dataclass(frozen=True)
class CurvePoint:
    """One validation on the way.

    Args:
        step: Optimizer step.
        seconds: Training time so far.
        value: The metric the curve is of, such as F1 in percent.
    """

    step: int
    seconds: float
    value: float


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Values that are worth trying next, and why.

    Args:
        parameters: A value for every parameter of the space.
        origin: Where the values came from.
        reason: One or two sentences a person can follow.
        predicted: What the model expects, by metric; empty while there is no model.
    """

    parameters: Assignment
    origin: Origin
    reason: str
    predicted: Mapping[str, Prediction] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial of an experiment as it stands; asking the experiment again gives a newer one.

    Args:
        number: From 1, in the order of proposal.
        parameters: A value for every parameter of the space.
        state: Where it stands.
        origin: Where the values came from.
        reason: Why they were proposed.
        predicted: What the model had expected, by metric.
        metrics: What it came to, by metric. A pruned trial has those of when it was stopped.
        noise: Standard deviation of a metric's measurement, where it is known.
        curve: Its validations, oldest first.
        attempts: How often it was begun; more than 1 where a process died on the way.
        message: Why it failed or was pruned.
        artifact: Where its model is.
        claim: Names the one process that may tell its outcome; empty while nobody runs it.
        created: When it was proposed, in seconds since 1970.
        started: When it was begun last.
        ended: When it was over.
    """

    number: int
    parameters: Assignment
    state: State
    origin: Origin
    reason: str = ""
    predicted: Mapping[str, Prediction] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[CurvePoint, ...] = ()
    attempts: int = 0
    message: str = ""
    artifact: str | None = None
    claim: str = ""
    created: float = 0.0
    started: float | None = None
    ended: float | None = None

    @property
    def seconds(self) -> float | None:
        """Wall time from its last beginning to its end."""
        if self.started is None or self.ended is None:
            return None
        return self.ended - self.started


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What running a trial came to, where there is more to say than its metrics.

    Args:
        metrics: A value for every metric.
        noise: Standard deviation of a metric's measurement, where it is known.
        artifact: Where its model is.
        complete: Whether it came to an end of its own, such as its target, before a request to
            stop reached it: it is then finished like any other.
    """

    metrics: Mapping[str, float]
    noise: Mapping[str, float] = field(default_factory=dict)
    artifact: str | None = None
    complete: bool = False


Report = Callable[[CurvePoint], bool]
"""Takes a point of the curve; says whether the trial should go on."""

Runner = Callable[[Trial, Report], Mapping[str, float] | Outcome]
"""Runs one trial: any function of a trial that gives its metrics back."""
