"""Cancelling a run: who decides until when, what is told, and that nobody is told two things."""

from __future__ import annotations

import asyncio
import random

import httpx
import pytest
from tests.unit.deployment.conftest import Host, once
from tests.unit.deployment.test_run import package, state, steps
from tests.unit.deployment.way import locked, refusal, way_to

from pipelinehost.errors import FailedPrecondition
from pipelinehost.v1.pipeline_host_pb2 import CancelRunRequest
from pipelinehost.v1.resources_pb2 import Event, Run, Step
from pipelinehost_dataverse.solution import Table, new_manifest, write
from pipelinehost_dataverse.webapi import ImportOperation
from pipelinehost_server import rules
from pipelinehost_server.deployment.journal import IMPORT_NOTES, settings_key


async def cancel(host: Host, run: Run, reason: str = "") -> Run:
    return await host.deployment.cancel(CancelRunRequest(name=run.name, reason=reason), "admin", once())


def sent(host: Host, run: Run) -> bool:
    return host.store.reads.output(run.name, "import.operation") is not None


def states(host: Host, run: Run) -> list[str]:
    told = [e.run.to for e in host.events(run) if e.kind == Event.KIND_RUN_STATE_CHANGED]
    return [rules.state_name(s) for s in told]


async def slowly(host: Host, seconds: float = 60) -> Run:
    """A run whose import is under way in its target."""
    await host.stop()
    await host.start(embedded_pace=seconds)
    artifact = await host.upload(package(managed=True))
    run = await host.asked(artifact=artifact.name, stage="qa")
    return await host.until(run, lambda r: sent(host, r))


async def test_an_import_under_way_is_cancelled_by_its_environment(host: Host) -> None:
    run = await slowly(host)
    asked = await cancel(host, run, "wrong version")
    assert state(asked) == "CANCELLING"
    ended = await host.ended(run)
    assert (state(ended), steps(ended), ended.error.message) == ("CANCELLED", "s---", "")
    assert ended.HasField("end_time")
    assert states(host, run)[-2:] == ["CANCELLING", "CANCELLED"]
    assert [e.message for e in host.events(run) if e.run.to == Run.STATE_CANCELLING] == ["wrong version"]
    assert await host.history("qa") == []
    reads = host.store.reads
    assert reads.held_by("environments/qa") is None
    assert [reads.output(run.name, note) for note in IMPORT_NOTES] == [None] * len(IMPORT_NOTES)
    assert reads.secret(settings_key(run.name)) is None
    with pytest.raises(FailedPrecondition, match="finished"):
        await cancel(host, run)


async def test_the_next_run_gets_the_target_of_a_cancelled_one(host: Host) -> None:
    run = await slowly(host)
    other = await host.upload(write(new_manifest("Other", "1.0", managed=True), Table("cts_other")))
    second = await host.asked(artifact=other.name, stage="qa")
    await host.until(second, lambda r: r.state == Run.STATE_WAITING_FOR_TARGET)
    await cancel(host, run)
    assert state(await host.ended(run)) == "CANCELLED"
    await host.until(second, lambda r: sent(host, r))
    await cancel(host, second)
    assert state(await host.ended(second)) == "CANCELLED"


async def test_a_run_that_waits_for_its_target_is_cancelled_at_once(host: Host) -> None:
    run = await slowly(host)
    other = await host.upload(write(new_manifest("Other", "1.0", managed=True), Table("cts_other")))
    second = await host.asked(artifact=other.name, stage="qa")
    await host.until(second, lambda r: r.state == Run.STATE_WAITING_FOR_TARGET)
    assert state(await cancel(host, second)) == "CANCELLED"
    await cancel(host, run)
    await host.ended(run)
    assert await host.history("qa", "Other") == []


async def test_while_the_environment_is_busy_with_others_a_cancel_is_certain(host: Host) -> None:
    artifact = await host.upload(package(managed=True))
    way = await way_to(host, "qa")
    way.order("POST ImportSolutionAsync", locked(30), times=5)
    run = await host.asked(artifact=artifact.name, stage="qa")
    told = await host.until(run, lambda r: "busy with another operation" in r.steps[1].detail)
    assert state(told) == "DEPLOYING"
    assert host.store.reads.output(run.name, "import.intent") is None, "nothing is in doubt meanwhile"
    assert state(await cancel(host, run)) == "CANCELLED"
    await asyncio.sleep(0.3)
    assert way.count("POST ImportSolutionAsync") == 1
    assert host.deployment._dispatcher._tasks == {}, "nobody waits for the environment any more"


async def test_an_environment_may_go_on_with_the_import(host: Host) -> None:
    run = await slowly(host, 1.0)
    way = await way_to(host, "qa")
    way.order("PATCH asyncoperations", refusal(400, "0x80040203", "The operation is too far."))
    assert state(await cancel(host, run)) == "CANCELLING"
    ended = await host.ended(run)
    assert (state(ended), ended.error.message) == ("SUCCEEDED", "")
    assert states(host, run)[-3:] == ["CANCELLING", "DEPLOYING", "SUCCEEDED"]
    told = [e.message for e in host.events(run) if e.run.to == Run.STATE_DEPLOYING]
    assert told[-1] == "qa goes on with the import: The operation is too far."
    assert way.count("PATCH asyncoperations") == 1
    assert await host.history("qa") == ["1.0.0.0"]


