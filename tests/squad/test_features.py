import numpy as np
import pytest

from bertkit.errors import DataError
from bertkit.squad.dataset import Answer, Dataset, Question
from bertkit.squad.features import make_features
from bertkit.squad.reading import read_squad
from bertkit.squad.tokenization import load_tokenizer

WORDS = "[PAD] [UNK] [CLS] [SEP] who won ? the normans in 1066 ( - 1095 ) . un ##aff ##able a b c d"
CONTEXT = "The Normans won in (1066-1095). A b c d a b c d"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join(WORDS.split()) + "\n")
    return load_tokenizer(path, lowercase=True)


@pytest.fixture(scope="module")
def real_tokenizer(vocab_file):
    return load_tokenizer(vocab_file, lowercase=True)


def dataset(*answers, context=CONTEXT, question="Who won?", **more):
    return Dataset("d", (context,), (Question("q", "t", 0, question, tuple(answers), **more),))


def features(data, tokenizer, *, training=True, **settings):
    values = {"max_seq_length": 64, "doc_stride": 8, "max_query_length": 8, **settings}
    return make_features(data, tokenizer, training=training, **values)


def tokens(made, tokenizer, row=0):
    part = made.input_ids[made.offsets[row] : made.offsets[row + 1]]
    return " ".join(tokenizer.id_to_token(int(i)) for i in part)


def answer(text, context=CONTEXT, nth=0):
    at = -1
    for _ in range(nth + 1):
        at = context.index(text, at + 1)
    return Answer(text, at)


def test_one_window(tokenizer):
    made = features(dataset(answer("1066")), tokenizer)
    assert tokens(made, tokenizer) == (
        "[CLS] who won ? [SEP] the normans won in ( 1066 - 1095 ) . a b c d a b c d [SEP]"
    )
    assert made.question_lengths.tolist() == [5]
    assert (made.start_positions[0], made.end_positions[0]) == (10, 10)
    assert made.char_starts[:6].tolist() == [-1] * 5 + [0]
    assert made.char_ends[5:8].tolist() == [3, 11, 15]
    assert made.char_starts[-1] == made.char_ends[-1] == -1
    assert made.is_max_context.tolist() == [False] * 5 + [True] * 18 + [False]


def test_question_is_cut(tokenizer):
    made = features(dataset(answer("won")), tokenizer, max_query_length=2)
    assert tokens(made, tokenizer).startswith("[CLS] who won [SEP] the")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (answer("The Normans"), "the normans"),
        (answer("(1066-1095)"), "( 1066 - 1095 )"),
        (answer("1095"), "1095"),
        (answer("106"), "( 1066 - 1095 ) ."),  # no tokens spell it: the words it touches
        (answer("a b", nth=0), "a b"),
        (answer(" in "), "in"),
        (answer("d", nth=1), "d"),
    ],
)
def test_answer_is_the_tokens_that_spell_it(tokenizer, given, expected):
    made = features(dataset(given), tokenizer)
    words = tokens(made, tokenizer).split()
    found = words[made.start_positions[0] : made.end_positions[0] + 1]
    assert " ".join(found) == expected
    assert made.char_ends[made.end_positions[0]] >= given.start + len(given.text.rstrip())


def test_windows_and_max_context(tokenizer):
    context = "a b c d a b c d a b"
    data = dataset(Answer("c d", 12), context=context)
    made = features(data, tokenizer, max_seq_length=12, doc_stride=2)
    assert [tokens(made, tokenizer, row) for row in range(len(made))] == [
        "[CLS] who won ? [SEP] a b c d a b [SEP]",
        "[CLS] who won ? [SEP] c d a b c d [SEP]",
        "[CLS] who won ? [SEP] a b c d a b [SEP]",
    ]
    assert made.question_index.tolist() == [0, 0, 0]
    assert made.start_positions.tolist() == [0, 9, 7]
    assert made.end_positions.tolist() == [0, 10, 8]
    bounds = zip(made.offsets[:-1], made.offsets[1:], strict=True)
    parts = [made.is_max_context[begin + 5 : end - 1] for begin, end in bounds]
    assert [part.astype(int).tolist() for part in parts] == [
        [1, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 1],
    ]


def test_impossible_questions_point_at_cls(tokenizer):
    made = features(dataset(is_impossible=True), tokenizer)
    assert (made.start_positions[0], made.end_positions[0]) == (0, 0)


def test_only_an_answer_at_its_offset_is_trained_on(tokenizer):
    wrong, right = Answer("1066", 3), answer("1095")
    made = features(dataset(wrong, right), tokenizer)
    assert tokens(made, tokenizer).split()[made.start_positions[0]] == "1095"
    assert len(features(dataset(wrong), tokenizer)) == 0
    assert len(features(dataset(wrong), tokenizer, training=False)) == 1


def test_a_paragraph_without_tokens_has_no_features(tokenizer):
    asked = Dataset.from_examples({"1": ("\u200b ", "who"), "2": ("the normans", "who")})
    made = features(asked, tokenizer, training=False)
    assert made.question_index.tolist() == [1]


def test_features_of_questions(tokenizer):
    asked = Dataset.from_examples({str(i): ("a b c d " * i, "who") for i in range(1, 9)})
    made = features(asked, tokenizer, training=False, max_seq_length=16)
    chosen = made.of_questions([7, 2])
    assert set(made.question_index[chosen].tolist()) == {7, 2}
    assert len(chosen) == int(np.isin(made.question_index, [7, 2]).sum())


def test_half_a_surrogate_pair_is_said(tokenizer):
    with pytest.raises(DataError, match=r"'who\\ud800' holds half a surrogate pair"):
        features(Dataset.single("a b", "who\ud800"), tokenizer, training=False)


def test_progress_reaches_its_end(tokenizer):
    seen = []
    make_features(
        dataset(answer("won")), tokenizer, max_seq_length=64, doc_stride=8, max_query_length=8,
        training=True, on_progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(("length", "stride"), [(384, 128), (128, 64), (96, 500)])
def test_real_data(squad_folder, real_tokenizer, length, stride):
    data = read_squad(squad_folder / "train-v1.1.json", training=True)
    made = features(data, real_tokenizer, max_seq_length=length, doc_stride=stride,
                    max_query_length=64)  # fmt: skip
    assert made.lengths.max() <= length
    assert set(made.question_index.tolist()) == set(range(len(data)))
    # Each token of a question's paragraph is shown with most context in exactly one window.
    row = np.repeat(np.arange(len(made)), made.lengths)
    best = np.bincount(made.question_index[row[made.is_max_context]])
    encodings = real_tokenizer.encode_batch(list(data.contexts))
    assert best.tolist() == [len(encodings[q.context_index]) for q in data.questions]
    # Where a window holds the answer, its characters are those of the answer, blanks aside.
    found = np.flatnonzero(made.start_positions)
    starts = made.char_starts[made.offsets[found] + made.start_positions[found]]
    ends = made.char_ends[made.offsets[found] + made.end_positions[found]]
    right = 0
    for feature, start, end in zip(found, starts, ends, strict=True):
        question = data.questions[made.question_index[feature]]
        text, given = data.context(question)[start:end], question.answers[0].text
        assert given.strip() in text
        right += text == given.strip()
    assert right >= 0.99 * len(found)
