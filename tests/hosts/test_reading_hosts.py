"""Hosts mean the same as a mapping, a list and words; what means nothing is said."""

import pytest

from bertkit.cluster.hosts import Host, read_hosts
from bertkit.errors import ClusterError


@pytest.mark.parametrize(
    "asked",
    [
        {"node1": 2, "me@node2": 1},
        "node1:2, me@node2",
        "node1:2 me@node2:1",
        ["node1:2", "me@node2"],
    ],
)
def test_ways_to_say_it(asked):
    assert read_hosts(asked) == [Host("node1", 2), Host("node2", 1, "me")]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("", "is empty"),
        ([], "is empty"),
        ("node1:two", "'node1:two' cannot be read"),
        ("node1:0", "at least 1"),
        ({"node1": 0}, "at least 1"),
        ("node1, node1:2", "named twice"),
        ("-oProxyCommand=evil", "cannot be read"),
        ("me@-oProxyCommand=evil", "cannot be read"),
    ],
)
def test_what_means_nothing(asked, words):
    with pytest.raises(ClusterError, match="host") as caught:
        read_hosts(asked)
    assert words in str(caught.value)
