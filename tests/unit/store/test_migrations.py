"""The schema: whole or not there, the same as the tables say, and never touched by an older program."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import peewee
import pytest

from pipelinehost.v1.resources_pb2 import Event, Freeze, Gate, GateNote, Pipeline, Run
from pipelinehost_server.store import Delivery, Store, StoreTooNew, Transaction, migrations, tables

Peek = Callable[..., list[tuple[object, ...]]]


async def test_the_tables_are_those_that_the_queries_mean(store: Store, peek: Peek) -> None:
    rows = [
        table for table in vars(tables).values() if isinstance(table, type) and issubclass(table, tables.Row)
    ]
    models = {table._meta.table_name: table for table in rows if table is not tables.Row}
    created = {str(row[0]) for row in peek("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert created == set(models)
    for name, model in models.items():
        # name, type, not null, place in the primary key
        found = [(row[1], row[2], row[3], row[5]) for row in peek(f"PRAGMA table_info({name})")]
        primary: Any = model._meta.primary_key
        key = getattr(primary, "field_names", None) or (primary.name,)
        kinds = {peewee.TextField: "TEXT", peewee.IntegerField: "INTEGER", peewee.BlobField: "BLOB"}
        assert found == [
            (
                field.column_name,
                kinds[type(field)],
                0 if field.null else 1,
                key.index(field.name) + 1 if field.name in key else 0,
            )
            for field in model._meta.sorted_fields
        ]


async def test_a_newer_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    await store.open()
    await store.close()
    file = tmp_path / "pipelinehost.db"
    newer = len(migrations.VERSIONS) + 3
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute(f"PRAGMA user_version = {newer}")
    connection.close()
    before = hashlib.sha256(file.read_bytes()).digest()
    older = Store(tmp_path)
    with pytest.raises(StoreTooNew) as refused:
        await older.open()
    assert (refused.value.found, refused.value.supported) == (newer, len(migrations.VERSIONS))
    assert all(words in str(refused.value) for words in (str(newer), "newer one", "backup"))
    assert hashlib.sha256(file.read_bytes()).digest() == before
    # The folder is free again for the program that can read it.
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute(f"PRAGMA user_version = {len(migrations.VERSIONS)}")
    connection.close()
    right = Store(tmp_path)
    await right.open()
    await right.close()


async def test_opening_again_changes_nothing(tmp_path: Path, peek: Peek) -> None:
    identities = []
    for _ in range(2):
        store = Store(tmp_path)
        await store.open()
        identities.append(store.reads.identity())
        schema = peek("SELECT sql FROM sqlite_schema ORDER BY name")
        await store.close()
    assert identities[0] == identities[1]
    assert len(identities[0]) == 16
    assert peek("SELECT sql FROM sqlite_schema ORDER BY name") == schema


async def test_a_store_of_gates_gets_freezes(
    tmp_path: Path, peek: Peek, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = migrations.VERSIONS
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "VERSIONS", versions[:3])
        before = Store(tmp_path)
        await before.open()
        await before.write(lambda tx: tx.append(Event(message="kept")))
        await before.write(lambda tx: tx.add_gate_note(GateNote(run="runs/1", note="kept")))
        await before.close()
    assert peek("PRAGMA user_version") == [(3,)]
    store = Store(tmp_path)
    await store.open()
    made = await store.write(lambda tx: tx.put_freeze(Freeze(name="freezes/f", scope="pipelines/p/stages/s")))
    assert store.reads.freezes_of("", "pipelines/p/stages/s") == [made]
    assert store.reads.freezes_under("pipelines/p") == [made]
    assert [n.note for n in store.reads.gate_notes("runs/1")] == ["kept"]
    assert store.reads.last_sequence() == 1
    await store.close()


@pytest.mark.parametrize("version", [3, 4])
async def test_a_store_of_gates_or_freezes_gets_deliveries(
    version: int, tmp_path: Path, peek: Peek, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = migrations.VERSIONS
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "VERSIONS", versions[:version])
        before = Store(tmp_path)
        await before.open()
        await before.write(lambda tx: tx.append(Event(message="kept")))
        await before.close()
    assert peek("PRAGMA user_version") == [(version,)]
    store = Store(tmp_path)
    await store.open()
    assert store.reads.deliveries() == []
    first, second = (Delivery("runs/1", f"msg_{n}", Gate.KIND_APPROVAL, n, b"{}") for n in (1, 2))
    for made in (first, second):
        await store.write(partial(Transaction.put_delivery, delivery=made))
    assert (store.reads.deliveries(), store.reads.delivery("runs/1")) == (["runs/1"], second)
    await store.write(lambda tx: tx.drop_delivery("runs/1"))
    assert (store.reads.deliveries(), store.reads.delivery("runs/1")) == ([], None)
    assert store.reads.last_sequence() == 1
    await store.close()


async def test_the_runs_of_an_older_store_get_their_order_from_the_record(
    tmp_path: Path, peek: Peek, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those whose events were dropped come before all others, in the order of the clock."""
    versions = migrations.VERSIONS
    old = [  # name, when it ended, whether its events are there still
        ("runs/dropped-late", 700, False),
        ("runs/dropped-early", 600, False),
        ("runs/first", 900, True),
        ("runs/last", 100, True),
    ]
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "VERSIONS", versions[:5])
        before = Store(tmp_path)
        await before.open()
        for name, _, kept in old:
            if kept:
                await before.write(lambda tx, n=name: tx.append(Event(subject=n)))  # type: ignore[misc]  # n is bound
        await before.close()
    file = sqlite3.connect(tmp_path / "pipelinehost.db")
    for name, ended, _ in old:
        run = Run(name=name, stage="s", solution="Sales", target_environment="e", state=Run.STATE_SUCCEEDED)
        run.end_time.seconds = ended
        values = (name, 9, "", "s", "Sales", "", "", "", "e", "", 0, ended, 0, None, None, tables.frame(run))
        file.execute(f"INSERT INTO run VALUES ({', '.join('?' * len(values))})", values)
    file.commit()
    file.close()
    store = Store(tmp_path)
    await store.open()
    order = []
    while (found := store.reads.newest_success("s", "Sales")) is not None:
        assert store.reads.newest_success_in("e", "Sales") == found
        order.append(found.name)
        found.state = Run.STATE_FAILED
        await store.write(lambda tx, run=found: tx.save_run(run, epoch=0))  # type: ignore[misc]  # run is bound
    assert order == ["runs/last", "runs/first", "runs/dropped-late", "runs/dropped-early"]
    await store.close()


