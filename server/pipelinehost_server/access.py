"""Who is calling, and what each RPC asks of a caller."""

from __future__ import annotations

import enum
import hashlib
import logging
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message

from pipelinehost.errors import PermissionDenied, Unauthenticated
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost_server.store import Store

ADMINISTRATOR = "admin"
"""Name of the caller that the host's first token belongs to."""

_TOKEN = re.compile(r"ph_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
_LOG = logging.getLogger(__name__)


class Permission(enum.Enum):
    """What an RPC asks of its caller."""

    PUBLIC = "nothing, not even a token"
    SIGNED_IN = "any token of this host"
    READ = "to see the host's resources and record"
    CONFIGURE = "to change environments, connections and pipelines"
    RUN = "to deploy, restore, cancel, retry and upload"
    RECORD = "to read, check, export and shorten the whole record"
    RESOLVE = "to say what became of an import that the host could not decide about"


_HOST = "/pipelinehost.v1.PipelineHost/"
_ARTIFACTS = "/pipelinehost.v1.Artifacts/"

POLICY: Mapping[str, Permission] = {
    _HOST + "GetHost": Permission.SIGNED_IN,
    _HOST + "GetEnvironment": Permission.READ,
    _HOST + "ListEnvironments": Permission.READ,
    _HOST + "CreateEnvironment": Permission.CONFIGURE,
    _HOST + "UpdateEnvironment": Permission.CONFIGURE,
    _HOST + "DeleteEnvironment": Permission.CONFIGURE,
    _HOST + "SetEnvironmentCredential": Permission.CONFIGURE,
    _HOST + "CheckEnvironment": Permission.READ,
    _HOST + "ListSolutions": Permission.READ,
    _HOST + "DescribeSolution": Permission.READ,
    _HOST + "ListConnections": Permission.READ,
    _HOST + "CreateConnection": Permission.CONFIGURE,
    _HOST + "DeleteConnection": Permission.CONFIGURE,
    _HOST + "GetPipeline": Permission.READ,
    _HOST + "ListPipelines": Permission.READ,
    _HOST + "CreatePipeline": Permission.CONFIGURE,
    _HOST + "UpdatePipeline": Permission.CONFIGURE,
    _HOST + "DeletePipeline": Permission.CONFIGURE,
    _HOST + "ValidateDeployment": Permission.RUN,
    _HOST + "Deploy": Permission.RUN,
    _HOST + "RestoreArtifact": Permission.RUN,
    _HOST + "GetRun": Permission.READ,
    _HOST + "ListRuns": Permission.READ,
    _HOST + "WatchRun": Permission.READ,
    _HOST + "CancelRun": Permission.RUN,
    _HOST + "RetryRun": Permission.RUN,
    _HOST + "ResolveRun": Permission.RESOLVE,
    _HOST + "ListFindings": Permission.READ,
    _HOST + "ListComponentResults": Permission.READ,
    _HOST + "ListRunSettings": Permission.READ,
    _HOST + "GetRunPipeline": Permission.READ,
    _HOST + "GetQueue": Permission.READ,
    _HOST + "ListEvents": Permission.READ,
    _HOST + "WatchEvents": Permission.RECORD,
    _HOST + "VerifyEvents": Permission.RECORD,
    _HOST + "ExportEvents": Permission.RECORD,
    _HOST + "PruneEvents": Permission.RECORD,
    _ARTIFACTS + "GetArtifact": Permission.READ,
    _ARTIFACTS + "ListArtifacts": Permission.READ,
    _ARTIFACTS + "UploadArtifact": Permission.RUN,
    _ARTIFACTS + "DownloadArtifact": Permission.READ,
    "/grpc.health.v1.Health/Check": Permission.PUBLIC,
    "/grpc.health.v1.Health/List": Permission.PUBLIC,
    "/grpc.health.v1.Health/Watch": Permission.PUBLIC,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Permission.SIGNED_IN,
}
"""One entry for every RPC that the host serves; the guard refuses to protect a method that has none."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request."""

    name: str
    administrator: bool


class Access:
    """Knows tokens by their SHA-256 only, and decides what a caller may do.

    A token is 256 random bits, so that its plain digest can be neither guessed nor turned back.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._callers: dict[bytes, Caller] = {}

    def identify(self, token: str) -> Caller:
        """The caller that a token belongs to.

        Raises:
            Unauthenticated: the host does not know the token.
        """
        digest = hashlib.sha256(token.encode()).digest()
        caller = self._callers.get(digest)
        if caller is None:
            name = self._store.reads.token(digest)
            if name is None:
                raise Unauthenticated(
                    ErrorReason.ERROR_REASON_TOKEN_INVALID,
                    "the host does not know this token",
                    remedy="Use a token of this very host; its administrator has one in the file admin-token "
                    "of the host's data folder.",
                )
            caller = self._callers[digest] = Caller(name, name == ADMINISTRATOR)
        return caller

    def check(self, caller: Caller, method: str, request: Message | None) -> None:
        """Whether the caller may send this request; ``request`` is None where a stream has yet to begin.

        This is the one place where roles and rights on single resources will be decided. As long as there
        are none, an administrator may do everything and anybody else may ask who they are.

        Raises:
            PermissionDenied: the caller may not.
        """
        if caller.administrator:
            return
        permission = POLICY[method]
        if permission is not Permission.SIGNED_IN:
            raise PermissionDenied(
                ErrorReason.ERROR_REASON_PERMISSION_DENIED,
                f"{caller.name} lacks the right {permission.value}",
                remedy="Ask an administrator of the host.",
            )

    async def prepare(self, folder: Path, state_file: Path | None) -> Path:
        """Makes the administrator's token on the first start, and leaves it for clients on this machine.

        A restart keeps the token. A host whose ``admin-token`` was taken away on purpose stays without one.

        Args:
            folder: the host's data folder; the token lies in its ``admin-token``.
            state_file: where the client of this user looks for the token of this host's address.

        Returns:
            The file in the data folder, whether it is there or not.
        """
        path = folder / "admin-token"
        token = _read(path)
        if self._store.reads.last_sequence() == 0:
            if token is None:
                token = f"ph_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
                _write(path, token)
            digest = hashlib.sha256(token.encode()).digest()
            await self._store.write(lambda tx: tx.put_token(digest, ADMINISTRATOR))
        elif token is not None and self._store.reads.token(hashlib.sha256(token.encode()).digest()) is None:
            _LOG.warning("the token in %s is not of this host's store", path)
            token = None
        if token is not None and state_file is not None:
            _leave(state_file, token)
        return path


def _read(path: Path) -> str | None:
    try:
        text = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if _TOKEN.fullmatch(text) else None


def _write(path: Path, token: str) -> None:
    """Writes a file that nobody else can read, whole or not at all."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _leave(path: Path, token: str) -> None:
    """Puts the token where this user's client finds it; where that cannot be written, the host goes on."""
    try:
        if _read(path) == token:
            return
        path.parent.parent.parent.mkdir(parents=True, exist_ok=True)
        for folder in (path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        _write(path, token)
    except OSError as error:
        _LOG.warning("the token could not be left for this user's client in %s: %s", path, error)
