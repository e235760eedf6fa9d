"""What clients were told while the host was killed; afterwards everything is held against it."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from pipelinehost.v1.resources_pb2 import Gate

INSIDE, OUTSIDE = "inside", "outside"
"""Where environments live: embedded, or in a process that survives the host."""


@dataclass
class Asked:
    """A run that a client was told to be accepted."""

    run: str
    side: str
    ends: set[str]
    """States that it may end in, a failed one with its code: ``FAILED VERSION_NOT_HIGHER``."""
    attempts: int = 1


@dataclass
class Watched:
    """What one watch of a run brought, over all restarts."""

    run: str
    after: int = 0
    """Revision of the snapshot that it began with."""
    upto: int = 0
    """Revision of the finished run that it ended with."""
    sequences: list[int] = field(default_factory=list)
    interruptions: int = 0


@dataclass(frozen=True)
class Decided:
    """A decision at a gate whose answer reached the approver."""

    run: str
    kind: Gate.Kind
    principal: str
    approved: bool


@dataclass(frozen=True)
class Sent:
    """An import that the host sent on the way outside; times in nanoseconds, by the storm's own clock."""

    environment: str
    looked: int
    """When the answer to the last question before it was let through: what had happened then was known."""
    at: int
    shift: int
    """How far the host's clock was put forward then."""


class Record:
    """Filled by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.asked: dict[str, Asked] = {}
        self.watched: list[Watched] = []
        self.uploads: dict[str, bytes] = {}
        """Acknowledged artifacts and the digest of what was sent."""
        self.decided: list[Decided] = []
        self.sent: list[Sent] = []
        self.counts: Counter[str] = Counter()
        self.kills: Counter[str] = Counter()
        """What the host was doing when it was killed."""
        self.violations: list[str] = []

    def accept(self, asked: Asked) -> None:
        """A run was acknowledged."""
        with self._lock:
            if asked.run in self.asked:
                self.violations.append(f"{asked.run} was given to two requests")
            self.asked[asked.run] = asked

    def decide(self, decided: Decided) -> None:
        """A decision was acknowledged."""
        with self._lock:
            self.decided.append(decided)

    def send(self, sent: Sent) -> None:
        """An import was seen on its way."""
        with self._lock:
            self.sent.append(sent)

    def watch(self, watched: Watched) -> None:
        """A watch has ended."""
        with self._lock:
            self.watched.append(watched)

    def count(self, what: str) -> None:
        """Something happened once more."""
        with self._lock:
            self.counts[what] += 1

    def violated(self, what: str) -> None:
        """Something happened that must not."""
        with self._lock:
            self.violations.append(what)
