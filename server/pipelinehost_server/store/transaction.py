"""What can be changed in the store. Only the writer's thread makes these; a job gets one for its duration."""

from __future__ import annotations

import enum
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp
from peewee import SQL, SqliteDatabase, fn

from pipelinehost.errors import NotFound
from pipelinehost.v1 import resources_pb2
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost_server import rules
from pipelinehost_server.store import record, tables
from pipelinehost_server.store.reads import Delivery, Reach, Reads
from pipelinehost_server.store.tables import ANY, FINISHED, RESTING, body, frame, insert, text

REQUEST_KEPT_SECONDS: Final = 8 * 24 * 3600
"""How long the answer to a request with a ``request_id`` is remembered: seven days and one to spare."""

PEER: Final = ContextVar("peer", default="")
"""From where the caller calls on whose behalf the store is written to; empty for the host itself."""
HOST: Final = "host"
"""The actor of what the host does by itself."""

_PRUNE_SECONDS = 3600.0
"""Between looks for answers that are too old, and before the first: a clock that was put forward while the
host was down must not take the answers from those who ask again because it was down."""
_KEPT: Final = 1_000
"""Most questions about what seldom changes whose answers are kept at hand."""

_PUT_ENVIRONMENT = insert(tables.Environment, replace=True)
_DELETE_ENVIRONMENT = text(tables.Environment.delete().where(tables.Environment.name == ANY))
_PUT_PIPELINE = insert(tables.Pipeline, replace=True)
_DELETE_PIPELINE = text(tables.Pipeline.delete().where(tables.Pipeline.name == ANY))
_PUT_USE = insert(tables.PipelineEnvironment)
_DELETE_USES = text(tables.PipelineEnvironment.delete().where(tables.PipelineEnvironment.pipeline == ANY))
_PUT_ARTIFACT = insert(tables.Artifact, replace=True)
_INSERT_EVENT = insert(tables.Event)
_DROP_EVENTS = text(tables.Event.delete().where(tables.Event.sequence <= ANY))
_PUT_META = insert(tables.Meta, replace=True)
_OWN_HEAD = text(tables.Meta.select(tables.Meta.value).where(tables.Meta.key == SQL(f"'{record.HEAD}'")))
_INSERT_RUN = insert(tables.Run)
_PUT_PIPELINE_VERSION = insert(tables.PipelineVersion, replace=True)
_SAVE_RUN = text(
    tables.Run.update(
        {
            tables.Run.state: ANY,
            tables.Run.solution: ANY,
            tables.Run.version: ANY,
            tables.Run.artifact: ANY,
            tables.Run.end_time: ANY,
            tables.Run.frame: ANY,
            tables.Run.end_sequence: ANY,
        }
    ).where(tables.Run.name == ANY, tables.Run.epoch == ANY)
)
_ARTIFACT_OF_RUN = text(tables.Run.select(tables.Run.artifact).where(tables.Run.name == ANY))
_SAVE_FRAME = text(tables.Run.update({tables.Run.frame: ANY}).where(tables.Run.name == ANY))
_HOLD = text(tables.Run.update({tables.Run.held_environment: ANY}).where(tables.Run.name == ANY))
_LEAVE_QUEUE = text(tables.Run.update({tables.Run.waiting: SQL("NULL")}).where(tables.Run.name == ANY))
_Queue = tables.Run.alias("queue")
_JOIN_QUEUE = text(
    tables.Run.update(
        {
            tables.Run.waiting: _Queue.select(fn.COALESCE(fn.MAX(_Queue.waiting), SQL("0")) + SQL("1")).where(
                _Queue.waiting.is_null(False), _Queue.target_environment == ANY
            )
        }
    ).where(tables.Run.name == ANY, tables.Run.waiting.is_null())
)
_CLAIM_RUN = text(
    tables.Run.update({tables.Run.epoch: tables.Run.epoch + SQL("1")}).where(tables.Run.name == ANY)
)
_CLAIMED = text(tables.Run.select(tables.Run.epoch, tables.Run.frame).where(tables.Run.name == ANY))
_PUT_OUTPUT = insert(tables.Output, replace=True)
_DELETE_OUTPUT = text(tables.Output.delete().where(tables.Output.run == ANY, tables.Output.step == ANY))
_INSERT_FINDING = insert(tables.Finding)
_CLEAR_FINDINGS = text(tables.Finding.delete().where(tables.Finding.run == ANY, tables.Finding.step == ANY))
_FINDING_COUNT = text(
    tables.Finding.select(fn.COALESCE(fn.MAX(tables.Finding.position), SQL("0"))).where(
        tables.Finding.run == ANY
    )
)
_INSERT_COMPONENT_RESULT = insert(tables.ComponentResult)
_CLEAR_COMPONENT_RESULTS = text(tables.ComponentResult.delete().where(tables.ComponentResult.run == ANY))
_COMPONENT_RESULT_COUNT = text(
    tables.ComponentResult.select(fn.COALESCE(fn.MAX(tables.ComponentResult.position), SQL("0"))).where(
        tables.ComponentResult.run == ANY
    )
)
_INSERT_RUN_SETTING = insert(tables.RunSetting)
_CLEAR_RUN_SETTINGS = text(tables.RunSetting.delete().where(tables.RunSetting.run == ANY))
_INSERT_GATE_NOTE = insert(tables.GateNote)
_GATE_NOTE_COUNT = text(
    tables.GateNote.select(fn.COALESCE(fn.MAX(tables.GateNote.position), SQL("0"))).where(
        tables.GateNote.run == ANY
    )
)
_PUT_FREEZE = insert(tables.Freeze, replace=True)
_DELETE_FREEZE = text(tables.Freeze.delete().where(tables.Freeze.name == ANY))
_PUT_DELIVERY = insert(tables.Delivery, replace=True)
_DROP_DELIVERY = text(tables.Delivery.delete().where(tables.Delivery.run == ANY))
_PUT_SECRET = insert(tables.Secret, replace=True)
_SECRETS = text(tables.Secret.select(tables.Secret.name, tables.Secret.ciphertext))
_OVERWRITE = "PRAGMA secure_delete = 1"
_DELETE_SECRET = text(tables.Secret.delete().where(tables.Secret.name == ANY))
_PUT_TOKEN = insert(tables.Token)
_REPLACE_TOKEN = text(tables.Token.update({tables.Token.frame: ANY}).where(tables.Token.name == ANY))
_REPLACE_FIRST_TOKEN = text(
    tables.Token.update({tables.Token.digest: ANY, tables.Token.frame: ANY}).where(tables.Token.name == ANY)
)
_DELETE_TOKENS = text(tables.Token.delete().where(tables.Token.principal == ANY))
_PUT_PRINCIPAL = insert(tables.Principal, replace=True)
_DELETE_PRINCIPAL = text(tables.Principal.delete().where(tables.Principal.name == ANY))
_PUT_MEMBER = insert(tables.Membership)
_DELETE_MEMBERS = text(tables.Membership.delete().where(tables.Membership.principal == ANY))
_PUT_IDENTITY = insert(tables.Identity)
_DELETE_IDENTITIES = text(tables.Identity.delete().where(tables.Identity.principal == ANY))
_PUT_ACCESS = insert(tables.PipelineAccess)
_DELETE_ACCESS = text(tables.PipelineAccess.delete().where(tables.PipelineAccess.pipeline == ANY))
_PUT_MAKER = insert(tables.EnvironmentMaker)
_DELETE_MAKERS = text(tables.EnvironmentMaker.delete().where(tables.EnvironmentMaker.environment == ANY))
_PUT_UPLOADER = insert(tables.Uploader, replace=True)
_REMEMBER = insert(tables.Request)
_PRUNE_REQUESTS = text(tables.Request.delete().where(tables.Request.time < ANY))
_HEAD = text(
    tables.Event.select(tables.Event.sequence, tables.Event.hash)
    .order_by(tables.Event.sequence.desc())
    .limit(SQL("1"))
)


