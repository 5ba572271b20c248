"""Who, where, when and how many: the made-up names and numbers of one article.

An article draws its values once, in the order in which its domain lists them, so that a bridge is
rebuilt after it was opened and no two people of an article share a name. Most names of an article
are of one culture, as they would be in the world.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from bertkit.squad.sample.phrases import Span, Text, parse

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
_WORDS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve",
)  # fmt: skip
_ABROAD = 8  # one name in so many is of another culture
_TRIES = 200

T = TypeVar("T")


class Chance:
    """Random choices of one article, fixed by its key.

    Args:
        key: Numbers that together name the article, the sample's seed among them.
    """

    def __init__(self, *key: int) -> None:
        self._generator = np.random.default_rng(list(key))

    def below(self, limit: int) -> int:
        """A number from 0 to below ``limit``."""
        return int(self._generator.integers(limit)) if limit > 1 else 0

    def pick(self, items: Sequence[T]) -> T:
        """One of ``items``."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All of ``items`` in another order."""
        return [items[i] for i in self._generator.permutation(len(items))]


@dataclass(frozen=True)
class Culture:
    """Names that go together.

    Args:
        men, women: First names.
        surnames: Family names.
        places: Towns and villages, made of every stem with every ending.
        rivers: Rivers.
        regions: Counties and provinces.
    """

    men: tuple[str, ...]
    women: tuple[str, ...]
    surnames: tuple[str, ...]
    places: tuple[str, ...]
    rivers: tuple[str, ...]
    regions: tuple[str, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, str]) -> Culture:
        """Read one from lists of names with spaces between."""
        words = {name: tuple(value.split()) for name, value in values.items()}
        stems, endings = words.pop("stems"), words.pop("endings")
        places = tuple(s + e for s in stems for e in endings if not e.startswith(s.lower()))
        return cls(places=places, **words)


