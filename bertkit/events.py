"""What happens during a run, as small typed records, and the file they are kept in.

Rank 0 appends one JSON line an event to ``events.jsonl`` in the run's folder. Plots, progress
lines, tables, TensorBoard, the advisor and the speed-up study all read that one stream; none of
them talks back to the training loop.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import time as clock
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from bertkit.errors import RunError

EVENTS_FILE = "events.jsonl"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events.

    Args:
        time: When it happened, in seconds since 1970.
    """

    kind: ClassVar[str]
    time: float = field(default_factory=clock.time)

    def to_json(self) -> str:
        """The event as one line of JSON, with its ``kind`` first."""
        return json.dumps({"kind": self.kind, **dataclasses.asdict(self)}, ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class RankInfo:
    """Where one rank runs.

    Args:
        rank: Its number, from 0.
        host: Name of its machine.
        pid: Its process.
        cores: Processor cores it may use.
    """

    rank: int
    host: str
    pid: int
    cores: int


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """Training begins, or goes on from a checkpoint.

    Args:
        config: Every configuration field.
        ranks: Where the ranks run.
        precision: Compute type that ``precision: auto`` came to.
        parameters: Number of trained weights.
        train_questions, train_features: Size of the training data.
        dev_questions: Number of questions of the whole validation file.
        total_steps: Steps of the schedule.
        resumed_from: Step of the checkpoint it goes on from; events after that step are void.
        versions: Versions of the libraries that decide about numbers.
    """

    kind: ClassVar[str] = "started"
    config: dict[str, Any]
    ranks: list[RankInfo]
    precision: str
    parameters: int
    train_questions: int
    train_features: int
    dev_questions: int
    total_steps: int
    resumed_from: int | None = None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """Some preparation or a long validation moves on.

    Args:
        stage: What is done, such as ``"Reading questions"``.
        done: How much of it is done.
        total: How much there is, or 0 where that is not known.
    """

    kind: ClassVar[str] = "progress"
    stage: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, kw_only=True)
class Notice(Event):
    """Something a person should know, such as answers that were left out."""

    kind: ClassVar[str] = "notice"
    message: str


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    """One optimizer step.

    Args:
        global_step: Its number, from 1.
        epoch: Passes over the training data so far.
        loss: Mean loss of the global batch.
        learning_rate: Learning rate of this step.
        gradient_norm: Global norm of the averaged gradients before clipping.
        examples: Examples of the global batch.
        examples_per_second: Examples of the global batch over ``seconds``.
        seconds: Wall time of the step.
        communication_seconds: Part of it that rank 0 spent averaging gradients.
        input_seconds: Part of it that rank 0 waited for input.
        padding_share: Share of the rows computed for the global batch that were padding.
        straggler: The rank that the others waited for, where there are several.
        straggler_share: Share of ``seconds`` that the other ranks, on average, waited for it.
    """

    kind: ClassVar[str] = "step"
    global_step: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    examples: int
    examples_per_second: float
    seconds: float
    communication_seconds: float
    input_seconds: float
    padding_share: float
    straggler: int | None = None
    straggler_share: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Evaluation(Event):
    """A validation during training.

    Args:
        global_step: Step after which it was made.
        f1, exact_match: Scores in percent.
        questions: Number of questions they are over.
        seconds: Wall time it took.
        best: Whether no earlier F1 was as high.
    """

    kind: ClassVar[str] = "evaluation"
    global_step: int
    f1: float
    exact_match: float
    questions: int
    seconds: float
    best: bool


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Event):
    """A checkpoint is complete on disk.

    Args:
        global_step: Step it holds.
        path: Its folder, relative to the run's folder.
        seconds: Wall time it took.
    """

    kind: ClassVar[str] = "checkpoint"
    global_step: int
    path: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Regrouped(Event):
    """Other ranks than before go on with the run: some were lost, or have come back.

    Args:
        global_step: Step that they go on from; events after that step are void.
        ranks: Where the ranks run now.
        news: What has happened, a sentence each, such as
            ``"rank 1 on node2 was killed by SIGKILL"``.
        detected: When that was noticed, in seconds since 1970; ``time`` is when training goes on.
    """

    kind: ClassVar[str] = "regrouped"
    global_step: int
    ranks: list[RankInfo]
    news: list[str]
    detected: float


class StopReason(StrEnum):
    """Why a training loop made no further step: the words that events and results hold."""

    TARGET_F1 = "target_f1"
    STEP_THRESHOLD = "step_threshold"
    EPOCHS = "epochs"
    USER = "user"
    """Somebody asked for it, as with `bertkit.run.Run.stop` or Ctrl-C; a resume goes on."""


