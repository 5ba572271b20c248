"""Whether hosts can serve as they are, each fault named with what to do about it."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bertkit
from bertkit.cluster import on_host
from bertkit.cluster.hosts import Host, HostNames, read_hosts
from bertkit.cluster.ssh import ANSWER_SECONDS, Ssh, answers
from bertkit.errors import ClusterError

CLOCK_SECONDS = 5.0
MEMORY_AN_ENGINE = 2 * 2**30  # of the packaged model; a large one needs more
SHARED_FILE = ".bertkit-hosts-"


@dataclass(frozen=True)
class HostReport:
    """What a host said of itself, and what is wrong with it.

    Args:
        host: The host that was asked.
        faults: Why it cannot serve, a sentence each; empty if it can.
        warnings: What will make it slow or surprising.
        python: Version of Python there.
        packages: Versions of the packages that matter.
        cpus: CPUs that may be used there, neighbours next to each other.
        limit: How many of them its container may use, if that is limited.
        load: Its load average over the last minute.
        memory: Bytes that are free there.
        clock: How many seconds its clock is ahead of this one.
        address: Its address on the way to this host.
        interface: Its network interface on that way.
    """

    host: Host
    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    python: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    cpus: tuple[int, ...] = ()
    limit: int | None = None
    load: float = 0.0
    memory: int = 0
    clock: float = 0.0
    address: str = ""
    interface: str = ""

    @property
    def ready(self) -> bool:
        """Whether it can serve."""
        return not self.faults


def check_hosts(
    hosts: HostNames,
    *,
    data: str | Path | None = None,
    output: str | Path | None = None,
    interface: str | None = None,
    python: str | None = None,
    ssh_options: Sequence[str] = (),
) -> list[HostReport]:
    """Ask all hosts at the same time whether engines can run there.

    Args:
        hosts: As for `bertkit.Cluster`.
        data: A file or folder that must be readable there.
        output: The folder of the runs, which must be the same there as here.
        interface: This host's network interface that reaches them; by default the one that the
            routing table says.
        python: Path of Python there; by default that of this process.
        ssh_options: More arguments of ssh.

    Returns:
        A report a host, in their order.

    Raises:
        ClusterError: If ``hosts`` cannot be read.

    Example:
        >>> for report in check_hosts({"node1": 2, "node2": 2}):        # doctest: +SKIP
        ...     print(report.host.name, report.faults)
    """
    named = read_hosts(hosts)
    ssh = Ssh(python or sys.executable, ssh_options, needed_variables())
    return look_at(named, ssh, interface, data, output)


def look_at(
    hosts: Sequence[Host],
    ssh: Ssh,
    interface: str | None = None,
    data: str | Path | None = None,
    output: str | Path | None = None,
) -> list[HostReport]:
    """As `check_hosts`, for hosts that are read already."""
    readable = [str(Path(data).resolve())] if data else []
    ways = {host: _way(host, ssh, interface) for host in hosts}
    with (
        _answering({way for way in ways.values() if isinstance(way, str)}) as ports,
        _shared(output) as shared,
    ):
        questions = {
            host: ssh.ask(host, on_host.look, way, ports[way], readable, shared)
            for host, way in ways.items()
            if isinstance(way, str)
        }
        asked = time.time()
        said = answers(questions, ANSWER_SECONDS)
        answered = time.time()
    here = on_host.look()
    reports = []
    for host, way in ways.items():
        found: Any = said.get(host, way)
        if isinstance(found, ClusterError):
            words = str(found).removeprefix(f"{host.name}: ")
            reports.append(HostReport(host, (words,)))
        else:
            times = (asked, answered)
            several = len(hosts) > 1
            reports.append(report(host, here, found, ssh.python, str(way), times, several))
    return reports


def report(
    host: Host,
    here: Mapping[str, Any],
    there: Mapping[str, Any],
    python: str,
    way: str,
    times: tuple[float, float],
    several: bool,
) -> HostReport:
    """Compare what `on_host.look` found there with what it finds here.

    Args:
        host: The host.
        here: What it found on this machine.
        there: What it found on the host.
        python: Path of Python there.
        way: This machine's address that engines call.
        times: When it was asked and when all had answered, by this machine's clock.
        several: Whether its ranks have to find those of other hosts.
    """
    asked, answered = times  # its clock was read at some time between
    ahead = max(0.0, there["clock"] - answered) or min(0.0, there["clock"] - asked)
    return HostReport(
        host,
        faults=(*_faults(here, there, python, way), *(_name_faults(there) if several else ())),
        warnings=tuple(_warnings(host, there, ahead)),
        python=there["python"],
        packages=there["packages"],
        cpus=tuple(there["cpus"]),
        limit=there["limit"],
        load=there["load"],
        memory=there["memory"],
        clock=ahead,
        address=there["address"],
        interface=there["interface"],
    )


def interface_to(hosts: Sequence[Host], ssh: Ssh) -> str:
    """This host's network interface that reaches all of some hosts.

    Raises:
        ClusterError: If a host has no known address or no route, or there are several interfaces.
    """
    found: dict[str, str] = {}
    for host in hosts:
        address = _source_address(host, ssh.address_of(host))
        name = on_host.interface_of(address)
        if not name:
            raise ClusterError(f"{host.name}: no network interface here has the address {address}")
        found.setdefault(name, host.name)
    if len(found) > 1:
        ways = ", ".join(f"{host} by {name}" for name, host in found.items())
        raise ClusterError(
            f"the hosts are reached by several network interfaces ({ways}); name the one that "
            f"reaches all of them with interface"
        )
    return next(iter(found))


def needed_variables() -> dict[str, str]:
    """What this process's environment holds that modules are found by."""
    paths = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    found = os.pathsep.join(str(Path(path).absolute()) for path in paths)
    return {"PYTHONPATH": found} if found else {}


