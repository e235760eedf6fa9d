"""``$batch``: several requests in one, as OData 4.0 packs them into ``multipart/mixed``."""

from __future__ import annotations

import email.policy
import uuid
from collections.abc import Iterable, Sequence
from email.message import Message
from email.parser import BytesParser
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp
from starlette.types import Message as Event

from pipelinehost_dataverse.emulator.errors import Code, DataverseError, not_modelled

REQUESTS = 1000
"""Requests in a batch at most, as in Dataverse."""
_BYTES = 16 * 2**20
_BREAK = b"\r\n"


class _Part(NamedTuple):
    """One request of a batch."""

    method: str
    url: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    content_id: str
    changes: bool
    """Whether it stands in a change set, which is answered as one."""


async def answer(request: Request, app: ASGIApp, root: str) -> Response:
    """Make the requests of a batch one after the other, and answer them together.

    A change set may hold one request, since nothing here could undo a second one. The batch ends at the
    first failure unless the request prefers ``odata.continue-on-error``.

    Args:
        request: the whole.
        app: what answers its parts.
        root: address of the Web API, which relative addresses continue.

    Raises:
        DataverseError: the body is no batch, too large, or has more requests than allowed.
    """
    parts = _parts(request.headers.get("content-type", ""), await _body(request))
    go_on = "odata.continue-on-error" in request.headers.get("prefer", "")
    boundary = f"batchresponse_{uuid.uuid4()}"
    pieces: list[bytes] = []
    for part in parts:
        status, headers, body = await _ask(request, app, root, part)
        wrapped = _wrapped(part, status, headers, body)
        if part.changes:
            inner = f"changesetresponse_{uuid.uuid4()}"
            wrapped = _multipart(inner, [wrapped])
            wrapped = f"Content-Type: multipart/mixed; boundary={inner}\r\n\r\n".encode() + wrapped
        pieces.append(wrapped)
        if status >= 400 and not go_on:
            break
    return Response(_multipart(boundary, pieces), media_type=f"multipart/mixed; boundary={boundary}")


async def _body(request: Request) -> bytes:
    pieces: list[bytes] = []
    async for piece in request.stream():
        pieces.append(piece)
        if sum(map(len, pieces)) > _BYTES:
            raise _invalid(f"The batch is larger than {_BYTES} bytes; import packages outside of batches.")
    return b"".join(pieces)


def _parts(content_type: str, body: bytes) -> list[_Part]:
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1", "replace")
    whole = BytesParser(policy=email.policy.compat32).parsebytes(head + body)
    if whole.get_content_type() != "multipart/mixed" or not whole.is_multipart():
        raise _invalid("The body is no batch: its type must be multipart/mixed with a boundary.")
    found: list[_Part] = []
    for item in _items(whole):
        if item.get_content_type() == "multipart/mixed":
            inner = _items(item)
            if len(inner) != 1:
                raise not_modelled("A change set of more or less than one request")
            found.append(_part(inner[0], changes=True))
        else:
            found.append(_part(item, changes=False))
    if not 0 < len(found) <= REQUESTS:
        raise _invalid(f"The batch has {len(found)} requests; 1 to {REQUESTS} are allowed.")
    return found


def _items(message: Message) -> list[Message]:
    items = message.get_payload()
    return [item for item in items if isinstance(item, Message)] if isinstance(items, list) else []


def _part(item: Message, *, changes: bool) -> _Part:
    raw = item.get_payload(decode=True)
    if item.get_content_type() != "application/http" or not isinstance(raw, bytes):
        raise _invalid("A part of the batch is not of the type application/http.")
    head, _, body = raw.lstrip().replace(b"\r\n", b"\n").partition(b"\n\n")
    line, *lines = head.decode("latin-1").split("\n")
    method, _, url = line.strip().partition(" ")
    url = url.rpartition(" HTTP/")[0] or url
    headers = [
        (name.strip().lower().encode("latin-1"), value.strip().encode("latin-1"))
        for name, sign, value in (text.partition(":") for text in lines)
        if sign
    ]
    if changes and method == "GET":
        raise _invalid("A change set has no room for GET.")
    return _Part(method, url.strip(), headers, body.strip(), item.get("Content-ID", ""), changes)


async def _ask(
    request: Request, app: ASGIApp, root: str, part: _Part
) -> tuple[int, Sequence[tuple[bytes, bytes]], bytes]:
    path, _, query = _address(part.url, root).partition("?")
    own = {name for name, _ in part.headers}
    kept = [(n, v) for n, v in request.headers.raw if n in (b"host", b"authorization") and n not in own]
    scope = {
        **request.scope,
        "method": part.method,
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": quote(query, safe="%=&$@'(),;:/*+!?").encode(),
        "headers": [*kept, *part.headers],
        "path_params": {},
    }
    scope.pop("endpoint", None)
    events: list[Event] = []

    async def receive() -> Event:
        return {"type": "http.request", "body": part.body, "more_body": False}

    async def send(event: Event) -> None:
        events.append(event)

    await app(scope, receive, send)
    body = b"".join(event.get("body", b"") for event in events[1:])
    return events[0]["status"], events[0]["headers"], body


def _address(url: str, root: str) -> str:
    """The path of a part below the server, with its query."""
    base = urlsplit(root).path
    if "://" in url:
        if not url.startswith(root):
            raise _invalid(f"'{url[:200]}' is not below {root}, so it cannot be part of this batch.")
        return base + url[len(root) :]
    if url.startswith("/"):
        if not url.startswith(base):
            raise _invalid(f"'{url[:200]}' is not below {base}, so it cannot be part of this batch.")
        return url
    return base + url


def _wrapped(part: _Part, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    head = [b"Content-Type: application/http", b"Content-Transfer-Encoding: binary"]
    if part.content_id:
        head.append(b"Content-ID: " + part.content_id.encode("latin-1", "replace"))
    lines = [b"HTTP/1.1 %d %s" % (status, b"OK" if status < 400 else b"Error")]
    lines += [name.title() + b": " + value for name, value in headers if name != b"content-length"]
    return _BREAK.join([*head, b"", *lines, b"", body])


def _multipart(boundary: str, pieces: Iterable[bytes]) -> bytes:
    mark = b"--" + boundary.encode()
    return b"".join(mark + _BREAK + piece + _BREAK for piece in pieces) + mark + b"--" + _BREAK


def _invalid(message: str) -> DataverseError:
    return DataverseError(Code.INVALID_REQUEST, message)
