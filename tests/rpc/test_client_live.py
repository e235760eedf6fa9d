"""What the CLI draws on a terminal: a real one, of a pseudo-terminal, read as a person would see it."""

import asyncio
import os
import pty
import re
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor

from tests.rpc.fake_host import RUN, FakeHost

from pipelinehost.v1.pipeline_host_pb2 import Queue
from pipelinehost.v1.resources_pb2 import Event, Finding, Progress, Run, Step


def on_a_terminal(address: str, *words: str) -> tuple[subprocess.Popen[bytes], int]:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 100))
    environment = os.environ | {
        "PIPELINEHOST_ADDRESS": address,
        "PIPELINEHOST_TOKEN": "x",
        "TERM": "xterm-256color",
    }
    program = subprocess.Popen(
        [sys.executable, "-c", "from pipelinehost.cli import main; main()", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment | {"PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"},
    )
    os.close(theirs)
    return program, ours


def read_to_end(ours: int) -> str:
    text = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end was closed
            break
        if not piece:
            break
        text += piece
    os.close(ours)
    return text.decode()


def screen(written: str) -> list[str]:
    """The lines that remain visible: the few control sequences that are used here, obeyed."""
    lines, row = [""], 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r\n|\r|\n|[^\x1b\r\n]+", written):
        if token == "\r\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif token.endswith("A") and token.startswith("\x1b"):
            row -= int(token[2:-1] or 1)
        elif token == "\x1b[2K":
            lines[row] = ""
        elif not token.startswith("\x1b") and token not in "\r\n":
            lines[row] += token
    return [line.rstrip() for line in lines if line.strip()]


async def play(host: FakeHost, run: Run) -> None:
    await host.enter(run, Run.STATE_WAITING_FOR_TARGET)
    host.queues["environments/qa"] = Queue(waiting=["runs/other", run.name])
    async with asyncio.timeout(30):
        while not host.watches:  # noqa: ASYNC110 - the fake host tells nobody that a watch is back
            await asyncio.sleep(0.05)
    await asyncio.sleep(2.5)
    await host.enter(run, Run.STATE_DEPLOYING)
    await host.append(
        Event(
            kind=Event.KIND_FINDING,
            subject=run.name,
            finding=Finding(
                code="ODD", severity=Finding.SEVERITY_WARNING, cause="Odd\x1b[2J.", remedy="Look."
            ),
        )
    )
    await host.step(run, Step.KIND_IMPORT, Step.STATE_RUNNING)
    progress = Progress(step=Step.KIND_IMPORT, percent=62, detail="workflows")
    await host.append(Event(kind=Event.KIND_PROGRESS, subject=run.name, progress=progress))
    await asyncio.sleep(1.0)
    await host.step(run, Step.KIND_IMPORT, Step.STATE_SUCCEEDED, "64 components")
    run.version = "1.2.0.0"
    await host.enter(run, Run.STATE_SUCCEEDED)


def test_a_run_on_a_terminal_also_when_the_host_restarts() -> None:
    with FakeHost() as host:
        host.heartbeat_seconds = 0.2
        run = host.new_run(
            RUN,
            solution="Sales",
            stage="pipelines/sales/stages/qa",
            pipeline="pipelines/sales",
            artifact="artifacts/x",
        )
        run.target_environment = "environments/qa"
        program, ours = on_a_terminal(host.address, "run", "watch", RUN)
        # A terminal that nobody reads holds the program up as soon as it is full.
        reader = ThreadPoolExecutor(1).submit(read_to_end, ours)
        deadline = time.monotonic() + 20
        while not host.watches and time.monotonic() < deadline:
            time.sleep(0.02)
        host.stop()
        host.watches = 0  # those of the host that was stopped
        time.sleep(1.0)
        host.start()
        host.do(play(host, run))
        written = reader.result(30)
        assert program.wait(20) == 0
    seen = screen(written)
    assert seen[:3] == ["  ! ODD", "    Odd�[2J.", "    → Look."]
    assert seen[3] == f"Deploying Sales 1.2.0.0 to sales/qa   {RUN}"
    assert [line.split()[:2] for line in seen[4:8]] == [
        ["·", "validate"],
        ["✓", "import"],
        ["·", "publish"],
        ["·", "verify"],
    ]
    assert seen[8:] == ["✓ Succeeded: qa holds Sales 1.2.0.0.", f"{RUN} SUCCEEDED"]
    assert "\x1b[2J" not in written
    for passing in ("waiting for qa: 2 runs before this one", "cannot be reached", " 62%", "━━━"):
        assert passing in written
