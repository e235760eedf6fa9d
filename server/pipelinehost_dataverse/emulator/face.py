"""The environment's Web API: paths, headers, bodies and errors as Dataverse has them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import fnmatch
import functools
import json
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, quote

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from pipelinehost_dataverse.emulator import answers, batch, csdl, makers, odata
from pipelinehost_dataverse.emulator.engine import Engine
from pipelinehost_dataverse.emulator.errors import Code, DataverseError, not_modelled
from pipelinehost_dataverse.emulator.journal import ACTING
from pipelinehost_dataverse.emulator.parameters import ImportRequest
from pipelinehost_dataverse.emulator.tables import ENTITY_SETS, TABLES

if TYPE_CHECKING:
    from pipelinehost_dataverse.emulator.environment import EmbeddedEnvironment

PACKAGE_BYTES = 120 * 2**20
"""Largest package that Dataverse takes."""
_BODY_BYTES = PACKAGE_BYTES * 4 // 3 + 4 * 2**20
_SLICE = 3 * 2**18
"""Bytes per turn of base64: long conversions would hold the interpreter while others wait."""
_IMPORT = "prvImportCustomization"
_REMOVE_CUSTOMIZATIONS = "RemoveActiveCustomizations"
"""The one function that changes something: in the real Web API it is a GET, too."""
_PRIVILEGE = "Microsoft.Dynamics.CRM.RetrieveUserPrivilegeByPrivilegeName"
_ROWS = 200
"""Rows that are shaped before others get a turn on the loop."""
_FILE = re.compile(rb'"CustomizationFile"\s*:\s*"')
_ANNOTATIONS = re.compile(r'odata\.include-annotations="([^"]*)"')
_PAGE_SIZE = re.compile(r"odata\.maxpagesize=(\d{1,5})")
_FORMATTED = "OData.Community.Display.V1.FormattedValue"
_LOOKUP = "Microsoft.Dynamics.CRM.lookuplogicalname"
_NAVIGATION = "Microsoft.Dynamics.CRM.associatednavigationproperty"
_TOTAL = "Microsoft.Dynamics.CRM.totalrecordcount"
_VERSION = "9.2.26111.00100"

_log = logging.getLogger(__name__)


APPLICATION = "application"
"""Under this name a guard puts the application that a request comes from into the request's scope."""


class Application(NamedTuple):
    """Who has signed in; its client id, and whether it holds no privilege but to read."""

    client: str
    reader: bool


class _Call(NamedTuple):
    """One request, taken apart."""

    request: Request
    options: Mapping[str, str]
    root: str
    path: str

    @property
    def prefer(self) -> str:
        return self.request.headers.get("prefer", "")

    def annotated(self, name: str) -> bool:
        """Whether annotations of that name are asked for: ``*``, a name, or ``Microsoft.Dynamics.CRM.*``."""
        found = _ANNOTATIONS.search(self.prefer)
        return found is not None and any(
            fnmatch.fnmatchcase(name, pattern.strip()) for pattern in found.group(1).split(",")
        )


