"""``event …``."""

from __future__ import annotations

from itertools import islice

import click

from pipelinehost.cli.commands import options
from pipelinehost.cli.commands.session import Group, Session, pass_session
from pipelinehost.cli.console import Column, enum_word, moment, show
from pipelinehost.v1.resources_pb2 import Event


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


@event_group.command("list")
@click.option("--subject", help="Only about this resource, for example pipelines/sales.")
@click.option("--kind", type=click.Choice(_KINDS, case_sensitive=False), help="Only of this kind.")
@click.option("--actor", help="Only of this person, or of the host.")
@options.filtered
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
