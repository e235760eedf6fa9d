"""One HTTP call with everything that belongs to it: token, headers, timeout, caps, retries, errors."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from pipelinehost_dataverse.webapi.model import Wait

OnWait = Callable[[Wait], None]
"""Told of each wait before it begins; must return at once."""


class TokenSource(Protocol):
    """Gives bearer tokens."""

    async def __call__(self, scope: str, *, renew: bool = False) -> str:
        """A token for ``scope`` (``https://org.crm4.dynamics.com/.default``).

        ``renew`` is True once after a 401: the last token was refused, a cached one will not do.
        """


@dataclass(frozen=True, slots=True)
class Policy:
    """Timeouts, budgets and caps; seconds and bytes. Tests inject ``sleep``, ``clock`` and ``jitter``."""

    connect_seconds: float = 10
    read_seconds: float = 60
    """Of a whole GET, and of a small POST."""
    action_seconds: float = 900
    """Of a whole POST that stages, exports, imports or publishes."""
    export_seconds: float = 3600
    """Of an export with all its polls."""
    retry_budget: float = 120
    """Of all waits of one call."""
    lock_budget: float = 600
    """Of all waits of one call while another solution operation holds the environment."""
    answer_bytes: int = 64 * 2**20
    package_bytes: int = 128 * 2**20
    """Of a package; Dataverse allows 120 MB."""
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep)
    clock: Callable[[], float] = field(default=time.monotonic)
    jitter: Callable[[], float] = field(default=random.random)
    """0 to 1."""
