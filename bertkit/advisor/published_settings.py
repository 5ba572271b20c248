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
from bertkit.advisor.space import RANKS, Space
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
    "model_name", "parameters", "parallel_bandwidth", "pruning", "time_budget",
)  # fmt: skip
"""Published keys; SigOpt's ``parameters`` (the search space) and ``parallel_bandwidth`` (trials
that go on at once, each on its share of this host's cores); and bertkit's ``pruning`` and
``time_budget``."""

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
        hosts: Engines of each host; empty where all of them are on this one.
        parallel: Trials that go on at once, on disjoint groups of this host's cores.
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
    hosts: Mapping[str, int]
    parallel: int
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
    space, (ranks, hosts) = _space(values, config), _placement(values)
    return Launch(
        config=config,
        ranks=ranks,
        hosts=hosts,
        parallel=_parallel(values, space, elsewhere=bool(hosts)),
        search=_flag("enable_sigopt", values.get("enable_sigopt", False)),
        space=space,
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


def _placement(values: Mapping[str, Any]) -> tuple[int, dict[str, int]]:
    """Number of ranks, and engines of each host; no hosts where all of them are this one."""
    named = values.get("hosts") or ["localhost"]
    hosts = [named] if isinstance(named, str) else [str(host) for host in named]
    each = _each(values, len(hosts))
    here = {"localhost", "127.0.0.1", "::1", socket.gethostname(), socket.getfqdn()}
    return each * len(hosts), {} if set(hosts) <= here else dict.fromkeys(hosts, each)


def _each(values: Mapping[str, Any], hosts: int) -> int:
    """Engines of one host, from ``ppn``, ``mpi_num_processes`` or both."""
    ranks = _whole("mpi_num_processes", values, hosts * _whole("ppn", values, 1))
    each = _whole("ppn", values, ranks // hosts or 1)
    if ranks != each * hosts:
        raise AdvisorError(
            f"mpi_num_processes is {ranks}, but ppn {each} on {hosts} hosts makes "
            f"{each * hosts}; give one of them"
        )
    return each


def _parallel(values: Mapping[str, Any], space: Space, *, elsewhere: bool) -> int:
    """Trials at once; each needs cores of its own, or times would say nothing."""
    parallel = _whole("parallel_bandwidth", values, 1)
    if RANKS in space.names and (elsewhere or parallel > 1):
        key = "hosts" if elsewhere else "parallel_bandwidth"
        raise AdvisorError(
            f"{key}: the number of ranks is searched, which shares this host's cores anew for each "
            f"trial; leave out {key}, or 'ranks' in parameters"
        )
    if elsewhere and parallel > 1:
        raise AdvisorError(
            f"parallel_bandwidth is {parallel}, and hosts are named, which each trial uses all of; "
            "give clusters of your own as SDA(..., clusters=[Cluster(hosts=...), ...])"
        )
    return parallel


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
