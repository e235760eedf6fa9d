"""When a run may go on: at its own time, and not during a freeze of its stage.

Like the gates everything here happens within a transaction of somebody else: of the run that comes to its
time, or of the caller who gives it another one. So a time that has come, another time and a cancel exclude
each other. Times are compared with the host's clock and nothing else: one that is put forward or back lets a
run go on earlier or later, and never twice.
"""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from pipelinehost.errors import FailedPrecondition, InvalidArgument, Violation, reason_name
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.pipeline_host_pb2 import DeployRequest
from pipelinehost.v1.resources_pb2 import Event, Gate, Run, RunChange, Stage
from pipelinehost_server import access, rules
from pipelinehost_server.deployment import freezes, gates
from pipelinehost_server.deployment.journal import HOST, moved, put_aside
from pipelinehost_server.store import Reads, Transaction

MOST_DAYS = 400
"""How far ahead a run may be scheduled."""
OVERRIDE = "freeze.override"
"""Where it is noted which administrator lets a run through freezes."""
_SECOND = 10**9
_DAY = 24 * 3600 * _SECOND


def wanted(asked: Timestamp, now: int) -> Timestamp | None:
    """The time that a request asks for; None where it asks for none, or for one that has passed.

    Raises:
        InvalidArgument: it lies too far ahead.
    """
    at = asked.seconds * _SECOND + asked.nanos
    if at <= now:
        return None
    if at > now + MOST_DAYS * _DAY:
        told = f"is more than {MOST_DAYS} days ahead"
        raise InvalidArgument(
            ErrorReason.ERROR_REASON_INVALID_FIELD,
            f"schedule_time: {told}",
            violations=[Violation("schedule_time", told)],
        )
    return rules.timestamp(at)


def wait_of(reads: Reads, run: Run, now: int) -> Run.Wait | None:
    """What keeps a run from its import now; None where nothing does."""
    if run.HasField("schedule_time") and now < run.schedule_time.ToNanoseconds():
        return Run.Wait(until=run.schedule_time, reason="that is its time")
    if _overrides(reads, run):
        return None
    found = freezes.frozen(reads.freezes_of(*freezes.scopes(run.stage)), run.stage, now)
    if found is None:
        return None
    wait = Run.Wait(freeze=found.freeze.name, reason=f"{found.freeze.name}: {found.freeze.reason}")
    if found.until is not None:
        wait.until.CopyFrom(rules.timestamp(found.until))
    return wait


def frozen_violations(reads: Reads, stage: Stage, request: DeployRequest, now: int) -> list[Violation]:
    """What freezes have against a deployment at the time that it asks for.

    Raises:
        InvalidArgument: that time lies too far ahead.
    """
    asked = wanted(request.schedule_time, now)
    at = now if asked is None else asked.ToNanoseconds()
    if request.override_reason:
        return []
    there = reads.freezes_of(*freezes.scopes(stage.name))
    found = freezes.frozen(there, stage.name, at)
    if found is None:
        return []
    last = found.last
    others = sum(f.name != last.name for f in freezes.in_force(there, stage.name, at))
    by = f"{last.name} ({last.reason})"
    if others:
        by = f"{others + 1} freezes, of which {by} ends last,"
    if found.until is None:
        until, remedy = "that is changed or deleted", "deploy then"
    else:
        end = freezes.local(found.until, last)
        zone = f"{last.time_zone}, " if last.time_zone else ""
        until = f"{end} ({zone}{rules.timestamp(found.until).ToJsonString()})"
        remedy = f"deploy with --at {end}"
    told = (
        f"{rules.title(stage)} is frozen by {by} until {until}: {remedy}, "
        "or let an administrator go through it with --override-reason"
    )
    return [Violation(stage.name, told, reason_name(ErrorReason.ERROR_REASON_STAGE_FROZEN))]


def override(tx: Transaction, run: Run, reason: str, caller: str, now: int) -> list[Event]:
    """Let a run through freezes by leave of an administrator, or not any more.

    Returns:
        What the record is told of it.
    """
    before, run.override_reason = run.override_reason, reason
    if not reason:
        if before:
            tx.delete_outputs(run.name, [OVERRIDE])
        return []
    tx.put_output(run.name, OVERRIDE, caller.encode())
    now = max(now, run.schedule_time.ToNanoseconds())
    found = freezes.in_force(tx.freezes_of(*freezes.scopes(run.stage)), run.stage, now)
    return [_overridden(run, caller, [f.name for f in found])]


def sends_through(reads: Reads, run: Run, now: int) -> list[Event]:
    """What is told with an import that is sent now: the freezes that it goes through, if any."""
    by = _overrides(reads, run)
    if not by:
        return []
    found = freezes.in_force(reads.freezes_of(*freezes.scopes(run.stage)), run.stage, now)
    return [_overridden(run, by, [f.name for f in found])] if found else []


def _overrides(reads: Reads, run: Run) -> str:
    """Which administrator lets a run through freezes; nobody does who is none any more."""
    noted = reads.output(run.name, OVERRIDE) if run.override_reason else None
    found = access.caller(reads, noted.decode()) if noted else None
    return found.name if found is not None and found.administrator else ""


