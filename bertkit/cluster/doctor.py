"""What this machine can do: its cores and instructions, and each transport tried in earnest."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from bertkit.cluster.cores import usable_cpus, usable_limit
from bertkit.cluster.on_host import PACKAGES, version_of
from bertkit.cluster.rendezvous import Rendezvous
from bertkit.cluster.transport_test import MARK
from bertkit.events import Progress
from bertkit.training.precision import BFLOAT16_INSTRUCTIONS, processor_flags, resolve_precision

BYTES = 100_000_000
ROUNDS = 7
TRY_SECONDS = 300.0
INSTRUCTIONS = {
    "AVX2": {"avx2"},
    "AVX-512": {"avx512f"},
    "bfloat16": BFLOAT16_INSTRUCTIONS,
    "AMX": {"amx_tile"},
}
HOW_TO_BUILD = {
    "Gloo": "HOROVOD_WITH_GLOO=1",
    "MPI": "HOROVOD_WITH_MPI=1, with an MPI and its headers installed",
    "oneCCL": "HOROVOD_WITH_MPI=1 and CCL_ROOT, with oneCCL installed",
}


@dataclass(frozen=True)
class Transport:
    """One way by which Horovod's ranks can add up their gradients.

    Args:
        name: ``"Gloo"``, ``"MPI"`` or ``"oneCCL"``.
        built: Whether Horovod was built with it.
        seconds: Median time of a sum of `BYTES` over 2 ranks here; ``None`` if there was none.
        fault: Why it does not work although it is built.
    """

    name: str
    built: bool
    seconds: float | None = None
    fault: str = ""

    @property
    def gigabytes_per_second(self) -> float | None:
        """Bytes of the tensor a second; ``None`` where nothing was measured."""
        return BYTES / self.seconds / 1e9 if self.seconds else None


@dataclass(frozen=True)
class Diagnosis:
    """What was found on this machine.

    Args:
        versions: Of Python and the packages that matter.
        cores: Cores that may be used.
        limit: How many cores' worth of time the container may use, if that is limited.
        instructions: Which of `INSTRUCTIONS` the processor has.
        precision: What ``precision: auto`` comes to.
        memory: Bytes in all.
        free_memory: Bytes that are free.
        interfaces: IPv4 address of each network interface.
        transports: Each way to add up gradients, tried if it is built.
    """

    versions: dict[str, str]
    cores: int
    limit: int | None
    instructions: dict[str, bool]
    precision: str
    memory: int
    free_memory: int
    interfaces: dict[str, str]
    transports: list[Transport]

    @property
    def healthy(self) -> bool:
        """Whether all that is built works."""
        return not any(transport.fault for transport in self.transports)

    def to_dict(self) -> dict[str, object]:
        """As plain values."""
        values = asdict(self)
        for transport, found in zip(values["transports"], self.transports, strict=True):
            transport["gigabytes_per_second"] = found.gigabytes_per_second
        return values

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version or '-'}" for name, version in self.versions.items())
        limit = f", of which the container may use {self.limit}" if self.limit else ""
        has = ", ".join(f"{n} {'yes' if there else 'no'}" for n, there in self.instructions.items())
        lines = [
            ("Versions", versions),
            ("Cores", f"{self.cores}{limit}"),
            ("Instructions", has),
            ("Precision", f"auto is {self.precision}"),
            ("Memory", f"{self.free_memory / 2**30:.1f} of {self.memory / 2**30:.1f} GiB free"),
            ("Interfaces", ", ".join(f"{n} {at}" for n, at in self.interfaces.items()) or "none"),
            *((each.name, _words(each)) for each in self.transports),
        ]
        return "\n".join(f"{name:<13}{words}" for name, words in lines)


def diagnose(emit: Callable[[Progress], object] = lambda _: None) -> Diagnosis:
    """Look at this machine and try each transport that Horovod was built with.

    Args:
        emit: Called with the progress.

    Example:
        >>> diagnose().precision                                        # doctest: +SKIP
        'float32'
    """
    from bertkit.loading_tensorflow import load_tensorflow

    emit(Progress(stage="Loading TensorFlow"))
    load_tensorflow()
    import horovod.tensorflow as hvd

    built = {"Gloo": hvd.gloo_built(), "MPI": hvd.mpi_built(), "oneCCL": hvd.ccl_built()}
    transports = []
    for name, there in built.items():
        if there:
            emit(Progress(stage=f"Summing over two ranks by {name}"))
        transports.append(_tried(name, bool(there)))
    flags, memory = processor_flags(), psutil.virtual_memory()
    return Diagnosis(
        versions={"Python": platform.python_version(), **{n: version_of(n) for n in PACKAGES}},
        cores=len(usable_cpus()),
        limit=usable_limit(),
        instructions={name: bool(wanted & flags) for name, wanted in INSTRUCTIONS.items()},
        precision=resolve_precision("auto"),
        memory=memory.total,
        free_memory=memory.available,
        interfaces=_interfaces(),
        transports=transports,
    )


def _words(transport: Transport) -> str:
    if not transport.built:
        return f"not built; build Horovod with {HOW_TO_BUILD[transport.name]} to have it"
    if transport.fault:
        return f"built, but does not work: {transport.fault}"
    return (
        f"works: {BYTES / 1e6:.0f} MB of float32 over 2 ranks in {transport.seconds:.3f} s "
        f"(median of {ROUNDS}), {transport.gigabytes_per_second:.2f} GB/s"
    )


def _interfaces() -> dict[str, str]:
    return {
        name: address.address
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family is socket.AF_INET
    }


def _tried(name: str, built: bool) -> Transport:
    """Try a transport with two ranks of this machine."""
    if not built:
        return Transport(name, built)
    try:
        seconds = _over_gloo() if name == "Gloo" else _over_mpi(name)
    except _FaultError as fault:
        return Transport(name, built, fault=str(fault))
    return Transport(name, built, seconds)


class _FaultError(Exception):
    """A transport does not work."""


def _over_gloo() -> float:
    with Rendezvous(["localhost", "localhost"]) as rendezvous:
        environments = [rendezvous.environment(rank) for rank in range(2)]
        return _seconds([(_rank_program(), environment) for environment in environments])


def _over_mpi(name: str) -> float:
    if shutil.which("mpirun") is None:
        raise _FaultError("there is no mpirun to start its ranks with; install openmpi-bin")
    operations = "ccl" if name == "oneCCL" else "mpi"
    environment = {"HOROVOD_CONTROLLER": "mpi", "HOROVOD_CPU_OPERATIONS": operations}
    # Open MPI refuses root otherwise; other MPIs do not look at these.
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return _seconds([(["mpirun", "-np", "2", *_rank_program()], environment)])


def _rank_program() -> list[str]:
    return [sys.executable, "-m", "bertkit.cluster.transport_test", str(BYTES), str(ROUNDS)]


def _seconds(programs: Sequence[tuple[list[str], dict[str, str]]]) -> float:
    """Run the ranks' programs to their end; gives the median that rank 0 found."""
    with tempfile.TemporaryDirectory(prefix="bertkit-doctor-") as folder:
        logs = [Path(folder) / f"{number}.log" for number in range(len(programs))]
        started = []
        try:
            for (command, environment), log in zip(programs, logs, strict=True):
                with log.open("wb") as output:
                    started.append(
                        subprocess.Popen(
                            command, stdin=subprocess.DEVNULL, stdout=output,
                            stderr=subprocess.STDOUT, env={**os.environ, **environment},
                            start_new_session=True,
                        )
                    )  # fmt: skip
            codes = _wait(started)
        finally:
            for process in started:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        return _measured([log.read_text(errors="replace") for log in logs], codes)


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> list[int | None]:
    """Wait until all have ended, one has failed, or the time is over."""
    end = time.monotonic() + TRY_SECONDS
    while time.monotonic() < end:
        codes = [process.poll() for process in processes]
        if all(code is not None for code in codes) or any(codes):
            return codes
        time.sleep(0.05)
    raise _FaultError(f"its ranks did not come to an end within {TRY_SECONDS:.0f} s")


def _measured(texts: Sequence[str], codes: Sequence[int | None]) -> float:
    for text, code in zip(texts, codes, strict=True):
        if code:
            lines = [line.strip() for line in text.splitlines() if line.strip(" -\t")]
            raise _FaultError(f"a rank ended with exit code {code}: {(lines or ['silently'])[-1]}")
    for line in "\n".join(texts).splitlines():
        if line.startswith(MARK):
            found = json.loads(line[len(MARK) :])
            if found["ranks"] != 2:  # an MPI that Horovod was not built with starts lone ranks
                raise _FaultError(f"its ranks did not find each other: {found['ranks']} of 2")
            return float(found["seconds"])
    raise _FaultError("rank 0 said nothing")
