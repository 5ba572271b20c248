"""A run that was killed and resumed is, bit by bit, the run that nobody disturbed.

The runs are processes of their own, on one rank in float32, with dropout, accumulation and as many
threads as TensorFlow takes. They are killed with SIGKILL; one of them while it saves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bertkit.events import Checkpoint, Evaluation, EventReader, Started, Step, Stopped
from bertkit.run import CHECKPOINTS_FOLDER, Run, create_run_folder
from bertkit.training.checkpoints import load_newest_checkpoint

PROGRAM = """
import sys
from bertkit.training.loop import train
from bertkit.training.world import SingleWorld
train(sys.argv[1], SingleWorld(), resume="resume" in sys.argv)
"""
CHECKOUT = Path(__file__).parents[2]
STEPS = 20
TIMEOUT = 240


class Trainer:
    """A process that trains a run."""

    def __init__(self, folder, *words):
        self._log = (folder / "log.txt").open("ab")
        environment = {
            **os.environ, "PYTHONPATH": str(CHECKOUT), "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "",
        }  # fmt: skip
        command = [sys.executable, "-c", PROGRAM, str(folder), *words]
        self.process = subprocess.Popen(
            command, env=environment, stdout=self._log, stderr=self._log
        )
        self.folder = folder

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait(10)
        self._log.close()

    def wait(self):
        code = self.process.wait(TIMEOUT)
        assert code == 0, (self.folder / "log.txt").read_text()

    def kill_when(self, is_time):
        """Kill it as soon as ``is_time`` is true."""
        deadline = time.monotonic() + TIMEOUT
        while not is_time():
            assert self.process.poll() is None, (self.folder / "log.txt").read_text()
            assert time.monotonic() < deadline, "the moment to kill it did not come"
            time.sleep(0.0005)
        self.process.kill()
        assert self.process.wait(10) == -signal.SIGKILL


@pytest.fixture(scope="module")
def config(tiny_config, tmp_path_factory):
    return tiny_config.replace(
        output=str(tmp_path_factory.mktemp("runs")), optimizer="lamb", dropout=0.1,
        micro_batch_tokens=512, step_threshold=STEPS, evaluate_every=1, target_f1=100.1,
        checkpoint_every=10,
    )  # fmt: skip


@pytest.fixture(scope="module")
def straight(config):
    """20 steps that nobody disturbs."""
    folder = create_run_folder(config, "straight")
    with Trainer(folder) as trainer:
        trainer.wait()
    return Run(folder)


def steps(run):
    return [event for event in run.history() if isinstance(event, Step)]


def assert_same_run(found, expected):
    for a, b in zip(steps(found), steps(expected), strict=True):
        names = ("global_step", "loss", "gradient_norm", "learning_rate", "examples", "epoch")
        assert [getattr(a, n) for n in names] == [getattr(b, n) for n in names]
    scores = [
        [
            (e.global_step, e.f1, e.exact_match, e.best)
            for e in run.history()
            if isinstance(e, Evaluation)
        ]
        for run in (found, expected)
    ]
    assert scores[0] == scores[1]
    states = [load_newest_checkpoint(run.folder) for run in (found, expected)]
    assert states[0][0].global_step == states[1][0].global_step == STEPS
    assert states[0][1].keys() == states[1][1].keys()
    for name, array in states[0][1].items():
        assert array.tobytes() == states[1][1][name].tobytes(), name
    changing = ("folder", "wall_seconds", "examples_per_second")
    results = [
        {n: v for n, v in run.result.to_dict().items() if n not in changing}
        for run in (found, expected)
    ]
    assert results[0] == results[1]
    for name in ("model.safetensors", "config.json"):
        files = [(run.model_folder / name).read_bytes() for run in (found, expected)]
        assert files[0] == files[1]


def test_the_straight_run_is_what_it_should_be(straight):
    assert [event.global_step for event in steps(straight)] == list(range(1, STEPS + 1))
    losses = [event.loss for event in steps(straight)]
    assert losses[-1] < losses[0]
    assert len(set(losses)) == STEPS
    assert straight.result.stopped_by == "step_threshold"


def test_the_result_is_that_of_the_best_model(straight):
    """Not of the last: the validation here is the whole file, so both scores are the same."""
    evaluations = [event for event in straight.history() if isinstance(event, Evaluation)]
    best = max(evaluations, key=lambda event: event.f1)  # the first of those that are best
    result = straight.result
    assert result.best_step == best.global_step
    assert (result.f1, result.exact_match) == pytest.approx((best.f1, best.exact_match), abs=1e-9)
    assert result.validation_f1 == best.f1


def test_10_steps_and_a_kill_and_10_steps(config, straight):
    folder = create_run_folder(config, "killed")
    reader, seen = EventReader(folder), []

    def after_the_checkpoint():
        seen.extend(reader.new())
        return any(isinstance(event, Checkpoint) for event in seen)

    with Trainer(folder) as trainer:
        trainer.kill_when(after_the_checkpoint)
    run = Run(folder)
    assert not run.running
    assert run.result is None
    assert load_newest_checkpoint(folder)[0].global_step == 10
    with Trainer(folder, "resume") as trainer:
        trainer.wait()
    starts = [event for event in run.history() if isinstance(event, Started)]
    assert [start.resumed_from for start in starts] == [None, 10]
    assert_same_run(run, straight)


def test_kills_while_it_saves(config, straight):
    """Killed at every chance: each checkpoint that is begun after some more steps is torn."""
    folder = create_run_folder(config.replace(checkpoint_every=1), "torn")
    parent = folder / CHECKPOINTS_FOLDER
    random = np.random.default_rng(11)
    words, resumed_from, torn = (), [], 0
    for _ in range(2):
        newest = resumed_from[-1] if resumed_from else 0
        least = newest + int(random.integers(2, 6))

        def is_saving(least=least):
            begun = [p.name for p in parent.glob(".writing-step-*")] if parent.is_dir() else []
            return any(int(name.rpartition("-")[2]) >= least for name in begun)

        with Trainer(folder, *words) as trainer:
            trainer.kill_when(is_saving)
        torn += any(parent.glob(".writing-*"))
        position, arrays = load_newest_checkpoint(folder)
        assert least - 1 <= position.global_step < STEPS
        assert all(np.isfinite(array).all() for array in arrays.values())
        resumed_from.append(position.global_step)
        words = ("resume",)
    with Trainer(folder, "resume") as trainer:
        trainer.wait()
    run = Run(folder)
    starts = [event for event in run.history() if isinstance(event, Started)]
    assert [start.resumed_from for start in starts] == [None, *resumed_from]
    assert_same_run(run, straight)
    assert torn  # at least one of the kills left half a checkpoint behind
    assert not any(parent.glob(".*"))


def test_resuming_a_finished_run_changes_nothing_but_its_result_file(straight):
    before = [event for event in straight.history() if isinstance(event, Step | Evaluation)]
    result = straight.result
    with Trainer(straight.folder, "resume") as trainer:
        trainer.wait()
    after = [event for event in straight.history() if isinstance(event, Step | Evaluation)]
    assert after == before
    stops = [event for event in straight.history() if isinstance(event, Stopped)]
    assert [stop.stopped_by for stop in stops] == ["step_threshold"]
    again = straight.result
    assert (again.f1, again.exact_match) == (result.f1, result.exact_match)
    assert (again.global_step, again.best_step) == (result.global_step, result.best_step)
