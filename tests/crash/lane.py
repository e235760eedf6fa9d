"""One client's work: solutions that travel, fail, are retried and cancelled, whatever becomes of the host."""

from __future__ import annotations

import itertools
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import httpx
from tests.crash.record import INSIDE, OUTSIDE, Asked, Decided, Record, Watched
from tests.crash.world import GATED, HASTE, HASTY, PIPELINES, REQUESTER, World, passing

from pipelinehost import Client, FailedPrecondition
from pipelinehost.client import Deployment
from pipelinehost.errors import InvalidArgument, PermissionDenied, PipelineHostError
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.pipeline_host_pb2 import ApproveRequest, RejectRequest
from pipelinehost.v1.resources_pb2 import (
    Artifact,
    Connection,
    ConnectionReferenceSetting,
    DeploymentSettings,
    EnvironmentVariableSetting,
    Event,
    GateStatus,
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
_BROKEN = {"ENVIRONMENT_UNREACHABLE", "ENVIRONMENT_ERROR"}
"""How a run may fail whose environment was killed in the middle of an answer; a retry then helps."""

_MEETING = {
    Event.KIND_RUN_STATE_CHANGED,
    Event.KIND_RUN_RESCHEDULED,
    Event.KIND_GATE_OPENED,
    Event.KIND_GATE_DECIDED,
    Event.KIND_GATE_VOIDED,
}
"""After which a run may need something of somebody."""

T = TypeVar("T")


class Lane(threading.Thread):
    """Works with solutions of its own, so that it knows how each of its runs must end.

    Args:
        number: of the lane.
        seed: what its choices follow from.
        client: to the host.
        world: what all lanes share.
        urls: where the environments that are not embedded are, by name.
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
        world: World,
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
        self._world = world
        self._urls = urls
        self._record = record
        self._folder = folder
        self._enough = enough
        self._patience = patience
        self._versions = itertools.count(1)

    def run(self) -> None:
        """Go on until it is enough, or something has gone wrong."""
        sides = itertools.cycle((INSIDE, OUTSIDE) if self._number % 2 else (OUTSIDE, INSIDE))
        journeys = (
            *(self._develop, self._promote, self._mend, self._cancel),
            *(self._approved, self._approved, self._refused, self._expires, self._goes_back),
            *(self._scheduled, self._scheduled, self._blocked, self._blocked_in_time),
        )
        for side in sides:
            if self._enough():
                return
            journey = self._random.choice(journeys)
            try:
                journey(side, self._random.choice(PIPELINES))
            except InvalidArgument as error:
                if not self._too_far(error):
                    self._record.violated(f"{self.name}, {journey.__name__}, {side}: {error!r}")
                    return
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
        self._cancelled(asked)
        self._ends(asked)

    def _cancelled(self, asked: Asked) -> None:
        """Cancel a run, however often that has to be said."""
        repeated = False
        while True:
            try:
                told = self._client.cancel(asked.run, reason="changed my mind")
            except FailedPrecondition:
                if not repeated:  # otherwise it may have been cancelled by the call whose answer was lost
                    asked.ends -= {"CANCELLED"}
                break
            except PipelineHostError as error:
                if not passing(error):
                    raise
                repeated = True
            else:
                if told.state == Run.STATE_CANCELLED:  # else the environment decides
                    asked.ends = {"CANCELLED"}
                break

    def _approved(self, side: str, pipeline: str) -> None:
        """A solution goes through every gate there is to production."""
        solution = f"Asked{self._number}"
        if self._random.random() < 0.5:
            artifact = self._upload(self._package(solution, managed=False))
            self._ends(self._restore(side, artifact, f"{side}-dev-a"))
            qa = self._deploy(side, GATED, solution=solution, stage="qa")
        else:
            artifact = self._upload(self._package(solution, managed=True))
            qa = self._deploy(side, GATED, artifact=artifact.name, stage="qa")
        run = self._ends(qa, self._approve)
        if run.state == Run.STATE_SUCCEEDED:
            asked = self._deploy(
                side, GATED, artifact=run.artifact, stage="production", schedule_time=self._soon(0.3)
            )
            self._ends(asked, self._approve)

    def _refused(self, side: str, pipeline: str) -> None:
        """Somebody says no, or the maker thinks otherwise while the gate is asked."""
        artifact = self._upload(self._package(f"Doubted{self._number}", managed=True))
        asked = self._deploy(side, GATED, {"REJECTED GATE_REJECTED"}, artifact=artifact.name, stage="qa")
        if self._random.random() < 0.5:
            self._ends(asked, self._reject)
            return
        asked.ends = self._all({"CANCELLED"})
        self._ends(asked, lambda asked, run: self._cancelled(asked))

    def _expires(self, side: str, pipeline: str) -> None:
        """Nobody decides in time, or somebody at the last moment."""
        artifact = self._upload(self._package(f"Hasty{self._number}", managed=True))
        asked = self._deploy(side, HASTY, {"EXPIRED GATE_EXPIRED"}, artifact=artifact.name)
        if self._random.random() < 0.4:
            self._ends(asked)
            return
        asked.ends = self._all({"EXPIRED GATE_EXPIRED", "SUCCEEDED"})

        def late(asked: Asked, run: Run) -> None:
            time.sleep(self._random.uniform(0, HASTE))
            if self._approve(asked, run, late=True):
                asked.ends = self._all({"SUCCEEDED"})

        self._ends(asked, late)

    def _goes_back(self, side: str, pipeline: str) -> None:
        """A stage gets a newer version, and then the older one once more."""
        artifacts = [self._upload(self._package(f"Back{self._number}", managed=True)) for _ in range(2)]
        for artifact in artifacts:
            asked = self._deploy(side, GATED, artifact=artifact.name, stage="qa")
            if self._ends(asked, self._approve).state != Run.STATE_SUCCEEDED:
                return
        older = artifacts[0].name
        if self._random.random() < 0.3:
            refused = {"FAILED LOSS_NOT_ACCEPTED"}
            self._ends(self._deploy(side, GATED, refused, artifact=older, stage="qa"))
        loss = self._loss(side, older)
        self._ends(self._deploy(side, GATED, artifact=older, stage="qa", loss=loss), self._approve)

    def _loss(self, side: str, artifact: str) -> str:
        """What is to be accepted before a stage goes back to an artifact."""
        ends = time.monotonic() + self._patience
        name = f"pipelines/{side}-{GATED}"
        while True:
            looked = self._told(lambda: list(self._client.validate(name, stage="qa", artifact=artifact))[-1])
            if looked.summary.loss_sha256 or time.monotonic() > ends:
                return looked.summary.loss_sha256
            time.sleep(0.2)  # its environment was away

    def _scheduled(self, side: str, pipeline: str) -> None:
        """A run waits for its time, is given others, goes on at once, or is cancelled."""
        artifact = self._upload(self._package(f"Timed{self._number}", managed=True))
        asked = self._deploy(
            side, pipeline, artifact=artifact.name, stage="qa", schedule_time=self._soon(1.0)
        )
        changes = [self._random.random() for _ in range(self._random.randrange(3))]

        def meet(asked: Asked, run: Run) -> None:
            if run.state != Run.STATE_SCHEDULED or not changes:
                return
            change = changes.pop()
            time.sleep(self._random.uniform(0, 0.5))
            if change < 0.2:
                asked.ends = {"SUCCEEDED", "CANCELLED"}
                self._cancelled(asked)
                changes.clear()
                return
            request, at = str(uuid.uuid4()), None if change < 0.4 else self._soon(1.0)
            override = "it cannot wait" if change > 0.8 else ""
            try:
                for _ in range(1 + (self._random.random() < 0.3)):
                    self._told(
                        lambda: self._client.reschedule(
                            asked.run, at, override_reason=override, request_id=request
                        )
                    )
            except (FailedPrecondition, InvalidArgument) as error:
                sent = error.reason == ErrorReason.ERROR_REASON_RUN_NOT_SCHEDULABLE  # its import, meanwhile
                if not sent and not self._too_far(error):
                    raise
            else:
                self._record.count("runs given another time")

        self._ends(asked, meet)

    def _blocked(self, side: str, pipeline: str) -> None:
        """What is to be approved is blocked meanwhile; afterwards it may go on where that is taken back."""
        artifact = self._upload(self._package(f"Bad{self._number}", managed=True))
        asked = self._deploy(
            side, GATED, self._all({"FAILED ARTIFACT_BLOCKED"}), artifact=artifact.name, stage="qa"
        )
        done: list[bool] = []

        def meet(asked: Asked, run: Run) -> None:
            if not done:
                time.sleep(self._random.uniform(0, 0.3))
                self._block(artifact)
                done.append(True)
            # That comes too late, or at the same time.
            self._approve(asked, self._told(lambda: self._client.run(asked.run)), late=True)

        if self._ends(asked, meet).error.code != "ARTIFACT_BLOCKED":
            return
        if self._random.random() < 0.5:
            return
        self._told(lambda: self._client.unblock(artifact.name, reason="it was another one"))
        asked.ends = self._all({"SUCCEEDED"})
        self._retry(asked)
        self._ends(asked, self._approve)

    def _blocked_in_time(self, side: str, pipeline: str) -> None:
        """An artifact is blocked while it is on its way: it arrives, or it does not."""
        artifact = self._upload(self._package(f"Late{self._number}", managed=True))
        asked = self._deploy(
            side, pipeline, {"SUCCEEDED", "FAILED ARTIFACT_BLOCKED"}, artifact=artifact.name, stage="qa"
        )
        time.sleep(self._random.random() ** 2)
        self._block(artifact)
        self._ends(asked)
        try:
            again = self._deploy(side, pipeline, set(), artifact=artifact.name, stage="production")
        except FailedPrecondition as error:
            if "ARTIFACT_BLOCKED" not in {v.code for v in error.violations}:
                raise
        else:
            self._record.violated(f"{again.run} was accepted, and its artifact is blocked")

    # What people do with runs that wait.

    def _approve(self, asked: Asked, run: Run, *, late: bool = False) -> bool:
        """Let one of those who may say yes to what a run asks now; others and the requester try, too.

        Returns:
            Whether that was taken; otherwise nothing was asked, or not any more where it may be ``late``.
        """
        status = _asks(run)
        if status is None:
            return False
        already = {_short(decision.principal) for decision in status.decisions}
        left = [name for a in status.gate.approvers if (name := _short(a)) not in {*already, REQUESTER}]
        if not left:  # it was read between the last approval and what comes of it
            return False
        if self._random.random() < 0.3:
            time.sleep(self._random.uniform(0, 0.6))
        if self._random.random() < 0.15:
            self._in_vain(run, status, self._client)
        if already and self._random.random() < 0.3:
            self._in_vain(run, status, self._world.approvers[min(already)])
        try:
            self._decides(run, status, self._random.choice(left), yes=True)
        except FailedPrecondition as error:
            late = late or self._world.clock.jumps
            if not late or error.reason != ErrorReason.ERROR_REASON_GATE_NOT_WAITING:
                raise
            return False
        return True

    def _reject(self, asked: Asked, run: Run) -> None:
        """Let one of those who may say no."""
        if (status := _asks(run)) is not None:
            time.sleep(self._random.uniform(0, 0.5))
            who = _short(self._random.choice(status.gate.approvers))
            try:
                self._decides(run, status, who, yes=False)
            except FailedPrecondition:
                if not self._world.clock.jumps:
                    raise

    def _decides(self, run: Run, status: GateStatus, who: str, *, yes: bool) -> None:
        """A decision, with one request_id however often it is sent."""
        client, request_id = self._world.approvers[who], str(uuid.uuid4())
        yea = ApproveRequest(
            name=run.name, gate=status.kind, bound_sha256=status.bound_sha256, request_id=request_id
        )
        nay = RejectRequest(name=run.name, gate=status.kind, comment="not like that", request_id=request_id)

        def send() -> Run:
            told = client._call(client._host.Approve, yea) if yes else client._call(client._host.Reject, nay)
            assert isinstance(told, Run)
            return told

        told = self._told(send)
        self._record.decide(Decided(run.name, status.kind, who, yes))
        if self._random.random() < 0.25:
            time.sleep(self._random.uniform(0, 1.5))
            if (again := self._told(send)) != told:
                self._record.violated(f"a decision about {run.name} sent twice gave {told} and then {again}")

    def _in_vain(self, run: Run, status: GateStatus, client: Client) -> None:
        """Somebody who asked for the run, or who has approved it already, approves it."""
        try:
            self._told(lambda: client.approve(run.name))
        except (FailedPrecondition, PermissionDenied):
            self._record.count("approvals that nobody may give, refused")
        else:
            self._record.violated(f"{run.name}: {status.gate} was approved by who may not")

    def _block(self, artifact: Artifact) -> None:
        self._told(lambda: self._client.block(artifact.name, reason="it deletes orders"))
        self._record.count("artifacts blocked")

    def _soon(self, share: float) -> datetime | None:
        """A time in some seconds by the host's clock, for so great a share of all runs."""
        if self._random.random() >= share:
            return None
        at = self._world.clock.now() / 10**9 + self._random.uniform(0.5, 3.0)
        return datetime.fromtimestamp(at, UTC)

    def _too_far(self, error: PipelineHostError) -> bool:
        """Whether a time lies far ahead, because the clock has jumped back since it was chosen."""
        return self._world.clock.jumps and "days ahead" in error.message

    def _all(self, ends: set[str]) -> set[str]:
        """With what becomes of a run that waits for people while the clock jumps."""
        return ends | ({"EXPIRED GATE_EXPIRED", "CANCELLED"} if self._world.clock.jumps else set())

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
        schedule_time: datetime | None = None,
        loss: str = "",
    ) -> Asked:
        name = f"pipelines/{side}-{pipeline}"
        full = f"{name}/stages/{stage}" if stage else ""
        request = str(uuid.uuid4())
        wanted: Deployment = {
            "stage": full,
            "solution": solution,
            "artifact": artifact,
            "settings": settings or DeploymentSettings(),
            "request_id": request,
            "loss_sha256": loss,
        }
        if schedule_time is not None:
            wanted["schedule_time"] = schedule_time
        if self._random.random() < 0.1:
            wanted["override_reason"] = "it cannot wait"
        ends = {"SUCCEEDED"} if ends is None else ends
        return self._accepted(
            lambda: self._client.deploy(name, **wanted),
            side,
            self._all(ends) if pipeline in (GATED, HASTY) else ends,
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
                frozen = {v.code for v in error.violations} == {"STAGE_FROZEN"}
                if not (frozen or passing(error)) or time.monotonic() > ends:
                    raise
                self._record.count("deployments refused by a freeze" if frozen else "calls repeated by hand")
                time.sleep(0.1)

    def _ends(self, asked: Asked, meet: Callable[[Asked, Run], object] | None = None) -> Run:
        """The run at its end; one that failed because its environment was killed is retried.

        Args:
            asked: the run.
            meet: does what the run needs of others; called whenever that may have changed.
        """
        while True:
            run = self._watch(asked, meet)
            if asked.side == INSIDE or run.state != Run.STATE_FAILED or run.error.code not in _BROKEN:
                return run
            self._record.count("runs that failed with their environment")
            self._retry(asked)

    def _watch(self, asked: Asked, meet: Callable[[Asked, Run], object] | None) -> Run:
        name = asked.run
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
            if meet is not None and (update.HasField("run") or update.event.kind in _MEETING):
                now = self._told(lambda: self._client.run(name))
                if now.state in (Run.STATE_AWAITING_GATE, Run.STATE_SCHEDULED):
                    meet(asked, now)
        assert run is not None
        watched.upto = run.revision
        self._record.watch(watched)
        return run


def _asks(run: Run) -> GateStatus | None:
    """The gate that a run waits at."""
    if run.state != Run.STATE_AWAITING_GATE:
        return None
    return next((s for s in run.gates if s.state == GateStatus.STATE_WAITING), None)


def _short(principal: str) -> str:
    return principal.rpartition("/")[2]