@dataclass(frozen=True, kw_only=True)
class Stopped(Event):
    """The training loop has ended; what follows is the final evaluation.

    Args:
        global_step: Last step.
        stopped_by: A `StopReason`.
    """

    kind: ClassVar[str] = "stopped"
    global_step: int
    stopped_by: str


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """The run is over and its result is on disk.

    Args:
        result: What ``result.json`` holds.
    """

    kind: ClassVar[str] = "finished"
    result: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """The run is over without a result.

    Args:
        message: What happened and what to do, in one sentence.
        rank: Rank it happened on, where that is known.
        host: Its machine.
        details: The full traceback.
    """

    kind: ClassVar[str] = "failed"
    message: str
    rank: int | None = None
    host: str | None = None
    details: str = ""


Emit = Callable[[Event], None]

KINDS: dict[str, type[Event]] = {
    cls.kind: cls
    for cls in (
        Started, Progress, Notice, Step, Evaluation, Checkpoint, Regrouped, Stopped, Finished,
        Failed,
    )
}  # fmt: skip


def parse(line: str) -> Event | None:
    """Read one line of an event file; ``None`` for a kind that this version does not know."""
    values = json.loads(line)
    cls = KINDS.get(values.pop("kind", ""))
    if cls is None:
        return None
    known = {f.name for f in dataclasses.fields(cls)}
    values = {name: value for name, value in values.items() if name in known}
    if "ranks" in values:
        values["ranks"] = [RankInfo(**rank) for rank in values["ranks"]]
    return cls(**values)


class EventLog:
    """Appends events to a run's file; the only writer of it.

    Args:
        folder: The run's folder.

    Raises:
        RunError: If another process is writing the same run.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with EventLog(folder) as log:
        ...     log(Notice(message="hello"))
        >>> [event.message for event in read(folder)]
        ['hello']
    """

    def __init__(self, folder: Path) -> None:
        path = folder / EVENTS_FILE
        self._waiting = b""  # what a full disk did not take
        self._file = path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # falls with its process
        except BlockingIOError:
            self._file.close()
            raise RunError(
                f"{folder} is being trained by another process; stop that first"
            ) from None
        _end_torn_line(path, self._file.fileno())

    def __call__(self, event: Event) -> None:
        """Append one event; where the disk is full, with the first event after it has room."""
        # One write a line: a reader in another process never sees half of an event and a newline.
        self._waiting += (event.to_json() + "\n").encode()
        try:
            self._write()
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise

    def close(self) -> None:
        """Close the file.

        Raises:
            OSError: If the disk is still too full for the last events.
        """
        try:
            self._write()
        finally:
            self._file.close()

    def _write(self) -> None:
        while self._waiting:  # a nearly full disk takes a part
            self._waiting = self._waiting[os.write(self._file.fileno(), self._waiting) :]

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class EventReader:
    """Reads the events that were appended since the last time it was asked.

    Args:
        folder: The run's folder; its event file need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS_FILE
        self._offset = 0

    def new(self) -> list[Event]:
        """Every event that is complete on disk and was not returned before."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        complete = text[: text.rfind(b"\n") + 1]
        self._offset += len(complete)
        return [event for line in complete.splitlines() if (event := _parse_or_skip(line))]


def read(folder: Path) -> list[Event]:
    """All events of a run, without those that were made void."""
    return valid(EventReader(folder).new())


def valid(events: list[Event]) -> list[Event]:
    """Drop what was made void later: steps after the one that training went on from."""
    kept: list[Event] = []
    for event in events:
        went_on_from = goes_on_from(event)
        if went_on_from is not None:
            kept = [e for e in kept if not _is_after(e, went_on_from)]
        kept.append(event)
    return kept


def goes_on_from(event: Event) -> int | None:
    """The step that training goes on from after this event; ``None`` if it voids nothing."""
    if isinstance(event, Started):
        return event.resumed_from
    return event.global_step if isinstance(event, Regrouped) else None


def follow(
    folder: Path, *, poll: float = 0.1, alive: Callable[[], bool] | None = None
) -> Iterator[Event]:
    """Yield events as they come until the run is over.

    Args:
        folder: The run's folder.
        poll: Seconds between two looks at the file.
        alive: Says whether someone still writes; once it says no, what is left is yielded and the
            iterator ends. Without it the iterator ends when the newest event ends the run.
    """
    reader = EventReader(folder)
    newest: Event | None = None
    while True:
        going = alive() if alive else not isinstance(newest, Finished | Failed)
        for newest in reader.new():
            yield newest
        if not going:
            return
        clock.sleep(poll)


def is_being_written(folder: Path) -> bool:
    """Whether some process of this machine has the run's event file open for writing."""
    try:
        with (folder / EVENTS_FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _is_after(event: Event, global_step: int) -> bool:
    if isinstance(event, Stopped | Finished | Failed):
        return True
    return getattr(event, "global_step", 0) > global_step


def _end_torn_line(path: Path, descriptor: int) -> None:
    """A writer killed in the middle of a line leaves half of it; keep the next event apart."""
    content = path.read_bytes()[-1:]
    if content not in (b"", b"\n"):
        os.write(descriptor, b"\n")


def _parse_or_skip(line: bytes) -> Event | None:
    try:
        return parse(line.decode())
    except (ValueError, TypeError):
        return None  # half a line, left by a writer that was killed
