"""The rules of import, on packages that are made here."""

from pathlib import Path

import pytest
from tests.unit.emulator.asked import (
    OFFICE,
    TEAMS,
    Asked,
    package,
    reference_parameter,
    variable_parameter,
)

from pipelinehost_dataverse.solution import (
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
    write,
)

EXPENSE = Table("cts_expense", (Column("cts_amount", "money"),))
TRIP = Table("cts_trip", (Column("cts_days", "int"),))
MAIL = ConnectionReference("cts_Mail", "Mail", "", OFFICE)
NOTIFY = cloud_flow("Notify", connection_references=["cts_Mail"])


def variable(
    name: str = "cts_Limit", default: str | None = None, packaged: str | None = None, **more: object
) -> EnvironmentVariable:
    kind = more.get("type", VariableType.STRING)
    assert isinstance(kind, VariableType)
    return EnvironmentVariable(name, name, "", kind, default, False, packaged)


async def test_install_update_and_upgrade_leave_what_they_should(qa: Asked) -> None:
    assert (await qa.install(package("Travel", "1.0.0.0", EXPENSE, TRIP))).succeeded
    before = await qa.components("Travel")
    assert {("entity", "cts_expense"), ("attribute", "cts_trip.cts_days")} <= before

    assert (await qa.install(package("Travel", "1.1.0.0", EXPENSE))).succeeded
    assert await qa.components("Travel") == before, "an update never deletes"
    assert (await qa.solution("Travel"))["version"] == "1.1.0.0"

    assert (await qa.install(package("Travel", "1.2.0.0", EXPENSE), upgrade=True)).succeeded
    after = await qa.components("Travel")
    assert {key for _, key in before - after} >= {"cts_trip", "cts_trip.cts_days"}
    assert ("entity", "cts_expense") in after
    assert await qa.history() == [
        ("Travel", "1.0.0.0", 1, True),
        ("Travel", "1.1.0.0", 3, True),
        ("Travel", "1.2.0.0", 2, True),
    ]
    row = await qa.solution("Travel")
    assert row["ismanaged"] is True
    assert row["publisherid"]["uniquename"] == "contoso"


@pytest.mark.parametrize(
    ("version", "upgrade", "code"),
    [
        ("1.2", True, "80048541"),
        ("1.2.0.0", True, "80048541"),
        ("1.1.9", True, "80048541"),
        ("1.1.9", False, "80048541"),
        ("1.2.0.0", False, ""),
        ("1.10", True, ""),
        ("1.10", False, ""),
    ],
)
async def test_versions_are_compared_as_numbers(qa: Asked, version: str, upgrade: bool, code: str) -> None:
    assert (await qa.install(package("Travel", "1.2", EXPENSE))).succeeded
    outcome = await qa.install(package("Travel", version, EXPENSE), upgrade=upgrade)
    assert outcome.succeeded == (not code), outcome
    if code:
        assert outcome.code == code
        assert (await qa.solution("Travel"))["version"] == "1.2"


async def test_an_environment_may_allow_downgrades_by_update_only(tmp_path: Path) -> None:
    async with Asked.open(tmp_path / "a.sqlite", allow_downgrade=True) as lenient:
        assert (await lenient.install(package("Travel", "1.2", EXPENSE))).succeeded
        assert (await lenient.install(package("Travel", "1.1", EXPENSE), upgrade=True)).code == "80048541"
        assert (await lenient.install(package("Travel", "1.1", EXPENSE))).succeeded
        assert (await lenient.solution("Travel"))["version"] == "1.1"


async def test_modes_must_match(qa: Asked) -> None:
    await qa.install(package("Travel", "1.0", EXPENSE))
    outcome = await qa.install(package("Travel", "1.1", EXPENSE, managed=False))
    assert (outcome.succeeded, outcome.code) == (False, "80048041")
    await qa.install(package("Other", "1.0", TRIP, managed=False))
    outcome = await qa.install(package("Other", "1.1", TRIP))
    assert (outcome.succeeded, outcome.code) == (False, "80048040")
    assert "Import can only update solutions when the modes match" in outcome.message


