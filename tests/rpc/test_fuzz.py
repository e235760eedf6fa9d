"""Whatever is sent, the host answers with a reason: never INTERNAL, never UNKNOWN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.rpc.conftest import DEVELOPMENT, Bed, package

from pipelinehost import errors
from pipelinehost.status import from_rpc_error
from pipelinehost.v1 import artifacts_pb2, pipeline_host_pb2
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason

METHODS = [
    m
    for file, service in ((pipeline_host_pb2, "PipelineHost"), (artifacts_pb2, "Artifacts"))
    for m in file.DESCRIPTOR.services_by_name[service].methods
]
KNOWN = {
    "environment": ["environments/dev", "environments/qa", "environments/none"],
    "name": [
        "environments/dev",
        "pipelines/sales",
        "pipelines/sales/stages/qa",
        "environments/qa/connections/a",
    ],
    "pipeline": ["pipelines/sales", "pipelines/none"],
    "stage": ["pipelines/sales/stages/qa", "pipelines/sales/stages/none"],
    "development_environments": ["environments/dev", "environments/qa"],
    "solution": ["Sales", "None"],
    "order_by": ["name", "create_time desc", "sequence"],
    "filter": ['solution = "Sales"', "state = FAILED AND pipeline = a", "kind = TARGET"],
    "paths": ["display_name", "stages", "name", "*"],
}
NASTY = ["", " ", "\0", "../../etc/passwd", "'; drop table run; --", "%s", "é" * 200, "\u202e", "a" * 100_001]


def texts(field: FieldDescriptor, extra: list[str]) -> st.SearchStrategy[str]:
    choices = [st.sampled_from(NASTY), st.text(max_size=30)]
    if known := [*KNOWN.get(field.name, []), *(extra if field.name in {"artifact", "name", "run"} else [])]:
        choices += [st.sampled_from(known)] * 3
    return st.one_of(choices)


def values(field: Any, extra: list[str]) -> st.SearchStrategy[Any]:
    kind = field.type
    if kind == FieldDescriptor.TYPE_MESSAGE:
        return messages(field.message_type, extra)
    if kind == FieldDescriptor.TYPE_ENUM:
        return st.one_of(
            st.sampled_from(list(field.enum_type.values_by_number)), st.integers(-(2**31), 2**31 - 1)
        )
    if kind == FieldDescriptor.TYPE_STRING:
        return texts(field, extra)
    if kind == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=50)
    if kind == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    bits = 63 if kind == FieldDescriptor.TYPE_INT64 else 31
    return st.one_of(st.integers(-2, 60), st.integers(-(2**bits), 2**bits - 1))


def messages(descriptor: Descriptor, extra: list[str]) -> st.SearchStrategy[Any]:
    """Messages of a type, out of what its descriptor tells."""
    kind = GetMessageClass(descriptor)
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for f in descriptor.fields:
        if f.message_type is not None and f.message_type.GetOptions().map_entry:
            key, value = (f.message_type.fields_by_name[n] for n in ("key", "value"))
            fields[f.name] = st.dictionaries(values(key, extra), values(value, extra), max_size=3)
        elif f.is_repeated:
            fields[f.name] = st.lists(values(f, extra), max_size=4)
        else:
            fields[f.name] = values(f, extra)

    def build(given: dict[str, Any]) -> Any:
        seen: set[str] = set()
        kept = {}
        for name, value in given.items():
            oneof = descriptor.fields_by_name[name].containing_oneof
            if oneof is None or oneof.name not in seen:
                kept[name] = value
                if oneof is not None:
                    seen.add(oneof.name)
        return kind(**kept)

    return st.fixed_dictionaries({}, optional=fields).map(build)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bed, list[str]]]:
    bed = Bed(tmp_path_factory.mktemp("fuzz") / "data", advancing=0, upload_idle_seconds=2)
    bed.environment("dev", DEVELOPMENT)
    bed.environment("qa")
    bed.pipeline()
    names = [bed.upload(package()).name, bed.upload(package(managed=False)).name]
    request = api.DeployRequest(
        pipeline="pipelines/sales", stage="pipelines/sales/stages/qa", solution="Sales"
    )
    names.append(bed.call("Deploy", request).name)
    yield bed, names
    bed.close()


ENDLESS = {"WatchRun", "WatchEvents"}


def first(bed: Bed, method: str, request: Any) -> None:
    """The first response of a watch that may have no end."""
    call = bed.stream(method, request, timeout=5)
    try:
        next(call, None)
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
    finally:
        call.cancel()


def first_of_bytes(bed: Bed, method: str, body: bytes) -> None:
    """The same for a request of any bytes."""
    path = f"/pipelinehost.v1.PipelineHost/{method}"
    call = bed.channel.unary_stream(path)(body, metadata=bed.metadata(None), timeout=5)
    try:
        next(call, None)
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
    finally:
        call.cancel()


def judge(call: Callable[[], object]) -> None:
    """Fails where a call ends without an answer and without a reason."""
    try:
        call()
    except errors.PipelineHostError as error:
        refused = error
    else:
        return
    assert not isinstance(refused, errors.Internal), refused  # which UNKNOWN is to a client, too
    assert refused.reason != ErrorReason.ERROR_REASON_UNSPECIFIED, refused
    assert refused.message


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_any_request_gets_an_answer_or_a_reason(method: Any, full: tuple[Bed, list[str]]) -> None:
    bed, names = full

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(messages(method.input_type, names))
    def check(request: Any) -> None:
        if method.name in ENDLESS:
            judge(lambda: first(bed, method.name, request))
        else:
            judge(lambda: bed.call(method.name, iter([request]) if method.client_streaming else request))

    check()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(method=st.sampled_from(METHODS), body=st.binary(max_size=200))
def test_any_bytes_get_an_answer_or_a_reason(full: tuple[Bed, list[str]], method: Any, body: bytes) -> None:
    bed, _ = full
    endless = method.name in ENDLESS
    judge(
        lambda: first_of_bytes(bed, method.name, body) if endless else bed.raw(method.name, body, timeout=10)
    )


def test_the_host_is_well_after_all_that(full: tuple[Bed, list[str]]) -> None:
    bed, _ = full
    assert bed.call("GetHost", api.GetHostRequest()).caller == "principals/admin"
    assert bed.call("ListRuns", api.ListRunsRequest()).runs
