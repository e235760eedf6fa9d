"""What a benchmark gives back, and how two things are measured so that a busy machine slows both alike."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import psutil

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    what: str
    value: str
    target: str = ""
    """Empty for a figure that explains another one."""
    met: bool | None = None

    @classmethod
    def at_least(cls, what: str, value: float, target: float, unit: str = "×") -> Figure:
        """More is better."""
        return cls(what, f"{value:.2f}{unit}", f"≥ {target:g}{unit}", value >= target)

    @classmethod
    def at_most(cls, what: str, value: float, target: float, unit: str = "×") -> Figure:
        """Less is better."""
        return cls(what, f"{value:.2f}{unit}", f"≤ {target:g}{unit}", value <= target)


def in_turn(rounds: int, work: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """What each piece of work gave in each round; who begins changes with the rounds."""
    found: dict[str, list[T]] = {name: [] for name in work}
    names = list(work)
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            found[name].append(work[name]())
    return found


def ratio(ours: Sequence[float], bare: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(mine / theirs for mine, theirs in zip(ours, bare, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def cpu(pid: int) -> float:
    """Seconds that a process has spent on a processor so far."""
    spent = psutil.Process(pid).cpu_times()
    return float(spent.user + spent.system)


@contextmanager
def others() -> Iterator[Callable[[], float]]:
    """Tells, after the block, which share of the machine's processors others have used meanwhile.

    Our own part is this process and the children that it has waited for.
    """

    def busy() -> tuple[float, float, float]:
        machine, own = psutil.cpu_times(), os.times()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        mine = own.user + own.system + own.children_user + own.children_system
        return sum(machine[:8]) - idle, mine, time.monotonic()

    before = busy()
    share = 0.0
    yield lambda: share
    after = busy()
    used, mine, elapsed = (b - a for a, b in zip(before, after, strict=True))
    share = max(0.0, used - mine) / elapsed / (os.cpu_count() or 1)
