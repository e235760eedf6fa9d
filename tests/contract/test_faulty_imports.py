"""Deployments by the host's own run over a way that fails: what it says of each is what the environment did.

``FAULTY_IMPORTS=1000`` makes more of them than CI does (with ``-o faulthandler_timeout=0``, since it takes
minutes), ``FAULTY_SEED=n`` others.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import tests.unit.deployment.conftest as deployment
from tests.contract.faulty import Faulty, Kind
from tests.in_process import InProcess

from pipelinehost import names
from pipelinehost.v1.pipeline_host_pb2 import DeployRequest, ResolveRunRequest, RestoreArtifactRequest
from pipelinehost.v1.resources_pb2 import Environment, Pipeline, Run, Stage, Step
from pipelinehost_dataverse.emulator import EmbeddedEnvironment
from pipelinehost_dataverse.solution import Column, Table, new_manifest, write
from pipelinehost_dataverse.webapi import Policy, WebApi
from pipelinehost_server import rules
from pipelinehost_server.deployment import Environments
from pipelinehost_server.deployment.dispatcher import Dispatcher
from pipelinehost_server.store import Transaction

IMPORTS = int(os.environ.get("FAULTY_IMPORTS", "60"))
SEED = int(os.environ.get("FAULTY_SEED", "1"))
LANES = 12
"""Deployments that go on at once, each to an environment of its own; every second ignores ImportJobId."""
TIMEOUT = 2.0
"""Seconds that the connector waits for an answer."""
HERE = "http://embedded.invalid"


class Lane:
    """One solution on its way to one environment, and the plan of what goes wrong there."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.solution = f"Lane{number}"
        self.target = f"qa{number}"
        self.honours = number % 2 == 0
        self.random = random.Random(f"{SEED}/{number}")
        self.posts: list[Kind | None] = []
        """What happens to the next posts of the import."""
        self.looks: list[Kind | None] = []
        """What happens to the next looks at what is installed, after that."""
        self.posted = False
        self.disturbed = False
        """Whether other requests fail too, now and then."""
        self.intrusion: bytes | None = None
        """What somebody imports by hand there, just when our own import is lost."""
        self.embedded: EmbeddedEnvironment | None = None
        self.faulty: Faulty | None = None

    def plan(self, request: httpx.Request) -> Kind | None:
        path = request.url.path
        if self.looks and self.posted and path.endswith("/solutions"):
            return self.looks.pop(0)
        if request.method == "POST" and path.endswith(("ImportSolutionAsync", "StageAndUpgradeAsync")):
            if self.intrusion is not None and self.embedded is not None:
                options = {"OverwriteUnmanagedCustomizations": False, "PublishWorkflows": True}
                self.embedded.accept("ImportSolutionAsync", options, package=self.intrusion)
                self.intrusion = None
            self.posted = True
            return self.posts.pop(0) if self.posts else None
        if self.disturbed and request.method == "GET" and self.random.random() < 0.05:
            return self.random.choice([k for k in Kind if k is not Kind.SLOW])
        return None


def in_process(environments: Environments, name: str) -> EmbeddedEnvironment:
    embedded = environments._embedded
    assert isinstance(embedded, InProcess)
    return embedded.environments[names.slug(name)]


