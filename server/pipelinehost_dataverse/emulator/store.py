"""The rows of one environment in one SQLite file, and who may touch them when.

One connection writes, behind a lock that only threads of work take; another one, ``query_only``, answers
the reads of the Web API on the event loop and never waits for a writer (WAL). So only one connection ever
writes or checkpoints, which keeps clear of the WAL-reset bug of SQLite before 3.51.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import peewee

FORMAT = 3
"""Goes into ``PRAGMA user_version``. Formats 1 and 2 are brought up to date, any other one is refused."""


class _Row(peewee.Model):
    """Models give the schema; statements are plain SQL, since building them costs more than running them."""

    class Meta:
        legacy_table_names = False


class Environment(_Row):
    """The one row that says which environment this file is."""

    id = peewee.TextField(primary_key=True)
    tenant = peewee.TextField()
    business_unit = peewee.TextField()
    user = peewee.TextField()
    created_on = peewee.TextField()


class User(_Row):
    """An application user: an application that has signed in here; ``reader`` says that it only looks."""

    id = peewee.TextField(primary_key=True)
    application = peewee.TextField(unique=True, collation="NOCASE")
    reader = peewee.BooleanField()
    created_on = peewee.TextField()


class Package(_Row):
    """The bytes of a solution package, once per digest."""

    sha256 = peewee.BlobField(primary_key=True)
    content = peewee.BlobField()


class Publisher(_Row):
    """A publisher; unique names compare without letter case, as everything in Dataverse."""

    id = peewee.TextField(primary_key=True)
    unique_name = peewee.TextField(unique=True, collation="NOCASE")
    display_name = peewee.TextField()
    prefix = peewee.TextField()
    option_value_prefix = peewee.IntegerField()
    created_on = peewee.TextField()


class Solution(_Row):
    """An installed solution. Its place in the stack of managed layers is ``position``."""

    id = peewee.TextField(primary_key=True)
    unique_name = peewee.TextField(unique=True, collation="NOCASE")
    display_name = peewee.TextField()
    description = peewee.TextField()
    version = peewee.TextField()
    platform_version = peewee.TextField()
    managed = peewee.BooleanField()
    visible = peewee.BooleanField()
    platform = peewee.BooleanField()
    publisher = peewee.TextField(index=True)
    position = peewee.IntegerField(unique=True)
    upgrade_of = peewee.TextField(null=True)
    patch_of = peewee.TextField(null=True)
    package = peewee.BlobField(null=True)
    installed_on = peewee.TextField()
    updated_on = peewee.TextField()


class Component(_Row):
    """A component exists while any layer of it is left."""

    id = peewee.AutoField()
    kind = peewee.TextField()
    key = peewee.TextField()
    object_id = peewee.TextField(index=True)
    parent_kind = peewee.TextField(null=True)
    parent_key = peewee.TextField(null=True)

    class Meta:
        indexes = ((("kind", "key"), True), (("parent_kind", "parent_key"), False))


class Layer(_Row):
    """What a managed solution says about a component; or the makers, whose one layer belongs to ``Active``.

    The makers' layer has a second row while a change of theirs is not published.
    """

    solution = peewee.TextField()
    component = peewee.IntegerField(index=True)
    published = peewee.BooleanField()
    sha256 = peewee.BlobField()
    name = peewee.TextField()
    schema_name = peewee.TextField()
    facts = peewee.TextField()
    behavior = peewee.IntegerField()

    class Meta:
        primary_key = peewee.CompositeKey("solution", "component", "published")
        without_rowid = True


class Membership(_Row):
    """A component that an unmanaged solution contains: the container says nothing about it.

    ``sha256`` is the component's digest in the package that the solution came in, or empty.
    """

    solution = peewee.TextField()
    component = peewee.IntegerField(index=True)
    sha256 = peewee.BlobField()
    behavior = peewee.IntegerField()

    class Meta:
        primary_key = peewee.CompositeKey("solution", "component")
        without_rowid = True


class Dependency(_Row):
    """An edge that a solution's layers give: ``dependent`` needs ``required``."""

    id = peewee.AutoField()
    solution = peewee.TextField()
    dependent_kind = peewee.TextField()
    dependent_key = peewee.TextField()
    dependent_name = peewee.TextField()
    required_kind = peewee.TextField()
    required_key = peewee.TextField()
    required_name = peewee.TextField()
    declared = peewee.BooleanField()
    published = peewee.BooleanField()

    class Meta:
        indexes = (
            (("required_kind", "required_key"), False),
            (("solution", "dependent_kind", "dependent_key"), False),
        )


class KindCode(_Row):
    """Component type codes of 10000 and more, which each environment gives out for itself."""

    kind = peewee.TextField(primary_key=True)
    code = peewee.IntegerField(unique=True)


