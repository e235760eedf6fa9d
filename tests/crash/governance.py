"""What the record says of gates, times, freezes and blocks, held against what was imported.

The rules are written out here a second time, as in ``checks``. Order is that of the record. When an import
was sent lies between two of its events: that it began, and that it is done. Of those that were sent outside
the moment itself is known.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.crash.checks import FINISHED, body
from tests.crash.record import Record, Sent
from tests.crash.world import DAY, REQUESTER, gates_of

from pipelinehost.v1.resources_pb2 import Event, Freeze, Gate, GateStatus, Run, Step

_LEFT = {*FINISHED, Run.STATE_QUEUED, Run.STATE_AWAITING_GATE, Run.STATE_SCHEDULED}
_JUMP = 400 * DAY * 10**9


@dataclass
class _While:
    """Something that was so from one event of the record to another."""

    what: Freeze | str
    since: Event
    until: Event | None = None

    def covers(self, first: int, last: int) -> bool:
        """Whether it was so at two events of the record, and all the time between them."""
        return self.since.sequence < first and (self.until is None or self.until.sequence > last)

    def covers_times(self, first: int, last: int) -> bool:
        """The same of two moments by the machine's own clock."""
        return _real(self.since) < first and (self.until is None or _real(self.until) > last)


@dataclass
class _Import:
    """One import of a run: from when it began until what ended it, if anything did."""

    run: Run
    began: Event
    ended: Event | None = None
    done: bool = False
    latest: bool = False
    """Of several attempts."""


def check(record: Record, told: Mapping[str, Run], database: sqlite3.Connection) -> dict[str, object]:
    """Hold the record against the runs; gives what there was of everything."""
    events = [
        Event.FromString(body(frame))
        for (frame,) in database.execute("SELECT frame FROM event ORDER BY sequence")
    ]
    of_run: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        of_run[event.subject].append(event)
    _decisions(record, events)
    freezes, blocks = _freezes(events), _blocks(events)
    starts = [e.sequence for e in events if e.kind == Event.KIND_HOST_STARTED]
    begun: list[_Import] = []
    for name, run in told.items():
        imports = list(_imports(run, of_run[name]))
        begun += imports
        _openings(record, run, of_run[name])
        for done in (i for i in imports if i.done and run.stage):
            restarted = any(done.began.sequence < s < _sequence(done) for s in starts)
            _gates(record, run, of_run[name], done)
            _times(record, done, freezes, blocks, restarted=restarted)
    for sent in record.sent:
        _sent(record, sent, begun, freezes, blocks)
    kinds = Counter(Event.Kind.Name(e.kind).removeprefix("KIND_") for e in events)
    interesting = ("GATE_", "FREEZE_", "ARTIFACT_BLOCKED", "ARTIFACT_UNBLOCKED", "RUN_RESCHEDULED")
    return {
        **{kind: count for kind, count in sorted(kinds.items()) if kind.startswith(interesting)},
        "decisions acknowledged": len(record.decided),
        "imports sent outside": len(record.sent),
    }


def in_force(freeze: Freeze, at: int) -> bool:
    """Whether a moment by the host's clock lies in a freeze, of those that the storm makes."""
    start, end = _moment(freeze.start, -math.inf), _moment(freeze.end, math.inf)
    if freeze.recurrence and at >= start:
        at = int(start + (at - start) % (DAY * 10**9))
    return start <= at < end


def concerns(scope: str, stage: str) -> bool:
    """Whether a freeze of a scope holds imports to a stage."""
    return bool(stage) and (not scope or stage == scope or stage.startswith(f"{scope}/"))


