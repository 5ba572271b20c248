"""The published front: its example, its keys, its model, and a command of one's own."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import textwrap

import pytest

from bertkit.advisor.command_runner import CommandRunner, read_metrics
from bertkit.advisor.conf import advise
from bertkit.advisor.hydro_model import HydroModel
from bertkit.advisor.published_settings import KEYS, WITHOUT_MEANING, around, read_settings
from bertkit.advisor.registered import read_registration
from bertkit.advisor.sda import SDA, _clusters_for
from bertkit.advisor.store import Store
from bertkit.advisor.trial import Origin, State, Trial
from bertkit.cluster.host_engines import HostEngines
from bertkit.config import Config
from bertkit.errors import AdvisorError, ConfigError

PUBLISHED_KEYS = (
    "data_path", "train_dataset_path", "eval_dataset_path", "mpi_num_processes", "ppn", "hosts",
    "enable_sigopt", "observation_budget", "num_epochs", "metric", "metric_objective",
    "metric_threshold", "training_time_threshold", "step_threshold", "python_path",
    "ccl_worker_num", "save_path",
)  # fmt: skip

TRAIN = """
    import argparse, json, pathlib
    parser = argparse.ArgumentParser()
    parser.add_argument("--max_depth", type=int)
    parser.add_argument("--learning_rate", type=float)
    parser.add_argument("--booster")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--saved_path", type=pathlib.Path)
    options = parser.parse_args()
    if options.max_depth == 12:
        raise SystemExit("too deep")
    accuracy = 0.9 - (options.learning_rate - 0.3) ** 2 - 0.01 * abs(options.max_depth - 6)
    (options.saved_path / "result").write_text(str(accuracy))
    print(vars(options))
"""


@pytest.fixture
def info(tmp_path):
    """The registration of the published example, with a script of this test's."""
    script = tmp_path / "train one.py"
    script.write_text(textwrap.dedent(TRAIN))
    return {
        "score_metrics": [("accuracy", "maximize"), ("training_time", "minimize")],
        "execute_cmd_base": f"{sys.executable} '{script}'",
        "result_file_name": "result",
        "experiment_name": "own",
        "hpo_config": [
            {"name": "max_depth", "bounds": {"min": 3, "max": 11}, "type": "int"},
            {"name": "learning_rate", "bounds": {"min": 0.0, "max": 1.0}, "type": "double"},
            {"name": "booster", "grid": ["tree", "linear"], "type": "str"},
            {"name": "fast"},
        ],
        "observation_budget": 5,
    }


class TestRegistered:
    def test_the_published_example_runs(self, info, tmp_path, capsys):
        settings = dict()  # noqa: C408 - as published
        settings["data_path"] = "sample"
        settings["enable_sigopt"] = True
        settings["save_path"] = str(tmp_path / "result")

        sda = SDA(settings=settings)
        sda.register(info)
        model_path, metrics = sda.launch()

        hydro_model = sda.snapshot()
        hydro_model.explain()
        with Store(hydro_model.store) as store:
            trials = store.trials(hydro_model.experiment_id)
        assert len(trials) == 5
        best = max(trials, key=lambda t: t.metrics["accuracy"])
        assert {"name": "accuracy", "value": best.metrics["accuracy"]} in metrics
        assert model_path == best.artifact == hydro_model.model
        shown = capsys.readouterr().out
        for words in ("Model Type: custom_registered", f"Model Saved Path: {model_path}",
                      "Experiment id is 1", f"accuracy: {best.metrics['accuracy']}"):  # fmt: skip
            assert words in shown

    def test_without_a_search_it_trains_once_with_the_given_values(self, info, tmp_path):
        info["hyper_parameters"] = {"max_depth": 6, "learning_rate": 0.3}
        sda = SDA(model="own", settings={"save_path": str(tmp_path)})
        sda.register(info)
        _, metrics = sda.launch()
        assert metrics[1] == {"name": "accuracy", "value": 0.9}
        assert sda.snapshot().experiment_id is None
        assert HydroModel.load(tmp_path / "own" / "latest_hydro_model") == sda.snapshot()

    def test_it_starts_again_from_a_saved_model(self, info, tmp_path):
        settings = {"save_path": str(tmp_path), "enable_sigopt": True}
        sda = SDA(settings=settings)
        sda.register(info)
        sda.launch()
        sda.snapshot().save_to_path(tmp_path / "model.json")

        known = HydroModel.load(tmp_path / "model.json")
        more = SDA(settings={**settings, "observation_budget": 7}, hydro_model=known)
        more.register(info)
        more.launch()
        assert more.snapshot().experiment_id == known.experiment_id
        with Store(known.store) as store:
            assert len(store.trials(known.experiment_id)) == 7

        once = SDA(settings={"save_path": str(tmp_path)}, hydro_model=more.snapshot())
        once.register(info)
        once.launch()
        assert once.snapshot().model_parameters == more.snapshot().model_parameters

    def test_nothing_registered_is_said(self):
        with pytest.raises(AdvisorError, match=r"call register\(\)"):
            SDA(model="dlrm", settings={}).launch()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"execute_command": "x"}, "'execute_command' is not known"),
            ({"execute_cmd_base": ""}, "'execute_cmd_base' is missing"),
            ({"hpo_config": []}, "'hpo_config' is missing"),
            ({"score_metrics": [("accuracy", "up")]}, "objective is 'up'"),
        ],
    )
    def test_a_wrong_registration_is_refused_by_name(self, info, change, words):
        with pytest.raises(AdvisorError) as refused:
            read_registration({**info, **change})
        assert words in str(refused.value)

    def test_other_names_of_the_keys(self, info):
        info["execute_cmd"] = info.pop("execute_cmd_base")
        info["sigopt_config"] = info.pop("hpo_config")
        info["score_metrics"] = [["accuracy", "maximize"]]
        registered = read_registration({**info, "tune_training_time": True})
        assert registered.goals.names == ("accuracy", "training_time")
        assert registered.switches == {"fast"}


