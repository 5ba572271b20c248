"""What becomes of memory that training has freed: the next step uses it, and a run gives it back.

A training step allocates and frees gigabytes in large pieces. The GNU C library hands each piece
back to the operating system, which clears every page of it anew at the next step. That costs from
nothing to a quarter of a step, by the processor, the library of the products, and whether a virtual
machine must first get those pages itself (`benchmarks/engine_settings.py`).
"""

from __future__ import annotations

import contextlib
import ctypes

# From malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
TOP_PAD = 64 * 1024 * 1024


def keep_freed_memory() -> None:
    """Have this process keep what it frees. To be called before its other threads begin.

    Does nothing where the C library is not GNU's.

    Source: mallopt(3).
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)  # large pieces come from the heap, which can keep them
        mallopt(M_TRIM_THRESHOLD, -1)
        mallopt(M_TOP_PAD, TOP_PAD)
        mallopt(M_ARENA_MAX, 1)  # other threads' own heaps are too small for large pieces


def give_back_freed_memory() -> None:
    """Give what this process has freed, and kept, back to the operating system."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
