"""JSON of the Web API read into the types of ``model``; whatever is not as documented is a ``BadAnswer``."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from pipelinehost_dataverse.solution.kinds import KEYED_BY_NAME, KIND_BY_CODE, normalised, normalised_in
from pipelinehost_dataverse.solution.model import ComponentKey, VariableType, Version
from pipelinehost_dataverse.webapi.calls import Answer
from pipelinehost_dataverse.webapi.errors import error_code, plain
from pipelinehost_dataverse.webapi.model import (
    Connection,
    ConnectionReferenceState,
    Dependant,
    EnvironmentVariableState,
    HistoryRow,
    InstalledComponent,
    InstalledSolution,
    MissingDependency,
    OperationState,
    Organization,
    RunningOperation,
    Severity,
    StagedComponent,
    StagedDependencyEnd,
    StagedSolution,
    StageFinding,
    StageResult,
    WhoAmI,
)

OPERATION_TYPES = {202: False, 203: True, 204: False, 207: False, 208: False, 211: True}
"""Types of asyncoperations that are solution operations, and whether they import."""
GENERIC_OPERATION = 54
"""The type under which an action posted as ``…Async`` runs; its message name says which one."""
_MESSAGES = {
    "importsolution": True,
    "importsolutionasync": True,
    "stageandupgrade": True,
    "stageandupgradeasync": True,
    "exportsolution": False,
    "exportsolutionasync": False,
    "deleteandpromote": False,
    "deleteandpromoteasync": False,
    "uninstallsolution": False,
    "uninstallsolutionasync": False,
    "publishallxml": False,
    "publishallxmlasync": False,
}
_STATES = {30: OperationState.SUCCEEDED, 31: OperationState.FAILED, 32: OperationState.CANCELED}


def guid(text: str) -> str:
    """A GUID in lower case without braces.

    Raises:
        ValueError: it is none.
    """
    bare = text.strip().removeprefix("{").removesuffix("}")
    try:
        found = str(uuid.UUID(bare))
    except ValueError:
        found = ""
    if (
        not found or found != bare.lower()
    ):  # UUID() takes other spellings too, which would not do in an address
        raise ValueError(f"{plain(text, 60)!r} is no GUID")
    return found


class Record:
    """One JSON object of an answer, read field by field.

    Every method raises ``BadAnswer`` where the field has another type than asked for, or is required and
    missing.
    """

    __slots__ = ("_answer", "fields")

    def __init__(self, fields: object, answer: Answer) -> None:
        if not isinstance(fields, Mapping):
            raise answer.bad("the answer lacks an object where one belongs")
        self.fields: Mapping[str, object] = fields
        self._answer = answer

    def text(self, name: str) -> str:
        """Text exactly as it came, for names and values that are used again."""
        found = self.text_or_none(name)
        if found is None:
            raise self._answer.bad(f"the answer has no {name}")
        return found

    def text_or_none(self, name: str) -> str | None:
        """As ``text``; None where there is none."""
        found = self.fields.get(name)
        if found is None:
            return None
        if not isinstance(found, str):
            raise self._answer.bad(f"{name} of the answer is not text")
        try:
            found.encode()
        except UnicodeEncodeError as error:  # half a surrogate pair, which nothing can store
            raise self._answer.bad(f"{name} of the answer is not valid text") from error
        return found

    def label(self, name: str, limit: int = 2000) -> str:
        """Text for people: one line, safe to print; empty where there is none."""
        found = self.fields.get(name)
        return plain(found, limit) if isinstance(found, str) else ""

    def id(self, name: str) -> str:
        """A GUID."""
        found = self.id_or_none(name)
        if found is None:
            raise self._answer.bad(f"the answer has no {name}")
        return found

    def id_or_none(self, name: str) -> str | None:
        """As ``id``; None where there is none."""
        found = self.text_or_none(name)
        try:
            return guid(found) if found else None
        except ValueError as error:
            raise self._answer.bad(f"{name} of the answer is no GUID") from error

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number; ``default`` where there is none and a default is given."""
        found = self.fields.get(name)
        if found is None and default is not None:
            return default
        if isinstance(found, bool) or not isinstance(found, int):
            raise self._answer.bad(f"{name} of the answer is no whole number")
        return found

    def number(self, name: str) -> float:
        """A finite number; 0 where there is none."""
        found = self.fields.get(name) or 0.0
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found):
            raise self._answer.bad(f"{name} of the answer is no number")
        return float(found)

    def flag(self, name: str) -> bool:
        """True or False; False where there is none."""
        return self.flag_or_none(name) or False

    def flag_or_none(self, name: str) -> bool | None:
        """As ``flag``; None where there is none."""
        found = self.fields.get(name)
        if found is not None and not isinstance(found, bool):
            raise self._answer.bad(f"{name} of the answer is neither true nor false")
        return found

    def time(self, name: str) -> datetime | None:
        """A time in UTC; None where there is none."""
        found = self.text_or_none(name)
        if not found:
            return None
        try:
            read = datetime.fromisoformat(found)
        except ValueError as error:
            raise self._answer.bad(f"{name} of the answer is no time") from error
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)

    def version(self, name: str) -> Version:
        """A solution version."""
        found = self.version_or_none(name)
        if found is None:
            raise self._answer.bad(f"the answer has no {name}")
        return found

    def version_or_none(self, name: str) -> Version | None:
        """As ``version``; None where there is none."""
        found = self.text_or_none(name)
        try:
            return Version.parse(found) if found else None
        except ValueError as error:
            raise self._answer.bad(f"{name} of the answer is no version") from error

    def record(self, name: str) -> Record:
        """An object; an empty one where there is none."""
        found = self.fields.get(name)
        return Record({} if found is None else found, self._answer)

    def records(self, name: str) -> list[Record]:
        """A list of objects; an empty one where there is none."""
        found = self.fields.get(name)
        if found is None:
            return []
        if not isinstance(found, list):
            raise self._answer.bad(f"{name} of the answer is no list")
        return [Record(item, self._answer) for item in found]


