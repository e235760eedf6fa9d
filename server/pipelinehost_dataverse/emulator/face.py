"""The environment's Web API: paths, headers, bodies and errors as Dataverse has them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import json
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pipelinehost_dataverse.emulator import answers, batch, csdl, makers, odata
from pipelinehost_dataverse.emulator.engine import Engine
from pipelinehost_dataverse.emulator.errors import Code, DataverseError, no_segment, not_modelled
from pipelinehost_dataverse.emulator.journal import ACTING
from pipelinehost_dataverse.emulator.parameters import ImportRequest
from pipelinehost_dataverse.emulator.reading import Call, Reading
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
_FILE = re.compile(rb'"CustomizationFile"\s*:\s*"')
_VERSION = "9.2.26111.00100"

_log = logging.getLogger(__name__)


APPLICATION = "application"
"""Under this name a guard puts the application that a request comes from into the request's scope."""


class Application(NamedTuple):
    """Who has signed in; its client id, and whether it holds no privilege but to read."""

    client: str
    reader: bool


class Face:
    """The ASGI application of one environment.

    Args:
        environment: what it speaks for.

    """

    def __init__(self, environment: EmbeddedEnvironment) -> None:
        self._environment = environment
        self._store = environment.store
        self._engine = environment.engine
        self._reading = Reading(environment.store)
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
            return await self._route(Call(request, options, root, request.path_params["path"].strip("/")))

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
            raise no_segment(request.url.path)

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

    async def _route(self, call: Call) -> Response:
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
                return await self._reading.answer(call, segments)
        elif method == "POST" and name in _ACTIONS and alone and inner is None:
            return await _ACTIONS[name](self, call)
        elif method == "POST" and name == "$batch" and alone:
            return await batch.answer(call.request, self.app, call.root)
        elif method == "DELETE" and name in ("solutions", "stagesolutionuploads") and alone:
            return await self._delete(name, odata.guid(inner or ""))
        elif method == "PATCH" and name == "solutions" and alone:
            return await self._raise_version(call, odata.guid(inner or ""))
        elif method == "PATCH" and name == "asyncoperations" and alone:
            return await self._cancel(call, odata.guid(inner or ""))
        elif name in makers.CHANGED_TABLES and alone and method != "PUT":
            return await self._change(call, name, inner)
        if name in TABLES:
            raise not_modelled(f"{method} of '{path}'")
        if name in _FUNCTIONS or name in _ACTIONS:
            raise DataverseError(Code.INVALID_REQUEST, f"{name} does not answer {method}.", status=405)
        if name in _KNOWN_BUT_ABSENT or name.startswith("$"):
            raise not_modelled(f"'{name}'")
        raise no_segment(name)

    # -- functions -----------------------------------------------------------------------------------------

    async def _who_am_i(self, call: Call, arguments: Mapping[str, str]) -> Response:
        with self._store.read() as db:
            org, unit, user = db.execute("SELECT id, business_unit, user FROM environment").fetchone()
        found = {"BusinessUnitId": unit, "UserId": ACTING.get() or user, "OrganizationId": org}
        return call.result("WhoAmIResponse", found)

    async def _version(self, call: Call, arguments: Mapping[str, str]) -> Response:
        return call.result("RetrieveVersionResponse", {"Version": _VERSION})

    async def _organization(self, call: Call, arguments: Mapping[str, str]) -> Response:
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
        return call.result("RetrieveCurrentOrganizationResponse", {"Detail": detail})

    async def _import_result(self, call: Call, arguments: Mapping[str, str]) -> Response:
        job = odata.guid(arguments.get("ImportJobId", ""))
        with self._store.read() as db:
            result = answers.import_result(db, job)
        return call.result("RetrieveSolutionImportResultResponse", {"SolutionOperationResult": result})

    async def _dependencies_for_delete(self, call: Call, arguments: Mapping[str, str]) -> Response:
        code = arguments.get("ComponentType", "")
        if not code.isdigit():
            raise DataverseError(Code.INVALID_ARGUMENT, f"ComponentType '{code}' is not a number.")
        object_id = odata.guid(arguments.get("ObjectId", ""))
        with self._store.read() as db:
            rows = answers.dependencies_for_delete(db, object_id, int(code))
        return _dependencies(call, rows)

    async def _dependencies_for_uninstall(self, call: Call, arguments: Mapping[str, str]) -> Response:
        def look() -> list[dict[str, object]]:
            with self._store.look() as db:
                return answers.dependencies_for_uninstall(db, arguments.get("SolutionUniqueName", ""))

        return _dependencies(call, await asyncio.to_thread(look))

    async def _missing_dependencies(self, call: Call, arguments: Mapping[str, str]) -> Response:
        with self._store.read() as db:
            rows = answers.missing_dependencies(db, arguments.get("SolutionUniqueName", ""))
        return _dependencies(call, rows)

    # -- actions -------------------------------------------------------------------------------------------

    async def _stage(self, call: Call) -> Response:
        body, content = await _body(call.request)
        _only(body, {"CustomizationFile"}, "StageSolution")
        package = await asyncio.to_thread(_package, content)
        results = await asyncio.to_thread(self._engine.stage, package)
        return call.result("StageSolutionResponse", {"StageSolutionResults": results})

    async def _import(self, call: Call, message: str) -> Response:
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
            return call.result(f"{message}Response", answer)
        await self._environment.finish(accepted.operation)
        return Response(status_code=204)

    async def _uninstall(self, call: Call) -> Response:
        body, _ = await _body(call.request)
        _only(body, {"SolutionUniqueName"}, "UninstallSolutionAsync")
        name = _text(body, "SolutionUniqueName")
        with self._store.read() as db:
            answers.find_solution(db, name)
        accepted = await asyncio.to_thread(
            self._environment.accept, "UninstallSolutionAsync", {"SolutionUniqueName": name}
        )
        return call.result("UninstallSolutionAsyncResponse", {"AsyncOperationId": accepted.operation})

    async def _export(self, call: Call) -> Response:
        name, managed = await _export_body(call)
        content = await asyncio.to_thread(self._engine.export, name, managed=managed)
        return _file(call, "ExportSolutionResponse", content)

    async def _export_async(self, call: Call) -> Response:
        name, managed = await _export_body(call)
        accepted = await asyncio.to_thread(
            self._environment.accept, "ExportSolutionAsync", {"SolutionName": name, "Managed": managed}
        )
        answer = {"AsyncOperationId": accepted.operation, "ExportJobId": accepted.job}
        return call.result("ExportSolutionAsyncResponse", answer)

    async def _download(self, call: Call) -> Response:
        body, _ = await _body(call.request)
        _only(body, {"ExportJobId"}, "DownloadSolutionExportData")
        job = odata.guid(_text(body, "ExportJobId"))
        content = await asyncio.to_thread(self._engine.exported, job)
        return _file(call, "DownloadSolutionExportDataResponse", content)

    async def _publish(self, call: Call) -> Response:
        await _body(call.request)
        accepted = await asyncio.to_thread(self._environment.accept, "PublishAllXml", {})
        await self._environment.finish(accepted.operation)
        return Response(status_code=204)

    async def _publish_async(self, call: Call) -> Response:
        await _body(call.request)
        accepted = await asyncio.to_thread(self._environment.accept, "PublishAllXmlAsync", {})
        return call.result("PublishAllXmlAsyncResponse", {"AsyncOperationId": accepted.operation})

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

    async def _cancel(self, call: Call, key: str) -> Response:
        body, _ = await _body(call.request)
        if body != {"statecode": 3, "statuscode": 32}:
            raise not_modelled("PATCH of an operation, but to cancel it (statecode 3, statuscode 32),")
        await asyncio.to_thread(self._environment.cancel, key)
        return Response(status_code=204)

    async def _raise_version(self, call: Call, key: str) -> Response:
        body, _ = await _body(call.request)
        _only(body, {"version"}, "PATCH of a solution")
        await asyncio.to_thread(self._engine.set_version, key, _text(body, "version"))
        return Response(status_code=204)

    async def _change(self, call: Call, name: str, inner: str | None) -> Response:
        """What makers do to rows: PATCH any of them, POST and DELETE variables and their values."""
        method = call.request.method
        body, _ = await _body(call.request)
        if method == "PATCH" and inner is not None:
            await asyncio.to_thread(self._engine.change, name, odata.guid(inner), body)
        elif method == "POST" and inner is None and name in _CREATE:
            row = await asyncio.to_thread(_CREATE[name], self._engine, body)
            return Response(status_code=204, headers={"OData-EntityId": f"{call.root}{name}({row})"})
        elif method == "DELETE" and inner is not None and name in _DELETE:
            await asyncio.to_thread(_DELETE[name], self._engine, odata.guid(inner))
        else:
            raise not_modelled(f"{method} of '{call.path}'")
        return Response(status_code=204)

    async def _promote(self, call: Call, message: str) -> Response:
        body, _ = await _body(call.request)
        _only(body, {"UniqueName"}, message)
        name = _text(body, "UniqueName")
        with self._store.read() as db:
            coming = answers.promotable(db, answers.find_solution(db, name))
        accepted = await asyncio.to_thread(self._environment.accept, message, {"UniqueName": name})
        if message.endswith("Async"):
            return call.result(f"{message}Response", {"AsyncOperationId": accepted.operation})
        await self._environment.finish(accepted.operation)
        return call.result(f"{message}Response", {"SolutionId": coming.id})

    async def _publish_some(self, call: Call) -> Response:
        body, _ = await _body(call.request)
        _only(body, {"ParameterXml"}, "PublishXml")
        xml = {"ParameterXml": _text(body, "ParameterXml")}
        accepted = await asyncio.to_thread(self._environment.accept, "PublishXml", xml)
        await self._environment.finish(accepted.operation)
        return Response(status_code=204)

    async def _clone(self, call: Call, message: str) -> Response:
        body, _ = await _body(call.request)
        _only(body, {"ParentSolutionUniqueName", "DisplayName", "VersionNumber"}, message)
        given = [_text(body, name) for name in ("ParentSolutionUniqueName", "DisplayName", "VersionNumber")]
        solution = await asyncio.to_thread(self._engine.clone, message, *given)
        return call.result(f"{message}Response", {"SolutionId": solution})

    async def _customize(self, call: Call) -> Response:
        body, _ = await _body(call.request)
        _only(body, {"SolutionComponentName", "ComponentId", "Name"}, "emulator_CustomizeComponent")
        kind, name = _text(body, "SolutionComponentName"), _text(body, "Name")
        await asyncio.to_thread(self._engine.customize, kind, odata.guid(_text(body, "ComponentId")), name)
        return Response(status_code=204)

    async def _remove_customizations(self, call: Call, arguments: Mapping[str, str]) -> Response:
        kind, row = arguments.get("SolutionComponentName", ""), arguments.get("ComponentId", "").strip("()")
        await asyncio.to_thread(self._engine.remove_customizations, kind, odata.guid(row))
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

