"""Watches the record, so that the host can be killed right after something has happened."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import ClassVar

from pipelinehost import Client
from pipelinehost.errors import Cancelled
from pipelinehost.v1.resources_pb2 import Event, Run

VALIDATED = "a validation"
"""Outside, and seen where its last answer passes: what follows is over before an event of it could be."""


class Lookout(threading.Thread):
    """Tells what happens, as soon as it is committed.

    Args:
        client: of an administrator.
        urgent: given each run that gets its target.
    """

    ALL: ClassVar = (
        VALIDATED,
        "a request",
        "the opening of a gate",
        "a decision",
        "a wait",
        "a target's turn",
        "a freeze",
        "a block",
    )
    """What a kill can wait for."""

    def __init__(self, client: Client, urgent: Callable[[str], None]) -> None:
        super().__init__(name="lookout", daemon=True)
        self._client = client
        self._urgent = urgent
        self._news = threading.Condition()
        self._counts = dict.fromkeys(self.ALL, 0)

    def happens(self, awaited: Collection[str], seconds: float) -> str:
        """Wait until one of these happens; which one does in so many seconds, if any."""
        with self._news:
            before = dict(self._counts)

            def found() -> str:
                return next((what for what in awaited if self._counts[what] > before[what]), "")

            return self._news.wait_for(found, seconds)

    def saw(self, what: str) -> None:
        """It has happened; also for whoever sees it otherwise."""
        with self._news:
            self._counts[what] += 1
            self._news.notify_all()

    def run(self) -> None:
        """Go on until the client is closed."""
        with suppress(Cancelled):
            for update in self._client.watch_events():
                if update.HasField("event"):
                    self._see(update.event)

    def _see(self, event: Event) -> None:
        what = _named(event)
        if what == "a target's turn":
            self._urgent(event.subject)
        if what:
            self.saw(what)


def _named(event: Event) -> str:
    match event.kind:
        case Event.KIND_DEPLOYMENT_REQUESTED:
            return "a request"
        case Event.KIND_GATE_OPENED:
            return "the opening of a gate"
        case Event.KIND_GATE_DECIDED:
            return "a decision"
        case Event.KIND_FREEZE_CREATED:
            return "a freeze"
        case Event.KIND_ARTIFACT_BLOCKED:
            return "a block"
    states = {Run.STATE_SCHEDULED: "a wait", Run.STATE_DEPLOYING: "a target's turn"}
    return states.get(event.run.to, "") if event.HasField("run") else ""
