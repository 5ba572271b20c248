"""Multi-head self-attention (Vaswani et al., arXiv 1706.03762) with a hand-written gradient.

With probabilities ``P = softmax(QKᵀ/√D + mask)``, their dropped form ``P'`` and the result
``O = P'V``, the softmax's gradient needs no pass of its own: since ``rowsum(P' ∘ dP') =
rowsum(dO ∘ O)`` (Dao et al., arXiv 2205.14135), ``dS = P' ∘ dP' - P ∘ rowsum(dO ∘ O)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from bertkit.bert.dense import column_sums
from bertkit.bert.dropout import drop
from bertkit.bert.islands import Gradients, differentiable, island

Tensor = Any

# Far below every score, yet so small that a row without any token is no NaN.
MASKED = -1e9


@dataclass(frozen=True)
class Heads:
    """How the columns of a fused query, key and value product are divided.

    Args:
        batch: Number of examples B, a scalar tensor or a number.
        length: Sequence length S, likewise.
        count: Number of heads A.
        size: Width D of a head.
    """

    batch: Any
    length: Any
    count: int
    size: int

    def split(self, values: Tensor, parts: int) -> Tensor:
        """``[B·S, parts·A·D]`` to ``[parts, B, A, S, D]``."""
        shape = [self.batch, self.length, parts, self.count, self.size]
        return tf.transpose(tf.reshape(values, shape), [2, 0, 3, 1, 4])

    def join(self, parts: list[Tensor]) -> Tensor:
        """Parts of ``[B, A, S, D]`` to ``[B·S, parts·A·D]``."""
        values = tf.transpose(tf.stack(parts), [1, 3, 0, 2, 4])
        rows = self.batch * self.length
        return tf.reshape(values, [rows, len(parts) * self.count * self.size])


def attend(
    values: Tensor, bias: Tensor, mask: Tensor, heads: Heads, *, key: Tensor | None, rate: float
) -> Tensor:
    """Let every token look at every other token of its example.

    Args:
        values: Queries, keys and values without their bias, ``[B·S, 3·A·D]``.
        bias: Their bias, ``float32 [3·A·D]``.
        mask: Added to the scores, ``float32 [B, S]``: 0 for a token, `MASKED` for padding.
        heads: How the columns are divided.
        key: Key of the dropout mask, ``int32 [2]``, or ``None`` for no dropout.
        rate: Dropout rate.

    Returns:
        The context ``[B·S, A·D]``.
    """
    scale = heads.size**-0.5

    def forward(values: Tensor, bias: Tensor) -> tuple[Tensor, Gradients]:
        queries, keys, contents = tf.unstack(heads.split(_add_bias(values, bias), 3), num=3)
        scores = _mask(tf.matmul(queries, keys, transpose_b=True), mask, scale)
        scores = tf.ensure_shape(scores, [None] * 4)  # graph optimizers lose it at an island
        probabilities = tf.nn.softmax(scores)
        dropped = _drop(probabilities, key, rate) if key is not None else probabilities
        context = heads.join([tf.matmul(dropped, contents)])

        def backward(gradient: Tensor) -> tuple[Tensor, Tensor]:
            along = _row_products(gradient, context, heads.count)
            along = tf.reshape(along, [heads.batch, heads.length, heads.count])
            along = tf.transpose(along, [0, 2, 1])[..., None]
            to_context = heads.split(gradient, 1)[0]
            to_contents = tf.matmul(dropped, to_context, transpose_a=True)
            to_dropped = tf.matmul(to_context, contents, transpose_b=True)
            to_scores = _softmax_backward(probabilities, to_dropped, along, key, rate, scale)
            to_queries = tf.matmul(to_scores, keys)
            to_keys = tf.matmul(to_scores, queries, transpose_a=True)
            to_values = heads.join([to_queries, to_keys, to_contents])
            return to_values, column_sums(to_values)

        return context, backward

    return differentiable(forward, values, bias)


@island
def _add_bias(values: Tensor, bias: Tensor) -> Tensor:
    return tf.cast(tf.cast(values, tf.float32) + bias, values.dtype)


@island
def _mask(scores: Tensor, mask: Tensor, scale: float) -> Tensor:
    return tf.cast(tf.cast(scores, tf.float32) * scale + mask[:, None, None, :], scores.dtype)


@island
def _drop(probabilities: Tensor, key: Tensor, rate: float) -> Tensor:
    dropped = _drop_rows(tf.cast(probabilities, tf.float32), key, rate)
    return tf.cast(dropped, probabilities.dtype)


@island
def _row_products(gradient: Tensor, context: Tensor, heads: int) -> Tensor:
    """``rowsum(dO ∘ O)`` of each token and head: ``[B·S, A·D]`` to ``float32 [B·S, A]``."""
    products = tf.cast(gradient, tf.float32) * tf.cast(context, tf.float32)
    size = gradient.shape[-1] // heads
    return tf.reduce_sum(tf.reshape(products, [-1, heads, size]), -1)


@island
def _softmax_backward(
    probabilities: Tensor,
    to_dropped: Tensor,
    along: Tensor,
    key: Tensor | None,
    rate: float,
    scale: float,
) -> Tensor:
    gradient = _drop_rows(tf.cast(to_dropped, tf.float32), key, rate) - along
    to_scores = tf.cast(probabilities, tf.float32) * gradient * scale
    return tf.cast(to_scores, probabilities.dtype)


def _drop_rows(values: Tensor, key: Tensor | None, rate: float) -> Tensor:
    shape = tf.shape(values)
    return tf.reshape(drop(tf.reshape(values, [-1, shape[-1]]), key, rate), shape)
