"""How the word embeddings' gradient should cross between ranks: three ways, interleaved.

Two engines take real batches of the bundled sample, make the sparse gradient that TensorFlow makes
of the embedding look-up, and bring it to what the optimizer needs, the sum over ranks as a dense
matrix. Every round measures every way once, in turning order.

    python -m benchmarks.word_embeddings --out benchmarks/results/word_embeddings.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.report import show
from bertkit.cluster import Cluster
from bertkit.config import Config
from bertkit.events import EventLog, Finished, Notice

ROUNDS = 25
WARM_UP = 3
HERE = Path(__file__).resolve().parent
WAYS = {
    "touched_rows": "bertkit: every rank knows the batch's distinct tokens and sends their rows",
    "sparse_as_dense": "Horovod's sparse_as_dense: scatter to the whole matrix, sum that",
    "allgather": "Horovod's default for sparse gradients: gather everyone's indices and slices",
}


def train(folder: Path, world: Any, *, resume: bool = False) -> None:
    """What each engine runs in place of a training: the three ways, round after round."""
    del resume
    import horovod.tensorflow as hvd
    import numpy as np
    import tensorflow as tf

    from bertkit.bert.pretrained import load_pretrained
    from bertkit.run import Run
    from bertkit.training.inputs import features, read_inputs, silent
    from bertkit.training.step import touched_rows

    config = Run(folder).config
    inputs = read_inputs(config)
    found = features(inputs.train, inputs.tokenizer, config, training=True, emit=silent)
    shape = load_pretrained(config.model).tensors["bert.embeddings.word_embeddings.weight"].shape
    random = np.random.default_rng(config.seed)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def by_touched_rows(ids: Any, slices: Any, rows: Any) -> Any:
        place = tf.searchsorted(rows, ids)
        few = tf.math.unsorted_segment_sum(slices, place, tf.shape(rows)[0])
        (total,) = world.sum_tensors([few])
        return tf.scatter_nd(rows[:, None], total, shape)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def by_sparse_as_dense(ids: Any, slices: Any, rows: Any) -> Any:
        del rows
        (total,) = world.sum_tensors([tf.math.unsorted_segment_sum(slices, ids, shape[0])])
        return total

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def by_allgather(ids: Any, slices: Any, rows: Any) -> Any:
        del rows
        everyones = hvd.allreduce(tf.IndexedSlices(slices, ids, shape), op=hvd.Sum)
        return tf.math.unsorted_segment_sum(everyones.values, everyones.indices, shape[0])

    ways: dict[str, Callable[..., Any]] = {
        "touched_rows": by_touched_rows,
        "sparse_as_dense": by_sparse_as_dense,
        "allgather": by_allgather,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    shares, sent = [], []
    for number in range(WARM_UP + ROUNDS):
        chosen = random.choice(len(found), config.batch_size, replace=False)
        everyones = [found.input_ids[slice(*found.offsets[i : i + 2])] for i in chosen]
        mine = np.concatenate(everyones[world.rank :: world.size])
        rows = touched_rows(everyones)
        slices = np.random.default_rng([number, world.rank]).standard_normal(
            (len(mine), shape[1]), np.float32
        )
        arguments = [tf.constant(array) for array in (mine, slices, rows)]
        results = {}
        order = list(ways)[number % 3 :] + list(ways)[: number % 3]
        for name in order:
            world.barrier()
            began = time.perf_counter()
            results[name] = ways[name](*arguments)
            results[name][0, 0].numpy()  # wait for it
            if number >= WARM_UP:
                seconds[name].append(time.perf_counter() - began)
        for result in results.values():
            np.testing.assert_allclose(
                result.numpy(), results["sparse_as_dense"].numpy(), rtol=1e-4, atol=1e-4
            )
        shares.append(len(rows) / shape[0])
        sent.append(len(mine))
    if world.rank == 0:
        width = 4 * shape[1]
        bytes_sent = {
            "touched_rows": statistics.median(shares) * shape[0] * width,
            "sparse_as_dense": shape[0] * width,
            "allgather": statistics.median(sent) * (width + 4),
        }
        findings = {"seconds": seconds, "bytes_of_a_rank": bytes_sent, "shape": list(shape)}
        with EventLog(folder) as log:
            log(Notice(message=json.dumps(findings)))
            log(Finished(result={}))


def measure(engines: int, batch_size: int, seed: int) -> dict[str, Any]:
    """Run the rounds on engines of this machine; gives medians, spread and ratios."""
    machine = describe_machine()
    with (
        tempfile.TemporaryDirectory() as output,
        Cluster(
            n=engines, train="benchmarks.word_embeddings:train",
            environment={"PYTHONPATH": str(HERE.parent)},
        ) as cluster,
    ):  # fmt: skip
        run = cluster.train(Config(output=output, batch_size=batch_size, seed=seed))
        deadline = time.monotonic() + 600
        while run.running and time.monotonic() < deadline:
            time.sleep(0.2)
        if run.failure is not None:
            raise RuntimeError(run.failure.message)
        (notice,) = [event for event in run.history() if isinstance(event, Notice)]
    findings = json.loads(notice.message)
    return {
        "machine": machine,
        "engines": engines,
        "batch_size": batch_size,
        "matrix": findings["shape"],
        "rounds": ROUNDS,
        "ways": {
            name: _summary(name, findings["seconds"], findings["bytes_of_a_rank"]) for name in WAYS
        },
    }


def _summary(name: str, seconds: dict[str, list[float]], sent: dict[str, float]) -> dict[str, Any]:
    mine = seconds[name]
    quartiles = statistics.quantiles(mine, n=4)
    pairs = [theirs / ours for theirs, ours in zip(mine, seconds["touched_rows"], strict=True)]
    return {
        "what": WAYS[name],
        "milliseconds": round(1e3 * statistics.median(mine), 2),
        "quartiles": [round(1e3 * quartiles[0], 2), round(1e3 * quartiles[2], 2)],
        "times_as_long_as_touched_rows": round(statistics.median(pairs), 2),
        "megabytes_of_a_rank": round(sent[name] / 1e6, 2),
    }


def main() -> None:
    """Measure and write the result."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--engines", type=int, default=2)
    words.add_argument("--batch_size", type=int, default=32)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--out", type=Path)
    options = words.parse_args()
    result = measure(options.engines, options.batch_size, options.seed)
    show(result, options.out)


if __name__ == "__main__":
    main()
