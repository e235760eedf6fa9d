"""What others feel while the largest real package is imported into embedded environments."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from statistics import median

from tests.conftest import REAL_SOLUTIONS
from tests.e2e.processes import HostProcess
from tests.e2e.test_real_packages import fill

from benchmarks.bare import running
from benchmarks.figures import Figure, percentile
from benchmarks.http2 import Connection, one
from benchmarks.unary import SERVICE
from pipelinehost import Client
from pipelinehost.v1.pipeline_host_pb2 import GetRunRequest
from pipelinehost.v1.resources_pb2 import (
    DeploymentSettings,
    Environment,
    Pipeline,
    Run,
    Stage,
    Step,
)
from pipelinehost_dataverse.solution import Column, Table, new_manifest, read, write

REAL = REAL_SOLUTIONS / "valid" / "CenterofExcellenceCoreComponents_2_1_6_managed.zip"
TARGETS = 7
IDLE_SECONDS = 5.0
PAUSE = 0.002
BOUND = 0.010
TIMES = 5.0
_ENOUGH = "99.0.0.0"
"""A version that is high enough for whatever needs it."""


@dataclass(frozen=True, slots=True)
class _Work:
    """A package, the solutions that it needs, and the environments that it goes to."""

    package: Path
    apps: list[str]
    targets: list[str] = field(default_factory=lambda: [f"target-{number}" for number in range(TARGETS)])


class _Alone(HostProcess):
    """A host whose embedded environments are in its own process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        program = (
            "from pipelinehost_server.deployment import environments; "
            "from tests.in_process import InProcess; environments.Embedded = InProcess; "
            "from pipelinehost_server.__main__ import main; main()"
        )
        self._arguments = ("-c", program, *self._arguments[2:])

    def environ(self) -> dict[str, str]:
        """With the repository on the path."""
        inherited = super().environ()
        path = (str(Path(__file__).resolve().parents[1]), inherited.get("PYTHONPATH", ""))
        return {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def measure() -> Iterator[Figure]:
    """GetRun, while nothing happens and while imports do."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        package = REAL
        if not package.exists():
            print("  (the folder with real packages beside the repository is missing: a package is built)")
            package = folder / "package.zip"
            package.write_bytes(_built())
        apps = {d.required.solution.partition(" (")[0] for d in read(package).manifest.missing_dependencies}
        work = _Work(package, sorted(apps - {""}))
        yield from _felt("as it is", HostProcess(folder / "host"), work, BOUND)
        yield from _felt("in one process with it", _Alone(folder / "alone"), work, None)


def _felt(what: str, host: HostProcess, work: _Work, bound: float | None) -> Iterator[Figure]:
    with running(host), host.client() as client:
        artifact, settings = _furnish(client, work)
        token = (host.data / "admin-token").read_text().strip()
        asked = client.deploy("imports", artifact=artifact, settings=settings, stage="stage-0")
        client.wait(asked.name, timeout=300)
        spawn = multiprocessing.get_context("spawn")
        here, there = spawn.Pipe()
        asking = spawn.Process(target=ask, args=(there, host.address, token, asked.name), daemon=True)
        asking.start()
        time.sleep(1 + IDLE_SECONDS)
        busy: list[tuple[float, float]] = []
        for number in range(1, TARGETS):
            name = client.deploy(
                "imports", artifact=artifact, settings=settings, stage=f"stage-{number}"
            ).name
            run = client.wait(name, timeout=300)
            if run.state != Run.STATE_SUCCEEDED:
                raise AssertionError(f"{name} ended as {Run.State.Name(run.state)}: {run.error.message}")
            step = next(s for s in run.steps if s.kind == Step.KIND_IMPORT)
            busy.append((step.start_time.ToNanoseconds() / 1e9, step.end_time.ToNanoseconds() / 1e9))
        here.send("stop")
        times: list[tuple[float, float]] = here.recv()
        asking.join(30)
    first = busy[0][0]
    idle = [took for at, took in times if first - 0.5 - IDLE_SECONDS <= at < first - 0.5]
    during = [took for at, took in times if any(begun <= at <= ended for begun, ended in busy)]
    calm, felt = percentile(idle, 0.99), percentile(during, 0.99)
    words = f"GetRun during an import, {what}: p99"
    allowed = max(bound or 0, TIMES * calm)
    if bound is None:
        yield Figure(words, f"{felt * 1e3:.2f} ms")
    else:
        yield Figure.at_most(words, felt * 1e3, round(allowed * 1e3, 1), " ms")
    yield Figure(
        f"  idle p99 {calm * 1e3:.2f} ms",
        f"during: p50 {median(during) * 1e3:.2f}, p99.9 {percentile(during, 0.999) * 1e3:.2f}, most "
        f"{max(during) * 1e3:.2f} ms of {len(during):,} calls; "
        f"import step {median(b - a for a, b in busy):.2f} s",
    )


def _furnish(client: Client, work: _Work) -> tuple[str, DeploymentSettings]:
    """A pipeline with as many stages as imports, each to an environment of its own that has what it needs."""
    artifact = client.upload(work.package).name
    for name in work.targets:
        client.create_environment(
            Environment(
                name=f"environments/{name}",
                kind=Environment.KIND_TARGET,
                installed_apps=dict.fromkeys(work.apps, _ENOUGH),
            )
        )
    client.create_pipeline(
        Pipeline(
            name="pipelines/imports",
            stages=[
                Stage(name=f"pipelines/imports/stages/stage-{n}", environment=f"environments/{name}")
                for n, name in enumerate(work.targets)
            ],
        )
    )
    return artifact, fill(client, artifact, work.targets)


def ask(pipe: Pipe, address: str, token: str, run: str) -> None:
    """Asks for a run again and again until it is told to stop; sends when, and how long it took."""
    connection = Connection(address, f"{SERVICE}/GetRun", token)
    request = GetRunRequest(name=run).SerializeToString()
    found = []
    while not pipe.poll(PAUSE):
        at, begun = time.time(), time.perf_counter()
        one(connection, request)
        found.append((at, time.perf_counter() - begun))
    pipe.send(found)


def _built() -> bytes:
    """A managed package of about the size and the number of components of the real one."""
    tables = [
        Table(f"bench_table{t}", tuple(Column(f"bench_column{t}_{c}") for c in range(40))) for t in range(60)
    ]
    return write(new_manifest("Bench", "1.0.0.0", managed=True), *tables)
