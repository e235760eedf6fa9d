"""``freeze …``."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from pipelinehost import lookup, names
from pipelinehost.cli import console
from pipelinehost.cli.commands import options
from pipelinehost.cli.commands.session import Group, Session, pass_session
from pipelinehost.cli.console import Column, details, err, moment, show
from pipelinehost.v1.resources_pb2 import Freeze


@click.group("freeze", cls=Group)
def freeze_group() -> None:
    """Freezes: when nothing is imported into stages."""


def _scope(freeze: Freeze) -> str:
    return freeze.scope.removeprefix("pipelines/").replace("/stages/", "/") or "(the whole host)"


_FREEZES: list[Column[Freeze]] = [
    Column("FREEZE", lambda f: names.slug(f.name)),
    Column("OF", _scope),
    Column("FROM", lambda f: f.start or "(now)"),
    Column("UNTIL", lambda f: f.end or "(deleted)"),
    Column("ZONE", lambda f: f.time_zone),
    Column("AGAIN", lambda f: f.recurrence),
    Column("REASON", lambda f: f.reason),
]


@freeze_group.command("list")
@options.filtered
@options.listed
@pass_session
def freeze_list(session: Session, expression: str, form: str) -> None:
    """List freezes: those of the whole host, and those of pipelines that you see."""
    show(session.client.freezes(expression), form, _FREEZES, nothing="Nothing is frozen.")


@freeze_group.command("show")
@click.argument("name", metavar="FREEZE")
@options.single
@pass_session
def freeze_show(session: Session, name: str, form: str) -> None:
    """Show a freeze."""
    found = session.client.freeze(name)
    if form != "table":
        show([found], form, [], one=True)
        return
    details(
        [
            ("freeze", found.name),
            ("of", _scope(found)),
            ("from", found.start or "(now)"),
            ("until", found.end or "(deleted)"),
            ("zone", found.time_zone),
            ("again", found.recurrence),
            ("reason", found.reason),
            ("creator", found.creator),
            ("created", moment(found.create_time)),
        ]
    )


@freeze_group.command("create")
@click.argument("name", metavar="[FREEZE]", default="")
@click.option("--reason", required=True, help="For those who wait.")
@click.option("-p", "--pipeline", help="Of all stages of this pipeline.  [default: the whole host]")
@click.option("--stage", metavar="PIPELINE/STAGE", help="Of this stage only.")
@click.option("--stop", is_flag=True, help="From now on, until the freeze is deleted.")
@click.option("--start", metavar="LOCAL", default="", help="As 2026-12-24T18:00.  [default: now]")
@click.option("--end", metavar="LOCAL", default="", help="As 2026-12-27T00:00.")
@click.option("--zone", default="", help="Of --start and --end, for example Europe/Berlin.")
@click.option("--repeat", metavar="RULE", default="", help="As FREQ=WEEKLY;BYDAY=FR: when it comes again.")
@options.single
@pass_session
def freeze_create(
    session: Session,
    name: str,
    reason: str,
    pipeline: str | None,
    stage: str | None,
    stop: bool,
    start: str,
    end: str,
    zone: str,
    repeat: str,
    form: str,
) -> None:
    r"""Freeze the whole host, a pipeline or a stage: nothing is imported there.

    What was sent is not held up. Runs wait for the end, and go on by themselves.

    Examples:
      pipelinehost freeze create --stop --reason "an incident"
      pipelinehost freeze create --stop --stage sales/prod --reason "the audit"
      pipelinehost freeze create xmas --start 2026-12-24T18:00 --end 2026-12-27T00:00 --zone Europe/Berlin \
        --reason Christmas
      pipelinehost freeze create weekends -p sales --start 2026-11-06T17:00 --end 2026-11-09T06:00 \
        --zone Europe/Berlin --repeat "FREQ=WEEKLY;BYDAY=FR" --reason "nobody is there"
    """
    if stop and (start or end or repeat):
        raise click.UsageError("--stop takes no --start, --end or --repeat: it lasts until it is deleted.")
    if not stop and not end:
        raise click.UsageError("Say --end, or --stop for a freeze that lasts until it is deleted.")
    if pipeline and stage:
        raise click.UsageError("--pipeline and --stage do not go together.")
    if not stop and not name:
        raise click.UsageError("Give the freeze a name: xmas, for example.")
    client = session.client
    scope = ""
    if pipeline:
        scope = client.pipeline(pipeline).name
    elif stage:
        scope = lookup.stage_of(stage, client.pipeline)[1].name
    slugs = [part for part in scope.split("/") if part not in ("", "pipelines", "stages")]
    freeze = Freeze(
        name=names.freeze(name.removeprefix("freezes/") or "-".join(["stop", *slugs])),
        reason=reason,
        scope=scope,
        time_zone=zone,
        start=start,
        end=end,
        recurrence=repeat,
    )
    made = client.create_freeze(freeze)
    show([made], form, _FREEZES, one=True)
    if end and not repeat and _passed(end, zone):
        err().print("  Its window has passed: it freezes nothing.")
    err().print(f"  To end it: {console.program()} freeze delete {names.slug(made.name)}")


def _passed(end: str, zone: str) -> bool:
    try:
        return dt.datetime.fromisoformat(end).replace(tzinfo=ZoneInfo(zone)) <= dt.datetime.now(dt.UTC)
    except (ZoneInfoNotFoundError, ValueError):  # only the host knows this zone
        return False


@freeze_group.command("delete")
@click.argument("name", metavar="FREEZE")
@options.yes
@pass_session
def freeze_delete(session: Session, name: str, yes: bool) -> None:
    """End a freeze for good. Runs that waited for it go on."""
    found = session.client.freeze(name)
    options.confirm(f"Delete {found.name}?", yes=yes)
    session.client.delete_freeze(found.name, etag=found.etag)
    err().print(f"deleted {found.name}")
