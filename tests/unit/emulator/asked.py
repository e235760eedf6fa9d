"""An embedded environment as its tests ask it, and the packages that they give it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from pipelinehost_dataverse.emulator import EmbeddedEnvironment
from pipelinehost_dataverse.solution import Dependency, Part, new_manifest, write

OFFICE = "/providers/Microsoft.PowerApps/apis/shared_office365"
TEAMS = "/providers/Microsoft.PowerApps/apis/shared_teams"


def package(
    name: str,
    version: str,
    *parts: Part,
    managed: bool = True,
    publisher: str = "contoso",
    missing: Sequence[Dependency] = (),
    patch_of: tuple[str, str] | None = None,
) -> bytes:
    """A package of these parts, managed unless said otherwise."""
    manifest = new_manifest(
        name, version, managed=managed, publisher=publisher, missing_dependencies=missing, patch_of=patch_of
    )
    return write(manifest, *parts)


def import_body(content: bytes, **more: object) -> dict[str, object]:
    return {
        "OverwriteUnmanagedCustomizations": False,
        "PublishWorkflows": True,
        "CustomizationFile": base64.b64encode(content).decode(),
        **more,
    }


def variable_parameter(name: str, value: str, row: str | None = None) -> dict[str, object]:
    parameter: dict[str, object] = {
        "@odata.type": "Microsoft.Dynamics.CRM.environmentvariablevalue",
        "schemaname": name,
        "value": value,
    }
    if row:
        parameter["environmentvariablevalueid"] = row
    return parameter


def reference_parameter(name: str, connection: str, connector: str = OFFICE) -> dict[str, object]:
    return {
        "@odata.type": "Microsoft.Dynamics.CRM.connectionreference",
        "connectionreferencelogicalname": name,
        "connectionid": connection,
        "connectorid": connector,
    }


class Outcome:
    """How an operation ended."""

    def __init__(self, row: Mapping[str, Any], job: str) -> None:
        self.succeeded: bool = row["statuscode"] == 30
        self.message: str = row["message"] or ""
        self.code = f"{row['errorcode'] & 0xFFFFFFFF:08X}"
        self.job = job

    def __repr__(self) -> str:
        return f"{'succeeded' if self.succeeded else 'failed'} {self.code} {self.message}"


class Asked:
    """An HTTP client of one environment."""

    def __init__(self, environment: EmbeddedEnvironment) -> None:
        self.environment = environment
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(environment.app, raise_app_exceptions=False),
            base_url="http://environment/api/data/v9.2/",
            timeout=None,
        )

    @classmethod
    def open(cls, path: Path, **options: Any) -> Self:
        return cls(EmbeddedEnvironment.open(path, name=path.stem, **options))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()
        await asyncio.to_thread(self.environment.close)

    async def request(self, method: str, path: str, json: object = None) -> httpx.Response:
        return await self._client.request(method, path, json=json)

    async def post(self, path: str, body: bytes) -> httpx.Response:
        """POST these very bytes."""
        return await self._client.post(path, content=body)

    async def get(self, path: str) -> Any:
        """The JSON of a successful GET; the list itself, where it is one."""
        answer = await self.request("GET", path)
        assert answer.status_code == 200, answer.text
        content = answer.json()
        return content.get("value", content)

    async def error(
        self, method: str, path: str, json: object = None, *, status: int = 400
    ) -> tuple[str, str]:
        """Code and message of a request that must fail."""
        answer = await self.request(method, path, json)
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        return error["code"], error["message"]

    async def start(
        self, content: bytes, message: str = "ImportSolutionAsync", **more: object
    ) -> dict[str, str]:
        """Post an import and return the ids of the answer."""
        answer = await self.request("POST", message, import_body(content, **more))
        assert answer.status_code == 200, answer.text
        found: dict[str, str] = answer.json()
        return found

    async def finished(self, operation: str, job: str = "") -> Outcome:
        """Wait for an operation's end."""
        async with asyncio.timeout(30):
            while True:
                row = await self.get(f"asyncoperations({operation})")
                if row["statecode"] == 3:
                    return Outcome(row, job)
                await asyncio.sleep(0.005)

    async def install(
        self, content: bytes, *, upgrade: bool = False, message: str = "", **more: object
    ) -> Outcome:
        """Import a package and wait for the outcome."""
        message = message or ("StageAndUpgradeAsync" if upgrade else "ImportSolutionAsync")
        ids = await self.start(content, message, **more)
        return await self.finished(ids["AsyncOperationId"], ids["ImportJobKey"])

    async def staged(self, content: bytes) -> dict[str, Any]:
        """The whole answer of StageSolution."""
        body = {"CustomizationFile": base64.b64encode(content).decode()}
        answer = await self.request("POST", "StageSolution", body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def stage(self, content: bytes) -> Any:
        """``StageSolutionResults``."""
        return (await self.staged(content))["StageSolutionResults"]

    async def solution(self, name: str) -> Any:
        """The row of an installed solution, or None."""
        rows = await self.get(f"solutions?$filter=uniquename eq '{name}'&$expand=publisherid")
        return rows[0] if rows else None

    async def components(self, name: str) -> set[tuple[str, str]]:
        """Kind and key of what an installed solution has."""
        row = await self.solution(name)
        rows = await self.get(
            f"msdyn_solutioncomponentsummaries?$filter=msdyn_solutionid eq {row['solutionid']}"
            "&$select=msdyn_componentlogicalname,msdyn_uniquename"
        )
        return {(row["msdyn_componentlogicalname"], row["msdyn_uniquename"]) for row in rows}

    async def value(self, name: str) -> Any:
        """The row of an environment variable's value, or None."""
        rows = await self.get(f"environmentvariablevalues?$filter=schemaname eq '{name}'")
        return rows[0] if rows else None

    async def result(self, job: str) -> Any:
        """``SolutionOperationResult`` of an import job."""
        return (await self.get(f"RetrieveSolutionImportResult(ImportJobId={job})"))["SolutionOperationResult"]

    async def history(self) -> list[tuple[str, str, int, bool | None]]:
        """Name, version, suboperation and result of all operations in order."""
        return [
            (r["msdyn_name"], r["msdyn_solutionversion"], r["msdyn_suboperation"], r["msdyn_result"])
            for r in await self.get("msdyn_solutionhistories")
        ]

    async def connect(self, name: str, connector: str = OFFICE) -> None:
        """Create a connection."""
        body = {"name": name, "properties": {"apiId": connector, "displayName": name}}
        answer = await self.request("POST", "http://environment/connectivity/connections?api-version=1", body)
        assert answer.status_code == 201, answer.text

    async def export(self, name: str, *, managed: bool) -> bytes:
        """The package that ExportSolution gives."""
        answer = await self.request("POST", "ExportSolution", {"SolutionName": name, "Managed": managed})
        assert answer.status_code == 200, answer.text
        return base64.b64decode(answer.json()["ExportSolutionFile"])
