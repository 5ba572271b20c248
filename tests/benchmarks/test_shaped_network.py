"""Network namespaces whose links are held to a rate and a delay: real packets, real connections."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.scaling.network import Network, NetworkError, Shape, probe, settle
from benchmarks.scaling.ranks import Ranks
from bertkit.cluster.cores import CoreShare


@pytest.fixture(scope="module")
def found():
    """What a connection reaches over links of several shapes, and what was left afterwards."""
    reached = {}
    try:
        with Network(2) as network:
            for shape in (Shape(), Shape(50), Shape(50, delay_ms=20)):
                network.shape(shape)
                settle()
                reached[shape] = probe(network)
            names = [network.namespace(name) for name in ("hub", 0, 1)]
    except NetworkError as error:
        pytest.skip(f"this machine makes no shaped network: {error}")
    return reached, names


def test_a_link_moves_no_more_than_it_is_held_to(found):
    reached, _ = found
    assert reached[Shape()]["megabits"] > 50
    for shape in (Shape(50), Shape(50, delay_ms=20)):
        assert 0 < reached[shape]["megabits"] < 51


def test_a_round_trip_takes_both_ways_delay(found):
    reached, _ = found
    assert reached[Shape(50, delay_ms=20)]["round_trip_ms"] >= 40
    assert reached[Shape()]["round_trip_ms"] < 40


def test_nothing_is_left(found):
    _, names = found
    spaces = subprocess.run(["ip", "netns"], capture_output=True, text=True, timeout=60).stdout
    for name in names:
        assert name not in spaces
        assert not Path("/etc/netns", name).exists()


def test_ranks_sum_over_it(tmp_path):
    """What the benchmark's ranks do: join, sum one number of each, leave."""
    task = {"do": "sum", "shapes": [[1]], "compression": "none", "rounds": 2}
    try:
        with (
            Network(2) as network,
            Ranks(network, [CoreShare(1)] * 2, tmp_path / "log") as ranks,
        ):
            answers = ranks.ask(task, 120)
    except NetworkError as error:
        pytest.skip(f"this machine makes no shaped network: {error}")
    assert [len(answer["seconds"]) for answer in answers] == [2, 2]
