"""A run on engines, watched from the client until every rank has ended.

When an engine dies, or gives no sign of life, it is ended for good and the others are told: they
meet anew and go on with the step they had reached, while a replacement is started and taken in
when it is ready. Where nobody is left, the replacements go on from the newest checkpoint. A rank
that fails by itself would do so again: that ends the run. If nothing in the run's folder says why
it ended, or only a rank that suffered does, the client appends a `Failed` event that names the rank
at fault.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bertkit.cluster.coordinator import ADDRESS_FILE, Coordinator, LeftBehind
from bertkit.cluster.engine import Engine
from bertkit.cluster.rank import RankReport, RankTask, run_rank
from bertkit.errors import BertkitError, RunError
from bertkit.events import Emit, Event, EventLog, EventReader, Failed, Finished, Step, read
from bertkit.run import CHECKPOINTS_FOLDER

POLL_SECONDS = 0.1
FOLLOW_SECONDS = 10.0  # how long the other ranks have to end after the first that failed
LOG_SECONDS = 10.0  # how long a dying writer may hold the event file
STRIKES = 3  # losses in a row without a step between that end a run
REPLACE_SECONDS = (0.0, 0.5, 5.0, 10.0, 20.0, 30.0)  # before replacements are tried for again


@dataclass
class _Rank:
    """One engine's part of the run."""

    number: int
    engine: Engine
    answer: Any  # ipyparallel's, or None where another client asked
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

    @property
    def has_left(self) -> bool:
        """Whether it ended without the run being finished, its engine alive."""
        return self.report is not None and self.report["outcome"] != "finished"

    def look(self) -> None:
        """Find out whether it has ended."""
        if self.answer is not None and self.answer.ready():
            self.report = _report_of(self)
        elif ending := self.engine.process.ending():
            self.died = ending


class GetEngines(Protocol):
    """Gives the engines, replacing lost ones; it may take its time, and raise."""

    def __call__(self, emit: Emit, *, all_of_them: bool = True) -> list[Engine]:
        """Give them, ready for a run.

        Args:
            emit: Takes the events that tell of its progress.
            all_of_them: Whether it is a fault if some cannot be had.
        """
        ...


