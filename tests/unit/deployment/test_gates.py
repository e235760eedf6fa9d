"""Gates: who decides, what a decision stands for, what voids it, and that one of several wins."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from tests.unit.deployment.conftest import Host, once
from tests.unit.deployment.test_run import package, state

from pipelinehost import names
from pipelinehost.errors import Aborted, FailedPrecondition, InvalidArgument, PermissionDenied
from pipelinehost.v1.pipeline_host_pb2 import (
    ApproveRequest,
    CancelRunRequest,
    RejectRequest,
    RetryRunRequest,
)
from pipelinehost.v1.resources_pb2 import (
    DeploymentSettings,
    Environment,
    EnvironmentVariableSetting,
    Event,
    Gate,
    GateStatus,
    ImportMode,
    Pipeline,
    Principal,
    Run,
    SignIn,
    Step,
)
from pipelinehost_dataverse.solution import EnvironmentVariable, Table, VariableType, new_manifest, write
from pipelinehost_server.deployment import dispatcher, gates, schedule
from pipelinehost_server.deployment.journal import Journal, settings_key
from pipelinehost_server.store import Reads, Transaction

DAY = 24 * 3600 * 10**9
PRE_EXPORT, APPROVAL, PRE_DEPLOYMENT = Gate.KIND_PRE_EXPORT, Gate.KIND_APPROVAL, Gate.KIND_PRE_DEPLOYMENT


def gate(kind: Gate.Kind = APPROVAL, *approvers: str, **more: Any) -> Gate:
    return Gate(kind=kind, approvers=approvers or ("ada", "ben", "cyd"), **more)


async def guard(host: Host, *gates: Gate, stage: int = 0) -> None:
    def job(tx: Transaction) -> None:
        pipeline = tx.pipeline("pipelines/sales") or Pipeline()
        del pipeline.stages[stage].gates[:]
        pipeline.allow_redeployment = True
        pipeline.stages[stage].gates.extend(gates)
        for name in {names.principal(names.slug(who)) for gate in gates for who in gate.approvers}:
            if tx.principal(name) is None:
                tx.put_principal(Principal(name=name, kind=Principal.KIND_PERSON, role=Principal.ROLE_VIEWER))
        tx.put_pipeline(pipeline)
        tx.append(Event(kind=Event.KIND_PIPELINE_UPDATED, actor="admin", subject=pipeline.name))

    await host.store.write(job)


async def approve(host: Host, run: Run, caller: str, **more: object) -> Run:
    return await host.deployment.decide(ApproveRequest(name=run.name, **more), caller, once())  # type: ignore[arg-type]  # kwargs of a message


async def reject(host: Host, run: Run, caller: str, comment: str = "no", **more: object) -> Run:
    return await host.deployment.decide(RejectRequest(name=run.name, comment=comment, **more), caller, once())  # type: ignore[arg-type]  # kwargs of a message


async def waiting(host: Host, *gates: Gate, creator: str = "admin") -> Run:
    """A run of an upload that waits at its gate."""
    await guard(host, *(gates or (gate(),)))
    artifact = await host.upload(package(managed=True))
    artifact.creator = creator
    await host.store.write(lambda tx: tx.put_artifact(artifact))
    run = await host.asked(artifact=artifact.name, stage="qa")
    return await rests(host, run)


async def rests(host: Host, run: Run) -> Run:
    return await host.until(run, lambda r: r.state == Run.STATE_AWAITING_GATE)


def kinds(host: Host, run: Run) -> list[str]:
    told = (Event.KIND_GATE_OPENED, Event.KIND_GATE_DECIDED, Event.KIND_GATE_VOIDED)
    return [Event.Kind.Name(e.kind).removeprefix("KIND_GATE_") for e in host.events(run) if e.kind in told]


async def test_a_run_waits_until_enough_have_approved(host: Host) -> None:
    run = await waiting(host, gate(APPROVAL, required=2))
    assert (state(run), run.gates[0].kind, len(run.gates[0].decisions)) == ("AWAITING_GATE", APPROVAL, 0)
    assert host.store.reads.held_by("environments/qa") is None
    first = await approve(host, run, "ada", comment="fine by me")
    assert (state(first), first.gates[0].state) == ("AWAITING_GATE", GateStatus.STATE_WAITING)
    with pytest.raises(FailedPrecondition) as twice:
        await approve(host, run, "principals/ada")
    assert twice.value.reason_name == "ALREADY_APPROVED"
    assert await host.history("qa") == []
    second = await approve(host, run, "cyd")
    assert second.gates[0].state == GateStatus.STATE_APPROVED
    done = await host.ended(run)
    assert state(done) == "SUCCEEDED"
    assert [(d.principal, d.comment) for d in done.gates[0].decisions] == [("ada", "fine by me"), ("cyd", "")]
    assert kinds(host, run) == ["OPENED", "DECIDED", "DECIDED"]
    assert [e.actor for e in host.events(run) if e.kind == Event.KIND_GATE_DECIDED] == ["ada", "cyd"]


def stands_at(kind: Gate.Kind, run: Run) -> bool:
    return run.state == Run.STATE_AWAITING_GATE and run.gates[-1].kind == kind


async def test_the_gates_of_an_exporting_run_come_in_order(host: Host) -> None:
    await host.restored(package())
    await guard(host, gate(PRE_DEPLOYMENT, "cyd"), gate(PRE_EXPORT, "ada"), gate(APPROVAL, "ben"))
    run = await rests(host, await host.asked())
    assert (run.artifact, [s.state for s in run.steps]) == ("", [Step.STATE_PENDING] * 5)
    for who, kind in (("ada", PRE_EXPORT), ("ben", APPROVAL), ("cyd", PRE_DEPLOYMENT)):
        now = await host.until(run, partial(stands_at, kind))
        other = next(k for k in (PRE_EXPORT, APPROVAL) if k != kind)
        with pytest.raises(FailedPrecondition) as wrong:
            await approve(host, run, who, gate=other)
        assert wrong.value.reason_name == "GATE_NOT_WAITING"
        await approve(host, now, who, gate=kind, bound_sha256=now.gates[-1].bound_sha256)
    done = await host.ended(run)
    assert (state(done), [g.kind for g in done.gates]) == (
        "SUCCEEDED",
        [PRE_EXPORT, APPROVAL, PRE_DEPLOYMENT],
    )
    # The gates are those of this stage; the next one has none.
    assert state(await host.deployed()) == "SUCCEEDED"


@pytest.mark.parametrize("caller", ["admin", "principals/admin"])
@pytest.mark.parametrize("named", ["admin", "principals/admin"])
async def test_nobody_approves_their_own_request(host: Host, caller: str, named: str) -> None:
    run = await waiting(host, gate(APPROVAL, named, "ada"), creator="ada")
    for who in (caller, "ada", "principals/ada"):
        with pytest.raises(PermissionDenied) as refused:
            await approve(host, run, who)
        assert refused.value.reason_name == "SELF_APPROVAL"
        with pytest.raises(PermissionDenied):
            await reject(host, run, who)
    with pytest.raises(PermissionDenied) as stranger:
        await approve(host, run, "eve")
    assert stranger.value.reason_name == "NOT_AN_APPROVER"
    assert host.store.reads.run(run.name) == run


async def principal(host: Host, name: str, **more: object) -> None:
    more.setdefault("kind", Principal.KIND_PERSON)
    more.setdefault("role", Principal.ROLE_VIEWER)
    made = Principal(name=f"principals/{name}", **more)  # type: ignore[arg-type]  # kwargs of a message
    await host.store.write(lambda tx: tx.put_principal(made))


IDENTITIES = ("ada", "ada-build", "ada-phone")
"""A person and the services of that person."""


@pytest.mark.parametrize("requester", IDENTITIES)
@pytest.mark.parametrize("maker", ["admin", *IDENTITIES])
@pytest.mark.parametrize("uploads", [False, True])
async def test_nobody_approves_their_own_request_by_whatever_identity(
    host: Host, requester: str, maker: str, uploads: bool
) -> None:
    await principal(host, "ada")
    await principal(host, "ben")
    for service in IDENTITIES[1:]:
        await principal(host, service, kind=Principal.KIND_SERVICE, person="principals/ada")
    everyone = [f"principals/{n}" for n in (*IDENTITIES, "ben")]
    await principal(host, "team", kind=Principal.KIND_GROUP, members=everyone)
    run = await waiting(
        host,
        gate(APPROVAL, "principals/team"),
        creator="principals/eve" if uploads else f"principals/{maker}",
    )
    await host.deployment.stop()

    def job(tx: Transaction) -> None:
        claimed, epoch = tx.claim_run(run.name)
        claimed.requester = f"principals/{requester}" if maker == "admin" else "principals/eve"
        claimed.gates[0].bound_sha256 = gates.bound(tx, claimed, claimed.gates[0].gate)
        tx.save_run(claimed, [], epoch=epoch)
        if uploads:
            tx.put_uploader(run.artifact, f"principals/{maker}")

    await host.store.write(job)
    for who in IDENTITIES:
        for decide in (approve, reject):
            with pytest.raises(PermissionDenied) as refused:
                await decide(host, run, f"principals/{who}")
            assert refused.value.reason_name == "SELF_APPROVAL"
    assert state(await approve(host, run, "principals/ben")) == "QUEUED", "of the same group"


async def test_the_services_of_one_person_count_once(host: Host) -> None:
    await principal(host, "ada")
    await principal(host, "bot", kind=Principal.KIND_SERVICE, person="principals/ada")
    run = await waiting(
        host, gate(APPROVAL, "principals/ada", "principals/bot", "principals/ben", required=2)
    )
    await approve(host, run, "principals/ada")
    with pytest.raises(FailedPrecondition) as twice:
        await approve(host, run, "principals/bot")
    assert twice.value.reason_name == "ALREADY_APPROVED"
    assert state(await approve(host, run, "principals/ben")) == "QUEUED"


@pytest.mark.parametrize("person", ["principals/ada", "principals/admin"])
async def test_a_yes_does_not_count_once_it_turns_out_whose_it_was(person: str, host: Host) -> None:
    """Of somebody who has approved as well, or of who asked for the run."""
    await principal(host, "bot", kind=Principal.KIND_SERVICE)
    await principal(host, "admin")
    run = await waiting(host, gate(APPROVAL, "ada", "principals/bot", "ben", "cyd", required=3))
    await approve(host, run, "principals/ada")
    await approve(host, run, "principals/bot")
    await principal(host, "bot", kind=Principal.KIND_SERVICE, person=person)
    now = await approve(host, run, "principals/ben")
    assert state(now) == "AWAITING_GATE"
    assert [d.principal for d in now.gates[0].decisions] == ["principals/ada", "principals/ben"]
    assert kinds(host, run) == ["OPENED", "DECIDED", "DECIDED", "VOIDED", "DECIDED"]
    assert state(await approve(host, run, "principals/cyd")) == "QUEUED"


async def test_a_disabled_group_approves_nothing(host: Host) -> None:
    await principal(host, "ada")
    await principal(host, "team", kind=Principal.KIND_GROUP, members=["principals/ada"], disabled=True)
    run = await waiting(host, gate(APPROVAL, "principals/team"))
    with pytest.raises(PermissionDenied) as refused:
        await approve(host, run, "principals/ada")
    assert refused.value.reason_name == "NOT_AN_APPROVER"


@pytest.mark.parametrize("kind", [PRE_EXPORT, APPROVAL])
async def test_who_lost_the_right_while_waiting_deploys_nothing(host: Host, kind: Gate.Kind) -> None:
    await host.restored(package())
    await guard(host, gate(kind))
    run = await rests(host, await host.asked())
    host.allowed = False
    await approve(host, run, "ada")
    ended = await host.ended(run)
    assert (state(ended), ended.error.code) == ("FAILED", "REQUESTER_NOT_ALLOWED")
    assert bool(ended.artifact) == (kind == APPROVAL), "nothing was exported for them"
    assert await host.history("qa") == []


async def test_a_no_ends_the_run_with_who_and_why(host: Host) -> None:
    run = await waiting(host)
    with pytest.raises(InvalidArgument, match="why"):
        await reject(host, run, "ada", " ")
    with pytest.raises(InvalidArgument, match="characters"):
        await reject(host, run, "ada", "x" * 501)
    ended = await reject(host, run, "ada", "wrong week", note="they never ask first")
    assert (state(ended), ended.error.code) == ("REJECTED", "GATE_REJECTED")
    assert "ada" in ended.error.message
    assert "wrong week" in ended.error.message
    assert ended.HasField("end_time")
    last = host.events(run)[-1]
    assert (last.actor, last.run.error.code, last.run.to) == ("ada", "GATE_REJECTED", Run.STATE_REJECTED)
    notes = host.store.reads.gate_notes(run.name)
    assert [(n.principal, n.note) for n in notes] == [("ada", "they never ask first")]
    assert "never ask" not in str(host.events(run)) + str(ended)
    for again in (approve(host, run, "ben"), reject(host, run, "ben")):
        with pytest.raises(FailedPrecondition):
            await again
    with pytest.raises(FailedPrecondition):
        await host.deployment.retry(RetryRunRequest(name=run.name), "admin", once())
    assert await host.history("qa") == []


async def test_a_gate_expires_by_the_clock_and_after_restarts(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "_CLOCK_SECONDS", 0.05)
    run = await waiting(host, gate(timeout_seconds=14 * 24 * 3600))
    begun = time.time_ns()
    for day in (3, 7, 13):
        await host.stop()
        host.clock = partial(int, begun + day * DAY)
        await host.start()
        await asyncio.sleep(0.15)
        assert state(host.store.reads.run(run.name) or Run()) == "AWAITING_GATE"
    host.clock = lambda: begun + 15 * DAY
    ended = await host.ended(run)
    assert (state(ended), ended.error.code) == ("EXPIRED", "GATE_EXPIRED")
    assert re.match(r"Since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ 0 of ", ended.error.message), ended.error.message
    assert kinds(host, run) == ["OPENED"], "a restart opens no gate again"
    with pytest.raises(FailedPrecondition):
        await approve(host, run, "ada")


async def test_an_approval_after_two_weeks_and_three_restarts(host: Host) -> None:
    run = await waiting(host, gate(required=2, timeout_seconds=30 * 24 * 3600))
    begun = time.time_ns()
    await approve(host, run, "ada")
    for day in (5, 9, 14):
        await host.stop()
        host.clock = partial(int, begun + day * DAY)
        await host.start()
    await approve(host, run, "ben")
    assert state(await host.ended(run)) == "SUCCEEDED"


async def test_a_run_that_expired_while_the_host_was_down_ends_at_its_start(host: Host) -> None:
    run = await waiting(host)
    await host.stop()
    later = time.time_ns() + 8 * DAY
    host.clock = lambda: later
    await host.start()
    assert state(await host.ended(run)) == "EXPIRED"


async def test_nobody_approves_what_has_expired_though_nobody_has_noticed(host: Host) -> None:
    run = await waiting(host)
    later = time.time_ns() + 8 * DAY
    host.clock = lambda: later  # the dispatcher looks at the clock in half a minute
    with pytest.raises(FailedPrecondition, match="has passed"):
        await approve(host, run, "ada")


async def test_a_clock_that_goes_back_does_no_harm(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "_CLOCK_SECONDS", 0.02)
    run = await waiting(host)
    now = time.time_ns()
    host.clock = lambda: now - 400 * DAY
    await asyncio.sleep(0.1)
    await approve(host, run, "ada")
    assert state(await host.ended(run)) == "SUCCEEDED"
    # Put forward it ends what waits, as documented, and nothing else.
    await guard(host, gate(), stage=1)
    other = await rests(host, await host.asked(artifact=run.artifact, stage="production"))
    host.clock = lambda: now + 400 * DAY
    assert state(await host.ended(other)) == "EXPIRED"


def _settings(value: str) -> DeploymentSettings:
    return DeploymentSettings(
        environment_variables=[EnvironmentVariableSetting(schema_name="cts_limit", value=value)]
    )


def _policy(change: Callable[[Gate], object]) -> Callable[[Transaction, Run], None]:
    def job(tx: Transaction, run: Run) -> None:
        pipeline = tx.pipeline(run.pipeline) or Pipeline()
        change(pipeline.stages[0].gates[0])
        tx.put_pipeline(pipeline)

    return job


def _identity(tx: Transaction, run: Run) -> None:
    pipeline = tx.pipeline(run.pipeline) or Pipeline()
    pipeline.stages[0].sign_in.method = SignIn.METHOD_MANAGED_IDENTITY
    tx.put_pipeline(pipeline)


def _target(**fields: str) -> Callable[[Transaction, Run], None]:
    def job(tx: Transaction, run: Run) -> None:
        environment = tx.environment(run.target_environment) or Environment()
        for field, value in fields.items():
            setattr(environment, field, value)
        tx.put_environment(environment)

    return job


def _run(**fields: object) -> Callable[[Transaction, Run], None]:
    def job(tx: Transaction, run: Run) -> None:
        for field, value in fields.items():
            setattr(run, field, value)

    return job


MUTATIONS: dict[str, Callable[[Transaction, Run], None]] = {
    "artifact": _run(artifact="artifacts/" + "0" * 64),
    "version": _run(version="9.9.9.9"),
    "settings": _run(settings_sha256="0" * 64),
    "import mode": _run(import_mode=ImportMode.IMPORT_MODE_UPDATE),
    "customizations": _run(overwrite_customizations=True),
    "loss": _run(loss_sha256="1" * 64),
    "target": _run(target_environment="environments/production"),
    "stage": _run(stage="pipelines/sales/stages/production"),
    "solution": _run(solution="Other"),
    "requested version": _run(requested_version="2.0"),
    "source": _run(source_environment="environments/dev"),
    "requester": _run(requester="eve"),
    "time": lambda tx, run: run.schedule_time.FromSeconds(1),
    "address of the target": _target(url="https://other.crm4.dynamics.com"),
    "identity of the stage": _identity,
    "organization of the target": _target(organization_id="another"),
    "approvers": _policy(lambda g: g.approvers.append("dan")),
    "another approver": _policy(lambda g: g.approvers.__setitem__(0, "dan")),
    "required": _policy(lambda g: setattr(g, "required", 2)),
    "timeout": _policy(lambda g: setattr(g, "timeout_seconds", 77)),
    "webhook": _policy(lambda g: setattr(g, "webhook", "https://example.com/gate")),
}


@pytest.mark.parametrize("what", MUTATIONS)
async def test_every_change_of_what_was_approved_voids_the_approval(host: Host, what: str) -> None:
    run = await waiting(host)
    await host.deployment.stop()  # nobody goes on with it
    run = await approve(host, run, "ada")
    assert schedule.may_import(host.store.reads, run, time.time_ns())

    def job(tx: Transaction) -> Run:
        changed, epoch = tx.claim_run(run.name)
        if what == "stage":  # the other stage asks the same, and leads to the same
            pipeline = tx.pipeline(run.pipeline) or Pipeline()
            pipeline.stages[1].environment = changed.target_environment
            pipeline.stages[1].gates.extend(pipeline.stages[0].gates)
            tx.put_pipeline(pipeline)
        MUTATIONS[what](tx, changed)
        return tx.save_run(changed, [], epoch=epoch)

    changed = await host.store.write(job)
    assert not schedule.may_import(host.store.reads, changed, time.time_ns())
    now = time.time_ns()
    events = await host.store.write(lambda tx: gates.come_to(tx, changed, gates.BEFORE_IMPORT, now))
    assert [Event.Kind.Name(e.kind) for e in events] == [
        "KIND_GATE_VOIDED",
        "KIND_GATE_OPENED",
        "KIND_RUN_STATE_CHANGED",
    ]
    assert (state(changed), len(changed.gates[0].decisions)) == ("AWAITING_GATE", 0)


def test_nothing_that_a_run_does_is_left_out_of_the_mutations() -> None:
    """A new field of a run or a gate has to be sorted: voids it the approval, or is it no input?"""
    told = {
        "name", "state", "pipeline", "note", "attempt", "steps", "error", "error_count", "warning_count",
        "previous_version", "revision", "create_time", "start_time", "end_time", "gates",
        "override_reason",  # an administrator's leave to go through freezes, not what is done
        "wait",
        "deployed_as",  # what holds is looked up, see "identity of the stage"
    }  # fmt: skip
    inputs = {
        "artifact", "version", "settings_sha256", "import_mode", "overwrite_customizations",
        "target_environment", "stage", "solution", "requested_version", "source_environment", "requester",
        "schedule_time", "loss_sha256",
    }  # fmt: skip
    assert {f.name for f in Run.DESCRIPTOR.fields} == told | inputs
    assert {f.name for f in Gate.DESCRIPTOR.fields} == {
        "kind",
        "approvers",
        "required",
        "timeout_seconds",
        "webhook",
    }


async def test_a_change_of_policy_opens_the_gate_of_a_waiting_run_again(host: Host) -> None:
    run = await waiting(host, gate(required=2))
    seen = run.gates[0].bound_sha256
    await approve(host, run, "ada")
    await guard(host, gate(APPROVAL, "ben", "dan"))
    await host.until(run, lambda r: r.gates[0].bound_sha256 != seen)
    assert kinds(host, run) == ["OPENED", "DECIDED", "VOIDED", "OPENED"]
    with pytest.raises(Aborted) as stale:
        await approve(host, run, "ben", bound_sha256=seen)
    assert stale.value.reason_name == "GATE_CHANGED"
    with pytest.raises(PermissionDenied):
        await approve(host, run, "ada")
    await approve(host, run, "dan")
    assert state(await host.ended(run)) == "SUCCEEDED"


async def test_a_run_comes_back_to_an_earlier_gate_whose_policy_has_changed(host: Host) -> None:
    """The later one, at which it waits, is opened anew when the run comes to it again."""
    run = await waiting(host, gate(APPROVAL, "ada"), gate(PRE_DEPLOYMENT, "cyd", "dan", required=2))
    await approve(host, run, "ada")
    await host.until(run, lambda r: len(r.gates) == 2)
    await approve(host, run, "cyd")
    await guard(host, gate(APPROVAL, "ben"), gate(PRE_DEPLOYMENT, "cyd", "dan", required=2))
    await host.until(run, lambda r: [g.gate.approvers[0] for g in r.gates] == ["ben"])
    await approve(host, run, "ben")
    for who in ("cyd", "dan"):
        await host.until(run, lambda r: len(r.gates) == 2 and r.state == Run.STATE_AWAITING_GATE)
        await approve(host, run, who)
    assert state(await host.ended(run)) == "SUCCEEDED"


async def test_a_gate_that_is_taken_away_still_holds_who_was_asked_under_it(host: Host) -> None:
    run = await waiting(host)
    await guard(host)
    await asyncio.sleep(0.3)
    assert state(host.store.reads.run(run.name) or Run()) == "AWAITING_GATE"
    await approve(host, run, "ada")
    assert state(await host.ended(run)) == "SUCCEEDED"


async def test_a_stage_that_leads_elsewhere_asks_old_runs_as_it_did(host: Host) -> None:
    """Its gate is about another target now, and may name others."""
    run = await waiting(host)

    def job(tx: Transaction) -> None:
        pipeline = tx.pipeline("pipelines/sales") or Pipeline()
        pipeline.stages[0].environment = "environments/elsewhere"
        tx.put_pipeline(pipeline)

    await host.store.write(job)
    await principal(host, "dan")
    await guard(host, gate(APPROVAL, "dan"))
    with pytest.raises(PermissionDenied):
        await approve(host, run, "dan")
    await approve(host, run, "ada")
    assert state(await host.ended(run)) == "SUCCEEDED"


async def test_a_gate_that_is_added_holds_runs_that_wait_for_their_target(host: Host) -> None:
    await host.stop()
    await host.start(embedded_pace=1.0)
    first = await host.asked(artifact=(await host.upload(package(managed=True))).name, stage="qa")
    await host.until(first, lambda r: r.state == Run.STATE_DEPLOYING)
    other = await host.upload(write(new_manifest("Other", "1.0", managed=True), Table("cts_other")))
    run = await host.asked(artifact=other.name, stage="qa")
    await host.until(run, lambda r: r.state == Run.STATE_WAITING_FOR_TARGET)
    await guard(host, gate())
    run = await rests(host, run)
    assert host.store.reads.waiting_for("environments/qa") == []
    assert state(await host.ended(first)) == "SUCCEEDED", "what is sent is not asked any more"
    await approve(host, run, "ada")
    assert state(await host.ended(run)) == "SUCCEEDED"


async def test_an_import_that_was_sent_is_not_asked_after_a_restart(host: Host) -> None:
    await host.stop()
    await host.start(embedded_pace=1.0)
    run = await host.asked(artifact=(await host.upload(package(managed=True))).name, stage="qa")
    await host.until(run, lambda r: host.store.reads.output(r.name, "import.operation") is not None)
    await host.stop()
    await host.start(advancing=0)
    await guard(host, gate())
    await host.stop()
    await host.start()
    assert state(await host.ended(run)) == "SUCCEEDED"
    assert kinds(host, run) == []


async def test_a_policy_that_changes_just_before_the_import_is_sent(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is noted, and so nothing is sent; the gate opens again."""
    run = await waiting(host)
    real = Journal.note
    changed: list[str] = []

    async def late(self: Journal, key: str, *rest: object) -> None:
        if key == "import.intent" and not changed:
            changed.append(key)
            await guard(host, gate(APPROVAL, "dan"))
        await real(self, key, *rest)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(Journal, "note", late)
    await approve(host, run, "ada")
    again = await host.until(run, lambda r: r.state == Run.STATE_AWAITING_GATE and bool(changed))
    assert host.store.reads.held_by("environments/qa") is None
    assert await host.history("qa") == []
    await approve(host, again, "dan")
    assert state(await host.ended(run)) == "SUCCEEDED"
    assert await host.history("qa") == ["1.0.0.0"]


