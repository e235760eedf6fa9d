"""What real packages showed in real environments, asked of an embedded one.

Each case twice: on packages that are made here, and on the real files where they are at hand. The numbers
A1, A2, … are those of the acceptance cases that the public corpus gives.
"""

from collections import Counter
from pathlib import Path

import pytest
from tests.unit.emulator.asked import Asked

from pipelinehost_dataverse.solution import (
    AppModule,
    CanvasApp,
    Column,
    ConnectionReference,
    Table,
    cloud_flow,
    derived_id,
    diff,
    missing,
    new_manifest,
    read,
    write,
)

CORE, AUDIT = "CenterofExcellenceCoreComponents", "CenterofExcellenceAuditComponents"
TEAMS = "/providers/Microsoft.PowerApps/apis/shared_teams"


@pytest.fixture
def env(tmp_path: Path) -> Asked:
    return Asked.open(tmp_path / "target.sqlite")


def _real(folder: Path, name: str, version: str) -> bytes:
    return (folder / "valid" / f"{name}_{version}_managed.zip").read_bytes()


# -- A1: a managed solution whose connection references another one brings ----------------------------------

REFERENCES = [f"adm_Reference{n}" for n in range(8)]


def _core(version: str, *references: str, tables: int = 1) -> bytes:
    return write(
        new_manifest("Core", version, managed=True, prefix="adm"),
        *(Table(f"adm_Table{n}", (Column("adm_Name"),)) for n in range(tables)),
        *(ConnectionReference(name, name, "", TEAMS) for name in references),
    )


def _audit(*references: str) -> bytes:
    flow = ("workflow", derived_id("workflow", "Sync"))
    return write(
        new_manifest(
            "Audit",
            "1.24",
            managed=True,
            prefix="adm",
            # The real manifest has them in their original letter case.
            missing_dependencies=[missing(("connectionreference", name), flow) for name in references],
        ),
        cloud_flow("Sync", connection_references=references),
    )


async def _a1(env: Asked, audit: bytes, core_without: bytes, core_with: bytes, count: int) -> None:
    async with env:
        for prepare in (None, core_without):
            if prepare:
                assert (await env.install(prepare)).succeeded
            staged = await env.stage(audit)
            assert staged["StageSolutionStatus"] == "Failed"
            assert [r["ErrorCode"] for r in staged["SolutionValidationResults"]] == [-2147188707]
            missed = {
                (
                    d["RequiredComponentType"],
                    d["RequiredComponentSchemaName"],
                    d["RequiredSolutionName"],
                )
                for d in staged["MissingDependencies"]
                if d["RequiredComponentType"] == "connectionreference"
            }
            assert len(missed) == count
            assert {hint for _, _, hint in missed} == {"Active"}
            outcome = await env.install(audit)
            assert (outcome.succeeded, outcome.code) == (False, "8004801D")
        assert (await env.install(core_with)).succeeded
        staged = await env.stage(audit)
        assert (staged["StageSolutionStatus"], staged["MissingDependencies"]) == ("Passed", [])
        assert (await env.install(audit)).succeeded


async def test_a1_references_of_another_solution_made(env: Asked) -> None:
    await _a1(env, _audit(*REFERENCES), _core("1.60"), _core("1.70", *map(str.upper, REFERENCES)), 8)


async def test_a1_references_of_another_solution_real(env: Asked, real_solutions: Path) -> None:
    audit = _real(real_solutions, AUDIT, "1_24")
    await _a1(env, audit, _real(real_solutions, CORE, "1_60"), _real(real_solutions, CORE, "1_70"), 8)


# -- A2: an upgrade that would take what another solution uses -----------------------------------------------


async def _a2(env: Asked, old: bytes, audit: bytes, new: bytes, core: str, lost: str) -> None:
    async with env:
        assert (await env.install(old)).succeeded
        assert (await env.install(audit)).succeeded
        staged = await env.stage(new)
        assert staged["StageSolutionStatus"] == "Passed", "staging does not tell what an upgrade removes"
        outcome = await env.install(new, upgrade=True)
        assert (outcome.succeeded, outcome.code) == (False, "8004F046")
        assert f"Type: connectionreference, ObjectName: {lost}" in outcome.message
        assert (await env.solution(core))["version"] == staged["SolutionDetails"]["PreviousSolutionVersion"]
        holding = await env.solution(f"{core}_Upgrade")
        assert (await env.install(new)).code == "80048539"
        answer = await env.request("DELETE", f"solutions({holding['solutionid']})")
        assert answer.status_code == 204, answer.text
        assert (await env.install(new)).succeeded, "an update removes nothing"
        assert ("connectionreference", lost.lower()) in await env.components(core)


async def test_a2_a_removal_that_another_solution_blocks_made(env: Asked) -> None:
    old, new = _core("1.71.7", *REFERENCES[:2]), _core("1.72", REFERENCES[0])
    await _a2(env, old, _audit(REFERENCES[1]), new, "Core", REFERENCES[1])


