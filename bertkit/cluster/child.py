"""The program that runs in each process a cluster starts: ipyparallel's controller or an engine.

It binds itself to its cores before any library counts them, and ends when the process that
started it has gone, so that a client killed with SIGKILL leaves nothing behind.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WATCH_SECONDS = 0.5
CONNECTION_SECONDS = 60.0
PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def main(arguments: Sequence[str] | None = None) -> None:
    """Become a controller or an engine, as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bertkit.cluster.child")
    parser.add_argument("role", choices=("controller", "engine"))
    parser.add_argument("--profile-folder", type=Path, required=True)
    parser.add_argument("--cpus", default="", help="such as 0,1; empty binds to none")
    parser.add_argument("--parent", type=int, default=0, help="end with this process; 0 never does")
    parser.add_argument("--number", type=int, help="ipyparallel's number of the engine")
    parser.add_argument("--remove", type=Path, help="folder to remove at the end")
    options = parser.parse_args(arguments)
    if options.cpus:
        os.sched_setaffinity(0, map(int, options.cpus.split(",")))
    if options.role == "controller":
        _be_controller(options)
    else:
        _be_engine(options)


def _be_controller(options: argparse.Namespace) -> None:
    from ipyparallel.controller.app import IPController

    # The controller forks a heart monitor; it must not outlive a controller that is killed.
    os.register_at_fork(after_in_child=_end_with_parent_thread)
    if options.parent:
        _watch(options.parent, lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        IPController.launch_instance(
            [
                f"--profile-dir={options.profile_folder}",
                "--ip=127.0.0.1",
                "--location=127.0.0.1",
                "--log-level=WARN",
                # One process instead of eight, for a handful of engines.
                "--IPController.use_threads=True",
                "--IPController.broadcast_scheduler_depth=0",
                # An engine counts as registered after its first heartbeat. With the usual
                # 3 seconds that is half of the start; 60 misses are the usual 30 seconds.
                "--HeartMonitor.period=500",
                "--HeartMonitor.max_heartmonitor_misses=60",
            ]
        )
    finally:
        if options.remove:
            shutil.rmtree(options.remove, ignore_errors=True)


def _be_engine(options: argparse.Namespace) -> None:
    # Imported while the controller starts; both take about a second.
    from ipykernel.iostream import OutStream
    from ipyparallel.engine.app import IPEngine

    class Output(OutStream):
        """Sends what Python prints to the client and leaves C++'s words in the engine's log."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "watchfd": False})  # type: ignore[no-untyped-call]

    if options.parent:
        # At once: whoever would have read its answer has gone.
        _watch(options.parent, lambda: os._exit(1))
    os.environ["IPP_CONNECTION_INFO"] = _connection_info(options.profile_folder)
    arguments = [f"--profile-dir={options.profile_folder}", "--log-level=WARN", "--timeout=60"]
    if options.number is not None:
        arguments.append(f"--IPEngine.id={options.number}")
    if options.parent:
        arguments.append("--IPEngine.max_heartbeat_misses=0")  # it watches its parent instead
    IPEngine.launch_instance(
        arguments,
        out_stream_factory=Output,
        enable_nanny=False,  # the cluster sees its own processes end
    )


def _connection_info(profile_folder: Path) -> str:
    """What the controller wrote for its engines, once it is complete."""
    path = profile_folder / "security" / "ipcontroller-engine.json"
    deadline = time.monotonic() + CONNECTION_SECONDS
    while time.monotonic() < deadline:
        try:
            text = path.read_text(encoding="utf-8")
            json.loads(text)
            return text
        except (FileNotFoundError, ValueError):
            time.sleep(0.02)
    sys.exit(f"the controller did not write {path} within {CONNECTION_SECONDS:.0f} s")


def _watch(parent: int, end: Callable[[], object]) -> None:
    """Call ``end`` when this process is no longer a child of ``parent``."""

    def watch() -> None:
        # Not PR_SET_PDEATHSIG: that signal comes when the thread ends that started us.
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        end()

    threading.Thread(target=watch, name="bertkit-watch-parent", daemon=True).start()


def _end_with_parent_thread() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
