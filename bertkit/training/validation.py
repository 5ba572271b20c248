"""Scores of a model on questions that are shared out over the ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bertkit.bert.question_answering import Precision, QuestionAnswering
from bertkit.config import Config
from bertkit.errors import DataError
from bertkit.squad.batches import assemble, evaluation_batches
from bertkit.squad.dataset import Dataset
from bertkit.squad.features import Features
from bertkit.squad.scoring import question_scores
from bertkit.squad.spans import Prediction, best_answers
from bertkit.training.inputs import features
from bertkit.training.world import World

Progressed = Callable[[int, int], None]


@dataclass(frozen=True)
class Scores:
    """Scores over all ranks' questions.

    Args:
        f1, exact_match: In percent.
        total: Number of questions.
    """

    f1: float
    exact_match: float
    total: int


class Forward:
    """A model's compiled forward pass; one for all validations of a run, so it is traced once.

    Args:
        model: The model; later changes of its variables are seen.
        precision: ``"float32"`` or ``"bfloat16"``.
    """

    def __init__(self, model: QuestionAnswering, precision: Precision) -> None:
        def logits(input_ids: Any, segment_ids: Any, lengths: Any) -> Any:
            return model.logits(input_ids, segment_ids, lengths, precision=precision)

        self._logits = tf.function(logits, input_signature=_SIGNATURE, autograph=False)
        self._longest = model.architecture.max_position_embeddings

    def __call__(
        self, made: Features, on_progress: Progressed | None = None
    ) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """Start and end logits of every feature, float32 of the feature's length."""
        starts: list[Any] = [None] * len(made.lengths)
        ends: list[Any] = [None] * len(made.lengths)
        done = 0
        for micro_batch in evaluation_batches(made.lengths, max_seq_length=self._longest):
            arrays = assemble(made, micro_batch, global_batch_examples=1)
            values = self._logits(arrays.input_ids, arrays.segment_ids, arrays.lengths).numpy()
            for row, index in enumerate(micro_batch.indices):
                if index >= 0:
                    length = made.lengths[index]
                    starts[index] = values[row, :length, 0]
                    ends[index] = values[row, :length, 1]
                    done += 1
            if on_progress:
                on_progress(done, len(starts))
        return starts, ends


class Validation:
    """Validates a model on some questions, this rank's share of them at this rank.

    Args:
        dataset: The questions of all ranks together.
        tokenizer: The model's tokenizer.
        config: The run's configuration.
        forward: The model's forward pass.
        world: The ranks.
    """

    def __init__(
        self,
        dataset: Dataset,
        tokenizer: Tokenizer,
        config: Config,
        forward: Forward,
        world: World,
    ) -> None:
        self._share = dataset.subset(share_of_questions(dataset, world.rank, world.size))
        self._features = features(self._share, tokenizer, config, training=False)
        self._name = dataset.name
        self._version_2 = dataset.has_impossible
        self._config = config
        self._forward = forward
        self._world = world

    def score(self, on_progress: Progressed | None = None) -> tuple[Scores, dict[str, Prediction]]:
        """Scores of all ranks together, the same on every rank, and this rank's predictions."""
        predictions = self.predict(on_progress)
        texts = {name: prediction.text for name, prediction in predictions.items()}
        each = question_scores(self._share, texts, version_2=self._version_2)
        sums = np.array([each.f1.sum(), each.exact_match.sum(), len(each.index)], np.float64)
        f1_sum, exact_sum, count = self._world.sum(sums).tolist()
        if not count:
            raise DataError(f"{self._name}: holds no reference answer to score against")
        return Scores(100 * f1_sum / count, 100 * exact_sum / count, int(count)), predictions

    def predict(self, on_progress: Progressed | None = None) -> dict[str, Prediction]:
        """The best answer to each question of this rank's share, by question id."""
        if not len(self._share):
            return {}
        starts, ends = self._forward(self._features, on_progress)
        return best_answers(
            self._features,
            self._share,
            starts,
            ends,
            max_answer_length=self._config.max_answer_length,
            null_score_diff_threshold=self._config.null_score_diff_threshold,
            version_2=self._version_2,
        )


def share_of_questions(dataset: Dataset, rank: int, size: int) -> list[int]:
    """Indices of one rank's questions; all shares hold about the same amount of text."""
    lengths = [len(dataset.context(q)) + len(q.question) for q in dataset.questions]
    by_length = np.argsort(np.array(lengths), kind="stable")
    return sorted(by_length[rank::size].tolist())


_SIGNATURE = (
    tf.TensorSpec([None, None], tf.int32, "input_ids"),
    tf.TensorSpec([None, None], tf.int32, "segment_ids"),
    tf.TensorSpec([None], tf.int32, "lengths"),
)
