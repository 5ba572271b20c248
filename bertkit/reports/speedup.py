"""How much faster each optimisation made it, and that the answers stayed as good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bertkit.errors import RunError
from bertkit.reports import style
from bertkit.reports.console import duration
from bertkit.run import Result, Run

Measure = Literal["wall_seconds", "examples_per_second"]
"""What is compared: the time a whole run took, or how many examples it trained on a second."""


@dataclass(frozen=True)
class Speedup:
    """One bar of the chart.

    Args:
        name: What was switched on last.
        seconds: Time of the whole run.
        examples_per_second: Its speed.
        f1: F1 of its best model, in percent.
        factor: How many times faster it is than the first.
    """

    name: str
    seconds: float
    examples_per_second: float
    f1: float
    factor: float


def speedups(
    results: Mapping[str, Result | Run | str | Path], measure: Measure = "wall_seconds"
) -> list[Speedup]:
    """Compare finished runs with the first of them.

    Args:
        results: Results, runs or their folders by what was switched on, the slow one first.
        measure: What is compared.

    Raises:
        RunError: If a run has no result yet.
    """
    found = {name: _result(name, source) for name, source in results.items()}
    first = next(iter(found.values()))
    return [
        Speedup(
            name=name,
            seconds=result.wall_seconds,
            examples_per_second=result.examples_per_second,
            f1=result.f1,
            factor=_factor(first, result, measure),
        )
        for name, result in found.items()
    ]


def plot_speedup(
    results: Mapping[str, Result | Run | str | Path],
    *,
    measure: Measure = "wall_seconds",
    theme: str = "light",
    width: float = 9.0,
) -> Figure:
    """Draw how many times faster each run was than the first, one bar a run.

    Args:
        results: Results, runs or their folders by what was switched on, the slow one first.
        measure: ``"wall_seconds"`` compares the time until training stopped,
            ``"examples_per_second"`` the speed alone.
        theme: ``"light"`` or ``"dark"``.
        width: Width in inches.

    Returns:
        A figure with a bar a run; beside it the factor, the time or speed, and the F1 that was
        reached, so that nobody mistakes a worse model for a faster one.

    Raises:
        RunError: If a run has no result yet.

    Example:
        >>> plot_speedup({"1 engine": "runs/one", "2 engines": "runs/two"})    # doctest: +SKIP
    """
    look = style.theme(theme)
    bars = speedups(results, measure)
    figure = style.new_figure(width, 1.15 + 0.52 * len(bars), look, dpi=150)
    axes = figure.add_subplot()
    what = "training time" if measure == "wall_seconds" else "examples/sec"
    style.dress(axes, look, title=f"Times faster than '{bars[0].name}' ({what})", grid="y")
    _draw_bars(axes, bars, measure, look)
    figure.tight_layout()
    return figure


def _draw_bars(axes: Axes, bars: list[Speedup], measure: Measure, look: style.Theme) -> None:
    rows = range(len(bars))
    colors = [look.line, *[look.series[0]] * (len(bars) - 1)]
    axes.barh(rows, [bar.factor for bar in bars], color=colors, height=0.62)
    axes.set_yticks(rows, [bar.name for bar in bars], fontsize=10, color=look.text)
    axes.invert_yaxis()
    axes.grid(False)
    axes.tick_params(axis="y", length=0)
    longest = max(bar.factor for bar in bars)
    axes.set_xlim(0, 1.5 * longest)  # the words stand to the right of the bars
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= 1.05 * longest])
    for row, bar in zip(rows, bars, strict=True):
        amount = (
            duration(bar.seconds)
            if measure == "wall_seconds"
            else f"{bar.examples_per_second:.1f} examples/sec"
        )
        label = axes.annotate(
            f"{bar.factor:.1f}x", (bar.factor, row), (6, 0), textcoords="offset points",
            va="center", fontsize=10.5, fontweight="bold", color=look.text,
        )  # fmt: skip
        axes.annotate(
            f"{amount}, F1 {bar.f1:.1f}", (1, 0.5), (8, 0), xycoords=label,
            textcoords="offset points", va="center", fontsize=9.5, color=look.faint,
        )  # fmt: skip


def _factor(first: Result, result: Result, measure: Measure) -> float:
    if measure == "wall_seconds":
        return first.wall_seconds / result.wall_seconds
    return result.examples_per_second / first.examples_per_second


def _result(name: str, source: Result | Run | str | Path) -> Result:
    if isinstance(source, Result):
        return source
    run = source if isinstance(source, Run) else Run(source)
    if run.result is None:
        raise RunError(f"{run.folder} ({name}) has no result yet; wait for it or leave it out")
    return run.result
