"""bfloat16 is taken where the processor has instructions for it, and nowhere else."""

from __future__ import annotations

import platform
import subprocess

import pytest

from bertkit.training import precision


@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
def test_what_is_asked_for_is_taken(wanted):
    assert precision.resolve_precision(wanted) == wanted


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx2", "fma"}, "float32"),
        ({"avx512f", "avx512vnni"}, "float32"),
        ({"avx512_bf16", "avx2"}, "bfloat16"),
        ({"amx_bf16", "amx_tile"}, "bfloat16"),
        ({"asimd", "bf16"}, "bfloat16"),  # Arm
        (set(), "float32"),  # a system that does not say
    ],
)
def test_auto_asks_the_processor(monkeypatch, flags, expected):
    monkeypatch.setattr(precision, "processor_flags", lambda: frozenset(flags))
    assert precision.resolve_precision("auto") == expected


@pytest.mark.skipif(platform.system() != "Linux", reason="only Linux lists what it can do")
def test_flags_are_those_of_this_processor():
    lscpu = subprocess.run(["lscpu"], capture_output=True, text=True, timeout=10)
    if lscpu.returncode:
        pytest.skip("lscpu is not there to compare with")
    line = next(x for x in lscpu.stdout.splitlines() if x.strip().startswith("Flags:"))
    assert precision.processor_flags() == frozenset(line.split(":")[1].split())
