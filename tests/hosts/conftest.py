"""One network of three hosts for the whole room."""

from __future__ import annotations

import pytest

from tests.hosts.network import Network, why_not


@pytest.fixture(scope="session")
def network(tmp_path_factory):
    if reason := why_not():
        pytest.skip(reason)
    with Network(tmp_path_factory.mktemp("network"), 3) as network:
        yield network


@pytest.fixture
def quick(network):
    """ssh options with which a host that does not answer is given up soon."""
    return ["-o", "ConnectTimeout=3", *network.ssh_options]
