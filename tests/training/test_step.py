"""One step of one rank; that ranks and micro-batches add up is in the oracles' tests."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from bertkit.bert.architecture import Architecture
from bertkit.bert.question_answering import QuestionAnswering
from bertkit.squad.batches import BatchArrays
from bertkit.training.optimizers import Hyperparameters, Optimizer
from bertkit.training.step import (
    ROWS_MULTIPLE,
    WORD_EMBEDDINGS,
    StepInput,
    TrainingStep,
    touched_rows,
)
from bertkit.training.world import SingleWorld

VOCABULARY = 2000  # more than ROWS_MULTIPLE, so that some rows are never sent
SIZES = Architecture(
    vocab_size=VOCABULARY, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=16, max_position_embeddings=16,
)  # fmt: skip


class StoppingWorld(SingleWorld):
    """This rank and one more, which has nothing to add but its wish to stop."""

    def sum_tensors(self, tensors, *, compression="none", name="sum_tensors"):
        *gradients, totals = super().sum_tensors(tensors, compression=compression, name=name)
        return [*gradients, totals + tf.one_hot(1, totals.shape[0])]


class WithASilentRank(SingleWorld):
    """This rank and one whose gradients are zero, so that a sum over both is this rank's."""

    size = 2


def a_step(*, dropout=0.0, seed=3, world=None, kind="adamw", precision="float32"):
    model = QuestionAnswering(SIZES, seed=1)
    optimizer = Optimizer(kind, model.variables, model.variable_names, Hyperparameters())
    step = TrainingStep(
        model, optimizer, world or SingleWorld(), precision=precision, dropout=dropout, seed=seed
    )
    return model, step


def a_batch(examples=4, length=12, seed=0, micro_batches=1):
    random = np.random.default_rng(seed)
    ids = random.integers(1, VOCABULARY, (examples, length)).astype(np.int32)
    arrays = BatchArrays(
        input_ids=ids,
        segment_ids=(np.arange(length) > 3).astype(np.int32) * np.ones_like(ids),
        lengths=np.full(examples, length, np.int32),
        start_positions=random.integers(4, 8, examples).astype(np.int32),
        end_positions=random.integers(8, length, examples).astype(np.int32),
        weights=np.full(examples, 1 / (examples * micro_batches), np.float32),
    )
    return StepInput([arrays] * micro_batches, touched_rows([ids]), examples, 0.0)


@pytest.fixture(scope="module")
def plain():
    """A step without dropout; tests that only look at gradients share it."""
    return a_step()


@given(
    st.lists(
        st.lists(st.integers(0, 30_521), max_size=50).map(lambda ids: np.array(ids, np.int32)),
        min_size=1,
        max_size=5,
    ).filter(lambda arrays: sum(map(len, arrays)))
)
def test_touched_rows_are_every_token_once(arrays):
    rows = touched_rows(arrays)
    assert rows.dtype == np.int32
    assert len(rows) % ROWS_MULTIPLE == 0
    assert np.all(np.diff(rows) >= 0)
    assert set(rows.tolist()) == set(np.concatenate(arrays).tolist())


def test_gradients_are_those_of_a_plain_tape(plain):
    """All of them dense, and the word embeddings' spread from rows to the whole table."""
    model, step = plain
    batch = a_batch()
    value, gradients = step.gradients(batch, step=1)
    arrays = batch.micro_batches[0]
    with tf.GradientTape() as tape:
        logits = model.logits(
            arrays.input_ids, arrays.segment_ids, arrays.lengths, precision="float32"
        )
        terms = [
            tf.keras.losses.sparse_categorical_crossentropy(y, logits[..., k], from_logits=True)
            for k, y in enumerate((arrays.start_positions, arrays.end_positions))
        ]
        expected = tf.reduce_mean(tf.stack(terms))
    plain_gradients = tape.gradient(expected, model.variables)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    for name, found, other in zip(model.variable_names, gradients, plain_gradients, strict=True):
        other = tf.convert_to_tensor(other).numpy()
        if name == WORD_EMBEDDINGS:
            table = np.zeros_like(other)
            np.add.at(table, batch.rows, found.numpy())
            found = table
        np.testing.assert_allclose(found, other, rtol=1e-3, atol=1e-6, err_msg=name)


