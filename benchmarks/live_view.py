"""The live view under load: latency, memory and completeness, in a real browser.

Several processes write runs at a steady rate. One live panel in a real JupyterLab shows them over
each other while Chromium notes when each picture is on the screen. An event's latency is the time
from its record to the first picture that says (in its alternative text) that it is in it. The
sources take their numbers from a formula, so that the processor is not busy with training.

    python -m benchmarks.live_view --minutes 10 --out benchmarks/results/live_view.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright

from benchmarks.machine import describe_machine
from benchmarks.report import show
from bertkit.events import Evaluation, Finished, Step, read
from bertkit.run import CONFIG_FILE
from tests.browser.conftest import ARGUMENTS, NAMES
from tests.browser.lab import Lab, running_lab
from tests.browser.lab_page import LONG, open_notebook, run_all, write_notebook
from tests.reports import recorded_run

SETTLING_SECONDS = 15.0
"""Libraries and fonts are loaded within it; memory is compared from then on."""

CELL = """
import os, threading, time
from pathlib import Path
from bertkit_widgets import LivePanel

folders = [Path({root!r}) / name for name in {names!r}]
panel = LivePanel(folders[0])
panel.compare(folders[1:])
Path("kernel.pid").write_text(str(os.getpid()))

def write_what_was_gathered():
    import json
    watched = [panel._watched, *panel._compared]
    while not all(run.over for run in watched):
        time.sleep(0.5)
    gathered = {{
        run.run.folder.name: {{
            "steps": run.history.steps["global_step"].tolist(),
            "evaluations": run.history.evaluations["global_step"].tolist(),
        }}
        for run in watched
    }}
    Path("gathered.part").write_text(json.dumps(gathered))
    Path("gathered.part").rename("gathered.json")

threading.Thread(target=write_what_was_gathered, daemon=True).start()
panel
"""

COLLECT = """() => {
    window.pictures = [];
    let last = null;
    const look = async () => {
        const image = document.querySelector('.bk-live .bk-plot img');
        if (!image || image.alt === last) return;
        last = image.alt;
        const words = last;
        try { await image.decode(); } catch { return; }  // replaced before it could be shown
        requestAnimationFrame(() => requestAnimationFrame(
            () => window.pictures.push([Date.now() / 1000, words])));
    };
    new MutationObserver(look).observe(
        document.body, {subtree: true, childList: true, attributes: true});
}"""


@dataclass
class Memory:
    """What a process takes, sampled every second: seconds since the start, resident MiB."""

    samples: list[tuple[float, float]] = field(default_factory=list)

    def growth(self) -> dict[str, float]:
        """How much more it takes at the end than after settling, and at the most."""
        first = self.samples[0][0]
        settled = [mib for at, mib in self.samples if at - first >= SETTLING_SECONDS]
        tenth = max(5, len(settled) // 20)
        begin, end = statistics.median(settled[:tenth]), statistics.median(settled[-tenth:])
        return {
            "settled_mib": round(begin, 1),
            "end_mib": round(end, 1),
            "peak_mib": round(max(settled), 1),
            "growth_mib": round(end - begin, 1),
            "growth_to_peak_mib": round(max(settled) - begin, 1),
        }


@contextmanager
def sources(root: Path, names: Sequence[str], hz: float, steps: int) -> Iterator[None]:
    """Processes that write a run each, from now on."""
    same = ["--hz", str(hz), "--steps", str(steps), "--evaluate-every", "100"]
    same += ["--target-f1", "100.1"]  # none stops early
    processes = []
    try:
        for seed, name in enumerate(names):
            command = [sys.executable, recorded_run.__file__, str(root / name), *same]
            processes.append(subprocess.Popen([*command, "--seed", str(seed)]))
        while not all((root / name / CONFIG_FILE).exists() for name in names):
            time.sleep(0.1)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait(10)


def watch(page: Page, lab: Lab, seconds: float) -> tuple[Memory, float, dict[str, Any]]:
    """Follow the panel to its end; the kernel's memory, its share of a core, what it gathered."""
    until = time.monotonic() + seconds + 120
    kernel = psutil.Process(int((lab.root / "kernel.pid").read_text()))
    memory, gathered = Memory(), lab.root / "gathered.json"
    began, cpu = time.monotonic(), sum(kernel.cpu_times()[:2])
    while not gathered.exists():
        if time.monotonic() > until:
            raise TimeoutError("the live panel did not come to its end")
        page.wait_for_timeout(1000)
        memory.samples.append((time.monotonic(), kernel.memory_info().rss / 2**20))
    share = (sum(kernel.cpu_times()[:2]) - cpu) / (time.monotonic() - began)
    return memory, share, json.loads(gathered.read_text())


