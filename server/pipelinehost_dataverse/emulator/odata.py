"""The part of OData that reads need: paths, literals, and a query turned into one SQL statement.

``$select``, ``$filter`` (comparisons with literals and columns, ``and``/``or``/``not``, ``contains``,
``startswith``, ``endswith``, ``Microsoft.Dynamics.CRM.In`` and its kin, columns of related rows, ``any`` and
``all``), ``$orderby``, ``$top``, ``$count`` and ``$expand``; everything else is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn

from pipelinehost_dataverse.emulator.errors import Code, DataverseError, not_modelled

GUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
PAGE = 5000
"""Rows on a page at most, as in Dataverse."""
COUNT = 5000
"""What ``$count`` gives at most, as in Dataverse."""
_CONDITIONS = 500
"""Conditions of one filter at most, as in Dataverse; SQLite's own limit lies higher."""
_DEPTH = 100
_EXPANSIONS = 15
_OTHER_QUERIES = frozenset(["fetchxml", "savedquery", "userquery", "sql"])
"""Queries of Dataverse beside OData's, as query options."""

EDM = {
    "guid": "Edm.Guid",
    "string": "Edm.String",
    "integer": "Edm.Int32",
    "double": "Edm.Double",
    "boolean": "Edm.Boolean",
    "datetime": "Edm.DateTimeOffset",
    "json": "Edm.Untyped",
}


def guid(text: str) -> str:
    """A key in an address, in small letters.

    Raises:
        DataverseError: it is no GUID.
    """
    if not GUID.fullmatch(text):
        raise DataverseError(
            Code.INVALID_ARGUMENT, f"'{text}' is not a GUID; alternate keys are not modelled."
        )
    return text.lower()


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the Web API shows it.

    ``source`` is a SELECT that gives the columns under their public names; ``columns`` says of what type each
    is (guid, string, integer, double, boolean, datetime or json). ``links`` are navigation properties: name
    to (entity set, column here, column there, whether it is a collection).
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
    name: str = ""
    """The column that names a row to people."""
    labels: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """What the values of choice columns are called."""
    alternate: str = ""
    """A column beside the key that tells rows apart: ``EntityDefinitions(LogicalName='x')``."""


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
    left: int | None
    """Rows of ``$top`` that are left for further pages; None where all are asked for."""


