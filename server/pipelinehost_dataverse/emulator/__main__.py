"""``pipelinehost-emulator serve``: embedded environments on loopback, in a process of their own."""

from __future__ import annotations

import argparse
import logging
import re
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TextIO

import uvicorn

from pipelinehost_dataverse.emulator import serving
from pipelinehost_dataverse.emulator.environment import EmbeddedEnvironment
from pipelinehost_dataverse.emulator.store import EnvironmentInUseError
from pipelinehost_dataverse.emulator.tokens import SECONDS, Tokens, read_clients

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_MORE = """\
An environment is a file NAME.sqlite in FOLDER; those that lie there are served, and --environment makes new
ones. Each answers the Web API at ORIGIN/NAME/api/data/v9.2/ and its connections at ORIGIN/NAME/connectivity/.

sign in, where --require-token is given (any TENANT; an audience is ORIGIN or ORIGIN/NAME):
  curl ORIGIN/TENANT/oauth2/v2.0/token -d grant_type=client_credentials \\
       -d client_id=ID -d client_secret=SECRET -d scope=ORIGIN/.default

order a fault (throttled, locked, failed, unreceived, unanswered, slow) for the first import:
  curl ORIGIN/NAME/faults --json '{"fault": "unanswered", "path": "ImportSolution*"}'
  curl ORIGIN/NAME/faults                      what is ordered, and how often it was given
  curl ORIGIN/NAME/faults -X DELETE            take it all back
members beside fault: method ("*"), path ("*", what follows /api/data/v9.2/), skip (0: requests that pass
first), times (1), seconds (2: of Retry-After, or of a slow answer), status (503: of failed).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve environments until SIGTERM or SIGINT.

    Args:
        arguments: of the command line; ``sys.argv`` where None.

    Returns:
        The exit code: 0 after a signal, 1 where a file or the port could not be opened.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.certificate is None) != (options.key is None):
        parser.error("--certificate and --key belong together")
    if options.reader and not options.require_token:
        parser.error("--reader needs --require-token: without a token nobody says who asks")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    with ExitStack() as opened:
        try:
            names = _names(options.data, options.environment)
            clients = read_clients(options.clients) if options.clients else None
            environments: dict[str, EmbeddedEnvironment] = {}
            for name in names:
                environments[name] = EmbeddedEnvironment.open(
                    options.data / f"{name}.sqlite",
                    name=name,
                    region=options.region,
                    installed_apps=dict(options.app),
                    honour_import_job_id=not options.ignore_import_job_id,
                    allow_downgrade=options.allow_downgrade,
                    pace=options.pace,
                )
                opened.callback(environments[name].close)
            app = serving.application(
                environments,
                Tokens(clients, readers=options.reader, seconds=options.token_seconds),
                require_token=options.require_token,
            )
            server = serving.server(app, options.certificate, options.key)
            # Named TCP: asyncio sets TCP_NODELAY on no other; without it each answer waits 40 ms for an ACK.
            listening = opened.enter_context(
                socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            )
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("127.0.0.1", options.port))
        except (EnvironmentInUseError, ValueError, OSError) as error:
            _say(f"pipelinehost-emulator: {error}", sys.stderr)
            return 1
        _serve(server, listening, names, "https" if options.certificate else "http")
    return 0


def _names(folder: Path, asked: Sequence[str]) -> list[str]:
    """The environments to serve: those in the folder, and those that are asked for."""
    found = {path.stem for path in folder.glob("*.sqlite") if _NAME.fullmatch(path.stem)}
    names = sorted(found | set(asked))
    if not names:
        raise ValueError(f"{folder} holds no environment; make one with --environment NAME")
    return names


def _serve(server: uvicorn.Server, listening: socket.socket, names: Sequence[str], scheme: str) -> None:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # Uvicorn takes these over while it serves and raises the signal again when it is done; then ours is
    # called, and the environments close in order.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    listening.listen(128)
    port = listening.getsockname()[1]
    for name in names:
        _say(f"{scheme}://127.0.0.1:{port}/{name}/api/data/v9.2/", sys.stdout)
    server.run(sockets=[listening])


def _say(text: str, stream: TextIO) -> None:
    stream.write(text + "\n")
    stream.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pipelinehost-emulator",
        description="Environments that answer the Dataverse Web API on loopback.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve environments until SIGTERM; prints one address per environment when it listens",
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="where NAME.sqlite files lie"
    )
    serve.add_argument("--port", type=int, default=0, help="0, the default, takes any free port")
    serve.add_argument(
        "--environment",
        type=_name,
        action="append",
        default=[],
        metavar="NAME",
        help="make this environment where the folder has none of that name; may be repeated",
    )
    serve.add_argument(
        "--certificate", type=Path, metavar="FILE", help="PEM: serve https instead of http, with --key"
    )
    serve.add_argument("--key", type=Path, metavar="FILE", help="PEM: the certificate's private key")
    serve.add_argument(
        "--require-token", action="store_true", help="answer 401 to calls without a token of ours"
    )
    serve.add_argument(
        "--clients",
        type=Path,
        metavar="FILE",
        help="who gets tokens: CLIENT_ID=SECRET a line; without it, everybody",
    )
    serve.add_argument(
        "--reader",
        action="append",
        default=[],
        metavar="CLIENT_ID",
        help="this application may read, and neither export nor import; may be repeated",
    )
    serve.add_argument(
        "--token-seconds",
        type=int,
        default=SECONDS,
        metavar="N",
        help="how long a token is good (%(default)s)",
    )
    serve.add_argument("--region", default="", help="geography of all of them")
    serve.add_argument(
        "--app",
        type=_app,
        action="append",
        default=[],
        metavar="NAME=VERSION",
        help="a solution that counts as installed; may be repeated",
    )
    serve.add_argument(
        "--pace", type=float, default=0.0, metavar="SECONDS", help="least duration of an import"
    )
    serve.add_argument("--ignore-import-job-id", action="store_true", help="give imports job ids of our own")
    serve.add_argument("--allow-downgrade", action="store_true", help="let updates bring lower versions")
    return parser


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not usable in an address: lower-case letters, digits and '-', at most 63"
        )
    return text


def _app(text: str) -> tuple[str, str]:
    name, sign, version = text.partition("=")
    if not sign or not name or not version:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VERSION")
    return name, version


if __name__ == "__main__":
    sys.exit(main())
