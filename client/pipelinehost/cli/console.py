"""What the CLI writes: tables, JSON, YAML and names to stdout, everything else to stderr.

Whatever comes from the host is made harmless before it is printed: it may hold the words of a hostile
environment, and a terminal obeys control characters.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import click
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

_M = TypeVar("_M", bound=Message)

# C0 and C1 controls, and the marks that reorder or hide text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_LINE = re.compile(r"\s*[\r\n\t]+\s*")

STATE_STYLES = {
    "SUCCEEDED": "green",
    "FAILED": "red",
    "CANCELLED": "yellow",
    "CANCELLING": "yellow",
    "UNKNOWN": "bold yellow",
    "DEPLOYING": "cyan",
    "VALIDATING": "cyan",
    "WAITING_FOR_TARGET": "yellow",
    "ERROR": "red",
    "WARNING": "yellow",
}


def clean(text: str) -> str:
    """The text in one line, each character that a terminal would obey replaced by ``�``."""
    return _CONTROL.sub("�", _LINE.sub(" ", text))


def out() -> Console:
    """Where results go."""
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)


def err() -> Console:
    """Where progress, remarks and errors go."""
    return Console(file=sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def now() -> dt.datetime:
    """The time; tests put a fixed one in its place."""
    return dt.datetime.now(dt.UTC)


def program() -> str:
    """How to call this program again for the same host: for commands that people can copy."""
    context = click.get_current_context(silent=True)
    root = context.find_root() if context else None
    if root is None or root.get_parameter_source("host") is not click.core.ParameterSource.COMMANDLINE:
        return "pipelinehost"
    return f"pipelinehost --host {shlex.quote(root.params['host'])}"


def state(text: str) -> Text:
    """A word in the colour that it has everywhere."""
    return Text(text, style=STATE_STYLES.get(text, ""))


# Descriptors are of one class in Python and of another in C, and the stubs know both: hence Any.
@functools.cache
def _prefix(enum: Any) -> str:
    words = [value.name for value in enum.values]
    first = words[0].removesuffix("UNSPECIFIED")
    return first if all(word.startswith(first) for word in words) else ""


def word(enum: Any, number: int) -> str:
    """An enum value without the prefix that Protocol Buffers ask for: ``SUCCEEDED``; empty if unspecified."""
    if number == 0:
        return ""
    value = enum.values_by_number.get(number)
    return str(number) if value is None else value.name.removeprefix(_prefix(enum))


def enum_word(message: Message, field: str) -> str:
    """The word of an enum field of a message."""
    return word(message.DESCRIPTOR.fields_by_name[field].enum_type, getattr(message, field))


def moment(timestamp: Timestamp) -> str:
    """A time as ``2026-01-31T08:00:00Z``; empty where it is not set."""
    if not timestamp.seconds:
        return ""
    return timestamp.ToDatetime(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ago(timestamp: Timestamp) -> str:
    """How long ago it was, in the largest unit: ``3 min ago``; empty where it is not set."""
    if not timestamp.seconds:
        return ""
    seconds = max((now() - timestamp.ToDatetime(dt.UTC)).total_seconds(), 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def duration(seconds: float) -> str:
    """``0.8s``, ``12s``, ``3m 05s`` or ``2h 04m``."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02}m"


def size(count: float) -> str:
    """Bytes as people read them: ``1.2 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def plain(message: Message, *, empty: bool = True) -> dict[str, Any]:
    """A message in the API's own words: field names as in the protos, enum values without their prefix.

    Args:
        message: what to turn into dictionaries, lists, texts and numbers.
        empty: whether fields without a value are there too.
    """
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            items: Any
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                items = dict(sorted(value.items()))
            else:
                items = [_plain(field, item, empty=empty) for item in value]
            if items or empty:
                result[field.name] = items
        elif field.message_type is not None or field.containing_oneof is not None:
            if message.HasField(field.name):
                result[field.name] = _plain(field, value, empty=empty)
            elif empty and field.containing_oneof is None:
                result[field.name] = None
        elif value or empty:
            result[field.name] = _plain(field, value, empty=empty)
    return result


def _plain(field: Any, value: Any, *, empty: bool) -> Any:
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Message):
        return plain(value, empty=empty)
    if field.enum_type is not None:
        return word(field.enum_type, value)
    return value


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON with letters of every language as they are, and no character that a terminal would obey."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _CONTROL.sub(lambda c: c[0] if c[0] == "\n" else f"\\u{ord(c[0]):04x}", text)


def name_of(message: Message) -> str:
    """The resource name of a message, or what comes nearest to one."""
    for field in ("name", "unique_name", "code", "sequence"):
        if field in message.DESCRIPTOR.fields_by_name:
            return str(getattr(message, field))
    return ""


@dataclass(frozen=True)
class Column(Generic[_M]):
    """A column of a table: its heading, and the cell of a message."""

    heading: str
    cell: Callable[[_M], str | Text]
    cell_to_read: Callable[[_M], str] | None = None
    """On a terminal instead of `cell`: times as people tell them."""


def show(
    messages: Iterable[_M], form: str, columns: Sequence[Column[_M]], *, nothing: str = "", one: bool = False
) -> None:
    """Writes messages to stdout.

    Args:
        messages: what to write.
        form: ``table``, ``json``, ``jsonl`` or ``name``.
        columns: of the table.
        nothing: what to say on stderr where there is no row.
        one: whether there is exactly one, which JSON shows by itself and not as a list.
    """
    console = out()
    if form == "json":
        values = [plain(message) for message in messages]
        console.print(to_json(values[0] if one else values, indent=2))
    elif form == "jsonl":
        for message in messages:
            console.print(to_json(plain(message)))
    elif form == "name":
        for message in messages:
            console.print(clean(name_of(message)))
    else:
        rows = list(messages)
        if rows:
            table(console, columns, rows)
        elif nothing:
            err().print(nothing)


def table(console: Console, columns: Sequence[Column[_M]], rows: Sequence[_M]) -> None:
    """Writes rows in aligned columns; on a terminal no line is wider than it is."""
    reading = console.is_terminal
    cells = [
        [
            _cell(column.cell_to_read(row) if reading and column.cell_to_read else column.cell(row))
            for column in columns
        ]
        for row in rows
    ]
    widths = [
        max([cell_len(column.heading), *(cell_len(line[place].plain) for line in cells)])
        for place, column in enumerate(columns)
    ]
    if reading:
        _fit(widths, console.width)
    heading = [Text(column.heading, style="bold") for column in columns]
    for line in [heading, *cells]:
        text = Text()
        for cell, width in zip(line, widths, strict=True):
            cell.truncate(width, overflow="ellipsis", pad=True)
            text += cell + Text("  ")
        text.rstrip()
        console.print(text, no_wrap=True, overflow="ignore", crop=False)


def _cell(value: str | Text) -> Text:
    return Text(clean(value)) if isinstance(value, str) else value


def _fit(widths: list[int], room: int) -> None:
    """Takes from the widest column until all fit."""
    while sum(widths) + 2 * (len(widths) - 1) > room and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1


def details(pairs: Iterable[tuple[str, str | Text]]) -> None:
    """Writes names and values, one to a line; those without a value are left out."""
    console = out()
    shown = [(name, value) for name, value in pairs if (value if isinstance(value, str) else value.plain)]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        console.print(Text(f"{name:{width}}  ", style="dim") + _cell(value))
