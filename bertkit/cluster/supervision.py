"""A run on engines, watched from the client until every rank has ended.

Each run gets a rendezvous of its own. When a rank fails or its engine dies, Horovod lets the
others' next collective fail; whoever has not ended soon after is killed, so that no run hangs. If
nothing in the run's folder says why it ended, or only a rank that suffered does, the client
appends a `Failed` event that names the rank at fault.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit.cluster.engine import Engine
from bertkit.cluster.rank import RankReport, RankTask, run_rank
from bertkit.cluster.rendezvous import Rendezvous
from bertkit.errors import BertkitError, RunError
from bertkit.events import Emit, Event, EventLog, Failed, Finished, read
from bertkit.run import CHECKPOINTS_FOLDER

POLL_SECONDS = 0.1
FOLLOW_SECONDS = 10.0  # how long the other ranks have to end after the first that failed
LOG_SECONDS = 10.0  # how long a dying writer may hold the event file


@dataclass
class _Rank:
    """One rank's part of the run."""

    number: int
    engine: Engine
    answer: Any
    report: RankReport | None = None
    died: str | None = None  # how its engine ended, if that ended its part
    killed: bool = False  # by us

    @property
    def over(self) -> bool:
        return self.report is not None or self.died is not None

    @property
    def at_fault(self) -> bool:
        """Whether it failed by itself, not because another rank went away."""
        if self.killed:
            return False
        return self.died is not None or (
            self.report is not None and self.report["outcome"] == "failed"
        )

    def look(self) -> None:
        """Find out whether it has ended."""
        if self.answer.ready():
            self.report = _report_of(self)
        elif ending := self.engine.process.ending():
            self.died = ending


