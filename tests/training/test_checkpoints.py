"""Checkpoints are whole or not there, whenever their writer dies."""

from __future__ import annotations

import json
import os
import resource
import selectors
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from bertkit.errors import RunError
from bertkit.run import CHECKPOINTS_FOLDER, MODEL_FOLDER
from bertkit.training import checkpoints
from bertkit.training.checkpoints import (
    Position,
    load_newest_checkpoint,
    save_best_model,
    save_checkpoint,
)
from tests.training import saving_program

PROGRAM = [sys.executable, saving_program.__file__]
CHECKOUT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
KILLS = 24

POSITION = Position(global_step=7, best_f1=61.25, best_exact_match=50.5, best_step=5, seconds=1.5)


def some_arrays(value=1.0):
    return {"bert.weight": np.full((3, 2), value, np.float32), "first/x": np.zeros(4, np.float32)}


def names(folder):
    return [path.name for path in checkpoints.checkpoints(folder)]


# What goes in comes out ---------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.text("abc./_01", min_size=1, max_size=20),
        arrays_of.arrays(np.float32, arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0)),
        min_size=1,
        max_size=4,
    ),
    st.builds(
        Position,
        global_step=st.integers(0, 10**9),
        best_f1=st.floats(-1, 100),
        best_exact_match=st.floats(-1, 100),
        best_step=st.integers(0, 10**9),
        seconds=st.floats(0, 1e9),
    ),
)
def test_a_checkpoint_comes_back_bit_by_bit(tmp_path_factory, arrays, position):
    folder = tmp_path_factory.mktemp("run")
    save_checkpoint(folder, position, arrays, keep=1)
    found_position, found = load_newest_checkpoint(folder)
    assert found_position == position
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == np.float32
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def test_the_newest_few_are_kept(tmp_path):
    for step in (5, 9, 10, 999, 1000):
        path = save_checkpoint(tmp_path, Position(step), some_arrays(step), keep=3)
        assert path.is_dir()
    assert names(tmp_path) == ["step-00000010", "step-00000999", "step-00001000"]
    position, arrays = load_newest_checkpoint(tmp_path)
    assert position.global_step == 1000
    assert arrays["bert.weight"][0, 0] == 1000


def test_the_same_step_again_replaces_the_first(tmp_path):
    save_checkpoint(tmp_path, Position(3), some_arrays(1), keep=2)
    save_checkpoint(tmp_path, Position(3), some_arrays(2), keep=2)
    assert names(tmp_path) == ["step-00000003"]
    assert load_newest_checkpoint(tmp_path)[1]["bert.weight"][0, 0] == 2


def test_only_checkpoints_are_taken_for_checkpoints(tmp_path):
    save_checkpoint(tmp_path, Position(3), some_arrays(), keep=2)
    parent = tmp_path / CHECKPOINTS_FOLDER
    for name in (".writing-step-00000009", "step-9.bak", "notes", "step-"):
        (parent / name).mkdir()
    assert names(tmp_path) == ["step-00000003"]


# What cannot be read or written -------------------------------------------------------------------


def test_no_checkpoint(tmp_path):
    with pytest.raises(RunError, match=r"holds no checkpoint to resume from; start the run anew"):
        load_newest_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("state.safetensors", b""),
        ("state.safetensors", b"\xff" * 100),
        ("progress.json", b"{"),
        ("progress.json", b'{"steps": 3}'),
        ("progress.json", None),
    ],
)
def test_a_damaged_checkpoint_is_named(tmp_path, file, content):
    path = save_checkpoint(tmp_path, POSITION, some_arrays(), keep=2) / file
    path.write_bytes(content) if content is not None else path.unlink()
    with pytest.raises(RunError, match=r"cannot read checkpoint .*step-00000007: "):
        load_newest_checkpoint(tmp_path)


