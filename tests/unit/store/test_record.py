"""The record as something to prove: whatever is done to its rows behind the host's back is found."""

import asyncio
import random
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipelinehost.v1.resources_pb2 import Checkpoint, Event, Pipeline, RecordFault, RecordHead
from pipelinehost_server.encryption import SigningKey
from pipelinehost_server.store import PEER, Snapshot, Store, record, tables

KEY = SigningKey(bytes(range(32)))
Kind = RecordFault.Kind
Statements = Sequence[tuple[str, tuple[object, ...]]]


async def opened(folder: Path, *, signed: bool) -> Store:
    store = Store(folder)
    await store.open()
    await store.write(lambda tx: tx.sign_heads(KEY, signed=signed))
    return store


@pytest.fixture
async def signed(tmp_path: Path) -> AsyncIterator[Store]:
    store = await opened(tmp_path, signed=False)
    yield store
    await store.close()


def event(number: int) -> Event:
    return Event(
        kind=Event.KIND_PIPELINE_UPDATED,
        actor=f"person {number % 7}",
        subject=f"pipelines/p{number % 13}",
        message=f"change {number}",
        pipeline=Pipeline(display_name=f"after {number}" * (1 + number % 30)),
        pipeline_before=Pipeline(display_name=f"before {number}"),
    )


async def write(store: Store, count: int, start: int = 0) -> None:
    await store.write(lambda tx: [tx.append(event(n)) for n in range(start, start + count)])


def checked(
    path: Path, heads: Sequence[RecordHead] = (), key: record.Key = KEY, part: int = 7
) -> record.Check:
    with closing(Snapshot(path / "pipelinehost.db")) as snapshot:
        check = record.Check(snapshot, key, heads)
        while check.part(part):
            pass
    return check


def fault(path: Path, heads: Sequence[RecordHead] = ()) -> tuple[Kind, int] | None:
    found = checked(path, heads).fault
    return None if found is None else (found.kind, found.sequence)


def tamper(path: Path, *statements: tuple[str, tuple[object, ...]]) -> None:
    with closing(sqlite3.connect(path / "pipelinehost.db", isolation_level=None)) as database:
        database.execute("BEGIN")
        for sql, values in statements:
            database.execute(sql, values)
        database.execute("COMMIT")


async def closed_record(folder: Path, count: int) -> Path:
    store = await opened(folder, signed=False)
    await write(store, count)
    await store.close()
    return folder


def export_head(path: Path, first: int, last: int) -> RecordHead:
    with closing(Snapshot(path / "pipelinehost.db")) as snapshot:
        row = snapshot.row(last)
        assert row is not None
        assert isinstance(row.hash, bytes)
        head = RecordHead(
            store=snapshot.identity,
            first_sequence=first,
            previous_sha256=snapshot.hash_before(first).hex(),
            last_sequence=last,
            sha256=row.hash.hex(),
        )
    return record.sign(head, KEY, "export")


async def test_an_untouched_record_is_found_right_in_whatever_parts(tmp_path: Path) -> None:
    await closed_record(tmp_path, 40)
    for part in (1, 39, 40, 41, 1000):
        check = checked(tmp_path, part=part)
        assert (check.fault, check.checked) == (None, 40)


async def test_a_new_record_is_found_right(tmp_path: Path) -> None:
    await closed_record(tmp_path, 0)
    assert fault(tmp_path) is None


