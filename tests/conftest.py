"""What several rooms' tests share."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def squad_folder() -> Path:
    """Real SQuAD data, which is not part of the project."""
    named = os.environ.get("BERTKIT_SQUAD_DIR")
    folder = Path(named) if named else CHECKOUT.parent / "shared" / "squad"
    if not (folder / "dev-v1.1.json").is_file():
        pytest.skip(f"no real SQuAD data in {folder}; name its folder in BERTKIT_SQUAD_DIR")
    return folder


@pytest.fixture(scope="session")
def vocab_file() -> Path:
    """The uncased vocabulary of the packaged model."""
    found = importlib.util.find_spec("bertkit_minilm")
    if found is None or found.origin is None:
        pytest.skip("the packaged model bertkit-minilm is not installed")
    return Path(found.origin).parent / "vocab.txt"
