"""The controller's process: ipyparallel's hub, which tells where it is once its ports are its own.

ipyparallel looks for free ports, lets go of them, and binds them up to a second later, in threads
and a process of their own. Another program, such as a second controller that starts at the same
time, may have taken one by then: that scheduler or heart monitor ends with a traceback that nobody
reads, and the engines wait for it. (Sockets in files would need no ports, but ipyparallel's engines
cannot read such addresses.)
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import psutil
import zmq
from ipyparallel.controller.app import IPController

from bertkit.cluster.child import LOOPBACK, PORT_TAKEN

BEAT_MILLISECONDS = 500
LISTEN_SECONDS = 10.0
LOOK_SECONDS = 0.01
PR_SET_PDEATHSIG = 1  # from linux/prctl.h


class ListeningController(IPController):  # type: ignore[misc]
    """Writes its connection files when all of its ports are its own, and ends when one is not."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._files: list[tuple[str, Mapping[str, Any]]] = []

    def save_connection_dict(self, fname: str, cdict: Mapping[str, Any]) -> None:
        """Keep what ipyparallel would write now."""
        self._files.append((fname, cdict))

    def start(self) -> None:
        """Serve, until told to end."""
        self.loop.add_callback(self._tell_when_listening, time.monotonic() + LISTEN_SECONDS)
        super().start()

    def _tell_when_listening(self, latest: float) -> None:
        if not self._serves:  # a scheduler or heart monitor that does not get its port ends
            self.heartmonitor_process.kill()
            end_for_a_taken_port()
        wanted = {*ports(self.engine_info), *ports(self.client_info)}
        there = listening([os.getpid(), self.heartmonitor_process.pid])
        # A system that does not say who listens must not keep a cluster from starting.
        if wanted <= there or time.monotonic() > latest:
            for fname, cdict in self._files:
                super().save_connection_dict(fname, cdict)
        else:
            self.loop.call_later(LOOK_SECONDS, self._tell_when_listening, latest)

    @property
    def _serves(self) -> bool:
        """Whether its schedulers' threads and its heart monitor's process go on."""
        threads = [getattr(child, "launcher", child) for child in self.children]
        return all(each.is_alive() for each in [*threads, self.heartmonitor_process])


def be_controller(
    profile_folder: Path, address: str, silence: float, remove: Path | None = None
) -> None:
    """Serve engines and clients until told to end.

    Args:
        profile_folder: Its IPython profile.
        address: This host's address to listen on. Beyond the loopback interface all messages are
            encrypted.
        silence: Seconds without a heartbeat after which an engine counts as lost.
        remove: Folder to remove at the end.
    """
    misses = round(silence * 1000 / BEAT_MILLISECONDS)
    # The controller forks a heart monitor; it must not outlive a controller that is killed.
    os.register_at_fork(after_in_child=_end_with_parent_thread)
    try:
        ListeningController.launch_instance(
            [
                f"--profile-dir={profile_folder}",
                f"--ip={address}",
                f"--location={address}",
                "--log-level=WARN",
                *(_secrets() if address != LOOPBACK else ()),
                # One process instead of eight, for a handful of engines.
                "--IPController.use_threads=True",
                "--IPController.broadcast_scheduler_depth=0",
                # An engine counts as registered after its first heartbeat. With the usual
                # 3 seconds that is half of the start; the usual silence is 30 seconds.
                f"--HeartMonitor.period={BEAT_MILLISECONDS}",
                f"--HeartMonitor.max_heartmonitor_misses={misses}",
            ]
        )
    except zmq.ZMQError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        end_for_a_taken_port()
    finally:
        if remove:
            shutil.rmtree(remove, ignore_errors=True)


def ports(addresses: Mapping[str, Any]) -> Iterable[int]:
    """The port numbers in what ipyparallel calls its engine or client info.

    Example:
        >>> sorted(ports({"interface": "tcp://127.0.0.1", "mux": 1234, "broadcast": [1235]}))
        [1234, 1235]
    """
    for value in addresses.values():
        if isinstance(value, int):
            yield value
        elif isinstance(value, list):
            yield from value


def listening(processes: Iterable[int]) -> set[int]:
    """TCP ports that some processes listen on; those that have ended listen on none.

    Args:
        processes: Numbers of processes of this user.
    """
    found: set[int] = set()
    for number in processes:
        try:
            connections = psutil.Process(number).net_connections(kind="tcp")
        except psutil.Error:
            continue
        found |= {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    return found


def end_for_a_taken_port() -> NoReturn:
    """End at once and leave the folder, in which whoever started this process may try again."""
    sys.stderr.write("another program has taken a port of the controller\n")
    sys.stderr.flush()
    os._exit(PORT_TAKEN)


def _secrets() -> list[str]:
    """Encrypt all messages, and sign them as well; these words are not on any command line."""
    return ["--IPController.enable_curve=True", f"--Session.key={secrets.token_hex(32)}"]


def _end_with_parent_thread() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
