"""The log of an import (``importjobs.data``): what became of each component."""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from pipelinehost_dataverse.solution.model import Version
from pipelinehost_dataverse.webapi.errors import error_code, plain
from pipelinehost_dataverse.webapi.model import ComponentResult, Severity

RESULTS = 100_000
"""Most results that are read; more is no log of a package of 120 MB."""
_SEVERITIES = {"success": Severity.INFO, "warning": Severity.WARNING}


@dataclass(frozen=True, slots=True)
class ImportLog:
    """What an import job's log tells."""

    solution: str
    version: Version | None
    succeeded: bool | None
    """None where the log does not say (it is still being written)."""
    results: tuple[ComponentResult, ...]


def read_import_log(text: str) -> ImportLog:
    """Read the log. Any element with a ``result`` child is a component: sections need not be known.

    Raises:
        ValueError: not well-formed, or not a log: it has a document type, or too many results.
    """
    # The declaration may name the encoding of a file that this text no longer is; ours wins.
    parser = etree.XMLParser(
        encoding="utf-8", resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False
    )
    try:
        root = etree.fromstring(text.encode(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise ValueError(f"the import log is not well-formed: {plain(str(error), 300)}") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise ValueError("the import log has a document type, which none has")
    results: list[ComponentResult] = []
    for element in root.iter("result"):
        owner = element.getparent()
        if owner is None or element.get("result") is None:
            continue
        if len(results) == RESULTS:
            raise ValueError(f"the import log has more than {RESULTS} results")
        results.append(
            ComponentResult(
                kind=plain(str(owner.tag), 100),
                name=_name_of(owner),
                severity=_SEVERITIES.get((element.get("result") or "").lower(), Severity.ERROR),
                code=error_code(element.get("errorcode")),
                text=plain(element.get("errortext") or ""),
            )
        )
    return ImportLog(
        solution=_text(root, "solutionManifests/solutionManifest/UniqueName"),
        version=_version(_text(root, "solutionManifests/solutionManifest/Version")),
        succeeded=_succeeded(root, results),
        results=tuple(results),
    )


def _name_of(owner: etree._Element) -> str:
    for attribute in ("LocalizedName", "name", "id"):
        if found := owner.get(attribute):
            return plain(found, 300)
    return _text(owner, "UniqueName")


def _text(root: etree._Element, path: str) -> str:
    return plain(root.findtext(path) or "", 300)


def _version(text: str) -> Version | None:
    try:
        return Version.parse(text)
    except ValueError:
        return None


def _succeeded(root: etree._Element, results: list[ComponentResult]) -> bool | None:
    verdict = (root.get("succeeded") or "").lower()
    if verdict in {"success", "true", "warning"}:
        return True
    if verdict in {"failure", "false", "error"}:
        return False
    if any(r.severity is Severity.ERROR for r in results):
        return False
    return True if (root.get("processed") or "").lower() == "true" else None
