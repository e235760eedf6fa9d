"""The tables of the store, as Peewee knows them, and how a query becomes text once and for all.

A row is a *frame* (the message's bytes as they stand in field 1 of a list) beside the columns that queries
need. The frame comes last, so that a scan over columns does not read its pages; what was added behind it is
read from indexes. :mod:`.migrations` creates the tables; a test compares both.
"""

from __future__ import annotations

from typing import Final, Protocol

from google.protobuf.message import Message
from peewee import (
    SQL,
    BlobField,
    CompositeKey,
    IntegerField,
    Model,
    SqliteDatabase,
    TextField,
)

ANY: Final = SQL("?")
"""Stands in a query for a value that comes with its execution."""

FINISHED: Final = 9
"""``Run.State`` from which on a run is finished; written out in the schema's partial indexes."""


RESTING: Final = (3, 4)
"""``Run.State`` of a run that waits for people or for a time; it is in nobody's way."""


class _Query(Protocol):
    def sql(self) -> tuple[str, list[object]]: ...


def text(query: _Query) -> str:
    """The SQL of a query whose every value is :data:`ANY`, in the order of writing.

    Raises:
        TypeError: a value is part of the query and would be lost.
    """
    sql, values = query.sql()
    if values:
        raise TypeError(f"a compiled query may not carry values, and this one has {values!r}: {sql}")
    return sql


def insert(table: type[Model], *, replace: bool = False) -> str:
    """The SQL that inserts a row with all its columns, in their order."""
    fields = table._meta.sorted_fields
    query = table.insert_many([(ANY,) * len(fields)], fields=fields)
    return text(query.on_conflict_replace() if replace else query)


def frame(message: Message) -> bytes:
    """The message as item of field 1: what a list's bytes are made of."""
    return framed(message.SerializeToString())


def framed(body: bytes) -> bytes:
    """The same of a message's bytes."""
    size = len(body)
    if size < 0x80:
        return b"%c%c%b" % (0x0A, size, body)
    header = bytearray(b"\x0a")
    while size >= 0x80:
        header.append(size & 0x7F | 0x80)
        size >>= 7
    header.append(size)
    return bytes(header) + body


def body(frame: bytes) -> bytes:
    """The message's bytes out of its frame."""
    start = 1
    while frame[start] & 0x80:
        start += 1
    return frame[start + 1 :]


class Row(Model):
    """What all tables share."""

    class Meta:
        """Never connected: it gives queries their dialect."""

        database = SqliteDatabase(None)
        legacy_table_names = False


class Meta(Row):
    """Facts about the store itself."""

    key = TextField(primary_key=True)
    value = TextField()


class Environment(Row):
    """Environments."""

    name = TextField(primary_key=True)
    kind = IntegerField()
    region = TextField()
    display_name = TextField()
    frame = BlobField()


class Pipeline(Row):
    """Pipelines."""

    name = TextField(primary_key=True)
    display_name = TextField()
    frame = BlobField()


class PipelineEnvironment(Row):
    """Which pipelines use an environment, as development environment or as target."""

    environment = TextField()
    pipeline = TextField()

    class Meta:
        """The pair is the row."""

        primary_key = CompositeKey("environment", "pipeline")


class Artifact(Row):
    """Artifacts."""

    name = TextField(primary_key=True)
    solution = TextField()
    version = TextField()
    managed = IntegerField()
    create_time = IntegerField()
    frame = BlobField()


class Run(Row):
    """Runs. Times are nanoseconds since 1970.

    ``end_time`` and ``end_sequence``, that of the event of its end, are 0 until the run is finished.
    """

    name = TextField(primary_key=True)
    state = IntegerField()
    pipeline = TextField()
    stage = TextField()
    solution = TextField()
    version = TextField()
    artifact = TextField()
    source_environment = TextField()
    target_environment = TextField()
    requester = TextField()
    create_time = IntegerField()
    end_time = IntegerField()
    epoch = IntegerField()
    held_environment = TextField(null=True)
    waiting = IntegerField(null=True)
    frame = BlobField()
    end_sequence = IntegerField()
    pipeline_version = TextField()


