"""Curves show all that the events hold, and a cheap update shows the same as a new drawing."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bertkit.config import Config
from bertkit.events import Evaluation, Step
from bertkit.reports.curves import (
    MOST_POINTS,
    Curves,
    _envelope,
    _rate_label,
    _thinned,
    plot_curves,
)
from bertkit.reports.history import History
from tests.reports import recorded_run

CONFIG = Config(evaluate_every=20)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def line(figure, title, index):
    (axes,) = [a for a in figure.axes if a.get_title(loc="left").startswith(title)]
    return axes.lines[index]


def test_lines_hold_the_numbers_of_the_events():
    events = list(recorded_run.events(CONFIG))
    figure = plot_curves(events)
    steps = [e for e in events if isinstance(e, Step)]
    scores = [e for e in events if isinstance(e, Evaluation)]
    assert line(figure, "Training loss", 0).get_ydata().tolist() == [e.loss for e in steps]
    assert line(figure, "Validation F1", 0).get_xdata().tolist() == [e.global_step for e in scores]
    assert line(figure, "Validation F1", 0).get_ydata().tolist() == [e.f1 for e in scores]
    titles = {axes.get_title(loc="left") for axes in figure.axes}
    assert titles == {"Training loss", "Validation F1 (%)", "Examples/sec", "Learning rate"}


def test_target_line_and_the_place_of_the_early_stop():
    figure = plot_curves(list(recorded_run.events(CONFIG)))
    axes = figure.axes[1]
    assert [90.874, 90.874] in [list(found.get_ydata()) for found in axes.lines]
    assert "early stop\nstep 140" in [text.get_text() for text in axes.texts]
    assert "target 90.874" in [text.get_text() for text in axes.texts]


def test_no_target_line_where_the_target_is_out_of_reach():
    figure = plot_curves(list(recorded_run.events(CONFIG.replace(target_f1=100.1), 60)))
    assert not any("target" in text.get_text() for text in figure.axes[1].texts)


def test_runs_over_each_other_have_a_legend_and_markers_of_their_own():
    runs = [list(recorded_run.events(CONFIG.replace(seed=seed), 60)) for seed in range(3)]
    figure = plot_curves(runs, names=["a", "b", "c"])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
    assert len({handle.get_marker() for handle in legend.legend_handles}) == 3
    assert len({handle.get_color() for handle in legend.legend_handles}) == 3


@pytest.mark.parametrize("along", ["step", "minutes"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_update_shows_the_same_as_a_new_drawing(along, theme):
    history, curves = History("run"), Curves(along=along, theme=theme)
    for number, event in enumerate(recorded_run.events(CONFIG)):
        history.add(event)
        if number % 25 == 0:
            curves.update([history])
            curves.png()
    curves.update([history])
    anew = Curves(along=along, theme=theme)
    anew.update([history])
    anew.figure.canvas.draw()
    whole = np.asarray(anew.figure.canvas.buffer_rgba())[..., :3].astype(int)
    apart = np.abs(pixels(curves.png()) - whole).max(axis=-1) > 60
    # lines are now over the axes' spines instead of under them: a few pixels, nothing else
    assert apart.mean() < 0.002


def test_a_run_that_joins_later_is_drawn_too():
    first = History("a", recorded_run.events(CONFIG))
    second = History("b", recorded_run.events(CONFIG.replace(seed=7), speed=0.7))
    curves = Curves()
    curves.update([first])
    before = curves.png()
    curves.update([first, second])
    both = curves.png()
    curves.update([first])
    assert (pixels(both) != pixels(before)).any()
    assert (pixels(curves.png()) == pixels(before)).all()


def test_description_says_the_newest_numbers():
    curves = Curves()
    curves.update([History("demo", recorded_run.events(CONFIG))])
    assert "step 140 of 300" in curves.description
    assert "validation F1" in curves.description


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=5000))
def test_thinning_keeps_peaks_and_ends(values):
    x, y = np.arange(len(values), dtype=float), np.array(values)
    _, high_and_low = _envelope(x, y)
    assert high_and_low.max() == y.max()
    assert high_and_low.min() == y.min()
    assert len(high_and_low) <= max(2 * MOST_POINTS, MOST_POINTS + 20)
    thin_x, thin_y = _thinned(x, y)
    assert (thin_x[-1], thin_y[-1]) == (x[-1], y[-1])
    assert len(thin_y) <= MOST_POINTS + 1


def test_rate_labels():
    assert [_rate_label(v, 0) for v in (0, 1e-4, 1.5e-4, 0.02)] == ["0", "1e-4", "1.5e-4", "2e-2"]
