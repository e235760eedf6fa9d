"""Pipelines: the part of the service PipelineHost about what leads where, and who may change it."""

from __future__ import annotations

import functools
from collections.abc import Callable

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from pipelinehost import names
from pipelinehost.errors import AlreadyExists, PermissionDenied, Violation
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Environment, Event, Gate, Pipeline
from pipelinehost_server import named, rules
from pipelinehost_server.access import Caller, people, reach, renewed
from pipelinehost_server.api import configure, listing
from pipelinehost_server.config import Config
from pipelinehost_server.deployment.identities import forget_credentials
from pipelinehost_server.store import Once, Reach, Reads, Store, Transaction


class PipelineMethods:
    """What the guard calls for the RPCs about pipelines."""

    def __init__(
        self,
        config: Config,
        store: Store,
        pages: listing.Pages,
        once: Callable[[Message, Caller], Once],
    ) -> None:
        self._config = config
        self._store = store
        self._reads = store.reads
        self._pages = pages
        self._once = once

    def get_pipeline(self, request: api.GetPipelineRequest, caller: Caller) -> Pipeline:
        """One pipeline with its stages."""
        return named.pipeline(self._reads, request.name)

    def list_pipelines(self, request: api.ListPipelinesRequest, caller: Caller) -> api.ListPipelinesResponse:
        """A page of pipelines."""
        return self._pages.page(listing.PIPELINES, api.ListPipelinesResponse, request, caller)

    async def create_pipeline(self, request: api.CreatePipelineRequest, caller: Caller) -> Pipeline:
        """Creates a pipeline."""
        wanted = configure.cleaned(request.pipeline)
        wanted.owner = wanted.owner or caller.name
        once = self._once(request, caller)

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
            tx.append(
                Event(kind=Event.KIND_PIPELINE_CREATED, actor=caller.name, subject=made.name, pipeline=made)
            )
            return made

        if request.validate_only:
            return decide(self._reads)
        return await self._store.write(once.job(Pipeline, work))

    async def update_pipeline(self, request: api.UpdatePipelineRequest, caller: Caller) -> Pipeline:
        """Changes a pipeline; runs that were asked for before keep what they were asked with."""
        name = request.pipeline.name
        names.parse("pipeline", name, "pipeline.name")
        once = self._once(request, caller)

        def decide(reads: Reads) -> Pipeline:
            now, stored = renewed(reads, caller), named.pipeline(reads, name, "pipeline.name")
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
            before, fresh = named.pipeline(tx, name, "pipeline.name"), decide(tx)
            told = forget_credentials(tx, configure.administered(before, fresh))
            changed = tx.put_pipeline(fresh)
            event = Event(
                kind=Event.KIND_PIPELINE_UPDATED,
                actor=caller.name,
                subject=changed.name,
                pipeline=changed,
                pipeline_before=before,
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
        once = self._once(request, caller)

        def decide(reads: Reads) -> Pipeline:
            stored = named.pipeline(reads, name)
            configure.require_etag(request.etag, stored)
            configure.require_unused(name, runs=reads.unfinished_runs(pipeline=name))
            return stored

        def work(tx: Transaction) -> Empty:
            before = decide(tx)
            # Who takes the name next must not find the freezes of somebody else.
            for freeze in tx.freezes_under(name):
                tx.delete_freeze(freeze.name)
                tx.append(
                    Event(
                        kind=Event.KIND_FREEZE_DELETED, actor=caller.name, subject=freeze.name, freeze=freeze
                    )
                )
            forget_credentials(tx, [stage.name for stage in before.stages])
            tx.delete_pipeline(name)
            tx.append(
                Event(kind=Event.KIND_PIPELINE_DELETED, actor=caller.name, subject=name, pipeline=before)
            )
            return Empty()

        if request.validate_only:
            decide(self._reads)
            return Empty()
        return await self._store.write(once.job(Empty, work))


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
