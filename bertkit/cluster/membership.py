"""An engine's place among the ranks of a run: signs of life, and meeting the other ranks.

The rank's side of `bertkit.cluster.coordinator`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkit.cluster.rank import RankReport, Seat
from bertkit.errors import TrainingError
from bertkit.training.world import HorovodWorld, World

BEAT_SECONDS = 1.0
POLL_SECONDS = 0.1
ASK_SECONDS = 2.0
ALONE_SECONDS = 8.0  # without an answer for so long, others may go on without this rank
GIVE_UP_SECONDS = 60.0  # a client that starts anew may take over in this time


class RankLeftError(TrainingError):
    """The others go on without this rank, or nobody goes on."""


class Membership:
    """Sends signs of life while a run goes on, and joins each generation of its ranks.

    Args:
        seat: Where the coordinator is, and who this engine is.
    """

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self.should_meet = False
        self._where = {name: seat[name] for name in ("address", "port", "token")}
        self._generation = 0
        self._stage = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="bertkit-beat", daemon=True)

    def __enter__(self) -> Membership:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join(timeout=2 * ASK_SECONDS)

    def meet(self, global_step: int | None, when_alone: Callable[[], object]) -> EngineWorld:
        """See `bertkit.training.world.World.meet`."""
        leave_horovod()
        answered = time.monotonic()
        while True:
            answer = self._ask("meet", global_step=global_step)
            quiet = time.monotonic() - answered
            if answer is not None:
                answered = time.monotonic()
            elif quiet > GIVE_UP_SECONDS:
                raise RankLeftError(
                    f"{self.seat['host']}: a rank was lost, and nobody at "
                    f"{self._where['address']}:{self._where['port']} gathers the others; "
                    f"resume the run to go on from its newest checkpoint"
                )
            elif quiet > ALONE_SECONDS:
                when_alone()
            if answer and "over" in answer:
                raise RankLeftError(str(answer["over"]))
            if answer and "environment" in answer and (world := self._join(answer)):
                return world
            time.sleep(POLL_SECONDS)

    @contextlib.contextmanager
    def working(self, stage: str) -> Iterator[None]:
        """See `bertkit.training.world.World.working`."""
        self._stage = stage
        try:
            yield
        finally:
            self._stage = ""

    def report(self, report: RankReport) -> None:
        """Tell how this rank's part has ended; whoever started it may be gone."""
        self._ask("report", report=report)

    def _join(self, place: Mapping[str, Any]) -> EngineWorld | None:
        """Join a generation; ``None`` if it was over before it began."""
        self._generation = int(place["generation"])
        self.should_meet = False
        try:
            join_horovod(place["environment"])
        except Exception:  # one of the others was lost in the meantime: there will be another
            leave_horovod()
            return None
        return EngineWorld(self, news=place["news"], detected=float(place["detected"]))

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            generation = self._generation
            answer = self._ask("beat")
            if answer and answer.get("meet") and generation == self._generation:
                self.should_meet = True

    def _ask(self, call: str, **more: object) -> dict[str, Any] | None:
        """Ask the coordinator; ``None`` if nobody answers."""
        said = {
            "call": call, "engine": self.seat["engine"], "token": self._where["token"],
            "generation": self._generation, "stage": self._stage, **more,
        }  # fmt: skip
        connection = http.client.HTTPConnection(
            str(self._where["address"]), int(self._where["port"]), timeout=ASK_SECONDS
        )
        try:
            connection.request("POST", "/", json.dumps(said))
            reply = connection.getresponse()
            return dict(json.loads(reply.read())) if reply.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            self._look_for_another()
            return None
        finally:
            connection.close()

    def _look_for_another(self) -> None:
        """Find the coordinator of a client that took over, if there is one."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            found = json.loads(Path(self.seat["address_file"]).read_text(encoding="utf-8"))
            self._where = {name: found[name] for name in ("address", "port", "token")}


class EngineWorld(HorovodWorld):
    """Horovod's ranks in engines, which are gathered anew when some are lost or come.

    Args:
        membership: This engine's place among them.
        news, detected: See `bertkit.training.world.World`.
        met: Whether Horovod is up; before the first meeting only `meet` is of use.
    """

    def __init__(
        self,
        membership: Membership,
        *,
        news: Sequence[str] = (),
        detected: float = 0.0,
        met: bool = True,
    ) -> None:
        self._membership = membership
        self.news, self.detected = news, detected
        self.host = membership.seat["host"]
        if met:
            super().__init__()
        else:
            self.rank, self.size = membership.seat["rank"], membership.seat["size"]

    def meet(
        self, global_step: int | None = None, *, when_alone: Callable[[], object] = lambda: None
    ) -> World:
        """See `World`."""
        return self._membership.meet(global_step, when_alone)

    @property
    def should_meet(self) -> bool:
        """See `World`."""
        return self._membership.should_meet

    def working(self, stage: str) -> contextlib.AbstractContextManager[object]:
        """See `World`."""
        return self._membership.working(stage)

    def abort(self) -> None:
        """See `World`."""
        leave_horovod()


def join_horovod(environment: Mapping[str, str]) -> None:
    """Make this process a Horovod rank.

    Args:
        environment: As `Rendezvous.environment` gives it; see `prefer_what_is_set`.
    """
    import horovod.tensorflow as hvd

    hvd.shutdown()  # of a run that was cut off; does nothing otherwise
    os.environ.update(prefer_what_is_set(environment, os.environ))
    hvd.init()


def prefer_what_is_set(
    environment: Mapping[str, str], present: Mapping[str, str]
) -> dict[str, str]:
    """A rank's variables, where the user's own settings win: all but who and where the rank is.

    Those are the transport (``HOROVOD_CPU_OPERATIONS``), the network interface, the time-outs, and
    how often ranks ask each other what is ready (``HOROVOD_CYCLE_TIME``).

    Args:
        environment: As `Rendezvous.environment` gives it.
        present: Variables that are set already.

    Example:
        >>> users = {"HOROVOD_RANK": "9", "HOROVOD_CYCLE_TIME": "1"}
        >>> prefer_what_is_set({"HOROVOD_RANK": "0", "HOROVOD_CYCLE_TIME": "5"}, users)
        {'HOROVOD_RANK': '0', 'HOROVOD_CYCLE_TIME': '1'}
    """
    theirs = ("_OPERATIONS", "_CYCLE_TIME", "_SECONDS", "_IFACE")
    return {
        name: present.get(name, value) if name.endswith(theirs) else value
        for name, value in environment.items()
    }


def leave_horovod() -> None:
    """Stop being a rank; the other ranks' collectives then fail."""
    import horovod.tensorflow as hvd

    hvd.shutdown()
