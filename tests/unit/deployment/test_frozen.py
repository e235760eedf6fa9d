"""Freezes and runs: who waits for their end, who is let through, and that nothing slips in before them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.deployment.conftest import Host, once
from tests.unit.deployment.test_gates import APPROVAL, PRE_DEPLOYMENT, approve, gate, guard, rests
from tests.unit.deployment.test_run import package, state
from tests.unit.deployment.test_schedule import (
    DAY,
    HOUR,
    Clock,
    cancel,
    clock,
    holder,
    reschedule,
    scheduled,
    states,
    verifying,
    waits,
)

from pipelinehost.errors import FailedPrecondition
from pipelinehost.v1.pipeline_host_pb2 import DeployRequest, RescheduleRunRequest
from pipelinehost.v1.resources_pb2 import Event, Freeze, Principal, Run, Step
from pipelinehost_server import rules
from pipelinehost_server.deployment.journal import Journal
from pipelinehost_server.store import Transaction

__all__ = ["clock", "verifying"]
STAGE = "pipelines/sales/stages/qa"
BOSS = "principals/boss"


def local(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def window(clock: Clock, begins: int = -HOUR, ends: int = HOUR, **more: str) -> Freeze:
    """A freeze from and until so many nanoseconds from now."""
    now = clock()
    fields: dict[str, Any] = {"name": "freezes/audit", "reason": "the audit", "time_zone": "UTC", **more}
    return Freeze(start=local(now + begins), end=local(now + ends), **fields)


def stop(**more: str) -> Freeze:
    fields: dict[str, Any] = {"name": "freezes/stop", "reason": "an incident", **more}
    return Freeze(**fields)


async def put(host: Host, *freezes: Freeze) -> None:
    def job(tx: Transaction) -> None:
        for freeze in freezes:
            kind = Event.KIND_FREEZE_UPDATED if tx.freeze(freeze.name) else Event.KIND_FREEZE_CREATED
            copy = Freeze()
            copy.CopyFrom(freeze)
            made = tx.put_freeze(copy)
            tx.append(Event(kind=kind, actor="admin", subject=made.name, freeze=made))

    await host.store.write(job)


async def lift(host: Host, name: str = "freezes/stop") -> None:
    def job(tx: Transaction) -> None:
        tx.delete_freeze(name)
        tx.append(Event(kind=Event.KIND_FREEZE_DELETED, actor="admin", subject=name))

    await host.store.write(job)


async def boss(host: Host, role: Principal.Role = Principal.ROLE_ADMINISTRATOR) -> None:
    person = Principal(name=BOSS, kind=Principal.KIND_PERSON, role=role)
    await host.store.write(lambda tx: tx.put_principal(person))


async def queued(host: Host, **more: Any) -> Run:
    artifact = await host.upload(package(managed=True))
    return await host.asked(artifact=artifact.name, stage="qa", **more)


async def through(host: Host, **more: Any) -> Run:
    artifact = await host.upload(package(managed=True))
    request = DeployRequest(pipeline="pipelines/sales", artifact=artifact.name, stage=STAGE, **more)
    return await host.deployment.deploy(request, BOSS, once())


async def findings_of(host: Host, request: DeployRequest) -> list[str]:
    return [u.finding.code async for u in host.deployment.validate(request, "admin") if u.HasField("finding")]


async def test_a_deployment_during_a_freeze_is_refused_with_its_end(host: Host, clock: Clock) -> None:
    made = window(clock, time_zone="Europe/Berlin", scope="pipelines/sales")
    made.start, made.end = "2020-01-01T00:00", "2999-07-01T12:00"
    await put(host, made)
    artifact = await host.upload(package(managed=True))
    with pytest.raises(FailedPrecondition) as refused:
        await host.asked(artifact=artifact.name, stage="qa")
    assert refused.value.reason_name == "STAGE_FROZEN"
    told = refused.value.violations[0].description
    for words in (
        "2999-07-01T12:00:00+02:00 (Europe/Berlin, 2999-07-01T10:00:00Z)",
        "--at 2999-07-01T12:00:00+02:00",
        "--override-reason",
        "freezes/audit",
        "the audit",
    ):
        assert words in told
    request = DeployRequest(pipeline="pipelines/sales", artifact=artifact.name, stage=STAGE)
    assert "STAGE_FROZEN" in await findings_of(host, request)
    await put(host, stop())
    with pytest.raises(FailedPrecondition, match="changed or deleted"):
        await host.asked(artifact=artifact.name, stage="qa")


async def test_a_freeze_is_told_with_its_reason_first(host: Host, clock: Clock) -> None:
    artifact = await host.upload(package(managed=True))
    request = DeployRequest(pipeline="pipelines/sales", artifact=artifact.name, stage=STAGE)

    async def told() -> tuple[str, str]:
        with pytest.raises(FailedPrecondition) as refused:
            await host.deployment.deploy(request, "admin", once())
        updates = [u async for u in host.deployment.validate(request, "admin")]
        finding = next(u.finding for u in updates if u.HasField("finding"))
        assert refused.value.message == f"{refused.value.violations[0].description}."
        assert finding.remedy.startswith("Deploy ")
        assert refused.value.message.startswith(f"{finding.cause[:-1]}: deploy ")
        return finding.cause, finding.remedy

    await put(host, stop(reason="an incident: all is red"))
    cause, remedy = await told()
    assert cause == (
        "qa is frozen by freezes/stop (an incident: all is red) until that is changed or deleted."
    ), "an id stays as it is"
    assert remedy == "Deploy then, or let an administrator go through it with --override-reason."
    await lift(host)
    longer = window(clock, -HOUR, 2 * HOUR, name="freezes/z", reason="the fair")
    await put(host, window(clock), longer)
    cause, remedy = await told()
    assert cause.startswith("qa is frozen by 2 freezes, of which freezes/z (the fair) ends last, until ")
    end = datetime.fromisoformat(f"{longer.end}+00:00").isoformat()
    assert remedy.startswith(f"Deploy with --at {end}, or ")
    await put(host, window(clock, 2 * HOUR, 3 * HOUR, name="freezes/next", reason="the count"))
    cause, remedy = await told()
    assert "3 freezes, of which freezes/next (the count) ends last" in cause


async def test_the_end_that_is_named_can_be_asked_for(host: Host, clock: Clock) -> None:
    await put(host, window(clock), window(clock, HOUR, 2 * HOUR, name="freezes/other"))
    inside = rules.timestamp(clock() + HOUR + HOUR // 2)
    for at in (None, inside):
        with pytest.raises(FailedPrecondition) as refused:
            await queued(host, schedule_time=at)
        told = refused.value.violations[0].description
    when = datetime.fromisoformat(told.partition("--at ")[2].partition(",")[0])
    at_end = rules.timestamp(int(when.timestamp()) * 10**9)
    run = await waits(host, await queued(host, schedule_time=at_end))
    clock.offset = 3 * HOUR
    assert state(await host.ended(run)) == "SUCCEEDED"


async def test_all_reasons_at_once(host: Host, clock: Clock) -> None:
    await put(host, stop())
    artifact = await host.upload(package(managed=False))
    with pytest.raises(FailedPrecondition) as refused:
        await host.asked(artifact=artifact.name, stage="production")
    codes = [v.code for v in refused.value.violations]
    assert codes == ["ARTIFACT_UNMANAGED", "STAGE_OUT_OF_ORDER", "STAGE_FROZEN"]


async def test_a_freeze_of_something_else_is_in_nobodys_way(host: Host, clock: Clock) -> None:
    await put(
        host, stop(scope="pipelines/sales/stages/production"), stop(name="freezes/o", scope="pipelines/o")
    )
    assert state(await host.ended(await queued(host))) == "SUCCEEDED"


async def test_a_restore_goes_on_during_a_freeze(host: Host, clock: Clock) -> None:
    await put(host, stop())
    assert state(await host.restored(package())) == "SUCCEEDED"


async def test_a_freeze_that_is_there_when_the_time_comes(host: Host, clock: Clock) -> None:
    run = await scheduled(host, clock)
    await put(host, window(clock, 0, 3 * HOUR, scope=STAGE))
    clock.offset = 2 * HOUR
    run = await host.until(run, lambda r: r.wait.freeze == "freezes/audit")
    assert (state(run), "the audit" in run.wait.reason) == ("SCHEDULED", True)
    clock.offset = 3 * HOUR + 10**9
    assert state(await host.ended(run)) == "SUCCEEDED"
    assert await host.history("qa") == ["1.0.0.0"]


async def test_a_stop_of_the_line_is_waited_for_until_it_is_lifted(host: Host, clock: Clock) -> None:
    run = await scheduled(host, clock)
    await put(host, stop())
    clock.offset = 2 * HOUR
    run = await host.until(run, lambda r: r.wait.freeze == "freezes/stop")
    assert not run.wait.HasField("until")
    for offset in (300 * DAY, -300 * DAY, 300 * DAY):
        clock.offset = offset
        await asyncio.sleep(0.05)
    await host.stop()
    await host.start()
    await asyncio.sleep(0.1)
    assert state(host.store.reads.run(run.name) or Run()) == "SCHEDULED"
    await lift(host)
    assert state(await host.ended(run)) == "SUCCEEDED"


async def test_a_freeze_that_is_changed_or_ends_early(host: Host, clock: Clock) -> None:
    run = await scheduled(host, clock)
    made = window(clock, 0, 300 * HOUR)
    await put(host, made)
    clock.offset = 2 * HOUR
    run = await host.until(run, lambda r: r.wait.freeze == "freezes/audit")
    made.reason = "the audit, still"
    await put(host, made)
    await host.until(run, lambda r: "still" in r.wait.reason)
    made.end = local(clock() - HOUR)
    await put(host, made)
    assert state(await host.ended(run)) == "SUCCEEDED"


async def test_a_freeze_that_begins_while_a_run_waits_for_its_target(
    host: Host, clock: Clock, verifying: asyncio.Event
) -> None:
    """It asks for its turn no more, lets others by, and goes on afterwards; its approvals stand."""
    first = await holder(host)
    await guard(host, gate(APPROVAL, "ada"), gate(PRE_DEPLOYMENT, "ben"))
    run = await rests(host, await queued(host))
    await approve(host, run, "ada")
    run = await host.until(run, lambda r: r.state == Run.STATE_AWAITING_GATE and len(r.gates) == 2)
    await approve(host, run, "ben")
    await host.until(run, lambda r: r.state == Run.STATE_WAITING_FOR_TARGET)
    await put(host, stop(scope="pipelines/sales"))
    verifying.set()
    assert state(await host.ended(first)) == "SUCCEEDED", "what is sent is not held up"
    run = await waits(host, run)
    assert (run.wait.freeze, [len(g.decisions) for g in run.gates]) == ("freezes/stop", [1, 1])
    assert host.store.reads.waiting_for("environments/qa") == []
    assert host.store.reads.held_by("environments/qa") is None
    await lift(host)
    done = await host.ended(run)
    assert (state(done), [len(g.decisions) for g in done.gates]) == ("SUCCEEDED", [1, 1])
    told = [e.kind for e in host.events(run)]
    assert told.count(Event.KIND_GATE_OPENED) == 2
    assert states(host, run).count("VALIDATING") == 1


async def test_a_freeze_just_before_the_import_is_sent(
    host: Host, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is noted, so nothing is sent: the target is let go, and what was approved stands."""
    real, frozen = Journal.note, list[str]()

    async def late(self: Journal, key: str, *rest: object) -> None:
        if key == "import.intent" and not frozen:
            frozen.append(key)
            await put(host, stop())
        await real(self, key, *rest)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(Journal, "note", late)
    await guard(host, gate(APPROVAL, "ada"))
    run = await rests(host, await queued(host))
    await approve(host, run, "ada")
    run = await waits(host, run)
    assert (frozen, host.store.reads.held_by("environments/qa")) == (["import.intent"], None)
    assert host.store.reads.output(run.name, "import.intent") is None
    assert [s.state for s in run.steps][:2] == [Step.STATE_SUCCEEDED, Step.STATE_PENDING]
    await asyncio.sleep(0.1)
    assert await host.history("qa") == []
    await lift(host)
    done = await host.ended(run)
    assert (state(done), len(done.gates[0].decisions)) == ("SUCCEEDED", 1)
    assert await host.history("qa") == ["1.0.0.0"]


