"""The small language the sample's sentences and questions are written in.

::

    {builder}              a value; {builder.last} a part of it; {S} and {s} the subject
    {a material}           a value with "a" or "an" before it
    [cause: its piers ...] a stretch of the sentence that can be an answer, named "cause"
    (opened|was finished)  one of these; (|Today ) may be nothing

The three nest freely. A value is also a stretch that can be an answer, under its own name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import NamedTuple

_MARKS = re.compile(r"[{}\[\]()|]")
_SPAN_NAME = re.compile(r"([a-z_]+): ")
# Letters decide but for these: an hour, an 18th, an 80-metre; a university, a one-off, a European.
_AN = re.compile(r"(?:hour|honest|heir|8|11\b|18\b|[aeiou])", re.IGNORECASE)
_NOT_AN = re.compile(r"(?:uni|use|one\b|once|eu|ut)", re.IGNORECASE)


class Span(NamedTuple):  # a sample makes more than 100,000, and a frozen dataclass is slow to make
    """A stretch of text that can be an answer.

    Args:
        name: What it tells, such as ``"builder"`` or ``"opened.year"``.
        start: Its first character.
        end: The character after its last.
    """

    name: str
    start: int
    end: int

    def moved(self, by: int) -> Span:
        """The same stretch after ``by`` characters were put before the text."""
        return Span(self.name, self.start + by, self.end + by)

    def overlaps(self, other: Span) -> bool:
        """Whether the two have characters in common."""
        return self.start < other.end and other.start < self.end


@dataclass
class Text:
    """Text as it is being written, and its stretches that can be answers."""

    text: str = ""
    spans: list[Span] = field(default_factory=list)

    def append(self, text: str) -> None:
        """Write plain text at the end."""
        self.text += text

    def append_spans(self, other: Text) -> None:
        """Write another text at the end, its stretches with it."""
        by = len(self.text)
        self.spans += [span.moved(by) for span in other.spans]
        self.text += other.text

    def starts_sentence(self) -> bool:
        """Whether what is written next begins a sentence."""
        return not self.text or self.text.endswith((". ", "? "))


Lookup = Callable[[str, bool], Text]
Choose = Callable[[int], int]


@dataclass(frozen=True)
class _Literal:
    text: str

    def write(self, text: Text, lookup: Lookup, choose: Choose) -> None:
        del lookup, choose
        text.append(self.text)

    def values(self) -> Iterator[_Value]:
        return iter(())


@dataclass(frozen=True)
class _Value:
    name: str
    article: bool

    def write(self, text: Text, lookup: Lookup, choose: Choose) -> None:
        del choose
        value = lookup(self.name, text.starts_sentence())
        if self.article:
            text.append(article(value.text) + " ")
        text.append_spans(value)

    def values(self) -> Iterator[_Value]:
        yield self


@dataclass(frozen=True)
class _Named:
    name: str
    inside: tuple[_Node, ...]

    def write(self, text: Text, lookup: Lookup, choose: Choose) -> None:
        start = len(text.text)
        for node in self.inside:
            node.write(text, lookup, choose)
        text.spans.append(Span(self.name, start, len(text.text)))

    def values(self) -> Iterator[_Value]:
        for node in self.inside:
            yield from node.values()


@dataclass(frozen=True)
class _Either:
    options: tuple[tuple[_Node, ...], ...]

    def write(self, text: Text, lookup: Lookup, choose: Choose) -> None:
        for node in self.options[choose(len(self.options))]:
            node.write(text, lookup, choose)

    def values(self) -> Iterator[_Value]:
        for option in self.options:
            for node in option:
                yield from node.values()


_Node = _Literal | _Value | _Named | _Either


class PhraseError(ValueError):
    """A phrase of the sample does not follow the language above."""


@dataclass(frozen=True)
class Phrase:
    """A sentence, question or value in the language above.

    Args:
        source: What was written.
        nodes: What it was parsed to; `parse` makes it.
    """

    source: str
    nodes: tuple[_Node, ...]

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of all values used in it, without their parts: ``{"builder", "s"}``."""
        return frozenset(value.name.split(".")[0] for node in self.nodes for value in node.values())

    def render(self, lookup: Lookup, choose: Choose) -> Text:
        """Write it out.

        Args:
            lookup: Gives the text of a value; is told its name and whether it begins a sentence.
            choose: Gives a number from 0 to below its argument.
        """
        text = Text()
        for node in self.nodes:
            node.write(text, lookup, choose)
        return text


@cache
def parse(source: str) -> Phrase:
    """Read a phrase.

    Raises:
        PhraseError: If a bracket is not closed or a stretch has no name.

    Example:
        >>> phrase = parse("{S} (rises|begins) on [source: the moor above {village}].")
        >>> sorted(phrase.names)
        ['S', 'village']
        >>> told = {"S": "the Esk", "village": "Aston"}
        >>> phrase.render(lambda name, _: Text(told[name]), lambda n: 0).text
        'the Esk rises on the moor above Aston.'
    """
    options, end = _parse_options(source, 0, closing="")
    if end != len(source) or len(options) != 1:
        raise PhraseError(f"stray {source[end - 1]!r} in {source!r}")
    return Phrase(source, options[0])


def with_capitals(text: str) -> str:
    """Begin every sentence with a capital; no character moves."""
    return re.sub(r"(?:^|(?<=[.?] ))[a-z]", lambda letter: letter[0].upper(), text)


def article(word: str) -> str:
    """``"a"`` or ``"an"``, whichever goes before ``word``."""
    return "an" if _AN.match(word) and not _NOT_AN.match(word) else "a"


def _parse_options(
    source: str, position: int, closing: str
) -> tuple[tuple[tuple[_Node, ...], ...], int]:
    """Read up to ``closing``; what ``|`` parts are the options."""
    options: list[list[_Node]] = [[]]
    while position < len(source):
        mark = _MARKS.search(source, position)
        end = mark.start() if mark else len(source)
        if end > position:
            options[-1].append(_Literal(source[position:end]))
        if mark is None:
            position = end
            break
        position = mark.end()
        if mark[0] == closing:
            return tuple(map(tuple, options)), position
        if mark[0] == "|" and closing == ")":
            options.append([])
            continue
        node, position = _parse_mark(source, mark[0], position)
        options[-1].append(node)
    if closing:
        raise PhraseError(f"{closing!r} is missing in {source!r}")
    return tuple(map(tuple, options)), position


def _parse_mark(source: str, mark: str, position: int) -> tuple[_Node, int]:
    if mark == "{":
        end = source.find("}", position)
        if end < 0:
            raise PhraseError(f"'}}' is missing in {source!r}")
        name = source[position:end]
        return _Value(name.removeprefix("a "), name.startswith("a ")), end + 1
    if mark == "[":
        named = _SPAN_NAME.match(source, position)
        if named is None:
            raise PhraseError(f"a stretch has no name in {source!r}")
        (inside, *others), end = _parse_options(source, named.end(), closing="]")
        if others:
            raise PhraseError(f"stray '|' in {source!r}")
        return _Named(named[1], inside), end
    if mark == "(":
        options, end = _parse_options(source, position, closing=")")
        return _Either(options), end
    raise PhraseError(f"stray {mark!r} in {source!r}")
