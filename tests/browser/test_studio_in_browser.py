"""A person does the whole job by clicking: form, engines, training, early stop, asking."""

import json
import re

import nbconvert
import psutil
import pytest
from playwright.sync_api import expect

from bertkit.advisor import Store
from bertkit.events import Started, Step
from bertkit.run import Run
from tests import tiny
from tests.browser.lab_page import (
    LONG,
    choose,
    open_notebook,
    picture,
    run_all,
    save,
    write_notebook,
)
from tests.browser.studio_page import button, field, shut_kernel_down, tab
from tests.waiting import until

pytestmark = pytest.mark.timeout(1800)  # seconds; each wait below has an end of its own
LEARNING = 900_000
"""Milliseconds that training may take; alone on two cores it takes a fortieth of that."""

NOTEBOOK = "studio.ipynb"
CELL = "from bertkit_widgets import Studio\nstudio = Studio(timeout=300)\nstudio"


@pytest.fixture(scope="module")
def settings_file(lab, tiny_model, tiny_squad):
    """Settings with which a tiny BERT learns tiny questions in half a minute."""
    settings = tiny.settings(tiny_model, tiny_squad) | {
        "output": str(lab.root / "runs"),
        "target_f1": 85.0,
        "learning_rate": 2e-4,  # slow enough to be watched
        "evaluate_every": 25,
        "num_epochs": 60,
    }
    path = lab.root / "settings.json"
    path.write_text(json.dumps(settings))
    return path


@pytest.fixture
def studio(page, lab, settings_file):
    """The page with a studio that is set to the tiny questions."""
    yield open_studio(page, lab, settings_file, CELL)
    page.evaluate("1")  # the page still answers
    shut_kernel_down(page)


def open_studio(page, lab, settings_file, cell):
    write_notebook(lab, NOTEBOOK, cell)
    open_notebook(page, lab, NOTEBOOK)
    run_all(page)
    page.wait_for_selector(".bk-studio", timeout=LONG)
    tab(page, "Hyperparameters")
    button(page, "Import, export").click()
    field(page, "File").fill(str(settings_file))
    field(page, "File").press("Tab")
    button(page, "Read").click()
    expect(field(page, "Target F1")).to_have_value("85", timeout=LONG)
    return page


def start(page):
    button(page, "Start training").click()


# Keeps every picture that the page shows, however fast training is over.
COLLECT = """() => {
    window.shown = new Set();
    setInterval(() => {
        const image = document.querySelector('.bk-live .bk-plot img');
        if (image) window.shown.add(image.src);
    }, 20);
}"""
LAST_PICTURE = "document.querySelector('.bk-live .bk-plot img')?.src.slice(-300)"


def see_pictures_change(page, times):
    """Wait until the picture of the curves has changed some times."""
    for _ in range(times):
        last = page.evaluate(LAST_PICTURE)
        page.wait_for_function(f"last => ({LAST_PICTURE}) !== last", arg=last, timeout=LONG)


