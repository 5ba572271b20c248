"""LAMB and AdamW over all tensors of a model, a layer at a time in one compiled update.

Both keep float32 weights and moments whatever the compute type, and both leave LayerNorm and
biases out of weight decay; LAMB also leaves them out of its trust ratio.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from bertkit.bert.islands import island
from bertkit.bert.weights import layer_of
from bertkit.config import Config

Tensor = Any  # tf.Tensor and tf.Variable carry no types that mypy could read


@dataclass(frozen=True)
class Hyperparameters:
    """The numbers of an update that stay the same during a run.

    Args:
        beta_1, beta_2: Decay of the two moments.
        epsilon: Added to the root of the second moment.
        weight_decay: Decoupled decay per unit of learning rate.
        clip_norm: Largest global gradient norm; 0 turns clipping off.
        trust_clip: Upper limit of the weight norm in LAMB's trust ratio; 0 sets none.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    trust_clip: float = 10.0

    @classmethod
    def from_config(cls, config: Config) -> Hyperparameters:
        """The fields of the same names in a run's configuration."""
        return cls(
            beta_1=config.beta_1,
            beta_2=config.beta_2,
            epsilon=config.epsilon,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
            trust_clip=config.trust_clip,
        )


class Optimizer:
    """Adam's moments for a list of variables, and the update that uses them.

    Args:
        kind: ``"lamb"`` or ``"adamw"``.
        variables: float32 variables, in the order in which gradients will come.
        names: Their names, which say what is left out of decay and trust ratio.
        hyperparameters: The numbers of the update.

    Example:
        >>> weight = tf.Variable([3.0, 4.0])
        >>> optimizer = Optimizer("lamb", [weight], ["weight"], Hyperparameters(clip_norm=0.0))
        >>> norm = optimizer.update([tf.constant([1.0, -1.0])], learning_rate=0.1, step=1)
        >>> round(float(norm), 4)
        1.4142
    """

    def __init__(
        self,
        kind: str,
        variables: Sequence[Tensor],
        names: Sequence[str],
        hyperparameters: Hyperparameters,
    ) -> None:
        self.variables = list(variables)
        self.first_moments = [tf.Variable(tf.zeros_like(v), trainable=False) for v in variables]
        self.second_moments = [tf.Variable(tf.zeros_like(v), trainable=False) for v in variables]
        self._add_rows = tf.function(_add_rows, reduce_retracing=True, autograph=False)
        self._hyperparameters = hyperparameters
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for number, name in enumerate(names):
            groups[layer_of(name)].append(number)
        self._groups = [
            (
                numbers,
                _updating(kind, tuple(is_excluded(names[i]) for i in numbers), hyperparameters),
            )
            for numbers in groups.values()
        ]

    def update(
        self, gradients: Sequence[Tensor | tf.IndexedSlices], *, learning_rate: float, step: int
    ) -> Tensor:
        """Change the variables in place.

        Args:
            gradients: Tensors of the variables' shapes, averaged over the global batch, or
                ``tf.IndexedSlices`` of a matrix of which only some rows have a gradient; a row
                may come again only as zeros. All rows' moments and weights move, as if the
                other rows were there as zeros.
            learning_rate: Learning rate of this step.
            step: The step's number from 1, for Adam's bias correction.

        Returns:
            The gradients' global norm before clipping, a float32 scalar.
        """
        numbers = self._hyperparameters
        sparse = {i: g for i, g in enumerate(gradients) if isinstance(g, tf.IndexedSlices)}
        dense = [None if i in sparse else gradient for i, gradient in enumerate(gradients)]
        squares = sum(tf.reduce_sum(tf.square(slices.values)) for slices in sparse.values())
        for group, _ in self._groups:
            squares += _sum_of_all_squares([dense[i] for i in group if dense[i] is not None])
        norm = tf.sqrt(squares)
        scale = clip_scale(norm, numbers.clip_norm)
        for i, slices in sparse.items():
            moments = self.first_moments[i], self.second_moments[i]
            self._add_rows(
                *moments, slices.indices, slices.values * scale, numbers.beta_1, numbers.beta_2
            )
        corrections = [1 / (1 - numbers.beta_1**step), 1 / (1 - numbers.beta_2**step)]
        scalars = tf.constant([learning_rate, *corrections], tf.float32)
        state = self.variables, self.first_moments, self.second_moments, dense
        for group, compiled in self._groups:
            compiled(*([values[i] for i in group] for values in state), scale, scalars)
        return norm


