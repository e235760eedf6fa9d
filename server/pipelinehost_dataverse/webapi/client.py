"""One environment, asked through its Web API: what the host needs, each as one method."""

from __future__ import annotations

import asyncio
import copy
import math
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self
from urllib.parse import quote, urljoin

import httpx

from pipelinehost_dataverse.solution.model import Version
from pipelinehost_dataverse.webapi import records
from pipelinehost_dataverse.webapi.calls import (
    Answer,
    Body,
    Call,
    Calls,
    OnWait,
    Policy,
    TokenSource,
)
from pipelinehost_dataverse.webapi.errors import AnswerLost, BadAnswer, NotFound, Refused, error_code, plain
from pipelinehost_dataverse.webapi.importlog import ImportLog, read_import_log
from pipelinehost_dataverse.webapi.model import (
    Connection,
    ConnectionParameter,
    ConnectionReferenceState,
    Dependant,
    EnvironmentVariableState,
    HistoryRow,
    ImportIntent,
    ImportMode,
    ImportOperation,
    ImportProgress,
    ImportResult,
    InstalledComponent,
    InstalledSolution,
    Mark,
    OperationState,
    Organization,
    Reconciled,
    RunningOperation,
    Severity,
    StageResult,
    VariableParameter,
    WhoAmI,
)
from pipelinehost_dataverse.webapi.network import NetworkTransport, environment_address
from pipelinehost_dataverse.webapi.reconcile import SLACK, ImportJob, Seen, decide
from pipelinehost_dataverse.webapi.records import Record, guid

QUIET_PERIOD = timedelta(minutes=10)
"""How long nothing may be seen or running before an import counts as never received."""

MARK = "pipehost_host"
"""Schema name of the environment variable that says which host an environment belongs to."""

_ROWS = 200_000
"""Most rows of one table that are read."""
_NAMES = 20
"""Names in one filter: keeps an address below 4 KB."""
_KNOWN_JOBS = 100
_EVER = datetime.min.replace(tzinfo=UTC)
_QUERY = "(),'@$=;*"
"""Signs that OData gives a meaning and an address may contain."""
_BASE64 = 4 / 3
_WAITING = {0: "waiting for its turn", 10: "waiting", 21: "pausing", 22: "being canceled"}
_SOLUTION = (
    "solutionid,uniquename,friendlyname,version,ismanaged,isvisible,"
    "installedon,updatedon,_parentsolutionid_value"
)
_OPERATION = (
    "asyncoperationid,name,messagename,operationtype,statecode,statuscode,"
    "createdon,completedon,_createdby_value"
)
_PHASE = "statecode,statuscode,message,friendlymessage,errorcode,createdon,completedon,messagename"
_JOB = "importjobid,solutionname,startedon,completedon,createdon,_createdby_value"


