"""What can be asked of the store. Every query is built with Peewee once and kept as text."""

from __future__ import annotations

import enum
import functools
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple

from peewee import SQL, Field, Model, SqliteDatabase, Tuple, fn

from pipelinehost.v1 import pipeline_host_pb2, resources_pb2
from pipelinehost_server.store import tables
from pipelinehost_server.store.tables import ANY, body, text

Kind = Literal[
    "pipeline",
    "environment",
    "run",
    "artifact",
    "event",
    "finding",
    "component_result",
    "principal",
    "freeze",
]
"""What can be listed page by page."""

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in"]
"""How a column can be compared; ``in`` takes a sequence."""

Key = tuple[str | int, ...]
"""Where a page ended: the ordering column's value, then the row's own key where that is another column."""


_SAID: Final = 20_000
"""Most answers about rights that are kept at hand."""
VISIBLE: Final = "visible"
"""In place of a column, with ``in`` and principals: what these may see."""


class Reach(enum.IntEnum):
    """How far somebody's right to a pipeline goes; each includes those before."""

    SEE = 1
    RUN = 2
    EDIT = 3
    OWN = 4


class Delivery(NamedTuple):
    """What is still to be told to the webhook of a gate."""

    run: str
    """Its name; of a run only the newest is kept."""
    id: str
    """What the receiver knows it by, however often it comes."""
    kind: resources_pb2.Gate.Kind
    """Of which gate."""
    attempts: int
    """How often it was tried."""
    body: bytes
    """What is told, JSON."""


class _Listing(NamedTuple):
    table: type[Model]
    key: str
    columns: frozenset[str]


_LISTINGS: Final[dict[str, _Listing]] = {
    "environment": _Listing(
        tables.Environment, "name", frozenset({"name", "kind", "region", "display_name"})
    ),
    "pipeline": _Listing(tables.Pipeline, "name", frozenset({"name", "display_name", "environment"})),
    "run": _Listing(
        tables.Run,
        "name",
        frozenset(
            {
                "name",
                "state",
                "pipeline",
                "stage",
                "solution",
                "version",
                "artifact",
                "source_environment",
                "target_environment",
                "requester",
                "create_time",
                "end_time",
            }
        ),
    ),
    "artifact": _Listing(
        tables.Artifact, "name", frozenset({"name", "solution", "version", "managed", "create_time"})
    ),
    "event": _Listing(tables.Event, "sequence", frozenset({"sequence", "subject", "kind", "actor", "time"})),
    "finding": _Listing(tables.Finding, "position", frozenset({"run", "position", "step"})),
    "component_result": _Listing(tables.ComponentResult, "position", frozenset({"run", "position"})),
    "principal": _Listing(tables.Principal, "name", frozenset({"name", "kind", "role", "display_name"})),
    "freeze": _Listing(tables.Freeze, "name", frozenset({"name", "scope"})),
}

_UNFINISHED = tables.Run.state < SQL(str(tables.FINISHED))  # written as in the partial indexes
_SUCCEEDED = tables.Run.state == SQL(str(resources_pb2.Run.STATE_SUCCEEDED))
_WAITS = tables.Run.waiting.is_null(False)