def _overridden(run: Run, by: str, found: list[str]) -> Event:
    through = ", ".join(found) or "none at that time"
    return Event(
        kind=Event.KIND_FREEZE_OVERRIDDEN,
        actor=by,
        subject=run.name,
        message=f"{run.override_reason} (freezes: {through})",
    )


def come_to(reads: Reads, run: Run, now: int) -> list[Event]:
    """Let a run come to its time: wait for it, or go on.

    Returns:
        What happened; nothing where the run goes on, or waits as before.
    """
    wait = wait_of(reads, run, now)
    if wait is None:
        return [moved(run, Run.STATE_QUEUED, HOST)] if run.state == Run.STATE_SCHEDULED else []
    if run.state == Run.STATE_SCHEDULED and run.wait == wait:
        return []
    event = put_aside(run, Run.STATE_SCHEDULED, f"waits {told(wait)}")
    run.wait.CopyFrom(wait)
    return [event]


def before_import(tx: Transaction, run: Run, now: int) -> list[Event]:
    """Let a validated run come to all that it may have to wait for before it asks for its target.

    First the approval gate, then its time, then the pre-deployment gate. Who waits at that last gate
    already stays there: what has been decided stands.
    """
    approval, last = gates.BEFORE_IMPORT
    if not gates.stands(tx, run, approval):
        return gates.come_to(tx, run, (approval,), now)
    if not _asked_last(run, last) and wait_of(tx, run, now) is not None:
        return come_to(tx, run, now)
    return gates.come_to(tx, run, (last,), now)


def _asked_last(run: Run, last: Gate.Kind) -> bool:
    status = gates.waiting_at(run)
    return status is not None and status.kind == last


def may_import(reads: Reads, run: Run, now: int) -> bool:
    """Whether an import may be sent now: a restore waits for nothing."""
    return not run.stage or (
        gates.all_stand(reads, run, gates.BEFORE_IMPORT) and wait_of(reads, run, now) is None
    )


def wake_time(run: Run) -> int | None:
    """When a waiting run is to be looked at by itself: nanoseconds since 1970; None where never."""
    if run.state == Run.STATE_SCHEDULED:
        return run.wait.until.ToNanoseconds() if run.wait.HasField("until") else None
    status = gates.waiting_at(run)
    return status.expire_time.ToNanoseconds() if status is not None else None


def reschedule(
    tx: Transaction, run: Run, at: Timestamp | None, override_reason: str, caller: str, now: int
) -> list[Event]:
    """Give a run another time, or none; one that waits for its target keeps its place if it need not wait.

    Decisions at gates stand for the time that was asked for: with another one the gate is opened again.

    Returns:
        What happened; last that it was given another time.

    Raises:
        FailedPrecondition: it is a restore or finished, or its import may have been received.
    """
    if not rules.schedulable(run, sent=gates.begun(tx, run)):
        raise _not_schedulable(run)
    was = _words(run)
    run.ClearField("schedule_time")
    if at is not None:
        run.schedule_time.CopyFrom(at)
    events = override(tx, run, override_reason, caller, now)
    # What was approved was approved for the time that was asked for.
    if (asked := gates.waiting_at(run)) is not None:
        kinds = gates.BEFORE_IMPORT if asked.kind in gates.BEFORE_IMPORT else gates.BEFORE_EXPORT
        events += gates.come_to(tx, run, kinds, now)
    elif run.state in (Run.STATE_SCHEDULED, Run.STATE_WAITING_FOR_TARGET, Run.STATE_DEPLOYING):
        approval = gates.BEFORE_IMPORT[:1]
        passed = gates.all_stand(tx, run, approval)
        events += come_to(tx, run, now) if passed else gates.come_to(tx, run, approval, now)
    change = RunChange(to=run.state, artifact=run.artifact, version=run.version, attempt=run.attempt)
    setattr(change, "from", run.state)
    event = Event(kind=Event.KIND_RUN_RESCHEDULED, actor=caller, subject=run.name, run=change)
    event.message = f"{_words(run)}; before: {was}"
    return [*events, event]


def told(wait: Run.Wait) -> str:
    """A wait in words: until when, and why."""
    return (
        f"until {wait.until.ToJsonString()}, " if wait.HasField("until") else ""
    ) + f"because {wait.reason}"


def _words(run: Run) -> str:
    return run.schedule_time.ToJsonString() if run.HasField("schedule_time") else "as soon as possible"


def _not_schedulable(run: Run) -> FailedPrecondition:
    if not run.stage:
        why, remedy = "it is a restore, and these do not wait.", "Cancel it, and restore later."
    elif run.state in rules.FINISHED:
        why, remedy = "it is finished.", "Deploy anew, with the time that you want."
    else:
        why, remedy = "its import was sent.", "Wait for its end."
    return FailedPrecondition(
        ErrorReason.ERROR_REASON_RUN_NOT_SCHEDULABLE,
        f"{run.name} is {rules.state_name(run.state)}: {why}",
        remedy=remedy,
        metadata={"resource": run.name},
    )
