"""Running a trial as a training run on engines, and reading its curve from the run's events."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from bertkit.advisor.space import RANKS
from bertkit.advisor.trial import Assignment, CurvePoint, Outcome, Report, Trial
from bertkit.config import Config, Scalar
from bertkit.errors import AdvisorError, BertkitError, TrainingError
from bertkit.events import Evaluation, Event, Started, StopReason
from bertkit.run import CHECKPOINTS_FOLDER, CONFIG_FILE, Run

MOST_FOLDERS = 99
STOP_SECONDS = 600.0
"""Longest wait for a run to end after it was asked to; the best model is scored meanwhile."""


class TrainsRuns(Protocol):
    """What a trial needs of a `bertkit.cluster.Cluster`."""

    n: int

    def train(self, config: Config, *, name: str | None = None) -> Run:
        """Start a run and come back at once."""

    def resume(self, folder: str | Path) -> Run:
        """Let a run go on from its newest checkpoint, and come back at once."""


class TrainingRunner:
    """Runs each trial as a training run; several at once where there are several clusters.

    A trial's run has a folder of its own, named after the trial. If a process died while it
    trained, whoever takes the trial next goes on from the run's newest checkpoint, and takes over
    its result if it had finished. Features that a run has made are in the cache that all runs of
    the same data and model share.

    Args:
        config: What all trials have in common; a trial's parameters replace its fields. Its
            ``output`` is where the runs' folders go.
        clusters: Started clusters, on disjoint engines. Where ``ranks`` is searched, one of each
            number of ranks.

    Raises:
        AdvisorError: If there is no cluster.

    Example:
        >>> from bertkit.cluster import Cluster                          # doctest: +SKIP
        >>> with Cluster(n=2) as cluster:                                # doctest: +SKIP
        ...     experiment.run(TrainingRunner(Config(), [cluster]))
    """

    def __init__(self, config: Config, clusters: Sequence[TrainsRuns]) -> None:
        if not clusters:
            raise AdvisorError("there is no cluster to train trials on; give at least one")
        self._config = config
        self._free: dict[int, queue.Queue[TrainsRuns]] = {}
        for cluster in clusters:
            self._free.setdefault(cluster.n, queue.Queue()).put(cluster)
        self._ranks = clusters[0].n

    def __call__(self, trial: Trial, report: Report) -> Outcome:
        """Train a trial to its end, or to where ``report`` says no."""
        config = trial_config(self._config, trial.parameters)
        with self._cluster(trial.parameters) as cluster:
            run = start_or_take_over(cluster, config, trial.number)
            watch(run, report)
            result = run.wait()
        return Outcome(
            metrics={
                "training_time": result.wall_seconds,
                "f1": result.f1,
                "exact_match": result.exact_match,
                "examples_per_second": result.examples_per_second,
            },
            artifact=str(run.model_folder),
            complete=result.stopped_by != StopReason.USER,
        )

    @contextmanager
    def _cluster(self, parameters: Assignment) -> Iterator[TrainsRuns]:
        """A free cluster of as many ranks as the trial wants."""
        ranks = int(parameters.get(RANKS) or self._ranks)
        if ranks not in self._free:
            raise AdvisorError(
                f"ranks: the trial wants {ranks}, and there are clusters of "
                f"{', '.join(map(str, self._free))}; start one with n={ranks}"
            )
        cluster = self._free[ranks].get()  # at most as many trials as clusters go on at once
        try:
            yield cluster
        finally:
            self._free[ranks].put(cluster)


def trial_config(config: Config, parameters: Assignment) -> Config:
    """The configuration of one trial.

    Example:
        >>> trial_config(Config(), {"batch_size": 96, "ranks": 2}).batch_size
        96
    """
    changes: dict[str, Scalar] = {n: v for n, v in parameters.items() if n != RANKS}
    return config.replace(**changes)


def start_or_take_over(cluster: TrainsRuns, config: Config, number: int) -> Run:
    """Start a trial's run, or go on with what an earlier attempt at the same trial has left."""
    for attempt in range(1, MOST_FOLDERS):
        name = f"trial-{number:03d}" + (f"-{attempt}" if attempt > 1 else "")
        folder = Path(config.output) / name
        if not folder.exists():
            return cluster.train(config, name=name)
        if not (folder / CONFIG_FILE).is_file() or Run(folder).config != config:
            continue  # of another experiment, perhaps
        run = Run(folder)
        if run.result is not None and run.result.stopped_by != StopReason.USER:
            return run
        if any((folder / CHECKPOINTS_FOLDER).glob("*")):
            return cluster.resume(folder)
    raise AdvisorError(
        f"{config.output} holds {MOST_FOLDERS} runs of trial {number}; choose another folder"
    )


def watch(run: Run, report: Report) -> None:
    """Report each validation of a run, and ask it to stop when it should not go on.

    Raises:
        TrainingError: If the run failed.
    """
    curve, going = Curve(), True
    try:
        for event in run.events():
            point = curve.point(event)
            if point is not None and not report(point) and going:
                going = False
                run.stop()
    except BaseException as error:
        run.stop()
        if isinstance(error, Exception):  # the next trial needs the engines
            with contextlib.suppress(BertkitError, TimeoutError):
                run.wait(timeout=STOP_SECONDS)
        raise
    if run.failure is not None:
        raise TrainingError(run.failure.message)


class Curve:
    """Turns a run's events into the points of its curve.

    Seconds count from the first step, as ``wall_seconds`` does, and go on counting where a run
    was resumed.
    """

    def __init__(self) -> None:
        self._zero = 0.0
        self._elapsed: dict[int, float] = {0: 0.0}

    def point(self, event: Event) -> CurvePoint | None:
        """The point that an event adds, if it adds one."""
        if isinstance(event, Started):
            before = event.resumed_from or 0
            kept = [s for step, s in self._elapsed.items() if step <= before]
            self._zero = event.time - max(kept)
            return None
        step = getattr(event, "global_step", None)
        if step is None:
            return None
        self._elapsed[step] = event.time - self._zero
        if not isinstance(event, Evaluation):
            return None
        return CurvePoint(step, self._elapsed[step], event.f1)


def core_groups(groups: int) -> list[tuple[int, ...]]:
    """Share this process's CPUs among groups of engines.

    Raises:
        AdvisorError: If there are fewer CPUs than groups.
    """
    cpus = sorted(os.sched_getaffinity(0))
    if not 1 <= groups <= len(cpus):
        raise AdvisorError(
            f"{groups} groups of engines cannot have cores of their own; this process may use "
            f"{len(cpus)}"
        )
    each = len(cpus) // groups
    return [tuple(cpus[i * each : (i + 1) * each]) for i in range(groups)]


@contextmanager
def on_cpus(cpus: Sequence[int]) -> Iterator[None]:
    """Let this thread, and the engines it starts meanwhile, use only these CPUs."""
    before = os.sched_getaffinity(threading.get_native_id())
    os.sched_setaffinity(threading.get_native_id(), cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(threading.get_native_id(), before)
