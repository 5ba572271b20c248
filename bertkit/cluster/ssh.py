"""Reaching hosts over ssh: questions that several hosts answer at the same time, each in time.

No question waits without a limit, and none needs a thread: Python 3.12 starts none at its exit,
when engines have to be ended.
"""

from __future__ import annotations

import inspect
import json
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, TypeVar

from bertkit.cluster import on_host
from bertkit.cluster.hosts import Host
from bertkit.errors import ClusterError

ANSWER_SECONDS = 30.0
POLL_SECONDS = 0.02
OPTIONS = (
    *("-T", "-o", "BatchMode=yes"),  # never ask for a password
    *("-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=2"),
    *("-o", "LogLevel=ERROR"),
)
_UNREACHABLE = 255  # ssh's own exit code
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # the shell's

Key = TypeVar("Key")


class Ssh:
    """How to reach hosts and the Python there.

    Args:
        python: Path of Python on every host.
        options: More arguments of ssh, such as ``["-p", "2222", "-F", "my_ssh_config"]``; they
            win over bertkit's own.
        environment: Variables that Python needs there to find its modules.
    """

    def __init__(
        self, python: str, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        self.python = python
        self.options = [*options, *OPTIONS]
        self.environment = dict(environment or {})

    def ask(self, host: Host, function: Callable[..., Any], *arguments: Any) -> Question:
        """Have a function of `on_host` called there; comes back at once with the question."""
        text = inspect.getsource(on_host)
        text += f"\n\nanswer({function.__name__}, json.loads({json.dumps(arguments)!r}))\n"
        words = [f"{name}={value}" for name, value in self.environment.items()]
        command = shlex.join([*(["env", *words] if words else []), self.python, "-"])
        ssh = ["ssh", *self.options, host.location, "--", command]
        return Question(host, self.python, ssh, text)

    def address_of(self, host: Host) -> str:
        """The IPv4 address that ssh would connect to.

        Raises:
            ClusterError: If its name is unknown.
        """
        asked = ["ssh", "-G", *self.options, host.location]
        try:
            said = subprocess.run(asked, capture_output=True, text=True, timeout=ANSWER_SECONDS)
        except FileNotFoundError:
            raise ClusterError("there is no ssh on this machine; install openssh-client") from None
        if said.returncode:
            raise ClusterError(f"{host.name}: ssh does not take its options: {_last(said.stderr)}")
        names = [line.split()[1] for line in said.stdout.splitlines() if line[:9] == "hostname "]
        name = names[0] if names else host.name
        try:
            return str(socket.getaddrinfo(name, None, socket.AF_INET)[0][4][0])
        except OSError as error:
            raise ClusterError(
                f"{host.name}: no IPv4 address is known for it ({error.strerror}); expected a "
                f"name from DNS, /etc/hosts or ssh's configuration"
            ) from None


class Question:
    """A call on a host that is under way.

    Args:
        host: Where.
        python: Path of Python there, for its errors.
        command: The ssh command.
        text: The program that Python reads there.
    """

    def __init__(self, host: Host, python: str, command: list[str], text: str) -> None:
        self.host = host
        self._python = python
        self._started = time.monotonic()
        # Files, not pipes: nobody has to read or write while it goes on.
        self._out: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        with tempfile.TemporaryFile() as program:
            program.write(text.encode())
            program.seek(0)
            self._process = subprocess.Popen(
                command, stdin=program, stdout=self._out, stderr=self._errors,
                start_new_session=True,  # a Ctrl-C is for the client
            )  # fmt: skip

    @property
    def ready(self) -> bool:
        """Whether it has been answered, or failed, or took too long."""
        if self._process.poll() is not None:
            return True
        if time.monotonic() < self._started + ANSWER_SECONDS:
            return False
        self.drop()
        return True

    @property
    def failed(self) -> bool:
        """Whether it is over and was not answered."""
        return self.ready and self._process.returncode != 0

    def answer(self, seconds: float = ANSWER_SECONDS) -> Any:
        """What the function gave.

        Args:
            seconds: Longest wait.

        Raises:
            ClusterError: If the host cannot be reached, has no such Python, or the call failed.
        """
        end = time.monotonic() + seconds
        while not self.ready and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        if self._process.poll() is None:
            self.drop()
        for line in reversed(_text(self._out).splitlines()):
            if line.startswith(on_host.MARK):
                return json.loads(line[len(on_host.MARK) :])
        why = why_it_failed(self._process.returncode, _text(self._errors), self.host, self._python)
        raise ClusterError(f"{self.host.name}: {why}")

    def drop(self) -> None:
        """Wait for it no longer."""
        self._process.kill()
        self._process.wait(ANSWER_SECONDS)


def why_it_failed(code: int | None, said: str, host: Host, python: str) -> str:
    """Why a call over ssh failed, and what to do.

    Args:
        code: The exit code of ssh; ``None`` if it took too long.
        said: What it wrote to standard error.
        host: The host.
        python: Path of Python there.
    """
    last = _last(said)
    if code is None or code < 0:
        return f"did not answer within {ANSWER_SECONDS:.0f} s; is it up and its network connected?"
    if code == _UNREACHABLE:
        return (
            f"ssh cannot reach it ({last or 'it says nothing'}); expected "
            f"'ssh {host.location} true' to work without a password"
        )
    if code in (_NOT_FOUND, _NOT_EXECUTABLE):
        return (
            f"{python} does not run there ({last}); install the same Python there, or name its "
            f"path with python"
        )
    return f"{python} failed there with exit code {code}: {last or 'it wrote nothing'}"


def answers(
    questions: Mapping[Key, Question], seconds: float = ANSWER_SECONDS
) -> dict[Key, Any | ClusterError]:
    """What several hosts answered within the same time, or why they did not."""
    end = time.monotonic() + seconds
    found: dict[Key, Any | ClusterError] = {}
    for key, question in questions.items():
        try:
            found[key] = question.answer(end - time.monotonic())
        except ClusterError as error:
            found[key] = error
    return found


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
