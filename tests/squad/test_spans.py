import numpy as np
import pytest

from bertkit.squad.dataset import Dataset
from bertkit.squad.features import make_features
from bertkit.squad.spans import (
    NO_CHARACTER,
    Candidates,
    best_answers,
    choose_answers,
    find_candidates,
)
from bertkit.squad.tokenization import load_tokenizer

WORDS = "[PAD] [UNK] [CLS] [SEP] who won a b c d e f g h".split()  # noqa: SIM905
DATASET = Dataset.from_examples(
    {
        "one": ("a b  C d e f g h", "who"),
        "two": ("a b c d e f g h a b c d e f g h", "who won"),
        "none": ("\u200b", "who"),
    }
)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return make_features(
        DATASET, load_tokenizer(path, lowercase=True),
        max_seq_length=12, doc_stride=3, max_query_length=4, training=False,
    )  # fmt: skip


def flat(features, value=-5.0):
    return [np.full(length, value, np.float32) for length in features.lengths]


def noise(features, seed):
    random = np.random.default_rng(seed)
    return [
        [random.normal(size=length).astype(np.float32) for length in features.lengths]
        for _ in range(2)
    ]


def answers(features, starts, ends, **options):
    values = {"max_answer_length": 5, "version_2": False, **options}
    return best_answers(features, DATASET, starts, ends, **values)


def test_text_is_that_of_the_paragraph(features):
    starts, ends = flat(features), flat(features)
    starts[0][4], ends[0][6] = 5, 5  # [CLS] who [SEP] a b c d ...
    found = answers(features, starts, ends)["one"]
    assert (found.text, found.start_char, found.end_char) == ("b  C d", 2, 8)
    assert found.n_best[0].text == found.text
    assert found.score == found.n_best[0].probability > 0.9
    assert sum(candidate.probability for candidate in found.n_best) == pytest.approx(1)
    assert DATASET.contexts[0][found.start_char : found.end_char] == found.text


def test_text_holds_the_accents_of_its_last_letter(vocab_file):
    asked = Dataset.single("a cafe\u0301 in Hanoi", "where")
    made = make_features(
        asked, load_tokenizer(vocab_file, lowercase=True),
        max_seq_length=32, doc_stride=8, max_query_length=8, training=False,
    )  # fmt: skip
    logits = np.zeros(len(made.input_ids), np.float32)
    logits[4] = 5  # [CLS] where [SEP] a cafe in hanoi [SEP]
    found = best_answers(made, asked, [logits], [logits], max_answer_length=5, version_2=False)
    assert found["question"].text == "cafe\u0301"
    assert found["question"].end_char == 7


def test_impossible_spans_are_no_answers(features):
    starts, ends = flat(features), flat(features)
    starts[0][:3] = 9  # [CLS] who [SEP]
    ends[0][-1] = 9  # [SEP]
    starts[0][8], ends[0][4] = 8, 8  # backwards
    starts[0][3], ends[0][9] = 7, 7  # 7 tokens
    found = answers(features, starts, ends)["one"]
    assert [candidate.text for candidate in found.n_best[:2]] == ["f g", "a b"]
    longer = answers(features, starts, ends, max_answer_length=7)["one"]
    assert longer.n_best[2].text == "a b  C d e f g"
    assert longer.n_best[2].text not in {candidate.text for candidate in found.n_best}


def test_a_start_counts_only_where_its_window_shows_most(features):
    rows = features.of_questions([1])
    assert len(rows) == 4
    place = {
        row: np.flatnonzero(
            features.is_max_context[features.offsets[row] : features.offsets[row + 1]]
        )
        for row in rows
    }
    starts, ends = flat(features), flat(features)
    beyond = place[rows[0]].max() + 1  # its own window is the second one
    starts[rows[0]][beyond], ends[rows[0]][beyond] = 9, 9
    inside = place[rows[1]][0]
    starts[rows[1]][inside], ends[rows[1]][inside] = 8, 8
    found = answers(features, starts, ends)["two"]
    assert found.n_best[0].start_logit == 8


def test_no_answer_where_it_beats_the_threshold(features):
    starts, ends = flat(features), flat(features)
    starts[0][4], ends[0][4] = 2, 2
    starts[0][0], ends[0][0] = 3, 2.5
    found = answers(features, starts, ends, version_2=True)["one"]
    assert (found.text, found.start_char, found.end_char) == ("", NO_CHARACTER, NO_CHARACTER)
    assert found.null_score_difference == 1.5
    bold = answers(features, starts, ends, version_2=True, null_score_diff_threshold=1.5)["one"]
    assert bold.text == "b"
    assert [candidate.text for candidate in bold.n_best][:2] == ["", "b"]


def test_no_answer_takes_the_least_score_over_the_windows(features):
    starts, ends = flat(features), flat(features)
    rows = features.of_questions([1])
    for row, value in zip(rows, [4.0, 1.0, 6.0, 3.0], strict=True):
        starts[row][0] = value
    found = answers(features, starts, ends, version_2=True)["two"]
    best = found.n_best[1] if not found.n_best[0].text else found.n_best[0]
    assert found.null_score_difference == 1.0 - 5.0 - best.start_logit - best.end_logit


def test_a_question_without_tokens_has_no_answer(features):
    for version_2 in (False, True):
        found = answers(features, flat(features), flat(features), version_2=version_2)["none"]
        assert found.text == ""


def test_texts_of_the_n_best_differ(features):
    starts, ends = noise(features, 3)
    for found in answers(features, starts, ends, n_best_size=4).values():
        texts = [candidate.text for candidate in found.n_best]
        assert len(set(texts)) == len(texts) <= 4


def test_batches_give_what_all_at_once_gives(features):
    starts, ends = noise(features, 4)
    whole = answers(features, starts, ends, version_2=True)
    parts = []
    for rows in ([3, -1, 0], [4, 1], [2, -1]):
        padded = np.full((len(rows), 16, 2), 7.0, np.float32)  # padding must not count
        for place, row in enumerate(rows):
            if row >= 0:
                padded[place, : len(starts[row])] = np.stack([starts[row], ends[row]], axis=1)
        parts.append(
            find_candidates(
                features, np.array(rows), padded[..., 0], padded[..., 1], max_answer_length=5
            )
        )
    joined = choose_answers(features, DATASET, Candidates.join(parts), version_2=True)
    assert joined == {name: found for name, found in whole.items() if name != "none"}


def test_some_questions_only(features):
    starts, ends = noise(features, 5)
    whole = answers(features, starts, ends)
    rows = features.of_questions([1])
    some = answers(
        features, [starts[row] for row in rows], [ends[row] for row in rows], feature_indices=rows
    )
    assert some == {"two": whole["two"]}


def test_candidate_as_json(features):
    found = answers(features, flat(features), flat(features))["one"]
    assert set(found.n_best[0].to_dict()) == {
        "text", "start_char", "end_char", "probability", "start_logit", "end_logit",
    }  # fmt: skip
