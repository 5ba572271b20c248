"""Scores answers by the official rules of SQuAD v1.1 and v2.0.

Both scripts compare answers without case, punctuation, articles and extra blanks. A question's
score is the best over its reference answers: exact match (1 or 0), and F1 over the words that the
answers share (Rajpurkar et al., 2016 and 2018).

Named differences from the scripts: a question without a prediction scores 0 and counts, in v2.0
too, whose script leaves it out; a question without any reference answer that is not marked
impossible is not scored.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertkit.errors import DataError
from bertkit.squad.dataset import Dataset, Question

Doubles = NDArray[np.float64]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, kw_only=True)
class BestThreshold:
    """The score that the best threshold for "no answer" would give.

    Args:
        f1, exact_match: Highest scores over all thresholds, in percent.
        f1_threshold, exact_match_threshold: The thresholds that give them: "no answer" where a
            question's no-answer score is higher.
    """

    f1: float
    f1_threshold: float
    exact_match: float
    exact_match_threshold: float


@dataclass(frozen=True, kw_only=True)
class Score:
    """Scores of a set of predictions, in percent.

    Args:
        f1, exact_match: Means over all scored questions.
        total: Number of scored questions.
        has_answer_f1, has_answer_exact_match, has_answer_total: The same over questions that have
            an answer; ``None`` and 0 where there are none.
        no_answer_f1, no_answer_exact_match, no_answer_total: The same over impossible questions.
        best: What the best threshold for "no answer" would give, where no-answer scores were
            handed in.
    """

    f1: float
    exact_match: float
    total: int
    has_answer_f1: float | None = None
    has_answer_exact_match: float | None = None
    has_answer_total: int = 0
    no_answer_f1: float | None = None
    no_answer_exact_match: float | None = None
    no_answer_total: int = 0
    best: BestThreshold | None = None

    def to_dict(self) -> dict[str, Any]:
        """Every name and value, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class QuestionScores:
    """Scores of single questions, from 0 to 1; sums over shards of them add up.

    Args:
        index: Index of each scored question in its dataset, int64 ``[questions]``.
        f1, exact_match: float64 ``[questions]``.
    """

    index: NDArray[np.int64]
    f1: Doubles
    exact_match: Doubles


def score(
    dataset: Dataset,
    predictions: Mapping[str, str],
    *,
    version_2: bool | None = None,
    no_answer_scores: Mapping[str, float] | None = None,
) -> Score:
    """Score predictions of all questions.

    Args:
        dataset: Questions with reference answers.
        predictions: Text of the answer by question id; empty for "no answer".
        version_2: Rules of v2.0 instead of v1.1; by default where a question is impossible.
        no_answer_scores: How much each question seems to have no answer, by question id, such as
            `Prediction.null_score_difference`; then the best threshold is looked for.

    Raises:
        DataError: If no question has a reference answer.

    Example:
        >>> from bertkit.squad.dataset import Answer, Question
        >>> question = Question("q", "", 0, "Who won?", (Answer("the Normans", 0),))
        >>> dataset = Dataset("example", ("the Normans won",), (question,))
        >>> score(dataset, {"q": "Normans!"}).exact_match
        100.0
    """
    rules_2 = dataset.has_impossible if version_2 is None else version_2
    each = question_scores(dataset, predictions, version_2=rules_2)
    if not len(each.index):
        raise DataError(f"{dataset.name}: holds no reference answer to score against")
    answerable = np.array([bool(dataset.questions[i].answers) for i in each.index])
    has, no = _part(each, answerable), _part(each, ~answerable)
    return Score(
        f1=_percent(each.f1),
        exact_match=_percent(each.exact_match),
        total=len(each.index),
        has_answer_f1=_percent(has.f1) if len(has.index) else None,
        has_answer_exact_match=_percent(has.exact_match) if len(has.index) else None,
        has_answer_total=len(has.index),
        no_answer_f1=_percent(no.f1) if len(no.index) else None,
        no_answer_exact_match=_percent(no.exact_match) if len(no.index) else None,
        no_answer_total=len(no.index),
        best=(
            _best_threshold(dataset, predictions, each, answerable, no_answer_scores)
            if no_answer_scores is not None
            else None
        ),
    )


