"""The embedded environments of a host, which live in one process beside it (``beside``)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import httpcore
import httpx

from pipelinehost_dataverse.webapi import EnvironmentUnreachable

_Process = subprocess.Popen[bytes]

_ORIGIN = "http://embedded.invalid"
"""Where they are for the connector; it is never resolved."""
_IDLE_SECONDS = 5.0
"""How long a connection is kept for the next call; the process keeps it longer."""
_OPEN_SECONDS = 60.0
_CLOSE_SECONDS = 10.0
_END_SECONDS = 2.0
"""How long after a broken connection the end of the process may be seen."""
_SETTLED_SECONDS = 300.0
"""A process that has lived so long does not count as one that has ended like those before it."""
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 60.0
"""Seconds before it starts again after its second end in a row, and at the most; each time twice as many."""
_LOG = logging.getLogger(__name__)


class _Pausing(EnvironmentUnreachable):
    """The process has ended again and again, and starts again a little later."""


class Embedded:
    """The process that embedded environments live in, so that callers of the host do not feel their work.

    It starts when the first environment is opened, and again at the next call after it has died; what the
    environments had accepted goes on when they are opened there. That may be what it has died of: so from the
    second time on it starts after a growing pause, in which every call is refused. It ends with the host,
    however that ends: nobody writes to its standard input, and it takes the end of that for the host's. It
    listens on a socket in a folder that only this user can enter, so that nobody else can ask it and no
    token is needed.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._folder = ""
        self._process: _Process | None = None
        self._started = self._not_before = 0.0
        """Times of the loop: of the last start, and when the next one may be."""
        self._ends = 0
        """How often in a row the process has ended early."""

    async def open(self, name: str, **settings: object) -> tuple[str, httpx.AsyncBaseTransport]:
        """The address of an embedded environment and the way to it, which outlives the process.

        Args:
            name: the first part of its path.
            settings: path and further arguments of ``EmbeddedEnvironment.open``.

        Raises:
            EnvironmentUnreachable: the process cannot be started, or the file cannot be opened.
        """
        # While it pauses, nobody is refused for good: the first call is repeated, as every other is.
        with contextlib.suppress(_Pausing):
            await self.running()
        url = f"{_ORIGIN}/{name}"
        way = _Way(self, f"{self._folder}/socket", url, settings)
        try:
            with contextlib.suppress(_Pausing):
                await way.open()
        except BaseException:
            await way.aclose()
            raise
        return url, way

    async def running(self) -> _Process:
        """The process as it runs now.

        Raises:
            EnvironmentUnreachable: it cannot be started, or not yet.
        """
        now = asyncio.get_running_loop().time
        async with self._turn:
            if self._process is not None:
                if (code := self._process.returncode) is None:
                    return self._process
                self._process.communicate()  # which closes our end of its standard input
                self._pause(code, now())
                self._process = None
            if (seconds := self._not_before - now()) > 0:
                raise _Pausing(
                    f"the process of the embedded environments has ended {self._ends} times in a row, and "
                    f"starts again in {max(seconds, 1):.0f} s; the host's log may say why",
                    operation="open",
                )
            try:
                self._process, self._started = self._start(), now()
            except OSError as error:
                raise EnvironmentUnreachable(
                    f"the process of the embedded environments cannot be started: {error}. It needs memory, "
                    "and a folder with a short path for a socket: name one in TMPDIR and restart the host",
                    operation="open",
                ) from error
            return self._process

    def _pause(self, code: int, now: float) -> None:
        """Decide how long after its end the process may start again, and tell."""
        lived = now - self._started
        self._ends = 1 if lived >= _SETTLED_SECONDS else self._ends + 1
        pause = 0.0 if self._ends == 1 else min(_FIRST_PAUSE * 2.0 ** min(self._ends - 2, 20), _LAST_PAUSE)
        self._not_before = now + pause
        when = ""
        if pause:
            when = f" in {pause:g} s. It has ended {self._ends} times in a row: what an environment goes on "
            when += "with when it is opened may be the cause"
        _LOG.warning("the process of the embedded environments ended with %d: it starts again%s", code, when)

    def _start(self) -> _Process:
        with socket.socket(socket.AF_UNIX) as listening:
            self._listen(listening)
            level = logging.getLevelName(logging.getLogger().getEffectiveLevel())
            # Not the loop's way: uvloop runs Python in a copy of this process first, which gRPC's threads
            # make a segmentation fault of. This one copies nothing, and takes a millisecond.
            process = subprocess.Popen(  # noqa: S603 - our own module, no word of it is a user's
                [sys.executable, "-m", "pipelinehost_server.beside", str(listening.fileno()), level],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(listening.fileno(),),
                start_new_session=True,  # Ctrl-C is for the host, which drains first
            )
        # So that its end is known at once, without a system call before each call to an environment.
        threading.Thread(target=process.wait, name="beside", daemon=True).start()
        return process

    def _listen(self, listening: socket.socket) -> None:
        """Before the process is there: who connects early waits for it."""
        # Not in the data folder, whose path may be too long: that of a socket has 107 bytes at most.
        self._folder = self._folder or tempfile.mkdtemp(prefix="pipelinehost-")
        path = Path(self._folder, "socket")
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        listening.listen(128)

    async def close(self) -> None:
        """End the process; its ways are closed before."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            if not await _ended(process, _CLOSE_SECONDS):
                process.kill()
                process.wait()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""


class _Way(httpx.AsyncHTTPTransport):
    """The way to one environment, which is opened wherever the process is another one than before."""

    def __init__(self, embedded: Embedded, uds: str, url: str, settings: dict[str, object]) -> None:
        super().__init__(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # the default reads files
        self._pool = httpcore.AsyncConnectionPool(
            uds=uds, network_backend=_Sockets(), max_connections=100, keepalive_expiry=_IDLE_SECONDS
        )
        self._embedded = embedded
        self._url = url
        self._settings = settings
        self._turn = asyncio.Lock()
        self._open_in: _Process | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self.open()
        return await super().handle_async_request(request)

    async def open(self) -> None:
        if self._open_in is await self._embedded.running():
            return
        async with self._turn:
            for last in (False, False, True):
                process = await self._embedded.running()
                if self._open_in is process:
                    return
                try:
                    wrong = await self._change("PUT", _OPEN_SECONDS)
                except (httpx.TransportError, TimeoutError) as error:
                    if await _ended(process, _END_SECONDS) and not last:
                        continue  # with another one: opening again does no harm
                    raise EnvironmentUnreachable(
                        f"the process of the embedded environments gives no answer ({type(error).__name__}); "
                        "the host's log may say why",
                        operation="open",
                    ) from error
                if wrong:
                    raise EnvironmentUnreachable(
                        f"the file of the embedded environment cannot be opened: {wrong}", operation="open"
                    )
                self._open_in = process
                return

    async def aclose(self) -> None:
        if self._open_in is not None and self._open_in.returncode is None:
            with contextlib.suppress(httpx.TransportError, TimeoutError):
                await self._change("DELETE", _CLOSE_SECONDS)
        await super().aclose()

    async def _change(self, method: str, seconds: float) -> str:
        """Open or close the environment; what is wrong, where something is."""
        request = httpx.Request(method, self._url, json=self._settings)
        async with asyncio.timeout(seconds):
            return (await (await super().handle_async_request(request)).aread()).decode()


async def _ended(process: _Process, seconds: float) -> bool:
    """Whether it ends within that time."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        await asyncio.to_thread(process.wait, seconds)
    return process.returncode is not None


class _Sockets(httpcore.AsyncNetworkBackend):
    """Connects with asyncio's own streams.

    Those of anyio, for this sort of socket, log an error where a call is cancelled as its answer arrives.
    """

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - as in its base
        socket_options: object = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                return _Stream(*await asyncio.open_unix_connection(path))
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error


class _Stream(httpcore.AsyncNetworkStream):
    """One connection. How long a call may take is decided by who makes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - likewise
        try:
            return await self._reader.read(max_bytes)
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - likewise
        try:
            self._writer.write(buffer)
            await self._writer.drain()
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def get_extra_info(self, info: str) -> bool | None:
        """Asked of an idle connection: one that can be read has ended."""
        return self._reader.at_eof() if info == "is_readable" else None
