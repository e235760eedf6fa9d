"""Hosts as a whole: starting, refusing to start, restarting, stopping."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.rpc.conftest import Bed

from pipelinehost import errors
from pipelinehost.address import Address
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.pipeline_host_pb2_grpc import PipelineHostStub
from pipelinehost.v1.resources_pb2 import Event
from pipelinehost_server.app import AddressRefused, Host, new_administrator_token, parse_address
from pipelinehost_server.config import Config
from pipelinehost_server.store import StoreLocked


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


def config(folder: Path, **more: Any) -> Config:
    return Config(folder=folder, **{"address": "127.0.0.1:0", **more})


async def caller(host: Host, token: str) -> str:
    async with grpc.aio.insecure_channel(str(host.address)) as channel:
        stub: Any = PipelineHostStub(channel)
        answer = await stub.GetHost(api.GetHostRequest(), metadata=[("authorization", f"Bearer {token}")])
        name: str = answer.caller
        return name


async def test_the_first_start_makes_a_token_that_nobody_else_can_read(tmp_path: Path, state: Path) -> None:
    host = Host(config(tmp_path / "data"))
    await host.start()
    token = host.token_file.read_text().strip()
    left = host.address.token_file()
    assert left.is_relative_to(state)
    assert left.read_text().strip() == token
    assert await caller(host, token) == "principals/admin"
    for file in (host.token_file, left):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for folder in (left.parent, left.parent.parent, tmp_path / "data"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    everything = b"".join(
        p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file() and p != host.token_file
    )
    await host.stop(0)
    assert token.encode() not in everything
    assert token[12:].encode() not in everything


async def test_a_restart_keeps_the_token(tmp_path: Path, state: Path) -> None:
    tokens, addresses = [], []
    for _ in range(2):
        host = Host(config(tmp_path / "data"))
        await host.start()
        tokens.append(host.token_file.read_text())
        addresses.append(host.address.token_file())
        assert await caller(host, tokens[0].strip()) == "principals/admin"
        await host.stop(0)
    assert tokens[0] == tokens[1]
    port = 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    left = Address("127.0.0.1", port).token_file()
    for before in (
        None,
        "ph_00000000_" + "x" * 43 + "\n",
    ):  # missing, or of another host at this address before
        if before is None:
            assert not left.exists()
        else:
            left.write_text(before)
        host = Host(config(tmp_path / "data", address=f"127.0.0.1:{port}"))
        await host.start()
        assert left.read_text() == tokens[0]
        await host.stop(0)
    left.unlink()
    (tmp_path / "data" / "admin-token").unlink()
    host = Host(config(tmp_path / "data", address=f"127.0.0.1:{port}"))
    await host.start()
    assert not left.exists()
    assert not host.token_file.exists()
    assert await caller(host, tokens[0].strip()) == "principals/admin"
    await host.stop(0)


async def test_two_hosts_on_one_machine_do_not_disturb_each_other(tmp_path: Path, state: Path) -> None:
    hosts = [Host(config(tmp_path / name)) for name in ("a", "b")]
    for host in hosts:
        await host.start()
    tokens = [host.address.token_file().read_text().strip() for host in hosts]
    assert tokens[0] != tokens[1]
    for i, host in enumerate(hosts):
        own, other = tokens[i], tokens[1 - i]
        assert await caller(host, own) == "principals/admin"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller(host, other)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    await hosts[0].stop(0)
    assert await caller(hosts[1], tokens[1]) == "principals/admin"
    await hosts[1].stop(0)


async def test_a_home_that_cannot_be_written_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    host = Host(config(tmp_path / "data"))
    await host.start()
    assert await caller(host, host.token_file.read_text().strip()) == "principals/admin"
    await host.stop(0)


async def test_one_host_per_folder(tmp_path: Path, state: Path) -> None:
    host = Host(config(tmp_path / "data"))
    await host.start()
    token = host.token_file.read_text().strip()
    with pytest.raises(StoreLocked, match=str(os.getpid())):
        await Host(config(tmp_path / "data")).start()
    assert await caller(host, token) == "principals/admin"
    await host.stop(0)


async def test_one_host_per_port(tmp_path: Path, state: Path) -> None:
    host = Host(config(tmp_path / "a"))
    await host.start()
    second = Host(config(tmp_path / "b", address=str(host.address)))
    with pytest.raises(AddressRefused, match="another program"):
        await second.start()
    assert host.address.token_file().read_text() == host.token_file.read_text()
    await host.stop(0)
    retried = Host(config(tmp_path / "b"))  # the folder was let go
    await retried.start()
    await retried.stop(0)


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0:50051",
        "[::]:1",
        "10.0.0.1:1",
        "example.com:1",
        "127.0.0.1",
        ":1",
        "unix:x",
        "127.0.0.1:65536",
        "",
    ],
)
def test_only_loopback_is_served_without_tls(text: str) -> None:
    with pytest.raises(AddressRefused):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("localhost:5", ("localhost", 5)),
        ("[::1]:50051", ("::1", 50051)),
        ("127.1.2.3:5", ("127.1.2.3", 5)),
    ],
)
def test_addresses_on_loopback(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


def test_a_token_that_is_made_while_the_host_is_stopped_leaves_the_record_whole(bed: Bed) -> None:
    bed.stop()
    bed.thread.run(new_administrator_token(bed.folder))
    bed.start()
    result = bed.call("VerifyEvents", api.VerifyEventsRequest())[-1].result
    assert (result.HasField("fault"), result.checked) == (False, len(bed.events()))
    assert [e.kind for e in bed.events()].count(Event.KIND_TOKEN_CREATED) == 2


def test_the_record_tells_every_start(bed: Bed) -> None:
    bed.stop()
    bed.start()
    starts = [e for e in bed.events() if e.kind == Event.KIND_HOST_STARTED]
    assert len(starts) == 2
    assert {e.actor for e in starts} == {"host"}
    assert str(bed.host.address) in starts[1].message


class Process:
    """The command, in a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "pipelinehost_server", "serve", "--data", str(folder), *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ready(self) -> dict[str, str]:
        assert self.process.stdout is not None
        words = shlex.split(self.process.stdout.readline())
        assert words[:2] == ["pipelinehost-server", "ready"], self.process.communicate(timeout=20)
        return dict(word.split("=", 1) for word in words[2:])

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for p in started:
        if p.process.poll() is None:
            p.process.kill()
            p.process.communicate()


