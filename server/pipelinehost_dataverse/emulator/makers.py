"""What people do in an environment beside importing: change components, values, versions, connections.

Each function works in its caller's transaction. A change of a component goes to the makers' layer, whatever
lies below; where its kind needs publishing it waits for that.
"""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from lxml import etree

from pipelinehost_dataverse.emulator import layers, parameters, rules
from pipelinehost_dataverse.emulator.answers import find_solution, solution_name
from pipelinehost_dataverse.emulator.errors import Code, DataverseError, not_modelled
from pipelinehost_dataverse.emulator.journal import now
from pipelinehost_dataverse.emulator.odata import GUID
from pipelinehost_dataverse.emulator.rules import Installed
from pipelinehost_dataverse.solution import ComponentKey, VariableType, Version, write
from pipelinehost_dataverse.solution.model import Manifest, Publisher
from pipelinehost_dataverse.solution.requirements import CLOUD_FLOW, flow_needs

_PUBLISHED: Final = {
    # Element of ParameterXml -> the kind of component that it names.
    "entity": "entity",
    "optionset": "optionset",
    "webresource": "webresource",
    "dashboard": "systemform",
    "appmodule": "appmodule",
    "sitemap": "sitemap",
}


# -- solutions -----------------------------------------------------------------------------------------------


def set_version(db: sqlite3.Connection, solution: str, version: str) -> None:
    """Give an unmanaged solution another version, as a maker does before a deployment.

    Raises:
        DataverseError: no such solution, a managed one or one that its patches lock, or no version.

    """
    wanted = _version(version)
    there = _open_solution(db, solution_name(db, solution), Code.INVALID_ARGUMENT, "changed")
    if there.patch_of:
        raise DataverseError(
            Code.INVALID_ARGUMENT,
            f"The version of the patch '{there.unique_name}' cannot be changed; clone another patch.",
        )
    db.execute("UPDATE solution SET version = ?, updated_on = ? WHERE id = ?", (str(wanted), now(), solution))


def clone_as_patch(db: sqlite3.Connection, parent_name: str, display_name: str, version: str) -> str:
    """Begin a patch of an unmanaged solution, which is locked from then on; returns the patch's id.

    The patch is empty: its content comes by importing its unmanaged package.

    Raises:
        DataverseError: no such solution, one that cannot be patched, or a version that a patch cannot have.

    """
    wanted = _version(version)
    _check_quiet(db, "CloneAsPatch")
    parent = _unmanaged(db, parent_name, Code.INVALID_ARGUMENT, "patched")
    if parent.patch_of:
        raise DataverseError(Code.INVALID_PATCH, f"'{parent_name}' is itself a patch.")
    problem = rules.patch_version_error(db, parent, wanted)
    if problem is not None:
        raise problem
    name = f"{parent.unique_name}_Patch_{uuid.uuid4().hex[:8]}"
    at = now()
    row = db.execute(
        "SELECT p.id, p.prefix, p.option_value_prefix FROM solution s JOIN publisher p ON p.id = s.publisher"
        " WHERE s.id = ?",
        (parent.id,),
    ).fetchone()
    position = layers.position_above(db, parent.id)
    id_ = layers.add_solution(db, name, str(wanted), row[0], position, at, managed=False, patch_of=parent.id)
    package = write(
        Manifest(
            unique_name=name,
            display_name=display_name or name,
            description="",
            version=wanted,
            managed=False,
            publisher=Publisher(parent.publisher, parent.publisher_name, row[1], row[2]),
            parent_solution=parent.unique_name,
            parent_version=Version.parse(parent.version),
            platform_version="9.2",
        )
    )
    db.execute(
        "UPDATE solution SET display_name = ?, package = ? WHERE id = ?",
        (display_name or name, layers.keep_package(db, package), id_),
    )
    return id_


