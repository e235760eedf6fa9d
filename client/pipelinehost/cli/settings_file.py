"""Deployment settings as the ecosystem writes them: ``deploymentSettings.json``, read and written as it is.

The format is that of ``pac solution create-settings`` and of the build tools:
``{"EnvironmentVariables": [{"SchemaName", "Value"}], "ConnectionReferences": [{"LogicalName", "ConnectionId",
"ConnectorId"}]}``. Values are always text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelinehost.v1.resources_pb2 import (
    ConnectionReferenceSetting,
    DeploymentSettings,
    EnvironmentVariableSetting,
    Setting,
    SettingSource,
)


class SettingsError(Exception):
    """A settings file is not what it should be: its message names the file, the JSON path and the remedy."""


class _Section(NamedTuple):
    key: str
    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]


_VARIABLES = _Section("EnvironmentVariables", "SchemaName", ("SchemaName", "Value"), ())
_REFERENCES = _Section(
    "ConnectionReferences", "LogicalName", ("LogicalName", "ConnectionId"), ("ConnectorId",)
)
_SHAPE = '{"EnvironmentVariables": […], "ConnectionReferences": […]}'


def read(path: Path) -> DeploymentSettings:
    """Reads a settings file.

    Raises:
        SettingsError: it cannot be read, is no JSON, or has another shape.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # PowerShell writes a byte order mark
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    try:
        root = json.loads(text, object_pairs_hook=_no_repetition)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}.") from error
    except _RepeatedKeyError as error:
        raise SettingsError(f"{path}: the key {error.args[0]!r} stands twice in one object.") from error
    except RecursionError as error:
        raise SettingsError(f"{path} is nested too deeply.") from error
    problems: list[str] = []
    settings = _settings(root, problems)
    if problems:
        raise SettingsError("\n".join(f"{path}: {problem}" for problem in problems))
    return settings


def merge(
    settings: DeploymentSettings, variables: Iterable[str], connections: Iterable[str]
) -> DeploymentSettings:
    """Puts ``NAME=VALUE`` and ``REFERENCE=ID`` of the command line over the settings of a file.

    Raises:
        SettingsError: one of them has no ``=``.
    """
    merged = DeploymentSettings()
    merged.CopyFrom(settings)
    for argument in variables:
        name, value = _pair(argument, "--set", "NAME=VALUE")
        known = [v for v in merged.environment_variables if v.schema_name.lower() == name.lower()]
        target = known[0] if known else merged.environment_variables.add(schema_name=name)
        target.value = value
    for argument in connections:
        name, value = _pair(argument, "--connection", "REFERENCE=ID")
        bound = [r for r in merged.connection_references if r.logical_name.lower() == name.lower()]
        reference = bound[0] if bound else merged.connection_references.add(logical_name=name)
        reference.connection_id = value
    return merged


def template(settings: Sequence[Setting]) -> tuple[str, list[str]]:
    """The file that has to be filled in for a solution.

    Values that are known are in it, secrets never are. A secret that has a value already is left out, since
    an empty text would take its place.

    Returns:
        The file's text, and a remark for each value that is missing or was left out.
    """
    variables: list[dict[str, str]] = []
    references: list[dict[str, str]] = []
    remarks: list[str] = []
    for setting in settings:
        known = setting.source != SettingSource.SETTING_SOURCE_UNSPECIFIED
        if setting.kind == Setting.KIND_CONNECTION_REFERENCE:
            references.append(
                {
                    "LogicalName": setting.name,
                    "ConnectionId": setting.value,
                    "ConnectorId": setting.connector_id,
                }
            )
            if not known:
                fitting = ", ".join(setting.candidate_connections)
                remarks.append(f"{setting.name} needs a connection{f': {fitting}' if fitting else ''}")
        elif setting.type == "secret" and known:
            remarks.append(f"{setting.name} is a secret that has a value; it is left out and stays as it is")
        else:
            variables.append(
                {"SchemaName": setting.name, "Value": "" if setting.type == "secret" else setting.value}
            )
            if not known:
                kind = f" ({setting.type})" if setting.type else ""
                remarks.append(f"{setting.name}{kind} {'needs a' if setting.required else 'has no'} value")
    root = {"EnvironmentVariables": variables, "ConnectionReferences": references}
    return json.dumps(root, ensure_ascii=False, indent=2) + "\n", remarks


