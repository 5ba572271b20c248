"""The engines panel: starts and stops engines and shows what each of them does."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets
import psutil

from bertkit.cluster.hosts import Host, read_hosts
from bertkit.errors import BertkitError, ClusterError
from bertkit_widgets import style
from bertkit_widgets.background import Background
from bertkit_widgets.checked_field import CheckedField
from bertkit_widgets.form import grid
from bertkit_widgets.periodic import Periodic

if TYPE_CHECKING:
    from bertkit.cluster import Cluster
    from bertkit.cluster.engine import EngineInfo

LOOK_SECONDS = 2.0
MOST_ENGINES = 64


class EnginesPanel:
    """Starts, shows and stops the engines that train.

    Args:
        n: Number of engines to begin with.
        on_change: Called when the engines' state changes.
        **options: Further arguments of `bertkit.Cluster`, such as ``interface``.

    Attributes:
        widget: The panel as a widget, to put into another.
        cluster: The cluster, or ``None`` before it is started.

    Example:
        >>> panel = EnginesPanel(n=2)
        >>> panel.state
        'stopped'
    """

    def __init__(
        self, n: int = 2, *, on_change: Callable[[], None] | None = None, **options: Any
    ) -> None:
        self.cluster: Cluster | None = None
        self._options = options
        self._on_change = on_change
        self._processes: dict[int, psutil.Process] = {}
        self._seen: dict[int, float] = {}
        self._last_state = ""
        self._left_behind = False
        self._make_widgets(n)
        self._background = Background(self._say)
        self._thread = Periodic(self._look, LOOK_SECONDS, "bertkit-engines")

    @property
    def state(self) -> str:
        """``"stopped"``, ``"starting"``, ``"idle"``, ``"training"`` or ``"failed"``."""
        return self.cluster.state if self.cluster is not None else "stopped"

    @property
    def problem(self) -> str | None:
        """What is wrong with the fields."""
        try:
            self._hosts.value  # noqa: B018 - raises if it means nothing
            _number("Engines", self._count.value, 1, MOST_ENGINES)
            if self._cores.value.strip():
                _number("Cores per engine", self._cores.value, 1, 1024)
        except ClusterError as error:
            return str(error)
        return None

    @property
    def n(self) -> int:
        """Number of engines that are or will be started.

        Raises:
            ClusterError: If the fields hold no such number.
        """
        if self.cluster is not None:
            return self.cluster.n
        if hosts := self._hosts.value:
            return sum(host.engines for host in hosts)
        return _number("Engines", self._count.value, 1, MOST_ENGINES)

    def start(self) -> Cluster:
        """Start the engines, or find them started; returns at once.

        Raises:
            ClusterError: If the fields hold no numbers that this machine can give.
        """
        if self.cluster is None or self.state == "failed":
            from bertkit.cluster import Cluster

            cores = self._cores.value.strip()
            hosts = self._hosts.value
            self.cluster = Cluster(
                n=_number("Engines", self._count.value, 1, MOST_ENGINES),
                hosts={host.location: host.engines for host in hosts} or None,
                cores_per_engine=_number("Cores per engine", cores, 1, 1024) if cores else None,
                profile=self._profile.value.strip() or None,
                report=lambda line: self._say(style.status("wait", line)),
                **self._options,
            ).start(wait=False)
        self._thread.start()
        return self.cluster

    def take_up(self, profile: str) -> Cluster:
        """Take up engines that an earlier kernel has left running; returns at once.

        Args:
            profile: As `bertkit.Cluster.profile` gave it.
        """
        self._profile.value = profile
        self._left_behind = True
        return self.start()

    def stop(self) -> None:
        """End the engines; a run that goes on is stopped first. Returns at once."""
        self._background.start(self._stop)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until `stop` is done; whether it is within the time."""
        return self._background.wait(timeout)

    def _ipython_display_(self) -> None:
        style.show(self.widget, "Engines panel")

    # Widgets -----------------------------------------------------------------------------------

    def _make_widgets(self, n: int) -> None:
        cores = len(os.sched_getaffinity(0))
        self._count = ipywidgets.Text(
            value=str(n), description="Engines", continuous_update=True,
            tooltip=f"One Horovod rank each; this machine has {cores} cores",
        )  # fmt: skip
        self._cores = ipywidgets.Text(
            value="", description="Cores per engine", placeholder="an equal share",
            tooltip="Cores that each engine computes with; empty shares them equally",
        )  # fmt: skip
        self._hosts = CheckedField(
            ipywidgets.Text(
                value="", description="Hosts", placeholder="this machine",
                tooltip="Start engines over ssh on these hosts; empty starts them here",
            ),
            _read_hosts, "hosts", hint="Such as node1:2, node2:2; empty is this machine.",
            on_change=self._show_problem,
        )  # fmt: skip
        self._profile = ipywidgets.Text(
            value="", description="IPython profile", placeholder="start engines here",
            tooltip="Profile of a running ipyparallel cluster to attach to; empty starts engines",
        )  # fmt: skip
        self._start_button = style.button(
            "Start engines", "Start them here or on the hosts, or attach to those of the profile",
            "start-engines", icon="power-off",
        )  # fmt: skip
        self._stop_button = style.button(
            "Stop engines", "End them; a run that goes on is stopped first", "stop-engines",
            icon="power-off", disabled=True,
        )  # fmt: skip
        self._start_button.on_click(lambda _: self._try_start())
        self._stop_button.on_click(lambda _: self.stop())
        self._problem = style.text("", "bk-hint")
        for text in (self._count, self._cores):
            text.observe(lambda _: self._show_problem(), "value")
        self._state = style.text(_STOPPED, "bk-engines-state")
        self._table = style.text("", "bk-engines-table")
        profile = CheckedField(
            self._profile, str, "profile",
            hint="Engines that run already, by their profile; empty starts new ones.",
        )  # fmt: skip
        for text in (self._count, self._cores):
            text.layout.width = "100%"
        fields = grid(
            [
                style.field(self._count), style.field(self._cores), self._hosts.widget,
                profile.widget,
            ]
        )  # fmt: skip
        self.widget = style.panel(
            [
                fields, self._problem, style.row([self._start_button, self._stop_button]),
                self._state, self._table,
            ],
            "engines",
        )  # fmt: skip

    def _show_problem(self) -> None:
        message = self.problem
        self._count.disabled = self.state not in ("stopped", "failed") or self._has_hosts
        self._problem.value = (
            f'<span class="bk-error" role="alert">✖ {style.escape(message)}</span>'
            if message and not self._hosts.problem
            else ""
        )
        self._start_button.disabled = bool(message)
        if self._on_change:
            self._on_change()

    @property
    def _has_hosts(self) -> bool:
        return bool(self._hosts.input.value.strip())  # they say how many engines there are

    def _try_start(self) -> None:
        try:
            self.start()
        except BertkitError as error:
            self._say(style.status("bad", "The engines were not started.", str(error)))

    def _say(self, words: str) -> None:
        if words != self._state.value:
            self._state.value = words

    # Looking -----------------------------------------------------------------------------------

    def _look(self) -> bool:
        """Show the engines as they are now; whether they are worth another look."""
        cluster, state = self.cluster, self.state
        if cluster is None:
            self._show_state("stopped")
            return False
        if state == "failed":
            self._show_failure(cluster)
            return False
        engines = cluster.engines
        self._say(_state_words(state, cluster.n, [engine.state for engine in engines]))
        self._table.value = self._rows(engines)
        self._show_state(state)
        return state != "stopped"

    def _show_state(self, state: str) -> None:
        stopped = state in ("stopped", "failed")
        self._start_button.disabled = not stopped or bool(self.problem)
        self._stop_button.disabled = stopped
        for text in (self._count, self._cores, self._hosts.input, self._profile):
            text.disabled = not stopped
        self._count.disabled = not stopped or self._has_hosts
        if state != self._last_state:
            self._last_state = state
            if self._on_change:
                self._on_change()

    def _show_failure(self, cluster: Cluster) -> None:
        try:
            cluster.wait_until_up()
        except BertkitError as error:
            self._say(style.status("bad", "The engines could not be started.", str(error)))
        except Exception as error:  # whatever ipyparallel raised
            self._say(style.status("bad", "The engines could not be started.", repr(error)))
        self.cluster = None
        self._show_state("failed")

    def _rows(self, engines: list[EngineInfo]) -> str:
        if not engines:
            return ""
        header = ["Rank", "Host", "Process", "Cores", "State", "Memory", "CPU", "Last seen"]
        rows = [self._row(rank, engine) for rank, engine in enumerate(engines)]
        return style.table(header, rows, caption="Engines")

    def _row(self, rank: int, engine: EngineInfo) -> list[object]:
        now = time.monotonic()
        if engine.state != "ended":
            self._seen[engine.pid] = now
        memory, processor = self._load_of(engine)
        seen = round(now - self._seen.get(engine.pid, now))
        cores = f"{engine.cores}" + (f" ({_ranges(engine.cpus)})" if engine.cpus else "")
        return [
            rank, engine.host, str(engine.pid), cores, engine.state, memory, processor,
            "now" if seen < 2 * LOOK_SECONDS else f"{seen} s ago",
        ]  # fmt: skip

    def _load_of(self, engine: EngineInfo) -> tuple[str, str]:
        """Memory and processor time of an engine on this machine."""
        if engine.host != platform.node():
            return "–", "–"  # noqa: RUF001
        try:
            process = self._processes.setdefault(engine.pid, psutil.Process(engine.pid))
            return f"{process.memory_info().rss / 2**30:.2f} GiB", f"{process.cpu_percent():.0f} %"
        except psutil.Error:
            return "–", "–"  # noqa: RUF001

    def _stop(self) -> None:
        cluster = self.cluster
        if cluster is not None:
            self._say(style.status("wait", "Stopping the engines", "…"))
            self._stop_button.disabled = True
            # Whoever attaches to engines leaves them running, but these are our own.
            (cluster.shut_down if self._left_behind else cluster.stop)()
        if self._left_behind:
            self._left_behind, self._profile.value = False, ""
        self.cluster = None
        self._table.value = ""
        self._say(_STOPPED)
        self._show_state("stopped")


_STOPPED = style.status("note", "No engines yet.", "Start them here, or let Start training do it.")


def _state_words(state: str, wanted: int, engines: list[str]) -> str:
    """HTML that says what the engines do, one by one and together."""
    if state == "starting":
        return style.status("wait", "Starting", f"{wanted} engines …")
    if state == "training":
        return style.status("good", "Training.", f"{len(engines)} engines share a run.")
    if "loading" in engines:
        words = "in the engines … A run may be started already."
        return style.status("wait", "Loading TensorFlow", words)
    if state == "idle":
        return style.status("good", "Ready.", f"{len(engines)} engines wait for a run.")
    return _STOPPED


def _read_hosts(text: str) -> list[Host]:
    return read_hosts(text) if text.strip() else []


def _number(name: str, text: str, low: int, high: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise ClusterError(f"{name} is {text!r}; expected a whole number from {low} to {high}")
    return number


def _ranges(numbers: tuple[int, ...]) -> str:
    """``(0, 1, 2, 5)`` as ``0-2, 5``."""
    groups: list[list[int]] = []
    for number in sorted(numbers):
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    return ", ".join(f"{g[0]}-{g[-1]}" if len(g) > 1 else str(g[0]) for g in groups)
