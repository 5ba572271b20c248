"""TensorBoard's own reader finds every number in the file, at its step and its time."""

import pytest

from bertkit.config import Config
from bertkit.events import Evaluation, Step
from bertkit.reports.tensorboard import write_tensorboard
from bertkit.run import Run
from tests.reports import recorded_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "demo"
    return Run(recorded_run.write(folder, Config(evaluate_every=20), 60))


@pytest.fixture(scope="module")
def records(run):
    import tensorflow as tf

    write_tensorboard(run)
    folder = write_tensorboard(run)  # a second time replaces the first
    (path,) = folder.iterdir()
    return list(tf.compat.v1.train.summary_iterator(str(path)))


def scalars(records, tag):
    return [
        (record.wall_time, record.step, value.simple_value)
        for record in records
        for value in record.summary.value
        if value.tag == tag
    ]


def test_file_begins_with_its_version(records):
    assert records[0].file_version == "brain.Event:2"


@pytest.mark.parametrize(
    ("tag", "kind", "name"),
    [
        ("train/loss", Step, "loss"),
        ("train/learning_rate", Step, "learning_rate"),
        ("speed/examples_per_second", Step, "examples_per_second"),
        ("validation/f1", Evaluation, "f1"),
    ],
)
def test_every_number_at_its_step_and_time(run, records, tag, kind, name):
    events = [event for event in run.history() if isinstance(event, kind)]
    found = scalars(records, tag)
    assert [(time, step) for time, step, _ in found] == [(e.time, e.global_step) for e in events]
    assert [value for *_, value in found] == pytest.approx([getattr(e, name) for e in events])


def test_configuration_is_a_text(records):
    (value,) = [v for record in records for v in record.summary.value if v.tag == "config"]
    assert b"| optimizer | lamb |" in value.tensor.string_val[0]
