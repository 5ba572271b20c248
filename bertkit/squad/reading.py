"""Reads question answering files and finds the ones a configuration names.

Two layouts are read: the official nested one of SQuAD v1.1 and v2.0 (Rajpurkar et al., 2016 and
2018), and flat records as in Hugging Face's data sets, as JSON or JSON Lines. What breaks the
layout is a `DataError`. What only spoils one answer or question is a `Problem`: it is left out of
training, and counted.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.config import Config
from bertkit.errors import ConfigError, DataError, FieldProblem
from bertkit.squad.dataset import NOT_AT_ITS_OFFSET, Answer, Dataset, Problem, Question

SAMPLE = "sample"
VERSIONS = ("v1.1", "v2.0")
EXPECTED = (
    'expected SQuAD\'s {"data": [{"title", "paragraphs": [{"context", "qas"}]}]} or records with '
    '"id", "title", "context", "question" and "answers"'
)


@dataclass(frozen=True)
class DataFiles:
    """The files a configuration names.

    Args:
        train: Training questions, or ``None`` where there are none.
        dev: Validation questions, or ``None`` where there are none.
    """

    train: Path | None
    dev: Path | None


def load_data(config: Config) -> tuple[Dataset, Dataset]:
    """Read the training and validation questions of a configuration.

    Args:
        config: Its ``data``, ``train_file`` and ``dev_file`` say where they are;
            ``max_train_questions`` keeps a random choice of training questions, fixed by ``seed``.

    Returns:
        Training questions and validation questions.

    Raises:
        ConfigError: If a field names no folder or file, or one of the two files is missing.
        DataError: If a file cannot be used.

    Example:
        >>> train, dev = load_data(Config(data="sample"))           # doctest: +SKIP
    """
    files = find_data(config)
    if config.data == SAMPLE and files == DataFiles(None, None):
        from bertkit.squad.sample import make_sample  # takes a moment, and only the sample needs it

        train_json, dev_json = make_sample()
        train = parse_squad(train_json, "sample (train)", training=True)
        dev = parse_squad(dev_json, "sample (dev)")
    else:
        train_file, dev_file = _both(config, files)
        train, dev = read_squad(train_file, training=True), read_squad(dev_file)
    return _choose(train, config.max_train_questions, config.seed), dev


def find_data(config: Config) -> DataFiles:
    """Find the files a configuration names, without reading them.

    ``train_file`` and ``dev_file`` go before the folder ``data``, in which ``train-v1.1.json`` and
    ``dev-v1.1.json`` are taken, or else both of v2.0. The name ``sample`` is no file.

    Raises:
        ConfigError: If a field names something that does not exist or is not a file or folder.
    """
    train = _named_file("train_file", config.train_file)
    dev = _named_file("dev_file", config.dev_file)
    if (train and dev) or config.data == SAMPLE:
        return DataFiles(train, dev)
    folder = _data_folder(config.data)
    found = [_pair(folder, version) for version in VERSIONS]
    pairs = [pair for pair in found if (train or pair.train) and (dev or pair.dev)]
    best = (pairs or [pair for pair in found if pair.train or pair.dev] or found)[0]
    return DataFiles(train or best.train, dev or best.dev)


def read_squad(path: str | Path, *, training: bool = False) -> Dataset:
    """Read a file of questions.

    Args:
        path: A file in SQuAD's nested JSON (v1.1 or v2.0), or of flat records as JSON or JSON
            Lines.
        training: Keep only what can be trained on: answers whose text is at its offset, and
            questions with such an answer or marked impossible. Without it every question is kept,
            and an answer at a wrong offset still counts in scores.

    Returns:
        The questions. Its ``problems`` list what was left out or is at a wrong offset.

    Raises:
        DataError: If the file cannot be read, is empty, is not JSON or has another layout.

    Example:
        >>> dev = read_squad("squad/dev-v1.1.json")                 # doctest: +SKIP
        >>> len(dev), len(dev.problems)                             # doctest: +SKIP
        (10570, 0)
    """
    path = Path(path)
    return parse_squad(_load(path), str(path), training=training)


def parse_squad(data: object, name: str, *, training: bool = False) -> Dataset:
    """Make a dataset of JSON that is loaded already.

    Args:
        data: What the JSON held, in either layout.
        name: Where it is from, for messages.
        training: As in `read_squad`.

    Raises:
        DataError: If it has another layout, or holds no question.
    """
    collector = _Collector(name, training)
    for element, where in _elements(data, name):
        if "paragraphs" in element:
            _read_article(element, where, collector)
        elif "context" in element:
            _read_record(element, where, collector)
        else:
            raise where.error(f"{_holds(element)}; {EXPECTED}")
    return collector.dataset()


# Files -------------------------------------------------------------------------------------------


def _both(config: Config, files: DataFiles) -> tuple[Path, Path]:
    """Both files, or an error that names the field to fill."""
    if files.train and files.dev:
        return files.train, files.dev
    part = "train" if files.train is None else "dev"
    if config.data == SAMPLE:
        other = "dev_file" if part == "train" else "train_file"
        message = f"is empty; expected the file that goes with {other} {getattr(config, other)}"
        raise _field_error(f"{part}_file", message)
    names = " or ".join(f"{part}-{version}.json" for version in VERSIONS)
    other_part = files.dev if part == "train" else files.train
    beside = f" to go with {other_part.name}" if other_part else ""
    message = f"{config.data} holds no {names}{beside}; add it or name a {part}_file"
    raise _field_error("data", message)


def _named_file(name: str, value: str | None) -> Path | None:
    if value is None:
        return None
    path = Path(value).expanduser()
    if path.is_dir():
        raise _field_error(name, f"{path} is a folder; expected a file of questions")
    if not path.exists():
        raise _field_error(name, f"there is no file {path}; expected a file of questions")
    return path


def _data_folder(value: str) -> Path:
    folder = Path(value).expanduser()
    expected = "expected a folder with train-v1.1.json and dev-v1.1.json (or -v2.0), or 'sample'"
    if folder.is_file():
        raise _field_error(
            "data", f"{folder} is a file; {expected}; name files in train_file and dev_file"
        )
    if not folder.is_dir():
        raise _field_error("data", f"there is no folder {folder}; {expected}")
    return folder


def _pair(folder: Path, version: str) -> DataFiles:
    train, dev = (folder / f"{part}-{version}.json" for part in ("train", "dev"))
    return DataFiles(train if train.is_file() else None, dev if dev.is_file() else None)


def _field_error(name: str, message: str) -> ConfigError:
    return ConfigError([FieldProblem(name, message)])


def _choose(dataset: Dataset, size: int | None, seed: int) -> Dataset:
    if size is None or size >= len(dataset):
        return dataset
    chosen = np.random.default_rng([seed, size]).choice(len(dataset), size, replace=False)
    return dataset.subset(np.sort(chosen))


# JSON --------------------------------------------------------------------------------------------


def _load(path: Path) -> object:
    text = _read_text(path)
    if not text.strip():
        raise DataError(f"{path}: the file is empty; {EXPECTED}")
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return _parse_lines(text, path)
    try:
        return _parse_json(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and _is_json(text.lstrip().split("\n", 1)[0]):
            return _parse_lines(text, path)  # one record a line
        raise DataError(f"{path}: {_describe(error, text)}; {EXPECTED}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not usable JSON ({_reason(error)}); {EXPECTED}") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder; expected a file of questions") from None
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; expected a file of questions") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the file") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start} is not UTF-8 text; expected JSON in UTF-8"
        ) from None


def _parse_lines(text: str, path: Path) -> list[object]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: JSON may hold U+2028
        if not line.strip():
            continue
        try:
            rows.append(_parse_json(line))
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}: line {number} is not JSON ({_reason(error)}); expected one record a line"
            ) from None
    return rows


def _parse_json(text: str) -> object:
    return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [key for key, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object holds {twice!r} twice")
    return values


def _no_constant(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


def _is_json(text: str) -> bool:
    try:
        _parse_json(text)
    except (ValueError, RecursionError):
        return False
    return True


def _describe(error: json.JSONDecodeError, text: str) -> str:
    ends_early = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
    what = "the JSON ends in the middle; is the file cut off?" if ends_early else "is not JSON"
    return f"line {error.lineno}, column {error.colno}: {what} ({error.msg})"


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


# Layout ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where in a file something stands, for messages."""

    file: str
    article: str = ""
    question: str = ""

    def error(self, reason: str) -> DataError:
        parts = [self.file]
        if self.article:
            parts.append(f"article {self.article}")
        if self.question:
            parts.append(f"question {self.question}")
        return DataError(f"{', '.join(parts)}: {reason}")

    def text(self, values: Mapping[str, Any], key: str, default: str | None = None) -> str:
        """A text that must be there, unless there is a default, and must be valid Unicode."""
        value = values.get(key, default)
        if not isinstance(value, str):
            raise self.error(f"{key!r} is {_kind(value)}; expected a text")
        if not _is_unicode(value):
            raise self.error(f"{key!r} holds half a surrogate pair; expected valid Unicode")
        return value

    def rows(self, values: Mapping[str, Any], key: str) -> list[Any]:
        value = values.get(key)
        if not isinstance(value, list):
            raise self.error(f"{key!r} is {_kind(value)}; expected a list")
        return value

    def mapping(self, value: Any, what: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.error(f"{what} is {_kind(value)}; expected an object")
        return value


@dataclass
class _Collector:
    """Gathers questions, each paragraph once, and what is wrong with them."""

    name: str
    training: bool
    contexts: dict[str, int] = field(default_factory=dict)
    questions: dict[str, Question] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)

    def add(self, question: Question, context: str, where: _Place) -> None:
        if question.id in self.questions or question.id in self.left_out:
            raise where.error("this id is used twice; expected an id of its own for each question")
        problems = _problems(question, context, self.training)
        self.problems += [
            Problem(self.name, question.title, question.id, reason) for reason in problems
        ]
        checked = _checked(question, context, self.training)
        if checked is None:
            self.left_out.add(question.id)
        else:
            self.questions[question.id] = checked

    def context_index(self, context: str) -> int:
        return self.contexts.setdefault(context, len(self.contexts))

    def dataset(self) -> Dataset:
        if not self.questions:
            why = f"; {self.problems[0].reason}" if self.problems else f"; {EXPECTED}"
            use = "that can be trained on" if self.left_out else "at all"
            raise DataError(f"{self.name}: holds no question {use}{why}")
        return Dataset(
            self.name,
            tuple(self.contexts),
            tuple(self.questions.values()),
            tuple(self.problems),
        )


