"""Freezes: the part of the service PipelineHost about when nothing is imported."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from pipelinehost import names
from pipelinehost.errors import AlreadyExists, Violation
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Event, Freeze
from pipelinehost_server import named, rules
from pipelinehost_server.access import Caller
from pipelinehost_server.api import configure, listing
from pipelinehost_server.store import Once, Reads, Store, Transaction


class FreezeMethods:
    """What the guard calls for the RPCs about freezes."""

    def __init__(
        self,
        store: Store,
        pages: listing.Pages,
        once: Callable[[Message, Caller], Once],
    ) -> None:
        self._store = store
        self._reads = store.reads
        self._pages = pages
        self._once = once

    def get_freeze(self, request: api.GetFreezeRequest, caller: Caller) -> Freeze:
        """One freeze."""
        del caller
        return named.freeze(self._reads, request.name)

    def list_freezes(self, request: api.ListFreezesRequest, caller: Caller) -> api.ListFreezesResponse:
        """A page of freezes: those of the whole host, and those of pipelines that the caller sees."""
        return self._pages.page(listing.FREEZES, api.ListFreezesResponse, request, caller)

    async def create_freeze(self, request: api.CreateFreezeRequest, caller: Caller) -> Freeze:
        """Freezes the whole host, a pipeline or a stage."""
        wanted = configure.cleaned(request.freeze)
        wanted.creator = caller.name
        fields = configure.freeze_violations(wanted)
        once = self._once(request, caller)

        def decide(reads: Reads) -> Freeze:
            others = len(reads.freezes_of(wanted.scope))
            configure.refuse(
                fields, [] if fields else configure.freeze_preconditions(wanted, reads.pipeline, others)
            )
            configure.require_new(reads.freeze(wanted.name))
            _require_free(reads, wanted)
            return configure.copied(wanted)

        def work(tx: Transaction) -> Freeze:
            made = tx.put_freeze(decide(tx))
            tx.append(_event(Event.KIND_FREEZE_CREATED, caller, made))
            return made

        if request.validate_only:
            return decide(self._reads)
        return await self._store.write(once.job(Freeze, work))

    async def update_freeze(self, request: api.UpdateFreezeRequest, caller: Caller) -> Freeze:
        """Changes when a freeze is in force, or why."""
        name = request.freeze.name
        names.parse("freeze", name, "freeze.name")
        once = self._once(request, caller)

        def decide(reads: Reads) -> Freeze:
            stored = named.freeze(reads, name, "freeze.name")
            configure.require_etag(request.freeze.etag, stored)
            fresh, found = configure.merged(stored, request.freeze, request.update_mask)
            fresh.creator = stored.creator
            whole = not request.update_mask.paths
            if request.freeze.scope != stored.scope and (whole or request.freeze.scope):
                told = f"is {stored.scope or 'the whole host'} and cannot be changed: make another freeze"
                found.append(Violation("freeze.scope", told))
            configure.refuse([*found, *configure.freeze_violations(fresh)], ())
            return fresh

        def work(tx: Transaction) -> Freeze:
            before = tx.freeze(name)
            changed = tx.put_freeze(decide(tx))
            event = _event(Event.KIND_FREEZE_UPDATED, caller, changed)
            event.freeze_before.CopyFrom(before or changed)
            tx.append(event)
            return changed

        if request.validate_only:
            return decide(self._reads)
        return await self._store.write(once.job(Freeze, work))

    async def delete_freeze(self, request: api.DeleteFreezeRequest, caller: Caller) -> Empty:
        """Ends a freeze for good."""
        name = request.name
        names.parse("freeze", name)
        once = self._once(request, caller)

        def decide(reads: Reads) -> Freeze:
            stored = named.freeze(reads, name)
            configure.require_etag(request.etag, stored)
            return stored

        def work(tx: Transaction) -> Empty:
            before = decide(tx)
            tx.delete_freeze(name)
            tx.append(_event(Event.KIND_FREEZE_DELETED, caller, before))
            return Empty()

        if request.validate_only:
            decide(self._reads)
            return Empty()
        return await self._store.write(once.job(Empty, work))


def _require_free(reads: Reads, wanted: Freeze) -> None:
    """Keeps the name of a deleted freeze for its pipeline: who sees the next one sees the events of both."""
    last = reads.last_event_about(wanted.name)
    if last is not None and rules.frozen_pipeline(last.freeze) != rules.frozen_pipeline(wanted):
        raise AlreadyExists(
            ErrorReason.ERROR_REASON_RESOURCE_EXISTS,
            f"{wanted.name} was the name of a freeze of something else, whose events are kept",
            remedy="Choose another name.",
            metadata={"resource": wanted.name},
        )


def _event(kind: Event.Kind, caller: Caller, freeze: Freeze) -> Event:
    return Event(kind=kind, actor=caller.name, subject=freeze.name, freeze=freeze)
