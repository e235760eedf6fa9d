"""When a stage is frozen: against a model that looks at every minute, and rules against python-dateutil."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dateutil import rrule  # type: ignore[import-untyped]  # it has no types
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelinehost.v1.resources_pb2 import Freeze
from pipelinehost_server.deployment import freezes
from pipelinehost_server.deployment.freezes import frozen

STAGE = "pipelines/sales/stages/qa"
MINUTE = 60 * 10**9
BERLIN = "Europe/Berlin"


def freeze(start: str = "", end: str = "", recurrence: str = "", **more: str) -> Freeze:
    zone = more.pop("time_zone", BERLIN if start or end else "")
    fields: dict[str, Any] = {"name": "freezes/f", "reason": "so", **more}
    made = Freeze(start=start, end=end, recurrence=recurrence, time_zone=zone, **fields)
    assert freezes.violations(made) == []
    return made


def at(text: str) -> int:
    """A UTC time in nanoseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def until(made: Freeze, when: str) -> str | None:
    """Until when it is frozen, in UTC; None where it is not."""
    found = frozen([made], STAGE, at(when))
    if found is None or found.until is None:
        return None if found is None else "ever"
    return datetime.fromtimestamp(found.until // 10**9, UTC).strftime("%Y-%m-%dT%H:%M")


@pytest.fixture
def days(monkeypatch: pytest.MonkeyPatch) -> list[date]:
    """The days that a rule was asked about: that is the work of a look."""
    asked: list[date] = []
    plain = freezes._Rule.has

    def has(rule: freezes._Rule, first: date, day: date) -> bool:
        asked.append(day)
        return plain(rule, first, day)

    monkeypatch.setattr(freezes._Rule, "has", has)
    return asked


def test_one_window() -> None:
    made = freeze("2026-12-24T18:00", "2026-12-27T00:00")
    assert until(made, "2026-12-24T16:59") is None
    assert until(made, "2026-12-24T17:00") == "2026-12-26T23:00"
    assert until(made, "2026-12-26T22:59") == "2026-12-26T23:00"
    assert until(made, "2026-12-26T23:00") is None


def test_a_stop_of_the_line_lasts_until_it_is_deleted() -> None:
    assert until(freeze(), "1980-01-01T00:00") == "ever"
    assert until(freeze(start="2026-01-01T00:00"), "2025-12-31T22:59") is None
    assert until(freeze(start="2026-01-01T00:00"), "2025-12-31T23:00") == "ever"
    assert until(freeze(end="2026-01-01T00:00"), "1980-01-01T00:00") == "2025-12-31T23:00"


def test_scopes() -> None:
    now = at("2026-01-01T00:00")
    for scope, concerned in {
        "": True,
        "pipelines/sales": True,
        STAGE: True,
        "pipelines/sale": False,
        "pipelines/other": False,
        "pipelines/sales/stages/prod": False,
    }.items():
        assert (frozen([freeze(scope=scope)], STAGE, now) is not None) is concerned


def test_fridays_until_monday() -> None:
    made = freeze("2026-11-06T17:00", "2026-11-09T06:00", "FREQ=WEEKLY;BYDAY=FR")
    assert until(made, "2026-10-30T18:00") is None, "not before the first"
    assert until(made, "2026-11-14T12:00") == "2026-11-16T05:00"
    assert until(made, "2026-11-18T12:00") is None
    assert until(made, "2036-07-05T12:00") == "2036-07-07T04:00", "summer time"


@pytest.mark.parametrize(
    ("rule", "inside", "outside"),
    [
        ("FREQ=MONTHLY;BYDAY=-1FR", "2026-02-27T12:00", "2026-02-20T12:00"),
        ("FREQ=MONTHLY;BYMONTHDAY=-1,30", "2027-04-30T12:00", "2027-04-29T12:00"),
        ("FREQ=YEARLY", "2031-01-30T12:00", "2031-02-28T12:00"),
        ("FREQ=WEEKLY;INTERVAL=2;UNTIL=20260401", "2026-02-13T12:00", "2026-02-06T12:00"),
        ("FREQ=DAILY;COUNT=3", "2026-02-01T12:00", "2026-02-02T12:00"),
    ],
)
def test_rules(rule: str, inside: str, outside: str) -> None:
    made = freeze("2026-01-30T10:00", "2026-01-30T20:00", rule)
    assert (until(made, inside) is None, until(made, outside) is None) == (False, True)


def test_a_time_that_is_skipped_is_the_moment_of_the_change() -> None:
    """Berlin, 2027-03-28: at 02:00, 01:00 UTC, it becomes 03:00."""
    for edge in ("02:00", "02:30", "03:00"):
        assert until(freeze(start=f"2027-03-28T{edge}", end="2027-03-28T05:00"), "2027-03-28T00:59") is None
        assert until(freeze(start=f"2027-03-28T{edge}", end="2027-03-28T05:00"), "2027-03-28T01:00")
        assert until(freeze(end=f"2027-03-28T{edge}"), "2027-03-28T00:00") == "2027-03-28T01:00"
    assert until(freeze(end="2027-03-28T03:30"), "2027-03-28T00:00") == "2027-03-28T01:30"


def test_a_time_that_comes_twice_begins_at_the_first_and_ends_at_the_second() -> None:
    """Berlin, 2026-10-25: at 03:00, 01:00 UTC, it becomes 02:00 again."""
    made = freeze("2026-10-25T02:30", "2026-10-25T02:45")
    assert until(made, "2026-10-25T00:29") is None
    assert until(made, "2026-10-25T00:30") == "2026-10-25T01:45"
    assert until(made, "2026-10-25T01:00") == "2026-10-25T01:45", "the clock says 02:00 again"
    night = freeze("2026-10-24T02:30", "2026-10-24T02:45", "FREQ=DAILY")
    assert until(night, "2026-10-25T01:10") == "2026-10-25T01:45"


def test_windows_without_a_gap_are_one() -> None:
    days = freeze("2026-11-02T00:00", "2026-11-03T00:00", "FREQ=DAILY;UNTIL=20261105")
    assert until(days, "2026-11-02T12:00") == "2026-11-05T23:00"
    one = freeze("2026-11-06T00:00", "2026-11-06T12:00", name="freezes/one")
    two = freeze("2026-11-06T10:00", "2026-11-06T18:00", name="freezes/two")
    found = frozen([one, two], STAGE, at("2026-11-06T01:00"))
    assert found is not None
    assert (found.freeze.name, found.until) == ("freezes/one", at("2026-11-06T17:00"))
    assert found.last.name == "freezes/two", "whose end that is"
    stop = freeze(start="2026-11-06T18:00", name="freezes/stop")
    found = frozen([one, two, stop], STAGE, at("2026-11-06T01:00"))
    assert found is not None
    assert (found.freeze.name, found.until) == ("freezes/stop", None)


def test_a_freeze_without_an_end_of_its_windows_is_looked_at_again() -> None:
    made = freeze("2026-11-02T00:00", "2026-11-03T00:00", "FREQ=DAILY")
    first = frozen([made], STAGE, at("2026-11-02T12:00"))
    assert first is not None
    assert first.until is not None
    assert first.until > at("2027-01-01T00:00")
    assert frozen([made], STAGE, first.until) is not None


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"reason": " "}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"scope": "environments/qa"}, "scope"),
        ({"scope": "pipelines/sales/stages/"}, "scope"),
        ({"start": "2026-12-24"}, "start"),
        ({"start": "2026-12-24T18:00Z"}, "start"),
        ({"start": "2026-12-24T18:00+01:00"}, "start"),
        ({"start": "2026-13-24T18:00"}, "start"),
        ({"start": "9999-12-31T23:59"}, "start"),
        ({"start": "2026-12-24T18:00", "time_zone": ""}, "time_zone"),
        ({"time_zone": "Europe/Bärlin"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"time_zone": "/etc/localtime"}, "time_zone"),
        ({"time_zone": "Europe"}, "time_zone"),
        ({"start": "2026-12-24T18:00", "end": "2026-12-24T18:00"}, "end"),
        ({"recurrence": "FREQ=DAILY"}, "recurrence"),
        ({"start": "2026-01-01T00:00", "recurrence": "FREQ=DAILY"}, "recurrence"),
    ],
)
def test_what_cannot_be_a_freeze(fields: dict[str, str], where: str) -> None:
    whole: dict[str, Any] = {"name": "freezes/f", "reason": "so", "time_zone": BERLIN, **fields}
    made = Freeze(**whole)
    assert [v.subject for v in freezes.violations(made)] == [f"freeze.{where}"]


