"""Calls with one answer, beside a bare grpc.aio server that answers with the very same bytes."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from tests.e2e.processes import HostProcess

from benchmarks.bare import Bare, running
from benchmarks.figures import Figure, cpu, in_turn, ratio
from benchmarks.http2 import Connection, load, one
from pipelinehost import Client
from pipelinehost.v1.pipeline_host_pb2 import DeployRequest, GetRunRequest, ListPipelinesRequest
from pipelinehost.v1.resources_pb2 import Environment, Pipeline, Stage
from pipelinehost_dataverse.solution import WebResource, new_manifest, write

SERVICE = "/pipelinehost.v1.PipelineHost"
PIPELINES = 50
IN_FLIGHT = 64
CONNECTIONS = 2
ROUNDS = 7
SECONDS = 1.5
_ROOM_FOR_ID = "00000000-0000-0000-0000-000000000000"


def furnish(client: Client, folder: Path) -> str:
    """50 pipelines of two stages each, and an artifact to deploy; gives its name."""
    for number in range(PIPELINES):
        for name, kind in (
            (f"development-{number:02}", Environment.KIND_DEVELOPMENT),
            (f"qa-{number:02}", Environment.KIND_TARGET),
            (f"production-{number:02}", Environment.KIND_TARGET),
        ):
            # Those of the pipeline that is deployed through are embedded. The others are linked, so that
            # nothing but their records exists: nobody ever calls their address.
            client.create_environment(
                Environment(
                    name=f"environments/{name}",
                    kind=kind,
                    display_name=f"{name.title()} of the sales department",
                    url=f"http://127.0.0.1:9/{name}" if number else "",
                )
            )
        client.create_pipeline(
            Pipeline(
                name=f"pipelines/sales-{number:02}",
                display_name=f"Sales {number:02}",
                description="From the makers' environment over QA to production, every second Tuesday.",
                development_environments=[f"environments/development-{number:02}"],
                stages=[
                    Stage(
                        name=f"pipelines/sales-{number:02}/stages/{stage}",
                        display_name=stage.title(),
                        environment=f"environments/{stage}-{number:02}",
                    )
                    for stage in ("qa", "production")
                ],
            )
        )
    path = folder / "package.zip"
    path.write_bytes(write(new_manifest("Sales", "1.0.0.0", managed=True), WebResource("sales_script.js")))
    return client.upload(path).name


def measure() -> Iterator[Figure]:
    """ListPipelines, GetRun and Deploy."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare, host = Bare(folder / "bare", "rpc"), HostProcess(folder / "host", "--advancing", "0")
        with running(bare, host):
            with host.client() as client:
                artifact = furnish(client, folder)
                run = client.deploy("sales-00", artifact=artifact).name
            listing = ListPipelinesRequest(page_size=PIPELINES).SerializeToString()
            yield from compare("ListPipelines (50)", host, bare, "ListPipelines", lambda: listing, 0.6)
            getting = GetRunRequest(name=run).SerializeToString()
            yield from compare("GetRun", host, bare, "GetRun", lambda: getting, 0.5)
            deploying = new_deployment(artifact)
            yield from compare("Deploy, 64 in flight", host, bare, "Deploy", deploying, 0.35)
            host.stop()
            # The runs that it has accepted would be advanced at once: another one.
            busy = HostProcess(folder / "busy")
            with running(busy):
                with busy.client() as client:
                    artifact = furnish(client, folder)
                deploying = new_deployment(artifact, "pipelines/sales-00/stages/qa")
                yield from compare("Deploy, runs advanced", busy, bare, "Deploy", deploying, None)


def new_deployment(artifact: str, stage: str = "") -> Callable[[], bytes]:
    """Makes requests with a request_id of their own; without a stage the host finds the one that is due."""
    template = DeployRequest(
        pipeline="pipelines/sales-00",
        stage=stage,
        artifact=artifact,
        note="benchmark",
        request_id=_ROOM_FOR_ID,
    ).SerializeToString()
    before, _, after = template.partition(_ROOM_FOR_ID.encode())
    return lambda: before + str(uuid.uuid4()).encode() + after


def compare(
    what: str, host: HostProcess, bare: Bare, method: str, request: Callable[[], bytes], target: float | None
) -> Iterator[Figure]:
    """Both servers in turn under the same load; what ours does of what the bare one does.

    Once in a second, and once in a second of its processor time, which a busy machine changes less.
    """
    token = (host.data / "admin-token").read_text().strip()
    ours = [Connection(host.address, f"{SERVICE}/{method}", token) for _ in range(CONNECTIONS)]
    theirs = [Connection(bare.address, "/bare/Answer", token) for _ in range(CONNECTIONS)]
    answer = one(ours[0], request())
    one(Connection(bare.address, "/bare/Keep"), answer)

    def under_load(connections: Sequence[Connection], pid: int) -> tuple[float, float]:
        before = cpu(pid)
        done = load(connections, request, IN_FLIGHT, SECONDS)
        return done.rate, (cpu(pid) - before) / done.calls * 1e6

    under_load(ours, host.pid), under_load(theirs, bare.pid)
    found = in_turn(
        ROUNDS,
        {
            "ours": lambda: under_load(ours, host.pid),
            "bare": lambda: under_load(theirs, bare.pid),
        },
    )
    rates = {name: [rate for rate, _ in rounds] for name, rounds in found.items()}
    costs = {name: [cost for _, cost in rounds] for name, rounds in found.items()}
    for unit, share in (
        ("second", ratio(rates["ours"], rates["bare"])),
        ("second of processor", ratio(costs["bare"], costs["ours"])),
    ):
        words = f"{what}: calls per {unit}, of echo"
        yield Figure(words, f"{share:.2f}×") if target is None else Figure.at_least(words, share, target)
    yield Figure(
        f"{what}: {len(answer):,} bytes",
        f"{median(rates['ours']):,.0f}/s {median(costs['ours']):.0f} µs; "
        f"echo {median(rates['bare']):,.0f}/s {median(costs['bare']):.0f} µs",
    )
