"""The rules of import, read-only: what an environment says to a package before anything changes.

They follow Microsoft's documentation of solutions (layers, upgrade, dependencies) and its list of error
codes. Where that is silent the strict reading holds: an update to a lower version is refused like an upgrade.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

from pipelinehost_dataverse.emulator.errors import Code, DataverseError, not_modelled
from pipelinehost_dataverse.emulator.facts import platform_solutions
from pipelinehost_dataverse.solution.model import (
    Component,
    ComponentKey,
    Dependency,
    RequiredComponent,
    Solution,
    Version,
)

_HINT = re.compile(r"(?P<name>.*\S)\s*\((?P<version>[\d. ]*)\)")
_GUID_END = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_ABSORBED = frozenset({"environmentvariabledefinition", "environmentvariablevalue"})
"""Kinds that a managed import takes over from an unmanaged base without a word."""


class Installed(NamedTuple):
    """What the rules need of an installed solution."""

    id: str
    unique_name: str
    display_name: str
    version: str
    managed: bool
    platform: bool
    position: int
    publisher: str
    publisher_name: str
    package: bytes | None


class Edge(NamedTuple):
    """A dependency that stands in the way of a removal."""

    solution: str
    dependent: ComponentKey
    dependent_name: str
    required: ComponentKey
    required_name: str


@dataclass(slots=True)
class Verdict:
    """What the rules found: errors, each fatal for an import, and remarks that are not."""

    installed: Installed | None
    pending: bool = False
    """Whether an earlier failed upgrade left ``{name}_Upgrade`` behind."""
    errors: list[DataverseError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    missing: list[Dependency] = field(default_factory=list)


class Platform:
    """The solutions that are simply there: the platform's own and declared apps.

    Args:
        installed_apps: unique name to version, beyond the platform's own.

    """

    def __init__(self, installed_apps: Mapping[str, str]) -> None:
        for name, version in installed_apps.items():
            try:
                Version.parse(version)
            except ValueError as error:
                raise ValueError(f"The installed app {name!r} has no usable version: {error}.") from error
        self.installed_apps = dict(installed_apps)
        self._versions: dict[str, str | None] = {name.lower(): None for name in platform_solutions()}
        self._versions.update((name.lower(), version) for name, version in installed_apps.items())

    def holds(self, hint: str) -> bool:
        """Whether ``Name (version)`` names a solution that is there; the version does not matter."""
        return _named(hint)[0].lower() in self._versions

    def older(self, hint: str) -> str | None:
        """A warning where the named solution is there in a lower version than the hint asks for."""
        name, wanted = _named(hint)
        there = self._versions.get(name.lower())
        if there is None:
            return None
        try:
            if Version.parse(there).parts[:3] >= Version.parse(wanted).parts[:3]:
                return None
        except ValueError:
            return None
        return f"The package was made with {name} {wanted}; this environment has {there}."


def _named(hint: str) -> tuple[str, str]:
    found = _HINT.fullmatch(hint.strip())
    return (found["name"], found["version"].strip()) if found else (hint.strip(), "")


def is_system(key: ComponentKey) -> bool:
    """Whether it is of the platform itself: custom names carry their publisher's prefix and an underscore.

    A column, form or view of a system table counts as the platform's unless its own name is prefixed.
    """
    if key.kind == "entity":
        return "_" not in key.key
    table, dot, rest = key.key.partition(".")
    return bool(dot) and "_" not in table and "_" not in rest


def find(db: sqlite3.Connection, unique_name: str) -> Installed | None:
    """The installed solution of that unique name, or None."""
    row = db.execute(
        "SELECT s.id, s.unique_name, s.display_name, s.version, s.managed, s.platform, s.position, "
        "p.unique_name, p.display_name, s.package FROM solution s JOIN publisher p ON p.id = s.publisher "
        "WHERE s.unique_name = ?",
        (unique_name,),
    ).fetchone()
    return Installed._make((*row[:4], bool(row[4]), bool(row[5]), *row[6:])) if row else None


def check(
    db: sqlite3.Connection,
    solution: Solution,
    platform: Platform,
    *,
    upgrade: bool | None,
    allow_downgrade: bool,
) -> Verdict:
    """Hold a package against the environment, mode first, then version, publisher and what it needs.

    Args:
        db: the environment.
        solution: what the package tells.
        platform: what the environment holds besides.
        upgrade: True for an upgrade, which needs a higher version; False for an install or update, where it
            must not be lower; None to look only, where the mode is not known and a pending upgrade is told,
            but is no error.
        allow_downgrade: whether a lower version passes all the same (an update only).

    Raises:
        DataverseError: the package is of a sort that the emulator does not model.

    """
    manifest = solution.manifest
    if manifest.parent_solution is not None:
        raise not_modelled(f"The patch '{manifest.unique_name}' of '{manifest.parent_solution}'")
    name = manifest.unique_name
    there = find(db, name)
    verdict = Verdict(there, pending=find(db, f"{name}_Upgrade") is not None)
    if there is not None:
        if there.managed != manifest.managed:
            verdict.errors.append(_mode_error(there.managed))
        elif there.managed and there.publisher.lower() != manifest.publisher.unique_name.lower():
            verdict.errors.append(
                DataverseError(
                    Code.WRONG_PUBLISHER,
                    f"The following managed solution cannot be imported: {name}. The publisher name cannot "
                    f"be changed from {there.publisher} to {manifest.publisher.unique_name}.",
                )
            )
        if there.platform:
            raise not_modelled(f"An import of '{name}', which belongs to the platform or an installed app,")
        have = Version.parse(there.version)
        if (manifest.version < have and not (allow_downgrade and not upgrade)) or (
            upgrade and manifest.version == have
        ):
            verdict.errors.append(_version_error(name, there.version, str(manifest.version)))
    if upgrade and not (there and there.managed and manifest.managed) and not verdict.errors:
        verdict.errors.append(
            DataverseError(
                Code.IMPORT_FAILED,
                f"The solution {name} cannot be upgraded: no managed version of it is installed. Import it "
                "instead.",
            )
        )
    if upgrade is not None and verdict.pending:
        verdict.errors.append(
            DataverseError(
                Code.HOLDING_EXISTS,
                f"Holding solution {name}_Upgrade already exists. Delete it before {name} is imported again.",
            )
        )
    _check_dependencies(db, solution, platform, verdict)
    if manifest.managed:
        _check_unmanaged_base(db, solution, verdict)
    return verdict


def _mode_error(managed: bool) -> DataverseError:
    code = Code.UNMANAGED_OVER_MANAGED if managed else Code.MANAGED_OVER_UNMANAGED
    here, there = ("a managed", "unmanaged") if managed else ("an unmanaged", "managed")
    return DataverseError(
        code,
        f"The solution is already installed on this system as {here} solution and the package supplied is "
        f"attempting to install it in {there} mode. Import can only update solutions when the modes match. "
        "Uninstall the current solution and try again.",
    )


def _version_error(name: str, have: str, given: str) -> DataverseError:
    return DataverseError(
        Code.VERSION_NOT_HIGHER,
        "The import solution must have a higher version than the existing solution it is upgrading. "
        f"Solution {name}: installed {have}, supplied {given}.",
    )


def present(db: sqlite3.Connection, key: ComponentKey, *, managed: bool) -> bool:
    """Whether a component is in the environment; for ``managed`` only one with a managed layer counts."""
    found = db.execute(
        "SELECT max(s.managed) FROM component c JOIN layer l ON l.component = c.id"
        " JOIN solution s ON s.id = l.solution WHERE c.kind = ? AND c.key = ?",
        key,
    ).fetchone()[0]
    return found is not None and bool(found or not managed)


def from_platform(required: RequiredComponent, platform: Platform) -> bool:
    """Whether what is required belongs to the platform or a declared app.

    The solution that the manifest names decides: tables of first-party apps have no prefix either.
    """
    if required.solution.strip().lower() in ("", "active", "system"):
        return is_system(required.identity)
    return platform.holds(required.solution)


def _check_dependencies(
    db: sqlite3.Connection, solution: Solution, platform: Platform, verdict: Verdict
) -> None:
    manifest = solution.manifest
    inside = {component.identity for component in solution.components}
    warned: dict[str, None] = {}
    for dependency in manifest.missing_dependencies:
        required = dependency.required
        if required.identity in inside or present(db, required.identity, managed=manifest.managed):
            continue
        if not from_platform(required, platform):
            verdict.missing.append(dependency)
            continue
        warning = platform.older(required.solution)
        if warning:
            warned[warning] = None
    verdict.warnings.extend(warned)
    if verdict.missing:
        listed = "".join(map(_missing_xml, verdict.missing))
        verdict.errors.append(
            DataverseError(
                Code.MISSING_DEPENDENCIES,
                f"The following solution cannot be imported: {manifest.unique_name}. Some dependencies are "
                f"missing. The missing dependencies are : "
                f"<MissingDependencies>{listed}</MissingDependencies> , "
                "ProductUpdatesOnly : False",
            )
        )


def _missing_xml(dependency: Dependency) -> str:
    def end(name: str, component: RequiredComponent) -> str:
        pairs = {
            "type": component.type,
            "schemaName": component.schema_name,
            "displayName": component.display_name,
            "parentSchemaName": component.parent_schema_name,
            "parentDisplayName": component.parent_display_name,
            "id": guid_in(component.key),
            "solution": component.solution if name == "Required" else "",
        }
        return f"<{name} {' '.join(f'{k}={quoteattr(v)}' for k, v in pairs.items() if v)} />"

    ends = end("Required", dependency.required) + end("Dependent", dependency.dependent)
    return f"<MissingDependency>{ends}</MissingDependency>"


def guid_in(key: str) -> str:
    """The GUID that a component's key is, or ends with; empty where it is a name."""
    found = _GUID_END.search(key)
    return found.group() if found else ""


