"""Ranks and micro-batches add up to the gradient of the global batch, uneven batches included.

In this process the oracle is one dense gradient tape over one padded pass of the whole batch with
the plain mean of the examples' losses: no ranks, no micro-batches, no weights, no rows. Then real
Horovod ranks in real engines make whole steps: their gradients are read from Adam's first moments
after one step, and their loss curves are compared over 20 steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf

from bertkit.bert.question_answering import QuestionAnswering
from bertkit.cluster import Cluster
from bertkit.config import Config
from bertkit.events import Step
from bertkit.squad.batches import BatchPlan, MicroBatch, assemble
from bertkit.training.checkpoints import load_newest_checkpoint
from bertkit.training.inputs import features, read_inputs
from bertkit.training.optimizers import Hyperparameters, Optimizer
from bertkit.training.step import WORD_EMBEDDINGS, StepInput, TrainingStep, touched_rows
from bertkit.training.world import SingleWorld
from tests import tiny

pytestmark = [
    pytest.mark.usefixtures("cache_of_our_own"),
    pytest.mark.filterwarnings("ignore:the engines want"),  # more ranks than cores
]

LIMIT = 1e-5
LOSS_LIMIT = 1e-3
RANKS = (1, 2, 4)
ZERO_GRADIENTS = ("key.bias", "encoder.layer.1.output.LayerNorm.bias", "qa_outputs.bias")


def relative_differences(found, expected):
    """Norm of each tensor's difference by its norm.

    A softmax does not change when a number is added to all its logits, so the gradients of the
    keys' biases, the last LayerNorm's bias and the head's bias are zero but for rounding: those are
    compared with the norm of all tensors together instead.
    """
    everything = np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in expected.values()))
    return {
        name: np.linalg.norm(found[name].astype(np.float64) - g)
        / (everything if name.endswith(ZERO_GRADIENTS) else np.linalg.norm(g))
        for name, g in expected.items()
    }


# In this process ----------------------------------------------------------------------------------


class OneOfSeveral(SingleWorld):
    """One rank of several; only its number matters here."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size


@dataclass
class Room:
    model: QuestionAnswering
    made: object
    steps: dict


@pytest.fixture(scope="module")
def room(tiny_config):
    inputs = read_inputs(tiny_config)
    model = QuestionAnswering.from_pretrained(inputs.pretrained, seed=1)
    made = features(inputs.train, inputs.tokenizer, tiny_config, training=True)
    optimizer = Optimizer("lamb", model.variables, model.variable_names, Hyperparameters())
    step = TrainingStep(model, optimizer, SingleWorld(), precision="float32", dropout=0.0, seed=1)
    return Room(model, made, step)


def expected_gradients(room, indices):
    """One pass over the whole batch, as anybody would write it."""
    longest = int(room.made.lengths[indices].max())
    arrays = assemble(room.made, MicroBatch(indices, longest), global_batch_examples=1)
    with tf.GradientTape() as tape:
        logits = room.model.logits(
            arrays.input_ids, arrays.segment_ids, arrays.lengths, precision="float32"
        )
        likelihoods = tf.nn.log_softmax(logits, axis=1)
        rows = tf.range(len(indices))
        chosen = [
            tf.gather_nd(likelihoods[..., k], tf.stack([rows, positions], 1))
            for k, positions in enumerate((arrays.start_positions, arrays.end_positions))
        ]
        loss = -tf.reduce_mean(tf.add_n(chosen)) / 2
    gradients = map(tf.convert_to_tensor, tape.gradient(loss, room.model.variables))
    named = zip(room.model.variable_names, (g.numpy() for g in gradients), strict=True)
    return float(loss), dict(named)


def summed_gradients(room, plan, number):
    """What every rank computes for its share, added up in float64."""
    indices = plan.examples(number)
    bounds = room.made.offsets
    rows = touched_rows(
        [np.zeros(1, np.int32), *(room.made.input_ids[bounds[i] : bounds[i + 1]] for i in indices)]
    )
    loss, total, passes = 0.0, None, []
    for rank in range(plan.ranks):
        room.steps.world = OneOfSeveral(rank, plan.ranks)
        share = plan.micro_batches(number, rank)
        arrays = [assemble(room.made, m, global_batch_examples=len(indices)) for m in share]
        value, gradients = room.steps.gradients(StepInput(arrays, rows, len(indices), 0.0), 1)
        gradients = [g.numpy().astype(np.float64) for g in gradients]
        loss += float(value)
        total = gradients if total is None else [a + b for a, b in zip(total, gradients)]  # noqa: B905
        passes.append(len(share))
    named = dict(zip(room.model.variable_names, total, strict=True))
    table = np.zeros(room.model.variables[0].shape)
    np.add.at(table, rows, named[WORD_EMBEDDINGS])
    return loss, {**named, WORD_EMBEDDINGS: table}, passes


