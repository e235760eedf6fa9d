"""The bytes of packages, in files named by their SHA-256. No name from outside ever names a file."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from pipelinehost.errors import DataLoss, InvalidArgument, ResourceExhausted
from pipelinehost.v1.errors_pb2 import ErrorReason

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_WRITE_BYTES: Final = 512 * 1024
_GATHERED: Final = 8
"""Chunks that wait for a thread at most."""

T = TypeVar("T")


class Blobs:
    """Packages under ``blobs`` in the data folder; hashing and disk work run in threads of their own.

    Args:
        folder: the data folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "blobs"
        self._arriving = self._folder / "arriving"
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="blobs")

    def start(self) -> None:
        """Removes what uploads have left that a stop of the host cut off; call it with the folder locked."""
        if self._arriving.is_dir():
            for orphan in self._arriving.iterdir():
                orphan.unlink()

    def path(self, sha256: str) -> Path:
        """Where the bytes with this digest are, or would be.

        Raises:
            ValueError: this is no digest.
        """
        if _DIGEST.fullmatch(sha256) is None:
            raise ValueError(f"{sha256!r} is no SHA-256 in lower case hexadecimal")
        return self._folder / sha256[:2] / sha256

    def size(self, sha256: str) -> int:
        """How many bytes are kept under this digest.

        Raises:
            DataLoss: they are gone.
        """
        try:
            return self.path(sha256).stat().st_size
        except OSError as error:
            raise _damaged(sha256, error.strerror or str(error)) from error

    async def open_upload(self) -> Upload:
        """Begins to take bytes.

        Raises:
            ResourceExhausted: the disk is full.
        """
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(self._threads, Upload, self._folder, self._arriving, self._threads)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread goes on, and nobody else would know of its file.
            opening.add_done_callback(_forsaken)
            raise

    async def put(self, content: bytes) -> str:
        """Keeps bytes; returns their SHA-256.

        Raises:
            ResourceExhausted: the disk is full; nothing is kept.
        """
        async with await self.open_upload() as upload:
            for start in range(0, len(content), _WRITE_BYTES):
                await upload.write(content[start : start + _WRITE_BYTES])
            return await upload.commit()

    async def read(self, sha256: str) -> bytes:
        """The bytes, whose digest has just been found right.

        Raises:
            DataLoss: they are gone, or no longer the same.
        """
        return await self._off_loop(self._read, sha256)

    async def verify(self, sha256: str) -> None:
        """Reads the bytes and compares their digest.

        Raises:
            DataLoss: they are gone, or no longer the same.
        """
        await self._off_loop(self._verify, sha256)

    async def _off_loop(self, work: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    def _read(self, sha256: str) -> bytes:
        try:
            content = self.path(sha256).read_bytes()
        except OSError as error:
            raise _damaged(sha256, error.strerror or str(error)) from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise _damaged(sha256, "their digest is another one")
        return content

    def _verify(self, sha256: str) -> None:
        try:
            with self.path(sha256).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _damaged(sha256, error.strerror or str(error)) from error
        if found != sha256:
            raise _damaged(sha256, "their digest is another one")


class Upload:
    """Bytes on their way in. As context manager it throws away what was not committed."""

    def __init__(self, folder: Path, arriving: Path, threads: ThreadPoolExecutor) -> None:
        self._folder = folder
        self._threads = threads
        self._path = arriving / secrets.token_hex(16)
        self._hash = hashlib.sha256()
        self._lock = threading.Lock()
        self._gathered: list[bytes] = []
        self._writing: asyncio.Future[None] | None = None
        self.size = 0
        """Bytes taken so far."""
        try:
            arriving.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(
                self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise _in_words(error) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.abort()

    async def write(self, chunk: bytes) -> None:
        """Takes the next bytes; they are hashed and written while the caller fetches more.

        Raises:
            ResourceExhausted: the disk is full.
        """
        self.size += len(chunk)
        self._gathered.append(chunk)
        # What comes while a thread writes goes to the next one together: a thread for each chunk would cost
        # as much as its work.
        if len(self._gathered) >= _GATHERED or self._writing is None or self._writing.done():
            await self._begin()

    async def check(self, expected_sha256: str, size: int) -> Path:
        """Where all the bytes lie until they are committed, for a look at what they are.

        Raises:
            InvalidArgument: the digest or the size is another one than declared.
            ResourceExhausted: the disk is full.
        """
        await self._checked(expected_sha256, size)
        return self._path

    async def sync(self) -> None:
        """Makes the bytes durable, while somebody looks at them; :meth:`commit` then need not wait for it.

        Raises:
            ResourceExhausted: the disk is full.
        """
        await self._written()
        await asyncio.get_running_loop().run_in_executor(self._threads, self._sync)

    async def commit(self, expected_sha256: str = "", size: int | None = None) -> str:
        """Makes the bytes durable under their digest; bytes that are there already are replaced by the same.

        Args:
            expected_sha256: what the sender declared; empty to take what comes.
            size: what the sender declared.

        Returns:
            The digest.

        Raises:
            InvalidArgument: the digest or the size is another one; nothing is kept.
            ResourceExhausted: the disk is full; nothing is kept.
        """
        try:
            found = await self._checked(expected_sha256, size)
            await asyncio.get_running_loop().run_in_executor(self._threads, self._keep, found)
        except BaseException:
            await self.abort()
            raise
        return found

    async def abort(self) -> None:
        """Throws the bytes away, unless they are committed. It goes on even if its caller is cancelled."""
        writing, self._writing = self._writing, None
        if writing is not None and not writing.cancel() and not writing.cancelled():
            writing.exception()  # it was about bytes that nobody wants any more
        loop = asyncio.get_running_loop()
        await asyncio.shield(loop.run_in_executor(self._threads, self._discard))

    async def _checked(self, expected_sha256: str, size: int | None) -> str:
        await self._written()
        found = self._hash.hexdigest()
        if (size is not None and size != self.size) or expected_sha256 not in ("", found):
            declared = f"{self.size if size is None else size} bytes with digest {expected_sha256 or found}"
            raise InvalidArgument(
                ErrorReason.ERROR_REASON_DIGEST_MISMATCH,
                f"{declared} were declared, and {self.size} bytes with digest {found} came",
                remedy="Send the package again; if that does not help, compute its SHA-256 anew.",
            )
        return found

    async def _begin(self) -> None:
        """Hands over what has gathered, when what was handed over before is written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing
        chunks, self._gathered = self._gathered, []
        self._writing = asyncio.get_running_loop().run_in_executor(self._threads, self._take, chunks)

    async def _written(self) -> None:
        if self._gathered:
            await self._begin()
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    # What follows runs in a thread.

    def _take(self, chunks: Sequence[bytes]) -> None:
        with self._lock:
            for chunk in chunks:
                if self._file < 0:
                    return
                self._hash.update(chunk)
                rest = memoryview(chunk)
                try:
                    while rest:
                        rest = rest[os.write(self._file, rest) :]
                except OSError as error:
                    raise _in_words(error) from error

    def _sync(self) -> None:
        with self._lock:
            if self._file < 0:
                return
            try:
                os.fsync(self._file)
            except OSError as error:
                raise _in_words(error) from error

    def _keep(self, sha256: str) -> None:
        with self._lock:
            target = self._folder / sha256[:2] / sha256
            try:
                os.fsync(self._file)
                target.parent.mkdir(mode=0o700, exist_ok=True)
                self._path.rename(target)
                _sync(target.parent)
                _sync(self._folder)
            except OSError as error:
                raise _in_words(error) from error
            os.close(self._file)
            self._file = -1

    def _discard(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
                self._path.unlink(missing_ok=True)


def _forsaken(opening: asyncio.Future[Upload]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()._discard()


def _sync(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _in_words(error: OSError) -> Exception:
    if error.errno not in _FULL:
        return error
    return ResourceExhausted(
        ErrorReason.ERROR_REASON_LIMIT_EXCEEDED,
        "the disk of the host's data folder is full; nothing of the package was kept",
        remedy="Free space on the disk of the data folder, and send the package again.",
        metadata={"limit": "disk"},
    )


def _damaged(sha256: str, why: str) -> DataLoss:
    return DataLoss(
        ErrorReason.ERROR_REASON_ARTIFACT_DAMAGED,
        f"the stored bytes of artifacts/{sha256} are damaged: {why}",
        remedy="Upload or export the very same package again: that replaces the damaged bytes.",
        metadata={"resource": f"artifacts/{sha256}"},
    )
