"""LayerNorm, and the residual sum before it with its bias and dropout.

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


def add_dropped(values: Tensor, bias: Tensor, residual: Tensor, key: Tensor | None) -> Tensor:
    """Compute ``residual + dropout(values + bias)``.

    Args:
        values: ``[T, H]`` in the precision of the computation, a product without its bias.
        bias: ``float32 [H]``.
        residual: ``float32 [T, H]``.
        key: Key of the dropout mask, ``int32 [3]``, or ``None`` for no dropout.

    Returns:
        ``float32 [T, H]``: what all layers add to is rounded nowhere.
    """

    def forward(values: Tensor, bias: Tensor, residual: Tensor) -> tuple[Tensor, Gradients]:
        def backward(gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            to_values = _to_dropped(gradient, key, values.dtype)
            return to_values, column_sums(to_values), gradient

        return _add_dropped(values, bias, residual, key), backward

    return differentiable(forward, values, bias, residual)


def normalize(
    values: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, dtype: Any
) -> tuple[Tensor, Tensor]:
    """Compute LayerNorm of each row.

    Args:
        values: ``float32 [T, H]``.
        gamma: Scale, ``float32 [H]``.
        beta: Shift, ``float32 [H]``.
        epsilon: Added to the variance.
        dtype: Type of the computation's products.

    Returns:
        The result ``[T, H]`` twice: as ``dtype`` for the next product and as ``float32`` for the
        next residual sum. Their gradients come back apart, and are added while they are read.
    """

    def forward(
        values: Tensor, gamma: Tensor, beta: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Gradients]:
        rounded, result, mean, scale = _normalize(values, gamma, beta, epsilon, dtype)

        def backward(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            to_values, to_beta, to_gamma = _normalize_backward(
                first, second, values, mean, scale, gamma
            )
            return to_values, column_sums(to_gamma), column_sums(to_beta)

        return (rounded, result), backward

    result: tuple[Tensor, Tensor] = differentiable(forward, values, gamma, beta)
    return result


@island
def _add_dropped(values: Tensor, bias: Tensor, residual: Tensor, key: Tensor | None) -> Tensor:
    return residual + drop(_wide(values) + bias, key)


@island
def _to_dropped(gradient: Tensor, key: Tensor | None, dtype: Any) -> Tensor:
    return tf.cast(drop(gradient, key), dtype)


@island
def _normalize(
    values: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, dtype: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean = _row_means(values)
    scale = tf.math.rsqrt(_row_means(tf.square(values - mean)) + epsilon)
    result = (values - mean) * scale * gamma + beta
    return tf.cast(result, dtype), result, mean, scale


@island
def _normalize_backward(
    first: Tensor, second: Tensor, values: Tensor, mean: Tensor, scale: Tensor, gamma: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    gradient = _wide(first) + second
    normalized = (values - mean) * scale
    slope = gradient * gamma
    to_values = slope - _row_means(slope) - normalized * _row_means(slope * normalized)
    dtype = first.dtype  # of what is only summed
    return to_values * scale, tf.cast(gradient, dtype), tf.cast(gradient * normalized, dtype)


def _row_means(values: Tensor) -> Tensor:
    """Mean of each row, as a product: XLA then fuses what is summed into the sum's loop."""
    width = tf.shape(values)[1]
    return tf.matmul(values, tf.fill([width, 1], 1.0 / tf.cast(width, tf.float32)))


def _wide(values: Tensor) -> Tensor:
    return tf.cast(values, tf.float32)
