"""The host itself, its record and its runs: the part of the service PipelineHost about them."""

from __future__ import annotations

import functools
import hmac
from collections.abc import AsyncGenerator, AsyncIterator
from importlib.metadata import version
from typing import Any, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import Event, Pipeline, Principal, Run
from pipelinehost_server import named
from pipelinehost_server.access import HIDDEN_RUN, Access, Caller
from pipelinehost_server.api import configure, listing
from pipelinehost_server.api.record import Record
from pipelinehost_server.api.watch import Watch
from pipelinehost_server.config import Config
from pipelinehost_server.deployment import Deployment
from pipelinehost_server.store import Once, Store

VERSION = version("pipelinehost")


class HostMethods:
    """What the guard calls for the RPCs about the host, its record and runs; ``rpc GetRun`` is ``get_run``.

    Methods that answer from the store are plain functions: they run inline on the loop, in microseconds. What
    they raise becomes the status of the call.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
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
        self._deployment = deployment
        self._pages = pages
        self._watch = watch
        self._record = record
        # For each request a copy: hmac.digest lets the writer's thread have its turn, whatever that costs.
        self._bodies = hmac.new(secret, digestmod="sha256")
        self._access = access
        self._webhook_key = webhook_key

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
        return self._pages.page(listing.EVENTS, api.ListEventsResponse, request, caller)

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
        run = named.run(self._reads, request.run, "run")
        return api.ListGateNotesResponse(notes=self._reads.gate_notes(run.name))

    def get_run(self, request: api.GetRunRequest, caller: Caller) -> Run:
        """One run."""
        return named.run(self._reads, request.name)

    def list_runs(self, request: api.ListRunsRequest, caller: Caller) -> api.ListRunsResponse:
        """A page of runs."""
        return self._pages.page(listing.RUNS, api.ListRunsResponse, request, caller)

    def watch_run(
        self,
        request: api.WatchRunRequest,
        caller: Caller,
    ) -> AsyncGenerator[api.WatchRunResponse, None]:
        """What happens to a run, from now or from a token on, until it is finished."""
        return self._watch.run(named.run(self._reads, request.name), request.resume_token)

    def list_findings(self, request: api.ListFindingsRequest, caller: Caller) -> api.ListFindingsResponse:
        """A page of the findings of a run."""
        run = named.run(self._reads, request.run, "run")
        return self._pages.page(listing.FINDINGS, api.ListFindingsResponse, request, caller, run.name)

    def list_component_results(
        self, request: api.ListComponentResultsRequest, caller: Caller
    ) -> api.ListComponentResultsResponse:
        """A page of what the import of a run did to each component."""
        run = named.run(self._reads, request.run, "run")
        return self._pages.page(
            listing.COMPONENT_RESULTS, api.ListComponentResultsResponse, request, caller, run.name
        )

    def list_run_settings(
        self,
        request: api.ListRunSettingsRequest,
        caller: Caller,
    ) -> api.ListRunSettingsResponse:
        """The settings that a run was merged from, without values."""
        run = named.run(self._reads, request.run, "run")
        return api.ListRunSettingsResponse(settings=self._reads.run_settings(run.name))

    def get_run_pipeline(self, request: api.GetRunPipelineRequest, caller: Caller) -> Pipeline:
        """The pipeline as it was when the run was asked for."""
        run = named.run(self._reads, request.run, "run")
        pipeline = self._reads.run_pipeline(run.name)
        if pipeline is None:
            raise named.absent(run.name, f"{run.name} is a restore and has no pipeline")
        return pipeline

    def get_queue(self, request: api.GetQueueRequest, caller: Caller) -> api.Queue:
        """The runs that have or wait for an environment."""
        name = named.environment(self._reads, request.environment, "environment").name
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
