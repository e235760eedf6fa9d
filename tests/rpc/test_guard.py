"""The guard: identity, permission, shape, time, and what becomes of failures."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.rpc.conftest import Bed, package, pipeline

from pipelinehost import Client, errors
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Environment, Pipeline, Solution
from pipelinehost_server import access
from pipelinehost_server.api import guard
from pipelinehost_server.app import Host
from pipelinehost_server.config import Config
from pipelinehost_server.deployment import Environments

PATHS = {path.rpartition("/")[2]: path for path in access.POLICY}
ALL = sorted(path.rpartition("/")[2] for path in access.POLICY if path.startswith("/pipelinehost.v1."))


def empty_request(bed: Bed, method: str) -> Any:
    descriptor = bed.methods[method]
    request = GetMessageClass(descriptor.input_type)()
    return iter([request]) if descriptor.client_streaming else request


@pytest.mark.usefixtures("unlimited_guesses")
def test_every_rpc_without_a_token_is_refused_and_changes_nothing(bed: Bed) -> None:
    before = bed.snapshot()
    assert set(ALL) == set(bed.methods)
    for method in ALL:
        for send in (bed.call, bed.bridge):
            with pytest.raises(errors.Unauthenticated) as refused:
                send(method, empty_request(bed, method), token="")
            assert refused.value.reason == ErrorReason.ERROR_REASON_TOKEN_MISSING, method
            with pytest.raises(errors.Unauthenticated) as refused:
                send(method, empty_request(bed, method), token="ph_00000000_wrong")
            assert refused.value.reason == ErrorReason.ERROR_REASON_TOKEN_INVALID, method
    assert bed.snapshot() == before


def test_without_a_role_nothing_is_allowed_but_to_look_at_oneself(bed: Bed) -> None:
    nobody = bed.person("nobody", "UNSPECIFIED")
    before = bed.snapshot()
    assert bed.call("GetHost", api.GetHostRequest(), token=nobody).caller == "principals/nobody"
    for method in ALL:
        if access.POLICY[PATHS[method]].permission > access.Permission.SIGNED_IN:
            with pytest.raises(errors.PermissionDenied):
                bed.call(method, empty_request(bed, method), token=nobody)
    assert bed.snapshot() == before


def test_the_token_is_read_from_bearer_metadata_only(bed: Bed) -> None:
    stub = bed.channel.unary_unary(
        "/pipelinehost.v1.PipelineHost/GetHost",
        request_serializer=api.GetHostRequest.SerializeToString,
        response_deserializer=api.Host.FromString,
    )
    assert (
        stub(api.GetHostRequest(), metadata=[("authorization", f"bearer {bed.token}")]).caller
        == "principals/admin"
    )
    for value in (bed.token, f"Basic {bed.token}", "Bearer", "Bearer ", f"Bearer  {bed.token}"):
        with pytest.raises(grpc.RpcError) as refused:
            stub(api.GetHostRequest(), metadata=[("authorization", value)])
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(grpc.RpcError):
        stub(api.GetHostRequest(), metadata=[("token", bed.token)])


def test_an_address_that_tries_tokens_out_has_to_wait_and_locks_nobody_out(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(bed.host._guard, "_guesses", guard.Guesses(lambda: now))
    host, run = api.GetHostRequest(), api.WatchRunRequest(name="runs/" + "0" * 26)

    def tried(method: str = "GetHost", request: Any = host, token: str = "ph_00000000_wrong") -> str:
        try:
            bed.call(method, request, token=token)
        except errors.PipelineHostError as error:
            return f"{type(error).__name__} {error.reason_name}"
        return "answered"

    wrong, wait = "Unauthenticated TOKEN_INVALID", "ResourceExhausted LIMIT_EXCEEDED"
    assert [tried(token=f"guess-{i}") for i in range(18)] == [wrong] * 18
    assert [tried("WatchRun", run), tried("UploadArtifact", iter([]))] == [wrong] * 2
    assert [tried(), tried("WatchRun", run), tried("UploadArtifact", iter([]))] == [wait] * 3
    assert tried(token=bed.token) == "answered"
    assert tried(token="") == "Unauthenticated TOKEN_MISSING"
    with pytest.raises(errors.ResourceExhausted, match=r"127\.0\.0\.1 ") as refused:
        bed.call("GetHost", host, token="wrong")
    assert "wait 60 seconds" in refused.value.remedy
    now += 59
    assert tried() == wait
    now += 1
    assert tried() == wrong


def test_wrong_tokens_are_counted_by_address_in_bounded_memory() -> None:
    now = 0.0
    guesses = guard.Guesses(lambda: now)
    assert [guesses.wrong("a") for _ in range(21)] == [0] * 20 + [60]
    now = 10
    assert (guesses.wrong("a"), guesses.wrong("b")) == (50, 0)
    now = 60
    assert guesses.wrong("a") == 0, "a minute of its own"
    assert [guesses.wrong("b") for _ in range(20)] == [0] * 19 + [10]
    for i in range(20_000):
        guesses.wrong(f"10.0.{i // 256}.{i % 256}")
    assert len(guesses._failed) == 10_000
    assert "b" not in guesses._failed


def test_what_the_host_has_asked_an_environment_in_vain_no_client_asks_anew(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would repeat what has taken its time already, until its own is over, and tell only that."""
    asked = []

    async def solutions(_: Environments, name: str) -> list[Solution]:
        asked.append(name)
        reason = ErrorReason.ERROR_REASON_ENVIRONMENT_UNREACHABLE
        raise errors.Unavailable(reason, "dev could not be reached: connection refused")

    monkeypatch.setattr(Environments, "solutions", solutions)
    with Client(str(bed.host.address), token=bed.token) as client:
        client.create_environment(Environment(name="environments/dev", kind=Environment.KIND_DEVELOPMENT))
        with pytest.raises(errors.Unavailable, match="connection refused"):
            client.solutions("dev")
    assert asked == ["environments/dev"]