def test_from_the_form_to_an_answered_question(studio, lab, screenshots):
    page, status = studio, studio.locator(".bk-live .bk-state")
    begin = button(page, "Start training")

    rate = field(page, "Learning rate")
    rate.fill("fast")
    expect(page.locator(".bk-field-learning_rate.bk-wrong")).to_be_visible(timeout=LONG)
    expect(page.locator(".bk-field-learning_rate [role=alert]")).to_contain_text(
        "expected a number"
    )
    expect(begin).to_be_disabled()
    picture(page, screenshots / "wrong-value.png")
    rate.fill("2e-4")
    expect(begin).to_be_enabled(timeout=LONG)

    tab(page, "Data")
    button(page, "Check").click()
    expect(page.locator(".bk-data-state")).to_contain_text("can be used", timeout=LONG)
    picture(page, screenshots / "data.png")

    tab(page, "Engines")
    button(page, "Start engines").click()
    expect(page.locator(".bk-engines-table tbody tr")).to_have_count(2, timeout=LONG)
    expect(page.locator(".bk-engines-state")).to_contain_text("Ready.", timeout=LONG)
    picture(page, screenshots / "engines.png")

    page.evaluate(COLLECT)
    start(page)
    expect(begin).to_be_disabled()
    expect(status).to_contain_text("Training", timeout=LONG)
    see_pictures_change(page, 2)
    picture(page, screenshots / "training.png")
    expect(status).to_contain_text("early stop: F1 reached 85", timeout=LEARNING)
    assert page.evaluate("window.shown.size") > 5
    expect(begin).to_be_enabled(timeout=LONG)
    image = page.locator(".bk-live .bk-plot img")
    expect(image).to_have_attribute("alt", re.compile("validation F1"))
    assert image.evaluate("image => image.naturalWidth") > 600
    picture(page, screenshots / "finished.png")
    (run,) = [Run(folder) for folder in (lab.root / "runs").iterdir()]
    assert run.result.stopped_by == "target_f1"

    button(page, "Ask the model").click()
    field(page, "Paragraph").fill("the river . ada moss built the mill in tarn in 1805 .")
    field(page, "Question").fill("when was the mill built ?")
    button(page, "Ask").click()
    expect(page.locator(".bk-answer mark")).to_be_visible(timeout=LONG)
    picture(page, screenshots / "answer.png")
    button(page, "Wrong answers").click()
    expect(page.locator(".bk-ask-state")).to_contain_text("were not answered", timeout=LONG)
    expect(page.locator(".bk-wrong-answer table")).to_contain_text("Expected", timeout=LONG)
    picture(page, screenshots / "wrong-answers.png")

    kept = page.locator(".jp-OutputArea-output.jp-RenderedImage")
    expect(kept).to_have_count(1)
    expect(kept).to_be_hidden()  # the live picture is there
    outputs = save(page, lab, NOTEBOOK).cells[0].outputs
    assert any("image/png" in output.get("data", {}) for output in outputs)
    see_exported_picture(page, lab, screenshots)


def see_exported_picture(page, lab, screenshots):
    """Without a kernel, in the notebook's HTML export, the curves are still to be seen."""
    page_text, _ = nbconvert.HTMLExporter().from_filename(str(lab.root / NOTEBOOK))
    exported = page.context.browser.new_page()
    exported.route("http*://**", lambda route: route.abort())  # what it would fetch from the web
    exported.set_content(page_text, wait_until="domcontentloaded")
    image = exported.locator("img[src^='data:image/png']")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.naturalWidth") > 600
    picture(exported, screenshots / "exported.png")
    exported.close()


def test_stop_reload_and_see_the_history(studio, lab, screenshots):
    page, status = studio, studio.locator(".bk-live .bk-state")
    field(page, "Target F1").fill("100.1")
    field(page, "Number of epochs").fill("500")
    start(page)
    expect(status).to_contain_text("Training", timeout=LONG)
    see_pictures_change(page, 2)

    save(page, lab, NOTEBOOK)
    page.reload()
    page.wait_for_selector(".bk-studio", timeout=LONG)  # the kernel has kept it
    page.get_by_role("tab", name="4 Training").click()
    see_pictures_change(page, 2)

    button(page, "Stop").click()
    expect(status).to_contain_text("stopped by you", timeout=LONG)
    picture(page, screenshots / "reloaded-and-stopped.png")
    newest = max((lab.root / "runs").iterdir())
    assert Run(newest).result.stopped_by == "user"