class VariableValue(_Row):
    """The current value of an environment variable: at most one per definition."""

    id = peewee.TextField(primary_key=True)
    schema_name = peewee.TextField(unique=True, collation="NOCASE")
    value = peewee.TextField()
    customer = peewee.BooleanField()
    created_on = peewee.TextField()
    modified_on = peewee.TextField()


class Binding(_Row):
    """The connection behind a connection reference."""

    logical_name = peewee.TextField(primary_key=True, collation="NOCASE")
    connection = peewee.TextField()


class Switch(_Row):
    """Whether a flow is on."""

    component = peewee.IntegerField(primary_key=True)
    on = peewee.BooleanField()


class Connection(_Row):
    """A connection of a user to a connector; not a part of Dataverse, but beside it."""

    id = peewee.TextField(primary_key=True, collation="NOCASE")
    display_name = peewee.TextField()
    connector_id = peewee.TextField()
    status = peewee.TextField()
    created_on = peewee.TextField()


class Operation(_Row):
    """An accepted operation. ``turn`` is 1 while it holds the environment, otherwise null: so one at most.

    ``user`` is the application user who asked for it; null for the environment's own user.
    """

    id = peewee.TextField(primary_key=True)
    number = peewee.IntegerField(unique=True)
    message = peewee.TextField()
    name = peewee.TextField()
    type = peewee.IntegerField()
    parameters = peewee.TextField()
    package = peewee.BlobField(null=True)
    job = peewee.TextField(null=True, index=True)
    user = peewee.TextField(null=True)
    state = peewee.IntegerField()
    status = peewee.IntegerField(index=True)
    turn = peewee.IntegerField(null=True, unique=True)
    text = peewee.TextField(null=True)
    error_code = peewee.IntegerField(null=True)
    created_on = peewee.TextField()
    started_on = peewee.TextField(null=True)
    completed_on = peewee.TextField(null=True)


class ImportJob(_Row):
    """The progress and the results of an import."""

    id = peewee.TextField(primary_key=True)
    number = peewee.IntegerField(unique=True)
    operation = peewee.TextField(unique=True)
    name = peewee.TextField()
    solution_name = peewee.TextField(null=True)
    progress = peewee.FloatField()
    content = peewee.TextField(null=True)
    errors = peewee.TextField()
    warnings = peewee.TextField()
    created_on = peewee.TextField()
    started_on = peewee.TextField(null=True)
    completed_on = peewee.TextField(null=True)


class ExportJob(_Row):
    """The result of ExportSolutionAsync, until it is fetched and beyond."""

    id = peewee.TextField(primary_key=True)
    operation = peewee.TextField(unique=True)
    package = peewee.BlobField(null=True)


class History(_Row):
    """One row per solution operation that got as far as a readable package."""

    id = peewee.TextField(primary_key=True)
    number = peewee.IntegerField(unique=True)
    operation = peewee.TextField(unique=True)
    solution_id = peewee.TextField(null=True)
    name = peewee.TextField()
    version = peewee.TextField()
    publisher = peewee.TextField()
    managed = peewee.BooleanField()
    overwrite = peewee.BooleanField()
    kind = peewee.IntegerField()
    sub_kind = peewee.IntegerField()
    status = peewee.IntegerField()
    result = peewee.BooleanField(null=True)
    error_code = peewee.IntegerField(null=True)
    error = peewee.TextField(null=True)
    started_on = peewee.TextField()
    ended_on = peewee.TextField(null=True)


class Upload(_Row):
    """A package that StageSolution left for a later import."""

    id = peewee.TextField(primary_key=True)
    package = peewee.BlobField()
    solution_name = peewee.TextField()
    version = peewee.TextField()
    created_on = peewee.TextField()


MODELS: tuple[type[peewee.Model], ...] = (
    Environment, User, Package, Publisher, Solution, Component, Layer, Membership, Dependency, KindCode,
    VariableValue, Binding, Switch, Connection, Operation, ImportJob, ExportJob, History, Upload,
)  # fmt: skip

_PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 10_000, "cache_size": -8_000}


STORE_ERRORS = (sqlite3.Error, peewee.PeeweeException)
"""What a full disk and the like raise: out of statements, and out of Peewee's own BEGIN and COMMIT."""


class EnvironmentInUseError(Exception):
    """Another process, or another part of this one, has the environment's file open."""