@pytest.mark.parametrize("method", ["GetRun", "Watch", "ServerReflectionInfo", "UploadArtifact"])
async def test_a_method_without_a_policy_entry_keeps_the_host_from_starting(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = {path: p for path, p in access.POLICY.items() if not path.endswith(f"/{method}")}
    assert len(rest) == len(access.POLICY) - 1
    monkeypatch.setattr(guard, "POLICY", rest)
    host = Host(Config(folder=tmp_path, address="127.0.0.1:0"), state_file=False)
    with pytest.raises(guard.PolicyIncomplete, match=method):
        await host.start()


def test_the_policy_has_no_entry_for_a_method_that_is_not_served(bed: Bed) -> None:
    served = {f"/{s.full_name}/{m.name}" for s in bed.host.services for m in s.methods}
    assert served == set(access.POLICY)


def test_health_is_public_and_reflection_needs_a_token(bed: Bed) -> None:
    health: Any = health_pb2_grpc.HealthStub(bed.channel)
    for service in ("", "pipelinehost.v1.PipelineHost", "pipelinehost.v1.Artifacts"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as refused:
        health.Check(health_pb2.HealthCheckRequest(service="nothing"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(bed.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    with pytest.raises(grpc.RpcError) as refused:
        list(reflection.ServerReflectionInfo(iter([asked])))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    (answer,) = reflection.ServerReflectionInfo(iter([asked]), metadata=bed.metadata(None))
    assert "pipelinehost.v1.PipelineHost" in {s.name for s in answer.list_services_response.service}


@pytest.mark.parametrize("method", ["GetRun", "CreatePipeline", "WatchRun", "UploadArtifact", "Deploy"])
def test_bytes_that_are_no_message_are_an_invalid_argument(method: str, bed: Bed) -> None:
    for body in (b"\xff\xff\xff", b"\x0a\x02\xff\xfe"):  # no tag; a text that is not UTF-8
        if method == "UploadArtifact" and body[0] == 0x0A:
            continue
        with pytest.raises(errors.InvalidArgument):
            bed.raw(method, body)


def test_all_shape_violations_come_at_once_with_their_paths(bed: Bed) -> None:
    wanted = pipeline(display_name="x" * 201, description="a\x00b")
    wanted.stages[0].settings.environment_variables.add(schema_name="a\nb", value="fine\nhere")
    wanted.stages[0].settings.connection_references.add(logical_name="c", connection_id="i" * 201)
    for send in (bed.call, bed.bridge):
        with pytest.raises(errors.InvalidArgument) as refused:
            send("CreatePipeline", api.CreatePipelineRequest(pipeline=wanted, request_id="r" * 201))
        assert {v.subject for v in refused.value.violations} == {
            "pipeline.display_name",
            "pipeline.description",
            "pipeline.stages[0].settings.environment_variables[0].schema_name",
            "pipeline.stages[0].settings.connection_references[0].connection_id",
            "request_id",
        }
    environment = Environment(name="environments/a", installed_apps={"b\x1b": "1"})
    environment.kind = 77  # type: ignore[assignment]  # an open enum takes any number
    with pytest.raises(errors.InvalidArgument) as refused:
        bed.call("CreateEnvironment", api.CreateEnvironmentRequest(environment=environment))
    assert [v.subject for v in refused.value.violations] == [
        "environment.kind",
        'environment.installed_apps["b\x1b"]',
    ]


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(10**15, 0), (-(10**15), 0), (2 * 10**9, -1), (2 * 10**9, 10**9)]
)
def test_what_is_no_time_is_an_invalid_argument(seconds: int, nanos: int, bed: Bed) -> None:
    at = Timestamp(seconds=seconds, nanos=nanos)
    for method, field, request in (
        ("CreateToken", "expire_time", api.CreateTokenRequest(principal="principals/admin", expire_time=at)),
        ("PruneEvents", "before", api.PruneEventsRequest(before=at)),
        ("RescheduleRun", "schedule_time", api.RescheduleRunRequest(name="runs/x", schedule_time=at)),
    ):
        with pytest.raises(errors.InvalidArgument) as refused:
            bed.call(method, request)
        assert [v.subject for v in refused.value.violations] == [field]


def test_large_requests_are_refused(bed: Bed) -> None:
    many = Pipeline(development_environments=["environments/a"] * 1001)
    with pytest.raises(errors.InvalidArgument, match="1,001 entries"):
        bed.call("CreatePipeline", api.CreatePipelineRequest(pipeline=many))
    large = pipeline()
    for i in range(20):
        large.stages[0].settings.environment_variables.add(schema_name=f"v{i}", value="x" * 60_000)
    with pytest.raises(errors.InvalidArgument, match="bytes"):
        bed.call("CreatePipeline", api.CreatePipelineRequest(pipeline=large))


def test_a_thousand_violations_still_reach_the_caller(bed: Bed) -> None:
    wanted = pipeline(development_environments=[f"Environments/{i}" for i in range(1000)])
    with pytest.raises(errors.InvalidArgument) as refused:
        bed.call("CreatePipeline", api.CreatePipelineRequest(pipeline=wanted))
    assert refused.value.reason == ErrorReason.ERROR_REASON_INVALID_FIELD
    assert "more" in refused.value.violations[-1].description


def test_a_defect_shows_an_incident_and_nothing_else(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(name: str) -> None:
        raise ZeroDivisionError(f"the secret of {name}")

    monkeypatch.setattr(bed.store.reads, "run", broken)
    for send in (bed.call, bed.bridge):
        caplog.clear()
        with caplog.at_level(logging.ERROR), pytest.raises(errors.Internal) as refused:
            send("GetRun", api.GetRunRequest(name="runs/01jd0000000000000000000001"))
        incident = refused.value.metadata["incident"]
        told = f"{refused.value.message}{refused.value.remedy}{refused.value.metadata}"
        assert "secret" not in told
        assert "Zero" not in told
        assert incident in caplog.text
        assert "ZeroDivisionError" in caplog.text


def test_a_defect_in_a_stream_is_told_the_same_way(idle: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(idle.host._deployment, "validate", broken)
    for send in (idle.call, idle.bridge):
        with pytest.raises(errors.Internal) as refused:
            send("ValidateDeployment", api.ValidateDeploymentRequest())
        assert "secret" not in refused.value.message


def test_a_stream_whose_caller_cannot_be_looked_at_again_ends_and_keeps_no_other(
    idle: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = idle.upload(package()).name
    run = idle.call("Deploy", api.DeployRequest(pipeline="pipelines/sales", artifact=artifact))
    request = api.WatchRunRequest(name=run.name)
    streams = [idle.stream("WatchRun", request, timeout=5) for _ in range(3)]
    for stream in streams:
        next(stream)

    def fails(*arguments: object) -> None:
        raise OSError("the disk")

    monkeypatch.setattr(idle.host._guard._access, "still", fails)  # type: ignore[union-attr]  # it has started
    idle.person("dora")
    for stream in streams:
        with pytest.raises(grpc.RpcError):
            for _ in stream:
                pass
        assert stream.code() is grpc.StatusCode.INTERNAL


def test_a_call_without_a_deadline_has_one(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(*_: object) -> list[object]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(bed.host._environments, "solutions", slow)
    limits = {**guard.SECONDS, "ListSolutions": 0.1}
    monkeypatch.setattr(guard, "SECONDS", limits)
    bed.stop()
    bed.start()
    monkeypatch.setattr(bed.host._environments, "solutions", slow)
    for send in (bed.call, bed.bridge):
        with pytest.raises(errors.DeadlineExceeded) as refused:
            send("ListSolutions", api.ListSolutionsRequest(environment="environments/a"))
        assert refused.value.metadata["limit"] == "0.1 seconds"


def test_a_caller_who_leaves_stops_the_work(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def slow(*_: object) -> list[object]:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return []

    monkeypatch.setattr(bed.host._environments, "solutions", slow)
    call = bed.channel.unary_unary("/pipelinehost.v1.PipelineHost/ListSolutions").future(
        api.ListSolutionsRequest(environment="environments/a").SerializeToString(),
        metadata=bed.metadata(None),
    )
    bed.thread.run(asyncio.wait_for(begun.wait(), 10))
    call.cancel()
    bed.thread.run(asyncio.wait_for(ended.wait(), 10))


def test_the_disk_being_full_is_no_defect(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(name: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bed.store.reads, "run", full)
    with pytest.raises(errors.ResourceExhausted) as refused:
        bed.call("GetRun", api.GetRunRequest(name="runs/01jd0000000000000000000001"))
    assert refused.value.metadata["limit"] == "disk"


@pytest.mark.parametrize("method", ["WatchEvents", "Watch"])
def test_a_stream_that_ends_while_its_first_response_is_on_its_way_tells_why(
    idle: Bed, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grpc refuses a status before the end of the write that takes the initial metadata along."""
    whole, began = idle.host._guard._open, []  # type: ignore[union-attr]  # it has started

    def opening(*arguments: Any, **named: Any) -> Any:
        stream = whole(*arguments, **named)

        def end() -> None:
            began.append(stream.beginning)
            stream.end(guard._stopping())

        # Nothing waits between here and the first write, so it is what the next round of the loop finds.
        asyncio.get_running_loop().call_soon(end)
        return stream

    monkeypatch.setattr(idle.host._guard, "_open", opening)
    if method == "Watch":
        health: Any = health_pb2_grpc.HealthStub(idle.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=5)
    else:
        watch = idle.stream(method, api.WatchEventsRequest(), timeout=5)
    with pytest.raises(grpc.RpcError) as ended:
        list(watch)
    assert (ended.value.code(), began) == (grpc.StatusCode.UNAVAILABLE, [True])
    assert ended.value.details() == "the host is stopping"


async def test_a_first_response_that_nobody_takes_is_dropped_without_a_status() -> None:
    gone = ErrorReason.ERROR_REASON_HOST_UNAVAILABLE

    async def write(_: object) -> None:
        await asyncio.Event().wait()

    async def begin() -> None:
        await stream.send(SimpleNamespace(write=write), object())

    task = asyncio.create_task(begin())
    stream = guard._Stream(task, 0, endless=True, foreign=False, recheck=list, expires=0)
    await asyncio.sleep(0)
    stream.end(errors.Unavailable(gone, "first"))
    await asyncio.sleep(0)
    assert not task.done(), "it is on its way, and ends when it has arrived"
    stream.drop(errors.Unavailable(gone, "then"))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stream.beginning
    assert str(stream.why) == "first"
