"""The Client: one method for each thing that a host can be asked."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from itertools import islice
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pipelinehost import address as addresses
from pipelinehost import lookup, names, transfer
from pipelinehost.channel import Connections, Patience, find_token, interrupted
from pipelinehost.errors import (
    Cancelled,
    DeadlineExceeded,
    NotFound,
    PipelineHostError,
    ResourceExhausted,
    Unavailable,
)
from pipelinehost.v1 import artifacts_pb2 as artifacts_api
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import (
    Artifact,
    ComponentResult,
    Connection,
    DeploymentSettings,
    Environment,
    EnvironmentHealth,
    Event,
    Finding,
    Freeze,
    GateNote,
    GateStatus,
    ImportMode,
    Pipeline,
    Principal,
    RecordHead,
    Run,
    Setting,
    Solution,
    Token,
)

FINISHED = frozenset(
    {
        Run.STATE_SUCCEEDED,
        Run.STATE_FAILED,
        Run.STATE_REJECTED,
        Run.STATE_EXPIRED,
        Run.STATE_CANCELLED,
    }
)
"""The states in which nothing more happens to a run by itself. Only FAILED can be left, by a retry."""

PATIENCE = 900.0
"""Seconds that a watch goes on trying to reach a host that has gone away."""

_EXPORT_SECONDS = 900.0  # `DescribeSolution` may export the solution for its answer
_CHECK_SECONDS = 90.0  # an environment that sleeps, or is not there, takes its time
_TRANSFER_PATIENCE = 60.0
_NOBODY_THERE = 6.0  # about what the retries of a unary call take: a host may be restarting

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


class Deployment(TypedDict, total=False):
    """What to deploy, and how; the same for `Client.deploy` and `Client.validate`."""

    solution: str
    """Unique name. Either this or `artifact`."""
    artifact: str
    """An artifact: its name, its SHA-256, or the beginning of that."""
    stage: str
    """Name or display name; empty means the next one that is due."""
    development_environment: str
    """Needed only where the pipeline has several."""
    version: str
    """What the development environment must hold; empty means whatever it holds."""
    settings: DeploymentSettings
    """Values and connections for the target; they win over those of the stage."""
    note: str
    """Free text for the record."""
    update: bool
    """Deletes nothing in the target, where an upgrade would."""
    overwrite_customizations: bool
    """Removes the unmanaged layer of the solution's components in the target."""
    loss_sha256: str
    """What is accepted to be lost: from the summary of a validation."""
    schedule_time: datetime
    """The import is not sent before: a time of a zone, at most 400 days ahead."""
    override_reason: str
    """For administrators only: why it goes through freezes."""
    request_id: str
    """Repeating a call with the same id gives the same run. The Client makes one if it is left out."""


