"""Engines on several hosts, started over SSH; the controller stays on this one.

ipyparallel's `SSHEngineLauncher` starts each engine, with three of its habits changed:

- It sends the connection info as ipyparallel's own `Cluster` does for batch systems, in the
  environment of the started process (over ssh's standard input, never on a command line), where
  its `start` copies a file by scp. That, a profile made by IPython, and helper programs that each
  import ipyparallel cost seven logins and five starts of Python an engine; this costs one of each.
- It does not keep a Python process on the host that waits for the engine's end: that outlives the
  client by a minute. ipyparallel's nanny tells the hub at once when an engine ends, the hub's
  heartbeat when its host cannot be reached.
- Each of its ssh calls has a time-out.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ipyparallel.cluster.launcher import SSHEngineLauncher
from ipyparallel.cluster.shellcmd import ShellCommandSend

from bertkit.cluster import on_host
from bertkit.cluster.controller import Controller, start_error
from bertkit.cluster.cores import CoreShare, core_shares
from bertkit.cluster.engine import Deadline, Engine
from bertkit.cluster.host_check import (
    HostReport,
    address_of_interface,
    interface_to,
    look_at,
    needed_variables,
)
from bertkit.cluster.hosts import Host
from bertkit.cluster.ssh import ANSWER_SECONDS, Question, Ssh, answers, why_it_failed
from bertkit.errors import ClusterError

HUB_SILENCE_SECONDS = 10.0  # without a heartbeat: the hub takes an engine as lost
ENGINE_SILENCE_SECONDS = 15.0  # an engine takes the hub as lost, and ends
LOOK_SECONDS = 3.0  # how often hosts are asked whether starting engines still run
SLOW_SECONDS = 6.0
CLOSE_SECONDS = 10.0
HANDED_ON = ("TF_", "HOROVOD_", "OMP_", "GLOO_", "HF_", "XDG_CACHE_HOME")


class HostEngines:
    """Engines on hosts that ssh reaches.

    Args:
        hosts: The hosts, and how many engines each runs.
        ssh: How to reach them.
        cores_per_engine: Cores of each engine; by default an equal share of its host.
        environment: Environment variables for the engines.
        keep_alive: Let them live on when this process ends without closing them.
        interface: This host's network interface that reaches the hosts; by default the one that
            the routing table says.
        report: Called with a line of text when the start is slow.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        ssh: Ssh,
        *,
        cores_per_engine: int | None,
        environment: Mapping[str, str],
        keep_alive: bool,
        interface: str | None,
        report: Callable[[str], object],
    ) -> None:
        self._hosts = list(hosts)
        self._ssh = ssh
        self._cores_per_engine = cores_per_engine
        self._environment = dict(environment)
        self._keep_alive = keep_alive
        self._interface = interface
        self._report = report
        self._controller: Controller | None = None
        self._reports: dict[Host, HostReport] = {}
        self._folders: dict[Host, str] = {}
        self._lost_on: dict[Host, list[int]] = {}  # their processes
        self._slots = [_Slot(host, place) for host in hosts for place in range(host.engines)]
        self._next_number = itertools.count()

    def connect(self, deadline: Deadline) -> Any:
        """See `EngineSource`."""
        address = address_of_interface(self.interface())
        self._controller = Controller(self._keep_alive, address, HUB_SILENCE_SECONDS)
        self._look(deadline)
        client = self._controller.connect(deadline)
        self._start(self._slots)
        return client

    def engines(self, deadline: Deadline) -> list[Engine]:
        """See `EngineSource`."""
        if self._controller is None:
            raise ClusterError("the cluster is not started; start it first")
        self._controller.check()
        lost = [slot for slot in self._slots if slot.process is None or slot.process.ending()]
        for slot in lost:
            if slot.process is not None:
                slot.process.kill()  # whatever is left of it
                self._lost_on.setdefault(slot.host, []).append(slot.process.pid)
            slot.engine = slot.process = None
        self._start(lost)
        self._register(deadline)
        return [slot.engine for slot in self._slots if slot.engine]

    def present(self) -> list[Engine]:
        """See `EngineSource`."""
        self._take_in_registered()
        return [slot.engine for slot in self._slots if slot.engine and slot.engine.alive]

    def profile(self) -> str | None:
        """See `EngineSource`."""
        return str(self._controller.profile_folder) if self._controller else None

    def interface(self) -> str:
        """See `EngineSource`."""
        if self._interface is None:
            self._interface = interface_to(self._hosts, self._ssh)
        return self._interface

    def close(self) -> None:
        """See `EngineSource`."""
        if self._controller is not None:
            self._controller.disconnect()
        questions = {
            host: self._ssh.ask(
                host, on_host.end, [p.pid for p in self._processes_on(host)], folder, True
            )
            for host, folder in self._folders.items()
        }
        if self._controller is not None:
            self._controller.close()
        for host, said in answers(questions, CLOSE_SECONDS).items():
            if isinstance(said, ClusterError):
                self._report(
                    f"{said}; engines on {host.name} end by themselves "
                    f"{ENGINE_SILENCE_SECONDS:.0f} s after they hear no more of this machine"
                )
        self._controller = None
        self._folders, self._lost_on = {}, {}
        self._slots = [_Slot(slot.host, slot.place) for slot in self._slots]

    # Starting ----------------------------------------------------------------------------------

    def _look(self, deadline: Deadline) -> None:
        """Find out whether the hosts can serve, and what each engine gets there."""
        reports = look_at(self._hosts, self._ssh, self._interface)
        faults = [f"{found.host.name}: {fault}" for found in reports for fault in found.faults]
        if faults:
            raise ClusterError("; ".join(faults))
        for found in reports:
            for warning in found.warnings:
                self._report(f"{found.host.name}: {warning}")
            self._reports[found.host] = found
        for slot in self._slots:
            slot.share = self._share(slot)
        deadline.pause("hosts to answer", 0.0)

    def _share(self, slot: _Slot) -> CoreShare:
        found = self._reports[slot.host]
        try:
            return core_shares(found.cpus, slot.host.engines, self._cores_per_engine, found.limit)[
                slot.place
            ]
        except ClusterError as error:
            raise ClusterError(f"{slot.host.name}: {error}") from None

    def _prepare_folder(self, host: Host) -> None:
        """Make the folder of a host's engines, anew where all that worked in it are lost.

        An engine that hears no more of the client ends, and takes its folder with it.
        """
        if self._processes_on(host):
            return
        if host in self._folders:
            lost = self._lost_on.get(host, [])
            self._ssh.ask(host, on_host.end, lost, self._folders[host], True).answer()
            self._lost_on.pop(host, None)  # not before: a host that is away is asked again
        self._open_controller()
        self._folders[host] = self._ssh.ask(host, on_host.make_folder).answer()

    def _start(self, slots: Sequence[_Slot]) -> None:
        """Start engines; those of a host one after another, all hosts at the same time."""
        hosts = list(dict.fromkeys(slot.host for slot in slots))
        errors: list[ClusterError] = []

        def start_on(host: Host) -> None:
            try:
                self._prepare_folder(host)
                for slot in slots:  # an ssh server takes few logins at once
                    if slot.host == host:
                        self._start_engine(slot)
            except ClusterError as error:
                errors.append(error)

        threads = [threading.Thread(target=start_on, args=(host,), daemon=True) for host in hosts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise ClusterError("; ".join(map(str, errors)))

    def _open_controller(self) -> Controller:
        """The controller; a host may answer after the cluster was stopped."""
        if self._controller is None:
            raise ClusterError("the cluster was stopped while an engine was started")
        return self._controller

    def _start_engine(self, slot: _Slot) -> None:
        controller = self._open_controller()
        number = next(self._next_number)
        folder = self._folders[slot.host]
        launcher = SSHEngineLauncher(
            hostname=slot.host.name,
            user=slot.host.user,
            engine_cmd=[self._ssh.python, "-m", "bertkit.cluster.child", "engine"],
            engine_args=self._engine_options(slot, number, folder),
            environment=self._variables(slot, folder, controller.engines_connection()),
            remote_profile_dir=f"{folder}/profile_engine_{number}",
            remote_output_file=f"{folder}/engine-{number}.log",
        )
        launcher._ssh_sender = _Shell(self._ssh, slot.host)
        # The part of its start() that this module's first lines keep.
        launcher.pid = launcher.ssh_sender.cmd_start(
            launcher.program + launcher.program_args,
            env=launcher.get_env(),
            output_file=launcher.remote_output_file,
        )
        launcher.notify_start({"host": launcher.location, "pid": launcher.pid})
        slot.process = HostProcess(
            self._ssh, slot.host, launcher.pid, folder, launcher.remote_output_file,
            number, controller.registered,
        )  # fmt: skip

    def _engine_options(self, slot: _Slot, number: int, folder: str) -> list[str]:
        options = [
            *("--profile-folder", f"{folder}/profile_engine_{number}"),
            *("--number", str(number)),
            *("--silence", str(ENGINE_SILENCE_SECONDS)),
            *("--working-folder", str(Path.cwd())),
            *("--remove", folder),
            "--on-host",
        ]
        if slot.share.cpus:
            options += ["--cpus", ",".join(map(str, slot.share.cpus))]
        return options

    def _variables(self, slot: _Slot, folder: str, connection: str) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)}
        return {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **own,
            **needed_variables(),
            **slot.share.environment,
            # Its own name for the way to the others; `join_horovod` prefers it.
            "HOROVOD_GLOO_IFACE": self._reports[slot.host].interface,
            "IPYTHONDIR": folder,
            "TMPDIR": folder,  # TensorFlow leaves files of traced functions there
            "PYTHONUNBUFFERED": "1",  # a log must be whole when its process is killed
            **self._environment,
            "IPP_CONNECTION_INFO": connection,
        }

    def _register(self, deadline: Deadline) -> None:
        """Wait until every engine has registered; ask meanwhile whether they still run."""
        next_line = next_look = time.monotonic() + SLOW_SECONDS
        looks: dict[Host, Question] = {}
        while missing := self._take_in_registered():
            if time.monotonic() > next_look and not looks:
                looks = self._ask_who_ended(missing)
            if looks and all(question.ready for question in looks.values()):
                self._check_starting(missing, answers(looks))
                looks, next_look = {}, time.monotonic() + LOOK_SECONDS
            if time.monotonic() > next_line:
                next_line += 2 * SLOW_SECONDS
                up = len(self._slots) - len(missing)
                self._report(
                    f"starting engines: {up} of {len(self._slots)} up, {deadline.left:.0f} s left"
                )
            names = ", ".join(dict.fromkeys(slot.host.name for slot in missing))
            deadline.pause(f"engines on {names} to start")

    def _ask_who_ended(self, slots: Sequence[_Slot]) -> dict[Host, Question]:
        hosts = dict.fromkeys(slot.host for slot in slots)
        return {
            host: self._ssh.ask(
                host, on_host.ended, [p.pid for p in self._processes_on(host)], self._folders[host]
            )
            for host in hosts
        }

    def _check_starting(
        self, slots: Sequence[_Slot], ended: Mapping[Host, list[int] | ClusterError]
    ) -> None:
        for slot in slots:
            said = ended.get(slot.host, [])
            if isinstance(said, ClusterError):
                raise said
            if slot.process is not None and slot.process.pid in said:
                name = f"{slot.host.name}: engine {slot.process.number}"
                raise start_error(name, "ended", slot.process.log_tail())

    def _take_in_registered(self) -> list[_Slot]:
        """Note which engines have registered; gives those that have not."""
        if self._controller is None:
            return []
        registered = self._controller.registered()
        for slot in self._slots:
            if slot.engine is None and slot.process and slot.process.number in registered:
                slot.process.registered = True
                found = self._reports[slot.host]
                slot.engine = Engine(
                    self._controller.client,
                    slot.process.number,
                    {
                        "host": slot.host.name,
                        "pid": slot.process.pid,
                        "cpus": list(slot.share.cpus),
                    },
                    slot.process,
                    slot.share.cores,
                    slot.share.cpus,
                    found.interface,
                )
        return [slot for slot in self._slots if slot.engine is None]

    def _processes_on(self, host: Host) -> list[HostProcess]:
        return [slot.process for slot in self._slots if slot.process and slot.host == host]


