"""Twenty environments asked at once, against the same twenty one after the other."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.processes import HostProcess

from benchmarks.bare import running
from benchmarks.figures import Figure
from pipelinehost import Client
from pipelinehost.v1.resources_pb2 import Environment, Pipeline, Run, Stage
from pipelinehost_dataverse.solution import Column, Table, new_manifest, write

COUNT = 20
ROUNDS = 3
BEGIN_SECONDS = 1.0
TIMES = 1.2


def measure() -> Iterator[Figure]:
    """Runs, and then questions whose environments have yet to be opened."""
    with tempfile.TemporaryDirectory() as name:
        host = HostProcess(Path(name) / "host")
        with running(host), host.client() as client:
            _furnish(client)
            yield from _runs(client)
        with running(host), host.client() as client:
            yield from _questions(host, client)


def _furnish(client: Client) -> None:
    for number in range(COUNT):
        environment = f"environments/e{number}"
        client.create_environment(Environment(name=environment, kind=Environment.KIND_TARGET))
        pipeline = f"pipelines/p{number}"
        stage = Stage(name=f"{pipeline}/stages/only", environment=environment)
        client.create_pipeline(Pipeline(name=pipeline, stages=[stage]))


def _artifact(client: Client, version: int) -> str:
    tables = [Table(f"bench_t{t}", tuple(Column(f"bench_c{t}_{c}") for c in range(20))) for t in range(10)]
    path = Path(tempfile.gettempdir()) / f"bench-{time.time_ns()}.zip"
    path.write_bytes(write(new_manifest("Bench", f"1.{version}", managed=True), *tables))
    try:
        return client.upload(path).name
    finally:
        path.unlink()


def _runs(client: Client) -> Iterator[Figure]:
    ratios, begins = [], []
    for number in range(ROUNDS):
        single, several = _artifact(client, 2 * number), _artifact(client, 2 * number + 1)
        begun = time.perf_counter()
        for target in range(COUNT):
            _succeeded(client.wait(client.deploy(f"p{target}", artifact=single).name, timeout=120))
        one_by_one = time.perf_counter() - begun
        begun = time.perf_counter()
        asked = [client.deploy(f"p{target}", artifact=several).name for target in range(COUNT)]
        runs = [client.wait(name, timeout=120) for name in asked]
        at_once = time.perf_counter() - begun
        for run in runs:
            _succeeded(run)
        begins.append(max(_begun(run) for run in runs))
        ratios.append(at_once / one_by_one)
    yield Figure.at_most(
        f"{COUNT} runs to {COUNT} environments at once: the last begins after",
        max(begins),
        BEGIN_SECONDS,
        " s",
    )
    yield Figure.at_most("  all of them, against one after the other", sorted(ratios)[ROUNDS // 2], TIMES)


def _questions(host: HostProcess, client: Client) -> Iterator[Figure]:
    """The host was started anew: each environment is opened by its first question."""
    del client
    at_once, firsts = _asked(host, COUNT)
    host.stop()
    host.start()
    one_by_one, _ = _asked(host, 1)
    yield Figure.at_most(
        f"{COUNT} closed environments asked at once: the last answers after", max(firsts), BEGIN_SECONDS, " s"
    )
    yield Figure.at_most("  all of them, against one after the other", at_once / one_by_one, TIMES)


def _asked(host: HostProcess, threads: int) -> tuple[float, Sequence[float]]:
    """Seconds for all, and for each from the beginning on."""
    with host.client() as client, ThreadPoolExecutor(threads) as pool:
        client.host()
        begun = time.perf_counter()

        def ask(number: int) -> float:
            client.check(f"environments/e{number}")
            return time.perf_counter() - begun

        ends = list(pool.map(ask, range(COUNT)))
        return time.perf_counter() - begun, ends


def _begun(run: Run) -> float:
    return (run.start_time.ToNanoseconds() - run.create_time.ToNanoseconds()) / 1e9


def _succeeded(run: Run) -> None:
    if run.state != Run.STATE_SUCCEEDED:
        raise AssertionError(f"{run.name} ended as {Run.State.Name(run.state)}: {run.error.message}")
