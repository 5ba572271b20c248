"""What a sum over ranks costs: the ring as Gloo runs it, and two levels of rings.

The model is that of messages with a latency and a rate (Thakur, Rabenseifner and Gropp,
"Optimization of collective communication operations in MPICH", 2005). A ring moves
``2 (p - 1) / p`` of the data over each link, the least that any algorithm can (Patarasuk and Yuan,
"Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009), in
``2 (p - 1)`` steps; Horovod took it over for gradients (Sergeev and Del Balso, 2018,
arXiv 1802.05799). What is Gloo's own, read from its source (``gloo/allreduce.cc``,
``gloo/transport/tcp/pair.cc``):

- data go round in segments of at most 1 MiB, at least two a rank,
- a segment is only sent when the receiver has said that it is ready, which costs it a whole round
  trip instead of one way, and two segments are under way at a time; with two ranks, that word goes
  over the connection that the receiver's own data fill, and waits for a segment of them,
- while one is added up, the other travels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.scaling.gradients import Buffer

SEGMENT_BYTES = 2**20
UNDER_WAY = 2


@dataclass(frozen=True)
class Link:
    """What joins two ranks.

    Args:
        bytes_per_second: Payload that it moves in each direction.
        round_trip: Seconds to the other side and back.
    """

    bytes_per_second: float
    round_trip: float


@dataclass(frozen=True)
class Transport:
    """What the processor does for a sum; measured, see `fitting`.

    Args:
        copy: Seconds a byte to bring gradients into the fusion buffer and sums out of it.
        move: Seconds a byte that is sent: it is received and added up as well.
        add_half: Seconds a byte of float16 more where it is added up: Gloo does it in software.
        message: Seconds that software takes a segment, beside the link.
        start: Seconds until all ranks know that all are ready, on a link without latency.
        start_trips: Round trips more that this takes for each rank beyond the first.
    """

    copy: float = 0.0
    move: float = 0.0
    add_half: float = 0.0
    message: float = 0.0
    start: float = 0.0
    start_trips: float = 0.0

    def slowed(self, factor: float) -> Transport:
        """The same on a processor that is shared by ``factor`` ranks."""
        return Transport(
            self.copy * factor, self.move * factor, self.add_half * factor,
            self.message * factor, self.start * factor, self.start_trips,
        )  # fmt: skip


IDEAL = Transport()


def ring_seconds(buffer: Buffer, ranks: int, link: Link, transport: Transport = IDEAL) -> float:
    """Seconds of one ring allreduce.

    Args:
        buffer: What is summed.
        ranks: Number of ranks, one a link.
        link: The slowest link of the ring.
        transport: What the processor adds.

    Example:
        >>> ring_seconds(Buffer(8e9), 4, Link(1e9, 0.0))
        12.0...
    """
    return (
        transport.copy * buffer.bytes
        + reduce_scatter_seconds(buffer, ranks, link, transport)
        + allgather_seconds(buffer.bytes, ranks, link, transport)
    )


def reduce_scatter_seconds(buffer: Buffer, ranks: int, link: Link, transport: Transport) -> float:
    """Seconds of the ring's first half, after which each rank has the sum of one part."""
    add = transport.add_half if buffer.is_half else 0.0
    return _half_ring(buffer.bytes, ranks, link, transport.move + add, transport.message)


def allgather_seconds(size: float, ranks: int, link: Link, transport: Transport) -> float:
    """Seconds of the ring's second half, after which each rank has all sums."""
    return _half_ring(size, ranks, link, transport.move, transport.message)


def _half_ring(size: float, ranks: int, link: Link, per_byte: float, message: float) -> float:
    if ranks == 1 or not size:
        return 0.0
    least = max(math.ceil(size / SEGMENT_BYTES), 2 * ranks)
    segments = math.ceil(least / ranks) * ranks
    segment = size / segments
    wire = segment / link.bytes_per_second
    processor = per_byte * segment
    round_trip = link.round_trip + message
    word = wire if ranks == 2 else 0.0
    each = max(wire, processor, (wire + word + processor + round_trip) / UNDER_WAY)
    return (segments - segments / ranks) * each


def hierarchical_seconds(
    buffer: Buffer,
    hosts: int,
    ranks_per_host: int,
    cross: Link,
    local: Link,
    transport: Transport = IDEAL,
) -> float:
    """Seconds of an allreduce on two levels.

    The ranks of a host split the sum among them (reduce-scatter), each sums its part with its
    counterparts on the other hosts by a ring, then the host's ranks exchange the parts
    (allgather). A host's ranks share its link to the others.

    Args:
        buffer: What is summed.
        hosts: Number of hosts.
        ranks_per_host: Ranks of each.
        cross: A host's link to the others.
        local: What joins the ranks of a host.
        transport: What the processor adds.
    """
    shared = Link(cross.bytes_per_second / ranks_per_host, cross.round_trip)
    part = buffer._replace(bytes=buffer.bytes / ranks_per_host)
    return (
        transport.copy * buffer.bytes
        + reduce_scatter_seconds(buffer, ranks_per_host, local, transport)
        + reduce_scatter_seconds(part, hosts, shared, transport)
        + allgather_seconds(part.bytes, hosts, shared, transport)
        + allgather_seconds(buffer.bytes, ranks_per_host, local, transport)
    )


def start_seconds(ranks: int, link: Link, transport: Transport) -> float:
    """Seconds until the ranks have agreed to begin: Horovod's negotiation, once a step."""
    if ranks == 1:
        return 0.0
    return transport.start + transport.start_trips * (ranks - 1) * link.round_trip


def sum_seconds(
    buffers: Sequence[Buffer], ranks: int, link: Link, transport: Transport = IDEAL
) -> float:
    """Seconds of a whole sum over ranks: the agreement, then one fused buffer after another."""
    if ranks == 1:
        return 0.0
    return start_seconds(ranks, link, transport) + sum(
        ring_seconds(buffer, ranks, link, transport) for buffer in buffers
    )
