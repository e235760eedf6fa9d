"""The store: one SQLite file that holds everything but the packages.

Reads are synchronous and take microseconds; writes are jobs for one thread that commits them in groups.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from peewee import SqliteDatabase

from pipelinehost_server.store.lock import FolderLock, StoreLocked
from pipelinehost_server.store.migrations import StoreTooNew
from pipelinehost_server.store.once import Once
from pipelinehost_server.store.reads import VISIBLE, Committed, Delivery, Key, Kind, Operator, Reach, Reads
from pipelinehost_server.store.record import Snapshot
from pipelinehost_server.store.tables import RESTING
from pipelinehost_server.store.transaction import (
    KEEP,
    PEER,
    EnvironmentHeld,
    Fenced,
    Keep,
    Transaction,
    identity_key,
    reaches,
)
from pipelinehost_server.store.writer import Listener, Writer

__all__ = [
    "KEEP",
    "PEER",
    "RESTING",
    "VISIBLE",
    "Delivery",
    "EnvironmentHeld",
    "Fenced",
    "Keep",
    "Key",
    "Kind",
    "Once",
    "Operator",
    "Reach",
    "Reads",
    "Snapshot",
    "Store",
    "StoreLocked",
    "StoreTooNew",
    "Transaction",
    "identity_key",
    "reaches",
]

T = TypeVar("T")


class Store:
    """Everything that the host knows, durably.

    Args:
        folder: the data folder; made if it is missing. One store at a time has it.
        address: where this host serves, for the words that a second one is refused with.
    """

    reads: Reads
    """What is committed; for the thread of the loop only."""

    def __init__(self, folder: Path, address: str = "") -> None:
        self._path = folder / "pipelinehost.db"
        self._lock = FolderLock(folder, address)
        self._writer = Writer(self._path)
        self._snapshots: weakref.WeakSet[Snapshot] = weakref.WeakSet()
        # It cannot write, and it is opened after the writer's connection and closed before it: so it can
        # neither recover nor checkpoint the log.
        self._read_database = SqliteDatabase(
            f"{self._path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=5,
            autoconnect=False,
            thread_safe=False,
            cached_statements=512,
            pragmas={"query_only": 1, "cache_size": -32 * 1024},
        )

    async def open(self) -> None:
        """Takes the folder, brings its schema up to date and starts the writer.

        Raises:
            StoreLocked: another host has the folder.
            StoreTooNew: a newer program has written the store.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.take()
        try:
            # SQLite gives its logs the same mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            await self._writer.start()
            self._read_database.connect()
        except BaseException:
            await self.close()
            raise
        self.reads = Committed(self._read_database, lambda: self._writer.rights_changed)

    async def close(self) -> None:
        """Commits what waits, and lets go of the folder. A store is opened once."""
        await self._writer.drain()
        for snapshot in self._snapshots:
            snapshot.close()
        self._read_database.close()
        await self._writer.stop()
        self._lock.release()

    async def write(self, job: Callable[[Transaction], T]) -> T:
        """Runs a job in a transaction, together with others; returns when its changes are durable.

        What the job raises is raised here, and its changes are undone. A caller who gives up in the meantime
        does not stop the job. The job runs in another thread and may run again after a failed commit: it must
        have no effect but through its transaction.

        Raises:
            ResourceExhausted: the disk is full.
            Unavailable: the store is closed, or another program keeps it locked.
        """
        result: T = await self._writer.submit(job)
        return result

    def snapshot(self) -> Snapshot:
        """The record as it is now, to be read off the loop; whoever takes it closes it."""
        snapshot = Snapshot(self._path)
        self._snapshots.add(snapshot)
        return snapshot

    def listen(self, callback: Listener) -> None:
        """Calls back on the loop after each commit with its events, in the order of their sequence.

        That is before the writers of that commit go on. A callback must not raise.
        """
        self._writer.listen(callback)
