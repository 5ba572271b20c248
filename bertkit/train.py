"""Train without Jupyter, as the processes that horovodrun or mpirun starts, one rank each.

``horovodrun -np 2 python -m bertkit.train --data sample --output runs`` takes the options of
``bertkit train``. Rank 0 makes the run's folder and shows how it goes. These ranks stay together:
when one is lost the run ends, and ``--resume FOLDER`` goes on from its newest checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from bertkit import cli
from bertkit.errors import BertkitError, RunError
from bertkit.run import STOP_FILE, Run, create_run_folder

# Set for each process by Horovod's Gloo launcher, Open MPI, and MPICH or Intel MPI.
RANKS = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
LOCAL_RANKS = ("HOROVOD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID")
LOCAL_SIZES = ("HOROVOD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")


def main(arguments: Sequence[str] | None = None) -> int:
    """Be one rank of a run.

    Args:
        arguments: Words after ``python -m bertkit.train``; by default those of this process.

    Returns:
        The exit code, as of ``bertkit train``.
    """
    with _rank_zero_speaks():
        options = _parser().parse_args(arguments)
    from bertkit.cluster.freed_memory import keep_freed_memory

    keep_freed_memory()
    bind_to_share(_first(LOCAL_RANKS, 0), _first(LOCAL_SIZES, 1))
    from bertkit.loading_tensorflow import load_tensorflow

    load_tensorflow(only_bertkit=True)
    import horovod.tensorflow as hvd

    hvd.init()
    try:
        return _lead(options) if hvd.rank() == 0 else _follow(hvd.rank())
    finally:
        hvd.shutdown()


def bind_to_share(local_rank: int, local_size: int) -> None:
    """Keep this process to its share of the machine, before TensorFlow counts the cores.

    Args:
        local_rank: Which of this machine's ranks it is.
        local_size: How many ranks this machine has.
    """
    from bertkit.cluster.cores import CoreShare, core_shares, usable_cpus, usable_limit

    cpus = usable_cpus()
    if local_size > 1 and len(cpus) == os.cpu_count():
        share = core_shares(cpus, local_size, limit=usable_limit())[local_rank]
    else:  # alone, or its launcher has bound it, as mpirun does
        share = CoreShare(len(cpus))
    if share.cpus:
        os.sched_setaffinity(0, share.cpus)
    for name, value in share.environment.items():
        os.environ.setdefault(name, value)


class _RunHere(Run):
    """A run whose rank 0 is a thread of this process.

    Args:
        folder: Its folder.
        resume: Whether it goes on from its newest checkpoint.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        super().__init__(folder)
        self._thread = threading.Thread(
            target=_train_quietly, args=(folder, resume), name="bertkit-rank", daemon=True
        )
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it still trains."""
        return self._alive()

    def join(self) -> None:
        """Wait until its rank is done with everything."""
        self._thread.join()

    def _alive(self) -> bool:
        return self._thread.is_alive()


def _lead(options: argparse.Namespace) -> int:
    """Be rank 0: make the folder, train, and show it."""
    run: _RunHere | None = None

    def command(options: argparse.Namespace) -> None:
        nonlocal run
        folder = _told(options)
        run = _RunHere(folder, resume=bool(options.resume))
        cli.show(run, tensorboard=run.config.tensorboard)

    try:
        return cli.run_command(command, options)
    finally:
        if run is not None:
            run.join()


def _folder(options: argparse.Namespace) -> Path:
    if options.resume is None:
        return create_run_folder(cli.config_of_train(options)).resolve()
    run = Run(options.resume)
    if run.running:
        raise RunError(f"{run.folder} is being trained by another process; stop that first")
    (run.folder / STOP_FILE).unlink(missing_ok=True)  # of the stop before
    return run.folder.resolve()


def _told(options: argparse.Namespace) -> Path:
    """Find the folder and tell it to the other ranks; they end where there is none."""
    import horovod.tensorflow as hvd

    told: tuple[str, bool] | None = None
    try:
        folder = _folder(options)
        told = str(folder), bool(options.resume)
        return folder
    finally:
        hvd.broadcast_object(told, 0)


def _follow(rank: int) -> int:
    """Be another rank."""
    import horovod.tensorflow as hvd

    told = hvd.broadcast_object(None, 0)
    if told is None:
        return 2
    try:
        _train(Path(told[0]), resume=told[1])
    except Exception as error:
        from bertkit.training.world import is_loss_of_a_rank

        if not is_loss_of_a_rank(error):
            words = str(error) if isinstance(error, BertkitError) else repr(error)
            sys.stderr.write(f"bertkit: rank {rank} on {platform.node()}: {words}\n")
        return 1
    return 0


def _train_quietly(folder: Path, resume: bool) -> None:
    with contextlib.suppress(Exception):  # the run's events say what it was
        _train(folder, resume=resume)


def _train(folder: Path, *, resume: bool) -> None:
    from bertkit.training.loop import train
    from bertkit.training.world import HorovodWorld

    world = HorovodWorld()
    train(folder, world, resume=resume)
    world.barrier()  # whoever leaves first would break the others' last collective


@contextlib.contextmanager
def _rank_zero_speaks() -> Iterator[None]:
    """Say once, not once a rank, what is wrong with the command's words."""
    if _first(RANKS, 0) == 0:
        yield
        return
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def _first(names: Sequence[str], default: int) -> int:
    """The first of some variables that is set."""
    return next((int(os.environ[name]) for name in names if name in os.environ), default)


def _parser() -> argparse.ArgumentParser:
    parser = cli.one_command_parser(
        "python -m bertkit.train", "Train as one of the ranks that horovodrun or mpirun starts."
    )
    parser.add_argument("--resume", metavar="FOLDER", help="go on with the run in this folder")
    cli.add_run_settings(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
