"""What must hold for logits whatever the weights are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.bert.question_answering import QuestionAnswering
from bertkit.bert.weights import shapes
from tests.bert.conftest import (
    compute_gradients,
    compute_logits,
    make_batch,
    make_model,
    make_sizes,
)  # fmt: skip

SIZES = make_sizes()
MODEL = make_model(SIZES)


def padded(batch, length):
    """The same examples with more padding, which holds other tokens."""
    more = ((0, 0), (0, length - batch.input_ids.shape[1]))
    return dataclasses.replace(
        batch,
        input_ids=np.pad(batch.input_ids, more, constant_values=9),
        segment_ids=np.pad(batch.segment_ids, more, constant_values=1),
    )


@settings(max_examples=10, deadline=None)  # each new shape is compiled
@given(
    st.integers(0, 10**6),
    st.sampled_from([1, 4]),
    st.sampled_from([2, 15]),
    st.sampled_from([1, 9]),
)
def test_logits_do_not_depend_on_padding(seed, examples, length, more):
    batch = make_batch(SIZES, examples, length, seed=seed)
    wide = padded(batch, min(24, length + more))
    found, expected = compute_logits(MODEL, wide), compute_logits(MODEL, batch)
    np.testing.assert_allclose(found[:, :length], expected, atol=1e-5)
    assert np.all(found[:, length:] == -1e9)


def test_gradients_do_not_depend_on_padding():
    batch = make_batch(SIZES, 4, 15)
    value, expected = compute_gradients(MODEL, batch)
    padded_value, found = compute_gradients(MODEL, padded(batch, 24))
    assert padded_value == pytest.approx(value, rel=1e-6)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_examples_do_not_see_each_other(precision):
    batch = make_batch(SIZES, 4, 15)
    together = compute_logits(MODEL, batch, precision)
    for row in range(4):
        alone = dataclasses.replace(
            batch, input_ids=batch.input_ids[[row]], segment_ids=batch.segment_ids[[row]],
            lengths=batch.lengths[[row]],
        )  # fmt: skip
        tolerance = 1e-5 if precision == "float32" else 0.03
        np.testing.assert_allclose(
            compute_logits(MODEL, alone, precision)[0], together[row], atol=tolerance
        )


def test_an_example_without_tokens_and_weight_changes_nothing():
    """Ranks fill their last batch with such examples."""
    batch = make_batch(SIZES, 3, 12)
    value, expected = compute_gradients(MODEL, batch)
    row = np.zeros((1, 12), np.int32)
    filled = dataclasses.replace(
        batch, input_ids=np.vstack([batch.input_ids, row]),
        segment_ids=np.vstack([batch.segment_ids, row]), lengths=np.append(batch.lengths, 0),
        starts=np.append(batch.starts, 0).astype(np.int32),
        ends=np.append(batch.ends, 0).astype(np.int32),
        weights=np.append(batch.weights, 0).astype(np.float32),
    )  # fmt: skip
    for precision, tolerance in (("float32", 1e-5), ("bfloat16", 0.05)):
        filled_value, found = compute_gradients(MODEL, filled, precision=precision)
        assert filled_value == pytest.approx(value, rel=0.02)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, atol=tolerance, err_msg=name)


def test_one_trace_serves_all_shapes():
    spec = tf.TensorSpec([None, None], tf.int32)
    traces = []

    @tf.function(input_signature=[spec, spec, tf.TensorSpec([None], tf.int32)])
    def logits(*arrays):
        traces.append(1)
        return MODEL.logits(*arrays, precision="float32")

    for examples, length in ((1, 5), (3, 12), (2, 24)):
        batch = make_batch(SIZES, examples, length)
        found = logits(batch.input_ids, batch.segment_ids, batch.lengths).numpy()
        np.testing.assert_allclose(found, compute_logits(MODEL, batch), atol=1e-5)
    assert len(traces) == 1


def test_word_embeddings_have_a_sparse_gradient_and_small_tables_a_dense_one():
    batch = make_batch(SIZES)

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            scores = MODEL.logits(
                batch.input_ids, batch.segment_ids, batch.lengths, precision="float32"
            )
            value = tf.reduce_sum(tf.nn.softmax(scores, 1)[..., 0] ** 2)
        return tape.gradient(value, MODEL.variables[:3])

    words, positions, segments = gradients()
    assert isinstance(words, tf.IndexedSlices)
    assert words.values.shape[-1] == SIZES.hidden_size
    assert positions.shape == MODEL.variables[1].shape
    assert segments.shape == MODEL.variables[2].shape


def test_dropout_without_a_seed_is_refused():
    batch = make_batch(SIZES)
    with pytest.raises(ValueError, match="seed"):
        MODEL.logits(
            batch.input_ids, batch.segment_ids, batch.lengths, precision="float32", dropout=0.1
        )


def test_variables_are_named_and_shaped_as_in_hugging_face():
    assert MODEL.variable_names == list(shapes(SIZES))
    assert [tuple(v.shape) for v in MODEL.variables] == list(shapes(SIZES).values())
    assert all(v.dtype == tf.float32 for v in MODEL.variables)
    assert MODEL.variable_names[5] == "bert.encoder.layer.0.attention.self.query.weight"
    assert MODEL.variable_names[-2:] == ["qa_outputs.weight", "qa_outputs.bias"]


def test_drawn_weights_follow_from_the_seed_and_given_ones_are_kept():
    first, again, other = (QuestionAnswering(SIZES, seed=seed) for seed in (3, 3, 4))
    for a, b, c in zip(first.variables, again.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.shape.rank == 1 or np.any(a.numpy() != c.numpy())
    words = first.variables[0].numpy()
    assert abs(words.std() - SIZES.initializer_range) < 0.01
    given_words = np.full_like(words, 0.5)
    kept = QuestionAnswering(
        SIZES, seed=3, tensors={"bert.embeddings.word_embeddings.weight": given_words}
    )
    np.testing.assert_array_equal(kept.variables[0], given_words)
    np.testing.assert_array_equal(kept.variables[5], first.variables[5])
