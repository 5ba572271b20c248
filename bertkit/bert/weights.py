"""Names and shapes of a BERT question answering model's weights, and how fresh ones are drawn."""

from __future__ import annotations

import re
import zlib

import numpy as np
from numpy.typing import NDArray

from bertkit.bert.architecture import Architecture

HEAD = ("qa_outputs.weight", "qa_outputs.bias")


def shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Shape of every weight by its Hugging Face name, in Hugging Face's order.

    Matrices are ``[out, in]``, as there.

    Example:
        >>> shapes(Architecture())["qa_outputs.weight"]
        (2, 768)
    """
    hidden, wide = architecture.hidden_size, architecture.intermediate_size
    sizes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (architecture.vocab_size, hidden),
        "bert.embeddings.position_embeddings.weight": (
            architecture.max_position_embeddings,
            hidden,
        ),
        "bert.embeddings.token_type_embeddings.weight": (architecture.type_vocab_size, hidden),
        "bert.embeddings.LayerNorm.weight": (hidden,),
        "bert.embeddings.LayerNorm.bias": (hidden,),
    }
    for number in range(architecture.num_hidden_layers):
        for name, size in _layer_shapes(hidden, wide).items():
            sizes[f"bert.encoder.layer.{number}.{name}"] = size
    sizes["qa_outputs.weight"] = (2, hidden)
    sizes["qa_outputs.bias"] = (2,)
    return sizes


def draw(architecture: Architecture, name: str, seed: int) -> NDArray[np.float32]:
    """Draw a fresh weight: normal matrices, LayerNorm scales of one, everything else zero.

    Args:
        architecture: The model's sizes.
        name: The weight's Hugging Face name.
        seed: With the name it decides the values, whichever other weights are drawn.

    Returns:
        ``float32``, of the weight's shape.
    """
    shape = shapes(architecture)[name]
    if name.endswith(".bias"):
        return np.zeros(shape, np.float32)
    if name.endswith("LayerNorm.weight"):
        return np.ones(shape, np.float32)
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = generator.standard_normal(shape, np.float32)
    return values * np.float32(architecture.initializer_range)


def layer_of(name: str) -> str:
    """The encoder layer that a weight belongs to, as the beginning of its name; else nothing.

    Example:
        >>> layer_of("bert.encoder.layer.3.output.dense.bias"), layer_of("qa_outputs.bias")
        ('bert.encoder.layer.3', '')
    """
    found = re.match(r"bert\.encoder\.layer\.\d+", name)
    return found[0] if found else ""


def _layer_shapes(hidden: int, wide: int) -> dict[str, tuple[int, ...]]:
    return {
        "attention.self.query.weight": (hidden, hidden),
        "attention.self.query.bias": (hidden,),
        "attention.self.key.weight": (hidden, hidden),
        "attention.self.key.bias": (hidden,),
        "attention.self.value.weight": (hidden, hidden),
        "attention.self.value.bias": (hidden,),
        "attention.output.dense.weight": (hidden, hidden),
        "attention.output.dense.bias": (hidden,),
        "attention.output.LayerNorm.weight": (hidden,),
        "attention.output.LayerNorm.bias": (hidden,),
        "intermediate.dense.weight": (wide, hidden),
        "intermediate.dense.bias": (wide,),
        "output.dense.weight": (hidden, wide),
        "output.dense.bias": (hidden,),
        "output.LayerNorm.weight": (hidden,),
        "output.LayerNorm.bias": (hidden,),
    }
