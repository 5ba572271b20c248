"""What runs inside an engine: it becomes a rank, trains its part of a run, and reports.

Functions of this module are called through ipyparallel; they take and return plain JSON values.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from bertkit.cluster.freed_memory import give_back_freed_memory
from bertkit.errors import BertkitError
from bertkit.loading_tensorflow import load_tensorflow

if TYPE_CHECKING:
    from bertkit.cluster.membership import Membership


class EngineDescription(TypedDict):
    """What an engine says of itself."""

    host: str
    pid: int
    cpus: list[int]


class Seat(TypedDict):
    """What an engine must know to find its coordinator.

    ``rank`` and ``size`` are what is expected at the beginning; meetings decide.
    """

    engine: int
    host: str
    rank: int
    size: int
    address: str
    port: int
    token: str
    address_file: str


class RankTask(TypedDict):
    """What one engine has to do for a run.

    ``train`` is ``"module:function"``, called with the run's folder, the world, and ``resume``.
    """

    train: str
    folder: str
    resume: bool
    working_folder: str
    seat: Seat


class RankReport(TypedDict):
    """How a rank's part of a run ended.

    ``outcome`` is ``"finished"``, ``"failed"`` (here) or ``"lost"`` (some other rank went away).
    """

    rank: int
    host: str
    pid: int
    outcome: str
    message: str
    details: str


def describe() -> EngineDescription:
    """Say where this engine runs."""
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "cpus": sorted(os.sched_getaffinity(0)),
    }


def bind(cpus: list[int], environment: dict[str, str]) -> None:
    """Bind all threads of this engine to some CPUs and set environment variables.

    TensorFlow reads the variables when it is first imported; after that they change nothing.
    """
    os.environ.update(environment)
    if not cpus:
        return
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # a thread that has just ended
            os.sched_setaffinity(int(thread.name), cpus)


def load_libraries(train: str, size: int, only_bertkit: bool) -> None:
    """Import what a run needs, so that its first step does not wait for it.

    Args:
        train: What every rank will call, as ``"module:function"``.
        size: Number of ranks.
        only_bertkit: See `bertkit.loading_tensorflow.load_tensorflow`.
    """
    load_tensorflow(only_bertkit=only_bertkit)
    _function(train)
    import tensorflow as tf

    if size > 1:
        import horovod.tensorflow  # noqa: F401
    tf.constant(0)  # starts TensorFlow's threads


def run_rank(task: RankTask) -> RankReport:
    """Train one rank's part of a run; a failure is in the report, not raised."""
    from bertkit.cluster.membership import Membership

    report: RankReport = {
        "rank": task["seat"]["rank"],
        "host": task["seat"]["host"],
        "pid": os.getpid(),
        "outcome": "finished",
        "message": "",
        "details": "",
    }
    with _output_to_log(), Membership(task["seat"]) as membership:
        try:
            _train(task, membership)
        except BaseException as error:
            report["outcome"] = "lost" if _is_loss_of_a_rank(error) else "failed"
            report["message"] = _message(error)
            report["details"] = "".join(traceback.format_exception(error))
            sys.stderr.write(report["details"])
        membership.report(report)
    _free_memory()
    return report


def _train(task: RankTask, membership: Membership) -> None:
    from bertkit.cluster.membership import EngineWorld, leave_horovod
    from bertkit.training.world import SingleWorld

    if Path(task["working_folder"]).is_dir():
        os.chdir(task["working_folder"])  # relative paths mean what they mean to the client
    train = _function(task["train"])
    folder, resume = Path(task["folder"]), task["resume"]
    if task["seat"]["size"] == 1:
        train(folder, SingleWorld(host=task["seat"]["host"]), resume=resume)
        return
    try:
        train(folder, EngineWorld(membership, met=False), resume=resume)
        _leave_together()
    finally:
        leave_horovod()


def _leave_together() -> None:
    """Whoever leaves first would break the others' last collective."""
    from bertkit.training.world import HorovodWorld

    try:
        HorovodWorld().barrier()
    except Exception as error:
        if not _is_loss_of_a_rank(error):  # a rank may be lost now: its part is done
            raise


def _free_memory() -> None:
    """Give back what a run has held: engines train run after run, an advisor's by the dozen."""
    from tensorflow.python.framework import ops

    # tf.custom_gradient enters the gradients of every traced call in a table that TensorFlow
    # never clears; they hold the graph they were traced in. Four fifths of the growth were that.
    table: dict[str, Any] = getattr(ops.gradient_registry, "_registry", {})
    for name in [name for name in table if name.startswith("CustomGradient-")]:
        del table[name]
    gc.collect()  # graphs hold their weights in cycles
    give_back_freed_memory()


def _is_loss_of_a_rank(error: BaseException) -> bool:
    from bertkit.cluster.membership import RankLeftError
    from bertkit.training.world import is_loss_of_a_rank

    return isinstance(error, RankLeftError) or is_loss_of_a_rank(error)


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]


def _message(error: BaseException) -> str:
    """The sentence of an error; of TensorFlow's pages the line that says what went wrong."""
    if isinstance(error, BertkitError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith("[[")] or [""]
    return f"{type(error).__name__}: {lines[0] if len(lines) < 4 else lines[-1]}"


@contextlib.contextmanager
def _output_to_log() -> Iterator[None]:
    """Let a run print into the engine's log, where it can be read even after a crash."""
    out, err = sys.__stdout__, sys.__stderr__
    if out is None or err is None:
        yield
        return
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield
        out.flush()
