"""The tables that the Web API shows, each as a SELECT over the environment's rows."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping

from pipelinehost_dataverse.emulator.odata import Table

_USER = "(SELECT user FROM environment)"

# The layer of a component that counts: what makers published, else the managed one on top of the stack.
TOP_LAYER = """
 SELECT l.*, c.kind, c.key, c.object_id, c.parent_kind, c.parent_key, s.managed AS of_managed,
   row_number() OVER (PARTITION BY l.component ORDER BY NOT l.published, s.managed, s.position DESC) AS depth
 FROM component c JOIN layer l ON l.component = c.id JOIN solution s ON s.id = l.solution
 WHERE c.kind = '{kind}'
"""


def _top(kind: str, columns: str, joins: str = "") -> str:
    return f"SELECT {columns} FROM ({TOP_LAYER.format(kind=kind)}) t {joins} WHERE t.depth = 1"  # noqa: S608  # of constants


def _ismanaged(alias: str = "t") -> str:
    return (
        f"EXISTS (SELECT 1 FROM layer x JOIN solution y ON y.id = x.solution "  # noqa: S608  # of constants
        f"WHERE x.component = {alias}.component AND y.managed)"
    )


def _table(
    set_name: str,
    logical_name: str,
    key: str,
    columns: str,
    source: str,
    links: dict[str, tuple[str, str, str, bool]] | None = None,
    *,
    name: str = "",
    labels: Mapping[str, Mapping[int, str]] | None = None,
    sortable: bool = True,
    order: str = "",
    alternate: str = "",
) -> Table:
    """``columns`` is one word per column, ``name:type``; a string's type may be left out."""
    typed = {column: kind or "string" for column, _, kind in (w.partition(":") for w in columns.split())}
    return Table(
        set_name,
        logical_name,
        key,
        typed,
        source,
        links or {},
        sortable,
        order,
        name,
        labels or {},
        alternate,
    )


_ACTIVE = {0: "Active", 1: "Inactive"}
_TYPES = {
    100000000 + n: t for n, t in enumerate(["String", "Number", "Boolean", "JSON", "Data source", "Secret"])
}
_CATEGORIES = dict(
    enumerate(
        [
            "Workflow",
            "Dialog",
            "Business Rule",
            "Action",
            "Business Process Flow",
            "Modern Flow",
            "Desktop Flow",
        ]
    )
)
_STATES = {0: "Ready", 1: "Suspended", 2: "Locked", 3: "Completed"}
_STATUSES = {
    0: "Waiting For Resources",
    10: "Waiting",
    20: "In Progress",
    21: "Pausing",
    22: "Canceling",
    30: "Succeeded",
    31: "Failed",
    32: "Canceled",
}
_HISTORY = {
    "msdyn_status": {0: "Started", 1: "Completed", 2: "Queued"},
    "msdyn_operation": {0: "Import", 1: "Uninstall"},
}


