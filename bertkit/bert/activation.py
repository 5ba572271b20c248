"""Bias and activation of the feed-forward layers, as one pass.

GELU (Hendrycks and Gimpel, arXiv 1606.08415) is ``x · Φ(x)`` with the normal distribution Φ. In
float32 Φ comes from ``erf``. In bfloat16, whose values carry 8 bits, Φ and the derivative come from
odd polynomials that are exact to more bits than that and cost a few multiplications.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from bertkit.bert.dense import column_sums
from bertkit.bert.islands import Gradients, differentiable, island

Tensor = Any
Curve = Callable[[Tensor], Tensor]


def add_bias_and_activate(values: Tensor, bias: Tensor, activation: str) -> Tensor:
    """Add a bias and apply the activation function.

    Args:
        values: ``[T, N]`` in the precision of the computation.
        bias: ``float32 [N]``.
        activation: ``gelu``, ``gelu_new`` or ``relu``.

    Returns:
        ``[T, N]`` of the type of ``values``.
    """
    activate, differentiate = _islands(activation, values.dtype == tf.bfloat16)

    def forward(values: Tensor, bias: Tensor) -> tuple[Tensor, Gradients]:
        def backward(gradient: Tensor) -> tuple[Tensor, Tensor]:
            to_values = differentiate(gradient, values, bias)
            return to_values, column_sums(to_values)

        return activate(values, bias), backward

    return differentiable(forward, values, bias)


@dataclass(frozen=True)
class _Activation:
    value: Curve
    derivative: Curve


@functools.cache
def _islands(activation: str, coarse: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    curves = _activation(activation, coarse)

    def activate(values: Tensor, bias: Tensor) -> Tensor:
        return tf.cast(curves.value(tf.cast(values, tf.float32) + bias), values.dtype)

    def differentiate(gradient: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        slope = curves.derivative(tf.cast(values, tf.float32) + bias)
        return tf.cast(tf.cast(gradient, tf.float32) * slope, values.dtype)

    return island(activate), island(differentiate)


def _activation(name: str, coarse: bool) -> _Activation:
    if name == "relu":
        return _Activation(tf.nn.relu, lambda x: tf.cast(x > 0, x.dtype))
    if name == "gelu_new":
        return _Activation(_gelu_tanh, _gelu_tanh_derivative)
    if coarse:
        return _Activation(_gelu_coarse, _gelu_coarse_derivative)
    return _Activation(_gelu, _gelu_derivative)


def _gelu(x: Tensor) -> Tensor:
    return x * _normal_distribution(x)


def _gelu_derivative(x: Tensor) -> Tensor:
    return _normal_distribution(x) + x * tf.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))


def _normal_distribution(x: Tensor) -> Tensor:
    return 0.5 + 0.5 * tf.math.erf(x * math.sqrt(0.5))


def _gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + tf.tanh(_tanh_argument(x)))


def _gelu_tanh_derivative(x: Tensor) -> Tensor:
    tanh = tf.tanh(_tanh_argument(x))
    slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * slope


def _tanh_argument(x: Tensor) -> Tensor:
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)


@dataclass(frozen=True)
class _OddPolynomial:
    """A polynomial in odd powers for ``|x| <= limit`` that stays at ±0.5 beyond."""

    limit: float
    coefficients: tuple[float, ...]

    def __call__(self, x: Tensor) -> Tensor:
        x = tf.clip_by_value(x, -self.limit, self.limit)
        square = x * x
        total = tf.constant(self.coefficients[-1], x.dtype)
        for coefficient in self.coefficients[-2::-1]:
            total = total * square + coefficient
        return total * x


def _fit(
    curve: Callable[[NDArray[np.float64]], NDArray[np.float64]], limit: float, terms: int
) -> _OddPolynomial:
    """Fit an odd curve by least squares at Chebyshev points, with 0.5 at the limit."""
    nodes = np.cos(np.pi * (np.arange(2000) + 0.5) / 4000)
    # p(u) = u/2 + u (u² - 1) q(u²) for u = x / limit is 0.5 at u = 1 whatever q is.
    basis = np.stack([nodes * (nodes**2 - 1) * nodes ** (2 * k) for k in range(terms - 1)], axis=1)
    q = np.linalg.lstsq(basis, curve(nodes * limit) - nodes / 2, rcond=None)[0]
    scaled = np.append(0.0, q) - np.append(q, 0.0)
    scaled[0] += 0.5
    powers = limit ** -(2.0 * np.arange(terms) + 1)
    return _OddPolynomial(limit, tuple(float(c) for c in scaled * powers))


def _phi_minus_half(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([0.5 * math.erf(value / math.sqrt(2)) for value in x])


def _slope_minus_half(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return _phi_minus_half(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


_PHI = _fit(_phi_minus_half, limit=3.9, terms=8)
_SLOPE = _fit(_slope_minus_half, limit=4.4, terms=9)


def _gelu_coarse(x: Tensor) -> Tensor:
    return x * (0.5 + _PHI(x))


def _gelu_coarse_derivative(x: Tensor) -> Tensor:
    return 0.5 + _SLOPE(x)