_FUNCTIONS: dict[str, Callable[[Face, Call, Mapping[str, str]], Awaitable[Response]]] = {
    "WhoAmI": Face._who_am_i,
    "RetrieveVersion": Face._version,
    "RetrieveCurrentOrganization": Face._organization,
    "RetrieveSolutionImportResult": Face._import_result,
    "RetrieveDependenciesForDelete": Face._dependencies_for_delete,
    "RetrieveDependenciesForUninstall": Face._dependencies_for_uninstall,
    "RetrieveMissingDependencies": Face._missing_dependencies,
    _REMOVE_CUSTOMIZATIONS: Face._remove_customizations,
}


def _importing(message: str) -> Callable[[Face, Call], Awaitable[Response]]:
    return lambda face, call: face._import(call, message)


_ACTIONS: dict[str, Callable[[Face, Call], Awaitable[Response]]] = {
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


def _service_document(call: Call) -> Response:
    names = (*ENTITY_SETS, "EntityDefinitions")
    value = [{"name": name, "kind": "EntitySet", "url": name} for name in names]
    return JSONResponse({"@odata.context": f"{call.root}$metadata", "value": value})


def _metadata(call: Call) -> Response:
    return Response(csdl.document(_FUNCTIONS, _ACTIONS), media_type="application/xml")


_DOCUMENTS: dict[str, Callable[[Call], Response]] = {"": _service_document, "$metadata": _metadata}


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


def _dependencies(call: Call, rows: list[dict[str, object]]) -> Response:
    return JSONResponse({"@odata.context": f"{call.root}$metadata#dependencies", "value": rows})


def _file(call: Call, kind: str, content: bytes) -> Response:
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


async def _export_body(call: Call) -> tuple[str, bool]:
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
