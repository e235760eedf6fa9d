"""The service Artifacts: packages up and down in chunks, checked by size and digest."""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import os
import re
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Final

from google.protobuf.message import Message

from pipelinehost import names
from pipelinehost.errors import (
    DataLoss,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Violation,
)
from pipelinehost.v1 import artifacts_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Artifact, Event
from pipelinehost_dataverse.solution import PackageError, Solution, read
from pipelinehost_server import named
from pipelinehost_server.access import Access, Caller
from pipelinehost_server.api import listing
from pipelinehost_server.api.configure import invalid
from pipelinehost_server.blobs import Blobs, Upload
from pipelinehost_server.config import Config
from pipelinehost_server.deployment.freezes import REASON
from pipelinehost_server.deployment.packages import describe
from pipelinehost_server.store import Once, Store, Transaction

CHUNK: Final = 512 * 1024
"""Largest chunk, in bytes, both ways."""
_READING: Final = 2
"""Packages that are read at once: it is work for a processor, and a part of each is in memory."""
_UPLOAD: Final = "/pipelinehost.v1.Artifacts/UploadArtifact"
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ArtifactMethods:
    """What the guard calls for the RPCs of the service of this name; ``GetArtifact`` is ``get_artifact``."""

    def __init__(
        self,
        config: Config,
        store: Store,
        blobs: Blobs,
        pages: listing.Pages,
        access: Access,
        once: Callable[[Message, Caller], Once],
    ) -> None:
        self._config = config
        self._store = store
        self._blobs = blobs
        self._pages = pages
        self._access = access
        self._once = once
        self._reading = asyncio.Semaphore(_READING)

    def get_artifact(self, request: api.GetArtifactRequest, caller: Caller) -> Artifact:
        """One artifact."""
        del caller
        return named.artifact(self._store.reads, request.name)

    def list_artifacts(self, request: api.ListArtifactsRequest, caller: Caller) -> api.ListArtifactsResponse:
        """A page of artifacts, newest first."""
        return self._pages.page(listing.ARTIFACTS, api.ListArtifactsResponse, request, caller)

    async def block_artifact(self, request: api.BlockArtifactRequest, caller: Caller) -> Artifact:
        """Keeps an artifact from being deployed."""
        return await self._blocked(
            request, caller, Artifact.Block(reason=request.reason, principal=caller.name)
        )

    async def unblock_artifact(self, request: api.UnblockArtifactRequest, caller: Caller) -> Artifact:
        """Lets an artifact be deployed again."""
        return await self._blocked(request, caller, None)

    async def _blocked(
        self,
        request: api.BlockArtifactRequest | api.UnblockArtifactRequest,
        caller: Caller,
        block: Artifact.Block | None,
    ) -> Artifact:
        name, once = request.name, self._once(request, caller)
        names.parse("artifact", name)
        if not 0 < len(request.reason.strip()) <= REASON:
            told = f"is required, at most {REASON} characters: tell others why"
            raise invalid([Violation("reason", told)])

        def work(tx: Transaction) -> Artifact:
            changed = tx.block_artifact(named.artifact(tx, name), block)
            kind = Event.KIND_ARTIFACT_UNBLOCKED if block is None else Event.KIND_ARTIFACT_BLOCKED
            tx.append(
                Event(kind=kind, actor=caller.name, subject=name, artifact=changed, message=request.reason)
            )
            return changed

        return await self._store.write(once.job(Artifact, work))

    async def upload_artifact(
        self, requests: AsyncIterator[api.UploadArtifactRequest], caller: Caller
    ) -> Artifact:
        """Stores a package; the same bytes again give the same artifact.

        Raises:
            InvalidArgument: the messages come in another order, the bytes are others than declared, or they
                are no solution package that may be used.
            ResourceExhausted: the package is too large, or the disk is full.
            DeadlineExceeded: nothing came for too long.
        """
        declared = await self._declaration(requests)
        async with await self._blobs.open_upload() as upload:
            await self._receive(requests, upload, declared.size)
            path = await upload.check(declared.sha256, declared.size)
            async with self._reading:
                solution, _ = await asyncio.gather(
                    asyncio.to_thread(_read, path, declared.sha256), upload.sync()
                )
            await upload.commit(declared.sha256, declared.size)
        artifact = describe(solution, declared.sha256, caller.name)

        # Uploading takes a while; and of artifacts that are there already this one becomes visible.
        require = self._access.again(caller, _UPLOAD, api.UploadArtifactRequest())

        def job(tx: Transaction) -> Artifact:
            require(tx)
            tx.put_uploader(artifact.name, caller.name)
            known = tx.artifact(artifact.name)
            if known is not None:
                return known
            fresh = Artifact()
            fresh.CopyFrom(artifact)
            stored = tx.put_artifact(fresh)
            tx.append(
                Event(
                    kind=Event.KIND_ARTIFACT_STORED, actor=caller.name, subject=stored.name, artifact=stored
                )
            )
            return stored

        return await self._store.write(job)

    async def download_artifact(
        self, request: api.DownloadArtifactRequest, caller: Caller
    ) -> AsyncGenerator[api.DownloadArtifactResponse, None]:
        """Gives a package back: first the artifact, then its bytes.

        The last chunk is sent only when the digest of all was found right.

        Raises:
            NotFound: no such artifact, or it has no unmanaged twin.
            PermissionDenied: the twin is not for this caller.
            DataLoss: the stored bytes are damaged.
        """
        artifact = named.artifact(self._store.reads, request.name)
        sha256 = names.slug(artifact.name)
        if request.source and artifact.managed:
            if not artifact.source_sha256:
                raise NotFound(
                    ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND,
                    f"{artifact.name} was uploaded as a managed package: there is no unmanaged twin of it",
                    remedy="Leave `source` out to get the managed package.",
                    metadata={"resource": artifact.name},
                )
            sha256 = artifact.source_sha256
            self._access.require_unpacks(caller, artifact)
        try:
            package = _Package(self._blobs.path(sha256))
        except OSError as error:
            raise _damaged(artifact.name, error.strerror or str(error)) from error
        try:
            event = Event(
                kind=Event.KIND_ARTIFACT_DOWNLOADED,
                actor=caller.name,
                subject=artifact.name,
                artifact=artifact,
                message="unmanaged twin" if request.source else "",
            )
            await self._store.write(lambda tx: tx.append(event))
            declaration = api.DownloadArtifactResponse.Declaration(
                artifact=artifact, size=package.size, sha256=sha256
            )
            yield api.DownloadArtifactResponse(declaration=declaration)
            held = await asyncio.to_thread(package.read)
            while chunk := await asyncio.to_thread(package.read):
                if sha256 == artifact.source_sha256:  # the guard looks again only at who sees the artifact
                    self._access.require_unpacks(caller, artifact)
                yield api.DownloadArtifactResponse(chunk=held)
                held = chunk
            if package.digest.hexdigest() != sha256:
                raise _damaged(artifact.name, "their digest is another one")
            yield api.DownloadArtifactResponse(chunk=held)
        except OSError as error:
            raise _damaged(artifact.name, error.strerror or str(error)) from error
        finally:
            package.close()

    async def _declaration(
        self, requests: AsyncIterator[api.UploadArtifactRequest]
    ) -> api.UploadArtifactRequest.Declaration:
        first = await self._next(requests)
        if first is None or first.WhichOneof("part") != "declaration":
            raise invalid([Violation("declaration", "is required in the first message")])
        declared = first.declaration
        found = []
        if declared.size <= 0:
            found.append(Violation("declaration.size", f"is {declared.size}; it must be 1 or more"))
        if not _SHA256.fullmatch(declared.sha256):
            found.append(
                Violation("declaration.sha256", "is not a SHA-256 of 64 lower case hexadecimal digits")
            )
        if found:
            raise invalid(found)
        if declared.size > (most := self._config.max_package_bytes):
            raise ResourceExhausted(
                ErrorReason.ERROR_REASON_LIMIT_EXCEEDED,
                f"the package has {declared.size:,} bytes; this host takes up to {most:,}",
                remedy="Split the solution: Dataverse takes no larger packages either.",
                metadata={"limit": "package size"},
            )
        return declared

    async def _receive(
        self, requests: AsyncIterator[api.UploadArtifactRequest], upload: Upload, size: int
    ) -> None:
        while (request := await self._next(requests)) is not None:
            if request.WhichOneof("part") != "chunk":
                raise invalid([Violation("chunk", "is required in every message but the first")])
            chunk = request.chunk
            if not 0 < len(chunk) <= CHUNK:
                raise invalid([Violation("chunk", f"has {len(chunk):,} bytes; it may have 1 to {CHUNK:,}")])
            if upload.size + len(chunk) > size:
                raise InvalidArgument(
                    ErrorReason.ERROR_REASON_DIGEST_MISMATCH,
                    f"{size:,} bytes were declared, and more came",
                    remedy="Send the package again; if that does not help, declare its size anew.",
                )
            await upload.write(chunk)

    async def _next(
        self, requests: AsyncIterator[api.UploadArtifactRequest]
    ) -> api.UploadArtifactRequest | None:
        """The next message; None at the end."""
        idle = self._config.upload_idle_seconds
        scope = asyncio.timeout(idle)
        try:
            async with scope:
                return await anext(requests, None)
        except TimeoutError:
            if not scope.expired():
                raise
            raise DeadlineExceeded(
                ErrorReason.ERROR_REASON_UPLOAD_STALLED,
                f"the upload stood still for {idle:g} seconds; nothing of it was kept",
                remedy="Send the package again, over a steadier connection.",
            ) from None


