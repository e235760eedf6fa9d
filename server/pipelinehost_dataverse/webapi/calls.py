"""One HTTP call with everything that belongs to it: token, headers, timeout, caps, retries, errors."""

from __future__ import annotations

import asyncio
import binascii
import json
import math
import random
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Protocol

import httpx

from pipelinehost_dataverse.webapi.errors import (
    SOLUTION_LOCK,
    AccessDenied,
    AnswerLost,
    BadAnswer,
    DataverseError,
    EnvironmentBusy,
    EnvironmentUnreachable,
    NotFound,
    Refused,
    Throttled,
    error_code,
    hush,
    plain,
)
from pipelinehost_dataverse.webapi.model import Wait

OnWait = Callable[[Wait], None]
"""Told of each wait before it begins, when nothing is under way; must return at once.

What it raises comes out of the call in place of the wait.
"""

OFF_LOOP = 2**20
"""Bytes from which encoding and parsing leave the event loop."""
_CHUNK = 3 * 2**18  # a multiple of 3, so that the base64 of the parts is the base64 of the whole
_TEXT_CHUNK = 2**20  # a multiple of 4, likewise
_ERROR_BYTES = 64 * 1024


class TokenSource(Protocol):
    """Gives bearer tokens."""

    async def __call__(self, scope: str, *, renew: bool = False) -> str:
        """A token for ``scope`` (``https://org.crm4.dynamics.com/.default``).

        ``renew`` is True once after a 401: the last token was refused, a cached one will not do.
        It should raise ``AccessDenied`` or ``EnvironmentUnreachable`` where it has none.
        """


@dataclass(frozen=True, slots=True)
class Policy:
    """Timeouts, budgets and caps; seconds and bytes. Tests inject ``sleep``, ``clock`` and ``jitter``."""

    connect_seconds: float = 10
    read_seconds: float = 60
    """Of a whole GET, and of a small write."""
    action_seconds: float = 900
    """Of a whole POST that stages, exports, imports or publishes."""
    export_seconds: float = 3600
    """Of an export with all its polls."""
    poll_seconds: float = 0.2
    """Before the first poll of an export; grows to 5."""
    retry_budget: float = 120
    """How long after the first failure of a call the last repetition may begin."""
    lock_budget: float = 600
    """The same while another solution operation holds the environment."""
    answer_bytes: int = 64 * 2**20
    """Largest answer that is read, as inflated."""
    package_bytes: int = 128 * 2**20
    """Largest package that is downloaded; Dataverse allows 120 MB."""
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep)
    clock: Callable[[], float] = field(default=time.monotonic)
    jitter: Callable[[], float] = field(default=random.random)
    """0 to 1."""


