"""The store's tables: how experiments and trials are written as rows and read back.

Every function here works inside a transaction that the store has begun.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertkit.advisor.goals import Goals
from bertkit.advisor.space import Space, fingerprint
from bertkit.advisor.trial import CurvePoint, Origin, Prediction, Proposal, State, Trial
from bertkit.errors import AdvisorError

SCHEMA = """
CREATE TABLE experiments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    space TEXT NOT NULL,
    goals TEXT NOT NULL,
    settings TEXT NOT NULL,
    created REAL NOT NULL
);
CREATE TABLE trials (
    id INTEGER PRIMARY KEY,
    experiment INTEGER NOT NULL REFERENCES experiments(id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    state TEXT NOT NULL,
    origin TEXT NOT NULL,
    reason TEXT NOT NULL,
    predicted TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    message TEXT NOT NULL DEFAULT '',
    artifact TEXT,
    claim TEXT NOT NULL DEFAULT '',
    renewed REAL NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    UNIQUE (experiment, number),
    UNIQUE (experiment, fingerprint)
);
CREATE TABLE parameters (
    trial INTEGER NOT NULL REFERENCES trials(id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (trial, name)
);
CREATE TABLE metrics (
    trial INTEGER NOT NULL REFERENCES trials(id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value REAL NOT NULL,
    noise REAL,
    PRIMARY KEY (trial, name)
);
CREATE TABLE curves (
    trial INTEGER NOT NULL REFERENCES trials(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    step INTEGER NOT NULL,
    seconds REAL NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (trial, position)
) WITHOUT ROWID;
"""


class DuplicateTrialError(AdvisorError):
    """The experiment already has a trial of the same values."""


class BudgetSpentError(AdvisorError):
    """The experiment has all the trials it may have."""


class LostClaimError(AdvisorError):
    """The trial is another process's by now, or over; what was told is not taken."""


@dataclass(frozen=True)
class ExperimentRecord:
    """An experiment without its trials.

    Args:
        id: Its number in the file.
        name: What a person calls it.
        space: What is searched.
        goals: What is wanted.
        settings: Everything else that decides how it goes on.
        created: When it was made, in seconds since 1970.
    """

    id: int
    name: str
    space: Space
    goals: Goals
    settings: Mapping[str, Any]
    created: float


PART_COLUMNS = {
    "parameters": ("name, value", "rowid"),
    "metrics": ("name, value, noise", "rowid"),
    "curves": ("step, seconds, value", "position"),
}


def parts(db: sqlite3.Connection, table: str, experiment: int) -> dict[int, list[sqlite3.Row]]:
    """Rows of a table that belongs to trials, by trial."""
    columns, order = PART_COLUMNS[table]
    found: dict[int, list[sqlite3.Row]] = {}
    for row in db.execute(
        f"SELECT trial, {columns} FROM {table} WHERE trial IN "  # noqa: S608 - from the table above
        f"(SELECT id FROM trials WHERE experiment = ?) ORDER BY trial, {order}",
        (experiment,),
    ):
        found.setdefault(row["trial"], []).append(row)
    return found


def experiment_of(row: sqlite3.Row) -> ExperimentRecord:
    """An experiment from its row."""
    return ExperimentRecord(
        id=row["id"],
        name=row["name"],
        space=Space.read(json.loads(row["space"])),
        goals=Goals.read(json.loads(row["goals"])),
        settings=json.loads(row["settings"]),
        created=row["created"],
    )


def trial_of(row: sqlite3.Row, parts: Mapping[str, dict[int, list[sqlite3.Row]]]) -> Trial:
    """A trial from its row and those of the tables that belong to it."""
    key = row["id"]
    metrics = parts["metrics"].get(key, [])
    predicted = json.loads(row["predicted"])
    return Trial(
        number=row["number"],
        parameters={p["name"]: json.loads(p["value"]) for p in parts["parameters"].get(key, [])},
        state=State(row["state"]),
        origin=Origin(row["origin"]),
        reason=row["reason"],
        predicted={name: Prediction(*pair) for name, pair in predicted.items()},
        metrics={m["name"]: m["value"] for m in metrics},
        noise={m["name"]: m["noise"] for m in metrics if m["noise"] is not None},
        curve=tuple(
            CurvePoint(p["step"], p["seconds"], p["value"]) for p in parts["curves"].get(key, [])
        ),
        attempts=row["attempts"],
        message=row["message"],
        artifact=row["artifact"],
        claim=row["claim"],
        created=row["created"],
        started=row["started"],
        ended=row["ended"],
    )


def check_budget(db: sqlite3.Connection, experiment: int, budget: int) -> None:
    """Refuse a trial more than the budget allows; skipped and imported ones are free."""
    (count,) = db.execute(
        "SELECT COUNT(*) FROM trials WHERE experiment = ? AND state != ? AND origin != ?",
        (experiment, State.SKIPPED, Origin.IMPORTED),
    ).fetchone()
    if count >= budget:
        raise BudgetSpentError(
            f"experiment {experiment} has {count} trials of a budget of {budget}; raise "
            "observation_budget to go on"
        )


def insert(
    db: sqlite3.Connection, experiment: int, proposal: Proposal, state: State, created: float
) -> tuple[int, int]:
    """Add a trial with its parameters; gives its key and its number."""
    predicted = {name: [p.mean, p.std] for name, p in proposal.predicted.items()}
    (last,) = db.execute(
        "SELECT COALESCE(MAX(number), 0) FROM trials WHERE experiment = ?", (experiment,)
    ).fetchone()
    try:
        made = db.execute(
            "INSERT INTO trials (experiment, number, fingerprint, state, origin, reason, "
            "predicted, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                experiment,
                last + 1,
                fingerprint(proposal.parameters),
                state,
                proposal.origin,
                proposal.reason,
                json.dumps(predicted),
                created,
            ),
        )
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorname != "SQLITE_CONSTRAINT_UNIQUE":
            raise AdvisorError(f"there is no experiment {experiment} to add a trial to") from None
        raise DuplicateTrialError(
            f"experiment {experiment} already has a trial of {dict(proposal.parameters)}"
        ) from None
    db.executemany(
        "INSERT INTO parameters (trial, name, value) VALUES (?, ?, ?)",
        [(made.lastrowid, name, json.dumps(v)) for name, v in proposal.parameters.items()],
    )
    return int(made.lastrowid or 0), last + 1


def begin(db: sqlite3.Connection, key: int, claim: str, now: float) -> None:
    """Begin a trial, perhaps again: what an earlier attempt left is gone."""
    db.execute("DELETE FROM curves WHERE trial = ?", (key,))
    db.execute(
        "UPDATE trials SET state = ?, claim = ?, renewed = ?, started = ?, "
        "attempts = attempts + 1 WHERE id = ?",
        (State.RUNNING, claim, now, now, key),
    )


def release(db: sqlite3.Connection, key: int) -> None:
    """Put a trial into the queue."""
    db.execute("UPDATE trials SET state = ?, claim = '' WHERE id = ?", (State.WAITING, key))


def give_back(db: sqlite3.Connection, key: int) -> None:
    """Put a trial into the queue as if this attempt at it had not been."""
    release(db, key)
    db.execute("UPDATE trials SET attempts = attempts - 1 WHERE id = ?", (key,))


def end(
    db: sqlite3.Connection,
    key: int,
    state: State,
    message: str,
    artifact: str | None,
    now: float,
) -> None:
    """End a trial."""
    db.execute(
        "UPDATE trials SET state = ?, message = ?, artifact = ?, claim = '', ended = ? "
        "WHERE id = ?",
        (state, message, artifact, now, key),
    )


def own(db: sqlite3.Connection, experiment: int, trial: Trial) -> int:
    """The row of a trial, if it is still the claim's."""
    row = db.execute(
        "SELECT id, state, claim FROM trials WHERE experiment = ? AND number = ?",
        (experiment, trial.number),
    ).fetchone()
    if row is None or row["state"] != State.RUNNING or row["claim"] != trial.claim:
        state = "gone" if row is None else row["state"]
        raise LostClaimError(
            f"trial {trial.number} of experiment {experiment} is {state} and not this process's "
            "any more; its outcome was not taken, ask for another trial"
        )
    return int(row["id"])


def put_metrics(
    db: sqlite3.Connection, key: int, metrics: Mapping[str, float], noise: Mapping[str, float]
) -> None:
    """Write the metrics of a trial."""
    db.executemany(
        "INSERT INTO metrics (trial, name, value, noise) VALUES (?, ?, ?, ?)",
        [(key, name, float(value), noise.get(name)) for name, value in metrics.items()],
    )


def put_curve(
    db: sqlite3.Connection, key: int, curve: Sequence[CurvePoint], first: int = 0
) -> None:
    """Add points to the curve of a trial."""
    db.executemany(
        "INSERT INTO curves (trial, position, step, seconds, value) VALUES (?, ?, ?, ?, ?)",
        [(key, first + i, p.step, p.seconds, p.value) for i, p in enumerate(curve)],
    )
