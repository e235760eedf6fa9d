"""``artifact …``, and how any command takes a package."""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path

import click

from pipelinehost import names
from pipelinehost.cli.commands import options
from pipelinehost.cli.commands.runs import follow
from pipelinehost.cli.commands.session import Group, Session, pass_session
from pipelinehost.cli.console import Column, ago, clean, details, err, moment, out, show, size
from pipelinehost.client import Client
from pipelinehost.v1.resources_pb2 import Artifact


@click.group("artifact", cls=Group)
def artifact_group() -> None:
    """Artifacts: the packages that the host keeps."""


_ARTIFACTS: list[Column[Artifact]] = [
    Column("ARTIFACT", lambda a: names.slug(a.name)[:12]),
    Column("SOLUTION", lambda a: a.solution),
    Column("VERSION", lambda a: a.version),
    Column("MANAGED", lambda a: "managed" if a.managed else "unmanaged"),
    Column("SIZE", lambda a: size(a.size)),
    Column("FROM", lambda a: names.slug(a.source_environment) or "(upload)"),
    Column("CREATED", lambda a: moment(a.create_time), lambda a: ago(a.create_time)),
    Column("BLOCKED", lambda a: a.block.reason),
]


@artifact_group.command("list")
@click.option("--solution", help="Only of this solution.")
@options.filtered
@options.limit(30)
@options.listed
@pass_session
def artifact_list(session: Session, solution: str | None, expression: str, limit: int, form: str) -> None:
    """List artifacts, newest first."""
    text = options.filter_text(expression, solution=solution)
    found = islice(session.client.artifacts(text, page_size=min(limit, 200)), limit)
    show(found, form, _ARTIFACTS, nothing="There are no such artifacts.")


@artifact_group.command("show")
@click.argument("name", metavar="ARTIFACT")
@options.single
@pass_session
def artifact_show(session: Session, name: str, form: str) -> None:
    """Show an artifact, by its SHA-256 or the beginning of that."""
    found = session.client.artifact(name)
    if form != "table":
        show([found], form, [], one=True)
        return
    details(
        [
            ("artifact", found.name),
            ("solution", found.solution),
            ("display name", found.display_name),
            ("version", f"{found.version}, {'managed' if found.managed else 'unmanaged'}"),
            ("publisher", found.publisher),
            ("components", str(found.component_count)),
            ("size", size(found.size)),
            ("unmanaged twin", found.source_sha256),
            ("from", names.slug(found.source_environment) or "(upload)"),
            ("creator", found.creator),
            ("blocked", f"{found.block.reason} ({found.block.principal})" if found.block.reason else ""),
            ("created", moment(found.create_time)),
        ]
    )


@artifact_group.command("block")
@click.argument("name", metavar="ARTIFACT")
@click.option("--reason", required=True, help="For those who would deploy it.")
@options.single
@pass_session
def artifact_block(session: Session, name: str, reason: str, form: str) -> None:
    """Keep an artifact from being deployed. Runs of it that wait fail; it may still be restored.

    Examples:
      pipelinehost artifact block 3fa8c1d2b4e6 --reason "it loses orders"
    """
    show([session.client.block(name, reason=reason)], form, _ARTIFACTS, one=True)


@artifact_group.command("unblock")
@click.argument("name", metavar="ARTIFACT")
@click.option("--reason", required=True, help="For the record.")
@options.single
@pass_session
def artifact_unblock(session: Session, name: str, reason: str, form: str) -> None:
    """Let an artifact be deployed again.

    Examples:
      pipelinehost artifact unblock 3fa8c1d2b4e6 --reason "it was the target"
    """
    show([session.client.unblock(name, reason=reason)], form, _ARTIFACTS, one=True)


@artifact_group.command("upload")
@click.argument("path", metavar="FILE", type=options.FILE)
@options.single
@pass_session
def artifact_upload(session: Session, path: Path, form: str) -> None:
    """Store a package. The same bytes give the same artifact."""
    show([upload(session.client, path)], form, _ARTIFACTS, one=True)


@artifact_group.command("download")
@click.argument("name", metavar="ARTIFACT")
@click.option(
    "-O", "--to", "path", type=options.PATH, default=Path(), help="File or folder.  [default: here]"
)
@click.option("--source", is_flag=True, help="The unmanaged package instead of the managed one.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@pass_session
def artifact_download(session: Session, name: str, path: Path, source: bool, force: bool) -> None:
    """Write an artifact's package to a file. Its digest is checked.

    Examples:
      pipelinehost artifact download 3fa8c1d2b4e6
      pipelinehost artifact download 3fa8c1d2b4e6 --source --to backup/
    """
    client = session.client
    if not force:
        from pipelinehost.transfer import file_name

        target = path / file_name(client.artifact(name), source=source) if path.is_dir() else path
        if target.exists():
            raise click.UsageError(f"{target} exists; --force replaces it.")
    out().print(str(client.download(name, path, source=source)))


@artifact_group.command("restore")
@click.argument("name", metavar="ARTIFACT|FILE")
@click.option("-e", "--environment", required=True, help="Development environment to restore into.")
@click.option("--note", default="", help="Text for the record.")
@options.wait
@options.timeout
@options.single
@pass_session
def artifact_restore(
    session: Session,
    name: str,
    environment: str,
    note: str,
    wait: bool,
    timeout: float | None,
    form: str,
) -> int:
    """Import an artifact's unmanaged package into a development environment. A FILE is uploaded first."""
    client = session.client
    artifact, other = artifact_or_solution(client, name)
    return follow(
        client, client.restore(artifact or other, environment, note=note), form, wait=wait, timeout=timeout
    )


def artifact_or_solution(client: Client, text: str) -> tuple[str, str]:
    """The artifact, or else the solution, that an argument means; a file is uploaded."""
    path = Path(text)
    if text.lower().endswith(".zip") or (os.sep in text and path.is_file()):
        return upload(client, path).name, ""
    if text.startswith("artifacts/") or re.fullmatch(r"[0-9a-f]{64}", text):
        return text, ""
    return "", text


def upload(client: Client, path: Path) -> Artifact:
    """Uploads a package, and says what it is."""
    shown = err()
    if not shown.is_terminal:
        artifact = client.upload(path)
    else:
        with shown.status(f"uploading {path.name}") as status:
            artifact = client.upload(
                path, lambda done, all_: status.update(f"uploading {path.name} {100 * done // all_}%")
            )
    shown.print(clean(f"uploaded {path.name}: {artifact.solution} {artifact.version}, {artifact.name}"))
    return artifact
