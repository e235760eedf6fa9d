"""``solution.xml``: who a package says it is."""

from __future__ import annotations

import re

from lxml import etree

from pipelinehost_dataverse.solution.archive import pairs
from pipelinehost_dataverse.solution.errors import PackageError
from pipelinehost_dataverse.solution.kinds import reference
from pipelinehost_dataverse.solution.model import Dependency, Manifest, Publisher, RootComponent, Version

_UNIQUE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def parse_manifest(root: etree._Element) -> Manifest:
    """Read the manifest from the root element of ``solution.xml``.

    Raises:
        PackageError: Any ``manifest.*`` rule.
    """
    found = root.findall("SolutionManifest") if root.tag == "ImportExportXml" else []
    if len(found) != 1:
        raise PackageError("manifest.root", "'solution.xml' is not the manifest of a solution.")
    manifest = found[0]
    unique_name = _text(manifest, "UniqueName")
    if not _UNIQUE_NAME.fullmatch(unique_name):
        raise PackageError(
            "manifest.unique_name", f"The solution's unique name {unique_name[:200]!r} is not valid."
        )
    managed = _text(manifest, "Managed")
    if managed not in ("0", "1"):
        raise PackageError(
            "manifest.managed", f"{unique_name}: Managed is {managed[:20]!r}, which is neither 0 nor 1."
        )
    patched = _one(manifest, "ParentSolution")
    language = root.get("languagecode", "1033")
    return Manifest(
        unique_name=unique_name,
        display_name=_localised(manifest, "LocalizedNames/LocalizedName") or unique_name,
        description=_localised(manifest, "Descriptions/Description"),
        version=_version(unique_name, _text(manifest, "Version")),
        managed=managed == "1",
        publisher=_publisher(unique_name, _one(manifest, "Publisher")),
        root_components=tuple(
            RootComponent(
                type=line.get("type", ""),
                schema_name=line.get("schemaName", ""),
                id=line.get("id", ""),
                behavior=_number(line.get("behavior")),
            )
            for line in manifest.iterfind("RootComponents/RootComponent")
        ),
        missing_dependencies=tuple(_missing(manifest)),
        parent_solution=None if patched is None else _text(patched, "UniqueName"),
        parent_version=None if patched is None else _version(unique_name, _text(patched, "Version")),
        platform_version=root.get("SolutionPackageVersion", ""),
        language_code=_number(language) or 1033,
    )


def _missing(manifest: etree._Element) -> list[Dependency]:
    found = []
    for pair in manifest.iterfind("MissingDependencies/MissingDependency"):
        required = pair.find("Required")
        dependent = pair.find("Dependent")
        if required is not None and dependent is not None:
            found.append(
                Dependency(
                    dependent=reference(dict(pairs(dependent))),
                    required=reference(dict(pairs(required))),
                    declared=True,
                )
            )
    return found


def _publisher(solution: str, element: etree._Element | None) -> Publisher:
    unique_name = "" if element is None else _text(element, "UniqueName")
    if element is None or not unique_name:
        raise PackageError("manifest.publisher", f"{solution}: the manifest names no publisher.")
    return Publisher(
        unique_name=unique_name,
        display_name=_localised(element, "LocalizedNames/LocalizedName") or unique_name,
        prefix=_text(element, "CustomizationPrefix"),
        option_value_prefix=_number(_text(element, "CustomizationOptionValuePrefix")) or 0,
    )


def _one(parent: etree._Element, tag: str) -> etree._Element | None:
    found = parent.findall(tag)
    if len(found) > 1:
        raise PackageError("manifest.ambiguous", f"'solution.xml' holds {tag} {len(found)} times.")
    return found[0] if found else None


def _text(parent: etree._Element, tag: str) -> str:
    element = _one(parent, tag)
    return "" if element is None else (element.text or "").strip()


def _localised(parent: etree._Element, path: str) -> str:
    """The first of the names: the solution's own language comes first in an export."""
    element = parent.find(path)
    return "" if element is None else element.get("description", "")


def _version(solution: str, text: str) -> Version:
    try:
        return Version.parse(text)
    except ValueError as error:
        raise PackageError("manifest.version", f"{solution}: {text[:100]!r} is not a version.") from error


def _number(text: str | None) -> int | None:
    if text is None or not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise PackageError("manifest.number", f"'solution.xml' has {text[:100]!r} where a number should be.")
    return int(text)
