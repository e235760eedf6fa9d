"""Freezes over a connection: who may make which, who sees them, and who goes through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.rpc.conftest import DEVELOPMENT, Bed, package, parts
from tests.rpc.test_gates import until

from pipelinehost import Client, errors
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import Event, Freeze, Pipeline, Run, Share, Stage

SALES = "pipelines/sales"


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(tmp_path / "data")
    bed.environment("dev", DEVELOPMENT)
    bed.environment("qa")
    for who, role in (("owner", "MAKER"), ("editor", "MAKER"), ("runner", "USER"), ("other", "MAKER")):
        bed.person(who, role)
    shares = [
        Share(principal="principals/editor", access=Share.ACCESS_EDIT),
        Share(principal="principals/runner", access=Share.ACCESS_RUN),
    ]
    bed.pipeline(owner="principals/owner", shares=shares)
    yield bed
    bed.close()


def create(bed: Bed, who: str = "", **fields: Any) -> Freeze:
    freeze = Freeze(**{"name": "freezes/stop", "reason": "an incident", **fields})
    token = bed.tokens[who] if who else None
    made: Freeze = bed.call("CreateFreeze", api.CreateFreezeRequest(freeze=freeze), token=token)
    return made


def test_makers_freeze_what_they_edit_and_nothing_else(frozen: Bed) -> None:
    tokens = frozen.tokens
    before = frozen.snapshot()
    for who, scope in (("owner", ""), ("editor", ""), ("runner", SALES), ("runner", "")):
        with pytest.raises(errors.PermissionDenied):
            create(frozen, who, scope=scope)
    for who, scope in (("other", SALES), ("other", f"{SALES}/stages/qa"), ("owner", "pipelines/gone")):
        with pytest.raises(errors.NotFound):
            create(frozen, who, scope=scope)
    assert frozen.snapshot() == before
    made = create(frozen, "editor", scope=f"{SALES}/stages/qa")
    assert (made.creator, bool(made.etag)) == ("principals/editor", True)
    everywhere = create(frozen, name="freezes/all")
    for who, sees in (("runner", True), ("other", False)):
        listed = frozen.call("ListFreezes", api.ListFreezesRequest(), token=tokens[who]).freezes
        assert [f.name for f in listed] == ["freezes/all", *["freezes/stop"] * sees]
    for method, request in (
        ("UpdateFreeze", api.UpdateFreezeRequest(freeze=Freeze(name=everywhere.name, reason="x"))),
        ("DeleteFreeze", api.DeleteFreezeRequest(name=everywhere.name)),
    ):
        with pytest.raises(errors.PermissionDenied):
            frozen.call(method, request, token=tokens["owner"])
    with pytest.raises(errors.NotFound):
        frozen.call("DeleteFreeze", api.DeleteFreezeRequest(name=made.name), token=tokens["other"])
    with pytest.raises(errors.PermissionDenied):
        frozen.call("DeleteFreeze", api.DeleteFreezeRequest(name=made.name), token=tokens["runner"])
    frozen.call("DeleteFreeze", api.DeleteFreezeRequest(name=made.name), token=tokens["owner"])


def test_what_an_administrator_has_frozen_stays_frozen_for_makers(frozen: Bed) -> None:
    tokens = frozen.tokens
    made = create(frozen, scope=SALES)
    own = create(frozen, "editor", name="freezes/own", scope=SALES)
    before = frozen.snapshot()
    for who in ("owner", "editor"):
        for method, request in (
            (
                "UpdateFreeze",
                api.UpdateFreezeRequest(freeze=Freeze(name=made.name, reason="x", end="2026-01-01T00:00")),
            ),
            ("DeleteFreeze", api.DeleteFreezeRequest(name=made.name)),
        ):
            with pytest.raises(errors.PermissionDenied):
                frozen.call(method, request, token=tokens[who])
    assert frozen.snapshot() == before
    pipeline = frozen.call("GetPipeline", api.GetPipelineRequest(name=SALES))
    del pipeline.shares[:]
    frozen.call("UpdatePipeline", api.UpdatePipelineRequest(pipeline=pipeline))
    with pytest.raises(errors.PermissionDenied):  # who made it may not change the pipeline any more
        frozen.call("DeleteFreeze", api.DeleteFreezeRequest(name=own.name), token=tokens["owner"])
    frozen.call("DeleteFreeze", api.DeleteFreezeRequest(name=own.name))


def test_the_scope_stays_and_the_record_has_both_sides(frozen: Bed) -> None:
    made = create(frozen, scope=SALES)
    change = api.UpdateFreezeRequest(freeze=Freeze(name=made.name, scope="", reason="x"))
    with pytest.raises(errors.InvalidArgument, match=r"freeze\.scope"):
        frozen.call("UpdateFreeze", change)
    change.freeze.scope = SALES
    change.freeze.etag = "old"
    with pytest.raises(errors.Aborted):
        frozen.call("UpdateFreeze", change)
    change.freeze.etag = made.etag
    changed = frozen.call("UpdateFreeze", change)
    assert (changed.reason, changed.creator, changed.scope) == ("x", "principals/admin", SALES)
    frozen.call("DeleteFreeze", api.DeleteFreezeRequest(name=made.name))
    told = [e for e in frozen.events() if e.subject == made.name]
    assert [e.kind for e in told] == [
        Event.KIND_FREEZE_CREATED,
        Event.KIND_FREEZE_UPDATED,
        Event.KIND_FREEZE_DELETED,
    ]
    assert (told[1].freeze_before.reason, told[1].freeze.reason) == ("an incident", "x")
    assert told[2].freeze.reason == "x"


def test_what_is_not_there_cannot_be_frozen(frozen: Bed) -> None:
    with pytest.raises(errors.FailedPrecondition, match="there is no"):
        create(frozen, scope=f"{SALES}/stages/gone")
    with pytest.raises(errors.InvalidArgument):
        create(frozen, scope="environments/qa")
    for i in range(50):
        create(frozen, name=f"freezes/f{i}", scope=SALES)
    with pytest.raises(errors.FailedPrecondition, match="50 freezes"):
        create(frozen, scope=SALES)
    create(frozen)
    with pytest.raises(errors.AlreadyExists):
        create(frozen)


def test_the_name_of_a_deleted_freeze_gives_nobody_its_events(frozen: Bed) -> None:
    tokens = frozen.tokens
    frozen.environment("lab", makers=["principals/other"])
    stage = Stage(name="pipelines/own/stages/lab", environment="environments/lab")
    own = Pipeline(name="pipelines/own", stages=[stage])
    frozen.call("CreatePipeline", api.CreatePipelineRequest(pipeline=own), token=tokens["other"])
    made = create(frozen, "owner", scope=f"{SALES}/stages/qa", reason="the merger")
    frozen.call("DeleteFreeze", api.DeleteFreezeRequest(name=made.name), token=tokens["owner"])
    for who, scope in (("other", own.name), ("", ""), ("", own.name)):
        with pytest.raises(errors.AlreadyExists, match="name of a freeze") as refused:
            create(frozen, who, scope=scope)
        assert "sales" not in str(refused.value)
    seen = frozen.call("ListEvents", api.ListEventsRequest(), token=tokens["other"]).events
    assert not [e for e in seen if e.subject == made.name]
    create(frozen, "owner", scope=SALES)  # who saw the first one may have the name again


def test_a_pipeline_takes_its_freezes_with_it(frozen: Bed) -> None:
    create(frozen, scope=f"{SALES}/stages/qa")
    frozen.call("DeletePipeline", api.DeletePipelineRequest(name=SALES))
    assert not frozen.call("ListFreezes", api.ListFreezesRequest()).freezes
    assert [e.kind for e in frozen.events()][-2:] == [
        Event.KIND_FREEZE_DELETED,
        Event.KIND_PIPELINE_DELETED,
    ]


def test_a_time_beyond_all_calendars_is_refused_also_where_a_freeze_comes_again(frozen: Bed) -> None:
    weekly = {"start": "2026-01-01T00:00", "end": "2026-01-02T00:00", "recurrence": "FREQ=WEEKLY;BYDAY=TH"}
    create(frozen, scope=SALES, time_zone="Europe/Berlin", **weekly)
    request = api.DeployRequest(pipeline=SALES, artifact=frozen.upload(package()).name)
    request.schedule_time.FromJsonString("9999-12-31T23:59:59Z")
    for method, asked in (
        ("Deploy", request),
        ("ValidateDeployment", api.ValidateDeploymentRequest(deployment=request)),
    ):
        with pytest.raises(errors.InvalidArgument, match="400 days"):
            frozen.call(method, asked)


def test_only_administrators_go_through(frozen: Bed) -> None:
    tokens = frozen.tokens
    artifact = frozen.upload(package()).name
    frozen.call("UploadArtifact", iter(parts(package())), token=tokens["owner"])
    create(frozen)
    request = api.DeployRequest(pipeline=SALES, artifact=artifact, override_reason="I may")
    before = frozen.snapshot()
    for call in ("Deploy", "ValidateDeployment"):
        asked: Any = request if call == "Deploy" else api.ValidateDeploymentRequest(deployment=request)
        with pytest.raises(errors.PermissionDenied, match="override_reason"):
            frozen.call(call, asked, token=tokens["owner"])
    assert frozen.snapshot() == before
    run: Run = frozen.call("Deploy", request)
    until(frozen, run, Run.STATE_SUCCEEDED)


def test_a_maker_reschedules_and_an_administrator_lets_through(frozen: Bed) -> None:
    tokens = frozen.tokens
    frozen.call("UploadArtifact", iter(parts(package())), token=tokens["runner"])
    with Client(str(frozen.host.address), token=tokens["runner"]) as runner:
        artifact = next(iter(runner.artifacts())).name
        request = api.DeployRequest(pipeline=SALES, artifact=artifact)
        request.schedule_time.GetCurrentTime()
        request.schedule_time.seconds += 3600
        run = until(frozen, frozen.call("Deploy", request, token=tokens["runner"]), Run.STATE_SCHEDULED)
        create(frozen)
        with pytest.raises(errors.PermissionDenied, match="override_reason"):
            runner.reschedule(run.name, override_reason="I may")
        assert runner.reschedule(run.name).wait.freeze == "freezes/stop"
    with Client(str(frozen.host.address), token=frozen.token) as admin:
        admin.reschedule(run.name, override_reason="a hotfix")
        assert admin.wait(run.name, timeout=20).state == Run.STATE_SUCCEEDED
