"""Faults at random steps of real trainings: does each run end at its target, and how soon after?

    python -m benchmarks.faults --out benchmarks/results/faults.json            # all of them
    python -m benchmarks.faults --only kill freeze --runs 3 --out faults.json   # a few

Runs that the file holds already are not made again; each says on which of the file's machines it
was made, and every machine has fault-free runs of its own to compare with.

Each run trains a BERT of 2 layers on 800 generated questions to its target F1, on two engines or,
where links are cut, on three hosts (network namespaces of this machine, which needs root). During
it one thing goes wrong at a random step. Looked at are: whether the target is reached, whether the
events have every step once, what is left over, the time until the fault was noticed, and the time
until the next step. Times hold for this machine and this model: nearly all of a recovery is waiting
for time-outs, or nothing at all.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import describe_machine
from bertkit import Cluster, Config, Run
from bertkit.events import Notice, Regrouped, Started, Step, StopReason
from tests import tiny
from tests.hosts.network import Network, why_not

TARGET = 85.0
RUNS = {"none": 5, "kill": 20, "cut": 10, "freeze": 10, "client": 10, "disk": 5}
FIRST, LAST = 5, 60
"""The fault comes at a step between these; the target is reached after some 80."""

SECONDS = 900.0
LEAVE_SECONDS = 15.0
MARK = "BERTKIT_FAULTS_MARK"
CLIENT = """
import json, os, sys
from bertkit import Cluster, Config
cluster = Cluster(n=2, cores_per_engine=1, keep_alive=True).start()
run = cluster.train(Config(**json.loads(sys.argv[1])))
print(json.dumps({"profile": cluster.profile, "folder": str(run.folder)}), flush=True)
run.wait()
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the faults that are asked for and write what came of them."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    words.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    words.add_argument("--runs", type=int, help="runs of each kind instead of the usual number")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--out", type=Path, required=True, metavar="FILE")
    options = words.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # take networks and engines away, too
    os.environ[MARK] = uuid.uuid4().hex  # every process that comes from this one has it
    command = f"python -m benchmarks.faults --seed {options.seed}"
    machines, rows = _written(options.out, command)
    here = _place(machines)
    for kind in options.only:
        counted = [
            r for r in rows if r["kind"] == kind and (kind != "none" or r["machine"] == here)
        ]
        for number in range(len(counted), options.runs or RUNS[kind]):
            with tempfile.TemporaryDirectory(prefix="faults-") as folder:
                os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
                chance = random.Random(f"{options.seed} {kind} {number}")
                found = _KINDS[kind](Path(folder), chance)
                row = {"kind": kind, "machine": here, **found, "left": _left()}
            rows.append(row)
            print(json.dumps(row), flush=True)
            text = json.dumps(
                {
                    "command": command,
                    "machines": machines,
                    "summary": _summary(rows),
                    "runs": rows,
                },
                indent=1,
            )
            options.out.write_text(text + "\n", encoding="utf-8")
    print(json.dumps(_summary(rows), indent=1))


