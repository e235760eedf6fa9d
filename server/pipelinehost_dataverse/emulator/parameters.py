"""What an import is asked to do beside its package, read and held against package and environment."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pipelinehost_dataverse.emulator.errors import Code, DataverseError, not_modelled
from pipelinehost_dataverse.emulator.odata import GUID
from pipelinehost_dataverse.solution.model import ComponentKey, Solution, VariableType

_TYPE = "@odata.type"
_FLAGS = (
    "OverwriteUnmanagedCustomizations",
    "PublishWorkflows",
    "SkipProductUpdateDependencies",
    "HoldingSolution",
    "ConvertToManaged",
)
_KNOWN = frozenset({*_FLAGS, "ImportJobId", "SolutionParameters", "ComponentParameters", "CustomizationFile"})


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What an import was asked to do, read and checked from the request's body."""

    upload: str | None = None
    job: str | None = None
    overwrite: bool = False
    publish: bool = False
    hold: bool = False
    """Whether the package becomes ``{name}_Upgrade`` beside what is installed."""
    upgrade: bool = False
    """Whether it takes the place of what is installed, at once."""
    values: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    """Schema name as given -> value, and the id of its row where one was named."""
    connections: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Logical name as given -> connection id, connector id."""

    @classmethod
    def of(cls, body: Mapping[str, Any], message: str) -> Self:
        """Read the body of one of the import messages, without its package.

        Raises:
            DataverseError: a parameter that is not known, of the wrong type, or not modelled.

        """
        upgrade = message.startswith("StageAndUpgrade")
        for name in sorted(body.keys() - _KNOWN):
            raise DataverseError(
                Code.INVALID_REQUEST,
                f"The parameter '{name}' in the request payload is not a valid parameter.",
            )
        flags = {}
        for name in _FLAGS:
            value = body.get(name, False)
            if not isinstance(value, bool):
                raise DataverseError(Code.INVALID_REQUEST, f"The parameter '{name}' is not true or false.")
            flags[name] = value
        for name in ("SkipProductUpdateDependencies", "ConvertToManaged"):
            if flags[name]:
                raise not_modelled(name)
        if upgrade and flags["HoldingSolution"]:
            raise DataverseError(
                Code.INVALID_REQUEST, f"The parameter 'HoldingSolution' is not a parameter of {message}."
            )
        upload = (body.get("SolutionParameters") or {}).get("StageSolutionUploadId")
        for name, value in (("StageSolutionUploadId", upload), ("ImportJobId", body.get("ImportJobId"))):
            if value is not None and not (isinstance(value, str) and GUID.fullmatch(value)):
                raise DataverseError(Code.INVALID_ARGUMENT, f"{name} '{value}' is not a GUID.")
        values: dict[str, tuple[str, str | None]] = {}
        connections: dict[str, tuple[str, str]] = {}
        for parameter in body.get("ComponentParameters") or ():
            _component_parameter(parameter, values, connections)
        job = body.get("ImportJobId")
        return cls(
            upload=upload.lower() if upload else None,
            job=job.lower() if job else None,
            overwrite=flags["OverwriteUnmanagedCustomizations"],
            publish=flags["PublishWorkflows"],
            hold=flags["HoldingSolution"],
            upgrade=upgrade,
            values=values,
            connections=connections,
        )


def _component_parameter(
    parameter: object, values: dict[str, tuple[str, str | None]], connections: dict[str, tuple[str, str]]
) -> None:
    kind = parameter.get(_TYPE) if isinstance(parameter, dict) else None
    if not isinstance(parameter, dict) or not isinstance(kind, str):
        raise DataverseError(Code.INVALID_REQUEST, f"Each of ComponentParameters needs an '{_TYPE}'.")
    table = kind.rpartition(".")[2].lower()

    def text(name: str) -> str:
        value = parameter.get(name)
        if not isinstance(value, str):
            raise DataverseError(Code.INVALID_REQUEST, f"A component parameter of {table} needs '{name}'.")
        return value

    if table == "environmentvariablevalue":
        row = parameter.get("environmentvariablevalueid") or None
        if row is not None and not (isinstance(row, str) and GUID.fullmatch(row)):
            raise DataverseError(Code.INVALID_ARGUMENT, f"environmentvariablevalueid '{row}' is not a GUID.")
        values[text("schemaname")] = (text("value"), row.lower() if row else None)
    elif table == "connectionreference":
        name = text("connectionreferencelogicalname")
        connections[name] = (text("connectionid"), str(parameter.get("connectorid") or ""))
    else:
        raise not_modelled(f"A component parameter of type '{kind}'")


def check_parameters(
    db: sqlite3.Connection, solution: Solution, request: ImportRequest, blamed: list[ComponentKey]
) -> None:
    """Hold the component parameters against package and environment.

    Args:
        db: the environment.
        solution: what the package tells.
        request: what was asked.
        blamed: gets the component that an error is about.

    Raises:
        DataverseError: a name that the package does not define (its letter case counts), a value of the wrong
            type, a value row that was not named, a connection that is not there or of another connector.

    """
    variables = {variable.schema_name: variable for variable in solution.environment_variables}
    for name, (value, row) in request.values.items():
        blamed[:] = [ComponentKey("environmentvariabledefinition", name.lower())]
        if name not in variables:
            raise _not_in_package("environmentvariabledefinition", name, variables)
        check_value(name, variables[name].type, value)
        there = db.execute("SELECT id FROM variable_value WHERE schema_name = ?", (name,)).fetchone()
        if there and there[0] != row:
            raise second_value(name)
    references = {reference.logical_name: reference for reference in solution.connection_references}
    for name, (connection, connector) in request.connections.items():
        blamed[:] = [ComponentKey("connectionreference", name.lower())]
        if name not in references:
            raise _not_in_package("connectionreference", name, references)
        check_connection(db, name, references[name].connector_id, connection, connector)
    blamed.clear()


def check_value(name: str, kind: VariableType, value: str) -> None:
    """Refuse a value that is none of the variable's type.

    Raises:
        DataverseError: it is not.

    """
    fits = True
    if kind is VariableType.BOOLEAN:
        fits = value.lower() in ("yes", "no", "true", "false")
    try:
        if kind is VariableType.NUMBER:
            float(value)
        elif kind is VariableType.JSON:
            json.loads(value)
    except (ValueError, RecursionError):
        fits = False
    if not fits:
        raise DataverseError(
            Code.INVALID_ARGUMENT,
            f"The value of the environment variable '{name}' is not valid for its type {kind.name}.",
        )


def check_connection(
    db: sqlite3.Connection, name: str, wanted: str, connection: str, connector: str = ""
) -> None:
    """Refuse a connection that is not there, or that is of another connector than the reference ``name``.

    Raises:
        DataverseError: it is not there, or does not fit.

    """
    found = db.execute("SELECT connector_id FROM connection WHERE id = ?", (connection,)).fetchone()
    if found is None:
        raise DataverseError(
            Code.IMPORT_FAILED,
            f"The connection '{connection}' of connection reference '{name}' does not exist.",
        )
    for given in (connector, found[0]):
        if given and given.lower() != wanted.lower():
            raise DataverseError(
                Code.IMPORT_FAILED,
                f"The connection '{connection}' is of the connector {given}, but connection reference "
                f"'{name}' needs {wanted}.",
            )


def second_value(name: str) -> DataverseError:
    """The refusal of a second value row for the variable ``name``."""
    return DataverseError(
        Code.DUPLICATE_KEY_VALUE,
        f"A record that has the attribute values Schema Name = {name} already exists. The entity key "
        "ndx_envvarval_schemaname requires that this set of attributes contains unique values. Select unique "
        "values and try again.",
        status=412,
    )


def _not_in_package(table: str, name: str, there: Mapping[str, object]) -> DataverseError:
    near = next((other for other in there if other.lower() == name.lower()), None)
    hint = f" Its letter case differs: '{near}'." if near else ""
    return DataverseError(
        Code.INVALID_ARGUMENT,
        f"A component parameter names the {table} '{name}', which is not in the package.{hint}",
    )
