"""The live panel: what a run does now, and how it compares with others."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets

from bertkit.errors import BertkitError
from bertkit.events import Evaluation, Event, EventReader, Failed, Finished, StopReason
from bertkit.reports import style as looks
from bertkit.reports.console import describe, duration
from bertkit.reports.curves import Along, Curves, plot_curves
from bertkit.reports.history import History
from bertkit.run import Result, Run
from bertkit_widgets import style
from bertkit_widgets.kept import KeptOutput
from bertkit_widgets.periodic import Periodic
from bertkit_widgets.saved_runs import saved_runs

POLL_SECONDS = 0.1
LEAST_REDRAW_SECONDS = 0.6
ONE_EVENT_LATER_SECONDS = 0.6
"""A single new point waits so much longer: where steps take a second, ranks would wait for each."""

DRAWING_SHARE = 0.025
"""Share of one core that drawing may take."""

QUIET_SECONDS = 5.0
"""A run without a writer for so long has been left by its process."""

LOG_LENGTH = 300


class WatchedRun:
    """One run whose events are gathered as they come.

    Args:
        run: The run's handle.

    Attributes:
        run: The run's handle.
        history: What was gathered.
        over: Whether nothing more will come.
        abandoned: Whether its process is gone without having ended the run.
        resuming: Whether it goes on after an end, but has not said so yet.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.history = History(run.folder.name)
        self.over = self.abandoned = self.resuming = False
        self._reader = EventReader(run.folder)
        self._asked = 0.0
        self._alive = True
        self._quiet_since: float | None = None

    def new(self) -> list[Event]:
        """Take in what was written since the last time."""
        alive = self._is_alive()  # asked before reading: what is written then is read now
        first = not len(self.history.steps) and not self.history.over
        events = self._reader.new()
        for event in events:
            self.history.add(event)
        self.resuming = alive and self.history.over and (self.resuming or first)
        quiet = not alive and not events
        self.abandoned = quiet and not self.history.over and self._left()
        self.over = quiet and (self.history.over or self.abandoned)
        return events

    def _is_alive(self) -> bool:
        now = time.monotonic()
        if now - self._asked >= (POLL_SECONDS if self.history.over else 1.0):
            self._asked, self._alive = now, self.run.running  # takes a look at the file's lock
            if self._alive:
                self._quiet_since = None
        return self._alive

    def _left(self) -> bool:
        """Whether nobody has written for a while: one process may hand over to another."""
        now = time.monotonic()
        if self._quiet_since is None:
            self._quiet_since = now
        return now - self._quiet_since >= QUIET_SECONDS


