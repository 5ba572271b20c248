"""Rows without padding: what goes there and back, and what comes of it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.bert.packing import Packing, Unpacked
from tests.bert.conftest import compute_gradients, make_batch, make_model, make_sizes

LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=8)
MODEL = make_model(make_sizes())


def some_packing(lengths, spare, longest=6):
    """A packing with ``spare`` rows of padding, as far as there are places, and its token mask."""
    mask = np.arange(longest) < np.array(lengths)[:, None]
    count = min(int(mask.sum()) + spare, mask.size)
    return Packing(tf.constant(mask), tf.constant(count)), mask.ravel(), count


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 9))
def test_tokens_are_packed_in_order_and_come_back_to_their_places(lengths, spare):
    packing, is_token, count = some_packing(lengths, spare)
    values = np.random.default_rng(0).normal(size=(len(is_token), 3)).astype(np.float32)
    packed = packing.pack(tf.constant(values)).numpy()
    assert packed.shape == (count, 3)
    np.testing.assert_array_equal(packed[: is_token.sum()], values[is_token])
    np.testing.assert_array_equal(packing.unpack(packed).numpy()[is_token], values[is_token])


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 9))
def test_gradients_of_tokens_go_where_the_tokens_came_from(lengths, spare):
    """Where nobody looks at padding, its gradient is zero on both sides."""
    packing, is_token, count = some_packing(lengths, spare)
    share = np.random.default_rng(0).normal(size=(len(is_token), 3)) * is_token[:, None]
    values = tf.Variable(tf.ones([len(is_token), 3], tf.float64))
    rows = tf.Variable(tf.ones([count, 3], tf.float64))
    with tf.GradientTape(persistent=True) as tape:
        there_and_back = tf.reduce_sum(packing.unpack(packing.pack(values)) * share)
        back = tf.reduce_sum(packing.unpack(rows) * share)
    np.testing.assert_array_equal(tape.gradient(there_and_back, values), share)
    tokens = is_token.sum()
    to_rows = tape.gradient(back, rows).numpy()
    np.testing.assert_array_equal(to_rows[:tokens], share[is_token])
    np.testing.assert_array_equal(to_rows[tokens:], np.zeros([count - tokens, 3]))


def test_unpacked_rows_are_the_places():
    values = tf.constant([[1.0], [2.0]])
    assert Unpacked().pack(values) is values
    assert Unpacked().unpack(values) is values


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("ragged", [True, False])
def test_a_packed_batch_has_the_loss_and_gradients_of_a_padded_one(precision, ragged):
    batch = make_batch(MODEL.architecture, 6, 24, ragged=ragged, seed=2)
    rows = min(int(batch.lengths.sum()) + 3, batch.input_ids.size)
    value, expected = compute_gradients(MODEL, batch, precision=precision)
    packed_value, found = compute_gradients(
        MODEL, batch, precision=precision, packed_rows=tf.constant(rows)
    )
    assert packed_value == pytest.approx(value, rel=1e-6 if precision == "float32" else 1e-3)
    tolerance = 1e-5 if precision == "float32" else 0.05
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=tolerance, err_msg=name)