_Stamped = resources_pb2.Environment | resources_pb2.Pipeline | resources_pb2.Principal | resources_pb2.Freeze


class Keep(enum.Enum):
    """The type of :data:`KEEP`."""

    KEEP = enum.auto()


KEEP: Final = Keep.KEEP
"""Leaves a column of a run as it is."""


class Fenced(Exception):
    """Somebody else has claimed the run since; whoever gets this must let go of it without another effect."""

    def __init__(self, run: str, epoch: int, current: int) -> None:
        super().__init__(f"{run} was claimed again: epoch {epoch} has been followed by {current}")
        self.run = run


class EnvironmentHeld(Exception):
    """Another run has the environment.

    Attributes:
        environment: which.
        holder: name of the run that has it.
    """

    def __init__(self, environment: str, holder: str) -> None:
        super().__init__(f"{environment} is held by {holder}")
        self.environment = environment
        self.holder = holder


class Transaction(Reads):
    """Changes that are committed together, or not at all.

    A job must not keep it, and must have no effect but through it: it runs again after another of its batch
    has failed in the middle.
    Messages are stamped in place and returned. ``appended`` holds the batch's events so far.
    """

    rights_changed = 0
    """As of every store, and what the batch has changed so far."""

    def __init__(self, database: SqliteDatabase) -> None:
        super().__init__(database)
        head = self._execute(_HEAD, ()).fetchone()
        self._sequence: int = head[0] if head else 0
        self._hash: bytes = head[1] if head else record.START
        self._key: record.Key | None = None
        self._identity = ""
        self._signed_from = (1, record.START)
        self._next_prune = time.monotonic() + _PRUNE_SECONDS
        self._kept: dict[tuple[str, ...], list[Any]] = {}
        self._versions = set[str]()
        self.appended: list[resources_pb2.Event] = []
        self.peer = ""
        """From where the caller of the job calls."""

    def mark(self) -> tuple[int, bytes, int, int]:
        """Where the record ends now, for :meth:`back_to`."""
        return self._sequence, self._hash, self.rights_changed, len(self.appended)

    def back_to(self, mark: tuple[int, bytes, int, int]) -> None:
        """Forgets the events after a mark, when the database has rolled them back."""
        self._sequence, self._hash, self.rights_changed, count = mark
        del self.appended[count:]
        self._kept.clear()
        self._versions.clear()

    def _change_rights(self) -> None:
        """Called with every change that may take a right or a sign-in from somebody: what was said is old."""
        self.rights_changed += 1

    def _lasting(self, sql: str, *values: str) -> list[Any]:
        # Nobody else writes: what was read is what is there until something here changes or is rolled back.
        found = self._kept.get((sql, *values))
        if found is None:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            found = self._kept[sql, *values] = super()._lasting(sql, *values)
        return found

    def put_environment(self, environment: resources_pb2.Environment) -> resources_pb2.Environment:
        """Creates or replaces an environment; stamps ``etag`` and times."""
        _stamp(environment, self.environment(environment.name))
        self._replace_environment(environment)
        return environment

    def record_organization(
        self, name: str, url: str, organization_id: str
    ) -> resources_pb2.Environment | None:
        """Notes which organization an environment is, where none is noted; gives the record if it changed.

        ``etag`` and times stay: nobody who is editing the record has to read it again for that. A record that
        is gone or has another address by now is left alone.
        """
        environment = self.environment(name)
        if environment is None or environment.organization_id or environment.url != url:
            return None
        environment.organization_id = organization_id
        self._replace_environment(environment)
        return environment

    def record_taken(self, name: str, url: str, taken_by: str) -> resources_pb2.Environment | None:
        """Notes which other host has an environment, or that none has; gives the record if it changed.

        As with the organization, ``etag`` and times stay, and another address by now is left alone.
        """
        environment = self.environment(name)
        if environment is None or environment.url != url or environment.taken_by == taken_by:
            return None
        fresh = resources_pb2.Environment()
        fresh.CopyFrom(environment)
        fresh.taken_by = taken_by
        fresh.ClearField("taken_time")
        if taken_by:
            _now(fresh.taken_time)
        self._replace_environment(fresh)
        return fresh

    def _replace_environment(self, environment: resources_pb2.Environment) -> None:
        self._kept.clear()
        self._execute(
            _PUT_ENVIRONMENT,
            (
                environment.name,
                environment.kind,
                environment.region,
                environment.display_name,
                frame(environment),
            ),
        )
        self._change_rights()
        self._execute(_DELETE_MAKERS, (environment.name,))
        for principal in set(environment.makers):
            self._execute(_PUT_MAKER, (principal, environment.name))

    def delete_environment(self, name: str) -> None:
        """Deletes an environment, if it is there."""
        self._kept.clear()
        self._execute(_DELETE_ENVIRONMENT, (name,))
        self._change_rights()
        self._execute(_DELETE_MAKERS, (name,))

    def put_pipeline(self, pipeline: resources_pb2.Pipeline) -> resources_pb2.Pipeline:
        """Creates or replaces a pipeline; stamps ``etag`` and times."""
        _stamp(pipeline, self.pipeline(pipeline.name))
        self._kept.clear()
        self._execute(_PUT_PIPELINE, (pipeline.name, pipeline.display_name, frame(pipeline)))
        self._execute(_DELETE_USES, (pipeline.name,))
        for environment in {*pipeline.development_environments, *(s.environment for s in pipeline.stages)}:
            self._execute(_PUT_USE, (environment, pipeline.name))
        self._change_rights()
        self._execute(_DELETE_ACCESS, (pipeline.name,))
        for principal, reach in reaches(pipeline).items():
            self._execute(_PUT_ACCESS, (principal, pipeline.name, reach))
        return pipeline

    def delete_pipeline(self, name: str) -> None:
        """Deletes a pipeline, if it is there; its runs stay, for administrators to see."""
        self._kept.clear()
        self._execute(_DELETE_PIPELINE, (name,))
        self._execute(_DELETE_USES, (name,))
        self._change_rights()
        self._execute(_DELETE_ACCESS, (name,))

    def put_artifact(self, artifact: resources_pb2.Artifact) -> resources_pb2.Artifact:
        """Creates or replaces an artifact; stamps ``create_time``, which a replacement keeps."""
        before = self.artifact(artifact.name)
        if before is None:
            _now(artifact.create_time)
        else:
            artifact.create_time.CopyFrom(before.create_time)
            # Whoever has the bytes may store them again; that does not lift a block.
            artifact.ClearField("block")
            if before.HasField("block"):
                artifact.block.CopyFrom(before.block)
        return self._replace_artifact(artifact)

    def block_artifact(
        self, artifact: resources_pb2.Artifact, block: resources_pb2.Artifact.Block | None
    ) -> resources_pb2.Artifact:
        """Blocks an artifact that is there, or lets it be deployed again; stamps the block's ``time``."""
        artifact.ClearField("block")
        if block is not None:
            artifact.block.CopyFrom(block)
            _now(artifact.block.time)
        return self._replace_artifact(artifact)

    def _replace_artifact(self, artifact: resources_pb2.Artifact) -> resources_pb2.Artifact:
        self._kept.clear()
        self._execute(
            _PUT_ARTIFACT,
            (
                artifact.name,
                artifact.solution,
                artifact.version,
                artifact.managed,
                artifact.create_time.ToNanoseconds(),
                frame(artifact),
            ),
        )
        return artifact

    def append(self, event: resources_pb2.Event) -> resources_pb2.Event:
        """Writes an event at the end of the record; stamps ``sequence`` and ``time``."""
        event.sequence = self._sequence + 1
        if event.actor != HOST:
            event.peer = self.peer
        at = _now(event.time)
        framed = frame(event)
        chained = record.chained(self._hash, body(framed))
        self._execute(
            _INSERT_EVENT, (event.sequence, event.subject, event.kind, event.actor, at, chained, framed)
        )
        self._sequence = event.sequence
        self._hash = chained
        self.appended.append(event)
        return event

    def sign_heads(self, key: record.Key, *, signed: bool) -> None:
        """From now on each commit leaves a signed head of the record.

        Where the record does not end as its head says, an event tells that for good: the next commit would
        cover it up.

        Args:
            key: to sign with.
            signed: whether the record was signed before, so that it must have a head.
        """
        self._key, self._identity = key, self.identity()
        head = record.kept(self._one(_OWN_HEAD))
        fault = None
        if signed:
            fault = record.fault_at_end(head, self._sequence, self._hash, self._identity, key)
        if head is None or fault is not None:
            self._signed_from = self._sequence + 1, self._hash
        else:
            self._signed_from = head.first_sequence, bytes.fromhex(head.previous_sha256)
        if fault is not None:
            self.append(
                resources_pb2.Event(
                    kind=resources_pb2.Event.KIND_RECORD_BROKEN,
                    actor=HOST,
                    subject=record.SUBJECT,
                    fault=fault,
                    message=fault.message,
                )
            )
        self.sign_head()

    def sign_head(self) -> None:
        """Signs the end of the record as it is now; whoever commits calls it after the last event."""
        if self._key is None:
            return
        first, previous = self._signed_from
        head = resources_pb2.RecordHead(
            store=self._identity,
            first_sequence=first,
            previous_sha256=previous.hex(),
            last_sequence=self._sequence,
            sha256=self._hash.hex(),
        )
        record.sign(head, self._key, "head")
        self._execute(_PUT_META, (record.HEAD, head.SerializeToString().hex()))

    def drop_events(self, last: int) -> int:
        """Drops the events up to a sequence; gives how many. An event with a checkpoint must follow."""
        return self._execute(_DROP_EVENTS, (last,)).rowcount

    def _append_about(self, run: resources_pb2.Run, events: Sequence[resources_pb2.Event]) -> None:
        for event in events:
            if not event.subject:
                event.subject = run.name
            self.append(event)

    def insert_run(
        self,
        run: resources_pb2.Run,
        *,
        pipeline: resources_pb2.Pipeline | None = None,
        events: Sequence[resources_pb2.Event] = (),
    ) -> resources_pb2.Run:
        """Adds a run, the pipeline as it is and its first events; stamps ``revision`` and ``create_time``."""
        self._forget_if_succeeded(run)
        self._append_about(run, events)
        run.revision = self._sequence
        at = _now(run.create_time)
        self._execute(
            _INSERT_RUN,
            (
                run.name,
                run.state,
                run.pipeline,
                run.stage,
                run.solution,
                run.version,
                run.artifact,
                run.source_environment,
                run.target_environment,
                run.requester,
                at,
                _nanoseconds(run.end_time),
                0,
                None,
                None,
                frame(run),
                _end_sequence(run),
                self._version(pipeline) if pipeline is not None else "",
            ),
        )
        return run

    def _forget_if_succeeded(self, run: resources_pb2.Run) -> None:
        """Called before a run is stored: its success may be the first of its artifact in its stage."""
        if run.state == resources_pb2.Run.STATE_SUCCEEDED:
            self._kept.clear()

    def _version(self, pipeline: resources_pb2.Pipeline) -> str:
        """What the pipeline as it is now goes by, for runs; it is stored for the first of them."""
        if pipeline.etag not in self._versions:
            self._execute(_PUT_PIPELINE_VERSION, (pipeline.etag, pipeline.SerializeToString()))
            self._versions.add(pipeline.etag)
        return pipeline.etag

    def save_run(
        self,
        run: resources_pb2.Run,
        events: Sequence[resources_pb2.Event] = (),
        *,
        epoch: int,
        held: str | Keep | None = KEEP,
        waiting: bool | Keep = KEEP,
    ) -> resources_pb2.Run:
        """Replaces a run and appends what happened; stamps ``revision``.

        A finished run, or one that waits for people or for a time, has no environment and stands in no queue,
        whatever is asked. What is noted of its webhooks stays as it is.

        Args:
            run: as it is from now on.
            events: what happened; a subject that is left out is the run.
            epoch: of the claim under which the caller acts.
            held: the environment that the run has from now on; ``None`` lets go.
            waiting: puts the run at the end of the queue of its target, where it is not in it yet; or takes
                it out.

        Raises:
            Fenced: the run was claimed again since, or does not exist.
            EnvironmentHeld: another run has the environment.
        """
        if run.state >= FINISHED or run.state in RESTING:
            held, waiting = None, False
        self._keep_delivered(run)
        if events:
            run.revision = self._sequence + len(events)
        values = (
            run.state,
            run.solution,
            run.version,
            run.artifact,
            _nanoseconds(run.end_time),
            frame(run),
            _end_sequence(run),
            run.name,
            epoch,
        )
        artifact = self._one(_ARTIFACT_OF_RUN, run.name)
        self._forget_if_succeeded(run)
        if self._execute(_SAVE_RUN, values).rowcount == 0:
            raise Fenced(run.name, epoch, self.epoch(run.name))
        if artifact and artifact != run.artifact:  # who saw that one because of this run sees it no more
            self._change_rights()
        if held is not KEEP:
            try:
                self._execute(_HOLD, (held, run.name))
            except sqlite3.IntegrityError:
                environment = str(held)
                raise EnvironmentHeld(environment, self.held_by(environment) or "") from None
        if waiting is False:
            self._execute(_LEAVE_QUEUE, (run.name,))
        elif waiting is True:
            self._execute(_JOIN_QUEUE, (run.target_environment, run.name))
        self._append_about(run, events)
        return run

    def _keep_delivered(self, run: resources_pb2.Run) -> None:
        """Brings in what :meth:`save_delivered` has noted while others had the run in hands."""
        if not any(status.gate.webhook for status in run.gates):
            return
        stored = self.run(run.name)
        if stored is None:
            return
        run.revision = max(run.revision, stored.revision)
        for status in run.gates:
            for before in stored.gates:
                same = (before.kind, before.bound_sha256) == (status.kind, status.bound_sha256)
                if same and before.open_time == status.open_time and before.HasField("delivery"):
                    status.delivery.CopyFrom(before.delivery)

    def save_delivered(self, run: resources_pb2.Run, events: Sequence[resources_pb2.Event]) -> None:
        """Notes what became of a delivery in a run, as this transaction has read it and whoever has it."""
        if events:
            run.revision = self._sequence + len(events)
        self._execute(_SAVE_FRAME, (frame(run), run.name))
        self._append_about(run, events)

    def put_delivery(self, delivery: Delivery) -> None:
        """Keeps what is to be told about a run, in place of what was."""
        self._execute(_PUT_DELIVERY, delivery)

    def drop_delivery(self, run: str) -> None:
        """Forgets what was to be told about a run."""
        self._execute(_DROP_DELIVERY, (run,))

    def claim_run(self, name: str) -> tuple[resources_pb2.Run, int]:
        """The run and its new epoch: whoever acts under an older one is fenced off from now on.

        Raises:
            NotFound: there is no such run.
        """
        self._execute(_CLAIM_RUN, (name,))
        row = self._execute(_CLAIMED, (name,)).fetchone()
        if row is None:
            raise NotFound(ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND, f"there is no {name}")
        return resources_pb2.Run.FromString(body(row[1])), row[0]

    def put_output(self, run: str, step: str, output: bytes) -> None:
        """Keeps what a step has left for the next ones, in place of what it left before."""
        self._execute(_PUT_OUTPUT, (run, step, output))

    def delete_outputs(self, run: str, steps: Sequence[str]) -> None:
        """Forgets what these steps have left."""
        for step in steps:
            self._execute(_DELETE_OUTPUT, (run, step))

    def add_findings(self, run: str, findings: Sequence[resources_pb2.Finding]) -> None:
        """Adds findings after those that are there."""
        count: int = self._one(_FINDING_COUNT, run)
        for position, finding in enumerate(findings, count + 1):
            self._execute(_INSERT_FINDING, (run, position, finding.step, frame(finding)))

    def clear_findings(self, run: str, steps: Sequence[resources_pb2.Step.Kind]) -> None:
        """Deletes the findings of these steps."""
        for step in steps:
            self._execute(_CLEAR_FINDINGS, (run, step))

    def add_component_results(self, run: str, results: Sequence[resources_pb2.ComponentResult]) -> None:
        """Adds results after those that are there."""
        count: int = self._one(_COMPONENT_RESULT_COUNT, run)
        for position, result in enumerate(results, count + 1):
            self._execute(_INSERT_COMPONENT_RESULT, (run, position, frame(result)))

    def clear_component_results(self, run: str) -> None:
        """Deletes the results of an earlier attempt."""
        self._execute(_CLEAR_COMPONENT_RESULTS, (run,))

    def put_freeze(self, freeze: resources_pb2.Freeze) -> resources_pb2.Freeze:
        """Creates or replaces a freeze; stamps ``etag`` and times."""
        _stamp(freeze, self.freeze(freeze.name))
        self._kept.clear()
        values = (freeze.name, freeze.scope, rules.frozen_pipeline(freeze), frame(freeze))
        self._execute(_PUT_FREEZE, values)
        self._change_rights()
        return freeze

    def delete_freeze(self, name: str) -> None:
        """Deletes a freeze, if it is there."""
        self._kept.clear()
        self._execute(_DELETE_FREEZE, (name,))
        self._change_rights()

    def add_gate_note(self, note: resources_pb2.GateNote) -> None:
        """Adds a note after those that are there."""
        position: int = self._one(_GATE_NOTE_COUNT, note.run) + 1
        self._execute(_INSERT_GATE_NOTE, (note.run, position, frame(note)))

    def put_run_settings(self, run: str, settings: Sequence[resources_pb2.Setting]) -> None:
        """Keeps the merged settings, in place of those before.

        Raises:
            ValueError: a setting carries its value, which belongs among the secrets.
        """
        if any(setting.value for setting in settings):
            raise ValueError("the settings of a run are stored without their values")
        self._execute(_CLEAR_RUN_SETTINGS, (run,))
        for position, setting in enumerate(settings, 1):
            self._execute(_INSERT_RUN_SETTING, (run, position, frame(setting)))

    def put_secret(self, name: str, ciphertext: bytes) -> None:
        """Keeps a ciphertext, in place of the one before."""
        self._execute(_PUT_SECRET, (name, ciphertext))

    def reseal_secrets(self, reseal: Callable[[bytes, str], bytes | None]) -> int:
        """Replaces every ciphertext by what ``reseal`` makes of it and its name; gives how many there are.

        Those for which it gives None stay. What is replaced is overwritten in the file: it was sealed with a
        key that somebody may have.
        """
        self._execute(_OVERWRITE, ())
        rows: list[tuple[str, bytes]] = self._execute(_SECRETS, ()).fetchall()
        for name, ciphertext in rows:
            fresh = reseal(ciphertext, name)
            if fresh is not None:
                self.put_secret(name, fresh)
        return len(rows)

    def delete_secret(self, name: str) -> None:
        """Deletes a ciphertext, if it is there."""
        self._execute(_DELETE_SECRET, (name,))

    def put_principal(self, principal: resources_pb2.Principal) -> resources_pb2.Principal:
        """Creates or replaces a principal, its members and identities; stamps ``etag`` and times."""
        _stamp(principal, self.principal(principal.name))
        self._execute(
            _PUT_PRINCIPAL,
            (principal.name, principal.kind, principal.role, principal.display_name, frame(principal)),
        )
        self._change_rights()
        self._execute(_DELETE_MEMBERS, (principal.name,))
        for member in set(principal.members):
            self._execute(_PUT_MEMBER, (member, principal.name))
        self._execute(_DELETE_IDENTITIES, (principal.name,))
        for key in {identity_key(i) for i in principal.identities}:
            self._execute(_PUT_IDENTITY, (key, principal.name))
        return principal

    def delete_principal(self, name: str) -> None:
        """Deletes a principal, if it is there, with its tokens and identities."""
        self._execute(_DELETE_PRINCIPAL, (name,))
        self._change_rights()
        self._execute(_DELETE_MEMBERS, (name,))
        self._execute(_DELETE_IDENTITIES, (name,))
        self._execute(_DELETE_TOKENS, (name,))

    def put_token(self, token: resources_pb2.Token, digest: bytes) -> resources_pb2.Token:
        """Keeps a new token with the digest of its secret; stamps ``create_time``.

        Raises:
            IntegrityError: there is a token of this name.
        """
        _now(token.create_time)
        self._execute(_PUT_TOKEN, (token.name, digest, token.principal, frame(token)))
        return token

    def replace_first_token(self, token: resources_pb2.Token, digest: bytes) -> None:
        """Completes a token that the first schema kept without its frame."""
        self._execute(_REPLACE_FIRST_TOKEN, (digest, frame(token), token.name))

    def revoke_token(self, token: resources_pb2.Token) -> resources_pb2.Token:
        """Stamps ``revoke_time``, if it has none yet."""
        if not token.HasField("revoke_time"):
            _now(token.revoke_time)
        self._execute(_REPLACE_TOKEN, (frame(token), token.name))
        self._change_rights()
        return token

    def put_uploader(self, artifact: str, principal: str) -> None:
        """Notes who has uploaded an artifact, so that they may see it."""
        self._execute(_PUT_UPLOADER, (artifact, principal))

    def remember(
        self, principal: str, request_id: str, method: str, body_sha256: bytes, response: bytes
    ) -> None:
        """Keeps the answer to a request for at least seven days, for when it comes again."""
        now = time.time_ns()
        if time.monotonic() >= self._next_prune:
            self._next_prune = time.monotonic() + _PRUNE_SECONDS
            self._execute(_PRUNE_REQUESTS, (now - REQUEST_KEPT_SECONDS * 10**9,))
        self._execute(_REMEMBER, (principal, request_id, method, body_sha256, now, response))


