"""``pipelinehost-server``: the command that runs a host."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelinehost_server.config import Config
from pipelinehost_server.log import log_to_stderr

_EXTRA = ("cryptography", "grpc_health", "grpc_reflection", "httpx", "jwt", "lxml", "peewee", "uvloop")
"""What the program imports that a wheel without the extra [server] does not bring."""
_EXAMPLES = """\
examples:
  pipelinehost-server serve --data ./data
      serves on 127.0.0.1:50051; clients of the same user on this machine find the token by themselves
  pipelinehost-server serve --data ./data --address 127.0.0.1:0
      takes any free port and prints it
  pipelinehost-server serve --data ./data --region europe
      refuses deployments from or to environments of other regions

The first line on standard output says that the host is ready, and where its data and the administrator's
token are. Everything else goes to standard error. SIGTERM and Ctrl-C let open calls finish; runs go on at the
next start. Exit codes: 0 stopped, 1 could not start, 2 wrong usage.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and does what it says; ends the program."""
    for name in _EXTRA:
        if importlib.util.find_spec(name) is None:
            sys.stderr.write(
                f"pipelinehost-server: {name} is not installed.\n  Next: pip install 'pipelinehost[server]'\n"
            )
            sys.exit(1)
    options = _parser().parse_args(arguments)
    # Only now: help and wrong usage are answered without loading what takes a second.
    import uvloop

    from pipelinehost.errors import PipelineHostError
    from pipelinehost_server.app import AddressRefused, new_administrator_token, rotate_key, serve
    from pipelinehost_server.encryption import KeyUnusable, SealBroken
    from pipelinehost_server.issuer import KeysUnusable
    from pipelinehost_server.store import StoreLocked, StoreTooNew

    log_to_stderr(options.log_level)
    if options.command == "rotate-key":
        work = rotate_key(options.data)
    elif options.command == "new-admin-token":
        work = new_administrator_token(options.data)
    else:
        work = serve(
            Config(
                folder=options.data,
                address=options.address,
                certificate=options.certificate,
                key=options.key,
                client_ca=options.client_ca,
                oidc_issuer=options.oidc_issuer,
                oidc_audience=options.oidc_audience,
                oidc_claim=options.oidc_claim,
                oidc_keys=options.oidc_keys,
                region=options.region,
                allow_cross_region=options.allow_cross_region,
                embedded_pace=options.embedded_pace,
                advancing=options.advancing,
            )
        )
    try:
        uvloop.run(work)
    except (
        AddressRefused,
        KeysUnusable,
        KeyUnusable,
        OSError,
        PipelineHostError,
        SealBroken,
        StoreLocked,
        StoreTooNew,
    ) as error:
        sys.stderr.write(f"pipelinehost-server: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:  # a second Ctrl-C, while stopping
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pipelinehost-server",
        description="The host of PipelineHost: pipelines of Power Platform environments, over gRPC.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")
    serving = commands.add_parser(
        "serve",
        help="run a host until it is told to stop",
        description="Runs a host on a data folder until it gets SIGTERM or Ctrl-C.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Config(folder=Path())
    serving.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder for the store, packages, the key and embedded environments; made if it is missing",
    )
    serving.add_argument(
        "--address",
        default=default.address,
        metavar="HOST:PORT",
        help="address to serve on, on loopback unless there is a certificate; port 0 means any free one "
        "(default: %(default)s)",
    )
    serving.add_argument(
        "--certificate", type=Path, metavar="FILE", help="certificate chain of the host, PEM: encrypts"
    )
    serving.add_argument("--key", type=Path, metavar="FILE", help="private key of the certificate, PEM")
    serving.add_argument(
        "--client-ca",
        type=Path,
        metavar="FILE",
        help="authorities, PEM: every client needs a certificate of theirs, which may stand for a token",
    )
    serving.add_argument(
        "--oidc-issuer",
        default="",
        metavar="URL",
        help="accept tokens of this issuer, whose principals name it in their identities",
    )
    serving.add_argument(
        "--oidc-audience", default="", metavar="TEXT", help="what the issuer's tokens call this host"
    )
    serving.add_argument(
        "--oidc-claim",
        default=default.oidc_claim,
        metavar="NAME",
        help="what names the bearer: sub, or oid for Entra ID (default: %(default)s)",
    )
    serving.add_argument(
        "--oidc-keys",
        type=Path,
        metavar="FILE",
        help="the issuer's keys (JWKS), where the host cannot ask the issuer for them",
    )
    serving.add_argument(
        "--region",
        default=default.region,
        help="region of this host; environments of other regions are refused (default: not compared)",
    )
    serving.add_argument(
        "--allow-cross-region", action="store_true", help="allow deployments from one region to another"
    )
    serving.add_argument(
        "--embedded-pace",
        type=_seconds,
        default=default.embedded_pace,
        metavar="SECONDS",
        help="what an import in an embedded environment takes at least, to see its progress (default: 0)",
    )
    serving.add_argument(
        "--advancing",
        type=_count,
        default=default.advancing,
        metavar="N",
        help="runs to advance at once; 0 accepts runs and keeps them queued (default: %(default)s)",
    )
    rotating = commands.add_parser(
        "rotate-key",
        help="change the key that secrets are encrypted with",
        description="Makes a new key, encrypts every secret of a stopped host with it and retires the old "
        "one. It may be interrupted and begun again. Where PIPELINEHOST_KEY holds the key, "
        "PIPELINEHOST_NEW_KEY must hold the new one.",
    )
    rotating.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="data folder of a host that is stopped"
    )
    renewing = commands.add_parser(
        "new-admin-token",
        help="make a new token of the administrator, where it was lost",
        description="Makes a new token of principals/admin of a stopped host, and leaves it in the file "
        "admin-token of the data folder. A disabled administrator is enabled again.",
    )
    renewing.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="data folder of a host that is stopped"
    )
    for command in (serving, rotating, renewing):
        command.add_argument(
            "--log-level",
            default="info",
            choices=("debug", "info", "warning", "error"),
            help="least level to log on standard error (default: %(default)s)",
        )
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 3_600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 3600")
    return value


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 999")
    return int(text)


if __name__ == "__main__":
    main()
