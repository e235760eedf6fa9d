"""A receiver of webhooks in a process of its own: it answers as a file tells it, and writes down what came.

``python tests/receiver.py FOLDER PORT``. ``FOLDER/mode`` has one of the words of ``Handler.answer``; each
request becomes a line of ``FOLDER/log`` before it is answered.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Receiver:
    """The process, and what it has got."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, port
        self._popen: subprocess.Popen[str] | None = None
        self.mode("204")
        (folder / "log").touch()

    def mode(self, word: str) -> None:
        """How it answers from now on."""
        draft = self.folder / "mode.draft"
        draft.write_text(word)
        draft.replace(self.folder / "mode")

    def start(self) -> str:
        """Listen, on the same port as before; gives the address."""
        command = [sys.executable, __file__, str(self.folder), str(self.port)]
        self._popen = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._popen.stdout is not None
        self.port = int(self._popen.stdout.readline())
        return self.url

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks?team=a"

    def kill(self) -> None:
        """As a power cut would."""
        if self._popen is not None:
            self._popen.send_signal(signal.SIGKILL)
            self._popen.wait(10)
            assert self._popen.stdout is not None
            self._popen.stdout.close()
            self._popen = None

    def got(self) -> list[dict[str, Any]]:
        """The requests: ``headers`` (in small letters), ``body`` (bytes), ``path`` and ``mode``."""
        found = [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]
        return [{**one, "body": base64.b64decode(one["body"])} for one in found]

    def wait(self, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Until enough has come."""
        ends = time.monotonic() + 30
        while not enough(got := self.got()):
            assert time.monotonic() < ends, [one["mode"] for one in got]
            time.sleep(0.02)
        return got


def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


class Handler(BaseHTTPRequestHandler):
    """Answers a request, more or less."""

    folder: Path

    def do_GET(self) -> None:
        """As redirects are followed by some."""
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        mode = (self.folder / "mode").read_text()
        line = {
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": base64.b64encode(body).decode(),
            "path": self.path,
            "mode": mode,
        }
        with (self.folder / "log").open("a") as log:
            log.write(json.dumps(line) + "\n")
        with suppress(OSError):
            self.answer(mode)

    def answer(self, mode: str) -> None:
        """A number is a status; the other words say what is done in place of an answer."""
        word, _, rest = mode.partition(" ")
        if word == "die":
            os._exit(1)
        elif word == "hang":
            time.sleep(60)
        elif word == "late":
            time.sleep(0.5)
            self.send_response(204)
            self.end_headers()
        elif word == "drip":
            for letter in b"HTTP/1.1 200 OK\r\nx: " + b"y" * 10_000:
                self.wfile.write(bytes([letter]))
                time.sleep(0.05)
        elif word == "garbage":
            self.wfile.write(b"CANARY\x1b[31m no HTTP at all\r\n\r\n" * 3)
        elif word == "headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 1_000_000 + b"\r\n\r\n")
        elif word == "endless":
            self.wfile.write(b"HTTP/1.1 " + rest.encode() + b" CANARY\r\ncontent-type: text/plain\r\n\r\n")
            while True:
                self.wfile.write(b"CANARY" * 10_000)
        elif word == "redirect":
            self.send_response(307)
            self.send_header("location", rest)
            self.end_headers()
        else:
            self.send_response(int(word), "CANARY")
            self.send_header("content-length", "6")
            self.end_headers()
            self.wfile.write(b"CANARY")
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Not to standard error."""


if __name__ == "__main__":
    Handler.folder = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
    server.daemon_threads = True
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
