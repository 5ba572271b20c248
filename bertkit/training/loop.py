"""The training loop: it can be read from top to bottom.

Every rank runs `train` on the same folder. Rank 0 writes the events, the checkpoints, the best
model and the result; everything that must be decided alike (stop, best, position) is decided from
numbers that all ranks hold, or is rank 0's word shared with all.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tensorflow as tf

from bertkit.bert.pretrained import load_pretrained
from bertkit.bert.question_answering import QuestionAnswering
from bertkit.bert.saving import save_pretrained
from bertkit.config import Config
from bertkit.errors import BertkitError, TrainingError
from bertkit.events import (
    Checkpoint,
    Emit,
    Evaluation,
    EventLog,
    Failed,
    Finished,
    Progress,
    RankInfo,
    Started,
    Step,
    Stopped,
)  # fmt: skip
from bertkit.run import (
    MODEL_FOLDER,
    PREDICTIONS_FILE,
    RESULT_FILE,
    STOP_FILE,
    Result,
    Run,
    create_run_folder,
)  # fmt: skip
from bertkit.squad.batches import BatchPlan, assemble
from bertkit.squad.dataset import Dataset
from bertkit.squad.features import Features
from bertkit.training import checkpoints
from bertkit.training.checkpoints import Position
from bertkit.training.inputs import features, read_inputs, silent, validation_sample
from bertkit.training.optimizers import Hyperparameters, Optimizer
from bertkit.training.precision import resolve_precision
from bertkit.training.schedule import Schedule, total_steps
from bertkit.training.step import StepInput, StepOutcome, TrainingStep, touched_rows
from bertkit.training.validation import Forward, Scores, Validation
from bertkit.training.world import SingleWorld, World, is_loss_of_a_rank


def train_here(config: Config, *, name: str | None = None) -> Run:
    """Train in this process, on one rank, and come back when it is done.

    Args:
        config: The run's configuration.
        name: Name of the run's folder; by default the date and time.

    Returns:
        The finished run.

    Raises:
        BertkitError: If an input cannot be used or training fails.

    Example:
        >>> run = train_here(Config(data="sample", num_epochs=0.1))     # doctest: +SKIP
        >>> run.result.f1                                               # doctest: +SKIP
        12.3
    """
    folder = create_run_folder(config, name)
    train(folder, SingleWorld())
    return Run(folder)


def train(folder: Path, world: World, *, resume: bool = False) -> None:
    """Train the run in ``folder`` as one rank of ``world``; every rank calls this.

    Args:
        folder: The run's folder, made by `bertkit.run.create_run_folder`.
        world: The ranks.
        resume: Go on from the newest checkpoint instead of from the pretrained weights.

    Raises:
        BertkitError: If an input cannot be used or training fails; a ``Failed`` event then ends
            the run's events.
    """
    folder = Path(folder)
    with _events_of(folder, world) as emit:
        try:
            _Training(folder, world, emit, resume).run()
        except BaseException as error:
            emit(_failure(error, world))
            world.abort()
            raise


class _Training:
    """One rank's part of a run: what it holds, and the loop over its steps."""

    def __init__(self, folder: Path, world: World, emit: Emit, resume: bool) -> None:
        self.folder, self.world, self.emit = folder, world, emit
        self.config = config = Run(folder).config
        tf.keras.utils.set_random_seed(config.seed)
        self.precision = resolve_precision(config.precision)

        self.inputs = inputs = read_inputs(config, emit)
        self.features = features(inputs.train, inputs.tokenizer, config, training=True, emit=emit)
        self.plan = _plan(self.features, config, world.size)
        self.schedule = Schedule(
            peak=config.learning_rate,
            total_steps=total_steps(self.plan.steps_per_epoch, config.num_epochs),
            warmup_rate=config.warmup_rate,
        )

        self.model = QuestionAnswering.from_pretrained(inputs.pretrained, seed=config.seed)
        self.optimizer = Optimizer(
            config.optimizer,
            self.model.variables,
            self.model.variable_names,
            Hyperparameters.from_config(config),
        )
        self.position = Position()
        self.resumed_from = self._load_checkpoint() if resume else None
        world.broadcast(self._state_variables())

        self.step = TrainingStep(
            self.model, self.optimizer, world,
            precision=self.precision, dropout=config.dropout, seed=config.seed,
            compression=config.compression,
        )  # fmt: skip
        self.forward = Forward(self.model, self.precision)
        self.validation = self._validation_on(
            validation_sample(inputs.dev, config.evaluate_fraction, config.seed)
        )
        self.speeds: list[float] = []

    def run(self) -> None:
        """Train until something stops it, then score the best model on all of the dev file."""
        self.emit(self._started())
        began = time.perf_counter() - self.position.seconds
        stopped_by = self._train_until_stopped(began)
        if self.world.rank == 0:
            (self.folder / STOP_FILE).unlink(missing_ok=True)  # obeyed; a resume goes on
        seconds = time.perf_counter() - began
        self.emit(Stopped(global_step=self.position.global_step, stopped_by=stopped_by))
        self._finish(stopped_by, seconds)

    def _train_until_stopped(self, began: float) -> str:
        config, every = self.config, self.config.evaluate_every
        last_evaluated = last_saved = self.position.global_step
        stopped_by = self._reason_to_stop(user=False)
        if not stopped_by:
            self.emit(Progress(stage="Compiling the first step"))
        for number, batch, waited in self._steps():
            if stopped_by:
                break
            outcome = self._make_step(number, batch, waited)
            self._move_on(global_step=number, seconds=time.perf_counter() - began)
            stopped_by = self._reason_to_stop(user=outcome.stop)
            if stopped_by or (every and number % every == 0):
                self._validate()
                last_evaluated = number
                stopped_by = self._reason_to_stop(user=outcome.stop)
            if config.checkpoint_every and number % config.checkpoint_every == 0:
                self._save_checkpoint()
                last_saved = number
        if last_evaluated < self.position.global_step or self.position.best_step == 0:
            self._validate()
        if last_saved < self.position.global_step:
            self._save_checkpoint()
        return stopped_by or "epochs"

    def _reason_to_stop(self, *, user: bool) -> str:
        """Why no step may follow this one; empty if one may."""
        config, position = self.config, self.position
        if user:
            return "user"
        if position.best_f1 >= config.target_f1:
            return "target_f1"
        if config.step_threshold is not None and position.global_step >= config.step_threshold:
            return "step_threshold"
        return "epochs" if position.global_step >= self.schedule.total_steps else ""

    # Steps -------------------------------------------------------------------------------------

    def _steps(self) -> Iterator[tuple[int, StepInput, float]]:
        """Step number, this rank's input, and how long the loop had to wait for it."""
        numbers = range(self.position.global_step + 1, self.schedule.total_steps + 1)
        with ThreadPoolExecutor(1, thread_name_prefix="bertkit-input") as reader:
            coming: Future[StepInput] | None = None
            for number in numbers:
                began = time.perf_counter()
                batch = coming.result() if coming else self._read_step(number)
                waited = time.perf_counter() - began
                if number < numbers[-1]:
                    coming = reader.submit(self._read_step, number + 1)
                yield number, batch, waited

    def _read_step(self, number: int) -> StepInput:
        indices = self.plan.examples(number - 1)
        mine = [
            assemble(self.features, micro_batch, global_batch_examples=len(indices))
            for micro_batch in self.plan.micro_batches(number - 1, self.world.rank)
        ]
        bounds = self.features.offsets
        tokens = [self.features.input_ids[bounds[i] : bounds[i + 1]] for i in indices]
        padding_id = np.zeros(1, np.int32)  # [PAD], which fills every batch
        rows = touched_rows([padding_id, *tokens])
        return StepInput(mine, rows, len(indices), self.plan.padding_share(number - 1))

    def _make_step(self, number: int, batch: StepInput, waited: float) -> StepOutcome:
        began = time.perf_counter()
        rate = self.schedule.learning_rate(number)
        outcome = self.step(batch, step=number, learning_rate=rate, stop=self._is_told_to_stop)
        seconds = time.perf_counter() - began + waited
        if not np.isfinite(outcome.loss) or not np.isfinite(outcome.gradient_norm):
            raise TrainingError(
                f"the loss is {outcome.loss} at step {number}; "
                f"lower learning_rate ({self.config.learning_rate:g}) or use precision float32"
            )
        self.speeds.append(batch.examples / seconds)
        self.emit(
            Step(
                global_step=number,
                epoch=number / self.plan.steps_per_epoch,
                loss=outcome.loss,
                learning_rate=rate,
                gradient_norm=outcome.gradient_norm,
                examples=batch.examples,
                examples_per_second=batch.examples / seconds,
                seconds=seconds,
                communication_seconds=outcome.communication_seconds,
                input_seconds=waited,
                padding_share=batch.padding_share,
            )
        )
        return outcome

    def _is_told_to_stop(self) -> bool:
        return self.world.rank == 0 and (self.folder / STOP_FILE).exists()

    # Validation --------------------------------------------------------------------------------

    def _validate(self) -> None:
        began = time.perf_counter()
        scores, _ = self.validation.score()
        best = scores.f1 > self.position.best_f1
        if best:
            self._move_on(
                best_f1=scores.f1,
                best_exact_match=scores.exact_match,
                best_step=self.position.global_step,
            )
            self._save_best_model()
        self.emit(
            Evaluation(
                global_step=self.position.global_step,
                f1=scores.f1,
                exact_match=scores.exact_match,
                questions=scores.total,
                seconds=time.perf_counter() - began,
                best=best,
            )
        )

    def _finish(self, stopped_by: str, seconds: float) -> None:
        """Score the best model on every validation question and write the result."""
        if self.position.best_step != self.position.global_step:
            self._load_best_model()
        validation = self._validation_on(self.inputs.dev)
        scores, mine = validation.score(self._show_scoring)
        shares = self.world.gather({name: answer.text for name, answer in mine.items()})
        if shares is None:
            return
        answers = {name: text for share in shares for name, text in share.items()}
        _write_json(self.folder / PREDICTIONS_FILE, answers)
        result = self._result(scores, stopped_by, seconds)
        _write_json(self.folder / RESULT_FILE, result.to_dict())
        self.emit(Finished(result=result.to_dict()))

    def _result(self, scores: Scores, stopped_by: str, seconds: float) -> Result:
        return Result(
            f1=scores.f1,
            exact_match=scores.exact_match,
            total=scores.total,
            validation_f1=self.position.best_f1,
            global_step=self.position.global_step,
            best_step=self.position.best_step,
            stopped_by=stopped_by,
            examples_per_second=statistics.median(self.speeds) if self.speeds else 0.0,
            wall_seconds=seconds,
            model=self.config.model,
            data=self.config.data,
            ranks=self.world.size,
            folder=str(self.folder),
        )

    def _validation_on(self, dataset: Dataset) -> Validation:
        return Validation(dataset, self.inputs.tokenizer, self.config, self.forward, self.world)

    def _show_scoring(self, done: int, total: int) -> None:
        self.emit(Progress(stage="Scoring the best model", done=done, total=total))

    # State -------------------------------------------------------------------------------------

    def _move_on(self, **changes: float) -> None:
        self.position = Position(**{**vars(self.position), **changes})

    def _state_variables(self) -> list[tf.Variable]:
        slots = self.optimizer
        return [*self.model.variables, *slots.first_moments, *slots.second_moments]

    def _state_names(self) -> list[str]:
        names = self.model.variable_names
        return [f"{prefix}{name}" for prefix in ("", "first/", "second/") for name in names]

    def _save_checkpoint(self) -> None:
        if self.world.rank != 0:
            return
        began = time.perf_counter()
        arrays = checkpoints.named("", self._state_names(), self._state_variables())
        path = checkpoints.save_checkpoint(
            self.folder, self.position, arrays, self.config.keep_checkpoints
        )
        self.emit(
            Checkpoint(
                global_step=self.position.global_step,
                path=str(path.relative_to(self.folder)),
                seconds=time.perf_counter() - began,
            )
        )

    def _load_checkpoint(self) -> int:
        """Load the newest checkpoint at rank 0; the broadcast that follows brings it to all."""
        if self.world.rank == 0:
            self.position, arrays = checkpoints.load_newest_checkpoint(self.folder)
            for name, variable in zip(self._state_names(), self._state_variables(), strict=True):
                variable.assign(arrays[name])
        self.position = Position(**self.world.share(vars(self.position)))
        return self.position.global_step

    def _save_best_model(self) -> None:
        if self.world.rank == 0:
            checkpoints.save_best_model(self.folder, self.position.global_step, self._write_model)

    def _write_model(self, folder: Path) -> None:
        pretrained = self.inputs.pretrained
        save_pretrained(
            folder,
            self.model,
            vocab_file=pretrained.vocab_file,
            lowercase=pretrained.lowercase,
        )

    def _load_best_model(self) -> None:
        if self.world.rank == 0:
            best = load_pretrained(str(self.folder / MODEL_FOLDER)).tensors
            for name, variable in zip(self.model.variable_names, self.model.variables, strict=True):
                variable.assign(best[name])
        self.world.broadcast(self.model.variables)

    def _started(self) -> Started:
        here = RankInfo(
            rank=self.world.rank,
            host=platform.node(),
            pid=os.getpid(),
            cores=len(os.sched_getaffinity(0)),
        )
        ranks = self.world.gather(vars(here)) or []
        return Started(
            config=self.config.to_dict(),
            ranks=[RankInfo(**rank) for rank in ranks],
            precision=self.precision,
            parameters=sum(int(np.prod(v.shape)) for v in self.model.variables),
            train_questions=len(self.inputs.train),
            train_features=len(self.features.lengths),
            dev_questions=len(self.inputs.dev),
            total_steps=self.schedule.total_steps,
            resumed_from=self.resumed_from,
            versions={
                name: version(name) for name in ("bertkit", "tensorflow", "horovod", "tokenizers")
            },
        )


