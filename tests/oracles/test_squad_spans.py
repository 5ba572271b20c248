"""Answers from logits against ``run_squad.py``'s published rules and `transformers` 4's metrics.

The logits are made up: noise with peaks at tokens of the paragraph; those of v2.0 are rounded to
halves, so that many scores are equal. Both oracles get the same ones.

Which spans are the n best, in which order and with which probability is identical. The text of a
span differs by name:

* **whole words**: published, it is found by comparing characters, and where that fails (CJK
  characters, ligatures, controls) the whole words around it are given. bertkit knows each token's
  characters, and gives just those.
* **blanks**: published, words are joined by single spaces, and what stands between two words
  otherwise is kept only inside a word. bertkit gives the paragraph's own characters.

* **inside a word**: where an answer begins inside a word, `transformers` gives that word whole; the
  published rules and bertkit begin inside it.

Where no span is possible the published answer is the word "empty" and bertkit's is no text.
"""

from __future__ import annotations

import itertools
import unicodedata

import numpy as np
import pytest

from bertkit.squad.features import make_features
from bertkit.squad.reading import read_squad
from bertkit.squad.spans import best_answers
from bertkit.squad.tokenization import load_tokenizer
from tests.oracles.published_squad import PublishedRules, probabilities
from tests.oracles.published_tokenizer import PublishedTokenizer
from tests.oracles.transformers_4_squad import run_transformers_4

SETTINGS = {"max_seq_length": 384, "doc_stride": 128, "max_query_length": 64}
ANSWERS = {"max_answer_length": 30, "n_best_size": 20}
THRESHOLD = -1.0


@pytest.fixture(scope="module")
def tokenizer(vocab_file):
    return load_tokenizer(vocab_file, lowercase=True)


def made_up_logits(made, rounded):
    """Start and end logits of every feature, float32, as a trained model's may look."""
    random = np.random.default_rng([7, int(rounded)])
    starts, ends = [], []
    for length, first in zip(made.lengths, made.question_lengths, strict=True):
        logits = random.normal(-3, 2, (2, length))
        logits[:, 0] += random.normal(3, 3)  # "no answer"
        for _ in range(random.integers(0, 4)):
            begin = random.integers(first, length - 1)
            end = min(length - 1, begin + random.geometric(0.3))
            logits[0, begin] += random.normal(5, 2)
            logits[1, end] += random.normal(5, 2)
        logits = np.round(logits * 2) / 2 if rounded else logits
        starts.append(logits[0].astype(np.float32))
        ends.append(logits[1].astype(np.float32))
    return starts, ends


class Case:
    """One file with its features, made-up logits, and bertkit's answers to them."""

    def __init__(self, folder, vocab_file, tokenizer, name, rounded):
        self.file = folder / f"{name}.json"
        self.data = read_squad(self.file)
        self.version_2 = self.data.has_impossible
        self.made = make_features(self.data, tokenizer, training=False, **SETTINGS)
        starts, ends = made_up_logits(self.made, rounded)
        self.ours = best_answers(
            self.made, self.data, starts, ends, version_2=self.version_2,
            null_score_diff_threshold=THRESHOLD, **ANSWERS,
        )  # fmt: skip
        self.starts, self.ends = ([row.tolist() for row in logits] for logits in (starts, ends))
        self.rules = PublishedRules(self.data, PublishedTokenizer(vocab_file))
        self.features = self.rules.features(training=False, **SETTINGS)
        self.of_question = {}
        for number, feature in enumerate(self.features):
            self.of_question.setdefault(feature.question, {})[number] = feature

    def n_best(self, number, text_of):
        return self.rules.n_best(
            self.of_question[number], self.starts, self.ends,
            version_2=self.version_2, text_of=text_of, **ANSWERS,
        )  # fmt: skip

    def own_text(self, answer):
        """The paragraph's characters from the first token to the last, and accents behind it."""
        begin = self.made.offsets[answer.feature]
        context = self.data.context(self.data.questions[self.features[answer.feature].question])
        start = self.made.char_starts[begin + answer.start]
        end = self.made.char_ends[begin + answer.end]
        accents = itertools.takewhile(unicodedata.combining, context[end:])
        return context[start:end] + "".join(accents)

    def transformers_text(self, answer):
        return self.rules.text(answer, self.features[answer.feature], as_transformers=True)[0]


