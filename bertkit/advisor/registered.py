"""A command of one's own with a space of one's own, as the published ``register`` takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertkit.advisor.goals import Goals
from bertkit.advisor.pruning import TIME_METRIC
from bertkit.advisor.space import Space
from bertkit.config import Scalar
from bertkit.errors import AdvisorError

KEYS = (
    "score_metrics", "experiment_name", "tune_training_time", "hyper_parameters", "hpo_config",
    "sigopt_config", "execute_cmd", "execute_cmd_base", "result_file_name", "observation_budget",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Registered:
    """What was registered.

    Args:
        command: The command without its parameters.
        space: What is searched.
        switches: Parameters that the command takes without a value.
        goals: What is wanted.
        result_file: Name of the file the command leaves its metrics in.
        experiment: What the search is called.
        observation_budget: Most trials, where the settings do not say.
        parameters: Values to train with where there is no search.
    """

    command: str
    space: Space
    switches: frozenset[str]
    goals: Goals
    result_file: str
    experiment: str
    observation_budget: int | None
    parameters: Mapping[str, Scalar]


def read_registration(info: Mapping[str, Any]) -> Registered:
    """Read what is registered.

    Args:
        info: ``execute_cmd_base`` (or ``execute_cmd``), ``hpo_config`` (or ``sigopt_config``; a
            list of SigOpt's parameters), ``score_metrics`` (pairs of name and objective),
            ``result_file_name``, ``experiment_name``, ``tune_training_time``,
            ``hyper_parameters`` and ``observation_budget``.

    Raises:
        AdvisorError: If a key is not known or one is missing; the message names it.

    Example:
        >>> read_registration({
        ...     "execute_cmd_base": "python train.py",
        ...     "hpo_config": [{"name": "max_depth", "bounds": {"min": 3, "max": 12},
        ...                     "type": "int"}],
        ...     "score_metrics": [("accuracy", "maximize")],
        ... }).goals.names
        ('accuracy',)
    """
    for key in info:
        if key not in KEYS:
            raise AdvisorError(f"register: {key!r} is not known; expected one of {', '.join(KEYS)}")
    command = info.get("execute_cmd_base", info.get("execute_cmd"))
    parameters = info.get("hpo_config", info.get("sigopt_config"))
    for key, value in (("execute_cmd_base", command), ("hpo_config", parameters)):
        if not value:
            raise AdvisorError(f"register: {key!r} is missing; add it")
    space = Space.read(parameters)
    metrics = [tuple(m) for m in info.get("score_metrics", [("mean_accuracy", "maximize")])]
    if info.get("tune_training_time") and TIME_METRIC not in [m[0] for m in metrics]:
        metrics.append((TIME_METRIC, "minimize"))
    switches = [p["name"] for p in parameters if isinstance(p, Mapping) and set(p) == {"name"}]
    given: Mapping[str, Scalar] = info.get("hyper_parameters") or {}
    return Registered(
        command=str(command),
        space=space,
        switches=frozenset(switches),
        goals=Goals.read(metrics),
        result_file=str(info.get("result_file_name", "result")),
        experiment=str(info.get("experiment_name", "registered")),
        observation_budget=info.get("observation_budget"),
        parameters={**space.nearest(given), **given},
    )
