"""What is searched: all parameters together."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from bertkit.advisor.notation import read_parameters
from bertkit.advisor.parameters import Choices, Parameter, Range
from bertkit.advisor.trial import Assignment
from bertkit.config import Scalar, Setting, settings
from bertkit.errors import AdvisorError

RANKS = "ranks"
"""Number of ranks a trial trains on; it belongs to the cluster, so it is no field of `Config`."""


@dataclass(frozen=True)
class Space:
    """All searched parameters together.

    Args:
        parameters: At least one, each with a name of its own.

    Raises:
        AdvisorError: If there is none, or two have the same name.

    Example:
        >>> space = Space.published()
        >>> space.names
        ('learning_rate', 'warmup_rate', 'batch_size')
        >>> space.sample(np.random.default_rng(0)) in space
        True
    """

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        if not self.parameters:
            raise AdvisorError("the search space is empty; expected at least one parameter")
        twice = [name for name in self.names if self.names.count(name) > 1]
        if twice:
            raise AdvisorError(f"parameter {twice[0]!r} is in the search space twice; keep one")

    @classmethod
    def published(cls) -> Space:
        """The space of Intel's demo: learning rate, warm-up and batch size."""
        return cls(
            (
                Range("learning_rate", 3e-5, 3e-4, log=True),
                Range("warmup_rate", 0.1, 0.3),
                Choices("batch_size", (12, 16, 24, 96, 128)),
            )
        )

    @classmethod
    def read(cls, parameters: Any) -> Space:
        """Read a space as SigOpt, scikit-optimize or this class writes it.

        Args:
            parameters: A list of SigOpt's parameters (``name`` with ``bounds`` or ``grid``,
                ``type``, ``transformation``), of scikit-optimize's dimensions with names, or of
                `Parameter`; or a mapping of names to scikit-optimize's dimensions or its short
                forms ``(low, high)``, ``(low, high, "log-uniform")`` and ``[value, value]``.

        Raises:
            AdvisorError: If it cannot be understood; the message names the parameter.

        Example:
            >>> Space.read([{"name": "learning_rate", "type": "double", "transformation": "log",
            ...              "bounds": {"min": 3e-5, "max": 3e-4}}]).parameters[0].log
            True
            >>> Space.read({"batch_size": [12, 24], "dropout": (0.0, 0.2)}).names
            ('batch_size', 'dropout')
        """
        return parameters if isinstance(parameters, Space) else cls(read_parameters(parameters))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in order."""
        return tuple(p.name for p in self.parameters)

    @property
    def size(self) -> int | None:
        """Number of assignments, or ``None`` where there is a continuum among them."""
        sizes = [p.size for p in self.parameters]
        return None if None in sizes else math.prod(s for s in sizes if s is not None)

    def __contains__(self, assignment: object) -> bool:
        return isinstance(assignment, Mapping) and not self.problems(assignment)

    def problems(self, assignment: Assignment) -> list[str]:
        """Everything that is wrong with an assignment, one sentence each."""
        found = [
            f"{name}: is no parameter of this search; expected {', '.join(self.names)}"
            for name in assignment
            if name not in self.names
        ]
        for parameter in self.parameters:
            if parameter.name not in assignment:
                found.append(f"{parameter.name}: is missing; expected {parameter.extent}")
            elif not parameter.contains(assignment[parameter.name]):
                value = assignment[parameter.name]
                found.append(f"{parameter.name}: is {value!r}; expected {parameter.extent}")
        return found

    def check(self, assignment: Assignment) -> dict[str, Scalar]:
        """Return an assignment in this space's order and types.

        Raises:
            AdvisorError: If a value is missing, unknown or outside its bounds.
        """
        problems = self.problems(assignment)
        if problems:
            raise AdvisorError("; ".join(problems))
        return {p.name: p.typed(assignment[p.name]) for p in self.parameters}

    def check_fields(self) -> None:
        """Make sure that every parameter is a field of `Config` (or ``ranks``) and fits it.

        Raises:
            AdvisorError: If one does not.
        """
        known = {s.name: s for s in settings()}
        known[RANKS] = Setting(RANKS, int, 1, False, "cluster", "", "ranks", minimum=1)
        for parameter in self.parameters:
            if parameter.name not in known:
                raise parameter.problem(
                    f"is not a configuration field; expected one of {', '.join(known)}"
                )
            for value in parameter.values:
                problem = known[parameter.name].problem(value)
                if problem:
                    raise parameter.problem(f"a value {problem}")

    def at(self, shares: Sequence[float]) -> dict[str, Scalar]:
        """The assignment at these shares (0 to 1) of each parameter's way."""
        return {p.name: p.at(float(s)) for p, s in zip(self.parameters, shares, strict=True)}

    def shares(self, assignment: Assignment) -> list[float]:
        """Where each value of an assignment lies, from 0 to 1."""
        return [p.share(assignment[p.name]) for p in self.parameters]

    def sample(self, rng: np.random.Generator) -> dict[str, Scalar]:
        """Draw an assignment uniformly (over logarithms where a parameter says so)."""
        return self.at(rng.random(len(self.parameters)).tolist())

    def nearest(self, values: Assignment) -> dict[str, Scalar]:
        """The assignment of this space that is nearest to values from elsewhere."""
        return {
            p.name: p.nearest(values[p.name]) if p.name in values else p.at(0.5)
            for p in self.parameters
        }

    def cells(self) -> Iterator[dict[str, Scalar]]:
        """Every assignment of a space without a continuum, in order."""
        for combination in product(*(p.values for p in self.parameters)):
            yield dict(zip(self.names, combination, strict=True))

    def to_list(self) -> list[dict[str, Any]]:
        """The space as SigOpt writes it; `read` reads it back."""
        return [p.to_dict() for p in self.parameters]


def fingerprint(assignment: Assignment) -> str:
    """A text that two assignments share exactly if they are the same.

    Example:
        >>> fingerprint({"b": 1.0, "a": 2}) == fingerprint({"a": 2.0, "b": 1})
        True
    """
    return json.dumps({name: _canonical(value) for name, value in sorted(assignment.items())})


def _canonical(value: Scalar) -> Scalar:
    return int(value) if isinstance(value, float) and value.is_integer() else value
