"""Programs that use a cluster, for tests that end them in all the ways a program can end."""

import gc
import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil

from bertkit.cluster import Cluster
from bertkit.config import Config
from bertkit.events import Step

OUTPUT = os.environ["TEST_OUTPUT"]

# A shell's background job ignores Ctrl-C and hands that on to its children, as in some CI runners.
signal.signal(signal.SIGINT, signal.default_int_handler)


def say(**what):
    print(json.dumps(what), flush=True)


def cluster(n=1, **more):
    return Cluster(
        n=n,
        train="stand_in_training:train",
        environment={"PYTHONPATH": str(Path(__file__).resolve().parent)},
        timeout=300,
        **more,
    )


def config(**how):
    return Config(output=OUTPUT, train_file=json.dumps(how))


def train_until_interrupted():
    with cluster() as ranks:
        run = ranks.train(config(steps=100_000, seconds=0.05))

        def tell(event):
            if isinstance(event, Step) and event.global_step == 3:
                say(folder=str(run.folder))

        run.wait(on_event=tell)


def fail_inside():
    with cluster():
        say(up=True)
        raise RuntimeError("on purpose")


def end_without_stopping():
    ranks = cluster().start()
    say(up=True, engines=len(ranks.engines))


def forget():
    ranks = cluster().start()
    ranks = None  # noqa: F841
    gc.collect()
    say(children=len(psutil.Process().children(recursive=True)))


def wait_to_be_killed():
    ranks = cluster().start()
    say(up=True, engines=len(ranks.engines))
    time.sleep(600)


def cannot_load():
    ranks = Cluster(n=1, train="no_such_module:train").start()
    run = ranks.train(config())
    try:
        run.wait(200)
    except Exception as error:
        say(error=str(error))


def leave_running():
    ranks = cluster(keep_alive=True).start()
    say(profile=ranks.profile)
    os._exit(0)


def train_and_wait_to_be_killed(settings):
    ranks = Cluster(n=2, cores_per_engine=1, keep_alive=True, timeout=300).start()
    run = ranks.train(Config(**json.loads(settings)))
    for event in run.events():
        if isinstance(event, Step) and event.global_step == 3:
            say(profile=ranks.profile, folder=str(run.folder))


def train_attached(profile):
    with cluster(profile=profile) as ranks:
        result = ranks.train(config(steps=3)).wait(200)
        say(step=result.global_step, cpus=ranks.engines[0].cpus)
        ranks.shut_down()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
