"""Every setting has a field; a wrong value is marked at its field while it is typed."""

import pytest
from bertkit_widgets.form import ConfigForm, SettingField, as_text, label
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from bertkit.config import Config, check, settings

ALL = [setting.name for setting in settings()]


@pytest.mark.parametrize("setting", settings(), ids=lambda setting: setting.name)
def test_each_setting_has_a_field_with_label_tooltip_limits_and_default(setting):
    field = SettingField(setting)
    assert field.value == setting.default
    assert setting.help in field.input.tooltip
    assert field.input.description.startswith(label(setting))
    assert all(word.lower() in field.input.description.lower() for word in setting.unit.split())
    usual = "may stay empty" if setting.default is None else "default"
    assert usual in field._hint.value
    if setting.minimum is not None:
        assert as_text(float(setting.minimum)) in field._hint.value


def test_labels_read_well():
    assert [label(s) for s in settings() if s.name in ("target_f1", "max_seq_length")] == [
        "Max sequence length",
        "Target F1",
    ]


@pytest.mark.parametrize(
    ("name", "typed", "words"),
    [
        ("learning_rate", "fast", "expected a number from 1e-08 to 1"),
        ("learning_rate", "7", "expected a number"),
        ("batch_size", "0", "expected a whole number from 1 to 65536"),
        ("batch_size", "3.5", "expected a whole number"),
        ("batch_size", "", "expected a whole number"),
        ("seed", "-1", "expected a whole number"),
    ],
)
def test_a_wrong_value_is_marked_at_its_field_and_a_right_one_unmarked(name, typed, words):
    form = ConfigForm(ALL)
    field = form.fields[name]
    right = field.input.value
    field.input.value = typed
    assert "bk-wrong" in field.widget._dom_classes
    assert words in field._hint.value
    assert 'role="alert"' in field._hint.value
    assert [problem.field for problem in form.problems] == [name]
    field.input.value = right
    assert "bk-wrong" not in field.widget._dom_classes
    assert form.problems == []


def test_settings_that_contradict_each_other_are_marked():
    form = ConfigForm(ALL)
    form.fields["max_query_length"].input.value = "500"
    assert "leaves no room" in form.fields["max_query_length"]._hint.value


def test_what_is_typed_cannot_become_html():
    field = SettingField(next(s for s in settings() if s.name == "batch_size"))
    field.input.value = "<img src=x onerror=alert(1)>"
    assert "<img" not in field._hint.value


def test_a_changed_field_is_marked_so():
    form = ConfigForm(["batch_size"])
    form.fields["batch_size"].input.value = "64"
    assert "bk-changed" in form.fields["batch_size"].widget._dom_classes


def test_many_values_are_checked_once():
    calls = []
    form = ConfigForm(ALL, lambda: calls.append(1))
    form.values = Config(batch_size=64, learning_rate=3e-5).to_dict()
    assert calls == [1]
    assert Config.from_dict(form.values) == Config(batch_size=64, learning_rate=3e-5)


@examples(max_examples=20, deadline=None)
@given(st.floats(1e-8, 1.0), st.integers(1, 65536), st.booleans(), st.none() | st.integers(1))
def test_values_survive_the_form(rate, batch, group, limit):
    form = ConfigForm(ALL)
    config = Config(
        learning_rate=float(f"{rate:.12g}"),
        batch_size=batch,
        group_by_length=group,
        step_threshold=limit,
    )
    form.values = config.to_dict()
    assert Config.from_dict(form.values) == config


@examples(max_examples=40, deadline=None)
@given(st.sampled_from(ALL), st.text())
def test_the_form_accepts_exactly_what_the_configuration_accepts(name, typed):
    form = ConfigForm(ALL)
    field = form.fields[name]
    if not hasattr(field.input, "placeholder"):
        return  # a list or a box offers right values only
    field.input.value = typed
    wrong = check(form.values)
    assert ("bk-wrong" in field.widget._dom_classes) == bool(wrong)
