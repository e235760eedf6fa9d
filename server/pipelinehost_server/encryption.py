"""Secrets at rest (AES-256-GCM under one key, bound to the place that each belongs to), and signatures."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VARIABLE: Final = "PIPELINEHOST_KEY"
"""Environment variable that holds the key in base64, in place of the file."""
NEW_VARIABLE: Final = "PIPELINEHOST_NEW_KEY"
"""Environment variable that holds the key to change to, where the other one holds the present key."""

_FILE, _NEW_FILE = "key", "key.new"
_FORMAT = b"\x01"
_KEY_BYTES = 32
_ID_BYTES = 4
_NONCE_BYTES = 12
_HEADER_BYTES = len(_FORMAT) + _ID_BYTES + _NONCE_BYTES


class SigningKey:
    """Signs with Ed25519, so that others can check with the public key what this host vouches for.

    Args:
        seed: 32 random bytes: the private key.
    """

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._key.public_key()
        self.public: str = self._public.public_bytes_raw().hex()
        """The public key, hexadecimal."""

    @classmethod
    def derived(cls, secret: bytes, purpose: str) -> Self:
        """A key that is always the same for a secret and a purpose; it tells nothing of other ones."""
        info = f"pipelinehost {purpose}".encode()
        return cls(HKDF(hashes.SHA256(), _KEY_BYTES, salt=None, info=info).derive(secret))

    @staticmethod
    def seed() -> bytes:
        """What a new key is made of."""
        return secrets.token_bytes(32)

    def sign(self, text: bytes) -> bytes:
        """The signature of a text, 64 bytes."""
        return self._key.sign(text)

    def has_signed(self, text: bytes, signature: bytes) -> bool:
        """Whether a signature is of this key and this text."""
        try:
            self._public.verify(signature, text)
        except InvalidSignature:
            return False
        return True


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
        KeyUnusable: the key is not 32 bytes, cannot be read, or is being changed.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str] = os.environ) -> None:
        if environ.get(VARIABLE):
            self._take(_from_variable(environ[VARIABLE], VARIABLE))
        elif (folder / _NEW_FILE).exists():
            raise KeyUnusable(
                f"the change of the key in {folder} was interrupted: finish it with "
                f"`pipelinehost-server rotate-key --data {folder}`"
            )
        else:
            self._take(_from_file(folder / _FILE) or _made(folder / _FILE))

    @classmethod
    def _of(cls, key: bytes) -> Self:
        made = cls.__new__(cls)
        made._take(key)
        return made

    def _take(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._fingerprint_key = hmac.digest(key, b"pipelinehost fingerprint", "sha256")
        # Says which key to take, once there are several; it gives nothing of the key away.
        self._key_id = hashlib.sha256(b"pipelinehost key id\0" + key).digest()[:_ID_BYTES]

    @property
    def key_id(self) -> str:
        """Which key this is; it stands in everything that was sealed with it."""
        return self._key_id.hex()

    def sealed_here(self, sealed: bytes) -> bool:
        """Whether something was sealed with this key, as far as it says so itself."""
        return sealed[: len(_FORMAT) + _ID_BYTES] == _FORMAT + self._key_id

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


class Rotation:
    """A change of the key: everything sealed is opened with the old one and sealed with the new one.

    It may be killed at any moment and begun again: the new key is on the disk before anything is sealed with
    it, and what is sealed with it already is left alone. Where the old key is a file, the new one takes its
    place at the end. Where it is :data:`VARIABLE`, the new one is given as :data:`NEW_VARIABLE`.

    Args:
        folder: the data folder of a host that is stopped.
        environ: where to look for the variables.

    Raises:
        KeyUnusable: there is no key to change from or to, or one of them cannot be used.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str] = os.environ) -> None:
        self._folder = folder
        self.by_variable = bool(environ.get(VARIABLE))
        """Whether whoever starts the host has to put the new key into :data:`VARIABLE`."""
        given = environ.get(NEW_VARIABLE)
        if self.by_variable and not given:
            raise KeyUnusable(
                f"{VARIABLE} holds the present key, so give the new one in {NEW_VARIABLE}: "
                f"`openssl rand -base64 {_KEY_BYTES}` makes one. Keep it, you will need it to start the host"
            )
        if given and not self.by_variable:
            raise KeyUnusable(
                f"{NEW_VARIABLE} is set, but not {VARIABLE}: give the present key there, or neither of them "
                f"to change the file {folder / _FILE}"
            )
        if self.by_variable:
            old, new = _from_variable(environ[VARIABLE], VARIABLE), _from_variable(given or "", NEW_VARIABLE)
        else:
            present = _from_file(folder / _FILE)
            if present is None:
                raise KeyUnusable(
                    f"{folder / _FILE} is not there: this is no data folder of a host, or its key is in "
                    f"{VARIABLE}, which must be set then"
                )
            old, new = present, _from_file(folder / _NEW_FILE) or _made(folder / _NEW_FILE)
        if old == new:
            raise KeyUnusable(f"{NEW_VARIABLE} is the present key; nothing was changed")
        self.old = Encryption._of(old)
        self.new = Encryption._of(new)

    def resealed(self, sealed: bytes, context: str) -> bytes | None:
        """The same secret under the new key; None if it is already.

        Raises:
            SealBroken: neither of the keys opens it.
        """
        if self.new.sealed_here(sealed):
            self.new.open(sealed, context)
            return None
        return self.new.seal(self.old.open(sealed, context), context)

    def abandon(self) -> None:
        """Forget the new key, with which nothing is sealed."""
        if not self.by_variable:
            (self._folder / _NEW_FILE).unlink(missing_ok=True)

    def finish(self) -> None:
        """Put the new key into the old one's place, after everything sealed with it is durable."""
        if not self.by_variable:
            (self._folder / _NEW_FILE).rename(self._folder / _FILE)
            _sync_folder(self._folder)


def _from_variable(text: str, name: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise KeyUnusable(
            f"{name} must be {_KEY_BYTES} bytes in base64: "
            f"`openssl rand -base64 {_KEY_BYTES}` makes such a key"
        )
    return key


def _from_file(path: Path) -> bytes | None:
    """The key in a file, or None where there is none."""
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return None
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
    _sync_folder(path.parent)
    return key


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
