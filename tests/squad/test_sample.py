"""The bundled sample is in SQuAD's form, reads like English and keeps training and dev apart."""

import json
import re
import subprocess
import sys
from collections import Counter
from importlib.resources import files

import numpy as np
import pytest
from tokenizers import BertWordPieceTokenizer

from bertkit.squad.sample import make_sample, write_sample
from bertkit.squad.sample.articles import write_article
from bertkit.squad.sample.domains import load_cultures, load_domains
from bertkit.squad.sample.phrases import PhraseError, Text, article, parse
from bertkit.squad.sample.values import Chance, Values
from tests.timing import times_as_long

SPLITS = ("train", "dev")
# Words with a capital that are no names.
SHARED = {
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December", "Sundays", "Mount", "Lake", "River", "Bank", "The", "A",
}  # fmt: skip


@pytest.fixture(scope="module")
def sample():
    return dict(zip(SPLITS, make_sample(), strict=True))


def paragraphs(data):
    return [p for article in data["data"] for p in article["paragraphs"]]


def questions(data):
    return [(p["context"], q) for p in paragraphs(data) for q in p["qas"]]


def test_the_seed_decides_everything(sample):
    assert make_sample(seed=0) == (sample["train"], sample["dev"])
    other = make_sample(seed=1)[0]
    contexts = {p["context"] for p in paragraphs(sample["train"])}
    assert not contexts & {p["context"] for p in paragraphs(other)}


def test_to_make_it_up_takes_little_beside_writing_it_down():
    """Two seconds where as much JSON in pure Python takes 0.11 s, on an idle Zen 3.

    `benchmarks.inputs_and_scores` says the seconds.
    """
    written = make_sample(seed=3)
    assert times_as_long(make_sample, lambda: json.dumps(written, indent=1)) < 2 / 0.11


