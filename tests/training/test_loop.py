"""Whole runs in this process: what they write, how they end, and that they learn."""

from __future__ import annotations

import json
import shutil
import threading

import numpy as np
import pytest

from bertkit import events
from bertkit.errors import ConfigError, TrainingError
from bertkit.events import (
    Checkpoint,
    Evaluation,
    Failed,
    Finished,
    Progress,
    Started,
    Step,
    Stopped,
)
from bertkit.run import PREDICTIONS_FILE, RESULT_FILE, STOP_FILE, Run, create_run_folder
from bertkit.squad import scoring
from bertkit.squad.reading import read_squad
from bertkit.training import checkpoints
from bertkit.training.loop import train, train_here
from bertkit.training.prediction import Predictor
from bertkit.training.schedule import Schedule
from bertkit.training.world import SingleWorld
from tests import tiny


def of(kind, run):
    return [event for event in run.history() if isinstance(event, kind)]


@pytest.fixture(scope="module")
def config(tiny_config, tmp_path_factory):
    return tiny_config.replace(output=str(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def learned(config):
    """A run that ends because it has learned enough."""
    return train_here(config.replace(checkpoint_every=40, target_f1=85.0), name="learned")


# A run that reaches its target --------------------------------------------------------------------


def test_it_learns_and_stops_at_its_target(learned):
    scores = [event.f1 for event in of(Evaluation, learned)]
    assert scores[-1] >= 85 > max(scores[:-1])
    assert scores[0] < 50
    (stopped,) = of(Stopped, learned)
    assert stopped.stopped_by == learned.result.stopped_by == "target_f1"
    assert stopped.global_step == learned.result.global_step == of(Step, learned)[-1].global_step
    assert stopped.global_step % 20 == 0


def test_its_events_tell_it_from_beginning_to_end(learned, config):
    history = learned.history()
    assert isinstance(next(e for e in history if not isinstance(e, Progress)), Started)
    assert isinstance(history[-1], Finished)
    times = [event.time for event in history]
    assert times == sorted(times)
    steps = of(Step, learned)
    assert [step.global_step for step in steps] == list(range(1, len(steps) + 1))
    assert [e.global_step for e in of(Evaluation, learned)] == [
        s.global_step for s in steps if s.global_step % 20 == 0
    ]
    (started,) = of(Started, learned)
    assert started.config == learned.config.to_dict()
    assert (started.train_questions, started.train_features, started.dev_questions) == (
        800, 800, 40,
    )  # fmt: skip
    assert started.total_steps == 200
    assert started.resumed_from is None
    assert len(started.ranks) == 1
    assert started.precision == config.precision


def test_its_steps_follow_the_schedule(learned, config):
    schedule = Schedule(peak=config.learning_rate, total_steps=200, warmup_rate=0.1)
    for step in of(Step, learned):
        assert step.learning_rate == schedule.learning_rate(step.global_step)
        assert step.epoch == pytest.approx(step.global_step / 50)
        assert step.examples == 16
        assert 0 <= step.padding_share < 1
        assert step.seconds > 0
        assert step.examples_per_second == pytest.approx(16 / step.seconds)
        assert 0 < step.gradient_norm < 100


def test_its_result_can_be_checked_against_its_own_predictions(learned, tiny_squad):
    result = learned.result
    assert json.loads((learned.folder / RESULT_FILE).read_text()) == result.to_dict()
    assert of(Finished, learned)[0].result == result.to_dict()
    answers = json.loads((learned.folder / PREDICTIONS_FILE).read_text())
    dev = read_squad(tiny_squad / "dev-v1.1.json")
    assert answers.keys() == {question.id for question in dev.questions}
    score = scoring.score(dev, answers)
    assert (result.f1, result.exact_match) == pytest.approx((score.f1, score.exact_match))
    assert (result.total, result.ranks) == (40, 1)
    assert result.validation_f1 == max(event.f1 for event in of(Evaluation, learned))
    speeds = [step.examples_per_second for step in of(Step, learned)]
    assert result.examples_per_second == pytest.approx(np.median(speeds))
    assert result.wall_seconds >= sum(step.seconds for step in of(Step, learned)) * 0.99


def test_its_checkpoints_are_those_that_were_asked_for(learned):
    last = learned.result.global_step
    expected = sorted({*range(40, last, 40), last})
    assert [event.global_step for event in of(Checkpoint, learned)] == expected
    kept = [path.name for path in checkpoints.checkpoints(learned.folder)]
    assert kept == [f"step-{step:08d}" for step in expected[-2:]]
    position, arrays = checkpoints.load_newest_checkpoint(learned.folder)
    assert position.global_step == last
    names = {name for name in arrays if not name.startswith(("first/", "second/"))}
    assert len(arrays) == 3 * len(names)
    assert all(arrays[f"second/{name}"].min() >= 0 for name in names)


def test_its_model_answers_questions(learned, tiny_squad, config):
    """From its folder alone, with the score that the run has reported."""
    predictor = Predictor(learned.model_folder, config)
    scores, _ = predictor.evaluate(read_squad(tiny_squad / "dev-v1.1.json"))
    assert scores.f1 == pytest.approx(learned.result.f1, abs=1e-9)
    context = "people walk along it . ada moss built the mill in tarn in 1805 . the river is wide ."
    answers = predictor.ask(context, "where stands the mill ?")
    assert answers[0].text == "tarn"
    assert context[answers[0].start_char : answers[0].end_char] == "tarn"
    assert [a.score for a in answers] == sorted((a.score for a in answers), reverse=True)
    assert len(predictor.ask(context, "who built the mill ?", count=2)) == 2


def test_a_run_killed_after_its_target_does_not_train_on(learned, tmp_path):
    """The last checkpoint is written, the result is not: a resume scores, and steps no more."""
    folder = shutil.copytree(learned.folder, tmp_path / "killed", symlinks=True)
    (folder / RESULT_FILE).unlink()
    lines = (folder / events.EVENTS_FILE).read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"kind": "finished"' not in line and "stopped" not in line]
    assert len(kept) == len(lines) - 2
    (folder / events.EVENTS_FILE).write_text("".join(kept))
    train(folder, SingleWorld(), resume=True)
    run = Run(folder)
    assert [e.global_step for e in of(Step, run)] == [e.global_step for e in of(Step, learned)]
    assert run.result.stopped_by == "target_f1"
    assert run.result.f1 == learned.result.f1


# Other endings ------------------------------------------------------------------------------------


def test_a_person_stops_it_and_lets_it_go_on(config):
    folder = create_run_folder(
        config.replace(evaluate_every=0, step_threshold=40, num_hidden_layers=1), "stopped"
    )
    run = Run(folder)

    def stop_at_the_third_step():
        for event in events.follow(folder):
            if isinstance(event, Step) and event.global_step == 3:
                run.stop()
                return

    watcher = threading.Thread(target=stop_at_the_third_step, daemon=True)
    watcher.start()
    train(folder, SingleWorld())
    watcher.join(10)
    result = run.result
    assert result.stopped_by == "user"
    assert 3 <= result.global_step < 40
    assert of(Step, run)[-1].global_step == result.global_step
    assert [event.global_step for event in of(Checkpoint, run)] == [result.global_step]
    assert not (folder / STOP_FILE).exists()

    train(folder, SingleWorld(), resume=True)
    assert [step.global_step for step in of(Step, run)] == list(range(1, 41))
    assert run.result.stopped_by == "step_threshold"
    assert run.result.global_step == 40
    assert [e.resumed_from for e in of(Started, run)] == [None, result.global_step]


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16", "optimizer": "lamb", "dropout": 0.1},
        {"pad_to_max_length": True, "group_by_length": True, "compression": "float16"},
    ],
    ids=["bfloat16", "padded"],
)
def test_the_schedule_ends_it(config, changes):
    changes |= {"num_epochs": 0.1, "evaluate_every": 0, "num_hidden_layers": 1}
    run = train_here(config.replace(**changes), name="-".join(changes))
    assert run.result.stopped_by == "epochs"
    assert [step.global_step for step in of(Step, run)] == [1, 2, 3, 4, 5]
    assert [event.global_step for event in of(Evaluation, run)] == [5]
    assert [event.global_step for event in of(Checkpoint, run)] == [5]
    assert of(Started, run)[0].precision == changes.get("precision", "float32")
    _, arrays = checkpoints.load_newest_checkpoint(run.folder)
    assert all(array.dtype == np.float32 for array in arrays.values())