class TestCommand:
    def runner(self, tmp_path, command, **options):
        return CommandRunner(command, tmp_path, "result", ("accuracy",), **options)

    def trial(self, **parameters):
        return Trial(number=1, parameters=parameters, state=State.RUNNING, origin=Origin.MODEL)

    def test_the_words_are_those_of_no_shell(self, tmp_path):
        runner = self.runner(tmp_path, "python 'my train.py'", switches=frozenset({"fast", "slow"}))
        words = runner.arguments({"rate": 0.1, "fast": True, "slow": False, "x": "$(ls)"}, tmp_path)
        assert words == [
            "python", "my train.py", "--rate", "0.1", "--fast", "--x", "$(ls)",
            "--saved_path", str(tmp_path),
        ]  # fmt: skip

    def test_a_failing_command_says_why(self, tmp_path):
        command = f"{sys.executable} -c 'raise SystemExit(\"no data\")'"
        with pytest.raises(AdvisorError, match=r"ended with 1: no data"):
            self.runner(tmp_path, command)(self.trial(), bool)

    def test_a_slow_command_is_ended_with_all_it_started(self, tmp_path):
        command = f"{sys.executable} -c 'import time; time.sleep(60)'"
        with pytest.raises(AdvisorError, match=r"longer than 0\.3 s"):
            self.runner(tmp_path, command, time_limit=0.3)(self.trial(), bool)
        assert not list(tmp_path.glob("*/process.json"))

    def test_what_an_earlier_attempt_left_running_is_ended(self, tmp_path):
        folder = tmp_path / "trial-001"
        folder.mkdir()
        left = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True
        )
        import psutil

        born = psutil.Process(left.pid).create_time()
        (folder / "process.json").write_text(json.dumps([left.pid, born]))
        with pytest.raises(AdvisorError, match="left no metrics"):
            self.runner(tmp_path, "true")(self.trial(), bool)
        assert left.wait(10) < 0

    def test_a_missing_command_and_bad_quotes_are_said(self, tmp_path):
        with pytest.raises(AdvisorError, match="cannot start nothing-here"):
            self.runner(tmp_path, "nothing-here")(self.trial(), bool)
        with pytest.raises(AdvisorError, match="badly quoted"):
            self.runner(tmp_path, "python 'x")

    @pytest.mark.parametrize(
        ("text", "metrics"),
        [
            ("0.75\n", {"accuracy": 0.75}),
            ('{"accuracy": 0.5, "training_time": 3}', {"accuracy": 0.5, "training_time": 3.0}),
            ("accuracy: 0.5\nloss = 2e-1\n", {"accuracy": 0.5, "loss": 0.2}),
        ],
    )
    def test_metrics_are_read(self, tmp_path, text, metrics):
        (tmp_path / "result").write_text(text)
        assert read_metrics(tmp_path / "result", ("accuracy", "training_time")) == metrics

    @pytest.mark.parametrize("text", ["", "none", "[1, 2]", '{"accuracy": "good"}'])
    def test_what_are_no_metrics_is_refused(self, tmp_path, text):
        (tmp_path / "result").write_text(text)
        with pytest.raises(AdvisorError, match="expected a number"):
            read_metrics(tmp_path / "result", ("accuracy",))


