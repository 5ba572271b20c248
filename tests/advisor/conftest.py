"""What several tests of the advisor need."""

from __future__ import annotations

import pytest

from bertkit.advisor.experiment import Experiment
from bertkit.advisor.space import Space

SPACE = Space.read({"learning_rate": (3e-5, 3e-4, "log-uniform"), "batch_size": [12, 24, 96]})


@pytest.fixture
def space():
    return SPACE


@pytest.fixture
def store_path(tmp_path):
    return tmp_path / "advisor.db"


@pytest.fixture
def new_experiment(store_path):
    """Make experiments in one store, closed when the test is over."""
    made = []

    def make(**options):
        options = {"space": SPACE, "sampler": "random", **options}
        made.append(Experiment.create(store_path, "test", **options))
        return made[-1]

    yield make
    for experiment in made:
        experiment.close()


def objective(trial, report=None):
    """Metrics as training gives them, from the values alone."""
    del report
    rate, batch = trial.parameters["learning_rate"], trial.parameters["batch_size"]
    return {"training_time": 9000.0 / batch + 1e6 * rate, "f1": 80.0 + 4e4 * rate + batch / 100}
