"""The data panel: where the questions and the pretrained model are, and what is in them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np

from bertkit.config import Config, Scalar
from bertkit.errors import ConfigError, ModelError
from bertkit.reports import style as looks
from bertkit.reports.lengths import plot_lengths
from bertkit_widgets import style
from bertkit_widgets.background import Background
from bertkit_widgets.download import SQUAD, SQUAD_ADDRESS, download_squad
from bertkit_widgets.form import ConfigForm, read_problem
from bertkit_widgets.hyperparameters import PATHS

if TYPE_CHECKING:
    from bertkit.bert.pretrained import Pretrained
    from bertkit.squad.dataset import Dataset

MEASURED_QUESTIONS = 3000
"""Questions whose length is measured; a fixed random choice is enough for a picture."""

SHOWN_EXAMPLES = 3
SHOWN_PROBLEMS = 20
MODELS = (
    "minilm", "google-bert/bert-base-uncased", "google-bert/bert-large-uncased-whole-word-masking",
)  # fmt: skip


class DataPanel:
    """Chooses data and pretrained model, looks into them, and downloads them.

    Args:
        values: Paths to begin with; by default the bundled sample and the packaged model.
        on_change: Called after every change.
        address: Where the official SQuAD files are.

    Attributes:
        widget: The panel as a widget, to put into another.

    Example:
        >>> DataPanel().values["data"]
        'sample'
    """

    def __init__(
        self,
        values: Mapping[str, Scalar] | None = None,
        *,
        on_change: Callable[[], None] | None = None,
        address: str = SQUAD_ADDRESS,
    ) -> None:
        self._address = address
        self._max_seq_length = Config().max_seq_length
        self.form = ConfigForm(PATHS, on_change)
        self.form.widget.layout.grid_template_columns = "repeat(auto-fill, minmax(17em, 1fr))"
        self.form.widget.add_class("bk-explained")  # here one needs the sentences
        self._make_widgets()
        self._background = Background(self._say, self._lock_buttons)
        if values:
            self.values = dict(values)

    @property
    def values(self) -> dict[str, Scalar]:
        """The paths, by the names of the configuration."""
        return self.form.values

    @values.setter
    def values(self, values: Mapping[str, Scalar]) -> None:
        self.form.values = values
        length = values.get("max_seq_length")
        self._max_seq_length = length if isinstance(length, int) else self._max_seq_length

    def check(self) -> None:
        """Read data and model and show what is in them; returns at once."""
        self._background.start(self._check)

    def download(self) -> None:
        """Download the chosen version of SQuAD and use it; returns at once."""
        self._background.start(self._download)

    def download_model(self) -> None:
        """Download the chosen model and use it; returns at once."""
        self._background.start(self._download_model)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a check or download; whether it is done within the time."""
        return self._background.wait(timeout)

    def lock(self, locked: bool) -> None:
        """Lock the fields while a run uses their values, or unlock them."""
        self.form.disable(locked)

    def _ipython_display_(self) -> None:
        style.show(self.widget, "Data panel")

    # Widgets -----------------------------------------------------------------------------------

    def _make_widgets(self) -> None:
        self._check_button = style.button(
            "Check", "Read data and model and show what is in them", "check", icon="search"
        )
        self._check_button.on_click(lambda _: self.check())
        self._download_toggle = style.toggle(
            "Download", "Get the official SQuAD files or a pretrained model", "download-toggle"
        )
        self._state, self._progress = style.text("", "bk-data-state"), style.text("")
        self._found = style.text("", "bk-found")
        self._download_box = style.hidden([self._download_form()])
        self._download_toggle.observe(
            lambda change: style.reveal(self._download_box, change["new"]), "value"
        )
        self.widget = style.panel(
            [
                self.form.widget,
                style.row([self._check_button, self._download_toggle]),
                self._download_box, self._state, self._progress, self._found,
            ],
            "data",
        )  # fmt: skip

    def _download_form(self) -> Any:
        self._version = ipywidgets.Dropdown(
            options=[f"SQuAD {version}" for version in SQUAD], description="Data set",
            tooltip="1.1: every question has an answer; 2.0: some have none",
        )  # fmt: skip
        self._target = ipywidgets.Text(
            value="squad", description="Into folder", tooltip="Where the files are put"
        )
        self._download_button = style.button(
            "Download data", "About 35 MB; goes on where it broke off", "download", icon="download"
        )
        self._model = ipywidgets.Combobox(
            options=MODELS[1:], value=MODELS[1], description="Model",
            tooltip="Id of a BERT on the Hugging Face hub", ensure_option=False,
            layout=ipywidgets.Layout(width="32em"),
        )  # fmt: skip
        self._model_button = style.button(
            "Download model", "Hundreds of MB; goes on where it broke off", "download-model",
            icon="download",
        )  # fmt: skip
        self._download_button.on_click(lambda _: self.download())
        self._model_button.on_click(lambda _: self.download_model())
        return ipywidgets.VBox(
            [
                style.row(
                    [
                        style.beside(self._version),
                        style.beside(self._target),
                        self._download_button,
                    ]
                ),
                style.row([style.beside(self._model), self._model_button]),
            ]
        )

    def _say(self, words: str) -> None:
        self._progress.value = ""
        self._state.value = words

    def _lock_buttons(self, busy: bool) -> None:
        for button in (self._check_button, self._download_button, self._model_button):
            button.disabled = busy

    # Work --------------------------------------------------------------------------------------

    def _check(self) -> None:
        from bertkit.squad.reading import load_data

        self._found.value = ""
        try:
            config = Config.from_dict(self.values)
            self._say(style.status("wait", "Reading the questions", "…"))
            train, dev = load_data(config)
            self._say(style.status("wait", "Reading the model", "…"))
            pretrained = _load(str(config.model))
        except ConfigError as error:
            self.form.show_problems(error.problems)
            words = "; ".join(map(read_problem, error.problems))
            self._say(style.status("bad", "The data cannot be used.", words))
            return
        self._found.value = self._describe(train, dev, pretrained)
        problems = len(train.problems) + len(dev.problems)
        if problems:
            words = f"{problems:,} answers or questions are left out or cannot be trained on."
            self._say(style.status("warn", "Usable, with problems.", words))
        else:
            self._say(style.status("good", "Data and model can be used."))

    def _describe(self, train: Dataset, dev: Dataset, pretrained: Pretrained) -> str:
        lengths = _lengths(train, pretrained)
        figure = plot_lengths(lengths, self._max_seq_length)
        middle = int(np.median(lengths))
        description = (
            f"Histogram of the lengths of {len(lengths)} questions with their paragraphs: median "
            f"{middle} tokens, longest {max(lengths)}"
        )
        rows: list[list[object]] = [
            [part, len(data.contexts), len(data), _impossible(data), len(data.problems)]
            for part, data in (("Training", train), ("Validation", dev))
        ]
        header = ["", "Paragraphs", "Questions", "Without answer", "Problems"]
        return "".join(
            [
                style.table(header, rows, caption="What the data holds"),
                f"<p>{style.escape(_model_words(pretrained))}</p>",
                f'<div class="bk-plot">{style.picture(looks.png(figure), description)}</div>',
                _examples(train),
                _problems(train, dev),
            ]
        )

    def _download(self) -> None:
        version = str(self._version.value).removeprefix("SQuAD ")
        folder = download_squad(version, self._target.value, self._show_bytes, self._address)
        self.form.values = {"data": str(folder), "train_file": None, "dev_file": None}
        self._say(style.status("good", "Downloaded and checked.", f"The data is in {folder}."))
        self._check()

    _shown = 0.0

    def _show_bytes(self, name: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._shown < 0.25 and done < total:
            return
        self._shown = now
        self._state.value = style.status("wait", f"Downloading {name}", "…")
        amount = f"<p>{done / 1e6:.1f} of {total / 1e6:.1f} MB</p>"
        self._progress.value = style.progress_bar(done, total, f"Download of {name}") + amount

    def _download_model(self) -> None:
        from bertkit.bert.hub import fetch

        model = str(self._model.value).strip()
        self._say(style.status("wait", f"Asking for {model}", "…"))
        folder = fetch(model, lambda done, total: self._show_bytes(model, done, total))
        self.form.values = {"model": model}
        self._say(style.status("good", "Downloaded and checked.", f"{model} is in {folder}."))


def _load(model: str) -> Pretrained:
    from bertkit.bert.pretrained import load_pretrained

    try:
        return load_pretrained(model)
    except ModelError as error:
        from bertkit.errors import FieldProblem

        raise ConfigError([FieldProblem("model", str(error))]) from None


def _lengths(dataset: Dataset, pretrained: Pretrained) -> list[int]:
    """Tokens of question, paragraph and the three special ones, of some questions."""
    from bertkit.squad.tokenization import load_tokenizer

    tokenizer = load_tokenizer(pretrained.vocab_file, lowercase=pretrained.lowercase)
    count = min(len(dataset), MEASURED_QUESTIONS)
    chosen = np.random.default_rng(0).choice(len(dataset), count, replace=False)
    questions = [dataset.questions[int(index)] for index in chosen]
    texts = [text for q in questions for text in (q.question, dataset.context(q))]
    tokens = [len(encoding.ids) for encoding in tokenizer.encode_batch(texts)]
    return [3 + a + b for a, b in zip(tokens[::2], tokens[1::2], strict=True)]


def _impossible(dataset: Dataset) -> int:
    return sum(question.is_impossible for question in dataset.questions)


def _model_words(pretrained: Pretrained) -> str:
    sizes = pretrained.architecture
    weights = sum(tensor.size for tensor in pretrained.tensors.values())
    amount = f"{weights / 1e6:.0f} million" if weights >= 1e6 else f"{weights:,}"
    return (
        f"Model {pretrained.name}: {amount} weights, {sizes.num_hidden_layers} layers "
        f"of width {sizes.hidden_size}, {sizes.vocab_size:,} tokens in its vocabulary."
    )


def _examples(dataset: Dataset) -> str:
    parts = ["<h4>Examples</h4>"]
    for question in dataset.questions[:: max(1, len(dataset) // SHOWN_EXAMPLES)][:SHOWN_EXAMPLES]:
        context = dataset.context(question)
        answer = next(iter(question.answers), None)
        text = style.escape(context)
        if answer is not None and answer.start >= 0:
            end = answer.start + len(answer.text)
            text = (
                f"{style.escape(context[: answer.start])}<mark>"
                f"{style.escape(context[answer.start : end])}</mark>{style.escape(context[end:])}"
            )
        parts.append(
            f'<div class="bk-text"><b>{style.escape(question.question)}</b><br>{text}</div>'
        )
    return "".join(parts)


def _problems(train: Dataset, dev: Dataset) -> str:
    problems = [*train.problems, *dev.problems]
    if not problems:
        return ""
    rows: list[list[object]] = [
        [problem.file, problem.article, problem.question_id, problem.reason]
        for problem in problems[:SHOWN_PROBLEMS]
    ]
    more = len(problems) - len(rows)
    table = style.table(["File", "Article", "Question", "Reason"], rows, caption="Problems found")
    rest = f"<p>… and {more:,} more</p>" if more > 0 else ""
    return f"<h4>Problems</h4><div class='bk-scroll'>{table}{rest}</div>"
