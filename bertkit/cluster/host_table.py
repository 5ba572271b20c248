"""What was found on hosts, as lines a person can read and as values for a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bertkit.cluster.host_check import HostReport

_HEADER = ("Host", "Engines", "Cores", "Load", "Free memory", "Python", "Interface", "Ready")


def host_table(reports: Sequence[HostReport]) -> str:
    """A line a host, then every fault and warning with its host's name."""
    rows = [_HEADER, *map(_row, reports)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    for report in reports:
        lines += [f"{report.host.name}: {fault}" for fault in report.faults]
        lines += [f"{report.host.name}: (it can serve, but) {words}" for words in report.warnings]
    return "\n".join(lines)


def to_json(reports: Sequence[HostReport]) -> list[dict[str, Any]]:
    """The same as plain values."""
    return [
        {
            "host": report.host.name,
            "engines": report.host.engines,
            "ready": report.ready,
            "faults": list(report.faults),
            "warnings": list(report.warnings),
            "python": report.python,
            "packages": dict(report.packages),
            "cores": len(report.cpus),
            "load": report.load,
            "free_memory_bytes": report.memory,
            "clock_ahead_seconds": report.clock,
            "address": report.address,
            "interface": report.interface,
        }
        for report in reports
    ]


def _row(report: HostReport) -> tuple[str, ...]:
    name, engines = report.host.name, str(report.host.engines)
    if not report.python:  # it said nothing
        return (name, engines, *("-",) * (len(_HEADER) - 3), "no")
    cores = min(len(report.cpus), report.limit or len(report.cpus))
    return (
        name, engines, str(cores), f"{report.load:.1f}", f"{report.memory / 2**30:.1f} GiB",
        report.python, report.interface, "yes" if report.ready else "no",
    )  # fmt: skip
