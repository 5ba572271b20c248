"""One searched parameter: any number within bounds, or one of a list of values."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from bertkit.config import Scalar
from bertkit.errors import AdvisorError

SIGNIFICANT_DIGITS = 4
"""Proposed numbers are rounded to so many digits; nobody can tell 1.0e-4 from 1.00003e-4."""


@dataclass(frozen=True)
class Parameter(ABC):
    """What every parameter can do.

    Args:
        name: A field of `Config`, ``ranks``, or an option of a command of one's own.
    """

    name: str

    @property
    @abstractmethod
    def size(self) -> int | None:
        """Number of values, or ``None`` for a continuum."""

    @property
    @abstractmethod
    def values(self) -> tuple[Scalar, ...]:
        """Every value, or the two ends of a continuum."""

    @property
    @abstractmethod
    def ordered(self) -> bool:
        """Whether its values are numbers."""

    @property
    @abstractmethod
    def extent(self) -> str:
        """What it accepts, in words."""

    @abstractmethod
    def contains(self, value: Scalar) -> bool:
        """Whether this value may be tried."""

    @abstractmethod
    def at(self, share: float) -> Scalar:
        """The value that lies at this share, 0 to 1, of the way from the first to the last."""

    @abstractmethod
    def share(self, value: Scalar) -> float:
        """Where a value lies, from 0 to 1: the opposite of `at` but for rounding."""

    @abstractmethod
    def nearest(self, value: Scalar) -> Scalar:
        """The value of this parameter that is nearest to any other one."""

    @abstractmethod
    def typed(self, value: Scalar) -> Scalar:
        """A value that `contains` accepts, in the type this parameter gives out."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The parameter as SigOpt writes it."""

    def problem(self, text: str) -> AdvisorError:
        """An error about this parameter."""
        return AdvisorError(f"parameter {self.name!r}: {text}")


@dataclass(frozen=True)
class Range(Parameter):
    """Any number from ``low`` to ``high``.

    Args:
        name: See `Parameter`.
        low, high: Smallest and largest value.
        whole: Only whole numbers.
        log: Search on a logarithmic scale.

    Raises:
        AdvisorError: If the bounds are no such numbers.

    Example:
        >>> Range("learning_rate", 3e-5, 3e-4, log=True).at(0.5)
        9.487e-05
    """

    low: float
    high: float
    whole: bool = False
    log: bool = False

    def __post_init__(self) -> None:
        for end in (self.low, self.high):
            text = number_problem(end, self.whole)
            if text:
                raise self.problem(text)
        if self.low >= self.high:
            raise self.problem(
                f"bounds go from {self.low:g} to {self.high:g}; expected the smaller one as min"
            )
        if self.log and self.low <= 0:
            raise self.problem(
                f"bounds begin at {self.low:g}; a logarithmic scale needs numbers above 0"
            )
        object.__setattr__(self, "low", self._number(self.low))
        object.__setattr__(self, "high", self._number(self.high))

    @property
    def size(self) -> int | None:
        """See `Parameter`."""
        return int(self.high) - int(self.low) + 1 if self.whole else None

    @property
    def values(self) -> tuple[Scalar, ...]:
        """See `Parameter`."""
        if self.whole:
            return tuple(range(int(self.low), int(self.high) + 1))
        return (self.low, self.high)

    @property
    def ordered(self) -> bool:
        """See `Parameter`."""
        return True

    @property
    def extent(self) -> str:
        """See `Parameter`."""
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {self.low:g} to {self.high:g}"

    def contains(self, value: Scalar) -> bool:
        """See `Parameter`."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not self.low <= value <= self.high:
            return False
        return float(value).is_integer() or not self.whole

    def at(self, share: float) -> Scalar:
        """See `Parameter`."""
        share = min(max(share, 0.0), 1.0)
        if self.whole and not self.log:
            values = self.values
            return values[min(int(share * len(values)), len(values) - 1)]
        if self.log:
            exact = math.exp(math.log(self.low) + share * math.log(self.high / self.low))
        else:
            exact = self.low + share * (self.high - self.low)
        rounded = round(exact) if self.whole else float(f"{exact:.{SIGNIFICANT_DIGITS}g}")
        return self._number(min(max(rounded, self.low), self.high))

    def share(self, value: Scalar) -> float:
        """See `Parameter`."""
        number = float(value or 0)
        if self.log:
            return math.log(number / self.low) / math.log(self.high / self.low)
        if self.whole:
            return (number - self.low + 0.5) / (self.high - self.low + 1)
        return (number - self.low) / (self.high - self.low)

    def nearest(self, value: Scalar) -> Scalar:
        """See `Parameter`."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self.at(0.5)
        clipped = min(max(float(value), self.low), self.high)
        return self._number(round(clipped) if self.whole else clipped)

    def typed(self, value: Scalar) -> Scalar:
        """See `Parameter`."""
        return self._number(float(value or 0))

    def to_dict(self) -> dict[str, Any]:
        """See `Parameter`."""
        values: dict[str, Any] = {
            "name": self.name,
            "type": "int" if self.whole else "double",
            "bounds": {"min": self.low, "max": self.high},
        }
        return {**values, "transformation": "log"} if self.log else values

    def _number(self, value: float) -> int | float:
        return int(value) if self.whole else float(value)


