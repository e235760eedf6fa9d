"""Writes of solutions into an environment's rows. Each function works in its caller's transaction."""

from __future__ import annotations

import hashlib
import itertools
import json
import sqlite3
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pipelinehost_dataverse.emulator import rules
from pipelinehost_dataverse.solution import ComponentKey, Flow, RequiredComponent, Solution

ACTIVE = "Active"
"""The solution that holds unmanaged layers whose own solution is gone."""

INSERT_SOLUTION = (
    "INSERT INTO solution (id, unique_name, display_name, description, version, platform_version, managed, "
    "visible, platform, publisher, position, upgrade_of, package, installed_on, updated_on) VALUES (?, ?, "
    "?, '', ?, '', ?, ?, ?, ?, ?, ?, NULL, ?, ?)"
)


class Plan(NamedTuple):
    """Rows of an import, ready for the transaction."""

    components: list[tuple[str, str, str, str | None, str | None]]
    """kind, key, object id, parent's kind, parent's key."""
    layers: list[tuple[bytes, str, str, str, int]]
    """Digest, name, schema name, facts, behaviour; in the order of ``components``."""
    edges: list[tuple[str, str, str, str, str, str, bool]]
    """Kind, key and name of the dependent, the same of what it requires, and whether that is outside."""


def solution_row(
    name: str,
    version: str,
    publisher: str,
    position: int,
    at: str,
    *,
    managed: bool = True,
    platform: bool = False,
    upgrade_of: str | None = None,
) -> tuple[Any, ...]:
    """Parameters of ``INSERT_SOLUTION``; the first one is the new id."""
    return (
        str(uuid.uuid4()),
        name,
        name,
        version,
        managed,
        not platform,
        platform,
        publisher,
        position,
        upgrade_of,
        at,
        at,
    )


def publisher_id(
    db: sqlite3.Connection, name: str, display_name: str, prefix: str, option_value_prefix: int, at: str
) -> str:
    """The id of the publisher of that name, who is added where there is none."""
    db.execute(
        "INSERT INTO publisher VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (unique_name) DO NOTHING",
        (str(uuid.uuid4()), name, display_name or name, prefix, option_value_prefix, at),
    )
    return str(db.execute("SELECT id FROM publisher WHERE unique_name = ?", (name,)).fetchone()[0])


def next_position(db: sqlite3.Connection) -> int:
    """The top of the stack of solutions."""
    return int(db.execute("SELECT coalesce(max(position), 0) + 1 FROM solution").fetchone()[0])


def keep_package(db: sqlite3.Connection, content: bytes) -> bytes:
    """Store a package's bytes once and return their digest."""
    digest = hashlib.sha256(content).digest()
    db.execute("INSERT INTO package VALUES (?, ?) ON CONFLICT (sha256) DO NOTHING", (digest, content))
    return digest


def forget_packages(db: sqlite3.Connection) -> None:
    """Drop the packages that nothing needs any more."""
    db.execute(
        "DELETE FROM package WHERE sha256 NOT IN (SELECT package FROM solution WHERE package IS NOT NULL"
        " UNION SELECT package FROM operation WHERE package IS NOT NULL"
        " UNION SELECT package FROM export_job WHERE package IS NOT NULL UNION SELECT package FROM upload)"
    )


def put_layers(
    db: sqlite3.Connection, solution: str, plan: Plan, *, managed: bool
) -> dict[ComponentKey, int]:
    """Give a solution a layer of each component of the plan; components that are new are added.

    Returns:
        The row ids of the plan's components.

    """
    known = {(kind, key): id_ for id_, kind, key in db.execute("SELECT id, kind, key FROM component")}
    db.executemany(
        "INSERT INTO component (kind, key, object_id, parent_kind, parent_key) VALUES (?, ?, ?, ?, ?)",
        [row for row in plan.components if row[:2] not in known],
    )
    last = max(known.values(), default=0)
    known |= {
        (kind, key): id_
        for id_, kind, key in db.execute("SELECT id, kind, key FROM component WHERE id > ?", (last,))
    }
    ids = {ComponentKey(*row[:2]): known[row[:2]] for row in plan.components}
    _give_codes(db, {key.kind for key in ids})
    db.executemany(
        "INSERT INTO layer (solution, component, sha256, name, schema_name, facts, behavior, published) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (solution, component) DO UPDATE SET sha256 = "
        "excluded.sha256, name = excluded.name, schema_name = excluded.schema_name, facts = "
        "excluded.facts, behavior = excluded.behavior, published = excluded.published",
        [(solution, id_, *layer, managed) for id_, layer in zip(ids.values(), plan.layers, strict=True)],
    )
    if not managed:
        # There is one unmanaged layer: what the last import says holds for every unmanaged solution.
        db.executemany(
            "UPDATE layer SET (sha256, name, schema_name, facts) = (?, ?, ?, ?) WHERE component = ?"
            " AND solution <> ? AND solution IN (SELECT id FROM solution WHERE NOT managed)",
            [(*layer[:4], id_, solution) for id_, layer in zip(ids.values(), plan.layers, strict=True)],
        )
    return ids


