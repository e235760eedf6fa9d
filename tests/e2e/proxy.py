"""A loopback proxy between the host and environments, to do something at a chosen request, or to lose it."""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_SECONDS = 60.0

Weather = Callable[[str, str], float | None]
"""Seconds to hold a request ``before`` it is passed on, or its answer ``after`` that; None loses it."""


class Proxy:
    """Passes requests on to an address. Once, at a request or at its answer, it does what it was told."""

    def __init__(self, weather: Weather = lambda when, what: 0.0) -> None:
        self.target = ""
        self._weather = weather
        self._points: list[tuple[str, re.Pattern[str], Callable[[], bool]]] = []
        self._lock = threading.Lock()
        self._idle = threading.Condition()
        self._passing = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                with proxy._idle:
                    proxy._passing += 1
                try:
                    proxy._pass(self)
                finally:
                    with proxy._idle:
                        proxy._passing -= 1
                        proxy._idle.notify_all()

            do_GET = do_POST = do_PATCH = do_DELETE = do  # noqa: N815 - as the base class calls them

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:  # the other side was killed
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def url(self, environment: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{environment}"

    def at(self, when: str, pattern: str, act: Callable[[], bool]) -> None:
        """Act at the next request that matches ``METHOD /path``: ``before`` it is passed on, or ``after`` it
        was answered. Where ``act`` gives False, the connection ends there, without an answer.
        """
        with self._lock:
            self._points.append((when, re.compile(pattern), act))

    def wait_until_idle(self) -> None:
        """Return when no request is on its way."""
        with self._idle:
            assert self._idle.wait_for(lambda: not self._passing, _SECONDS)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _pass(self, handler: BaseHTTPRequestHandler) -> None:
        what = f"{handler.command} {handler.path}"
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        handler.close_connection = True
        if not self._reached("before", what):
            return
        onward = http.client.HTTPConnection(self.target, timeout=_SECONDS)
        with contextlib.closing(onward):
            onward.request(handler.command, handler.path, body, dict(handler.headers))
            answer = onward.getresponse()
            content = answer.read()
        if not self._reached("after", what):
            return
        handler.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)
        handler.close_connection = False

    def _reached(self, when: str, what: str) -> bool:
        path = what.partition("?")[0]
        seconds = self._weather(when, path)
        if seconds is None:
            return False
        if seconds:
            time.sleep(seconds)
        with self._lock:
            for point in self._points:
                if point[0] == when and point[1].search(what if "?" in point[1].pattern else path):
                    self._points.remove(point)
                    break
            else:
                return True
        return point[2]()
