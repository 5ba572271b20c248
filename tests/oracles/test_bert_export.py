"""What bertkit saves, transformers' PyTorch BERT loads and computes alike."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bertkit.bert.pretrained import load_pretrained
from bertkit.bert.question_answering import QuestionAnswering
from bertkit.bert.saving import save_pretrained

torch = pytest.importorskip("torch", reason="PyTorch is not installed; see tests/README.md")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.mark.parametrize("layers", [2, 6])
def test_transformers_loads_what_was_saved(layers, tmp_path):
    pretrained = load_pretrained("minilm", num_hidden_layers=layers)
    model = QuestionAnswering.from_pretrained(pretrained, seed=layers)
    save_pretrained(
        tmp_path, model, vocab_file=pretrained.vocab_file, lowercase=pretrained.lowercase
    )
    reference = transformers.BertForQuestionAnswering.from_pretrained(tmp_path).eval()
    again = QuestionAnswering.from_pretrained(load_pretrained(str(tmp_path)))

    random = np.random.default_rng(layers)
    ids = random.integers(1000, 30000, (4, 96)).astype(np.int32)
    segments = np.repeat(np.arange(96)[None] > 12, 4, axis=0).astype(np.int32)
    lengths = np.array([96, 80, 50, 33], np.int32)
    read = np.arange(96)[None] < lengths[:, None]
    with torch.no_grad():
        expected = reference(
            input_ids=torch.tensor(ids, dtype=torch.long),
            token_type_ids=torch.tensor(segments, dtype=torch.long),
            attention_mask=torch.tensor(read, dtype=torch.long),
        )
    wanted = np.stack([expected.start_logits.numpy(), expected.end_logits.numpy()], -1)
    compute = tf.function(lambda *arrays: again.logits(*arrays, precision="float32"))
    found = compute(ids, segments, lengths).numpy()
    assert np.abs(wanted - found)[read].max() <= 1e-4
