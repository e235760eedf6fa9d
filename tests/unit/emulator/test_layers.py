"""Layers one by one: holding, promoting, patches, what makers change, publishing, containers, flows."""

import io
import json
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.unit.emulator.asked import (
    OFFICE,
    TEAMS,
    Asked,
    import_body,
    package,
    reference_parameter,
    variable_parameter,
)

from pipelinehost_dataverse.solution import (
    AppModule,
    Column,
    ConnectionReference,
    EnvironmentVariable,
    Table,
    VariableType,
    WebResource,
    cloud_flow,
    derived_id,
    missing,
    read,
)

EXPENSE = Table("cts_expense", (Column("cts_amount", "money"),))
TRIP = Table("cts_trip", (Column("cts_days", "int"),))
MAIL = ConnectionReference("cts_Mail", "Mail", "", OFFICE)
CHAT = ConnectionReference("cts_Chat", "Chat", "", TEAMS)
NOTIFY = cloud_flow("Notify", connection_references=["cts_Mail"])
FLOW = derived_id("workflow", "Notify")


def limit(
    default: str | None = None, packaged: str | None = None, kind: VariableType = VariableType.STRING
) -> EnvironmentVariable:
    return EnvironmentVariable("cts_Limit", "Limit", "", kind, default, False, packaged)


async def done(env: Asked, method: str, path: str, body: object = None) -> Any:
    answer = await env.request(method, path, body)
    assert answer.status_code < 300, answer.text
    return answer.json() if answer.content else None


async def layers(env: Asked, key: str) -> list[tuple[str, str]]:
    """Solution and display name of each layer of a component, the base first."""
    rows = await env.get(f"msdyn_solutioncomponentsummaries?$filter=msdyn_uniquename eq '{key}'")
    found = await env.get(f"msdyn_componentlayers?$filter=msdyn_componentid eq {rows[0]['msdyn_objectid']}")
    assert [row["msdyn_order"] for row in found] == list(range(1, len(found) + 1))
    return [(row["msdyn_solutionname"], row["msdyn_name"]) for row in found]


async def rename(env: Asked, kind: str, key: str, name: str) -> None:
    """A maker's change of any component."""
    rows = await env.get(
        f"msdyn_solutioncomponentsummaries?$filter=msdyn_uniquename eq '{key}' and "
        f"msdyn_componentlogicalname eq '{kind}'"
    )
    body = {"SolutionComponentName": kind, "ComponentId": rows[0]["msdyn_objectid"], "Name": name}
    await done(env, "POST", "emulator_CustomizeComponent", body)


async def delete(env: Asked, name: str) -> None:
    await done(env, "DELETE", f"solutions({(await env.solution(name))['solutionid']})")


# -- stage for upgrade, promote ------------------------------------------------------------------------------


async def test_a_held_upgrade_lies_beside_its_base_until_it_is_promoted(qa: Asked) -> None:
    await qa.install(package("Base", "1.0", EXPENSE, TRIP))
    base = await qa.solution("Base")
    assert (await qa.install(package("Base", "2.0", EXPENSE, MAIL), HoldingSolution=True)).succeeded
    held = await qa.solution("Base_Upgrade")
    assert (held["version"], held["_parentsolutionid_value"]) == ("2.0", base["solutionid"])
    assert (await qa.solution("Base"))["version"] == "1.0"
    assert await layers(qa, "cts_expense") == [("Base", "cts_expense"), ("Base_Upgrade", "cts_expense")]
    assert len(await qa.get("connectionreferences")) == 1, "what is new is there already"
    assert (await qa.stage(package("Base", "3.0", EXPENSE)))["SolutionDetails"]["HasPendingUpgrade"]

    answer = await done(qa, "POST", "DeleteAndPromote", {"UniqueName": "Base"})
    assert answer["SolutionId"] == held["solutionid"], "what was held takes the name"
    row = await qa.solution("Base")
    assert (row["version"], row["solutionid"], row["_parentsolutionid_value"]) == (
        "2.0", held["solutionid"], None,
    )  # fmt: skip
    assert await qa.solution("Base_Upgrade") is None
    assert ("entity", "cts_trip") not in await qa.components("Base")
    assert (await qa.install(package("Base", "3.0", EXPENSE), upgrade=True)).succeeded