class Face:
    """The ASGI application of one environment.

    Args:
        environment: what it speaks for.

    """

    def __init__(self, environment: EmbeddedEnvironment) -> None:
        self._environment = environment
        self._store = environment.store
        self._engine = environment.engine
        self._users: dict[Application, str] = {}
        self.app = Starlette(
            routes=[
                Route("/api/data/v{version}/{path:path}", self._answer, methods=_METHODS),
                Route("/connectivity/connections", self._answer_connections, methods=_METHODS),
                Route("/connectivity/connections/{name}", self._answer_connections, methods=_METHODS),
                Route("/{path:path}", self._answer_nothing, methods=_METHODS),
            ]
        )

    # -- the envelope --------------------------------------------------------------------------------------

    async def _answer(self, request: Request) -> Response:
        version = request.path_params["version"]

        async def found() -> Response:
            if version not in ("9.0", "9.1", "9.2"):
                raise DataverseError(Code.NO_SUCH_SEGMENT, f"There is no Web API v{version}.", status=404)
            # Not base_url: that forgets the prefix below which the loopback server mounts this.
            url = request.url
            prefix = request.scope.get("root_path", "")
            root = f"{url.scheme}://{url.netloc}{prefix}/api/data/v{version}/"
            options = dict(parse_qsl(request.url.query, keep_blank_values=True))
            return await self._route(_Call(request, options, root, request.path_params["path"].strip("/")))

        return await self._guarded(request, found)

    async def _admit(self, request: Request) -> None:
        """Let a request act as the user of its application, who may be one that only looks."""
        application: Application | None = request.scope.get(APPLICATION)
        ACTING.set(None)
        if application is None:
            return
        user = self._users.get(application)
        if user is None:
            user = await asyncio.to_thread(self._engine.user, application.client, reader=application.reader)
            self._users[application] = user
        if application.reader and not _only_reads(request):
            raise DataverseError(
                Code.PRIVILEGE_DENIED,
                f"Principal user (Id={user}) is missing {_IMPORT} privilege.",
                status=403,
            )
        ACTING.set(user)

    async def _answer_connections(self, request: Request) -> Response:
        return await self._guarded(request, functools.partial(self._connections, request))

    async def _answer_nothing(self, request: Request) -> Response:
        async def nothing() -> Response:
            raise DataverseError(
                Code.NO_SUCH_SEGMENT, f"Resource not found for the segment '{request.url.path}'.", status=404
            )

        return await self._guarded(request, nothing)

    async def _guarded(self, request: Request, found: Callable[[], Awaitable[Response]]) -> Response:
        try:
            await self._admit(request)
            response = await found()
        except DataverseError as error:
            response = error_response(error, request.headers.get("prefer", ""))
        except ClientDisconnect:
            response = Response(status_code=499)
        except Exception as error:  # noqa: BLE001  # a request must not end the environment; it is in the log
            _log.exception("%s %s", request.method, request.url.path)
            response = error_response(
                DataverseError(Code.UNEXPECTED, f"An unexpected error occurred: {error!r}.", status=500), ""
            )
        response.headers["Date"] = format_datetime(datetime.now(UTC), usegmt=True)
        response.headers["OData-Version"] = "4.0"
        response.headers["x-ms-service-request-id"] = str(uuid.uuid4())
        asked = request.headers.get("x-ms-client-request-id")
        if asked and len(asked) < 100 and asked.isprintable() and asked.isascii():
            response.headers["x-ms-client-request-id"] = asked
        return response

    async def _route(self, call: _Call) -> Response:
        method, path = call.request.method, call.path
        segments = [_segment(text) for text in odata.split(path, "/")]
        name, inner = segments[0] if segments else ("", None)
        alone = len(segments) == 1
        if method == "GET":
            if name in _DOCUMENTS and len(segments) <= 1:
                return _DOCUMENTS[name](call)
            if name in _FUNCTIONS and alone:
                return await _FUNCTIONS[name](self, call, odata.arguments(inner or "", call.options))
            if name in TABLES and name != "Attributes":
                return await self._read(call, segments)
        elif method == "POST" and name in _ACTIONS and alone and inner is None:
            return await _ACTIONS[name](self, call)
        elif method == "POST" and name == "$batch" and alone:
            return await batch.answer(call.request, self.app, call.root)
        elif method == "DELETE" and name in ("solutions", "stagesolutionuploads") and alone:
            return await self._delete(name, _guid(inner or ""))
        elif method == "PATCH" and name == "solutions" and alone:
            return await self._raise_version(call, _guid(inner or ""))
        elif method == "PATCH" and name == "asyncoperations" and alone:
            return await self._cancel(call, _guid(inner or ""))
        elif name in makers.CHANGED_TABLES and alone and method != "PUT":
            return await self._change(call, name, inner)
        if name in TABLES:
            raise not_modelled(f"{method} of '{path}'")
        if name in _FUNCTIONS or name in _ACTIONS:
            raise DataverseError(Code.INVALID_REQUEST, f"{name} does not answer {method}.", status=405)
        if name in _KNOWN_BUT_ABSENT or name.startswith("$"):
            raise not_modelled(f"'{name}'")
        raise _no_segment(name)

    # -- reads ---------------------------------------------------------------------------------------------

    async def _read(self, call: _Call, segments: Sequence[tuple[str, str | None]]) -> Response:
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
                raise _no_segment(word)
            if word in table.columns:
                if rest not in ([], [("$value", None)]):
                    raise _no_segment(rest[0][0])
                return self._property(call, table, where, word, raw=bool(rest))
            if word not in table.links:
                raise _no_segment(word)
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
        self, call: _Call, where: Sequence[tuple[str, object]], arguments: Mapping[str, str]
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
        return _result(call, "RetrieveUserPrivilegeByPrivilegeNameResponse", {"RolePrivileges": has})

    def _one(self, table: odata.Table, where: Sequence[tuple[str, object]], column: str) -> Any:
        query = odata.plan(table, {"$select": column}, TABLES, where=where)
        with self._store.read() as db:
            found = db.execute(query.sql, query.parameters).fetchone()
        if not found:
            raise _no_row(table, where)
        return odata.convert(table.columns[column], found[query.columns.index(column)])

    def _property(
        self, call: _Call, table: odata.Table, where: Sequence[tuple[str, object]], column: str, *, raw: bool
    ) -> Response:
        value = self._one(table, where, column)
        if value is None:
            return Response(status_code=204)
        if raw:
            text = json.dumps(value) if isinstance(value, bool) else str(value)
            return PlainTextResponse(text)
        return JSONResponse({"@odata.context": f"{call.root}$metadata#{call.path}", "value": value})

    def _count(self, call: _Call, table: odata.Table, where: Sequence[tuple[str, object]]) -> Response:
        query = odata.plan(table, {**call.options, "$count": "true"}, TABLES, where=where)
        with self._store.read() as db:
            count = db.execute(query.count_sql or "", query.parameters).fetchone()[0]
        return PlainTextResponse(str(min(count, odata.COUNT)))

    async def _row(self, call: _Call, table: odata.Table, where: Sequence[tuple[str, object]]) -> Response:
        query = odata.plan(table, call.options, TABLES, where=where)
        with self._store.read() as db:
            found = db.execute(query.sql, query.parameters).fetchmany(1)
        if not found:
            raise _no_row(table, where)
        (row,) = self._shape(call, table, query, found)
        context = f"{call.root}$metadata#{table.set_name}{_selected(call, query)}/$entity"
        return _preferred(JSONResponse({"@odata.context": context, **row}), call)

    async def _list(self, call: _Call, table: odata.Table, where: Sequence[tuple[str, object]]) -> Response:
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
        self, call: _Call, table: odata.Table, query: odata.Query, found: Sequence[Sequence[object]]
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
        self, call: _Call, table: odata.Table, shown: Sequence[str], rows: list[dict[str, object]]
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

    def _expand(self, call: _Call, table: odata.Table, name: str, inner: str, value: object) -> object:
        set_name, _, there, many = table.links[name]
        target = TABLES[set_name]
        query = odata.plan(target, odata.nested_options(inner), TABLES, where=[(there, value)])
        with self._store.read() as db:
            found = db.execute(query.sql, query.parameters).fetchmany(query.size)
        rows = self._shape(call, target, query, found)
        return rows if many else (rows[0] if rows else None)

    # -- functions -----------------------------------------------------------------------------------------

    async def _who_am_i(self, call: _Call, arguments: Mapping[str, str]) -> Response:
        with self._store.read() as db:
            org, unit, user = db.execute("SELECT id, business_unit, user FROM environment").fetchone()
        found = {"BusinessUnitId": unit, "UserId": ACTING.get() or user, "OrganizationId": org}
        return _result(call, "WhoAmIResponse", found)

    async def _version(self, call: _Call, arguments: Mapping[str, str]) -> Response:
        return _result(call, "RetrieveVersionResponse", {"Version": _VERSION})

    async def _organization(self, call: _Call, arguments: Mapping[str, str]) -> Response:
        with self._store.read() as db:
            org, tenant = db.execute("SELECT id, tenant FROM environment").fetchone()
        detail = {
            "OrganizationId": org,
            "FriendlyName": self._environment.name,
            "UniqueName": "org" + org.replace("-", "")[:8],
            "UrlName": self._environment.name,
            "OrganizationVersion": _VERSION,
            "EnvironmentId": org,
            "TenantId": tenant,
            "Geo": self._environment.region,
            "State": "Enabled",
        }
        return _result(call, "RetrieveCurrentOrganizationResponse", {"Detail": detail})

    async def _import_result(self, call: _Call, arguments: Mapping[str, str]) -> Response:
        job = _guid(arguments.get("ImportJobId", ""))
        with self._store.read() as db:
            result = answers.import_result(db, job)
        return _result(call, "RetrieveSolutionImportResultResponse", {"SolutionOperationResult": result})

    async def _dependencies_for_delete(self, call: _Call, arguments: Mapping[str, str]) -> Response:
        code = arguments.get("ComponentType", "")
        if not code.isdigit():
            raise DataverseError(Code.INVALID_ARGUMENT, f"ComponentType '{code}' is not a number.")
        object_id = _guid(arguments.get("ObjectId", ""))
        with self._store.read() as db:
            rows = answers.dependencies_for_delete(db, object_id, int(code))
        return _dependencies(call, rows)

    async def _dependencies_for_uninstall(self, call: _Call, arguments: Mapping[str, str]) -> Response:
        def look() -> list[dict[str, object]]:
            with self._store.look() as db:
                return answers.dependencies_for_uninstall(db, arguments.get("SolutionUniqueName", ""))

        return _dependencies(call, await asyncio.to_thread(look))

    async def _missing_dependencies(self, call: _Call, arguments: Mapping[str, str]) -> Response:
        with self._store.read() as db:
            rows = answers.missing_dependencies(db, arguments.get("SolutionUniqueName", ""))
        return _dependencies(call, rows)

    # -- actions -------------------------------------------------------------------------------------------

    async def _stage(self, call: _Call) -> Response:
        body, content = await _body(call.request)
        _only(body, {"CustomizationFile"}, "StageSolution")
        package = await asyncio.to_thread(_package, content)
        results = await asyncio.to_thread(self._engine.stage, package)
        return _result(call, "StageSolutionResponse", {"StageSolutionResults": results})

    async def _import(self, call: _Call, message: str) -> Response:
        body, content = await _body(call.request)
        request = ImportRequest.of(body, message)
        if content is None and request.upload is None:
            raise DataverseError(
                Code.INVALID_ARGUMENT, "The required parameter 'CustomizationFile' is missing."
            )
        accepted = await asyncio.to_thread(
            self._environment.accept,
            message,
            body,
            package=None if content is None else await asyncio.to_thread(_package, content),
            upload=request.upload,
            job=request.job,
        )
        if message.endswith("Async"):
            answer = {"ImportJobKey": accepted.job, "AsyncOperationId": accepted.operation}
            return _result(call, f"{message}Response", answer)
        await self._environment.finish(accepted.operation)
        return Response(status_code=204)

    async def _uninstall(self, call: _Call) -> Response:
        body, _ = await _body(call.request)
        _only(body, {"SolutionUniqueName"}, "UninstallSolutionAsync")
        name = _text(body, "SolutionUniqueName")
        with self._store.read() as db:
            answers.find_solution(db, name)
        accepted = await asyncio.to_thread(
            self._environment.accept, "UninstallSolutionAsync", {"SolutionUniqueName": name}
        )
        return _result(call, "UninstallSolutionAsyncResponse", {"AsyncOperationId": accepted.operation})

    async def _export(self, call: _Call) -> Response:
        name, managed = await _export_body(call)
        content = await asyncio.to_thread(self._engine.export, name, managed=managed)
        return _file(call, "ExportSolutionResponse", content)

    async def _export_async(self, call: _Call) -> Response:
        name, managed = await _export_body(call)
        accepted = await asyncio.to_thread(
            self._environment.accept, "ExportSolutionAsync", {"SolutionName": name, "Managed": managed}
        )
        answer = {"AsyncOperationId": accepted.operation, "ExportJobId": accepted.job}
        return _result(call, "ExportSolutionAsyncResponse", answer)

    async def _download(self, call: _Call) -> Response:
        body, _ = await _body(call.request)
        _only(body, {"ExportJobId"}, "DownloadSolutionExportData")
        job = _guid(_text(body, "ExportJobId"))
        content = await asyncio.to_thread(self._engine.exported, job)
        return _file(call, "DownloadSolutionExportDataResponse", content)

    async def _publish(self, call: _Call) -> Response:
        await _body(call.request)
        accepted = await asyncio.to_thread(self._environment.accept, "PublishAllXml", {})
        await self._environment.finish(accepted.operation)
        return Response(status_code=204)

    async def _publish_async(self, call: _Call) -> Response:
        await _body(call.request)
        accepted = await asyncio.to_thread(self._environment.accept, "PublishAllXmlAsync", {})
        return _result(call, "PublishAllXmlAsyncResponse", {"AsyncOperationId": accepted.operation})

    async def _delete(self, name: str, key: str) -> Response:
        if name == "stagesolutionuploads":
            await asyncio.to_thread(self._engine.discard_upload, key)
            return Response(status_code=204)
        with self._store.read() as db:
            unique_name = answers.solution_name(db, key)
        accepted = await asyncio.to_thread(
            self._environment.accept, "DeleteSolution", {"SolutionUniqueName": unique_name}
        )
        await self._environment.finish(accepted.operation)
        return Response(status_code=204)

    async def _cancel(self, call: _Call, key: str) -> Response:
        body, _ = await _body(call.request)
        if body != {"statecode": 3, "statuscode": 32}:
            raise not_modelled("PATCH of an operation, but to cancel it (statecode 3, statuscode 32),")
        await asyncio.to_thread(self._environment.cancel, key)
        return Response(status_code=204)

    async def _raise_version(self, call: _Call, key: str) -> Response:
        body, _ = await _body(call.request)
        _only(body, {"version"}, "PATCH of a solution")
        await asyncio.to_thread(self._engine.set_version, key, _text(body, "version"))
        return Response(status_code=204)

    async def _change(self, call: _Call, name: str, inner: str | None) -> Response:
        """What makers do to rows: PATCH any of them, POST and DELETE variables and their values."""
        method = call.request.method
        body, _ = await _body(call.request)
        if method == "PATCH" and inner is not None:
            await asyncio.to_thread(self._engine.change, name, _guid(inner), body)
        elif method == "POST" and inner is None and name in _CREATE:
            row = await asyncio.to_thread(_CREATE[name], self._engine, body)
            return Response(status_code=204, headers={"OData-EntityId": f"{call.root}{name}({row})"})
        elif method == "DELETE" and inner is not None and name in _DELETE:
            await asyncio.to_thread(_DELETE[name], self._engine, _guid(inner))
        else:
            raise not_modelled(f"{method} of '{call.path}'")
        return Response(status_code=204)

    async def _promote(self, call: _Call, message: str) -> Response:
        body, _ = await _body(call.request)
        _only(body, {"UniqueName"}, message)
        name = _text(body, "UniqueName")
        with self._store.read() as db:
            coming = answers.promotable(db, answers.find_solution(db, name))
        accepted = await asyncio.to_thread(self._environment.accept, message, {"UniqueName": name})
        if message.endswith("Async"):
            return _result(call, f"{message}Response", {"AsyncOperationId": accepted.operation})
        await self._environment.finish(accepted.operation)
        return _result(call, f"{message}Response", {"SolutionId": coming.id})

    async def _publish_some(self, call: _Call) -> Response:
        body, _ = await _body(call.request)
        _only(body, {"ParameterXml"}, "PublishXml")
        xml = {"ParameterXml": _text(body, "ParameterXml")}
        accepted = await asyncio.to_thread(self._environment.accept, "PublishXml", xml)
        await self._environment.finish(accepted.operation)
        return Response(status_code=204)

    async def _clone(self, call: _Call, message: str) -> Response:
        body, _ = await _body(call.request)
        _only(body, {"ParentSolutionUniqueName", "DisplayName", "VersionNumber"}, message)
        given = [_text(body, name) for name in ("ParentSolutionUniqueName", "DisplayName", "VersionNumber")]
        solution = await asyncio.to_thread(self._engine.clone, message, *given)
        return _result(call, f"{message}Response", {"SolutionId": solution})

    async def _customize(self, call: _Call) -> Response:
        body, _ = await _body(call.request)
        _only(body, {"SolutionComponentName", "ComponentId", "Name"}, "emulator_CustomizeComponent")
        kind, name = _text(body, "SolutionComponentName"), _text(body, "Name")
        await asyncio.to_thread(self._engine.customize, kind, _guid(_text(body, "ComponentId")), name)
        return Response(status_code=204)

    async def _remove_customizations(self, call: _Call, arguments: Mapping[str, str]) -> Response:
        kind, row = arguments.get("SolutionComponentName", ""), arguments.get("ComponentId", "").strip("()")
        await asyncio.to_thread(self._engine.remove_customizations, kind, _guid(row))
        return Response(status_code=204)

    # -- connections, which are beside Dataverse -----------------------------------------------------------

    async def _connections(self, request: Request) -> Response:
        name = request.path_params.get("name")
        if request.query_params.get("api-version") != "1":
            raise DataverseError(Code.INVALID_ARGUMENT, "The query option 'api-version=1' is required.")
        if request.method == "GET" and name is None:
            with self._store.read() as db:
                rows = db.execute(
                    "SELECT id, display_name, connector_id, status, created_on FROM connection ORDER BY id"
                ).fetchall()
            return JSONResponse({"value": [_connection(row) for row in rows]})
        if request.method == "POST" and name is None:
            body, _ = await _body(request)
            properties = body.get("properties")
            if not isinstance(properties, dict):
                raise DataverseError(Code.INVALID_ARGUMENT, "'properties' is required, with 'apiId' in it.")
            row = await asyncio.to_thread(
                self._engine.create_connection,
                str(body.get("name") or uuid.uuid4().hex),
                _text(properties, "apiId"),
                str(properties.get("displayName") or ""),
            )
            return JSONResponse(_connection(row), status_code=201)
        if request.method == "DELETE" and name is not None:
            await asyncio.to_thread(self._engine.delete_connection, name)
            return Response(status_code=204)
        raise DataverseError(
            Code.INVALID_REQUEST, f"Connections do not answer {request.method} here.", status=405
        )


