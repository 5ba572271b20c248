"""Writes a run's folder through the real event log, at a chosen pace.

Readers of events are developed and tested against such a folder: it is what a training process
writes, only that the numbers come from a formula and no processor time is spent on them.
`python recorded_run.py FOLDER --steps 300 --hz 20` writes one in a process of its own.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bertkit.config import Config
from bertkit.events import (
    Checkpoint,
    Evaluation,
    Event,
    EventLog,
    Finished,
    Notice,
    Progress,
    RankInfo,
    Started,
    Step,
    Stopped,
)
from bertkit.run import CONFIG_FILE, RESULT_FILE, STOP_FILE, Result


def started(config: Config, total_steps: int, resumed_from: int | None = None) -> Started:
    return Started(
        config=config.to_dict(),
        ranks=[RankInfo(rank=r, host="localhost", pid=100 + r, cores=1) for r in range(2)],
        precision="bfloat16",
        parameters=22_713_986,
        train_questions=3200,
        train_features=3210,
        dev_questions=800,
        total_steps=total_steps,
        resumed_from=resumed_from,
    )


def step(number: int, total_steps: int, config: Config, noise: float = 0.0) -> Step:
    progress = number / total_steps
    warm = max(config.warmup_rate, 1e-9)
    factor = progress / warm if progress < warm else (1 - progress) / (1 - warm + 1e-9)
    seconds = 0.35 + 0.05 * abs(noise) if number > 1 else 9.0
    return Step(
        global_step=number,
        epoch=progress * config.num_epochs,
        loss=0.25 + 5.5 * math.exp(-6 * progress) + 0.25 * noise * math.exp(-2 * progress),
        learning_rate=config.learning_rate * factor,
        gradient_norm=3.0 * math.exp(-progress) + 0.5 * abs(noise),
        examples=config.batch_size,
        examples_per_second=config.batch_size / seconds,
        seconds=seconds,
        communication_seconds=0.03,
        input_seconds=0.001,
        padding_share=0.08,
    )


def events(
    config: Config, total_steps: int = 300, folder: Path | None = None, speed: float = 1.0
) -> Iterator[Event]:
    """All events of a run that stops early, or when its folder holds a stop file."""
    noise = np.random.default_rng(config.seed).normal(size=total_steps + 1)
    for done in range(0, 3201, 800):
        yield Progress(stage="Reading questions", done=done, total=3200)
    yield Notice(message="3 answers were left out: their text is not at their offset.")
    yield started(config, total_steps)
    best, stopped_by, number = 0.0, "epochs", 0
    for number in range(1, total_steps + 1):
        yield step(number, total_steps, config, float(noise[number]))
        if folder and (folder / STOP_FILE).exists():
            stopped_by = "user"
            break
        if number % config.evaluate_every == 0:
            rise = 1 / (1 + math.exp(-14 * (speed * number / total_steps - 0.25)))
            f1 = 96 * rise + 0.3 * float(noise[number])
            yield Evaluation(
                global_step=number, f1=f1, exact_match=0.9 * f1, questions=80,
                seconds=1.1, best=f1 > best,
            )  # fmt: skip
            best = max(best, f1)
            if f1 >= config.target_f1:
                stopped_by = "target_f1"
                break
    yield Checkpoint(global_step=number, path=f"checkpoints/{number}", seconds=0.4)
    yield Stopped(global_step=number, stopped_by=stopped_by)
    result = Result(
        f1=best, exact_match=0.9 * best, total=800, validation_f1=best, global_step=number,
        best_step=number, stopped_by=stopped_by, examples_per_second=88.0, wall_seconds=120.0,
        model=config.model, data=config.data, ranks=2, folder=str(folder or "."),
    )  # fmt: skip
    yield Finished(result=result.to_dict())


def write(
    folder: Path, config: Config, total_steps: int = 300, hz: float = 0.0, speed: float = 1.0
) -> Path:
    """Write a run's folder; `hz` steps a second, or all at once."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save(folder / CONFIG_FILE)
    due = time.monotonic()
    with EventLog(folder) as log:
        for event in events(config, total_steps, folder, speed):
            if isinstance(event, Finished):
                import json

                (folder / RESULT_FILE).write_text(json.dumps(event.result))
            log(event)
            if hz and isinstance(event, Step | Progress):
                due += 1 / hz
                time.sleep(max(0.0, due - time.monotonic()))
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--hz", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--evaluate-every", type=int, default=20)
    parser.add_argument("--target-f1", type=float, default=90.874)
    arguments = parser.parse_args()
    write(
        arguments.folder,
        Config(
            seed=arguments.seed,
            evaluate_every=arguments.evaluate_every,
            target_f1=arguments.target_f1,
        ),
        arguments.steps,
        arguments.hz,
    )