async def test_promoting_says_why_it_cannot(qa: Asked) -> None:
    async def refused(name: str, status: int = 400) -> str:
        return (await qa.error("POST", "DeleteAndPromote", {"UniqueName": name}, status=status))[0]

    await qa.install(package("Base", "1.0", EXPENSE, MAIL))
    await qa.install(package("Draft", "1.0", TRIP, managed=False))
    assert await refused("Base") == "0x8004853b", "no upgrade is ready"
    assert await refused("Draft") == "0x8004853c", "not a managed solution"
    assert await refused("Nothing", 404) == "0x80040217"
    needs = missing(("connectionreference", "cts_mail"), ("workflow", FLOW))
    await qa.install(package("Extra", "1.0", NOTIFY, missing=[needs]))
    await qa.install(package("Base", "2.0", EXPENSE), HoldingSolution=True)
    assert await refused("Base_Upgrade") == "0x8004853c"
    ids = await done(qa, "POST", "DeleteAndPromoteAsync", {"UniqueName": "Base"})
    outcome = await qa.finished(ids["AsyncOperationId"])
    assert (outcome.succeeded, outcome.code) == (False, "8004F01D")
    assert "DependencyCount : 1" in outcome.message
    assert (await qa.solution("Base"))["version"] == "1.0", "nothing has changed"
    row = await qa.get(f"asyncoperations({ids['AsyncOperationId']})")
    assert row["operationtype"] == 207
    await delete(qa, "Extra")
    await done(qa, "POST", "DeleteAndPromote", {"UniqueName": "Base"})
    assert await qa.history() == [
        ("Base", "1.0", 1, True),
        ("Draft", "1.0", 1, True),
        ("Extra", "1.0", 1, True),
        ("Base", "2.0", 2, True),
        ("Base", "1.0", 2, False),
        ("Extra", "1.0", 0, True),
        ("Base", "2.0", 2, True),
    ]


async def test_holding_needs_a_higher_managed_version_of_what_is_there(qa: Asked) -> None:
    assert (await qa.install(package("Base", "1.0", EXPENSE), HoldingSolution=True)).code == "80048033"
    await qa.install(package("Base", "1.0", EXPENSE))
    assert (await qa.install(package("Base", "1.0", EXPENSE), HoldingSolution=True)).code == "80048541"
    assert await qa.solution("Base_Upgrade") is None
    await qa.install(package("Base_Upgrade", "1.0", TRIP))
    outcome = await qa.install(package("Base", "2.0", EXPENSE), upgrade=True)
    assert (outcome.code, await layers(qa, "cts_expense")) == ("8004F023", [("Base", "cts_expense")])


async def test_what_a_failed_upgrade_leaves_is_applied_or_deleted(qa: Asked) -> None:
    await qa.install(package("Base", "1.0", EXPENSE, MAIL))
    needs = missing(("connectionreference", "cts_mail"), ("workflow", FLOW))
    await qa.install(package("Extra", "1.0", NOTIFY, missing=[needs]))
    for remedy in ("delete", "apply"):
        outcome = await qa.install(package("Base", "2.0", EXPENSE, TRIP), upgrade=True)
        assert outcome.code == "8004F046"
        assert ("entity", "cts_trip") in await qa.components("Base_Upgrade")
        code, message = await qa.error("DELETE", f"solutions({(await qa.solution('Base'))['solutionid']})")
        assert (code, "'Base_Upgrade' first" in message) == ("0x8004f01d", True)
        if remedy == "delete":
            body = {"SolutionUniqueName": "Base_Upgrade"}
            ids = await done(qa, "POST", "UninstallSolutionAsync", body)
            assert (await qa.finished(ids["AsyncOperationId"])).succeeded
            tables = await qa.get("EntityDefinitions?$filter=IsCustomEntity eq true")
            assert [row["LogicalName"] for row in tables] == ["cts_expense"], "what only it had is gone"
        else:
            await delete(qa, "Extra")
            await done(qa, "POST", "DeleteAndPromote", {"UniqueName": "Base"})
            assert (await qa.solution("Base"))["version"] == "2.0"


async def test_an_upgrade_takes_the_place_of_its_base_in_the_stack(qa: Asked) -> None:
    def shown(name: str) -> EnvironmentVariable:
        return EnvironmentVariable("cts_Limit", name)

    await qa.install(package("Low", "1.0", shown("low")))
    await qa.install(package("High", "1.0", shown("high")))
    assert (await qa.install(package("Low", "2.0", shown("lower")), upgrade=True)).succeeded
    assert await layers(qa, "cts_limit") == [("Low", "lower"), ("High", "high")]
    assert (await qa.get("environmentvariabledefinitions"))[0]["displayname"] == "high"


# -- patches -------------------------------------------------------------------------------------------------


def patch(name: str, version: str, *parts: Any, managed: bool = True, parent: str = "1.4") -> bytes:
    return package(name, version, *parts, managed=managed, patch_of=("Base", parent))


