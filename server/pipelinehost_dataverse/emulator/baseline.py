"""What an environment holds before anything is imported: the platform's solutions and declared apps."""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Mapping

from pipelinehost_dataverse.emulator import layers
from pipelinehost_dataverse.emulator.facts import platform_solutions
from pipelinehost_dataverse.solution.kinds import CODE_BY_KIND
from pipelinehost_dataverse.solution.model import ComponentKey, RequiredComponent, Version

_HINT = re.compile(r"(?P<name>.*\S)\s*\((?P<version>[\d. ]*)\)")


class Platform:
    """The solutions that are simply there: the platform's own and declared apps.

    Args:
        installed_apps: unique name to version, beyond the platform's own.

    Raises:
        ValueError: an app has no usable version.

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

    def has(self, required: RequiredComponent) -> bool:
        """Whether what is required belongs to the platform or a declared app.

        The solution that the manifest names decides: tables of first-party apps have no prefix either.
        """
        if required.solution.strip().lower() in ("", "active", "system"):
            return is_system(required.identity)
        return _named(required.solution)[0].lower() in self._versions

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

    def seed(self, db: sqlite3.Connection, at: str) -> None:
        """Put the solutions into a new environment; in one that is there, follow the declared apps."""
        if not db.execute("SELECT 1 FROM environment").fetchone():
            _first(db, at)
        # An app that is no longer declared is no longer there.
        stay = json.dumps([*platform_solutions(), layers.ACTIVE, *self.installed_apps])
        db.execute(
            "DELETE FROM solution WHERE platform AND unique_name NOT IN (SELECT value FROM json_each(?))",
            (stay,),
        )
        db.execute("UPDATE solution SET visible = 0 WHERE platform")
        for name, version in self.installed_apps.items():
            found = db.execute("SELECT id, platform FROM solution WHERE unique_name = ?", (name,)).fetchone()
            if found is None:
                publisher = layers.publisher_id(db, "microsoftdynamics", "Dynamics 365", "msdyn", 19235, at)
                layers.add_solution(db, name, version, publisher, layers.next_position(db), at, platform=True)
            elif found[1]:
                db.execute("UPDATE solution SET version = ? WHERE id = ?", (version, found[0]))
            db.execute("UPDATE solution SET visible = 1 WHERE unique_name = ? AND platform", (name,))


def _first(db: sqlite3.Connection, at: str) -> None:
    ids = [str(uuid.uuid4()) for _ in range(4)]
    db.execute("INSERT INTO environment VALUES (?, ?, ?, ?, ?)", (*ids, at))
    publisher = layers.publisher_id(db, "MicrosoftCorporation", "MicrosoftCorporation", "", 0, at)
    names = platform_solutions()
    for position, name in enumerate(names, 1):
        layers.add_solution(db, name, "9.2.0.0", publisher, position, at, platform=True)
    own = layers.publisher_id(db, f"DefaultPublisher{ids[0][:8]}", "Default Publisher", "new", 10000, at)
    layers.add_solution(db, layers.ACTIVE, "1.0.0.0", own, len(names) + 1, at, platform=True, managed=False)
    db.executemany("INSERT INTO kind_code VALUES (?, ?)", CODE_BY_KIND.items())


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
