"""The part of OData that reads need: paths, literals, and a query turned into one SQL statement.

``$select``, ``$filter`` (comparisons, ``and``/``or``/``not``, ``contains``, ``startswith``, ``endswith``),
``$orderby``, ``$top``, ``$count`` and one level of ``$expand``; everything else is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from pipelinehost_dataverse.emulator.errors import Code, DataverseError, not_modelled

GUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
PAGE = 5000
"""Rows on a page at most, as in Dataverse."""

_EDM = {
    "guid": "Edm.Guid",
    "string": "Edm.String",
    "integer": "Edm.Int32",
    "double": "Edm.Double",
    "boolean": "Edm.Boolean",
    "datetime": "Edm.DateTimeOffset",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the Web API shows it.

    ``source`` is a SELECT that gives the columns under their public names; ``columns`` says of what type each
    is (guid, string, integer, double, boolean or datetime). ``links`` are navigation properties: name to
    (entity set, column here, column there, whether it is a collection).
    """

    set_name: str
    logical_name: str
    key: str
    columns: Mapping[str, str]
    source: str
    links: Mapping[str, tuple[str, str, str, bool]] = field(default_factory=dict)
    sortable: bool = True
    order: str = ""
    """SQL expression of the order without ``$orderby``; the key's where it is empty."""


@dataclass(frozen=True, slots=True)
class Query:
    """A read of one table, ready to run."""

    sql: str
    parameters: tuple[object, ...]
    columns: tuple[str, ...]
    shown: tuple[str, ...]
    """Those of ``columns`` that were asked for; the rest serve navigation."""
    expand: tuple[tuple[str, str], ...]
    """Navigation property and the options in its parentheses."""
    count_sql: str | None
    size: int
    offset: int