async def test_patches_lie_above_their_base_and_go_with_it(qa: Asked) -> None:
    await qa.install(package("Base", "1.4", EXPENSE, MAIL))
    other = ConnectionReference("cts_Mail", "Other's", "", OFFICE)
    await qa.install(package("Other", "1.0", other))
    mine = ConnectionReference("cts_Mail", "Patched", "", OFFICE)
    assert (await qa.install(patch("Base_P1", "1.4.1", mine, TRIP))).succeeded
    assert await layers(qa, "cts_mail") == [("Base", "Mail"), ("Base_P1", "Patched"), ("Other", "Other's")]
    row = await qa.solution("Base_P1")
    assert row["_parentsolutionid_value"] == (await qa.solution("Base"))["solutionid"]
    await delete(qa, "Other")
    assert (await qa.get("connectionreferences"))[0]["connectionreferencedisplayname"] == "Patched"
    details = (await qa.stage(patch("Base_P2", "1.4.2", TRIP)))["SolutionDetails"]
    assert details["IsPatchSolution"] is True
    staged = (await qa.stage(package("Base", "1.5", EXPENSE)))["SolutionDetails"]
    assert staged["PreviousPatchSolutionsNames"] == ["Base_P1"]

    assert (await qa.install(package("Base", "1.5", EXPENSE), upgrade=True)).succeeded
    assert await qa.solution("Base_P1") is None, "an upgrade rolls the patches up"
    assert await qa.get("connectionreferences") == []

    await qa.install(patch("Base_P3", "1.5.1", TRIP))
    await delete(qa, "Base")
    assert await qa.solution("Base_P3") is None, "uninstalling a base uninstalls its patches"
    assert await qa.get("msdyn_componentlayers") == []


async def test_patches_have_rules(qa: Asked) -> None:
    async def code(content: bytes, **more: object) -> str:
        return (await qa.install(content, **more)).code  # type: ignore[arg-type]  # options of an import

    assert await code(patch("Base_P1", "1.4.1", TRIP)) == "80048033", "its parent is not there"
    await qa.install(package("Base", "1.4", EXPENSE))
    for version in ("1.3.9", "1.5.1", "2.4.1", "1.4", "1.4.0.0"):
        outcome = await qa.install(patch("Base_P1", version, TRIP))
        assert outcome.code == "80048539"
        assert f"Patch version {version} is invalid for parent version 1.4" in outcome.message
    assert await code(patch("Base_P1", "1.4.2", TRIP), upgrade=True) == "80048033"
    assert await code(patch("Base_P1", "1.4.2", TRIP), HoldingSolution=True) == "80048033"
    assert await code(patch("Base_P1", "1.4.2", TRIP, managed=False)) == "80048041"
    assert await code(patch("Base_P1", "1.4.2", TRIP)) == "00000000"
    for name in ("Base_P1", "Base_P2"):
        outcome = await qa.install(patch(name, "1.4.2", TRIP))
        assert outcome.code == "8004F042"
        assert "Solution patch with version 1.4.2 already exists." in outcome.message
    assert await code(patch("Base_P2", "1.4.1", TRIP)) == "80048539", "lower than another patch"
    deep = package("Base_P3", "1.4.3", TRIP, patch_of=("Base_P1", "1.4.2"))
    assert await code(deep) == "80048539", "a patch has no patches"
    assert await code(package("Base_P1", "9.0", TRIP)) == "8004F023"
    taken = package("Extra", "1.0", MAIL)
    await qa.install(taken)
    assert await code(patch("Extra", "1.4.3", TRIP)) == "8004F023"
    assert await code(patch("Base_P1", "1.4.3", MAIL)) == "00000000"
    assert ("entity", "cts_trip") in await qa.components("Base_P1"), "a patch removes nothing"
    await qa.install(package("Base", "2.0", EXPENSE), HoldingSolution=True)
    assert await code(patch("Base_P4", "1.4.4", TRIP)) == "80048539", "an upgrade waits"


async def test_a_patch_begins_in_development_and_is_rolled_up_there(qa: Asked, tmp_path: Path) -> None:
    def clone(version: str) -> dict[str, str]:
        return {"ParentSolutionUniqueName": "Base", "DisplayName": "Fix", "VersionNumber": version}

    await qa.install(package("Base", "1.4", EXPENSE, managed=False))
    assert (await qa.error("POST", "CloneAsPatch", clone("1.5.0")))[0] == "0x80048539"
    first = (await done(qa, "POST", "CloneAsPatch", clone("1.4.1")))["SolutionId"]
    row = await qa.get(f"solutions({first})")
    base = await qa.solution("Base")
    assert (row["version"], row["friendlyname"], row["ismanaged"]) == ("1.4.1", "Fix", False)
    assert row["_parentsolutionid_value"] == base["solutionid"]
    assert (await qa.error("POST", "CloneAsPatch", clone("1.4.1")))[0] == "0x8004f042"

    # The parent is locked, the patch is not.
    body = {"SolutionName": "Base", "Managed": True}
    assert (await qa.error("POST", "ExportSolution", body))[0] == "0x80048035"
    assert "patches" in (await qa.error("PATCH", f"solutions({base['solutionid']})", {"version": "1.6"}))[1]
    assert (await qa.error("DELETE", f"solutions({base['solutionid']})"))[0] == "0x8004f01d"
    content = package(row["uniquename"], "1.4.2", TRIP, managed=False, patch_of=("Base", "1.4"))
    assert (await qa.install(content)).succeeded
    exported = await qa.export(row["uniquename"], managed=True)
    manifest = read(exported).manifest
    assert (manifest.parent_solution, str(manifest.parent_version)) == ("Base", "1.4")
    async with Asked.open(tmp_path / "target.sqlite") as target:
        await target.install(package("Base", "1.4", EXPENSE))
        assert (await target.install(exported)).succeeded
        refused = await target.error("POST", "CloneAsPatch", clone("1.4.9"))
        assert "managed" in refused[1]

    assert (await qa.error("POST", "CloneAsSolution", clone("1.4.9")))[0] == "0x80048541"
    whole = (await done(qa, "POST", "CloneAsSolution", clone("1.5")))["SolutionId"]
    assert whole == base["solutionid"]
    assert (await qa.solution("Base"))["version"] == "1.5"
    assert await qa.solution(row["uniquename"]) is None
    assert {("entity", "cts_trip"), ("entity", "cts_expense")} <= await qa.components("Base")
    answer = await qa.request("POST", "ExportSolution", body)
    assert answer.status_code == 501, "what the patch brought is in no package of Base"
    rolled = package("Base", "1.5", EXPENSE, TRIP, managed=False)
    assert (await qa.install(rolled)).succeeded
    assert await qa.export("Base", managed=False) == rolled