async def test_a2_a_removal_that_another_solution_blocks_real(env: Asked, real_solutions: Path) -> None:
    old, new = (_real(real_solutions, CORE, version) for version in ("1_71_7", "1_72"))
    audit = _real(real_solutions, AUDIT, "1_25")
    await _a2(env, old, audit, new, CORE, "admin_MicrosoftTeamsCoEConnection")


# -- A3: an upgrade that a maker's change in the target blocks -----------------------------------------------

LOGS = "CenterofExcellenceAuditLogs"
SYNC_LOGS = "751183fc-db68-ea11-a811-000d3a31cf04"


async def _a3(
    env: Asked, installed: list[bytes], new: bytes, name: str, flow: str, lost: set[str], others: set[str]
) -> None:
    """What blocks is the makers' layer of ``flow``: it uses the references that the new version drops."""
    async with env:
        for content in installed:
            assert (await env.install(content)).succeeded
        assert (await env.request("PATCH", f"workflows({flow})", {"name": "Edited here"})).status_code == 204
        staged = await env.stage(new)
        assert (staged["StageSolutionStatus"], staged["MissingDependencies"]) == ("Passed", [])
        outcome = await env.install(new, upgrade=True)
        assert (outcome.succeeded, outcome.code) == (False, "8004F046")
        assert f"DependencyCount : {len(lost)} " in outcome.message
        assert outcome.message.count("DependentComponentObject details: Type: workflow") == len(lost)
        assert outcome.message.count(f"Name: {flow}, Solution: Active") == len(lost)
        references = await env.get("connectionreferences?$select=connectionreferencelogicalname")
        ids = {row["connectionreferencelogicalname"]: row["connectionreferenceid"] for row in references}
        for reference in lost:
            assert f"Name: {reference.lower()} DependentComponentObject" in outcome.message
        rows = await env.get(f"RetrieveDependenciesForUninstall(SolutionUniqueName='{name}')")
        required = {(row["dependentcomponentobjectid"], row["requiredcomponentobjectid"]) for row in rows}
        assert {(flow, ids[reference]) for reference in lost} <= required

        held = await env.solution(f"{name}_Upgrade")
        assert (await env.install(new, upgrade=True)).code == "80048539", "what it left blocks the next one"
        call = f"RemoveActiveCustomizations(SolutionComponentName='Workflow',ComponentId={flow})"
        assert (await env.request("GET", call)).status_code == 204
        answer = await env.request("POST", "DeleteAndPromote", {"UniqueName": name})
        assert (answer.status_code, answer.json()["SolutionId"]) == (200, held["solutionid"]), answer.text
        left = await env.get("connectionreferences?$select=connectionreferencelogicalname")
        assert not lost & {row["connectionreferencelogicalname"] for row in left}
        assert others <= {row["connectionreferencelogicalname"] for row in left}


async def test_a3_an_upgrade_blocked_by_a_change_in_the_target_made(env: Asked) -> None:
    old, new = ["adm_Old0", "adm_Old1"], ["adm_New0"]

    def version(number: str, names: list[str]) -> bytes:
        return write(
            new_manifest("Logs", number, managed=True, prefix="adm"),
            *(ConnectionReference(name, name, "", TEAMS) for name in names),
            cloud_flow("Sync Logs", connection_references=names),
        )

    flow = derived_id("workflow", "Sync Logs")
    await _a3(env, [version("1.3.6", old)], version("1.41", new), "Logs", flow, set(old), set(new))


async def test_a3_an_upgrade_blocked_by_a_change_in_the_target_real(env: Asked, real_solutions: Path) -> None:
    core, old, new = (
        _real(real_solutions, name, version)
        for name, version in ((CORE, "1_70"), (LOGS, "1_3_6"), (LOGS, "1_41"))
    )
    # The two references that the public report of this failure names.
    lost = {
        "admin_sharedcommondataserviceforapps_64c11",
        "admin_sharedadmin5foffice2036520management20api5f691c36f6fa56d15c_a4b81",
    }
    others = {"admin_CDSCoEAuditConnection", "admin_CDSCurrentEnvironmentCoEAuditConnection"}
    await _a3(env, [core, old], new, LOGS, SYNC_LOGS, lost, others)


async def test_a3_passes_where_nobody_changed_anything_real(env: Asked, real_solutions: Path) -> None:
    async with env:
        for name, version in ((CORE, "1_70"), (LOGS, "1_3_6")):
            assert (await env.install(_real(real_solutions, name, version))).succeeded
        outcome = await env.install(_real(real_solutions, LOGS, "1_41"), upgrade=True)
        assert outcome.succeeded, outcome


async def test_a3_passes_where_customizations_are_overwritten_real(env: Asked, real_solutions: Path) -> None:
    async with env:
        for name, version in ((CORE, "1_70"), (LOGS, "1_3_6")):
            assert (await env.install(_real(real_solutions, name, version))).succeeded
        await env.request("PATCH", f"workflows({SYNC_LOGS})", {"name": "Edited here"})
        new = _real(real_solutions, LOGS, "1_41")
        outcome = await env.install(new, upgrade=True, OverwriteUnmanagedCustomizations=True)
        assert outcome.succeeded, outcome


