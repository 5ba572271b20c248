"""How long the questions and paragraphs of a data set are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from bertkit.reports import style


def plot_lengths(
    lengths: Sequence[int],
    max_seq_length: int,
    *,
    theme: str = "light",
    width: float = 9.0,
    height: float = 2.4,
) -> Figure:
    """Draw how many tokens question and paragraph have together.

    Args:
        lengths: Tokens of each question with its paragraph.
        max_seq_length: Longest feature, in tokens; what is longer takes several.
        theme: ``"light"`` or ``"dark"``.
        width: Width in inches.
        height: Height in inches.

    Returns:
        A figure with a histogram and a line at the longest feature.

    Example:
        >>> figure = plot_lengths([120, 150, 400], 384)
        >>> figure.axes[0].get_title(loc="left")
        'Tokens of question and paragraph together'
    """
    look = style.theme(theme)
    figure = style.new_figure(width, height, look)
    axes = figure.add_subplot()
    style.dress(axes, look, title="Tokens of question and paragraph together", grid="y")
    edge = max(max_seq_length * 1.15, float(np.max(lengths)) * 1.05)
    axes.hist(lengths, bins=np.linspace(0, edge, 60).tolist(), color=look.series[0])
    axes.axvline(max_seq_length, color=look.series[1], linewidth=1.6, dashes=(5, 3))
    longer = 100 * float(np.mean(np.asarray(lengths) > max_seq_length))
    axes.annotate(
        f"longest feature: {max_seq_length}\n{longer:.1f} % are longer and take several",
        (max_seq_length, 0.97), (-8, 0), xycoords=axes.get_xaxis_transform(),
        textcoords="offset points", ha="right", va="top", fontsize=9, color=look.text,
    )  # fmt: skip
    axes.set_ylabel("Questions")
    axes.set_xlim(0, edge)
    figure.tight_layout()
    return figure
