"""Packages up and down over a real server."""

import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.rpc.fake_host import FakeHost

from pipelinehost import Client, errors
from pipelinehost.address import Address
from pipelinehost.channel import Connections, Patience
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Artifact

MIB = 1024 * 1024


@pytest.fixture
def host() -> Iterator[FakeHost]:
    with FakeHost() as host:
        yield host


@pytest.fixture
def client(host: FakeHost) -> Iterator[Client]:
    with Client(host.address, token="") as client:
        yield client


def unavailable() -> errors.Unavailable:
    return errors.Unavailable(ErrorReason.ERROR_REASON_HOST_UNAVAILABLE, "The host is stopping.")


@pytest.mark.parametrize("size", [1, 512 * 1024, 512 * 1024 + 1, 3 * MIB + 5])
def test_what_goes_up_comes_down(host: FakeHost, client: Client, tmp_path: Path, size: int) -> None:
    package = tmp_path / "in.zip"
    package.write_bytes(os.urandom(size))
    up: list[tuple[int, int]] = []
    artifact = client.upload(package, lambda done, all_: up.append((done, all_)))
    assert artifact.name == "artifacts/" + hashlib.sha256(package.read_bytes()).hexdigest()
    assert up[-1] == (size, size)
    down: list[tuple[int, int]] = []
    out = client.download(artifact.name, tmp_path / "out.zip", on_progress=lambda *done: down.append(done))
    assert out.read_bytes() == package.read_bytes()
    assert down[-1] == (size, size)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.zip", "out.zip"]


def test_an_upload_that_is_cut_off_is_made_again(host: FakeHost, client: Client, tmp_path: Path) -> None:
    package = tmp_path / "in.zip"
    package.write_bytes(os.urandom(2 * MIB))
    host.failures["UploadArtifact"] = [unavailable()]
    assert client.upload(package).size == 2 * MIB
    assert len(host.seen("UploadArtifact")) == 2


