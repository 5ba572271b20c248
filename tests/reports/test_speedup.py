"""The chart's factors are those of the results, and its words stand beside the right bar."""

import dataclasses

import pytest

from bertkit.config import Config
from bertkit.errors import RunError
from bertkit.reports.speedup import plot_speedup, speedups
from bertkit.run import Result, Run
from tests.reports import recorded_run


def result(**values):
    *_, finished = recorded_run.events(Config(evaluate_every=20), 60)
    return dataclasses.replace(Result.from_dict(finished.result), **values)


RESULTS = {
    "plain": result(wall_seconds=600.0, examples_per_second=10.0, f1=91.2),
    "bfloat16": result(wall_seconds=300.0, examples_per_second=22.0, f1=91.0),
    "2 engines": result(wall_seconds=160.0, examples_per_second=41.0, f1=90.9),
}


@pytest.mark.parametrize(
    ("measure", "factors"),
    [("wall_seconds", [1, 2, 3.75]), ("examples_per_second", [1, 2.2, 4.1])],
)
def test_factors_are_against_the_first(measure, factors):
    bars = speedups(RESULTS, measure)
    assert [bar.factor for bar in bars] == pytest.approx(factors)
    axes = plot_speedup(RESULTS, measure=measure).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(factors)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(RESULTS)


def test_words_name_factor_time_and_f1():
    texts = [text.get_text() for text in plot_speedup(RESULTS).axes[0].texts]
    assert "3.8x" in texts
    assert "2:40, F1 90.9" in texts


def test_a_run_without_result_is_refused_by_its_folder(tmp_path):
    recorded_run.write(tmp_path / "a", Config(), 10)
    (tmp_path / "a" / "result.json").unlink()
    with pytest.raises(RunError, match="has no result yet"):
        speedups({"a": Run(tmp_path / "a")})
