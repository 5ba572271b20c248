"""Guards against slow code: how long it takes beside counting words in plain Python.

A bound is so many seconds of an idle Zen 3, which counts the words in ``COUNTED`` seconds.
`benchmarks.inputs_and_scores` says how long the real thing takes: features of 88,000 questions,
answers to 10,570 and their scores, of which a quarter or less is made here.
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
QUARTER = 2_643
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
    return repeated(read_squad(squad_folder / "dev-v1.1.json"), QUARTER)


@pytest.fixture(scope="module")
def tokenizer(vocab_file):
    return load_tokenizer(vocab_file, lowercase=True)


def test_features(squad_folder, tokenizer):
    """A sixteenth of SQuAD's training file in a sixteenth of 30 seconds on two cores."""
    data = repeated(read_squad(squad_folder / "train-v1.1.json", training=True), 5_500)

    def make():
        return make_features(data, tokenizer, training=True, **SETTINGS)

    # The tokenizer has threads of its own.
    assert times_as_long(make, count_words, clock=time.process_time) < 2 * 30 / 16 / COUNTED


def test_scores(dev):
    words = [dev.context(q).split()[:4] for q in dev.questions]
    predictions = {q.id: " ".join(w) for q, w in zip(dev.questions, words, strict=True)}
    assert times_as_long(lambda: score(dev, predictions), count_words) < 2 / 4 / COUNTED


def test_answers(dev, tokenizer):
    made = make_features(dev, tokenizer, training=False, **SETTINGS)
    random = np.random.default_rng(0)
    starts, ends = (
        [random.normal(size=n).astype(np.float32) for n in made.lengths] for _ in range(2)
    )

    def answer():
        return best_answers(made, dev, starts, ends, max_answer_length=30, version_2=False)

    assert times_as_long(answer, count_words) < 5 / 4 / COUNTED