def who_am_i(row: Record) -> WhoAmI:
    """Read the answer of ``WhoAmI``."""
    return WhoAmI(row.id("UserId"), row.id_or_none("BusinessUnitId") or "", row.id("OrganizationId"))


def organization(answer: Record) -> Organization:
    """Read the answer of ``RetrieveCurrentOrganization``."""
    row = answer.record("Detail")
    return Organization(
        id=row.id("OrganizationId"),
        unique_name=row.label("UniqueName"),
        display_name=row.label("FriendlyName"),
        version=row.label("OrganizationVersion"),
        environment_id=row.label("EnvironmentId"),
        tenant_id=row.label("TenantId"),
        geo=row.label("Geo"),
    )


def solution(row: Record) -> InstalledSolution:
    """Read a row of ``solutions`` with its publisher."""
    publisher = row.record("publisherid")
    return InstalledSolution(
        id=row.id("solutionid"),
        unique_name=row.text("uniquename"),
        display_name=row.label("friendlyname"),
        version=row.version("version"),
        managed=row.flag("ismanaged"),
        publisher_unique_name=publisher.text_or_none("uniquename") or "",
        publisher_display_name=publisher.label("friendlyname"),
        installed_on=row.time("installedon"),
        updated_on=row.time("updatedon"),
        parent_id=row.id_or_none("_parentsolutionid_value"),
        visible=row.flag("isvisible"),
    )


