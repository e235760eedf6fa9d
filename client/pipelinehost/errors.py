"""The exceptions of PipelineHost: what a refused call raises in a client, and what the host's rules raise.

Each class stands for one canonical gRPC status code; ``reason`` says precisely why. The mapping to and from
``google.rpc.Status`` is :mod:`pipelinehost.status`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipelinehost.v1.errors_pb2 import ErrorReason


class Violation(NamedTuple):
    """One of the things that are wrong with a request, or that stand in its way."""

    subject: str
    """Path of the field (``pipeline.stages[1].environment``), or name of the resource."""
    description: str
    """What is wrong with it, and what to do."""
    code: str = ""
    """Reason name, where it is a precondition rather than a field."""


class PipelineHostError(Exception):
    """Base of all errors of PipelineHost.

    Args:
        reason: why, from the published list.
        message: what happened, naming the thing.
        remedy: what to do next.
        violations: everything that is wrong, where more than one thing can be.
        metadata: further facts, e.g. ``resource``.
    """

    def __init__(
        self,
        reason: ErrorReason,
        message: str,
        *,
        remedy: str = "",
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.remedy = remedy
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})

    @property
    def reason_name(self) -> str:
        """The reason without its prefix, e.g. ``STAGE_OUT_OF_ORDER``; also one that only the host knows."""
        return self.metadata.get("reason") or reason_name(self.reason)


def reason_name(reason: ErrorReason) -> str:
    """The name of a reason as people read it: without the prefix that Protocol Buffers ask for."""
    return ErrorReason.Name(reason).removeprefix("ERROR_REASON_")


class InvalidArgument(PipelineHostError):
    """The request is wrong whatever the state of the host; ``violations`` lists every field."""


class Unauthenticated(PipelineHostError):
    """The host does not know who is calling."""


class PermissionDenied(PipelineHostError):
    """The caller may not do this."""


class NotFound(PipelineHostError):
    """There is no such thing, or none that the caller may see."""


class AlreadyExists(PipelineHostError):
    """A thing of this name exists already."""


class Aborted(PipelineHostError):
    """Somebody else changed the thing in the meantime; read it again and repeat."""


class FailedPrecondition(PipelineHostError):
    """The state of the host or of an environment forbids it; ``violations`` lists everything that does."""


class OutOfRange(PipelineHostError):
    """A resume token that this run cannot go on from."""


class ResourceExhausted(PipelineHostError):
    """A limit is reached, or the host's disk is full."""


class Unavailable(PipelineHostError):
    """The host, or an environment, cannot be reached now; repeating may help."""


class DeadlineExceeded(PipelineHostError):
    """There was no answer in time. What was asked for may have been done."""


class Cancelled(PipelineHostError):
    """The caller gave up, or the connection was closed."""


class DataLoss(PipelineHostError):
    """Stored bytes are damaged."""


class Internal(PipelineHostError):
    """A defect of the host; the message holds an incident number that its log knows."""
