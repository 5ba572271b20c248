"""Times one TCP connection: ``serve ADDRESS`` on one host, ``ask ADDRESS SECONDS`` on another.

The asking side prints the median round trip of small messages in milliseconds, and the rate of a
stream in 10⁶ bits a second.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import sys
import time

PORT = 9000
MESSAGE = 64
TRIPS = 50
CHUNK = 256 * 1024


def serve(address: str) -> None:
    """Echo messages, then count a stream's bytes and tell them with the time they took."""
    with socket.create_server((address, PORT)) as listener:
        print("ready", flush=True)
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(TRIPS):
                connection.sendall(_exactly(connection, MESSAGE))
            connection.sendall(f"{_rate(connection):.3f}".encode())


def ask(address: str, seconds: float) -> tuple[float, float]:
    """Round trip in milliseconds and rate in megabits a second."""
    with socket.create_connection((address, PORT), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        trips = []
        for _ in range(TRIPS):
            began = time.perf_counter()
            connection.sendall(bytes(MESSAGE))
            _exactly(connection, MESSAGE)
            trips.append(time.perf_counter() - began)
        chunk = bytes(CHUNK)
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            connection.sendall(chunk)
        connection.shutdown(socket.SHUT_WR)
        return 1e3 * statistics.median(trips), float(connection.recv(64))


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError("the other side has gone")
        data += part
    return data


def _rate(connection: socket.socket) -> float:
    """Megabits a second of what arrives, the first quarter of a second left out."""
    began = counted_from = time.perf_counter()
    total = 0
    buffer = bytearray(CHUNK)
    while received := connection.recv_into(buffer):
        now = time.perf_counter()
        if now - began < 0.25:  # the connection still finds its rate
            counted_from = now
        else:
            total += received
    return 8e-6 * total / (time.perf_counter() - counted_from)


def _go_first() -> None:
    """Let this process run before all others: what is measured is the link."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


if __name__ == "__main__":
    _go_first()
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        print(*ask(sys.argv[2], float(sys.argv[3])))
