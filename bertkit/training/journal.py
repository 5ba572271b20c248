"""The run's event file, as one rank writes it: rank 0 all of it, another rank what is missing.

Every rank is told every event; only rank 0's go to the file. The others keep the newest, so that
whoever takes rank 0's place completes the file where the one before was cut off.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

from bertkit.errors import RunError
from bertkit.events import Evaluation, Event, EventLog, Step, read

KEPT = 4  # a lost rank 0 can have left out one step and the validation after it
RELEASE_SECONDS = 45.0  # how long a rank that was cut off may take to let go of the file
POLL_SECONDS = 0.2


class Journal:
    """Takes every event of one rank and writes those of rank 0.

    Args:
        folder: The run's folder.

    Example:
        >>> import tempfile
        >>> from bertkit.events import Notice
        >>> folder = Path(tempfile.mkdtemp())
        >>> with Journal(folder) as journal:
        ...     journal.open()
        ...     journal(Notice(message="hello"))
        >>> [event.message for event in read(folder)]
        ['hello']
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log: EventLog | None = None
        self._newest: deque[Step | Evaluation] = deque(maxlen=KEPT)

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, Step | Evaluation):
            self._newest.append(event)
        if self._log is not None:
            self._log(event)

    def open(self) -> None:
        """Write from now on.

        Raises:
            RunError: If another process writes the run's events.
        """
        if self._log is None:
            self._log = EventLog(self._folder)

    def take_over(self, global_step: int) -> None:
        """Write from now on in the place of a rank that was lost; does nothing if this one wrote.

        Args:
            global_step: The step that training goes on from; events up to it that the lost rank
                did not write are written now.

        Raises:
            RunError: If whoever wrote before does not let go of the file in time.
        """
        if self._log is not None:
            return
        deadline = time.monotonic() + RELEASE_SECONDS
        while self._log is None:
            try:
                self.open()
            except RunError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS)
        written = {(e.kind, getattr(e, "global_step", 0)) for e in read(self._folder)}
        for event in self._newest:
            if event.global_step <= global_step and (event.kind, event.global_step) not in written:
                self._log(event)

    def close(self) -> None:
        """Let go of the file."""
        log, self._log = self._log, None
        if log is not None:
            log.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
