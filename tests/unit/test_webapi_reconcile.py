"""What became of an import whose answer was lost: every row of the table of cases."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipelinehost_dataverse.solution.model import Version
from pipelinehost_dataverse.webapi import (
    HistoryRow,
    ImportIntent,
    ImportMode,
    ImportOperation,
    OperationState,
    RunningOperation,
    Verdict,
)
from pipelinehost_dataverse.webapi.reconcile import ImportJob, Seen, decide

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
"""When the intent was made, by the environment's clock."""
QUIET = timedelta(minutes=10)
OURS, THEIRS = "user-ours", "user-theirs"
V1, V2, V3 = (Version.parse(v) for v in ("1.0", "2.0", "3.0"))

INTENT = ImportIntent(
    import_job_id="job-ours",
    solution="Sales",
    version=V2,
    mode=ImportMode.UPGRADE,
    user_id=OURS,
    environment_time=NOW,
    installed_version=V1,
    known_history_ids=("row-old", "row-older"),
    known_job_ids=("job-old",),
)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


JOB = ImportJob("job-new", "Sales", V2, OURS, at(2), None)
ROW = HistoryRow(
    id="row-new",
    solution="Sales",
    version="2.0.0.0",
    operation=0,
    suboperation=2,
    completed=False,
    succeeded=None,
    code="",
    message="",
    user_id="",
    started_on=at(2),
    ended_on=None,
)
RUNS = RunningOperation(
    "op-1",
    "StageAndUpgradeAsync",
    OperationState.RUNNING,
    imports=True,
    user_id=OURS,
    created_on=at(1),
    completed_on=None,
)
ENDED = replace(RUNS, state=OperationState.FAILED, completed_on=at(300))
NOTHING = Seen(asked_at=at(60), own_job=None, jobs=(), history=(), operations=(), installed_version=V1)

FOUND, UNDECIDED, NOT_RECEIVED = Verdict.FOUND, Verdict.UNDECIDED, Verdict.NOT_RECEIVED
SOON, PERSON = timedelta(seconds=30), None

