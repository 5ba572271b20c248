"""The studio: the whole job in one cell, from data to answered questions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ipywidgets

from bertkit.config import Config, Scalar, check
from bertkit.errors import BertkitError, ClusterError, FieldProblem
from bertkit.run import Result, Run
from bertkit_widgets import style
from bertkit_widgets.ask import AskPanel
from bertkit_widgets.data import DataPanel
from bertkit_widgets.engines import EnginesPanel
from bertkit_widgets.form import read_problem
from bertkit_widgets.hyperparameters import PATHS, HyperparametersPanel
from bertkit_widgets.live import LivePanel
from bertkit_widgets.periodic import Periodic
from bertkit_widgets.saved_runs import running_run
from bertkit_widgets.trials import TrialsPanel

TABS = ("1 Data", "2 Engines", "3 Hyperparameters", "4 Training", "5 Trials", "6 Ask")
DATA, ENGINES, HYPERPARAMETERS, TRAINING, TRIALS, ASK = range(6)
STORE_FILE = "advisor.db"
WATCH_SECONDS = 0.5


class Studio:
    """All panels in one: choose data, start engines, set hyperparameters, train, search, ask.

    A run of the configuration's folder that goes on already is shown at once. With
    ``keep_alive=True`` a run outlives its kernel: the studio of the next one takes it up, engines
    and all. The kernel stays free while training runs.
    ``studio.start()`` does what the Start button does and returns at once; ``await studio.run``
    waits for the result with the buttons alive, and
    ``studio.wait()`` waits for it in scripts.

    Args:
        config: Configuration to begin with; by default the demo's.
        engines: Number of engines to begin with.
        **options: Further arguments of `bertkit.Cluster`, such as ``keep_alive``.

    Attributes:
        data: The data panel.
        engines: The engines panel.
        hyperparameters: The hyperparameters panel.
        live: The live panel.
        trials: The trials panel.
        ask: The ask panel.

    Example:
        >>> studio = Studio()                                           # doctest: +SKIP
        >>> studio                                                      # doctest: +SKIP
        >>> run = studio.start()                                        # doctest: +SKIP
        >>> (await run).f1                                              # doctest: +SKIP
        93.1
    """

    def __init__(self, config: Config | None = None, *, engines: int = 2, **options: Any) -> None:
        self.data = DataPanel(on_change=self._changed)
        self.engines = EnginesPanel(engines, on_change=self._changed, **options)
        self.hyperparameters = HyperparametersPanel(
            config, with_paths=False, on_change=self._changed, on_load=self._load
        )
        output = self.hyperparameters.config.output
        self.live = LivePanel(runs_folder=output, on_resume=self._resume, on_change=self._changed)
        self.trials = TrialsPanel(
            Path(output) / STORE_FILE, config=lambda: self.config, engines=self.engines,
            on_run=self._follow_trial, on_change=self._changed,
        )  # fmt: skip
        self.ask = AskPanel(runs_folder=output)
        self._started: Run | None = None
        self._watch = Periodic(self._look, WATCH_SECONDS, "bertkit-studio")
        self._make_widgets()
        self._load(self.hyperparameters.config.to_dict())
        self._reopen(running_run(output))
        self._changed()

    # Use ---------------------------------------------------------------------------------------

    @property
    def values(self) -> dict[str, Scalar]:
        """What stands in all fields, by the names of the configuration."""
        return {**self.hyperparameters.values, **self.data.values}

    @property
    def config(self) -> Config:
        """The configuration that the fields make.

        Raises:
            ConfigError: If a field is wrong.
        """
        return Config.from_dict(self.values)

    @property
    def run(self) -> Any:
        """The newest run that was started or opened here, or ``None``; it can be awaited."""
        return self.live.run

    @property
    def training(self) -> bool:
        """Whether a run that was started here still goes on."""
        return self._started is not None and self._started.running

    def start(self) -> Any:
        """Start the engines if need be, and a run on them; returns its handle at once.

        Raises:
            ConfigError: If a field is wrong.
            ClusterError: If a run goes on, or the engines cannot be had.
            RunError: If the run's folder cannot be made.
        """
        if self.training or self.trials.busy:
            raise ClusterError("a run goes on; stop it before starting another")
        config = self.config
        return self._follow(self.engines.start().train(config))

    def stop(self) -> None:
        """Ask the run, or the search, to stop after its current step; returns at once."""
        if self.trials.busy:
            self.trials.stop()
        self.live.stop()

    def wait(self, timeout: float | None = None) -> Result:
        """Wait until the run is over; for scripts.

        Raises:
            TrainingError: If the run failed.
            TimeoutError: If it is not over in time.
        """
        return self.live.wait(timeout)

    def close(self) -> None:
        """Stop what goes on and end the engines."""
        self.trials.close()
        self.engines.stop()
        self.engines.wait(30.0)

    def open(self, folder: str | Path) -> None:
        """Show a saved run with all of its history, finished or still going on.

        Raises:
            RunError: If the folder holds no run.
        """
        self.live.show(folder)
        self.ask.refresh(Run(folder))
        self._go_to(TRAINING)

    def _ipython_display_(self) -> None:
        style.show(self.widget, "bertkit studio")
        self.live.keep_in_cell()

    # Widgets -----------------------------------------------------------------------------------

    def _make_widgets(self) -> None:
        self._start_button = style.button(
            "Start training", "Start the engines if need be, then train on all of them", "start",
            icon="play", primary=True,
        )  # fmt: skip
        self._stop_button = style.button(
            "Stop", "Stop after the current step; the best model is kept", "stop-all",
            icon="stop", disabled=True,
        )  # fmt: skip
        self._start_button.on_click(lambda _: self._try_start())
        self._stop_button.on_click(lambda _: self.stop())
        self._ask_button = style.button(
            "Ask the model", "Go to the tab where the trained model answers questions", "go-ask",
            icon="question",
        )  # fmt: skip
        self._ask_button.on_click(lambda _: self._go_to(ASK))
        style.reveal(self._ask_button, False)
        self._state = style.text("", "bk-studio-state")
        parts = [
            self.data.widget, self.engines.widget, self.hyperparameters.widget,
            self.live.widget, self.trials.widget, self.ask.widget,
        ]  # fmt: skip
        self._tabs = ipywidgets.Tab(parts, titles=TABS)
        self.widget = style.panel(
            [
                style.row([self._start_button, self._stop_button, self._ask_button]),
                self._state, self._tabs,
            ],
            "studio",
        )  # fmt: skip

    def _go_to(self, tab: int) -> None:
        self._tabs.selected_index = tab

    def _try_start(self) -> None:
        try:
            self.start()
        except BertkitError as error:
            self._state.value = style.status("bad", "Not started.", str(error))

    def _load(self, values: Mapping[str, Scalar]) -> None:
        self.data.values = {name: values[name] for name in (*PATHS, "max_seq_length")}
        if hasattr(self, "trials"):  # the form loads its first values before there are trials
            self.trials.suggest(Config.from_dict(values))

    def _changed(self) -> None:
        if not hasattr(self, "_start_button"):
            return  # the panels report while they are being made
        engines = None if self.engines.problem else self.engines.n
        shared = (self.data.values, engines)
        if shared != self._shared:
            self._shared = shared
            self.hyperparameters.share(*shared)
        self._show()

    _shared: tuple[Mapping[str, Scalar], int | None] | None = None

    def _show(self) -> None:
        searching = self.trials.busy
        problems, training = self._problems(), self.training or searching
        self._start_button.disabled = training or bool(problems)
        self._stop_button.disabled = not (self.live.can_stop or self.trials.can_stop)
        self.trials.lock(self.training and not searching)
        self.data.lock(training)
        self.hyperparameters.lock(training)
        ended = None if training or not self._started else self._started.result
        style.reveal(self._ask_button, ended is not None)
        words = _words(problems, training, ended)
        if words != self._state.value:
            self._state.value = words

    def _problems(self) -> list[str]:
        problems: list[FieldProblem] = check(self.values)
        words = [
            f"{read_problem(problem)} (tab '{TABS[DATA if problem.field in PATHS else 2]}')"
            for problem in problems
        ]
        if self.engines.problem:
            words.append(f"{self.engines.problem} (tab '{TABS[ENGINES]}')")
        return words

    # Runs --------------------------------------------------------------------------------------

    def _follow(self, run: Run) -> Run:
        self._started = run
        self.live.show(run)
        self._go_to(TRAINING)
        self._show()
        self._watch.start()
        return run

    def _follow_trial(self, run: Run) -> None:
        """Show a trial's run among the curves; the search goes on looking after it."""
        self._started = run
        self.live.show(run)
        self._watch.start()

    def _resume(self, folder: Path) -> Run:
        run = self.engines.start().resume(folder)
        self._started = run
        self._show()
        self._watch.start()
        return run

    def _look(self) -> bool:
        """Offer the run's model and unlock the fields when it is over; whether it still goes on."""
        if self.training:
            return True
        self.ask.refresh(self._started if self._started and self._started.result else None)
        self._show()
        return False

    def _reopen(self, run: Run | None) -> None:
        """Take up a run that goes on without this kernel having started it."""
        if run is None:
            return
        from bertkit.cluster.coordinator import LeftBehind

        before = LeftBehind.of(run.folder)
        if before is not None and before.profile is not None:
            self.engines.take_up(before.profile)
        self._follow(run)


def _words(problems: list[str], training: bool, ended: Result | None) -> str:
    """HTML that says what to do next; nothing while a run says it all."""
    if training:
        return ""
    if problems:
        return style.status("bad", "Correct this first:", "; ".join(problems))
    if ended is not None:
        words = (
            f"F1 {ended.f1:.1f} %. Ask it something in tab '{TABS[ASK]}', or let the advisor look "
            f"for better settings in tab '{TABS[TRIALS]}'."
        )
        return style.status("good", "The model is trained:", words)
    words = "Everything is filled in. The tabs show what will be done, and may be changed first."
    return style.status("note", "Press Start training.", words)
