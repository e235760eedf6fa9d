"""How long it takes to compute the chain of 200,000 events anew, beside the least that has to be done for it.

The baseline reads the same rows with ``sqlite3`` and hashes them, each together with the hash before.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.figures import Figure, in_turn, ratio
from pipelinehost.v1.resources_pb2 import Event, Pipeline, Stage
from pipelinehost_server.encryption import SigningKey
from pipelinehost_server.store import Snapshot, Store, Transaction, record

EVENTS, AT_ONCE, PART = 200_000, 2_000, 1_000
ROUNDS = 3
SECONDS = 3.0
_KEY = SigningKey(bytes(range(32)))


def measure() -> Iterator[Figure]:
    """Both in turn over one store."""
    with tempfile.TemporaryDirectory() as name:
        database = Path(name) / "pipelinehost.db"
        asyncio.run(_fill(database.parent))
        found = in_turn(
            ROUNDS, {"ours": lambda: _timed(_verify, database), "bare": lambda: _timed(_bare, database)}
        )
    took = statistics.median(found["ours"])
    yield Figure.at_most(f"verifying {EVENTS:,} events", took, SECONDS, " s")
    of_bare = ratio(found["ours"], found["bare"])
    yield Figure("record", f"{of_bare:.1f} times as long as reading and hashing the rows")


async def _fill(folder: Path) -> None:
    store = Store(folder)
    await store.open()
    await store.write(lambda tx: tx.sign_heads(_KEY, signed=False))
    stages = [Stage(name=f"pipelines/p/stages/{n}", environment=f"environments/{n}") for n in range(3)]
    pipeline = Pipeline(name="pipelines/p", development_environments=["environments/dev"], stages=stages)

    def job(tx: Transaction) -> None:
        for _ in range(AT_ONCE):
            tx.append(
                Event(
                    kind=Event.KIND_PIPELINE_UPDATED,
                    actor="principals/ada",
                    subject=pipeline.name,
                    pipeline=pipeline,
                    pipeline_before=pipeline,
                )
            )

    for _ in range(EVENTS // AT_ONCE):
        await store.write(job)
    await store.close()


def _timed(work: Callable[[Path], int], database: Path) -> float:
    begun = time.perf_counter()
    if (done := work(database)) < EVENTS:
        raise RuntimeError(f"only {done:,} of {EVENTS:,} events were checked")
    return time.perf_counter() - begun


def _verify(database: Path) -> int:
    with closing(Snapshot(database)) as snapshot:
        check = record.Check(snapshot, _KEY, ())
        while check.part(PART):
            pass
    if check.fault is not None:
        raise RuntimeError(check.fault.message)
    return check.checked


def _bare(database: Path) -> int:
    count, before = 0, bytes(32)
    with closing(sqlite3.connect(database)) as rows:
        for (frame,) in rows.execute("SELECT frame FROM event ORDER BY sequence"):
            before = hashlib.sha256(before + frame).digest()
            count += 1
    return count
