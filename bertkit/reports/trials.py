"""How a search goes: its trials, their Pareto front, what matters, and what comes next.

Every picture is made of what the advisor hands out: trials, goals, a proposal, a surrogate. Nothing
here asks for trials or changes them.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from bertkit.reports import style
from bertkit.reports.style import Theme

if TYPE_CHECKING:  # the advisor is above the reports; only its types are needed
    from bertkit.advisor.goals import Goals, Metric
    from bertkit.advisor.surrogate import PartialDependence, Surrogate
    from bertkit.advisor.trial import Proposal, Trial

WIDTH = 9.0
MOST_PARAMETERS = 6
"""Parameters whose effect one picture shows; those that matter most."""

MOST_TICKS = 10
"""A parameter of at most so many values has each of them on its axis."""

_STATES = {"finished": "o", "pruned": "v", "failed": "X", "running": "D", "waiting": "D"}
_NAMES = {"f1": "F1", "exact_match": "Exact match", "training_time": "Training time"}


def trials_table(trials: Sequence[Trial], goals: Goals) -> str:
    """All trials as lines of text, the best one marked with ``*`` and the front with ``+``.

    Args:
        trials: In the order of the lines.
        goals: What is wanted.

    Returns:
        Aligned columns: number, state, parameters, metrics.
    """
    if not trials:
        return "no trials yet"
    best, front = _best_and_front(trials, goals)
    names = list(trials[0].parameters)
    rows = [["", "trial", "state", *names, *goals.names]]
    for trial in trials:
        mark = "*" if trial.number == best else "+" if trial.number in front else ""
        values = [_short(trial.parameters.get(name)) for name in names]
        scores = [_short(trial.metrics.get(name)) for name in goals.names]
        rows.append([mark, str(trial.number), str(trial.state), *values, *scores])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def plot_trials(
    trials: Sequence[Trial], goals: Goals, *, theme: str = "light", width: float = WIDTH
) -> Figure:
    """Draw every metric over the trials, with thresholds and the best trial.

    Args:
        trials: In the order of proposal.
        goals: What is wanted.
        theme: ``"light"`` or ``"dark"``.
        width: Width in inches.
    """
    look = style.theme(theme)
    count = len(goals.metrics)
    figure = style.new_figure(width, 1.1 + 1.9 * count, look)
    rows = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    best, _ = _best_and_front(trials, goals)
    for axes, metric in zip(rows, goals.metrics, strict=True):
        style.dress(axes, look, title=label(metric))
        _draw_metric(axes, trials, goals, metric, look)
        places = [(t.number, t.metrics[metric.name]) for t in trials if t.number == best]
        _mark_best(axes, places[0] if places else None, look)
        if _is_wide([t.metrics[metric.name] for t in trials if metric.name in t.metrics]):
            axes.set_yscale("log")
        axes.margins(x=0.03, y=0.12)
    failed = [t.number for t in trials if t.state == "failed"]
    for number in failed:
        rows[-1].plot(
            number, 0.04, marker="X", color=look.series[1], markersize=7, linestyle="",
            transform=rows[-1].get_xaxis_transform(), clip_on=False,
        )  # fmt: skip
    rows[-1].set_xlabel("Trial")
    rows[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, trials, look, best is not None, goals)
    figure.subplots_adjust(
        left=0.085, right=0.945, top=0.93, bottom=0.17 / count + 0.09, hspace=0.3
    )
    return figure


def plot_pareto(
    trials: Sequence[Trial],
    goals: Goals,
    *,
    proposal: Proposal | None = None,
    theme: str = "light",
    width: float = WIDTH,
) -> Figure:
    """Draw the first two metrics against each other: trials, front, thresholds, what is next.

    Args:
        trials: All trials.
        goals: What is wanted, at least two metrics.
        proposal: What comes next, drawn where the model expects it.
        theme: ``"light"`` or ``"dark"``.
        width: Width in inches.

    Raises:
        ValueError: If there is only one metric.
    """
    if len(goals.metrics) < 2:
        raise ValueError("a Pareto front needs two metrics; the goals have one")
    look = style.theme(theme)
    figure = style.new_figure(width, 0.6 * width, look)
    axes = figure.add_subplot()
    _draw_plane(axes, trials, goals, look, proposal)
    best, _ = _best_and_front(trials, goals)
    _legend(figure, trials, look, best is not None, goals, front=True, proposal=proposal)
    figure.subplots_adjust(left=0.085, right=0.945, top=0.9, bottom=0.19)
    return figure


def plot_effects(surrogate: Surrogate, *, theme: str = "light", width: float = WIDTH) -> Figure:
    """Draw what each parameter does to each metric, by the model of all trials.

    Each line is the metric's mean over all other parameters, the band one standard deviation of
    that expectation; the number above is the parameter's share of the metric's variation.

    Args:
        surrogate: The model.
        theme: ``"light"`` or ``"dark"``.
        width: Width in inches.
    """
    look = style.theme(theme)
    metrics = surrogate.goals.metrics
    shares = {m.name: surrogate.importance(m.name) for m in metrics}
    names = _most_important(shares)
    figure = style.new_figure(width, 0.6 + 2.15 * len(metrics), look)
    grid = figure.subplots(len(metrics), len(names), squeeze=False, sharey="row")
    for row, metric in enumerate(metrics):
        for column, name in enumerate(names):
            axes = grid[row, column]
            style.dress(axes, look)
            share = f"{shares[metric.name][name]:.0%} of the variation"
            axes.set_title(share, loc="left", fontsize=8.5, color=look.faint, pad=4)
            effect = surrogate.partial_dependence(name, metric.name)
            _draw_effect(axes, effect, look.series[row % len(look.series)])
            if column == 0:
                axes.set_ylabel(label(metric))
            if row == len(metrics) - 1:
                axes.set_xlabel(_name(name))
    bottom = 0.55 / figure.get_figheight()
    top = 1 - 0.32 / figure.get_figheight()
    figure.subplots_adjust(0.09, bottom, 0.985, top, wspace=0.14, hspace=0.36)
    return figure


def plot_importance(surrogate: Surrogate, *, theme: str = "light", width: float = WIDTH) -> Figure:
    """Draw how much of each metric's variation goes with each parameter.

    Args:
        surrogate: The model of all trials.
        theme: ``"light"`` or ``"dark"``.
        width: Width in inches.
    """
    look = style.theme(theme)
    metrics = surrogate.goals.metrics
    shares = {m.name: surrogate.importance(m.name) for m in metrics}
    names = sorted(surrogate.space.names, key=lambda n: sum(s[n] for s in shares.values()))
    height = 1.1 + 0.3 * len(names)
    figure = style.new_figure(width, height, look)
    columns = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
    for index, (axes, metric) in enumerate(zip(columns, metrics, strict=True)):
        title = f"Share of the variation of {_name(metric.name)} (%)"
        style.dress(axes, look, title=title, grid="x")
        values = [100 * shares[metric.name][name] for name in names]
        axes.barh(names, values, color=look.series[index % len(look.series)], height=0.62)
        for position, value in enumerate(values):
            axes.text(value + 1.5, position, f"{value:.0f}", va="center", fontsize=9,
                      color=look.text)  # fmt: skip
        axes.set_xlim(0, 112)
        axes.xaxis.set_major_locator(FixedLocator([0, 25, 50, 75, 100]))
        axes.tick_params(axis="y", length=0, labelcolor=look.text)
    longest = max(len(name) for name in names)
    figure.subplots_adjust(
        left=min(0.35, 0.03 + 0.075 * longest / width), right=0.985,
        top=1 - 0.38 / height, bottom=0.36 / height, wspace=0.08,
    )  # fmt: skip
    return figure


def plot_proposal(
    proposal: Proposal,
    trials: Sequence[Trial],
    goals: Goals,
    *,
    theme: str = "light",
    width: float = WIDTH,
) -> Figure:
    """Draw the next proposal: its values, why it was chosen, and what the model expects.

    Args:
        proposal: What comes next.
        trials: All trials so far.
        goals: What is wanted.
        theme: ``"light"`` or ``"dark"``.
        width: Width in inches.
    """
    look = style.theme(theme)
    figure = style.new_figure(width, 3.9, look)
    words = figure.add_axes((0.02, 0.02, 0.36, 0.96))
    words.set_axis_off()
    _write_proposal(words, proposal, goals, look)
    axes = figure.add_axes((0.47, 0.15, 0.48, 0.74))
    if len(goals.metrics) > 1:
        _draw_plane(axes, trials, goals, look, proposal)
    else:
        metric = goals.metrics[0]
        style.dress(axes, look, title=label(metric))
        _draw_metric(axes, trials, goals, metric, look)
        if metric.name in proposal.predicted:
            expected = proposal.predicted[metric.name]
            _error_bars(axes, len(trials) + 1, expected.mean, None, expected.std, look)
        axes.set_xlabel("Trial")
    return figure


def label(metric: Metric) -> str:
    """A metric's name and unit for an axis: ``"Training time (s)"``."""
    return f"{_name(metric.name)} ({metric.unit})" if metric.unit else _name(metric.name)


