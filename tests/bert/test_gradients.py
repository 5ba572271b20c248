"""Forward and backward passes against a plain float64 BERT that TensorFlow differentiates."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bertkit.bert import question_answering
from bertkit.bert.dropout import drop_rows, dropout_keys
from bertkit.bert.encoder import MASKS_PER_LAYER
from tests.bert import plain_bert
from tests.bert.conftest import (
    compute_gradients,
    compute_logits,
    make_batch,
    make_model,
    make_sizes,
)  # fmt: skip

SEED = tf.constant([7, -3], tf.int32)
# Whatever is added to every token's key, to every logit or to the last hidden states changes no
# probability, so these gradients are zero and what is computed is rounding.
ZERO = ("self.key.bias", "qa_outputs.bias")


def plain_weights(model):
    return {
        name: tf.Variable(tf.cast(variable, tf.float64))
        for name, variable in zip(model.variable_names, model.variables, strict=True)
    }


def plain_gradients(model, batch, masks=None):
    weights = plain_weights(model)
    with tf.GradientTape() as tape:
        scores = plain_bert.logits(
            weights, model.architecture, batch.input_ids, batch.segment_ids, batch.lengths, masks
        )
        value = plain_bert.loss(scores, batch.starts, batch.ends, batch.weights)
    gradients = tape.gradient(value, list(weights.values()))
    arrays = [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]
    return float(value), dict(zip(weights, arrays, strict=True))


def masks_of(sizes, batch, rate, packed_rows=None):
    """The masks that the encoder's keys stand for, in the order in which it uses them."""
    keys = dropout_keys(SEED, rate, 1 + MASKS_PER_LAYER * sizes.num_hidden_layers)
    examples, length = batch.input_ids.shape
    places = examples * length
    probabilities = [examples * sizes.num_attention_heads * length, length]

    def hidden(key):
        mask = drop_rows(tf.ones([packed_rows or places, sizes.hidden_size]), key).numpy()
        if packed_rows:  # the nth row is the nth token's
            rows, mask = mask, np.ones([places, sizes.hidden_size], np.float32)
            tokens = np.flatnonzero(np.arange(length) < batch.lengths[:, None])
            mask[tokens] = rows[: len(tokens)]
        return tf.constant(mask)

    masks = [hidden(keys.pop())]
    for _ in range(sizes.num_hidden_layers):
        masks += [drop_rows(tf.ones(probabilities), keys.pop())]
        masks += [hidden(keys.pop()) for _ in range(2)]
    return masks


def relative_errors(found, expected):
    """Error of each gradient, relative to its norm."""
    whole = np.sqrt(sum(np.sum(np.square(array)) for array in expected.values()))
    errors = {}
    for name, array in expected.items():
        norm = np.linalg.norm(array)
        if norm < 1e-9 * whole:
            assert name.endswith((*ZERO, "output.LayerNorm.bias")), name
            norm = whole
        errors[name] = np.linalg.norm(found[name] - array) / norm
    return errors


CASES = [
    (1, 16, 1, "gelu"), (2, 32, 2, "gelu"), (3, 48, 4, "gelu_new"), (2, 32, 1, "relu"),
    (5, 32, 2, "gelu"),
]  # fmt: skip


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("layers", "hidden", "heads", "act"), CASES)
def test_logits_of_any_size_are_the_plain_models(layers, hidden, heads, act, ragged):
    sizes = make_sizes(layers, hidden, heads, act)
    model, batch = make_model(sizes, layers), make_batch(sizes, ragged=ragged, seed=layers)
    expected = plain_bert.logits(
        plain_weights(model), sizes, batch.input_ids, batch.segment_ids, batch.lengths
    )
    np.testing.assert_allclose(compute_logits(model, batch), expected, atol=2e-5)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(("layers", "hidden", "heads", "act"), CASES)
