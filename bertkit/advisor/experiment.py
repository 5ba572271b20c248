"""A search: ask for a trial, run it, tell what it came to.

The experiment is in its store; this is a handle on it. Any number of handles, in any number of
processes, may look at one experiment and run its trials.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bertkit.advisor import warm_start
from bertkit.advisor.claims import Heartbeat, new_claim
from bertkit.advisor.goals import Goals, is_number
from bertkit.advisor.proposing import ParEgo, RandomSampler, Sampler
from bertkit.advisor.pruning import DEFAULT_PRUNING, pruner, stops_the_slower
from bertkit.advisor.search_loop import OnTrial, SearchLoop
from bertkit.advisor.space import Space
from bertkit.advisor.store import Store
from bertkit.advisor.surrogate import Surrogate
from bertkit.advisor.tables import DuplicateTrialError
from bertkit.advisor.trial import (
    Assignment,
    CurvePoint,
    Origin,
    Proposal,
    Runner,
    State,
    Trial,
)
from bertkit.config import Scalar
from bertkit.errors import AdvisorError

OBSERVATION_BUDGET = 25
MOST_COLLISIONS = 50

SAMPLERS = ("parego", "random")


class Experiment:
    """One search, seen through its store.

    Args:
        store: The store, or its file.
        id: The experiment's number in it.

    Raises:
        AdvisorError: If the store holds no such experiment.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "advisor.db"
        >>> space = Space.read({"x": (0.0, 1.0)})
        >>> goals = Goals.read([("error", "minimize")])
        >>> with Experiment.create(path, "demo", space=space, goals=goals) as experiment:
        ...     for _ in range(3):
        ...         trial = experiment.ask()
        ...         _ = experiment.tell(trial, {"error": (trial.parameters["x"] - 0.3) ** 2})
        ...     len(experiment.trials), experiment.best.metrics["error"] < 0.5
        (3, True)
    """

    def __init__(self, store: Store | str | Path, id: int) -> None:
        self._owns_store = not isinstance(store, Store)
        self.store = store if isinstance(store, Store) else Store(store)
        record = self.store.experiment(id)
        self.id, self.name = record.id, record.name
        self.space, self.goals = record.space, record.goals
        self._settings = dict(record.settings)
        pruning = str(self._settings["pruning"])
        self._pruner = pruner(pruning)
        self._sampler = _sampler(
            str(self._settings["sampler"]), stops_the_slower(pruning, self.goals)
        )
        self._heartbeat = Heartbeat(self.store.renew)
        self._asking = threading.Lock()

    @classmethod
    def create(
        cls,
        store: Store | str | Path,
        name: str,
        *,
        space: Any = None,
        goals: Any = None,
        observation_budget: int = OBSERVATION_BUDGET,
        pruning: str = DEFAULT_PRUNING,
        sampler: str = "parego",
        defaults: Assignment | None = None,
        seed: int = 42,
    ) -> Experiment:
        """Make an experiment.

        Args:
            store: Where it is kept.
            name: What a person calls it.
            space: What is searched, in any form that `Space.read` reads; by default the
                published space.
            goals: What is wanted, in any form that `Goals.read` reads; by default the published
                goals.
            observation_budget: Most trials.
            pruning: ``"halving"``, ``"median"`` or ``"off"``.
            sampler: ``"parego"`` or ``"random"``.
            defaults: Settings one would use without a search; the nearest assignment of the
                space becomes the first trial, so that all others can be compared with it.
            seed: Fixes the proposals.

        Raises:
            AdvisorError: If any of that cannot be used.
        """
        space = Space.published() if space is None else Space.read(space)
        goals = Goals.published() if goals is None else Goals.read(goals)
        _check_budget(observation_budget)
        pruner(pruning)
        _sampler(sampler, leader_only=False)
        settings = {
            "observation_budget": observation_budget,
            "pruning": pruning,
            "sampler": sampler,
            "defaults": None if defaults is None else space.nearest(defaults),
            "seed": seed,
        }
        opened = store if isinstance(store, Store) else Store(store)
        experiment = cls(opened, opened.create(name, space, goals, settings))
        experiment._owns_store = not isinstance(store, Store)
        return experiment

    @classmethod
    def resume(cls, store: Store | str | Path, id: int) -> Experiment:
        """Go on with an experiment; trials of processes that died are put back into the queue.

        Raises:
            AdvisorError: If the store holds no such experiment.
        """
        experiment = cls(store, id)
        experiment.store.requeue_abandoned(id)
        return experiment

    def close(self) -> None:
        """Stop saying that this process's trials go on, and close the store if it is one's own."""
        self._heartbeat.stop()
        if self._owns_store:
            self.store.close()

    def __enter__(self) -> Experiment:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Looking -----------------------------------------------------------------------------------

    @property
    def trials(self) -> list[Trial]:
        """All trials, as they stand now."""
        return self.store.trials(self.id)

    @property
    def settings(self) -> dict[str, Any]:
        """Budget, pruning, sampler, defaults and seed."""
        return dict(self._settings)

    @property
    def best(self) -> Trial | None:
        """The one best finished trial, by `Goals.rule`."""
        finished = self.finished
        position = self.goals.best([t.metrics for t in finished])
        return None if position is None else finished[position]

    @property
    def pareto(self) -> list[Trial]:
        """The finished trials that no other one beats."""
        finished = self.finished
        return [finished[i] for i in self.goals.pareto([t.metrics for t in finished])]

    @property
    def finished(self) -> list[Trial]:
        """The trials that ran to their end."""
        return [t for t in self.trials if t.state is State.FINISHED]

    def surrogate(self) -> Surrogate:
        """A model of all finished trials: predictions, partial dependence, importance.

        Raises:
            AdvisorError: If fewer than two have finished.
        """
        return Surrogate(self.space, self.goals, self.trials)

    def rows(self) -> list[dict[str, Scalar]]:
        """All trials as flat rows."""
        return self.store.rows(self.id)

    def to_csv(self, path: str | Path) -> None:
        """Write all trials to a CSV file."""
        self.store.to_csv(self.id, path)

    def to_pandas(self) -> Any:
        """All trials as a pandas ``DataFrame``.

        Raises:
            AdvisorError: If pandas is not installed.
        """
        return self.store.to_pandas(self.id)

    def warm_start(self, source: Experiment | str | Path | Iterable[Mapping[str, Any]]) -> int:
        """Learn from old trials; they cost no budget.

        Args:
            source: Another experiment, a CSV file that one was exported to, or rows.

        Returns:
            How many were taken over; those of known values or outside the space are not.

        Raises:
            AdvisorError: If the source cannot be read or lacks a parameter or metric.
        """
        if isinstance(source, Experiment):
            old = warm_start.fitting(source.trials, self.space, self.goals)
        else:
            rows = warm_start.read_csv(source) if isinstance(source, str | Path) else source
            old = warm_start.trials_from_rows(rows, self.space, self.goals)
        return self.store.import_trials(self.id, old)

    # By hand -----------------------------------------------------------------------------------

    def propose(self) -> Proposal:
        """Say what to try next and why; nothing is decided by it.

        Raises:
            SpaceExhaustedError: If every assignment of the space has been tried.
        """
        trials = self.trials
        defaults = self._settings.get("defaults")
        if defaults is not None and not trials:
            return Proposal(
                parameters=defaults,
                origin=Origin.DEFAULT,
                reason="The settings one would use without a search, so that others can be "
                "compared with them.",
            )
        return self._sampler.propose(self.space, self.goals, trials, int(self._settings["seed"]))

    def edit(self, proposal: Proposal, **changes: Scalar) -> Proposal:
        """Change some values of a proposal.

        Raises:
            AdvisorError: If a value is outside the space.
        """
        parameters = self.space.check({**proposal.parameters, **changes})
        names = ", ".join(changes)
        trials = [t for t in self.trials if t.state is State.FINISHED]
        predicted = self.surrogate().predict([parameters])[0] if len(trials) > 1 else {}
        return Proposal(
            parameters=parameters,
            origin=Origin.EDITED,
            reason=f"{names} changed by hand. Proposed before that: {proposal.reason}",
            predicted=predicted,
        )

    def accept(self, proposal: Proposal) -> Trial:
        """Make a proposal a running trial of this process.

        Raises:
            AdvisorError: If its values are outside the space or have been tried.
            BudgetSpentError: If the experiment has all the trials it may have.
        """
        with self.claimed() as claim:
            return self._accept(proposal, claim)

    def skip(self, proposal: Proposal) -> Trial:
        """Refuse a proposal; it costs no budget and is not proposed again."""
        return self.store.add(self.id, proposal, state=State.SKIPPED)

    # Ask, run, tell ----------------------------------------------------------------------------

    def ask(self) -> Trial:
        """Get a trial to run: one that waits, or else a new one.

        The trial is this process's until it is told; if the process dies, it waits again.

        Raises:
            BudgetSpentError: If the experiment has all the trials it may have.
            SpaceExhaustedError: If every assignment of the space has been tried.
        """
        with self.claimed() as claim:
            return self.ask_with(claim)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[str]:
        """A claim to one trial; what breaks off, Ctrl-C as well, gives that trial back."""
        claim = new_claim()
        try:
            self._heartbeat.add(claim)
            yield claim
        except BaseException:
            self._heartbeat.remove(claim)
            self.store.release_claim(self.id, claim)
            raise

    def ask_with(self, claim: str) -> Trial:
        """As `ask`, with a claim of `claimed`."""
        with self._asking:
            self.store.requeue_abandoned(self.id)
            return self.store.take_waiting(self.id, claim) or self._ask_new(claim)

    def _ask_new(self, claim: str) -> Trial:
        self.store.check_budget(self.id, int(self._settings["observation_budget"]))
        for _ in range(MOST_COLLISIONS):
            try:
                return self._accept(self.propose(), claim)
            except DuplicateTrialError:
                continue  # another process was quicker; now its trial is among those seen
        raise AdvisorError(
            f"experiment {self.id}: other processes took {MOST_COLLISIONS} proposals in a row; "
            "ask again"
        )

    def _accept(self, proposal: Proposal, claim: str) -> Trial:
        self.space.check(proposal.parameters)
        budget = int(self._settings["observation_budget"])
        return self.store.add(self.id, proposal, claim=claim, budget=budget)

    def report(self, trial: Trial, point: CurvePoint) -> str | None:
        """Add a point to a running trial's curve.

        Returns:
            Why the trial should be stopped, or ``None`` to let it go on.

        Raises:
            LostClaimError: If the trial is not this process's any more.
        """
        self.store.add_point(self.id, trial, point)
        trials = self.trials
        curve = next(t.curve for t in trials if t.number == trial.number)
        others = [t for t in trials if t.number != trial.number]
        return self._pruner.verdict(curve, others, self.goals)

    def tell(
        self,
        trial: Trial,
        metrics: Mapping[str, float],
        *,
        noise: Mapping[str, float] | None = None,
        artifact: str | None = None,
    ) -> Trial:
        """Say what a trial came to.

        Args:
            trial: As `ask` gave it.
            metrics: A value for every metric of the goals; other numbers are kept as well.
            noise: Standard deviation of a metric's measurement, where it is known.
            artifact: Where its model is.

        Returns:
            The trial as it stands now.

        Raises:
            AdvisorError: If a metric is missing or not a number.
            LostClaimError: If the trial is not this process's any more.
        """
        values = {**_numbers(metrics), **self.goals.check(metrics)}
        return self._end(trial, State.FINISHED, values, noise=noise, artifact=artifact)

    def tell_pruned(
        self,
        trial: Trial,
        reason: str,
        metrics: Mapping[str, float] | None = None,
        artifact: str | None = None,
    ) -> Trial:
        """Say that a trial was stopped early, with the metrics of that moment if there are any."""
        values = _numbers(metrics or {})
        return self._end(trial, State.PRUNED, values, message=reason, artifact=artifact)

    def tell_failed(self, trial: Trial, message: str) -> Trial:
        """Say that a trial failed, and why."""
        return self._end(trial, State.FAILED, {}, message=message)

    def release(self, trial: Trial) -> None:
        """Give a trial of this process back, for whoever asks next."""
        self._heartbeat.remove(trial.claim)
        self.store.release(self.id, trial)

    def _end(
        self,
        trial: Trial,
        state: State,
        metrics: Mapping[str, float],
        *,
        noise: Mapping[str, float] | None = None,
        message: str = "",
        artifact: str | None = None,
    ) -> Trial:
        self._heartbeat.remove(trial.claim)
        return self.store.end(
            self.id, trial, state, metrics, noise=noise, message=message, artifact=artifact
        )

    def run(
        self,
        runner: Runner,
        *,
        observation_budget: int | None = None,
        time_budget: float | None = None,
        parallel: int = 1,
        on_trial: OnTrial | None = None,
        stop: threading.Event | None = None,
    ) -> Trial | None:
        """Ask, run and tell until the budget is spent.

        Args:
            runner: Runs one trial; see `Runner`.
            observation_budget: Most trials of the experiment, from now on.
            time_budget: Seconds after which no further trial is begun.
            parallel: Trials that go on at once, each in a thread.
            on_trial: Called with every trial that this call has ended.
            stop: Ends the search once it is set: running trials are told to stop at their next
                report and given back, so that they go on when the search does.

        Returns:
            The best trial of the experiment, or ``None`` if none has finished.

        Raises:
            AdvisorError: If trial after trial fails.
            KeyboardInterrupt: On Ctrl-C, after the running trials were given back.
        """
        if observation_budget is not None:
            self.set_budget(observation_budget)
        deadline = None if time_budget is None else time.monotonic() + time_budget
        SearchLoop(self, runner, deadline, on_trial, stop).run(parallel)
        return self.best

    def run_trial(
        self, trial: Trial, runner: Runner, *, stop: threading.Event | None = None
    ) -> Trial | None:
        """Run one trial that was asked for or accepted, and tell what it came to.

        Args:
            trial: A running trial of this process.
            runner: Runs it; see `Runner`.
            stop: Ends it once set; it is given back, as in `run`.

        Returns:
            The trial as it stands after that; ``None`` if it was given back, or is another
            process's by now.
        """
        return SearchLoop(self, runner, stop=stop).run_one(trial)

    def set_budget(self, observation_budget: int) -> None:
        """Set the most trials of the experiment from now on.

        Raises:
            AdvisorError: If it is no whole number of at least 1.
        """
        _check_budget(observation_budget)
        self._settings["observation_budget"] = observation_budget
        self.store.update_settings(self.id, {"observation_budget": observation_budget})


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are finite numbers."""
    return {name: float(value) for name, value in metrics.items() if is_number(value)}


def _sampler(word: str, leader_only: bool) -> Sampler:
    if word not in SAMPLERS:
        raise AdvisorError(f"sampler is {word!r}; expected one of {', '.join(SAMPLERS)}")
    return ParEgo(leader_only=leader_only) if word == "parego" else RandomSampler()


def _check_budget(budget: object) -> None:
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise AdvisorError(
            f"observation_budget is {budget!r}; expected a whole number of at least 1"
        )