def with_uncertainty(mean: float, std: float) -> str:
    """Both numbers to the second digit of the uncertain one: ``"83.4 ± 5.4"``."""
    digits = max(0, 1 - math.floor(math.log10(std))) if std > 0 else 2
    return f"{mean:.{digits}f} ± {std:.{digits}f}"


# Parts of the pictures ---------------------------------------------------------------------------


def _draw_metric(
    axes: Axes, trials: Sequence[Trial], goals: Goals, metric: Metric, look: Theme
) -> None:
    """One metric over the trials, with that of the best trial so far and the threshold."""
    for state, color in _colors(look).items():
        points = [
            (t.number, t.metrics[metric.name])
            for t in trials
            if t.state == state and metric.name in t.metrics
        ]
        if points:
            hollow = state != "finished"
            axes.plot(
                *zip(*points, strict=True), linestyle="", marker=_STATES[state], markersize=6,
                color=color, markerfacecolor=look.background if hollow else color,
            )  # fmt: skip
    leaders = _best_so_far(trials, goals)
    if leaders:
        numbers = [number for number, _ in leaders] + [trials[-1].number]
        values = [leader.metrics[metric.name] for _, leader in leaders]
        axes.step(
            numbers, [*values, values[-1]], where="post", color=look.series[0], linewidth=1.2,
            alpha=0.6,
        )  # fmt: skip
    if metric.threshold is not None:
        _threshold(axes, metric, look, across=False)