def _give_codes(db: sqlite3.Connection, kinds: Collection[str]) -> None:
    """Type codes for kinds that have none: from 10000 on, at another place in each environment."""
    known = {kind for (kind,) in db.execute("SELECT kind FROM kind_code")}
    new = sorted(set(kinds) - known)
    if not new:
        return
    environment = db.execute("SELECT id FROM environment").fetchone()[0]
    highest = db.execute("SELECT max(code) FROM kind_code").fetchone()[0]
    first = max(highest + 1, 10_000 + uuid.UUID(environment).int % 400)
    fresh = itertools.count(first)
    rows = []
    for kind in new:
        number = kind.removeprefix("type ")
        rows.append((kind, int(number) if number != kind and number.isdigit() else next(fresh)))
    db.executemany("INSERT INTO kind_code VALUES (?, ?)", rows)


def layers_of(db: sqlite3.Connection, solution: str) -> list[int]:
    """The components that a solution has layers of."""
    return [id_ for (id_,) in db.execute("SELECT component FROM layer WHERE solution = ?", (solution,))]


def drop_layers(db: sqlite3.Connection, solution: str, components: Sequence[int]) -> None:
    """Take a solution's layers away, and what they need; a component without any layer disappears."""
    db.executemany(
        "DELETE FROM dependency WHERE solution = ? AND (dependent_kind, dependent_key) ="
        " (SELECT kind, key FROM component WHERE id = ?)",
        [(solution, id_) for id_ in components],
    )
    db.executemany(
        "DELETE FROM layer WHERE solution = ? AND component = ?", [(solution, id_) for id_ in components]
    )
    db.executemany(
        "DELETE FROM component WHERE id = ? AND NOT EXISTS (SELECT 1 FROM layer WHERE component = "
        "component.id)",
        [(id_,) for id_ in components],
    )
    db.execute("DELETE FROM switch WHERE component NOT IN (SELECT id FROM component)")
    for table, kind, column in (
        ("variable_value", "environmentvariabledefinition", "schema_name"),
        ("binding", "connectionreference", "logical_name"),
    ):
        db.execute(
            f"DELETE FROM {table} WHERE lower({column}) NOT IN (SELECT key FROM component WHERE kind = ?)",  # noqa: S608  # of constants
            (kind,),
        )


def active_id(db: sqlite3.Connection) -> str:
    """The solution that holds unmanaged layers whose own solution is gone."""
    return str(db.execute("SELECT id FROM solution WHERE unique_name = ?", (ACTIVE,)).fetchone()[0])


def leave_to_active(
    db: sqlite3.Connection, solution: str, components: Sequence[int], *, whole: bool = False
) -> None:
    """Take components out of an unmanaged solution; they stay in the environment, with what they need.

    With ``whole``, all dependencies of the solution go with them.
    """
    active = active_id(db)
    if whole:
        db.execute("UPDATE dependency SET solution = ? WHERE solution = ?", (active, solution))
    else:
        db.executemany(
            "UPDATE dependency SET solution = ? WHERE solution = ? AND (dependent_kind, dependent_key) ="
            " (SELECT kind, key FROM component WHERE id = ?)",
            [(active, solution, id_) for id_ in components],
        )
    db.executemany(
        "DELETE FROM layer WHERE solution = ? AND component = ? AND EXISTS (SELECT 1 FROM layer x JOIN "
        "solution s ON s.id = x.solution WHERE x.component = layer.component AND x.solution <> "
        "layer.solution AND NOT s.managed)",
        [(solution, id_) for id_ in components],
    )
    db.executemany(
        "UPDATE layer SET solution = ? WHERE solution = ? AND component = ?",
        [(active, solution, id_) for id_ in components],
    )


def put_edges(db: sqlite3.Connection, solution: str, plan: Plan, *, whole: bool) -> None:
    """Replace a solution's dependencies: all of them, or those of the plan's components."""
    if whole:
        db.execute("DELETE FROM dependency WHERE solution = ?", (solution,))
    else:
        db.executemany(
            "DELETE FROM dependency WHERE solution = ? AND dependent_kind = ? AND dependent_key = ?",
            [(solution, *row[:2]) for row in plan.components],
        )
        # Dependents of MissingDependency pairs need not be components of the package.
        db.executemany(
            "DELETE FROM dependency WHERE solution = ? AND dependent_kind = ? AND dependent_key = ?"
            " AND required_kind = ? AND required_key = ?",
            [(solution, *row[:2], *row[3:5]) for row in plan.edges],
        )
    db.executemany(
        "INSERT INTO dependency (solution, dependent_kind, dependent_key, dependent_name, required_kind,"
        " required_key, required_name, declared) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(solution, *row) for row in plan.edges],
    )