def _elements(data: object, name: str) -> Iterator[tuple[dict[str, Any], _Place]]:
    """The articles or records of a file, each with its place."""
    if isinstance(data, dict) and "data" not in data and {"context", "question"} <= set(data):
        data = [data]  # a file of one line
    rows = data.get("data") if isinstance(data, dict) else data
    if not isinstance(rows, list):
        raise DataError(f"{name}: {_holds(data)}; {EXPECTED}")
    for number, row in enumerate(rows, 1):
        where = _Place(name, str(number))
        element = where.mapping(row, "it")
        title = where.text(element, "title", "")
        yield element, _Place(name, repr(title) if title else str(number))


def _read_article(article: dict[str, Any], where: _Place, collector: _Collector) -> None:
    title = where.text(article, "title", "")
    for number, value in enumerate(where.rows(article, "paragraphs"), 1):
        paragraph = where.mapping(value, f"paragraph {number}")
        context = where.text(paragraph, "context")
        for value in where.rows(paragraph, "qas"):
            asked = where.mapping(value, f"a question of paragraph {number}")
            _read_question(asked, title, context, where, collector)


def _read_record(record: dict[str, Any], where: _Place, collector: _Collector) -> None:
    context = where.text(record, "context")
    _read_question(record, where.text(record, "title", ""), context, where, collector)