class HostProcess:
    """The process of an engine on another host.

    Args:
        ssh: How to reach the host.
        host: The host.
        pid: Its process number there.
        folder: The folder of the cluster's engines there.
        log: Its log there.
        number: ipyparallel's number of it.
        registered_now: Gives the numbers of the engines that the hub has.

    Attributes:
        registered: Whether it has ever registered.
    """

    def __init__(
        self, ssh: Ssh, host: Host, pid: int, folder: str, log: str, number: int,
        registered_now: Callable[[], set[int]],
    ) -> None:  # fmt: skip
        self.pid = pid
        self.number = number
        self.registered = False
        self._ssh, self._host, self._folder, self._log = ssh, host, folder, log
        self._registered_now = registered_now
        self._ending: str | None = None
        self._mark: Question | None = None
        self._end: Question | None = None

    def ending(self) -> str | None:
        """See `EngineProcess`."""
        if self._ending is None and self.registered and self.number not in self._registered_now():
            self._ending = "ended, or its host cannot be reached"
            self.end()  # what runs without being heard must not go on by itself
        return self._ending

    def kill(self) -> None:
        """See `EngineProcess`; comes back at once, and counts as ended from now on."""
        if self._ending is None:
            self._ending = "was ended"
        self.end()

    def end(self) -> None:
        """Have it ended over ssh, without waiting."""
        if self._end is None or (self._end.ready and self._end.failed):
            self._end = self._ssh.ask(self._host, on_host.end, [self.pid], self._folder, False)

    def mark_log(self) -> None:
        """See `EngineProcess`."""
        self._mark = self._ssh.ask(self._host, on_host.log_size, self._log)

    def log_tail(self) -> str:
        """See `EngineProcess`; a host that does not answer in time has nothing to say."""
        try:
            start = self._mark.answer() if self._mark is not None else 0
            return str(self._ssh.ask(self._host, on_host.log_tail, self._log, start).answer())
        except ClusterError as error:
            return str(error)


