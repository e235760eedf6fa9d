"""The gates of a run: what they ask, what a decision stands for, and when it counts.

Everything here happens within a transaction of somebody else: of the run that comes to a gate, or of the
caller who decides. So a decision, an expiry and a cancel exclude each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from pipelinehost import names
from pipelinehost.errors import Aborted, FailedPrecondition, InvalidArgument, PermissionDenied, Violation
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.pipeline_host_pb2 import ApproveRequest, ListEventsResponse, RejectRequest
from pipelinehost.v1.resources_pb2 import (
    Artifact,
    Environment,
    Event,
    Gate,
    GateDecision,
    GateNote,
    GateStatus,
    Pipeline,
    Run,
    RunError,
    Step,
)
from pipelinehost_server import access, rules
from pipelinehost_server.deployment import identities, webhooks
from pipelinehost_server.deployment.journal import (
    HOST,
    IMPORT_NOTES,
    end_run,
    moved,
    put_aside,
)
from pipelinehost_server.store import Operator, Reads, Transaction

BEFORE_EXPORT = (Gate.KIND_PRE_EXPORT,)
BEFORE_IMPORT = (Gate.KIND_APPROVAL, Gate.KIND_PRE_DEPLOYMENT)
"""In the order in which a run comes to them."""
COMMENT, NOTE = 500, 4_000
"""Most characters of a comment, which the run carries, and of a note."""
_CHANGED = "what was approved has changed: the decisions do not count any more"
_LOST = "not all who approved may decide any more: their decisions do not count"
_CHANGES = 1_000
"""Changes of a principal that are looked at, from when a run was asked for."""
Clock = Callable[[], int]
"""Nanoseconds since 1970; whoever needs the time of a decision asks the one clock of the deployment."""


def asked(reads: Reads, run: Run, kind: Gate.Kind) -> Gate | None:
    """The gate of a kind that a run has to pass; None where there is none.

    A stage's gate counts as it is configured now, so that a run cannot outlive the policy that it was asked
    under. A gate that was taken away meanwhile still holds the runs that were asked for while it was there;
    so does that of a stage of this name which leads elsewhere by now, or is of another pipeline of this name.
    """
    now, then = (p or Pipeline() for p in (reads.pipeline(run.pipeline), reads.run_pipeline(run.name)))
    stages = [s for s in now.stages if s.environment == run.target_environment] + [*then.stages]
    gates = (gate for stage in stages if stage.name == run.stage for gate in stage.gates)
    return next((gate for gate in gates if gate.kind == kind), None)


def bound(reads: Reads, run: Run, gate: Gate) -> str:
    """What a decision at a gate stands for: a digest over everything that the run would do, and the gate.

    Before the export neither artifact nor settings are known; what is asked then is whether to export.
    """
    target = reads.environment(run.target_environment) or Environment()
    parts = [
        run.pipeline,
        run.stage,
        run.solution,
        run.requested_version,
        run.source_environment,
        run.target_environment,
        target.url,
        str(run.import_mode),
        str(run.overwrite_customizations),
        run.requester,
        identities.deployed_as(reads, run),
        run.schedule_time.ToJsonString() if run.HasField("schedule_time") else "",
        gate.SerializeToString(deterministic=True).hex(),
    ]
    if gate.kind != Gate.KIND_PRE_EXPORT:
        parts += [run.artifact, run.version, run.settings_sha256, target.organization_id]
    if run.loss_sha256:
        parts.append(f"loss {run.loss_sha256}")
    return hashlib.sha256("\0".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


def stands(reads: Reads, run: Run, kind: Gate.Kind) -> bool:
    """Whether a run may pass the gate of a kind: there is none, or what was approved is what it does."""
    gate, status = asked(reads, run, kind), status_of(run, kind)
    if gate is None:
        return True
    return (
        status is not None
        and status.state == GateStatus.STATE_APPROVED
        and status.bound_sha256 == bound(reads, run, gate)
        and len(_counting(reads, run, gate, status)) >= required(gate)
    )


def all_stand(reads: Reads, run: Run, kinds: Sequence[Gate.Kind]) -> bool:
    """Whether a run may pass all gates of these kinds."""
    return all(stands(reads, run, kind) for kind in kinds)


def begun(reads: Reads, run: Run) -> bool:
    """Whether the import may have been received: from then on no gate is asked any more."""
    done = any(s.kind == Step.KIND_IMPORT and s.state == Step.STATE_SUCCEEDED for s in run.steps)
    return done or any(reads.output(run.name, note) is not None for note in IMPORT_NOTES)


def come_to(tx: Transaction, run: Run, kinds: Sequence[Gate.Kind], now: int) -> list[Event]:
    """Let a run come to gates: pass them, wait at one, or end because nobody decided in time.

    Args:
        tx: saves the run.
        run: is changed in place.
        kinds: which gates, in order.
        now: nanoseconds since 1970.

    Returns:
        What happened; nothing where the run goes on or still waits.
    """
    kind = next((k for k in kinds if not stands(tx, run, k)), None)
    gate = None if kind is None else asked(tx, run, kind)
    if kind is None or gate is None:
        waits = run.state in (Run.STATE_AWAITING_GATE, Run.STATE_SCHEDULED)
        return [moved(run, Run.STATE_QUEUED, HOST)] if waits else []
    events: list[Event] = []
    # A later gate that was open already is opened anew when the run comes to it again.
    kept = [s for s in run.gates if s.kind == kind or s.state != GateStatus.STATE_WAITING]
    if len(kept) != len(run.gates):
        del run.gates[:]
        run.gates.extend(kept)
    status, digest = status_of(run, kind), bound(tx, run, gate)
    if status is None:
        status = run.gates.add(kind=kind)
    waiting = status.state == GateStatus.STATE_WAITING
    if waiting and status.bound_sha256 == digest and status.expire_time.ToNanoseconds() <= now:
        return [_expired(tx, run, status)]
    if not waiting or status.bound_sha256 != digest:
        if status.decisions:
            told = _CHANGED if status.bound_sha256 != digest else _LOST
            events.append(_event(run, status, Event.KIND_GATE_VOIDED, HOST, told))
        _open(tx, run, status, gate, digest, now)
        events.append(_event(run, status, Event.KIND_GATE_OPENED, HOST))
    if run.state != Run.STATE_AWAITING_GATE:
        events.append(put_aside(run, Run.STATE_AWAITING_GATE, f"waits for {rules.gate_name(kind)}"))
    return events


def decide(
    tx: Transaction, run: Run, request: ApproveRequest | RejectRequest, caller: str, now: int
) -> Event:
    """Take a yes or a no at the gate that a run waits at.

    Returns:
        The event of the run's new state, or of the decision where more are needed. Those before it are in
        the record already.

    Raises:
        FailedPrecondition: the run waits at no such gate, or the caller has approved it already.
        PermissionDenied: the gate does not name the caller, or the caller would approve their own request.
        Aborted: what is to be approved has changed since the caller looked.
        InvalidArgument: a no without a word why.
    """
    yes = isinstance(request, ApproveRequest)
    _require_words(request, why=not yes)
    status = waiting_at(run)
    if status is None or request.gate not in (Gate.KIND_UNSPECIFIED, status.kind):
        raise _not_waiting(run, status)
    # A gate that was taken away since is asked as the run was asked.
    gate = asked(tx, run, status.kind) or status.gate
    _require_approver(tx, run, gate, caller)
    if status.expire_time.ToNanoseconds() <= now:
        raise FailedPrecondition(
            ErrorReason.ERROR_REASON_GATE_NOT_WAITING,
            f"{run.name} waited at {rules.gate_name(status.kind)} until "
            f"{status.expire_time.ToJsonString()}, and that has passed.",
            remedy="Let the maker deploy anew.",
        )
    digest = bound(tx, run, gate)
    if isinstance(request, ApproveRequest) and request.bound_sha256 not in ("", digest):
        raise Aborted(
            ErrorReason.ERROR_REASON_GATE_CHANGED,
            f"what {run.name} would do has changed since you looked at it",
            remedy=f"Look again: `pipelinehost run show {run.name.rpartition('/')[2]}`.",
            metadata={"resource": run.name, "bound_sha256": digest},
        )
    if status.bound_sha256 != digest:
        if status.decisions:
            tx.append(_event(run, status, Event.KIND_GATE_VOIDED, HOST, _CHANGED))
        _open(tx, run, status, gate, digest, now)
        tx.append(_event(run, status, Event.KIND_GATE_OPENED, HOST))
    counting = _counting(tx, run, gate, status)
    if len(counting) < len(status.decisions):
        tx.append(_event(run, status, Event.KIND_GATE_VOIDED, HOST, _LOST))
        del status.decisions[:]
        status.decisions.extend(counting)
    if yes and any(same_person(tx, d.principal, caller) for d in status.decisions):
        raise FailedPrecondition(
            ErrorReason.ERROR_REASON_ALREADY_APPROVED,
            f"you have approved {run.name} already; {required(gate)} people have to.",
            remedy="Ask another approver.",
        )
    status.decisions.append(
        GateDecision(principal=caller, approved=yes, comment=request.comment, time=rules.timestamp(now))
    )
    if request.note:
        tx.add_gate_note(
            GateNote(
                run=run.name, kind=status.kind, principal=caller, note=request.note, time=rules.timestamp(now)
            )
        )
    if not yes:
        status.state = GateStatus.STATE_REJECTED
    elif len(status.decisions) >= required(gate):
        status.state = GateStatus.STATE_APPROVED
    decided = _event(run, status, Event.KIND_GATE_DECIDED, caller, request.comment)
    if status.state == GateStatus.STATE_WAITING:
        return decided
    tx.append(decided)
    if yes:
        return moved(run, Run.STATE_QUEUED, caller)
    run.error.CopyFrom(
        RunError(
            code="GATE_REJECTED",
            message=f"{caller} rejected it at {rules.gate_name(status.kind)}: {request.comment}",
            remedy="Mend what was said, and deploy anew.",
        )
    )
    return end_run(tx, run, Run.STATE_REJECTED, caller, request.comment)


def _require_words(request: ApproveRequest | RejectRequest, *, why: bool) -> None:
    found = [
        Violation(field, f"has {len(text)} characters; at most {most} are allowed")
        for field, text, most in (("comment", request.comment, COMMENT), ("note", request.note, NOTE))
        if len(text) > most
    ]
    if why and not request.comment.strip():
        found.append(Violation("comment", "is required: tell the maker why"))
    if found:
        told = "; ".join(f"{v.subject} {v.description}" for v in found)
        raise InvalidArgument(ErrorReason.ERROR_REASON_INVALID_FIELD, told, violations=found)


def same_person(reads: Reads, one: str, other: str) -> bool:
    """Whether the same person is behind two principals: themselves, or a service of theirs."""
    return rules.same_person(_person(reads, one), _person(reads, other))


def _counting(reads: Reads, run: Run, gate: Gate, status: GateStatus) -> list[GateDecision]:
    """The decisions that still count: of those who may decide by now, and one for each person."""
    found: list[GateDecision] = []
    for decision in status.decisions:
        who = access.caller(reads, _full(decision.principal))
        if (
            who is not None
            and who.role >= access.Permission.VIEW
            and is_approver(reads, gate, decision.principal)
            and not any(_ever_same(reads, own, decision.principal, run) for own, _ in _makers(reads, run))
            and not any(same_person(reads, d.principal, decision.principal) for d in found)
        ):
            found.append(decision)
    return found


def _makers(reads: Reads, run: Run) -> list[tuple[str, str]]:
    """Who may not decide about a run, each with what they did."""
    artifact = reads.artifact(run.artifact) or Artifact()
    made = [(who, "made its artifact") for who in (artifact.creator, *reads.uploaders(run.artifact)) if who]
    return [(run.requester, "asked for this run"), *made]


def _ever_same(reads: Reads, one: str, other: str, run: Run) -> bool:
    """Whether a person is behind both now, or was since the run was asked for, by the record."""
    return not _people(reads, one, run).isdisjoint(_people(reads, other, run))


def _people(reads: Reads, name: str, run: Run) -> set[str]:
    # Not by the clock, which may have been put back. Of an unfinished run no event is dropped.
    since = next((event.sequence for event in reads.events_of_run(run.name, 0, 1)), 0)
    asked: list[tuple[str, Operator, object]] = [
        ("subject", "=", _full(name)),
        ("kind", "=", Event.KIND_PRINCIPAL_UPDATED),
        ("sequence", ">", since),
    ]
    rows, _ = reads.page("event", where=asked, limit=_CHANGES)
    changes = ListEventsResponse.FromString(rows).events
    behind = [_person(reads, name), *(event.principal_before.person or name for event in changes)]
    return {_full(person) for person in behind}


def is_approver(reads: Reads, gate: Gate, caller: str) -> bool:
    """Whether a gate names a caller, or a group of theirs, among those who decide."""
    groups = [g.name for g in reads.groups_of(_full(caller)) if not g.disabled]
    return any(rules.same_person(a, name) for a in gate.approvers for name in (caller, *groups))


def _full(name: str) -> str:
    return name if "/" in name else names.principal(name)


def _person(reads: Reads, name: str) -> str:
    found = reads.principal(_full(name))
    return found.person if found is not None and found.person else name


def required(gate: Gate) -> int:
    """How many have to approve."""
    return gate.required or 1


def status_of(run: Run, kind: Gate.Kind) -> GateStatus | None:
    """Where the gate of a kind stands; None where the run has not come to it."""
    return next((s for s in run.gates if s.kind == kind), None)


def waiting_at(run: Run) -> GateStatus | None:
    """The gate that a run waits at."""
    if run.state != Run.STATE_AWAITING_GATE:
        return None
    return next((s for s in run.gates if s.state == GateStatus.STATE_WAITING), None)


def _open(tx: Transaction, run: Run, status: GateStatus, gate: Gate, digest: str, now: int) -> None:
    del status.decisions[:]
    status.state = GateStatus.STATE_WAITING
    status.open_time.CopyFrom(rules.timestamp(now))
    status.expire_time.CopyFrom(rules.timestamp(now + rules.gate_seconds(gate) * 10**9))
    status.bound_sha256 = digest
    status.gate.CopyFrom(gate)
    status.ClearField("delivery")
    webhooks.opened(tx, run, status)


def _expired(tx: Transaction, run: Run, status: GateStatus) -> Event:
    status.state = GateStatus.STATE_EXPIRED
    waited = f"{status.open_time.ToDatetime():%Y-%m-%dT%H:%M:%SZ}"
    run.error.CopyFrom(
        RunError(
            code="GATE_EXPIRED",
            message=f"Since {waited} {len(status.decisions)} of {required(status.gate)} approved "
            f"{rules.gate_name(status.kind)}; its time is over.",
            remedy="Deploy anew, and tell the approvers: " + ", ".join(status.gate.approvers) + ".",
        )
    )
    return end_run(tx, run, Run.STATE_EXPIRED, HOST, run.error.message)


def _require_approver(reads: Reads, run: Run, gate: Gate, caller: str) -> None:
    if not is_approver(reads, gate, caller):
        raise PermissionDenied(
            ErrorReason.ERROR_REASON_NOT_AN_APPROVER,
            f"{caller} is no approver of {rules.gate_name(gate.kind)} of {run.stage}.",
            remedy=f"Ask one of its approvers: {', '.join(gate.approvers)}.",
        )
    for who, did in _makers(reads, run):
        if _ever_same(reads, who, caller, run):
            raise PermissionDenied(
                ErrorReason.ERROR_REASON_SELF_APPROVAL,
                f"{caller} {did}, and nobody approves their own request.",
                remedy="Ask another approver: "
                + (", ".join(a for a in gate.approvers if not same_person(reads, a, caller)) or "name one")
                + ".",
            )


def _not_waiting(run: Run, status: GateStatus | None) -> FailedPrecondition:
    where = f" at {rules.gate_name(status.kind)}" if status is not None else ""
    return FailedPrecondition(
        ErrorReason.ERROR_REASON_GATE_NOT_WAITING,
        f"{run.name} is {rules.state_name(run.state)}{where}; it does not wait for that decision.",
        remedy=f"Look at it with `pipelinehost run show {run.name.rpartition('/')[2]}`.",
        metadata={"resource": run.name},
    )


def _event(run: Run, status: GateStatus, kind: Event.Kind, actor: str, message: str = "") -> Event:
    return Event(kind=kind, actor=actor, subject=run.name, gate=status, message=message)
