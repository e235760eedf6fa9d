r"""Lists: pages that a token goes on from, orders, and the small language of filters.

A filter is up to 32 terms joined by ``AND``. A term is a field, one of ``= != < <= > >=``, and a value:
``state = FAILED AND create_time >= "2026-01-31T00:00:00Z"``. Text may stand in double quotes, with
``\"`` and ``\\`` inside. Only times have an order.
"""

from __future__ import annotations

import base64
import functools
import hmac
import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar, cast

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pipelinehost.errors import InvalidArgument, Violation
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Environment, Event, Principal, Run
from pipelinehost_server.access import Access, Caller
from pipelinehost_server.api.configure import invalid
from pipelinehost_server.store import Key, Kind, Operator, Reads

_M = TypeVar("_M", bound=Message)
_Condition: TypeAlias = tuple[str, Operator, Any]

PAGE: Final = 50
"""Rows of a page where the request leaves it open."""
MOST: Final = 1_000
"""Most rows of a page."""
_PAGE_BYTES: Final = 3 * 1024 * 1024
"""A page that would be larger gets fewer rows: a gRPC client takes 4 MiB unless it was told otherwise."""
_TERMS: Final = 32
_FILTER_BYTES: Final = 4_096
_MAC: Final = 16
_INTEGER: Final = 2**63 - 1

_TERM = re.compile(r'\s*([a-z_]+)\s*(!=|<=|>=|=|<|>)\s*("(?:[^"\\]|\\["\\])*"|[^\s"]+)')
_AND = re.compile(r"\s+AND(?=\s)")
_ESCAPE = re.compile(r"\\(.)")


def _text(value: str) -> str:
    return value


def _time(value: str) -> int:
    at = Timestamp()
    try:
        at.FromJsonString(value)
    except ValueError:
        raise ValueError("is not a time like 2026-01-31T08:00:00Z") from None
    return max(-_INTEGER, min(_INTEGER, at.ToNanoseconds()))


def _boolean(value: str) -> int:
    if value not in {"true", "false"}:
        raise ValueError("is neither true nor false")
    return int(value == "true")


def _enum(wrapper: EnumTypeWrapper, prefix: str) -> Callable[[str], int]:
    numbers = {n.removeprefix(prefix): v for n, v in wrapper.items() if v}

    def read(value: str) -> int:
        if value not in numbers:
            raise ValueError(f"is none of {', '.join(numbers)}")
        return numbers[value]

    return read


@dataclass(frozen=True, eq=False, slots=True)
class Listing:
    """What can be listed, by which fields it can be filtered and in which orders it comes."""

    kind: Kind
    fields: Mapping[str, Callable[[str], str | int]]
    orders: tuple[str, ...]
    """As ``order_by`` writes them; the first is the default."""


ENVIRONMENTS: Final = Listing(
    "environment",
    {"kind": _enum(Environment.Kind, "KIND_"), "region": _text, "display_name": _text},
    ("name", "name desc"),
)
PIPELINES: Final = Listing("pipeline", {"display_name": _text, "environment": _text}, ("name", "name desc"))
RUNS: Final = Listing(
    "run",
    {
        "state": _enum(Run.State, "STATE_"),
        "pipeline": _text,
        "stage": _text,
        "solution": _text,
        "target_environment": _text,
        "artifact": _text,
        "requester": _text,
        "create_time": _time,
    },
    ("create_time desc", "create_time"),
)
ARTIFACTS: Final = Listing(
    "artifact",
    {"solution": _text, "version": _text, "managed": _boolean, "create_time": _time},
    ("create_time desc",),
)
EVENTS: Final = Listing(
    "event",
    {"subject": _text, "kind": _enum(Event.Kind, "KIND_"), "actor": _text, "time": _time},
    ("sequence", "sequence desc"),
)
PRINCIPALS: Final = Listing(
    "principal",
    {"kind": _enum(Principal.Kind, "KIND_"), "role": _enum(Principal.Role, "ROLE_"), "display_name": _text},
    ("name", "name desc"),
)
FREEZES: Final = Listing("freeze", {"scope": _text}, ("name", "name desc"))
FINDINGS: Final = Listing("finding", {}, ("position",))
COMPONENT_RESULTS: Final = Listing("component_result", {}, ("position",))


