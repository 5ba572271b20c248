"""From a model's logits to the best answer of each question.

The rules are those of google-research/bert's ``run_squad.py`` (Devlin et al., 2018) and
`transformers`' SQuAD metrics: of the 20 best first and last tokens of each feature, every pair
that is a span of the paragraph, begins where its window shows most context and is not too long,
is a candidate; a question's best candidate over its features is the answer. The text of an answer
is the characters of the paragraph from its first token to its last, just as they are written.

Candidates are found for a whole batch at once: `find_candidates` for each batch, `Candidates.join`,
then `choose_answers`. `best_answers` does all three.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import combining

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bertkit.squad.batches import PADDING, evaluation_batches
from bertkit.squad.dataset import Dataset
from bertkit.squad.features import Features, Longs

Doubles = NDArray[np.float64]

NO_CHARACTER = -1  # where an answer of no text begins and ends


@dataclass(frozen=True)
class Candidate:
    """One of a question's best answers.

    Args:
        text: Its text; empty for "no answer".
        start_char, end_char: Its characters in the paragraph, the end excluded; ``NO_CHARACTER``
            for "no answer".
        probability: Its share in the softmax over the question's best answers.
        start_logit, end_logit: Logits of its first and last token.
    """

    text: str
    start_char: int
    end_char: int
    probability: float
    start_logit: float
    end_logit: float

    def to_dict(self) -> dict[str, Any]:
        """Every name and value, ready for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Prediction:
    """The answer to one question.

    Args:
        text: Its text; empty where there is no answer.
        start_char, end_char: Its characters in the paragraph, the end excluded; ``NO_CHARACTER``
            where there is no answer.
        score: Its probability among the question's best answers, from 0 to 1.
        null_score_difference: Score of "no answer" less that of the best span, in logits; 0 where
            "no answer" was not asked for.
        n_best: The best answers, best first.
    """

    text: str
    start_char: int
    end_char: int
    score: float
    null_score_difference: float
    n_best: list[Candidate]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Possible answers of many features, flat.

    Args:
        feature: Feature of each candidate, int64 ``[candidates]``.
        start, end: Position of its first and last token, int64 ``[candidates]``.
        start_logit, end_logit: Their logits, float64 ``[candidates]``.
        null_feature: Every feature that was looked at, int64 ``[features]``.
        null_start_logit, null_end_logit: Logits of its ``[CLS]``, float64 ``[features]``.
    """

    feature: Longs
    start: Longs
    end: Longs
    start_logit: Doubles
    end_logit: Doubles
    null_feature: Longs
    null_start_logit: Doubles
    null_end_logit: Doubles

    @classmethod
    def join(cls, parts: Sequence[Candidates]) -> Candidates:
        """Put the candidates of several batches together; there must be at least one."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*map(_arrays, parts), strict=True)))


def best_answers(
    features: Features,
    dataset: Dataset,
    start_logits: Sequence[ArrayLike],
    end_logits: Sequence[ArrayLike],
    *,
    max_answer_length: int,
    n_best_size: int = 20,
    null_score_diff_threshold: float = 0.0,
    version_2: bool,
    feature_indices: Sequence[int] | Longs | None = None,
) -> dict[str, Prediction]:
    """Find the answer to every question.

    Args:
        features: The features of ``dataset``.
        dataset: The questions.
        start_logits: For each feature the logit of each token being the first, float32
            ``[tokens]``; more than the feature's tokens are ignored.
        end_logits: The same for the last token.
        max_answer_length: Longest answer, in tokens.
        n_best_size: First and last tokens tried for a feature, and answers kept for a question.
        null_score_diff_threshold: Answer nothing where "no answer" scores higher than the best
            span by more than this, in logits.
        version_2: Whether there may be no answer, as in SQuAD 2.0.
        feature_indices: Features that the logits are of, where not all; then only their
            questions are answered. They must be all the features of these questions.

    Returns:
        Prediction by question id. A question without any possible span has an empty text.

    Example:
        >>> answers = best_answers(features, dataset, start_logits, end_logits,
        ...                        max_answer_length=30, version_2=False)   # doctest: +SKIP
        >>> answers["56be4db0acb8001400a502ec"].text                        # doctest: +SKIP
        'Denver Broncos'
    """
    indices = np.arange(len(features)) if feature_indices is None else np.asarray(feature_indices)
    place = np.full(len(features), -1)
    place[indices] = np.arange(len(indices))
    longest = int(features.lengths.max(initial=1))
    parts = []
    for batch in evaluation_batches(features.lengths, indices=indices, max_seq_length=longest):
        real = batch.indices[batch.indices != PADDING]
        rows = place[real]
        parts.append(
            find_candidates(
                features,
                real,
                _stack([start_logits[row] for row in rows], batch.length),
                _stack([end_logits[row] for row in rows], batch.length),
                max_answer_length=max_answer_length,
                n_best_size=n_best_size,
            )
        )
    questions = range(len(dataset)) if feature_indices is None else None
    return choose_answers(
        features,
        dataset,
        Candidates.join(parts) if parts else _no_candidates(),
        n_best_size=n_best_size,
        null_score_diff_threshold=null_score_diff_threshold,
        version_2=version_2,
        questions=questions,
    )


