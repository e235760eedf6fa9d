"""What an environment tells and is told: small frozen values, nothing of HTTP.

Times are aware and in UTC. Ids are GUIDs in lower case without braces.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipelinehost_dataverse.solution.model import ComponentKey, VariableType, Version


@dataclass(frozen=True, slots=True)
class WhoAmI:
    """The identity under which the environment sees us."""

    user_id: str
    business_unit_id: str
    organization_id: str


@dataclass(frozen=True, slots=True)
class Organization:
    """The environment itself."""

    id: str
    unique_name: str
    display_name: str
    version: str
    """Platform version, e.g. ``9.2.24011.195``."""
    environment_id: str
    tenant_id: str
    geo: str
    """Region as the platform writes it (``EMEA``, ``NA``, …); empty where it is not told."""


@dataclass(frozen=True, slots=True)
class InstalledSolution:
    """A row of ``solutions``."""

    id: str
    unique_name: str
    display_name: str
    version: Version
    managed: bool
    publisher_unique_name: str
    publisher_display_name: str
    installed_on: datetime | None
    updated_on: datetime | None
    parent_id: str | None
    """Of a patch: the solution that it patches."""
    visible: bool

    @property
    def is_upgrade_leftover(self) -> bool:
        """True for ``{name}_Upgrade``, which a failed or unfinished upgrade leaves behind."""
        return self.unique_name.casefold().endswith("_upgrade")


@dataclass(frozen=True, slots=True)
class InstalledComponent:
    """A component of a solution in an environment."""

    key: ComponentKey | None
    """The identity under which a package names it; None where the summary row does not tell."""
    name: str
    display_name: str
    object_id: str
    """Not always a GUID: some kinds have names here."""
    type_code: int
    """Component type; 10000 and above differ between environments."""
    type_name: str


@dataclass(frozen=True, slots=True)
class Dependant:
    """Something that would stop a component from being deleted."""

    object_id: str
    type_code: int
    parent_id: str | None
    solution_id: str | None
    """Base solution of the dependant."""


class Severity(enum.IntEnum):
    """``SolutionValidationResultType`` of the Web API."""

    INFO = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True, slots=True)
class StageFinding:
    """One line of the environment's own validation of a package."""

    severity: Severity
    code: str
    """``0x8004801D`` style, or empty."""
    message: str
    additional_info: str


@dataclass(frozen=True, slots=True)
class StagedComponent:
    """One line of ``SolutionComponentsDetails``, as it came."""

    name: str
    type_name: str
    present: str
    """``True``, ``False`` or ``Unknown``: whether the environment has it already."""
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StagedSolution:
    """``SolutionDetails``: the package's solution, and the installed one of the same name."""

    unique_name: str
    display_name: str
    version: Version
    managed: bool
    publisher_unique_name: str
    patch: bool
    previous_version: Version | None
    """None where none is installed."""
    previous_managed: bool
    previous_publisher_unique_name: str
    has_pending_upgrade: bool


@dataclass(frozen=True, slots=True)
class StagedDependencyEnd:
    """One end of a missing dependency; every field is for people and may be empty."""

    schema_name: str
    display_name: str
    parent_schema_name: str
    parent_display_name: str
    id: str
    type: str


@dataclass(frozen=True, slots=True)
class MissingDependency:
    """``dependent`` of the package needs ``required``, which the environment has not got."""

    required: StagedDependencyEnd
    dependent: StagedDependencyEnd
    required_solution: str


@dataclass(frozen=True, slots=True)
class StageResult:
    """What ``StageSolution`` found; ``upload_id`` names a row that ``discard_upload`` removes."""

    passed: bool
    upload_id: str | None
    solution: StagedSolution | None
    """None where the environment could not read the package."""
    missing_dependencies: tuple[MissingDependency, ...]
    findings: tuple[StageFinding, ...]
    components: tuple[StagedComponent, ...]


@dataclass(frozen=True, slots=True)
class ConnectionParameter:
    """A connection for a connection reference, given with an import.

    ``logical_name`` must be in the package, in the package's letter case.
    """

    logical_name: str
    connection_id: str
    connector_id: str
    display_name: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class VariableParameter:
    """A value for an environment variable, given with an import.

    ``value_id`` must be the id of the value row if and only if the environment has one already (or the
    package brings one): left out wrongly, the import fails on a unique key.
    """

    schema_name: str
    value: str
    value_id: str | None = None


class ImportMode(enum.Enum):
    """How a package meets an installed version; the value is the action that is posted."""

    UPGRADE = "StageAndUpgradeAsync"
    """Components that the new version lacks are deleted."""
    UPDATE = "ImportSolutionAsync"
    """Nothing is deleted. Also the first import of a solution."""


