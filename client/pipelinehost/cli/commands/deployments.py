"""``deploy`` and ``validate``, which take the same arguments, and ``redeploy``, which goes back."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict

import click
from rich.text import Text

from pipelinehost import lookup, names
from pipelinehost.cli import console, progress, settings_file
from pipelinehost.cli.commands import options
from pipelinehost.cli.commands.artifacts import artifact_or_solution
from pipelinehost.cli.commands.pipelines import put_hold
from pipelinehost.cli.commands.runs import follow
from pipelinehost.cli.commands.session import Command, Session, pass_session
from pipelinehost.cli.console import clean, details, err, out
from pipelinehost.cli.failure import OK, RUN_FAILED
from pipelinehost.client import Client, Deployment
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import DeploymentSettings, Finding, Stage

_NOT_ACCEPTED = "LOSS_NOT_ACCEPTED"
"""The finding of a redeployment whose loss nobody has accepted yet."""


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
    at: datetime | None
    override_reason: str


_PIPELINE = click.option("-p", "--pipeline", required=True, help="Name or display name of the pipeline.")
_FOR_THE_TARGET = [
    click.option("--settings", type=options.FILE, help="deploymentSettings.json with values for the target."),
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
    click.option(
        "--overwrite-customizations", is_flag=True, help="Remove what was changed in the target by hand."
    ),
    click.option("--note", default="", help="Text for the record."),
    options.at,
    options.override,
]


_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _taking(*taken: _Decorator) -> Callable[[options.F], options.F]:
    def decorate(command: options.F) -> options.F:
        for option in reversed(taken):
            option(command)  # click notes it in the function itself
        return command

    return decorate


_deployment_options = _taking(
    click.argument("source", metavar="SOLUTION|FILE|ARTIFACT"),
    _PIPELINE,
    click.option("--stage", default="", help="Stage of the pipeline.  [default: the next one that is due]"),
    click.option(
        "--from",
        "from_",
        metavar="ENVIRONMENT",
        default="",
        help="Development environment, where the pipeline has several.",
    ),
    click.option("--version", default="", help="Version that the development environment must hold."),
    click.option("--update", is_flag=True, help="Delete nothing in the target, where an upgrade would."),
    *_FOR_THE_TARGET,
)


@click.command(cls=Command)
@_deployment_options
@options.wait
@options.timeout
@options.output("table", "json", "name")
@pass_session
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
      pipelinehost deploy ContosoSales -p sales --stage prod --at 2026-12-27T06:00 --detach
    """
    client = session.client
    pipeline, deployment = _deployment(client, _DeployArguments(**arguments))  # type: ignore[typeddict-item] # click's
    started = client.deploy(pipeline, **deployment)
    if arguments["at"] is not None:
        err().print(options.scheduled(arguments["at"]))
    return follow(client, started, form, wait=wait, timeout=timeout)


@click.command(cls=Command)
@_deployment_options
@options.output("table", "json")
@pass_session
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


@click.command(cls=Command)
@_taking(
    click.argument("solution", metavar="SOLUTION"),
    _PIPELINE,
    click.option("--stage", required=True, help="Stage of the pipeline."),
    click.option(
        "--version",
        default="",
        help="Version to go back to.  [default: what the stage held before what it holds now]",
    ),
    click.option("--artifact", default="", help="The same by artifact: artifacts/SHA256 or its beginning."),
    click.option("--accept", metavar="LOSS", default="", help="Lose exactly what was shown before, and go."),
    click.option(
        "--hold",
        metavar="REASON",
        default="",
        help="Afterwards hold the stage on that version, until `pipeline release`.",
    ),
    *_FOR_THE_TARGET,
)
@options.yes
@options.wait
@options.timeout
@options.output("table", "json", "name")
@pass_session
def redeploy(
    session: Session,
    /,
    solution: str,
    version: str,
    artifact: str,
    accept: str,
    hold: str,
    yes: bool,
    form: str,
    wait: bool,
    timeout: float | None,
    **arguments: Any,
) -> int:
    """Go back to a version that a stage held before.

    Shows first what would be lost, component by component, and asks. It goes back only if exactly that would
    still be lost when it comes to the import. Without a terminal it shows the same and ends with 3, unless
    --yes accepts whatever there is, or --accept what was shown before. The pipeline has to allow
    redeployment.

    Examples:
      pipelinehost redeploy ContosoSales -p sales --stage prod
      pipelinehost redeploy ContosoSales -p sales --stage prod --version 1.4.0.0 --note "CR 1234"
      pipelinehost redeploy ContosoSales -p sales --stage prod --hold "until the invoices are right"
    """
    if version and artifact:
        raise click.UsageError("--version and --artifact say the same; give one.")
    if hold and not wait:
        raise click.UsageError("--hold comes after the run: leave --detach out, or use `pipeline hold`.")
    client = session.client
    pipeline = arguments["pipeline"]
    if not artifact:
        artifact = client.held_before(pipeline, arguments["stage"], solution, version=version)
    deployment = Deployment(
        artifact=artifact,
        stage=arguments["stage"],
        settings=_settings(arguments),
        note=arguments["note"],
        overwrite_customizations=arguments["overwrite_customizations"],
        override_reason=arguments["override_reason"],
    )
    if arguments["at"] is not None:
        deployment["schedule_time"] = arguments["at"]
    if hold:
        _held(client, arguments, solution, version or client.artifact(artifact).version, hold, only_try=True)
    if not accept:
        again = _again({**arguments, "source": solution, "artifact": artifact, "hold": hold})
        summary, others = _preview(client, pipeline, deployment)
        if any(found.severity == Finding.SEVERITY_ERROR for found in others):
            err().print(f"  Next: mend that, then: {console.program()} redeploy {again}")
            return RUN_FAILED
        if not any(found.code == "REDEPLOYMENT" for found in others):
            held = summary.installed_version or "nothing"
            raise click.UsageError(f"{summary.version} is no way back from {held}: `deploy` it.")
        if not yes and not sys.stdin.isatty():
            accepting = f" --accept {summary.loss_sha256}" if summary.loss_sha256 else " --yes"
            err().print(f"  Next: {console.program()} redeploy {again}{accepting}")
            return RUN_FAILED
        question = f"Bring {names.slug(summary.stage)} from {summary.installed_version} to {summary.version}"
        options.confirm(f"{question}{', and lose this' if summary.loss_sha256 else ''}?", yes=yes)
        accept = summary.loss_sha256
    deployment["loss_sha256"] = accept
    started = client.deploy(pipeline, **deployment)
    if arguments["at"] is not None:
        err().print(options.scheduled(arguments["at"]))
    code = follow(client, started, form, wait=wait, timeout=timeout)
    if hold and code == OK:
        _held(client, arguments, solution, started.version, hold)
    elif hold:
        err().print("The stage is not held: it was not brought back yet.")
    return code


