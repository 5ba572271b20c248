"""Starts ipyparallel's controller and engines on this host, replaces lost ones, and ends them.

Not `ipyparallel.Cluster`: each engine here gets its own cores before it starts, is replaced alone
when it dies, and ends with the client however that ends; and Python 3.12 forbids the threads that
`ipyparallel.Cluster` needs to stop at the interpreter's exit.
"""

from __future__ import annotations

import itertools
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from bertkit.cluster.controller import Controller, check_start
from bertkit.cluster.cores import CoreShare
from bertkit.cluster.engine import ChildProcess, Deadline, Engine
from bertkit.cluster.rank import EngineDescription
from bertkit.errors import ClusterError

TERMINATE_SECONDS = 3.0
SLOW_SECONDS = 6.0

Report = Callable[[str], object]


class EngineSource(Protocol):
    """Where a cluster has its engines from: started here, or found running."""

    def connect(self, deadline: Deadline) -> Any:
        """Reach the controller, starting it if need be; gives ipyparallel's client."""
        ...

    def engines(self, deadline: Deadline) -> list[Engine]:
        """All engines in the order of their ranks; lost ones are replaced where that can be."""
        ...

    def present(self) -> list[Engine]:
        """Engines registered and alive now, in the order of their ranks; starts nothing, waits not.

        After a loss these are the engines that a run can go on with; one that has joined since is
        among them.
        """
        ...

    def profile(self) -> str | None:
        """What `Cluster(profile=...)` needs to attach to these engines."""
        ...

    def interface(self) -> str | None:
        """This host's network interface that reaches all engines; ``None`` for the loopback one.

        Raises:
            ClusterError: If there is no one such interface.
        """
        ...

    def close(self) -> None:
        """End what was started, leave what was found."""
        ...


class LocalEngines:
    """Engines on this host, over the loopback interface.

    Args:
        shares: Each engine's share of the cores.
        environment: Environment variables for the engines, beside this process's own.
        keep_alive: Let them live on when this process ends without closing them.
        report: Called with a line of text when the start is slow.
    """

    def __init__(
        self,
        shares: list[CoreShare],
        environment: Mapping[str, str],
        keep_alive: bool,
        report: Report,
    ) -> None:
        self._shares = shares
        self._environment = environment
        self._keep_alive = keep_alive
        self._report = report
        self._controller: Controller | None = None
        self._processes: list[ChildProcess | None] = [None] * len(shares)
        self._engines: list[Engine | None] = [None] * len(shares)
        self._numbers = [0] * len(shares)  # ipyparallel's numbers; none is used twice
        self._next_number = itertools.count()

    def connect(self, deadline: Deadline) -> Any:
        """See `EngineSource`."""
        self._controller = Controller(self._keep_alive)
        for slot in range(len(self._shares)):  # they import their libraries in the meantime
            self._start_engine(slot)
        return self._controller.connect(deadline)

    def engines(self, deadline: Deadline) -> list[Engine]:
        """See `EngineSource`."""
        self._running_controller.check()
        for slot, process in enumerate(self._processes):
            if process is None or process.ending():
                self._engines[slot] = None
                self._start_engine(slot)
        self._register(deadline)
        return [engine for engine in self._engines if engine]

    def present(self) -> list[Engine]:
        """See `EngineSource`."""
        self._take_in_registered()
        return [engine for engine in self._engines if engine and engine.alive]

    def profile(self) -> str | None:
        """See `EngineSource`."""
        return str(self._controller.profile_folder) if self._controller else None

    def interface(self) -> str | None:
        """See `EngineSource`."""
        return None

    def close(self) -> None:
        """See `EngineSource`."""
        if self._controller is not None:
            self._controller.disconnect()
        for engine in filter(None, self._processes):
            engine.kill()  # it holds nothing between runs, and Python would tidy up for seconds
        if self._controller is not None:
            self._controller.close()
        for engine in filter(None, self._processes):
            engine.wait(TERMINATE_SECONDS)
        self._controller = None
        self._processes = [None] * len(self._shares)
        self._engines = [None] * len(self._shares)

    @property
    def _running_controller(self) -> Controller:
        if self._controller is None:
            raise ClusterError("the cluster is not started; start it first")
        return self._controller

    def _start_engine(self, slot: int) -> None:
        self._numbers[slot] = number = next(self._next_number)
        share, options = self._shares[slot], ["--number", str(number)]
        if share.cpus:
            options += ["--cpus", ",".join(map(str, share.cpus))]
        environment = {**share.environment, **self._environment}
        self._processes[slot] = self._running_controller.start_child(
            "engine", f"engine-{number}", options, environment
        )

    def _register(self, deadline: Deadline) -> None:
        """Wait until every engine has registered."""
        next_line = time.monotonic() + SLOW_SECONDS
        while missing := self._take_in_registered():
            for slot in missing:
                if process := self._processes[slot]:
                    check_start(process, f"engine {self._numbers[slot]}")
            if time.monotonic() > next_line:
                next_line += 2 * SLOW_SECONDS
                up = len(self._shares) - len(missing)
                self._report(
                    f"starting engines: {up} of {len(self._shares)} up, {deadline.left:.0f} s left"
                )
            deadline.pause(f"{len(missing)} of {len(self._shares)} engines to start")

    def _take_in_registered(self) -> list[int]:
        """Note which engines have registered; gives the slots of those that have not."""
        missing = [slot for slot, engine in enumerate(self._engines) if not engine]
        registered = self._controller.registered() if self._controller else set()
        for slot in missing:
            if self._processes[slot] is not None and self._numbers[slot] in registered:
                self._engines[slot] = self._engine(slot)
        return [slot for slot in missing if not self._engines[slot]]

    def _engine(self, slot: int) -> Engine:
        process, share = self._processes[slot], self._shares[slot]
        assert process is not None  # noqa: S101
        description: EngineDescription = {
            "host": platform.node(),
            "pid": process.pid,
            "cpus": list(share.cpus),
        }
        return Engine(
            self._running_controller.client,
            self._numbers[slot],
            description,
            process,
            share.cores,
            share.cpus,
        )
