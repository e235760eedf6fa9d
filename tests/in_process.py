"""Embedded environments in the process of whoever asks them, in place of the one beside a host."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from pipelinehost_dataverse.emulator import EmbeddedEnvironment, EnvironmentInUseError
from pipelinehost_dataverse.webapi import EnvironmentUnreachable


class InProcess:
    """Stands in for ``pipelinehost_server.embedded.Embedded``."""

    def __init__(self) -> None:
        self.environments: dict[str, EmbeddedEnvironment] = {}

    async def open(self, name: str, *, path: str, **settings: Any) -> tuple[str, httpx.AsyncBaseTransport]:
        try:
            found = await asyncio.to_thread(EmbeddedEnvironment.open, Path(path), name=name, **settings)
        except (OSError, ValueError, EnvironmentInUseError) as error:
            raise EnvironmentUnreachable(str(error), operation="open") from error
        self.environments[name] = found
        return "http://embedded.invalid", _Way(found)

    async def close(self) -> None:
        for environment in self.environments.values():
            await asyncio.to_thread(environment.close)


class _Way(httpx.ASGITransport):
    def __init__(self, environment: EmbeddedEnvironment) -> None:
        super().__init__(environment.app, raise_app_exceptions=False)
        self._environment = environment

    async def aclose(self) -> None:
        await asyncio.to_thread(self._environment.close)