class _Slot:
    """A place for an engine on a host, whichever process fills it.

    Args:
        host: The host.
        place: Which of the host's engines it is.
    """

    def __init__(self, host: Host, place: int) -> None:
        self.host, self.place = host, place
        self.share = CoreShare(1)
        self.process: HostProcess | None = None
        self.engine: Engine | None = None


class _Shell(ShellCommandSend):  # type: ignore[misc]
    """ipyparallel's calls over ssh, each with a time-out, needing no ipyparallel to answer."""

    def __init__(self, ssh: Ssh, host: Host) -> None:
        super().__init__(
            ["ssh", *ssh.options], [host.location, "--"], ssh.python,
            initialize=False, send_receiver_code=True,
        )  # fmt: skip
        self.shell_info = ("linux-gnu", "/bin/sh")  # else it would log in once more to ask
        self._host = host

    def _check_output(self, cmd: list[str], **options: Any) -> str:
        try:
            done = subprocess.run(
                cmd, input=options.get("input"), capture_output=True, text=True,
                timeout=ANSWER_SECONDS, start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            why = why_it_failed(None, "", self._host, self.python_path)
            raise ClusterError(f"{self._host.name}: {why}") from None
        if done.returncode:
            why = why_it_failed(done.returncode, done.stderr, self._host, self.python_path)
            raise ClusterError(f"{self._host.name}: {why}")
        return str(done.stdout)
