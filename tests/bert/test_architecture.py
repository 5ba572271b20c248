"""Configurations: what is read, what is refused and how, and what is counted."""

from __future__ import annotations

import json

import pytest

from bertkit.bert.architecture import Architecture
from bertkit.bert.question_answering import QuestionAnswering
from bertkit.errors import ModelError
from tests.bert.conftest import make_sizes

GOOGLE = {
    "attention_probs_dropout_prob": 0.1, "directionality": "bidi", "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "hidden_size": 1024, "initializer_range": 0.02,
    "intermediate_size": 4096, "max_position_embeddings": 512, "num_attention_heads": 16,
    "num_hidden_layers": 24, "type_vocab_size": 2, "vocab_size": 30522,
}  # fmt: skip


def write(tmp_path, values):
    path = tmp_path / "config.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


def test_googles_configuration_of_large_is_read(tmp_path):
    sizes = Architecture.from_file(write(tmp_path, GOOGLE))
    assert (sizes.hidden_size, sizes.num_hidden_layers, sizes.head_size) == (1024, 24, 64)
    assert sizes.layer_norm_eps == 1e-12


def test_what_is_written_is_read_again(tmp_path):
    sizes = make_sizes(3, 48, 4, "relu")
    assert Architecture.from_file(write(tmp_path, sizes.to_hugging_face())) == sizes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "roberta"}, ["'roberta'", "expected 'bert'"]),
        ({"num_attention_heads": 15}, ["hidden_size is 1024", "num_attention_heads (15)"]),
        ({"hidden_act": "swish"}, ["'swish'", "gelu, gelu_new, relu"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers is 0", "at least 1"]),
        ({"vocab_size": "many"}, ["vocab_size is 'many'", "whole number"]),
        ({"intermediate_size": True}, ["intermediate_size is True"]),
        ({"layer_norm_eps": -1}, ["layer_norm_eps is -1"]),
        ({"position_embedding_type": "relative_key"}, ["'relative_key'", "'absolute'"]),
    ],
)
def test_a_wrong_value_is_named_with_its_file(tmp_path, change, words):
    path = write(tmp_path, GOOGLE | change)
    with pytest.raises(ModelError) as error:
        Architecture.from_file(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds a list"),
        ("{}", "does not name vocab_size, hidden_size, num_hidden_layers"),
        ("\udcff", None),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path, text, words):
    path = tmp_path / "config.json"
    path.write_bytes(b"\xff\xfe" if words is None else text.encode())
    with pytest.raises(ModelError, match=words):
        Architecture.from_file(path)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        Architecture.from_file(tmp_path / "config.json")
    with pytest.raises(ModelError, match="cannot be read"):
        Architecture.from_file(tmp_path)


@pytest.mark.parametrize(
    "sizes", [make_sizes(), make_sizes(3, 48, 4)], ids=["2 layers", "3 layers"]
)
def test_parameters_are_those_of_the_variables(sizes):
    counted = sum(int(v.shape.num_elements()) for v in QuestionAnswering(sizes).variables)
    assert sizes.parameters() == counted


def test_published_sizes_have_their_published_parameters():
    # bert-base-uncased has 109,482,240 with its pooler of 590,592 and without this head.
    assert Architecture().parameters() == 109_482_240 - 590_592 + 2 * 768 + 2


def test_flops_are_those_of_the_products():
    sizes = Architecture()
    batch, length, hidden, wide = 8, 384, 768, 3072
    rows = batch * length
    layer = 2 * rows * hidden * (3 * hidden + hidden + 2 * wide)
    layer += 2 * 2 * batch * 12 * length * length * 64
    expected = 3 * (12 * layer + 2 * rows * hidden * 2)
    assert sizes.training_flops(batch, length) == expected