async def test_the_runs_of_an_older_store_keep_their_pipelines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "VERSIONS", migrations.VERSIONS[:6])
        before = Store(tmp_path)
        await before.open()
        await before.close()
    pipeline = Pipeline(name="pipelines/sales", display_name="Sales")
    file = sqlite3.connect(tmp_path / "pipelinehost.db")
    for name, kept in (("runs/deployment", pipeline.SerializeToString()), ("runs/restore", None)):
        file.execute("INSERT INTO run_snapshot VALUES (?, ?, ?)", (name, b"", kept))
        values = (name, 1, *("",) * 8, 0, 0, 0, None, None, tables.frame(Run(name=name)), 0)
        file.execute(f"INSERT INTO run VALUES ({', '.join('?' * len(values))})", values)
    file.commit()
    file.close()
    store = Store(tmp_path)
    await store.open()
    assert store.reads.run_pipeline("runs/deployment") == pipeline
    assert store.reads.run_pipeline("runs/restore") is None
    await store.close()


async def test_a_version_that_fails_halfway_leaves_the_one_before(
    tmp_path: Path, peek: Peek, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    await store.open()
    await store.write(lambda tx: tx.append(Event(message="kept")))
    await store.close()
    released = migrations.VERSIONS
    monkeypatch.setattr(migrations, "VERSIONS", (*released, "CREATE TABLE later (x);\nNO SUCH STATEMENT;"))
    broken = Store(tmp_path)
    with pytest.raises(peewee.OperationalError, match="syntax error"):
        await broken.open()
    assert peek("PRAGMA user_version") == [(len(released),)]
    assert peek("SELECT name FROM sqlite_schema WHERE name = 'later'") == []
    monkeypatch.setattr(migrations, "VERSIONS", (*released, "CREATE TABLE later (x);"))
    mended = Store(tmp_path)
    await mended.open()
    assert mended.reads.last_sequence() == 1
    await mended.close()
    assert peek("PRAGMA user_version") == [(len(released) + 1,)]


# The second version writes for ever, so that whenever the end comes, it comes in the middle.
_MIGRATING = """
import asyncio, sys
from pathlib import Path
from pipelinehost_server.store import Store, migrations

migrations.VERSIONS += ('''
    CREATE TABLE later (x);
    INSERT INTO later
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT zeroblob(4000) FROM n;
''',)
asyncio.run(Store(Path(sys.argv[1])).open())
"""


async def test_kill_9_in_a_migration_is_harmless(tmp_path: Path, peek: Peek) -> None:
    store = Store(tmp_path)
    await store.open()
    await store.write(lambda tx: tx.append(Event(message="kept")))
    await store.close()
    child = subprocess.Popen([sys.executable, "-c", _MIGRATING, str(tmp_path)])  # noqa: ASYNC220 - a quiet loop
    log = tmp_path / "pipelinehost.db-wal"
    deadline = time.monotonic() + 30
    # With 32 MiB of cache the log grows only once the transaction has become larger than that.
    while not (log.exists() and log.stat().st_size > 1_000_000):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)  # noqa: ASYNC251 - nothing else runs on this loop
    os.kill(child.pid, signal.SIGKILL)
    child.wait(10)
    again = Store(tmp_path)
    await again.open()
    assert again.reads.last_sequence() == 1
    await again.close()
    assert peek("PRAGMA user_version") == [(len(migrations.VERSIONS),)]
    assert peek("SELECT name FROM sqlite_schema WHERE name = 'later'") == []
    assert peek("PRAGMA integrity_check") == [("ok",)]
