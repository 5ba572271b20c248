"""Turns questions and paragraphs into what a BERT reads: ``[CLS] question [SEP] window [SEP]``.

The rules are those of google-research/bert's ``run_squad.py`` (Devlin et al., 2018): questions are
cut, a paragraph that does not fit is read through overlapping windows, each of its tokens belongs
to the window that shows most around it, and an answer is the tokens that spell it.

Everything is kept in flat arrays, one behind the other, without padding. Each distinct paragraph is
tokenized once, and features are put together with whole-array operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from bertkit.errors import DataError
from bertkit.squad.dataset import Dataset, Question
from bertkit.squad.tokenization import SpecialIds, special_ids

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Flags = NDArray[np.bool_]
OnProgress = Callable[[int, int], None]

_TEXTS_AT_ONCE = 1024
_FEATURES_AT_ONCE = 8192
_WORD_BREAKS = " \t\r\n\u202f"  # what run_squad.py splits a paragraph at


@dataclass(frozen=True, eq=False)
class Features:
    """What a model reads about each question, in flat arrays.

    Feature ``i`` is the tokens from ``offsets[i]`` to ``offsets[i + 1]``. Positions count from its
    ``[CLS]``, which is 0.

    Args:
        input_ids: Token ids, int32 ``[tokens]``.
        offsets: Where each feature begins, and the end of the last, int64 ``[features + 1]``.
        question_lengths: Position of the first token of the paragraph, int32 ``[features]``.
        question_index: Index of the question in its dataset, int32 ``[features]``.
        start_positions, end_positions: First and last token of the answer, int32 ``[features]``;
            0 where the window does not hold it, there is none, or it was not looked for.
        char_starts, char_ends: Characters of the paragraph that a token stands for, int32
            ``[tokens]``; -1 for tokens that are not the paragraph's.
        is_max_context: Whether no other window shows more around the token, bool ``[tokens]``;
            false for tokens that are not the paragraph's.
    """

    input_ids: Ints
    offsets: Longs
    question_lengths: Ints
    question_index: Ints
    start_positions: Ints
    end_positions: Ints
    char_starts: Ints
    char_ends: Ints
    is_max_context: Flags

    def __len__(self) -> int:
        return len(self.question_index)

    @cached_property
    def lengths(self) -> Longs:
        """Tokens of each feature, int64 ``[features]``."""
        return np.diff(self.offsets)

    def of_questions(self, question_indices: Iterable[int]) -> Longs:
        """Indices of the features that belong to some questions, in ascending order.

        Args:
            question_indices: Indices of questions in the dataset.
        """
        wanted = np.fromiter(question_indices, np.int64)
        return np.flatnonzero(np.isin(self.question_index, wanted))


def make_features(
    dataset: Dataset,
    tokenizer: Tokenizer,
    *,
    max_seq_length: int,
    doc_stride: int,
    max_query_length: int,
    training: bool,
    on_progress: OnProgress | None = None,
) -> Features:
    """Make the features of all questions, in the questions' order.

    Args:
        dataset: The questions.
        tokenizer: From `load_tokenizer`.
        max_seq_length: Longest feature, in tokens.
        doc_stride: Tokens from the beginning of one window to that of the next.
        max_query_length: Tokens of a question that are kept.
        training: Also find the answers' positions. Questions with no answer at its offset, unless
            marked impossible, then have no features.
        on_progress: Called with the number of texts tokenized and of all texts.

    Raises:
        ModelError: If the vocabulary lacks a special token.
        DataError: If a text is not valid Unicode.

    Example:
        >>> features = make_features(
        ...     dataset, tokenizer, max_seq_length=384, doc_stride=128, max_query_length=64,
        ...     training=False,
        ... )                                                       # doctest: +SKIP
        >>> len(features), features.lengths.max()                   # doctest: +SKIP
        (3044, 384)
    """
    answers = [_training_answer(q, dataset) for q in dataset.questions] if training else []
    progress = _Progress(len(dataset.contexts) + len(dataset) + len(answers), on_progress)
    contexts = _tokenize(tokenizer, dataset.contexts, progress)
    queries = _tokenize(tokenizer, [q.question for q in dataset.questions], progress)
    queries = queries.cut(max_query_length)
    context_index = np.array([q.context_index for q in dataset.questions], np.int64)
    windows = _make_windows(
        contexts.lengths[context_index], queries.lengths, max_seq_length, doc_stride
    )
    spans = np.full((len(dataset), 2), -1, np.int64)
    if training:
        spans = _answer_spans(dataset, contexts, tokenizer, answers, progress)
        windows = windows.keep(spans[:, 0] != _NOT_TRAINABLE)
    features = _lay_out(windows, queries, contexts, context_index, special_ids(tokenizer))
    _mark_max_context(features, windows)
    _mark_answers(features, windows, spans)
    return features


# Tokens ------------------------------------------------------------------------------------------


class _Progress:
    """Adds up what is done and tells it on."""

    def __init__(self, total: int, on_progress: OnProgress | None) -> None:
        self._done, self._total, self._on_progress = 0, total, on_progress

    def add(self, count: int) -> None:
        self._done += count
        if self._on_progress:
            self._on_progress(self._done, self._total)


@dataclass(frozen=True, eq=False)
class _Tokens:
    """Tokens of many texts, flat: those of text ``i`` are ``lengths[i]`` from ``offsets[i]`` on."""

    ids: Ints
    offsets: Longs
    lengths: Longs
    char_starts: Ints
    char_ends: Ints

    def cut(self, longest: int) -> _Tokens:
        lengths = np.minimum(self.lengths, longest)
        return _Tokens(self.ids, self.offsets, lengths, self.char_starts, self.char_ends)

    def part(self, text: int) -> slice:
        return slice(int(self.offsets[text]), int(self.offsets[text] + self.lengths[text]))


def _tokenize(tokenizer: Tokenizer, texts: Sequence[str], progress: _Progress) -> _Tokens:
    ids, chars, lengths = [np.empty(0, np.int32)], [np.empty((0, 2), np.int32)], []
    for first in range(0, len(texts), _TEXTS_AT_ONCE):
        encodings = _encode(tokenizer, texts[first : first + _TEXTS_AT_ONCE])
        lengths += [len(encoding) for encoding in encodings]
        ids.append(np.fromiter(chain.from_iterable(e.ids for e in encodings), np.int32))
        pairs = chain.from_iterable(chain.from_iterable(e.offsets for e in encodings))
        chars.append(np.fromiter(pairs, np.int32).reshape(-1, 2))
        progress.add(len(encodings))
    starts_and_ends = np.concatenate(chars)
    counts = np.array(lengths, np.int64)
    return _Tokens(
        np.concatenate(ids),
        np.cumsum(counts) - counts,
        counts,
        starts_and_ends[:, 0].copy(),
        starts_and_ends[:, 1].copy(),
    )


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
    try:
        return tokenizer.encode_batch(list(texts), add_special_tokens=False)
    except (TypeError, UnicodeEncodeError):
        wrong = next(text for text in texts if not _is_unicode(text))
        raise DataError(
            f"the text {wrong[:60]!a} holds half a surrogate pair; expected valid Unicode"
        ) from None


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


# Windows -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Windows:
    """The windows of all questions.

    Args:
        question: Index of the question of each window.
        start: Its first token of the paragraph.
        length: Its tokens of the paragraph.
        number: Its number among the windows of its question.
        count: Number of windows of its question.
    """

    question: Longs
    start: Longs
    length: Longs
    number: Longs
    count: Longs

    def keep(self, questions: Flags) -> _Windows:
        kept = questions[self.question]
        return _Windows(
            self.question[kept],
            self.start[kept],
            self.length[kept],
            self.number[kept],
            self.count[kept],
        )


def _make_windows(
    context_lengths: Longs, query_lengths: Longs, max_seq_length: int, doc_stride: int
) -> _Windows:
    room = max_seq_length - query_lengths - 3  # [CLS] and two [SEP]
    step = np.minimum(doc_stride, room)
    beyond = np.maximum(context_lengths - room, 0)
    counts = np.where(context_lengths == 0, 0, 1 + -(-beyond // step))
    question = np.repeat(np.arange(len(counts)), counts)
    number = _ranges(np.zeros_like(counts), counts)
    start = number * step[question]
    length = np.minimum(room[question], context_lengths[question] - start)
    return _Windows(question, start, length, number, counts[question])


def _ranges(starts: Longs, lengths: Longs) -> Longs:
    """``concatenate([arange(s, s + n) for s, n in zip(starts, lengths)])``, without the loop."""
    before = np.cumsum(lengths) - lengths
    numbers: Longs = np.arange(int(lengths.sum()), dtype=np.int64)
    numbers += np.repeat(starts - before, lengths)
    return numbers


# Putting together --------------------------------------------------------------------------------


def _lay_out(
    windows: _Windows,
    queries: _Tokens,
    contexts: _Tokens,
    context_index: Longs,
    special: SpecialIds,
) -> Features:
    """Write every feature's tokens behind each other."""
    query_lengths = queries.lengths[windows.question]
    offsets = np.zeros(len(windows.question) + 1, np.int64)
    np.cumsum(query_lengths + windows.length + 3, out=offsets[1:])
    total = int(offsets[-1])
    features = Features(
        input_ids=np.empty(total, np.int32),
        offsets=offsets,
        question_lengths=(query_lengths + 2).astype(np.int32),
        question_index=windows.question.astype(np.int32),
        start_positions=np.zeros(len(windows.question), np.int32),
        end_positions=np.zeros(len(windows.question), np.int32),
        char_starts=np.full(total, -1, np.int32),
        char_ends=np.full(total, -1, np.int32),
        is_max_context=np.zeros(total, np.bool_),
    )
    features.input_ids[offsets[:-1]] = special.cls
    features.input_ids[offsets[:-1] + query_lengths + 1] = special.sep
    features.input_ids[offsets[1:] - 1] = special.sep
    for part in _parts(len(features)):  # the index arrays of all features at once would be large
        question, begin = windows.question[part], offsets[:-1][part]
        to = _ranges(begin + 1, query_lengths[part])
        features.input_ids[to] = queries.ids[
            _ranges(queries.offsets[question], query_lengths[part])
        ]
        to = _ranges(begin + query_lengths[part] + 2, windows.length[part])
        first = contexts.offsets[context_index[question]] + windows.start[part]
        source = _ranges(first, windows.length[part])
        features.input_ids[to] = contexts.ids[source]
        features.char_starts[to] = contexts.char_starts[source]
        features.char_ends[to] = contexts.char_ends[source]
        features.is_max_context[to] = True
    return features


