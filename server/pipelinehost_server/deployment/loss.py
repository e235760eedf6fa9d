"""What is lost when a target goes back: gets a version that is not higher than the one that it holds.

Going back is imported as an update (`StageAndUpgrade` refuses a version that is not higher), and an update
removes nothing. So three things are lost: what the newer version changed in a component changes back, what it
added stays behind unused, and what nobody here knows is replaced whatever it is. What the newer version had
removed comes back, tables and columns without their rows; that is told too, but loses nothing.

What the target holds is what the host's newest run to it has put there, if nothing was done to the solution
since; else only the names of its components are known, and what lies in them is not.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipelinehost.v1.resources_pb2 import Finding, Step
from pipelinehost_dataverse.solution import Component, ComponentKey, Solution
from pipelinehost_dataverse.webapi import HistoryRow, InstalledComponent, InstalledSolution, WebApi
from pipelinehost_server.deployment.findings import (
    component_subject,
    component_title,
    finding,
    kind_word,
    subject,
)

Known = Callable[[InstalledSolution, str], Awaitable[Solution | None]]
"""Gives what an environment holds of a solution, if that operation was the host's own."""
NAMED = 500
"""Components of one sort that get a finding of their own; those after them are counted."""
_CHANGES = {
    "entity": "; its rows stay",
    "workflow": "; whether it is on is as {version} has it",
    "appmodule": "",
    "canvasapp": "",
    "environmentvariabledefinition": "; its default may be another one, a value that was set stays",
    "environmentvariablevalue": "; a value that was set in {environment} wins over it",
    "connectionreference": "; its connection stays",
    "attribute": "; its values stay, also those that {version} would not let in",
}
"""Kinds that are named one by one, and what becomes of what people have put into them; in this order, so
that hundreds of columns do not keep a flow from being named."""
_STAYS = {
    "entity": " with all its rows",
    "attribute": " with its values in all rows",
    "workflow": " and runs on, if it is on",
    "environmentvariabledefinition": " with its value, which nothing of {version} reads",
    "connectionreference": " with its connection, which nothing of {version} uses",
}
_COMES = {"entity": " without rows", "attribute": " without values"}


@dataclass(frozen=True, slots=True)
class Part:
    """A component, as people are told of it."""

    identity: ComponentKey
    name: str
    display_name: str


@dataclass(frozen=True, slots=True)
class Loss:
    """What going back to a version would lose in an environment; each list in the order of kinds and keys."""

    changed: tuple[Part, ...]
    """What the target holds in another state than the version has it."""
    left: tuple[Part, ...]
    """What stays in the target though the version does not have it."""
    unknown: tuple[Part, ...]
    """What is replaced, while nobody here knows what lies in it."""
    unnamed: int
    """Components that the environment does not name so that they could be compared."""
    back: tuple[Part, ...]
    """What the version has and the target does not."""
    customizations: bool
    """Whether changes made by hand in the target are removed."""
    sha256: str
    """Over all of this, the package, and the last operation on the solution there; empty where nothing is
    lost."""


def goes_back(solution: Solution, installed: InstalledSolution) -> bool:
    """Whether a version goes in as an update over one that is not lower."""
    return installed.managed and not solution.manifest.version > installed.version


async def look(
    solution: Solution, installed: InstalledSolution, target: WebApi, known: Known, *, customizations: bool
) -> Loss:
    """Compare a version with what the target holds of it.

    Args:
        solution: the version to go back to.
        installed: what the target says of the solution.
        target: its connector.
        known: see there.
        customizations: whether the import is to overwrite customizations.

    Raises:
        DataverseError: the target cannot be asked.
    """
    rows = await target.installed_components(installed)
    last = last_operation(await target.history(installed.unique_name))
    holds = await known(installed, last) if last else None
    held = {c.key: c for c in rows if c.key is not None}
    unnamed = len(rows) - len(held)
    before = {c.identity: c for c in holds.components} if holds is not None else {}
    after = {c.identity: c for c in solution.components}
    # Where the environment names them all, it knows better than the package what is still there.
    there = held.keys() | before.keys() if unnamed else held.keys()
    changed = [c for k, c in after.items() if k in before and before[k].sha256 != c.sha256]
    unknown = [c for k, c in after.items() if k in there and k not in before]
    stays = [k for k in (before if holds is not None else held) if k in there and k not in after]
    left = [_component(before[k]) if k in before else _installed(held[k]) for k in stays]
    back = [c for k, c in after.items() if k not in there]
    lost = changed or unknown or left or customizations or (unnamed and holds is None)
    digest = hashlib.sha256(
        json.dumps(
            [
                solution.sha256.hex(),
                [installed.id, str(installed.version), last],
                sorted([*c.identity, before[c.identity].sha256.hex()] for c in changed),
                sorted(p.identity for p in left),
                sorted(c.identity for c in unknown),
                sorted(c.identity for c in back),
                [unnamed if holds is None else 0, customizations],
            ]
        ).encode()
    )
    return Loss(
        changed=_sorted(map(_component, changed)),
        left=_sorted(left),
        unknown=_sorted(map(_component, unknown)),
        unnamed=unnamed if holds is None else 0,
        back=_sorted(map(_component, back)),
        customizations=customizations,
        sha256=digest.hexdigest() if lost else "",
    )


