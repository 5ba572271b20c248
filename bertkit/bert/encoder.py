"""BERT's encoder (Devlin et al., arXiv 1810.04805): embeddings, then layers alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from bertkit.bert.activation import add_bias_and_activate
from bertkit.bert.architecture import Architecture
from bertkit.bert.attention import MASKED, Heads, attend
from bertkit.bert.dense import dense
from bertkit.bert.dropout import dropout_keys
from bertkit.bert.normalization import add_and_normalize, embed

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
    dropout: float,
    seed: Tensor | None,
) -> Tensor:
    """Compute the last hidden states of a batch.

    Args:
        weights: Float32 variables by their Hugging Face name.
        architecture: The model's sizes.
        input_ids: Token ids, ``int32 [B, S]``.
        segment_ids: 0 for the question, 1 for the paragraph, ``int32 [B, S]``.
        token_mask: True for tokens and false for padding, ``bool [B, S]``.
        dtype: Type of the computation, ``tf.float32`` or ``tf.bfloat16``.
        dropout: Dropout rate; 0 computes without dropout.
        seed: ``int32 [2]``, which decides all masks; needed where there is dropout.

    Returns:
        Hidden states ``[B·S, H]`` of type ``dtype``.
    """
    keys = _keys(architecture, dropout, seed)
    shape = tf.shape(input_ids)
    heads = Heads(shape[0], shape[1], architecture.num_attention_heads, architecture.head_size)
    mask = tf.where(token_mask, 0.0, MASKED)
    epsilon = architecture.layer_norm_eps

    name = "bert.embeddings."
    hidden, residual = embed(
        tf.gather(weights[name + "word_embeddings.weight"], input_ids),
        weights[name + "position_embeddings.weight"][: shape[1]],
        _lookup_few(weights[name + "token_type_embeddings.weight"], segment_ids),
        weights[name + "LayerNorm.weight"],
        weights[name + "LayerNorm.bias"],
        epsilon=epsilon, key=keys.pop(), rate=dropout, dtype=dtype,
    )  # fmt: skip
    for number in range(architecture.num_hidden_layers):
        name = f"bert.encoder.layer.{number}."
        weight, bias = _fused(weights, name + "attention.self.")
        context = attend(
            dense(hidden, tf.cast(weight, dtype)), bias, mask, heads, key=keys.pop(), rate=dropout
        )
        hidden, residual = add_and_normalize(
            dense(context, tf.cast(weights[name + "attention.output.dense.weight"], dtype)),
            weights[name + "attention.output.dense.bias"],
            residual,
            weights[name + "attention.output.LayerNorm.weight"],
            weights[name + "attention.output.LayerNorm.bias"],
            epsilon=epsilon, key=keys.pop(), rate=dropout,
        )  # fmt: skip
        wide = add_bias_and_activate(
            dense(hidden, tf.cast(weights[name + "intermediate.dense.weight"], dtype)),
            weights[name + "intermediate.dense.bias"],
            architecture.hidden_act,
        )
        hidden, residual = add_and_normalize(
            dense(wide, tf.cast(weights[name + "output.dense.weight"], dtype)),
            weights[name + "output.dense.bias"],
            residual,
            weights[name + "output.LayerNorm.weight"],
            weights[name + "output.LayerNorm.bias"],
            epsilon=epsilon, key=keys.pop(), rate=dropout,
        )  # fmt: skip
    return hidden


def _keys(architecture: Architecture, dropout: float, seed: Tensor | None) -> list[Tensor | None]:
    count = 1 + MASKS_PER_LAYER * architecture.num_hidden_layers
    if dropout == 0:
        return [None] * count
    if seed is None:
        raise ValueError("dropout needs a seed")
    return list(dropout_keys(seed, count))


def _fused(weights: Weights, name: str) -> tuple[Tensor, Tensor]:
    """Query, key and value weights below each other, ``[3H, H]`` and ``[3H]``."""
    parts = ("query", "key", "value")
    weight = tf.concat([weights[f"{name}{part}.weight"] for part in parts], 0)
    bias = tf.concat([weights[f"{name}{part}.bias"] for part in parts], 0)
    return weight, bias


def _lookup_few(table: Tensor, indices: Tensor) -> Tensor:
    """Rows of a small table; as a product, since its gradient is dense then and summed fast."""
    return tf.matmul(tf.one_hot(indices, table.shape[0], dtype=table.dtype), table)
