"""Stopping rules, replayed over curves whose end is known."""

from __future__ import annotations

import numpy as np
import pytest

from bertkit.advisor.goals import Goals
from bertkit.advisor.pruning import HalvingPruner, MedianPruner, best_cost, pruner
from bertkit.advisor.trial import CurvePoint, Origin, State, Trial
from bertkit.errors import AdvisorError

GOALS = Goals.read([("training_time", "minimize", 1000.0), ("f1", "maximize", 85.0)])
SCORE = Goals.read([("f1", "maximize")])


def finished(number, values, every=10.0, state=State.FINISHED):
    points = tuple(CurvePoint(i, every * i, v) for i, v in enumerate(values, start=1))
    metrics = {"training_time": points[-1].seconds, "f1": max(values)}
    return Trial(
        number=number, parameters={}, state=state, origin=Origin.MODEL, metrics=metrics,
        curve=points,
    )  # fmt: skip


def curve(*values, every=10.0):
    return [CurvePoint(i, every * i, v) for i, v in enumerate(values, start=1)]


OTHERS = [finished(i, [20 + i, 40 + i, 60 + i, 70 + i]) for i in range(5)]


def test_off_never_stops():
    assert pruner("off").verdict(curve(0.0, 0.0, 0.0), OTHERS, GOALS) is None


def test_an_unknown_rule_is_refused_by_name():
    with pytest.raises(AdvisorError, match=r"'hyperband'.*median, halving, off"):
        pruner("hyperband")


@pytest.mark.parametrize("word", ["median", "halving"])
def test_a_hopeless_trial_is_stopped_with_a_reason_and_a_leading_one_is_not(word):
    rule = pruner(word)
    reason = rule.verdict(curve(5.0, 6.0), OTHERS, SCORE)
    assert reason is not None
    assert "f1" in reason
    assert rule.verdict(curve(50.0, 55.0), OTHERS, SCORE) is None


@pytest.mark.parametrize("word", ["median", "halving"])
def test_nothing_is_stopped_before_there_is_anything_to_compare_with(word):
    assert pruner(word).verdict(curve(0.0, 0.0), OTHERS[:1], SCORE) is None
    assert pruner(word).verdict([], OTHERS, SCORE) is None


def test_one_bad_validation_stops_nothing():
    assert MedianPruner().verdict(curve(45.0, 65.0, 1.0), OTHERS, SCORE) is None


def test_the_median_counts_time_not_steps():
    """Half the steps at the same moments is no disadvantage."""
    slow_steps = curve(42.0, 74.0, every=20.0)
    assert MedianPruner().verdict(slow_steps, OTHERS, SCORE) is None


def test_those_that_ended_earlier_count_with_their_best():
    quick = [finished(i, [80.0 + i]) for i in range(5)]
    assert MedianPruner().verdict(curve(20.0, 60.0), quick, SCORE) is not None


def test_in_the_time_of_grace_nothing_is_stopped():
    assert MedianPruner(grace=0.9).verdict(curve(0.0), OTHERS, SCORE) is None


@pytest.mark.parametrize("word", ["median", "halving"])
def test_a_trial_behind_the_fastest_good_one_cannot_win_any_more(word):
    good = [finished(i, [86.0, 87.0]) for i in range(5)]
    late = curve(90.0, 91.0, 92.0, 93.0, 94.0, 95.0, 96.0)
    reason = pruner(word).verdict(late, good, GOALS)
    assert reason is not None
    assert "fastest" in reason
    assert pruner(word).verdict(late, good, SCORE) is None


@pytest.mark.parametrize("word", ["median", "halving"])
def test_a_late_riser_is_left_its_time(word):
    """A small learning rate or a long warm-up: far behind at first, the winner in the end."""
    rule = pruner(word)
    others = [finished(i, [10.0, 30, 50, 60, 66, 72, 77, 81, 84, 86]) for i in range(6)]
    rises = [2.0, 4, 6, 61, 67, 80, 86]
    for count in range(1, len(rises) + 1):
        assert rule.verdict(curve(*rises[:count]), others, GOALS) is None
    stays = [2.0, 4, 6, 20, 40]  # whereas this one is still behind at half of the time
    assert any(rule.verdict(curve(*stays[:n]), others, GOALS) for n in range(1, 6))