def _decisions(record: Record, events: Sequence[Event]) -> None:
    """Every decision that was acknowledged is in the record, once; and no other is."""
    acknowledged = Counter((d.run, d.kind, d.principal, d.approved) for d in record.decided)
    found: Counter[tuple[str, Gate.Kind, str, bool]] = Counter()
    for event in events:
        if event.kind == Event.KIND_GATE_DECIDED:
            last = event.gate.decisions[-1]
            if last.principal != event.actor:
                record.violated(f"event {event.sequence}: {event.actor} decided, it tells {last.principal}")
            found[event.subject, event.gate.kind, _short(event.actor), last.approved] += 1
    for key in sorted(acknowledged.keys() | found.keys()):
        if acknowledged[key] != found[key]:
            record.violated(
                f"{key}: {acknowledged[key]} decisions were acknowledged, and {found[key]} are in the record"
            )


def _openings(record: Record, run: Run, events: Sequence[Event]) -> None:
    """Nobody is counted twice at a gate, and nobody approves what they have asked for."""
    said: dict[Gate.Kind, list[str]] = defaultdict(list)
    for event in events:
        if event.kind in (Event.KIND_GATE_OPENED, Event.KIND_GATE_VOIDED):
            said[event.gate.kind] = []
        elif event.kind == Event.KIND_GATE_DECIDED:
            said[event.gate.kind].append(_short(event.actor))
            counted = [_short(d.principal) for d in event.gate.decisions]
            if counted != said[event.gate.kind] or len(counted) != len(set(counted)):
                record.violated(
                    f"{run.name}: {counted} count at a gate, and {said[event.gate.kind]} have decided"
                )
            if _short(run.requester) in counted:
                record.violated(f"{run.name} was decided about by who asked for it")


def _gates(record: Record, run: Run, events: Sequence[Event], done: _Import) -> None:
    """What was imported was approved, by enough people, at every gate of its stage."""
    exports = [e for e in events if e.step.kind == Step.KIND_EXPORT and e.step.state == Step.STATE_RUNNING]
    for gate in gates_of(run.stage):
        before = done.began
        if gate.kind == Gate.KIND_PRE_EXPORT:
            if not exports:
                continue
            before = exports[-1]
        yes: set[str] = set()
        digest = ""
        for event in events:
            if event.sequence > before.sequence or event.gate.kind != gate.kind:
                continue
            if event.kind == Event.KIND_GATE_OPENED:
                yes, digest = set(), event.gate.bound_sha256
            elif event.kind == Event.KIND_GATE_VOIDED:
                yes = set()
            elif event.kind == Event.KIND_GATE_DECIDED and event.gate.bound_sha256 == digest:
                yes |= {_short(d.principal) for d in event.gate.decisions if d.approved}
        status = next((s for s in run.gates if s.kind == gate.kind), GateStatus())
        what = f"{run.name} to {run.stage}, {Gate.Kind.Name(gate.kind)}"
        allowed = yes & {_short(a) for a in gate.approvers} - {REQUESTER}
        if len(allowed) < max(gate.required, 1):
            record.violated(f"{what}: imported with {sorted(yes)}, and {max(gate.required, 1)} are needed")
        if (status.state, status.bound_sha256) != (GateStatus.STATE_APPROVED, digest):
            record.violated(f"{what}: approved was {digest}, and the run says {status}")


def _times(
    record: Record, done: _Import, freezes: list[_While], blocks: list[_While], *, restarted: bool
) -> None:
    """An import whose moment is only known to lie between two events."""
    run, first, last = done.run, done.began.sequence, _sequence(done)
    assert done.ended is not None
    times = [e.time.ToNanoseconds() for e in (done.began, done.ended)]
    if done.latest and not restarted and times[1] < run.schedule_time.ToNanoseconds():
        record.violated(f"{run.name} was imported before {run.schedule_time.ToJsonString()}")
    for block in blocks:
        if block.what == run.artifact and block.covers(first, last):
            record.violated(f"{run.name} imported {run.artifact}, blocked since {block.since.sequence}")
    for freeze in freezes:
        what = freeze.what
        assert isinstance(what, Freeze)
        if restarted and (what.start or what.end):
            continue
        if (
            concerns(what.scope, run.stage)
            and freeze.covers(first, last)
            and all(in_force(what, at) for at in times)
            and not run.override_reason
        ):
            record.violated(f"{run.name} imported from {first} to {last} in spite of {what}")


