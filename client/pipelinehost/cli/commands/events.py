"""``event …``."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import click
from google.protobuf.timestamp_pb2 import Timestamp

from pipelinehost import names
from pipelinehost.cli import record_file
from pipelinehost.cli.commands import options
from pipelinehost.cli.commands.session import Group, Session, pass_session
from pipelinehost.cli.console import (
    Column,
    clean,
    details,
    enum_word,
    err,
    moment,
    name_of,
    out,
    plain,
    program,
    show,
    to_json,
)
from pipelinehost.cli.failure import ERROR, NOT_FINISHED, OK, explain_text
from pipelinehost.client import Client
from pipelinehost.v1.pipeline_host_pb2 import VerifyEventsResponse
from pipelinehost.v1.resources_pb2 import Event, RecordHead

F = TypeVar("F", bound=Callable[..., Any])


@click.group("event", cls=Group)
def event_group() -> None:
    """Events: the host's record of who did what to what, and when."""


_KINDS = [
    name.removeprefix("KIND_").lower()
    for name in dict(Event.Kind.items())
    if not name.endswith("UNSPECIFIED")
]


def _what(event: Event) -> str:
    if event.HasField("run"):
        change = f"{enum_word(event.run, 'from')} to {enum_word(event.run, 'to')}"
        return f"{change}: {event.run.error.message}" if event.run.error.message else change
    if event.HasField("step"):
        return f"{enum_word(event.step, 'kind').lower()} {enum_word(event.step, 'state').lower()}"
    if event.HasField("finding"):
        return f"{event.finding.code}: {event.finding.cause}"
    if event.HasField("progress"):
        return f"{enum_word(event.progress, 'step').lower()} {event.progress.percent}%"
    return event.message


_EVENTS: list[Column[Event]] = [
    Column("SEQUENCE", lambda e: str(e.sequence)),
    Column("TIME", lambda e: moment(e.time)),
    Column("KIND", lambda e: enum_word(e, "kind").lower()),
    Column("ACTOR", lambda e: e.actor),
    Column("SUBJECT", lambda e: e.subject),
    Column("WHAT", _what),
]


