"""Diagrams that explain what happens: the model, data-parallel training, LAMB.

They are drawn and not kept as pictures, so that they look like the curves beside them.
"""

from __future__ import annotations

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from bertkit.reports import style

Align = Literal["left", "center", "right"]


PARAGRAPH = (
    "The lighthouse at Marrow Point was built in 1871 by the engineer",
    "Ada Fenwick. It is 38 metres tall and was lit with whale oil until",
    "1904, when the harbour council paid for an electric lamp.",
)
QUESTIONS = (
    ("When was the lighthouse built?", "1871"),
    ("Who built the lighthouse?", "Ada Fenwick"),
    ("What was it lit with at first?", "whale oil"),
)


def draw_squad(*, theme: str = "light") -> Figure:
    """What SQuAD is: questions about a paragraph, each answered by a piece of it.

    Args:
        theme: ``"light"`` or ``"dark"``.

    Returns:
        A figure. The data set is that of Rajpurkar et al. (2016), https://arxiv.org/abs/1606.05250.
    """
    look = style.theme(theme)
    axes = _canvas(look, 10.0, 2.9)
    size, letter = 15.55, 0.13 / 0.98  # a monospaced letter of that size is 13 pixels wide
    top, left = 2.5, 0.4
    axes.add_patch(
        FancyBboxPatch(
            (0.05, 1.32),
            9.9,
            1.52,
            boxstyle="round,pad=0,rounding_size=0.08",
            linewidth=1.2,
            edgecolor=look.line,
            facecolor="none",
        )
    )
    for row, line in enumerate(PARAGRAPH):
        axes.text(
            left, top - 0.44 * row, line, family="monospace", fontsize=size, va="center",
            color=look.text,
        )  # fmt: skip
    for number, (question, answer) in enumerate(QUESTIONS):
        color = look.series[number]
        row = next(r for r, line in enumerate(PARAGRAPH) if answer in line)
        begin = left + letter * PARAGRAPH[row].index(answer)
        width, y = letter * len(answer), top - 0.44 * row
        _box(axes, begin - 0.03, y - 0.17, width + 0.06, 0.34, "", color, look)
        _words(axes, begin + width + 0.09, y + 0.16, str(number + 1), look, size=8.5, color=color,
               weight="bold")  # fmt: skip
        below = 0.98 - 0.4 * number
        _words(axes, 0.3, below, str(number + 1), look, color=color, weight="bold")
        _words(axes, 0.5, below, question, look, "left", size=10.5)
        _words(axes, 3.6, below, answer, look, "left", size=10.5, color=color, weight="bold")
    return _finished(axes, (0, 10), (0, 2.9))


def draw_model(*, theme: str = "light") -> Figure:
    """How BERT finds an answer: tokens go in, a start and an end position come out.

    Args:
        theme: ``"light"`` or ``"dark"``.

    Returns:
        A figure. The model is that of Devlin et al. (2018), https://arxiv.org/abs/1810.04805.
    """
    look = style.theme(theme)
    axes = _canvas(look, 10.0, 4.1)
    tokens = ["[CLS]", "who", "built", "it", "?", "[SEP]", "ada", "moss", "built", "the", "bridge"]
    width = 10 / (len(tokens) + 1)
    answer = (6, 7)
    for index, token in enumerate([*tokens, "[SEP]"]):
        x = index * width
        part = look.series[1] if 0 < index < 5 else look.series[0]
        color = look.line if token.startswith("[") else part
        _box(axes, x + 0.05, 0.2, width - 0.1, 0.42, token, color, look, size=9)
        _arrow(axes, (x + width / 2, 0.64), (x + width / 2, 0.98), look)
        _arrow(axes, (x + width / 2, 2.02), (x + width / 2, 2.42), look)
        _bar(axes, x + width / 2, 2.5, 0.7 if index == answer[0] else 0.06, look.series[3])
        _bar(axes, x + width / 2 + 0.14, 2.5, 0.7 if index == answer[1] else 0.05, look.series[4])
    _box(axes, 0.05, 1.0, 9.9, 1.0, "BERT: every token looks at every other, layer after layer",
         look.series[2], look, size=11)  # fmt: skip
    left, right = answer[0] * width + 0.02, (answer[1] + 1) * width - 0.02
    axes.plot([left, right], [3.62, 3.62], color=look.text, linewidth=1.4)
    _words(axes, (left + right) / 2, 3.78, "answer: ada moss", look, weight="bold")
    _words(axes, (answer[0] + 0.5) * width, 3.32, "start", look, color=look.series[3])
    _words(axes, (answer[1] + 0.5) * width + 0.14, 3.32, "end", look, color=look.series[4])
    _words(axes, 0.05, 3.3, "how likely each token\nstarts or ends the answer", look, "left")
    _words(axes, 3 * width, 0.0, "question", look, color=look.series[1])
    _words(axes, 8.5 * width, 0.0, "paragraph", look, color=look.series[0])
    return _finished(axes, (-0.05, 10.05), (-0.2, 4.0))