@dataclass(frozen=True, slots=True)
class Body:
    """A JSON object, and a package as the base64 text of one more member; encoded while it is sent."""

    members: dict[str, object]
    package: bytes | None = None
    member: str = "CustomizationFile"

    def parts(self) -> tuple[bytes, bytes]:
        """What stands before and after the base64 text."""
        text = json.dumps(self.members).encode()
        if self.package is None:
            return text, b""
        comma = b"," if self.members else b""
        return text[:-1] + comma + json.dumps(self.member).encode() + b':"', b'"}'

    def length(self) -> int:
        """Bytes of the whole."""
        before, after = self.parts()
        return len(before) + (0 if self.package is None else -(-len(self.package) // 3) * 4) + len(after)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        before, after = self.parts()
        yield before
        if self.package is not None:
            view = memoryview(self.package)
            for start in range(0, len(view), _CHUNK):
                piece = view[start : start + _CHUNK]
                if len(view) > OFF_LOOP:
                    yield await asyncio.to_thread(binascii.b2a_base64, piece, newline=False)
                else:
                    yield binascii.b2a_base64(piece, newline=False)
            yield after


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer, read whole."""

    operation: str
    status: int
    headers: httpx.Headers
    body: bytearray

    def bad(self, message: str) -> BadAnswer:
        """The error for an answer that is not as documented."""
        return BadAnswer(
            message, operation=self.operation, status=self.status, request_id=_request_id(self.headers)
        )

    def date(self) -> datetime:
        """The environment's clock.

        Raises:
            BadAnswer: no Date header, or none that can be read.
        """
        dates = self.headers.get_list("date")
        try:
            found = parsedate_to_datetime(dates[0])
        except (IndexError, ValueError) as error:
            raise self.bad(
                "the answer has no readable Date header, so the environment's clock is unknown"
            ) from error
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)

    async def json(self) -> dict[str, object]:
        """The body as a JSON object; a big one is parsed off the loop.

        Raises:
            BadAnswer: it is none.
        """
        try:
            if len(self.body) > OFF_LOOP:
                found = await asyncio.to_thread(json.loads, self.body)
            else:
                found = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise self.bad("the answer is not JSON") from error
        if not isinstance(found, dict):
            raise self.bad("the answer is not a JSON object")
        return found

    async def package(self, member: str) -> bytes:
        """The bytes whose base64 text is that member of the body; the body is used up.

        Raises:
            BadAnswer: there is no such member, or it is no base64.
        """

        def decoded() -> bytes:
            # JSON may write / as \/
            body = self.body if b"\\" not in self.body else self.body.replace(b"\\/", b"/")
            found = re.search(rb'"' + re.escape(member.encode()) + rb'"\s*:\s*"', body)
            end = body.find(b'"', found.end()) if found else -1
            if not found or end < 0:
                raise self.bad(f"the answer has no {member}")
            try:
                return _decoded(body, found.end(), end)
            except binascii.Error as error:
                raise self.bad(f"{member} of the answer is not base64") from error

        return await asyncio.to_thread(decoded) if len(self.body) > OFF_LOOP else decoded()


def _decoded(body: bytearray, start: int, end: int) -> bytes:
    """What a part of ``body`` is the base64 text of.

    Piece by piece, since one long conversion would keep every other thread from the interpreter, and in
    place, since a package may have 120 MB.
    """
    size = 0
    for at in range(start, end, _TEXT_CHUNK):
        piece = binascii.a2b_base64(body[at : min(end, at + _TEXT_CHUNK)], strict_mode=True)
        if len(piece) % 3 and at + _TEXT_CHUNK < end:
            raise binascii.Error("padding before the end")
        body[size : size + len(piece)] = piece
        size += len(piece)
    return bytes(memoryview(body)[:size])


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked, and how patiently."""

    method: str
    url: str
    operation: str
    """For errors: method and table or action, no query."""
    scope: str
    seconds: float
    body: Body | None = None
    cap: int = 64 * 2**20

    @property
    def reads(self) -> bool:
        """Whether it changes nothing, so that a lost answer may be asked for again."""
        return self.method == "GET"


class Calls:
    """Makes calls by the rules of repetition.

    A GET is repeated on 429, 502, 503, 504 and on transport errors. Anything else is repeated only on 429,
    on the solution lock, and where no connection could be made: never where it may have been received.
    """

    def __init__(
        self, transport: httpx.AsyncBaseTransport, token: TokenSource | None, policy: Policy
    ) -> None:
        self._token = token
        self._policy = policy
        self._client = httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            # the call's own asyncio.timeout covers reading and writing
            timeout=httpx.Timeout(None, connect=policy.connect_seconds, pool=policy.connect_seconds),
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),  # none are kept
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "gzip",  # the others inflate further per byte read
                "OData-Version": "4.0",
                "OData-MaxVersion": "4.0",
                "If-None-Match": "null",
                "Prefer": 'odata.include-annotations="*"',
                "User-Agent": "PipelineHost",
            },
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def make(self, call: Call, on_wait: OnWait | None = None, patience: float = math.inf) -> Answer:
        """Make the call, repeating it as its rules allow.

        Args:
            call: what to ask.
            on_wait: told of each wait.
            patience: seconds that stand for the budget where they are less; not while it is locked.

        Raises:
            DataverseError: see its subclasses.
        """
        policy = self._policy
        renew = False
        failed_at: float | None = None
        waits = 0
        while True:
            try:
                return await self._once(call, renew=renew)
            except AccessDenied as error:
                if error.status != 401 or self._token is None or renew:
                    raise
                renew = True  # refused before anything was done: once more with a new token
                continue
            except DataverseError as error:
                if not _repeatable(call, error):
                    raise
                failure = error
            if failed_at is None:
                failed_at = policy.clock()
            waits += 1
            locked = isinstance(failure, EnvironmentBusy)
            seconds = _seconds(failure, waits, policy.jitter())
            budget = policy.lock_budget if locked else min(policy.retry_budget, patience)
            if policy.clock() - failed_at + seconds > budget:
                raise failure
            if on_wait is not None:
                on_wait(Wait(call.operation, seconds, waits, failure.code, failure.message))
            await policy.sleep(seconds)

    async def _once(self, call: Call, *, renew: bool) -> Answer:
        request_id = str(uuid.uuid4())
        headers = {"x-ms-client-request-id": request_id}
        if self._token is not None:
            try:
                token = await self._token(call.scope, renew=renew)
            except DataverseError as error:  # which does not know what was asked
                error.operation = error.operation or call.operation
                raise
            hush(token)
            headers["Authorization"] = f"Bearer {token}"
        if call.body is not None:
            headers["Content-Type"] = "application/json"
            headers["Content-Length"] = str(call.body.length())
        request = self._client.build_request(call.method, call.url, headers=headers, content=call.body)
        try:
            async with asyncio.timeout(call.seconds):
                response = await self._client.send(request, stream=True)
                try:
                    if not response.is_success:
                        raise _failure(call, response, await _start_of(response), request_id)
                    body = await self._whole(call, response)
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise AnswerLost(
                f"no answer within {call.seconds:g} seconds", operation=call.operation, request_id=request_id
            ) from error
        except (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.PoolTimeout,
            httpx.UnsupportedProtocol,
        ) as error:
            raise EnvironmentUnreachable(
                f"no connection to {request.url.host}: {_reason(error)}",
                operation=call.operation,
                request_id=request_id,
            ) from error
        except httpx.DecodingError as error:
            raise BadAnswer(
                "the answer cannot be inflated", operation=call.operation, request_id=request_id
            ) from error
        except (httpx.TransportError, httpx.StreamError) as error:
            raise AnswerLost(
                f"the connection broke: {_reason(error)}",
                operation=call.operation,
                request_id=request_id,
            ) from error
        except EnvironmentUnreachable as error:  # from the transport, which does not know what was asked
            error.operation, error.request_id = call.operation, request_id
            raise
        return Answer(call.operation, response.status_code, response.headers, body)

    async def _whole(self, call: Call, response: httpx.Response) -> bytearray:
        pieces = bytearray()
        async for piece in response.aiter_bytes():
            pieces += piece
            if len(pieces) > call.cap:
                raise BadAnswer(
                    f"the answer is larger than {call.cap} bytes",
                    operation=call.operation,
                    status=response.status_code,
                    request_id=_request_id(response.headers),
                )
        return pieces


