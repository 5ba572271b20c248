"""Where the time of a training step goes: matrix products, softmax, islands, the update.

One operation runs at a time here (each on all cores), so that times add up; a real step overlaps
them a little. What is left over is TensorFlow's own time between operations.

    python -m benchmarks.profile_step --model base --out benchmarks/results/profile_base.json
"""

from __future__ import annotations

import os

os.environ["TF_NUM_INTEROP_THREADS"] = "1"  # read once, when TensorFlow is loaded
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as engines have it

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import tensorflow as tf

from benchmarks.contestants import Bertkit
from benchmarks.flops import step_flops
from benchmarks.machine import describe_machine
from benchmarks.report import show
from benchmarks.work import SIZES, Work
from bertkit.cluster.freed_memory import keep_freed_memory

STEPS = 3
KINDS = {
    "_MklMatMul": "dense products",
    "_MklBatchMatMulV2": "attention's products",
    "_MklFusedBatchMatMulV2": "attention's products",
    "_MklSoftmax": "softmax",
    "ConcatV2": "concatenations",
    "Cast": "casts",
}
"""Types of TensorFlow's operations, and what is said of them."""


def trace(program: Bertkit, folder: str) -> float:
    """Profile some steps; gives their wall seconds."""
    options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=3)
    tf.profiler.experimental.start(folder, options=options)
    began = time.perf_counter()
    for _ in range(STEPS):
        program.turn()
    seconds = time.perf_counter() - began
    tf.profiler.experimental.stop()
    return seconds


def operations(folder: str) -> dict[str, float]:
    """Milliseconds of a step by kind of operation."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    (path,) = Path(folder).rglob("*.xplane.pb")
    space = xplane_pb2.XSpace()
    space.ParseFromString(path.read_bytes())
    found: defaultdict[str, float] = defaultdict(float)
    for plane in space.planes:
        names = plane.event_metadata
        for line in plane.lines:
            for event in line.events:
                if kind := _kind(names[event.metadata_id].name):
                    found[kind] += event.duration_ps / 1e9 / STEPS
    return found


def _kind(name: str) -> str | None:
    if kind := KINDS.get(name.rpartition(":")[2]):
        return kind
    if name.startswith("EagerLocalExecute: __inference_"):
        function = name.removeprefix("EagerLocalExecute: __inference_").rsplit("_", 1)[0]
        return f"function {function.strip('_')}"
    return "all islands" if name == "CpuExecutable::ExecuteAsyncOnStream" else None


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Profile, and say what share of the step each kind takes."""
    machine = describe_machine()
    work = Work(options.model, options.batch, options.length)
    keep_freed_memory()  # as engines do
    program = Bertkit(work, precision=options.precision, dropout=0.1)
    for _ in range(3):
        program.turn()
    with tempfile.TemporaryDirectory(prefix="bertkit-profile-") as folder:
        step = 1e3 * trace(program, folder) / STEPS
        found = operations(folder)
    functions = {k: v for k, v in found.items() if k.startswith("function ")}
    forward_backward = functions.pop("function loss_and_gradients")
    kinds = {k: v for k, v in found.items() if not k.startswith("function ")}
    # The update and the rounding are islands too, each in a function of its own.
    kinds["islands of forward and backward"] = kinds.pop("all islands") - sum(
        functions.get(f"function {name}", 0.0)
        for name in ("update", "round_matrices", "sum_of_all_squares")
    )
    kinds["between operations"] = forward_backward - sum(kinds.values())
    rows = {**kinds, **functions, "between functions": step - sum(kinds.values(), 0.0)}
    rows["between functions"] -= sum(functions.values())
    flops = step_flops(SIZES[options.model], options.batch, options.length)
    return {
        "machine": machine,
        "model": options.model, "batch": options.batch, "length": options.length,
        "precision": options.precision,
        "step_milliseconds": round(step, 1),
        "teraflops_per_second": round(flops / step / 1e9, 3),
        "milliseconds": {k: round(v, 1) for k, v in sorted(rows.items(), key=lambda i: -i[1])},
        "percent": {
            k: round(100 * v / step, 1) for k, v in sorted(rows.items(), key=lambda i: -i[1])
        },
    }  # fmt: skip


def main() -> None:
    """Profile, print and write."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--model", choices=list(SIZES), default="base")
    words.add_argument("--batch", type=int, default=8)
    words.add_argument("--length", type=int, default=384)
    words.add_argument("--precision", default="bfloat16")
    words.add_argument("--out", type=Path)
    options = words.parse_args()
    show(measure(options), options.out)


if __name__ == "__main__":
    main()
