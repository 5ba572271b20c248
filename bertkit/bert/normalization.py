"""LayerNorm and what comes before it: bias, dropout, the residual sum, the embeddings' sum.

LayerNorm (Ba et al., arXiv 1607.06450): ``n = (z - mean) / sqrt(variance + ε)``, ``y = g n + b``.
Its gradient with ``d = g dy`` is ``dz = (d - mean(d) - n mean(d n)) / sqrt(variance + ε)``.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bertkit.bert.dense import column_sums
from bertkit.bert.dropout import drop
from bertkit.bert.islands import Gradients, differentiable, island

Tensor = Any


def add_and_normalize(
    values: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    epsilon: float,
    key: Tensor | None,
    rate: float,
) -> tuple[Tensor, Tensor]:
    """Compute ``LayerNorm(residual + dropout(values + bias))``.

    Args:
        values: ``[T, H]`` in the precision of the computation, a product without its bias.
        bias: ``float32 [H]``.
        residual: ``[T, H]`` of the type of ``values``.
        gamma: Scale, ``float32 [H]``.
        beta: Shift, ``float32 [H]``.
        epsilon: Added to the variance.
        key: Key of the dropout mask, ``int32 [2]``, or ``None`` for no dropout.
        rate: Dropout rate.

    Returns:
        The result ``[T, H]`` twice: once for the next product and once for the next residual sum.
        Their gradients then come back apart, and are added while they are read anyway.
    """

    def forward(
        values: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Gradients]:
        result, normalized, scale = _add_and_normalize(
            values, bias, residual, gamma, beta, key, rate, epsilon
        )

        def backward(first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
            to_values, to_residual, to_beta, to_gamma = _add_and_normalize_backward(
                first, second, normalized, scale, gamma, key, rate
            )
            return (
                to_values,
                column_sums(to_values),
                to_residual,
                column_sums(to_gamma),
                column_sums(to_beta),
            )

        return (result, result), backward

    result: tuple[Tensor, Tensor] = differentiable(forward, values, bias, residual, gamma, beta)
    return result


def embed(
    words: Tensor,
    positions: Tensor,
    segments: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    epsilon: float,
    key: Tensor | None,
    rate: float,
    dtype: Any,
) -> tuple[Tensor, Tensor]:
    """Compute ``dropout(LayerNorm(words + positions + segments))``.

    Args:
        words: Word embeddings, ``float32 [B, S, H]``.
        positions: Position embeddings, ``float32 [S, H]``.
        segments: Segment embeddings, ``float32 [B, S, H]``.
        gamma: Scale, ``float32 [H]``.
        beta: Shift, ``float32 [H]``.
        epsilon: Added to the variance.
        key: Key of the dropout mask, ``int32 [2]``, or ``None`` for no dropout.
        rate: Dropout rate.
        dtype: Type of the result.

    Returns:
        The result ``[B·S, H]`` twice, as in `add_and_normalize`.
    """

    def forward(
        words: Tensor, positions: Tensor, segments: Tensor, gamma: Tensor, beta: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Gradients]:
        result, normalized, scale = _embed(
            words, positions, segments, gamma, beta, key, rate, epsilon, dtype
        )

        def backward(first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
            to_rows, to_beta, to_gamma = _embed_backward(
                first, second, normalized, scale, gamma, key, rate
            )
            to_words = tf.reshape(to_rows, tf.shape(words))
            to_positions = tf.reduce_sum(to_words, 0)
            return to_words, to_positions, to_words, column_sums(to_gamma), column_sums(to_beta)

        return (result, result), backward

    result: tuple[Tensor, Tensor] = differentiable(forward, words, positions, segments, gamma, beta)
    return result


@island
def _add_and_normalize(
    values: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor,
    key: Tensor | None,
    rate: float,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    dropped = drop(_wide(values) + bias, key, rate)
    normalized, scale = _normalize(_wide(residual) + dropped, epsilon)
    result = tf.cast(normalized * gamma + beta, values.dtype)
    return result, tf.cast(normalized, values.dtype), scale


@island
def _add_and_normalize_backward(
    first: Tensor,
    second: Tensor,
    normalized: Tensor,
    scale: Tensor,
    gamma: Tensor,
    key: Tensor | None,
    rate: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    gradient, normalized = _wide(first) + _wide(second), _wide(normalized)
    to_sum = _normalize_backward(gradient * gamma, normalized, scale)
    dtype = first.dtype
    return (
        tf.cast(drop(to_sum, key, rate), dtype),
        tf.cast(to_sum, dtype),
        tf.cast(gradient, dtype),
        tf.cast(gradient * normalized, dtype),
    )


@island
def _embed(
    words: Tensor,
    positions: Tensor,
    segments: Tensor,
    gamma: Tensor,
    beta: Tensor,
    key: Tensor | None,
    rate: float,
    epsilon: float,
    dtype: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    rows = tf.reshape(words + segments + positions, [-1, words.shape[-1]])
    normalized, scale = _normalize(rows, epsilon)
    result = tf.cast(drop(normalized * gamma + beta, key, rate), dtype)
    return result, tf.cast(normalized, dtype), scale


@island
def _embed_backward(
    first: Tensor,
    second: Tensor,
    normalized: Tensor,
    scale: Tensor,
    gamma: Tensor,
    key: Tensor | None,
    rate: float,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = first.dtype
    gradient, normalized = drop(_wide(first) + _wide(second), key, rate), _wide(normalized)
    to_rows = _normalize_backward(gradient * gamma, normalized, scale)
    return to_rows, tf.cast(gradient, dtype), tf.cast(gradient * normalized, dtype)


def _normalize(values: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    centred = values - tf.reduce_mean(values, -1, keepdims=True)
    scale = tf.math.rsqrt(tf.reduce_mean(centred * centred, -1, keepdims=True) + epsilon)
    return centred * scale, scale


def _normalize_backward(gradient: Tensor, normalized: Tensor, scale: Tensor) -> Tensor:
    mean = tf.reduce_mean(gradient, -1, keepdims=True)
    slope = tf.reduce_mean(gradient * normalized, -1, keepdims=True)
    return scale * (gradient - mean - normalized * slope)


def _wide(values: Tensor) -> Tensor:
    return tf.cast(values, tf.float32)
