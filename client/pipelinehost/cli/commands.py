"""The commands: what they take, what they ask of the host, and what they write."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, TypedDict, TypeVar

import click
from rich.text import Text

from pipelinehost import address, errors, names
from pipelinehost.cli import config_file, console, progress, settings_file
from pipelinehost.cli.console import (
    Column,
    ago,
    clean,
    details,
    enum_word,
    err,
    moment,
    out,
    show,
    size,
    state,
)
from pipelinehost.cli.failure import (
    ERROR,
    EXIT_CODES,
    INTERRUPTED,
    NOT_FINISHED,
    OK,
    RUN_FAILED,
    USAGE,
    exit_code,
    explain,
    explain_text,
)
from pipelinehost.client import FINISHED, Client, Deployment
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import (
    Artifact,
    Connection,
    DeploymentSettings,
    Environment,
    Event,
    Finding,
    Pipeline,
    Run,
    Setting,
    SettingSource,
    SignIn,
    Solution,
    Stage,
)

_F = TypeVar("_F", bound=Callable[..., Any])


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
    except (settings_file.SettingsError, config_file.ConfigError) as error:
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


class Session:
    """How to reach the host; the connection is made when a command first needs it."""

    def __init__(self, host: str, token_file: Path | None, tls: bool, ca_file: Path | None) -> None:
        self._host, self._token_file, self._tls, self._ca_file = host, token_file, tls, ca_file
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The client, connected."""
        if self._client is None:
            token = self._token_file.read_text(encoding="utf-8") if self._token_file else None
            self._client = Client(self._host, token=token, tls=self._tls, ca_file=self._ca_file)
        return self._client

    def close(self) -> None:
        """Ends the connection, if one was made."""
        if self._client is not None:
            self._client.close()


_session = click.make_pass_decorator(Session)


