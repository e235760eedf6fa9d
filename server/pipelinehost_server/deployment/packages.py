"""Packages: exported from development, kept by digest, read when somebody needs to know what is in them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from pipelinehost import names
from pipelinehost.errors import DataLoss
from pipelinehost.v1.resources_pb2 import Artifact, Environment, Finding, Step, Subject
from pipelinehost_dataverse.solution import PackageError, Solution, Version, read
from pipelinehost_dataverse.webapi import DataverseError, InstalledSolution, WebApi
from pipelinehost_server import rules
from pipelinehost_server.blobs import Blobs
from pipelinehost_server.deployment.findings import finding, subject
from pipelinehost_server.deployment.validation import environment_finding, repeated
from pipelinehost_server.store import Store

LAST_OPERATION = "verify.operation"
"""Noted of a run: the last operation on the solution that the target told of when the import was verified."""
_REMEMBERED = 8
"""Packages whose contents are kept in memory: a few MB each for the largest that we know."""


class Stopped(Exception):
    """The work cannot go on; the findings, at least one of them an error, say why."""

    def __init__(self, *findings: Finding, recorded: bool = False) -> None:
        super().__init__(findings[0].cause)
        self.findings = findings
        self.recorded = recorded
        """Whether the run has them already."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A solution as it left a development environment."""

    managed: bytes
    unmanaged: bytes
    solution: Solution
    """What the managed package tells."""


class Packages:
    """Exports, stores and reads packages; parsing happens off the event loop."""

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self._store = store
        self._blobs = blobs
        self._read: OrderedDict[bytes, Solution] = OrderedDict()

    async def export(
        self, api: WebApi, environment: Environment, unique_name: str, version: str = ""
    ) -> Exported:
        """Take the managed and the unmanaged package of a solution from a development environment.

        Args:
            api: its connector.
            environment: its record.
            unique_name: of the solution.
            version: that it must have, or empty.

        Raises:
            Stopped: with a finding that says why there is no package.
        """
        where = rules.title(environment)
        about = subject("solution", unique_name)
        try:
            installed = await api.solution(unique_name)
            if installed is None:
                raise Stopped(
                    _export_finding("SOLUTION_NOT_FOUND", about, environment=where, name=unique_name)
                )
            if installed.managed:
                raise Stopped(
                    _export_finding("SOLUTION_MANAGED_IN_SOURCE", about, environment=where, name=unique_name)
                )
            if version and not same_version(version, str(installed.version)):
                raise Stopped(
                    _export_finding(
                        "VERSION_CHANGED",
                        about,
                        environment=where,
                        name=unique_name,
                        found=installed.version,
                        wanted=version,
                    )
                )
            name = installed.unique_name
            managed = await repeated(lambda: api.export_solution(name, managed=True))
            unmanaged = await repeated(lambda: api.export_solution(name, managed=False))
        except DataverseError as error:
            if error.code:
                raise Stopped(
                    _export_finding(
                        "EXPORT_FAILED", about, environment=where, name=unique_name, message=error.message
                    )
                ) from error
            raise Stopped(environment_finding(error, where, Step.KIND_EXPORT)) from error
        solution = await self.parse(managed)
        twin = await self.parse(unmanaged)
        told = solution.manifest
        if not told.managed or twin.manifest.managed or told.version != twin.manifest.version:
            raise Stopped(
                _export_finding(
                    "EXPORT_FAILED",
                    about,
                    environment=where,
                    name=unique_name,
                    message="the managed and the unmanaged package do not belong together; the solution may "
                    "have been changed during the export",
                )
            )
        return Exported(managed, unmanaged, solution)

    async def store(self, exported: Exported, environment: Environment, creator: str) -> Artifact:
        """Write both packages to disk; gives the artifact, which the caller records in its transaction."""
        source = await self._blobs.put(exported.unmanaged)
        sha256 = await self._blobs.put(exported.managed)
        artifact = describe(exported.solution, sha256, creator)
        artifact.source_sha256 = source
        artifact.source_environment = environment.name
        return artifact

    async def held(self, environment: str, installed: InstalledSolution, operation: str) -> Solution | None:
        """What an environment holds of a solution, if the host put it there and nobody touched it since.

        Args:
            environment: name of its record.
            installed: what it says of the solution.
            operation: id of the last operation on the solution there.
        """
        reads = self._store.reads
        run = reads.newest_success_in(environment, installed.unique_name)
        if run is None or reads.output(run.name, LAST_OPERATION) != operation.encode():
            return None
        try:
            solution, _ = await self.solution(names.slug(run.artifact))
        except Stopped:
            return None  # damaged: that it cannot be compared is told, and stops nothing
        return solution

    async def bytes_of(self, sha256: str) -> bytes:
        """The stored bytes of that digest, checked again.

        Raises:
            Stopped: they are damaged or gone.
        """
        try:
            return await self._blobs.read(sha256)
        except DataLoss as error:
            name = names.artifact(sha256)
            raise Stopped(finding("ARTIFACT_DAMAGED", subject("artifact", name), name=name)) from error

    async def parse(self, package: bytes) -> Solution:
        """What a package tells.

        Raises:
            Stopped: it is no package that may be used.
        """
        try:
            solution = await asyncio.to_thread(read, package)
        except PackageError as error:
            raise Stopped(
                finding(
                    "PACKAGE_INVALID",
                    subject("package", error.rule),
                    message=error.message,
                    rule=error.rule,
                    remedy=error.remedy,
                )
            ) from error
        self._read[solution.sha256] = solution
        while len(self._read) > _REMEMBERED:
            self._read.popitem(last=False)
        return solution

    async def solution(self, sha256: str) -> tuple[Solution, bytes]:
        """What the stored package of that digest tells, and its bytes.

        Raises:
            Stopped: it is damaged.
        """
        package = await self.bytes_of(sha256)
        known = self._read.get(bytes.fromhex(sha256))
        if known is not None:
            self._read.move_to_end(known.sha256)
            return known, package
        return await self.parse(package), package


def describe(solution: Solution, sha256: str, creator: str) -> Artifact:
    """The artifact of a package, as far as the package tells."""
    manifest = solution.manifest
    return Artifact(
        name=names.artifact(sha256),
        solution=manifest.unique_name,
        display_name=manifest.display_name,
        version=str(manifest.version),
        managed=manifest.managed,
        publisher=manifest.publisher.unique_name,
        size=solution.size,
        component_count=len(solution.components),
        creator=creator,
    )


def same_version(one: str, other: str) -> bool:
    """Whether two versions are equal as numbers: ``1.0`` is ``1.0.0.0``; what is no version, only as text."""
    try:
        return Version.parse(one) == Version.parse(other)
    except ValueError:
        return one == other


def _export_finding(code: str, about: Subject, **facts: object) -> Finding:
    return finding(code, about, step=Step.KIND_EXPORT, **facts)