_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>'(?:[^']|'')*')
    | (?P<guid>[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12})
    | (?P<datetime>\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)?)
    | (?P<number>-?\d+(?:\.\d+)?)
    | (?P<word>[A-Za-z_][A-Za-z0-9_./]*)
    | (?P<mark>[(),])
    )""",
    re.VERBOSE,
)
_COMPARE = {"eq": "=", "ne": "<>", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_TEXT = {"contains": ("%", "%"), "startswith": ("", "%"), "endswith": ("%", "")}


def _invalid(message: str) -> DataverseError:
    return DataverseError(Code.INVALID_REQUEST, message)


class _Filter:
    """A ``$filter`` expression as an SQL condition with parameters."""

    def __init__(self, text: str, table: Table) -> None:
        self.table = table
        self.text = text
        self.parameters: list[object] = []
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if not found or not found.lastgroup:
                self.fail(at)
            self.tokens.append((found.lastgroup, found.group(found.lastgroup)))
            at = found.end()
        self.next = 0
        self.sql = self.any_of()
        if self.next != len(self.tokens):
            self.fail(self.next)

    def fail(self, at: int) -> NoReturn:
        raise _invalid(f"Syntax error at position {at} in '{self.text}'.")

    def peek(self) -> str:
        return self.tokens[self.next][1] if self.next < len(self.tokens) else ""

    def take(self, expected: str = "") -> tuple[str, str]:
        if self.next >= len(self.tokens) or (expected and self.peek() != expected):
            self.fail(self.next)
        self.next += 1
        return self.tokens[self.next - 1]

    def any_of(self) -> str:
        parts = [self.all_of()]
        while self.peek() == "or":
            self.take()
            parts.append(self.all_of())
        return " OR ".join(parts) if len(parts) == 1 else f"({' OR '.join(parts)})"

    def all_of(self) -> str:
        parts = [self.one()]
        while self.peek() == "and":
            self.take()
            parts.append(self.one())
        return " AND ".join(parts)

    def one(self) -> str:
        if self.peek() == "not":
            self.take()
            return f"NOT ({self.one()})"
        if self.peek() == "(":
            self.take()
            inner = self.any_of()
            self.take(")")
            return f"({inner})"
        kind, word = self.take()
        if kind != "word":
            self.fail(self.next)
        if word in _TEXT:
            self.take("(")
            column = self.column(self.take()[1])
            self.take(",")
            kind, text = self.take()
            if kind != "string":
                self.fail(self.next)
            self.take(")")
            before, after = _TEXT[word]
            plain = re.sub(r"([\\%_])", r"\\\1", text[1:-1].replace("''", "'"))
            self.parameters.append(before + plain + after)
            return f"{column} LIKE ? ESCAPE '\\'"
        if self.peek() == "(":
            raise not_modelled(f"The function '{word}' in $filter")
        column = self.column(word)
        operator = self.take()[1]
        if operator not in _COMPARE:
            self.fail(self.next)
        return self.compare(word, column, operator)

    def column(self, name: str) -> str:
        if name not in self.table.columns:
            raise _unknown_column(name, self.table)
        return f'"{name}"'

    def compare(self, name: str, column: str, operator: str) -> str:
        kind, text = self.take()
        expected = self.table.columns[name]
        if text == "null":
            if operator not in ("eq", "ne"):
                self.fail(self.next)
            return f"{column} IS {'NOT ' if operator == 'ne' else ''}NULL"
        given = {"number": "integer"}.get(kind, "boolean" if text in ("true", "false") else kind)
        if given != expected and (given, expected) != ("integer", "double"):
            raise _invalid(
                "A binary operator with incompatible types was detected. Found operand types "
                f"'{_EDM[expected]}' and '{_EDM.get(given, given)}' for operator kind '{operator}' on "
                f"'{name}'."
            )
        if kind == "string":
            self.parameters.append(text[1:-1].replace("''", "'"))
            return f"{column} {_COMPARE[operator]} ? COLLATE NOCASE"
        if expected == "boolean":
            self.parameters.append(int(text == "true"))
        elif expected in ("integer", "double"):
            self.parameters.append(float(text) if "." in text else int(text))
        elif expected == "guid":
            self.parameters.append(text.lower())
        else:
            self.parameters.append(text)
            return f"julianday({column}) {_COMPARE[operator]} julianday(?)"
        return f"{column} {_COMPARE[operator]} ?"


def _unknown_column(name: str, table: Table) -> DataverseError:
    return _invalid(
        f"Could not find a property named '{name}' on type 'Microsoft.Dynamics.CRM.{table.logical_name}'."
    )


def _split(text: str, separator: str) -> list[str]:
    """Split at a separator that stands outside of parentheses and quotes."""
    parts: list[str] = []
    depth, quoted, start = 0, False, 0
    for at, sign in enumerate(text):
        if sign == "'":
            quoted = not quoted
        elif quoted:
            continue
        elif sign == "(":
            depth += 1
        elif sign == ")":
            depth -= 1
        elif sign == separator and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def nested_options(text: str) -> dict[str, str]:
    """Read the options in the parentheses of an ``$expand`` item: ``$select=a,b;$filter=c eq 1``."""
    options: dict[str, str] = {}
    for part in _split(text, ";"):
        name, _, value = part.partition("=")
        options[name.strip()] = value.strip()
    return options


def plan(
    table: Table,
    options: Mapping[str, str],
    *,
    page_size: int = PAGE,
    where: tuple[str, object] | None = None,
) -> Query:
    """Turn query options into SQL.

    Args:
        table: what is read.
        options: query options by name, decoded; names starting with ``@`` are ignored.
        page_size: rows at most, what the caller prefers or ``PAGE``.
        where: one column that must have one value, for reads by key and for navigation.

    Raises:
        DataverseError: an option that is not known or not modelled, a column that does not exist, a filter
            that does not parse or compares different types.
    """
    known = {"$select", "$filter", "$orderby", "$top", "$count", "$expand", "$skiptoken"}
    for name in options:
        if name.startswith("$") and name not in known:
            raise not_modelled(f"The query option '{name}'")
    shown = tuple(_split(options.get("$select", ""), ",")) or tuple(table.columns)
    for name in shown:
        if name not in table.columns:
            raise _unknown_column(name, table)
    expand: list[tuple[str, str]] = []
    needed = dict.fromkeys((table.key, *shown))
    for item in _split(options.get("$expand", ""), ","):
        name, _, inner = item.partition("(")
        if name not in table.links:
            raise _unknown_column(name, table)
        expand.append((name, inner.removesuffix(")")))
        needed[table.links[name][1]] = None
    conditions: list[str] = []
    parameters: list[object] = []
    if where:
        conditions.append(f'"{where[0]}" = ?')
        parameters.append(where[1])
    if "$filter" in options:
        condition = _Filter(options["$filter"], table)
        conditions.append(condition.sql)
        parameters.extend(condition.parameters)
    body = f"FROM ({table.source})" + (
        f" WHERE {' AND '.join(conditions)}" if conditions else ""
    )  # columns are checked, values are parameters
    columns = tuple(needed)
    size, offset = page_size, 0
    if "$top" in options:
        size = min(size, _number("$top", options["$top"]))
    if "$skiptoken" in options:
        offset = _number("$skiptoken", options["$skiptoken"])
    shown_columns = ", ".join(f'"{name}"' for name in columns)
    sql = f"SELECT {shown_columns} {body} ORDER BY {_order(table, options)} LIMIT {size + 1} OFFSET {offset}"
    count = f"SELECT count(*) {body}" if options.get("$count") == "true" else None
    return Query(sql, tuple(parameters), columns, shown, tuple(expand), count, size, offset)


def _number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise _invalid(
            f"Invalid value '{text}' for the query option {name}: a non-negative number is expected."
        )
    return int(text)


def _order(table: Table, options: Mapping[str, str]) -> str:
    default = table.order or f'"{table.key}"'
    if "$orderby" not in options:
        return default
    if not table.sortable:
        raise _invalid(
            f"The query option $orderby is not supported on '{table.logical_name}', a virtual table."
        )
    parts: list[str] = []
    for item in _split(options["$orderby"], ","):
        name, _, direction = item.partition(" ")
        if name not in table.columns:
            raise _unknown_column(name, table)
        if direction.strip() not in ("", "asc", "desc"):
            raise _invalid(f"Syntax error in $orderby '{item}'.")
        parts.append(f'"{name}" {direction.strip()}')
    return ", ".join([*parts, default])


def convert(kind: str, value: Any) -> Any:
    """Give a column's value as JSON shows it: SQLite keeps booleans as numbers."""
    return bool(value) if kind == "boolean" and value is not None else value


def arguments(text: str, query: Mapping[str, str]) -> dict[str, str]:
    """Read a function's arguments: ``A=@p1,B='x'`` with ``@p1`` among the query options; quotes removed.

    Raises:
        DataverseError: a parameter alias without a value.
    """
    found: dict[str, str] = {}
    for part in _split(text, ","):
        name, _, value = part.partition("=")
        name, value = name.strip(), value.strip()
        if value.startswith("@"):
            if value not in query:
                raise _invalid(f"The parameter alias '{value}' of '{name}' has no value.")
            value = query[value].strip()
        if len(value) >= 2 and value[0] == value[-1] == "'":
            value = value[1:-1].replace("''", "'")
        found[name] = value
    return found
