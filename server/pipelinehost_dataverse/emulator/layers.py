"""The stack of layers, and every write to it. Each function works in its caller's transaction.

A managed solution has a layer of each of its components; the makers of the environment share one layer,
which belongs to the solution ``Active``. Solutions are stacked by position: ``_Upgrade`` and patches directly
above their base. An unmanaged solution is a container: it has members, but says nothing about them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sqlite3
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pipelinehost_dataverse.solution.model import ComponentKey, Flow, RequiredComponent, Solution

ACTIVE: Final = "Active"
"""The solution that the makers' layer belongs to."""

NEED_PUBLISHING: Final = frozenset(
    {
        "appmodule", "appmodulesitemap", "attribute", "entity", "entitykey", "entityrelationship",
        "optionset", "ribboncustomization", "savedquery", "savedqueryvisualization", "sitemap", "systemform",
        "webresource",
    }
)  # fmt: skip
"""Kinds of components whose changes wait for PublishAllXml or PublishXml. Not verified for each of them."""

MERGED: Final = frozenset({"appmodule", "appmodulesitemap", "sitemap", "systemform"})
"""Kinds whose layers Dataverse merges: overwriting customizations leaves the makers' layer of them."""

_GUID_END = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")

_TOP = "ORDER BY NOT l.published, s.managed, s.position DESC"
"""The layer that counts comes first: published before not published, makers before solutions."""


class Plan(NamedTuple):
    """Rows of an import, ready for the transaction."""

    components: list[tuple[str, str, str, str | None, str | None]]
    """kind, key, object id, parent's kind, parent's key."""
    layers: list[tuple[bytes, str, str, str, int]]
    """Digest, name, schema name, facts, behaviour; in the order of ``components``."""
    edges: list[tuple[str, str, str, str, str, str, bool]]
    """Kind, key and name of the dependent, the same of what it requires, and whether that is outside."""


class Top(NamedTuple):
    """The layer of a component that counts."""

    solution: str
    published: bool
    sha256: bytes
    name: str
    schema_name: str
    facts: dict[str, Any]


def add_solution(
    db: sqlite3.Connection,
    name: str,
    version: str,
    publisher: str,
    position: int,
    at: str,
    *,
    managed: bool = True,
    platform: bool = False,
    upgrade_of: str | None = None,
    patch_of: str | None = None,
) -> str:
    """Add a solution without components, and return its id."""
    id_ = str(uuid.uuid4())
    db.execute(
        "INSERT INTO solution (id, unique_name, display_name, description, version, platform_version,"
        " managed, visible, platform, publisher, position, upgrade_of, patch_of, installed_on, updated_on)"
        " VALUES (?, ?, ?, '', ?, '', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (id_, name, name, version, managed, not platform, platform, publisher, position, upgrade_of, patch_of,
         at, at),
    )  # fmt: skip
    return id_


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


def position_above(db: sqlite3.Connection, base: str) -> int:
    """A free position directly above a solution and its patches; whatever lies higher moves up."""
    found = db.execute(
        "SELECT max(position) + 1 FROM solution WHERE id = ? OR patch_of = ?", (base, base)
    ).fetchone()[0]
    # By way of negative numbers: a position is unique at every moment.
    db.execute("UPDATE solution SET position = -position - 1 WHERE position >= ?", (found,))
    db.execute("UPDATE solution SET position = -position WHERE position < 0")
    return int(found)


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


def active_id(db: sqlite3.Connection) -> str:
    """The solution of the makers' layer."""
    return str(db.execute("SELECT id FROM solution WHERE unique_name = ?", (ACTIVE,)).fetchone()[0])


def put_components(db: sqlite3.Connection, plan: Plan) -> dict[ComponentKey, int]:
    """Add the plan's components that are new, and return the row ids of all of them."""
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


