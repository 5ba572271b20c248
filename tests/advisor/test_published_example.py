"""The published example, for real: engines, the packaged model, the sample, a tiny budget."""

from __future__ import annotations

import json
from pathlib import Path

from bertkit import SDA
from bertkit.advisor.hydro_model import HydroModel
from bertkit.advisor.store import Store
from bertkit.advisor.trial import State
from bertkit.run import Run


def test_the_published_example(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = dict()  # noqa: C408 - as published
    settings["data_path"] = "sample"
    settings["enable_sigopt"] = True
    settings["observation_budget"] = 2
    settings["num_epochs"] = 1
    settings["step_threshold"] = 3
    settings["metric"] = "f1"
    settings["metric_objective"] = "maximize"
    settings["metric_threshold"] = 90.874
    settings["training_time_threshold"] = 10000
    settings["mpi_num_processes"] = 1
    settings["hosts"] = ["localhost"]
    settings["python_path"] = "/opt/python/bin"
    settings["ccl_worker_num"] = 2
    settings["save_path"] = "./result"
    # Fields of bertkit's own, so that this takes seconds, and no trial ends for being slow.
    settings |= {"num_hidden_layers": 1, "max_train_questions": 128, "max_seq_length": 128,
                 "evaluate_fraction": 0.02, "precision": "float32",
                 "pruning": "off"}  # fmt: skip

    sda = SDA(model="BERT", settings=settings)
    model_path, metrics = sda.launch()
    hydro_model = sda.snapshot()
    hydro_model.explain()

    values = {metric["name"]: metric["value"] for metric in metrics}
    best = Run(Path(model_path).parent).result
    assert values["f1"] == best.f1
    assert values["training_time"] == best.wall_seconds
    assert (Path(model_path) / "model.safetensors").is_file()
    shown = capsys.readouterr().out
    for words in ("Model Type: BERT", f"Model Saved Path: {model_path}", "Experiment id is 1",
                  f"f1: {values['f1']}"):  # fmt: skip
        assert words in shown
    assert json.loads(hydro_model.to_json())["settings"]["data_path"] == "sample"

    hydro_model.save_to_path("model.json")
    known = HydroModel.load("model.json")
    assert known == hydro_model
    more = SDA(model="BERT", settings={**settings, "observation_budget": 3}, hydro_model=known)
    more.launch()
    assert more.snapshot().experiment_id == known.experiment_id
    with Store(known.store) as store:
        trials = store.trials(known.experiment_id)
    assert [t.state for t in trials] == [State.FINISHED] * 3
    assert len({json.dumps(dict(t.parameters)) for t in trials}) == 3
