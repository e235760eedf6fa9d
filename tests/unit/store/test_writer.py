"""Group commit: the acknowledged is durable, what fails leaves nothing, and no job fails its neighbours."""

import asyncio
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelinehost.errors import ResourceExhausted, Unavailable
from pipelinehost.v1.resources_pb2 import Event, Run
from pipelinehost_server.store import Store, Transaction
from pipelinehost_server.store.writer import Writer

Peek = Callable[..., list[tuple[object, ...]]]
MakeRun = Callable[..., Run]
Note = Callable[[str], Event]


@asynccontextmanager
async def one_batch(store: Store) -> AsyncIterator[None]:
    """What is written inside is committed together: the writer is kept busy until the end of the block."""
    busy, go_on = threading.Event(), threading.Event()

    def hold(transaction: Transaction) -> None:
        busy.set()
        assert go_on.wait(10)

    held = asyncio.ensure_future(store.write(hold))
    try:
        await asyncio.to_thread(busy.wait, 10)
        yield
        await asyncio.sleep(0)
    finally:
        go_on.set()
        await held


def chain_is_whole(peek: Peek) -> bool:
    """Whether every event's hash is that of its bytes behind the hash before, and none is missing."""
    before = bytes(32)
    for expected, (sequence, hashed, frame) in enumerate(
        peek("SELECT sequence, hash, frame FROM event ORDER BY sequence"), start=1
    ):
        assert isinstance(frame, bytes)
        body = frame[next(i for i in range(1, len(frame)) if frame[i] < 0x80) + 1 :]
        before = hashlib.sha256(before + body).digest()
        if (sequence, hashed) != (expected, before):
            return False
    return True


async def test_sixty_four_writers_at_once(store: Store, peek: Peek, note: Note) -> None:
    commits: list[int] = []
    store.listen(lambda events: commits.append(len(events)))

    async def writer(number: int) -> list[int]:
        return [
            (await store.write(partial(Transaction.append, event=note(f"{number}/{i}")))).sequence
            for i in range(20)
        ]

    sequences = await asyncio.gather(*(writer(number) for number in range(64)))
    assert all(own == sorted(own) for own in sequences)
    assert sorted(s for own in sequences for s in own) == list(range(1, 64 * 20 + 1))
    assert sum(commits) == 64 * 20
    assert len(commits) < 64 * 20 / 4  # they were committed in groups
    assert chain_is_whole(peek)


async def test_a_job_that_fails_takes_back_only_its_own(store: Store, peek: Peek, note: Note) -> None:
    published: list[str] = []
    store.listen(lambda events: published.extend(event.message for event in events))

    def fine(number: int) -> Callable[[Transaction], int]:
        return lambda transaction: transaction.append(note(f"fine {number}")).sequence

    def bad(transaction: Transaction) -> None:
        transaction.append(note("bad"))
        transaction.put_secret("bad", b"x")
        raise ValueError("no")

    async with one_batch(store):
        jobs: list[asyncio.Future[int | None]] = []
        for number in range(5):
            jobs.append(asyncio.ensure_future(store.write(fine(number))))
            jobs.append(asyncio.ensure_future(store.write(bad)))
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    assert outcomes[::2] == [1, 2, 3, 4, 5]
    assert [repr(outcome) for outcome in outcomes[1::2]] == ["ValueError('no')"] * 5
    assert published == [f"fine {number}" for number in range(5)]
    assert store.reads.secret("bad") is None
    assert chain_is_whole(peek)
    assert (await store.write(fine(6))) == 6


async def test_a_job_that_fails_alone_takes_back_its_own(store: Store, peek: Peek, note: Note) -> None:
    def bad(transaction: Transaction) -> None:
        transaction.append(note("bad"))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.write(bad)
    assert (await store.write(lambda transaction: transaction.append(note("good")))).sequence == 1
    assert chain_is_whole(peek)


async def test_a_job_that_raises_stop_iteration_does_not_stop_the_others(store: Store) -> None:
    def exhausted(transaction: Transaction) -> None:
        next(iter(()))

    async with one_batch(store):
        first = asyncio.ensure_future(store.write(exhausted))
        second = asyncio.ensure_future(store.write(lambda transaction: "done"))
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(first, 5)
    assert await asyncio.wait_for(second, 5) == "done"