@pytest.mark.parametrize("what", ["clock", "freeze", "both"])
async def test_an_import_that_was_sent_waits_for_nothing_any_more(
    host: Host, clock: Clock, what: str
) -> None:
    """Not after a restart either: it would be let go of in the middle, and sent a second time later."""
    await host.stop()
    await host.start(embedded_pace=2.0)
    run = await scheduled(host, clock)
    clock.offset = 2 * HOUR
    await host.until(run, lambda r: host.store.reads.output(r.name, "import.operation") is not None)
    if what != "freeze":
        clock.offset = -400 * DAY
    if what != "clock":
        await put(host, stop())
    await asyncio.sleep(0.05)
    assert host.store.reads.held_by("environments/qa") == run.name
    for _ in range(2):
        await host.stop()
        await host.start(embedded_pace=2.0)
    assert state(await host.ended(run)) == "SUCCEEDED"
    assert await host.history("qa") == ["1.0.0.0"]
    assert states(host, run).count("SCHEDULED") == 1


async def test_an_administrator_goes_through(host: Host, clock: Clock) -> None:
    await boss(host)
    await put(host, stop(), window(clock, -HOUR, 500 * HOUR))
    run = await host.ended(await through(host, override_reason="a hotfix"))
    assert (state(run), run.override_reason) == ("SUCCEEDED", "a hotfix")
    told = [e for e in host.events(run) if e.kind == Event.KIND_FREEZE_OVERRIDDEN]
    assert [e.actor for e in told] == [BOSS, BOSS]
    assert {e.message for e in told} == {"a hotfix (freezes: freezes/audit, freezes/stop)"}
    assert "SCHEDULED" not in states(host, run)


