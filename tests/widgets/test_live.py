"""The live panel shows what the events say, follows a run that goes on, and never blocks."""

import asyncio
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from bertkit_widgets import live
from bertkit_widgets.live import LivePanel

from bertkit import events
from bertkit.config import Config
from bertkit.errors import RunError
from bertkit.events import Event, EventLog, Failed
from bertkit.run import Run
from tests.reports import recorded_run
from tests.waiting import until

CONFIG = Config(evaluate_every=20)


def settled(panel):
    until(lambda: not panel._thread.running)
    return panel


def alt(panel):
    return re.search(r'alt="([^"]*)"', panel._picture.value)[1]


@pytest.fixture
def finished(tmp_path):
    return recorded_run.write(tmp_path / "runs" / "first", CONFIG)


@pytest.fixture
def writer(tmp_path):
    """Starts a process that trains a run as far as a reader can tell."""
    processes = []

    def start(name="run", steps=300, hz=60.0):
        folder = tmp_path / "runs" / name
        command = [sys.executable, recorded_run.__file__, str(folder)]
        command += ["--steps", str(steps), "--hz", str(hz)]
        processes.append(subprocess.Popen(command))
        until(lambda: (folder / "config.json").exists() and Run(folder).running)
        return folder, processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait(10)


def test_a_finished_run_shows_all_of_its_history(finished):
    panel = settled(LivePanel(finished))
    assert "step 140 of 300" in alt(panel)
    assert "Finished." in panel._status.value
    assert "early stop: F1 reached 90.874" in panel._status.value
    assert "140 of 300" in panel._numbers.value
    assert "the best so far" in panel._log_html.value
    assert panel._stop_button.disabled
    assert panel._resume_button.disabled


def test_a_run_that_goes_on_is_followed_to_its_end(writer):
    folder, _ = writer(hz=10)
    panel = LivePanel(folder)
    pictures, states = set(), set()

    def look():
        pictures.add(panel._picture.value)
        states.add("Training" in panel._status.value and not panel._stop_button.disabled)
        return len(pictures) > 2 and True in states

    until(look)
    result = panel.wait(240)
    assert result.stopped_by == "target_f1"
    assert "Finished." in panel._status.value
    assert panel._watched.history.steps["global_step"].tolist() == list(range(1, 141))


def test_stop_ends_the_run_and_resume_is_offered(writer):
    folder, _ = writer(hz=10)
    resumed = []
    panel = LivePanel(folder, on_resume=lambda path: resumed.append(path) or Run(path))
    until(lambda: "Training" in panel._status.value)
    panel._stop_button.click()
    assert Run(folder).wait(120).stopped_by == "user"
    settled(panel)
    assert "stopped by you" in panel._status.value
    assert not panel._resume_button.disabled
    panel._resume_button.click()
    assert resumed == [folder]


def test_start_and_stop_return_at_once(writer):
    folder, _ = writer(steps=3000, hz=10)  # it would take minutes
    panel = LivePanel(folder)
    assert Run(folder).running
    panel.stop()
    assert panel.wait(240).stopped_by == "user"


def test_a_killed_run_is_said_to_have_ended(writer, monkeypatch):
    monkeypatch.setattr(live, "QUIET_SECONDS", 0.5)
    folder, process = writer(hz=20)
    panel = LivePanel(folder, on_resume=Run)
    until(lambda: panel._watched.history.global_step > 3)
    process.kill()
    settled(panel)
    assert "ended without a result" in panel._status.value
    assert not panel._resume_button.disabled
    assert panel._stop_button.disabled


def test_a_failure_names_rank_host_and_remedy_and_folds_the_traceback(tmp_path):
    folder = recorded_run.write(tmp_path / "bad", CONFIG, 10)
    message = "the loss is not a number at step 7; lower learning_rate."
    with EventLog(folder) as log:
        log(Failed(message=message, rank=1, host="node<2>", details="Traceback: <boom>"))
    status = settled(LivePanel(folder))._status.value
    assert "On rank 1 (node&lt;2&gt;): the loss is not a number" in status
    assert "<details>" in status
    assert "&lt;boom&gt;" in status
    assert 'role="alert"' in status


