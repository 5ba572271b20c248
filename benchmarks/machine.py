"""What a measurement was made on: every result names it."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from bertkit.training.precision import BFLOAT16_INSTRUCTIONS, processor_flags

PACKAGES = ("tensorflow", "horovod", "numpy", "torch", "transformers", "keras-hub", "optuna")
_SHOWN = BFLOAT16_INSTRUCTIONS | {"avx2", "avx512f", "amx_tile", "avx512_vnni", "avx_vnni"}


def describe_machine() -> dict[str, object]:
    """Processor, cores, memory, load and package versions.

    Example:
        >>> describe_machine()["cores"] >= 1
        True
    """
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "instructions": sorted(processor_flags() & _SHOWN),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", "all"),
        "packages": _versions(),
    }


def _processor() -> str:
    names: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        names.setdefault(name.strip(), value.strip())
    family, model = names.get("cpu family", "?"), names.get("model", "?")
    return f"{names.get('model name', 'unknown')} (family {family}, model {model})"


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
