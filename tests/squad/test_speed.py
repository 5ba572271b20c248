"""Guards against slow code: how long it takes beside counting words in plain Python.

A bound is so many seconds of an idle Zen 3, which counts the words in ``COUNTED`` seconds.
`benchmarks.inputs_and_scores` says the seconds.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from bertkit.squad.features import make_features
from bertkit.squad.reading import read_squad
from bertkit.squad.scoring import score
from bertkit.squad.spans import best_answers
from bertkit.squad.tokenization import load_tokenizer
from tests.repeated import repeated
from tests.timing import times_as_long

SETTINGS = {"max_seq_length": 384, "doc_stride": 128, "max_query_length": 64}
WORDS = "\n".join(f"row {number} has {number % 97} of {number % 89}" for number in range(40_000))
COUNTED = 0.057


def count_words():
    """240,000 words, as one would by hand."""
    counts = {}
    for row in WORDS.split("\n"):
        for word in row.split():
            counts[word] = counts.get(word, 0) + 1


@pytest.fixture(scope="module")
def dev(squad_folder):
    return repeated(read_squad(squad_folder / "dev-v1.1.json"), 10_570)


@pytest.fixture(scope="module")
def tokenizer(vocab_file):
    return load_tokenizer(vocab_file, lowercase=True)


def test_features_of_22_000_questions(squad_folder, tokenizer):
    """A quarter of SQuAD's training file in a quarter of 30 seconds on two cores."""
    data = repeated(read_squad(squad_folder / "train-v1.1.json", training=True), 22_000)

    def make():
        assert len(make_features(data, tokenizer, training=True, **SETTINGS)) >= 22_000

    # The tokenizer has threads of its own.
    assert times_as_long(make, count_words, clock=time.process_time) < 2 * 30 / 4 / COUNTED


def test_scores_of_10_570_predictions(dev):
    words = [dev.context(q).split()[:4] for q in dev.questions]
    predictions = {q.id: " ".join(w) for q, w in zip(dev.questions, words, strict=True)}

    def add_up():
        assert score(dev, predictions).total == 10_570

    assert times_as_long(add_up, count_words) < 2 / COUNTED


def test_answers_to_10_570_questions(dev, tokenizer):
    made = make_features(dev, tokenizer, training=False, **SETTINGS)
    random = np.random.default_rng(0)
    starts, ends = (
        [random.normal(size=n).astype(np.float32) for n in made.lengths] for _ in range(2)
    )

    def answer():
        found = best_answers(made, dev, starts, ends, max_answer_length=30, version_2=False)
        assert len(found) == 10_570

    assert times_as_long(answer, count_words) < 5 / COUNTED
