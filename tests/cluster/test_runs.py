import asyncio
import os
import signal
import time
import warnings

import psutil
import pytest

from bertkit.cluster import Cluster
from bertkit.errors import ClusterError, RunError, TrainingError
from bertkit.events import Failed, Finished, Started, Step
from bertkit.loading_tensorflow import NOT_FOR_TRAINING
from bertkit.run import STOP_FILE

SECONDS = 200  # the machine may be busy with other things


def pids(cluster):
    return [engine.pid for engine in cluster.engines]


def at_step(run, number, act):
    """Follow a run to its end; call ``act`` once when a step is seen."""
    for event in run.events():
        if act and isinstance(event, Step) and event.global_step >= number:
            act()
            act = None
    assert act is None, run.failure


def test_each_engine_has_its_own_core(cluster):
    engines = cluster.engines
    assert [engine.id for engine in engines] == sorted(engine.id for engine in engines)
    for engine in engines:
        assert engine.cores == 1
        assert set(engine.cpus) == set(psutil.Process(engine.pid).cpu_affinity())
        environment = psutil.Process(engine.pid).environ()
        assert environment["TF_NUM_INTRAOP_THREADS"] == "1"
    if len(os.sched_getaffinity(0)) >= 2:
        assert engines[0].cpus != engines[1].cpus


def test_engines_load_tensorflow_without_what_only_keras_might_want(cluster):
    for engine in cluster.engines:
        asked = cluster.client[engine.id].apply_async(modules, ["tensorflow", *NOT_FOR_TRAINING])
        assert asked.get(SECONDS) == ["tensorflow"]


def modules(names):
    import sys

    return [name for name in names if name in sys.modules]


def test_runs_one_after_another_in_the_same_engines(cluster, config):
    before = pids(cluster)
    losses = []
    for _ in range(2):
        run = cluster.train(config(steps=7))
        assert cluster.state == "training"
        result = run.wait(SECONDS)
        assert (result.ranks, result.global_step) == (2, 7)
        (started,) = [event for event in run.history() if isinstance(event, Started)]
        assert [(r.rank, r.pid, r.cores) for r in started.ranks] == [
            (0, before[0], 1),
            (1, before[1], 1),
        ]
        losses.append([e.loss for e in run.history() if isinstance(e, Step)])
    # Rank 0's weights are all 0 and reach rank 1, whose own are 1; then both see the sum.
    assert losses[0] == losses[1] == [0.0] * 7
    assert pids(cluster) == before
    assert cluster.state == "idle"


def test_train_returns_at_once_and_only_one_run_goes_on(cluster, config):
    began = time.perf_counter()
    run = cluster.train(config(steps=10_000, seconds=0.02))
    assert time.perf_counter() - began < 0.5
    assert run.running
    with pytest.raises(ClusterError, match="stop it first"):
        cluster.train(config())
    at_step(run, 3, run.stop)
    assert run.result.stopped_by == "user"


def test_nothing_listens_beyond_this_host(cluster, config):
    def open_ports():
        return {
            (process.pid, each.laddr.ip)
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]
            for each in process.net_connections("inet")
        }

    found = set()
    run = cluster.train(config(steps=10_000, seconds=0.02))
    at_step(run, 3, lambda: (found.update(open_ports()), run.stop()))
    assert {address for _, address in found} == {"127.0.0.1"}
    assert {pid for pid, _ in found} > {os.getpid(), *pids(cluster)}


def test_stop_is_heard_within_one_step(cluster, config):
    run = cluster.train(config(steps=10_000, seconds=0.3))
    stopped_after = []

    def stop():
        stopped_after.append(max(e.global_step for e in run.history() if isinstance(e, Step)))
        run.stop()

    at_step(run, 3, stop)
    assert run.wait(SECONDS).global_step <= stopped_after[0] + 1


def test_a_run_can_be_awaited_while_other_things_happen(cluster, config):
    async def both():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.02)

        other = asyncio.create_task(tick())
        result = await cluster.train(config(steps=10, seconds=0.05))
        other.cancel()
        return result, ticks

    result, ticks = asyncio.run(both())
    assert result.global_step == 10
    assert ticks > 5


