"""Starts ipyparallel's controller and engines on this host, replaces lost ones, and ends them.

Not `ipyparallel.Cluster`: each engine here gets its own cores before it starts, is replaced alone
when it dies, and ends with the client however that ends; and Python 3.12 forbids the threads that
`ipyparallel.Cluster` needs to stop at the interpreter's exit.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ipyparallel

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
        self._folder: Path | None = None
        self._client: Any = None
        self._controller: ChildProcess | None = None
        self._processes: list[ChildProcess | None] = [None] * len(shares)
        self._engines: list[Engine | None] = [None] * len(shares)
        self._numbers = [0] * len(shares)  # ipyparallel's numbers; none is used twice
        self._next_number = itertools.count()

    def connect(self, deadline: Deadline) -> Any:
        """See `EngineSource`."""
        # A profile of our own: the user's ~/.ipython is neither read nor touched.
        self._folder = Path(tempfile.mkdtemp(prefix="bertkit-cluster-"))
        self._profile_folder.mkdir()
        remove = ["--remove", str(self._folder)]
        self._controller = self._start_child("controller", CoreShare(1), "controller", remove)
        for slot in range(len(self._shares)):  # they import their libraries in the meantime
            self._start_engine(slot)
        self._client = self._connected(deadline)
        return self._client

    def engines(self, deadline: Deadline) -> list[Engine]:
        """See `EngineSource`."""
        if self._controller is None or (ending := self._controller.ending()):
            raise ClusterError(
                f"the cluster's controller {ending if self._controller else 'does not run'}; "
                f"stop the cluster and start it again"
            )
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
        return str(self._profile_folder) if self._folder else None

    def close(self) -> None:
        """See `EngineSource`."""
        if self._client is not None:
            self._client.close(linger=0)
        for engine in filter(None, self._processes):
            engine.kill()  # it holds nothing between runs, and Python would tidy up for seconds
        if self._controller:
            self._controller.terminate()  # it has files and a child process to clean up
            if not self._controller.wait(TERMINATE_SECONDS):
                self._controller.kill()
        for child in filter(None, (*self._processes, self._controller)):
            child.wait(TERMINATE_SECONDS)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._client = self._controller = self._folder = None
        self._processes = [None] * len(self._shares)
        self._engines = [None] * len(self._shares)

    @property
    def _profile_folder(self) -> Path:
        if self._folder is None:
            raise ClusterError("the cluster is not started; start it first")
        return self._folder / "profile_bertkit"

    def _start_engine(self, slot: int) -> None:
        self._numbers[slot] = number = next(self._next_number)
        self._processes[slot] = self._start_child(
            "engine", self._shares[slot], f"engine-{number}", ["--number", str(number)]
        )

    def _start_child(
        self, role: str, share: CoreShare, name: str, options: Sequence[str]
    ) -> ChildProcess:
        folder = self._profile_folder.parent
        command = [sys.executable, "-m", "bertkit.cluster.child", role, *options]
        command += ["--profile-folder", str(self._profile_folder)]
        if share.cpus:
            command += ["--cpus", ",".join(map(str, share.cpus))]
        if not self._keep_alive:
            command += ["--parent", str(os.getpid())]
        environment = {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **os.environ,
            **share.environment,
            "IPYTHONDIR": str(folder),
            "TMPDIR": str(folder),  # TensorFlow leaves files of traced functions there
            "PYTHONUNBUFFERED": "1",  # a log must be whole when its process is killed
            **self._environment,
        }
        return ChildProcess(command, environment, folder / f"{name}.log")

    def _connected(self, deadline: Deadline) -> Any:
        path = self._profile_folder / "security" / "ipcontroller-client.json"
        while True:
            try:
                info = json.loads(path.read_text(encoding="utf-8"))
                return ipyparallel.Client(
                    info,
                    ipython_dir=str(self._profile_folder.parent),
                    profile_dir=str(self._profile_folder),
                    timeout=deadline.left,
                )
            except (FileNotFoundError, ValueError):
                self._check(self._controller, "the controller")
                deadline.pause("ipyparallel's controller to start")

    def _register(self, deadline: Deadline) -> None:
        """Wait until every engine has registered."""
        next_line = time.monotonic() + SLOW_SECONDS
        while missing := self._take_in_registered():
            for slot in missing:
                self._check(self._processes[slot], f"engine {self._numbers[slot]}")
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
        registered = set(self._client.ids) if self._client is not None else set()
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
            self._client, self._numbers[slot], description, process, share.cores, share.cpus
        )

    def _check(self, process: ChildProcess | None, name: str) -> None:
        if process is not None and (ending := process.ending()):
            tail = process.log_tail()
            last = tail.splitlines()[-1] if tail else "it wrote nothing"
            error = ClusterError(f"{name} {ending} while it started: {last}")
            if tail:
                error.add_note(tail)
            raise error
