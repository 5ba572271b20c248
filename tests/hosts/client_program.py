"""Trains on hosts until someone kills it: python client_program.py HOSTS OUTPUT SSH_OPTION..."""

import json
import sys
from pathlib import Path

from bertkit.cluster import Cluster
from bertkit.config import Config
from bertkit.events import Step

HOSTS, OUTPUT, *SSH_OPTIONS = sys.argv[1:]
STAND_IN = Path(__file__).resolve().parents[1] / "cluster"

cluster = Cluster(
    hosts=HOSTS,
    ssh_options=SSH_OPTIONS,
    cores_per_engine=1,
    timeout=300,
    train="stand_in_training:train",
    environment={"PYTHONPATH": f"{STAND_IN}:{':'.join(filter(None, sys.path))}"},
).start()
run = cluster.train(
    Config(output=OUTPUT, train_file=json.dumps({"steps": 100_000, "seconds": 0.05}))
)


def tell(event):
    if isinstance(event, Step) and event.global_step == 3:
        print("training", flush=True)


run.wait(on_event=tell)