def clone_as_solution(db: sqlite3.Connection, parent_name: str, display_name: str, version: str) -> str:
    """Roll the patches of an unmanaged solution up into it, with a higher version; returns its id.

    Raises:
        DataverseError: no such solution, one that cannot be cloned, or no higher major or minor version.

    """
    wanted = _version(version)
    _check_quiet(db, "CloneAsSolution")
    parent = _unmanaged(db, parent_name, Code.INVALID_ARGUMENT, "cloned")
    if parent.patch_of:
        raise DataverseError(Code.INVALID_ARGUMENT, f"'{parent_name}' is a patch; clone its parent.")
    have = Version.parse(parent.version)
    if wanted.parts[:2] <= have.parts[:2]:
        raise DataverseError(
            Code.VERSION_NOT_HIGHER,
            f"The cloned solution needs a higher major or minor version than {have}, not {wanted}.",
        )
    for patch in rules.patches(db, parent):
        # Without a digest: the parent's package does not have them.
        db.execute(
            "INSERT INTO membership (solution, component, sha256, behavior)"
            " SELECT ?, component, x'', behavior FROM membership WHERE solution = ?"
            " ON CONFLICT (solution, component) DO UPDATE SET sha256 = x''",
            (parent.id, patch.id),
        )
        layers.drop_solution(db, patch.id)
    db.execute(
        "UPDATE solution SET version = ?, display_name = ?, updated_on = ? WHERE id = ?",
        (str(wanted), display_name or parent.display_name, now(), parent.id),
    )
    layers.forget_packages(db)
    return parent.id


def check_unlocked(db: sqlite3.Connection, there: Installed, code: Code, verb: str) -> None:
    """Refuse what a solution with patches does not allow.

    Raises:
        DataverseError: it has patches.

    """
    patches = rules.patches(db, there)
    if patches and not there.managed:
        names = ", ".join(f"'{patch.unique_name}'" for patch in patches)
        raise DataverseError(
            code,
            f"The solution '{there.unique_name}' cannot be {verb} while it has the patches {names}: clone it "
            "as a solution, or delete them.",
        )


def changed_since_package(db: sqlite3.Connection, solution: str) -> str | None:
    """A member of an unmanaged solution of which the makers' layer says something else than its package."""
    row = db.execute(
        "SELECT c.kind, c.key FROM membership m JOIN component c ON c.id = m.component LEFT JOIN layer l"
        " ON l.component = m.component AND l.solution = ? AND l.published = (SELECT min(published) FROM layer"
        " x WHERE x.component = m.component AND x.solution = l.solution) WHERE m.solution = ? AND"
        " (l.sha256 IS NULL OR l.sha256 <> m.sha256) LIMIT 1",
        (layers.active_id(db), solution),
    ).fetchone()
    return f"{row[0]} '{row[1]}'" if row else None


def _version(text: str) -> Version:
    try:
        return Version.parse(text)
    except ValueError as error:
        raise DataverseError(Code.INVALID_ARGUMENT, f"{error}.") from None


def _unmanaged(db: sqlite3.Connection, name: str, code: Code, verb: str) -> Installed:
    there = find_solution(db, name)
    if there.managed or there.platform:
        raise DataverseError(code, f"'{there.unique_name}' cannot be {verb}: it is managed.")
    return there


def _open_solution(db: sqlite3.Connection, name: str, code: Code, verb: str) -> Installed:
    there = _unmanaged(db, name, code, verb)
    check_unlocked(db, there, code, verb)
    return there


def _check_quiet(db: sqlite3.Connection, message: str) -> None:
    running = db.execute("SELECT name FROM operation WHERE turn = 1").fetchone()
    if running:
        raise DataverseError(
            Code.OPERATION_RUNNING,
            f"Cannot start another [{message}] because there is a previous [{running[0]}] running at this "
            "moment. Use Solution History for more details.",
            status=429,
            retry_after=2,
        )


# -- components ----------------------------------------------------------------------------------------------


