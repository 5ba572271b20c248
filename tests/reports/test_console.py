"""The progress line shows step, loss, speed, time left and F1, on a terminal and in a file."""

import fcntl
import io
import os
import pty
import re
import struct
import termios

import pytest

from bertkit.config import Config
from bertkit.reports.console import ConsoleProgress, describe_result, duration
from bertkit.run import Result
from tests.reports import recorded_run

CONFIG = Config(evaluate_every=20)


def show(file, **options):
    with ConsoleProgress(file, **options) as progress:
        for event in recorded_run.events(CONFIG, 120):
            progress(event)


def test_plain_lines_where_output_is_no_terminal():
    file = io.StringIO()
    show(file, plain_seconds=0)
    lines = file.getvalue().splitlines()
    assert "\r" not in file.getvalue()
    assert "Reading questions: 1,600 of 3,200" in lines
    assert "3 answers were left out: their text is not at their offset." in lines
    last = [line for line in lines if line.startswith("Step")][-5]
    assert re.search(r"loss \d\.\d+ · [\d.]+ examples/sec · \d+:\d\d left · F1 \d+\.\d", last), last
    assert any(line.startswith("Step 20: F1") for line in lines)
    assert any("the validation F1 reached its target" in line for line in lines)


def test_plain_lines_are_few():
    file = io.StringIO()
    show(file)
    steps = [line for line in file.getvalue().splitlines() if "examples/sec" in line]
    assert len(steps) <= 2


@pytest.mark.parametrize(("rows", "columns"), [(30, 100), (0, 0)])
def test_moving_line_on_a_terminal(rows, columns):
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with os.fdopen(writer, "w") as file:
        assert file.isatty()
        show(file)
        file.flush()
        text = read_all(reader)
    os.close(reader)
    assert "\r" in text
    assert re.search(r"Step \d+/120 \|", text), text
    assert "examples/sec" in text
    assert "Step 20: F1" in text


def read_all(descriptor):
    os.set_blocking(descriptor, False)
    parts = []
    while True:
        try:
            parts.append(os.read(descriptor, 65536))
        except BlockingIOError:
            return b"".join(parts).decode()


def test_duration():
    assert duration(0) == "0:00"
    assert duration(112.4) == "1:52"
    assert duration(3 * 3600 + 250) == "3:04:10"


def test_result_names_every_number():
    *_, finished = recorded_run.events(CONFIG)
    text = describe_result(Result.from_dict(finished.result))
    for word in ("F1", "Exact match", "examples/sec", "Wall time", "Run folder"):
        assert word in text
