"""Loading TensorFlow: what must be set before, and without the half page that it says then."""

from __future__ import annotations

import os
import re
import sys
import tempfile

PRODUCTS_BY_ONEDNN = {"TF_ENABLE_ONEDNN_OPTS": "1"}
"""TensorFlow turns them on by itself on some processors only; on a Zen 3 a step without them takes
a seventh longer (`benchmarks/engine_settings.py`)."""

REMARK = re.compile(r"WARNING: All log messages before absl|[IWE]\d{4} \d\d:\d\d:\d\d|\s*$")
"""Lines of its log: which instructions it uses, that there is no GPU. Anything else is shown."""


def load_tensorflow() -> None:
    """Import TensorFlow; what it logs meanwhile is dropped unless the import fails.

    TensorFlow 2.21 writes these lines to file descriptor 2 before it reads any setting of its own,
    so that neither ``TF_CPP_MIN_LOG_LEVEL`` nor ``sys.stderr`` keeps them back.
    """
    if "tensorflow" in sys.modules:
        return
    for name, value in PRODUCTS_BY_ONEDNN.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # a person who wants its log sets this
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] < "3":
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        terminal = os.dup(2)
        os.dup2(said.fileno(), 2)
        loaded = False
        try:
            import tensorflow  # noqa: F401

            loaded = True
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            said.seek(0)
            lines = said.readlines()
            sys.stderr.writelines(x for x in lines if not (loaded and REMARK.match(x)))