async def test_an_empty_patch_can_be_exported(qa: Asked) -> None:
    await qa.install(package("Base", "1.4", EXPENSE, managed=False))
    body = {"ParentSolutionUniqueName": "Base", "DisplayName": "Fix", "VersionNumber": "1.4.1"}
    row = await qa.get(f"solutions({(await done(qa, 'POST', 'CloneAsPatch', body))['SolutionId']})")
    solution = read(await qa.export(row["uniquename"], managed=True))
    assert (solution.manifest.parent_solution, solution.components) == ("Base", ())
    assert solution.manifest.publisher.unique_name == "contoso"
    await delete(qa, row["uniquename"])
    assert await qa.export("Base", managed=False), "without patches it is open again"


# -- what makers change in a target --------------------------------------------------------------------------


async def test_a_change_of_a_flow_is_a_layer_of_its_own_on_top(qa: Asked) -> None:
    await qa.install(package("Base", "1.0", MAIL, NOTIFY))
    await done(qa, "PATCH", f"workflows({FLOW})", {"name": "Ours"})
    assert await layers(qa, FLOW) == [("Base", "Notify"), ("Active", "Ours")]
    row = await qa.get(f"workflows({FLOW})")
    assert (row["name"], row["ismanaged"]) == ("Ours", True), "it is managed all the same"
    maintained = await qa.install(package("Base", "1.1", MAIL, NOTIFY), upgrade=True)
    assert maintained.succeeded
    assert (await qa.get(f"workflows({FLOW})"))["name"] == "Ours", "customizations are maintained"
    content = package("Base", "1.2", MAIL, NOTIFY)
    assert (await qa.install(content, upgrade=True, OverwriteUnmanagedCustomizations=True)).succeeded
    assert await layers(qa, FLOW) == [("Base", "Notify")]


async def test_overwriting_spares_what_is_not_in_the_package_and_what_is_merged(qa: Asked) -> None:
    app = AppModule("cts_Admin", "Admin", tables=("cts_expense",))
    await qa.install(package("Base", "1.0", EXPENSE, MAIL, app))
    await rename(qa, "entity", "cts_expense", "Ours")
    await rename(qa, "appmodule", "cts_admin", "Ours")
    await rename(qa, "connectionreference", "cts_mail", "Ours")
    await done(qa, "POST", "PublishAllXml", {})
    content = package("Base", "1.1", EXPENSE, app)
    assert (await qa.install(content, OverwriteUnmanagedCustomizations=True)).succeeded
    assert await qa.components("Active") == {("appmodule", "cts_admin"), ("connectionreference", "cts_mail")}


async def test_removing_customizations_brings_the_managed_layer_back(qa: Asked) -> None:
    await qa.install(package("Base", "1.0", MAIL, NOTIFY))
    await done(qa, "PATCH", f"workflows({FLOW})", {"name": "Ours"})
    call = f"RemoveActiveCustomizations(SolutionComponentName='Workflow',ComponentId={FLOW})"
    await done(qa, "GET", call)
    assert (await qa.get(f"workflows({FLOW})"))["name"] == "Notify"
    await done(qa, "GET", call)
    alone = derived_id("workflow", "Alone")
    await qa.install(package("Draft", "1.0", cloud_flow("Alone"), managed=False))
    call = f"RemoveActiveCustomizations(SolutionComponentName='workflow',ComponentId={alone})"
    assert "nothing would be left" in (await qa.error("GET", call))[1]


