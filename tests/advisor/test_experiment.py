"""The loop of ask, run and tell; by one process and by two."""

from __future__ import annotations

import multiprocessing
import threading
import time

import pytest

from bertkit.advisor.experiment import Experiment
from bertkit.advisor.goals import Goals
from bertkit.advisor.search_loop import MOST_FAILURES
from bertkit.advisor.space import fingerprint
from bertkit.advisor.tables import BudgetSpentError, DuplicateTrialError
from bertkit.advisor.trial import CurvePoint, Origin, Outcome, State
from bertkit.errors import AdvisorError
from tests.advisor.conftest import SPACE, objective

fork = multiprocessing.get_context("fork")


@pytest.mark.parametrize("sampler", ["random", "parego"])
@pytest.mark.parametrize("pruning", ["median", "halving", "off"])
def test_every_sampler_and_rule_runs_to_the_budget(new_experiment, sampler, pruning):
    experiment = new_experiment(sampler=sampler, pruning=pruning, observation_budget=9)
    seen = []
    best = experiment.run(objective, on_trial=seen.append)
    assert [t.number for t in seen] == list(range(1, 10))
    assert all(t.metrics == objective(t) for t in experiment.finished)
    assert best == experiment.best
    assert best in experiment.pareto
    assert len({fingerprint(t.parameters) for t in experiment.trials}) == 9


def test_the_seed_fixes_the_whole_search(store_path):
    def search(seed):
        with Experiment.create(store_path, "x", space=SPACE, seed=seed) as experiment:
            experiment.run(objective, observation_budget=8)
            return [dict(t.parameters) for t in experiment.trials]

    assert search(1) == search(1) != search(2)


def test_the_default_settings_come_first(new_experiment):
    experiment = new_experiment(defaults={"learning_rate": 1e-4, "batch_size": 32, "dropout": 0.1})
    trial = experiment.ask()
    assert trial.parameters == {"learning_rate": 1e-4, "batch_size": 24}
    assert trial.origin is Origin.DEFAULT
    assert experiment.ask().origin is Origin.RANDOM


def test_ask_stops_at_the_budget_and_goes_on_with_a_larger_one(new_experiment):
    experiment = new_experiment(observation_budget=2)
    experiment.run(objective)
    with pytest.raises(BudgetSpentError):
        experiment.ask()
    experiment.run(objective, observation_budget=3)
    assert len(experiment.trials) == 3
    assert Experiment.resume(experiment.store, experiment.id).settings["observation_budget"] == 3


def test_no_trial_begins_after_the_time_budget(new_experiment):
    experiment = new_experiment()

    def slow(trial, _report):
        time.sleep(0.05)
        return objective(trial)

    experiment.run(slow, time_budget=0.12)
    assert 1 <= len(experiment.trials) <= 4
    assert all(t.state is State.FINISHED for t in experiment.trials)


def test_a_small_space_ends_the_search(store_path):
    with Experiment.create(store_path, "x", space={"batch_size": [1, 2, 3]}) as experiment:
        experiment.run(lambda *_: {"training_time": 1.0, "f1": 1.0})
        assert len(experiment.trials) == 3


def test_a_failed_trial_is_told_as_such_and_the_search_goes_on(new_experiment):
    experiment = new_experiment(observation_budget=6)

    def fragile(trial, _report):
        if trial.number % 2:
            raise ValueError("out of memory")
        return objective(trial)

    experiment.run(fragile)
    failed = [t for t in experiment.trials if t.state is State.FAILED]
    assert [t.number for t in failed] == [1, 3, 5]
    assert failed[0].message == "ValueError: out of memory"
    assert len(experiment.finished) == 3


def test_a_metric_that_is_missing_or_not_a_number_fails_the_trial_by_name(new_experiment):
    experiment = new_experiment(observation_budget=2)
    outcomes = [{"training_time": 1.0}, {"training_time": 1.0, "f1": float("nan")}]
    experiment.run(lambda trial, _report: outcomes[trial.number - 1])
    assert all("'f1'" in t.message for t in experiment.trials)


def test_failure_after_failure_ends_the_search_with_its_reason(new_experiment):
    experiment = new_experiment()

    def broken(*_):
        raise OSError("no data")

    with pytest.raises(AdvisorError, match=r"3 trials in a row failed.*no data"):
        experiment.run(broken)
    assert len(experiment.trials) == MOST_FAILURES