_CREATE: dict[str, Callable[[Engine, Mapping[str, Any]], str]] = {
    "environmentvariabledefinitions": Engine.create_definition,
    "environmentvariablevalues": Engine.create_value,
}
_DELETE: dict[str, Callable[[Engine, str], None]] = {
    "environmentvariabledefinitions": Engine.delete_definition,
    "environmentvariablevalues": Engine.delete_value,
}
_METHODS = ["GET", "POST", "PATCH", "PUT", "DELETE"]

_FUNCTIONS: dict[str, Callable[[Face, _Call, Mapping[str, str]], Awaitable[Response]]] = {
    "WhoAmI": Face._who_am_i,
    "RetrieveVersion": Face._version,
    "RetrieveCurrentOrganization": Face._organization,
    "RetrieveSolutionImportResult": Face._import_result,
    "RetrieveDependenciesForDelete": Face._dependencies_for_delete,
    "RetrieveDependenciesForUninstall": Face._dependencies_for_uninstall,
    "RetrieveMissingDependencies": Face._missing_dependencies,
    _REMOVE_CUSTOMIZATIONS: Face._remove_customizations,
}


def _importing(message: str) -> Callable[[Face, _Call], Awaitable[Response]]:
    return lambda face, call: face._import(call, message)


_ACTIONS: dict[str, Callable[[Face, _Call], Awaitable[Response]]] = {
    "StageSolution": Face._stage,
    "ImportSolution": _importing("ImportSolution"),
    "ImportSolutionAsync": _importing("ImportSolutionAsync"),
    "StageAndUpgrade": _importing("StageAndUpgrade"),
    "StageAndUpgradeAsync": _importing("StageAndUpgradeAsync"),
    "UninstallSolutionAsync": Face._uninstall,
    "ExportSolution": Face._export,
    "ExportSolutionAsync": Face._export_async,
    "DownloadSolutionExportData": Face._download,
    "PublishAllXml": Face._publish,
    "PublishAllXmlAsync": Face._publish_async,
    "PublishXml": Face._publish_some,
    "DeleteAndPromote": lambda face, call: face._promote(call, "DeleteAndPromote"),
    "DeleteAndPromoteAsync": lambda face, call: face._promote(call, "DeleteAndPromoteAsync"),
    "CloneAsPatch": lambda face, call: face._clone(call, "CloneAsPatch"),
    "CloneAsSolution": lambda face, call: face._clone(call, "CloneAsSolution"),
    # No part of the real Web API: a maker's change of any component, by its display name.
    "emulator_CustomizeComponent": Face._customize,
}

