"""One visual language for every panel: colours, spacing, words that screen readers announce.

Colours come from JupyterLab's own variables where they exist, so that the panels follow its light
and dark theme; the values after them are for Colab and plain notebooks.
"""

from __future__ import annotations

import base64
import html
from typing import Any

import ipywidgets
from IPython.display import display

CSS = """
.bk { --bk-text: var(--jp-ui-font-color1, #1f2328); --bk-faint: var(--jp-ui-font-color2, #57606a);
  --bk-line: var(--jp-border-color2, #d0d7de); --bk-back: var(--jp-layout-color1, #fff);
  --bk-soft: var(--jp-layout-color2, #f3f4f6); --bk-blue: #0072B2; --bk-bad: #b3261e;
  --bk-good: #00694b; --bk-warn: #8a5a00; --bk-mark: #ffe08a; --bk-mark-text: #1f2328;
  color: var(--bk-text); font-size: 14px; line-height: 1.45; }
[data-jp-theme-light="false"] .bk, body.vscode-dark .bk, html[theme=dark] .bk {
  --bk-blue: #56B4E9; --bk-bad: #ff9d94; --bk-good: #4fd6a8; --bk-warn: #f0b64a; }
.bk .widget-box { overflow: visible; } /* the library's own would scroll by a few pixels */
.bk .widget-html, .bk .widget-html-content { font-size: inherit; line-height: inherit;
  height: auto; color: inherit; overflow: visible; }
.bk > .widget-html, .bk .widget-box > .widget-html { width: calc(100% - 4px); }
.bk-field > .widget-html.bk-hint { width: 100%; }
.bk h3 { font-size: 16px; margin: 2px 0 4px; font-weight: 600; color: var(--bk-text); }
.bk h4 { font-size: 13px; margin: 10px 0 2px; font-weight: 600; color: var(--bk-faint);
  border-bottom: 1px solid var(--bk-line); padding-bottom: 3px; }
.bk p { margin: 3px 0; max-width: 75ch; }
.bk code { background: var(--bk-soft); padding: 0 3px; border-radius: 3px; }
.bk pre { background: var(--bk-soft); padding: 8px 10px; border-radius: 5px; margin: 4px 0;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12.5px; color: var(--bk-text); }
.bk a { color: var(--bk-blue); }
.bk table { border-collapse: collapse; font-size: 13px; margin: 4px 0; }
.bk th { text-align: left; color: var(--bk-faint); font-weight: 600; }
.bk th, .bk td { padding: 3px 14px 3px 0; border-bottom: 1px solid var(--bk-line);
  vertical-align: top; }
.bk .num { text-align: right; font-variant-numeric: tabular-nums; }
.bk .bk-scroll { max-height: 260px; overflow: auto; }
.bk-note, .bk-wait, .bk-good, .bk-warn, .bk-bad { padding: 5px 10px; border-left: 4px solid;
  background: var(--bk-soft); border-radius: 3px; overflow-wrap: anywhere; }
.bk-note, .bk-wait { border-color: var(--bk-blue); } .bk-good { border-color: var(--bk-good); }
.bk-warn { border-color: var(--bk-warn); } .bk-bad { border-color: var(--bk-bad); }
.bk-good b { color: var(--bk-good); } .bk-warn b { color: var(--bk-warn); }
.bk-bad b { color: var(--bk-bad); }
.bk-spin { display: inline-block; width: .8em; height: .8em; border: 2px solid var(--bk-line);
  border-top-color: var(--bk-blue); border-radius: 50%; vertical-align: -1px; margin-right: 3px;
  animation: bk-turn 1.2s linear infinite; }
@keyframes bk-turn { to { transform: rotate(360deg); } }
@media (prefers-reduced-motion: reduce) { .bk-spin { animation: none; } }
.bk summary { cursor: pointer; color: var(--bk-faint); }
.bk-tiles { display: flex; flex-wrap: wrap; gap: 4px 22px; margin: 4px 0; }
.bk-tile { min-width: 4.5em; } .bk-tile b { display: block; font-size: 18px; font-weight: 600;
  font-variant-numeric: tabular-nums; line-height: 1.25; }
.bk-tile span { color: var(--bk-faint); font-size: 12px; }
.bk-track { height: 9px; background: var(--bk-soft); border: 1px solid var(--bk-line);
  border-radius: 5px; overflow: hidden; margin: 5px 0; }
.bk-track > div { height: 100%; background: var(--bk-blue); }
.bk-plot img { max-width: 100%; height: auto; display: block; }
[data-jp-theme-light="false"] .bk-plot img, body.vscode-dark .bk-plot img,
html[theme=dark] .bk-plot img { filter: invert(.93) hue-rotate(180deg); }
.jp-OutputArea:has(.bk-plot img) .jp-OutputArea-child:has(.jp-RenderedImage, .bk-kept) {
  display: none; }
.bk-row { align-items: center; flex-wrap: wrap; gap: 4px; }
.bk-row > .widget-button, .bk-row > .jupyter-button { width: auto; padding: 0 14px; }
.bk button:focus-visible, .bk input:focus-visible, .bk select:focus-visible,
.bk textarea:focus-visible, .bk [tabindex]:focus-visible { outline: 3px solid var(--bk-blue);
  outline-offset: 1px; }
.bk .bk-primary { background: #0072B2; color: #fff; font-weight: 600; }
.bk .bk-primary:disabled { background: var(--bk-soft); color: var(--bk-faint); opacity: .75; }
.bk-field { padding: 0 12px 4px 2px; min-width: 0; }
.bk-field .jupyter-widgets { margin-left: 0; margin-right: 0; }
.bk-field .widget-text, .bk-field .widget-dropdown, .bk-field .widget-combobox,
.bk-field .widget-textarea, .bk-field .widget-select { flex-direction: column; height: auto;
  width: 100%; align-items: stretch; }
.bk-field.bk-beside { padding: 0; flex: none; max-width: 100%; }
.bk-beside .widget-text, .bk-beside .widget-dropdown, .bk-beside .widget-combobox {
  flex-direction: row; width: auto; align-items: center; }
.bk-beside .widget-label { width: auto !important; margin-right: 8px; }
.bk-field .widget-label { width: 100%; text-align: left; font-weight: 500; height: 22px;
  line-height: 22px; color: var(--bk-text); white-space: nowrap; }
.bk-field .widget-checkbox, .bk-field .widget-checkbox .widget-label-basic { width: 100%; }
.bk-field .widget-checkbox { padding-top: 22px; height: 50px; }
.bk-field input[type=text], .bk-field .widget-dropdown select { height: 28px; flex: none;
  width: 100%; }
.bk-field .widget-select select { width: 100%; flex: none; }
.bk-field.bk-beside :is(input, select) { flex: 1 1 11em; width: auto; min-width: 0; }
.bk .bk-hint { color: var(--bk-faint); font-size: 12px; line-height: 1.35; min-height: 17px; }
.bk .bk-hint .bk-error { color: var(--bk-bad); font-weight: 600; }
.bk-field { position: relative; }
.bk-help { position: absolute; bottom: calc(100% - 2px); left: 2px; max-width: 26em; z-index: 9;
  visibility: hidden; opacity: 0; transition: opacity .15s .4s, visibility 0s .4s;
  padding: 5px 9px; background: var(--bk-back); color: var(--bk-text); pointer-events: none;
  border: 1px solid var(--bk-line); border-radius: 4px; box-shadow: 0 2px 8px rgba(0, 0, 0, .25); }
.bk-field:hover .bk-help { visibility: visible; opacity: 1; }
.bk-explained .bk-help { display: block; position: static; visibility: visible; opacity: 1;
  max-width: none; padding: 0; border: 0; box-shadow: none; background: none; transition: none; }
.bk-wrong input, .bk-wrong select, .bk-wrong textarea {
  border: 2px solid var(--bk-bad) !important; } /* also while one types into it */
.bk-changed .widget-label::after { content: " ●"; color: var(--bk-blue); }
.bk .bk-dot { color: var(--bk-blue); }
.bk mark { background: var(--bk-mark); color: var(--bk-mark-text); padding: 0 2px;
  border-radius: 2px; font-weight: 600; }
.bk-text { max-width: 80ch; line-height: 1.6; margin: 6px 0; overflow-wrap: anywhere; }
.bk .lm-TabBar-tab, .bk .p-TabBar-tab { flex: 0 0 auto !important; max-width: none !important; }
.bk .widget-tab-contents, .bk .jupyter-widget-tab-contents { padding: 10px 4px; }
"""


