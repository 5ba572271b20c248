"""The programs that compete: bertkit's step, Hugging Face's PyTorch BERT, keras-hub's, the ceiling.

``python -m benchmarks.contestants PROGRAM SETTINGS`` sets one up, makes a turn to warm up, writes
what that took as a line of JSON, and then makes a turn for each line it reads. A turn trains on all
batches of its work once: forward, backward, clipping to a norm of 1 and AdamW.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import psutil

from benchmarks.work import Batch, Work
from bertkit.bert.question_answering import Precision
from bertkit.cluster.freed_memory import keep_freed_memory

LEARNING_RATE = 1e-5
WEIGHT_DECAY = 0.01


class Program(Protocol):
    """What can take a turn."""

    def turn(self) -> float:
        """Train on all batches once; gives the last loss."""
        ...


class Bertkit:
    """bertkit's own training step.

    Args:
        work: What to train on.
        precision: ``float32`` or ``bfloat16``.
        dropout: Dropout rate.
    """

    def __init__(self, work: Work, *, precision: Precision, dropout: float) -> None:
        from bertkit.bert.question_answering import QuestionAnswering
        from bertkit.training.optimizers import Hyperparameters, Optimizer
        from bertkit.training.step import TrainingStep
        from bertkit.training.world import SingleWorld

        model = QuestionAnswering(work.architecture, seed=1)
        numbers = Hyperparameters(clip_norm=1.0, weight_decay=WEIGHT_DECAY)
        optimizer = Optimizer("adamw", model.variables, model.variable_names, numbers)
        self._step = TrainingStep(
            model, optimizer, SingleWorld(), precision=precision, dropout=dropout, seed=1
        )
        self._steps = [work.step_input(number) for number in range(work.steps)]
        self._number = 0

    def turn(self) -> float:
        """See `Program`."""
        for step in self._steps:
            self._number += 1
            outcome = self._step(
                step, step=self._number, learning_rate=LEARNING_RATE, stop=lambda: False
            )
        return outcome.loss


class HuggingFace:
    """transformers' ``BertForQuestionAnswering`` on PyTorch, as its Trainer would step it.

    Args:
        work: What to train on.
        precision: ``float32``, or ``bfloat16`` by autocast.
        dropout: Dropout rate.
        compile: Whether ``torch.compile`` compiles the model.
    """

    def __init__(
        self, work: Work, *, precision: str, dropout: float, compile: bool = False
    ) -> None:
        import torch
        import transformers

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.manual_seed(1)
        config = transformers.BertConfig(
            **work.architecture.to_hugging_face()
            | {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        )
        self._torch = torch
        self._model = transformers.BertForQuestionAnswering(config).train()
        # Of one shape, compiled for it alone; else once for all shapes.
        dynamic = work.cut != "padded"
        self._forward = torch.compile(self._model, dynamic=dynamic) if compile else self._model
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
        )
        self._precision = precision
        self._batches = [self._tensors(batch) for batch in work.batches()]

    def turn(self) -> float:
        """See `Program`."""
        torch = self._torch
        for batch in self._batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=self._precision == "bfloat16"):
                loss = self._forward(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad()
        return float(loss)

    def _tensors(self, batch: Batch) -> dict[str, Any]:
        names = {
            "input_ids": batch.input_ids,
            "token_type_ids": batch.segment_ids,
            "attention_mask": batch.mask,
            "start_positions": batch.start_positions,
            "end_positions": batch.end_positions,
        }
        return {name: self._torch.tensor(array).long() for name, array in names.items()}


class KerasHub:
    """keras-hub's ``BertBackbone`` with a span head under ``fit``, on TensorFlow.

    Args:
        work: What to train on; its batches must be of one shape.
        precision: ``float32``, or ``bfloat16`` for the policy ``mixed_bfloat16``.
        dropout: Dropout rate.
    """

    def __init__(self, work: Work, *, precision: str, dropout: float) -> None:
        os.environ["KERAS_BACKEND"] = "tensorflow"
        import keras
        import keras_hub

        keras.utils.set_random_seed(1)
        sizes = work.architecture
        policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=sizes.vocab_size, num_layers=sizes.num_hidden_layers,
            num_heads=sizes.num_attention_heads, hidden_dim=sizes.hidden_size,
            intermediate_dim=sizes.intermediate_size, dropout=dropout,
            max_sequence_length=sizes.max_position_embeddings, dtype=policy,
        )  # fmt: skip
        logits = keras.layers.Dense(2, dtype="float32")(backbone.output["sequence_output"])
        outputs = {"starts": logits[:, :, 0], "ends": logits[:, :, 1]}
        self._model = keras.Model(backbone.input, outputs)
        entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self._model.compile(
            keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY, global_clipnorm=1.0),
            loss={"starts": entropy, "ends": entropy},
        )
        batches = list(work.batches())
        self._batch_size = len(batches[0].input_ids)
        self._inputs = {
            "token_ids": np.concatenate([b.input_ids for b in batches]),
            "segment_ids": np.concatenate([b.segment_ids for b in batches]),
            "padding_mask": np.concatenate([b.mask for b in batches]),
        }
        self._targets = {
            "starts": np.concatenate([b.start_positions for b in batches]),
            "ends": np.concatenate([b.end_positions for b in batches]),
        }

    def turn(self) -> float:
        """See `Program`."""
        history = self._model.fit(
            self._inputs, self._targets, batch_size=self._batch_size, verbose=0, shuffle=False
        )
        return float(history.history["loss"][-1])


class Products:
    """The ceiling: a step's matrix products and nothing else, by TensorFlow.

    Args:
        work: Whose sizes to take; its batches must be of one shape.
        precision: Type of the products.
    """

    def __init__(self, work: Work, *, precision: str) -> None:
        import tensorflow as tf

        from benchmarks.flops import forward_products

        (batch, length), dtype = work.shape, tf.as_dtype(precision)
        random = tf.random.Generator.from_seed(1)
        self._tf, self._runs, self._steps = tf, [], work.steps
        for count, m, n, k in forward_products(work.architecture, batch, length):
            layers = work.architecture.num_hidden_layers
            together = count // layers  # examples times heads, whose products are one call
            x, w, y = (
                tf.cast(random.normal([*[together] * (together > 1), *shape]), dtype)
                for shape in ((m, k), (n, k), (m, n))
            )
            self._runs.append((layers, self._three(), (x, w, y)))

    def turn(self) -> float:
        """See `Program`."""
        for count, three, operands in self._runs:
            for _ in range(count * self._steps):
                results = three(*operands)
        return float(self._tf.cast(results[0].numpy().ravel()[0], self._tf.float32))

    def _three(self) -> Callable[..., Any]:
        """``X·Wᵀ``, ``dY·W`` and ``dYᵀ·X`` of one product, as a step computes them."""
        tf = self._tf

        @tf.function  # type: ignore[untyped-decorator]
        def products(x: Any, w: Any, y: Any) -> Any:
            return (
                tf.matmul(x, w, transpose_b=True),
                tf.matmul(y, w),
                tf.matmul(y, x, transpose_a=True),
            )

        return products  # type: ignore[no-any-return]


PROGRAMS: dict[str, Callable[..., Program]] = {
    "bertkit": Bertkit,
    "hugging_face": HuggingFace,
    "keras_hub": KerasHub,
    "products": Products,
}


def main() -> None:
    """Set up, warm up, and take turns until standard input ends."""
    settings = json.loads(sys.argv[2])
    if settings.pop("keep_memory", True):  # as bertkit's engines do; the others are given it
        keep_freed_memory()
    with _answers_only() as answer:
        began = time.perf_counter()
        program = PROGRAMS[sys.argv[1]](Work(**settings.pop("work")), **settings)
        program.turn()
        program.turn()
        answer({"warm_up_seconds": time.perf_counter() - began, "peak_gib": _peak_memory()})
        for _ in sys.stdin:
            began = time.perf_counter()
            loss = program.turn()
            seconds = time.perf_counter() - began
            answer({"seconds": seconds, "loss": loss, "peak_gib": _peak_memory()})


@contextlib.contextmanager
def _answers_only() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Keep standard output for answers, whatever libraries print there."""
    with os.fdopen(os.dup(1), "w", buffering=1) as output:
        os.dup2(2, 1)
        yield lambda values: print(json.dumps(values), file=output, flush=True)


def _peak_memory() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return round(max(peak, psutil.Process().memory_info().rss) / 2**30, 2)


if __name__ == "__main__":
    main()