_KNOWN_BUT_ABSENT = frozenset(
    [
        "PublishXmlAsync",
        "RetrieveMissingComponents",
        "RetrieveFormattedImportJobResults",
        "ConvertToManaged",
        "AddSolutionComponent",
        "RemoveSolutionComponent",
        "CancelAsyncOperation",
        "GlobalOptionSetDefinitions",
        "RetrieveMetadataChanges",
    ]
)
"""Parts of the real Web API that a client of solutions may try; refused by name."""


_PATH = "/()',=$"
"""Signs that the path of an address may contain as they are."""


def _only_reads(request: Request) -> bool:
    """Whether a request changes nothing; the parts of a batch are admitted one by one."""
    path = request.path_params.get("path", "").strip("/")
    if request.method == "GET":
        return not path.startswith(_REMOVE_CUSTOMIZATIONS)
    return bool(request.method == "POST" and path == "$batch")


def _segment(text: str) -> tuple[str, str | None]:
    """A part of a path: its name, and what stands in its parentheses, if there are any."""
    name, bracket, inner = text.partition("(")
    return name, inner.removesuffix(")") if bracket else None


def _key(table: odata.Table, text: str) -> tuple[str, object]:
    name, sign, value = text.partition("=")
    if sign and name.strip() == table.alternate:
        return table.alternate, value.strip().strip("'").replace("''", "'").lower()
    return table.key, _guid(value.strip() if sign and name.strip() == table.key else text)


