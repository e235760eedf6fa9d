"""The durable memory of one run: what is done stays done, whoever goes on with it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

from google.protobuf.timestamp_pb2 import Timestamp

from pipelinehost.v1.resources_pb2 import (
    ComponentResult,
    Event,
    Finding,
    Progress,
    Run,
    RunChange,
    RunError,
    Setting,
    Step,
)
from pipelinehost_server import rules
from pipelinehost_server.store import KEEP, Fenced, Keep, Store, Transaction

_M = TypeVar("_M", bound=Callable[..., Awaitable[Any]])
_ALL = 1_000_000
CANCEL = "import.cancel"
"""Noted when somebody wished that an import be cancelled which may have been received."""
WISHED, REFUSED = b"wished", b"refused"
"""What is noted there: the environment is to be asked, or it has refused."""
IMPORT_NOTES = ("import.intent", "import.operation", "import.nothing_since", CANCEL)
"""All that is noted of an import; dropped when its outcome is recorded or it begins anew."""
_TELLING = (Run.STATE_FAILED, Run.STATE_UNKNOWN, Run.STATE_REJECTED, Run.STATE_EXPIRED)
"""States that an error explains."""
HOST = "host"
"""Actor of what the host does by itself."""


class Parked(Exception):
    """The run waits for something and lets go of everything; it is gone on with when that has come."""


class Changed(Exception):
    """What the run was about to do is not what it was allowed to do any more."""


def _in_turn(method: _M) -> _M:
    """A write of a journal; it begins with the run as the write before has left it."""

    @functools.wraps(method)
    async def wrapped(self: Any, *arguments: Any, **named: Any) -> Any:
        async with self._turn:
            return await method(self, *arguments, **named)

    return cast("_M", wrapped)


class Journal:
    """One attempt to advance a run, fenced by the run's epoch.

    Each write is one transaction: the run's new state, its events, and what a step has found out. A write
    raises ``Fenced`` as soon as somebody else has taken the run on (a cancel, or another claim). Several
    tasks may write: the one that works, and those that tell of its waits.
    """

    def __init__(self, store: Store, run: Run, epoch: int) -> None:
        self._store = store
        self.run = run
        self._epoch = epoch
        self._turn = asyncio.Lock()

    @classmethod
    async def claim(cls, store: Store, name: str) -> Journal:
        """Take a run on; whoever had it before is fenced off."""
        run, epoch = await store.write(lambda tx: tx.claim_run(name))
        return cls(store, run, epoch)

    def output(self, key: str) -> bytes | None:
        """What was noted under this key, by this attempt or an earlier one."""
        return self._store.reads.output(self.run.name, key)

    def let_go(self) -> None:
        """Stop here if somebody else has taken the run on; for those who read for long without a write.

        Raises:
            Fenced: somebody has.
        """
        current = self._store.reads.epoch(self.run.name)
        if current != self._epoch:
            raise Fenced(self.run.name, self._epoch, current)

    @_in_turn
    async def note(
        self,
        key: str,
        value: bytes,
        only_if: Callable[[Transaction, Run], Sequence[Event] | None] | None = None,
    ) -> None:
        """Remember a value durably, before anything that relies on it is done.

        Args:
            key: under which it is found again.
            value: what to remember.
            only_if: asked in the same transaction; gives what has to be told with it, or None where it does
                not hold, and then nothing is noted.

        Raises:
            Changed: it does not hold.
        """
        name, epoch = self.run.name, self._epoch

        def job(tx: Transaction) -> Run:
            run = _copy(self.run)
            events = [] if only_if is None else only_if(tx, run)
            if events is None:
                raise Changed
            tx.put_output(name, key, value)
            return tx.save_run(run, events, epoch=epoch)

        self.run = await self._store.write(job)

    async def step(
        self,
        kind: Step.Kind,
        state: Run.State,
        work: Callable[[], Awaitable[str]],
    ) -> None:
        """Do a step unless it is done already.

        Args:
            kind: which step.
            state: that the run is in while the step is under way.
            work: does it, and gives a line that says what was done. It is repeated after a crash, so it
                must be safe to repeat or reconcile by itself.
        """
        step = self._step(kind)
        if step.state in (Step.STATE_SUCCEEDED, Step.STATE_SKIPPED):
            return
        in_doubt = (Run.STATE_UNKNOWN, Run.STATE_CANCELLING)
        if step.state != Step.STATE_RUNNING or self.run.state not in (state, *in_doubt):
            await self._change(kind, Step.STATE_RUNNING, state)
        detail = await work()
        await self._change(kind, Step.STATE_SUCCEEDED, state, detail)

    async def skip(self, kind: Step.Kind, detail: str) -> None:
        """Leave a step out, because this run does not need it."""
        if self._step(kind).state == Step.STATE_PENDING:
            await self._change(kind, Step.STATE_SKIPPED, self.run.state, detail)

    @_in_turn
    async def take_target(self, require: Callable[[Transaction], None]) -> None:
        """Take the target environment, or wait in its queue.

        Args:
            require: raises if the run may not go on by now; asked in the transaction that takes the target.

        Raises:
            Parked: another run has it, or was there before.
        """
        name, target, epoch = self.run.name, self.run.target_environment, self._epoch
        if self._store.reads.held_by(target) == name:
            return

        def job(tx: Transaction) -> Run:
            require(tx)
            run, waiting = _copy(self.run), tx.waiting_for(target)
            if tx.held_by(target) is None and (not waiting or waiting[0] == name):
                events = [moved(run, Run.STATE_DEPLOYING, HOST)]
                return tx.save_run(run, events, epoch=epoch, held=target, waiting=False)
            before = run.state
            event = moved(run, Run.STATE_WAITING_FOR_TARGET, HOST)
            return tx.save_run(run, [event] if run.state != before else [], epoch=epoch, waiting=True)

        self.run = await self._store.write(job)
        if self.run.state == Run.STATE_WAITING_FOR_TARGET:
            raise Parked

    @_in_turn
    async def rest(self, examine: Callable[[Transaction, Run], Sequence[Event]]) -> None:
        """Let the run wait or end where a transaction finds that it has to; it lets go of its target then.

        Args:
            examine: changes the run in place, and tells what happened; nothing where the run goes on, or
                still waits as before.

        Raises:
            Parked: it waits, or has ended.
        """
        epoch = self._epoch

        def job(tx: Transaction) -> Run:
            run = _copy(self.run)
            events = examine(tx, run)
            if not events:
                return run
            return tx.save_run(run, events, epoch=epoch, held=None, waiting=False)

        self.run = await self._store.write(job)
        if self.run.state in (Run.STATE_AWAITING_GATE, Run.STATE_SCHEDULED, *rules.FINISHED):
            raise Parked

    @_in_turn
    async def validate_again(self, why: str) -> None:
        """Go back to validation, without the target: what was validated is not what would be imported."""
        run = _copy(self.run)
        for step in run.steps:
            if step.kind in (Step.KIND_VALIDATE, Step.KIND_IMPORT):
                step.CopyFrom(Step(kind=step.kind, state=Step.STATE_PENDING))
        event = moved(run, Run.STATE_QUEUED, HOST, why)
        await self._save(run, [event], held=None, waiting=False)
        raise Parked

    @_in_turn
    async def progress(self, kind: Step.Kind, percent: int | None, detail: str) -> None:
        """Say how far a step is; None leaves the percent as it is. Call it at most once a second."""
        run = _copy(self.run)
        step = _step_of(run, kind)
        percent = step.percent if percent is None else percent
        if step.state != Step.STATE_RUNNING or (step.percent, step.detail) == (percent, detail):
            return
        step.percent, step.detail = percent, detail
        told = Progress(step=kind, percent=percent, detail=detail)
        await self._save(run, [_event(run, Event.KIND_PROGRESS, progress=told)])

    @_in_turn
    async def record(
        self,
        *,
        findings: Sequence[Finding] = (),
        results: Sequence[ComponentResult] = (),
        settings: Sequence[Setting] | None = None,
        also: Callable[[Transaction], object] | None = None,
        **fields: str,
    ) -> None:
        """Write what a step has found out: findings, results, settings, and plain fields of the run."""
        run, epoch = _copy(self.run), self._epoch
        for field, value in fields.items():
            setattr(run, field, value)
        run.error_count += sum(f.severity == Finding.SEVERITY_ERROR for f in findings)
        run.warning_count += sum(f.severity == Finding.SEVERITY_WARNING for f in findings)
        events = [_event(run, Event.KIND_FINDING, finding=f) for f in findings]

        def job(tx: Transaction) -> Run:
            if also is not None:
                also(tx)
            if findings:
                tx.add_findings(run.name, findings)
            if results:
                tx.clear_component_results(run.name)
                tx.add_component_results(run.name, results)
            if settings is not None:
                tx.put_run_settings(run.name, settings)
            return tx.save_run(run, events, epoch=epoch)

        self.run = await self._store.write(job)

    @_in_turn
    async def forget_findings(self, kind: Step.Kind) -> None:
        """Drop what an interrupted or failed attempt of a step has found, before it is done again."""
        found = [f for f in self._store.reads.findings(self.run.name, _ALL) if f.step == kind]
        if not found:
            return
        run, epoch = _copy(self.run), self._epoch
        run.error_count -= sum(f.severity == Finding.SEVERITY_ERROR for f in found)
        run.warning_count -= sum(f.severity == Finding.SEVERITY_WARNING for f in found)

        def job(tx: Transaction) -> Run:
            tx.clear_findings(run.name, [kind])
            return tx.save_run(run, [], epoch=epoch)

        self.run = await self._store.write(job)

    @_in_turn
    async def drop(self, *keys: str) -> None:
        """Forget noted values, because what they stand for is known not to have happened."""
        run, epoch = self.run, self._epoch

        def job(tx: Transaction) -> Run:
            tx.delete_outputs(run.name, keys)
            return tx.save_run(run, [], epoch=epoch)

        self.run = await self._store.write(job)

    @_in_turn
    async def fail(self, error: RunError) -> None:
        """End the run as failed; a retry goes on from the step that failed."""
        run = _copy(self.run)
        events = []
        for step in run.steps:
            if step.state == Step.STATE_RUNNING:
                step.state = Step.STATE_FAILED
                step.detail = error.message
                step.end_time.CopyFrom(_now())
                error.step = step.kind
                events.append(_event(run, Event.KIND_STEP_CHANGED, step=step))
        run.error.CopyFrom(error)
        run.end_time.CopyFrom(_now())
        events.append(self._moved(run, Run.STATE_FAILED))
        await self._save(run, events, held=None, waiting=False)

    @_in_turn
    async def cancelled(self) -> None:
        """End the run as cancelled: its import was not applied, and will not be."""
        epoch = self._epoch

        def job(tx: Transaction) -> Run:
            run = _copy(self.run)
            event = end_cancelled(tx, run, HOST, "")
            return tx.save_run(run, [event], epoch=epoch)

        self.run = await self._store.write(job)

    @_in_turn
    async def keep_on(self, message: str) -> None:
        """Leave the state CANCELLING, because the environment does not cancel the import.

        That somebody wished it stays noted: should the environment have cancelled it all the same, the run is
        cancelled.
        """
        run, epoch = _copy(self.run), self._epoch
        events = [moved(run, Run.STATE_DEPLOYING, HOST, message)]

        def job(tx: Transaction) -> Run:
            tx.put_output(run.name, CANCEL, REFUSED)
            return tx.save_run(run, events, epoch=epoch)

        self.run = await self._store.write(job)

    @_in_turn
    async def succeed(self) -> None:
        """End the run; the values of its settings are not needed any more."""
        run, epoch = _copy(self.run), self._epoch
        run.ClearField("error")
        run.end_time.CopyFrom(_now())
        events = [self._moved(run, Run.STATE_SUCCEEDED)]

        def job(tx: Transaction) -> Run:
            tx.delete_secret(settings_key(run.name))
            return tx.save_run(run, events, epoch=epoch, held=None, waiting=False)

        self.run = await self._store.write(job)

    @_in_turn
    async def cannot_tell(self, error: RunError) -> None:
        """Say that the outcome of the import is unknown; the run keeps its target."""
        run = _copy(self.run)
        error.step = Step.KIND_IMPORT
        run.error.CopyFrom(error)
        await self._save(run, [self._moved(run, Run.STATE_UNKNOWN)])

    def import_open(self) -> bool:
        """Whether an import may have been received and its outcome is not recorded yet."""
        return (
            self.output("import.intent") is not None
            and self._step(Step.KIND_IMPORT).state == Step.STATE_RUNNING
        )

    @_in_turn
    async def go_on(self) -> None:
        """Leave the state UNKNOWN, because the outcome can be told now."""
        if self.run.state != Run.STATE_UNKNOWN:
            return
        run = _copy(self.run)
        run.ClearField("error")
        wished = self.output(CANCEL) == WISHED
        await self._save(run, [self._moved(run, Run.STATE_CANCELLING if wished else Run.STATE_DEPLOYING)])

    def _step(self, kind: Step.Kind) -> Step:
        return _step_of(self.run, kind)

    @_in_turn
    async def _change(
        self,
        kind: Step.Kind,
        step_state: Step.State,
        run_state: Run.State,
        detail: str = "",
    ) -> None:
        run = _copy(self.run)
        step = _step_of(run, kind)
        step.state = step_state
        step.detail = detail
        if step_state == Step.STATE_RUNNING:
            step.start_time.CopyFrom(_now())
            step.ClearField("end_time")
            step.percent = 0
            if not run.HasField("start_time"):
                run.start_time.CopyFrom(_now())
        elif step_state == Step.STATE_SUCCEEDED:
            step.end_time.CopyFrom(_now())
            step.percent = 100
        events = [_event(run, Event.KIND_STEP_CHANGED, step=step)]
        if run.state != run_state:
            events.insert(0, self._moved(run, run_state))
        await self._save(run, events)

    async def _save(
        self,
        run: Run,
        events: Sequence[Event],
        *,
        held: str | Keep | None = KEEP,
        waiting: bool | Keep = KEEP,
    ) -> None:
        epoch = self._epoch
        self.run = await self._store.write(
            lambda tx: tx.save_run(run, events, epoch=epoch, held=held, waiting=waiting)
        )

    def _moved(self, run: Run, state: Run.State) -> Event:
        return moved(run, state, HOST)


def end_cancelled(tx: Transaction, run: Run, actor: str, message: str) -> Event:
    """Put a run into its end as cancelled and give the event of it."""
    run.ClearField("error")
    return end_run(tx, run, Run.STATE_CANCELLED, actor, message)


def end_run(tx: Transaction, run: Run, state: Run.State, actor: str, message: str) -> Event:
    """Put a run that was not imported into an end that cannot be left, and give the event of it.

    The values of its settings are not needed any more, nor what was noted of an import.
    """
    tx.delete_secret(settings_key(run.name))
    tx.delete_outputs(run.name, IMPORT_NOTES)
    for step in run.steps:
        if step.state == Step.STATE_RUNNING:
            step.state = Step.STATE_PENDING
    run.end_time.CopyFrom(_now())
    return moved(run, state, actor, message)


def put_aside(run: Run, state: Run.State, message: str) -> Event:
    """Let a run wait before its import: what was begun of a step is begun anew afterwards."""
    for step in run.steps:
        if step.state == Step.STATE_RUNNING:
            step.CopyFrom(Step(kind=step.kind, state=Step.STATE_PENDING))
    return moved(run, state, HOST, message)


def moved(run: Run, state: Run.State, actor: str, message: str = "") -> Event:
    """Put a run into a state and give the event of it.

    Raises:
        AssertionError: the rules do not allow that change; a defect of the caller.
    """
    if not rules.may_follow(run.state, state):
        raise AssertionError(f"{rules.state_name(run.state)} cannot become {rules.state_name(state)}")
    change = RunChange(
        to=state,
        artifact=run.artifact,
        version=run.version,
        attempt=run.attempt,
        deployed_as=run.deployed_as,
    )
    setattr(change, "from", run.state)
    if run.HasField("error") and state in _TELLING:
        change.error.CopyFrom(run.error)
    run.state = state
    if state != Run.STATE_SCHEDULED:
        run.ClearField("wait")
    return Event(
        kind=Event.KIND_RUN_STATE_CHANGED, actor=actor, subject=run.name, run=change, message=message
    )


def settings_key(run: str) -> str:
    """Where the values of a run's settings lie, encrypted."""
    return f"{run}/settings"


def _event(
    run: Run,
    kind: Event.Kind,
    *,
    step: Step | None = None,
    finding: Finding | None = None,
    progress: Progress | None = None,
) -> Event:
    return Event(kind=kind, actor=HOST, subject=run.name, step=step, finding=finding, progress=progress)


def _step_of(run: Run, kind: Step.Kind) -> Step:
    return next(s for s in run.steps if s.kind == kind)


def _copy(run: Run) -> Run:
    copy = Run()
    copy.CopyFrom(run)
    return copy


def _now() -> Timestamp:
    now = Timestamp()
    now.GetCurrentTime()
    return now