class _Command(click.Command):
    """A command whose help shows examples line by line, and does not wrap them into a paragraph."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.help:
            # click takes a backspace for the sign of a paragraph that is not to be wrapped.
            self.help = re.sub(r"\n\n(?=(Examples|The file):\n)", "\n\n\b\n", inspect.cleandoc(self.help))


class _Group(_Command, click.Group):
    """A group whose help lists commands in the order of the source, which is the order of use."""

    command_class = _Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


_FOLDER = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.option(
    "--host",
    metavar="ADDRESS",
    envvar="PIPELINEHOST_ADDRESS",
    default=address.DEFAULT,
    show_default=True,
    show_envvar=True,
    help="Where the host listens, as host:port.",
)
@click.option(
    "--token-file",
    type=_FILE,
    help="File with the token to sign in with. Without it: PIPELINEHOST_TOKEN, then the file that a host on "
    "this machine wrote for you.",
)
@click.option("--tls", is_flag=True, envvar="PIPELINEHOST_TLS", show_envvar=True, help="Encrypt.")
@click.option(
    "--ca-file",
    type=_FILE,
    envvar="PIPELINEHOST_CA_FILE",
    show_envvar=True,
    help="Certificates to trust in place of the system's, PEM. Implies --tls.",
)
@click.version_option(package_name="pipelinehost", prog_name="pipelinehost")
@click.pass_context
def cli(context: click.Context, host: str, token_file: Path | None, tls: bool, ca_file: Path | None) -> None:
    """Deploy Power Platform solutions through pipelines: development, QA, production.

    Examples:
      pipelinehost pipeline list
      pipelinehost deploy ContosoSales -p sales
      pipelinehost deploy ContosoSales_1_2_0_0_managed.zip -p sales --settings qa.json
      pipelinehost run list --state failed
    """
    context.obj = session = Session(host, token_file, tls, ca_file)
    context.call_on_close(session.close)


def _output(*forms: str) -> Callable[[_F], _F]:
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(forms),
        default=forms[0],
        show_default=True,
        help="What to write to stdout.",
    )


_listed = _output("table", "json", "jsonl", "name")
_single = _output("table", "json", "name")


def _limit(default: int) -> Callable[[_F], _F]:
    return click.option(
        "-n", "--limit", type=click.IntRange(1), default=default, show_default=True, help="How many at most."
    )


_filter_option = click.option(
    "--filter", "expression", metavar="EXPRESSION", default="", help="As the API has it: state = FAILED AND …"
)
_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def _filter(expression: str, **terms: str | None) -> str:
    quoted = [
        f'{field} = "{value}"'.replace("\\", "\\\\") if '"' not in value else _quoted(field, value)
        for field, value in terms.items()
        if value
    ]
    return " AND ".join([*quoted, expression] if expression else quoted)


def _quoted(field: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{field} = "{escaped}"'


def _confirm(question: str, *, yes: bool) -> None:
    if not yes and sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)


# The host


@cli.command("host")
@_output("table", "json")
@_session
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
        ]
    )


# Deploying


class _DeployArguments(TypedDict):
    source: str
    pipeline: str
    stage: str
    from_: str
    settings: Path | None
    variables: tuple[str, ...]
    connections: tuple[str, ...]
    version: str
    update: bool
    overwrite_customizations: bool
    note: str


def _deployment_options(command: _F) -> _F:
    options = [
        click.argument("source", metavar="SOLUTION|FILE|ARTIFACT"),
        click.option("-p", "--pipeline", required=True, help="Name or display name of the pipeline."),
        click.option(
            "--stage", default="", help="Stage of the pipeline.  [default: the next one that is due]"
        ),
        click.option(
            "--from",
            "from_",
            metavar="ENVIRONMENT",
            default="",
            help="Development environment, where the pipeline has several.",
        ),
        click.option("--settings", type=_FILE, help="deploymentSettings.json with values for the target."),
        click.option(
            "--set",
            "variables",
            metavar="NAME=VALUE",
            multiple=True,
            help="Value of an environment variable; wins over --settings.",
        ),
        click.option(
            "--connection",
            "connections",
            metavar="REF=ID",
            multiple=True,
            help="Connection of a connection reference; wins over --settings.",
        ),
        click.option("--version", default="", help="Version that the development environment must hold."),
        click.option("--update", is_flag=True, help="Delete nothing in the target, where an upgrade would."),
        click.option(
            "--overwrite-customizations",
            is_flag=True,
            help="Remove what was changed in the target by hand.",
        ),
        click.option("--note", default="", help="Text for the record."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


_wait = click.option(
    "--wait/--detach", "wait", default=True, show_default=True, help="Follow the run to its end, or leave it."
)
_timeout = click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Leave the run after so long.",
)


@cli.command()
@_deployment_options
@_wait
@_timeout
@_output("table", "json", "name")
@_session
def deploy(
    session: Session,
    /,
    form: str,
    wait: bool,
    timeout: float | None,
    **arguments: Any,
) -> int:
    """Deploy a solution to the next stage of a pipeline.

    SOLUTION is the unique name of a solution in the development environment. A FILE is uploaded first. An
    ARTIFACT is artifacts/SHA256, or artifacts/ and the beginning of it, as `artifact list` shows it. The run
    goes on by itself: Ctrl-C leaves it.

    Examples:
      pipelinehost deploy ContosoSales -p sales
      pipelinehost deploy ContosoSales -p sales --stage prod --note "CR 1234" --detach
      pipelinehost deploy ./ContosoSales_managed.zip -p sales --settings qa.json
      pipelinehost deploy ContosoSales -p sales --set contoso_Url=https://qa.contoso.com
      pipelinehost deploy ContosoSales -p sales --connection contoso_Sql=0f1e2d3c
    """
    client = session.client
    pipeline, deployment = _deployment(client, _DeployArguments(**arguments))  # type: ignore[typeddict-item] # click's
    started = client.deploy(pipeline, **deployment)
    return _follow(client, started, form, wait=wait, timeout=timeout)


@cli.command()
@_deployment_options
@_output("table", "json")
@_session
def validate(session: Session, /, form: str, **arguments: Any) -> int:
    """Check everything that a deployment would check, and change nothing.

    Takes what `deploy` takes. Ends with 0 if the deployment would pass, with 3 if it would not.

    Examples:
      pipelinehost validate ContosoSales -p sales
      pipelinehost validate ContosoSales -p sales --stage prod --settings prod.json -o json
    """
    client = session.client
    pipeline, deployment = _deployment(client, _DeployArguments(**arguments))  # type: ignore[typeddict-item] # click's
    findings: list[Finding] = []
    summary = api.ValidateDeploymentResponse.Summary()
    with progress.ValidationView() as view:
        for response in client.validate(pipeline, **deployment):
            view.take(response)
            if response.HasField("finding"):
                findings.append(response.finding)
            elif response.HasField("summary"):
                summary = response.summary
    if form == "json":
        shown = {"summary": console.plain(summary), "findings": [console.plain(f) for f in findings]}
        out().print(console.to_json(shown, indent=2))
    else:
        _summary(summary)
    if summary.deployable:
        err().print(f"  Next: {console.program()} deploy {_again(arguments)}")
        return OK
    err().print(
        f"  Next: mend what is marked as an error, then: {console.program()} validate {_again(arguments)}"
    )
    return RUN_FAILED


def _again(arguments: dict[str, Any]) -> str:
    stage = f" --stage {arguments['stage']}" if arguments["stage"] else ""
    return clean(f"{arguments['source']} -p {arguments['pipeline']}{stage} …")


def _summary(summary: api.ValidateDeploymentResponse.Summary) -> None:
    word = "ready" if summary.deployable else "not ready"
    held = f" (holds {summary.installed_version})" if summary.installed_version else ""
    parts = names.slug(summary.stage)
    details(
        [
            ("result", Text(word, style="green" if summary.deployable else "red")),
            ("solution", f"{summary.solution} {summary.version}".strip()),
            ("stage", f"{parts}{held}"),
            ("errors", str(summary.error_count)),
            ("warnings", str(summary.warning_count)),
        ]
    )


def _deployment(client: Client, arguments: _DeployArguments) -> tuple[str, Deployment]:
    settings = DeploymentSettings()
    if arguments["settings"] is not None:
        settings = settings_file.read(arguments["settings"])
    settings = settings_file.merge(settings, arguments["variables"], arguments["connections"])
    deployment = Deployment(
        stage=arguments["stage"],
        development_environment=arguments["from_"],
        version=arguments["version"],
        settings=settings,
        note=arguments["note"],
        update=arguments["update"],
        overwrite_customizations=arguments["overwrite_customizations"],
    )
    artifact, solution = _source(client, arguments["source"])
    if artifact:
        deployment["artifact"] = artifact
    else:
        deployment["solution"] = solution
    return arguments["pipeline"], deployment


def _source(client: Client, text: str) -> tuple[str, str]:
    """The artifact, or else the solution, that an argument means; a file is uploaded."""
    path = Path(text)
    if text.lower().endswith(".zip") or (os.sep in text and path.is_file()):
        return _upload(client, path).name, ""
    if text.startswith("artifacts/") or re.fullmatch(r"[0-9a-f]{64}", text):
        return text, ""
    return "", text


def _upload(client: Client, path: Path) -> Artifact:
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


def _follow(client: Client, run_: Run, form: str, *, wait: bool, timeout: float | None = None) -> int:
    """Shows a run to its end, or leaves it; writes it to stdout."""
    shown = err()
    if not wait:
        shown.print(f"  Next: {console.program()} run watch {names.slug(run_.name)}")
        _result(run_, form)
        return OK
    try:
        last = _watched(client, run_, timeout)
    except KeyboardInterrupt:
        shown.print("Left it. The run goes on by itself.")
        shown.print(f"  Next: {console.program()} run watch {names.slug(run_.name)}")
        return NOT_FINISHED
    except errors.DeadlineExceeded:
        last = client.run(run_.name)
    progress.verdict(last, shown)
    _result(last, form)
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


def _result(run_: Run, form: str) -> None:
    if form == "table":
        out().print(f"{clean(run_.name)} {enum_word(run_, 'state')}")
    else:
        show([run_], form, [], one=True)


# Runs


@cli.group("run", cls=_Group)
def run_group() -> None:
    """Runs: deployments of an artifact to a stage."""


def _where(run_: Run) -> str:
    if run_.stage:
        return f"{names.slug(run_.pipeline)}/{names.slug(run_.stage)}"
    return f"{names.slug(run_.target_environment)} (restore)"


_RUNS: list[Column[Run]] = [
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
@_filter_option
@_limit(30)
@_listed
@_session
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
    text = _filter(
        expression,
        state=wanted.upper() if wanted else None,
        pipeline=client.pipeline(pipeline).name if pipeline else None,
        solution=solution,
        target_environment=client.environment(environment).name if environment else None,
    )
    runs = islice(client.runs(text, page_size=min(limit, 200)), limit)
    show(runs, form, _RUNS, nothing="There are no such runs.")


@run_group.command("show")
@click.argument("name", metavar="RUN")
@_single
@_session
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
            ("requester", found.requester),
            ("note", found.note),
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
    shown = err()
    if found.state != Run.STATE_SUCCEEDED:
        progress.verdict(found, shown)


def _took(step: Any) -> str:
    if not (step.HasField("start_time") and step.HasField("end_time")):
        return ""
    nanos = step.end_time.ToNanoseconds() - step.start_time.ToNanoseconds()
    return console.duration(max(nanos / 1e9, 0))


@run_group.command("watch")
@click.argument("name", metavar="RUN")
@_timeout
@_single
@_session
def run_watch(session: Session, name: str, timeout: float | None, form: str) -> int:
    """Follow a run to its end. Ctrl-C leaves it; the run goes on."""
    client = session.client
    return _follow(client, client.run(name), form, wait=True, timeout=timeout)


@run_group.command("cancel")
@click.argument("name", metavar="RUN")
@click.option("--reason", default="", help="Text for the record.")
@_single
@_session
def run_cancel(session: Session, name: str, reason: str, form: str) -> None:
    """Cancel a run whose import has not begun."""
    _result(session.client.cancel(name, reason=reason), form)


@run_group.command("retry")
@click.argument("name", metavar="RUN")
@_wait
@_timeout
@_single
@_session
def run_retry(session: Session, name: str, wait: bool, timeout: float | None, form: str) -> int:
    """Let a failed run go on from the step that failed."""
    client = session.client
    return _follow(client, client.retry(name), form, wait=wait, timeout=timeout)


@run_group.command("resolve")
@click.argument("name", metavar="RUN")
@click.option(
    "--applied/--not-applied", required=True, default=None, help="What you found in the environment."
)
@click.option("--reason", required=True, help="How you know; for the record.")
@_single
@_session
def run_resolve(session: Session, name: str, applied: bool, reason: str, form: str) -> None:
    """Say what became of an import that the host could not decide about.

    Examples:
      pipelinehost run resolve 01jd… --applied --reason "version 1.2.0.0 is installed"
      pipelinehost run resolve 01jd… --not-applied --reason "no import in the history"
    """
    resolved = session.client.resolve(name, applied=applied, reason=reason)
    err().print(f"  Next: {console.program()} run watch {names.slug(resolved.name)}")
    _result(resolved, form)


@run_group.command("findings")
@click.argument("name", metavar="RUN")
@_output("table", "json", "jsonl")
@_session
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


# Pipelines


@cli.group("pipeline", cls=_Group)
def pipeline_group() -> None:
    """Pipelines: the stages that solutions travel through."""


_PIPELINES: list[Column[Pipeline]] = [
    Column("PIPELINE", lambda p: names.slug(p.name)),
    Column("DISPLAY NAME", lambda p: p.display_name),
    Column("FROM", lambda p: ", ".join(names.slug(e) for e in p.development_environments)),
    Column("STAGES", lambda p: ", ".join(names.slug(s.name) for s in p.stages)),
]


@pipeline_group.command("list")
@_filter_option
@_listed
@_session
def pipeline_list(session: Session, expression: str, form: str) -> None:
    """List pipelines with their stages."""
    nothing = f"There are no pipelines yet.\n  Next: {console.program()} pipeline create --help"
    show(session.client.pipelines(expression), form, _PIPELINES, nothing=nothing)


@pipeline_group.command("show")
@click.argument("name", metavar="PIPELINE")
@_single
@_session
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
    newest = {s.name: next(client.runs(_filter("", stage=s.name), page_size=1), Run()) for s in found.stages}
    columns: list[Column[Stage]] = [
        Column("STAGE", lambda s: names.slug(s.name)),
        Column("DISPLAY NAME", lambda s: s.display_name),
        Column("ENVIRONMENT", lambda s: names.slug(s.environment)),
        Column("NEWEST RUN", lambda s: names.slug(newest[s.name].name)),
        Column("STATE", lambda s: state(enum_word(newest[s.name], "state"))),
        Column("SOLUTION", lambda s: f"{newest[s.name].solution} {newest[s.name].version}".strip()),
    ]
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
@_single
@_session
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


@pipeline_group.command("delete")
@click.argument("name", metavar="PIPELINE")
@_yes
@_session
def pipeline_delete(session: Session, name: str, yes: bool) -> None:
    """Delete a pipeline. Its runs and artifacts stay."""
    found = session.client.pipeline(name)
    _confirm(f"Delete {found.name}?", yes=yes)
    session.client.delete_pipeline(found.name, etag=found.etag)
    err().print(f"deleted {found.name}")


# Environments


@cli.group("environment", cls=_Group)
def environment_group() -> None:
    """Environments: what solutions are deployed from and to."""


_ENVIRONMENTS: list[Column[Environment]] = [
    Column("ENVIRONMENT", lambda e: names.slug(e.name)),
    Column("DISPLAY NAME", lambda e: e.display_name),
    Column("KIND", lambda e: enum_word(e, "kind").lower()),
    Column("REGION", lambda e: e.region),
    Column("ADDRESS", lambda e: e.url or "(embedded)"),
]


@environment_group.command("list")
@_filter_option
@_listed
@_session
def environment_list(session: Session, expression: str, form: str) -> None:
    """List environments."""
    nothing = f"There are no environments yet.\n  Next: {console.program()} environment create --help"
    show(session.client.environments(expression), form, _ENVIRONMENTS, nothing=nothing)


@environment_group.command("show")
@click.argument("name", metavar="ENVIRONMENT")
@_single
@_session
def environment_show(session: Session, name: str, form: str) -> None:
    """Show an environment."""
    found = session.client.environment(name)
    if form != "table":
        show([found], form, [], one=True)
        return
    details(
        [
            ("environment", names.slug(found.name)),
            ("display name", found.display_name),
            ("description", found.description),
            ("kind", enum_word(found, "kind").lower()),
            ("region", found.region),
            ("address", found.url or "(embedded)"),
            ("sign-in", _sign_in(found)),
            ("connections", found.connectivity_url),
            ("apps", ", ".join(f"{app} {version}" for app, version in sorted(found.installed_apps.items()))),
            ("organization", found.organization_id),
            ("created", moment(found.create_time)),
        ]
    )


_METHODS: dict[str, SignIn.Method] = {
    "client-secret": SignIn.METHOD_CLIENT_SECRET,
    "certificate": SignIn.METHOD_CERTIFICATE,
    "managed-identity": SignIn.METHOD_MANAGED_IDENTITY,
    "developer": SignIn.METHOD_DEVELOPER,
}


def _sign_in(environment: Environment) -> str:
    if not environment.HasField("sign_in"):
        return ""
    told = environment.sign_in
    known = ("application", told.client_id), ("tenant", told.tenant), ("at", told.authority)
    facts = ", ".join(f"{word} {value}" for word, value in known if value)
    return enum_word(told, "method").lower() + (f" ({facts})" if facts else "")


@environment_group.command("check")
@click.argument("name", metavar="ENVIRONMENT")
@_output("table", "json")
@_session
def environment_check(session: Session, name: str, form: str) -> int:
    """Check whether an environment can be reached and used.

    Ends with 0 if runs can use it, with 1 if something stands in the way.
    """
    health = session.client.check(name)
    usable = not any(f.severity == Finding.SEVERITY_ERROR for f in health.findings)
    if form == "json":
        show([health], form, [], one=True)
        return OK if usable else ERROR
    yes_no = {True: Text("yes", style="green"), False: Text("no", style="red")}
    details(
        [
            ("reachable", yes_no[health.reachable]),
            ("signed in", yes_no[health.signed_in]),
            ("privileged", yes_no[health.privileged]),
            ("version", health.version),
            ("region", health.region),
            ("organization", health.organization_id),
        ]
    )
    shown = err()
    for found in health.findings:
        shown.print(progress.finding(found, shown))
    return OK if usable else ERROR


@environment_group.command("set-credential")
@click.argument("name", metavar="ENVIRONMENT")
@click.option(
    "--secret-file",
    type=click.File(encoding="utf-8"),
    help="File with the application's client secret; - reads it from standard input.",
)
@click.option(
    "--certificate",
    type=click.File(encoding="utf-8"),
    help="File with certificate and private key of the application, PEM; - reads standard input.",
)
@_session
def environment_set_credential(
    session: Session, name: str, secret_file: IO[str] | None, certificate: IO[str] | None
) -> None:
    """Set the secret that the host signs in to an environment with.

    The host keeps it encrypted and gives it to nobody. A secret is not taken from the command line, where
    other users of the machine could read it.

    Examples:
      pipelinehost environment set-credential qa --secret-file ./qa.secret
      vault read -field=secret contoso/qa | pipelinehost environment set-credential qa --secret-file -
      pipelinehost environment set-credential qa --certificate ./qa.pem
    """
    given = secret_file or certificate
    if given is None or (secret_file and certificate):
        raise click.UsageError("Give either --secret-file or --certificate.")
    text = given.read()
    client = session.client
    if certificate:
        client.set_credential(name, certificate=text)
    else:
        client.set_credential(name, client_secret=text.removesuffix("\n").removesuffix("\r"))
    err().print(f"set the credential of {clean(name)}")
    err().print(f"  Next: {console.program()} environment check {clean(name)}")


@environment_group.command("create")
@click.argument("name", metavar="ENVIRONMENT")
@click.option("--kind", type=click.Choice(["development", "target"]), required=True)
@click.option(
    "--url", default="", help="Address of the environment.  [default: the host keeps an embedded one]"
)
@click.option("--connectivity-url", default="", help="Address that lists connections.")
@click.option(
    "--sign-in",
    "method",
    type=click.Choice(list(_METHODS)),
    help="How the host signs in to an https address.",
)
@click.option("--tenant", default="", help="Id or domain of the tenant to sign in to.")
@click.option("--client-id", default="", help="Id of the application, or of a managed identity.")
@click.option("--authority", default="", help="Where to sign in.  [default: the public cloud]")
@click.option("--region", default="", help="For example europe.")
@click.option("--display-name", default="")
@click.option("--description", default="")
@click.option("--app", "apps", metavar="NAME=VERSION", multiple=True, help="App in an embedded environment.")
@_single
@_session
def environment_create(
    session: Session,
    name: str,
    kind: Literal["development", "target"],
    url: str,
    connectivity_url: str,
    method: str | None,
    tenant: str,
    client_id: str,
    authority: str,
    region: str,
    display_name: str,
    description: str,
    apps: Sequence[str],
    form: str,
) -> None:
    r"""Link an environment, or make an embedded one.

    Examples:
      pipelinehost environment create dev --kind development
      pipelinehost environment create qa --kind target --url https://qa.crm4.dynamics.com \
        --sign-in client-secret --tenant contoso.onmicrosoft.com --client-id 01234567-…
    """
    environment = Environment(
        name=names.environment(name.removeprefix("environments/")),
        kind=Environment.KIND_DEVELOPMENT if kind == "development" else Environment.KIND_TARGET,
        url=url,
        connectivity_url=connectivity_url,
        region=region,
        display_name=display_name,
        description=description,
    )
    if method or tenant or client_id or authority:
        environment.sign_in.CopyFrom(SignIn(tenant=tenant, client_id=client_id, authority=authority))
        if method:
            environment.sign_in.method = _METHODS[method]
    for argument in apps:
        app, equals, version = argument.partition("=")
        if not equals:
            raise click.BadParameter(f"{argument}: write it as NAME=VERSION.", param_hint="--app")
        environment.installed_apps[app] = version
    show([session.client.create_environment(environment)], form, _ENVIRONMENTS, one=True)


@environment_group.command("delete")
@click.argument("name", metavar="ENVIRONMENT")
@_yes
@_session
def environment_delete(session: Session, name: str, yes: bool) -> None:
    """Delete the record of an environment, never the environment itself."""
    found = session.client.environment(name)
    _confirm(f"Delete the record of {found.name}?", yes=yes)
    session.client.delete_environment(found.name, etag=found.etag)
    err().print(f"deleted {found.name}")


@environment_group.command("solutions")
@click.argument("name", metavar="ENVIRONMENT")
@_listed
@_session
def environment_solutions(session: Session, name: str, form: str) -> None:
    """List the solutions in an environment, as it tells them now."""
    columns: list[Column[Solution]] = [
        Column("SOLUTION", lambda s: s.unique_name),
        Column("DISPLAY NAME", lambda s: s.display_name),
        Column("VERSION", lambda s: s.version),
        Column("MANAGED", lambda s: "managed" if s.managed else "unmanaged"),
        Column("PUBLISHER", lambda s: s.publisher),
    ]
    show(session.client.solutions(name), form, columns, nothing="There are no solutions in it.")


@environment_group.command("queue")
@click.argument("name", metavar="ENVIRONMENT")
@_output("table", "json")
@_session
def environment_queue(session: Session, name: str, form: str) -> None:
    """Show the runs that have or wait for an environment."""
    client = session.client
    queue = client.queue(name)
    if form == "json":
        show([queue], form, [], one=True)
        return
    waiting = [(n, client.run(run_)) for n, run_ in enumerate([queue.holder, *queue.waiting]) if run_]
    if not waiting:
        err().print("It is free, and nothing waits for it.")
        return
    places = {r.name: "has it" if n == 0 else str(n) for n, r in waiting}
    columns: list[Column[Run]] = [Column("PLACE", lambda r: places[r.name]), *_RUNS]
    show([r for _, r in waiting], form, columns)


# Connections


@cli.group("connection", cls=_Group)
def connection_group() -> None:
    """Connections in an environment, which connection references point at."""


_CONNECTIONS: list[Column[Connection]] = [
    Column("CONNECTION", lambda c: names.slug(c.name)),
    Column("DISPLAY NAME", lambda c: c.display_name),
    Column("CONNECTOR", lambda c: names.slug(c.connector_id)),
    Column("STATUS", lambda c: c.status),
]


@connection_group.command("list")
@click.argument("environment")
@_listed
@_session
def connection_list(session: Session, environment: str, form: str) -> None:
    """List the connections in an environment."""
    show(
        session.client.connections(environment), form, _CONNECTIONS, nothing="There are no connections in it."
    )


@connection_group.command("create")
@click.argument("environment")
@click.argument("connector")
@click.option(
    "--id", "identifier", default="", help="Id of the connection.  [default: the environment chooses]"
)
@click.option("--display-name", default="")
@_single
@_session
def connection_create(
    session: Session, environment: str, connector: str, identifier: str, display_name: str, form: str
) -> None:
    """Create a connection in an embedded environment.

    Examples:
      pipelinehost connection create qa shared_office365
    """
    client = session.client
    if "/" not in connector:
        connector = f"/providers/Microsoft.PowerApps/apis/{connector}"
    place = client.environment(environment).name
    connection = Connection(connector_id=connector, display_name=display_name)
    if identifier:
        connection.name = names.connection(place, identifier)
    show([client.create_connection(place, connection)], form, _CONNECTIONS, one=True)


@connection_group.command("delete")
@click.argument("environment")
@click.argument("connection")
@_yes
@_session
def connection_delete(session: Session, environment: str, connection: str, yes: bool) -> None:
    """Delete a connection of an embedded environment."""
    _confirm(f"Delete the connection {connection} of {environment}?", yes=yes)
    session.client.delete_connection(environment, connection)
    err().print(clean(f"deleted {connection}"))


# Solutions and their settings


@cli.group("solution", cls=_Group)
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
@_output("table", "json")
@_session
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
    artifact, solution = _source(client, source)
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


@cli.group("settings", cls=_Group)
def settings_group() -> None:
    """Deployment settings: the ecosystem's deploymentSettings.json."""