_ENVIRONMENT = text(tables.Environment.select(tables.Environment.frame).where(tables.Environment.name == ANY))
_PIPELINE = text(tables.Pipeline.select(tables.Pipeline.frame).where(tables.Pipeline.name == ANY))
_ARTIFACT = text(tables.Artifact.select(tables.Artifact.frame).where(tables.Artifact.name == ANY))
_RUN = text(tables.Run.select(tables.Run.frame).where(tables.Run.name == ANY))
_EPOCH = text(tables.Run.select(tables.Run.epoch).where(tables.Run.name == ANY))
_PIPELINES_USING = text(
    tables.PipelineEnvironment.select(tables.PipelineEnvironment.pipeline)
    .where(tables.PipelineEnvironment.environment == ANY)
    .order_by(tables.PipelineEnvironment.pipeline)
)
_UNFINISHED_RUNS = tables.Run.select(tables.Run.name).order_by(tables.Run.create_time, tables.Run.name)
_UNFINISHED_ALL = text(_UNFINISHED_RUNS.where(_UNFINISHED))
# The plus keeps SQLite from going through all runs that the pipeline ever had.
_UNFINISHED_OF_PIPELINE = text(_UNFINISHED_RUNS.where(_UNFINISHED, SQL('+"t1"."pipeline" = ?')))
_UNFINISHED_AT_ENVIRONMENT = text(
    _UNFINISHED_RUNS.where(
        _UNFINISHED, (tables.Run.source_environment == ANY) | (tables.Run.target_environment == ANY)
    )
)
_HAS_SUCCEEDED = text(
    tables.Run.select(SQL("1"))
    .where(_SUCCEEDED, tables.Run.stage == ANY, tables.Run.artifact == ANY)
    .limit(SQL("1"))
)
_OF_SOLUTION = tables.Run.solution.collate("NOCASE") == ANY  # names of solutions have no case
_NEWEST_FIRST = (tables.Run.end_sequence.desc(), tables.Run.end_time.desc(), tables.Run.name.desc())
_SUCCESSES = text(
    tables.Run.select(tables.Run.name, tables.Run.version)
    .where(_SUCCEEDED, tables.Run.stage == ANY, _OF_SOLUTION)
    .order_by(*_NEWEST_FIRST)
)
_NEWEST_SUCCESS_IN = text(
    tables.Run.select(tables.Run.frame)
    .where(_SUCCEEDED, tables.Run.target_environment == ANY, _OF_SOLUTION)
    .order_by(*_NEWEST_FIRST)
    .limit(SQL("1"))
)
_HELD_BY = text(tables.Run.select(tables.Run.name).where(tables.Run.held_environment == ANY))
_WAITING_FOR = text(
    tables.Run.select(tables.Run.name)
    .where(_WAITS, tables.Run.target_environment == ANY)
    .order_by(tables.Run.waiting)
)
_DUE = text(
    _UNFINISHED_RUNS.where(
        _UNFINISHED,
        tables.Run.state != SQL(str(resources_pb2.Run.STATE_WAITING_FOR_TARGET)),
        tables.Run.state != SQL(str(resources_pb2.Run.STATE_UNKNOWN)),
        tables.Run.state.not_in([SQL(str(state)) for state in tables.RESTING]),
    ).limit(ANY)
)
_RESTING = text(
    # The plus keeps SQLite with the index of what is unfinished, which has the order.
    _UNFINISHED_RUNS.where(_UNFINISHED, SQL(f'+"t1"."state" IN {tables.RESTING}'))
)
_IN_QUEUES = text(tables.Run.select(tables.Run.name).where(_WAITS).order_by(tables.Run.target_environment))
_FREEZE = text(tables.Freeze.select(tables.Freeze.frame).where(tables.Freeze.name == ANY))
_FREEZES = text(
    tables.Freeze.select(tables.Freeze.frame).where(tables.Freeze.scope == ANY).order_by(tables.Freeze.name)
)
_FREEZES_UNDER = text(
    tables.Freeze.select(tables.Freeze.frame)
    .where(tables.Freeze.pipeline == ANY)
    .order_by(tables.Freeze.name)
)
_UPLOADERS = text(
    tables.Uploader.select(tables.Uploader.principal)
    .where(tables.Uploader.artifact == ANY)
    .order_by(tables.Uploader.principal)
)
_GATE_NOTES = text(
    tables.GateNote.select(tables.GateNote.frame)
    .where(tables.GateNote.run == ANY)
    .order_by(tables.GateNote.position)
)
_DELIVERY = text(
    tables.Delivery.select(
        tables.Delivery.run,
        tables.Delivery.id,
        tables.Delivery.kind,
        tables.Delivery.attempts,
        tables.Delivery.body,
    ).where(tables.Delivery.run == ANY)
)
_DELIVERIES = text(tables.Delivery.select(tables.Delivery.run).order_by(tables.Delivery.run))
_UNKNOWN = text(
    _UNFINISHED_RUNS.where(_UNFINISHED, tables.Run.state == SQL(str(resources_pb2.Run.STATE_UNKNOWN)))
)
_ARTIFACTS_OF = text(
    tables.Artifact.select(tables.Artifact.name)
    .where(tables.Artifact.solution == ANY, tables.Artifact.version == ANY, tables.Artifact.managed == ANY)
    .order_by(tables.Artifact.create_time.desc(), tables.Artifact.name.desc())
)
_Holder = tables.Run.alias("holder")
_Earlier = tables.Run.alias("earlier")
_FIRST_IN_QUEUE = text(
    tables.Run.select(tables.Run.name)
    .where(
        _WAITS,
        ~fn.EXISTS(
            _Earlier.select(SQL("1")).where(
                _Earlier.waiting.is_null(False),
                _Earlier.target_environment == tables.Run.target_environment,
                _Earlier.waiting < tables.Run.waiting,
            )
        ),
        ~fn.EXISTS(_Holder.select(SQL("1")).where(_Holder.held_environment == tables.Run.target_environment)),
    )
    .order_by(tables.Run.target_environment)
    .limit(ANY)
)
_OUTPUT = text(
    tables.Output.select(tables.Output.output).where(tables.Output.run == ANY, tables.Output.step == ANY)
)
_RUN_PIPELINE = text(
    tables.PipelineVersion.select(tables.PipelineVersion.pipeline)
    .join(tables.Run, on=(tables.Run.pipeline_version == tables.PipelineVersion.version))
    .where(tables.Run.name == ANY)
)
_RUN_SETTINGS = text(
    tables.RunSetting.select(tables.RunSetting.frame)
    .where(tables.RunSetting.run == ANY)
    .order_by(tables.RunSetting.position)
)
_FINDINGS = text(
    tables.Finding.select(tables.Finding.frame)
    .where(tables.Finding.run == ANY, tables.Finding.position > ANY)
    .order_by(tables.Finding.position)
    .limit(ANY)
)
_SECRET = text(tables.Secret.select(tables.Secret.ciphertext).where(tables.Secret.name == ANY))
_TOKEN = text(tables.Token.select(tables.Token.frame).where(tables.Token.name == ANY))
_TOKEN_OF = text(tables.Token.select(tables.Token.frame).where(tables.Token.digest == ANY))
_TOKENS_OF = text(tables.Token.select(tables.Token.frame).where(tables.Token.principal == ANY))
_FIRST_TOKENS = text(
    tables.Token.select(tables.Token.name, tables.Token.digest, tables.Token.principal).where(
        tables.Token.frame == SQL("x''")
    )
)
_PRINCIPAL = text(tables.Principal.select(tables.Principal.frame).where(tables.Principal.name == ANY))
_ADMINISTRATORS = text(
    tables.Principal.select(tables.Principal.frame).where(
        tables.Principal.role == SQL(str(resources_pb2.Principal.ROLE_ADMINISTRATOR))
    )
)
_GROUPS = text(
    tables.Principal.select(tables.Principal.frame)
    .where(
        tables.Principal.name.in_(
            tables.Membership.select(tables.Membership.principal).where(tables.Membership.member == ANY)
        )
    )
    .order_by(tables.Principal.name)
)
_IDENTIFIED = text(tables.Identity.select(tables.Identity.principal).where(tables.Identity.identity == ANY))
_RUN_OF = text(tables.Run.select(tables.Run.pipeline, tables.Run.requester).where(tables.Run.name == ANY))
_PIPELINES_OF = text(
    tables.PipelineAccess.select(tables.PipelineAccess.pipeline)
    .where(tables.PipelineAccess.principal == ANY)
    .order_by(tables.PipelineAccess.pipeline)
)
_ENVIRONMENTS_OF = text(
    tables.EnvironmentMaker.select(tables.EnvironmentMaker.environment)
    .where(tables.EnvironmentMaker.principal == ANY)
    .order_by(tables.EnvironmentMaker.environment)
)
_EVENTS_OF_RUN = text(
    tables.Event.select(tables.Event.frame)
    .where(tables.Event.subject == ANY, tables.Event.sequence > ANY)
    .order_by(tables.Event.sequence)
    .limit(ANY)
)
_EVENTS_AFTER = text(
    tables.Event.select(tables.Event.frame)
    .where(tables.Event.sequence > ANY)
    .order_by(tables.Event.sequence)
    .limit(ANY)
)
_LAST_ABOUT = text(
    tables.Event.select(tables.Event.frame)
    .where(tables.Event.subject == ANY)
    .order_by(tables.Event.sequence.desc())
    .limit(SQL("1"))
)
_EVENT_HASH = text(tables.Event.select(tables.Event.hash).where(tables.Event.sequence == ANY))
_FIRST_SEQUENCE = text(tables.Event.select(fn.COALESCE(fn.MIN(tables.Event.sequence), SQL("1"))))
_FIRST_SINCE = text(tables.Event.select(fn.MIN(tables.Event.sequence)).where(tables.Event.time >= ANY))
_FIRST_UNFINISHED = text(
    tables.Event.select(fn.MIN(tables.Event.sequence)).where(
        tables.Event.subject.in_(tables.Run.select(tables.Run.name).where(_UNFINISHED))
    )
)
_LAST_SEQUENCE = text(tables.Event.select(fn.COALESCE(fn.MAX(tables.Event.sequence), SQL("0"))))
_IDENTITY = text(tables.Meta.select(tables.Meta.value).where(tables.Meta.key == SQL("'identity'")))
_RECALL = text(
    tables.Request.select(tables.Request.method, tables.Request.body_sha256, tables.Request.response).where(
        tables.Request.principal == ANY, tables.Request.request_id == ANY
    )
)