def test_it_needs_no_tensorflow():
    code = (
        "import sys, bertkit.squad.sample as s; s.make_sample(); print('tensorflow' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert run.stdout.strip() == "False"


def test_files_hold_the_sample(tmp_path, sample):
    write_sample(tmp_path / "new")
    for split in SPLITS:
        text = (tmp_path / "new" / f"{split}-v1.1.json").read_text("utf-8")
        assert json.loads(text) == sample[split]


def test_it_is_in_the_official_form(sample):
    for data in sample.values():
        assert set(data) == {"version", "data"}
        for entry in data["data"]:
            assert set(entry) == {"title", "paragraphs"}
            for paragraph in entry["paragraphs"]:
                assert set(paragraph) == {"context", "qas"}
                for question in paragraph["qas"]:
                    assert set(question) == {"id", "question", "answers"}
                    assert question["answers"]
                    assert all(set(a) == {"text", "answer_start"} for a in question["answers"])


def test_it_is_large_enough(sample):
    assert 3200 <= len(questions(sample["train"])) <= 4300
    assert 500 <= len(questions(sample["dev"])) <= 800
    assert len(load_domains("train")) >= 14
    assert len(load_domains("dev")) >= 6
    assert not {d.name for d in load_domains("train")} & {d.name for d in load_domains("dev")}


def test_paragraphs_are_neither_bare_nor_long(sample):
    vocabulary = str(files("bertkit_minilm") / "vocab.txt")
    tokenizer = BertWordPieceTokenizer(vocabulary, lowercase=True)
    for data in sample.values():
        contexts = [p["context"] for p in paragraphs(data)]
        lengths = np.array([len(e.ids) - 2 for e in tokenizer.encode_batch(contexts)])
        assert lengths.min() >= 30
        assert lengths.max() <= 260
        assert 60 <= np.median(lengths) <= 120
        assert np.mean((lengths >= 45) & (lengths <= 150)) > 0.85


@pytest.mark.parametrize("split", SPLITS)
def test_answers_stand_where_they_are_said_to(split, sample):
    for context, question in questions(sample[split]):
        for answer in question["answers"]:
            start = answer["answer_start"]
            assert context[start : start + len(answer["text"])] == answer["text"]
            assert answer["text"] == answer["text"].strip(" .,;")


@pytest.mark.parametrize("split", SPLITS)
def test_it_is_never_open_which_stretch_is_meant(split, sample):
    for context, question in questions(sample[split]):
        best = question["answers"][0]["text"]
        assert context.lower().count(best.lower()) == 1, (best, context)


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_minimal(split, sample):
    for _, question in questions(sample[split]):
        for answer in question["answers"]:
            assert not re.match(r"(in|on|by|at|from|because|since) ", answer["text"])
            assert len(answer["text"].split()) <= 12


def test_dev_has_questions_with_more_than_one_right_answer(sample):
    counts = Counter(len(q["answers"]) for _, q in questions(sample["dev"]))
    assert sum(n for answers, n in counts.items() if answers > 1) > 50
    for _, question in questions(sample["dev"]):
        texts = [a["text"] for a in question["answers"]]
        assert len(texts) == len(set(texts))


def test_ids_and_titles_are_unique(sample):
    both = [q["id"] for data in sample.values() for _, q in questions(data)]
    assert len(both) == len(set(both))
    titles = [entry["title"] for data in sample.values() for entry in data["data"]]
    assert len(titles) == len(set(titles))


def test_no_paragraph_asks_the_same_twice(sample):
    for data in sample.values():
        for paragraph in paragraphs(data):
            asked = [q["question"] for q in paragraph["qas"]]
            assert len(asked) == len(set(asked)) >= 2


@pytest.mark.parametrize("split", SPLITS)
def test_it_reads_like_english(split, sample):
    for paragraph in paragraphs(sample[split]):
        check_sentences(paragraph["context"])
        for question in paragraph["qas"]:
            text = question["question"]
            assert text.endswith("?") != text.startswith("Name the ")
            check_text(text)


def check_sentences(context):
    assert context.endswith((".", '."'))
    for sentence in re.split(r"(?<=\.) ", context):
        assert sentence[0].isupper() or sentence[0] == '"', context
    check_text(context)


def check_text(text):
    assert not re.search(r"[{}\[\]|<>()]", text), text
    assert not re.search(r"\s\s|\s[.,;:?]|[.,;:]{2}|^\s|\s$", text), text
    assert not re.search(r"\b(\w+) \1\b", text), text  # a word twice
    assert not re.search(r"(^|[.] )\d", text), text  # a sentence that begins with a number
    assert not re.search(r"\b\d{4} \d", text), text  # a year and a quantity side by side
    for word, following in re.findall(r"\b([Aa]n?) (\w[\w,-]*)", text):
        assert word.lower() == article(following), text


@pytest.mark.parametrize(
    ("word", "expected"),
    [("owl", "an"), ("hour", "an"), ("11", "an"), ("18", "an"), ("80", "an"), ("unit", "a"),
     ("one-off", "a"), ("used", "a"), ("house", "a"), ("7", "a"), ("unknown", "an"),
     ("180", "a"), ("18,000", "an"), ("European", "a")],
)  # fmt: skip
def test_article_before(word, expected):
    assert article(word) == expected


def test_train_and_dev_share_no_paragraph(sample):
    train, dev = ({p["context"] for p in paragraphs(sample[split])} for split in SPLITS)
    assert not train & dev


def test_train_and_dev_share_no_name_of_a_person_or_place(sample):
    train, dev = ({word for c in load_cultures(s) for word in all_names(c)} for s in SPLITS)
    assert not names(sample["train"]) & dev
    assert not names(sample["dev"]) & train
    assert len(names(sample["train"]) & train) > 300  # or the names were not found
    assert len(names(sample["dev"]) & dev) > 300


def test_train_and_dev_share_no_stock_of_names():
    train, dev = ({word for c in load_cultures(s) for word in all_names(c)} for s in SPLITS)
    assert not train & dev


def test_train_and_dev_share_no_template_of_a_question():
    train, dev = (
        {re.sub(r"(the )?{[^}]*}('s)?", "_", t).lower() for t in templates(s)} for s in SPLITS
    )
    assert not train & dev


def templates(split):
    for domain in load_domains(split):
        for fact in domain.facts:
            yield from (way.source for ways in fact.asks.values() for way in ways)


def test_train_and_dev_share_no_title_or_other_made_up_name():
    train, dev = ({n for d in load_domains(s) for n in capitals(d)} for s in SPLITS)
    assert not (train & dev) - SHARED


def capitals(domain):
    """Words with a capital in what a domain draws its values from."""
    stock = " ".join(domain.values.values())
    return re.findall(r"[A-Z]\w+", re.sub(r"{[^}]*}", "", stock))


def test_train_and_dev_share_no_wording_of_a_question(sample):
    train, dev = ({mask(q["question"]) for _, q in questions(sample[s])} for s in SPLITS)
    assert not train & dev
    assert len(train) > 500
    assert len(dev) > 200


def names(data):
    """Every word with a capital that does not only begin a sentence."""
    found = set()
    for paragraph in paragraphs(data):
        texts = [paragraph["context"], *(q["question"] for q in paragraph["qas"])]
        for text in texts:
            found |= set(re.findall(r"(?<=[a-z,;] )[\"]?([A-Z]\w+)", text))
    return found


def all_names(culture):
    return {
        *culture.men, *culture.women, *culture.surnames,
        *culture.places, *culture.rivers, *culture.regions,
    }  # fmt: skip


def mask(text):
    """A text without names and numbers, so that what is left is its wording."""
    first, rest = text[:1].lower(), text[1:]
    masked = re.sub(r"\b[A-Z]\w*('s)?", "_", first + rest)
    masked = re.sub(r"\d[\d,]*", "_", masked)
    return re.sub(r"\b_( (of|and|the|in) _|[ -]_)*", "_", masked)


@pytest.mark.parametrize("split", SPLITS)
def test_every_fact_can_be_told_and_asked_in_several_ways(split):
    for domain in load_domains(split):
        for fact in domain.facts:
            assert len(fact.says) >= 2, domain.name
            for key, ways in fact.asks.items():
                assert len(ways) >= 1, (domain.name, key)
                assert len({way.source for way in ways}) == len(ways), (domain.name, key)


@pytest.mark.parametrize("split", SPLITS)
def test_no_question_gives_its_answer_away(split):
    for domain in load_domains(split):
        for fact in domain.facts:
            for (best, *_), ways in fact.asks.items():
                for way in ways:
                    assert best.split(".")[0] not in way.names, (domain.name, way.source)


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_that_is_asked_for_can_be_told(split):
    for domain in load_domains(split):
        asked, told = set(), set()
        for number in range(150):
            written = write_article(domain, load_cultures(split), Chance(9, number))
            asked |= {mask(question.text) for question in written.questions}
            told.add(mask(written.text))
        wanted = sum(len(fact.asks) for fact in domain.facts)
        assert len(told) > 100
        assert len(asked) >= wanted, domain.name


def test_values_of_an_article_differ_and_lean_on_each_other():
    wanted = {
        "a": "person", "b": "person", "c": "spouse a", "begun": "year 1800 1810",
        "opened": "year begun+3 begun+5", "count": "count 3 4", "more": "number 1000 1010 10",
    }  # fmt: skip
    for number in range(200):
        values = Values(wanted, load_cultures("train"), Chance(number))
        people = {values.text(name).text for name in "abc"}
        assert len({word for person in people for word in person.split()}) == 6
        assert values.text("a.he").text != values.text("c.he").text
        assert 3 <= int(values.text("opened").text) - int(values.text("begun").text) <= 5
        assert values.text("count").text in ("three", "four")
        assert values.text("more").text in ("1,000", "1,010")


def test_values_that_run_out_are_said():
    with pytest.raises(ValueError, match="second"):
        Values(
            {"first": "year 1800 1800", "second": "year 1800 1800"}, load_cultures("dev"), Chance(1)
        )


@pytest.mark.parametrize("source", ["{name", "[no name]", "(a|b", "a) b", "a | b", "[x: a|b]"])
def test_phrases_that_do_not_close_are_refused(source):
    with pytest.raises(PhraseError):
        parse(source)


def test_stretches_are_found_where_they_were_written():
    phrase = parse("{A} was closed because [why: {thing} (fell|had fallen) on {a name}].")
    told = {"A": "it", "thing": "a stone", "name": "owl"}
    text = phrase.render(lambda name, _: Text(told[name]), lambda n: n - 1)
    assert text.text == "it was closed because a stone had fallen on an owl."
    (why,) = text.spans
    assert text.text[why.start : why.end] == "a stone had fallen on an owl"
