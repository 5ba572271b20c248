"""bertkit: fine-tune BERT on SQuAD from a notebook, on one or more hosts.

Example:
    >>> from bertkit import Cluster, Config                         # doctest: +SKIP
    >>> with Cluster(n=2) as cluster:                               # doctest: +SKIP
    ...     result = cluster.train(Config(data="sample")).wait()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertkit.advisor import SDA
    from bertkit.cluster import Cluster
    from bertkit.config import Config
    from bertkit.errors import BertkitError
    from bertkit.presets import preset
    from bertkit.run import Result, Run
    from bertkit.training.loop import train_here
    from bertkit.training.prediction import Predictor

__version__ = "0.1.0"

__all__ = [
    "SDA",
    "BertkitError",
    "Cluster",
    "Config",
    "Predictor",
    "Result",
    "Run",
    "__version__",
    "preset",
    "train_here",
]

_HOMES = {
    "SDA": "bertkit.advisor",
    "BertkitError": "bertkit.errors",
    "Cluster": "bertkit.cluster",
    "Config": "bertkit.config",
    "Predictor": "bertkit.training.prediction",
    "Result": "bertkit.run",
    "Run": "bertkit.run",
    "preset": "bertkit.presets",
    "train_here": "bertkit.training.loop",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: TensorFlow takes seconds to load."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bertkit' has no attribute {name!r}")
    if _HOMES[name].startswith("bertkit.training."):
        from bertkit.loading_tensorflow import load_tensorflow

        load_tensorflow()
    return getattr(importlib.import_module(_HOMES[name]), name)
