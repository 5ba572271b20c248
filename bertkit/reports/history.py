"""The numbers of one run, gathered from its events as they come.

Every report reads a `History`: the progress line asks it for the time left, the curves for their
points. It keeps plain columns of numbers instead of events, so that a run of a hundred thousand
steps takes a few megabytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertkit.events import (
    Evaluation,
    Event,
    Failed,
    Finished,
    Progress,
    Regrouped,
    Started,
    Step,
    Stopped,
    StopReason,
    goes_on_from,
)
from bertkit.run import Run

Floats = NDArray[np.float64]

SMOOTHED_SHARE = 1 / 100
"""Share of a run's steps that the running mean drawn over raw values is made from."""

RATE_WINDOW = 100
"""Newest steps that the estimate of the time left is made from."""


class Columns:
    """Equally long columns of float64 numbers that grow row by row.

    Args:
        names: The columns' names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._columns = {name: array("d") for name in names}
        self._first = self._columns[names[0]]

    def __len__(self) -> int:
        return len(self._first)

    def __getitem__(self, name: str) -> Floats:
        return np.array(self._columns[name], dtype=np.float64)  # a copy: the column may grow

    def last(self, name: str) -> float:
        """The newest value of a column."""
        return self._columns[name][-1]

    def at(self, name: str, index: int) -> float:
        """One value of a column."""
        return self._columns[name][index]

    def append(self, **values: float) -> None:
        """Add one row."""
        for name, column in self._columns.items():
            column.append(values[name])

    def keep_until(self, name: str, limit: float) -> None:
        """Drop the rows at the end whose ``name`` is above ``limit``."""
        column = self._columns[name]
        length = len(column)
        while length and column[length - 1] > limit:
            length -= 1
        for column in self._columns.values():
            del column[length:]


class History:
    """What has happened in one run so far.

    Args:
        name: How pictures call the run.
        events: Events so far; `add` takes those that come later.

    Attributes:
        steps: Columns ``global_step``, ``time``, ``loss``, ``smoothed_loss``, ``learning_rate``,
            ``examples_per_second`` and ``smoothed_examples_per_second``.
        evaluations: Columns ``global_step``, ``time``, ``f1`` and ``exact_match``.
        started: The newest `Started`, or ``None`` while the run prepares.
        progress: What is being prepared, or ``None`` once steps come.
        stopped, finished, failed: How it ended, as far as it has.
        smoothing: Decay of the running means.

    Example:
        >>> history = History("demo", [])
        >>> history.summary()
        'demo: waiting for the first step'
    """

    def __init__(self, name: str, events: Iterable[Event] = ()) -> None:
        self.name = name
        self.steps = Columns(
            (
                "global_step", "time", "loss", "smoothed_loss", "learning_rate",
                "examples_per_second", "smoothed_examples_per_second",
            )
        )  # fmt: skip
        self.evaluations = Columns(("global_step", "time", "f1", "exact_match"))
        self.started: Started | None = None
        self.progress: Progress | None = None
        self.stopped: Stopped | None = None
        self.finished: Finished | None = None
        self.failed: Failed | None = None
        self.first_time: float | None = None
        self.smoothing = 0.9
        self._attempt = 0  # index of the first step since the newest start
        for event in events:
            self.add(event)

    @classmethod
    def of(cls, source: Source, name: str | None = None) -> History:
        """Gather a run, a run's folder or a list of events.

        Raises:
            RunError: If a folder holds no run.
        """
        if isinstance(source, History):
            return source
        if isinstance(source, str | Path):
            source = Run(source)
        if isinstance(source, Run):
            return cls(name or source.folder.name, source.history())
        return cls(name or "run", source)

    def add(self, event: Event) -> None:
        """Take in the next event."""
        self._forget_after(goes_on_from(event))
        if isinstance(event, Step):
            self._add_step(event)
        elif isinstance(event, Evaluation):
            self.evaluations.append(
                global_step=event.global_step,
                time=event.time,
                f1=event.f1,
                exact_match=event.exact_match,
            )
            self.progress = None
        elif isinstance(event, Progress):
            self.progress = event
        elif isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Regrouped):
            self.stopped = self.failed = self.progress = None
        elif isinstance(event, Stopped):
            self.stopped, self.progress = event, None
        elif isinstance(event, Finished):
            self.finished, self.progress = event, None
        elif isinstance(event, Failed):
            self.failed, self.progress = event, None

    @property
    def over(self) -> bool:
        """Whether the run has ended, with or without a result."""
        return self.finished is not None or self.failed is not None

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, empty before the run has started."""
        return self.started.config if self.started else {}

    @property
    def target_f1(self) -> float | None:
        """The F1 at which training stops, where one can be reached."""
        target = self.config.get("target_f1")
        return float(target) if target is not None and target <= 100 else None

    @property
    def global_step(self) -> int:
        """The newest step, 0 before the first."""
        return int(self.steps.last("global_step")) if len(self.steps) else 0

    @property
    def last_step(self) -> int:
        """The step at which training ends at the latest, 0 before it is known."""
        if self.started is None:
            return 0
        threshold = self.config.get("step_threshold")
        return min(self.started.total_steps, threshold or self.started.total_steps)

    @property
    def seconds_left(self) -> float | None:
        """Estimate until `last_step`, validations included; early stop may come sooner."""
        if self.stopped or self.over:
            return 0.0
        first = max(self._attempt + 1, len(self.steps) - RATE_WINDOW)  # the first step compiles
        count = len(self.steps) - 1 - first
        if count < 1:
            return None
        seconds = self.steps.last("time") - self.steps.at("time", first)
        return max(0.0, seconds / count * (self.last_step - self.global_step))

    def summary(self) -> str:
        """The newest numbers in one sentence; pictures use it as their alternative text."""
        words = [part for part in (self._step_words(), *self._value_words(), self.ending()) if part]
        return f"{self.name}: " + (", ".join(words) or self._waiting_words())

    def ending(self) -> str:
        """Why training ended, in a few words; empty while it goes on."""
        if self.failed:
            return "failed"
        if self.stopped is None:
            return ""
        target = f"{self.target_f1:g}" if self.target_f1 is not None else "its target"
        endings: dict[str, str] = {
            StopReason.TARGET_F1: f"early stop: F1 reached {target}",
            StopReason.STEP_THRESHOLD: "stopped at the step threshold",
            StopReason.EPOCHS: "all epochs done",
            StopReason.USER: "stopped by you",
        }
        reason = self.stopped.stopped_by
        return endings.get(reason, f"stopped by {reason}")

    def _forget_after(self, global_step: int | None) -> None:
        if global_step is not None:
            self.steps.keep_until("global_step", global_step)
            self.evaluations.keep_until("global_step", global_step)

    def _start(self, event: Started) -> None:
        self.started = event
        self.stopped = self.finished = self.failed = self.progress = None
        self.first_time = event.time if self.first_time is None else self.first_time
        self.smoothing = 1 - 1 / min(max(event.total_steps * SMOOTHED_SHARE, 5.0), 20.0)
        self._attempt = len(self.steps)

    def _add_step(self, event: Step) -> None:
        self.progress = None
        self.steps.append(
            global_step=event.global_step,
            time=event.time,
            loss=event.loss,
            smoothed_loss=self._smooth("smoothed_loss", event.loss, 0),
            learning_rate=event.learning_rate,
            examples_per_second=event.examples_per_second,
            smoothed_examples_per_second=self._smooth(
                "smoothed_examples_per_second",
                event.examples_per_second,
                self._attempt + 1,  # the first step compiles: its speed says nothing
            ),
        )

    def _smooth(self, name: str, value: float, since: int) -> float:
        """The next value of a running mean that is not biased towards 0 at its start."""
        decay, count = self.smoothing, max(0, len(self.steps) - since)
        total = self.steps.last(name) * (1 - decay**count) if count else 0.0
        total = decay * total + (1 - decay) * value
        return total / (1 - decay ** (count + 1))

    def _step_words(self) -> str:
        return f"step {self.global_step} of {self.last_step}" if self.global_step else ""

    def _value_words(self) -> list[str]:
        words = []
        if len(self.steps):
            words.append(f"loss {self.steps.last('smoothed_loss'):.3g}")
            words.append(f"{self.steps.last('smoothed_examples_per_second'):.3g} examples/sec")
        if len(self.evaluations):
            words.append(f"validation F1 {self.evaluations.last('f1'):.1f} %")
        return words

    def _waiting_words(self) -> str:
        return self.progress.stage if self.progress else "waiting for the first step"


Source = History | Run | str | Path | Sequence[Event]
"""What a report can be made from: a run, its folder, its events, or what was gathered of it."""


def gather(sources: Source | Sequence[Source], names: Sequence[str] | None = None) -> list[History]:
    """Make a list of histories from one run or several.

    Args:
        sources: One run, or a list of runs.
        names: How pictures call each of them; by default the names of their folders.
    """
    if isinstance(sources, History | Run | str | Path):
        several: list[Any] = [sources]
    elif sources and not isinstance(sources[0], Event):
        several = list(sources)
    else:
        several = [sources]
    given = list(names) if names is not None else [None] * len(several)
    return [History.of(source, name) for source, name in zip(several, given, strict=True)]
