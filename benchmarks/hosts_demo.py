"""The demo on three hosts, through the studio: one engine each, to the target F1.

The hosts are network namespaces of this machine with an ssh server in each (`tests.hosts.network`),
so they share its cores: the time says nothing about three real hosts, the path does.

    python -m benchmarks.hosts_demo --out benchmarks/results/hosts_demo.json
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bertkit_widgets import Studio

from benchmarks.machine import describe_machine
from benchmarks.report import show
from bertkit.events import Evaluation, Started, Step, read
from bertkit.presets import preset
from tests.hosts.network import Network, why_not

HOSTS = 3
LONGEST_SECONDS = 3 * 3600.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hosts_demo", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    options = parser.parse_args(arguments)
    if reason := why_not():
        parser.exit(2, f"{reason}\n")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # take hosts and engines away, too
    found = {"machine": describe_machine(), **run()}
    show(found, options.out)


def run() -> dict[str, object]:
    """Train on the hosts as a person would, and say what was seen."""
    with (
        tempfile.TemporaryDirectory(prefix="hosts-demo-") as folder,
        Network(Path(folder) / "network", HOSTS) as network,
    ):
        config = preset("demo").replace(output=str(Path(folder) / "runs"))
        studio = Studio(config, ssh_options=network.ssh_options, timeout=900)
        studio.engines._hosts.input.value = ", ".join(network.names)
        begun = time.monotonic()
        try:
            studio._start_button.click()
            result = studio.wait(LONGEST_SECONDS)
            seconds = time.monotonic() - begun
            events = read(studio.run.folder)
        finally:
            studio.close()
            studio.engines.wait(60)
        left = _left(network)
    started = next(event for event in events if isinstance(event, Started))
    steps = [event.global_step for event in events if isinstance(event, Step)]
    return {
        "hosts": [rank.host for rank in started.ranks],
        "result": {k: v for k, v in asdict(result).items() if k not in ("model", "folder")},
        "seconds_from_the_click": round(seconds, 1),
        "steps_without_gap_or_double": steps == list(range(steps[0], steps[-1] + 1)),
        "evaluations": [
            {"global_step": event.global_step, "f1": event.f1}
            for event in events
            if isinstance(event, Evaluation)
        ],
        "left_on_the_hosts_afterwards": left,
    }


def _left(network: Network) -> dict[str, list[str]]:
    """Processes and ports on the hosts, once what was last asked of them is over."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        left = {
            name: [*network.processes(name).values(), *network.listening(name)]
            for name in network.names
        }
        if not any(left.values()):
            return {}
        time.sleep(0.5)
    return left


if __name__ == "__main__":
    main()
