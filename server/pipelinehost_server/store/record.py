"""The record as something to prove: how its events are chained, what its head vouches for, and what is wrong.

Every event is chained to the one before by SHA-256, and the end of the chain is signed in the transaction
that writes it. So nobody without the host's key can change, drop, insert or move an event unseen. Somebody
who has that key can write another record: only a head that was exported and lies elsewhere shows that.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from google.protobuf.message import DecodeError
from peewee import SQL, fn

from pipelinehost.v1.resources_pb2 import Checkpoint, Event, RecordFault, RecordHead
from pipelinehost_server.store import tables
from pipelinehost_server.store.tables import ANY, body, framed, text

SUBJECT: Final = "record"
"""What events about the record itself are about."""
HEAD: Final = "head"
"""Key of the signed head among the store's facts."""
START: Final = bytes(32)
"""What the very first event is chained to."""

_ROWS = text(
    tables.Event.select().where(tables.Event.sequence >= ANY).order_by(tables.Event.sequence).limit(ANY)
)
_ENDS = text(tables.Event.select(fn.MIN(tables.Event.sequence), fn.MAX(tables.Event.sequence)))
_META = text(tables.Meta.select(tables.Meta.value).where(tables.Meta.key == ANY))
_PRUNED = text(
    tables.Event.select(tables.Event.frame)
    .where(
        tables.Event.subject == SQL(f"'{SUBJECT}'"), tables.Event.kind == SQL(str(Event.KIND_EVENTS_PRUNED))
    )
    .order_by(tables.Event.sequence.desc())
    .limit(SQL("1"))
)
_LEAST, _MOST = -(2**63), 2**63 - 1


class Key(Protocol):
    """What heads are signed with."""

    public: str
    """The public key, hexadecimal."""

    def sign(self, text: bytes) -> bytes:
        """The signature of a text."""
        ...

    def has_signed(self, text: bytes, signature: bytes) -> bool:
        """Whether a signature is of this key and this text."""
        ...


def chained(previous: bytes, event: bytes) -> bytes:
    """The hash of an event's bytes, given the hash of the event before."""
    return hashlib.sha256(previous + event).digest()


def signed_text(head: RecordHead, purpose: str) -> bytes:
    """What is signed of a head; ``docs/record.md`` describes it.

    Args:
        head: its signature and key are no part of the text.
        purpose: ``head`` for the one that the store keeps, ``export`` for one that is given away: so that
            whoever has an export cannot put its head in the store's place.
    """
    return (
        f"pipelinehost {purpose}\nstore {head.store}\nfirst {head.first_sequence}\n"
        f"previous {head.previous_sha256}\nlast {head.last_sequence}\nsha256 {head.sha256}\n"
        f"time {head.time.ToJsonString()}\n"
    ).encode()


def sign(head: RecordHead, key: Key, purpose: str) -> RecordHead:
    """Signs a head in place and returns it."""
    head.key = key.public
    head.signature = key.sign(signed_text(head, purpose)).hex()
    return head


def is_signed(head: RecordHead, key: Key, purpose: str) -> bool:
    """Whether a head is signed with this very key."""
    try:
        signed, signature = signed_text(head, purpose), bytes.fromhex(head.signature)
    except ValueError:
        return False
    return head.key == key.public and key.has_signed(signed, signature)


def kept(stored: str | None) -> RecordHead | None:
    """The head as the store keeps it; None where there is none that can be read."""
    try:
        return None if stored is None else RecordHead.FromString(bytes.fromhex(stored))
    except (ValueError, TypeError, DecodeError):
        return None


def fault_at_end(
    head: RecordHead | None, last: int, sha256: bytes, store: str, key: Key
) -> RecordFault | None:
    """What is wrong with the end of a record, given the head that the store keeps."""
    kinds = RecordFault.Kind
    if head is None or head.store != store or not is_signed(head, key, "head"):
        kind, message = kinds.KIND_UNSIGNED, "the signed head is missing, or is not signed by this host"
    elif last < head.last_sequence:
        kind = kinds.KIND_TRUNCATED
        message = f"the record ends at {last}, and its signed head says {head.last_sequence}"
    elif last > head.last_sequence:
        kind = kinds.KIND_INSERTED
        message = f"the record goes on after {head.last_sequence}, where its signed head says that it ends"
    elif sha256.hex() != head.sha256:
        kind = kinds.KIND_CHANGED
        message = "the chain ends in another hash than the signed head: it was computed anew"
    else:
        return None
    return RecordFault(kind=kind, sequence=last, message=message)