def _principal(context: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None or value == "host" or "/" in value:
        return value
    return names.principal(value)


def _selected(command: F) -> F:
    """The options that select events."""
    for option in reversed(
        (
            click.option("--subject", help="Only about this resource, for example pipelines/sales."),
            click.option(
                "--kind", type=click.Choice(_KINDS, case_sensitive=False), help="Only of this kind."
            ),
            click.option("--actor", callback=_principal, help="Only of this person, or of the host."),
            options.filtered,
        )
    ):
        command = option(command)
    return command


@event_group.command("list")
@_selected
@options.limit(50)
@options.listed
@pass_session
def event_list(
    session: Session,
    subject: str | None,
    kind: str | None,
    actor: str | None,
    expression: str,
    limit: int,
    form: str,
) -> None:
    """List the newest events, the newest last.

    Examples:
      pipelinehost event list --subject runs/01jd…
      pipelinehost event list --kind pipeline_updated -n 5
    """
    text = options.filter_text(expression, subject=subject, kind=kind.upper() if kind else None, actor=actor)
    newest = session.client.events(text, order_by="sequence desc", page_size=min(limit, 200))
    show(reversed(list(islice(newest, limit))), form, _EVENTS, nothing="There are no such events.")


@event_group.command("watch")
@_selected
@click.option(
    "--from-beginning", is_flag=True, help="Begin with the oldest event, and not with what happens now."
)
@click.option("--resume-token", default="", metavar="TOKEN", help="Go on where an earlier watch was left.")
@options.output("table", "jsonl", "name")
@pass_session
def event_watch(
    session: Session,
    subject: str | None,
    kind: str | None,
    actor: str | None,
    expression: str,
    from_beginning: bool,
    resume_token: str,
    form: str,
) -> int:
    """Write events as they happen, until Ctrl-C.

    Administrators get all events, others those of the pipelines and runs that they may see. A lost connection
    or a restart of the host is bridged: no event is missing, and none comes twice.

    Examples:
      pipelinehost event watch
      pipelinehost event watch --kind run_state_changed -o jsonl
    """
    text = options.filter_text(expression, subject=subject, kind=kind.upper() if kind else None, actor=actor)
    token, console = resume_token, out()
    try:
        with closing(
            session.client.watch_events(
                text,
                resume_token=resume_token,
                from_beginning=from_beginning,
                on_interruption=lambda error: err().print(clean(f"{error.message} Trying again …")),
            )
        ) as updates:
            for update in updates:
                if update.HasField("event"):
                    event = update.event
                    if form == "jsonl":
                        console.print(to_json(plain(event)))
                    elif form == "name":
                        console.print(name_of(event))
                    else:
                        console.print(clean("  ".join(str(c.cell(event)) for c in _EVENTS)))
                    sys.stdout.flush()
                token = update.resume_token
    except KeyboardInterrupt:
        words = ["event", "watch", *(["--resume-token", token] if token else [])]
        words += ["--filter", text] if text else []  # what --kind and the others ask for is in it
        words += ["-o", form] if form != "table" else []
        err().print(clean(f"  Next: {program()} {shlex.join(words)}"))
    return NOT_FINISHED


@event_group.command("verify")
@click.option(
    "--file", "files", type=options.FILE, multiple=True, help="Check this export, too; may be repeated."
)
@click.option(
    "--key",
    help="Check the exports only, with this public key of the host and without asking it.",
)
@options.output("table", "json")
@pass_session
def event_verify(session: Session, files: tuple[Path, ...], key: str | None, form: str) -> int:
    """Check that the record is what the host wrote.

    The host computes the chain of its record anew, up to the head that it has signed. An export is checked
    here; the host must have signed it, and its record must still lead through it: that shows also what
    somebody who has the host's key could change.

    Examples:
      pipelinehost event verify
      pipelinehost event verify --file 2026-01.jsonl
      pipelinehost event verify --file 2026-01.jsonl --key 3b6a27bc…
    """
    heads: list[RecordHead] = []
    if key is not None and not files:
        raise click.UsageError("--key checks exports: give them with --file.")
    try:
        for path in files:
            heads.append(record_file.read(path))
            if key is not None:
                record_file.require_signature(path, heads[-1], key)
    except record_file.RecordFileError as error:
        explain_text(str(error), err(), "pipelinehost event verify (checks the host's own record)")
        return ERROR
    if key is not None:
        show(heads, "json" if form == "json" else "table", _HEADS)
        return OK
    result = _verified(session.client, heads)
    if form == "json":
        show([result], form, [], one=True)
        return ERROR if result.HasField("fault") else OK
    if result.HasField("fault"):
        fault = result.fault
        explain_text(
            f"event {fault.sequence} ({enum_word(fault, 'kind').lower()}): {fault.message}\n"
            f"{result.checked} events before it are what the host wrote.",
            err(),
            "compare with an export or a backup: docs/record.md says how",
        )
        return ERROR
    details(
        [
            ("intact", f"{result.checked} events, up to {result.head.last_sequence}"),
            ("signed from", str(result.head.first_sequence)),
            ("begins after", str(result.checkpoint.sequence) if result.HasField("checkpoint") else ""),
            ("exports", ", ".join(f"{h.first_sequence} to {h.last_sequence}" for h in heads)),
        ]
    )
    return OK


_HEADS: list[Column[RecordHead]] = [
    Column("FIRST", lambda h: str(h.first_sequence)),
    Column("LAST", lambda h: str(h.last_sequence)),
    Column("SIGNED", lambda h: moment(h.time)),
    Column("SHA256", lambda h: h.sha256),
]


def _verified(client: Client, heads: list[RecordHead]) -> VerifyEventsResponse.Result:
    shown = err()
    with shown.status("verifying") as status:
        for response in client.verify_events(heads):
            if response.HasField("result"):
                return response.result
            counted = response.counted
            status.update(f"verifying {100 * counted.checked // max(counted.total, 1)}%")
    raise AssertionError("a verification ends with its result")


@event_group.command("export")
@click.option("--from", "first", metavar="SEQUENCE|TIME", help="The first event.  [default: the oldest]")
@click.option(
    "--to", "last", metavar="SEQUENCE|TIME", help="The last event, or the end.  [default: the newest]"
)
@click.option(
    "-o",
    "--output",
    "path",
    type=options.PATH,
    required=True,
    help="File to write; it must not be there yet.",
)
@pass_session
def event_export(session: Session, first: str | None, last: str | None, path: Path) -> None:
    """Write the record, or a part of it, as JSON lines; the last line is a head that the host has signed.

    Keep the file where nobody who can reach the host can change it.

    Examples:
      pipelinehost event export -o record.jsonl
      pipelinehost event export --from 2026-01-01 --to 2026-02-01 -o 2026-01.jsonl
    """
    if path.exists():
        raise click.UsageError(f"{path} exists: choose another name.")
    client = session.client
    pieces = client.export_events(
        first=_sequence(client, first, ">=", "sequence") if first else 0,
        last=_sequence(client, last, "<", "sequence desc") if last else 0,
    )
    handle, draft = tempfile.mkstemp(prefix=".pipelinehost-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        head = record_file.read(Path(draft))
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    err().print(clean(f"events {head.first_sequence} to {head.last_sequence}, head {head.sha256}"))
    out().print(str(path))


@event_group.command("prune")
@click.option("--before", required=True, metavar="TIME", help="Drop only what is older than this.")
@click.option(
    "--export", "files", type=options.FILE, multiple=True, help="Export that holds it; may be repeated."
)
@click.option("--force", is_flag=True, help="Drop also what was not exported.")
@options.yes
@pass_session
def event_prune(session: Session, before: str, files: tuple[Path, ...], force: bool, yes: bool) -> int:
    """Drop the oldest events. What is left stays provable, from a checkpoint on.

    Only events that the given exports hold are dropped, and none that is about an unfinished run or comes
    after such a one.

    Examples:
      pipelinehost event prune --before 2026-01-01 --export 2025.jsonl
    """
    moment_ = _moment(before)
    try:
        heads = [record_file.read(path) for path in files]
    except record_file.RecordFileError as error:
        explain_text(str(error), err(), "pipelinehost event export -o FILE")
        return ERROR
    client = session.client
    planned = client.prune_events(moment_, heads, force=force, validate_only=True)
    options.confirm(f"Drop {planned.message} for good?", yes=yes)
    event = client.prune_events(moment_, heads, force=force)
    out().print(clean(f"dropped {event.message}; the record begins after {event.checkpoint.sequence}"))
    return OK


def _sequence(client: Client, text: str, operator: str, order: str) -> int:
    """A sequence as it is; of a time the first event from then on, or the last one before."""
    if text.isascii() and text.isdigit():
        return int(text)
    at = _moment(text).ToJsonString()
    found = next(client.events(f'time {operator} "{at}"', order_by=order, page_size=1), None)
    if found is None:
        raise click.UsageError(f"There is no event {'before' if operator == '<' else 'since'} {at}.")
    return found.sequence


def _moment(text: str) -> Timestamp:
    at = Timestamp()
    try:
        at.FromJsonString(f"{text}T00:00:00Z" if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else text)
    except ValueError:
        raise click.UsageError(f"{text!r} is no time: write 2026-01-31 or 2026-01-31T08:00:00Z.") from None
    return at
