"""Writes one article: draws its values, tells some of its domain's facts and asks about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bertkit.squad.sample.domains import Domain, Fact
from bertkit.squad.sample.phrases import Phrase, Span, Text, with_capitals
from bertkit.squad.sample.values import Chance, Culture, Values

_FACTS = (1, 2, 2, 2, 3, 3)  # how many come between opening and closing
_LONG = 14  # one article in so many tells nearly all there is
_QUESTIONS = (4, 5, 5, 6)


@dataclass(frozen=True)
class Answer:
    """An answer and where it begins in the article's text."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question on an article.

    Args:
        text: The question.
        answers: Right answers, the best first.
    """

    text: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Article:
    """One article of one paragraph.

    Args:
        title: Name of its subject.
        text: The paragraph.
        questions: Questions on it.
    """

    title: str
    text: str
    questions: tuple[Question, ...]


def write_article(domain: Domain, cultures: Sequence[Culture], chance: Chance) -> Article:
    """Write one article of a domain."""
    writer = _Writer(domain, Values(domain.values, cultures, chance), chance)
    told = [(fact, writer.tell(fact)) for fact in _choose_facts(domain, chance)]
    context = Text()
    for number, (_, sentence) in enumerate(told):
        context.append(" " if number else "")
        start = len(context.text)
        context.append_spans(sentence)
        sentence.spans = [span.moved(start) for span in sentence.spans]
    text = with_capitals(context.text)
    told_values = {span.name.split(".")[0] for span in context.spans}
    questions: list[Question] = []
    for fact, sentence in told:
        questions += writer.ask(fact, sentence.spans, text, told_values)
    title = with_capitals(writer.plain(domain.title))
    return Article(title, text, tuple(_choose_questions(questions, chance)))


class _Writer:
    """Writes sentences and questions on one subject, and knows what it was last called."""

    def __init__(self, domain: Domain, values: Values, chance: Chance) -> None:
        self._domain = domain
        self._values = values
        self._chance = chance
        self._subject = self.plain(domain.subject)
        self._known = {"s", *domain.subject.names}
        self._named = False  # the subject's name was told
        self._leads = False  # the last sentence was about the subject, so that a pronoun is clear

    def plain(self, phrase: Phrase) -> str:
        """A phrase without mention of the subject."""
        return phrase.render(lambda name, _: self._values.text(name), self._chance.below).text

    def tell(self, fact: Fact) -> Text:
        """One way to tell a fact, with the subject called by name, pronoun or kind."""
        phrase = self._chance.pick(fact.says)
        sentence = phrase.render(self._look_up, self._chance.below)
        last_start = sentence.text.rstrip(".").rfind(". ") + 1
        self._leads = any(
            span.name == "s" and last_start <= span.start <= last_start + 1
            for span in sentence.spans
        )
        return sentence

    def ask(
        self, fact: Fact, spans: Sequence[Span], text: str, told: set[str]
    ) -> Iterator[Question]:
        """One question for each answer of a fact that stands in ``text`` exactly once."""
        known_values = told | self._known
        for names, phrases in fact.asks.items():
            answers = _answers(names, spans, text)
            known = [p for p in phrases if p.names <= known_values]
            if answers and known:
                question = self._chance.pick(known).render(self._look_up_asked, self._chance.below)
                asked = with_capitals(question.text)
                yield Question(asked, _with_bare_number(asked, answers))

    def _look_up(self, name: str, starts_sentence: bool) -> Text:
        if name in ("S", "S's", "s", "s's"):
            called = self._call(starts_sentence, may_be_pronoun=name[0] == "S")
            if name.endswith("'s"):
                called = _possessive(called)
            return Text(called, [Span("s", 0, len(called))])
        return self._values.text(name)

    def _look_up_asked(self, name: str, _: bool) -> Text:
        if name == "s":
            short = self._chance.below(8) == 0
            return Text(self.plain(self._domain.about[0]) if short else self._subject)
        return self._values.text(name)

    def _call(self, starts_sentence: bool, may_be_pronoun: bool) -> str:
        if not self._named:
            self._named = True
            return self._subject
        luck = self._chance.below(10)
        if may_be_pronoun and starts_sentence and self._leads and luck < 6:
            return self.plain(self._domain.pronoun)
        self._leads = starts_sentence
        return self._subject if luck == 9 else self.plain(self._chance.pick(self._domain.about))


def _possessive(called: str) -> str:
    own = {"it": "its", "he": "his", "she": "her", "they": "their"}
    return own.get(called) or called + ("'" if called.endswith("s") else "'s")


def _choose_facts(domain: Domain, chance: Chance) -> list[Fact]:
    between = domain.facts_at("")
    count = len(between) - 1 if chance.below(_LONG) == 0 else chance.pick(_FACTS)
    closings = domain.facts_at("closing")
    closing = [chance.pick(closings)] if closings and chance.below(2) else []
    told = chance.shuffled(between)[: count - len(closing)]
    if chance.below(2):
        told.sort(key=between.index)  # a domain's file lists them in their natural order
    return [chance.pick(domain.facts_at("opening")), *told, *closing]


def _answers(names: Sequence[str], spans: Sequence[Span], text: str) -> tuple[Answer, ...]:
    """The best answer and the other right ones; nothing where it would be open which is meant."""
    named = [span for span in spans if span.name == names[0]]
    best = max(named, key=lambda span: span.end - span.start, default=None)
    if best is None or not _stands_once(text[best.start : best.end], text):
        return ()
    others = [s for s in spans if s.name in names[1:] and s.overlaps(best)]
    found = {text[s.start : s.end]: s.start for s in (best, *others)}
    return tuple(Answer(answer, start) for answer, start in found.items())


def _with_bare_number(question: str, answers: tuple[Answer, ...]) -> tuple[Answer, ...]:
    """Who is asked how many metres may leave them out: "34" is as right as "34 metres"."""
    number, _, unit = answers[0].text.partition(" ")
    if not unit or unit not in question or any(answer.text == number for answer in answers):
        return answers
    return (*answers, Answer(number, answers[0].start))


def _stands_once(answer: str, text: str) -> bool:
    return text.lower().count(answer.lower()) == 1


def _choose_questions(questions: Sequence[Question], chance: Chance) -> list[Question]:
    """Some questions in the order of their answers, none asked twice."""
    chosen: dict[str, Question] = {}
    most = chance.pick(_QUESTIONS)
    for question in chance.shuffled(questions):
        if len(chosen) < most:
            chosen.setdefault(question.text, question)
    return sorted(chosen.values(), key=lambda question: question.answers[0].start)
