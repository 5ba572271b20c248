"""Ranks that horovodrun starts train to the end; the doctor tries transports with real ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bertkit.cluster import doctor
from bertkit.events import Started, Step, read
from bertkit.run import Run
from bertkit.training.precision import resolve_precision

HOROVODRUN = str(Path(sys.executable).with_name("horovodrun"))
SECONDS = 500  # the machine may be busy with other things


@pytest.fixture(scope="module", autouse=True)
def _cache(cache_of_our_own):
    """Features are kept away from the user's cache; subprocesses inherit this."""


def test_horovodrun_trains_two_ranks(tiny_config, tmp_path):
    config = tmp_path / "config.json"
    wanted = tiny_config.replace(output=str(tmp_path / "runs"), target_f1=80.0)
    config.write_text(json.dumps(wanted.to_dict()))
    done = subprocess.run(
        [
            # Horovod's own 30 seconds are few for two ranks that load TensorFlow on a busy machine.
            *(HOROVODRUN, "-np", "2", "--gloo-timeout-seconds", "300", "--start-timeout", "300"),
            *(sys.executable, "-m", "bertkit.train", "--config", str(config)),
        ],
        capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    run = Run(folder)
    assert run.result.stopped_by == "target_f1"
    assert run.result.f1 >= 80.0
    assert f"{run.result.f1:.2f}" in done.stdout
    events = read(folder)
    started = next(event for event in events if isinstance(event, Started))
    assert [rank.rank for rank in started.ranks] == [0, 1]
    assert len({rank.pid for rank in started.ranks}) == 2
    steps = [event.global_step for event in events if isinstance(event, Step)]
    assert steps == list(range(1, run.result.global_step + 1))


@pytest.mark.parametrize(("rank", "says"), [("0", 1), ("1", 0)])
def test_a_mistake_is_said_once(rank, says):
    done = subprocess.run(
        [sys.executable, "-m", "bertkit.train", "--no-such-option"],
        capture_output=True, text=True, timeout=SECONDS, env={**os.environ, "HOROVOD_RANK": rank},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("bertkit: unrecognized arguments: --no-such-option") == says
    assert len(done.stderr.splitlines()) == says


def test_the_doctor_sums_over_two_ranks():
    done = subprocess.run(
        [sys.executable, "-m", "bertkit", "doctor", "--json"],
        capture_output=True, text=True, timeout=SECONDS,
        # As on a terminal where nobody asks for TensorFlow's log; other tests may have.
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    # Its progress, and none of TensorFlow's start-up remarks.
    assert done.stderr.splitlines() == ["Loading TensorFlow", "Summing over two ranks by Gloo"]
    found = json.loads(done.stdout)
    assert found["precision"] == resolve_precision("auto")
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["interfaces"]["lo"] == "127.0.0.1"
    gloo = found["transports"][0]
    assert (gloo["name"], gloo["built"], gloo["fault"]) == ("Gloo", True, "")
    assert gloo["gigabytes_per_second"] == pytest.approx(0.1 / gloo["seconds"])


def test_a_transport_that_fails_is_said_with_its_reason(monkeypatch):
    # Its ranks are real ones, and meet at a port where nobody answers.
    monkeypatch.setattr(doctor, "Rendezvous", _NobodyThere)
    found = doctor._tried("Gloo", built=True)
    assert found.seconds is None
    assert "a rank ended with exit code" in found.fault
    assert f"does not work: {found.fault}" in doctor._words(found)


class _NobodyThere(doctor.Rendezvous):
    def environment(self, rank):
        values = super().environment(rank)
        return {**values, "HOROVOD_GLOO_RENDEZVOUS_PORT": "1"}
