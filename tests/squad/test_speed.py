"""Guards against slow code, in processor seconds, which a busy machine does not stretch much."""

from __future__ import annotations

import time

import numpy as np

from bertkit.squad.features import make_features
from bertkit.squad.reading import read_squad
from bertkit.squad.scoring import score
from bertkit.squad.spans import best_answers
from bertkit.squad.tokenization import load_tokenizer
from tests.repeated import repeated

SETTINGS = {"max_seq_length": 384, "doc_stride": 128, "max_query_length": 64}


def test_features_of_22_000_questions(squad_folder, vocab_file):
    """A quarter of SQuAD's training file in a quarter of 30 seconds on two cores."""
    data = repeated(read_squad(squad_folder / "train-v1.1.json", training=True), 22_000)
    tokenizer = load_tokenizer(vocab_file, lowercase=True)
    begin = time.process_time()
    made = make_features(data, tokenizer, training=True, **SETTINGS)
    assert time.process_time() - begin < 2 * 30 / 4
    assert len(made) >= 22_000


def test_scores_of_10_570_predictions(squad_folder):
    data = repeated(read_squad(squad_folder / "dev-v1.1.json"), 10_570)
    words = [data.context(q).split()[:4] for q in data.questions]
    predictions = {q.id: " ".join(w) for q, w in zip(data.questions, words, strict=True)}
    begin = time.process_time()
    assert score(data, predictions).total == 10_570
    assert time.process_time() - begin < 2


def test_answers_to_10_570_questions(squad_folder, vocab_file):
    data = repeated(read_squad(squad_folder / "dev-v1.1.json"), 10_570)
    tokenizer = load_tokenizer(vocab_file, lowercase=True)
    made = make_features(data, tokenizer, training=False, **SETTINGS)
    random = np.random.default_rng(0)
    starts, ends = (
        [random.normal(size=n).astype(np.float32) for n in made.lengths] for _ in range(2)
    )
    begin = time.process_time()
    answers = best_answers(made, data, starts, ends, max_answer_length=30, version_2=False)
    assert time.process_time() - begin < 5
    assert len(answers) == 10_570
