"""kill -9 at 30 random moments of a search: nothing may be lost, and nothing counted twice.

    python -m benchmarks.advisor.kill_nine --out benchmarks/results/kill_nine.json

``bertkit advise`` runs as a process of its own over a command of one's own, is killed with what it
has started, and is told to resume its experiment; then it may finish. Each time the store is read
as a second notebook would. The moments are spread over the running time of trials, where a real
search is nearly always; ten more kills are aimed at the short windows between two trials: half of
them when a command has left its result and the search has yet to tell it, half while it asks.

The command notes each of its beginnings and ends itself, so that what the store says can be
compared with what was really run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from bertkit.advisor.space import fingerprint
from bertkit.advisor.store import MOST_ATTEMPTS, Store
from bertkit.advisor.trial import State, Trial

KILLS, AIMED = 30, 10
BUDGET = 200
LONGEST = 1.5
"""Seconds after a trial's beginning within which a search is killed: about as long as a trial."""

MOST_TRIALS = 3
"""The trial in which a search is killed is one of its first so many."""

WINDOW = 0.15
"""Seconds after the end of a command within which a kill that is aimed at the telling comes."""

TRAIN = """
    import json, os, sys, time
    given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    rate, folder = float(given["--rate"]), given["--saved_path"]
    def note(word):
        with open(os.path.join(os.path.dirname(sys.argv[0]), "ledger"), "a") as file:
            file.write(json.dumps([word, given["--rate"], given["--depth"]]) + "\\n")
    note("begin")
    time.sleep(0.6 + 0.8 * rate)
    note("end")
    with open(folder + "/result", "w") as file:
        json.dump({"training_time": 10 + 90 * rate, "f1": 70 + 25 * rate}, file)
"""