# -- A4: what upgrades remove --------------------------------------------------------------------------------


async def _a4(env: Asked, core: str, *steps: tuple[bytes, dict[str, int]]) -> None:
    async with env:
        before: set[tuple[str, str]] = set()
        for content, expected in steps:
            outcome = await env.install(content, upgrade=bool(before))
            assert outcome.succeeded, outcome
            after = await env.components(core)
            removed = Counter(kind for kind, _ in before - after)
            assert {kind: removed[kind] for kind in expected} == expected
            before = after


async def test_a4_what_an_upgrade_removes_made(env: Asked) -> None:
    def version(number: str, tables: int, columns: int, apps: int, flows: int) -> bytes:
        return write(
            new_manifest("Core", number, managed=True, prefix="adm"),
            *(
                Table(f"adm_T{n}", tuple(Column(f"adm_C{column}") for column in range(columns)))
                for n in range(tables)
            ),
            AppModule("adm_Admin", tables=("adm_T0",)),
            *(CanvasApp(f"adm_app{n}") for n in range(apps)),
            *(cloud_flow(f"Flow {n}") for n in range(flows)),
        )

    await _a4(
        env,
        "Core",
        (version("1.45", 4, 12, 2, 20), {}),
        (version("1.52", 2, 12, 1, 20), {"entity": 2, "attribute": 24, "canvasapp": 1, "workflow": 0}),
        (version("1.71", 2, 12, 1, 31), {"entity": 0, "attribute": 0, "workflow": 0}),
        (version("1.72", 2, 12, 1, 20), {"entity": 0, "workflow": 11}),
    )


async def test_a4_what_an_upgrade_removes_real(env: Asked, real_solutions: Path) -> None:
    await _a4(
        env,
        CORE,
        (_real(real_solutions, CORE, "1_45"), {}),
        (_real(real_solutions, CORE, "1_52"), {"entity": 2, "attribute": 52, "canvasapp": 1}),
        (_real(real_solutions, CORE, "1_71_7"), {}),
        (_real(real_solutions, CORE, "1_72"), {"workflow": 11}),
    )


# -- the whole series of one solution, in one environment ----------------------------------------------------


async def test_each_upgrade_of_a_series_does_what_the_packages_differ_in_real(
    env: Asked, real_solutions: Path
) -> None:
    async with env:
        before: set[tuple[str, str]] = set()
        installed = None
        for version in ("1_45", "1_52", "1_60", "1_70", "1_71_7", "1_72", "2_1_6"):
            content = _real(real_solutions, CORE, version)
            package = read(content)
            outcome = await env.install(content, upgrade=installed is not None)
            assert outcome.succeeded, (version, outcome)
            after = await env.components(CORE)
            if installed is not None:
                plain = diff(installed, package)
                assert after - before == {tuple(part.identity) for part in plain.added}
                assert before - after == {tuple(part.identity) for part in plain.removed}
            assert after == {tuple(part.identity) for part in package.components}
            rows = await env.get("msdyn_componentlayers?$count=true&$select=msdyn_solutionname")
            assert {row["msdyn_solutionname"] for row in rows} == {CORE}
            assert len(rows) == len(after), "nothing of an older version is left"
            assert (await env.solution(CORE))["version"] == str(package.manifest.version)
            before, installed = after, package


# -- A8: versions are numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "supplied", "accepted"),
    [
        ("1.61", "1.7.20210707.1", False),
        ("1.7.20210707.1", "1.61", True),
        ("1.9", "1.14", True),
        ("1.14", "1.9", False),
        ("2.0.273", "2.0.273.0", False),
    ],
)
async def test_a8_versions_made(env: Asked, installed: str, supplied: str, accepted: bool) -> None:
    async with env:
        assert (await env.install(_core(installed))).succeeded
        outcome = await env.install(_core(supplied), upgrade=True)
        assert (outcome.succeeded, outcome.code) == (accepted, "00000000" if accepted else "80048541")
        assert (await env.solution("Core"))["version"] == (supplied if accepted else installed)


async def test_a8_versions_real(env: Asked, real_solutions: Path) -> None:
    async with env:
        name = "CopilotStudioDataverseIndexer"
        assert (await env.install(_real(real_solutions, name, "1_0_0_15"))).succeeded
        lower = _real(real_solutions, name, "1_0_0_10")
        for upgrade in (True, False):
            assert (await env.install(lower, upgrade=upgrade)).code == "80048541"
        assert (await env.stage(lower))["StageSolutionStatus"] == "Failed"


# -- the whole corpus ----------------------------------------------------------------------------------------


async def test_what_was_imported_unmanaged_comes_back_real(env: Asked, real_solutions: Path) -> None:
    async with env:
        for path in sorted((real_solutions / "valid").glob("*_unmanaged.zip")):
            content = path.read_bytes()
            if (await env.stage(content))["StageSolutionStatus"] == "Failed":
                continue
            outcome = await env.install(content)
            assert outcome.succeeded, (path.name, outcome)
            name = (await env.stage(content))["SolutionDetails"]["SolutionUniqueName"]
            assert await env.export(name, managed=False) == content
