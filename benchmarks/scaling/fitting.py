"""What the processor adds to a sum, found from some measured sums and checked on the others.

Found from sums of as many single numbers as the 22M model has gradients, of these gradients, and
of BERT-base's over two ranks. Held out, and predicted: BERT-base's over four ranks and all of
BERT-large's.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.optimize import least_squares  # type: ignore[import-untyped]

from benchmarks.scaling.collectives import Link, Transport, sum_seconds
from benchmarks.scaling.gradients import Buffer, gradients_of

Point = dict[str, Any]

SMALL = ("empty", "minilm", "minilm float16")
CORES = 2  # of the machine that measured: more ranks than these take turns on them
BUCKET_FRAMES = 1448 / 1514  # payload in what tc's bucket counts: 1,500-byte packets and Ethernet
SCALES = Transport(copy=1e-9, move=1e-9, add_half=1e-8, message=1e-4, start=5e-3, start_trips=1.0)


def fit_transport(points: Sequence[Point], rows: int) -> Transport:
    """The transport that predicts best what is not held out: least squares of relative errors.

    Args:
        points: Measured sums.
        rows: Rows of the word embeddings that they sent.
    """
    chosen = [p for p in points if "seconds" in p and not is_held_out(p)]

    def misses(factors: np.ndarray) -> list[float]:
        transport = _scaled(factors)
        return [np.log(predict(p, transport, rows) / p["seconds"]) for p in chosen]

    found = least_squares(misses, x0=np.ones(len(vars(SCALES))), bounds=(0.0, np.inf))
    return _scaled(found.x)


def is_held_out(point: Point) -> bool:
    """Whether a sum is predicted without having been looked at."""
    return point["payload"] not in SMALL and (point["payload"] != "base" or point["ranks"] > 2)


def predict(point: Point, transport: Transport, rows: int) -> float:
    """Seconds of a measured sum as the model has it."""
    slower = max(1.0, point["ranks"] / CORES)
    link = link_of(point)
    return sum_seconds(_buffers(point, rows), point["ranks"], link, transport.slowed(slower))


def link_of(point: Point) -> Link:
    """The shaped link of a measured point; without a limit only the processor slows it."""
    rate = point["megabits_of_shape"]
    payload = BUCKET_FRAMES * rate * 1e6 / 8 if rate else np.inf
    return Link(payload, point["round_trip_ms"] / 1e3)


def table(points: Sequence[Point], transport: Transport, rows: int) -> list[Point]:
    """Every measured sum beside its prediction."""
    lines = []
    for point in points:
        if "seconds" not in point:
            continue
        predicted = predict(point, transport, rows)
        lines.append(
            {
                "ranks": point["ranks"],
                "payload": point["payload"],
                "megabits": point["megabits_of_shape"],
                "delay_ms": point["delay_ms"],
                "measured": point["seconds"],
                "fastest": point["fastest"],
                "predicted": round(predicted, 5),
                "relative_error": round(predicted / point["seconds"] - 1, 3),
                "held_out": is_held_out(point),
            }
        )
    return lines


def errors(lines: Sequence[Point], which: Callable[[Point], bool]) -> dict[str, float]:
    """Median and worst relative error of some lines of the table."""
    sizes = [abs(line["relative_error"]) for line in lines if which(line)]
    return {
        "points": len(sizes),
        "median": round(statistics.median(sizes), 3),
        "worst": round(max(sizes), 3),
    }


def _buffers(point: Point, rows: int) -> list[Buffer]:
    if point["payload"] == "empty":
        return [Buffer(point["bytes"])]
    model, _, compression = point["payload"].partition(" ")
    return gradients_of(model, rows, compression or "none").buffers


def _scaled(factors: np.ndarray) -> Transport:
    values = [f * s for f, s in zip(factors, vars(SCALES).values(), strict=True)]
    return Transport(*(float(value) for value in values))
