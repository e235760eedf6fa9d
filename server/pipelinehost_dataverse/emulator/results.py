"""What an import leaves to read: the import job's log, and the result that is made of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from xml.sax.saxutils import escape, quoteattr

from pipelinehost_dataverse.emulator.errors import DataverseError
from pipelinehost_dataverse.solution.model import Component, Solution

_SECTIONS = {
    "entity": ("entities", "entity"),
    "workflow": ("workflows", "workflow"),
    "role": ("securityroles", "securityrole"),
    "optionset": ("optionSets", "optionSet"),
    "webresource": ("webResources", "webResource"),
    "systemform": ("dashboards", "dashboard"),
    "appmodule": ("AppModules", "AppModule"),
    "canvasapp": ("CanvasApps", "CanvasApp"),
}
"""Sections of the log that have a name of their own; everything else is a node."""


def log(
    solution: Solution | None,
    *,
    started: str,
    ended: str,
    progress: float,
    failure: DataverseError | None,
    failed: Iterable[tuple[str, str]] = (),
) -> str:
    """The import job's ``data``: an ``importexportxml`` document.

    Args:
        solution: what was imported; None where the package could not be read.
        started: time in ISO 8601, UTC.
        ended: likewise.
        progress: percent that was reached.
        failure: why the import failed, or None.
        failed: kind and key of the components to blame; without a failure, or without any to blame, all
            components share the verdict: done, or not come to.

    """
    ticks = _ticks(ended)
    verdict = _result(failure, ticks)
    parts = [
        (
            f'<importexportxml start="{_ticks(started)}" stop="{ticks}" progress="{progress:g}" '
            f'processed="true" succeeded="{"failure" if failure else "success"}" status="">'
        )
    ]
    attributes, children = ("", "") if solution is None else _manifest(solution)
    parts.append(
        f"<solutionManifests><solutionManifest{attributes}>{children}{verdict}"
        "</solutionManifest></solutionManifests>"
    )
    if solution is not None:
        blamed = set(failed)
        sections: dict[tuple[str, str], list[str]] = {}
        good = _result(None, ticks)
        for component in solution.components:
            if failure is None:
                result = good
            elif component.identity in blamed:
                result = verdict
            else:
                continue
            section = _SECTIONS.get(component.kind, ("nodes", "node"))
            sections.setdefault(section, []).append(_element(section[1], component, result))
        for (plural, _), elements in sections.items():
            parts.append(f"<{plural}>{''.join(elements)}</{plural}>")
    parts.append("</importexportxml>")
    return "".join(parts)


def _manifest(solution: Solution) -> tuple[str, str]:
    """Attributes and first children of the manifest's element."""
    manifest = solution.manifest
    attributes = (
        f" languagecode={quoteattr(str(manifest.language_code))} id={quoteattr(manifest.unique_name)} "
        f'LocalizedName={quoteattr(manifest.display_name)} processed="true"'
    )
    name, version = escape(manifest.unique_name), escape(str(manifest.version))
    managed = int(manifest.managed)
    return (
        attributes,
        f"<UniqueName>{name}</UniqueName><Version>{version}</Version><Managed>{managed}</Managed>",
    )


def _element(tag: str, component: Component, result: str) -> str:
    key = quoteattr(component.key)
    names = f"LocalizedName={quoteattr(component.name)} OriginalName={quoteattr(component.schema_name)}"
    return f'<{tag} id={key} type={quoteattr(component.kind)} {names} processed="true">{result}</{tag}>'


def _result(failure: DataverseError | None, ticks: int) -> str:
    if failure is None:
        return f'<result result="success" errorcode="0" errortext="" datetimeticks="{ticks}" />'
    code, text = failure.code.text, quoteattr(_legal(failure.message))
    return f'<result result="failure" errorcode="{code}" errortext={text} datetimeticks="{ticks}" />'


def _legal(text: str) -> str:
    """Without the characters that XML cannot carry."""
    return "".join(sign if sign in "\t\n" or sign >= " " else " " for sign in text)


def _ticks(at: str) -> int:
    """Tenths of microseconds since the year 1, as .NET counts."""
    moment = datetime.fromisoformat(at)
    passed = moment - datetime(1, 1, 1, tzinfo=UTC)
    return (passed.days * 86_400 + passed.seconds) * 10_000_000


def workbook(name: str, rows: Iterable[tuple[str, str]]) -> str:
    """``FormattedResults``: a SpreadsheetML sheet of status and text."""
    cells = "".join(
        f'<Row><Cell><Data ss:Type="String">{escape(status)}</Data></Cell>'
        f'<Cell><Data ss:Type="String">{escape(_legal(text))}</Data></Cell></Row>'
        for status, text in rows
    )
    return (
        '<?xml version="1.0"?><Workbook xmlns="urn:schemas-microsoft-com:office:spreadsheet" '
        'xmlns:ss="urn:schemas-microsoft-com:office:spreadsheet"><Worksheet ss:Name='
        f"{quoteattr(_legal(name)[:31] or 'Import')}><Table>{cells}</Table></Worksheet></Workbook>"
    )
