"""Memory that is freed stays with the process until it is given back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, sys
from bertkit.cluster.freed_memory import give_back_freed_memory, keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
import numpy as np
import psutil

def step():
    pieces = [np.ones(5_000_000) for _ in range(5)]  # 40 MB each
    del pieces

def resident():
    return psutil.Process().memory_info().rss / 1e6

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
held = resident()
give_back_freed_memory()
print(json.dumps({"faults": faults, "held": held, "left": resident()}))
"""


def measure(how: str) -> dict[str, float]:
    """Allocate and free 200 MB six times in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, timeout=60, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is the GNU C library's")
def test_kept_memory_is_used_again_and_then_given_back() -> None:
    plain, kept = measure("plain"), measure("keep")

    assert kept["faults"] * 20 < plain["faults"]
    assert kept["held"] > 200 > kept["left"]
