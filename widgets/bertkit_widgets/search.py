"""A search that goes on in a thread, its trials on the engines of a panel."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from bertkit.advisor import Experiment, Proposal, TrainingRunner
from bertkit.advisor.trial import Runner
from bertkit.config import Config
from bertkit.run import Run
from bertkit_widgets.background import Background
from bertkit_widgets.engines import EnginesPanel


class PanelEngines:
    """The engines of a panel as trials see them: started when the first trial wants them.

    Args:
        panel: The panel.
        on_run: Called with every run that a trial starts.

    Attributes:
        n: Number of engines.
    """

    def __init__(self, panel: EnginesPanel, on_run: Callable[[Run], None] | None = None) -> None:
        self.n = panel.n
        self._panel, self._on_run = panel, on_run
        self._run: Run | None = None
        self._stopped = False

    def train(self, config: Config, *, name: str | None = None) -> Run:
        """Start a run and come back at once."""
        return self._begun(self._panel.start().train(config, name=name))

    def resume(self, folder: str | Path) -> Run:
        """Let a run go on from its newest checkpoint, and come back at once."""
        return self._begun(self._panel.start().resume(folder))

    def stop(self) -> None:
        """Ask the run that goes on, and any that may still begin, to stop."""
        self._stopped = True
        if self._run is not None:
            self._run.stop()

    def _begun(self, run: Run) -> Run:
        self._run = run
        if self._on_run is not None:
            self._on_run(run)
        if self._stopped:
            run.stop()
        return run


class Search:
    """Runs trials of an experiment beside the kernel's own thread, until it is told to stop.

    Args:
        say: Called with the HTML of a message when a search fails.
        on_busy: Called when a search begins and when it ends.
        runner: Runs one trial; by default a training run on the panel's engines.
        engines: The panel.
        on_run: Called with every run that a trial starts.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        on_busy: Callable[[bool], None],
        *,
        runner: Runner | None = None,
        engines: EnginesPanel,
        on_run: Callable[[Run], None] | None = None,
    ) -> None:
        self._background = Background(say, self._changed)
        self._on_busy, self._going = on_busy, False
        self._own_runner, self._panel, self._on_run = runner, engines, on_run
        self._engines: PanelEngines | None = None
        self._stop = threading.Event()

    @property
    def busy(self) -> bool:
        """Whether a trial goes on, or the next one is being chosen."""
        return self._going

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop and has not yet."""
        return self.busy and self._stop.is_set()

    def start(self, experiment: Experiment, budget: int, config: Config) -> None:
        """Ask, run and tell until the budget is spent; returns at once.

        Args:
            experiment: What is searched.
            budget: Most trials from now on.
            config: What all trials have in common.
        """
        runner = self._runner(config)
        self._begin(lambda stop: experiment.run(runner, observation_budget=budget, stop=stop))

    def run_one(self, experiment: Experiment, proposal: Proposal, config: Config) -> None:
        """Accept a proposal and run its trial; returns at once.

        Raises:
            AdvisorError: If its values have been tried, or the budget is spent.
        """
        runner = self._runner(config)
        trial = experiment.accept(proposal)
        self._begin(lambda stop: experiment.run_trial(trial, runner, stop=stop))

    def stop(self) -> None:
        """Ask it to stop; the running trial goes on when the search does. Returns at once."""
        self._stop.set()
        if self._engines is not None:
            self._engines.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended; whether it has within the time."""
        return self._background.wait(timeout)

    def _runner(self, config: Config) -> Runner:
        if self._own_runner is not None:
            return self._own_runner
        self._engines = PanelEngines(self._panel, self._on_run)
        return TrainingRunner(config, [self._engines])

    def _begin(self, work: Callable[[threading.Event], object]) -> None:
        stop = self._stop = threading.Event()

        def do() -> None:
            work(stop)  # what comes of it is in the experiment's store

        self._background.wait(10.0)  # the thread of an earlier one may be about to end
        self._background.start(do)

    def _changed(self, busy: bool) -> None:
        self._going = busy
        self._on_busy(busy)
