"""Dropout masks that cost next to nothing: a hash of each element's place, made where it is used.

Drawing random numbers, writing them to memory and reading them again costs more than the matrix
products around it. Here an island computes, for each element, a hash of its index and a key of two
32 bit words. The mask exists only in registers, the backward pass computes the same one again
instead of having kept it, and since the whole 32 bit word is compared, the rate is exact.

The hash is the two-round multiply and xor-shift permutation of 32 bit words found by exhaustive
search (C. Wellons, "Prospecting for Hash Functions", constants 0x21f0aaad and 0x735a2d97), with one
word of the key mixed in before each round, so that masks of two keys are not permutations of each
other.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

Tensor = Any


def dropout_keys(seed: Tensor, count: int) -> list[Tensor]:
    """Draw the keys of ``count`` masks.

    Args:
        seed: ``int32 [2]``; with the shapes it decides every mask.
        count: Number of keys.

    Returns:
        ``count`` tensors ``int32 [2]``.
    """
    words = tf.random.stateless_uniform(
        [count, 2], seed=seed, minval=None, maxval=None, dtype=tf.int32
    )
    return list(tf.unstack(words))


def drop(values: Tensor, key: Tensor | None, rate: float) -> Tensor:
    """Zero each element with probability ``rate`` and scale the others by ``1 / (1 - rate)``.

    The mask depends on the shape, the key and the rate alone, so calling it again on gradients is
    the backward pass. To be used inside an island.

    Args:
        values: ``float32 [M, N]`` with fewer than 2^32 elements.
        key: ``int32 [2]`` from `dropout_keys`, or ``None`` for no dropout.
        rate: From 0 to below 1; unused without a key.
    """
    if key is None:
        return values
    threshold = tf.constant(round((1.0 - rate) * 2**32), tf.uint32)
    kept = _hash(_indices(tf.shape(values)), tf.bitcast(key, tf.uint32)) < threshold
    return tf.where(kept, values * (1.0 / (1.0 - rate)), tf.zeros([], values.dtype))


def _indices(shape: Tensor) -> Tensor:
    rows = tf.range(shape[0])[:, None] * shape[1]
    return tf.bitcast(rows + tf.range(shape[1])[None, :], tf.uint32)


def _hash(word: Tensor, key: Tensor) -> Tensor:
    for shift, factor, part in ((16, 0x21F0AAAD, key[0]), (15, 0x735A2D97, key[1])):
        word = tf.bitwise.bitwise_xor(word, part)
        word = tf.bitwise.bitwise_xor(word, tf.bitwise.right_shift(word, _word(shift)))
        word = word * _word(factor)
    return tf.bitwise.bitwise_xor(word, tf.bitwise.right_shift(word, _word(15)))


def _word(value: int) -> Tensor:
    return tf.constant(value, tf.uint32)
