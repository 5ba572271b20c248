"""What becomes of a measurement: it is printed, and written where it shall be kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def show(result: Mapping[str, Any], out: Path | None) -> None:
    """Print a result, and write it where it shall be kept."""
    text = json.dumps(result, indent=2)
    print(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")
