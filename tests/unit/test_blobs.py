"""Packages on disk: whole, under their digest, readable by nobody else, and never damaged unseen."""

import asyncio
import hashlib
import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelinehost.errors import DataLoss, InvalidArgument, ResourceExhausted
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost_server.blobs import Blobs, Upload

CHUNK = 512 * 1024


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    blobs = Blobs(tmp_path)
    blobs.start()
    return blobs


@pytest.fixture
def files(tmp_path: Path) -> Callable[[], list[str]]:
    """All files in the folder, by path."""
    return lambda: sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())


async def test_bytes_are_kept_under_their_digest(blobs: Blobs, files: Callable[[], list[str]]) -> None:
    content = random.Random(1).randbytes(3 * CHUNK + 17)
    sha256 = hashlib.sha256(content).hexdigest()
    async with await blobs.open_upload() as upload:
        for start in range(0, len(content), CHUNK):
            await upload.write(content[start : start + CHUNK])
        assert upload.size == len(content)
        assert await upload.commit(sha256, len(content)) == sha256
    assert files() == [f"blobs/{sha256[:2]}/{sha256}"]
    assert blobs.path(sha256).read_bytes() == content
    assert await blobs.read(sha256) == content
    assert blobs.size(sha256) == len(content)
    await blobs.verify(sha256)
    assert blobs.path(sha256).stat().st_mode & 0o777 == 0o600
    assert blobs.path(sha256).parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"", b"x", bytes(CHUNK), bytes(CHUNK + 1)])
async def test_put(blobs: Blobs, content: bytes) -> None:
    sha256 = await blobs.put(content)
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert await blobs.put(content) == sha256  # the same again is the same
    assert await blobs.read(sha256) == content


@pytest.mark.parametrize(("sha256", "size"), [("0" * 64, 3), (hashlib.sha256(b"abc").hexdigest(), 4)])
async def test_other_bytes_than_declared(
    blobs: Blobs, files: Callable[[], list[str]], sha256: str, size: int
) -> None:
    upload = await blobs.open_upload()
    await upload.write(b"abc")
    with pytest.raises(InvalidArgument) as refused:
        await upload.commit(sha256, size)
    assert refused.value.reason == ErrorReason.ERROR_REASON_DIGEST_MISMATCH
    for words in (sha256, f"{size} bytes", "3 bytes", hashlib.sha256(b"abc").hexdigest()):
        assert words in str(refused.value)
    assert files() == []


async def test_an_upload_that_ends_early_leaves_nothing(blobs: Blobs, files: Callable[[], list[str]]) -> None:
    async def broken() -> None:
        async with await blobs.open_upload() as upload:
            await upload.write(bytes(CHUNK))
            assert len(files()) == 1
            raise ConnectionError

    with pytest.raises(ConnectionError):
        await broken()
    assert files() == []

    async def stalled() -> None:
        async with await blobs.open_upload() as upload:
            await upload.write(bytes(CHUNK))
            await asyncio.sleep(60)

    task = asyncio.ensure_future(stalled())
    await asyncio.sleep(0.05)
    assert len(files()) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files() == []


