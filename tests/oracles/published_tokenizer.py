"""BERT's tokenizer as published, one character at a time.

Written from the description of google-research/bert's ``tokenization.py`` (Devlin et al., 2018),
without the `tokenizers` library: clean the text, set CJK characters apart, split at blanks, lower
the case and strip accents, split at punctuation, then take the longest known piece again and again.
Every character keeps its place in the text, so that tokens have offsets.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

LONGEST_WORD = 200
CJK = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip

Token = tuple[str, int, int]
Word = list[tuple[str, int]]  # characters with their places


def is_dropped(char: str) -> bool:
    if char in "\t\n\r":
        return False
    return char in "\0\ufffd" or unicodedata.category(char) in ("Cc", "Cf")


def is_blank(char: str) -> bool:
    # Zs is turned into a space, and str.split() also splits at the other Unicode blanks.
    return char in " \t\n\r" or unicodedata.category(char) == "Zs" or char.isspace()


def is_cjk(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in CJK)


def is_punctuation(char: str) -> bool:
    # All ASCII that is no letter, number, control or blank counts, such as "$" and "^".
    if 33 <= ord(char) <= 126:
        return not char.isalnum()
    return unicodedata.category(char).startswith("P")


def uncased(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text.lower())
    return "".join(char for char in decomposed if unicodedata.category(char) != "Mn")


@cache
def kind(char: str) -> str:
    if is_dropped(char):
        return "dropped"
    if is_blank(char):
        return "blank"
    return "cjk" if is_cjk(char) else "other"


class PublishedTokenizer:
    """Tokens with offsets; ``exact_offsets`` says whether the last text's could be followed."""

    def __init__(self, vocab_file: Path, *, lowercase: bool = True) -> None:
        lines = vocab_file.read_text(encoding="utf-8").split("\n")
        self.vocab = {line.strip(): number for number, line in enumerate(lines) if line.strip()}
        self.lowercase = lowercase
        self.exact_offsets = True
        self._known: dict[str, list[tuple[str, int, int]]] = {}

    def tokens(self, text: str) -> list[Token]:
        self.exact_offsets = True
        return [
            token
            for word in self._blank_separated(text)
            for part in self._at_punctuation(self._normalized(word))
            for token in self._pieces(part)
        ]

    def tokenize(self, text: str) -> list[str]:
        return [token for token, _, _ in self.tokens(text)]

    def words(self, text: str) -> list[str]:
        """The text split at blanks and punctuation, before words are cut into pieces."""
        return [
            "".join(char for char, _ in part)
            for word in self._blank_separated(text)
            for part in self._at_punctuation(self._normalized(word))
        ]

    def _blank_separated(self, text: str) -> list[Word]:
        words: list[Word] = [[]]
        for place, char in enumerate(text):
            what = kind(char)
            if what == "blank":
                words.append([])
            elif what == "cjk":
                words += [[(char, place)], []]
            elif what == "other":
                words[-1].append((char, place))
        return [word for word in words if word]

    def _normalized(self, word: Word) -> Word:
        if not self.lowercase:
            return word
        whole = uncased("".join(char for char, _ in word))
        by_char = [(new, place) for char, place in word for new in uncased(char)]
        if whole == "".join(char for char, _ in by_char):
            return by_char
        # A character that depends on its neighbours: the text is right, its place is not known.
        self.exact_offsets = False
        return [(char, word[0][1]) for char in whole]

    def _at_punctuation(self, word: Word) -> list[Word]:
        parts: list[Word] = [[]]
        for char, place in word:
            if char.isspace():  # decomposed from something that was none
                parts.append([])
            elif is_punctuation(char):
                parts += [[(char, place)], []]
            else:
                parts[-1].append((char, place))
        return [part for part in parts if part]

    def _pieces(self, word: Word) -> list[Token]:
        text = "".join(char for char, _ in word)
        if text not in self._known:
            self._known[text] = self._longest_pieces(text)
        places = [place for _, place in word]
        return [
            (token, places[first], places[last - 1] + 1) for token, first, last in self._known[text]
        ]

    def _longest_pieces(self, text: str) -> list[tuple[str, int, int]]:
        unknown = [("[UNK]", 0, len(text))]
        if len(text) > LONGEST_WORD:
            return unknown
        pieces, first = [], 0
        while first < len(text):
            prefix = "##" if first else ""
            ends = range(len(text), first, -1)
            last = next((end for end in ends if prefix + text[first:end] in self.vocab), None)
            if last is None:
                return unknown
            pieces.append((prefix + text[first:last], first, last))
            first = last
        return pieces
