"""Every real package, through a real host: each travels, or validation says everything that is missing.

Run ``python -m tests.e2e.test_real_packages`` for the table.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.conftest import REAL_SOLUTIONS
from tests.e2e.processes import HostProcess

from pipelinehost import Client
from pipelinehost.v1.resources_pb2 import (
    Connection,
    ConnectionReferenceSetting,
    DeploymentSettings,
    Environment,
    EnvironmentVariableSetting,
    Finding,
    Pipeline,
    Run,
    Setting,
    Stage,
)
from pipelinehost_dataverse.solution import Solution, read

PACKAGES = sorted((REAL_SOLUTIONS / "valid").glob("*.zip"))
PLATFORM = Path(__file__).resolve().parents[2] / "server/pipelinehost_dataverse/emulator/facts"
VALUES = {
    "number": "1",
    "boolean": "yes",
    "json": "{}",
    "secret": "/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v/secrets/n",
}


@dataclass(frozen=True)
class Journey:
    """How far a package came."""

    arrived: list[str]
    """Environments that hold it."""
    findings: list[Finding]
    """Errors that stopped it."""
    imports: int
    """Imports that its environments have in their history, failed ones included."""
    seconds: float = 0.0


def travel(client: Client, package: Path, slug: str) -> Journey:
    """Unmanaged: restore, then deploy to QA and production; managed: upload, then the same."""
    artifact = client.upload(package)
    stages = {"qa": f"qa-{slug}", "production": f"production-{slug}"}
    for name, kind in [
        (f"dev-{slug}", Environment.KIND_DEVELOPMENT),
        *((n, Environment.KIND_TARGET) for n in stages.values()),
    ]:
        client.create_environment(Environment(name=f"environments/{name}", kind=kind))
    client.create_pipeline(
        Pipeline(
            name=f"pipelines/p-{slug}",
            development_environments=[f"environments/dev-{slug}"],
            stages=[
                Stage(name=f"pipelines/p-{slug}/stages/{stage}", environment=f"environments/{environment}")
                for stage, environment in stages.items()
            ],
        )
    )
    settings = fill(client, artifact.name, list(stages.values()))
    arrived: list[str] = []
    if not artifact.managed:
        run = client.wait(client.restore(artifact.name, f"dev-{slug}").name, timeout=120)
        if run.state != Run.STATE_SUCCEEDED:
            return ended(client, run, arrived)
        arrived.append(f"dev-{slug}")
    for environment in stages.values():
        if artifact.managed:
            run = client.deploy(f"p-{slug}", settings=settings, artifact=artifact.name)
        else:
            run = client.deploy(f"p-{slug}", settings=settings, solution=artifact.solution)
        run = client.wait(run.name, timeout=120)
        if run.state != Run.STATE_SUCCEEDED:
            return ended(client, run, arrived)
        arrived.append(environment)
    return Journey(arrived, [], len(arrived))


def ended(client: Client, run: Run, arrived: list[str]) -> Journey:
    findings = [f for f in client.findings(run.name) if f.severity == Finding.SEVERITY_ERROR]
    solutions = [s.unique_name for s in client.solutions(run.target_environment)]
    imported = int(run.solution in solutions) + sum(1 for _ in client.component_results(run.name))
    return Journey(arrived, findings, len(arrived) + imported)


def fill(client: Client, artifact: str, environments: list[str]) -> DeploymentSettings:
    """Create the connections that a package asks for, and give every variable without a value one."""
    settings = DeploymentSettings()
    for setting in client.describe(artifact=artifact).settings:
        if setting.kind == Setting.KIND_CONNECTION_REFERENCE:
            connection = f"for-{len(settings.connection_references)}"
            for environment in environments:
                name = f"environments/{environment}/connections/{connection}"
                client.create_connection(
                    environment, Connection(name=name, connector_id=setting.connector_id)
                )
            settings.connection_references.append(
                ConnectionReferenceSetting(logical_name=setting.name, connection_id=connection)
            )
        elif not setting.source and setting.required:
            settings.environment_variables.append(
                EnvironmentVariableSetting(schema_name=setting.name, value=VALUES.get(setting.type, "x"))
            )
    return settings


def missing(solution: Solution) -> set[str]:
    """What an empty environment lacks, told from the manifest and the list of platform solutions alone."""
    lines = (PLATFORM / "platform-solutions.txt").read_text().splitlines()
    platform = {line.strip().casefold() for line in lines if line.strip() and not line.startswith("#")}
    own = {c.identity for c in solution.components}
    return {
        str(d.required.identity)
        for d in solution.manifest.missing_dependencies
        if d.required.identity not in own
        and d.required.solution.partition(" (")[0].strip().casefold() not in platform
    }


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    host = HostProcess(tmp_path_factory.mktemp("host"))
    host.start()
    with host.client() as client:
        yield client
    assert host.stop() == 0


@pytest.mark.skipif(not PACKAGES, reason="the folder shared/solutions beside the repository is missing")
@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.stem)
def test_it_travels_or_everything_missing_is_named(client: Client, package: Path) -> None:
    solution = read(package)
    journey = travel(client, package, f"n{PACKAGES.index(package):02}")
    expected = missing(solution)
    if not expected:
        assert journey.findings == []
        assert len(journey.arrived) == (2 if solution.manifest.managed else 3)
        return
    assert (journey.arrived, journey.imports) == ([], 0), "not one import was attempted"
    assert {f.code for f in journey.findings} == {"MISSING_DEPENDENCY"}
    assert len(journey.findings) == len(expected)


def main() -> None:
    """Print which package travels, and why the others do not."""
    with tempfile.TemporaryDirectory() as folder:
        host = HostProcess(Path(folder))
        host.start()
        with host.client() as client:
            for index, package in enumerate(PACKAGES):
                journey = travel(client, package, f"n{index:02}")
                why = f"{len(journey.findings)} missing: " if journey.findings else ""
                why += ", ".join(sorted(f.subject.name for f in journey.findings)[:3])
                route = " → ".join(e.rpartition("-")[0] for e in journey.arrived) or "refused"
                sys.stdout.write(f"{package.stem:60} {route:25} {why}\n")
        host.stop()


if __name__ == "__main__":
    main()
