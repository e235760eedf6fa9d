"""Runs that wait for their time: by the host's clock, through restarts, and whoever changes it meanwhile."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.unit.deployment.conftest import Host, once
from tests.unit.deployment.test_gates import APPROVAL, PRE_DEPLOYMENT, approve, gate, guard, rests
from tests.unit.deployment.test_run import package, state

from pipelinehost.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound
from pipelinehost.v1.pipeline_host_pb2 import CancelRunRequest, RescheduleRunRequest
from pipelinehost.v1.resources_pb2 import DeploymentSettings, Event, Run, Step
from pipelinehost_dataverse.solution import Table, new_manifest, write
from pipelinehost_server import rules
from pipelinehost_server.deployment import dispatcher, schedule
from pipelinehost_server.deployment.journal import Journal, settings_key
from pipelinehost_server.deployment.run import Execution

HOUR = 3600 * 10**9
DAY = 24 * HOUR


class Clock:
    """A clock that tests put forward and back."""

    def __init__(self, host: Host) -> None:
        self.offset = 0
        host.clock = self

    def __call__(self) -> int:
        return time.time_ns() + self.offset


@pytest.fixture
def clock(host: Host, monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(dispatcher, "_CLOCK_SECONDS", 0.005)
    return Clock(host)


@pytest.fixture
def verifying(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Runs of the solution Other keep their target until this is set."""
    go_on, real = asyncio.Event(), Execution._verify

    async def verify(self: Execution) -> str:
        if self.journal.run.solution == "Other":
            await go_on.wait()
        return await real(self)

    monkeypatch.setattr(Execution, "_verify", verify)
    return go_on


async def holder(host: Host) -> Run:
    """A run of Other that has its target, and its import sent: no gate is asked any more."""
    other = await host.upload(write(new_manifest("Other", "1.0", managed=True), Table("cts_other")))
    run = await host.asked(artifact=other.name, stage="qa")
    return await host.until(run, lambda r: host.store.reads.output(r.name, "import.operation") is not None)


async def scheduled(host: Host, clock: Clock, after: int = HOUR, **more: Any) -> Run:
    """A run that waits for its time."""
    artifact = await host.upload(package(managed=True))
    at = rules.timestamp(clock() + after)
    run = await host.asked(artifact=artifact.name, stage="qa", schedule_time=at, **more)
    return await waits(host, run)


async def waits(host: Host, run: Run) -> Run:
    return await host.until(run, lambda r: r.state == Run.STATE_SCHEDULED)


async def reschedule(host: Host, clock: Clock, run: Run, after: int = 0, **more: object) -> Run:
    request = RescheduleRunRequest(name=run.name, **more)  # type: ignore[arg-type]  # kwargs of a message
    if after:
        request.schedule_time.CopyFrom(rules.timestamp(clock() + after))
    return await host.deployment.reschedule(request, "admin", once())


async def cancel(host: Host, run: Run) -> Run:
    return await host.deployment.cancel(CancelRunRequest(name=run.name), "admin", once())


def states(host: Host, run: Run) -> list[str]:
    return [rules.state_name(e.run.to) for e in host.events(run) if e.kind == Event.KIND_RUN_STATE_CHANGED]


async def test_a_run_is_validated_and_waits_for_its_time_without_its_target(host: Host, clock: Clock) -> None:
    run = await scheduled(host, clock)
    assert run.steps[0].state == Step.STATE_SUCCEEDED
    assert (run.wait.until, run.wait.freeze) == (run.schedule_time, "")
    assert host.store.reads.held_by("environments/qa") is None
    other = await host.upload(write(new_manifest("Other", "1.0", managed=True), Table("cts_other")))
    assert state(await host.deployed(artifact=other.name, stage="qa")) == "SUCCEEDED", "it is in nobody's way"
    assert await host.history("qa") == []
    clock.offset = HOUR
    done = await host.ended(run)
    assert (state(done), done.HasField("wait")) == ("SUCCEEDED", False)
    assert await host.history("qa") == ["1.0.0.0"]
    assert states(host, run) == ["VALIDATING", "SCHEDULED", "QUEUED", "DEPLOYING", "SUCCEEDED"]


