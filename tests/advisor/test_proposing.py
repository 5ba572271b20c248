"""Every sampler goes through the same cases; then what only the model can do."""

from __future__ import annotations

import numpy as np
import pytest

from bertkit.advisor.goals import Goals
from bertkit.advisor.proposing import ParEgo, RandomSampler, SpaceExhaustedError
from bertkit.advisor.scalarization import Scalarization, spread_points, weights_at
from bertkit.advisor.space import Space, fingerprint
from bertkit.advisor.trial import Origin, State, Trial

SAMPLERS = {"random": RandomSampler(), "parego": ParEgo(), "parego without spread": ParEgo(2)}
SPACES = {
    "published": Space.published(),
    "mixed": Space.read(
        {"dropout": (0.0, 0.3), "optimizer": ["lamb", "adamw"], "num_hidden_layers": (1, 6),
         "batch_size": [12, 24, 96], "tensorboard": [False, True]}
    ),
    "one continuous": Space.read({"dropout": (0.0, 0.3)}),
    "one value": Space.read({"seed": [7], "dropout": (0.0, 0.3)}),
    "grid": Space.read({"batch_size": [12, 24, 96], "num_hidden_layers": (1, 3)}),
}  # fmt: skip
GOALS = {
    "one": Goals.read([("f1", "maximize")]),
    "two": Goals.published(),
    "three": Goals.read([("a", "minimize"), ("b", "maximize"), ("c", "minimize", 0.5)]),
}


def trial(number, parameters, state=State.FINISHED, metrics=None, origin=Origin.MODEL, reason=""):
    return Trial(
        number=number, parameters=parameters, state=state, origin=origin, metrics=metrics or {},
        reason=reason,
    )  # fmt: skip


def some_metrics(goals, space, parameters):
    """Smooth metrics that pull in different directions."""
    shares = np.array(space.shares(parameters))
    values = {}
    for i, metric in enumerate(goals.metrics):
        distance = float(np.mean((shares - (i + 0.5) / len(goals.metrics)) ** 2))
        values[metric.name] = 90 - 100 * distance if metric.sign < 0 else 10 + 900 * distance
    return values


def search(sampler, space, goals, count, seed, metrics=None):
    trials = []
    for number in range(1, count + 1):
        proposal = sampler.propose(space, goals, trials, seed)
        values = (metrics or some_metrics)(goals, space, proposal.parameters)
        trials.append(
            trial(
                number, proposal.parameters, metrics=values, origin=proposal.origin,
                reason=proposal.reason,
            )
        )  # fmt: skip
    return trials


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("goals", GOALS.values(), ids=GOALS)
class TestEverySampler:
    COUNT = 8

    def test_proposals_are_in_the_space_new_and_fixed_by_the_seed(self, sampler, space, goals):
        trials = search(sampler, space, goals, self.COUNT, seed=3)
        assert all(t.parameters in space for t in trials)
        assert len({fingerprint(t.parameters) for t in trials}) == self.COUNT
        again = sampler.propose(space, goals, trials, 3)
        assert again == sampler.propose(space, goals, trials, 3)
        assert list(again.parameters) == list(space.names)
        assert len(again.reason) > 20

    def test_trials_in_every_state_are_understood(self, sampler, space, goals):
        trials = search(sampler, space, goals, 3, seed=1)
        for state in (State.RUNNING, State.FAILED, State.PRUNED, State.SKIPPED, State.WAITING):
            proposal = sampler.propose(space, goals, trials, 1)
            taken = {fingerprint(t.parameters) for t in trials}
            assert fingerprint(proposal.parameters) not in taken
            trials.append(trial(len(trials) + 1, proposal.parameters, state))

    def test_nothing_but_failures_is_no_end(self, sampler, space, goals):
        trials = []
        for number in range(1, 8):
            proposal = sampler.propose(space, goals, trials, 5)
            trials.append(trial(number, proposal.parameters, State.FAILED))
        assert len({fingerprint(t.parameters) for t in trials}) == 7


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_a_small_space_is_searched_to_the_last_assignment_and_then_says_so(sampler):
    space, goals = SPACES["grid"], GOALS["two"]
    trials = search(sampler, space, goals, 9, seed=0)
    assert {fingerprint(t.parameters) for t in trials} == {fingerprint(c) for c in space.cells()}
    with pytest.raises(SpaceExhaustedError, match="all 9 assignments"):
        sampler.propose(space, goals, trials, 0)


def test_seeds_differ():
    first, second = (
        ParEgo().propose(SPACES["published"], GOALS["two"], [], seed) for seed in (1, 2)
    )
    assert first.parameters != second.parameters


def test_the_model_finds_the_optimum_that_chance_misses():
    names = ("dropout", "warmup_rate", "weight_decay")
    space = Space.read(dict.fromkeys(names, (0.0, 0.3)))
    goals = GOALS["one"]

    def metrics(_goals, space, parameters):
        shares = np.array(space.shares(parameters))
        return {"f1": 90 - 100 * float(np.sum((shares - [0.3, 0.6, 0.8]) ** 2))}

    def best(sampler):
        return max(t.metrics["f1"] for t in search(sampler, space, goals, 18, 0, metrics))

    assert best(ParEgo()) > 89.5 > best(RandomSampler())


