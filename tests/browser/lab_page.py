"""What a person does in JupyterLab: open a notebook, run its cells, look at what comes."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import nbformat

from tests.browser.lab import Lab

LONG = 180_000
"""Milliseconds that the slowest things may take on a busy machine, such as starting a kernel."""


def write_notebook(lab: Lab, name: str, *cells: str) -> str:
    """Put a notebook of some code cells into JupyterLab's folder; gives its name."""
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    )
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(notebook, lab.root / name)
    return name


def open_notebook(page: Any, lab: Lab, name: str) -> None:
    """Open a notebook and wait for its kernel."""
    page.goto(lab.page(name), timeout=LONG)
    # running cells before the kernel is there would ask which kernel to take
    page.wait_for_selector('#jp-main-statusbar :text("| Idle")', timeout=LONG)


def run_all(page: Any) -> None:
    """Run all cells."""
    choose(page, "Run", "Run All Cells")


def choose(page: Any, menu: str, entry: str) -> None:
    """Choose an entry of a menu."""
    page.get_by_role("menuitem", name=menu, exact=True).click()
    page.get_by_role("menuitem", name=re.compile(f"^{re.escape(entry)}")).first.click()


def save(page: Any, lab: Lab, name: str) -> Any:
    """Save the notebook and read it from the disk."""
    path = lab.root / name
    before = path.stat().st_mtime_ns
    choose(page, "File", "Save Notebook")
    for _ in range(LONG // 50):
        if path.stat().st_mtime_ns != before:
            with contextlib.suppress(nbformat.reader.NotJSONError):  # written by half
                return nbformat.read(path, as_version=4)
        page.wait_for_timeout(50)
    raise AssertionError(f"{name} was not saved within {LONG // 1000} s")


def picture(page: Any, path: Path) -> None:
    """Keep a picture of the page."""
    page.screenshot(path=str(path))
