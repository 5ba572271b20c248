"""Models so small that a test takes no time, and batches of unlike lengths for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf

from bertkit.bert.architecture import Architecture
from bertkit.bert.question_answering import QuestionAnswering, loss


@dataclass(frozen=True)
class Batch:
    input_ids: np.ndarray
    segment_ids: np.ndarray
    lengths: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    weights: np.ndarray


def make_sizes(layers=2, hidden=32, heads=2, act="gelu") -> Architecture:
    return Architecture(
        vocab_size=50, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=3 * hidden, max_position_embeddings=24, hidden_act=act,
        initializer_range=0.15,
    )  # fmt: skip


def make_model(sizes: Architecture, seed=0) -> QuestionAnswering:
    """A model whose LayerNorms and biases are drawn too, so that no error hides behind a zero."""
    model = QuestionAnswering(sizes, seed=seed)
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.shape.rank == 1:
            variable.assign_add(generator.normal(0, 0.2, variable.shape))
    return model


def make_batch(sizes: Architecture, batch=3, length=12, *, ragged=True, seed=0) -> Batch:
    generator = np.random.default_rng(seed)
    lengths = np.full(batch, length)
    if ragged:
        lengths[1:] = generator.integers(2, length + 1, batch - 1)
    present = np.arange(length) < lengths[:, None]
    ids = generator.integers(1, sizes.vocab_size, (batch, length)) * present
    segments = (np.arange(length) >= lengths[:, None] // 2) * present
    starts = generator.integers(0, lengths)
    return Batch(
        *(array.astype(np.int32) for array in (ids, segments, lengths, starts)),
        generator.integers(starts, lengths).astype(np.int32),
        generator.uniform(0.5, 1, batch).astype(np.float32),
    )


def compute_logits(model, batch, precision="float32"):
    function = tf.function(lambda *arrays: model.logits(*arrays, precision=precision))
    return function(batch.input_ids, batch.segment_ids, batch.lengths).numpy()


def compute_gradients(
    model, batch, *, precision="float32", dropout=0.0, seed=None, packed_rows=None
):
    """Loss, and every variable's gradient as a NumPy array by name."""

    @tf.function
    def compute():
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(model.variables)
            scores = model.logits(
                batch.input_ids, batch.segment_ids, batch.lengths,
                precision=precision, dropout=dropout, seed=seed, packed_rows=packed_rows,
            )  # fmt: skip
            value = loss(scores, batch.starts, batch.ends, batch.weights)
        return value, [*map(tf.convert_to_tensor, tape.gradient(value, model.variables))]

    value, gradients = compute()
    arrays = [gradient.numpy() for gradient in gradients]
    return float(value), dict(zip(model.variable_names, arrays, strict=True))


@pytest.fixture(scope="session")
def sizes() -> Architecture:
    return make_sizes()


@pytest.fixture
def model(sizes) -> QuestionAnswering:
    return make_model(sizes)
