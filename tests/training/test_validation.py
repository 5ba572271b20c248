"""Scores are those of the whole file, however it is shared out and cut into batches."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.bert.question_answering import QuestionAnswering
from bertkit.errors import DataError
from bertkit.squad import scoring
from bertkit.squad.batches import MicroBatch, assemble
from bertkit.squad.dataset import Dataset, Question
from bertkit.training.inputs import features, read_inputs
from bertkit.training.validation import Forward, Validation, share_of_questions
from bertkit.training.world import SingleWorld


class Collected(SingleWorld):
    """One of several ranks that come one after another; sums wait until the last has come."""

    def __init__(self, rank, size, so_far):
        self.rank, self.size, self.so_far = rank, size, so_far

    def sum(self, values):
        self.so_far += values
        return np.array(self.so_far)


@pytest.fixture(scope="module")
def inputs(tiny_config):
    return read_inputs(tiny_config)


@pytest.fixture(scope="module")
def forward(inputs):
    return Forward(QuestionAnswering.from_pretrained(inputs.pretrained, seed=3), "float32")


def score(dataset, inputs, config, forward, ranks):
    """Scores as the last rank sees them, and every rank's predictions."""
    so_far = np.zeros(3)
    predictions = {}
    for rank in range(ranks):
        world = Collected(rank, ranks, so_far)
        validation = Validation(dataset, inputs.tokenizer, config, forward, world)
        scores, mine = validation.score()
        assert not predictions.keys() & mine.keys()
        predictions.update(mine)
    return scores, predictions


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60)), max_size=60), st.integers(1, 7))
def test_shares_are_the_whole_and_about_equal(asked, ranks):
    contexts = tuple("x" * (1 + 300 * n) for n in range(4))
    dataset = Dataset(
        "dev", contexts,
        tuple(Question(str(n), "", c, "?" * size) for n, (c, size) in enumerate(asked)),
    )  # fmt: skip
    shares = [share_of_questions(dataset, rank, ranks) for rank in range(ranks)]
    assert sorted(chain.from_iterable(shares)) == list(range(len(dataset)))
    assert all(share == sorted(share) for share in shares)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    texts = [sum(len(contexts[asked[i][0]]) + asked[i][1] for i in share) for share in shares]
    longest = max((len(contexts[c]) + size for c, size in asked), default=0)
    assert max(texts) - min(texts) <= longest


def test_logits_do_not_depend_on_the_batch(inputs, tiny_config, forward):
    made = features(inputs.dev, inputs.tokenizer, tiny_config, training=False)
    starts, ends = forward(made)
    for index in range(0, len(made), 7):
        alone = assemble(
            made,
            MicroBatch(np.array([index]), int(made.lengths[index])),
            global_batch_examples=1,
        )
        logits = forward._logits(alone.input_ids, alone.segment_ids, alone.lengths).numpy()
        assert starts[index].shape == ends[index].shape == (made.lengths[index],)
        np.testing.assert_allclose(starts[index], logits[0, :, 0], atol=1e-5)
        np.testing.assert_allclose(ends[index], logits[0, :, 1], atol=1e-5)


def test_scores_are_the_official_ones(inputs, tiny_config, forward):
    scores, predictions = score(inputs.dev, inputs, tiny_config, forward, ranks=1)
    texts = {name: prediction.text for name, prediction in predictions.items()}
    official = scoring.score(inputs.dev, texts)
    assert (scores.f1, scores.exact_match) == pytest.approx(
        (official.f1, official.exact_match), abs=1e-9
    )
    assert scores.total == len(texts) == len(inputs.dev)
    assert scores.f1 > 0


def test_more_ranks_than_questions(inputs, tiny_config, forward):
    few = inputs.dev.subset(range(2))
    alone, _ = score(few, inputs, tiny_config, forward, ranks=1)
    shared, predictions = score(few, inputs, tiny_config, forward, ranks=5)
    assert shared.total == alone.total == len(predictions) == 2
    assert shared.f1 == pytest.approx(alone.f1, abs=1e-9)


def test_a_model_with_few_positions(inputs, tiny_config):
    """No batch is padded beyond the positions a model has, here 90: no multiple of 32."""
    made = features(inputs.dev, inputs.tokenizer, tiny_config, training=False)
    positions = int(made.lengths.max())
    pretrained = inputs.pretrained
    name = "bert.embeddings.position_embeddings.weight"
    model = QuestionAnswering(
        replace(pretrained.architecture, max_position_embeddings=positions),
        tensors={**pretrained.tensors, name: pretrained.tensors[name][:positions]},
    )
    assert positions % 32
    starts, _ = Forward(model, "float32")(made)
    assert all(len(s) == length for s, length in zip(starts, made.lengths, strict=True))


def test_progress_counts_features(inputs, tiny_config, forward):
    seen = []
    validation = Validation(inputs.dev, inputs.tokenizer, tiny_config, forward, SingleWorld())
    validation.predict(lambda done, total: seen.append((done, total)))
    counts = [done for done, _ in seen]
    assert counts == sorted(counts)
    assert seen[-1] == (len(inputs.dev), len(inputs.dev))


def test_questions_without_references_cannot_be_scored(inputs, tiny_config, forward):
    dataset = Dataset.single("ada moss built the mill in tarn .", "who built the mill ?")
    validation = Validation(dataset, inputs.tokenizer, tiny_config, forward, SingleWorld())
    assert list(validation.predict()) == ["question"]
    with pytest.raises(DataError, match="no reference answer to score against"):
        validation.score()