async def test_a_caller_who_leaves_while_an_upload_is_opened_leaves_nothing(
    blobs: Blobs, files: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on, begun, real = threading.Event(), threading.Event(), Upload.__init__
    discarded, really = asyncio.Event(), Upload._discard

    def slow(upload: Upload, *arguments: Any) -> None:
        begun.set()
        assert going_on.wait(10)
        real(upload, *arguments)

    def seen(upload: Upload) -> None:
        really(upload)
        discarded.set()

    monkeypatch.setattr(Upload, "__init__", slow)
    monkeypatch.setattr(Upload, "_discard", seen)
    opening = asyncio.ensure_future(blobs.open_upload())
    await asyncio.to_thread(begun.wait, 10)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    going_on.set()
    async with asyncio.timeout(10):
        await discarded.wait()
    assert files() == []


async def test_what_a_killed_host_has_left_is_removed_at_the_start(
    blobs: Blobs, files: Callable[[], list[str]], tmp_path: Path
) -> None:
    kept = await blobs.put(b"kept")
    upload = await blobs.open_upload()
    await upload.write(b"half")
    await asyncio.sleep(0)
    assert len(files()) == 2
    Blobs(tmp_path).start()
    assert files() == [f"blobs/{kept[:2]}/{kept}"]
    await upload.abort()


async def test_flipped_bytes_are_found_everywhere(blobs: Blobs) -> None:
    rng = random.Random(2)
    content = rng.randbytes(200_000)
    sha256 = await blobs.put(content)
    path = blobs.path(sha256)
    found = 0
    positions = [0, *rng.sample(range(1, len(content) - 1), 998), len(content) - 1]
    with path.open("r+b") as file:
        for position in positions:
            file.seek(position)
            file.write(bytes([content[position] ^ 1 << rng.randrange(8)]))
            file.flush()
            for look in (blobs.verify, blobs.read):
                with pytest.raises(DataLoss, match="damaged"):
                    await look(sha256)
            found += 1
            file.seek(position)
            file.write(content[position : position + 1])
            file.flush()
    assert found == 1000
    await blobs.verify(sha256)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b""])
async def test_other_damage_is_found_and_mended_by_the_same_package(
    blobs: Blobs, change: Callable[[bytes], bytes]
) -> None:
    content = b"package" * 100
    sha256 = await blobs.put(content)
    blobs.path(sha256).write_bytes(change(content))
    with pytest.raises(DataLoss) as lost:
        await blobs.verify(sha256)
    assert lost.value.reason == ErrorReason.ERROR_REASON_ARTIFACT_DAMAGED
    assert lost.value.metadata == {"resource": f"artifacts/{sha256}"}
    assert "again" in lost.value.remedy
    await blobs.put(content)
    await blobs.verify(sha256)
    blobs.path(sha256).unlink()
    for look in (blobs.verify, blobs.read):
        with pytest.raises(DataLoss, match="No such file"):
            await look(sha256)
    with pytest.raises(DataLoss):
        blobs.size(sha256)


@pytest.mark.parametrize(
    "name",
    ["", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 63 + "/", "a" * 64 + "\n", "a" * 63 + "\0", "é" * 64],
)
async def test_no_name_from_outside_names_a_file(blobs: Blobs, name: str) -> None:
    with pytest.raises(ValueError, match="no SHA-256"):
        blobs.path(name)
    with pytest.raises(ValueError, match="no SHA-256"):
        await blobs.read(name)


async def test_a_package_is_on_the_disk_before_it_has_its_name(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing power cannot be tried here; the order of what makes a rename durable can."""
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def seen_fsync(file: int) -> None:
        steps.append("fsync " + Path(f"/proc/self/fd/{file}").readlink().name)
        fsync(file)

    def seen_rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "rename", seen_rename)
    sha256 = await blobs.put(b"x")
    assert steps[0].startswith("fsync ")
    assert steps[1:] == ["rename", f"fsync {sha256[:2]}", "fsync blobs"]


async def test_many_uploads_at_once(blobs: Blobs, files: Callable[[], list[str]]) -> None:
    contents = [random.Random(seed).randbytes(300_000) for seed in range(20)] * 2
    digests = await asyncio.gather(*(blobs.put(content) for content in contents))
    assert digests == [hashlib.sha256(content).hexdigest() for content in contents]
    assert len(files()) == 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, timeout=10, check=False)
    except OSError as error:
        pytest.skip(f"no small disk can be made here: {error}")
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be made here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], timeout=10, check=True)


async def test_a_full_disk_keeps_nothing_and_heals(small_disk: Path) -> None:
    blobs = Blobs(small_disk)
    small = await blobs.put(b"small")
    with pytest.raises(ResourceExhausted) as refused:
        await blobs.put(bytes(5 * CHUNK))
    assert refused.value.metadata == {"limit": "disk"}
    left = [p.name for p in small_disk.rglob("*") if p.is_file()]  # noqa: ASYNC240 - a quiet loop
    assert left == [small]
    await blobs.verify(small)
    await blobs.put(bytes(CHUNK))
