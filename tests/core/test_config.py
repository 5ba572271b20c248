"""The configuration: defaults, limits, files, and what it says about mistakes."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bertkit.config import Config, check, read_mapping, setting, settings
from bertkit.errors import ConfigError
from bertkit.presets import PRESETS, preset


def values_of(one):
    """Values that a field accepts."""
    if one.choices:
        values = st.sampled_from(one.choices)
    elif one.type is bool:
        values = st.booleans()
    elif one.type is str:
        values = st.text(max_size=20)
    elif one.type is int:
        low = int(one.minimum) if one.minimum is not None else -(10**6)
        values = st.integers(low, int(one.maximum) if one.maximum is not None else 10**9)
    else:
        values = st.floats(one.minimum, one.maximum, allow_nan=False, allow_infinity=False)
    return st.one_of(st.none(), values) if one.optional else values


CONFIGS = (
    st.fixed_dictionaries({}, optional={s.name: values_of(s) for s in settings()})
    .filter(lambda values: not check(values))
    .map(Config.from_dict)
)


@given(CONFIGS, st.sampled_from([".json", ".yaml"]))
@example(Config(output="0E0", data="1e3"), ".yaml")  # names that look like numbers
def test_a_saved_configuration_comes_back(tmp_path_factory, config, suffix):
    path = tmp_path_factory.mktemp("config") / f"config{suffix}"
    config.save(path)
    assert Config.load(path) == config


@given(CONFIGS)
def test_text_typed_in_a_form_is_read_back(config):
    for one in settings():
        value = getattr(config, one.name)
        if one.type is not str:
            assert one.parse("" if value is None else str(value)) == value


@given(st.data())
def test_every_value_outside_the_limits_is_named(data):
    one = data.draw(st.sampled_from([s for s in settings() if s.minimum is not None]))
    value = data.draw(st.floats(max_value=one.minimum, exclude_max=True, allow_infinity=True))
    (problem,) = check({one.name: value})
    assert problem.field == one.name
    assert "expected" in problem.message


def test_all_problems_are_said_at_once():
    with pytest.raises(ConfigError) as caught:
        Config.from_dict({"batch_size": 0, "optimizer": "adam", "dropuot": 0.1, "seed": True})
    said = {problem.field: problem.message for problem in caught.value.problems}
    assert set(said) == {"batch_size", "optimizer", "dropuot", "seed"}
    assert "whole number from 1" in said["batch_size"]
    assert "did you mean 'adamw'" in said["optimizer"]
    assert "did you mean 'dropout'" in said["dropuot"]


def test_a_question_may_not_leave_no_room_for_the_paragraph():
    with pytest.raises(ConfigError, match="max_query_length: is 64, which leaves no room"):
        Config(max_seq_length=64)


def test_yaml_reads_exponents_as_numbers(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("learning_rate: 3e-5\nbatch_size: 12\n")
    assert Config.load(path).learning_rate == 3e-5


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.yaml", None, "cannot read"),
        ("broken.json", "{", "neither JSON nor YAML"),
        ("broken.yaml", "a: [", "neither JSON nor YAML"),
        ("list.yaml", "- 1", "holds list"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_sentence(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_mapping(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_every_field_says_what_it_is():
    for one in settings():
        assert one.help.endswith("."), one.name
        assert one.problem(one.default) is None, one.name
    assert setting("target_f1").default == 90.874


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_configurations(name):
    assert json.loads(json.dumps(preset(name).to_dict()))["model"] == preset(name).model
