"""Pareto set, hypervolume and the rule for the one best trial."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bertkit.advisor.goals import Goals, Metric, hypervolume, nondominated
from bertkit.errors import AdvisorError

unit = st.floats(0, 1, allow_nan=False, width=32)


def fronts(metrics):
    return st.integers(1, 7).flatmap(
        lambda rows: arrays(np.float64, (rows, metrics), elements=unit)
    )


def by_inclusion_exclusion(costs, corner):
    """The volume of a union of boxes, the long way."""
    total = 0.0
    for count in range(1, len(costs) + 1):
        for rows in itertools.combinations(costs, count):
            sides = np.maximum(corner - np.max(rows, axis=0), 0.0)
            total += (-1) ** (count + 1) * float(np.prod(sides))
    return total


@given(st.integers(1, 4).flatmap(fronts))
@settings(max_examples=80, deadline=None)
def test_hypervolume_is_the_volume_of_the_union_of_boxes(costs):
    corner = np.full(costs.shape[1], 0.9)
    assert hypervolume(costs, corner) == pytest.approx(
        by_inclusion_exclusion(costs, corner), abs=1e-9
    )


@given(fronts(3), arrays(np.float64, 3, elements=unit))
@settings(max_examples=60, deadline=None)
def test_hypervolume_never_shrinks_and_ignores_beaten_rows(costs, extra):
    corner = np.ones(3)
    before = hypervolume(costs, corner)
    assert hypervolume(np.vstack([costs, extra]), corner) >= before - 1e-12
    beaten = np.vstack([costs, np.minimum(costs[0] + 0.1, 1.0)])
    assert hypervolume(beaten, corner) == pytest.approx(before)


@given(fronts(2))
@settings(max_examples=80, deadline=None)
def test_no_row_of_the_front_is_beaten_and_every_other_one_is(costs):
    front = nondominated(costs)
    for i, row in enumerate(costs):
        beaten = any(np.all(o <= row) and np.any(o < row) for o in costs)
        assert front[i] == (not beaten)


def test_equal_trials_are_all_kept():
    assert Goals.published().pareto([{"training_time": 1, "f1": 2}] * 3) == [0, 1, 2]


def test_the_best_is_the_fastest_that_is_good_enough():
    goals = Goals.published()
    trials = [
        {"training_time": 500, "f1": 92.0},
        {"training_time": 300, "f1": 90.87},
        {"training_time": 100, "f1": 90.86},
    ]
    assert goals.best(trials) == 1
    assert goals.best(trials[2:]) == 0
    assert goals.best([]) is None
    assert "lowest training_time among those with f1 of at least 90.87" in goals.rule()


def test_if_none_is_good_enough_the_best_f1_wins_however_slow():
    trials = [{"training_time": 1, "f1": 80.0}, {"training_time": 900, "f1": 85.0}]
    assert Goals.published().best(trials) == 1


def test_a_slow_one_that_is_good_enough_still_wins():
    trials = [{"training_time": 20000, "f1": 91.0}, {"training_time": 5, "f1": 50.0}]
    assert Goals.published().best(trials) == 0


def test_without_thresholds_the_first_metric_decides():
    goals = Goals.read([("accuracy", "maximize"), ("training_time", "minimize")])
    trials = [{"accuracy": 0.9, "training_time": 1}, {"accuracy": 0.95, "training_time": 9}]
    assert goals.best(trials) == 1
    assert goals.rule() == "The best trial is the one with the highest accuracy."


def test_the_hypervolume_is_measured_from_the_thresholds():
    goals = Goals.published()
    assert goals.hypervolume([{"training_time": 9999, "f1": 91.87}]) == pytest.approx(1.0)
    assert goals.hypervolume([{"training_time": 10001, "f1": 99.0}]) == 0
    with pytest.raises(AdvisorError, match="worst value for every metric"):
        Goals.read([("f1", "maximize")]).hypervolume([{"f1": 1.0}])


def test_sigopt_metrics_are_read_with_their_spellings():
    goals = Goals.read(
        [
            {"name": "training_time", "objective": "minimise", "threshold": 10000},
            {"name": "f1", "objective": "maxmize", "threshold": 90.87, "strategy": "optimize"},
        ]
    )
    assert [(m.name, m.objective, m.threshold) for m in goals.metrics] == [
        ("training_time", "minimize", 10000),
        ("f1", "maximize", 90.87),
    ]
    assert Goals.read(goals.to_list()) == goals


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ([], "at least one"),
        ("f1", "a list"),
        ([("f1", "up")], "objective is 'up'"),
        ([("f1", "maximize", "high")], "threshold is 'high'"),
        ([{"objective": "maximize"}], "no name"),
        ([{"name": "f1", "goal": 3}], "'goal' is not known"),
        ([("f1", "maximize"), ("f1", "minimize")], "twice"),
    ],
)
def test_what_cannot_be_read_is_refused(metrics, words):
    with pytest.raises(AdvisorError) as refused:
        Goals.read(metrics)
    assert words in str(refused.value)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "3", True])
def test_a_metric_that_is_no_number_is_refused_by_name(value):
    with pytest.raises(AdvisorError, match="'f1'"):
        Goals((Metric("f1", "maximize"),)).check({"f1": value})
