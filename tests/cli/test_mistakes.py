"""A user's mistake is one sentence, exit code 2, no traceback and nothing left running."""

from __future__ import annotations

import importlib.resources
import json
import shutil
import subprocess
import sys

import psutil
import pytest

from bertkit.cli import main

QUESTION = {
    "id": "q1",
    "title": "Bridges",
    "context": "Ada Moss built the bridge in 1887.",
    "question": "Who built the bridge?",
    "answers": {"text": ["Ada Moss"], "answer_start": [0]},
}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        (folder / name).write_text(json.dumps([QUESTION]))
    return folder


def model_with_vocabulary(folder, lines):
    """The packaged model with another vocabulary."""
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer_config.json"):
        shutil.copy(str(importlib.resources.files("bertkit_minilm") / name), folder / name)
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n")
    return folder


MISTAKES = {
    "no such folder": (["--data", "{tmp}/nowhere"], ["data", "nowhere"]),
    "batch of 0": (["--batch_size", "0"], ["batch_size", "is 0", "at least 1|from 1"]),
    "batch of words": (["--batch_size", "many"], ["batch_size", "'many'", "whole number"]),
    "unknown optimizer": (["--optimizer", "adam"], ["optimizer", "lamb", "adamw"]),
    "unknown model": (["--data", "{data}", "--model", "{tmp}/no-model"], ["no-model"]),
    "unknown option": (["--learning-rte", "1"], ["learning-rte", "--help"]),
    "no engines": (["--engines", "0"], ["engines", "at least 1"]),
    "no such configuration": (["--config", "{tmp}/none.yaml"], ["none.yaml", "cannot read"]),
    "output is a file": (
        ["--data", "{data}", "--output", "{data}/dev-v1.1.json"],
        ["output|already exists", "dev-v1.1.json"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name, data, tmp_path, capsys):
    words, expected = MISTAKES[name]
    check_refused(["train", *(w.format(tmp=tmp_path, data=data) for w in words)], expected, capsys)


FILES = {
    "empty file": ("", "empty"),
    "truncated JSON": (json.dumps([QUESTION])[:60], "line 1|JSON"),
    "wrong schema": ('{"questions": []}', "expected"),
    "no question in it": ('{"version": "1.1", "data": []}', "question"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("file", ["train-v1.1.json", "dev-v1.1.json"])
def test_a_file_that_is_no_squad_is_named(name, file, data, capsys):
    content, expected = FILES[name]
    (data / file).write_text(content)
    check_refused(["train", "--data", str(data)], [file, expected], capsys)


def test_a_missing_dev_file_is_named(data, capsys):
    (data / "dev-v1.1.json").unlink()
    check_refused(["train", "--data", str(data)], ["dev"], capsys)


def test_a_vocabulary_of_another_size_is_named(data, tmp_path, capsys):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bridge"]
    model = model_with_vocabulary(tmp_path / "model", words)
    check_refused(
        ["train", "--data", str(data), "--model", str(model)], ["vocab", "30522|30,522"], capsys
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["evaluate", "--model", "{tmp}/none", "--data", "{data}/dev-v1.1.json"], ["none"]),
        (["evaluate", "--model", "minilm", "--data", "{tmp}/none.json"], ["none.json"]),
        (["predict", "--model", "minilm"], ["--context"]),
        (["resume", "{tmp}/none"], ["none", "holds no run"]),
        (["train", "--resume"], ["--help"]),
    ],
)
def test_the_other_commands_say_theirs(words, expected, data, tmp_path, capsys):
    check_refused([w.format(tmp=tmp_path, data=data) for w in words], expected, capsys)


def check_refused(words, expected, capsys):
    import re

    try:
        code = main(words)
    except SystemExit as stopped:  # argparse's own way out
        code = stopped.code
    said = [line for line in capsys.readouterr().err.splitlines() if "bertkit:" in line]
    assert code == 2
    assert len(said) == 1, said
    for pattern in expected:
        assert re.search(pattern, said[0]), said[0]
    assert not engines()


def engines():
    """Engines and controllers among this process's descendants."""
    family = psutil.Process().children(recursive=True)
    alive = [p for p in family if p.status() != psutil.STATUS_ZOMBIE]
    return [p for p in alive if "ipyparallel" in " ".join(p.cmdline())]


def test_as_a_process_of_its_own(tmp_path):
    """The same through the operating system: code 2, one line, no traceback, no folder."""
    done = subprocess.run(
        [sys.executable, "-m", "bertkit", "train", "--data", "nowhere"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("bertkit: data")
    assert list(tmp_path.iterdir()) == []
