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
            # Linked, so that nothing but the record exists; nobody ever calls this address.
            client.create_environment(
                Environment(
                    name=f"environments/{name}",
                    kind=kind,
                    display_name=f"{name.title()} of the sales department",
                    url=f"http://127.0.0.1:9/{name}",
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


def new_deployment(artifact: str) -> Callable[[], bytes]:
    """Makes requests with a request_id of their own."""
    template = DeployRequest(
        pipeline="pipelines/sales-00", artifact=artifact, note="benchmark", request_id=_ROOM_FOR_ID
    ).SerializeToString()
    before, _, after = template.partition(_ROOM_FOR_ID.encode())
    return lambda: before + str(uuid.uuid4()).encode() + after


def compare(
    what: str, host: HostProcess, bare: Bare, method: str, request: Callable[[], bytes], target: float
) -> Iterator[Figure]:
    """Both servers in turn under the same load; the ratio of what they do in a second of processor time."""
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
    yield Figure.at_least(f"{what}: calls per second, of echo", ratio(rates["ours"], rates["bare"]), target)
    yield Figure.at_least(
        f"{what}: calls per second of processor, of echo", ratio(costs["bare"], costs["ours"]), target
    )
    yield Figure(
        f"{what}: {len(answer):,} bytes",
        f"{median(rates['ours']):,.0f}/s {median(costs['ours']):.0f} µs; "
        f"echo {median(rates['bare']):,.0f}/s {median(costs['bare']):.0f} µs",
    )
