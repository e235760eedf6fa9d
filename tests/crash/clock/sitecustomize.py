"""Puts the clock of a Python program forward or back, for a folder that stands first in PYTHONPATH.

Python runs this file before the program, and so before anybody has taken a function out of these modules; the
programs that it starts inherit it. What counts seconds that only grow is left alone.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from typing import Any

_SECONDS = int(os.environ.get("CRASH_CLOCK_SECONDS", "0"))
_real = dt.datetime


class _Like(type):
    """Takes what the real class made for one of its own."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _real)


class _Shifted(_real, metaclass=_Like):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Any:
        return _real.now(tz) + dt.timedelta(seconds=_SECONDS)


if _SECONDS:
    _time, _time_ns, _gmtime, _localtime = time.time, time.time_ns, time.gmtime, time.localtime
    time.time = lambda: _time() + _SECONDS
    time.time_ns = lambda: _time_ns() + _SECONDS * 10**9
    time.gmtime = lambda seconds=None: _gmtime(time.time() if seconds is None else seconds)
    time.localtime = lambda seconds=None: _localtime(time.time() if seconds is None else seconds)
    dt.datetime = _Shifted  # type: ignore[misc]  # that is the point