def _held(
    client: Client,
    arguments: Mapping[str, Any],
    solution: str,
    version: str,
    reason: str,
    *,
    only_try: bool = False,
) -> None:
    """Holds the stage on a version; beforehand it is tried, so that who may not do that learns it in time."""
    pipeline = client.pipeline(arguments["pipeline"])
    stage = lookup.stage(arguments["stage"], pipeline).name
    made = Stage.Hold(solution=solution, version=version, reason=reason)
    put_hold(client, pipeline, stage, solution, made, validate_only=only_try)
    if not only_try:
        err().print(clean(f"{stage} is held on {solution} {version}"))


def _preview(
    client: Client, pipeline: str, deployment: Deployment
) -> tuple[api.ValidateDeploymentResponse.Summary, list[Finding]]:
    """Shows what going back would lose; gives the summary, and what was found beside the losses."""
    losses, others = list[Finding](), list[Finding]()
    summary = api.ValidateDeploymentResponse.Summary()
    with progress.ValidationView() as view:
        for response in client.validate(pipeline, **deployment):
            found = response.finding
            if response.HasField("summary"):
                summary = response.summary
            elif found.code in progress.LOSSES:
                losses.append(found)
            elif found.code != _NOT_ACCEPTED:
                view.take(response)
                if found.code:
                    others.append(found)
    progress.losses(losses, err())
    held = summary.installed_version or "nothing"
    lost = f"loses {summary.loss_sha256}" if summary.loss_sha256 else "loses nothing"
    err().print(clean(f"  {names.slug(summary.stage)} holds {held}; {summary.version} {lost}"))
    return summary, others


_REPEATED = (
    ("pipeline", "-p"),
    ("stage", "--stage"),
    ("from_", "--from"),
    ("version", "--version"),
    ("artifact", "--artifact"),
    ("settings", "--settings"),
    ("at", "--at"),
    ("note", "--note"),
    ("hold", "--hold"),
    ("override_reason", "--override-reason"),
)


def _again(arguments: Mapping[str, Any]) -> str:
    """The arguments of a call, to be typed again; without values for the target, which may be secret."""
    words = [shlex.quote(arguments["source"])]
    for name, option in _REPEATED:
        if value := arguments.get(name):
            said = value.isoformat() if isinstance(value, datetime) else str(value)
            words += [option, shlex.quote(said)]
    words += [
        f"--{flag.replace('_', '-')}"
        for flag in ("update", "overwrite_customizations")
        if arguments.get(flag)
    ]
    if arguments["variables"] or arguments["connections"]:
        words.append("…")
    return clean(" ".join(words))


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
    deployment = Deployment(
        stage=arguments["stage"],
        development_environment=arguments["from_"],
        version=arguments["version"],
        settings=_settings(arguments),
        note=arguments["note"],
        update=arguments["update"],
        overwrite_customizations=arguments["overwrite_customizations"],
        override_reason=arguments["override_reason"],
    )
    if arguments["at"] is not None:
        deployment["schedule_time"] = arguments["at"]
    artifact, solution = artifact_or_solution(client, arguments["source"])
    if artifact:
        deployment["artifact"] = artifact
    else:
        deployment["solution"] = solution
    return arguments["pipeline"], deployment


def _settings(arguments: Mapping[str, Any]) -> DeploymentSettings:
    settings = DeploymentSettings()
    if arguments["settings"] is not None:
        settings = settings_file.read(arguments["settings"])
    return settings_file.merge(settings, arguments["variables"], arguments["connections"])
