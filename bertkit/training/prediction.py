"""A trained model at work: asking it questions and scoring it on a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertkit.bert.pretrained import load_pretrained
from bertkit.bert.question_answering import QuestionAnswering
from bertkit.config import Config
from bertkit.squad.dataset import Dataset
from bertkit.squad.spans import Prediction
from bertkit.squad.tokenization import load_tokenizer
from bertkit.training.precision import resolve_precision
from bertkit.training.validation import Forward, Scores, Validation
from bertkit.training.world import SingleWorld


@dataclass(frozen=True)
class Answer:
    """One answer to a question.

    Args:
        text: The answer; empty where the paragraph holds none.
        start_char, end_char: Where it stands in the paragraph.
        score: The model's probability of it among its best answers.
    """

    text: str
    start_char: int
    end_char: int
    score: float


class Predictor:
    """Answers questions with a trained model.

    Args:
        model: A run's ``model`` folder, any other folder that `load_pretrained` takes, or a name.
        config: Lengths and limits; by default those of `Config`.

    Raises:
        ModelError: If the model cannot be loaded.

    Example:
        >>> predictor = Predictor("runs/demo/model")                            # doctest: +SKIP
        >>> predictor.ask("Ada Moss built the bridge.", "Who built it?")[0].text  # doctest: +SKIP
        'Ada Moss'
    """

    def __init__(self, model: str | Path, config: Config | None = None) -> None:
        pretrained = load_pretrained(str(model))
        config = config or Config()
        longest = pretrained.architecture.max_position_embeddings
        self._config = config.replace(max_seq_length=min(config.max_seq_length, longest))
        self._tokenizer = load_tokenizer(pretrained.vocab_file, lowercase=pretrained.lowercase)
        network = QuestionAnswering.from_pretrained(pretrained, seed=config.seed)
        self._forward = Forward(network, resolve_precision(config.precision))

    def ask(self, context: str, question: str, *, count: int = 3) -> list[Answer]:
        """The best answers to one question, best first.

        Args:
            context: The paragraph.
            question: The question.
            count: Most answers to return.
        """
        (best,) = self.predict(Dataset.single(context, question)).values()
        return [
            Answer(found.text, found.start_char, found.end_char, found.probability)
            for found in best.n_best[:count]
        ]

    def predict(
        self, dataset: Dataset, on_progress: Callable[[int, int], None] | None = None
    ) -> dict[str, Prediction]:
        """The best answer to every question, by question id."""
        return self._validation(dataset).predict(on_progress)

    def evaluate(
        self, dataset: Dataset, on_progress: Callable[[int, int], None] | None = None
    ) -> tuple[Scores, dict[str, Prediction]]:
        """Official F1 and exact match on questions with reference answers, and all predictions."""
        return self._validation(dataset).score(on_progress)

    def _validation(self, dataset: Dataset) -> Validation:
        return Validation(dataset, self._tokenizer, self._config, self._forward, SingleWorld())