_ALL = (
    _table(
        "solutions",
        "solution",
        "solutionid",
        "solutionid:guid uniquename friendlyname description version ismanaged:boolean isvisible:boolean "
        "solutionpackageversion installedon:datetime createdon:datetime modifiedon:datetime "
        "updatedon:datetime _publisherid_value:guid _parentsolutionid_value:guid upgradeinfo",
        """SELECT id AS solutionid, unique_name AS uniquename, display_name AS friendlyname, description,
             version,
             managed AS ismanaged, visible AS isvisible, nullif(platform_version, '') AS
             solutionpackageversion,
             installed_on AS installedon, installed_on AS createdon, updated_on AS modifiedon,
             updated_on AS updatedon, publisher AS _publisherid_value,
             coalesce(patch_of, upgrade_of) AS _parentsolutionid_value,
             NULL AS upgradeinfo, position FROM solution""",
        {
            "publisherid": ("publishers", "_publisherid_value", "publisherid", False),
            "parentsolutionid": ("solutions", "_parentsolutionid_value", "solutionid", False),
            "solution_solutioncomponent": ("solutioncomponents", "solutionid", "_solutionid_value", True),
        },
        name="friendlyname",
        order="position",
    ),
    _table(
        "publishers",
        "publisher",
        "publisherid",
        "publisherid:guid uniquename friendlyname customizationprefix "
        "customizationoptionvalueprefix:integer createdon:datetime",
        """SELECT id AS publisherid, unique_name AS uniquename, display_name AS friendlyname,
             prefix AS customizationprefix, option_value_prefix AS customizationoptionvalueprefix,
             created_on AS createdon FROM publisher""",
        {"publisher_solution": ("solutions", "publisherid", "_publisherid_value", True)},
        name="friendlyname",
    ),
    _table(
        "solutioncomponents",
        "solutioncomponent",
        "solutioncomponentid",
        "solutioncomponentid:guid componenttype:integer objectid:guid rootcomponentbehavior:integer "
        "_solutionid_value:guid",
        # A component of a solution has an id of its own, made from the two ids it joins.
        """SELECT substr(l.solution, 1, 19) || substr(c.object_id, 20) AS solutioncomponentid,
             k.code AS componenttype, c.object_id AS objectid, l.behavior AS rootcomponentbehavior,
             l.solution AS _solutionid_value
           FROM (SELECT DISTINCT solution, component, behavior FROM layer
                 UNION ALL SELECT solution, component, behavior FROM membership) l
             JOIN component c ON c.id = l.component JOIN kind_code k ON k.kind = c.kind""",
        {"solutionid": ("solutions", "_solutionid_value", "solutionid", False)},
    ),
    _table(
        "solutioncomponentdefinitions",
        "solutioncomponentdefinition",
        "solutioncomponentdefinitionid",
        "solutioncomponentdefinitionid:guid name primaryentityname solutioncomponenttype:integer",
        """SELECT printf('%08x-0000-4000-8000-%012x', code, code) AS solutioncomponentdefinitionid,
             kind AS name, kind AS primaryentityname, code AS solutioncomponenttype FROM kind_code""",
        name="name",
        order="solutioncomponenttype",
    ),
    _table(
        "msdyn_solutioncomponentsummaries",
        "msdyn_solutioncomponentsummary",
        "msdyn_solutioncomponentsummaryid",
        "msdyn_solutioncomponentsummaryid:guid msdyn_solutionid:guid msdyn_objectid:guid msdyn_name "
        "msdyn_displayname msdyn_schemaname msdyn_uniquename msdyn_componenttype:integer "
        "msdyn_componenttypename msdyn_componentlogicalname msdyn_primaryentityname "
        "msdyn_ismanaged:boolean msdyn_workflowcategory msdyn_status msdyn_total:integer",
        """SELECT substr(l.solution, 1, 19) || substr(c.object_id, 20) AS msdyn_solutioncomponentsummaryid,
             l.solution AS msdyn_solutionid, c.object_id AS msdyn_objectid,
             CASE c.kind WHEN 'entity' THEN l.schema_name WHEN 'attribute' THEN l.schema_name ELSE l.name END
               AS msdyn_name,
             l.name AS msdyn_displayname, l.schema_name AS msdyn_schemaname, c.key AS msdyn_uniquename,
             k.code AS msdyn_componenttype, c.kind AS msdyn_componenttypename,
             c.kind AS msdyn_componentlogicalname,
             CASE c.parent_kind WHEN 'entity' THEN c.parent_key END AS msdyn_primaryentityname,
             s.managed AS msdyn_ismanaged, json_extract(l.facts, '$.category') AS msdyn_workflowcategory,
             NULL AS msdyn_status, 1 AS msdyn_total, c.id AS number
           FROM (SELECT solution, component, name, schema_name, facts FROM layer x
                   WHERE published OR NOT EXISTS (SELECT 1 FROM layer y WHERE y.solution = x.solution
                     AND y.component = x.component AND y.published)
                 UNION ALL
                 SELECT m.solution, m.component, x.name, x.schema_name, x.facts
                   FROM membership m JOIN layer x ON x.component = m.component
                   WHERE (x.solution, x.published) = (SELECT y.solution, y.published FROM layer y
                     JOIN solution z ON z.id = y.solution WHERE y.component = m.component
                     ORDER BY NOT y.published, z.managed, z.position DESC LIMIT 1)) l
             JOIN component c ON c.id = l.component JOIN kind_code k ON k.kind = c.kind
             JOIN solution s ON s.id = l.solution""",
        name="msdyn_name",
        order="number",
    ),
    _table(
        "msdyn_componentlayers",
        "msdyn_componentlayer",
        "msdyn_componentlayerid",
        "msdyn_componentlayerid:guid msdyn_componentid:guid msdyn_solutioncomponentname msdyn_name "
        "msdyn_solutionname msdyn_publishername msdyn_order:integer msdyn_overwritetime:datetime "
        "msdyn_componentjson msdyn_changes",
        # Order 1 is the base. A change that is not published yet is no layer of its own.
        """SELECT substr(l.solution, 1, 19) || substr(c.object_id, 20) AS msdyn_componentlayerid,
             c.object_id AS msdyn_componentid,
             CASE c.kind WHEN 'entity' THEN 'Entity' WHEN 'attribute' THEN 'Attribute'
               WHEN 'workflow' THEN 'Workflow' WHEN 'webresource' THEN 'WebResource'
               WHEN 'systemform' THEN 'SystemForm' WHEN 'savedquery' THEN 'SavedQuery'
               WHEN 'optionset' THEN 'OptionSet' WHEN 'role' THEN 'Role' WHEN 'appmodule' THEN 'AppModule'
               WHEN 'canvasapp' THEN 'CanvasApp' ELSE c.kind END AS msdyn_solutioncomponentname,
             l.name AS msdyn_name, s.unique_name AS msdyn_solutionname,
             p.display_name AS msdyn_publishername,
             row_number() OVER (PARTITION BY l.component ORDER BY s.managed DESC, s.position) AS msdyn_order,
             s.updated_on AS msdyn_overwritetime, l.facts AS msdyn_componentjson, NULL AS msdyn_changes
           FROM (SELECT solution, component, name, facts FROM layer x
                   WHERE published OR NOT EXISTS (SELECT 1 FROM layer y WHERE y.solution = x.solution
                     AND y.component = x.component AND y.published)) l
             JOIN component c ON c.id = l.component JOIN solution s ON s.id = l.solution
             JOIN publisher p ON p.id = s.publisher""",
        name="msdyn_name",
        order="msdyn_componentid, msdyn_order",
    ),
    _table(
        "environmentvariabledefinitions",
        "environmentvariabledefinition",
        "environmentvariabledefinitionid",
        "environmentvariabledefinitionid:guid schemaname displayname description type:integer defaultvalue "
        "isrequired:boolean parameterkey apiid ismanaged:boolean statecode:integer",
        _top(
            "environmentvariabledefinition",
            "t.object_id AS environmentvariabledefinitionid, t.schema_name AS schemaname, t.name AS "
            "displayname, json_extract(t.facts, '$.description') AS description, json_extract(t.facts, "
            "'$.type') AS type, json_extract(t.facts, '$.default') AS defaultvalue, json_extract(t.facts, "
            "'$.required') AS isrequired, json_extract(t.facts, '$.parameter_key') AS parameterkey, "
            f"json_extract(t.facts, '$.api_id') AS apiid, {_ismanaged()} AS ismanaged, 0 AS statecode",
        ),
        {
            "environmentvariabledefinition_environmentvariablevalue": (
                "environmentvariablevalues",
                "environmentvariabledefinitionid",
                "_environmentvariabledefinitionid_value",
                True,
            )
        },
        name="schemaname",
        labels={"type": _TYPES, "statecode": _ACTIVE},
        order="schemaname",
    ),
    _table(
        "environmentvariablevalues",
        "environmentvariablevalue",
        "environmentvariablevalueid",
        "environmentvariablevalueid:guid schemaname value _environmentvariabledefinitionid_value:guid "
        "ismanaged:boolean createdon:datetime modifiedon:datetime",
        """SELECT v.id AS environmentvariablevalueid, v.schema_name AS schemaname, v.value AS value,
             c.object_id AS _environmentvariabledefinitionid_value, NOT v.customer AS ismanaged,
             v.created_on AS createdon, v.modified_on AS modifiedon
           FROM variable_value v JOIN component c
             ON c.kind = 'environmentvariabledefinition' AND c.key = lower(v.schema_name)""",
        {
            "EnvironmentVariableDefinitionId": (
                "environmentvariabledefinitions",
                "_environmentvariabledefinitionid_value",
                "environmentvariabledefinitionid",
                False,
            )
        },
        name="schemaname",
        order="schemaname",
    ),
    _table(
        "connectionreferences",
        "connectionreference",
        "connectionreferenceid",
        "connectionreferenceid:guid connectionreferencelogicalname connectionreferencedisplayname "
        "description connectorid connectionid ismanaged:boolean statecode:integer statuscode:integer",
        _top(
            "connectionreference",
            "t.object_id AS connectionreferenceid, t.schema_name AS connectionreferencelogicalname, t.name "
            "AS connectionreferencedisplayname, json_extract(t.facts, '$.description') AS description, "
            "json_extract(t.facts, '$.connector_id') AS connectorid, b.connection AS connectionid, "
            f"{_ismanaged()} AS ismanaged, 0 AS statecode, 1 AS statuscode",
            "LEFT JOIN binding b ON b.logical_name = t.schema_name",
        ),
        name="connectionreferencedisplayname",
        labels={"statecode": _ACTIVE, "statuscode": {1: "Active", 2: "Inactive"}},
        order="connectionreferencelogicalname",
    ),
    _table(
        "workflows",
        "workflow",
        "workflowid",
        "workflowid:guid name category:integer type:integer statecode:integer statuscode:integer "
        "ismanaged:boolean uniquename",
        _top(
            "workflow",
            "t.object_id AS workflowid, t.name AS name, "
            "CAST(json_extract(t.facts, '$.category') AS INTEGER) AS category, 1 AS type, "
            'coalesce(w."on", 0) AS statecode, coalesce(w."on", 0) + 1 AS statuscode, '
            f"{_ismanaged()} AS ismanaged, t.schema_name AS uniquename",
            "LEFT JOIN switch w ON w.component = t.component",
        ),
        name="name",
        labels={
            "category": _CATEGORIES,
            "type": {1: "Definition"},
            "statecode": {0: "Draft", 1: "Activated"},
            "statuscode": {1: "Draft", 2: "Activated"},
        },
    ),
    _table(
        "asyncoperations",
        "asyncoperation",
        "asyncoperationid",
        "asyncoperationid:guid name messagename operationtype:integer statecode:integer statuscode:integer "
        "message friendlymessage errorcode:integer createdon:datetime startedon:datetime "
        "completedon:datetime modifiedon:datetime dependencytoken _createdby_value:guid _ownerid_value:guid",
        f"""SELECT id AS asyncoperationid, name, message AS messagename, type AS operationtype,
             state AS statecode, status AS statuscode, text AS message, text AS friendlymessage,
             error_code AS errorcode, created_on AS createdon, started_on AS startedon,
             completed_on AS completedon, coalesce(completed_on, started_on, created_on) AS modifiedon,
             'SolutionOperation_' || (SELECT id FROM environment) AS dependencytoken,
             coalesce(user, {_USER}) AS _createdby_value, coalesce(user, {_USER}) AS _ownerid_value,
             number FROM operation""",  # noqa: S608  # of constants
        {"createdby": ("systemusers", "_createdby_value", "systemuserid", False)},
        name="name",
        labels={"statecode": _STATES, "statuscode": _STATUSES},
        order="number",
    ),
    _table(
        "importjobs",
        "importjob",
        "importjobid",
        "importjobid:guid name solutionname progress:double data createdon:datetime startedon:datetime "
        "completedon:datetime modifiedon:datetime _createdby_value:guid operationcontext",
        f"""SELECT id AS importjobid, name, solution_name AS solutionname, progress, content AS data,
             created_on AS createdon, started_on AS startedon, completed_on AS completedon,
             coalesce(completed_on, started_on, created_on) AS modifiedon,
             coalesce((SELECT user FROM operation WHERE id = import_job.operation), {_USER})
               AS _createdby_value,
             NULL AS operationcontext, number FROM import_job""",  # noqa: S608  # of constants
        {"createdby": ("systemusers", "_createdby_value", "systemuserid", False)},
        name="name",
        order="number",
    ),
    _table(
        "msdyn_solutionhistories",
        "msdyn_solutionhistory",
        "msdyn_solutionhistoryid",
        "msdyn_solutionhistoryid:guid msdyn_name msdyn_uniquename msdyn_solutionid:guid "
        "msdyn_solutionversion msdyn_publishername msdyn_operation:integer msdyn_suboperation:integer "
        "msdyn_status:integer msdyn_result:boolean msdyn_errorcode:integer msdyn_exceptionmessage "
        "msdyn_starttime:datetime msdyn_endtime:datetime msdyn_ismanaged:boolean "
        "msdyn_isoverwritecustomizations:boolean msdyn_activityid:guid msdyn_correlationid:guid "
        "_createdby_value:guid",
        f"""SELECT h.id AS msdyn_solutionhistoryid, h.name AS msdyn_name, h.name AS msdyn_uniquename,
             h.solution_id AS msdyn_solutionid, h.version AS msdyn_solutionversion,
             h.publisher AS msdyn_publishername, h.kind AS msdyn_operation, h.sub_kind AS msdyn_suboperation,
             h.status AS msdyn_status, h.result AS msdyn_result, h.error_code AS msdyn_errorcode,
             h.error AS msdyn_exceptionmessage, h.started_on AS msdyn_starttime, h.ended_on AS msdyn_endtime,
             h.managed AS msdyn_ismanaged, h.overwrite AS msdyn_isoverwritecustomizations,
             h.operation AS msdyn_activityid, coalesce(o.job, h.operation) AS msdyn_correlationid,
             coalesce(o.user, {_USER}) AS _createdby_value, h.number AS number
           FROM history h LEFT JOIN operation o ON o.id = h.operation""",  # noqa: S608  # of constants
        {"createdby": ("systemusers", "_createdby_value", "systemuserid", False)},
        name="msdyn_name",
        labels=_HISTORY,
        sortable=False,
        order="number",
    ),
    _table(
        "stagesolutionuploads",
        "stagesolutionupload",
        "stagesolutionuploadid",
        "stagesolutionuploadid:guid name solutionuniquename solutionversion createdon:datetime",
        """SELECT id AS stagesolutionuploadid, solution_name AS name, solution_name AS solutionuniquename,
             version AS solutionversion, created_on AS createdon FROM upload""",
        name="name",
    ),
    _table(
        "systemusers",
        "systemuser",
        "systemuserid",
        "systemuserid:guid fullname applicationid isdisabled:boolean _businessunitid_value:guid "
        "createdon:datetime",
        """SELECT user AS systemuserid, 'Emulator' AS fullname, NULL AS applicationid, 0 AS isdisabled,
             business_unit AS _businessunitid_value, created_on AS createdon FROM environment
           UNION ALL SELECT u.id, '# ' || u.application, u.application, 0, e.business_unit, u.created_on
             FROM user u, environment e""",
        {"businessunitid": ("businessunits", "_businessunitid_value", "businessunitid", False)},
        name="fullname",
    ),
    _table(
        "businessunits",
        "businessunit",
        "businessunitid",
        "businessunitid:guid name createdon:datetime",
        "SELECT business_unit AS businessunitid, 'Root' AS name, created_on AS createdon FROM environment",
        name="name",
    ),
)

