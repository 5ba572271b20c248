"""The settings of Intel's SDA, read into bertkit's own terms.

Every published key is known here: most of them say what a run's `Config`, its cluster or the search
should be; some meant something to Intel's scripts only, and say so in one line. Any other field of
`Config` may be set by its own name. A key that is neither is refused by its name.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bertkit.advisor.experiment import OBSERVATION_BUDGET
from bertkit.advisor.goals import Goals, Metric
from bertkit.advisor.parameters import Range
from bertkit.advisor.pruning import DEFAULT_PRUNING
from bertkit.advisor.space import Space
from bertkit.config import Config, settings
from bertkit.errors import AdvisorError
from bertkit.presets import preset

log = logging.getLogger("bertkit.advisor")

SAMPLE = "sample"
PRETRAINED_FOLDER = "pre-trained-model"
TRAIN_FILES = ("train-v1.1.json", "train-v2.0.json")
DEV_FILES = ("dev-v1.1.json", "dev-v2.0.json")
METRICS = ("f1", "exact_match")

KEYS = (
    "data_path", "train_dataset_path", "eval_dataset_path", "mpi_num_processes", "ppn", "hosts",
    "enable_sigopt", "observation_budget", "num_epochs", "metric", "metric_objective",
    "metric_threshold", "training_time_threshold", "step_threshold", "save_path", "experiment",
    "model_name", "parameters", "pruning", "time_budget",
)  # fmt: skip
"""Published keys, and three of bertkit's own: ``parameters`` (the search space, as SigOpt writes
it), ``pruning`` and ``time_budget``."""

WITHOUT_MEANING = {
    "python_path": "engines run the Python that runs this",
    "ccl_worker_num": "gradients travel over Horovod's Gloo, which has no oneCCL workers",
    "train_script": "bertkit trains with its own loop; register a command to run a script",
    "current_path": "bertkit needs no source folder",
    "cores": "every engine gets an equal share of the cores",
    "project": "experiments are kept in one file, without projects",
    "interative": "nothing is asked on the way",
}
"""Published keys that meant something to Intel's scripts, and why they do not here."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What the settings ask for.

    Args:
        config: Configuration of every run.
        ranks: Number of ranks.
        search: Whether to search, or to train once.
        space: What is searched.
        goals: What is wanted.
        observation_budget: Most trials.
        time_budget: Seconds after which no trial is begun.
        pruning: Rule by which trials are stopped early.
        experiment: What the search is called.
        save_path: Where runs, models and the experiments' file go.
    """

    config: Config
    ranks: int
    search: bool
    space: Space
    goals: Goals
    observation_budget: int
    time_budget: float | None
    pruning: str
    experiment: str
    save_path: Path


def check_keys(values: Mapping[str, Any]) -> None:
    """Refuse keys that are not known, and say which ones mean nothing here.

    Raises:
        AdvisorError: If a key is not known; the message names it.
    """
    fields = [s.name for s in settings()]
    for key in values:
        if key in WITHOUT_MEANING:
            log.warning("%s has no meaning here: %s", key, WITHOUT_MEANING[key])
        elif key not in KEYS and key not in fields:
            near = get_close_matches(key, [*KEYS, *fields], 1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(KEYS)}"
            raise AdvisorError(f"settings: {key!r} is not known; {hint}")


def read_settings(model: str, values: Mapping[str, Any]) -> Launch:
    """Read published settings for BERT.

    Args:
        model: The model type, for the name of its folder and experiment.
        values: The settings.

    Raises:
        AdvisorError: If a key is not known or a value cannot be used; the message names the key.
        ConfigError: If a value does not fit its configuration field.

    Example:
        >>> launch = read_settings("BERT", {"data_path": "sample", "metric_threshold": 80,
        ...                                 "enable_sigopt": True})
        >>> launch.config.target_f1, launch.goals.metrics[1].threshold, launch.search
        (80.0, 80.0, True)
    """
    check_keys(values)
    save_path = Path(str(values.get("save_path", "result"))).expanduser()
    folder = save_path / model.lower()
    goals = _goals(values)
    config = _config(values, goals, folder)
    return Launch(
        config=config,
        ranks=_ranks(values),
        search=_flag("enable_sigopt", values.get("enable_sigopt", False)),
        space=_space(values, config),
        goals=goals,
        observation_budget=_whole("observation_budget", values, OBSERVATION_BUDGET),
        time_budget=_number("time_budget", values),
        pruning=str(values.get("pruning", DEFAULT_PRUNING)),
        experiment=str(values.get("experiment", model)),
        save_path=folder,
    )


def _goals(values: Mapping[str, Any]) -> Goals:
    published = Goals.published()
    name = str(values.get("metric", "f1")).lower()
    if name not in METRICS:
        raise AdvisorError(f"metric is {values['metric']!r}; expected one of {', '.join(METRICS)}")
    objective = str(values.get("metric_objective", "maximize"))
    score = Metric(
        name, objective, _number("metric_threshold", values, published.metrics[1].threshold), "%"
    )
    if score.objective != "maximize":
        raise AdvisorError(f"metric_objective is {objective!r}; {name} can only be maximized")
    time = published.metrics[0]
    limit = _number("training_time_threshold", values, time.threshold)
    return Goals((Metric(time.name, time.objective, limit, time.unit), score))


def _config(values: Mapping[str, Any], goals: Goals, folder: Path) -> Config:
    data = str(values.get("data_path", SAMPLE))
    base = preset("demo") if data == SAMPLE else Config()
    changes: dict[str, Any] = {"data": data, "output": str(folder / "runs")}
    if data != SAMPLE:
        changes.update(_files(Path(data), values))
    score = goals.metrics[1]
    if score.name == "f1" and "metric_threshold" in values and score.threshold is not None:
        changes["target_f1"] = score.threshold
    for key in ("num_epochs", "step_threshold"):
        if values.get(key) is not None:
            changes[key] = values[key]
    own = {s.name: values[s.name] for s in settings() if s.name in values}
    return base.replace(**{**changes, **own})


def _files(data: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Data files outside the data folder, and the published place of a pretrained model."""
    found: dict[str, Any] = {}
    for key, field, names in (
        ("train_dataset_path", "train_file", TRAIN_FILES),
        ("eval_dataset_path", "dev_file", DEV_FILES),
    ):
        if values.get(key) is None:
            continue
        path = Path(str(values[key])).expanduser()
        if path.is_dir():
            path = next((path / name for name in names if (path / name).is_file()), path / names[0])
        if path.parent.resolve() != data.expanduser().resolve() or path.name not in names:
            found[field] = str(path)
    models = sorted((data / PRETRAINED_FOLDER).glob("**/*config.json"))
    if len({path.parent for path in models}) == 1 and "model" not in values:
        found["model"] = str(models[0].parent)
        log.warning("model is %s, the one in %s", found["model"], data / PRETRAINED_FOLDER)
    return found