_MOST_ENVIRONMENTS = 1_000_000


@functools.lru_cache(maxsize=512)
def _page(
    kind: str, where: tuple[tuple[str, str, int], ...], column: str, descending: bool, after: bool
) -> str:
    """The text of one shape of page; the filter's values, the key to go on after and the limit are open."""
    listing = _LISTINGS[kind]
    if column not in listing.columns or column == "environment":
        raise ValueError(f"a page of {kind} cannot be ordered by {column!r}")
    key = _field(listing, listing.key)
    ordering = [_field(listing, column)] if column == listing.key else [_field(listing, column), key]
    query = listing.table.select(_field(listing, "frame"), *ordering)
    for name, operator, count in where:
        query = query.where(_condition(kind, listing, name, operator, count))
    if after:
        here, there = (
            (ordering[0], ANY) if len(ordering) == 1 else (Tuple(*ordering), Tuple(*(ANY for _ in ordering)))
        )
        query = query.where(here < there if descending else here > there)
    return text(query.order_by(*(o.desc() if descending else o.asc() for o in ordering)).limit(ANY))


def _field(listing: _Listing, name: str) -> Field[Any]:
    field: Field[Any] = listing.table._meta.fields[name]
    return field


def _visible(kind: str, count: int) -> Any:
    """What holds for a row that one of ``count`` principals may see; takes them as often as it says."""
    principals = [ANY] * count
    pipelines = tables.PipelineAccess.select(tables.PipelineAccess.pipeline).where(
        tables.PipelineAccess.principal.in_(principals)
    )
    # A run without a pipeline is a restore, and concerns nobody but who asked for it.
    restore = (tables.Run.pipeline == SQL("''")) & tables.Run.requester.in_(principals)
    match kind:
        case "pipeline":
            return tables.Pipeline.name.in_(pipelines)
        case "run":
            return tables.Run.pipeline.in_(pipelines) | restore
        case "environment":
            made = tables.EnvironmentMaker.select(tables.EnvironmentMaker.environment).where(
                tables.EnvironmentMaker.principal.in_(principals)
            )
            used = tables.PipelineEnvironment.select(tables.PipelineEnvironment.environment).where(
                tables.PipelineEnvironment.pipeline.in_(pipelines)
            )
            return tables.Environment.name.in_(made) | tables.Environment.name.in_(used)
        case "artifact":
            uploaded = tables.Uploader.select(SQL("1")).where(
                tables.Uploader.artifact == tables.Artifact.name, tables.Uploader.principal.in_(principals)
            )
            # Each in terms of the index on artifact and pipeline.
            of_it = tables.Run.select(SQL("1")).where(tables.Run.artifact == tables.Artifact.name)
            deployed = of_it.where(tables.Run.pipeline.in_(pipelines))
            return fn.EXISTS(uploaded) | fn.EXISTS(deployed) | fn.EXISTS(of_it.where(restore))
        case "event":
            runs = tables.Run.select(tables.Run.name).where(tables.Run.pipeline.in_(pipelines) | restore)
            freezes = tables.Freeze.select(tables.Freeze.name).where(
                (tables.Freeze.pipeline == SQL("''")) | tables.Freeze.pipeline.in_(pipelines)
            )
            return (
                tables.Event.subject.in_(pipelines)
                | tables.Event.subject.in_(runs)
                | tables.Event.subject.in_(freezes)
            )
        case "principal":
            return tables.Principal.name.in_(principals)
        case "freeze":
            return (tables.Freeze.pipeline == SQL("''")) | tables.Freeze.pipeline.in_(pipelines)
    raise ValueError(f"who may see a {kind} is not a matter of rows")