async def test_a_cancel_may_be_asked_for_again(host: Host) -> None:
    run = await slowly(host)
    way = await way_to(host, "qa")
    way.order("PATCH asyncoperations", refusal(403, "0x80040220", "Not allowed."))
    await cancel(host, run)
    await host.until(run, lambda r: r.state == Run.STATE_DEPLOYING)
    assert state(await cancel(host, run)) == "CANCELLING"
    assert state(await host.ended(run)) == "CANCELLED"


async def test_cancelling_is_said_to_who_cancels_again(host: Host) -> None:
    run = await slowly(host)
    way = await way_to(host, "qa")
    way.order("PATCH asyncoperations", httpx.ReadError("gone"), times=10)
    await cancel(host, run)
    with pytest.raises(FailedPrecondition, match="was asked to cancel") as refused:
        await cancel(host, run)
    assert "run watch" in refused.value.remedy
    way.orders.clear()
    assert state(await host.ended(run)) == "CANCELLED"


async def test_the_answer_to_a_cancel_may_be_lost(host: Host) -> None:
    run = await slowly(host)
    way = await way_to(host, "qa")
    way.order("PATCH asyncoperations", httpx.ReadError("gone"), done=True)
    await cancel(host, run)
    assert state(await host.ended(run)) == "CANCELLED"
    assert await host.history("qa") == []


async def test_a_refused_cancel_that_the_environment_has_done_all_the_same(host: Host) -> None:
    """As when the first answer was lost and the second says that it is completed already."""
    run = await slowly(host)
    way = await way_to(host, "qa")
    way.order("PATCH asyncoperations", refusal(400, "0x80040203", "It is completed."), done=True)
    await cancel(host, run)
    assert state(await host.ended(run)) == "CANCELLED"


async def test_a_restart_goes_on_cancelling(host: Host) -> None:
    run = await slowly(host)
    way = await way_to(host, "qa")
    way.order("PATCH asyncoperations", httpx.ReadError("gone"), times=1000)
    assert state(await cancel(host, run)) == "CANCELLING"
    await host.stop()
    await host.start(embedded_pace=60)
    assert state(await host.ended(run)) == "CANCELLED"
    assert await host.history("qa") == []


async def test_an_import_that_was_never_received_is_not_sent_again_after_a_cancel(host: Host) -> None:
    artifact = await host.upload(package(managed=True))
    way = await way_to(host, "qa")
    way.order("POST ImportSolutionAsync", httpx.ReadError("gone"))
    run = await host.asked(artifact=artifact.name, stage="qa")
    await host.until(run, lambda r: host.store.reads.output(r.name, "import.nothing_since") is not None)
    assert state(await cancel(host, run)) == "CANCELLING"
    assert state(await host.ended(run)) == "CANCELLED"
    assert way.count("POST ImportSolutionAsync") == 1
    assert await host.history("qa") == []


async def test_what_the_environment_cancels_by_itself_is_a_failure(host: Host) -> None:
    run = await slowly(host)
    _, api = await host.environments.named("environments/qa")
    [operation] = await api.running_operations()
    await api.cancel_import(ImportOperation("", operation.id))
    ended = await host.ended(run)
    assert (state(ended), ended.error.code) == ("FAILED", "IMPORT_FAILED")
    assert "canceled there" in ended.error.message


async def test_a_run_whose_import_is_done_is_not_cancelled(host: Host) -> None:
    artifact = await host.upload(package(managed=True))
    way = await way_to(host, "qa")
    run = await host.asked(artifact=artifact.name, stage="qa")
    await host.until(run, lambda r: r.steps[1].state == Step.STATE_RUNNING)
    await host.until(run, lambda r: sent(host, r))
    way.order("GET solutions", httpx.Response(503), times=20)  # verifying takes until the environment answers
    await host.until(run, lambda r: r.steps[1].state == Step.STATE_SUCCEEDED)
    with pytest.raises(FailedPrecondition, match="its import is done"):
        await cancel(host, run)
    way.orders.clear()
    assert state(await host.ended(run)) == "SUCCEEDED"


async def test_cancel_and_the_run_agree_whenever_it_comes(host: Host) -> None:
    """25 runs, each cancelled at another moment: one end each, and the environment says the same."""
    await host.stop()
    await host.start(embedded_pace=0.05)
    ends: dict[str, int] = {}
    for number in range(25):
        name = f"Race{number}"
        content = write(new_manifest(name, "1.0", managed=True), Table(f"cts_race{number}"))
        artifact = await host.upload(content)
        run = await host.asked(artifact=artifact.name, stage="qa")
        await asyncio.sleep(random.Random(number).uniform(0, 0.35))
        try:
            answer = state(await cancel(host, run))
        except FailedPrecondition:
            answer = "refused"
        ended = await host.ended(run)
        end = state(ended)
        assert end in ("CANCELLED", "SUCCEEDED"), ended.error.message
        assert end == "CANCELLED" or answer != "CANCELLED"
        assert (await host.history("qa", name) == []) == (end == "CANCELLED")
        assert sum(s in ("CANCELLED", "SUCCEEDED", "FAILED") for s in states(host, run)) == 1
        assert host.store.reads.held_by("environments/qa") is None
        ends[f"{answer} {end}"] = ends.get(f"{answer} {end}", 0) + 1
    assert len(ends) > 1, f"the race was always run the same way: {ends}"
