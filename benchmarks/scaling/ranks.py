"""Ranks on the hosts of a shaped network, which do the tasks they are asked to, all together."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.scaling.network import INTERFACE, Network
from bertkit.cluster.cores import CoreShare
from bertkit.cluster.rendezvous import Rendezvous

START_SECONDS = 180
LEAVE_SECONDS = 20
PRIORITY = -19  # other work on the machine would be measured as communication


class RankFailedError(Exception):
    """A rank ended or said nothing in time."""


class Ranks:
    """One rank a host, each a process of its own.

    Args:
        network: The hosts.
        shares: What each rank may use of this machine's cores.
        together: Whether they are Horovod's ranks; otherwise each is a world of one.
        log: File for what they write beside their answers.
    """

    def __init__(
        self, network: Network, shares: Sequence[CoreShare], log: Path, *, together: bool = True
    ) -> None:
        self._network = network
        self._shares = shares
        self._log = log
        self._together = together
        self._rendezvous: Rendezvous | None = None
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Ranks:
        try:
            if self._together:
                with self._network.in_hub():
                    names = [f"host{number}" for number in range(len(self._shares))]
                    self._rendezvous = Rendezvous(names, interface=INTERFACE)
            for number, share in enumerate(self._shares):
                self._processes.append(self._start(number, share))
            self._answers(START_SECONDS)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def ask(self, task: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
        """Have all ranks do a task; gives their answers in the order of the ranks.

        Raises:
            RankFailedError: If one of them ends, or takes longer than ``seconds``.
        """
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
        return self._answers(seconds)

    def close(self) -> None:
        """Let them leave, and end those that do not."""
        for process in self._processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        deadline = time.monotonic() + LEAVE_SECONDS
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(LEAVE_SECONDS)
        if self._rendezvous is not None:
            self._rendezvous.close()
        self._processes, self._rendezvous = [], None

    def _start(self, number: int, share: CoreShare) -> subprocess.Popen[str]:
        command = ["nice", "-n", str(PRIORITY)]
        if share.cpus:
            command += ["taskset", "-c", ",".join(map(str, share.cpus))]
        environment = {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **os.environ,
            **share.environment,
            **(self._rendezvous.environment(number) if self._rendezvous else {}),
        }
        process = self._network.start(
            number, [*command, sys.executable, "-m", "benchmarks.scaling.rank"], environment,
            self._log,
        )  # fmt: skip
        with contextlib.suppress(OSError):  # Linux may weigh sessions before their processes
            Path(f"/proc/{process.pid}/autogroup").write_text(str(PRIORITY))
        return process

    def _answers(self, seconds: float) -> list[dict[str, Any]]:
        deadline = time.monotonic() + seconds
        return [self._answer(number, deadline) for number in range(len(self._processes))]

    def _answer(self, number: int, deadline: float) -> dict[str, Any]:
        pipe = self._processes[number].stdout
        assert pipe is not None
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        line = pipe.readline() if ready else ""
        if not line:
            what = "ended" if ready else "did not answer in time"
            raise RankFailedError(f"rank {number} {what}; its output is in {self._log}")
        answer: dict[str, Any] = json.loads(line)
        return answer
