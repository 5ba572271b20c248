"""How training goes: loss, examples/sec, learning rate and validation F1 over the steps."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from bertkit.events import StopReason
from bertkit.reports import style
from bertkit.reports.history import Columns, Floats, History, Source, gather

Along = Literal["step", "minutes"]
"""What the curves are drawn along: steps, or minutes since the run started."""

MOST_POINTS = 600
"""Points a line is drawn from at most; more would be smaller than a pixel."""

PALETTE_USES = 10
"""Pictures of one choice of colours; new lines bring new colours."""


@dataclass(frozen=True)
class _Panel:
    """One pair of axes.

    Args:
        title: What it shows, with its unit.
        raw: Column drawn faintly, empty for none.
        smooth: Column drawn as a line, empty for none.
    """

    title: str
    raw: str
    smooth: str


_LOSS = _Panel("Training loss", "loss", "smoothed_loss")
_F1 = _Panel("Validation F1 (%)", "", "")
_SPEED = _Panel("Examples/sec", "examples_per_second", "smoothed_examples_per_second")
_RATE = _Panel("Learning rate", "", "learning_rate")
_PANELS = (_LOSS, _F1, _SPEED, _RATE)


class Curves:
    """A picture of one or several runs that can be brought up to date again and again.

    What seldom changes (axes, titles, grid) is drawn once and kept; what moves is drawn over it.
    That makes an update four to five times cheaper than drawing a new figure, which matters while
    the same processor trains.

    Args:
        along: Draw along steps or minutes.
        theme: ``"light"`` or ``"dark"``.
        width: Width in inches.
        height: Height in inches.
        dpi: Pixels per inch.

    Attributes:
        figure: The matplotlib figure.
        along: What it is drawn along.
        description: What the picture shows, in words, for people who do not see it.
    """

    def __init__(
        self,
        *,
        along: Along = "step",
        theme: str = "light",
        width: float = 9.0,
        height: float = 5.4,
        dpi: int = 100,
    ) -> None:
        self.along = along
        self._look = style.theme(theme)
        self.figure = style.new_figure(width, height, self._look, dpi)
        self.description = "No run yet"
        self._axes = self._make_axes()
        self._runs: list[_RunLines] = []
        self._targets: tuple[float, ...] = ()
        self._still: tuple[object, ...] = ()  # what the kept background was drawn for
        self._background: object = None
        self._palette: Image.Image | None = None  # a picture that has the colours
        self._palette_uses = 0

    def update(self, histories: Sequence[History]) -> None:
        """Take over the newest points of the runs.

        Args:
            histories: The runs to show, each with a name of its own.
        """
        if [h.name for h in histories] != [run.name for run in self._runs]:
            self._make_lines(histories)
        for run, history in zip(self._runs, histories, strict=True):
            run.update(history, self.along, alone=len(histories) == 1)
        self._show_targets(histories)
        self._set_limits(histories)
        self.description = "Curves of " + "; ".join(h.summary() for h in histories)

    def png(self) -> bytes:
        """The picture as a PNG file, drawing only what moved since the last time."""
        canvas: Any = self.figure.canvas  # matplotlib has no types for what follows
        moving = [artist for run in self._runs for artist in run.artists]
        still = (self._targets, tuple(run.name for run in self._runs), *self._limits())
        if self._background is None or still != self._still:
            shown = [artist.get_visible() for artist in moving]
            _show(moving, [False] * len(moving))
            canvas.draw()
            self._background, self._still = canvas.copy_from_bbox(self.figure.bbox), still
            _show(moving, shown)
            self._palette = None
        canvas.restore_region(self._background)
        for artist in moving:
            if artist.axes is not None and artist.get_visible():
                artist.axes.draw_artist(artist)
        return self._encode(canvas)

    def _encode(self, canvas: Any) -> bytes:
        """The canvas as a PNG of 128 colours: a third of the bytes, and cheaper to compress.

        To choose the colours takes ten times as long as to use chosen ones.
        """
        width, height = canvas.get_width_height()
        image = Image.frombuffer("RGBA", (width, height), canvas.buffer_rgba(), "raw", "RGBA", 0, 1)
        colored = image.convert("RGB")
        if self._palette is None or self._palette_uses == PALETTE_USES:
            self._palette = few = colored.quantize(
                128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
            )
            self._palette_uses = 0
        else:
            few = colored.quantize(palette=self._palette, dither=Image.Dither.NONE)
        self._palette_uses += 1
        file = io.BytesIO()
        few.save(file, format="PNG", compress_level=1)
        return file.getvalue()

    def _make_axes(self) -> dict[_Panel, Axes]:
        grid = self.figure.add_gridspec(2, 2, height_ratios=(3, 2))
        self.figure.subplots_adjust(left=0.06, right=0.975, bottom=0.085, hspace=0.4, wspace=0.16)
        axes = {}
        for index, panel in enumerate(_PANELS):
            axes[panel] = self.figure.add_subplot(grid[index // 2, index % 2])
            style.dress(axes[panel], self._look, title=panel.title)
            axes[panel].set_xlabel("Step" if self.along == "step" else "Minutes", labelpad=1)
            axes[panel].set(xlim=(0, 10), ylim=(0, 1))
            axes[panel].xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes[_F1].set_ylim(0, 100)
        axes[_RATE].yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes[_RATE].yaxis.set_major_formatter(FuncFormatter(_rate_label))
        return axes

    def _make_lines(self, histories: Sequence[History]) -> None:
        for run in self._runs:
            run.remove()
        for legend in list(self.figure.legends):
            legend.remove()
        colors = self._look.series
        self._runs = [_RunLines(h.name, i, colors, self._axes) for i, h in enumerate(histories)]
        several = len(self._runs) > 1
        self.figure.subplots_adjust(top=0.88 if several else 0.93)
        if several:
            self.figure.legend(
                handles=[run.legend_handle() for run in self._runs], loc="upper center",
                ncols=min(4, len(self._runs)), frameon=False, fontsize=9,
                labelcolor=self._look.text, borderaxespad=0.1,
            )  # fmt: skip

    def _show_targets(self, histories: Sequence[History]) -> None:
        targets = tuple(sorted({h.target_f1 for h in histories if h.target_f1 is not None}))
        if targets == self._targets:
            return
        self._targets, axes = targets, self._axes[_F1]
        for artist in [*axes.lines, *axes.texts]:
            if artist.get_gid() == "target":
                artist.remove()
        for target in targets:
            axes.axhline(target, color=self._look.text, linewidth=1.1, dashes=(5, 3), gid="target")
        if targets:
            above = len(targets) == 1 and targets[0] < 93
            axes.text(
                0.012, targets[0] + (1 if above else -1.5), "target " + _list(targets),
                transform=axes.get_yaxis_transform(), ha="left", va="bottom" if above else "top",
                fontsize=9, color=self._look.text, gid="target",
            )  # fmt: skip

    def _set_limits(self, histories: Sequence[History]) -> None:
        right = max((_extent(h, self.along) for h in histories), default=1.0)
        for panel, axes in self._axes.items():
            axes.set_xlim(0, right)
            if panel.smooth:
                # the first step is compiled while it runs: too slow to say anything
                top = max((_highest(h.steps, panel) for h in histories), default=0.0)
                axes.set_ylim(0, _round_up(1.04 * top) if top else 1.0)

    def _limits(self) -> list[tuple[float, float]]:
        return [
            limit for axes in self._axes.values() for limit in (axes.get_xlim(), axes.get_ylim())
        ]


class _RunLines:
    """Everything that is drawn of one run."""

    def __init__(
        self, name: str, index: int, colors: Sequence[str], axes: dict[_Panel, Axes]
    ) -> None:
        self.name = name
        color = colors[index % len(colors)]
        marker = style.MARKERS[index % len(style.MARKERS)]
        dashes = "-" if index < len(colors) else "--"
        self._raw = {
            panel: axes[panel].plot([], [], color=color, alpha=0.28, linewidth=0.9)[0]
            for panel in _PANELS
            if panel.raw
        }
        self._smooth = {
            panel: axes[panel].plot([], [], color=color, linewidth=1.9, linestyle=dashes)[0]
            for panel in _PANELS
            if panel.smooth
        }
        (self._f1,) = axes[_F1].plot(
            [], [], color=color, linewidth=1.9, linestyle=dashes, marker=marker, markersize=4.5
        )
        self._stops = [
            axes[panel].axvline(0, color=color, linewidth=1.1, linestyle=":", visible=False)
            for panel in _PANELS
        ]
        self._note = axes[_F1].annotate(
            "", (0, 0.04), (-7, 0), xycoords=axes[_F1].get_xaxis_transform(),
            textcoords="offset points", ha="right", va="bottom", fontsize=9,
            color=color, fontweight="bold", visible=False,
        )  # fmt: skip
        self._star = axes[_F1].plot(
            [], [], color=color, marker="*", markersize=15, linestyle="", markeredgecolor="white"
        )[0]

    @property
    def artists(self) -> list[Artist]:
        """All of them, in the order in which they are drawn."""
        lines = [*self._raw.values(), *self._stops, *self._smooth.values(), self._f1, self._star]
        return [*lines, self._note]

    def legend_handle(self) -> Line2D:
        """What stands for the run in the legend."""
        return Line2D(
            [], [], color=self._f1.get_color(), marker=self._f1.get_marker(), label=self.name,
            linestyle=self._f1.get_linestyle(),
        )  # fmt: skip

    def remove(self) -> None:
        """Take the run out of the picture."""
        for artist in self.artists:
            artist.remove()

    def update(self, history: History, along: Along, alone: bool) -> None:
        """Take over the newest points."""
        x = _positions(history, history.steps, along)
        for panel, line in self._raw.items():
            line.set_data(*_envelope(x, history.steps[panel.raw]))
        for panel, line in self._smooth.items():
            start = 1 if panel is _SPEED else 0  # the first step compiles
            line.set_data(*_thinned(x[start:], history.steps[panel.smooth][start:]))
        at = _positions(history, history.evaluations, along)
        self._f1.set_data(at, history.evaluations["f1"])
        self._mark_stop(history, x, at, alone)

    def _mark_stop(self, history: History, x: Floats, at: Floats, alone: bool) -> None:
        stopped = history.stopped if len(x) else None
        f1 = history.evaluations["f1"]
        for line in self._stops:
            line.set_visible(stopped is not None)
            line.set_xdata([x[-1] if stopped else 0.0] * 2)
        early = stopped is not None and stopped.stopped_by == StopReason.TARGET_F1 and len(at) > 0
        self._star.set_data(([at[-1]], [f1[-1]]) if early else ([], []))
        self._note.set_visible(stopped is not None and alone)
        if stopped and alone:
            low = len(f1) > 0 and f1[-1] < 40  # then there is room above the curve
            self._note.xy = (x[-1], 0.8 if low else 0.04)
            self._note.set_verticalalignment("top" if low else "bottom")
            reason = history.ending().partition(":")[0]
            self._note.set_text(f"{reason}\nstep {history.global_step}")


def plot_curves(
    runs: Source | Sequence[Source],
    *,
    names: Sequence[str] | None = None,
    along: Along = "step",
    theme: str = "light",
    width: float = 9.0,
    height: float = 5.4,
) -> Figure:
    """Draw how one run went, or several over each other.

    Args:
        runs: A run, its folder or its events; or a list of such.
        names: How the picture calls each run; by default the names of their folders.
        along: ``"step"``, or ``"minutes"`` to compare runs of different speed.
        theme: ``"light"`` or ``"dark"``.
        width: Width in inches.
        height: Height in inches.

    Returns:
        A figure with loss (raw and smoothed), validation F1 with its target and where early stop
        fired, examples/sec and learning rate. ``figure.savefig("curves.png")`` keeps it.

    Raises:
        RunError: If a folder holds no run.

    Example:
        >>> plot_curves("runs/20261123-101500").savefig("curves.png")    # doctest: +SKIP
    """
    histories = gather(runs, names)
    curves = Curves(along=along, theme=theme, width=width, height=height, dpi=150)
    curves.update(histories)
    return curves.figure


def _positions(history: History, columns: Columns, along: Along) -> Floats:
    if along == "step":
        return columns["global_step"]
    return (columns["time"] - (history.first_time or 0.0)) / 60


def _extent(history: History, along: Along) -> float:
    """Right end of the axis: grows in few jumps while the run goes on, fits once it is over."""
    positions = _positions(history, history.steps, along)
    newest = float(positions[-1]) if len(positions) else 0.0
    if history.stopped or history.over:
        return max(1.03 * newest, 1e-3)
    limit = 1.03 * history.last_step if along == "step" and history.last_step else math.inf
    return max(1e-3, min(_round_up(1.03 * newest), limit)) if newest else min(10.0, limit)


def _highest(steps: Columns, panel: _Panel) -> float:
    values = steps[panel.raw or panel.smooth]
    if panel is _LOSS or len(values) < 2:
        return float(np.nanmax(values, initial=0.0))
    return float(np.nanmax(values[1:], initial=0.0))


def _rate_label(value: float, _: int) -> str:
    """``0.00015`` as ``1.5e-4``, which stays readable at any size."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}" if value else "0"


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _round_up(value: float) -> float:
    """The next number of 1, 1.5, 2, 3, 4, 6, 8 or 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 1.5, 2, 3, 4, 6, 8, 10, 15) if m * power >= value)


def _envelope(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Fewer points that still show every peak: the lowest and highest of each stretch."""
    stretch = math.ceil(len(y) / (MOST_POINTS // 2))
    if stretch <= 2:
        return x, y
    whole = len(y) // stretch * stretch
    rows = y[:whole].reshape(-1, stretch)
    low, high = rows.min(axis=1), rows.max(axis=1)
    places = x[:whole].reshape(-1, stretch)[:, 0]
    pairs = np.column_stack([low, high]).ravel()
    return (
        np.concatenate([np.repeat(places, 2), x[whole:]]),
        np.concatenate([pairs, y[whole:]]),
    )


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Fewer points of a smooth line, always with the newest."""
    stride = math.ceil(len(y) / MOST_POINTS)
    if stride <= 1:
        return x, y
    return np.append(x[::stride], x[-1:]), np.append(y[::stride], y[-1:])


def _show(artists: Sequence[Artist], visible: Sequence[bool]) -> None:
    for artist, value in zip(artists, visible, strict=True):
        artist.set_visible(value)
