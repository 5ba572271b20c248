"""The recorded table of real trainings, and what early stopping does over it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.advisor.make_table import EPOCHS, GRID, TRAIN, VALIDATIONS, cells, read_table
from benchmarks.advisor.replay_pruning import (
    REPLAYS,
    RULES,
    SEEDS,
    compare,
    sequence,
    whole_trainings,
)
from bertkit.advisor.proposing import ParEgo, RandomSampler
from bertkit.advisor.pruning import pruner

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "replay_pruning.json"


def test_every_cell_of_the_grid_was_trained_once():
    rows = [{name: row[name] for name in GRID} for row in read_table()]
    assert len(rows) >= 200
    assert sorted(map(str, rows)) == sorted(map(str, cells()))


def test_rows_are_what_their_curves_say():
    for row in read_table():
        steps, seconds, scores = zip(*row["curve"], strict=True)
        assert len(steps) == VALIDATIONS or len(steps) == steps[-1]  # few steps, few validations
        assert abs(steps[-1] * row["batch_size"] - EPOCHS * TRAIN) < 2 * row["batch_size"]
        assert list(steps) == sorted(set(steps))
        assert list(seconds) == sorted(seconds)
        assert 0 < seconds[0] < seconds[-1] == row["training_time"]
        assert row["f1"] == max(scores)
        assert all(0 <= score <= 100 for score in scores)


@pytest.mark.parametrize("rule", RULES)
def test_early_stopping_saves_time_and_keeps_the_winner(rule):
    known, committed = whole_trainings(), json.loads(RESULT.read_text())["replays"]
    sequences = [sequence(RandomSampler(), known, seed) for seed in range(REPLAYS)]
    assert compare(sequences, pruner(rule)) == committed[f"random search, {rule}"]
    # The advisor's own sequences take minutes to propose; the command has replayed them.
    for sampler in ("random search", "bertkit"):
        for part in SEEDS:
            found = committed[f"{sampler}, {rule}{part}"]
            assert found["replays"] == len(found["saved"]) == REPLAYS
            assert found["same_winner"] >= 18
            assert found["saved_median"] >= 0.4


@pytest.mark.parametrize("rule", RULES)
def test_one_sequence_of_the_advisors_own_is_replayed_as_committed(rule):
    known, committed = whole_trainings(), json.loads(RESULT.read_text())["replays"]
    found = compare([sequence(ParEgo(leader_only=True), known, 0)], pruner(rule))
    assert found["saved"][0] == committed[f"bertkit, {rule}"]["saved"][0]
