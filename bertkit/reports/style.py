"""How every picture looks: colours that colour-blind people can tell apart, light or dark.

Figures are made from matplotlib's objects, never through pyplot and never by changing its global
settings: a figure may be drawn in a thread while a person plots something else.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design" (2008).
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
GREY = "#7F7F7F"

MARKERS = ("o", "s", "^", "D", "v", "P")
"""Each run also has a shape, so that a picture can be read without its colours."""


@dataclass(frozen=True)
class Theme:
    """Colours of everything that is not data.

    Args:
        name: ``"light"`` or ``"dark"``.
        background: Behind the whole picture.
        text: Titles and labels.
        faint: Tick labels and notes.
        line: Axes.
        grid: Grid lines.
        series: Colours of the data, in the order in which runs take them.
    """

    name: str
    background: str
    text: str
    faint: str
    line: str
    grid: str
    series: tuple[str, ...]


LIGHT = Theme(
    "light", "#ffffff", "#1f2328", "#57606a", "#8c959f", "#e4e7eb",
    (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY),
)  # fmt: skip
DARK = Theme(
    "dark", "#111111", "#f0f0f0", "#b8bec6", "#767c84", "#30343a",
    (SKY, ORANGE, GREEN, PURPLE, VERMILION, BLUE),
)  # fmt: skip


def theme(name: str) -> Theme:
    """The theme called ``"light"`` or ``"dark"``.

    Raises:
        ValueError: If there is no such theme.
    """
    for candidate in (LIGHT, DARK):
        if candidate.name == name:
            return candidate
    raise ValueError(f"theme is {name!r}; expected 'light' or 'dark'")


def new_figure(width: float, height: float, look: Theme, dpi: int = 100) -> Figure:
    """An empty figure with a canvas of its own.

    Args:
        width: Width in inches.
        height: Height in inches.
        look: Its colours.
        dpi: Pixels per inch.
    """
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor=look.background)
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes, look: Theme, *, title: str = "", grid: str = "both") -> None:
    """Give axes the common look: two spines, faint grid, title at the left.

    Args:
        axes: What to dress.
        look: Its colours.
        title: Says what is drawn, with its unit.
        grid: ``"x"``, ``"y"`` or ``"both"``.
    """
    axes.set_facecolor(look.background)
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=look.text, pad=7)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(look.line)
    axes.tick_params(colors=look.line, labelcolor=look.faint, labelsize=9, length=3)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set(color=look.faint, fontsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_offset_text().set(color=look.faint, fontsize=8)
    axes.grid(True, axis=grid, color=look.grid, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=figure.get_facecolor())
    return file.getvalue()
