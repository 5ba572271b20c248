"""Ways to write down a parameter: SigOpt's lists and scikit-optimize's dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bertkit.advisor.parameters import Choices, Parameter, Range, number_problem
from bertkit.config import Scalar
from bertkit.errors import AdvisorError

_KEYS = ("name", "bounds", "grid", "type", "transformation", "categorical_values")
_KINDS = ("double", "int", "categorical", "float", "str", "string", "bool")
_PRIORS = ("uniform", "log-uniform")


def read_parameters(parameters: Any) -> tuple[Parameter, ...]:
    """Read all parameters of a space; `Space.read` says what is understood.

    Raises:
        AdvisorError: If something is not; the message names the parameter.
    """
    if isinstance(parameters, Mapping):
        return tuple(_from_short(str(n), d) for n, d in parameters.items())
    if isinstance(parameters, str) or not isinstance(parameters, Sequence):
        raise AdvisorError(
            f"the search space is {parameters!r}; expected a list of parameters, each with a name "
            "and bounds or a grid"
        )
    return tuple(map(_from_item, parameters))


def _from_item(item: Any) -> Parameter:
    if isinstance(item, Parameter):
        return item
    if isinstance(item, Mapping):
        return _from_sigopt(item)
    if _is_dimension(item):
        if not getattr(item, "name", None):
            raise AdvisorError(f"dimension {item!r} has no name; give it one: name='batch_size'")
        return _from_dimension(item.name, item)
    raise AdvisorError(f"parameter {item!r}: expected a mapping with a name and bounds or a grid")


# SigOpt ------------------------------------------------------------------------------------------


def _from_sigopt(item: Mapping[str, Any]) -> Parameter:
    name = item.get("name")
    if not isinstance(name, str) or not name:
        raise AdvisorError(f"parameter {dict(item)!r} has no name; add one, such as 'batch_size'")
    _check_words(name, item)
    log = item.get("transformation") == "log"
    if "bounds" in item:
        low, high = _bounds(name, item["bounds"])
        return _range(name, low, high, item.get("type"), log)
    if set(item) == {"name"}:  # published: a switch that is given or not
        return Choices(name, (False, True))
    values = _values(name, item.get("grid", item.get("categorical_values")))
    return Choices(name, _of_kind(name, values, item.get("type")))


def _check_words(name: str, item: Mapping[str, Any]) -> None:
    for key in item:
        if key not in _KEYS:
            raise AdvisorError(
                f"parameter {name!r}: {key!r} is not known; expected {', '.join(_KEYS)}"
            )
    for key, words in (("type", _KINDS), ("transformation", ("log", "none"))):
        if item.get(key) is not None and item[key] not in words:
            raise AdvisorError(
                f"parameter {name!r}: {key} is {item[key]!r}; expected one of {', '.join(words)}"
            )


def _bounds(name: str, bounds: Any) -> tuple[Any, Any]:
    if isinstance(bounds, Mapping) and set(bounds) == {"min", "max"}:
        return bounds["min"], bounds["max"]
    if isinstance(bounds, list | tuple) and len(bounds) == 2:
        return bounds[0], bounds[1]
    raise AdvisorError(f"parameter {name!r}: bounds are {bounds!r}; expected min and max")


def _range(name: str, low: Any, high: Any, kind: str | None, log: bool) -> Range:
    if kind not in (None, "int", "double", "float"):
        raise AdvisorError(
            f"parameter {name!r}: is {kind} with bounds; expected type 'int' or 'double', or a list"
        )
    whole = kind == "int" if kind else isinstance(low, int) and isinstance(high, int)
    return Range(name, low, high, whole=whole, log=log)


def _values(name: str, values: Any) -> tuple[Scalar, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise AdvisorError(
            f"parameter {name!r} has neither bounds nor a list of values; add 'bounds' with min "
            "and max, or 'grid'"
        )
    plain = [v.get("name") if isinstance(v, Mapping) else v for v in values]
    return tuple(map(_plain, plain))


def _of_kind(name: str, values: tuple[Scalar, ...], kind: str | None) -> tuple[Scalar, ...]:
    """Bring the values of a list to the kind that stands beside it."""
    if kind not in ("int", "double", "float"):
        return values
    for value in values:
        problem = number_problem(value, kind == "int")
        if problem:
            raise AdvisorError(f"parameter {name!r}: {problem}")
    cast = int if kind == "int" else float
    return tuple(cast(value) for value in values if value is not None)


# scikit-optimize ---------------------------------------------------------------------------------


def _is_dimension(item: Any) -> bool:
    return hasattr(item, "categories") or (hasattr(item, "low") and hasattr(item, "prior"))


def _from_dimension(name: str, dimension: Any) -> Parameter:
    """Read a ``Real``, ``Integer`` or ``Categorical``."""
    if hasattr(dimension, "categories"):
        return Choices(name, _values(name, list(dimension.categories)))
    whole = type(dimension).__name__ == "Integer"
    low, high = _plain(dimension.low), _plain(dimension.high)
    return _range(name, low, high, "int" if whole else "double", _is_log(name, dimension.prior))


def _from_short(name: str, dimension: Any) -> Parameter:
    if _is_dimension(dimension):
        return _from_dimension(name, dimension)
    if isinstance(dimension, list):
        return Choices(name, _values(name, dimension))
    if isinstance(dimension, tuple) and len(dimension) in (2, 3):
        low, high, *prior = dimension
        return _range(name, low, high, None, _is_log(name, prior[0] if prior else "uniform"))
    raise AdvisorError(
        f"parameter {name!r} is {dimension!r}; expected (low, high), (low, high, 'log-uniform'), "
        "a list of values or a scikit-optimize dimension"
    )


def _is_log(name: str, prior: Any) -> bool:
    if prior not in _PRIORS:
        raise AdvisorError(
            f"parameter {name!r}: prior is {prior!r}; expected 'uniform' or 'log-uniform'"
        )
    return bool(prior == "log-uniform")


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python's own."""
    return value.item() if isinstance(value, np.generic) else value
