"""A real browser in front of a real JupyterLab."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.lab import Lab, running_lab

CHECKOUT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

NOT_OURS = "Kernel message validation error"
"""JupyterLab's complaint when its server garbles what a kernel that ends writes to stderr."""


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser."""
    pytest.importorskip("playwright", reason="playwright is not installed; see CONTRIBUTING")
    named = os.environ.get("BERTKIT_CHROMIUM")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if not found:
        pytest.skip("no Chromium here; install the package 'chromium' or name one in "
                    "BERTKIT_CHROMIUM")  # fmt: skip
    return found


@pytest.fixture(scope="module")
def lab(
    chromium: str,  # noqa: ARG001 - without a browser no server is started
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    """A JupyterLab over copies of the project's notebooks."""
    root = tmp_path_factory.mktemp("notebooks")
    for notebook in (CHECKOUT / "notebooks").glob("*.ipynb"):
        shutil.copy(notebook, root)
    with running_lab(root, tmp_path_factory.mktemp("jupyter")) as lab:
        yield lab


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[object]:
    """One browser for the tests of a file; its event loop is not left to other tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=ARGUMENTS,
            ignore_default_args=["--hide-scrollbars"],  # a person would see them, too
        )  # fmt: skip
        yield browser
        browser.close()


@pytest.fixture
def page(browser: object) -> Iterator[object]:
    """A fresh page at the width of a small laptop; errors of the page fail the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 1400})  # type: ignore[attr-defined]
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    errors = [error for error in errors if NOT_OURS not in error]
    assert not errors, errors


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of the page are kept, to be looked at."""
    named = os.environ.get("BERTKIT_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
