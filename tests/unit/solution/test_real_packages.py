"""What 61 real packages, exported by the real platform, and six broken ones say about the reader."""

from __future__ import annotations

import csv
import functools
from collections import Counter
from pathlib import Path

import pytest

from pipelinehost_dataverse.solution import (
    Component,
    ComponentKey,
    PackageError,
    Solution,
    diff,
    kind_of,
    normalised,
    read,
    rewrite,
    settings_template,
)
from pipelinehost_dataverse.solution.archive import Archive
from pipelinehost_dataverse.solution.components import OLD_VALUES
from pipelinehost_dataverse.solution.kinds import normalised_in

NOT_COUNTED = {
    # Kinds that the program behind CATALOGUE.tsv does not count. Its ``components`` column equals ours
    # without them, package by package.
    "aiskillconfig",
    "appelement",
    "appsetting",
    "botcomponent_connectionreference",
    "botcomponent_msdyn_aimodel",
    "botcomponent_workflow",
    "customapirequestparameter",
    "customapiresponseproperty",
    "customcontroldefaultconfig",
    "entitymap",
    "environmentvariablevalue",
    "msdyn_aiconfiguration",
    "plugintype",
    "ribboncustomization",
    "savedqueryvisualization",
    "sdkmessageprocessingstepimage",
}

CORE = "CenterofExcellenceCoreComponents_{}_managed"
AUDIT = "CenterofExcellenceAuditComponents_{}_managed"
LOGS = "CenterofExcellenceAuditLogs_{}_managed"