class PipelineVersion(Row):
    """Pipelines as they were when runs were asked for, as message bytes."""

    version = TextField(primary_key=True)
    pipeline = BlobField()


class Output(Row):
    """What the done steps of a run have left for the next ones."""

    run = TextField()
    step = TextField()
    output = BlobField()

    class Meta:
        """One output of each step."""

        primary_key = CompositeKey("run", "step")


class Finding(Row):
    """Findings of a run, in order."""

    run = TextField()
    position = IntegerField()
    step = IntegerField()
    frame = BlobField()

    class Meta:
        """Numbered within the run."""

        primary_key = CompositeKey("run", "position")


class ComponentResult(Row):
    """What an import did to each component, in order."""

    run = TextField()
    position = IntegerField()
    frame = BlobField()

    class Meta:
        """Numbered within the run."""

        primary_key = CompositeKey("run", "position")


class RunSetting(Row):
    """The merged settings of a run, without values."""

    run = TextField()
    position = IntegerField()
    frame = BlobField()

    class Meta:
        """Numbered within the run."""

        primary_key = CompositeKey("run", "position")


class GateNote(Row):
    """What approvers of a run told the administrators, in order."""

    run = TextField()
    position = IntegerField()
    frame = BlobField()

    class Meta:
        """Numbered within the run."""

        primary_key = CompositeKey("run", "position")


class Freeze(Row):
    """Freezes; ``pipeline`` is empty for those of the whole host."""

    name = TextField(primary_key=True)
    scope = TextField()
    pipeline = TextField()
    frame = BlobField()


class Delivery(Row):
    """What is still to be told to the webhook of the gate that a run waits at."""

    run = TextField(primary_key=True)
    id = TextField()
    kind = IntegerField()
    attempts = IntegerField()
    body = BlobField()


class Event(Row):
    """The record: events, each chained to the one before by ``sha256(its hash + message bytes)``."""

    sequence = IntegerField(primary_key=True)
    subject = TextField()
    kind = IntegerField()
    actor = TextField()
    time = IntegerField()
    hash = BlobField()
    frame = BlobField()


class Secret(Row):
    """Ciphertexts."""

    name = TextField(primary_key=True)
    ciphertext = BlobField()


class Token(Row):
    """Bearer tokens by the HMAC of their secret. A frame is empty where the first schema had none."""

    name = TextField(primary_key=True)
    digest = BlobField()
    principal = TextField()
    frame = BlobField()


class Principal(Row):
    """Principals."""

    name = TextField(primary_key=True)
    kind = IntegerField()
    role = IntegerField()
    display_name = TextField()
    frame = BlobField()


class Membership(Row):
    """Which groups a principal belongs to."""

    member = TextField()
    principal = TextField()

    class Meta:
        """The pair is the row."""

        primary_key = CompositeKey("member", "principal")


class Identity(Row):
    """Whom another system's name means."""

    identity = TextField(primary_key=True)
    principal = TextField()


class PipelineAccess(Row):
    """How far a principal's right to a pipeline goes, as ``Reach`` counts."""

    principal = TextField()
    pipeline = TextField()
    reach = IntegerField()

    class Meta:
        """The pair is the row."""

        primary_key = CompositeKey("principal", "pipeline")


class EnvironmentMaker(Row):
    """Who may put an environment into pipelines of their own."""

    principal = TextField()
    environment = TextField()

    class Meta:
        """The pair is the row."""

        primary_key = CompositeKey("principal", "environment")


class Uploader(Row):
    """Who has uploaded an artifact's bytes."""

    artifact = TextField()
    principal = TextField()

    class Meta:
        """The pair is the row."""

        primary_key = CompositeKey("artifact", "principal")


class Request(Row):
    """Answers to requests that carried a ``request_id``."""

    principal = TextField()
    request_id = TextField()
    method = TextField()
    body_sha256 = BlobField()
    time = IntegerField()
    response = BlobField()

    class Meta:
        """An id is used once by a principal."""

        primary_key = CompositeKey("principal", "request_id")
