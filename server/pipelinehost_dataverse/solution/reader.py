"""From bytes to a :class:`Solution`."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from pipelinehost_dataverse.solution import requirements
from pipelinehost_dataverse.solution.archive import Archive, load
from pipelinehost_dataverse.solution.components import Inventory
from pipelinehost_dataverse.solution.dependencies import dependencies
from pipelinehost_dataverse.solution.errors import PackageError
from pipelinehost_dataverse.solution.manifest import parse_manifest
from pipelinehost_dataverse.solution.model import Solution

_MANDATORY = ("solution.xml", "customizations.xml", "[Content_Types].xml")


def read(source: bytes | mmap.mmap | Path | BinaryIO, *, sha256: bytes | None = None) -> Solution:
    """Read a solution package.

    Nothing is written, nothing is opened but ``source`` if it is a path, and no name out of the package is
    used as a path. It is CPU-bound (tens of milliseconds for a large package): call it off the event loop.

    Args:
        source: The package, a path to it, or a binary file positioned at its start. A large file that nobody
            shortens meanwhile is best mapped: then it is never in memory as a whole.
        sha256: Its digest, where the caller has just computed it.

    Raises:
        PackageError: The bytes are no solution package that can be trusted.
        OSError: The source cannot be read.
    """
    content = load(source)
    archive = open_archive(content)
    manifest = parse_manifest(archive.xml("solution.xml"))
    archive.read(archive.members["[Content_Types].xml"])
    inventory = Inventory(archive)
    flows = tuple(requirements.flows(inventory, archive))
    found_dependencies = dependencies(inventory, flows, manifest.missing_dependencies)
    variables = tuple(requirements.environment_variables(inventory))
    references = tuple(requirements.connection_references(inventory))
    return Solution(
        manifest=manifest,
        components=inventory.components(),
        dependencies=found_dependencies,
        environment_variables=variables,
        connection_references=references,
        flows=tuple(flow for _, flow in flows),
        sha256=sha256 or hashlib.sha256(content).digest(),
        size=len(content),
    )


def open_archive(content: bytes | mmap.mmap) -> Archive:
    """The package's archive, with a solution at its root.

    Raises:
        PackageError: The zip structure is not sound, or the archive is something else than a solution.
    """
    archive = Archive(content)
    missing = [name for name in _MANDATORY if name not in archive.members]
    if missing:
        raise _something_else(list(archive.members), missing)
    return archive


def _something_else(names: list[str], missing: Iterable[str]) -> PackageError:
    """What an archive is that has no solution at its root."""
    by_lower = {name.lower(): name for name in names}
    ends = [name.lower().rpartition("/") for name in names]
    source_tree = next((n for n in names if n.lower().endswith("other/solution.xml")), None)
    if source_tree:
        return PackageError(
            "package.source_tree", f"This is the unpacked source of a solution ({source_tree!r})."
        )
    if "data_schema.xml" in by_lower:
        return PackageError(
            "package.configuration_data", "This is data of the Configuration Migration tool, not a solution."
        )
    if "manifest.json" in by_lower and any(
        name.startswith(("microsoft.powerapps/", "microsoft.flow/")) for name in by_lower
    ):
        return PackageError(
            "package.canvas_app", "This is the package of a canvas app or flow, not a solution."
        )
    if ("header.json" in by_lower and "properties.json" in by_lower) or "canvasmanifest.json" in by_lower:
        return PackageError("package.canvas_app", "This is a canvas app document (.msapp), not a solution.")
    if any(last == "importconfig.xml" for _, _, last in ends):
        return PackageError(
            "package.package_deployer", "This is a package of the Package Deployer, not a solution."
        )
    for folder, _, last in ends:
        if last == "solution.xml" and f"{folder}/customizations.xml" in by_lower and folder:
            shown = by_lower[f"{folder}/solution.xml"].rpartition("/")[0]
            return PackageError(
                "package.subfolder", f"The solution lies in the folder {shown!r} of the archive."
            )
    inner = [name for name in names if name.lower().endswith(".zip")]
    if inner:
        shown = ", ".join(map(repr, inner[:3])) + (" and more" if len(inner) > 3 else "")
        return PackageError(
            "package.nested_zips", f"The archive has no solution at its root, but contains {shown}."
        )
    absent = ", ".join(missing)
    if "solution.xml" in names or "customizations.xml" in names:
        return PackageError("package.missing_member", f"The package has no {absent}.")
    other_case = [by_lower[name.lower()] for name in _MANDATORY if name.lower() in by_lower]
    if other_case:
        return PackageError(
            "package.missing_member", f"The package has no {absent}; it has {', '.join(other_case)} instead."
        )
    return PackageError("package.not_solution", f"The archive is no solution: it has no {absent}.")
