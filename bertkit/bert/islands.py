"""Two ways to say what TensorFlow should do with a function: fuse it, or differentiate it by hand.

A BERT step on a processor spends more time between its matrix products than in them, unless the
element-wise work between two products is one pass over memory. An `island` is such a pass: a
function that XLA compiles into a loop or two. Matrix products and softmax stay outside, because
oneDNN does those faster than XLA. An operation made of islands and products says its own gradient
with `differentiable`, so that forward and backward stand side by side and a gradient tape over an
encoder made of such operations is as fast as a backward pass written out by hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

Tensor = Any
Gradients = Callable[..., Any]
Function = TypeVar("Function", bound=Callable[..., Any])

# XLA reads its flags when it compiles first. It would use half of a 512 bit register; a processor
# without those takes two of its own.
_WIDTH = "--xla_cpu_prefer_vector_width"
if _WIDTH not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_WIDTH}=512".strip()


def island(function: Function) -> Function:
    """Have XLA compile ``function`` into one piece, once for each new shape of its arguments.

    Layers share an island, and so its compiled code. Python values among the arguments are
    constants of the code.
    """
    compiled: Function = tf.function(function, jit_compile=True, autograph=False)
    return compiled


def differentiable(function: Callable[..., tuple[Any, Gradients]], *tensors: Tensor) -> Any:
    """Call ``function(*tensors)``, which returns its result and how to differentiate it.

    Args:
        function: Returns its result (a tensor or a tuple of tensors) and a function from the
            result's gradients to the gradients of ``tensors``.
        *tensors: Every tensor that a gradient goes to. Others may be captured.
    """

    def without_tape(*arguments: Tensor) -> tuple[Any, Gradients]:
        # A tape that saw the islands would have XLA compile them a second time, with all their
        # intermediate values as results.
        return function(*map(tf.stop_gradient, arguments))

    return tf.custom_gradient(without_tape)(*tensors)
