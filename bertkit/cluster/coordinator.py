"""Gathers the ranks of one run, and gathers them anew when some are lost or come back.

The client's side of it: a small server that ranks send a sign of life to every second, and that
they come to when they have to meet. A generation is a set of ranks that trains together; each has
a rendezvous of its own, in which Horovod's ranks find each other.

Not Horovod's own elastic driver: it starts the processes itself where ours are engines that live
on from run to run; it shuns a whole host once one worker on it was lost; and its states are copies
of the weights, where here the weights themselves are the state (`bertkit.training.loop`).
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import BaseServer
from typing import Any

from bertkit.cluster.rank import EngineDescription, RankReport
from bertkit.cluster.rendezvous import Rendezvous, interface_and_address

ADDRESS_FILE = "coordinator.json"
MEET_SECONDS = 15.0  # how long ranks may take to come after the first one came
BUSY_SECONDS = 600.0  # the same for one that says it does something by itself
REQUEST_SECONDS = 2.0


@dataclass
class Member:
    """An engine that takes part in a run.

    Args:
        id: ipyparallel's number of the engine.
        description: Where it runs.
    """

    id: int
    description: EngineDescription
    generation: int = 0  # the one it trains in; 0 while it prepares
    meeting: bool = False
    global_step: int | None = None  # of the state it brings to a meeting
    stage: str = ""  # what it does by itself
    heard: float = field(default_factory=time.monotonic)
    gone: str = ""  # why it does not belong any more
    place: dict[str, Any] | None = None  # what it is told to join
    report: RankReport | None = None  # how its part ended

    @property
    def host(self) -> str:
        """Its machine."""
        return self.description["host"]


@dataclass(frozen=True)
class LeftBehind:
    """What the coordinator of a client that has ended left in a run's folder.

    Args:
        generation: The generation that trains.
        order: Its engines by rank.
        engines: Where each engine runs, by ipyparallel's numbers.
        profile: What ``Cluster(profile=...)`` needs to attach to them.
    """

    generation: int
    order: list[int]
    engines: dict[int, EngineDescription]
    profile: str | None

    @classmethod
    def of(cls, folder: Path) -> LeftBehind | None:
        """Read it; ``None`` if there is nothing, or its client still gathers the ranks."""
        try:
            found = json.loads((folder / ADDRESS_FILE).read_text(encoding="utf-8"))
            engines = {int(number): place for number, place in found["engines"].items()}
            left = cls(found["generation"], found["order"], engines, found["profile"])
            address = found["address"], found["port"]
        except (OSError, ValueError, KeyError):
            return None
        try:
            socket.create_connection(address, timeout=REQUEST_SECONDS).close()
        except OSError:
            return left
        return None


class Coordinator:
    """The server that the ranks of one run meet at.

    Args:
        folder: The run's folder; a file in it says where the coordinator is.
        interface: Network interface that all hosts share; by default the loopback interface.
        before: Another client's coordinator of the same run, whose place this one takes.
        profile: How another client could attach to the engines.

    Raises:
        ClusterError: If this host has no such interface.
    """

    def __init__(
        self,
        folder: Path,
        interface: str | None = None,
        before: LeftBehind | None = None,
        profile: str | None = None,
    ) -> None:
        self.interface, self.address = interface_and_address(interface)
        self.profile = profile
        self.token = secrets.token_hex(16)
        self.generation = before.generation if before else 0
        self.order = list(before.order) if before else []  # engines of this generation by rank
        self._members: dict[int, Member] = {}
        for engine, description in (before.engines if before else {}).items():
            generation = self.generation if engine in self.order else 0
            self._members[engine] = Member(engine, description, generation)
        self._news: list[str] = []
        self._detected = 0.0
        self._over = ""
        self._meeting_since: float | None = None
        self._rendezvous: Rendezvous | None = None
        self._lock = threading.Lock()
        self._server = _Server((self.address, 0), _handler(self._answer))
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="bertkit-coordinator",
            daemon=True,
        )
        self._thread.start()
        self._address_file = folder / ADDRESS_FILE
        self._tell_address()

    # The client's side -------------------------------------------------------------------------

    def add(self, engine: int, description: EngineDescription) -> None:
        """Expect an engine that prepares itself."""
        with self._lock:
            self._members[engine] = Member(engine, description)
            self._tell_address()

    def lose(self, engine: int, news: str) -> None:
        """Go on without an engine.

        Args:
            engine: Its number.
            news: What happened to it, in one sentence.
        """
        with self._lock:
            member = self._members[engine]
            if not member.gone:
                member.gone = news
                self._notice(news)

    def report(self, engine: int) -> RankReport | None:
        """How an engine's part has ended, as it says itself."""
        return self._members[engine].report

    def end(self, reason: str) -> None:
        """Tell everyone who comes to meet that the run is over."""
        with self._lock:
            self._over = reason

    def rank_of(self, engine: int) -> int | None:
        """The rank an engine has, or had last."""
        return self.order.index(engine) if engine in self.order else None

    def silence(self, engine: int) -> float:
        """Seconds since an engine's last sign of life."""
        return time.monotonic() - self._members[engine].heard

    def stuck(self) -> list[int]:
        """Engines that give signs of life, but do not come although the others have met."""
        with self._lock:
            since = self._meeting_since
            if since is None:
                return []
            waited = time.monotonic() - since
            return [
                member.id
                for member in self._training()
                if waited > (BUSY_SECONDS if member.stage else MEET_SECONDS)
            ]

    def form(self) -> bool:
        """Let a new generation begin once all are there who should be; whether one did."""
        with self._lock:
            there = [member for member in self._alive() if member.meeting]
            bring_state = [member for member in there if member.global_step is not None]
            preparing = [m for m in self._alive() if not m.generation and not m.meeting]
            waits_for_others = self._training() or (preparing and not bring_state)
            if not there or self._over or waits_for_others:
                return False
            self._begin(self._in_order(there))
            return True

    def close(self) -> None:
        """Stop serving and free the ports."""
        self._address_file.unlink(missing_ok=True)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
        if self._rendezvous is not None:
            self._rendezvous.close()

    def __enter__(self) -> Coordinator:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Generations -------------------------------------------------------------------------------

    def _alive(self) -> list[Member]:
        return [member for member in self._members.values() if not member.gone]

    def _training(self) -> list[Member]:
        return [member for member in self._alive() if member.generation and not member.meeting]

    def _in_order(self, members: Sequence[Member]) -> list[Member]:
        """Rank 0 has the newest state, and stays who it was where that is the same state.

        Rank 0 writes the events: what it has reached is what stands in the file. Ranks of one
        host are neighbours.
        """
        old_rank = {engine: rank for rank, engine in enumerate(self.order)}

        def place(member: Member) -> tuple[bool, int, int, int]:
            has_none = member.global_step is None
            rank = old_rank.get(member.id, len(old_rank))
            return has_none, 0 if rank == 0 else 1, -(member.global_step or 0), rank

        sorted_members = sorted(members, key=place)
        hosts = list(dict.fromkeys(member.host for member in sorted_members))
        return sorted(sorted_members, key=lambda member: hosts.index(member.host))

    def _begin(self, members: Sequence[Member]) -> None:
        self.generation += 1
        self.order = [member.id for member in members]
        if self._rendezvous is not None:
            self._rendezvous.close()
        self._rendezvous = Rendezvous([member.host for member in members], self.interface)
        news = list(self._news)
        for member in members:
            if not member.generation and self.generation > 1:
                news.append(f"an engine on {member.host} was taken in")
        for rank, member in enumerate(members):
            member.generation, member.meeting = self.generation, False
            member.place = {
                "generation": self.generation,
                "rank": rank,
                "size": len(members),
                "environment": self._rendezvous.environment(rank),
                "news": news,
                "detected": self._detected or time.time(),
            }
        self._news, self._detected, self._meeting_since = [], 0.0, None
        self._tell_address()

    def _notice(self, news: str) -> None:
        self._news.append(news)
        self._detected = self._detected or time.time()

    # The ranks' side ---------------------------------------------------------------------------

    def _answer(self, said: Mapping[str, Any]) -> dict[str, Any] | None:
        """Answer one request; ``None`` refuses it."""
        if not secrets.compare_digest(str(said.get("token")), self.token):
            return None
        with self._lock:
            member = self._members.get(int(said["engine"]))
            if member is None or member.gone:
                return {"over": f"the others go on without it: {member.gone if member else '?'}"}
            member.heard = time.monotonic()
            member.stage = str(said.get("stage") or "")
            if said["call"] == "meet":
                return self._meet(member, said)
            if said["call"] == "report":
                member.report, member.gone = said["report"], "has done its part"
                if member.report is not None and member.report["outcome"] == "finished":
                    self._over = "the run is finished"  # whoever comes now would begin it anew
                return {}
            trains = member.generation > 0 and not member.meeting
            return {"meet": trains and any(each.meeting for each in self._alive())}

    def _meet(self, member: Member, said: Mapping[str, Any]) -> dict[str, Any]:
        if self._over:
            return {"over": self._over}
        generation = int(said["generation"])
        if member.place is not None and member.place["generation"] > generation:
            return member.place
        if not member.meeting:
            member.meeting, member.global_step = True, said.get("global_step")
            if generation:  # it has trained; those it trained with should come, too
                self._meeting_since = self._meeting_since or time.monotonic()
                self._detected = self._detected or time.time()
        return {}

    def _tell_address(self) -> None:
        """Say where the coordinator is, and whom it gathers; only this user may read the token."""
        values = {
            "address": self.address, "port": self.port, "token": self.token,
            "generation": self.generation, "order": self.order,
            "engines": {member.id: member.description for member in self._alive()},
            "profile": self.profile,
        }  # fmt: skip
        scratch = self._address_file.with_name(f".{ADDRESS_FILE}")
        scratch.touch(mode=0o600)
        scratch.write_text(json.dumps(values) + "\n", encoding="utf-8")
        scratch.replace(self._address_file)


class _Server(HTTPServer):
    """Answers in its one thread: requests are short, and Python ends without starting threads."""

    process_request = BaseServer.process_request


def _handler(
    answer: Callable[[Mapping[str, Any]], dict[str, Any] | None],
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_SECONDS  # a host whose link is cut must not hold up the others

        def do_POST(self) -> None:
            try:
                said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                found = answer(said)
            except (KeyError, TypeError, ValueError):
                found = None
            if found is None:
                self.send_error(403)
                return
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:  # every second of every rank is too much
            pass

    return Handler