def _draw_plane(
    axes: Axes, trials: Sequence[Trial], goals: Goals, look: Theme, proposal: Proposal | None
) -> None:
    """Two metrics against each other."""
    first, second = goals.metrics[:2]
    style.dress(axes, look, title=f"{label(second)} against {_lower(label(first))}")

    axes.set_xlabel(label(first))
    names = (first.name, second.name)
    shown = [t for t in trials if set(names) <= set(t.metrics)]
    best, front = _best_and_front(trials, goals)
    for state, color in _colors(look).items():
        points = [t for t in shown if t.state == state]
        hollow = state != "finished"
        axes.plot(
            *([t.metrics[name] for t in points] for name in names), linestyle="", markersize=6,
            marker=_STATES[state], color=color, alpha=0.9,
            markerfacecolor=look.background if hollow else color,
        )  # fmt: skip
    line = sorted([t.metrics[n] for n in names] for t in shown if t.number in front)
    if line:
        axes.step(
            *zip(*line, strict=True), where="post" if first.sign > 0 else "pre",
            color=look.series[2], linewidth=1.6, zorder=1,
        )  # fmt: skip
    if proposal is not None and set(names) <= set(proposal.predicted):
        x, y = (proposal.predicted[name] for name in names)
        _error_bars(axes, x.mean, y.mean, x.std, y.std, look)
    if _is_wide([t.metrics[names[0]] for t in shown]):
        axes.set_xscale("log")
    axes.margins(0.06, 0.1)
    _keep_view(axes, shown)
    places = [(t.metrics[names[0]], t.metrics[names[1]]) for t in shown if t.number == best]
    _mark_best(axes, places[0] if places else None, look)
    for metric, across in ((first, True), (second, False)):
        if metric.threshold is not None:
            _threshold(axes, metric, look, across=across)