async def test_a_component_that_only_makers_have_stays_and_is_unmanaged(qa: Asked) -> None:
    await qa.install(package("Base", "1.0", EXPENSE, NOTIFY, MAIL))
    await done(qa, "PATCH", f"workflows({FLOW})", {"name": "Ours"})
    assert (await qa.install(package("Base", "2.0", EXPENSE, MAIL), upgrade=True)).succeeded
    assert await layers(qa, FLOW) == [("Active", "Ours")]
    assert (await qa.get(f"workflows({FLOW})"))["ismanaged"] is False
    assert (await qa.install(package("Base", "3.0", EXPENSE), upgrade=True)).code == "8004F046"
    assert (await qa.install(package("Other", "1.0", NOTIFY, MAIL))).code == "8004F016"


async def test_changes_wait_to_be_published(qa: Asked) -> None:
    await qa.install(package("Base", "1.0", EXPENSE, TRIP, WebResource("cts_a.js", b"1")))
    for kind, key in (("entity", "cts_expense"), ("entity", "cts_trip"), ("webresource", "cts_a.js")):
        await rename(qa, kind, key, "Ours")

    async def shown() -> dict[str, str]:
        rows = await qa.get(
            "EntityDefinitions?$filter=IsCustomEntity eq true&$select=LogicalName,DisplayName"
        )
        return {row["LogicalName"]: row["DisplayName"]["UserLocalizedLabel"]["Label"] for row in rows}

    assert await shown() == {"cts_expense": "cts_expense", "cts_trip": "cts_trip"}
    some = "<importexportxml><entities><entity>cts_trip</entity></entities></importexportxml>"
    await done(qa, "POST", "PublishXml", {"ParameterXml": some})
    assert await shown() == {"cts_expense": "cts_expense", "cts_trip": "Ours"}
    await done(qa, "POST", "PublishAllXml", {})
    assert await shown() == {"cts_expense": "Ours", "cts_trip": "Ours"}


@pytest.mark.parametrize(
    ("xml", "code", "status"),
    [
        ("<importexportxml><entities>", "0x8004802c", 400),
        ("<entities/>", "0x8004802c", 400),
        (
            "<importexportxml><entities><entity>cts_no</entity></entities></importexportxml>",
            "0x80040217",
            404,
        ),
        ("<importexportxml><ribbons><ribbon>x</ribbon></ribbons></importexportxml>", "0x80060888", 501),
    ],
)
async def test_what_cannot_be_published_is_refused(qa: Asked, xml: str, code: str, status: int) -> None:
    assert (await qa.error("POST", "PublishXml", {"ParameterXml": xml}, status=status))[0] == code


async def test_what_an_unpublished_change_needs_counts_as_unpublished(qa: Asked) -> None:
    await qa.install(package("Base", "1.0", EXPENSE))
    needs = missing(("entity", "cts_expense"), ("entity", "cts_trip"))
    await qa.install(package("Draft", "1.0", TRIP, missing=[needs], managed=False))
    path = "RetrieveDependenciesForUninstall(SolutionUniqueName='Base')"
    assert [row["dependencytype"] for row in await qa.get(path)] == [4]
    await done(qa, "POST", "PublishAllXml", {})
    assert [row["dependencytype"] for row in await qa.get(path)] == [2]
    await qa.install(package("Draft", "1.1", TRIP, managed=False))
    assert [row["dependencytype"] for row in await qa.get(path)] == [2], "until that is published, too"
    await done(qa, "POST", "PublishAllXml", {})
    assert await qa.get(path) == []


async def test_an_update_needs_what_its_new_version_needs(qa: Asked) -> None:
    await qa.install(package("Base", "1.0", MAIL))
    needs = missing(("connectionreference", "cts_mail"), ("workflow", FLOW))
    await qa.install(package("Extra", "1.0", NOTIFY, EXPENSE, missing=[needs]))
    path = "RetrieveDependenciesForUninstall(SolutionUniqueName='Base')"
    assert len(await qa.get(path)) == 1
    await qa.install(package("Extra", "1.1", EXPENSE))
    assert len(await qa.get(path)) == 1, "the flow is still there"
    await qa.install(package("Extra", "1.2", cloud_flow("Notify")))
    assert await qa.get(path) == []


async def test_an_upgrade_cannot_remove_what_it_says_that_it_needs(qa: Asked) -> None:
    await qa.install(package("Base", "1.0", MAIL, NOTIFY))
    needs = missing(("connectionreference", "cts_mail"), ("workflow", FLOW))
    outcome = await qa.install(package("Base", "2.0", NOTIFY, missing=[needs]), upgrade=True)
    assert (outcome.code, "Solution: Base_Upgrade" in outcome.message) == ("8004F046", True)
    await delete(qa, "Base_Upgrade")
    assert (await qa.install(package("Base", "3.0", NOTIFY), upgrade=True)).succeeded, (
        "its files alone may err"
    )


async def test_what_makers_needed_goes_with_their_customizations(qa: Asked) -> None:
    await qa.install(package("Base", "1.0", MAIL))
    await qa.install(package("Extra", "1.0", cloud_flow("Notify")))
    mail = {"x": {"connection": {"connectionReferenceLogicalName": "cts_Mail"}}}
    text = json.dumps({"properties": {"connectionReferences": mail}})
    await done(qa, "PATCH", f"workflows({FLOW})", {"clientdata": text})
    path = "RetrieveDependenciesForUninstall(SolutionUniqueName='Base')"
    assert len(await qa.get(path)) == 1
    call = f"RemoveActiveCustomizations(SolutionComponentName='Workflow',ComponentId={FLOW})"
    await done(qa, "GET", call)
    assert await qa.get(path) == []


