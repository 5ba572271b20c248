import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.errors import DataError
from bertkit.squad.dataset import Answer, Dataset, Question
from bertkit.squad.scoring import exact_match, f1, normalize_answer, question_scores, score


def dataset(*rows):
    """Rows of id and reference answers; ``None`` for an impossible question."""
    questions = tuple(
        Question(name, "t", 0, "?", tuple(Answer(text, 0) for text in texts or ()), texts is None)
        for name, texts in rows
    )
    return Dataset("d", ("context",), questions)


TWO = dataset(("a", ["the cat", "a black cat"]), ("b", ["1066"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat!", "cat"),
        ("an apple, a day\tand the rest", "apple day and rest"),
        ("anthem", "anthem"),
        ("a", ""),
        ("", ""),
        ("U.S.A.", "usa"),
        ("\u00abCaf\u00e9\u00bb", "\u00abcaf\u00e9\u00bb"),  # only ASCII punctuation is dropped
        ("the-end", "theend"),
    ],
)
def test_normalize_answer(text, expected):
    assert normalize_answer(text) == expected


def test_best_reference_counts():
    found = score(TWO, {"a": "black cat", "b": "in 1066"})
    assert found.exact_match == 50
    assert found.f1 == pytest.approx((1 + 2 / 3) / 2 * 100)
    assert (found.total, found.has_answer_total, found.no_answer_total) == (2, 2, 0)
    assert found.no_answer_f1 is None


def test_missing_prediction_scores_nothing():
    assert score(TWO, {"a": "cat"}).exact_match == 50
    assert score(TWO, {}).f1 == 0


def test_empty_texts_differ_between_the_versions():
    assert f1("the", "a") == 0
    assert f1("the", "a", version_2=True) == 1
    assert f1("cat", "a", version_2=True) == 0
    assert exact_match("the", "a") == 1


def test_no_answer():
    data = dataset(("a", ["cat"]), ("b", None), ("c", None))
    found = score(data, {"a": "cat", "b": "", "c": "dog"})
    assert found.f1 == pytest.approx(200 / 3)
    assert (found.has_answer_f1, found.no_answer_f1) == (100, 50)
    assert (found.has_answer_total, found.no_answer_total) == (1, 2)


def test_best_threshold():
    data = dataset(("a", ["cat"]), ("b", None), ("c", ["dog"]))
    predictions = {"a": "cat", "b": "bird", "c": "dog house"}
    doubts = {"a": -5.0, "b": 1.0, "c": 0.5}
    best = score(data, predictions, no_answer_scores=doubts).best
    assert (best.exact_match, best.exact_match_threshold) == (pytest.approx(200 / 3), -5.0)
    assert (best.f1, best.f1_threshold) == (pytest.approx((2 + 2 / 3) / 3 * 100), 0.5)


def test_no_answer_score_missing():
    data = dataset(("a", ["cat"]), ("b", None))
    with pytest.raises(DataError, match="question 'b' has no no-answer score"):
        score(data, {}, no_answer_scores={"a": 0.0})


def test_nothing_to_score_against():
    with pytest.raises(DataError, match="d: holds no reference answer"):
        score(dataset(("a", [])), {"a": "x"})


def test_questions_without_references_are_not_scored():
    assert score(dataset(("a", []), ("b", ["x"])), {"a": "x", "b": "x"}).total == 1


@given(
    st.dictionaries(st.text(max_size=3), st.text(max_size=8), max_size=9),
    st.lists(st.lists(st.text(max_size=8), min_size=1, max_size=3), min_size=1, max_size=9),
    st.integers(1, 4),
)
def test_sums_over_shards_are_the_whole(predictions, references, shards):
    data = dataset(*((str(i), texts) for i, texts in enumerate(references)))
    whole = score(data, predictions)
    parts = [
        question_scores(data, predictions, questions=range(i, len(data), shards))
        for i in range(shards)
    ]
    count = sum(len(part.index) for part in parts)
    assert count == whole.total
    assert 100 * sum(p.f1.sum() for p in parts) / count == pytest.approx(whole.f1, abs=1e-9)
    exact = sum(p.exact_match.sum() for p in parts)
    assert 100 * exact / count == pytest.approx(whole.exact_match, abs=1e-9)


@given(st.text(max_size=30), st.text(max_size=30))
def test_scores_are_between_0_and_1_and_symmetric(one, other):
    assert 0 <= f1(one, other) <= 1
    assert f1(one, other) == f1(other, one)
    assert f1(one, one) == float(bool(normalize_answer(one)))
    assert exact_match(one, other) <= 1


def test_index_of_question_scores():
    each = question_scores(TWO, {"b": "1066"}, questions=[1])
    assert each.index.tolist() == [1]
    assert np.array_equal(each.exact_match, [1.0])
