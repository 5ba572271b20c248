"""Take the README's picture: the studio in JupyterLab while the demo trains.

python -m tests.browser.take_screenshot --out notebooks/images/studio.png
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser.conftest import ARGUMENTS, NAMES
from tests.browser.lab import running_lab
from tests.browser.lab_page import LONG, open_notebook, run_all, write_notebook

CELL = "from bertkit_widgets import Studio\n\nstudio = Studio()\nstudio"
WIDTH, HEIGHT = 1100, 890
TRAINING_MILLISECONDS = 1_800_000


def main() -> None:
    """Train the demo until its F1 has been measured some times, then take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--evaluations", type=int, default=4, help="points of the F1 curve")
    options = parser.parse_args()
    out: Path = options.out
    chromium = next(path for name in NAMES if (path := shutil.which(name)))
    with tempfile.TemporaryDirectory() as folder:
        root, private = Path(folder, "notebooks"), Path(folder, "jupyter")
        root.mkdir()
        with running_lab(root, private) as lab, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            open_notebook(page, lab, write_notebook(lab, "studio.ipynb", CELL))
            page.keyboard.press("Control+b")  # the list of files gives way
            run_all(page)
            page.get_by_role("button", name="Start training").click(timeout=LONG)
            page.wait_for_function(
                "count => [...document.querySelectorAll('.bk-log p')]"
                ".filter(line => line.textContent.includes(': F1')).length >= count",
                arg=options.evaluations, timeout=TRAINING_MILLISECONDS,
            )  # fmt: skip
            out.parent.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=str(out))
            page.get_by_role("button", name="Stop").first.click()
            browser.close()


if __name__ == "__main__":
    main()
