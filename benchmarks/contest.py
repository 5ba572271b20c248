"""Contestants in processes of their own, which take their turns one after the other.

Each contestant sets itself up, warms up and waits. A round gives every one a turn, in an order that
rotates from round to round, so that whatever else the machine does falls on all alike; a ratio is
the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.work import SIZES
from bertkit.loading_tensorflow import PRODUCTS_BY_ONEDNN

CHECKOUT = Path(__file__).resolve().parents[1]
TURN_SECONDS = 3600.0  # two steps of BERT-large, 96 examples each, take half of it without AMX


@dataclass(frozen=True)
class Entry:
    """One contestant.

    Args:
        name: What it is called in the results.
        program: Name of its class in `benchmarks.contestants`.
        settings: What the class is handed.
        environment: Variables of its process beside those that all have.
    """

    name: str
    program: str
    settings: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)


class Contestant:
    """A running contestant."""

    def __init__(self, entry: Entry, cores: int, log: IO[bytes]) -> None:
        self.entry = entry
        threads = {"OMP_NUM_THREADS": str(cores), "TF_NUM_INTRAOP_THREADS": str(cores)}
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(CHECKOUT), "MPLBACKEND": "agg"}
        command = [sys.executable, "-m", "benchmarks.contestants", entry.program]
        self._process = subprocess.Popen(
            [*command, json.dumps(dict(entry.settings))], cwd=CHECKOUT,
            env=os.environ | PRODUCTS_BY_ONEDNN | threads | quiet | dict(entry.environment),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
        self.warm_up = self._answer()

    def turn(self) -> dict[str, Any]:
        """Have it take its turn; gives what it reports, ``seconds`` among it."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"turn\n")
        self._process.stdin.flush()
        return self._answer()

    def bind(self, cpu: int) -> None:
        """Keep all of its threads on one core."""
        for thread in Path(f"/proc/{self._process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {cpu})

    def end(self) -> None:
        """End its process."""
        self._process.kill()
        self._process.wait(30)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], TURN_SECONDS)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise RuntimeError(f"{self.entry.name} gave no answer; see its log")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def contestants(entries: Sequence[Entry], cores: int, log: Path) -> Iterator[list[Contestant]]:
    """Start contestants one after the other, and end them all."""
    running: list[Contestant] = []
    with log.open("ab") as file:
        try:
            for entry in entries:
                print(f"{entry.name}: setting up", file=sys.stderr, flush=True)
                running.append(Contestant(entry, cores, file))
            yield running
        finally:
            for contestant in running:
                contestant.end()


def hold(running: Sequence[Contestant], rounds: int) -> dict[str, list[float]]:
    """Give every contestant a turn in every round; gives their seconds, round by round."""
    seconds: dict[str, list[float]] = {c.entry.name: [] for c in running}
    for number in range(rounds):
        first = number % len(running)
        for contestant in [*running[first:], *running[:first]]:
            seconds[contestant.entry.name].append(contestant.turn()["seconds"])
            time.sleep(0.2)  # let its threads go to sleep
        took = "  ".join(f"{name} {values[-1]:.2f}" for name, values in seconds.items())
        print(f"round {number + 1}/{rounds}: {took}", file=sys.stderr, flush=True)
    return seconds


def summarize(
    seconds: Mapping[str, Sequence[float]], examples: int, ours: str
) -> dict[str, dict[str, Any]]:
    """Examples/sec of each, and how many times as fast ``ours`` was, with quartiles."""
    summary = {}
    for name, values in seconds.items():
        ratios = [theirs / mine for theirs, mine in zip(values, seconds[ours], strict=True)]
        summary[name] = {
            "seconds": [round(value, 4) for value in values],
            "examples_per_second": round(examples / statistics.median(values), 3),
            "ours_times_as_fast": round(statistics.median(ratios), 3),
            "ratio_quartiles": [round(q, 3) for q in quartiles(ratios)],
        }
    return summary


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile, values between the measured ones included."""
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def contest_words(text: str | None, *, model: str, batch: int) -> argparse.ArgumentParser:
    """The words that every contest's command line knows, with its own defaults."""
    words = argparse.ArgumentParser(description=text)
    words.add_argument("--model", choices=list(SIZES), default=model)
    words.add_argument("--batch", type=int, default=batch)
    words.add_argument("--cores", type=int, default=2)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--log", type=Path, default=Path("contest.log"))
    words.add_argument("--out", type=Path)
    return words
