"""What ``bertkit advise`` shows: each trial as it ends, then what the search came to.

What goes on is told on standard error, the result on standard output.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bertkit.advisor.experiment import Experiment
from bertkit.advisor.goals import Goals, Metric
from bertkit.advisor.sda import SDA
from bertkit.advisor.trial import Assignment, Origin, State, Trial
from bertkit.reports.console import duration

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def launch(sda: SDA, conf: str | Path) -> None:
    """Launch, show every trial, and print the result.

    Args:
        sda: What is to be launched.
        conf: The file its settings are from, for the line that says how to go on.

    Raises:
        AdvisorError: As `SDA.launch` does.
        KeyboardInterrupt: On Ctrl-C; its message says how to go on.
    """
    sda.on_trial = lambda trial: _tell(describe_trial(trial, sda.goals, sda.observation_budget))
    with _log_on_stderr():
        try:
            sda.launch()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_how_to_go_on(sda, conf)) from None
    model = sda.snapshot()
    if model.experiment_id is None or model.store is None or not sda.searches:
        model.explain()
        return
    with Experiment(model.store, model.experiment_id) as experiment:
        folder = Path(model.store).parent / f"experiment-{experiment.id}"
        sys.stdout.write(describe_search(experiment))
        sys.stdout.write(_row("Pictures", ", ".join(map(str, save_pictures(experiment, folder)))))


def describe_trial(trial: Trial, goals: Goals, budget: int) -> str:
    """One line about a trial that has ended.

    Example:
        >>> trial = Trial(number=3, parameters={"batch_size": 96}, state=State.FINISHED,
        ...               origin=Origin.MODEL, metrics={"training_time": 61.2, "f1": 88.5},
        ...               started=0.0, ended=75.0)
        >>> describe_trial(trial, Goals.published(), 12)
        'Trial 3 of 12 finished after 1:15: training_time 61.20 s, f1 88.50 %'
    """
    words = f"Trial {trial.number} of {budget} {trial.state}"
    if trial.seconds is not None:
        words += f" after {duration(trial.seconds)}"
    reached = [trial.message] if trial.message else []
    if all(name in trial.metrics for name in goals.names):
        reached.append(_metrics(trial.metrics, goals))
    return f"{words}: {'; '.join(reached)}" if reached else words


def describe_search(experiment: Experiment) -> str:
    """The trials, the Pareto set, and the best assignment with the rule it was chosen by."""
    from bertkit.reports.trials import trials_table

    goals, trials, best = experiment.goals, experiment.trials, experiment.best
    lines = [trials_table(trials, goals), "\n\n", goals.rule(), "\n\n"]
    front = ", ".join(str(t.number) for t in experiment.pareto)
    lines.append(_row("Pareto set", f"trials {front}" if best else "no trial has finished"))
    if best is not None:
        met = "" if goals.meets(best.metrics) else "; it does not reach every threshold"
        lines += [
            _row("Best", f"trial {best.number}: {_metrics(best.metrics, goals)}{met}"),
            _row("Values", _values(best.parameters)),
            _compared_with_default(best, trials, goals),
            _row("Model", best.artifact or "-"),
        ]
    lines.append(_row("Experiment", f"{experiment.id} in {experiment.store.path}"))
    return "".join(lines)


def save_pictures(experiment: Experiment, folder: Path) -> list[Path]:
    """Draw what the trials allow for; gives the files."""
    from bertkit.reports import trials as pictures

    trials, goals = experiment.trials, experiment.goals
    figures: dict[str, Figure] = {"trials.png": pictures.plot_trials(trials, goals)}
    if len(goals.metrics) > 1 and experiment.finished:
        figures["pareto.png"] = pictures.plot_pareto(trials, goals)
    if len(experiment.finished) > 1:
        surrogate = experiment.surrogate()
        figures["effects.png"] = pictures.plot_effects(surrogate)
        figures["importance.png"] = pictures.plot_importance(surrogate)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / name)
    return [folder / name for name in figures]


def _compared_with_default(best: Trial, trials: list[Trial], goals: Goals) -> str:
    """How many times better the first metric became, where the default settings were tried."""
    first = goals.metrics[0]
    for trial in trials:
        if trial.origin is Origin.DEFAULT and trial.state is State.FINISHED:
            before, after = trial.metrics[first.name], best.metrics[first.name]
            shown = f"{_value(before, first)} to {_value(after, first)}"
            if before > 0 and after > 0:
                times = before / after if first.objective == "minimize" else after / before
                shown += f" ({times:.2f} times better)"
            return _row("From default", f"{first.name} {shown}")
    return ""


def _metrics(values: Mapping[str, float], goals: Goals) -> str:
    return ", ".join(f"{m.name} {_value(values[m.name], m)}" for m in goals.metrics)


def _value(value: float, metric: Metric) -> str:
    number = f"{value:.2f}" if abs(value) >= 1 else f"{value:.4g}"
    return f"{number} {metric.unit}".rstrip()


def _values(parameters: Assignment) -> str:
    return ", ".join(f"{name} {value}" for name, value in parameters.items())


def _row(name: str, value: str) -> str:
    return f"{name:<12} {value}\n"


def _how_to_go_on(sda: SDA, conf: str | Path) -> str:
    known = sda.snapshot()
    if known.experiment_id is None or not sda.searches:
        return "interrupted"
    return f"interrupted; 'bertkit advise --conf {conf} --resume {known.experiment_id}' goes on"


def _tell(words: str) -> None:
    sys.stderr.write(" ".join(words.split()) + "\n")
    sys.stderr.flush()


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Show what the advisor notes on its way, a line each."""
    log, handler = logging.getLogger("bertkit.advisor"), _Lines()
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _tell(record.getMessage())
