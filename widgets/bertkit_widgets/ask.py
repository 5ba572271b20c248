"""The ask panel: a paragraph, a question, and the answer highlighted in the paragraph."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np

from bertkit.errors import ModelError, RunError
from bertkit.run import PREDICTIONS_FILE, Run
from bertkit_widgets import style
from bertkit_widgets.background import Background
from bertkit_widgets.saved_runs import saved_runs

if TYPE_CHECKING:
    from bertkit import Predictor
    from bertkit.squad.dataset import Dataset, Question
    from bertkit.training.prediction import Answer

PARAGRAPH = (
    "The lighthouse at Marrow Point was built in 1871 by the engineer Ada Fenwick. It is 38 "
    "metres tall and was lit with whale oil until 1904, when the harbour council paid for an "
    "electric lamp. Today the writer Tomas Reed lives there with his two dogs."
)
QUESTION = "Who built the lighthouse?"
SHOWN_ANSWERS = 4


@dataclass(frozen=True)
class WrongAnswer:
    """A validation question that the best model did not answer exactly.

    Args:
        question: The question.
        context: Its paragraph.
        given: What the model answered; empty for no answer.
        f1: F1 of that answer, from 0 to 1.
    """

    question: Question
    context: str
    given: str
    f1: float


def wrong_answers(run: Run, dev: Dataset) -> list[WrongAnswer]:
    """Validation questions that were not answered exactly, the worst first.

    Args:
        run: A finished run.
        dev: Its validation questions.

    Raises:
        RunError: If the run has no predictions yet.
    """
    from bertkit.squad.scoring import question_scores

    path = run.folder / PREDICTIONS_FILE
    if not path.is_file():
        raise RunError(f"{run.folder} holds no {PREDICTIONS_FILE}; let the run finish first")
    answers: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    scores = question_scores(dev, answers, version_2=dev.has_impossible)
    worst_first = np.lexsort((scores.index, scores.f1))
    found = []
    for place in worst_first:
        if scores.exact_match[place] < 1:
            question = dev.questions[int(scores.index[place])]
            given = answers.get(question.id, "")
            found.append(
                WrongAnswer(question, dev.context(question), given, float(scores.f1[place]))
            )
    return found


class AskPanel:
    """Asks a trained model questions, and shows where it went wrong.

    Args:
        run: A finished run or its folder; by default the newest of ``runs_folder``.
        runs_folder: Folder whose runs are offered.

    Attributes:
        widget: The panel as a widget, to put into another.

    Example:
        >>> AskPanel("runs/20261123-101500")                            # doctest: +SKIP
    """

    def __init__(
        self, run: Run | str | Path | None = None, *, runs_folder: str | Path = "runs"
    ) -> None:
        self._runs_folder = Path(runs_folder)
        self._predictors: dict[str, Predictor] = {}
        self._wrong: list[WrongAnswer] = []
        self._make_widgets()
        self._background = Background(self._say, self._lock)
        self.refresh(run)

    # Use ---------------------------------------------------------------------------------------

    def refresh(self, run: Run | str | Path | None = None) -> None:
        """Offer the runs that are there now, and choose one of them.

        Args:
            run: The run to choose; by default the chosen one, or else the newest with a model.
        """
        folder = run.folder if isinstance(run, Run) else run
        if folder is not None:
            self._runs_folder = Path(folder).parent
        offered = [(name, path) for name, path in saved_runs(self._runs_folder) if _has_model(path)]
        chosen = str(folder) if folder is not None else self._run.value
        self._run.options = offered or [("none yet", "")]
        folders = [path for _, path in self._run.options]
        # a list that was empty once chooses nothing by itself
        self._run.value = chosen if chosen in folders else folders[0]
        if not offered:
            self._say(style.status("note", "No trained model yet.", "Train one first."))
        elif "No trained model" in self._state.value:
            self._say("")
        self._lock(self._background.busy)

    def ask(self) -> None:
        """Ask the chosen model what stands in the fields; returns at once."""
        self._background.start(self._ask)

    def show_wrong(self) -> None:
        """List the validation questions that the run answered wrong; returns at once."""
        self._background.start(self._list_wrong)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for an answer; whether it came within the time."""
        return self._background.wait(timeout)

    def _ipython_display_(self) -> None:
        style.show(self.widget, "Ask panel")

    # Widgets -----------------------------------------------------------------------------------

    def _make_widgets(self) -> None:
        wide = ipywidgets.Layout(width="100%")
        self._run = ipywidgets.Dropdown(
            options=[], description="Model of run", layout=wide,
            tooltip="Runs with a trained model, the newest first",
        )  # fmt: skip
        self._paragraph = ipywidgets.Textarea(
            value=PARAGRAPH, description="Paragraph", rows=6, layout=wide,
            tooltip="Any text; the answer is a part of it",
        )  # fmt: skip
        self._question = ipywidgets.Text(
            value=QUESTION, description="Question", layout=wide, continuous_update=True,
            tooltip="A question about the paragraph",
        )  # fmt: skip
        self._ask_button = style.button(
            "Ask", "Find the answer in the paragraph", "ask", icon="question", primary=True
        )
        self._refresh_button = style.button("Refresh", "Look for new runs", "refresh")
        self._wrong_button = style.button(
            "Wrong answers", "Validation questions that the model did not answer exactly", "wrong"
        )
        self._ask_button.on_click(lambda _: self.ask())
        self._refresh_button.on_click(lambda _: self.refresh())
        self._wrong_button.on_click(lambda _: self.show_wrong())
        self._run.observe(lambda _: self._forget_wrong(), "value")
        self._state, self._answer = style.text("", "bk-ask-state"), style.text("", "bk-answer")
        self._wrong_list = ipywidgets.Select(
            options=[], rows=8, description="Questions", layout=wide,
            tooltip="Choose one with the arrow keys to see it",
        )  # fmt: skip
        self._wrong_list.observe(lambda _: self._show_chosen_wrong(), "index")
        self._wrong_text = style.text("", "bk-wrong-answer")
        self._wrong_box = style.hidden([style.field(self._wrong_list), self._wrong_text])
        fields = [style.field(part) for part in (self._run, self._paragraph, self._question)]
        self.widget = style.panel(
            [
                *fields,
                style.row([self._ask_button, self._wrong_button, self._refresh_button]),
                self._state, self._answer, self._wrong_box,
            ],
            "ask-panel",
        )  # fmt: skip

    def _say(self, words: str) -> None:
        self._state.value = words

    def _lock(self, busy: bool) -> None:
        self._ask_button.disabled = self._wrong_button.disabled = busy or not self._run.value

    def _forget_wrong(self) -> None:
        style.reveal(self._wrong_box, False)
        self._wrong_text.value = ""

    # Work --------------------------------------------------------------------------------------

    def _ask(self) -> None:
        self._answer.value = ""
        context, question = self._paragraph.value, self._question.value.strip()
        if not context.strip() or not question:
            empty = "paragraph" if not context.strip() else "question"
            raise ModelError(f"the {empty} is empty; type one")
        predictor = self._predictor()
        self._say(style.status("wait", "Reading the paragraph", "…"))
        answers = predictor.ask(context, question, count=SHOWN_ANSWERS)
        self._say(_headline(answers))
        self._answer.value = _marked(context, answers) + _runner_ups(answers)

    def _predictor(self) -> Predictor:
        folder = self._chosen()
        if folder not in self._predictors:
            self._say(style.status("wait", "Loading the model", "…"))
            from bertkit import Predictor

            self._predictors.clear()  # one model in memory is enough
            run = Run(folder)
            self._predictors[folder] = Predictor(run.model_folder, run.config)
        return self._predictors[folder]

    def _chosen(self) -> str:
        if not self._run.value:
            raise RunError(
                f"no run in {self._runs_folder} has a trained model; train one, then press Refresh"
            )
        return str(self._run.value)

    def _list_wrong(self) -> None:
        from bertkit.squad.reading import load_data

        run = Run(self._chosen())
        self._say(style.status("wait", "Comparing the answers", "…"))
        _, dev = load_data(run.config)
        self._wrong = wrong_answers(run, dev)
        self._wrong_list.options = [
            f"F1 {100 * wrong.f1:3.0f} · {wrong.question.question}" for wrong in self._wrong
        ]
        words = f"{len(self._wrong):,} of {len(dev):,} were not answered exactly."
        self._say(style.status("note", "Validation questions:", words))
        style.reveal(self._wrong_box, bool(self._wrong))
        self._wrong_list.index = 0 if self._wrong else None
        self._show_chosen_wrong()

    def _show_chosen_wrong(self) -> None:
        index = self._wrong_list.index
        if index is None or index >= len(self._wrong):
            return
        wrong = self._wrong[index]
        expected = sorted({answer.text for answer in wrong.question.answers}) or ["(no answer)"]
        rows: list[list[object]] = [
            ["The model answered", wrong.given or "(no answer)"],
            ["Expected", " or ".join(expected)],
            ["F1", f"{100 * wrong.f1:.0f} %"],
        ]
        self._wrong_text.value = (
            f"<p><b>{style.escape(wrong.question.question)}</b></p>"
            + _with_marks(wrong.context, _first_span(wrong))
            + style.table(["", ""], rows, caption="The answer and what was expected")
        )


