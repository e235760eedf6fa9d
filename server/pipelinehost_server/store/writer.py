"""The one thread that writes: it takes the jobs that have gathered and commits them together."""

from __future__ import annotations

import asyncio
import logging
import queue
import shutil
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from peewee import SqliteDatabase

from pipelinehost.errors import ResourceExhausted, Unavailable
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Event
from pipelinehost_server.store import migrations
from pipelinehost_server.store.transaction import PEER, Transaction

Job = Callable[[Transaction], Any]
Listener = Callable[[Sequence[Event]], None]

_log = logging.getLogger(__name__)

_BATCH: Final = 256
_LEAST_FREE_BYTES: Final = 1 << 20
# After these SQLite may have rolled back the whole transaction, or cannot go on with it.
_ENDS_BATCH: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    }
)


class _HalfDone(Exception):
    """A job of a batch has failed in the middle."""


class Writer:
    """Group commit: one ``BEGIN IMMEDIATE`` and one ``COMMIT`` for all jobs that wait.

    Where one of them fails in the middle, all are run anew, with a savepoint for each.

    Its connection is the only one that writes and the only one that checkpoints: SQLite before 3.51.3 can
    lose pages when two connections do so at once (https://sqlite.org/wal.html#walresetbug).
    """

    patience: float = 20.0
    """Seconds to wait for another program that has locked the database, such as a ``sqlite3`` shell."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs: queue.SimpleQueue[tuple[Job, str, asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._database = SqliteDatabase(
            str(path),
            timeout=self.patience,
            autoconnect=False,
            cached_statements=512,
            pragmas={
                "journal_mode": "wal",
                "synchronous": "full",
                "cache_size": -32 * 1024,
                "journal_size_limit": 64 * 1024 * 1024,
                "temp_store": "memory",
            },
        )
        self.rights_changed = 0
        """How often what anybody may do has changed, as far as it is committed; read on the loop."""
        self._listeners: list[Listener] = []
        self._open = False
        self._ended: asyncio.Future[None] | None = None

    def listen(self, callback: Listener) -> None:
        """Calls back on the loop, after each commit, with the events that it brought."""
        self._listeners.append(callback)

    async def start(self) -> None:
        """Opens the database, migrates it and begins to take jobs.

        Raises:
            StoreTooNew: a newer program has written it.
        """
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        started: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._work, args=(started,), name="store-writer", daemon=True).start()
        await started
        self._open = True

    async def drain(self) -> None:
        """Takes no more jobs, and commits those that wait."""
        if self._open:
            last = self.submit(lambda transaction: None)
            self._open = False
            await last

    async def stop(self) -> None:
        """Ends the thread, which closes the database, after :meth:`drain`."""
        if self._ended is not None:
            self._jobs.put(None)
            await self._ended

    def submit(self, job: Job) -> asyncio.Future[Any]:
        """Hands a job to the thread; the future has its result when that is committed.

        Raises:
            Unavailable: the store is not open.
        """
        if not self._open:
            raise Unavailable(
                ErrorReason.ERROR_REASON_HOST_UNAVAILABLE,
                "the host is starting or stopping and writes nothing now",
                remedy="Repeat the call when the host is up.",
            )
        future = self._loop.create_future()
        self._jobs.put((job, PEER.get(), future))
        return future

    # What follows runs in the thread.

    def _work(self, started: asyncio.Future[None]) -> None:
        try:
            self._database.connect()
            migrations.migrate(self._database)
            self._connection: sqlite3.Connection = self._database.connection()  # type: ignore[no-untyped-call]  # stubs
            self._transaction = Transaction(self._database)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits in start()
            self._database.close()
            self._tell(_settle, started, None, error)
            self._tell(_settle, self._ended, None, None)
            return
        self._tell(_settle, started, None, None)
        last = False
        while not last:
            batch = []
            item = self._jobs.get()
            while item is not None:
                batch.append(item)
                if len(batch) == _BATCH or self._jobs.empty():
                    break
                item = self._jobs.get()
            last = item is None
            if batch:
                outcomes = self._commit([(job, peer) for job, peer, _ in batch])
                self._tell(
                    self._deliver, [future for _, _, future in batch], outcomes, self._transaction.appended
                )
                self._transaction.appended = []
        self._database.close()
        self._tell(_settle, self._ended, None, None)

    def _commit(self, jobs: Sequence[tuple[Job, str]]) -> list[tuple[Any, BaseException | None]]:
        """Results and errors of the jobs; the results are committed."""
        transaction = self._transaction
        start = transaction.mark()
        execute = self._connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            try:
                outcomes = self._run(jobs)
            except _HalfDone:
                execute("ROLLBACK")
                transaction.back_to(start)
                execute("BEGIN IMMEDIATE")
                outcomes = self._run_apart(jobs)
            if transaction.appended:
                transaction.sign_head()
            execute("COMMIT")
            self.rights_changed = transaction.rights_changed
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the jobs; the thread lives on
            transaction.back_to(start)
            self._roll_back()
            if _code(error) in _ENDS_BATCH:
                _log.error("the store could not be written: %s", error)
            return [(None, self._refusal(error)) for _ in jobs]
        return outcomes

    def _run(self, jobs: Sequence[tuple[Job, str]]) -> list[tuple[Any, BaseException | None]]:
        """Runs jobs one after the other; those that fail have nearly always changed nothing yet.

        A savepoint for each would cost as much as a third of the statements of a deployment.

        Raises:
            _HalfDone: one failed that had changed something; nothing of the batch may stay.
        """
        transaction, connection = self._transaction, self._connection
        outcomes: list[tuple[Any, BaseException | None]] = []
        for job, transaction.peer in jobs:
            before, changes = transaction.mark(), connection.total_changes
            try:
                outcomes.append((job(transaction), None))
            except BaseException as error:
                if _code(error) in _ENDS_BATCH:
                    raise
                if connection.total_changes != changes or transaction.mark() != before:
                    raise _HalfDone from error
                outcomes.append((None, error))
        return outcomes

    def _run_apart(self, jobs: Sequence[tuple[Job, str]]) -> list[tuple[Any, BaseException | None]]:
        """Runs jobs so that what one has changed can be taken back without the others."""
        transaction, execute = self._transaction, self._connection.execute
        outcomes: list[tuple[Any, BaseException | None]] = []
        for job, transaction.peer in jobs:
            before = transaction.mark()
            execute("SAVEPOINT job")
            try:
                outcomes.append((job(transaction), None))
            except BaseException as error:
                if _code(error) in _ENDS_BATCH:
                    raise
                execute("ROLLBACK TO job")
                transaction.back_to(before)
                outcomes.append((None, error))
            execute("RELEASE job")
        return outcomes

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:  # the disk again; SQLite has dropped the transaction all the same
                _log.exception("the store could not roll back")

    def _refusal(self, error: BaseException) -> BaseException:
        """The error in the words of callers, where it is about the disk or a lock."""
        code = _code(error)
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and self._is_full()):
            refusal: BaseException = ResourceExhausted(
                ErrorReason.ERROR_REASON_LIMIT_EXCEEDED,
                "the disk of the host's data folder is full; nothing was changed",
                remedy="Free space on the disk of the data folder; the host then goes on by itself.",
                metadata={"limit": "disk"},
            )
        elif code in _ENDS_BATCH:
            refusal = Unavailable(
                ErrorReason.ERROR_REASON_HOST_UNAVAILABLE,
                f"the store could not be written ({error}); nothing was changed",
                remedy="Repeat the call; if that does not help, look at the disk of the host's data folder.",
            )
        else:
            return error
        refusal.__cause__ = error
        return refusal

    def _is_full(self) -> bool:
        return shutil.disk_usage(self._path.parent).free < _LEAST_FREE_BYTES

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            _log.warning("the loop ended before the store was closed")

    # What follows runs on the loop.

    def _deliver(
        self,
        futures: Sequence[asyncio.Future[Any]],
        outcomes: Sequence[tuple[Any, BaseException | None]],
        events: Sequence[Event],
    ) -> None:
        if events:
            for callback in self._listeners:
                try:
                    callback(events)
                except Exception:  # noqa: BLE001 - a defect there must not leave the writers waiting
                    _log.exception("a listener of the store failed")
        for future, (result, error) in zip(futures, outcomes, strict=True):
            _settle(future, result, error)


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():  # its caller gave up
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):  # a future does not take it
        future.set_exception(RuntimeError("a job of the store raised StopIteration"))
    else:
        future.set_exception(error)


def _code(error: BaseException) -> int:
    """SQLite's primary result code, or 0 for an error of another kind."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
