"""Cuts features into batches by length, so that little work is done on padding.

A global batch is a number of examples of one optimizer step, over all ranks together. It is sorted
by length, dealt out to the ranks like cards, and each rank's share is cut into micro-batches under
a token budget, each padded to the bucket of its longest example only. What pads them there, only
attention looks at: all else is computed for packed rows, one a token and a few more. Every rank
gets the same shapes in the same order, so that none waits for another. Which examples make a step
depends on the seed alone, not on the number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bertkit.squad.features import Features, Ints, Longs

PADDING = -1  # index of a padding example
POOL = 50  # batches that are sorted together where batches are drawn by length
PASS_COST = 384  # places that could be attended in the time one more pass takes by itself


@dataclass(frozen=True, eq=False)
class BatchArrays:
    """What a model is handed for one pass; tokens are left-aligned.

    Args:
        input_ids: Token ids, int32 ``[B, S]``.
        segment_ids: 0 for the question and padding, 1 for the paragraph, int32 ``[B, S]``.
        lengths: Tokens of each example, int32 ``[B]``; 1 for padding examples.
        start_positions, end_positions: The answer's first and last token, int32 ``[B]``.
        weights: Each example's share in the loss, float32 ``[B]``; 0 for padding examples.
        packed_rows: See `MicroBatch`.
    """

    input_ids: Ints
    segment_ids: Ints
    lengths: Ints
    start_positions: Ints
    end_positions: Ints
    weights: NDArray[np.float32]
    packed_rows: int | None = None


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """The examples of one pass.

    Args:
        indices: Indices of features, int64 ``[B]``; ``PADDING`` for padding examples.
        length: Tokens each is padded to: its bucket, ``S``.
        packed_rows: Rows that hold all tokens once padding is left out, and a few of padding, the
            same number on every rank; ``None`` computes padding like tokens.
    """

    indices: Longs
    length: int
    packed_rows: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Examples and tokens, ``(B, S)``."""
        return len(self.indices), self.length


