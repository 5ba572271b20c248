"""Keeps features on disk, so that they are made once for each data set and setting.

An entry is a folder named by a hash of all that decides about the features. It appears whole or not
at all, is memory-mapped when read, and is made anew when it is damaged. Where several ranks of one
host ask for the same entry at once, one makes it and the others wait.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from bertkit.errors import DataError
from bertkit.squad.dataset import Dataset
from bertkit.squad.features import Features, OnProgress, make_features

FORMAT_VERSION = 1
LOCK_TIMEOUT = 1800.0  # seconds; the largest data sets take a minute
_MANIFEST = "manifest.json"
_NAMES = tuple(field.name for field in dataclasses.fields(Features))


def cached_features(
    dataset: Dataset,
    tokenizer: tokenizers.Tokenizer,
    *,
    max_seq_length: int,
    doc_stride: int,
    max_query_length: int,
    training: bool,
    cache_folder: str | Path | None = None,
    lock_timeout: float = LOCK_TIMEOUT,
    on_progress: OnProgress | None = None,
) -> Features:
    """Read features from the cache, or make them and keep them there.

    Args:
        dataset: The questions.
        tokenizer: From `load_tokenizer`.
        max_seq_length: Longest feature, in tokens.
        doc_stride: Tokens from the beginning of one window to that of the next.
        max_query_length: Tokens of a question that are kept.
        training: Also find the answers' positions.
        cache_folder: Where entries are kept; by default ``bertkit/features`` in the user's cache.
        lock_timeout: Seconds to wait for another process that makes the same entry.
        on_progress: As in `make_features`; not called where the entry is there already.

    Returns:
        Features whose arrays are mapped from disk, read-only. Where the cache cannot be written
        (no permission, full disk), they are made in memory, with a warning.

    Raises:
        DataError: If another process holds the entry's lock for longer than ``lock_timeout``.
    """
    settings: dict[str, Any] = {
        "max_seq_length": max_seq_length,
        "doc_stride": doc_stride,
        "max_query_length": max_query_length,
        "training": training,
    }
    root = Path(cache_folder) if cache_folder else default_cache_folder()
    entry = root / _key(dataset, tokenizer, settings)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _lock(entry.with_suffix(".lock"), lock_timeout):
            features = _read(entry)
            if features is None:
                made = make_features(dataset, tokenizer, on_progress=on_progress, **settings)
                _write(entry, made)
                features = _read(entry) or made
            return features
    except OSError as error:
        warnings.warn(f"features are not kept in {root}: {error.strerror}", stacklevel=2)
        return make_features(dataset, tokenizer, on_progress=on_progress, **settings)


def default_cache_folder() -> Path:
    """``bertkit/features`` in ``XDG_CACHE_HOME``, or in ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bertkit" / "features"


def _key(dataset: Dataset, tokenizer: tokenizers.Tokenizer, settings: dict[str, Any]) -> str:
    decides = {
        "format": FORMAT_VERSION,
        "data": dataset.content_hash,
        "tokenizer": hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
        "tokenizers": tokenizers.__version__,
        **settings,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:40]


@contextmanager
def _lock(path: Path, timeout: float) -> Iterator[None]:
    """Hold a file's lock; it falls with the process, however that ends."""
    deadline = time.monotonic() + timeout
    with path.open("ab") as file:
        while not _try_lock(file.fileno()):
            if time.monotonic() > deadline:
                raise DataError(
                    f"{path}: another process has been making these features for "
                    f"{timeout:g} seconds; wait for it, or end it"
                )
            time.sleep(0.05)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(entry: Path, features: Features) -> None:
    """Write an entry beside its place, then move it there; the lock is held."""
    for remains in entry.parent.glob(f"{entry.name}.*.new"):  # of a process that was killed
        shutil.rmtree(remains, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{entry.name}.", suffix=".new", dir=entry.parent))
    try:
        sums = {}
        for name in _NAMES:
            values = getattr(features, name)
            np.save(folder / f"{name}.npy", values, allow_pickle=False)
            sums[name] = _checksum(values)
        (folder / _MANIFEST).write_text(json.dumps(sums), encoding="utf-8")
        shutil.rmtree(entry, ignore_errors=True)  # a damaged one
        folder.rename(entry)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read(entry: Path) -> Features | None:
    """Map an entry, or return ``None`` where it is missing or damaged in any way."""
    try:
        sums = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))
        arrays = {
            name: np.load(entry / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in _NAMES
        }
        intact = all(_checksum(arrays[name]) == sums[name] for name in _NAMES)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return Features(**arrays) if intact else None


def _checksum(values: np.ndarray[Any, Any]) -> list[Any]:
    """Element type, shape and CRC-32: enough to notice a torn or overwritten file."""
    return [values.dtype.str, list(values.shape), zlib.crc32(values.data)]
