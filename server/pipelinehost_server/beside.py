"""The process beside the host that its embedded environments live in; ``embedded`` starts it.

It serves the socket that it inherits, each environment below its name; PUT and DELETE of the name itself open
and close one. It ends when its standard input does, at once: that is with the host, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from pipelinehost_dataverse.emulator import EmbeddedEnvironment, EnvironmentInUseError
from pipelinehost_server.log import log_to_stderr

_DYING_SECONDS = 5.0
"""How long a file may still be held by the process of a host that was killed a moment ago."""
_log = logging.getLogger(__name__)


class _Beside:
    """The environments that are open, by name."""

    def __init__(self) -> None:
        self._open: dict[str, EmbeddedEnvironment] = {}
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.app = Starlette(
            routes=[
                Route("/{environment}", self._change, methods=["PUT", "DELETE"]),
                Mount("/{environment}", self._ask),
            ]
        )

    async def _change(self, request: Request) -> Response:
        name = request.path_params["environment"]
        settings = await request.json()
        async with self._turns[name]:
            if (known := self._open.pop(name, None)) is not None:
                await asyncio.to_thread(known.close)
            if request.method == "PUT":
                try:
                    self._open[name] = await asyncio.to_thread(_opened, name, **settings)
                except (OSError, ValueError, EnvironmentInUseError) as error:
                    return PlainTextResponse(str(error), 503)
        return Response(status_code=204)

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = self._open.get(scope["path_params"]["environment"])
        # Not 404: that would say that what is asked for does not exist there.
        app = PlainTextResponse("It is not open.", 503) if known is None else known.app
        await app(scope, receive, send)


def _opened(name: str, path: str, **settings: Any) -> EmbeddedEnvironment:
    Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    until = time.monotonic() + _DYING_SECONDS
    while True:
        try:
            return EmbeddedEnvironment.open(Path(path), name=name, **settings)
        except EnvironmentInUseError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def _serve(listening: socket.socket) -> None:
    config = uvicorn.Config(
        _Beside().app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        # An environment says what time it is; a second Date header would contradict it.
        date_header=False,
        # Longer than the host keeps a connection, so that none closes while a request is on its way.
        timeout_keep_alive=600,
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except Exception:  # noqa: BLE001 - whatever it is: without it the process is of no use
        _log.exception("the embedded environments cannot be served")
    os._exit(1)


def main(listening: int, log_level: str) -> None:
    """Serves until standard input ends.

    Args:
        listening: descriptor of the socket, which lies alone in its folder.
        log_level: least level to log on standard error, as the host does.
    """
    # A supervisor may send these to every process of the host, which needs its environments to drain.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    log_to_stderr(log_level)
    served = socket.socket(fileno=listening)
    folder = Path(served.getsockname()).parent
    # Not in the main thread, where uvicorn would listen to those signals.
    threading.Thread(target=_serve, args=(served,), daemon=True).start()
    with contextlib.suppress(OSError):
        sys.stdin.buffer.read()
    # No goodbye: what was accepted is on the disk, and a host that ends in order has closed them.
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
