"""The record of a host that is killed, while the CLI watches it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.processes import HostProcess

from pipelinehost.v1.resources_pb2 import Environment


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostProcess]:
    host = HostProcess(tmp_path / "host")
    host.start()
    yield host
    host.kill()


def cli(host: HostProcess, *arguments: str) -> list[str]:
    token = str(host.data / "admin-token")
    program = "import sys; from pipelinehost.cli import main; main()"
    return [sys.executable, "-c", program, "--host", host.address, "--token-file", token, *arguments]


def change(host: HostProcess, begin: int, end: int) -> None:
    with host.client() as client:
        for number in range(begin, end):
            environment = client.environment("qa")
            environment.description = f"change {number}"
            client.update_environment(environment)


def test_the_cli_watches_a_host_that_is_killed_and_its_record_stays_provable(
    host: HostProcess, tmp_path: Path
) -> None:
    with host.client() as client:
        client.create_environment(Environment(name="environments/qa", kind=Environment.KIND_TARGET))
    watch = subprocess.Popen(
        cli(host, "event", "watch", "-o", "jsonl", "--from-beginning"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=host.environ(),
    )
    seen: list[dict[str, object]] = []
    reading = threading.Thread(target=lambda: seen.extend(map(json.loads, watch.stdout or ())))
    reading.start()
    change(host, 0, 10)
    for round_ in range(1, 3):
        host.kill()
        host.start()
        change(host, 10 * round_, 10 * round_ + 10)
    with host.client() as client:
        told = list(client.events())
    until = time.monotonic() + 30
    while len(seen) < len(told) and time.monotonic() < until:
        time.sleep(0.05)
    watch.send_signal(signal.SIGINT)
    code = watch.wait(20)
    reading.join()
    assert watch.stderr is not None
    words = watch.stderr.read()
    assert watch.stdout is not None
    watch.stdout.close()
    watch.stderr.close()
    assert [event["sequence"] for event in seen] == [event.sequence for event in told]
    assert [event["peer"] for event in seen] == [event.peer for event in told]
    assert code == 8
    assert "event watch --resume-token" in words

    path = tmp_path / "record.jsonl"
    for arguments in (["export", "-o", str(path)], ["verify", "--file", str(path)]):
        subprocess.run(cli(host, "event", *arguments), check=True, timeout=60, env=host.environ())