def test_a_restarted_kernel_takes_up_its_run(page, lab, settings_file, screenshots):
    cell = CELL.replace("timeout=300", "timeout=300, keep_alive=True")
    open_studio(page, lab, settings_file, cell)
    status = page.locator(".bk-live .bk-state")
    field(page, "Target F1").fill("100.1")
    field(page, "Number of epochs").fill("500")
    start(page)
    expect(status).to_contain_text("Training", timeout=LONG)
    see_pictures_change(page, 2)
    run = Run(max((lab.root / "runs").iterdir()))
    seen = sum(isinstance(event, Step) for event in run.history())

    page.locator(".bk-studio").evaluate("studio => studio.dataset.old = 'yes'")
    choose(page, "Kernel", "Restart Kernel and Run All Cells")
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    page.wait_for_selector(".bk-studio:not([data-old])", timeout=LONG)
    expect(status).to_contain_text("Training", timeout=LONG)
    see_pictures_change(page, 2)
    picture(page, screenshots / "restarted.png")
    tab(page, "Engines")
    expect(page.locator(".bk-engines-state")).to_contain_text("share a run", timeout=LONG)
    button(page, "Stop").click()
    tab(page, "Training")
    expect(status).to_contain_text("stopped by you", timeout=LONG)

    history = run.history()
    steps = [event.global_step for event in history if isinstance(event, Step)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > seen, "it did not go on while the kernel was restarted"
    tab(page, "Engines")
    button(page, "Stop engines").click()
    expect(page.locator(".bk-engines-state")).to_contain_text("No engines yet", timeout=LONG)
    (started,) = [event for event in history if isinstance(event, Started)]
    until(lambda: not any(psutil.pid_exists(rank.pid) for rank in started.ranks))
    shut_kernel_down(page)


def test_a_new_kernel_shows_a_saved_run(page, lab, studio_run, screenshots):
    name = write_notebook(
        lab, "reopen.ipynb", f"from bertkit_widgets import LivePanel\nLivePanel({studio_run!r})"
    )
    open_notebook(page, lab, name)
    run_all(page)
    image = page.locator(".bk-live .bk-plot img")
    expect(image).to_have_attribute("alt", re.compile("validation F1"), timeout=LONG)
    button(page, "Log").click()
    expect(page.locator(".bk-log")).to_contain_text("Finished", timeout=LONG)
    picture(page, screenshots / "reopened.png")
    shut_kernel_down(page)


def test_one_trial_of_the_advisor(studio, lab, screenshots):
    page = studio
    field(page, "Number of epochs").fill("2")
    field(page, "Target F1").fill("20")  # a trial of a few seconds
    tab(page, "Trials")
    field(page, "Space").fill("learning_rate: soon")
    expect(page.locator(".bk-trials [role=alert]")).to_contain_text("learning_rate", timeout=LONG)
    expect(button(page, "Start search")).to_be_disabled()
    field(page, "Space").fill("learning_rate: 1e-4 to 4e-3, log\nbatch_size: 16, 32")
    button(page, "Next proposal").click()
    expect(page.locator(".bk-reason")).to_contain_text("without a search", timeout=LONG)
    picture(page, screenshots / "proposal.png")
    field(page, "learning_rate").fill("2e-3")
    button(page, "Accept").click()
    expect(page.locator(".bk-trials-state")).to_contain_text("Trial 1 goes on", timeout=LONG)
    expect(button(page, "Start training")).to_be_disabled()
    expect(page.locator(".bk-trials-table")).to_contain_text("★ best", timeout=LONG)
    expect(page.locator(".bk-pareto img")).to_have_attribute(
        "alt", re.compile("1 finished trials?")
    )
    expect(button(page, "Start training")).to_be_enabled(timeout=LONG)
    expect(page.locator(".bk-proposal")).to_be_visible(timeout=LONG)  # what comes next
    picture(page, screenshots / "trials.png")
    with Store(lab.root / "runs" / "advisor.db") as store:
        (trial,) = store.trials(store.experiments()[-1].id)
    assert trial.parameters == {"learning_rate": 2e-3, "batch_size": 16}
    assert Run(lab.root / "runs" / "trial-001").result.f1 == trial.metrics["f1"]


@pytest.fixture
def studio_run(lab):
    """Folder of a run that an earlier test has trained."""
    runs = sorted((lab.root / "runs").glob("*/result.json"))
    if not runs:
        pytest.skip("no run was trained before; run the whole file")
    return str(runs[0].parent)