def test_cancelling_an_await_stops_the_run(cluster, config):
    async def give_up():
        await asyncio.wait_for(run, timeout=1)

    run = cluster.train(config(steps=10_000, seconds=0.02))
    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert run.wait(SECONDS).stopped_by == "user"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failing_rank_is_named_and_the_engines_go_on(cluster, config, rank):
    before = pids(cluster)
    run = cluster.train(config(steps=1000, seconds=0.01, fails_at=5, rank=rank))
    with pytest.raises(TrainingError, match="turned to stone"):
        run.wait(SECONDS)
    assert run.failure.rank == rank
    assert cluster.train(config(steps=3)).wait(SECONDS).ranks == 2
    assert pids(cluster) == before


def test_a_killed_engine_ends_the_run_and_is_replaced(cluster, config):
    before = pids(cluster)
    run = cluster.train(config(steps=10_000, seconds=0.01))
    killed = []

    def kill():
        os.kill(before[0], signal.SIGKILL)
        killed.append(time.monotonic())

    at_step(run, 5, kill)
    assert time.monotonic() - killed[0] < 20
    failure = run.failure
    assert (failure.rank, failure.host) == (0, os.uname().nodename)
    assert "SIGKILL" in failure.message
    assert f"process {before[0]}" in failure.message
    assert "start the run again" in failure.message
    assert cluster.engines[0].state == "ended"

    assert cluster.train(config(steps=3)).wait(SECONDS).ranks == 2
    assert pids(cluster)[0] != before[0]
    assert pids(cluster)[1] == before[1]


def test_an_engine_that_stops_answering_is_ended(cluster, config):
    frozen = cluster.engines[1].pid
    run = cluster.train(config(steps=10_000, seconds=0.01))
    at_step(run, 5, lambda: os.kill(frozen, signal.SIGSTOP))
    deadline = time.monotonic() + 120  # rank 0 says first that it could not reach the other one
    while run.failure.rank != 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert run.failure.rank == 1
    assert "did not answer" in run.failure.message
    assert not psutil.pid_exists(frozen)


def test_a_crash_is_explained_by_the_engines_last_words(cluster, config):
    run = cluster.train(config(steps=1000, seconds=0.01, crashes_at=3, rank=1))
    with pytest.raises(TrainingError, match="SIGABRT"):
        run.wait(SECONDS)
    assert "famous last words" in run.failure.details


def test_resume_forgets_the_old_stop(cluster, config):
    run = cluster.train(config(steps=10_000, seconds=0.01))
    at_step(run, 3, run.stop)
    assert (run.folder / STOP_FILE).exists()
    again = cluster.resume(run.folder)
    at_step(again, 3, again.stop)
    history = again.history()
    assert [event.resumed_from for event in history if isinstance(event, Started)][-1] == 0
    assert isinstance(history[-1], Finished)
    assert not any(isinstance(event, Failed) for event in history)
    with pytest.raises(RunError, match="holds no run"):
        cluster.resume(run.folder / "elsewhere")


def test_a_cluster_must_be_started(config):
    cluster = Cluster(n=1)
    assert cluster.state == "stopped"
    with pytest.raises(ClusterError, match="not started"):
        cluster.train(config())
    with pytest.raises(ClusterError, match="not started"):
        cluster.wait_until_up()
    cluster.stop()


def test_impossible_clusters_are_refused():
    with pytest.raises(ClusterError, match="n is 0"):
        Cluster(n=0)
    with pytest.raises(ClusterError, match="cores_per_engine is 4096"):
        Cluster(n=1, cores_per_engine=4096)
    with pytest.warns(RuntimeWarning, match="slower"):
        Cluster(n=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Cluster(n=1)


def test_no_cluster_to_attach_to(tmp_path):
    (tmp_path / "security").mkdir()
    with pytest.raises(ClusterError, match="ipcluster start"):
        Cluster(profile=str(tmp_path), timeout=1).start()
