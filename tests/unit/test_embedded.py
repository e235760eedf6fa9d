"""The process beside the host, where it ends again and again: real processes, which are of no use."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys

import pytest

from pipelinehost_dataverse.webapi import EnvironmentUnreachable
from pipelinehost_server import embedded
from pipelinehost_server.embedded import Embedded


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When a process was started, seconds; each has ended before anybody can ask it."""
    found: list[float] = []

    def start(_: Embedded) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["false"], stdin=subprocess.PIPE)
        process.wait()
        found.append(asyncio.get_running_loop().time())
        return process

    monkeypatch.setattr(Embedded, "_start", start)
    monkeypatch.setattr(embedded, "_FIRST_PAUSE", 0.1)
    monkeypatch.setattr(embedded, "_LAST_PAUSE", 0.4)
    return found


async def _asked(beside: Embedded, count: int) -> str:
    """Ask until it was started so often; gives what the last caller was told who had to wait."""
    told = ""
    async with asyncio.timeout(20):
        for _ in range(count):
            while True:
                try:
                    await beside.running()
                    break
                except EnvironmentUnreachable as error:
                    told = error.message
                    await asyncio.sleep(0.01)
    return told


async def test_each_end_makes_the_pause_longer_and_is_told(
    starts: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    beside = Embedded()
    told = await _asked(beside, 6)
    assert "has ended 5 times in a row, and starts again in 1 s; the host's log" in told
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert all(pause >= least for pause, least in zip(pauses, (0, 0.1, 0.2, 0.4, 0.4), strict=True)), pauses
    again = "the process of the embedded environments ended with 1: it starts again"
    messages = [record.getMessage().removeprefix(again).partition(":")[0] for record in caplog.records]
    assert messages == [
        "",  # at once
        " in 0.1 s. It has ended 2 times in a row",
        " in 0.2 s. It has ended 3 times in a row",
        " in 0.4 s. It has ended 4 times in a row",
        " in 0.4 s. It has ended 5 times in a row",
    ], "once for each end, not for each call"
    await beside.close()


async def test_one_that_has_lived_for_long_starts_again_at_once(
    starts: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = Embedded()
    await _asked(beside, 4)
    monkeypatch.setattr(embedded, "_SETTLED_SECONDS", 0.0)
    await beside.running()
    assert len(starts) == 5
    await beside.close()


_STARTS = """
import asyncio, os, sys, uvloop
from pipelinehost_server.embedded import Embedded

os.register_at_fork(after_in_child=lambda: os.write(1, b"forked"))

async def starts():
    beside = Embedded()
    await beside.running()
    await beside.close()

uvloop.run(starts())
"""


def test_nothing_of_the_host_runs_in_the_new_process_before_it_is_another() -> None:
    """In a copy of a process whose other threads were in gRPC, one start in ten was a segmentation fault."""
    told = subprocess.run([sys.executable, "-c", _STARTS], capture_output=True, check=True, timeout=60)
    assert told.stdout == b""
