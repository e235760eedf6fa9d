"""The one table between the exceptions and ``google.rpc.Status``; client and host both use it.

A status carries ``google.rpc.ErrorInfo`` (domain ``pipelinehost``, the reason without its prefix, the remedy
in its metadata) and, where there are violations, ``google.rpc.BadRequest`` for a wrong request or
``google.rpc.PreconditionFailure`` for anything that the state of the host forbids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2

from pipelinehost.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    PipelineHostError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Violation,
    reason_name,
)
from pipelinehost.v1.errors_pb2 import ErrorReason

if TYPE_CHECKING:  # grpc takes 0.2 s to import, and nothing here needs it
    import grpc

_Detail: TypeAlias = (
    error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.PreconditionFailure
)

DOMAIN = "pipelinehost"
"""``ErrorInfo.domain`` of every error of ours."""

STATUS_DETAILS = "grpc-status-details-bin"
"""The trailing metadata that carries a serialized ``google.rpc.Status``."""

CODES: dict[type[PipelineHostError], int] = {
    InvalidArgument: code_pb2.INVALID_ARGUMENT,
    Unauthenticated: code_pb2.UNAUTHENTICATED,
    PermissionDenied: code_pb2.PERMISSION_DENIED,
    NotFound: code_pb2.NOT_FOUND,
    AlreadyExists: code_pb2.ALREADY_EXISTS,
    Aborted: code_pb2.ABORTED,
    FailedPrecondition: code_pb2.FAILED_PRECONDITION,
    OutOfRange: code_pb2.OUT_OF_RANGE,
    ResourceExhausted: code_pb2.RESOURCE_EXHAUSTED,
    Unavailable: code_pb2.UNAVAILABLE,
    DeadlineExceeded: code_pb2.DEADLINE_EXCEEDED,
    Cancelled: code_pb2.CANCELLED,
    DataLoss: code_pb2.DATA_LOSS,
    Internal: code_pb2.INTERNAL,
}
"""The table: every exception and its canonical code."""

# At run time a Protocol Buffers enum value is an int; only the type checker sees an ErrorReason.
_REASONS = {reason_name(reason): reason for reason in cast("list[ErrorReason]", ErrorReason.values())}
_CLASSES = {code: kind for kind, code in CODES.items()}

# What to say about errors that grpc made without the host: no details came with them.
_BARE_REMEDIES: dict[int, str] = {
    code_pb2.UNAVAILABLE: "Check the address and that the host is running, then repeat the call.",
    code_pb2.DEADLINE_EXCEEDED: "See whether it was done before you repeat it, or allow more time.",
    code_pb2.UNIMPLEMENTED: "The host is older than this client, or it is no PipelineHost.",
    code_pb2.UNAUTHENTICATED: "Give the client a token of this host.",
    code_pb2.RESOURCE_EXHAUSTED: "Ask for less at once, or wait and repeat.",
}
_BARE_REASONS: dict[int, ErrorReason] = {
    code_pb2.UNAVAILABLE: ErrorReason.ERROR_REASON_HOST_UNAVAILABLE,
    code_pb2.RESOURCE_EXHAUSTED: ErrorReason.ERROR_REASON_LIMIT_EXCEEDED,
    code_pb2.INTERNAL: ErrorReason.ERROR_REASON_INTERNAL,
    code_pb2.PERMISSION_DENIED: ErrorReason.ERROR_REASON_PERMISSION_DENIED,
}

# A peer refuses trailers of more than 8 KiB unless it was told otherwise (grpc.max_metadata_size), and then
# the caller sees RESOURCE_EXHAUSTED in place of the error. Base64 adds a third; the message travels twice.
_STATUS_BYTES = 4_800
_MESSAGE_CHARACTERS = 600
_REMEDY_CHARACTERS = 600
_VALUE_CHARACTERS = 200
_DESCRIPTION_CHARACTERS = 400
_VIOLATIONS = 50
"""More are counted, not listed; fitting thousands of them into a trailer would take a second."""


def to_status(error: PipelineHostError) -> status_pb2.Status:
    """The status that says what ``error`` says.

    Long texts are shortened, and violations that do not fit into a trailer that every client accepts are
    counted in the last one that does.
    """
    status = status_pb2.Status(code=_code(type(error)), message=_short(error.message, _MESSAGE_CHARACTERS))
    info = error_details_pb2.ErrorInfo(reason=error.reason_name, domain=DOMAIN)
    for key, value in error.metadata.items():
        info.metadata[key] = _short(value, _VALUE_CHARACTERS)
    if error.remedy:
        info.metadata["remedy"] = _short(error.remedy, _REMEDY_CHARACTERS)
    _pack(status, info)
    if error.violations:
        _pack_violations(status, error)
    return status


def from_status(status: status_pb2.Status) -> PipelineHostError:
    """The exception that ``status`` stands for.

    A code, a reason or a detail that this version does not know still gives a typed exception: its ``reason``
    is then unspecified and ``metadata["reason"]`` holds the name that was sent.
    """
    reason = ErrorReason.ERROR_REASON_UNSPECIFIED
    metadata: dict[str, str] = {}
    violations: list[Violation] = []
    informed = False
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        wrong = error_details_pb2.BadRequest()
        forbidden = error_details_pb2.PreconditionFailure()
        if _unpack(detail, info) and info.domain == DOMAIN:
            informed = True
            metadata.update(info.metadata)
            known = _REASONS.get(info.reason)
            if known is not None:
                reason = known
            else:
                metadata["reason"] = info.reason
        elif _unpack(detail, wrong):
            violations += [Violation(v.field, v.description, v.reason) for v in wrong.field_violations]
        elif _unpack(detail, forbidden):
            violations += [Violation(v.subject, v.description, v.type) for v in forbidden.violations]
    remedy = metadata.pop("remedy", "")
    if not informed:
        reason = _BARE_REASONS.get(status.code, reason)
        remedy = _BARE_REMEDIES.get(status.code, "")
    kind = _CLASSES.get(status.code, Internal)
    message = status.message or f"{code_pb2.Code.Name(status.code) if _known(status.code) else status.code}"
    return kind(reason, message, remedy=remedy, violations=violations, metadata=metadata)


def from_rpc_error(error: grpc.RpcError) -> PipelineHostError:
    """The exception that a failed call stands for, whatever its trailers hold."""
    call: object = error
    code = getattr(call, "code", lambda: None)()
    details = getattr(call, "details", lambda: None)() or ""
    trailers = getattr(call, "trailing_metadata", lambda: None)() or ()
    number = code.value[0] if code is not None else code_pb2.UNKNOWN
    for key, value in trailers:
        if key == STATUS_DETAILS:
            status = status_pb2.Status()
            try:
                status.ParseFromString(value)
            except Exception:  # noqa: BLE001, S112 - protobuf's DecodeError and TypeError: as if it were absent
                continue
            if status.code == number:
                return from_status(status)
    return from_status(status_pb2.Status(code=number, message=details))


def _code(kind: type[PipelineHostError]) -> int:
    for base in kind.__mro__:
        if base in CODES:
            return CODES[base]
    return code_pb2.UNKNOWN


def _known(code: int) -> bool:
    return code in code_pb2.Code.values()


def _pack(status: status_pb2.Status, message: _Detail) -> None:
    status.details.add().Pack(message)


def _unpack(detail: AnyMessage, into: _Detail) -> bool:
    try:
        return detail.Unpack(into)
    except Exception:  # noqa: BLE001 - protobuf's DecodeError: a detail that cannot be read is as good as none
        return False


def _pack_violations(status: status_pb2.Status, error: PipelineHostError) -> None:
    shortened = [
        Violation(
            _short(v.subject, _VALUE_CHARACTERS), _short(v.description, _DESCRIPTION_CHARACTERS), v.code
        )
        for v in error.violations[:_VIOLATIONS]
    ]
    wrong = isinstance(error, InvalidArgument)
    for count in range(len(shortened), 0, -1):
        listed = shortened[:count]
        if count < len(error.violations):
            listed.append(Violation("", f"… and {len(error.violations) - count} more", ""))
        detail = _bad_request(listed) if wrong else _precondition_failure(listed)
        if status.ByteSize() + detail.ByteSize() <= _STATUS_BYTES:
            break
    _pack(status, detail)


def _bad_request(violations: list[Violation]) -> error_details_pb2.BadRequest:
    detail = error_details_pb2.BadRequest()
    for v in violations:
        detail.field_violations.add(field=v.subject, description=v.description, reason=v.code)
    return detail


def _precondition_failure(violations: list[Violation]) -> error_details_pb2.PreconditionFailure:
    detail = error_details_pb2.PreconditionFailure()
    for v in violations:
        detail.violations.add(type=v.code, subject=v.subject, description=v.description)
    return detail


def _short(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
