"""The learning rate climbs to its peak once, comes down once, and is never zero on the way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.training.schedule import Schedule, total_steps

schedules = st.builds(
    Schedule,
    peak=st.floats(1e-8, 1.0),
    total_steps=st.integers(1, 2000),
    warmup_rate=st.floats(0, 1),
)


@given(schedules)
def test_every_step_learns_and_none_exceeds_the_peak(schedule):
    rates = [schedule.learning_rate(step) for step in range(1, schedule.total_steps + 1)]
    assert all(0 < rate <= schedule.peak * (1 + 1e-15) for rate in rates)
    assert schedule.learning_rate(schedule.total_steps + 1) == 0
    assert schedule.learning_rate(10 * schedule.total_steps) == 0


@given(schedules)
def test_up_then_down_in_equal_steps(schedule):
    rates = [0.0, *(schedule.learning_rate(step) for step in range(1, schedule.total_steps + 2))]
    warmup = schedule.warmup_steps
    up, down = np.diff(rates[: warmup + 1]), np.diff(rates[max(warmup, 1) :])
    for part, sign in ((up, 1), (down, -1)):
        if len(part):
            assert np.sign(part[0]) == sign
            np.testing.assert_allclose(part, part[0], rtol=1e-6, atol=1e-12 * schedule.peak)
    if warmup:
        assert rates[warmup] == pytest.approx(schedule.peak, rel=1e-15)


@pytest.mark.parametrize(
    ("total", "rate", "warmup"), [(10, 0.0, 0), (10, 1.0, 10), (100, 0.1, 10), (1, 0.1, 0)]
)
def test_warmup_steps(total, rate, warmup):
    assert Schedule(peak=1.0, total_steps=total, warmup_rate=rate).warmup_steps == warmup


@pytest.mark.parametrize(
    ("steps_per_epoch", "epochs", "steps"),
    [(100, 3.0, 300), (100, 0.1, 10), (100, 0.001, 1), (7, 0.5, 4), (1, 0.001, 1)],
)
def test_total_steps(steps_per_epoch, epochs, steps):
    assert total_steps(steps_per_epoch, epochs) == steps