def test_a_resumed_run_is_not_taken_for_over(finished, monkeypatch):
    """A handle that trains again is alive before the new start is written."""
    monkeypatch.setattr(live, "QUIET_SECONDS", 0.5)
    panel = settled(LivePanel(finished))

    class Resumed(Run):
        running = True

    run = Resumed(finished)
    panel.show(run)
    until(lambda: "Resuming" in panel._status.value)
    assert not panel._stop_button.disabled
    with EventLog(finished) as log:
        log(recorded_run.started(CONFIG, 300, resumed_from=100))
        log(recorded_run.step(101, 300, CONFIG))
        until(lambda: "Training" in panel._status.value)
    assert panel._watched.history.global_step == 101
    Resumed.running = False
    settled(panel)


def test_a_single_new_point_waits_and_two_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "ONE_EVENT_LATER_SECONDS", 1e9)

    class Training(Run):
        running = True

    folder = tmp_path / "run"
    folder.mkdir()
    CONFIG.save(folder / "config.json")
    with EventLog(folder) as log:
        for event in (recorded_run.started(CONFIG, 300), recorded_run.step(1, 300, CONFIG)):
            log(event)
        panel = LivePanel(Training(folder))
        until(lambda: "step 1 of" in panel._picture.value)
        log(recorded_run.step(2, 300, CONFIG))
        until(lambda: panel._undrawn_events == 1)
        until(lambda: time.monotonic() > panel._next_drawing + 1)
        assert "step 1 of" in panel._picture.value
        log(recorded_run.step(3, 300, CONFIG))
        until(lambda: "step 3 of" in panel._picture.value)
    Training.running = False
    settled(panel)


def test_an_event_without_words_of_its_own_is_logged_plainly(finished, monkeypatch):
    @dataclass(frozen=True, kw_only=True)
    class RankLost(Event):
        kind: ClassVar[str] = "rank_lost"
        rank: int
        host: str

    monkeypatch.setitem(events.KINDS, RankLost.kind, RankLost)
    with EventLog(finished) as log:
        log(RankLost(rank=1, host="<node>"))
    panel = settled(LivePanel(finished))
    assert "Rank lost: rank 1, host &lt;node&gt;" in panel._log_html.value
    assert "Finished." in panel._status.value


def test_several_runs_are_drawn_over_each_other(finished, tmp_path):
    second = recorded_run.write(tmp_path / "runs" / "second", CONFIG.replace(seed=3), speed=0.7)
    panel = settled(LivePanel(finished, runs_folder=tmp_path / "runs"))
    names = [label for label, _ in panel._choice.options]
    assert {name.split(" · ")[0] for name in names} == {"first", "second"}
    panel._choice.value = (str(second),)
    panel._compare.click()
    settled(panel)
    assert "first: step 140" in alt(panel)
    assert "second: step" in alt(panel)
    panel._alone.click()
    assert "second" not in alt(settled(panel))


def test_curves_along_minutes(finished):
    panel = settled(LivePanel(finished))
    before = panel._picture.value
    panel._along.value = "minutes"
    assert settled(panel)._picture.value != before


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        LivePanel(tmp_path)


def test_an_error_while_drawing_is_shown(finished, monkeypatch):
    panel = settled(LivePanel(finished))
    monkeypatch.setattr(panel._curves, "png", lambda: 1 / 0)
    panel.compare([])
    settled(panel)
    assert "The live view failed." in panel._status.value
    assert "ZeroDivisionError" in panel._status.value


def test_one_thread_reads_and_it_ends_with_the_run(writer):
    folder, _ = writer()
    panel = LivePanel(folder)
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("bertkit-live") == 1
    panel.wait(240)
    until(lambda: "bertkit-live" not in [thread.name for thread in threading.enumerate()])


def test_the_event_loop_stays_free(writer):
    folder, _ = writer(hz=100)

    async def beats():
        panel, late = LivePanel(folder), []
        while panel._thread.running:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            late.append(time.perf_counter() - before - 0.01)
        return late

    late = asyncio.run(beats())
    assert sorted(late)[len(late) // 2] < 0.02


def test_paths_are_taken_as_text(finished):
    assert settled(LivePanel(str(Path(finished)))).run.folder == finished
