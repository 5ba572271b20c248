import json
from pathlib import Path

import pytest

from bertkit.config import Config
from bertkit.errors import ConfigError, DataError
from bertkit.squad.dataset import NOT_AT_ITS_OFFSET, Answer
from bertkit.squad.reading import DataFiles, find_data, load_data, parse_squad, read_squad

CONTEXT = "The Normans won at Hastings in 1066."


def question(**changes):
    values = {
        "id": "q1",
        "question": "When did the Normans win?",
        "answers": [{"text": "1066", "answer_start": 31}],
    }
    return {name: value for name, value in (values | changes).items() if value is not ...}


def nested(*questions, context=CONTEXT, title="Normans"):
    paragraphs = [{"context": context, "qas": list(questions or [question()])}]
    return {"version": "1.1", "data": [{"title": title, "paragraphs": paragraphs}]}


def record(**changes):
    return question(
        **{
            "title": "Normans",
            "context": CONTEXT,
            "answers": {"text": ["1066"], "answer_start": [31]},
            **changes,
        }
    )


def write(folder: Path, data: object, name: str = "train.json") -> Path:
    path = folder / name
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def message(path: Path, **options: bool) -> str:
    with pytest.raises(DataError) as caught:
        read_squad(path, **options)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Layouts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("nested.json", nested()),
        ("list.json", [record()]),
        ("data.json", {"data": [record()]}),
        ("one.json", record()),
        ("lines.jsonl", json.dumps(record()) + "\n\n"),
        ("lines.json", "\n".join(json.dumps(record(id=i)) for i in "ab")),
        ("bom.json", "\ufeff" + json.dumps(nested())),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_every_layout_gives_the_same_question(tmp_path, name, data, training):
    dataset = read_squad(write(tmp_path, data, name), training=training)
    first = dataset.questions[0]
    assert dataset.contexts == (CONTEXT,)
    assert (first.title, first.question) == ("Normans", "When did the Normans win?")
    assert first.answers == (Answer("1066", 31),)
    assert dataset.problems == ()


def test_json_lines_may_hold_unicode_line_separators(tmp_path):
    line = json.dumps(record(question="When\u2028then?"), ensure_ascii=False)
    dataset = read_squad(write(tmp_path, f"{line}\n", "lines.jsonl"))
    assert dataset.questions[0].question == "When\u2028then?"


def test_unanswerable_questions_of_version_2():
    data = nested(question(), question(id="q2", answers=[], is_impossible=True))
    dataset = parse_squad(data, "dev", training=True)
    assert [q.is_impossible for q in dataset.questions] == [False, True]


def test_flat_records_mark_impossible_by_empty_lists():
    data = [question(context=CONTEXT, answers={"text": [], "answer_start": []})]
    assert parse_squad(data, "dev").questions[0].is_impossible


def test_questions_to_be_asked_need_no_answers():
    dataset = parse_squad(nested(question(answers=...)), "asked")
    assert dataset.questions[0].answers == ()
    assert not dataset.questions[0].is_impossible


def test_paragraphs_are_kept_once():
    data = [record(id="a"), record(id="b"), question(id="c", context="Other 1066", answers=...)]
    dataset = parse_squad(data, "flat")
    assert dataset.contexts == (CONTEXT, "Other 1066")
    assert [q.context_index for q in dataset.questions] == [0, 0, 1]


def test_real_files(squad_folder):
    train = read_squad(squad_folder / "train-v1.1.json", training=True)
    dev = read_squad(squad_folder / "dev-v1.1.json")
    dev_2 = read_squad(squad_folder / "dev-v2.0.json")
    assert [len(train), len(train.contexts)] == [4370, 678]
    assert [len(dev), len(dev.contexts)] == [2910, 646]
    assert [len(dev_2), sum(q.is_impossible for q in dev_2.questions)] == [6078, 3168]
    assert train.problems == dev.problems == dev_2.problems == ()
    for dataset in (train, dev, dev_2):
        for q in dataset.questions:
            for answer in q.answers:
                assert dataset.context(q).startswith(answer.text, answer.start)


# What is left out --------------------------------------------------------------------------------

WRONG = {"text": "1066", "answer_start": 30}


def test_wrong_offset_is_reported_and_not_trained_on():
    data = nested(question(answers=[WRONG]), question(id="q2"))
    dataset = parse_squad(data, "train", training=True)
    assert [q.id for q in dataset.questions] == ["q2"]
    assert [str(problem) for problem in dataset.problems] == [
        "train: article 'Normans', question 'q1': the answer '1066' is not at its offset 30, "
        "where the paragraph has ' 106'; the question is left out"
    ]