async def test_the_publisher_cannot_change_but_its_letter_case_can(qa: Asked) -> None:
    await qa.install(package("Travel", "1.0", EXPENSE))
    outcome = await qa.install(package("Travel", "1.1", EXPENSE, publisher="fabrikam"))
    assert outcome.code == "8004801C"
    assert "from contoso to fabrikam" in outcome.message
    assert (await qa.install(package("Travel", "1.1", EXPENSE, publisher="CONTOSO"))).succeeded


async def test_an_upgrade_needs_a_managed_base(qa: Asked) -> None:
    outcome = await qa.install(package("Travel", "1.0", EXPENSE), upgrade=True)
    assert (outcome.succeeded, outcome.code) == (False, "80048033")
    assert await qa.solution("Travel") is None


async def test_a_failed_import_leaves_nothing_but_its_traces(qa: Asked) -> None:
    need = missing(("entity", "cts_base"), ("entity", "cts_expense"))
    outcome = await qa.install(package("Travel", "1.0", EXPENSE, missing=[need]))
    assert (outcome.succeeded, outcome.code) == (False, "8004801D")
    assert "<MissingDependency><Required" in outcome.message
    assert await qa.solution("Travel") is None
    assert await qa.get("publishers?$filter=uniquename eq 'contoso'") == []
    assert await qa.history() == [("Travel", "1.0", 1, False)]
    job = await qa.get(f"importjobs({outcome.job})")
    assert job["progress"] < 100
    assert 'result="failure" errorcode="0x8004801d"' in job["data"]
    assert '<entity id="cts_expense"' in job["data"], "the dependent is to blame"
    result = (await qa.get(f"RetrieveSolutionImportResult(ImportJobId={outcome.job})"))[
        "SolutionOperationResult"
    ]
    assert result["Status"] == "Failed"
    assert result["ErrorMessages"][0]["ErrorCode"] == -2147188707


async def test_a_dependency_is_met_by_the_package_a_managed_layer_or_the_platform(tmp_path: Path) -> None:
    def needs(*what: tuple[str, str], hint: str = "Active", managed: bool = True) -> bytes:
        pairs = [missing(one, ("entity", "cts_expense"), solution=hint) for one in what]
        return package("Travel", "1.0", EXPENSE, missing=pairs, managed=managed)

    base = ("entity", "cts_trip")
    async with Asked.open(tmp_path / "a.sqlite", installed_apps={"Survey": "2.0.0.43"}) as env:
        assert (await env.install(needs(("entity", "account"), ("entity", "cts_expense")))).succeeded
        assert (await env.install(needs(("entity", "x_y"), hint="AppModule (9.1)"))).succeeded
        assert (await env.install(needs(("entity", "x_y"), hint="Survey (1.9)"))).succeeded
        assert not (await env.install(needs(("entity", "x_y"), hint="Unknown (1.9)"))).succeeded
        warned = await env.stage(needs(("entity", "x_y"), hint="Survey (2.1)"))
        assert warned["StageSolutionStatus"] == "Passed"
        assert [r["SolutionValidationResultType"] for r in warned["SolutionValidationResults"]] == ["Warning"]
        assert not (await env.install(needs(base))).succeeded
        assert (await env.install(package("Base", "1.0", TRIP, managed=False))).succeeded
        assert (await env.install(needs(base))).code == "8004801D", "an unmanaged layer is not enough"
    async with Asked.open(tmp_path / "b.sqlite") as env:
        assert (await env.install(package("Base", "1.0", TRIP))).succeeded
        assert (await env.install(needs(base))).succeeded
    async with Asked.open(tmp_path / "c.sqlite") as env:
        assert (await env.install(package("Base", "1.0", TRIP, managed=False))).succeeded
        assert (await env.install(needs(base, managed=False))).succeeded