async def test_a_setting_that_changes_in_the_target_is_approved_anew(host: Host) -> None:
    variable = EnvironmentVariable("cts_limit", "Limit", "", VariableType.NUMBER, None, True)
    first = await host.upload(package("1.0.0.0", variable, managed=True))
    await host.deployed(artifact=first.name, stage="qa", settings=_settings("5"))
    await guard(host, gate())
    second = await host.upload(package("1.1.0.0", variable, managed=True))
    run = await rests(host, await host.asked(artifact=second.name, stage="qa"))
    before = run.gates[0].bound_sha256
    _, api = await host.environments.named("environments/qa")
    found = await api.environment_variables(["cts_limit"])
    assert [v.value for v in found] == ["5"]
    real = Reads.run_pipeline

    def other(self: Reads, name: str) -> Pipeline | None:
        pipeline = real(self, name)
        if pipeline is not None:
            pipeline.stages[0].settings.CopyFrom(_settings("6"))
        return pipeline

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Reads, "run_pipeline", other)  # as if the value that is sent were another one now
        await approve(host, run, "ada")
        again = await host.until(run, lambda r: r.gates[0].bound_sha256 != before)
        again = await rests(host, run)
        assert (len(again.gates[0].decisions), again.steps[0].state) == (0, Step.STATE_SUCCEEDED)
        await approve(host, run, "ben")
        assert state(await host.ended(run)) == "SUCCEEDED"