def change(db: sqlite3.Connection, table: str, row: str, changes: Mapping[str, Any]) -> None:
    """PATCH a row of one of the tables that makers change.

    Args:
        db: the environment.
        table: its entity set name.
        row: the id.
        changes: column to value.

    Raises:
        DataverseError: no such row or column, a value that does not fit, or a flow that cannot be turned on.

    """
    if table == "environmentvariablevalues":
        _take(table, changes, {"value": str})
        _change_value(db, row, changes)
        return
    kind, known, apply = _CHANGES[table]
    _take(table, changes, known)
    component, key = _component(db, kind, row)
    apply(db, component, key, changes)


def _change_flow(
    db: sqlite3.Connection, component: int, key: ComponentKey, changes: Mapping[str, Any]
) -> None:
    facts: dict[str, object] = {}
    needs = None
    if changes.get("description") is not None:
        facts["description"] = changes["description"]
    if "clientdata" in changes:
        try:
            references, connectors, variables = flow_needs(json.loads(changes["clientdata"]))
        except (ValueError, RecursionError) as error:
            raise DataverseError(
                Code.FLOW_DEFINITION, f'Flow clientdata is in invalid format. Details: "{error}".'
            ) from None
        facts |= {"references": references, "connectors": connectors, "clientdata": changes["clientdata"]}
        needs = [
            (ComponentKey(kind, name.lower()), name)
            for kind, names in (
                ("connectionreference", references),
                ("environmentvariabledefinition", variables),
                ("connector", connectors),
            )
            for name in names
        ]
    if facts or "name" in changes:
        layers.customize(db, component, key, name=changes.get("name"), facts=facts, needs=needs)
    if "statecode" in changes:
        _switch(db, component, changes["statecode"], changes.get("statuscode"))


def _switch(db: sqlite3.Connection, component: int, state: int, status: int | None) -> None:
    if (state, status) not in {(0, None), (0, 1), (1, None), (1, 2)}:
        raise DataverseError(
            Code.INVALID_ARGUMENT,
            f"{status} is not a valid status code for state code {state} of a workflow.",
        )
    if state:
        facts = layers.top(db, component).facts
        if facts.get("connectors"):
            raise not_modelled("Turning on a flow whose connections have no connection references")
        missing = layers.unbound(db, facts.get("references", ()))
        if missing and str(facts.get("category")) == CLOUD_FLOW:
            raise DataverseError(
                Code.FLOW_CLIENT,
                'Flow client error returned with status code "BadRequest" and details '
                '"{"error":{"code":"XrmConnectionReferenceMissingConnection","message":"Connection Id '
                f"missing for connection reference logical name '{missing[0]}'.\"}}}}\".",
            )
    db.execute(
        'INSERT INTO switch VALUES (?, ?) ON CONFLICT (component) DO UPDATE SET "on" = excluded."on"',
        (component, bool(state)),
    )


def _change_reference(
    db: sqlite3.Connection, component: int, key: ComponentKey, changes: Mapping[str, Any]
) -> None:
    old = layers.top(db, component)
    connection = changes.get("connectionid")
    if connection:
        parameters.check_connection(db, old.schema_name, str(old.facts.get("connector_id") or ""), connection)
        layers.bind(db, {old.schema_name: (connection, "")})
    elif "connectionid" in changes:
        db.execute("DELETE FROM binding WHERE logical_name = ?", (old.schema_name,))
    name, description = changes.get("connectionreferencedisplayname"), changes.get("description")
    if name is not None or description is not None:
        facts = {} if description is None else {"description": description}
        layers.customize(db, component, key, name=name, facts=facts)