_LABEL = (
    "json_object('LocalizedLabels', json_array(json_object('Label', {0}, 'LanguageCode', 1033)), "
    "'UserLocalizedLabel', json_object('Label', {0}, 'LanguageCode', 1033))"
)
_ATTRIBUTE_TYPES = {
    "guid": "Uniqueidentifier",
    "string": "String",
    "integer": "Integer",
    "double": "Double",
    "boolean": "Boolean",
    "datetime": "DateTime",
}


def _attributes(table: Table) -> Iterator[dict[str, object]]:
    links = {here: name for name, (_, here, _, many) in table.links.items() if not many}
    for number, (column, kind) in enumerate(table.columns.items(), 1):
        lookup = column.startswith("_") and column.endswith("_value")
        name = column[1:-6] if lookup else column
        shown = "State" if name == "statecode" else "Status" if name == "statuscode" else "Picklist"
        yield {
            "id": _metadata_id(f"{table.logical_name}.{name}"),
            "entity": table.logical_name,
            "name": name,
            "type": "Lookup" if lookup else shown if column in table.labels else _ATTRIBUTE_TYPES[kind],
            "number": number,
            "key": column == table.key,
            "names": column == table.name,
            "schema": links.get(column, name),
        }


def _metadata_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://emulator.invalid/{name}"))


