"""Masks: their rate, their independence, and that they repeat."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bertkit.bert.dropout import drop_rows, dropout, dropout_keys

SHAPE = (512, 384)
COUNT = SHAPE[0] * SHAPE[1]


def kept(key, shape=SHAPE):
    return drop_rows(tf.ones(shape), key).numpy() > 0


def seed(first, second=0):
    return tf.constant([first, second], tf.int32)


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.37, 0.5, 0.9])
def test_the_rate_is_exact_and_the_mean_is_kept(rate):
    values = drop_rows(tf.ones((2048, 1024)), dropout_keys(seed(1), rate, 1)[0]).numpy()
    share = np.mean(values > 0)
    assert abs(share - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / values.size)
    np.testing.assert_allclose(values[values > 0], 1 / (1 - rate), rtol=1e-6)


def test_a_rate_of_zero_keeps_everything_as_it_is():
    values = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    np.testing.assert_array_equal(drop_rows(values, dropout_keys(seed(1), 0.0, 1)[0]), values)


def test_a_key_repeats_and_each_key_differs():
    keys = dropout_keys(seed(5, 6), 0.5, 20)
    masks = [kept(key) for key in keys]
    np.testing.assert_array_equal(kept(dropout_keys(seed(5, 6), 0.5, 20)[3]), masks[3])
    assert np.any(kept(dropout_keys(seed(5, 7), 0.5, 20)[3]) != masks[3])


def correlation(a, b):
    """Correlation in units of its own standard error."""
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    return np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)) * np.sqrt(a.size)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_masks_of_layers_and_steps_are_uncorrelated(rate):
    keys = [key for step in range(12) for key in dropout_keys(seed(step, 3), rate, 4)]
    masks = [kept(key).astype(float) for key in keys]
    found = [correlation(a, b) for i, a in enumerate(masks) for b in masks[:i]]
    assert np.max(np.abs(found)) < 5
    assert 0.9 < np.std(found) < 1.1


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_neighbours_of_one_mask_are_uncorrelated(rate):
    found = []
    for key in dropout_keys(seed(9), rate, 8):
        mask = kept(key).astype(float)
        for down, right in ((0, 1), (0, 2), (0, 16), (0, 64), (0, 128), (1, 0), (2, 0), (64, 0)):
            a = mask[down:, right:]
            b = mask[: SHAPE[0] - down, : SHAPE[1] - right]
            found.append(correlation(a, b))
    assert np.max(np.abs(found)) < 4.5
    assert 0.75 < np.std(found) < 1.3


def test_kept_counts_scatter_as_of_a_fair_coin():
    """Rows, columns and blocks of bits: neither too even nor too uneven."""
    chi = {"rows": [], "columns": []}
    for key in dropout_keys(seed(4), 0.3, 20):
        mask = kept(key).astype(float)
        for name, axis in (("rows", 1), ("columns", 0)):
            n = mask.shape[axis]
            chi[name].extend((mask.sum(axis) - 0.7 * n) ** 2 / (n * 0.21))
    for values in chi.values():
        assert abs(np.mean(values) - 1) < 6 * np.sqrt(2 / len(values))


def test_every_place_is_dropped_at_the_rate_over_many_keys():
    masks = np.stack([kept(key, (16, 24)) for key in dropout_keys(seed(8), 0.2, 3000)])
    error = np.sqrt(0.8 * 0.2 / len(masks))
    assert np.max(np.abs(masks.mean(0) - 0.8)) < 4.5 * error


@pytest.mark.parametrize("second", [(1000, 12), (1003, 12), (1004, 11 + 2**31)])
def test_keys_near_each_other_give_masks_without_likeness(second):
    """Neither the same mask, nor one that was moved down or along."""
    first = kept(tf.constant([1000, 11, 0x7FFFFFFF], tf.int32)).astype(float)
    other = tf.constant(np.array([*second, 0x7FFFFFFF], np.uint32).view(np.int32))
    other = kept(other).astype(float)
    for down, right in ((0, 0), (0, 1), (1, 0), (0, 3), (3, 0), (4, 0), (4, 4)):
        moved = other[: SHAPE[0] - down, : SHAPE[1] - right]
        assert abs(correlation(first[down:, right:], moved)) < 4.5, (down, right)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_the_gradient_has_the_mask_of_the_values(dtype):
    values = tf.cast(tf.random.stateless_normal([64, 48], [1, 2]), dtype)
    key = dropout_keys(seed(2), 0.4, 1)[0]

    @tf.function
    def both():
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = dropout(values, key)
        return result, tape.gradient(result, values, tf.ones_like(values))

    result, gradient = both()
    np.testing.assert_array_equal(result.numpy() != 0, gradient.numpy() != 0)
    assert gradient.dtype == dtype
    np.testing.assert_allclose(np.unique(tf.cast(gradient, tf.float32)), [0, 1 / 0.6], rtol=1e-2)
