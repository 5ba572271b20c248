"""The progress line on a terminal, and plain lines where the output goes to a file.

Reading questions:  62%|██████▏   | 2,100/3,400
Step 130/330 ██████▎        | loss 0.412 · 88.1 examples/sec · 1:52 left · F1 84.3
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

from bertkit.events import (
    Checkpoint,
    Evaluation,
    Event,
    Failed,
    Finished,
    Notice,
    Progress,
    RankInfo,
    Regrouped,
    Started,
    Step,
    Stopped,
    StopReason,
)
from bertkit.reports.history import History
from bertkit.run import Result

PLAIN_SECONDS = 10.0
"""Time between two lines where the output is no terminal."""

MOVING_SECONDS = 0.1
"""Least time between two drawings of the moving line."""


class ConsoleProgress:
    """Shows a run on a terminal while it goes on; a reader of its events.

    On a terminal it keeps one moving line and writes what stays (scores, notices) above it.
    Anywhere else, such as in a log file, it writes a plain line every few seconds.

    Args:
        file: Where to write; by default standard error, so that standard output stays for results.
        plain_seconds: Time between two plain lines.

    Example:
        >>> from bertkit.run import Run
        >>> with ConsoleProgress() as show:                         # doctest: +SKIP
        ...     Run("runs/20261123-101500").wait(on_event=show)
    """

    def __init__(self, file: TextIO | None = None, plain_seconds: float = PLAIN_SECONDS) -> None:
        self._file = file or sys.stderr
        self._moving = self._file.isatty()
        self._plain_seconds = plain_seconds
        self._history = History("")
        self._bar: tqdm[Any] | None = None
        self._bar_is_for = ""
        self._next_line = 0.0

    def __call__(self, event: Event) -> None:
        """Show one event."""
        self._history.add(event)
        if isinstance(event, Step):
            self._show_step(event)
        elif isinstance(event, Progress):
            self._show_progress(event)
        elif sentence := describe(event):
            if self._bar is not None and self._bar_is_for == "Step":
                self._bar.set_description_str(step_words(self._history), refresh=False)
            self._write(sentence)
            if isinstance(event, Started):
                self._next_line = 0.0  # show the first step at once

    def __enter__(self) -> ConsoleProgress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the moving line, so that the next output starts on a line of its own."""
        if self._bar is not None:
            self._bar.close()
            self._bar, self._bar_is_for = None, ""

    def _show_step(self, event: Step) -> None:
        words = step_words(self._history)
        if self._moving:
            self._move("Step", event.global_step, self._history.last_step, words)
        elif self._is_time() or event.global_step == self._history.last_step:
            self._write(f"Step {event.global_step}/{self._history.last_step}: {words}")

    def _show_progress(self, event: Progress) -> None:
        if self._moving:
            self._move(event.stage, event.done, event.total, "")
        elif self._is_time() or event.stage != self._bar_is_for:
            amount = f": {event.done:,} of {event.total:,}" if event.total else ""
            self._bar_is_for = event.stage
            self._write(event.stage + amount)

    def _move(self, label: str, done: int, total: int, words: str) -> None:
        if self._bar is None or self._bar_is_for != label:
            self.close()
            self._bar = tqdm(
                file=self._file, leave=label == "Step", bar_format=_bar_format(label, total),
                ncols=_columns(self._file), nrows=20,  # else a terminal of unknown size shows none
                delay=1e-9,  # nothing is drawn before the first refresh below
            )  # fmt: skip
            self._bar_is_for = label
            self._next_line = 0.0
        bar, now = self._bar, time.monotonic()
        bar.total, bar.n = total or None, done
        bar.set_description_str(words, refresh=False)
        if now >= self._next_line or done == total:
            self._next_line = now + MOVING_SECONDS
            bar.ncols = _columns(self._file)
            bar.refresh()

    def _write(self, sentence: str) -> None:
        if self._moving:
            tqdm.write(sentence, file=self._file)
        else:
            print(sentence, file=self._file, flush=True)

    def _is_time(self) -> bool:
        now = time.monotonic()
        if now < self._next_line:
            return False
        self._next_line = now + self._plain_seconds
        return True


