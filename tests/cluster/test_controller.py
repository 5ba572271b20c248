"""A cluster comes up although another program takes a port that its controller has chosen."""

import os
import socket
from pathlib import Path

import pytest

from bertkit.cluster import Cluster

# Python imports this when it starts. ipyparallel asks for its ports one by one, in this order.
TAKEN_ONCE = """
import os, pathlib, sys

if "controller" in sys.orig_argv:
    from ipyparallel import util

    free, asked = util.select_random_ports, []

    def select(n):
        asked.append(n)
        mark = pathlib.Path(os.environ["TEST_MARK"])
        if len(asked) == int(os.environ["TEST_PLACE"]) and not mark.exists():
            mark.touch()
            return [int(os.environ["TEST_PORT"])]
        return free(n)

    util.select_random_ports = select
"""


@pytest.mark.parametrize(
    ("place", "whose"), [(1, "the hub"), (3, "a scheduler's thread"), (7, "the heart monitor")]
)
def test_another_programs_port(place, whose, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(TAKEN_ONCE)
    mark = tmp_path / "taken"
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        monkeypatch.setenv("TEST_MARK", str(mark))
        monkeypatch.setenv("TEST_PLACE", str(place))
        monkeypatch.setenv("TEST_PORT", str(other.getsockname()[1]))
        with Cluster(n=1, timeout=120, train="os:getpid") as cluster:
            assert mark.exists(), f"{whose} was never given the port"
            (engine,) = cluster.engines
            assert cluster.client[engine.id].apply_async(os.getpid).get(60) == engine.pid
            log = Path(cluster.profile).parent / "controller.log"
            assert "another program has taken a port" in log.read_text()
