"""``pipeline …``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from pipelinehost import lookup, names
from pipelinehost.cli import console
from pipelinehost.cli.commands import options
from pipelinehost.cli.commands.environments import sign_in_words
from pipelinehost.cli.commands.session import Group, Session, pass_session
from pipelinehost.cli.console import Column, details, enum_word, err, out, show, state
from pipelinehost.client import Client
from pipelinehost.v1.resources_pb2 import Pipeline, Run, Share, Stage


@click.group("pipeline", cls=Group)
def pipeline_group() -> None:
    """Pipelines: the stages that solutions travel through."""


_PIPELINES: list[Column[Pipeline]] = [
    Column("PIPELINE", lambda p: names.slug(p.name)),
    Column("DISPLAY NAME", lambda p: p.display_name),
    Column("FROM", lambda p: ", ".join(names.slug(e) for e in p.development_environments)),
    Column("STAGES", lambda p: ", ".join(names.slug(s.name) for s in p.stages)),
]


@pipeline_group.command("list")
@options.filtered
@options.listed
@pass_session
def pipeline_list(session: Session, expression: str, form: str) -> None:
    """List pipelines with their stages."""
    nothing = f"There are no pipelines yet.\n  Next: {console.program()} pipeline create --help"
    show(session.client.pipelines(expression), form, _PIPELINES, nothing=nothing)


@pipeline_group.command("show")
@click.argument("name", metavar="PIPELINE")
@options.single
@pass_session
def pipeline_show(session: Session, name: str, form: str) -> None:
    """Show a pipeline, its stages, and the newest run to each."""
    client = session.client
    found = client.pipeline(name)
    if form != "table":
        show([found], form, [], one=True)
        return
    details(
        [
            ("pipeline", names.slug(found.name)),
            ("display name", found.display_name),
            ("description", found.description),
            ("from", ", ".join(names.slug(e) for e in found.development_environments)),
            ("redeployment", "allowed" if found.allow_redeployment else "not allowed"),
        ]
    )
    newest = {
        s.name: next(client.runs(options.filter_text("", stage=s.name), page_size=1), Run())
        for s in found.stages
    }
    columns: list[Column[Stage]] = [
        Column("STAGE", lambda s: names.slug(s.name)),
        Column("DISPLAY NAME", lambda s: s.display_name),
        Column("ENVIRONMENT", lambda s: names.slug(s.environment)),
        Column("HELD ON", lambda s: ", ".join(f"{h.solution} {h.version}" for h in s.holds)),
        Column("NEWEST RUN", lambda s: names.slug(newest[s.name].name)),
        Column("STATE", lambda s: state(enum_word(newest[s.name], "state"))),
        Column("SOLUTION", lambda s: f"{newest[s.name].solution} {newest[s.name].version}".strip()),
    ]
    if any(s.HasField("sign_in") for s in found.stages):
        columns.insert(3, Column("DEPLOYS AS", lambda s: sign_in_words(s.sign_in)))
    writer = out()
    writer.print()
    console.table(writer, columns, list(found.stages))


@pipeline_group.command("create")
@click.argument("name", metavar="PIPELINE")
@click.option("--from", "sources", metavar="ENVIRONMENT", multiple=True, help="Development environment.")
@click.option(
    "--stage",
    "stages",
    metavar="STAGE=ENVIRONMENT",
    multiple=True,
    required=True,
    help="In order; one to seven.",
)
@click.option("--display-name", default="")
@click.option("--description", default="")
@click.option("--allow-redeployment", is_flag=True, help="Let older versions replace newer ones.")
@options.single
@pass_session
def pipeline_create(
    session: Session,
    name: str,
    sources: Sequence[str],
    stages: Sequence[str],
    display_name: str,
    description: str,
    allow_redeployment: bool,
    form: str,
) -> None:
    """Create a pipeline. To keep it in a file instead, see `apply`.

    Examples:
      pipelinehost pipeline create sales --from dev --stage qa=qa --stage prod=production
    """
    client = session.client
    pipeline = Pipeline(
        name=names.pipeline(name.removeprefix("pipelines/")),
        display_name=display_name,
        description=description,
        development_environments=[client.environment(source).name for source in sources],
        allow_redeployment=allow_redeployment,
    )
    for argument in stages:
        stage, equals, environment = argument.partition("=")
        if not equals:
            raise click.BadParameter(f"{argument}: write it as STAGE=ENVIRONMENT.", param_hint="--stage")
        pipeline.stages.add(
            name=f"{pipeline.name}/stages/{stage}", environment=client.environment(environment).name
        )
    show([client.create_pipeline(pipeline)], form, _PIPELINES, one=True)


@pipeline_group.command("share")
@click.argument("name", metavar="PIPELINE")
@click.argument("with_whom", metavar="PRINCIPAL", nargs=-1, required=True)
@click.option("--run", "access", flag_value="RUN", default="RUN", help="To deploy through it (the default).")
@click.option("--edit", "access", flag_value="EDIT", help="To change it, too.")
@click.option("--remove", "access", flag_value="", help="Not any more.")
@options.single
@pass_session
def pipeline_share(session: Session, name: str, with_whom: Sequence[str], access: str, form: str) -> None:
    """Share a pipeline with persons, services or groups; what they had before is replaced.

    Examples:
      pipelinehost pipeline share sales sales-team
      pipelinehost pipeline share sales ada --edit
      pipelinehost pipeline share sales ada --remove
    """
    client = session.client
    found = client.pipeline(name)
    meant = [client.principal(p).name for p in with_whom]
    kept = [share for share in found.shares if share.principal not in meant]
    if access:
        kept += [Share(principal=p, access=f"ACCESS_{access}") for p in meant]
    fresh = Pipeline(name=found.name, etag=found.etag, shares=kept)
    changed = client.update_pipeline(fresh, ["shares"])
    columns: list[Column[Share]] = [
        Column("PRINCIPAL", lambda s: names.slug(s.principal)),
        Column("MAY", lambda s: enum_word(s, "access").lower()),
    ]
    if form != "table":
        show([changed], form, [], one=True)
    elif changed.shares:
        console.table(out(), columns, list(changed.shares))
    else:
        err().print(f"{changed.name} is shared with nobody")


@pipeline_group.command("hold")
@click.argument("stage", metavar="PIPELINE/STAGE")
@click.argument("solution")
@click.argument("version")
@click.option("--reason", required=True, help="For those who would deploy another version.")
@options.single
@pass_session
def pipeline_hold(session: Session, stage: str, solution: str, version: str, reason: str, form: str) -> None:
    """Hold a stage on a version of a solution: no other is deployed there.

    Examples:
      pipelinehost pipeline hold sales/prod ContosoSales 1.4.0.0 --reason "the fair"
    """
    client = session.client
    found, at = lookup.stage_of(stage, client.pipeline)
    _hold(
        client, found, at.name, solution, Stage.Hold(solution=solution, version=version, reason=reason), form
    )


@pipeline_group.command("release")
@click.argument("stage", metavar="PIPELINE/STAGE")
@click.argument("solution")
@options.single
@pass_session
def pipeline_release(session: Session, stage: str, solution: str, form: str) -> None:
    """Let other versions of a solution come to a stage again.

    Examples:
      pipelinehost pipeline release sales/prod ContosoSales
    """
    client = session.client
    found, at = lookup.stage_of(stage, client.pipeline)
    if not any(h.solution.casefold() == solution.casefold() for h in at.holds):
        there = ", ".join(f"{h.solution} on {h.version}" for h in at.holds) or "nothing"
        raise click.BadParameter(f"{stage} holds {there}, and not {solution}.")
    _hold(client, found, at.name, solution, None, form)


def put_hold(
    client: Client,
    pipeline: Pipeline,
    stage: str,
    solution: str,
    hold: Stage.Hold | None,
    *,
    validate_only: bool = False,
) -> Pipeline:
    """Holds a solution at a stage, by its full name, on a version; or on none any more."""
    fresh = Pipeline(name=pipeline.name, etag=pipeline.etag, stages=pipeline.stages)
    for one in fresh.stages:
        if one.name == stage:
            kept = [h for h in one.holds if h.solution.casefold() != solution.casefold()]
            del one.holds[:]
            one.holds.extend([*kept, *([hold] if hold is not None else [])])
    return client.update_pipeline(fresh, ["stages"], validate_only=validate_only)


def _hold(
    client: Client, pipeline: Pipeline, stage: str, solution: str, hold: Stage.Hold | None, form: str
) -> None:
    changed = put_hold(client, pipeline, stage, solution, hold)
    if form != "table":
        show([changed], form, [], one=True)
        return
    columns: list[Column[Stage.Hold]] = [
        Column("SOLUTION", lambda h: h.solution),
        Column("HELD ON", lambda h: h.version),
        Column("REASON", lambda h: h.reason),
    ]
    held = [h for s in changed.stages if s.name == stage for h in s.holds]
    if held:
        console.table(out(), columns, held)
    else:
        err().print(f"{stage} holds nothing")


@pipeline_group.command("delete")
@click.argument("name", metavar="PIPELINE")
@options.yes
@pass_session
def pipeline_delete(session: Session, name: str, yes: bool) -> None:
    """Delete a pipeline. Its runs and artifacts stay."""
    found = session.client.pipeline(name)
    options.confirm(f"Delete {found.name}?", yes=yes)
    session.client.delete_pipeline(found.name, etag=found.etag)
    err().print(f"deleted {found.name}")