class BatchPlan:
    """Which examples are trained on at which step, on which rank, in which shapes.

    Args:
        lengths: Tokens of each feature, ``[features]``.
        batch_size: Examples of one step, over all ranks together.
        ranks: Number of ranks.
        micro_batch_tokens: Most tokens of one pass on one rank, padding included.
        seed: Fixes the order.
        group_by_length: Draw batches of like length, by sorting pools of 50 batches.
        pad_to_max_length: Pad every example to ``max_seq_length``, and pack nothing.
        max_seq_length: Longest feature; no bucket is longer.
        pass_cost: What one more pass costs by itself, in places: less gives more, smaller passes
            with less padding.

    Raises:
        ValueError: If there are no features, or one is longer than ``max_seq_length``.

    Example:
        >>> plan = BatchPlan([40, 200, 90, 60], batch_size=2, ranks=1, micro_batch_tokens=512,
        ...                  seed=0)
        >>> plan.steps_per_epoch, len(plan.examples(0))
        (2, 2)
    """

    def __init__(
        self,
        lengths: ArrayLike,
        *,
        batch_size: int,
        ranks: int,
        micro_batch_tokens: int,
        seed: int,
        group_by_length: bool = False,
        pad_to_max_length: bool = False,
        max_seq_length: int = 384,
        pass_cost: int = PASS_COST,
    ) -> None:
        self.lengths = np.asarray(lengths, np.int64)
        if not len(self.lengths) or self.lengths.max() > max_seq_length:
            raise ValueError(
                f"expected features of at most {max_seq_length} tokens; "
                f"found {len(self.lengths)}, the longest of {self.lengths.max(initial=0)}"
            )
        self.batch_size = batch_size
        self.ranks = ranks
        self.seed = seed
        self.group_by_length = group_by_length
        self._buckets = (max_seq_length,) if pad_to_max_length else length_buckets(max_seq_length)
        self._pads_to_max_length = pad_to_max_length
        self._tokens = micro_batch_tokens
        self._pass_cost = pass_cost
        self._order: tuple[int, Longs] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the data; the last one may be smaller."""
        return -(-len(self.lengths) // self.batch_size)

    def epoch_order(self, epoch: int) -> Longs:
        """All features in the order of one epoch, counted from 0."""
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self._draw(np.random.default_rng([self.seed, epoch]))
        return self._order[1]

    def examples(self, step: int) -> Longs:
        """Indices of the features of one global batch.

        Args:
            step: Counted from 0; epochs follow one another.
        """
        epoch, number = divmod(step, self.steps_per_epoch)
        first = number * self.batch_size
        return self.epoch_order(epoch)[first : first + self.batch_size]

    def micro_batches(self, step: int, rank: int) -> list[MicroBatch]:
        """What one rank passes through at one step; each rank has the same shapes.

        Args:
            step: Counted from 0.
            rank: Counted from 0.
        """
        return [
            MicroBatch(examples[:, rank], length, packed_rows)
            for examples, length, packed_rows in self._passes(step)
        ]

    def padding_share(self, step: int) -> float:
        """Share of the rows that all ranks compute for one global batch that is padding."""
        passed = sum(
            packed_rows or len(examples) * length
            for examples, length, packed_rows in self._passes(step)
        )
        return 1.0 - float(self.lengths[self.examples(step)].sum()) / (passed * self.ranks)

    def shapes(self) -> list[tuple[int, int]]:
        """Every shape ``(B, S)`` that can occur, longest first."""
        most = -(-min(self.batch_size, len(self.lengths)) // self.ranks)
        longest = _bucket(int(self.lengths.max()), self._buckets)
        return [
            (rows, length)
            for length in reversed(self._buckets)
            if length <= longest
            for rows in _row_counts(most, length, self._tokens)
        ]

    def _draw(self, random: np.random.Generator) -> Longs:
        order = random.permutation(len(self.lengths))
        if not self.group_by_length:
            return order
        whole = len(order) // self.batch_size * self.batch_size
        pool = POOL * self.batch_size
        pools = [order[i : min(i + pool, whole)] for i in range(0, whole, pool)]
        by_length = [p[np.argsort(-self.lengths[p], kind="stable")] for p in pools]
        batches = np.concatenate([*by_length, order[:0]]).reshape(-1, self.batch_size)
        return np.concatenate([random.permutation(batches).ravel(), order[whole:]])

    def _deal(self, step: int) -> Longs:
        """The global batch from long to short, dealt out to the ranks, ``[rows, ranks]``.

        The deal turns round after each row, so that no rank gets the longest of every row.
        """
        examples = self.examples(step)
        examples = examples[np.argsort(-self.lengths[examples], kind="stable")]
        rows = -(-len(examples) // self.ranks)
        dealt = _padded(examples, rows * self.ranks).reshape(rows, self.ranks)
        dealt[1::2] = dealt[1::2, ::-1]
        return dealt

    def _passes(self, step: int) -> Iterator[tuple[Longs, int, int | None]]:
        """Examples ``[rows, ranks]``, length and packed rows of each pass."""
        dealt = self._deal(step)
        for first, rows, length in self._cut(dealt):
            examples = _padded(dealt[first : first + rows], rows)
            tokens = int(self._lengths_of(examples).sum(0).max())
            packs = not self._pads_to_max_length
            yield examples, length, _packed_rows(tokens, rows * length) if packs else None

    def _cut(self, dealt: Longs) -> tuple[tuple[int, int, int], ...]:
        longest = self._lengths_of(dealt).max(1)
        buckets = tuple(_bucket(int(length), self._buckets) for length in longest)
        return _cheapest_cut(buckets, self._tokens, self._pass_cost)

    def _lengths_of(self, examples: Longs) -> Longs:
        """Tokens of each example, one for padding examples."""
        return np.where(examples == PADDING, 1, self.lengths[examples])


def length_buckets(max_seq_length: int) -> tuple[int, ...]:
    """Lengths that examples are padded to: multiples of 32 up to 192, then of 64.

    Example:
        >>> length_buckets(384)
        (32, 64, 96, 128, 160, 192, 256, 320, 384)
    """
    steps = [*range(32, 193, 32), *range(256, max_seq_length, 64)]
    return (*(length for length in steps if length < max_seq_length), max_seq_length)


def assemble(
    features: Features, micro_batch: MicroBatch, *, global_batch_examples: int
) -> BatchArrays:
    """Gather the arrays of one pass.

    Args:
        features: Where its examples are.
        micro_batch: Which they are.
        global_batch_examples: Examples of the step over all ranks; each has an equal share in the
            loss, so that the shares of a step sum to 1.
    """
    real = micro_batch.indices != PADDING
    rows = np.where(real, micro_batch.indices, 0)
    begin = np.asarray(features.offsets)[rows]
    lengths = np.where(real, np.asarray(features.offsets)[rows + 1] - begin, 1)
    position = np.arange(micro_batch.length)
    inside = (position < lengths[:, None]) & real[:, None]
    input_ids = np.zeros(micro_batch.shape, np.int32)
    input_ids[inside] = features.input_ids[(begin[:, None] + position)[inside]]
    of_paragraph = inside & (position >= features.question_lengths[rows][:, None])
    return BatchArrays(
        input_ids=input_ids,
        segment_ids=of_paragraph.astype(np.int32),
        lengths=lengths.astype(np.int32),
        start_positions=np.where(real, features.start_positions[rows], 0).astype(np.int32),
        end_positions=np.where(real, features.end_positions[rows], 0).astype(np.int32),
        weights=np.where(real, 1.0 / global_batch_examples, 0.0).astype(np.float32),
        packed_rows=micro_batch.packed_rows,
    )


def evaluation_batches(
    lengths: ArrayLike,
    *,
    indices: ArrayLike | None = None,
    tokens: int = 8192,
    max_seq_length: int = 384,
) -> list[MicroBatch]:
    """Cut features into batches from long to short, without regard to the data's order.

    Args:
        lengths: Tokens of each feature, ``[features]``.
        indices: Features to take; all by default.
        tokens: Most tokens of one batch, padding included.
        max_seq_length: Longest feature.

    Returns:
        Batches of one shape for each bucket, and a smaller one at the end.
    """
    all_lengths = np.asarray(lengths, np.int64)
    chosen = np.arange(len(all_lengths)) if indices is None else np.asarray(indices, np.int64)
    chosen = chosen[np.argsort(-all_lengths[chosen], kind="stable")]
    buckets = length_buckets(max_seq_length)
    batches, first = [], 0
    while first < len(chosen):
        length = _bucket(int(all_lengths[chosen[first]]), buckets)
        rows = _row_counts(len(chosen) - first, length, tokens)[-1]
        batches.append(MicroBatch(_padded(chosen[first : first + rows], rows), length))
        first += rows
    return batches


def _bucket(length: int, buckets: Sequence[int]) -> int:
    return next(bucket for bucket in buckets if bucket >= length)


def _packed_rows(tokens: int, places: int) -> int:
    """Rows for some tokens, at least one of them padding unless all places are full.

    Each number of rows costs what XLA needs to compile, so they are few: multiples of 64, and from
    2048 on of a sixteenth of the power of two below.
    """
    multiple = max(64, (1 << tokens.bit_length()) // 32)
    return min(-(-(tokens + 1) // multiple) * multiple, places)


def _padded(indices: Longs, rows: int) -> Longs:
    missing = np.full((rows - len(indices), *indices.shape[1:]), PADDING, np.int64)
    return np.concatenate([indices, missing])


@lru_cache(maxsize=64)
def _cheapest_cut(
    buckets: tuple[int, ...], tokens: int, pass_cost: int
) -> tuple[tuple[int, int, int], ...]:
    """Cut rows, sorted from long to short, into passes with the least work.

    A few long passes pad too much, many short ones cost each by themselves; the cheapest cut is
    found from the end backwards.

    Args:
        buckets: Bucket of each row.
        tokens: Most tokens of one pass.
        pass_cost: What a pass costs by itself, in places.

    Returns:
        First row, number of rows (some may lie beyond the end) and length of each pass.
    """
    end = len(buckets)
    cost = [0] * (end + 1)
    taken = [0] * end
    for first in range(end - 1, -1, -1):
        length = buckets[first]
        cost[first], taken[first] = min(
            (pass_cost + rows * length + cost[min(first + rows, end)], -rows)
            for rows in _row_counts(end - first, length, tokens)
        )
    cuts = []
    first = 0
    while first < end:
        cuts.append((first, -taken[first], buckets[first]))
        first -= taken[first]
    return tuple(cuts)


@lru_cache(maxsize=4096)
def _row_counts(most: int, length: int, tokens: int) -> tuple[int, ...]:
    """Numbers of examples that a pass of one bucket may have, few, ascending.

    The last is what the budget holds, or the least allowed number that holds ``most``.
    """
    full = max(1, tokens // length)
    counts = []
    rows = 1
    while rows < min(most, full):
        counts.append(rows)
        rows = _next_rows(rows)
    return (*counts, min(rows, full))


def _next_rows(rows: int) -> int:
    """1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, ...: never more than half too many."""
    if rows < 16:
        return rows * 2
    power = 1 << (rows.bit_length() - 1)
    return rows + power // 2