class Client:
    """A connection to a host: blocking, typed, and safe to share between threads.

    Names are accepted wherever ids are: ``pipelines/sales``, ``sales``, or the display name where it is
    unique. Every method raises the exceptions of :mod:`pipelinehost.errors`.

    Args:
        address: ``host:port``.
        token: to sign in with. None looks in ``PIPELINEHOST_TOKEN`` and then in the file that a host on this
            machine wrote when it first started.
        tls: whether to encrypt. A token travels without it to loopback only.
        ca_file: certificates to trust in place of the system's, PEM; implies `tls`.
        deadline: seconds that a call may take, unless its nature is to take longer.

    Raises:
        InvalidArgument: the address cannot be read, or the token would travel unencrypted.
    """

    def __init__(
        self,
        address: str = addresses.DEFAULT,
        *,
        token: str | None = None,
        tls: bool = False,
        ca_file: Path | None = None,
        deadline: float = 30.0,
    ) -> None:
        target = addresses.Address.parse(address)
        self._connections = Connections(
            target,
            token=find_token(target, token),
            tls=tls or ca_file is not None,
            ca_file=ca_file,
            deadline=deadline,
        )
        self._host, self._artifacts = self._connections.unary
        self._metadata = self._connections.metadata

    def close(self) -> None:
        """Ends every call; streams that are being read end with `Cancelled`."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The host

    def host(self) -> api.Host:
        """What the host is, and who the caller is to it."""
        return self._call(self._host.GetHost, api.GetHostRequest())

    def events(self, filter: str = "", *, order_by: str = "", page_size: int = 200) -> Iterator[Event]:
        """The record of the host, oldest first unless `order_by` is ``sequence desc``."""
        request = api.ListEventsRequest(filter=filter, order_by=order_by, page_size=page_size)
        return self._pages(self._host.ListEvents, request, "events")

    def watch_events(
        self,
        filter: str = "",
        *,
        resume_token: str = "",
        from_beginning: bool = False,
        on_interruption: Callable[[PipelineHostError], None] | None = None,
    ) -> Generator[api.WatchEventsResponse, None, None]:
        """What happens on the host, without an end: events that you may see, and heartbeats in between.

        A lost connection or a restart of the host is bridged: the watch goes on where it was, with no gap and
        no repetition. Keep the `resume_token` of the last response that you have dealt with.

        Args:
            filter: which events, as `events` takes it; the default is all.
            resume_token: of an earlier watch, to go on after it.
            from_beginning: without a token begins with the oldest event, and not with what happens from now.
            on_interruption: told each time that the connection is lost, before the next attempt.

        Raises:
            OutOfRange: the token is of another store, or events after it were dropped.
            Unavailable: the host could not be reached for 15 minutes.
        """
        patience = Patience(PATIENCE)
        while True:
            try:
                with self._connections.stream() as stubs, self._connections.typed_errors():
                    request = api.WatchEventsRequest(
                        filter=filter,
                        resume_token=resume_token,
                        from_beginning=from_beginning and not resume_token,
                    )
                    call = stubs.host.WatchEvents(request, metadata=self._metadata)
                    try:
                        for response in call:
                            patience.succeeded()
                            resume_token = response.resume_token
                            yield response
                    finally:
                        call.cancel()
                raise Unavailable(
                    ErrorReason.ERROR_REASON_HOST_UNAVAILABLE, "The host ended the watch of the record."
                )
            except PipelineHostError as error:
                # The host ends a stream at its own deadline, or when the watcher reads too slowly.
                over = isinstance(error, DeadlineExceeded | ResourceExhausted)
                if on_interruption is not None and (over or interrupted(error)):
                    on_interruption(error)
                self._again(error, patience, over=over)

    def verify_events(self, heads: Iterable[RecordHead] = ()) -> Iterator[api.VerifyEventsResponse]:
        """Lets the host compute its record's chain anew: how far it is, and at last what it found.

        Args:
            heads: of exports that lie elsewhere; the record must still lead through them.
        """
        request = api.VerifyEventsRequest(heads=heads)
        with self._connections.stream() as stubs, self._connections.typed_errors():
            yield from stubs.host.VerifyEvents(request, metadata=self._metadata)

    def export_events(self, *, first: int = 0, last: int = 0) -> Iterator[bytes]:
        """The record, or a part of it, as lines of JSON in pieces; the last line is the signed head.

        Args:
            first: sequence of the first event; 0 means the oldest.
            last: sequence of the last event; 0 means the newest.

        Raises:
            DataLoss: the record is not what the host wrote.
        """
        request = api.ExportEventsRequest(first_sequence=first, last_sequence=last)
        with self._connections.stream() as stubs, self._connections.typed_errors():
            for response in stubs.host.ExportEvents(request, metadata=self._metadata):
                yield response.lines

    def prune_events(
        self,
        before: Timestamp,
        exports: Iterable[RecordHead] = (),
        *,
        force: bool = False,
        validate_only: bool = False,
    ) -> Event:
        """Drops the oldest events; the event that tells so says from where on the record is provable.

        Args:
            before: only events older than this.
            exports: heads of the files that hold them.
            force: drops also what was not exported.
            validate_only: checks everything and changes nothing.

        Raises:
            FailedPrecondition: there is nothing to drop, or it was not exported.
        """
        request = api.PruneEventsRequest(
            before=before, exports=exports, force=force, request_id=_new_id(), validate_only=validate_only
        )
        return self._call(self._host.PruneEvents, request)

    # Principals

    def principals(
        self, filter: str = "", *, order_by: str = "", page_size: int = 200
    ) -> Iterator[Principal]:
        """Principals by name: all for who may share pipelines, the caller and their groups for others."""
        request = api.ListPrincipalsRequest(filter=filter, order_by=order_by, page_size=page_size)
        return self._pages(self._host.ListPrincipals, request, "principals")

    def principal(self, name: str) -> Principal:
        """One principal."""

        def get(full: str) -> Principal:
            return self._call(self._host.GetPrincipal, api.GetPrincipalRequest(name=full))

        return lookup.resource("principal", name, get, self.principals)

    def create_principal(self, principal: Principal, *, validate_only: bool = False) -> Principal:
        """Makes somebody known to the host."""
        request = api.CreatePrincipalRequest(
            principal=principal, request_id=_new_id(), validate_only=validate_only
        )
        return self._call(self._host.CreatePrincipal, request)

    def update_principal(
        self, principal: Principal, fields: Sequence[str] = (), *, validate_only: bool = False
    ) -> Principal:
        """Changes the given fields, or all; over what was read only, where `principal` has an etag."""
        request = api.UpdatePrincipalRequest(
            principal=principal,
            update_mask=FieldMask(paths=fields) if fields else None,
            request_id=_new_id(),
            validate_only=validate_only,
        )
        return self._call(self._host.UpdatePrincipal, request)

    def delete_principal(self, name: str, *, etag: str = "", validate_only: bool = False) -> None:
        """Deletes a principal that nothing names, with its tokens."""
        request = api.DeletePrincipalRequest(
            name=self.principal(name).name, etag=etag, request_id=_new_id(), validate_only=validate_only
        )
        self._call(self._host.DeletePrincipal, request)

    def create_token(
        self, principal: str, *, description: str = "", expires: datetime | None = None
    ) -> api.CreateTokenResponse:
        """Makes a token: the answer holds its secret, which nothing tells again.

        Raises:
            AlreadyExists: the answer to the first attempt was lost, and with it the secret; the error's
                metadata `resource` names the token, to be revoked.
        """
        request = api.CreateTokenRequest(
            principal=self.principal(principal).name, description=description, request_id=_new_id()
        )
        if expires is not None:
            request.expire_time.FromDatetime(expires)
        return self._call(self._host.CreateToken, request)

    def tokens(self, principal: str) -> Iterator[Token]:
        """The tokens of a principal, revoked and expired ones among them."""
        request = api.ListTokensRequest(principal=self.principal(principal).name, page_size=200)
        return self._pages(self._host.ListTokens, request, "tokens")

    def revoke_token(self, name: str) -> Token:
        """Refuses a token from now on."""
        full = name if name.startswith("tokens/") else f"tokens/{name}"
        return self._call(self._host.RevokeToken, api.RevokeTokenRequest(name=full, request_id=_new_id()))

    # Environments

    def environments(
        self, filter: str = "", *, order_by: str = "", page_size: int = 200
    ) -> Iterator[Environment]:
        """Environments by name."""
        request = api.ListEnvironmentsRequest(filter=filter, order_by=order_by, page_size=page_size)
        return self._pages(self._host.ListEnvironments, request, "environments")

    def environment(self, name: str) -> Environment:
        """One environment."""

        def get(full: str) -> Environment:
            return self._call(self._host.GetEnvironment, api.GetEnvironmentRequest(name=full))

        return lookup.resource("environment", name, get, self.environments)

    def create_environment(self, environment: Environment, *, validate_only: bool = False) -> Environment:
        """Links an environment; without a `url` the host makes an embedded one."""
        request = api.CreateEnvironmentRequest(
            environment=environment, request_id=_new_id(), validate_only=validate_only
        )
        return self._call(self._host.CreateEnvironment, request)

    def update_environment(
        self, environment: Environment, fields: Sequence[str] = (), *, validate_only: bool = False
    ) -> Environment:
        """Changes the given fields, or all; over what was read only, where `environment` has an etag."""
        request = api.UpdateEnvironmentRequest(
            environment=environment,
            update_mask=FieldMask(paths=fields) if fields else None,
            request_id=_new_id(),
            validate_only=validate_only,
        )
        return self._call(self._host.UpdateEnvironment, request)

    def delete_environment(self, name: str, *, etag: str = "", validate_only: bool = False) -> None:
        """Deletes the record of an environment, never the environment itself."""
        request = api.DeleteEnvironmentRequest(
            name=self._environment(name), etag=etag, request_id=_new_id(), validate_only=validate_only
        )
        self._call(self._host.DeleteEnvironment, request)

    def set_credential(self, name: str, *, client_secret: str = "", certificate: str = "") -> None:
        """Sets the secret that the host signs in to an environment with; nothing gives it back.

        Args:
            name: the environment whose `sign_in` takes a secret; or a stage that has one of its own, as
                PIPELINE/STAGE or by its full name.
            client_secret: of its application; or else
            certificate: certificate and private key of its application, PEM.
        """
        request = api.SetEnvironmentCredentialRequest(
            name=self._stage(name) if _is_of_stage(name) else self._environment(name), request_id=_new_id()
        )
        if certificate:
            request.certificate = certificate
        else:
            request.client_secret = client_secret
        self._call(self._host.SetEnvironmentCredential, request)

    def take_over(self, environment: str, reason: str) -> Environment:
        """Takes an environment over that belongs to another host, which then loses it.

        Args:
            environment: as this host knows it.
            reason: is recorded.
        """
        request = api.TakeOverEnvironmentRequest(
            name=self._environment(environment), reason=reason, request_id=_new_id()
        )
        return self._call(self._host.TakeOverEnvironment, request, _CHECK_SECONDS)

    def check(self, environment: str) -> EnvironmentHealth:
        """Whether an environment can be reached and used, as the host finds it now."""
        request = api.CheckEnvironmentRequest(name=self._environment(environment))
        return self._call(self._host.CheckEnvironment, request, _CHECK_SECONDS)

    def solutions(self, environment: str) -> list[Solution]:
        """The solutions in an environment, as it tells them now."""
        request = api.ListSolutionsRequest(environment=self._environment(environment))
        return list(self._call(self._host.ListSolutions, request).solutions)

    def queue(self, environment: str) -> api.Queue:
        """The runs that have or wait for an environment."""
        return self._call(
            self._host.GetQueue, api.GetQueueRequest(environment=self._environment(environment))
        )

    def connections(self, environment: str) -> list[Connection]:
        """The connections in an environment, where they can be listed."""
        request = api.ListConnectionsRequest(environment=self._environment(environment))
        return list(self._call(self._host.ListConnections, request).connections)

    def create_connection(
        self, environment: str, connection: Connection, *, validate_only: bool = False
    ) -> Connection:
        """Creates a connection in an embedded environment."""
        request = api.CreateConnectionRequest(
            environment=self._environment(environment),
            connection=connection,
            request_id=_new_id(),
            validate_only=validate_only,
        )
        return self._call(self._host.CreateConnection, request)

    def delete_connection(self, environment: str, connection: str, *, validate_only: bool = False) -> None:
        """Deletes a connection of an embedded environment; `connection` is its id or its full name."""
        if not names.matches("connection", connection):
            connection = names.connection(self._environment(environment), connection)
        request = api.DeleteConnectionRequest(
            name=connection, request_id=_new_id(), validate_only=validate_only
        )
        self._call(self._host.DeleteConnection, request)

    # Pipelines

    def pipelines(self, filter: str = "", *, order_by: str = "", page_size: int = 200) -> Iterator[Pipeline]:
        """Pipelines by name."""
        request = api.ListPipelinesRequest(filter=filter, order_by=order_by, page_size=page_size)
        return self._pages(self._host.ListPipelines, request, "pipelines")

    def pipeline(self, name: str) -> Pipeline:
        """One pipeline with its stages."""

        def get(full: str) -> Pipeline:
            return self._call(self._host.GetPipeline, api.GetPipelineRequest(name=full))

        return lookup.resource("pipeline", name, get, self.pipelines)

    def create_pipeline(self, pipeline: Pipeline, *, validate_only: bool = False) -> Pipeline:
        """Creates a pipeline."""
        request = api.CreatePipelineRequest(
            pipeline=pipeline, request_id=_new_id(), validate_only=validate_only
        )
        return self._call(self._host.CreatePipeline, request)

    def update_pipeline(
        self, pipeline: Pipeline, fields: Sequence[str] = (), *, validate_only: bool = False
    ) -> Pipeline:
        """Changes the given fields, or all; over what was read only, where `pipeline` has an etag."""
        request = api.UpdatePipelineRequest(
            pipeline=pipeline,
            update_mask=FieldMask(paths=fields) if fields else None,
            request_id=_new_id(),
            validate_only=validate_only,
        )
        return self._call(self._host.UpdatePipeline, request)

    def delete_pipeline(self, name: str, *, etag: str = "", validate_only: bool = False) -> None:
        """Deletes a pipeline without unfinished runs; its runs and artifacts stay."""
        request = api.DeletePipelineRequest(
            name=self._pipeline(name), etag=etag, request_id=_new_id(), validate_only=validate_only
        )
        self._call(self._host.DeletePipeline, request)

    # Freezes

    def freezes(self, filter: str = "", *, order_by: str = "", page_size: int = 200) -> Iterator[Freeze]:
        """Freezes by name: those of the whole host, and those of pipelines that the caller sees."""
        request = api.ListFreezesRequest(filter=filter, order_by=order_by, page_size=page_size)
        return self._pages(self._host.ListFreezes, request, "freezes")

    def freeze(self, name: str) -> Freeze:
        """One freeze."""
        full = name if name.startswith("freezes/") else names.freeze(name)
        return self._call(self._host.GetFreeze, api.GetFreezeRequest(name=full))

    def create_freeze(self, freeze: Freeze, *, validate_only: bool = False) -> Freeze:
        """Freezes the whole host, a pipeline or a stage."""
        request = api.CreateFreezeRequest(freeze=freeze, request_id=_new_id(), validate_only=validate_only)
        return self._call(self._host.CreateFreeze, request)

    def update_freeze(
        self, freeze: Freeze, fields: Sequence[str] = (), *, validate_only: bool = False
    ) -> Freeze:
        """Changes the given fields, or all; over what was read only, where `freeze` has an etag."""
        request = api.UpdateFreezeRequest(
            freeze=freeze,
            update_mask=FieldMask(paths=fields) if fields else None,
            request_id=_new_id(),
            validate_only=validate_only,
        )
        return self._call(self._host.UpdateFreeze, request)

    def delete_freeze(self, name: str, *, etag: str = "", validate_only: bool = False) -> None:
        """Ends a freeze for good: runs that waited for it go on."""
        full = name if name.startswith("freezes/") else names.freeze(name)
        request = api.DeleteFreezeRequest(
            name=full, etag=etag, request_id=_new_id(), validate_only=validate_only
        )
        self._call(self._host.DeleteFreeze, request)

    # Solutions and artifacts

    def describe(
        self, *, artifact: str = "", solution: str = "", environment: str = "", stage: str = ""
    ) -> api.DescribeSolutionResponse:
        """What a solution is made of and needs, with all its components.

        Args:
            artifact: what to look at; or else
            solution: a unique name, with the development
            environment: that holds it.
            stage: as seen from there, ``pipeline/stage``: its values and those of its target are merged in.
        """
        request = api.DescribeSolutionRequest(stage=self._stage(stage) if stage else "", page_size=1000)
        if artifact:
            request.artifact = self._artifact(artifact)
        else:
            request.installed.environment = self._environment(environment)
            request.installed.solution = solution
        answer = self._call(self._host.DescribeSolution, request, _EXPORT_SECONDS)
        page = answer
        while page.next_page_token:
            request.page_token = page.next_page_token
            page = self._call(self._host.DescribeSolution, request, _EXPORT_SECONDS)
            answer.components.extend(page.components)
        answer.next_page_token = ""
        return answer

    def artifacts(self, filter: str = "", *, page_size: int = 200) -> Iterator[Artifact]:
        """Artifacts, newest first."""
        request = artifacts_api.ListArtifactsRequest(filter=filter, page_size=page_size)
        return self._pages(self._artifacts.ListArtifacts, request, "artifacts")

    def artifact(self, name: str) -> Artifact:
        """One artifact, by name, SHA-256, or the unique beginning of that."""
        request = artifacts_api.GetArtifactRequest(name=self._artifact(name))
        return self._call(self._artifacts.GetArtifact, request)

    def block(self, name: str, *, reason: str) -> Artifact:
        """Keeps an artifact from being deployed; runs of it that wait fail."""
        request = artifacts_api.BlockArtifactRequest(
            name=self._artifact(name), reason=reason, request_id=_new_id()
        )
        return self._call(self._artifacts.BlockArtifact, request)

    def unblock(self, name: str, *, reason: str) -> Artifact:
        """Lets an artifact be deployed again."""
        request = artifacts_api.UnblockArtifactRequest(
            name=self._artifact(name), reason=reason, request_id=_new_id()
        )
        return self._call(self._artifacts.UnblockArtifact, request)

    def upload(self, path: Path | str, on_progress: transfer.OnProgress | None = None) -> Artifact:
        """Stores a package. Uploading the same bytes again gives the same artifact.

        Raises:
            OSError: the file cannot be read.
            InvalidArgument: the host does not accept it as a solution package.
        """
        messages = transfer.Upload(Path(path), on_progress)
        patience = Patience(_TRANSFER_PATIENCE, _NOBODY_THERE)
        while True:
            try:
                with self._connections.stream() as stubs, self._connections.typed_errors():
                    return stubs.artifacts.UploadArtifact(iter(messages), metadata=self._metadata)
            except PipelineHostError as error:
                if messages.failure is not None:
                    raise messages.failure from error
                self._again(error, patience)

    def download(
        self,
        name: str,
        path: Path | str,
        *,
        source: bool = False,
        on_progress: transfer.OnProgress | None = None,
    ) -> Path:
        """Writes an artifact's package to a file that appears only when it is complete and its digest right.

        Args:
            name: the artifact.
            path: the file, replaced if it is there; or a folder, where it gets the name that exports have.
            source: gives the unmanaged twin instead of the managed package.
            on_progress: told the bytes that have arrived and the bytes in all.

        Returns:
            The file written.

        Raises:
            DataLoss: the bytes that arrived are not those of the artifact.
            OSError: the file cannot be written.
        """
        full = self._artifact(name)
        request = artifacts_api.DownloadArtifactRequest(name=full, source=source)
        patience = Patience(_TRANSFER_PATIENCE, _NOBODY_THERE)
        while True:
            try:
                with self._connections.stream() as stubs, self._connections.typed_errors():
                    call = stubs.artifacts.DownloadArtifact(request, metadata=self._metadata)
                    try:
                        return transfer.receive(call, full, Path(path), on_progress)
                    finally:
                        call.cancel()
            except PipelineHostError as error:
                self._again(error, patience)

    # Deploying

    def validate(
        self, pipeline: str, **deployment: Unpack[Deployment]
    ) -> Iterator[api.ValidateDeploymentResponse]:
        """Everything that `deploy` would find now: progress, each finding at once, at last a summary."""
        return self._validate(
            api.ValidateDeploymentRequest(deployment=self._deployment(pipeline, deployment))
        )

    def deploy(self, pipeline: str, **deployment: Unpack[Deployment]) -> Run:
        """Deploys a solution or an artifact to a stage.

        Returns:
            The run, which is durable: it goes on whatever becomes of the caller.

        Raises:
            FailedPrecondition: rights, order of the stages, regions, …: `violations` lists everything.
        """
        return self._call(self._host.Deploy, self._deployment(pipeline, deployment))

    def held_before(self, pipeline: str, stage: str, solution: str, *, version: str = "") -> str:
        """The artifact to go back to: of that version, else what a stage held before what it holds now.

        That is what its newest run of a lower version has brought. What was not brought by the host is not
        known here.

        Args:
            pipeline: name or display name.
            stage: name or display name.
            solution: unique name.
            version: which one; the stage need not have held it.

        Raises:
            NotFound: the host has no such artifact.
        """
        where = self.pipeline(pipeline)
        at = lookup.stage(stage, where)
        of_solution = lookup.term("solution", solution)
        terms = f"state = SUCCEEDED AND {lookup.term('stage', at.name)} AND {of_solution}"
        # The record's order and not the clock's, which may have been put back.
        order = attrgetter("revision", "end_time.seconds", "end_time.nanos")
        runs = sorted(islice(self.runs(terms), 1000), key=order, reverse=True)
        if version:
            found = [r.artifact for r in runs if _numbers(r.version) == _numbers(version)]
            if not found:
                kept = self.artifacts(f"{of_solution} AND managed = true")
                found = [a.name for a in kept if _numbers(a.version) == _numbers(version)]
        else:
            now = _numbers(runs[0].version) if runs else (0,)
            found = [r.artifact for r in runs if _numbers(r.version) < now]
        if found:
            return found[0]
        what = (
            f"version {version} of {solution}" if version else f"earlier version of {solution} at {at.name}"
        )
        raise NotFound(
            ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND,
            f"The host knows of no {what}.",
            remedy="See what there is with `pipelinehost artifact list`, and name an artifact.",
        )

    def restore(self, artifact: str, environment: str, *, note: str = "", request_id: str = "") -> Run:
        """Imports the unmanaged package of an artifact into a development environment."""
        request = api.RestoreArtifactRequest(
            artifact=self._artifact(artifact),
            environment=self._environment(environment),
            note=note,
            request_id=request_id or _new_id(),
        )
        return self._call(self._host.RestoreArtifact, request)

    # Runs

    def runs(self, filter: str = "", *, order_by: str = "", page_size: int = 200) -> Iterator[Run]:
        """Runs, newest first unless `order_by` is ``create_time``."""
        request = api.ListRunsRequest(filter=filter, order_by=order_by, page_size=page_size)
        return self._pages(self._host.ListRuns, request, "runs")

    def run(self, name: str) -> Run:
        """One run."""
        return self._call(self._host.GetRun, api.GetRunRequest(name=_run(name)))

    def watch(
        self,
        run: str,
        *,
        resume_token: str = "",
        timeout: float | None = None,
        on_interruption: Callable[[PipelineHostError], None] | None = None,
    ) -> Generator[api.WatchRunResponse, None, None]:
        """What happens to a run, until it is finished; the last update is the finished run.

        A lost connection or a restart of the host is bridged: the watch goes on where it was, with no gap and
        no repetition, and ends only when the run does.

        Args:
            run: the run.
            resume_token: of the last response of an earlier watch, to go on after it; without one the first
                update is the run as it is.
            timeout: seconds that the whole watch may take.
            on_interruption: told each time that the connection is lost, before the next attempt.

        Raises:
            DeadlineExceeded: the run was not finished in time.
            OutOfRange: the resume token is of another run or another store.
            Unavailable: the host could not be reached for 15 minutes.
        """
        name = _run(run)
        ends = None if timeout is None else time.monotonic() + timeout
        patience = Patience(PATIENCE)
        seen = 0
        while True:
            remaining = None if ends is None else max(ends - time.monotonic(), 0.0)
            try:
                with self._connections.stream() as stubs, self._connections.typed_errors():
                    request = api.WatchRunRequest(name=name, resume_token=resume_token)
                    call = stubs.host.WatchRun(request, timeout=remaining, metadata=self._metadata)
                    try:
                        for response in call:
                            patience.succeeded()
                            resume_token = response.resume_token or resume_token
                            if response.HasField("event"):
                                if response.event.sequence <= seen:
                                    continue
                                seen = response.event.sequence
                            yield response
                            if response.HasField("run") and response.run.state in FINISHED:
                                return
                    finally:
                        call.cancel()
                raise Unavailable(
                    ErrorReason.ERROR_REASON_HOST_UNAVAILABLE, f"The host ended the watch of {name} early."
                )
            except PipelineHostError as error:
                if ends is not None and time.monotonic() >= ends:
                    raise DeadlineExceeded(
                        ErrorReason.ERROR_REASON_UNSPECIFIED,
                        f"{name} was not finished within {timeout:g} seconds.",
                        remedy="It goes on by itself: watch it again.",
                    ) from error
                # The host ends a stream at its own deadline, or when the watcher reads too slowly.
                over = isinstance(error, DeadlineExceeded | ResourceExhausted)
                if not over and not interrupted(error):
                    raise
                if on_interruption is not None:
                    on_interruption(error)
                self._again(error, patience, over=over)

    def wait(self, run: str, *, timeout: float | None = None) -> Run:
        """The run once it is finished, however it ended: see its `state`.

        Raises:
            DeadlineExceeded: the run was not finished within `timeout` seconds. It goes on.
        """
        with closing(self.watch(run, timeout=timeout)) as updates:
            for response in updates:
                if response.HasField("run") and response.run.state in FINISHED:
                    return response.run
        raise AssertionError("a watch ends with a finished run")

    def cancel(self, run: str, *, reason: str = "", request_id: str = "") -> Run:
        """Cancels a run: at once until its import is sent, afterwards if its environment still can."""
        request = api.CancelRunRequest(name=_run(run), reason=reason, request_id=request_id or _new_id())
        return self._call(self._host.CancelRun, request)

    def reschedule(
        self, run: str, at: datetime | None = None, *, override_reason: str = "", request_id: str = ""
    ) -> Run:
        """Gives a run another time, as long as its import was not sent.

        Args:
            run: the run.
            at: the import is not sent before, a time of a zone; None means as soon as possible.
            override_reason: for administrators only: why it goes through freezes.
            request_id: repeating a call with the same id does it once.
        """
        request = api.RescheduleRunRequest(
            name=_run(run), override_reason=override_reason, request_id=request_id or _new_id()
        )
        if at is not None:
            request.schedule_time.FromDatetime(at)
        return self._call(self._host.RescheduleRun, request)

    def retry(self, run: str, *, request_id: str = "") -> Run:
        """Lets a failed run go on from the step that failed."""
        request = api.RetryRunRequest(name=_run(run), request_id=request_id or _new_id())
        return self._call(self._host.RetryRun, request)

    def resolve(self, run: str, *, applied: bool, reason: str, request_id: str = "") -> Run:
        """Says what became of an import that the host could not decide about; `reason` is for the record."""
        request = api.ResolveRunRequest(
            name=_run(run),
            resolution=(
                api.ResolveRunRequest.RESOLUTION_APPLIED
                if applied
                else api.ResolveRunRequest.RESOLUTION_NOT_APPLIED
            ),
            reason=reason,
            request_id=request_id or _new_id(),
        )
        return self._call(self._host.ResolveRun, request)

    def approve(self, run: str | Run, *, comment: str = "", note: str = "", bound_sha256: str = "") -> Run:
        """Says yes at the gate that a run waits at.

        Args:
            run: its name; or the run as it was looked at: nothing is approved then that has changed since.
            comment: for the maker.
            note: for administrators only.
            bound_sha256: of the gate, as an event or a webhook told it: nothing is approved that has changed
                since. A run that was looked at has its own.

        Raises:
            Aborted: what is to be approved has changed since.
            FailedPrecondition: the run waits at no gate, or you have approved it already.
            PermissionDenied: its gate does not name you, or it is your own request.
        """
        name = run if isinstance(run, str) else run.name
        waiting = (
            [] if isinstance(run, str) else [g for g in run.gates if g.state == GateStatus.STATE_WAITING]
        )
        request = api.ApproveRequest(
            name=_run(name),
            gate=waiting[0].kind if waiting else None,
            bound_sha256=bound_sha256 or (waiting[0].bound_sha256 if waiting else ""),
            comment=comment,
            note=note,
            request_id=_new_id(),
        )
        return self._call(self._host.Approve, request)

    def reject(self, run: str, *, comment: str, note: str = "") -> Run:
        """Says no at the gate that a run waits at: the run ends; `comment` tells its maker why."""
        request = api.RejectRequest(name=_run(run), comment=comment, note=note, request_id=_new_id())
        return self._call(self._host.Reject, request)

    def gate_notes(self, run: str) -> list[GateNote]:
        """What approvers of a run told the administrators; for these only."""
        return list(self._call(self._host.ListGateNotes, api.ListGateNotesRequest(run=_run(run))).notes)

    def findings(self, run: str) -> Iterator[Finding]:
        """What validation and the import found, in the order of validation."""
        return self._pages(
            self._host.ListFindings, api.ListFindingsRequest(run=_run(run), page_size=200), "findings"
        )

    def component_results(self, run: str) -> Iterator[ComponentResult]:
        """What the import did to each component."""
        request = api.ListComponentResultsRequest(run=_run(run), page_size=200)
        return self._pages(self._host.ListComponentResults, request, "results")

    def run_settings(self, run: str) -> list[Setting]:
        """The settings that a run was merged from: names, sources and digests, never values."""
        return list(
            self._call(self._host.ListRunSettings, api.ListRunSettingsRequest(run=_run(run))).settings
        )

    def run_pipeline(self, run: str) -> Pipeline:
        """The pipeline as it was when the run was asked for."""
        return self._call(self._host.GetRunPipeline, api.GetRunPipelineRequest(run=_run(run)))

    # What is behind it

    def _call(
        self,
        method: grpc.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        timeout: float | None = None,
    ) -> _Response:
        with self._connections.typed_errors():
            return method(request, timeout=timeout or self._connections.deadline, metadata=self._metadata)

    def _pages(
        self, method: grpc.UnaryUnaryMultiCallable[Any, Any], request: Any, field: str
    ) -> Iterator[Any]:
        while True:
            page = self._call(method, request)
            yield from getattr(page, field)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _validate(self, request: api.ValidateDeploymentRequest) -> Iterator[api.ValidateDeploymentResponse]:
        patience = Patience(_TRANSFER_PATIENCE, _NOBODY_THERE)
        begun = False
        while True:
            try:
                with self._connections.stream() as stubs, self._connections.typed_errors():
                    call = stubs.host.ValidateDeployment(request, metadata=self._metadata)
                    try:
                        for response in call:
                            begun = True
                            yield response
                        return
                    finally:
                        call.cancel()
            except PipelineHostError as error:
                if begun:  # what was found so far would come a second time
                    raise
                self._again(error, patience)

    def _again(self, error: PipelineHostError, patience: Patience, *, over: bool = False) -> None:
        if self._connections.closed:
            raise Cancelled(ErrorReason.ERROR_REASON_UNSPECIFIED, "The client was closed.") from error
        if not over and not interrupted(error):
            raise error
        patience.failed(error)

    def _deployment(self, pipeline: str, deployment: Deployment) -> api.DeployRequest:
        stage = deployment.get("stage", "")
        if stage and not names.matches("stage", stage):
            found = self.pipeline(pipeline)
            pipeline, stage = found.name, lookup.stage(stage, found).name
        source = deployment.get("development_environment", "")
        request = api.DeployRequest(
            pipeline=self._pipeline(pipeline),
            stage=stage,
            development_environment=self._environment(source) if source else "",
            version=deployment.get("version", ""),
            settings=deployment.get("settings"),
            note=deployment.get("note", ""),
            import_mode=ImportMode.IMPORT_MODE_UPDATE if deployment.get("update") else None,
            overwrite_customizations=deployment.get("overwrite_customizations", False),
            override_reason=deployment.get("override_reason", ""),
            request_id=deployment.get("request_id") or _new_id(),
            loss_sha256=deployment.get("loss_sha256", ""),
        )
        if (at := deployment.get("schedule_time")) is not None:
            request.schedule_time.FromDatetime(at)
        if artifact := deployment.get("artifact", ""):
            request.artifact = self._artifact(artifact)
        else:
            request.solution = deployment.get("solution", "")
        return request

    def _environment(self, text: str) -> str:
        return text if names.matches("environment", text) else self.environment(text).name

    def _pipeline(self, text: str) -> str:
        return text if names.matches("pipeline", text) else self.pipeline(text).name

    def _stage(self, text: str) -> str:
        return text if names.matches("stage", text) else lookup.stage_of(text, self.pipeline)[1].name

    def _artifact(self, text: str) -> str:
        return lookup.artifact(text, lambda: self.artifacts(page_size=1000))


def _new_id() -> str:
    return str(uuid.uuid4())


def _run(text: str) -> str:
    name = text if text.startswith("runs/") else names.run(text)
    names.parse("run", name, "run")
    return name


def _numbers(version: str) -> tuple[int, ...]:
    """A version in the order of versions: 1.0 is 1.0.0.0, and 1.10 higher than 1.9."""
    numbers = [int(part) for part in re.findall(r"\d+", version)[:4]]
    return tuple(numbers + [0] * (4 - len(numbers)))


def _is_of_stage(text: str) -> bool:
    return "/" in text and not text.startswith("environments/")
