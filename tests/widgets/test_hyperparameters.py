"""The panel makes the configuration that its fields show, and refuses what is wrong as a whole."""

import json

import pytest
from bertkit_widgets.hyperparameters import PATHS, HyperparametersPanel

from bertkit.config import Config, settings
from bertkit.errors import ConfigError
from bertkit.presets import PRESETS, preset


def field(panel, name):
    (found,) = [form.fields[name] for form in panel._forms if name in form.fields]
    return found


def test_every_setting_is_there_once():
    panel = HyperparametersPanel()
    names = [name for form in panel._forms for name in form.fields]
    assert sorted(names) == sorted(setting.name for setting in settings())


def test_begins_with_the_demo():
    assert HyperparametersPanel().config == preset("demo")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fill_all_fields(name):
    panel = HyperparametersPanel(Config(batch_size=77, seed=5))
    panel._preset.value = name
    assert panel.config == preset(name)


def test_a_preset_can_be_chosen_again_after_a_change():
    panel = HyperparametersPanel()
    field(panel, "seed").input.value = "7"
    assert panel._preset.value == ""
    panel._preset.value = "demo"
    assert panel.config == preset("demo")


def test_a_preset_is_named_wherever_its_values_come_from():
    panel = HyperparametersPanel(preset("demo"))
    assert panel._preset.value == "demo"
    field(panel, "seed").input.value = "7"
    assert panel._preset.value == ""
    field(panel, "seed").input.value = str(preset("demo").seed)
    assert panel._preset.value == "demo"
    assert HyperparametersPanel(Config())._preset.value == "defaults"


def test_paths_may_be_edited_elsewhere():
    loaded = []
    panel = HyperparametersPanel(with_paths=False, on_load=loaded.append)
    assert not set(PATHS) & set(panel.values)
    panel._preset.value = "SQuAD base"
    assert loaded[-1]["model"] == "bert-base-uncased"
    assert panel.config == preset("SQuAD base")
    panel.share({"data": "elsewhere", "model": "minilm"})
    assert panel.config.data == "elsewhere"


def test_a_wrong_hidden_field_is_brought_to_light():
    panel = HyperparametersPanel()
    assert panel._more.layout.display == "none"
    field(panel, "doc_stride").input.value = "none at all"
    assert panel._more.layout.display is None
    assert "One setting is wrong." in panel._state.value
    assert "Document stride" in panel._state.value
    with pytest.raises(ConfigError):
        _ = panel.config


def test_settings_of_two_groups_that_contradict_each_other():
    panel = HyperparametersPanel()
    field(panel, "max_seq_length").input.value = "64"
    assert "bk-wrong" in field(panel, "max_query_length").widget._dom_classes
    field(panel, "max_query_length").input.value = "20"
    assert panel.problems == []


@pytest.mark.parametrize("name", ["c.json", "c.yaml"])
def test_export_and_import(tmp_path, name):
    panel = HyperparametersPanel()
    field(panel, "learning_rate").input.value = "3e-5"
    panel.export_file(tmp_path / name)
    other = HyperparametersPanel()
    other.import_file(tmp_path / name)
    assert other.config == panel.config
    assert other.config.learning_rate == 3e-5


def test_a_wrong_file_changes_nothing_and_says_why(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"batch_size": 0, "learning_rat": 1}))
    panel = HyperparametersPanel()
    before = panel.values
    panel._path.value = str(path)
    panel._try(lambda: panel.import_file(panel._path.value))
    assert "Nothing was changed." in panel._file_state.value
    assert "Batch size is 0" in panel._file_state.value
    assert "did you mean &#x27;learning_rate&#x27;" in panel._file_state.value
    assert panel.values == before


def test_upload():
    panel = HyperparametersPanel()
    panel._import_upload("a.yaml", b"learning_rate: 3e-5\nbatch_size: 12\n")
    assert panel.config == Config(learning_rate=3e-5, batch_size=12)


def test_the_python_shown_makes_the_same_configuration():
    panel = HyperparametersPanel()
    field(panel, "seed").input.value = "7"
    panel._code.value = True
    assert "seed=7" in panel._code_text.value
    from bertkit_widgets.python_text import as_python

    code = as_python(panel.values)
    names = {"Config": Config}
    lines = code.split("with Cluster")[0].replace("from bertkit import Cluster, Config", "")
    exec(lines, names)
    assert names["config"] == panel.config
    compile(code, "shown", "exec")


def test_fields_are_locked_while_a_run_uses_them():
    panel = HyperparametersPanel()
    panel.lock(True)
    assert all(f.input.disabled for form in panel._forms for f in form.fields.values())
    panel.lock(False)
    assert not field(panel, "seed").input.disabled