@pytest.mark.parametrize(
    ("rule", "end"),
    [
        ("FREQ=HOURLY", "01T12:00"),
        ("FREQ=SECONDLY;INTERVAL=1", "01T12:00"),
        ("INTERVAL=2", "01T12:00"),
        ("FREQ=DAILY;FREQ=DAILY", "01T12:00"),
        ("FREQ=DAILY;BYSETPOS=1", "01T12:00"),
        ("FREQ=DAILY;BYHOUR=1,2,3", "01T12:00"),
        ("FREQ=DAILY;INTERVAL=0", "01T12:00"),
        ("FREQ=DAILY;INTERVAL=99999999999", "01T12:00"),
        ("FREQ=DAILY;COUNT=100000000", "01T12:00"),
        ("FREQ=YEARLY;COUNT=300", "01T12:00"),
        ("FREQ=DAILY;COUNT=2;UNTIL=20270101", "01T12:00"),
        ("FREQ=DAILY;UNTIL=tomorrow", "01T12:00"),
        ("FREQ=DAILY;UNTIL=20250101", "01T12:00"),
        ("FREQ=DAILY;UNTIL=00010101T000000Z", "01T12:00"),
        ("FREQ=WEEKLY;BYMONTHDAY=1", "01T12:00"),
        ("FREQ=WEEKLY;BYDAY=1FR", "01T12:00"),
        ("FREQ=MONTHLY;BYDAY=54FR", "01T12:00"),
        ("FREQ=WEEKLY;BYDAY=MO", "01T12:00"),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "01T12:00"),
        ("FREQ=DAILY", "02T00:01"),
        ("FREQ=WEEKLY", "08T00:01"),
        ("FREQ=DAILY;" + "X" * 10_000, "01T12:00"),
    ],
)
def test_rules_that_are_refused(rule: str, end: str, days: list[date]) -> None:
    made = Freeze(name="freezes/f", reason="so", time_zone=BERLIN, recurrence=rule)
    made.start, made.end = "2026-01-01T00:00", f"2026-01-{end}"
    assert freezes.violations(made)
    assert len(days) < 5_000