_SUBJECTS: Final[dict[str, Kind]] = {"pipelines": "pipeline", "runs": "run", "freezes": "freeze"}
"""Collections whose events are seen by who sees the resource, as :func:`_visible` says of a list."""
_TIMES: Final = {
    "pipeline": 1,
    "run": 2,
    "environment": 2,
    "artifact": 3,
    "event": 4,
    "principal": 1,
    "freeze": 1,
}
"""How often :func:`_visible` takes the principals."""


@functools.lru_cache(maxsize=512)
def _seen(kind: str, count: int) -> str:
    """The text that asks whether a row of this name can be seen by ``count`` principals."""
    table = _LISTINGS[kind].table
    name = _field(_LISTINGS[kind], "name")
    return text(table.select(SQL("1")).where(name == ANY, _visible(kind, count)))


@functools.lru_cache(maxsize=64)
def _reach(count: int) -> str:
    return text(
        tables.PipelineAccess.select(fn.MAX(tables.PipelineAccess.reach)).where(
            tables.PipelineAccess.pipeline == ANY, tables.PipelineAccess.principal.in_([ANY] * count)
        )
    )


@functools.lru_cache(maxsize=64)
def _makes(count: int) -> str:
    return text(
        tables.EnvironmentMaker.select(SQL("1"))
        .where(
            tables.EnvironmentMaker.environment == ANY, tables.EnvironmentMaker.principal.in_([ANY] * count)
        )
        .limit(SQL("1"))
    )


@functools.lru_cache(maxsize=64)
def _runs(count: int) -> str:
    pipelines = tables.PipelineAccess.select(tables.PipelineAccess.pipeline).where(
        tables.PipelineAccess.principal.in_([ANY] * count),
        tables.PipelineAccess.reach >= SQL(str(Reach.RUN.value)),
    )
    return text(
        tables.PipelineEnvironment.select(SQL("1"))
        .where(
            tables.PipelineEnvironment.environment == ANY, tables.PipelineEnvironment.pipeline.in_(pipelines)
        )
        .limit(SQL("1"))
    )


