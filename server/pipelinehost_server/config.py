"""Settings of a host, read once at its start and never changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Config:
    """What an administrator decides before the host starts."""

    folder: Path
    """Where everything is kept: the store, the packages, the key and the embedded environments."""
    address: str = "127.0.0.1:50051"
    """Host and port to serve on."""
    certificate: Path | None = None
    """Certificate chain of the host, PEM; with it every connection is encrypted."""
    key: Path | None = None
    """Private key of the certificate, PEM."""
    client_ca: Path | None = None
    """Authorities whose client certificates are accepted, PEM; with it every client needs one."""
    oidc_issuer: str = ""
    """Issuer whose tokens are accepted beside the host's own; empty for none."""
    oidc_audience: str = ""
    """What the issuer's tokens call this host."""
    oidc_claim: str = "sub"
    """What names the bearer of such a token."""
    oidc_keys: Path | None = None
    """The issuer's keys, where it is not to be asked for them."""
    region: str = ""
    """Region of the host; empty means that it is not compared."""
    allow_cross_region: bool = False
    """Lets a run go from one region to another."""
    embedded_pace: float = 0.0
    """Seconds that an import in an embedded environment takes at least, so that progress can be seen."""
    max_package_bytes: int = 120 * 1024 * 1024
    """Size of the largest package that is taken."""
    upload_idle_seconds: float = 30
    """How long an upload may stand still."""
    heartbeat_seconds: float = 15
    """How often a watcher hears that the line is alive."""
    advancing: int = 32
    """Runs that are advanced at once; 0 accepts runs and keeps them, for maintenance."""
