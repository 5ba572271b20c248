"""Every tab of the studio on a small page: readable in both themes, named, reached by keyboard."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.lab_page import LONG, open_notebook, picture, run_all, write_notebook
from tests.browser.studio_page import TABS, button, field, shut_kernel_down, tab

pytestmark = pytest.mark.timeout(900)  # seconds

NAME = "looks.ipynb"
CELL = "from bertkit_widgets import Studio\nStudio()"
FOLDED = {
    "Data": ["Download"],
    "Hyperparameters": ["All settings", "Explain", "Show as Python", "Import, export"],
    "Training": ["Log", "Other runs"],
}

# What is wrong with what can be seen of the panels now, in words.
FAULTS = """() => {
    const faults = [];
    const visible = element => {
        const box = element.getBoundingClientRect();
        return box.width > 0 && box.height > 0 && getComputedStyle(element).visibility !== 'hidden';
    };
    const numbers = color => { const n = color.match(/[\\d.]+/g).map(Number);
                               return n.length > 3 ? n : [...n, 1]; };
    const luminance = color => {  // as WCAG 2 defines it
        const [r, g, b] = color.slice(0, 3).map(
            v => v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = element => {
        for (; element; element = element.parentElement) {
            const color = numbers(getComputedStyle(element).backgroundColor);
            if (color[3] > 0.99) return color;
        }
        return [255, 255, 255, 1];
    };
    const page = document.querySelector('.bk-studio').closest('.jp-OutputArea-output');
    const right = page.getBoundingClientRect().right;
    for (const element of document.querySelectorAll('.bk-studio, .bk-studio *')) {
        if (!visible(element) || ['STYLE', 'OPTION'].includes(element.tagName)) continue;
        const style = getComputedStyle(element), name = element.className || element.tagName;
        const scrolls = ['auto', 'scroll'].includes(style.overflowX);
        const mayScroll = ['TEXTAREA', 'SELECT', 'INPUT'].includes(element.tagName)
            || element.closest('.bk-scroll');
        if (scrolls && !mayScroll && element.scrollWidth > element.clientWidth + 1)
            faults.push(`${name} scrolls sideways`);
        if (element.getBoundingClientRect().right > right + 1)
            faults.push(`${name} is wider than the page`);
        const words = [...element.childNodes].filter(n => n.nodeType === 3)
            .map(n => n.textContent.trim()).join(' ').trim();
        if (words && !element.closest('[disabled]')) {
            const [a, b] = [luminance(numbers(style.color)), luminance(behind(element))];
            const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (contrast < 4.5) faults.push(`'${words.slice(0, 40)}' has ${contrast.toFixed(1)}`);
        }
    }
    const controls = [...document.querySelectorAll(
        '.bk-studio :is(input, select, textarea, button)')].filter(
        element => visible(element) && element.type !== 'file');
    const boxes = controls.map(element => element.getBoundingClientRect());
    for (let i = 0; i < boxes.length; i++)
        for (let j = i + 1; j < boxes.length; j++) {
            const [a, b] = [boxes[i], boxes[j]];
            const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
            const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
            if (across > 1 && down > 1)
                faults.push(`${controls[i].outerHTML} lies under ${controls[j].outerHTML}`);
        }
    return faults;
}"""

# Inputs without a label, labels and buttons without a tooltip, pictures without words.
NAMELESS = """() => {
    const found = [];
    for (const element of document.querySelectorAll('.bk-studio :is(input, select, textarea)')) {
        if (element.type === 'file' || element.closest('.bk-engines')) continue;
        const label = element.labels && element.labels[0], field = element.closest('.bk-field');
        const help = field && field.querySelector('.bk-help');
        if (!label || !label.textContent.trim()) found.push(element.outerHTML);
        else if (!help || !help.textContent.trim())
            found.push(`no tooltip: ${label.textContent}`);
    }
    for (const element of document.querySelectorAll('.bk-studio button'))
        if (!element.title || !element.textContent.trim()) found.push(element.outerHTML);
    for (const element of document.querySelectorAll('.bk-studio img'))
        if (!element.alt) found.push('a picture without words');
    return found;
}"""

# Marks what can be used now, so that the Tab key can be seen to reach all of it.
MARK = """() => {
    const all = [...document.querySelectorAll(
        '.bk-studio :is(input, select, textarea, button, a[href], summary, [role=tab])')];
    const usable = all.filter(e => {
        const box = e.getBoundingClientRect();
        const otherTab = e.getAttribute('role') === 'tab'
            && e.getAttribute('aria-selected') !== 'true';
        return box.width > 0 && box.height > 0 && !e.disabled && !otherTab
            && getComputedStyle(e).visibility !== 'hidden' && e.type !== 'file';
    });
    usable.forEach((element, number) => element.setAttribute('data-number', number));
    return usable.map(e => (e.labels && e.labels[0] || e).textContent.trim() || e.tagName);
}"""
FOCUSED = "document.activeElement.getAttribute('data-number')"


@pytest.fixture(scope="module")
def studio(browser, lab):
    """A page as wide as a small laptop's, with everything that can be folded out."""
    page = browser.new_page(viewport={"width": 1024, "height": 768})
    write_notebook(lab, NAME, CELL)
    open_notebook(page, lab, NAME)
    run_all(page)
    page.wait_for_selector(".bk-studio", timeout=LONG)
    for name, folded in FOLDED.items():
        tab(page, name)
        for words in folded:
            button(page, words).click()
    page.wait_for_timeout(1000)
    yield page
    shut_kernel_down(page)
    page.close()


@pytest.mark.parametrize("theme", ["Light", "Dark"])
@pytest.mark.parametrize("name", TABS)
def test_every_tab_can_be_read(studio, theme, name, screenshots):
    use_theme(studio, theme)
    tab(studio, name)
    studio.wait_for_timeout(300)
    picture(studio, screenshots / f"looks-{name.lower()}-{theme.lower()}.png")
    assert studio.evaluate(FAULTS) == []


def test_everything_has_a_name_and_a_tooltip(studio):
    assert studio.evaluate(NAMELESS) == []


def test_a_tooltip_shows_what_the_field_does(studio):
    tab(studio, "Trials")
    bubble = studio.locator(".bk-field-budget .bk-help")
    expect(bubble).to_be_hidden()
    field(studio, "Trials at most").hover()
    expect(bubble).to_be_visible(timeout=LONG)


@pytest.mark.parametrize("name", TABS)
def test_the_tab_key_reaches_everything_in_order(studio, name):
    tab(studio, name)
    studio.wait_for_timeout(300)
    usable = studio.evaluate(MARK)
    assert len(usable) > 3
    button(studio, "Start training").focus()
    reached = []
    while (number := studio.evaluate(FOCUSED)) is not None and number not in reached:
        reached.append(number)
        studio.keyboard.press("Tab")
    assert [usable[int(number)] for number in reached] == usable


def test_arrow_keys_go_from_tab_to_tab(studio):
    tab(studio, "Data")
    studio.get_by_role("tab", name="1 Data").focus()
    studio.keyboard.press("ArrowRight")
    studio.keyboard.press("Enter")
    chosen = studio.locator(".bk-studio").get_by_role("tab", selected=True)
    assert re.search("Engines", chosen.text_content())


def use_theme(page, theme):
    if page.evaluate("document.body.dataset.jpThemeLight") == (
        "false" if theme == "Dark" else "true"
    ):
        return
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    entries = page.locator(".lm-Menu-itemLabel")  # those that open a menu have no role
    entries.filter(has_text=re.compile("^Theme$")).hover()
    entries.filter(has_text=re.compile(f"^JupyterLab {theme}$")).click()
    page.wait_for_function(
        "light => document.body.dataset.jpThemeLight === light",
        arg="false" if theme == "Dark" else "true", timeout=LONG,
    )  # fmt: skip