async def test_managed_over_an_unmanaged_base_is_refused_but_for_variables(qa: Asked) -> None:
    await qa.install(package("Draft", "1.0", EXPENSE, variable(), managed=False))
    outcome = await qa.install(package("Travel", "1.0", EXPENSE))
    assert (outcome.succeeded, outcome.code) == (False, "8004F016")
    assert "cts_expense" in outcome.message
    assert (await qa.install(package("Limits", "1.0", variable()))).succeeded


USES_MAIL = missing(("connectionreference", "cts_mail"), ("workflow", derived_id("workflow", "Remind")))


async def _base_and_dependent(env: Asked) -> None:
    assert (await env.install(package("Base", "1.0", EXPENSE, MAIL))).succeeded
    remind = cloud_flow("Remind", connection_references=["cts_Mail"])
    assert (await env.install(package("Extra", "1.0", remind, missing=[USES_MAIL]))).succeeded


async def test_a_blocked_upgrade_leaves_its_holding_solution_which_blocks_until_deleted(qa: Asked) -> None:
    await _base_and_dependent(qa)
    without_mail = package("Base", "2.0", EXPENSE, TRIP)
    outcome = await qa.install(without_mail, upgrade=True)
    assert (outcome.succeeded, outcome.code) == (False, "8004F046")
    assert outcome.message.startswith(
        "Solution Upgrade action failed after import as holding. InnerException is: Dep"
    )
    assert "DependencyCount : 1 RequiredComponentObject details: Type: connectionreference" in outcome.message
    assert "DependentComponentObject details: Type: workflow, ObjectName: Remind" in outcome.message

    holding = await qa.solution("Base_Upgrade")
    assert holding["version"] == "2.0"
    assert (await qa.solution("Base"))["version"] == "1.0"
    assert holding["_parentsolutionid_value"] == (await qa.solution("Base"))["solutionid"]
    assert ("connectionreference", "cts_mail") in await qa.components("Base")
    assert (await qa.stage(without_mail))["SolutionDetails"]["HasPendingUpgrade"] is True
    for upgrade in (True, False):
        blocked = await qa.install(package("Base", "3.0", EXPENSE, MAIL), upgrade=upgrade)
        assert blocked.code == "80048539"
        assert "Holding solution Base_Upgrade already exists." in blocked.message

    assert (await qa.request("DELETE", f"solutions({holding['solutionid']})")).status_code == 204
    assert await qa.solution("Base_Upgrade") is None
    rows = await qa.get("connectionreferences?$select=connectionreferencelogicalname")
    assert [row["connectionreferencelogicalname"] for row in rows] == ["cts_Mail"]
    assert (await qa.install(without_mail)).succeeded, "an update deletes nothing, so nothing blocks it"
    assert (await qa.install(package("Base", "3.0", EXPENSE, MAIL), upgrade=True)).succeeded


async def test_uninstalling_is_refused_while_others_depend_on_it(qa: Asked) -> None:
    await _base_and_dependent(qa)
    rows = await qa.get("RetrieveDependenciesForUninstall(SolutionUniqueName='Base')")
    assert len(rows) == 1
    extra = (await qa.solution("Extra"))["solutionid"]
    assert rows[0]["dependentcomponentbasesolutionid"] == extra
    references = await qa.get("connectionreferences")
    summary = (await qa.get("msdyn_solutioncomponentsummaries?$filter=msdyn_uniquename eq 'cts_mail'"))[0]
    assert summary["msdyn_componenttype"] >= 10_000, "such a code differs by environment"
    found = await qa.get(
        f"RetrieveDependenciesForDelete(ObjectId=@id,ComponentType=@type)?@id={summary['msdyn_objectid']}"
        f"&@type={summary['msdyn_componenttype']}"
    )
    assert [row["dependentcomponentobjectid"] for row in found] == [derived_id("workflow", "Remind")]
    assert references[0]["connectionreferenceid"] == summary["msdyn_objectid"]

    base = (await qa.solution("Base"))["solutionid"]
    code, message = await qa.error("DELETE", f"solutions({base})")
    assert code == "0x8004f01d"
    assert "Solution dependencies exist, cannot uninstall." in message
    assert (await qa.request("DELETE", f"solutions({extra})")).status_code == 204
    assert (await qa.request("DELETE", f"solutions({base})")).status_code == 204
    assert await qa.get("workflows") == []
    assert await qa.get("connectionreferences") == []