async def test_a_scheduled_run_is_let_through_later_and_not_any_more(host: Host, clock: Clock) -> None:
    await boss(host)
    run = await scheduled(host, clock)
    await put(host, stop())
    request = RescheduleRunRequest(name=run.name, override_reason="now", schedule_time=run.schedule_time)
    assert state(await host.deployment.reschedule(request, BOSS, once())) == "SCHEDULED", (
        "its time is another"
    )
    back = RescheduleRunRequest(name=run.name, schedule_time=run.schedule_time)
    assert (await host.deployment.reschedule(back, "admin", once())).override_reason == ""
    clock.offset = 2 * HOUR
    await host.until(run, lambda r: r.wait.freeze == "freezes/stop")
    again = RescheduleRunRequest(name=run.name, override_reason="now")
    assert state(await host.deployment.reschedule(again, BOSS, once())) == "QUEUED"
    assert state(await host.ended(run)) == "SUCCEEDED"


async def test_who_is_no_administrator_any_more_lets_nobody_through(host: Host, clock: Clock) -> None:
    await boss(host)
    at = rules.timestamp(clock() + HOUR)
    run = await waits(host, await through(host, override_reason="a hotfix", schedule_time=at))
    await put(host, stop())
    await boss(host, Principal.ROLE_USER)
    clock.offset = 2 * HOUR
    run = await host.until(run, lambda r: r.wait.freeze == "freezes/stop")
    assert await host.history("qa") == []
    await boss(host)
    await put(host, stop(reason="still"))
    assert state(await host.ended(run)) == "SUCCEEDED"


