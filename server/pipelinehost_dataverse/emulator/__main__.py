"""``pipelinehost-emulator serve``: embedded environments on loopback, in a process of their own."""

from __future__ import annotations

import argparse
import re
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from pipelinehost_dataverse.emulator.environment import EmbeddedEnvironment
from pipelinehost_dataverse.emulator.store import EnvironmentInUseError

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve environments until SIGTERM or SIGINT.

    Args:
        arguments: of the command line; ``sys.argv`` where None.

    Returns:
        The exit code: 0 after a signal, 1 where a file or the port could not be opened.
    """
    options = _parser().parse_args(arguments)
    apps = dict(options.app)
    with ExitStack() as opened:
        mounts: dict[str, ASGIApp] = {}
        try:
            for name in options.environment:
                environment = EmbeddedEnvironment.open(
                    options.data / f"{name}.sqlite",
                    name=name,
                    region=options.region,
                    installed_apps=apps,
                    honour_import_job_id=not options.ignore_import_job_id,
                    allow_downgrade=options.allow_downgrade,
                    pace=options.pace,
                )
                opened.callback(environment.close)
                mounts[name] = environment.app
            # Named TCP: asyncio sets TCP_NODELAY on no other; without it each answer waits 40 ms for an ACK.
            listening = opened.enter_context(
                socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            )
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("127.0.0.1", options.port))
        except (EnvironmentInUseError, ValueError, OSError) as error:
            _say(f"pipelinehost-emulator: {error}", sys.stderr)
            return 1
        _serve(listening, mounts)
    return 0


def _serve(listening: socket.socket, mounts: Mapping[str, ASGIApp]) -> None:
    server = uvicorn.Server(
        uvicorn.Config(
            Starlette(routes=[Mount(f"/{name}", app) for name, app in mounts.items()]),
            log_level="warning",
            lifespan="off",
            # The environment says what time it is; a second Date header would contradict it.
            date_header=False,
            timeout_graceful_shutdown=5,
        )
    )

    def stop(_signal: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # Uvicorn takes these over while it serves and raises the signal again when it is done; then ours is
    # called, and the environments close in order.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    listening.listen(128)
    port = listening.getsockname()[1]
    for name in mounts:
        _say(f"http://127.0.0.1:{port}/{name}/api/data/v9.2/", sys.stdout)
    server.run(sockets=[listening])


def _say(text: str, stream: object) -> None:
    print(text, file=stream, flush=True)  # type: ignore[call-overload]  # a command's output


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pipelinehost-emulator",
        description="Environments that answer the Dataverse Web API on loopback.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve", help="serve environments until SIGTERM; prints one address per environment when it listens"
    )
    serve.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="where NAME.sqlite files lie"
    )
    serve.add_argument("--port", type=int, default=0, help="0, the default, takes any free port")
    serve.add_argument(
        "--environment", type=_name, action="append", required=True, metavar="NAME", help="may be repeated"
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