def latencies(folder: Path, pictures: Sequence[tuple[float, str]], since: float) -> list[float]:
    """Seconds from every step's record to the first picture that holds it.

    Args:
        folder: The run's folder.
        pictures: When each was on the screen, and its alternative text.
        since: Steps before that moment were there before anyone looked, and are left out.
    """
    pattern = re.compile(rf"\b{re.escape(folder.name)}: step (\d+) of")
    shown = [(at, int(hit[1])) for at, words in pictures if (hit := pattern.search(words))]
    found: list[float] = []
    place = 0
    for event in read(folder):
        if not isinstance(event, Step) or event.time < since:
            continue
        while place < len(shown) and shown[place][1] < event.global_step:
            place += 1
        if place == len(shown):
            raise RuntimeError(f"{folder.name}: step {event.global_step} was never on the screen")
        found.append(shown[place][0] - event.time)
    return found


def lost(folder: Path, gathered: dict[str, list[float]]) -> int:
    """Events of the file that the panel has not, or has not in their order."""
    events = read(folder)
    missing = 0
    for kind, name in ((Step, "steps"), (Evaluation, "evaluations")):
        written = [e.global_step for e in events if isinstance(e, kind)]
        if written != gathered[name]:
            missing += max(1, len(written) - len(gathered[name]))
    return missing + (not isinstance(events[-1], Finished))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run the load; gives everything that was measured."""
    machine, seconds = describe_machine(), 60 * options.minutes
    names = [f"source-{number}" for number in range(options.sources)]
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bertkit-live-")))
        (root / "notebooks").mkdir()
        lab = stack.enter_context(running_lab(root / "notebooks", root / "private"))
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=options.chromium, args=ARGUMENTS
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        cell = CELL.format(root=str(root / "runs"), names=names)
        write_notebook(lab, "live.ipynb", cell)
        open_notebook(page, lab, "live.ipynb")
        page.evaluate(COLLECT)
        steps = round(seconds * options.hz)
        stack.enter_context(sources(root / "runs", names, options.hz, steps))
        run_all(page)
        page.wait_for_selector(".bk-live .bk-plot img[alt^=Curves]", timeout=LONG)
        since = time.time()
        memory, share, gathered = watch(page, lab, seconds)
        page.wait_for_timeout(1500)
        pictures = [(at, words) for at, words in page.evaluate("window.pictures")]
        waits = [t for name in names for t in latencies(root / "runs" / name, pictures, since)]
        missing = {name: lost(root / "runs" / name, gathered[name]) for name in names}
        browser.close()
    waits.sort()
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(pictures)]
    return {
        "machine": machine,
        "sources": options.sources,
        "events_per_second_of_each": options.hz,
        "minutes": options.minutes,
        "events": sum(len(part) for runs in gathered.values() for part in runs.values()),
        "lost_events": sum(missing.values()),
        "pictures": len(pictures),
        "seconds_between_pictures_median": round(statistics.median(gaps), 3),
        "latency_seconds": {
            "events": len(waits),
            "median": round(statistics.median(waits), 3),
            "95th_percentile": round(waits[int(0.95 * len(waits))], 3),
            "largest": round(waits[-1], 3),
        },
        "kernel_memory": memory.growth(),
        "kernel_share_of_one_core": round(share, 3),
    }  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--minutes", type=float, default=10.0)
    words.add_argument("--hz", type=float, default=20.0, help="events/sec of each source")
    words.add_argument("--sources", type=int, default=4)
    words.add_argument("--chromium", default=f"/usr/bin/{NAMES[0]}")
    words.add_argument("--out", type=Path)
    options = words.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # end servers and sources too
    show(measure(options), options.out)


if __name__ == "__main__":
    main()