async def test_the_kinds_of_faults_are_told_apart(tmp_path: Path) -> None:
    await closed_record(tmp_path / "whole", 20)
    swap = (
        ("UPDATE event SET sequence = -1 WHERE sequence = 8", ()),
        ("UPDATE event SET sequence = 8 WHERE sequence = 12", ()),
        ("UPDATE event SET sequence = 12 WHERE sequence = -1", ()),
    )
    shift_up = [(f"UPDATE event SET sequence = {n + 1} WHERE sequence = {n}", ()) for n in range(20, 8, -1)]
    shift_down = [(f"UPDATE event SET sequence = {n - 1} WHERE sequence = {n}", ()) for n in range(10, 21)]
    cases: list[tuple[Statements, Kind, int]] = [
        ([("UPDATE event SET actor = 'mallory' WHERE sequence = 9", ())], Kind.KIND_CHANGED, 9),
        ([("UPDATE event SET hash = zeroblob(32) WHERE sequence = 9", ())], Kind.KIND_CHANGED, 9),
        ([("UPDATE event SET frame = x'0a00' WHERE sequence = 9", ())], Kind.KIND_CHANGED, 9),
        ([("UPDATE event SET frame = 'text' WHERE sequence = 9", ())], Kind.KIND_CHANGED, 9),
        ([("DELETE FROM event WHERE sequence = 9", ())], Kind.KIND_MISSING, 9),
        ([("DELETE FROM event WHERE sequence < 9", ())], Kind.KIND_MISSING, 1),
        ([("DELETE FROM event WHERE sequence = 9", ()), *shift_down], Kind.KIND_MISSING, 9),
        ([("DELETE FROM event WHERE sequence > 15", ())], Kind.KIND_TRUNCATED, 15),
        ([("DELETE FROM event", ())], Kind.KIND_TRUNCATED, 0),
        (swap, Kind.KIND_REORDERED, 8),
        ([*shift_up, (COPY, (9, 4))], Kind.KIND_INSERTED, 9),
        ([(COPY, (0, 4))], Kind.KIND_INSERTED, 0),
        ([(COPY, (-(2**63), 4))], Kind.KIND_INSERTED, -(2**63)),
        ([(COPY, (2**63 - 1, 4))], Kind.KIND_MISSING, 21),
        ([("DELETE FROM meta WHERE key = 'head'", ())], Kind.KIND_UNSIGNED, 20),
        ([("UPDATE meta SET value = 'ab' WHERE key = 'head'", ())], Kind.KIND_UNSIGNED, 20),
        ([("UPDATE meta SET value = 'another' WHERE key = 'identity'", ())], Kind.KIND_UNSIGNED, 20),
    ]
    for number, (statements, kind, sequence) in enumerate(cases):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", folder)
        tamper(folder, *statements)
        assert fault(folder) == (kind, sequence), statements


def written_anew(path: Path, first: int, last: int) -> None:
    """Computes the hashes of the whole chain, as somebody without the host's key can."""
    with closing(sqlite3.connect(path / "pipelinehost.db", isolation_level=None)) as database:
        before = record.START if first == 1 else _hash(database, first - 1)
        for sequence in range(first, last + 1):
            row = record.Row(
                *database.execute("SELECT * FROM event WHERE sequence = ?", (sequence,)).fetchone()
            )
            found = row.event()
            assert found is not None
            before = record.chained(before, found[0])
            database.execute("UPDATE event SET hash = ? WHERE sequence = ?", (before, sequence))


def _hash(database: sqlite3.Connection, sequence: int) -> bytes:
    found: bytes = database.execute("SELECT hash FROM event WHERE sequence = ?", (sequence,)).fetchone()[0]
    return found


def forged(path: Path, sequence: int) -> tuple[str, tuple[object, ...]]:
    """An update that puts another actor into an event, in its bytes and beside them."""
    with closing(Snapshot(path / "pipelinehost.db")) as snapshot:
        row = snapshot.row(sequence)
        assert row is not None
        found = row.event()
        assert found is not None
    changed = found[1]
    changed.actor = "mallory"
    framed = tables.framed(changed.SerializeToString())
    return "UPDATE event SET actor = 'mallory', frame = ? WHERE sequence = ?", (framed, sequence)


async def test_a_chain_that_was_computed_anew_does_not_end_in_the_signed_head(tmp_path: Path) -> None:
    await closed_record(tmp_path, 20)
    tamper(tmp_path, forged(tmp_path, 9))
    written_anew(tmp_path, 9, 20)
    assert fault(tmp_path) == (Kind.KIND_CHANGED, 20)