def test_thresholds_keep_the_walk_where_trials_are_of_use():
    """Without thresholds the whole front is walked; with them, the part that meets them."""
    space = Space.read({"dropout": (0.0, 1.0), "warmup_rate": (0.0, 1.0)})

    def metrics(_goals, _space, parameters):
        x, y = parameters["dropout"], parameters["warmup_rate"]
        return {"time": x + 0.3 * (y - 0.5) ** 2, "error": 1 - x + 0.3 * (y - 0.5) ** 2}

    def useful(limit):
        goals = Goals.read([("time", "minimize", limit), ("error", "minimize", limit)])
        trials = search(ParEgo(), space, goals, 20, 4, metrics)[-12:]
        return sum(all(v <= 0.55 for v in t.metrics.values()) for t in trials)

    assert useful(0.55) >= 4 > useful(None)  # of the last 12 trials


def test_every_other_proposal_looks_for_the_fastest_that_is_good_enough():
    """Of the front between speed and error, where only an error of at most 0.3 is of use."""
    space = Space.read({"dropout": (0.0, 1.0), "warmup_rate": (0.0, 1.0)})

    def metrics(_goals, _space, parameters):
        x, y = parameters["dropout"], parameters["warmup_rate"]
        return {"time": 0.2 + x + 2 * (y - 0.4) ** 2, "error": 1 - x + (y - 0.4) ** 2}

    def best_time(limits, seed):
        goals = Goals.read([("time", "minimize"), ("error", "minimize", limits)])
        trials = search(ParEgo(), space, goals, 12, seed, metrics)
        return min((t.metrics["time"] for t in trials if t.metrics["error"] <= 0.3), default=9.0)

    with_threshold = [best_time(0.3, seed) for seed in range(4)]
    assert np.median(with_threshold) < 1.0  # 0.9 is the least there is
    assert np.median(with_threshold) < np.median([best_time(None, seed) for seed in range(4)])


def test_the_other_proposals_walk_the_front():
    goals = Goals.read([("time", "minimize"), ("f1", "maximize", 60)])
    trials = search(ParEgo(initial=3), SPACES["published"], goals, 7, seed=0)
    for_the_best = "With time 95% and f1 5% of the weight"
    assert [for_the_best in t.reason for t in trials[3:]] == [True, False, True, False]
    trials = search(ParEgo(initial=3, leader_only=True), SPACES["published"], goals, 7, seed=0)
    assert all(for_the_best in t.reason for t in trials[3:])


def test_proposals_of_a_batch_differ_because_running_trials_are_told_as_good_as_the_best():
    space, goals = SPACES["published"], GOALS["two"]
    trials = search(ParEgo(), space, goals, 8, seed=2)
    batch = []
    for _ in range(4):
        proposal = ParEgo().propose(space, goals, trials, 2)
        batch.append(proposal.parameters)
        trials = [*trials, trial(len(trials) + 1, proposal.parameters, State.RUNNING)]
    distances = [
        np.abs(np.subtract(space.shares(a), space.shares(b))).max()
        for i, a in enumerate(batch) for b in batch[:i]
    ]  # fmt: skip
    assert min(distances) > 0.02


def test_a_region_where_trials_fail_is_left():
    space, goals = Space.read({"dropout": (0.0, 1.0)}), GOALS["one"]
    trials = []
    for number in range(1, 15):
        proposal = ParEgo().propose(space, goals, trials, 6)
        x = proposal.parameters["dropout"]
        if x > 0.6:  # looks better and better, and fails
            trials.append(trial(number, proposal.parameters, State.FAILED))
        else:
            trials.append(trial(number, proposal.parameters, metrics={"f1": 100 * x}))
    assert sum(t.state is State.FAILED for t in trials[-6:]) <= 2


def test_a_proposal_says_what_it_expects_and_why():
    space, goals = SPACES["published"], GOALS["two"]
    trials = search(ParEgo(), space, goals, 9, seed=2)
    proposal = ParEgo().propose(space, goals, trials, 2)
    assert proposal.origin is Origin.MODEL
    assert set(proposal.predicted) == set(goals.names)
    assert all(p.std > 0 for p in proposal.predicted.values())
    truth = some_metrics(goals, space, proposal.parameters)
    f1 = proposal.predicted["f1"]
    assert abs(f1.mean - truth["f1"]) < max(5 * f1.std, 2.0)
    assert "%" in proposal.reason
    assert "training_time" in proposal.reason


def test_weights_fill_the_simplex():
    for metrics in (2, 3):
        weights = np.array([weights_at(i, metrics, np.full(metrics - 1, 0.3)) for i in range(40)])
        assert np.allclose(weights.sum(axis=1), 1.0)
        assert weights.min() >= 0
        assert weights.max(axis=0).min() > 0.85
    assert weights_at(5, 1, np.zeros(0)).tolist() == [1.0]


def test_spread_points_leave_no_large_hole():
    points = spread_points(64, 2, np.array([0.1, 0.7]))
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 21)] * 2), axis=-1).reshape(-1, 2)
    holes = np.sqrt(((grid[:, None] - points[None]) ** 2).sum(-1)).min(axis=1)
    assert holes.max() < 0.2


def test_a_missed_threshold_outweighs_everything_on_the_front():
    costs = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    weigh = Scalarization.fitted(costs, np.array([0.6, np.inf]), np.array([0.01, 0.99]))
    values = weigh(costs)
    assert values[1] < values[2]
