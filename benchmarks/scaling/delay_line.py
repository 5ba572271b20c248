"""A switch that hands on each packet late: ``delay_line SECONDS PORT PORT …``.

Reads Ethernet frames from each port and writes them to the port behind which their receiver is
known to be, to all others otherwise, a fixed time later. Packets that the sender's kernel left
uncut (up to 64 KiB, described by a virtio header) go on uncut, so that it need not be fast.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from collections import deque

SOL_PACKET = 263  # from linux/if_packet.h; Python does not name them
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
SO_RCVBUFFORCE = 33
SO_SNDBUFFORCE = 32
ETH_P_ALL = 0x0003
HEADER = 10  # bytes of a virtio header
BUFFER_BYTES = 64 * 2**20
LARGEST = 2**16 + HEADER + 64
BATCH = 32


def main(delay: float, names: list[str]) -> None:
    """Hand packets on until killed."""
    ports = [_open(name) for name in names]
    with contextlib.suppress(OSError):  # a late wake-up would be more delay
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    behind: dict[bytes, socket.socket] = {}
    waiting: deque[tuple[float, socket.socket, bytes]] = deque()
    print("ready", flush=True)
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for port in select.select(ports, [], [], pause)[0]:
            _take(port, delay, behind, waiting)
        _hand_on(ports, behind, waiting)


def _open(name: str) -> socket.socket:
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    for level, option, value in (
        (SOL_PACKET, PACKET_VNET_HDR, 1),
        (SOL_PACKET, PACKET_IGNORE_OUTGOING, 1),
        (socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES),
        (socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER_BYTES),
    ):
        port.setsockopt(level, option, value)
    port.bind((name, 0))
    port.setblocking(False)
    return port


def _take(
    port: socket.socket,
    delay: float,
    behind: dict[bytes, socket.socket],
    waiting: deque[tuple[float, socket.socket, bytes]],
) -> None:
    for _ in range(BATCH):
        try:
            frame = port.recv(LARGEST)
        except BlockingIOError:
            return
        behind[frame[HEADER + 6 : HEADER + 12]] = port
        waiting.append((time.monotonic() + delay, port, frame))


def _hand_on(
    ports: list[socket.socket],
    behind: dict[bytes, socket.socket],
    waiting: deque[tuple[float, socket.socket, bytes]],
) -> None:
    now = time.monotonic()
    while waiting and waiting[0][0] <= now:
        _, origin, frame = waiting.popleft()
        known = behind.get(frame[HEADER : HEADER + 6])
        for port in [known] if known else [port for port in ports if port is not origin]:
            with contextlib.suppress(OSError):  # as a switch whose queue is full
                port.send(frame)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