async def test_a_change_goes_on_from_what_is_not_published(qa: Asked) -> None:
    await qa.install(package("Base", "1.0", WebResource("cts_a.js", b"1", type=3)))
    await qa.install(package("Draft", "1.0", WebResource("cts_a.js", b"1", type=1), managed=False))
    await rename(qa, "webresource", "cts_a.js", "Ours")
    await done(qa, "POST", "PublishAllXml", {})
    rows = await qa.get("msdyn_componentlayers?$filter=msdyn_solutionname eq 'Active'")
    assert [(row["msdyn_name"], json.loads(row["msdyn_componentjson"])["type"]) for row in rows] == [
        ("Ours", "1")
    ]


async def test_an_unmanaged_solution_is_only_a_container(qa: Asked) -> None:
    await qa.install(package("One", "1.0", EXPENSE, MAIL, managed=False))
    await qa.install(package("Two", "1.0", MAIL, managed=False))
    await delete(qa, "One")
    assert ("connectionreference", "cts_mail") in await qa.components("Two")
    await delete(qa, "Two")
    assert {("connectionreference", "cts_mail"), ("entity", "cts_expense")} <= await qa.components("Active")
    assert await qa.get("RetrieveMissingDependencies(SolutionUniqueName='Active')") == []


async def test_an_export_after_a_change_that_is_in_no_package_is_refused(qa: Asked) -> None:
    draft = package("Draft", "1.0", MAIL, NOTIFY, managed=False)
    await qa.install(draft)
    await done(qa, "PATCH", f"workflows({FLOW})", {"name": "Ours"})
    code, message = await qa.error(
        "POST", "ExportSolution", {"SolutionName": "Draft", "Managed": True}, status=501
    )
    assert f"workflow '{FLOW}'" in message, code
    await qa.install(draft)
    assert await qa.export("Draft", managed=False) == draft


# -- flows and connections -----------------------------------------------------------------------------------


async def test_a_flow_can_be_turned_on_when_its_connection_is_there(qa: Asked) -> None:
    await qa.install(package("Base", "1.0", MAIL, NOTIFY))
    on, off = {"statecode": 1, "statuscode": 2}, {"statecode": 0, "statuscode": 1}
    code, message = await qa.error("PATCH", f"workflows({FLOW})", on)
    assert (code, "Connection Id missing for connection reference logical name 'cts_Mail'" in message) == (
        "0x80060467", True,
    )  # fmt: skip
    reference = (await qa.get("connectionreferences"))[0]["connectionreferenceid"]
    path = f"connectionreferences({reference})"
    assert "does not exist" in (await qa.error("PATCH", path, {"connectionid": "mine"}))[1]
    await qa.connect("chat", TEAMS)
    assert "shared_teams" in (await qa.error("PATCH", path, {"connectionid": "chat"}))[1]
    await qa.connect("mine")
    await done(qa, "PATCH", path, {"connectionid": "mine"})
    await done(qa, "PATCH", f"workflows({FLOW})", on)
    assert (await qa.get(f"workflows({FLOW})"))["statecode"] == 1
    assert await layers(qa, FLOW) == [("Base", "Notify")], "neither is a customization of its own"
    await done(qa, "PATCH", f"workflows({FLOW})", off)
    await done(qa, "PATCH", path, {"connectionid": None})
    assert (await qa.error("PATCH", f"workflows({FLOW})", on))[0] == "0x80060467"
    await done(qa, "PATCH", path, {"connectionid": "mine"})
    await done(qa, "DELETE", "http://environment/connectivity/connections/mine?api-version=1")
    assert (await qa.error("PATCH", f"workflows({FLOW})", on))[0] == "0x80060467", "a connection that is gone"
    assert (
        "status code" in (await qa.error("PATCH", f"workflows({FLOW})", {"statecode": 1, "statuscode": 1}))[1]
    )


async def test_what_a_changed_flow_refers_to_decides(qa: Asked) -> None:
    await qa.install(package("Base", "1.0", MAIL, CHAT, NOTIFY))
    await qa.connect("chat", TEAMS)
    text = json.dumps(
        {
            "properties": {
                "connectionReferences": {"x": {"connection": {"connectionReferenceLogicalName": "cts_Chat"}}}
            }
        }
    )
    await done(qa, "PATCH", f"workflows({FLOW})", {"clientdata": text})
    content = package("Base", "1.1", MAIL, CHAT, NOTIFY)
    chat = reference_parameter("cts_Chat", "chat", TEAMS)
    assert (await qa.install(content, ComponentParameters=[chat])).succeeded
    assert (await qa.get(f"workflows({FLOW})"))["statecode"] == 1, "it needs no mail any more"
    assert (await qa.install(package("Base", "1.2", CHAT, NOTIFY), upgrade=True)).succeeded
    outcome = await qa.install(package("Base", "1.3", MAIL, NOTIFY), upgrade=True)
    assert (outcome.code, "cts_Chat" in outcome.message) == ("8004F046", True)
    code, _ = await qa.error("PATCH", f"workflows({FLOW})", {"clientdata": "{"})
    assert code == "0x80060468"


