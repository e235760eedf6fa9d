"""What is written about an operation: its row, its import job, its line of history."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from pipelinehost_dataverse.emulator import layers, results
from pipelinehost_dataverse.emulator.errors import DataverseError
from pipelinehost_dataverse.solution.model import ComponentKey, Solution

Report = Callable[[float], None]
"""Told how far an operation is, in percent."""

IMPORT, UNINSTALL = 0, 1
"""``msdyn_operation``."""
NONE, NEW, UPGRADE, UPDATE = 0, 1, 2, 3
"""``msdyn_suboperation``."""
ACTING: Final[ContextVar[str | None]] = ContextVar("acting", default=None)
"""The application user who sends the request under way; None for the environment's own user."""
_SUCCEEDED: Final = 30
_FAILED: Final = 31
_CANCELED: Final = 32


def now() -> str:
    """The environment's clock, to the second as Dataverse shows it: ``2026-01-31T12:00:00Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Work(NamedTuple):
    """An accepted operation, as the worker gets it. ``package`` is a digest."""

    operation: str
    message: str
    parameters: dict[str, Any]
    job: str
    package: bytes | None


class Abandoned(Exception):  # no error: the environment closes, its next opening goes on
    """The environment closes; the operation under way stays unfinished in the file."""


class Canceled(Abandoned):  # no error either: somebody has asked for it
    """The operation was canceled before its transaction was committed; nothing of it stays."""


class Line(NamedTuple):
    """What the history says of an operation when it begins."""

    name: str
    version: str
    publisher: str
    managed: bool
    kind: int
    sub_kind: int
    overwrite: bool = False


def begin(db: sqlite3.Connection, work: Work, line: Line) -> None:
    """Write the one line of history of an operation; run again after a crash, it finds its line."""
    db.execute(
        "INSERT INTO history (id, number, operation, name, version, publisher, managed, kind, sub_kind,"
        " overwrite, status, started_on) VALUES (?, (SELECT coalesce(max(number), 0) + 1 FROM history),"
        " ?, ?, ?, ?, ?, ?, ?, ?, 0, ?) ON CONFLICT (operation) DO NOTHING",
        (str(uuid.uuid4()), work.operation, *line, now()),
    )


def cancel(db: sqlite3.Connection, operation: str) -> str:
    """Complete an operation as canceled, in the caller's transaction; gives what is against it, or nothing.

    An operation holds the store during its transaction: who gets here comes before it, or after its end.
    """
    found = db.execute("SELECT state, status, job FROM operation WHERE id = ?", (operation,)).fetchone()
    if found is None or found[1] == _CANCELED:
        return "" if found else "missing"
    if found[0] == 3:
        return "completed"
    at, text = now(), "The operation was canceled."
    db.execute(
        "UPDATE operation SET state = 3, status = ?, turn = NULL, text = ?, error_code = 0, completed_on = ?,"
        " package = NULL WHERE id = ?",
        (_CANCELED, text, at, operation),
    )
    db.execute("UPDATE import_job SET completed_on = ? WHERE id = ?", (at, found[2]))
    db.execute(
        "UPDATE history SET status = 1, result = 0, error = ?, ended_on = ? WHERE operation = ?",
        (text, at, operation),
    )
    layers.forget_packages(db)
    return ""


def end(
    db: sqlite3.Connection,
    work: Work,
    *,
    failure: DataverseError | None = None,
    solution: Solution | None = None,
    blamed: Iterable[ComponentKey] = (),
    warnings: Iterable[str] = (),
) -> None:
    """Complete operation, import job and history, in the caller's transaction.

    Args:
        db: the environment.
        work: the operation.
        failure: why it failed, or None.
        solution: what was imported, where the package could be read.
        blamed: the components that the failure is about.
        warnings: remarks of an import that did not fail.

    Raises:
        Canceled: it was canceled meanwhile; the caller's transaction must not stay.

    """
    at = now()
    code = failure.code.signed if failure else 0
    text = failure.message if failure else None
    ended = db.execute(
        "UPDATE operation SET state = 3, status = ?, turn = NULL, text = ?, error_code = ?, completed_on = ?,"
        " package = NULL WHERE id = ? AND state <> 3",
        (_FAILED if failure else _SUCCEEDED, text, code, at, work.operation),
    )
    if ended.rowcount == 0:
        raise Canceled
    job = db.execute("SELECT progress, started_on FROM import_job WHERE id = ?", (work.job,)).fetchone()
    if job:
        progress = job[0] if failure else 100.0
        content = results.log(
            solution, started=job[1] or at, ended=at, progress=progress, failure=failure, failed=blamed
        )
        errors = json.dumps([[code, text]] if failure else [])
        db.execute(
            "UPDATE import_job SET progress = ?, content = ?, errors = ?, warnings = ?, completed_on = ?"
            " WHERE id = ?",
            (progress, content, errors, json.dumps(list(warnings)), at, work.job),
        )
    db.execute(
        "UPDATE history SET status = 1, result = ?, error_code = ?, error = ?, ended_on = ?"
        " WHERE operation = ?",
        (failure is None, code, text, at, work.operation),
    )
    layers.forget_packages(db)
