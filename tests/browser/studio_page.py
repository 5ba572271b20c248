"""The studio's parts on a page, as a person names them."""

from __future__ import annotations

import re
from typing import Any

from tests.browser.lab_page import choose

TABS = ("Data", "Engines", "Hyperparameters", "Training", "Trials", "Ask")


def tab(page: Any, name: str) -> None:
    """Open a tab of the studio."""
    page.get_by_role("tab", name=re.compile(rf"\d {name}")).click()


def field(page: Any, label: str) -> Any:
    """The input whose label begins with these words."""
    return page.locator(".bk-studio").get_by_label(re.compile(f"^{label}")).first


def button(page: Any, words: str) -> Any:
    """A button of the panels; an icon may stand before its words."""
    buttons = page.locator(".bk").get_by_role("button", name=re.compile(rf"^\W*{words}$"))
    return buttons.locator("visible=true").first


def shut_kernel_down(page: Any) -> None:
    """End the notebook's kernel."""
    choose(page, "Kernel", "Shut Down Kernel")
    page.wait_for_timeout(1500)
