"""Deployment settings: merged from five sources, checked before anything is imported."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelinehost.v1.resources_pb2 import (
    DeploymentSettings,
    Finding,
    Setting,
    SettingSource,
)
from pipelinehost_dataverse.solution import (
    ConnectionReference,
    EnvironmentVariable,
    Solution,
    VariableType,
)
from pipelinehost_dataverse.webapi import (
    Connection,
    ConnectionParameter,
    ConnectionReferenceState,
    EnvironmentVariableState,
    VariableParameter,
)
from pipelinehost_server.deployment.findings import finding, subject

_SOURCES = {
    SettingSource.SETTING_SOURCE_DEFAULT: "the default value",
    SettingSource.SETTING_SOURCE_PACKAGED: "the packaged value",
    SettingSource.SETTING_SOURCE_TARGET: "the environment's current value",
    SettingSource.SETTING_SOURCE_STAGE: "the stage",
    SettingSource.SETTING_SOURCE_RUN: "the run",
}
_SENT = frozenset({SettingSource.SETTING_SOURCE_STAGE, SettingSource.SETTING_SOURCE_RUN})
_KEY_VAULT = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.KeyVault/vaults/[^/]+/secrets/[^/]+",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class TargetValues:
    """What the target holds now of what the solution takes; all empty where there is no target yet."""

    variables: Sequence[EnvironmentVariableState] = ()
    references: Sequence[ConnectionReferenceState] = ()
    connections: Sequence[Connection] | None = None
    """None: connections cannot be listed there."""
    environment: str = "the target"
    """What people call the target."""


@dataclass(slots=True)
class Merged:
    """The effective settings of one deployment."""

    settings: list[Setting] = field(default_factory=list)
    """Every place for a value, with value and source; values of secrets are left out."""
    parameters: list[ConnectionParameter | VariableParameter] = field(default_factory=list)
    """What the import is given: values of the stage and of the run only."""
    findings: list[Finding] = field(default_factory=list)
    """In the order of validation: connection references, then environment variables."""

    values: list[str] = field(default_factory=list, repr=False)
    """Beside ``settings``: the effective values, also of secrets. Never logged, never stored in the clear."""

    def stored(self, fingerprint: Callable[[str], str]) -> list[Setting]:
        """The settings as they may be stored and shown: a keyed fingerprint in place of each value."""
        kept = []
        for setting, value in zip(self.settings, self.values, strict=True):
            shown = Setting()
            shown.CopyFrom(setting)
            shown.ClearField("value")
            del shown.candidate_connections[:]
            if setting.source:
                shown.sha256 = fingerprint(f"{setting.name}\0{value}")
            kept.append(shown)
        return kept

    def sha256(self, fingerprint: Callable[[str], str]) -> str:
        """One keyed fingerprint over all effective settings, whatever their order."""
        lines = sorted(
            f"{s.kind}\0{s.name.casefold()}\0{s.source}\0{v}"
            for s, v in zip(self.settings, self.values, strict=True)
        )
        return fingerprint("\n".join(lines))


def merge(
    solution: Solution, target: TargetValues, stage: DeploymentSettings, run: DeploymentSettings
) -> Merged:
    """Merge values in the order default, packaged, target, stage, run (later wins), and check each.

    A value of the run that nothing consumes is a finding with its JSON path. One of the stage is not: a stage
    serves several solutions.
    """
    merged = Merged()
    merged.findings.extend(_unused(solution, run))
    stage_connections = {s.logical_name.casefold(): s.connection_id for s in stage.connection_references}
    run_connections = {s.logical_name.casefold(): s.connection_id for s in run.connection_references}
    bound = {r.logical_name.casefold(): r for r in target.references}
    for reference in solution.connection_references:
        _connection(merged, reference, target, bound, stage_connections, run_connections)
    stage_values = {s.schema_name.casefold(): s.value for s in stage.environment_variables}
    run_values = {s.schema_name.casefold(): s.value for s in run.environment_variables}
    held = {v.schema_name.casefold(): v for v in target.variables}
    for variable in solution.environment_variables:
        _variable(merged, variable, target, held, stage_values, run_values)
    return merged


def _connection(
    merged: Merged,
    reference: ConnectionReference,
    target: TargetValues,
    bound: Mapping[str, ConnectionReferenceState],
    stage: Mapping[str, str],
    run: Mapping[str, str],
) -> None:
    key = reference.logical_name.casefold()
    current = bound.get(key)
    value, source = _last(
        (current.connection_id if current else None, SettingSource.SETTING_SOURCE_TARGET),
        (stage.get(key), SettingSource.SETTING_SOURCE_STAGE),
        (run.get(key), SettingSource.SETTING_SOURCE_RUN),
        empty_is_none=True,
    )
    fitting = [
        c.id for c in target.connections or () if _same_connector(c.connector_id, reference.connector_id)
    ]
    merged.settings.append(
        Setting(
            name=reference.logical_name,
            kind=Setting.KIND_CONNECTION_REFERENCE,
            display_name=reference.display_name,
            required=True,
            value=value or "",
            source=source,
            connector_id=reference.connector_id,
            candidate_connections=fitting,
        )
    )
    merged.values.append(value or "")
    about = subject("connectionreference", reference.logical_name, reference.display_name)
    facts: dict[str, Any] = {
        "name": reference.logical_name,
        "connector": _short(reference.connector_id),
        "connection": value,
        "environment": target.environment,
        "source": _SOURCES.get(source, ""),
        "candidates": f" (there are: {', '.join(fitting[:5])})" if fitting else "",
    }
    if value is None:
        merged.findings.append(finding("CONNECTION_MISSING", about, **facts))
        return
    if source in _SENT:
        merged.parameters.append(
            ConnectionParameter(
                logical_name=reference.logical_name,
                connection_id=value,
                connector_id=reference.connector_id,
                display_name=reference.display_name,
                description=reference.description,
            )
        )
    if target.connections is None:
        if source in _SENT:
            merged.findings.append(finding("CONNECTION_UNCHECKED", about, **facts))
        return
    connection = next((c for c in target.connections if c.id.casefold() == value.casefold()), None)
    if connection is None:
        merged.findings.append(finding("CONNECTION_NOT_FOUND", about, **facts))
    elif not _same_connector(connection.connector_id, reference.connector_id):
        merged.findings.append(
            finding("CONNECTOR_MISMATCH", about, found=_short(connection.connector_id), **facts)
        )
    elif connection.status.casefold() not in ("connected", ""):
        merged.findings.append(finding("CONNECTION_BROKEN", about, status=connection.status, **facts))


def _variable(
    merged: Merged,
    variable: EnvironmentVariable,
    target: TargetValues,
    held: Mapping[str, EnvironmentVariableState],
    stage: Mapping[str, str],
    run: Mapping[str, str],
) -> None:
    key = variable.schema_name.casefold()
    current = held.get(key)
    value, source = _last(
        (variable.default, SettingSource.SETTING_SOURCE_DEFAULT),
        (variable.packaged_value, SettingSource.SETTING_SOURCE_PACKAGED),
        (current.value if current else None, SettingSource.SETTING_SOURCE_TARGET),
        (stage.get(key), SettingSource.SETTING_SOURCE_STAGE),
        (run.get(key), SettingSource.SETTING_SOURCE_RUN),
    )
    secret = variable.type is VariableType.SECRET
    merged.settings.append(
        Setting(
            name=variable.schema_name,
            kind=Setting.KIND_ENVIRONMENT_VARIABLE,
            display_name=variable.display_name,
            type=type_name(variable.type),
            required=variable.required,
            value="" if secret or value is None else value,
            source=source,
        )
    )
    merged.values.append(value or "")
    about = subject("environmentvariabledefinition", variable.schema_name, variable.display_name)
    facts: dict[str, Any] = {"name": variable.schema_name, "environment": target.environment}
    if value is None or (variable.required and value == ""):
        code = "VARIABLE_MISSING" if variable.required else "VARIABLE_WITHOUT_VALUE"
        merged.findings.append(finding(code, about, **facts))
        return
    if source in _SENT:
        value_id = current.value_id if current and current.value_id else variable.packaged_value_id
        merged.parameters.append(VariableParameter(variable.schema_name, value, value_id))
        if problem := check_value(variable.type, value):
            merged.findings.append(
                finding(
                    "VARIABLE_TYPE",
                    about,
                    name=variable.schema_name,
                    source=_SOURCES[source],
                    type=type_name(variable.type),
                    problem=problem,
                    expected=_EXPECTED[variable.type],
                )
            )
    elif source == SettingSource.SETTING_SOURCE_PACKAGED:
        merged.findings.append(finding("VARIABLE_PACKAGED", about, **facts))


def _unused(solution: Solution, run: DeploymentSettings) -> Iterator[Finding]:
    """Settings of the run that no part of the solution takes, in the order of the file's two lists."""
    groups = (
        (
            "EnvironmentVariables",
            "environment variable",
            [s.schema_name for s in run.environment_variables],
            [v.schema_name for v in solution.environment_variables],
        ),
        (
            "ConnectionReferences",
            "connection reference",
            [s.logical_name for s in run.connection_references],
            [r.logical_name for r in solution.connection_references],
        ),
    )
    for section, what, given, known in groups:
        names = {k.casefold(): k for k in known}
        for index, name in enumerate(given):
            if name.casefold() in names:
                continue
            similar = difflib.get_close_matches(name.casefold(), names, n=1)
            yield finding(
                "SETTING_UNUSED",
                subject("setting", f"$.{section}[{index}]", name),
                path=f"$.{section}[{index}]",
                what=what,
                name=name,
                similar=f" (is it {names[similar[0]]}?)" if similar else "",
            )


