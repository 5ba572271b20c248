"""Three hosts train as the studio has them train; a client that is killed leaves nothing there."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from bertkit_widgets import Studio

from bertkit.cluster import Cluster
from bertkit.events import Regrouped, Started, Step, read
from tests.waiting import until

HERE = Path(__file__).parent
CLUSTER_TESTS = HERE.parent / "cluster"
# The engines hear no more of the client for so long before they end, plus what a busy machine adds.
SILENCE_SECONDS = 60
MARK = "BERTKIT_TEST_MARK"


def left(network):
    return {
        name: [*network.processes(name).values(), *network.listening(name)]
        for name in network.names
        if network.processes(name) or network.listening(name)
    }


@pytest.fixture(scope="module", autouse=True)
def _cache(cache_of_our_own):
    """Features are kept away from the user's cache; engines get the variable, too."""


def test_three_hosts_train_through_the_studio(network, tiny_config, tmp_path):
    config = tiny_config.replace(output=str(tmp_path / "runs"), target_f1=80.0)
    studio = Studio(config, ssh_options=network.ssh_options, timeout=300)
    studio.engines._cores.value = "1"
    try:
        studio.engines._hosts.input.value = "node1, node2:x"
        assert studio._start_button.disabled
        assert "'node2:x' cannot be read" in studio.engines._hosts._hint.value.replace(
            "&#x27;", "'"
        )
        studio.engines._hosts.input.value = ", ".join(network.names)
        assert not studio._start_button.disabled
        assert studio.engines.n == 3

        studio._start_button.click()
        result = studio.wait(500)
        assert result.stopped_by == "target_f1"
        assert result.f1 >= 80.0

        cluster = studio.engines.cluster
        assert [engine.host for engine in cluster.engines] == network.names
        folders = {engine.process._folder for engine in cluster._engines}
        assert len(folders) == 3
        events = read(studio.run.folder)
        started = next(event for event in events if isinstance(event, Started))
        assert [rank.host for rank in started.ranks] == network.names
        steps = [event.global_step for event in events if isinstance(event, Step)]
        assert steps == sorted(set(steps))
        until(lambda: studio.engines._table.value.count("node2") == 1)
        # The controller listens where the hosts call it, and nowhere else.
        controller = cluster._source._controller
        tree = [psutil.Process(controller._process.pid)]
        tree += tree[0].children(recursive=True)
        listening = {
            each.laddr.ip
            for process in tree
            for each in process.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
        }
        assert listening == {network.client_address}
    finally:
        studio.close()
        studio.engines.wait(60)
    until(lambda: left(network) == {}, 60)  # what was last asked of the hosts may take its time
    assert not any(Path(folder).exists() for folder in folders)


def test_hosts_that_are_cut_off_are_gone_on_without(network, quick, tiny_config, tmp_path):
    """One of them is that of rank 0, which writes the events; the other one comes back."""
    config = tiny_config.replace(
        output=str(tmp_path / "runs"), target_f1=100.1, num_epochs=1000, evaluate_every=0
    )
    hosts = dict.fromkeys(network.names, 1)
    groups: list[list[str]] = []
    try:
        with Cluster(
            hosts=hosts, ssh_options=quick, cores_per_engine=1, report=lambda _: None,
            environment={"HOROVOD_GLOO_TIMEOUT_SECONDS": "10"},  # 30 unless one says otherwise
        ) as cluster:  # fmt: skip
            run = cluster.train(config)
            for event in run.events():
                if isinstance(event, Step) and event.global_step == 5:
                    network.cut("node1")
                    network.cut("node3")
                if isinstance(event, Regrouped):
                    groups.append([rank.host for rank in event.ranks])
                    if groups[-1] == ["node2"]:
                        network.mend("node3")
                    if groups[-1] == ["node2", "node3"]:
                        run.stop()
            result = run.wait(300)
            network.mend("node1")  # it is heard when the cluster ends
    finally:
        for name in network.names:
            network.mend(name)
    assert groups[-1] == ["node2", "node3"]
    history = run.history()
    news = [words for event in history if isinstance(event, Regrouped) for words in event.news]
    assert any("rank 0 on node1" in words for words in news), news
    steps = [event.global_step for event in history if isinstance(event, Step)]
    assert steps == list(range(1, result.global_step + 1))
    until(lambda: left(network) == {}, SILENCE_SECONDS)


def test_a_killed_client_leaves_nothing_on_any_host(network, tmp_path):
    mark = f"{os.getpid()}-{tmp_path.name}"
    log = tmp_path / "client.log"
    with log.open("wb") as output:
        client = subprocess.Popen(
            [
                sys.executable, str(HERE / "client_program.py"), ",".join(network.names),
                str(tmp_path / "runs"), *network.ssh_options,
            ],
            stdout=subprocess.PIPE, stderr=output, text=True,
            env={**os.environ, MARK: mark, "TMPDIR": str(tmp_path)},
        )  # fmt: skip
    try:
        assert client.stdout.readline() == "training\n", log.read_text()
        assert all(network.processes(name) for name in network.names)
    finally:
        client.send_signal(signal.SIGKILL)
        client.wait(30)
    deadline = time.monotonic() + SILENCE_SECONDS
    while (left(network) or _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left(network) == {}
    assert _marked(mark) == []


def _marked(mark):
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                found.append(process.cmdline())
    return found