async def test_a_time_that_has_passed_is_now(host: Host, clock: Clock) -> None:
    artifact = await host.upload(package(managed=True))
    past = rules.timestamp(clock() - DAY)
    run = await host.deployed(artifact=artifact.name, stage="qa", schedule_time=past)
    assert (state(run), run.HasField("schedule_time")) == ("SUCCEEDED", False)
    assert "SCHEDULED" not in states(host, run)


async def test_a_time_too_far_ahead_is_refused(host: Host, clock: Clock) -> None:
    artifact = await host.upload(package(managed=True))
    for far in (clock() + 401 * DAY, 2**62):
        with pytest.raises(InvalidArgument, match=r"schedule_time: .* 400 days"):
            await host.asked(artifact=artifact.name, stage="qa", schedule_time=rules.timestamp(far))
    run = await scheduled(host, clock, 399 * DAY)
    with pytest.raises(InvalidArgument):
        await reschedule(host, clock, run, 401 * DAY)


async def test_a_time_that_came_while_the_host_was_down(host: Host, clock: Clock) -> None:
    run = await scheduled(host, clock)
    await host.stop()
    clock.offset = 2 * HOUR
    await host.start()
    assert state(await host.ended(run)) == "SUCCEEDED"
    assert await host.history("qa") == ["1.0.0.0"]


async def test_a_run_whose_gate_has_expired_meanwhile_ends_and_forgets_its_settings(host: Host) -> None:
    """Before its alarm rings somebody gives it another time."""
    clock = Clock(host)
    await guard(host, gate(APPROVAL, "ada"))
    artifact = await host.upload(package(managed=True))
    run = await host.asked(artifact=artifact.name, stage="qa", settings=DeploymentSettings())
    await rests(host, run)
    assert host.store.reads.secret(settings_key(run.name)) is not None
    clock.offset = 8 * DAY
    assert state(await reschedule(host, clock, run)) == "EXPIRED"
    assert host.store.reads.secret(settings_key(run.name)) is None


async def test_a_restart_before_the_time_changes_nothing(host: Host, clock: Clock) -> None:
    run = await scheduled(host, clock)
    for _ in range(3):
        await host.stop()
        await host.start()
        await asyncio.sleep(0.05)
    assert (host.store.reads.run(run.name) or Run()).state == Run.STATE_SCHEDULED
    clock.offset = 2 * HOUR
    assert state(await host.ended(run)) == "SUCCEEDED"
    assert states(host, run).count("SCHEDULED") == 1
    assert await host.history("qa") == ["1.0.0.0"]


async def test_a_clock_that_jumps_400_days_either_way(host: Host, clock: Clock) -> None:
    """Put back, a run waits longer; put forward, it goes on: once, and it is not lost."""
    run = await scheduled(host, clock)
    clock.offset = -400 * DAY
    await asyncio.sleep(0.1)
    assert state(host.store.reads.run(run.name) or Run()) == "SCHEDULED"
    await host.stop()
    await host.start()
    await asyncio.sleep(0.1)
    assert state(host.store.reads.run(run.name) or Run()) == "SCHEDULED"
    clock.offset = 400 * DAY
    assert state(await host.ended(run)) == "SUCCEEDED"
    clock.offset = -400 * DAY
    await asyncio.sleep(0.1)
    clock.offset = 400 * DAY
    await asyncio.sleep(0.1)
    assert await host.history("qa") == ["1.0.0.0"]