class WebApi:
    """The Dataverse Web API of one environment.

    Every method may raise any ``DataverseError``: ``EnvironmentUnreachable`` (nothing was sent),
    ``AnswerLost`` (may have been received), ``Throttled`` and ``EnvironmentBusy`` (nothing was done, and
    waiting longer would pass the budget), ``AccessDenied``, ``NotFound``, ``Refused`` (the environment said
    no; ``code`` says why) and ``BadAnswer``. Reads are retried within their budget; a POST is retried only
    on 429 or where no connection could be made, so it reaches the environment at most once.

    Use it as an async context manager, or call ``aclose``. One object serves many tasks at once.
    """

    def __init__(
        self,
        url: str,
        *,
        connectivity_url: str | None = None,
        token: TokenSource | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        policy: Policy | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: the environment, e.g. ``https://org.crm4.dynamics.com`` or ``http://127.0.0.1:8080/qa``.
                Plain http is for loopback, or where ``transport`` is given.
            connectivity_url: the address that lists connections, where there is one.
            token: gives bearer tokens for a scope; None for embedded environments.
            transport: in place of the network, e.g. the way to an embedded environment.
            policy: timeouts, budgets and caps.

        Raises:
            ValueError: an address is not usable (scheme, user name, query), or a token would go over http.

        """
        self._policy = policy or Policy()
        anywhere = transport is not None
        home = environment_address(url, anywhere=anywhere)
        beside = environment_address(connectivity_url, anywhere=anywhere) if connectivity_url else None
        if token is not None and not anywhere and any(a.scheme != "https" for a in (home, beside or home)):
            raise ValueError("a token would go over plain http, where anybody on the way could read it")
        self._base = _under(home, "api/data/v9.2/")
        self._connectivity = _under(beside, "connectivity/") if beside is not None else None
        self._calls = Calls(transport or NetworkTransport(self._policy.connect_seconds), token, self._policy)
        self._on_wait: OnWait | None = None
        self._patience = math.inf

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; calling it twice does no harm."""
        await self._calls.aclose()

    def telling(self, on_wait: OnWait) -> Self:
        """This environment for one who is told of each wait; the connections stay common, and this one's."""
        told = copy.copy(self)
        told._on_wait = on_wait
        return told

    def patient(self, seconds: float) -> Self:
        """This environment for one who waits for the answer: what fails is repeated for that long at most.

        Where another solution operation holds the environment, that is waited for all the same.
        """
        patient = copy.copy(self)
        patient._patience = seconds
        return patient

    async def who_am_i(self) -> WhoAmI:
        """The identity under which the environment sees us; also the cheapest probe."""
        return records.who_am_i(await self._object("WhoAmI"))

    async def organization(self) -> Organization:
        """The environment's own ids, version and region."""
        access = "Microsoft.Dynamics.CRM.EndpointAccessType'Default'"
        found = await self._object("RetrieveCurrentOrganization(AccessType=@p)", {"@p": access})
        return records.organization(found)

    async def has_privilege(self, user_id: str, privilege: str) -> bool:
        """Whether a user holds a privilege through a role, e.g. ``prvImportCustomization``.

        Web API function ``RetrieveUserPrivilegeByPrivilegeName``, bound to ``systemuser``.

        Raises:
            ValueError: ``user_id`` is no GUID.

        """
        function = "Microsoft.Dynamics.CRM.RetrieveUserPrivilegeByPrivilegeName(PrivilegeName=@p)"
        url = f"systemusers({guid(user_id)})/{function}{_query({'@p': _quoted(privilege)})}"
        answer = await self._get(self._base + url, "GET RetrieveUserPrivilegeByPrivilegeName")
        return bool(Record(await answer.json(), answer).records("RolePrivileges"))

    async def solution(self, unique_name: str) -> InstalledSolution | None:
        """The installed solution of that unique name, or None. ``{name}_Upgrade`` is what an upgrade left."""
        options = {
            "$select": _SOLUTION,
            "$filter": f"uniquename eq {_quoted(unique_name)}",
            "$expand": "publisherid($select=uniquename,friendlyname)",
        }
        found = [records.solution(row) for row in await self._rows("solutions", options)]
        return next((s for s in found if s.unique_name.casefold() == unique_name.casefold()), None)

    async def solutions(self) -> list[InstalledSolution]:
        """All visible solutions, ordered by unique name."""
        options = {
            "$select": _SOLUTION,
            "$filter": "isvisible eq true",
            "$expand": "publisherid($select=uniquename,friendlyname)",
        }
        found = [records.solution(row) for row in await self._rows("solutions", options)]
        return sorted((s for s in found if s.visible), key=lambda s: s.unique_name.casefold())

    async def installed_components(self, solution: InstalledSolution) -> list[InstalledComponent]:
        """The components of an installed solution."""
        options = {
            "$select": "msdyn_objectid,msdyn_componenttype,msdyn_componenttypename,msdyn_name,"
            "msdyn_schemaname,msdyn_uniquename,msdyn_displayname,msdyn_componentlogicalname,msdyn_primaryentityname",
            "$filter": f"msdyn_solutionid eq {solution.id}",
        }
        return [
            records.component(row) for row in await self._rows("msdyn_solutioncomponentsummaries", options)
        ]

    async def dependants(self, object_id: str, component_type: int) -> list[Dependant]:
        """What would stop that component from being deleted.

        Raises:
            ValueError: ``object_id`` is no GUID.

        """
        found = await self._rows(
            "RetrieveDependenciesForDelete(ObjectId=@o,ComponentType=@c)",
            {"@o": guid(object_id), "@c": str(int(component_type))},
        )
        return [records.dependant(row) for row in found]

    async def environment_variables(
        self, names: Iterable[str] | None = None
    ) -> list[EnvironmentVariableState]:
        """The environment variables of these schema names (those that exist), or all; by schema name."""
        definitions = await self._named(
            "environmentvariabledefinitions",
            "environmentvariabledefinitionid,schemaname,displayname,type,defaultvalue,isrequired",
            "schemaname",
            names,
        )
        values = await self._named(
            "environmentvariablevalues",
            "environmentvariablevalueid,value,_environmentvariabledefinitionid_value",
            "_environmentvariabledefinitionid_value",
            None if names is None else [row.id("environmentvariabledefinitionid") for row in definitions],
        )
        by_definition = {row.id_or_none("_environmentvariabledefinitionid_value"): row for row in values}
        found = [
            records.variable(row, by_definition.get(row.id("environmentvariabledefinitionid")))
            for row in definitions
        ]
        return sorted(found, key=lambda v: v.schema_name.casefold())

    async def connection_references(
        self, names: Iterable[str] | None = None
    ) -> list[ConnectionReferenceState]:
        """The connection references of these logical names (those that exist), or all; by logical name."""
        found = await self._named(
            "connectionreferences",
            "connectionreferencelogicalname,connectionreferencedisplayname,connectorid,connectionid",
            "connectionreferencelogicalname",
            names,
        )
        return sorted(
            (records.connection_reference(row) for row in found), key=lambda r: r.logical_name.casefold()
        )

    async def connections(self) -> list[Connection] | None:
        """All connections, by id; None where the environment has no connectivity address."""
        if self._connectivity is None:
            return None
        found = await self._pages(f"{self._connectivity}connections?api-version=1", "GET connections")
        return sorted((records.connection(row) for row in found), key=lambda c: c.id)

    async def create_connection(
        self, connector_id: str, display_name: str, *, connection_id: str = ""
    ) -> Connection:
        """Create a connection; embedded environments only. An empty ``connection_id`` gets a random one.

        Raises:
            ValueError: no connectivity address, or an id that cannot be part of an address.

        """
        body: dict[str, object] = {"properties": {"apiId": connector_id, "displayName": display_name}}
        if connection_id:
            body["name"] = _plain_id(connection_id)
        url = f"{self._own_connectivity()}connections?api-version=1"
        answer = await self._write("POST", url, "POST connections", Body(body))
        return records.connection(Record(await answer.json(), answer))

    async def delete_connection(self, connection_id: str) -> None:
        """Delete a connection; embedded environments only.

        Raises:
            ValueError: no connectivity address, or an id that cannot be part of an address.

        """
        url = f"{self._own_connectivity()}connections/{_plain_id(connection_id)}?api-version=1"
        await self._write("DELETE", url, "DELETE connections")

    async def history(self, solution: str) -> list[HistoryRow]:
        """Past and present operations on the solution of that unique name, newest first."""
        # a virtual table: real environments may refuse $orderby here, so the order is made below
        found = await self._rows("msdyn_solutionhistories", {"$filter": f"msdyn_name eq {_quoted(solution)}"})
        rows = [records.history_row(row) for row in found]
        rows = [row for row in rows if row.solution.casefold() == solution.casefold()]
        # of those that began in the same second, the later one in the answer is the newer one
        return sorted(rows, key=lambda row: row.started_on or _EVER)[::-1]

    async def running_operations(self) -> list[RunningOperation]:
        """Solution operations under way in the environment, whoever started them; oldest first."""
        return [o for o in await self._operations("statecode ne 3") if o.state is OperationState.RUNNING]

    async def export_solution(self, unique_name: str, *, managed: bool) -> bytes:
        """Export a solution and return the package.

        Raises:
            Refused: the export failed; ``code`` and message are the environment's.

        """
        started = await self._action(
            "ExportSolutionAsync", Body({"SolutionName": unique_name, "Managed": managed})
        )
        operation_id, job_id = started.id("AsyncOperationId"), started.id("ExportJobId")
        policy = self._policy
        ends_at, pause = policy.clock() + policy.export_seconds, policy.poll_seconds
        while (phase := await self._phase(operation_id)) is None or phase.state is OperationState.RUNNING:
            if policy.clock() + pause > ends_at:
                raise AnswerLost(
                    f"exporting {plain(unique_name, 100)} still runs after {policy.export_seconds:g} seconds",
                    operation="POST ExportSolutionAsync",
                )
            await policy.sleep(pause)
            pause = min(5.0, pause * 1.5)
        if phase.state is not OperationState.SUCCEEDED:
            raise Refused(
                phase.message or f"the export was {phase.state.value}",
                operation="POST ExportSolutionAsync",
                code=phase.code,
            )
        answer = await self._write(
            "POST",
            f"{self._base}DownloadSolutionExportData",
            "POST DownloadSolutionExportData",
            Body({"ExportJobId": job_id}),
            seconds=policy.action_seconds,
            cap=int(policy.package_bytes * _BASE64) + 64 * 1024,
        )
        return await answer.package("ExportSolutionFile")

    async def stage_solution(self, package: bytes) -> StageResult:
        """Have the environment validate a package; nothing is installed. A failed validation is a result."""
        return records.stage_result(await self._action("StageSolution", Body({}, package)))

    async def discard_upload(self, upload_id: str) -> None:
        """Remove the upload that ``stage_solution`` left; one that is gone already is fine.

        Raises:
            ValueError: no GUID.

        """
        try:
            url = f"{self._base}stagesolutionuploads({guid(upload_id)})"
            await self._write("DELETE", url, "DELETE stagesolutionuploads")
        except NotFound:
            return

    async def prepare_import(self, solution: str, version: Version, *, upgrade: bool) -> ImportIntent:
        """Note what the environment is like before an import; store the result before ``start_import``.

        The mode is UPGRADE where ``upgrade`` is asked and a managed version is installed, else UPDATE.
        """
        answer = await self._get(f"{self._base}WhoAmI", "GET WhoAmI")
        user_id = records.who_am_i(Record(await answer.json(), answer)).user_id
        installed = await self.solution(solution)
        history = await self.history(solution)
        since = answer.date() - SLACK
        jobs = await self._jobs(solution)
        replaces = upgrade and installed is not None and installed.managed
        return ImportIntent(
            import_job_id=str(uuid.uuid4()),
            solution=solution,
            version=version,
            mode=ImportMode.UPGRADE if replaces else ImportMode.UPDATE,
            user_id=user_id,
            environment_time=answer.date(),
            installed_version=installed.version if installed else None,
            known_history_ids=tuple(r.id for r in history if r.started_on is None or r.started_on >= since),
            known_job_ids=tuple(row.id("importjobid") for row in jobs),
        )

    async def start_import(
        self,
        package: bytes,
        intent: ImportIntent,
        *,
        overwrite_customizations: bool = False,
        publish_workflows: bool = True,
        parameters: Sequence[ConnectionParameter | VariableParameter] = (),
    ) -> ImportOperation:
        """Post the import, once. It is posted again only when the environment answered that it is busy.

        Raises:
            AnswerLost: it may have been received; also where the answer could not be read. Use ``reconcile``.

        """
        members: dict[str, object] = {
            "OverwriteUnmanagedCustomizations": overwrite_customizations,
            "PublishWorkflows": publish_workflows,
            "ImportJobId": intent.import_job_id,
        }
        if intent.mode is ImportMode.UPDATE:
            members["HoldingSolution"] = False
        if parameters:
            members["ComponentParameters"] = [_parameter(p) for p in parameters]
        try:
            answer = await self._action(intent.mode.value, Body(members, package))
            return ImportOperation(answer.id("ImportJobKey"), answer.id("AsyncOperationId"))
        except BadAnswer as error:
            raise AnswerLost(
                f"the import was posted, but its answer cannot be read: {error.message}",
                operation=error.operation,
                status=error.status,
                request_id=error.request_id,
            ) from error

    async def reconcile(
        self, intent: ImportIntent, *, nothing_since: datetime | None = None, quiet: timedelta = QUIET_PERIOD
    ) -> Reconciled:
        """Find out what became of an import whose answer was lost; posts nothing and does not wait.

        Call it once the POST is over for certain (its answer lost, or its process ended). The first look
        has no ``nothing_since``; each later one is given what the look before returned. NOT_RECEIVED takes
        ``quiet`` between them with no trace of the import and no operation running.
        """
        answer = await self._get(f"{self._base}WhoAmI", "GET WhoAmI")
        # Operations, history, jobs, in this order: what the environment writes of one import it writes in the
        # opposite order, so whatever is seen in one read has its cause in the next.
        since = (intent.environment_time - SLACK).strftime("%Y-%m-%dT%H:%M:%SZ")
        operations = {o.id: o for o in await self._operations(f"createdon ge {since}")}
        operations |= {o.id: o for o in await self._operations("statecode ne 3")}
        history = await self.history(intent.solution)
        jobs = [
            await self._import_job(row)
            for row in await self._jobs(intent.solution)
            if row.id("importjobid") not in intent.known_job_ids
        ]
        own = next((j for j in jobs if j.id == intent.import_job_id), None)
        if own is None:
            try:
                url = f"importjobs({guid(intent.import_job_id)})"
                own = await self._import_job(await self._object(url, {"$select": _JOB}))
            except NotFound:
                own = None
        installed = await self.solution(intent.solution)
        seen = Seen(
            asked_at=answer.date(),
            own_job=own,
            jobs=tuple(jobs),
            history=tuple(history),
            operations=tuple(operations.values()),
            installed_version=installed.version if installed else None,
        )
        return decide(intent, seen, nothing_since, quiet)

    async def import_progress(self, operation: ImportOperation) -> ImportProgress:
        """How far the import is.

        Raises:
            NotFound: the environment knows neither the job nor the operation.

        """
        phase, job, log = await self._import(operation, with_log=False)
        if phase is not None:
            return ImportProgress(
                phase.state, job.number("progress") if job else 0.0, phase.text, phase.code, phase.message
            )
        if job is None:
            raise _unknown(operation)
        state, code, message = _verdict(log) if job.time("completedon") else (OperationState.RUNNING, "", "")
        text = "importing" if state is OperationState.RUNNING else state.value
        return ImportProgress(state, job.number("progress"), text, code, message)

    async def import_result(self, operation: ImportOperation) -> ImportResult:
        """How the import ended, component by component, from the import job's log.

        Raises:
            NotFound: the environment knows neither the job nor the operation.
            BadAnswer: the log is too big, not well-formed or has a document type.

        """
        phase, job, log = await self._import(operation, with_log=True)
        if phase is None and job is None:
            raise _unknown(operation)
        ended = job.time("completedon") if job else None
        state, code, message = _verdict(log) if ended else (OperationState.RUNNING, "", "")
        if phase is not None:
            state, code, message = phase.state, phase.code, phase.message
        return ImportResult(
            import_job_id=operation.import_job_id,
            solution=(job.label("solutionname") if job else "") or (log.solution if log else ""),
            version=log.version if log else None,
            state=state,
            code=code,
            message=message,
            started_on=(job.time("startedon") if job else None) or (phase.created_on if phase else None),
            completed_on=ended or (phase.completed_on if phase else None),
            components=log.results if log else (),
        )

    async def cancel_import(self, operation: ImportOperation) -> None:
        """Ask the environment to cancel an import; ``import_progress`` then tells whether it came in time.

        Repeating it does no harm.

        Raises:
            Refused: the import is too far, or has ended; also where only its import job is known.

        """
        if not operation.async_operation_id:
            raise Refused("only the operation of an import can be canceled, and it is not known")
        url = f"{self._base}asyncoperations({guid(operation.async_operation_id)})"
        members: dict[str, object] = {"statecode": 3, "statuscode": 32}
        await self._write("PATCH", url, "PATCH asyncoperations", Body(members))

    async def marks(self) -> list[Mark]:
        """What hosts have left here to say whose the environment is; one, or several after a race.

        It is the default value of an environment variable definition in no solution: one row that takes no
        schema change, and whose schema name the environment keeps unique. Unverified against a real
        environment: whether it refuses a second definition of that name.
        """
        rows = await self._named(
            "environmentvariabledefinitions",
            "environmentvariabledefinitionid,schemaname,defaultvalue",
            "schemaname",
            [MARK],
        )
        return [
            Mark(row.id("environmentvariabledefinitionid"), row.text_or_none("defaultvalue") or "")
            for row in rows
        ]

    async def leave_mark(self, text: str) -> None:
        """Say whose the environment is.

        Raises:
            Refused: there is a mark already.
            AnswerLost: there may be one now; look.

        """
        members: dict[str, object] = {
            "schemaname": MARK,
            "displayname": "PipelineHost: the host of this environment",
            "description": "Says which PipelineHost deploys here. Take the environment over from there.",
            "type": 100000000,
            "defaultvalue": text,
        }
        table = "environmentvariabledefinitions"
        await self._write("POST", self._base + table, f"POST {table}", Body(members))

    async def change_mark(self, mark: Mark, text: str) -> None:
        """Say otherwise whose the environment is; repeating it does no harm."""
        table = "environmentvariabledefinitions"
        url = f"{self._base}{table}({guid(mark.id)})"
        await self._write("PATCH", url, f"PATCH {table}", Body({"defaultvalue": text}))

    async def remove_mark(self, mark: Mark) -> None:
        """Take a mark away; one that is gone already is fine."""
        table = "environmentvariabledefinitions"
        try:
            await self._write("DELETE", f"{self._base}{table}({guid(mark.id)})", f"DELETE {table}")
        except NotFound:
            return

    async def publish_all(self) -> None:
        """Publish all customizations; repeating it does no harm."""
        await self._write(
            "POST",
            f"{self._base}PublishAllXml",
            "POST PublishAllXml",
            Body({}),
            seconds=self._policy.action_seconds,
        )

    # ---- what the methods share ----

    async def _get(self, url: str, operation: str) -> Answer:
        policy = self._policy
        return await self._calls.make(
            Call("GET", url, operation, _scope(url), policy.read_seconds, cap=policy.answer_bytes),
            self._on_wait,
            self._patience,
        )

    async def _write(
        self,
        method: str,
        url: str,
        operation: str,
        body: Body | None = None,
        *,
        seconds: float | None = None,
        cap: int | None = None,
    ) -> Answer:
        policy = self._policy
        call = Call(
            method,
            url,
            operation,
            _scope(url),
            seconds or policy.read_seconds,
            body,
            cap or policy.answer_bytes,
        )
        return await self._calls.make(call, self._on_wait, self._patience)

    async def _action(self, name: str, body: Body) -> Record:
        answer = await self._write(
            "POST",
            self._base + name,
            f"POST {name}",
            body,
            seconds=self._policy.action_seconds,
        )
        return Record(await answer.json(), answer)

    async def _object(self, path: str, options: Mapping[str, str] | None = None) -> Record:
        answer = await self._get(self._base + path + _query(options), f"GET {path.partition('(')[0]}")
        return Record(await answer.json(), answer)

    async def _rows(self, table: str, options: Mapping[str, str]) -> list[Record]:
        return await self._pages(self._base + table + _query(options), f"GET {table.partition('(')[0]}")

    async def _pages(self, url: str, operation: str) -> list[Record]:
        """All rows of all pages. A next page elsewhere than here would take our token with it: refused."""
        rows: list[Record] = []
        asked: set[str] = set()
        home = self._connectivity if self._connectivity and url.startswith(self._connectivity) else self._base
        while url:
            asked.add(url)
            answer = await self._get(url, operation)
            page = Record(await answer.json(), answer)
            if not isinstance(page.fields.get("value"), list):
                raise answer.bad("the answer has no list of rows")
            rows += page.records("value")
            link = page.text_or_none("@odata.nextLink") or page.text_or_none("nextLink") or ""
            url = urljoin(url, link) if link else ""
            if url and (not url.startswith(home) or ".." in url):
                raise answer.bad("the next page is at another address, which is not asked")
            if url in asked or len(rows) > _ROWS:
                raise answer.bad(f"the answer has no end (more than {_ROWS} rows, or pages in a circle)")
        return rows

    async def _named(self, table: str, select: str, column: str, names: Iterable[str] | None) -> list[Record]:
        """Rows whose column has one of these names or GUIDs, or all."""
        if names is None:
            return await self._rows(table, {"$select": select})
        literal = str if column.endswith("_value") else _quoted
        literals = sorted({literal(name) for name in names})
        rows: list[Record] = []
        for start in range(0, len(literals), _NAMES):
            wanted = " or ".join(f"{column} eq {text}" for text in literals[start : start + _NAMES])
            rows += await self._rows(table, {"$select": select, "$filter": wanted})
        return rows

    def _own_connectivity(self) -> str:
        if self._connectivity is None:
            raise ValueError(
                "this environment has no connectivity address, so its connections cannot be changed"
            )
        return self._connectivity

    async def _operations(self, where: str) -> list[RunningOperation]:
        kinds = " or ".join(
            f"operationtype eq {kind}" for kind in (records.GENERIC_OPERATION, *records.OPERATION_TYPES)
        )
        options = {"$select": _OPERATION, "$filter": f"{where} and ({kinds})"}
        found = [records.operation(row) for row in await self._rows("asyncoperations", options)]
        return sorted((o for o in found if o is not None), key=lambda o: o.created_on or _EVER)

    async def _jobs(self, solution: str) -> list[Record]:
        """The newest import jobs of a solution, without their logs."""
        options = {
            "$select": _JOB,
            "$filter": f"solutionname eq {_quoted(solution)}",
            "$orderby": "createdon desc",
            "$top": str(_KNOWN_JOBS),
        }
        return await self._rows("importjobs", options)

    async def _import_job(self, row: Record) -> ImportJob:
        job_id = row.id("importjobid")
        log = await self._log(job_id)
        return ImportJob(
            id=job_id,
            solution=row.text_or_none("solutionname") or (log.solution if log else ""),
            version=log.version if log else None,
            user_id=row.id_or_none("_createdby_value") or "",
            started_on=row.time("startedon") or row.time("createdon"),
            completed_on=row.time("completedon"),
        )

    async def _log(self, job_id: str) -> ImportLog | None:
        answer = await self._get(f"{self._base}importjobs({guid(job_id)})?$select=data", "GET importjobs")
        text = Record(await answer.json(), answer).text_or_none("data")
        if not text:
            return None
        try:
            # The log of a large package takes tens of milliseconds.
            return await asyncio.to_thread(read_import_log, text)
        except ValueError as error:
            raise answer.bad(str(error)) from error

    async def _phase(self, operation_id: str) -> _Phase | None:
        try:
            row = await self._object(f"asyncoperations({guid(operation_id)})", {"$select": _PHASE})
        except NotFound:
            return None
        state = records.operation_state(row)
        message = row.label("friendlymessage") or row.label("message")
        running = state is OperationState.RUNNING
        return _Phase(
            state=state,
            text=(message or _WAITING.get(row.integer("statuscode"), "at work")) if running else state.value,
            code=error_code(row.fields.get("errorcode")) if state is OperationState.FAILED else "",
            message="" if running or state is OperationState.SUCCEEDED else message,
            created_on=row.time("createdon"),
            completed_on=row.time("completedon"),
        )

    async def _import(
        self, operation: ImportOperation, *, with_log: bool
    ) -> tuple[_Phase | None, Record | None, ImportLog | None]:
        """The operation, the job, and its log where asked or where only the log tells how the job ended."""
        phase = await self._phase(operation.async_operation_id) if operation.async_operation_id else None
        if not operation.import_job_id:
            return phase, None, None
        path = f"importjobs({guid(operation.import_job_id)})"
        try:
            job = await self._object(path, {"$select": "progress,solutionname,startedon,completedon"})
            wanted = with_log or (phase is None and job.time("completedon") is not None)
            return phase, job, await self._log(operation.import_job_id) if wanted else None
        except NotFound:
            return phase, None, None


@dataclass(frozen=True, slots=True)
class _Phase:
    """What a row of ``asyncoperations`` says."""

    state: OperationState
    text: str
    code: str
    message: str
    created_on: datetime | None
    completed_on: datetime | None


def _under(address: httpx.URL, path: str) -> str:
    return str(address).rstrip("/") + "/" + path


def _scope(url: str) -> str:
    """The audience of a token: the environment's own origin; the connectivity API has one per cloud."""
    parsed = httpx.URL(url)
    origin = f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"
    if ".environment.api." in parsed.host:
        origin = "https://api." + parsed.host.partition(".environment.api.")[2]
    return f"{origin}/.default"


def _quoted(text: str) -> str:
    """A string literal of a filter; a quote within is doubled."""
    return "'" + text.replace("'", "''") + "'"


def _plain_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}", text):
        raise ValueError(f"{plain(text, 60)!r} cannot be the id of a connection")
    return text


