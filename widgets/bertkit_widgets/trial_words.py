"""Trials in words, numbers and table rows."""

from __future__ import annotations

from collections.abc import Sequence

from bertkit.advisor import Goals, Metric, Space, State, Trial
from bertkit.advisor.trial import Origin
from bertkit.reports.console import duration
from bertkit.reports.trials import label
from bertkit_widgets import style
from bertkit_widgets.form import as_text

BEST, FRONT = "★ best", "◆ front"


def state_words(
    trials: Sequence[Trial], goals: Goals, budget: int, searching: bool, stopping: bool
) -> str:
    """HTML that says where a search stands.

    Args:
        trials: All trials so far.
        goals: What is wanted.
        budget: Most trials.
        searching: Whether it goes on here.
        stopping: Whether it was asked to stop.
    """
    running = [t for t in trials if t.state is State.RUNNING]
    if stopping:
        return style.status("wait", "Stopping.", "The running trial goes on when the search does.")
    if running:
        return style.status("wait", f"Trial {running[-1].number} goes on.", _progress(running[-1]))
    if searching:
        return style.status("wait", "Choosing", "what to try next …")
    best = _best(trials, goals)
    if best is None:
        words = "No trial has finished." if trials else "Start the search, or ask for a proposal."
        return style.status("note", f"{_spent(trials)} of {budget} trials.", words)
    words = f"{_scores(best, goals)}. {goals.rule()}"
    if _spent(trials) >= budget:
        words += " The budget is spent; raise 'Trials at most' to go on."
    kind = "good" if goals.meets(best.metrics) else "note"
    return style.status(kind, f"Best so far: trial {best.number}.", words)


def trial_tiles(trials: Sequence[Trial], goals: Goals, budget: int) -> str:
    """HTML of the most important numbers."""
    best = _best(trials, goals)
    tiles = [("Trials of the budget", f"{_spent(trials)} of {budget}")]
    if best is not None:
        front = goals.pareto([t.metrics for t in _finished(trials)])
        tiles += [("Best trial", str(best.number)), ("On the Pareto front", str(len(front)))]
        tiles += [
            (f"{label(m)} of the best", _number(m, best.metrics[m.name])) for m in goals.metrics
        ]
    return style.tiles(tiles)


def trial_rows(trials: Sequence[Trial], goals: Goals, space: Space) -> str:
    """HTML of a table of all trials, the newest first."""
    if not trials:
        return ""
    best, finished = _best(trials, goals), _finished(trials)
    front = {finished[i].number for i in goals.pareto([t.metrics for t in finished])}
    header = ["Trial", "State", *space.names, *(label(m) for m in goals.metrics), "Note"]
    rows: list[list[object]] = []
    for trial in reversed(trials):
        marked = BEST if best is not None and trial.number == best.number else ""
        rows.append(
            [
                trial.number,
                marked or (FRONT if trial.number in front else str(trial.state)),
                *(as_text(trial.parameters.get(name)) for name in space.names),
                *(_metric(m, trial) for m in goals.metrics),
                _note(trial),
            ]
        )
    return style.table(header, rows, caption="Trials, the newest first")


def describe_front(trials: Sequence[Trial], goals: Goals) -> str:
    """One sentence that says what the picture of the front shows."""
    best, finished = _best(trials, goals), _finished(trials)
    front = [finished[i] for i in goals.pareto([t.metrics for t in finished])]
    words = f"{len(finished)} finished trials, {len(front)} of them on the Pareto front."
    return f"{words} Best: trial {best.number}, {_scores(best, goals)}." if best else words


def _finished(trials: Sequence[Trial]) -> list[Trial]:
    return [t for t in trials if t.state is State.FINISHED]


def _best(trials: Sequence[Trial], goals: Goals) -> Trial | None:
    finished = _finished(trials)
    position = goals.best([t.metrics for t in finished])
    return None if position is None else finished[position]


def _spent(trials: Sequence[Trial]) -> int:
    free = [t for t in trials if t.state is State.SKIPPED or t.origin is Origin.IMPORTED]
    return len(trials) - len(free)


def _scores(trial: Trial, goals: Goals) -> str:
    scores = [
        f"{label(Metric(m.name, m.objective)).lower() if m.name != 'f1' else 'F1'} "
        f"{_number(m, trial.metrics[m.name])}{' ' * (m.unit != '')}{m.unit}"
        for m in goals.metrics
    ]
    return ", ".join(scores)


def _progress(trial: Trial) -> str:
    if not trial.curve:
        return trial.reason
    last = trial.curve[-1]
    return f"F1 {last.value:.1f} at step {last.step} after {duration(last.seconds)}."


def _metric(metric: Metric, trial: Trial) -> object:
    value = trial.metrics.get(metric.name)
    return "–" if value is None else _number(metric, value)  # noqa: RUF001


def _number(metric: Metric, value: float) -> str:
    return f"{value:.1f}" if metric.unit in ("s", "%") else f"{value:.4g}"


def _note(trial: Trial) -> str:
    if trial.message:
        return trial.message
    return "" if trial.state is State.FINISHED else str(trial.origin)
