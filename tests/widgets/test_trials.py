"""The trials panel searches without blocking, by itself and by hand, and reopens what it kept."""

import json
import re
import threading
import time

import pytest
from bertkit_widgets import EnginesPanel, TrialsPanel
from bertkit_widgets.space_text import read_space, write_space
from bertkit_widgets.trial_words import BEST, FRONT

from bertkit.advisor import CurvePoint, Experiment, Space, State, Store
from bertkit.errors import AdvisorError
from bertkit.run import Run
from tests.advisor.conftest import SPACE, objective
from tests.waiting import until


def words(html):
    text = re.sub("<[^>]*>", " ", html).replace("&#x27;", "'")
    return " ".join(text.split())


@pytest.fixture
def new_panel(tmp_path):
    panels = []

    def make(runner=objective, **options):
        options = {"space": SPACE, **options}
        panels.append(TrialsPanel(tmp_path / "kept" / "advisor.db", runner=runner, **options))
        return panels[-1]

    yield make
    for panel in panels:
        panel.close()


@pytest.fixture
def gate():
    """A runner whose trials go on until they are let go, or told to stop."""

    class Gate:
        def __init__(self):
            self.let_go = threading.Event()

        def __call__(self, trial, report):
            step = 0
            while not self.let_go.is_set():
                step += 1
                if not report(CurvePoint(step, step / 10, 40.0 + step)):
                    break
                time.sleep(0.05)
            return objective(trial)

    gate = Gate()
    yield gate
    gate.let_go.set()


def budget(panel, trials):
    panel._form._budget.input.value = str(trials)


def trials(panel):
    return panel.experiment.trials


def test_no_file_is_made_before_there_is_a_search(new_panel, tmp_path):
    panel = new_panel()
    assert not (tmp_path / "kept").exists()
    assert "No search yet." in panel._state.value
    assert panel._stop_button.disabled
    assert not panel._start_button.disabled


def test_a_search_runs_to_its_budget_and_shows_everything(new_panel):
    panel = new_panel()
    budget(panel, 7)
    panel._start_button.click()
    assert panel.wait(120)
    experiment = panel.experiment
    assert [t.state for t in trials(panel)] == [State.FINISHED] * 7
    state = words(panel._state.value)
    assert f"Best so far: trial {experiment.best.number}." in state
    assert "The budget is spent" in state
    assert panel._table.value.count("<tr>") == 8
    marks = words(panel._table.value)
    assert marks.count(BEST) == 1
    best_on_front = experiment.best in experiment.pareto
    assert marks.count(FRONT) == len(experiment.pareto) - best_on_front
    assert f'alt="7 finished trials, {len(experiment.pareto)} of them' in panel._pareto.value
    assert "data:image/png" in panel._importance.value
    assert panel._proposal.proposal is None  # nothing is left of the budget
    assert not panel._start_button.disabled


def test_the_kernel_stays_free_and_stop_gives_the_trial_back(new_panel, gate):
    panel = new_panel(gate)
    began = time.perf_counter()
    panel._start_button.click()
    assert time.perf_counter() - began < 5  # the trial itself would go on for ever
    until(lambda: "Trial 1 goes on." in words(panel._state.value))
    until(lambda: "at step" in words(panel._state.value))
    until(lambda: "Trial 1 goes on" in panel._proposal._title.value)
    assert panel._start_button.disabled
    assert panel._propose_button.disabled
    assert panel._form._budget.input.disabled
    until(lambda: panel._proposal._buttons.layout.display == "none")
    with pytest.raises(AdvisorError, match="a search goes on"):
        panel.start()

    panel._stop_button.click()
    assert panel.wait(60)
    assert [t.state for t in trials(panel)] == [State.WAITING]
    assert not panel._start_button.disabled

    gate.let_go.set()
    budget(panel, 2)
    panel._start_button.click()
    assert panel.wait(60)
    assert [t.state for t in trials(panel)] == [State.FINISHED] * 2


