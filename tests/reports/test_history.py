"""A history holds exactly what the events said, whatever was resumed in between."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.config import Config
from bertkit.events import Step, valid
from bertkit.reports.history import History, gather
from tests.reports import recorded_run

CONFIG = Config(evaluate_every=20)


def test_columns_hold_the_events():
    events = list(recorded_run.events(CONFIG))
    history = History("run", events)
    steps = [e for e in events if isinstance(e, Step)]
    assert history.steps["loss"].tolist() == [e.loss for e in steps]
    assert history.steps["global_step"].tolist() == [e.global_step for e in steps]
    assert history.stopped.stopped_by == "target_f1"
    assert history.over
    assert history.seconds_left == 0
    assert "early stop: F1 reached 90.874" in history.summary()


def test_smoothed_loss_is_the_weighted_mean_of_all_steps_so_far():
    history = History("run", recorded_run.events(CONFIG))
    loss = history.steps["loss"]
    weights = history.smoothing ** np.arange(len(loss))[::-1]
    assert history.steps.last("smoothed_loss") == pytest.approx(np.average(loss, weights=weights))


def test_the_step_that_compiles_does_not_count_in_the_speed():
    history = History("run", recorded_run.events(CONFIG))
    speed = history.steps["examples_per_second"]
    assert speed[0] < 0.1 * speed[1]
    assert history.steps["smoothed_examples_per_second"][1] == speed[1]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=5))
def test_resumed_runs_read_like_their_valid_events(attempts):
    """Each attempt resumes at a step that was reached, as a checkpoint allows."""
    written, reached = [recorded_run.started(CONFIG, 300)], 0
    for number, (resume, length) in enumerate(attempts):
        if number:
            reached = min(resume, reached)
            written.append(recorded_run.started(CONFIG, 300, resumed_from=reached))
        for _ in range(length):
            reached += 1
            written.append(recorded_run.step(reached, 300, CONFIG, noise=number))
    once, history = History("run", valid(written)), History("run", written)
    assert history.steps["loss"].tolist() == once.steps["loss"].tolist()
    assert history.steps["smoothed_loss"] == pytest.approx(once.steps["smoothed_loss"])
    assert history.global_step == reached


def test_time_left_follows_the_pace_of_the_steps():
    history = History("run", [recorded_run.started(CONFIG, 100)])
    assert history.seconds_left is None
    for number in range(1, 51):
        event = recorded_run.step(number, 100, CONFIG)
        history.add(Step(**{**vars(event), "time": 1000.0 + 2 * number}))
    assert history.seconds_left == pytest.approx(100)


def test_step_threshold_bounds_the_last_step():
    config = CONFIG.replace(step_threshold=40)
    assert History("run", [recorded_run.started(config, 100)]).last_step == 40


def test_gather_takes_one_run_or_several(tmp_path):
    folder = recorded_run.write(tmp_path / "a", CONFIG)
    assert [h.name for h in gather(folder)] == ["a"]
    assert [h.name for h in gather([folder, str(folder)], names=["x", "y"])] == ["x", "y"]
    assert [len(h.steps) for h in gather(list(recorded_run.events(CONFIG)))] == [
        len(h.steps) for h in gather([folder])
    ]
