"""Engines that mpirun has started attach and train: they sum by Gloo, whoever launched them."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import ipyparallel
import pytest

from bertkit.cluster import Cluster
from bertkit.config import Config

HERE = Path(__file__).parent
SECONDS = 240


@pytest.fixture
def mpi_profile(tmp_path):
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("there is no mpi4py, which ipyparallel's MPI engines need: pip install mpi4py")
    if shutil.which("mpirun") is None:
        pytest.skip("there is no mpirun: sudo apt install openmpi-bin")
    profile = tmp_path / "profile_mpi"
    command = [sys.executable, "-m", "ipyparallel.cluster"]
    environment = {
        **os.environ,
        "IPYTHONDIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)]),
        # Open MPI counts these two cores and knows this user.
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
    }
    with (tmp_path / "ipcluster.log").open("wb") as log:
        cluster = subprocess.Popen(
            [*command, "start", "-n", "2", "--engines=mpi", f"--profile-dir={profile}"],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        ready = profile / "security" / "ipcontroller-client.json"
        end = time.monotonic() + SECONDS
        while not ready.exists():
            assert cluster.poll() is None, (tmp_path / "ipcluster.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.1)
        with ipyparallel.Client(profile_dir=str(profile), timeout=SECONDS) as client:
            client.wait_for_engines(2, timeout=SECONDS, interactive=False)
        yield str(profile)
    finally:
        subprocess.run(
            [*command, "stop", f"--profile-dir={profile}"], env=environment, timeout=SECONDS
        )
        cluster.wait(SECONDS)


def test_engines_of_mpirun_train(mpi_profile, tmp_path):
    cluster = Cluster(n=2, profile=mpi_profile, train="stand_in_training:train").start()
    try:
        worlds = cluster.client[:].apply_sync(_mpi_world)
        assert sorted(worlds) == [[0, 2], [1, 2]]  # one MPI job of two processes
        run = cluster.train(Config(output=str(tmp_path / "runs"), train_file=json.dumps({})))
        assert run.wait(SECONDS).global_step == 50
    finally:
        cluster.stop()


def _mpi_world():
    from mpi4py import MPI

    return [MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size]
