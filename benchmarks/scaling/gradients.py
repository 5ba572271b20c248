"""What one optimizer step sends: the sizes of a model's gradients, fused as Horovod fuses them.

bertkit sends one gradient a weight, but of the word embeddings only the rows that the global batch
touches (`bertkit.training.step`), and two numbers beside them: the loss and whether to stop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from benchmarks.work import SIZES
from bertkit.bert.weights import shapes
from bertkit.training.step import ROWS_MULTIPLE, WORD_EMBEDDINGS

FUSION_BYTES = 128 * 2**20  # HOROVOD_FUSION_THRESHOLD's default in 0.28
FLOAT32, FLOAT16 = 4, 2
LOSS_AND_STOP = (2,)


class Buffer(NamedTuple):
    """What goes round at once.

    Args:
        bytes: Its size.
        is_half: Whether it holds float16, which Gloo adds number by number.
    """

    bytes: float
    is_half: bool = False


@dataclass(frozen=True)
class Gradients:
    """The tensors of one sum over ranks.

    Args:
        shapes: Shape of each tensor, in the model's order.
        compression: ``"none"`` or ``"float16"``, as in `bertkit.config.Config`.
    """

    shapes: tuple[tuple[int, ...], ...]
    compression: str = "none"

    @property
    def tensor_bytes(self) -> list[int]:
        """Bytes that each tensor travels as; vectors always travel in float32."""
        return [math.prod(shape) * self._width(shape) for shape in self.shapes]

    @property
    def bytes(self) -> int:
        """Bytes of all."""
        return sum(self.tensor_bytes)

    @cached_property
    def buffers(self) -> list[Buffer]:
        """The buffers in which they are summed, one type after the other."""
        widths = sorted({self._width(shape) for shape in self.shapes})
        return [
            Buffer(size, width == FLOAT16)
            for width in widths
            for size in fuse([math.prod(s) * width for s in self.shapes if self._width(s) == width])
        ]

    def _width(self, shape: Sequence[int]) -> int:
        return FLOAT16 if self.compression == "float16" and len(shape) > 1 else FLOAT32


@lru_cache(maxsize=1024)
def gradients_of(model: str, rows: int, compression: str = "none") -> Gradients:
    """What a step of a model sends.

    Args:
        model: Name in `benchmarks.work.SIZES`.
        rows: Distinct tokens of the global batch.
        compression: ``"none"`` or ``"float16"``.

    Example:
        >>> gradients_of("large", 5000).bytes / 1e9
        1.231...
    """
    architecture = SIZES[model]
    rows = min(architecture.vocab_size, -(-rows // ROWS_MULTIPLE) * ROWS_MULTIPLE)
    sizes = dict(shapes(architecture))
    sizes[WORD_EMBEDDINGS] = (rows, architecture.hidden_size)
    return Gradients((*(tuple(size) for size in sizes.values()), LOSS_AND_STOP), compression)


def fuse(sizes: Sequence[int], threshold: int = FUSION_BYTES) -> list[int]:
    """Sizes of Horovod's fusion buffers: tensors in order, as long as they fit together.

    Example:
        >>> fuse([3, 4, 5, 20, 1], threshold=8)
        [7, 5, 20, 1]
    """
    buffers: list[int] = []
    for size in sizes:
        if buffers and buffers[-1] + size <= threshold:
            buffers[-1] += size
        else:
            buffers.append(size)
    return buffers