class Supervision:
    """Starts a run on engines and watches over it, in a thread of its own.

    Args:
        folder: The run's folder.
        engines: Gives the engines, replacing lost ones; it may take its time, tell of its
            progress, and raise.
        train: What every rank calls, as ``"module:function"``.
        resume: Whether the run goes on from its newest checkpoint.
        interface: Network interface of the ranks; by default the loopback interface.
    """

    def __init__(
        self,
        folder: Path,
        engines: Callable[[Emit], list[Engine]],
        *,
        train: str,
        resume: bool,
        interface: str | None,
    ) -> None:
        self._folder = folder
        self._train = train
        self._resume = resume
        self._interface = interface
        self._working_folder = str(Path.cwd())
        self._ranks: list[_Rank] = []
        self._cancelled = threading.Event()
        self._over = threading.Event()
        # Handed over, not kept: the handle of a run that is over must not hold its cluster.
        threading.Thread(target=self._run, args=(engines,), name="bertkit-run", daemon=True).start()

    @property
    def over(self) -> bool:
        """Whether every rank has ended and the run's events are complete."""
        return self._over.is_set()

    def wait(self, seconds: float) -> bool:
        """Whether it is over within some seconds."""
        return self._over.wait(seconds)

    def cancel(self) -> None:
        """End the ranks at once, engines included."""
        self._cancelled.set()

    def _run(self, get_engines: Callable[[Emit], list[Engine]]) -> None:
        try:
            engines = get_engines(self._write)
            with Rendezvous([engine.host for engine in engines], self._interface) as rendezvous:
                self._submit(engines, rendezvous)
                self._watch()
            if failed := self._failure():
                self._write(failed)
        except BertkitError as error:
            self._write(Failed(message=str(error), details=_with_notes(error)))
        except Exception as error:
            details = "".join(traceback.format_exception(error))
            self._write(Failed(message=f"{type(error).__name__}: {error}", details=details))
        finally:
            self._over.set()

    def _submit(self, engines: list[Engine], rendezvous: Rendezvous) -> None:
        for number, engine in enumerate(engines):
            task: RankTask = {
                "train": self._train,
                "folder": str(self._folder.resolve()),
                "resume": self._resume,
                "working_folder": self._working_folder,
                "rank": number,
                "size": len(engines),
                "environment": rendezvous.environment(number),
            }
            engine.process.mark_log()
            self._ranks.append(_Rank(number, engine, engine.submit(run_rank, task)))

    def _watch(self) -> None:
        """Wait until all ranks have ended; after a failure, see to it that they do."""
        failed_at: float | None = None
        while waiting := [rank for rank in self._ranks if not rank.over]:
            if self._cancelled.wait(POLL_SECONDS):
                self._kill(waiting)
                return
            for rank in waiting:
                rank.look()
            if failed_at is None and any(_has_failed(rank) for rank in self._ranks):
                failed_at = time.monotonic()
            if failed_at is not None and time.monotonic() > failed_at + FOLLOW_SECONDS:
                self._kill([rank for rank in self._ranks if not rank.over])
                return

    def _kill(self, ranks: list[_Rank]) -> None:
        for rank in ranks:
            rank.killed = True
            rank.engine.process.kill()
        deadline = time.monotonic() + FOLLOW_SECONDS
        while any(rank.engine.alive for rank in ranks) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def _failure(self) -> Failed | None:
        """The event that says why the run failed, unless it did not or its events say so."""
        if not any(_has_failed(rank) or rank.killed for rank in self._ranks):
            return None
        history = read(self._folder)
        last = history[-1] if history else None
        if isinstance(last, Finished):
            return None  # it was complete before a rank went away
        fault = self._fault()
        if isinstance(last, Failed) and fault and fault.report and last.rank == fault.number:
            return None
        return Failed(
            message=f"{self._message(fault)}; {self._advice()}",
            rank=fault.number if fault else None,
            host=fault.engine.host if fault else None,
            details=self._details(),
        )

    def _fault(self) -> _Rank | None:
        """The rank the others went down with."""
        at_fault = [rank for rank in self._ranks if rank.at_fault]
        if not at_fault and not self._cancelled.is_set():  # then whoever had to be killed
            at_fault = [rank for rank in self._ranks if rank.killed]
        # An engine's death first: it can make other ranks fail in ways that look like their own.
        return min(at_fault, key=lambda rank: rank.died is None, default=None)

    def _message(self, rank: _Rank | None) -> str:
        if rank is None and self._cancelled.is_set():
            return "the cluster was stopped while the run was going on"
        if rank is None:
            return "the ranks lost touch with each other although none of them failed"
        where = f"rank {rank.number} on {rank.engine.host}"
        if rank.report:
            return f"{where}: {rank.report['message']}"
        ending = rank.died or "did not answer any more and was ended"
        return f"{where} (engine {rank.engine.id}, process {rank.engine.pid}) {ending}"

    def _advice(self) -> str:
        checkpoints = self._folder / CHECKPOINTS_FOLDER
        if checkpoints.is_dir() and any(checkpoints.iterdir()):
            return "resume the run to go on from its newest checkpoint"
        return "start the run again"

    def _details(self) -> str:
        """What every rank has to say, and the last lines of the log of engines that died."""
        parts = []
        for rank in self._ranks:
            outcome = rank.died or (rank.report["outcome"] if rank.report else "did not end")
            said = rank.report["details"] if rank.report else rank.engine.process.log_tail()
            killed = " and was killed" if rank.killed else ""
            parts.append(f"rank {rank.number} on {rank.engine.host}: {outcome}{killed}\n{said}")
        return "\n".join(parts)

    def _write(self, event: Event) -> None:
        """Append an event when no rank writes, once whoever did has let go of the file."""
        deadline = time.monotonic() + LOG_SECONDS
        while True:
            try:
                with EventLog(self._folder) as log:
                    log(event)
                return
            except RunError:
                if time.monotonic() > deadline:
                    return  # some other process trains this folder; its events are not ours
                time.sleep(POLL_SECONDS)
            except OSError:
                return  # the folder is gone


def _has_failed(rank: _Rank) -> bool:
    return rank.died is not None or (
        rank.report is not None and rank.report["outcome"] != "finished"
    )


def _report_of(rank: _Rank) -> RankReport | None:
    """The report of a rank whose answer is there, also if it is an exception of ipyparallel."""
    try:
        report: RankReport = rank.answer.get(timeout=0)
        return report
    except Exception as error:
        if ending := rank.engine.process.ending():
            rank.died = ending
            return None
        return {
            "rank": rank.number,
            "host": rank.engine.host,
            "pid": rank.engine.pid,
            "outcome": "failed",
            "message": f"{type(error).__name__}: {error}",
            "details": "".join(traceback.format_exception(error)),
        }


def _with_notes(error: BaseException) -> str:
    notes = getattr(error, "__notes__", [])
    return "\n".join(notes)
