import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.squad.batches import (
    PADDING,
    BatchPlan,
    MicroBatch,
    assemble,
    evaluation_batches,
    length_buckets,
)
from bertkit.squad.features import Features

REAL = np.clip(np.random.default_rng(0).gamma(6, 30, 1000).astype(int), 20, 384)  # like SQuAD's


def plan(lengths=REAL, **changes):
    values = {"batch_size": 32, "ranks": 1, "micro_batch_tokens": 4096, "seed": 1, **changes}
    return BatchPlan(lengths, **values)


PLANS = st.builds(
    plan,
    lengths=st.lists(st.integers(3, 384), min_size=1, max_size=200),
    batch_size=st.integers(1, 80),
    ranks=st.integers(1, 5),
    micro_batch_tokens=st.sampled_from([384, 512, 4096, 10_000]),
    seed=st.integers(0, 2**31 - 1),
    group_by_length=st.booleans(),
    pad_to_max_length=st.booleans(),
)
PROPERTY = settings(max_examples=60, deadline=None)


@PROPERTY
@given(PLANS)
def test_every_epoch_holds_each_example_once(made):
    steps = made.steps_per_epoch
    for epoch in (0, 1):
        batches = [made.examples(epoch * steps + number) for number in range(steps)]
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(made.lengths)))
        assert all(len(batch) == made.batch_size for batch in batches[:-1])
        assert 1 <= len(batches[-1]) <= made.batch_size


@PROPERTY
@given(PLANS)
def test_ranks_have_like_shapes_and_share_the_examples(made):
    possible = set(made.shapes())
    for step in range(made.steps_per_epoch):
        ranks = [made.micro_batches(step, rank) for rank in range(made.ranks)]
        shapes = [[batch.shape for batch in batches] for batches in ranks]
        assert all(shape == shapes[0] for shape in shapes)
        assert set(shapes[0]) <= possible
        indices = np.concatenate([batch.indices for batches in ranks for batch in batches])
        real = indices[indices != PADDING]
        assert sorted(real.tolist()) == sorted(made.examples(step).tolist())
        for batch in (batch for batches in ranks for batch in batches):
            kept = batch.indices[batch.indices != PADDING]
            assert made.lengths[kept].max(initial=0) <= batch.length
            rows, length = batch.shape
            assert rows * length <= max(made._tokens, length)
            if made._pads_to_max_length:
                assert batch.packed_rows is None
            else:
                tokens = made.lengths[kept].sum() + rows - len(kept)  # padding examples have one
                assert tokens < batch.packed_rows <= rows * length or tokens == rows * length
        passed = sum(
            batch.packed_rows or len(batch.indices) * batch.length
            for batches in ranks
            for batch in batches
        )
        packed = [[batch.packed_rows for batch in batches] for batches in ranks]
        assert all(rows == packed[0] for rows in packed)
        expected = 1 - made.lengths[made.examples(step)].sum() / passed
        assert made.padding_share(step) == pytest.approx(expected)


@PROPERTY
@given(PLANS, st.integers(1, 6))
def test_examples_do_not_depend_on_ranks_or_budget(made, ranks):
    other = plan(
        made.lengths, batch_size=made.batch_size, ranks=ranks, micro_batch_tokens=999,
        seed=made.seed, group_by_length=made.group_by_length,
    )  # fmt: skip
    for step in range(2 * made.steps_per_epoch):
        assert np.array_equal(made.examples(step), other.examples(step))


def test_order_is_fixed_by_seed_and_differs_between_epochs():
    orders = [
        plan(seed=seed).epoch_order(epoch) for seed, epoch in [(1, 0), (1, 0), (1, 1), (2, 0)]
    ]
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert not np.array_equal(orders[0], orders[3])
    resumed = plan()
    assert np.array_equal(resumed.examples(75), plan().examples(75))  # no need to begin at 0


def test_length_buckets():
    assert length_buckets(512) == (32, 64, 96, 128, 160, 192, 256, 320, 384, 448, 512)
    assert length_buckets(100) == (32, 64, 96, 100)
    assert length_buckets(16) == (16,)


def test_pad_to_max_length_has_one_bucket():
    made = plan(pad_to_max_length=True)
    assert {length for _, length in made.shapes()} == {384}
    shares = [made.padding_share(step) for step in range(made.steps_per_epoch)]
    assert np.mean(shares) > 0.5


def test_buckets_save_most_padding():
    """Attention's, which sees the places."""

    def share(**changes):
        made = plan(pass_cost=192, **changes)
        shares = []
        for step in range(made.steps_per_epoch):
            shapes = [batch.shape for batch in made.micro_batches(step, 0)]
            places = made.ranks * sum(rows * length for rows, length in shapes)
            shares.append(1 - made.lengths[made.examples(step)].sum() / places)
        return np.mean(shares)

    assert share() < 0.2
    assert share(ranks=2) < 0.25
    assert share(group_by_length=True, ranks=2) < 0.15


def test_packed_rows_save_nearly_all_padding():
    def share(**changes):
        made = plan(**changes)
        return np.mean([made.padding_share(step) for step in range(made.steps_per_epoch)])

    assert share() < 0.05
    assert share(ranks=2) < 0.06
    assert share(group_by_length=True, ranks=2) < 0.05


