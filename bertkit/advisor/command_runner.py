"""Running a trial as a command of one's own, as the published ``register`` does.

The command gets each parameter as ``--name value`` and, last, ``--saved_path folder``. It leaves
its metrics in a file in that folder: one number, or a JSON object or lines ``name: number``.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bertkit.advisor.pruning import TIME_METRIC
from bertkit.advisor.trial import Assignment, Outcome, Report, Trial
from bertkit.errors import AdvisorError

OUTPUT_FILE = "output.txt"
PROCESS_FILE = "process.json"
POLL_SECONDS = 0.05
END_SECONDS = 10.0


@dataclass(frozen=True)
class CommandRunner:
    """Runs each trial as a command.

    Args:
        command: The command without its parameters, such as ``"python train.py"``; split into
            words as a shell would, but never given to one.
        folder: Where each trial's own folder goes.
        result_file: Name of the file the command leaves its metrics in.
        metrics: Names of the wanted metrics. A file of one number is the value of all but
            ``training_time``, which is measured where the command does not tell it.
        switches: Parameters that are given without a value where they are true, and not at all
            where they are false.
        time_limit: Seconds after which a command is ended and its trial fails.

    Raises:
        AdvisorError: If the command is empty or not well quoted.
    """

    command: str
    folder: Path
    result_file: str
    metrics: tuple[str, ...]
    switches: frozenset[str] = frozenset()
    time_limit: float | None = None

    def __post_init__(self) -> None:
        self._words()

    def __call__(self, trial: Trial, report: Report) -> Outcome:
        """Run the command of one trial."""
        del report  # a command of one's own has no curve
        folder = self.folder / f"trial-{trial.number:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.result_file).unlink(missing_ok=True)
        words = self.arguments(trial.parameters, folder)
        began = time.monotonic()
        code = _run(words, folder / OUTPUT_FILE, self.time_limit)
        seconds = time.monotonic() - began
        if code != 0:
            raise AdvisorError(
                f"{words[0]} ended with {code}: {_last_line(folder / OUTPUT_FILE)} "
                f"(all of it is in {folder / OUTPUT_FILE})"
            )
        metrics = read_metrics(folder / self.result_file, self.metrics)
        return Outcome(metrics={TIME_METRIC: seconds, **metrics}, artifact=str(folder))

    def arguments(self, parameters: Assignment, folder: Path) -> list[str]:
        """The command's words for one assignment."""
        words = self._words()
        for name, value in parameters.items():
            if name not in self.switches:
                words += [f"--{name}", str(value)]
            elif value:
                words.append(f"--{name}")
        return [*words, "--saved_path", str(folder)]

    def _words(self) -> list[str]:
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise AdvisorError(
                f"execute_cmd_base {self.command!r} is badly quoted: {error}"
            ) from None
        if not words:
            raise AdvisorError(
                "execute_cmd_base is empty; expected a command such as 'python train.py'"
            )
        return words


def read_metrics(path: Path, names: Sequence[str]) -> dict[str, float]:
    """Read the metrics a command has left.

    Args:
        path: Its file.
        names: Wanted metrics.

    Raises:
        AdvisorError: If the file is missing or holds no numbers.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AdvisorError(f"the command left no metrics: cannot read {path}: {error}") from None
    try:
        values = json.loads(text)
    except ValueError:
        values = dict(re.findall(r"^\s*(\w+)\s*[:=]\s*(\S+)\s*$", text, re.MULTILINE))
    if isinstance(values, int | float) and not isinstance(values, bool):
        values = {name: values for name in names if name != TIME_METRIC}
    try:
        metrics = {str(name): float(value) for name, value in values.items()}
    except (AttributeError, TypeError, ValueError):
        metrics = {}
    if not metrics:
        raise AdvisorError(f"{path} holds {text[:40]!r}; expected a number or names with numbers")
    return metrics


def _run(words: Sequence[str], output: Path, time_limit: float | None) -> int:
    """Run a command to its end, with all it prints in a file.

    Raises:
        AdvisorError: If it cannot be started, or takes longer than it may.
    """
    deadline = None if time_limit is None else time.monotonic() + time_limit
    record = output.with_name(PROCESS_FILE)
    _end_leftover(record)
    with output.open("wb") as file:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that it can be ended with all it has started
            )
        except OSError as error:
            raise AdvisorError(f"cannot start {words[0]}: {error.strerror}") from None
        try:
            record.write_text(json.dumps([process.pid, psutil.Process(process.pid).create_time()]))
            while process.poll() is None:
                if deadline is not None and time.monotonic() > deadline:
                    raise AdvisorError(f"{words[0]} took longer than {time_limit:g} s")
                time.sleep(POLL_SECONDS)
        except psutil.Error:
            pass  # it was over before it could be looked at
        finally:
            _end(process)
            record.unlink(missing_ok=True)
    return process.returncode


def _end_leftover(record: Path) -> None:
    """End the command of an earlier attempt whose own process was killed."""
    try:
        pid, born = json.loads(record.read_text())
        if abs(psutil.Process(pid).create_time() - born) < 1.0:
            os.killpg(pid, signal.SIGKILL)
    except (OSError, ValueError, psutil.Error):
        pass  # there is none
    record.unlink(missing_ok=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command that still runs, with all it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it printed nothing"
