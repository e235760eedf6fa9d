"""A way to an environment that fails: a transport with the faults of networks, gateways and servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from enum import StrEnum

import httpx


class Kind(StrEnum):
    """What happens to a request. Of each it is known here, and not by the client, whether it was received."""

    REFUSED = "no connection"
    RESET_BEFORE = "reset before the request was sent"
    RESET_AFTER = "reset after the request was sent; it arrives later"
    DROPPED = "answer dropped"
    SLOW = "answer after the client's timeout"
    THROTTLED = "429 with Retry-After"
    LOCKED = "429 for the solution lock"
    ERROR = "500, not received"
    BAD_GATEWAY = "502 from a gateway, received"
    UNAVAILABLE = "503, not received"
    GARBAGE = "an answer that is no JSON, received"
    TRUNCATED = "half an answer, received"
    DUPLICATED = "delivered twice, answered once"


Plan = Callable[[httpx.Request], Kind | None]
"""Says what happens to a request, None for nothing."""


class _Half(httpx.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content[: len(self._content) // 2]
        raise httpx.ReadError("the connection broke in the middle of the answer")


class Faulty(httpx.AsyncBaseTransport):
    """A transport that meets requests with faults.

    Args:
        inner: the way that works.
        plan: says what happens to each request.
        late: seconds after which an answer is slow; and, a tenth of it, after which a request arrives whose
            connection was reset.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, plan: Plan, *, late: float) -> None:
        self._inner = inner
        self._plan = plan
        self._late = late
        self._arriving: set[asyncio.Task[httpx.Response]] = set()
        self.given = dict.fromkeys(Kind, 0)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        kind = self._plan(request)
        if kind is None:
            return await self._inner.handle_async_request(request)
        self.given[kind] += 1
        if kind is Kind.REFUSED:
            raise httpx.ConnectError("connection refused", request=request)
        content = await request.aread()
        if kind is Kind.RESET_BEFORE:
            raise httpx.WriteError("connection reset", request=request)
        if kind is Kind.RESET_AFTER:
            self._arrive(request, content)
            raise httpx.ReadError("connection reset", request=request)
        if kind in _REFUSALS:
            status, headers, code = _REFUSALS[kind]
            error = {"error": {"code": code, "message": f"as the plan says: {kind}"}}
            return httpx.Response(status, headers=headers, json=error)
        answer = await self._deliver(request, content)
        if kind is Kind.DUPLICATED:
            await self._deliver(request, content)
            return answer
        if kind is Kind.DROPPED:
            raise httpx.RemoteProtocolError("the server disconnected without an answer", request=request)
        if kind is Kind.SLOW:
            await asyncio.sleep(self._late)
            return answer
        if kind is Kind.BAD_GATEWAY:
            return httpx.Response(502, text="<html>Bad gateway</html>")
        if kind is Kind.GARBAGE:
            return httpx.Response(200, headers=_dated(answer), text="<html>Please sign in</html>")
        headers = {**_dated(answer), "Content-Length": answer.headers.get("Content-Length", "0")}
        return httpx.Response(answer.status_code, headers=headers, stream=_Half(answer.content))

    async def _deliver(self, request: httpx.Request, content: bytes) -> httpx.Response:
        again = httpx.Request(request.method, request.url, headers=request.headers, content=content)
        answer = await self._inner.handle_async_request(again)
        await answer.aread()
        return answer

    def _arrive(self, request: httpx.Request, content: bytes) -> None:
        async def later() -> httpx.Response:
            await asyncio.sleep(self._late / 10)
            return await self._deliver(request, content)

        task = asyncio.create_task(later())
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def aclose(self) -> None:
        await asyncio.gather(*self._arriving, return_exceptions=True)
        await self._inner.aclose()


_REFUSALS = {
    Kind.THROTTLED: (429, {"Retry-After": "1"}, "0x80072322"),
    Kind.LOCKED: (429, {"Retry-After": "1"}, "0x80071151"),
    Kind.ERROR: (500, {}, "0x80040216"),
    Kind.UNAVAILABLE: (503, {}, "0x80040216"),
}


def _dated(answer: httpx.Response) -> dict[str, str]:
    return {"Date": answer.headers["Date"], "Content-Type": "application/json"}