def main() -> None:
    """Kill, look, resume; then finish, check and keep what came out."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=KILLS)
    options.add_argument("--out", type=Path, required=True)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = _killed(Path(folder), chosen.kills)
    content = {
        "command": "python -m benchmarks.advisor.kill_nine",
        "machine": describe_machine(),
        **found,
    }
    chosen.out.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))
    faults = ("lost", "counted_twice", "wrong", "finished_without_a_run_of_the_command")
    if any(found[fault] for fault in faults):
        raise SystemExit(1)


def _killed(folder: Path, kills: int) -> dict[str, Any]:
    conf, moments = _conf(folder), random.Random(4)
    aims = ["training"] * kills + ["telling", "asking"] * (AIMED // 2)
    known: dict[int, dict[str, float]] = {}
    hits: Counter[str] = Counter()
    lost = 0
    for number, aim in enumerate(aims):
        _search_until_killed(conf, moments, aim, resume=number > 0)
        trials = _look(folder)
        finished = {t.number: dict(t.metrics) for t in trials if t.state is State.FINISHED}
        lost += sum(finished.get(n) != metrics for n, metrics in known.items())
        known = finished
        hits[f"{aim}: {_what_was_hit(trials, folder)}"] += 1
        print(f"kill {number + 1}: {len(finished)} finished", dict(hits), file=sys.stderr)
    budget = len(_look(folder)) + 5
    conf.write_text(
        conf.read_text().replace(
            f'"observation_budget": {BUDGET}', f'"observation_budget": {budget}'
        )
    )
    subprocess.run(_words(conf, resume=True), check=True, timeout=600, capture_output=True)
    trials = _look(folder)
    return {
        "kills_at_random_moments": kills,
        "kills_aimed_at_asking_and_telling": AIMED,
        "what_was_hit": dict(sorted(hits.items())),
        "trials": len(trials),
        "trials_begun_more_than_once": sum(t.attempts > 1 for t in trials),
        "trials_that_failed_after_their_third_kill": sum(_gave_up(t) for t in trials),
        "lost": lost + abs(budget - len(trials)),
        "counted_twice": len(trials) - len({fingerprint(t.parameters) for t in trials}),
        "wrong": sum(not _gave_up(t) and not _is_right(t) for t in trials),
        "finished_without_a_run_of_the_command": sum(
            ("end", _values(t)) not in _ledger(folder) for t in trials if t.state is State.FINISHED
        ),
    }


def _search_until_killed(conf: Path, moments: random.Random, aim: str, *, resume: bool) -> None:
    """Run a search and kill it at a random moment of a trial, or of a window between two."""
    process = subprocess.Popen(
        _words(conf, resume=resume), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    _wait_for(process, "Experiment ")
    if aim == "training":
        for _ in range(moments.randint(1, MOST_TRIALS)):
            _wait_for(process, "Trial ", " begins ")
        time.sleep(moments.uniform(0.0, LONGEST))
    elif aim == "asking":
        _wait_for(process, "Trial ", " finished ")
        time.sleep(moments.uniform(0.0, LONGEST))
    else:
        before = len(_ledger(conf.parent, "end"))
        while len(_ledger(conf.parent, "end")) == before and process.poll() is None:
            time.sleep(0.001)
        time.sleep(moments.uniform(0.0, WINDOW))
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    process.stderr.close()


def _wait_for(process: subprocess.Popen[str], start: str, part: str = "") -> None:
    assert process.stderr is not None
    while not ((line := process.stderr.readline()).startswith(start) and part in line):
        if not line:
            raise SystemExit(f"the search ended with {process.wait(30)} before it was killed")


def _what_was_hit(trials: list[Trial], folder: Path) -> str:
    """What the search was doing, by what it has left."""
    running = [t for t in trials if t.state is State.RUNNING]
    if not running:
        return "between two trials"
    (trial,) = running
    noted = [word for word, values in _ledger(folder) if values == _values(trial)]
    over = noted[-1:] == ["end"]
    return "a trial that was over, and not told" if over else "a running trial"


def _ledger(folder: Path, word: str = "") -> list[tuple[str, tuple[float, int]]]:
    """What the command has noted, oldest first."""
    path = folder / "ledger"
    lines = path.read_text().splitlines() if path.exists() else []
    noted = [json.loads(line) for line in lines]
    return [(w, (float(rate), int(depth))) for w, rate, depth in noted if word in ("", w)]


def _values(trial: Trial) -> tuple[float, int]:
    return float(trial.parameters["rate"] or 0.0), int(trial.parameters["depth"] or 0)


def _words(conf: Path, *, resume: bool) -> list[str]:
    words = [sys.executable, "-m", "bertkit", "advise", "--conf", str(conf)]
    return [*words, "--resume", "1"] if resume else words


def _look(folder: Path) -> list[Trial]:
    with Store(folder / "result" / "own" / "advisor.db") as store:
        return store.trials(1)


def _gave_up(trial: Trial) -> bool:
    return (
        trial.state is State.FAILED
        and trial.attempts == MOST_ATTEMPTS
        and re.search("process died", trial.message) is not None
    )


def _is_right(trial: Trial) -> bool:
    return trial.state is State.FINISHED and math.isclose(
        trial.metrics["f1"], 70 + 25 * float(trial.parameters["rate"] or 0.0)
    )


def _conf(folder: Path) -> Path:
    script = folder / "train.py"
    script.write_text(textwrap.dedent(TRAIN))
    settings = {
        "model_name": "own",
        "enable_sigopt": True,
        "observation_budget": BUDGET,
        "save_path": str(folder / "result"),
        "register": {
            "execute_cmd_base": f"'{sys.executable}' -I -S '{script}'",
            "score_metrics": [["training_time", "minimize"], ["f1", "maximize", 80]],
            "hpo_config": [
                {"name": "rate", "type": "double", "bounds": {"min": 0.0, "max": 1.0}},
                {"name": "depth", "type": "int", "bounds": {"min": 1, "max": 9}},
            ],
        },
    }
    conf = folder / "advise.json"
    conf.write_text(json.dumps(settings))
    return conf


if __name__ == "__main__":
    main()
