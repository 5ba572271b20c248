"""One training run, seen through its folder.

The folder is the truth: ``config.json``, ``events.jsonl``, ``checkpoints/``, ``model/``,
``predictions.json`` and ``result.json``. Whoever trains writes them; a `Run` only reads, so a
notebook whose kernel died, a second notebook and a script all see the same run. To stop one, a
file named ``stop`` is put into the folder; rank 0 looks for it at every step.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit import events
from bertkit.config import Config
from bertkit.errors import RunError, TrainingError
from bertkit.events import Event, Failed

CONFIG_FILE = "config.json"
RESULT_FILE = "result.json"
PREDICTIONS_FILE = "predictions.json"
STOP_FILE = "stop"
MODEL_FOLDER = "model"
CHECKPOINTS_FOLDER = "checkpoints"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished run came to; ``result.json`` holds the same names.

    Args:
        f1, exact_match: Scores of the best model on the whole validation file, in percent.
        total: Number of questions they are over.
        validation_f1: F1 of the best model on the validation sample that decides the early stop.
        global_step: Steps trained.
        best_step: Step the best model is from.
        stopped_by: A `bertkit.events.StopReason`.
        examples_per_second: Median over the steps.
        wall_seconds: From the first step to the last, validations included.
        model: The pretrained model the run began with.
        data: The data it was trained on.
        ranks: Number of ranks.
        folder: The run's folder.
    """

    f1: float
    exact_match: float
    total: int
    validation_f1: float
    global_step: int
    best_step: int
    stopped_by: str
    examples_per_second: float
    wall_seconds: float
    model: str
    data: str
    ranks: int
    folder: str

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Result:
        """Read a result, ignoring names that this version does not know."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def to_dict(self) -> dict[str, Any]:
        """Every name and value, ready for JSON."""
        return dataclasses.asdict(self)


class Run:
    """Handle of one training run, wherever it runs.

    Args:
        folder: The run's folder.

    Raises:
        RunError: If the folder holds no run.

    Example:
        >>> run = Run("runs/20261123-101500")                       # doctest: +SKIP
        >>> run.wait().f1                                           # doctest: +SKIP
        93.1
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / CONFIG_FILE).is_file():
            raise RunError(f"{self.folder} holds no run: expected {CONFIG_FILE} in it")

    @property
    def config(self) -> Config:
        """The configuration the run was started with."""
        return Config.load(self.folder / CONFIG_FILE)

    @property
    def running(self) -> bool:
        """Whether someone trains it now."""
        return events.is_being_written(self.folder)

    @property
    def result(self) -> Result | None:
        """What it came to, or ``None`` before it has finished."""
        try:
            text = (self.folder / RESULT_FILE).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return Result.from_dict(json.loads(text))

    @property
    def model_folder(self) -> Path:
        """Folder of the best model; Hugging Face's ``from_pretrained`` reads it too."""
        return self.folder / MODEL_FOLDER

    @property
    def failure(self) -> Failed | None:
        """The event that ended the run without a result, if it did."""
        last = self.history()[-1:]
        return last[0] if last and isinstance(last[0], Failed) else None

    def history(self) -> list[Event]:
        """All events so far."""
        return events.read(self.folder)

    def events(self) -> Iterator[Event]:
        """Yield all events from the first, then new ones as they come, until the run is over."""
        return events.follow(self.folder, alive=self._alive)

    def stop(self) -> None:
        """Ask the run to stop after the current step; returns at once."""
        (self.folder / STOP_FILE).touch()

    def wait(
        self, timeout: float | None = None, on_event: Callable[[Event], None] | None = None
    ) -> Result:
        """Wait until the run is over.

        Args:
            timeout: Longest wait in seconds.
            on_event: Called with every event, from the first.

        Raises:
            TrainingError: If the run failed.
            TimeoutError: If it is not over in time; it goes on.
            KeyboardInterrupt: On Ctrl-C, after the run was asked to stop.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            for event in events.follow(self.folder, alive=lambda: self._alive_until(deadline)):
                if on_event:
                    on_event(event)
        except KeyboardInterrupt:
            self.stop()
            raise
        if self.failure:
            raise TrainingError(self.failure.message)
        result = self.result
        if result is None:
            raise TrainingError(f"the run in {self.folder} ended without a result; resume it")
        return result

    def _alive(self) -> bool:
        """Whether more events may come. A handle that owns the training knows better."""
        return self.running

    def _alive_until(self, deadline: float | None) -> bool:
        alive = self._alive()
        if alive and deadline is not None and time.monotonic() > deadline:
            raise TimeoutError(f"the run in {self.folder} is still going on")
        return alive


def create_run_folder(config: Config, name: str | None = None) -> Path:
    """Make the folder of a new run and write its configuration.

    Args:
        config: The run's configuration; its ``output`` is the parent.
        name: The folder's name; by default the date and time.

    Raises:
        RunError: If the folder cannot be made or already holds a run.
    """
    parent = Path(config.output)
    stem = name or time.strftime("%Y%m%d-%H%M%S")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = _new_folder(parent, stem, unique=name is None)
        config.save(folder / CONFIG_FILE)
    except FileExistsError:
        raise RunError(
            f"{parent / stem} already exists; resume it or choose another name"
        ) from None
    except OSError as error:
        raise RunError(f"output: cannot write to {parent}: {error.strerror}") from None
    return folder


def _new_folder(parent: Path, stem: str, unique: bool) -> Path:
    for number in range(1, 1000):
        folder = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            if not unique:
                raise
    raise RunError(f"{parent} holds too many runs of the same second")
