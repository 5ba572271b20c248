"""kill -9 at random moments: nothing is lost, nothing is counted twice.

``benchmarks/advisor/kill_nine.py`` does it to ``bertkit advise`` itself, thirty times.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import random
import signal
import threading
import time

import pytest

from bertkit.advisor.experiment import Experiment
from bertkit.advisor.store import MOST_ATTEMPTS
from bertkit.advisor.trial import CurvePoint, State
from tests.advisor.conftest import SPACE, objective

fork = multiprocessing.get_context("fork")

KILLS = 10
BUDGET = 400
POINTS = 4


def run_trials(path, id, ledger):
    """A search as a notebook runs it, which writes down what it has told."""

    def train(trial, report):
        for step in range(1, POINTS + 1):
            time.sleep(0.001)
            report(CurvePoint(step, float(step), float(step)))
        return objective(trial)

    def note(trial):
        with open(ledger, "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(f"{trial.number}\n")

    with Experiment.resume(path, id) as experiment:
        experiment.run(train, on_trial=note)


def test_ten_kills(store_path, tmp_path):
    with Experiment.create(
        store_path, "killed", space=SPACE, sampler="random", pruning="off",
        observation_budget=BUDGET,
    ) as made:  # fmt: skip
        number = made.id
    ledger, moments = tmp_path / "told.txt", random.Random(9)
    seen_before: dict[int, dict[str, float]] = {}
    interrupted = 0
    for _ in range(KILLS):
        process = fork.Process(target=run_trials, args=(store_path, number, ledger))
        process.start()
        time.sleep(moments.uniform(0.02, 0.35))
        os.kill(process.pid, signal.SIGKILL)
        process.join(10)
        assert process.exitcode == -signal.SIGKILL
        trials = look(store_path, number)
        # What was finished once is finished for ever, with the same numbers.
        finished = {t.number: dict(t.metrics) for t in trials if t.state is State.FINISHED}
        assert seen_before.items() <= finished.items()
        seen_before = finished
        interrupted += any(t.state is State.RUNNING for t in trials)
    assert interrupted > KILLS / 3, "too few of the kills hit a running trial"
    assert len(seen_before) > KILLS

    with Experiment.resume(store_path, number) as experiment:
        assert not any(t.state is State.RUNNING for t in experiment.trials)
        goal = len(experiment.trials) + 5
        experiment.run(objective, observation_budget=goal)
        trials = experiment.trials
    assert [t.number for t in trials] == list(range(1, goal + 1))
    for trial in trials:
        if trial.state is State.FAILED:  # its process was killed again and again
            assert trial.attempts == MOST_ATTEMPTS
            continue
        assert trial.state is State.FINISHED
        assert dict(trial.metrics) == objective(trial)
        assert len(trial.curve) in (0, POINTS)  # 0 for those of the last, quick run
    told = [int(line) for line in ledger.read_text().split()]
    assert len(told) == len(set(told))
    assert set(told) <= seen_before.keys()


def look(path, id):
    """All trials as a second notebook sees them, without putting anything back."""
    with Experiment(path, id) as experiment:
        return experiment.trials


@pytest.fixture
def nothing_called_by_the_collector():
    """Hypothesis times each garbage collection; a Ctrl-C that comes meanwhile is dropped."""
    callbacks = gc.callbacks[:]
    gc.callbacks.clear()
    yield
    gc.callbacks[:] = callbacks


@pytest.mark.usefixtures("nothing_called_by_the_collector")
def test_ctrl_c_at_any_moment_gives_the_trial_back(store_path):
    """Also between the asking and the running, and while its end is written down."""

    def train(trial, report):
        report(CurvePoint(1, 1.0, 1.0))
        return objective(trial)

    moments = random.Random(3)
    with Experiment.create(
        store_path, "interrupted", space=SPACE, sampler="random", pruning="off",
        observation_budget=10**6,
    ) as experiment:  # fmt: skip
        for _ in range(60):
            with pytest.raises(KeyboardInterrupt), ctrl_c(moments.uniform(0.005, 0.1)):
                experiment.run(train)
            states = {trial.state for trial in experiment.trials}
            assert states <= {State.FINISHED, State.WAITING}
        assert experiment.finished, "every interrupt came before the first end"
        assert all(trial.attempts == 1 for trial in experiment.finished)


def test_a_transaction_that_was_broken_off_is_undone_by_the_next_one(store_path):
    with Experiment.create(store_path, "broken off", space=SPACE) as experiment:
        store = experiment.store
        store._writing().execute("UPDATE experiments SET name = 'half done'")
        trial = experiment.ask()
        assert store.experiment(experiment.id).name == "broken off"
        assert [t.number for t in look(store_path, experiment.id)] == [trial.number]


@contextlib.contextmanager
def ctrl_c(seconds):
    """Press Ctrl-C after so long, as a person does: again if nothing comes of it.

    Python drops an exception that is raised while it clears away an object, so one may be lost.
    """
    ended = threading.Event()

    def press():
        wait = seconds
        while not ended.wait(wait):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            wait = 10.0

    thread = threading.Thread(target=press, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10)
