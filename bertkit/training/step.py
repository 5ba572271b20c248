"""One optimizer step on one rank: gradients of its micro-batches, their sum over ranks, the update.

Gradients go round while the backward pass goes on: each layer's are sent as soon as the last
micro-batch has them, and the ranks only wait for what is still under way at the end.

The word embeddings are the largest tensor and a step touches few of their rows. Every rank knows
the tokens of the whole global batch (batches follow from the seed), so all ranks agree on the
touched rows without a message, add up gradients for those rows only and send just them. That is
exact, needs no gather of indices, and moves a small part of what ``sparse_as_dense`` would.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from bertkit.bert.islands import island
from bertkit.bert.question_answering import Precision, QuestionAnswering, loss
from bertkit.bert.weights import layer_of
from bertkit.squad.batches import BatchArrays
from bertkit.training.optimizers import Optimizer
from bertkit.training.world import World

Tensor = Any

WORD_EMBEDDINGS = "bert.embeddings.word_embeddings.weight"
ROWS_MULTIPLE = 1024  # few distinct shapes, so that Horovod's response cache keeps its entries


@dataclass(frozen=True)
class StepInput:
    """What one rank needs for one optimizer step.

    Args:
        micro_batches: Arrays of this rank's passes.
        rows: Sorted distinct token ids of the global batch, ``int32 [U]``, the last one repeated.
        examples: Examples of the global batch.
        padding_share: Share of the rows computed for the global batch that are padding.
    """

    micro_batches: Sequence[BatchArrays]
    rows: NDArray[np.int32]
    examples: int
    padding_share: float


@dataclass(frozen=True)
class StepOutcome:
    """What came of one optimizer step.

    Args:
        loss: Mean loss of the global batch.
        gradient_norm: Global norm before clipping.
        stop: Whether any rank asked to stop.
        meet: Whether any rank has heard that the ranks should meet.
        rank_seconds: Time after which each rank had computed its gradients, ``[ranks]``.
        communication_seconds: Time this rank waited for the sum over ranks after it had computed.
    """

    loss: float
    gradient_norm: float
    stop: bool
    meet: bool
    rank_seconds: list[float]
    communication_seconds: float


class TrainingStep:
    """Computes and applies steps of one model.

    Attributes:
        world: The ranks; others may take their place between two steps.

    Args:
        model: The model; its variables change in place.
        optimizer: The update, over the same variables.
        world: The ranks.
        precision: ``"float32"`` or ``"bfloat16"``.
        dropout: Dropout rate.
        seed: Seed of the dropout masks.
        compression: Type in which gradients travel, ``"none"`` or ``"float16"``.
    """

    def __init__(
        self,
        model: QuestionAnswering,
        optimizer: Optimizer,
        world: World,
        *,
        precision: Precision,
        dropout: float,
        seed: int,
        compression: str = "none",
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self.world = world
        self._precision = precision
        self._dropout = dropout
        self._seed = seed
        self._compression = compression
        self._embeddings = model.variable_names.index(WORD_EMBEDDINGS)
        self._rounded = _rounded_matrices(model, precision)
        self._groups = _groups(model.variable_names)
        # Nothing in a step depends on values, so TensorFlow need not rewrite the code it traces.
        compiled = functools.partial(tf.function, autograph=False)
        totals = [tf.TensorSpec(variable.shape, tf.float32) for variable in model.variables]
        totals[self._embeddings] = tf.TensorSpec([None, totals[self._embeddings].shape[1]])
        # Whether a pass is packed, and whether others came before it, decides what is traced.
        signatures = {False: _SIGNATURE, True: (*_SIGNATURE, _PACKED_ROWS)}
        self._gradients, self._sums = {}, {}
        for packed, signature in signatures.items():
            self._gradients[packed] = compiled(self._loss_and_gradients, input_signature=signature)
            alone = functools.partial(self._loss_and_sums, None)
            self._sums[packed, False] = compiled(alone, input_signature=signature)
            after = (totals, *signature)
            self._sums[packed, True] = compiled(self._loss_and_sums, input_signature=after)
        self._widen = compiled(_widen, reduce_retracing=True)
        self._sum_words = compiled(self._sum_words_over_ranks, reduce_retracing=True)

    def __call__(
        self, batch: StepInput, *, step: int, learning_rate: float, stop: Callable[[], bool]
    ) -> StepOutcome:
        """Make step number ``step`` (from 1).

        Args:
            batch: This rank's share of the global batch.
            step: The step's number; with the seed and the rank it decides the dropout masks.
            learning_rate: Its learning rate.
            stop: Whether this rank wants everybody to stop after this step; asked as late as
                possible, just before the ranks speak with each other.
        """
        began = time.time()
        if self.world.size > 1:
            value, gradients, computed = self._summed_gradients(batch, step)
        else:
            value, gradients = self.gradients(batch, step)
            computed = time.time()
        rank_seconds = np.zeros(self.world.size, np.float32)
        rank_seconds[self.world.rank] = computed - began
        words = [value, float(stop()), float(self.world.should_meet), *rank_seconds]
        totals = self._sum_words(tf.stack(words))
        mean_loss, stops, meets, *rank_seconds = totals.numpy().tolist()
        communication = time.time() - computed
        gradients[self._embeddings] = tf.IndexedSlices(gradients[self._embeddings], batch.rows)
        norm = self._optimizer.update(gradients, learning_rate=learning_rate, step=step)
        return StepOutcome(
            mean_loss, float(norm), stops > 0, meets > 0, rank_seconds, communication
        )

    def gradients(self, batch: StepInput, step: int) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradients of this rank's share, summed over its micro-batches.

        Each example's loss carries the weight 1 / (examples of the global batch), so sums over
        micro-batches and ranks are the mean over the global batch however it was split.

        Returns:
            The float32 loss and one gradient a variable; the word embeddings' holds only the rows
            of ``batch.rows``. Matrices' gradients are of the computation's type where one pass
            made them, and sums of several passes float32, like everything else.
        """
        return self._accumulate(batch, step, range(len(batch.micro_batches)))

    def _summed_gradients(self, batch: StepInput, step: int) -> tuple[Tensor, list[Tensor], float]:
        """`gradients` summed over ranks too, and when this rank had computed its own."""
        last = len(batch.micro_batches) - 1
        value, total = self._accumulate(batch, step, range(last))
        before = [self._widen(total)] if total else []
        packed = batch.micro_batches[last].packed_rows is not None
        part, gradients, computed = self._sums[packed, bool(before)](
            *before, *self._arguments(batch, step, last)
        )
        return value + part, gradients, float(computed)

    def _accumulate(
        self, batch: StepInput, step: int, passes: Iterable[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradients of some passes; no gradients of none."""
        if not batch.micro_batches:
            raise ValueError("a step needs at least one micro-batch on every rank")
        if self._rounded:
            matrices = [self._model.variables[number] for number in self._rounded]
            _round_matrices(matrices, list(self._rounded.values()))
        value: Tensor = tf.constant(0.0)
        total: list[Tensor] = []
        for number in passes:
            packed = batch.micro_batches[number].packed_rows is not None
            part, gradients = self._gradients[packed](*self._arguments(batch, step, number))
            value += part
            total = self._sum_of_passes(total, gradients) if total else gradients
        return value, total

    def _arguments(self, batch: StepInput, step: int, number: int) -> tuple[Tensor, ...]:
        arrays = batch.micro_batches[number]
        seed = _dropout_seed(self._seed, step, self.world.rank, number)
        packed = [] if arrays.packed_rows is None else [tf.constant(arrays.packed_rows)]
        return (
            arrays.input_ids, arrays.segment_ids, arrays.lengths, arrays.start_positions,
            arrays.end_positions, arrays.weights, seed, tf.constant(batch.rows), *packed,
        )  # fmt: skip

    def _loss_and_gradients(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        lengths: Tensor,
        starts: Tensor,
        ends: Tensor,
        weights_of_examples: Tensor,
        seed: Tensor,
        rows: Tensor,
        packed_rows: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        variables = enumerate(self._model.variables)
        weights = [self._rounded.get(number, variable) for number, variable in variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            logits = self._model.logits(
                input_ids, segment_ids, lengths, weights=weights,
                precision=self._precision, dropout=self._dropout, seed=seed,
                packed_rows=packed_rows,
            )  # fmt: skip
            value = loss(logits, starts, ends, weights_of_examples)
        gradients = tape.gradient(value, weights)
        gradients[self._embeddings] = _sum_rows(gradients[self._embeddings], rows)
        return value, gradients

    def _sum_of_passes(self, total: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        # Apart from the others, since their number of rows would have XLA compile all anew.
        rows = total[self._embeddings] + gradients[self._embeddings]
        summed = _add_compiled(
            *(_without(values, self._embeddings) for values in (total, gradients))
        )
        return [*summed[: self._embeddings], rows, *summed[self._embeddings :]]

    def _loss_and_sums(
        self, total: list[Tensor] | None, *arguments: Tensor
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """The last pass, whose gradients go round group by group as they come.

        In a graph, an operation starts when what it reads is there, and Horovod's wait for no
        thread: while a layer's gradients travel, those of the layers before it are computed.
        """
        value, gradients = self._loss_and_gradients(*arguments)
        gradients = _widen(gradients) if total is None else _add(total, gradients)
        with tf.control_dependencies(gradients):
            computed = tf.timestamp()
        sums: list[Tensor] = [None] * len(gradients)
        for name, numbers in self._groups.items():
            group = self.world.sum_tensors(
                [gradients[number] for number in numbers], compression=self._compression, name=name
            )
            for number, tensor in zip(numbers, group, strict=True):
                sums[number] = tensor
        return value, sums, computed

    def _sum_words_over_ranks(self, words: Tensor) -> Tensor:
        return self.world.sum_tensors([words])[0]


def touched_rows(input_ids: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Sorted distinct ids of some token arrays, padded by repeating the last one.

    Example:
        >>> touched_rows([np.array([5, 3, 5], np.int32)])[:4].tolist()
        [3, 5, 5, 5]
    """
    distinct = np.unique(np.concatenate([ids.ravel() for ids in input_ids])).astype(np.int32)
    return np.pad(distinct, (0, -len(distinct) % ROWS_MULTIPLE), mode="edge")


def _rounded_matrices(model: QuestionAnswering, precision: Precision) -> dict[int, tf.Variable]:
    """A variable of the computation's type for each matrix of the encoder's layers, by number.

    Rounded once a step, the matrices need not be cast in every pass; and their gradients come in
    the type in which they were computed, which the update reads in half the time.
    """
    if precision == "float32":
        return {}
    return {
        number: tf.Variable(tf.cast(variable, precision), trainable=False)
        for number, (name, variable) in enumerate(
            zip(model.variable_names, model.variables, strict=True)
        )
        if name.startswith("bert.encoder.layer.") and len(variable.shape) == 2
    }


def _groups(names: Sequence[str]) -> dict[str, list[int]]:
    """The weights whose gradients travel together, by number: each layer's, and the others alone.

    The word embeddings' come at the very end, and must not make others wait.
    """
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        groups.setdefault(layer_of(name) or name, []).append(number)
    return groups


def _widen(tensors: list[Tensor]) -> list[Tensor]:
    return [tf.cast(tensor, tf.float32) for tensor in tensors]


def _add(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(_widen(first), _widen(second), strict=True)]


_add_compiled = island(_add)


@island
def _round_matrices(matrices: list[Tensor], rounded: list[Tensor]) -> None:
    for matrix, variable in zip(matrices, rounded, strict=True):
        variable.assign(tf.cast(matrix, variable.dtype))


def _without(values: list[Tensor], number: int) -> list[Tensor]:
    return values[:number] + values[number + 1 :]


def _sum_rows(gradient: Any, rows: Tensor) -> Tensor:
    """Add up a sparse gradient's slices by row; ``rows`` holds every row it touches."""
    # searchsorted finds the first of the repeated last rows, the others stay zero.
    positions = tf.searchsorted(rows, tf.cast(gradient.indices, tf.int32))
    values = tf.cast(gradient.values, tf.float32)
    return tf.math.unsorted_segment_sum(values, positions, tf.shape(rows)[0])


def _dropout_seed(seed: int, step: int, rank: int, micro_batch: int) -> Tensor:
    """Two integers that no other pass of the run has."""
    words = np.random.SeedSequence([seed, step, rank, micro_batch]).generate_state(2)
    return tf.constant(words.astype(np.uint32).view(np.int32))


_SIGNATURE = (
    tf.TensorSpec([None, None], tf.int32, "input_ids"),
    tf.TensorSpec([None, None], tf.int32, "segment_ids"),
    tf.TensorSpec([None], tf.int32, "lengths"),
    tf.TensorSpec([None], tf.int32, "start_positions"),
    tf.TensorSpec([None], tf.int32, "end_positions"),
    tf.TensorSpec([None], tf.float32, "weights"),
    tf.TensorSpec([2], tf.int32, "seed"),
    tf.TensorSpec([None], tf.int32, "rows"),
)
_PACKED_ROWS = tf.TensorSpec([], tf.int32, "packed_rows")