class Row(NamedTuple):
    """A row of the event table as it lies there, whatever somebody has made of it."""

    sequence: int
    subject: object
    kind: object
    actor: object
    time: object
    hash: object
    frame: object

    def event(self) -> tuple[bytes, Event] | None:
        """The event's bytes and the event, where the row holds one."""
        if not isinstance(self.frame, bytes):
            return None
        try:
            raw = body(self.frame)
            event = Event.FromString(raw)
        except (IndexError, DecodeError):
            return None
        return raw, event


class Snapshot:
    """The record as it is at one moment, on a connection of its own: read it off the loop, in small parts.

    A thread outlives a caller who leaves, so whoever reads holds ``lock``, and :meth:`close` waits for it.
    """

    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False, isolation_level=None
        )
        self._connection.execute("BEGIN")
        identity = self._fact("identity")
        self.identity = "" if identity is None else identity
        self.head = kept(self._fact(HEAD))
        first, last = self._connection.execute(_ENDS).fetchone()
        self.first: int = first or 0
        """Sequence of the oldest event; 0 where there is none."""
        self.last: int = last or 0
        """Sequence of the newest event; 0 where there is none."""
        found = self._connection.execute(_PRUNED).fetchone()
        parsed = None if found is None else Row(0, "", 0, "", 0, b"", found[0]).event()
        self.checkpoint: Checkpoint | None = None if parsed is None else parsed[1].checkpoint
        """Where the record begins, if events were dropped."""

    def _fact(self, key: str) -> str | None:
        row = self._connection.execute(_META, (key,)).fetchone()
        return None if row is None else row[0]

    def rows(self, first: int, limit: int) -> list[Row]:
        """At most so many rows from a sequence on."""
        return [Row(*row) for row in self._connection.execute(_ROWS, (first, limit)).fetchall()]

    def row(self, sequence: int) -> Row | None:
        """One row."""
        found = self.rows(sequence, 1) if _LEAST <= sequence <= _MOST else []
        return found[0] if found and found[0].sequence == sequence else None

    def hash_before(self, first: int) -> bytes:
        """What an event is chained to."""
        before = self.row(first - 1)
        if before is not None and isinstance(before.hash, bytes):
            return before.hash
        return _begin(self.checkpoint)[1]

    def close(self) -> None:
        """Lets go of the file, when nobody reads any more."""
        with self.lock:
            self._connection.close()


