"""Blocked artifacts and held stages: refused when asked for, and not sent by who waited meanwhile."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from tests.unit.deployment.conftest import Host, once
from tests.unit.deployment.test_frozen import lift, put, stop
from tests.unit.deployment.test_gates import APPROVAL, approve, gate, guard, rests
from tests.unit.deployment.test_run import package, state
from tests.unit.deployment.test_schedule import Clock, clock, holder, scheduled, verifying

from pipelinehost.errors import FailedPrecondition
from pipelinehost.v1.pipeline_host_pb2 import DeployRequest, RestoreArtifactRequest, RetryRunRequest
from pipelinehost.v1.resources_pb2 import Artifact, Event, Pipeline, Run, Stage
from pipelinehost_server.deployment.journal import Journal
from pipelinehost_server.deployment.run import keep_artifact
from pipelinehost_server.store import Transaction

__all__ = ["clock", "verifying"]


async def block(host: Host, name: str, reason: str = "it leaks") -> None:
    def job(tx: Transaction) -> None:
        artifact = tx.artifact(name) or Artifact()
        tx.block_artifact(artifact, Artifact.Block(reason=reason, principal="admin") if reason else None)
        kind = Event.KIND_ARTIFACT_BLOCKED if reason else Event.KIND_ARTIFACT_UNBLOCKED
        tx.append(Event(kind=kind, actor="admin", subject=name))

    await host.store.write(job)


async def hold(host: Host, *holds: Stage.Hold) -> None:
    def job(tx: Transaction) -> None:
        pipeline = tx.pipeline("pipelines/sales") or Pipeline()
        del pipeline.stages[0].holds[:]
        pipeline.stages[0].holds.extend(holds)
        tx.put_pipeline(pipeline)
        tx.append(Event(kind=Event.KIND_PIPELINE_UPDATED, actor="admin", subject=pipeline.name))

    await host.store.write(job)


def at(version: str, solution: str = "Sales") -> Stage.Hold:
    return Stage.Hold(solution=solution, version=version, reason="the fair")


def codes(host: Host, run: Run) -> list[str]:
    return [f.code for f in host.findings(run)]


async def retried(host: Host, run: Run) -> Run:
    return await host.ended(await host.deployment.retry(RetryRunRequest(name=run.name), "admin", once()))


async def test_a_blocked_artifact_is_refused_and_can_be_restored(host: Host) -> None:
    await host.restored(package())
    first = await host.deployed()
    await block(host, first.artifact)
    with pytest.raises(FailedPrecondition, match="it leaks") as refused:
        await host.asked(stage="production")
    assert refused.value.reason_name == "ARTIFACT_BLOCKED"
    request = RestoreArtifactRequest(artifact=first.artifact, environment="environments/dev")
    assert state(await host.ended(await host.deployment.restore(request, "admin", once()))) == "SUCCEEDED"
    await block(host, first.artifact, "")
    assert state(await host.deployed(stage="production")) == "SUCCEEDED"


async def test_who_has_the_bytes_lifts_no_block(host: Host) -> None:
    artifact = await host.upload(package(managed=True))
    await block(host, artifact.name)
    for fresh in (Artifact(name=artifact.name), Artifact(name=artifact.name, source_sha256="0" * 64)):
        await host.store.write(partial(keep_artifact, artifact=fresh, actor="eve"))
    again = await host.upload(package(managed=True))
    assert again.block.reason == "it leaks"
    assert again.block.HasField("time")


async def test_a_run_that_waits_for_its_time_fails_when_its_artifact_is_blocked(
    host: Host, clock: Clock
) -> None:
    run = await scheduled(host, clock)
    await block(host, run.artifact)
    ended = await host.ended(run)
    assert (state(ended), ended.error.code, codes(host, run)) == (
        "FAILED",
        "ARTIFACT_BLOCKED",
        ["ARTIFACT_BLOCKED"],
    )
    await block(host, run.artifact, "")
    again = await host.deployment.retry(RetryRunRequest(name=run.name), "admin", once())
    assert state(again) == "QUEUED"


async def test_a_run_at_a_gate_or_in_a_queue_fails_at_once(host: Host, verifying: asyncio.Event) -> None:
    first = await holder(host)
    artifact = await host.upload(package(managed=True))
    queued = await host.asked(artifact=artifact.name, stage="qa")
    await host.until(queued, lambda r: r.state == Run.STATE_WAITING_FOR_TARGET)
    await guard(host, gate(APPROVAL, "ada"))
    waits = await rests(host, await host.asked(artifact=artifact.name, stage="qa"))
    await block(host, artifact.name)
    for run in (queued, waits):
        assert (await host.ended(run, 10)).error.code == "ARTIFACT_BLOCKED"
    assert state(host.store.reads.run(first.name) or Run()) == "DEPLOYING"
    verifying.set()


@pytest.mark.parametrize("what", ["ARTIFACT_BLOCKED", "STAGE_HELD"])
async def test_just_before_the_import_is_sent(host: Host, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, done = Journal.note, list[str]()
    artifact = await host.upload(package(managed=True))

    async def late(self: Journal, key: str, *rest: object) -> None:
        if key == "import.intent" and not done:
            done.append(key)
            await (block(host, artifact.name) if what == "ARTIFACT_BLOCKED" else hold(host, at("0.9")))
        await real(self, key, *rest)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(Journal, "note", late)
    run = await host.deployed(artifact=artifact.name, stage="qa")
    assert (state(run), run.error.code, done) == ("FAILED", what, ["import.intent"])
    assert host.store.reads.held_by("environments/qa") is None
    assert await host.history("qa") == []


async def test_a_stage_is_held_on_a_version_of_a_solution(host: Host) -> None:
    await host.restored(package("1.0.0.0"))
    await host.deployed()
    await hold(host, at("1.0", "sales"), at("9.0", "Other"))
    newer = await host.upload(package("1.1.0.0", managed=True))
    with pytest.raises(FailedPrecondition, match="held on version") as refused:
        await host.asked(artifact=newer.name, stage="qa")
    assert refused.value.reason_name == "STAGE_HELD"
    with pytest.raises(FailedPrecondition, match="held"):
        await host.asked(stage="qa", version="1.1.0.0")
    await host.restored(package("1.2.0.0"))
    request = DeployRequest(pipeline="pipelines/sales", solution="Sales", stage="pipelines/sales/stages/qa")
    told = [u.finding.code async for u in host.deployment.validate(request, "admin") if u.HasField("finding")]
    assert told == ["STAGE_HELD"]
    run = await host.deployed(stage="qa")
    assert (state(run), run.error.code, run.version) == ("FAILED", "STAGE_HELD", "1.2.0.0")
    await hold(host, at("1.2.0.0"))
    assert state(await retried(host, run)) == "SUCCEEDED"


async def test_other_solutions_and_stages_are_not_held(host: Host) -> None:
    await hold(host, at("1.0", "Other"))
    artifact = await host.upload(package("2.0.0.0", managed=True))
    assert state(await host.deployed(artifact=artifact.name, stage="qa")) == "SUCCEEDED"
    await hold(host, at("1.0"))
    assert state(await host.deployed(artifact=artifact.name, stage="production")) == "SUCCEEDED"


async def test_all_that_stands_against_a_deployment_is_told_at_once(host: Host) -> None:
    artifact = await host.upload(package(managed=True))
    await block(host, artifact.name)
    await hold(host, at("7.0"))
    await put(host, stop())
    with pytest.raises(FailedPrecondition) as refused:
        await host.asked(artifact=artifact.name, stage="qa")
    assert [v.code for v in refused.value.violations] == ["ARTIFACT_BLOCKED", "STAGE_HELD", "STAGE_FROZEN"]
    blocked, held, _ = (v.description for v in refused.value.violations)
    assert "(it leaks): deploy another version" in blocked
    assert held.startswith("qa is held on version 7.0 of Sales (")
    assert "and this is 1.0.0.0: deploy version 7.0" in held
    await lift(host)


async def test_a_hold_that_comes_while_a_run_waits_for_an_approval(host: Host) -> None:
    await guard(host, gate(APPROVAL, "ada"))
    artifact = await host.upload(package(managed=True))
    run = await rests(host, await host.asked(artifact=artifact.name, stage="qa"))
    await hold(host, at("0.9"))
    ended = await host.ended(run)
    assert (ended.error.code, len(ended.gates[0].decisions)) == ("STAGE_HELD", 0)
    with pytest.raises(FailedPrecondition):
        await approve(host, run, "ada")
