"""Which processor cores each engine may use.

Ranks of synchronous training wait for the slowest of them, so all get the same number of cores;
what does not divide is left to the notebook. Hardware threads of one core, cores of one memory node
and of one package (socket) stay together, so ranks fill socket after socket.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertkit.errors import ClusterError
from bertkit.loading_tensorflow import PRODUCTS_BY_ONEDNN

_TOPOLOGY = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class CoreShare:
    """One engine's share of a machine.

    Args:
        cores: Number of cores to compute with.
        cpus: The operating system's numbers of those it is bound to; empty leaves it unbound.
    """

    cores: int
    cpus: tuple[int, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that TensorFlow and OpenMP read once, when they are first used."""
        return {
            "TF_NUM_INTRAOP_THREADS": str(self.cores),
            # On one core too: with a single thread no sum over ranks begins within backward.
            "TF_NUM_INTEROP_THREADS": "2",
            "OMP_NUM_THREADS": str(self.cores),
            **PRODUCTS_BY_ONEDNN,
        }


def core_shares(
    cpus: Sequence[int], engines: int, cores_per_engine: int | None = None, limit: int | None = None
) -> list[CoreShare]:
    """Give every engine of a machine its share of the cores.

    Args:
        cpus: The CPUs this process may use, neighbours next to each other.
        engines: Number of engines.
        cores_per_engine: Cores of each engine; by default an equal share.
        limit: Most cores' worth of time the container may use, if it has such a limit. A
            container with a limit below its CPUs is not bound to any: its neighbours on the
            machine see the same numbers and would all crowd on the first ones.

    Returns:
        One share an engine. With more engines than cores they take turns on the cores.

    Raises:
        ClusterError: If there is no engine, or one engine should get more cores than there are.

    Example:
        >>> [share.cpus for share in core_shares([0, 1, 2, 3, 4], 2)]
        [(0, 1), (2, 3)]
    """
    available = min(len(cpus), limit or len(cpus))
    if engines < 1:
        raise ClusterError(f"n is {engines}; expected at least 1 engine")
    each = cores_per_engine or max(1, available // engines)
    if not 1 <= each <= available:
        raise ClusterError(
            f"cores_per_engine is {each}; expected from 1 to {available}, the cores of this machine"
        )
    if available < len(cpus):
        return [CoreShare(each)] * engines
    return [CoreShare(each, _block(cpus, engine * each, each)) for engine in range(engines)]


def usable_cpus() -> list[int]:
    """The CPUs this process may use, hardware threads of a core next to each other."""
    return sorted(os.sched_getaffinity(0), key=_neighbourhood)


def usable_limit() -> int | None:
    """How many cores' worth of time this container may use, or ``None`` without such a limit."""
    try:
        return parse_quota(_QUOTA.read_text())
    except OSError:
        return None


def parse_quota(text: str) -> int | None:
    """Read a cgroup's ``cpu.max``.

    Example:
        >>> parse_quota("150000 100000"), parse_quota("max 100000")
        (2, None)
    """
    quota, _, period = text.strip().partition(" ")
    return None if quota == "max" else math.ceil(int(quota) / int(period or 100_000))


def _block(cpus: Sequence[int], start: int, length: int) -> tuple[int, ...]:
    if start + length > len(cpus):  # more engines than cores: they take turns, spread evenly
        start %= max(1, len(cpus) - length + 1)
    return tuple(cpus[start : start + length])


def _neighbourhood(cpu: int) -> tuple[int, int, int, int]:
    """Package (socket), memory node, core and thread: near ones share memory and caches."""
    read: Callable[[str], int] = lambda name: int(  # noqa: E731
        (_TOPOLOGY / f"cpu{cpu}" / "topology" / name).read_text()
    )
    try:
        return read("physical_package_id"), _node(cpu), read("core_id"), cpu
    except (OSError, ValueError):
        return 0, 0, 0, cpu


def _node(cpu: int) -> int:
    """The memory (NUMA) node that a CPU belongs to."""
    found = sorted((_TOPOLOGY / f"cpu{cpu}").glob("node[0-9]*"))
    return int(found[0].name.removeprefix("node")) if found else 0