def test_a_proposal_is_accepted_edited_and_skipped(new_panel):
    panel = new_panel()
    panel._propose_button.click()
    until(lambda: panel._proposal.proposal is not None)
    first = panel._proposal.proposal
    assert trials(panel) == []  # nothing is decided by looking
    assert first.reason in words(panel._proposal._words.value)
    assert "expects nothing yet" in panel._proposal._expected.value

    panel._proposal._skip.click()
    until(lambda: panel._proposal.proposal not in (first, None))
    assert trials(panel)[0].state is State.SKIPPED
    second = panel._proposal.proposal
    assert second.parameters != first.parameters

    panel._proposal._accept.click()
    assert panel.wait(60)
    told = trials(panel)[1]
    assert told.state is State.FINISHED
    assert told.parameters == second.parameters

    until(lambda: panel._proposal.proposal is not None)
    rate = panel._proposal._fields["learning_rate"]
    rate.input.value = "1"
    assert "expected a number from 3e-05 to 0.0003" in words(rate._hint.value)
    assert panel._proposal._accept.disabled
    rate.input.value = "1.5e-4"
    assert not panel._proposal._accept.disabled
    panel._proposal._edit.click()
    assert panel._proposal.proposal.parameters["learning_rate"] == 1.5e-4
    assert "learning_rate changed by hand" in panel._proposal._words.value
    panel._proposal._accept.click()
    assert panel.wait(60)
    assert trials(panel)[2].parameters["learning_rate"] == 1.5e-4
    assert str(trials(panel)[2].origin) == "edited"


def test_what_is_expected_is_shown_with_its_uncertainty(new_panel):
    panel = new_panel()
    budget(panel, 6)
    panel.start()
    assert panel.wait(120)
    budget(panel, 7)
    panel._propose_button.click()
    until(lambda: panel._proposal.proposal is not None)
    expected = panel._proposal.proposal.predicted
    assert set(expected) == {"training_time", "f1"}
    shown = words(panel._proposal._expected.value)
    assert "±" in shown
    assert f"{expected['f1'].mean:.0f}"[:2] in shown


def test_what_was_typed_into_a_proposal_outlives_a_new_picture(new_panel):
    panel = new_panel()
    panel.propose()
    until(lambda: panel._proposal.proposal is not None)
    panel._proposal._fields["learning_rate"].input.value = "1.5e-4"
    panel._more.value = True
    assert panel.wait(60)
    assert panel._proposal._fields["learning_rate"].input.value == "1.5e-4"


def test_a_search_is_reopened_from_its_file(new_panel, tmp_path):
    first = new_panel()
    budget(first, 3)
    first.start()
    assert first.wait(60)
    first.close()

    second = new_panel(space={"batch_size": [1, 2]})
    choices = [label for label, _ in second._form._choice.options]
    assert choices == ["New search", "1 · search · 3 trials"]
    second._form._choice.value = 1
    until(lambda: second._table.value.count("<tr>") == 4)
    assert read_space(second._form._space.input.value).to_list() == SPACE.to_list()
    assert second._form._space.input.disabled
    assert not second._form._budget.input.disabled
    budget(second, 4)
    second.start()
    assert second.wait(60)
    assert len(second.experiment.finished) == 4
    with Store(tmp_path / "kept" / "advisor.db") as store:
        assert len(store.experiments()) == 1
    with pytest.raises(AdvisorError, match="holds no experiment 9"):
        new_panel(experiment=9)


def test_trials_of_another_handle_are_followed(new_panel, tmp_path):
    panel = new_panel()
    panel.propose()
    assert panel.wait(60)
    with Experiment(tmp_path / "kept" / "advisor.db", panel.experiment.id) as other:
        trial = other.ask()
        panel.open(panel.experiment.id)
        until(lambda: "running" in words(panel._table.value))
        other.tell(trial, objective(trial))
        until(lambda: BEST in words(panel._table.value))
    assert panel.wait(30)


