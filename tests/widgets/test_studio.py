"""The studio does the whole job on two real engines, without a page in front of it."""

import asyncio
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from bertkit_widgets import AskPanel, EnginesPanel, Studio
from bertkit_widgets.ask import wrong_answers
from bertkit_widgets.studio import ASK, TRAINING

from bertkit.errors import BertkitError, ClusterError
from bertkit.run import Run
from tests.reports import recorded_run
from tests.waiting import until


@pytest.fixture(scope="module", autouse=True)
def _cache(cache_of_our_own):
    """Features are kept away from the user's cache."""


@pytest.fixture(scope="module")
def studio(tiny_config, tmp_path_factory):
    config = tiny_config.replace(output=str(tmp_path_factory.mktemp("runs")), target_f1=80.0)
    studio = Studio(config, engines=2, timeout=300)
    yield studio
    studio.close()
    until(lambda: "bertkit-live" not in [thread.name for thread in threading.enumerate()])


def words(html):
    return " ".join(re.sub("<[^>]*>", " ", html).split())


def field(studio, name):
    forms = [studio.data.form, *studio.hyperparameters._forms]
    return next(form.fields[name].input for form in forms if name in form.fields)


def test_start_is_off_until_all_fields_are_right(studio):
    rate = field(studio, "learning_rate")
    right, rate.value = rate.value, "fast"
    assert studio._start_button.disabled
    assert "Learning rate is 'fast'" in words(studio._state.value).replace("&#x27;", "'")
    rate.value = right
    assert not studio._start_button.disabled
    studio.engines._count.value = "none"
    assert studio._start_button.disabled
    studio.engines._count.value = "2"
    assert not studio._start_button.disabled


def test_the_whole_job(studio):
    studio._start_button.click()
    assert isinstance(studio.run, Run)  # at once, while the engines still start
    assert studio._start_button.disabled
    assert field(studio, "learning_rate").disabled
    assert studio._tabs.selected_index == TRAINING
    with pytest.raises(ClusterError, match="a run goes on"):
        studio.start()

    result = studio.wait(300)
    assert result.stopped_by == "target_f1"
    assert "Finished." in studio.live._status.value
    until(lambda: not studio._start_button.disabled)
    assert not field(studio, "learning_rate").disabled
    assert studio._stop_button.disabled

    until(lambda: studio.ask._run.value == str(studio.run.folder))
    studio._tabs.selected_index = ASK
    studio.ask._paragraph.value = "the river . ada moss built the mill in tarn in 1805 ."
    studio.ask._question.value = "when was the mill built ?"
    studio.ask._ask_button.click()
    assert studio.ask.wait(120)
    assert "<mark>" in studio.ask._answer.value
    assert "Best answers" in studio.ask._answer.value


def test_engines_are_shown_one_row_each(studio):
    until(lambda: studio.engines._table.value.count("<tr>") == 3)
    rows = words(studio.engines._table.value)
    assert "GiB" in rows
    until(lambda: "now" in words(studio.engines._table.value))
    until(lambda: "Ready." in studio.engines._state.value)  # after the last run


def test_stop_and_resume(studio):
    field(studio, "target_f1").value = "100.1"
    field(studio, "num_epochs").value = "200"
    run = studio.start()
    until(lambda: studio.live._watched.history.global_step > 3, 300)
    studio._stop_button.click()
    assert asyncio.run(awaited(run)).stopped_by == "user"
    stopped_at = studio.live._watched.history.global_step
    until(lambda: not studio.live._resume_button.disabled)
    studio.live._resume_button.click()
    until(lambda: studio.live._watched.history.global_step > stopped_at, 300)
    assert not studio._stop_button.disabled
    studio._stop_button.click()
    assert studio.wait(60).global_step > stopped_at
    until(lambda: not studio._start_button.disabled)


async def awaited(run):
    return await run


