"""Several real trials at once, each on engines with cores of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bertkit import SDA
from bertkit.advisor.store import Store
from bertkit.advisor.trial import State
from bertkit.advisor.trial_runner import core_groups
from bertkit.errors import AdvisorError
from bertkit.events import Started
from bertkit.run import Run


def test_cores_are_shared_among_groups():
    here = os.sched_getaffinity(0)
    groups = core_groups(len(here))
    assert sorted(cpu for group in groups for cpu in group) == sorted(here)
    assert core_groups(1) == [tuple(sorted(here))]
    with pytest.raises(AdvisorError, match="cannot have cores of their own"):
        core_groups(len(here) + 1)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two groups need two cores")
def test_two_trials_at_once_on_cores_of_their_own(tiny_config, tmp_path, cache_of_our_own):
    del cache_of_our_own
    cores: dict[int, set[int]] = {}

    def look(trial):
        events = Run(Path(trial.artifact).parent).events()
        (begin,) = [event for event in events if isinstance(event, Started)]
        cores[trial.number] = os.sched_getaffinity(begin.ranks[0].pid)

    settings = {
        **tiny_config.changed(),
        "enable_sigopt": True, "observation_budget": 2, "parallel_bandwidth": 2,
        "step_threshold": 10, "pruning": "off", "save_path": str(tmp_path),
        "parameters": [
            {"name": "learning_rate", "bounds": {"min": 1e-3, "max": 4e-3}, "type": "double"}
        ],
    }  # fmt: skip
    sda = SDA(model="BERT", settings={**settings, "data_path": settings.pop("data")}, on_trial=look)
    sda.launch()
    with Store(tmp_path / "bert" / "advisor.db") as store:
        trials = store.trials(1)
    first, second = trials
    assert (first.state, second.state) == (State.FINISHED, State.FINISHED)
    assert max(first.started, second.started) < min(first.ended, second.ended)
    assert cores[1]
    assert cores[2]
    assert not cores[1] & cores[2]
