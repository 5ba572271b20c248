"""Loading TensorFlow: what must be set before, and without the half page that it says then."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

PRODUCTS_BY_ONEDNN = {"TF_ENABLE_ONEDNN_OPTS": "1"}
"""TensorFlow turns them on by itself on some processors only; on a Zen 3 a step without them takes
a seventh longer (`benchmarks/engine_settings.py`)."""

REMARK = re.compile(r"WARNING: All log messages before absl|[IWE]\d{4} \d\d:\d\d:\d\d|\s*$")
"""Lines of its log: which instructions it uses, that there is no GPU. Anything else is shown."""

NOT_FOR_TRAINING = ("sklearn", "pandas", "matplotlib")
"""What TensorFlow's import loads for Keras' wrappers and plots where it is installed: a third of
the time that it takes."""


def load_tensorflow(*, only_bertkit: bool = False) -> None:
    """Import TensorFlow; what it logs meanwhile is dropped unless the import fails.

    TensorFlow 2.21 writes these lines to file descriptor 2 before it reads any setting of its own,
    so that neither ``TF_CPP_MIN_LOG_LEVEL`` nor ``sys.stderr`` keeps them back.

    Args:
        only_bertkit: Whether this process does nothing but bertkit's work, so that Keras may go
            without scikit-learn, pandas and matplotlib; they can be imported afterwards.
    """
    if "tensorflow" in sys.modules:
        return
    for name, value in PRODUCTS_BY_ONEDNN.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # a person who wants its log sets this
    with _without(NOT_FOR_TRAINING if only_bertkit else ()):
        if os.environ["TF_CPP_MIN_LOG_LEVEL"] < "3":
            import tensorflow  # noqa: F401
        else:
            _import_silently()


def _import_silently() -> None:
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


@contextlib.contextmanager
def _without(packages: tuple[str, ...]) -> Iterator[None]:
    """Let packages that are not loaded yet look as if they were not installed."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # as import's reference says
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
