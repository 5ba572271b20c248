"""Trainings of a few steps whose speed is compared: on what, and what of them is counted."""

from __future__ import annotations

import json
from pathlib import Path

from bertkit import Config
from bertkit.events import Step
from bertkit.run import Run
from bertkit.squad.sample import write_sample

LEFT_OUT = 20
"""Steps at the beginning that are compiled, or warm up, and are not compared."""

DEV_PARAGRAPHS = 2
"""A run scores its model at the end; a few questions do."""


def sample_config(folder: Path, steps: int) -> Config:
    """The 22M model on the bundled sample for so many counted steps, without a pause for anything.

    Args:
        folder: Where the sample and the runs go.
        steps: Steps to count.
    """
    write_sample(folder / "sample")
    return Config(
        data=str(folder / "sample"), dev_file=str(_few_dev_questions(folder / "sample")),
        num_epochs=1000.0, output=str(folder / "runs"), target_f1=100.1,
        step_threshold=LEFT_OUT + steps, evaluate_every=0, checkpoint_every=0,
    )  # fmt: skip


def counted_steps(run: Run) -> list[Step]:
    """The steps of a run after the first ones."""
    return [event for event in run.history() if isinstance(event, Step)][LEFT_OUT:]


def examples_per_second(run: Run) -> float:
    """Examples over the time from the first to the last counted step, pauses included."""
    steps = counted_steps(run)
    return sum(step.examples for step in steps[1:]) / (steps[-1].time - steps[0].time)


def _few_dev_questions(folder: Path) -> Path:
    content = json.loads((folder / "dev-v1.1.json").read_text(encoding="utf-8"))
    article = content["data"][0]
    article["paragraphs"] = article["paragraphs"][:DEV_PARAGRAPHS]
    path = folder / "dev-few.json"
    path.write_text(json.dumps({**content, "data": [article]}), encoding="utf-8")
    return path
