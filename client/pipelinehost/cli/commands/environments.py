"""``environment …``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Literal

import click
from rich.text import Text

from pipelinehost import names
from pipelinehost.cli import console, progress
from pipelinehost.cli.commands import options
from pipelinehost.cli.commands.runs import RUNS
from pipelinehost.cli.commands.session import Group, Session, pass_session
from pipelinehost.cli.console import Column, clean, details, enum_word, err, moment, show
from pipelinehost.cli.failure import ERROR, OK
from pipelinehost.v1.resources_pb2 import Environment, Finding, Run, SignIn, Solution


@click.group("environment", cls=Group)
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
@options.filtered
@options.listed
@pass_session
def environment_list(session: Session, expression: str, form: str) -> None:
    """List environments."""
    nothing = f"There are no environments yet.\n  Next: {console.program()} environment create --help"
    show(session.client.environments(expression), form, _ENVIRONMENTS, nothing=nothing)


@environment_group.command("show")
@click.argument("name", metavar="ENVIRONMENT")
@options.single
@pass_session
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
            ("sign-in", sign_in_words(found.sign_in)),
            ("connections", found.connectivity_url),
            ("apps", ", ".join(f"{app} {version}" for app, version in sorted(found.installed_apps.items()))),
            ("organization", found.organization_id),
            ("taken by", found.taken_by and f"{found.taken_by}, noticed {moment(found.taken_time)}"),
            ("created", moment(found.create_time)),
        ]
    )


_METHODS: dict[str, SignIn.Method] = {
    "client-secret": SignIn.METHOD_CLIENT_SECRET,
    "certificate": SignIn.METHOD_CERTIFICATE,
    "managed-identity": SignIn.METHOD_MANAGED_IDENTITY,
    "developer": SignIn.METHOD_DEVELOPER,
}


def sign_in_words(told: SignIn) -> str:
    """How the host signs in, in one line; empty where it does not."""
    if not told.method:
        return ""
    known = ("application", told.client_id), ("tenant", told.tenant), ("at", told.authority)
    facts = ", ".join(f"{word} {value}" for word, value in known if value)
    return enum_word(told, "method").lower() + (f" ({facts})" if facts else "")


@environment_group.command("check")
@click.argument("name", metavar="ENVIRONMENT")
@options.output("table", "json")
@pass_session
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
@click.argument("name", metavar="ENVIRONMENT|PIPELINE/STAGE")
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
@pass_session
def environment_set_credential(
    session: Session, name: str, secret_file: IO[str] | None, certificate: IO[str] | None
) -> None:
    """Set the secret that the host signs in to an environment with.

    The host keeps it encrypted and gives it to nobody. A secret is not taken from the command line, where
    other users of the machine could read it. A stage with a sign_in of its own has its own secret.

    Examples:
      pipelinehost environment set-credential qa --secret-file ./qa.secret
      vault read -field=secret contoso/qa | pipelinehost environment set-credential qa --secret-file -
      pipelinehost environment set-credential qa --certificate ./qa.pem
      pipelinehost environment set-credential sales/production --secret-file ./sales.secret
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
    if "/" not in name.removeprefix("environments/"):
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
@options.single
@pass_session
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
@options.yes
@pass_session
def environment_delete(session: Session, name: str, yes: bool) -> None:
    """Delete the record of an environment, never the environment itself."""
    found = session.client.environment(name)
    options.confirm(f"Delete the record of {found.name}?", yes=yes)
    client = session.client
    client.delete_environment(found.name, etag=found.etag)
    err().print(f"deleted {found.name}")
    newest = next(client.events(f'subject = "{found.name}"', order_by="sequence desc", page_size=1), None)
    if newest is not None and newest.message:  # what could not be taken away in the environment itself
        err().print(f"  {clean(newest.message)}")


@environment_group.command("take-over")
@click.argument("name", metavar="ENVIRONMENT")
@click.option("--reason", required=True, help="Why; it is recorded.")
@options.yes
@pass_session
def environment_take_over(session: Session, name: str, reason: str, yes: bool) -> None:
    """Take an environment over that belongs to another host, which then loses it.

    An environment belongs to the host that reached it first. The other host notices at its next contact, and
    its runs fail before anything is sent; its administrators can take the environment back the same way.

    Examples:
      pipelinehost environment take-over production --reason "the old host is switched off"
    """
    client = session.client
    found = client.environment(name)
    options.confirm(f"Take {found.name} over from the host that it belongs to?", yes=yes)
    client.take_over(found.name, reason)
    err().print(f"{found.name} belongs to this host")
    err().print(f"  Next: {console.program()} environment check {names.slug(found.name)}")


@environment_group.command("solutions")
@click.argument("name", metavar="ENVIRONMENT")
@options.listed
@pass_session
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
@options.output("table", "json")
@pass_session
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
    columns: list[Column[Run]] = [Column("PLACE", lambda r: places[r.name]), *RUNS]
    show([r for _, r in waiting], form, columns)