def test_a_run_that_fails_says_why_without_a_traceback_in_sight(studio, tmp_path):
    data = field(studio, "data")
    right, data.value = data.value, str(tmp_path)
    try:
        studio._start_button.click()
        with pytest.raises(BertkitError):
            studio.wait(120)
        status = studio.live._status.value
        assert "holds no train-v1.1.json" in words(status)
        assert "Traceback" not in status.partition("<details>")[0]
        until(lambda: not studio._start_button.disabled)
    finally:
        data.value = right


def test_a_saved_run_is_opened_with_its_history(studio):
    folders = sorted(Run(path).folder for path in studio.run.folder.parent.iterdir())
    studio.open(folders[0])
    until(lambda: "Finished." in studio.live._status.value)
    assert studio.ask._run.value == str(folders[0])


def test_wrong_answers_are_those_that_do_not_match(studio):
    from bertkit.squad.reading import load_data

    folder = next(path for path in sorted(studio.run.folder.parent.iterdir()))
    run = Run(folder)
    _, dev = load_data(run.config)
    found = wrong_answers(run, dev)
    right = round(run.result.exact_match * run.result.total / 100)
    assert len(found) == run.result.total - right
    assert [wrong.f1 for wrong in found] == sorted(wrong.f1 for wrong in found)
    panel = AskPanel(run, runs_folder=folder.parent)
    panel._wrong_button.click()
    assert panel.wait(60)
    assert f"{len(found)} of {len(dev)} were not answered exactly." in panel._state.value
    assert "Expected" in panel._wrong_text.value  # the worst one is shown at once


def test_the_newest_model_is_chosen_and_may_be_asked_at_once(studio, tmp_path):
    runs = studio.run.folder.parent
    panel = AskPanel(runs_folder=runs)
    assert panel._run.value == panel._run.options[0][1]
    assert not panel._ask_button.disabled
    panel._question.value = "when was the mill built ?"
    panel._ask_button.click()
    assert panel.wait(60)
    assert "sure)" in panel._state.value or "No answer." in panel._state.value
    empty = AskPanel(runs_folder=tmp_path)
    assert (empty._run.label, empty._ask_button.disabled) == ("none yet", True)
    empty.refresh(runs / Path(panel._run.value).name)
    assert not empty._ask_button.disabled


def test_a_run_that_goes_on_is_taken_up(tiny_config, tmp_path):
    """As after a restart of the kernel: nobody here has started it."""
    folder = tmp_path / "runs" / "left-behind"
    command = [sys.executable, recorded_run.__file__, str(folder), "--hz", "30", "--steps", "200"]
    with subprocess.Popen(command) as writer:
        until(lambda: (folder / "config.json").exists() and Run(folder).running)
        studio = Studio(tiny_config.replace(output=str(folder.parent)))
        assert studio.run.folder == folder
        assert studio._start_button.disabled
        until(lambda: studio.live._watched.history.global_step > 3)
        until(lambda: not studio._stop_button.disabled)
        studio._stop_button.click()
        assert studio.wait(60).stopped_by == "user"
        writer.wait(60)
    until(lambda: not studio._start_button.disabled)
    assert "The model is trained" in studio._state.value
    studio._ask_button.click()
    assert studio._tabs.selected_index == ASK


def test_ask_without_a_run_says_what_to_do(tmp_path):
    panel = AskPanel(runs_folder=tmp_path)
    assert panel._ask_button.disabled
    assert "No trained model yet." in panel._state.value
    panel._ask_button.click()
    assert panel.wait(30)
    assert "train one, then press Refresh" in panel._state.value


@pytest.mark.parametrize("count", ["0", "two", "1000"])
def test_a_wrong_number_of_engines_is_refused(count):
    panel = EnginesPanel()
    panel._count.value = count
    assert "expected a whole number from 1 to 64" in words(panel._problem.value)
    assert panel._start_button.disabled
    with pytest.raises(ClusterError):
        panel.start()


def test_stopped_engines_are_gone(studio):
    import psutil

    pids = [engine.pid for engine in studio.engines.cluster.engines]
    assert pids
    studio.engines._stop_button.click()
    assert studio.engines.wait(60)
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    assert studio.engines.state == "stopped"
    assert not studio.engines._start_button.disabled
