"""Watching a run: a snapshot or a token to begin with, then every event, until the run is finished.

And watching the record: every event that a filter selects, from now, from the beginning or from a token on.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import time
from collections.abc import AsyncGenerator, Callable
from typing import Final

from pipelinehost.errors import OutOfRange
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.pipeline_host_pb2 import WatchEventsRequest, WatchEventsResponse, WatchRunResponse
from pipelinehost.v1.resources_pb2 import Event, Run
from pipelinehost_server import rules
from pipelinehost_server.api.listing import selects
from pipelinehost_server.events import RECORD, Feed
from pipelinehost_server.store import Store

_SHARED: Final = 2_048
"""Newest events whose responses are kept for the next watcher."""
_MAC: Final = 12


class Watch:
    """Streams of what happens. An event about a run is put into a response once, whoever watches.

    Args:
        store: of the runs.
        feed: of the same store.
        secret: of this store; resume tokens made with another one are refused.
        heartbeat: seconds of silence after which a watcher hears that the line is alive.
    """

    def __init__(self, store: Store, feed: Feed, secret: bytes, heartbeat: float) -> None:
        self._reads = store.reads
        self._feed = feed
        self._secret = secret
        self._heartbeat = heartbeat
        self._responses: dict[int, WatchRunResponse] = {}

    async def run(self, run: Run, resume_token: str) -> AsyncGenerator[WatchRunResponse, None]:
        """What happens to a run: without a token a snapshot and the events after it, with one only these.

        A run that has finished ends the stream with a snapshot, unless that is what it began with. A failed
        run that is retried at once has not finished.

        Raises:
            OutOfRange: the token is of another run or another store.
        """
        name = run.name
        if resume_token:
            after = self._sequence(name, resume_token)
        else:
            after = run.revision
            yield WatchRunResponse(run=run, resume_token=self._token(name, after))
        if run.state in rules.FINISHED and run.revision <= after:
            if resume_token:
                yield WatchRunResponse(run=run, resume_token=self._token(name, after))
            return
        target = run.target_environment
        told = time.monotonic()
        # A finished run may have later events: of a webhook whose receiver decided before it answered.
        finishing, place = run.state in rules.FINISHED, 0
        moved = run.state == Run.STATE_WAITING_FOR_TARGET
        async for batch in self._feed.follow(name, after, self._heartbeat):
            for event in batch:
                yield self._response(name, event)
                after = event.sequence
                if event.HasField("run"):
                    finishing = event.run.to in rules.FINISHED
                    moved = True
            if batch:
                told = time.monotonic()
                if finishing:
                    run = self._reads.run(name) or run
                    if run.state in rules.FINISHED and run.revision <= after:
                        yield WatchRunResponse(run=run, resume_token=self._token(name, after))
                        return
            if moved or not batch:
                before, place = place, self._place(name, target)
                moved = False
                # In a busy queue a watcher is woken often; it hears only what has changed.
                if place != before or (not batch and time.monotonic() - told >= 0.9 * self._heartbeat):
                    told = time.monotonic()
                    yield self._beat(name, after, place)

    async def events(
        self, request: WatchEventsRequest, sees: Callable[[str], bool]
    ) -> AsyncGenerator[WatchEventsResponse, None]:
        """What happens on the host, as far as the watcher may see it at the moment when it would be sent.

        The first response is a heartbeat, so that a watcher has a token before anything happens. Tokens move
        on over events that are left out.

        Args:
            request: what to watch.
            sees: tells whether the watcher sees the events about a subject, as of when it is asked.

        Raises:
            InvalidArgument: the filter cannot be read.
            OutOfRange: the token is of another store, or events after it were dropped.
        """
        selected = selects(request.filter)
        if request.resume_token:
            after = self._sequence(RECORD, request.resume_token)
        elif request.from_beginning:
            after = self._reads.first_sequence() - 1
        else:
            after = self._reads.last_sequence()
        yield self._record_beat(after)
        told = time.monotonic()
        async for batch in self._feed.follow(RECORD, after, self._heartbeat):
            for event in batch:
                after = event.sequence
                if selected(event) and sees(event.subject):
                    told = time.monotonic()
                    yield WatchEventsResponse(event=event, resume_token=self._token(RECORD, after))
            if time.monotonic() - told >= 0.9 * self._heartbeat:
                told = time.monotonic()
                yield self._record_beat(after)
            # A filter may select nothing of a long record: others have their turn in between.
            await asyncio.sleep(0)

    def _place(self, name: str, target: str) -> int:
        """How many runs get the target before this one, its holder included; 0 if it does not wait."""
        waiting = self._reads.waiting_for(target)
        return waiting.index(name) + 1 if name in waiting else 0

    def _response(self, name: str, event: Event) -> WatchRunResponse:
        response = self._responses.get(event.sequence)
        if response is None:
            response = WatchRunResponse(event=event, resume_token=self._token(name, event.sequence))
            self._responses[event.sequence] = response
            if len(self._responses) > _SHARED:
                del self._responses[next(iter(self._responses))]
        return response

    def _beat(self, name: str, after: int, place: int) -> WatchRunResponse:
        response = WatchRunResponse(resume_token=self._token(name, after))
        response.heartbeat.time.GetCurrentTime()
        response.heartbeat.queue_position = place
        return response

    def _record_beat(self, after: int) -> WatchEventsResponse:
        response = WatchEventsResponse(resume_token=self._token(RECORD, after))
        response.heartbeat.time.GetCurrentTime()
        return response

    def _token(self, name: str, sequence: int) -> str:
        mac = hmac.digest(self._secret, f"watch\0{name}\0{sequence}".encode(), "sha256")[:_MAC]
        return f"{sequence}.{base64.urlsafe_b64encode(mac).decode()}"

    def _sequence(self, name: str, token: str) -> int:
        digits = token.partition(".")[0]
        if digits.isascii() and digits.isdigit() and len(digits) < 19:
            sequence = int(digits)
            known = hmac.compare_digest(token.encode(), self._token(name, sequence).encode())
            if known and sequence < self._reads.first_sequence() - 1:
                raise OutOfRange(
                    ErrorReason.ERROR_REASON_EVENTS_PRUNED,
                    f"events after the resume token were dropped from the record, whose oldest is "
                    f"{self._reads.first_sequence()} now",
                    remedy="Watch again without a token; what was dropped is in an export.",
                    metadata={"resource": name},
                )
            if known and sequence <= self._reads.last_sequence():
                return sequence
        raise OutOfRange(
            ErrorReason.ERROR_REASON_RESUME_TOKEN_INVALID,
            f"the resume token is not of {name or 'the record'} in this host's store",
            remedy="Watch again without a token: the first response is then the run as it is."
            if name
            else "Watch again without a token.",
            metadata={"resource": name},
        )
