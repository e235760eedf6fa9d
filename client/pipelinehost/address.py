"""Where a host listens, and where its token for callers on the same machine lies.

The host uses this too when it writes that file; nothing here imports grpc.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import NamedTuple

from pipelinehost.errors import InvalidArgument, Violation
from pipelinehost.v1.errors_pb2 import ErrorReason

DEFAULT = "127.0.0.1:50051"
"""Where a host listens and a client looks unless they are told otherwise."""

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9_.-]+)):(?P<port>[0-9]{1,5})")


class Address(NamedTuple):
    """Host name or IP address, and port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads ``host:port``; an IPv6 address stands in brackets: ``[::1]:50051``.

        Raises:
            InvalidArgument: the text is something else.
        """
        found = _ADDRESS.fullmatch(text)
        if found is None or not 0 < int(found["port"]) < 65536:
            what = f"{text!r} is not an address of the form host:port"
            raise InvalidArgument(
                ErrorReason.ERROR_REASON_INVALID_FIELD,
                what,
                remedy=f"Write it like {DEFAULT} or pipelines.example.com:443, without https://.",
                violations=[Violation("address", what)],
            )
        return cls(found["v6"] or found["host"], int(found["port"]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent there stays on this machine."""
        if self.host.lower() == "localhost":  # RFC 6761, section 6.3
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def token_file(self) -> Path:
        """The file with the token that a host wrote for callers on its own machine.

        A host that listens on every interface and a client that calls it by any name of this machine mean the
        same file: ``$XDG_STATE_HOME/pipelinehost/127.0.0.1_50051/token``.
        """
        here = self.is_loopback or self.host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
        folder = f"{'127.0.0.1' if here else self.host.lower()}_{self.port}".replace(":", "_")
        state = os.environ.get("XDG_STATE_HOME", "")
        # The specification says that a relative path is to be ignored.
        base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
        return base / "pipelinehost" / folder / "token"