async def test_a_clock_that_is_put_back_between_the_time_and_the_import(
    host: Host, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction that notes the intent looks once more: nothing is sent before the time."""
    run = await scheduled(host, clock)
    real, jumped = Journal.note, list[str]()

    async def back(self: Journal, key: str, *rest: object) -> None:
        if key == "import.intent" and not jumped:
            jumped.append(key)
            clock.offset = 0
        await real(self, key, *rest)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(Journal, "note", back)
    clock.offset = 2 * HOUR
    again = await host.until(run, lambda r: bool(jumped) and r.state == Run.STATE_SCHEDULED)
    assert host.store.reads.held_by("environments/qa") is None
    assert [s.state for s in again.steps][:2] == [Step.STATE_SUCCEEDED, Step.STATE_PENDING]
    assert await host.history("qa") == []
    clock.offset = 2 * HOUR
    assert state(await host.ended(run)) == "SUCCEEDED"


async def test_the_approval_comes_before_the_time_and_the_last_gate_after_it(
    host: Host, clock: Clock
) -> None:
    await guard(host, gate(APPROVAL, "ada"), gate(PRE_DEPLOYMENT, "ben"))
    artifact = await host.upload(package(managed=True))
    at = rules.timestamp(clock() + HOUR)
    run = await rests(host, await host.asked(artifact=artifact.name, stage="qa", schedule_time=at))
    await approve(host, run, "ada")
    run = await waits(host, run)
    assert [g.kind for g in run.gates] == [APPROVAL]
    await guard(host, gate(APPROVAL, "ada"), gate(PRE_DEPLOYMENT, "ben"))
    await asyncio.sleep(0.1)
    assert states(host, run).count("SCHEDULED") == 1, "a look at the policy is no news"
    clock.offset = HOUR
    run = await rests(host, run)
    await approve(host, run, "ben")
    assert state(await host.ended(run)) == "SUCCEEDED"


async def test_another_time_opens_the_gate_again_that_a_run_waits_at(host: Host, clock: Clock) -> None:
    await guard(host, gate(PRE_DEPLOYMENT, required=2))
    artifact = await host.upload(package(managed=True))
    run = await rests(host, await host.asked(artifact=artifact.name, stage="qa"))
    await approve(host, run, "ada")
    changed = await reschedule(host, clock, run, HOUR)
    assert (state(changed), len(changed.gates[0].decisions)) == ("AWAITING_GATE", 0)
    with pytest.raises(Aborted):
        await approve(host, run, "ben", bound_sha256=run.gates[0].bound_sha256)
    await approve(host, run, "ben", bound_sha256=changed.gates[0].bound_sha256)
    await approve(host, run, "ada")
    run = await waits(host, run)
    clock.offset = HOUR
    done = await host.ended(run)
    assert (state(done), len(done.gates[0].decisions)) == ("SUCCEEDED", 2)


async def test_what_was_approved_for_one_time_is_asked_again_for_another(host: Host, clock: Clock) -> None:
    await guard(host, gate(APPROVAL), gate(PRE_DEPLOYMENT, "ben"))
    artifact = await host.upload(package(managed=True))
    at = rules.timestamp(clock() + 5 * HOUR)
    run = await rests(host, await host.asked(artifact=artifact.name, stage="qa", schedule_time=at))
    await approve(host, run, "ada")
    await waits(host, run)
    sooner = await reschedule(host, clock, run)
    assert (state(sooner), sooner.gates[0].kind, len(sooner.gates[0].decisions)) == (
        "AWAITING_GATE",
        APPROVAL,
        0,
    )
    await asyncio.sleep(0.1)
    assert await host.history("qa") == []
    await approve(host, run, "ada")
    run = await host.until(run, lambda r: len(r.gates) == 2)
    later = await reschedule(host, clock, run, HOUR)
    assert [g.kind for g in later.gates] == [APPROVAL], "the earlier gate is asked first"
    await approve(host, run, "ada")
    await waits(host, run)
    clock.offset = HOUR
    await host.until(run, lambda r: len(r.gates) == 2)
    await approve(host, run, "ben")
    assert state(await host.ended(run)) == "SUCCEEDED"


async def test_another_time(host: Host, clock: Clock) -> None:
    run = await scheduled(host, clock)
    later = await reschedule(host, clock, run, 5 * HOUR)
    assert (state(later), later.wait.until) == ("SCHEDULED", later.schedule_time)
    clock.offset = 2 * HOUR
    await asyncio.sleep(0.1)
    assert state(host.store.reads.run(run.name) or Run()) == "SCHEDULED"
    sooner = await reschedule(host, clock, run, HOUR)
    clock.offset = 4 * HOUR
    done = await host.ended(run)
    assert state(done) == "SUCCEEDED"
    told = [e for e in host.events(run) if e.kind == Event.KIND_RUN_RESCHEDULED]
    assert [e.actor for e in told] == ["admin", "admin"]
    assert told[1].message == (
        f"{sooner.schedule_time.ToJsonString()}; before: {later.schedule_time.ToJsonString()}"
    )


async def test_no_time_any_more_is_at_once(host: Host, clock: Clock) -> None:
    run = await scheduled(host, clock)
    now = await reschedule(host, clock, run)
    assert (state(now), now.HasField("schedule_time")) == ("QUEUED", False)
    assert state(await host.ended(run)) == "SUCCEEDED"


async def test_a_run_that_waits_for_its_target_leaves_the_queue_for_a_later_time_only(
    host: Host, clock: Clock, verifying: asyncio.Event
) -> None:
    first = await holder(host)
    run = await host.asked(artifact=(await host.upload(package(managed=True))).name, stage="qa")
    await host.until(run, lambda r: r.state == Run.STATE_WAITING_FOR_TARGET)
    assert state(await reschedule(host, clock, run)) == "WAITING_FOR_TARGET"
    assert host.store.reads.waiting_for("environments/qa") == [run.name]
    assert state(await reschedule(host, clock, run, HOUR)) == "SCHEDULED"
    assert host.store.reads.waiting_for("environments/qa") == []
    verifying.set()
    assert state(await host.ended(first)) == "SUCCEEDED"
    await asyncio.sleep(0.1)
    assert state(host.store.reads.run(run.name) or Run()) == "SCHEDULED"
    clock.offset = 2 * HOUR
    assert state(await host.ended(run)) == "SUCCEEDED"


async def test_a_run_that_has_its_target_and_has_sent_nothing(
    host: Host, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, late = Journal.note, list[Run]()

    async def before(self: Journal, key: str, *rest: object) -> None:
        if key == "import.intent" and not late:
            late.append(await reschedule(host, clock, self.run, HOUR))
        await real(self, key, *rest)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(Journal, "note", before)
    run = await host.asked(artifact=(await host.upload(package(managed=True))).name, stage="qa")
    run = await waits(host, run)
    assert (late[0].state, host.store.reads.held_by("environments/qa")) == (Run.STATE_SCHEDULED, None)
    assert await host.history("qa") == []
    clock.offset = 2 * HOUR
    assert state(await host.ended(run)) == "SUCCEEDED"
    assert await host.history("qa") == ["1.0.0.0"]


async def test_what_was_sent_or_is_finished_has_no_time(host: Host, clock: Clock) -> None:
    await host.stop()
    await host.start(embedded_pace=1.0)
    run = await host.asked(artifact=(await host.upload(package(managed=True))).name, stage="qa")
    await host.until(run, lambda r: host.store.reads.output(r.name, "import.operation") is not None)
    with pytest.raises(FailedPrecondition, match="was sent") as sent:
        await reschedule(host, clock, run, HOUR)
    assert sent.value.reason_name == "RUN_NOT_SCHEDULABLE"
    assert state(await host.ended(run)) == "SUCCEEDED"
    with pytest.raises(FailedPrecondition, match="finished"):
        await reschedule(host, clock, run, HOUR)
    with pytest.raises(FailedPrecondition, match="restore"):
        await reschedule(host, clock, await host.restored(package()), HOUR)
    with pytest.raises(NotFound):
        await reschedule(host, clock, Run(name="runs/" + "0" * 26))


async def test_a_requester_who_lost_the_right_meanwhile(host: Host, clock: Clock) -> None:
    run = await scheduled(host, clock)
    host.allowed = False
    clock.offset = 2 * HOUR
    ended = await host.ended(run)
    assert (state(ended), ended.error.code) == ("FAILED", "REQUESTER_NOT_ALLOWED")
    assert await host.history("qa") == []


async def test_a_cancelled_run_waits_no_longer(host: Host, clock: Clock) -> None:
    run = await cancel(host, await scheduled(host, clock))
    assert (state(run), run.HasField("wait")) == ("CANCELLED", False)
    clock.offset = 2 * HOUR
    await asyncio.sleep(0.1)
    assert state(host.store.reads.run(run.name) or Run()) == "CANCELLED"
    assert await host.history("qa") == []


async def test_many_scheduled_runs_cost_the_dispatcher_nothing(host: Host, clock: Clock) -> None:
    runs = [await scheduled(host, clock) for _ in range(20)]
    await asyncio.sleep(0.05)
    reads = host.store.reads
    before = reads.last_sequence(), [reads.epoch(r.name) for r in runs]
    assert reads.due_runs() == []
    assert len(reads.resting_runs()) == 20
    await asyncio.sleep(0.3)
    assert (reads.last_sequence(), [reads.epoch(r.name) for r in runs]) == before


def test_words() -> None:
    at = rules.timestamp(0)
    assert schedule.told(Run.Wait(until=at, reason="so")) == "until 1970-01-01T00:00:00Z, because so"
    assert schedule.told(Run.Wait(reason="so")) == "because so"


RACES = 60


async def test_of_reschedule_cancel_and_fire_one_wins(host: Host, clock: Clock) -> None:
    """Each run is sent once or not at all; whoever was told that it will not be sent was told the truth."""
    await guard(host)
    artifact = await host.upload(package(managed=True))
    await host.stop()
    await host.start(advancing=8)
    chance = random.Random(23)
    ends: dict[str, int] = {}
    for _ in range(RACES):
        clock.offset = 0
        at = rules.timestamp(clock() + HOUR)
        run = await waits(host, await host.asked(artifact=artifact.name, stage="qa", schedule_time=at))
        sent = len(await host.history("qa"))
        entrants: list[Callable[[Run], Awaitable[Run]]] = [
            lambda run: reschedule(host, clock, run, 5 * HOUR),
            lambda run: reschedule(host, clock, run),
            lambda run: cancel(host, run),
        ]

        async def later(ask: Callable[[Run], Awaitable[Run]], run: Run, seconds: float) -> Run:
            await asyncio.sleep(seconds)
            return await ask(run)

        tasks = [
            asyncio.create_task(later(ask, run, chance.random() * 0.03))
            for ask in chance.sample(entrants, chance.randint(1, 2))
        ]
        if chance.random() < 0.6:
            await asyncio.sleep(chance.random() * 0.01)
            clock.offset = 2 * HOUR
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(t, Run | FailedPrecondition) for t in told), told
        await asyncio.sleep(0.02)
        clock.offset = 10 * HOUR
        ended = await host.ended(run)
        ends[state(ended)] = ends.get(state(ended), 0) + 1
        added = len(await host.history("qa")) - sent
        assert added == (ended.state == Run.STATE_SUCCEEDED)
        intents = [e for e in host.events(run) if e.HasField("run") and e.run.to == Run.STATE_SUCCEEDED]
        assert len(intents) == added
        cancelled = [t for t in told if isinstance(t, Run) and t.state == Run.STATE_CANCELLED]
        assert (ended.state == Run.STATE_CANCELLED) >= bool(cancelled)
    assert sum(ends.values()) == RACES
    assert {"SUCCEEDED", "CANCELLED"} <= set(ends), ends