def _change_definition(
    db: sqlite3.Connection, component: int, key: ComponentKey, changes: Mapping[str, Any]
) -> None:
    facts = {
        fact: changes[column]
        for column, fact in (("defaultvalue", "default"), ("description", "description"))
        if column in changes
    }
    default = facts.get("default")
    if default:
        old = layers.top(db, component)
        parameters.check_value(old.schema_name, VariableType(old.facts["type"]), default)
    layers.customize(db, component, key, name=changes.get("displayname"), facts=facts)


_Apply = Callable[[sqlite3.Connection, int, ComponentKey, Mapping[str, Any]], None]
_CHANGES: Final[Mapping[str, tuple[str, Mapping[str, type], _Apply]]] = {
    "workflows": (
        "workflow",
        {"statecode": int, "statuscode": int, "name": str, "description": str, "clientdata": str},
        _change_flow,
    ),
    "connectionreferences": (
        "connectionreference",
        {"connectionid": str, "connectionreferencedisplayname": str, "description": str},
        _change_reference,
    ),
    "environmentvariabledefinitions": (
        "environmentvariabledefinition",
        {"defaultvalue": str, "displayname": str, "description": str},
        _change_definition,
    ),
}

CHANGED_TABLES: Final = frozenset({*_CHANGES, "environmentvariablevalues"})
"""Entity sets whose rows makers change."""


def _take(table: str, changes: Mapping[str, Any], known: Mapping[str, type]) -> None:
    if not changes:
        raise DataverseError(Code.INVALID_ARGUMENT, f"A PATCH of {table} needs at least one column.")
    nullable = {"connectionid", "defaultvalue"}
    for name, value in changes.items():
        if name not in known:
            raise not_modelled(f"A change of the column '{name}' of {table}")
        if type(value) is not known[name] and not (value is None and name in nullable):
            raise DataverseError(
                Code.INVALID_ARGUMENT, f"{value!r} is no value of the column '{name}' of {table}."
            )


def customize(db: sqlite3.Connection, kind: str, object_id: str, name: str) -> None:
    """Change any component: its display name, in the makers' layer. No part of the real Web API.

    Raises:
        DataverseError: there is no such component.

    """
    component, key = _component(db, kind.lower(), object_id)
    layers.customize(db, component, key, name=name)


def remove_customizations(db: sqlite3.Connection, kind: str, object_id: str) -> None:
    """Take the makers' layer of a component away.

    Raises:
        DataverseError: there is no such component, or nothing would be left of it.

    """
    component, _ = _component(db, kind.lower(), object_id)
    active = layers.active_id(db)
    if not db.execute(
        "SELECT 1 FROM layer WHERE component = ? AND solution <> ?", (component, active)
    ).fetchone():
        raise DataverseError(
            Code.INVALID_ARGUMENT,
            f"The {kind} {object_id} has no managed layer: without its customizations nothing would be left.",
        )
    layers.drop_active(db, [component])


def _component(db: sqlite3.Connection, kind: str, object_id: str) -> tuple[int, ComponentKey]:
    row = db.execute(
        "SELECT id, kind, key FROM component WHERE kind = ? AND object_id = ?", (kind, object_id.lower())
    ).fetchone()
    if row is None:
        raise DataverseError(Code.NOT_FOUND, f"{kind} With Id = {object_id} Does Not Exist", status=404)
    return row[0], ComponentKey(row[1], row[2])


