"""ipyparallel engines become Horovod ranks and train runs.

Example:
    >>> from bertkit.cluster import Cluster
    >>> with Cluster(n=2) as cluster:                   # doctest: +SKIP
    ...     result = cluster.train(Config()).wait()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertkit.cluster.cluster import Cluster
    from bertkit.cluster.engine import EngineInfo
    from bertkit.cluster.engine_run import EngineRun
    from bertkit.cluster.host_check import HostReport, check_hosts

__all__ = ["Cluster", "EngineInfo", "EngineRun", "HostReport", "check_hosts"]

_HOMES = {
    "Cluster": "bertkit.cluster.cluster",
    "EngineInfo": "bertkit.cluster.engine",
    "EngineRun": "bertkit.cluster.engine_run",
    "HostReport": "bertkit.cluster.host_check",
    "check_hosts": "bertkit.cluster.host_check",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a host asked for its cores needs only those."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bertkit.cluster' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
