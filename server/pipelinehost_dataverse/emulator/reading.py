"""Reading rows: a path, its query options, and the JSON of what they lead to."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from pipelinehost_dataverse.emulator import odata
from pipelinehost_dataverse.emulator.errors import Code, DataverseError, no_segment, not_modelled
from pipelinehost_dataverse.emulator.store import Store
from pipelinehost_dataverse.emulator.tables import TABLES

_PRIVILEGE = "Microsoft.Dynamics.CRM.RetrieveUserPrivilegeByPrivilegeName"
_ANNOTATIONS = re.compile(r'odata\.include-annotations="([^"]*)"')
_PAGE_SIZE = re.compile(r"odata\.maxpagesize=(\d{1,5})")
_FORMATTED = "OData.Community.Display.V1.FormattedValue"
_LOOKUP = "Microsoft.Dynamics.CRM.lookuplogicalname"
_NAVIGATION = "Microsoft.Dynamics.CRM.associatednavigationproperty"
_TOTAL = "Microsoft.Dynamics.CRM.totalrecordcount"
_ROWS = 200
"""Rows that are shaped before others get a turn on the loop."""
_PATH = "/()',=$"
"""Signs that the path of an address may contain as they are."""


class Call(NamedTuple):
    """One request, taken apart."""

    request: Request
    options: Mapping[str, str]
    root: str
    path: str

    @property
    def prefer(self) -> str:
        """The header of that name; empty where there is none."""
        return self.request.headers.get("prefer", "")

    def annotated(self, name: str) -> bool:
        """Whether annotations of that name are asked for: ``*``, a name, or ``Microsoft.Dynamics.CRM.*``."""
        found = _ANNOTATIONS.search(self.prefer)
        return found is not None and any(
            fnmatch.fnmatchcase(name, pattern.strip()) for pattern in found.group(1).split(",")
        )

    def result(self, kind: str, content: Mapping[str, object]) -> Response:
        """The answer of a function or an action."""
        context = f"{self.root}$metadata#Microsoft.Dynamics.CRM.{kind}"
        return JSONResponse({"@odata.context": context, **content})


class Reading:
    """Answers GET of an environment's rows.

    Args:
        store: of the environment.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def answer(self, call: Call, segments: Sequence[tuple[str, str | None]]) -> Response:
        """Follow a path like ``solutions(ID)/publisherid/uniquename`` and answer what it leads to."""
        (set_name, key), *rest = segments
        table = TABLES[set_name]
        where = [_key(table, key)] if key is not None else []
        one = key is not None
        while rest:
            (word, inner), *rest = rest
            if word == "$count" and not one and not rest:
                return self._count(call, table, where)
            if word == _PRIVILEGE and set_name == "systemusers" and one and not rest:
                return self._privilege(call, where, odata.arguments(inner or "", call.options))
            if word.startswith("Microsoft.Dynamics.CRM."):
                raise not_modelled(f"The type or function '{word}' in a path")
            if not one:
                raise no_segment(word)
            if word in table.columns:
                if rest not in ([], [("$value", None)]):
                    raise no_segment(rest[0][0])
                return self._property(call, table, where, word, raw=bool(rest))
            if word not in table.links:
                raise no_segment(word)
            target, here, there, many = table.links[word]
            value = self._one(table, where, here)
            table, where, one = TABLES[target], [(there, value)], not many
            if inner is not None:
                where.append(_key(table, inner))
                one = True
            elif value is None and one:
                return Response(status_code=204)
        return await (self._row(call, table, where) if one else self._list(call, table, where))

    def _privilege(
        self, call: Call, where: Sequence[tuple[str, object]], arguments: Mapping[str, str]
    ) -> Response:
        """Users are system administrators, who hold every privilege, or readers."""
        user = self._one(TABLES["systemusers"], where, "systemuserid")
        with self._store.read() as db:
            unit = db.execute("SELECT business_unit FROM environment").fetchone()[0]
            found = db.execute("SELECT reader FROM user WHERE id = ?", (user,)).fetchone()
        name = arguments.get("PrivilegeName", "")
        held = {
            "Depth": "Global",
            "PrivilegeId": str(uuid.uuid5(uuid.NAMESPACE_OID, name.casefold())),
            "BusinessUnitId": unit,
            "PrivilegeName": name,
        }
        privileges = "prvread" if found is not None and found[0] else "prv"
        has = [held] if name.casefold().startswith(privileges) else []
        return call.result("RetrieveUserPrivilegeByPrivilegeNameResponse", {"RolePrivileges": has})

    def _one(self, table: odata.Table, where: Sequence[tuple[str, object]], column: str) -> Any:
        query = odata.plan(table, {"$select": column}, TABLES, where=where)
        with self._store.read() as db:
            found = db.execute(query.sql, query.parameters).fetchone()
        if not found:
            raise _no_row(table, where)
        return odata.convert(table.columns[column], found[query.columns.index(column)])

    def _property(
        self, call: Call, table: odata.Table, where: Sequence[tuple[str, object]], column: str, *, raw: bool
    ) -> Response:
        value = self._one(table, where, column)
        if value is None:
            return Response(status_code=204)
        if raw:
            text = json.dumps(value) if isinstance(value, bool) else str(value)
            return PlainTextResponse(text)
        return JSONResponse({"@odata.context": f"{call.root}$metadata#{call.path}", "value": value})

    def _count(self, call: Call, table: odata.Table, where: Sequence[tuple[str, object]]) -> Response:
        query = odata.plan(table, {**call.options, "$count": "true"}, TABLES, where=where)
        with self._store.read() as db:
            count = db.execute(query.count_sql or "", query.parameters).fetchone()[0]
        return PlainTextResponse(str(min(count, odata.COUNT)))

    async def _row(self, call: Call, table: odata.Table, where: Sequence[tuple[str, object]]) -> Response:
        query = odata.plan(table, call.options, TABLES, where=where)
        with self._store.read() as db:
            found = db.execute(query.sql, query.parameters).fetchmany(1)
        if not found:
            raise _no_row(table, where)
        (row,) = self._shape(call, table, query, found)
        context = f"{call.root}$metadata#{table.set_name}{_selected(call, query)}/$entity"
        return _preferred(JSONResponse({"@odata.context": context, **row}), call)

    async def _list(self, call: Call, table: odata.Table, where: Sequence[tuple[str, object]]) -> Response:
        size = odata.PAGE
        preferred = _PAGE_SIZE.search(call.prefer)
        if preferred:
            size = max(1, min(int(preferred.group(1)), odata.PAGE))
        query = odata.plan(table, call.options, TABLES, page_size=size, where=where)
        with self._store.read() as db:
            found = db.execute(query.sql, query.parameters).fetchall()
            count = db.execute(query.count_sql, query.parameters).fetchone()[0] if query.count_sql else None
        answer: dict[str, object] = {
            "@odata.context": f"{call.root}$metadata#{table.set_name}{_selected(call, query)}"
        }
        if count is not None:
            answer["@odata.count"] = min(count, odata.COUNT)
            if call.annotated(_TOTAL):
                answer[f"@{_TOTAL}"] = min(count, odata.COUNT)
                answer[f"@{_TOTAL}limitexceeded"] = count > odata.COUNT
        if len(found) > query.size:
            del found[query.size :]
            if query.left != 0:
                options = {**call.options, "$skiptoken": str(query.offset + query.size)}
                if query.left:
                    options["$top"] = str(query.left)
                pairs = "&".join(f"{quote(k, safe='$@')}={quote(v)}" for k, v in options.items())
                answer["@odata.nextLink"] = f"{call.root}{quote(call.path, safe=_PATH)}?{pairs}"
        pieces = [_json(answer)[:-1] + b',"value":[']
        for start in range(0, len(found), _ROWS):
            rows = self._shape(call, table, query, found[start : start + _ROWS])
            pieces.append((b"," if start else b"") + _json(rows)[1:-1])
            # A long list is made in turns with everything else on this loop.
            await asyncio.sleep(0)
        pieces.append(b"]}")
        return _preferred(Response(b"".join(pieces), media_type="application/json"), call)

    def _shape(
        self, call: Call, table: odata.Table, query: odata.Query, found: Sequence[Sequence[object]]
    ) -> list[dict[str, object]]:
        """Rows as JSON objects: what was selected, with its annotations, and what was expanded."""
        wholes = [
            {
                name: odata.convert(table.columns[name], value)
                for name, value in zip(query.columns, values, strict=True)
            }
            for values in found
        ]
        shown = tuple(dict.fromkeys((table.key, *query.shown)))
        rows: list[dict[str, object]] = [{name: whole[name] for name in shown} for whole in wholes]
        if call.annotated(_FORMATTED):
            for name in shown:
                if table.columns[name] in ("boolean", "integer", "datetime"):
                    for row in rows:
                        text = odata.formatted(table, name, row[name])
                        if text is not None:
                            row[f"{name}@{_FORMATTED}"] = text
        self._annotate_lookups(call, table, shown, rows)
        for name, inner in query.expand:
            known: dict[object, object] = {}
            here = table.links[name][1]
            for row, whole in zip(rows, wholes, strict=True):
                if whole[here] not in known:
                    known[whole[here]] = self._expand(call, table, name, inner, whole[here])
                row[name] = known[whole[here]]
        return rows

    def _annotate_lookups(
        self, call: Call, table: odata.Table, shown: Sequence[str], rows: list[dict[str, object]]
    ) -> None:
        named, typed, linked = (call.annotated(kind) for kind in (_FORMATTED, _LOOKUP, _NAVIGATION))
        for nav, (set_name, here, there, many) in table.links.items():
            if many or here not in shown or not (named or typed or linked):
                continue
            target = TABLES[set_name]
            values = {row[here] for row in rows} - {None}
            names: dict[object, str] = {}
            if values and target.name and named:
                marks = ", ".join("?" * len(values))
                with self._store.read() as db:
                    names = dict(
                        db.execute(
                            f'SELECT "{there}", "{target.name}" FROM ({target.source})'  # noqa: S608  # constants
                            f' WHERE "{there}" IN ({marks})',
                            tuple(values),
                        ).fetchall()
                    )
            for row in rows:
                value = row[here]
                if value is None:
                    continue
                if names.get(value) is not None:
                    row[f"{here}@{_FORMATTED}"] = names[value]
                if typed:
                    row[f"{here}@{_LOOKUP}"] = target.logical_name
                if linked:
                    row[f"{here}@{_NAVIGATION}"] = nav

    def _expand(self, call: Call, table: odata.Table, name: str, inner: str, value: object) -> object:
        set_name, _, there, many = table.links[name]
        target = TABLES[set_name]
        query = odata.plan(target, odata.nested_options(inner), TABLES, where=[(there, value)])
        with self._store.read() as db:
            found = db.execute(query.sql, query.parameters).fetchmany(query.size)
        rows = self._shape(call, target, query, found)
        return rows if many else (rows[0] if rows else None)


def _key(table: odata.Table, text: str) -> tuple[str, object]:
    name, sign, value = text.partition("=")
    if sign and name.strip() == table.alternate:
        return table.alternate, value.strip().strip("'").replace("''", "'").lower()
    return table.key, odata.guid(value.strip() if sign and name.strip() == table.key else text)


def _no_row(table: odata.Table, where: Sequence[tuple[str, object]]) -> DataverseError:
    return DataverseError(
        Code.NOT_FOUND, f"{table.logical_name} With Id = {where[-1][1]} Does Not Exist", status=404
    )


def _selected(call: Call, query: odata.Query) -> str:
    return f"({','.join(query.shown)})" if "$select" in call.options else ""


def _preferred(response: Response, call: Call) -> Response:
    applied = [
        found.group() for found in (_PAGE_SIZE.search(call.prefer), _ANNOTATIONS.search(call.prefer)) if found
    ]
    if applied:
        response.headers["Preference-Applied"] = ",".join(applied)
    return response


def _json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
