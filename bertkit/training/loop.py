"""The training loop: it can be read from top to bottom.

Every rank runs `train` on the same folder. Rank 0 writes the events, the checkpoints, the best
model and the result; everything that must be decided alike (stop, best, position) is decided from
numbers that all ranks hold, or is rank 0's word shared with all.
"""

from __future__ import annotations

import json
import os
import statistics
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from bertkit.bert.pretrained import load_pretrained
from bertkit.bert.question_answering import QuestionAnswering
from bertkit.bert.saving import save_pretrained
from bertkit.config import Config
from bertkit.errors import BertkitError, RunError, TrainingError
from bertkit.events import (
    Checkpoint,
    Evaluation,
    Failed,
    Finished,
    Notice,
    Progress,
    RankInfo,
    Regrouped,
    Started,
    Step,
    Stopped,
    StopReason,
    read,
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
from bertkit.training.inputs import features, read_inputs, validation_sample
from bertkit.training.journal import Journal
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
        world: The ranks; they `World.meet` once each has prepared itself.
        resume: Go on from the newest checkpoint instead of from the pretrained weights.

    Raises:
        BertkitError: If an input cannot be used or training fails; a ``Failed`` event then ends
            the run's events.
    """
    folder = Path(folder)
    with Journal(folder) as journal:
        if world.rank == 0:
            journal.open()
        training: _Training | None = None
        try:
            training = _Training(folder, world, journal, resume)
            training.run()
        except BaseException as error:
            world = training.world if training else world
            journal(_failure(error, world))
            world.abort()
            raise


class _RanksChange(Exception):  # noqa: N818 - it is no error
    """The ranks should meet: one waits to be taken in."""


class _Training:
    """One rank's part of a run: what it holds, and the loop over its steps.

    After each step all ranks hold the same weights, moments and position, and a step changes them
    only once its sum over the ranks is complete. So when a rank is lost nothing has to be copied
    beforehand or read back: what the new rank 0 holds is the newest state, and it is broadcast.
    """

    def __init__(self, folder: Path, world: World, journal: Journal, resume: bool) -> None:
        self.folder, self.world, self.journal, self.resume = folder, world, journal, resume
        self.config = config = Run(folder).config
        tf.keras.utils.set_random_seed(config.seed)
        self.precision = resolve_precision(config.precision)

        self.inputs = inputs = read_inputs(config, journal)
        self.features = features(
            inputs.train, inputs.tokenizer, config, training=True, emit=journal
        )
        self.sample = validation_sample(inputs.dev, config.evaluate_fraction, config.seed)
        self.plan = _plan(self.features, config, ranks=1)
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
        self.step = TrainingStep(
            self.model, self.optimizer, world,
            precision=self.precision, dropout=config.dropout, seed=config.seed,
            compression=config.compression,
        )  # fmt: skip
        self.forward = Forward(self.model, self.precision)

        self.position = Position()
        self.has_state = False  # of this run: what it holds may go to the other ranks
        self.unsaved_best: list[NDArray[np.float32]] | None = None
        self.saved_step = 0
        self.speeds: list[float] = []
        self.began = 0.0

    def run(self) -> None:
        """Train until something stops it, then score the best model on all of the dev file."""
        while True:
            self._meet()
            try:
                self._train_until_stopped()
                self._finish()
                return
            except _RanksChange:
                pass
            except Exception as error:
                if not is_loss_of_a_rank(error):
                    raise

    def _train_until_stopped(self) -> None:
        every = self.config.checkpoint_every
        self._validate_if_due()  # a rank may have been lost in the middle of it
        for number, batch, waited in self._steps():
            outcome = self._make_step(number, batch, waited)
            stopped_by = StopReason.USER if outcome.stop else ""
            self._move_on(global_step=number, seconds=self._elapsed(), stopped_by=stopped_by)
            self._validate_if_due()
            if every and number % every == 0:
                self._save_checkpoint()
            if self._reason_to_stop():
                break
            if outcome.meet:
                raise _RanksChange
        if self.saved_step < self.position.global_step:
            self._save_checkpoint()
        if self.world.rank == 0:
            (self.folder / STOP_FILE).unlink(missing_ok=True)  # obeyed; a resume goes on
        self._move_on(stopped_by=self._reason_to_stop())
        self.journal(
            Stopped(global_step=self.position.global_step, stopped_by=self.position.stopped_by)
        )

    def _reason_to_stop(self) -> str:
        """Why no step may follow this one; empty if one may."""
        config, position = self.config, self.position
        if position.stopped_by:
            return position.stopped_by
        if position.best_f1 >= config.target_f1:
            return StopReason.TARGET_F1
        if config.step_threshold is not None and position.global_step >= config.step_threshold:
            return StopReason.STEP_THRESHOLD
        return StopReason.EPOCHS if position.global_step >= self.schedule.total_steps else ""

    # Ranks -------------------------------------------------------------------------------------

    def _meet(self) -> None:
        """Come together with the other ranks, and go on from what rank 0 has."""
        while True:
            step = self.position.global_step if self.has_state else None
            self.world = self.world.meet(step, when_alone=self.journal.close)
            try:
                self._go_on_together()
                return
            except Exception as error:
                if not is_loss_of_a_rank(error):
                    raise

    def _go_on_together(self) -> None:
        world = self.step.world = self.world
        self.plan = _plan(self.features, self.config, world.size)
        self.validation = self._validation_on(self.sample)
        here = RankInfo(
            rank=world.rank,
            host=world.host,
            pid=os.getpid(),
            cores=len(os.sched_getaffinity(0)),
        )
        ranks = [RankInfo(**rank) for rank in world.gather(vars(here)) or []]
        regrouped: Regrouped | None = None
        if world.rank == 0 and self.has_state:
            regrouped = self._regrouped(ranks)
        elif world.rank == 0:
            self.journal(self._started(ranks))
            self.has_state = True
        else:
            self.journal.close()  # it may have been rank 0 before
            self.has_state = False  # a broadcast that breaks off leaves a mixture
        told = world.share({"position": vars(self.position), "elapsed": self._elapsed()})
        world.broadcast(self._state_variables())
        self.position, self.has_state = Position(**told["position"]), True
        if world.rank != 0:
            self.began = time.perf_counter() - told["elapsed"]
        if regrouped is not None:
            self.journal(regrouped)

    def _regrouped(self, ranks: list[RankInfo]) -> Regrouped:
        """Become rank 0, or stay it, with the state that was reached."""
        position = self.position
        self.journal.take_over(position.global_step)
        if 0 < position.best_step == position.global_step:
            self._save_best_model()  # the rank 0 before may have been lost while it wrote
        return Regrouped(
            global_step=position.global_step,
            ranks=ranks,
            news=list(self.world.news),
            detected=self.world.detected,
        )

    def _started(self, ranks: list[RankInfo]) -> Started:
        """Become rank 0 of a run that begins, or goes on from its newest checkpoint."""
        self.journal.open()
        resumed_from = None
        has_begun = any(isinstance(event, Step) for event in read(self.folder))
        if self.resume or (has_begun and checkpoints.checkpoints(self.folder)):
            resumed_from = self._load_checkpoint()
        elif has_begun:
            resumed_from = 0  # whoever had a state was lost before there was a checkpoint
        self.began = time.perf_counter() - self.position.seconds
        return Started(
            config=self.config.to_dict(),
            ranks=ranks,
            precision=self.precision,
            parameters=sum(int(np.prod(v.shape)) for v in self.model.variables),
            train_questions=len(self.inputs.train),
            train_features=len(self.features.lengths),
            dev_questions=len(self.inputs.dev),
            total_steps=self.schedule.total_steps,
            resumed_from=resumed_from,
            versions={
                name: version(name) for name in ("bertkit", "tensorflow", "horovod", "tokenizers")
            },
        )

    def _elapsed(self) -> float:
        """Seconds since the first step, time before a resume included."""
        return time.perf_counter() - self.began

    # Steps -------------------------------------------------------------------------------------

    def _steps(self) -> Iterator[tuple[int, StepInput, float]]:
        """Step number, this rank's input, and how long the loop had to wait for it."""
        if self._reason_to_stop():
            return
        if not self.speeds:
            self.journal(Progress(stage="Compiling the first step"))
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
        straggler, straggler_share = _straggler(outcome.rank_seconds, seconds)
        self.journal(
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
                straggler=straggler,
                straggler_share=straggler_share,
            )
        )
        return outcome

    def _is_told_to_stop(self) -> bool:
        return self.world.rank == 0 and (self.folder / STOP_FILE).exists()

    # Validation --------------------------------------------------------------------------------

    def _validate_if_due(self) -> None:
        """Validate every so many steps, and before training stops."""
        step, every = self.position.global_step, self.config.evaluate_every
        if self.position.evaluated_step == step and self.position.best_step:
            return
        if self._reason_to_stop() or (step and every and step % every == 0):
            self._validate()

    def _validate(self) -> None:
        began = time.perf_counter()
        scores, _ = self.validation.score()
        best = scores.f1 > self.position.best_f1
        self._move_on(evaluated_step=self.position.global_step, seconds=self._elapsed())
        if best:
            self._move_on(
                best_f1=scores.f1,
                best_exact_match=scores.exact_match,
                best_step=self.position.global_step,
            )
            self._save_best_model()
        self.journal(
            Evaluation(
                global_step=self.position.global_step,
                f1=scores.f1,
                exact_match=scores.exact_match,
                questions=scores.total,
                seconds=time.perf_counter() - began,
                best=best,
            )
        )

    def _finish(self) -> None:
        """Score the best model on every validation question and write the result."""
        if self.position.best_step != self.position.global_step:
            self._load_best_model()
        if self.unsaved_best is not None:  # the disk was full; by now there has to be room
            checkpoints.save_best_model(self.folder, self.position.best_step, self._write_model)
        validation = self._validation_on(self.inputs.dev)
        scores, mine = validation.score(self._show_scoring)
        shares = self.world.gather({name: answer.text for name, answer in mine.items()})
        if shares is None:
            return
        answers = {name: text for share in shares for name, text in share.items()}
        _write_json(self.folder / PREDICTIONS_FILE, answers)
        result = self._result(scores)
        _write_json(self.folder / RESULT_FILE, result.to_dict())
        self.journal(Finished(result=result.to_dict()))

    def _result(self, scores: Scores) -> Result:
        return Result(
            f1=scores.f1,
            exact_match=scores.exact_match,
            total=scores.total,
            validation_f1=self.position.best_f1,
            global_step=self.position.global_step,
            best_step=self.position.best_step,
            stopped_by=self.position.stopped_by,
            examples_per_second=statistics.median(self.speeds) if self.speeds else 0.0,
            wall_seconds=self.position.seconds,
            model=self.config.model,
            data=self.config.data,
            ranks=self.world.size,
            folder=str(self.folder),
        )

    def _validation_on(self, dataset: Dataset) -> Validation:
        return Validation(dataset, self.inputs.tokenizer, self.config, self.forward, self.world)

    def _show_scoring(self, done: int, total: int) -> None:
        self.journal(Progress(stage="Scoring the best model", done=done, total=total))

    # State -------------------------------------------------------------------------------------

    def _move_on(self, **changes: float | str) -> None:
        self.position = Position(**{**vars(self.position), **changes})

    def _state_variables(self) -> list[tf.Variable]:
        slots = self.optimizer
        return [*self.model.variables, *slots.first_moments, *slots.second_moments]

    def _state_names(self) -> list[str]:
        names = self.model.variable_names
        return [f"{prefix}{name}" for prefix in ("", "first/", "second/") for name in names]

    def _save_checkpoint(self) -> None:
        self.saved_step = self.position.global_step
        if self.world.rank != 0:
            return
        began = time.perf_counter()
        arrays = checkpoints.named("", self._state_names(), self._state_variables())
        keep = self.config.keep_checkpoints
        try:
            with self.world.working("Writing a checkpoint"):
                path = checkpoints.save_checkpoint(self.folder, self.position, arrays, keep)
        except RunError as error:  # a full disk, most often: training need not end for it
            self.journal(Notice(message=f"{error}; training goes on without this checkpoint"))
            return
        self.journal(
            Checkpoint(
                global_step=self.position.global_step,
                path=str(path.relative_to(self.folder)),
                seconds=time.perf_counter() - began,
            )
        )

    def _load_checkpoint(self) -> int:
        """Load the newest checkpoint; the broadcast that follows brings it to all ranks."""
        position, arrays = checkpoints.load_newest_checkpoint(self.folder)
        for name, variable in zip(self._state_names(), self._state_variables(), strict=True):
            variable.assign(arrays[name])
        self.position = replace(position, stopped_by="")
        self.saved_step = position.global_step
        return position.global_step

    def _save_best_model(self) -> None:
        if self.world.rank != 0:
            return
        self.unsaved_best = None
        try:
            with self.world.working("Writing the best model"):
                checkpoints.save_best_model(
                    self.folder, self.position.global_step, self._write_model
                )
        except RunError as error:
            self.unsaved_best = [variable.numpy() for variable in self.model.variables]
            self.journal(Notice(message=f"{error}; the best model is kept in memory until then"))

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
            best = self.unsaved_best or self._read_best_model()
            for variable, value in zip(self.model.variables, best, strict=True):
                variable.assign(value)
        self.has_state = self.world.rank == 0  # until all of the broadcast is there
        self.world.broadcast(self.model.variables)
        self.has_state = True

    def _read_best_model(self) -> list[NDArray[np.float32]]:
        with self.world.working("Reading the best model"):
            tensors = load_pretrained(str(self.folder / MODEL_FOLDER)).tensors
        return [tensors[name] for name in self.model.variable_names]


def _straggler(rank_seconds: list[float], seconds: float) -> tuple[int | None, float]:
    """The rank that computed longest, and the share of a step that the others waited for it.

    Example:
        >>> _straggler([1.0, 2.0, 1.0], 4.0)
        (1, 0.25)
    """
    if len(rank_seconds) < 2:
        return None, 0.0
    slowest = max(rank_seconds)
    waited = (slowest * len(rank_seconds) - sum(rank_seconds)) / (len(rank_seconds) - 1)
    return rank_seconds.index(slowest), min(1.0, waited / seconds)


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
        host=world.host,
        details="".join(traceback.format_exception(error)),
    )


def _write_json(path: Path, values: object) -> None:
    scratch = path.with_name(f".{path.name}-{os.getpid()}")
    scratch.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    scratch.replace(path)
