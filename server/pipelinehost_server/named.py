"""What a request names, looked up.

Each function takes the store or a transaction on it, a full name, and the field of the request that it comes
from.

Raises:
    InvalidArgument: a name has no such shape.
    NotFound: there is nothing of that name.
"""

from __future__ import annotations

from typing import TypeVar

from pipelinehost import names
from pipelinehost.errors import NotFound
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import (
    Artifact,
    Environment,
    Freeze,
    Pipeline,
    Principal,
    Run,
    Stage,
    Token,
)
from pipelinehost_server import rules
from pipelinehost_server.store import Reads

_T = TypeVar("_T")


def environment(reads: Reads, name: str, field: str = "name") -> Environment:
    """The environment of that name."""
    names.parse("environment", name, field)
    return _there(reads.environment(name), name)


def pipeline(reads: Reads, name: str, field: str = "name") -> Pipeline:
    """The pipeline of that name."""
    names.parse("pipeline", name, field)
    return _there(reads.pipeline(name), name)


def stage(reads: Reads, name: str, field: str = "name") -> Stage:
    """The stage of that full name."""
    of = names.pipeline(names.parse("stage", name, field)[0])
    return _there(rules.stage_of(pipeline(reads, of, field), name), name)


def artifact(reads: Reads, name: str, field: str = "name") -> Artifact:
    """The artifact of that name."""
    names.parse("artifact", name, field)
    return _there(reads.artifact(name), name)


def run(reads: Reads, name: str, field: str = "name") -> Run:
    """The run of that name."""
    names.parse("run", name, field)
    return _there(reads.run(name), name)


def freeze(reads: Reads, name: str, field: str = "name") -> Freeze:
    """The freeze of that name."""
    names.parse("freeze", name, field)
    return _there(reads.freeze(name), name)


def principal(reads: Reads, name: str, field: str = "name") -> Principal:
    """The principal of that name."""
    names.parse("principal", name, field)
    return _there(reads.principal(name), name)


def token(reads: Reads, name: str, field: str = "name") -> Token:
    """The token of that name."""
    names.parse("token", name, field)
    return _there(reads.token(name), name)


def absent(name: str, message: str = "") -> NotFound:
    """The error for what is not there, and for what the caller may not see."""
    collection, slug, *below = name.split("/")[:3] if "/" in name else (name, "")
    command = f"pipeline show {slug}" if below else f"{collection.removesuffix('s')} list"
    return NotFound(
        ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND,
        message or f"there is no {name}",
        remedy=f"List what there is: pipelinehost {command}",
        metadata={"resource": name},
    )


def _there(found: _T | None, name: str) -> _T:
    if found is None:
        raise absent(name)
    return found
