"""An import: worked out beforehand, then applied in one transaction."""

from __future__ import annotations

import sqlite3
import uuid
from typing import Final

from pipelinehost_dataverse.emulator import layers, removal
from pipelinehost_dataverse.emulator.baseline import Platform
from pipelinehost_dataverse.emulator.errors import Code, DataverseError
from pipelinehost_dataverse.emulator.journal import Report, Work, now
from pipelinehost_dataverse.emulator.parameters import ImportRequest
from pipelinehost_dataverse.emulator.rules import Installed, Mode, Verdict
from pipelinehost_dataverse.solution.model import Solution

_SLICE: Final = 150
"""Components between two reports of progress."""


def plan(solution: Solution, platform: Platform, namespace: uuid.UUID, report: Report) -> layers.Plan:
    """Work the rows out, a slice at a time: others need the interpreter too.

    Args:
        solution: what the package tells.
        platform: what the environment holds besides.
        namespace: of the ids of components that have no GUID of their own.
        report: told of progress, from 25 to 90 percent.

    """
    rows = layers.Plan([], [], [])
    known = layers.facts(solution)
    total = len(solution.components)
    step = min(_SLICE, max(1, -(-total // 5)))
    for start in range(0, total, step):
        found = layers.plan_rows(solution, start, start + step, namespace, known)
        rows.components.extend(found[0])
        rows.layers.extend(found[1])
        report(25 + 60 * min(start + step, total) // total)
    for dependency in solution.dependencies:
        dependent, required = dependency.dependent, dependency.required
        outside = dependency.declared and not platform.has(required)
        ends = (*dependent.identity, layers.shown(dependent), *required.identity, layers.shown(required))
        rows.edges.append((*ends, outside))
    report(90)
    return rows


def apply(
    db: sqlite3.Connection,
    work: Work,
    solution: Solution,
    rows: layers.Plan,
    request: ImportRequest,
    verdict: Verdict,
    mode: Mode,
) -> DataverseError | None:
    """Change the environment, in the caller's transaction.

    Returns:
        The error of an upgrade that is blocked; what that leaves behind is written. Otherwise None.

    """
    manifest, there, at = solution.manifest, verdict.installed, now()
    publisher = manifest.publisher
    owner = layers.publisher_id(
        db,
        publisher.unique_name,
        publisher.display_name,
        publisher.prefix,
        publisher.option_value_prefix,
        at,
    )
    base = there if mode in (Mode.HOLD, Mode.UPGRADE) else None
    if base is not None:
        name = f"{base.unique_name}_Upgrade"
        position = layers.position_above(db, base.id)
        id_ = layers.add_solution(db, name, str(manifest.version), owner, position, at, upgrade_of=base.id)
    elif there is None:
        name, parent = manifest.unique_name, verdict.parent
        position = layers.position_above(db, parent.id) if parent else layers.next_position(db)
        id_ = layers.add_solution(
            db,
            name,
            str(manifest.version),
            owner,
            position,
            at,
            managed=manifest.managed,
            patch_of=parent.id if parent else None,
        )
    else:
        name, id_ = manifest.unique_name, there.id
    db.execute(
        "UPDATE solution SET unique_name = ?, display_name = ?, description = ?, version = ?,"
        " platform_version = ?, publisher = ?, package = ?, updated_on = ? WHERE id = ?",
        (
            name,
            manifest.display_name,
            manifest.description,
            str(manifest.version),
            manifest.platform_version,
            owner,
            work.package,
            at,
            id_,
        ),
    )
    ids = layers.put_components(db, rows)
    if manifest.managed:
        layers.put_managed(db, id_, rows, ids, fresh=base is not None or there is None)
        if request.overwrite:
            layers.drop_active(db, [number for key, number in ids.items() if key.kind not in layers.MERGED])
    else:
        layers.put_unmanaged(db, id_, rows, ids)
    blocked = None
    if base is not None and mode is Mode.UPGRADE:
        why = removal.refusal(db, removal.leaving_with(db, base.id), coming=id_)
        if why:
            blocked = DataverseError(
                Code.UPGRADE_FAILED,
                f"Solution Upgrade action failed after import as holding. InnerException is: {why}",
            )
        else:
            replace(db, base, id_, manifest.unique_name)
    layers.set_values(db, solution, request.values, at, overwrite=request.overwrite)
    layers.bind(db, request.connections)
    layers.switch_flows(db, solution.flows, ids, publish=request.publish)
    db.execute("UPDATE history SET solution_id = ? WHERE operation = ?", (id_, work.operation))
    return blocked


def replace(db: sqlite3.Connection, base: Installed, coming: str, name: str) -> None:
    """Take a base and its patches away, and give its name to what was held beside it."""
    for solution in removal.leaving_with(db, base.id):
        layers.drop_solution(db, solution)
    db.execute("UPDATE solution SET unique_name = ?, upgrade_of = NULL WHERE id = ?", (name, coming))
    layers.sweep(db)