def _ranks(values: Mapping[str, Any]) -> int:
    hosts = values.get("hosts") or ["localhost"]
    hosts = [hosts] if isinstance(hosts, str) else list(hosts)
    here = {"localhost", "127.0.0.1", "::1", socket.gethostname(), socket.getfqdn()}
    for host in hosts:
        if host not in here:
            raise AdvisorError(
                f"hosts: {host!r} is another machine; start an ipyparallel cluster over the hosts "
                "and give it as SDA(..., clusters=[Cluster(profile=...)])"
            )
    each = _whole("ppn", values, 1)
    ranks = _whole("mpi_num_processes", values, each * len(hosts))
    if "ppn" in values and ranks != each * len(hosts):
        raise AdvisorError(
            f"mpi_num_processes is {ranks}, but ppn {each} on {len(hosts)} hosts makes "
            f"{each * len(hosts)}; give one of them"
        )
    return ranks


def _space(values: Mapping[str, Any], config: Config) -> Space:
    if values.get("parameters") is not None:
        space = Space.read(values["parameters"])
        space.check_fields()
        return space
    return around(config)


def around(config: Config) -> Space:
    """The published space, with learning rates that suit a model of other size.

    The published learning rates are BERT-large's. Where a configuration's own rate is outside of
    them, as that of a small model with LAMB is, the range goes from a third of it to three times.

    Example:
        >>> around(Config(learning_rate=3e-3)).parameters[0].low
        0.001
    """
    published = Space.published()
    rate, *others = published.parameters
    own = config.learning_rate
    if not rate.contains(own):
        rate = Range("learning_rate", float(f"{own / 3:.2g}"), float(f"{own * 3:.2g}"), log=True)
        log.warning("learning_rate is searched from %g to %g", rate.low, rate.high)
    return Space((rate, *others))


def _whole(key: str, values: Mapping[str, Any], default: int) -> int:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise AdvisorError(f"{key} is {value!r}; expected a whole number of at least 1")
    return value


def _number(key: str, values: Mapping[str, Any], default: float | None = None) -> float | None:
    value = values.get(key, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AdvisorError(f"{key} is {value!r}; expected a number")
    return float(value)


def _flag(key: str, value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    found = words.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise AdvisorError(f"{key} is {value!r}; expected true or false")
    return found