def test_the_command_serves_until_it_is_told_to_stop(
    tmp_path: Path, state: Path, processes: list[Process]
) -> None:
    folder = tmp_path / "my data"
    host = Process(folder, "--address", "127.0.0.1:0", "--region", "europe")
    processes.append(host)
    facts = host.ready()
    assert facts["data"] == str(folder)
    token = Path(facts["token"]).read_text().strip()
    with grpc.insecure_channel(facts["address"]) as channel:
        stub: Any = PipelineHostStub(channel)
        answer = stub.GetHost(api.GetHostRequest(), metadata=[("authorization", f"Bearer {token}")])
        assert (answer.region, answer.caller) == ("europe", "principals/admin")
        checks: Any = health_pb2_grpc.HealthStub(channel)
        health = checks.Watch(health_pb2.HealthCheckRequest())
        told = [next(health).status]
        second = Process(folder, "--address", "127.0.0.1:0")
        processes.append(second)
        code, out, err = second.end()
        assert (code, out) == (1, "")
        assert len(err.splitlines()) == 1
        assert str(host.process.pid) in err
        host.process.send_signal(signal.SIGTERM)
        told.append(next(health).status)
        with pytest.raises(grpc.RpcError) as ended:
            next(health)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert told == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
    code, out, err = host.end()
    assert (code, out) == (0, "")
    assert "Traceback" not in err
    assert token not in err


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path, processes: list[Process]) -> None:
    wrong = Process(tmp_path, "--address", "0.0.0.0:50051")
    processes.append(wrong)
    code, out, err = wrong.end()
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "loopback" in err


def test_calls_that_wait_when_the_host_stops_are_to_be_repeated(idle: Bed) -> None:
    idle.stop()
    idle.channel = grpc.insecure_channel(str(idle.host.address))
    with pytest.raises(errors.Unavailable):
        idle.call("GetHost", api.GetHostRequest())
    idle.channel.close()
    idle.start()
