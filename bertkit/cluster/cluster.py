"""A cluster: engines that become ranks and train runs."""

from __future__ import annotations

import atexit
import os
import platform
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bertkit.cluster.attach import AttachedEngines
from bertkit.cluster.coordinator import LeftBehind
from bertkit.cluster.cores import core_shares, usable_cpus, usable_limit
from bertkit.cluster.engine import Deadline, Engine, EngineInfo
from bertkit.cluster.engine_run import EngineRun
from bertkit.cluster.host_check import needed_variables
from bertkit.cluster.host_engines import HostEngines
from bertkit.cluster.hosts import HostNames, read_hosts
from bertkit.cluster.launch import EngineSource, LocalEngines
from bertkit.cluster.rank import load_libraries
from bertkit.cluster.ssh import Ssh
from bertkit.cluster.supervision import Supervision
from bertkit.config import Config
from bertkit.errors import ClusterError, RunError
from bertkit.events import Emit, Progress, is_being_written
from bertkit.run import STOP_FILE, Run, create_run_folder

TRAIN = "bertkit.training.loop:train"
STOP_SECONDS = 10.0
CANCEL_SECONDS = 15.0
LOST_AFTER_SECONDS = 20.0
RUN_FILE = "bertkit-run.txt"


class Cluster:
    """Engines on this host or others, or those of a running ipyparallel cluster, as ranks of runs.

    Engines end with this process, however it ends. One run at a time goes on; runs one after
    another use the same engines. When an engine is lost, a run goes on with the others and takes in
    the replacement as soon as it is ready.

    Args:
        n: Number of engines; with ``hosts`` their sum counts.
        hosts: Hosts to start engines on over SSH, as ``{"node1": 2, "me@node2": 2}``,
            ``["node1", "node2"]`` (an engine each) or ``"node1:2, node2:2"``. They need the same
            Python packages and code, and the folder of the runs has to be theirs too; that is
            looked at first (`check_hosts` does nothing else).
        python: Path of Python on the hosts; by default that of this process.
        ssh_options: More arguments of ssh, such as ``["-p", "2222", "-i", "key", "-F", "config"]``.
        cores_per_engine: Cores of each engine; by default an equal share.
        profile: Attach to the ipyparallel cluster of this IPython profile (its name or folder)
            instead of starting engines.
        timeout: Longest wait, in seconds, for engines to start or to answer.
        keep_alive: Let the engines live on when this process ends without `stop`; then
            `profile` says how to attach to them.
        environment: More environment variables for the engines that are started.
        interface: This host's network interface that reaches the engines' hosts, such as
            ``"eth0"``. With ``hosts`` the routing table says it by default; needed where attached
            engines are on other hosts, the loopback interface otherwise.
        lost_after: Seconds without a sign of life after which an engine counts as lost.
        report: Called with a line of text when something is slow; by default it goes to stderr.
        train: What every rank calls with the run's folder, the world, and ``resume``, as
            ``"module:function"``.

    Raises:
        ClusterError: If ``n`` or ``cores_per_engine`` cannot be had on this host.

    Example:
        >>> with Cluster(n=2) as cluster:                       # doctest: +SKIP
        ...     run = cluster.train(Config(data="sample"))
        ...     print(run.wait().f1)
        93.1
    """

    def __init__(
        self,
        n: int = 2,
        *,
        hosts: HostNames | None = None,
        python: str | None = None,
        ssh_options: Sequence[str] = (),
        cores_per_engine: int | None = None,
        profile: str | None = None,
        timeout: float = 300.0,
        keep_alive: bool = False,
        environment: Mapping[str, str] | None = None,
        interface: str | None = None,
        report: Callable[[str], object] | None = None,
        lost_after: float = LOST_AFTER_SECONDS,
        train: str = TRAIN,
    ) -> None:
        if n < 1:
            raise ClusterError(f"n is {n}; expected at least 1 engine")
        self.n = n
        if hosts is not None and profile is not None:
            raise ClusterError("hosts and profile are both given; start engines, or attach to some")
        self.timeout = timeout
        self._keep_alive = keep_alive
        self._named_interface = interface
        self._lost_after = lost_after
        self._train = train
        self._source: EngineSource
        if profile is not None:
            self._source = AttachedEngines(profile, n, cores_per_engine)
        elif hosts is not None:
            named = read_hosts(hosts)
            self.n = sum(host.engines for host in named)
            self._source = HostEngines(
                named,
                Ssh(python or sys.executable, ssh_options, needed_variables()),
                cores_per_engine=cores_per_engine,
                environment=environment or {},
                keep_alive=keep_alive,
                interface=interface,
                report=report or _to_stderr,
            )
        else:
            cpus, limit = usable_cpus(), usable_limit()
            shares = core_shares(cpus, n, cores_per_engine, limit)
            _warn_if_crowded(n * shares[0].cores, min(len(cpus), limit or len(cpus)))
            self._source = LocalEngines(
                shares, dict(environment or {}), keep_alive, report or _to_stderr
            )
        self._client: Any = None
        self._engines: list[Engine] = []
        self._run: EngineRun | None = None
        self._supervision: Supervision | None = None
        self._using_engines = threading.Lock()  # ipyparallel's client is for one thread at a time
        self._cancelled = threading.Event()
        self._starting: threading.Thread | None = None
        self._start_error: BaseException | None = None
        self._owner = os.getpid()
        self._at_loss: weakref.finalize[..., Cluster] | None = None

    # Start and stop ----------------------------------------------------------------------------

    def start(self, *, wait: bool = True) -> Cluster:
        """Start the engines, or attach to them.

        Args:
            wait: Come back when they are up; otherwise at once. TensorFlow is loaded in them in
                the background either way, and a run may be started before that is done.

        Returns:
            This cluster.

        Raises:
            ClusterError: If they could not be started (with ``wait``).
        """
        if self._starting is None or self.state == "failed":
            self._cancelled.clear()
            self._start_error = None
            if not self._keep_alive:
                _open_clusters.add(self)
                # In a notebook, a cell that is run again drops the cluster it made before.
                self._at_loss = weakref.finalize(self, self._source.close)
            self._starting = threading.Thread(
                target=self._start, name="bertkit-cluster-start", daemon=True
            )
            self._starting.start()
        return self.wait_until_up() if wait else self

    def wait_until_up(self) -> Cluster:
        """Wait until the engines are up.

        Raises:
            ClusterError: If the cluster is not started, or its engines could not be.
        """
        if self._starting is None:
            raise ClusterError("the cluster is not started; call start() or use 'with'")
        try:
            while self._starting.is_alive():
                self._starting.join(0.1)  # short, so that Ctrl-C is heard
        except KeyboardInterrupt:
            self.stop()
            raise
        if self._start_error is not None:
            error = self._start_error
            self.stop()
            raise error
        return self

    def stop(self, grace: float = STOP_SECONDS) -> None:
        """End the engines, or leave those that were attached; nothing stays behind.

        Args:
            grace: Seconds that a run may take to stop in order after its current step. After
                that it is cut off, and can be resumed from its newest checkpoint.
        """
        try:
            self._stop_run(grace)
        finally:
            self._cancelled.set()
            if self._supervision is not None:
                self._supervision.cancel()
                self._supervision.wait(CANCEL_SECONDS)
            if self._starting is not None:
                self._starting.join(CANCEL_SECONDS)
            self._source.close()
            self._client = self._starting = None
            self._engines = []
            _open_clusters.discard(self)
            if self._at_loss is not None:
                self._at_loss.detach()

    def shut_down(self) -> None:
        """End the engines and their controller, also where this process has only attached."""
        client = self._client
        if client is not None and isinstance(self._source, AttachedEngines):
            self._stop_run(STOP_SECONDS)
            alive = [engine.id for engine in self._engines if engine.alive]
            asked = threading.Thread(target=_shut_down, args=(client, alive), daemon=True)
            asked.start()
            asked.join(STOP_SECONDS)
            for engine in self._engines:
                engine.process.kill()
            self._source.forget()  # the client's sockets may be closed before they seem dead
        self.stop()

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # Runs --------------------------------------------------------------------------------------

    def train(self, config: Config, *, name: str | None = None) -> EngineRun:
        """Start a run and come back at once.

        Args:
            config: The run's configuration.
            name: Name of the run's folder; by default the date and time.

        Returns:
            A handle: ``run.events()``, ``run.stop()``, ``run.wait()``, ``await run``.

        Raises:
            ClusterError: If the cluster is not started, or trains another run.
            RunError: If the folder cannot be made.
        """
        self._check_free()
        return self._launch(create_run_folder(config, name), resume=False)

    def resume(self, folder: str | Path) -> EngineRun:
        """Let a run go on from its newest checkpoint, and come back at once.

        Args:
            folder: The run's folder.

        Raises:
            ClusterError: If the cluster is not started, or trains another run.
            RunError: If the folder holds no run, or another process trains it.
        """
        self._check_free()
        run = Run(folder)
        if run.running:
            raise RunError(f"{run.folder} is being trained by another process; stop that first")
        (run.folder / STOP_FILE).unlink(missing_ok=True)  # of the stop before
        return self._launch(run.folder, resume=True)

    # What it is --------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """``"stopped"``, ``"starting"``, ``"idle"``, ``"training"`` or ``"failed"`` (to start)."""
        if self._starting is None:
            return "stopped"
        if self._starting.is_alive():
            return "starting"
        if self._start_error is not None:
            return "failed"
        return "training" if self._is_training else "idle"

    @property
    def engines(self) -> list[EngineInfo]:
        """The engines in the order of their ranks."""
        return [engine.info(self._is_training) for engine in self._engines]

    @property
    def run(self) -> EngineRun | None:
        """The newest run of this cluster."""
        return self._run

    @property
    def client(self) -> Any:
        """The ipyparallel client, for whoever wants to look into the engines between runs."""
        return self._client

    @property
    def profile(self) -> str | None:
        """What ``Cluster(profile=...)`` needs to attach to these engines."""
        return self._source.profile()

    def __repr__(self) -> str:
        return f"<Cluster of {self.n} engines, {self.state}>"

    # Inside ------------------------------------------------------------------------------------

    @property
    def _interface(self) -> str | None:
        """Network interface of this host by which the ranks find each other."""
        return self._named_interface or self._source.interface()

    @property
    def _is_training(self) -> bool:
        return self._supervision is not None and not self._supervision.over

    def _start(self) -> None:
        try:
            with self._using_engines:
                deadline = Deadline(self.timeout, self._cancelled)
                self._client = self._source.connect(deadline)
                self._take_over_run()
                self._prepare(deadline)
        except BaseException as error:
            self._start_error = error
            self._source.close()

    def _take_over_run(self) -> None:
        """Watch over the run of attached engines whose client has ended."""
        source, file = self._source, self._run_file
        if not isinstance(source, AttachedEngines) or file is None or not file.is_file():
            return
        folder = Path(file.read_text(encoding="utf-8"))
        before = LeftBehind.of(folder)
        if before is not None and is_being_written(folder):
            source.take_over(before.engines)
            self.n = max(self.n, len(before.engines))
            self._watch_over(folder, resume=True, before=before, there=source.present())

    @property
    def _run_file(self) -> Path | None:
        """Where the engines' profile says which run they train."""
        profile = self._source.profile()
        return Path(profile) / RUN_FILE if profile and Path(profile).is_dir() else None

    def _prepare(self, deadline: Deadline, *, all_of_them: bool = True) -> list[Engine]:
        """The engines, alive and loading their libraries; the calling thread holds the lock."""
        try:
            self._engines = self._source.engines(deadline)
        except ClusterError:
            if all_of_them:
                raise
            self._engines = self._source.present()
        self._check_reach()
        ours = not isinstance(self._source, AttachedEngines)
        for engine in self._engines:
            if engine.loading is None:
                engine.loading = engine.submit(load_libraries, self._train, self.n, ours)
        return self._engines

    def _check_reach(self) -> None:
        elsewhere = {engine.host for engine in self._engines} - {platform.node()}
        if elsewhere and self._interface is None:
            raise ClusterError(
                f"engines run on {', '.join(sorted(elsewhere))}; name the network interface that "
                f"all hosts share, such as interface='eth0'"
            )

    def _check_free(self) -> None:
        if self._starting is None:
            raise ClusterError("the cluster is not started; call start() or use 'with'")
        if self._is_training and self._run is not None:
            raise ClusterError(
                f"the cluster trains the run in {self._run.folder}; wait for it, or stop it first"
            )

    def _launch(self, folder: Path, *, resume: bool) -> EngineRun:
        return self._watch_over(folder, resume=resume)

    def _watch_over(
        self,
        folder: Path,
        *,
        resume: bool,
        before: LeftBehind | None = None,
        there: Sequence[Engine] = (),
    ) -> EngineRun:
        self._supervision = Supervision(
            folder,
            partial(self._ready_engines, folder),
            self._source.profile,
            train=self._train,
            resume=resume,
            interface=self._interface,
            lost_after=self._lost_after,
            before=before,
            there=there,
        )
        self._run = EngineRun(folder, self._supervision)
        return self._run

    def _ready_engines(self, folder: Path, emit: Emit, *, all_of_them: bool = True) -> list[Engine]:
        """The engines with their libraries loaded; called in the own thread of a folder's run."""
        if self.state == "starting":
            emit(Progress(stage="Starting engines", total=self.n))
        if self._starting is not None:
            self._starting.join()
        if self._start_error is not None:
            raise self._start_error
        with self._using_engines:
            deadline = Deadline(self.timeout, self._cancelled)
            engines = self._prepare(deadline, all_of_them=all_of_them)
            if self._run_file is not None:
                self._run_file.write_text(str(folder.resolve()), encoding="utf-8")
            loaded = -1
            while loaded < len(engines):
                before, loaded = loaded, sum(engine.loading.ready() for engine in engines)
                if loaded != before and (before, loaded) != (-1, len(engines)):
                    emit(Progress(stage="Loading TensorFlow", done=loaded, total=self.n))
                for engine in engines:
                    _check_loading(engine)
                deadline.pause(f"TensorFlow to load in {len(engines)} engines")
        return engines

    def _stop_run(self, grace: float) -> None:
        if self._is_training and self._run is not None and self._supervision is not None:
            self._run.stop()
            deadline = time.monotonic() + grace
            while time.monotonic() < deadline and not self._supervision.wait(0.1):
                pass  # short waits, so that a second Ctrl-C is heard


