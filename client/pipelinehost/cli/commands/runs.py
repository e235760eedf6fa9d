"""``run …``, and how any command follows the run that it started."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import click

from pipelinehost import errors, names
from pipelinehost.cli import console, progress
from pipelinehost.cli.commands import options
from pipelinehost.cli.commands.session import Group, Session, pass_session
from pipelinehost.cli.console import Column, ago, clean, details, enum_word, err, moment, out, show, state
from pipelinehost.cli.failure import NOT_FINISHED, OK, RUN_FAILED
from pipelinehost.client import FINISHED, Client
from pipelinehost.v1.resources_pb2 import Run


@click.group("run", cls=Group)
def run_group() -> None:
    """Runs: deployments of an artifact to a stage."""


def _where(run_: Run) -> str:
    if run_.stage:
        return f"{names.slug(run_.pipeline)}/{names.slug(run_.stage)}"
    return f"{names.slug(run_.target_environment)} (restore)"


RUNS: list[Column[Run]] = [
    Column("RUN", lambda r: names.slug(r.name)),
    Column("STATE", lambda r: state(enum_word(r, "state"))),
    Column("SOLUTION", lambda r: r.solution),
    Column("VERSION", lambda r: r.version),
    Column("STAGE", _where),
    Column("REQUESTER", lambda r: r.requester),
    Column("CREATED", lambda r: moment(r.create_time), lambda r: ago(r.create_time)),
]
_STATES = [
    name.removeprefix("STATE_").lower()
    for name in dict(Run.State.items())
    if not name.endswith("UNSPECIFIED")
]


@run_group.command("list")
@click.option("-p", "--pipeline", help="Only of this pipeline.")
@click.option("--solution", help="Only of this solution.")
@click.option("-e", "--environment", help="Only to this environment.")
@click.option(
    "--state", "wanted", type=click.Choice(_STATES, case_sensitive=False), help="Only in this state."
)
@options.filtered
@options.limit(30)
@options.listed
@pass_session
def run_list(
    session: Session,
    pipeline: str | None,
    solution: str | None,
    environment: str | None,
    wanted: str | None,
    expression: str,
    limit: int,
    form: str,
) -> None:
    """List runs, newest first.

    Examples:
      pipelinehost run list -p sales
      pipelinehost run list --state failed -n 5
      pipelinehost run list --filter 'create_time >= "2026-01-31T00:00:00Z"' -o json
    """
    client = session.client
    text = options.filter_text(
        expression,
        state=wanted.upper() if wanted else None,
        pipeline=client.pipeline(pipeline).name if pipeline else None,
        solution=solution,
        target_environment=client.environment(environment).name if environment else None,
    )
    runs = islice(client.runs(text, page_size=min(limit, 200)), limit)
    show(runs, form, RUNS, nothing="There are no such runs.")


@run_group.command("show")
@click.argument("name", metavar="RUN")
@options.single
@pass_session
def run_show(session: Session, name: str, form: str) -> None:
    """Show a run and its steps."""
    client = session.client
    found = client.run(name)
    if form != "table":
        show([found], form, [], one=True)
        return
    details(
        [
            ("run", found.name),
            ("state", state(enum_word(found, "state"))),
            ("solution", f"{found.solution} {found.version}".strip()),
            ("artifact", found.artifact),
            ("from", names.slug(found.source_environment)),
            ("to", f"{_where(found)}, environment {names.slug(found.target_environment)}"),
            ("before", found.previous_version),
            ("loses", f"{found.loss_sha256} (`run findings` says what)" if found.loss_sha256 else ""),
            ("requester", found.requester),
            ("deployed as", found.deployed_as),
            ("note", found.note),
            ("not before", moment(found.schedule_time)),
            ("waits", progress.wait(found)),
            ("through freezes", found.override_reason),
            ("attempt", str(found.attempt) if found.attempt > 1 else ""),
            ("created", moment(found.create_time)),
            ("finished", moment(found.end_time)),
            ("errors", str(found.error_count) if found.error_count else ""),
            ("warnings", str(found.warning_count) if found.warning_count else ""),
        ]
    )
    writer = out()
    writer.print()
    steps: list[Column[Any]] = [
        Column("STEP", lambda s: enum_word(s, "kind").lower()),
        Column("STATE", lambda s: state(enum_word(s, "state"))),
        Column("TOOK", _took),
        Column("DETAIL", lambda s: s.detail),
    ]
    console.table(writer, steps, list(found.steps))
    if found.gates:
        writer.print()
        gates: list[Column[Any]] = [
            Column("GATE", lambda g: enum_word(g, "kind").lower()),
            Column("STATE", lambda g: state(enum_word(g, "state"))),
            Column("DECISIONS", _decisions),
            Column("EXPIRES", lambda g: moment(g.expire_time)),
        ]
        if any(g.gate.webhook for g in found.gates):
            gates.append(Column("WEBHOOK", _delivery))
        console.table(writer, gates, list(found.gates))
    if found.state != Run.STATE_SUCCEEDED:
        _verdict(client, found)


def _verdict(client: Client, run_: Run) -> None:
    me: set[str] = set()
    if run_.state == Run.STATE_AWAITING_GATE:
        told = client.host()
        me = {told.caller, *told.groups}
    progress.verdict(run_, err(), me)


def _decisions(gate: Any) -> str:
    told = [
        f"{'yes' if d.approved else 'no'} {d.principal}{f': {d.comment}' if d.comment else ''}"
        for d in gate.decisions
    ]
    return "; ".join([*told, f"{sum(d.approved for d in gate.decisions)} of {gate.gate.required or 1}"])


def _delivery(gate: Any) -> str:
    told = gate.delivery
    if not gate.gate.webhook:
        return ""
    if told.HasField("deliver_time"):
        return f"told {moment(told.deliver_time)}"
    if told.error:
        return f"{told.error} ({told.attempts} attempt{'s' if told.attempts > 1 else ''})"
    return "not told yet"


def _took(step: Any) -> str:
    if not (step.HasField("start_time") and step.HasField("end_time")):
        return ""
    nanos = step.end_time.ToNanoseconds() - step.start_time.ToNanoseconds()
    return console.duration(max(nanos / 1e9, 0))


@run_group.command("watch")
@click.argument("name", metavar="RUN")
@options.timeout
@options.single
@pass_session
def run_watch(session: Session, name: str, timeout: float | None, form: str) -> int:
    """Follow a run to its end. Ctrl-C leaves it; the run goes on."""
    client = session.client
    return follow(client, client.run(name), form, wait=True, timeout=timeout)


@run_group.command("cancel")
@click.argument("name", metavar="RUN")
@click.option("--reason", default="", help="Text for the record.")
@options.single
@pass_session
def run_cancel(session: Session, name: str, reason: str, form: str) -> None:
    """Cancel a run: at once until its import is sent, afterwards if its environment still can."""
    cancelled = session.client.cancel(name, reason=reason)
    if cancelled.state == Run.STATE_CANCELLING:
        err().print("Its import was sent already; the environment decides whether this comes in time.")
        err().print(f"  Next: {console.program()} run watch {names.slug(cancelled.name)}")
    result(cancelled, form)


@run_group.command("reschedule")
@click.argument("name", metavar="RUN")
@options.at
@click.option("--now", is_flag=True, help="As soon as possible.")
@options.override
@options.single
@pass_session
def run_reschedule(
    session: Session, name: str, at: datetime | None, now: bool, override_reason: str, form: str
) -> None:
    """Give a run another time, as long as its import was not sent.

    Examples:
      pipelinehost run reschedule 01jd0000000000000000000001 --at 2026-12-27T06:00+01:00
      pipelinehost run reschedule 01jd0000000000000000000001 --now --override-reason "a hotfix"
    """
    if (at is None) is not now:
        raise click.UsageError("Say either --at TIME or --now.")
    changed = session.client.reschedule(name, at, override_reason=override_reason)
    if at is not None:
        err().print(options.scheduled(at))
    if changed.state == Run.STATE_SCHEDULED:
        progress.verdict(changed, err())
    result(changed, form)


@run_group.command("approve")
@click.argument("name", metavar="RUN")
@click.option("--comment", default="", help="For the maker.")
@click.option("--note", default="", help="For administrators only.")
@options.single
@pass_session
def run_approve(session: Session, name: str, comment: str, note: str, form: str) -> None:
    """Say yes at the gate that a run waits at.

    Nothing is approved that changes while you type: look at the run first with `run show`.
    """
    client = session.client
    result(client.approve(client.run(name), comment=comment, note=note), form)


@run_group.command("reject")
@click.argument("name", metavar="RUN")
@click.option("--comment", required=True, help="For the maker: why.")
@click.option("--note", default="", help="For administrators only.")
@options.single
@pass_session
def run_reject(session: Session, name: str, comment: str, note: str, form: str) -> None:
    """Say no at the gate that a run waits at; the run ends."""
    result(session.client.reject(name, comment=comment, note=note), form)


@run_group.command("notes")
@click.argument("name", metavar="RUN")
@options.output("table", "json", "jsonl")
@pass_session
def run_notes(session: Session, name: str, form: str) -> None:
    """Show what approvers told the administrators; for these only."""
    columns: list[Column[Any]] = [
        Column("WHEN", lambda n: moment(n.time)),
        Column("GATE", lambda n: enum_word(n, "kind").lower()),
        Column("APPROVER", lambda n: n.principal),
        Column("NOTE", lambda n: n.note),
    ]
    show(session.client.gate_notes(name), form, columns, nothing="There are no notes.")


@run_group.command("retry")
@click.argument("name", metavar="RUN")
@options.wait
@options.timeout
@options.single
@pass_session
def run_retry(session: Session, name: str, wait: bool, timeout: float | None, form: str) -> int:
    """Let a failed run go on from the step that failed.

    It keeps its time if that still lies ahead.
    """
    client = session.client
    retried = client.retry(name)
    if retried.HasField("schedule_time") and retried.schedule_time.ToDatetime(UTC) > console.now():
        again = f"{console.program()} run reschedule {names.slug(retried.name)} --now"
        err().print(f"It keeps its time and waits until {moment(retried.schedule_time)}.")
        err().print(f"  To go on now: {again}")
    return follow(client, retried, form, wait=wait, timeout=timeout)


@run_group.command("resolve")
@click.argument("name", metavar="RUN")
@click.option(
    "--applied/--not-applied", required=True, default=None, help="What you found in the environment."
)
@click.option("--reason", required=True, help="How you know; for the record.")
@options.single
@pass_session
def run_resolve(session: Session, name: str, applied: bool, reason: str, form: str) -> None:
    """Say what became of an import that the host could not decide about.

    Examples:
      pipelinehost run resolve 01jd… --applied --reason "version 1.2.0.0 is installed"
      pipelinehost run resolve 01jd… --not-applied --reason "no import in the history"
    """
    resolved = session.client.resolve(name, applied=applied, reason=reason)
    err().print(f"  Next: {console.program()} run watch {names.slug(resolved.name)}")
    result(resolved, form)


@run_group.command("findings")
@click.argument("name", metavar="RUN")
@options.output("table", "json", "jsonl")
@pass_session
def run_findings(session: Session, name: str, form: str) -> None:
    """Show what validation and the import found, with causes and remedies."""
    found = session.client.findings(name)
    if form != "table":
        show(found, form, [])
        return
    writer = out()
    count = 0
    for count, item in enumerate(found, 1):  # noqa: B007 - counted for afterwards
        writer.print(progress.finding(item, writer))
    if not count:
        err().print("Nothing was found.")


def follow(client: Client, run_: Run, form: str, *, wait: bool, timeout: float | None = None) -> int:
    """Shows a run to its end, or leaves it; writes it to stdout."""
    shown = err()
    if not wait:
        shown.print(f"  Next: {console.program()} run watch {names.slug(run_.name)}")
        result(run_, form)
        return OK
    try:
        last = _watched(client, run_, timeout)
    except KeyboardInterrupt:
        shown.print("Left it. The run goes on by itself.")
        shown.print(f"  Next: {console.program()} run watch {names.slug(run_.name)}")
        return NOT_FINISHED
    except errors.DeadlineExceeded:
        last = client.run(run_.name)
    _verdict(client, last)
    result(last, form)
    if last.state == Run.STATE_SUCCEEDED:
        return OK
    return RUN_FAILED if last.state in FINISHED else NOT_FINISHED


def _watched(client: Client, run_: Run, timeout: float | None) -> Run:
    with (
        progress.view_of(run_) as view,
        closing(client.watch(run_.name, timeout=timeout, on_interruption=view.lost)) as updates,
    ):
        for response in updates:
            view.take(response)
            if response.HasField("run"):
                run_ = response.run
            # Nothing more happens to it until a person decides.
            undecided = response.event.run.to if response.HasField("event") else run_.state
            if undecided == Run.STATE_UNKNOWN:
                return client.run(run_.name)
    return run_


def result(run_: Run, form: str) -> None:
    """Writes a run to stdout."""
    if form == "table":
        out().print(f"{clean(run_.name)} {enum_word(run_, 'state')}")
    else:
        show([run_], form, [], one=True)