async def test_whoever_was_the_requester_since_then_is_found_though_the_clock_was_put_back(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await waiting(host)
    service = Principal(name="principals/ada", kind=Principal.KIND_SERVICE, role=Principal.ROLE_VIEWER)
    before = Principal(name=service.name, person="principals/admin")
    changed = Event(kind=Event.KIND_PRINCIPAL_UPDATED, subject=service.name, principal_before=before)
    now = time.time_ns
    with monkeypatch.context() as patched:
        patched.setattr(time, "time_ns", lambda: now() - 3600 * 10**9)
        await host.store.write(lambda tx: (tx.put_principal(service), tx.append(changed)))
    with pytest.raises(PermissionDenied, match="nobody approves their own request"):
        await approve(host, run, "ada")


async def test_a_cancelled_run_waits_at_no_gate(host: Host) -> None:
    run = await waiting(host)
    await host.deployment.cancel(CancelRunRequest(name=run.name), "admin", once())
    with pytest.raises(FailedPrecondition, match="CANCELLED"):
        await approve(host, run, "ada")
    assert host.store.reads.secret(settings_key(run.name)) is None
    assert host.store.reads.resting_runs() == []


RACES = 40


async def test_of_approve_reject_cancel_and_expire_one_wins(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run has one end, and exactly those that were told so have brought it about."""
    monkeypatch.setattr(dispatcher, "_CLOCK_SECONDS", 0.001)
    await guard(host, gate(timeout_seconds=3600))
    artifact = await host.upload(package(managed=True))
    offset = 0
    host.clock = lambda: time.time_ns() + offset
    chance = random.Random(4)
    won: dict[str, int] = {}
    await host.stop()
    await host.start(advancing=8)
    for _ in range(RACES):
        offset = 0
        run = await rests(host, await host.asked(artifact=artifact.name, stage="qa"))
        entrants = [
            lambda run: approve(host, run, "ada"),
            lambda run: reject(host, run, "ben"),
            lambda run: host.deployment.cancel(CancelRunRequest(name=run.name), "admin", once()),
        ]

        async def later(ask: Callable[[Run], Awaitable[Run]], run: Run, seconds: float) -> Run:
            await asyncio.sleep(seconds)
            return await ask(run)

        tasks = [
            asyncio.create_task(later(ask, run, chance.random() * 0.004))
            for ask in chance.sample(entrants, chance.randint(1, 3))
        ]
        if chance.random() < 0.6:
            await asyncio.sleep(chance.random() * 0.003)
            offset = 2 * 3600 * 10**9
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(t, Run | FailedPrecondition) for t in told), told
        ended = await host.ended(run)
        ends = [
            t for t in told if isinstance(t, Run) and t.state in (Run.STATE_REJECTED, Run.STATE_CANCELLED)
        ]
        asked = [t for t in told if isinstance(t, Run) and t.state == Run.STATE_CANCELLING]
        decided = [e for e in host.events(run) if e.HasField("run") and e.run.to == ended.state]
        assert len(decided) == 1
        won[state(ended)] = won.get(state(ended), 0) + 1
        if ended.state in (Run.STATE_REJECTED, Run.STATE_CANCELLED):
            # A cancel after the import was sent is the environment's to decide.
            assert [t.state for t in ends or asked] in ([ended.state], [Run.STATE_CANCELLING])
        else:
            assert ends == []
        yes = [d.approved for d in ended.gates[0].decisions]
        assert yes == {
            Run.STATE_REJECTED: [False],
            Run.STATE_EXPIRED: [],
        }.get(ended.state, yes)
        if ended.state in (Run.STATE_SUCCEEDED, Run.STATE_FAILED):
            assert yes == [True]
    assert sum(won.values()) == RACES
    assert {"REJECTED", "CANCELLED"} <= set(won), won
