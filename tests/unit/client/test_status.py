"""The table between exceptions and statuses."""

import subprocess
import sys
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from pipelinehost import errors
from pipelinehost.errors import FailedPrecondition, Internal, InvalidArgument, PipelineHostError, Violation
from pipelinehost.status import CODES, STATUS_DETAILS, from_rpc_error, from_status, to_status
from pipelinehost.v1.errors_pb2 import ErrorReason

REASONS: list[ErrorReason] = ErrorReason.values()  # type: ignore[assignment] # the stub says int


def same(one: PipelineHostError, other: PipelineHostError) -> bool:
    return type(one) is type(other) and vars(one) == vars(other)


class Call(grpc.RpcError):
    """A failed call as grpc raises it."""

    def __init__(self, code: grpc.StatusCode | None, details: str | None, trailers: object = ()) -> None:
        self._answers = (code, details, trailers)

    def code(self) -> grpc.StatusCode:
        return self._answers[0]  # type: ignore[return-value] # what grpc does for a call without an answer

    def details(self) -> str | None:
        return self._answers[1]

    def trailing_metadata(self) -> Any:
        return self._answers[2]


def test_every_exception_has_a_code_of_its_own() -> None:
    classes = {c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, PipelineHostError)}
    assert set(CODES) == classes - {PipelineHostError}
    assert len(set(CODES.values())) == len(CODES)


@pytest.mark.parametrize("kind", CODES)
def test_every_exception_with_every_reason_comes_back_the_same(kind: type[PipelineHostError]) -> None:
    for reason in REASONS:
        error = kind(
            reason,
            "Stage qa is not due.",
            remedy="Deploy to test first.",
            violations=[
                Violation("pipelines/a/stages/qa", "wrong", "STAGE_OUT_OF_ORDER"),
                Violation("a.b", "c"),
            ],
            metadata={"resource": "pipelines/sales"},
        )
        status = to_status(error)
        assert same(from_status(status), error)
        assert same(from_status(status_pb2.Status.FromString(status.SerializeToString())), error)


def test_details_are_of_the_standard_types() -> None:
    violations = [Violation("pipeline.stages[0].environment", "is required")]
    wrong = to_status(InvalidArgument(ErrorReason.ERROR_REASON_INVALID_FIELD, "no", violations=violations))
    info = error_details_pb2.ErrorInfo()
    assert wrong.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("INVALID_FIELD", "pipelinehost")
    assert wrong.details[1].type_url == "type.googleapis.com/google.rpc.BadRequest"
    forbidden = to_status(
        FailedPrecondition(ErrorReason.ERROR_REASON_RESOURCE_IN_USE, "no", violations=violations)
    )
    assert forbidden.details[1].type_url == "type.googleapis.com/google.rpc.PreconditionFailure"


def test_a_status_fits_into_the_trailers_that_every_client_accepts() -> None:
    violations = [Violation(f"reference_{n}" * 40, "ä" * 900, "CODE") for n in range(500)]
    error = FailedPrecondition(
        ErrorReason.ERROR_REASON_INVALID_FIELD, "ü" * 5000, remedy="r" * 5000, violations=violations
    )
    status = to_status(error)
    assert len(status.SerializeToString()) * 4 / 3 + 2 * 600 * 3 < 2 * 8192
    assert len(status.SerializeToString()) <= 4_900
    back = from_status(status)
    assert back.violations[0].code == "CODE"
    assert back.violations[-1].description == f"… and {500 - (len(back.violations) - 1)} more"


def test_a_reason_of_a_newer_host_keeps_its_name() -> None:
    status = status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message="Freeze.")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="MOON_TOO_FULL", domain="pipelinehost"))
    error = from_status(status)
    assert isinstance(error, FailedPrecondition)
    assert error.reason == ErrorReason.ERROR_REASON_UNSPECIFIED
    assert error.reason_name == "MOON_TOO_FULL"


def test_the_info_of_another_domain_is_not_ours() -> None:
    status = status_pb2.Status(code=code_pb2.UNAVAILABLE, message="proxy")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="INTERNAL", domain="example.com"))
    assert from_status(status).reason == ErrorReason.ERROR_REASON_HOST_UNAVAILABLE


def test_details_that_cannot_be_read_are_left_out() -> None:
    status = to_status(InvalidArgument(ErrorReason.ERROR_REASON_INVALID_FIELD, "no"))
    status.details[0].value = b"\xff\xff\xff"
    assert from_status(status).reason == ErrorReason.ERROR_REASON_UNSPECIFIED


@pytest.mark.parametrize("code", grpc.StatusCode)
def test_a_call_without_details_still_gives_a_typed_exception(code: grpc.StatusCode) -> None:
    error = from_rpc_error(Call(code, "broken"))
    number = code.value[0]
    assert CODES[type(error)] == (number if number in CODES.values() else code_pb2.INTERNAL)
    assert error.message == "broken"


@pytest.mark.parametrize("trailers", [None, [], [(STATUS_DETAILS, b"\xff\xff")], [("other", "x")]])
def test_a_call_with_trailers_that_say_nothing(trailers: object) -> None:
    error = from_rpc_error(Call(grpc.StatusCode.UNAVAILABLE, None, trailers))
    assert isinstance(error, errors.Unavailable)
    assert error.message == "UNAVAILABLE"
    assert error.remedy


def test_a_call_with_details_of_another_code_is_judged_by_its_code() -> None:
    inner = to_status(InvalidArgument(ErrorReason.ERROR_REASON_INVALID_FIELD, "no")).SerializeToString()
    error = from_rpc_error(Call(grpc.StatusCode.UNAVAILABLE, "gone", [(STATUS_DETAILS, inner)]))
    assert isinstance(error, errors.Unavailable)


def test_an_error_that_is_no_call() -> None:
    assert isinstance(from_rpc_error(grpc.RpcError()), Internal)


def test_neither_the_exceptions_nor_the_table_import_grpc() -> None:
    code = "import pipelinehost.status, pipelinehost.names, sys; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0
