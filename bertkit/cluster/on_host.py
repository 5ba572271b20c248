"""What is asked of a host over ssh; its text is sent to that host's Python and runs there.

The standard library alone: whether anything else is installed there is what it has to find out.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path
from typing import Any

PACKAGES = ("tensorflow", "horovod", "ipyparallel", "numpy", "bertkit")
FOLDER_PREFIX = "bertkit-engines-"
MARK = "__bertkit__ "
CALL_BACK_SECONDS = 5.0
LOG_LINES = 30


def look(
    address: str = "", port: int = 0, readable: tuple[str, ...] = (), shared: str = ""
) -> dict[str, Any]:
    """Say what matters here to an engine.

    Args:
        address: The client's address, as engines will call it.
        port: A port there that answers; 0 calls nothing.
        readable: Files and folders that a run reads.
        shared: A file that the client has just written into the folder of its runs.
    """
    bertkit = _package_folder()
    return {
        "python": platform.python_version(),
        "packages": {name: version_of(name) for name in PACKAGES},
        "code": code_hash(bertkit) if bertkit else "",
        "clock": time.time(),
        "memory": _available_memory(),
        "cpus": _cpus(bertkit is not None),
        "limit": _limit(bertkit is not None),
        "load": os.getloadavg()[0],
        "unreadable": {path: why for path in readable if (why := why_unreadable(path))},
        "shares": not shared or Path(shared).is_file(),
        "name": platform.node(),
        "name_means": _meaning_of(platform.node()),
        **_way_to(address, port),
    }


def code_hash(package: str) -> str:
    """A hash over the names and contents of a package's Python files."""
    found = hashlib.sha256()
    for path in sorted(Path(package).rglob("*.py")):
        found.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return found.hexdigest()[:12]


def why_unreadable(path: str) -> str:
    """Why a file or a folder's files cannot be read; empty if they can."""
    named = Path(path)
    try:
        for file in named.iterdir() if named.is_dir() else [named]:
            if not file.is_dir():
                file.open("rb").close()
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def make_folder() -> str:
    """Make a folder for a cluster's engines that only this user can read."""
    return tempfile.mkdtemp(prefix=FOLDER_PREFIX)


def ended(pids: list[int], folder: str) -> list[int]:
    """Which of these engines do not run any more."""
    return [pid for pid in pids if not _is_ours(pid, folder)]


def log_size(path: str) -> int:
    """How long a log is by now."""
    return Path(path).stat().st_size


def log_tail(path: str, start: int) -> str:
    """The last lines of a log, from some byte on."""
    with Path(path).open("rb") as log:
        log.seek(start)
        lines = log.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-LOG_LINES:])


def end(pids: list[int], folder: str, remove: bool) -> list[int]:
    """End engines at once, and remove their folder if nothing more is to happen in it."""
    killed = []
    for pid in pids:
        if _is_ours(pid, folder):
            # An engine's nanny would wait some seconds for a controller that has gone.
            for each in [pid, *(_children(pid) if remove else ())]:
                try:
                    os.kill(each, signal.SIGKILL)
                    killed.append(each)
                except ProcessLookupError:
                    pass
    if remove and Path(folder).name.startswith(FOLDER_PREFIX):
        deadline = time.monotonic() + 5
        while any(_is_ours(pid, folder) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.02)
        shutil.rmtree(folder, ignore_errors=True)
    return killed


def answer(function: Callable[..., Any], arguments: list[Any]) -> None:
    """Print what a function gives, so that it can be told from whatever a login prints."""
    sys.stdout.write(f"\n{MARK}{json.dumps(function(*arguments))}\n")


def _is_ours(pid: int, folder: str) -> bool:
    """Whether a process is an engine of that folder, and not someone who got its number."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z" and folder.encode() in words


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def version_of(name: str) -> str:
    """Version of an installed package; empty if there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _package_folder() -> str:
    spec = util.find_spec("bertkit")
    return str(Path(spec.origin).parent) if spec and spec.origin else ""


def _available_memory() -> int:
    """Bytes that a new process can have."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return 0


def _cpus(ordered: bool) -> list[int]:
    """The CPUs that may be used here, neighbours next to each other."""
    try:
        if ordered:
            from bertkit.cluster.cores import usable_cpus

            return usable_cpus()
    except Exception:  # noqa: S110 - another version's code, which is said elsewhere
        pass
    return sorted(os.sched_getaffinity(0))


def _limit(known: bool) -> int | None:
    try:
        if known:
            from bertkit.cluster.cores import usable_limit

            return usable_limit()
    except Exception:  # noqa: S110 - as above
        pass
    return None


def _meaning_of(name: str) -> str:
    """The IPv4 address that a name stands for; empty if for none."""
    try:
        return str(socket.getaddrinfo(name, None, socket.AF_INET)[0][4][0])
    except OSError:
        return ""


def _way_to(address: str, port: int) -> dict[str, Any]:
    """Which of this host's addresses and interfaces lead to the client, and whether it answers."""
    way: dict[str, Any] = {"address": "", "interface": "", "no_way": ""}
    if not address:
        return way
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            asked.connect((address, port or 9))  # sends nothing; asks the routing table
            way["address"] = asked.getsockname()[0]
        way["interface"] = interface_of(way["address"])
        if port:
            socket.create_connection((address, port), CALL_BACK_SECONDS).close()
    except OSError as error:
        way["no_way"] = error.strerror or str(error)
    return way


def interface_of(address: str) -> str:
    """Name of the interface with some IPv4 address; empty if that cannot be told."""
    try:
        import psutil
    except ImportError:
        return ""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            return str(name)
    return ""
