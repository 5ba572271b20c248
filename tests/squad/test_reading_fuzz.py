"""2,000 damaged files: each loads what it says, or gives a `DataError`; none crashes or hangs."""

from __future__ import annotations

import copy
import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertkit.errors import DataError
from bertkit.squad.reading import read_squad

FIRST = "The Normans won at Hastings in 1066. Their duke was William."
SECOND = "Caf\u00e9 \u4e2d\u56fd \U0001f600 opened in 1999, the owner said."


def asked(name, text, context, **more):
    answers = [{"text": text, "answer_start": context.index(text)}] if text else []
    return {"id": name, "question": f"Question {name}?", "answers": answers, **more}


NESTED = {
    "version": "v2.0",
    "data": [
        {
            "title": "Normans",
            "paragraphs": [
                {
                    "context": FIRST,
                    "qas": [
                        asked("q1", "1066", FIRST, is_impossible=False),
                        asked("q2", "", FIRST, is_impossible=True),
                        asked("q3", "William", FIRST),
                    ],
                }
            ],
        },
        {
            "title": "Caf\u00e9",
            "paragraphs": [{"context": SECOND, "qas": [asked("q4", "1999", SECOND)]}],
        },
    ],
}
FLAT = [
    {
        "id": question["id"],
        "title": article["title"],
        "context": paragraph["context"],
        "question": question["question"],
        "answers": {
            "text": [answer["text"] for answer in question["answers"]],
            "answer_start": [answer["answer_start"] for answer in question["answers"]],
        },
    }
    for article in NESTED["data"]
    for paragraph in article["paragraphs"]
    for question in paragraph["qas"]
]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in FLAT)
TEXTS = [json.dumps(NESTED, indent=1), json.dumps(FLAT, ensure_ascii=False), LINES]

outcomes: Counter[str] = Counter()

TOKENS = [
    *(b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\ud800", b"\x00", b"\xff", b"\n"),
    *(b"null", b"true", b"NaN", b"1e999", b"-1", b"\xef\xbb\xbf", b'"data"', b'"id": "q1"'),
]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["delete", "insert", "repeat", "cut", "flip"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 40),
        st.sampled_from(TOKENS) | st.binary(min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=4,
)


def damage(content: bytes, edits: list[tuple[str, float, int, bytes]]) -> bytes:
    for kind, where, size, payload in edits:
        at = int(where * len(content))
        before, part, after = content[:at], content[at : at + size], content[at + size :]
        content = {
            "delete": before + after,
            "insert": before + payload + part + after,
            "repeat": before + part + part + after,
            "cut": before,
            "flip": before + bytes(byte ^ 1 for byte in part[:1]) + part[1:] + after,
        }[kind]
    return content


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 100) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "context", "qas", "id", "text", "answers", "question"]), inner
        )
    ),
    max_leaves=4,
)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["replace", "delete", "double", "swap"]), st.integers(0, 10**6), VALUES
    ),
    min_size=1,
    max_size=3,
)


def places(value):
    """Every (container, key) of a tree."""
    keys = (
        list(value)
        if isinstance(value, dict)
        else range(len(value))
        if isinstance(value, list)
        else ()
    )
    for key in keys:
        yield value, key
        yield from places(value[key])


def change(tree, changes):
    tree = copy.deepcopy(tree)
    for kind, number, value in changes:
        all_places = list(places(tree))
        if not all_places:
            break
        container, key = all_places[number % len(all_places)]
        if kind == "replace":
            container[key] = value
        elif kind == "delete":
            del container[key]
        elif kind == "double" and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        elif kind == "swap":
            other, place = all_places[(number // 7) % len(all_places)]
            container[key], other[place] = (
                copy.deepcopy(other[place]),
                copy.deepcopy(container[key]),
            )
    return tree


def told(text: str) -> dict[str, tuple[str, str, list[tuple[str, int]], bool]]:
    """What a file says of each question, read without any checks."""
    try:
        data = json.loads(text)
    except ValueError:
        data = [json.loads(line) for line in text.split("\n") if line.strip()]
    if isinstance(data, dict) and "data" not in data:
        data = [data]
    found = []
    for row in data["data"] if isinstance(data, dict) else data:
        for paragraph in row.get("paragraphs", [{**row, "qas": [row]}]):
            found += [(paragraph["context"], question) for question in paragraph["qas"]]
    assert len({question["id"] for _, question in found}) == len(found)
    return {
        question["id"]: (
            context,
            question["question"],
            pairs(question.get("answers", [])),
            question.get("is_impossible") is True
            or (question.get("is_impossible") is None and question.get("context") == context),
        )
        for context, question in found
    }


def pairs(answers):
    if isinstance(answers, dict):
        return list(zip(answers["text"], answers["answer_start"], strict=True))
    return [(answer["text"], answer["answer_start"]) for answer in answers]


def loads_right_or_says_why(path, training):
    dataset, message = None, ""
    try:
        dataset = read_squad(path, training=training)
    except DataError as error:
        message = str(error)
    outcomes["loaded" if dataset else "error"] += 1
    if dataset is None:
        assert message.startswith(str(path))
        assert "\n" not in message
        return
    said = told(path.read_text(encoding="utf-8-sig"))
    left_out = set(said) - {question.id for question in dataset.questions}
    assert left_out <= {problem.question_id for problem in dataset.problems}
    assert training or not left_out
    for question in dataset.questions:
        context, words, answers, may_be_impossible = said[question.id]
        assert dataset.context(question) == context
        assert question.question == words
        right = [(text, at) for text, at in answers if at >= 0 and context[at:].startswith(text)]
        kept = [(answer.text, answer.start) for answer in question.answers if answer.start >= 0]
        assert set(kept) <= set(right)
        if question.is_impossible:
            assert may_be_impossible
            assert not answers
        elif training:
            assert kept
            assert len(kept) == len(question.answers)
        else:
            assert [answer.text for answer in question.answers] == [text for text, _ in answers]


FUZZ = settings(
    max_examples=500,
    deadline=5000,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("training", [False, True])
@FUZZ
@given(text=st.sampled_from(TEXTS), edits=EDITS)
def test_damaged_bytes(tmp_path, training, text, edits):
    path = tmp_path / "questions.json"
    path.write_bytes(damage(text.encode(), edits))
    loads_right_or_says_why(path, training)


@pytest.mark.parametrize("training", [False, True])
@FUZZ
@given(tree=st.sampled_from([NESTED, FLAT]), changes=CHANGES)
def test_changed_values(tmp_path, training, tree, changes):
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(change(tree, changes)), encoding="utf-8")
    loads_right_or_says_why(path, training)


def test_the_damage_was_neither_too_little_nor_too_much():
    """Both outcomes must have been seen often, or the two tests above show nothing."""
    if outcomes.total() < 2000:
        pytest.skip("the tests above did not run")
    assert min(outcomes["loaded"], outcomes["error"]) > 200