def _keep_view(axes: Axes, shown: Sequence[Trial]) -> None:
    """Thresholds far from every trial stay out of the picture; the trials fill it."""
    if len(shown) > 1:
        axes.autoscale_view()
        axes.set_xlim(axes.get_xlim())
        axes.set_ylim(axes.get_ylim())


def _threshold(axes: Axes, metric: Metric, look: Theme, *, across: bool) -> None:
    """A dashed line at the threshold, named outside of the axes; an arrow if it is out of view."""
    value = float(metric.threshold or 0.0)
    low, high = axes.get_xlim() if across else axes.get_ylim()
    place = min(max(value, low), high)
    arrow = "" if place == value else (("←", "↓"), ("→", "↑"))[bool(value > high)][not across]
    if not arrow:
        line = axes.axvline if across else axes.axhline
        line(value, color=look.series[3], linestyle="--", linewidth=1.2, zorder=0)
    text = f"{value:g} {arrow}".rstrip()
    if across:
        axes.text(
            place, 1.01, text, transform=axes.get_xaxis_transform(), color=look.series[3],
            fontsize=8, va="bottom", ha="center" if not arrow else "right",
        )  # fmt: skip
        return
    axes.text(
        1.006, place, text, transform=axes.get_yaxis_transform(), color=look.series[3],
        fontsize=8, va="center", ha="left",
    )  # fmt: skip


def _mark_best(axes: Axes, place: tuple[float, float] | None, look: Theme) -> None:
    if place is not None:
        axes.plot(
            *place, marker="*", markersize=15, color=look.series[4], linestyle="",
            markeredgecolor=look.text, markeredgewidth=0.8, zorder=5,
        )  # fmt: skip


def _error_bars(
    axes: Axes, x: float, y: float, x_error: float | None, y_error: float, look: Theme
) -> None:
    axes.errorbar(
        x, y, xerr=x_error, yerr=y_error, marker="D", markersize=7, color=look.text,
        markerfacecolor=look.background, capsize=3, linewidth=1.2, zorder=4,
    )  # fmt: skip


def _draw_effect(axes: Axes, effect: PartialDependence, color: str) -> None:
    if len(effect.values) <= MOST_TICKS:
        _draw_choices(axes, effect, color)
        return
    values = np.array(effect.values, dtype=np.float64)
    low, high = effect.mean - effect.std, effect.mean + effect.std
    axes.fill_between(values, low, high, color=color, alpha=0.18, linewidth=0)
    axes.plot(values, effect.mean, color=color, linewidth=1.8)
    if not effect.log:
        axes.xaxis.set_major_locator(MaxNLocator(3))
        return
    axes.set_xscale("log")
    ticks = [values[0], (values[0] * values[-1]) ** 0.5, values[-1]]
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])