def _parts(total: int) -> Iterator[slice]:
    return (slice(i, i + _FEATURES_AT_ONCE) for i in range(0, total, _FEATURES_AT_ONCE))


def _mark_max_context(features: Features, windows: _Windows) -> None:
    """Leave each token to one window where several of a question show it.

    The one with the highest score has it: the smaller of the context on the left and on the right,
    plus a hundredth of the window's length; of equal scores the first, as in ``run_squad.py``.
    """
    shown = features.offsets[:-1] + features.question_lengths
    for first in np.flatnonzero((windows.number == 0) & (windows.count > 1)):
        group = range(first, first + windows.count[first])
        highest = np.full(windows.start[group[-1]] + windows.length[group[-1]], -np.inf)
        best = np.zeros(len(highest), np.int64)
        spans = [slice(windows.start[i], windows.start[i] + windows.length[i]) for i in group]
        for i, span in zip(group, spans, strict=True):
            score = _context_score(int(windows.length[i]))
            better = score > highest[span]
            highest[span][better] = score[better]
            best[span][better] = i
        for i, span in zip(group, spans, strict=True):
            features.is_max_context[shown[i] : shown[i] + windows.length[i]] = best[span] == i


def _context_score(length: int) -> NDArray[np.float64]:
    left = np.arange(length)
    return np.minimum(left, left[::-1]) + 0.01 * length


