"""An embedded environment: its file, its worker, its Web API."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple, Self

from starlette.types import ASGIApp

from pipelinehost_dataverse.emulator.engine import Engine
from pipelinehost_dataverse.emulator.errors import Code, DataverseError
from pipelinehost_dataverse.emulator.face import Face
from pipelinehost_dataverse.emulator.journal import ACTING, Abandoned, Canceled, Work, cancel, now
from pipelinehost_dataverse.emulator.layers import keep_package
from pipelinehost_dataverse.emulator.store import STORE_ERRORS, Store

_log = logging.getLogger(__name__)

READY, LOCKED, COMPLETED = 0, 2, 3
"""``statecode`` of an async operation."""
WAITING, IN_PROGRESS, SUCCEEDED, FAILED = 0, 20, 30, 31
"""``statuscode`` of an async operation."""
RETRY_AFTER = 2
"""Seconds that a client is asked to wait while another operation holds the environment."""


class _Message(NamedTuple):
    """A kind of operation: its ``operationtype``, its name, and whether it needs the environment alone."""

    type: int
    name: str
    alone: bool


_MESSAGES = {
    "ImportSolution": _Message(203, "ImportSolution", True),
    "ImportSolutionAsync": _Message(54, "ImportSolution", True),
    "StageAndUpgrade": _Message(211, "StageAndUpgrade", True),
    "StageAndUpgradeAsync": _Message(211, "StageAndUpgrade", True),
    "UninstallSolutionAsync": _Message(208, "Uninstall", True),
    "DeleteSolution": _Message(208, "Uninstall", True),
    "DeleteAndPromote": _Message(207, "DeleteAndPromote", True),
    "DeleteAndPromoteAsync": _Message(207, "DeleteAndPromote", True),
    "PublishXml": _Message(204, "Publish", True),
    "PublishAllXml": _Message(204, "PublishAll", True),
    "PublishAllXmlAsync": _Message(204, "PublishAll", True),
    "ExportSolutionAsync": _Message(202, "ExportSolution", False),
}


class Accepted(NamedTuple):
    """The ids that the answer to an accepted operation carries."""

    operation: str
    job: str


class EmbeddedEnvironment:
    """An environment in one SQLite file that answers the Dataverse Web API.

    Use ``open`` and ``close``, or a ``with`` statement. ``app`` is an ASGI application; it may be served by
    uvicorn or called through ``httpx.ASGITransport``. Accepted operations are rows: they outlive a kill, and
    opening the file runs those that did not finish, from their start.

    Attributes:
        app: the ASGI application; it answers below ``/api/data/v9.2/`` and ``/connectivity/connections``.
        name: shown as the organization's friendly name.
        region: shown as the organization's ``Geo``.

    """

    def __init__(
        self, store: Store, engine: Engine, *, name: str, region: str, honour_import_job_id: bool, pace: float
    ) -> None:
        self.store = store
        self.engine = engine
        self.name = name
        self.region = region
        self._honour_import_job_id = honour_import_job_id
        self._pace = pace
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._waiting: dict[str, Future[None]] = {}
        self.app: ASGIApp = Face(self).app
        self._worker = threading.Thread(target=self._work, name=f"environment-{name}", daemon=True)
        self._worker.start()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        name: str,
        region: str = "",
        installed_apps: Mapping[str, str] | None = None,
        honour_import_job_id: bool = True,
        allow_downgrade: bool = False,
        pace: float = 0.0,
    ) -> Self:
        """Open an environment's file, or make a new one; then go on with what did not finish.

        Args:
            path: the SQLite file.
            name: the environment's name.
            region: its geography, e.g. ``Europe``.
            installed_apps: solutions beyond the platform's that count as present, unique name to version.
            honour_import_job_id: False gives every import a job id of the environment's own, as a real
                environment may.
            allow_downgrade: whether an update may bring a lower version than the installed one.
            pace: seconds that an import takes at least, spread over its progress.

        Raises:
            EnvironmentInUseError: the file is open elsewhere.
            ValueError: the file is not an environment's, or of another format.

        """
        store = Store(path)
        try:
            engine = Engine(store, installed_apps or {}, allow_downgrade=allow_downgrade)
            return cls(
                store, engine, name=name, region=region, honour_import_job_id=honour_import_job_id, pace=pace
            )
        except BaseException:
            store.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker and close the file; calling it twice does no harm.

        A transaction under way is waited for. An operation that has not come to its transaction yet is left
        unfinished, and runs when the file is opened again.
        """
        if self._stop.is_set():
            return
        self._stop.set()
        self._wake.set()
        self._worker.join()
        for future in [future for future in self._waiting.values() if not future.done()]:
            future.set_exception(DataverseError(Code.UNEXPECTED, "The environment is closing.", status=503))
        self.store.close()

    # -- accepting -----------------------------------------------------------------------------------------

    def accept(
        self,
        message: str,
        parameters: Mapping[str, object],
        *,
        package: bytes | None = None,
        upload: str | None = None,
        job: str | None = None,
    ) -> Accepted:
        """Write an operation down, with its package; when this returns it is on the disk.

        Args:
            message: the Web API message, a key of the table of messages.
            parameters: the request's body without the package.
            package: the bytes of the package, where it came with the request.
            upload: id of a staged upload to take the package from.
            job: the ImportJobId that the client asked for.

        Raises:
            DataverseError: another operation holds the environment (429, 80071151), the upload does not
            exist,
                or the job id is taken.

        """
        operation = str(uuid.uuid4())
        if job is None or not self._honour_import_job_id:
            job = str(uuid.uuid4())
        at = now()
        if not message.endswith("Async"):
            # Before the commit, so that the worker cannot finish it unseen.
            self._waiting[operation] = Future()
        try:
            self._write_down(operation, message, parameters, package, upload, job, at)
        except BaseException:
            self._waiting.pop(operation, None)
            raise
        self._wake.set()
        return Accepted(operation, job)

    def _write_down(
        self,
        operation: str,
        message: str,
        parameters: Mapping[str, object],
        package: bytes | None,
        upload: str | None,
        job: str,
        at: str,
    ) -> None:
        kind = _MESSAGES[message]
        with self.store.write() as db:
            if kind.alone:
                _refuse_second(db, kind.name)
            digest = keep_package(db, package) if package is not None else None
            if upload is not None:
                found = db.execute("SELECT package FROM upload WHERE id = ?", (upload,)).fetchone()
                if not found:
                    raise DataverseError(
                        Code.NOT_FOUND, f"stagesolutionupload With Id = {upload} Does Not Exist", status=404
                    )
                digest = found[0]
            imports = digest is not None
            if imports and db.execute("SELECT 1 FROM import_job WHERE id = ?", (job,)).fetchone():
                raise DataverseError(
                    Code.DUPLICATE_RECORD,
                    f"A record with the ImportJobId {job} exists already; give each import an id of its own.",
                    status=412,
                )
            db.execute(
                "INSERT INTO operation (id, number, message, name, type, parameters, package, job, user,"
                " state, status, turn, created_on) VALUES (?,"
                " (SELECT coalesce(max(number), 0) + 1 FROM operation),"
                " ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    operation,
                    message,
                    kind.name,
                    kind.type,
                    json.dumps(parameters),
                    digest,
                    job,
                    ACTING.get(),
                    READY,
                    WAITING,
                    1 if kind.alone else None,
                    at,
                ),
            )
            if imports:
                db.execute(
                    "INSERT INTO import_job (id, number, operation, name, progress, errors, warnings, "
                    "created_on) VALUES (?, (SELECT coalesce(max(number), 0) + 1 FROM import_job), ?, ?, "
                    "0, '[]', '[]', ?)",
                    (job, operation, kind.name, at),
                )
            elif message == "ExportSolutionAsync":
                db.execute("INSERT INTO export_job (id, operation) VALUES (?, ?)", (job, operation))

    async def finish(self, operation: str) -> None:
        """Wait for a synchronous operation that ``accept`` took.

        Raises:
            DataverseError: it failed.

        """
        future = self._waiting[operation]
        try:
            # Shielded: a client that goes away does not take the answer from under the worker.
            await asyncio.shield(asyncio.wrap_future(future))
        finally:
            self._waiting.pop(operation, None)

    def cancel(self, operation: str) -> None:
        """Cancel an operation that has not come to its transaction; again does no harm.

        Raises:
            DataverseError: there is no such operation, or it is completed.

        """
        with self.store.write() as db:
            wrong = cancel(db, operation)
        if wrong == "missing":
            raise DataverseError(
                Code.NOT_FOUND, f"asyncoperation With Id = {operation} Does Not Exist", status=404
            )
        if wrong:
            raise DataverseError(
                Code.INVALID_ARGUMENT,
                "The operation is completed: its state cannot be changed any more.",
            )
        future = self._waiting.get(operation)
        if future is not None and not future.done():
            future.set_exception(DataverseError(Code.UNEXPECTED, "The operation was canceled.", status=500))
        self._wake.set()

    # -- the worker ----------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                with self.store.look() as db:
                    found = db.execute(
                        "SELECT id, message, parameters, job, package FROM operation WHERE status IN (?, ?)"
                        " ORDER BY number LIMIT 1",
                        (WAITING, IN_PROGRESS),
                    ).fetchone()
                if found is None:
                    self._wake.wait()
                    continue
                self._run(*found)
            except Canceled:
                continue
            except Abandoned:
                return
            except STORE_ERRORS:
                # A full disk, say. The operation stays as it is and is tried again.
                _log.exception("environment %s cannot use its file", self.name)
                self._stop.wait(1)

    def _run(self, operation: str, message: str, parameters: str, job: str, package: bytes | None) -> None:
        with self.store.write() as db:
            at = now()
            db.execute(
                "UPDATE operation SET state = ?, status = ?, started_on = coalesce(started_on, ?)"
                " WHERE id = ? AND state <> ?",
                (LOCKED, IN_PROGRESS, at, operation, COMPLETED),
            )
            db.execute(
                "UPDATE import_job SET progress = 0, started_on = coalesce(started_on, ?) WHERE id = ?",
                (at, job),
            )
        work = Work(operation, message, json.loads(parameters), job, package)
        failure = self.engine.run(work, _Progress(self.store, operation, job, self._pace, self._stop))
        future = self._waiting.get(operation)
        if future is not None and failure is not None:
            future.set_exception(failure)
        elif future is not None:
            future.set_result(None)


class _Progress:
    """How far an operation is: written in a short transaction each time, so that pollers see it move."""

    def __init__(self, store: Store, operation: str, job: str, pace: float, stop: threading.Event) -> None:
        self._store = store
        self._operation = operation
        self._job = job
        self._pace = pace
        self._stop = stop
        self._percent = 0.0

    def __call__(self, percent: float) -> None:
        pause = self._pace * (percent - self._percent) / 100
        if self._stop.wait(pause) if pause > 0 else self._stop.is_set():
            raise Abandoned
        self._percent = percent
        with self._store.write() as db:
            state = db.execute("SELECT state FROM operation WHERE id = ?", (self._operation,)).fetchone()
            if state[0] == COMPLETED:
                raise Canceled
            db.execute("UPDATE import_job SET progress = ? WHERE id = ?", (percent, self._job))


def _refuse_second(db: sqlite3.Connection, name: str) -> None:
    running = db.execute("SELECT name FROM operation WHERE turn = 1").fetchone()
    if running:
        raise DataverseError(
            Code.OPERATION_RUNNING,
            f"Cannot start another [{name}] because there is a previous [{running[0]}] running at this "
            "moment. Use Solution History for more details.",
            status=429,
            retry_after=RETRY_AFTER,
        )
