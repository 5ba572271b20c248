"""ipyparallel's controller, started on this host in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipyparallel

from bertkit.cluster.child import LOOPBACK, PORT_TAKEN
from bertkit.cluster.engine import ChildProcess, Deadline
from bertkit.errors import ClusterError

TERMINATE_SECONDS = 3.0


class Controller:
    """A controller that listens on one address, and the client that is connected to it.

    Args:
        keep_alive: Let it live on when this process ends without closing it.
        address: This host's address to listen on. Beyond the loopback interface all messages
            are encrypted.
        silence: Seconds without a heartbeat after which it counts an engine as lost.

    Attributes:
        client: ipyparallel's client, once `connect` has been called.
    """

    def __init__(
        self, keep_alive: bool, address: str = LOOPBACK, silence: float | None = None
    ) -> None:
        # A profile of our own: the user's ~/.ipython is neither read nor touched.
        self.folder = Path(tempfile.mkdtemp(prefix="bertkit-cluster-"))
        self.profile_folder.mkdir()
        self.client: Any = None
        self._keep_alive = keep_alive
        self._options = ["--remove", str(self.folder), "--address", address]
        if silence is not None:
            self._options += ["--silence", str(silence)]
        self._process = self._start()

    @property
    def profile_folder(self) -> Path:
        """Its IPython profile."""
        return self.folder / "profile_bertkit"

    def start_child(
        self,
        role: str,
        name: str,
        options: Sequence[str],
        environment: dict[str, str] | None = None,
    ) -> ChildProcess:
        """Start a controller or an engine on this host.

        Args:
            role: ``"controller"`` or ``"engine"``.
            name: Name of its log.
            options: More of its options.
            environment: Variables, beside this process's own.
        """
        command = [sys.executable, "-m", "bertkit.cluster.child", role, *options]
        command += ["--profile-folder", str(self.profile_folder)]
        if not self._keep_alive:
            command += ["--parent", str(os.getpid())]
        variables = {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **os.environ,
            "IPYTHONDIR": str(self.folder),
            "TMPDIR": str(self.folder),  # TensorFlow leaves files of traced functions there
            "PYTHONUNBUFFERED": "1",  # a log must be whole when its process is killed
            **(environment or {}),
        }
        return ChildProcess(command, variables, self.folder / f"{name}.log")

    def connect(self, deadline: Deadline) -> Any:
        """Wait until it answers; gives the client.

        Raises:
            ClusterError: If it ends, or takes too long.
        """
        while True:
            try:
                self.client = ipyparallel.Client(
                    json.loads(self._connection_file("client").read_text(encoding="utf-8")),
                    ipython_dir=str(self.folder),
                    profile_dir=str(self.profile_folder),
                    timeout=deadline.left,
                )
                return self.client
            except (FileNotFoundError, ValueError):
                if self._process.exit_code == PORT_TAKEN:  # it looks for others
                    self._process = self._start()
                check_start(self._process, "the controller")
                deadline.pause("ipyparallel's controller to start")

    def engines_connection(self) -> str:
        """What engines need to reach it; there once `connect` has come back."""
        return self._connection_file("engine").read_text(encoding="utf-8")

    def check(self) -> None:
        """See that it runs.

        Raises:
            ClusterError: If it does not.
        """
        if ending := self._process.ending():
            raise ClusterError(
                f"the cluster's controller {ending}; stop the cluster and start it again"
            )

    def registered(self) -> set[int]:
        """Numbers of the engines that have registered and not been lost."""
        return set(self.client.ids) if self.client is not None else set()

    def disconnect(self) -> None:
        """Close the client."""
        if self.client is not None:
            self.client.close(linger=0)
        self.client = None

    def close(self) -> None:
        """End it and remove its folder."""
        self.disconnect()
        self._process.terminate()  # it has files and a child process to clean up
        if not self._process.wait(TERMINATE_SECONDS):
            self._process.kill()
            self._process.wait(TERMINATE_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> ChildProcess:
        return self.start_child("controller", "controller", self._options)

    def _connection_file(self, whose: str) -> Path:
        return self.profile_folder / "security" / f"ipcontroller-{whose}.json"


def check_start(process: ChildProcess, name: str) -> None:
    """See that a process which is about to start has not ended.

    Raises:
        ClusterError: If it has; with its last line, and all of them as a note.
    """
    if ending := process.ending():
        raise start_error(name, ending, process.log_tail())


def start_error(name: str, ending: str, log: str) -> ClusterError:
    """The error of a process that ended while it started, with the last lines of its log."""
    last = log.splitlines()[-1] if log else "it wrote nothing"
    error = ClusterError(f"{name} {ending} while it started: {last}")
    if log:
        error.add_note(log)
    return error