@dataclass(frozen=True)
class Choices(Parameter):
    """One of a list of values; numbers among themselves are put in order.

    Args:
        name: See `Parameter`.
        choices: The values, at least one, none of them twice.

    Raises:
        AdvisorError: If there is no value or one is there twice.

    Example:
        >>> Choices("batch_size", (96, 12, 16)).choices
        (12, 16, 96)
        >>> Choices("optimizer", ("lamb", "adamw")).ordered
        False
    """

    choices: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise self.problem("its list of values is empty; expected at least one")
        if len(set(map(repr, self.choices))) < len(self.choices):
            raise self.problem("its list names a value twice; keep one of them")
        if self.ordered:
            whole = all(isinstance(v, int) for v in self.choices)
            numbers = [v if whole else float(v) for v in _numbers(self.choices)]
            object.__setattr__(self, "choices", tuple(sorted(numbers)))

    @property
    def size(self) -> int | None:
        """See `Parameter`."""
        return len(self.choices)

    @property
    def values(self) -> tuple[Scalar, ...]:
        """See `Parameter`."""
        return self.choices

    @property
    def ordered(self) -> bool:
        """See `Parameter`."""
        return len(_numbers(self.choices)) == len(self.choices)

    @property
    def extent(self) -> str:
        """See `Parameter`."""
        return "one of " + ", ".join(map(str, self.choices))

    def contains(self, value: Scalar) -> bool:
        """See `Parameter`."""
        return any(_same(value, choice) for choice in self.choices)

    def at(self, share: float) -> Scalar:
        """See `Parameter`."""
        share = min(max(share, 0.0), 1.0)
        return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]

    def share(self, value: Scalar) -> float:
        """See `Parameter`."""
        return (self.index(value) + 0.5) / len(self.choices)

    def index(self, value: Scalar) -> int:
        """Position of a value in the list."""
        return next(i for i, choice in enumerate(self.choices) if _same(value, choice))

    def nearest(self, value: Scalar) -> Scalar:
        """See `Parameter`."""
        if self.contains(value):
            return self.typed(value)
        if not self.ordered:
            return self.choices[0]
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self.at(0.5)
        return min(self.choices, key=lambda choice: _distance(value, choice))

    def typed(self, value: Scalar) -> Scalar:
        """See `Parameter`."""
        return self.choices[self.index(value)]

    def to_dict(self) -> dict[str, Any]:
        """See `Parameter`."""
        if not self.ordered:
            return {
                "name": self.name,
                "type": "categorical",
                "categorical_values": list(self.choices),
            }
        kind = "int" if isinstance(self.choices[0], int) else "double"
        return {"name": self.name, "type": kind, "grid": list(self.choices)}


def number_problem(value: object, whole: bool) -> str | None:
    """Say what is wrong with a value that should be a finite (whole) number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"holds {value!r}; expected a number, or type 'categorical'"
    if not math.isfinite(value):
        return f"holds {value!r}; expected a finite number"
    if whole and not float(value).is_integer():
        return f"holds {value!r}; expected whole numbers, or type 'double'"
    return None


def _numbers(values: tuple[Scalar, ...]) -> list[int | float]:
    return [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]


def _same(value: Scalar, choice: Scalar) -> bool:
    """1 and 1.0 are the same number, but neither is the same as True."""
    return isinstance(value, bool) is isinstance(choice, bool) and value == choice


def _distance(value: float, choice: Scalar) -> float:
    """Numbers such as batch sizes are compared by their ratio where that is possible."""
    number = float(choice or 0)
    if value > 0 and number > 0:
        return abs(math.log(value / number))
    return abs(value - number)
