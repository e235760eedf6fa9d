"""The service PipelineHost: thin methods over the store, the environments and the deployment."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from importlib.metadata import version
from typing import Any, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from pipelinehost import names
from pipelinehost.errors import AlreadyExists, FailedPrecondition, NotFound, PermissionDenied, Violation
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import (
    Connection,
    Environment,
    EnvironmentHealth,
    Event,
    Gate,
    Pipeline,
    Principal,
    Run,
)
from pipelinehost_dataverse.webapi import DataverseError
from pipelinehost_server import rules
from pipelinehost_server.access import (
    HIDDEN_RUN,
    Access,
    Caller,
    absent,
    people,
    reach,
    renewed,
)
from pipelinehost_server.api import configure, listing
from pipelinehost_server.api.record import Record
from pipelinehost_server.api.watch import Watch
from pipelinehost_server.config import Config
from pipelinehost_server.deployment import Deployment, Environments
from pipelinehost_server.deployment.asked import stage_named
from pipelinehost_server.deployment.environments import as_host_error, require_embedded
from pipelinehost_server.deployment.identities import credential_key
from pipelinehost_server.store import Once, Reach, Reads, Store, Transaction

VERSION = version("pipelinehost")


class PipelineHost:
    """What the guard calls for each RPC of the service of this name; ``rpc GetRun`` is ``get_run``.

    Methods that answer from the store are plain functions: they run inline on the loop, in microseconds. What
    they raise becomes the status of the call.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        environments: Environments,
        deployment: Deployment,
        pages: listing.Pages,
        watch: Watch,
        record: Record,
        secret: bytes,
        access: Access,
        webhook_key: str,
    ) -> None:
        self._config = config
        self._store = store
        self._reads = store.reads
        self._environments = environments
        self._deployment = deployment
        self._pages = pages
        self._watch = watch
        self._record = record
        # For each request a copy: hmac.digest lets the writer's thread have its turn, whatever that costs.
        self._bodies = hmac.new(secret, digestmod="sha256")
        self._access = access
        self._webhook_key = webhook_key
        self._connecting = asyncio.Lock()

    def get_host(self, request: api.GetHostRequest, caller: Caller) -> api.Host:
        """What this host is, and who the caller is to it."""
        return api.Host(
            version=VERSION,
            region=self._config.region,
            allow_cross_region=self._config.allow_cross_region,
            caller=caller.name,
            record_key=self._record.key,
            webhook_key=self._webhook_key,
            role=cast("Principal.Role", caller.role),
            groups=caller.groups,
            token=self._reads.token(caller.token) if caller.token else None,
        )

    def list_events(self, request: api.ListEventsRequest, caller: Caller) -> api.ListEventsResponse:
        """A page of the record."""
        return self._pages.page(
            listing.EVENTS,
            api.ListEventsResponse,
            request,
            caller.name,
            where=self._access.rows(caller, "event"),
        )

    def watch_events(
        self, request: api.WatchEventsRequest, caller: Caller
    ) -> AsyncGenerator[api.WatchEventsResponse, None]:
        """What happens on the host, as far as the caller may see it."""
        method = "/pipelinehost.v1.PipelineHost/WatchEvents"
        return self._watch.events(request, self._access.sight(caller, method))

    def verify_events(
        self, request: api.VerifyEventsRequest, caller: Caller
    ) -> AsyncGenerator[api.VerifyEventsResponse, None]:
        """Whether the record is what the host wrote."""
        return self._record.verify(request)

    def export_events(
        self, request: api.ExportEventsRequest, caller: Caller
    ) -> AsyncGenerator[api.ExportEventsResponse, None]:
        """The record as a file."""
        return self._record.export(request, caller)

    async def prune_events(self, request: api.PruneEventsRequest, caller: Caller) -> Event:
        """Drops the oldest events."""
        return await self._record.prune(request, caller, self.once(request, caller))

    def get_environment(self, request: api.GetEnvironmentRequest, caller: Caller) -> Environment:
        """One environment."""
        return _environment(self._reads, request.name)

    def list_environments(
        self, request: api.ListEnvironmentsRequest, caller: Caller
    ) -> api.ListEnvironmentsResponse:
        """A page of environments."""
        return self._pages.page(
            listing.ENVIRONMENTS,
            api.ListEnvironmentsResponse,
            request,
            caller.name,
            where=self._access.rows(caller, "environment"),
        )

    async def create_environment(self, request: api.CreateEnvironmentRequest, caller: Caller) -> Environment:
        """Links an environment, or makes an embedded one together with its file."""
        wanted = configure.cleaned(request.environment)
        once = self.once(request, caller)

        def decide(reads: Reads) -> None:
            configure.refuse(
                configure.environment_violations(wanted),
                configure.environment_preconditions(
                    self._config, wanted, reads.environments(), reads.principal
                ),
            )
            configure.require_new(reads.environment(wanted.name))

        def work(tx: Transaction) -> Environment:
            decide(tx)
            made = tx.put_environment(configure.copied(wanted))
            tx.append(_event(Event.KIND_ENVIRONMENT_CREATED, caller, made.name, environment=made))
            return made

        if request.validate_only:
            decide(self._reads)
            return wanted
        made = await self._store.write(once.job(Environment, work))
        if not made.url:
            # After the record: the file of an environment that exists is never touched by a refused call. A
            # repeated call comes here again.
            try:
                await self._environments.open_embedded(made)
            except DataverseError as error:
                raise as_host_error(error, made) from error
            return self._reads.environment(made.name) or made
        return made

    async def update_environment(self, request: api.UpdateEnvironmentRequest, caller: Caller) -> Environment:
        """Changes the record of an environment."""
        name = request.environment.name
        names.parse("environment", name, "environment.name")
        once = self.once(request, caller)

        def decide(reads: Reads) -> Environment:
            stored = _environment(reads, name, "environment.name")
            configure.require_etag(request.environment.etag, stored)
            fresh, found = configure.merged(stored, request.environment, request.update_mask)
            found += configure.transformations(stored, request.environment, fresh)
            configure.refuse(
                [*found, *configure.environment_violations(fresh)],
                configure.environment_preconditions(
                    self._config, fresh, reads.environments(), reads.principal
                ),
            )
            if fresh.url != stored.url:
                configure.require_unused(name, runs=reads.unfinished_runs(environment=name))
            else:
                fresh.organization_id = stored.organization_id
                fresh.taken_by = stored.taken_by
                if stored.taken_by:
                    fresh.taken_time.CopyFrom(stored.taken_time)
            return fresh

        def work(tx: Transaction) -> Environment:
            fresh, before = decide(tx), _environment(tx, name)
            told = left
            if not configure.same_identity(before, fresh):
                told = " ".join(filter(None, [told, _forget_credentials(tx, [name])]))
            if before.url != fresh.url:
                acting = [
                    stage.name
                    for pipeline in map(tx.pipeline, tx.pipelines_using(name))
                    for stage in (pipeline.stages if pipeline is not None else ())
                    if stage.environment == name
                ]
                told = " ".join(filter(None, [told, _forget_credentials(tx, acting)]))
            changed = tx.put_environment(fresh)
            event = _event(
                Event.KIND_ENVIRONMENT_UPDATED,
                caller,
                changed.name,
                environment=changed,
                environment_before=before,
            )
            event.message = told
            tx.append(event)
            return changed

        if request.validate_only:
            return decide(self._reads)
        left = ""
        if (
            once.recall(Environment, self._reads) is None
            and decide(self._reads).url != (stored := _environment(self._reads, name, "environment.name")).url
        ):
            left = await self._environments.release(stored)
        return await self._store.write(once.job(Environment, work))

    async def delete_environment(self, request: api.DeleteEnvironmentRequest, caller: Caller) -> Empty:
        """Deletes the record of an environment that nothing uses."""
        name = request.name
        names.parse("environment", name)
        once = self.once(request, caller)

        def decide(reads: Reads) -> Environment:
            stored = _environment(reads, name)
            configure.require_etag(request.etag, stored)
            configure.require_unused(
                name, pipelines=reads.pipelines_using(name), runs=reads.unfinished_runs(environment=name)
            )
            return stored

        def work(tx: Transaction) -> Empty:
            before = decide(tx)
            tx.delete_environment(name)
            tx.delete_secret(credential_key(name))
            event = _event(Event.KIND_ENVIRONMENT_DELETED, caller, name, environment=before)
            event.message = left
            tx.append(event)
            return Empty()

        if request.validate_only:
            decide(self._reads)
            return Empty()
        # Before the record: who repeats this after a crash finds the record and lets it go again.
        left = ""
        if once.recall(Empty, self._reads) is None:
            left = await self._environments.release(decide(self._reads))
        return await self._store.write(once.job(Empty, work))

    async def take_over_environment(
        self, request: api.TakeOverEnvironmentRequest, caller: Caller
    ) -> Environment:
        """Takes an environment over that belongs to another host."""
        name = request.name
        stored = _environment(self._reads, name)
        wrong = []
        if not request.reason.strip():
            wrong.append(Violation("reason", "is required: it is recorded"))
        if not stored.url:
            wrong.append(Violation("name", f"{name} is embedded: it belongs to this host for good"))
        configure.refuse(wrong, ())
        once = self.once(request, caller)
        # The environment is no part of the store's transaction: one at a time. A repeated call does no harm.
        async with self._connecting:
            if (seen := once.recall(Environment, self._reads)) is not None:
                return seen
            whose = await self._environments.take_over(name)

            def work(tx: Transaction) -> Environment:
                before = _environment(tx, name)
                taken = tx.record_taken(name, stored.url, "") or before
                event = _event(
                    Event.KIND_ENVIRONMENT_TAKEN_OVER,
                    caller,
                    name,
                    environment=taken,
                    environment_before=before,
                )
                event.message = f"{request.reason} (it belonged to {whose or 'nobody'})"
                tx.append(event)
                return taken

            return await self._store.write(once.job(Environment, work))

    async def set_environment_credential(
        self, request: api.SetEnvironmentCredentialRequest, caller: Caller
    ) -> Empty:
        """Keeps the secret of an environment's or a stage's sign-in; nothing gives it back."""
        name = request.name
        sealed = self._environments.sealed_credential(request)
        once = self.once(request, caller)

        def work(tx: Transaction) -> Empty:
            holder = stage_named(tx, name) if "/stages/" in name else _environment(tx, name)
            configure.refuse(configure.credential_violations(holder.sign_in, request), ())
            tx.put_secret(credential_key(name), sealed)
            tx.append(_event(Event.KIND_CREDENTIAL_SET, caller, name))
            return Empty()

        return await self._store.write(once.job(Empty, work))

    async def check_environment(
        self, request: api.CheckEnvironmentRequest, caller: Caller
    ) -> EnvironmentHealth:
        """Looks whether an environment can be reached and used."""
        names.parse("environment", request.name)
        return await self._environments.check(request.name)

    async def list_solutions(
        self, request: api.ListSolutionsRequest, caller: Caller
    ) -> api.ListSolutionsResponse:
        """Solutions in an environment, as it tells them now."""
        names.parse("environment", request.environment, "environment")
        return api.ListSolutionsResponse(solutions=await self._environments.solutions(request.environment))

    async def describe_solution(
        self, request: api.DescribeSolutionRequest, caller: Caller
    ) -> api.DescribeSolutionResponse:
        """What a solution is made of and what it needs."""
        where = self._reads.environment(request.installed.environment)
        if where is not None and where.kind != Environment.KIND_DEVELOPMENT:
            # The host's own identity could take out of a target what nobody else may.
            told = (
                f"{where.name} is a target, and nothing is exported from it: name a development environment"
            )
            configure.refuse((), [Violation("installed.environment", told, "ENVIRONMENT_KIND")])
        whole = await self._deployment.describe(request)
        bound = (
            caller.name,
            "component",
            request.artifact,
            request.installed.environment,
            request.installed.solution,
            whole.version,
        )
        start, end, token = self._pages.slice(request, len(whole.components), bound)
        page = whole.components[start:end]
        del whole.components[:]
        whole.components.extend(page)
        whole.next_page_token = token
        return whole

    async def list_connections(
        self,
        request: api.ListConnectionsRequest,
        caller: Caller,
    ) -> api.ListConnectionsResponse:
        """Connections in an environment."""
        names.parse("environment", request.environment, "environment")
        return api.ListConnectionsResponse(
            connections=await self._environments.connections(request.environment)
        )

    async def create_connection(self, request: api.CreateConnectionRequest, caller: Caller) -> Connection:
        """Creates a connection in an embedded environment."""
        names.parse("environment", request.environment, "environment")
        configure.refuse(configure.connection_violations(request.environment, request.connection), ())
        wanted = Connection()
        wanted.CopyFrom(request.connection)
        once = self.once(request, caller)
        if request.request_id and not wanted.name:
            # Of the request: when its answer is lost, the repeated call asks for this very connection again.
            chosen = hashlib.sha256(f"{caller.name}\0{request.request_id}".encode()).hexdigest()[:32]
            wanted.name = names.connection(request.environment, chosen)
        if request.validate_only:
            require_embedded(_environment(self._reads, request.environment, "environment"))
            return wanted
        # The environment is no part of the store's transaction: one at a time, asked once per request.
        async with self._connecting:
            if (seen := once.recall(Connection, self._reads)) is not None:
                return seen
            try:
                made = await self._environments.create_connection(request.environment, wanted)
            except FailedPrecondition:
                found = await self._unrecorded(request.environment, wanted)
                if found is None:
                    raise
                made = found

            def job(tx: Transaction) -> Connection:
                tx.append(_event(Event.KIND_CONNECTION_CREATED, caller, made.name, connection=made))
                once.remember(tx, made)
                return made

            return await self._store.write(job)

    async def _unrecorded(self, environment: str, wanted: Connection) -> Connection | None:
        """The connection that is wanted, if it was made by a call that did not come to record it."""
        if not wanted.name:
            return None
        last = self._reads.last_event_about(wanted.name)
        if last is not None and last.kind == Event.KIND_CONNECTION_CREATED:
            return None
        display_name = wanted.display_name or names.slug(wanted.name)
        for found in await self._environments.connections(environment):
            if (found.name, found.connector_id, found.display_name) == (
                wanted.name,
                wanted.connector_id,
                display_name,
            ):
                return found
        return None

    async def delete_connection(self, request: api.DeleteConnectionRequest, caller: Caller) -> Empty:
        """Deletes a connection of an embedded environment."""
        slug, _ = names.parse("connection", request.name)
        if request.validate_only:
            await self._environments.connection(request.name)
            return Empty()
        once = self.once(request, caller)
        async with self._connecting:
            if (seen := once.recall(Empty, self._reads)) is not None:
                return seen
            try:
                gone = await self._environments.delete_connection(request.name)
            except NotFound:
                # A call that did not come to record it may have deleted what the record still has.
                last = self._reads.last_event_about(request.name)
                if last is None or last.kind != Event.KIND_CONNECTION_CREATED:
                    raise
                _environment(self._reads, names.environment(slug))
                gone = last.connection

            def job(tx: Transaction) -> Empty:
                tx.append(_event(Event.KIND_CONNECTION_DELETED, caller, request.name, connection=gone))
                once.remember(tx, Empty())
                return Empty()

            return await self._store.write(job)

    def get_pipeline(self, request: api.GetPipelineRequest, caller: Caller) -> Pipeline:
        """One pipeline with its stages."""
        return _pipeline(self._reads, request.name)

    def list_pipelines(self, request: api.ListPipelinesRequest, caller: Caller) -> api.ListPipelinesResponse:
        """A page of pipelines."""
        return self._pages.page(
            listing.PIPELINES,
            api.ListPipelinesResponse,
            request,
            caller.name,
            where=self._access.rows(caller, "pipeline"),
        )

    async def create_pipeline(self, request: api.CreatePipelineRequest, caller: Caller) -> Pipeline:
        """Creates a pipeline."""
        wanted = configure.cleaned(request.pipeline)
        wanted.owner = wanted.owner or caller.name
        once = self.once(request, caller)

        def decide(reads: Reads) -> Pipeline:
            now = renewed(reads, caller)
            _require_administrator(now, None, wanted)
            _require_webhooks(now, Pipeline(), wanted)
            configure.refuse(
                [
                    *configure.pipeline_violations(wanted),
                    *_foreign_owner(now, wanted),
                    *configure.approval_violations(wanted, None, functools.partial(people, reads)),
                    *configure.stage_sign_ins(wanted, reads.environment),
                ],
                configure.pipeline_preconditions(self._config, wanted, _usable(reads, now), reads.principal),
            )
            configure.require_new(reads.pipeline(wanted.name))
            _require_free(reads, now, wanted.name)
            return configure.copied(wanted)

        def work(tx: Transaction) -> Pipeline:
            made = tx.put_pipeline(decide(tx))
            tx.append(_event(Event.KIND_PIPELINE_CREATED, caller, made.name, pipeline=made))
            return made

        if request.validate_only:
            return decide(self._reads)
        return await self._store.write(once.job(Pipeline, work))

    async def update_pipeline(self, request: api.UpdatePipelineRequest, caller: Caller) -> Pipeline:
        """Changes a pipeline; runs that were asked for before keep what they were asked with."""
        name = request.pipeline.name
        names.parse("pipeline", name, "pipeline.name")
        once = self.once(request, caller)

        def decide(reads: Reads) -> Pipeline:
            now, stored = renewed(reads, caller), _pipeline(reads, name, "pipeline.name")
            configure.require_etag(request.pipeline.etag, stored)
            fresh, found = configure.merged(stored, request.pipeline, request.update_mask)
            fresh.owner = fresh.owner or stored.owner
            if (fresh.owner, [*fresh.shares]) != (stored.owner, [*stored.shares]):
                _require_owner(reads, now, name)
            _require_gates(now, stored, fresh)
            _require_administrator(now, stored, fresh)
            _require_webhooks(now, stored, fresh)
            found += configure.pipeline_violations(fresh)
            found += configure.approval_violations(fresh, stored, functools.partial(people, reads))
            found += configure.stage_sign_ins(fresh, reads.environment)
            configure.refuse(
                found,
                configure.pipeline_preconditions(
                    self._config, fresh, _usable(reads, now, stored), reads.principal
                ),
            )
            return fresh

        def work(tx: Transaction) -> Pipeline:
            before, fresh = _pipeline(tx, name, "pipeline.name"), decide(tx)
            told = _forget_credentials(tx, configure.administered(before, fresh))
            changed = tx.put_pipeline(fresh)
            event = _event(
                Event.KIND_PIPELINE_UPDATED, caller, changed.name, pipeline=changed, pipeline_before=before
            )
            event.message = told
            tx.append(event)
            return changed

        if request.validate_only:
            return decide(self._reads)
        return await self._store.write(once.job(Pipeline, work))

    async def delete_pipeline(self, request: api.DeletePipelineRequest, caller: Caller) -> Empty:
        """Deletes a pipeline without unfinished runs."""
        name = request.name
        names.parse("pipeline", name)
        once = self.once(request, caller)

        def decide(reads: Reads) -> Pipeline:
            stored = _pipeline(reads, name)
            configure.require_etag(request.etag, stored)
            configure.require_unused(name, runs=reads.unfinished_runs(pipeline=name))
            return stored

        def work(tx: Transaction) -> Empty:
            before = decide(tx)
            # Who takes the name next must not find the freezes of somebody else.
            for freeze in tx.freezes_under(name):
                tx.delete_freeze(freeze.name)
                tx.append(_event(Event.KIND_FREEZE_DELETED, caller, freeze.name, freeze=freeze))
            _forget_credentials(tx, [stage.name for stage in before.stages])
            tx.delete_pipeline(name)
            tx.append(_event(Event.KIND_PIPELINE_DELETED, caller, name, pipeline=before))
            return Empty()

        if request.validate_only:
            decide(self._reads)
            return Empty()
        return await self._store.write(once.job(Empty, work))

    def validate_deployment(
        self, request: api.ValidateDeploymentRequest, caller: Caller
    ) -> AsyncIterator[api.ValidateDeploymentResponse]:
        """Everything that a deployment would find, now, without a run."""
        configure.refuse(
            configure.settings_violations("deployment.settings", request.deployment.settings), ()
        )
        return self._deployment.validate(request.deployment, caller.name)

    async def deploy(self, request: api.DeployRequest, caller: Caller) -> Run:
        """Deploys a solution or an artifact to a stage."""
        if request.HasField("settings"):
            configure.refuse(configure.settings_violations("settings", request.settings), ())
        return await self._deployment.deploy(request, caller.name, self.once(request, caller))

    async def restore_artifact(self, request: api.RestoreArtifactRequest, caller: Caller) -> Run:
        """Imports the unmanaged package of an artifact into a development environment."""
        return await self._deployment.restore(request, caller.name, self.once(request, caller))

    async def cancel_run(self, request: api.CancelRunRequest, caller: Caller) -> Run:
        """Cancels a run: at once until its import is sent, afterwards if its environment still can."""
        return await self._deployment.cancel(request, caller.name, self.once(request, caller))

    async def reschedule_run(self, request: api.RescheduleRunRequest, caller: Caller) -> Run:
        """Gives a run another time, as long as its import was not sent."""
        return await self._deployment.reschedule(request, caller.name, self.once(request, caller))

    async def retry_run(self, request: api.RetryRunRequest, caller: Caller) -> Run:
        """Lets a failed run go on from the step that failed."""
        return await self._deployment.retry(request, caller.name, self.once(request, caller))

    async def resolve_run(self, request: api.ResolveRunRequest, caller: Caller) -> Run:
        """Says what became of an import that the host could not decide about."""
        return await self._deployment.resolve(request, caller.name, self.once(request, caller))

    async def approve(self, request: api.ApproveRequest, caller: Caller) -> Run:
        """Says yes at the gate that a run waits at."""
        return await self._deployment.decide(request, caller.name, self.once(request, caller))

    async def reject(self, request: api.RejectRequest, caller: Caller) -> Run:
        """Says no at the gate that a run waits at."""
        return await self._deployment.decide(request, caller.name, self.once(request, caller))

    def list_gate_notes(self, request: api.ListGateNotesRequest, caller: Caller) -> api.ListGateNotesResponse:
        """What approvers of a run told the administrators."""
        run = _run(self._reads, request.run, "run")
        return api.ListGateNotesResponse(notes=self._reads.gate_notes(run.name))

    def get_run(self, request: api.GetRunRequest, caller: Caller) -> Run:
        """One run."""
        return _run(self._reads, request.name)

    def list_runs(self, request: api.ListRunsRequest, caller: Caller) -> api.ListRunsResponse:
        """A page of runs."""
        return self._pages.page(
            listing.RUNS, api.ListRunsResponse, request, caller.name, where=self._access.rows(caller, "run")
        )

    def watch_run(
        self,
        request: api.WatchRunRequest,
        caller: Caller,
    ) -> AsyncGenerator[api.WatchRunResponse, None]:
        """What happens to a run, from now or from a token on, until it is finished."""
        return self._watch.run(_run(self._reads, request.name), request.resume_token)

    def list_findings(self, request: api.ListFindingsRequest, caller: Caller) -> api.ListFindingsResponse:
        """A page of the findings of a run."""
        run = _run(self._reads, request.run, "run")
        return self._pages.page(listing.FINDINGS, api.ListFindingsResponse, request, caller.name, run.name)

    def list_component_results(
        self, request: api.ListComponentResultsRequest, caller: Caller
    ) -> api.ListComponentResultsResponse:
        """A page of what the import of a run did to each component."""
        run = _run(self._reads, request.run, "run")
        return self._pages.page(
            listing.COMPONENT_RESULTS, api.ListComponentResultsResponse, request, caller.name, run.name
        )

    def list_run_settings(
        self,
        request: api.ListRunSettingsRequest,
        caller: Caller,
    ) -> api.ListRunSettingsResponse:
        """The settings that a run was merged from, without values."""
        run = _run(self._reads, request.run, "run")
        return api.ListRunSettingsResponse(settings=self._reads.run_settings(run.name))

    def get_run_pipeline(self, request: api.GetRunPipelineRequest, caller: Caller) -> Pipeline:
        """The pipeline as it was when the run was asked for."""
        run = _run(self._reads, request.run, "run")
        pipeline = self._reads.run_pipeline(run.name)
        if pipeline is None:
            raise absent(run.name, f"{run.name} is a restore and has no pipeline")
        return pipeline

    def get_queue(self, request: api.GetQueueRequest, caller: Caller) -> api.Queue:
        """The runs that have or wait for an environment."""
        name = _environment(self._reads, request.environment, "environment").name
        holder = self._reads.held_by(name)
        waiting = self._reads.waiting_for(name)

        def shown(run: str) -> str:
            seen = caller.administrator or self._reads.seen("run", run, caller.principals)
            return run if seen else HIDDEN_RUN

        return api.Queue(holder=shown(holder) if holder else "", waiting=map(shown, waiting))

    def once(self, request: Message, caller: Caller) -> Once:
        """What makes a request be done once, where it has an id, and only while its caller may.

        Of its body the store gets a digest that cannot be used to guess what is secret in it.
        """
        body = self._bodies.copy()
        body.update(request.SerializeToString(deterministic=True))
        method = _method(request.DESCRIPTOR)
        request_id = cast("Any", request).request_id
        return Once(
            caller.name, request_id, method, body.digest(), self._access.again(caller, method, request)
        )