def find_candidates(
    features: Features,
    indices: ArrayLike,
    start_logits: ArrayLike,
    end_logits: ArrayLike,
    *,
    max_answer_length: int,
    n_best_size: int = 20,
) -> Candidates:
    """Find the possible answers of a batch of features.

    Args:
        features: All features.
        indices: Those of the batch, ``[B]``; rows of padding examples (-1) are left out.
        start_logits: Logits of each token being the first of the answer, ``[B, S]``.
        end_logits: The same for the last token, ``[B, S]``.
        max_answer_length: Longest answer, in tokens.
        n_best_size: First and last tokens tried for a feature.
    """
    rows = np.asarray(indices, np.int64)
    real = rows != PADDING
    rows = rows[real]
    starts, ends = (np.asarray(logits)[real] for logits in (start_logits, end_logits))
    lengths = features.lengths[rows][:, None]
    start = _best_positions(starts, lengths, n_best_size)
    end = _best_positions(ends, lengths, n_best_size)
    first, last = features.question_lengths[rows][:, None], lengths - 1  # of the paragraph
    token = features.offsets[rows][:, None] + np.minimum(start, last)
    good_start = (start >= first) & (start < last) & features.is_max_context[token]
    good_end = (end >= first) & (end < last)
    span = end[:, None, :] - start[:, :, None] + 1
    possible = (span >= 1) & (span <= max_answer_length)
    possible &= good_start[:, :, None] & good_end[:, None, :]
    row, which_start, which_end = np.nonzero(possible)  # in the order that settles equal scores
    start, end = start[row, which_start], end[row, which_end]
    return Candidates(
        feature=rows[row],
        start=start,
        end=end,
        start_logit=starts[row, start].astype(np.float64),
        end_logit=ends[row, end].astype(np.float64),
        null_feature=rows,
        null_start_logit=starts[:, 0].astype(np.float64),
        null_end_logit=ends[:, 0].astype(np.float64),
    )


def choose_answers(
    features: Features,
    dataset: Dataset,
    candidates: Candidates,
    *,
    n_best_size: int = 20,
    null_score_diff_threshold: float = 0.0,
    version_2: bool,
    questions: Iterable[int] | None = None,
) -> dict[str, Prediction]:
    """Choose the answer of each question among the candidates of its features.

    Args:
        features: All features of ``dataset``.
        dataset: The questions.
        candidates: From `find_candidates`, of all features of the questions to answer.
        n_best_size: Answers kept for a question.
        null_score_diff_threshold: As in `best_answers`.
        version_2: As in `best_answers`.
        questions: Indices of the questions to answer; by default those of the features that the
            candidates were looked for in.
    """
    c, question = _in_order(features, candidates)
    token = features.offsets[c.feature]
    spans = _Spans(
        start_char=features.char_starts[token + c.start].tolist(),
        end_char=features.char_ends[token + c.end].tolist(),
        start_logit=c.start_logit.tolist(),
        end_logit=c.end_logit.tolist(),
    )
    seen = features.question_index[candidates.null_feature]
    asked = np.unique(seen) if questions is None else np.fromiter(questions, np.int64)
    first = np.searchsorted(question, asked, side="left").tolist()
    last = np.searchsorted(question, asked, side="right").tolist()
    nulls = _null_scores(seen, candidates) if version_2 else {}
    answers = {}
    for index, begin, end in zip(asked.tolist(), first, last, strict=True):
        asked_question = dataset.questions[index]
        best = _n_best(
            dataset.context(asked_question),
            spans,
            range(begin, end),
            nulls.get(index, (0.0, 0.0)) if version_2 else None,
            n_best_size,
        )
        answers[asked_question.id] = _predict(best, null_score_diff_threshold, version_2)
    return answers


def _arrays(candidates: Candidates) -> list[NDArray[Any]]:
    return list(vars(candidates).values())


def _no_candidates() -> Candidates:
    longs, doubles = np.empty(0, np.int64), np.empty(0, np.float64)
    return Candidates(longs, longs, longs, doubles, doubles, longs, doubles, doubles)


