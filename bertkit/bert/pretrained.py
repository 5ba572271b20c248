"""Pretrained models by folder, zip, hub id or name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bertkit.bert import google, hub, hugging_face
from bertkit.bert.architecture import Architecture
from bertkit.bert.weights import HEAD, shapes
from bertkit.errors import ModelError

PACKAGED = {"minilm": "bertkit_minilm"}
ACCEPTED = (
    "a Hugging Face folder (config.json, model.safetensors, vocab.txt), Google's release folder or "
    "zip (bert_config.json, bert_model.ckpt, vocab.txt), 'minilm' or a Hugging Face hub id"
)


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model as it was found.

    Args:
        name: What it was asked for as.
        architecture: Its sizes.
        tensors: Float32 weights by Hugging Face name, matrices ``[out, in]``. Without the pooler
            and other heads; without ``qa_outputs`` too where it was not fine-tuned.
        vocab_file: Its WordPiece vocabulary, one token a line.
        lowercase: Whether its tokenizer lowers case and strips accents.
    """

    name: str
    architecture: Architecture
    tensors: Mapping[str, NDArray[np.float32]]
    vocab_file: Path
    lowercase: bool


def load_pretrained(
    model: str, *, num_hidden_layers: int | None = None, cache: Path | None = None
) -> Pretrained:
    """Load a pretrained BERT.

    Args:
        model: A Hugging Face folder (``config.json``, ``model.safetensors``, ``vocab.txt``),
            Google's release folder or zip (``bert_config.json``, ``bert_model.ckpt.*``,
            ``vocab.txt``), ``minilm`` for the packaged 22M parameter model, or a hub id.
        num_hidden_layers: Keep only so many of the lowest layers.
        cache: Folder for extracted zips; by default ``~/.cache/bertkit``.

    Raises:
        ModelError: If the model is not there, or its files do not belong together.

    Example:
        >>> load_pretrained("minilm", num_hidden_layers=2).architecture.num_hidden_layers
        2
    """
    folder = _find(model, cache)
    files = google.find(folder) or hugging_face.find(folder)
    if files is None:
        raise ModelError(
            f"{folder} holds no BERT model; expected {ACCEPTED}; check the path or get it again"
        )
    architecture = Architecture.from_file(files.config)
    _check_vocabulary(files.vocab_file, architecture.vocab_size)
    architecture = keep_layers(architecture, num_hidden_layers)
    tensors = files.read(architecture)
    _check_tensors(folder, architecture, tensors)
    return Pretrained(model, architecture, tensors, files.vocab_file, files.lowercase)


def keep_layers(architecture: Architecture, num_hidden_layers: int | None) -> Architecture:
    """Sizes of the model that keeps only the lowest layers.

    Raises:
        ModelError: If the model has fewer layers.
    """
    if num_hidden_layers is None:
        return architecture
    if not 1 <= num_hidden_layers <= architecture.num_hidden_layers:
        raise ModelError(
            f"num_hidden_layers is {num_hidden_layers}; expected 1 to "
            f"{architecture.num_hidden_layers}, the layers of the pretrained model; "
            "choose fewer or leave it empty"
        )
    return dataclasses.replace(architecture, num_hidden_layers=num_hidden_layers)


def _find(model: str, cache: Path | None) -> Path:
    if model in PACKAGED:
        return _packaged(model)
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        return google.extract(path, cache)
    if path.exists() or _looks_like_path(model):
        raise ModelError(f"model {model!r} does not exist; expected {ACCEPTED}; check the path")
    return hub.fetch(model)


def _packaged(model: str) -> Path:
    try:
        return Path(str(resources.files(PACKAGED[model])))
    except ModuleNotFoundError:
        raise ModelError(
            f"model {model!r} needs the package {PACKAGED[model]}, which is not installed; "
            "install bertkit again or name another model"
        ) from None


def _looks_like_path(model: str) -> bool:
    return not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model) or model.endswith(".zip")


def _check_vocabulary(vocab_file: Path, expected: int) -> None:
    try:
        with vocab_file.open("rb") as file:
            found = sum(1 for _ in file)
    except OSError as error:
        raise ModelError(
            f"{vocab_file} cannot be read ({error.strerror}); expected the model's vocabulary; "
            "put vocab.txt next to the weights"
        ) from None
    if found != expected:
        raise ModelError(
            f"{vocab_file} holds {found} tokens; expected {expected}, the model's vocab_size; "
            "use the vocabulary the model was trained with"
        )


def _check_tensors(
    folder: Path, architecture: Architecture, tensors: Mapping[str, NDArray[np.float32]]
) -> None:
    for name, shape in shapes(architecture).items():
        if name not in tensors:
            if name in HEAD and not any(part in tensors for part in HEAD):
                continue
            raise ModelError(
                f"{folder} lacks the weight {name}; expected all weights of a BERT encoder; "
                "get the model again or choose another"
            )
        if tensors[name].shape != shape:
            raise ModelError(
                f"{folder}: weight {name} has the shape {list(tensors[name].shape)}; expected "
                f"{list(shape)} by its configuration; get the model again"
            )
