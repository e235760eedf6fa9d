"""Freezes that come and go: of the host, of pipelines and of stages, and of one that is about to import."""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from tests.crash.record import INSIDE, OUTSIDE, Record
from tests.crash.world import GATED, HASTY, PIPELINES, Clock, passing

from pipelinehost import Client
from pipelinehost.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PipelineHostError,
)
from pipelinehost.v1.resources_pb2 import Freeze, GateStatus

T = TypeVar("T")
_FAR = 60 * 10**9
"""Nanoseconds ahead that nobody in the storm asks for: the clock has jumped back."""


class Freezer(threading.Thread):
    """Freezes, changes the freeze, and ends it; and finds another time for runs that a jump has put far off.

    Args:
        seed: what its choices follow from.
        client: of an administrator.
        record: told what it does.
        clock: the host's.
    """

    def __init__(self, seed: int, client: Client, record: Record, clock: Clock) -> None:
        super().__init__(name="freezer", daemon=True)
        self._random = random.Random(f"{seed}/freezer")
        self._lookout = random.Random(f"{seed}/lookout")
        self._client = client
        self._record = record
        self._clock = clock
        self._over = threading.Event()
        self._asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._count = 0

    def urgent(self, run: str) -> None:
        """Freeze the stage of a run at once, now and then: it has its target."""
        if self._lookout.random() < 0.15:
            self._asked.put(run)

    def stop(self) -> None:
        """End all freezes and wait for that."""
        self._over.set()
        self._asked.put("")
        self.join()

    def run(self) -> None:
        """Go on until the storm is over."""
        while not self._over.is_set():
            try:
                run = self._asked.get(timeout=self._random.uniform(0.2, 1.5))
            except queue.Empty:
                run = ""
            try:
                self._freeze(run)
                self._hurry()
            except Exception as error:  # noqa: BLE001 - whatever a client meets, it must not have met it
                self._record.violated(f"{self.name}: {error!r}")
                return

    def _freeze(self, run: str) -> None:
        if run:
            scope = self._told(lambda: self._client.run(run)).stage
            if not scope:  # a restore
                return
        elif self._over.is_set():
            return
        else:
            scope = self._scope()
        self._count += 1
        freeze = Freeze(name=f"freezes/storm-{self._count}", reason="the storm", scope=scope)
        if not run and self._random.random() < 0.5:
            freeze.time_zone = "UTC"
            freeze.start, freeze.end = (self._local(s) for s in (self._random.choice((-5, 1)), 60))
            if self._random.random() < 0.5:
                freeze.recurrence = "FREQ=DAILY"
        try:
            freeze = self._told(lambda: self._client.create_freeze(freeze))
        except AlreadyExists:  # its answer was lost
            freeze = self._told(lambda: self._client.freeze(freeze.name))
        self._record.count("freezes")
        time.sleep(self._random.uniform(0.1, 1.0))
        if self._random.random() < 0.4:
            changed = Freeze()
            changed.CopyFrom(freeze)
            changed.reason = "the storm goes on"
            changed.ClearField("etag")
            if freeze.end:
                changed.end = self._local(self._random.choice((2, 60)))
            try:
                self._told(lambda: self._client.update_freeze(changed))
            except InvalidArgument:  # by now that would be before its start
                if not self._clock.jumps:
                    raise
            time.sleep(self._random.uniform(0.1, 1.0))
        with contextlib.suppress(NotFound):  # its answer was lost
            self._told(lambda: self._client.delete_freeze(freeze.name))

    def _scope(self) -> str:
        side = self._random.choice((INSIDE, OUTSIDE))
        pipeline = f"pipelines/{side}-{self._random.choice((*PIPELINES, GATED, HASTY))}"
        stage = "qa" if pipeline.endswith(HASTY) else self._random.choice(("qa", "production"))
        return self._random.choice(("", pipeline, f"{pipeline}/stages/{stage}"))

    def _hurry(self) -> None:
        """Who waits for a time that a jump back has put off for a year goes on now, or is cancelled."""
        if not self._clock.jumps:
            return
        for run in self._told(lambda: list(self._client.runs("state = SCHEDULED"))):
            if run.schedule_time.ToNanoseconds() > self._clock.now() + _FAR:
                self._record.count("runs that a jump has put off")
                try:
                    self._told(partial(self._client.reschedule, run.name))
                except PipelineHostError:  # it was cancelled, or goes on
                    continue
        for run in self._told(lambda: list(self._client.runs("state = AWAITING_GATE"))):
            waits = [s for s in run.gates if s.state == GateStatus.STATE_WAITING]
            if (
                run.pipeline.endswith(HASTY)
                and waits[0].expire_time.ToNanoseconds() > self._clock.now() + _FAR
            ):
                self._record.count("gates that a jump has put off")
                with contextlib.suppress(FailedPrecondition):  # it was decided
                    self._told(partial(self._client.cancel, run.name))

    def _local(self, seconds: float) -> str:
        at = datetime.fromtimestamp(self._clock.now() / 10**9 + seconds, UTC)
        return at.replace(tzinfo=None).isoformat(timespec="seconds")

    def _told(self, call: Callable[[], T]) -> T:
        ends = time.monotonic() + 120
        while True:
            try:
                return call()
            except PipelineHostError as error:
                if not passing(error) or time.monotonic() > ends:
                    raise
                time.sleep(0.1)
