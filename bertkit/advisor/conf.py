"""A launch from a file: what ``bertkit advise --conf file`` does.

The file holds the published settings, as lines of YAML:

    train_dataset_path: sample
    enable_sigopt: true
    observation_budget: 12
    metric_threshold: 80
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bertkit.advisor.hydro_model import HydroModel
from bertkit.advisor.sda import SDA
from bertkit.advisor.search_loop import OnTrial
from bertkit.config import read_mapping


def advise(
    conf: str | Path,
    *,
    resume: int | str | Path | None = None,
    on_trial: OnTrial | None = None,
    **overrides: Any,
) -> HydroModel:
    """Launch what a file of settings says.

    Args:
        conf: The file, JSON or YAML.
        resume: The id of an experiment to go on with, which is in the store where the file's
            settings keep theirs; or a saved `HydroModel` to start again from.
        on_trial: Called with every trial that has ended.
        **overrides: Settings that replace those of the file, such as ``data_path="sample"``;
            ``None`` replaces nothing.

    Returns:
        The best model.

    Raises:
        AdvisorError: If a setting is not known or cannot be used, or there is no such experiment.
        ConfigError: If the file cannot be read, or a setting does not fit its field.
    """
    sda = read_conf(conf, resume=resume, on_trial=on_trial, **overrides)
    sda.launch()
    return sda.snapshot()


def read_conf(
    conf: str | Path,
    *,
    resume: int | str | Path | None = None,
    on_trial: OnTrial | None = None,
    **overrides: Any,
) -> SDA:
    """Read a file of settings without launching anything; see `advise`."""
    given = {key: value for key, value in overrides.items() if value is not None}
    settings = {**read_mapping(conf), **given}
    register = settings.pop("register", None)
    model = str(settings.get("model_name", "BERT"))
    known = HydroModel.load(resume) if isinstance(resume, str | Path) else None
    sda = SDA(model=model, settings=settings, hydro_model=known, on_trial=on_trial)
    if register is not None:
        sda.register(register)
    if isinstance(resume, int):
        sda.resume(resume)
    return sda
