"""Features against ``run_squad.py``'s published rules and `transformers` 4's SQuAD features.

All fields of all features of all files of the real data. Named differences from the published
rules, none of which the real data shows:

* **no-break spaces**: published, a question is left out of training where its answer holds a blank
  that is no space, tab, line end or narrow no-break space; bertkit trains on it.
* **leading blanks**: an answer with blanks at its ends is taken without them; published, it can
  drag in the word before it.

Hugging Face's newer example scripts take ``doc_stride`` for the tokens that two windows share, and
so make other windows (4,457 from the training file, where the published rules make 4,466).
"""

from __future__ import annotations

import numpy as np
import pytest

from bertkit.squad.features import Features, make_features
from bertkit.squad.reading import read_squad
from bertkit.squad.tokenization import load_tokenizer
from tests.oracles.published_squad import PublishedRules
from tests.oracles.published_tokenizer import PublishedTokenizer
from tests.oracles.transformers_4_squad import run_transformers_4

FILES = [("train-v1.1", True), ("dev-v1.1", False), ("dev-v2.0", True)]
BERT = {"max_seq_length": 384, "doc_stride": 128, "max_query_length": 64}
SHORT = {"max_seq_length": 96, "doc_stride": 40, "max_query_length": 12}


@pytest.fixture(scope="module")
def tokenizer(vocab_file):
    return load_tokenizer(vocab_file, lowercase=True)


def rows(made: Features) -> list[dict]:
    """Each feature with what the oracles tell of theirs."""
    return [
        {
            "question": int(made.question_index[i]),
            "input_ids": made.input_ids[begin:end].tolist(),
            "segments": [int(p >= made.question_lengths[i]) for p in range(end - begin)],
            "start": int(made.start_positions[i]),
            "end": int(made.end_positions[i]),
            "max_context": np.flatnonzero(made.is_max_context[begin:end]).tolist(),
        }
        for i, (begin, end) in enumerate(zip(made.offsets[:-1], made.offsets[1:], strict=True))
    ]


@pytest.mark.parametrize("settings", [BERT, SHORT], ids=["384-128-64", "96-40-12"])
@pytest.mark.parametrize(("name", "training"), FILES)
def test_published_rules(squad_folder, vocab_file, tokenizer, name, training, settings):
    data = read_squad(squad_folder / f"{name}.json", training=training)
    made = make_features(data, tokenizer, training=training, **settings)
    rules = PublishedRules(data, PublishedTokenizer(vocab_file))
    wanted = rules.features(training=training, **settings)
    assert len(made) == len(wanted)
    ids = tokenizer.get_vocab()
    for ours, theirs in zip(rows(made), wanted, strict=True):
        assert ours == {
            "question": theirs.question,
            "input_ids": [ids[token] for token in theirs.tokens],
            "segments": theirs.segments,
            "start": theirs.start,
            "end": theirs.end,
            "max_context": [at for at, best in theirs.is_max_context.items() if best],
        }
    answered = [q for q in data.questions if q.answers] if training else []
    assert not any(rules.is_skipped(question) for question in answered)
    # Each token of a window stands for characters of the word it was made of.
    for i in range(0, len(made), 50):
        begin, end = made.offsets[i], made.offsets[i + 1]
        context = data.context(data.questions[made.question_index[i]])
        paragraph = rules.paragraph(data.questions[made.question_index[i]].context_index)
        assert [
            paragraph.word_of_char[start] for start in made.char_starts[begin:end] if start >= 0
        ] == list(wanted[i].word_of_token.values())
        assert made.char_ends[begin:end].max() <= len(context)


@pytest.mark.parametrize(("name", "training"), FILES)
def test_transformers_4(squad_folder, vocab_file, tokenizer, tmp_path, name, training):
    data = read_squad(squad_folder / f"{name}.json", training=training)
    made = make_features(data, tokenizer, training=training, **BERT)
    job = {
        "file": str(squad_folder / f"{name}.json"),
        "version_2": data.has_impossible,
        "training": training,
        "vocab_file": str(vocab_file),
        "settings": BERT,
    }
    theirs = run_transformers_4(job, tmp_path)["features"]
    assert rows(made) == theirs
