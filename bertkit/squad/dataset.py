"""Questions about paragraphs, as plain values.

A `Dataset` is what was read from a file, checked. Paragraphs are kept once, however many questions
are asked about them, since they are what takes time to tokenize.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

NOT_AT_ITS_OFFSET = -1


@dataclass(frozen=True)
class Answer:
    """One reference answer.

    Args:
        text: The answer as it was written down.
        start: Character of the paragraph at which ``text`` stands, or ``NOT_AT_ITS_OFFSET`` where
            the file's offset was wrong: such an answer counts in scores but is not trained on.
    """

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """One question about one paragraph.

    Args:
        id: Name of the question, unique within its dataset.
        title: Title of the article its paragraph is from.
        context_index: Index of the paragraph in `Dataset.contexts`.
        question: What is asked.
        answers: Reference answers; empty where it is impossible to answer, or not known.
        is_impossible: Whether the paragraph holds no answer (SQuAD 2.0).
    """

    id: str
    title: str
    context_index: int
    question: str
    answers: tuple[Answer, ...] = ()
    is_impossible: bool = False


@dataclass(frozen=True)
class Problem:
    """Something of a file that was left out, and why.

    Args:
        file: Where it was found.
        article: Title of the article.
        question_id: The question.
        reason: What is wrong and what was done about it.
    """

    file: str
    article: str
    question_id: str
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.file}: article {self.article!r}, question {self.question_id!r}: {self.reason}"
        )


@dataclass(frozen=True)
class Dataset:
    """Questions about paragraphs.

    Args:
        name: Where they are from, for messages.
        contexts: Each distinct paragraph once.
        questions: The questions, in the file's order.
        problems: What was left out.

    Example:
        >>> dataset = Dataset.single("Berlin is the capital of Germany.", "What is the capital?")
        >>> dataset.contexts[dataset.questions[0].context_index]
        'Berlin is the capital of Germany.'
    """

    name: str
    contexts: tuple[str, ...]
    questions: tuple[Question, ...]
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.questions)

    @cached_property
    def has_impossible(self) -> bool:
        """Whether any question is marked impossible to answer, as in SQuAD 2.0."""
        return any(question.is_impossible for question in self.questions)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over all that decides about features and scores; not over ``name``."""
        digest = hashlib.sha256(json.dumps(self.contexts).encode())
        for q in self.questions:
            answers = [(answer.text, answer.start) for answer in q.answers]
            row = (q.id, q.context_index, q.question, answers, q.is_impossible)
            digest.update(json.dumps(row).encode())
        return digest.hexdigest()

    def context(self, question: Question) -> str:
        """The paragraph a question is about."""
        return self.contexts[question.context_index]

    def subset(self, indices: Iterable[int]) -> Dataset:
        """Keep some questions, in the given order, and the paragraphs they are about.

        Args:
            indices: Indices into ``questions``.
        """
        chosen = [self.questions[int(i)] for i in indices]
        kept = list(dict.fromkeys(q.context_index for q in chosen))
        new_index = {old: new for new, old in enumerate(kept)}
        return Dataset(
            name=self.name,
            contexts=tuple(self.contexts[old] for old in kept),
            questions=tuple(replace(q, context_index=new_index[q.context_index]) for q in chosen),
            problems=self.problems,
        )

    @classmethod
    def single(cls, context: str, question: str, *, question_id: str = "question") -> Dataset:
        """One question about one paragraph, to be asked."""
        return cls.from_examples({question_id: (context, question)})

    @classmethod
    def from_examples(
        cls, examples: Mapping[str, tuple[str, str]], *, name: str = "questions"
    ) -> Dataset:
        """Questions to be asked, without reference answers.

        Args:
            examples: Paragraph and question by question id.
            name: Where they are from, for messages.
        """
        contexts = tuple(dict.fromkeys(context for context, _ in examples.values()))
        index = {context: number for number, context in enumerate(contexts)}
        questions = tuple(
            Question(question_id, "", index[context], question)
            for question_id, (context, question) in examples.items()
        )
        return cls(name, contexts, questions)