def _reason(error: Exception) -> str:
    return plain(str(error) or type(error).__name__, 300)


def _repeatable(call: Call, error: DataverseError) -> bool:
    if isinstance(error, EnvironmentUnreachable):
        return not error.code  # a forbidden address stays one
    if isinstance(error, (Throttled, EnvironmentBusy)):
        return True
    return call.reads and isinstance(error, AnswerLost) and error.status in {None, 502, 503, 504}


def _seconds(error: DataverseError, waits: int, jitter: float) -> float:
    if error.retry_after is None and isinstance(error, EnvironmentBusy):
        return 20 + 10 * jitter
    growing = min(30.0, 2.0 ** (waits - 1)) * (0.5 + 0.5 * jitter)
    return growing if error.retry_after is None else max(growing, error.retry_after + jitter)


async def _start_of(response: httpx.Response) -> bytes:
    start = bytearray()
    try:
        async for piece in response.aiter_bytes():
            start += piece
            if len(start) > _ERROR_BYTES:
                break
    except (httpx.TransportError, httpx.DecodingError, httpx.StreamError):
        pass  # the status alone tells what happened
    return bytes(start[:_ERROR_BYTES])


def _request_id(headers: httpx.Headers, ours: str = "") -> str:
    return plain(headers.get("x-ms-service-request-id") or headers.get("req_id") or ours, 100)


def _retry_after(headers: httpx.Headers) -> float | None:
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _failure(call: Call, response: httpx.Response, body: bytes, ours: str) -> DataverseError:
    status = response.status_code
    code, message = _error_of(body)
    if not message:
        message = plain(response.reason_phrase, 100) or "no reason given"
    kind: type[DataverseError]
    if 300 <= status < 400:
        kind, message = BadAnswer, "the environment redirects elsewhere, which is not followed"
    elif status >= 500 or status == 408:
        kind = AnswerLost
    elif code == SOLUTION_LOCK:
        kind = EnvironmentBusy
    elif status == 429:
        kind = Throttled
    elif status in {401, 403}:
        kind = AccessDenied
    elif status == 404:
        kind = NotFound
    else:
        kind = Refused
    return kind(
        message,
        operation=call.operation,
        code=code,
        status=status,
        request_id=_request_id(response.headers, ours),
        retry_after=_retry_after(response.headers),
    )


def _error_of(body: bytes) -> tuple[str, str]:
    """Code and message of ``{"error":{"code":…,"message":…}}``; empty where the body is something else."""
    try:
        error = json.loads(body)["error"]
        code, message = error_code(error.get("code")), error.get("message")
        inner = error.get("@Microsoft.PowerApps.CDS.InnerError.Message")
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return "", ""
    message = plain(message) if isinstance(message, str) else ""
    inner = plain(inner) if isinstance(inner, str) else ""
    return code, message if not inner or inner in message else plain(f"{message} ({inner})")
