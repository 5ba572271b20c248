"""A short run on real questions, as a person would start it: `bertkit train` on a SQuAD folder."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from bertkit.events import Evaluation, Step
from bertkit.run import Run

TIMEOUT = 840  # without bfloat16 instructions two cores need most of ten minutes


@pytest.fixture(scope="module")
def short_squad(squad_folder, tmp_path_factory):
    """All real training questions; of the validation articles the first two paragraphs."""
    folder = tmp_path_factory.mktemp("squad")
    (folder / "train-v1.1.json").symlink_to((squad_folder / "train-v1.1.json").resolve())
    dev = json.loads((squad_folder / "dev-v1.1.json").read_text())
    for article in dev["data"]:
        article["paragraphs"] = article["paragraphs"][:2]
    (folder / "dev-v1.1.json").write_text(json.dumps(dev))
    return folder


@pytest.mark.timeout(900)
def test_real_questions_are_learnt(short_squad, tmp_path):
    words = {
        "data": short_squad, "model": "minilm", "optimizer": "adamw", "learning_rate": 3e-4,
        "dropout": 0, "batch_size": 8, "num_epochs": 0.3, "group_by_length": True,
        "evaluate_every": 45, "evaluate_fraction": 1.0, "output": tmp_path / "runs", "engines": 2,
    }  # fmt: skip
    options = itertools.chain.from_iterable((f"--{n}", str(v)) for n, v in words.items())
    done = subprocess.run(
        [sys.executable, "-m", "bertkit", "train", *options], cwd=tmp_path, timeout=TIMEOUT,
        capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "120"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    run = Run(folder)
    losses = [event.loss for event in run.history() if isinstance(event, Step)]
    scores = [event.f1 for event in run.history() if isinstance(event, Evaluation)]
    assert run.result.stopped_by == "epochs"
    assert run.result.total == 169
    assert len(losses) == run.result.global_step == pytest.approx(0.3 * 4479 / 8, rel=0.1)
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:10])
    assert scores[0] < scores[-1]
    assert run.result.f1 > 40  # seen were 48; an untrained head finds about 5
    assert (folder / "curves.png").is_file()