def test_wrong_fields_are_marked_and_start_is_off(new_panel):
    panel = new_panel()
    for field, wrong, said in (
        (panel._form._budget, "many", "expected a whole number from 1 to 10,000"),
        (panel._form._thresholds["f1"], "high", "expected a number, or nothing"),
        (panel._form._space, "batch_size", "means no parameter"),
    ):
        right, field.input.value = field.input.value, wrong
        assert said in words(field._hint.value)
        assert panel._start_button.disabled
        field.input.value = right
        assert not panel._start_button.disabled


def test_why_a_search_cannot_start_while_a_run_has_the_engines_is_said(new_panel):
    panel = new_panel()
    panel.lock(True)
    assert panel._start_button.disabled
    assert "training that goes on" in panel._waits.value
    panel.lock(False)
    assert not panel._start_button.disabled
    assert panel._waits.value == ""


def test_a_parameter_that_is_no_setting_is_refused_for_training(tmp_path):
    panel = TrialsPanel(tmp_path / "advisor.db")
    panel._form._space.input.value = "temperature: 0.1 to 1"
    assert "is not a configuration field" in words(panel._form._space._hint.value)
    panel._form._space.input.value = "batch_size: 0, 8"
    assert "expected a whole number from 1" in words(panel._form._space._hint.value)
    assert panel._start_button.disabled


def test_trial_after_trial_that_fails_says_why(new_panel):
    def broken(*_):
        raise OSError("no <data>")

    panel = new_panel(broken)
    panel.start()
    assert panel.wait(60)
    assert "3 trials in a row failed" in words(panel._state.value)
    assert "no &lt;data&gt;" in panel._table.value
    assert not panel._start_button.disabled


def test_a_file_that_is_none_is_said(new_panel, tmp_path):
    panel = new_panel()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "advisor.db").write_text("not a database, whatever its name says")
    panel._start_button.click()
    assert "That did not work." in panel._state.value
    assert "Traceback" not in panel._state.value


@pytest.mark.parametrize(
    "text",
    [
        "learning_rate: 3e-5 to 0.0003, log\nwarmup_rate: 0.1 to 0.3\nbatch_size: 12, 24",
        "num_epochs: 1 to 4\noptimizer: adamw, lamb\ndropout: 0",
        "num_hidden_layers: 2 to 12 log",
    ],
)
def test_a_space_is_written_and_read_alike(text):
    space = read_space(text)
    assert read_space(write_space(space)) == space
    assert Space.read(json.loads(json.dumps(space.to_list()))) == space


def test_one_real_trial_on_real_engines(tiny_config, tmp_path, cache_of_our_own):
    del cache_of_our_own
    config = tiny_config.replace(output=str(tmp_path / "runs"), target_f1=100.1, num_epochs=3)
    engines, seen = EnginesPanel(1, timeout=300), []
    panel = TrialsPanel(
        tmp_path / "advisor.db", config=config, engines=engines, on_run=seen.append,
        space={"learning_rate": (1e-3, 4e-3, "log-uniform"), "batch_size": [16, 32]},
    )  # fmt: skip
    try:
        budget(panel, 1)
        panel._start_button.click()
        until(lambda: "at step" in words(panel._state.value), 300)
        assert panel.wait(300)
        (trial,) = trials(panel)
        (run,) = seen
        result = Run(run.folder).result
        assert trial.state is State.FINISHED
        # the first trial is what one would have used without a search
        assert trial.parameters == {"learning_rate": 3e-3, "batch_size": 16}
        assert trial.metrics["f1"] == result.f1
        assert trial.metrics["training_time"] == result.wall_seconds
        assert trial.artifact == str(run.model_folder)
    finally:
        panel.close()
        engines.stop()
        assert engines.wait(60)
