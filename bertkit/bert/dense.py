"""Matrix products with weights, by oneDNN; biases belong to whatever comes next."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bertkit.bert.islands import Gradients, differentiable

Tensor = Any


def dense(inputs: Tensor, weight: Tensor) -> Tensor:
    """Multiply each row of ``inputs`` by a weight matrix, without a bias.

    A bias inside the product would make oneDNN slower; the island that follows adds it for free.

    Args:
        inputs: ``[T, N]``.
        weight: ``[M, N]``, of the same type.

    Returns:
        ``inputs · weightᵀ``, ``[T, M]``.
    """

    def forward(inputs: Tensor, weight: Tensor) -> tuple[Tensor, Gradients]:
        def backward(gradient: Tensor) -> tuple[Tensor, Tensor]:
            to_inputs = tf.matmul(gradient, weight)
            to_weight = tf.matmul(gradient, inputs, transpose_a=True)
            return to_inputs, to_weight

        return tf.matmul(inputs, weight, transpose_b=True), backward

    return differentiable(forward, inputs, weight)


def column_sums(values: Tensor) -> Tensor:
    """Sum over rows, as a product with a row of ones: faster than a reduction.

    Args:
        values: ``[T, N]``.

    Returns:
        ``float32 [N]``.
    """
    ones = tf.ones([1, tf.shape(values)[0]], values.dtype)
    return tf.cast(tf.matmul(ones, values)[0], tf.float32)
