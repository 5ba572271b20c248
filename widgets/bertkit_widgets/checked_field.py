"""An input whose text must mean something: it says at once when it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets

from bertkit.errors import BertkitError
from bertkit_widgets import style


class CheckedField:
    """A labelled input with a hint below it, or with what is wrong with it.

    Args:
        input: The widget one types or chooses in.
        read: Turns its value into what it means; raises a `BertkitError` where it means nothing.
        name: A word for its CSS class, by which tests find it.
        hint: Stands below while nothing is wrong.
        on_change: Called after every change.

    Attributes:
        input: The widget one types or chooses in.
        widget: The whole field.
    """

    def __init__(
        self,
        input: Any,
        read: Callable[[Any], Any],
        name: str,
        *,
        hint: str = "",
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self.input = input
        self._read, self._plain, self._on_change = read, hint, on_change
        self.input.layout.width = "100%"
        self._hint = style.text("", "bk-hint")
        self.widget = style.tagged(
            ipywidgets.VBox([self.input, self._hint]), "bk-field", f"bk-field-{name}"
        )
        self._mark()
        self.input.observe(lambda _: self._changed(), "value")

    @property
    def value(self) -> Any:
        """What the input means.

        Raises:
            BertkitError: If it means nothing.
        """
        return self._read(self.input.value)

    @property
    def problem(self) -> str | None:
        """What is wrong with it."""
        try:
            self._read(self.input.value)
        except BertkitError as error:
            return str(error)
        return None

    def _changed(self) -> None:
        self._mark()
        if self._on_change is not None:
            self._on_change()

    def _mark(self) -> None:
        problem = self.problem
        words = f'<span class="bk-help">{style.escape(self.input.tooltip or "")}</span>' + (
            f'<span class="bk-error" role="alert">✖ {style.escape(problem)}</span>'
            if problem
            else style.escape(self._plain)
        )
        if words != self._hint.value:  # spares the page an update while nothing changes
            self._hint.value = words
        (self.widget.add_class if problem else self.widget.remove_class)("bk-wrong")