class _Package:
    """A file that threads read. A thread outlives a caller who leaves, and must read no other file then."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self.size = os.fstat(self._file).st_size
        self.digest = hashlib.sha256()

    def read(self) -> bytes:
        with self._lock:
            chunk = b"" if self._file < 0 else os.read(self._file, CHUNK)
            self.digest.update(chunk)
            return chunk

    def close(self) -> None:
        with self._lock:
            os.close(self._file)
            self._file = -1


def _read(path: Path, sha256: str) -> Solution:
    """What a package tells whose digest was found right; runs in a thread.

    Raises:
        InvalidArgument: it is no package that may be used.
    """
    try:
        # Mapped, since it may have 120 MB: what is mapped is not memory of ours but the system's copy of the
        # file. Only this process knows the file, and nobody shortens it.
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return read(mapped, sha256=bytes.fromhex(sha256))
    except PackageError as error:
        raise InvalidArgument(
            ErrorReason.ERROR_REASON_PACKAGE_INVALID,
            error.message,
            remedy=error.remedy,
            metadata={"rule": error.rule},
        ) from error


def _damaged(name: str, why: str) -> DataLoss:
    return DataLoss(
        ErrorReason.ERROR_REASON_ARTIFACT_DAMAGED,
        f"the stored bytes of {name} are damaged: {why}",
        remedy="Upload or export the very same package again: that replaces the damaged bytes.",
        metadata={"resource": name},
    )
