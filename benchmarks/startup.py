"""How long a program that imports the client waits, and a host with 10,000 finished runs until it serves."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from tests.e2e.processes import HostProcess

from benchmarks.bare import running
from benchmarks.figures import Figure
from pipelinehost.v1.resources_pb2 import Event, Progress, Run, RunChange, Step
from pipelinehost_server.deployment.requests import new_run_id
from pipelinehost_server.store import Store, Transaction

ROUNDS = 7
RUNS = 10_000
AT_ONCE = 500
IMPORT_SECONDS = 0.25
START_SECONDS = 1.5
_PATH = (
    Run.STATE_VALIDATING,
    Run.STATE_WAITING_FOR_TARGET,
    Run.STATE_DEPLOYING,
    Run.STATE_SUCCEEDED,
)


def measure() -> Iterator[Figure]:
    """Imports and starts, each in fresh processes."""
    whole = [_import("from pipelinehost import Client") for _ in range(ROUNDS)]
    yield Figure.at_most("import of the client, with Client and gRPC", median(whole), IMPORT_SECONDS, " s")
    bare = [_import("import grpc") for _ in range(ROUNDS)]
    light = [_import("import pipelinehost") for _ in range(ROUNDS)]
    yield Figure(
        "import", f"`import pipelinehost` alone {median(light):.3f} s; `import grpc` {median(bare):.3f} s"
    )
    with tempfile.TemporaryDirectory() as name:
        host = HostProcess(Path(name))
        with running(host):  # makes the token and the first events
            pass
        asyncio.run(_fill(host.data))
        starts = []
        for _ in range(ROUNDS):
            starts.append(host.start())
            host.kill()
        yield Figure.at_most(
            f"host: start until ready, {RUNS:,} runs in the store", median(starts), START_SECONDS, " s"
        )
        size = (host.data / "pipelinehost.db").stat().st_size / 2**20
        yield Figure("host", f"{RUNS:,} runs with {len(_PATH) + 3} events each: {size:.0f} MiB")


def _import(statement: str) -> float:
    """Seconds of the imports of a statement, as -X importtime counts them."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement], capture_output=True, text=True, check=True
    )
    top = re.findall(
        r"^import time:\s+\d+ \|\s+(\d+) \| (grpc|pipelinehost[\w.]*)$", done.stderr, re.MULTILINE
    )
    return sum(int(microseconds) for microseconds, _ in top) / 1e6


async def _fill(folder: Path) -> None:
    store = Store(folder)
    await store.open()
    try:
        for start in range(0, RUNS, AT_ONCE):
            await asyncio.gather(*(store.write(_finished(n)) for n in range(start, start + AT_ONCE)))
    finally:
        await store.close()


def _finished(number: int) -> Callable[[Transaction], None]:
    def job(tx: Transaction) -> None:
        run = Run(
            name=f"runs/{new_run_id()}",
            state=Run.STATE_QUEUED,
            pipeline=f"pipelines/p-{number % 50:02}",
            stage=f"pipelines/p-{number % 50:02}/stages/qa",
            solution="Sales",
            version=f"1.0.0.{number}",
            target_environment=f"environments/qa-{number % 50:02}",
            requester="administrator",
            attempt=1,
            steps=[Step(kind=kind) for kind in (Step.KIND_VALIDATE, Step.KIND_IMPORT, Step.KIND_VERIFY)],
        )
        requested = Event(kind=Event.KIND_DEPLOYMENT_REQUESTED, actor="administrator", subject=run.name)
        tx.insert_run(run, events=[requested])
        run, epoch = tx.claim_run(run.name)
        for state in _PATH:
            change = RunChange(to=state, attempt=1)
            change.SetInParent()
            happened = [Event(kind=Event.KIND_RUN_STATE_CHANGED, actor="host", run=change)]
            if state == Run.STATE_DEPLOYING:
                happened += [
                    Event(
                        kind=Event.KIND_PROGRESS,
                        actor="host",
                        progress=Progress(step=Step.KIND_IMPORT, percent=percent),
                    )
                    for percent in (30, 80)
                ]
            run.state = state
            if state == Run.STATE_SUCCEEDED:
                run.end_time.GetCurrentTime()
            run = tx.save_run(run, happened, epoch=epoch)

    return job
