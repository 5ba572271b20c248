"""BERT with a span head: for each token, a logit to start and one to end the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from bertkit.bert.architecture import Architecture
from bertkit.bert.attention import MASKED
from bertkit.bert.encoder import encode
from bertkit.bert.packing import Packing, Unpacked
from bertkit.bert.weights import draw, shapes

if TYPE_CHECKING:
    from bertkit.bert.pretrained import Pretrained

Tensor = Any
Precision = Literal["float32", "bfloat16"]


class QuestionAnswering:
    """A BERT encoder with a question answering head.

    Args:
        architecture: The model's sizes.
        seed: Decides the weights that are drawn.
        tensors: Weights by their Hugging Face name, shaped as there; missing ones are drawn.

    Attributes:
        architecture: The model's sizes.
        variable_names: The weights' names in Hugging Face's BERT, in its order.
        variables: The weights, one float32 ``tf.Variable`` a name. Matrices are ``[out, in]``.

    Example:
        >>> sizes = Architecture(vocab_size=9, hidden_size=8, num_hidden_layers=2,
        ...                      num_attention_heads=2, intermediate_size=16)
        >>> model = QuestionAnswering(sizes, seed=1)
        >>> ids = tf.constant([[2, 5, 3, 7, 8, 3]])
        >>> model.logits(ids, tf.zeros_like(ids), tf.constant([6]), precision="float32").shape
        TensorShape([1, 6, 2])
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        seed: int = 0,
        tensors: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> None:
        self.architecture = architecture
        given = tensors or {}
        self.variable_names = list(shapes(architecture))
        self.variables = [
            tf.Variable(given[name] if name in given else draw(architecture, name, seed), name=name)
            for name in self.variable_names
        ]

    @classmethod
    def from_pretrained(cls, pretrained: Pretrained, seed: int = 0) -> QuestionAnswering:
        """Make a model of pretrained weights.

        Args:
            pretrained: What `load_pretrained` returned.
            seed: Decides the weights that the pretrained model lacks, such as the head's.
        """
        return cls(pretrained.architecture, seed=seed, tensors=pretrained.tensors)

    def logits(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        lengths: Tensor,
        *,
        precision: Precision,
        dropout: float = 0.0,
        seed: Tensor | None = None,
        weights: Sequence[Tensor] | None = None,
        packed_rows: Tensor | None = None,
    ) -> Tensor:
        """Score every token as the start and as the end of the answer.

        To be called inside a ``tf.function``. Shapes may be dynamic (``[None, None]``): one trace
        then serves all shapes, and a new shape costs what XLA needs to compile a dozen small
        loops.

        Args:
            input_ids: Token ids, ``int32 [B, S]``, left-aligned.
            segment_ids: 0 for the question, 1 for the paragraph, ``int32 [B, S]``.
            lengths: Number of tokens of each example, ``int32 [B]``.
            precision: Type of the encoder's computation. The head computes in float32.
            dropout: Rate of hidden values and attention probabilities dropped.
            seed: ``int32 [2]``; decides all dropout masks, needed where there is dropout.
            weights: Taken instead of `variables`, in their order; matrices of the encoder's layers
                may be of the type of ``precision`` already.
            packed_rows: Number of rows in which to compute all tokens, ``int32 []``: more than
                there are tokens, or ``B·S``. By default padding is computed like tokens.

        Returns:
            Logits ``float32 [B, S, 2]``, -1e9 in the padding.

        Raises:
            ValueError: If there is dropout and no seed.
        """
        named = dict(zip(self.variable_names, weights or self.variables, strict=True))
        token_mask = tf.sequence_mask(lengths, tf.shape(input_ids)[1])
        packing = Unpacked() if packed_rows is None else Packing(token_mask, packed_rows)
        hidden = encode(
            named, self.architecture, input_ids, segment_ids, token_mask,
            dtype=tf.as_dtype(precision), rate=dropout, seed=seed, packing=packing,
        )  # fmt: skip
        scores = tf.matmul(hidden, named["qa_outputs.weight"], transpose_b=True)
        scores = tf.nn.bias_add(scores, named["qa_outputs.bias"])
        scores = tf.reshape(packing.unpack(scores), tf.concat([tf.shape(input_ids), [2]], 0))
        return tf.where(token_mask[..., None], scores, MASKED)


def loss(logits: Tensor, start_positions: Tensor, end_positions: Tensor, weights: Tensor) -> Tensor:
    """Sum over examples of ``weight · (CE(start) + CE(end)) / 2``, CE being the cross-entropy.

    Since the logits of padding are masked, the loss does not depend on how far a batch is padded.
    BERT's reference code and transformers leave them unmasked, so that padding takes a share of
    the probability there; the two agree on batches without padding.

    Args:
        logits: ``float32 [B, S, 2]`` from `QuestionAnswering.logits`.
        start_positions: Index of the answer's first token, ``int32 [B]``, below the length.
        end_positions: Index of its last token, ``int32 [B]``, below the length.
        weights: Each example's share, ``float32 [B]``; ``1 / B`` each gives the mean.

    Returns:
        A ``float32`` scalar.
    """
    starts = tf.nn.sparse_softmax_cross_entropy_with_logits(start_positions, logits[:, :, 0])
    ends = tf.nn.sparse_softmax_cross_entropy_with_logits(end_positions, logits[:, :, 1])
    return tf.reduce_sum(weights * (starts + ends)) / 2
