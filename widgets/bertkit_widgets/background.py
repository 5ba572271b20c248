"""Slow work that was asked for by a click, so that the kernel stays free for other cells."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable

from bertkit.errors import BertkitError
from bertkit_widgets import style


class Background:
    """Does one piece of work at a time in a daemon thread and shows how it ends.

    Args:
        say: Called with the HTML of a message when the work fails.
        on_busy: Called with whether work is going on, so that buttons can be locked.
    """

    def __init__(
        self, say: Callable[[str], None], on_busy: Callable[[bool], None] | None = None
    ) -> None:
        self._say = say
        self._on_busy = on_busy or (lambda _: None)
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether the work is still going on."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, work: Callable[[], None]) -> bool:
        """Begin, unless earlier work is not done; whether it has begun."""
        if self.busy:
            return False
        self._on_busy(True)
        self._thread = threading.Thread(
            target=self._do, args=(work,), name="bertkit-background", daemon=True
        )
        self._thread.start()
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the work; whether it is done within the time."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.busy

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BertkitError as error:
            self._say(style.status("bad", "That did not work.", str(error)))
        except Exception as error:  # it belongs on the page, not into a lost thread
            details = "".join(traceback.format_exception(error))
            self._say(style.status("bad", "That did not work.", str(error), details))
        finally:
            self._on_busy(False)
