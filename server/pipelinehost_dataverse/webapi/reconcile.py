"""What became of an import whose answer was lost: the decision alone, over what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pipelinehost_dataverse.solution.model import Version
from pipelinehost_dataverse.webapi.errors import plain
from pipelinehost_dataverse.webapi.model import (
    HistoryRow,
    ImportIntent,
    ImportOperation,
    OperationState,
    Reconciled,
    RunningOperation,
    Verdict,
)

SLACK = timedelta(minutes=1)
"""How far an environment's clocks may disagree among themselves."""
SOON = timedelta(seconds=30)
"""When to look again while something runs."""
IMPORT = 0
"""``msdyn_operation`` of an import."""


@dataclass(frozen=True, slots=True)
class ImportJob:
    """A row of ``importjobs``, with the version that its log tells."""

    id: str
    solution: str
    version: Version | None
    user_id: str
    started_on: datetime | None
    completed_on: datetime | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at the environment showed."""

    asked_at: datetime
    """The environment's clock."""
    own_job: ImportJob | None
    """The job under the id that we chose."""
    jobs: tuple[ImportJob, ...]
    """Of this solution."""
    history: tuple[HistoryRow, ...]
    """Of this solution."""
    operations: tuple[RunningOperation, ...]
    """Solution operations of the environment that run, or were created since the intent."""
    installed_version: Version | None


def decide(intent: ImportIntent, seen: Seen, nothing_since: datetime | None, quiet: timedelta) -> Reconciled:
    """Judge what was seen; see ``WebApi.reconcile``.

    Ours is the job with our id. Otherwise it is a job, or failing any job a history row, that is newer than
    the intent, of the same solution and version, by our user, and the only one of its kind. A history row
    does not tell its user everywhere: then it is ours where the only import since was started by us.
    """
    since = intent.environment_time - SLACK
    running = [o for o in seen.operations if o.state is OperationState.RUNNING]
    imports = [o for o in seen.operations if o.imports and (o.created_on is None or o.created_on >= since)]
    our_imports = [o for o in imports if o.user_id == intent.user_id]
    jobs = [j for j in seen.jobs if _new_job(j, intent, since) and j.version in {None, intent.version}]
    rows = [r for r in seen.history if _new_row(r, intent, since)]
    evidence = _evidence(seen, jobs, rows, running)

    def undecided(look_again_in: timedelta | None, quiet_from: datetime | None = None) -> Reconciled:
        return Reconciled(Verdict.UNDECIDED, None, seen.asked_at, quiet_from, look_again_in, evidence)

    def found(job_id: str) -> Reconciled:
        operation = ImportOperation(job_id, our_imports[0].id if len(our_imports) == 1 else "")
        return Reconciled(Verdict.FOUND, operation, seen.asked_at, None, None, evidence)

    again = SOON if running else None
    if seen.own_job is not None:
        return found(seen.own_job.id)
    if len(jobs) == 1 and jobs[0].user_id == intent.user_id and (jobs[0].version or len(rows) == 1):
        return found(jobs[0].id)  # while its log does not tell the version, the one new history row does
    if jobs:  # several, another user's, or of a version that nothing tells (yet)
        return undecided(again)
    if rows:
        alone = len(rows) == 1 and len(imports) == 1 and len(our_imports) == 1
        return found("") if alone and rows[0].user_id in {"", intent.user_id} else undecided(again)
    if running:
        return undecided(SOON)
    if seen.installed_version != intent.installed_version:
        return undecided(None)  # somebody installed something, and left no trace that says who
    ends = [o.completed_on for o in seen.operations if o.completed_on is not None]
    quiet_from = min(seen.asked_at, max([nothing_since or seen.asked_at, *ends]))
    left = quiet - (seen.asked_at - quiet_from)
    if left > timedelta(0):
        return undecided(left, quiet_from)
    return Reconciled(Verdict.NOT_RECEIVED, None, seen.asked_at, quiet_from, None, evidence)


def _new_job(job: ImportJob, intent: ImportIntent, since: datetime) -> bool:
    return (
        job.solution.casefold() == intent.solution.casefold()
        and job.id not in intent.known_job_ids
        and (job.started_on is None or job.started_on >= since)
    )


def _new_row(row: HistoryRow, intent: ImportIntent, since: datetime) -> bool:
    try:
        version = Version.parse(row.version)
    except ValueError:
        return False
    return (
        row.operation == IMPORT
        and row.solution.casefold() == intent.solution.casefold()
        and version == intent.version
        and row.id not in intent.known_history_ids
        and (row.started_on is None or row.started_on >= since)
    )


def _evidence(
    seen: Seen, jobs: list[ImportJob], rows: list[HistoryRow], running: list[RunningOperation]
) -> tuple[str, ...]:
    lines = [f"installed version: {seen.installed_version or 'none'}"]
    if seen.own_job is not None:
        lines.append(f"import job {seen.own_job.id} is ours")
    lines += [
        f"import job {j.id}: version {j.version or 'not told'}, by user {j.user_id or 'not told'}, "
        f"started {j.started_on or 'not told'}, completed {j.completed_on or 'not yet'}"
        for j in jobs
    ]
    lines += [
        f"history row {r.id}: version {r.version}, started {r.started_on or 'not told'}, "
        + ("not completed" if not r.completed else "succeeded" if r.succeeded else f"failed {r.code}")
        for r in rows
    ]
    lines += [f"operation {o.id} is running: {o.name}, by user {o.user_id or 'not told'}" for o in running]
    if not jobs and not rows and seen.own_job is None:
        lines.append(
            "no import job and no history row of this solution and version since the import was posted"
        )
    return tuple(plain(line, 500) for line in lines)
