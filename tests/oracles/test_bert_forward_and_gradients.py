"""Logits, losses and gradients against transformers' PyTorch BERT on the same weights.

Three sizes: 2 layers 128 wide, the packaged model with its real weights, and BERT-base (with few
words, which makes it small and changes nothing else). Each with batches without padding and with
ragged lengths. PyTorch's logits in the padding are masked before its loss, as bertkit's are.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from bertkit.bert.architecture import Architecture
from bertkit.bert.pretrained import load_pretrained
from bertkit.bert.question_answering import QuestionAnswering, loss
from bertkit.training.precision import resolve_precision

torch = pytest.importorskip("torch", reason="PyTorch is not installed; see tests/README.md")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

TINY = Architecture(
    vocab_size=3000, hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=512,
)  # fmt: skip
BASE = Architecture(vocab_size=3000)
# Without instructions for bfloat16 TensorFlow emulates it, and rounds partial sums too. There,
# `precision: auto` is float32.
EMULATED = resolve_precision("auto") == "float32"
TIMES_PYTORCHS = 2.5 if EMULATED else 1.25
# Gradients that are zero but for rounding: adding one number to all scores of a softmax, be it to
# a key, a logit or through the last LayerNorm, changes nothing.
ZERO = ("self.key.bias", "qa_outputs.bias")


@dataclasses.dataclass(frozen=True)
class Case:
    """One model in both libraries, and two batches."""

    model: QuestionAnswering
    reference: object
    full: dict
    ragged: dict


def make_model(name):
    if name == "minilm":
        return QuestionAnswering.from_pretrained(load_pretrained("minilm"), seed=1)
    model = QuestionAnswering({"tiny": TINY, "base": BASE}[name], seed=1)
    generator = np.random.default_rng(0)
    for variable in model.variables:
        if variable.shape.rank == 1:  # no error shall hide behind a zero or a one
            variable.assign_add(generator.normal(0, 0.1, variable.shape))
    return model


def make_reference(model, **options):
    config = transformers.BertConfig(**model.architecture.to_hugging_face(), **options)
    reference = transformers.BertForQuestionAnswering(config).eval()
    weights = {
        name: torch.tensor(variable.numpy())
        for name, variable in zip(model.variable_names, model.variables, strict=True)
    }
    reference.load_state_dict(weights, strict=True)
    return reference


def make_batch(vocab_size, lengths, length):
    generator = np.random.default_rng(len(lengths))
    lengths = np.array(lengths, np.int32)
    read = np.arange(length) < lengths[:, None]
    batch = {
        "ids": generator.integers(1, vocab_size, read.shape) * read,
        "segments": (np.arange(length) > 11) * read,
        "lengths": lengths,
        "starts": generator.integers(0, lengths),
        "ends": generator.integers(0, lengths),
    }
    batch = {name: array.astype(np.int32) for name, array in batch.items()}
    return batch | {"read": read}


@pytest.fixture(scope="module", params=["tiny", "minilm", "base"])
def case(request):
    torch.set_num_threads(2)
    model = make_model(request.param)
    words = model.architecture.vocab_size
    return Case(
        model, make_reference(model),
        full=make_batch(words, [64, 64], 64), ragged=make_batch(words, [96, 17, 71, 3], 96),
    )  # fmt: skip


def compute(model, batch, precision):
    """Logits, loss and gradients by name."""

    @tf.function
    def both(ids, segments, lengths):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(model.variables)
            logits = model.logits(ids, segments, lengths, precision=precision)
            weights = tf.fill([len(batch["ids"])], 1.0 / len(batch["ids"]))
            value = loss(logits, batch["starts"], batch["ends"], weights)
        return logits, value, tape.gradient(value, model.variables)

    logits, value, gradients = both(batch["ids"], batch["segments"], batch["lengths"])
    arrays = [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]
    return logits.numpy(), float(value), dict(zip(model.variable_names, arrays, strict=True))


def compute_reference(reference, batch):
    """The same by PyTorch."""
    read = torch.tensor(batch["read"])
    reference.zero_grad()
    output = reference(
        input_ids=torch.tensor(batch["ids"]).long(),
        token_type_ids=torch.tensor(batch["segments"]).long(),
        attention_mask=read.long(),
    )
    scores = [output.start_logits.float(), output.end_logits.float()]
    scores = [score.masked_fill(~read, -1e9) for score in scores]
    positions = [torch.tensor(batch[name]).long() for name in ("starts", "ends")]
    losses = [
        torch.nn.functional.cross_entropy(s, p) for s, p in zip(scores, positions, strict=True)
    ]
    value = (losses[0] + losses[1]) / 2
    value.backward()
    gradients = {name: p.grad.float().numpy() for name, p in reference.named_parameters()}
    return torch.stack(scores, -1).detach().numpy(), float(value), gradients


@pytest.mark.parametrize("lengths", ["full", "ragged"])
def test_float32_is_pytorchs(case, lengths, record_property):
    batch = getattr(case, lengths)
    logits, value, gradients = compute(case.model, batch, "float32")
    wanted_logits, wanted_value, wanted = compute_reference(case.reference, batch)

    difference = np.abs(logits - wanted_logits)[batch["read"]].max()
    record_property("largest logit difference", float(difference))
    assert difference <= 1e-4
    assert np.all(logits[~batch["read"]] == -1e9)
    assert value == pytest.approx(wanted_value, rel=1e-5)

    whole = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in wanted.values()))
    last = f"layer.{case.model.architecture.num_hidden_layers - 1}.output.LayerNorm.bias"
    errors = {}
    for name, gradient in wanted.items():
        norm = np.linalg.norm(gradient)
        if name.endswith((*ZERO, last)):
            assert norm < 1e-5 * whole
            norm = whole
        errors[name] = np.linalg.norm(gradients[name] - gradient) / norm
    assert errors.keys() == gradients.keys()
    record_property("largest relative gradient error", float(max(errors.values())))
    assert max(errors.values()) <= 1e-4, max(errors.items(), key=lambda item: item[1])


@pytest.mark.parametrize("lengths", ["full", "ragged"])
def test_bfloat16_errs_no_more_than_pytorchs(case, lengths, record_property):
    """Errors are against float32, of ours and of PyTorch's autocast to bfloat16."""
    if EMULATED and case.model.architecture == BASE:
        pytest.skip("without instructions for bfloat16 this takes two cores some minutes")
    batch = getattr(case, lengths)
    exact, _, exact_gradients = compute_reference(case.reference, batch)
    logits, _, gradients = compute(case.model, batch, "bfloat16")
    with torch.autocast("cpu", torch.bfloat16):
        peer, _, peer_gradients = compute_reference(case.reference, batch)

    read = batch["read"]
    errors = [np.sqrt(np.mean(np.square(x - exact)[read])) for x in (logits, peer)]
    record_property("root mean square logit errors, ours and PyTorch's", [*map(float, errors)])
    assert errors[0] <= TIMES_PYTORCHS * errors[1]
    gradient_errors = [total_error(x, exact_gradients) for x in (gradients, peer_gradients)]
    record_property("relative gradient errors, ours and PyTorch's", gradient_errors)
    assert gradient_errors[0] <= TIMES_PYTORCHS * gradient_errors[1]


def total_error(found, expected):
    wrong = sum(np.sum(np.square(found[name] - array)) for name, array in expected.items())
    whole = sum(np.sum(np.square(array)) for array in expected.values())
    return float(np.sqrt(wrong / whole))