@functools.cache
def _method(request: Descriptor) -> str:
    """Full name of the method that takes such a request."""
    service = "Artifacts" if request.file.name.endswith("artifacts.proto") else "PipelineHost"
    return f"/pipelinehost.v1.{service}/{request.name.removesuffix('Request')}"


def _usable(
    reads: Reads, caller: Caller, stored: Pipeline | None = None
) -> Callable[[str], Environment | None]:
    """Looks up the environments that the caller may put into a pipeline, as if there were no others.

    What the pipeline has already stays: somebody was allowed to put it there.
    """
    kept = set() if stored is None else {*stored.development_environments}
    kept |= set() if stored is None else {stage.environment for stage in stored.stages}

    def look(name: str) -> Environment | None:
        if caller.administrator or name in kept or reads.makes(name, caller.principals):
            return reads.environment(name)
        return None

    return look


def _forget_credentials(tx: Transaction, holders: Iterable[str]) -> str:
    """Deletes the credentials of environments or stages, and tells of those that there were."""
    gone = [name for name in holders if tx.secret(credential_key(name)) is not None]
    for name in gone:
        tx.delete_secret(credential_key(name))
    if not gone:
        return ""
    return f"the credential of {', '.join(gone)} was deleted: it was set for another address or identity"


def _require_administrator(caller: Caller, before: Pipeline | None, after: Pipeline) -> None:
    if not caller.administrator and (touched := configure.administered(before, after)):
        raise PermissionDenied(
            ErrorReason.ERROR_REASON_PERMISSION_DENIED,
            f"{', '.join(touched)}: only an administrator may set or take away sign_in, or change the "
            "environment of a stage that has one",
            remedy="Ask an administrator of the host; or leave sign_in and the environment as they are.",
            metadata={"resource": touched[0]},
        )


