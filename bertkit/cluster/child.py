"""The program that runs in each process a cluster starts: ipyparallel's controller or an engine.

It binds itself to its cores before any library counts them, and ends when the process that
started it has gone, so that a client killed with SIGKILL leaves nothing behind.
"""

from __future__ import annotations

import argparse
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

from bertkit.cluster.freed_memory import keep_freed_memory

WATCH_SECONDS = 0.5
CONNECTION_SECONDS = 60.0
LOOPBACK = "127.0.0.1"
PORT_TAKEN = 75  # a controller's exit code: another program has taken one of its ports
SILENCE_SECONDS = 30.0  # ipyparallel's own
SECOND_LOOK_MILLISECONDS = 2000


def main(arguments: Sequence[str] | None = None) -> None:
    """Become a controller or an engine, as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bertkit.cluster.child")
    parser.add_argument("role", choices=("controller", "engine"))
    parser.add_argument("--profile-folder", type=Path, required=True)
    parser.add_argument("--cpus", default="", help="such as 0,1; empty binds to none")
    parser.add_argument("--parent", type=int, default=0, help="end with this process; 0 never does")
    parser.add_argument("--number", type=int, help="ipyparallel's number of the engine")
    parser.add_argument("--remove", type=Path, help="folder to remove at the end")
    parser.add_argument("--address", default=LOOPBACK, help="where the controller listens")
    parser.add_argument(
        "--silence", type=float, default=SILENCE_SECONDS, metavar="SECONDS",
        help="without a heartbeat of an engine or the controller it counts as lost",
    )  # fmt: skip
    parser.add_argument("--on-host", action="store_true", help="the client is on another host")
    parser.add_argument("--working-folder", type=Path, help="where an engine works, if it is there")
    options = parser.parse_args(arguments)
    if options.working_folder and options.working_folder.is_dir():
        os.chdir(options.working_folder)
    if options.cpus:
        os.sched_setaffinity(0, map(int, options.cpus.split(",")))
    if options.role == "controller":
        _be_controller(options)
    else:
        _be_engine(options)


def _be_controller(options: argparse.Namespace) -> None:
    if options.parent:
        _watch(options.parent, lambda: os.kill(os.getpid(), signal.SIGTERM))
    from bertkit.cluster.controller_app import be_controller

    be_controller(options.profile_folder, options.address, options.silence, options.remove)


def _be_engine(options: argparse.Namespace) -> None:
    keep_freed_memory()
    # Imported while the controller starts; all take about a second.
    import zmq
    from ipykernel.iostream import OutStream
    from ipyparallel.engine.app import IPEngine

    class Output(OutStream):
        """Sends what Python prints to the client and leaves C++'s words in the engine's log."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "watchfd": False})  # type: ignore[no-untyped-call]

    class Engine(IPEngine):  # type: ignore[misc]
        """Ends when the controller's heartbeat stops, also while it is busy with a run."""

        def start_heartbeat(self, ping: str, *arguments: Any) -> None:
            super().start_heartbeat(ping, *arguments)
            if not options.parent:
                beats = self.context.socket(zmq.SUB)
                if self.curve_serverkey:
                    beats.curve_serverkey = self.curve_serverkey
                    beats.curve_publickey = self.curve_publickey
                    beats.curve_secretkey = self.curve_secretkey
                beats.subscribe(b"")
                beats.connect(ping)
                _end_in_silence(beats, options.silence, options.remove)

    if options.parent:
        # At once: whoever would have read its answer has gone.
        _watch(options.parent, lambda: os._exit(1))
    options.profile_folder.mkdir(parents=True, exist_ok=True)
    if not options.on_host:  # over ssh it comes with the command
        os.environ["IPP_CONNECTION_INFO"] = _connection_info(options.profile_folder)
    arguments = [
        f"--profile-dir={options.profile_folder}",
        "--log-level=WARN",
        "--timeout=60",
        # ipyparallel listens in the main thread, which trains for hours, and through a queue that
        # stands still while a library is loaded, so that the hub takes the engine as lost.
        "--IPEngine.max_heartbeat_misses=0",
    ]
    if options.number is not None:
        arguments.append(f"--IPEngine.id={options.number}")
    Engine.launch_instance(
        arguments,
        out_stream_factory=Output,
        # The cluster sees its own processes end. Of those on other hosts the nanny tells.
        enable_nanny=options.on_host,
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


def _end_in_silence(beats: Any, seconds: float, folder: Path | None) -> None:
    """End this process when a socket that gets the controller's heartbeats has gone silent."""

    def listen() -> None:
        # A second look: after a pause of the whole machine, beats may still be on their way.
        while beats.poll(round(seconds * 1000)) or beats.poll(SECOND_LOOK_MILLISECONDS):
            beats.recv_multipart()
        os.write(2, f"no heartbeat of the controller for {seconds:.0f} s; ending\n".encode())
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)  # its main thread may be in a collective that never ends

    threading.Thread(target=listen, name="bertkit-hear-controller", daemon=True).start()


if __name__ == "__main__":
    main()
