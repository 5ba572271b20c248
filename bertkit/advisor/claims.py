"""Who runs a trial: claims that fall with their process.

A claim names a process of a host. While that process lives, the trial is its own; once it is gone,
however it went, the trial is free again. Processes of other hosts cannot be looked at, so their
claims must be renewed, and lapse when they are not.
"""

from __future__ import annotations

import secrets
import socket
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


def _here() -> str:
    process = psutil.Process()
    return f"{_host()}:{process.pid}:{process.create_time():.3f}"


@cache
def _host() -> str:
    return socket.gethostname()
