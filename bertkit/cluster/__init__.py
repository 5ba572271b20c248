"""ipyparallel engines become Horovod ranks and train runs.

Example:
    >>> from bertkit.cluster import Cluster
    >>> with Cluster(n=2) as cluster:                   # doctest: +SKIP
    ...     result = cluster.train(Config()).wait()
"""

from bertkit.cluster.cluster import Cluster
from bertkit.cluster.engine import EngineInfo
from bertkit.cluster.engine_run import EngineRun

__all__ = ["Cluster", "EngineInfo", "EngineRun"]
