"""What would disappear with a solution, and what forbids it. Nothing here writes.

A component stays while any layer of it is left. It cannot go while another component needs it, in any layer
of that one: a layer that does not count counts again when those above it go.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from pipelinehost_dataverse.emulator.baseline import is_system
from pipelinehost_dataverse.emulator.layers import guid_in
from pipelinehost_dataverse.solution.model import ComponentKey

_OF = "(SELECT value FROM json_each(?))"


class Edge(NamedTuple):
    """A dependency that stands in the way of a removal."""

    solution: str
    dependent: ComponentKey
    dependent_name: str
    required: ComponentKey
    required_name: str
    published: bool = True


def leaving_with(db: sqlite3.Connection, solution: str) -> list[str]:
    """The ids of a solution and its patches, the newest patch first: they go together."""
    rows = db.execute(
        "SELECT id FROM solution WHERE patch_of = ? ORDER BY position DESC", (solution,)
    ).fetchall()
    return [*(id_ for (id_,) in rows), solution]


def removed_with(db: sqlite3.Connection, leaving: Collection[str]) -> dict[ComponentKey, int]:
    """The components that have layers of these solutions only, and their row ids."""
    ids = json.dumps(list(leaving))
    rows = db.execute(
        "SELECT kind, key, id FROM component WHERE id IN"  # noqa: S608  # of constants
        f" (SELECT component FROM layer WHERE solution IN {_OF}) AND id NOT IN"
        f" (SELECT component FROM layer WHERE solution NOT IN {_OF})",
        (ids, ids),
    )
    return {ComponentKey(kind, key): id_ for kind, key, id_ in rows}


def blockers(
    db: sqlite3.Connection,
    removed: Mapping[ComponentKey, int],
    *,
    leaving: Collection[str] = (),
    coming: str | None = None,
) -> list[Edge]:
    """The dependencies that forbid a removal: their dependent stays, what it requires would go.

    Args:
        db: the environment.
        removed: what would disappear.
        leaving: ids of the solutions whose own dependencies go with them.
        coming: id of the solution that takes their place. Only what its manifest declares counts of it: that
            is what the package says that it needs from outside.

    """
    edges: list[Edge] = []
    for key in removed:
        rows = db.execute(
            "SELECT solution, dependent_kind, dependent_key, dependent_name, required_name, published,"
            " declared FROM dependency WHERE required_kind = ? AND required_key = ?",
            key,
        )
        for solution, kind, dependent_key, dependent_name, required_name, published, declared in rows:
            dependent = ComponentKey(kind, dependent_key)
            if dependent in removed or solution in leaving or (solution == coming and not declared):
                continue
            edges.append(Edge(solution, dependent, dependent_name, key, required_name, bool(published)))
    # Files and manifest may tell of the same edge; one of them may know no name but the key.
    edges.sort(key=lambda edge: edge.dependent_name != edge.dependent.key)
    once = {(edge.solution, edge.dependent, edge.required): edge for edge in edges}
    return [once[ends] for ends in sorted(once)]


def foreign_layer_above(db: sqlite3.Connection, leaving: Collection[str]) -> str | None:
    """Name of a component whose base layer would go from under another publisher's managed layer, or None."""
    ids = json.dumps(list(leaving))
    rows = db.execute(
        "SELECT l.component, s.id, lower(p.unique_name), c.kind, c.key, c.object_id FROM layer l"  # noqa: S608  # of constants
        " JOIN solution s ON s.id = l.solution JOIN publisher p ON p.id = s.publisher"
        " JOIN component c ON c.id = l.component WHERE s.managed AND l.component IN"
        f" (SELECT component FROM layer WHERE solution IN {_OF}) ORDER BY l.component, s.position",
        (ids,),
    ).fetchall()
    base: dict[int, str] = {}
    over: set[int] = set()
    for component, solution, publisher, kind, key, object_id in rows:
        if component not in base:
            # Whoever has the base and stays: nothing of it goes.
            base[component] = publisher if solution in leaving else ""
        if solution in leaving or component in over or not base[component]:
            continue
        over.add(component)
        if publisher != base[component] and not is_system(ComponentKey(kind, key)):
            return f"'{key}' with id '{object_id}'"
    return None


def refusal(db: sqlite3.Connection, leaving: Collection[str], *, coming: str | None = None) -> str | None:
    """Why these solutions cannot go, in the words of Dataverse's errors; None where they can.

    Args:
        db: the environment.
        leaving: their ids.
        coming: id of the solution that takes their place.

    """
    edges = blockers(db, removed_with(db, leaving), leaving=leaving, coming=coming)
    if edges:
        return _dependency_text(db, edges)
    foreign = foreign_layer_above(db, leaving)
    if foreign:
        return (
            f"The uninstall operation will delete the base layer for the component {foreign}. The operation "
            "cannot continue because there are other managed layers over the base layer. You can use the "
            "solution layers to find out which other solutions are blocking the operation."
        )
    return None


def _dependency_text(db: sqlite3.Connection, edges: Sequence[Edge]) -> str:
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