def test_only_touched_rows_have_a_gradient_and_each_row_its_own(plain):
    _, step = plain
    batch = a_batch()
    ids = batch.micro_batches[0].input_ids
    _, gradients = step.gradients(batch, step=1)
    rows = gradients[0].numpy()
    distinct = len(np.unique(ids))
    assert rows.shape == (ROWS_MULTIPLE, SIZES.hidden_size)
    assert np.all(np.any(rows[:distinct], axis=1))
    assert not np.any(rows[distinct:])  # the repeated last row counts once


def test_an_update_moves_rows_that_this_step_does_not_touch():
    """Adam's mean goes on: a token of the first step still moves at the second."""
    model, step = a_step()
    first, second = a_batch(seed=0), a_batch(seed=1)
    step(first, step=1, learning_rate=0.01, stop=lambda: False)
    before = model.variables[0].numpy()
    step(second, step=2, learning_rate=0.01, stop=lambda: False)
    moved = np.any(np.abs(model.variables[0].numpy() - before) > 1e-4, axis=1)
    only_first = np.setdiff1d(first.micro_batches[0].input_ids, second.micro_batches[0].input_ids)
    assert moved[only_first].all()


def test_the_loss_goes_down():
    model, step = a_step()
    losses = [
        step(a_batch(), step=n, learning_rate=0.01, stop=lambda: False).loss for n in range(1, 21)
    ]
    assert losses[-1] < 0.5 * losses[0]
    assert all(variable.dtype == tf.float32 for variable in model.variables)


def test_dropout_masks_follow_from_seed_step_and_micro_batch():
    batch = a_batch()
    _, step = a_step(dropout=0.3)
    _, same = a_step(dropout=0.3)
    _, other = a_step(dropout=0.3, seed=4)

    def loss(which, number, micro_batches=1):
        return float(which.gradients(a_batch(micro_batches=micro_batches), step=number)[0])

    assert loss(step, 1) == loss(same, 1)
    assert loss(step, 1) == float(step.gradients(batch, step=1)[0])
    # If both passes had the same masks, the mean of the two would be the one's.
    assert len({loss(step, 1), loss(step, 2), loss(other, 1), loss(step, 1, 2)}) == 4


def test_ranks_have_masks_of_their_own():
    world = SingleWorld()
    _, step = a_step(dropout=0.3, world=world)
    first = float(step.gradients(a_batch(), step=1)[0])
    world.rank = 1
    assert float(step.gradients(a_batch(), step=1)[0]) != first


def test_everybody_stops_if_anybody_wants_to():
    for world, expected in ((SingleWorld(), [False, True]), (StoppingWorld(), [True, True])):
        _, step = a_step(world=world)
        found = [
            step(a_batch(), step=number, learning_rate=0.01, stop=lambda wish=wish: wish).stop
            for number, wish in enumerate((False, True), 1)
        ]
        assert found == expected


def test_a_step_needs_something_to_pass_through(plain):
    _, step = plain
    with pytest.raises(ValueError, match="at least one micro-batch"):
        step.gradients(StepInput([], touched_rows([np.zeros(1, np.int32)]), 0, 0.0), step=1)


def test_bfloat16_keeps_float32_weights_and_gradients_near_those_of_float32(plain):
    _, exact = plain
    model, rounded = a_step(precision="bfloat16")
    found, expected = (s.gradients(a_batch(), step=1)[1] for s in (rounded, exact))
    a, b = (
        np.concatenate([g.numpy().ravel() for g in gradients]) for gradients in (found, expected)
    )
    assert {g.dtype for g in found} == {tf.float32, tf.bfloat16}
    in_two = a_batch(micro_batches=2)
    assert all(g.dtype == tf.float32 for g in rounded.gradients(in_two, step=1)[1])
    assert all(variable.dtype == tf.float32 for variable in model.variables)
    assert 0 < np.linalg.norm(a - b) / np.linalg.norm(b) < 0.05


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("passes", [1, 2, 3])
def test_gradients_that_go_round_in_backward_are_those_that_wait_for_its_end(passes, precision):
    """The last pass sends its gradients, with those of the passes before it, in groups."""
    batch = a_batch(micro_batches=passes)
    (alone, one), (together, both) = (
        a_step(precision=precision, world=world) for world in (SingleWorld(), WithASilentRank())
    )
    found, expected = (
        step(batch, step=1, learning_rate=0.01, stop=lambda: False) for step in (both, one)
    )
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-6)
    assert found.rank_seconds[0] > 0
    assert found.rank_seconds[1] == 0
    for name, a, b in zip(alone.variable_names, together.variables, alone.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6, err_msg=name)