_PUT_LAYER = (
    "INSERT INTO layer (solution, component, published, sha256, name, schema_name, facts, behavior)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (solution, component, published) DO UPDATE SET (sha256,"
    " name, schema_name, facts, behavior) = (excluded.sha256, excluded.name, excluded.schema_name,"
    " excluded.facts, excluded.behavior)"
)
_PUT_EDGE = (
    "INSERT INTO dependency (solution, dependent_kind, dependent_key, dependent_name, required_kind,"
    " required_key, required_name, declared, published) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def put_managed(
    db: sqlite3.Connection, solution: str, plan: Plan, ids: Mapping[ComponentKey, int], *, fresh: bool
) -> None:
    """Give a managed solution a layer of each component of the plan, with what it needs.

    ``fresh`` says that the solution has nothing yet. Otherwise what the plan does not have stays.
    """
    db.executemany(
        _PUT_LAYER,
        [(solution, id_, True, *layer) for id_, layer in zip(ids.values(), plan.layers, strict=True)],
    )
    if not fresh:
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
    db.executemany(_PUT_EDGE, [(solution, *row, True) for row in plan.edges])


def put_unmanaged(db: sqlite3.Connection, solution: str, plan: Plan, ids: Mapping[ComponentKey, int]) -> None:
    """Make the plan's components the members of an unmanaged solution, and the plan what makers say of them.

    What the solution had and the plan has not stays in the environment, as no member of it.
    """
    db.execute("DELETE FROM membership WHERE solution = ?", (solution,))
    db.executemany(
        "INSERT INTO membership (solution, component, sha256, behavior) VALUES (?, ?, ?, ?)",
        [(solution, id_, row[0], row[4]) for id_, row in zip(ids.values(), plan.layers, strict=True)],
    )
    active = active_id(db)
    at_once = [key.kind not in NEED_PUBLISHING for key in ids]
    db.executemany(
        _PUT_LAYER,
        [
            (active, id_, published, *row)
            for id_, published, row in zip(ids.values(), at_once, plan.layers, strict=True)
        ],
    )
    db.executemany(
        "DELETE FROM dependency WHERE solution = ? AND dependent_kind = ? AND dependent_key = ?"
        " AND published = ?",
        [(active, *key, published) for key, published in zip(ids, at_once, strict=True)],
    )
    db.executemany(
        _PUT_EDGE,
        [(active, *row, row[0] not in NEED_PUBLISHING) for row in plan.edges if row[:2] in ids],
    )


def top(db: sqlite3.Connection, component: int) -> Top:
    """The layer of a component that counts."""
    row = db.execute(
        "SELECT l.solution, l.published, l.sha256, l.name, l.schema_name, l.facts FROM layer l"  # noqa: S608  # of constants
        f" JOIN solution s ON s.id = l.solution WHERE l.component = ? {_TOP} LIMIT 1",
        (component,),
    ).fetchone()
    return Top._make((*row[:5], json.loads(row[5])))


def create(
    db: sqlite3.Connection, key: ComponentKey, name: str, schema_name: str, facts: Mapping[str, object]
) -> str:
    """A component that makers make, in no solution but theirs; the id of its object."""
    object_id, text = str(uuid.uuid4()), json.dumps(facts)
    component = db.execute(
        "INSERT INTO component (kind, key, object_id) VALUES (?, ?, ?)", (*key, object_id)
    ).lastrowid
    _give_codes(db, {key.kind})
    digest = hashlib.sha256(text.encode()).digest()
    db.execute(_PUT_LAYER, (active_id(db), component, True, digest, name, schema_name, text, 0))
    return object_id


def customize(
    db: sqlite3.Connection,
    component: int,
    key: ComponentKey,
    *,
    name: str | None = None,
    facts: Mapping[str, object] | None = None,
    needs: Sequence[tuple[ComponentKey, str]] | None = None,
) -> None:
    """A maker's change of a component: it begins with what counts, and goes to the makers' layer.

    Args:
        db: the environment.
        component: its row.
        key: what it is.
        name: another display name.
        facts: other facts, beside those that stay.
        needs: the components that it needs from now on, each with a name to show; None where that stays.

    """
    active = active_id(db)
    # A maker goes on from what makers did last, published or not.
    mine = db.execute(
        "SELECT solution, published, sha256, name, schema_name, facts FROM layer WHERE solution = ?"
        " AND component = ? ORDER BY published LIMIT 1",
        (active, component),
    ).fetchone()
    old = Top._make((*mine[:5], json.loads(mine[5]))) if mine else top(db, component)
    edges: list[tuple[Any, ...]] = db.execute(
        "SELECT dependent_kind, dependent_key, dependent_name, required_kind, required_key, required_name,"
        " declared FROM dependency WHERE solution = ? AND dependent_kind = ? AND dependent_key = ?"
        " AND published = ?",
        (old.solution, *key, old.published),
    ).fetchall()
    shown = old.name if name is None else name
    if needs is not None:
        edges = [(*key, shown, *required, required_name, False) for required, required_name in needs]
    published = key.kind not in NEED_PUBLISHING
    digest = hashlib.sha256(old.sha256 + json.dumps([name, facts, needs]).encode()).digest()
    behavior = db.execute("SELECT max(behavior) FROM layer WHERE component = ?", (component,)).fetchone()[0]
    text = json.dumps({**old.facts, **(facts or {})})
    db.execute(_PUT_LAYER, (active, component, published, digest, shown, old.schema_name, text, behavior))
    db.execute(
        "DELETE FROM dependency WHERE solution = ? AND dependent_kind = ? AND dependent_key = ?"
        " AND published = ?",
        (active, *key, published),
    )
    db.executemany(_PUT_EDGE, [(active, *edge, published) for edge in edges])


