"""A run, seen through its folder."""

from __future__ import annotations

import json
import threading

import pytest

from bertkit.config import Config
from bertkit.errors import RunError, TrainingError
from bertkit.events import EventLog, Failed, Finished, Notice
from bertkit.run import RESULT_FILE, STOP_FILE, Result, Run, create_run_folder

RESULT = Result(
    f1=91.0, exact_match=80.0, total=10, validation_f1=92.0, global_step=5, best_step=4,
    stopped_by="target_f1", examples_per_second=3.0, wall_seconds=2.0, model="minilm",
    data="sample", ranks=2, folder="runs/x",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return create_run_folder(Config(output=str(tmp_path), batch_size=7), "one")


def test_a_new_run_holds_its_configuration(folder):
    run = Run(folder)
    assert run.config.batch_size == 7
    assert run.result is None
    assert not run.running
    assert run.history() == []


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path):
    config = Config(output=str(tmp_path))
    assert len({create_run_folder(config) for _ in range(5)}) == 5


def test_a_name_is_taken_once(tmp_path, folder):
    with pytest.raises(RunError, match="already exists"):
        create_run_folder(Config(output=str(tmp_path)), folder.name)


def test_an_output_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"output|already exists"):
        create_run_folder(Config(output=str(tmp_path / "file")))


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        Run(tmp_path)


def test_stop_leaves_a_word_for_rank_0(folder):
    Run(folder).stop()
    assert (folder / STOP_FILE).exists()


def test_wait_shows_events_and_returns_the_result(folder):
    begun, seen = threading.Event(), []

    def train():
        with EventLog(folder) as log:
            begun.set()
            log(Notice(message="hello"))
            (folder / RESULT_FILE).write_text(json.dumps({**RESULT.to_dict(), "later": 1}))
            log(Finished(result=RESULT.to_dict()))

    trainer = threading.Thread(target=train)
    trainer.start()
    begun.wait(10)
    assert Run(folder).wait(timeout=30, on_event=seen.append) == RESULT
    trainer.join(10)
    assert [event.kind for event in seen] == ["notice", "finished"]


def test_wait_raises_what_the_run_failed_of(folder):
    with EventLog(folder) as log:
        log(Failed(message="the loss is nan at step 3", rank=1))
    with pytest.raises(TrainingError, match="nan at step 3"):
        Run(folder).wait(timeout=10)


def test_a_run_that_was_killed_says_how_to_go_on(folder):
    with EventLog(folder) as log:
        log(Notice(message="and then the power went"))
    with pytest.raises(TrainingError, match="resume it"):
        Run(folder).wait(timeout=10)


def test_waiting_ends_in_time(folder):
    with EventLog(folder), pytest.raises(TimeoutError, match="still going on"):
        Run(folder).wait(timeout=0.3)
