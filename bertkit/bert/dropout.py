"""Dropout masks that cost next to nothing: a hash of each element's place, made where it is used.

Drawing random numbers, writing them to memory and reading them again costs more than the matrix
products around it. Here an island computes a hash of each element's row, column and mask key. The
mask exists only in registers, the backward pass computes the same one again instead of having kept
it, and since the whole 32 bit word is compared, the rate is exact.

Each row gets a random word from its index and the 64 bit key; an element mixes its row's word with
its column. Mixing is a multiply and xor-shift permutation of 32 bit words that was found by
exhaustive search (C. Wellons, "Prospecting for Hash Functions").
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bertkit.bert.islands import Gradients, differentiable, island

Tensor = Any

_ROUNDS = ((16, 0x21F0AAAD), (15, 0x735A2D97))  # shift and factor of each
_GOLDEN = 0x9E3779B1  # 2^32 divided by the golden ratio: spreads successive columns far apart


def dropout_keys(seed: Tensor, rate: float, count: int) -> list[Tensor]:
    """Draw the keys of ``count`` masks.

    Args:
        seed: ``int32 [2]``; with the shapes and the rate it decides every mask.
        rate: Share of elements to drop, from 0 to below 1.
        count: Number of keys.

    Returns:
        ``count`` tensors ``int32 [3]``: two random words, and the largest hash that is kept.
    """
    words = tf.random.stateless_uniform(
        [count, 2], seed=seed, minval=None, maxval=None, dtype=tf.int32
    )
    largest = tf.constant(min(round((1.0 - rate) * 2**32), 2**32) - 1, tf.uint32)
    column = tf.fill([count, 1], tf.bitcast(largest, tf.int32))
    return list(tf.unstack(tf.concat([words, column], 1), num=count))


def drop(values: Tensor, key: Tensor | None) -> Tensor:
    """Zero each element with the key's probability and scale the others to keep the mean.

    The mask depends on the shape and the key alone, so calling it on gradients is the backward
    pass. To be used inside an island.

    Args:
        values: ``float32 [M, N]`` with fewer than 2^32 elements.
        key: ``int32 [3]`` from `dropout_keys`, or ``None`` to drop nothing.
    """
    if key is None:
        return values
    words = tf.bitcast(key, tf.uint32)
    kept = _hash(tf.shape(values), words) <= words[2]
    share = (tf.cast(words[2], tf.float32) + 1.0) * 2.0**-32
    return tf.where(kept, values * (1.0 / share), tf.zeros([], values.dtype))


def dropout(values: Tensor, key: Tensor | None) -> Tensor:
    """Drop elements of ``values``, ``[M, N]``, and of its gradient."""
    if key is None:
        return values

    def forward(values: Tensor) -> tuple[Tensor, Gradients]:
        return drop_rows(values, key), lambda gradient: drop_rows(gradient, key)

    return differentiable(forward, values)


@island
def drop_rows(values: Tensor, key: Tensor | None) -> Tensor:
    """`drop` as an island of its own, for ``[..., N]`` of any type."""
    rows = tf.reshape(values, [-1, tf.shape(values)[-1]])
    dropped = drop(tf.cast(rows, tf.float32), key)
    return tf.reshape(tf.cast(dropped, values.dtype), tf.shape(values))


def _hash(shape: Tensor, key: Tensor) -> Tensor:
    """One random word for each element, ``uint32 [M, N]``."""
    rows = _mix(tf.bitcast(tf.range(shape[0]), tf.uint32) + key[0])
    rows = _mix(tf.bitwise.bitwise_xor(_fold(rows, 15), key[1]))
    columns = tf.bitcast(tf.range(shape[1]), tf.uint32) * tf.constant(_GOLDEN, tf.uint32)
    # The comparison looks at the high bits, which a last fold would not change.
    return _mix(_fold(rows, 15)[:, None] + columns[None, :])


def _mix(word: Tensor) -> Tensor:
    for shift, factor in _ROUNDS:
        word = _fold(word, shift) * tf.constant(factor, tf.uint32)
    return word


def _fold(word: Tensor, shift: int) -> Tensor:
    shifted = tf.bitwise.right_shift(word, tf.constant(shift, tf.uint32))
    return tf.bitwise.bitwise_xor(word, shifted)
