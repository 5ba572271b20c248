"""The encoder against keras-hub's BERT, a second reference that shares no code with PyTorch's.

keras-hub computes GELU by its tanh approximation whatever the model's configuration says, so
bertkit is told to do so too; exact GELU is compared with PyTorch.
"""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from bertkit.bert.pretrained import load_pretrained
from bertkit.bert.question_answering import QuestionAnswering

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")

# keras-hub's path below transformer_layer_N, and Hugging Face's below encoder.layer.N
LAYER = {
    "self_attention_layer/query": "attention.self.query",
    "self_attention_layer/key": "attention.self.key",
    "self_attention_layer/value": "attention.self.value",
    "self_attention_layer/attention_output": "attention.output.dense",
    "self_attention_layer_norm": "attention.output.LayerNorm",
    "feedforward_intermediate_dense": "intermediate.dense",
    "feedforward_output_dense": "output.dense",
    "feedforward_layer_norm": "output.LayerNorm",
}
EMBEDDINGS = {
    "token_embedding": "word_embeddings",
    "position_embedding": "position_embeddings",
    "segment_embedding": "token_type_embeddings",
    "embeddings_layer_norm": "LayerNorm",
}


def hugging_face_name(path):
    """Hugging Face's name of a keras-hub variable; ``None`` for the pooler's."""
    stem, _, kind = path.rpartition("/")
    ending = "bias" if kind in ("bias", "beta") else "weight"
    if stem.startswith("transformer_layer_"):
        layer, _, part = stem.partition("/")
        return f"bert.encoder.layer.{layer.rsplit('_', 1)[1]}.{LAYER[part]}.{ending}"
    return f"bert.embeddings.{EMBEDDINGS[stem]}.{ending}" if stem in EMBEDDINGS else None


def make_reference(model):
    sizes = model.architecture
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=sizes.vocab_size, num_layers=sizes.num_hidden_layers,
        num_heads=sizes.num_attention_heads, hidden_dim=sizes.hidden_size,
        intermediate_dim=sizes.intermediate_size, dropout=0.0,
        max_sequence_length=sizes.max_position_embeddings, dtype="float32",
    )  # fmt: skip
    weights = dict(zip(model.variable_names, model.variables, strict=True))
    for variable in backbone.weights:
        if name := hugging_face_name(variable.path):
            values = weights.pop(name).numpy()
            values = values.T if variable.path.endswith("/kernel") else values
            variable.assign(values.reshape(variable.shape))
    assert weights.keys() == {"qa_outputs.weight", "qa_outputs.bias"}
    return backbone, weights


@pytest.mark.parametrize("layers", [2, 6])
@pytest.mark.parametrize("lengths", [[80, 80], [96, 17, 71, 3]], ids=["full", "ragged"])
def test_logits(layers, lengths, record_property):
    pretrained = load_pretrained("minilm", num_hidden_layers=layers)
    architecture = dataclasses.replace(pretrained.architecture, hidden_act="gelu_new")
    model = QuestionAnswering(architecture, seed=3, tensors=pretrained.tensors)
    backbone, head = make_reference(model)
    random = np.random.default_rng(layers)
    lengths = np.array(lengths, np.int32)
    read = np.arange(lengths.max()) < lengths[:, None]
    ids = (random.integers(1000, 30000, read.shape) * read).astype(np.int32)
    segments = ((np.arange(lengths.max()) > 12) * read).astype(np.int32)

    hidden = backbone(
        {"token_ids": ids, "segment_ids": segments, "padding_mask": read.astype(np.int32)}
    )["sequence_output"].numpy()
    wanted = hidden @ head["qa_outputs.weight"].numpy().T + head["qa_outputs.bias"].numpy()
    compute = tf.function(lambda *arrays: model.logits(*arrays, precision="float32"))
    found = compute(ids, segments, lengths).numpy()
    difference = np.abs(found - wanted)[read].max()
    record_property("largest logit difference", float(difference))
    assert difference <= 1e-4