def component(row: Record) -> InstalledComponent:
    """Read a row of ``msdyn_solutioncomponentsummaries``."""
    code = row.integer("msdyn_componenttype")
    object_id = row.text("msdyn_objectid").lower()
    name, schema_name = row.text_or_none("msdyn_name") or "", row.text_or_none("msdyn_schemaname") or ""
    table = (row.text_or_none("msdyn_componentlogicalname") or "").lower()
    kind = KIND_BY_CODE.get(code) or table
    key = ""
    if kind in {"attribute", "entitykey"}:
        parent = row.text_or_none("msdyn_primaryentityname") or ""
        key = (
            f"{normalised(parent)}.{normalised(schema_name or name)}"
            if parent and (schema_name or name)
            else ""
        )
    elif kind in KEYED_BY_NAME or kind in {"environmentvariablevalue", "ribboncustomization"}:
        key = normalised_in(kind, schema_name or name)
    elif code in KIND_BY_CODE:
        key = normalised(object_id)
    else:
        key = normalised(row.text_or_none("msdyn_uniquename") or schema_name or name)
    return InstalledComponent(
        key=ComponentKey(kind, key) if kind and key else None,
        name=plain(schema_name or name),
        display_name=row.label("msdyn_displayname"),
        object_id=object_id,
        type_code=code,
        type_name=row.label("msdyn_componenttypename") or table,
    )


def dependant(row: Record) -> Dependant:
    """Read a row of ``RetrieveDependenciesForDelete``."""
    return Dependant(
        object_id=row.text("dependentcomponentobjectid").lower(),
        type_code=row.integer("dependentcomponenttype"),
        parent_id=row.id_or_none("dependentcomponentparentid"),
        solution_id=row.id_or_none("dependentcomponentbasesolutionid"),
    )


def stage_result(answer: Record) -> StageResult:
    """Read the answer of ``StageSolution``."""
    row = answer.record("StageSolutionResults")
    status = row.fields.get("StageSolutionStatus")
    details = row.record("SolutionDetails")
    return StageResult(
        passed=status in ("Passed", 1),
        upload_id=_upload_id(row),
        solution=_staged_solution(details) if details.fields else None,
        missing_dependencies=tuple(
            MissingDependency(
                _dependency_end(pair, "Required"),
                _dependency_end(pair, "Dependent"),
                pair.label("RequiredSolutionName"),
            )
            for pair in row.records("MissingDependencies")
        ),
        findings=tuple(
            StageFinding(
                severity=_severity(line.fields.get("SolutionValidationResultType")),
                code=error_code(line.fields.get("ErrorCode")),
                message=line.label("Message", 8000),
                additional_info=line.label("AdditionalInfo"),
            )
            for line in row.records("SolutionValidationResults")
        ),
        components=tuple(
            StagedComponent(
                name=line.label("ComponentName"),
                type_name=line.label("ComponentTypeName"),
                present=line.label("IsPresentInOrg"),
                attributes=_attributes(line.record("Attributes")),
            )
            for line in row.records("SolutionComponentsDetails")
        ),
    )


def _upload_id(row: Record) -> str | None:
    found = row.id_or_none("StageSolutionUploadId")
    return None if found == "00000000-0000-0000-0000-000000000000" else found


def _staged_solution(row: Record) -> StagedSolution:
    return StagedSolution(
        unique_name=row.text("SolutionUniqueName"),
        display_name=row.label("SolutionFriendlyName"),
        version=row.version("SolutionVersion"),
        managed=row.flag("IsManaged"),
        publisher_unique_name=row.text_or_none("PublisherUniqueName") or "",
        patch=row.flag("IsPatchSolution"),
        previous_version=row.version_or_none("PreviousSolutionVersion"),
        previous_managed=row.flag("PreviousIsManaged"),
        previous_publisher_unique_name=row.text_or_none("PreviousPublisherUniqueName") or "",
        has_pending_upgrade=row.flag("HasPendingUpgrade"),
    )


def _dependency_end(pair: Record, end: str) -> StagedDependencyEnd:
    names = ("SchemaName", "DisplayName", "ParentSchemaName", "ParentDisplayName", "Id", "Type")
    found = [pair.label(f"{end}Component{name}") for name in names]
    return StagedDependencyEnd(*found)


