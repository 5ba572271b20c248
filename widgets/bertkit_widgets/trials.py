"""The trials panel: a search for good hyperparameters, trial by trial or by itself."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bertkit.advisor import Experiment, Goals, Proposal, Space, State, Trial
from bertkit.advisor.proposing import SpaceExhaustedError
from bertkit.advisor.tables import BudgetSpentError
from bertkit.advisor.trial import Runner
from bertkit.config import Config
from bertkit.errors import AdvisorError, BertkitError
from bertkit.presets import preset
from bertkit.reports import style as looks
from bertkit.reports.trials import plot_effects, plot_importance, plot_pareto, plot_trials
from bertkit.run import Run
from bertkit_widgets import style
from bertkit_widgets.engines import EnginesPanel
from bertkit_widgets.kept import KeptOutput
from bertkit_widgets.periodic import Periodic
from bertkit_widgets.proposal_form import ProposalForm
from bertkit_widgets.search import Search
from bertkit_widgets.search_form import SearchForm
from bertkit_widgets.space_text import space_around
from bertkit_widgets.trial_words import describe_front, state_words, trial_rows, trial_tiles

STORE = "runs/advisor.db"
LOOK_SECONDS = 0.5
NEXT = "Next proposal"
LEAST_FINISHED = 2
"""Finished trials that a model of them, and so importance, needs."""


class TrialsPanel:
    """Searches hyperparameters with the advisor: by itself, or proposal by proposal.

    Everything it shows is in the experiment's file, so it may be opened again in another notebook,
    or while another process searches.

    Args:
        store: SQLite file that keeps the searches; it is made with the first of them.
        experiment: Id of a search in that file to open; by default a new one is offered.
        config: What all trials have in common, or what gives it; by default the demo's.
        engines: The engines that trials run on; by default two of one's own.
        runner: Runs one trial, where it is not a training run; see `bertkit.advisor.trial.Runner`.
        space: What a new search begins with; by default the published space.
        goals: What is wanted; by default the published goals.
        on_run: Called with every run that a trial starts.
        on_change: Called when a search begins and when it ends.

    Attributes:
        widget: The panel as a widget, to put into another.
        experiment: The search that is shown, or ``None``.

    Raises:
        AdvisorError: If the file holds no such search.

    Example:
        >>> TrialsPanel("runs/advisor.db", 1)                           # doctest: +SKIP
    """

    def __init__(
        self,
        store: str | Path = STORE,
        experiment: int | None = None,
        *,
        config: Config | Callable[[], Config] | None = None,
        engines: EnginesPanel | None = None,
        runner: Runner | None = None,
        space: Any = None,
        goals: Any = None,
        on_run: Callable[[Run], None] | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self.experiment: Experiment | None = None
        self._config = config if config is not None else preset("demo")
        self._on_change = on_change
        self._lock = threading.RLock()  # the thread reads and draws; the page's clicks change
        self._blocked = self._wants_proposal = False
        self._seen: object = None
        self._drawn: object = None
        self._next_for: object = None
        self._kept = KeptOutput()
        self._search = Search(
            self._fail, self._busy_changed, runner=runner, engines=engines or EnginesPanel(),
            on_run=on_run,
        )  # fmt: skip
        self._make_widgets(
            SearchForm(
                store,
                space=Space.published() if space is None else Space.read(space),
                goals=Goals.published() if goals is None else Goals.read(goals),
                check=runner is None,
                on_change=self._show_buttons,
                on_choose=self._choose,
            )
        )
        self._thread = Periodic(self._tick, LOOK_SECONDS, "bertkit-trials")
        if experiment is not None:
            self.open(experiment)

    # Use ---------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a search or a trial goes on."""
        return self._search.busy

    @property
    def can_stop(self) -> bool:
        """Whether a search goes on and was not yet asked to stop."""
        return self.busy and not self._search.stopping

    def open(self, experiment: int) -> None:
        """Show a search of the file, and follow it if it goes on.

        Raises:
            AdvisorError: If the file holds no such search, or another one goes on here.
        """
        if self.busy:
            raise AdvisorError("a search goes on; stop it before opening another")
        self._take(Experiment.resume(self._form.store, experiment))

    def start(self) -> None:
        """Search until the budget is spent; returns at once.

        Raises:
            AdvisorError: If a field is wrong or the search cannot be kept in the file.
            ConfigError: If the configuration is wrong.
        """
        config = self._common_config()
        experiment = self._experiment(config)
        self._wants_proposal = True
        self._search.start(experiment, self._form.budget, config)
        self._thread.start()

    def propose(self) -> None:
        """Show what the advisor would try next; returns at once.

        Raises:
            AdvisorError: If a field is wrong or the search cannot be kept in the file.
            ConfigError: If the configuration is wrong.
        """
        self._experiment(self._common_config()).set_budget(self._form.budget)
        with self._lock:
            self._wants_proposal, self._next_for = True, None
        self._look_anew()

    def accept(self) -> None:
        """Run a trial of the values that stand in the proposal; returns at once.

        Raises:
            AdvisorError: If there is none, its values were tried, or the budget is spent.
            ConfigError: If the configuration is wrong.
        """
        experiment, proposal = self._proposed()
        changes = self._proposal.changes
        proposal = experiment.edit(proposal, **changes) if changes else proposal
        self._search.run_one(experiment, proposal, self._common_config())
        self._thread.start()

    def edit(self) -> None:
        """Take the changed values over and show what the model expects of them.

        Raises:
            AdvisorError: If there is no proposal, or a value is outside the space.
        """
        experiment, proposal = self._proposed()
        with self._lock:
            self._show_proposal(experiment, experiment.edit(proposal, **self._proposal.changes))

    def skip(self) -> None:
        """Refuse the proposal and show another one.

        Raises:
            AdvisorError: If there is none.
        """
        experiment, proposal = self._proposed()
        experiment.skip(proposal)
        self._proposal.lock(True)
        self._thread.start()

    def stop(self) -> None:
        """End the search after the running trial's current step; returns at once.

        The trial is given back and goes on when the search does.
        """
        self._search.stop()
        self._seen = None
        self._show_buttons()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing goes on and all is shown; whether that was within the time."""
        return self._search.wait(timeout) and self._thread.wait(timeout)

    def lock(self, blocked: bool) -> None:
        """Keep searches from starting, since the engines train something else."""
        if blocked != self._blocked:
            self._blocked = blocked
            self._show_buttons()

    def suggest(self, config: Config) -> None:
        """Fill in what a search around a configuration might try, unless someone has typed."""
        self._form.suggest(space_around(config))

    def close(self) -> None:
        """Stop what goes on and let go of the file."""
        self.stop()
        self._search.wait(60.0)
        self._thread.wait(10.0)
        if self.experiment is not None:
            self.experiment.close()

    def _ipython_display_(self) -> None:
        style.show(self.widget, "Trials panel")
        self._kept.place()
        self._look_anew()  # the cell keeps a picture, too

    # Widgets -----------------------------------------------------------------------------------

    def _make_widgets(self, form: SearchForm) -> None:
        self._form = form
        self._start_button = style.button(
            "Start search", "Propose and run trial after trial, up to the budget", "start-search",
            icon="play", primary=True,
        )  # fmt: skip
        self._stop_button = style.button(
            "Stop search", "Stop the running trial; it goes on when the search does",
            "stop-search", icon="stop", disabled=True,
        )  # fmt: skip
        self._propose_button = style.button(
            "Next proposal", "See what the advisor would try next, and decide by hand", "propose",
            icon="lightbulb-o",
        )  # fmt: skip
        self._start_button.on_click(lambda _: self._try(self.start))
        self._stop_button.on_click(lambda _: self.stop())
        self._propose_button.on_click(lambda _: self._try(self.propose))
        self._proposal = ProposalForm(
            on_accept=lambda: self._try(self.accept),
            on_edit=lambda: self._try(self.edit),
            on_skip=lambda: self._try(self.skip),
        )
        self._waits = style.text("", "bk-hint")
        self._state = style.text(_NONE, "bk-trials-state")
        self._numbers = style.text("", "bk-trials-numbers")
        self._table = style.text("", "bk-scroll", "bk-trials-table")
        self._pareto = style.text("", "bk-plot", "bk-pareto")
        self._importance = style.text("", "bk-plot", "bk-importance")
        self._more = style.toggle(
            "More pictures", "Every metric over the trials, and what each value does", "more"
        )
        self._over_trials = style.text("", "bk-plot", "bk-over-trials")
        self._effects = style.text("", "bk-plot", "bk-effects")
        self._more_box = style.hidden([self._over_trials, self._effects])
        self._more.observe(lambda change: self._toggle_more(change["new"]), "value")
        buttons = [
            self._start_button, self._stop_button, self._propose_button, form.refresh_button,
        ]  # fmt: skip
        self.widget = style.panel(
            [
                form.widget, style.row(buttons), self._waits, self._state, self._numbers,
                self._proposal.widget, self._table, self._pareto, self._importance,
                style.row([self._more]), self._more_box,
            ],
            "trials",
        )  # fmt: skip
        self._show_buttons()
        style.reveal(self._more, False)

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except BertkitError as error:
            self._fail(style.status("bad", "That did not work.", str(error)))
        self._show_buttons()

    def _fail(self, words: str) -> None:
        self._say(words)
        self._failed = True

    def _say(self, words: str) -> None:
        self._failed = False
        if words != self._state.value:  # else screen readers would say it again and again
            self._state.value = words

    _failed = False

    def _busy_changed(self, busy: bool) -> None:
        self._seen = None
        if self.experiment is not None and not busy:
            self._form.refresh(self.experiment.id)  # its name says how many trials it has
        if hasattr(self, "_thread"):
            self._show_buttons()
            self._thread.start()
        if self._on_change is not None:
            self._on_change()

    def _show_buttons(self) -> None:
        wrong = bool(self._form.problem)
        self._start_button.disabled = self.busy or self._blocked or wrong
        self._waits.value = _WAITS if self._blocked and not self.busy else ""
        self._propose_button.disabled = self.busy or wrong
        self._stop_button.disabled = not self.can_stop
        self._form.lock(self.busy)
        self._proposal.lock(self.busy or self._blocked)

    def _toggle_more(self, shown: bool) -> None:
        style.reveal(self._more_box, shown)
        self._look_anew()

    def _look_anew(self) -> None:
        """Show and draw everything again, in the panel's thread."""
        with self._lock:
            self._drawn = self._seen = None
        self._thread.start()

    # The search --------------------------------------------------------------------------------

    def _common_config(self) -> Config:
        return self._config() if callable(self._config) else self._config

    def _experiment(self, config: Config) -> Experiment:
        """The search that is shown, or a new one of what stands in the fields."""
        if self.busy:
            raise AdvisorError("a search goes on; stop it first")
        experiment = self.experiment
        if experiment is None:
            experiment = self._form.create(config)
            self._take(experiment)
        return experiment

    def _choose(self, id: int | None) -> None:
        if id is None:
            self._take(None)
        else:
            self._try(lambda: self.open(id))

    def _take(self, experiment: Experiment | None) -> None:
        with self._lock:
            before, self.experiment = self.experiment, experiment
            if before is not None:
                before.close()
            self._seen = self._drawn = self._next_for = None
            self._wants_proposal = False
            self._proposal.hide()
            self._clear()
            if experiment is not None:
                self._form.show(experiment)
        self._show_buttons()
        self._thread.start()

    def _proposed(self) -> tuple[Experiment, Proposal]:
        proposal = self._proposal.proposal
        if self.experiment is None or proposal is None or self.busy:
            raise AdvisorError("there is no proposal; press Next proposal first")
        return self.experiment, proposal

    # Showing -----------------------------------------------------------------------------------

    def _tick(self) -> bool:
        """Show what is new; whether anything may still come."""
        with self._lock:
            experiment = self.experiment
            if experiment is None:
                return False
            try:
                trials = experiment.trials
                self._show(experiment, trials)
            except Exception as error:  # it belongs on the page, not into a lost thread
                details = "".join(traceback.format_exception(error))
                self._fail(style.status("bad", "The trials cannot be shown.", str(error), details))
                return False
            return self.busy or any(t.state is State.RUNNING for t in trials)

    def _show(self, experiment: Experiment, trials: Sequence[Trial]) -> None:
        searching = self.busy
        seen = (
            searching,
            self._search.stopping,
            [(t.number, t.state, len(t.curve)) for t in trials],
        )
        if seen == self._seen:
            return
        self._seen = seen
        budget = int(experiment.settings["observation_budget"])
        if searching or not self._failed:
            self._say(
                state_words(trials, experiment.goals, budget, searching, self._search.stopping)
            )
        self._numbers.value = trial_tiles(trials, experiment.goals, budget)
        self._table.value = trial_rows(trials, experiment.goals, experiment.space)
        drawn = (searching, [(t.number, t.state) for t in trials])
        if drawn != self._next_for:  # else what a person has typed into it would be lost
            self._next_for = drawn
            self._show_next(experiment, trials, searching)
        if drawn != self._drawn:
            self._drawn = drawn
            self._draw(experiment, trials)

    def _show_next(self, experiment: Experiment, trials: Sequence[Trial], searching: bool) -> None:
        """The trial that goes on, or else what would come next."""
        running = [t for t in trials if t.state is State.RUNNING]
        if running:
            now = running[-1]
            proposal = Proposal(
                parameters=now.parameters, origin=now.origin, reason=now.reason,
                predicted=now.predicted,
            )  # fmt: skip
            self._show_proposal(experiment, proposal, f"Trial {now.number} goes on")
        elif searching or not self._wants_proposal:
            self._proposal.hide()
        else:
            self._propose(experiment)

    def _propose(self, experiment: Experiment) -> None:
        self._proposal.hide()
        try:
            experiment.store.check_budget(
                experiment.id, int(experiment.settings["observation_budget"])
            )
            self._show_proposal(experiment, experiment.propose())
        except BudgetSpentError:
            self._wants_proposal = False  # the state says so already
        except SpaceExhaustedError as error:
            self._wants_proposal = False
            self._say(style.status("note", "Nothing left to propose:", f"{error}."))

    def _show_proposal(self, experiment: Experiment, proposal: Proposal, title: str = NEXT) -> None:
        self._proposal.show(
            title, proposal, experiment.space, experiment.goals, locked=title != NEXT
        )

    def _draw(self, experiment: Experiment, trials: Sequence[Trial]) -> None:
        goals, finished = experiment.goals, [t for t in trials if t.state is State.FINISHED]
        style.reveal(self._more, bool(finished))
        if not finished:
            return
        words = describe_front(trials, goals)
        if len(goals.metrics) > 1:
            figure = plot_pareto(trials, goals, proposal=self._proposal.proposal)
        else:
            figure = plot_trials(trials, goals)
        png = looks.png(figure)
        self._pareto.value = style.picture(png, words)
        self._kept.update(png, words, f"{words} File: {self._form.store}")
        if self._more.value and len(goals.metrics) > 1:
            self._over_trials.value = _picture(
                plot_trials(trials, goals), "Metrics over the trials"
            )
        if len(finished) < LEAST_FINISHED:
            return
        surrogate = experiment.surrogate()
        self._importance.value = _picture(
            plot_importance(surrogate), "How much of each metric goes with each parameter"
        )
        if self._more.value:
            self._effects.value = _picture(
                plot_effects(surrogate), "What each parameter does to each metric"
            )

    def _clear(self) -> None:
        for text in (self._numbers, self._table, self._pareto, self._importance):
            text.value = ""
        self._over_trials.value = self._effects.value = ""
        self._say(_NONE)


_WAITS = "A search can start when the training that goes on has ended: it needs the engines."

_NONE = style.status(
    "note",
    "No search yet.",
    "Start search trains again and again, each time with values from Space that the advisor "
    "proposes, and shows what they bought. Or choose a search that the file holds.",
)


def _picture(figure: Any, description: str) -> str:
    return style.picture(looks.png(figure), description)
