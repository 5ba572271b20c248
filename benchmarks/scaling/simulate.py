"""From what was measured to a thousand ranks: fits, checks, and answers the questions asked."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq  # type: ignore[import-untyped]

from benchmarks.scaling import fitting, published
from benchmarks.scaling.collectives import IDEAL, Link, Transport, sum_seconds
from benchmarks.scaling.gradients import gradients_of
from benchmarks.scaling.measure import ROWS
from benchmarks.scaling.picture import draw
from benchmarks.scaling.step_time import (
    BACKWARD_SHARE,
    Node,
    Setting,
    TouchedRows,
    step_time,
    strong_efficiency,
    vocabulary_of,
    weak_efficiency,
)
from benchmarks.work import SIZES

Found = dict[str, Any]

MODEL = "large"
ETHERNET_FRAMES = 1448 / 1538  # payload in what is on the wire, with 1,500-byte packets
ROUND_TRIP = 1e-4  # of a switched Ethernet, assumed; 0.03 to 0.06 ms between namespaces here
GIGABITS = (1, 10, 25, 100)
TEN_GIGABIT = 10
RANKS = tuple(2**power for power in range(11))
RANKS_PER_HOST = 4  # where sums are made on two levels
FASTER_NODES = (1, 2, 4)


def simulate(measured: Found, picture: Path) -> Found:
    """Everything that follows from the measurements; draws the picture as well."""
    points = [*measured["sums_of_two"]["points"], *measured["sums_of_four"]["points"]]
    transport = fitting.fit_transport(points, ROWS)
    lines = fitting.table(points, transport, ROWS)
    overlap = measured_overlap(measured["steps"], transport)
    counts = {int(n): rows for n, rows in measured["rows"]["distinct_tokens"].items()}
    rows = TouchedRows(counts, vocabulary_of(MODEL))
    here = _node_here(measured["large"]["points"])
    logged = _node(published.STEP_SECONDS, here)
    nodes = {
        "this machine": here,
        "published log": logged,
        "published best": _node(published.FASTEST_STEP_SECONDS, here),
    }
    errors = {
        "fitted": fitting.errors(lines, lambda line: not line["held_out"]),
        "held_out": fitting.errors(lines, lambda line: line["held_out"]),
        "held_out_at_four_ranks": fitting.errors(
            lines, lambda line: line["held_out"] and line["ranks"] == published.NODES
        ),
    }
    found = {
        "transport_seconds": {k: float(f"{v:.4g}") for k, v in vars(transport).items()},
        "errors_of_sums": errors,
        "sums": lines,
        "whole_steps": _whole_steps(measured["steps"], transport, overlap),
        "assumed": {
            "round_trip_ms": 1e3 * ROUND_TRIP,
            "payload_share_of_ethernet": round(ETHERNET_FRAMES, 4),
            "overlap": round(overlap, 3),
            "transport": "as measured on this machine, with a core for each rank",
        },
        "four_ranks_ten_gigabit": {
            name: _four_ranks(node, transport, rows, overlap, errors["held_out"]["worst"])
            for name, node in nodes.items()
        },
        "published_exchange": _published_exchange(logged, transport),
        "fastest_nodes_that_hold": _limits(here, transport, rows, overlap),
        "efficiency": _curves(logged, transport, rows, overlap),
    }
    draw(found, points, logged, picture)
    return found


def setting_of(node: Node, gigabits: float, transport: Transport, **changes: Any) -> Setting:
    """BERT-large on nodes joined by Ethernet."""
    link = Link(ETHERNET_FRAMES * gigabits * 1e9 / 8, ROUND_TRIP)
    return Setting(MODEL, node, link, transport, **changes)


def _node_here(points: Sequence[Found]) -> Node:
    """The line through steps of few and of many examples."""
    few, many = points[0], points[-1]
    slope = (many["fastest"] - few["fastest"]) / (many["examples"] - few["examples"])
    return Node(slope, max(0.0, few["fastest"] - slope * few["examples"]))


def _node(step_seconds: float, here: Node) -> Node:
    """A node by its published step, split into passes and update in this machine's proportion."""
    step = published.EXAMPLES_PER_RANK * here.per_example + here.per_step
    factor = step_seconds / step
    return Node(here.per_example * factor, here.per_step * factor)


def _four_ranks(
    node: Node, transport: Transport, rows: TouchedRows, overlap: float, error: float
) -> Found:
    """Efficiency of four ranks at 10 GbE, as bertkit is and as options would have it."""
    ranks, examples = published.NODES, published.EXAMPLES_PER_RANK
    plain = setting_of(node, TEN_GIGABIT, transport, overlap=overlap)
    ways = {
        "as bertkit is": plain,
        "float16 compression": plain.replace(compression="float16"),
        "if sums waited for backward's end": plain.replace(overlap=0.0),
        "if sums waited and cost the processor nothing": plain.replace(
            overlap=0.0, transport=IDEAL
        ),
    }
    time = step_time(plain, ranks, examples, rows)
    return {
        "tflops": round(_tflops(node), 3),
        "step_seconds": {k: round(v, 3) for k, v in vars(time).items()},
        "efficiency_if_sums_took_as_much_longer_as_the_worst_predicted_one": round(
            (time.passes + time.update) / (time.total + time.sums / (1 - error) - time.sums),
            4,
        ),
        "efficiency": {
            name: {
                "one_batch_a_rank": round(weak_efficiency(way, ranks, examples, rows), 4),
                "one_global_batch_of_96": round(
                    strong_efficiency(way, ranks, published.GLOBAL_BATCH, rows), 4
                ),
            }
            for name, way in ways.items()
        },
    }