@settings_group.command("create")
@click.argument("source", metavar="SOLUTION|FILE|ARTIFACT")
@_from_environment
@_seen_from
@click.option("-o", "--output", "path", type=_FOLDER, metavar="FILE", help="[default: stdout]")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@_session
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
    pipeline = stage.removeprefix("pipelines/").partition("/")[0] or "PIPELINE"
    shown.print(
        f"  Next: fill it in, then: {console.program()} deploy {source} -p {pipeline} --settings {path}"
    )


def clean_lines(text: str) -> str:
    """Text of several lines, each made harmless."""
    return "\n".join(clean(line) for line in text.split("\n"))


# Artifacts


@cli.group("artifact", cls=_Group)
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
]


@artifact_group.command("list")
@click.option("--solution", help="Only of this solution.")
@_filter_option
@_limit(30)
@_listed
@_session
def artifact_list(session: Session, solution: str | None, expression: str, limit: int, form: str) -> None:
    """List artifacts, newest first."""
    text = _filter(expression, solution=solution)
    found = islice(session.client.artifacts(text, page_size=min(limit, 200)), limit)
    show(found, form, _ARTIFACTS, nothing="There are no such artifacts.")


@artifact_group.command("show")
@click.argument("name", metavar="ARTIFACT")
@_single
@_session
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
            ("created", moment(found.create_time)),
        ]
    )