def test_the_target_is_named_also_where_the_last_step_reaches_it(config):
    """Whoever has asked for an F1 wants to know that it was reached."""
    run = train_here(
        config.replace(num_epochs=0.02, target_f1=0.0, num_hidden_layers=1), name="at-the-end"
    )
    assert [step.global_step for step in of(Step, run)] == [1]
    assert run.result.stopped_by == "target_f1"


# Failures -----------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_ends_it(config, tmp_path):
    from safetensors.numpy import load_file, save_file

    model = tiny.write_model(tmp_path / "model", layers=1)
    tensors = load_file(model / "model.safetensors")
    tensors["bert.embeddings.LayerNorm.bias"][0] = np.inf
    save_file(tensors, model / "model.safetensors")
    with pytest.raises(TrainingError, match=r"the loss is nan at step 1; lower learning_rate"):
        train_here(config.replace(model=str(model)), name="not-a-number")
    run = Run(f"{config.output}/not-a-number")
    assert run.result is None
    assert not run.running
    assert isinstance(run.history()[-1], Failed)
    assert run.failure.message.startswith("the loss is nan at step 1")
    assert run.failure.rank == 0
    assert "TrainingError" in run.failure.details
    assert not checkpoints.checkpoints(run.folder)
    with pytest.raises(TrainingError, match="the loss is nan"):
        run.wait(timeout=5)


def test_a_mistake_in_the_configuration_is_told_to_those_who_watch(config):
    with pytest.raises(ConfigError, match="there is no folder /no/such"):
        train_here(config.replace(data="/no/such"), name="mistake")
    run = Run(f"{config.output}/mistake")
    assert "there is no folder /no/such" in run.failure.message
    assert "\n" not in run.failure.message
