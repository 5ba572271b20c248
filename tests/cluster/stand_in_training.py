"""Small training functions with real collectives, for tests of engines that do real work.

Engines import this file by name: the tests put its folder on their PYTHONPATH.
"""

import json
import os
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from bertkit.events import EventLog, Failed, Finished, Notice, RankInfo, Started, Step, Stopped
from bertkit.run import RESULT_FILE, STOP_FILE, Result, Run


def train(folder, world, *, resume=False):
    """Descend on a quadratic, each rank with its share; the config says with what trouble."""
    folder, world = Path(folder), world.meet()
    how = json.loads(Run(folder).config.train_file or "{}")
    if how.get("do") == "collectives":
        _use_collectives(folder, world)
    elif world.rank == 0:
        with EventLog(folder) as log:
            try:
                _descend(folder, world, how, log, resume)
            except BaseException as error:
                log(Failed(message=str(error), rank=0))
                world.abort()
                raise
    else:
        _descend(folder, world, how, lambda _: None, resume)


def _descend(folder, world, how, emit, resume):
    weights = tf.Variable(tf.fill([1000], float(world.rank)))
    world.broadcast([weights])
    here = RankInfo(rank=world.rank, host="h", pid=os.getpid(), cores=len(os.sched_getaffinity(0)))
    emit(
        Started(
            config={}, ranks=[RankInfo(**r) for r in world.gather(vars(here)) or []],
            precision="float32", parameters=1000, train_questions=0, train_features=0,
            dev_questions=0, total_steps=how.get("steps", 50), resumed_from=0 if resume else None,
        )
    )  # fmt: skip

    @tf.function
    def reduce(gradient, stop):
        return world.sum_tensors([gradient, stop])

    step, stopped_by = 0, "epochs"
    for step in range(1, how.get("steps", 50) + 1):
        if how.get("fails_at") == step and how.get("rank") == world.rank:
            raise ValueError("the loss has turned to stone")
        if how.get("crashes_at") == step and how.get("rank") == world.rank:
            print("famous last words", flush=True)
            os.abort()
        time.sleep(how.get("seconds", 0.0))
        stop = float(world.rank == 0 and (folder / STOP_FILE).exists())
        gradient, stops = reduce(weights / world.size, tf.constant(stop))
        weights.assign_sub(0.1 * gradient)
        emit(
            Step(
                global_step=step, epoch=0, loss=float(tf.reduce_sum(weights**2)),
                learning_rate=0.1, gradient_norm=0, examples=1, examples_per_second=1, seconds=1,
                communication_seconds=0, input_seconds=0, padding_share=0,
            )
        )  # fmt: skip
        if stops.numpy() > 0:
            stopped_by = "user"
            break
    total = world.sum(np.array([1.0]))[0]
    emit(Stopped(global_step=step, stopped_by=stopped_by))
    if world.rank == 0:
        result = Result(
            f1=50, exact_match=40, total=1, validation_f1=50, global_step=step, best_step=step,
            stopped_by=stopped_by, examples_per_second=1, wall_seconds=1, model="m", data="d",
            ranks=int(total), folder=str(folder),
        )  # fmt: skip
        (folder / RESULT_FILE).write_text(json.dumps(result.to_dict()))
        emit(Finished(result=result.to_dict()))


def _use_collectives(folder, world):
    """Use every collective of a world and tell what came of it."""
    findings = {}

    @tf.function
    def reduce(tensors, compression):
        return world.sum_tensors(tensors, compression=compression)

    r = world.rank
    tensors = [
        tf.fill([3, 2], r + 1.0), tf.constant([2049.0 * (r + 1)]),
        tf.fill([2, 2], tf.cast(r, tf.bfloat16)),
        tf.constant([[r, 1]], tf.int32), tf.constant(0.1 * (r + 1), tf.float64),
        tf.constant([[2048.0 + r]]),
    ]  # fmt: skip
    for compression in ("none", "float16"):
        sums = reduce(tensors, compression)
        findings[compression] = [[s.dtype.name, s.numpy().tolist()] for s in map(_plain, sums)]
    findings["eager"] = world.sum_tensors([tf.constant([1.0 + r])])[0].numpy().tolist()
    variables = [
        tf.Variable(tf.fill([3], 0.1 + r)), tf.Variable(r == 0),
        tf.Variable([[r + 7]], dtype=tf.int64), tf.Variable(tf.cast([1 / 3 + r], tf.bfloat16)),
        tf.Variable(tf.zeros([0, 4])), tf.Variable(r, dtype=tf.int8),
        tf.Variable(tf.fill([3000, 3000], float(r))), tf.Variable(tf.fill([3000, 3000], float(r))),
    ]  # fmt: skip
    world.broadcast(variables)
    findings["broadcast"] = [
        np.unique(_plain(tf.convert_to_tensor(v)).numpy()).tolist() for v in variables
    ]
    findings["sum"] = world.sum(np.array([[0.1, r], [1e-17, 1]])).tolist()
    gathered = world.gather({"rank": r, "text": "ä\n" * (r * 1000)})
    findings["gather"] = (
        gathered if gathered is None else [[g["rank"], g["text"]] for g in gathered]
    )
    findings["share"] = world.share({"of": r, "none": None, "pair": (1, 2.5)})
    findings["odd_shape"] = reduce([tf.fill([5 + 0, 3], 1.0)], "none")[0].numpy().sum().item()
    world.barrier()
    everyones = world.gather(findings)
    if world.rank == 0:
        with EventLog(folder) as log:
            log(Notice(message=json.dumps(everyones)))
            log(Finished(result={}))


def _plain(tensor):
    return tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor
