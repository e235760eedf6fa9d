"""What people with few rights try in order to get more, against a running host."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.rpc.conftest import DEVELOPMENT, Bed, package, parts, pipeline

from pipelinehost import errors
from pipelinehost.v1 import artifacts_pb2 as artifacts_api
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import (
    Connection,
    Environment,
    Gate,
    Pipeline,
    Principal,
    Run,
    Share,
    SignIn,
    Stage,
)
from pipelinehost_server.api import artifacts, guard

SALES = "pipelines/sales"


class Town(Bed):
    """Ada owns the pipeline sales; Mallory is a maker too, with environments of her own and nothing else."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ada, self.mallory = self.person("ada", "MAKER"), self.person("mallory", "MAKER")
        self.environment("dev", DEVELOPMENT, makers=["principals/ada"])
        self.environment("qa", makers=["principals/ada"])
        self.environment("hut", DEVELOPMENT, makers=["principals/mallory"])
        self.environment("lab", makers=["principals/mallory"])
        self.pipeline(owner="principals/ada")

    def deployed(self, content: bytes, *, pipeline: str = SALES, token: str | None = None) -> Run:
        artifact = self.call("UploadArtifact", iter(parts(content)), token=token)
        request = api.DeployRequest(pipeline=pipeline, artifact=artifact.name)
        return self.until(self.call("Deploy", request, token=token))

    def exported(self) -> Run:
        """A run of a package that was exported, and so has an unmanaged twin."""
        unmanaged = self.upload(package(managed=False))
        restore = api.RestoreArtifactRequest(artifact=unmanaged.name, environment="environments/dev")
        self.until(self.call("RestoreArtifact", restore))
        request = api.DeployRequest(pipeline=SALES, solution="Sales")
        return self.until(self.call("Deploy", request, token=self.ada))

    def until(self, run: Run, state: Run.State = Run.STATE_SUCCEEDED) -> Run:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            now: Run = self.call("GetRun", api.GetRunRequest(name=run.name))
            if now.state == state:
                return now
            time.sleep(0.02)
        raise AssertionError(now)

    def update(self, slug: str, **fields: Any) -> None:
        request = api.UpdatePrincipalRequest(principal=Principal(name=f"principals/{slug}", **fields))
        request.update_mask.paths.extend(fields)
        self.call("UpdatePrincipal", request)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    bed = Town(tmp_path / "data")
    yield bed
    bed.close()


def lab(slug: str = "sales", **fields: Any) -> Pipeline:
    """A pipeline that Mallory may create."""
    stage = Stage(name=f"pipelines/{slug}/stages/qa", environment="environments/lab")
    fields.setdefault("development_environments", [])
    return pipeline(slug, stages=[stage], **fields)


def test_the_name_of_a_deleted_pipeline_gives_nobody_its_runs(town: Town) -> None:
    run = town.deployed(package(), token=town.ada)
    town.call("DeletePipeline", api.DeletePipelineRequest(name=SALES), token=town.ada)
    with pytest.raises(errors.AlreadyExists):
        town.call("CreatePipeline", api.CreatePipelineRequest(pipeline=lab()), token=town.mallory)
    with pytest.raises(errors.NotFound):
        town.call("GetRun", api.GetRunRequest(name=run.name), token=town.mallory)
    request = artifacts_api.DownloadArtifactRequest(name=run.artifact)
    with pytest.raises(errors.NotFound):
        town.call("DownloadArtifact", request, token=town.mallory)
    assert not town.call("ListEvents", api.ListEventsRequest(), token=town.mallory).events


def test_who_owned_a_deleted_pipeline_and_administrators_use_its_name_again(town: Town) -> None:
    for token in (town.ada, None):
        town.call("DeletePipeline", api.DeletePipelineRequest(name=SALES))
        again = pipeline(owner="principals/ada")
        town.call("CreatePipeline", api.CreatePipelineRequest(pipeline=again), token=token)


