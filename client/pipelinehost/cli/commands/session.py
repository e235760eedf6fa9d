"""How commands reach the host, and what their help looks like."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import click

from pipelinehost.client import Client


class Session:
    """How to reach the host; the connection is made when a command first needs it."""

    def __init__(self, host: str, token_file: Path | None, tls: bool, ca_file: Path | None) -> None:
        self._host, self._token_file, self._tls, self._ca_file = host, token_file, tls, ca_file
        self._client: Client | None = None

    @property
    def where(self) -> tuple[str, bool, Path | None]:
        """Address, whether to encrypt, and what certificates to trust."""
        return self._host, self._tls or self._ca_file is not None, self._ca_file

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


pass_session = click.make_pass_decorator(Session)


class Command(click.Command):
    """A command whose help shows examples line by line, and does not wrap them into a paragraph."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.help:
            # click takes a backspace for the sign of a paragraph that is not to be wrapped.
            self.help = re.sub(r"\n\n(?=(Examples|The file):\n)", "\n\n\b\n", inspect.cleandoc(self.help))


class Group(Command, click.Group):
    """A group whose help lists commands in the order of the source, which is the order of use."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were added."""
        return list(self.commands)