def _no_segment(name: str) -> DataverseError:
    return DataverseError(Code.NO_SUCH_SEGMENT, f"Resource not found for the segment '{name}'.", status=404)


def _no_row(table: odata.Table, where: Sequence[tuple[str, object]]) -> DataverseError:
    return DataverseError(
        Code.NOT_FOUND, f"{table.logical_name} With Id = {where[-1][1]} Does Not Exist", status=404
    )


def _selected(call: _Call, query: odata.Query) -> str:
    return f"({','.join(query.shown)})" if "$select" in call.options else ""


def _preferred(response: Response, call: _Call) -> Response:
    applied = [
        found.group() for found in (_PAGE_SIZE.search(call.prefer), _ANNOTATIONS.search(call.prefer)) if found
    ]
    if applied:
        response.headers["Preference-Applied"] = ",".join(applied)
    return response


def _service_document(call: _Call) -> Response:
    names = (*ENTITY_SETS, "EntityDefinitions")
    value = [{"name": name, "kind": "EntitySet", "url": name} for name in names]
    return JSONResponse({"@odata.context": f"{call.root}$metadata", "value": value})


def _metadata(call: _Call) -> Response:
    return Response(csdl.document(_FUNCTIONS, _ACTIONS), media_type="application/xml")


_DOCUMENTS: dict[str, Callable[[_Call], Response]] = {"": _service_document, "$metadata": _metadata}