def test_another_answer_that_fits_is_trained_on():
    right = {"text": "Hastings", "answer_start": 19}
    dataset = parse_squad(nested(question(answers=[WRONG, right])), "train", training=True)
    assert dataset.questions[0].answers == (Answer("Hastings", 19),)
    assert dataset.problems[0].reason.endswith("this answer is left out")


def test_wrong_offset_still_counts_when_scoring():
    dataset = parse_squad(nested(question(answers=[WRONG])), "dev")
    assert dataset.questions[0].answers == (Answer("1066", NOT_AT_ITS_OFFSET),)
    assert len(dataset.problems) == 1


@pytest.mark.parametrize("start", [-1, -5, 10**6, 33])
def test_offsets_outside_the_paragraph(start):
    answers = [{"text": "1066", "answer_start": start}]
    dataset = parse_squad(nested(question(answers=answers), question(id="q2")), "t", training=True)
    assert len(dataset) == len(dataset.problems) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answers": ...}, "it has no answer and is not marked impossible"),
        ({"answers": []}, "it has no answer and is not marked impossible"),
        ({"question": " \t"}, "the question is blank"),
        ({"answers": [{"text": " ", "answer_start": 3}]}, "the answer ' ' holds nothing to read"),
        ({"answers": [{"text": "", "answer_start": 0}]}, "the answer '' holds nothing to read"),
    ],
)
def test_questions_that_cannot_be_trained_on(changes, reason):
    data = nested(question(**changes), question(id="q2"))
    dataset = parse_squad(data, "train", training=True)
    assert [q.id for q in dataset.questions] == ["q2"]
    assert dataset.problems[0].reason.startswith(reason)
    assert [q.id for q in parse_squad(data, "dev").questions] == ["q1", "q2"]


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(DataError, match="no question that can be trained on; the answer '1066'"):
        parse_squad(nested(question(answers=[WRONG])), "train", training=True)


