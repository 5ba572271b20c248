r"""Which sampler covers the most of the Pareto front with 25 trials: bertkit's or one of its peers.

    pip install --no-deps --target PEERS --requirement benchmarks/requirements.txt
    PYTHONPATH=PEERS python -m benchmarks.advisor.compare_samplers \
        --out benchmarks/results/samplers.json

Each sampler searches each problem with 20 seeds. A search that was done is not done again: they are
kept in a file beside ``--out`` until all are done.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.advisor.problems import PROBLEMS
from benchmarks.advisor.samplers import SAMPLERS
from benchmarks.machine import describe_machine

TRIALS = 25
SHOWN = (5, 10, 15, 20, 25)


def compare(problems: list[str], samplers: list[str], seeds: int, kept: Path) -> dict[str, Any]:
    """Search everything that is not in ``kept`` yet; gives the shares by problem and sampler."""
    done = {}
    if kept.is_file():
        lines = kept.read_text(encoding="utf-8").splitlines()
        done = {(r["problem"], r["sampler"], r["seed"]): r for r in map(json.loads, lines)}
    found: dict[str, Any] = {}
    for name in problems:
        problem = PROBLEMS[name]()
        for sampler in samplers:
            rows = []
            for seed in range(seeds):
                row = done.get((name, sampler, seed))
                if row is None:
                    began = time.process_time()
                    metrics = SAMPLERS[sampler](problem, TRIALS, seed)
                    row = {
                        "problem": name, "sampler": sampler, "seed": seed,
                        "shares": [round(problem.share(metrics[:n]), 5) for n in SHOWN],
                        "seconds_a_proposal": (time.process_time() - began) / TRIALS,
                    }  # fmt: skip
                    with kept.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                rows.append(row)
            found.setdefault(name, {})[sampler] = rows
            print(name, sampler, summary(rows), flush=True)
    return found


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and quartiles of the share after the last trial, medians on the way."""
    shares = np.array([row["shares"] for row in rows])
    low, middle, high = np.quantile(shares[:, -1], [0.25, 0.5, 0.75])
    return {
        "median": round(float(middle), 4),
        "quartiles": [round(float(low), 4), round(float(high), 4)],
        "medians_after": dict(
            zip(map(str, SHOWN), np.median(shares, 0).round(4).tolist(), strict=True)
        ),
        "processor_seconds_a_proposal": round(
            float(np.median([row["seconds_a_proposal"] for row in rows])), 3
        ),
    }


def wins(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> int:
    """On how many seeds the first sampler ends with more."""
    return sum(
        mine["shares"][-1] > theirs["shares"][-1] for mine, theirs in zip(rows, others, strict=True)
    )


def table(result: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Medians with quartiles, a line a sampler."""
    problems = list(result)
    lines = ["sampler".ljust(22) + "".join(f"{name:>26}" for name in problems)]
    for sampler in next(iter(result.values())):
        cells = []
        for name in problems:
            one = result[name][sampler]
            low, high = one["quartiles"]
            cells.append(f"{one['median']:.3f} ({low:.3f} to {high:.3f})".rjust(26))
        lines.append(sampler.ljust(22) + "".join(cells))
    return "\n".join(lines)


def main() -> None:
    """Compare and write the result."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    words.add_argument("--samplers", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS))
    words.add_argument("--seeds", type=int, default=20)
    words.add_argument("--out", type=Path, required=True)
    options = words.parse_args()
    kept = options.out.with_suffix(".partial.jsonl")
    found = compare(options.problems, options.samplers, options.seeds, kept)
    summaries = {
        name: {
            sampler: {
                **summary(rows),
                "bertkit_ends_with_more_on_seeds": wins(samplers["bertkit"], rows),
            }
            for sampler, rows in samplers.items()
        }
        for name, samplers in found.items()
        if "bertkit" in samplers
    }
    result = {
        "what": f"share of the true Pareto front's hypervolume after {TRIALS} trials",
        "command": "python -m benchmarks.advisor.compare_samplers",
        "machine": describe_machine(),
        "seeds": options.seeds,
        "problems": summaries,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    kept.unlink()
    print(table(summaries))


if __name__ == "__main__":
    main()
