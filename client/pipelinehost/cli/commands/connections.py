"""``connection …``."""

from __future__ import annotations

import click

from pipelinehost import names
from pipelinehost.cli.commands import options
from pipelinehost.cli.commands.session import Group, Session, pass_session
from pipelinehost.cli.console import Column, clean, err, show
from pipelinehost.v1.resources_pb2 import Connection


@click.group("connection", cls=Group)
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
@options.listed
@pass_session
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
@options.single
@pass_session
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
@options.yes
@pass_session
def connection_delete(session: Session, environment: str, connection: str, yes: bool) -> None:
    """Delete a connection of an embedded environment."""
    options.confirm(f"Delete the connection {connection} of {environment}?", yes=yes)
    session.client.delete_connection(environment, connection)
    err().print(clean(f"deleted {connection}"))