def _has_model(folder: str) -> bool:
    return (Run(folder).model_folder / "config.json").is_file()


def _headline(answers: list[Answer]) -> str:
    best = answers[0]
    if not best.text:
        return style.status("note", "No answer.", f"The paragraph holds none ({best.score:.0%}).")
    return style.status("good", best.text, f"({best.score:.0%} sure)")


def _marked(context: str, answers: list[Answer]) -> str:
    best = answers[0]
    return _with_marks(context, (best.start_char, best.end_char) if best.text else None)


def _with_marks(context: str, span: tuple[int, int] | None) -> str:
    """The paragraph with a part of it highlighted."""
    if span is None:
        return f'<div class="bk-text">{style.escape(context)}</div>'
    before, inside, after = context[: span[0]], context[span[0] : span[1]], context[span[1] :]
    return (
        f'<div class="bk-text">{style.escape(before)}<mark>{style.escape(inside)}</mark>'
        f"{style.escape(after)}</div>"
    )


def _first_span(wrong: WrongAnswer) -> tuple[int, int] | None:
    """Where the model's answer stands in the paragraph, as far as its text tells."""
    start = wrong.context.find(wrong.given) if wrong.given else -1
    return (start, start + len(wrong.given)) if start >= 0 else None


def _runner_ups(answers: list[Answer]) -> str:
    rows: list[list[object]] = [
        [answer.text or "(no answer)", f"{answer.score:.1%}", _bar(answer.score)]
        for answer in answers
    ]
    body = "".join(
        f"<tr><td>{style.escape(text)}</td><td class='num'>{score}</td><td>{bar}</td></tr>"
        for text, score, bar in rows
    )
    return (
        '<table aria-label="Best answers"><thead><tr><th scope="col">Best answers</th>'
        f'<th scope="col">Score</th><th></th></tr></thead><tbody>{body}</tbody></table>'
    )


def _bar(share: float) -> str:
    return (
        '<div class="bk-track" aria-hidden="true" style="width:120px">'
        f'<div style="width:{100 * share:.1f}%"></div></div>'
    )
