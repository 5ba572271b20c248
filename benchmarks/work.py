"""What contestants train on: random tokens of one shape, or real questions in batches.

Every contestant is handed the same examples. For real questions they differ in how they are cut
into batches, which is what is compared:

- ``padded``: every example padded to ``max_seq_length``, as Hugging Face's ``run_qa.py`` does,
- ``grouped``: batches of like length, each padded to the bucket of its longest,
- ``micro_batches``: bertkit's own cut of random batches into passes by length,
- ``padded_micro_batches``: the same passes, in which padding is computed like tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bertkit.bert.architecture import Architecture
from bertkit.config import Config
from bertkit.squad.batches import PASS_COST, BatchArrays, BatchPlan, MicroBatch, assemble
from bertkit.squad.features import Features
from bertkit.training.inputs import features, read_inputs
from bertkit.training.step import StepInput, touched_rows

Ints = NDArray[np.int32]

SIZES = {
    "base": Architecture(),
    "large": Architecture(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    ),
    "minilm": Architecture(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    ),
}


@dataclass(frozen=True)
class Batch:
    """One batch as other libraries take it: tokens left-aligned, ``mask`` 1 for a token."""

    input_ids: Ints
    segment_ids: Ints
    mask: Ints
    start_positions: Ints
    end_positions: Ints


@dataclass(frozen=True)
class Work:
    """The batches of a turn.

    Args:
        model: Name in `SIZES`.
        batch: Examples of a step.
        length: Most tokens of an example.
        steps: Steps of a turn.
        data: Folder of real questions; empty for random tokens that fill ``length``.
        cut: How examples are cut into batches, see above.
        seed: Decides which examples.
    """

    model: str
    batch: int
    length: int
    steps: int = 1
    data: str = ""
    cut: str = "padded"
    seed: int = 0

    @property
    def architecture(self) -> Architecture:
        """The model's sizes."""
        return SIZES[self.model]

    @property
    def shape(self) -> tuple[int, int]:
        """Examples and tokens of a step, where all have one shape."""
        return self.batch, self.length

    @cached_property
    def features(self) -> Features:
        """The examples of one turn, of real questions drawn at random or of random tokens."""
        if not self.data:
            return self._random_features()
        config = Config(data=self.data, max_seq_length=self.length)
        inputs = read_inputs(config)
        found = features(inputs.train, inputs.tokenizer, config, training=True)
        chosen = np.random.default_rng(self.seed).choice(
            len(found), self.batch * self.steps, replace=False
        )
        return _take(found, chosen)

    @cached_property
    def plan(self) -> BatchPlan:
        """How the examples are cut."""
        by_length = self.cut in ("micro_batches", "padded_micro_batches")
        return BatchPlan(
            self.features.lengths, batch_size=self.batch, ranks=1, seed=self.seed,
            micro_batch_tokens=Config().micro_batch_tokens if by_length
            else self.batch * self.length,
            group_by_length=self.cut == "grouped", pad_to_max_length=self.cut == "padded",
            max_seq_length=self.length,
            pass_cost=PASS_COST if by_length else 10**9,
        )  # fmt: skip

    def step_input(self, number: int) -> StepInput:
        """One step as bertkit's training takes it."""
        examples = self.plan.examples(number)
        passes = [self._arrays(one, len(examples)) for one in self.plan.micro_batches(number, 0)]
        if self.cut == "padded_micro_batches":
            passes = [replace(arrays, packed_rows=None) for arrays in passes]
        rows = touched_rows([arrays.input_ids for arrays in passes])
        return StepInput(passes, rows, len(examples), self.plan.padding_share(number))

    def batches(self) -> Iterator[Batch]:
        """The steps as other libraries take them, one batch each."""
        for number in range(self.steps):
            (one,) = self.plan.micro_batches(number, 0)
            arrays = self._arrays(one, self.batch)
            position = np.arange(arrays.input_ids.shape[1])
            yield Batch(
                arrays.input_ids,
                arrays.segment_ids,
                (position < arrays.lengths[:, None]).astype(np.int32),
                arrays.start_positions,
                arrays.end_positions,
            )

    def _arrays(self, one: MicroBatch, examples: int) -> BatchArrays:
        return assemble(self.features, one, global_batch_examples=examples)

    def _random_features(self) -> Features:
        count, random = self.batch * self.steps, np.random.default_rng(self.seed)
        total = count * self.length
        return Features(
            input_ids=random.integers(1000, 30000, total).astype(np.int32),
            offsets=np.arange(0, total + 1, self.length),
            question_lengths=np.full(count, 12, np.int32),
            question_index=np.arange(count, dtype=np.int32),
            start_positions=random.integers(12, self.length, count).astype(np.int32),
            end_positions=random.integers(12, self.length, count).astype(np.int32),
            char_starts=np.zeros(total, np.int32),
            char_ends=np.zeros(total, np.int32),
            is_max_context=np.ones(total, bool),
        )


Kind = TypeVar("Kind", bound=np.generic)


def _take(found: Features, chosen: NDArray[np.int64]) -> Features:
    spans = [slice(*found.offsets[i : i + 2]) for i in chosen]

    def tokens(values: NDArray[Kind]) -> NDArray[Kind]:
        return np.concatenate([values[span] for span in spans])

    return Features(
        input_ids=tokens(found.input_ids),
        offsets=np.concatenate([[0], np.cumsum(found.lengths[chosen])]),
        question_lengths=found.question_lengths[chosen],
        question_index=found.question_index[chosen],
        start_positions=found.start_positions[chosen],
        end_positions=found.end_positions[chosen],
        char_starts=tokens(found.char_starts),
        char_ends=tokens(found.char_ends),
        is_max_context=tokens(found.is_max_context),
    )
