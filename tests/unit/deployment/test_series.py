"""A long series of real upgrades through a pipeline: what each removes and adds is said, and right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.unit.deployment.conftest import Host

from pipelinehost.v1.resources_pb2 import (
    ConnectionReferenceSetting,
    DeploymentSettings,
    EnvironmentVariableSetting,
    Finding,
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


def counts(findings: list[Finding], code: str) -> int:
    """Components that findings of a code speak of, one by one or counted."""
    told = [f for f in findings if f.code == f"{code}_MORE"]
    assert len(told) <= 1
    more = sum(int(n) for f in told for n in re.findall(r"^(\d+) other", f.cause))
    return sum(f.code == code for f in findings) + more


async def test_the_coe_series_goes_back_step_by_step(host: Host, real_solutions: Path) -> None:
    """All that is said to be lost is lost, and nothing else: compared with the packages themselves."""
    await host.configure("qa", allow_redeployment=True)
    packages = [(real_solutions / "valid" / f"{NAME}_{v}_managed.zip").read_bytes() for v in SERIES]
    artifacts, given = {}, {}
    for package in packages:
        solution = read(package)
        version = str(solution.manifest.version)
        artifacts[version] = await host.upload(package)
        given[version] = await settings(host, solution)
    newest = read(packages[-1])
    run = await host.deployed(
        artifact=artifacts[str(newest.manifest.version)].name,
        stage="qa",
        settings=given[str(newest.manifest.version)],
    )
    assert run.state == Run.STATE_SUCCEEDED, run.error
    _, api = await host.environments.named("environments/qa")
    held = {c.identity for c in newest.components}
    above = newest
    for package in reversed(packages[:-1]):
        solution = read(package)
        version = str(solution.manifest.version)
        request: dict[str, Any] = {
            "artifact": artifacts[version].name,
            "stage": "qa",
            "settings": given[version],
        }
        found, summary = await host.previewed(**request)
        difference = diff(above, solution)
        old = {c.identity for c in solution.components}
        gone = {c.identity for c in difference.removed}
        new = {c.identity for c in difference.added}
        unknown = new & held
        assert counts(found, "CHANGES_BACK") == len(difference.changed), version
        assert counts(found, "STAYS_BEHIND") == len(gone), version
        assert counts(found, "COMES_BACK") == len(new - held), version
        told = [f.cause for f in found if f.code == "CANNOT_COMPARE"]
        assert [f"{len(unknown)} components" in cause for cause in told] == [True] * bool(unknown)
        assert summary.loss_sha256
        refused = await host.deployed(**request)
        assert refused.error.code == "LOSS_NOT_ACCEPTED"
        run = await host.deployed(**request, loss_sha256=summary.loss_sha256)
        assert run.state == Run.STATE_SUCCEEDED, (version, run.error)
        assert run.ByteSize() < 16 * 1024
        assert counts(host.findings(run), "CHANGES_BACK") == len(difference.changed)
        held |= old
        installed = await api.solution(NAME)
        assert installed is not None
        assert installed.version == solution.manifest.version
        assert {c.key for c in await api.installed_components(installed)} == held, version
        above = solution


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