def _draw_choices(axes: Axes, effect: PartialDependence, color: str) -> None:
    """One point a value; a line only between numbers."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in effect.values)
    places = np.arange(len(effect.values), dtype=np.float64)
    axes.errorbar(
        places, effect.mean, yerr=effect.std, color=color, marker="o", markersize=5,
        linestyle="-" if numbers else "", linewidth=1.4, elinewidth=1.0, capsize=2,
    )  # fmt: skip
    axes.set_xticks(places, [_short(v) for v in effect.values])
    axes.set_xlim(-0.5, len(places) - 0.5)


def _write_proposal(axes: Axes, proposal: Proposal, goals: Goals, look: Theme) -> None:
    """Values, expectation and reason as text."""
    lines = [("Next proposal", True)]
    lines += [(f"{_name(n)}: {_short(v)}", False) for n, v in proposal.parameters.items()]
    if proposal.predicted:
        lines += [("", False), ("The model expects", True)]
        for metric in goals.metrics:
            if metric.name in proposal.predicted:
                expected = proposal.predicted[metric.name]
                numbers = with_uncertainty(expected.mean, expected.std)
                lines.append((f"{_name(metric.name)}: {numbers} {metric.unit}".rstrip(), False))
    lines += [("", False), ("Why", True)]
    lines += [(line, False) for line in textwrap.wrap(proposal.reason, 46)]
    for index, (line, strong) in enumerate(lines):
        axes.text(
            0.02, 0.97 - 0.062 * index, line, va="top", color=look.text,
            fontsize=10 if strong else 9.5, fontweight="bold" if strong else "normal",
            transform=axes.transAxes,
        )  # fmt: skip


def _legend(
    figure: Figure,
    trials: Sequence[Trial],
    look: Theme,
    has_best: bool,
    goals: Goals,
    *,
    front: bool = False,
    proposal: Proposal | None = None,
) -> None:
    states = {str(t.state) for t in trials}
    entries = [
        Line2D([], [], linestyle="", marker=_STATES[state], color=color, label=state,
               markerfacecolor=color if state in ("finished", "failed") else look.background)
        for state, color in {**_colors(look), "failed": look.series[1]}.items()
        if state in states and not (front and state == "failed")
    ]  # fmt: skip
    if front:
        entries.append(Line2D([], [], color=look.series[2], linewidth=1.6, label="Pareto front"))
    else:
        entries.append(
            Line2D(
                [], [], color=look.series[0], linewidth=1.2, alpha=0.6, label="best trial so far"
            )
        )
    if any(m.threshold is not None for m in goals.metrics):
        entries.append(
            Line2D([], [], color=look.series[3], linestyle="--", linewidth=1.2, label="threshold")
        )
    if has_best:
        entries.append(
            Line2D([], [], linestyle="", marker="*", markersize=12, color=look.series[4],
                   markeredgecolor=look.text, markeredgewidth=0.8, label="best trial")
        )  # fmt: skip
    if proposal is not None and proposal.predicted:
        entries.append(
            Line2D([], [], linestyle="-", marker="D", color=look.text,
                   markerfacecolor=look.background, label="next, as expected")
        )  # fmt: skip
    figure.legend(
        handles=entries, loc="lower center", ncols=len(entries), frameon=False, fontsize=9,
        labelcolor=look.text, handletextpad=0.5, columnspacing=1.6,
    )  # fmt: skip


def _best_and_front(trials: Sequence[Trial], goals: Goals) -> tuple[int | None, set[int]]:
    """Number of the best trial, and of those on the front."""
    finished = [t for t in trials if t.state == "finished"]
    metrics = [t.metrics for t in finished]
    position = goals.best(metrics)
    front = {finished[i].number for i in goals.pareto(metrics)} if finished else set()
    return (None if position is None else finished[position].number), front


def _best_so_far(trials: Sequence[Trial], goals: Goals) -> list[tuple[int, Trial]]:
    """The best trial at each finished one, with the number of that one."""
    finished: list[Trial] = []
    found = []
    for trial in trials:
        if trial.state == "finished":
            finished.append(trial)
            position = goals.best([t.metrics for t in finished])
            found += [] if position is None else [(trial.number, finished[position])]
    return found


def _most_important(shares: Mapping[str, Mapping[str, float]]) -> list[str]:
    names = list(next(iter(shares.values())))
    total = {name: sum(share[name] for share in shares.values()) for name in names}
    kept = sorted(names, key=lambda n: -total[n])[:MOST_PARAMETERS]
    return [name for name in names if name in kept]


def _colors(look: Theme) -> dict[str, str]:
    return {"finished": look.series[0], "pruned": look.faint}


def _is_wide(values: Sequence[float]) -> bool:
    """Whether values such as times differ so much that only a logarithmic scale shows them."""
    return bool(values) and min(values) > 0 and max(values) > 20 * min(values)


def _name(name: str) -> str:
    words = name.replace("_", " ")
    return _NAMES.get(name, words[:1].upper() + words[1:])


def _lower(text: str) -> str:
    return text if text[:2].isupper() or text[:2] == "F1" else text[:1].lower() + text[1:]


def _short(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return str(value)
