"""Records the table that the advisor's benchmarks look trials up in: real trainings over a grid.

    nice python -m benchmarks.advisor.make_table            # goes on where it was stopped
    nice python -m benchmarks.advisor.make_table --most 10  # ten more trainings, then stops

Every cell of `GRID` is trained once, by bertkit's own step, schedule, batches and validation: the
lower layers of a BERT of 4 layers, 64 wide, with weights drawn at random, learn 800 generated
questions of three kinds. It is that small because the comparison needs hundreds of trainings that
really learn; the packaged model needs minutes for each.

Times are processor seconds of one thread, which other work on the machine disturbs least, of steps
and validations; compiling is left out since one compiled step serves all trainings of a depth.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

TABLE = Path(__file__).with_name("table.jsonl")

GRID: dict[str, tuple[float, ...]] = {
    "learning_rate": (3e-4, 6e-4, 1.2e-3, 2.4e-3, 4.8e-3, 9.6e-3, 1.92e-2),
    "warmup_rate": (0.05, 0.3),
    "batch_size": (8, 16, 32, 64),
    "num_hidden_layers": (1, 2, 3, 4),
}
EPOCHS = 2.5
TRAIN, DEV = 800, 200
VALIDATIONS = 20
SEED = 7


def cells() -> list[dict[str, Any]]:
    """Every assignment, in an order that does not favour any."""
    every = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
    return [every[i] for i in np.random.default_rng(SEED).permutation(len(every))]


def read_table(path: Path = TABLE) -> list[dict[str, Any]]:
    """The trainings recorded so far, in the grid's order."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted(rows, key=lambda row: [row[name] for name in GRID])


def main() -> None:
    """Train what is not recorded yet; a stopped call loses the training it was at."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--most", type=int, default=10**6, help="trainings of this call")
    most = options.parse_args().most
    _one_thread()
    known = {_key(row) for row in read_table()}
    missing = [cell for cell in cells() if _key(cell) not in known][:most]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        model, data = _inputs(Path(folder))
        trainers: dict[int, Any] = {}
        for number, cell in enumerate(missing, start=1):
            depth = cell["num_hidden_layers"]
            if depth not in trainers:
                trainers[depth] = _Trainer(model, data, depth)
            row = {**cell, **trainers[depth].train(cell)}
            with TABLE.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{number}/{len(missing)}", cell, f"{row['training_time']:.2f} s",
                  f"F1 {row['f1']:.1f}", flush=True)  # fmt: skip


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in GRID)


def _one_thread() -> None:
    """Before TensorFlow is loaded: one thread, so that processor seconds mean something."""
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = "1"
    from bertkit.loading_tensorflow import load_tensorflow

    load_tensorflow()


def _inputs(folder: Path) -> tuple[Path, Path]:
    from tests import tiny

    model = tiny.write_model(folder / "model", layers=4, hidden=64, seed=SEED)
    return model, tiny.write_questions(folder / "questions", train=TRAIN, dev=DEV, seed=SEED)


class _Trainer:
    """Trains one depth again and again, from the same weights, with one compiled step."""

    def __init__(self, model: Path, data: Path, depth: int) -> None:
        from bertkit.bert.question_answering import QuestionAnswering
        from bertkit.config import Config
        from bertkit.training.inputs import features, read_inputs
        from bertkit.training.optimizers import Hyperparameters, Optimizer
        from bertkit.training.step import TrainingStep
        from bertkit.training.validation import Forward, Validation
        from bertkit.training.world import SingleWorld
        from tests import tiny

        settings: dict[str, Any] = {
            **tiny.settings(model, data),
            "num_epochs": EPOCHS,
            "seed": SEED,
        }
        self.config = config = Config(**settings, num_hidden_layers=depth)
        inputs = read_inputs(config)
        self.features = features(inputs.train, inputs.tokenizer, config, training=True)
        self.model = QuestionAnswering.from_pretrained(inputs.pretrained, seed=SEED)
        self.optimizer = Optimizer(
            config.optimizer, self.model.variables, self.model.variable_names,
            Hyperparameters.from_config(config),
        )  # fmt: skip
        self.step = TrainingStep(
            self.model, self.optimizer, SingleWorld(),
            precision="float32", dropout=config.dropout, seed=SEED,
        )  # fmt: skip
        forward = Forward(self.model, "float32")
        self.validation = Validation(inputs.dev, inputs.tokenizer, config, forward, SingleWorld())
        self.state = [*self.model.variables, *self.optimizer.first_moments,
                      *self.optimizer.second_moments]  # fmt: skip
        self.validation.score()
        self.seen: set[Any] = set()
        self.begin = [variable.numpy() for variable in self.state]

    def train(self, cell: dict[str, Any]) -> dict[str, Any]:
        """One training: its metrics, and its curve as step, seconds and F1."""
        config = self.config.replace(**cell)
        steps = self._steps(config)
        rates = _schedule(config, len(steps))
        self._warm_up(steps)
        self._reset()
        due = {round(len(steps) * i / VALIDATIONS) for i in range(1, VALIDATIONS + 1)}
        curve, began = [], time.process_time()
        for number, batch in enumerate(steps, start=1):
            self.step(batch, step=number, learning_rate=rates.learning_rate(number), stop=bool)
            if number in due:
                scores, _ = self.validation.score()
                curve.append([number, round(time.process_time() - began, 3), round(scores.f1, 3)])
        return {
            "training_time": curve[-1][1],
            "f1": max(point[2] for point in curve),
            "curve": curve,
        }

    def _warm_up(self, steps: list[Any]) -> None:
        """XLA compiles small loops for each new shape; that is no part of a training's time."""
        for batch in steps:
            shapes = tuple(b.input_ids.shape for b in batch.micro_batches)
            if shapes not in self.seen:
                self.seen.add(shapes)
                self.step(batch, step=1, learning_rate=0.0, stop=bool)

    def _reset(self) -> None:
        for variable, value in zip(self.state, self.begin, strict=True):
            variable.assign(value)

    def _steps(self, config: Any) -> list[Any]:
        return list(_step_inputs(self.features, config))


def _step_inputs(made: Any, config: Any) -> Iterator[Any]:
    from bertkit.squad.batches import BatchPlan, assemble
    from bertkit.training.schedule import total_steps
    from bertkit.training.step import StepInput, touched_rows

    plan = BatchPlan(
        made.lengths, batch_size=config.batch_size, ranks=1,
        micro_batch_tokens=config.micro_batch_tokens, seed=config.seed,
        group_by_length=False, pad_to_max_length=False, max_seq_length=config.max_seq_length,
    )  # fmt: skip
    rows = touched_rows([np.arange(int(made.input_ids.max()) + 1, dtype=np.int32)])
    for step in range(total_steps(plan.steps_per_epoch, config.num_epochs)):
        count = len(plan.examples(step))
        batches = [
            assemble(made, b, global_batch_examples=count) for b in plan.micro_batches(step, 0)
        ]
        yield StepInput(batches, rows, count, plan.padding_share(step))


def _schedule(config: Any, steps: int) -> Any:
    from bertkit.training.schedule import Schedule

    return Schedule(peak=config.learning_rate, total_steps=steps, warmup_rate=config.warmup_rate)


if __name__ == "__main__":
    main()
