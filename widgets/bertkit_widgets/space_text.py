"""A search space as a person writes it: one parameter a line.

learning_rate: 3e-5 to 3e-4, log
warmup_rate: 0.1 to 0.3
batch_size: 12, 16, 24
"""

from __future__ import annotations

import math
import re

from bertkit.advisor.parameters import Choices, Parameter, Range
from bertkit.advisor.space import Space
from bertkit.config import Config, Scalar, settings
from bertkit.errors import AdvisorError
from bertkit.presets import preset
from bertkit_widgets.form import as_text

MOST_EXAMPLES = next(s.maximum for s in settings() if s.name == "batch_size") or math.inf
_RANGE = re.compile(r"(\S+)\s+to\s+([^\s,]+)(?:\s*,?\s*(log))?")
_SWITCH = {"on": True, "true": True, "off": False, "false": False}


def write_space(space: Space) -> str:
    """The space as text; `read_space` reads it back.

    Example:
        >>> print(write_space(Space.published()))
        learning_rate: 3e-5 to 3e-4, log
        warmup_rate: 0.1 to 0.3
        batch_size: 12, 16, 24, 96, 128
    """
    return "\n".join(f"{p.name}: {_extent(p)}" for p in space.parameters)


def read_space(text: str) -> Space:
    """The space that a text means.

    Raises:
        AdvisorError: If a line means none; the message names it.

    Example:
        >>> read_space("batch_size: 8, 16").size
        2
    """
    lines = [line.strip() for line in text.splitlines()]
    return Space(tuple(_parameter(line) for line in lines if line))


def space_around(config: Config) -> Space:
    """What a search may try that begins with a configuration.

    Returns:
        The published space for the published settings; for any other, learning rates of a quarter
        to four times of its own, and batches of half to four times.

    Example:
        >>> print(write_space(space_around(Config(learning_rate=2e-3, batch_size=16))))
        learning_rate: 0.0005 to 0.008, log
        warmup_rate: 0.05 to 0.3
        batch_size: 8, 16, 32, 64
    """
    if config == preset("published"):
        return Space.published()
    rate, warmup, batch = config.learning_rate, config.warmup_rate, config.batch_size
    sizes = {max(1, batch // 2), batch, 2 * batch, 4 * batch}
    return Space(
        (
            Range("learning_rate", max(1e-8, rate / 4), min(1.0, 4 * rate), log=True),
            Range("warmup_rate", min(0.05, warmup), max(0.3, warmup)),
            Choices("batch_size", tuple(sorted(size for size in sizes if size <= MOST_EXAMPLES))),
        )
    )


def _extent(parameter: Parameter) -> str:
    if isinstance(parameter, Range):
        ends = f"{as_text(parameter.low)} to {as_text(parameter.high)}"
        return f"{ends}, log" if parameter.log else ends
    return ", ".join(_word(value) for value in parameter.values)


def _parameter(line: str) -> Parameter:
    name, colon, extent = (part.strip() for part in line.partition(":"))
    if not colon or not name or not extent:
        raise AdvisorError(
            f"the line {line!r} means no parameter; expected for example "
            "'learning_rate: 3e-5 to 3e-4, log' or 'batch_size: 12, 24'"
        )
    found = _RANGE.fullmatch(extent)
    if found is None:
        return Choices(name, tuple(_value(word.strip()) for word in extent.split(",")))
    low, high = (_number(name, word) for word in found.groups()[:2])
    whole = isinstance(low, int) and isinstance(high, int)
    return Range(name, low, high, whole=whole, log=found[3] is not None)


def _number(name: str, word: str) -> int | float:
    value = _value(word)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AdvisorError(f"parameter {name!r}: {word!r} is no number")
    return value


def _value(word: str) -> Scalar:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return _SWITCH.get(word.lower(), word)


def _word(value: Scalar) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else as_text(value)
