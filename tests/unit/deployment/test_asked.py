"""What a request names and means by what it leaves out, and what the host's own record forbids."""

from __future__ import annotations

import pytest
from tests.unit.deployment.conftest import Host
from tests.unit.deployment.test_run import package

from pipelinehost.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from pipelinehost.v1.pipeline_host_pb2 import DeployRequest, DescribeSolutionRequest


async def test_a_raised_version_is_due_in_the_first_stage_again(host: Host) -> None:
    await host.restored(package("1.0.0.0"))
    await host.deployed()
    await host.restored(package("1.1.0.0", columns=("a", "b")))
    run = await host.deployed()
    assert run.stage == "pipelines/sales/stages/qa"
    assert (run.version, run.previous_version) == ("1.1.0.0", "1.0.0.0")
    assert sorted(await host.history("qa")) == ["1.0.0.0", "1.1.0.0"]


async def test_a_version_is_the_same_however_it_is_written(host: Host) -> None:
    artifact = await host.upload(package("1.2", managed=True))
    await host.deployed(artifact=artifact.name, stage="qa")
    assert (await host.asked(stage="production", version="1.2.0.0")).artifact == artifact.name
    assert (await host.asked(version="1.2.0")).stage == "pipelines/sales/stages/production"


async def test_a_solution_is_the_same_whatever_its_case(host: Host) -> None:
    await host.restored(package())
    first = await host.deployed(solution="SALES")
    assert first.solution == "Sales", "as the package says"
    run = await host.deployed(solution="sales")
    assert (run.stage, run.artifact) == ("pipelines/sales/stages/production", first.artifact)


async def test_an_unmanaged_upload_is_not_deployed_and_a_managed_one_not_restored(host: Host) -> None:
    unmanaged, managed = await host.upload(package()), await host.upload(package(managed=True))
    with pytest.raises(FailedPrecondition) as refused:
        await host.asked(artifact=unmanaged.name)
    assert refused.value.reason_name == "ARTIFACT_UNMANAGED"
    with pytest.raises(FailedPrecondition) as refused:
        await host.restored(package(managed=True))
    assert refused.value.reason_name == "ARTIFACT_MANAGED"
    assert managed.managed


async def test_stages_come_in_order(host: Host) -> None:
    artifact = await host.upload(package(managed=True))
    with pytest.raises(FailedPrecondition) as refused:
        await host.asked(artifact=artifact.name, stage="production")
    assert refused.value.reason_name == "STAGE_OUT_OF_ORDER"
    await host.restored(package())
    with pytest.raises(FailedPrecondition) as refused:
        await host.asked(stage="production")
    assert refused.value.reason_name == "STAGE_OUT_OF_ORDER"


async def test_validation_reports_rules_of_the_host_as_findings(host: Host) -> None:
    artifact = await host.upload(package(managed=True))
    request = DeployRequest(
        pipeline="pipelines/sales", artifact=artifact.name, stage="pipelines/sales/stages/production"
    )
    updates = [u async for u in host.deployment.validate(request, "admin")]
    assert [u.finding.code for u in updates if u.WhichOneof("update") == "finding"] == ["STAGE_OUT_OF_ORDER"]
    assert not updates[-1].summary.deployable


async def test_a_name_that_means_nothing_is_told_with_what_there_is(host: Host) -> None:
    artifact = await host.upload(package(managed=True))
    for asked, listing in (
        ({"artifact": "artifacts/" + "0" * 64}, "pipelinehost artifact list"),
        ({"artifact": artifact.name, "stage": "uat"}, "pipelinehost pipeline show sales"),
        ({"artifact": artifact.name, "pipeline": "pipelines/other"}, "pipelinehost pipeline list"),
    ):
        with pytest.raises(NotFound) as refused:
            await host.asked(**asked)
        assert listing in refused.value.remedy


async def test_the_version_that_is_asked_for_is_the_artifacts(host: Host) -> None:
    artifact = await host.upload(package("1.2", managed=True))
    with pytest.raises(InvalidArgument, match=r"is version 1\.2\S*, not 1\.3"):
        await host.asked(artifact=artifact.name, version="1.3")
    assert (await host.asked(artifact=artifact.name, version="1.2.0.0")).artifact == artifact.name


async def test_a_description_names_the_environment_that_cannot_be_asked(host: Host) -> None:
    artifact = await host.upload(package(managed=True))
    folder = host.folder / "environments"
    folder.mkdir(exist_ok=True)
    (folder / "qa.sqlite").write_bytes(b"not a database, but long enough to be taken for one" * 100)
    request = DescribeSolutionRequest(artifact=artifact.name, stage="pipelines/sales/stages/qa")
    with pytest.raises(Unavailable, match=r"^qa could not be reached") as refused:
        await host.deployment.describe(request)
    assert refused.value.metadata == {"resource": "environments/qa"}


async def test_the_development_environment_is_one_of_the_pipelines(host: Host) -> None:
    with pytest.raises(InvalidArgument, match="environments/qa is not linked"):
        await host.asked(development_environment="environments/qa")


async def test_of_two_development_environments_one_is_named(host: Host) -> None:
    await host.restored(package())
    pipeline = host.store.reads.pipeline("pipelines/sales")
    assert pipeline is not None
    pipeline.development_environments.append("environments/qa")
    await host.store.write(lambda tx: tx.put_pipeline(pipeline))
    with pytest.raises(FailedPrecondition) as refused:
        await host.asked()
    assert refused.value.reason_name == "SOURCE_AMBIGUOUS"
    assert "environments/dev, environments/qa" in refused.value.remedy
    run = await host.asked(development_environment="environments/dev")
    assert run.source_environment == "environments/dev"
