"""What can go wrong with a call, told apart by what a caller has to do next."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from urllib.parse import quote, quote_plus

SOLUTION_LOCK = "0x80071151"
"""SolutionConcurrencyFailure: another solution operation holds the environment."""

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])|\x9b[0-?]*[ -/]*[@-~]"
)
_CODE = re.compile(r"(?:0x)?([0-9a-fA-F]{8})")
_JWT = re.compile(r"eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}", re.ASCII)
_hushed: ContextVar[tuple[frozenset[str], Sequence[str]]] = ContextVar("hushed", default=(frozenset(), ()))
"""Secrets of this task, and the ways in which they may be written: an import log has thousands of texts."""


def hush(*secrets: str) -> None:
    """Keep these out of what ``plain`` gives, from now on and in this task: see ``without``."""
    known, _ = _hushed.get()
    if not known.issuperset(secrets):
        known = known.union(secrets)
        _hushed.set((known, _ways(known)))


def without(text: str, secrets: Iterable[str]) -> str:
    """Text from elsewhere, which may repeat what was sent there, with an ellipsis for each of ``secrets``.

    They are known again as they were sent, a line of them, and as JSON, markup, addresses and Python write
    them. One of up to three characters stays: it may be a part of any word.
    """
    return _cut(text, _ways(secrets))


def _cut(text: str, ways: Sequence[str]) -> str:
    for way in ways:
        text = text.replace(way, "…")
    return text


def _ways(secrets: Iterable[str]) -> Sequence[str]:
    """The longest first: one may be a part of another."""
    ways = {way for secret in secrets for line in (secret, *secret.splitlines()) for way in _written(line)}
    return sorted(ways, key=len, reverse=True)


def _written(secret: str) -> Iterable[str]:
    if len(secret) <= 3:
        return ()
    percent = (
        quote(secret, "", errors="replace"),
        quote(secret, errors="replace"),
        quote_plus(secret, errors="replace"),
    )
    return (
        secret,
        " ".join(secret.split()),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        html.escape(secret),
        html.escape(secret, quote=False),
        repr(secret)[1:-1],
        *percent,
        *(re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), way) for way in percent),
    )


def plain(text: str, limit: int = 2000) -> str:
    """Text from an environment made safe for a log line and a terminal.

    Terminal escapes are cut out, every run of white space and control, format or unpaired surrogate
    characters becomes one space, and what is longer than ``limit`` characters is cut. Secrets that were sent
    there (``hush``), and signed tokens, are left out.
    """
    text = _cut(text, _hushed.get()[1])
    if "eyJ" in text:
        text = _JWT.sub("…", text)
    text = text[: limit * 4]
    if not text.isprintable():  # nothing of these sorts is printable; an import log has thousands of texts
        text = _ESCAPES.sub(" ", text)
        text = "".join(" " if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else c for c in text)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def error_code(code: object) -> str:
    """An error code as ``0x8004801D``, from either of Dataverse's two spellings: hex text or a signed int32.

    Anything else that is text is kept (the connectivity address has codes such as ``ConnectionNotFound``);
    zero and nothing are the empty string.
    """
    if isinstance(code, bool) or code is None:
        return ""
    if isinstance(code, (int, float)):
        return f"0x{int(code) & 0xFFFFFFFF:08X}" if code else ""
    text = plain(str(code), 100)
    if re.fullmatch(r"-\d{1,10}", text):
        return error_code(int(text))
    if match := _CODE.fullmatch(text):
        return "" if match[1].strip("0") == "" else f"0x{match[1].upper()}"
    return "" if text == "0" else text


class DataverseError(Exception):
    """A call of an environment's Web API did not give its result."""

    def __init__(
        self,
        message: str,
        *,
        operation: str = "",
        code: str = "",
        status: int | None = None,
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        """One line for people, from the environment where it gave one; safe to print."""
        self.operation = operation
        """What was asked, e.g. ``GET solutions`` or ``POST StageSolution``; no query, no values."""
        self.code = code
        """``0x`` and eight upper-case hex digits, or empty where the environment gave none."""
        self.status = status
        """HTTP status, or None where no answer came."""
        self.request_id = request_id
        """The environment's id of the request, else the one that we sent: what its support asks for."""
        self.retry_after = retry_after
        """Seconds that the environment asks to wait."""

    def __str__(self) -> str:
        facts = [
            self.code,
            f"HTTP {self.status}" if self.status else "",
            self.request_id and f"request {self.request_id}",
        ]
        shown = ", ".join(f for f in facts if f)
        return f"{self.operation}: {self.message}" + (f" ({shown})" if shown else "")


class EnvironmentUnreachable(DataverseError):
    """No connection could be made: nothing was sent, so anything may be repeated."""


class AnswerLost(DataverseError):
    """The request may have been received: time ran out, the connection broke or a 5xx came back.

    After an import this is neither success nor failure: ``WebApi.reconcile`` finds out which.
    """


class Throttled(DataverseError):
    """Too many requests (429), and waiting longer would pass the budget: nothing was done."""


class EnvironmentBusy(DataverseError):
    """Another solution operation holds the environment (0x80071151): nothing was done."""


class NotFound(DataverseError):
    """The environment has no such row (404)."""


class AccessDenied(DataverseError):
    """The environment refuses our identity (401) or its rights (403): nothing was done."""


class Refused(DataverseError):
    """The environment understood and said no, or an operation of its own ended in failure.

    ``code`` says why, e.g. 0x8004801D for missing dependencies.
    """


class BadAnswer(DataverseError):
    """The answer is not what the Web API documents: too big, not JSON, a redirect, a field missing."""
