"""Multi-head self-attention (Vaswani et al., arXiv 1706.03762) with a hand-written gradient.

With probabilities ``P = softmax(QKᵀ/√D + mask)``, their dropped form ``P'`` and the result
``O = P'V``, the softmax's gradient needs no pass of its own: since ``rowsum(P' ∘ dP') =
rowsum(dO ∘ O)`` (Dao et al., arXiv 2205.14135), ``dS = P' ∘ dP' - P ∘ rowsum(dO ∘ O)``.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bertkit.bert.dense import column_sums
from bertkit.bert.dropout import drop, drop_rows
from bertkit.bert.islands import Gradients, differentiable, island

Tensor = Any

# Far below every score, yet so small that a row without any token is no NaN.
MASKED = -1e9


def attend(values: Tensor, bias: Tensor, mask: Tensor, heads: int, key: Tensor | None) -> Tensor:
    """Let every token look at every other token of its example.

    Args:
        values: Queries, keys and values without their bias, ``[B·S, 3·A·D]``.
        bias: Their bias, ``float32 [3·A·D]``.
        mask: Added to the scores, ``[B, 1, 1, S]`` of the type of ``values``: 0 for a token,
            `MASKED` for padding.
        heads: Number A of heads.
        key: Key of the dropout mask, ``int32 [3]``, or ``None`` for no dropout.

    Returns:
        The context ``[B·S, A·D]``.
    """
    scale = (values.shape[1] // (3 * heads)) ** -0.5

    def forward(values: Tensor, bias: Tensor) -> tuple[Tensor, Gradients]:
        queries, keys, contents = _heads(values, bias, mask, heads)
        # TensorFlow's graph optimizer makes one oneDNN product of the next line.
        scores = tf.matmul(queries, keys, transpose_b=True) * scale + mask
        probabilities = tf.nn.softmax(scores)
        dropped = probabilities if key is None else drop_rows(probabilities, key)
        context = _join(tf.matmul(dropped, contents))

        def backward(gradient: Tensor) -> tuple[Tensor, Tensor]:
            to_context, along = _split_gradient(gradient, context, mask, heads)
            to_contents = tf.matmul(dropped, to_context, transpose_a=True)
            to_dropped = tf.matmul(to_context, contents, transpose_b=True)
            to_scores = _softmax_backward(probabilities, to_dropped, along, key, scale)
            to_queries = tf.matmul(to_scores, keys)
            to_keys = tf.matmul(to_scores, queries, transpose_a=True)
            to_values = tf.concat([_join(to_queries), _join(to_keys), _join(to_contents)], 1)
            return to_values, column_sums(to_values)

        return context, backward

    return differentiable(forward, values, bias)


def _heads(values: Tensor, bias: Tensor, mask: Tensor, heads: int) -> list[Tensor]:
    size = values.shape[1] // (3 * heads)
    parts = tf.unstack(_split(values, bias, mask, heads), num=3)
    # Graph optimizers do not see through an island, and fuse only what has a known shape.
    return [tf.ensure_shape(part, [None, heads, None, size]) for part in parts]


@island
def _split(values: Tensor, bias: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Add the bias and bring ``[B·S, 3·A·D]`` to ``[3, B, A, S, D]``; B and S are the mask's."""
    biased = tf.cast(tf.cast(values, tf.float32) + bias, values.dtype)
    shape = tf.shape(mask)
    size = values.shape[1] // (3 * heads)
    return tf.transpose(tf.reshape(biased, [shape[0], shape[3], 3, heads, size]), [2, 0, 3, 1, 4])


@island
def _join(parts: Tensor) -> Tensor:
    """Bring ``[B, A, S, D]`` to ``[B·S, A·D]``."""
    rows = tf.transpose(parts, [0, 2, 1, 3])
    return tf.reshape(rows, [-1, parts.shape[1] * parts.shape[3]])


@island
def _split_gradient(
    gradient: Tensor, context: Tensor, mask: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    """The context's gradient as ``[B, A, S, D]`` and ``rowsum(dO ∘ O)`` as ``[B, A, S, 1]``."""
    shape = [tf.shape(mask)[0], tf.shape(mask)[3], heads, gradient.shape[1] // heads]
    products = tf.cast(gradient, tf.float32) * tf.cast(context, tf.float32)
    along = tf.reduce_sum(tf.reshape(products, shape), -1, keepdims=True)
    parts = tf.reshape(gradient, shape)
    return tf.transpose(parts, [0, 2, 1, 3]), tf.transpose(along, [0, 2, 1, 3])


@island
def _softmax_backward(
    probabilities: Tensor, to_dropped: Tensor, along: Tensor, key: Tensor | None, scale: float
) -> Tensor:
    shape = tf.shape(to_dropped)
    rows = tf.reshape(tf.cast(to_dropped, tf.float32), [-1, shape[3]])
    gradient = tf.reshape(drop(rows, key), shape) - along
    to_scores = tf.cast(probabilities, tf.float32) * gradient * scale
    return tf.cast(to_scores, probabilities.dtype)
