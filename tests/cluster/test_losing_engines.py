"""Real training goes on when engines are lost: killed, frozen, or all of them at once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from bertkit.cluster import Cluster
from bertkit.config import Config
from bertkit.errors import TrainingError
from bertkit.events import Checkpoint, Evaluation, Notice, Regrouped, Started, Step
from tests.waiting import until

SECONDS = 400  # the machine may be busy with other things
TARGET = 85.0


@pytest.fixture(scope="module", autouse=True)
def _cache(cache_of_our_own):
    return cache_of_our_own


@pytest.fixture(scope="module")
def ranks(_cache):
    with Cluster(n=2, cores_per_engine=1, lost_after=10, timeout=300) as cluster:
        yield cluster


@pytest.fixture
def config(tiny_config, tmp_path):
    return tiny_config.replace(output=str(tmp_path), target_f1=TARGET)


def at_steps(run, **acts):
    """Follow a run to its end; call each act once at its step."""
    waiting = {int(name.removeprefix("step_")): act for name, act in acts.items()}
    for event in run.events():
        if isinstance(event, Step):
            for number in [n for n in waiting if event.global_step >= n]:
                waiting.pop(number)()
    assert not waiting, run.failure
    return run.wait(SECONDS)


def check_log(run):
    """No gap and no double step, and what was reported is what the steps came to."""
    history = run.history()
    steps = [event.global_step for event in history if isinstance(event, Step)]
    assert steps == list(range(1, run.result.global_step + 1))
    scores = [e.global_step for e in history if isinstance(e, Evaluation)]
    assert scores == list(range(20, run.result.global_step + 1, 20))
    assert run.result.stopped_by == "target_f1"
    assert run.result.validation_f1 >= TARGET


def kill(cluster, rank, how=signal.SIGKILL):
    return lambda: os.kill(cluster.engines[rank].pid, how)


def test_lost_engines_are_named_left_out_and_replaced(ranks, config):
    """Rank 0 is killed, its replacement taken in, and then the other engine frozen."""
    run = ranks.train(config.replace(target_f1=100.1, num_epochs=1000, evaluate_every=0))
    killed, frozen = (engine.pid for engine in ranks.engines)
    meetings = []
    for event in run.events():
        if isinstance(event, Step) and event.global_step == 5:
            os.kill(killed, signal.SIGKILL)
        if isinstance(event, Step) and len(meetings) == 2 and killed:
            os.kill(frozen, signal.SIGSTOP)  # once the replacement has made a step, too
            killed = 0
        if isinstance(event, Regrouped):
            meetings.append(event)
            if len(meetings) == 3:
                run.stop()
    first, second, third, *_ = meetings
    assert [rank.pid for rank in first.ranks] == [frozen]
    assert "rank 0 on" in first.news[0]
    assert "SIGKILL" in first.news[0]
    assert first.global_step >= 4  # of what was reached nothing is made again
    assert [rank.pid == frozen for rank in second.ranks] == [True, False]
    assert "taken in" in second.news[-1]
    assert [rank.pid for rank in third.ranks] == [second.ranks[1].pid]
    assert "rank 0 on" in third.news[0]
    assert "did not answer" in third.news[0]
    until(lambda: not psutil.pid_exists(frozen))
    assert run.wait(SECONDS).stopped_by == "user"
    steps = [event.global_step for event in run.history() if isinstance(event, Step)]
    assert steps == list(range(1, run.result.global_step + 1))


def test_when_all_are_lost_the_newest_checkpoint_is_gone_on_from(ranks, config):
    run = ranks.train(config.replace(checkpoint_every=10))

    def kill_both():
        for engine in ranks.engines:
            os.kill(engine.pid, signal.SIGKILL)

    at_steps(run, step_35=kill_both)
    check_log(run)
    starts = [event.resumed_from for event in run.history() if isinstance(event, Started)]
    assert starts[0] is None
    assert starts[-1] >= 30


def test_one_engine_alone_is_replaced_too(config):
    with Cluster(n=1, cores_per_engine=1, timeout=300) as cluster:
        run = cluster.train(config.replace(checkpoint_every=10))
        at_steps(run, step_15=kill(cluster, 0))
        check_log(run)


def test_a_full_disk_does_not_end_a_run(ranks, config, small_disk):
    """Checkpoint and best model are left out until there is room again."""
    run = ranks.train(config.replace(output=str(small_disk), checkpoint_every=10))
    ballast = small_disk / "ballast"

    def fill():
        """Leave room for events, so that this test sees steps, but not for a checkpoint."""
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        os.truncate(ballast, ballast.stat().st_size - 100_000)

    at_steps(run, step_12=fill, step_45=ballast.unlink)
    check_log(run)
    history = run.history()
    assert any("No space left" in e.message for e in history if isinstance(e, Notice))
    saved = [e.global_step for e in history if isinstance(e, Checkpoint)]
    assert 10 in saved
    assert 20 not in saved
    assert (run.model_folder / "model.safetensors").is_file()


def test_engines_that_die_before_they_make_a_step_are_not_replaced_without_end(tmp_path):
    how = json.dumps({"crashes_at": 1, "rank": 0})
    environment = {"PYTHONPATH": str(Path(__file__).parent)}
    with Cluster(
        n=1, train="stand_in_training:train", environment=environment, timeout=300
    ) as cluster:
        run = cluster.train(Config(output=str(tmp_path), train_file=how))
        with pytest.raises(TrainingError, match="SIGABRT"):
            run.wait(SECONDS)
        assert sum(isinstance(event, Started) for event in run.history()) == 3
