"""The record as others can prove it: checked, exported with a signed head, shortened with a checkpoint."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from google.protobuf import json_format

from pipelinehost.errors import DataLoss, FailedPrecondition, InvalidArgument, Violation
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Checkpoint, Event, RecordHead
from pipelinehost_server.access import Caller
from pipelinehost_server.api.configure import invalid
from pipelinehost_server.encryption import Encryption, SigningKey
from pipelinehost_server.store import Once, Reads, Snapshot, Store, Transaction, record

_KEY: Final = "host/record"
"""Name of the secret that heads are signed with."""
_PART: Final = 1_000
"""Events that are checked between two looks of the loop; some milliseconds."""
_TOLD: Final = 20_000
_LATEST: Final = 2**63 - 1
"""In nanoseconds since 1970; the store knows no time that is farther off."""
_LINES: Final = 100
"""Events that are exported in one message: with both states of a large pipeline it stays under 4 MiB."""


class Record:
    """What the guard's methods about the whole record do.

    Args:
        store: of the record.
        key: that its heads are signed with.
    """

    def __init__(self, store: Store, key: SigningKey) -> None:
        self._store = store
        self._key = key
        self.key = key.public
        """The public key, hexadecimal."""

    async def verify(
        self, request: api.VerifyEventsRequest
    ) -> AsyncGenerator[api.VerifyEventsResponse, None]:
        """Computes the chain anew, off the loop.

        Raises:
            InvalidArgument: a head was not signed by this host for an export of this store.
        """
        self._require_signed(request.heads, "heads")
        snapshot = self._store.snapshot()
        try:
            check = record.Check(snapshot, self._key, request.heads)
            total = snapshot.last - snapshot.first + 1 if snapshot.last else 0
            told = 0
            while await asyncio.to_thread(check.part, _PART):
                if check.checked >= told + _TOLD:
                    told = check.checked
                    yield api.VerifyEventsResponse(
                        counted=api.VerifyEventsResponse.Counted(checked=told, total=total)
                    )
            yield api.VerifyEventsResponse(
                result=api.VerifyEventsResponse.Result(
                    fault=check.fault,
                    checked=check.checked,
                    head=snapshot.head,
                    checkpoint=snapshot.checkpoint,
                )
            )
        finally:
            snapshot.close()

    async def export(
        self, request: api.ExportEventsRequest, caller: Caller
    ) -> AsyncGenerator[api.ExportEventsResponse, None]:
        """A part of the record as JSON lines, the last one its signed head. That it was given is an event.

        Raises:
            InvalidArgument: the record has no such events.
            DataLoss: they are not what the host wrote, so that it signs nothing.
        """
        snapshot = self._store.snapshot()
        try:
            first, last = request.first_sequence or snapshot.first, request.last_sequence or snapshot.last
            if not snapshot.first <= first <= last <= snapshot.last:
                what = f"the record has events {snapshot.first} to {snapshot.last}"
                raise invalid([Violation("first_sequence", f"is {first} to {last}; {what}")])
            lines = _Lines(snapshot, first, last)
            while part := await asyncio.to_thread(lines.part, _LINES):
                yield api.ExportEventsResponse(lines=part)
            if lines.wrong:
                raise DataLoss(
                    ErrorReason.ERROR_REASON_RECORD_BROKEN,
                    f"the record is broken at event {lines.wrong}: nothing from there on can be signed",
                    remedy="Find out more with: pipelinehost event verify. To export what is before or after "
                    "it, say so with --from and --to.",
                )
            head = RecordHead(
                store=snapshot.identity,
                first_sequence=first,
                previous_sha256=lines.previous.hex(),
                last_sequence=last,
                sha256=lines.hash.hex(),
            )
            head.time.GetCurrentTime()
            record.sign(head, self._key, "export")
        finally:
            snapshot.close()
        event = Event(
            kind=Event.KIND_EVENTS_EXPORTED,
            actor=caller.name,
            subject=record.SUBJECT,
            head=head,
            message=f"events {first} to {last}",
        )
        await self._store.write(lambda tx: tx.append(event))
        yield api.ExportEventsResponse(lines=_line({"head": json_format.MessageToDict(head)}))

    async def prune(self, request: api.PruneEventsRequest, caller: Caller, once: Once) -> Event:
        """Drops the oldest events and leaves a checkpoint, which is the event that is the answer.

        Raises:
            InvalidArgument: the time is missing, or a head was not signed by this host.
            FailedPrecondition: there is nothing to drop, or it was not exported.
        """
        if not request.HasField("before"):
            raise invalid([Violation("before", "is required")])
        before = max(-_LATEST, min(request.before.ToNanoseconds(), _LATEST))
        self._require_signed(request.exports, "exports")

        def decide(reads: Reads) -> Event:
            first, last = reads.first_sequence(), reads.first_event_to_keep(before) - 1
            if last < first:
                raise FailedPrecondition(
                    ErrorReason.ERROR_REASON_EVENTS_NOT_PRUNABLE,
                    f"there is nothing to drop: event {first}, the oldest, is not older than that, or it is "
                    "about an unfinished run",
                    remedy="Choose a later date, or end the runs that are unfinished.",
                )
            covered = _covered(reads, first - 1, request.exports)
            if covered < last and not request.force:
                raise FailedPrecondition(
                    ErrorReason.ERROR_REASON_EVENTS_NOT_PRUNABLE,
                    f"events {covered + 1} to {last} would be dropped, and no given export holds them",
                    remedy="Export them first: "
                    f"pipelinehost event export --from {covered + 1} --to {last} -o FILE",
                )
            checkpoint = Checkpoint(
                sequence=last,
                sha256=(reads.event_hash(last) or b"").hex(),
                before=request.before,
                forced=covered < last,
            )
            return Event(
                kind=Event.KIND_EVENTS_PRUNED,
                actor=caller.name,
                subject=record.SUBJECT,
                checkpoint=checkpoint,
                message=f"events {first} to {last}",
            )

        def work(tx: Transaction) -> Event:
            event = decide(tx)
            event.checkpoint.dropped = tx.drop_events(event.checkpoint.sequence)
            tx.append(event)
            return event

        if request.validate_only:
            return decide(self._store.reads)
        return await self._store.write(once.job(Event, work))

    def _require_signed(self, heads: Sequence[RecordHead], field: str) -> None:
        store = self._store.reads.identity()
        found = [
            Violation(f"{field}[{place}]", "is not signed by this host for an export of its record")
            for place, head in enumerate(heads)
            if head.store != store or not record.is_signed(head, self._key, "export")
        ]
        if found:
            raise InvalidArgument(
                ErrorReason.ERROR_REASON_INVALID_FIELD,
                f"{found[0].subject} {found[0].description}",
                remedy="Take the last line of a file that this very host exported, as it is.",
                violations=found,
            )


async def signing_key(store: Store, encryption: Encryption) -> SigningKey:
    """The key of this record, made once and kept encrypted; from here on each commit signs the head."""
    fresh = encryption.seal(SigningKey.seed(), _KEY)

    def job(tx: Transaction) -> SigningKey:
        sealed = tx.secret(_KEY)
        if sealed is None:
            tx.put_secret(_KEY, fresh)
        key = SigningKey(encryption.open(sealed or fresh, _KEY))
        tx.sign_heads(key, signed=sealed is not None)
        return key

    return await store.write(job)


def _covered(reads: Reads, start: int, exports: Sequence[RecordHead]) -> int:
    """Up to where these exports hold the record, without a gap from ``start`` on."""
    for head in sorted(exports, key=lambda head: head.first_sequence):
        known = reads.event_hash(head.last_sequence)
        if head.first_sequence <= start + 1 and known is not None and known.hex() == head.sha256:
            start = max(start, head.last_sequence)
    return start


class _Lines:
    """Events as lines of JSON, part by part, their chain computed anew on the way."""

    def __init__(self, snapshot: Snapshot, first: int, last: int) -> None:
        self._snapshot = snapshot
        self._sequence, self._last = first - 1, last
        self.previous = self.hash = snapshot.hash_before(first)
        self.wrong = 0
        """Sequence of the first event that is not what the host wrote; 0 where all are."""

    def part(self, limit: int) -> bytes:
        """The next lines; empty at the end, and where the chain is broken."""
        lines = []
        with self._snapshot.lock:
            wanted = min(limit, self._last - self._sequence)
            for row in self._snapshot.rows(self._sequence + 1, wanted) if wanted > 0 else ():
                found = row.event()
                if found is None or row.sequence != self._sequence + 1:
                    break
                raw, event = found
                now = record.chained(self.hash, raw)
                if now != row.hash:
                    break
                self.hash, self._sequence = now, row.sequence
                lines.append(
                    _line(
                        {
                            "event": json_format.MessageToDict(event),
                            "bytes": base64.b64encode(raw).decode(),
                            "sha256": now.hex(),
                        }
                    )
                )
        if wanted > 0 and not lines:
            self.wrong = self._sequence + 1
        return b"".join(lines)


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