def step_words(history: History) -> str:
    """The newest loss, speed, time left and F1 of a run, as the progress line shows them."""
    words = [
        f"loss {history.steps.last('smoothed_loss'):.3f}",
        f"{history.steps.last('smoothed_examples_per_second'):.1f} examples/sec",
    ]
    if history.seconds_left is not None:
        words.append(f"{duration(history.seconds_left)} left")
    if len(history.evaluations):
        words.append(f"F1 {history.evaluations.last('f1'):.1f}")
    return " · ".join(words)


def duration(seconds: float) -> str:
    """Seconds as ``1:52`` or ``3:04:10``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def describe(event: Event) -> str:
    """One sentence about an event that a person wants to keep; empty for all others."""
    if isinstance(event, Started):
        return _describe_start(event)
    if isinstance(event, Evaluation):
        best = ", the best so far" if event.best else ""
        return (
            f"Step {event.global_step}: F1 {event.f1:.2f}, exact match {event.exact_match:.2f} "
            f"on {event.questions:,} questions{best}"
        )
    if isinstance(event, Regrouped):
        return _describe_regrouping(event)
    if isinstance(event, Checkpoint):
        return f"Step {event.global_step}: checkpoint {event.path} saved"
    if isinstance(event, Stopped):
        reasons: dict[str, str] = {
            StopReason.TARGET_F1: "the validation F1 reached its target",
            StopReason.STEP_THRESHOLD: "the step threshold is reached",
            StopReason.EPOCHS: "all epochs are done",
            StopReason.USER: "you asked for it",
        }
        reason = reasons.get(event.stopped_by, event.stopped_by)
        return f"Stopped at step {event.global_step}: {reason}"
    if isinstance(event, Notice):
        return event.message
    return "" if isinstance(event, _TOLD_OTHERWISE) else _describe_plainly(event)


_TOLD_OTHERWISE = (Progress, Step, Finished, Failed)
"""Events that have no sentence: they move the progress line, or end it."""


def _describe_plainly(event: Event) -> str:
    """An event that has no sentence here: its message, or else its kind and its fields."""
    values = dataclasses.asdict(event)
    told = [f"{name} {value}" for name, value in values.items() if name != "time"]
    words = values.get("message") or ", ".join(told)
    return f"{event.kind.replace('_', ' ').capitalize()}: {words}".removesuffix(": ")


def describe_result(result: Result) -> str:
    """What a run came to, one line a number."""
    rows = [
        ("F1", f"{result.f1:.2f} % on {result.total:,} questions"),
        ("Exact match", f"{result.exact_match:.2f} %"),
        ("Steps", f"{result.global_step:,} (best model from step {result.best_step:,})"),
        ("Stopped by", result.stopped_by),
        ("Speed", f"{result.examples_per_second:.1f} examples/sec on {result.ranks} ranks"),
        ("Wall time", duration(result.wall_seconds)),
        ("Run folder", result.folder),
    ]
    return "\n".join(f"{name:<12} {value}" for name, value in rows)


def _describe_start(event: Started) -> str:
    verb = "Training" if event.resumed_from is None else f"Resumed at step {event.resumed_from}:"
    where = _where(event.ranks)
    return (
        f"{verb} {event.parameters / 1e6:.1f} million weights in {event.precision} with {where}; "
        f"{event.train_questions:,} questions, at most {event.total_steps:,} steps"
    )


def _describe_regrouping(event: Regrouped) -> str:
    news = "; ".join(event.news) or "other ranks than before"
    seconds = max(0.0, event.time - event.detected)
    return (
        f"Step {event.global_step}: {news}; going on with {_where(event.ranks)} "
        f"after {seconds:.1f} s"
    )


def _where(ranks: list[RankInfo]) -> str:
    hosts = sorted({rank.host for rank in ranks})
    return f"{len(ranks)} rank{'s' * (len(ranks) != 1)} on {', '.join(hosts)}"


def _columns(file: TextIO) -> int:
    """Width of the terminal; 80 where it does not say, as in some containers."""
    try:
        return os.get_terminal_size(file.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _bar_format(label: str, total: int) -> str:
    name = label.replace("{", "(").replace("}", ")")
    if not total:
        return name + " {n_fmt}"
    if label == "Step":
        return name + " {n_fmt}/{total_fmt} |{bar}| {desc}"
    return name + " {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}"