class Supervision:
    """Starts a run on engines and watches over it, in a thread of its own.

    Args:
        folder: The run's folder.
        engines: Gives the engines, replacing lost ones.
        profile: How another client could attach to them, once they are there.
        train: What every rank calls, as ``"module:function"``.
        resume: Whether the run goes on from its newest checkpoint.
        interface: Network interface of the ranks; by default the loopback interface.
        lost_after: Seconds without a sign of life after which an engine counts as lost.
        before: Where the run goes on already: what the client left behind in whose place this one
            watches over it.
        there: The engines that train it.
    """

    def __init__(
        self,
        folder: Path,
        engines: GetEngines,
        profile: Callable[[], str | None],
        *,
        train: str,
        resume: bool,
        interface: str | None,
        lost_after: float,
        before: LeftBehind | None = None,
        there: Sequence[Engine] = (),
    ) -> None:
        self._folder = folder
        self._before, self._there = before, there
        self._train = train
        self._resume = resume
        self._interface = interface
        self._lost_after = lost_after
        self._working_folder = str(Path.cwd())
        self._ranks: list[_Rank] = []
        self._steps = EventReader(folder)
        self._strikes = 0
        self._cancelled = threading.Event()
        self._over = threading.Event()
        # Handed over, not kept: the handle of a run that is over must not hold its cluster.
        threading.Thread(
            target=self._run, args=(engines, profile), name="bertkit-run", daemon=True
        ).start()

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

    def _run(self, get_engines: GetEngines, profile: Callable[[], str | None]) -> None:
        try:
            engines = self._there if self._before else get_engines(self._write)
            with Coordinator(self._folder, self._interface, self._before, profile()) as coordinator:
                if self._before:
                    self._take_over(coordinator, engines, self._before)
                else:
                    for number, engine in enumerate(engines):
                        self._submit(coordinator, engine, number, len(engines), self._resume)
                self._watch(coordinator, _Replacing(get_engines))
            if failed := self._failure():
                self._write(failed)
        except BertkitError as error:
            self._write(Failed(message=str(error), details=_with_notes(error)))
        except Exception as error:
            details = "".join(traceback.format_exception(error))
            self._write(Failed(message=f"{type(error).__name__}: {error}", details=details))
        finally:
            self._over.set()

    def _submit(
        self, coordinator: Coordinator, engine: Engine, number: int, size: int, resume: bool
    ) -> None:
        coordinator.add(engine.id, engine.description)
        task: RankTask = {
            "train": self._train,
            "folder": str(self._folder.resolve()),
            "resume": resume,
            "working_folder": self._working_folder,
            "seat": {
                "engine": engine.id,
                "host": engine.host,
                "rank": number,
                "size": size,
                "address": coordinator.address,
                "port": coordinator.port,
                "token": coordinator.token,
                "address_file": str((self._folder / ADDRESS_FILE).resolve()),
            },
        }
        engine.process.mark_log()
        self._ranks.append(_Rank(number, engine, engine.submit(run_rank, task)))

    # Watching ----------------------------------------------------------------------------------

    def _watch(self, coordinator: Coordinator, replacing: _Replacing) -> None:
        """Wait until all ranks have ended; go on without those that are lost."""
        size = len(self._ranks)
        while not self._is_finished():
            if self._cancelled.wait(POLL_SECONDS):
                self._kill(self._present)
                return
            self._look(coordinator)
            if any(rank.has_left for rank in self._ranks if not rank.died):
                coordinator.end("a rank failed, which ends the run")
                self._let_follow()
                return
            if len(self._present) < size:
                if self._strikes >= STRIKES or (not self._present and replacing.failed):
                    coordinator.end("ranks were lost again and again")
                    self._let_follow()
                    return
                self._take_in(coordinator, replacing.newcomers(self._ranks), size)
            coordinator.form()
        self._let_follow()

    @property
    def _present(self) -> list[_Rank]:
        return [rank for rank in self._ranks if not rank.over]

    def _is_finished(self) -> bool:
        return any(rank.report and rank.report["outcome"] == "finished" for rank in self._ranks)

    def _look(self, coordinator: Coordinator) -> None:
        """Find out which ranks have ended, and end those that do not answer."""
        stuck = coordinator.stuck()
        lost = []
        for rank in self._present:
            rank.look()
            rank.report = rank.report or coordinator.report(rank.engine.id)
            silence = coordinator.silence(rank.engine.id)
            if not rank.over and silence > self._lost_after:
                rank.died = f"did not answer for {silence:.0f} s and was ended"
            elif not rank.over and rank.engine.id in stuck:
                rank.died = "did not come when the other ranks met, and was ended"
            if rank.died:
                rank.engine.process.kill()  # it must not come back and write
                lost.append(rank)
        self._wait_until_gone(lost)
        for rank in lost:
            number = coordinator.rank_of(rank.engine.id)
            rank.number = rank.number if number is None else number
            coordinator.lose(rank.engine.id, self._message(rank))
        if lost:
            has_moved = any(isinstance(event, Step) for event in self._steps.new())
            self._strikes = 1 if has_moved else self._strikes + 1

    def _wait_until_gone(self, ranks: list[_Rank]) -> None:
        deadline = time.monotonic() + FOLLOW_SECONDS
        while any(rank.engine.alive for rank in ranks) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _take_in(self, coordinator: Coordinator, engines: list[Engine], size: int) -> None:
        nobody_left = not self._present
        for position, engine in enumerate(engines):
            # Of those that come later none is rank 0 from the beginning: it has no say yet.
            number = position if nobody_left else size
            resume = nobody_left and self._has_checkpoint()
            self._submit(coordinator, engine, number, size, resume)

    def _take_over(
        self, coordinator: Coordinator, engines: Sequence[Engine], before: LeftBehind
    ) -> None:
        """Watch over engines that train already."""
        there = {engine.id: engine for engine in engines}
        for number, place in before.engines.items():
            if number in there:
                rank = coordinator.rank_of(number)
                rank = len(before.order) if rank is None else rank
                self._ranks.append(_Rank(rank, there[number], None))
            else:
                coordinator.lose(number, f"engine {number} on {place['host']} was lost meanwhile")

    def _let_follow(self) -> None:
        """Wait for the ranks that have not ended, and end them if they take too long."""
        deadline = time.monotonic() + FOLLOW_SECONDS
        while (waiting := self._present) and time.monotonic() < deadline:
            if self._cancelled.wait(POLL_SECONDS):
                break
            for rank in waiting:
                rank.look()
        self._kill(self._present)

    def _kill(self, ranks: list[_Rank]) -> None:
        for rank in ranks:
            rank.killed = True
            rank.engine.process.kill()
        self._wait_until_gone(ranks)

    def _has_checkpoint(self) -> bool:
        checkpoints = self._folder / CHECKPOINTS_FOLDER
        return checkpoints.is_dir() and any(checkpoints.glob("step-*"))

    def _failure(self) -> Failed | None:
        """The event that says why the run failed, unless it did not or its events say so."""
        if self._is_finished():
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
        if self._has_checkpoint():
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


class _Replacing:
    """Asks for all engines again, in a thread of its own, as long as some are lost.

    Args:
        get_engines: Gives the engines, replacing lost ones.
    """

    def __init__(self, get_engines: GetEngines) -> None:
        self._get_engines = get_engines
        self._thread: threading.Thread | None = None
        self._found: list[Engine] = []
        self._tries = 0
        self._next_try = 0.0
        self.failed = False  # so often that there is little hope

    def newcomers(self, ranks: list[_Rank]) -> list[Engine]:
        """Engines that have come and have no part in the run yet."""
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
            known = {rank.engine.id for rank in ranks}
            new = [engine for engine in self._found if engine.id not in known]
            self._tries = 0 if new else self._tries + 1
            self.failed = self._tries > len(REPLACE_SECONDS)
            wait = REPLACE_SECONDS[min(self._tries, len(REPLACE_SECONDS) - 1)]
            self._next_try = time.monotonic() + wait
            return new
        if self._thread is None and time.monotonic() >= self._next_try:
            self._thread = threading.Thread(target=self._try, name="bertkit-replace", daemon=True)
            self._thread.start()
        return []

    def _try(self) -> None:
        self._found = []
        with contextlib.suppress(Exception):  # whatever is wrong; those left go on
            self._found = self._get_engines(lambda _: None, all_of_them=False)


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
