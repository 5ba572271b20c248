"""The handle of a run that this process has started on engines."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any

from bertkit.cluster.supervision import Supervision
from bertkit.run import Result, Run

POLL_SECONDS = 0.1


class EngineRun(Run):
    """A run on engines: a `Run` that knows whether its ranks still work, and can be awaited.

    Args:
        folder: The run's folder.
        supervision: What watches over its ranks.

    Example:
        >>> run = cluster.train(config)      # doctest: +SKIP
        >>> result = await run               # in a notebook: buttons stay alive
        ...                                  # doctest: +SKIP
    """

    def __init__(self, folder: Path, supervision: Supervision) -> None:
        super().__init__(folder)
        self._supervision = supervision

    @property
    def running(self) -> bool:
        """Whether its ranks still work, or are about to."""
        return self._alive()

    def __await__(self) -> Generator[Any, None, Result]:
        """Wait without blocking the event loop; cancelling the wait asks the run to stop.

        Raises:
            TrainingError: If the run failed.
        """
        return self._over().__await__()

    async def _over(self) -> Result:
        try:
            while self._alive():
                await asyncio.sleep(POLL_SECONDS)
        except (asyncio.CancelledError, KeyboardInterrupt):
            self.stop()
            raise
        return self.wait()

    def _alive(self) -> bool:
        return not self._supervision.over
