"""What comes next: a proposal's values, the reason for it, and what the model expects of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets

from bertkit.advisor import Choices, Goals, Proposal, Space
from bertkit.advisor.parameters import Parameter
from bertkit.config import Scalar
from bertkit.errors import AdvisorError
from bertkit.reports.trials import label, with_uncertainty
from bertkit_widgets import style
from bertkit_widgets.checked_field import CheckedField
from bertkit_widgets.form import as_text, grid


class ProposalForm:
    """Shows one proposal, to be accepted, edited or skipped.

    Args:
        on_accept: Called when it is accepted.
        on_edit: Called when its changed values are to be weighed.
        on_skip: Called when it is refused.

    Attributes:
        proposal: What is shown, or ``None``.
        widget: The form.
    """

    def __init__(
        self,
        *,
        on_accept: Callable[[], None],
        on_edit: Callable[[], None],
        on_skip: Callable[[], None],
    ) -> None:
        self.proposal: Proposal | None = None
        self._fields: dict[str, CheckedField] = {}
        self._locked = False
        self._make_widgets(on_accept, on_edit, on_skip)

    @property
    def changes(self) -> dict[str, Scalar]:
        """The values that differ from the proposal's.

        Raises:
            AdvisorError: If one is outside the space.
        """
        if self.proposal is None:
            return {}
        values = {name: field.value for name, field in self._fields.items()}
        return {n: v for n, v in values.items() if v != self.proposal.parameters[n]}

    def show(
        self, title: str, proposal: Proposal, space: Space, goals: Goals, *, locked: bool
    ) -> None:
        """Show a proposal.

        Args:
            title: Such as ``"Next proposal"``.
            proposal: What is shown.
            space: Its parameters.
            goals: Its metrics.
            locked: Whether it can only be looked at.
        """
        fields = {p.name: self._field(p, proposal) for p in space.parameters}
        self._grid.children = [field.widget for field in fields.values()]
        self._title.value = f"<h4>{style.escape(title)}</h4>"
        self._words.value = f"<p><b>Why:</b> {style.escape(proposal.reason)}</p>"
        self._expected.value = _expected(proposal, goals)
        self._buttons.layout.display = "none" if locked else None
        self.proposal, self._fields, self._locked = proposal, fields, locked
        self._changed()
        style.reveal(self.widget, True)

    def hide(self) -> None:
        """Show nothing."""
        self.proposal = None
        style.reveal(self.widget, False)

    def lock(self, locked: bool) -> None:
        """Lock the fields and buttons, or unlock them."""
        self._locked = locked
        self._changed()

    def _make_widgets(
        self, accept: Callable[[], None], edit: Callable[[], None], skip: Callable[[], None]
    ) -> None:
        self._accept = style.button(
            "Accept", "Run a trial of these values now", "accept", icon="check"
        )
        self._edit = style.button(
            "Edit", "Take the changed values and see what the model expects of them", "edit",
            icon="pencil", disabled=True,
        )  # fmt: skip
        self._skip = style.button(
            "Skip", "Refuse it; it costs no budget and is not proposed again", "skip",
            icon="forward",
        )  # fmt: skip
        for button, act in ((self._accept, accept), (self._edit, edit), (self._skip, skip)):
            button.on_click(lambda _, act=act: act())
        self._title, self._words = style.text(), style.text("", "bk-reason")
        self._expected = style.text("", "bk-expected")
        self._grid: Any = grid([])
        self._buttons = style.row([self._accept, self._edit, self._skip])
        self.widget = style.tagged(
            style.hidden([self._title, self._grid, self._expected, self._words, self._buttons]),
            "bk-proposal",
        )

    def _field(self, parameter: Parameter, proposal: Proposal) -> CheckedField:
        value = proposal.parameters[parameter.name]
        traits = {"description": parameter.name, "tooltip": f"Expected: {parameter.extent}"}
        if isinstance(parameter, Choices):
            options = [(as_text(choice) or "empty", choice) for choice in parameter.choices]
            return CheckedField(
                ipywidgets.Dropdown(options=options, value=parameter.typed(value), **traits),
                lambda chosen: chosen, parameter.name, on_change=self._changed,
            )  # fmt: skip
        return CheckedField(
            ipywidgets.Text(value=as_text(value), continuous_update=True, **traits),
            lambda text: _read(parameter, text), parameter.name, hint=parameter.extent,
            on_change=self._changed,
        )  # fmt: skip

    def _changed(self) -> None:
        wrong = any(field.problem for field in self._fields.values())
        changed = not wrong and bool(self.changes)
        for field in self._fields.values():
            field.input.disabled = self._locked
        self._accept.disabled = self._locked or wrong
        self._edit.disabled = self._locked or not changed
        self._skip.disabled = self._locked


def _read(parameter: Parameter, text: str) -> Scalar:
    try:
        value: Scalar = float(text)
    except ValueError:
        value = text
    if not parameter.contains(value):
        raise AdvisorError(f"is {text!r}; expected {parameter.extent}")
    return parameter.typed(value)


def _expected(proposal: Proposal, goals: Goals) -> str:
    """Predicted metrics with their uncertainty, as large numbers."""
    shown = [metric for metric in goals.metrics if metric.name in proposal.predicted]
    if not shown:
        return "<p>The model expects nothing yet: it learns from finished trials.</p>"
    tiles = []
    for metric in shown:
        expected = proposal.predicted[metric.name]
        tiles.append((f"{label(metric)}, expected", with_uncertainty(expected.mean, expected.std)))
    return style.tiles(tiles)
