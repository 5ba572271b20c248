"""BERT's encoder (Devlin et al., arXiv 1810.04805): embeddings, then layers alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from bertkit.bert.activation import add_bias_and_activate
from bertkit.bert.architecture import Architecture
from bertkit.bert.attention import MASKED, attend
from bertkit.bert.dense import dense
from bertkit.bert.dropout import dropout, dropout_keys
from bertkit.bert.normalization import add_dropped, normalize
from bertkit.bert.packing import Packing, Unpacked

Tensor = Any
Weights = Mapping[str, Any]

MASKS_PER_LAYER = 3  # attention probabilities, attention output, feed-forward output


def encode(
    weights: Weights,
    architecture: Architecture,
    input_ids: Tensor,
    segment_ids: Tensor,
    token_mask: Tensor,
    *,
    dtype: Any,
    rate: float,
    seed: Tensor | None,
    packing: Packing | Unpacked,
) -> Tensor:
    """Compute the last hidden states of a batch.

    Args:
        weights: Float32 variables by their Hugging Face name.
        architecture: The model's sizes.
        input_ids: Token ids, ``int32 [B, S]``.
        segment_ids: 0 for the question, 1 for the paragraph, ``int32 [B, S]``.
        token_mask: True for tokens and false for padding, ``bool [B, S]``.
        dtype: Type of the computation, ``tf.float32`` or ``tf.bfloat16``.
        rate: Dropout rate; 0 computes without dropout.
        seed: ``int32 [2]``, which decides all masks; needed where there is dropout.
        packing: Rows in which the tokens are computed, T of them.

    Returns:
        Hidden states ``float32 [T, H]``, packed.
    """
    keys = _keys(architecture, rate, seed)
    mask = tf.cast(tf.where(token_mask, 0.0, MASKED), dtype)[:, None, None, :]
    epsilon = architecture.layer_norm_eps

    def matrix(name: str) -> Tensor:
        return tf.cast(weights[f"{name}.weight"], dtype)

    def layer_norm(name: str, values: Tensor) -> tuple[Tensor, Tensor]:
        gamma, beta = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return normalize(values, gamma, beta, epsilon, dtype)

    embeddings = packing.pack(_embed(weights, input_ids, segment_ids))
    key = keys.pop()
    hidden, residual = (
        dropout(values, key) for values in layer_norm("bert.embeddings.LayerNorm", embeddings)
    )
    for number in range(architecture.num_hidden_layers):
        name = f"bert.encoder.layer.{number}"
        weight = tf.concat([matrix(f"{name}.attention.self.{part}") for part in _FUSED], 0)
        bias = tf.concat([weights[f"{name}.attention.self.{part}.bias"] for part in _FUSED], 0)
        values = packing.unpack(dense(hidden, weight))
        context = attend(values, bias, mask, architecture.num_attention_heads, keys.pop())
        total = add_dropped(
            dense(packing.pack(context), matrix(f"{name}.attention.output.dense")),
            weights[f"{name}.attention.output.dense.bias"],
            residual,
            keys.pop(),
        )
        hidden, residual = layer_norm(f"{name}.attention.output.LayerNorm", total)
        wide = add_bias_and_activate(
            dense(hidden, matrix(f"{name}.intermediate.dense")),
            weights[f"{name}.intermediate.dense.bias"],
            architecture.hidden_act,
        )
        total = add_dropped(
            dense(wide, matrix(f"{name}.output.dense")),
            weights[f"{name}.output.dense.bias"],
            residual,
            keys.pop(),
        )
        hidden, residual = layer_norm(f"{name}.output.LayerNorm", total)
    return residual


_FUSED = ("query", "key", "value")


def _keys(architecture: Architecture, rate: float, seed: Tensor | None) -> list[Tensor | None]:
    count = 1 + MASKS_PER_LAYER * architecture.num_hidden_layers
    if rate == 0:
        return [None] * count
    if seed is None:
        raise ValueError("dropout needs a seed")
    return list(dropout_keys(seed, rate, count))


def _embed(weights: Weights, input_ids: Tensor, segment_ids: Tensor) -> Tensor:
    """Sum of the word, position and segment embeddings, ``float32 [B·S, H]``."""
    name = "bert.embeddings"
    words = tf.gather(weights[f"{name}.word_embeddings.weight"], input_ids)
    positions = weights[f"{name}.position_embeddings.weight"][: tf.shape(input_ids)[1]]
    segments = weights[f"{name}.token_type_embeddings.weight"]
    # As a product, since the gradient of a small table is dense then and summed fast.
    chosen = tf.one_hot(segment_ids, segments.shape[0], dtype=segments.dtype)
    total = words + positions + tf.matmul(chosen, segments)
    return tf.reshape(total, [-1, words.shape[2]])