HOSTILE = (
    ("FREQ=YEARLY;BYMONTHDAY=1;BYMONTH=1;INTERVAL=400", "1970-12-31T00:00"),
    ("FREQ=YEARLY;BYMONTH=1;BYDAY=1TH", "1970-12-31T00:00"),
    ("FREQ=DAILY;INTERVAL=400;UNTIL=29991231", "1970-12-31T00:00"),
    ("FREQ=DAILY", "1970-01-02T00:00"),
    ("FREQ=MONTHLY;BYMONTHDAY=1,2,3,4,5,6,7,8,9,10;COUNT=400", "1970-01-02T00:00"),
)


@pytest.mark.parametrize(("rule", "end"), HOSTILE)
def test_no_rule_takes_long(rule: str, end: str, days: list[date]) -> None:
    """A look from cold goes through the days of a few windows, however far it is from the first."""
    made = freeze("1970-01-01T00:00", end, rule)
    for year in range(1971, 2990, 170):
        freezes._of.cache_clear()
        freezes._moment.cache_clear()
        days.clear()
        frozen([made], STAGE, at(f"{year}-06-15T12:00"))
        assert 0 < len(days) < 2_000


WEEKDAYS = st.sampled_from(freezes._DAYS)


@st.composite
def rules(draw: st.DrawFn) -> str:
    frequency = draw(st.sampled_from(list(freezes._UNITS)))
    parts = [f"FREQ={frequency}"]
    if draw(st.booleans()):
        parts.append(f"INTERVAL={draw(st.integers(1, 5))}")
    if draw(st.booleans()):
        counted = frequency in ("MONTHLY", "YEARLY") and draw(st.booleans())
        ordinals = st.sampled_from(["1", "2", "-1", "+3", "-2", "5"]) if counted else st.just("")
        days = draw(st.lists(st.builds(str.__add__, ordinals, WEEKDAYS), min_size=1, max_size=3))
        parts.append("BYDAY=" + ",".join(days))
    elif frequency != "WEEKLY" and draw(st.booleans()):
        days_ = draw(st.lists(st.integers(-31, 31).filter(bool), min_size=1, max_size=4))
        parts.append("BYMONTHDAY=" + ",".join(map(str, days_)))
    if draw(st.booleans()):
        parts.append(
            "BYMONTH=" + ",".join(map(str, draw(st.lists(st.integers(1, 12), min_size=1, max_size=6))))
        )
    tail = draw(st.sampled_from(["", ";COUNT=1", ";COUNT=4", ";UNTIL=20270815", ";UNTIL=20270301T110000"]))
    return ";".join(parts) + tail


