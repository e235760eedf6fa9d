"""Packages up and down: chunks of 512 KiB, the SHA-256 checked at both ends, files replaced in one step."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pipelinehost import names
from pipelinehost.errors import DataLoss, Unavailable
from pipelinehost.v1.artifacts_pb2 import DownloadArtifactResponse, UploadArtifactRequest
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Artifact

CHUNK_BYTES = 512 * 1024
"""Measured to be at or near the fastest in both directions; the host accepts no larger one."""

OnProgress = Callable[[int, int], None]
"""Called with the bytes that have been moved and the bytes in all."""


class Upload:
    """The messages that upload one file; an attempt iterates over them once.

    Args:
        path: the package.
        on_progress: told about every chunk; called in a thread of grpc.

    Raises:
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path, on_progress: OnProgress | None = None) -> None:
        self._path = path
        self._on_progress = on_progress
        self.failure: Exception | None = None
        with path.open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            self.size = file.tell()

    def __iter__(self) -> Iterator[UploadArtifactRequest]:
        sent = 0
        try:
            yield UploadArtifactRequest(
                declaration=UploadArtifactRequest.Declaration(size=self.size, sha256=self.sha256)
            )
            with self._path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield UploadArtifactRequest(chunk=chunk)
                    sent += len(chunk)
                    if self._on_progress is not None:
                        self._on_progress(sent, self.size)
        except Exception as error:
            self.failure = error  # grpc swallows it and cancels the call
            raise


def receive(
    responses: Iterable[DownloadArtifactResponse],
    name: str,
    path: Path,
    on_progress: OnProgress | None = None,
) -> Path:
    """Writes a downloaded package to a file that appears only when it is complete and right.

    Args:
        responses: what `DownloadArtifact` sends.
        name: the artifact asked for.
        path: the file, replaced if it is there; or a folder, where it gets the name that exports have.
        on_progress: told about every chunk.

    Returns:
        The file written.

    Raises:
        DataLoss: the bytes are not those that were declared or asked for.
        Unavailable: the host stopped before the end.
        OSError: the file cannot be written.
    """
    stream = iter(responses)
    first = next(stream, None)
    if first is None or first.WhichOneof("part") != "declaration":
        raise _cut_off(name)
    declared = first.declaration
    if path.is_dir():
        path /= file_name(declared.artifact, source=declared.sha256 != names.slug(declared.artifact.name))
    wanted = {names.slug(name), declared.artifact.source_sha256}
    if declared.artifact.name != name or declared.sha256 not in wanted:
        raise _damaged(f"The host sent another package than {name}.")
    handle, temporary = tempfile.mkstemp(prefix=".pipelinehost-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            digest, size = hashlib.sha256(), 0
            for response in stream:
                size += file.write(response.chunk)
                digest.update(response.chunk)
                if size > declared.size:
                    raise _damaged(
                        f"{name}: the host sent more than the {declared.size} bytes it had declared."
                    )
                if on_progress is not None:
                    on_progress(size, declared.size)
            if size < declared.size:
                raise _cut_off(name)
            if digest.hexdigest() != declared.sha256:
                raise _damaged(f"{name}: the bytes that arrived have another SHA-256 than the host declared.")
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)  # mkstemp's 0600 would surprise
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def file_name(artifact: Artifact, *, source: bool) -> str:
    """The name that exports have in the ecosystem: ``Sales_1_2_0_0_managed.zip``."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", f"{artifact.solution}_{artifact.version}")
    return f"{stem}{'_managed' if artifact.managed and not source else ''}.zip"


def _damaged(message: str) -> DataLoss:
    return DataLoss(
        ErrorReason.ERROR_REASON_DIGEST_MISMATCH, message, remedy="Download it again. Nothing was written."
    )


def _cut_off(name: str) -> Unavailable:
    return Unavailable(
        ErrorReason.ERROR_REASON_HOST_UNAVAILABLE,
        f"{name}: the host stopped sending before the end.",
        remedy="Download it again. Nothing was written.",
    )
