"""Profiles: hosts that somebody has signed in to, each by a name of its own."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from pipelinehost.address import Address


@dataclass(frozen=True)
class Profile:
    """How to reach a host; its token lies in the file that :class:`Address` names."""

    address: str
    tls: bool = False
    ca_file: Path | None = None


def read() -> tuple[dict[str, Profile], str]:
    """The profiles by name, and the name of the one in use; nothing where there are none."""
    try:
        kept = json.loads(_path().read_text(encoding="utf-8"))
        found = {
            str(name): Profile(p["address"], bool(p["tls"]), Path(p["ca_file"]) if p["ca_file"] else None)
            for name, p in kept["profiles"].items()
        }
        return found, str(kept["in_use"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, ""


def write(profiles: dict[str, Profile], in_use: str) -> None:
    """Keeps the profiles.

    Raises:
        OSError: this user's state cannot be written.
    """
    kept = {
        name: {"address": p.address, "tls": p.tls, "ca_file": str(p.ca_file) if p.ca_file else None}
        for name, p in profiles.items()
    }
    _private(_path(), json.dumps({"in_use": in_use, "profiles": kept}, indent=2))


def find(host: str | None) -> Profile | None:
    """The profile of this name, or the one in use if nothing was named; None if an address was meant."""
    found, in_use = read()
    return found.get(in_use if host is None else host)


def keep_token(address: str, token: str) -> Path:
    """Writes a token where the client looks for that of an address; nobody else can read it.

    Raises:
        OSError: this user's state cannot be written.
    """
    path = Address.parse(address).token_file()
    _private(path, token)
    return path


def _path() -> Path:
    return Address("localhost", 0).token_file().parent.parent / "profiles.json"


def _private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(
        os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text + "\n")
    draft.replace(path)
