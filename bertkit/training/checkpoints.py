"""Checkpoints on disk: written whole or not at all, the newest few kept, and the best model.

A checkpoint is first written under a temporary name, forced to disk, and then renamed: a folder
named ``step-…`` is always complete, whenever the process was killed. The best model is a folder of
its own in Hugging Face's layout behind the link ``model``, which is moved in one system call.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from bertkit.errors import RunError
from bertkit.run import CHECKPOINTS_FOLDER, MODEL_FOLDER

Arrays = dict[str, NDArray[np.float32]]

BEST_FOLDER = "best"
_TENSORS = "state.safetensors"
_PROGRESS = "progress.json"
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Position:
    """Where a run stands; with the seed it decides data order, schedule and dropout from here on.

    Args:
        global_step: Steps made.
        best_f1: Highest validation F1 so far, or -1 before the first validation.
        best_exact_match: Exact match at the same step.
        best_step: Step of that validation.
        seconds: Time trained so far, validations included.
        evaluated_step: Step of the newest validation.
        stopped_by: Why training has stopped; empty while it goes on.
    """

    global_step: int = 0
    best_f1: float = -1.0
    best_exact_match: float = -1.0
    best_step: int = 0
    seconds: float = 0.0
    evaluated_step: int = 0
    stopped_by: str = ""


def save_checkpoint(run_folder: Path, position: Position, arrays: Arrays, keep: int) -> Path:
    """Write a checkpoint and remove the oldest beyond ``keep``.

    Args:
        run_folder: The run's folder.
        position: Where the run stands.
        arrays: Every float32 array of the state, weights and moments, by name.
        keep: Number of newest checkpoints that stay.

    Returns:
        The checkpoint's folder.
    """
    parent = run_folder / CHECKPOINTS_FOLDER
    folder = parent / f"step-{position.global_step:08d}"

    def fill(scratch: Path) -> None:
        save_file(arrays, scratch / _TENSORS)
        (scratch / _PROGRESS).write_text(json.dumps(asdict(position)) + "\n", encoding="utf-8")

    # Before as well: each process that is killed between the two would leave one more.
    _keep_newest(run_folder, keep)
    _write_folder(folder, fill)
    _keep_newest(run_folder, keep)
    return folder


def load_newest_checkpoint(run_folder: Path) -> tuple[Position, Arrays]:
    """Read the newest checkpoint of a run.

    Raises:
        RunError: If there is none, or its files cannot be read.
    """
    complete = checkpoints(run_folder)
    if not complete:
        raise RunError(f"{run_folder} holds no checkpoint to resume from; start the run anew")
    try:
        progress = json.loads((complete[-1] / _PROGRESS).read_text(encoding="utf-8"))
        return Position(**progress), load_file(complete[-1] / _TENSORS)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise RunError(f"cannot read checkpoint {complete[-1]}: {error}") from None


def checkpoints(run_folder: Path) -> list[Path]:
    """Folders of all complete checkpoints, oldest first."""
    parent = run_folder / CHECKPOINTS_FOLDER
    found = parent.iterdir() if parent.is_dir() else ()
    return sorted(folder for folder in found if _NAME.fullmatch(folder.name))


def save_best_model(run_folder: Path, global_step: int, write: Callable[[Path], None]) -> None:
    """Replace the run's best model.

    Args:
        run_folder: The run's folder.
        global_step: Step the model is from.
        write: Writes the model's files into an empty folder.
    """
    folder = run_folder / BEST_FOLDER / f"step-{global_step:08d}"
    if folder.resolve() == (run_folder / MODEL_FOLDER).resolve():  # this step again: a resume
        folder = folder.with_name(f"{folder.name}-again")  # the link leads somewhere at all times
    _write_folder(folder, write)
    link = run_folder / f".{MODEL_FOLDER}"
    link.unlink(missing_ok=True)  # of a process that was killed in here
    link.symlink_to(folder.relative_to(run_folder))
    link.replace(run_folder / MODEL_FOLDER)
    for other in folder.parent.iterdir():
        if other != folder:
            _remove(other)


def _write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.parent.glob(".writing-*"):
        _remove(leftover)  # of a process that was killed in here; a run has one writer
    scratch = folder.parent / f".writing-{folder.name}"
    scratch.mkdir()
    try:
        fill(scratch)
        for path in scratch.iterdir():
            _force_to_disk(path)
        _force_to_disk(scratch)
        if folder.exists():  # the same step again, after a resume
            _remove(folder)
        scratch.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"cannot write {folder}: {reason}; free some space") from error
    _force_to_disk(folder.parent)


def _keep_newest(run_folder: Path, count: int) -> None:
    for old in checkpoints(run_folder)[:-count]:
        _remove(old)


def _remove(folder: Path) -> None:
    """Remove a folder such that it is never seen half removed under its own name."""
    if not folder.name.startswith(".") and folder.is_dir():
        folder = folder.rename(folder.parent / f".writing-removed-{folder.name}")
    shutil.rmtree(folder, ignore_errors=True)


def _force_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def named(prefix: str, names: list[str], arrays: list[Any]) -> Arrays:
    """Arrays of variables under ``prefix`` and the variables' names."""
    return {f"{prefix}{name}": a.numpy() for name, a in zip(names, arrays, strict=True)}