def named_in(db: sqlite3.Connection, xml: str) -> set[int]:
    """The components that the ParameterXml of PublishXml names; a table stands for all that belongs to it.

    Raises:
        DataverseError: it cannot be read, or names something that is not there or not modelled.

    """
    try:
        root = etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
    except etree.XMLSyntaxError as error:
        raise DataverseError(Code.INVALID_XML, f"ParameterXml cannot be read: {error}.") from None
    if root.tag != "importexportxml":
        raise DataverseError(Code.INVALID_XML, "The root of ParameterXml is 'importexportxml'.")
    found: set[int] = set()
    for element in root.iter():
        if element is root or len(element) or not (element.text or "").strip():
            continue
        kind = _PUBLISHED.get(str(element.tag))
        if kind is None:
            raise not_modelled(f"<{element.tag}> in ParameterXml")
        name = (element.text or "").strip().strip("{}").lower()
        rows = db.execute(
            "WITH RECURSIVE part (id, kind, key) AS (SELECT id, kind, key FROM component WHERE kind = ? AND"
            " (key = ? OR object_id = ?) UNION SELECT c.id, c.kind, c.key FROM component c JOIN part p ON"
            " c.parent_kind = p.kind AND c.parent_key = p.key) SELECT id FROM part",
            (kind, name, name),
        ).fetchall()
        if not rows:
            raise DataverseError(
                Code.NOT_FOUND, f"The {kind} '{name}' of ParameterXml is not here.", status=404
            )
        found.update(id_ for (id_,) in rows)
    return found


# -- variables ---------------------------------------------------------------------------------------------


def create_definition(db: sqlite3.Connection, changes: Mapping[str, Any]) -> str:
    """Make an environment variable, in no solution; returns the id of its definition.

    Raises:
        DataverseError: a column that is not modelled, no usable schema name, or one that is taken.

    """
    table = "environmentvariabledefinitions"
    _take(table, changes, {**_CHANGES[table][1], "schemaname": str, "type": int, "isrequired": bool})
    name, kind = changes.get("schemaname", ""), changes.get("type", int(VariableType.STRING))
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]{1,7}_[A-Za-z0-9_]{1,90}", name):
        raise DataverseError(
            Code.INVALID_ARGUMENT, f"'{name}' is no schema name: a prefix of 2 to 8 characters, '_', a name."
        )
    if kind not in set(VariableType):
        raise DataverseError(Code.INVALID_ARGUMENT, f"{kind} is no type of an environment variable.")
    if default := changes.get("defaultvalue"):
        parameters.check_value(name, VariableType(kind), default)
    key = ComponentKey("environmentvariabledefinition", name.lower())
    if db.execute("SELECT 1 FROM component WHERE kind = ? AND key = ?", key).fetchone():
        raise DataverseError(
            Code.DUPLICATE_RECORD,
            f"An environment variable definition with the schema name '{name}' exists already.",
            status=412,
        )
    facts = {
        "type": kind,
        "default": changes.get("defaultvalue"),
        "required": changes.get("isrequired", False),
        "description": changes.get("description", ""),
    }
    return layers.create(db, key, changes.get("displayname", name), name, facts)


def delete_definition(db: sqlite3.Connection, row: str) -> None:
    """Delete an environment variable that makers made, with its value.

    Raises:
        DataverseError: there is none, or it came with a solution.

    """
    component, _ = _component(db, "environmentvariabledefinition", row)
    held = (
        "SELECT 1 FROM layer WHERE component = ? AND solution <> ?"
        " UNION SELECT 1 FROM membership WHERE component = ?"
    )
    if db.execute(held, (component, layers.active_id(db), component)).fetchone():
        raise not_modelled("DELETE of an environment variable that is in a solution")
    layers.drop_active(db, [component])


# -- values and connections ----------------------------------------------------------------------------------


def create_value(db: sqlite3.Connection, changes: Mapping[str, Any]) -> str:
    """Give a variable that has no value one; returns the id of the value's row.

    Args:
        db: the environment.
        changes: ``value``, and the definition as ``EnvironmentVariableDefinitionId@odata.bind``.

    Raises:
        DataverseError: no such definition, a value that does not fit, or one that is there already.

    """
    bind = "EnvironmentVariableDefinitionId@odata.bind"
    _take("environmentvariablevalues", changes, {"value": str, bind: str, "schemaname": str})
    found = re.fullmatch(r"/?environmentvariabledefinitions\((.+)\)", changes.get(bind, ""))
    if found is None or not GUID.fullmatch(found[1]) or "value" not in changes:
        raise DataverseError(
            Code.INVALID_ARGUMENT,
            f"A value needs 'value' and '{bind}': '/environmentvariabledefinitions(id)'.",
        )
    component, _ = _component(db, "environmentvariabledefinition", found[1])
    definition = layers.top(db, component)
    name = definition.schema_name
    parameters.check_value(name, VariableType(definition.facts["type"]), changes["value"])
    if db.execute("SELECT 1 FROM variable_value WHERE schema_name = ?", (name,)).fetchone():
        raise parameters.second_value(name)
    id_, at = str(uuid.uuid4()), now()
    db.execute(
        "INSERT INTO variable_value VALUES (?, ?, ?, ?, ?, ?)", (id_, name, changes["value"], True, at, at)
    )
    return id_


