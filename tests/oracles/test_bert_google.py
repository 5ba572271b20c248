"""A checkpoint in the layout of Google's releases gives the bits of the safetensors path.

Known weights are written twice: as Google's training code would (TensorFlow 1's ``Saver`` over a
graph with its variable names, pooler, pretraining heads and Adam's slots included), and as a
Hugging Face folder. The names follow rules that are written here from google-research/bert's
``modeling.py``, not bertkit's table.
"""

from __future__ import annotations

import json
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from bertkit.bert.architecture import Architecture
from bertkit.bert.pretrained import load_pretrained
from bertkit.bert.weights import HEAD, shapes

SIZES = {
    "uncased_L-2_H-128_A-2": Architecture(
        vocab_size=300, hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=512,
    ),
    # the layers and heads of large and base, but narrow
    "wwm_uncased_L-24_H-1024_A-16": Architecture(
        vocab_size=300, hidden_size=64, num_hidden_layers=24, num_attention_heads=16,
        intermediate_size=256,
    ),
    "cased_L-12_H-768_A-12": Architecture(
        vocab_size=300, hidden_size=192, num_hidden_layers=12, num_attention_heads=12,
        intermediate_size=768,
    ),
}  # fmt: skip


def google_name(name):
    """Name in Google's graph of a Hugging Face weight."""
    if name.startswith("qa_outputs."):
        return "cls/squad/output_" + {"weight": "weights", "bias": "bias"}[name.split(".")[1]]
    stem, _, kind = name.replace(".layer.", ".layer_").replace(".", "/").rpartition("/")
    if stem.endswith("LayerNorm"):
        return f"{stem}/" + {"weight": "gamma", "bias": "beta"}[kind]
    if stem.endswith("_embeddings"):
        return stem
    return f"{stem}/" + {"weight": "kernel", "bias": "bias"}[kind]


def google_variables(tensors, hidden):
    """What the graph of Google's training code held: kernels are ``[in, out]``."""
    variables = {}
    for name, values in tensors.items():
        theirs = google_name(name)
        variables[theirs] = values.T if theirs.endswith("kernel") else values
    for name in list(variables):
        for slot in ("adam_m", "adam_v"):
            variables[f"{name}/{slot}"] = np.full_like(variables[name], 7.0)
    square = np.ones((hidden, hidden), np.float32)
    return variables | {
        "bert/pooler/dense/kernel": square,
        "bert/pooler/dense/bias": square[0],
        "cls/predictions/transform/dense/kernel": square,
        "cls/seq_relationship/output_weights": square[:2],
        "global_step": np.int64(1000000),
    }


def write_google(folder, architecture, tensors, checkpoint="bert_model.ckpt"):
    folder.mkdir(parents=True)
    config = architecture.to_hugging_face()
    theirs = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
              "intermediate_size", "hidden_act", "max_position_embeddings", "type_vocab_size",
              "initializer_range")  # fmt: skip
    values = {name: config[name] for name in theirs}
    values |= {"attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1}
    (folder / "bert_config.json").write_text(json.dumps(values))
    write_vocabulary(folder, architecture)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [
            tf.compat.v1.get_variable(name, initializer=values, use_resource=False)
            for name, values in google_variables(tensors, architecture.hidden_size).items()
        ]
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(variables)
        saver.save(session, str(folder / checkpoint), write_state=False)
    return folder


def write_hugging_face(folder, architecture, tensors):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(architecture.to_hugging_face()))
    write_vocabulary(folder, architecture)
    tensors = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_vocabulary(folder, architecture):
    lines = (f"token{number}\n" for number in range(architecture.vocab_size))
    (folder / "vocab.txt").write_text("".join(lines))


def known_weights(architecture, *, head):
    generator = np.random.default_rng(0)
    return {
        name: generator.standard_normal(shape, np.float32)
        for name, shape in shapes(architecture).items()
        if head or name not in HEAD
    }


@pytest.fixture(scope="module", params=SIZES)
def folders(request, tmp_path_factory):
    """The same weights in both layouts."""
    architecture, root = SIZES[request.param], tmp_path_factory.mktemp("models")
    tensors = known_weights(architecture, head=False)
    google = write_google(root / "google" / request.param, architecture, tensors)
    other = write_hugging_face(root / "hugging-face" / request.param, architecture, tensors)
    return google, other


def assert_same(found, expected):
    assert found.architecture == expected.architecture
    assert found.lowercase == expected.lowercase
    assert found.tensors.keys() == expected.tensors.keys()
    for name, values in expected.tensors.items():
        assert found.tensors[name].dtype == values.dtype == np.float32
        assert found.tensors[name].tobytes() == values.tobytes(), name


def test_a_release_folder(folders):
    google, hugging_face = folders
    found = load_pretrained(str(google))
    assert_same(found, load_pretrained(str(hugging_face)))
    assert found.lowercase == ("uncased" in google.name)
    assert len(found.tensors) == 5 + 16 * found.architecture.num_hidden_layers


def test_a_release_zip(folders, tmp_path):
    google, hugging_face = folders
    path = tmp_path / f"{google.name}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(google, f"{google.name}/")
        for file in google.iterdir():
            archive.write(file, f"{google.name}/{file.name}")
    expected = load_pretrained(str(hugging_face))
    assert_same(load_pretrained(str(path), cache=tmp_path / "cache"), expected)
    assert_same(load_pretrained(str(path), cache=tmp_path / "cache"), expected)  # from the cache


def test_fewer_layers(folders):
    google, hugging_face = folders
    found = load_pretrained(str(google), num_hidden_layers=1)
    assert_same(found, load_pretrained(str(hugging_face), num_hidden_layers=1))
    assert len(found.tensors) == 5 + 16


def test_a_checkpoint_that_run_squad_has_fine_tuned(tmp_path):
    architecture = SIZES["uncased_L-2_H-128_A-2"]
    tensors = known_weights(architecture, head=True)
    google = write_google(tmp_path / "google", architecture, tensors, "model.ckpt-21899")
    hugging_face = write_hugging_face(tmp_path / "hugging-face", architecture, tensors)
    assert_same(load_pretrained(str(google)), load_pretrained(str(hugging_face)))


def test_a_damaged_checkpoint_is_named(folders, tmp_path):
    from bertkit.errors import ModelError

    google = shutil.copytree(folders[0], tmp_path / "damaged")
    (data,) = google.glob("*.data-*")
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"bert_model\.ckpt cannot be read"):
        load_pretrained(str(google))
