"""Who runs a trial: claims that fall with their process.

A claim names a process of a host. While that process lives, the trial is its own; once it is gone,
however it went, the trial is free again. Processes of other hosts cannot be looked at, so their
claims must be renewed, and lapse when they are not.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import sqlite3
import threading
from collections.abc import Callable
from functools import cache

import psutil

LEASE_SECONDS = 120.0
"""How long a claim of another host holds without being renewed."""


def new_claim() -> str:
    """A claim of this process, different from all others."""
    return f"{_here()}:{secrets.token_hex(6)}"


def is_held(claim: str, renewed: float, now: float) -> bool:
    """Whether the process that made a claim still lives.

    Args:
        claim: What `new_claim` gave it.
        renewed: When it was renewed last, in seconds since 1970.
        now: The time, likewise.
    """
    try:
        host, pid, born, _ = claim.rsplit(":", 3)
    except ValueError:
        return False
    if host != socket.gethostname():
        return now - renewed < LEASE_SECONDS
    try:
        process = psutil.Process(int(pid))
        # A process number may have been given out again; the time of birth tells.
        same = abs(process.create_time() - float(born)) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False


class Heartbeat:
    """Renews this process's claims every now and then.

    Args:
        renew: Called with the claims; may raise `sqlite3.Error`.
    """

    def __init__(self, renew: Callable[[list[str]], object]) -> None:
        self._renew = renew
        self._claims: set[str] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, claim: str) -> None:
        """Renew this claim from now on."""
        with self._lock:
            self._claims.add(claim)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._beat, name="bertkit-advisor-heartbeat", daemon=True
                )
                self._thread.start()

    def remove(self, claim: str) -> None:
        """Let go of a claim."""
        with self._lock:
            self._claims.discard(claim)

    def stop(self) -> None:
        """Renew none any more."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(LEASE_SECONDS)

    def _beat(self) -> None:
        while not self._stopped.wait(LEASE_SECONDS / 4):
            with self._lock:
                claims = sorted(self._claims)
            if claims:
                with contextlib.suppress(sqlite3.Error):  # such as a full disk; try again later
                    self._renew(claims)


def _here() -> str:
    process = psutil.Process()
    return f"{_host()}:{process.pid}:{process.create_time():.3f}"


@cache
def _host() -> str:
    return socket.gethostname()