CASES: dict[str, tuple[dict[str, object], Verdict, object]] = {
    # what was seen -> verdict, then the operation found or when to look again
    "our job": ({"own_job": replace(JOB, id="job-ours")}, FOUND, ("job-ours", "")),
    "our job at work": (
        {"own_job": replace(JOB, id="job-ours"), "operations": (RUNS,)},
        FOUND,
        ("job-ours", "op-1"),
    ),
    "our job beside others": (
        {"own_job": replace(JOB, id="job-ours"), "jobs": (JOB, replace(JOB, id="x", user_id=THEIRS))},
        FOUND,
        ("job-ours", ""),
    ),
    "our job beside another's operation": (
        {"own_job": JOB, "operations": (replace(RUNS, user_id=THEIRS),)},
        FOUND,
        ("job-new", ""),
    ),
    "the only new job is ours": ({"jobs": (JOB,)}, FOUND, ("job-new", "")),
    "its name in another letter case": ({"jobs": (replace(JOB, solution="SALES"),)}, FOUND, ("job-new", "")),
    "its version written otherwise": (
        {"jobs": (replace(JOB, version=Version.parse("2.0.0.0")),)},
        FOUND,
        ("job-new", ""),
    ),
    "the new job beside known ones": (
        {"jobs": (replace(JOB, id="job-old"), JOB, replace(JOB, id="x", version=V3))},
        FOUND,
        ("job-new", ""),
    ),
    "two new jobs": ({"jobs": (JOB, replace(JOB, id="x"))}, UNDECIDED, PERSON),
    "our job and another's of the same version": (
        {"jobs": (JOB, replace(JOB, id="x", user_id=THEIRS))},
        UNDECIDED,
        PERSON,
    ),
    "another user's job": ({"jobs": (replace(JOB, user_id=THEIRS),)}, UNDECIDED, PERSON),
    "a job of nobody": ({"jobs": (replace(JOB, user_id=""),)}, UNDECIDED, PERSON),
    "a job that does not tell its version": ({"jobs": (replace(JOB, version=None),)}, UNDECIDED, PERSON),
    "the same, still at work": (
        {"jobs": (replace(JOB, version=None),), "operations": (RUNS,)},
        UNDECIDED,
        SOON,
    ),
    "the same, with the history's version": (
        {"jobs": (replace(JOB, version=None),), "history": (ROW,), "operations": (RUNS,)},
        FOUND,
        ("job-new", "op-1"),
    ),
    "the same, with a history of another version": (
        {"jobs": (replace(JOB, version=None),), "history": (replace(ROW, version="3.0"),)},
        UNDECIDED,
        PERSON,
    ),
    "a history row and our only import": ({"history": (ROW,), "operations": (RUNS,)}, FOUND, ("", "op-1")),
    "a finished row and our only import": (
        {"history": (replace(ROW, completed=True, succeeded=False),), "operations": (ENDED,)},
        FOUND,
        ("", "op-1"),
    ),
    "a history row alone": ({"history": (ROW,)}, UNDECIDED, PERSON),
    "a history row of another user": (
        {"history": (replace(ROW, user_id=THEIRS),), "operations": (RUNS,)},
        UNDECIDED,
        SOON,
    ),
    "a history row and another's import": (
        {"history": (ROW,), "operations": (replace(RUNS, user_id=THEIRS),)},
        UNDECIDED,
        SOON,
    ),
    "a history row and two imports": (
        {"history": (ROW,), "operations": (RUNS, replace(ENDED, id="op-2", user_id=THEIRS))},
        UNDECIDED,
        SOON,
    ),
    "a history row and our only import, after another one of the same second": (
        {"history": (replace(ROW, id="row-old", started_on=NOW), ROW), "operations": (RUNS,)},
        FOUND,
        ("", "op-1"),
    ),
    "two history rows": ({"history": (ROW, replace(ROW, id="x")), "operations": (RUNS,)}, UNDECIDED, SOON),
    "something of another kind runs": (
        {"operations": (replace(RUNS, name="PublishAll", imports=False, user_id=THEIRS),)},
        UNDECIDED,
        SOON,
    ),
    "our import runs, without a job yet": ({"operations": (RUNS,)}, UNDECIDED, SOON),
    "the version is there, without a trace": ({"installed_version": V2}, UNDECIDED, PERSON),
    "another version is there": ({"installed_version": V3}, UNDECIDED, PERSON),
    "the solution is gone": ({"installed_version": None}, UNDECIDED, PERSON),
    "nothing": ({}, UNDECIDED, QUIET),
}
IGNORED: dict[str, dict[str, object]] = {
    "a known job": {"jobs": (replace(JOB, id="job-old"),)},
    "a job of another solution": {"jobs": (replace(JOB, solution="Service"),)},
    "a job of another version": {"jobs": (replace(JOB, version=V3),)},
    "a job from before": {"jobs": (replace(JOB, started_on=at(-3600)),)},
    "a known history row": {"history": (replace(ROW, id="row-old"),)},
    "all known history rows, of the same moment": {
        "history": (replace(ROW, id="row-old", started_on=NOW), replace(ROW, id="row-older", started_on=NOW))
    },
    "a history row from before": {"history": (replace(ROW, started_on=at(-3600)),)},
    "a history row of another version": {"history": (replace(ROW, version="3.0"),)},
    "a history row without a version": {"history": (replace(ROW, version="?"),)},
    "a history row of another solution": {"history": (replace(ROW, solution="Service"),)},
    "the history of an uninstallation": {"history": (replace(ROW, operation=1),)},
}


