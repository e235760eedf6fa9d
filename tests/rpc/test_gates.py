"""Gates over a connection: approvers who are no administrators, notes that only administrators read."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tests.rpc.conftest import DEVELOPMENT, Bed, package

from pipelinehost import Client, errors
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import Environment, Gate, Pipeline, Principal, Run, Share, Stage


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(tmp_path / "data")
    bed.environment("dev", DEVELOPMENT)
    bed.environment("qa")
    bed.person("ada")
    bed.person("ben")
    gate = Gate(kind=Gate.KIND_APPROVAL, approvers=["principals/ada", "principals/ben"])
    stage = Stage(name="pipelines/sales/stages/qa", environment="environments/qa", gates=[gate])
    bed.pipeline(stages=[stage])
    yield bed
    bed.close()


def waits(bed: Bed, note: str = "", version: str = "1.0.0.0") -> Run:
    artifact = bed.upload(package(version))
    request = api.DeployRequest(pipeline="pipelines/sales", artifact=artifact.name, note=note)
    run: Run = bed.call("Deploy", request)
    return until(bed, run, Run.STATE_AWAITING_GATE)


def until(bed: Bed, run: Run, state: Run.State) -> Run:
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        now: Run = bed.call("GetRun", api.GetRunRequest(name=run.name))
        if now.state == state:
            return now
        time.sleep(0.02)
    raise AssertionError(now)


def test_who_is_named_approves_and_nobody_else(gated: Bed) -> None:
    run = waits(gated)
    ada, eve = gated.tokens["ada"], gated.person("eve")
    before = gated.snapshot()
    with pytest.raises(errors.PermissionDenied) as refused:
        gated.call("Approve", api.ApproveRequest(name=run.name))
    assert refused.value.reason_name == "NOT_AN_APPROVER"
    for name in (run.name, "runs/" + "0" * 26):
        with pytest.raises(errors.NotFound, match=name):
            gated.call("Approve", api.ApproveRequest(name=name), token=eve)
    assert gated.snapshot() == before
    assert gated.call("GetRun", api.GetRunRequest(name=run.name), token=ada) == run, "sees what is asked"
    request = api.ApproveRequest(name=run.name, note="for you only", comment="go", request_id="once")
    assert gated.call("Approve", request, token=ada).state == Run.STATE_QUEUED
    assert gated.call("Approve", request, token=ada).state == Run.STATE_QUEUED, "the same answer"
    done = until(gated, run, Run.STATE_SUCCEEDED)
    assert len(done.gates[0].decisions) == 1
    with pytest.raises(errors.PermissionDenied):
        gated.call("ListGateNotes", api.ListGateNotesRequest(run=run.name), token=ada)
    notes = gated.call("ListGateNotes", api.ListGateNotesRequest(run=run.name)).notes
    assert [(n.principal, n.note) for n in notes] == [("principals/ada", "for you only")]
    assert "for you only" not in str(gated.events())


def test_more_approvals_than_people_are_refused(gated: Bed) -> None:
    gated.person("bot", kind=Principal.KIND_SERVICE, person="principals/ben")
    gated.person("nobody", "UNSPECIFIED")
    gated.person("gone", disabled=True)
    for name, members in (("team", ["ada", "bot", "nobody", "gone"]), ("empty", [])):
        group = Principal(
            name=f"principals/{name}",
            kind=Principal.KIND_GROUP,
            members=[f"principals/{m}" for m in members],
        )
        gated.call("CreatePrincipal", api.CreatePrincipalRequest(principal=group))
    stored = gated.call("GetPipeline", api.GetPipelineRequest(name="pipelines/sales"))

    def asked(required: int, *approvers: str) -> api.UpdatePipelineRequest:
        fresh = Pipeline()
        fresh.CopyFrom(stored)
        fresh.ClearField("etag")
        fresh.stages[0].gates[0].required = required
        fresh.stages[0].gates[0].approvers[:] = [f"principals/{a}" for a in approvers]
        return api.UpdatePipelineRequest(pipeline=fresh)

    for required, people, approvers in (
        (3, "2 people", ["ada", "ben", "bot"]),
        (3, "2 people", ["ada", "ben", "team"]),
        (2, "1 person", ["ada", "gone", "nobody"]),
        (0, "0 people", ["empty"]),
    ):
        for validate_only in (True, False):
            request = asked(required, *approvers)
            request.validate_only = validate_only
            with pytest.raises(errors.InvalidArgument) as refused:
                gated.call("UpdatePipeline", request)
            (found,) = refused.value.violations
            assert found.subject == "pipeline.stages[0].gates[0].required"
            assert found.description.startswith(f"is {required or 1}, and {people} ")
        request.pipeline.name = "pipelines/other"
        request.pipeline.stages[0].name = "pipelines/other/stages/qa"
        with pytest.raises(errors.InvalidArgument):
            gated.call("CreatePipeline", api.CreatePipelineRequest(pipeline=request.pipeline))
    with pytest.raises(errors.FailedPrecondition, match="there is no principals/eve"):
        gated.call("UpdatePipeline", asked(3, "ada", "eve"))
    gated.call("UpdatePipeline", asked(2, "team"))
    # Later the group shrinks: what is not about the gate may be changed all the same.
    team = Principal(name="principals/team", members=["principals/ada"])
    shrunk = api.UpdatePrincipalRequest(principal=team)
    shrunk.update_mask.paths.append("members")
    gated.call("UpdatePrincipal", shrunk)
    gated.call(
        "UpdatePipeline",
        api.UpdatePipelineRequest(
            pipeline=Pipeline(name="pipelines/sales", description="new"),
            update_mask=FieldMask(paths=["description"]),
        ),
    )


def test_only_administrators_weaken_an_approval(gated: Bed) -> None:
    owner, editor = gated.person("olga", "MAKER"), gated.person("emil", "MAKER")
    gated.environment("prod", makers=["principals/olga", "principals/emil"])
    gate = Gate(kind=Gate.KIND_APPROVAL, approvers=["principals/ada", "principals/ben"], required=2)
    stage = Stage(name="pipelines/hr/stages/prod", environment="environments/prod", gates=[gate])
    made = Pipeline(name="pipelines/hr", stages=[stage])
    stored = gated.call("CreatePipeline", api.CreatePipelineRequest(pipeline=made), token=owner)
    stored.ClearField("etag")
    stored.shares.add(principal="principals/emil", access=Share.ACCESS_EDIT)
    gated.call("UpdatePipeline", api.UpdatePipelineRequest(pipeline=stored), token=owner)
    weaker = []
    for change in (
        lambda stage: stage.ClearField("gates"),
        lambda stage: setattr(stage.gates[0], "required", 1),
        lambda stage: stage.gates[0].approvers.append("principals/emil"),
        lambda stage: setattr(stage, "name", "pipelines/hr/stages/other"),
        lambda stage: setattr(stage, "environment", "environments/qa"),
    ):
        fresh = Pipeline()
        fresh.CopyFrom(stored)
        change(fresh.stages[0])
        weaker.append(fresh)
    gated.call(
        "UpdateEnvironment",
        api.UpdateEnvironmentRequest(
            environment=Environment(name="environments/qa", makers=["principals/olga", "principals/emil"]),
            update_mask=FieldMask(paths=["makers"]),
        ),
    )
    before = gated.snapshot()
    for fresh in weaker:
        for token in (owner, editor):
            for validate_only in (True, False):
                request = api.UpdatePipelineRequest(pipeline=fresh, validate_only=validate_only)
                with pytest.raises(errors.PermissionDenied, match="may not weaken its approvals: the "):
                    gated.call("UpdatePipeline", request, token=token)
    assert gated.snapshot() == before
    stored.description = "new"
    stored.stages[0].gates[0].timeout_seconds = 60
    stored.stages[0].gates.add(kind=Gate.KIND_PRE_DEPLOYMENT, approvers=["principals/ada"])
    gated.call("UpdatePipeline", api.UpdatePipelineRequest(pipeline=stored), token=editor)
    for fresh in weaker:
        gated.call("UpdatePipeline", api.UpdatePipelineRequest(pipeline=stored))
        gated.call("UpdatePipeline", api.UpdatePipelineRequest(pipeline=fresh))


def test_a_watch_ends_with_a_rejected_run(gated: Bed) -> None:
    run = waits(gated)
    with Client(str(gated.host.address), token=gated.tokens["ben"]) as ben:
        assert ben.reject(run.name, comment="not today").state == Run.STATE_REJECTED
    with Client(str(gated.host.address), token=gated.token) as admin:
        ended = admin.wait(run.name, timeout=10)
    assert (ended.state, ended.error.code) == (Run.STATE_REJECTED, "GATE_REJECTED")


def test_what_was_looked_at_is_what_is_approved(gated: Bed) -> None:
    run = waits(gated)
    with Client(str(gated.host.address), token=gated.token) as admin:
        seen = admin.run(run.name)
        pipeline = admin.pipeline("sales")
        pipeline.stages[0].gates[0].timeout_seconds = 7200
        admin.update_pipeline(pipeline)
    with Client(str(gated.host.address), token=gated.tokens["ada"]) as ada:
        with pytest.raises(errors.Aborted) as stale:
            ada.approve(seen)
        assert stale.value.reason_name == "GATE_CHANGED"
        assert ada.approve(run.name).state == Run.STATE_QUEUED


def test_the_documented_program_decides(gated: Bed, tmp_path: Path) -> None:
    """The example of docs/gates.md, as it stands there."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "gates.md").read_text("utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len([line for line in program.splitlines() if line.strip()]) <= 40
    file = tmp_path / "approver.py"
    file.write_text(program, "utf-8")
    ended = []
    for note, version in (("CHG1: go", "1.0.0.0"), ("no number", "2.0.0.0")):
        run = waits(gated, note=note, version=version)
        command = [sys.executable, str(file), str(gated.host.address), gated.tokens["ada"], "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        ended.append(run)
    assert until(gated, ended[0], Run.STATE_SUCCEEDED).gates[0].decisions[0].principal == "principals/ada"
    assert "number of a change" in until(gated, ended[1], Run.STATE_REJECTED).error.message
