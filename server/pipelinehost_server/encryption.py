"""Secrets at rest: AES-256-GCM under one key, bound to the place that each belongs to."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VARIABLE: Final = "PIPELINEHOST_KEY"
"""Environment variable that holds the key in base64, in place of the file."""

_FORMAT = b"\x01"
_KEY_BYTES = 32
_ID_BYTES = 4
_NONCE_BYTES = 12
_HEADER_BYTES = len(_FORMAT) + _ID_BYTES + _NONCE_BYTES


class KeyUnusable(Exception):
    """The key of the host cannot be read, or is none."""


class SealBroken(Exception):
    """A sealed secret was changed, was sealed for another place, or was sealed with another key."""


class Encryption:
    """Seals and opens with the host's key.

    The key is the environment variable :data:`VARIABLE`, or else the file ``key`` in the folder, which is
    made at the first start. Without the key what was sealed is lost: it belongs into a backup, apart from
    the store's.

    Args:
        folder: the data folder, which must exist.
        environ: where to look for the variable.

    Raises:
        KeyUnusable: the key is not 32 bytes, or cannot be read.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str] = os.environ) -> None:
        key = _from_variable(environ[VARIABLE]) if environ.get(VARIABLE) else _from_file(folder / "key")
        self._cipher = AESGCM(key)
        self._fingerprint_key = hmac.digest(key, b"pipelinehost fingerprint", "sha256")
        # Says which key to take, once there are several; it gives nothing of the key away.
        self._key_id = hashlib.sha256(b"pipelinehost key id\0" + key).digest()[:_ID_BYTES]

    def fingerprint(self, text: str) -> str:
        """Hexadecimal HMAC-SHA256 under the host's key: equal for equal texts, of no use to guess them."""
        return hmac.digest(self._fingerprint_key, text.encode(), "sha256").hex()

    def seal(self, plaintext: bytes, context: str) -> bytes:
        """Encrypts for one place.

        Args:
            plaintext: what nobody may read.
            context: the place, e.g. the row's table and name; it must be given again to open.

        Returns:
            Format (1 byte), key id (4), nonce (12), ciphertext and tag.
        """
        head = _FORMAT + self._key_id
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return head + nonce + self._cipher.encrypt(nonce, plaintext, head + context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """Decrypts what was sealed for this place.

        Raises:
            SealBroken: it was not, not with this key, or it was changed since.
        """
        head, nonce = sealed[: len(_FORMAT) + _ID_BYTES], sealed[len(_FORMAT) + _ID_BYTES : _HEADER_BYTES]
        if len(sealed) < _HEADER_BYTES or head[:1] != _FORMAT:
            raise SealBroken(f"the secret of {context} is not in a format that this program knows")
        if head[1:] != self._key_id:
            raise SealBroken(
                f"the secret of {context} was sealed with the key {head[1:].hex()}, and this host has "
                f"{self._key_id.hex()}: bring the old key back, or enter the secret anew"
            )
        try:
            return self._cipher.decrypt(nonce, sealed[_HEADER_BYTES:], head + context.encode())
        except InvalidTag:
            raise SealBroken(f"the secret of {context} was changed, or sealed for another place") from None


def _from_variable(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise KeyUnusable(
            f"{VARIABLE} must be {_KEY_BYTES} bytes in base64: "
            f"`openssl rand -base64 {_KEY_BYTES}` makes such a key"
        )
    return key


def _from_file(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return _made(path)
    except OSError as error:
        raise KeyUnusable(f"the key {path} cannot be read: {error.strerror}") from error
    if len(key) != _KEY_BYTES:
        raise KeyUnusable(
            f"the key {path} must be {_KEY_BYTES} bytes and has {len(key)}: put the right one there; "
            "if no secret was ever stored, delete it and a new one is made"
        )
    return key


def _made(path: Path) -> bytes:
    """A new key, written so that the file is either whole or not there."""
    key = secrets.token_bytes(_KEY_BYTES)
    part = path.with_name("key.part")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, key)
        os.fsync(file)
    finally:
        os.close(file)
    part.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return key
