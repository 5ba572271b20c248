"""The browser tests again and again: do they pass every time, and how long do they take?

python -m benchmarks.browser_runs --times 10 --out benchmarks/results/browser_runs.json
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import describe_machine

COMMAND = [sys.executable, "-m", "pytest", "-q", "tests/browser"]
MOST_SECONDS = 1800


def one_run() -> dict[str, object]:
    """Run the browser tests once; counts by outcome, seconds, and the load before."""
    load = os.getloadavg()[0]
    began = time.monotonic()
    done = subprocess.run(
        COMMAND, capture_output=True, text=True, timeout=MOST_SECONDS, check=False
    )
    seconds = time.monotonic() - began
    summary = done.stdout.strip().splitlines()[-1]
    counts = {
        word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", summary)
    }
    if done.returncode:
        print(done.stdout[-5000:], file=sys.stderr)
    return {**counts, "seconds": round(seconds, 1), "load_average_before": round(load, 1)}


def write(path: Path, runs: list[dict[str, object]]) -> None:
    """Write the table, whole or not at all."""
    text = json.dumps({"machine": describe_machine(), "runs": runs}, indent=2) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)


def main() -> None:
    """Run them so many times, and keep the table after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    runs: list[dict[str, object]] = []
    for _ in range(arguments.times):
        runs.append(one_run())
        print(len(runs), runs[-1], flush=True)
        write(arguments.out, runs)


if __name__ == "__main__":
    main()
