"""BERT in plain TensorFlow and float64, op by op, for TensorFlow to differentiate by itself.

Written from Devlin et al. (2018) and Vaswani et al. (2017), with none of bertkit's operations.
Dropout multiplies by masks that the caller gives, each scaled already, in the order: embeddings,
then attention probabilities, attention output and feed-forward output of each layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import tensorflow as tf

from bertkit.bert.architecture import Architecture


def activation(name, x):
    if name == "gelu":
        return 0.5 * x * (1 + tf.math.erf(x / math.sqrt(2)))
    if name == "gelu_new":
        return 0.5 * x * (1 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return tf.maximum(x, tf.zeros([], x.dtype))


def layer_norm(weights, name, x, epsilon):
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    normalized = (x - mean) / tf.sqrt(variance + tf.constant(epsilon, x.dtype))
    return normalized * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(weights, name, x):
    return tf.einsum("bsi,oi->bso", x, weights[f"{name}.weight"]) + weights[f"{name}.bias"]


def logits(weights, sizes: Architecture, input_ids, segment_ids, lengths, masks=None):
    """Logits ``float64 [B, S, 2]``, -1e9 in the padding."""
    batch, length = input_ids.shape
    heads, size = sizes.num_attention_heads, sizes.head_size
    present = tf.sequence_mask(lengths, length)
    mask: Iterator = iter(masks) if masks is not None else iter(lambda: None, 0)

    def dropped(x):
        factor = next(mask)
        return x if factor is None else x * tf.reshape(tf.cast(factor, x.dtype), x.shape)

    def by_head(x):
        return tf.transpose(tf.reshape(x, [batch, length, heads, size]), [0, 2, 1, 3])

    name = "bert.embeddings"
    x = tf.gather(weights[f"{name}.word_embeddings.weight"], input_ids)
    x += tf.gather(weights[f"{name}.position_embeddings.weight"], tf.range(length))
    x += tf.gather(weights[f"{name}.token_type_embeddings.weight"], segment_ids)
    x = dropped(layer_norm(weights, f"{name}.LayerNorm", x, sizes.layer_norm_eps))
    for number in range(sizes.num_hidden_layers):
        name = f"bert.encoder.layer.{number}"
        query, key, value = (
            by_head(linear(weights, f"{name}.attention.self.{part}", x))
            for part in ("query", "key", "value")
        )
        scores = tf.einsum("baid,bajd->baij", query, key) / math.sqrt(size)
        scores = tf.where(present[:, None, None, :], scores, tf.constant(-1e9, scores.dtype))
        found = tf.einsum("baij,bajd->baid", dropped(tf.nn.softmax(scores)), value)
        found = tf.reshape(tf.transpose(found, [0, 2, 1, 3]), [batch, length, heads * size])
        x += dropped(linear(weights, f"{name}.attention.output.dense", found))
        x = layer_norm(weights, f"{name}.attention.output.LayerNorm", x, sizes.layer_norm_eps)
        wide = activation(sizes.hidden_act, linear(weights, f"{name}.intermediate.dense", x))
        x += dropped(linear(weights, f"{name}.output.dense", wide))
        x = layer_norm(weights, f"{name}.output.LayerNorm", x, sizes.layer_norm_eps)
    result = linear(weights, "qa_outputs", x)
    return tf.where(present[..., None], result, tf.constant(-1e9, result.dtype))


def loss(scores, starts, ends, weights):
    """Sum of ``weight * (CE(start) + CE(end)) / 2``, by the definition of the cross-entropy."""
    logs = tf.nn.log_softmax(scores, 1)
    chosen = tf.gather(logs[..., 0], starts, batch_dims=1)
    chosen += tf.gather(logs[..., 1], ends, batch_dims=1)
    return -tf.reduce_sum(tf.cast(weights, scores.dtype) * chosen) / 2