class Store:
    """The open file of one environment.

    Args:
        path: the SQLite file; it and its folder are created where they are missing.

    Raises:
        EnvironmentInUseError: the file is open elsewhere; the message says which process holds it.
        ValueError: the file is of an unknown format, or no file of an environment.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._turn = threading.Lock()
        self._reading = threading.Lock()
        # Not the database itself: closing any descriptor of a file drops SQLite's own locks on it.
        self._lock_file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._hold()
            self._writer = self._connect(query_only=False)
            with self.write() as db:
                self._prepare(db)
            self._reader = self._connect(query_only=True)
        except BaseException:
            os.close(self._lock_file)
            raise

    def _hold(self) -> None:
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock_file, 100, 0).decode("ascii", "replace").strip() or "another process"
            raise EnvironmentInUseError(
                f"{self.path} is open already, by {holder}; an environment belongs to one process at a time. "
                "Stop that one, or use its address."
            ) from None
        os.ftruncate(self._lock_file, 0)
        os.pwrite(self._lock_file, f"process {os.getpid()}".encode("ascii"), 0)

    def _connect(self, *, query_only: bool) -> peewee.SqliteDatabase:
        pragmas = {**_PRAGMAS, "query_only": 1} if query_only else _PRAGMAS
        database = peewee.SqliteDatabase(
            str(self.path), pragmas=pragmas, thread_safe=False, check_same_thread=False
        )
        try:
            database.connect()
        except (sqlite3.DatabaseError, peewee.DatabaseError) as error:
            raise ValueError(f"{self.path} is not the file of an environment: {error}") from error
        return database

    def _prepare(self, db: sqlite3.Connection) -> None:
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found == FORMAT:
            return
        if found in (1, 2):

            def create(model: type[peewee.Model]) -> None:
                peewee.SchemaManager(model, self._writer).create_all()

            if found == 1:
                _from_format_1(db, create)
            _from_format_2(db, create)
            return
        if found or db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise ValueError(
                f"{self.path} has format {found}, this version reads {FORMAT}; use a new file for the "
                "environment"
            )
        for model in MODELS:
            peewee.SchemaManager(model, self._writer).create_all()
        db.execute(f"PRAGMA user_version = {FORMAT}")

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed (and on the disk) at the end, rolled back on an exception."""
        with self._turn, self._writer.atomic("IMMEDIATE"):
            yield _raw(self._writer)

    @contextlib.contextmanager
    def look(self) -> Iterator[sqlite3.Connection]:
        """Read in a thread of work, between transactions, where a long read would hold the event loop up."""
        with self._turn:
            yield _raw(self._writer)

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Read what is committed, without waiting for whoever writes. Keep it short: it blocks the loop."""
        with self._reading:
            yield _raw(self._reader)

    def close(self) -> None:
        """Close the file and let go of it. The writer goes last, so that only it checkpoints."""
        with self._turn, self._reading:
            self._reader.close()
            self._writer.close()
            os.ftruncate(self._lock_file, 0)
            os.close(self._lock_file)


_FROM_FORMAT_1 = (
    """INSERT INTO layer (solution, component, published, sha256, name, schema_name, facts, behavior)
       SELECT solution, component, published, sha256, name, schema_name, facts, behavior FROM layer_1
       WHERE solution IN (SELECT id FROM solution WHERE managed)""",
    """INSERT OR IGNORE INTO layer (solution, component, published, sha256, name, schema_name, facts,
         behavior)
       SELECT (SELECT id FROM solution WHERE unique_name = 'Active'), component, published, sha256, name,
         schema_name, facts, behavior FROM layer_1
       WHERE solution IN (SELECT id FROM solution WHERE NOT managed)""",
    """INSERT INTO membership (solution, component, sha256, behavior)
       SELECT solution, component, sha256, behavior FROM layer_1
       WHERE solution IN (SELECT id FROM solution WHERE NOT managed AND unique_name <> 'Active')""",
    """UPDATE dependency SET solution = (SELECT id FROM solution WHERE unique_name = 'Active')
       WHERE solution IN (SELECT id FROM solution WHERE NOT managed)""",
    "DROP TABLE layer_1",
)


def _from_format_1(db: sqlite3.Connection, create: Callable[[type[peewee.Model]], None]) -> None:
    """There, unmanaged solutions had layers of their own; the last import's held for all of them."""
    db.execute("ALTER TABLE solution ADD COLUMN patch_of TEXT")
    db.execute("ALTER TABLE dependency ADD COLUMN published INTEGER NOT NULL DEFAULT 1")
    db.execute("DROP INDEX layer_component")
    db.execute("ALTER TABLE layer RENAME TO layer_1")
    create(Layer)
    create(Membership)
    for statement in _FROM_FORMAT_1:
        db.execute(statement)


def _from_format_2(db: sqlite3.Connection, create: Callable[[type[peewee.Model]], None]) -> None:
    """There, every application acted as the environment's own user."""
    db.execute("ALTER TABLE operation ADD COLUMN user TEXT")
    create(User)
    db.execute(f"PRAGMA user_version = {FORMAT}")


def _raw(database: peewee.SqliteDatabase) -> sqlite3.Connection:
    connection: Any = database.connection()  # type: ignore[no-untyped-call]  # so is the stub
    return cast("sqlite3.Connection", connection)