def _written(path: Path, command: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The machines and the runs that a file of results holds."""
    if not path.exists():
        return [], []
    results = json.loads(path.read_text(encoding="utf-8"))
    if results["command"] != command:
        raise SystemExit(f"{path} was made by {results['command']}: use its seed, or another file.")
    return results["machines"], results["runs"]


def _place(machines: list[dict[str, Any]]) -> int:
    """This machine's place in the list, where it is put when it is new."""
    here = describe_machine()
    for place, machine in enumerate(machines):
        if all(machine[name] == here[name] for name in ("processor", "cores", "instructions")):
            return place
    machines.append(here)
    return len(machines) - 1


# What goes wrong ---------------------------------------------------------------------------------


def _none(folder: Path, _chance: random.Random) -> dict[str, Any]:
    with Cluster(n=2, cores_per_engine=1) as cluster:
        run = cluster.train(_config(folder))
        run.wait(SECONDS)
        return _seen(run, None)


def _kill(folder: Path, chance: random.Random) -> dict[str, Any]:
    return _signal(folder, chance, signal.SIGKILL)


def _freeze(folder: Path, chance: random.Random) -> dict[str, Any]:
    return _signal(folder, chance, signal.SIGSTOP)


def _signal(folder: Path, chance: random.Random, number: signal.Signals) -> dict[str, Any]:
    rank = chance.randrange(2)
    with Cluster(n=2, cores_per_engine=1) as cluster:
        run = cluster.train(_config(folder))
        at = _at(run, chance, lambda: os.kill(cluster.engines[rank].pid, number))
        return {"rank": rank, **_seen(run, at)}


def _cut(folder: Path, chance: random.Random) -> dict[str, Any]:
    if reason := why_not():
        raise SystemExit(reason)
    with Network(folder / "network", 3) as network:
        name = chance.choice(network.names)
        hosts = dict.fromkeys(network.names, 1)
        with Cluster(
            hosts=hosts, ssh_options=network.ssh_options, cores_per_engine=1, report=lambda _: None
        ) as cluster:
            run = cluster.train(_config(folder))
            at = _at(run, chance, lambda: network.cut(name))
            network.mend(name)
            found = {"host": name, **_seen(run, at)}
        deadline = time.monotonic() + 60  # engines that were cut off end by themselves
        while any(network.processes(n) for n in network.names) and time.monotonic() < deadline:
            time.sleep(0.5)
        return {**found, "left_on_hosts": [network.processes(n) for n in network.names]}


def _client(folder: Path, chance: random.Random) -> dict[str, Any]:
    """The client is killed; a new one attaches a moment later and waits for the run."""
    command = [sys.executable, "-c", CLIENT, json.dumps(_config(folder).to_dict())]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    said = json.loads(client.stdout.readline())
    run = Run(said["folder"])
    at = chance.randint(FIRST, LAST)
    deadline = time.monotonic() + SECONDS
    while not any(isinstance(e, Step) and e.global_step >= at for e in run.history()):
        time.sleep(0.05)
        if time.monotonic() > deadline:
            raise TimeoutError(f"step {at} did not come")
    client.kill()
    killed = time.time()
    client.wait(10)
    cluster = Cluster(profile=said["profile"]).start()
    try:
        run.wait(SECONDS) if cluster.run is None else cluster.run.wait(SECONDS)
        return {**_seen(run, (at, killed)), "taken_over": cluster.run is not None}
    finally:
        cluster.shut_down()


def _disk(folder: Path, chance: random.Random) -> dict[str, Any]:
    """The disk is full while checkpoints are due, and has room again ten steps later."""
    small = folder / "small"
    small.mkdir()
    with _mounted(small), Cluster(n=2, cores_per_engine=1) as cluster:
        run = cluster.train(_config(folder, output=str(small)))
        ballast, at, full = small / "ballast", chance.randint(FIRST, LAST), 0.0
        for event in run.events():
            if isinstance(event, Step) and event.global_step == at:
                _fill(ballast)
                full = time.time()
            if isinstance(event, Step) and event.global_step == at + 12:
                ballast.unlink()
        run.wait(SECONDS)
        refused = [e for e in run.history() if isinstance(e, Notice) and "No space" in e.message]
        return {**_seen(run, (at, full)), "writes_refused": len(refused)}


_KINDS: dict[str, Callable[[Path, random.Random], dict[str, Any]]] = {
    "none": _none, "kill": _kill, "cut": _cut, "freeze": _freeze, "client": _client, "disk": _disk,
}  # fmt: skip


# Runs --------------------------------------------------------------------------------------------


def _config(folder: Path, **more: Any) -> Config:
    model, data = folder / "model", folder / "squad"
    if not model.exists():
        tiny.write_model(model)
        tiny.write_questions(data, train=800)
    settings: dict[str, Any] = {
        **tiny.settings(model, data), "output": str(folder / "runs"), "target_f1": TARGET,
        "checkpoint_every": 5,
    }  # fmt: skip
    return Config(**{**settings, **more})


def _at(run: Run, chance: random.Random, act: Callable[[], object]) -> tuple[int, float]:
    """Follow a run to its end and act once at a random step; gives the step and the time."""
    step, when = chance.randint(FIRST, LAST), 0.0
    for event in run.events():
        if not when and isinstance(event, Step) and event.global_step >= step:
            act()
            when = time.time()
    return step, when


def _seen(run: Run, fault: tuple[int, float] | None) -> dict[str, Any]:
    """What the events say of a run and of its recovery."""
    history, result = run.history(), run.result
    steps = [event for event in history if isinstance(event, Step)]
    found: dict[str, Any] = {
        "f1": round(result.f1, 2) if result else None,
        "stopped_by": result.stopped_by if result else str(run.failure and run.failure.message),
        "steps": len(steps),
        "every_step_once": [s.global_step for s in steps] == list(range(1, len(steps) + 1)),
        "longest_pause": round(max((b.time - a.time for a, b in pairwise(steps)), default=0.0), 2),
    }
    if fault is None:
        return found
    at, when = fault
    regrouped = [e for e in history if isinstance(e, Regrouped | Started) and e.time > when]
    after = [step.time for step in steps if step.time > (regrouped or steps)[0].time]
    detected = [e.detected for e in regrouped if isinstance(e, Regrouped)]
    return {
        **found,
        "fault_at_step": at,
        "detected_after": round(detected[0] - when, 2) if detected else None,
        "next_step_after": round(after[0] - when, 2) if regrouped and after else None,
    }


def _left() -> list[str]:
    """Processes that came from this one and are not over soon, ports and all."""
    deadline = time.monotonic() + LEAVE_SECONDS
    while (found := _marked()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _marked() -> list[str]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == os.environ[MARK]:
                found.append(" ".join(process.cmdline())[:200])
    return found


def _summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    table = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        mine = [row for row in rows if row["kind"] == kind]
        line: dict[str, Any] = {
            "kind": kind,
            "runs": len(mine),
            "reached_their_target": sum(row["stopped_by"] == StopReason.TARGET_F1 for row in mine),
            "every_step_once": sum(row["every_step_once"] for row in mine),
            "left_nothing": sum(not row["left"] for row in mine),
            "f1": [min(_of(mine, "f1")), max(_of(mine, "f1"))] if _of(mine, "f1") else None,
        }
        for name in ("detected_after", "next_step_after", "longest_pause"):
            if times := _of(mine, name):
                line[name] = {"median": round(statistics.median(times), 2), "worst": max(times)}
        table.append(line)
    return table


def _of(rows: list[dict[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows if row.get(name) is not None]


@contextlib.contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    """A file system of 4 MiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "bertkit-faults", str(folder)]
    subprocess.run(mount, check=True, timeout=10)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=10)


def _fill(ballast: Path) -> None:
    """Leave room for events, from which the end of the fault is seen, but for no checkpoint."""
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    os.truncate(ballast, ballast.stat().st_size - 100_000)


if __name__ == "__main__":
    main()
