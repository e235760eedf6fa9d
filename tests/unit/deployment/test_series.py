"""A long series of real upgrades through a pipeline: what each removes and adds is said, and right."""

from __future__ import annotations

import re
from pathlib import Path

from tests.unit.deployment.conftest import Host

from pipelinehost.v1.resources_pb2 import (
    ConnectionReferenceSetting,
    DeploymentSettings,
    EnvironmentVariableSetting,
    Run,
)
from pipelinehost_dataverse.solution import Solution, VariableType, diff, read

SERIES = ("1_45", "1_52", "1_60", "1_70", "1_71_7", "1_72", "2_1_6")
NAME = "CenterofExcellenceCoreComponents"


async def settings(host: Host, solution: Solution) -> DeploymentSettings:
    """Connections for every reference, and a value for every variable that needs one."""
    made = DeploymentSettings()
    for reference in solution.connection_references:
        connection = reference.logical_name.replace("_", "-")[:60]
        known = {c.name for c in await host.environments.connections("environments/qa")}
        if f"environments/qa/connections/{connection}" not in known:
            await host.connect("qa", reference.connector_id, connection)
        made.connection_references.append(
            ConnectionReferenceSetting(logical_name=reference.logical_name, connection_id=connection)
        )
    for variable in solution.environment_variables:
        if variable.required and variable.default is None and variable.packaged_value is None:
            value = "yes" if variable.type is VariableType.BOOLEAN else "1"
            made.environment_variables.append(
                EnvironmentVariableSetting(schema_name=variable.schema_name, value=value)
            )
    return made


async def test_the_coe_series_is_upgraded_through_a_pipeline(host: Host, real_solutions: Path) -> None:
    before: Solution | None = None
    for version in SERIES:
        package = (real_solutions / "valid" / f"{NAME}_{version}_managed.zip").read_bytes()
        solution = read(package)
        artifact = await host.upload(package)
        given = await settings(host, solution)
        run = await host.deployed(artifact=artifact.name, stage="qa", settings=given)
        assert run.state == Run.STATE_SUCCEEDED, (version, run.error.message)

        findings = host.findings(run)
        named = {(f.subject.kind, f.subject.name.lower()) for f in findings if f.code == "UPGRADE_REMOVES"}
        more = [f for f in findings if f.code == "UPGRADE_REMOVES_MORE"]
        counted = sum(int(n) for f in more for n in re.findall(r"also removes (\d+) other", f.cause))
        difference = diff(before, solution) if before else None
        removed = difference.removed if difference else ()
        assert len(named) + counted == len(removed), version
        kinds = {kind for kind, _ in named}
        assert {c.kind for c in removed} >= kinds
        if version == "1_52":
            assert sum(c.kind == "entity" for c in removed) == 2
            assert sum(kind == "attribute" for kind, _ in named) == 52
        if version == "1_72":
            assert sum(c.kind == "workflow" for c in removed) == 11

        _, api = await host.environments.named("environments/qa")
        installed = await api.solution(NAME)
        assert installed is not None
        held = {c.key for c in await api.installed_components(installed)}
        assert held == {c.identity for c in solution.components}, version
        before = solution
