"""A client of PipelineHost, the self-hosted host for Power Platform pipelines.

    from pipelinehost import Client

    with Client("127.0.0.1:50051") as client:
        run = client.deploy("sales", solution="ContosoSales")
        print(client.wait(run.name).state)

Messages (``Pipeline``, ``Run``, …) are in ``pipelinehost.v1.resources_pb2``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
)

if TYPE_CHECKING:
    from pipelinehost.client import Client

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "Client",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "PipelineHostError",
    "ResourceExhausted",
    "Unauthenticated",
    "Unavailable",
    "Violation",
]


def __getattr__(name: str) -> object:
    # The host imports this package too, and grpc is most of what an import costs.
    if name == "Client":
        from pipelinehost.client import Client

        globals()["Client"] = Client
        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