def stylesheet() -> Any:
    """The widget that brings the panels' style with it."""
    return ipywidgets.HTML(f"<style>{CSS}</style>", layout=ipywidgets.Layout(display="none"))


def panel(children: list[Any], name: str) -> Any:
    """The box of a whole panel.

    Args:
        children: Its parts from top to bottom.
        name: A word for its CSS class, by which tests find it.
    """
    box = ipywidgets.VBox([stylesheet(), *children], layout=ipywidgets.Layout(width="100%"))
    return tagged(box, "bk", f"bk-{name}")


def show(widget: Any, name: str) -> None:
    """Display a panel in the cell that runs now.

    Args:
        widget: The panel's box.
        name: What a saved notebook says in its place where no kernel runs.
    """
    bundle = dict(widget._repr_mimebundle_())
    bundle["text/plain"] = f"{name}: run this cell to use it"
    display(bundle, raw=True)


def tagged(widget: Any, *classes: str) -> Any:
    """Add CSS classes to a widget and return it."""
    for name in classes:
        widget.add_class(name)
    return widget


def row(children: list[Any]) -> Any:
    """Widgets side by side, on a second line where the page is narrow."""
    return tagged(ipywidgets.HBox(children), "bk-row")


def button(
    label: str, tooltip: str, name: str, *, icon: str = "", primary: bool = False, **traits: Any
) -> Any:
    """A button.

    Args:
        label: Its text.
        tooltip: What happens when it is pressed.
        name: A word for its CSS class, by which tests find it.
        icon: A Font Awesome name.
        primary: Whether it is what one most likely wants to press.
        **traits: Further traits of `ipywidgets.Button`.
    """
    widget = ipywidgets.Button(description=label, tooltip=tooltip, icon=icon, **traits)
    return tagged(widget, f"bk-{name}", *(["bk-primary"] if primary else []))


