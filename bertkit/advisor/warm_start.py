"""Old trials for a new search: from another experiment, from rows or from a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkit.advisor.goals import Goals
from bertkit.advisor.parameters import Choices, Parameter, Range
from bertkit.advisor.space import Space
from bertkit.advisor.trial import Origin, State, Trial
from bertkit.config import Scalar
from bertkit.errors import AdvisorError

Row = Mapping[str, Any]


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file with a header, such as `Experiment.to_csv` writes.

    Raises:
        AdvisorError: If the file cannot be read.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AdvisorError(f"cannot read trials from {path}: {error}") from None


def trials_from_rows(rows: Iterable[Row], space: Space, goals: Goals) -> list[Trial]:
    """Make finished trials of rows that name every parameter and every metric.

    Rows that did not finish, or whose values are outside the space, are left out.

    Args:
        rows: Each with the parameters' and the metrics' names as keys; other keys do not matter.
        space: What the new search is over.
        goals: What it wants.

    Raises:
        AdvisorError: If a row lacks a parameter or a metric; the message names the row.
    """
    found = []
    for number, row in enumerate(rows, start=1):
        if str(row.get("state", State.FINISHED)) != State.FINISHED:
            continue
        lacking = [name for name in (*space.names, *goals.names) if row.get(name) in (None, "")]
        if lacking:
            raise AdvisorError(f"row {number} of the old trials has no {lacking[0]!r}; add it")
        parameters = {p.name: _parsed(p, row[p.name]) for p in space.parameters}
        if parameters not in space:
            continue
        found.append(
            Trial(
                number=number,
                parameters=space.check(parameters),
                state=State.FINISHED,
                origin=Origin.IMPORTED,
                reason="Taken over from an earlier search.",
                metrics=goals.check({n: _number(number, n, row[n]) for n in goals.names}),
            )
        )
    return found


def fitting(trials: Sequence[Trial], space: Space, goals: Goals) -> list[Trial]:
    """Those finished trials of another experiment that this space and these goals understand."""
    return [
        trial
        for trial in trials
        if trial.state is State.FINISHED
        and trial.parameters in space
        and set(goals.names) <= set(trial.metrics)
    ]


def _parsed(parameter: Parameter, value: Any) -> Scalar:
    """A value that may have gone through text."""
    if not isinstance(value, str):
        plain: Scalar = value.item() if hasattr(value, "item") else value
        return plain
    if isinstance(parameter, Choices):
        same = [choice for choice in parameter.choices if str(choice) == value]
        if same or not parameter.ordered:
            return same[0] if same else value
    try:
        number = float(value)
    except ValueError:
        return value
    whole = isinstance(parameter, Range) and parameter.whole
    return int(number) if whole and number.is_integer() else number


def _number(row: int, name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise AdvisorError(
            f"row {row} of the old trials has {name!r} {value!r}; expected a number"
        ) from None
