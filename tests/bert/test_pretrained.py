"""Finding and reading pretrained models: layouts, names, the hub, and what is refused."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from bertkit.bert.pretrained import load_pretrained
from bertkit.errors import ModelError
from tests import tiny

WEIGHTS = "model.safetensors"


@pytest.fixture
def model(tmp_path):
    return tiny.write_model(tmp_path / "model")


def rewrite(folder, change):
    """Write the weights again after ``change`` has turned a name into another or into None."""
    tensors = load_file(folder / WEIGHTS)
    changed = {change(name): values for name, values in tensors.items() if change(name)}
    save_file(changed, folder / WEIGHTS, metadata={"format": "pt"})
    return tensors


def assert_holds(folder, tensors, **options):
    found = load_pretrained(str(folder), **options).tensors
    assert found.keys() == tensors.keys()
    for name, values in tensors.items():
        assert np.array_equal(found[name], values), name


# Hugging Face's layout ---------------------------------------------------------------------------


def test_names_without_the_prefix(model):
    assert_holds(model, rewrite(model, lambda name: name.removeprefix("bert.")))


def test_names_of_2018(model):
    def old(name):
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        )

    assert_holds(model, rewrite(model, old))


def test_weights_that_a_span_head_does_not_need_are_left_out(model):
    tensors = load_file(model / WEIGHTS)
    others = {"bert.pooler.dense.weight": np.ones((32, 32), np.float32)}
    others["cls.predictions.bias"] = np.ones(3, np.float32)
    save_file(tensors | others, model / WEIGHTS)
    assert_holds(model, tensors)


def test_shards(model):
    tensors = load_file(model / WEIGHTS)
    parts = [list(tensors)[::2], list(tensors)[1::2]]
    files = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for file, names in zip(files, parts, strict=True):
        save_file({name: tensors[name] for name in names}, model / file)
    places = {name: file for file, names in zip(files, parts, strict=True) for name in names}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (model / WEIGHTS).unlink()
    assert_holds(model, tensors)

    (model / files[1]).unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors cannot be read"):
        load_pretrained(str(model))


@pytest.mark.parametrize("dtype", [np.float16, tf.bfloat16.as_numpy_dtype, np.float64])
def test_other_precisions_become_float32(model, dtype):
    tensors = load_file(model / WEIGHTS)
    stored = {name: values.astype(dtype) for name, values in tensors.items()}
    save_file(stored, model / WEIGHTS)
    assert_holds(model, {name: values.astype(np.float32) for name, values in stored.items()})


def test_fewer_layers(model):
    upper = "bert.encoder.layer.1."
    lower = {n: v for n, v in load_file(model / WEIGHTS).items() if not n.startswith(upper)}
    assert_holds(model, lower, num_hidden_layers=1)
    with pytest.raises(ModelError, match="num_hidden_layers is 3; expected 1 to 2"):
        load_pretrained(str(model), num_hidden_layers=3)


@pytest.mark.parametrize(
    ("name", "says", "lowercase"),
    [
        ("bert-base-cased", None, False),
        ("bert-base-uncased", None, True),
        ("mine", None, True),
        ("bert-base-cased", True, True),
        ("mine", False, False),
    ],
)
def test_lower_case(tmp_path, name, says, lowercase):
    folder = tiny.write_model(tmp_path / name)
    if says is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": says}))
    assert load_pretrained(str(folder)).lowercase is lowercase


# What is refused ---------------------------------------------------------------------------------


def pickled(folder):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def without_weights(folder):
    (folder / WEIGHTS).unlink()


def without_configuration(folder):
    (folder / "config.json").unlink()


def truncated(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def without_a_weight(folder):
    rewrite(folder, lambda name: None if name.endswith("1.output.dense.bias") else name)


def of_another_shape(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors["bert.encoder.layer.0.output.dense.bias"] = np.zeros(31, np.float32)
    save_file(tensors, folder / WEIGHTS)


def with_half_a_head(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors["qa_outputs.bias"] = np.zeros(2, np.float32)
    save_file(tensors, folder / WEIGHTS)


def with_a_way_out(folder):
    (folder / WEIGHTS).rename(folder / "other.safetensors")
    index = {"weight_map": {"bert.embeddings.word_embeddings.weight": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


REFUSED = [
    (pickled, "pytorch_model.bin, a pickle that could run any code"),
    (without_weights, "holds no weights; expected model.safetensors"),
    (without_configuration, "holds no BERT model; expected"),
    (truncated, "model.safetensors cannot be read"),
    (without_a_weight, "lacks the weight bert.encoder.layer.1.output.dense.bias"),
    (of_another_shape, r"output.dense.bias has the shape \[31\]; expected \[32\]"),
    (with_half_a_head, "lacks the weight qa_outputs.weight"),
    (with_a_way_out, "index.json is broken"),
]


@pytest.mark.parametrize(("damage", "message"), REFUSED, ids=lambda x: getattr(x, "__name__", ""))
def test_a_folder_that_cannot_be_used_is_named(model, damage, message):
    damage(model)
    with pytest.raises(ModelError, match=message) as caught:
        load_pretrained(str(model))
    assert str(model) in str(caught.value)


# Google's zips -----------------------------------------------------------------------------------


def test_nothing_leaves_the_cache_when_a_zip_is_extracted(tmp_path):
    path, cache = tmp_path / "uncased_L-2_H-128_A-2.zip", tmp_path / "below" / "cache"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../../bert_config.json", "{}")
        archive.writestr("/etc/vocab.txt", "a\n")
        archive.writestr("../../../anything.py", "raise SystemExit")
    with pytest.raises(ModelError):
        load_pretrained(str(path), cache=cache)
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_relative_to(cache)]
    assert outside == [path]
    assert not list(tmp_path.rglob("anything.py"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no zip at all"])
def test_a_broken_zip_is_named(tmp_path, content):
    path = tmp_path / "model.zip"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.zip is no complete zip"):
        load_pretrained(str(path), cache=tmp_path / "cache")


def test_a_zip_of_something_else_is_named(tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.jpg", "")
    with pytest.raises(ModelError, match=r"photos\.zip holds no bert_config\.json"):
        load_pretrained(str(path), cache=tmp_path / "cache")
