"""A form over `bertkit.config.settings()`: one field a setting, checked while one types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ipywidgets

from bertkit.config import Config, Scalar, Setting, check, settings
from bertkit.errors import FieldProblem
from bertkit_widgets import style

_WORDS = {
    "f1": "F1", "null": "No-answer", "diff": "difference", "seq": "sequence",
    "num": "Number of", "dev": "Validation", "train": "training", "doc": "Document",
}  # fmt: skip


def label(setting: Setting) -> str:
    """A field's name as people write it: ``target_f1`` becomes ``Target F1``."""
    words = [_WORDS.get(word, word) for word in setting.name.split("_")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


def as_text(value: Scalar) -> str:
    """A value as a person types it: ``3e-5``, and nothing for an empty one."""
    if value is None:
        return ""
    if isinstance(value, float):
        plain = f"{value:.12g}"
        return plain.replace("e-0", "e-").replace("e+0", "e")
    return str(value)


class SettingField:
    """One setting as a labelled input with its limits, and its problem as soon as it has one.

    Args:
        setting: What is edited.

    Attributes:
        setting: What is edited.
        widget: The whole field.
        input: The widget one types or chooses in.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.input = _input(setting)
        self._hint = style.text("", "bk-hint")
        self.widget = ipywidgets.VBox([self.input, self._hint])
        style.tagged(self.widget, "bk-field", f"bk-field-{setting.name}")
        self._shown: str | None = None
        self._mark(self.problem)
        self.input.observe(lambda _: self._mark(self.problem), "value")

    @property
    def value(self) -> Scalar:
        """What is typed, in the setting's type where it can be read as one."""
        value: Scalar = self.input.value
        return self.setting.parse(value) if isinstance(value, str) else value

    @value.setter
    def value(self, value: Scalar) -> None:
        # a value that the list does not offer is kept out here; `check` names it to the caller
        if self.setting.choices and value not in self.setting.choices:
            return
        self.input.value = bool(value) if self.setting.type is bool else as_text(value)

    @property
    def problem(self) -> str | None:
        """What is wrong with the value by itself."""
        return self.setting.problem(self.value)

    def show_problem(self, message: str | None) -> None:
        """Mark the field wrong for a reason that lies outside it, or unmark it."""
        self._mark(self.problem or message)

    def _mark(self, message: str | None) -> None:
        hint = _hint(self.setting, message)
        if hint != self._shown:  # spares the page an update while nothing changes
            self._shown = self._hint.value = hint
        (self.widget.add_class if message else self.widget.remove_class)("bk-wrong")
        changed = not message and self.value != self.setting.default
        (self.widget.add_class if changed else self.widget.remove_class)("bk-changed")


class ConfigForm:
    """Fields of some settings in a grid, with all their problems.

    Args:
        names: Settings to show, in this order.
        on_change: Called after every change.

    Attributes:
        fields: Each field by the name of its setting.
        widget: The grid.
    """

    def __init__(self, names: Iterable[str], on_change: Callable[[], None] | None = None) -> None:
        known = {setting.name: setting for setting in settings()}
        self.fields = {name: SettingField(known[name]) for name in names}
        self._on_change = on_change
        self._silent = False
        self.widget = grid([field.widget for field in self.fields.values()])
        for field in self.fields.values():
            field.input.observe(lambda _: self._changed(), "value")

    @property
    def values(self) -> dict[str, Scalar]:
        """What stands in the fields."""
        return {name: field.value for name, field in self.fields.items()}

    @values.setter
    def values(self, values: Mapping[str, Scalar]) -> None:
        self._silent = True  # one check after all of them, not one after each
        try:
            for name, value in values.items():
                if name in self.fields:
                    self.fields[name].value = value
        finally:
            self._silent = False
        self._changed()

    @property
    def problems(self) -> list[FieldProblem]:
        """Everything that is wrong now."""
        return check(self.values)

    def show_problems(self, problems: list[FieldProblem]) -> None:
        """Mark the fields that have a problem and unmark the others."""
        messages = {problem.field: problem.message for problem in problems}
        for name, field in self.fields.items():
            field.show_problem(messages.get(name))

    def disable(self, disabled: bool) -> None:
        """Lock all fields while a run uses their values, or unlock them."""
        for field in self.fields.values():
            field.input.disabled = disabled

    def _changed(self) -> None:
        if self._silent:
            return
        self.show_problems(self.problems)
        if self._on_change:
            self._on_change()


def grid(children: list[Any]) -> Any:
    """Widgets in as many columns as the page has room for."""
    columns = "repeat(auto-fill, minmax(15em, 1fr))"
    return ipywidgets.GridBox(
        children, layout=ipywidgets.Layout(grid_template_columns=columns, width="100%")
    )


def read_problem(problem: FieldProblem) -> str:
    """A problem as a sentence that begins with the field's label."""
    known = {setting.name: setting for setting in settings()}
    name = label(known[problem.field]) if problem.field in known else problem.field
    return f"{name} {problem.message}"


def config_of(values: Mapping[str, Scalar]) -> Config:
    """The configuration that a form's values make.

    Raises:
        ConfigError: If any of them is wrong.
    """
    return Config.from_dict(values)


def _input(setting: Setting) -> Any:
    traits = {"description": _label_with_unit(setting), "tooltip": _tooltip(setting)}
    layout = ipywidgets.Layout(width="100%")
    if setting.type is bool:
        return ipywidgets.Checkbox(
            value=bool(setting.default), indent=False, layout=layout, **traits
        )
    if setting.choices:
        return ipywidgets.Dropdown(
            options=setting.choices, value=setting.default, layout=layout, **traits
        )
    return ipywidgets.Text(
        value=as_text(setting.default), continuous_update=True, layout=layout,
        placeholder="empty" if setting.optional else "", **traits,
    )  # fmt: skip


def _label_with_unit(setting: Setting) -> str:
    """Label and unit; a unit that the label names already is left out."""
    name = label(setting)
    unit = " ".join(word for word in setting.unit.split() if word.lower() not in name.lower())
    return f"{name} ({unit})" if unit else name


def _tooltip(setting: Setting) -> str:
    return f"{setting.help} (configuration field {setting.name})"


def _hint(setting: Setting, message: str | None) -> str:
    explained = f'<span class="bk-help">{style.escape(setting.help)}</span>'
    if message:
        return f'{explained}<span class="bk-error" role="alert">✖ {style.escape(message)}</span>'
    limits = f"{_limits(setting)} · " if _limits(setting) else ""
    default = as_text(setting.default)
    default = {"True": "on", "False": "off"}.get(default, default)
    usual = f"default {style.escape(default)}" if default else "may stay empty"
    return f"{explained}{limits}{usual}"


def _limits(setting: Setting) -> str:
    low, high = setting.minimum, setting.maximum
    if low is not None and high is not None:
        return f"{as_text(float(low))} to {as_text(float(high))}"
    return f"at least {as_text(float(low))}" if low is not None else ""