def _check_unmanaged_base(db: sqlite3.Connection, solution: Solution, verdict: Verdict) -> None:
    rows = db.execute(
        "SELECT c.kind, c.key, c.object_id FROM component c JOIN layer l ON l.component = c.id"
        " JOIN solution s ON s.id = l.solution GROUP BY c.id HAVING NOT max(s.managed)"
    )
    unmanaged = {ComponentKey(kind, key): object_id for kind, key, object_id in rows}
    if not unmanaged:
        return
    for component in solution.components:
        key = component.identity
        if key in unmanaged and key.kind not in _ABSORBED and not is_system(key):
            verdict.errors.append(_base_error(component, unmanaged[key]))
            return


def _base_error(component: Component, object_id: str) -> DataverseError:
    kind = component.kind
    return DataverseError(
        Code.UNMANAGED_BASE,
        f"A managed solution cannot overwrite the {kind} component {component.schema_name} with "
        f"Id={object_id} which has an unmanaged base instance. The most likely scenario for this error is "
        f"that an unmanaged solution has installed a new unmanaged {kind} component on the target system, "
        f"and now a managed solution from the same publisher is trying to install that same {kind} "
        "component as managed. This will cause an invalid layering of solutions on the target system and "
        "is not allowed.",
    )


def removed_by(
    db: sqlite3.Connection, solution: str, keep: Collection[ComponentKey]
) -> dict[ComponentKey, int]:
    """The components that disappear when a solution drops all of its layers but those in ``keep``.

    A component stays while any other solution has a layer of it.
    """
    rows = db.execute(
        "SELECT c.kind, c.key, c.id FROM layer l JOIN component c ON c.id = l.component WHERE l.solution = "
        "? AND NOT EXISTS (SELECT 1 FROM layer x WHERE x.component = l.component AND x.solution <> "
        "l.solution)",
        (solution,),
    )
    found = {ComponentKey(kind, key): id_ for kind, key, id_ in rows}
    return {key: id_ for key, id_ in found.items() if key not in keep}