class Check:
    """Computes a chain anew, part by part.

    Args:
        snapshot: of the record.
        key: that the host signs with.
        heads: of exports, with signatures that were found right; the record must lead through them.
    """

    def __init__(self, snapshot: Snapshot, key: Key, heads: Sequence[RecordHead] = ()) -> None:
        self._snapshot = snapshot
        self._key = key
        self._next: int | None = _LEAST
        self._sequence, self._hash = _begin(snapshot.checkpoint)
        self._points = self._expected(heads)
        self.checked = 0
        """Events that were found right."""
        self.fault: RecordFault | None = self._at_point(self._sequence)
        """The first thing that is wrong."""

    def part(self, limit: int) -> bool:
        """Checks the next rows; tells whether there may be more."""
        with self._snapshot.lock:
            if self.fault is None and self._next is not None:
                rows = self._snapshot.rows(self._next, limit)
                self.fault = self._rows(rows)
                self._next = (
                    rows[-1].sequence + 1 if len(rows) == limit and rows[-1].sequence < _MOST else None
                )
                if self._next is None and self.fault is None:
                    self.fault = self._end()
        return self.fault is None and self._next is not None

    def _rows(self, rows: Sequence[Row]) -> RecordFault | None:
        sequence, before, sha256, points = self._sequence, self._hash, hashlib.sha256, self._points
        broken = Event.KIND_RECORD_BROKEN
        for row in rows:
            sequence += 1
            found = row.event() if row.sequence == sequence else None
            if found is None:
                return self._diagnosed(row, None)
            raw, event = found
            now = sha256(before + raw).digest()
            if (
                now != row.hash
                or event.sequence != sequence
                or event.subject != row.subject
                or event.kind != row.kind
                or event.actor != row.actor
                or event.time.ToNanoseconds() != row.time
                or framed(raw) != row.frame
            ):
                return self._diagnosed(row, found)
            self._sequence, self._hash, before = sequence, now, now
            self.checked += 1
            if event.kind == broken:
                return _fault(
                    event.fault.kind, sequence, f"found when the host started: {event.fault.message}"
                )
            if sequence in points and (fault := self._at_point(sequence)) is not None:
                return fault
        return None

    def _diagnosed(self, row: Row, found: tuple[bytes, Event] | None) -> RecordFault:
        kinds, expected = RecordFault.Kind, self._sequence + 1
        if row.sequence < expected:
            return _fault(kinds.KIND_INSERTED, row.sequence, "there is an event before the record begins")
        if row.sequence > expected:
            gone = (
                f"event {expected} is"
                if row.sequence == expected + 1
                else f"events {expected} to {row.sequence - 1} are"
            )
            return _fault(kinds.KIND_MISSING, expected, f"{gone} missing")
        following = self._snapshot.row(expected + 1) if expected < _MOST else None
        after = None if following is None else following.event()
        if (
            after is not None
            and following is not None
            and (after[1].sequence == expected or chained(self._hash, after[0]) == following.hash)
        ):
            own = None if found is None else found[1].sequence
            if own != expected + 1:
                return _fault(kinds.KIND_INSERTED, expected, "the host did not write this event")
        if found is None:
            return _fault(kinds.KIND_CHANGED, expected, "the event cannot be read")
        raw, event = found
        if event.sequence != expected:
            return self._misplaced(expected, raw, event, None if after is None else after[1])
        if chained(self._hash, raw) != row.hash:
            return _fault(kinds.KIND_CHANGED, expected, "its bytes or its hash were changed")
        return _fault(
            kinds.KIND_CHANGED, expected, "what the store notes beside the event is not what it says"
        )

    def _misplaced(self, expected: int, raw: bytes, event: Event, following: Event | None) -> RecordFault:
        kinds, own = RecordFault.Kind, event.sequence
        other = self._snapshot.row(own)
        there = None if other is None else other.event()
        if there is not None and (there[1].sequence == expected or (own < expected and there[0] == raw)):
            return _fault(kinds.KIND_REORDERED, expected, f"here is the event that was written as {own}")
        shifted = following is not None and following.sequence == own + 1
        if own > expected and (shifted or (there is not None and there[0] == raw)):
            return _fault(kinds.KIND_MISSING, expected, f"the event is missing, and {own} is in its place")
        return _fault(
            kinds.KIND_CHANGED, expected, f"its bytes were changed: they say that it is event {own}"
        )

    def _end(self) -> RecordFault | None:
        snapshot = self._snapshot
        wrong = fault_at_end(snapshot.head, self._sequence, self._hash, snapshot.identity, self._key)
        if wrong is not None:
            return wrong
        missed = [sequence for sequence in self._points if sequence > self._sequence]
        if not missed:
            return None
        return _fault(
            RecordFault.Kind.KIND_TRUNCATED,
            self._sequence,
            f"the record ends at {self._sequence}, and a signed head knows an event {max(missed)}",
        )

    def _expected(self, heads: Sequence[RecordHead]) -> Mapping[int, set[str]]:
        """Which hashes the record must have where, by all that was ever signed."""
        points: dict[int, set[str]] = {}
        own = self._snapshot.head
        if own is not None:
            points.setdefault(own.first_sequence - 1, set()).add(own.previous_sha256)
        for head in heads:
            points.setdefault(head.first_sequence - 1, set()).add(head.previous_sha256)
            points.setdefault(head.last_sequence, set()).add(head.sha256)
        # What was dropped cannot be compared any more.
        return {sequence: hashes for sequence, hashes in points.items() if sequence >= self._sequence}

    def _at_point(self, sequence: int) -> RecordFault | None:
        if self._points.get(sequence, set()) <= {self._hash.hex()}:
            return None
        return _fault(
            RecordFault.Kind.KIND_FORKED,
            sequence,
            f"the record up to {sequence} is another one than a signed head vouches for",
        )


def _begin(checkpoint: Checkpoint | None) -> tuple[int, bytes]:
    try:
        return (0, START) if checkpoint is None else (checkpoint.sequence, bytes.fromhex(checkpoint.sha256))
    except ValueError:
        return 0, START


def _fault(kind: RecordFault.Kind, sequence: int, message: str) -> RecordFault:
    return RecordFault(kind=kind, sequence=sequence, message=message)
