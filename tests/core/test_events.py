"""Events: what is written is what is read, whoever was killed in between."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit import events
from bertkit.errors import RunError
from bertkit.events import (
    Checkpoint,
    Evaluation,
    EventLog,
    EventReader,
    Failed,
    Finished,
    Notice,
    RankInfo,
    Regrouped,
    Started,
    Step,
    Stopped,
)

PLAIN = {
    "str": st.text(),
    "int": st.integers(0, 2**53),
    "float": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "int | None": st.one_of(st.none(), st.integers(0, 9)),
    "str | None": st.one_of(st.none(), st.text()),
    "list[str]": st.lists(st.text()),
    "dict[str, Any]": st.dictionaries(st.text(), st.integers()),
    "dict[str, str]": st.dictionaries(st.text(), st.text()),
    "list[RankInfo]": st.lists(
        st.builds(RankInfo, rank=st.integers(), host=st.text(), pid=st.integers())
    ),
}


def any_event():
    return st.one_of(
        [
            st.builds(cls, **{f.name: PLAIN[str(f.type)] for f in dataclasses.fields(cls)})
            for cls in events.KINDS.values()
        ]
    )


def started(resumed_from=None):
    return Started(
        config={}, ranks=[], precision="float32", parameters=1, train_questions=1,
        train_features=1, dev_questions=1, total_steps=9, resumed_from=resumed_from,
    )  # fmt: skip


def step(number):
    return Step(
        global_step=number, epoch=0.1, loss=1.0, learning_rate=0.1, gradient_norm=1.0, examples=1,
        examples_per_second=1.0, seconds=1.0, communication_seconds=0.0, input_seconds=0.0,
        padding_share=0.0,
    )  # fmt: skip


@given(any_event())
def test_what_is_written_is_what_is_read(event):
    line = event.to_json()
    assert "\n" not in line
    assert events.parse(line) == event


def test_kinds_and_fields_of_a_later_version_are_passed_over():
    assert events.parse('{"kind": "dreamt", "time": 1}') is None
    assert events.parse('{"kind": "notice", "time": 1, "message": "m", "colour": 2}') == Notice(
        time=1, message="m"
    )


def test_a_resume_makes_later_steps_void(tmp_path):
    with EventLog(tmp_path) as log:
        for event in (
            started(), step(1), Checkpoint(global_step=1, path="c", seconds=0.1), step(2),
            Evaluation(global_step=2, f1=1.0, exact_match=1.0, questions=1, seconds=1, best=True),
            Stopped(global_step=2, stopped_by="user"), Finished(result={}),
            started(resumed_from=1), step(2), step(3),
        ):  # fmt: skip
            log(event)
    kept = [e.global_step for e in events.read(tmp_path) if isinstance(e, Step)]
    assert kept == [1, 2, 3]
    assert not any(isinstance(e, Finished | Evaluation) for e in events.read(tmp_path))


def test_ranks_that_met_anew_make_later_steps_void(tmp_path):
    regrouped = Regrouped(global_step=1, ranks=[], news=["rank 1 went"], detected=1.0)
    with EventLog(tmp_path) as log:
        for event in (started(), step(1), step(2), Failed(message="cut off"), regrouped, step(2)):
            log(event)
    kept = events.read(tmp_path)
    assert [e.global_step for e in kept if isinstance(e, Step)] == [1, 2]
    assert not any(isinstance(e, Failed) for e in kept)
    assert regrouped in kept


def test_events_wait_for_room_on_a_full_disk(small_disk):
    with EventLog(small_disk) as log:
        log(step(1))
        ballast = small_disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(bytes(512))
                file.flush()
        for number in range(2, 40):
            log(step(number))
        kept = [e.global_step for e in events.read(small_disk) if isinstance(e, Step)]
        assert len(kept) < 39  # the disk really was full
        ballast.unlink()
        log(step(40))
    kept = [e.global_step for e in events.read(small_disk) if isinstance(e, Step)]
    assert kept == list(range(1, 41))


def test_one_writer_at_a_time(tmp_path):
    assert not events.is_being_written(tmp_path)
    with EventLog(tmp_path):
        assert events.is_being_written(tmp_path)
        with pytest.raises(RunError, match="being trained by another process"):
            EventLog(tmp_path)
    assert not events.is_being_written(tmp_path)


WRITER = """
import sys
from pathlib import Path
from bertkit.events import EventLog, Notice
log = EventLog(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    log(Notice(message="x" * 3000))
"""


def test_a_killed_writer_leaves_whole_events_and_frees_the_file(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        reader = EventReader(tmp_path)
        while len(events.read(tmp_path)) < 200:
            assert process.poll() is None
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        process.stdout.close()
    found = reader.new()
    assert {event.message for event in found} == {"x" * 3000}
    with EventLog(tmp_path) as log:
        log(Notice(message="after"))
    assert [event.message for event in reader.new()] == ["after"]


def test_half_a_line_is_not_read_and_does_not_hide_the_next(tmp_path):
    path = tmp_path / events.EVENTS_FILE
    path.write_text('{"kind": "notice", "time": 1, "mess')
    assert events.read(tmp_path) == []
    with EventLog(tmp_path) as log:
        log(Notice(message="whole"))
    assert [event.message for event in events.read(tmp_path)] == ["whole"]


def test_followers_see_every_event_until_the_run_is_over(tmp_path):
    seen = []
    reader = threading.Thread(
        target=lambda: seen.extend(events.follow(tmp_path, poll=0.01)), daemon=True
    )
    reader.start()
    with EventLog(tmp_path) as log:
        for number in range(300):
            log(step(number))
        log(Failed(message="over"))
    reader.join(30)
    assert not reader.is_alive()
    assert [e.global_step for e in seen[:-1]] == list(range(300))
    assert seen[-1].message == "over"
