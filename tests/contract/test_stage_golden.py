"""StageSolution against the one answer of a real environment that was captured.

Source: microsoft/terraform-provider-power-platform (MIT), the response that its tests replay for
``TerraformTestSolution`` 1.1.0.0.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.emulator.asked import Asked

from pipelinehost_dataverse.solution import (
    Column,
    ConnectionReference,
    EnvironmentVariable,
    Table,
    VariableType,
    new_manifest,
    write,
)
from pipelinehost_dataverse.solution.model import Manifest, Publisher

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "stage_solution_terraform_test_1_1_0_0.json"
SHAREPOINT = "/providers/Microsoft.PowerApps/apis/shared_sharepointonline"


def _without_ids(answer: dict[str, Any]) -> dict[str, Any]:
    """What has to be the same: everything but the context's address and the ids of rows."""
    answer = copy.deepcopy(answer)
    answer["@odata.context"] = answer["@odata.context"].partition("$metadata")[2]
    results = answer["StageSolutionResults"]
    assert results["StageSolutionUploadId"]
    results["StageSolutionUploadId"] = "an id"
    for component in results["SolutionComponentsDetails"]:
        attributes = component["Attributes"]
        if "environmentvariablevalueid" in attributes["Keys"]:
            attributes["Values"][attributes["Keys"].index("environmentvariablevalueid")] = "an id"
    return answer


async def _staged(tmp_path: Path, content: bytes) -> dict[str, Any]:
    async with Asked.open(tmp_path / "qa.sqlite") as env:
        return _without_ids(await env.staged(content))


@pytest.fixture
def golden() -> dict[str, Any]:
    return _without_ids(json.loads(GOLDEN.read_text(encoding="utf-8")))


async def test_the_real_package(tmp_path: Path, golden: dict[str, Any], real_solutions: Path) -> None:
    content = (real_solutions / "valid" / "TerraformTestSolution_1_1_0_0_unmanaged.zip").read_bytes()
    assert await _staged(tmp_path, content) == golden


async def test_a_package_made_of_the_same_facts(tmp_path: Path, golden: dict[str, Any]) -> None:
    plain = new_manifest("TerraformTestSolution", "1.1.0.0", display_name="Terraform Test Solution")
    manifest = Manifest(
        unique_name=plain.unique_name,
        display_name=plain.display_name,
        description="",
        version=plain.version,
        managed=False,
        publisher=Publisher("Crefda7", "CDS Default Publisher", "cra6e", 12345),
        platform_version=plain.platform_version,
    )
    value = "11111111-2222-3333-4444-555555555555"

    def variable(
        name: str, kind: VariableType, default: str | None, packaged: str | None, api: str = "", key: str = ""
    ) -> EnvironmentVariable:
        id_ = value if packaged else None
        return EnvironmentVariable(
            f"cra6e_{name}", name, "", kind, default, False, packaged, id_, api_id=api, parameter_key=key
        )

    name = "SolutionVariableDataSource"
    data_source = variable(name, VariableType.DATA_SOURCE, None, "test", SHAREPOINT.lower(), "dataset")
    content = write(
        manifest,
        Table("cra6e_TerraformTestTable", (Column("cra6e_Name"),), "Terraform Test Table", forms=("Main",)),
        ConnectionReference(
            "cra6e_ConnectionReferenceSharePoint", "ConnectionReferenceSharePoint", "", SHAREPOINT
        ),
        variable("SolutionVariableText", VariableType.STRING, "This is a text", "tet1"),
        variable("SolutionVariableJson", VariableType.JSON, '{ "aaa": 123 }', None),
        data_source,
    )
    assert await _staged(tmp_path, content) == golden


async def test_what_is_there_already_is_told(tmp_path: Path, golden: dict[str, Any]) -> None:
    content = write(
        new_manifest("Travel", "1.0", managed=True),
        Table("cts_trip"),
        EnvironmentVariable("cts_Limit", "Limit", "", VariableType.STRING, None, False, "5"),
    )
    later = write(new_manifest("Travel", "0.9", managed=True), Table("cts_trip"), Table("cts_new"))
    async with Asked.open(tmp_path / "qa.sqlite") as env:
        assert (await env.install(content)).succeeded
        again = await env.stage(content)
        there = {c["ComponentTypeName"]: c["IsPresentInOrg"] for c in again["SolutionComponentsDetails"]}
        assert there == {
            "solution": "Unknown",
            "entity": "True",
            "EnvironmentVariableDefinition": "True",
            "EnvironmentVariableValue": "True",
        }
        failed = await env.stage(later)
    assert failed["StageSolutionStatus"] == "Failed"
    assert failed.keys() == golden["StageSolutionResults"].keys()
    assert failed["SolutionDetails"].keys() == golden["StageSolutionResults"]["SolutionDetails"].keys()
    assert failed["SolutionDetails"]["PreviousSolutionVersion"] == "1.0"
    assert failed["SolutionDetails"]["PreviousPublisherUniqueName"] == "contoso"
    result = failed["SolutionValidationResults"][0]
    assert result["SolutionValidationResultType"] == "Error"
    assert result["ErrorCode"] == 0x80048541 - (1 << 32)
    tables = {c["ComponentName"]: c["IsPresentInOrg"] for c in failed["SolutionComponentsDetails"][1:]}
    assert tables == {"cts_trip": "True", "cts_new": "False"}