def _query(options: Mapping[str, str] | None) -> str:
    if not options:
        return ""
    return "?" + "&".join(f"{name}={quote(value, safe=_QUERY)}" for name, value in options.items())


def _parameter(parameter: ConnectionParameter | VariableParameter) -> dict[str, str]:
    if isinstance(parameter, ConnectionParameter):
        return {
            "@odata.type": "Microsoft.Dynamics.CRM.connectionreference",
            "connectionreferencelogicalname": parameter.logical_name,
            "connectionreferencedisplayname": parameter.display_name,
            "description": parameter.description,
            "connectorid": parameter.connector_id,
            "connectionid": parameter.connection_id,
        }
    value = {
        "@odata.type": "Microsoft.Dynamics.CRM.environmentvariablevalue",
        "schemaname": parameter.schema_name,
        "value": parameter.value,
    }
    return (
        value
        if parameter.value_id is None
        else {**value, "environmentvariablevalueid": guid(parameter.value_id)}
    )


def _verdict(log: ImportLog | None) -> tuple[OperationState, str, str]:
    """State, code and message of a completed job by its log alone."""
    failure = next((r for r in log.results if r.severity is Severity.ERROR), None) if log else None
    if log is None or log.succeeded is False or failure is not None:
        return OperationState.FAILED, failure.code if failure else "", failure.text if failure else ""
    return OperationState.SUCCEEDED, "", ""


def _unknown(operation: ImportOperation) -> NotFound:
    return NotFound(
        f"the environment knows neither import job {operation.import_job_id or '(none)'} nor "
        f"operation {operation.async_operation_id or '(none)'}",
        operation="GET importjobs",
    )