_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>'(?:[^']|'')*')
    | (?P<list>\[[^\[\]]*\])
    | (?P<guid>[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12})
    | (?P<datetime>\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)?)
    | (?P<number>-?\d+(?:\.\d+)?)
    | (?P<word>[A-Za-z_][A-Za-z0-9_./]*)
    | (?P<mark>[(),:=])
    )""",
    re.VERBOSE,
)
_COMPARE = {"eq": "=", "ne": "<>", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_AMONG = {
    "In": (False, False),
    "NotIn": (False, True),
    "Between": (True, False),
    "NotBetween": (True, True),
}
"""Functions on a column and a list of values: whether these are two bounds, and whether it is negated."""
_TEXT = {"contains": ("%", "%"), "startswith": ("", "%"), "endswith": ("%", "")}


def _invalid(message: str) -> DataverseError:
    return DataverseError(Code.INVALID_REQUEST, message)


class _Filter:
    """A ``$filter`` expression as an SQL condition with parameters."""

    def __init__(self, text: str, table: Table, tables: Mapping[str, Table]) -> None:
        self.table = table
        self.tables = tables
        self.text = text
        self.prefix = ""
        self.parameters: list[object] = []
        self.conditions = 0
        self.depth = 0
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
        raise _invalid(f"Syntax error at position {at} in '{self.text[:500]}'.")

    def peek(self) -> str:
        return self.tokens[self.next][1] if self.next < len(self.tokens) else ""

    def take(self, expected: str = "") -> tuple[str, str]:
        if self.next >= len(self.tokens) or (expected and self.peek() != expected):
            self.fail(self.next)
        self.next += 1
        return self.tokens[self.next - 1]

    def any_of(self) -> str:
        self.depth += 1
        if self.depth > _DEPTH:
            raise _invalid(f"The query is nested more than {_DEPTH} levels deep.")
        parts = [self.all_of()]
        while self.peek() == "or":
            self.take()
            parts.append(self.all_of())
        self.depth -= 1
        return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"

    def all_of(self) -> str:
        parts = [self.one()]
        while self.peek() == "and":
            self.take()
            parts.append(self.one())
        return " AND ".join(parts)

    def one(self) -> str:
        if self.peek() == "not":
            self.take()
            negated = 1
            while self.peek() == "not":
                self.take()
                negated += 1
            inner = self.one()
            # A comparison with nothing is false in OData and neither in SQL, so NOT would leave it out.
            return f"NOT coalesce(({inner}), 0)" if negated % 2 else f"({inner})"
        if self.peek() == "(":
            self.take()
            inner = self.any_of()
            self.take(")")
            return f"({inner})"
        kind, word = self.take()
        if kind != "word":
            self.fail(self.next)
        self.conditions += 1
        if self.conditions > _CONDITIONS:
            raise _invalid(f"Number of conditions in query exceeded the maximum limit of {_CONDITIONS}.")
        if word in _TEXT:
            return self.text_function(word)
        if self.peek() == "(":
            return self.function(word)
        return self.related(word.removeprefix(self.prefix), self.compare)

    def text_function(self, word: str) -> str:
        self.take("(")
        name = self.take()[1].removeprefix(self.prefix)

        def condition(column: str) -> str:
            if self.table.columns[column] != "string":
                raise _invalid(f"The function '{word}' takes text, and '{column}' is none.")
            self.take(",")
            kind, text = self.take()
            if kind != "string":
                self.fail(self.next)
            self.take(")")
            before, after = _TEXT[word]
            plain = re.sub(r"([\\%_])", r"\\\1", text[1:-1].replace("''", "'"))
            self.parameters.append(before + plain + after)
            return f"\"{column}\" LIKE ? ESCAPE '\\'"

        return self.related(name, condition)

    def function(self, word: str) -> str:
        path, _, last = word.removeprefix(self.prefix).rpartition("/")
        if path and last in ("any", "all"):
            return self.some(path, last)
        found = _AMONG.get(word.removeprefix("Microsoft.Dynamics.CRM."))
        if not found or "/" in word:
            raise not_modelled(f"The function '{word}' in $filter")
        between, negated = found
        self.take("(")
        given: dict[str, str] = {}
        while True:
            name = self.take()[1]
            self.take("=")
            given[name] = self.take()[1]
            if self.take()[1] == ")":
                break
        if given.keys() != {"PropertyName", "PropertyValues"}:
            raise _invalid(f"The function '{word}' takes PropertyName and PropertyValues.")
        column = self.column(given["PropertyName"].strip("'"))
        values = [self.value(column, text) for text in _items(given["PropertyValues"])]
        if between and len(values) != 2:
            raise _invalid(f"The function '{word}' takes two values.")
        if not values or len(values) > _CONDITIONS:
            raise _invalid(f"The function '{word}' takes 1 to {_CONDITIONS} values.")
        self.parameters += values
        fold = " COLLATE NOCASE" if self.table.columns[column] == "string" else ""
        name = f'"{column}"'
        mark = "?"
        if self.table.columns[column] == "datetime":
            name, mark = f"julianday({name})", "julianday(?)"
        marks = f"{mark} AND {mark}" if between else f"({', '.join([mark] * len(values))})"
        return f"{name}{fold} {'NOT ' if negated else ''}{'BETWEEN' if between else 'IN'} {marks}"

    def some(self, path: str, word: str) -> str:
        """``nav/any(x:x/column eq 1)`` and ``nav/all(…)``."""
        target, here, there, many = self.link(path)
        if not many:
            raise _invalid(f"'{path}' is one row, so '{word}' does not apply to it.")
        self.take("(")
        inner = "1"
        if self.peek() != ")":
            variable = self.take()[1]
            self.take(":")
            inner = self.within(target, f"{variable}/", self.any_of)
        elif word == "all":
            self.fail(self.next)
        self.take(")")
        if word == "all":
            inner = f"NOT coalesce(({inner}), 0)"
        found = f'"{here}" IN (SELECT "{there}" FROM ({target.source}) WHERE {inner})'  # noqa: S608  # names are checked
        return found if word == "any" else f"NOT coalesce(({found}), 0)"

    def related(self, name: str, condition: Callable[[str], str]) -> str:
        """A condition on a column of this row, or on one that a path of navigation properties leads to."""
        nav, slash, rest = name.partition("/")
        if not slash:
            return condition(self.column(name))
        target, here, there, many = self.link(nav)
        if many:
            raise _invalid(f"'{nav}' is a collection; use '{nav}/any(x:x/{rest} …)'.")
        compares_null = self.next + 1 < len(self.tokens) and self.tokens[self.next + 1][1] == "null"
        missing = compares_null and self.peek() == "eq"
        inner = self.within(target, "", lambda: self.related(rest, condition))
        found = f'"{here}" IN (SELECT "{there}" FROM ({target.source}) WHERE {inner})'  # noqa: S608  # names are checked
        return f'({found} OR "{here}" IS NULL)' if missing else found

    def within(self, target: Table, prefix: str, read: Callable[[], str]) -> str:
        outer = self.table, self.prefix
        self.table, self.prefix = target, prefix
        inner = read()
        self.table, self.prefix = outer
        return inner

    def link(self, name: str) -> tuple[Table, str, str, bool]:
        if name not in self.table.links:
            raise unknown_property(name, self.table)
        set_name, here, there, many = self.table.links[name]
        return self.tables[set_name], here, there, many

    def column(self, name: str) -> str:
        if name not in self.table.columns:
            raise unknown_property(name, self.table)
        if self.table.columns[name] == "json":
            raise not_modelled(f"A condition on '{name}'")
        return name

    def compare(self, name: str) -> str:
        operator = self.take()[1]
        if operator not in _COMPARE:
            self.fail(self.next)
        kind, text = self.take()
        column, expected = f'"{name}"', self.table.columns[name]
        if text == "null":
            if operator not in ("eq", "ne"):
                self.fail(self.next)
            return f"{column} IS {'NOT ' if operator == 'ne' else ''}NULL"
        other = text.removeprefix(self.prefix)
        if kind == "word" and text not in ("true", "false"):
            if self.table.columns[self.column(other)] != expected:
                raise _incompatible(name, expected, self.table.columns[other], operator)
            return f'{column} {_COMPARE[operator]} "{other}"'
        given = {"number": "integer"}.get(kind, "boolean" if text in ("true", "false") else kind)
        if given != expected and (given, expected) != ("integer", "double"):
            raise _incompatible(name, expected, given, operator)
        self.parameters.append(self.value(name, text))
        unequal = f" OR {column} IS NULL" if operator == "ne" else ""
        if expected == "datetime":
            condition = f"julianday({column}) {_COMPARE[operator]} julianday(?)"
        else:
            fold = " COLLATE NOCASE" if expected == "string" else ""
            condition = f"{column} {_COMPARE[operator]} ?{fold}"
        return f"({condition}{unequal})" if unequal else condition

    def value(self, name: str, text: str) -> object:
        """A literal, as SQLite keeps values of that column."""
        expected = self.table.columns[name]
        quoted = len(text) >= 2 and text[0] == text[-1] == "'"
        plain = text[1:-1].replace("''", "'") if quoted else text
        try:
            if expected == "boolean":
                return int({"true": True, "false": False, "1": True, "0": False}[plain.lower()])
            if expected in ("integer", "double"):
                number = float(plain) if "." in plain else int(plain)
                if abs(number) >= 2**63:
                    raise ValueError
                return number
        except (KeyError, ValueError):
            raise _invalid(f"'{plain[:100]}' is no value of '{name}'.") from None
        return plain.lower() if expected == "guid" else plain


def _incompatible(name: str, expected: str, given: str, operator: str) -> DataverseError:
    return _invalid(
        "A binary operator with incompatible types was detected. Found operand types "
        f"'{EDM[expected]}' and '{EDM.get(given, given)}' for operator kind '{operator}' on '{name}'."
    )


def _items(text: str) -> Iterator[str]:
    """The values in ``["a","b"]`` or ``['a','b']``."""
    try:
        found = json.loads(text)
    except ValueError:
        found = [item.strip("'").replace("''", "'") for item in split(text.strip("[]"), ",")]
    if not isinstance(found, list):
        raise _invalid(f"PropertyValues '{text[:100]}' is no list.")
    for item in found:
        yield json.dumps(item) if isinstance(item, bool) else str(item)


def unknown_property(name: str, table: Table) -> DataverseError:
    """The refusal of a column or navigation property that a table has not."""
    return _invalid(
        f"Could not find a property named '{name}' on type 'Microsoft.Dynamics.CRM.{table.logical_name}'."
    )


def split(text: str, separator: str) -> list[str]:
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
    for part in split(text, ";"):
        name, _, value = part.partition("=")
        options[name.strip()] = value.strip()
    return options


def plan(
    table: Table,
    options: Mapping[str, str],
    tables: Mapping[str, Table],
    *,
    page_size: int = PAGE,
    where: Sequence[tuple[str, object]] = (),
) -> Query:
    """Turn query options into SQL.

    Args:
        table: what is read.
        options: query options by name, decoded; names that Dataverse does not know are ignored.
        tables: by entity set name, for what navigation properties lead to.
        page_size: rows at most, what the caller prefers or ``PAGE``.
        where: columns that must have one value, for reads by key and for navigation.

    Raises:
        DataverseError: an option that is not known or not modelled, a column that does not exist, a filter
            that does not parse or compares different types.
    """
    known = {"$select", "$filter", "$orderby", "$top", "$count", "$expand", "$skiptoken"}
    for name in options:
        if (name.startswith("$") and name not in known) or name.lower() in _OTHER_QUERIES:
            raise not_modelled(f"The query option '{name}'")
    shown = tuple(split(options.get("$select", ""), ",")) or tuple(table.columns)
    if "*" in shown:
        shown = tuple(table.columns)
    for name in shown:
        if name not in table.columns:
            raise unknown_property(name, table)
    expand: list[tuple[str, str]] = []
    needed = dict.fromkeys((table.key, *shown))
    for item in split(options.get("$expand", ""), ","):
        name, _, inner = item.partition("(")
        if name not in table.links:
            raise unknown_property(name, table)
        expand.append((name, inner.removesuffix(")")))
        needed[table.links[name][1]] = None
        if len(expand) > _EXPANSIONS:
            raise _invalid(f"The query expands more than {_EXPANSIONS} navigation properties.")
    conditions: list[str] = []
    parameters: list[object] = []
    for name, value in where:
        conditions.append(f'"{name}" = ?')
        parameters.append(value)
    if "$filter" in options:
        condition = _Filter(options["$filter"], table, tables)
        conditions.append(condition.sql)
        parameters.extend(condition.parameters)
    body = f"FROM ({table.source})" + (
        f" WHERE {' AND '.join(conditions)}" if conditions else ""
    )  # columns are checked, values are parameters
    columns = tuple(needed)
    size, offset, left = page_size, 0, None
    if "$top" in options:
        top = _number("$top", options["$top"])
        size = min(size, top)
        left = top - size
    if "$skiptoken" in options:
        offset = _number("$skiptoken", options["$skiptoken"])
    shown_columns = ", ".join(f'"{name}"' for name in columns)
    sql = f"SELECT {shown_columns} {body} ORDER BY {_order(table, options)} LIMIT {size + 1} OFFSET {offset}"
    count = f"SELECT count(*) {body}" if options.get("$count", "").lower() == "true" else None
    return Query(sql, tuple(parameters), columns, shown, tuple(expand), count, size, offset, left)


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
    for item in split(options["$orderby"], ","):
        name, _, direction = item.partition(" ")
        if name not in table.columns:
            raise unknown_property(name, table)
        if direction.strip() not in ("", "asc", "desc"):
            raise _invalid(f"Syntax error in $orderby '{item}'.")
        parts.append(f'"{name}" {direction.strip()}')
    return ", ".join([*parts, default])


def convert(kind: str, value: Any) -> Any:
    """Give a column's value as JSON shows it: SQLite keeps booleans as numbers, and labels as text."""
    if value is None:
        return None
    if kind == "json":
        return json.loads(value)
    return bool(value) if kind == "boolean" else value


_TRUTH = {True: "Yes", False: "No"}


def formatted(table: Table, name: str, value: Any) -> str | None:
    """The text that people see for a column's value, or None where that is the value itself."""
    kind = table.columns[name]
    if value is None:
        return None
    if name in table.labels:
        return table.labels[name].get(value)
    if kind == "boolean":
        return _TRUTH[bool(value)]
    if kind == "integer":
        return f"{value:,}"
    if kind == "datetime":
        at = datetime.fromisoformat(value)
        return at.strftime(f"{at.month}/{at.day}/%Y {at.hour % 12 or 12}:%M %p")
    return None


def arguments(text: str, query: Mapping[str, str]) -> dict[str, str]:
    """Read a function's arguments: ``A=@p1,B='x'`` with ``@p1`` among the query options; quotes removed.

    Raises:
        DataverseError: a parameter alias without a value.
    """
    found: dict[str, str] = {}
    for part in split(text, ","):
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
