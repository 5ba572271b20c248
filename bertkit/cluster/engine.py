"""One engine, seen from the client."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from bertkit.cluster.rank import EngineDescription
from bertkit.errors import ClusterError

LOG_LINES = 30


@dataclass(frozen=True)
class EngineInfo:
    """An engine, as a table shows it.

    Args:
        id: ipyparallel's number of it.
        host: Its machine.
        pid: Its process.
        cores: Number of cores it computes with.
        cpus: The operating system's numbers of the cores it is bound to; empty if it is not.
        state: ``"loading"`` (TensorFlow), ``"idle"``, ``"training"`` or ``"ended"``.
    """

    id: int
    host: str
    pid: int
    cores: int
    cpus: tuple[int, ...]
    state: str


class EngineProcess(Protocol):
    """The process of an engine: here, or behind an ipyparallel launcher on another host."""

    def ending(self) -> str | None:
        """How it ended, such as ``"was killed by SIGKILL"``; ``None`` while it runs."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def mark_log(self) -> None:
        """Remember where its log stands now."""
        ...

    def log_tail(self) -> str:
        """The last lines that it wrote since `mark_log`."""
        ...


class Engine:
    """One registered engine.

    Args:
        client: The ipyparallel client that reaches it.
        id: ipyparallel's number of it.
        description: What it says of itself.
        process: Its process.
        cores: Number of cores it computes with.
        cpus: Those it is bound to.
        interface: Network interface of its host by which the other ranks' hosts reach it, where
            that is known.
    """

    def __init__(
        self,
        client: Any,
        id: int,
        description: EngineDescription,
        process: EngineProcess,
        cores: int,
        cpus: tuple[int, ...],
        interface: str | None = None,
    ) -> None:
        self.id = id
        self.description = description
        self.host = description["host"]
        self.pid = description["pid"]
        self.process = process
        self.cores = cores
        self.cpus = cpus
        self.interface = interface
        self.loading: Any = None  # the pending result of loading its libraries
        self._view = client[id]

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call an importable function there; returns ipyparallel's ``AsyncResult`` at once."""
        return self._view.apply_async(function, *arguments)

    @property
    def alive(self) -> bool:
        """Whether its process still runs."""
        return self.process.ending() is None

    def info(self, busy: bool) -> EngineInfo:
        """How a table shows it now."""
        state = "training" if busy else "idle"
        if self.loading is not None and not self.loading.ready():
            state = "loading"
        if not self.alive:
            state = "ended"
        return EngineInfo(self.id, self.host, self.pid, self.cores, self.cpus, state)


class Loaded:
    """The result of loading libraries, where they are known to be there."""

    def ready(self) -> bool:
        """As ipyparallel's ``AsyncResult.ready``."""
        return True

    def get(self, timeout: float = 0.0) -> None:
        """As ipyparallel's ``AsyncResult.get``."""


class ChildProcess:
    """A process that this one started, with its log in a file.

    Args:
        command: Program and arguments.
        environment: All of its environment variables.
        log: File for its output.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        self._mark = 0
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # a Ctrl-C is for the client, who then ends this in order
            )
        self.pid = self._process.pid

    @property
    def exit_code(self) -> int | None:
        """As of `subprocess.Popen`; ``None`` while it runs."""
        return self._process.poll()

    def ending(self) -> str | None:
        """See `EngineProcess`."""
        code = self.exit_code
        if code is None:
            return None
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}"

    def terminate(self) -> None:
        """Ask it to end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """End it, and whatever it started, at once."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within some seconds."""
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return False
        return True

    def mark_log(self) -> None:
        """See `EngineProcess`."""
        with contextlib.suppress(OSError):
            self._mark = self._log.stat().st_size

    def log_tail(self) -> str:
        """See `EngineProcess`."""
        try:
            written = self._log.read_bytes()[self._mark :]
        except OSError:
            return ""
        return "\n".join(written.decode(errors="replace").splitlines()[-LOG_LINES:])


class RegisteredProcess:
    """The process of an engine that someone else started.

    Args:
        client: The ipyparallel client that reaches it.
        id: ipyparallel's number of it.
        description: What it says of itself.
    """

    def __init__(self, client: Any, id: int, description: EngineDescription) -> None:
        self._client, self._id = client, id
        self._process: psutil.Process | None = None
        if description["host"] == platform.node():
            with contextlib.suppress(psutil.NoSuchProcess):
                self._process = psutil.Process(description["pid"])

    def ending(self) -> str | None:
        """See `EngineProcess`."""
        if self._process is not None and not self._process.is_running():
            return "has ended"
        return None if self._id in self._client.ids else "left its ipyparallel cluster"

    def kill(self) -> None:
        """See `EngineProcess`."""
        if self._process is not None:
            with contextlib.suppress(psutil.Error):
                self._process.kill()
        elif self.ending() is None:
            self._client.send_signal(signal.SIGKILL, targets=self._id, block=False)

    def mark_log(self) -> None:
        """See `EngineProcess`."""

    def log_tail(self) -> str:
        """See `EngineProcess`; only whoever started it has its log."""
        return ""


class Deadline:
    """The end of a wait that can also be cut short.

    Args:
        seconds: Longest wait.
        cancelled: Set by whoever wants the wait to end now.
    """

    def __init__(self, seconds: float, cancelled: threading.Event) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._cancelled = cancelled

    @property
    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    def pause(self, what: str, seconds: float = 0.05) -> None:
        """Sleep a little.

        Args:
            what: What is waited for, as ``"engine 1 to start"``.
            seconds: How long.

        Raises:
            ClusterError: If there is no time left, or the wait was cancelled.
        """
        if self._cancelled.wait(seconds):
            raise ClusterError(f"the cluster was stopped while it waited for {what}")
        if not self.left:
            raise ClusterError(
                f"waited {self.seconds:.0f} s for {what}; raise timeout, or look at what else "
                f"keeps this machine busy"
            )