def test_a_file_that_is_not_there(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.upload(tmp_path / "nope.zip")


def test_a_file_that_changes_while_it_is_sent_is_refused(
    host: FakeHost, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "in.zip"
    package.write_bytes(b"a" * MIB)

    def change(done: int, size: int) -> None:
        with package.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"b")

    with pytest.raises(errors.InvalidArgument) as caught:
        client.upload(package, change)
    assert caught.value.reason == ErrorReason.ERROR_REASON_DIGEST_MISMATCH


def test_an_error_of_the_reader_comes_out_as_itself(client: Client, tmp_path: Path) -> None:
    package = tmp_path / "in.zip"
    package.write_bytes(b"a" * MIB)

    def fail(done: int, size: int) -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        client.upload(package, fail)


def test_a_folder_gets_the_name_that_exports_have(host: FakeHost, client: Client, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"managed")
    artifact = client.upload(tmp_path / "in")
    source = hashlib.sha256(b"unmanaged").hexdigest()
    host.artifacts[artifact.name].source_sha256 = source
    host.artifacts["artifacts/" + source] = Artifact(name="artifacts/" + source, size=9)
    host.packages["artifacts/" + source] = b"unmanaged"
    (tmp_path / "out").mkdir()
    managed = client.download(artifact.name, tmp_path / "out")
    unmanaged = client.download(artifact.name, tmp_path / "out", source=True)
    assert managed.name == "ContosoSales_1_2_0_0_managed.zip"
    assert (unmanaged.name, unmanaged.read_bytes()) == ("ContosoSales_1_2_0_0.zip", b"unmanaged")
    assert stat.S_IMODE(managed.stat().st_mode) & 0o600 == 0o600


def test_damaged_bytes_are_not_written(host: FakeHost, client: Client, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"a" * MIB)
    artifact = client.upload(tmp_path / "in")
    host.packages[artifact.name] = b"b" * MIB
    out = tmp_path / "out.zip"
    out.write_bytes(b"old")
    with pytest.raises(errors.DataLoss, match="another SHA-256"):
        client.download(artifact.name, out)
    assert out.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out.zip"]


def test_more_bytes_than_declared_are_not_written(host: FakeHost, client: Client, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"a" * MIB)
    artifact = client.upload(tmp_path / "in")
    host.packages[artifact.name] = b"a" * (2 * MIB)
    with pytest.raises(errors.DataLoss, match="more than"):
        client.download(artifact.name, tmp_path / "out.zip")


def test_another_package_than_asked_for_is_not_written(
    host: FakeHost, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "in").write_bytes(b"a")
    (tmp_path / "other").write_bytes(b"b")
    artifact, other = client.upload(tmp_path / "in"), client.upload(tmp_path / "other")
    host.artifacts[artifact.name] = host.artifacts[other.name]
    with pytest.raises(errors.DataLoss, match="another package"):
        client.download(artifact.name, tmp_path / "out.zip")


def test_a_download_that_is_cut_off_is_made_again(host: FakeHost, client: Client, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"a" * MIB)
    artifact = client.upload(tmp_path / "in")
    host.failures["DownloadArtifact"] = [unavailable()]
    assert client.download(artifact.name, tmp_path / "out.zip").stat().st_size == MIB


class Clock:
    """Moved by sleeping alone."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the client's patience is measured with."""
    clock = Clock()
    monkeypatch.setattr("pipelinehost.channel.time", clock)
    return clock


def test_nobody_there_is_told_of_an_upload_as_soon_as_of_a_call(
    host: FakeHost, tmp_path: Path, clock: Clock
) -> None:
    host.stop()
    (tmp_path / "in").write_bytes(b"a" * MIB)
    with Client(host.address, token="") as client, pytest.raises(errors.Unavailable) as caught:
        client.upload(tmp_path / "in")
    assert clock.now == pytest.approx(6)
    assert caught.value.message == f"The host at {host.address} cannot be reached: Connection refused."
    assert "running" in caught.value.remedy


def test_nobody_there_is_told_of_every_transfer(host: FakeHost, tmp_path: Path, clock: Clock) -> None:
    host.stop()
    with Client(host.address, token="") as client:
        with pytest.raises(errors.Unavailable, match="cannot be reached"):
            client.download("artifacts/" + "0" * 64, tmp_path / "out")
        with pytest.raises(errors.Unavailable, match="cannot be reached"):
            list(client.validate("pipelines/sales", artifact="artifacts/" + "0" * 64))
    assert clock.now == pytest.approx(12)


class NoSuchName(grpc.RpcError):
    """What grpc raises for it; nothing here asks a name server."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return (
            "errors resolving nobody:1: [field:hostname lookup error:address lookup failed for nobody:1: "
            "Domain name not found]"
        )

    def trailing_metadata(self) -> tuple[Any, ...]:
        return ()


def test_a_name_that_is_no_host_is_told() -> None:
    connections = Connections(Address("nobody", 1), token="", tls=True, ca_file=None, deadline=1)
    with pytest.raises(errors.Unavailable) as caught, connections.typed_errors():
        raise NoSuchName
    assert caught.value.message == "The host at nobody:1 cannot be reached: Domain name not found."
    connections.close()


def test_a_host_that_comes_back_while_an_upload_begins_is_waited_for(host: FakeHost, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"a" * MIB)
    host.stop()
    back = threading.Timer(1.5, host.start)
    back.start()
    with Client(host.address, token="") as client:
        assert client.upload(tmp_path / "in").size == MIB
    back.join()


def test_a_host_that_goes_away_in_the_middle_is_waited_for_longer() -> None:
    gone = errors.Unavailable(
        ErrorReason.ERROR_REASON_HOST_UNAVAILABLE, "nobody", metadata={"address": "127.0.0.1:1"}
    )
    patience = Patience(60.0, nobody_there=0.0)
    patience.failed(unavailable())
    patience.failed(gone)  # restarting
    with pytest.raises(errors.Unavailable, match="nobody"):
        Patience(60.0, nobody_there=0.0).failed(gone)