def draw_data_parallel(ranks: int = 2, *, theme: str = "light") -> Figure:
    """How ranks share a step: each takes a part of the batch, all take the mean gradient.

    Args:
        ranks: Number of ranks drawn.
        theme: ``"light"`` or ``"dark"``.
    """
    look = style.theme(theme)
    axes = _canvas(look, 10.0, 1.1 + 1.0 * ranks)
    height = 1.0 * ranks
    _box(axes, 0.0, 0.15, 1.5, height - 0.3, "batch of\n32 examples", look.line, look)
    _box(axes, 6.0, 0.15, 1.6, height - 0.3, "mean of the\ngradients\n(Horovod\nallreduce)",
         look.series[2], look)  # fmt: skip
    for rank in range(ranks):
        y = height - 1.0 * (rank + 1) + 0.2
        color = look.series[rank % 2]
        _arrow(axes, (1.52, y + 0.3), (2.08, y + 0.3), look)
        _box(axes, 2.1, y, 1.6, 0.6, f"{32 // ranks} examples", color, look)
        _arrow(axes, (3.72, y + 0.3), (4.08, y + 0.3), look)
        _box(axes, 4.1, y, 1.4, 0.6, "gradients", color, look)
        _arrow(axes, (5.52, y + 0.3), (5.98, y + 0.3), look)
        _arrow(axes, (7.62, y + 0.3), (8.08, y + 0.3), look)
        _box(axes, 8.1, y, 1.9, 0.6, "the same new\nweights", color, look)
        _words(axes, 2.1, y + 0.72, f"rank {rank} (engine {rank})", look, "left", color=color)
    return _finished(axes, (-0.05, 10.05), (0.0, height + 0.15))


def draw_lamb(*, theme: str = "light") -> Figure:
    """How LAMB sizes an update: Adam's direction, as long as the weights allow.

    Args:
        theme: ``"light"`` or ``"dark"``.

    Returns:
        A figure. The algorithm is that of You et al. (2019), https://arxiv.org/abs/1904.00962.
    """
    look = style.theme(theme)
    axes = _canvas(look, 10.0, 2.5)
    steps = [
        ("mean gradient g\nof the batch", look.line),
        ("Adam's direction\nr = m / (√v + ε)", look.series[0]),
        ("with decay\nu = r + λ w", look.series[0]),
        ("trust ratio, tensor by\ntensor: φ(‖w‖) / ‖u‖", look.series[1]),
        ("w ← w - rate · ratio · u", look.series[2]),
    ]
    width = 10 / len(steps)
    for index, (words, color) in enumerate(steps):
        x = index * width
        _box(axes, x, 0.9, width - 0.3, 0.8, words, color, look, size=9)
        if index:
            _arrow(axes, (x - 0.28, 1.3), (x - 0.02, 1.3), look)
    _words(axes, 5.0, 0.3, "A tensor of large weights may move far, one of small weights only a "
           "little: large batches with a high rate stay stable.", look)  # fmt: skip
    return _finished(axes, (-0.05, 10.0), (0.1, 1.9))


def _canvas(look: style.Theme, width: float, height: float) -> Axes:
    figure = style.new_figure(width, height, look)
    axes = figure.add_axes((0.01, 0.02, 0.98, 0.96))
    axes.set_axis_off()
    return axes


def _finished(axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> Figure:
    axes.set(xlim=x, ylim=y)
    figure = axes.get_figure()
    assert isinstance(figure, Figure)  # noqa: S101 - for the type checker: axes have a figure here
    return figure


def _box(
    axes: Axes, x: float, y: float, width: float, height: float, words: str, color: str,
    look: style.Theme, *, size: float = 10,
) -> None:  # fmt: skip
    patch = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.08", linewidth=1.4,
        edgecolor=color, facecolor=(*_rgb(color), 0.14),
    )  # fmt: skip
    axes.add_patch(patch)
    _words(axes, x + width / 2, y + height / 2, words, look, size=size)


def _rgb(color: str) -> tuple[float, float, float]:
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _words(
    axes: Axes, x: float, y: float, words: str, look: style.Theme, align: Align = "center", *,
    size: float = 10, color: str | None = None, weight: str = "normal",
) -> None:  # fmt: skip
    axes.text(
        x, y, words, ha=align, va="center", fontsize=size, color=color or look.text, weight=weight
    )


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], look: style.Theme
) -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=look.line, shrinkA=0)
    )


def _bar(axes: Axes, x: float, y: float, height: float, color: str) -> None:
    axes.bar(x, height, bottom=y, width=0.12, color=color)
