"""The runs that a folder holds, as lists to choose from."""

from __future__ import annotations

from pathlib import Path

from bertkit.errors import BertkitError
from bertkit.run import CONFIG_FILE, Run

_TOLD = ("optimizer", "learning_rate", "batch_size", "num_epochs", "seed")


def saved_runs(parent: str | Path) -> list[tuple[str, str]]:
    """Names and folders of all runs in a folder, the newest first.

    Args:
        parent: The folder that runs were written to.
    """
    folders = [path.parent for path in Path(parent).glob(f"*/{CONFIG_FILE}")]
    folders.sort(key=lambda folder: (folder / CONFIG_FILE).stat().st_mtime, reverse=True)
    return [(describe_run(folder), str(folder)) for folder in folders]


def running_run(parent: str | Path) -> Run | None:
    """The newest run in a folder that some process still trains, or ``None``.

    Args:
        parent: The folder that runs were written to.
    """
    runs = (Run(folder) for _, folder in saved_runs(parent))
    return next((run for run in runs if run.running), None)


def describe_run(folder: Path) -> str:
    """One line about a run: its folder's name, how it ended and what was set."""
    run = Run(folder)
    try:
        result = run.result
        changed = run.config.changed()
    except (BertkitError, OSError, ValueError, TypeError):
        return f"{folder.name} · cannot be read"
    if result is not None:
        state = f"F1 {result.f1:.1f}"
    else:
        state = "running" if run.running else "not finished"
    told = [f"{name} {changed[name]}" for name in _TOLD if name in changed]
    return " · ".join([folder.name, state, *told])
