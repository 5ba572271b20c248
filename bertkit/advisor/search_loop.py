"""Ask, run, tell, over and over: what becomes of each trial, however it ends."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from bertkit.advisor.claims import LEASE_SECONDS
from bertkit.advisor.proposing import SpaceExhaustedError
from bertkit.advisor.tables import BudgetSpentError, LostClaimError
from bertkit.advisor.trial import CurvePoint, Outcome, Runner, State, Trial
from bertkit.errors import AdvisorError

if TYPE_CHECKING:
    from bertkit.advisor.experiment import Experiment

log = logging.getLogger("bertkit.advisor")

MOST_FAILURES = 3
"""After so many failures in a row the fault is not in the trials' values."""

OnTrial = Callable[[Trial], object]


class SearchLoop:
    """Runs trials of one experiment; `Experiment.run` says what the arguments mean."""

    def __init__(
        self,
        experiment: Experiment,
        runner: Runner,
        deadline: float | None = None,
        on_trial: OnTrial | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._experiment, self._runner = experiment, runner
        self._deadline, self._on_trial = deadline, on_trial
        self._stop = stop or threading.Event()
        self._failures: list[str] = []
        self._error: BaseException | None = None

    def run(self, parallel: int) -> None:
        """Ask, run and tell until the budget is spent, in this thread or in several."""
        if parallel < 1:
            raise AdvisorError(f"parallel is {parallel}; expected at least 1")
        if parallel == 1:
            self._work()
            return
        threads = [threading.Thread(target=self._work_apart, daemon=True) for _ in range(parallel)]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                threads[0].join(0.2)  # short, so that Ctrl-C is heard
                time.sleep(0.0 if threads[0].is_alive() else 0.2)
        except KeyboardInterrupt:
            self._stop.set()
            for thread in threads:
                thread.join(LEASE_SECONDS)
            raise
        if self._error is not None:
            raise self._error

    def _work_apart(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = self._error or error
            self._stop.set()

    def _work(self) -> None:
        while not self._stop.is_set():
            if self._deadline is not None and time.monotonic() >= self._deadline:
                return
            try:
                ended = self._ask_and_run()
            except (BudgetSpentError, SpaceExhaustedError):
                return
            if ended is not None:
                self._note(ended)

    def _ask_and_run(self) -> Trial | None:
        with self._experiment.claimed() as claim:
            return self.run_one(self._experiment.ask_with(claim))

    def run_one(self, trial: Trial) -> Trial | None:
        """Run a trial; ``None`` if it was given back or lost."""
        experiment, verdicts = self._experiment, list[str]()
        if self._stop.is_set():
            self._give_back(trial)
            return None

        def report(point: CurvePoint) -> bool:
            why = experiment.report(trial, point)
            if why and not verdicts:
                verdicts.append(why)
            return not verdicts and not self._stop.is_set()

        try:
            values = ", ".join(f"{name} {value}" for name, value in trial.parameters.items())
            log.info("Trial %d begins with %s. %s", trial.number, values, trial.reason)
            outcome = self._runner(trial, report)
            if not isinstance(outcome, Outcome):
                outcome = Outcome(metrics=outcome)
            if self._stop.is_set() and not verdicts:
                self._give_back(trial)
                return None
            return self._told(trial, outcome, verdicts)
        except LostClaimError:
            return None
        except Exception as error:
            if self._stop.is_set():  # a run that was stopped before its first step, perhaps
                self._give_back(trial)
                return None
            return self._failed(trial, error)
        except BaseException:
            self._give_back(trial)
            raise

    def _give_back(self, trial: Trial) -> None:
        with contextlib.suppress(LostClaimError):
            self._experiment.release(trial)

    def _told(self, trial: Trial, outcome: Outcome, verdicts: list[str]) -> Trial:
        if verdicts and not outcome.complete:  # who reached the target all the same has a time
            return self._experiment.tell_pruned(
                trial, verdicts[0], outcome.metrics, outcome.artifact
            )
        return self._experiment.tell(
            trial, outcome.metrics, noise=outcome.noise, artifact=outcome.artifact
        )

    def _failed(self, trial: Trial, error: Exception) -> Trial | None:
        try:
            return self._experiment.tell_failed(trial, f"{type(error).__name__}: {error}")
        except LostClaimError:
            return None

    def _note(self, trial: Trial) -> None:
        self._failures = [*self._failures, trial.message] if trial.state is State.FAILED else []
        if self._on_trial is not None:
            self._on_trial(trial)
        if len(self._failures) >= MOST_FAILURES:
            raise AdvisorError(
                f"{MOST_FAILURES} trials in a row failed, the last one with: {self._failures[-1]}"
            )
