"""The picture: efficiency to a thousand ranks, and how far the model is from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from benchmarks.scaling import published
from benchmarks.scaling.step_time import Node
from bertkit.reports import style

DASHES = {"ring": "-", "hierarchical": (0, (4, 2))}
MEASURED_MODEL = "large"


def draw(found: dict[str, Any], points: Sequence[dict[str, Any]], node: Node, path: Path) -> None:
    """Draw both panels.

    Args:
        found: What `simulate` found.
        points: Measured sums.
        node: The published node; its step beside a measured sum makes a measured efficiency.
        path: PNG file.
    """
    look = style.theme("light")
    figure = style.new_figure(11.0, 4.6, look, dpi=80)
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
    _efficiencies(left, found, points, node, look)
    _predictions(right, found["sums"], look)
    figure.tight_layout()
    path.write_bytes(style.png(figure))


def _efficiencies(
    axes: Axes, found: dict[str, Any], points: Sequence[dict[str, Any]], node: Node,
    look: style.Theme,
) -> None:  # fmt: skip
    speeds = sorted({curve["gigabits"] for curve in found["efficiency"]})
    colors = dict(zip(speeds, look.series, strict=False))
    for curve in found["efficiency"]:
        ring = curve["sum"] == "ring"
        axes.plot(
            curve["ranks"], [100 * value for value in curve["efficiency"]],
            color=colors[curve["gigabits"]], linestyle=DASHES[curve["sum"]],
            linewidth=1.8 if ring else 1.2,
            label=f"{curve['gigabits']} GbE, one ring" if ring else None,
        )  # fmt: skip
    axes.plot([], [], color=look.faint, linestyle=DASHES["hierarchical"], linewidth=1.2,
              label="two levels, 4 ranks a host")  # fmt: skip
    step = node.per_example * published.EXAMPLES_PER_RANK + node.per_step
    for gigabits, color in colors.items():
        there = [
            (point["ranks"], 100 * step / (step + point["seconds"]))
            for point in points
            if point["payload"] == MEASURED_MODEL and "seconds" in point
            and point["megabits_of_shape"] == 1000 * gigabits
        ]  # fmt: skip
        if there:
            axes.plot(*zip(*there, strict=True), "o", color=color, markersize=7,
                      markeredgecolor=look.text)  # fmt: skip
    axes.plot([], [], "o", color=look.background, markeredgecolor=look.text, markersize=7,
              label="sum measured on such a link, not hidden")  # fmt: skip
    axes.plot(published.NODES, 100 * published.EFFICIENCY, "*", color=look.text, markersize=13,
              label=f"published: {published.SPEED_UP} x on {published.NODES} nodes")  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set(xlabel="ranks", ylabel="efficiency, %", ylim=(0, 103))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    style.dress(
        axes, look,
        title=f"BERT-large, {published.EXAMPLES_PER_RANK} examples a rank, "
              f"{published.STEP_SECONDS} s of computing a step",
    )  # fmt: skip
    axes.legend(fontsize=8, labelcolor=look.faint, frameon=False, loc="lower left")


def _predictions(axes: Axes, lines: Sequence[dict[str, Any]], look: style.Theme) -> None:
    groups = {
        "fitted on": ([line for line in lines if not line["held_out"]], "o", look.series[0]),
        "predicted": ([line for line in lines if line["held_out"]], "^", look.series[1]),
    }
    ends = [min(line["measured"] for line in lines), max(line["measured"] for line in lines)]
    axes.plot(ends, ends, color=look.line, linewidth=1)
    for label, (group, marker, color) in groups.items():
        axes.plot([line["measured"] for line in group], [line["predicted"] for line in group],
                  marker, color=color, markersize=5, label=label)  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="measured, s", ylabel="model, s")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    style.dress(axes, look, title="Sums over 2 and 4 ranks")
    axes.legend(fontsize=8, labelcolor=look.faint, frameon=False, loc="upper left")
