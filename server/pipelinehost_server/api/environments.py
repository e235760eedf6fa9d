"""Environments: the part of the service PipelineHost about them, their solutions and their connections."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from pipelinehost import names
from pipelinehost.errors import FailedPrecondition, NotFound, Violation
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import Connection, Environment, EnvironmentHealth, Event
from pipelinehost_dataverse.webapi import DataverseError
from pipelinehost_server import named
from pipelinehost_server.access import Caller
from pipelinehost_server.api import configure, listing
from pipelinehost_server.config import Config
from pipelinehost_server.deployment import Deployment, Environments
from pipelinehost_server.deployment.environments import as_host_error, require_embedded
from pipelinehost_server.deployment.identities import credential_key, forget_credentials
from pipelinehost_server.store import Once, Reads, Store, Transaction


class EnvironmentMethods:
    """What the guard calls for the RPCs about environments and what is in them."""

    def __init__(
        self,
        config: Config,
        store: Store,
        environments: Environments,
        deployment: Deployment,
        pages: listing.Pages,
        once: Callable[[Message, Caller], Once],
    ) -> None:
        self._config = config
        self._store = store
        self._reads = store.reads
        self._environments = environments
        self._deployment = deployment
        self._pages = pages
        self._once = once
        self._connecting = asyncio.Lock()

    def get_environment(self, request: api.GetEnvironmentRequest, caller: Caller) -> Environment:
        """One environment."""
        return named.environment(self._reads, request.name)

    def list_environments(
        self, request: api.ListEnvironmentsRequest, caller: Caller
    ) -> api.ListEnvironmentsResponse:
        """A page of environments."""
        return self._pages.page(listing.ENVIRONMENTS, api.ListEnvironmentsResponse, request, caller)

    async def create_environment(self, request: api.CreateEnvironmentRequest, caller: Caller) -> Environment:
        """Links an environment, or makes an embedded one together with its file."""
        wanted = configure.cleaned(request.environment)
        once = self._once(request, caller)

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
            tx.append(
                Event(
                    kind=Event.KIND_ENVIRONMENT_CREATED,
                    actor=caller.name,
                    subject=made.name,
                    environment=made,
                )
            )
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
        once = self._once(request, caller)

        def decide(reads: Reads) -> Environment:
            stored = named.environment(reads, name, "environment.name")
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
            fresh, before = decide(tx), named.environment(tx, name)
            told = left
            if not configure.same_identity(before, fresh):
                told = " ".join(filter(None, [told, forget_credentials(tx, [name])]))
            if before.url != fresh.url:
                acting = [
                    stage.name
                    for pipeline in map(tx.pipeline, tx.pipelines_using(name))
                    for stage in (pipeline.stages if pipeline is not None else ())
                    if stage.environment == name
                ]
                told = " ".join(filter(None, [told, forget_credentials(tx, acting)]))
            changed = tx.put_environment(fresh)
            event = Event(
                kind=Event.KIND_ENVIRONMENT_UPDATED,
                actor=caller.name,
                subject=changed.name,
                environment=changed,
                environment_before=before,
            )
            event.message = told
            tx.append(event)
            return changed

        if request.validate_only:
            return decide(self._reads)
        left = ""
        if once.recall(Environment, self._reads) is None:
            stored = named.environment(self._reads, name, "environment.name")
            if decide(self._reads).url != stored.url:
                left = await self._environments.release(stored)
        return await self._store.write(once.job(Environment, work))

    async def delete_environment(self, request: api.DeleteEnvironmentRequest, caller: Caller) -> Empty:
        """Deletes the record of an environment that nothing uses."""
        name = request.name
        names.parse("environment", name)
        once = self._once(request, caller)

        def decide(reads: Reads) -> Environment:
            stored = named.environment(reads, name)
            configure.require_etag(request.etag, stored)
            configure.require_unused(
                name, pipelines=reads.pipelines_using(name), runs=reads.unfinished_runs(environment=name)
            )
            return stored

        def work(tx: Transaction) -> Empty:
            before = decide(tx)
            tx.delete_environment(name)
            tx.delete_secret(credential_key(name))
            event = Event(
                kind=Event.KIND_ENVIRONMENT_DELETED, actor=caller.name, subject=name, environment=before
            )
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
        stored = named.environment(self._reads, name)
        wrong = []
        if not request.reason.strip():
            wrong.append(Violation("reason", "is required: it is recorded"))
        if not stored.url:
            wrong.append(Violation("name", f"{name} is embedded: it belongs to this host for good"))
        configure.refuse(wrong, ())
        once = self._once(request, caller)
        # The environment is no part of the store's transaction: one at a time. A repeated call does no harm.
        async with self._connecting:
            if (seen := once.recall(Environment, self._reads)) is not None:
                return seen
            whose = await self._environments.take_over(name)

            def work(tx: Transaction) -> Environment:
                before = named.environment(tx, name)
                taken = tx.record_taken(name, stored.url, "") or before
                event = Event(
                    kind=Event.KIND_ENVIRONMENT_TAKEN_OVER,
                    actor=caller.name,
                    subject=name,
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
        once = self._once(request, caller)

        def work(tx: Transaction) -> Empty:
            holder = named.stage(tx, name) if "/stages/" in name else named.environment(tx, name)
            configure.refuse(configure.credential_violations(holder.sign_in, request), ())
            tx.put_secret(credential_key(name), sealed)
            tx.append(Event(kind=Event.KIND_CREDENTIAL_SET, actor=caller.name, subject=name))
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
        once = self._once(request, caller)
        if request.request_id and not wanted.name:
            # Of the request: when its answer is lost, the repeated call asks for this very connection again.
            chosen = hashlib.sha256(f"{caller.name}\0{request.request_id}".encode()).hexdigest()[:32]
            wanted.name = names.connection(request.environment, chosen)
        if request.validate_only:
            require_embedded(named.environment(self._reads, request.environment, "environment"))
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
                tx.append(
                    Event(
                        kind=Event.KIND_CONNECTION_CREATED,
                        actor=caller.name,
                        subject=made.name,
                        connection=made,
                    )
                )
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
        once = self._once(request, caller)
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
                named.environment(self._reads, names.environment(slug))
                gone = last.connection

            def job(tx: Transaction) -> Empty:
                tx.append(
                    Event(
                        kind=Event.KIND_CONNECTION_DELETED,
                        actor=caller.name,
                        subject=request.name,
                        connection=gone,
                    )
                )
                once.remember(tx, Empty())
                return Empty()

            return await self._store.write(job)
