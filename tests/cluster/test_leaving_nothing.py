"""Whatever way a client ends, no process, port or file of its cluster stays behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from bertkit.cluster import Cluster
from bertkit.cluster.coordinator import LeftBehind
from bertkit.events import Regrouped, Step, Stopped, read

HERE = Path(__file__).parent
MARK = "BERTKIT_TEST_MARK"
START_SECONDS = 120


class Client:
    """A program that uses a cluster, in a process group, home and temporary folder of its own."""

    def __init__(self, folder: Path, mark: str) -> None:
        self.folder = folder
        self.mark = mark
        self.home, self.temporary, self.output = folder / "home", folder / "tmp", folder / "runs"
        for each in (self.home, self.temporary, self.output):
            each.mkdir(exist_ok=True)

    def start(self, *arguments: str) -> "Client":
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "client_program.py"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={
                **os.environ,
                MARK: self.mark,
                "HOME": str(self.home),
                "TMPDIR": str(self.temporary),
                "TEST_OUTPUT": str(self.output),
            },
        )
        return self

    def hear(self) -> dict:
        """The next line it says."""
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)

    def end(self) -> tuple[int, str]:
        """Wait for its end: its exit code and what it wrote to stderr."""
        _, errors = self.process.communicate(timeout=START_SECONDS)
        return self.process.returncode, errors

    def processes(self) -> list[psutil.Process]:
        """Every process that came from it."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def check_nothing_is_left(self, seconds: float = 5.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (self.processes() or any(self.temporary.iterdir())):
            time.sleep(0.1)
        assert [process.cmdline() for process in self.processes()] == []
        assert list(self.temporary.iterdir()) == []
        assert not (self.home / ".ipython").exists()


@pytest.fixture
def client(tmp_path):
    client = Client(tmp_path, str(uuid.uuid4()))
    yield client
    for process in client.processes():
        with contextlib.suppress(psutil.Error):
            process.kill()


def test_ctrl_c_stops_a_run_in_order(client):
    client.start("train_until_interrupted")
    folder = Path(client.hear()["folder"])
    os.killpg(client.process.pid, signal.SIGINT)  # as a terminal does
    code, errors = client.end()
    assert code != 0
    assert "KeyboardInterrupt" in errors
    stops = [event.stopped_by for event in read(folder) if isinstance(event, Stopped)]
    assert stops == ["user"]
    client.check_nothing_is_left()


def test_an_exception_inside_with(client):
    client.start("fail_inside")
    assert client.hear() == {"up": True}
    code, errors = client.end()
    assert code == 1
    assert "on purpose" in errors
    client.check_nothing_is_left()


def test_the_interpreters_end(client):
    client.start("end_without_stopping")
    assert client.hear() == {"up": True, "engines": 1}
    code, errors = client.end()
    assert (code, errors) == (0, "")
    client.check_nothing_is_left()


def test_a_cluster_that_nobody_holds(client):
    client.start("forget")
    assert client.hear() == {"children": 0}
    assert client.end() == (0, "")
    client.check_nothing_is_left()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_client(client, how):
    client.start("wait_to_be_killed")
    client.hear()
    assert len(client.processes()) >= 3
    client.process.send_signal(how)
    client.end()
    client.check_nothing_is_left(seconds=15)


def test_ctrl_c_while_the_engines_start(client):
    client.start("wait_to_be_killed")
    while len(client.processes()) < 3:
        time.sleep(0.05)
        assert client.process.poll() is None
    os.killpg(client.process.pid, signal.SIGINT)
    client.end()
    client.check_nothing_is_left()


def test_a_library_that_cannot_be_loaded_is_named(client):
    client.start("cannot_load")
    said = client.hear()["error"]
    assert "no_such_module" in said
    assert client.end() == (0, "")
    client.check_nothing_is_left()


def test_engines_kept_alive_serve_a_client_that_attaches(client):
    client.start("leave_running")
    profile = client.hear()["profile"]
    client.end()
    time.sleep(1.5)  # a watch over the parent would end them in half a second
    engines = [p for p in client.processes() if "engine" in p.cmdline()]
    assert len(engines) == 1
    assert profile in " ".join(engines[0].cmdline())
    client.start("train_attached", profile)
    said = client.hear()
    assert said["step"] == 3
    assert said["cpus"]
    code, errors = client.end()
    assert code == 0, errors
    client.check_nothing_is_left()


@pytest.mark.usefixtures("cache_of_our_own")
def test_a_run_outlives_its_client_and_another_one_takes_over(client, tiny_config):
    config = tiny_config.replace(
        output=str(client.output), target_f1=100.1, num_epochs=1000, evaluate_every=0
    )
    client.start("train_and_wait_to_be_killed", json.dumps(config.to_dict()))
    said = client.hear()
    client.process.kill()
    client.end()

    assert LeftBehind.of(Path(said["folder"])).profile == said["profile"]
    cluster = Cluster(profile=said["profile"], timeout=300).start()
    run = cluster.run
    assert str(run.folder) == str(Path(said["folder"]).resolve())
    assert cluster.state == "training"
    going_on_since = run.history()[-1].global_step
    lost = cluster.engines[1].pid
    regrouped = None
    for event in run.events():
        if regrouped is None and getattr(event, "global_step", 0) > going_on_since and lost:
            os.kill(lost, signal.SIGKILL)  # whoever has taken over sees to it that the run goes on
            lost = 0
        if isinstance(event, Regrouped):
            regrouped = event
            run.stop()
    result = run.wait(START_SECONDS)
    assert len(regrouped.ranks) == 1
    assert "rank 1 on" in regrouped.news[0]
    assert result.stopped_by == "user"
    steps = [event.global_step for event in run.history() if isinstance(event, Step)]
    assert steps == list(range(1, result.global_step + 1))
    cluster.shut_down()
    client.check_nothing_is_left(seconds=30)
