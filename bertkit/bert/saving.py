"""Saving a model as a folder that bertkit and Hugging Face's ``from_pretrained`` both load."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from bertkit.bert import hugging_face
from bertkit.bert.question_answering import QuestionAnswering


def save_pretrained(
    folder: Path, model: QuestionAnswering, *, vocab_file: Path, lowercase: bool
) -> None:
    """Write ``config.json``, ``model.safetensors``, ``vocab.txt`` and ``tokenizer_config.json``.

    Every file is on the disk when this returns. Files of the same names are replaced.

    Args:
        folder: Folder to write into; made if it does not exist.
        model: The model.
        vocab_file: Its vocabulary, which is copied.
        lowercase: Whether its tokenizer lowers case.

    Raises:
        OSError: If the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_object(folder / hugging_face.CONFIG_FILE, model.architecture.to_hugging_face())
    _write_object(folder / hugging_face.TOKENIZER_FILE, _tokenizer(model, lowercase))
    vocabulary = folder / hugging_face.VOCAB_FILE
    if not (vocabulary.exists() and vocabulary.samefile(vocab_file)):
        shutil.copyfile(vocab_file, vocabulary)
    tensors = {
        name: variable.numpy()
        for name, variable in zip(model.variable_names, model.variables, strict=True)
    }
    # transformers refuses files that do not say "pt".
    save_file(tensors, folder / hugging_face.WEIGHTS_FILE, metadata={"format": "pt"})
    for name in (*_FILES, "."):
        _sync(folder / name)


_FILES = (
    hugging_face.CONFIG_FILE,
    hugging_face.TOKENIZER_FILE,
    hugging_face.VOCAB_FILE,
    hugging_face.WEIGHTS_FILE,
)


def _tokenizer(model: QuestionAnswering, lowercase: bool) -> dict[str, Any]:
    return {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": lowercase,
        "model_max_length": model.architecture.max_position_embeddings,
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "tokenize_chinese_chars": True,
        "strip_accents": None,
    }


def _write_object(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