def _read_question(
    values: dict[str, Any], title: str, context: str, article: _Place, collector: _Collector
) -> None:
    question_id = article.text(values, "id")
    where = _Place(article.file, article.article, repr(question_id))
    answers = _read_answers(values.get("answers", []), where)
    impossible = values.get("is_impossible")
    if impossible is None:
        # Flat records of SQuAD 2.0 mark a question without an answer by empty lists alone.
        impossible = "context" in values and "answers" in values and not answers
    if not isinstance(impossible, bool):
        raise where.error(f"'is_impossible' is {_kind(impossible)}; expected true or false")
    if impossible and answers:
        raise where.error("is marked impossible to answer but has answers; expected one of both")
    question = Question(
        id=question_id,
        title=title,
        context_index=collector.context_index(context),
        question=where.text(values, "question"),
        answers=answers,
        is_impossible=impossible,
    )
    collector.add(question, context, where)


def _read_answers(value: object, where: _Place) -> tuple[Answer, ...]:
    """Answers as a list of objects (nested files) or as an object of lists (flat records)."""
    if isinstance(value, dict):
        texts, starts = where.rows(value, "text"), where.rows(value, "answer_start")
        if len(texts) != len(starts):
            raise where.error(
                f"'answers' has {len(texts)} texts and {len(starts)} offsets; expected as many"
            )
        value = [
            {"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)
        ]
    if not isinstance(value, list):
        raise where.error(f"'answers' is {_kind(value)}; expected a list")
    return tuple(_read_answer(where.mapping(row, "an answer"), where) for row in value)


def _read_answer(values: dict[str, Any], where: _Place) -> Answer:
    text = where.text(values, "text")
    start = values.get("answer_start")
    if not isinstance(start, int) or isinstance(start, bool):
        raise where.error(f"'answer_start' is {_kind(start)}; expected a whole number")
    return Answer(text, start)


# What can be trained on --------------------------------------------------------------------------


def _problems(question: Question, context: str, training: bool) -> list[str]:
    """Everything about one question that keeps it, or one of its answers, out of training."""
    wrong = [_wrong_offset(answer, context) for answer in question.answers]
    reasons = [reason for reason in wrong if reason]
    if not context.strip():
        reasons.append("its paragraph is blank")
    if not question.question.strip():
        reasons.append("the question is blank")
    if training and not question.is_impossible and not question.answers:
        reasons.append("it has no answer and is not marked impossible")
    if not training or not reasons:
        return reasons
    kept = _checked(question, context, training) is not None
    ending = "this answer is left out" if kept else "the question is left out"
    return [f"{reason}; {ending}" for reason in reasons]


def _checked(question: Question, context: str, training: bool) -> Question | None:
    """The question as it may be used, or ``None`` where it may not be."""
    right = [_wrong_offset(answer, context) is None for answer in question.answers]
    if not training:
        if all(right):
            return question
        marked = (
            answer if ok else Answer(answer.text, NOT_AT_ITS_OFFSET)
            for answer, ok in zip(question.answers, right, strict=True)
        )
        return replace(question, answers=tuple(marked))
    if not context.strip() or not question.question.strip():
        return None
    if not any(right) and not question.is_impossible:
        return None
    if all(right):
        return question
    pairs = zip(question.answers, right, strict=True)
    return replace(question, answers=tuple(answer for answer, ok in pairs if ok))


def _wrong_offset(answer: Answer, context: str) -> str | None:
    """Why an answer cannot be trained on, or ``None``."""
    if not _has_tokens(answer.text):
        return f"the answer {answer.text!r} holds nothing to read"
    found = context[max(0, answer.start) : max(0, answer.start) + len(answer.text)]
    if answer.start >= 0 and found == answer.text:
        return None
    return (
        f"the answer {_short(answer.text)} is not at its offset {answer.start}, "
        f"where the paragraph has {_short(found)}"
    )


def _has_tokens(text: str) -> bool:
    """Whether WordPiece makes any token of it: not of spaces, controls and bare accents."""
    return text.isalnum() or any(
        unicodedata.category(char) not in ("Cc", "Cf", "Cn", "Co", "Mn", "Zl", "Zp", "Zs")
        for char in text
    )


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: object) -> str:
    """What a JSON value is, in words, short enough for a message."""
    names = {dict: "an object", list: "a list", type(None): "missing or null"}
    return names.get(type(value)) or _short(value)


def _holds(data: object) -> str:
    if isinstance(data, dict):
        keys = ", ".join(_short(key) for key in list(data)[:5])
        return f"holds an object with {keys or 'nothing'}"
    return f"holds {_kind(data)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
