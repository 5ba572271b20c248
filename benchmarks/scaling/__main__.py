"""``python -m benchmarks.scaling``: measures, simulates, draws; see the package's own words."""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path
from types import FrameType

import benchmarks.scaling as package
from benchmarks.scaling.measure import PARTS, measure


def main() -> None:
    """Measure, or simulate from what was measured, or both."""
    words = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=package.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words.add_argument("do", nargs="?", choices=("all", "measure", "simulate"), default="all")
    words.add_argument("--out", type=Path, required=True, help="JSON file; the picture lies beside")
    words.add_argument("--only", choices=list(PARTS), nargs="+", help="measure these parts anew")
    words.add_argument("--log", type=Path, default=Path("scaling.log"), help="the ranks' output")
    options = words.parse_args()
    signal.signal(signal.SIGTERM, _leave)  # the namespaces are removed then, too
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    if options.do != "simulate":
        for part in options.only or PARTS:
            found.setdefault("measured", {}).update(measure([part], options.log))
            _write(options.out, found)
    if options.do != "measure":
        from benchmarks.scaling.simulate import simulate

        found["simulated"] = simulate(found["measured"], options.out.with_suffix(".png"))
        _write(options.out, found)


def _write(path: Path, found: dict[str, object]) -> None:
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _leave(number: int, frame: FrameType | None) -> None:
    del frame
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