def _plan(made: Features, config: Config, ranks: int) -> BatchPlan:
    return BatchPlan(
        made.lengths,
        batch_size=config.batch_size,
        ranks=ranks,
        micro_batch_tokens=config.micro_batch_tokens,
        seed=config.seed,
        group_by_length=config.group_by_length,
        pad_to_max_length=config.pad_to_max_length,
        max_seq_length=config.max_seq_length,
    )


@contextlib.contextmanager
def _events_of(folder: Path, world: World) -> Iterator[Emit]:
    """Rank 0 writes the run's events; the other ranks' go nowhere."""
    if world.rank != 0:
        yield silent
        return
    with EventLog(folder) as log:
        yield log


def _failure(error: BaseException, world: World) -> Failed:
    if isinstance(error, BertkitError):
        message = str(error)
    elif is_loss_of_a_rank(error):
        message = "another rank went away; resume the run to go on from its newest checkpoint"
    elif isinstance(error, KeyboardInterrupt):
        message = "interrupted; resume the run to go on from its newest checkpoint"
    else:
        message = f"{type(error).__name__}: {error}"
    return Failed(
        message=message,
        rank=world.rank,
        host=platform.node(),
        details="".join(traceback.format_exception(error)),
    )


def _write_json(path: Path, values: object) -> None:
    scratch = path.with_name(f".{path.name}-{os.getpid()}")
    scratch.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    scratch.replace(path)
