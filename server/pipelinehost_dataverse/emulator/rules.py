"""The rules of import, read-only: what an environment says to a package before anything changes.

They follow Microsoft's documentation of solutions (layers, upgrade, patches, dependencies) and its list of
error codes. Where that is silent ``docs/emulator.md`` says what was decided.
"""

from __future__ import annotations

import enum
import sqlite3
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

from pipelinehost_dataverse.emulator.baseline import Platform, is_system
from pipelinehost_dataverse.emulator.errors import Code, DataverseError, not_modelled
from pipelinehost_dataverse.emulator.layers import guid_in
from pipelinehost_dataverse.solution.kinds import kind_of, normalised
from pipelinehost_dataverse.solution.model import (
    Component,
    ComponentKey,
    Dependency,
    Manifest,
    RequiredComponent,
    Solution,
    Version,
)

_ABSORBED = frozenset({"environmentvariabledefinition", "environmentvariablevalue"})
"""Kinds that a managed import takes over from an unmanaged base without a word."""
_ROOTS = frozenset({"entity", "optionset", "workflow", "webresource"})
"""Kinds of root components whose name or id in the manifest is the component's key in every real package."""


class Mode(enum.Enum):
    """What an import is to do with what is installed."""

    LOOK = "look"
    """Nothing: a package is staged, and nobody has said yet how it will be imported."""
    UPDATE = "update"
    """Install, or add to what is there and replace it; nothing is removed."""
    HOLD = "hold"
    """Become ``{name}_Upgrade`` beside it."""
    UPGRADE = "upgrade"
    """Become ``{name}_Upgrade`` and take its place."""


class Installed(NamedTuple):
    """What the rules need of an installed solution."""

    id: str
    unique_name: str
    display_name: str
    version: str
    managed: bool
    platform: bool
    publisher: str
    publisher_name: str
    package: bytes | None
    upgrade_of: str | None
    patch_of: str | None