def test_a_search_that_is_stopped_gives_its_trial_back_and_goes_on_with_it(new_experiment):
    experiment, stop = new_experiment(observation_budget=5), threading.Event()

    def stopped_in_the_third(trial, report):
        if trial.number == 3:
            stop.set()
            assert not report(CurvePoint(1, 1.0, 50.0))
        return objective(trial)

    experiment.run(stopped_in_the_third, stop=stop)
    assert [t.state for t in experiment.trials] == [State.FINISHED, State.FINISHED, State.WAITING]
    experiment.run(objective)
    third = experiment.trials[2]
    assert third.state is State.FINISHED
    assert len(experiment.trials) == 5


def test_a_search_that_is_stopped_while_it_asks_runs_nothing_more(new_experiment):
    experiment, stop = new_experiment(), threading.Event()
    propose = experiment.propose

    def stopped_meanwhile():
        stop.set()
        return propose()

    experiment.propose = stopped_meanwhile
    experiment.run(lambda *_: pytest.fail("the trial was run"), stop=stop)
    (trial,) = experiment.trials
    assert trial.state is State.WAITING
    assert trial.attempts == 0


def test_what_breaks_because_the_search_is_stopped_is_no_failed_trial(new_experiment):
    experiment, stop = new_experiment(), threading.Event()

    def torn(*_):
        stop.set()
        raise RuntimeError("the engines are gone")

    experiment.run(torn, stop=stop)
    assert [t.state for t in experiment.trials] == [State.WAITING]


def test_one_accepted_trial_is_run_and_told(new_experiment):
    experiment = new_experiment()
    trial = experiment.accept(experiment.propose())
    told = experiment.run_trial(trial, objective)
    assert told.state is State.FINISHED
    assert told.metrics == objective(trial)
    assert experiment.trials == [told]


def test_ctrl_c_gives_the_trial_back(new_experiment):
    experiment = new_experiment(observation_budget=3)

    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment.run(interrupted)
    assert [t.state for t in experiment.trials] == [State.WAITING]
    experiment.run(objective)
    assert [t.state for t in experiment.trials] == [State.FINISHED] * 3
    assert experiment.trials[0].attempts == 1


def test_a_trial_behind_the_others_is_pruned_with_its_metrics_so_far(new_experiment):
    experiment = new_experiment(observation_budget=6, goals=[("f1", "maximize")])
    stopped_at = []

    def train(trial, report):
        slope = 1.0 if trial.number == 6 else 10.0
        for step in range(1, 9):
            if not report(CurvePoint(step, float(step), slope * step)):
                stopped_at.append((trial.number, step))
                break
        return Outcome(metrics={"f1": slope * step}, artifact=f"runs/{trial.number}")

    experiment.run(train)
    assert [number for number, _ in stopped_at] == [6]
    last = experiment.trials[-1]
    assert (last.state, last.artifact) == (State.PRUNED, "runs/6")
    assert "only the best 3 of 6 trials go on" in last.message
    assert len(last.curve) == stopped_at[0][1] < 8
    assert last not in experiment.finished


@pytest.mark.parametrize(("pruning", "walks"), [("off", True), ("halving", False)])
def test_the_front_is_walked_where_slower_trials_are_left_to_finish(new_experiment, pruning, walks):
    experiment = new_experiment(sampler="parego", pruning=pruning, observation_budget=10)
    experiment.run(objective)
    shares = [
        t.reason.split(" of the weight")[0] for t in experiment.trials if "weight" in t.reason
    ]
    assert len(shares) > 3
    assert (len(set(shares)) > 1) is walks


@pytest.mark.parametrize(
    ("complete", "state"), [(True, State.FINISHED), (False, State.PRUNED)], ids=["own", "stopped"]
)
def test_who_comes_to_an_own_end_as_the_verdict_falls_is_finished(new_experiment, complete, state):
    goals = [("training_time", "minimize", 100.0), ("f1", "maximize", 85.0)]
    experiment, refused = new_experiment(observation_budget=2, goals=goals), []

    def train(trial, report):
        seconds = 20.0 + trial.number
        if not report(CurvePoint(1, seconds, 90.0)):
            refused.append(trial.number)
        return Outcome(metrics={"training_time": seconds, "f1": 90.0}, complete=complete)

    experiment.run(train)
    assert refused == [2]
    second = experiment.trials[1]
    assert (second.state, second.metrics["training_time"]) == (state, 22.0)


def test_several_trials_at_once(new_experiment):
    experiment, together = new_experiment(observation_budget=12), threading.Barrier(3)

    def train(trial, _report):
        together.wait(60)  # fails unless three trials go on at once
        return objective(trial)

    experiment.run(train, parallel=3)
    assert [t.state for t in experiment.trials] == [State.FINISHED] * 12