def publish(db: sqlite3.Connection, components: Collection[int] | None = None) -> None:
    """Let what makers changed count: all of it, or what they changed of some components."""
    waiting = db.execute(
        "SELECT l.solution, l.component, c.kind, c.key FROM layer l JOIN component c ON c.id = l.component"
        " WHERE NOT l.published"
    ).fetchall()
    rows = [row for row in waiting if components is None or row[1] in components]
    ends = [(row[0], row[2], row[3]) for row in rows]
    of = "WHERE solution = ? AND component = ? AND published = ?"
    db.executemany(f"DELETE FROM layer {of}", [(*row[:2], True) for row in rows])  # noqa: S608  # of constants
    db.executemany(f"UPDATE layer SET published = 1 {of}", [(*row[:2], False) for row in rows])  # noqa: S608  # as above
    of = "WHERE solution = ? AND dependent_kind = ? AND dependent_key = ? AND published = ?"
    db.executemany(f"DELETE FROM dependency {of}", [(*row, True) for row in ends])  # noqa: S608  # as above
    db.executemany(f"UPDATE dependency SET published = 1 {of}", [(*row, False) for row in ends])  # noqa: S608  # as above


def drop_active(db: sqlite3.Connection, components: Sequence[int]) -> None:
    """Take the makers' layer of these components away, with what it needs."""
    active = active_id(db)
    db.executemany(
        "DELETE FROM dependency WHERE solution = ? AND (dependent_kind, dependent_key) ="
        " (SELECT kind, key FROM component WHERE id = ?)",
        [(active, id_) for id_ in components],
    )
    db.executemany(
        "DELETE FROM layer WHERE solution = ? AND component = ?", [(active, id_) for id_ in components]
    )
    sweep(db)


def drop_solution(db: sqlite3.Connection, solution: str) -> None:
    """Take a solution away, with its layers, its members and what it needs; call ``sweep`` afterwards."""
    for table, column in (
        ("dependency", "solution"),
        ("layer", "solution"),
        ("membership", "solution"),
        ("solution", "id"),
    ):
        db.execute(f"DELETE FROM {table} WHERE {column} = ?", (solution,))  # noqa: S608  # of constants


def sweep(db: sqlite3.Connection) -> None:
    """Let components without any layer disappear, with whatever was kept for them."""
    db.execute("DELETE FROM component WHERE id NOT IN (SELECT component FROM layer)")
    db.execute("DELETE FROM membership WHERE component NOT IN (SELECT id FROM component)")
    db.execute("DELETE FROM switch WHERE component NOT IN (SELECT id FROM component)")
    for table, kind, column in (
        ("variable_value", "environmentvariabledefinition", "schema_name"),
        ("binding", "connectionreference", "logical_name"),
    ):
        db.execute(
            f"DELETE FROM {table} WHERE lower({column}) NOT IN (SELECT key FROM component WHERE kind = ?)",  # noqa: S608  # of constants
            (kind,),
        )
    _show_packaged_values(db)