def error_response(error: DataverseError, prefer: str) -> Response:
    """An error as Dataverse answers it; with details where the request prefers annotations."""
    content: dict[str, object] = {"code": error.code.text, "message": error.message}
    if "odata.include-annotations" in prefer:
        content["@Microsoft.PowerApps.CDS.ErrorDetails.OperationStatus"] = "0"
        content["@Microsoft.PowerApps.CDS.HelpLink"] = (
            f"http://go.microsoft.com/fwlink/?error={error.code.text}"
        )
        content["@Microsoft.PowerApps.CDS.InnerError.Message"] = error.message
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else None
    return JSONResponse({"error": content}, status_code=error.status, headers=headers)


def _result(call: _Call, kind: str, content: Mapping[str, object]) -> Response:
    context = f"{call.root}$metadata#Microsoft.Dynamics.CRM.{kind}"
    return JSONResponse({"@odata.context": context, **content})


def _json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _dependencies(call: _Call, rows: list[dict[str, object]]) -> Response:
    return JSONResponse({"@odata.context": f"{call.root}$metadata#dependencies", "value": rows})


def _file(call: _Call, kind: str, content: bytes) -> Response:
    """Stream ``content`` as base64, a slice at a time."""
    context = json.dumps(f"{call.root}$metadata#Microsoft.Dynamics.CRM.{kind}").encode()

    def pieces() -> Iterator[bytes]:
        yield b'{"@odata.context":' + context + b',"ExportSolutionFile":"'
        for at in range(0, len(content), _SLICE):
            yield base64.b64encode(content[at : at + _SLICE])
        yield b'"}'

    return StreamingResponse(pieces(), media_type="application/json")