async def test_a_head_signed_with_another_key_is_none(tmp_path: Path) -> None:
    await closed_record(tmp_path, 20)
    found = checked(tmp_path, key=SigningKey(bytes(32))).fault
    assert found is not None
    assert found.kind == Kind.KIND_UNSIGNED


async def test_the_head_of_an_export_is_not_taken_for_the_records(tmp_path: Path) -> None:
    await closed_record(tmp_path, 20)
    head = export_head(tmp_path, 1, 15)
    tamper(
        tmp_path,
        ("DELETE FROM event WHERE sequence > 15", ()),
        ("UPDATE meta SET value = ? WHERE key = 'head'", (head.SerializeToString().hex(),)),
    )
    assert fault(tmp_path) == (Kind.KIND_UNSIGNED, 15)


async def test_an_old_store_put_back_shows_only_against_an_export(tmp_path: Path) -> None:
    """The limit of what lies in one place: an old record with its own head is a whole record."""
    store = await opened(tmp_path / "new", signed=False)
    await write(store, 20)
    await store.close()
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    store = await opened(tmp_path / "new", signed=True)
    await write(store, 10, start=20)
    await store.close()
    head = export_head(tmp_path / "new", 1, 30)
    assert fault(tmp_path / "old") is None
    assert fault(tmp_path / "old", [head]) == (Kind.KIND_TRUNCATED, 20)
    # Whoever has the host's key can go on from there: the export tells the two records apart.
    store = await opened(tmp_path / "old", signed=True)
    await write(store, 15, start=100)
    await store.close()
    assert fault(tmp_path / "old") is None
    assert fault(tmp_path / "old", [head]) == (Kind.KIND_FORKED, 30)
    assert fault(tmp_path / "new", [head, export_head(tmp_path / "new", 5, 9)]) is None


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("DELETE FROM event WHERE sequence > 15", Kind.KIND_TRUNCATED),
        ("DELETE FROM meta WHERE key = 'head'", Kind.KIND_UNSIGNED),
    ],
)
async def test_a_host_that_finds_the_end_of_its_record_gone_writes_that_down(
    tmp_path: Path, statement: str, kind: Kind
) -> None:
    await closed_record(tmp_path, 20)
    tamper(tmp_path, (statement, ()))
    store = await opened(tmp_path, signed=True)
    last = store.reads.last_sequence()
    (told,) = store.reads.events_after(last - 1, 1)
    await write(store, 5, start=50)
    await store.close()
    assert (told.kind, told.actor, told.fault.kind) == (Event.KIND_RECORD_BROKEN, "host", kind)
    # Neither later events nor a later start cover it up.
    store = await opened(tmp_path, signed=True)
    await store.close()
    assert fault(tmp_path) == (kind, last)


async def test_a_record_from_before_heads_were_signed_is_signed_from_then_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    await store.open()
    await write(store, 8)
    await store.write(lambda tx: tx.sign_heads(KEY, signed=False))
    await write(store, 4, start=8)
    await store.close()
    with closing(Snapshot(tmp_path / "pipelinehost.db")) as snapshot:
        assert snapshot.head is not None
        assert (snapshot.head.first_sequence, snapshot.head.last_sequence) == (9, 12)
    assert fault(tmp_path) is None
    tamper(tmp_path, forged(tmp_path, 3))
    written_anew(tmp_path, 3, 12)
    assert fault(tmp_path) == (Kind.KIND_FORKED, 8)


async def test_a_job_that_fails_leaves_the_head_right(signed: Store, tmp_path: Path) -> None:
    def failing(tx: Any) -> None:
        tx.append(event(1))
        raise ValueError("no")

    await write(signed, 3)
    results = await asyncio.gather(
        *(signed.write(failing) for _ in range(3)),
        signed.write(lambda tx: tx.append(event(7)).sequence),
        return_exceptions=True,
    )
    assert results[-1] == 4
    assert fault(tmp_path) is None


