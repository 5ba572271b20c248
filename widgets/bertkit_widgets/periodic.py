"""Work that is done again and again beside the kernel's own, without taking much of a core."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Periodic:
    """Calls a function again and again in one daemon thread until it says that it is done.

    A task of the kernel's event loop would stand still while a cell runs; a thread does not.

    Args:
        function: Called again and again; returns whether to go on.
        seconds: Pause between two calls.
        name: Name of the thread.
    """

    def __init__(self, function: Callable[[], bool], seconds: float, name: str) -> None:
        self._function = function
        self._seconds = seconds
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether the function is still being called."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin, unless it already runs."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
                self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the function has said that it is done; whether it has within the time."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return not self.running

    def _loop(self) -> None:
        pause = threading.Event()
        while self._function() or not self._may_end():
            pause.wait(self._seconds)

    def _may_end(self) -> bool:
        """Ask once more under the lock, so that a `start` in this moment is not lost."""
        with self._lock:
            if self._function():
                return False
            self._thread = None
            return True
