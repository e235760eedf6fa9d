"""Calls to an environment of the same process."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from pipelinehost_dataverse.emulator import InProcess


async def _body(receive: Any) -> bytes:
    whole = b""
    more = True
    while more:
        message = await receive()
        whole += message["body"]
        more = message["more_body"]
    return whole


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Says in which thread it answers, and gives back what it was sent, in two pieces."""
    body = await _body(receive)
    head = [(b"thread", threading.current_thread().name.encode()), (b"path", scope["raw_path"])]
    await send({"type": "http.response.start", "status": 201, "headers": head})
    await send({"type": "http.response.body", "body": body[:3], "more_body": True})
    await send({"type": "http.response.body", "body": body[3:]})


async def pieces() -> AsyncIterator[bytes]:
    yield b"ab"
    yield b"cdef"


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=InProcess(app), base_url="http://there", timeout=None)


async def test_request_and_answer_pass_whole_and_are_made_in_another_thread() -> None:
    async with client(echo) as web:
        answer = await web.post("/a b?c=d", content=pieces())
    assert (answer.status_code, answer.content) == (201, b"abcdef")
    assert answer.headers["path"] == "/a%20b"
    assert answer.headers["thread"] != threading.current_thread().name


async def test_the_caller_s_loop_goes_on_while_an_answer_is_made() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        time.sleep(0.3)  # noqa: ASYNC251  # as long work that never waits would
        await echo(scope, receive, send)

    async with client(slow) as web:
        asked = asyncio.ensure_future(web.get("/"))
        turns = 0
        while not asked.done():
            await asyncio.sleep(0.01)
            turns += 1
    assert turns > 10


async def test_no_request_looks_for_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            asked.append(name)

    async with client(echo) as web:
        await web.get("/")
        monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
        await web.get("/")
    assert asked == []


async def test_an_application_that_breaks_is_a_broken_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("the disk is gone")

    async def half(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async with client(broken) as web:
        with pytest.raises(httpx.RemoteProtocolError, match="the disk is gone"):
            await web.get("/")
    assert "GET /" in caplog.text
    async with client(half) as web:
        with pytest.raises(httpx.RemoteProtocolError, match="without a whole answer"):
            await web.get("/")


async def test_who_gives_up_ends_the_work_there() -> None:
    ended = threading.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with client(endless) as web:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await web.get("/")
        assert await asyncio.to_thread(ended.wait, 5)


async def test_closing_ends_calls_under_way_and_the_thread() -> None:
    begun = threading.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    transport = InProcess(endless)
    asked = asyncio.ensure_future(httpx.AsyncClient(transport=transport).get("http://there/"))
    assert await asyncio.to_thread(begun.wait, 5)
    await transport.aclose()
    with pytest.raises(httpx.ReadError, match="closed"):
        await asked
    assert not [t for t in threading.enumerate() if t.name == "environment-answers"]
    await transport.aclose()


async def test_it_can_be_told_that_the_caller_has_gone() -> None:
    """After its answer an application may wait for the end of the connection."""

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)
        assert await receive() == {"type": "http.disconnect"}

    async with client(waiting) as web:
        assert (await web.get("/")).status_code == 201
