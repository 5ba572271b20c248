"""What a run reads before its first step, and what it says when it cannot."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.errors import ConfigError, DataError, ModelError
from bertkit.events import Notice, Progress
from bertkit.squad.dataset import Dataset, Question
from bertkit.training.inputs import PROBLEMS_SHOWN, features, read_inputs, validation_sample
from tests import tiny


def questions(count):
    return Dataset("dev", ("context",), tuple(Question(str(n), "", 0, "?") for n in range(count)))


@given(st.integers(1, 300), st.floats(0.0001, 1.0), st.integers(0, 2**31 - 1))
def test_the_validation_sample_is_a_share_of_the_questions(count, fraction, seed):
    dev = questions(count)
    ids = [int(q.id) for q in validation_sample(dev, fraction, seed).questions]
    assert ids == sorted(set(ids))
    assert set(ids) <= set(range(count))
    assert abs(len(ids) - max(1, count * fraction)) <= 0.5
    assert ids == [int(q.id) for q in validation_sample(dev, fraction, seed).questions]


def test_the_seed_chooses_the_validation_sample():
    dev = questions(1000)
    chosen = [{q.id for q in validation_sample(dev, 0.1, seed).questions} for seed in range(20)]
    assert len(set(map(frozenset, chosen))) == 20
    assert len(set.union(*chosen)) > 700  # no question is favoured: 1000 (1 - 0.9^20) expected


def test_reading(tiny_config):
    seen = []
    inputs = read_inputs(tiny_config, seen.append)
    assert (len(inputs.train), len(inputs.dev)) == (800, 40)
    assert inputs.pretrained.architecture.num_hidden_layers == 2
    question = ["who", "built", "the", "mill", "?"]
    assert inputs.tokenizer.encode(" ".join(question)).tokens == question
    assert [e.stage for e in seen if isinstance(e, Progress)] == [
        "Reading questions",
        "Reading the model",
    ]
    made = features(inputs.train, inputs.tokenizer, tiny_config, training=True)
    assert len(made) == 800
    assert (made.end_positions >= made.start_positions).all()
    assert (made.start_positions > 0).all()


def test_layers_can_be_left_out(tiny_config):
    inputs = read_inputs(tiny_config.replace(num_hidden_layers=1))
    assert inputs.pretrained.architecture.num_hidden_layers == 1


def test_problems_of_the_data_are_told_and_counted(tiny_config, tmp_path):
    folder = tiny.write_questions(tmp_path / "squad", train=20, dev=5)
    path = folder / "train-v1.1.json"
    data = json.loads(path.read_text())
    for paragraph in data["data"][0]["paragraphs"][:7]:
        paragraph["qas"][0]["answers"][0]["answer_start"] += 1
    path.write_text(json.dumps(data))
    seen = []
    inputs = read_inputs(tiny_config.replace(data=str(folder)), seen.append)
    notices = [e.message for e in seen if isinstance(e, Notice)]
    assert len(inputs.train) == 13
    assert len(notices) == PROBLEMS_SHOWN + 1
    assert "train-0" in notices[0]
    assert notices[-1].endswith(f"{7 - PROBLEMS_SHOWN} more such problems, 7 in all")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"max_seq_length": 128}, ConfigError, r"max_seq_length: is 128; .* positions for 96"),
        ({"num_hidden_layers": 3}, ModelError, r"num_hidden_layers is 3"),
        ({"model": "/no/such/model"}, ModelError, r"/no/such/model"),
        ({"data": "/no/such/data"}, ConfigError, r"data: .*/no/such/data"),
        ({"dev_file": "/no/such/file"}, ConfigError, r"dev_file: .*/no/such/file"),
    ],
)
def test_mistakes_name_their_field(tiny_config, changes, error, words):
    with pytest.raises(error, match=words):
        read_inputs(tiny_config.replace(**changes))


def test_a_file_without_trainable_questions_is_named(tiny_config, tmp_path):
    folder = tiny.write_questions(tmp_path / "squad", train=3, dev=3)
    path = folder / "train-v1.1.json"
    path.write_text(path.read_text().replace('"answer_start": ', '"answer_start": 100'))
    with pytest.raises(DataError, match=r"train-v1\.1\.json"):
        read_inputs(tiny_config.replace(data=str(folder)))


def test_inputs_cannot_be_changed(tiny_config):
    with pytest.raises(dataclasses.FrozenInstanceError):
        read_inputs(tiny_config).train = None
