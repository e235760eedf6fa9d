"""``apply`` and ``get``: configuration as a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from pipelinehost import names
from pipelinehost.cli import config_file
from pipelinehost.cli.commands import options
from pipelinehost.cli.commands.session import Command, Session, pass_session
from pipelinehost.cli.console import clean, err, out, show
from pipelinehost.errors import PipelineHostError


@click.command("apply", cls=Command)
@click.option("-f", "--file", "path", type=click.Path(path_type=Path, allow_dash=True), required=True)
@click.option(
    "--dry-run", is_flag=True, help="Show what would change, let the host check it, change nothing."
)
@pass_session
def apply_command(session: Session, path: Path, dry_run: bool) -> None:
    """Create and change principals, environments, pipelines and freezes as a YAML file says.

    What the file does not name stays as it is. Of what it names, keys that it leaves out become empty; only
    `owner`, `shares`, `makers`, `disabled` and the `holds` of a stage stay (`shares: []` takes them away). A
    second `apply` changes nothing.

    Examples:
      pipelinehost apply -f pipelines.yaml --dry-run
      pipelinehost apply -f pipelines.yaml
      pipelinehost get pipeline sales | pipelinehost --host staging:443 apply -f -

    The file:
      environments:
        - name: dev
          kind: development
        - name: qa
          kind: target
          url: https://qa.crm4.dynamics.com
      pipelines:
        - name: sales
          development_environments: [dev]
          stages:
            - name: qa
              environment: qa
    """
    source = "stdin" if str(path) == "-" else str(path)
    try:
        text = sys.stdin.read() if source == "stdin" else path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise config_file.ConfigError(f"{source}: is no YAML: it is not UTF-8 text.") from error
    config = config_file.read(text, source)
    client, writer = session.client, out()
    counts = {"create": 0, "update": 0, "nothing": 0}
    needed, missing = config_file.needs(config), set[str]()
    for change in config_file.compare(client, config):
        # The host cannot check what uses things that this file is yet to make.
        if change.action != "nothing" and not (dry_run and needed[change.name] & missing):
            try:
                change.do(dry_run)
            except PipelineHostError as error:
                error.message = f"{change.kind} {names.slug(change.name)}: {error.message}"
                raise
        if dry_run and change.action == "create":
            missing.add(change.name)
        counts[change.action] += 1
        _print_change(writer, change)
    would = "would be " if dry_run else ""
    err().print(
        f"{counts['create']} {would}created, {counts['update']} {would}changed, {counts['nothing']} unchanged"
    )


_SIGNS = {"create": ("+", "green"), "update": ("~", "yellow"), "nothing": ("=", "dim")}


def _print_change(writer: Any, change: config_file.Change) -> None:
    sign, style = _SIGNS[change.action]
    writer.print(Text(f"{sign} {change.kind} {clean(names.slug(change.name))}", style=style))
    for path, before, after in change.differences:
        if change.action == "update":
            writer.print(clean(f"    {path}: {before} -> {after}"))


@click.command("get", cls=Command)
@click.argument("kind", type=click.Choice(["pipeline", "environment", "principal", "freeze"]))
@click.argument("wanted", metavar="[NAME]...", nargs=-1)
@options.output("yaml", "json")
@pass_session
def get_command(session: Session, kind: str, wanted: Sequence[str], form: str) -> None:
    """Write pipelines, environments, principals or freezes as a file for `apply`; all if none is named.

    Examples:
      pipelinehost get pipeline sales > sales.yaml
      pipelinehost get environment -o json
    """
    client = session.client
    config = config_file.Config()
    if kind == "pipeline":
        config.pipelines = [client.pipeline(name) for name in wanted] or list(client.pipelines())
    elif kind == "freeze":
        config.freezes = [client.freeze(name) for name in wanted] or list(client.freezes())
    elif kind == "principal":
        config.principals = [client.principal(name) for name in wanted] or list(client.principals())
    else:
        config.environments = [client.environment(name) for name in wanted] or list(client.environments())
    found: Iterable[Any] = config.pipelines or config.principals or config.environments or config.freezes
    if form == "json":
        show(found, form, [])
    elif found:
        out().print(config_file.write(config), end="")