class _RepeatedKeyError(Exception):
    pass


def _no_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _RepeatedKeyError(key)
        found[key] = value
    return found


def _pair(argument: str, option: str, form: str) -> tuple[str, str]:
    name, separator, value = argument.partition("=")
    if not separator or not name.strip():
        # It is not repeated: what was meant to be a value may be a secret, and outputs are kept by others.
        raise SettingsError(f"{option} has an argument without a name and =: write it as {option} {form}.")
    return name.strip(), value


def _settings(root: Any, problems: list[str]) -> DeploymentSettings:
    settings = DeploymentSettings()
    if isinstance(root, list):
        problems.append(
            "$ is an array, but the file is one object with two arrays in it. "
            f"Put the entries into {_SHAPE}: those with a SchemaName into the first, "
            "those with a LogicalName into the second."
        )
        return settings
    if not isinstance(root, dict):
        problems.append(f"$ is {_kind(root)}, not an object of the form {_SHAPE}.")
        return settings
    keys = (_VARIABLES.key, _REFERENCES.key)
    problems.extend(f"$.{key} is not known. {_nearest(key, keys)}" for key in root if key not in keys)
    for path, entry in _entries(root, _VARIABLES, problems):
        if not isinstance(entry["Value"], str):
            problems.append(f"{path}.Value {_must_be_text(entry['Value'])}")
            continue
        settings.environment_variables.append(
            EnvironmentVariableSetting(schema_name=entry["SchemaName"], value=entry["Value"])
        )
    for path, entry in _entries(root, _REFERENCES, problems):
        wrong = [key for key in ("ConnectionId", "ConnectorId") if not isinstance(entry.get(key, ""), str)]
        problems.extend(f"{path}.{key} {_must_be_text(entry[key])}" for key in wrong)
        if not wrong:
            settings.connection_references.append(
                ConnectionReferenceSetting(
                    logical_name=entry["LogicalName"],
                    connection_id=entry["ConnectionId"],
                    connector_id=entry.get("ConnectorId", ""),
                )
            )
    return settings


def _entries(
    root: dict[str, Any], section: _Section, problems: list[str]
) -> Iterable[tuple[str, dict[str, Any]]]:
    listed = root.get(section.key, [])
    if not isinstance(listed, list):
        problems.append(f"$.{section.key} is {_kind(listed)}, not an array.")
        return
    seen: dict[str, str] = {}
    for index, entry in enumerate(listed):
        path = f"$.{section.key}[{index}]"
        if not isinstance(entry, dict):
            problems.append(f"{path} is {_kind(entry)}, not an object.")
            continue
        allowed = (*section.required, *section.optional)
        before = len(problems)
        problems.extend(
            f"{path}.{key} is not known. {_nearest(key, allowed)}" for key in entry if key not in allowed
        )
        problems.extend(f"{path}.{key} is missing." for key in section.required if key not in entry)
        name = entry.get(section.name, "")
        if not isinstance(name, str) or (section.name in entry and not name.strip()):
            problems.append(f"{path}.{section.name} must be a text that is not empty.")
        elif name.lower() in seen:
            problems.append(f"{path}.{section.name}: {name!r} stands at {seen[name.lower()]} already.")
        if len(problems) == before:
            seen[name.lower()] = path
            yield path, entry


def _nearest(key: str, known: Sequence[str]) -> str:
    same = [candidate for candidate in known if candidate.lower() == key.lower()]
    return f"Write it {same[0]!r}." if same else f"Known are {', '.join(known)}."


def _must_be_text(value: Any) -> str:
    # The value itself is not repeated: it may be a secret, and this goes to the log of a build.
    if value is None:
        return "is null; write a text, or leave the entry out to keep what is there."
    return f"is {_kind(value)}; values are always text, so put it into double quotes."


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    kinds: dict[type, str] = {
        dict: "an object",
        list: "an array",
        str: "a text",
        int: "a number",
        float: "a number",
    }
    return kinds[type(value)]