# Answers -----------------------------------------------------------------------------------------

_IMPOSSIBLE = -1
_NOT_TRAINABLE = -2


@dataclass(frozen=True)
class _CharSpan:
    """An answer's characters in its paragraph, without blanks at its ends."""

    start: int
    end: int
    text: str


def _training_answer(question: Question, dataset: Dataset) -> _CharSpan | None:
    """The first answer that is at its offset; ``None`` where there is none."""
    context = dataset.context(question)
    for answer in () if question.is_impossible else question.answers:
        if answer.start >= 0 and context.startswith(answer.text, answer.start):
            text = answer.text.strip()
            start = answer.start + answer.text.find(text)
            if text:
                return _CharSpan(start, start + len(text), text)
    return None


def _answer_spans(
    dataset: Dataset,
    contexts: _Tokens,
    tokenizer: Tokenizer,
    answers: Sequence[_CharSpan | None],
    progress: _Progress,
) -> Longs:
    """First and last token of each question's answer within its paragraph, ``[questions, 2]``."""
    texts = _tokenize(tokenizer, [answer.text if answer else "" for answer in answers], progress)
    spans = np.empty((len(dataset), 2), np.int64)
    for i, (question, answer) in enumerate(zip(dataset.questions, answers, strict=True)):
        if answer is None:
            spans[i] = _IMPOSSIBLE if question.is_impossible else _NOT_TRAINABLE
            continue
        part = contexts.part(question.context_index)
        spans[i] = _answer_span(
            answer,
            texts.ids[texts.part(i)],
            dataset.context(question),
            contexts.ids[part],
            contexts.char_starts[part],
            contexts.char_ends[part],
        )
    return spans


def _answer_span(
    answer: _CharSpan,
    answer_ids: Ints,
    context: str,
    context_ids: Ints,
    char_starts: Ints,
    char_ends: Ints,
) -> tuple[int, int]:
    """The tokens of an answer: of the words it touches, the first ones that spell it, or all."""
    word_start = 1 + max(context.rfind(char, 0, answer.start) for char in _WORD_BREAKS)
    breaks = (context.find(char, answer.end) for char in _WORD_BREAKS)
    word_end = min((at for at in breaks if at >= 0), default=len(context))
    first = int(np.searchsorted(char_ends, word_start, side="right"))
    last = int(np.searchsorted(char_starts, word_end, side="left")) - 1
    if not len(answer_ids) or first > last:
        return _NOT_TRAINABLE, _NOT_TRAINABLE
    words, wanted = context_ids[first : last + 1].tolist(), answer_ids.tolist()
    for start in range(len(words) - len(wanted) + 1):
        if words[start : start + len(wanted)] == wanted:
            return first + start, first + start + len(wanted) - 1
    return first, last


def _mark_answers(features: Features, windows: _Windows, spans: Longs) -> None:
    """Write the answers' positions into the windows that hold them whole."""
    first, last = spans[windows.question].T
    inside = (first >= windows.start) & (last < windows.start + windows.length)
    shift = features.question_lengths - windows.start
    features.start_positions[inside] = (first + shift)[inside]
    features.end_positions[inside] = (last + shift)[inside]