@pytest.mark.parametrize("case", CASES)
def test_what_one_look_tells(case: str) -> None:
    changes, verdict, more = CASES[case]
    found = decide(INTENT, replace(NOTHING, **changes), None, QUIET)  # type: ignore[arg-type]  # the table is loose
    assert found.verdict is verdict
    if verdict is FOUND:
        assert isinstance(more, tuple)
        assert found.operation == ImportOperation(*more)
        assert found.look_again_in is None
    else:
        assert found.operation is None
        assert found.look_again_in == more
    assert found.evidence
    assert (found.nothing_since is not None) is (case == "nothing")


@pytest.mark.parametrize("case", IGNORED)
def test_what_is_no_trace_of_our_import(case: str) -> None:
    seen = replace(NOTHING, **IGNORED[case])  # type: ignore[arg-type]  # the table is loose
    found = decide(INTENT, seen, None, QUIET)
    assert (found.verdict, found.look_again_in, found.nothing_since) == (UNDECIDED, QUIET, at(60))
    later = replace(seen, asked_at=at(60) + QUIET)
    assert decide(INTENT, later, found.nothing_since, QUIET).verdict is NOT_RECEIVED


def test_nothing_is_posted_again_before_the_quiet_period_is_over() -> None:
    since: datetime | None = None
    for seconds in range(60, 659, 13):
        found = decide(INTENT, replace(NOTHING, asked_at=at(seconds)), since, QUIET)
        assert found.verdict is UNDECIDED
        assert found.look_again_in == QUIET - timedelta(seconds=seconds - 60)
        since = found.nothing_since
    found = decide(INTENT, replace(NOTHING, asked_at=at(660)), since, QUIET)
    assert (found.verdict, found.nothing_since) == (NOT_RECEIVED, at(60))


def test_one_look_is_never_enough() -> None:
    late = replace(NOTHING, asked_at=at(86_400))
    assert decide(INTENT, late, None, QUIET).verdict is UNDECIDED


def test_an_operation_starts_the_quiet_period_anew() -> None:
    seen = replace(NOTHING, operations=(ENDED,))
    found = decide(INTENT, replace(seen, asked_at=at(700)), at(60), QUIET)
    assert (found.verdict, found.nothing_since, found.look_again_in) == (
        UNDECIDED,
        at(300),
        timedelta(seconds=200),
    )
    assert decide(INTENT, replace(seen, asked_at=at(900)), at(300), QUIET).verdict is NOT_RECEIVED
    running = replace(NOTHING, operations=(RUNS,), asked_at=at(9000))
    assert decide(INTENT, running, at(60), QUIET).nothing_since is None


def test_an_end_in_the_future_does_not_shorten_the_wait() -> None:
    seen = replace(NOTHING, operations=(replace(ENDED, completed_on=at(99_999)),))
    found = decide(INTENT, seen, at(0), QUIET)
    assert (found.verdict, found.nothing_since, found.look_again_in) == (UNDECIDED, at(60), QUIET)


def test_a_first_import_has_no_history_to_be_newer_than() -> None:
    intent = replace(INTENT, installed_version=None, known_history_ids=(), known_job_ids=())
    seen = replace(NOTHING, history=(ROW,), operations=(RUNS,), installed_version=None)
    assert decide(intent, seen, None, QUIET).verdict is FOUND
    nothing = replace(NOTHING, installed_version=None, asked_at=at(700))
    assert decide(intent, nothing, at(60), QUIET).verdict is NOT_RECEIVED


def test_evidence_is_for_people_and_safe_to_print() -> None:
    hostile = replace(RUNS, name="Import\x1b[31m\nlog: forged", user_id="")
    found = decide(
        INTENT, replace(NOTHING, operations=(hostile,), jobs=(JOB, replace(JOB, id="x"))), None, QUIET
    )
    assert all(line.isprintable() for line in found.evidence)
    assert any("job-new" in line and "user-ours" in line for line in found.evidence)
    assert any("op-1 is running" in line for line in found.evidence)
