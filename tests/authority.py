"""Certificates for tests: an authority of our own, and what it signs for this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """PEM files of a server on 127.0.0.1 and localhost, and of the authority that vouches for it."""

    authority: Path
    certificate: Path
    key: Path


def certificates(folder: Path) -> Certificates:
    """Make them anew in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(folder / "authority.pem", folder / "server.pem", folder / "server.key")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(made.authority)
    issued.cert_chain_pems[0].write_to_path(made.certificate)
    issued.private_key_pem.write_to_path(made.key)
    return made


def application() -> str:
    """Certificate and private key of an application that signs in with them: RSA, as Entra asks."""
    issued = trustme.CA().issue_cert("application.example", key_type=trustme.KeyType.RSA)
    return (issued.cert_chain_pems[0].bytes() + issued.private_key_pem.bytes()).decode()