def _show_packaged_values(db: sqlite3.Connection) -> None:
    """A value that no customer set is what the top layer of the value says; it goes with the last one."""
    rows = db.execute(
        "SELECT v.id, v.value, c.id FROM variable_value v LEFT JOIN component c"
        " ON c.kind = 'environmentvariablevalue' AND c.key = lower(v.schema_name) WHERE NOT v.customer"
    ).fetchall()
    for id_, value, component in rows:
        if component is None:
            db.execute("DELETE FROM variable_value WHERE id = ?", (id_,))
            continue
        packaged = top(db, component).facts.get("value", value)
        if packaged != value:
            db.execute("UPDATE variable_value SET value = ? WHERE id = ?", (packaged, id_))


def set_values(
    db: sqlite3.Connection,
    solution: Solution,
    given: Mapping[str, tuple[str, str | None]],
    at: str,
    *,
    overwrite: bool,
) -> None:
    """Give environment variables their values: what was given wins over what is there and what is packaged.

    A value that came in a package is replaced by a later package's. One that a customer set is not, unless
    the package is unmanaged or ``overwrite`` says that customizations go.
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
            if there and there[1] and solution.manifest.managed and not overwrite:
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
    _show_packaged_values(db)


def bind(db: sqlite3.Connection, given: Mapping[str, tuple[str, str]]) -> None:
    """Put connections behind connection references."""
    db.executemany(
        "INSERT INTO binding VALUES (?, ?) ON CONFLICT (logical_name) DO UPDATE SET connection = "
        "excluded.connection",
        [(name, connection) for name, (connection, _) in given.items()],
    )


def unbound(db: sqlite3.Connection, references: Collection[str]) -> list[str]:
    """Which of these connection references have no connection, or one that is no longer there."""
    bound = {
        name.lower()
        for (name,) in db.execute(
            "SELECT b.logical_name FROM binding b JOIN connection c ON c.id = b.connection"
        )
    }
    return [name for name in references if name.lower() not in bound]


def switch_flows(
    db: sqlite3.Connection, flows: Collection[Flow], ids: Mapping[ComponentKey, int], *, publish: bool
) -> None:
    """Turn flows on that the package has activated and whose every connection reference has a connection.

    What counts is what the flow's top layer refers to. Without ``publish`` a flow that is there stays as it
    is, and a new one is off.
    """
    if not flows:
        return
    named = {name for flow in flows for name in flow.connection_references}
    without = set(unbound(db, named))
    for flow in flows:
        component = ids.get(ComponentKey("workflow", flow.id.lower()))
        if component is None:
            continue
        on = publish and flow.activated
        if on:
            facts = top(db, component).facts
            references = facts.get("references", ())
            changed = not named.issuperset(references)
            missing = unbound(db, references) if changed else without.intersection(references)
            on = not missing and not facts.get("connectors")
        db.execute(
            'INSERT INTO switch VALUES (?, ?) ON CONFLICT (component) DO UPDATE SET "on" = excluded."on"'
            if publish
            else "INSERT INTO switch VALUES (?, ?) ON CONFLICT (component) DO NOTHING",
            (component, on),
        )


def facts(solution: Solution) -> dict[ComponentKey, dict[str, object]]:
    """What tables show of variables and connection references, and what flows need to be on, by component."""
    found: dict[ComponentKey, dict[str, object]] = {}
    for variable in solution.environment_variables:
        key = variable.schema_name.lower()
        found[ComponentKey("environmentvariabledefinition", key)] = {
            "description": variable.description,
            "type": int(variable.type),
            "default": variable.default,
            "required": variable.required,
            "parameter_key": variable.parameter_key,
            "api_id": variable.api_id,
        }
        if variable.packaged_value is not None:
            found[ComponentKey("environmentvariablevalue", key)] = {"value": variable.packaged_value}
    for reference in solution.connection_references:
        found[ComponentKey("connectionreference", reference.logical_name.lower())] = {
            "description": reference.description,
            "connector_id": reference.connector_id,
        }
    for flow in solution.flows:
        found[ComponentKey("workflow", flow.id.lower())] = {
            "references": flow.connection_references,
            "connectors": flow.connectors,
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
        object_id = guid_in(key.key) or str(uuid.uuid5(namespace, f"{key.kind}:{key.key}"))
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


def guid_in(key: str) -> str:
    """The GUID that a component's key is, or ends with; empty where it is a name."""
    found = _GUID_END.search(key)
    return found.group() if found else ""