def _foreign_owner(caller: Caller, wanted: Pipeline) -> list[Violation]:
    if caller.administrator or wanted.owner in caller.principals:
        return []
    return [Violation("pipeline.owner", "only an administrator may create a pipeline for somebody else")]


def _require_owner(reads: Reads, caller: Caller, pipeline: str) -> None:
    if reach(reads, caller, pipeline) < Reach.OWN:
        raise PermissionDenied(
            ErrorReason.ERROR_REASON_PERMISSION_DENIED,
            f"{caller.name} may change {pipeline}, and may not share it or give it away",
            remedy="Ask its owner, or an administrator of the host; or leave owner and shares as they are.",
        )


def _require_gates(caller: Caller, stored: Pipeline, fresh: Pipeline) -> None:
    """Lets nobody but administrators weaken the approvals that an existing stage asks for.

    Whoever changes a pipeline also deploys through it, and nobody approves their own request.
    """
    if not caller.administrator and (weaker := rules.weakened_gates(stored, fresh)):
        raise PermissionDenied(
            ErrorReason.ERROR_REASON_PERMISSION_DENIED,
            f"{caller.name} may change {stored.name}, and may not weaken its approvals: {'; '.join(weaker)}",
            remedy="Ask an administrator of the host; or leave the gates, the targets that they guard and "
            "the order of the stages as they are.",
        )


