"""The encoder, the question answering head, weights in and out.

Example:
    >>> pretrained = load_pretrained("minilm")
    >>> model = QuestionAnswering.from_pretrained(pretrained, seed=1)
    >>> pretrained.architecture.parameters()
    22566146
"""

from bertkit.loading_tensorflow import load_tensorflow

load_tensorflow()  # before the modules below do, with what it must find set and without its remarks

from bertkit.bert.architecture import Architecture  # noqa: E402
from bertkit.bert.pretrained import Pretrained, load_pretrained  # noqa: E402
from bertkit.bert.question_answering import QuestionAnswering, loss  # noqa: E402
from bertkit.bert.saving import save_pretrained  # noqa: E402

__all__ = [
    "Architecture",
    "Pretrained",
    "QuestionAnswering",
    "load_pretrained",
    "loss",
    "save_pretrained",
]