@pytest.mark.parametrize(
    ("table", "changes", "status"),
    [
        ("workflows", {"category": 5}, 501),
        ("workflows", {"name": 7}, 400),
        ("workflows", {}, 400),
        ("connectionreferences", {"connectorid": "x"}, 501),
        ("environmentvariablevalues", {"schemaname": "x"}, 501),
        ("workflows", {"name": "x"}, 404),
        ("environmentvariablevalues", {"value": "x"}, 404),
    ],
)
async def test_other_changes_are_refused(
    qa: Asked, table: str, changes: dict[str, object], status: int
) -> None:
    await qa.error("PATCH", f"{table}({derived_id('workflow', 'Nobody')})", changes, status=status)


# -- environment variables -----------------------------------------------------------------------------------


async def test_a_value_of_the_target_wins_until_it_is_overwritten_or_deleted(qa: Asked) -> None:
    def version(number: str, packaged: str | None) -> bytes:
        return package("Base", number, limit("0", packaged))

    await qa.install(version("1.0", None))
    definition = (await qa.get("environmentvariabledefinitions"))[0]["environmentvariabledefinitionid"]
    bind = {"EnvironmentVariableDefinitionId@odata.bind": f"/environmentvariabledefinitions({definition})"}
    answer = await qa.request("POST", "environmentvariablevalues", {"value": "ours", **bind})
    assert answer.status_code == 204
    row = await qa.value("cts_Limit")
    assert row["environmentvariablevalueid"] in answer.headers["OData-EntityId"]
    code, _ = await qa.error("POST", "environmentvariablevalues", {"value": "2", **bind}, status=412)
    assert code == "0x80060892"
    await qa.install(version("1.1", "5"))
    assert (await qa.value("cts_Limit"))["value"] == "ours", "a managed update keeps it"
    path = f"environmentvariablevalues({row['environmentvariablevalueid']})"
    await done(qa, "DELETE", path)
    packaged = await qa.value("cts_Limit")
    assert (packaged["value"], packaged["ismanaged"]) == ("5", True), "below it the packaged one was waiting"
    assert "managed solution" in (await qa.error("DELETE", path))[1]
    await done(qa, "PATCH", path, {"value": "ours again"})
    await qa.install(version("1.2", "6"), OverwriteUnmanagedCustomizations=True)
    assert (await qa.value("cts_Limit"))["value"] == "6"
    given = [variable_parameter("cts_Limit", "given", row["environmentvariablevalueid"])]
    await qa.install(version("1.3", "7"), OverwriteUnmanagedCustomizations=True, ComponentParameters=given)
    assert (await qa.value("cts_Limit"))["value"] == "given"


async def test_a_packaged_value_goes_with_the_layer_that_brought_it(qa: Asked) -> None:
    await qa.install(package("One", "1.0", limit("0", "1")))
    await qa.install(package("Two", "1.0", limit("0", "2")))
    assert (await qa.value("cts_Limit"))["value"] == "2"
    await delete(qa, "Two")
    assert (await qa.value("cts_Limit"))["value"] == "1"
    assert (await qa.install(package("One", "2.0", limit("0")), upgrade=True)).succeeded
    assert await qa.value("cts_Limit") is None, "the default counts again"


async def test_values_and_defaults_fit_their_type(qa: Asked) -> None:
    await qa.install(package("Base", "1.0", limit("0", "1", VariableType.NUMBER)))
    row = (await qa.value("cts_Limit"))["environmentvariablevalueid"]
    assert "NUMBER" in (await qa.error("PATCH", f"environmentvariablevalues({row})", {"value": "many"}))[1]
    definition = (await qa.get("environmentvariabledefinitions"))[0]["environmentvariabledefinitionid"]
    path = f"environmentvariabledefinitions({definition})"
    assert "NUMBER" in (await qa.error("PATCH", path, {"defaultvalue": "many"}))[1]
    await done(qa, "PATCH", path, {"defaultvalue": "9", "displayname": "Ours"})
    assert await layers(qa, "cts_limit") == [("Base", "Limit"), ("Active", "Ours")]
    assert (await qa.get(path))["defaultvalue"] == "9"
    await done(qa, "PATCH", path, {"defaultvalue": None})
    assert (await qa.get(path))["defaultvalue"] is None


# -- what a package must have --------------------------------------------------------------------------------