@dataclass(frozen=True, slots=True)
class ImportIntent:
    """What is known before an import is posted; store it first, so that a lost answer can be reconciled."""

    import_job_id: str
    """Ours. An environment may ignore it and choose its own."""
    solution: str
    version: Version
    mode: ImportMode
    user_id: str
    """Who we are there."""
    environment_time: datetime
    """The environment's own clock (its Date header, in whole seconds)."""
    installed_version: Version | None
    known_history_ids: tuple[str, ...]
    """Rows of this solution's history that were there before and could be taken for this import's."""
    known_job_ids: tuple[str, ...]
    """Import jobs of this solution that were there before, the newest 100."""

    def to_json(self) -> str:
        """A line of text that ``from_json`` reads."""
        return json.dumps(
            {
                "import_job_id": self.import_job_id,
                "solution": self.solution,
                "version": self.version.text,
                "mode": self.mode.name,
                "user_id": self.user_id,
                "environment_time": self.environment_time.isoformat(),
                "installed_version": self.installed_version.text if self.installed_version else None,
                "known_history_ids": list(self.known_history_ids),
                "known_job_ids": list(self.known_job_ids),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> ImportIntent:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: it is something else.

        """
        try:
            stored = json.loads(text)
            return cls(
                import_job_id=str(stored["import_job_id"]),
                solution=str(stored["solution"]),
                version=Version.parse(stored["version"]),
                mode=ImportMode[stored["mode"]],
                user_id=str(stored["user_id"]),
                environment_time=datetime.fromisoformat(stored["environment_time"]),
                installed_version=Version.parse(stored["installed_version"])
                if stored["installed_version"]
                else None,
                known_history_ids=tuple(str(i) for i in stored["known_history_ids"]),
                known_job_ids=tuple(str(i) for i in stored["known_job_ids"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a stored import intent: {error!r}") from error


@dataclass(frozen=True, slots=True)
class ImportOperation:
    """An import that the environment has accepted. One of the two ids may be empty after a reconciliation."""

    import_job_id: str
    async_operation_id: str

    def to_json(self) -> str:
        """A line of text that ``from_json`` reads."""
        return json.dumps(
            {"import_job_id": self.import_job_id, "async_operation_id": self.async_operation_id}
        )

    @classmethod
    def from_json(cls, text: str) -> ImportOperation:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: it is something else.

        """
        try:
            stored = json.loads(text)
            return cls(str(stored["import_job_id"]), str(stored["async_operation_id"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a stored import operation: {error!r}") from error


class OperationState(enum.Enum):
    """Of an operation in an environment."""

    RUNNING = "running"
    """Waiting for its turn, or at work."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import is."""

    state: OperationState
    percent: float
    """0 to 100; 100 does not mean that it has ended: ``state`` says that."""
    text: str
    """The phase, in one line."""
    code: str
    """Of a failed one: ``0x8004801D`` style, or empty."""
    message: str
    """Of one that failed or was canceled: why."""


@dataclass(frozen=True, slots=True)
class ComponentResult:
    """What became of one component in an import."""

    kind: str
    """The import log's word: ``entity``, ``workflow``, ``solutionManifest``, …"""
    name: str
    severity: Severity
    """INFO for success."""
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class ImportResult:
    """How an import ended."""

    import_job_id: str
    solution: str
    version: Version | None
    """As the import log tells it; None where it does not."""
    state: OperationState
    code: str
    message: str
    started_on: datetime | None
    completed_on: datetime | None
    components: tuple[ComponentResult, ...]


@dataclass(frozen=True, slots=True)
class RunningOperation:
    """A solution operation of an environment, ours or another's."""

    id: str
    name: str
    """The message, e.g. ``ImportSolutionAsync``, or the operation's name where it has none."""
    state: OperationState
    imports: bool
    """Whether it imports a solution (an upgrade does too)."""
    user_id: str
    """Who started it; empty where not told."""
    created_on: datetime | None
    completed_on: datetime | None


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """A row of ``msdyn_solutionhistories``: one past or present operation on one solution."""

    id: str
    solution: str
    version: str
    """As written; not every row has a well-formed one."""
    operation: int
    """0 is import; others as Dataverse numbers them; -1 where not told."""
    suboperation: int
    """2 is upgrade; -1 where not told."""
    completed: bool
    succeeded: bool | None
    """None while it runs, or where not told."""
    code: str
    message: str
    user_id: str
    """Who did it; empty where not told (real environments do not)."""
    started_on: datetime | None
    ended_on: datetime | None


class Verdict(enum.Enum):
    """What a reconciliation found out."""

    FOUND = "found"
    """The environment has it: go on with ``Reconciled.operation``."""
    NOT_RECEIVED = "not received"
    """It was never received: the import may be posted, with a new intent."""
    UNDECIDED = "undecided"
    """Look again after ``look_again_in``; where that is None, a person has to decide."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What became of an import whose answer was lost, as far as can be told now."""

    verdict: Verdict
    operation: ImportOperation | None
    """Only with FOUND."""
    asked_at: datetime
    """The environment's clock at this look."""
    nothing_since: datetime | None
    """No trace of our import, and no solution operation running, from then (environment's clock) until
    ``asked_at``. Store it and give it to the next look. None while an operation runs or a trace is there."""
    look_again_in: timedelta | None
    """When another look can tell more without a person; None with a decided verdict, and where none can."""
    evidence: tuple[str, ...]
    """What was seen, a line each, for the person who has to decide."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a host has left in an environment to say whose it is."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class EnvironmentVariableState:
    """An environment variable as an environment holds it."""

    schema_name: str
    display_name: str
    type: VariableType
    default: str | None
    value: str | None
    """The current value, which wins over the default; None where there is no value row."""
    value_id: str | None
    required: bool


@dataclass(frozen=True, slots=True)
class ConnectionReferenceState:
    """A connection reference as an environment holds it."""

    logical_name: str
    display_name: str
    connector_id: str
    connection_id: str | None
    """None where nothing is bound."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection, which lives outside Dataverse."""

    id: str
    connector_id: str
    """``/providers/Microsoft.PowerApps/apis/shared_x``."""
    display_name: str
    status: str
    """``Connected``, ``Error``, …"""


@dataclass(frozen=True, slots=True)
class Wait:
    """We wait before we ask again, because the environment said so."""

    operation: str
    seconds: float
    attempt: int
    """1 for the first wait of a call."""
    code: str
    """0x80071151 for another solution operation; else the code of throttling."""
    message: str
