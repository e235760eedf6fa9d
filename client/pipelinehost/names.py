"""Resource names: how they are built and read (AIP-122)."""

from __future__ import annotations

import re

from pipelinehost.errors import InvalidArgument, Violation
from pipelinehost.v1.errors_pb2 import ErrorReason

SLUG = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
"""What users choose: lower case letters, digits and hyphens, a letter first, at most 63."""

_PATTERNS = {
    "environment": re.compile(rf"environments/({SLUG})"),
    "pipeline": re.compile(rf"pipelines/({SLUG})"),
    "stage": re.compile(rf"pipelines/({SLUG})/stages/({SLUG})"),
    "run": re.compile(r"runs/([0-9a-hjkmnp-tv-z]{26})"),
    "artifact": re.compile(r"artifacts/([0-9a-f]{64})"),
    "principal": re.compile(rf"principals/({SLUG})"),
    "token": re.compile(r"tokens/([0-9a-f]{8})"),
    "freeze": re.compile(rf"freezes/({SLUG})"),
    "connection": re.compile(rf"environments/({SLUG})/connections/([A-Za-z0-9._-]{{1,100}})"),
}
_SHAPES = {
    "environment": "environments/{environment}",
    "pipeline": "pipelines/{pipeline}",
    "stage": "pipelines/{pipeline}/stages/{stage}",
    "run": "runs/{run}",
    "artifact": "artifacts/{sha256}",
    "principal": "principals/{principal}",
    "token": "tokens/{token}",
    "freeze": "freezes/{freeze}",
    "connection": "environments/{environment}/connections/{connection}",
}
_SLUG = re.compile(SLUG)


def environment(slug: str) -> str:
    """``environments/{slug}``."""
    return f"environments/{slug}"


def pipeline(slug: str) -> str:
    """``pipelines/{slug}``."""
    return f"pipelines/{slug}"


def stage(pipeline_slug: str, stage_slug: str) -> str:
    """``pipelines/{pipeline}/stages/{stage}``."""
    return f"pipelines/{pipeline_slug}/stages/{stage_slug}"


def run(run_id: str) -> str:
    """``runs/{id}``."""
    return f"runs/{run_id}"


def artifact(sha256: str) -> str:
    """``artifacts/{sha256}``, the digest in hexadecimal."""
    return f"artifacts/{sha256}"


def principal(slug: str) -> str:
    """``principals/{slug}``."""
    return f"principals/{slug}"


def freeze(slug: str) -> str:
    """``freezes/{slug}``."""
    return f"freezes/{slug}"


def connection(environment_name: str, connection_id: str) -> str:
    """``{environment}/connections/{id}``, where the environment is given by its full name."""
    return f"{environment_name}/connections/{connection_id}"


def is_slug(text: str) -> bool:
    """Whether a user may choose this as an id."""
    return _SLUG.fullmatch(text) is not None


def slug(name: str) -> str:
    """The last part of a resource name: ``qa`` of ``pipelines/sales/stages/qa``."""
    return name.rpartition("/")[2]


def matches(kind: str, name: str) -> bool:
    """Whether ``name`` has the shape of a resource of this kind (``pipeline``, ``stage``, …)."""
    return _PATTERNS[kind].fullmatch(name) is not None


def parse(kind: str, name: str, field: str = "name") -> tuple[str, ...]:
    """The variable parts of a resource name.

    Args:
        kind: ``environment``, ``pipeline``, ``stage``, ``run``, ``artifact``, ``connection``, ``principal``,
            ``token`` or ``freeze``.
        name: the name to read.
        field: path of the request's field, for the error.

    Raises:
        InvalidArgument: the name has another shape.
    """
    found = _PATTERNS[kind].fullmatch(name)
    if found is None:
        what = (
            f"{name!r} is not a name of the form {_SHAPES[kind]}"
            if name
            else f"is required ({_SHAPES[kind]})"
        )
        raise InvalidArgument(
            ErrorReason.ERROR_REASON_INVALID_FIELD,
            f"{field}: {what}",
            violations=[Violation(field, what)],
        )
    return found.groups()