@pytest.mark.parametrize("what", ["checkpoint", "model"])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, what):
    """The operating system refuses to write more than some bytes, as a full disk does."""
    save_checkpoint(tmp_path, Position(1), some_arrays(1), keep=2)
    save_best_model(tmp_path, 1, lambda folder: (folder / "file").write_text("one"))
    save = {
        "checkpoint": lambda: save_checkpoint(tmp_path, Position(2), saving_program.state(2), 1),
        "model": lambda: save_best_model(tmp_path, 2, _write_a_million_bytes),
    }[what]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(RunError, match=r"^cannot write .*step-00000002: .*; free some space$"):
            save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_newest_checkpoint(tmp_path)[0].global_step == 1
    assert (tmp_path / MODEL_FOLDER / "file").read_text() == "one"
    assert not list(tmp_path.rglob(".writing-*"))


def _write_a_million_bytes(folder):
    (folder / "file").write_bytes(bytes(10**6))


# The best model -----------------------------------------------------------------------------------


def test_the_best_model_is_replaced_and_nothing_else_stays(tmp_path):
    for step in (3, 8, 8, 8, 11):
        save_best_model(tmp_path, step, lambda folder, s=step: (folder / "file").write_text(str(s)))
        assert (tmp_path / MODEL_FOLDER / "file").read_text() == str(step)
        assert len(list((tmp_path / checkpoints.BEST_FOLDER).iterdir())) == 1


def test_a_run_folder_can_be_moved(tmp_path):
    (tmp_path / "run").mkdir()
    save_best_model(tmp_path / "run", 3, lambda folder: (folder / "file").write_text("here"))
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert (moved / MODEL_FOLDER / "file").read_text() == "here"


def test_a_run_folder_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in ("one", "two"):
        save_best_model(
            Path("run"), 3, lambda folder, text=content: (folder / "file").write_text(text)
        )
        save_checkpoint(Path("run"), POSITION, some_arrays(), keep=1)
    assert (tmp_path / "run" / MODEL_FOLDER / "file").read_text() == "two"


# Death --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["checkpoint", "model", "model-again"])
def test_dying_before_any_operation_leaves_something_whole(tmp_path, what):
    """The writer is killed once before each of the operations that saving consists of."""
    done = subprocess.run(
        [*PROGRAM, "crash", str(tmp_path), what],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["deaths"] >= 10
    assert 0 < report["after"] < report["deaths"]  # some deaths came before the switch, some after
    assert report["left"] == []


def test_kill_at_random_moments(tmp_path):
    """A writer that always saves is killed again and again: the newest checkpoint always loads."""
    random = np.random.default_rng(5)
    torn = rounds = 0
    while torn < KILLS:  # really while it saved
        rounds += 1
        assert rounds <= 5 * KILLS, "it was hardly ever killed while it saved"
        with subprocess.Popen(
            [*PROGRAM, "loop", str(tmp_path)], env=ENVIRONMENT, stdout=subprocess.PIPE, bufsize=0
        ) as program:
            first = _line(program, timeout=60)  # it has loaded its libraries
            time.sleep(random.uniform(0, 0.05))
            program.kill()
            lines = [first, *program.stdout.read().decode().splitlines()]
        saved = [int(line.split()[1]) for line in lines if line.startswith("saved ")]
        begun = [int(line.split()[1]) for line in lines if line.startswith("saving ")]
        torn += len(begun) > len(saved)
        newest = saving_program.newest_complete_step(tmp_path) if saved or names(tmp_path) else 0
        assert newest in (max(saved, default=begun[0] - 1), begun[-1])
        assert len(names(tmp_path)) <= saving_program.KEEP + 1
    saving_program.save(tmp_path, newest + 1)
    assert len(names(tmp_path)) == saving_program.KEEP
    assert not list(tmp_path.rglob(".*"))


def _line(program, timeout):
    with selectors.DefaultSelector() as selector:
        selector.register(program.stdout, selectors.EVENT_READ)
        assert selector.select(timeout), "the program says nothing"
    return program.stdout.readline().decode()