def test_a_failing_thread_ends_all(new_experiment):
    def broken(*_):
        raise OSError("no data")

    with pytest.raises(AdvisorError, match="in a row failed"):
        new_experiment().run(broken, parallel=2)


class TestByHand:
    def test_accept(self, new_experiment):
        experiment = new_experiment()
        proposal = experiment.propose()
        assert experiment.trials == []
        trial = experiment.accept(proposal)
        assert trial.parameters == proposal.parameters
        experiment.tell(trial, objective(trial))
        with pytest.raises(DuplicateTrialError):
            experiment.accept(proposal)

    def test_edit(self, new_experiment):
        experiment = new_experiment()
        edited = experiment.edit(experiment.propose(), batch_size=96)
        assert edited.parameters["batch_size"] == 96
        assert edited.reason.startswith("batch_size changed by hand")
        assert experiment.accept(edited).origin is Origin.EDITED
        with pytest.raises(AdvisorError, match="batch_size: is 13"):
            experiment.edit(edited, batch_size=13)

    def test_skip(self, new_experiment):
        experiment = new_experiment(observation_budget=2)
        refused = experiment.propose()
        assert experiment.skip(refused).state is State.SKIPPED
        assert experiment.propose().parameters != refused.parameters
        experiment.run(objective)
        assert len(experiment.finished) == 2


class TestWarmStart:
    def test_from_another_experiment(self, new_experiment):
        old = new_experiment(observation_budget=8)
        old.run(objective)
        new = new_experiment(sampler="parego", observation_budget=1)
        assert new.warm_start(old) == 8
        assert new.warm_start(old) == 0
        assert new.propose().origin is Origin.MODEL
        new.run(objective)
        assert len(new.trials) == 9

    def test_from_csv_and_pandas(self, new_experiment, tmp_path):
        pandas = pytest.importorskip("pandas")
        old = new_experiment(observation_budget=5)
        old.run(objective)
        old.to_csv(tmp_path / "old.csv")
        by_csv, by_table = new_experiment(), new_experiment()
        assert by_csv.warm_start(tmp_path / "old.csv") == 5
        table = pandas.read_csv(tmp_path / "old.csv")
        assert by_table.warm_start(table.to_dict("records")) == 5
        for new in (by_csv, by_table):
            assert [t.parameters for t in new.trials] == [t.parameters for t in old.trials]
            assert [t.metrics for t in new.trials] == [t.metrics for t in old.trials]

    def test_rows_outside_the_space_are_left_out_and_incomplete_ones_named(self, new_experiment):
        experiment = new_experiment()
        row = {"learning_rate": 1e-4, "batch_size": 24, "training_time": 5, "f1": 80}
        rows = [row, {**row, "batch_size": 25}, {**row, "learning_rate": 2e-4, "state": "failed"}]
        assert experiment.warm_start(rows) == 1
        with pytest.raises(AdvisorError, match="row 1 of the old trials has no 'f1'"):
            experiment.warm_start([{**row, "f1": ""}])
        with pytest.raises(AdvisorError, match="cannot read trials"):
            experiment.warm_start("nowhere.csv")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"observation_budget": 0}, "observation_budget is 0"),
        ({"pruning": "no"}, "pruning is 'no'"),
        ({"sampler": "grid"}, "sampler is 'grid'"),
        ({"space": {}}, "empty"),
    ],
)
def test_what_cannot_be_used_is_refused(store_path, options, words):
    with pytest.raises(AdvisorError) as refused:
        Experiment.create(store_path, "x", **options)
    assert words in str(refused.value)


def run_apart(path, id):
    with Experiment.resume(path, id) as experiment:
        experiment.run(lambda trial, _: (time.sleep(0.005), objective(trial))[1])


def test_two_processes_share_one_search(new_experiment):
    experiment = new_experiment(observation_budget=40)
    workers = [
        fork.Process(target=run_apart, args=(experiment.store.path, experiment.id))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    trials = experiment.trials
    assert [t.number for t in trials] == list(range(1, 41))
    assert all(t.state is State.FINISHED and t.attempts == 1 for t in trials)


def test_goals_without_thresholds_and_one_metric_work(store_path):
    goals = Goals.read([("f1", "maximize")])
    with Experiment.create(store_path, "x", space=SPACE, goals=goals) as experiment:
        best = experiment.run(lambda trial, _: {"f1": 1e4 * trial.parameters["learning_rate"]},
                              observation_budget=8)  # fmt: skip
        assert best.metrics["f1"] == max(t.metrics["f1"] for t in experiment.trials)
