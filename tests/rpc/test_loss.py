"""Going back over the wire: who may look, what it takes, and that nothing is written before."""

from __future__ import annotations

import pytest
from tests.rpc.conftest import DEVELOPMENT, Bed, package

from pipelinehost import errors
from pipelinehost.v1 import artifacts_pb2 as artifacts_api
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import Artifact, Finding, Run
from pipelinehost_dataverse.solution import Column, Table, new_manifest, write

QA = "pipelines/sales/stages/qa"


def ended(bed: Bed, run: Run) -> Run:
    *_, last = bed.call("WatchRun", api.WatchRunRequest(name=run.name))
    return last.run  # type: ignore[no-any-return]  # of a stub that is looked up by its name


@pytest.fixture
def old(bed: Bed) -> Artifact:
    """The artifact that qa held before; it holds a newer one."""
    bed.environment("dev", DEVELOPMENT)
    bed.environment("qa")
    made = bed.pipeline()
    made.allow_redeployment = True
    bed.call(
        "UpdatePipeline",
        api.UpdatePipelineRequest(pipeline=made, update_mask={"paths": ["allow_redeployment"]}),
    )
    table = Table("cts_order", columns=(Column("cts_tax"),))
    newer = write(new_manifest("Sales", "9.0.0.0", managed=True), table)
    first, second = bed.upload(package()), bed.upload(newer)
    for artifact in (first, second):
        run = bed.call("Deploy", wanted(artifact))
        assert ended(bed, run).state == Run.STATE_SUCCEEDED
    return first


def wanted(artifact: Artifact, **more: str) -> api.DeployRequest:
    return api.DeployRequest(pipeline="pipelines/sales", stage=QA, artifact=artifact.name, **more)  # type: ignore[arg-type]  # kwargs of a message


def test_a_preview_a_refusal_and_a_way_back(bed: Bed, old: Artifact) -> None:
    responses = bed.call("ValidateDeployment", api.ValidateDeploymentRequest(deployment=wanted(old)))
    summary = responses[-1].summary
    told = [r.finding for r in responses if r.HasField("finding")]
    assert not summary.deployable
    assert (summary.installed_version, len(summary.loss_sha256)) == ("9.0.0.0", 64)
    assert told[-1].code == "LOSS_NOT_ACCEPTED"
    assert any(f.code == "STAYS_BEHIND" and f.subject.name == "cts_order.cts_tax" for f in told)

    refused = ended(bed, bed.call("Deploy", wanted(old)))
    assert (refused.state, refused.error.code) == (Run.STATE_FAILED, "LOSS_NOT_ACCEPTED")
    listed = bed.call("ListFindings", api.ListFindingsRequest(run=refused.name, page_size=1000)).findings
    assert [f.code for f in listed] == [f.code for f in told], "the run says what the preview said"

    run = ended(bed, bed.call("Deploy", wanted(old, loss_sha256=summary.loss_sha256)))
    assert (run.state, run.loss_sha256) == (Run.STATE_SUCCEEDED, summary.loss_sha256)
    again = bed.call("ValidateDeployment", api.ValidateDeploymentRequest(deployment=wanted(old)))
    assert again[-1].summary.deployable
    assert not again[-1].summary.loss_sha256
    assert not [r for r in again if r.finding.severity == Finding.SEVERITY_ERROR]


def test_a_digest_that_is_none_is_refused_at_once(bed: Bed, old: Artifact) -> None:
    before = len(bed.call("ListRuns", api.ListRunsRequest()).runs)
    request = wanted(old, loss_sha256="all of it")
    for call, asked in (
        ("Deploy", request),
        ("ValidateDeployment", api.ValidateDeploymentRequest(deployment=request)),
    ):
        with pytest.raises(errors.InvalidArgument) as refused:
            bed.call(call, asked)
        assert [v.subject for v in refused.value.violations] == ["loss_sha256"]
    assert len(bed.call("ListRuns", api.ListRunsRequest()).runs) == before


def test_one_request_id_stands_for_one_acceptance(bed: Bed, old: Artifact) -> None:
    bed.call("Deploy", wanted(old, request_id="1", loss_sha256="0" * 64))
    with pytest.raises(errors.PipelineHostError) as other:
        bed.call("Deploy", wanted(old, request_id="1", loss_sha256="1" * 64))
    assert other.value.reason_name == "REQUEST_ID_REUSED"


def test_who_may_not_deploy_learns_no_loss(bed: Bed, old: Artifact) -> None:
    token = bed.person("eve", "USER")
    with pytest.raises(errors.NotFound):
        bed.call("ValidateDeployment", api.ValidateDeploymentRequest(deployment=wanted(old)), token=token)
    assert bed.call("ListArtifacts", artifacts_api.ListArtifactsRequest(), token=token).artifacts == []
