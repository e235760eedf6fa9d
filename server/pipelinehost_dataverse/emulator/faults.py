"""Faults on demand, for people who test their own deployment scripts.

``POST /ENVIRONMENT/faults`` orders one: which requests it meets and how often. It counts requests, never
time or chance, so the same script meets the same faults again. ``GET`` lists what is ordered and how often
it was given, ``DELETE`` takes all of it back.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import logging
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelinehost_dataverse.emulator.errors import Code, DataverseError
from pipelinehost_dataverse.emulator.face import error_response

CONNECTION = "connection"
"""Under this name the server puts a connection's transport into the scope's state."""
_BODY_BYTES = 64 * 1024
_API = re.compile(r"^/api/data/v[0-9.]+/")

_log = logging.getLogger(__name__)


class Kind(StrEnum):
    """What is done to a request."""

    THROTTLED = "throttled"
    """429 with Retry-After, code 0x80072322; nothing is done."""
    LOCKED = "locked"
    """429 with Retry-After, code 0x80071151: another solution operation runs; nothing is done."""
    FAILED = "failed"
    """An error of the server (``status``); nothing is done."""
    UNRECEIVED = "unreceived"
    """The connection is closed; nothing is done."""
    UNANSWERED = "unanswered"
    """The request is done, and the connection is closed instead of an answer."""
    SLOW = "slow"
    """The request is done, and the answer comes after ``seconds``."""


@dataclass(slots=True)
class Fault:
    """An order: the first ``skip`` requests that match pass, the next ``times`` meet the fault."""

    kind: Kind
    method: str = "*"
    path: str = "*"
    """Pattern (``*``, ``?``) of what follows ``/api/data/v9.2/``, or of ``connectivity/…``."""
    skip: int = 0
    times: int = 1
    seconds: int = 2
    """Of ``Retry-After``, or of a slow answer."""
    status: int = 503
    given: int = 0

    def shown(self) -> dict[str, object]:
        """As JSON."""
        return {
            "fault": self.kind,
            "method": self.method,
            "path": self.path,
            "skip": self.skip,
            "times": self.times,
            "seconds": self.seconds,
            "status": self.status,
            "given": self.given,
        }


def order(content: object) -> Fault:
    """Read an order as it is posted.

    Raises:
        DataverseError: it has an unknown member, or a member of the wrong kind.
    """
    if not isinstance(content, dict):
        raise _invalid('A fault is ordered as a JSON object, for example {"fault": "throttled"}.')
    known = {*Fault.__dataclass_fields__} - {"kind", "given"} | {"fault"}
    for name in content.keys() - known:
        raise _invalid(f"'{name}' is no member of a fault; known are {', '.join(sorted(known))}.")
    try:
        fault = Fault(Kind(content.get("fault", "")))
    except ValueError:
        kinds = ", ".join(Kind)
        raise _invalid(f"'{content.get('fault')}' is no fault; known are {kinds}.") from None
    for name in ("method", "path"):
        value = content.get(name, "*")
        if not isinstance(value, str) or not value:
            raise _invalid(f"'{name}' must be text, such as \"*\".")
        setattr(fault, name, value.upper() if name == "method" else value.lstrip("/"))
    limits = {"skip": (0, 10**6), "times": (1, 10**6), "seconds": (0, 3600), "status": (400, 599)}
    for name, (least, most) in limits.items():
        value = content.get(name, getattr(fault, name))
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _invalid(f"'{name}' must be a whole number from {least} to {most}.")
        setattr(fault, name, value)
    return fault


class Faults:
    """An environment's application with ordered faults before it.

    Args:
        app: the application.
        name: of the environment, for the log.
    """

    def __init__(self, app: ASGIApp, name: str) -> None:
        self._app = app
        self._name = name
        self._ordered: list[Fault] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or spoil it."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path == "/faults":
            response = await self._control(Request(scope, receive))
            await response(scope, receive, send)
            return
        path = _API.sub("", path).lstrip("/")
        fault = self._due(scope["method"], path)
        if fault is None:
            await self._app(scope, receive, send)
            return
        fault.given += 1
        _log.warning(
            "%s: %s %s is %s (fault %d of %d)",
            self._name,
            scope["method"],
            path,
            fault.kind,
            fault.given,
            fault.times,
        )
        await self._spoil(fault, scope, receive, send)

    def _due(self, method: str, path: str) -> Fault | None:
        for fault in self._ordered:
            if fault.given == fault.times:
                continue
            if fault.method in ("*", method) and fnmatch.fnmatchcase(path, fault.path):
                if not fault.skip:
                    return fault
                fault.skip -= 1
        return None

    async def _spoil(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        if fault.kind is Kind.UNRECEIVED:
            await _hang_up(scope, receive)
        elif fault.kind is Kind.UNANSWERED:

            async def swallow(_message: Message) -> None:
                return

            await self._app(scope, receive, swallow)
            await _hang_up(scope, receive)
        elif fault.kind is Kind.SLOW:

            async def late(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await asyncio.sleep(fault.seconds)
                await send(message)

            await self._app(scope, receive, late)
        else:
            while (await receive()).get("more_body"):  # a client that still sends would not see the answer
                pass
            prefer = Request(scope).headers.get("prefer", "")
            await error_response(_error(fault), prefer)(scope, receive, send)

    async def _control(self, request: Request) -> Response:
        try:
            if request.method == "GET":
                return JSONResponse({"value": [fault.shown() for fault in self._ordered]})
            if request.method == "DELETE":
                self._ordered.clear()
                return Response(status_code=204)
            if request.method != "POST":
                raise DataverseError(
                    Code.INVALID_REQUEST, f"Faults do not answer {request.method}.", status=405
                )
            fault = order(await _body(request))
        except DataverseError as error:
            return error_response(error, "")
        self._ordered.append(fault)
        return JSONResponse(fault.shown(), status_code=201)


async def _body(request: Request) -> Any:
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > _BODY_BYTES:
            raise _invalid(f"The order is larger than {_BODY_BYTES} bytes.")
    try:
        return json.loads(content)
    except ValueError as error:
        raise _invalid(f"The order is no JSON: {error}.") from None


async def _hang_up(scope: Scope, receive: Receive) -> None:
    """Close the connection without a byte of an answer.

    Raises:
        RuntimeError: the server does not say which connection it is.
    """
    connection = scope.get("state", {}).get(CONNECTION)
    if connection is None:
        raise RuntimeError("the server gives no access to its connections, so none can be closed")
    connection.abort()
    while (await receive())["type"] != "http.disconnect":
        pass


def _error(fault: Fault) -> DataverseError:
    if fault.kind is Kind.THROTTLED:
        return DataverseError(
            Code.THROTTLED,
            "Number of requests exceeded the limit of 6000 over time window of 300 seconds.",
            status=429,
            retry_after=fault.seconds,
        )
    if fault.kind is Kind.LOCKED:
        return DataverseError(
            Code.OPERATION_RUNNING,
            "Cannot start the requested operation because there is a previous [Import] running at this "
            "moment. Use Solution History for more details.",
            status=429,
            retry_after=fault.seconds,
        )
    return DataverseError(
        Code.UNEXPECTED, f"The server failed, as it was told ({fault.status}).", status=fault.status
    )


def _invalid(message: str) -> DataverseError:
    return DataverseError(Code.INVALID_REQUEST, message)