class Library:
    """The real packages, each read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with (folder / "CATALOGUE.tsv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        self.rows = [row for row in rows if row["file"].startswith("valid/")]
        self.read = functools.cache(lambda name: read(self.path(name)))

    def path(self, name: str) -> Path:
        return self.folder / "valid" / f"{name}.zip"

    def __getitem__(self, name: str) -> Solution:
        return self.read(name)


@pytest.fixture(scope="module")
def library(real_solutions: Path) -> Library:
    return Library(real_solutions)


def keys(solution: Solution, kind: str = "") -> set[ComponentKey]:
    return {c.identity for c in solution.components if kind in ("", c.kind)}


def test_agrees_with_the_catalogue(library: Library) -> None:
    assert len(library.rows) == 61
    for row in library.rows:
        solution = library[Path(row["file"]).stem]
        manifest = solution.manifest
        found = {
            "bytes": solution.size,
            "unique_name": manifest.unique_name,
            "version": str(manifest.version),
            "managed": int(manifest.managed),
            "publisher": manifest.publisher.unique_name,
            "prefix": manifest.publisher.prefix,
            "root_components": len(manifest.root_components),
            "missing_dependencies": len(manifest.missing_dependencies),
            "env_variables": len(solution.environment_variables),
            "connection_references": len(solution.connection_references),
            "cloud_flows": len(solution.flows),
            "canvas_apps": len(keys(solution, "canvasapp")),
            "components": sum(c.kind not in NOT_COUNTED for c in solution.components),
        }
        expected = {column: row[column] for column in found}
        assert {column: str(value) for column, value in found.items()} == expected, row["file"]


def test_nothing_is_dropped_and_nothing_is_unknown(library: Library) -> None:
    for row in library.rows:
        name = Path(row["file"]).stem
        solution = library[name]
        assert len(keys(solution)) == len(solution.components), name
        assert not keys(solution, "packagefile"), name
        members = set(Archive(library.path(name).read_bytes()).members)
        members -= {"solution.xml", "customizations.xml", "[Content_Types].xml", OLD_VALUES}
        members = {n for n in members if not n.startswith("Assets/")}  # links: rows of one file
        files = Counter(file for c in solution.components for file in c.files)
        assert set(files) == members, name
        assert set(files.values()) <= {1}, name


def test_every_parent_and_root_component_is_there(library: Library) -> None:
    for row in library.rows:
        solution = library[Path(row["file"]).stem]
        present = keys(solution)
        assert {c.parent for c in solution.components} <= present | {None}
        ids = {c.key for c in solution.components}
        for root in solution.manifest.root_components:
            # A value is identified by its definition; of a system table there may be the shell only.
            if root.type != "381" and root.behavior != 2:
                named = normalised_in(kind_of(root.type), root.schema_name or root.id)
                assert named in ids or normalised(root.id) in ids, (row["file"], root)


def test_every_dependent_of_an_edge_is_in_the_package(library: Library) -> None:
    for row in library.rows:
        solution = library[Path(row["file"]).stem]
        present = keys(solution)
        for edge in solution.dependencies:
            if not edge.declared:
                assert edge.dependent.identity in present, (row["file"], edge)
                assert edge.dependent.identity != edge.required.identity


def test_edges_lead_into_the_package_or_out_by_a_declared_dependency(library: Library) -> None:
    """Connection references and variables of flows are never dangling, as in the whole corpus of 679."""
    for row in library.rows:
        solution = library[Path(row["file"]).stem]
        declared = {d.required.identity for d in solution.manifest.missing_dependencies}
        for edge in solution.dependencies:
            if edge.required.kind in ("connectionreference", "environmentvariabledefinition", "canvasapp"):
                assert edge.required.identity in keys(solution) | declared, (row["file"], edge)


def test_audit_needs_connection_references_that_core_has_from_1_70_on(library: Library) -> None:
    """A1, and issue 564 of powerapps-tools."""
    needed = {
        d.required.identity
        for d in library[AUDIT.format("1_24")].manifest.missing_dependencies
        if d.required.solution == "Active" and d.required.kind == "connectionreference"
    }
    assert len(needed) == 8
    for version in ("1_45", "1_52", "1_60"):
        assert not needed & keys(library[CORE.format(version)])
    for version in ("1_70", "1_71_7", "1_72", "2_1_6"):
        assert needed <= keys(library[CORE.format(version)]), version


def test_core_1_72_removes_a_connection_reference_that_audit_1_25_uses(library: Library) -> None:
    """A2."""
    gone = diff(library[CORE.format("1_71_7")], library[CORE.format("1_72")]).removed
    teams = ComponentKey("connectionreference", "admin_microsoftteamscoeconnection")
    assert teams in {c.identity for c in gone}
    audit = library[AUDIT.format("1_25")]
    dependents = {d.dependent.identity for d in audit.dependencies if d.required.identity == teams}
    assert dependents & keys(audit, "workflow")


def test_audit_logs_1_41_removes_two_connection_references(library: Library) -> None:
    """A3. The file name says NurtureComponents 1.51 upstream; only the manifest tells."""
    gone = diff(library[LOGS.format("1_3_6")], library[LOGS.format("1_41")]).removed
    assert {c.key.rsplit("_", 1)[1] for c in gone if c.kind == "connectionreference"} >= {"64c11", "a4b81"}


def test_what_core_upgrades_remove(library: Library) -> None:
    """A4: tables, columns and apps would go with their data."""

    def removed(old: str, new: str) -> Counter[str]:
        return Counter(c.kind for c in diff(library[CORE.format(old)], library[CORE.format(new)]).removed)

    first = removed("1_45", "1_52")
    assert (first["entity"], first["attribute"], first["canvasapp"]) == (2, 52, 1)
    second = diff(library[CORE.format("1_71_7")], library[CORE.format("1_72")]).removed
    assert sum(c.kind == "workflow" and c.attributes["category"] == "5" for c in second) == 11


def test_versions_of_core_are_in_order(library: Library) -> None:
    names = ("1_45", "1_52", "1_60", "1_70", "1_71_7", "1_72", "2_1_6")
    versions = [library[CORE.format(name)].manifest.version for name in names]
    assert versions == sorted(versions)


def test_managed_and_unmanaged_exports_are_nearly_alike(library: Library) -> None:
    for name in ("TerraformSolutionExample_1_0_0_1", "ThirdParty_1_0_0_0", "IncidentReporting_1_0_0_2"):
        managed, unmanaged = library[f"{name}_managed"], library[f"{name}_unmanaged"]
        assert managed.manifest.managed
        assert not unmanaged.manifest.managed
        difference = diff(unmanaged, managed)
        assert not difference.added
        assert not difference.removed


def test_rewriting_real_packages(library: Library) -> None:
    for name in ("Power365CRMSalesSolution_1_0_0_1_unmanaged", "Sample_1_0_unmanaged", AUDIT.format("1_24")):
        package = library.path(name).read_bytes()
        before = library[name]
        changed = rewrite(package, managed=not before.manifest.managed, version="9.8.7.6")
        after = read(changed)
        assert after.manifest.managed is not before.manifest.managed
        assert str(after.manifest.version) == "9.8.7.6"
        assert not diff(before, after)
        assert after.dependencies == before.dependencies
        old, new = Archive(package), Archive(changed)
        assert list(old.members) == list(new.members)
        for member in old.members.values():
            if member.name != "solution.xml":
                assert old.packed(member) == new.packed(new.members[member.name])
        back = read(rewrite(changed, managed=before.manifest.managed, version=str(before.manifest.version)))
        assert back.manifest == before.manifest


def test_both_forms_of_environment_variables(library: Library) -> None:
    old = {v.schema_name: v for v in library[CORE.format("1_70")].environment_variables}
    assert old["admin_PowerAutomateEnvironmentVariable"].packaged_value == (
        "https://us.flow.microsoft.com/manage/environments/"
    )
    assert old["admin_PowerAutomateEnvironmentVariable"].default is None
    sample = {v.schema_name: v for v in library["Sample_1_0_unmanaged"].environment_variables}
    assert sample["name_1"].default == "default_1"
    assert sample["name_2"].required  # written as Name, in the way of early platform versions
    new = {v.schema_name: v for v in library["TerraformTestSolution_1_1_0_0_unmanaged"].environment_variables}
    assert sum(v.packaged_value is not None for v in new.values()) == 2


def test_what_flows_need(library: Library) -> None:
    flows = {flow.name: flow for flow in library[CORE.format("2_1_6")].flows}
    compliance = flows["Admin | Compliance detail request v3"]
    assert compliance.id == "309da5d3-659c-eb11-b1ac-000d3a13451d"
    assert not compliance.activated
    assert "admin_CoECoreO365Outlook" in compliance.connection_references
    assert "admin_ProductionEnvironment" in compliance.environment_variables
    assert not compliance.connectors
    old = library[CORE.format("1_45")].flows
    assert any(flow.connectors and not flow.connection_references for flow in old)


def test_templates(library: Library) -> None:
    template = settings_template(library["BillingPolicyManagement_1_0_0_3_unmanaged"])
    assert len(template["ConnectionReferences"]) == 4
    for line in template["ConnectionReferences"]:
        assert set(line) == {"LogicalName", "ConnectionId", "ConnectorId"}


def test_tables_keep_their_digest_when_only_a_column_changes(library: Library) -> None:
    changed = diff(library[CORE.format("1_70")], library[CORE.format("1_71_7")]).changed
    columns = {c.parent for c in changed if c.kind == "attribute"}
    assert columns
    tables = {c.identity for c in changed if c.kind == "entity"}
    assert columns - tables


BROKEN = {
    "canvas_app_package": ("package.canvas_app", "canvas app"),
    "configuration_migration_data": ("package.configuration_data", "Configuration Migration"),
    "git_lfs_pointer": ("package.git_lfs_pointer", "1742 bytes"),
    "solution_in_subfolder": ("package.subfolder", "'azure-http-key-vault'"),
    "truncated_by_one_byte": ("zip.damaged", "1 byte(s) are missing"),
    "wrapped_nested_zips": ("package.nested_zips", "'TraceParser_1_0_0_4.zip'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_packages_are_told_apart(real_solutions: Path, name: str) -> None:
    rule, said = BROKEN[name]
    with pytest.raises(PackageError) as caught:
        read(real_solutions / "broken" / f"{name}.zip")
    assert caught.value.rule == rule
    assert said in caught.value.message


def test_components_of_the_smallest_package(library: Library) -> None:
    assert library["emptySolution_0_1_0_0_unmanaged"].components == ()
    (app,) = library["ResponsiveCanvasTemplate_1_0_0_1_unmanaged"].components
    assert isinstance(app, Component)
    assert app.kind == "canvasapp"
    assert len(app.files) == 3
