"""What a solution package tells: frozen values, no behaviour beyond comparison and look-up."""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


@functools.total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A solution version: one to four numeric parts, compared part by part as numbers.

    ``1.61`` is higher than ``1.7.20210707.1``; missing parts count as zero, so ``1.0 == 1.0.0.0``.
    ``str()`` gives the text as it was written.
    """

    text: str
    parts: tuple[int, int, int, int]

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read a version; surrounding white space and leading zeros are tolerated.

        Raises:
            ValueError: not one to four dot-separated non-negative integers.
        """
        stripped = text.strip()
        pieces = stripped.split(".")
        if not 1 <= len(pieces) <= 4 or not all(p.isascii() and p.isdigit() and len(p) <= 18 for p in pieces):
            raise ValueError(f"{text!r} is not a solution version (one to four numbers joined by dots)")
        numbers = [int(p) for p in pieces] + [0] * (4 - len(pieces))
        return cls(stripped, (numbers[0], numbers[1], numbers[2], numbers[3]))

    def __eq__(self, other: object) -> bool:
        return self.parts == other.parts if isinstance(other, Version) else NotImplemented

    def __lt__(self, other: Version) -> bool:
        return self.parts < other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def __str__(self) -> str:
        return self.text


class ComponentKey(NamedTuple):
    """The identity of a component: what kind of thing, and its natural key, both normalised.

    ``kind`` is the Dataverse table name in lower case (``entity``, ``attribute``, ``workflow``,
    ``connectionreference``, ``environmentvariabledefinition``, …). ``key`` is lower case; GUIDs have no
    braces; a subcomponent with a name has its parent's key as prefix (``account.new_colour``), while one
    with a GUID (a form, a view) has the GUID alone, since that is how manifests refer to it.
    """

    kind: str
    key: str

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


@dataclass(frozen=True, slots=True)
class Component:
    """One component of a solution, as its files define it."""

    kind: str
    key: str
    name: str
    """Display name, or the schema name where the package gives none."""
    schema_name: str
    """The natural key in its original letter case."""
    sha256: bytes
    """Digest of the component's own payload (its XML subtree in canonical form, and its files)."""
    parent: ComponentKey | None = None
    files: tuple[str, ...] = ()
    """Archive members that belong to it alone."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Facts that rules need, e.g. ``category`` and ``state`` of a workflow, ``introducedversion``."""

    @property
    def identity(self) -> ComponentKey:
        """The pair by which two packages mean the same component."""
        return ComponentKey(self.kind, self.key)


@dataclass(frozen=True, slots=True)
class RequiredComponent:
    """One end of a dependency, with the hints that a manifest gives for people."""

    kind: str
    key: str
    schema_name: str = ""
    display_name: str = ""
    parent_schema_name: str = ""
    parent_display_name: str = ""
    type: str = ""
    """The type exactly as written: a number or a table name."""
    solution: str = ""
    """``Name (version)``, ``Active`` for an unmanaged layer in the source, or empty."""

    @property
    def identity(self) -> ComponentKey:
        """The pair to look up in a package or an environment."""
        return ComponentKey(self.kind, self.key)


@dataclass(frozen=True, slots=True)
class Dependency:
    """``dependent`` needs ``required``: an edge from the files or a MissingDependency pair."""

    dependent: RequiredComponent
    required: RequiredComponent
    declared: bool
    """True for a MissingDependency of the manifest: ``required`` is not in the package."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """Who a solution belongs to."""

    unique_name: str
    display_name: str
    prefix: str
    option_value_prefix: int


@dataclass(frozen=True, slots=True)
class RootComponent:
    """A line of the manifest's RootComponents: not an inventory, only what was added by name."""

    type: str
    schema_name: str = ""
    id: str = ""
    behavior: int | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """``solution.xml``."""

    unique_name: str
    display_name: str
    description: str
    version: Version
    managed: bool
    publisher: Publisher
    root_components: tuple[RootComponent, ...] = ()
    missing_dependencies: tuple[Dependency, ...] = ()
    parent_solution: str | None = None
    """Unique name of the solution that this one patches."""
    parent_version: Version | None = None
    platform_version: str = ""
    """``SolutionPackageVersion``, or empty where the file has none."""
    language_code: int = 1033


class VariableType(enum.IntEnum):
    """Types of environment variables (Dataverse option set ``environmentvariabledefinition_type``)."""

    STRING = 100000000
    NUMBER = 100000001
    BOOLEAN = 100000002
    JSON = 100000003
    DATA_SOURCE = 100000004
    SECRET = 100000005


@dataclass(frozen=True, slots=True)
class EnvironmentVariable:
    """A definition, with the value that the package carries for it, if any."""

    schema_name: str
    display_name: str = ""
    """The schema name where the package gives none."""
    description: str = ""
    type: VariableType = VariableType.STRING
    default: str | None = None
    """None also where the package has an empty default."""
    required: bool = False
    packaged_value: str | None = None
    packaged_value_id: str | None = None
    api_id: str = ""
    parameter_key: str = ""
    parent_definition: str = ""
    secret_store: int | None = None


@dataclass(frozen=True, slots=True)
class ConnectionReference:
    """A place for a connection that the target has to supply."""

    logical_name: str
    display_name: str = ""
    """The logical name where the package gives none."""
    description: str = ""
    connector_id: str = ""
    """``/providers/Microsoft.PowerApps/apis/shared_x``."""
    custom_connector: bool = False


@dataclass(frozen=True, slots=True)
class Flow:
    """A cloud flow and what it needs to be turned on."""

    id: str
    """GUID in lower case without braces."""
    name: str
    activated: bool = True
    connection_references: tuple[str, ...] = ()
    """Logical names, as written in the flow."""
    connectors: tuple[str, ...] = ()
    """API names (``shared_x``) of references that have no logical name (old flows)."""
    environment_variables: tuple[str, ...] = ()
    """Schema names, as written in the flow."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Everything that one package tells."""

    manifest: Manifest
    components: tuple[Component, ...]
    dependencies: tuple[Dependency, ...]
    """From the files, followed by the manifest's missing dependencies."""
    environment_variables: tuple[EnvironmentVariable, ...]
    connection_references: tuple[ConnectionReference, ...]
    flows: tuple[Flow, ...]
    sha256: bytes
    size: int
    """Bytes of the package."""
