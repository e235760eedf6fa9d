"""The way to an embedded environment, with somebody on it who can spoil what is asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from tests.unit.deployment.conftest import Host

Spoil = Callable[[httpx.Request, "Way"], httpx.Response | None]


@dataclass
class Way(httpx.AsyncBaseTransport):
    """Passes requests on, but for those that were ordered otherwise; ``asked`` has them all."""

    inner: httpx.AsyncBaseTransport
    asked: list[str] = field(default_factory=list)
    orders: list[list[object]] = field(default_factory=list)

    def order(
        self, pattern: str, spoil: httpx.Response | Exception, *, times: int = 1, done: bool = False
    ) -> None:
        """Answer the next ``times`` requests that match (``PATCH asyncoperations``) with this.

        Args:
            pattern: a regular expression for method and path.
            spoil: the answer, or what is raised in place of one.
            times: how often.
            done: whether the request is passed on all the same, so that only its answer is lost.
        """
        self.orders.append([re.compile(pattern), spoil, times, done])

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        what = f"{request.method} {request.url.path.rpartition('/v9.2/')[2]}"
        self.asked.append(what)
        for order in self.orders:
            pattern, spoil, times, done = order
            assert isinstance(pattern, re.Pattern)
            assert isinstance(times, int)
            if times and pattern.search(what):
                order[2] = times - 1
                if done:
                    await (await self.inner.handle_async_request(request)).aread()
                if isinstance(spoil, Exception):
                    raise spoil
                assert isinstance(spoil, httpx.Response)
                return httpx.Response(spoil.status_code, headers=spoil.headers, content=spoil.content)
        return await self.inner.handle_async_request(request)

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, what)) for what in self.asked)


async def way_to(host: Host, environment: str) -> Way:
    """Stand on the way to an environment of that name."""
    _, api = await host.environments.named(f"environments/{environment}")
    client = api._calls._client
    way = Way(client._transport)
    client._transport = way
    return way


def refusal(status: int, code: str, message: str, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": code, "message": message}}, headers=headers)


def slow_down(seconds: int = 0) -> httpx.Response:
    return refusal(
        429, "0x80072322", "Number of requests exceeded the limit.", **{"Retry-After": str(seconds)}
    )


def locked(seconds: int = 0) -> httpx.Response:
    message = "Cannot start another [Import] because there is a previous [Import] running at this moment."
    return refusal(429, "0x80071151", message, **{"Retry-After": str(seconds)})
