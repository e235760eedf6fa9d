"""Freezes: when nothing may be imported into a stage, and until when.

A freeze has one window, or one that recurs, in the local time of its zone; or none, and then it lasts until
it is deleted. Everything here is computed for a moment, never counted up from the beginning: whatever rule
somebody writes, a look at it costs the same.

Local times and the change of clocks: a time that is skipped counts as the moment of the change; a time that
comes twice begins a window at its first coming and ends one at its second. So a freeze is never shorter than
it is written.
"""

from __future__ import annotations

import calendar
import functools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipelinehost import names
from pipelinehost.errors import Violation
from pipelinehost.v1.resources_pb2 import Freeze

_SECOND = 10**9
_DAY = timedelta(days=1)
_LONGEST = timedelta(days=366)
"""The longest window that may recur."""
_MOST_INTERVAL, _MOST_COUNT = 400, 400
REASON = 500
"""Most characters of a reason, which runs carry."""
MOST = 50
"""Most freezes of one scope."""
_LOOKS = 100
"""How many windows that follow each other without a gap are gone through in one look."""
_LOCAL = re.compile(r"(19[7-9]\d|2\d{3})-\d\d-\d\dT\d\d:\d\d(:\d\d)?")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}")
_BY_DAY = re.compile(r"([+-]?\d{1,2})?(MO|TU|WE|TH|FR|SA|SU)")
_DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_UNTIL = re.compile(r"(\d{8})(?:T(\d{6})(Z?))?")
_UNITS = {"DAILY": 1, "WEEKLY": 7, "MONTHLY": 28, "YEARLY": 365}
"""Days of the shortest period of each frequency."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Wrong(Exception):
    """Why a freeze cannot be read."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """A recurrence rule of RFC 5545, as far as it tells days."""

    frequency: str
    interval: int
    weekdays: frozenset[tuple[int, int]]
    """Ordinal (0: every) and weekday from 0 for Monday."""
    month_days: frozenset[int]
    months: frozenset[int]

    def has(self, first: date, day: date) -> bool:
        """Whether a rule whose first day is ``first`` has a window that begins on this day."""
        if day < first or (self.months and day.month not in self.months):
            return False
        match self.frequency:
            case "DAILY":
                periods = (day - first).days
            case "WEEKLY":  # weeks begin on Monday
                periods = (day.toordinal() - 1) // 7 - (first.toordinal() - 1) // 7
            case "MONTHLY":
                periods = (day.year - first.year) * 12 + day.month - first.month
            case _:
                periods = day.year - first.year
        if periods % self.interval:
            return False
        if self.month_days:
            length = calendar.monthrange(day.year, day.month)[1]
            if day.day not in self.month_days and day.day - length - 1 not in self.month_days:
                return False
        if self.weekdays and not self._weekday(day):
            return False
        return self.weekdays != frozenset() or bool(self.month_days) or self._as_first(first, day)

    def _weekday(self, day: date) -> bool:
        if (0, day.weekday()) in self.weekdays:
            return True
        if self.frequency not in ("MONTHLY", "YEARLY"):
            return False
        if self.frequency == "YEARLY" and not self.months:
            at, length = day.timetuple().tm_yday, 366 if calendar.isleap(day.year) else 365
        else:
            at, length = day.day, calendar.monthrange(day.year, day.month)[1]
        from_start, from_end = (at - 1) // 7 + 1, -((length - at) // 7 + 1)
        return bool({(from_start, day.weekday()), (from_end, day.weekday())} & self.weekdays)

    def _as_first(self, first: date, day: date) -> bool:
        """Where the rule says no day, it means that of the first window."""
        match self.frequency:
            case "DAILY":
                return True
            case "WEEKLY":
                return day.weekday() == first.weekday()
            case "MONTHLY":
                return day.day == first.day
            case _:
                return day.day == first.day and (bool(self.months) or day.month == first.month)


@dataclass(frozen=True, slots=True)
class _Window:
    """What a freeze says, ready to be asked."""

    zone: ZoneInfo
    start: datetime | None
    end: datetime | None
    rule: _Rule | None
    last: datetime | None
    """The beginning of the last window, at the latest."""

    def end_at(self, at: int) -> int | None:
        """When the window ends that a moment lies in.

        Returns:
            Nanoseconds since 1970; 0 where the moment lies in none, None where there is no end.
        """
        if self.start is not None and self.rule is None and at < _moment(self.start, self.zone, ends=False):
            return 0
        if self.end is None:
            return None
        if self.rule is None or self.start is None:
            ends = _moment(self.end, self.zone, ends=True)
            return ends if at < ends else 0
        length, clock = self.end - self.start, self.start.time()
        # The local time at that moment, on a calendar without changes of clocks; a day more on either side.
        local = (_EPOCH + timedelta(seconds=at // _SECOND)).astimezone(self.zone).replace(tzinfo=None)
        day, earliest = local.date() + _DAY, (local - length).date() - _DAY
        while day >= earliest:
            begins = datetime.combine(day, clock)
            day -= _DAY
            if not self.rule.has(self.start.date(), begins.date()) or (self.last and begins > self.last):
                continue
            # Earlier windows end no later: the last that has begun tells.
            if _moment(begins, self.zone, ends=False) <= at:
                ends = _moment(begins + length, self.zone, ends=True)
                return ends if at < ends else 0
        return 0


@dataclass(frozen=True, slots=True)
class Frozen:
    """What keeps a stage from imports at a moment."""

    freeze: Freeze
    """That lasts longest, of those in force."""
    until: int | None
    """From when on it may be free, nanoseconds since 1970; None: until the freeze is changed or deleted."""
    last: Freeze
    """Whose end that is: another one where freezes overlap or follow each other."""


def frozen(freezes: Sequence[Freeze], stage: str, at: int) -> Frozen | None:
    """What keeps a stage from imports at a moment; None where nothing does.

    Windows that follow each other without a gap count as one. After a hundred of them the end that was
    reached is told, and whoever waits looks again then.

    Args:
        freezes: that may concern the stage; others are passed over.
        stage: its full name.
        at: nanoseconds since 1970.
    """
    mine = [(f, _window(f)) for f in freezes if concerns(f, stage)]
    found: Frozen | None = None
    for _ in range(_LOOKS):
        then, longest = at if found is None or found.until is None else found.until, 0
        holder: Freeze | None = None
        for freeze, window in mine:
            ends = window.end_at(then)
            if ends is None:
                return Frozen(freeze, None, freeze)
            if ends > longest:
                holder, longest = freeze, ends
        if holder is None:
            return found
        found = Frozen(holder if found is None else found.freeze, longest, holder)
    return found


def in_force(freezes: Sequence[Freeze], stage: str, at: int) -> list[Freeze]:
    """All freezes that keep a stage from imports at a moment."""
    return [f for f in freezes if concerns(f, stage) and _window(f).end_at(at) != 0]


def scopes(stage: str) -> tuple[str, str, str]:
    """What a freeze may be of to concern a stage: the whole host, its pipeline, or itself."""
    return "", names.pipeline(names.parse("stage", stage)[0]), stage


def concerns(freeze: Freeze, stage: str) -> bool:
    """Whether a freeze is about a stage at all."""
    return freeze.scope in scopes(stage)


def local(at: int, freeze: Freeze) -> str:
    """A moment in a freeze's zone, with its offset."""
    zone = _zone(freeze.time_zone or "UTC")
    return (_EPOCH + timedelta(seconds=at // _SECOND)).astimezone(zone).isoformat()


def violations(freeze: Freeze) -> list[Violation]:
    """What is wrong with a freeze, whatever the state of the host."""
    found = []
    if not freeze.reason.strip():
        found.append(Violation("freeze.reason", "is required: tell those who wait why"))
    if len(freeze.reason) > REASON:
        told = f"has {len(freeze.reason)} characters; at most {REASON} are allowed"
        found.append(Violation("freeze.reason", told))
    if freeze.scope and not any(names.matches(kind, freeze.scope) for kind in ("pipeline", "stage")):
        found.append(
            Violation(
                "freeze.scope",
                f"{freeze.scope!r} is neither empty, for the whole host, nor a pipeline or a stage of one",
            )
        )
    problems = dict(_problems(freeze))
    return found + [Violation(f"freeze.{field}", what) for field, what in problems.items()]


def _problems(freeze: Freeze) -> Collection[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    times: dict[str, datetime] = {}
    for field in ("start", "end"):
        if text := getattr(freeze, field):
            try:
                times[field] = _time(text)
            except _Wrong as wrong:
                found.append((field, str(wrong)))
    if (times or freeze.recurrence) and not freeze.time_zone:
        found.append(("time_zone", "is required with start, end or recurrence: for example Europe/Berlin"))
    elif freeze.time_zone:
        try:
            _zone(freeze.time_zone)
        except _Wrong as wrong:
            found.append(("time_zone", str(wrong)))
    if found:
        return found
    if len(times) == 2 and times["end"] <= times["start"]:
        return [("end", f"is not after start: {freeze.end}")]
    if not freeze.recurrence:
        return []
    if len(times) < 2:
        return [("recurrence", "needs start and end: they are the first window")]
    try:
        rule, last = _read(freeze.recurrence, times["start"], _zone(freeze.time_zone))
    except _Wrong as wrong:
        return [("recurrence", str(wrong))]
    length, period = times["end"] - times["start"], timedelta(days=_UNITS[rule.frequency] * rule.interval)
    if length > min(period, _LONGEST):
        days = min(period, _LONGEST).days
        return [("end", f"is too late: a window that recurs {rule.frequency} has at most {days} days")]
    if last is not None and last < times["start"]:
        return [("recurrence", "ends before it begins: UNTIL is before start")]
    return []


@functools.lru_cache(maxsize=4096)
def _of(zone: str, start: str, end: str, recurrence: str) -> _Window:
    where = _zone(zone or "UTC")
    begins, ends = (_time(text) if text else None for text in (start, end))
    if not recurrence or begins is None:
        return _Window(where, begins, ends, None, None)
    return _Window(where, begins, ends, *_read(recurrence, begins, where))


def _window(freeze: Freeze) -> _Window:
    return _of(freeze.time_zone, freeze.start, freeze.end, freeze.recurrence)


def _time(text: str) -> datetime:
    if _LOCAL.fullmatch(text) is None:
        raise _Wrong(f"{text!r} is not a local time like 2026-12-24T18:00, without an offset")
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise _Wrong(f"{text!r} is no time: {error}") from None


@functools.lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    try:
        if _ZONE.fullmatch(name) is None:
            raise ValueError
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise _Wrong(f"{name!r} is no time zone that this host knows: for example Europe/Berlin") from None


@functools.lru_cache(maxsize=4096)
def _moment(local: datetime, zone: ZoneInfo, *, ends: bool) -> int:
    """When a local time is, in nanoseconds since 1970."""
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first > second:  # skipped: the clocks are put forward between the two
        while first - second > timedelta(seconds=1):
            middle = second + (first - second) / 2
            if middle.astimezone(zone).replace(tzinfo=None) < local:
                second = middle
            else:
                first = middle
        at = first.replace(microsecond=0)
    else:
        at = second if ends else first
    return (at - _EPOCH) // timedelta(seconds=1) * _SECOND


def _read(text: str, start: datetime, zone: ZoneInfo) -> tuple[_Rule, datetime | None]:
    """The rule, and the beginning of its last window at the latest.

    Raises:
        _Wrong: it cannot be read, or says what is not taken here.
    """
    parts: dict[str, str] = {}
    for part in text.removeprefix("RRULE:").split(";"):
        key, equals, value = part.partition("=")
        if not equals or not value or key in parts:
            raise _Wrong(f"{part!r} is not KEY=VALUE, or is there twice: FREQ=WEEKLY;BYDAY=FR")
        parts[key] = value
    known = ("FREQ", "INTERVAL", "BYDAY", "BYMONTHDAY", "BYMONTH", "UNTIL", "COUNT")
    if unknown := [key for key in parts if key not in known]:
        raise _Wrong(f"{unknown[0]} is not taken here; these are: {', '.join(known)}")
    frequency = parts.get("FREQ", "")
    if frequency not in _UNITS:
        raise _Wrong(f"FREQ is one of {', '.join(_UNITS)}")
    if frequency == "WEEKLY" and "BYMONTHDAY" in parts:
        raise _Wrong("BYMONTHDAY does not go with FREQ=WEEKLY")
    if "BYMONTHDAY" in parts and re.search(r"\d", parts.get("BYDAY", "")):
        raise _Wrong("BYDAY: counted weekdays do not go with BYMONTHDAY")
    rule = _Rule(
        frequency,
        _number("INTERVAL", parts.get("INTERVAL", "1"), 1, _MOST_INTERVAL),
        _weekdays(parts["BYDAY"], frequency) if "BYDAY" in parts else frozenset(),
        _numbers("BYMONTHDAY", parts, -31, 31),
        _numbers("BYMONTH", parts, 1, 12),
    )
    if not rule.has(start.date(), start.date()):
        raise _Wrong(f"does not fit start: {start.isoformat()} is none of its days")
    if "UNTIL" in parts and "COUNT" in parts:
        raise _Wrong("UNTIL and COUNT do not go together")
    if "UNTIL" in parts:
        return rule, _until(parts["UNTIL"], zone)
    if "COUNT" in parts:
        return rule, _last(rule, start, _number("COUNT", parts["COUNT"], 1, _MOST_COUNT))
    return rule, None


def _last(rule: _Rule, start: datetime, count: int) -> datetime:
    """The beginning of the last of so many windows; some years are looked through, not more."""
    day = start.date()
    for _ in range(10 * 366):
        if rule.has(start.date(), day):
            count -= 1
            if not count:
                return datetime.combine(day, start.time())
        day += _DAY
    raise _Wrong("COUNT goes on for more than ten years: say UNTIL instead")


def _until(text: str, zone: ZoneInfo) -> datetime:
    found = _UNTIL.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        day, clock, utc = found.groups()
        at = datetime.strptime(day + (clock or "235959"), "%Y%m%d%H%M%S")
        if not 1970 <= at.year < 3000:
            raise ValueError
    except ValueError:
        raise _Wrong(f"UNTIL is 20270131, 20270131T180000 or the same with Z, not {text!r}") from None
    return at.replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None) if utc else at


def _weekdays(text: str, frequency: str) -> frozenset[tuple[int, int]]:
    found = set()
    for item in text.split(","):
        matched = _BY_DAY.fullmatch(item)
        if matched is None:
            raise _Wrong(f"BYDAY: {item!r} is no day like FR, or 1MO and -1FR in months and years")
        ordinal = int(matched[1] or 0)
        if matched[1] and (not ordinal or abs(ordinal) > 53 or frequency not in ("MONTHLY", "YEARLY")):
            raise _Wrong(f"BYDAY: {item!r} counts weekdays, which months and years have, from 1 or -1")
        found.add((ordinal, _DAYS.index(matched[2])))
    return frozenset(found)


def _numbers(key: str, parts: dict[str, str], least: int, most: int) -> frozenset[int]:
    if key not in parts:
        return frozenset()
    return frozenset(_number(key, item, least, most) for item in parts[key].split(","))


def _number(key: str, text: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[+-]?\d{1,4}", text) or not least <= int(text) <= most or not int(text):
        raise _Wrong(f"{key}: {text!r} is not a number from {least} to {most}")
    return int(text)