def _change_value(db: sqlite3.Connection, row: str, changes: Mapping[str, Any]) -> None:
    name = _value_name(db, row)
    component = db.execute(
        "SELECT id FROM component WHERE kind = 'environmentvariabledefinition' AND key = ?", (name.lower(),)
    ).fetchone()
    kind = VariableType(layers.top(db, component[0]).facts["type"])
    parameters.check_value(name, kind, changes["value"])
    db.execute(
        "UPDATE variable_value SET value = ?, customer = 1, modified_on = ? WHERE id = ?",
        (changes["value"], now(), row),
    )


def delete_value(db: sqlite3.Connection, row: str) -> None:
    """Take a customer's value of a variable away; a packaged one counts again.

    Raises:
        DataverseError: no such value, or one that only a package gave.

    """
    name = _value_name(db, row)
    if not db.execute("SELECT customer FROM variable_value WHERE id = ?", (row,)).fetchone()[0]:
        raise DataverseError(
            Code.INVALID_ARGUMENT,
            f"The value of '{name}' came with a managed solution; it cannot be deleted.",
        )
    db.execute("UPDATE variable_value SET customer = 0 WHERE id = ?", (row,))
    layers.sweep(db)


def _value_name(db: sqlite3.Connection, row: str) -> str:
    found = db.execute("SELECT schema_name FROM variable_value WHERE id = ?", (row,)).fetchone()
    if found is None:
        raise DataverseError(
            Code.NOT_FOUND, f"environmentvariablevalue With Id = {row} Does Not Exist", status=404
        )
    return str(found[0])


def create_connection(
    db: sqlite3.Connection, name: str, connector_id: str, display_name: str
) -> tuple[str, ...]:
    """Add a connection.

    Returns:
        id, display name, connector id, status, time of creation.

    Raises:
        DataverseError: the name is taken or not usable in an address, or the connector id is not one.

    """
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name):
        raise DataverseError(
            Code.INVALID_ARGUMENT,
            f"The connection name '{name}' is not usable; letters, digits, '.', '_', '-'.",
        )
    if not re.fullmatch(r"/providers/Microsoft\.PowerApps/apis/[A-Za-z0-9_.-]+", connector_id, re.IGNORECASE):
        raise DataverseError(
            Code.INVALID_ARGUMENT,
            f"The connector id '{connector_id}' is not of the form /providers/Microsoft.PowerApps/apis/NAME.",
        )
    row = (name, display_name or name, connector_id, "Connected", now())
    try:
        db.execute("INSERT INTO connection VALUES (?, ?, ?, ?, ?)", row)
    except sqlite3.IntegrityError:
        raise DataverseError(
            Code.DUPLICATE_RECORD, f"There is a connection '{name}' already.", status=409
        ) from None
    return row


def delete_connection(db: sqlite3.Connection, name: str) -> None:
    """Remove a connection; references that were bound to it stay bound to nothing that works.

    Raises:
        DataverseError: there is none of that name.

    """
    if not db.execute("DELETE FROM connection WHERE id = ?", (name,)).rowcount:
        raise DataverseError(Code.NOT_FOUND, f"There is no connection '{name}'.", status=404)