def _faults(
    here: Mapping[str, Any], there: Mapping[str, Any], python: str, way: str
) -> Iterator[str]:
    if there["python"].rpartition(".")[0] != here["python"].rpartition(".")[0]:
        yield (
            f"{python} is Python {there['python']}; expected {here['python']} as here: install "
            f"it there, or name its path with python"
        )
    for name, version in here["packages"].items():
        found = there["packages"].get(name)
        if found != version and (name != "bertkit" or not there["code"]):
            yield (
                f"{name} is {found or 'missing'}; expected {version} as here: install the same "
                f"bertkit there into {python}"
            )
    if there["code"] and there["code"] != here["code"]:
        yield (
            f"bertkit's code is not the same (hash {there['code']}); expected {here['code']} as "
            f"in {Path(bertkit.__file__).parent} here: copy that there"
        )
    for path, why in there["unreadable"].items():
        yield f"{path} cannot be read ({why}); copy it there, or share its folder with that host"
    if not there["shares"]:
        yield (
            "the folder of the runs is not the same there; name one with output that all hosts "
            "share, such as on NFS"
        )
    if there["no_way"]:
        yield (
            f"it cannot call this machine back at {way} ({there['no_way']}); open the firewall "
            f"for it, or name another interface"
        )


def _name_faults(there: Mapping[str, Any]) -> Iterator[str]:
    """Horovod 0.28.1 forgets the interface it was given where it sums gradients.

    `GlooContext::InitializeForProcessSet` leaves its name empty, and Gloo then binds to whatever
    address the host's own name stands for.
    """
    means = there["name_means"]
    if there["address"] and (not means or means.startswith("127.")):
        yield (
            f"its name {there['name']} stands for {means or 'no address'} there, and Horovod's "
            f"ranks look for each other by it; expected {there['address']}: mend its /etc/hosts"
        )


def _warnings(host: Host, there: Mapping[str, Any], ahead: float) -> Iterator[str]:
    if abs(ahead) > CLOCK_SECONDS:
        yield (
            f"its clock is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}; expected "
            f"within {CLOCK_SECONDS:.0f} s: set it, or start a time service there"
        )
    cores = min(len(there["cpus"]), there["limit"] or len(there["cpus"]))
    if cores < host.engines:
        yield f"{host.engines} engines share {cores} cores there; expect them to be slow"
    elif there["load"] > 0.5 * cores + 1:
        yield f"{there['load']:.1f} processes compute there already on {cores} cores"
    if there["memory"] < host.engines * MEMORY_AN_ENGINE:
        yield (
            f"{there['memory'] / 2**30:.1f} GiB of memory are free there; {host.engines} engines "
            f"want some {host.engines * MEMORY_AN_ENGINE / 2**30:.0f}"
        )


def _way(host: Host, ssh: Ssh, interface: str | None) -> str | ClusterError:
    """This machine's address that a host can call."""
    try:
        if interface is not None:
            return address_of_interface(interface)
        return _source_address(host, ssh.address_of(host))
    except ClusterError as error:
        return error


def address_of_interface(name: str) -> str:
    """This machine's IPv4 address on an interface.

    Raises:
        ClusterError: If there is none.
    """
    import psutil

    found = {
        interface: address.address
        for interface, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family is socket.AF_INET
    }
    if name not in found:
        raise ClusterError(
            f"interface {name} has no IPv4 address on this host; expected one of "
            f"{', '.join(sorted(found)) or 'none, as there is no network'}"
        )
    return found[name]


def _source_address(host: Host, address: str) -> str:
    """The address that packets to a host leave from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect((address, 9))  # sends nothing; asks the routing table
        except OSError as error:
            raise ClusterError(
                f"{host.name}: there is no way to {address} ({error.strerror}); is this machine's "
                f"network up?"
            ) from None
        return str(asked.getsockname()[0])


@contextlib.contextmanager
def _answering(addresses: set[str]) -> Iterator[dict[str, int]]:
    """Listen on some addresses of this machine, so that hosts can try to call them."""
    with contextlib.ExitStack() as open_sockets:
        ports = {}
        for address in addresses:
            listening = open_sockets.enter_context(socket.create_server((address, 0), backlog=128))
            ports[address] = listening.getsockname()[1]
        yield ports


@contextlib.contextmanager
def _shared(folder: str | Path | None) -> Iterator[str]:
    """A file in the folder of the runs, while hosts look for it."""
    if folder is None:
        yield ""
        return
    path = Path(folder).resolve() / f"{SHARED_FILE}{uuid.uuid4().hex}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise ClusterError(f"{path.parent} cannot be written here ({error.strerror})") from None
    try:
        yield str(path)
    finally:
        path.unlink(missing_ok=True)