def question_scores(
    dataset: Dataset,
    predictions: Mapping[str, str],
    *,
    version_2: bool | None = None,
    questions: Iterable[int] | None = None,
) -> QuestionScores:
    """Score each question by itself.

    Args:
        dataset: Questions with reference answers.
        predictions: Text of the answer by question id; empty for "no answer".
        version_2: As in `score`.
        questions: Indices of the questions to score; all by default.
    """
    rules_2 = dataset.has_impossible if version_2 is None else version_2
    chosen = range(len(dataset)) if questions is None else [int(i) for i in questions]
    rows = [
        (i, *_score_question(dataset.questions[i], predictions, rules_2))
        for i in chosen
        if _is_scored(dataset.questions[i], rules_2)
    ]
    values = np.array(rows, np.float64).reshape(-1, 3)
    return QuestionScores(values[:, 0].astype(np.int64), values[:, 1], values[:, 2])


def normalize_answer(text: str) -> str:
    """Lower the case; drop punctuation, articles and extra blanks.

    Example:
        >>> normalize_answer("The  Eiffel Tower!")
        'eiffel tower'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(prediction: str, reference: str) -> float:
    """1 where both texts are the same after `normalize_answer`, else 0.

    Example:
        >>> exact_match("the Normans", "Normans.")
        1.0
    """
    return float(normalize_answer(prediction) == normalize_answer(reference))


def f1(prediction: str, reference: str, *, version_2: bool = False) -> float:
    """F1 over the words that two texts share, after `normalize_answer`.

    Args:
        prediction: The predicted answer.
        reference: The reference answer.
        version_2: Where a text holds no words, compare the texts: v1.1 always gives 0.

    Example:
        >>> f1("tall Eiffel Tower", "the Eiffel Tower")
        0.8
    """
    return _f1(normalize_answer(prediction).split(), normalize_answer(reference).split(), version_2)


def _is_scored(question: Question, version_2: bool) -> bool:
    return bool(question.answers) or (version_2 and question.is_impossible)


def _score_question(
    question: Question, predictions: Mapping[str, str], version_2: bool
) -> tuple[float, float]:
    """F1 and exact match of one question."""
    if question.id not in predictions:
        return 0.0, 0.0
    predicted = normalize_answer(predictions[question.id])
    references = [normalize_answer(answer.text) for answer in question.answers]
    if version_2:
        references = [reference for reference in references if reference] or [""]
    words = predicted.split()
    return (
        max(_f1(words, reference.split(), version_2) for reference in references),
        float(predicted in references),
    )


def _f1(predicted: Sequence[str], reference: Sequence[str], version_2: bool) -> float:
    if version_2 and not (predicted and reference):
        return float(predicted == reference)
    shared = (Counter(predicted) & Counter(reference)).total()
    if not shared:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(reference)
    return 2 * precision * recall / (precision + recall)


def _part(scores: QuestionScores, chosen: NDArray[np.bool_]) -> QuestionScores:
    return QuestionScores(scores.index[chosen], scores.f1[chosen], scores.exact_match[chosen])


def _percent(values: Doubles) -> float:
    return 100.0 * float(values.sum()) / len(values)


def _best_threshold(
    dataset: Dataset,
    predictions: Mapping[str, str],
    each: QuestionScores,
    answerable: NDArray[np.bool_],
    no_answer_scores: Mapping[str, float],
) -> BestThreshold:
    """Raise the threshold from below all scores and see what each further answer brings."""
    ids = [dataset.questions[i].id for i in each.index]
    missing = next((name for name in ids if name not in no_answer_scores), None)
    if missing is not None:
        raise DataError(
            f"{dataset.name}: question {missing!r} has no no-answer score; expected one for each"
        )
    threshold = np.array([no_answer_scores[name] for name in ids])
    answered = np.array([bool(predictions.get(name)) for name in ids])
    best_f1 = _best_over(threshold, each.f1, answerable, answered)
    best_exact = _best_over(threshold, each.exact_match, answerable, answered)
    return BestThreshold(
        f1=best_f1[0],
        f1_threshold=best_f1[1],
        exact_match=best_exact[0],
        exact_match_threshold=best_exact[1],
    )


def _best_over(
    threshold: Doubles,
    scores: Doubles,
    answerable: NDArray[np.bool_],
    answered: NDArray[np.bool_],
) -> tuple[float, float]:
    """Highest score in percent, and the least threshold that gives it.

    With "no answer" everywhere, each impossible question scores 1. Answering an answerable question
    adds its score; answering an impossible one takes 1 away.
    """
    gains = np.where(answerable, scores, np.where(answered, -1.0, 0.0))
    order = np.argsort(threshold, kind="stable")
    totals = float((~answerable).sum()) + np.concatenate([[0.0], np.cumsum(gains[order])])
    best = int(totals.argmax())
    return (
        100.0 * float(totals[best]) / len(scores),
        float(threshold[order[best - 1]]) if best else 0.0,
    )
