"""Intel's Smart Democratization Advisor as it was published, over bertkit's own search.

Example:
    >>> from bertkit import SDA                                          # doctest: +SKIP
    >>> settings = dict()                                                # doctest: +SKIP
    >>> settings["data_path"] = "sample"                                 # doctest: +SKIP
    >>> settings["enable_sigopt"] = True                                 # doctest: +SKIP
    >>> sda = SDA(model="BERT", settings=settings)                       # doctest: +SKIP
    >>> sda.launch()                                                     # doctest: +SKIP
    >>> sda.snapshot().explain()                                         # doctest: +SKIP
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bertkit.advisor.command_runner import CommandRunner
from bertkit.advisor.experiment import OBSERVATION_BUDGET, Experiment
from bertkit.advisor.goals import Goals
from bertkit.advisor.hydro_model import HydroModel
from bertkit.advisor.published_settings import Launch, read_settings
from bertkit.advisor.registered import Registered, read_registration
from bertkit.advisor.search_loop import OnTrial
from bertkit.advisor.space import RANKS
from bertkit.advisor.store import Store
from bertkit.advisor.trial import Assignment, CurvePoint, Origin, Outcome, Runner, State, Trial
from bertkit.advisor.trial_runner import TrainingRunner, TrainsRuns, core_groups, on_cpus
from bertkit.config import Config, Scalar
from bertkit.errors import AdvisorError

log = logging.getLogger("bertkit.advisor")

BERT = "bert"
STORE_FILE = "advisor.db"
LATEST_FILE = "latest_hydro_model"
LAYERS = "num_hidden_layers"

Metrics = list[dict[str, Any]]


class SDA:
    """Trains a model with good hyperparameters, or searches for better ones.

    Args:
        model: ``"BERT"``, or any name for what is registered.
        settings: Published settings by name; `bertkit.advisor.published_settings` lists them.
        hydro_model: Of an earlier launch, to start again from: its search goes on, or its
            parameters are used.
        clusters: Started clusters to train on; by default one is started, and stopped after.
        on_trial: Called with every trial that has ended.

    Raises:
        AdvisorError: If a setting is not known or cannot be used; the message names its key.
        ConfigError: If a setting does not fit its configuration field.
    """

    def __init__(
        self,
        model: str = "custom_registered",
        settings: Mapping[str, Any] | None = None,
        hydro_model: HydroModel | None = None,
        *,
        clusters: Sequence[TrainsRuns] | None = None,
        on_trial: OnTrial | None = None,
    ) -> None:
        self.model = model
        self.settings = dict(settings or {})
        self._hydro_model = hydro_model or HydroModel(model_type=model, settings=self.settings)
        self._clusters, self.on_trial = clusters, on_trial
        self._registered: Registered | None = None
        self._launch = read_settings(model, self.settings)

    def register(self, info: Mapping[str, Any]) -> None:
        """Search the space of a command of one's own.

        Args:
            info: See `bertkit.advisor.registered.read_registration`.

        Raises:
            AdvisorError: If a key is not known, or one is missing.
        """
        self._registered = read_registration(info)

    def launch(self) -> tuple[str, Metrics]:
        """Train once, or search where ``enable_sigopt`` is on.

        Returns:
            The folder of the best model, and its metrics, each with ``name`` and ``value``.

        Raises:
            AdvisorError: If nothing is registered for a model other than BERT, or every trial
                failed.
        """
        if self.model.lower() != BERT and self._registered is None:
            raise AdvisorError(
                f"model is {self.model!r}; expected 'BERT', or call register() with a command of "
                "your own before launch()"
            )
        if self._launch.search:
            self._search()
        else:
            self._train_once()
        self._launch.save_path.mkdir(parents=True, exist_ok=True)
        self._hydro_model.save_to_path(self._launch.save_path / LATEST_FILE)
        return self._hydro_model.model, [dict(m) for m in self._hydro_model.metrics]

    def snapshot(self) -> HydroModel:
        """The best model so far."""
        return self._hydro_model

    def resume(self, experiment: int) -> None:
        """Let the next launch go on with an experiment of this ``save_path``.

        Args:
            experiment: Its id.

        Raises:
            AdvisorError: If there is none of that id.
        """
        path = self._launch.save_path / STORE_FILE
        if not path.is_file():
            raise AdvisorError(
                f"there is no experiment {experiment}: {path} does not exist; expected the "
                "save_path and model of the launch to go on with"
            )
        with Store(path) as store:
            store.experiment(experiment)
        self.settings["enable_sigopt"] = True
        self._launch = replace(self._launch, search=True)
        self._hydro_model = replace(
            self._hydro_model, experiment_id=experiment, store=str(path), settings=self.settings
        )

    @property
    def config(self) -> Config | None:
        """What all trials have in common; ``None`` where they run a command of one's own."""
        return None if self._registered else self._launch.config

    @property
    def goals(self) -> Goals:
        """What is wanted."""
        return self._registered.goals if self._registered else self._launch.goals

    @property
    def searches(self) -> bool:
        """Whether a launch searches; else it trains once."""
        return self._launch.search

    @property
    def observation_budget(self) -> int:
        """Most trials."""
        if "observation_budget" not in self.settings and self._registered is not None:
            return self._registered.observation_budget or OBSERVATION_BUDGET
        return self._launch.observation_budget

    # Inside ------------------------------------------------------------------------------------

    def _search(self) -> None:
        with self._experiment() as experiment:
            store = str(experiment.store.path)
            log.info("Experiment %d in %s", experiment.id, store)
            # Known from now on, so that an interrupted search can be gone on with.
            self._hydro_model = replace(self._hydro_model, experiment_id=experiment.id, store=store)
            # A folder an experiment: a new search must not take an old one's runs for its own.
            folder = self._launch.save_path / "runs" / f"experiment-{experiment.id}"
            with self._runner(folder) as (runner, parallel):
                best = experiment.run(
                    runner,
                    observation_budget=self.observation_budget,
                    time_budget=self._launch.time_budget,
                    parallel=parallel,
                    on_trial=self.on_trial,
                )
            if best is None:
                raise AdvisorError(
                    f"no trial of experiment {experiment.id} has finished; its trials say why"
                )
            self._keep(best.artifact, best.metrics, best.parameters, experiment)

    def _train_once(self) -> None:
        parameters: Assignment = self._hydro_model.model_parameters
        if self._registered is not None:
            parameters = parameters or self._registered.parameters
        trial = Trial(number=1, parameters=parameters, state=State.RUNNING, origin=Origin.DEFAULT)
        folder = self._launch.save_path / "runs" / time.strftime("%Y%m%d-%H%M%S")
        with self._runner(folder) as (runner, _):
            outcome = runner(trial, _go_on)
        if not isinstance(outcome, Outcome):
            outcome = Outcome(metrics=outcome)
        values = self.goals.check(outcome.metrics)
        self._keep(outcome.artifact, {**outcome.metrics, **values}, parameters, None)

    def _keep(
        self,
        artifact: str | None,
        metrics: Mapping[str, float],
        parameters: Assignment,
        experiment: Experiment | None,
    ) -> None:
        self._hydro_model = HydroModel(
            model_type=self.model,
            model=artifact or "",
            metrics=[{"name": name, "value": value} for name, value in metrics.items()],
            experiment_id=experiment.id if experiment else None,
            store=str(experiment.store.path) if experiment else None,
            model_parameters=dict(parameters),
            settings=self.settings,
        )

    def _experiment(self) -> Experiment:
        """The search of the HydroModel it started from, or a new one."""
        known, launch, registered = self._hydro_model, self._launch, self._registered
        if known.experiment_id is not None and known.store is not None:
            return Experiment.resume(known.store, known.experiment_id)
        return Experiment.create(
            launch.save_path / STORE_FILE,
            registered.experiment if registered else launch.experiment,
            space=registered.space if registered else launch.space,
            goals=self.goals,
            observation_budget=self.observation_budget,
            pruning=launch.pruning,
            defaults=registered.parameters if registered else own_values(launch),
            seed=launch.config.seed,
        )

    @contextmanager
    def _runner(self, folder: Path) -> Iterator[tuple[Runner, int]]:
        """What runs trials, with all they leave in ``folder``, and how many it can run at once."""
        launch, registered = self._launch, self._registered
        if registered is not None:
            yield (
                CommandRunner(
                    registered.command,
                    folder,
                    registered.result_file,
                    registered.goals.names,
                    registered.switches,
                ),
                1,
            )
            return
        config = launch.config.replace(output=str(folder))
        if self._clusters is not None:
            alike = len({cluster.n for cluster in self._clusters}) == 1
            parallel = len(self._clusters) if alike else 1
            yield TrainingRunner(config, self._clusters), parallel
            return
        with _own_clusters(launch) as clusters:
            yield TrainingRunner(config, clusters), launch.parallel


