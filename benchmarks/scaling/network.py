"""Hosts on one machine: a network namespace each, joined by a bridge, their links shaped.

``tc``'s token bucket limits what a host sends; its kernel-made packets of up to 64 KiB pass whole,
as through a network card that cuts them itself. Latency is added by `delay_line`, a process that
takes the bridge's place and hands on each packet late: not by ``tc netem``, because a kernel may
have been built without it.

Needs root and iproute2. All that is made carries this process's id in its name.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

HUB = "hub"
INTERFACE = "eth0"
SUBNET = "10.213.7"  # of these namespaces only: no packet leaves them
BURST_BYTES = 128 * 1024  # two of the largest packets
QUEUE_MILLISECONDS = 200
COMMAND_SECONDS = 60  # while ranks go before everything else on the machine
CONGESTION_CONTROL = "reno"  # governed by loss as Linux's cubic, which namespaces may not choose
CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Shape:
    """What a host's link is held to.

    Args:
        megabits: Most it sends in a second, in 10⁶ bits; ``None`` for what the machine can do.
        delay_ms: Time each packet is on its way, beside what the machine needs.
    """

    megabits: float | None = None
    delay_ms: float = 0.0


class NetworkError(Exception):
    """This machine cannot make the network."""


class Network:
    """Some hosts and a hub; the hub is where the rendezvous listens.

    Args:
        hosts: Number of hosts.

    Raises:
        NetworkError: If the machine does not allow it, with the command and what it said.
    """

    def __init__(self, hosts: int) -> None:
        self.hosts = hosts
        self._prefix = f"bks{os.getpid()}"
        self._delay_line: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Network:
        if os.geteuid() != 0 or not shutil.which("tc"):
            raise NetworkError("expected root and iproute2 (ip, tc) to make network namespaces")
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def namespace(self, host: int | str) -> str:
        """The name of a host's namespace, or of the hub's (``"hub"``)."""
        return f"{self._prefix}-{host}"

    def address(self, host: int) -> str:
        """A host's IPv4 address."""
        return f"{SUBNET}.{host + 10}"

    def shape(self, shape: Shape) -> None:
        """Hold every host's link to a rate and a delay from now on; connections live on."""
        for host in range(self.hosts):
            self._limit(host, shape.megabits)
        self._stop_delay_line()
        if shape.delay_ms:
            self._start_delay_line(shape.delay_ms)
        else:
            self._bridge_ports(joined=True)

    def start(
        self, host: int, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> subprocess.Popen[str]:
        """Start a program on a host; it reads and writes through pipes, its errors go to a log."""
        with log.open("ab") as errors:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.namespace(host), *command],
                env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=errors, text=True, start_new_session=True,
            )  # fmt: skip

    @contextlib.contextmanager
    def in_hub(self) -> Iterator[None]:
        """Sockets that this thread opens meanwhile are the hub's."""
        with Path("/proc/self/ns/net").open() as home:
            _enter_namespace(Path("/run/netns", self.namespace(HUB)))
            try:
                yield
            finally:
                _enter_namespace(home.fileno())

    def close(self) -> None:
        """Remove everything, whatever of it was made."""
        self._stop_delay_line()
        for name in [HUB, *range(self.hosts)]:
            with contextlib.suppress(NetworkError):
                self._ip("netns", "delete", self.namespace(name))
        for host in range(self.hosts):
            shutil.rmtree(self._files(host), ignore_errors=True)

    def _make(self) -> None:
        hub = self.namespace(HUB)
        self._ip("netns", "add", hub)
        self._ip("-n", hub, "link", "set", "lo", "up")
        self._ip("-n", hub, "link", "add", INTERFACE, "type", "bridge")
        self._ip("-n", hub, "address", "add", f"{SUBNET}.1/24", "dev", INTERFACE)
        self._ip("-n", hub, "link", "set", INTERFACE, "up")
        for host in range(self.hosts):
            name = self.namespace(host)
            self._name_of_host(host)
            self._ip("netns", "add", name)
            self._ip("-n", name, "link", "set", "lo", "up")
            self._ip("-n", name, "link", "add", INTERFACE, "type", "veth", "peer", "name",
                     _port(host), "netns", hub)  # fmt: skip
            self._ip("-n", name, "address", "add", f"{self.address(host)}/24", "dev", INTERFACE)
            self._ip("-n", name, "link", "set", INTERFACE, "up")
            self._ip("-n", hub, "link", "set", _port(host), "up")
            self._run("ip", "netns", "exec", name, "sysctl", "-qw",
                      f"net.ipv4.tcp_congestion_control={CONGESTION_CONTROL}")  # fmt: skip
        self._bridge_ports(joined=True)

    def _name_of_host(self, host: int) -> None:
        """Have the machine's name mean this host's address on this host.

        Horovod 0.28 keeps to its network interface when it starts, and forgets it for the process
        sets, over which it then sums: these listen where the machine's name points to.
        """
        folder = self._files(host)  # `ip netns exec` puts its files in the place of /etc's
        folder.mkdir(parents=True)
        (folder / "hosts").write_text(
            f"127.0.0.1 localhost\n{self.address(host)} {socket.gethostname()}\n"
        )

    def _files(self, host: int) -> Path:
        return Path("/etc/netns", self.namespace(host))

    def _bridge_ports(self, *, joined: bool) -> None:
        for host in range(self.hosts):
            where = ["master", INTERFACE] if joined else ["nomaster"]
            self._ip("-n", self.namespace(HUB), "link", "set", _port(host), *where)

    def _limit(self, host: int, megabits: float | None) -> None:
        tc = ["tc", "-n", self.namespace(host), "qdisc"]
        with contextlib.suppress(NetworkError):  # there is none at first
            self._run(*tc, "delete", "dev", INTERFACE, "root")
        if megabits:
            self._run(*tc, "add", "dev", INTERFACE, "root", "tbf", "rate", f"{megabits:g}mbit",
                      "burst", str(BURST_BYTES), "latency", f"{QUEUE_MILLISECONDS}ms")  # fmt: skip

    def _start_delay_line(self, delay_ms: float) -> None:
        self._bridge_ports(joined=False)
        command = ["ip", "netns", "exec", self.namespace(HUB), sys.executable, "-m",
                   "benchmarks.scaling.delay_line", str(delay_ms / 1e3)]  # fmt: skip
        self._delay_line = subprocess.Popen(
            [*command, *[_port(host) for host in range(self.hosts)]],
            stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert self._delay_line.stdout is not None
        if not self._delay_line.stdout.readline():
            raise NetworkError("the delay line did not start")

    def _stop_delay_line(self) -> None:
        if self._delay_line is not None:
            self._delay_line.kill()
            self._delay_line.wait(COMMAND_SECONDS)
            self._delay_line = None

    def _ip(self, *words: str) -> None:
        self._run("ip", *words)

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
        if done.returncode:
            raise NetworkError(f"{' '.join(command)}: {done.stderr.strip()}")


def probe(network: Network, seconds: float = 1.0) -> dict[str, float]:
    """Round trip and rate of a TCP connection between the first two hosts.

    Returns:
        ``round_trip_ms`` (median of small messages) and ``megabits`` (a stream's payload).
    """
    program = [sys.executable, "-m", "benchmarks.scaling.probe"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        server = network.start(0, [*program, "serve", network.address(0)], os.environ, log)
        try:
            assert server.stdout is not None
            server.stdout.readline()  # it listens
            client = network.start(
                1, [*program, "ask", network.address(0), str(seconds)], os.environ, log
            )
            answer, _ = client.communicate(timeout=COMMAND_SECONDS + 2 * seconds)
        finally:
            server.kill()
            server.communicate(timeout=COMMAND_SECONDS)
        if not answer:
            raise NetworkError(f"the link could not be probed: {log.read_text()[-500:]}")
    trip, megabits = (float(word) for word in answer.split())
    return {"round_trip_ms": round(trip, 4), "megabits": round(megabits, 1)}


def _port(host: int) -> str:
    return f"port{host}"


def _enter_namespace(where: Path | int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    number = where if isinstance(where, int) else os.open(where, os.O_RDONLY)
    try:
        if libc.setns(number, CLONE_NEWNET):
            raise NetworkError(f"setns: {os.strerror(ctypes.get_errno())}")
    finally:
        if not isinstance(where, int):
            os.close(number)


def settle(seconds: float = 0.3) -> None:
    """Let packets that are under way arrive after the links have changed."""
    time.sleep(seconds)
