"""What a later package adds, removes and changes."""

from __future__ import annotations

from dataclasses import dataclass

from pipelinehost_dataverse.solution.model import Component, Solution


@dataclass(frozen=True, slots=True)
class Difference:
    """The components by which two packages differ, each in the order of its package."""

    added: tuple[Component, ...]
    removed: tuple[Component, ...]
    """As the old package has them. An upgrade deletes these."""
    changed: tuple[Component, ...]
    """As the new package has them: same identity, other digest."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def diff(old: Solution, new: Solution) -> Difference:
    """Compare two packages by identity and digest of their components.

    A table counts as changed only where it changed itself, not where one of its columns did.
    """
    before = {component.identity: component for component in old.components}
    after = {component.identity: component for component in new.components}
    return Difference(
        added=tuple(c for identity, c in after.items() if identity not in before),
        removed=tuple(c for identity, c in before.items() if identity not in after),
        changed=tuple(
            c for identity, c in after.items() if identity in before and before[identity].sha256 != c.sha256
        ),
    )
