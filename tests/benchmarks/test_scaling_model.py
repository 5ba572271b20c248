"""What must hold of the model of training on many ranks, whatever its numbers."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scaling.collectives import (
    IDEAL,
    SEGMENT_BYTES,
    Link,
    Transport,
    hierarchical_seconds,
    ring_seconds,
    sum_seconds,
)
from benchmarks.scaling.gradients import FUSION_BYTES, Buffer, fuse, gradients_of
from benchmarks.scaling.step_time import (
    Node,
    Setting,
    TouchedRows,
    step_time,
    strong_efficiency,
    weak_efficiency,
)
from bertkit.bert.architecture import Architecture
from bertkit.bert.question_answering import QuestionAnswering

ROWS = TouchedRows({8: 669, 96: 3778, 768: 9460}, 30522)

rates = st.floats(1e6, 1e11)
trips = st.floats(0, 0.05)
links = st.builds(Link, rates, trips)
costs = st.floats(0, 1e-8)
transports = st.builds(
    Transport, copy=costs, move=costs, add_half=costs, message=st.floats(0, 1e-3),
    start=st.floats(0, 0.05), start_trips=st.floats(0, 4),
)  # fmt: skip
buffers = st.builds(Buffer, st.floats(1, 2e9), st.booleans())
ranks = st.integers(2, 1024)
nodes = st.builds(Node, st.floats(1e-3, 10), st.floats(0, 5))
setups = st.builds(
    Setting, st.just("minilm"), nodes, links, transports,
    compression=st.sampled_from(["none", "float16"]), overlap=st.floats(0, 1),
    pass_examples=st.integers(1, 64), ranks_per_host=st.integers(1, 8),
    local=st.none() | links, hierarchical=st.booleans(),
)  # fmt: skip
examples = st.integers(1, 128)
EXACT = 1 + 1e-9
many = settings(max_examples=100, deadline=None)


@many
@given(buffers, ranks, links, transports, st.floats(1, 100))
def test_a_sum_is_no_slower_on_a_faster_link(buffer, ranks, link, transport, times):
    faster = Link(link.bytes_per_second * times, link.round_trip)
    nearer = Link(link.bytes_per_second, link.round_trip / times)
    before = ring_seconds(buffer, ranks, link, transport)
    assert ring_seconds(buffer, ranks, faster, transport) <= before * EXACT
    assert ring_seconds(buffer, ranks, nearer, transport) <= before * EXACT


@many
@given(buffers, ranks, links, transports, st.floats(1, 100))
def test_more_bytes_take_no_less_time(buffer, ranks, link, transport, times):
    # By whole segments only: the last segment of a ring may be nearly empty.
    larger = buffer._replace(bytes=buffer.bytes * times + 2 * ranks * SEGMENT_BYTES)
    before = ring_seconds(buffer, ranks, link, transport)
    assert ring_seconds(larger, ranks, link, transport) >= before / EXACT


@many
@given(buffers, ranks, links, transports)
def test_no_sum_beats_the_least_that_must_cross_a_link(buffer, ranks, link, transport):
    least = 2 * (ranks - 1) / ranks * buffer.bytes / link.bytes_per_second
    assert ring_seconds(buffer, ranks, link, transport) >= least / EXACT


@many
@given(st.floats(1e9, 1e12), st.integers(2, 64), rates)
def test_a_long_ring_without_latency_takes_just_that(size, ranks, rate):
    least = 2 * (ranks - 1) / ranks * size / rate
    assert ring_seconds(Buffer(size), ranks, Link(rate, 0.0), IDEAL) == pytest.approx(least)


@many
@given(ranks, st.floats(1e-5, 0.05))
def test_a_short_ring_takes_its_messages(ranks, trip):
    """Two segments a rank and way, two of them under way: a round trip for each step."""
    seconds = ring_seconds(Buffer(8.0), ranks, Link(1e12, trip), IDEAL)
    assert seconds == pytest.approx(2 * (ranks - 1) * trip, rel=1e-3)


@many
@given(buffers, st.integers(2, 64), st.integers(1, 8), links, links, transports)
def test_two_levels_of_one_are_one_ring(buffer, hosts, each, cross, local, transport):
    one = hierarchical_seconds(buffer, hosts, 1, cross, local, transport)
    assert one == pytest.approx(ring_seconds(buffer, hosts, cross, transport))
    alone = hierarchical_seconds(buffer, 1, each, cross, local, transport)
    assert alone == pytest.approx(ring_seconds(buffer, each, local, transport))


@many
@given(st.floats(1e9, 1e10), st.integers(4, 128), st.integers(2, 8), rates)
def test_two_levels_move_as_much_over_a_hosts_link_as_one_rank_a_host(size, hosts, each, rate):
    cross, local = Link(rate, 0.0), Link(math.inf, 0.0)
    two = hierarchical_seconds(Buffer(size), hosts, each, cross, local, IDEAL)
    assert two == pytest.approx(ring_seconds(Buffer(size), hosts, cross, IDEAL))


def test_two_levels_wait_for_fewer_messages():
    far, near = Link(1e10, 1e-3), Link(1e10, 1e-6)
    small = Buffer(1e5)
    assert hierarchical_seconds(small, 128, 8, far, near) < ring_seconds(small, 1024, far) / 7


@many
@given(setups, examples)
def test_one_rank_does_not_communicate(setting, examples):
    time = step_time(setting, 1, examples, ROWS)
    assert time.sums == time.exposed == 0
    assert strong_efficiency(setting, 1, examples, ROWS) == 1
    assert weak_efficiency(setting, 1, examples, ROWS) == 1


@many
@given(setups, ranks, examples)
def test_no_efficiency_is_above_one(setting, ranks, examples):
    assert 0 < weak_efficiency(setting, ranks, examples, ROWS) <= EXACT
    assert 0 < strong_efficiency(setting, ranks, examples * ranks, ROWS) <= EXACT


@many
@given(setups, ranks, examples, st.floats(0, 1))
def test_overlap_hides_sums_and_nothing_else(setting, ranks, examples, overlap):
    none = step_time(setting.replace(overlap=0.0), ranks, examples, ROWS)
    some = step_time(setting.replace(overlap=overlap), ranks, examples, ROWS)
    assert none.exposed == none.sums == some.sums
    assert 0 <= some.exposed <= none.exposed
    assert some.total >= max(some.passes + some.update, some.sums) / EXACT


@many
@given(setups, ranks, st.integers(1, 64))
def test_accumulated_passes_share_one_sum(setting, ranks, examples):
    """Twice the examples a rank: one sum for both halves, so no lower efficiency.

    They touch more of the word embeddings; with all of them sent either way that is no matter.
    """
    whole = TouchedRows({1: 30522, 2: 30522}, 30522)
    setting = setting.replace(overlap=0.0)
    once = weak_efficiency(setting, ranks, examples, whole)
    assert weak_efficiency(setting, ranks, 2 * examples, whole) >= once / EXACT


@many
@given(setups, ranks, examples, st.floats(1, 100))
def test_faster_nodes_are_used_less_well(setting, ranks, examples, times):
    setting = setting.replace(overlap=0.0)
    node = Node(setting.node.per_example / times, setting.node.per_step / times)
    before = weak_efficiency(setting, ranks, examples, ROWS)
    assert weak_efficiency(setting.replace(node=node), ranks, examples, ROWS) <= before * EXACT


@many
@given(st.lists(st.integers(1, 300), min_size=1), st.integers(1, 400))
def test_fusion_keeps_every_byte_and_the_limit(sizes, threshold):
    fused = fuse(sizes, threshold)
    assert sum(fused) == sum(sizes)
    assert all(size <= max(threshold, max(sizes)) for size in fused)
    assert all(a + b > threshold for a, b in pairwise(fused))


def test_gradients_are_those_of_the_model():
    sizes = Architecture(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    model = QuestionAnswering(sizes)
    gradients = gradients_of("minilm", sizes.vocab_size)
    assert gradients.shapes[:-1] == tuple(tuple(v.shape) for v in model.variables)
    assert gradients.bytes == 4 * (sizes.parameters() + 2)
    few = gradients_of("minilm", 2000)
    assert gradients.bytes - few.bytes == 4 * sizes.hidden_size * (sizes.vocab_size - 2048)


def test_half_precision_halves_the_matrices():
    whole, half = gradients_of("large", 4096), gradients_of("large", 4096, "float16")
    vectors = 4 * sum(math.prod(s) for s in whole.shapes if len(s) == 1)
    assert half.bytes == (whole.bytes - vectors) / 2 + vectors
    for gradients in (whole, half):
        assert sum(buffer.bytes for buffer in gradients.buffers) == gradients.bytes
        assert max(buffer.bytes for buffer in gradients.buffers) <= FUSION_BYTES


@many
@given(st.floats(1, 1e7), st.floats(1, 1e7))
def test_more_examples_touch_no_fewer_rows(few, many):
    few, many = sorted([few, many])
    assert 1 <= ROWS(few) <= ROWS(many) <= 30522


def test_touched_rows_pass_through_what_was_measured():
    assert [ROWS(n) for n in (8, 96, 768)] == pytest.approx([669, 3778, 9460], abs=1)


def test_the_model_finds_again_what_made_the_sums():
    """Sums that the model itself made up are predicted from some of them, the others included."""
    from benchmarks.scaling import fitting

    true = Transport(copy=6e-10, move=4e-10, add_half=5e-9, message=5e-5, start=4e-3, start_trips=2)
    random = np.random.default_rng(0)
    points = [
        {"ranks": count, "payload": payload, "bytes": 416, "megabits_of_shape": rate,
         "delay_ms": trip / 2, "round_trip_ms": trip}
        for count in (2, 4)
        for payload in ("empty", "minilm", "minilm float16", "base")
        for rate in (None, 100, 1000, 10000)
        for trip in (0.05, 2)
    ]  # fmt: skip
    for point in points:
        exact = fitting.predict(point, true, rows=4096)
        point["seconds"] = point["fastest"] = exact * float(random.uniform(0.98, 1.02))
    found = fitting.fit_transport(points, rows=4096)
    lines = fitting.table(points, found, rows=4096)
    assert fitting.errors(lines, lambda line: line["held_out"])["worst"] < 0.05


@pytest.mark.parametrize("overlap", [0.0, 0.4, 1.0])
def test_the_overlap_that_made_the_steps_is_found_again(overlap):
    from benchmarks.scaling import fitting, simulate

    transport = Transport(
        copy=6e-10, move=4e-10, add_half=5e-9, message=5e-5, start=4e-3, start_trips=2
    )
    computing, update = 1.0, 0.2
    room = (computing - update) / 2 * 2 / 3  # two passes, two thirds of each backward
    points = [
        {"ranks": 2, "sum_over_ranks": False, "seconds": 1.1, "rows": 1024,
         "computing_seconds": computing, "update_seconds": update},
    ]  # fmt: skip
    for rate in (None, 100, 500, 1000):
        point = {
            "ranks": 2, "sum_over_ranks": True, "rows": 2048, "megabits_of_shape": rate,
            "delay_ms": 0.0, "round_trip_ms": 0.05,
        }  # fmt: skip
        link = fitting.link_of(point)
        sums = sum_seconds(gradients_of("minilm", 2048).buffers, 2, link, transport)
        points.append({**point, "seconds": 1.1 + sums - min(sums, overlap * room)})
    steps = {"task": {"model": "minilm", "examples": 8, "pass_examples": 4}, "points": points}
    assert simulate.measured_overlap(steps, transport) == pytest.approx(overlap, abs=1e-6)
