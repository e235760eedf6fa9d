"""Tokens of an OpenID Connect issuer: which are accepted, and the keys that tell.

Everything that a token could choose by itself is fixed beforehand: the algorithms, the issuer, the audience
and where keys come from (RFC 8725). A token's header names one of the issuer's keys and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

ALGORITHMS: Final = ("RS256", "PS256", "ES256")
"""Signatures that are accepted."""

_HEADER: Final = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
"""All that a header may hold. ``jwk``, ``jku``, ``x5u`` and ``x5c`` would bring keys along, and ``crit``,
``b64`` and ``zip`` would change the meaning."""
_TYPES: Final = frozenset({"JWT", "AT+JWT"})
_LONGEST: Final = 8_192
_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_LEEWAY: Final = 30.0
_REFRESH_SECONDS: Final = 600.0
_AGAIN_SECONDS: Final = 30.0
_KEYS_BYTES: Final = 256 * 1024
_RSA_BITS: Final = 2_048
_LOG = logging.getLogger(__name__)


class NotAccepted(Exception):
    """The token is none that this host accepts. The words are for the host's log only."""


class KeysUnusable(Exception):
    """The file with the issuer's keys cannot be used."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """What an accepted token says."""

    subject: str
    """What the issuer calls the bearer."""
    until: float
    """When the token expires, in seconds since 1970."""


class Issuer:
    """One issuer whose tokens are accepted.

    Args:
        name: its address, as tokens have it in ``iss``.
        audience: this host, as tokens have it in ``aud``.
        claim: what names the bearer: ``sub``, or ``oid`` for Entra ID.
        keys: a file with the issuer's keys (a JSON Web Key Set), in place of asking the issuer for them.

    Raises:
        KeysUnusable: the file cannot be read or holds no key.
    """

    def __init__(self, name: str, audience: str, claim: str = "sub", keys: Path | None = None) -> None:
        self.name = name
        self._audience = audience
        self._claim = claim
        self.fetched = 0
        """How often its keys were fetched; who was let in by the keys of before may be so no more."""
        self._keys: dict[str, tuple[Any, frozenset[str]]] = {}
        self._fetches = keys is None
        self._wanted = asyncio.Event()
        self._fetched_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        if keys is not None:
            try:
                self._keys = _usable(json.loads(keys.read_bytes()))
            except (OSError, ValueError) as error:
                raise KeysUnusable(f"the keys {keys} cannot be read: {error}") from error

    async def start(self) -> None:
        """Asks the issuer for its keys, now and every ten minutes; without them nobody is let in."""
        if self._fetches:
            await self._fetch()
            self._task = asyncio.create_task(self._follow(), name="issuer's keys")

    async def stop(self) -> None:
        """Stops asking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def verify(self, token: str) -> Bearer:
        """Who bears a token.

        Raises:
            NotAccepted: it is not of this issuer for this host, not valid now, or no token at all.
        """
        if len(token) > _LONGEST or not _SHAPE.fullmatch(token):
            raise NotAccepted("no JWT")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise NotAccepted(f"no header: {error}") from error
        algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
        if not _HEADER.issuperset(header) or not isinstance(kind, str) or kind.upper() not in _TYPES:
            raise NotAccepted("a header with more than a key's id")
        if not isinstance(kid, str) or algorithm not in ALGORITHMS:
            raise NotAccepted("a header without a key's id, or another algorithm")
        found = self._keys.get(kid)
        if found is None:
            self._wanted.set()
            raise NotAccepted("an unknown key")
        key, algorithms = found
        if algorithm not in algorithms:
            raise NotAccepted("an algorithm that is not the key's")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self.name,
                leeway=_LEEWAY,
                options={"require": ["exp", "iat", "iss", "aud", self._claim]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise NotAccepted(str(error)) from error
        subject, expires = claims[self._claim], claims["exp"]
        if (
            not isinstance(subject, str)
            or not 0 < len(subject) <= 200
            or not isinstance(expires, int | float)
        ):
            raise NotAccepted("a subject that is no text")
        return Bearer(subject, float(expires) + _LEEWAY)

    async def _follow(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_REFRESH_SECONDS):
                    await self._wanted.wait()
                # A token with a made-up key must not make the host ask at every call.
                await asyncio.sleep(max(0.0, self._fetched_at + _AGAIN_SECONDS - time.monotonic()))
            except TimeoutError:
                pass
            self._wanted.clear()
            await self._fetch()

    async def _fetch(self) -> None:
        self._fetched_at = time.monotonic()
        try:
            async with (
                asyncio.timeout(10),
                httpx.AsyncClient(follow_redirects=False, trust_env=False) as client,
            ):
                about = await _document(client, f"{self.name.rstrip('/')}/.well-known/openid-configuration")
                if about.get("issuer") != self.name:
                    raise ValueError(f"it calls itself {about.get('issuer')!r}")
                where = about.get("jwks_uri")
                if not isinstance(where, str) or (
                    self.name.startswith("https:") and not where.startswith("https:")
                ):
                    raise ValueError("its keys do not lie at an https address")
                self._keys = _usable(await _document(client, where))
        except (OSError, TimeoutError, ValueError, httpx.HTTPError) as error:
            _LOG.error("the keys of %s could not be fetched: %s; those known stay", self.name, error)
        else:
            self.fetched += 1


async def _document(client: httpx.AsyncClient, address: str) -> dict[str, Any]:
    body = bytearray()
    async with client.stream("GET", address) as response:
        if response.status_code != 200:
            raise ValueError(f"{address} answered {response.status_code}")
        async for part in response.aiter_bytes():
            body += part
            if len(body) > _KEYS_BYTES:
                raise ValueError(f"{address} answered with more than {_KEYS_BYTES:,} bytes")
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError(f"{address} answered with no object")
    return document


def _usable(document: Any) -> dict[str, tuple[Any, frozenset[str]]]:
    """Keys by id, each with the algorithms it is good for; others are left out.

    Raises:
        ValueError: there are none, or it holds no keys at all.
    """
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it is no JSON Web Key Set")
    found: dict[str, tuple[Any, frozenset[str]]] = {}
    for entry in listed:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        fits = {"RSA": ("RS256", "PS256"), "EC": ("ES256",)}.get(str(entry.get("kty")), ())
        told = entry.get("alg")
        algorithms = frozenset(a for a in fits if told in (None, a))
        kid = entry.get("kid")
        if not algorithms or not isinstance(kid, str):
            continue
        try:
            key = jwt.PyJWK(entry, algorithm=min(algorithms)).key
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
        strong = isinstance(key, RSAPublicKey) and key.key_size >= _RSA_BITS
        curve = isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
        if (strong or curve) and kid not in found:
            found[kid] = key, algorithms
    if not found:
        raise ValueError(f"none of its keys is for {', '.join(ALGORITHMS)} and has a kid")
    return found