def check_value(kind: VariableType, value: str) -> str:
    """What is wrong with a value of that type, in words without the value; empty where nothing is."""
    if check := _CHECKS.get(kind):
        return check(value)
    return ""


def type_name(kind: VariableType) -> str:
    """The type as people read it: ``data source``."""
    return kind.name.replace("_", " ").lower()


def _number(value: str) -> str:
    return (
        "" if re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", value.strip()) else "it is not numeric"
    )


def _boolean(value: str) -> str:
    return "" if value.strip().casefold() in ("yes", "no", "true", "false") else "it is neither yes nor no"


def _json(value: str) -> str:
    try:
        json.loads(value)
    except (ValueError, RecursionError) as error:
        where = (
            f" at line {error.lineno}, column {error.colno}"
            if isinstance(error, json.JSONDecodeError)
            else ""
        )
        return f"it cannot be read as JSON{where}"
    return ""


def _secret(value: str) -> str:
    return "" if _KEY_VAULT.fullmatch(value.strip()) else "it is not the resource id of a Key Vault secret"


_CHECKS: Mapping[VariableType, Callable[[str], str]] = {
    VariableType.NUMBER: _number,
    VariableType.BOOLEAN: _boolean,
    VariableType.JSON: _json,
    VariableType.SECRET: _secret,
}
_EXPECTED: Mapping[VariableType, str] = {
    VariableType.NUMBER: "a number such as 12 or 0.5",
    VariableType.BOOLEAN: "yes or no",
    VariableType.JSON: "well-formed JSON",
    VariableType.SECRET: "/subscriptions/ID/resourceGroups/GROUP/providers/Microsoft.KeyVault/vaults/VAULT/"
    "secrets/NAME",
}


def _last(
    *candidates: tuple[str | None, SettingSource], empty_is_none: bool = False
) -> tuple[str | None, SettingSource]:
    for value, source in reversed(candidates):
        if value is not None and not (empty_is_none and value == ""):
            return value, source
    return None, SettingSource.SETTING_SOURCE_UNSPECIFIED


def _same_connector(one: str, other: str) -> bool:
    """Connector ids are compared by their last part and without letter case, as Dataverse does."""
    return _compared(one) == _compared(other)


@functools.lru_cache(maxsize=1024)  # every reference is compared with every connection
def _compared(connector_id: str) -> str:
    return _short(connector_id).casefold()


def _short(connector_id: str) -> str:
    return connector_id.rstrip("/").rpartition("/")[2]
