"""What stays in a saved notebook when no kernel runs: a picture and its words."""

from __future__ import annotations

import base64
from typing import Any

from IPython.display import display

from bertkit_widgets.style import escape


class KeptOutput:
    """An output of the current cell that can be changed later, also from another thread.

    Widgets need a kernel; a notebook that is opened without one, exported to HTML or looked at on
    the web shows this instead. While the widgets are live their style hides it.
    """

    def __init__(self) -> None:
        self._picture: Any = None
        self._words: Any = None

    def place(self) -> None:
        """Make room for it in the cell that runs now."""
        empty = {"text/plain": ""}
        self._picture = display(empty, raw=True, display_id=True)
        self._words = display(empty, raw=True, display_id=True)

    def update(self, png: bytes, description: str, words: str) -> None:
        """Change what is kept.

        Args:
            png: The picture.
            description: What it shows, for people who do not see it.
            words: A short text below it.
        """
        if self._picture is None:
            return
        picture = {"image/png": base64.b64encode(png).decode(), "text/plain": description}
        text = {"text/html": f'<div class="bk-kept">{escape(words)}</div>', "text/plain": words}
        metadata = {"image/png": {"alt": description}}
        self._picture.update(picture, raw=True, metadata=metadata)
        self._words.update(text, raw=True)
