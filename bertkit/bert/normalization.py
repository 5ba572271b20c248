"""LayerNorm, and the residual sum before it with its bias and dropout.

LayerNorm (Ba et al., arXiv 1607.06450): ``n = (z - mean) / sqrt(variance + ε)``, ``y = g n + b``.
Its gradient with ``d = g dy`` is ``dz = (d - mean(d) - n mean(d n)) / sqrt(variance + ε)``.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bertkit.bert.dense import column_sums
from bertkit.bert.dropout import drop, drop_rows
from bertkit.bert.islands import Gradients, differentiable, island

Tensor = Any


def add_dropped(values: Tensor, bias: Tensor, residual: Tensor, key: Tensor | None) -> Tensor:
    """Compute ``residual + dropout(values + bias)``.

    Args:
        values: ``[T, H]`` in the precision of the computation, a product without its bias.
        bias: ``float32 [H]``.
        residual: ``[T, H]`` of the type of ``values``.
        key: Key of the dropout mask, ``int32 [3]``, or ``None`` for no dropout.

    Returns:
        ``[T, H]`` of the type of ``values``.
    """

    def forward(values: Tensor, bias: Tensor, residual: Tensor) -> tuple[Tensor, Gradients]:
        def backward(gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            to_values = gradient if key is None else drop_rows(gradient, key)
            return to_values, column_sums(to_values), gradient

        return _add_dropped(values, bias, residual, key), backward

    return differentiable(forward, values, bias, residual)


def normalize(values: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Compute LayerNorm of each row.

    Args:
        values: ``[T, H]`` in the precision of the computation.
        gamma: Scale, ``float32 [H]``.
        beta: Shift, ``float32 [H]``.
        epsilon: Added to the variance.

    Returns:
        The result ``[T, H]`` twice: once for the next product and once for the next residual sum.
        Their gradients then come back apart, and are added while they are read anyway.
    """

    def forward(
        values: Tensor, gamma: Tensor, beta: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Gradients]:
        result, mean, scale = _normalize(values, gamma, beta, epsilon)

        def backward(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            to_values, to_beta, to_gamma = _normalize_backward(
                first, second, values, mean, scale, gamma
            )
            return to_values, column_sums(to_gamma), column_sums(to_beta)

        return (result, result), backward

    result: tuple[Tensor, Tensor] = differentiable(forward, values, gamma, beta)
    return result


@island
def _add_dropped(values: Tensor, bias: Tensor, residual: Tensor, key: Tensor | None) -> Tensor:
    total = _wide(residual) + drop(_wide(values) + bias, key)
    return tf.cast(total, values.dtype)


@island
def _normalize(
    values: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    wide = _wide(values)
    mean = _row_means(wide)
    scale = tf.math.rsqrt(_row_means(tf.square(wide - mean)) + epsilon)
    result = (wide - mean) * scale * gamma + beta
    return tf.cast(result, values.dtype), mean, scale


@island
def _normalize_backward(
    first: Tensor, second: Tensor, values: Tensor, mean: Tensor, scale: Tensor, gamma: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    gradient = _wide(first) + _wide(second)
    normalized = (_wide(values) - mean) * scale
    slope = gradient * gamma
    to_values = slope - _row_means(slope) - normalized * _row_means(slope * normalized)
    dtype = values.dtype
    return (
        tf.cast(to_values * scale, dtype),
        tf.cast(gradient, dtype),
        tf.cast(gradient * normalized, dtype),
    )


def _row_means(values: Tensor) -> Tensor:
    """Mean of each row, as a product: XLA then fuses what is summed into the sum's loop."""
    width = tf.shape(values)[1]
    return tf.matmul(values, tf.fill([width, 1], 1.0 / tf.cast(width, tf.float32)))


def _wide(values: Tensor) -> Tensor:
    return tf.cast(values, tf.float32)
