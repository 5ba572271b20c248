"""Real questions again and again, as many as a measurement needs."""

from __future__ import annotations

from dataclasses import replace

from bertkit.squad.dataset import Dataset


def repeated(data: Dataset, count: int) -> Dataset:
    """The same questions again and again, with ids and paragraphs of their own."""
    contexts, questions = [], []
    for turn in range(-(-count // len(data))):
        shift = len(contexts)
        contexts += [f"{context} {turn}" for context in data.contexts]
        questions += [
            replace(q, id=f"{q.id}-{turn}", context_index=q.context_index + shift)
            for q in data.questions
        ]
    return Dataset(data.name, tuple(contexts), tuple(questions[:count]))
