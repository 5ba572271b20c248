"""Several hosts on this machine: network namespaces with a host name and an ssh server each.

They hang on a bridge that has an address here, so that this machine is their client:

    with Network(tmp_path, 3) as network:
        Cluster(hosts=dict.fromkeys(network.names, 1), ssh_options=network.ssh_options)

Nothing outside the folder, the namespaces and the bridge is touched: own keys, own ssh
configuration, own known hosts. All hosts share this machine's files, as over NFS.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

START_SECONDS = 30.0
INSIDE = "eth0"  # a host's own name for its end of the cable
CLIENT = 1  # last number of the client's address; hosts follow


def why_not() -> str | None:
    """What this machine lacks or does not allow, or ``None``."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    for program, package in (
        ("ip", "iproute2"),
        ("ssh", "openssh-client"),
        ("unshare", "util-linux"),
    ):
        if shutil.which(program) is None:
            return f"there is no {program}: sudo apt install {package}"
    if _sshd() is None:
        return "there is no sshd: sudo apt install openssh-server"
    name = f"bertkit-try-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"this machine allows no network namespaces: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return None


class Network:
    """Hosts ``node1``, ``node2``, … that ssh reaches from this process.

    Args:
        folder: For keys, configurations and logs.
        count: Number of hosts.
        mark: Tells several networks of one process apart; a letter or digit.

    Attributes:
        names: Names of the hosts.
        interface: Name of the bridge here, by which they are reached.
        ssh_options: Arguments with which ssh knows them.
    """

    def __init__(self, folder: Path, count: int, mark: str = "a") -> None:
        self.folder = folder
        self.names = [f"node{number}" for number in range(1, count + 1)]
        self.interface = f"bk{os.getpid()}{mark}"  # at most 15 characters
        self.ssh_options = ["-F", str(folder / "ssh_config")]
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self._subnet = _free_subnet()

    def __enter__(self) -> Network:
        sweep()
        try:
            self._make_keys()
            self._make_bridge()
            for name in self.names:
                self._make_host(name, self.address(name))
            for name in self.names:
                self._start_server(name)
            self._wait_for_servers()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def address(self, name: str) -> str:
        """A host's IPv4 address."""
        return f"{self._subnet}.{CLIENT + 1 + self.names.index(name)}"

    @property
    def client_address(self) -> str:
        """This machine's address in the network."""
        return f"{self._subnet}.{CLIENT}"

    def namespace(self, name: str) -> str:
        """Name of a host's network namespace."""
        return f"{self.interface}-{name}"

    def command(self, name: str, *words: str) -> list[str]:
        """A command line that runs something on a host, without ssh."""
        return ["ip", "netns", "exec", self.namespace(name), *words]

    def cut(self, name: str) -> None:
        """Pull out a host's network cable."""
        _ip("link", "set", self._cable(name), "down")

    def mend(self, name: str) -> None:
        """Put it back."""
        _ip("link", "set", self._cable(name), "up")

    def shape(self, name: str, *netem: str) -> None:
        """Slow a host's cable down both ways.

        Args:
            name: The host.
            netem: As ``tc netem`` takes it, such as ``"rate", "1gbit", "delay", "50us"``.
        """
        qdisc = ["tc", "qdisc", "replace", "dev"]
        _run([*qdisc, self._cable(name), "root", "netem", *netem])
        _run(self.command(name, *qdisc, INSIDE, "root", "netem", *netem))

    def processes(self, name: str) -> dict[int, str]:
        """Processes on a host beside its ssh server, with their command lines."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.namespace(name)], capture_output=True, text=True
        )
        found = {}
        for pid in map(int, listed.stdout.split()):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if words and "sshd" not in words.split()[0]:
                    found[pid] = words.strip()
        return found

    def listening(self, name: str) -> list[str]:
        """Addresses and ports that a host listens on beside its ssh server's."""
        shown = subprocess.run(
            self.command(name, "ss", "-Hltn"), capture_output=True, text=True, check=True
        )
        found = [line.split()[3] for line in shown.stdout.splitlines()]
        return [each for each in found if each != f"{self.address(name)}:22"]

    def close(self) -> None:
        """End everything on the hosts, and take them away."""
        for name in self.names:
            for pid in self.processes(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for server in self._servers.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait(START_SECONDS)
        for name in self.names:
            for words in (
                ("link", "delete", self._cable(name)),  # at once; with its host it would go later
                ("netns", "delete", self.namespace(name)),
            ):
                with contextlib.suppress(subprocess.CalledProcessError):
                    _ip(*words)
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "delete", self.interface)
        self._servers = {}

    # Inside ------------------------------------------------------------------------------------

    def _cable(self, name: str) -> str:
        """The end of a host's cable that is plugged into the bridge."""
        return f"{self.interface}{self.names.index(name) + 1}"

    def _make_keys(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for key in ("host_key", "user_key"):
            (self.folder / key).unlink(missing_ok=True)
            _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key)])
        host_key = (self.folder / "host_key.pub").read_text().split()[:2]
        known = [" ".join([self.address(name), *host_key]) for name in self.names]
        (self.folder / "known_hosts").write_text("\n".join(known) + "\n")
        shutil.copy(self.folder / "user_key.pub", self.folder / "authorized_keys")
        hosts = [f"Host {name}\n  HostName {self.address(name)}" for name in self.names]
        common = [
            "Host *",
            f"  IdentityFile {self.folder}/user_key",
            "  IdentitiesOnly yes",
            f"  UserKnownHostsFile {self.folder}/known_hosts",
            "  GlobalKnownHostsFile /dev/null",
            "  StrictHostKeyChecking yes",
        ]
        (self.folder / "ssh_config").write_text("\n".join([*hosts, *common]) + "\n")
        names = [f"{self.address(name)} {name}" for name in self.names]
        (self.folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names]) + "\n")

    def _make_bridge(self) -> None:
        _ip("link", "add", self.interface, "type", "bridge")
        _ip("address", "add", f"{self.client_address}/24", "dev", self.interface)
        _ip("link", "set", self.interface, "up")

    def _make_host(self, name: str, address: str) -> None:
        namespace, cable = self.namespace(name), self._cable(name)
        _ip("netns", "add", namespace)
        _ip("link", "add", cable, "type", "veth", "peer", "name", INSIDE, "netns", namespace)
        _ip("link", "set", cable, "master", self.interface, "up")
        inside = self.command(name, "ip")
        _run([*inside, "address", "add", f"{address}/24", "dev", INSIDE])
        _run([*inside, "link", "set", INSIDE, "up"])
        _run([*inside, "link", "set", "lo", "up"])

    def _start_server(self, name: str) -> None:
        config = self.folder / f"sshd_config_{name}"
        config.write_text(
            f"ListenAddress {self.address(name)}\n"
            f"HostKey {self.folder}/host_key\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\n"
            "StrictModes no\n"  # the folder may lie below one that others can write to
            "PasswordAuthentication no\n"
            "UsePAM no\n"
            "PidFile none\n"
        )
        sshd = _sshd()
        assert sshd is not None
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it; its package makes it, too
        with (self.folder / f"sshd_{name}.log").open("wb") as log:
            self._servers[name] = subprocess.Popen(
                self.command(
                    name, "unshare", "--uts", "sh", "-c",
                    # 'ip netns exec' has given it mounts of its own.
                    'hostname "$1" && mount --bind "$2" /etc/hosts && exec "$3" -D -e -f "$4"',
                    "sh", name, str(self.folder / "hosts"), sshd, str(config),
                ),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _wait_for_servers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        for name, server in self._servers.items():
            while True:
                try:
                    socket.create_connection((self.address(name), 22), 1).close()
                    break
                except OSError as error:
                    said = (self.folder / f"sshd_{name}.log").read_text()
                    if server.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"sshd on {name} does not answer: {said}") from error
                    time.sleep(0.05)


def sweep() -> None:
    """Take away networks whose process was killed before it could do so."""
    listed = subprocess.check_output(["ip", "netns", "list"], text=True)
    for namespace in [line.split()[0] for line in listed.splitlines() if line]:
        made_by = re.fullmatch(r"(bk(\d+)[a-z0-9])-node\d+", namespace)
        if made_by is None or Path(f"/proc/{made_by[2]}").exists():
            continue
        pids = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True)
        for pid in map(int, pids.stdout.split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for words in (("netns", "delete", namespace), ("link", "delete", made_by[1])):
            with contextlib.suppress(subprocess.CalledProcessError):  # the bridge goes but once
                _ip(*words)


def _sshd() -> str | None:
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _free_subnet() -> str:
    """The first three numbers of a /24 network that no route of this machine leads to."""
    routes = json.loads(subprocess.check_output(["ip", "-json", "route"]) or "[]")
    taken = {".".join(route["dst"].split(".")[:3]) for route in routes}
    for step in range(256):
        subnet = f"10.{201 + step // 250}.{(os.getpid() + step) % 250}"
        if subnet not in taken:
            return subnet
    raise RuntimeError("no free network 10.201.x.0/24")


def _ip(*words: str) -> None:
    _run(["ip", *words])


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)