# What is an error --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "holds no question at all"),
        ({"data": []}, "holds no question at all"),
        ({}, "holds an object with nothing"),
        ({"data": 5}, "holds an object with 'data'"),
        (7, "holds 7; expected SQuAD's"),
        ([5], "article 1: it is 5; expected an object"),
        ([{"foo": 1}], "article 1: holds an object with 'foo'"),
        ({"data": [{"title": 3, "paragraphs": []}]}, "'title' is 3; expected a text"),
        ({"data": [{"title": "T", "paragraphs": 3}]}, "article 'T': 'paragraphs' is 3"),
        ({"data": [{"title": "T", "paragraphs": [3]}]}, "paragraph 1 is 3; expected an object"),
        ({"data": [{"title": "T", "paragraphs": [{"qas": []}]}]}, "'context' is missing or null"),
        ({"data": [{"title": "T", "paragraphs": [{"context": "c"}]}]}, "'qas' is missing or null"),
        (nested(5), "a question of paragraph 1 is 5"),
        (nested(question(id=5)), "article 'Normans': 'id' is 5; expected a text"),
        (nested(question(id=...)), "article 'Normans': 'id' is missing or null"),
        (nested(question(question=...)), "question 'q1': 'question' is missing or null"),
        (nested(question(answers="x")), "question 'q1': 'answers' is 'x'; expected a list"),
        (nested(question(answers=[5])), "question 'q1': an answer is 5"),
        (nested(question(answers=[{"text": "a"}])), "'answer_start' is missing or null"),
        (nested(question(answers=[{"text": 1, "answer_start": 1}])), "'text' is 1"),
        (nested(question(answers=[{"text": "a", "answer_start": 1.5}])), "is 1.5; expected a"),
        (nested(question(answers=[{"text": "a", "answer_start": True}])), "is True; expected a"),
        (nested(question(), question()), "question 'q1': this id is used twice"),
        (nested(question(is_impossible="no")), "'is_impossible' is 'no'; expected true or false"),
        (nested(question(is_impossible=True)), "is marked impossible to answer but has answers"),
        (nested(question(question="\ud800")), "half a surrogate pair"),
        ([record(answers=..., context="\udc00")], "half a surrogate pair"),
        ([question(context="c", answers={"text": ["a"], "answer_start": []})], "1 texts and 0"),
    ],
)  # fmt: skip
def test_wrong_layout(tmp_path, data, words):
    assert words in message(write(tmp_path, data))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("  \n ", "the file is empty"),
        (json.dumps(nested(), indent=1)[:150], "the JSON ends in the middle; is the file cut off?"),
        (json.dumps(nested(), indent=1)[:100], "line 8, column"),
        ('{"data": [}', "line 1, column 11: is not JSON"),
        ("hello", "line 1, column 1: is not JSON"),
        ('{"data": [], "data": []}', "an object holds 'data' twice"),
        ('{"data": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[" + "1" * 5000 + "]", "is not usable JSON"),
        (json.dumps(record()) + '\n{"id": ', "line 2 is not JSON"),
        (json.dumps(nested()) + "}", "is not JSON (Extra data)"),
    ],
)
def test_wrong_json(tmp_path, text, words):
    assert words in message(write(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path):
    assert "there is no such file" in message(tmp_path / "none.json")
    assert "is a folder" in message(tmp_path)
    (tmp_path / "binary.json").write_bytes(b'{"data": "\xff\xfe"}')
    assert "byte 10 is not UTF-8" in message(tmp_path / "binary.json")


# Which files -------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write(folder, nested(question(id=name)), name)
    return folder


def field_problem(call, config):
    with pytest.raises(ConfigError) as caught:
        call(config)
    (problem,) = caught.value.problems
    return problem.field, problem.message


def test_version_1_goes_before_version_2(tmp_path):
    both = touch(tmp_path, "train-v1.1.json", "dev-v1.1.json", "train-v2.0.json", "dev-v2.0.json")
    files = find_data(Config(data=str(both)))
    assert files == DataFiles(both / "train-v1.1.json", both / "dev-v1.1.json")


def test_a_pair_goes_before_half_a_pair(tmp_path):
    folder = touch(tmp_path, "train-v1.1.json", "train-v2.0.json", "dev-v2.0.json")
    files = find_data(Config(data=str(folder)))
    assert files == DataFiles(folder / "train-v2.0.json", folder / "dev-v2.0.json")


def test_named_files_go_before_the_folder(tmp_path):
    folder = touch(tmp_path / "data", "train-v1.1.json", "dev-v1.1.json", "dev-v2.0.json")
    other = touch(tmp_path / "other", "mine.json") / "mine.json"
    files = find_data(Config(data=str(folder), dev_file=str(other)))
    assert files == DataFiles(folder / "train-v1.1.json", other)
    train, dev = load_data(Config(data=str(folder), dev_file=str(other)))
    assert (train.questions[0].id, dev.questions[0].id) == ("train-v1.1.json", "mine.json")


def test_named_files_need_no_folder(tmp_path):
    folder = touch(tmp_path, "a.json", "b.json")
    config = Config(
        data="/nowhere", train_file=str(folder / "a.json"), dev_file=str(folder / "b.json")
    )
    assert find_data(config) == DataFiles(folder / "a.json", folder / "b.json")
    assert [dataset.questions[0].id for dataset in load_data(config)] == ["a.json", "b.json"]


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"data": "{}/none"}, "data", "there is no folder"),
        ({"data": "{}/half/train-v1.1.json"}, "data", "is a file; expected a folder"),
        (
            {"data": "{}/half"},
            "data",
            "holds no dev-v1.1.json or dev-v2.0.json to go with train-v1",
        ),
        ({"data": "{}/empty"}, "data", "holds no train-v1.1.json or train-v2.0.json; add it"),
        ({"train_file": "{}/none.json"}, "train_file", "there is no file"),
        ({"dev_file": "{}/half"}, "dev_file", "is a folder; expected a file"),
        ({"train_file": "{}/half/train-v1.1.json"}, "dev_file", "is empty; expected the file that"),
        ({"dev_file": "{}/half/train-v1.1.json"}, "train_file", "is empty; expected the file that"),
    ],
)
def test_fields_that_name_nothing(tmp_path, fields, field, words):
    touch(tmp_path / "half", "train-v1.1.json")
    touch(tmp_path / "empty")
    config = Config(**{name: value.format(tmp_path) for name, value in fields.items()})
    found, text = field_problem(load_data, config)
    assert found == field
    assert words in text
    assert "\n" not in text


def test_max_train_questions_is_a_fixed_random_choice(squad_folder):
    def ids(seed):
        config = Config(data=str(squad_folder), max_train_questions=50, seed=seed)
        return [q.id for q in load_data(config)[0].questions]

    assert len(ids(1)) == 50
    assert ids(1) == ids(1)
    assert set(ids(1)) != set(ids(2))


def test_sample_is_loaded_by_its_name():
    train, dev = load_data(Config(data="sample"))
    assert len(train) > 1000
    assert len(dev) > 100
    assert train.problems == dev.problems == ()