@pytest.fixture(
    scope="module",
    params=[("dev-v1.1", False), ("dev-v2.0", True)],
    ids=lambda param: f"{param[0]}-{'rounded' if param[1] else 'as they are'}",
)
def case(request, squad_folder, vocab_file, tokenizer):
    return Case(squad_folder, vocab_file, tokenizer, *request.param)


def test_spans_are_those_of_the_published_rules(case):
    for number, question in enumerate(case.data.questions):
        theirs, null = case.n_best(number, case.own_text)
        mine = case.ours[question.id]
        assert [c.text for c in mine.n_best] == list(theirs)
        assert [c.start_logit for c in mine.n_best] == [a.start_logit for a in theirs.values()]
        assert [c.end_logit for c in mine.n_best] == [a.end_logit for a in theirs.values()]
        shares = probabilities(answer.score for answer in theirs.values())
        assert np.allclose([c.probability for c in mine.n_best], shares, rtol=0, atol=1e-12)
        text, best = next((text, answer) for text, answer in theirs.items() if text)
        if case.version_2:
            difference = null - best.start_logit - best.end_logit
            assert mine.null_score_difference == difference
            text = "" if difference > THRESHOLD else text
        assert mine.text == text
        context = case.data.context(question)
        if text:
            assert context[mine.start_char : mine.end_char] == text
        assert mine.score == next(c.probability for c in mine.n_best if c.text == text)


def test_texts_are_those_of_the_published_rules(case):
    named = {"whole words": 0, "blanks": 0}
    for number in range(len(case.data)):
        theirs, _ = case.n_best(number, case.own_text)
        text, best = next((text, answer) for text, answer in theirs.items() if text)
        published, whole_words = case.rules.text(best, case.features[best.feature])
        if published == text:
            continue
        assert "".join(text.split()) in "".join(published.split())
        assert whole_words or text.split() == published.split()
        named["whole words" if whole_words else "blanks"] += 1
    print(f"{case.file.name}: {named} of {len(case.data)} best texts differ")
    assert sum(named.values()) <= 0.01 * len(case.data)


def test_the_published_rules_are_those_of_transformers_4(case, vocab_file, tmp_path):
    theirs = run_transformers_4(
        {
            "file": str(case.file),
            "version_2": case.version_2,
            "training": False,
            "vocab_file": str(vocab_file),
            "settings": SETTINGS,
            "start_logits": case.starts,
            "end_logits": case.ends,
            "threshold": THRESHOLD,
            **ANSWERS,
        },
        tmp_path,
    )
    named = {"whole words": 0, "blanks": 0, "inside a word": 0}
    for number, question in enumerate(case.data.questions):
        wanted, _ = case.n_best(number, case.transformers_text)
        assert [c["text"] for c in theirs["n_best"][question.id]] == list(wanted)
        text, best = next((text, answer) for text, answer in wanted.items() if text)
        mine = case.ours[question.id]
        if case.version_2:
            assert mine.null_score_difference == theirs["null"][question.id]
            text = "" if mine.null_score_difference > THRESHOLD else text
        assert theirs["predictions"][question.id] == text
        if mine.text != text:
            feature = case.features[best.feature]
            published, whole_words = case.rules.text(best, feature)
            begins_inside = feature.tokens[best.start].startswith("##")
            assert begins_inside or published == text
            reason = "whole words" if whole_words else "blanks"
            named["inside a word" if begins_inside else reason] += 1
    print(f"{case.file.name}: {named} of {len(case.data)} predictions differ")
    assert named["whole words"] + named["blanks"] <= 0.01 * len(case.data)
