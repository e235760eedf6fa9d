"""The commands: what they take, what they ask of the host, and what they write. A module for each group."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipelinehost import address, errors
from pipelinehost.cli import config_file, profiles, record_file, settings_file
from pipelinehost.cli.commands import options
from pipelinehost.cli.commands.artifacts import artifact_group
from pipelinehost.cli.commands.configuration import apply_command, get_command
from pipelinehost.cli.commands.connections import connection_group
from pipelinehost.cli.commands.deployments import deploy, redeploy, validate
from pipelinehost.cli.commands.environments import environment_group
from pipelinehost.cli.commands.events import event_group
from pipelinehost.cli.commands.freezes import freeze_group
from pipelinehost.cli.commands.people import login, principal_group, profile_group, token_group, whoami
from pipelinehost.cli.commands.pipelines import pipeline_group
from pipelinehost.cli.commands.runs import run_group
from pipelinehost.cli.commands.session import Group, Session, pass_session
from pipelinehost.cli.commands.solutions import settings_group, solution_group
from pipelinehost.cli.console import details, err, show
from pipelinehost.cli.failure import (
    ERROR,
    EXIT_CODES,
    INTERRUPTED,
    OK,
    USAGE,
    exit_code,
    explain,
    explain_text,
)


def run() -> int:
    """Runs the command of this process's arguments.

    Returns:
        The exit code.
    """
    command = "pipelinehost"
    try:
        with cli.make_context("pipelinehost", sys.argv[1:]) as context:
            try:
                result = cli.invoke(context)
            finally:
                command = _path(context)
        return result if isinstance(result, int) else OK
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else command
        explain_text(error.format_message(), err(), f"{path} --help")
        return USAGE
    except click.ClickException as error:
        explain_text(error.format_message(), err(), f"{command} --help")
        return ERROR
    except (click.Abort, KeyboardInterrupt):
        err().print("Interrupted.")
        return INTERRUPTED
    except errors.PipelineHostError as error:
        explain(error, err(), command)
        return exit_code(error)
    except (settings_file.SettingsError, config_file.ConfigError, record_file.RecordFileError) as error:
        explain_text(str(error), err(), f"{command} --help")
        return ERROR
    except OSError as error:
        explain_text(f"{error.filename or 'file'}: {error.strerror or error}", err(), f"{command} --help")
        return ERROR


def _path(context: click.Context) -> str:
    """The command that was called: ``pipelinehost run show``."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    path, command = "pipelinehost", context.command
    for word in words:
        if isinstance(command, click.Group) and (inner := command.commands.get(word)) is not None:
            path, command = f"{path} {word}", inner
    return path


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.option(
    "--host",
    metavar="ADDRESS",
    envvar="PIPELINEHOST_ADDRESS",
    show_envvar=True,
    help="Where the host listens, as host:port; or the name of a profile that `login` has made. Without it "
    f"the profile in use, else {address.DEFAULT}.",
)
@click.option(
    "--token-file",
    type=options.FILE,
    help="File with the token to sign in with. Without it: PIPELINEHOST_TOKEN, then the file that a host on "
    "this machine wrote for you.",
)
@click.option("--tls", is_flag=True, envvar="PIPELINEHOST_TLS", show_envvar=True, help="Encrypt.")
@click.option(
    "--ca-file",
    type=options.FILE,
    envvar="PIPELINEHOST_CA_FILE",
    show_envvar=True,
    help="Certificates to trust in place of the system's, PEM. Implies --tls.",
)
@click.version_option(package_name="pipelinehost", prog_name="pipelinehost")
@click.pass_context
def cli(
    context: click.Context, host: str | None, token_file: Path | None, tls: bool, ca_file: Path | None
) -> None:
    """Deploy Power Platform solutions through pipelines: development, QA, production.

    Examples:
      pipelinehost pipeline list
      pipelinehost deploy ContosoSales -p sales
      pipelinehost deploy ContosoSales_1_2_0_0_managed.zip -p sales --settings qa.json
      pipelinehost run list --state failed
    """
    found = profiles.find(host)
    if found is not None:
        host, tls, ca_file = found.address, tls or found.tls, ca_file or found.ca_file
    context.obj = session = Session(host or address.DEFAULT, token_file, tls, ca_file)
    context.call_on_close(session.close)


@cli.command("host")
@options.output("table", "json")
@pass_session
def host_command(session: Session, form: str) -> None:
    """Show what the host is, and who you are to it."""
    found = session.client.host()
    if form == "json":
        show([found], form, [], one=True)
        return
    details(
        [
            ("version", found.version),
            ("region", found.region or "(not set)"),
            ("cross-region", "allowed" if found.allow_cross_region else "not allowed"),
            ("you are", found.caller),
            ("record key", found.record_key),
            ("webhook key", found.webhook_key),
        ]
    )


for _command in (
    deploy,
    validate,
    redeploy,
    run_group,
    pipeline_group,
    environment_group,
    connection_group,
    solution_group,
    settings_group,
    artifact_group,
    freeze_group,
    event_group,
    apply_command,
    get_command,
    principal_group,
    token_group,
    login,
    whoami,
    profile_group,
):
    cli.add_command(_command)
