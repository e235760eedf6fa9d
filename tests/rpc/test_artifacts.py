"""Packages up and down: sizes, digests, order, stalls, damage."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.rpc.conftest import Bed, package, parts

from pipelinehost import errors
from pipelinehost.v1 import artifacts_pb2 as api
from pipelinehost.v1 import pipeline_host_pb2 as host_api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Event

Upload = api.UploadArtifactRequest


def left(bed: Bed) -> list[Path]:
    """What lies on the disk of uploads."""
    return [p for p in (bed.folder / "blobs").rglob("*") if p.is_file()]


def download(bed: Bed, name: str, **more: Any) -> tuple[Any, bytes]:
    first, *rest = bed.call("DownloadArtifact", api.DownloadArtifactRequest(name=name, **more))
    return first.declaration, b"".join(r.chunk for r in rest)


def test_a_package_goes_up_and_comes_back(bed: Bed) -> None:
    content = package()
    artifact = bed.upload(content)
    assert artifact.name == f"artifacts/{hashlib.sha256(content).hexdigest()}"
    assert (artifact.solution, artifact.version, artifact.managed) == ("Sales", "1.0.0.0", True)
    assert (artifact.size, artifact.creator) == (len(content), "principals/admin")
    assert bed.bridge("GetArtifact", api.GetArtifactRequest(name=artifact.name)) == artifact
    declaration, back = download(bed, artifact.name)
    assert back == content
    assert (declaration.artifact, declaration.size, declaration.sha256) == (
        artifact,
        len(content),
        artifact.name[10:],
    )
    first, *chunks = bed.bridge("DownloadArtifact", api.DownloadArtifactRequest(name=artifact.name))
    assert first.declaration == declaration
    assert b"".join(c.chunk for c in chunks) == content
    told = [e for e in bed.events() if e.subject == artifact.name]
    assert [e.kind for e in told] == [Event.KIND_ARTIFACT_STORED] + [Event.KIND_ARTIFACT_DOWNLOADED] * 2
    assert [e.artifact for e in told] == [artifact] * 3


def test_the_same_bytes_give_the_same_artifact(bed: Bed) -> None:
    content = package()
    first = bed.upload(content)
    assert bed.upload(content) == first
    assert bed.bridge("UploadArtifact", parts(content, chunk=1000)) == first
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(bed.upload, [content] * 8)) == [first] * 8
    assert [e.kind for e in bed.events() if e.subject == first.name] == [Event.KIND_ARTIFACT_STORED]
    assert len(left(bed)) == 1


CONTENT = package()
LIES: dict[str, tuple[Any, type[Exception], ErrorReason]] = {
    "larger than declared": (
        lambda: parts(CONTENT, size=len(CONTENT) - 1),
        errors.InvalidArgument,
        ErrorReason.ERROR_REASON_DIGEST_MISMATCH,
    ),
    "smaller than declared": (
        lambda: parts(CONTENT, size=len(CONTENT) + 1),
        errors.InvalidArgument,
        ErrorReason.ERROR_REASON_DIGEST_MISMATCH,
    ),
    "another digest": (
        lambda: parts(CONTENT, sha256="0" * 64),
        errors.InvalidArgument,
        ErrorReason.ERROR_REASON_DIGEST_MISMATCH,
    ),
    "a chunk twice": (
        lambda: [*parts(CONTENT, size=2 * len(CONTENT)), *list(parts(CONTENT))[1:]],
        errors.InvalidArgument,
        ErrorReason.ERROR_REASON_DIGEST_MISMATCH,
    ),
    "no declaration": (
        lambda: list(parts(CONTENT))[1:],
        errors.InvalidArgument,
        ErrorReason.ERROR_REASON_INVALID_FIELD,
    ),
    "two declarations": (
        lambda: [*list(parts(CONTENT))[:1], *parts(CONTENT)],
        errors.InvalidArgument,
        ErrorReason.ERROR_REASON_INVALID_FIELD,
    ),
    "nothing": (list, errors.InvalidArgument, ErrorReason.ERROR_REASON_INVALID_FIELD),
    "an empty message": (
        lambda: [*parts(CONTENT), Upload()],
        errors.InvalidArgument,
        ErrorReason.ERROR_REASON_INVALID_FIELD,
    ),
    "an empty chunk": (
        lambda: [*list(parts(CONTENT))[:1], Upload(chunk=b"")],
        errors.InvalidArgument,
        ErrorReason.ERROR_REASON_INVALID_FIELD,
    ),
    "a large chunk": (
        lambda: [*parts(b"", size=2**20, sha256="0" * 64), Upload(chunk=bytes(512 * 1024 + 1))],
        errors.InvalidArgument,
        ErrorReason.ERROR_REASON_INVALID_FIELD,
    ),
    "a negative size": (
        lambda: parts(CONTENT, size=-1),
        errors.InvalidArgument,
        ErrorReason.ERROR_REASON_INVALID_FIELD,
    ),
    "a digest that is a path": (
        lambda: parts(CONTENT, sha256="../../../etc/passwd"),
        errors.InvalidArgument,
        ErrorReason.ERROR_REASON_INVALID_FIELD,
    ),
    "more than the host takes": (
        lambda: parts(CONTENT, size=2**40),
        errors.ResourceExhausted,
        ErrorReason.ERROR_REASON_LIMIT_EXCEEDED,
    ),
    "no package": (
        lambda: parts(b"<html>sign in</html>"),
        errors.InvalidArgument,
        ErrorReason.ERROR_REASON_PACKAGE_INVALID,
    ),
    "half a package": (
        lambda: parts(CONTENT[: len(CONTENT) // 2]),
        errors.InvalidArgument,
        ErrorReason.ERROR_REASON_PACKAGE_INVALID,
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_nothing_is_kept_of_an_upload_that_lies(lie: str, bed: Bed) -> None:
    send, kind, reason = LIES[lie]
    before = bed.snapshot()
    for way in (bed.call, bed.bridge):
        with pytest.raises(kind) as refused:
            way("UploadArtifact", iter(send()))
        assert isinstance(refused.value, errors.PipelineHostError)
        assert refused.value.reason == reason
        if reason == ErrorReason.ERROR_REASON_PACKAGE_INVALID:
            assert refused.value.metadata["rule"]
            assert refused.value.remedy
    assert left(bed) == []
    assert bed.snapshot() == before


def test_an_upload_that_stands_still_ends(tmp_path: Path) -> None:
    bed = Bed(tmp_path / "data", upload_idle_seconds=0.2)
    try:
        go_on = threading.Event()

        def stalls() -> Iterator[Any]:
            yield from list(parts(CONTENT, chunk=100))[:3]
            go_on.wait(20)

        with pytest.raises(errors.DeadlineExceeded) as refused:
            bed.call("UploadArtifact", stalls())
        go_on.set()
        assert refused.value.reason == ErrorReason.ERROR_REASON_UPLOAD_STALLED
        assert left(bed) == []
    finally:
        bed.close()


def test_an_upload_that_its_caller_gives_up_leaves_nothing(bed: Bed) -> None:
    go_on = threading.Event()

    def endless() -> Iterator[Any]:
        yield from list(parts(CONTENT, chunk=100))[:3]
        go_on.wait(20)

    call = bed.channel.stream_unary(
        "/pipelinehost.v1.Artifacts/UploadArtifact", request_serializer=lambda m: m.SerializeToString()
    ).future(endless(), metadata=bed.metadata(None))
    deadline = time.monotonic() + 10
    while not left(bed) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left(bed)
    call.cancel()
    go_on.set()
    while left(bed) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left(bed) == []


def test_damaged_bytes_are_not_given_out_as_sound(bed: Bed) -> None:
    import random

    content = package()
    artifact = bed.upload(content)
    (blob,) = left(bed)
    chance = random.Random(7)
    for _ in range(20):
        at = chance.randrange(len(content))
        blob.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        for way in (bed.call, bed.bridge):
            with pytest.raises(errors.DataLoss) as refused:
                way("DownloadArtifact", api.DownloadArtifactRequest(name=artifact.name))
            assert refused.value.reason == ErrorReason.ERROR_REASON_ARTIFACT_DAMAGED
    blob.write_bytes(content[:-1])
    with pytest.raises(errors.DataLoss):
        download(bed, artifact.name)
    blob.unlink()
    with pytest.raises(errors.DataLoss):
        download(bed, artifact.name)
    bed.upload(content)
    assert download(bed, artifact.name)[1] == content


def test_the_unmanaged_twin(bed: Bed) -> None:
    managed, unmanaged = bed.upload(package()), bed.upload(package(managed=False))
    assert download(bed, unmanaged.name, source=True)[1] == package(managed=False)
    with pytest.raises(errors.NotFound):
        download(bed, managed.name, source=True)


def test_a_real_package(bed: Bed, real_solutions: Path) -> None:
    found = sorted((real_solutions / "valid").rglob("*.zip"), key=lambda p: p.stat().st_size)
    content = found[-1].read_bytes()
    artifact = bed.upload(content)
    assert artifact.component_count > 0
    assert download(bed, artifact.name)[1] == content
    bed.call("DescribeSolution", host_api.DescribeSolutionRequest(artifact=artifact.name))
    for broken in sorted((real_solutions / "broken").rglob("*.zip")):
        with pytest.raises(errors.InvalidArgument) as refused:
            bed.upload(broken.read_bytes())
        assert refused.value.metadata["rule"]