async def test_a_component_stays_while_any_layer_of_it_is_left(qa: Asked) -> None:
    await qa.install(package("One", "1.0", EXPENSE, variable(packaged="5")))
    await qa.install(package("Two", "1.0", variable()))
    assert (await qa.install(package("One", "2.0", EXPENSE), upgrade=True)).succeeded
    assert await qa.value("cts_Limit") is None, "the value was a component of its own, and only One had it"
    assert len(await qa.get("environmentvariabledefinitions")) == 1
    assert ("environmentvariabledefinition", "cts_limit") not in await qa.components("One")
    assert (await qa.install(package("Two", "2.0", TRIP), upgrade=True)).succeeded
    assert await qa.get("environmentvariabledefinitions") == []
    assert await qa.value("cts_Limit") is None


async def test_a_base_layer_under_another_publishers_layer_cannot_go(qa: Asked) -> None:
    await qa.install(package("One", "1.0", EXPENSE, TRIP))
    await qa.install(package("Two", "1.0", TRIP, publisher="fabrikam"))
    outcome = await qa.install(package("One", "2.0", EXPENSE), upgrade=True)
    assert outcome.code == "8004F046"
    assert "will delete the base layer for the component 'cts_trip" in outcome.message
    two = (await qa.solution("Two"))["solutionid"]
    assert (await qa.request("DELETE", f"solutions({two})")).status_code == 204, "the layer on top may"


async def test_what_an_unmanaged_solution_no_longer_has_stays_in_the_environment(qa: Asked) -> None:
    await qa.install(package("Draft", "1.0", EXPENSE, TRIP, managed=False))
    await qa.install(package("Draft", "1.1", EXPENSE, managed=False))
    assert ("entity", "cts_trip") not in await qa.components("Draft")
    active = await qa.components("Active")
    assert ("entity", "cts_trip") in active
    row = await qa.solution("Draft")
    assert (await qa.request("DELETE", f"solutions({row['solutionid']})")).status_code == 204
    assert ("entity", "cts_expense") in await qa.components("Active")


async def test_what_is_left_of_an_unmanaged_solution_still_needs_what_it_needed(qa: Asked) -> None:
    assert (await qa.install(package("Base", "1.0", EXPENSE, MAIL))).succeeded
    remind = cloud_flow("Remind", connection_references=["cts_Mail"])
    draft = package("Draft", "1.0", remind, missing=[USES_MAIL], managed=False)
    assert (await qa.install(draft)).succeeded
    row = await qa.solution("Draft")
    assert (await qa.request("DELETE", f"solutions({row['solutionid']})")).status_code == 204
    base = f"solutions({(await qa.solution('Base'))['solutionid']})"
    assert "Solution: Active" in (await qa.error("DELETE", base))[1]
    outcome = await qa.install(package("Base", "1.1", EXPENSE), upgrade=True)
    assert outcome.code == "8004F046"


async def test_what_has_another_layer_is_not_removed_so_nothing_blocks(qa: Asked) -> None:
    assert (await qa.install(package("Other", "1.0", TRIP, MAIL))).succeeded
    await _base_and_dependent(qa)
    assert (await qa.install(package("Base", "2.0", EXPENSE), upgrade=True)).succeeded
    assert len(await qa.get("connectionreferences")) == 1


