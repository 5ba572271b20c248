"""kill -9 at 30 random moments of a search: nothing may be lost, and nothing counted twice.

    python -m benchmarks.advisor.kill_nine --out benchmarks/results/kill_nine.json

``bertkit advise`` runs as a process of its own over a command of one's own, is killed with what it
has started, and is told to resume its experiment; then it may finish. Each time the store is read
as a second notebook would.
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
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from bertkit.advisor.space import fingerprint
from bertkit.advisor.store import MOST_ATTEMPTS, Store
from bertkit.advisor.trial import State, Trial

KILLS = 30
BUDGET = 200
LONGEST = 2.5
"""Seconds after the search's first line within which a search is killed."""

TRAIN = """
    import json, sys, time
    given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    time.sleep(0.05)
    rate = float(given["--rate"])
    metrics = {"training_time": 10 + 90 * rate, "f1": 70 + 25 * rate}
    with open(given["--saved_path"] + "/result", "w") as file:
        json.dump(metrics, file)
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
    if found["lost"] or found["counted_twice"] or found["wrong"]:
        raise SystemExit(1)


def _killed(folder: Path, kills: int) -> dict[str, Any]:
    conf, moments = _conf(folder), random.Random(4)
    known: dict[int, dict[str, float]] = {}
    hit_a_running_trial = lost = 0
    for number in range(kills):
        _search_until_killed(conf, resume=number > 0, seconds=moments.uniform(0.0, LONGEST))
        trials = _look(folder)
        finished = {t.number: dict(t.metrics) for t in trials if t.state is State.FINISHED}
        lost += sum(finished.get(n) != metrics for n, metrics in known.items())
        known = finished
        hit_a_running_trial += any(t.state is State.RUNNING for t in trials)
        print(f"kill {number + 1}: {len(finished)} finished", file=sys.stderr, flush=True)
    budget = len(_look(folder)) + 5
    conf.write_text(
        conf.read_text().replace(
            f'"observation_budget": {BUDGET}', f'"observation_budget": {budget}'
        )
    )
    subprocess.run(_words(conf, resume=True), check=True, timeout=600, capture_output=True)
    trials = _look(folder)
    return {
        "kills": kills,
        "kills_that_hit_a_running_trial": hit_a_running_trial,
        "trials": len(trials),
        "trials_begun_more_than_once": sum(t.attempts > 1 for t in trials),
        "trials_that_failed_after_their_third_kill": sum(_gave_up(t) for t in trials),
        "lost": lost + abs(budget - len(trials)),
        "counted_twice": len(trials) - len({fingerprint(t.parameters) for t in trials}),
        "wrong": sum(not _gave_up(t) and not _is_right(t) for t in trials),
    }


def _search_until_killed(conf: Path, *, resume: bool, seconds: float) -> None:
    """Run a search and kill it so many seconds after it has begun."""
    process = subprocess.Popen(
        _words(conf, resume=resume), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while not (line := process.stderr.readline()).startswith("Experiment "):
        if not line:
            raise SystemExit(f"the search ended with {process.wait(30)} before it began")
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    process.stderr.close()


def _words(conf: Path, *, resume: bool) -> list[str]:
    words = [sys.executable, "-m", "bertkit.cli", "advise", "--conf", str(conf)]
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