class LivePanel:
    """Shows a run while it trains and after: numbers, curves, log, Stop and Resume.

    It only reads the run's events, so it may be closed, opened twice, or opened in another
    notebook while the run goes on.

    Args:
        run: A run's handle or folder; `show` takes one later.
        runs_folder: Folder whose runs are offered to open and to compare with.
        on_resume: Called with a run's folder when Resume is pressed; gives the new handle. Without
            it there is no such button.
        on_change: Called when the run can be stopped or no longer can. Who asks for that has a
            Stop button of its own.

    Attributes:
        widget: The panel as a widget, to put into another.
        run: The run that is shown, or ``None``.

    Example:
        >>> LivePanel("runs/20261123-101500")                           # doctest: +SKIP
    """

    def __init__(
        self,
        run: Run | str | Path | None = None,
        *,
        runs_folder: str | Path = "runs",
        on_resume: Callable[[Path], Run] | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self._runs_folder = Path(runs_folder)
        self._on_resume = on_resume
        self._on_change = on_change
        self._watched: WatchedRun | None = None
        self._compared: list[WatchedRun] = []
        self._curves = _new_curves("step")
        self._log: deque[str] = deque(maxlen=LOG_LENGTH)
        self._stopping = False
        self._dirty = False
        self._undrawn_events = 0
        self._lock = threading.Lock()  # the thread reads and draws; the page's clicks change
        self._next_drawing = 0.0
        self._kept = KeptOutput()
        self._last_kept = 0.0
        self._thread = Periodic(self._tick, POLL_SECONDS, "bertkit-live")
        self._make_widgets()
        self._offer_runs()
        if run is not None:
            self.show(run)

    # Use ---------------------------------------------------------------------------------------

    @property
    def run(self) -> Run | None:
        """The run that is shown."""
        return self._watched.run if self._watched else None

    @property
    def can_stop(self) -> bool:
        """Whether the run that is shown goes on and was not yet asked to stop."""
        return not self._stop_button.disabled

    def show(self, run: Run | str | Path) -> None:
        """Show a run from its first event on, and follow it if it goes on.

        Raises:
            RunError: If a folder holds no run.
        """
        handle = run if isinstance(run, Run) else Run(run)
        watched = WatchedRun(handle)
        events = watched.new()
        with self._lock:
            self._log.clear()
            self._log.extend(_log_line(event) for event in events if _is_logged(event))
            self._stopping = False
            self._watched = watched
        self._folder_text.value = str(handle.folder.parent)
        self._change()

    def compare(self, runs: Sequence[Run | str | Path]) -> None:
        """Draw other runs over the one that is shown; an empty list takes them away.

        Raises:
            RunError: If a folder holds no run.
        """
        shown = self.run.folder.resolve() if self.run else None
        handles = [run if isinstance(run, Run) else Run(run) for run in runs]
        compared = [WatchedRun(h) for h in handles if h.folder.resolve() != shown]
        for watched in compared:
            watched.new()
        with self._lock:
            self._compared = compared
        self._change()

    def stop(self) -> None:
        """Ask the run to stop after its current step; returns at once."""
        if self.run is not None:
            self._stopping = True
            self.run.stop()
            self._change()

    def resume(self) -> None:
        """Let the run go on from its newest checkpoint."""
        if self.run is None or self._on_resume is None:
            return
        try:
            self.show(self._on_resume(self.run.folder))
        except BertkitError as error:
            self._say(style.status("bad", "Not resumed.", str(error)))

    def wait(self, timeout: float | None = None) -> Result:
        """Wait until the run is over and its last picture is drawn; for scripts.

        Args:
            timeout: Longest wait in seconds.

        Raises:
            BertkitError: If no run is shown.
            TrainingError: If the run failed.
            TimeoutError: If it is not over in time.
        """
        if self.run is None:
            raise BertkitError("the live panel shows no run; start one first")
        try:
            return self.run.wait(timeout)
        finally:
            if not self.run.running:
                self._thread.wait(10.0)

    def _ipython_display_(self) -> None:
        style.show(self.widget, "Live panel")
        self.keep_in_cell()

    def keep_in_cell(self) -> None:
        """Keep the newest picture in the cell that runs now, for when no kernel runs."""
        self._kept.place()
        if self._watched is not None:
            self._keep(final=self._watched.over)

    # Widgets -----------------------------------------------------------------------------------

    def _make_widgets(self) -> None:
        self._stop_button = style.button(
            "Stop", "Stop after the current step; the best model is kept", "stop",
            icon="stop", disabled=True,
        )  # fmt: skip
        self._resume_button = style.button(
            "Resume", "Go on from the newest checkpoint", "resume", icon="play", disabled=True
        )
        self._resume_button.layout.display = None if self._on_resume else "none"
        self._stop_button.layout.display = "none" if self._on_change else None
        self._along = ipywidgets.Dropdown(
            options=[("steps", "step"), ("minutes", "minutes")], value="step",
            description="Draw along", tooltip="Minutes compare runs of different speed",
            layout=ipywidgets.Layout(width="14em"),
        )  # fmt: skip
        self._status = style.text("", "bk-state")
        self._numbers = style.text("", "bk-numbers")
        self._picture = style.text("", "bk-plot")
        self._log_html = style.text("", "bk-scroll", "bk-log")
        self._log_toggle = style.toggle("Log", "Show what happened, the newest first", "log-toggle")
        self._runs_toggle = style.toggle(
            "Other runs", "Open a saved run, or draw several over each other", "runs-toggle"
        )
        self._log_box = style.hidden([self._log_html])
        self._runs_box = style.hidden([self._runs_form()])
        self._observe()
        self._say(
            style.status("note", "No run yet.", "Start one, or open a saved one under Other runs.")
        )
        self._draw_empty()
        self.widget = style.panel(
            [
                style.row(
                    [self._stop_button, self._resume_button, style.beside(self._along)]
                ),
                self._status, self._numbers, self._picture,
                style.row([self._log_toggle, self._runs_toggle]), self._log_box, self._runs_box,
            ],
            "live",
        )  # fmt: skip

    def _runs_form(self) -> Any:
        self._folder_text = ipywidgets.Text(
            value=str(self._runs_folder), description="Folder of runs",
            tooltip="Folder that holds runs; press Refresh after a change",
        )  # fmt: skip
        self._refresh = style.button("Refresh", "Look for runs in that folder", "refresh")
        self._choice = ipywidgets.SelectMultiple(
            rows=6, description="Saved runs",
            tooltip="Choose one with the arrow keys, several with Ctrl or Shift",
        )  # fmt: skip
        self._open = style.button("Open", "Show the first chosen run", "open")
        self._compare = style.button(
            "Compare", "Draw all chosen runs over the one that is shown", "compare"
        )
        self._alone = style.button("Show alone", "Take the compared runs away", "alone")
        return ipywidgets.VBox(
            [
                style.field(self._folder_text), style.field(self._choice),
                style.row([self._open, self._compare, self._alone, self._refresh]),
            ]
        )  # fmt: skip

    def _observe(self) -> None:
        self._stop_button.on_click(lambda _: self.stop())
        self._resume_button.on_click(lambda _: self.resume())
        self._along.observe(lambda _: self._change(), "value")
        self._log_toggle.observe(lambda c: style.reveal(self._log_box, c["new"]), "value")
        self._runs_toggle.observe(self._toggle_runs, "value")
        self._refresh.on_click(lambda _: self._offer_runs())
        self._open.on_click(lambda _: self._use_choice(lambda chosen: self.show(chosen[0])))
        self._compare.on_click(lambda _: self._use_choice(self.compare))
        self._alone.on_click(lambda _: self.compare([]))

    def _toggle_runs(self, change: dict[str, Any]) -> None:
        style.reveal(self._runs_box, change["new"])
        if change["new"]:
            self._offer_runs()

    def _offer_runs(self) -> None:
        self._choice.options = saved_runs(self._folder_text.value)

    def _use_choice(self, use: Callable[[list[str]], None]) -> None:
        try:
            if self._choice.value:
                use(list(self._choice.value))
        except BertkitError as error:
            self._say(style.status("bad", "Not opened.", str(error)))

    # Drawing -----------------------------------------------------------------------------------

    def _change(self) -> None:
        """Something other than an event changed what is to be seen: draw soon."""
        with self._lock:
            self._next_drawing, self._dirty = 0.0, True
        self._thread.start()

    def _tick(self) -> bool:
        """Read and, where it is time, draw; whether anything may still come."""
        with self._lock:
            try:
                over = self._read()
                later = ONE_EVENT_LATER_SECONDS if self._undrawn_events == 1 else 0.0
                if self._dirty and (over or time.monotonic() >= self._next_drawing + later):
                    self._draw(over)
            except Exception as error:  # it belongs on the page, not into a lost thread
                details = "".join(traceback.format_exception(error))
                self._say(style.status("bad", "The live view failed.", str(error), details))
                return False
            return self._dirty or not over

    def _read(self) -> bool:
        shown = [self._watched] if self._watched else []
        for watched in [*shown, *self._compared]:
            was_over = watched.over
            events = [] if was_over else watched.new()
            self._dirty = self._dirty or bool(events) or watched.over != was_over
            self._undrawn_events += len(events)
            if watched is self._watched:
                self._log.extend(_log_line(event) for event in events if _is_logged(event))
                if any(isinstance(event, Evaluation) for event in events):
                    self._last_kept -= 1e9  # a new score is worth keeping
        return all(watched.over for watched in [*shown, *self._compared])

    def _draw(self, over: bool) -> None:
        self._dirty, self._undrawn_events = False, 0
        began = time.thread_time()
        watched, histories = self._watched, self._histories()
        if self._curves.along != self._along.value:
            self._curves = _new_curves(self._along.value)
        if histories:
            self._curves.update(histories)
            self._png = self._curves.png()
            self._picture.value = style.picture(self._png, self._curves.description)
        if watched is not None:
            self._show_numbers(watched)
            self._show_state(watched)
            self._show_log()
            self._keep(final=watched.over)
        spent = time.thread_time() - began
        pause = max(LEAST_REDRAW_SECONDS, spent / DRAWING_SHARE)
        self._next_drawing = time.monotonic() + (0.0 if over else pause)

    def _histories(self) -> list[History]:
        runs = [*([self._watched] if self._watched else []), *self._compared]
        return [watched.history for watched in runs]

    def _draw_empty(self) -> None:
        self._png = self._curves.png()
        self._picture.value = ""  # axes without a run would only ask what they are for

    def _show_numbers(self, watched: WatchedRun) -> None:
        history = watched.history
        done, total = history.global_step, history.last_step
        name = "Training"
        if history.progress is not None and not watched.over:
            done, total, name = (
                history.progress.done,
                history.progress.total,
                history.progress.stage,
            )
        bar = "" if history.over and not watched.resuming else style.progress_bar(done, total, name)
        self._numbers.value = style.tiles(_tiles(history)) + bar

    def _show_state(self, watched: WatchedRun) -> None:
        self._say(_state(watched, self._stopping))
        ended = watched.over or (watched.history.over and not watched.resuming)
        before = self._stop_button.disabled
        self._stop_button.disabled = ended or self._stopping
        self._resume_button.disabled = not watched.over or _is_done(watched.history)
        if self._on_change and self._stop_button.disabled != before:
            self._on_change()

    def _show_log(self) -> None:
        lines = "".join(reversed(self._log))
        words = lines or "<p>Nothing yet.</p>"
        if words != self._log_html.value:
            self._log_html.value = words

    def _say(self, words: str) -> None:
        if words != self._status.value:  # else screen readers would say it again and again
            self._status.value = words

    def _keep(self, final: bool) -> None:
        """Renew what a saved notebook shows: at every score, every half minute and at the end."""
        now = time.monotonic()
        if self._watched is None or not (final or now - self._last_kept > 30.0):
            return
        self._last_kept = now
        png, description = self._png, self._curves.description
        if final:
            png = looks.png(plot_curves(self._histories(), along=self._along.value))
        self._kept.update(png, description, _kept_words(self._watched))


def _new_curves(along: Along) -> Curves:
    """Curves whose words stay readable where the page is narrow."""
    return Curves(along=along, width=7.4, height=5.0, dpi=122)


def _tiles(history: History) -> list[tuple[str, str]]:
    known = history.last_step > 0
    values = [("Step", f"{history.global_step:,} of {history.last_step:,}" if known else "–")]  # noqa: RUF001
    steps, scores = history.steps, history.evaluations
    values.append(("Loss", f"{steps.last('smoothed_loss'):.3f}" if len(steps) else "–"))  # noqa: RUF001
    speed = f"{steps.last('smoothed_examples_per_second'):.1f}" if len(steps) else "–"  # noqa: RUF001
    values.append(("Examples/sec", speed))
    values.append(_time_tile(history))
    f1 = f"{scores.last('f1'):.1f} %" if len(scores) else "–"  # noqa: RUF001
    target = f" (target {history.target_f1:g})" if history.target_f1 is not None else ""
    values.append((f"Validation F1{target}", f1))
    return values


def _time_tile(history: History) -> tuple[str, str]:
    if history.finished is not None:
        return "Training time", duration(history.finished.result["wall_seconds"])
    left = history.seconds_left
    return "Time left, at most", "–" if left is None else duration(left)  # noqa: RUF001


def _state(watched: WatchedRun, stopping: bool) -> str:
    history, folder = watched.history, str(watched.run.folder)
    if watched.resuming:
        return style.status("wait", "Resuming", "from the newest checkpoint …")
    if history.failed is not None:
        return _failure(history.failed, folder)
    if history.finished is not None:
        result = history.finished.result
        words = (
            f"F1 {result['f1']:.2f} %, exact match {result['exact_match']:.2f} % on "
            f"{result['total']:,} questions, step {history.global_step} ({history.ending()}). "
            f"The best model is in {folder}/model."
        )
        stopped = result["stopped_by"] == StopReason.USER
        return style.status("good", "Stopped." if stopped else "Finished.", words)
    if watched.abandoned:
        words = f"Its process is gone. Resume goes on from the newest checkpoint in {folder}."
        return style.status("warn", "The run has ended without a result.", words)
    if stopping and history.stopped is None:
        return style.status("wait", "Stopping", "after the current step …")
    if history.stopped is not None:
        stage = history.progress.stage if history.progress else "scoring the best model"
        return style.status("wait", f"Stopped at step {history.global_step}", f"– {stage} …")  # noqa: RUF001
    if history.progress is not None:
        return style.status("wait", history.progress.stage, "…")
    if history.started is None:
        return style.status("wait", "Starting", "the engines load their libraries …")
    ranks, hosts = history.started.ranks, {rank.host for rank in history.started.ranks}
    words = (
        f"with {len(ranks)} rank{'s' * (len(ranks) != 1)} on {', '.join(sorted(hosts))} in "
        f"{history.started.precision}. Run folder: {folder}"
    )
    return style.status("note", "Training", words)


def _failure(failed: Failed, folder: str) -> str:
    place = f"On rank {failed.rank}" if failed.rank is not None else ""
    if failed.host:
        place = f"{place} ({failed.host})" if place else f"On {failed.host}"
    words = f"{place + ': ' if place else ''}{failed.message} Run folder: {folder}"
    return style.status("bad", "The run has failed.", words, failed.details)


def _is_done(history: History) -> bool:
    """Whether there is nothing left that a resumed run could do."""
    return history.finished is not None and (
        history.stopped is None or history.stopped.stopped_by != StopReason.USER
    )


def _is_logged(event: Event) -> bool:
    return bool(describe(event)) or isinstance(event, Failed | Finished)


def _log_line(event: Event) -> str:
    words = describe(event)
    if isinstance(event, Failed):
        words = f"Failed: {event.message}"
    elif isinstance(event, Finished):
        result = event.result
        words = (
            f"Finished: F1 {result['f1']:.2f}, exact match {result['exact_match']:.2f} on "
            f"{result['total']:,} questions"
        )
    when = time.strftime("%H:%M:%S", time.localtime(event.time))
    return f"<p><code>{when}</code> {style.escape(words)}</p>"


def _kept_words(watched: WatchedRun) -> str:
    words = watched.history.summary()
    if watched.history.finished is not None:
        result = watched.history.finished.result
        words += f". Best model: F1 {result['f1']:.2f} % on {result['total']:,} questions"
    return f"{words}. Run folder: {watched.run.folder}"
