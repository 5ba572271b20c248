"""F1 and exact match against the official rules, `torchmetrics` (v1.1) and `transformers` 4 (v2.0).

The official rules stand below, written from the description of the evaluation scripts of SQuAD v1.1
and v2.0 (Rajpurkar et al., 2016 and 2018): letter by letter and word by word.

Named difference: a question without a prediction scores 0 and counts here and in v1.1's script;
v2.0's leaves it out.
"""

from __future__ import annotations

import json
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.squad.dataset import Answer, Dataset, Question
from bertkit.squad.reading import read_squad
from bertkit.squad.scoring import exact_match, f1, normalize_answer, score
from tests.oracles.transformers_4_squad import run_transformers_4

LIMIT = 1e-9


# The official rules ------------------------------------------------------------------------------


def official_words(text: str) -> list[str]:
    """Lower-cased, without ASCII punctuation, split at blanks, without articles.

    An article is a run of word characters; what is no word character, such as a guillemet, ends it.
    """
    letters = "".join(char for char in text.lower() if char not in string.punctuation)
    kept, run = [], ""
    for char in [*letters, " "]:
        if char.isalnum() or char == "_":
            run += char
            continue
        kept.append(" " if run in ("a", "an", "the") else run)
        kept.append(char)
        run = ""
    return "".join(kept).split()


def official_f1(prediction: str, reference: str, version_2: bool) -> float:
    given, wanted = official_words(prediction), official_words(reference)
    if version_2 and (not given or not wanted):
        return float(given == wanted)
    left, shared = list(wanted), 0
    for word in given:
        if word in left:
            left.remove(word)
            shared += 1
    if shared == 0:
        return 0.0
    precision, recall = shared / len(given), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def official_scores(data: Dataset, predictions: dict[str, str], version_2: bool):
    """F1 and exact match of each question."""
    for question in data.questions:
        references = [answer.text for answer in question.answers]
        if version_2:
            references = [text for text in references if official_words(text)] or [""]
        text = predictions[question.id]
        yield (
            max(official_f1(text, reference, version_2) for reference in references),
            max(float(official_words(text) == official_words(r)) for r in references),
        )


# Cases -------------------------------------------------------------------------------------------


def plausible(data: Dataset, seed: int) -> dict[str, str]:
    """Right answers, parts of them, more than them, other spans and nothing."""
    random = np.random.default_rng(seed)
    predictions = {}
    for question in data.questions:
        words = data.context(question).split()
        at, size = random.integers(len(words)), random.integers(1, 8)
        text = " ".join(words[at : at + size])
        if question.answers and random.random() < 0.6:
            reference = question.answers[random.integers(len(question.answers))].text
            text = random.choice([reference, f"the {reference}.", f"{reference} {text}",
                                  reference.split()[0], reference.upper()])  # fmt: skip
        predictions[question.id] = "" if random.random() < 0.2 else str(text)
    return predictions


PIECES = [
    *(
        "the",
        "a",
        "an",
        "The",
        "cat",
        "dog's",
        "U.S.",
        "caf\u00e9",
        "\u4e2d\u56fd",
        "1",
        "1,000",
        "",
    ),
    *("-", "--", ".", "!", " ", "  ", "\t", "\xa0", "\u2014", "\u00ab", "_", "'"),
    *("\u0130", "\ufb01", "\u01c5"),
]
STRINGS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join) | st.text(max_size=12)


def made_up(seed: int, count: int) -> tuple[Dataset, dict[str, str], dict[str, float]]:
    """Questions with odd answers, predictions of the same kind, and no-answer scores."""
    random = np.random.default_rng(seed)

    def text() -> str:
        return "".join(random.choice(PIECES, random.integers(0, 5)))

    questions, predictions = [], {}
    for number in range(count):
        answers = [text() for _ in range(random.integers(0, 4))]
        name = f"q{number}"
        questions.append(
            Question(name, "t", 0, "?", tuple(Answer(a, 0) for a in answers), not answers)
        )
        predictions[name] = random.choice([*answers, text(), ""])
    doubts = {name: float(random.normal()) for name in predictions}
    return Dataset("made up", ("context",), tuple(questions)), predictions, doubts


def check(data: Dataset, predictions: dict[str, str], version_2: bool) -> None:
    ours = score(data, predictions, version_2=version_2)
    wanted = np.array(list(official_scores(data, predictions, version_2))).mean(axis=0) * 100
    assert ours.total == len(data)
    assert ours.f1 == pytest.approx(wanted[0], abs=LIMIT)
    assert ours.exact_match == pytest.approx(wanted[1], abs=LIMIT)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", ["train-v1.1", "dev-v1.1", "dev-v2.0"])