async def _body(request: Request) -> tuple[dict[str, Any], bytes | None]:
    """Read a JSON body; the package in it comes apart, as base64 that is not decoded yet."""
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > _BODY_BYTES:
            raise DataverseError(
                Code.IMPORT_FAILED,
                f"The request is larger than {_BODY_BYTES} bytes; a solution may have {PACKAGE_BYTES} bytes.",
                status=413,
            )
        pieces.append(piece)
    return await asyncio.to_thread(_parse_body, pieces)


def _parse_body(pieces: list[bytes]) -> tuple[dict[str, Any], bytes | None]:
    raw = b"".join(pieces)
    if not raw.strip():
        return {}, None
    content: bytes | None = None
    found = _FILE.search(raw)
    end = raw.find(b'"', found.end()) if found else -1
    if found and end >= 0 and raw.find(b"\\", found.end(), end) < 0:
        # Cut out, so that the JSON parser (which holds the interpreter) sees a few hundred bytes.
        content = raw[found.end() : end]
        raw = raw[: found.end()] + raw[end:]
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise DataverseError(Code.INVALID_REQUEST, f"The body is no JSON: {error}.") from None
    if not isinstance(body, dict):
        raise DataverseError(Code.INVALID_REQUEST, "The body is no JSON object.")
    if content is None and body.get("CustomizationFile") is not None:
        content = str(body["CustomizationFile"]).encode()
    body.pop("CustomizationFile", None)
    return body, content


