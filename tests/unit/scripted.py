"""An environment that answers the client of the Web API by a script, and time that sleeping alone moves."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx

from pipelinehost_dataverse.solution.model import Version
from pipelinehost_dataverse.webapi import (
    ImportIntent,
    ImportMode,
    Policy,
    WebApi,
)

USER = "11111111-1111-1111-1111-111111111111"
JOB = "22222222-2222-2222-2222-222222222222"
OPERATION = "33333333-3333-3333-3333-333333333333"
WHO = {"UserId": USER, "BusinessUnitId": USER, "OrganizationId": USER}
ACCEPTED = {"ImportJobKey": JOB, "AsyncOperationId": OPERATION}
STAGED = {"StageSolutionResults": {"StageSolutionStatus": "Passed", "StageSolutionUploadId": JOB}}
BASE = "http://embedded.invalid"
INTENT = ImportIntent(
    import_job_id=JOB,
    solution="Sales",
    version=Version.parse("1.2"),
    mode=ImportMode.UPGRADE,
    user_id=USER,
    environment_time=datetime(2026, 5, 1, 12, tzinfo=UTC),
    installed_version=None,
    known_history_ids=(),
    known_job_ids=(),
)

Fault = Callable[[httpx.Request], httpx.Response]


class Time:
    """A clock that sleeping alone moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def policy(self, **other: Any) -> Policy:
        return Policy(sleep=self.sleep, clock=lambda: self.now, jitter=lambda: 0.0, **other)


class Script(httpx.AsyncBaseTransport):
    """Answers each request by the next step; the last one stays. Reads every body whole."""

    def __init__(self, *steps: Fault) -> None:
        self.steps = steps
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append(request)
        return self.steps[min(len(self.requests), len(self.steps)) - 1](request)


def answer(content: object = None, status: int = 200, **headers: str) -> Fault:
    """Dashes in the names of headers are written as underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: httpx.Response(status, json=content if content is not None else {}, headers=named)


def refusal(status: int, code: str = "", message: str = "no", **headers: str) -> Fault:
    return answer({"error": {"code": code, "message": message}}, status, **headers)


def raw(content: bytes, status: int = 200, **headers: str) -> Fault:
    """An answer whose bytes are the client's to inflate and to parse."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: httpx.Response(status, stream=httpx.ByteStream(content), headers=named)


def broken(kind: type[httpx.TransportError]) -> Fault:
    def fail(request: httpx.Request) -> httpx.Response:
        raise kind("it broke", request=request)

    return fail


def api(transport: httpx.AsyncBaseTransport, policy: Policy | None = None, **other: Any) -> WebApi:
    return WebApi(BASE, transport=transport, policy=policy or Time().policy(), **other)