def toggle(label: str, tooltip: str, name: str, **traits: Any) -> Any:
    """A button that stays pressed; arguments as of `button`."""
    widget = ipywidgets.ToggleButton(description=label, tooltip=tooltip, **traits)
    return tagged(widget, f"bk-{name}")


def field(input: Any, *classes: str) -> Any:
    """An input below its label, with its tooltip as a bubble while the mouse is on it.

    ipywidgets itself shows an input's tooltip only where the input has no label.
    """
    bubble = text(f'<span class="bk-help">{escape(input.tooltip)}</span>')
    return tagged(ipywidgets.VBox([input, bubble]), "bk-field", *classes)


def beside(input: Any) -> Any:
    """An input beside its label in a row, with its tooltip as `field` shows it."""
    return tagged(field(input), "bk-beside")


def hidden(children: list[Any]) -> Any:
    """A box that is not to be seen before `reveal`."""
    return ipywidgets.VBox(children, layout=ipywidgets.Layout(display="none"))


def reveal(box: Any, shown: bool) -> None:
    """Show a box or hide it."""
    box.layout.display = None if shown else "none"


def text(value: str = "", *classes: str) -> Any:
    """A piece of HTML; escape what comes from elsewhere with `escape`."""
    return tagged(ipywidgets.HTML(value), *classes)


def heading(title: str, sentence: str = "") -> Any:
    """A panel's title and one sentence that says what to do in it."""
    below = f"<p>{sentence}</p>" if sentence else ""
    return text(f"<h3>{escape(title)}</h3>{below}")


def escape(words: object) -> str:
    """Text that may stand in HTML."""
    return html.escape(str(words))


def status(kind: str, title: str, words: str = "", details: str = "") -> str:
    """HTML of a message that screen readers announce.

    Args:
        kind: ``"note"``, ``"wait"``, ``"good"``, ``"warn"`` or ``"bad"``.
        title: The most important words.
        words: What more there is to say.
        details: Long text, folded away.
    """
    role = "alert" if kind == "bad" else "status"
    more = f" {escape(words)}" if words else ""
    folded = (
        f"<details><summary>Details</summary><pre>{escape(details)}</pre></details>"
        if details
        else ""
    )
    return (
        f'<div class="bk-{kind}" role="{role}"><b>{_SIGNS[kind]} {escape(title)}</b>{more}'
        f"{folded}</div>"
    )


_SIGNS = {
    "note": "ℹ",  # noqa: RUF001 - it is meant
    "wait": '<span class="bk-spin" aria-hidden="true"></span>',
    "good": "✔",
    "warn": "▲",
    "bad": "✖",
}


def progress_bar(done: float, total: float, label: str) -> str:
    """HTML of a progress bar; an unknown total shows an empty one."""
    share = 100 * min(1.0, done / total) if total else 0.0
    return (
        f'<div class="bk-track" role="progressbar" aria-label="{escape(label)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{share:.0f}"><div style="width:{share:.1f}%"></div>'
        "</div>"
    )


def tiles(values: list[tuple[str, str]]) -> str:
    """HTML of a row of large numbers.

    Args:
        values: Name and value of each.
    """
    parts = "".join(
        f'<div class="bk-tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in values
    )
    return f'<div class="bk-tiles">{parts}</div>'


def table(header: list[str], rows: list[list[object]], *, caption: str) -> str:
    """HTML of a table; numbers are set to the right.

    Args:
        header: Names of the columns.
        rows: What stands in it.
        caption: What it shows, for screen readers.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join("<tr>" + "".join(map(_cell, cells)) + "</tr>" for cells in rows)
    return (
        f'<table aria-label="{escape(caption)}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def picture(png: bytes, description: str) -> str:
    """HTML of a picture with its alternative text."""
    data = base64.b64encode(png).decode()
    return f'<img alt="{escape(description)}" src="data:image/png;base64,{data}">'


def _cell(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td class="num">{value:,}</td>'
    return f"<td>{escape(value)}</td>"
