"""The hyperparameters panel: every field of the configuration, checked while one types."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import ipywidgets

from bertkit.config import Config, Scalar, as_yaml, check, read_mapping, settings
from bertkit.errors import ConfigError, FieldProblem
from bertkit.presets import PRESETS
from bertkit_widgets import style
from bertkit_widgets.form import ConfigForm, read_problem
from bertkit_widgets.python_text import as_python, changed

PATHS = ("data", "train_file", "dev_file", "model")
"""Settings that the data panel edits."""

BASIC = (
    "optimizer", "learning_rate", "warmup_rate", "batch_size", "num_epochs", "target_f1",
    "step_threshold", "evaluate_every", "seed",
)  # fmt: skip
"""Settings one most often changes; the others are one click away."""

_GROUP_TITLES = {
    "data": "Features and answers", "model": "Model", "optimizer": "Optimizer",
    "batches": "Batches and length", "early stop": "Validation and early stop", "run": "Run",
}  # fmt: skip


class HyperparametersPanel:
    """Edits a configuration.

    Args:
        config: What to begin with; by default the demo's.
        with_paths: Whether the data's and the model's paths are edited here too. The studio has
            a panel of their own for them.
        on_change: Called after every change.
        on_load: Called with the values of a preset or file, for who edits the other fields.

    Attributes:
        widget: The panel as a widget, to put into another.

    Example:
        >>> panel = HyperparametersPanel()
        >>> panel.values["learning_rate"] > 0
        True
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        with_paths: bool = True,
        on_change: Callable[[], None] | None = None,
        on_load: Callable[[Mapping[str, Scalar]], None] | None = None,
    ) -> None:
        self.engines = 2
        self._on_change = on_change
        self._on_load = on_load
        self._sums_up = with_paths  # the studio does it above all panels
        left_out = () if with_paths else PATHS
        names = [s.name for s in settings() if s.name not in left_out]
        basic = [name for name in (*PATHS, *BASIC) if name in names]
        self._basic = ConfigForm(basic, self._changed)
        self._groups = _grouped_forms(names, basic, self._changed)
        self._others: dict[str, Scalar] = {}
        self._make_widgets()
        start = config or Config.from_dict(PRESETS["demo"])
        if config is None:
            self._preset.value = "demo"
        else:
            self.load(start.to_dict())

    # Use ---------------------------------------------------------------------------------------

    @property
    def values(self) -> dict[str, Scalar]:
        """What stands in the fields, by the names of the configuration."""
        values: dict[str, Scalar] = {}
        for form in self._forms:
            values.update(form.values)
        return values

    @property
    def _all_values(self) -> dict[str, Scalar]:
        """The values of all settings, also of those that are edited elsewhere."""
        return {**self._others, **self.values}

    @property
    def problems(self) -> list[FieldProblem]:
        """Everything that is wrong now."""
        return check(self._all_values)

    @property
    def config(self) -> Config:
        """The configuration.

        Raises:
            ConfigError: If a field is wrong.
        """
        return Config.from_dict(self._all_values)

    def load(self, values: Mapping[str, Scalar]) -> None:
        """Take over values; what is not named gets its default.

        Raises:
            ConfigError: If a name or value is wrong; then nothing is taken over.
        """
        complete = Config.from_dict(values).to_dict()
        mine = self.values
        self._others = {name: value for name, value in complete.items() if name not in mine}
        self._loading = True  # one check after all of them, not one after each form
        for form in self._forms:
            form.values = {name: complete[name] for name in form.fields}
        self._loading = False
        if self._on_load:
            self._on_load(complete)
        self._changed()

    def import_file(self, path: str | Path) -> None:
        """Take over a JSON or YAML file.

        Raises:
            ConfigError: If it cannot be read or holds a wrong name or value.
        """
        self.load(read_mapping(path))

    def export_file(self, path: str | Path) -> None:
        """Write the configuration to a ``.json``, ``.yaml`` or ``.yml`` file.

        Raises:
            ConfigError: If a field is wrong, or the file cannot be written.
        """
        try:
            self.config.save(path)
        except OSError as error:
            message = f"cannot write {path}: {error.strerror}"
            raise ConfigError([FieldProblem("file", message)]) from None

    def lock(self, locked: bool) -> None:
        """Lock the fields while a run uses their values, or unlock them."""
        for form in self._forms:
            form.disable(locked)
        self._preset.disabled = self._upload.disabled = locked

    def share(self, values: Mapping[str, Scalar], engines: int | None = None) -> None:
        """Tell what is edited elsewhere, for checks and exports.

        Args:
            values: Values of the other fields.
            engines: Number of engines, where it is known.
        """
        self._others = dict(values)
        self.engines = engines or self.engines
        self._name_preset()
        self._show()

    def _ipython_display_(self) -> None:
        style.show(self.widget, "Hyperparameters panel")

    # Widgets -----------------------------------------------------------------------------------

    @property
    def _forms(self) -> list[ConfigForm]:
        return [self._basic, *self._groups.values()]

    def _make_widgets(self) -> None:
        self._preset = ipywidgets.Dropdown(
            options=[("your own values", ""), *((name, name) for name in _presets())],
            value="", description="Start from",
            tooltip="Fill all fields with settings that are known to work",
            layout=ipywidgets.Layout(width="20em"),
        )  # fmt: skip
        self._preset.observe(self._use_preset, "value")
        style.tagged(self._preset, "bk-preset")
        self._all = style.toggle("All settings", "Show the seldom changed fields too", "all")
        self._explain = style.toggle("Explain", "Show what each field does", "explain")
        self._file = style.toggle("Import, export", "Read or write a JSON or YAML file", "file")
        self._code = style.toggle("Show as Python", "The lines that do the same", "code")
        self._state = style.text("", "bk-form-state")
        self._more = style.hidden(
            [
                part
                for title, form in self._groups.items()
                for part in (style.text(f"<h4>{_GROUP_TITLES[title]}</h4>"), form.widget)
            ]
        )
        self._file_box = style.hidden([self._file_form()])
        self._code_text = style.text("", "bk-python")
        self._code_box = style.hidden([self._code_text])
        legend = style.text('<span class="bk-dot">●</span> differs from the default', "bk-hint")
        self._fields = ipywidgets.VBox([legend, self._basic.widget, self._more])
        for button, box in (
            (self._all, self._more), (self._file, self._file_box), (self._code, self._code_box),
        ):  # fmt: skip
            button.observe(lambda change, box=box: style.reveal(box, change["new"]), "value")
        self._explain.observe(self._toggle_help, "value")
        self.widget = style.panel(
            [
                style.row(
                    [style.beside(self._preset), self._all, self._explain, self._code, self._file]
                ),
                self._code_box, self._file_box, self._state, self._fields,
            ],
            "hyperparameters",
        )  # fmt: skip

    def _file_form(self) -> Any:
        self._upload = ipywidgets.FileUpload(
            accept=".json,.yaml,.yml", multiple=False, description="Import",
            tooltip="Fill the fields from a JSON or YAML file of this computer",
        )  # fmt: skip
        self._upload.observe(self._use_upload, "value")
        self._path = ipywidgets.Text(
            value="config.yaml", description="File", continuous_update=False,
            tooltip="Where the kernel runs; its ending decides about the layout",
            layout=ipywidgets.Layout(width="24em"),
        )  # fmt: skip
        save = style.button("Save", "Write all fields to that file", "save", icon="save")
        read = style.button("Read", "Fill the fields from that file", "read")
        save.on_click(lambda _: self._try(self._save))
        read.on_click(lambda _: self._try(lambda: self.import_file(self._path.value)))
        self._links = style.text("")
        self._file_state = style.text("")
        return ipywidgets.VBox(
            [
                style.row([style.beside(self._path), read, save, self._upload]),
                self._links,
                self._file_state,
            ]
        )

    # Reactions ---------------------------------------------------------------------------------

    def _use_preset(self, change: dict[str, Any]) -> None:
        chosen = _presets().get(change["new"])
        if chosen is not None and chosen != self._all_values:
            self.load(chosen)

    def _use_upload(self, change: dict[str, Any]) -> None:
        if change["new"]:
            upload = change["new"][0]
            self._try(lambda: self._import_upload(upload["name"], bytes(upload["content"])))

    def _import_upload(self, name: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(content)
            self.import_file(path)
        self._file_state.value = style.status("good", "Read.", name)

    def _save(self) -> None:
        self.export_file(self._path.value)
        self._file_state.value = style.status(
            "good", "Saved.", str(Path(self._path.value).resolve())
        )

    def _try(self, action: Callable[[], None]) -> None:
        self._file_state.value = ""
        try:
            action()
        except ConfigError as error:
            words = " ".join(read_problem(problem) + "." for problem in error.problems)
            self._file_state.value = style.status("bad", "Nothing was changed.", words)

    def _toggle_help(self, change: dict[str, Any]) -> None:
        (self._fields.add_class if change["new"] else self._fields.remove_class)("bk-explained")

    def _changed(self) -> None:
        if self._loading:
            return
        self._show()
        self._name_preset()
        if self._on_change:
            self._on_change()

    _loading = False

    def _name_preset(self) -> None:
        """Show the preset whose values stand in the fields, or that they are one's own.

        One whose values were changed can so be chosen again.
        """
        values = self._all_values
        self._preset.value = next((n for n, known in _presets().items() if known == values), "")

    def _show(self) -> None:
        problems = self.problems
        for form in self._forms:
            form.show_problems(problems)
        mine = [problem for problem in problems if problem.field in self.values]
        if self._sums_up:
            self._state.value = _problem_words(mine)
        hidden = any(p.field not in self._basic.fields for p in mine)
        if hidden and not self._all.value:
            self._all.value = True  # a wrong field must not hide
        self._show_exports(not problems)

    def _show_exports(self, right: bool) -> None:
        values = self._all_values
        self._code_text.value = (
            f"<pre>{style.escape(as_python(values, self.engines))}</pre>"
            if right
            else style.status("warn", "Correct the marked fields first.")
        )
        kept = changed(values)
        self._links.value = (
            "Download the changed fields as "
            + _download("config.yaml", as_yaml(kept))
            + " or "
            + _download("config.json", json.dumps(kept, indent=2))
            if right
            else ""
        )


@cache
def _presets() -> dict[str, dict[str, Scalar]]:
    """All settings of each preset, by its name."""
    return {
        name: Config.from_dict(values).to_dict()
        for name, values in {"defaults": {}, **PRESETS}.items()
    }


def _grouped_forms(
    names: list[str], basic: list[str], on_change: Callable[[], None]
) -> dict[str, ConfigForm]:
    """The fields that are not basic, by their group."""
    groups: dict[str, list[str]] = {}
    for setting in settings():
        if setting.name in names and setting.name not in basic:
            groups.setdefault(setting.group, []).append(setting.name)
    return {group: ConfigForm(members, on_change) for group, members in groups.items()}


def _problem_words(problems: list[FieldProblem]) -> str:
    if not problems:
        return ""
    title = (
        "One setting is wrong." if len(problems) == 1 else f"{len(problems)} settings are wrong."
    )
    return style.status("bad", title, "; ".join(map(read_problem, problems)))


def _download(name: str, content: str) -> str:
    data = base64.b64encode(content.encode()).decode()
    kind = name.rpartition(".")[2].upper()
    return f'<a download="{name}" href="data:application/octet-stream;base64,{data}">{kind}</a>'