class Pages:
    """Answers the list calls; a page token is bound to its caller and to all that the request asked for.

    Args:
        reads: of the store.
        secret: of this host; tokens made with another one are refused.
    """

    def __init__(self, reads: Reads, secret: bytes) -> None:
        self._reads = reads
        self._secret = secret

    def page(
        self,
        listing: Listing,
        answer: type[_M],
        request: Any,
        caller: Caller,
        run: str = "",
    ) -> _M:
        """A page as the response of a list call: of what the caller may see.

        A page token does not depend on that: rights may change between two pages.

        Args:
            listing: what to list.
            answer: type of the response, with the rows in field 1 and a ``next_page_token``.
            request: the list request, with whatever it has of page_size, page_token, filter and order_by.
            caller: who asks.
            run: lists what belongs to this run, which the caller sees, and no more.

        Raises:
            InvalidArgument: the page size, the page token, the filter or the order cannot be used.
        """
        limit = page_size(request.page_size)
        filter_ = getattr(request, "filter", "")
        order = getattr(request, "order_by", "") or listing.orders[0]
        if order not in listing.orders:
            one_of = " or ".join(repr(o) for o in listing.orders)
            raise invalid([Violation("order_by", f"{order!r} is no order of this list: use {one_of}")])
        where: tuple[_Condition, ...] = (("run", "=", run),) if run else Access.rows(caller, listing.kind)
        if filter_:
            where = (*where, *parse(listing, filter_))
        bound = (caller.name, listing.kind, run, filter_, order)
        after = self._after(request.page_token, bound) if request.page_token else None
        column, _, descending = order.partition(" ")
        ordering = (column, bool(descending))
        rows, key = self._reads.page(listing.kind, where=where, order=ordering, after=after, limit=limit)
        while len(rows) > _PAGE_BYTES and limit > 1:
            limit = max(1, limit * _PAGE_BYTES // (2 * len(rows)))
            rows, key = self._reads.page(listing.kind, where=where, order=ordering, after=after, limit=limit)
        page = answer.FromString(rows)
        if key is not None:
            cast("Any", page).next_page_token = self._token(key, bound)
        return page

    def slice(self, request: Any, total: int, bound: tuple[str, ...]) -> tuple[int, int, str]:
        """Where a page of a computed list begins and ends, and the token of the next one.

        Args:
            request: with page_size and page_token.
            total: length of the whole list.
            bound: caller, and everything that the request asked for.

        Raises:
            InvalidArgument: the page size or the page token cannot be used.
        """
        size = page_size(request.page_size)
        start = int(self._after(request.page_token, bound)[0]) if request.page_token else 0
        end = min(start + size, total)
        return start, end, self._token((end,), bound) if end < total else ""

    def _token(self, key: Key, bound: tuple[str, ...]) -> str:
        text = json.dumps(key).encode()
        return base64.urlsafe_b64encode(self._mac(text, bound) + text).decode().rstrip("=")

    def _after(self, token: str, bound: tuple[str, ...]) -> Key:
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raw = b""
        mac, text = raw[:_MAC], raw[_MAC:]
        if not hmac.compare_digest(mac, self._mac(text, bound)):
            raise InvalidArgument(
                ErrorReason.ERROR_REASON_INVALID_PAGE_TOKEN,
                "page_token: was not made by this host for this request",
                remedy="Send next_page_token of the page before with the same caller, filter and order, "
                "or begin again without a token.",
                violations=[Violation("page_token", "was not made by this host for this request")],
            )
        return tuple(json.loads(text))

    def _mac(self, text: bytes, bound: tuple[str, ...]) -> bytes:
        return hmac.digest(self._secret, json.dumps(bound).encode() + b"\0" + text, "sha256")[:_MAC]


def page_size(asked: int) -> int:
    """Rows of a page.

    Raises:
        InvalidArgument: more than 1,000, or less than none.
    """
    if not 0 <= asked <= MOST:
        raise invalid([Violation("page_size", f"is {asked}; it may be 1 to {MOST:,}, and 0 means {PAGE}")])
    return asked or PAGE


@functools.lru_cache(maxsize=256)
def parse(listing: Listing, text: str) -> tuple[_Condition, ...]:
    """The conditions of a filter.

    Raises:
        InvalidArgument: it cannot be read; the metadata ``position`` tells where, in characters from 0.
    """
    if len(text.encode()) > _FILTER_BYTES:
        raise _unreadable(_FILTER_BYTES, f"is longer than {_FILTER_BYTES:,} bytes")
    found: list[_Condition] = []
    position = 0
    end = len(text.rstrip())
    while position < end:
        if found:
            joined = _AND.match(text, position)
            if joined is None:
                raise _unreadable(position, "terms are joined by AND, in capitals and between spaces")
            position = joined.end()
        term = _TERM.match(text, position)
        if term is None:
            raise _unreadable(position, 'expected a term like solution = "Sales"')
        if len(found) == _TERMS:
            raise _unreadable(position, f"has more than {_TERMS} terms")
        found.append(_condition(listing, term))
        position = term.end()
    return tuple(found)


_COMPARED: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def selects(text: str) -> Callable[[Event], bool]:
    """Which events a filter over events selects, the same as a list's.

    Raises:
        InvalidArgument: it cannot be read.
    """
    conditions = [(name, _COMPARED[how], value) for name, how, value in parse(EVENTS, text)]

    def selected(event: Event) -> bool:
        return all(
            how(event.time.ToNanoseconds() if name == "time" else getattr(event, name), value)
            for name, how, value in conditions
        )

    return selected


def _condition(listing: Listing, term: re.Match[str]) -> _Condition:
    name, operator, value = term.groups()
    read = listing.fields.get(name)
    if read is None:
        known = ", ".join(listing.fields)
        raise _unreadable(term.start(1), f"there is no field {name!r} to filter by; there are {known}")
    if operator not in {"=", "!="} and read is not _time:
        raise _unreadable(term.start(2), f"{name} can be compared with = and != only")
    if value.startswith('"'):
        value = _ESCAPE.sub(r"\1", value[1:-1])
    try:
        return name, cast("Operator", operator), read(value)
    except ValueError as error:
        raise _unreadable(term.start(3), f"{value[:100]!r} {error}") from None


def _unreadable(position: int, what: str) -> InvalidArgument:
    return InvalidArgument(
        ErrorReason.ERROR_REASON_INVALID_FILTER,
        f"filter: at character {position}: {what}",
        remedy='Write it like: state = FAILED AND create_time >= "2026-01-31T00:00:00Z"',
        violations=[Violation("filter", f"at character {position}: {what}")],
        metadata={"position": str(position)},
    )
