"""Environments on loopback: one server, a path for each environment, and a token endpoint beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipelinehost_dataverse.emulator.environment import EmbeddedEnvironment
from pipelinehost_dataverse.emulator.faults import CONNECTION, Faults
from pipelinehost_dataverse.emulator.tokens import Tokens


class _Protocol(H11Protocol):
    """HTTP/1.1 that lets an application close the connection of a request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in its base
        super().connection_made(transport)
        self.app_state = {**self.app_state, CONNECTION: transport}

    def shutdown(self) -> None:
        idle = getattr(self.cycle, "response_complete", True)
        super().shutdown()
        if idle and self.scheme == "https":
            self.transport.abort()  # TLS would wait for a goodbye that an idle client does not say


def application(
    environments: Mapping[str, EmbeddedEnvironment], tokens: Tokens, *, require_token: bool
) -> ASGIApp:
    """Everything that the server answers.

    Args:
        environments: by the first part of their path.
        tokens: answers the token endpoint.
        require_token: whether environments answer 401 to calls without a token of that endpoint. Orders of
            faults need none.
    """
    mounts: list[Mount] = []
    for name, environment in environments.items():
        app = environment.app
        if require_token:
            with environment.store.read() as db:
                tenant = db.execute("SELECT tenant FROM environment").fetchone()[0]
            app = tokens.guard(app, tenant)
        mounts.append(Mount(f"/{name}", Faults(app, name)))
    return Starlette(routes=[*tokens.routes, *mounts])


def server(app: ASGIApp, certificate: Path | None = None, key: Path | None = None) -> uvicorn.Server:
    """A server for sockets that listen already; over https where there is a certificate (PEM) and its key.

    Raises:
        OSError: the certificate or the key cannot be read, or they are no PEM, or do not belong together.
    """
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        log_level="warning",
        lifespan="off",
        # The environment says what time it is; a second Date header would contradict it.
        date_header=False,
        timeout_graceful_shutdown=5,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    config.load()
    return uvicorn.Server(config)