async def test_values_given_win_over_values_there_over_packaged_ones(qa: Asked) -> None:
    def version(number: str, packaged: str | None) -> bytes:
        return package("Travel", number, variable(default="1", packaged=packaged))

    await qa.install(version("1.0", None))
    assert await qa.value("cts_Limit") is None
    definition = (await qa.get("environmentvariabledefinitions"))[0]
    assert (definition["defaultvalue"], definition["type"]) == ("1", 100000000)
    await qa.install(version("1.1", "5"))
    assert (await qa.value("cts_Limit"))["value"] == "5"
    await qa.install(version("1.2", "6"))
    packaged = await qa.value("cts_Limit")
    assert packaged["value"] == "6", "a packaged value follows the package"

    outcome = await qa.install(
        version("1.3", "7"), ComponentParameters=[variable_parameter("cts_Limit", "8")]
    )
    assert outcome.code == "80060892", "the row was not named"
    assert "ndx_envvarval_schemaname" in outcome.message
    given = [variable_parameter("cts_Limit", "8", packaged["environmentvariablevalueid"])]
    assert (await qa.install(version("1.3", "7"), ComponentParameters=given)).succeeded
    assert (await qa.value("cts_Limit"))["value"] == "8"
    await qa.install(version("1.4", "9"))
    assert (await qa.value("cts_Limit"))["value"] == "8", "a managed update keeps the customer's value"
    assert (await qa.install(version("1.5", "9"), upgrade=True)).succeeded
    assert (await qa.value("cts_Limit"))["value"] == "8"


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (VariableType.NUMBER, "1.5", "many"),
        (VariableType.BOOLEAN, "yes", "perhaps"),
        (VariableType.JSON, '{"a": 1}', "{a}"),
    ],
)
async def test_values_must_fit_their_type(qa: Asked, kind: VariableType, good: str, bad: str) -> None:
    content = package("Travel", "1.0", variable(type=kind))
    outcome = await qa.install(content, ComponentParameters=[variable_parameter("cts_Limit", bad)])
    assert outcome.code == "80040203"
    assert (await qa.install(content, ComponentParameters=[variable_parameter("cts_Limit", good)])).succeeded


async def test_a_flow_is_on_once_all_its_references_are_bound(qa: Asked) -> None:
    content = package("Travel", "1.0", MAIL, NOTIFY, cloud_flow("Draft", activated=False))

    async def on() -> dict[str, int]:
        return {row["name"]: row["statecode"] for row in await qa.get("workflows")}

    await qa.install(content)
    assert await on() == {"Notify": 0, "Draft": 0}
    await qa.connect("mine")
    await qa.install(
        content, PublishWorkflows=False, ComponentParameters=[reference_parameter("cts_Mail", "mine")]
    )
    assert (await qa.get("connectionreferences"))[0]["connectionid"] == "mine"
    assert await on() == {"Notify": 0, "Draft": 0}
    await qa.install(content)
    assert await on() == {"Notify": 1, "Draft": 0}


async def test_parameters_must_fit_package_and_connections(qa: Asked) -> None:
    content = package("Travel", "1.0", MAIL, variable())
    await qa.connect("mine")
    await qa.connect("chat", TEAMS)
    for parameter, code, text in (
        (reference_parameter("cts_Mail", "gone"), "80048033", "The connection 'gone'"),
        (reference_parameter("cts_Mail", "chat", ""), "80048033", "shared_teams"),
        (reference_parameter("cts_Mail", "mine", TEAMS), "80048033", "shared_teams"),
        (reference_parameter("cts_mail", "mine"), "80040203", "Its letter case differs: 'cts_Mail'"),
        (reference_parameter("cts_Other", "mine"), "80040203", "not in the package"),
        (variable_parameter("cts_limit", "1"), "80040203", "Its letter case differs: 'cts_Limit'"),
    ):
        outcome = await qa.install(content, ComponentParameters=[parameter])
        assert (outcome.succeeded, outcome.code) == (False, code)
        assert text in outcome.message
    assert await qa.solution("Travel") is None
    good = [reference_parameter("cts_Mail", "mine", OFFICE.upper())]
    assert (await qa.install(content, ComponentParameters=good)).succeeded, (
        "connector ids have no letter case"
    )


