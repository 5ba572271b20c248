"""Reading a Hugging Face folder: ``config.json``, ``model.safetensors``, ``vocab.txt``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf  # noqa: F401  (registers bfloat16 with NumPy, which safetensors needs)
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from bertkit.bert.architecture import Architecture
from bertkit.bert.weights import shapes
from bertkit.errors import ModelError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
VOCAB_FILE = "vocab.txt"
TOKENIZER_FILE = "tokenizer_config.json"
PICKLED_FILE = "pytorch_model.bin"

# Checkpoints converted from TensorFlow in 2018 keep its names for LayerNorm.
_OLD_ENDINGS = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))


@dataclass(frozen=True)
class HuggingFaceFiles:
    """The files of a model in Hugging Face's layout."""

    folder: Path

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.folder / CONFIG_FILE

    @property
    def vocab_file(self) -> Path:
        """Its vocabulary."""
        return self.folder / VOCAB_FILE

    @property
    def lowercase(self) -> bool:
        """What ``tokenizer_config.json`` says, by default what the folder's name says."""
        try:
            text = (self.folder / TOKENIZER_FILE).read_text(encoding="utf-8")
            value = json.loads(text).get("do_lower_case")
        except (OSError, ValueError, AttributeError):
            value = None
        return value if isinstance(value, bool) else lowercase_by_name(self.folder.name)

    def read(self, architecture: Architecture) -> dict[str, NDArray[np.float32]]:
        """Read the weights that a model of these sizes has; others stay on disk.

        Raises:
            ModelError: If a file is missing or broken.
        """
        wanted = shapes(architecture)
        tensors: dict[str, NDArray[np.float32]] = {}
        for path in self._weight_files():
            tensors.update(_read_file(path, wanted))
        return tensors

    def _weight_files(self) -> list[Path]:
        if (self.folder / WEIGHTS_FILE).is_file():
            return [self.folder / WEIGHTS_FILE]
        if (self.folder / INDEX_FILE).is_file():
            return self._shards()
        if (self.folder / PICKLED_FILE).is_file():
            raise ModelError(
                f"{self.folder} holds its weights only as {PICKLED_FILE}, a pickle that could run "
                f"any code; expected {WEIGHTS_FILE}; convert it with transformers' save_pretrained"
            )
        raise ModelError(
            f"{self.folder} holds no weights; expected {WEIGHTS_FILE} next to {CONFIG_FILE}; "
            "get the model again"
        )

    def _shards(self) -> list[Path]:
        path = self.folder / INDEX_FILE
        try:
            names = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, LookupError, AttributeError, TypeError):
            names = set()
        if not names or any(not isinstance(n, str) or Path(n).name != n for n in names):
            raise ModelError(
                f"{path} is broken; expected a weight_map with file names; get the model again"
            )
        return [self.folder / name for name in sorted(names)]


def find(folder: Path) -> HuggingFaceFiles | None:
    """The model in a folder, or ``None`` if the folder is none of Hugging Face's."""
    return HuggingFaceFiles(folder) if (folder / CONFIG_FILE).is_file() else None


def lowercase_by_name(name: str) -> bool:
    """Whether a model of this name lowers case: all do but those called ``cased``."""
    name = name.lower()
    return "uncased" in name or "cased" not in name


def _read_file(path: Path, wanted: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    tensors = {}
    try:
        with safe_open(path, framework="np") as file:
            for stored in file.keys():  # noqa: SIM118  (the file is no mapping)
                name = _current_name(stored)
                if name in wanted:
                    tensors[name] = file.get_tensor(stored).astype(np.float32)
    except (SafetensorError, OSError, TypeError) as error:
        raise ModelError(
            f"{path} cannot be read ({error}); expected weights in the safetensors format; "
            "get the model again"
        ) from None
    return tensors


def _current_name(stored: str) -> str:
    for old, new in _OLD_ENDINGS:
        if stored.endswith(old):
            stored = stored.removesuffix(old) + new
    encoder = stored.startswith(("embeddings.", "encoder."))
    return f"bert.{stored}" if encoder else stored