def blockers(
    db: sqlite3.Connection,
    removed: Mapping[ComponentKey, int],
    *,
    leaving: str | None = None,
    coming: Iterable[Dependency] = (),
) -> list[Edge]:
    """The dependencies that forbid a removal: their dependent stays, what it requires would go.

    Args:
        db: the environment.
        removed: what would disappear.
        leaving: id of the solution whose own dependencies go with it.
        coming: dependencies of the version that takes its place; only declared ones count, since those are
            what the manifest says the package needs from outside.

    """
    edges: list[Edge] = []
    for key in removed:
        rows = db.execute(
            "SELECT solution, dependent_kind, dependent_key, dependent_name, required_name FROM dependency"
            " WHERE required_kind = ? AND required_key = ?",
            key,
        )
        for solution, kind, dependent_key, dependent_name, required_name in rows:
            dependent = ComponentKey(kind, dependent_key)
            if dependent not in removed and solution != leaving:
                edges.append(Edge(solution, dependent, dependent_name, key, required_name))
    for dependency in coming:
        required, dependent = dependency.required.identity, dependency.dependent.identity
        if dependency.declared and required in removed and dependent not in removed:
            edges.append(
                Edge(
                    leaving or "",
                    dependent,
                    _shown(dependency.dependent),
                    required,
                    _shown(dependency.required),
                )
            )
    # Files and manifest may tell of the same edge; one of them may know no name but the key.
    edges.sort(key=lambda edge: edge.dependent_name != edge.dependent.key)
    once = {(edge.solution, edge.dependent, edge.required): edge for edge in edges}
    return [once[ends] for ends in sorted(once)]