@functools.lru_cache(maxsize=16)  # a search over its numbers must not keep them all
def _updating(kind: str, excluded: Sequence[bool], numbers: Hyperparameters) -> Callable[..., None]:
    """The update of some tensors in one piece: no kernel a tensor, no temporary of its size.

    Compiled for one layer it serves all layers, and those of the next run in the same process.
    """
    direction_of = {"lamb": lamb_direction, "adamw": adamw_direction}[kind]

    def update(
        variables: list[Tensor],
        first_moments: list[Tensor],
        second_moments: list[Tensor],
        gradients: list[Tensor | None],
        scale: Tensor,
        scalars: Tensor,
    ) -> None:
        learning_rate, *corrections = tf.unstack(scalars)
        slots = zip(variables, first_moments, second_moments, gradients, excluded, strict=True)
        for variable, first, second, gradient, without in slots:
            if gradient is not None:
                gradient = tf.cast(gradient, tf.float32) * scale
            adam = _adam(first, second, gradient, corrections, numbers)
            variable.assign_sub(learning_rate * direction_of(variable, adam, without, numbers))

    return island(update)


def lamb_direction(
    weight: Tensor, adam: Tensor, excluded: bool, numbers: Hyperparameters
) -> Tensor:
    """LAMB's step direction for one tensor (You et al., arXiv 1904.00962, algorithm 2).

    ``phi(|x|) / |r + decay x| * (r + decay x)``, with ``phi`` the identity clipped at
    ``trust_clip``. The trust ratio is 1 where either norm is zero, and for excluded tensors.

    Args:
        weight: The tensor ``x``.
        adam: Adam's bias-corrected ratio ``r`` of the same shape.
        excluded: Whether this is a bias or a part of LayerNorm: no decay, no trust ratio.
        numbers: The update's numbers.
    """
    if excluded:
        return adam
    direction = adam + numbers.weight_decay * weight
    weight_norm = tf.sqrt(_sum_of_squares(weight))
    direction_norm = tf.sqrt(_sum_of_squares(direction))
    phi = tf.minimum(weight_norm, numbers.trust_clip) if numbers.trust_clip else weight_norm
    usable = (phi > 0) & (direction_norm > 0)
    trust_ratio = tf.where(usable, phi / tf.where(usable, direction_norm, 1.0), 1.0)
    return trust_ratio * direction


def adamw_direction(
    weight: Tensor, adam: Tensor, excluded: bool, numbers: Hyperparameters
) -> Tensor:
    """AdamW's step direction for one tensor (Loshchilov and Hutter, arXiv 1711.05101)."""
    return adam if excluded else adam + numbers.weight_decay * weight


def clip_scale(norm: Tensor, clip_norm: float) -> Tensor:
    """Factor that brings a global norm down to ``clip_norm``; 1 below it or where it is 0."""
    if not clip_norm:
        return tf.constant(1.0)
    return clip_norm / tf.maximum(norm, clip_norm)


def is_excluded(name: str) -> bool:
    """Whether a tensor of this name is left out of decay and trust ratio."""
    return name.endswith("bias") or "LayerNorm" in name


@island
def _sum_of_all_squares(tensors: list[Tensor]) -> Tensor:
    return tf.add_n([_sum_of_squares(tf.cast(tensor, tf.float32)) for tensor in tensors])


def _sum_of_squares(values: Tensor) -> Tensor:
    squares = tf.square(values)
    if len(values.shape) == 2:
        # Rows by a product, into whose loop XLA fuses the square; it would write a large matrix'
        # squares to memory to reduce them.
        squares = tf.matmul(squares, tf.ones([tf.shape(values)[1], 1]))
    return tf.reduce_sum(squares)


def _add_rows(
    first: Tensor, second: Tensor, rows: Tensor, gradient: Tensor, beta_1: float, beta_2: float
) -> None:
    """Put rows' gradients into moments that `_adam` will move on without a gradient."""
    first.scatter_add(tf.IndexedSlices(gradient * ((1 - beta_1) / beta_1), rows))
    second.scatter_add(tf.IndexedSlices(tf.square(gradient) * ((1 - beta_2) / beta_2), rows))


def _adam(
    first: Tensor,
    second: Tensor,
    gradient: Tensor | None,
    corrections: list[Tensor],
    numbers: Hyperparameters,
) -> Tensor:
    """Move both moments on and return their bias-corrected ratio."""
    mean = numbers.beta_1 * first
    square = numbers.beta_2 * second
    if gradient is not None:
        mean += (1 - numbers.beta_1) * gradient
        square += (1 - numbers.beta_2) * tf.square(gradient)
    first.assign(mean)
    second.assign(square)
    return mean * corrections[0] / (tf.sqrt(square * corrections[1]) + numbers.epsilon)
