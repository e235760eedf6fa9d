"""Files that ``event export`` wrote: what they hold is checked here, without a host."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from pipelinehost.v1.resources_pb2 import Event, RecordHead

_M = TypeVar("_M", bound=Message)
_HEAD_BYTES = 4_096  # more than the last line of an export has


class RecordFileError(Exception):
    """A file is no export, or not as the host wrote it; the message names the line."""


def read(path: Path) -> RecordHead:
    """Reads an export and computes its chain anew, from its head's beginning to its head's end.

    Returns:
        The head. Whether the host has signed it is yet to be checked: :func:`require_signature`, or the host.

    Raises:
        RecordFileError: a line cannot be read, an event is not what its bytes say, or the chain is another
            one than the head tells.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        head = _head(path, file.seek(0, os.SEEK_END))
        file.seek(0)
        sequence, before = head.first_sequence - 1, _hash(head.previous_sha256, f"{path}: the head")
        for number, raw in enumerate(file, start=1):
            if sequence == head.last_sequence:
                break  # this is the head's line
            where, sequence = f"{path}, line {number}", sequence + 1
            line = _object(raw, where)
            if "event" not in line:
                raise RecordFileError(f"{where}: events {sequence} to {head.last_sequence} are missing")
            before = _event(line, where, sequence, before)
        if file.readline():
            raise RecordFileError(f"{path}: there are events that its head does not tell of")
    if before.hex() != head.sha256:
        raise RecordFileError(f"{path}: its events are others than its head tells of")
    return head


def require_signature(path: Path, head: RecordHead, key: str) -> None:
    """Checks without a host that a head was signed with a key.

    Raises:
        RecordFileError: it was not, the key is none, or the library that checks signatures is not installed.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise RecordFileError(
            "--key needs a library that is not installed: pip install cryptography; "
            "without --key the host is asked about the signature"
        ) from None
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
    except ValueError:
        raise RecordFileError("--key is no public key of a host: `pipelinehost host` shows it") from None
    text = (
        f"pipelinehost export\nstore {head.store}\nfirst {head.first_sequence}\n"
        f"previous {head.previous_sha256}\nlast {head.last_sequence}\nsha256 {head.sha256}\n"
        f"time {head.time.ToJsonString()}\n"
    )
    try:
        public.verify(bytes.fromhex(head.signature), text.encode())
    except (InvalidSignature, ValueError):
        raise RecordFileError(f"{path}: its head is not signed with this key") from None


def _head(path: Path, size: int) -> RecordHead:
    with path.open("rb") as file:
        file.seek(max(0, size - _HEAD_BYTES))
        last = file.read().rstrip(b"\n").rpartition(b"\n")[2]
    try:
        line = _object(last, str(path))
    except RecordFileError:
        line = {}
    if "head" not in line:
        raise RecordFileError(
            f"{path}: its last line is no signed head: the file is not complete, or no export"
        )
    return _parsed(line["head"], RecordHead(), str(path))


def _event(line: dict[str, Any], where: str, sequence: int, before: bytes) -> bytes:
    """The hash of an event, found right."""
    try:
        raw = base64.b64decode(line["bytes"], validate=True)
        event = Event.FromString(raw)
    except (KeyError, TypeError, ValueError, DecodeError):
        raise RecordFileError(f"{where}: the event's bytes cannot be read") from None
    if event.sequence != sequence:
        raise RecordFileError(f"{where}: here should be event {sequence}, and it is {event.sequence}")
    now = hashlib.sha256(before + raw).digest()
    if now.hex() != line.get("sha256"):
        raise RecordFileError(f"{where}: event {sequence} was changed")
    # A newer host may say more in the bytes than this program knows; what it knows must be the same.
    if json_format.MessageToDict(event) != json_format.MessageToDict(_parsed(line["event"], Event(), where)):
        raise RecordFileError(f"{where}: event {sequence} reads otherwise than its bytes")
    return now


def _object(raw: bytes, where: str) -> dict[str, Any]:
    try:
        line = json.loads(raw)
    except ValueError:
        line = None
    if not isinstance(line, dict):
        raise RecordFileError(f"{where}: it is no line of an export")
    return line


def _parsed(value: Any, message: _M, where: str) -> _M:
    try:
        return json_format.ParseDict(value, message, ignore_unknown_fields=True)
    except (json_format.ParseError, AttributeError, TypeError):
        raise RecordFileError(f"{where}: it is no line of an export") from None


def _hash(text: str, where: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise RecordFileError(f"{where}: {text[:70]!r} is no hash") from None