def _condition(kind: str, listing: _Listing, name: str, operator: str, count: int) -> Any:
    if name == VISIBLE:
        return _visible(kind, count)
    if name not in listing.columns:
        raise ValueError(f"a page of {kind} cannot be filtered by {name!r}")
    values = [ANY] * count
    if (kind, name) == ("pipeline", "environment"):
        users = tables.PipelineEnvironment.select(tables.PipelineEnvironment.pipeline).where(
            tables.PipelineEnvironment.environment.in_(values)
        )
        if operator in ("=", "in"):
            return tables.Pipeline.name.in_(users)
        if operator == "!=":
            return tables.Pipeline.name.not_in(users)
        raise ValueError(f"the environments of a pipeline cannot be compared with {operator!r}")
    field = _field(listing, name)
    match operator:
        case "=":
            return field == ANY
        case "!=":
            return field != ANY
        case "<":
            return field < ANY
        case "<=":
            return field <= ANY
        case ">":
            return field > ANY
        case ">=":
            return field >= ANY
        case "in":
            return field.in_(values)
    raise ValueError(f"{operator!r} is no operator of a page")


class Reads:
    """What the store holds, as of the last commit (within a transaction: as of its own last write).

    On the loop a read takes some microseconds and does not wait for writers. Names that nothing has give
    ``None`` or nothing.
    """

    def __init__(self, database: SqliteDatabase) -> None:
        # The driver itself: what Peewee does around it costs as much as a small read.
        connection: sqlite3.Connection = database.connection()  # type: ignore[no-untyped-call]  # stubs
        self._execute: Callable[[str, Sequence[object]], sqlite3.Cursor] = connection.execute

    @property
    def rights_changed(self) -> int:
        """How often what anybody may do has changed since the store was opened.

        A commit counts before whoever wrote it goes on: what was found out at another count is old.
        """
        raise NotImplementedError

    def _one(self, sql: str, *values: object) -> Any:
        """The first column of the first row, or ``None``."""
        row = self._execute(sql, values).fetchone()
        return None if row is None else row[0]

    def _lasting(self, sql: str, *values: str) -> list[Any]:
        """The first column of what is asked for far more often than it changes: environments and the like."""
        return [row[0] for row in self._execute(sql, values).fetchall()]

    def _names(self, sql: str, *values: object) -> list[str]:
        return [row[0] for row in self._execute(sql, values).fetchall()]

    def environment(self, name: str) -> resources_pb2.Environment | None:
        """An environment."""
        frames = self._lasting(_ENVIRONMENT, name)
        return resources_pb2.Environment.FromString(body(frames[0])) if frames else None

    def pipeline(self, name: str) -> resources_pb2.Pipeline | None:
        """A pipeline with its stages."""
        frames = self._lasting(_PIPELINE, name)
        return resources_pb2.Pipeline.FromString(body(frames[0])) if frames else None

    def artifact(self, name: str) -> resources_pb2.Artifact | None:
        """An artifact."""
        frames = self._lasting(_ARTIFACT, name)
        return resources_pb2.Artifact.FromString(body(frames[0])) if frames else None

    def artifacts_of(self, solution: str, version: str, managed: bool) -> list[str]:
        """Names of the artifacts of one version of a solution, newest first."""
        return self._names(_ARTIFACTS_OF, solution, version, managed)

    def run(self, name: str) -> resources_pb2.Run | None:
        """A run."""
        frame = self._one(_RUN, name)
        return None if frame is None else resources_pb2.Run.FromString(body(frame))

    def pipelines_using(self, environment: str) -> list[str]:
        """Names of the pipelines that have the environment as development environment or in a stage."""
        return self._names(_PIPELINES_USING, environment)

    def unfinished_runs(self, *, pipeline: str | None = None, environment: str | None = None) -> list[str]:
        """Names of unfinished runs, oldest first: of a pipeline, or with this source or target, or all.

        Raises:
            ValueError: both are given.
        """
        if pipeline is not None and environment is not None:
            raise ValueError("unfinished runs are asked for by pipeline or by environment, not by both")
        if pipeline is not None:
            return self._names(_UNFINISHED_OF_PIPELINE, pipeline)
        if environment is not None:
            return self._names(_UNFINISHED_AT_ENVIRONMENT, environment, environment)
        return self._names(_UNFINISHED_ALL)

    def succeeded(self, stage: str, artifact: str) -> bool:
        """Whether a run of that very artifact to that stage has succeeded."""
        return bool(self._lasting(_HAS_SUCCEEDED, stage, artifact))

    def newest_success(
        self, stage: str, solution: str, fits: Callable[[str], bool] | None = None
    ) -> resources_pb2.Run | None:
        """The run of a solution to a stage that succeeded last, as the record and not the clock tells.

        Args:
            stage: its full name.
            solution: its unique name, in any case.
            fits: whether a version is meant; every one is, where it is left out.
        """
        rows: sqlite3.Cursor = self._execute(_SUCCESSES, (stage, solution))
        found = next((name for name, version in rows if fits is None or fits(version)), None)
        rows.close()
        return None if found is None else self.run(found)

    def newest_success_in(self, environment: str, solution: str) -> resources_pb2.Run | None:
        """The run of a solution to an environment that succeeded last, likewise."""
        frame = self._one(_NEWEST_SUCCESS_IN, environment, solution)
        return None if frame is None else resources_pb2.Run.FromString(body(frame))

    def held_by(self, environment: str) -> str | None:
        """Name of the run that has the environment now."""
        name: str | None = self._one(_HELD_BY, environment)
        return name

    def waiting_for(self, environment: str) -> list[str]:
        """Names of the runs that wait for the environment, in their order."""
        return self._names(_WAITING_FOR, environment)

    def due_runs(self, limit: int = 100) -> list[str]:
        """Names of the runs that can be advanced now.

        For each environment that nobody has, the first run that waits for it; then unfinished runs that
        neither wait, for their target, people or a time, nor are unknown, oldest first. At most ``limit`` of
        either sort, so that neither hides the other.
        """
        return self._names(_FIRST_IN_QUEUE, limit) + self._names(_DUE, limit)

    def resting_runs(self) -> list[str]:
        """Names of the runs that wait for people or for a time, oldest first."""
        return self._names(_RESTING)

    def runs_in_queues(self) -> list[str]:
        """Names of the runs that wait for their target."""
        return self._names(_IN_QUEUES)

    def freeze(self, name: str) -> resources_pb2.Freeze | None:
        """A freeze."""
        frame = self._one(_FREEZE, name)
        return None if frame is None else resources_pb2.Freeze.FromString(body(frame))

    def freezes_of(self, *scopes: str) -> list[resources_pb2.Freeze]:
        """The freezes of these scopes and of no others, by scope and name."""
        frames = [frame for scope in scopes for frame in self._lasting(_FREEZES, scope)]
        return [resources_pb2.Freeze.FromString(body(frame)) for frame in frames]

    def freezes_under(self, pipeline: str) -> list[resources_pb2.Freeze]:
        """The freezes of a pipeline and of its stages."""
        rows = self._execute(_FREEZES_UNDER, (pipeline,)).fetchall()
        return [resources_pb2.Freeze.FromString(body(row[0])) for row in rows]

    def gate_notes(self, run: str) -> list[resources_pb2.GateNote]:
        """What approvers of a run told the administrators, in order."""
        rows = self._execute(_GATE_NOTES, (run,)).fetchall()
        return [resources_pb2.GateNote.FromString(body(row[0])) for row in rows]

    def delivery(self, run: str) -> Delivery | None:
        """What is still to be told to the webhook of the gate that a run waits at."""
        row = self._execute(_DELIVERY, (run,)).fetchone()
        return None if row is None else Delivery._make(row)

    def deliveries(self) -> list[str]:
        """Names of the runs of which something is to be told, oldest first."""
        return self._names(_DELIVERIES)

    def unknown_runs(self) -> list[str]:
        """Names of the runs of which nobody knows whether their import was applied, oldest first."""
        return self._names(_UNKNOWN)

    def epoch(self, run: str) -> int:
        """How often the run has been claimed; 0 also for a run that does not exist."""
        return self._one(_EPOCH, run) or 0

    def output(self, run: str, step: str) -> bytes | None:
        """What a done step has left."""
        output: bytes | None = self._one(_OUTPUT, run, step)
        return output

    def findings(self, run: str, limit: int = 1000, after: int = 0) -> list[resources_pb2.Finding]:
        """Findings of a run in order, of those with a position (from 1) after ``after``."""
        rows = self._execute(_FINDINGS, (run, after, limit)).fetchall()
        return [resources_pb2.Finding.FromString(body(row[0])) for row in rows]

    def run_settings(self, run: str) -> list[resources_pb2.Setting]:
        """The merged settings of a run, without values."""
        rows = self._execute(_RUN_SETTINGS, (run,)).fetchall()
        return [resources_pb2.Setting.FromString(body(row[0])) for row in rows]

    def run_pipeline(self, run: str) -> resources_pb2.Pipeline | None:
        """The pipeline as it was when the run was asked for; ``None`` for a restore."""
        stored = self._one(_RUN_PIPELINE, run)
        return None if stored is None else resources_pb2.Pipeline.FromString(stored)

    def secret(self, name: str) -> bytes | None:
        """A ciphertext."""
        ciphertext: bytes | None = self._one(_SECRET, name)
        return ciphertext

    def token(self, name: str) -> resources_pb2.Token | None:
        """A token, without its secret."""
        return self._token(_TOKEN, name)

    def token_of(self, digest: bytes) -> resources_pb2.Token | None:
        """The token with this digest of its secret."""
        return self._token(_TOKEN_OF, digest)

    def _token(self, sql: str, key: str | bytes) -> resources_pb2.Token | None:
        frame = self._one(sql, key)
        return resources_pb2.Token.FromString(body(frame)) if frame else None

    def tokens_of(self, principal: str) -> list[resources_pb2.Token]:
        """The tokens of a principal, the oldest first."""
        rows = self._execute(_TOKENS_OF, (principal,)).fetchall()
        tokens = [resources_pb2.Token.FromString(body(row[0])) for row in rows if row[0]]
        return sorted(tokens, key=lambda token: (token.create_time.ToNanoseconds(), token.name))

    def first_tokens(self) -> list[tuple[str, bytes, str]]:
        """Name, SHA-256 and principal of each token that is kept as the first schema kept it."""
        return self._execute(_FIRST_TOKENS, ()).fetchall()

    def principal(self, name: str) -> resources_pb2.Principal | None:
        """A principal."""
        frame = self._one(_PRINCIPAL, name)
        return None if frame is None else resources_pb2.Principal.FromString(body(frame))

    def administrators(self) -> list[resources_pb2.Principal]:
        """Principals whose own role is administrator, groups and disabled ones among them."""
        rows = self._execute(_ADMINISTRATORS, ()).fetchall()
        return [resources_pb2.Principal.FromString(body(row[0])) for row in rows]

    def uploaders(self, artifact: str) -> list[str]:
        """Who has uploaded an artifact, by name."""
        return self._names(_UPLOADERS, artifact)

    def groups_of(self, member: str) -> list[resources_pb2.Principal]:
        """The groups that a principal belongs to."""
        rows = self._execute(_GROUPS, (member,)).fetchall()
        return [resources_pb2.Principal.FromString(body(row[0])) for row in rows]

    def identified(self, identity: str) -> str | None:
        """Whom another system's name means."""
        name: str | None = self._one(_IDENTIFIED, identity)
        return name

    def seen(self, kind: Kind, name: str, principals: Sequence[str]) -> bool:
        """Whether one of these principals may see the resource; not if there is none."""
        values = [name, *[*principals] * _TIMES[kind]]
        return self._execute(_seen(kind, len(principals)), values).fetchone() is not None

    def sees_events_about(self, subject: str, principals: Sequence[str]) -> bool:
        """Whether a page of events shows one of these principals those about the subject."""
        kind = _SUBJECTS.get(subject.partition("/")[0])
        return kind is not None and self.seen(kind, subject, principals)

    def reach(self, pipeline: str, principals: Sequence[str]) -> int:
        """The farthest that one of these principals reaches into a pipeline; 0 for not at all."""
        return self._one(_reach(len(principals)), pipeline, *principals) or 0

    def run_of(self, run: str) -> tuple[str, str] | None:
        """Pipeline and requester of a run."""
        row: tuple[str, str] | None = self._execute(_RUN_OF, (run,)).fetchone()
        return row

    def makes(self, environment: str, principals: Sequence[str]) -> bool:
        """Whether one of these principals may put the environment into pipelines of their own."""
        return self._one(_makes(len(principals)), environment, *principals) is not None

    def runs(self, environment: str, principals: Sequence[str]) -> bool:
        """Whether one of these principals may deploy through a pipeline of this environment, or make one."""
        found = self._one(_runs(len(principals)), environment, *principals)
        return found is not None or self.makes(environment, principals)

    def pipelines_of(self, principal: str) -> list[str]:
        """Names of the pipelines that name this very principal as owner or in a share."""
        return self._names(_PIPELINES_OF, principal)

    def environments_of(self, principal: str) -> list[str]:
        """Names of the environments that name this very principal among their makers."""
        return self._names(_ENVIRONMENTS_OF, principal)

    def events_of_run(self, run: str, after_sequence: int, limit: int) -> list[resources_pb2.Event]:
        """At most ``limit`` events about a run after a sequence, in order."""
        rows = self._execute(_EVENTS_OF_RUN, (run, after_sequence, limit)).fetchall()
        return [resources_pb2.Event.FromString(body(row[0])) for row in rows]

    def last_event_about(self, subject: str) -> resources_pb2.Event | None:
        """What happened last to something, whether it is there or not; ``None`` if nothing is recorded."""
        frame = self._one(_LAST_ABOUT, subject)
        return None if frame is None else resources_pb2.Event.FromString(body(frame))

    def events_after(self, after_sequence: int, limit: int) -> list[resources_pb2.Event]:
        """At most ``limit`` events after a sequence, in order."""
        rows = self._execute(_EVENTS_AFTER, (after_sequence, limit)).fetchall()
        return [resources_pb2.Event.FromString(body(row[0])) for row in rows]

    def event_hash(self, sequence: int) -> bytes | None:
        """The hash that chains the next event to this one."""
        found: bytes | None = self._one(_EVENT_HASH, sequence)
        return found

    def first_sequence(self) -> int:
        """Sequence of the oldest event that was not dropped; 1 where there is none."""
        sequence: int = self._one(_FIRST_SEQUENCE)
        return sequence

    def first_event_to_keep(self, before: int) -> int:
        """Sequence of the first event that is not older than a time, or is about an unfinished run.

        Args:
            before: nanoseconds since 1970.
        """
        found: tuple[int | None, ...] = (self._one(_FIRST_SINCE, before), self._one(_FIRST_UNFINISHED))
        return min([self.last_sequence() + 1, *(sequence for sequence in found if sequence is not None)])

    def last_sequence(self) -> int:
        """Sequence of the newest event; 0 where there is none."""
        sequence: int = self._one(_LAST_SEQUENCE)
        return sequence

    def identity(self) -> str:
        """A name that no other store has, so that a resume token of another store can be told."""
        identity: str = self._one(_IDENTITY)
        return identity

    def environments(self) -> list[resources_pb2.Environment]:
        """All environments, by name."""
        frames, _ = self.page("environment", limit=_MOST_ENVIRONMENTS)
        return list(pipeline_host_pb2.ListEnvironmentsResponse.FromString(frames).environments)

    def recall(self, principal: str, request_id: str) -> tuple[str, bytes, bytes] | None:
        """Method, SHA-256 of the body and response of an earlier request."""
        row: tuple[str, bytes, bytes] | None = self._execute(_RECALL, (principal, request_id)).fetchone()
        return row

    def page(
        self,
        kind: Kind,
        *,
        where: Sequence[tuple[str, Operator, Any]] = (),
        order: tuple[str, bool] | None = None,
        after: Key | None = None,
        limit: int,
    ) -> tuple[bytes, Key | None]:
        """A page of a list; rows that are added or removed meanwhile neither repeat nor hide others.

        Args:
            kind: what to list.
            where: conditions that all hold: column, operator, value. Times are nanoseconds since 1970, enums
                and booleans numbers.
            order: column and whether descending; the row's own key, ascending, where it is left out.
            after: the key that came with the page before.
            limit: rows at most.

        Returns:
            The rows as a list's field 1, so that ``ListRunsResponse.FromString`` of them is a page; and the
            key to go on after, ``None`` on the last page.

        Raises:
            ValueError: such a page cannot be asked for.
        """
        column, descending = order or (_LISTINGS[kind].key, False)
        shape = tuple((name, op, len(value) if op == "in" else 1) for name, op, value in where)
        sql = _page(kind, shape, column, descending, after is not None)
        values: list[object] = []
        for name, operator, value in where:
            if name == VISIBLE:
                values.extend([*value] * _TIMES[kind])
            elif operator == "in":
                values.extend(value)
            else:
                values.append(value)
        if after is not None:
            values.extend(after)
        values.append(limit + 1)
        rows = self._execute(sql, values).fetchall()
        more = len(rows) > limit
        if more:
            rows.pop()
        return b"".join([row[0] for row in rows]), rows[-1][1:] if more and rows else None