def _require_webhooks(caller: Caller, stored: Pipeline, fresh: Pipeline) -> None:
    """Lets only administrators say whom the host tells; others leave the webhook of a gate as it is."""

    def told(pipeline: Pipeline) -> dict[tuple[str, Gate.Kind], str]:
        return {(stage.name, gate.kind): gate.webhook for stage in pipeline.stages for gate in stage.gates}

    before = told(stored)
    changed = [at for at, webhook in told(fresh).items() if webhook != before.get(at, "")]
    if changed and not caller.administrator:
        stage, kind = changed[0]
        raise PermissionDenied(
            ErrorReason.ERROR_REASON_PERMISSION_DENIED,
            f"only an administrator may set or change a webhook, as of {rules.gate_name(kind)} of {stage}",
            remedy="Leave the webhooks of gates as they are, or ask an administrator of the host.",
        )


def _environment(reads: Reads, name: str, field: str = "name") -> Environment:
    names.parse("environment", name, field)
    found = reads.environment(name)
    if found is None:
        raise absent(name)
    return found


def _pipeline(reads: Reads, name: str, field: str = "name") -> Pipeline:
    names.parse("pipeline", name, field)
    found = reads.pipeline(name)
    if found is None:
        raise absent(name)
    return found


def _run(reads: Reads, name: str, field: str = "name") -> Run:
    names.parse("run", name, field)
    found = reads.run(name)
    if found is None:
        raise absent(name)
    return found


def _require_free(reads: Reads, caller: Caller, pipeline: str) -> None:
    """Keeps the name of a deleted pipeline for whose it was: its runs, packages and events go with it."""
    if caller.administrator:
        return
    last = reads.last_event_about(pipeline)
    runs, _ = reads.page("run", where=[("pipeline", "=", pipeline)], limit=1)
    owner = last.pipeline.owner if last is not None else ""
    if (last or runs) and owner not in caller.principals:
        raise AlreadyExists(
            ErrorReason.ERROR_REASON_RESOURCE_EXISTS,
            f"{pipeline} was deleted, and its runs are kept under that name",
            remedy="Choose another name, or let an administrator create it for you.",
            metadata={"resource": pipeline},
        )


def _event(kind: Event.Kind, caller: Caller, subject: str, **detail: Any) -> Event:
    return Event(kind=kind, actor=caller.name, subject=subject, **detail)
