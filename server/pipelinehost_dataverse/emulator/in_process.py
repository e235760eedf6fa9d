"""The way to an environment of this process."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from typing import cast

import httpx
from starlette.types import ASGIApp, Message

_log = logging.getLogger(__name__)


class InProcess(httpx.AsyncBaseTransport):
    """Calls an ASGI application, which answers on a loop and in a thread of its own.

    So the caller's loop has no more to do with it than with one behind a network. With
    ``httpx.ASGITransport``, requests that follow each other are one long turn of that loop, in which nobody
    else is served; and each looks through the whole import path for a package that is not there.

    Args:
        app: what answers.

    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See its base; what comes back is whole.

        Raises:
            httpx.RemoteProtocolError: the application broke, or ended without a whole answer.
            httpx.ReadError: the transport was closed meanwhile.
        """
        body = [piece async for piece in cast("httpx.AsyncByteStream", request.stream)]
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=_serve, args=(self._loop,), name="environment-answers", daemon=True
            )
            self._thread.start()
        loop = self._loop
        answering = asyncio.run_coroutine_threadsafe(self._answer(request, body), loop)
        try:
            return await asyncio.wrap_future(answering)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._loop is loop or (caller is not None and caller.cancelling()):
                raise
            raise httpx.ReadError("the transport was closed") from None

    async def aclose(self) -> None:
        """End the thread; what it is answering is given up."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)
            await asyncio.to_thread(self._thread.join)

    async def _answer(self, request: httpx.Request, pieces: list[bytes]) -> httpx.Response:
        answered = asyncio.Event()
        start: Message = {}
        body: list[bytes] = []
        left: list[Message] = [
            *({"type": "http.request", "body": piece, "more_body": True} for piece in pieces),
            {"type": "http.request", "body": b"", "more_body": False},
        ]

        async def receive() -> Message:
            if left:
                return left.pop(0)
            await answered.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.append(message.get("body", b""))
            if not message.get("more_body", False):
                answered.set()

        url = request.url
        path, _, query = url.raw_path.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": path,
            "query_string": query,
            "server": (url.host, url.port),
            "client": None,
            "root_path": "",
        }
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            _log.exception("%s %s", request.method, url.path)
            raise httpx.RemoteProtocolError(f"the application broke: {error!r}") from error
        if not answered.is_set():
            raise httpx.RemoteProtocolError("the application ended without a whole answer")
        return httpx.Response(start["status"], headers=start["headers"], stream=_Pieces(body))


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Runs the loop until it is stopped; then whatever it has not finished is cancelled."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()


class _Pieces(httpx.AsyncByteStream):
    """An answer's body, as it was sent."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
