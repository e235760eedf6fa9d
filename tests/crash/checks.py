"""What must hold after the storm, told from files, the Web API and the record; nothing of the host is asked.

The rules are written out here a second time on purpose: a check that borrows them from the host passes when
the host is wrong.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from tests.crash.record import Record

from pipelinehost.v1.resources_pb2 import Event, Finding, Run, Step

FINISHED = (
    Run.STATE_SUCCEEDED,
    Run.STATE_FAILED,
    Run.STATE_REJECTED,
    Run.STATE_EXPIRED,
    Run.STATE_CANCELLED,
)
UNFINISHED = " AND ".join(f"state != {Run.State.Name(s).removeprefix('STATE_')}" for s in FINISHED)
"""A filter of runs."""
_QUEUED, _VALIDATING, _WAITING = Run.STATE_QUEUED, Run.STATE_VALIDATING, Run.STATE_WAITING_FOR_TARGET
_ASKED, _SCHEDULED = Run.STATE_AWAITING_GATE, Run.STATE_SCHEDULED
_DEPLOYING, _UNKNOWN = Run.STATE_DEPLOYING, Run.STATE_UNKNOWN
_CANCELLING, _CANCELLED = Run.STATE_CANCELLING, Run.STATE_CANCELLED
_ENDED = {Run.STATE_FAILED, _CANCELLED}
_MAY_FOLLOW = {
    _QUEUED: {_VALIDATING, _ASKED, _SCHEDULED, _WAITING, _DEPLOYING, *_ENDED},
    _VALIDATING: {_QUEUED, _ASKED, _SCHEDULED, _WAITING, _DEPLOYING, *_ENDED},
    _ASKED: {_QUEUED, _SCHEDULED, Run.STATE_REJECTED, Run.STATE_EXPIRED, *_ENDED},
    _SCHEDULED: {_QUEUED, _ASKED, *_ENDED},
    _WAITING: {_ASKED, _SCHEDULED, _DEPLOYING, *_ENDED},
    _DEPLOYING: {_QUEUED, _ASKED, _SCHEDULED, _UNKNOWN, _CANCELLING, Run.STATE_SUCCEEDED, *_ENDED},
    _CANCELLING: {_DEPLOYING, _UNKNOWN, *_ENDED},
    _UNKNOWN: {_DEPLOYING, _CANCELLING, *_ENDED},
    Run.STATE_FAILED: {_QUEUED},
}
_LASTING = {"admin-token", "key", "lock", "pipelinehost.db", "pipelinehost.db-shm", "pipelinehost.db-wal"}


def integrity(database: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with a file."""
    try:
        found = [row[0] for row in database.execute("PRAGMA integrity_check")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [] if found == ["ok"] else found


def runs(database: sqlite3.Connection, where: str = "1") -> list[Run]:
    """Runs as the store has them."""
    return [Run.FromString(body(row[0])) for row in database.execute(f"SELECT frame FROM run WHERE {where}")]


def leftovers(data: Path) -> Iterator[str]:
    """Files in a running host's data folder that nobody will ever use."""
    for path in data.rglob("*"):
        if not path.is_file():
            continue
        relative = path.relative_to(data)
        known = (
            (relative.parts[0] in _LASTING and len(relative.parts) == 1)
            or (relative.parts[0] == "environments" and ".sqlite" in relative.name)
            or (
                relative.parts[0] == "blobs"
                and len(relative.parts) == 3
                and relative.name[:2] == relative.parts[1]
            )
        )
        if not known:
            yield f"{relative} was left behind"


def imports(
    record: Record, found: Mapping[str, Run], urls: Mapping[str, str], *, one_clock: bool = True
) -> int:
    """Hold the environments' history and import jobs against the runs; gives how many imports there were.

    Args:
        record: told what must not be.
        found: all runs by name.
        urls: of all environments, by name.
        one_clock: whether host and environments had the same clock all the time.
    """
    wanted: Counter[tuple[str, str, str]] = Counter(
        (run.target_environment, run.solution, run.version)
        for run in found.values()
        if run.state == Run.STATE_SUCCEEDED
    )
    ended: dict[tuple[str, str, str], datetime] = {}
    for run in found.values() if one_clock else ():
        key = (run.target_environment, run.solution, run.version)
        ended[key] = max(run.end_time.ToDatetime(UTC), ended.get(key, datetime.min.replace(tzinfo=UTC)))
    cancelled = {
        (run.target_environment, run.solution, run.version)
        for run in found.values()
        if run.state == _CANCELLED
    }
    seen: Counter[tuple[str, str, str]] = Counter()
    for environment, url in urls.items():
        rows = _rows(f"{url}/api/data/v9.2/msdyn_solutionhistories")
        for row in rows:
            what = f"{row['msdyn_name']} {row['msdyn_solutionversion']}"
            key = (environment, row["msdyn_name"], row["msdyn_solutionversion"])
            if (row["msdyn_operation"], row["msdyn_status"]) != (0, 1):
                record.violated(f"{environment}: {what} is not in the history as an import that ended: {row}")
            if row["msdyn_result"]:
                seen[key] += 1
            elif key not in cancelled:
                record.violated(f"{environment}: the import of {what} failed, and nobody cancelled it: {row}")
            # One row stands for one operation, so the same operation carried out anew adds none.
            if key in ended and datetime.fromisoformat(row["msdyn_endtime"]) > ended[key]:
                record.violated(
                    f"{environment}: {what} was imported until {row['msdyn_endtime']}, after its run's end"
                )
        jobs = Counter(
            job["solutionname"]
            for job in _rows(f"{url}/api/data/v9.2/importjobs?$select=solutionname,completedon")
        )
        # Cancelled before its package was read, an import has a job without a name, and no history.
        if jobs.pop(None, 0) > sum(key[0] == environment for key in cancelled):
            record.violated(f"{environment}: more nameless import jobs than cancelled runs")
        if jobs != Counter(row["msdyn_name"] for row in rows):
            record.violated(
                f"{environment}: import jobs {dict(jobs)} and history differ; {len(rows)} rows in the history"
            )
        running = [op["name"] for op in _rows(f"{url}/api/data/v9.2/asyncoperations") if op["statecode"] != 3]
        if running:
            record.violated(f"{environment}: still at work on {running}")
    for key in sorted(wanted | seen):
        if wanted[key] != seen[key]:
            what = "applied more often than asked" if seen[key] > wanted[key] else "lost"
            record.violated(
                f"import of {' '.join(key[1:])} into {key[0]} was {what}: "
                f"{seen[key]} in the history, {wanted[key]} succeeded"
            )
    return sum(seen.values())


def store(record: Record, told: Mapping[str, Run], database: sqlite3.Connection) -> dict[str, object]:
    """Hold the host's store against the record, and its parts against each other."""
    for problem in integrity(database):
        record.violated(f"the store: {problem}")
    events = _events(record, database)
    of_run: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        of_run[event.subject].append(event)
    kept = {run.name: run for run in runs(database)}
    for name in record.asked.keys() - kept.keys():
        record.violated(f"{name} was acknowledged and is lost")
    for name in kept.keys() - record.asked.keys():
        record.violated(
            f"{name} was never acknowledged, though its request was repeated until it was answered"
        )
    if kept != told:
        record.violated("the store holds other runs than the host lists")
    for name, run in kept.items():
        _run(record, run, of_run[name], database)
    _watches(record, of_run)
    for name, held, waiting in database.execute(
        "SELECT name, held_environment, waiting FROM run"
        " WHERE held_environment IS NOT NULL OR waiting IS NOT NULL"
    ):
        record.violated(f"{name} still has {held} or waits for it ({waiting})")
    states = Counter(Run.State.Name(run.state).removeprefix("STATE_") for run in kept.values())
    return {
        "runs": len(kept),
        "runs in embedded environments": sum("/inside-" in r.target_environment for r in kept.values()),
        "states": dict(states),
        **{
            f"runs that were {words} for a time": sum(
                any(e.run.to == state for e in of_run[name] if e.HasField("run")) for name in kept
            )
            for state, words in (
                (_UNKNOWN, "unknown"),
                (_CANCELLING, "being cancelled"),
                (_ASKED, "waiting at a gate"),
                (_SCHEDULED, "waiting for a time"),
            )
        },
        "events": len(events),
        "watches": len(record.watched),
        "interruptions of watches": sum(w.interruptions for w in record.watched),
        "watches over more than one restart": sum(w.interruptions > 1 for w in record.watched),
    }


def artifacts(record: Record, data: Path) -> None:
    """Every acknowledged upload, and every artifact's packages, are there byte for byte."""
    for name, content in record.uploads.items():
        digest = name.rpartition("/")[2]
        if hashlib.sha256(content).hexdigest() != digest:
            record.violated(f"{name} is not the digest of what was sent")
        elif not (data / "blobs" / digest[:2] / digest).is_file():
            record.violated(f"{name} was acknowledged, and its bytes are gone")
    for path in (data / "blobs").glob("??/*"):
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != path.name:
                record.violated(f"the bytes of {path.name} are damaged")


_CUT_OFF = "CancelledError: Task cancelled, timeout graceful shutdown exceeded"


def logs(record: Record, *folders: Path) -> None:
    """No program met a defect of its own."""
    for folder in folders:
        lines = (folder / "log").read_text("utf-8", "replace").splitlines()
        # Whoever stops a server in the middle of a request is told so with a traceback.
        cut_off = sum(line.endswith(_CUT_OFF) for line in lines if line.startswith("asyncio.exceptions."))
        bad = [line for line in lines if " ERROR " in line or "Traceback" in line or "incident" in line]
        if cut_off and len(bad) <= cut_off:
            bad = []
        record.violations += [f"log of {folder.name}: {line[:2_000]}" for line in bad[:5]]


def _events(record: Record, database: sqlite3.Connection) -> list[Event]:
    events = []
    before, expected = bytes(32), 1
    for sequence, subject, chained, frame in database.execute(
        "SELECT sequence, subject, hash, frame FROM event ORDER BY sequence"
    ):
        message = body(frame)
        event = Event.FromString(message)
        before = hashlib.sha256(before + message).digest()
        if (sequence, chained) != (expected, before):
            record.violated(f"the chain of events breaks at {sequence}; {expected} was due")
            before, expected = chained, sequence
        if (event.sequence, event.subject) != (sequence, subject):
            record.violated(f"event {sequence} says of itself that it is {event.sequence}, {event.subject}")
        events.append(event)
        expected += 1
    return events


def _run(record: Record, run: Run, events: Sequence[Event], database: sqlite3.Connection) -> None:
    """One run: its end, its events, and what its row says."""
    name = run.name

    def say(what: str) -> None:
        record.violated(f"{name} ({run.solution} {run.version} to {run.target_environment}): {what}")

    state = Run.State.Name(run.state).removeprefix("STATE_")
    end = f"{state} {run.error.code}".strip()
    asked = record.asked.get(name)
    if asked is not None and end not in asked.ends:
        say(f"ended {end} ({run.error.message}), and not {' or '.join(sorted(asked.ends))}")
    if asked is not None and run.attempt != asked.attempts:
        say(f"has {run.attempt} attempts, and {asked.attempts} were asked for")
    if events and events[0].kind == Event.KIND_FREEZE_OVERRIDDEN:  # the leave that the request came with
        events = events[1:]
    if not events or events[0].kind != Event.KIND_DEPLOYMENT_REQUESTED:
        say("has no event that says that it was asked for")
        return
    if run.revision != events[-1].sequence:
        say(f"has revision {run.revision}, and its newest event is {events[-1].sequence}")
    at = _QUEUED
    for event in events[1:]:
        if not event.HasField("run"):
            continue
        before, after = getattr(event.run, "from"), event.run.to
        if before != at or (after not in _MAY_FOLLOW.get(before, ()) and after != before):
            say(
                f"event {event.sequence} leads from {Run.State.Name(before)} to {Run.State.Name(after)}, "
                f"and it was {Run.State.Name(at)}"
            )
        at = after
    if at != run.state:
        say(f"is {state}, and its last event says {Run.State.Name(at)}")
    row = database.execute("SELECT state, end_time FROM run WHERE name = ?", (name,)).fetchone()
    if row != (run.state, run.end_time.ToNanoseconds()):
        say(f"has other columns than its message: {row}")
    done = (Step.STATE_SUCCEEDED, Step.STATE_SKIPPED)
    if run.state == Run.STATE_SUCCEEDED and any(step.state not in done for step in run.steps):
        say(f"succeeded with steps {[Step.State.Name(s.state) for s in run.steps]}")
    findings = [
        Finding.FromString(body(frame))
        for (frame,) in database.execute("SELECT frame FROM finding WHERE run = ?", (name,))
    ]
    errors = sum(f.severity == Finding.SEVERITY_ERROR for f in findings)
    warnings = sum(f.severity == Finding.SEVERITY_WARNING for f in findings)
    if (run.error_count, run.warning_count) != (errors, warnings):
        say(f"counts {run.error_count}/{run.warning_count} findings, and has {errors}/{warnings}")
    if any(f.code == "SETTING_NOT_APPLIED" for f in findings):
        say("its settings did not reach the target")
    secret = database.execute("SELECT 1 FROM secret WHERE name = ?", (f"{name}/settings",)).fetchone()
    if secret and run.state in FINISHED and run.state != Run.STATE_FAILED:
        say("the values of its settings are still there")


def _watches(record: Record, of_run: Mapping[str, Sequence[Event]]) -> None:
    """Every watch brought every event once and in order; percentages may be skipped, nothing else."""
    for watched in record.watched:
        due = [e for e in of_run[watched.run] if watched.after < e.sequence <= watched.upto]
        needed = [e.sequence for e in due if e.kind != Event.KIND_PROGRESS]
        percentages = {e.sequence for e in due} - set(needed)
        got = [s for s in watched.sequences if s not in percentages]
        if got != needed or watched.sequences != sorted(set(watched.sequences)):
            record.violated(
                f"a watch of {watched.run} brought {watched.sequences}, and the store has {needed} "
                f"and percentages {sorted(percentages)}"
            )


def _rows(url: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while url:
        answer = httpx.get(url, timeout=30)
        answer.raise_for_status()
        page = answer.json()
        rows += page["value"]
        url = page.get("@odata.nextLink", "")
    return rows


def body(frame: bytes) -> bytes:
    start = 1
    while frame[start] & 0x80:
        start += 1
    return frame[start + 1 :]