class TestSettings:
    def test_every_published_key_is_known(self):
        assert set(PUBLISHED_KEYS) <= set(KEYS) | set(WITHOUT_MEANING)

    def test_the_published_notebook(self, tmp_path, caplog):
        """Its settings as they stand, with this machine's paths."""
        (tmp_path / "train-v1.1.json").touch()
        settings = dict()  # noqa: C408 - as published
        settings["train_script"] = str(tmp_path / "launch_benchmark.py")
        settings["current_path"] = str(tmp_path)
        settings["data_path"] = str(tmp_path)
        settings["train_dataset_path"] = str(tmp_path)
        settings["data_path"] = str(tmp_path)
        settings["mpi_num_processes"] = 1
        settings["enable_sigopt"] = False
        settings["python_path"] = "/opt/python/bin"
        settings["num_epochs"] = 2
        settings["metric"] = "f1"
        settings["metric_objective"] = "maximize"
        settings["metric_threshold"] = 90.874
        settings["step_threshold"] = 100000
        with caplog.at_level(logging.WARNING, logger="bertkit.advisor"):
            launch = read_settings("BERT", settings)
        assert launch.config.data == str(tmp_path)
        assert launch.config.train_file is None
        assert (launch.config.num_epochs, launch.config.target_f1) == (2, 90.874)
        assert (launch.config.step_threshold, launch.ranks) == (100000, 1)
        assert not launch.search
        assert [m.threshold for m in launch.goals.metrics] == [10000.0, 90.874]
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 3
        for key in ("train_script", "current_path", "python_path"):
            assert any(line.startswith(f"{key} has no meaning here") for line in said)

    def test_the_published_file(self, tmp_path):
        conf = tmp_path / "bert.conf"
        conf.write_text(
            "observation_budget: 1\nsave_path: ./result/\nppn: 1\nmpi_num_processes: 2\n"
            "ccl_worker_num: 2\nnum_epochs: 2\ncores: None\ntraining_time_threshold: 30000\n"
            "step_threshold: 100000\nmetric: f1\nmetric_objective: maximize\n"
            "metric_threshold: 90.87\nproject: sda\nexperiment: bert\n"
            "hosts:\n- localhost\n- 127.0.0.1\n"
        )
        from bertkit.config import read_mapping

        launch = read_settings("BERT", read_mapping(conf))
        assert (launch.ranks, launch.observation_budget, launch.experiment) == (2, 1, "bert")
        assert launch.goals.metrics[0].threshold == 30000
        assert launch.save_path.as_posix() == "result/bert"

    def test_fields_go_by_their_own_name(self):
        launch = read_settings("BERT", {"batch_size": 96, "seed": 7, "pruning": "halving"})
        assert (launch.config.batch_size, launch.config.seed) == (96, 7)
        assert launch.pruning == "halving"

    def test_a_space_of_ones_own(self):
        parameters = [{"name": "num_hidden_layers", "bounds": {"min": 2, "max": 6}, "type": "int"},
                      {"name": "ranks", "grid": [1, 2], "type": "int"}]  # fmt: skip
        assert read_settings("BERT", {"parameters": parameters}).space.names == (
            "num_hidden_layers", "ranks",
        )  # fmt: skip
        with pytest.raises(AdvisorError, match="'depth': is not a configuration field"):
            read_settings("BERT", {"parameters": [{"name": "depth", "grid": [1, 2]}]})

    def test_the_published_place_of_a_model_is_found(self, tmp_path):
        model = tmp_path / "pre-trained-model" / "bert-large-uncased"
        model.mkdir(parents=True)
        (model / "bert_config.json").write_text("{}")
        assert read_settings("BERT", {"data_path": str(tmp_path)}).config.model == str(model)
        launch = read_settings("BERT", {"data_path": str(tmp_path), "model": "minilm"})
        assert launch.config.model == "minilm"

    @pytest.mark.parametrize(
        ("settings", "ranks", "hosts"),
        [
            ({}, 1, {}),
            ({"mpi_num_processes": 2}, 2, {}),
            ({"hosts": ["localhost", "127.0.0.1"], "ppn": 2}, 4, {}),
            ({"hosts": "node1", "ppn": 2}, 2, {"node1": 2}),
            ({"hosts": ["node1", "me@node2"], "ppn": 2}, 4, {"node1": 2, "me@node2": 2}),
            ({"hosts": ["node1", "node2"], "mpi_num_processes": 4}, 4, {"node1": 2, "node2": 2}),
        ],
    )
    def test_ranks_and_their_hosts(self, settings, ranks, hosts):
        launch = read_settings("BERT", settings)
        assert (launch.ranks, launch.hosts) == (ranks, hosts)

    def test_hosts_get_their_engines(self):
        """The cluster of a launch, not started: its engines are asked for on the named hosts."""
        launch = read_settings("BERT", {"hosts": ["node1", "node2"], "ppn": 2})
        (cluster,) = _clusters_for(launch)
        assert cluster.n == 4
        assert isinstance(cluster._source, HostEngines)

    def test_files_elsewhere(self, tmp_path):
        (tmp_path / "mine.json").touch()
        launch = read_settings("BERT", {
            "data_path": str(tmp_path / "data"), "train_dataset_path": str(tmp_path / "mine.json"),
            "eval_dataset_path": str(tmp_path),
        })  # fmt: skip
        assert launch.config.train_file == str(tmp_path / "mine.json")
        assert launch.config.dev_file == str(tmp_path / "dev-v1.1.json")

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"data_pat": "x"}, "'data_pat' is not known; did you mean 'data_path'?"),
            ({"zzz": 1}, "'zzz' is not known"),
            ({"enable_sigopt": "perhaps"}, "enable_sigopt is 'perhaps'"),
            ({"observation_budget": 0}, "observation_budget is 0"),
            ({"metric": "accuracy"}, "metric is 'accuracy'"),
            ({"metric_objective": "minimize"}, "metric_objective is 'minimize'"),
            ({"metric_threshold": "high"}, "metric_threshold is 'high'"),
            ({"training_time_threshold": True}, "training_time_threshold is True"),
            ({"mpi_num_processes": 1.5}, "mpi_num_processes is 1.5"),
            ({"ppn": 2, "mpi_num_processes": 1}, "mpi_num_processes is 1, but ppn 2"),
            ({"hosts": ["a", "b"], "mpi_num_processes": 3}, "ppn 1 on 2 hosts makes 2"),
            ({"hosts": ["a"], "parallel_bandwidth": 2}, "hosts are named, which each trial uses"),
            (
                {"parallel_bandwidth": 2, "parameters": [{"name": "ranks", "grid": [1, 2]}]},
                "parallel_bandwidth: the number of ranks is searched",
            ),
            (
                {"hosts": ["a"], "parameters": [{"name": "ranks", "grid": [1, 2]}]},
                "hosts: the number of ranks is searched",
            ),
        ],
    )
    def test_what_cannot_be_used_is_refused_by_its_key(self, settings, words):
        with pytest.raises(AdvisorError) as refused:
            SDA(model="BERT", settings=settings)
        assert words in str(refused.value)

    def test_a_value_out_of_its_fields_limits_is_refused(self):
        with pytest.raises(ConfigError, match="num_epochs"):
            SDA(model="BERT", settings={"num_epochs": -1})

    def test_a_small_model_has_learning_rates_around_its_own(self):
        assert around(Config(learning_rate=1e-4)).parameters[0].high == 3e-4
        rate = around(Config(learning_rate=3e-3)).parameters[0]
        assert (rate.low, rate.high, rate.log) == (1e-3, 9e-3, True)


