"""What an environment answers to questions about it; short reads, which run on the event loop."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterable

from pipelinehost_dataverse.emulator import removal, results, rules
from pipelinehost_dataverse.emulator.errors import Code, DataverseError
from pipelinehost_dataverse.emulator.layers import active_id, guid_in
from pipelinehost_dataverse.emulator.removal import Edge
from pipelinehost_dataverse.emulator.rules import Installed
from pipelinehost_dataverse.solution.model import ComponentKey


def find_solution(db: sqlite3.Connection, unique_name: str) -> Installed:
    """The installed solution of that name.

    Raises:
        DataverseError: there is none.

    """
    there = rules.find(db, unique_name)
    if there is None:
        raise DataverseError(
            Code.NOT_FOUND, f"solution With uniquename = {unique_name} Does Not Exist", status=404
        )
    return there


def solution_name(db: sqlite3.Connection, solution: str) -> str:
    """The unique name of the solution with that id.

    Raises:
        DataverseError: there is none.

    """
    row = db.execute("SELECT unique_name FROM solution WHERE id = ?", (solution,)).fetchone()
    if row is None:
        raise DataverseError(Code.NOT_FOUND, f"solution With Id = {solution} Does Not Exist", status=404)
    return str(row[0])


def promotable(db: sqlite3.Connection, base: Installed) -> Installed:
    """The upgrade that waits beside a managed solution.

    Raises:
        DataverseError: none waits, or the solution is none that can be upgraded.

    """
    if not base.managed or base.platform or base.patch_of or base.upgrade_of:
        raise DataverseError(
            Code.WRONG_SOLUTION,
            f"The wrong solution was selected: '{base.unique_name}' is no base of an upgrade. Select the "
            "managed solution that is to be upgraded.",
        )
    coming = rules.holding(db, base)
    if coming is None:
        raise DataverseError(
            Code.NO_UPGRADE_READY,
            f"There is no solution upgrade ready to be applied to '{base.unique_name}'. Import it with "
            "HoldingSolution first.",
        )
    return coming


def import_result(db: sqlite3.Connection, job: str) -> dict[str, object]:
    """``SolutionOperationResult`` of an import job.

    Raises:
        DataverseError: there is no such job.

    """
    row = db.execute(
        "SELECT errors, warnings, completed_on, coalesce(solution_name, '') FROM import_job WHERE id = ?",
        (job,),
    ).fetchone()
    if row is None:
        raise DataverseError(Code.NOT_FOUND, f"importjob With Id = {job} Does Not Exist", status=404)
    errors, warnings = json.loads(row[0]), json.loads(row[1])

    def message(code: int, text: str) -> dict[str, object]:
        return {"ErrorCode": code, "Message": text}

    lines = [("Failure", text) for _, text in errors] + [("Warning", text) for text in warnings]
    return {
        "Type": "Import",
        "Status": "Failed" if errors else "Passed" if row[2] else "InProgress",
        "WarningMessages": [message(0, text) for text in warnings],
        "ErrorMessages": [message(*pair) for pair in errors],
        "ActionLink": {"Label": None, "Target": None},
        "FormattedResults": results.workbook(row[3], lines or [("Success", row[3])]),
    }


def dependencies_for_delete(db: sqlite3.Connection, object_id: str, code: int) -> list[dict[str, object]]:
    """Rows of ``dependency`` that would stop a component from being deleted.

    Raises:
        DataverseError: the environment has no such component.

    """
    row = db.execute(
        "SELECT c.id, c.kind, c.key FROM component c JOIN kind_code k ON k.kind = c.kind"
        " WHERE c.object_id = ? AND k.code = ?",
        (object_id, code),
    ).fetchone()
    if row is None:
        raise DataverseError(
            Code.NOT_FOUND, f"No component of type {code} has the id {object_id}.", status=404
        )
    return _rows_of(db, removal.blockers(db, {ComponentKey(row[1], row[2]): row[0]}))


def dependencies_for_uninstall(db: sqlite3.Connection, unique_name: str) -> list[dict[str, object]]:
    """Rows of ``dependency`` that would stop a solution, with its patches, from being uninstalled.

    An unmanaged solution is a container: nothing stops it.

    Raises:
        DataverseError: there is no such solution.

    """
    there = find_solution(db, unique_name)
    if not there.managed:
        return []
    leaving = removal.leaving_with(db, there.id)
    return _rows_of(db, removal.blockers(db, removal.removed_with(db, leaving), leaving=leaving))


def missing_dependencies(db: sqlite3.Connection, unique_name: str) -> list[dict[str, object]]:
    """Rows of ``dependency`` of an installed solution whose required component is not here.

    Raises:
        DataverseError: there is no such solution.

    """
    there = find_solution(db, unique_name)
    # What an unmanaged solution needs is what the makers' layer of its members needs.
    members = (
        ""
        if there.managed
        else (
            " AND EXISTS (SELECT 1 FROM membership m JOIN component c ON c.id = m.component WHERE"
            " m.solution = ? AND c.kind = d.dependent_kind AND c.key = d.dependent_key)"
        )
    )
    rows = db.execute(
        "SELECT DISTINCT solution, dependent_kind, dependent_key, dependent_name, required_kind,"  # noqa: S608  # of constants
        " required_key, required_name, published FROM dependency d WHERE solution = ? AND declared AND NOT"
        " EXISTS (SELECT 1 FROM component c WHERE c.kind = d.required_kind AND c.key = d.required_key)"
        + members,
        (there.id,) if there.managed else (active_id(db), there.id),
    ).fetchall()
    edges = [
        Edge(solution, ComponentKey(*row[:2]), row[2], ComponentKey(*row[3:5]), row[5], bool(row[6]))
        for solution, *row in rows
    ]
    return _rows_of(db, edges)


def _rows_of(db: sqlite3.Connection, edges: Iterable[Edge]) -> list[dict[str, object]]:
    codes: dict[str, int] = dict(db.execute("SELECT kind, code FROM kind_code").fetchall())
    rows: list[dict[str, object]] = []
    for edge in edges:
        row: dict[str, object] = {
            "dependencyid": str(uuid.uuid5(uuid.NAMESPACE_OID, repr(edge))),
            "dependencytype": 2 if edge.published else 4,
        }
        for side, key in (("dependent", edge.dependent), ("required", edge.required)):
            found = db.execute(
                "SELECT c.object_id, p.object_id, (SELECT l.solution FROM layer l JOIN solution s"
                " ON s.id = l.solution WHERE l.component = c.id ORDER BY NOT s.managed, s.position LIMIT 1)"
                " FROM component c LEFT JOIN component p ON p.kind = c.parent_kind AND p.key = c.parent_key"
                " WHERE c.kind = ? AND c.key = ?",
                key,
            ).fetchone() or (guid_in(key.key) or None, None, edge.solution or None)
            row[f"{side}componenttype"] = codes.get(key.kind)
            row[f"{side}componentobjectid"] = found[0]
            row[f"{side}componentparentid"] = found[1]
            row[f"{side}componentbasesolutionid"] = found[2]
        rows.append(row)
    return rows
