"""Deployments over the wire, from an upload to what the target then holds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.rpc.conftest import DEVELOPMENT, Bed, package

from pipelinehost import errors
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import DeploymentSettings, EnvironmentVariableSetting, Event, Run

QA = "pipelines/sales/stages/qa"


def test_a_package_arrives_in_its_target(bed: Bed) -> None:
    bed.environment("dev", DEVELOPMENT)
    bed.environment("qa")
    made = bed.pipeline()
    artifact = bed.upload(package())
    wanted = api.DeployRequest(pipeline=made.name, artifact=artifact.name, note="first", request_id="1")
    *_, last = bed.call("ValidateDeployment", api.ValidateDeploymentRequest(deployment=wanted))
    assert last.summary.deployable
    assert last.summary.stage == QA
    run = bed.call("Deploy", wanted)
    responses = bed.call("WatchRun", api.WatchRunRequest(name=run.name))
    assert responses[0].run.name == run.name
    ended = responses[-1].run
    assert ended.state == Run.STATE_SUCCEEDED, ended
    assert ended == bed.bridge("GetRun", api.GetRunRequest(name=run.name))
    (solution,) = [
        s
        for s in bed.call("ListSolutions", api.ListSolutionsRequest(environment="environments/qa")).solutions
        if s.unique_name == "Sales"
    ]
    assert (solution.version, solution.managed) == ("1.0.0.0", True)
    assert bed.call("GetRunPipeline", api.GetRunPipelineRequest(run=run.name)) == made
    assert bed.call("ListComponentResults", api.ListComponentResultsRequest(run=run.name)).results
    assert not bed.call("ListRunSettings", api.ListRunSettingsRequest(run=run.name)).settings
    assert bed.call("GetQueue", api.GetQueueRequest(environment="environments/qa")) == api.Queue()
    told = bed.call(
        "ListEvents", api.ListEventsRequest(filter=f"subject = {run.name}", page_size=1000)
    ).events
    assert told[0].kind == Event.KIND_DEPLOYMENT_REQUESTED
    assert told[0].actor == "principals/admin"
    assert bed.call("Deploy", wanted) == run
    wanted.request_id = "2"
    with pytest.raises(errors.FailedPrecondition) as refused:
        bed.call("Deploy", wanted)
    assert refused.value.reason == ErrorReason.ERROR_REASON_NOTHING_DUE


def test_a_repeat_asks_no_environment(bed: Bed) -> None:
    """Without stage and version it takes the development environment to tell which stage is due."""
    bed.environment("dev", DEVELOPMENT)
    bed.environment("qa")
    made = bed.pipeline()
    restore = api.RestoreArtifactRequest(
        artifact=bed.upload(package(managed=False)).name, environment="environments/dev"
    )
    restored = bed.call("RestoreArtifact", restore)
    *_, last = bed.call("WatchRun", api.WatchRunRequest(name=restored.name))
    assert last.run.state == Run.STATE_SUCCEEDED, last
    wanted = api.DeployRequest(pipeline=made.name, solution="Sales", request_id="1")
    run = bed.call("Deploy", wanted)
    assert run.stage == QA
    bed.call("WatchRun", api.WatchRunRequest(name=run.name))
    made.ClearField("development_environments")
    bed.call(
        "UpdatePipeline",
        api.UpdatePipelineRequest(pipeline=made, update_mask={"paths": ["development_environments"]}),
    )
    assert bed.call("Deploy", wanted) == run
    wanted.request_id = "2"
    with pytest.raises(errors.FailedPrecondition) as refused:
        bed.call("Deploy", wanted)
    assert refused.value.reason == ErrorReason.ERROR_REASON_SOURCE_AMBIGUOUS


def test_64_repeats_of_a_deployment_are_one_run(idle: Bed) -> None:
    request = api.DeployRequest(pipeline="pipelines/sales", stage=QA, solution="Sales", request_id="herd")
    with ThreadPoolExecutor(64) as threads:
        runs = list(threads.map(lambda _: idle.call("Deploy", request), range(64)))
    assert all(run == runs[0] for run in runs)
    assert len(idle.call("ListRuns", api.ListRunsRequest()).runs) == 1
    request.note = "another"
    with pytest.raises(errors.AlreadyExists):
        idle.call("Deploy", request)
    cancel = api.CancelRunRequest(name=runs[0].name, request_id="cancel")
    assert idle.call("CancelRun", cancel) == idle.bridge("CancelRun", cancel)


def test_settings_of_a_run_have_names_that_differ(idle: Bed) -> None:
    settings = DeploymentSettings(
        environment_variables=[
            EnvironmentVariableSetting(schema_name="cts_a", value="1"),
            EnvironmentVariableSetting(schema_name="CTS_A", value="2"),
        ]
    )
    wanted = api.DeployRequest(pipeline="pipelines/sales", stage=QA, solution="Sales", settings=settings)
    for prefix, method, request in (
        ("", "Deploy", wanted),
        ("deployment.", "ValidateDeployment", api.ValidateDeploymentRequest(deployment=wanted)),
    ):
        with pytest.raises(errors.InvalidArgument) as refused:
            idle.call(method, request)
        assert [v.subject for v in refused.value.violations] == [
            f"{prefix}settings.environment_variables[1].schema_name"
        ]


def test_what_does_not_exist_is_not_found(idle: Bed) -> None:
    for request in (
        api.DeployRequest(pipeline="pipelines/none", solution="Sales"),
        api.DeployRequest(pipeline="pipelines/sales", stage="pipelines/sales/stages/none", solution="Sales"),
        api.DeployRequest(pipeline="pipelines/sales", stage=QA, artifact="artifacts/" + "0" * 64),
    ):
        before = idle.snapshot()
        with pytest.raises(errors.NotFound):
            idle.call("Deploy", request)
        assert idle.snapshot() == before
    for method, wanted in (
        ("GetRun", api.GetRunRequest(name="runs/01jd0000000000000000000001")),
        ("CancelRun", api.CancelRunRequest(name="runs/01jd0000000000000000000001")),
        ("RetryRun", api.RetryRunRequest(name="runs/01jd0000000000000000000001")),
        ("ListFindings", api.ListFindingsRequest(run="runs/01jd0000000000000000000001")),
        ("GetQueue", api.GetQueueRequest(environment="environments/none")),
    ):
        with pytest.raises(errors.NotFound) as refused:
            idle.bridge(method, wanted)
        assert refused.value.metadata["resource"]
        assert refused.value.remedy
