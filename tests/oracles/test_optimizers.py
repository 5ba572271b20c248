"""LAMB, AdamW, clipping and the schedule against other people's arithmetic, in float64.

The first oracle is a transcription of the papers into NumPy, written from their algorithms and
not from bertkit's code. The second ones are `optax.lamb`, `optax.clip_by_global_norm`,
`torch.optim.AdamW` and `transformers.get_linear_schedule_with_warmup`. Where one of them does not
do what the paper says, the test that compares with it names the difference:

* ``optax.lamb`` has no upper limit on the weight norm (the paper's phi; ``trust_clip`` here), and
  its mask takes tensors out of weight decay only, so that biases and LayerNorm keep a trust ratio.
* ``torch.nn.utils.clip_grad_norm_`` divides by the norm plus 1e-6.
* ``transformers``' schedule starts at a rate of zero and counts steps from 0.

The paper leaves open what the trust ratio is where a norm is zero; its authors' code takes 1.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bertkit.training.optimizers import Hyperparameters, Optimizer, clip_scale
from bertkit.training.schedule import Schedule

# A folder of its own: TensorFlow imports jax wherever it finds it, and every engine would wait.
sys.path.append(str(Path(__file__).parents[2] / ".oracles" / "optax"))

STEPS = 50
LIMIT = 1e-6

WEIGHTS = {  # name: shape, standard deviation
    "bert.embeddings.word_embeddings.weight": ((40, 8), 0.02),
    "bert.embeddings.LayerNorm.weight": ((8,), 1.0),
    "bert.embeddings.LayerNorm.bias": ((8,), 0.0),
    "bert.encoder.layer.0.attention.self.query.weight": ((8, 8), 0.02),
    "bert.encoder.layer.0.attention.self.query.bias": ((8,), 0.02),
    "bert.encoder.layer.0.attention.output.LayerNorm.bias": ((8,), 0.1),
    "bert.encoder.layer.0.intermediate.dense.weight": ((32, 8), 2.0),  # norm above trust_clip
    "zero weights, some gradient.weight": ((6, 5), 0.0),
    "zero weights, no gradient.weight": ((6, 5), 0.0),
    "some weights, no gradient.weight": ((6, 5), 0.5),
    "gradient from step 20 on.weight": ((6, 5), 0.5),
    "qa_outputs.weight": ((2, 8), 0.02),
    "qa_outputs.bias": ((2,), 0.0),
    "one number.weight": ((1,), 0.3),
}


# The papers, transcribed --------------------------------------------------------------------------


def lamb_of_the_paper(x, m, v, g, t, *, eta, beta_1, beta_2, epsilon, decay, phi):
    """One tensor through algorithm 2 of You et al., arXiv 1904.00962; ``t`` counts from 1."""
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g**2
    m_hat = m / (1 - beta_1**t)
    v_hat = v / (1 - beta_2**t)
    r = m_hat / (np.sqrt(v_hat) + epsilon)
    step = r + decay * x
    if phi is None:
        return x - eta * r, m, v  # a tensor that is left out: neither decay nor trust ratio
    x_norm, step_norm = phi(np.linalg.norm(x)), np.linalg.norm(step)
    ratio = x_norm / step_norm if x_norm > 0 and step_norm > 0 else 1.0
    return x - eta * ratio * step, m, v


def adamw_of_the_paper(x, m, v, g, t, *, eta, beta_1, beta_2, epsilon, decay):
    """One tensor through algorithm 2 of Loshchilov and Hutter, arXiv 1711.05101.

    Its schedule multiplier times its alpha is the learning rate ``eta`` here, and its decay
    ``lambda`` is multiplied by that rate, as in every implementation in use.
    """
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g**2
    m_hat = m / (1 - beta_1**t)
    v_hat = v / (1 - beta_2**t)
    return x - eta * (m_hat / (np.sqrt(v_hat) + epsilon) + decay * x), m, v


def clipped(gradients, largest):
    """Gradients of a global norm of at most ``largest`` (Pascanu et al., arXiv 1211.5063)."""
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
    if largest and norm > largest:
        return [g * (largest / norm) for g in gradients]
    return gradients


def rates(peak, total, warmup):
    """Learning rates of all steps: up from ``peak / warmup`` to ``peak``, then down to above 0."""
    up = [peak * n / warmup for n in range(1, warmup + 1)]
    down = [peak * left / (total - warmup + 1) for left in range(total - warmup, 0, -1)]
    return up + down


# Cases --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    name: str
    numbers: Hyperparameters
    seed: int = 0
    gradient_size: float = 0.1
    peak: float = 1e-2


NUMBERS = Hyperparameters()
CASES = [
    Case("defaults", NUMBERS),
    Case("other seed", NUMBERS, seed=1),
    Case("clipping at every step", NUMBERS, seed=2, gradient_size=10.0),
    Case("clipping at some steps", replace(NUMBERS, clip_norm=2.3), seed=3),
    Case("no clipping", replace(NUMBERS, clip_norm=0.0), seed=4, gradient_size=3.0),
    Case("no decay", replace(NUMBERS, weight_decay=0.0), seed=5),
    Case("much decay", replace(NUMBERS, weight_decay=0.5), seed=6),
    Case("no trust clip", replace(NUMBERS, trust_clip=0.0), seed=7),
    Case("small trust clip", replace(NUMBERS, trust_clip=0.05), seed=8),
    Case("other betas", replace(NUMBERS, beta_1=0.8, beta_2=0.95), seed=9),
    Case("no momentum", replace(NUMBERS, beta_1=0.0, beta_2=0.0), seed=10),
    Case("large epsilon", replace(NUMBERS, epsilon=1e-2), seed=11),
    Case("tiny gradients", NUMBERS, seed=12, gradient_size=1e-6),
    Case("small rate", NUMBERS, seed=13, peak=1e-5),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def starting_weights(case):
    random = np.random.default_rng([case.seed, 1])
    return [
        (random.standard_normal(shape) * deviation).astype(np.float32)
        for shape, deviation in WEIGHTS.values()
    ]


def gradients_of_steps(case):
    """Float32 gradients of every step; most rows of the word embeddings have none."""
    random = np.random.default_rng([case.seed, 2])
    for step in range(1, STEPS + 1):
        gradients = []
        for name, (shape, _) in WEIGHTS.items():
            g = random.standard_normal(shape) * case.gradient_size * random.uniform(0.1, 2)
            if "no gradient" in name or ("from step 20" in name and step < 20):
                g = np.zeros(shape)
            if "word_embeddings" in name:
                g[random.permutation(len(g))[5:]] = 0
            gradients.append(g.astype(np.float32))
        yield gradients


@cache
def bertkit_weights(kind, case):
    """Weights after each step."""
    steps = []
    variables = [tf.Variable(value) for value in starting_weights(case)]
    optimizer = Optimizer(kind, variables, list(WEIGHTS), case.numbers)
    schedule = Schedule(peak=case.peak, total_steps=STEPS, warmup_rate=0.1)
    for step, gradients in enumerate(gradients_of_steps(case), 1):
        optimizer.update(gradients, learning_rate=schedule.learning_rate(step), step=step)
        steps.append([variable.numpy() for variable in variables])
    return steps


def paper_weights(kind, case):
    numbers = case.numbers
    state = [(x.astype(np.float64), 0.0, 0.0) for x in starting_weights(case)]
    etas = rates(case.peak, STEPS, warmup=5)
    for t, gradients in enumerate(gradients_of_steps(case), 1):
        gradients = clipped([g.astype(np.float64) for g in gradients], numbers.clip_norm)
        common = {
            "eta": etas[t - 1], "beta_1": numbers.beta_1, "beta_2": numbers.beta_2,
            "epsilon": numbers.epsilon,
        }  # fmt: skip
        moved = []
        for name, (x, m, v), g in zip(WEIGHTS, state, gradients, strict=True):
            left_out = name.endswith(".bias") or ".LayerNorm." in name
            if kind == "lamb":
                phi = None if left_out else _phi(numbers.trust_clip)
                decay = numbers.weight_decay
                moved.append(lamb_of_the_paper(x, m, v, g, t, **common, decay=decay, phi=phi))
            else:
                decay = 0.0 if left_out else numbers.weight_decay
                moved.append(adamw_of_the_paper(x, m, v, g, t, **common, decay=decay))
        state = moved
        yield [x for x, _, _ in state]


def _phi(gamma_u):
    return (lambda z: min(z, gamma_u)) if gamma_u else (lambda z: z)


def largest_difference(found, expected):
    """Largest difference of any tensor at any step, relative to the tensor's largest norm so far.

    Not to its norm of that step alone: a bias that passes through zero has none there.
    """
    largest, sizes = 0.0, np.zeros(len(WEIGHTS))
    for a_step, b_step in zip(found, expected, strict=True):
        errors = [np.linalg.norm(a.astype(np.float64) - b) for a, b in zip(a_step, b_step)]  # noqa: B905
        norms = [np.linalg.norm(b) for b in b_step]
        sizes = np.maximum(sizes[: len(norms)], norms)
        largest = max(largest, *(e / size if size else e for e, size in zip(errors, sizes)))  # noqa: B905
    return float(largest)


# Comparisons --------------------------------------------------------------------------------------


@each_case
@pytest.mark.parametrize("kind", ["lamb", "adamw"])
def test_the_paper(kind, case, record_property):
    difference = largest_difference(bertkit_weights(kind, case), paper_weights(kind, case))
    record_property("largest relative difference", difference)
    assert difference <= LIMIT


def test_the_cases_hold_what_they_promise():
    """Every branch of the arithmetic is really met by some case."""
    norms = {name: np.linalg.norm(x) for name, x in zip(WEIGHTS, starting_weights(CASES[0]))}  # noqa: B905
    assert norms["bert.encoder.layer.0.intermediate.dense.weight"] > NUMBERS.trust_clip
    assert norms["zero weights, some gradient.weight"] == 0
    some = next(case for case in CASES if case.name == "clipping at some steps")
    sizes = [
        np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in gradients))
        for gradients in gradients_of_steps(some)
    ]
    clipped_steps = sum(size > some.numbers.clip_norm for size in sizes)
    assert 10 < clipped_steps < 40


@pytest.fixture(scope="module")
def move_by_optax():
    """One step of `optax.lamb` as a compiled function, with every number an argument.

    optax's mask takes tensors out of decay only; the paper's experiments, and bertkit, take them
    out of the trust ratio too. So LayerNorm and biases are updated by ``optax.adam`` here.
    """
    optax = pytest.importorskip("optax")
    jax = pytest.importorskip("jax")
    left_out = [name for name in WEIGHTS if name.endswith(".bias") or ".LayerNorm." in name]
    kinds = {name: "adam" if name in left_out else "lamb" for name in WEIGHTS}

    @jax.jit
    def move(weights, state, gradients, eta, numbers):
        adam = {name: numbers[name] for name in ("b1", "b2", "eps")}
        transforms = {
            "lamb": optax.lamb(eta, **adam, weight_decay=numbers["weight_decay"]),
            "adam": optax.adam(eta, **adam),
        }
        clip = optax.clip_by_global_norm(numbers["clip_norm"])
        transform = optax.chain(clip, optax.multi_transform(transforms, kinds))
        state = transform.init(weights) if state is None else state
        updates, state = transform.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state

    with jax.enable_x64(True):
        yield move


@pytest.mark.parametrize("case", CASES[::2], ids=lambda case: case.name)
def test_optax_lamb(case, move_by_optax, record_property):
    """`optax.lamb` agrees with the paper where nothing limits the weight norm."""
    case = replace(case, numbers=replace(case.numbers, trust_clip=0.0))
    numbers = {
        "b1": case.numbers.beta_1, "b2": case.numbers.beta_2, "eps": case.numbers.epsilon,
        "weight_decay": case.numbers.weight_decay, "clip_norm": case.numbers.clip_norm or np.inf,
    }  # fmt: skip
    weights = _named_float64(starting_weights(case))
    state, expected = None, []
    etas = rates(case.peak, STEPS, warmup=5)
    for eta, gradients in zip(etas, gradients_of_steps(case), strict=True):
        weights, state = move_by_optax(weights, state, _named_float64(gradients), eta, numbers)
        expected.append([np.asarray(weights[name]) for name in WEIGHTS])
    assert expected[0][0].dtype == np.float64
    difference = largest_difference(bertkit_weights("lamb", case), expected)
    record_property("largest relative difference", difference)
    assert difference <= LIMIT


def _named_float64(arrays):
    return {name: a.astype(np.float64) for name, a in zip(WEIGHTS, arrays, strict=True)}


def test_optax_lamb_has_no_limit_on_the_weight_norm():
    """The named difference: with a tensor beyond ``trust_clip`` optax makes a larger step."""
    optax = pytest.importorskip("optax")
    jax = pytest.importorskip("jax")
    weight, gradient = np.full((4, 4), 10.0, np.float32), np.eye(4, dtype=np.float32)
    transform = optax.lamb(0.1, weight_decay=0.0)
    update, _ = transform.update(gradient, transform.init(weight), jax.numpy.array(weight))
    steps = {}
    for limit in (0.0, 10.0):
        variable = tf.Variable(weight)
        numbers = Hyperparameters(trust_clip=limit, clip_norm=0.0, weight_decay=0.0)
        Optimizer("lamb", [variable], ["a.weight"], numbers).update(
            [gradient], learning_rate=0.1, step=1
        )
        steps[limit] = float(np.linalg.norm(variable.numpy() - weight))
    assert steps[0.0] == pytest.approx(float(np.linalg.norm(update)), rel=1e-4)
    assert steps[0.0] == pytest.approx(0.1 * 40, rel=1e-4)  # the norm of the weight
    assert steps[10.0] == pytest.approx(0.1 * 10, rel=1e-4)  # the limit


@each_case
def test_torch_adamw(case, record_property):
    torch = pytest.importorskip("torch")
    numbers = case.numbers
    weights = [
        torch.nn.Parameter(torch.tensor(x, dtype=torch.float64)) for x in starting_weights(case)
    ]
    left_out = [name.endswith(".bias") or ".LayerNorm." in name for name in WEIGHTS]
    groups = [
        {
            "params": [w for w, out in zip(weights, left_out, strict=True) if out == plain],
            "weight_decay": 0.0 if plain else numbers.weight_decay,
        }
        for plain in (True, False)
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=1.0, betas=(numbers.beta_1, numbers.beta_2), eps=numbers.epsilon
    )
    expected = []
    etas = rates(case.peak, STEPS, warmup=5)
    for eta, gradients in zip(etas, gradients_of_steps(case), strict=True):
        gradients = clipped([g.astype(np.float64) for g in gradients], numbers.clip_norm)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = torch.tensor(gradient)
        for group in optimizer.param_groups:
            group["lr"] = eta
        optimizer.step()
        expected.append([w.detach().numpy().copy() for w in weights])
    difference = largest_difference(bertkit_weights("adamw", case), expected)
    record_property("largest relative difference", difference)
    assert difference <= LIMIT


# Clipping -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("largest", [0.0, 0.1, 1.0, 100.0])
@pytest.mark.parametrize("size", [0.0, 1e-8, 0.05, 1.0, 1e4])
def test_clipping(size, largest, record_property):
    """The formula, and `optax.clip_by_global_norm`, which divides in another order."""
    optax = pytest.importorskip("optax")
    random = np.random.default_rng(7)
    gradients = [
        (random.standard_normal(shape) * size).astype(np.float32)
        for shape in ((64, 32), (32,), (1,), (3, 5, 7))
    ]
    norm = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in gradients))
    scale = float(clip_scale(tf.constant(norm, tf.float32), largest))
    found = [g * scale for g in gradients]
    others = [clipped([g.astype(np.float64) for g in gradients], largest)]
    if largest:
        transform = optax.clip_by_global_norm(largest)
        others.append(transform.update(gradients, transform.init(gradients))[0])
    differences = [
        largest_difference([found], [[np.asarray(g) for g in other]]) for other in others
    ]
    record_property("largest relative difference", max(differences))
    assert max(differences) <= LIMIT


@pytest.mark.parametrize("kind", ["lamb", "adamw"])
def test_the_norm_that_an_update_reports_is_the_one_before_clipping(kind):
    case = CASES[2]
    variables = [tf.Variable(value) for value in starting_weights(case)]
    optimizer = Optimizer(kind, variables, list(WEIGHTS), case.numbers)
    for step, gradients in enumerate(gradients_of_steps(case), 1):
        norm = float(optimizer.update(gradients, learning_rate=1e-3, step=step))
        exact = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in gradients))
        assert norm == pytest.approx(exact, rel=LIMIT)


def test_torch_divides_by_a_little_more_than_the_norm():
    """The named difference: torch's factor is smaller by 1e-6 / norm."""
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    weight.grad = torch.tensor([0.3, -0.4, 0.0], dtype=torch.float64)
    torch.nn.utils.clip_grad_norm_([weight], 0.1)
    exact = 0.1 / 0.5
    assert weight.grad[0].item() / 0.3 == pytest.approx(exact * 0.5 / (0.5 + 1e-6), rel=1e-9)
    assert float(clip_scale(tf.constant(0.5), 0.1)) == pytest.approx(exact, rel=1e-7)