def _sent(
    record: Record, sent: Sent, begun: list[_Import], freezes: list[_While], blocks: list[_While]
) -> None:
    """An import whose moment is known; and before it a moment whose state of things it had to heed."""
    environment = f"environments/{sent.environment}"
    mine = [
        i
        for i in begun
        if i.run.target_environment == environment
        and _real(i.began) <= sent.at
        and (i.ended is None or sent.at <= _real(i.ended))
    ]
    if not mine:
        record.violated(f"an import was sent to {environment} at {sent.at} while no run imported")
        return
    run, looked, at = mine[-1].run, sent.looked + sent.shift, sent.at + sent.shift
    if not run.stage:
        return
    if mine[-1].latest and at < run.schedule_time.ToNanoseconds():
        record.violated(f"the import of {run.name} was sent before {run.schedule_time.ToJsonString()}")
    for block in blocks:
        if block.what == run.artifact and block.covers_times(sent.looked, sent.at):
            record.violated(f"the import of {run.name} was sent, blocked since {block.since.sequence}")
    if not mine[-1].latest or run.override_reason:
        return
    for freeze in freezes:
        what = freeze.what
        assert isinstance(what, Freeze)
        if (
            concerns(what.scope, run.stage)
            and freeze.covers_times(sent.looked, sent.at)
            and in_force(what, looked)
            and in_force(what, at)
        ):
            record.violated(f"the import of {run.name} was sent at {at} in spite of {what}")


def _imports(run: Run, events: Sequence[Event]) -> Iterator[_Import]:
    """The imports of a run, as far as they began; some were put aside before they were sent, or got lost."""
    found: list[_Import] = []
    for event in events:
        step = event.step if event.HasField("step") else Step()
        if step.kind == Step.KIND_IMPORT and step.state == Step.STATE_RUNNING:
            found.append(_Import(run, event))
        elif found and found[-1].ended is None:
            if step.kind == Step.KIND_IMPORT and step.state == Step.STATE_SUCCEEDED:
                found[-1].ended, found[-1].done = event, True
            elif event.HasField("run") and event.run.to in _LEFT:
                found[-1].ended = event
    if found:
        found[-1].latest = True
    return iter(found)


def _freezes(events: Sequence[Event]) -> list[_While]:
    found: list[_While] = []
    now: dict[str, _While] = {}
    for event in events:
        made = event.kind in (Event.KIND_FREEZE_CREATED, Event.KIND_FREEZE_UPDATED)
        if made or event.kind == Event.KIND_FREEZE_DELETED:
            if (before := now.pop(event.subject, None)) is not None:
                before.until = event
            if made:
                now[event.subject] = _While(event.freeze, event)
                found.append(now[event.subject])
    return found


def _blocks(events: Sequence[Event]) -> list[_While]:
    found: list[_While] = []
    for event in events:
        mine = [w for w in found if w.what == event.subject and w.until is None]
        if event.kind == Event.KIND_ARTIFACT_BLOCKED and not mine:
            found.append(_While(event.subject, event))
        elif event.kind == Event.KIND_ARTIFACT_UNBLOCKED:
            for block in mine:
                block.until = event
    return found


def _sequence(done: _Import) -> int:
    assert done.ended is not None
    return done.ended.sequence


def _real(event: Event) -> int:
    """When an event happened by the machine's own clock: the host's is right, or wrong by a jump."""
    at = event.time.ToNanoseconds()
    return at - round((at - time.time_ns()) / _JUMP) * _JUMP


def _moment(local: str, without: float) -> float:
    return datetime.fromisoformat(local).replace(tzinfo=UTC).timestamp() * 10**9 if local else without


def _short(principal: str) -> str:
    return principal.rpartition("/")[2]
