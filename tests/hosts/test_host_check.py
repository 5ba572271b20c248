"""Each thing that can be wrong with a host is made wrong, and said with that host's name."""

import json
import subprocess
import sys
import time

import pytest

from bertkit.cli import main
from bertkit.cluster import check_hosts, on_host
from bertkit.cluster.host_check import report
from bertkit.cluster.hosts import Host


def faults(reports):
    return {found.host.name: " ".join(found.faults) for found in reports}


def test_hosts_that_can_serve(network, quick, tmp_path):
    reports = check_hosts(network.names, ssh_options=quick, data=tmp_path, output=tmp_path)
    assert faults(reports) == dict.fromkeys(network.names, "")
    for found in reports:
        assert found.address == network.address(found.host.name)
        assert found.interface == "eth0"  # its own name for it, which is not this machine's
        assert found.python == sys.version.split()[0]
        assert found.memory > 0
        assert found.cpus
        assert found.clock == 0


def test_a_host_that_cannot_be_reached(network, quick):
    network.cut("node2")
    try:
        found = faults(check_hosts(network.names, ssh_options=quick))
    finally:
        network.mend("node2")
    assert found["node1"] == found["node3"] == ""
    assert "ssh cannot reach it" in found["node2"]
    assert "'ssh node2 true'" in found["node2"]


def test_a_name_that_nobody_knows(quick):
    found = faults(check_hosts(["node1", "nowhere.invalid"], ssh_options=quick))
    assert found["node1"] == ""
    assert "no IPv4 address is known" in found["nowhere.invalid"]


def test_another_python(quick):
    found = faults(check_hosts(["node1"], ssh_options=quick, python="/no/such/python"))
    assert "/no/such/python does not run there" in found["node1"]


def test_a_python_without_the_packages(quick, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    found = faults(check_hosts(["node1"], ssh_options=quick, python=python))["node1"]
    assert "tensorflow is missing" in found
    assert f"install the same bertkit there into {python}" in found


def test_data_that_is_not_there(quick, tmp_path, capsys):
    missing = tmp_path / "nothing"
    out = tmp_path / "found.json"
    code = main(
        ["hosts", "node1,node2:2", "--data", str(missing), "--json", str(out),
         "--ssh-options", " ".join(quick)]
    )  # fmt: skip
    assert code == 2
    said = capsys.readouterr().out
    for name in ("node1", "node2"):
        assert f"{name}: {missing} cannot be read (No such file or directory)" in said
    assert [each["ready"] for each in json.loads(out.read_text())] == [False, False]
    assert main(["hosts", "node1", "--ssh-options", " ".join(quick)]) == 0


def test_an_interface_that_does_not_reach_them(quick):
    found = faults(check_hosts(["node1"], ssh_options=quick, interface="lo"))["node1"]
    assert "cannot call this machine back at 127.0.0.1 (Connection refused)" in found
    assert "name another interface" in found


@pytest.fixture(scope="module")
def here():
    return on_host.look()


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"code": "0123456789ab"}, "faults", "code is not the same (hash 0123456789ab)"),
        ({"python": "3.9.2"}, "faults", "is Python 3.9.2; expected 3."),
        ({"shares": False}, "faults", "folder of the runs is not the same"),
        ({"name_means": "127.0.1.1"}, "faults", "stands for 127.0.1.1 there"),
        ({"name_means": ""}, "faults", "stands for no address there"),
        ({"memory": 2**20}, "warnings", "GiB of memory are free"),
        ({"cpus": [0]}, "warnings", "2 engines share 1 cores"),
    ],
)
def test_what_this_machine_cannot_make_wrong(here, changed, kind, words):
    sound = {**here, "address": "10.0.0.2", "name_means": "10.0.0.2", "memory": 2**40}
    sound |= {"cpus": list(range(64)), "limit": None, "load": 0.0}
    times = (time.time() - 1, time.time() + 1)
    right = report(Host("node1", 2), here, sound, "python3", "10.0.0.1", times, True)
    assert (right.faults, right.warnings) == ((), ())
    wrong = report(Host("node1", 2), here, {**sound, **changed}, "python3", "", times, True)
    assert words in " ".join(getattr(wrong, kind))


@pytest.mark.parametrize(("seconds", "words"), [(90, "90 s ahead"), (-3600, "s behind")])
def test_a_clock_that_is_wrong(here, seconds, words):
    now = time.time()
    there = {**here, "clock": now + seconds}
    found = report(Host("node1"), here, there, "python3", "", (now, now), False)
    assert found.clock == pytest.approx(seconds, abs=1)
    assert words in " ".join(found.warnings)
    within = report(Host("node1"), here, {**here, "clock": now}, "p", "", (now - 1, now), False)
    assert within.clock == 0