@artifact_group.command("upload")
@click.argument("path", metavar="FILE", type=_FILE)
@_single
@_session
def artifact_upload(session: Session, path: Path, form: str) -> None:
    """Store a package. The same bytes give the same artifact."""
    show([_upload(session.client, path)], form, _ARTIFACTS, one=True)


@artifact_group.command("download")
@click.argument("name", metavar="ARTIFACT")
@click.option("-O", "--to", "path", type=_FOLDER, default=Path(), help="File or folder.  [default: here]")
@click.option("--source", is_flag=True, help="The unmanaged package instead of the managed one.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@_session
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
@_wait
@_timeout
@_single
@_session
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
    artifact, other = _source(client, name)
    return _follow(
        client, client.restore(artifact or other, environment, note=note), form, wait=wait, timeout=timeout
    )


# Events


@cli.group("event", cls=_Group)
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
@_filter_option
@_limit(50)
@_listed
@_session
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
    text = _filter(expression, subject=subject, kind=kind.upper() if kind else None, actor=actor)
    newest = session.client.events(text, order_by="sequence desc", page_size=min(limit, 200))
    show(reversed(list(islice(newest, limit))), form, _EVENTS, nothing="There are no such events.")


# Configuration as a file


@cli.command("apply")
@click.option("-f", "--file", "path", type=click.Path(path_type=Path, allow_dash=True), required=True)
@click.option(
    "--dry-run", is_flag=True, help="Show what would change, let the host check it, change nothing."
)
@_session
def apply_command(session: Session, path: Path, dry_run: bool) -> None:
    """Create and change environments and pipelines as a YAML file says.

    What the file does not name stays as it is. A second `apply` changes nothing.

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
    text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
    config = config_file.read(text, "stdin" if str(path) == "-" else str(path))
    client, writer = session.client, out()
    there = {e.name for e in client.environments()} if dry_run else set()
    counts = {"create": 0, "update": 0, "nothing": 0}
    needed = {
        p.name: {*p.development_environments, *(s.environment for s in p.stages)} for p in config.pipelines
    }
    for change in config_file.compare(client, config):
        # The host cannot check a pipeline whose environments are yet to be made.
        if change.action != "nothing" and not (dry_run and needed.get(change.name, set()) - there):
            change.do(dry_run)
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


@cli.command("get")
@click.argument("kind", type=click.Choice(["pipeline", "environment"]))
@click.argument("wanted", metavar="[NAME]...", nargs=-1)
@_output("yaml", "json")
@_session
def get_command(session: Session, kind: str, wanted: Sequence[str], form: str) -> None:
    """Write pipelines or environments as a file for `apply`; all of them if none is named.

    Examples:
      pipelinehost get pipeline sales > sales.yaml
      pipelinehost get environment -o json
    """
    client = session.client
    config = config_file.Config()
    if kind == "pipeline":
        config.pipelines = [client.pipeline(name) for name in wanted] or list(client.pipelines())
    else:
        config.environments = [client.environment(name) for name in wanted] or list(client.environments())
    found: Iterable[Any] = config.pipelines or config.environments
    if form == "json":
        show(found, form, [])
    elif found:
        out().print(config_file.write(config), end="")
