"""What a solution asks of its target: environment variables, connection references, and what flows need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from lxml import etree

from pipelinehost_dataverse.solution.archive import Archive
from pipelinehost_dataverse.solution.components import Found, Inventory
from pipelinehost_dataverse.solution.errors import PackageError
from pipelinehost_dataverse.solution.model import (
    ConnectionReference,
    EnvironmentVariable,
    Flow,
    Solution,
    VariableType,
)

CLOUD_FLOW: Final = "5"
"""``Category`` of a workflow that is a cloud flow."""

_NIL: Final = "{http://www.w3.org/2001/XMLSchema-instance}nil"
_IN_PARENTHESES: Final = re.compile(r"\(([A-Za-z0-9_]+)\)\s*$")


def environment_variables(inventory: Inventory) -> Iterator[EnvironmentVariable]:
    """The definitions in both formats, with the values that the package carries.

    Raises:
        PackageError: ``customizations.variable`` for a type or number that is none.
    """
    values = {f.key: f.value for f in inventory.found if f.kind == "environmentvariablevalue" and f.value}
    for found in inventory.found:
        if found.kind != "environmentvariabledefinition" or found.element is None:
            continue
        element = found.element
        id_, value = values.get(found.key, (None, None))
        if found.folder:
            parent = element.find("parentdefinitionid/schemaname")
            yield EnvironmentVariable(
                schema_name=found.schema_name,
                display_name=found.name or found.schema_name,
                description=_described(element),
                type=_type(found, _text(element, "type")),
                default=_default(element, "defaultvalue"),
                required=_text(element, "isrequired") == "1",
                packaged_value=value,
                packaged_value_id=id_,
                api_id=_text(element, "apiid") or "",
                parameter_key=_text(element, "parameterkey") or "",
                parent_definition=(parent.text or "").strip() if parent is not None else "",
                secret_store=_number(found, _text(element, "secretstore")),
            )
        else:
            described = element.find("Description/LocalizedNames/LocalizedName")
            yield EnvironmentVariable(
                schema_name=found.schema_name,
                display_name=found.name or found.schema_name,
                description="" if described is None else described.get("description", ""),
                type=_type(found, _text(element, "Type")),
                default=_default(element, "DefaultValue"),
                required=_text(element, "IsRequired") == "1",
                packaged_value=value,
                packaged_value_id=id_,
            )


def connection_references(inventory: Inventory) -> Iterator[ConnectionReference]:
    """The connection references that the package defines."""
    for found in inventory.found:
        if found.kind == "connectionreference" and found.element is not None:
            yield ConnectionReference(
                logical_name=found.schema_name,
                display_name=found.name or found.schema_name,
                description=_text(found.element, "description") or "",
                connector_id=found.facts.get("connectorid", ""),
                custom_connector=found.element.find("customconnectorid") is not None,
            )


def flows(inventory: Inventory, archive: Archive) -> Iterator[tuple[Found, Flow]]:
    """The cloud flows. Their definitions are parsed here.

    Raises:
        PackageError: ``json.malformed``, ``json.size``.
    """
    for found in inventory.found:
        if found.kind != "workflow" or found.facts.get("category") != CLOUD_FLOW:
            continue
        references: dict[str, None] = {}
        connectors: dict[str, None] = {}
        variables: dict[str, None] = {}
        for name in found.files:
            if name.endswith(".json"):
                _needs(archive.json(name), references, connectors, variables)
        yield (
            found,
            Flow(
                id=found.key,
                name=found.name,
                activated=found.facts.get("state") == "1",
                connection_references=tuple(references),
                connectors=tuple(connectors),
                environment_variables=tuple(variables),
            ),
        )


def flow_needs(definition: object) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """What a flow's JSON names: connection references, connectors without one, environment variables."""
    references: dict[str, None] = {}
    connectors: dict[str, None] = {}
    variables: dict[str, None] = {}
    _needs(definition, references, connectors, variables)
    return tuple(references), tuple(connectors), tuple(variables)


def _needs(
    definition: object, references: dict[str, None], connectors: dict[str, None], variables: dict[str, None]
) -> None:
    properties = _dict(_dict(definition).get("properties"))
    for entry in _dict(properties.get("connectionReferences")).values():
        logical_name = _dict(_dict(entry).get("connection")).get("connectionReferenceLogicalName")
        if isinstance(logical_name, str) and logical_name:
            references[logical_name] = None
            continue
        # Flows of 2020 and before name the connector only: in api.name, or as the end of api.id or id.
        api = _dict(_dict(entry).get("api"))
        named = api.get("name") or api.get("id") or _dict(entry).get("id")
        if isinstance(named, str) and named:
            connectors[named.rpartition("/")[2]] = None
    for name, parameter in _dict(_dict(properties.get("definition")).get("parameters")).items():
        schema_name = _dict(_dict(parameter).get("metadata")).get("schemaName")
        if isinstance(schema_name, str) and schema_name:
            variables[schema_name] = None
        elif ended := _IN_PARENTHESES.search(name):
            variables[ended[1]] = None


def settings_template(solution: Solution) -> dict[str, list[dict[str, str]]]:
    """The deployment settings file of a solution, to be filled in.

    Returns:
        The JSON object of ``pac solution create-settings``: ``EnvironmentVariables`` of ``SchemaName`` and
        ``Value``, and ``ConnectionReferences`` of ``LogicalName``, ``ConnectionId`` and ``ConnectorId``;
        every value is a string, those to be supplied are empty.
    """
    return {
        "EnvironmentVariables": [
            {"SchemaName": variable.schema_name, "Value": ""} for variable in solution.environment_variables
        ],
        "ConnectionReferences": [
            {"LogicalName": ref.logical_name, "ConnectionId": "", "ConnectorId": ref.connector_id}
            for ref in solution.connection_references
        ],
    }


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(element: etree._Element, tag: str) -> str | None:
    child = next(element.iterchildren(tag), None)
    return None if child is None else (child.text or "").strip()


def _default(element: etree._Element, tag: str) -> str | None:
    child = next(element.iterchildren(tag), None)
    return None if child is None or child.get(_NIL) == "true" else child.text or None


def _described(element: etree._Element) -> str:
    child = next(element.iterchildren("description"), None)
    return "" if child is None else child.get("default") or (child.text or "").strip()


def _type(found: Found, text: str | None) -> VariableType:
    number = _number(found, text)
    try:
        return VariableType.STRING if number is None else VariableType(number)
    except ValueError as error:
        raise PackageError(
            "customizations.variable",
            f"Environment variable {found.schema_name!r} has the unknown type {text!r}.",
        ) from error


def _number(found: Found, text: str | None) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise PackageError(
            "customizations.variable",
            f"Environment variable {found.schema_name!r} has {text[:100]!r} for a number.",
        )
    return int(text)
