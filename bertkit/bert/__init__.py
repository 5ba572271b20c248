"""The encoder, the question answering head, weights in and out.

Example:
    >>> pretrained = load_pretrained("minilm")
    >>> model = QuestionAnswering.from_pretrained(pretrained, seed=1)
    >>> pretrained.architecture.parameters()
    22566146
"""

from bertkit.bert.architecture import Architecture
from bertkit.bert.pretrained import Pretrained, load_pretrained
from bertkit.bert.question_answering import QuestionAnswering, loss
from bertkit.bert.saving import save_pretrained

__all__ = [
    "Architecture",
    "Pretrained",
    "QuestionAnswering",
    "load_pretrained",
    "loss",
    "save_pretrained",
]
