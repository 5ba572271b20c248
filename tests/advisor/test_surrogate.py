"""The model of all trials: what it predicts, and what it says matters."""

from __future__ import annotations

import numpy as np
import pytest

from bertkit.advisor.goals import Goals
from bertkit.advisor.space import Space
from bertkit.advisor.surrogate import Surrogate, is_ratio_scale
from bertkit.advisor.trial import Origin, State, Trial
from bertkit.errors import AdvisorError

SPACE = Space.read(
    {"learning_rate": (1e-5, 1e-3, "log-uniform"), "batch_size": [8, 16, 32, 64],
     "dropout": (0.0, 0.3), "optimizer": ["lamb", "adamw"]}
)  # fmt: skip
GOALS = Goals.read([("training_time", "minimize"), ("f1", "maximize")])


def metrics(parameters):
    rate = np.log10(parameters["learning_rate"]) + 4  # -1 to 1
    better = 3.0 if parameters["optimizer"] == "lamb" else 0.0
    return {
        "training_time": 6400.0 / parameters["batch_size"],
        "f1": 85.0 - 8 * rate**2 + better,
    }


def trials(count, noise=0.0, told=True):
    rng = np.random.default_rng(0)
    made = []
    for number in range(1, count + 1):
        parameters = SPACE.sample(rng)
        values = metrics(parameters)
        values["f1"] += noise * float(rng.standard_normal())
        made.append(
            Trial(
                number=number, parameters=parameters, state=State.FINISHED, origin=Origin.MODEL,
                metrics=values, noise={"f1": noise} if noise and told else {},
            )
        )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def surrogate():
    return Surrogate(SPACE, GOALS, trials(30))


def test_it_predicts_what_it_has_not_seen(surrogate):
    rng = np.random.default_rng(5)
    asked = [SPACE.sample(rng) for _ in range(20)]
    for assignment, predicted in zip(asked, surrogate.predict(asked), strict=True):
        truth = metrics(assignment)
        assert predicted["f1"].mean == pytest.approx(truth["f1"], abs=2.5)
        assert predicted["training_time"].mean == pytest.approx(truth["training_time"], rel=0.25)


def test_it_is_surer_where_it_has_been(surrogate):
    known = trials(30)[0].parameters
    far = {"learning_rate": 1e-5, "batch_size": 64, "dropout": 0.3, "optimizer": "adamw"}
    near, away = surrogate.predict([known, far])
    assert near["f1"].std < away["f1"].std


def test_importance_finds_what_matters(surrogate):
    time, f1 = surrogate.importance("training_time"), surrogate.importance("f1")
    assert max(time, key=time.get) == "batch_size"
    assert max(f1, key=f1.get) == "learning_rate"
    assert f1["dropout"] < 0.1
    assert f1["optimizer"] > f1["dropout"]
    assert all(0 <= share <= 1 for share in (*time.values(), *f1.values()))


def test_partial_dependence_has_the_true_shape(surrogate):
    rate = surrogate.partial_dependence("learning_rate", "f1")
    assert rate.log
    assert rate.values[int(np.argmax(rate.mean))] == pytest.approx(1e-4, rel=0.5)
    optimizer = surrogate.partial_dependence("optimizer", "f1")
    assert optimizer.values == ("lamb", "adamw")
    assert optimizer.mean[0] - optimizer.mean[1] == pytest.approx(3.0, abs=1.5)
    assert np.all(rate.std > 0)


def test_told_noise_is_not_followed():
    noisy = trials(25, noise=3.0)
    assignment = noisy[3].parameters
    (predicted,) = Surrogate(SPACE, GOALS, noisy).predict([assignment])
    assert abs(predicted["f1"].mean - noisy[3].metrics["f1"]) > 0.05
    assert predicted["f1"].mean == pytest.approx(metrics(assignment)["f1"], abs=3.0)


def test_what_it_cannot_do_is_said(surrogate):
    with pytest.raises(AdvisorError, match="at least 2"):
        Surrogate(SPACE, GOALS, trials(1))
    with pytest.raises(AdvisorError, match="'depth' is not searched"):
        surrogate.partial_dependence("depth", "f1")
    with pytest.raises(AdvisorError, match="'loss' is not a goal"):
        surrogate.importance("loss")


def test_equal_metrics_are_no_trouble():
    flat = [
        Trial(number=i, parameters=t.parameters, state=State.FINISHED, origin=Origin.MODEL,
              metrics={"training_time": 5.0, "f1": 80.0})
        for i, t in enumerate(trials(6))
    ]  # fmt: skip
    surrogate = Surrogate(SPACE, GOALS, flat)
    (predicted,) = surrogate.predict([flat[0].parameters])
    assert predicted["f1"].mean == pytest.approx(80.0)
    assert surrogate.importance("f1")["dropout"] < 0.01


@pytest.mark.parametrize(
    ("values", "by_ratios"),
    [
        ([30.0, 60.0, 120.0], True),
        ([88.0, 90.0, 91.0], False),  # the ends are too near for it to matter
        ([0.0, 0.5, 1.0], False),
        ([1e-9, 0.5, 1.0], False),  # one logarithm would outweigh all others
        ([-2.0, 0.5, 1.0], False),
    ],
)
def test_only_what_is_clearly_above_zero_is_compared_by_ratios(values, by_ratios):
    assert is_ratio_scale(np.array(values)) is by_ratios
