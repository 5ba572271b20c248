"""What holds for any update, whatever the numbers; the numbers are in the oracles' tests."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.bert.architecture import Architecture
from bertkit.bert.weights import shapes
from bertkit.config import Config
from bertkit.training.optimizers import (
    Hyperparameters,
    Optimizer,
    clip_scale,
    is_excluded,
    lamb_direction,
)

SHAPES = [(5, 3), (3,), (4, 4)]
NAMES = ["dense.weight", "dense.bias", "other.weight"]


def an_optimizer(kind="lamb", seed=0, **numbers):
    random = np.random.default_rng(seed)
    variables = [tf.Variable(random.standard_normal(s).astype(np.float32)) for s in SHAPES]
    return Optimizer(kind, variables, NAMES, Hyperparameters(**numbers))


def some_gradients(seed=1):
    random = np.random.default_rng(seed)
    return [random.standard_normal(s).astype(np.float32) for s in SHAPES]


def values(optimizer):
    state = [*optimizer.variables, *optimizer.first_moments, *optimizer.second_moments]
    return [variable.numpy() for variable in state]


def test_what_is_left_out_of_decay_and_trust_ratio():
    """Every weight of a BERT is either a matrix, or a bias or a part of LayerNorm."""
    for name, shape in shapes(Architecture()).items():
        assert is_excluded(name) == (len(shape) == 1), name


@pytest.mark.parametrize("kind", ["lamb", "adamw"])
def test_the_same_gradients_make_the_same_bits(kind):
    states = []
    for _ in range(2):
        optimizer = an_optimizer(kind)
        for step in range(1, 6):
            optimizer.update(some_gradients(step), learning_rate=0.01, step=step)
        states.append(values(optimizer))
    for a, b in zip(*states, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("kind", ["lamb", "adamw"])
def test_no_rate_no_move_but_the_moments_go_on(kind):
    optimizer = an_optimizer(kind)
    before = values(optimizer)
    optimizer.update(some_gradients(), learning_rate=0.0, step=1)
    after = values(optimizer)
    for a, b in zip(before[:3], after[:3], strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(np.any(moment) for moment in after[3:])


def test_lamb_moves_each_matrix_by_its_own_norm():
    """However large the gradients of a tensor, its step is the rate times its norm."""
    optimizer = an_optimizer("lamb", clip_norm=0.0, trust_clip=0.0)
    before = [variable.numpy() for variable in optimizer.variables]
    gradients = some_gradients()
    gradients[2] *= 1000
    optimizer.update(gradients, learning_rate=0.01, step=1)
    for index in (0, 2):
        moved = np.linalg.norm(optimizer.variables[index].numpy() - before[index])
        assert moved == pytest.approx(0.01 * np.linalg.norm(before[index]), rel=1e-4)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.floats(0, 0.5),
    st.sampled_from([0.0, 0.5, 10.0]),
)  # fmt: skip
def test_lamb_direction_has_the_length_of_phi(seed, size, decay, trust_clip):
    random = np.random.default_rng(seed)
    weight = tf.constant(random.standard_normal((4, 3)) * size, tf.float32)
    adam = tf.constant(random.standard_normal((4, 3)), tf.float32)
    numbers = Hyperparameters(weight_decay=decay, trust_clip=trust_clip)
    direction = lamb_direction(weight, adam, False, numbers).numpy()
    norm = float(np.linalg.norm(weight.numpy()))
    expected = min(norm, trust_clip) if trust_clip else norm
    assert np.linalg.norm(direction) == pytest.approx(expected, rel=1e-4)


@given(st.floats(0, 1e6, width=32), st.just(0.0) | st.floats(2**-20, 1e3, width=32))
@settings(max_examples=50, deadline=None)
def test_clipping_never_grows_and_ends_at_the_limit(norm, limit):
    scale = float(clip_scale(tf.constant(norm, tf.float32), limit))
    if limit == 0 or norm <= limit:
        assert scale == 1
    else:
        assert 0 <= scale <= 1
        assert scale * norm == pytest.approx(limit, rel=1e-5)


def test_a_gradient_that_is_no_number_shows_in_the_norm():
    for bad in (np.nan, np.inf):
        optimizer = an_optimizer()
        gradients = some_gradients()
        gradients[1][0] = bad
        assert not np.isfinite(optimizer.update(gradients, learning_rate=0.01, step=1).numpy())


def test_steps_layers_and_later_models_share_one_compilation():
    """A rate or a step number that were part of the compiled code would compile at every step."""
    numbers = Hyperparameters(weight_decay=0.0123)  # of no other test
    names = [f"bert.encoder.layer.{layer}.{name}" for layer in (0, 1, 2) for name in NAMES]
    for seed in range(2):
        random = np.random.default_rng(seed)
        tensors = [random.standard_normal(s).astype(np.float32) for s in SHAPES * 3]
        optimizer = Optimizer("lamb", [tf.Variable(t) for t in tensors], names, numbers)
        for step in range(1, 4):
            optimizer.update(tensors, learning_rate=0.01 / step, step=step)
        assert len(optimizer._groups) == 3
        compiled = {id(update): update for _, update in optimizer._groups}
        assert [u.experimental_get_tracing_count() for u in compiled.values()] == [1]


def test_a_layer_is_updated_as_it_would_be_among_all_tensors():
    """Only the clipping knows of other layers, and it goes by all gradients together."""
    names = [f"bert.encoder.layer.{layer}.{name}" for layer in (0, 1) for name in NAMES]
    tensors = [np.random.default_rng(i).standard_normal(s) for i, s in enumerate(SHAPES * 2)]
    results = []
    for naming in (names, NAMES * 2):
        variables = [tf.Variable(tensor.astype(np.float32)) for tensor in tensors]
        optimizer = Optimizer("lamb", variables, naming, Hyperparameters(clip_norm=0.5))
        gradients = [tensor.astype(np.float32) * 3 for tensor in tensors]
        norm = optimizer.update(gradients, learning_rate=0.1, step=1)
        results.append([norm.numpy(), *values(optimizer)])
    for layered, at_once in zip(*results, strict=True):
        np.testing.assert_allclose(layered, at_once, rtol=1e-6)


def test_numbers_come_from_the_configuration():
    numbers = {
        "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-8, "weight_decay": 0.1, "clip_norm": 2.0,
        "trust_clip": 3.0,
    }  # fmt: skip
    assert Hyperparameters.from_config(Config(**numbers)) == Hyperparameters(**numbers)
