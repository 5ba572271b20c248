"""The search space: every way of writing it down, and going there and back."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skopt.space import Categorical, Integer, Real

from bertkit.advisor.parameters import Choices, Range
from bertkit.advisor.space import Space, fingerprint
from bertkit.advisor.surrogate import Encoding
from bertkit.errors import AdvisorError

names = st.sampled_from(["learning_rate", "warmup_rate", "batch_size", "dropout", "optimizer"])
finite = st.floats(1e-6, 1e6, allow_nan=False)


@st.composite
def ranges(draw, name):
    whole, log = draw(st.booleans()), draw(st.booleans())
    if whole:
        low = draw(st.integers(1, 1000))
        return Range(name, low, low + draw(st.integers(1, 1000)), whole=True, log=log)
    low = draw(finite)
    return Range(name, low, low * draw(st.floats(1.01, 1e4)), log=log)


@st.composite
def choices(draw, name):
    values = draw(
        st.one_of(
            st.lists(st.integers(1, 512), min_size=1, max_size=6, unique=True),
            st.lists(st.sampled_from(["lamb", "adamw", "x"]), min_size=1, max_size=3, unique=True),
        )
    )
    return Choices(name, tuple(values))


@st.composite
def spaces(draw):
    chosen = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    return Space(tuple(draw(st.one_of(ranges(n), choices(n))) for n in chosen))


@given(spaces(), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_a_sample_is_in_its_space_and_survives_every_round_trip(space, seed):
    assignment = space.sample(np.random.default_rng(seed))
    assert assignment in space
    assert space.check(assignment) == assignment
    assert Space.read(json.loads(json.dumps(space.to_list()))) == space
    assert json.loads(json.dumps(assignment)) in space
    assert space.nearest(assignment) == assignment
    shares = space.shares(assignment)
    assert all(-1e-9 <= s <= 1 + 1e-9 for s in shares)
    assert fingerprint(space.at(shares)) == fingerprint(space.at(space.shares(space.at(shares))))


@given(spaces(), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_scikit_optimize_gives_back_what_it_is_told(space, seed):
    encoding = Encoding(space)
    assignment = space.sample(np.random.default_rng(seed))
    again = encoding.assignment(encoding.point(assignment))
    for name, value in assignment.items():
        expected = value if isinstance(value, str) else pytest.approx(value, rel=1e-3)
        assert again[name] == expected
    columns = encoding.transform([assignment])
    assert columns.min() >= -1e-9
    assert columns.max() <= 1 + 1e-9


def test_the_published_space_is_the_default():
    rate, warmup, batch = Space.published().parameters
    assert (rate.low, rate.high, rate.log) == (3e-5, 3e-4, True)
    assert (warmup.low, warmup.high, warmup.log) == (0.1, 0.3, False)
    assert batch.choices == (12, 16, 24, 96, 128)
    Space.published().check_fields()


def test_sigopt_lists_are_read():
    space = Space.read(
        [
            {"name": "learning_rate", "bounds": {"min": 1e-6, "max": 3e-4}, "type": "double"},
            {"name": "batch_size", "grid": [16, 24, 32], "type": "int"},
            {"name": "dropout", "grid": [0.08, 0.1, 0.12], "type": "double"},
            {"name": "num_hidden_layers", "bounds": {"min": 2, "max": 6}, "type": "int"},
            {"name": "optimizer", "categorical_values": [{"name": "lamb"}, {"name": "adamw"}],
             "type": "categorical"},
            {"name": "pad_to_max_length"},
        ]
    )  # fmt: skip
    space.check_fields()
    assert space.parameters[3] == Range("num_hidden_layers", 2, 6, whole=True)
    assert space.parameters[4] == Choices("optimizer", ("lamb", "adamw"))
    assert space.parameters[5] == Choices("pad_to_max_length", (False, True))


def test_skopt_dimensions_are_read():
    space = Space.read(
        [
            Real(3e-5, 3e-4, "log-uniform", name="learning_rate"),
            Integer(1, 6, name="num_hidden_layers"),
            Categorical(["lamb", "adamw"], name="optimizer"),
            Categorical([24, 12], name="batch_size"),
        ]
    )
    assert space.parameters == (
        Range("learning_rate", 3e-5, 3e-4, log=True),
        Range("num_hidden_layers", 1, 6, whole=True),
        Choices("optimizer", ("lamb", "adamw")),
        Choices("batch_size", (12, 24)),
    )
    short = {"learning_rate": (3e-5, 3e-4, "log-uniform"), "ranks": [1, 2]}
    assert Space.read(short).names == ("learning_rate", "ranks")
    Space.read(short).check_fields()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ([], "empty"),
        ("learning_rate", "a list of parameters"),
        ([{"bounds": {"min": 0, "max": 1}}], "no name"),
        ([{"name": "a", "bounds": {"min": 1, "max": 0}}], "smaller one as min"),
        ([{"name": "a", "bounds": {"min": 0, "max": 1}, "transformation": "log"}], "above 0"),
        ([{"name": "a", "bounds": {"min": 0}}], "min and max"),
        ([{"name": "a", "bound": {"min": 0, "max": 1}}], "'bound' is not known"),
        ([{"name": "a", "grid": []}], "empty"),
        ([{"name": "a", "grid": [1, 1]}], "twice"),
        ([{"name": "a", "grid": [1.5], "type": "int"}], "whole numbers"),
        ([{"name": "a", "grid": ["x"], "type": "int"}], "a number"),
        ([{"name": "a", "type": "int"}], "neither bounds nor"),
        ([{"name": "a", "grid": [1], "type": "complex"}], "type is 'complex'"),
        ([{"name": "a", "grid": [1, 2]}, {"name": "a", "grid": [1, 2]}], "twice"),
        ([Real(0, 1)], "no name"),
        ({"a": 3}, "expected (low, high)"),
        ({"a": (0.1, 1.0, "normal")}, "prior"),
        ([{"name": "a", "bounds": {"min": math.nan, "max": 1.0}}], "finite"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(parameters, words):
    with pytest.raises(AdvisorError) as refused:
        Space.read(parameters)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_parameter_must_be_a_field():
    with pytest.raises(AdvisorError, match="'rate': is not a configuration field"):
        Space.read({"rate": (0.1, 1.0)}).check_fields()
    with pytest.raises(AdvisorError, match=r"batch_size.*whole number"):
        Space.read({"batch_size": (1.0, 64.0)}).check_fields()
    with pytest.raises(AdvisorError, match=r"dropout.*0\.9"):
        Space.read({"dropout": (0.0, 1.5)}).check_fields()


def test_an_assignment_is_checked_by_name():
    space = Space.published()
    with pytest.raises(AdvisorError) as refused:
        space.check({"learning_rate": 1.0, "warmup_rate": 0.2, "batchsize": 12})
    for words in ("batchsize: is no", "learning_rate: is 1.0", "batch_size: is missing"):
        assert words in str(refused.value)


def test_true_is_no_number():
    assert {"x": True} not in Space((Choices("x", (1, 2)),))
    assert {"x": True} not in Space((Range("x", 0.0, 1.0),))
    assert {"x": 1} not in Space((Choices("x", (False, True)),))


def test_the_nearest_batch_size_is_so_by_ratio():
    batch = Choices("batch_size", (12, 16, 24, 96, 128))
    assert batch.nearest(32) == 24
    assert batch.nearest(60) == 96
    assert batch.nearest("x") in batch.choices