async def test_events_are_told_after_their_commit_in_order(
    store: Store, peek: Peek, note: Note, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    def listener(events: Sequence[Event]) -> None:
        seen.extend(event.sequence for event in events)
        assert peek("SELECT max(sequence) FROM event") >= [(seen[-1],)]

    store.listen(listener)

    async def write_and_check(number: int) -> None:
        sequence = (await store.write(lambda tx: tx.append(note(str(number))))).sequence
        assert sequence in seen  # listeners hear of it before the writer goes on

    await asyncio.gather(*(write_and_check(number) for number in range(200)))
    assert seen == list(range(1, 201))
    assert caplog.records == []  # the listener's own check did not fail


async def test_a_commit_that_fails_tells_nobody(
    store: Store, note: Note, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    store.listen(lambda events: seen.extend(event.sequence for event in events))

    def forbid(transaction: Transaction) -> None:
        transaction.append(note("never"))
        transaction._execute("PRAGMA defer_foreign_keys = 1", ())
        transaction._execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)", ())
        transaction._execute("CREATE TABLE child (id INTEGER REFERENCES parent)", ())
        transaction._execute("INSERT INTO child VALUES (1)", ())

    await store.write(lambda transaction: None)
    # Foreign keys cannot be switched inside a transaction, so the writer's thread is asked between two.
    enabled = threading.Event()
    original = store._writer._commit

    def commit(
        jobs: Sequence[tuple[Callable[[Transaction], Any], str]],
    ) -> list[tuple[Any, BaseException | None]]:
        store._writer._connection.execute("PRAGMA foreign_keys = 1")
        enabled.set()
        return original(jobs)

    monkeypatch.setattr(store._writer, "_commit", commit)
    with pytest.raises(Exception, match="FOREIGN KEY constraint failed"):
        await store.write(forbid)
    assert enabled.is_set()
    assert seen == []
    assert (await store.write(lambda tx: tx.append(note("next")))).sequence == 1
    assert seen == [1]


async def test_a_caller_who_gives_up_does_not_stop_the_job(store: Store, note: Note) -> None:
    async with one_batch(store):
        left = asyncio.ensure_future(store.write(lambda tx: tx.append(note("left"))))
        stayed = asyncio.ensure_future(store.write(lambda tx: tx.append(note("stayed"))))
        await asyncio.sleep(0)
        left.cancel()
    assert (await stayed).sequence == 2
    assert left.cancelled()
    assert store.reads.last_sequence() == 2


async def test_a_listener_that_fails_is_logged_and_nobody_waits(
    store: Store, note: Note, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(events: Sequence[Event]) -> None:
        raise ValueError("broken listener")

    seen: list[int] = []
    store.listen(broken)
    store.listen(lambda events: seen.extend(event.sequence for event in events))
    await asyncio.wait_for(store.write(lambda tx: tx.append(note("x"))), 5)
    assert seen == [1]
    assert "broken listener" in caplog.text


async def test_closing_commits_what_waits_and_takes_nothing_more(
    tmp_path: Path, note: Note, peek: Peek
) -> None:
    store = Store(tmp_path)
    await store.open()
    after_commit: list[int] = []

    async def write_and_read(number: int) -> None:
        await store.write(lambda tx: tx.append(note(str(number))))
        after_commit.append(store.reads.last_sequence())

    waiting = [asyncio.ensure_future(write_and_read(number)) for number in range(500)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*waiting)
    assert after_commit == [500] * 500 or max(after_commit) == 500
    assert peek("SELECT count(*) FROM event") == [(500,)]
    with pytest.raises(Unavailable):
        await store.write(lambda transaction: None)
    await store.close()


async def test_the_promise_of_durability_is_switched_on(store: Store) -> None:
    """Losing power cannot be tried here, but the settings that SQLite asks for can be seen."""

    def settings(transaction: Transaction) -> list[object]:
        names = ("journal_mode", "synchronous", "query_only")
        return [transaction._execute(f"PRAGMA {name}", ()).fetchone()[0] for name in names]

    assert await store.write(settings) == ["wal", 2, 0]


async def test_reads_cannot_write_and_do_not_checkpoint(store: Store, note: Note, tmp_path: Path) -> None:
    await store.write(lambda tx: tx.append(note("x")))
    log = tmp_path / "pipelinehost.db-wal"
    before = log.read_bytes()
    assert before
    with pytest.raises(Exception, match="readonly"):
        store.reads._execute("DELETE FROM event", ())
    database = (tmp_path / "pipelinehost.db").read_bytes()
    with pytest.raises(Exception, match=r"disk I/O error|readonly"):
        store.reads._execute("PRAGMA wal_checkpoint(TRUNCATE)", ())
    assert log.read_bytes() == before
    assert (tmp_path / "pipelinehost.db").read_bytes() == database


async def test_the_reader_is_closed_before_the_writer(
    tmp_path: Path, note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one to close checkpoints, and that must be the writer."""
    store = Store(tmp_path)
    await store.open()
    await store.write(lambda tx: tx.append(note("x")))
    log = tmp_path / "pipelinehost.db-wal"
    sizes: list[int] = []
    close = store._read_database.close

    def observed() -> bool:
        closed: bool = close()
        sizes.append(log.stat().st_size)
        return closed

    monkeypatch.setattr(store._read_database, "close", observed)
    await store.close()
    assert sizes
    assert sizes[0] > 0
    assert not log.exists()


async def test_a_full_disk_refuses_writes_keeps_reads_and_heals(
    small_disk: Path, note: Note, peek: Peek
) -> None:
    store = Store(small_disk)
    await store.open()
    acknowledged = [(await store.write(lambda tx: tx.append(note("before")))).sequence]
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))

    async def write_on() -> None:
        for _ in range(2000):
            event = await store.write(lambda tx: tx.append(Event(message="x" * 4000)))
            acknowledged.append(event.sequence)

    with pytest.raises(ResourceExhausted, match="disk") as refused:
        await write_on()
    assert refused.value.metadata == {"limit": "disk"}
    assert refused.value.remedy
    assert store.reads.last_sequence() == acknowledged[-1]
    with pytest.raises(ResourceExhausted):
        await store.write(lambda tx: tx.put_secret("large", bytes(100_000)))
    ballast.unlink()
    acknowledged.append((await store.write(lambda tx: tx.append(note("after")))).sequence)
    await store.close()
    assert acknowledged == list(range(1, len(acknowledged) + 1))
    assert peek("SELECT count(*) FROM event", folder=small_disk) == [(len(acknowledged),)]
    assert peek("PRAGMA integrity_check", folder=small_disk) == [("ok",)]


async def test_a_write_waits_for_another_program(store: Store, note: Note, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "pipelinehost.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.ensure_future(store.write(lambda tx: tx.append(note("x"))))
    await asyncio.sleep(0.3)
    assert not writing.done()
    other.execute("ROLLBACK")
    other.close()
    assert (await asyncio.wait_for(writing, 5)).sequence == 1


async def test_waiting_for_another_program_has_an_end(
    tmp_path: Path, note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writer, "patience", 0.2)
    store = Store(tmp_path)
    await store.open()
    other = sqlite3.connect(tmp_path / "pipelinehost.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        await asyncio.wait_for(store.write(lambda tx: tx.append(note("x"))), 5)
    other.execute("ROLLBACK")
    other.close()
    assert (await store.write(lambda tx: tx.append(note("y")))).sequence == 1
    await store.close()


_COMMITTING = """
import asyncio, sys
from pathlib import Path
from pipelinehost.v1.resources_pb2 import Event
from pipelinehost_server.store import Store

async def main():
    store = Store(Path(sys.argv[1]))
    await store.open()

    async def writer(number):
        count = 0
        while True:
            words = f"{number}/{count}"
            await store.write(lambda tx: (tx.append(Event(message=words)), tx.put_secret(words, b"x" * 500)))
            print(words, flush=True)
            count += 1

    await asyncio.gather(*(writer(number) for number in range(8)))

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, peek: Peek) -> None:
    acknowledged: list[str] = []
    for delay in (0.05, 0.3, 0.6):
        child = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on this loop
            [sys.executable, "-c", textwrap.dedent(_COMMITTING), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        acknowledged.append(child.stdout.readline().strip())  # it has begun
        await asyncio.sleep(delay)
        os.kill(child.pid, signal.SIGKILL)
        acknowledged += [
            line.strip() for line in child.stdout.read().splitlines(keepends=True) if line[-1] == "\n"
        ]
        child.stdout.close()
        assert child.wait(10) == -signal.SIGKILL
        store = Store(tmp_path)
        await store.open()
        await store.close()
        assert len(acknowledged) > 10
        assert peek("PRAGMA integrity_check") == [("ok",)]
        stored = {Event.FromString(_body(frame)).message for (frame,) in peek("SELECT frame FROM event")}
        assert set(acknowledged) <= stored
        assert chain_is_whole(peek)


def _body(frame: object) -> bytes:
    assert isinstance(frame, bytes)
    return frame[next(i for i in range(1, len(frame)) if frame[i] < 0x80) + 1 :]


async def test_reads_go_on_while_the_writer_is_busy(store: Store, note: Note) -> None:
    await store.write(lambda tx: tx.append(note("before")))
    async with one_batch(store):
        writing = asyncio.ensure_future(store.write(lambda tx: tx.append(note("after"))))
        await asyncio.sleep(0.01)
        assert store.reads.last_sequence() == 1
        assert not writing.done()
    await writing
    assert store.reads.last_sequence() == 2
