"""The hosts that engines are asked for on, as a mapping, a list, or words such as ``node1:2``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bertkit.errors import ClusterError

HostNames = Mapping[str, int] | Sequence[str] | str

_NAME = r"[^@:\s,-][^@:\s,]*"  # a leading '-' would be an option of ssh
_WORD = re.compile(rf"(?:(?P<user>{_NAME})@)?(?P<name>{_NAME})(?::(?P<n>\d+))?")
_EXPECTED = "expected a host as ssh knows it and its number of engines, such as node1:2"


@dataclass(frozen=True)
class Host:
    """A machine that ssh reaches, and how many engines run there.

    Args:
        name: Its name, IPv4 address, or its alias in ssh's configuration.
        engines: Number of engines.
        user: Who to log in as; by default as ssh would.
    """

    name: str
    engines: int = 1
    user: str = ""

    @property
    def location(self) -> str:
        """What ssh is called with."""
        return f"{self.user}@{self.name}" if self.user else self.name


def read_hosts(hosts: HostNames) -> list[Host]:
    """Read which hosts are asked for.

    Args:
        hosts: ``{"node1": 2, "me@node2": 2}``, ``["node1", "node2"]`` (an engine each) or
            ``"node1:2, node2:2"``.

    Raises:
        ClusterError: If a name means no host, comes twice, or has no engine.

    Example:
        >>> read_hosts("node1:2, me@node2")
        [Host(name='node1', engines=2, user=''), Host(name='node2', engines=1, user='me')]
    """
    if isinstance(hosts, Mapping):
        found = [_host(name, count) for name, count in hosts.items()]
    else:
        words = re.findall(r"[^\s,]+", hosts) if isinstance(hosts, str) else hosts
        found = [_host(word) for word in words]
    if not found:
        raise ClusterError(f"hosts is empty; {_EXPECTED}")
    names = [host.name for host in found]
    for name in names:
        if names.count(name) > 1:
            raise ClusterError(f"host {name} is named twice; name it once with all its engines")
    return found


def _host(word: str, engines: int | None = None) -> Host:
    match = _WORD.fullmatch(word.strip())
    if match is None or (engines is not None and match["n"] is not None):
        raise ClusterError(f"host {word.strip()!r} cannot be read; {_EXPECTED}")
    count = engines if engines is not None else int(match["n"] or 1)
    if count < 1:
        raise ClusterError(f"host {match['name']} is to run {count} engines; expected at least 1")
    return Host(match["name"], count, match["user"] or "")
