"""What an environment gives back."""

import base64
import io
import zipfile

from tests.unit.emulator.asked import Asked, package

from pipelinehost_dataverse.solution import Column, EnvironmentVariable, Table, VariableType, read

LIMIT = EnvironmentVariable("cts_Limit", "Limit", "", VariableType.NUMBER, "1", True)
DRAFT = package("Draft", "1.2", Table("cts_expense", (Column("cts_amount", "money"),)), LIMIT, managed=False)


def _members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != "solution.xml"}


async def test_what_was_exported_imports_again_with_the_same_components(qa: Asked) -> None:
    await qa.install(DRAFT)
    assert await qa.export("draft", managed=False) == DRAFT
    managed = await qa.export("Draft", managed=True)
    assert read(managed).manifest.managed
    assert read(managed).components == read(DRAFT).components
    assert _members(managed) == _members(DRAFT)
    row = await qa.solution("Draft")
    assert (await qa.request("DELETE", f"solutions({row['solutionid']})")).status_code == 204
    assert (await qa.install(DRAFT)).succeeded
    assert await qa.export("Draft", managed=True) == managed


async def test_an_exported_managed_solution_does_not_install_over_what_is_left(qa: Asked) -> None:
    await qa.install(DRAFT)
    managed = await qa.export("Draft", managed=True)
    row = await qa.solution("Draft")
    await qa.request("DELETE", f"solutions({row['solutionid']})")
    outcome = await qa.install(managed)
    assert outcome.code == "8004F016", "what the unmanaged solution left is still there"


async def test_an_asynchronous_export_is_downloaded(qa: Asked) -> None:
    await qa.install(DRAFT)
    body = {"SolutionName": "Draft", "Managed": True}
    ids = (await qa.request("POST", "ExportSolutionAsync", body)).json()
    assert (await qa.finished(ids["AsyncOperationId"])).succeeded
    answer = await qa.request("POST", "DownloadSolutionExportData", {"ExportJobId": ids["ExportJobId"]})
    content = base64.b64decode(answer.json()["ExportSolutionFile"])
    assert content == await qa.export("Draft", managed=True)
    missing = {"ExportJobId": ids["AsyncOperationId"]}
    assert (await qa.error("POST", "DownloadSolutionExportData", missing, status=404))[0] == "0x80040217"


async def test_managed_and_missing_solutions_cannot_be_exported(qa: Asked) -> None:
    await qa.install(package("Travel", "1.0", Table("cts_trip")))
    for name, code, status in (("Travel", "0x80048036", 400), ("Nothing", "0x80048037", 404)):
        body = {"SolutionName": name, "Managed": False}
        assert (await qa.error("POST", "ExportSolution", body, status=status))[0] == code
        ids = (await qa.request("POST", "ExportSolutionAsync", body)).json()
        outcome = await qa.finished(ids["AsyncOperationId"])
        assert (outcome.succeeded, outcome.code) == (False, code[2:].upper())


async def test_a_maker_raises_the_version_before_an_export(qa: Asked) -> None:
    await qa.install(DRAFT)
    row = await qa.solution("Draft")
    assert (
        await qa.request("PATCH", f"solutions({row['solutionid']})", {"version": "1.3"})
    ).status_code == 204
    exported = read(await qa.export("Draft", managed=True))
    assert str(exported.manifest.version) == "1.3"
    assert exported.components == read(DRAFT).components
    assert "version" in (await qa.error("PATCH", f"solutions({row['solutionid']})", {"version": "new"}))[1]
    await qa.install(package("Travel", "1.0", Table("cts_trip")))
    managed = await qa.solution("Travel")
    assert "managed" in (await qa.error("PATCH", f"solutions({managed['solutionid']})", {"version": "9"}))[1]


async def test_publishing_works_both_ways(qa: Asked) -> None:
    await qa.install(DRAFT)
    assert (await qa.request("POST", "PublishAllXml", {})).status_code == 204
    ids = (await qa.request("POST", "PublishAllXmlAsync", {})).json()
    assert (await qa.finished(ids["AsyncOperationId"])).succeeded
