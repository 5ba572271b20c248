"""Engines of an ipyparallel cluster that is already running."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ipyparallel

from bertkit.cluster.cores import core_shares
from bertkit.cluster.engine import Deadline, Engine, Loaded, RegisteredProcess
from bertkit.cluster.freed_memory import keep_freed_memory
from bertkit.cluster.rank import EngineDescription, bind, describe
from bertkit.errors import ClusterError

LEAVE_SECONDS = 2.0


class AttachedEngines:
    """The first ``n`` engines of a running ipyparallel cluster.

    They are bound to their shares of their hosts' cores while attached, and given back their old
    binding when left.

    Args:
        profile: Name of the cluster's IPython profile, or its folder.
        n: Number of engines to use.
        cores_per_engine: Cores of each; by default an equal share of its host.
    """

    def __init__(self, profile: str, n: int, cores_per_engine: int | None) -> None:
        self._profile = profile
        self._n = n
        self._cores_per_engine = cores_per_engine
        self._client: Any = None
        self._engines: list[Engine] = []
        self._descriptions: dict[int, EngineDescription] = {}
        self._asked: dict[int, Any] = {}  # engines that have not said yet where they run
        self._lost: set[int] = set()  # the hub may take half a minute to see it

    def connect(self, deadline: Deadline) -> Any:
        """See `EngineSource`."""
        where = {"profile": self._profile}
        if Path(self._profile).is_dir():  # then the user's ~/.ipython has no part in it
            parent = str(Path(self._profile).parent)
            where = {"profile_dir": self._profile, "ipython_dir": parent}
        try:
            self._client = ipyparallel.Client(**where, timeout=min(5.0, deadline.left))
        except (OSError, TimeoutError) as error:
            raise ClusterError(
                f"profile {self._profile!r}: no ipyparallel cluster answers there "
                f"({' '.join(str(error).split())}); start one with "
                f"'ipcluster start --profile={self._profile}'"
            ) from None
        return self._client

    def engines(self, deadline: Deadline) -> list[Engine]:
        """See `EngineSource`."""
        missing = self._n - len(self.present())
        if len(self._asked) < missing:
            raise ClusterError(
                f"profile {self._profile!r} has {len(self._client.ids)} engines; expected at "
                f"least {self._n}: start more of them, or ask for fewer with n"
            )
        while len(self.present()) < self._n:
            deadline.pause("engines to say where they run (are they busy?)")
        return self._engines

    def present(self) -> list[Engine]:
        """See `EngineSource`."""
        if self._client is None:
            return []
        kept = {engine.id: engine for engine in self._engines if engine.alive}
        self._lost |= {engine.id for engine in self._engines if engine.id not in kept}
        here = set(self._client.ids) - self._lost
        self._asked = {number: asked for number, asked in self._asked.items() if number in here}
        self._ask(self._n - len(kept) - len(self._asked), here - set(kept) - set(self._asked))
        answered = [number for number, asked in self._asked.items() if asked.ready()]
        said = {number: self._asked.pop(number).get() for number in answered}
        self._descriptions = {i: self._descriptions[i] for i in kept} | said
        engines = [kept.get(number) or self._bound(number) for number in self._descriptions]
        self._engines = sorted(engines, key=lambda engine: (engine.host, engine.id))
        return list(self._engines)

    def take_over(self, engines: Mapping[int, EngineDescription]) -> None:
        """Take engines that train as they are: they could not answer where they run."""
        for number in sorted(set(engines) & set(self._client.ids)):
            mine = engines[number]
            process = RegisteredProcess(self._client, number, mine)
            cpus = tuple(mine["cpus"])
            engine = Engine(self._client, number, mine, process, max(1, len(cpus)), cpus)
            engine.loading = Loaded()
            self._engines.append(engine)
            self._descriptions[number] = mine
        self._n = max(self._n, len(self._engines))

    def profile(self) -> str | None:
        """See `EngineSource`."""
        return self._profile

    def interface(self) -> str | None:
        """See `EngineSource`; on other hosts than this one, only its user knows it."""
        return None

    def close(self) -> None:
        """See `EngineSource`."""
        answers = [
            engine.submit(bind, self._descriptions[engine.id]["cpus"], {})
            for engine in self._engines
            if engine.alive
        ]
        for answer in answers:
            answer.wait(LEAVE_SECONDS)
        if self._client is not None:
            self._client.close(linger=0)
        self._client = None
        self._engines = []
        self._descriptions = {}
        self._asked = {}

    def forget(self) -> None:
        """Take the engines as ended: `close` then asks nothing of them any more."""
        self._engines = []

    def _ask(self, count: int, unknown: set[int]) -> None:
        """Ask some more engines where they run."""
        for number in sorted(unknown)[: max(0, count)]:
            self._asked[number] = self._client[number].apply_async(describe)

    def _bound(self, id: int) -> Engine:
        """Bind an engine to its share of its host."""
        mine = self._descriptions[id]
        here = [i for i, each in self._descriptions.items() if each["host"] == mine["host"]]
        share = core_shares(mine["cpus"], len(here), self._cores_per_engine)[here.index(id)]
        process = RegisteredProcess(self._client, id, mine)
        engine = Engine(self._client, id, mine, process, share.cores, share.cpus)
        engine.submit(bind, list(share.cpus), share.environment)
        engine.submit(keep_freed_memory)
        return engine