@pytest.mark.parametrize("word", ["median", "halving"])
def test_those_that_were_stopped_count_where_they_came_as_far(word):
    """Else each trial that is stopped would make it harder for the next."""
    rule, good = pruner(word), [finished(i, [60.0, 70, 80, 86]) for i in range(4)]
    stopped = [finished(i, [9.0, 19, 29], state=State.PRUNED) for i in range(4, 9)]
    assert rule.verdict(curve(40.0, 50.0), good, GOALS) is not None
    assert rule.verdict(curve(40.0, 50.0), [*good, *stopped], GOALS) is None


def test_who_is_behind_one_good_trial_is_stopped_though_there_are_few():
    good = finished(1, [86.0])
    assert pruner("median").verdict(curve(90.0, 91.0), [good], GOALS) is not None
    assert pruner("halving").verdict(curve(90.0, 91.0), [good], GOALS) is not None


def test_halving_looks_at_rungs_only():
    rule = HalvingPruner(factor=3.0, first=0.25)  # rungs at 10, 30 and 90 s
    assert rule.verdict(curve(1.0), OTHERS, SCORE) is not None
    assert rule.verdict(curve(1.0, 1.0), OTHERS, SCORE) is None
    assert rule.verdict(curve(1.0, 1.0, 1.0), OTHERS, SCORE) is not None


def test_one_in_three_passes_a_rung():
    rule = HalvingPruner(factor=3.0, first=0.25)
    others = [finished(i, [float(i), float(i)]) for i in range(8)]
    passing = [v for v in range(-1, 9) if rule.verdict(curve(v + 0.5), others, SCORE) is None]
    assert passing == [5, 6, 7, 8]  # among nine, who has at most two before it


def test_best_cost_knows_only_what_was_known_then():
    points = curve(10.0, 30.0, 20.0)
    assert best_cost(points, 5.0) == np.inf
    assert best_cost(points, 15.0) == -10.0
    assert best_cost(points, 99.0) == -30.0
    assert best_cost(points, 99.0, sign=1.0) == 10.0


def simulated(rng):
    """A trial as fine-tuning makes them: F1 grows towards its end, quickly or slowly."""
    end, pace = rng.uniform(40, 92), rng.uniform(20, 120)
    points = []
    for step in range(1, 41):
        seconds = 5.0 * step
        f1 = end * (1 - np.exp(-seconds / pace)) + rng.normal(0, 0.4)
        points.append(CurvePoint(step, seconds, float(f1)))
        if f1 >= 85.0:
            break
    return points


@pytest.mark.parametrize("word", ["median", "halving"])
def test_replays_save_time_and_keep_the_winner(word):
    """Twenty searches of 25 trials: the fastest trial that reaches F1 85 must stay the same."""
    same, saved = 0, []
    for seed in range(20):
        rng = np.random.default_rng([seed, 8])
        curves = [simulated(rng) for _ in range(25)]
        full = [_ended(i, c) for i, c in enumerate(curves)]
        winner = GOALS.best([t.metrics for t in full])
        trials, spent = [], 0.0
        for number, points in enumerate(curves):
            trial = _replayed(number, points, trials, pruner(word))
            trials.append(trial)
            spent += trial.curve[-1].seconds
        kept = [t for t in trials if t.state is State.FINISHED]
        best = kept[GOALS.best([t.metrics for t in kept])]
        same += best.number == winner
        saved.append(1 - spent / sum(c[-1].seconds for c in curves))
    assert same >= 18
    assert np.median(saved) >= 0.4


def _ended(number, points, state=State.FINISHED):
    metrics = {"training_time": points[-1].seconds, "f1": max(p.value for p in points)}
    return Trial(
        number=number, parameters={}, state=state, origin=Origin.MODEL, metrics=metrics,
        curve=tuple(points),
    )  # fmt: skip


def _replayed(number, points, trials, rule):
    for count in range(1, len(points)):
        if rule.verdict(points[:count], trials, GOALS):
            return _ended(number, points[:count], State.PRUNED)
    return _ended(number, points)
