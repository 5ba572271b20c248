"""Where experiments live: one SQLite file that survives every way of dying.

SQLite's write-ahead log lets several processes read while one writes, and each change is one
transaction: a trial is finished with all its metrics, or it is still running. Nothing is kept in
memory that the file does not hold.
"""

from __future__ import annotations

import csv
import importlib
import json
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkit.advisor import tables
from bertkit.advisor.claims import is_held
from bertkit.advisor.goals import Goals
from bertkit.advisor.space import Space
from bertkit.advisor.tables import DuplicateTrialError, ExperimentRecord
from bertkit.advisor.trial import CurvePoint, Origin, Proposal, State, Trial
from bertkit.config import Scalar
from bertkit.errors import AdvisorError

VERSION = 1
BUSY_SECONDS = 30.0
MOST_ATTEMPTS = 3
"""A trial whose process has died so often is taken for the reason and fails."""


class Store:
    """Experiments and their trials in one file; any number of processes may have it open.

    Args:
        path: The file; it is made if it is not there, with its folders.

    Raises:
        AdvisorError: If the file is something else, or was written by a newer version.

    Example:
        >>> import tempfile
        >>> store = Store(Path(tempfile.mkdtemp()) / "advisor.db")
        >>> number = store.create("demo", Space.published(), Goals.published(), {})
        >>> store.experiment(number).name
        'demo'
        >>> store.close()
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._connections: dict[int, sqlite3.Connection] = {}
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise AdvisorError(
                f"{self.path} cannot be used as an experiment store: {error}; choose another file"
            ) from None

    def close(self) -> None:
        """Close the file in every thread."""
        with self._lock:
            for connection in self._connections.values():
                connection.close()
            self._connections.clear()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Experiments -------------------------------------------------------------------------------

    def create(self, name: str, space: Space, goals: Goals, settings: Mapping[str, Any]) -> int:
        """Make an experiment.

        Returns:
            Its id.
        """
        row = (
            name,
            json.dumps(space.to_list()),
            json.dumps(goals.to_list()),
            json.dumps(dict(settings)),
            time.time(),
        )
        with self._writing() as db:
            made = db.execute(
                "INSERT INTO experiments (name, space, goals, settings, created) "
                "VALUES (?, ?, ?, ?, ?)",
                row,
            )
        return int(made.lastrowid or 0)

    def experiment(self, id: int) -> ExperimentRecord:
        """One experiment.

        Raises:
            AdvisorError: If there is none of that id.
        """
        row = self._db().execute("SELECT * FROM experiments WHERE id = ?", (id,)).fetchone()
        if row is None:
            known = [str(e.id) for e in self.experiments()]
            raise AdvisorError(
                f"{self.path} holds no experiment {id}; it holds {', '.join(known) or 'none'}"
            )
        return tables.experiment_of(row)

    def experiments(self) -> list[ExperimentRecord]:
        """All experiments, oldest first."""
        rows = self._db().execute("SELECT * FROM experiments ORDER BY id").fetchall()
        return [tables.experiment_of(row) for row in rows]

    def update_settings(self, id: int, changes: Mapping[str, Any]) -> None:
        """Change some settings of an experiment."""
        with self._writing() as db:
            (text,) = db.execute("SELECT settings FROM experiments WHERE id = ?", (id,)).fetchone()
            settings = json.dumps({**json.loads(text), **changes})
            db.execute("UPDATE experiments SET settings = ? WHERE id = ?", (settings, id))

    # Trials ------------------------------------------------------------------------------------

    def trials(self, experiment: int) -> list[Trial]:
        """All trials of an experiment, oldest first, as of one moment."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT * FROM trials WHERE experiment = ? ORDER BY number", (experiment,)
            ).fetchall()
            parts = {name: tables.parts(db, name, experiment) for name in tables.PART_COLUMNS}
        return [tables.trial_of(row, parts) for row in rows]

    def trial(self, experiment: int, number: int) -> Trial:
        """One trial.

        Raises:
            AdvisorError: If there is none of that number.
        """
        for trial in self.trials(experiment):
            if trial.number == number:
                return trial
        raise AdvisorError(f"experiment {experiment} has no trial {number}")

    def add(
        self,
        experiment: int,
        proposal: Proposal,
        *,
        claim: str = "",
        state: State = State.RUNNING,
        budget: int | None = None,
    ) -> Trial:
        """Add a trial.

        Args:
            experiment: Its experiment.
            proposal: Its values and why.
            claim: Of the process that runs it.
            state: ``RUNNING``, ``WAITING`` or ``SKIPPED``.
            budget: Most trials the experiment may have; skipped and imported ones are free.

        Raises:
            DuplicateTrialError: If the experiment has one of the same values.
            BudgetSpentError: If there are as many already.
        """
        now = time.time()
        with self._writing() as db:
            if budget is not None and state is not State.SKIPPED:
                tables.check_budget(db, experiment, budget)
            key, number = tables.insert(db, experiment, proposal, state, now)
            if state is State.RUNNING:
                tables.begin(db, key, claim, now)
            elif state is State.SKIPPED:
                db.execute("UPDATE trials SET ended = ? WHERE id = ?", (now, key))
        return self.trial(experiment, number)

    def import_trials(self, experiment: int, trials: Sequence[Trial]) -> int:
        """Take over finished trials of an earlier search; those of known values are left out.

        Returns:
            How many were taken over.
        """
        taken = 0
        with self._writing() as db:
            for trial in trials:
                proposal = Proposal(
                    parameters=trial.parameters, origin=Origin.IMPORTED, reason=trial.reason
                )
                try:
                    key, _ = tables.insert(db, experiment, proposal, State.FINISHED, trial.created)
                except DuplicateTrialError:
                    continue
                tables.put_metrics(db, key, trial.metrics, trial.noise)
                tables.put_curve(db, key, trial.curve)
                db.execute(
                    "UPDATE trials SET started = ?, ended = ?, artifact = ? WHERE id = ?",
                    (trial.started, trial.ended or time.time(), trial.artifact, key),
                )
                taken += 1
        return taken

    def check_budget(self, experiment: int, budget: int) -> None:
        """Make sure that one more trial may be added.

        Raises:
            BudgetSpentError: If not.
        """
        with self._reading() as db:
            tables.check_budget(db, experiment, budget)

    def take_waiting(self, experiment: int, claim: str) -> Trial | None:
        """Begin the oldest trial that waits, if there is one."""
        with self._writing() as db:
            row = db.execute(
                "SELECT id, number FROM trials WHERE experiment = ? AND state = ? "
                "ORDER BY number LIMIT 1",
                (experiment, State.WAITING),
            ).fetchone()
            if row is None:
                return None
            tables.begin(db, row["id"], claim, time.time())
        return self.trial(experiment, row["number"])

    def requeue_abandoned(self, experiment: int) -> list[int]:
        """Put trials whose process is gone back into the queue.

        A trial whose process died again and again fails instead.

        Returns:
            Their numbers.
        """
        now, found = time.time(), []
        with self._writing() as db:
            for row in db.execute(
                "SELECT id, number, claim, renewed, attempts FROM trials "
                "WHERE experiment = ? AND state = ?",
                (experiment, State.RUNNING),
            ).fetchall():
                if is_held(row["claim"], row["renewed"], now):
                    continue
                found.append(row["number"])
                if row["attempts"] < MOST_ATTEMPTS:
                    tables.release(db, row["id"])
                else:
                    message = f"its process died {row['attempts']} times"
                    tables.end(db, row["id"], State.FAILED, message, None, now)
        return found

    def renew(self, claims: Sequence[str]) -> None:
        """Say that these claims' processes live."""
        now = time.time()
        with self._writing() as db:
            db.executemany(
                "UPDATE trials SET renewed = ? WHERE claim = ? AND state = ?",
                [(now, claim, State.RUNNING) for claim in claims],
            )

    def release(self, experiment: int, trial: Trial) -> None:
        """Put a trial of one's own back into the queue, without counting the attempt.

        Raises:
            LostClaimError: If it is not one's own any more.
        """
        with self._writing() as db:
            tables.give_back(db, tables.own(db, experiment, trial))

    def release_claim(self, experiment: int, claim: str) -> None:
        """Put the trial that runs under a claim, if one does, back into the queue."""
        with self._writing() as db:
            for row in db.execute(
                "SELECT id FROM trials WHERE experiment = ? AND claim = ? AND state = ?",
                (experiment, claim, State.RUNNING),
            ).fetchall():
                tables.give_back(db, row["id"])

    def add_point(self, experiment: int, trial: Trial, point: CurvePoint) -> None:
        """Add a point to the curve of a trial of one's own.

        Raises:
            LostClaimError: If it is not one's own any more.
        """
        with self._writing() as db:
            key = tables.own(db, experiment, trial)
            (count,) = db.execute("SELECT COUNT(*) FROM curves WHERE trial = ?", (key,)).fetchone()
            tables.put_curve(db, key, [point], first=count)

    def end(
        self,
        experiment: int,
        trial: Trial,
        state: State,
        metrics: Mapping[str, float],
        *,
        noise: Mapping[str, float] | None = None,
        message: str = "",
        artifact: str | None = None,
    ) -> Trial:
        """End a trial of one's own, with all it came to, in one transaction.

        Raises:
            LostClaimError: If it is not one's own any more.
        """
        with self._writing() as db:
            key = tables.own(db, experiment, trial)
            tables.put_metrics(db, key, metrics, noise or {})
            tables.end(db, key, state, message, artifact, time.time())
        return self.trial(experiment, trial.number)

    # Export ------------------------------------------------------------------------------------

    def rows(self, experiment: int) -> list[dict[str, Scalar]]:
        """All trials as flat rows: ``trial``, ``state``, parameters, metrics, times and reasons."""
        return [_row(trial) for trial in self.trials(experiment)]

    def to_csv(self, experiment: int, path: str | Path) -> None:
        """Write `rows` to a CSV file."""
        rows = self.rows(experiment)
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    def to_pandas(self, experiment: int) -> Any:
        """`rows` as a pandas ``DataFrame``.

        Raises:
            AdvisorError: If pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            raise AdvisorError(
                "pandas is not installed; 'pip install pandas', or use CSV"
            ) from None
        return pandas.DataFrame(self.rows(experiment))

    # The file ----------------------------------------------------------------------------------

    def _prepare(self) -> None:
        db = self._db()
        db.execute("PRAGMA journal_mode = WAL")
        with self._writing():
            (version,) = db.execute("PRAGMA user_version").fetchone()
            (count,) = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            if version == VERSION:
                return
            if version or count:
                raise AdvisorError(
                    f"{self.path} was not written by this version of bertkit (found {version}, "
                    f"expected {VERSION}); choose another file"
                )
            for statement in tables.SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {VERSION}")

    def _db(self) -> sqlite3.Connection:
        """This thread's connection."""
        thread = threading.get_ident()
        with self._lock:
            if thread not in self._connections:
                self._connections[thread] = self._connect()
            return self._connections[thread]

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA synchronous = FULL")  # what was told stays told, even without power
        return db

    def _writing(self) -> sqlite3.Connection:
        """Begin a transaction that nobody else writes in; ``with`` ends it."""
        return self._begun("BEGIN IMMEDIATE")

    def _reading(self) -> sqlite3.Connection:
        """Begin one moment's view of several tables; ``with`` ends it."""
        return self._begun("BEGIN")

    def _begun(self, statement: str) -> sqlite3.Connection:
        # The connection is its own context manager: no line of Python, at which a Ctrl-C could
        # break off the ending of a transaction, lies between. One broken off before is undone.
        db = self._db()
        if db.in_transaction:
            db.rollback()
        db.execute(statement)
        return db


def _row(trial: Trial) -> dict[str, Scalar]:
    return {
        "trial": trial.number,
        "state": str(trial.state),
        **trial.parameters,
        **trial.metrics,
        "seconds": trial.seconds,
        "attempts": trial.attempts,
        "origin": str(trial.origin),
        "reason": trial.reason,
        "message": trial.message,
        "artifact": trial.artifact,
    }