async def test_a_pause_between_two_windows_is_used(host: Host, clock: Clock) -> None:
    run = await scheduled(host, clock)
    await put(host, window(clock, 0, 2 * HOUR), window(clock, 3 * HOUR, 4 * HOUR, name="freezes/next"))
    clock.offset = HOUR + HOUR // 2
    run = await host.until(run, lambda r: r.wait.freeze == "freezes/audit")
    clock.offset = 2 * HOUR + HOUR // 2
    assert state(await host.ended(run)) == "SUCCEEDED"


RACES = 60


async def test_of_freeze_lift_reschedule_cancel_and_fire_one_wins(
    host: Host, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No import is sent whose intent was noted during a freeze, none twice, and none is lost."""
    await guard(host)
    artifact = await host.upload(package(managed=True))
    await host.stop()
    await host.start(advancing=8)
    real, slipped = Transaction.put_output, list[str]()

    def noted(self: Transaction, run: str, step: str, output: bytes) -> None:
        if step == "import.intent" and self.freezes_of(""):
            slipped.append(run)
        real(self, run, step, output)

    monkeypatch.setattr(Transaction, "put_output", noted)
    chance = random.Random(47)
    ends: dict[str, int] = {}
    for _ in range(RACES):
        clock.offset = 0
        at = rules.timestamp(clock() + HOUR)
        run = await waits(host, await host.asked(artifact=artifact.name, stage="qa", schedule_time=at))
        sent = len(await host.history("qa"))
        entrants: list[Callable[[Run], Awaitable[object]]] = [
            lambda run: put(host, stop()),
            lambda run: put(host, stop()),
            lambda run: reschedule(host, clock, run),
            lambda run: reschedule(host, clock, run, 5 * HOUR),
            lambda run: cancel(host, run),
        ]

        async def later(ask: Callable[[Run], Awaitable[object]], run: Run, seconds: float) -> object:
            await asyncio.sleep(seconds)
            return await ask(run)

        tasks = [
            asyncio.create_task(later(ask, run, chance.random() * 0.03))
            for ask in chance.sample(entrants, chance.randint(1, 3))
        ]
        if chance.random() < 0.7:
            await asyncio.sleep(chance.random() * 0.01)
            clock.offset = 2 * HOUR
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(not isinstance(t, BaseException) or isinstance(t, FailedPrecondition) for t in told), told
        await asyncio.sleep(chance.random() * 0.02)
        await lift(host)
        clock.offset = 10 * HOUR
        ended = await host.ended(run)
        ends[state(ended)] = ends.get(state(ended), 0) + 1
        assert len(await host.history("qa")) - sent == (ended.state == Run.STATE_SUCCEEDED)
        cancelled = [t for t in told if isinstance(t, Run) and t.state == Run.STATE_CANCELLED]
        assert (ended.state == Run.STATE_CANCELLED) >= bool(cancelled)
    assert slipped == []
    assert sum(ends.values()) == RACES
    assert {"SUCCEEDED", "CANCELLED"} <= set(ends), ends
