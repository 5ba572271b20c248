"""What several rooms' tests share."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
from pathlib import Path

import pytest

from bertkit.config import Config
from tests import tiny  # loads TensorFlow as engines have it

CHECKOUT = Path(__file__).resolve().parents[1]

# A shell's background job ignores Ctrl-C, and hands that on to every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="module")
def cache_of_our_own(tmp_path_factory):
    """Features are kept away from the user's cache; subprocesses inherit this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """An encoder of 2 layers, 32 wide, in Hugging Face's layout."""
    return tiny.write_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_squad(tmp_path_factory) -> Path:
    """800 training and 40 validation questions that the tiny model can learn."""
    return tiny.write_questions(tmp_path_factory.mktemp("tiny") / "squad", train=800)


@pytest.fixture(scope="session")
def tiny_config(tiny_model, tiny_squad) -> Config:
    """A run of 200 steps that crosses an F1 of 90 after some 120 of them."""
    return Config(**tiny.settings(tiny_model, tiny_squad))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own of 4 MiB, which a test can fill."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "bertkit-test", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no small file system can be mounted here: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=10)
