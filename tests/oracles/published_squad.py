"""Features and answers by the published rules, one question and one token at a time.

Written from what google-research/bert's ``run_squad.py`` does (Devlin et al., 2018), in plain
Python: words at blanks, word pieces of each word, sliding windows, the window with most context for
each token, answers found among the pieces of their words; then the best pairs of first and last
tokens, and the text behind them by comparing characters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from bertkit.squad.dataset import Dataset, Question
from tests.oracles.published_tokenizer import PublishedTokenizer

BLANKS = " \t\r\n\u202f"


@dataclass(frozen=True)
class Paragraph:
    """Words of a paragraph, their pieces, and which word each piece is of."""

    words: list[str]
    word_of_char: list[int]
    pieces: list[str]
    word_of_piece: list[int]
    first_piece: list[int]


@dataclass(frozen=True)
class Feature:
    """One window: its tokens, and for each of its tokens of the paragraph what is known of it."""

    question: int
    tokens: list[str]
    segments: list[int]
    question_length: int
    word_of_token: dict[int, int]
    is_max_context: dict[int, bool]
    start: int
    end: int


@dataclass(frozen=True)
class Answer:
    """A possible answer: its window, first and last token, and their logits."""

    feature: int
    start: int
    end: int
    start_logit: float
    end_logit: float

    @property
    def score(self) -> float:
        return self.start_logit + self.end_logit


class PublishedRules:
    """The rules over one data set."""

    def __init__(self, dataset: Dataset, tokenizer: PublishedTokenizer) -> None:
        self.dataset = dataset
        self.tokenizer = tokenizer
        self.pieces_of = lru_cache(maxsize=None)(tokenizer.tokenize)
        self.paragraph = lru_cache(maxsize=None)(self._paragraph)

    # Features ------------------------------------------------------------------------------------

    def features(
        self, *, max_seq_length: int, doc_stride: int, max_query_length: int, training: bool
    ) -> list[Feature]:
        made = []
        for number, question in enumerate(self.dataset.questions):
            query = self.pieces_of(question.question)[:max_query_length]
            paragraph = self.paragraph(question.context_index)
            answer = None
            if training and not question.is_impossible:
                answer = self._answer_pieces(question, paragraph)
            windows = self._windows(
                len(paragraph.pieces), max_seq_length - len(query) - 3, doc_stride
            )
            for window in windows:
                made.append(self._feature(number, query, paragraph, windows, window, answer))
        return made

    def is_skipped(self, question: Question) -> bool:
        """Whether its words, joined by spaces, do not hold the answer, so it is not trained on."""
        paragraph, answer = self.paragraph(question.context_index), question.answers[0]
        first = paragraph.word_of_char[answer.start]
        last = paragraph.word_of_char[answer.start + len(answer.text) - 1]
        words = " ".join(paragraph.words[first : last + 1])
        return " ".join(answer.text.split()) not in words

    def _paragraph(self, context_index: int) -> Paragraph:
        words: list[str] = []
        word_of_char = []
        after_blank = True
        for char in self.dataset.contexts[context_index]:
            if char in BLANKS:
                after_blank = True
            elif after_blank:
                words.append(char)
                after_blank = False
            else:
                words[-1] += char
            word_of_char.append(len(words) - 1)
        pieces: list[str] = []
        word_of_piece, first_piece = [], []
        for number, word in enumerate(words):
            first_piece.append(len(pieces))
            pieces += self.pieces_of(word)
            word_of_piece += [number] * (len(pieces) - first_piece[-1])
        return Paragraph(words, word_of_char, pieces, word_of_piece, first_piece)

    def _answer_pieces(self, question: Question, paragraph: Paragraph) -> tuple[int, int]:
        answer = question.answers[0]
        first_word = paragraph.word_of_char[answer.start]
        last_word = paragraph.word_of_char[answer.start + len(answer.text) - 1]
        first = paragraph.first_piece[first_word]
        beyond = [*paragraph.first_piece, len(paragraph.pieces)][last_word + 1]
        wanted = self.pieces_of(answer.text)
        for start in range(first, beyond):
            for end in range(beyond, start, -1):
                if paragraph.pieces[start:end] == wanted:
                    return start, end - 1
        return first, beyond - 1

    @staticmethod
    def _windows(pieces: int, room: int, doc_stride: int) -> list[tuple[int, int]]:
        windows, start = [], 0
        while start < pieces:
            length = min(pieces - start, room)
            windows.append((start, length))
            if start + length == pieces:
                break
            start += min(length, doc_stride)
        return windows

    @staticmethod
    def _has_most_context(
        windows: list[tuple[int, int]], mine: tuple[int, int], piece: int
    ) -> bool:
        best, best_score = None, -math.inf
        for start, length in windows:
            last = start + length - 1
            if start <= piece <= last:
                score = min(piece - start, last - piece) + 0.01 * length
                if score > best_score:
                    best, best_score = (start, length), score
        return best == mine

    def _feature(
        self,
        number: int,
        query: list[str],
        paragraph: Paragraph,
        windows: list[tuple[int, int]],
        window: tuple[int, int],
        answer: tuple[int, int] | None,
    ) -> Feature:
        start, length = window
        first = len(query) + 2
        tokens = ["[CLS]", *query, "[SEP]", *paragraph.pieces[start : start + length], "[SEP]"]
        places = {first + i: start + i for i in range(length)}
        begin = end = 0
        if answer and start <= answer[0] and answer[1] < start + length:
            begin, end = answer[0] - start + first, answer[1] - start + first
        return Feature(
            question=number,
            tokens=tokens,
            segments=[0] * first + [1] * (length + 1),
            question_length=first,
            word_of_token={at: paragraph.word_of_piece[piece] for at, piece in places.items()},
            is_max_context={
                at: self._has_most_context(windows, window, piece) for at, piece in places.items()
            },
            start=begin,
            end=end,
        )

    # Answers -------------------------------------------------------------------------------------

    def n_best(
        self,
        features: dict[int, Feature],
        start_logits: Sequence[Sequence[float]],
        end_logits: Sequence[Sequence[float]],
        *,
        n_best_size: int,
        max_answer_length: int,
        version_2: bool,
        text_of: Callable[[Answer], str],
    ) -> tuple[dict[str, Answer], float]:
        """Best answers of one question by their text, and the score of "no answer"."""
        possible, null = [], Answer(-1, 0, 0, 0.0, 0.0)
        least = math.inf
        for number, feature in features.items():
            starts, ends = start_logits[number], end_logits[number]
            if starts[0] + ends[0] < least:
                least = starts[0] + ends[0]
                null = Answer(number, 0, 0, starts[0], ends[0])
            for start in best_places(starts, n_best_size):
                for end in best_places(ends, n_best_size):
                    if self._is_span(feature, start, end, max_answer_length):
                        possible.append(Answer(number, start, end, starts[start], ends[end]))
        if version_2:
            possible.append(null)
        possible.sort(key=lambda answer: answer.score, reverse=True)
        kept: dict[str, Answer] = {}
        for answer in possible:
            if len(kept) >= n_best_size:
                break
            kept.setdefault(text_of(answer) if answer.start else "", answer)
        if version_2:
            kept.setdefault("", null)
        return kept, null.score

    @staticmethod
    def _is_span(feature: Feature, start: int, end: int, max_answer_length: int) -> bool:
        return (
            start in feature.word_of_token
            and end in feature.word_of_token
            and feature.is_max_context[start]
            and start <= end < start + max_answer_length
        )

    def text(
        self, answer: Answer, feature: Feature, *, as_transformers: bool = False
    ) -> tuple[str, bool]:
        """The answer's text, and whether it had to be all of its words.

        `transformers` leaves the mark of an answer that begins inside a word, "##", where it is.
        """
        context_index = self.dataset.questions[feature.question].context_index
        first, last = feature.word_of_token[answer.start], feature.word_of_token[answer.end]
        words = " ".join(self.paragraph(context_index).words[first : last + 1])
        pieces = " ".join(feature.tokens[answer.start : answer.end + 1])
        joined = pieces.replace(" ##", "")
        spelled = " ".join((joined if as_transformers else joined.replace("##", "")).split())
        text = self._in_words(spelled, words)
        return (words, True) if text is None else (text, False)

    def _in_words(self, spelled: str, words: str) -> str | None:
        """The part of the words that is spelled so; ``None`` where characters do not line up."""
        normal = " ".join(self.tokenizer.words(words))
        at = normal.find(spelled)
        if at < 0:
            return None
        places = [place for place, char in enumerate(words) if char != " "]
        normal_places = [place for place, char in enumerate(normal) if char != " "]
        if len(places) != len(normal_places):
            return None
        which = {place: number for number, place in enumerate(normal_places)}
        first, last = which.get(at), which.get(at + len(spelled) - 1)
        if first is None or last is None:
            return None
        return words[places[first] : places[last] + 1]


def best_places(logits: Sequence[float], count: int) -> list[int]:
    return sorted(range(len(logits)), key=lambda place: -logits[place])[:count]


def probabilities(scores: Iterable[float]) -> list[float]:
    scores = list(scores)
    shares = [math.exp(score - max(scores)) for score in scores]
    return [share / sum(shares) for share in shares]