class Values:
    """All values of one article.

    Args:
        wanted: What to draw, by name, as a domain's ``[values]`` say it: ``person``, ``woman``,
            ``man``, ``spouse OF``, ``surname``, ``place``, ``abroad`` (a place of any culture),
            ``river``, ``region``, ``year FROM TO``, ``date FROM TO``, ``number FROM TO STEP``,
            ``count FROM TO`` (in words to twelve) or ``text PHRASE``. ``FROM`` and ``TO`` may
            lean on another value: ``opened+5``.
        cultures: Where names come from.
        chance: Random choices.

    Raises:
        ValueError: If a value cannot be drawn.
    """

    def __init__(
        self, wanted: Mapping[str, str], cultures: Sequence[Culture], chance: Chance
    ) -> None:
        self._cultures = cultures
        self._chance = chance
        self._home = chance.pick(cultures)
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._texts: dict[str, Text] = {}
        self._wanted = dict(wanted)
        for name in wanted:
            self._draw(name)

    def text(self, name: str) -> Text:
        """A value, or a part of one such as ``builder.last``, and what in it can be an answer."""
        if name not in self._texts:
            self._draw(name.split(".")[0])
        return self._texts[name]

    def _draw(self, name: str) -> None:
        """Draw a value, unless it was drawn before because another leans on it."""
        if name in self._wanted:
            kind, _, rest = self._wanted.pop(name).partition(" ")
            getattr(self, f"_draw_{kind}")(name, rest)

    def _keep(self, name: str, text: str, parts: Sequence[tuple[str, int, int]] = ()) -> None:
        spans = [Span(name, 0, len(text))]
        spans += [Span(f"{name}.{part}", start, end) for part, start, end in parts]
        self._texts[name] = Text(text, spans)

    def _culture(self) -> Culture:
        return self._chance.pick(self._cultures) if self._chance.below(_ABROAD) == 0 else self._home

    def _unused(self, items: Sequence[str]) -> str:
        """One of ``items`` that neither holds nor is held by a name taken before."""
        for _ in range(_TRIES):
            item = self._chance.pick(items)
            if not any(item in taken or taken in item for taken in self._taken):
                self._taken.add(item)
                return item
        raise ValueError(f"no unused name left among {len(items)} such as {items[0]!r}")

    def _draw_person(self, name: str, rest: str) -> None:
        if self._chance.below(5) < 2:
            self._draw_woman(name, rest)
        else:
            self._draw_man(name, rest)

    def _draw_woman(self, name: str, _: str) -> None:
        culture = self._culture()
        self._keep_person(name, self._unused(culture.women), self._unused(culture.surnames))
        self._keep_pronouns(name, "she", "her", "her")

    def _draw_man(self, name: str, _: str) -> None:
        culture = self._culture()
        self._keep_person(name, self._unused(culture.men), self._unused(culture.surnames))
        self._keep_pronouns(name, "he", "him", "his")

    def _draw_spouse(self, name: str, of: str) -> None:
        (self._draw_man if self.text(f"{of}.he").text == "she" else self._draw_woman)(name, "")

    def _keep_person(self, name: str, first: str, last: str) -> None:
        full = f"{first} {last}"
        self._keep(name, full, [("last", len(first) + 1, len(full))])
        self._keep(f"{name}.first", first)
        self._keep(f"{name}.last", last)

    def _keep_pronouns(self, name: str, *words: str) -> None:
        for part, word in zip(("he", "him", "his"), words, strict=True):
            self._texts[f"{name}.{part}"] = Text(word)

    def _draw_surname(self, name: str, _: str) -> None:
        self._keep(name, self._unused(self._culture().surnames))

    def _draw_place(self, name: str, _: str) -> None:
        self._keep(name, self._unused(self._home.places))

    def _draw_abroad(self, name: str, _: str) -> None:
        self._keep(name, self._unused(self._chance.pick(self._cultures).places))

    def _draw_river(self, name: str, _: str) -> None:
        self._keep(name, self._unused(self._home.rivers))

    def _draw_region(self, name: str, _: str) -> None:
        self._keep(name, self._unused(self._home.regions))

    def _draw_year(self, name: str, rest: str) -> None:
        self._keep(name, str(self._new_number(name, rest)))

    def _draw_date(self, name: str, rest: str) -> None:
        year = str(self._new_number(name, rest))
        day = f"{1 + self._chance.below(28)} {self._unused(_MONTHS)}"
        text = f"{day} {year}"
        self._keep(name, text, [("day", 0, len(day)), ("year", len(day) + 1, len(text))])
        self._keep(f"{name}.year", year)
        self._keep(f"{name}.day", day)

    def _draw_number(self, name: str, rest: str) -> None:
        self._keep(name, f"{self._new_number(name, rest):,}")

    def _draw_count(self, name: str, rest: str) -> None:
        number = self._new_number(name, rest)
        self._keep(name, _WORDS[number] if number < len(_WORDS) else str(number))

    def _draw_text(self, name: str, rest: str) -> None:
        text = parse(rest).render(lambda value, _: self.text(value), self._chance.below)
        self._texts[name] = Text(text.text, [Span(name, 0, len(text.text)), *text.spans])

    def _new_number(self, name: str, rest: str) -> int:
        low, high, *step = rest.split()
        by = int(step[0]) if step else 1
        first, last = self._bound(low), self._bound(high)
        for _ in range(_TRIES):
            number = first + by * self._chance.below((last - first) // by + 1)
            if f"{number:,}" not in self._taken and str(number) not in self._taken:
                self._taken.add(f"{number:,}")
                self._numbers[name] = number
                return number
        raise ValueError(f"{name}: no unused number from {first} to {last}")

    def _bound(self, word: str) -> int:
        base, _, more = word.partition("+")
        if base.isdecimal():
            return int(base)
        self._draw(base)
        return self._numbers[base] + int(more or 0)
