"""Leaves padding out of all that is done token by token, which is all but attention.

A batch has a place for every token of every example, ``B·S`` of them, many of which are padding.
Packed, it has one row a token, and a few rows of padding so that shapes are few (the idea is that
of ByteTransformer: Zhai et al., arXiv 2210.03052). Attention alone needs the places.

Going from one to the other and back takes two gathers, and each is the other's gradient: a row
has one place and a place one row, except for padding, whose places and rows stand for each other
and whose gradients are zero.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bertkit.bert.islands import Gradients, differentiable

Tensor = Any


class Packing:
    """Which row holds the token of which place.

    Args:
        token_mask: True for tokens and false for padding, ``bool [B, S]``.
        count: Number T of rows, ``int32 []``: more than there are tokens, or as many as places.
    """

    def __init__(self, token_mask: Tensor, count: Tensor) -> None:
        is_token = tf.reshape(token_mask, [-1])
        places_of_tokens = tf.cast(tf.where(is_token)[:, 0], tf.int32)
        tokens = tf.shape(places_of_tokens)[0]
        some_padding = tf.argmin(tf.cast(is_token, tf.int32), output_type=tf.int32)
        padding_rows = tf.fill([count - tokens], some_padding)
        self._places = tf.concat([places_of_tokens, padding_rows], 0)
        rows_of_tokens = tf.cumsum(tf.cast(is_token, tf.int32), exclusive=True)
        self._rows = tf.where(is_token, rows_of_tokens, tokens)

    def pack(self, values: Tensor) -> Tensor:
        """Bring ``[B·S, N]`` to ``[T, N]``."""
        return _gather(values, self._places, self._rows)

    def unpack(self, values: Tensor) -> Tensor:
        """Bring ``[T, N]`` to ``[B·S, N]``."""
        return _gather(values, self._rows, self._places)


class Unpacked:
    """A row for every place, for batches without padding."""

    def pack(self, values: Tensor) -> Tensor:
        """Leave ``values`` as they are."""
        return values

    def unpack(self, values: Tensor) -> Tensor:
        """Leave ``values`` as they are."""
        return values


def _gather(values: Tensor, there: Tensor, back: Tensor) -> Tensor:
    def forward(values: Tensor) -> tuple[Tensor, Gradients]:
        return tf.gather(values, there), lambda gradient: tf.gather(gradient, back)

    return differentiable(forward, values)
