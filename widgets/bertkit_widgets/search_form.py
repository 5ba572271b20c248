"""What a search is made of: its file and name, the budget, the thresholds and the space."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets

from bertkit.advisor import Experiment, Goals, Metric, Space, Store
from bertkit.advisor.experiment import OBSERVATION_BUDGET
from bertkit.advisor.goals import is_number
from bertkit.config import Config
from bertkit.errors import AdvisorError, BertkitError
from bertkit_widgets import style
from bertkit_widgets.checked_field import CheckedField
from bertkit_widgets.form import as_text, grid
from bertkit_widgets.space_text import read_space, write_space

NEW = "New search"
MOST_TRIALS = 10_000


class SearchForm:
    """Fields of a new search, and the choice among those that a file holds.

    Args:
        store: SQLite file of the searches; it is made with the first of them.
        space: What is searched to begin with.
        goals: What is wanted to begin with: training time and F1.
        check: Whether each parameter must be a field of the configuration.
        on_change: Called after every change of a field.
        on_choose: Called with the chosen search's id, or ``None`` for a new one.

    Attributes:
        widget: The form.
        refresh_button: Looks into the file again; stands among the other buttons.
    """

    def __init__(
        self,
        store: str | Path,
        *,
        space: Space,
        goals: Goals,
        check: bool,
        on_change: Callable[[], None],
        on_choose: Callable[[int | None], None],
    ) -> None:
        self._check = check
        self._goals = goals
        self._on_change, self._on_choose = on_change, on_choose
        self._silent = False
        self._suggested = write_space(space)
        self._make_widgets(store, space)
        self.refresh()

    # Use ---------------------------------------------------------------------------------------

    @property
    def store(self) -> Path:
        """The file of the searches."""
        return Path(self._file.value.strip())

    @property
    def budget(self) -> int:
        """Most trials.

        Raises:
            AdvisorError: If the field holds no such number.
        """
        return int(self._budget.value)

    @property
    def problem(self) -> str | None:
        """The first thing that is wrong."""
        fields = [self._budget] if self.chosen is not None else self._fields
        return next((field.problem for field in fields if field.problem), None)

    @property
    def chosen(self) -> int | None:
        """Id of the chosen search, or ``None`` for a new one."""
        value: int | None = self._choice.value
        return value

    def create(self, config: Config) -> Experiment:
        """Make the search that the fields describe; its first trial is the configuration's own.

        Raises:
            AdvisorError: If a field is wrong.
        """
        self.store.parent.mkdir(parents=True, exist_ok=True)
        known = {name: value for name, value in config.to_dict().items() if value is not None}
        return Experiment.create(
            self.store,
            self._name.value.strip() or "search",
            space=self._space.value,
            goals=self._wanted(),
            observation_budget=self.budget,
            defaults=known if self._check else None,
            seed=config.seed,
        )

    def suggest(self, space: Space) -> None:
        """Fill in what a new search might try, unless one was typed or a search is chosen."""
        if self.chosen is None and self._space.input.value == self._suggested:
            self._suggested = self._space.input.value = write_space(space)

    def refresh(self, chosen: int | None = None) -> None:
        """Offer the searches that the file holds now, and choose one without saying so."""
        self._silent = True
        try:
            self._choice.options = [(NEW, None), *self._saved()]
            self._choice.value = chosen
        finally:
            self._silent = False

    def show(self, experiment: Experiment) -> None:
        """Fill the fields with a search that is there; only its budget can be changed."""
        self.refresh(experiment.id)
        self._name.value = experiment.name
        self._budget.input.value = str(experiment.settings["observation_budget"])
        self._space.input.value = write_space(experiment.space)
        thresholds = {m.name: m.threshold for m in experiment.goals.metrics}
        for name, field in self._thresholds.items():
            field.input.value = as_text(thresholds.get(name))
        self.lock(False)

    def lock(self, locked: bool) -> None:
        """Lock what cannot be changed now: everything, or what a saved search has fixed."""
        fixed = locked or self.chosen is not None
        self._file.disabled = self._choice.disabled = self.refresh_button.disabled = locked
        self._budget.input.disabled = locked
        self._name.disabled = fixed
        for field in (self._space, *self._thresholds.values()):
            field.input.disabled = fixed

    # Widgets -----------------------------------------------------------------------------------

    def _make_widgets(self, store: str | Path, space: Space) -> None:
        wide = ipywidgets.Layout(width="100%")
        self._file = ipywidgets.Text(
            value=str(store), description="File", layout=wide,
            tooltip="SQLite file that keeps every trial; it survives the kernel",
        )  # fmt: skip
        self._choice = ipywidgets.Dropdown(
            options=[(NEW, None)], description="Search", layout=wide,
            tooltip="A new search, or one from the file to look at or to go on with",
        )  # fmt: skip
        self._name = ipywidgets.Text(
            value="search", description="Name", layout=wide, tooltip="What you call it"
        )
        self.refresh_button = style.button(
            "Refresh", "Look for searches in the file again", "refresh"
        )
        self._budget = CheckedField(
            _text("Trials at most", OBSERVATION_BUDGET, "Most trials of this search"),
            _budget, "budget", hint="each trains a model", on_change=self._changed,
        )  # fmt: skip
        self._thresholds = {metric.name: self._threshold(metric) for metric in self._goals.metrics}
        self._space = CheckedField(
            ipywidgets.Textarea(
                value=write_space(space), description="Space", rows=4, continuous_update=True,
                tooltip="What is searched, one parameter a line",
            ),
            self._read_space, "space", on_change=self._changed,
            hint="one a line: learning_rate: 3e-5 to 3e-4, log · batch_size: 12, 24",
        )  # fmt: skip
        self._fields = [self._budget, *self._thresholds.values(), self._space]
        self._file.observe(lambda _: self._new_file(), "value")
        self.refresh_button.on_click(lambda _: self.refresh(self.chosen))
        self._choice.observe(lambda _: self._chose(), "value")
        plain = [style.field(box) for box in (self._file, self._choice, self._name)]
        checked = [field.widget for field in (self._budget, *self._thresholds.values())]
        self.widget = ipywidgets.VBox([grid([*plain, *checked]), self._space.widget])

    def _threshold(self, metric: Metric) -> CheckedField:
        aim = "at most" if metric.objective == "minimize" else "at least"
        name = {"training_time": "Training time", "f1": "F1"}.get(metric.name, metric.name)
        unit = f", {metric.unit}" if metric.unit else ""
        return CheckedField(
            _text(f"{name} ({aim}{unit})", metric.threshold, "Trials beyond it are of little use"),
            _threshold, f"threshold-{metric.name}", hint="empty for none",
            on_change=self._changed,
        )  # fmt: skip

    def _changed(self) -> None:
        if not self._silent:
            self._on_change()

    def _chose(self) -> None:
        if not self._silent:
            self._on_choose(self.chosen)

    def _new_file(self) -> None:
        self.refresh()
        self._on_choose(None)

    # Reading -----------------------------------------------------------------------------------

    def _saved(self) -> list[tuple[str, int]]:
        """Names and ids of the file's searches, the newest first."""
        if not self.store.is_file():
            return []
        try:
            with Store(self.store) as store:
                found = [
                    (f"{e.id} · {e.name} · {_count(len(store.trials(e.id)))}", e.id)
                    for e in store.experiments()
                ]
        except BertkitError:
            return []  # no file of searches; opening it says so
        return found[::-1]

    def _wanted(self) -> Goals:
        return Goals(
            tuple(
                Metric(m.name, m.objective, self._thresholds[m.name].value, m.unit)
                for m in self._goals.metrics
            )
        )

    def _read_space(self, text: str) -> Space:
        space = read_space(text)
        if self._check:
            space.check_fields()
        return space


def _count(trials: int) -> str:
    return "1 trial" if trials == 1 else f"{trials:,} trials"


def _text(description: str, value: object, tooltip: str) -> Any:
    text = as_text(value) if is_number(value) else str(value or "")  # type: ignore[arg-type]
    return ipywidgets.Text(
        value=text, description=description, tooltip=tooltip, continuous_update=True
    )


def _budget(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= MOST_TRIALS:
        raise AdvisorError(f"is {text!r}; expected a whole number from 1 to {MOST_TRIALS:,}")
    return number


def _threshold(text: str) -> float | None:
    if not text.strip():
        return None
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not is_number(number):
        raise AdvisorError(f"is {text!r}; expected a number, or nothing")
    return number