def _published_exchange(node: Node, transport: Transport) -> Found:
    """The published way of summing, whole word embeddings, against the published efficiency."""
    whole = TouchedRows({1: vocabulary_of(MODEL), 2: vocabulary_of(MODEL)}, vocabulary_of(MODEL))
    setting = setting_of(node, TEN_GIGABIT, transport)
    mine = weak_efficiency(setting, published.NODES, published.EXAMPLES_PER_RANK, whole)
    return {
        "predicted_at_ten_gigabit": round(mine, 4),
        "published": round(published.EFFICIENCY, 4),
    }


def _limits(here: Node, transport: Transport, rows: TouchedRows, overlap: float) -> Found:
    """How fast nodes may be before four of them fall below the published efficiency."""

    def efficiency(times: float, gigabits: float, compression: str, examples: int) -> float:
        node = Node(here.per_example / times, here.per_step / times)
        setting = setting_of(node, gigabits, transport, compression=compression, overlap=overlap)
        return weak_efficiency(setting, published.NODES, examples, rows)

    answers = []
    for gigabits in GIGABITS:
        for compression in ("none", "float16"):
            for faster in FASTER_NODES:
                examples = published.EXAMPLES_PER_RANK * faster
                times = brentq(
                    lambda t, g=gigabits, c=compression, e=examples: (
                        efficiency(t, g, c, e) - published.EFFICIENCY
                    ),
                    1e-3, 1e6,
                )  # fmt: skip
                node = Node(here.per_example / times, here.per_step / times)
                answers.append(
                    {
                        "gigabits": gigabits,
                        "compression": compression,
                        "examples_per_rank": examples,
                        "fastest_node_tflops": round(_tflops(node), 2),
                        "seconds_of_its_step": round(
                            node.per_example * examples + node.per_step, 2
                        ),
                    }
                )
    return {"efficiency": round(published.EFFICIENCY, 4), "nodes": answers}


def _curves(node: Node, transport: Transport, rows: TouchedRows, overlap: float) -> list[Found]:
    curves = []
    for gigabits in GIGABITS:
        plain = setting_of(node, gigabits, transport, overlap=overlap)
        fast = Link(1 / transport.move, ROUND_TRIP) if transport.move else plain.link
        ways = {
            "ring": plain,
            "hierarchical": plain.replace(
                ranks_per_host=RANKS_PER_HOST, local=fast, hierarchical=True
            ),
        }
        for name, setting in ways.items():
            values = [
                weak_efficiency(setting, ranks, published.EXAMPLES_PER_RANK, rows)
                for ranks in RANKS
            ]
            curves.append(
                {
                    "gigabits": gigabits,
                    "sum": name,
                    "ranks": list(RANKS),
                    "efficiency": [round(value, 4) for value in values],
                }
            )
    return curves


def measured_overlap(steps: Found, transport: Transport) -> float:
    """Share of the last pass's backward that hid sums, where the sums took longer than that.

    The median of the shaped links, from 0 to 1: two ranks that sum, against two that compute at
    once and do not.
    """
    apart, room = _apart(steps)
    shares = []
    for point in _summing(steps):
        sums = _sums_of(steps, point, transport)
        if sums > room:
            shares.append((apart["seconds"] + sums - point["seconds"]) / room)
    return float(np.clip(statistics.median(shares), 0.0, 1.0))


def _whole_steps(steps: Found, transport: Transport, overlap: float) -> list[Found]:
    """Whole steps of two ranks, predicted from two that compute at once and do not sum."""
    apart, room = _apart(steps)
    lines = []
    for point in _summing(steps):
        sums = _sums_of(steps, point, transport)
        predicted = apart["seconds"] + sums - min(sums, overlap * room)
        lines.append(
            {
                "megabits": point["megabits_of_shape"],
                "delay_ms": point["delay_ms"],
                "measured": point["seconds"],
                "predicted": round(predicted, 4),
                "predicted_without_overlap": round(apart["seconds"] + sums, 4),
                "relative_error": round(predicted / point["seconds"] - 1, 3),
            }
        )
    return lines


def _summing(steps: Found) -> list[Found]:
    return [point for point in steps["points"] if point["sum_over_ranks"]]


def _apart(steps: Found) -> tuple[Found, float]:
    """Two ranks that do not sum, and the seconds of their last pass's backward."""
    apart = next(p for p in steps["points"] if p["ranks"] == 2 and not p["sum_over_ranks"])
    passes = steps["task"]["examples"] / steps["task"]["pass_examples"]
    computing = apart["computing_seconds"] - apart["update_seconds"]
    return apart, BACKWARD_SHARE * computing / passes


def _sums_of(steps: Found, point: Found, transport: Transport) -> float:
    buffers = gradients_of(steps["task"]["model"], point["rows"]).buffers
    return sum_seconds(buffers, point["ranks"], fitting.link_of(point), transport)


def _tflops(node: Node) -> float:
    """Rate of a node's matrix products while it computes, in 10¹² operations a second."""
    return SIZES[MODEL].training_flops(1, published.LENGTH) / node.per_example / 1e12
