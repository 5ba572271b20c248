"""A run's events as a TensorBoard event file."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from bertkit.events import Evaluation, Event, Started, Step
from bertkit.run import Run

TENSORBOARD_FOLDER = "tensorboard"

_STEP_SCALARS = {
    "train/loss": "loss",
    "train/learning_rate": "learning_rate",
    "train/gradient_norm": "gradient_norm",
    "speed/examples_per_second": "examples_per_second",
    "speed/seconds_per_step": "seconds",
    "speed/communication_seconds": "communication_seconds",
    "speed/input_seconds": "input_seconds",
    "speed/padding_share": "padding_share",
}
_EVALUATION_SCALARS = {"validation/f1": "f1", "validation/exact_match": "exact_match"}


class TensorBoardFile:
    """Writes events into a TensorBoard file as they come, each with the time it happened.

    Args:
        folder: Folder of the file; made where it is missing.

    Example:
        >>> with TensorBoardFile("runs/demo/tensorboard") as write:        # doctest: +SKIP
        ...     Run("runs/demo").wait(on_event=write)
    """

    def __init__(self, folder: str | Path) -> None:
        import tensorflow as tf  # takes seconds to load, and only this report needs it

        self._tf = tf
        self._folder = Path(folder)
        self._file: Any = None

    def __call__(self, event: Event) -> None:
        """Write one event; kinds that TensorBoard cannot show are left out."""
        if isinstance(event, Step):
            self._write_scalars(event, _STEP_SCALARS, event.global_step)
        elif isinstance(event, Evaluation):
            self._write_scalars(event, _EVALUATION_SCALARS, event.global_step)
        elif isinstance(event, Started):
            self._write_config(event)

    def __enter__(self) -> TensorBoardFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write out what is buffered and close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write_scalars(self, event: Event, names: dict[str, str], step: int) -> None:
        value = self._tf.compat.v1.Summary.Value
        self._write(
            event.time,
            step=step,
            summary=self._tf.compat.v1.Summary(
                value=[
                    value(tag=tag, simple_value=getattr(event, name)) for tag, name in names.items()
                ]
            ),
        )

    def _write_config(self, event: Started) -> None:
        rows = [f"| {name} | {value} |" for name, value in event.config.items()]
        text = "\n".join(["| field | value |", "| --- | --- |", *rows])
        summary = self._tf.compat.v1.Summary
        metadata = self._tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = "text"
        value = summary.Value(
            tag="config", metadata=metadata, tensor=self._tf.make_tensor_proto([text])
        )
        self._write(event.time, step=event.resumed_from or 0, summary=summary(value=[value]))

    def _write(self, time: float, **values: Any) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"events.out.tfevents.{time:.6f}.bertkit"
            self._file = self._tf.io.TFRecordWriter(str(path))
            self._write(time, file_version="brain.Event:2")
        record = self._tf.compat.v1.Event(wall_time=time, **values)
        self._file.write(record.SerializeToString())


def write_tensorboard(run: Run | str | Path, folder: str | Path | None = None) -> Path:
    """Write all events of a run so far into a TensorBoard file.

    Args:
        run: The run or its folder.
        folder: Where to write; by default ``tensorboard`` in the run's folder. An older file of
            the same run there is replaced.

    Returns:
        The folder to hand to ``tensorboard --logdir``.

    Raises:
        RunError: If the folder holds no run.
    """
    run = run if isinstance(run, Run) else Run(run)
    target = Path(folder) if folder is not None else run.folder / TENSORBOARD_FOLDER
    for old in target.glob("events.out.tfevents.*.bertkit"):
        old.unlink()
    with TensorBoardFile(target) as write:
        for event in run.history():
            write(event)
    return target
