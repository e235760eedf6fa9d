"""Hosts and environments as processes of their own, started and killed as an administrator would see it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from pipelinehost import Client

_START_SECONDS = 60.0


class Process:
    """A program that says on its first line that it is ready, and on which address."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._arguments = arguments
        self._popen: subprocess.Popen[str] | None = None
        self._log: IO[bytes] | None = None
        self.address = ""

    def start(self) -> float:
        """Start it on the address that it had before; gives the seconds until it was ready."""
        begun = time.monotonic()
        self._log = (self.folder / "log").open("ab")
        self._popen = subprocess.Popen(
            [sys.executable, *self._arguments, *self._where()],
            stdout=subprocess.PIPE,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            text=True,
            env=self.environ(),
        )
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        found = re.search(r"(127\.0\.0\.1:\d+)", line)
        if found is None:
            raise AssertionError(f"not ready: {line!r}\n{(self.folder / 'log').read_text()[-4000:]}")
        self.address = found[1]
        return time.monotonic() - begun

    def _where(self) -> list[str]:
        raise NotImplementedError

    def environ(self) -> dict[str, str]:
        """The environment variables that it and its clients run with."""
        return {**os.environ, "XDG_STATE_HOME": str(self.folder / "state"), "PYTHONWARNINGS": "error"}

    def kill(self) -> None:
        """As a power cut would: no signal handler, no goodbye."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to stop; gives its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        if self._popen is None:
            return 0
        self._popen.send_signal(number)
        code = self._popen.wait(_START_SECONDS)
        assert self._popen.stdout is not None
        self._popen.stdout.close()
        assert self._log is not None
        self._log.close()
        self._popen = None
        return code

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._popen is not None
        return self._popen.pid


class HostProcess(Process):
    """``pipelinehost-server serve`` on a data folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.data = folder / "data"
        super().__init__(folder, "-m", "pipelinehost_server", "serve", "--data", str(self.data), *options)

    def _where(self) -> list[str]:
        return ["--address", self.address or "127.0.0.1:0"]

    def client(self) -> Client:
        """A client that is signed in as the administrator."""
        return Client(self.address, token=(self.data / "admin-token").read_text().strip())


class EmulatorProcess(Process):
    """``pipelinehost-emulator serve`` with environments of these names."""

    def __init__(self, folder: Path, *names: str, options: tuple[str, ...] = ()) -> None:
        data = ["--data", str(folder / "environments")]
        named = [word for name in names for word in ("--environment", name)]
        super().__init__(folder, "-m", "pipelinehost_dataverse.emulator", "serve", *data, *named, *options)

    def _where(self) -> list[str]:
        return ["--port", self.address.rpartition(":")[2] or "0"]

    def url(self, name: str) -> str:
        """Address of one of its environments."""
        return f"http://{self.address}/{name}"
