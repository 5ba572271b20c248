"""A tiny model and its questions, and how a test configures a run on them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bertkit.config import Config
from tests import tiny


@pytest.fixture(scope="session", autouse=True)
def _cache_of_our_own(tmp_path_factory):
    """Features are kept away from the user's cache; subprocesses inherit this."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """An encoder of 2 layers, 32 wide."""
    return tiny.write_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_squad(tmp_path_factory) -> Path:
    """800 training and 40 validation questions that the tiny model can learn."""
    return tiny.write_questions(tmp_path_factory.mktemp("tiny") / "squad", train=800)


@pytest.fixture(scope="session")
def tiny_config(tiny_model, tiny_squad) -> Config:
    """A run of 200 steps that crosses an F1 of 90 after about 120 of them."""
    return Config(**tiny.settings(tiny_model, tiny_squad))
