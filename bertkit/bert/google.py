"""Reading Google's releases: ``bert_config.json``, ``bert_model.ckpt.*``, ``vocab.txt``, or a zip.

Names and shapes are those of google-research/bert: kernels are ``[in, out]`` there and ``[out,
in]`` here. A checkpoint fine-tuned by its ``run_squad.py`` has a question answering head as well.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from bertkit.bert.architecture import Architecture
from bertkit.bert.hugging_face import lowercase_by_name
from bertkit.errors import ModelError

CONFIG_FILE = "bert_config.json"
VOCAB_FILE = "vocab.txt"
CHECKPOINT = "bert_model.ckpt"

# (Google's name, Hugging Face's name) of the weights outside the layers.
EMBEDDINGS = (
    ("bert/embeddings/word_embeddings", "bert.embeddings.word_embeddings.weight"),
    ("bert/embeddings/position_embeddings", "bert.embeddings.position_embeddings.weight"),
    ("bert/embeddings/token_type_embeddings", "bert.embeddings.token_type_embeddings.weight"),
    ("bert/embeddings/LayerNorm/gamma", "bert.embeddings.LayerNorm.weight"),
    ("bert/embeddings/LayerNorm/beta", "bert.embeddings.LayerNorm.bias"),
)
HEAD = (
    ("cls/squad/output_weights", "qa_outputs.weight"),
    ("cls/squad/output_bias", "qa_outputs.bias"),
)
# Below bert/encoder/layer_N/ and bert.encoder.layer.N.; kernels are transposed.
LAYER = (
    ("attention/self/query/kernel", "attention.self.query.weight"),
    ("attention/self/query/bias", "attention.self.query.bias"),
    ("attention/self/key/kernel", "attention.self.key.weight"),
    ("attention/self/key/bias", "attention.self.key.bias"),
    ("attention/self/value/kernel", "attention.self.value.weight"),
    ("attention/self/value/bias", "attention.self.value.bias"),
    ("attention/output/dense/kernel", "attention.output.dense.weight"),
    ("attention/output/dense/bias", "attention.output.dense.bias"),
    ("attention/output/LayerNorm/gamma", "attention.output.LayerNorm.weight"),
    ("attention/output/LayerNorm/beta", "attention.output.LayerNorm.bias"),
    ("intermediate/dense/kernel", "intermediate.dense.weight"),
    ("intermediate/dense/bias", "intermediate.dense.bias"),
    ("output/dense/kernel", "output.dense.weight"),
    ("output/dense/bias", "output.dense.bias"),
    ("output/LayerNorm/gamma", "output.LayerNorm.weight"),
    ("output/LayerNorm/beta", "output.LayerNorm.bias"),
)


@dataclass(frozen=True)
class GoogleFiles:
    """The files of a model in Google's layout."""

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
        """What the folder's name says: ``uncased_L-12_H-768_A-12`` or ``cased_…``."""
        return lowercase_by_name(self.folder.name)

    def read(self, architecture: Architecture) -> dict[str, NDArray[np.float32]]:
        """Read the weights that a model of these sizes has.

        Raises:
            ModelError: If the checkpoint is missing or broken.
        """
        prefix = self._checkpoint()
        tensors = {}
        try:
            reader = tf.train.load_checkpoint(str(prefix))
            stored = reader.get_variable_to_shape_map()
            for theirs, ours in names(architecture):
                if theirs in stored:
                    values = np.asarray(reader.get_tensor(theirs), np.float32)
                    tensors[ours] = values.T.copy() if theirs.endswith("/kernel") else values
        except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(
                f"{prefix} cannot be read ({reason}); expected a TensorFlow checkpoint; "
                "get the model again"
            ) from None
        return tensors

    def _checkpoint(self) -> Path:
        # Fine-tuned ones are called model.ckpt-1234.
        found = sorted(self.folder.glob("*.ckpt*.index"))
        usual = self.folder / f"{CHECKPOINT}.index"
        if usual in found:
            found = [usual]
        if len(found) != 1:
            raise ModelError(
                f"{self.folder} holds {len(found)} checkpoints; expected {CHECKPOINT}.index and "
                f"{CHECKPOINT}.data-00000-of-00001; get the model again"
            )
        return found[0].with_suffix("")


def names(architecture: Architecture) -> list[tuple[str, str]]:
    """Pairs of Google's and Hugging Face's name for every weight of a model."""
    layers = [
        (f"bert/encoder/layer_{number}/{theirs}", f"bert.encoder.layer.{number}.{ours}")
        for number in range(architecture.num_hidden_layers)
        for theirs, ours in LAYER
    ]
    return [*EMBEDDINGS, *layers, *HEAD]


def find(folder: Path) -> GoogleFiles | None:
    """The model in a folder or its only subfolder, or ``None`` if there is none of Google's."""
    if (folder / CONFIG_FILE).is_file():
        return GoogleFiles(folder)
    below = list(folder.glob(f"*/{CONFIG_FILE}"))
    return GoogleFiles(below[0].parent) if len(below) == 1 else None


def extract(path: Path, cache: Path | None) -> Path:
    """Extract a release's zip, once.

    Only the files of a model are taken, by their last name, so that no path in the zip can lead
    out of the cache.

    Args:
        path: The zip.
        cache: Folder to extract into; by default ``~/.cache/bertkit``.

    Returns:
        The folder with the files, called as the zip.

    Raises:
        ModelError: If it is no zip, broken, or holds no BERT model.
    """
    status = path.stat()
    parent = (cache or _default_cache()) / f"{status.st_size:x}-{status.st_mtime_ns:x}"
    folder = parent / path.stem
    if folder.is_dir():
        return folder
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive)
            _extract(archive, members, parent, folder)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ModelError(
            f"{path} is no complete zip ({error}); expected a released BERT model; download it "
            "again"
        ) from None
    except OSError as error:
        raise ModelError(
            f"{path} cannot be extracted into {parent}: {error.strerror}; make room there or "
            "extract it by hand and name the folder"
        ) from None
    return folder


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members = {}
    for member in archive.infolist():
        name = Path(member.filename).name
        if name in (CONFIG_FILE, VOCAB_FILE) or name.startswith(f"{CHECKPOINT}."):
            members[name] = member
    if CONFIG_FILE not in members:
        raise ModelError(
            f"{path} holds no {CONFIG_FILE}; expected the zip of a released BERT model; "
            "check which file it is"
        )
    return members


def _extract(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], parent: Path, folder: Path
) -> None:
    with tempfile.TemporaryDirectory(dir=parent) as temporary:
        unfinished = Path(temporary) / "model"
        unfinished.mkdir()
        for name, member in members.items():
            with archive.open(member) as source, (unfinished / name).open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():  # another rank was faster
                raise


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bertkit"
