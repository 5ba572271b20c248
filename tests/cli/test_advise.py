"""``bertkit advise``: a search from a file, what it prints, and going on with it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap

import pytest

from bertkit.advisor.experiment import Experiment
from bertkit.advisor.trial import State
from bertkit.cli import main
from tests import tiny

TRAIN = """
    import argparse, json, pathlib, time
    words = argparse.ArgumentParser()
    words.add_argument("--depth", type=int)
    words.add_argument("--saved_path", type=pathlib.Path)
    options = words.parse_args()
    if pathlib.Path("slow").exists():
        time.sleep(60)
    if options.depth == 7:
        raise SystemExit("too deep")
    found = {"seconds": 10.0 * options.depth, "accuracy": 60.0 + 5 * options.depth}
    (options.saved_path / "result").write_text(json.dumps(found))
"""


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """Settings of a search over a command of this test's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(textwrap.dedent(TRAIN))
    write_conf(tmp_path / "own.conf", budget=4)
    return "own.conf"


def write_conf(path, budget):
    settings = {
        "model_name": "own", "enable_sigopt": True, "save_path": "result",
        "observation_budget": budget,
        "register": {
            "execute_cmd_base": f"{sys.executable} train.py",
            "hpo_config": [{"name": "depth", "bounds": {"min": 1, "max": 7}, "type": "int"}],
            "score_metrics": [["seconds", "minimize"], ["accuracy", "maximize", 75]],
            "hyper_parameters": {"depth": 6},
        },
    }  # fmt: skip
    path.write_text(json.dumps(settings))


def test_a_search_says_each_trial_and_prints_its_result(conf, tmp_path, capsys):
    assert main(["advise", "--conf", conf]) == 0
    shown = capsys.readouterr()
    with Experiment("result/own/advisor.db", 1) as experiment:
        trials, best, front = experiment.trials, experiment.best, experiment.pareto
    assert len(trials) == 4
    for trial in trials:
        (line,) = re.findall(rf"^Trial {trial.number} of 4 .*", shown.err, re.MULTILINE)
        said = {
            State.FINISHED: f"seconds {trial.metrics.get('seconds', 0):.2f}",
            State.FAILED: "too deep",
        }[trial.state]
        assert said in line
        assert f"Trial {trial.number} begins with depth {trial.parameters['depth']}" in shown.err
    assert f"Pareto set   trials {', '.join(str(t.number) for t in front)}" in shown.out
    assert f"Best         trial {best.number}: seconds {best.metrics['seconds']:.2f}" in shown.out
    times = 60.0 / best.metrics["seconds"]
    assert f"seconds 60.00 to {best.metrics['seconds']:.2f} ({times:.2f} times" in shown.out
    assert "accuracy of at least 75" in shown.out
    for name in ("trials", "pareto", "effects", "importance"):
        assert (tmp_path / f"result/own/experiment-1/{name}.png").stat().st_size > 5000


def test_an_experiment_goes_on_by_its_id(conf, tmp_path, capsys):
    assert main(["advise", "--conf", conf]) == 0
    with Experiment("result/own/advisor.db", 1) as experiment:
        before = experiment.trials
    write_conf(tmp_path / "own.conf", budget=6)
    assert main(["advise", "--conf", conf, "--resume", "1"]) == 0
    with Experiment("result/own/advisor.db", 1) as experiment:
        assert experiment.trials[:4] == before
        assert len(experiment.trials) == 6
        assert len(experiment.store.experiments()) == 1
    assert "Trial 6 of 6" in capsys.readouterr().err


def test_after_ctrl_c_it_says_how_to_go_on_and_goes_on(conf, tmp_path):
    (tmp_path / "slow").touch()
    process = subprocess.Popen(
        [sys.executable, "-m", "bertkit", "advise", "--conf", conf],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        said = ""
        while "begins" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        os.kill(process.pid, signal.SIGINT)
        said = process.communicate(timeout=200)[1]
    finally:
        process.kill()
        process.wait(10)
    assert process.returncode == 130
    assert said.splitlines()[-1] == (
        "bertkit: interrupted; 'bertkit advise --conf own.conf --resume 1' goes on"
    )
    with Experiment("result/own/advisor.db", 1) as experiment:
        assert [t.state for t in experiment.trials] == [State.WAITING]
    (tmp_path / "slow").unlink()
    assert main(["advise", "--conf", conf, "--resume", "1"]) == 0
    with Experiment("result/own/advisor.db", 1) as experiment:
        trials = experiment.trials
    assert [t.number for t in trials] == [1, 2, 3, 4]
    assert trials[0].metrics["accuracy"] == 90.0


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        (["--conf", "none.conf"], {}, ["none.conf", "cannot read"]),
        ([], {}, ["--conf"]),
        (["--conf", "c"], {"observation_budgt": 3}, ["observation_budgt", "observation_budget"]),
        (["--conf", "c"], {"batch_size": 0}, ["batch_size", "0"]),
        (["--conf", "c"], {"data_path": "nowhere"}, ["data", "nowhere"]),
        (["--conf", "c"], {"model": "no-model"}, ["no-model"]),
        (["--conf", "c"], {"parameters": [{"name": "depth", "grid": [1, 2]}]}, ["depth"]),
        (["--conf", "c"], {"register": {"execute_cmd": "x"}}, ["hpo_config"]),
        (["--conf", "c", "--resume", "9"], {}, ["experiment 9", "advisor.db"]),
        (["--conf", "c", "--resume", "first"], {}, ["resume", "whole number"]),
    ],
)
def test_a_mistake_is_one_line(words, settings, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c").write_text(json.dumps({"enable_sigopt": True, **settings}))
    try:
        code = main(["advise", *words])
    except SystemExit as stopped:  # argparse's own way out
        code = stopped.code
    shown = capsys.readouterr()
    (line,) = (line for line in shown.err.splitlines() if line.startswith("bertkit:"))
    assert code == 2
    assert shown.out == ""
    for pattern in said:
        assert pattern in line
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_real_search_over_training(tiny_model, tiny_squad, tmp_path, monkeypatch, capsys):
    """Engines, Horovod, TensorFlow: two trials of a tiny model."""
    monkeypatch.chdir(tmp_path)
    fields = tiny.settings(tiny_model, tiny_squad)
    fields["data_path"] = fields.pop("data")
    settings = {
        **fields, "enable_sigopt": True, "observation_budget": 2, "metric_threshold": 50,
        "step_threshold": 120, "num_epochs": 4, "learning_rate": 3e-3,
        "parameters": [
            {"name": "learning_rate", "bounds": {"min": 1e-3, "max": 9e-3},
             "transformation": "log"},
            {"name": "num_hidden_layers", "grid": [1, 2], "type": "int"},
        ],
    }  # fmt: skip
    (tmp_path / "bert.conf").write_text(json.dumps(settings))
    assert main(["advise", "--conf", "bert.conf"]) == 0
    shown = capsys.readouterr()
    with Experiment("result/bert/advisor.db", 1) as experiment:
        trials, best = experiment.trials, experiment.best
    assert [t.state for t in trials] == [State.FINISHED] * 2
    assert all(t.curve for t in trials)
    assert trials[0].parameters["learning_rate"] == 3e-3
    assert f"Best         trial {best.number}: training_time" in shown.out
    assert f"Model        {best.artifact}" in shown.out
    assert (tmp_path / best.artifact / "config.json").is_file()
