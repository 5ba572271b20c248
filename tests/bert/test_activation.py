"""The activation functions against float64, and the polynomials against what bfloat16 resolves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from bertkit.bert.activation import add_bias_and_activate
from tests.bert import plain_bert

GRID = np.concatenate([np.linspace(-12, 12, 4000), [-60, 60, 1e4]]).astype(np.float32)


def both(name, dtype):
    """Values and slopes over the grid, as the operation computes them."""
    x = tf.cast(GRID[:, None], dtype)
    bias = tf.zeros([1])

    @tf.function
    def compute():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = add_bias_and_activate(x, bias, name)
        return y, tape.gradient(y, x, tf.ones_like(y))

    y, slope = compute()
    return tuple(tf.cast(z, tf.float64).numpy()[:, 0] for z in (x, y, slope))


def expected(name, x):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = plain_bert.activation(name, x)
    return y.numpy(), np.nan_to_num(tape.gradient(y, x).numpy())


@pytest.mark.parametrize("name", ["gelu", "gelu_new", "relu"])
def test_float32_is_accurate(name):
    x, y, slope = both(name, tf.float32)
    value, derivative = expected(name, x)
    # XLA's erf ends 2e-7 above -1.
    np.testing.assert_allclose(y, value, atol=6e-6, rtol=1e-6)
    inside = np.abs(x) < 50  # the plain tanh's derivative overflows beyond
    np.testing.assert_allclose(slope[inside], derivative[inside], atol=6e-6)


@pytest.mark.parametrize("name", ["gelu", "gelu_new", "relu"])
def test_bfloat16_is_within_its_own_resolution(name):
    x, y, slope = both(name, tf.bfloat16)
    value, derivative = expected(name, x)
    np.testing.assert_allclose(y, value, atol=5e-4, rtol=2**-8)
    inside = np.abs(x) < 50
    np.testing.assert_allclose(slope[inside], derivative[inside], atol=1.5e-3, rtol=2**-8)


def test_bfloat16_gelu_ends_at_zero_and_at_the_identity():
    x, y, slope = both("gelu", tf.bfloat16)
    far = np.abs(x) > 5
    assert np.all(np.abs(y - np.maximum(x, 0))[far] <= np.abs(x[far]) * 2.0**-8)
    assert np.all(np.abs(y[x < -5]) <= 3e-6 * np.abs(x[x < -5]))
    np.testing.assert_allclose(slope[far], x[far] > 0, rtol=2**-8, atol=5e-5)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_the_bias_is_added_and_its_gradient_is_a_column_sum(dtype):
    generator = np.random.default_rng(0)
    x = tf.constant(generator.normal(size=(40, 6)), dtype)
    bias = tf.constant(generator.normal(size=6), tf.float32)
    seed = tf.constant(generator.normal(size=(40, 6)), dtype)

    @tf.function
    def compute():
        with tf.GradientTape() as tape:
            tape.watch([x, bias])
            y = add_bias_and_activate(x, bias, "gelu")
        return y, *tape.gradient(y, [x, bias], seed)

    y, to_x, to_bias = compute()
    z = tf.cast(x, tf.float64).numpy() + bias.numpy()
    value = 0.5 * z * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    tolerance = 1e-5 if dtype == tf.float32 else 0.02
    np.testing.assert_allclose(tf.cast(y, tf.float64), value, atol=tolerance)
    assert to_bias.dtype == tf.float32
    total = tf.cast(to_x, tf.float64).numpy().sum(0)
    np.testing.assert_allclose(to_bias, total, atol=3 * tolerance)