_open_clusters: weakref.WeakSet[Cluster] = weakref.WeakSet()


@atexit.register
def _stop_open_clusters() -> None:
    """End what the interpreter's end would leave behind."""
    for cluster in list(_open_clusters):
        if cluster._owner == os.getpid():
            cluster.stop()


def _shut_down(client: Any, engines: list[int]) -> None:
    """Ask engines and their controller to end."""
    if engines:
        client.shutdown(targets=engines, block=False)
    # Not Client.shutdown(hub=True): it waits for an answer of engines that were lost, too.
    client._send_recv(client._query_stream, "shutdown_request")


def _check_loading(engine: Engine) -> None:
    """Raise if an engine has died or failed while it loaded its libraries."""
    where = f"engine {engine.id} on {engine.host}"
    if ending := engine.process.ending():
        raise ClusterError(f"{where} {ending} while it loaded TensorFlow; start the run again")
    if not engine.loading.ready():
        return
    try:
        engine.loading.get(timeout=0)
    except Exception as error:
        engine.loading = None
        raise ClusterError(
            f"{where} cannot load its libraries: {' '.join(str(error).split())}"
        ) from None


def _warn_if_crowded(wanted: int, cores: int) -> None:
    if wanted > cores:
        warnings.warn(
            f"the engines want {wanted} cores and share {cores}; expect them to be slower than "
            f"fewer engines",
            RuntimeWarning,
            stacklevel=3,
        )


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
