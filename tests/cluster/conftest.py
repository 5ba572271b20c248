"""One cluster of two real engines for the whole room; starting engines is what costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bertkit.cluster import Cluster
from bertkit.config import Config

HERE = Path(__file__).parent
GLOO_TIMEOUT = 5


@pytest.fixture(scope="session")
def cluster():
    with Cluster(
        n=2,
        cores_per_engine=1,
        timeout=300,  # the machine may be busy with other things
        train="stand_in_training:train",
        environment={
            "PYTHONPATH": str(HERE),
            "HOROVOD_GLOO_TIMEOUT_SECONDS": str(GLOO_TIMEOUT),
        },
    ) as cluster:
        yield cluster


@pytest.fixture
def config(tmp_path):
    """A configuration for the stand-in training, told how to behave."""

    def configure(**how) -> Config:
        return Config(output=str(tmp_path), train_file=json.dumps(how))

    return configure
