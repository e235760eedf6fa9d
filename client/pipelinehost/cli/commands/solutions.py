"""``solution …`` and ``settings …``: what a solution is made of and what it needs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from pipelinehost import names
from pipelinehost.cli import console, settings_file
from pipelinehost.cli.commands import options
from pipelinehost.cli.commands.artifacts import artifact_or_solution
from pipelinehost.cli.commands.session import Group, Session, pass_session
from pipelinehost.cli.console import Column, clean, details, enum_word, err, out, show
from pipelinehost.client import Client
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import Setting, SettingSource


@click.group("solution", cls=Group)
def solution_group() -> None:
    """Solutions: what they are made of and what they need."""


_from_environment = click.option(
    "-e", "--environment", default="", help="Development environment that holds the solution."
)
_seen_from = click.option(
    "--stage",
    metavar="PIPELINE/STAGE",
    default="",
    help="Merge in the values of the stage and of its target.",
)


@solution_group.command("describe")
@click.argument("source", metavar="SOLUTION|FILE|ARTIFACT")
@_from_environment
@_seen_from
@options.output("table", "json")
@pass_session
def solution_describe(session: Session, source: str, environment: str, stage: str, form: str) -> None:
    """Show what a solution is made of, what it requires, and the settings that it takes.

    Examples:
      pipelinehost solution describe ContosoSales -e dev
      pipelinehost solution describe ContosoSales --stage sales/qa
      pipelinehost solution describe ./ContosoSales_managed.zip -o json
    """
    found = _described(session.client, source, environment, stage)
    if form == "json":
        show([found], form, [], one=True)
        return
    kinds: dict[str, int] = {}
    for component in found.components:
        kinds[component.kind] = kinds.get(component.kind, 0) + 1
    details(
        [
            ("solution", found.solution),
            ("display name", found.display_name),
            ("version", f"{found.version}, {'managed' if found.managed else 'unmanaged'}"),
            ("publisher", found.publisher),
            ("components", ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))),
        ]
    )
    writer = out()
    if found.requirements:
        requirements: list[Column[Any]] = [
            Column("REQUIRES", lambda r: f"{r.required.kind} {r.required.display_name or r.required.name}"),
            Column("OF", lambda r: r.solution),
            Column("FOR", lambda r: f"{r.dependent.kind} {r.dependent.display_name or r.dependent.name}"),
        ]
        writer.print()
        console.table(writer, requirements, list(found.requirements))
    if found.settings:
        writer.print()
        console.table(writer, _SETTINGS, list(found.settings))


_SETTINGS: list[Column[Setting]] = [
    Column("SETTING", lambda s: s.name),
    Column("TYPE", lambda s: s.type or names.slug(s.connector_id)),
    Column("SOURCE", lambda s: _source_word(s)),
    Column("VALUE", lambda s: "(secret)" if s.type == "secret" and s.source else s.value),
]


def _source_word(setting: Setting) -> str | Text:
    if setting.source == SettingSource.SETTING_SOURCE_UNSPECIFIED:
        return Text("missing", style="red" if setting.required else "yellow")
    return enum_word(setting, "source").lower()


def _described(client: Client, source: str, environment: str, stage: str) -> api.DescribeSolutionResponse:
    artifact, solution = artifact_or_solution(client, source)
    if artifact:
        return client.describe(artifact=artifact, stage=stage)
    if not environment and stage:
        pipeline = client.pipeline(stage.removeprefix("pipelines/").partition("/")[0])
        sources = list(pipeline.development_environments)
        if len(sources) == 1:
            environment = sources[0]
    if not environment:
        raise click.UsageError(
            "Name the development environment that holds the solution with -e ENVIRONMENT."
        )
    return client.describe(solution=solution, environment=environment, stage=stage)


@click.group("settings", cls=Group)
def settings_group() -> None:
    """Deployment settings: the ecosystem's deploymentSettings.json."""


@settings_group.command("create")
@click.argument("source", metavar="SOLUTION|FILE|ARTIFACT")
@_from_environment
@_seen_from
@click.option("-o", "--output", "path", type=options.PATH, metavar="FILE", help="[default: stdout]")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@pass_session
def settings_create(
    session: Session,
    source: str,
    environment: str,
    stage: str,
    path: Path | None,
    force: bool,
) -> None:
    """Write the settings file that a solution needs, to be filled in.

    Values that are known are in it; secrets never are.

    Examples:
      pipelinehost settings create ContosoSales --stage sales/qa -o qa.json
      pipelinehost settings create ./ContosoSales_managed.zip -o qa.json
      pipelinehost deploy ContosoSales -p sales --settings qa.json
    """
    if path is not None and path.exists() and not force:
        raise click.UsageError(f"{path} exists; --force replaces it.")
    text, remarks = settings_file.template(_described(session.client, source, environment, stage).settings)
    shown = err()
    for remark in remarks:
        shown.print(f"- {clean(remark)}")
    if path is None:
        out().print(clean_lines(text), end="")
        return
    path.write_text(text, encoding="utf-8")
    shown.print(f"wrote {path}")
    pipeline, _, at = stage.removeprefix("pipelines/").partition("/")
    words = [source, "-p", pipeline or "PIPELINE"]
    if at:  # what is written is for this stage, and another one may be due
        words += ["--stage", at.removeprefix("stages/")]
    again = clean(shlex.join([*words, "--settings", str(path)]))
    shown.print(f"  Next: fill it in, then: {console.program()} deploy {again}")


def clean_lines(text: str) -> str:
    """Text of several lines, each made harmless."""
    return "\n".join(clean(line) for line in text.split("\n"))
