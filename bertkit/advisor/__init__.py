"""The advisor: hyperparameter search that finds faster, good-enough models.

Example:
    >>> import tempfile
    >>> space = {"x": (0.0, 1.0), "batch_size": [12, 24, 96]}
    >>> goals = [("training_time", "minimize"), ("f1", "maximize", 80.0)]
    >>> def train(trial, report):
    ...     x = trial.parameters["x"]
    ...     return {"training_time": 10 + 90 * x, "f1": 70 + 25 * x}
    >>> store = tempfile.mkdtemp() + "/advisor.db"
    >>> with Experiment.create(store, "demo", space=space, goals=goals) as experiment:
    ...     best = experiment.run(train, observation_budget=12)
    >>> best.metrics["f1"] >= 80
    True
"""

from bertkit.advisor.conf import advise
from bertkit.advisor.experiment import Experiment
from bertkit.advisor.goals import Goals, Metric
from bertkit.advisor.hydro_model import HydroModel
from bertkit.advisor.parameters import Choices, Range
from bertkit.advisor.sda import SDA
from bertkit.advisor.space import Space
from bertkit.advisor.store import Store
from bertkit.advisor.trial import CurvePoint, Outcome, Proposal, State, Trial
from bertkit.advisor.trial_runner import TrainingRunner

__all__ = [
    "SDA",
    "Choices",
    "CurvePoint",
    "Experiment",
    "Goals",
    "HydroModel",
    "Metric",
    "Outcome",
    "Proposal",
    "Range",
    "Space",
    "State",
    "Store",
    "TrainingRunner",
    "Trial",
    "advise",
]