@settings(max_examples=150, deadline=None)
@given(rules(), st.dates(date(2026, 1, 1), date(2026, 12, 31)))
@example("FREQ=WEEKLY;INTERVAL=2;BYDAY=SU,MO", date(2026, 1, 4))  # a Sunday ends its week
@example("FREQ=MONTHLY;INTERVAL=3", date(2026, 1, 31))
@example("FREQ=YEARLY;BYDAY=-1FR,1MO", date(2026, 12, 25))
def test_days_of_rules_are_those_of_dateutil(rule: str, first: date) -> None:
    start = datetime(first.year, first.month, first.day, 11)
    # To dateutil a day is its first moment; here the whole of it belongs to the rule.
    oracle = rrule.rrulestr(f"RRULE:{rule}".replace("UNTIL=20270815", "UNTIL=20270815T235959"), dtstart=start)
    made = Freeze(name="freezes/f", reason="so", time_zone="UTC", recurrence=rule)
    made.start, made.end = start.strftime("%Y-%m-%dT%H:%M"), start.strftime("%Y-%m-%dT12:00")
    known = set(oracle.between(start, start + timedelta(days=800), inc=True))
    if start not in known:
        assert freezes.violations(made), "start has to be one of the days"
        return
    if "COUNT=4" in rule and freezes.violations(made):
        return  # it would take more than ten years
    assert freezes.violations(made) == []
    for offset in range(0, 800, 1 if "DAILY" not in rule else 3):
        noon = start + timedelta(days=offset)
        inside = frozen([made], STAGE, at((noon + timedelta(minutes=5)).isoformat())) is not None
        assert inside == (noon in known), noon


def walls(zone: ZoneInfo, begin: datetime, minutes: int) -> list[datetime]:
    """What the clock says in each minute."""
    return [(begin + timedelta(minutes=i)).astimezone(zone).replace(tzinfo=None) for i in range(minutes)]


ZONES = st.sampled_from([BERLIN, "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"])
CHANGES = [datetime(2027, 3, 27, tzinfo=UTC), datetime(2026, 10, 24, 12, tzinfo=UTC)]
CHANGES += [datetime(2027, 3, 13, 18, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)]
CHANGES += [datetime(2026, 10, 3, tzinfo=UTC), datetime(2027, 4, 3, tzinfo=UTC)]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_minute_is_as_in_the_model(data: st.DataObject) -> None:
    """A window begins when the clock is first at its start, and ends when it is not before its end any more.

    Around changes of clocks, of several freezes at once, among them daily and weekly ones.
    """
    begin = data.draw(st.sampled_from(CHANGES))
    made: list[Freeze] = []
    covered: set[int] = set()
    minutes = 2 * 24 * 60
    for _ in range(data.draw(st.integers(1, 3))):
        zone = data.draw(ZONES)
        clock = walls(ZoneInfo(zone), begin - timedelta(days=2), minutes + 4 * 24 * 60)
        start = clock[2 * 24 * 60 + data.draw(st.integers(-1000, minutes // 5)) * 5]
        length = timedelta(minutes=data.draw(st.integers(1, 24 * 12)) * 5)
        rule = data.draw(st.sampled_from(["", "FREQ=DAILY", "FREQ=WEEKLY", "FREQ=DAILY;INTERVAL=2;COUNT=2"]))
        form = "%Y-%m-%dT%H:%M"
        times = {"start": start.strftime(form), "end": (start + length).strftime(form)}
        made.append(freeze(**times, recurrence=rule, time_zone=zone))
        starts = [start]
        if rule:
            starts = list(rrule.rrulestr(f"RRULE:{rule}", dtstart=start).between(
                start, start + timedelta(days=8), inc=True
            ))  # fmt: skip
        for one in starts:
            begun = next((i for i, wall in enumerate(clock) if wall >= one), len(clock))
            over = next((i for i in range(len(clock), 0, -1) if clock[i - 1] < one + length), 0)
            covered |= {i - 2 * 24 * 60 for i in range(begun, over)}
    zero = int(begin.timestamp()) * 10**9
    for minute in range(0, minutes, 5):
        found = frozen(made, STAGE, zero + minute * MINUTE)
        assert (found is not None) == (minute in covered), minute
        if found is not None:
            assert found.until is not None
            free = next(i for i in range(minute, minute + 20 * 24 * 60) if i not in covered)
            if free < minutes:
                assert found.until == zero + free * MINUTE


def test_nothing_is_frozen_for_lack_of_freezes() -> None:
    nothing: list[Any] = []
    assert frozen(nothing, STAGE, 0) is None