async def test_a_root_component_is_in_the_package_or_in_the_target(qa: Asked) -> None:
    content = package("Base", "1.0", WebResource("cts_a.js", b"1"))
    renamed = _with_root(content, "cts_elsewhere.js")
    outcome = await qa.install(renamed)
    assert (outcome.code, "cts_elsewhere.js" in outcome.message) == ("8004801F", True)
    await qa.install(package("Other", "1.0", WebResource("cts_elsewhere.js", b"1")))
    assert (await qa.install(renamed)).succeeded


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [("<Managed>1<", "<Managed>2<", "8004802C"), ("<SolutionManifest>", "<SolutionManifest", "80048013")],
)
async def test_what_cannot_be_read_says_what_sort_of_failure_it_is(
    qa: Asked, old: str, new: str, code: str
) -> None:
    outcome = await qa.install(_changed(package("Base", "1.0", EXPENSE), old, new))
    assert (outcome.succeeded, outcome.code) == (False, code)
    assert (await qa.install(b"no zip at all")).code == "80048060"


def _with_root(content: bytes, name: str) -> bytes:
    return _changed(content, 'schemaName="cts_a.js"', f'schemaName="{name}"')


def _changed(content: bytes, old: str, new: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(made, "w") as target:
        for entry in source.infolist():
            text = source.read(entry)
            if entry.filename == "solution.xml":
                assert old.encode() in text
                text = text.replace(old.encode(), new.encode())
            target.writestr(entry.filename, text)
    return made.getvalue()


# -- files of the first format -------------------------------------------------------------------------------


async def test_a_file_of_the_first_format_is_brought_up_to_date(tmp_path: Path) -> None:
    """There, unmanaged solutions had layers of their own and one table less."""
    path = tmp_path / "old.sqlite"
    draft = package("Draft", "1.0", MAIL, NOTIFY, managed=False)
    async with Asked.open(path) as env:
        await env.install(package("Base", "1.0", EXPENSE, MAIL))
        await env.install(draft)
        before = await env.components("Draft"), await env.components("Base")
    with sqlite3.connect(path) as db:
        db.executescript(
            """
            ALTER TABLE layer RENAME TO new;
            DROP INDEX layer_component;
            CREATE TABLE layer (solution TEXT NOT NULL, component INTEGER NOT NULL, sha256 BLOB NOT NULL,
              name TEXT NOT NULL, schema_name TEXT NOT NULL, facts TEXT NOT NULL, behavior INTEGER NOT NULL,
              published INTEGER NOT NULL, PRIMARY KEY (solution, component)) WITHOUT ROWID;
            CREATE INDEX layer_component ON layer (component);
            INSERT INTO layer SELECT coalesce(m.solution, l.solution), l.component, l.sha256, name,
              schema_name, facts, l.behavior, published FROM new l LEFT JOIN membership m
              ON m.component = l.component AND l.solution IN (SELECT id FROM solution WHERE NOT managed);
            DROP TABLE new;
            DROP TABLE membership;
            UPDATE dependency SET solution = (SELECT id FROM solution WHERE unique_name = 'Draft')
              WHERE solution = (SELECT id FROM solution WHERE unique_name = 'Active');
            ALTER TABLE dependency DROP COLUMN published;
            ALTER TABLE solution DROP COLUMN patch_of;
            ALTER TABLE operation DROP COLUMN user;
            DROP TABLE user;
            PRAGMA user_version = 1;
            """
        )
    db.close()
    async with Asked.open(path) as env:
        assert (await env.components("Draft"), await env.components("Base")) == before
        assert await layers(env, "cts_mail") == [("Base", "Mail"), ("Active", "Mail")]
        assert await env.export("Draft", managed=False) == draft
        outcome = await env.install(package("Base", "2.0", EXPENSE), upgrade=True)
        assert outcome.succeeded, "the makers' layer keeps what the flow needs"
        await delete(env, "Draft")
        assert ("workflow", FLOW) in await env.components("Active")


async def test_a_file_of_the_second_format_is_brought_up_to_date(tmp_path: Path) -> None:
    """There, every application acted as the environment's own user."""
    path = tmp_path / "old.sqlite"
    async with Asked.open(path) as env:
        await env.install(package("Base", "1.0", EXPENSE, MAIL))
        before = await env.get("asyncoperations?$select=_createdby_value")
    with sqlite3.connect(path) as db:
        db.executescript("ALTER TABLE operation DROP COLUMN user; DROP TABLE user; PRAGMA user_version = 2;")
    db.close()
    async with Asked.open(path) as env:
        assert await env.get("asyncoperations?$select=_createdby_value") == before
        assert (await env.install(package("Base", "2.0", EXPENSE))).succeeded


async def test_a_synchronous_import_may_be_held_too(qa: Asked) -> None:
    await qa.install(package("Base", "1.0", EXPENSE))
    body = import_body(package("Base", "2.0", EXPENSE), HoldingSolution=True)
    assert (await qa.request("POST", "ImportSolution", body)).status_code == 204
    assert await qa.solution("Base_Upgrade") is not None