def _package(content: bytes | None) -> bytes:
    if not content:
        raise DataverseError(Code.INVALID_ARGUMENT, "The required parameter 'CustomizationFile' is missing.")
    step = _SLICE * 4 // 3
    try:
        pieces = [
            binascii.a2b_base64(content[at : at + step], strict_mode=True)
            for at in range(0, len(content), step)
        ]
    except ValueError as error:
        raise DataverseError(Code.INVALID_ARGUMENT, f"'CustomizationFile' is not base64: {error}.") from None
    package = b"".join(pieces)
    if len(package) > PACKAGE_BYTES:
        raise DataverseError(
            Code.IMPORT_FAILED,
            f"The package has {len(package)} bytes, more than the {PACKAGE_BYTES} that are allowed.",
            status=413,
        )
    return package


async def _export_body(call: _Call) -> tuple[str, bool]:
    body, _ = await _body(call.request)
    for name in sorted(body.keys() - {"SolutionName", "Managed"}):
        if body[name] not in (None, False):
            raise not_modelled(f"The parameter '{name}' of an export")
    managed = body.get("Managed")
    if not isinstance(managed, bool):
        raise DataverseError(Code.INVALID_ARGUMENT, "The required parameter 'Managed' is missing.")
    return _text(body, "SolutionName"), managed


def _only(body: Mapping[str, object], known: set[str], message: str) -> None:
    for name in sorted(body.keys() - known):
        raise not_modelled(f"The parameter '{name}' of {message}")


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataverseError(Code.INVALID_ARGUMENT, f"The required parameter '{name}' is missing.")
    return value


def _guid(text: str) -> str:
    if not odata.GUID.fullmatch(text):
        raise DataverseError(
            Code.INVALID_ARGUMENT, f"'{text}' is not a GUID; alternate keys are not modelled."
        )
    return text.lower()


def _connection(row: tuple[str, ...]) -> dict[str, object]:
    """A connection as the Power Platform API shows it."""
    name, display_name, connector_id, status, created_on = row
    return {
        "name": name,
        "id": f"{connector_id}/connections/{name}",
        "type": "Microsoft.PowerApps/apis/connections",
        "properties": {
            "apiId": connector_id,
            "displayName": display_name,
            "createdTime": created_on,
            "statuses": [{"status": status}],
        },
    }