# Schedule -----------------------------------------------------------------------------------------

SCHEDULES = [
    (total, rate) for total in (1, 2, 3, 10, 50, 365, 16_500) for rate in (0.0, 0.06, 0.1, 0.5, 1.0)
]


@pytest.mark.parametrize(("total", "warmup_rate"), SCHEDULES)
def test_schedule_against_its_formula(total, warmup_rate):
    schedule = Schedule(peak=3e-4, total_steps=total, warmup_rate=warmup_rate)
    found = [schedule.learning_rate(step) for step in range(1, total + 1)]
    np.testing.assert_allclose(found, rates(3e-4, total, schedule.warmup_steps), rtol=1e-14)


@pytest.mark.parametrize(("total", "warmup_rate"), SCHEDULES)
def test_schedule_against_transformers(total, warmup_rate, record_property):
    """Equal to `get_linear_schedule_with_warmup` at its step ``n`` with one more step in total.

    The named difference: as transformers uses it, step ``n`` takes the rate at ``n - 1`` of a
    schedule that ends at ``total``. Its first step then has a rate of zero and does nothing.
    """
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    schedule = Schedule(peak=3e-4, total_steps=total, warmup_rate=warmup_rate)

    def rate_of_transformers(step, total):
        weight = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([weight], lr=3e-4)
        made = transformers.get_linear_schedule_with_warmup(optimizer, schedule.warmup_steps, total)
        return 3e-4 * made.lr_lambdas[0](step)

    steps = sorted({*range(1, min(total, 20) + 1), schedule.warmup_steps or 1, total, total + 1})
    found = np.array([schedule.learning_rate(step) for step in steps])
    expected = np.array([rate_of_transformers(step, total + 1) for step in steps])
    difference = float(np.max(np.abs(found - expected))) / 3e-4
    record_property("largest relative difference", difference)
    assert difference <= 1e-14

    as_used = rate_of_transformers(0, total)
    assert as_used == (0.0 if schedule.warmup_steps else 3e-4)
    assert 0 < schedule.learning_rate(1) <= 3e-4
