"""The store: what is told stays told, by whomever and however they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sqlite3
import threading
import time

import pytest

from bertkit.advisor.claims import is_held, new_claim
from bertkit.advisor.goals import Goals
from bertkit.advisor.space import Space
from bertkit.advisor.store import MOST_ATTEMPTS, Store
from bertkit.advisor.tables import BudgetSpentError, DuplicateTrialError, LostClaimError
from bertkit.advisor.trial import CurvePoint, Origin, Prediction, Proposal, State, Trial
from bertkit.errors import AdvisorError

DEAD = f"{socket.gethostname()}:1:1.0:abc"  # process 1 was not born in 1970
fork = multiprocessing.get_context("fork")


def proposal(rate=1e-4, batch=24):
    return Proposal(
        parameters={"learning_rate": rate, "batch_size": batch},
        origin=Origin.MODEL,
        reason="because",
        predicted={"f1": Prediction(90.0, 0.5)},
    )


@pytest.fixture
def store(store_path):
    with Store(store_path) as store:
        yield store


@pytest.fixture
def experiment(store, space):
    return store.create("test", space, Goals.published(), {"seed": 1})


class TestOneProcess:
    def test_an_experiment_comes_back_as_it_was(self, store, space, experiment):
        record = store.experiment(experiment)
        assert (record.name, record.space, record.goals) == ("test", space, Goals.published())
        store.update_settings(experiment, {"pruning": "off"})
        assert store.experiment(experiment).settings == {"seed": 1, "pruning": "off"}
        assert [e.id for e in store.experiments()] == [experiment]

    def test_a_trial_comes_back_as_it_was(self, store, experiment):
        claim = new_claim()
        trial = store.add(experiment, proposal(), claim=claim)
        assert (trial.number, trial.state, trial.attempts) == (1, State.RUNNING, 1)
        assert trial.parameters == proposal().parameters
        assert list(trial.parameters) == ["learning_rate", "batch_size"]
        assert (trial.reason, trial.predicted) == ("because", proposal().predicted)
        points = [CurvePoint(10, 1.5, 40.0), CurvePoint(20, 3.0, 60.0)]
        for point in points:
            store.add_point(experiment, trial, point)
        told = store.end(
            experiment, trial, State.FINISHED, {"f1": 91.0, "training_time": 3.0},
            noise={"f1": 0.2}, artifact="runs/1/model",
        )  # fmt: skip
        assert told == store.trial(experiment, 1)
        assert told.state is State.FINISHED
        assert told.metrics == {"f1": 91.0, "training_time": 3.0}
        assert (told.noise, told.curve) == ({"f1": 0.2}, tuple(points))
        assert (told.artifact, told.claim) == ("runs/1/model", "")
        assert told.seconds is not None

    def test_equal_values_are_no_second_trial(self, store, experiment):
        store.add(experiment, proposal(batch=24))
        with pytest.raises(DuplicateTrialError):
            store.add(experiment, proposal(batch=24.0))
        other = store.create("other", Space.published(), Goals.published(), {})
        assert store.add(other, proposal()).number == 1

    def test_the_budget_counts_all_but_skipped_and_imported_trials(self, store, experiment):
        store.import_trials(experiment, [imported(1e-5), imported(2e-5)])
        store.add(experiment, proposal(3e-5), state=State.SKIPPED)
        store.add(experiment, proposal(4e-5), budget=1)
        with pytest.raises(BudgetSpentError, match="1 trials of a budget of 1"):
            store.add(experiment, proposal(5e-5), budget=1)

    def test_only_the_claim_may_tell(self, store, experiment):
        trial = store.add(experiment, proposal(), claim=DEAD)
        assert store.requeue_abandoned(experiment) == [1]
        again = store.take_waiting(experiment, new_claim())
        assert (again.number, again.attempts) == (1, 2)
        for tell in (
            lambda: store.end(experiment, trial, State.FINISHED, {"f1": 1.0}),
            lambda: store.add_point(experiment, trial, CurvePoint(1, 1.0, 1.0)),
            lambda: store.release(experiment, trial),
        ):
            with pytest.raises(LostClaimError, match="trial 1"):
                tell()
        store.end(experiment, again, State.FINISHED, {"f1": 2.0})
        with pytest.raises(LostClaimError, match="finished"):
            store.end(experiment, again, State.FINISHED, {"f1": 3.0})
        assert store.trial(experiment, 1).metrics == {"f1": 2.0}

    def test_a_second_attempt_begins_with_an_empty_curve(self, store, experiment):
        trial = store.add(experiment, proposal(), claim=new_claim())
        store.add_point(experiment, trial, CurvePoint(1, 1.0, 1.0))
        store.release(experiment, trial)
        again = store.take_waiting(experiment, new_claim())
        assert (again.curve, again.attempts) == ((), 1)

    def test_a_trial_that_kills_its_processes_fails_at_last(self, store, experiment):
        store.add(experiment, proposal(), claim=DEAD)
        for _ in range(MOST_ATTEMPTS - 1):
            store.requeue_abandoned(experiment)
            store.take_waiting(experiment, DEAD)
        store.requeue_abandoned(experiment)
        trial = store.trial(experiment, 1)
        assert (trial.state, trial.message) == (State.FAILED, "its process died 3 times")

    def test_a_broken_transaction_leaves_nothing(self, store, experiment):
        trial = store.add(experiment, proposal(), claim=new_claim())
        with pytest.raises((sqlite3.Error, ValueError)):
            store.end(experiment, trial, State.FINISHED, {"f1": 1.0, "training_time": "fast"})
        assert store.trial(experiment, 1).state is State.RUNNING
        assert store.trial(experiment, 1).metrics == {}

    def test_import_leaves_out_what_is_known(self, store, experiment):
        assert store.import_trials(experiment, [imported(1e-4), imported(2e-4)]) == 2
        assert store.import_trials(experiment, [imported(1e-4), imported(3e-4)]) == 1
        trials = store.trials(experiment)
        assert [t.origin for t in trials] == [Origin.IMPORTED] * 3
        assert trials[0].curve == imported(1e-4).curve

    def test_export(self, store, experiment, tmp_path):
        pandas = pytest.importorskip("pandas")
        store.import_trials(experiment, [imported(1e-4), imported(2e-4)])
        store.to_csv(experiment, tmp_path / "trials.csv")
        table = pandas.read_csv(tmp_path / "trials.csv")
        assert list(table["learning_rate"]) == [1e-4, 2e-4]
        assert list(store.to_pandas(experiment)["f1"]) == list(table["f1"]) == [90.0, 90.0]

    def test_what_is_no_store_is_refused(self, tmp_path):
        text = tmp_path / "notes.txt"
        text.write_text("my notes " * 100)
        with pytest.raises(AdvisorError, match="cannot be used as an experiment store"):
            Store(text)
        assert text.read_text().startswith("my notes")
        other = tmp_path / "other.db"
        sqlite3.connect(other).execute("CREATE TABLE t (x)").connection.commit()
        with pytest.raises(AdvisorError, match="not written by this version"):
            Store(other)

    def test_an_unknown_experiment_is_named(self, store, experiment):
        with pytest.raises(AdvisorError, match=rf"no experiment 99; it holds {experiment}"):
            store.experiment(99)
        with pytest.raises(AdvisorError, match="no experiment 99"):
            store.add(99, proposal())


def imported(rate):
    return Trial(
        number=1, parameters={"learning_rate": rate, "batch_size": 24}, state=State.FINISHED,
        origin=Origin.MODEL, metrics={"training_time": 100.0, "f1": 90.0},
        curve=(CurvePoint(5, 2.0, 50.0),), started=1.0, ended=101.0,
    )  # fmt: skip


class TestClaims:
    def test_a_living_process_holds_its_claim_however_old(self):
        assert is_held(new_claim(), 0.0, time.time())

    def test_a_dead_process_does_not(self):
        receive, send = fork.Pipe(duplex=False)
        child = fork.Process(target=lambda: send.send(new_claim()))
        child.start()
        claim = receive.recv()
        child.join(10)
        assert not is_held(claim, time.time(), time.time())

    def test_neither_does_a_killed_one_that_nobody_has_reaped(self):
        receive, send = fork.Pipe(duplex=False)
        child = fork.Process(target=lambda: (send.send(new_claim()), time.sleep(60)))
        child.start()
        claim = receive.recv()
        assert is_held(claim, time.time(), time.time())
        os.kill(child.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while is_held(claim, time.time(), time.time()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_held(claim, time.time(), time.time())
        child.join(10)

    def test_another_host_holds_as_long_as_it_renews(self):
        now = time.time()
        assert is_held("elsewhere:1:2.0:abc", now - 10, now)
        assert not is_held("elsewhere:1:2.0:abc", now - 1000, now)
        assert not is_held("nonsense", now, now)


def add_many(path, experiment, first, count):
    with Store(path) as store:
        for i in range(count):
            trial = store.add(experiment, proposal(rate=1e-6 * (first + i)), claim=new_claim())
            store.add_point(experiment, trial, CurvePoint(1, 1.0, 1.0))
            store.end(experiment, trial, State.FINISHED, {"f1": float(first + i)})


class TestSeveralProcesses:
    def test_two_write_and_a_third_reads(self, store, experiment):
        writers = [
            fork.Process(target=add_many, args=(store.path, experiment, first, 20))
            for first in (100, 200)
        ]
        for writer in writers:
            writer.start()
        while any(w.is_alive() for w in writers):
            for trial in store.trials(experiment):
                whole = trial.metrics and len(trial.curve) == 1
                assert whole if trial.state is State.FINISHED else not trial.metrics
        for writer in writers:
            writer.join(30)
            assert writer.exitcode == 0
        trials = store.trials(experiment)
        assert [t.number for t in trials] == list(range(1, 41))
        assert sorted(t.metrics["f1"] for t in trials) == [*range(100, 120), *range(200, 220)]

    def test_a_waiting_trial_goes_to_one_only(self, store, experiment):
        for i in range(10):
            store.add(experiment, proposal(rate=1e-5 * (i + 1)), state=State.WAITING)
        taken, lock = [], threading.Lock()

        def take():
            while (trial := store.take_waiting(experiment, new_claim())) is not None:
                with lock:
                    taken.append(trial.number)

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(taken) == list(range(1, 11))