def own_values(launch: Launch) -> dict[str, Scalar]:
    """What a launch would train with if it did not search, in the terms of its space.

    An empty ``num_hidden_layers`` keeps all layers, so it is the most of the searched ones.

    Example:
        >>> layers = {"name": "num_hidden_layers", "grid": [2, 4, 6], "type": "int"}
        >>> launch = read_settings("BERT", {"parameters": [layers]})
        >>> launch.space.nearest(own_values(launch))
        {'num_hidden_layers': 6}
    """
    values: dict[str, Scalar] = {RANKS: launch.ranks, **launch.config.to_dict()}
    for parameter in launch.space.parameters:
        if parameter.name == LAYERS and values[LAYERS] is None and not parameter.contains(None):
            values[LAYERS] = parameter.values[-1]
    return values


def _go_on(_: CurvePoint) -> bool:
    return True


@contextmanager
def _own_clusters(launch: Launch) -> Iterator[list[TrainsRuns]]:
    """The clusters that trials need: one, or one of each number of ranks or group of cores."""
    clusters: list[Any] = []
    try:
        for cpus in core_groups(launch.parallel):
            with on_cpus(cpus):
                clusters += [cluster.start(wait=False) for cluster in _clusters_for(launch)]
        yield clusters
    finally:
        for cluster in clusters:
            cluster.stop()


def _clusters_for(launch: Launch) -> list[Any]:
    from bertkit.cluster import Cluster  # loads ipyparallel, which looking at a search needs not

    if launch.hosts:
        return [Cluster(hosts=launch.hosts)]
    parameter = next((p for p in launch.space.parameters if p.name == RANKS), None)
    numbers = [int(v or 1) for v in parameter.values] if parameter else [launch.ranks]
    return [Cluster(n=n) for n in (numbers if launch.search else [launch.ranks])]
