"""A host without its network face: store, packages and embedded environments, all real."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelinehost.v1.pipeline_host_pb2 import (
    DeployRequest,
    RestoreArtifactRequest,
    ValidateDeploymentResponse,
)
from pipelinehost.v1.resources_pb2 import (
    Artifact,
    Connection,
    Environment,
    Event,
    Finding,
    Pipeline,
    Run,
    Stage,
)
from pipelinehost_dataverse.solution import read
from pipelinehost_server import rules
from pipelinehost_server.blobs import Blobs
from pipelinehost_server.config import Config
from pipelinehost_server.deployment import Deployment, Environments
from pipelinehost_server.deployment.packages import describe
from pipelinehost_server.encryption import Encryption
from pipelinehost_server.store import Once, Store, Transaction

_ids = itertools.count()


def once() -> Once:
    """A request that was never made before."""
    return Once("admin", f"request-{next(_ids)}", "/test", b"")


class Host:
    """Everything below the API, on one folder; can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock: Callable[[], int] = time.time_ns

    async def start(self, **settings: Any) -> None:
        self.config = Config(folder=self.folder, **settings)
        self.store = Store(self.folder)
        await self.store.open()
        self.blobs = Blobs(self.folder)
        self.blobs.start()
        encryption = Encryption(self.folder)
        self.environments = Environments(self.config, self.store, encryption)
        self.allowed = True
        self.deployment = Deployment(
            self.config,
            self.store,
            self.blobs,
            encryption,
            self.environments,
            lambda _reads, _run: self.allowed,
            lambda: self.clock(),
        )
        self.deployment.start()

    async def stop(self) -> None:
        await self.deployment.stop()
        await self.environments.close()
        await self.store.close()

    async def configure(self, *stages: str, **pipeline: Any) -> None:
        environments = [Environment(name="environments/dev", kind=Environment.KIND_DEVELOPMENT)]
        environments += [Environment(name=f"environments/{s}", kind=Environment.KIND_TARGET) for s in stages]
        for environment in environments:
            await self.store.write(partial(Transaction.put_environment, environment=environment))
        made = Pipeline(
            name="pipelines/sales",
            development_environments=["environments/dev"],
            stages=[
                Stage(name=f"pipelines/sales/stages/{s}", environment=f"environments/{s}") for s in stages
            ],
            **pipeline,
        )
        await self.store.write(lambda tx: tx.put_pipeline(made))

    async def upload(self, package: bytes) -> Artifact:
        artifact = describe(read(package), await self.blobs.put(package), "admin")
        return await self.store.write(lambda tx: tx.put_artifact(artifact))

    async def connect(self, environment: str, connector: str, connection: str) -> None:
        await self.environments.create_connection(
            f"environments/{environment}",
            Connection(name=f"environments/{environment}/connections/{connection}", connector_id=connector),
        )

    async def restored(self, package: bytes) -> Run:
        artifact = await self.upload(package)
        request = RestoreArtifactRequest(artifact=artifact.name, environment="environments/dev")
        return await self.ended(await self.deployment.restore(request, "admin", once()))

    async def asked(self, solution: str = "Sales", stage: str = "", **more: Any) -> Run:
        request = DeployRequest(pipeline="pipelines/sales", solution=solution)
        if stage:
            request.stage = f"pipelines/sales/stages/{stage}"
        request.MergeFrom(DeployRequest(**more))
        return await self.deployment.deploy(request, "admin", once())

    async def previewed(
        self, solution: str = "Sales", stage: str = "", **more: Any
    ) -> tuple[list[Finding], ValidateDeploymentResponse.Summary]:
        """What a validation finds, and what it comes to."""
        request = DeployRequest(pipeline="pipelines/sales", solution=solution)
        if stage:
            request.stage = f"pipelines/sales/stages/{stage}"
        request.MergeFrom(DeployRequest(**more))
        updates = [u async for u in self.deployment.validate(request, "admin")]
        return [u.finding for u in updates if u.HasField("finding")], updates[-1].summary

    async def loss(self, solution: str = "Sales", stage: str = "", **more: Any) -> str:
        """Digest of what a deployment would lose now."""
        _, summary = await self.previewed(solution, stage, **more)
        return summary.loss_sha256

    async def deployed(self, solution: str = "Sales", stage: str = "", **more: Any) -> Run:
        return await self.ended(await self.asked(solution, stage, **more))

    async def ended(self, run: Run, seconds: float = 20) -> Run:
        return await self.until(run, lambda r: r.state in rules.FINISHED, seconds)

    async def until(self, run: Run, reached: Callable[[Run], bool], seconds: float = 20) -> Run:
        async with asyncio.timeout(seconds):
            while True:
                now = self.store.reads.run(run.name)
                assert now is not None
                if reached(now):
                    return now
                await asyncio.sleep(0.01)

    def findings(self, run: Run) -> list[Finding]:
        return self.store.reads.findings(run.name)

    def events(self, run: Run) -> list[Event]:
        return self.store.reads.events_of_run(run.name, 0, 10_000)

    async def history(self, environment: str, solution: str = "Sales") -> list[str]:
        """Versions in the order in which the environment says that it imported them."""
        _, api = await self.environments.named(f"environments/{environment}")
        return [h.version for h in reversed(await api.history(solution)) if h.succeeded]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path)
    await host.start()
    await host.configure("qa", "production")
    yield host
    await host.stop()