async def dropped(store: Store, last: int) -> None:
    def job(tx: Any) -> None:
        checkpoint = Checkpoint(sequence=last, sha256=tx.event_hash(last).hex())
        checkpoint.dropped = tx.drop_events(last)
        kind = Event.KIND_EVENTS_PRUNED
        tx.append(Event(kind=kind, actor="ada", subject=record.SUBJECT, checkpoint=checkpoint))

    await store.write(job)


async def test_what_is_left_after_dropping_is_found_right_from_the_checkpoint_on(
    signed: Store, tmp_path: Path
) -> None:
    await write(signed, 20)
    early, across = export_head(tmp_path, 1, 5), export_head(tmp_path, 3, 15)
    for last in (10, 16):
        await dropped(signed, last)
        await write(signed, 3, start=30)
    check = checked(tmp_path, [early, across])
    assert (check.fault, check.checked) == (None, 12)
    assert signed.reads.first_sequence() == 17


async def test_a_checkpoint_that_the_host_did_not_write_is_found(tmp_path: Path) -> None:
    store = await opened(tmp_path, signed=False)
    await write(store, 20)
    await dropped(store, 10)
    await store.close()
    tamper(tmp_path, ("DELETE FROM event WHERE sequence = 11", ()))
    assert fault(tmp_path) == (Kind.KIND_MISSING, 11)
    # Or somebody writes an event that says so, with a chain to fit.
    forge = Event(sequence=22, kind=Event.KIND_EVENTS_PRUNED, subject=record.SUBJECT)
    with closing(Snapshot(tmp_path / "pipelinehost.db")) as snapshot:
        eleventh, last = snapshot.row(12), snapshot.row(21)
    assert eleventh is not None
    assert last is not None
    found, at_end = eleventh.event(), last.hash
    assert found is not None
    assert isinstance(at_end, bytes)
    forge.checkpoint.sequence = 12
    assert isinstance(eleventh.hash, bytes)
    forge.checkpoint.sha256 = eleventh.hash.hex()
    raw = forge.SerializeToString()
    tamper(
        tmp_path,
        ("DELETE FROM event WHERE sequence <= 12", ()),
        (
            "INSERT INTO event VALUES (22, 'record', ?, '', 0, ?, ?)",
            (forge.kind, record.chained(at_end, raw), tables.framed(raw)),
        ),
    )
    assert fault(tmp_path) == (Kind.KIND_INSERTED, 22)


COPY = "INSERT INTO event SELECT ?, subject, kind, actor, time, hash, frame FROM event WHERE sequence = ?"
COLUMNS = ("subject", "kind", "actor", "time", "hash", "frame")


def random_tampering(chance: random.Random, path: Path, count: int) -> list[tuple[str, tuple[object, ...]]]:
    """One way to do harm to a record, chosen by chance; every one changes something."""
    at = chance.randint(1, count)
    match chance.choice(
        ("column", "bytes", "delete", "insert", "swap", "truncate", "head", "forge", "frames")
    ):
        case "column":
            column = chance.choice(COLUMNS)
            value = {
                "subject": f"pipelines/x{chance.random()}",
                "kind": chance.randint(1000, 2000),
                "actor": f"x{chance.random()}",
                "time": chance.randint(0, 10**15),
                "hash": chance.randbytes(32),
                "frame": chance.randbytes(chance.randint(0, 80)),
            }[column]
            return [(f"UPDATE event SET {column} = ? WHERE sequence = ?", (value, at))]
        case "bytes":
            column = chance.choice(("hash", "frame"))
            with closing(sqlite3.connect(path / "pipelinehost.db")) as database:
                (old,) = database.execute(f"SELECT {column} FROM event WHERE sequence = ?", (at,)).fetchone()
            place = chance.randrange(len(old))
            new = old[:place] + bytes([old[place] ^ 1 << chance.randrange(8)]) + old[place + 1 :]
            return [(f"UPDATE event SET {column} = ? WHERE sequence = ?", (new, at))]
        case "delete":
            return [("DELETE FROM event WHERE sequence BETWEEN ? AND ?", (at, at + chance.randint(0, 4)))]
        case "insert":
            shift = [
                (f"UPDATE event SET sequence = {n + 1} WHERE sequence = {n}", ())
                for n in range(count, at - 1, -1)
            ]
            source = chance.choice([n for n in range(1, count + 2) if n != at])
            return [*shift, (COPY, (at, source))]
        case "swap":
            other = chance.choice([n for n in range(1, count + 1) if n != at])
            return [
                ("UPDATE event SET sequence = -1 WHERE sequence = ?", (at,)),
                ("UPDATE event SET sequence = ? WHERE sequence = ?", (at, other)),
                ("UPDATE event SET sequence = ? WHERE sequence = -1", (other,)),
            ]
        case "truncate":
            return [("DELETE FROM event WHERE sequence >= ?", (at,))]
        case "head":
            return [("UPDATE meta SET value = hex(randomblob(150)) WHERE key = 'head'", ())]
        case "forge":
            return [forged(path, at)]
        case _:
            other = chance.choice([n for n in range(1, count + 1) if n != at])
            take = "UPDATE event SET frame = (SELECT frame FROM event WHERE sequence = ?) WHERE sequence = ?"
            return [(take, (other, at))]