def _stack(logits: Sequence[ArrayLike], length: int) -> NDArray[np.float32]:
    """Logits of features of different lengths as one array, ``[B, length]``."""
    stacked = np.full((len(logits), length), -np.inf, np.float32)
    for row, values in zip(stacked, logits, strict=True):
        part = np.asarray(values)[:length]
        row[: len(part)] = part
    return stacked


def _best_positions(logits: NDArray[Any], lengths: Longs, n_best_size: int) -> Longs:
    """Positions of the largest logits within each length, largest first, ``[B, n]``.

    Of equal logits the first counts more. Padding comes last and is no possible answer.
    """
    masked = np.where(np.arange(logits.shape[1]) < lengths, logits, -np.inf)
    return np.argsort(-masked, axis=1, kind="stable")[:, :n_best_size]


def _in_order(features: Features, candidates: Candidates) -> tuple[Candidates, Longs]:
    """Sort candidates by question, then score, then feature, then as they were found."""
    c = candidates
    question = features.question_index[c.feature].astype(np.int64)
    order = np.lexsort((c.feature, -(c.start_logit + c.end_logit), question))  # is stable
    in_order = Candidates(
        c.feature[order],
        c.start[order],
        c.end[order],
        c.start_logit[order],
        c.end_logit[order],
        c.null_feature,
        c.null_start_logit,
        c.null_end_logit,
    )
    return in_order, question[order]


def _null_scores(question: NDArray[Any], candidates: Candidates) -> dict[int, tuple[float, float]]:
    """For each question the [CLS] logits of the feature that is least for "no answer"."""
    c = candidates
    order = np.lexsort((c.null_feature, c.null_start_logit + c.null_end_logit, question))
    numbers, first = np.unique(question[order], return_index=True)
    least = order[first]
    logits = zip(c.null_start_logit[least].tolist(), c.null_end_logit[least].tolist(), strict=True)
    return dict(zip(numbers.tolist(), logits, strict=True))


@dataclass(frozen=True)
class _Spans:
    """Candidates as lists, which a loop over questions reads faster than arrays."""

    start_char: list[int]
    end_char: list[int]
    start_logit: list[float]
    end_logit: list[float]


@dataclass(frozen=True)
class _NBest:
    """A question's best answers, with "no answer" among them where that was asked for."""

    candidates: list[Candidate]
    null_score: float


def _n_best(
    context: str,
    spans: _Spans,
    among: range,
    null: tuple[float, float] | None,
    n_best_size: int,
) -> _NBest:
    """The best answers of different text, of candidates that are in order."""
    found: dict[str, tuple[int, int, float, float]] = {}
    waiting = null
    for i in among:
        if len(found) >= n_best_size:
            break
        if waiting and sum(waiting) > spans.start_logit[i] + spans.end_logit[i]:
            found[""] = (NO_CHARACTER, NO_CHARACTER, *waiting)
            waiting = None
            if len(found) >= n_best_size:
                break
        start, end = spans.start_char[i], _with_accents(context, spans.end_char[i])
        text = context[start:end]
        if text and text not in found:
            found[text] = (start, end, spans.start_logit[i], spans.end_logit[i])
    if waiting:
        found[""] = (NO_CHARACTER, NO_CHARACTER, *waiting)
    return _NBest(_with_probabilities(found), sum(null) if null else 0.0)


def _with_accents(context: str, end: int) -> int:
    """The end of an answer, moved behind accents that are characters of their own."""
    while end < len(context) and context[end] > "\u02ff" and combining(context[end]):
        end += 1
    return end


def _with_probabilities(
    found: Mapping[str, tuple[int, int, float, float]],
) -> list[Candidate]:
    scores = [start_logit + end_logit for _, _, start_logit, end_logit in found.values()]
    highest = max(scores, default=0.0)
    shares = [math.exp(score - highest) for score in scores]
    total = sum(shares)
    return [
        Candidate(text, start, end, share / total, start_logit, end_logit)
        for (text, (start, end, start_logit, end_logit)), share in zip(
            found.items(), shares, strict=True
        )
    ]


def _predict(best: _NBest, threshold: float, version_2: bool) -> Prediction:
    spans = [candidate for candidate in best.candidates if candidate.text]
    nothing = [candidate for candidate in best.candidates if not candidate.text]
    difference = 0.0
    if version_2 and spans:
        difference = best.null_score - spans[0].start_logit - spans[0].end_logit
    if spans and not (version_2 and difference > threshold):
        chosen = spans[0]
    elif nothing:
        chosen = nothing[0]
    else:
        chosen = Candidate("", NO_CHARACTER, NO_CHARACTER, 0.0, 0.0, 0.0)
    return Prediction(
        chosen.text,
        chosen.start_char,
        chosen.end_char,
        chosen.probability,
        difference,
        best.candidates,
    )