def test_who_has_the_managed_package_does_not_get_the_unmanaged_one(town: Town) -> None:
    """The managed package goes to customers; its twin is what makers work on."""
    run = town.exported()
    managed = b"".join(
        r.chunk
        for r in town.call("DownloadArtifact", artifacts_api.DownloadArtifactRequest(name=run.artifact))
    )
    town.call("UploadArtifact", iter(parts(managed)), token=town.mallory)
    source = artifacts_api.DownloadArtifactRequest(name=run.artifact, source=True)
    with pytest.raises(errors.PermissionDenied):
        town.call("DownloadArtifact", source, token=town.mallory)
    restore = api.RestoreArtifactRequest(artifact=run.artifact, environment="environments/hut")
    with pytest.raises(errors.PermissionDenied):
        town.call("RestoreArtifact", restore, token=town.mallory)
    # Not through a run of her own either: the package in it is the one that she has uploaded.
    town.call("CreatePipeline", api.CreatePipelineRequest(pipeline=lab("mine")), token=town.mallory)
    town.deployed(managed, pipeline="pipelines/mine", token=town.mallory)
    with pytest.raises(errors.PermissionDenied):
        town.call("DownloadArtifact", source, token=town.mallory)
    with pytest.raises(errors.PermissionDenied):
        town.call("RestoreArtifact", restore, token=town.mallory)
    assert town.call("DownloadArtifact", source, token=town.ada)


@pytest.fixture
def trusted(town: Town) -> tuple[Run, Callable[[], None]]:
    """A run whose unmanaged package Mallory may have as a maker of dev, and what takes that from her."""
    run = town.exported()
    request = artifacts_api.DownloadArtifactRequest(name=run.artifact)
    managed = b"".join(r.chunk for r in town.call("DownloadArtifact", request))
    town.call("UploadArtifact", iter(parts(managed)), token=town.mallory)
    dev = Environment(name="environments/dev", makers=["principals/ada", "principals/mallory"])

    def update() -> None:
        change = api.UpdateEnvironmentRequest(environment=dev)
        change.update_mask.paths.append("makers")
        town.call("UpdateEnvironment", change)

    update()
    dev.makers.pop()
    return run, update


