"""StageSolution: what an environment tells about a package before it is imported."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

from pipelinehost_dataverse.emulator import rules
from pipelinehost_dataverse.emulator.layers import guid_in
from pipelinehost_dataverse.emulator.removal import object_id_of
from pipelinehost_dataverse.emulator.rules import Verdict
from pipelinehost_dataverse.solution.model import ComponentKey, Dependency, RequiredComponent, Solution

_STAGED: Final = frozenset(
    {"entity", "workflow", "webresource", "canvasapp", "appmodule", "role", "optionset", "connector"}
)
"""Kinds of components that staging shows beside connection references and environment variables."""


def results(db: sqlite3.Connection, solution: Solution, verdict: Verdict, upload: str) -> dict[str, object]:
    """``StageSolutionResults`` as the Web API shows it.

    Args:
        db: the environment.
        solution: what the package tells.
        verdict: what the rules say of it.
        upload: the id under which it is kept.

    """
    manifest, there = solution.manifest, verdict.installed
    findings = [_validation("Error", error.message, error.code.signed) for error in verdict.errors]
    findings += [_validation("Warning", warning, 0) for warning in verdict.warnings]
    previous = rules.patches(db, there) if there else []
    return {
        "StageSolutionUploadId": upload,
        "StageSolutionStatus": "Failed" if verdict.errors else "Passed",
        "SolutionComponentsDetails": _details(db, solution),
        "SolutionDetails": {
            "SolutionUniqueName": manifest.unique_name,
            "SolutionFriendlyName": manifest.display_name,
            "SolutionDescription": manifest.description,
            "PublisherUniqueName": manifest.publisher.unique_name,
            "PublisherFriendlyName": manifest.publisher.display_name,
            "PreviousSolutionUniqueName": there.unique_name if there else None,
            "PreviousSolutionFriendlyName": there.display_name if there else None,
            "PreviousPublisherUniqueName": there.publisher if there else None,
            "PreviousPublisherFriendlyName": there.publisher_name if there else None,
            "IsPatchSolution": manifest.parent_solution is not None,
            "IsManaged": manifest.managed,
            "PreviousIsManaged": there.managed if there else False,
            "SolutionVersion": str(manifest.version),
            "PreviousSolutionVersion": there.version if there else None,
            "PreviousPatchSolutionsNames": [patch.unique_name for patch in previous],
            "IsPrerequisitesExport": False,
            "HasPendingUpgrade": verdict.pending,
        },
        "MissingDependencies": [_missing(dependency) for dependency in verdict.missing],
        "SolutionValidationResults": findings,
    }


def _validation(kind: str, message: str, code: int) -> dict[str, object]:
    return {
        "SolutionValidationResultType": kind,
        "Message": message,
        "ErrorCode": code,
        "AdditionalInfo": "",
    }


def _missing(dependency: Dependency) -> dict[str, object]:
    def end(name: str, component: RequiredComponent) -> dict[str, object]:
        return {
            f"{name}SchemaName": component.schema_name,
            f"{name}DisplayName": component.display_name,
            f"{name}ParentSchemaName": component.parent_schema_name,
            f"{name}ParentDisplayName": component.parent_display_name,
            f"{name}Id": guid_in(component.key),
            f"{name}Type": component.type,
        }

    return {
        **end("RequiredComponent", dependency.required),
        **end("DependentComponent", dependency.dependent),
        "RequiredSolutionName": dependency.required.solution,
    }


def _details(db: sqlite3.Connection, solution: Solution) -> list[dict[str, object]]:
    """``SolutionComponentsDetails``: the solution, then the components that staging shows."""

    def detail(name: str, kind: str, there: str, attributes: Mapping[str, str]) -> dict[str, object]:
        return {
            "ComponentName": name,
            "ComponentTypeName": kind,
            "IsPresentInOrg": there,
            "Attributes": {
                "Count": len(attributes),
                "Keys": list(attributes),
                "Values": list(attributes.values()),
            },
        }

    def there(kind: str, key: str) -> str:
        return str(object_id_of(db, ComponentKey(kind, key.lower())) is not None)

    manifest = solution.manifest
    details = [
        detail(
            manifest.display_name,
            "solution",
            "Unknown",
            {"localizedname": manifest.display_name, "description": manifest.description},
        )
    ]
    for component in solution.components:
        if component.parent is None and component.kind in _STAGED:
            present = there(*component.identity)
            details.append(detail(component.name, component.kind, present, {"name": component.schema_name}))
    for reference in solution.connection_references:
        attributes = {
            "connectorid": reference.connector_id,
            "connectionreferencelogicalname": reference.logical_name,
            "connectionreferencedisplayname": reference.display_name,
            "description": reference.description,
        }
        present = there("connectionreference", reference.logical_name)
        details.append(detail(reference.logical_name, "connectionreference", present, attributes))
    # Against the order of the package's files, as in the one answer that was captured.
    variables = solution.environment_variables[::-1]
    for variable in variables:
        attributes = {
            "schemaname": variable.schema_name,
            "displayname": variable.display_name,
            "description": variable.description,
            "type": str(int(variable.type)),
            "defaultvalue": variable.default or "",
            "isrequired": str(variable.required).lower(),
            "parameterkey": variable.parameter_key,
            "parentdefinitionid": variable.parent_definition,
            "apiid": variable.api_id,
        }
        present = there("environmentvariabledefinition", variable.schema_name)
        details.append(detail(variable.display_name, "EnvironmentVariableDefinition", present, attributes))
    for variable in variables:
        if variable.packaged_value is None and variable.packaged_value_id is None:
            continue
        attributes = {
            "schemaname": variable.schema_name,
            "environmentvariablevalueid": variable.packaged_value_id or "",
            "value": variable.packaged_value or "",
        }
        row = db.execute(
            "SELECT 1 FROM variable_value WHERE schema_name = ?", (variable.schema_name,)
        ).fetchone()
        details.append(
            detail(variable.schema_name, "EnvironmentVariableValue", str(row is not None), attributes)
        )
    return details