def _shown(component: RequiredComponent) -> str:
    return component.display_name or component.schema_name or component.key


def foreign_layer_above(db: sqlite3.Connection, solution: Installed, dropped: Iterable[int]) -> str | None:
    """Name of a component whose base layer would go from under another publisher's managed layer, or None."""
    for id_ in dropped:
        rows = db.execute(
            "SELECT s.id, p.unique_name, c.kind, c.key, c.object_id FROM layer l"
            " JOIN solution s ON s.id = l.solution JOIN publisher p ON p.id = s.publisher"
            " JOIN component c ON c.id = l.component WHERE l.component = ? AND s.managed ORDER BY s.position",
            (id_,),
        ).fetchall()
        if len(rows) < 2 or rows[0][0] != solution.id:
            continue
        key = ComponentKey(rows[0][2], rows[0][3])
        if rows[1][1].lower() != solution.publisher.lower() and not is_system(key):
            return f"'{key.key}' with id '{rows[0][4]}'"
    return None


def dependency_text(db: sqlite3.Connection, edges: Sequence[Edge]) -> str:
    """The edges in the words of Dataverse's error for a refused removal."""
    parts = [f"DependencyCount : {len(edges)}"]
    for edge in edges:
        sides = []
        for side, key, name in (
            ("RequiredComponentObject", edge.required, edge.required_name),
            ("DependentComponentObject", edge.dependent, edge.dependent_name),
        ):
            sides.append(
                f"{side} details: Type: {key.kind}, ObjectName: {name or key.key}, "
                f"Id: {object_id_of(db, key) or guid_in(key.key)}, Name: {key.key}"
            )
        row = db.execute("SELECT unique_name FROM solution WHERE id = ?", (edge.solution,)).fetchone()
        parts.append(f"{' '.join(sides)}, Solution: {row[0] if row else ''}")
    return " ".join(parts)


def object_id_of(db: sqlite3.Connection, key: ComponentKey) -> str | None:
    """The object id of a component of the environment, or None."""
    row = db.execute("SELECT object_id FROM component WHERE kind = ? AND key = ?", key).fetchone()
    return row[0] if row else None