def _severity(found: object) -> Severity:
    by_name = {"info": Severity.INFO, "warning": Severity.WARNING, "error": Severity.ERROR}
    if isinstance(found, str):
        return by_name.get(found.lower(), Severity.ERROR)
    return Severity(found) if found in (0, 1, 2) else Severity.ERROR


def _attributes(row: Record) -> dict[str, str]:
    keys, values = row.fields.get("Keys"), row.fields.get("Values")
    if not isinstance(keys, list) or not isinstance(values, list):
        return {}
    return {str(k): "" if v is None else str(v) for k, v in zip(keys, values, strict=False)}


def operation(row: Record) -> RunningOperation | None:
    """Read a row of ``asyncoperations``; None where it is no solution operation."""
    kind = row.integer("operationtype", 0)
    message, name = row.label("messagename", 200), row.label("name", 200)
    imports = OPERATION_TYPES.get(kind, _MESSAGES.get((message or name).lower()))
    if imports is None:
        return None
    return RunningOperation(
        id=row.id("asyncoperationid"),
        name=message or name,
        state=operation_state(row),
        imports=imports,
        user_id=row.id_or_none("_createdby_value") or "",
        created_on=row.time("createdon"),
        completed_on=row.time("completedon"),
    )


def operation_state(row: Record) -> OperationState:
    """The state of a row of ``asyncoperations`` (statecode 3 is completed; statuscode says how)."""
    if row.integer("statecode") != 3:
        return OperationState.RUNNING
    return _STATES.get(row.integer("statuscode"), OperationState.FAILED)


def history_row(row: Record) -> HistoryRow:
    """Read a row of ``msdyn_solutionhistories``."""
    result = row.fields.get("msdyn_result")
    return HistoryRow(
        id=row.id("msdyn_solutionhistoryid"),
        solution=row.text_or_none("msdyn_name") or "",
        version=row.label("msdyn_solutionversion", 100),
        operation=row.integer("msdyn_operation", -1),
        suboperation=row.integer("msdyn_suboperation", -1),
        completed=row.integer("msdyn_status", 0) == 1,
        succeeded=result if isinstance(result, bool) else None,
        code=error_code(row.fields.get("msdyn_errorcode")),
        message=row.label("msdyn_exceptionmessage"),
        user_id=row.id_or_none("_createdby_value") or "",
        started_on=row.time("msdyn_starttime"),
        ended_on=row.time("msdyn_endtime"),
    )


def variable(row: Record, value: Record | None) -> EnvironmentVariableState:
    """Read a row of ``environmentvariabledefinitions`` and that of its value."""
    kind = row.integer("type", VariableType.STRING)
    return EnvironmentVariableState(
        schema_name=row.text("schemaname"),
        display_name=row.label("displayname"),
        # a type that is newer than this program is text until proved otherwise
        type=VariableType(kind) if kind in set(VariableType) else VariableType.STRING,
        default=row.text_or_none("defaultvalue"),
        value=value.text_or_none("value") if value else None,
        value_id=value.id("environmentvariablevalueid") if value else None,
        required=row.flag("isrequired"),
    )


def connection_reference(row: Record) -> ConnectionReferenceState:
    """Read a row of ``connectionreferences``."""
    return ConnectionReferenceState(
        logical_name=row.text("connectionreferencelogicalname"),
        display_name=row.label("connectionreferencedisplayname"),
        connector_id=row.text_or_none("connectorid") or "",
        connection_id=row.text_or_none("connectionid") or None,
    )


def connection(row: Record) -> Connection:
    """Read an item of the connectivity address."""
    properties = row.record("properties")
    statuses = [line.label("status", 100) for line in properties.records("statuses")]
    return Connection(
        id=row.text("name"),
        connector_id=properties.text("apiId"),
        display_name=properties.label("displayName"),
        status=next((s for s in statuses if s != "Connected"), "Connected" if statuses else ""),
    )
