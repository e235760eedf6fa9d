"""Following a run, or all: what the record holds first, then what is written, with no gap or repetition.

Events reach this module only after their commit. While somebody follows a run, its newest events are kept in
one log that all its followers share; who starts late or falls behind reads the store until the log has the
rest.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from operator import attrgetter
from typing import Final

from pipelinehost.v1.resources_pb2 import Event, Run
from pipelinehost_server.store import Store

_PAGE: Final = 500
_KEPT: Final = 1000
RECORD: Final = ""
"""Stands for the whole record where a run is followed."""
_SEQUENCE = attrgetter("sequence")


class _Log:
    """The newest events of a run, or of all; every event after ``floor`` is or will be here."""

    __slots__ = ("_batch", "_batch_after", "_whole", "events", "floor", "followers", "queued", "waiters")

    def __init__(self, floor: int, *, queued: bool, whole: bool) -> None:
        self._whole = whole
        self.events: list[Event] = []
        self.floor = floor
        self.queued = queued
        self.followers = 0
        # A future for each who waits: a task that is cancelled cancels what it awaits.
        self.waiters: set[asyncio.Future[None]] = set()
        self._batch: Sequence[Event] = ()
        self._batch_after = -1

    def append(self, event: Event) -> None:
        if event.kind == Event.KIND_RUN_STATE_CHANGED:
            self.queued = event.run.to == Run.STATE_WAITING_FOR_TARGET
        self.events.append(event)
        self._batch_after = -1
        if len(self.events) > 2 * _KEPT:
            self.floor = self.events[-_KEPT - 1].sequence
            del self.events[:-_KEPT]

    def after(self, sequence: int) -> Sequence[Event]:
        """Events after a sequence; followers at one place share the answer."""
        if sequence != self._batch_after:
            self._batch = self.thinned(self.events[bisect_right(self.events, sequence, key=_SEQUENCE) :])
            self._batch_after = sequence
        return self._batch

    def thinned(self, events: Sequence[Event]) -> Sequence[Event]:
        """What a follower gets of these: for the record everything, for a run without progress gone by."""
        return events if self._whole else _without_old_progress(events)

    def wake(self) -> None:
        """Lets every follower that waits look again."""
        waiters, self.waiters = self.waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class _Alarm:
    """Wakes a follower that has waited for some seconds; one timer in all, not one for each wait."""

    __slots__ = ("_loop", "_seconds", "_timer", "since", "waiter")

    def __init__(self, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        self._seconds = seconds
        self._loop = loop
        self.since = loop.time()
        self.waiter: asyncio.Future[None] | None = None
        self._timer = loop.call_later(seconds, self._ring)

    def _ring(self) -> None:
        rest = self.since + self._seconds - self._loop.time()
        if rest <= 0:
            if self.waiter is not None and not self.waiter.done():
                self.waiter.set_result(None)
            rest = self._seconds
        self._timer = self._loop.call_later(rest, self._ring)

    def cancel(self) -> None:
        self._timer.cancel()


class Feed:
    """Brings the store's events to those who follow runs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._logs: dict[str, _Log] = {}
        store.listen(self._publish)

    async def follow(self, run: str, after: int, idle: float | None = None) -> AsyncIterator[Sequence[Event]]:
        """Every event about a run after a sequence, in batches and in order, for as long as it is followed.

        Of several progress events that have gathered only the newest comes; all others always come. The
        batches are shared by all followers and must not be changed.

        Args:
            run: its name, or :data:`RECORD` for the events about everything, none left out.
            after: sequence of the last event that the follower knows; 0 for none.
            idle: seconds after which an empty batch says that nothing happened. An empty batch also comes
                when another run's change may have moved this one in the queue of its target.
        """
        loop = asyncio.get_running_loop()
        log = self._enter(run)
        alarm = None if idle is None else _Alarm(idle, loop)
        waiter: asyncio.Future[None] | None = None
        try:
            while True:
                batch: Sequence[Event]
                if after < log.floor:
                    page = (
                        self._store.reads.events_after(after, _PAGE)
                        if run == RECORD
                        else self._store.reads.events_of_run(run, after, _PAGE)
                    )
                    # A page that is not full shows that up to the floor there is no more.
                    after = max(page[-1].sequence if page else 0, log.floor if len(page) < _PAGE else 0)
                    if not page:
                        continue
                    batch = log.thinned(page)
                else:
                    batch = log.after(after)
                    if not batch:
                        waiter = loop.create_future()
                        log.waiters.add(waiter)
                        if alarm is not None:
                            alarm.since, alarm.waiter = loop.time(), waiter
                        await waiter
                        if after < log.floor:
                            continue
                        batch = log.after(after)
                    if batch:
                        after = batch[-1].sequence
                yield batch
        finally:
            if waiter is not None:
                log.waiters.discard(waiter)
            if alarm is not None:
                alarm.cancel()
            self._leave(run, log)

    def _enter(self, run: str) -> _Log:
        log = self._logs.get(run)
        if log is None:
            stored = self._store.reads.run(run)
            queued = stored is not None and stored.state == Run.STATE_WAITING_FOR_TARGET
            # What is committed now may still be on its way here: it is below the floor, so it comes from the
            # store, and when it arrives it is known already.
            log = self._logs[run] = _Log(
                self._store.reads.last_sequence(), queued=queued, whole=run == RECORD
            )
        log.followers += 1
        return log

    def _leave(self, run: str, log: _Log) -> None:
        log.followers -= 1
        if not log.followers:
            del self._logs[run]

    def _publish(self, events: Sequence[Event]) -> None:
        if not self._logs:
            return
        awake = set()
        queues_moved = False
        if (whole := self._logs.get(RECORD)) is not None:
            for event in events:
                whole.append(event)
            awake.add(whole)
        for event in events:
            log = self._logs.get(event.subject)
            if log is not None:
                log.append(event)
                awake.add(log)
            queues_moved = queues_moved or event.kind == Event.KIND_RUN_STATE_CHANGED
        if queues_moved:
            awake.update(log for log in self._logs.values() if log.queued)
        for log in awake:
            log.wake()


def _without_old_progress(events: Sequence[Event]) -> Sequence[Event]:
    """The events without the progress that a later one among them has overtaken."""
    newest = len(events) - 1
    while newest >= 0 and events[newest].kind != Event.KIND_PROGRESS:
        newest -= 1
    return [event for at, event in enumerate(events) if at == newest or event.kind != Event.KIND_PROGRESS]
