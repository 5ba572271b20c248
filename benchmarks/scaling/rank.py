"""One rank of a measurement: reads tasks as lines of JSON, does each with all ranks, answers.

Started by `measure` on a host of `network`, with Horovod's variables in its environment; alone, it
is a world of one rank. Tasks:

- ``{"do": "sum", "shapes": […], "compression": "none", "rounds": 5}``: the sum over ranks alone,
  of tensors of those shapes, through `bertkit.training.world`.
- ``{"do": "step", "model": "minilm", "examples": 8, "pass_examples": 8, "length": 128,
  "rounds": 5}``: whole optimizer steps of random tokens, ``examples`` on each rank, through
  `bertkit.training.step`.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.work import Work
from bertkit.squad.batches import BatchArrays
from bertkit.training.world import World

WARM_UP = 1
UPDATES = 3


def main() -> None:
    """Become a rank and do tasks until the input ends."""
    world = _world()
    print(json.dumps({"rank": world.rank, "size": world.size}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        answer = (_sum if task["do"] == "sum" else _step)(world, task)
        print(json.dumps(answer), flush=True)
    if world.size > 1:
        from bertkit.cluster.membership import leave_horovod

        leave_horovod()


def _world() -> World:
    from bertkit.training.world import HorovodWorld, SingleWorld

    names = [name for name in os.environ if name.startswith("HOROVOD_")]
    if not names:
        return SingleWorld()
    from bertkit.cluster.membership import join_horovod

    join_horovod({name: os.environ[name] for name in names})
    return HorovodWorld()


def _sum(world: World, task: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each sum, and processor seconds that this rank spent on it."""
    import tensorflow as tf

    # One for all gradients of a shape: four ranks of BERT-large's would fill this machine.
    drawn = {shape: tf.random.uniform(shape) for shape in map(tuple, task["shapes"])}
    tensors = [drawn[tuple(shape)] for shape in task["shapes"]]
    _schedule(os.SCHED_RR, 1)  # before all others: a sum mostly waits, and for its peers only
    together = tf.function(lambda given: world.sum_tensors(given, compression=task["compression"]))
    seconds, processor = [], []
    for number in range(WARM_UP + task["rounds"]):
        world.barrier()
        began, used = time.perf_counter(), _processor_seconds()
        sums = together(tensors)
        sums[-1].numpy()  # the group is done as one
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - began)
            processor.append(_processor_seconds() - used)
        del sums
    _schedule(os.SCHED_OTHER, 0)
    return {"seconds": seconds, "processor_seconds": processor}


def _schedule(policy: int, priority: int) -> None:
    """Set how the system schedules this rank's threads."""
    with contextlib.suppress(PermissionError):
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread.name), policy, os.sched_param(priority))


def _step(world: World, task: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each optimizer step, and of these in the sum over ranks."""
    from bertkit.bert.question_answering import QuestionAnswering
    from bertkit.config import Config
    from bertkit.training.optimizers import Hyperparameters, Optimizer
    from bertkit.training.step import StepInput, TrainingStep, touched_rows

    config = Config(**task.get("config", {}))
    model = QuestionAnswering(Work(task["model"], 1, task["length"]).architecture, seed=0)
    optimizer = Optimizer(
        config.optimizer, model.variables, model.variable_names, Hyperparameters.from_config(config)
    )
    step = TrainingStep(
        model, optimizer, world, precision="float32", dropout=config.dropout, seed=0,
        compression=config.compression,
    )  # fmt: skip
    everyones = [_passes(task, rank, world.size) for rank in range(world.size)]
    rows = touched_rows([one.input_ids for passes in everyones for one in passes])
    given = StepInput(everyones[world.rank], rows, task["examples"] * world.size, 0.0)
    seconds, sums = [], []
    for number in range(1, 1 + WARM_UP + task["rounds"]):
        world.barrier()
        began = time.perf_counter()
        outcome = step(given, step=number, learning_rate=1e-5, stop=lambda: False)
        model.variables[-1].numpy()  # the update is done
        if number > WARM_UP:
            seconds.append(time.perf_counter() - began)
            sums.append(outcome.communication_seconds)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "seconds": seconds,
        "sum_seconds": sums,
        "update_seconds": _update_seconds(model.variables, optimizer),
        "rows": len(rows),
        "passes": len(given.micro_batches),
        "peak_memory_gib": memory,
    }


def _update_seconds(variables: Sequence[Any], optimizer: Any) -> float:
    """Time of the optimizer's update alone, the same on every rank whatever its share."""
    import tensorflow as tf

    gradients = [tf.zeros_like(variable) for variable in variables]
    took = []
    for number in range(UPDATES):
        began = time.perf_counter()
        optimizer.update(gradients, learning_rate=0.0, step=number + 1).numpy()
        variables[-1].numpy()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def _passes(task: dict[str, Any], rank: int, ranks: int) -> list[BatchArrays]:
    """A rank's passes of random tokens, ``pass_examples`` each, the last of the rest."""
    work = Work(task["model"], task["examples"], task["length"], seed=rank)
    (batch,) = work.step_input(0).micro_batches
    weights = batch.weights / np.float32(ranks)  # shares of the global batch
    whole = {**vars(batch), "weights": weights}
    assert whole.pop("packed_rows") is None  # all are of one length
    size = task["pass_examples"]
    return [
        BatchArrays(**{name: array[first : first + size] for name, array in whole.items()})
        for first in range(0, task["examples"], size)
    ]


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