def test_gradients_of_any_size_are_the_plain_models_also_with_dropout(
    layers, hidden, heads, act, rate
):
    sizes = make_sizes(layers, hidden, heads, act)
    model, batch = make_model(sizes, layers), make_batch(sizes, seed=layers)
    masks = masks_of(sizes, batch, rate) if rate else None
    expected_loss, expected = plain_gradients(model, batch, masks)
    value, found = compute_gradients(model, batch, dropout=rate, seed=SEED)
    assert value == pytest.approx(expected_loss, rel=1e-5)
    errors = relative_errors(found, expected)
    assert max(errors.values()) < 1e-4, max(errors.items(), key=lambda item: item[1])


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("spare", [1, 7, None])
def test_packed_gradients_are_the_plain_models_also_with_dropout(sizes, spare, rate):
    """With one row of padding, with a few, and with a row for every place."""
    model, batch = make_model(sizes, 4), make_batch(sizes, 5, 20, seed=4)
    rows = batch.input_ids.size if spare is None else int(batch.lengths.sum()) + spare
    masks = masks_of(sizes, batch, rate, rows) if rate else None
    expected_loss, expected = plain_gradients(model, batch, masks)
    value, found = compute_gradients(
        model, batch, dropout=rate, seed=SEED, packed_rows=tf.constant(rows)
    )
    assert value == pytest.approx(expected_loss, rel=1e-5)
    errors = relative_errors(found, expected)
    assert max(errors.values()) < 1e-4, max(errors.items(), key=lambda item: item[1])


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_bfloat16_gradients_point_where_the_plain_models_do(rate):
    sizes = make_sizes(2, 64, 2)
    model, batch = make_model(sizes), make_batch(sizes, 8, 24)
    masks = masks_of(sizes, batch, rate) if rate else None
    expected_loss, expected = plain_gradients(model, batch, masks)
    value, found = compute_gradients(model, batch, precision="bfloat16", dropout=rate, seed=SEED)
    assert value == pytest.approx(expected_loss, rel=0.02)
    found_all = np.concatenate([found[name].ravel() for name in expected])
    expected_all = np.concatenate([array.ravel() for array in expected.values()])
    error = np.linalg.norm(found_all - expected_all) / np.linalg.norm(expected_all)
    assert error < 0.03


def test_gradients_with_dropout_repeat_with_the_seed_and_differ_without(model, sizes):
    batch = make_batch(sizes)
    value, first = compute_gradients(model, batch, dropout=0.2, seed=SEED)
    again_value, again = compute_gradients(model, batch, dropout=0.2, seed=SEED)
    other_value, _ = compute_gradients(model, batch, dropout=0.2, seed=SEED + 1)
    assert value == again_value != other_value
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])


def test_mean_loss_over_seeds_approaches_the_loss_without_dropout():
    """A wrong scale of what is kept would move the logits' mean."""
    sizes = make_sizes(1, 16, 1)
    model, batch = make_model(sizes), make_batch(sizes, ragged=False)
    arrays = (batch.input_ids, batch.segment_ids, batch.lengths)
    plain = compute_logits(model, batch)

    @tf.function
    def dropped(seed):
        return model.logits(*arrays, precision="float32", dropout=0.02, seed=seed)

    scores = np.stack([dropped(tf.constant([n, 5])).numpy() for n in range(400)])
    spread = scores.std(0) / np.sqrt(len(scores)) + 0.01  # LayerNorm is not linear
    assert np.all(np.abs(scores.mean(0) - plain) < 5 * spread)


def test_loss_is_the_weighted_mean_of_both_cross_entropies():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(4, 9, 2)).astype(np.float32)
    starts, ends = np.array([0, 3, 8, 2], np.int32), np.array([0, 5, 8, 2], np.int32)
    weights = np.array([0.5, 0.25, 0, 1], np.float32)
    logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    rows = np.arange(4)
    expected = -(weights * (logs[rows, starts, 0] + logs[rows, ends, 1])).sum() / 2
    found = question_answering.loss(scores, starts, ends, weights)
    assert float(found) == pytest.approx(expected, rel=1e-6)