def test_real_data(squad_folder, name, seed):
    data = read_squad(squad_folder / f"{name}.json")
    check(data, plausible(data, seed), data.has_impossible)


@settings(max_examples=3000, deadline=None, derandomize=True)
@given(STRINGS, STRINGS)
def test_strings(prediction, reference):
    assert normalize_answer(prediction) == " ".join(official_words(prediction))
    same = official_words(prediction) == official_words(reference)
    assert exact_match(prediction, reference) == float(same)
    for version_2 in (False, True):
        wanted = official_f1(prediction, reference, version_2)
        assert abs(f1(prediction, reference, version_2=version_2) - wanted) <= LIMIT


@pytest.mark.parametrize("seed", range(20))
def test_made_up_questions(seed):
    data, predictions, _ = made_up(seed, 200)
    check(data, predictions, version_2=True)
    answered = data.subset([i for i, q in enumerate(data.questions) if q.answers])
    check(answered, predictions, version_2=False)


# Packages ----------------------------------------------------------------------------------------


def test_torchmetrics(squad_folder):
    torchmetrics = pytest.importorskip("torchmetrics.functional.text", reason="not installed")
    real = read_squad(squad_folder / "dev-v1.1.json")
    odd, odd_predictions, _ = made_up(5, 1000)
    odd = odd.subset([i for i, q in enumerate(odd.questions) if q.answers])
    for data, predictions in [(real, plausible(real, 4)), (odd, odd_predictions)]:
        given = [{"id": q.id, "prediction_text": predictions[q.id]} for q in data.questions]
        wanted = [
            {
                "id": q.id,
                "answers": {
                    "text": [a.text for a in q.answers],
                    "answer_start": [a.start for a in q.answers],
                },
            }
            for q in data.questions
        ]
        theirs = torchmetrics.squad(given, wanted)
        # It adds up in float32, so it is no closer than that; and where a text holds no words it
        # takes v2.0's rule, though v1.1's script gives 0.
        best = [
            max(f1(predictions[q.id], a.text, version_2=True) for a in q.answers)
            for q in data.questions
        ]
        assert 100 * np.mean(best) == pytest.approx(float(theirs["f1"]), rel=2e-5)
        ours = score(data, predictions, version_2=False)
        assert ours.exact_match == pytest.approx(float(theirs["exact_match"]), rel=2e-5)


@pytest.mark.parametrize("name", ["dev-v2.0", "made up"])
def test_transformers_4(squad_folder, tmp_path, name):
    if name == "dev-v2.0":
        file = squad_folder / "dev-v2.0.json"
        data = read_squad(file)
        predictions = plausible(data, 6)
        random = np.random.default_rng(7)
        doubts = {q.id: float(random.normal(1.0 * q.is_impossible)) for q in data.questions}
    else:
        file = tmp_path / "made_up.json"
        data, predictions, doubts = made_up(8, 3000)
        file.write_text(json.dumps(nested(data)))
    theirs = run_transformers_4(
        {
            "file": str(file),
            "version_2": True,
            "training": False,
            "predictions": predictions,
            "no_answer_scores": doubts,
        },
        tmp_path,
    )
    ours = score(data, predictions, version_2=True, no_answer_scores=doubts)
    assert ours.total == theirs["total"]
    for mine, wanted in {
        ours.f1: theirs["f1"],
        ours.exact_match: theirs["exact"],
        ours.has_answer_f1: theirs["HasAns_f1"],
        ours.has_answer_exact_match: theirs["HasAns_exact"],
        ours.no_answer_f1: theirs["NoAns_f1"],
        ours.no_answer_exact_match: theirs["NoAns_exact"],
        ours.best.f1: theirs["best_f1"],
        ours.best.f1_threshold: theirs["best_f1_thresh"],
        ours.best.exact_match: theirs["best_exact"],
        ours.best.exact_match_threshold: theirs["best_exact_thresh"],
    }.items():
        assert mine == pytest.approx(wanted, abs=LIMIT)


def nested(data: Dataset) -> dict:
    asked = [
        {
            "id": q.id,
            "question": q.question,
            "is_impossible": q.is_impossible,
            "answers": [{"text": a.text, "answer_start": a.start} for a in q.answers],
        }
        for q in data.questions
    ]
    return {"data": [{"title": "t", "paragraphs": [{"context": "context", "qas": asked}]}]}