def _constant(columns: str, rows: Iterable[Mapping[str, object]]) -> str:
    """A SELECT of rows that no environment changes. ``columns`` says ``Column:member``, or ``Column=SQL``."""
    shown = []
    for word in columns.split():
        column, _, sql = word.partition("=")
        column, _, member = column.partition(":")
        sql = sql or f"json_extract(value, '$.{member}')"
        shown.append(f"{sql} AS {column}")
    label = _LABEL.format("json_extract(value, '$.name')")
    text = json.dumps(list(rows)).replace("'", "''")
    return f"SELECT {', '.join(shown)}, {label} AS DisplayName FROM json_each('{text}')"  # noqa: S608  # of constants


_METADATA = (
    _table(
        "EntityDefinitions",
        "EntityMetadata",
        "MetadataId",
        "MetadataId:guid LogicalName SchemaName EntitySetName LogicalCollectionName PrimaryIdAttribute "
        "PrimaryNameAttribute IsCustomEntity:boolean IsManaged:boolean IsPrivate:boolean "
        "IsIntersect:boolean DisplayName:json",
        _constant(
            "MetadataId:id LogicalName:name SchemaName:name EntitySetName:set LogicalCollectionName:set "
            "PrimaryIdAttribute:key PrimaryNameAttribute:names IsCustomEntity=0 IsManaged=1 IsPrivate=0 "
            "IsIntersect=0",
            (
                {
                    "id": _metadata_id(table.logical_name),
                    "name": table.logical_name,
                    "set": table.set_name,
                    "key": table.key,
                    "names": table.name or None,
                }
                for table in _ALL
            ),
        )
        + " UNION ALL "
        + _top(
            "entity",
            "t.object_id, t.key, t.schema_name, coalesce(json_extract(t.facts, '$.setname'), t.key || 's'), "
            "coalesce(json_extract(t.facts, '$.setname'), t.key || 's'), t.key || 'id', NULL, 1, "
            f"{_ismanaged()}, 0, 0, {_LABEL.format('t.name')}",
        ),
        {"Attributes": ("Attributes", "LogicalName", "EntityLogicalName", True)},
        order="LogicalName",
        alternate="LogicalName",
    ),
    _table(
        "Attributes",
        "AttributeMetadata",
        "MetadataId",
        "MetadataId:guid LogicalName SchemaName EntityLogicalName AttributeType ColumnNumber:integer "
        "IsPrimaryId:boolean IsPrimaryName:boolean IsCustomAttribute:boolean IsManaged:boolean AttributeOf "
        "DisplayName:json",
        _constant(
            "MetadataId:id LogicalName:name SchemaName:schema EntityLogicalName:entity AttributeType:type "
            "ColumnNumber:number IsPrimaryId:key IsPrimaryName:names IsCustomAttribute=0 IsManaged=1 "
            "AttributeOf=NULL",
            (row for table in _ALL for row in _attributes(table)),
        )
        + " UNION ALL "
        + _top(
            "attribute",
            "t.object_id, substr(t.key, length(t.parent_key) + 2), t.schema_name, t.parent_key, "
            "json_extract(t.facts, '$.type'), NULL, 0, 0, 1, "
            f"{_ismanaged()}, NULL, {_LABEL.format('t.name')}",
        ),
        order="EntityLogicalName, ColumnNumber, LogicalName",
        alternate="LogicalName",
    ),
)
"""What ``EntityDefinitions`` tells: the tables of this module, and those that solutions have brought."""

TABLES = {table.set_name: table for table in (*_ALL, *_METADATA)}
"""By entity set name."""
ENTITY_SETS = tuple(table.set_name for table in _ALL)
"""Those whose rows have addresses of their own, in the order of the service document."""