async def test_an_import_reports_every_component(qa: Asked) -> None:
    content = package("Travel", "1.0", EXPENSE, MAIL, NOTIFY, WebResource("cts_a.js", b"1"))
    outcome = await qa.install(content)
    job = await qa.get(f"importjobs({outcome.job})")
    assert job["progress"] == 100
    assert job["solutionname"] == "Travel"
    assert job["data"].count("<result ") == len(read(content).components) + 1
    assert job["data"].count('result="success"') == len(read(content).components) + 1
    result = (await qa.get(f"RetrieveSolutionImportResult(ImportJobId={outcome.job})"))[
        "SolutionOperationResult"
    ]
    assert (result["Type"], result["Status"], result["ErrorMessages"]) == ("Import", "Passed", [])


async def test_an_import_may_take_its_package_from_a_staged_upload(qa: Asked) -> None:
    staged = await qa.stage(package("Travel", "1.0", EXPENSE))
    upload = staged["StageSolutionUploadId"]
    body = {"SolutionParameters": {"StageSolutionUploadId": upload}, "PublishWorkflows": True}
    ids = (await qa.request("POST", "ImportSolutionAsync", body)).json()
    assert (await qa.finished(ids["AsyncOperationId"])).succeeded
    assert (await qa.request("DELETE", f"stagesolutionuploads({upload})")).status_code == 204
    code, _ = await qa.error("DELETE", f"stagesolutionuploads({upload})", status=404)
    assert code == "0x80040217"
    assert (await qa.error("POST", "ImportSolutionAsync", body, status=404))[0] == "0x80040217"


async def test_what_is_not_modelled_is_refused_by_name(qa: Asked) -> None:
    for name in ("ConvertToManaged", "SkipProductUpdateDependencies"):
        body = {"CustomizationFile": "", name: True}
        assert name in (await qa.error("POST", "ImportSolutionAsync", body, status=501))[1]
    assert "AddSolutionComponent" in (await qa.error("POST", "AddSolutionComponent", {}, status=501))[1]
    assert "valid parameter" in (await qa.error("POST", "ImportSolution", {"Holding": True}))[1]
    hold = {"CustomizationFile": "", "HoldingSolution": True}
    assert "HoldingSolution" in (await qa.error("POST", "StageAndUpgradeAsync", hold))[1]


async def test_overwriting_takes_the_unmanaged_layer_away(qa: Asked) -> None:
    await qa.install(package("Travel", "1.0", EXPENSE, MAIL, NOTIFY))
    await qa.install(package("Draft", "1.0", EXPENSE, NOTIFY, managed=False))
    row = await qa.solution("Draft")
    await qa.request("DELETE", f"solutions({row['solutionid']})")
    await qa.install(package("Travel", "1.1", EXPENSE, NOTIFY))
    assert ("entity", "cts_expense") in await qa.components("Active")
    await qa.install(package("Travel", "1.2", EXPENSE, NOTIFY), OverwriteUnmanagedCustomizations=True)
    assert await qa.components("Active") == set()
    # What that layer needed is forgotten with it: first the flow may go, then what it used.
    assert (await qa.install(package("Travel", "1.3", EXPENSE, MAIL), upgrade=True)).succeeded
    outcome = await qa.install(package("Travel", "1.4", EXPENSE), upgrade=True)
    assert outcome.succeeded, outcome


def test_packages_of_these_tests_are_what_they_say() -> None:
    assert read(package("A", "1.0", managed=False)).manifest.managed is False
    assert write(read(package("A", "1.0")).manifest) == package("A", "1.0")