def reaches(pipeline: resources_pb2.Pipeline) -> dict[str, Reach]:
    """How far each principal that a pipeline names reaches into it."""
    share = resources_pb2.Share
    steps = {share.ACCESS_RUN: Reach.RUN, share.ACCESS_EDIT: Reach.EDIT}
    found: dict[str, Reach] = {}
    for shared in pipeline.shares:
        reach = steps.get(shared.access, Reach.SEE)
        found[shared.principal] = max(reach, found.get(shared.principal, reach))
    if pipeline.owner:
        found[pipeline.owner] = Reach.OWN
    for stage in pipeline.stages:  # who is asked to approve has to see what
        for gate in stage.gates:
            for approver in gate.approvers:
                found.setdefault(approver, Reach.SEE)
    return found


def identity_key(identity: resources_pb2.Identity) -> str:
    """One text for an identity; an issuer holds no white space, and a certificate has none."""
    return f"{identity.issuer or 'certificate'} {identity.subject or identity.certificate}"


def _now(field: Timestamp) -> int:
    now = time.time_ns()
    field.FromNanoseconds(now)
    return now


def _nanoseconds(field: Timestamp) -> int:
    return field.ToNanoseconds() if field.seconds else 0


def _end_sequence(run: resources_pb2.Run) -> int:
    """Sequence of the event that ended a run, as it is saved: what comes later changes only its frame."""
    return run.revision if run.state >= FINISHED else 0


def _stamp(
    resource: _Stamped,
    before: _Stamped | None,
) -> None:
    resource.etag = secrets.token_hex(8)
    _now(resource.update_time)
    resource.create_time.CopyFrom(resource.update_time if before is None else before.create_time)