def last_operation(history: Sequence[HistoryRow]) -> str:
    """Id of the newest operation on a solution that has changed it; empty where there is none.

    Args:
        history: newest first.
    """
    return next((row.id for row in history if row.completed and row.succeeded is not False), "")


def told(loss: Loss, solution: Solution, installed: InstalledSolution, environment: str) -> Iterator[Finding]:
    """What is lost, in words: a finding for each component that people know, and counts of the others."""
    facts: dict[str, Any] = {
        "environment": environment,
        "version": str(solution.manifest.version),
        "installed": str(installed.version),
    }
    about = subject("solution", solution.manifest.unique_name, solution.manifest.display_name)
    for code, more, parts, fates in (
        ("CHANGES_BACK", "CHANGES_BACK_MORE", loss.changed, _CHANGES),
        ("STAYS_BEHIND", "STAYS_BEHIND_MORE", loss.left, {k: _STAYS.get(k, "") for k in _CHANGES}),
        ("COMES_BACK", "COMES_BACK_MORE", loss.back, {k: _COMES.get(k, "") for k in _CHANGES}),
    ):
        order = list(fates)
        known = (p for p in parts if p.identity.kind in fates)
        named = sorted(known, key=lambda p: order.index(p.identity.kind))[:NAMED]
        for part in named:
            yield finding(
                code,
                component_subject(part.identity, part.name, part.display_name),
                kind=kind_word(part.identity.kind),
                name=component_title(part.identity, part.name, part.display_name),
                fate=fates[part.identity.kind].format_map(facts),
                **facts,
            )
        if others := _counted(set(parts) - set(named)):
            yield finding(more, about, count=len(parts) - len(named), kinds=others, **facts)
    if loss.unknown or loss.unnamed:
        kinds = ", ".join(
            filter(None, [_counted(loss.unknown), f"{loss.unnamed} without a name" if loss.unnamed else ""])
        )
        count = len(loss.unknown) + loss.unnamed
        yield finding("CANNOT_COMPARE", about, count=count, kinds=kinds, **facts)
    if loss.customizations:
        yield finding("CUSTOMIZATIONS_REMOVED", about, name=solution.manifest.unique_name, **facts)


def not_accepted(
    found: str, accepted: str, solution: Solution, environment: str, redeploy: str, step: Step.Kind
) -> Finding | None:
    """The finding where what would be lost is not what was accepted.

    Args:
        found: digest of what would be lost; empty where nothing would.
        accepted: digest of what was accepted.
        solution: the version to go back to.
        environment: what people call the target.
        redeploy: the command that shows what would be lost.
        step: that looks.
    """
    if found == accepted:
        return None
    manifest = solution.manifest
    if not accepted:
        what = "loses something there, and nobody has accepted that"
    elif not found:
        what = "loses nothing there that has to be accepted, but something was accepted"
    else:
        what = "loses something else there than what was accepted"
    return finding(
        "LOSS_NOT_ACCEPTED",
        subject("solution", manifest.unique_name, manifest.display_name),
        step=step,
        name=manifest.unique_name,
        version=str(manifest.version),
        environment=environment,
        what=what,
        redeploy=redeploy,
    )


def _component(component: Component) -> Part:
    return Part(component.identity, component.schema_name.strip("{}"), component.name)


def _installed(component: InstalledComponent) -> Part:
    return Part(component.key or ComponentKey("", ""), component.name, component.display_name)


def _sorted(parts: Iterable[Part]) -> tuple[Part, ...]:
    return tuple(sorted(parts, key=lambda p: p.identity))


def _counted(parts: Iterable[Part]) -> str:
    counts = Counter(kind_word(p.identity.kind) for p in parts)
    return ", ".join(f"{n} × {kind}" for kind, n in sorted(counts.items()))