def set_values(
    db: sqlite3.Connection, solution: Solution, given: Mapping[str, tuple[str, str | None]], at: str
) -> None:
    """Give environment variables their values: what was given wins over what is there and what is packaged.

    A value that came in a package is replaced by a later package's; one that a customer set is not, unless
    the package is unmanaged.
    """
    for variable in solution.environment_variables:
        name = variable.schema_name
        there = db.execute(
            "SELECT id, customer FROM variable_value WHERE schema_name = ?", (name,)
        ).fetchone()
        if name in given:
            value, row = given[name]
            customer = True
        elif variable.packaged_value is not None:
            value, row = variable.packaged_value, variable.packaged_value_id
            customer = False
            if there and there[1] and solution.manifest.managed:
                continue
        else:
            continue
        if there:
            db.execute(
                "UPDATE variable_value SET value = ?, customer = ?, modified_on = ? WHERE id = ?",
                (value, customer, at, there[0]),
            )
            continue
        taken = row and db.execute("SELECT 1 FROM variable_value WHERE id = ?", (row.lower(),)).fetchone()
        db.execute(
            "INSERT INTO variable_value VALUES (?, ?, ?, ?, ?, ?)",
            (row.lower() if row and not taken else str(uuid.uuid4()), name, value, customer, at, at),
        )


def bind(db: sqlite3.Connection, given: Mapping[str, tuple[str, str]]) -> None:
    """Put connections behind connection references."""
    db.executemany(
        "INSERT INTO binding VALUES (?, ?) ON CONFLICT (logical_name) DO UPDATE SET connection = "
        "excluded.connection",
        [(name, connection) for name, (connection, _) in given.items()],
    )


def switch_flows(
    db: sqlite3.Connection, flows: Iterable[Flow], ids: Mapping[ComponentKey, int], *, publish: bool
) -> None:
    """Turn flows on that the package has activated and whose every connection reference has a connection.

    Without ``publish`` a flow that is there stays as it is, and a new one is off.
    """
    bound = {name.lower() for (name,) in db.execute("SELECT logical_name FROM binding")}
    for flow in flows:
        component = ids.get(ComponentKey("workflow", flow.id.lower()))
        if component is None:
            continue
        ready = not flow.connectors and all(name.lower() in bound for name in flow.connection_references)
        on = publish and flow.activated and ready
        db.execute(
            'INSERT INTO switch VALUES (?, ?) ON CONFLICT (component) DO UPDATE SET "on" = excluded."on"'
            if publish
            else "INSERT INTO switch VALUES (?, ?) ON CONFLICT (component) DO NOTHING",
            (component, on),
        )


def facts(solution: Solution) -> dict[ComponentKey, dict[str, object]]:
    """What tables show of environment variables and connection references, by component."""
    found: dict[ComponentKey, dict[str, object]] = {}
    for variable in solution.environment_variables:
        found[ComponentKey("environmentvariabledefinition", variable.schema_name.lower())] = {
            "description": variable.description,
            "type": int(variable.type),
            "default": variable.default,
            "required": variable.required,
            "parameter_key": variable.parameter_key,
            "api_id": variable.api_id,
        }
    for reference in solution.connection_references:
        found[ComponentKey("connectionreference", reference.logical_name.lower())] = {
            "description": reference.description,
            "connector_id": reference.connector_id,
        }
    return found


def plan_rows(
    solution: Solution,
    start: int,
    stop: int,
    namespace: uuid.UUID,
    known: Mapping[ComponentKey, dict[str, object]],
) -> tuple[list[Any], list[Any]]:
    """Rows of components and layers for a slice of a package's components."""
    behaviors = _behaviors(solution)
    components, layers = [], []
    for component in solution.components[start:stop]:
        key = component.identity
        object_id = rules.guid_in(key.key) or str(uuid.uuid5(namespace, f"{key.kind}:{key.key}"))
        components.append((*key, object_id, *(component.parent or (None, None))))
        shown = json.dumps({**component.attributes, **known.get(key, {})})
        layers.append(
            (component.sha256, component.name, component.schema_name, shown, behaviors.get(component.key, 0))
        )
    return components, layers


def _behaviors(solution: Solution) -> dict[str, int]:
    roots = solution.manifest.root_components
    return {(r.id or r.schema_name).strip("{}").lower(): r.behavior for r in roots if r.behavior}


def shown(component: RequiredComponent) -> str:
    """The name by which people know an end of a dependency."""
    return component.display_name or component.schema_name or component.key
