"""Secrets that can be recognized, and a search that finds them in whatever way they were written down."""

from __future__ import annotations

import base64
import binascii
import html
import json
import random
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote, unquote_to_bytes

RICH = "\"<&%+/'\\é ß>"
"""Characters that JSON, XML, URLs, base64, shells or logs write in some other way."""
DEPTH = 4
"""How many encodings may lie within one another: base64 of gzip of JSON of a URL."""
_MOST = 8 * 2**20
"""Bytes that one compressed stream is inflated to at most."""


class Kind(StrEnum):
    """What sort of secret it is, which decides where it may be."""

    CREDENTIAL = "credential of an environment"
    REFUSED_CREDENTIAL = "credential that is refused"
    CERTIFICATE = "private key of an application"
    TOKEN = "token of the host"
    GUESS = "token that somebody made up"
    JWT = "token of an issuer"
    ACCESS = "token for an environment"
    VALUE = "value of a run's settings"
    REFUSED_VALUE = "value that is refused"
    SECRET_VALUE = "value of type Secret"
    REFUSED_SECRET_VALUE = "value of type Secret that is refused"
    USERINFO = "password in an address"
    HEADER = "header of a call"
    MISPLACED = "secret in a field that is none for secrets"
    ADDRESS = "secret in the address of a webhook"
    TEXT = "text for people to read"
    REFUSED_TEXT = "text that is refused"
    KEY = "key of the host"
    PART = "a mark without a number"


@dataclass(frozen=True, slots=True)
class Canary:
    """One secret."""

    kind: Kind
    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Found:
    """A secret, or a part of one, that was found."""

    canary: Canary
    how: str
    """Encodings, the outermost first."""


