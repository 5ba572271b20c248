"""Where the ranks of one run find each other, and what each has to know to become a rank."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from socketserver import BaseServer

import psutil
from horovod.runner.common.util.hosts import HostInfo, SlotInfo, get_host_assignments
from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

from bertkit.cluster.child import LOOPBACK
from bertkit.errors import ClusterError

SILENCE_SECONDS = 30  # a rank that answers nothing for so long has gone, even if its host stands
STALL_SECONDS = 60  # a rank whose share of a collective does not come in this time is stuck
# How often ranks ask each other what is ready to be summed. They ask whether or not anything is, in
# the midst of the step: Horovod's 1 ms takes a rank of one core 4 % more of its time than 5 ms do.
CYCLE_MILLISECONDS = 5


class Rendezvous:
    """A small server in which Horovod's ranks of one run look each other up.

    Horovod's own `RendezvousServer` listens on every interface and leaves its socket open after
    it has stopped; this one keeps Horovod's protocol, listens on one address, and closes.

    Args:
        hosts: The host of each rank, in the order of the ranks; ranks of one host are neighbours.
        interface: Network interface that all hosts share, such as ``"eth0"``; by default the
            loopback interface, which reaches this host only.

    Raises:
        ClusterError: If this host has no such interface.

    Example:
        >>> with Rendezvous(["here", "here"]) as rendezvous:
        ...     rendezvous.environment(1)["HOROVOD_RANK"]
        '1'
    """

    def __init__(self, hosts: Sequence[str], interface: str | None = None) -> None:
        self.interface, self.address = interface_and_address(interface)
        self._slots = _slots(hosts)
        self._server = _Server((self.address, 0), RendezvousHandler, 0)
        self._server.init(self._slots)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="bertkit-rendezvous",
            daemon=True,
        )
        self._thread.start()

    def environment(self, rank: int) -> dict[str, str]:
        """Variables with which a process becomes ``rank`` when it calls ``hvd.init()``."""
        slot = self._slots[rank]
        return {
            "HOROVOD_RANK": str(slot.rank),
            "HOROVOD_SIZE": str(slot.size),
            "HOROVOD_LOCAL_RANK": str(slot.local_rank),
            "HOROVOD_LOCAL_SIZE": str(slot.local_size),
            "HOROVOD_CROSS_RANK": str(slot.cross_rank),
            "HOROVOD_CROSS_SIZE": str(slot.cross_size),
            "HOROVOD_HOSTNAME": slot.hostname,
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": self.address,
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(self._server.server_port),
            "HOROVOD_GLOO_IFACE": self.interface,
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
            "HOROVOD_CYCLE_TIME": str(CYCLE_MILLISECONDS),
            "HOROVOD_GLOO_TIMEOUT_SECONDS": str(SILENCE_SECONDS),
            "HOROVOD_STALL_CHECK_TIME_SECONDS": str(SILENCE_SECONDS),
            "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": str(STALL_SECONDS),
        }

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def __enter__(self) -> Rendezvous:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Server(RendezvousHTTPServer):  # type: ignore[misc]
    """Answers in its one thread: requests are short, and Python ends without starting threads."""

    process_request = BaseServer.process_request


def _slots(hosts: Sequence[str]) -> list[SlotInfo]:
    counts = Counter(hosts)  # keeps the order in which hosts come first
    slots: list[SlotInfo] = get_host_assignments(
        [HostInfo(host, count) for host, count in counts.items()], len(hosts)
    )
    if [slot.hostname for slot in slots] != list(hosts):
        raise ClusterError(
            f"the ranks' hosts are {', '.join(hosts)}; expected ranks of one host to be neighbours"
        )
    return slots


def interface_and_address(name: str | None) -> tuple[str, str]:
    """An interface and this host's IPv4 address on it."""
    found = {
        interface: address.address
        for interface, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family.name == "AF_INET"
    }
    if name is None:
        name = next((each for each, address in found.items() if address == LOOPBACK), None)
    if name is None or name not in found:
        raise ClusterError(
            f"interface {name or 'loopback'} has no IPv4 address on this host; "
            f"expected one of {', '.join(sorted(found)) or 'none, as there is no network'}"
        )
    return name, found[name]