class FaultyEnvironments(Environments):
    """The host's environments, where the way to some of them fails."""

    lanes: dict[str, Lane]

    async def connect(self, environment: Environment, stage: str = "") -> WebApi:
        sound = await super().connect(environment, stage)
        lane = self.lanes.get(environment.name)
        if lane is None:
            return sound
        if lane.faulty is None:
            lane.embedded = embedded = in_process(self, environment.name)
            embedded._honour_import_job_id = lane.honours
            inner = httpx.ASGITransport(embedded.app, raise_app_exceptions=False)
            lane.faulty = Faulty(inner, lane.plan, late=2 * TIMEOUT)
            policy = Policy(action_seconds=TIMEOUT, read_seconds=TIMEOUT, jitter=lambda: 0.0)
            self._faulty_api[environment.name] = WebApi(
                HERE, connectivity_url=HERE, transport=lane.faulty, policy=policy
            )
        return self._faulty_api[environment.name]

    _faulty_api: dict[str, WebApi]

    async def close(self) -> None:
        for api in self._faulty_api.values():
            await api.aclose()
        await super().close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that looks again after a second instead of after minutes; it decides as ever."""
    whole = Dispatcher._look_again

    def soon(self: Dispatcher, name: str, after: timedelta) -> None:
        whole(self, name, min(after, timedelta(seconds=1)))

    monkeypatch.setattr(Dispatcher, "_look_again", soon)
    monkeypatch.setattr(deployment, "Environments", FaultyEnvironments)


def package(solution: str, version: str, *, managed: bool) -> bytes:
    column = Column(f"cts_{version.replace('.', '_')}")
    return write(
        new_manifest(solution, version, managed=managed), Table(f"cts_{solution.lower()}", (column,))
    )


class Storm:
    """Deployments in lanes, and the account of what became of them."""

    def __init__(self, host: deployment.Host) -> None:
        self.host = host
        self.account: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def ask(self, environment: str, method: str, path: str, body: object = None) -> Any:
        """Ask an environment itself, on a way that never fails."""
        embedded = in_process(self.host.environments, f"environments/{environment}")
        transport = httpx.ASGITransport(embedded.app)
        async with httpx.AsyncClient(transport=transport, base_url=f"{HERE}/api/data/v9.2/") as client:
            answer = await client.request(method, path, json=body)
            assert answer.is_success, answer.text
            return answer.json() if answer.content else None

    async def begin(self, lanes: list[Lane]) -> None:
        host = self.host
        made = [Environment(name="environments/dev", kind=Environment.KIND_DEVELOPMENT)]
        made += [
            Environment(name=f"environments/{lane.target}", kind=Environment.KIND_TARGET) for lane in lanes
        ]
        for environment in made:
            await host.store.write(partial(Transaction.put_environment, environment=environment))
        for lane in lanes:
            name = f"pipelines/lane{lane.number}"
            stage = Stage(name=f"{name}/stages/qa", environment=f"environments/{lane.target}")
            pipeline = Pipeline(name=name, development_environments=["environments/dev"], stages=[stage])
            await host.store.write(partial(Transaction.put_pipeline, pipeline=pipeline))
            artifact = await host.upload(package(lane.solution, "1.0.0.0", managed=False))
            request = RestoreArtifactRequest(artifact=artifact.name, environment="environments/dev")
            run = await host.deployment.restore(request, "admin", deployment.once())
            run = await host.ended(run)
            assert run.state == Run.STATE_SUCCEEDED, run

    async def lane(self, lane: Lane, imports: list[int]) -> None:
        (row,) = (await self.ask("dev", "GET", f"solutions?$filter=uniquename eq '{lane.solution}'"))["value"]
        for number in imports:
            version = f"1.{number + 1}.0.0"
            await self.ask("dev", "PATCH", f"solutions({row['solutionid']})", {"version": version})
            await self.deploy(lane, number, version)

    async def deploy(self, lane: Lane, number: int, version: str) -> None:
        kinds = [kind for kind in Kind if lane.honours or kind is not Kind.DUPLICATED]
        kind = kinds[(number // LANES + lane.number) % len(kinds)]
        again = lane.random.random() < 0.2
        lane.posts = [kind, lane.random.choice(kinds)] if again else [kind]
        lane.disturbed = lane.random.random() < 0.3
        intruder = kind in (Kind.RESET_BEFORE, Kind.ERROR) and lane.random.random() < 0.5
        lane.intrusion = package(lane.solution, f"1.{number + 1}.0.1", managed=True) if intruder else None
        request = DeployRequest(pipeline=f"pipelines/lane{lane.number}", solution=lane.solution)
        run = await self.host.deployment.deploy(request, "admin", deployment.once())
        run = await self.decided(run)
        label = f"{run.name} {lane.solution} {version} ({'; '.join(filter(None, [kind, *lane.posts]))})"
        applied = await self.applied(lane, version)
        if applied > 1:
            self.wrong.append(f"{label}: applied {applied} times")
        state = Run.State.Name(run.state)
        if run.state == Run.STATE_UNKNOWN:
            self.account["unknown, applied" if applied else "unknown, not applied"] += 1
            if not intruder:
                self.account["unknown without an intruder"] += 1
            seen = (
                ResolveRunRequest.RESOLUTION_APPLIED if applied else ResolveRunRequest.RESOLUTION_NOT_APPLIED
            )
            resolve = ResolveRunRequest(name=run.name, resolution=seen, reason="looked")
            await self.host.deployment.resolve(resolve, "admin", deployment.once())
            run = await self.host.ended(run, 60)
            ended = Run.STATE_SUCCEEDED if applied else Run.STATE_FAILED
            if run.state != ended:
                self.wrong.append(f"{label}: resolved to {Run.State.Name(run.state)}: {run.error.message}")
            return
        self.account[state] += 1
        if run.state == Run.STATE_SUCCEEDED and not applied:
            self.wrong.append(f"{label}: false success")
        if run.state != Run.STATE_SUCCEEDED:
            failed = next(Step.Kind.Name(s.kind) for s in run.steps if s.state == Step.STATE_FAILED)
            self.account[f"failed at {failed}: {run.error.code}"] += 1
            if applied:
                self.wrong.append(f"{label}: false failure at {failed}: {run.error.message}")

    async def decided(self, run: Run) -> Run:
        """Wait until the run has ended, or is unknown and stays so for three looks."""
        unknown = 0
        async with asyncio.timeout(120):
            while True:
                now = self.host.store.reads.run(run.name)
                assert now is not None
                if now.state in rules.FINISHED:
                    return now
                unknown = unknown + 1 if now.state == Run.STATE_UNKNOWN else 0
                if unknown == 60:
                    return now
                await asyncio.sleep(0.1)

    async def applied(self, lane: Lane, version: str) -> int:
        where = f"msdyn_name eq '{lane.solution}' and msdyn_solutionversion eq '{version}'"
        rows = await self.ask(
            lane.target, "GET", f"msdyn_solutionhistories?$filter={where} and msdyn_operation eq 0"
        )
        return sum(row["msdyn_result"] is True for row in rows["value"])


@asynccontextmanager
async def storming(folder: Path, lanes: list[Lane]) -> AsyncIterator[Storm]:
    FaultyEnvironments.lanes = {f"environments/{lane.target}": lane for lane in lanes}
    FaultyEnvironments._faulty_api = {}
    host = deployment.Host(folder)
    await host.start()
    try:
        storm = Storm(host)
        await storm.begin(lanes)
        yield storm
    finally:
        await host.stop()


@pytest.mark.parametrize("kind", [Kind.ERROR, Kind.GARBAGE])
async def test_an_environment_that_cannot_be_looked_at_for_a_while_makes_no_failure(
    tmp_path: Path, impatient: None, kind: Kind
) -> None:
    lane = Lane(0)
    async with storming(tmp_path, [lane]) as storm:
        request = DeployRequest(pipeline="pipelines/lane0", solution=lane.solution)
        lane.looks = [kind] * 2
        run = await storm.host.deployment.deploy(request, "admin", deployment.once())
        run = await storm.host.ended(run, 40)
        assert lane.looks == []
        assert run.state == Run.STATE_SUCCEEDED, run.error.message
        assert await storm.applied(lane, "1.0.0.0") == 1


async def test_what_a_run_says_is_what_happened(tmp_path: Path, impatient: None) -> None:
    lanes = [Lane(number) for number in range(LANES)]
    async with storming(tmp_path, lanes) as storm, asyncio.TaskGroup() as together:
        for lane in lanes:
            together.create_task(storm.lane(lane, list(range(lane.number, IMPORTS, LANES))))
    given: Counter[str] = Counter()
    for lane in lanes:
        given.update(lane.faulty.given if lane.faulty else {})
    print(f"{IMPORTS} imports, seed {SEED}: {dict(storm.account)}\nfaults: {dict(given)}")  # noqa: T201  # the figures
    assert storm.wrong == []
    assert storm.account["unknown, not applied"] > 0
    assert storm.account["unknown without an intruder"] == 0
    assert storm.account["STATE_SUCCEEDED"] > IMPORTS * 0.8
    assert all(given[kind] for kind in Kind)
