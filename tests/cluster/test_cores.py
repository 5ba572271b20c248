import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.cluster.cores import CoreShare, core_shares, parse_quota, usable_cpus, usable_limit
from bertkit.errors import ClusterError

cpu_lists = st.lists(st.integers(0, 511), min_size=1, max_size=64, unique=True)


@given(cpu_lists, st.integers(1, 80))
def test_all_engines_get_equally_many_of_the_cores_there_are(cpus, engines):
    shares = core_shares(cpus, engines)
    assert len(shares) == engines
    assert {share.cores for share in shares} == {max(1, len(cpus) // engines)}
    for share in shares:
        assert len(share.cpus) == share.cores
        assert set(share.cpus) <= set(cpus)


@given(cpu_lists, st.data())
def test_no_core_is_given_twice_while_there_are_enough(cpus, data):
    engines = data.draw(st.integers(1, len(cpus)))
    given_out = [cpu for share in core_shares(cpus, engines) for cpu in share.cpus]
    assert len(set(given_out)) == len(given_out) == engines * (len(cpus) // engines)


@given(cpu_lists, st.integers(1, 80))
def test_engines_beyond_the_cores_are_spread_evenly(cpus, engines):
    uses = [0] * 512
    for share in core_shares(cpus, engines, cores_per_engine=1):
        uses[share.cpus[0]] += 1
    of_mine = [uses[cpu] for cpu in cpus]
    assert max(of_mine) - min(of_mine) <= 1


def test_neighbours_stay_together():
    assert [s.cpus for s in core_shares([0, 4, 1, 5], 2)] == [(0, 4), (1, 5)]


def test_a_container_limited_below_its_cpus_is_not_bound():
    assert core_shares(range(64), 2, limit=2) == [CoreShare(1), CoreShare(1)]
    assert core_shares(range(2), 2, limit=2) == [CoreShare(1, (0,)), CoreShare(1, (1,))]


@pytest.mark.parametrize(("engines", "each"), [(0, None), (1, 5), (1, -1)])
def test_impossible_shares_are_refused(engines, each):
    with pytest.raises(ClusterError, match="expected"):
        core_shares(range(4), engines, each)


def test_thread_counts_follow_the_share():
    environment = CoreShare(6).environment
    assert environment["TF_NUM_INTRAOP_THREADS"] == environment["OMP_NUM_THREADS"] == "6"


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000\n", None), ("200000 100000\n", 2), ("10000 100000", 1)]
)
def test_quota(text, cores):
    assert parse_quota(text) == cores


def test_this_machine():
    assert set(usable_cpus()) == os.sched_getaffinity(0)
    assert usable_limit() is None or usable_limit() >= 1