@pytest.mark.parametrize("examples", [35, 39], ids=["3 in the last batch", "7 in the last batch"])
@pytest.mark.parametrize("tokens", [96, 384, 65536])
@pytest.mark.parametrize("ranks", RANKS)
def test_ranks_and_accumulation_add_up(room, ranks, tokens, examples, record_property):
    plan = BatchPlan(
        room.made.lengths[:examples],
        batch_size=16, ranks=ranks, micro_batch_tokens=tokens, seed=4, max_seq_length=96,
    )  # fmt: skip
    assert plan.steps_per_epoch == 3
    for number, size in ((0, 16), (2, examples - 32)):
        indices = plan.examples(number)
        assert len(indices) == size
        expected_loss, expected = expected_gradients(room, indices)
        loss, found, passes = summed_gradients(room, plan, number)
        assert len(set(passes)) == 1
        assert passes[0] > 1 or tokens > 96 or size <= ranks
        differences = relative_differences(found, expected)
        worst = max(differences, key=differences.get)
        record_property(f"largest relative difference, {size} examples", differences[worst])
        assert differences[worst] <= LIMIT, worst
        assert loss == pytest.approx(expected_loss, rel=LIMIT)


def test_a_wrong_share_would_be_noticed(room):
    """The comparison is sharp: one example's weight off by a thousandth fails it."""
    plan = BatchPlan(
        room.made.lengths[:16], batch_size=16, ranks=1, micro_batch_tokens=65536, seed=4
    )
    _, expected = expected_gradients(room, plan.examples(0))
    (whole,) = plan.micro_batches(0, 0)
    arrays = assemble(room.made, whole, global_batch_examples=16)
    arrays.weights[0] *= 1.001
    rows = touched_rows([arrays.input_ids])
    _, gradients = room.steps.gradients(StepInput([arrays], rows, 16, 0.0), 1)
    found = dict(zip(room.model.variable_names, (g.numpy() for g in gradients), strict=True))
    del found[WORD_EMBEDDINGS], expected[WORD_EMBEDDINGS]
    assert max(relative_differences(found, expected).values()) > LIMIT


# On real ranks ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tiny_model, tmp_path_factory):
    """On each number of ranks, a run of 20 steps and a run of a single step on 7 examples.

    Of each three steps of the first, the last has 3 examples only.
    """
    folder = tmp_path_factory.mktemp("runs")
    configs = {}
    for examples, changes in {35: {"num_epochs": 7, "step_threshold": 20}, 7: {}}.items():
        data = tiny.write_questions(folder / f"squad-{examples}", train=examples, dev=4)
        values = {**tiny.settings(tiny_model, data), "optimizer": "lamb", "evaluate_every": 0}
        values |= {"num_epochs": 1, "clip_norm": 0.0, "target_f1": 100.1, "output": str(folder)}
        configs[examples] = Config(**{**values, **changes})
    found = {}
    for ranks in RANKS:
        with Cluster(n=ranks, cores_per_engine=1) as cluster:
            for examples, config in configs.items():
                run = cluster.train(config, name=f"{examples}-examples-on-{ranks}")
                assert run.wait(timeout=300).ranks == ranks
                found[ranks, examples] = run
    return found


def losses(run):
    return np.array([event.loss for event in run.history() if isinstance(event, Step)])


def gradients_of_the_only_step(run):
    """Adam's first moments are (1 - beta_1) times the gradient after one step without clipping."""
    position, arrays = load_newest_checkpoint(run.folder)
    assert position.global_step == 1
    moments = {n.removeprefix("first/"): a for n, a in arrays.items() if n.startswith("first/")}
    return {name: moment / (1 - run.config.beta_1) for name, moment in moments.items()}


@pytest.mark.parametrize("ranks", RANKS[1:])
def test_real_ranks_make_the_same_gradient(runs, ranks, record_property):
    """7 examples over 2 or 4 ranks: the last rank's share is smaller than the others'."""
    expected = gradients_of_the_only_step(runs[1, 7])
    differences = relative_differences(gradients_of_the_only_step(runs[ranks, 7]), expected)
    worst = max(differences, key=differences.get)
    record_property("largest relative difference", differences[worst])
    assert differences[worst] <= LIMIT, worst
    assert losses(runs[ranks, 7]) == pytest.approx(losses(runs[1, 7]), rel=LIMIT)


@pytest.mark.parametrize("ranks", RANKS[1:])
def test_real_ranks_have_the_same_loss_curve(runs, ranks, record_property):
    """Batches of 16 on one rank, of 8 on each of two, of 4 on each of four."""
    expected = losses(runs[1, 35])
    found = losses(runs[ranks, 35])
    assert len(expected) == len(found) == 20
    difference = float(np.max(np.abs(found - expected)))
    record_property("largest difference of a loss", difference)
    assert difference <= LOSS_LIMIT
    assert expected[-1] < expected[0] - 0.05  # the curve goes somewhere
