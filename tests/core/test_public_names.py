"""What `from bertkit import …` gives, and what it loads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import bertkit

NOT_SAID = {"TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS"}  # other tests may have set them


def _fresh(code):
    """What a new interpreter prints for a piece of code."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False,
        env={name: value for name, value in os.environ.items() if name not in NOT_SAID},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("name", bertkit.__all__)
def test_every_name_is_there(name):
    assert getattr(bertkit, name) is not None


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        _ = bertkit.Trainer


def test_what_needs_no_tensorflow_does_not_load_it():
    code = "from bertkit import *; import sys; print('tensorflow' in sys.modules)"
    light = code.replace("*", "SDA, BertkitError, Cluster, Config, Result, Run, preset")
    assert _fresh(light) == ("False\n", "")


@pytest.mark.parametrize(
    "wanted",
    [
        "bertkit import Predictor",
        "bertkit import train_here",
        "bertkit.bert import load_pretrained",
    ],
)
def test_tensorflow_is_loaded_without_its_remarks_and_with_onednn(wanted):
    code = f"from {wanted}; import os; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    assert _fresh(code) == ("1\n", "")