def restore(file: Path, content: bytes) -> None:
    for left in ("-wal", "-shm"):
        Path(f"{file}{left}").unlink(missing_ok=True)
    file.write_bytes(content)


async def test_a_thousand_random_tamperings_are_all_found(tmp_path: Path) -> None:
    count = 30
    await closed_record(tmp_path, count)
    file, chance = tmp_path / "pipelinehost.db", random.Random(20261123)
    whole = file.read_bytes()
    assert fault(tmp_path) is None
    missed = []
    for number in range(1000):
        statements = random_tampering(chance, tmp_path, count)
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = OFF")
            database.execute("BEGIN")
            for sql, values in statements:
                database.execute(sql, values)
            database.execute("COMMIT")
        # Now and then the chain of what is left is computed anew, which undoes what was done to hashes alone.
        anew = number % 3 == 0 and not any("SET hash" in sql for sql, _ in statements)
        if anew:
            with closing(Snapshot(file)) as snapshot:
                rows = snapshot.rows(1, count + 5)
            if all(row.event() is not None and row.sequence == n for n, row in enumerate(rows, 1)):
                written_anew(tmp_path, 1, len(rows))
        if fault(tmp_path) is None:
            missed.append((number, statements, anew))
        restore(file, whole)
    assert missed == []


async def test_what_a_caller_writes_says_from_where_and_what_the_host_writes_does_not(signed: Store) -> None:
    async def call(peer: str, actor: str) -> str:
        PEER.set(peer)
        await asyncio.sleep(0)
        return await signed.write(lambda tx: tx.append(Event(actor=actor)).peer)

    peers = [f"192.0.2.{n}:{5000 + n}" for n in range(40)]
    told = await asyncio.gather(*(call(peer, "ada") for peer in peers), call("192.0.2.9:1", "host"))
    assert told == [*peers, ""]
    assert await signed.write(lambda tx: tx.append(Event(actor="ada")).peer) == ""


async def test_closing_the_store_ends_reading_and_a_new_record_can_be_read_again(tmp_path: Path) -> None:
    store = await opened(tmp_path, signed=False)
    await write(store, 5)
    snapshot = store.snapshot()
    await store.close()
    with pytest.raises(sqlite3.ProgrammingError):
        snapshot.rows(1, 1)


async def test_a_snapshot_does_not_move_while_it_is_read(signed: Store) -> None:
    await write(signed, 10)
    snapshot = signed.snapshot()
    check = record.Check(snapshot, KEY)
    more = check.part(4)
    await write(signed, 10, start=10)
    while more:
        more = check.part(4)
    assert (check.fault, check.checked, snapshot.last) == (None, 10, 10)
    snapshot.close()
