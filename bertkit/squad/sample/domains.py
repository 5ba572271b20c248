"""What the sample writes about: one file a domain, in ``train/`` and ``dev/`` beside this module.

A domain's file holds::

    subject = "the {name}"                 what an article is about, in a sentence
    title = "{name}"                       its title
    pronoun = "it"                         or "{maker.he}", for an article about a person
    about = ["the bridge", "the crossing"] what else it is called once it was named
    [values]                               what to draw, see `values.Values`
    opened = "year 1820 1930"
    [[facts]]
    opening = true                         the first sentence of an article; ``closing`` the last
    says = ["{S} was opened in {opened}."] ways to say the fact, in the language of `phrases`
    asks.opened = ["When was {s} opened?"] ways to ask for each answer in it

``asks."opened, opened.year"`` names further stretches that are right answers too.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from bertkit.squad.sample.phrases import Phrase, parse
from bertkit.squad.sample.values import Culture


@dataclass(frozen=True)
class Fact:
    """Something an article can tell.

    Args:
        says: Ways to say it.
        asks: Ways to ask for each answer in it; an answer's key are names of stretches, the one
            that is the best answer first.
        place: ``"opening"``, ``"closing"`` or, for anywhere between, ``""``.
    """

    says: tuple[Phrase, ...]
    asks: Mapping[tuple[str, ...], tuple[Phrase, ...]]
    place: str


@dataclass(frozen=True)
class Domain:
    """What articles of one kind are made of.

    Args:
        name: Its file's name, such as ``"bridges"``.
        subject, title, pronoun, about: As in its file.
        values: What to draw.
        facts: What can be told.
    """

    name: str
    subject: Phrase
    title: Phrase
    pronoun: Phrase
    about: tuple[Phrase, ...]
    values: Mapping[str, str]
    facts: tuple[Fact, ...]

    def facts_at(self, place: str) -> tuple[Fact, ...]:
        """The facts that belong to one place of an article."""
        return tuple(fact for fact in self.facts if fact.place == place)


@cache
def load_domains(split: str) -> tuple[Domain, ...]:
    """All domains of ``"train"`` or ``"dev"``, ordered by name.

    Training asks in no words that validation asks in.
    """
    domains = _read_domains(split)
    if split == "dev":
        return domains
    taken = {
        way for domain in _read_domains("dev") for fact in domain.facts for way in _asked(fact)
    }
    return tuple(_without_wordings(domain, taken) for domain in domains)


def _read_domains(split: str) -> tuple[Domain, ...]:
    found = (files(__package__) / split).iterdir()
    paths = sorted((p for p in found if p.name.endswith(".toml")), key=lambda p: p.name)
    return tuple(
        _domain(path.name.removesuffix(".toml"), tomllib.loads(path.read_text("utf-8")))
        for path in paths
    )


def _without_wordings(domain: Domain, taken: Collection[str]) -> Domain:
    facts = []
    for fact in domain.facts:
        asks = {
            answer: tuple(way for way in ways if _wording(way) not in taken)
            for answer, ways in fact.asks.items()
        }
        facts.append(replace(fact, asks={answer: ways for answer, ways in asks.items() if ways}))
    return replace(domain, facts=tuple(facts))


def _asked(fact: Fact) -> Iterator[str]:
    return (_wording(way) for ways in fact.asks.values() for way in ways)


def _wording(question: Phrase) -> str:
    """A question with its names masked."""
    return re.sub(r"(the )?{[^}]*}('s)?", "_", question.source).lower()


@cache
def load_cultures(split: str) -> tuple[Culture, ...]:
    """The names that ``"train"`` or ``"dev"`` draws from; the two have none in common."""
    text = (files(__package__) / "names.toml").read_text("utf-8")
    return tuple(Culture.from_dict(culture) for culture in tomllib.loads(text)[split])


def _domain(name: str, table: Mapping[str, Any]) -> Domain:
    return Domain(
        name=name,
        subject=parse(table["subject"]),
        title=parse(table["title"]),
        pronoun=parse(table["pronoun"]),
        about=tuple(map(parse, table["about"])),
        values=table["values"],
        facts=tuple(map(_fact, table["facts"])),
    )


def _fact(table: Mapping[str, Any]) -> Fact:
    asks = {
        tuple(key.split(", ")): tuple(map(parse, questions))
        for key, questions in table.get("asks", {}).items()
    }
    place = next((place for place in ("opening", "closing") if table.get(place)), "")
    return Fact(tuple(map(parse, table["says"])), asks, place)
