"""Measures what the simulator is made from and checked against, on this machine.

Sums over two and four ranks are measured without computing, since four ranks have two cores here;
computing is measured on one rank, and whole steps on two ranks with a core each.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.machine import describe_machine
from benchmarks.scaling.gradients import Gradients, gradients_of
from benchmarks.scaling.network import CONGESTION_CONTROL, Network, Shape, probe, settle
from benchmarks.scaling.ranks import Ranks
from bertkit.cluster.cores import CoreShare

Measured = dict[str, Any]

ROWS = 4096  # of the word embeddings: what a global batch of 96 real questions touches
TASK_SECONDS = 400
LONG_SECONDS = 1.5  # sums that take longer are repeated less
MANY, FEW = 5, 3
MEMORY_PER_BYTE = 1.25  # of a sum: what comes out, the fusion buffer, one gradient a shape

UNSHAPED = Shape()
GIGABIT = Shape(1000)
LATE = (Shape(1000, 0.1), Shape(1000, 1), Shape(1000, 5))
SLOW, SLOW_AND_LATE = Shape(100), Shape(100, 5)
FAST = (Shape(2500), Shape(10000))


@dataclass(frozen=True)
class Payload:
    """Gradients that are summed."""

    name: str
    gradients: Gradients


def _payload(model: str, compression: str = "none") -> Payload:
    suffix = "" if compression == "none" else f" {compression}"
    return Payload(model + suffix, gradients_of(model, ROWS, compression))


# As many tensors as the 22M model has, of one number each: what a sum costs whatever its size.
EMPTY = Payload("empty", Gradients(((1,),) * len(gradients_of("minilm", ROWS).shapes)))
MINILM, HALF = _payload("minilm"), _payload("minilm", "float16")
BASE, LARGE = _payload("base"), _payload("large")
SUMS: tuple[tuple[Shape, tuple[Payload, ...]], ...] = (
    (UNSHAPED, (EMPTY, MINILM, HALF, BASE, LARGE)),
    (FAST[1], (MINILM, BASE, LARGE)),
    (FAST[0], (MINILM, BASE)),
    (GIGABIT, (EMPTY, MINILM, HALF, BASE, LARGE)),
    (LATE[0], (EMPTY, MINILM)),
    (LATE[1], (EMPTY, MINILM, BASE)),
    (LATE[2], (EMPTY, MINILM, BASE)),
    (SLOW, (EMPTY, MINILM)),
    (SLOW_AND_LATE, (MINILM,)),
)
STEP = {"do": "step", "model": "minilm", "examples": 8, "pass_examples": 4, "length": 128}
STEP_SHAPES = (UNSHAPED, GIGABIT, LATE[1], SLOW)
STEP_ROUNDS = 7
LARGE_STEPS = (2, 8)  # examples; the line through them has the cost of an example and of a step
LARGE_PASS = 2
LARGE_LENGTH = 384
DRAWS = (8, 16, 32, 64, 96, 192, 384, 768)

PARTS: dict[str, Callable[[Path], Any]] = {}


def measure(parts: Sequence[str], log: Path) -> Measured:
    """Measure some of `PARTS`; each says on which machine and how busy that was."""
    found = {}
    for part in parts:
        began = time.monotonic()
        machine = describe_machine()
        found[part] = {"machine": machine, **PARTS[part](log)}
        found[part]["load_average_at_end"] = round(os.getloadavg()[0], 2)
        found[part]["minutes"] = round((time.monotonic() - began) / 60, 1)
    return found


def sums(count: int, log: Path) -> Measured:
    """Sums over some ranks on shaped networks."""
    points = []
    shares = [CoreShare(1)] * count
    with Network(count) as network, Ranks(network, shares, log) as ranks:
        for shape, payloads in SUMS:
            network.shape(shape)
            settle()
            link = _link(network, shape)
            for payload in payloads:
                points.append(_sum(ranks, count, payload, link))
                print(points[-1], flush=True)
        network.shape(UNSHAPED)
    return {"congestion_control": CONGESTION_CONTROL, "points": points}


def _sum(ranks: Ranks, count: int, payload: Payload, link: Measured) -> Measured:
    point = {
        "ranks": count,
        "payload": payload.name,
        "bytes": payload.gradients.bytes,
        "tensors": len(payload.gradients.shapes),
        **link,
    }
    needed = count * MEMORY_PER_BYTE * payload.gradients.bytes
    if needed > 0.8 * psutil.virtual_memory().available:
        return {**point, "skipped": f"would need {needed / 2**30:.1f} GiB of free memory"}
    least = 8 * payload.gradients.bytes / (1e6 * link["stream_megabits"])
    answers = ranks.ask(
        {
            "do": "sum", "shapes": payload.gradients.shapes,
            "compression": payload.gradients.compression,
            "rounds": FEW if least > LONG_SECONDS else MANY,
        },
        TASK_SECONDS,
    )  # fmt: skip
    rounds = np.array([answer["seconds"] for answer in answers]).max(axis=0)
    processor = np.array([answer["processor_seconds"] for answer in answers]).mean(axis=0)
    return {**point, **_spread(rounds), "processor_seconds": round(float(np.median(processor)), 5)}


def steps(log: Path) -> Measured:
    """Whole steps of the 22M model: one rank on one core, two at once, two that sum."""
    cores = [CoreShare(1, (0,)), CoreShare(1, (1,))]
    task = {**STEP, "rounds": STEP_ROUNDS}
    points = []
    with Network(2) as network:
        for count in (1, 2):
            with Ranks(network, cores[:count], log, together=False) as ranks:
                points.append(_step_point(ranks.ask(task, TASK_SECONDS), together=False))
        with Ranks(network, cores, log) as ranks:
            for shape in STEP_SHAPES:
                network.shape(shape)
                settle()
                link = _link(network, shape)
                answers = ranks.ask(task, TASK_SECONDS)
                points.append({**_step_point(answers, together=True), **link})
                print(points[-1], flush=True)
            network.shape(UNSHAPED)
    return {"task": STEP, "cores_per_rank": 1, "points": points}


def _step_point(answers: list[Measured], *, together: bool) -> Measured:
    totals = np.array([answer["seconds"] for answer in answers])
    own = totals - np.array([answer["sum_seconds"] for answer in answers])
    return {
        "ranks": len(answers),
        "sum_over_ranks": together,
        **_spread(totals.max(axis=0)),
        "computing_seconds": round(float(np.median(own)), 4),
        "update_seconds": round(statistics.median(a["update_seconds"] for a in answers), 4),
        "rows": answers[0]["rows"],
    }


def large(log: Path) -> Measured:
    """Steps of BERT-large on all cores of this machine, and what is left of it in memory."""
    share = CoreShare(os.cpu_count() or 1)
    points = []
    with Network(1) as network, Ranks(network, [share], log, together=False) as ranks:
        for examples in LARGE_STEPS:
            task = {"do": "step", "model": "large", "examples": examples, "length": LARGE_LENGTH,
                    "pass_examples": LARGE_PASS, "rounds": 2}  # fmt: skip
            (answer,) = ranks.ask(task, TASK_SECONDS)
            points.append(
                {
                    "examples": examples,
                    **_spread(np.array(answer["seconds"])),
                    "update_seconds": round(answer["update_seconds"], 3),
                    "peak_memory_gib": round(answer["peak_memory_gib"], 2),
                }
            )
            print(points[-1], flush=True)
    return {"length": LARGE_LENGTH, "pass_examples": LARGE_PASS, "points": points}


def rows(log: Path) -> Measured:
    """Distinct tokens in random batches of questions: rows of the word embeddings that are sent."""
    del log
    from bertkit.config import Config
    from bertkit.training.inputs import features, read_inputs, silent

    config = Config(data=os.environ.get("BERTKIT_SQUAD_DIR", "sample"))
    inputs = read_inputs(config)
    found = features(inputs.train, inputs.tokenizer, config, training=True, emit=silent)
    random = np.random.default_rng(0)

    def distinct(examples: int) -> int:
        chosen = random.choice(len(found), examples, replace=False)
        return len(np.unique(np.concatenate(
            [found.input_ids[slice(*found.offsets[i : i + 2])] for i in chosen]
        )))  # fmt: skip

    counts = {n: int(np.median([distinct(n) for _ in range(5)])) for n in DRAWS}
    return {
        "data": "real SQuAD 1.1 questions" if "BERTKIT_SQUAD_DIR" in os.environ else "the sample",
        "features": len(found),
        "mean_tokens": round(float(np.mean(found.lengths)), 1),
        "distinct_tokens": counts,
    }


def _link(network: Network, shape: Shape) -> Measured:
    """What a link is held to, and what one TCP connection over it reaches."""
    reached = probe(network)
    return {
        "megabits_of_shape": shape.megabits,
        "delay_ms": shape.delay_ms,
        "round_trip_ms": reached["round_trip_ms"],
        "stream_megabits": reached["megabits"],
    }


def _spread(seconds: np.ndarray) -> Measured:
    return {
        "seconds": round(float(np.median(seconds)), 5),
        "fastest": round(float(seconds.min()), 5),
        "slowest": round(float(seconds.max()), 5),
        "rounds": len(seconds),
    }


PARTS.update(
    rows=rows,
    sums_of_two=partial(sums, 2),
    sums_of_four=partial(sums, 4),
    steps=steps,
    large=large,
)