class Canaries:
    """All secrets of one run of the harness.

    Each begins and ends with a mark and its number, so that half of one is found too. Every second one has a
    mark that itself consists of characters which encodings change: it cannot be found by chance.
    """

    def __init__(self, dice: random.Random) -> None:
        letters = "".join(dice.choices("bcdfghjkmnpqrstvwxz", k=9))
        self._plain = f"cn{letters}"
        self._ascii = f"{letters[:3]}~{letters[3:6]}+{letters[6:]}=&"
        self._rich = f"\"{letters[:3]}<&{letters[3:6]}%+/{letters[6:]}'é\\"
        self._dice = dice
        self._all: list[Canary] = []
        self._needles: dict[bytes, Canary] = {}
        self._patterns: dict[bytes, str] = {}
        self.part = Canary(Kind.PART, "a part of some canary", "")
        for mark in (self._plain, self._ascii, self._rich):
            self._know(mark.encode())

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Canary]:
        return iter(self._all)

    def plant(self, kind: Kind, *, style: str = "") -> Canary:
        """A new secret: ``plain`` (letters and digits), ``ascii`` (no spaces, for headers) or ``rich``."""
        number = f"{len(self._all):04}"
        style = style or self._dice.choice(("plain", "ascii", "rich"))
        mark = {"plain": self._plain, "ascii": self._ascii, "rich": self._rich}[style]
        middle = {"plain": "Zz9", "ascii": "!$*()[]{}%2f", "rich": RICH}[style]
        text = f"{mark}{number}{middle}{mark}{number}"
        canary = Canary(kind, f"{kind} #{number}", text)
        self._all.append(canary)
        self._needles[f"{mark}{number}".encode()] = canary
        return canary

    def watch(self, kind: Kind, text: str | bytes, label: str = "") -> Canary:
        """A secret that somebody else made up: it has no mark, and is looked for by its middle."""
        raw = text.encode() if isinstance(text, str) else text
        shown = label or f"{kind} (made by a program)"
        canary = Canary(kind, shown, raw.decode("latin-1"))
        middle = raw[len(raw) // 2 - 10 : len(raw) // 2 + 10]
        if middle not in self._needles:
            self._all.append(canary)
            self._needles[middle] = canary
            self._know(middle)
        return canary

    def look(self, content: bytes) -> list[Found]:
        """Everything that is in there, however it is packed."""
        found: dict[Canary, Found] = {}
        for how, form in forms(content):
            for text, what in _texts(form):
                for canary in self._within(text):
                    found.setdefault(canary, Found(canary, f"{how}{what}"))
        if len(found) > 1:
            found.pop(self.part, None)
        return list(found.values())

    def skim(self, content: bytes) -> list[Found]:
        """The same for megabytes: encodings are looked for as they are written, and nothing is unpacked."""
        found: dict[Canary, Found] = {}
        for pattern, how in self._patterns.copy().items():
            at = content.find(pattern)
            while at >= 0:
                around = content[max(0, at - 200) : at + len(pattern) + 200]
                for one in self.look(around) or [Found(self.part, how)]:
                    found.setdefault(one.canary, Found(one.canary, f"skimmed, {how}"))
                at = content.find(pattern, at + len(pattern) + 200)
        return list(found.values())

    def _know(self, raw: bytes) -> None:
        for how, needle in encodings(raw).items():
            self._patterns.setdefault(needle, how)

    def _within(self, text: bytes) -> Iterator[Canary]:
        marked = False
        for mark in (self._plain, self._ascii, self._rich):
            raw = mark.encode()
            start = text.find(raw)
            while start >= 0:
                marked = True
                yield self._needles.get(text[start : start + len(raw) + 4], self.part)
                start = text.find(raw, start + len(raw))
        if not marked:
            yield from (canary for needle, canary in self._needles.copy().items() if needle in text)


def encodings(raw: bytes) -> dict[str, bytes]:
    """How bytes look where somebody has written them down in another way."""
    text = raw.decode("latin-1") if not _is_text(raw) else raw.decode()
    percent = quote(raw, safe="")
    ways = {
        "raw": raw,
        "reversed": raw[::-1],
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "utf-16le": text.encode("utf-16-le"),
        "utf-16be": text.encode("utf-16-be"),
        "utf-32le": text.encode("utf-32-le"),
        "percent": percent.encode(),
        "percent, lower case": re.sub("%[0-9A-F]{2}", lambda m: m[0].lower(), percent).encode(),
        "percent, / kept": quote(raw).encode(),
        "json": json.dumps(text)[1:-1].encode(),
        "json, utf-8": json.dumps(text, ensure_ascii=False)[1:-1].encode(),
        "json in json": json.dumps(json.dumps(text)[1:-1])[1:-1].encode(),
        "json, <>& escaped": re.sub(
            "[<>&]", lambda m: f"\\u{ord(m[0]):04x}", json.dumps(text)[1:-1]
        ).encode(),
        "xml": html.escape(text).encode(),
        "xml, quotes kept": html.escape(text, quote=False).encode(),
        "repr": repr(text)[1:-1].encode(),
        "repr of bytes": repr(raw)[2:-1].encode(),
    }
    for shift in range(3):  # base64 looks different at each place modulo 3; its middle is the same
        padded = b"\0" * shift + raw
        first, last = -(-shift * 8 // 6), len(padded) * 8 // 6
        for name, encoder in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            ways[f"{name} +{shift}"] = encoder(padded)[first + (shift > 0) : last]
    return {how: needle for how, needle in ways.items() if len(needle) >= 8}


def forms(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The content, and what comes out of it when whatever looks encoded is decoded, again and again."""
    seen = {content}
    waiting = [("", content)]
    for _ in range(DEPTH):
        found: list[tuple[str, bytes]] = []
        for how, form in waiting:
            yield how, form
            for name, decoded in _decoded(form):
                if len(decoded) >= 10 and decoded not in seen:
                    seen.add(decoded)
                    found.append((f"{how}{name}, ", decoded))
        waiting = found
    yield from waiting


def _texts(form: bytes) -> Iterator[tuple[bytes, str]]:
    yield form, "raw"
    if b"\0" in form:
        for shift in (0, 1):
            yield form[shift::2].replace(b"\0", b""), "utf-16"
        yield form.replace(b"\0", b""), "utf-16 or -32"
        for name in ("utf-16-le", "utf-16-be"):
            for shift in (0, 1):
                yield form[shift:].decode(name, "replace").encode("utf-8", "replace"), name
    if b"\0\0\0" in form:
        for shift in range(4):
            yield form[shift:].decode("utf-32-le", "replace").encode("utf-8", "replace"), "utf-32-le"
    yield form[::-1], "reversed"


_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([0-3][0-7]{2})|([^a-zA-Z0-9]))")
_RUN = re.compile(rb"[A-Za-z0-9+/_-]{16,}")
_HEX = re.compile(rb"[0-9a-fA-F]{16,}")
_WRAP = re.compile(rb"(?<=[A-Za-z0-9+/_-])(?:\r?\n|\\n)[ \t]*(?=[A-Za-z0-9+/_-])")
_BREAK = re.compile(rb"[ \t|]*\r?\n[ \t|]*")
_STREAM = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]|PK\x03\x04")
_STANDARD = bytes.maketrans(b"-_", b"+/")


def _decoded(form: bytes) -> Iterator[tuple[str, bytes]]:
    if b"\n" in form:  # a terminal's lines are cut anywhere
        yield "unwrapped", _BREAK.sub(b"", form)
    if b"%" in form:
        yield "percent", unquote_to_bytes(form)
    if b"\\" in form:
        yield "escapes", _ESCAPE.sub(_unescaped, form)
    if b"&" in form:
        text = form.decode("utf-8", "surrogateescape")
        yield "entities", html.unescape(text).encode("utf-8", "surrogateescape")
    for unwrapped in {form, _WRAP.sub(b"", form)}:
        runs = _RUN.findall(unwrapped)
        for shift in range(4):
            yield "base64", b"\0".join(_base64(run[shift:]) for run in runs)
    runs = _HEX.findall(form)
    for shift in range(2):
        yield "hex", b"\0".join(binascii.unhexlify(r[shift : len(r) - (len(r) - shift) % 2]) for r in runs)
    for match in _STREAM.finditer(form):
        yield "inflated", _inflated(form, match.start())


def _unescaped(match: re.Match[bytes]) -> bytes:
    wide, narrow, octal, other = match.groups()
    if wide:
        return chr(int(wide, 16)).encode("utf-8", "surrogatepass")
    if narrow or octal:
        # repr of text writes é as \xe9, repr of bytes and protobuf's text write its two bytes
        number = int(narrow, 16) if narrow else int(octal, 8)
        return bytes([number])
    return other


def _base64(run: bytes) -> bytes:
    whole = run[: len(run) - len(run) % 4]
    left = run[len(whole) :]
    tail = left + b"=" * (4 - len(left)) if len(left) > 1 else b""
    return binascii.a2b_base64((whole + tail).translate(_STANDARD))


def _inflated(form: bytes, start: int) -> bytes:
    if form.startswith(b"PK\x03\x04", start):
        head = form[start : start + 30]
        if len(head) < 30:
            return b""
        start += 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        engine = zlib.decompressobj(-zlib.MAX_WBITS)
    else:
        engine = zlib.decompressobj(zlib.MAX_WBITS | 32)
    out = b""
    try:
        for at in range(start, min(len(form), start + _MOST), 65_536):  # what came before a fault counts
            out += engine.decompress(form[at : at + 65_536], _MOST - len(out))
            if engine.eof or len(out) >= _MOST:
                break
    except zlib.error:
        pass
    return out


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def joined(texts: Iterable[object]) -> bytes:
    """Several texts as one content."""
    return "\n".join(str(text) for text in texts).encode("utf-8", "surrogateescape")
