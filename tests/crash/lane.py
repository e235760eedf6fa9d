"""One client's work: solutions that travel, fail, are retried and cancelled, whatever becomes of the host."""

from __future__ import annotations

import itertools
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import httpx
from tests.crash.record import INSIDE, OUTSIDE, Asked, Record, Watched

from pipelinehost import Cancelled, Client, DeadlineExceeded, FailedPrecondition, Unavailable
from pipelinehost.channel import interrupted
from pipelinehost.errors import PipelineHostError
from pipelinehost.v1.resources_pb2 import (
    Artifact,
    Connection,
    ConnectionReferenceSetting,
    DeploymentSettings,
    EnvironmentVariableSetting,
    Run,
)
from pipelinehost_dataverse.solution import (
    Column,
    ConnectionReference,
    EnvironmentVariable,
    Table,
    VariableType,
    WebResource,
    cloud_flow,
    new_manifest,
    write,
)

OFFICE = "/providers/Microsoft.PowerApps/apis/shared_office365"
PIPELINES = ("a", "b")
_BROKEN = {"ENVIRONMENT_UNREACHABLE", "ENVIRONMENT_ERROR"}
"""How a run may fail whose environment was killed in the middle of an answer; a retry then helps."""

T = TypeVar("T")


class Lane(threading.Thread):
    """Works with solutions of its own, so that it knows how each of its runs must end.

    Args:
        number: of the lane.
        seed: what its choices follow from.
        client: to the host.
        urls: where the environments outside the host's process are, by name.
        record: told of everything.
        folder: for the packages that it sends.
        enough: asked before each journey.
        patience: seconds after which a call or a run that has not come to its end is given up.
    """

    def __init__(
        self,
        number: int,
        seed: int,
        client: Client,
        urls: Mapping[str, str],
        record: Record,
        folder: Path,
        enough: Callable[[], bool],
        patience: float,
    ) -> None:
        super().__init__(name=f"lane-{number}", daemon=True)
        self._number = number
        self._random = random.Random(f"{seed}/lane/{number}")
        self._client = client
        self._urls = urls
        self._record = record
        self._folder = folder
        self._enough = enough
        self._patience = patience
        self._versions = itertools.count(1)

    def run(self) -> None:
        """Go on until it is enough, or something has gone wrong."""
        sides = itertools.cycle((INSIDE, OUTSIDE) if self._number % 2 else (OUTSIDE, INSIDE))
        journeys = (self._develop, self._develop, self._promote, self._promote, self._mend, self._cancel)
        for side in sides:
            if self._enough():
                return
            journey = self._random.choice(journeys)
            try:
                journey(side, self._random.choice(PIPELINES))
            except Exception as error:  # noqa: BLE001 - whatever a client meets, it must not have met it
                self._record.violated(f"{self.name}, {journey.__name__}, {side}: {error!r}")
                return

    def _develop(self, side: str, pipeline: str) -> None:
        """An unmanaged package is restored into development, and its solution goes to production."""
        solution = f"Made{self._number}"
        artifact = self._upload(self._package(solution, managed=False))
        self._ends(self._restore(side, artifact, f"{side}-dev-{pipeline}"))
        explicit = self._random.random() < 0.5
        qa = self._deploy(side, pipeline, solution=solution, stage="qa" if explicit else "")
        if self._ends(qa).state != Run.STATE_SUCCEEDED:
            return
        if self._random.random() < 0.3:  # the version was not raised
            again = self._deploy(side, pipeline, {"FAILED VERSION_NOT_HIGHER"}, solution=solution, stage="qa")
            self._ends(again)
        self._ends(self._deploy(side, pipeline, solution=solution, stage="production" if explicit else ""))

    def _promote(self, side: str, pipeline: str) -> None:
        """A managed package goes to QA and to production."""
        artifact = self._upload(self._package(f"Built{self._number}", managed=True))
        if self._ends(self._deploy(side, pipeline, artifact=artifact.name)).state == Run.STATE_SUCCEEDED:
            self._ends(self._deploy(side, pipeline, artifact=artifact.name))

    def _mend(self, side: str, pipeline: str) -> None:
        """A run fails for want of a connection, gets it, and is retried."""
        name, number = f"cts_mail{self._number}", next(self._versions)
        connection, limit = f"mail-{self._number}-{number}", f"cts_limit{self._number}"
        artifact = self._upload(
            self._package(
                f"Needy{self._number}",
                ConnectionReference(name, "Mail", "", OFFICE),
                EnvironmentVariable(limit, "Limit", "", VariableType.NUMBER, None, True),
                cloud_flow(
                    f"Send {self._number}", connection_references=[name], environment_variables=[limit]
                ),
                managed=True,
            )
        )
        settings = DeploymentSettings(
            connection_references=[
                ConnectionReferenceSetting(logical_name=name, connection_id=connection, connector_id=OFFICE)
            ],
            environment_variables=[EnvironmentVariableSetting(schema_name=limit, value=str(number))],
        )
        asked = self._deploy(
            side,
            pipeline,
            {"FAILED CONNECTION_NOT_FOUND"},
            artifact=artifact.name,
            stage="qa",
            settings=settings,
        )
        if self._ends(asked).error.code != "CONNECTION_NOT_FOUND":
            return
        self._connect(side, f"{side}-qa-{pipeline}", connection)
        asked.ends = {"SUCCEEDED"}
        self._retry(asked)
        self._ends(asked)

    def _cancel(self, side: str, pipeline: str) -> None:
        """A run is cancelled, unless its import is done or the environment does not cancel it."""
        artifact = self._upload(self._package(f"Dropped{self._number}", managed=True))
        asked = self._deploy(side, pipeline, {"SUCCEEDED", "CANCELLED"}, artifact=artifact.name, stage="qa")
        time.sleep(self._random.random() ** 2)
        repeated = False
        while True:
            try:
                told = self._client.cancel(asked.run, reason="changed my mind")
            except FailedPrecondition:
                if not repeated:  # otherwise it may have been cancelled by the call whose answer was lost
                    asked.ends = {"SUCCEEDED"}
                break
            except PipelineHostError as error:
                if not _passing(error):
                    raise
                repeated = True
            else:
                if told.state == Run.STATE_CANCELLED:  # else the environment decides
                    asked.ends = {"CANCELLED"}
                break
        self._ends(asked)

    # What the journeys are made of.

    def _package(self, solution: str, *more: object, managed: bool) -> Path:
        version = next(self._versions)
        columns = tuple(Column(f"cts_c{c}") for c in range(2 + version % 3))  # upgrades remove some
        table = Table(f"cts_{solution.lower()}", columns=columns)
        page = WebResource(
            f"cts_/{solution.lower()}.js", self._random.randbytes(self._random.choice((1_000, 200_000)))
        )
        content = write(
            new_manifest(solution, f"1.0.0.{version}", managed=managed),
            table,
            page,
            *more,  # type: ignore[arg-type]  # parts of a package
        )
        path = self._folder / f"{solution}-{version}.zip"
        path.write_bytes(content)
        return path

    def _upload(self, path: Path) -> Artifact:
        artifact = self._told(lambda: self._client.upload(path))
        self._record.uploads[artifact.name] = path.read_bytes()
        path.unlink()
        return artifact

    def _restore(self, side: str, artifact: Artifact, environment: str) -> Asked:
        request = str(uuid.uuid4())
        return self._accepted(
            lambda: self._client.restore(artifact.name, environment, request_id=request),
            side,
            {"SUCCEEDED"},
        )

    def _deploy(
        self,
        side: str,
        pipeline: str,
        ends: set[str] | None = None,
        *,
        stage: str = "",
        solution: str = "",
        artifact: str = "",
        settings: DeploymentSettings | None = None,
    ) -> Asked:
        name = f"pipelines/{side}-{pipeline}"
        full = f"{name}/stages/{stage}" if stage else ""
        request = str(uuid.uuid4())
        return self._accepted(
            lambda: self._client.deploy(
                name,
                stage=full,
                solution=solution,
                artifact=artifact,
                settings=settings or DeploymentSettings(),
                request_id=request,
            ),
            side,
            ends or {"SUCCEEDED"},
        )

    def _accepted(self, request: Callable[[], Run], side: str, ends: set[str]) -> Asked:
        """The run of a request, which is now and then made again, as by a client that was never answered."""
        run = self._told(request)
        asked = Asked(run.name, side, ends)
        self._record.accept(asked)
        if self._random.random() < 0.2:
            time.sleep(self._random.uniform(0.0, 2.0))
            if (again := self._told(request).name) != run.name:
                self._record.violated(f"the same request gave {run.name} and then {again}")
        return asked

    def _retry(self, asked: Asked) -> None:
        asked.attempts += 1
        while True:
            try:
                self._told(lambda: self._client.retry(asked.run))
            except FailedPrecondition:
                # The answer to the call before may have been lost.
                if self._told(lambda: self._client.run(asked.run)).attempt != asked.attempts:
                    raise
            self._record.count("retries")
            return

    def _connect(self, side: str, environment: str, connection: str) -> None:
        if side == OUTSIDE:
            body = {"name": connection, "properties": {"apiId": OFFICE, "displayName": "Mail"}}
            address = f"{self._urls[environment]}/connectivity/connections?api-version=1"
            ends = time.monotonic() + self._patience
            while True:
                try:
                    if httpx.post(address, json=body, timeout=10).status_code in (200, 201, 409):
                        return
                except httpx.TransportError:
                    if time.monotonic() > ends:
                        raise
                time.sleep(0.2)
        name = f"environments/{environment}/connections/{connection}"
        try:
            self._told(
                lambda: self._client.create_connection(
                    environment, Connection(name=name, connector_id=OFFICE)
                )
            )
        except FailedPrecondition:
            if name not in [c.name for c in self._told(lambda: self._client.connections(environment))]:
                raise

    def _told(self, call: Callable[[], T]) -> T:
        """The answer to a call that is repeated until there is one."""
        ends = time.monotonic() + self._patience
        while True:
            try:
                return call()
            except PipelineHostError as error:
                if not _passing(error) or time.monotonic() > ends:
                    raise
                self._record.count("calls repeated by hand")
                time.sleep(0.1)

    def _ends(self, asked: Asked) -> Run:
        """The run at its end; one that failed because its environment was killed is retried."""
        while True:
            run = self._watch(asked.run)
            if asked.side == INSIDE or run.state != Run.STATE_FAILED or run.error.code not in _BROKEN:
                return run
            self._record.count("runs that failed with their environment")
            self._retry(asked)

    def _watch(self, name: str) -> Run:
        watched = Watched(name)

        def interrupted_(_: PipelineHostError) -> None:
            watched.interruptions += 1

        run: Run | None = None
        for update in self._client.watch(name, timeout=self._patience, on_interruption=interrupted_):
            if update.HasField("event"):
                watched.sequences.append(update.event.sequence)
            elif update.HasField("run"):
                if run is None:
                    watched.after = update.run.revision
                run = update.run
        assert run is not None
        watched.upto = run.revision
        self._record.watch(watched)
        return run


def _passing(error: PipelineHostError) -> bool:
    """Whether the host was away, and the same call may be made again."""
    return isinstance(error, Unavailable | Cancelled | DeadlineExceeded) or interrupted(error)
