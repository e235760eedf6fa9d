"""Who advances which run next, and when: in one process, a loop over the runs that are due."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from datetime import timedelta

from pipelinehost.errors import ResourceExhausted, Unavailable
from pipelinehost.v1.resources_pb2 import Event, Run, RunError
from pipelinehost_server import rules
from pipelinehost_server.deployment import gates, schedule
from pipelinehost_server.deployment.findings import CATALOGUE, finding
from pipelinehost_server.deployment.journal import HOST, Journal, Parked
from pipelinehost_server.deployment.run import Execution, LookAgain
from pipelinehost_server.store import RESTING, Fenced, Store

_log = logging.getLogger(__name__)
_STORE_RETRY_SECONDS = 5.0
"""Between attempts while the store cannot be written, for example because the disk is full."""
_CLOCK_SECONDS = 30.0
"""Between looks at the clock for a run that waits for a time."""
_POLICY = frozenset(
    {
        Event.KIND_PIPELINE_UPDATED,
        Event.KIND_ENVIRONMENT_UPDATED,
        Event.KIND_FREEZE_CREATED,
        Event.KIND_FREEZE_UPDATED,
        Event.KIND_FREEZE_DELETED,
        Event.KIND_ARTIFACT_BLOCKED,
    }
)
"""What may change what waiting runs wait for."""
_WAKING = frozenset(
    {
        Event.KIND_DEPLOYMENT_REQUESTED,
        Event.KIND_RUN_STATE_CHANGED,
        Event.KIND_RUN_RESOLVED,
        Event.KIND_RUN_RESCHEDULED,
    }
)


class Dispatcher:
    """Advances the runs that are due, some at once; a run that waits costs nothing."""

    def __init__(
        self, store: Store, advancing: int, execution: Callable[[Journal], Execution], clock: gates.Clock
    ) -> None:
        """Nothing is done yet.

        Args:
            store: where the runs are.
            advancing: how many runs are advanced at once; 0 keeps them all queued.
            execution: makes what advances a claimed run.
            clock: tells when a waiting run has waited long enough.
        """
        self._clock = clock
        self._store = store
        self._advancing = advancing
        self._execution = execution
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._alarms: dict[str, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Go on with everything that is due, unknown runs included, and follow the store from now on."""
        self._store.listen(self._on_events)
        for name in self._store.reads.unknown_runs():
            self._look_again(name, timedelta())
        self._examine(self._store.reads.resting_runs())
        self._wake.set()
        self._loop = asyncio.create_task(self._run(), name="dispatcher")

    async def stop(self) -> None:
        """Let go of all runs where they are; the next start goes on with them."""
        if self._loop is None:
            return
        for timer in [*self._later.values(), *self._alarms.values()]:
            timer.cancel()
        tasks = [self._loop, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loop = None

    def _on_events(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.kind in _POLICY:
                self._examine(self._store.reads.resting_runs() + self._store.reads.runs_in_queues())
            if event.kind not in _WAKING:
                continue
            if (alarm := self._alarms.pop(event.subject, None)) is not None:
                alarm.cancel()
            # Whoever has changed a run that was to be looked at later does not wait for that.
            if (timer := self._later.pop(event.subject, None)) is not None:
                timer.cancel()
            # A run that was cancelled does nothing more: not even wait for an answer.
            ended = event.run.to == Run.STATE_CANCELLED and event.actor != HOST
            if ended and (task := self._tasks.get(event.subject)) is not None:
                task.cancel()
            # Its alarm was for the time before. The event is the last of those of its transaction.
            if event.kind == Event.KIND_RUN_RESCHEDULED and event.run.to in RESTING:
                self._examine([event.subject])
            self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                self._begin_due()
            except Exception as error:  # noqa: BLE001 - a look that fails must not be the last one
                _log_failure(error, "the store cannot be asked")
                asyncio.get_running_loop().call_later(_STORE_RETRY_SECONDS, self._wake.set)

    def _begin_due(self) -> None:
        free = self._advancing - len(self._tasks)
        if free <= 0:
            return
        # Runs under way are due as well, so that many more have to be asked for.
        for name in self._store.reads.due_runs(self._advancing + len(self._later)):
            if free > 0 and name not in self._tasks and name not in self._later:
                free -= 1
                self._begin(name)

    def _begin(self, name: str) -> None:
        task = asyncio.create_task(self._advance(name), name=name)
        self._tasks[name] = task

        def ended(task: asyncio.Task[None]) -> None:
            del self._tasks[name]
            self._wake.set()

        task.add_done_callback(ended)

    async def _advance(self, name: str) -> None:
        try:
            journal = await Journal.claim(self._store, name)
            if journal.run.state in rules.FINISHED:  # cancelled since it was found to be due
                return
            try:
                await self._execution(journal).advance()
            except Parked:
                self._set_alarm(journal.run)
            except Fenced:
                pass
            except LookAgain as later:
                self._look_again(name, later.after)
            except (ResourceExhausted, Unavailable):  # the store's words, not about this run
                raise
            except Exception:  # noqa: BLE001 - whatever it is, the run must get an end
                await self._defect(journal)
        except Fenced:
            pass
        except Exception as error:  # noqa: BLE001 - the store may be full or locked; the run stays due
            _log_failure(error, f"{name} could not be advanced")
            self._look_again(name, timedelta(seconds=_STORE_RETRY_SECONDS))

    def _examine(self, names: Sequence[str]) -> None:
        """Look soon at runs that wait: what they wait for may have changed, or be over."""
        for name in names:
            if name not in self._later:
                self._look_again(name, timedelta())

    def _set_alarm(self, run: Run) -> None:
        """Look at a waiting run again when its time has come, by the host's clock.

        The loop counts seconds, and a clock may be put forward or back. So the clock is asked now and then;
        the store is asked only when the time has come.
        """
        at = schedule.wake_time(run)
        if at is None:
            return

        def ring() -> None:
            del self._alarms[run.name]
            if self._clock() < at:
                self._set_alarm(run)
            else:
                self._examine([run.name])

        seconds = min(max((at - self._clock()) / 10**9, 0.0), _CLOCK_SECONDS)
        if (before := self._alarms.pop(run.name, None)) is not None:
            before.cancel()
        self._alarms[run.name] = asyncio.get_running_loop().call_later(seconds, ring)

    async def _defect(self, journal: Journal) -> None:
        """End a run that met a defect of ours: failed, or unknown once its import may have been received."""
        incident = secrets.token_hex(4)
        _log.exception("incident %s: a defect in %s", incident, journal.run.name)
        entry = CATALOGUE["HOST_DEFECT"]
        found = finding("HOST_DEFECT", incident=incident)
        error = RunError(code=found.code, message=found.cause, remedy=found.remedy, retryable=entry.retryable)
        if journal.run.state == Run.STATE_UNKNOWN or journal.import_open():
            await journal.cannot_tell(error)
            self._look_again(journal.run.name, timedelta(minutes=1))
        else:
            await journal.fail(error)

    def _look_again(self, name: str, after: timedelta) -> None:
        def due() -> None:
            del self._later[name]
            if name in self._tasks or len(self._tasks) >= max(self._advancing, 1):
                self._look_again(name, timedelta(seconds=1))
            elif self._advancing:
                self._begin(name)

        if (before := self._later.pop(name, None)) is not None:
            before.cancel()
        self._later[name] = asyncio.get_running_loop().call_later(after.total_seconds(), due)


def _log_failure(error: Exception, what: str) -> None:
    """One line, again and again while the store is full or locked; a traceback for what nobody foresaw."""
    if isinstance(error, ResourceExhausted | Unavailable):
        _log.error("%s: %s; trying again in %g s", what, error.message, _STORE_RETRY_SECONDS)
    else:
        _log.error("%s; trying again in %g s", what, _STORE_RETRY_SECONDS, exc_info=error)