def test_a_download_of_the_unmanaged_package_ends_with_the_right_to_it(
    town: Town, trusted: tuple[Run, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lose = trusted
    real, going_on = artifacts._Package.read, threading.Event()
    monkeypatch.setattr(artifacts, "CHUNK", 200)

    def slowly(package: Any) -> bytes:
        if package.digest.digest() != hashlib.sha256().digest():
            assert going_on.wait(10)
        return real(package)

    monkeypatch.setattr(artifacts._Package, "read", slowly)
    source = artifacts_api.DownloadArtifactRequest(name=run.artifact, source=True)
    stream = town.stream("DownloadArtifact", source, token=town.mallory)
    assert next(stream).declaration.size > 400
    lose()
    going_on.set()
    with pytest.raises(grpc.RpcError) as ended:
        list(stream)
    assert ended.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_restore_needs_the_right_to_the_unmanaged_package_when_the_job_runs(
    town: Town, trusted: tuple[Run, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = trusted
    real = town.store.write
    dev = town.call("GetEnvironment", api.GetEnvironmentRequest(name="environments/dev"))
    del dev.makers[:]

    async def overtaken(job: Any) -> Any:
        monkeypatch.undo()
        await real(lambda tx: tx.put_environment(dev))
        return await real(job)

    monkeypatch.setattr(town.store, "write", overtaken)
    restore = api.RestoreArtifactRequest(artifact=run.artifact, environment="environments/hut")
    with pytest.raises(errors.PermissionDenied, match="unmanaged package"):
        town.call("RestoreArtifact", restore, token=town.mallory)


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_an_upload_ends_with_the_token_that_it_came_with(how: str, town: Town) -> None:
    request = api.CreateTokenRequest(principal="principals/ada")
    if how == "expired":
        request.expire_time.FromNanoseconds(time.time_ns() + 700_000_000)
    made = town.call("CreateToken", request)

    def slowly() -> Iterator[Any]:
        first, *rest = parts(package("7.0.0.0"))
        yield first
        if how == "revoked":
            town.call("RevokeToken", api.RevokeTokenRequest(name=made.token.name))
        else:
            time.sleep(0.8)
        yield from rest

    with pytest.raises(errors.Unauthenticated):
        town.call("UploadArtifact", slowly(), token=made.secret)
    assert not town.call("ListArtifacts", artifacts_api.ListArtifactsRequest()).artifacts


def test_a_stream_ends_when_its_token_expires(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_SWEEP_SECONDS", 0.1)
    request = api.CreateTokenRequest(principal="principals/admin")
    request.expire_time.FromNanoseconds(time.time_ns() + 700_000_000)
    stream = town.stream(
        "WatchEvents", api.WatchEventsRequest(), token=town.call("CreateToken", request).secret, timeout=5
    )
    with pytest.raises(grpc.RpcError) as ended:
        list(stream)
    assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED


MAIL = Connection(
    name="environments/qa/connections/mail", connector_id="/providers/Microsoft.PowerApps/apis/shared_sql"
)
WAITS: dict[str, tuple[str, Any]] = {
    "create": (
        "CreateConnection",
        api.CreateConnectionRequest(environment="environments/qa", connection=MAIL),
    ),
    "delete": ("DeleteConnection", api.DeleteConnectionRequest(name=MAIL.name)),
    "take": ("TakeOverEnvironment", api.TakeOverEnvironmentRequest(name="environments/far", reason="mine")),
}


@pytest.mark.parametrize("what", WAITS)
def test_who_loses_the_right_while_waiting_their_turn_does_nothing(
    what: str, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of these calls at a time is with an environment; others wait, for minutes where that is slow."""
    eve = town.person("eve", "ADMINISTRATOR")
    town.environment("far", url="http://127.0.0.1:1")
    if what == "delete":
        town.call(*WAITS["create"])
    environments, going_on = town.host._environments, threading.Event()
    assert environments is not None
    begun, asked = threading.Event(), list[str]()

    async def slow(*arguments: Any) -> Connection:
        asked.append(str(arguments))
        begun.set()
        await asyncio.to_thread(going_on.wait, 10)
        return Connection(name="environments/lab/connections/other")

    for method in ("create_connection", "delete_connection", "take_over"):
        monkeypatch.setattr(environments, method, slow)
    other = api.CreateConnectionRequest(
        environment="environments/lab", connection=Connection(connector_id="x")
    )
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(town.call, "CreateConnection", other)
        assert begun.wait(10)
        second = threads.submit(town.call, *WAITS[what], token=eve)
        time.sleep(0.3)
        town.update("eve", role=Principal.ROLE_MAKER)
        going_on.set()
        first.result(10)
        with pytest.raises(errors.PermissionDenied):
            second.result(10)
    assert len(asked) == 1


CREATES: dict[str, dict[str, Any]] = {
    "for somebody else": {"owner": "principals/ada", "development_environments": []},
    "in others' environments": {},
    "with an identity": {
        "stages": [
            Stage(
                name="pipelines/new/stages/qa",
                environment="environments/lab",
                sign_in=SignIn(method=SignIn.METHOD_DEVELOPER),
            )
        ]
    },
}


@pytest.mark.parametrize("what", CREATES)
def test_an_administrator_who_is_none_when_the_job_runs_gets_nothing_of_one(
    what: str, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a maker Mallory may create pipelines, so that her role alone does not end the call."""
    town.update("mallory", role=Principal.ROLE_ADMINISTRATOR)
    wanted = lab("new")
    for field, value in CREATES[what].items():
        wanted.ClearField(field)
        wanted.MergeFrom(Pipeline(**{field: value}))
    if what == "in others' environments":
        wanted.stages[0].environment = "environments/qa"
    real = town.store.write

    async def overtaken(job: Any) -> Any:
        monkeypatch.undo()
        await real(lambda tx: tx.put_principal(maker))
        return await real(job)

    maker = town.call("GetPrincipal", api.GetPrincipalRequest(name="principals/mallory"))
    maker.role = Principal.ROLE_MAKER
    monkeypatch.setattr(town.store, "write", overtaken)
    with pytest.raises((errors.PermissionDenied, errors.InvalidArgument, errors.FailedPrecondition)) as told:
        town.call("CreatePipeline", api.CreatePipelineRequest(pipeline=wanted), token=town.mallory)
    assert "administrator" in told.value.message
    with pytest.raises(errors.NotFound):
        town.call("GetPipeline", api.GetPipelineRequest(name="pipelines/new"))


def gates(*asked: Gate) -> list[Stage]:
    return [Stage(name=f"{SALES}/stages/qa", environment="environments/qa", gates=asked)]


def approve(town: Town, run: Run, token: str) -> Run:
    decided: Run = town.call("Approve", api.ApproveRequest(name=run.name), token=token)
    return decided


@pytest.fixture
def gated(town: Town) -> Town:
    """Two of three have to approve, and then one at the last gate; the third is there by way of a group."""
    for who in ("carl", "dora", "eric"):
        town.person(who)
    team = Principal(name="principals/team", kind=Principal.KIND_GROUP, members=["principals/eric"])
    town.call("CreatePrincipal", api.CreatePrincipalRequest(principal=team))
    three = ["principals/carl", "principals/dora", "principals/team"]
    stages = gates(
        Gate(kind=Gate.KIND_APPROVAL, approvers=three, required=2),
        Gate(kind=Gate.KIND_PRE_DEPLOYMENT, approvers=["principals/dora"]),
    )
    request = api.UpdatePipelineRequest(pipeline=Pipeline(name=SALES, stages=stages))
    request.update_mask.paths.append("stages")
    town.call("UpdatePipeline", request)
    return town


LOST: dict[str, tuple[str, dict[str, Any]]] = {
    "disabled": ("carl", {"disabled": True}),
    "no role": ("carl", {"role": Principal.ROLE_UNSPECIFIED}),
    "out of the group": ("team", {"members": []}),
    "the group": ("team", {"disabled": True}),
}


@pytest.mark.parametrize("lost", LOST)
def test_who_may_not_decide_any_more_has_not_approved(lost: str, gated: Town) -> None:
    run = waiting(gated)
    slug, change = LOST[lost]
    first = gated.tokens["carl"] if slug == "carl" else gated.tokens["eric"]
    other = gated.tokens["eric"] if slug == "carl" else gated.tokens["carl"]
    dora: str = gated.tokens["dora"]
    approve(gated, run, first)
    gated.update(slug, **change)
    now = approve(gated, run, dora)
    assert now.state == Run.STATE_AWAITING_GATE
    assert [d.principal for d in now.gates[0].decisions] == ["principals/dora"]
    approve(gated, run, other)
    end = time.monotonic() + 10
    while len(now.gates) < 2 and time.monotonic() < end:
        now = gated.call("GetRun", api.GetRunRequest(name=run.name))
    assert now.state == Run.STATE_AWAITING_GATE


@pytest.mark.parametrize("lost", LOST)
def test_an_approval_is_void_when_an_approver_may_not_decide_any_more(lost: str, gated: Town) -> None:
    """Until the import is sent: here while the run waits at the next gate."""
    run = waiting(gated)
    slug, change = LOST[lost]
    first = gated.tokens["carl"] if slug == "carl" else gated.tokens["eric"]
    dora: str = gated.tokens["dora"]
    approve(gated, run, first)
    approve(gated, run, dora)
    end = time.monotonic() + 10
    now = run
    while len(now.gates) < 2 and time.monotonic() < end:
        now = gated.call("GetRun", api.GetRunRequest(name=run.name))
    gated.update(slug, **change)
    approve(gated, run, dora)
    time.sleep(0.3)
    now = gated.call("GetRun", api.GetRunRequest(name=run.name))
    assert now.state == Run.STATE_AWAITING_GATE
    assert [d.principal for d in now.gates[0].decisions] == []


def waiting(town: Town, token: str | None = None) -> Run:
    """A run that waits at its first gate."""
    artifact = town.call("UploadArtifact", iter(parts(package())), token=token or town.ada)
    request = api.DeployRequest(pipeline=SALES, artifact=artifact.name)
    run: Run = town.call("Deploy", request, token=token or town.ada)
    return town.until(run, Run.STATE_AWAITING_GATE)


def test_a_pipeline_of_the_same_name_does_not_take_an_old_run_on(gated: Town) -> None:
    """Its owner may neither weaken the gate nor use the target any more, but make another one so called."""
    dora, eric = gated.tokens["dora"], gated.tokens["eric"]
    run = waiting(gated)
    gated.update("ada", role=Principal.ROLE_VIEWER)
    for token in (dora, eric):
        approve(gated, run, token)
    gated.until(run, Run.STATE_FAILED)
    gated.update("ada", role=Principal.ROLE_MAKER)
    request = api.UpdateEnvironmentRequest()
    request.environment.name = "environments/qa"
    request.update_mask.paths.append("makers")
    gated.call("UpdateEnvironment", request)
    gated.environment("shed", makers=["principals/ada"])
    gated.call("DeletePipeline", api.DeletePipelineRequest(name=SALES), token=gated.ada)
    made = pipeline(
        development_environments=[],
        stages=[Stage(name=f"{SALES}/stages/qa", environment="environments/shed")],
    )
    gated.call("CreatePipeline", api.CreatePipelineRequest(pipeline=made), token=gated.ada)
    with pytest.raises(errors.FailedPrecondition) as refused:
        gated.call("RetryRun", api.RetryRunRequest(name=run.name), token=gated.ada)
    assert refused.value.reason_name == "RUN_NOT_RETRYABLE"


@pytest.mark.parametrize("whose", ["requester", "approver"])
def test_another_person_behind_a_service_does_not_make_it_somebody_elses(whose: str, gated: Town) -> None:
    """Between the request and the decision an administrator puts somebody else behind the service."""
    service = {"kind": Principal.KIND_SERVICE, "person": "principals/carl"}
    slug = "build" if whose == "requester" else "robot"
    secret = gated.person(slug, "MAKER", **service)
    request = api.UpdatePipelineRequest(
        pipeline=gated.call("GetPipeline", api.GetPipelineRequest(name=SALES))
    )
    shared = Share(principal=f"principals/{slug}", access=Share.ACCESS_RUN)
    both = [shared, Share(principal="principals/carl", access=Share.ACCESS_RUN)]
    request.pipeline.shares.extend(both)
    if whose == "approver":
        request.pipeline.stages[0].gates[0].approvers.append("principals/robot")
    gated.call("UpdatePipeline", request)
    gated.update("carl", role=Principal.ROLE_USER)
    carl: str = gated.tokens["carl"]
    asks, decides = (secret, carl) if whose == "requester" else (carl, secret)
    run = waiting(gated, asks)
    gated.update(slug, person="principals/dora")
    with pytest.raises(errors.PermissionDenied) as refused:
        approve(gated, run, decides)
    assert refused.value.reason_name == "SELF_APPROVAL"


def test_who_is_gone_leaves_nothing_to_the_next_one_of_that_name(town: Town) -> None:
    """Runs and packages of the first are not shown to the second, and no service gets another person."""
    eve = town.person("eve", "USER")
    town.call("UploadArtifact", iter(parts(package())), token=eve)
    town.person("zoe", "USER")
    town.person("build", "USER", kind=Principal.KIND_SERVICE, person="principals/zoe")
    for slug in ("eve", "zoe"):
        with pytest.raises(errors.FailedPrecondition):
            town.call("DeletePrincipal", api.DeletePrincipalRequest(name=f"principals/{slug}"))
    town.deployed(package(), token=town.ada)
    town.call("DeletePipeline", api.DeletePipelineRequest(name=SALES))
    for slug in ("dev", "qa"):
        request = api.UpdateEnvironmentRequest()
        request.environment.name = f"environments/{slug}"
        request.update_mask.paths.append("makers")
        town.call("UpdateEnvironment", request)
    with pytest.raises(errors.FailedPrecondition):
        town.call("DeletePrincipal", api.DeletePrincipalRequest(name="principals/ada"))
    town.call("DeletePrincipal", api.DeletePrincipalRequest(name="principals/build"))
    town.call("DeletePrincipal", api.DeletePrincipalRequest(name="principals/zoe"))


def test_only_a_development_environment_is_exported_from(town: Town) -> None:
    """A target holds what nobody may take out of it, and the host's identity could."""
    installed = api.DescribeSolutionRequest.Installed(environment="environments/qa", solution="Sales")
    with pytest.raises(errors.FailedPrecondition) as refused:
        town.call("DescribeSolution", api.DescribeSolutionRequest(installed=installed), token=town.ada)
    assert refused.value.reason_name == "ENVIRONMENT_KIND"


def test_foreign_names_in_requests_about_what_is_ones_own(town: Town) -> None:
    """Hidden is answered as absent is, whichever field names it."""
    run = town.deployed(package(), token=town.ada)
    town.call("CreatePipeline", api.CreatePipelineRequest(pipeline=lab("mine")), token=town.mallory)
    own = town.call("UploadArtifact", iter(parts(package("3.0.0.0"))), token=town.mallory).name
    none = "artifacts/" + "0" * 64
    mine, stage = "pipelines/mine", "pipelines/mine/stages/qa"
    foreign = f"{SALES}/stages/qa"
    installed = api.DescribeSolutionRequest.Installed
    asked: list[tuple[str, Any, Any]] = []

    def both(method: str, build: Any, hidden: str, absent: str) -> None:
        asked.append((method, build(hidden), build(absent)))

    def described(name: str) -> api.DescribeSolutionRequest:
        return api.DescribeSolutionRequest(installed=installed(environment=name, solution="Sales"))

    def moved(name: str) -> api.UpdatePipelineRequest:
        request = api.UpdatePipelineRequest(pipeline=lab("mine"))
        request.pipeline.stages[0].environment = name
        return request

    def created(name: str) -> api.CreatePipelineRequest:
        return api.CreatePipelineRequest(pipeline=lab("other", development_environments=[name]))

    def validate(name: str) -> api.ValidateDeploymentRequest:
        return api.ValidateDeploymentRequest(deployment=api.DeployRequest(pipeline=mine, artifact=name))

    both("Deploy", lambda n: api.DeployRequest(pipeline=mine, artifact=n), run.artifact, none)
    both(
        "Deploy",
        lambda n: api.DeployRequest(pipeline=mine, stage=n, artifact=own),
        foreign,
        "pipelines/none/stages/qa",
    )
    both(
        "Deploy",
        lambda n: api.DeployRequest(pipeline=mine, solution="Sales", development_environment=n),
        "environments/dev",
        "environments/none",
    )
    both("ValidateDeployment", validate, run.artifact, none)
    both(
        "DescribeSolution",
        lambda n: api.DescribeSolutionRequest(artifact=own, stage=n),
        foreign,
        "pipelines/none/stages/qa",
    )
    both("DescribeSolution", described, "environments/dev", "environments/none")
    both(
        "RestoreArtifact",
        lambda n: api.RestoreArtifactRequest(artifact=own, environment=n),
        "environments/dev",
        "environments/none",
    )
    both(
        "RestoreArtifact",
        lambda n: api.RestoreArtifactRequest(artifact=n, environment="environments/hut"),
        run.artifact,
        none,
    )
    both("UpdatePipeline", moved, "environments/qa", "environments/none")
    both("CreatePipeline", created, "environments/dev", "environments/none")
    both("ListRuns", lambda n: api.ListRunsRequest(filter=f'pipeline = "{n}"'), SALES, "pipelines/none")
    both(
        "ListPipelines",
        lambda n: api.ListPipelinesRequest(filter=f'environment = "{n}"'),
        "environments/qa",
        "environments/none",
    )
    both("ListEvents", lambda n: api.ListEventsRequest(filter=f'subject = "{n}"'), SALES, "pipelines/none")
    for name in ("run", "pipeline"):
        hidden, absent = {
            "run": (run.name, "runs/01jd0000000000000000000001"),
            "pipeline": (SALES, "pipelines/none"),
        }[name]
        both("CancelRun", lambda n: api.CancelRunRequest(name=n), hidden, absent)
        both("WatchRun", lambda n: api.WatchRunRequest(name=n), hidden, absent)
        both("Approve", lambda n: api.ApproveRequest(name=n), hidden, absent)
    assert stage
    before = town.snapshot()
    for method, hidden, absent in asked:
        answers = []
        for request in (hidden, absent):
            try:
                answer = repr(town.call(method, request, token=town.mallory))
            except errors.PipelineHostError as error:
                answer = repr((type(error), error.message, error.remedy, error.violations, error.metadata))
            # The long ones first: an id of a run may hold the letters of a short one.
            for name in (
                run.name,
                run.artifact,
                none,
                "runs/01jd" + "0" * 21 + "1",
                "sales",
                "none",
                "dev",
                "qa",
            ):
                answer = answer.replace(name, "…")
            answers.append(answer)
        assert answers[0] == answers[1], method
    assert town.snapshot() == before


def test_an_editor_can_neither_share_nor_take_nor_give(town: Town) -> None:
    shared = Pipeline(name=SALES, shares=[Share(principal="principals/mallory", access=Share.ACCESS_EDIT)])
    request = api.UpdatePipelineRequest(pipeline=shared)
    request.update_mask.paths.append("shares")
    town.call("UpdatePipeline", request)
    read = town.call("GetPipeline", api.GetPipelineRequest(name=SALES), token=town.mallory)
    tricks: list[tuple[Pipeline, list[str]]] = [
        (Pipeline(owner="principals/mallory"), ["owner"]),
        (Pipeline(shares=[]), ["shares"]),
        (Pipeline(shares=[*shared.shares, *shared.shares]), ["shares"]),
        (Pipeline(owner="principals/mallory", stages=read.stages), []),
        (Pipeline(owner="principals/mallory", stages=read.stages), ["*"]),
        (Pipeline(owner="principals/mallory"), ["stages.environment", "owner"]),
        (Pipeline(name="pipelines/other"), ["name"]),
        (Pipeline(etag=read.etag), ["etag", "owner.x"]),
    ]
    before = town.snapshot()
    for fields, paths in tricks:
        trick = Pipeline(name=SALES)
        trick.MergeFrom(fields)
        request = api.UpdatePipelineRequest(pipeline=trick)
        request.update_mask.paths.extend(paths)
        with pytest.raises((errors.PermissionDenied, errors.InvalidArgument, errors.NotFound)):
            town.call("UpdatePipeline", request, token=town.mallory)
    assert town.snapshot() == before
