"""``login``, ``whoami``, ``profile …``, ``principal …`` and ``token …``: who is known to a host."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from pipelinehost import names
from pipelinehost.cli import profiles
from pipelinehost.cli.commands import options
from pipelinehost.cli.commands.session import Command, Group, Session, pass_session
from pipelinehost.cli.console import Column, details, enum_word, err, moment, out, show, to_json
from pipelinehost.client import Client
from pipelinehost.v1.resources_pb2 import Principal, Token

_ROLES = ("viewer", "user", "maker", "administrator")


@click.command("login", cls=Command)
@click.option("--as", "name", metavar="NAME", help="Name of the profile. Without it the address.")
@click.option("--token-file", "path", type=options.FILE, help="File with the token; else it is asked for.")
@pass_session
def login(session: Session, name: str | None, path: Path | None) -> None:
    """Sign in to a host with a token, and use it from now on.

    The token is read from a file, from stdin or from the keyboard, tried, and kept in a file of yours that
    nobody else can read.

    Examples:
      pipelinehost --host pipelines.example.com:443 --tls login --as work
      pipelinehost --host work pipeline list
    """
    address, tls, ca_file = session.where
    if path is not None:
        token = path.read_text(encoding="utf-8").strip()
    elif sys.stdin.isatty():
        token = click.prompt("Token", hide_input=True, err=True).strip()
    else:
        token = sys.stdin.readline().strip()
    with Client(address, token=token, tls=tls, ca_file=ca_file) as client:
        caller = client.host().caller
    profiles.keep_token(address, token)
    kept, _ = profiles.read()
    chosen = name or address
    kept[chosen] = profiles.Profile(address, tls, ca_file.absolute() if ca_file else None)
    profiles.write(kept, chosen)
    err().print(f"signed in to {address} as {names.slug(caller)}")


@click.command("whoami", cls=Command)
@options.output("table", "json")
@pass_session
def whoami(session: Session, form: str) -> None:
    """Show who you are to the host, and what you may do there."""
    found = session.client.host()
    if form == "json":
        show([found], form, [], one=True)
        return
    token = found.token
    expires = moment(token.expire_time) if token.HasField("expire_time") else "never"
    details(
        [
            ("you are", names.slug(found.caller)),
            ("role", enum_word(found, "role").lower() or "(none)"),
            ("groups", ", ".join(names.slug(g) for g in found.groups)),
            ("token", f"{names.slug(token.name)}, expires {expires}" if token.name else "(none of the host)"),
        ]
    )


@click.group("profile", cls=Group)
def profile_group() -> None:
    """Profiles: the hosts that you have signed in to."""


@profile_group.command("list")
def profile_list() -> None:
    """List your profiles; a star marks the one in use."""
    found, in_use = profiles.read()
    for name, profile in found.items():
        out().print(
            f"{'*' if name == in_use else ' '} {name}  {profile.address}{' tls' if profile.tls else ''}"
        )
    if not found:
        err().print("You have not signed in to any host yet.\n  Next: pipelinehost login --help")


@profile_group.command("use")
@click.argument("name")
def profile_use(name: str) -> None:
    """Use a profile where no --host is given."""
    found, _ = profiles.read()
    if name not in found:
        raise click.BadParameter(f"{name}: there is {', '.join(found) or 'no profile'}.", param_hint="NAME")
    profiles.write(found, name)
    err().print(f"using {name} ({found[name].address})")


@click.group("principal", cls=Group)
def principal_group() -> None:
    """Principals: persons, services and groups that the host knows."""


_PRINCIPALS: list[Column[Principal]] = [
    Column("PRINCIPAL", lambda p: names.slug(p.name)),
    Column("KIND", lambda p: enum_word(p, "kind").lower()),
    Column("ROLE", lambda p: enum_word(p, "role").lower()),
    Column("DISPLAY NAME", lambda p: p.display_name),
    Column("MEMBERS", lambda p: ", ".join(names.slug(m) for m in p.members)),
    Column("STATE", lambda p: "disabled" if p.disabled else ""),
]


@principal_group.command("list")
@options.filtered
@options.listed
@pass_session
def principal_list(session: Session, expression: str, form: str) -> None:
    """List principals with their roles."""
    show(session.client.principals(expression), form, _PRINCIPALS)


@principal_group.command("create")
@click.argument("name", metavar="PRINCIPAL")
@click.option(
    "--kind", type=click.Choice(["person", "service", "group"]), default="person", show_default=True
)
@click.option("--role", type=click.Choice(_ROLES), help="On the host as a whole.")
@click.option("--display-name", default="")
@click.option("--person", metavar="PRINCIPAL", help="Of a service: who is behind it.")
@click.option("--member", "members", metavar="PRINCIPAL", multiple=True, help="Of a group.")
@options.single
@pass_session
def principal_create(
    session: Session,
    name: str,
    kind: str,
    role: str | None,
    display_name: str,
    person: str | None,
    members: Sequence[str],
    form: str,
) -> None:
    """Make somebody known to the host. To keep them in a file instead, see `apply`.

    Examples:
      pipelinehost principal create ada --role maker
      pipelinehost principal create build --kind service --role user --person ada
      pipelinehost principal create sales-team --kind group --role user --member ada
    """
    client = session.client
    principal = Principal(
        name=names.principal(name.removeprefix("principals/")),
        display_name=display_name,
        kind=f"KIND_{kind.upper()}",
        role=f"ROLE_{role.upper()}" if role else None,
        person=client.principal(person).name if person else "",
        members=[client.principal(member).name for member in members],
    )
    show([client.create_principal(principal)], form, _PRINCIPALS, one=True)


@principal_group.command("update")
@click.argument("name", metavar="PRINCIPAL")
@click.option("--role", type=click.Choice(_ROLES))
@click.option("--disable/--enable", "disabled", default=None, help="Whether it may sign in.")
@click.option("--add", "added", metavar="PRINCIPAL", multiple=True, help="To a group.")
@click.option("--remove", "removed", metavar="PRINCIPAL", multiple=True, help="From a group.")
@options.single
@pass_session
def principal_update(
    session: Session,
    name: str,
    role: str | None,
    disabled: bool | None,
    added: Sequence[str],
    removed: Sequence[str],
    form: str,
) -> None:
    """Change what somebody is and may do, at once.

    Examples:
      pipelinehost principal update ada --disable
      pipelinehost principal update sales-team --add bob --remove ada
    """
    client = session.client
    fresh, fields = client.principal(name), []
    if role:
        fresh.MergeFrom(Principal(role=f"ROLE_{role.upper()}"))
        fields.append("role")
    if disabled is not None:
        fresh.disabled = disabled
        fields.append("disabled")
    if added or removed:
        gone = {client.principal(member).name for member in removed}
        new = [client.principal(member).name for member in added]
        fresh.members[:] = dict.fromkeys([*(m for m in fresh.members if m not in gone), *new])
        fields.append("members")
    if not fields:
        raise click.UsageError("Say what to change.")
    show([client.update_principal(fresh, fields)], form, _PRINCIPALS, one=True)


@principal_group.command("delete")
@click.argument("name", metavar="PRINCIPAL")
@options.yes
@pass_session
def principal_delete(session: Session, name: str, yes: bool) -> None:
    """Delete a principal that nothing names. To keep somebody out at once, disable them."""
    found = session.client.principal(name)
    options.confirm(f"Delete {found.name} with its tokens?", yes=yes)
    session.client.delete_principal(found.name, etag=found.etag)
    err().print(f"deleted {found.name}")


@click.group("token", cls=Group)
def token_group() -> None:
    """Tokens: what principals sign in with."""


_TOKENS: list[Column[Token]] = [
    Column("TOKEN", lambda t: names.slug(t.name)),
    Column("DESCRIPTION", lambda t: t.description),
    Column("CREATED", lambda t: moment(t.create_time)),
    Column("EXPIRES", lambda t: moment(t.expire_time) if t.HasField("expire_time") else "never"),
    Column("REVOKED", lambda t: moment(t.revoke_time) if t.HasField("revoke_time") else ""),
]


@token_group.command("create")
@click.argument("principal")
@click.option("--description", default="", help="What it is for.")
@click.option(
    "--days", type=click.IntRange(1, 3660), default=90, show_default=True, help="How long it lasts."
)
@options.output("table", "json")
@pass_session
def token_create(session: Session, principal: str, description: str, days: int, form: str) -> None:
    """Make a token and write it to stdout, once.

    Examples:
      pipelinehost token create ada --description laptop > ada.token
    """
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    made = session.client.create_token(principal, description=description, expires=expires)
    if form == "json":
        out().print(to_json({"name": made.token.name, "secret": made.secret}, indent=2))
        return
    out().print(made.secret)
    err().print(f"made {made.token.name}; it expires {moment(made.token.expire_time)} and is not shown again")


@token_group.command("list")
@click.argument("principal", required=False)
@options.listed
@pass_session
def token_list(session: Session, principal: str | None, form: str) -> None:
    """List the tokens of a principal, or your own."""
    client = session.client
    show(client.tokens(principal or client.host().caller), form, _TOKENS, nothing="There are no tokens.")


@token_group.command("revoke")
@click.argument("name", metavar="TOKEN")
@pass_session
def token_revoke(session: Session, name: str) -> None:
    """Refuse a token from now on."""
    err().print(f"revoked {session.client.revoke_token(name).name}")