@dataclass(slots=True)
class Verdict:
    """What the rules found: errors, each fatal for an import, and remarks that are not."""

    installed: Installed | None
    parent: Installed | None = None
    """What the package patches, if it is a patch."""
    pending: bool = False
    """Whether ``{name}_Upgrade`` waits to be applied or deleted."""
    errors: list[DataverseError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    missing: list[Dependency] = field(default_factory=list)

    def refuse(self, code: Code, message: str) -> None:
        """Add an error."""
        self.errors.append(DataverseError(code, message))


_INSTALLED = (
    "SELECT s.id, s.unique_name, s.display_name, s.version, s.managed, s.platform, p.unique_name,"
    " p.display_name, s.package, s.upgrade_of, s.patch_of FROM solution s"
    " JOIN publisher p ON p.id = s.publisher"
)


def _installed(row: tuple[object, ...] | None) -> Installed | None:
    return Installed._make((*row[:4], bool(row[4]), bool(row[5]), *row[6:])) if row else None


def find(db: sqlite3.Connection, unique_name: str) -> Installed | None:
    """The installed solution of that unique name, or None."""
    return _installed(db.execute(f"{_INSTALLED} WHERE s.unique_name = ?", (unique_name,)).fetchone())


def holding(db: sqlite3.Connection, base: Installed) -> Installed | None:
    """What an import for upgrade left beside ``base``, or None."""
    return _installed(db.execute(f"{_INSTALLED} WHERE s.upgrade_of = ?", (base.id,)).fetchone())


def patches(db: sqlite3.Connection, base: Installed) -> list[Installed]:
    """The patches of a solution, the lowest layer first."""
    rows = db.execute(f"{_INSTALLED} WHERE s.patch_of = ? ORDER BY s.position", (base.id,)).fetchall()
    return [found for row in rows if (found := _installed(row))]


def check(
    db: sqlite3.Connection, solution: Solution, platform: Platform, mode: Mode, *, allow_downgrade: bool
) -> Verdict:
    """Hold a package against the environment, mode first, then version, publisher and what it needs.

    Args:
        db: the environment.
        solution: what the package tells.
        platform: what the environment holds besides.
        mode: an upgrade needs a higher version, an update one that is not lower. When only looking, a pending
            upgrade is told, but is no error.
        allow_downgrade: whether an update may bring a lower version.

    Raises:
        DataverseError: the package is of a sort that the emulator does not model.

    """
    manifest = solution.manifest
    there = find(db, manifest.unique_name)
    if there is not None and there.platform:
        raise not_modelled(
            f"An import of '{manifest.unique_name}', which belongs to the platform or an installed app,"
        )
    verdict = Verdict(there)
    if manifest.parent_solution is not None:
        _check_patch(db, manifest, manifest.parent_solution, mode, verdict)
    else:
        _check_solution(db, manifest, mode, verdict, allow_downgrade=allow_downgrade)
    _check_roots(db, solution, platform, verdict)
    _check_dependencies(db, solution, platform, verdict)
    if manifest.managed:
        _check_unmanaged_base(db, solution, verdict)
    return verdict


def _check_solution(
    db: sqlite3.Connection, manifest: Manifest, mode: Mode, verdict: Verdict, *, allow_downgrade: bool
) -> None:
    name, there = manifest.unique_name, verdict.installed
    upgrade = mode in (Mode.HOLD, Mode.UPGRADE)
    if there is not None:
        if there.upgrade_of or there.patch_of:
            kind = "a holding solution" if there.upgrade_of else "a patch"
            verdict.refuse(Code.UNIQUE_NAME_USED, f"The unique name '{name}' is used by {kind} already.")
            return
        verdict.pending = holding(db, there) is not None
        _check_owner(manifest, there, verdict)
        have = Version.parse(there.version)
        lower = manifest.version < have and not (allow_downgrade and not upgrade)
        if lower or (upgrade and manifest.version == have):
            verdict.errors.append(_version_error(name, there.version, str(manifest.version)))
    if upgrade and not (there and there.managed and manifest.managed) and not verdict.errors:
        verdict.refuse(
            Code.IMPORT_FAILED,
            f"The solution {name} cannot be upgraded: no managed version of it is installed. Import it "
            "instead.",
        )
    if verdict.pending and mode is not Mode.LOOK:
        verdict.refuse(
            Code.HOLDING_EXISTS,
            f"Holding solution {name}_Upgrade already exists. Apply it (DeleteAndPromote) or delete it "
            f"before {name} is imported again.",
        )
    elif upgrade and there and find(db, f"{name}_Upgrade"):
        verdict.refuse(
            Code.UNIQUE_NAME_USED,
            f"The unique name '{name}_Upgrade' is used already, by a solution that is no upgrade of {name}.",
        )


def _check_patch(
    db: sqlite3.Connection, manifest: Manifest, parent_name: str, mode: Mode, verdict: Verdict
) -> None:
    """A patch goes on top of its parent: same mode, major and minor version, and higher than all before."""
    name, version, there = manifest.unique_name, manifest.version, verdict.installed
    if mode in (Mode.HOLD, Mode.UPGRADE):
        verdict.refuse(
            Code.IMPORT_FAILED,
            f"The patch {name} cannot be imported as an upgrade: a patch removes nothing. Import it instead.",
        )
    parent = verdict.parent = find(db, parent_name)
    if parent is None or parent.platform:
        verdict.refuse(
            Code.IMPORT_FAILED,
            f"The patch {name} cannot be imported: the solution {parent_name} that it patches is not "
            f"installed. Import {parent_name} first.",
        )
        return
    if parent.patch_of or parent.upgrade_of:
        verdict.refuse(Code.INVALID_PATCH, f"{parent_name} is itself a patch or an upgrade of a solution.")
        return
    if there is not None and there.patch_of != parent.id:
        verdict.refuse(
            Code.UNIQUE_NAME_USED,
            f"The unique name '{name}' is used already, by a solution that is no patch of {parent_name}.",
        )
        return
    verdict.pending = holding(db, parent) is not None
    _check_owner(manifest, parent, verdict)
    if verdict.pending and mode is not Mode.LOOK:
        verdict.refuse(Code.HOLDING_EXISTS, f"Holding solution {parent_name}_Upgrade already exists.")
    problem = patch_version_error(db, parent, version)
    if problem is not None:
        verdict.errors.append(problem)


def patch_version_error(db: sqlite3.Connection, parent: Installed, version: Version) -> DataverseError | None:
    """Why no patch of that version can be added to ``parent``, or None."""
    base = Version.parse(parent.version)
    others = [Version.parse(patch.version) for patch in patches(db, parent)]
    if version in others:
        return DataverseError(
            Code.PATCH_EXISTS,
            f"Solution patch with version {version} already exists. Updating patch is not supported.",
        )
    if version.parts[:2] != base.parts[:2] or version <= base or any(version < other for other in others):
        return DataverseError(
            Code.INVALID_PATCH,
            f"Patch version {version} is invalid for parent version {max([base, *others])}",
        )
    return None


def _check_owner(manifest: Manifest, there: Installed, verdict: Verdict) -> None:
    if there.managed != manifest.managed:
        verdict.errors.append(_mode_error(there.managed))
    elif there.managed and there.publisher.lower() != manifest.publisher.unique_name.lower():
        verdict.refuse(
            Code.WRONG_PUBLISHER,
            f"The following managed solution cannot be imported: {manifest.unique_name}. The publisher name "
            f"cannot be changed from {there.publisher} to {manifest.publisher.unique_name}.",
        )


def _check_roots(db: sqlite3.Connection, solution: Solution, platform: Platform, verdict: Verdict) -> None:
    """A root component is in the package, or in the target."""
    inside = {component.identity for component in solution.components}
    for root in solution.manifest.root_components:
        key = ComponentKey(kind_of(root.type), normalised(root.schema_name or root.id))
        if key.kind not in _ROOTS or not key.key or key in inside or is_system(key):
            continue
        if not present(db, key, managed=False):
            verdict.refuse(
                Code.ROOT_NOT_THERE,
                f"The following solution cannot be imported: {solution.manifest.unique_name}. Its root "
                f"component {key.kind} '{root.schema_name or root.id}' is neither in the package nor in the "
                "target.",
            )
            return


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
        if not platform.has(required):
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
