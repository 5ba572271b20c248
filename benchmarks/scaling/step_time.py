"""The time of one optimizer step on so many ranks, and what of it is lost to communication.

A step is, on every rank: its passes, forward and backward, one after another (gradient
accumulation: the gradients stay on the rank until the last of them); one sum over ranks; one
update, the same on every rank whatever its share of the batch. bertkit sums each layer's gradients
while the last pass's backward goes on; ``overlap`` says how much of that time is of use, which
`simulate.measured_overlap` takes from whole steps on shaped links.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.scaling.collectives import (
    Link,
    Transport,
    hierarchical_seconds,
    start_seconds,
    sum_seconds,
)
from benchmarks.scaling.gradients import gradients_of
from benchmarks.work import SIZES

BACKWARD_SHARE = 2 / 3  # of a pass: two products of the same size for each product of forward


@dataclass(frozen=True)
class Node:
    """How fast a rank computes.

    Args:
        per_example: Seconds of forward and backward of one example.
        per_step: Seconds of the rest of a step, the update first of all.
    """

    per_example: float
    per_step: float


@dataclass(frozen=True)
class Setting:
    """What is trained on what network.

    Args:
        model: Name in `benchmarks.work.SIZES`.
        node: How fast a rank computes.
        link: A host's link to the others.
        transport: What the processor adds to a sum.
        compression: ``"none"`` or ``"float16"``.
        overlap: Share of the last pass's backward during which sums are under way.
        pass_examples: Most examples of one pass on a rank.
        ranks_per_host: More than one: the hosts' links are shared.
        local: What joins the ranks of one host.
        hierarchical: Sum on two levels where hosts have several ranks.
    """

    model: str
    node: Node
    link: Link
    transport: Transport
    compression: str = "none"
    overlap: float = 0.0
    pass_examples: int = 24
    ranks_per_host: int = 1
    local: Link | None = None
    hierarchical: bool = False

    def replace(self, **changes: object) -> Setting:
        """A setting that differs in some fields."""
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step's parts on one rank.

    Args:
        passes: Forward and backward.
        update: What is the same on every rank.
        sums: The sum over ranks.
        exposed: The part of ``sums`` that no computing hides.
    """

    passes: float
    update: float
    sums: float
    exposed: float

    @property
    def total(self) -> float:
        """All of the step."""
        return self.passes + self.update + self.exposed


class TouchedRows:
    """Distinct tokens of a global batch: what is sent of the word embeddings.

    Args:
        counts: Measured distinct tokens by number of examples.
        vocabulary: All there are.
    """

    def __init__(self, counts: Mapping[int, int], vocabulary: int) -> None:
        self._examples = np.log([float(n) for n in sorted(counts)])
        self._rows = np.log([float(counts[n]) for n in sorted(counts)])
        self._vocabulary = vocabulary

    def __call__(self, examples: float) -> int:
        """Interpolated between what was measured, and on with the last slope (Heaps' law)."""
        at = np.log(max(examples, 1.0))
        place = int(np.clip(np.searchsorted(self._examples, at), 1, len(self._examples) - 1))
        left, right = slice(place - 1, place), slice(place, place + 1)
        run = (self._examples[right] - self._examples[left])[0]
        slope = (self._rows[right] - self._rows[left])[0] / run
        rows = np.exp(self._rows[place - 1] + slope * (at - self._examples[place - 1]))
        return int(min(max(rows, 1.0), self._vocabulary))


def step_time(setting: Setting, ranks: int, examples: float, rows: TouchedRows) -> StepTime:
    """One optimizer step.

    Args:
        setting: What is trained where.
        ranks: Number of ranks.
        examples: Examples of a step on each of them.
        rows: Says how many rows of the word embeddings the global batch touches.
    """
    passes = setting.node.per_example * examples
    sums = _sum(setting, ranks, rows(examples * ranks))
    last_pass = setting.node.per_example * min(examples, setting.pass_examples)
    hidden = min(sums, setting.overlap * BACKWARD_SHARE * last_pass)
    return StepTime(passes, setting.node.per_step, sums, sums - hidden)


def _sum(setting: Setting, ranks: int, rows: int) -> float:
    if ranks == 1:
        return 0.0
    buffers = gradients_of(setting.model, rows, setting.compression).buffers
    hosts = -(-ranks // setting.ranks_per_host)
    if hosts == 1:
        return sum_seconds(buffers, ranks, setting.local or setting.link, setting.transport)
    if not setting.hierarchical or setting.ranks_per_host == 1:
        # One neighbour of each host's ranks sits on the next host: no link is used twice.
        return sum_seconds(buffers, ranks, setting.link, setting.transport)
    local = setting.local or setting.link
    return start_seconds(ranks, setting.link, setting.transport) + sum(
        hierarchical_seconds(
            buffer, hosts, setting.ranks_per_host, setting.link, local, setting.transport
        )
        for buffer in buffers
    )


def strong_efficiency(
    setting: Setting, ranks: int, global_batch: float, rows: TouchedRows
) -> float:
    """``T(1) / (p · T(p))`` where the ranks share one global batch."""
    alone = step_time(setting, 1, global_batch, rows).total
    return alone / (ranks * step_time(setting, ranks, global_batch / ranks, rows).total)


def weak_efficiency(setting: Setting, ranks: int, examples: float, rows: TouchedRows) -> float:
    """``T(1) / T(p)`` where each rank has its own batch, however many there are."""
    alone = step_time(setting, 1, examples, rows).total
    return alone / step_time(setting, ranks, examples, rows).total


def vocabulary_of(model: str) -> int:
    """Rows of a model's word embeddings."""
    return SIZES[model].vocab_size