class TestHydroModel:
    MODEL = HydroModel(
        model_type="BERT", model="runs/1/model", metrics=[{"name": "f1", "value": 90.9}],
        experiment_id=3, store="advisor.db", model_parameters={"batch_size": 96},
        settings={"data_path": "sample"},
    )  # fmt: skip

    def test_there_and_back(self, tmp_path):
        self.MODEL.save_to_path(tmp_path / "model")
        assert HydroModel.load(tmp_path / "model") == self.MODEL
        assert json.loads(self.MODEL.to_json())["model_parameters"] == {"batch_size": 96}

    def test_what_is_none_is_refused(self, tmp_path):
        (tmp_path / "model").write_text('{"color": 3}')
        with pytest.raises(AdvisorError, match="no saved HydroModel"):
            HydroModel.load(tmp_path / "model")
        with pytest.raises(AdvisorError, match="cannot read a HydroModel"):
            HydroModel.load(tmp_path / "nowhere")


def test_a_file_does_the_same_as_the_notebook(info, tmp_path):
    conf = tmp_path / "own.conf"
    register = {**info, "score_metrics": [["accuracy", "maximize"]]}
    conf.write_text(json.dumps({"model_name": "own", "save_path": str(tmp_path / "r"),
                                "register": register, "observation_budget": 3}))  # fmt: skip
    model = advise(conf, enable_sigopt=True, data_path=None)
    assert model.experiment_id == 1
    assert model.metrics[1]["name"] == "accuracy"
    model.save_to_path(tmp_path / "model")
    more = advise(conf, enable_sigopt=True, observation_budget=4, resume=tmp_path / "model")
    assert more.experiment_id == 1


def test_the_advisor_loads_neither_tensorflow_nor_engines():
    code = "import sys, bertkit.advisor; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"tensorflow", "horovod", "ipyparallel", "matplotlib"} & set(loaded.stdout.split())
