"""Which compute type this processor is fast with."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # whoever only asks about the processor does not load TensorFlow
    from bertkit.bert.question_answering import Precision

BFLOAT16_INSTRUCTIONS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})  # x86, x86, Arm


def resolve_precision(wanted: str) -> Precision:
    """Turn ``"auto"`` into ``"bfloat16"`` or ``"float32"``; the others stay as they are.

    Without instructions for bfloat16 the library emulates it and a step takes several times as
    long as in float32.
    """
    if wanted == "auto":
        return "bfloat16" if BFLOAT16_INSTRUCTIONS & processor_flags() else "float32"
    return "bfloat16" if wanted == "bfloat16" else "float32"


@cache
def processor_flags() -> frozenset[str]:
    """Instruction sets of this processor as Linux names them; empty where it does not say."""
    if platform.system() != "Linux":
        return frozenset()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(flags.split())
    return frozenset()
