"""However many ranks share the validation, the F1 is the same and training stops at the same step.

The oracle of a sharded score is `bertkit.squad.scoring.score` over all predictions of one process,
which the tests of scoring compare with the official rules. The oracle of the stop is a run on one
rank: the same run on 2 and on 3 real Horovod ranks must validate alike and stop alike.
"""

from __future__ import annotations

import numpy as np
import pytest

from bertkit.bert.pretrained import load_pretrained
from bertkit.bert.question_answering import QuestionAnswering
from bertkit.cluster import Cluster
from bertkit.events import Evaluation, Stopped
from bertkit.squad import scoring
from bertkit.squad.reading import read_squad
from bertkit.squad.tokenization import load_tokenizer
from bertkit.training.validation import Forward, Validation
from bertkit.training.world import SingleWorld
from tests import tiny

pytestmark = [
    pytest.mark.usefixtures("cache_of_our_own"),
    pytest.mark.filterwarnings("ignore:the engines want"),  # more ranks than cores
]

LIMIT = 1e-9
RANKS = (1, 2, 3)
TARGET = 60.0


class InTurn(SingleWorld):
    """One of several ranks that come one after another; the last one sees the sums of all."""

    def __init__(self, rank, size, so_far):
        self.rank, self.size, self.so_far = rank, size, so_far

    def sum(self, values):
        self.so_far += values
        return np.array(self.so_far)


@pytest.fixture(scope="module")
def runs(tiny_config, tmp_path_factory):
    """The same run on 1, 2 and 3 ranks: half of the 40 dev questions decide, every 10 steps."""
    config = tiny_config.replace(
        output=str(tmp_path_factory.mktemp("runs")),
        target_f1=TARGET, evaluate_every=10, evaluate_fraction=0.5,
    )  # fmt: skip
    found = {}
    for ranks in RANKS:
        with Cluster(n=ranks, cores_per_engine=1) as cluster:
            found[ranks] = cluster.train(config, name=f"on-{ranks}")
            assert found[ranks].wait(timeout=300).ranks == ranks
    return found


def evaluations(run):
    return [event for event in run.history() if isinstance(event, Evaluation)]


def test_the_run_on_one_rank_stops_as_soon_as_the_target_is_reached(runs):
    scores = [event.f1 for event in evaluations(runs[1])]
    steps = [event.global_step for event in evaluations(runs[1])]
    assert len(scores) > 2
    assert all(f1 < TARGET for f1 in scores[:-1])
    assert scores[-1] >= TARGET
    assert steps == [10 * n for n in range(1, len(steps) + 1)]
    assert all(event.questions == 20 for event in evaluations(runs[1]))
    result = runs[1].result
    assert (result.global_step, result.best_step) == (steps[-1], steps[-1])
    assert result.stopped_by == "target_f1"
    assert result.total == 40


@pytest.mark.parametrize("ranks", RANKS[1:])
def test_more_ranks_score_alike_and_stop_alike(runs, ranks, record_property):
    expected, found = evaluations(runs[1]), evaluations(runs[ranks])
    assert [e.global_step for e in found] == [e.global_step for e in expected]
    differences = [
        abs(getattr(a, name) - getattr(b, name))
        for a, b in zip(found, expected, strict=True)
        for name in ("f1", "exact_match")
    ]
    record_property("largest difference of F1 or exact match", max(differences))
    assert max(differences) <= LIMIT
    stops = [e for run in (runs[1], runs[ranks]) for e in run.history() if isinstance(e, Stopped)]
    assert len({(stop.global_step, stop.stopped_by) for stop in stops}) == 1
    one, other = runs[1].result, runs[ranks].result
    assert other.f1 == pytest.approx(one.f1, abs=LIMIT)
    assert other.exact_match == pytest.approx(one.exact_match, abs=LIMIT)
    assert (other.total, other.best_step) == (one.total, one.best_step)


@pytest.mark.parametrize("impossible", [0.0, 0.3], ids=["v1.1", "v2.0"])
def test_a_sharded_score_is_the_score(runs, tiny_config, tmp_path, impossible, record_property):
    """77 questions in 1 to 5 shares, and in 90, of which some are empty."""
    folder = tiny.write_questions(tmp_path / "squad", train=1, dev=77, impossible=impossible)
    dataset = read_squad(next(folder.glob("dev-*.json")))
    assert dataset.has_impossible == bool(impossible)
    pretrained = load_pretrained(str(runs[1].model_folder))
    tokenizer = load_tokenizer(pretrained.vocab_file, lowercase=pretrained.lowercase)
    forward = Forward(QuestionAnswering.from_pretrained(pretrained), "float32")
    expected, largest = None, 0.0
    for size in (1, 2, 3, 4, 5, 90):
        so_far, texts = np.zeros(3), {}
        for rank in range(size):
            world = InTurn(rank, size, so_far)
            scores, mine = Validation(dataset, tokenizer, tiny_config, forward, world).score()
            texts |= {name: prediction.text for name, prediction in mine.items()}
        expected = expected or scoring.score(dataset, texts)
        largest = max(
            largest, abs(scores.f1 - expected.f1), abs(scores.exact_match - expected.exact_match)
        )
        assert scores.total == expected.total == len(texts) == 77
    record_property("largest difference of F1 or exact match", largest)
    assert largest <= LIMIT
    assert 30 < expected.f1 < 100