def test_numbers_of_packed_rows_are_few():
    made = plan(batch_size=96, micro_batch_tokens=10_000)
    used = {batch.packed_rows for step in range(100) for batch in made.micro_batches(step, 0)}
    assert len(used) < 60


def test_a_dearer_pass_makes_fewer_of_them():
    def passes_and_places(pass_cost):
        made = plan(batch_size=64, pass_cost=pass_cost)
        passes = [
            batch for step in range(made.steps_per_epoch) for batch in made.micro_batches(step, 0)
        ]
        return len(passes), sum(len(batch.indices) * batch.length for batch in passes)

    many, little = passes_and_places(0)
    few, much = passes_and_places(10_000)
    assert few < many
    assert little < much


def test_shapes_are_few():
    assert len(plan(batch_size=512, ranks=2).shapes()) < 80
    used = {
        batch.shape
        for step in range(20)
        for batch in plan(batch_size=96, ranks=2).micro_batches(step, 0)
    }
    assert len(used) < 40


def test_no_features_or_too_long_ones_are_an_error():
    with pytest.raises(ValueError, match="found 0"):
        plan([])
    with pytest.raises(ValueError, match="the longest of 385"):
        plan([385])


# Arrays ------------------------------------------------------------------------------------------


def flat_features():
    """Features of 4 and 6 tokens; token ids tell their place."""
    return Features(
        input_ids=np.array([10, 11, 12, 13, 20, 21, 22, 23, 24, 25], np.int32),
        offsets=np.array([0, 4, 10]),
        question_lengths=np.array([2, 3], np.int32),
        question_index=np.array([0, 1], np.int32),
        start_positions=np.array([2, 0], np.int32),
        end_positions=np.array([3, 0], np.int32),
        char_starts=np.zeros(10, np.int32),
        char_ends=np.zeros(10, np.int32),
        is_max_context=np.zeros(10, np.bool_),
    )


def test_assemble():
    batch = MicroBatch(np.array([1, 0, PADDING]), 8)
    arrays = assemble(flat_features(), batch, global_batch_examples=4)
    assert arrays.input_ids.tolist() == [
        [20, 21, 22, 23, 24, 25, 0, 0],
        [10, 11, 12, 13, 0, 0, 0, 0],
        [0] * 8,
    ]
    assert arrays.segment_ids.tolist() == [
        [0, 0, 0, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0, 0, 0],
        [0] * 8,
    ]
    assert arrays.lengths.tolist() == [6, 4, 1]
    assert arrays.start_positions.tolist() == [0, 2, 0]
    assert arrays.end_positions.tolist() == [0, 3, 0]
    assert arrays.weights.tolist() == [0.25, 0.25, 0]
    assert arrays.packed_rows is None
    packed = MicroBatch(np.array([1]), 8, packed_rows=7)
    assert assemble(flat_features(), packed, global_batch_examples=4).packed_rows == 7
    kinds = {name: v.dtype for name, v in vars(arrays).items() if name != "packed_rows"}
    assert kinds.pop("weights") == np.float32
    assert set(kinds.values()) == {np.dtype(np.int32)}


@PROPERTY
@given(PLANS)
def test_weights_of_a_step_sum_to_one(made):
    zeros = np.zeros(len(made.lengths), np.int32)
    offsets = np.concatenate([[0], np.cumsum(made.lengths)])
    features = Features(
        np.arange(offsets[-1], dtype=np.int32), offsets, zeros, zeros, zeros, zeros,
        zeros, zeros, zeros.astype(bool),
    )  # fmt: skip
    step = made.steps_per_epoch - 1
    count = len(made.examples(step))
    total, tokens = 0.0, 0
    for rank in range(made.ranks):
        for batch in made.micro_batches(step, rank):
            arrays = assemble(features, batch, global_batch_examples=count)
            total += float(arrays.weights.sum())
            tokens += int(arrays.lengths[arrays.weights > 0].sum())
    assert total == pytest.approx(1.0, abs=1e-5)
    assert tokens == made.lengths[made.examples(step)].sum()


@PROPERTY
@given(
    st.lists(st.integers(3, 384), max_size=300), st.sampled_from([512, 2048, 8192]), st.booleans()
)
def test_evaluation_batches_hold_each_chosen_feature_once(lengths, tokens, some):
    indices = np.arange(0, len(lengths), 3) if some else None
    batches = evaluation_batches(lengths, indices=indices, tokens=tokens)
    found = np.concatenate([np.empty(0, int), *(batch.indices for batch in batches)])
    wanted = range(len(lengths)) if indices is None else indices
    assert sorted(found[found != PADDING].tolist()) == list(wanted)
    assert len({batch.shape for batch in batches}) <= len(length_buckets(384)) + 1
    longest = [max(lengths[i] for i in batch.indices if i != PADDING) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    assert all(most <= batch.length for most, batch in zip(longest, batches, strict=True))
    assert all(rows * length <= tokens for rows, length in (batch.shape for batch in batches))
