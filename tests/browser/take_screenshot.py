"""Take the README's picture: the studio in JupyterLab while the demo trains.

python -m tests.browser.take_screenshot --out notebooks/images/studio.png
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from bertkit import Config
from tests import tiny
from tests.browser.conftest import ARGUMENTS, NAMES
from tests.browser.lab import running_lab
from tests.browser.lab_page import LONG, open_notebook, run_all, write_notebook

CELL = "from bertkit_widgets import Studio\n\nstudio = Studio()\nstudio"
TINY = CELL.replace("Studio()", "Studio(Config.load('tiny.yaml'))").replace(
    "Studio\n", "Studio\n\nfrom bertkit import Config\n", 1
)
WIDTH, HEIGHT = 1100, 890
TRAINING_MILLISECONDS = 1_800_000


def main() -> None:
    """Train the demo until its F1 has been measured some times, then take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--evaluations", type=int, default=4, help="points of the F1 curve")
    parser.add_argument("--tiny", action="store_true", help="train a tiny BERT, not the demo")
    options = parser.parse_args()
    out: Path = options.out
    chromium = next(path for name in NAMES if (path := shutil.which(name)))
    with tempfile.TemporaryDirectory() as folder:
        root, private = Path(folder, "notebooks"), Path(folder, "jupyter")
        root.mkdir()
        if options.tiny:
            write_tiny_job(Path(folder)).save(root / "tiny.yaml")
        with running_lab(root, private) as lab, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            open_notebook(
                page, lab, write_notebook(lab, "studio.ipynb", TINY if options.tiny else CELL)
            )
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


def write_tiny_job(folder: Path) -> Config:
    """A model and questions that even a busy machine trains on in minutes."""
    model, data = tiny.write_model(folder / "tiny"), folder / "questions"
    settings = tiny.settings(model, tiny.write_questions(data, train=800))
    return Config.from_dict(
        settings | {"learning_rate": 4e-4, "evaluate_every": 25, "num_epochs": 20, "target_f1": 85}
    )


if __name__ == "__main__":
    main()