class Committed(Reads):
    """What is committed; what it has said about rights it says again, until they change.

    A "no" to what a run or an upload may turn into a "yes" is asked for each time. The count is looked at
    before the store is: an answer that a commit overtakes is old to the next question.

    Args:
        database: whose connection only reads.
        rights_changed: counts the committed changes of rights.
    """

    def __init__(self, database: SqliteDatabase, rights_changed: Callable[[], int]) -> None:
        super().__init__(database)
        self._rights_changed = rights_changed
        self._as_of = -1
        self._said: dict[tuple[object, ...], Any] = {}

    @property
    def rights_changed(self) -> int:
        """As of every store; committed ones only."""
        return self._rights_changed()

    def _since_change(self) -> dict[tuple[object, ...], Any]:
        as_of = self._rights_changed()
        if as_of != self._as_of or len(self._said) >= _SAID:
            self._said.clear()
            self._as_of = as_of
        return self._said

    def seen(self, kind: Kind, name: str, principals: Sequence[str]) -> bool:
        """As of every store."""
        said, question = self._since_change(), (kind, name, *principals)
        if question not in said and super().seen(kind, name, principals):
            said[question] = True
        return question in said

    def reach(self, pipeline: str, principals: Sequence[str]) -> int:
        """As of every store."""
        said, question = self._since_change(), ("reach", pipeline, *principals)
        if question not in said:
            said[question] = super().reach(pipeline, principals)
        reach: int = said[question]
        return reach

    def run_of(self, name: str) -> tuple[str, str] | None:
        """As of every store; no run ever gets another pipeline or requester."""
        said, question = self._since_change(), ("run_of", name)
        if question not in said and (of := super().run_of(name)) is not None:
            said[question] = of
        return said.get(question)
