"""Telling others that a gate is open: deliveries that outlive a crash, signed, to addresses that are safe.

A delivery is written with the opening of its gate. It is sent at least once, by one task for each run, until
it is taken or the gate does not wait any more. Headers and signature are those of the Standard Webhooks
specification, https://www.standardwebhooks.com, with its asymmetric scheme.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import logging
import re
import secrets
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import httpx

from pipelinehost.errors import ResourceExhausted, Unavailable
from pipelinehost.v1.resources_pb2 import Event, Gate, GateStatus, Run
from pipelinehost_dataverse.webapi import EnvironmentUnreachable, is_loopback
from pipelinehost_dataverse.webapi.network import NetworkTransport, is_public
from pipelinehost_server import rules
from pipelinehost_server.deployment.journal import HOST
from pipelinehost_server.encryption import SigningKey
from pipelinehost_server.store import Delivery, Reads, Store, Transaction

SECONDS: float = 10.0
"""What a receiver has to answer in."""
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 600.0
"""Seconds between attempts; each pause is twice the one before."""
_STORE_RETRY_SECONDS = 5.0
_AT_ONCE: Final = 4
"""Requests to one receiver at a time."""
_ERROR: Final = 200
"""Most characters of an error."""
# The last label begins with a letter, so that no resolver takes the name for a number.
_NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PRINTABLE = re.compile(r"[!-~]+")
_log = logging.getLogger(__name__)


def address_problem(text: str) -> str:
    """What is wrong with the address of a webhook; empty if nothing is. Nothing is looked up."""
    if not _PRINTABLE.fullmatch(text) or "\\" in text:
        return "is no address: it holds white space, a backslash or characters beyond ASCII"
    if "@" in text or "#" in text:
        return "must have neither a user name nor a fragment; requests are signed, they need no password"
    try:
        url = httpx.URL(text)
        host, port = url.host.lower(), url.port
    except (httpx.InvalidURL, UnicodeError, ValueError):
        return "is no address"
    if not 0 < (1 if port is None else port) < 65536:
        return "has a port that is none: 1 to 65535"
    if url.scheme not in {"http", "https"}:
        return "must begin with https:// (http:// is for this machine only)"
    if is_loopback(host):
        return ""
    if url.scheme != "https":
        return "must begin with https:// (http:// is for this machine only)"
    try:
        public = is_public(str(ipaddress.ip_address(host)))
    except ValueError:
        public = bool(_NAME.fullmatch(host))
    return "" if public else "is not an address on the public network"


def opened(tx: Transaction, run: Run, status: GateStatus) -> None:
    """Plan to tell the webhook of a gate that was opened just now, in place of what was to be told before."""
    tx.drop_delivery(run.name)
    if not status.gate.webhook:
        return
    name = f"msg_{secrets.token_hex(16)}"
    told = {
        "id": name,
        "type": "gate.opened",
        "time": status.open_time.ToJsonString(),
        "host": tx.identity(),
        "run": run.name,
        "pipeline": run.pipeline,
        "stage": run.stage,
        "gate": Gate.Kind.Name(status.kind).removeprefix("KIND_").lower(),
        "bound_sha256": status.bound_sha256,
        "expire_time": status.expire_time.ToJsonString(),
        "required": status.gate.required or 1,
        "approvers": [*status.gate.approvers],
        "artifact": run.artifact,
        "solution": run.solution,
        "version": run.version,
        "previous_version": run.previous_version,
        "requester": run.requester,
        "note": run.note,
        "error_count": run.error_count,
        "warning_count": run.warning_count,
    }
    body = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
    tx.put_delivery(Delivery(run.name, name, status.kind, 0, body))


class Webhooks:
    """Sends what is to be told.

    Args:
        store: of the runs.
        key: that requests are signed with.
        clock: nanoseconds since 1970.
    """

    def __init__(self, store: Store, key: SigningKey, clock: Callable[[], int]) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._network = NetworkTransport(SECONDS)
        self._sending: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = {}
        self._receivers: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()
        self._stopped = False
        self.key = f"whpk_{base64.b64encode(bytes.fromhex(key.public)).decode()}"
        """The public key, as the specification writes it."""

    def start(self) -> None:
        """Send what is left from before, and whatever comes."""
        self._store.listen(self._on_events)
        for run in self._store.reads.deliveries():
            self._begin(run)

    async def stop(self) -> None:
        """Let go of everything; what was not told for certain is told again after the next start."""
        self._stopped = True
        tasks = [task for task, _ in self._sending.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._network.aclose()

    def _on_events(self, events: Sequence[Event]) -> None:
        for event in events:
            if (sending := self._sending.get(event.subject)) is not None:
                sending[1].set()
            elif event.gate.state == GateStatus.STATE_WAITING and event.gate.gate.webhook:
                self._begin(event.subject)

    def _begin(self, run: str) -> None:
        if self._stopped:
            return
        wake = asyncio.Event()
        task = asyncio.create_task(self._send(run, wake), name=f"webhook of {run}")
        self._sending[run] = task, wake

        def ended(_: asyncio.Task[None]) -> None:
            del self._sending[run]
            # A gate may have been opened while the task was ending.
            if not self._stopped and self._store.reads.delivery(run) is not None:
                self._begin(run)

        task.add_done_callback(ended)

    async def _send(self, run: str, wake: asyncio.Event) -> None:
        """Tell what is to be told about a run, one after the other."""
        while (delivery := self._store.reads.delivery(run)) is not None:
            try:
                pause = await self._attempt(delivery)
            except Exception as error:  # noqa: BLE001 - the store may be full; what was told is told again then
                foreseen = isinstance(error, ResourceExhausted | Unavailable)
                _log.error(
                    "what came of the webhook of %s could not be written%s; it is told again in %g s",
                    run,
                    f": {error}" if foreseen else "",
                    _STORE_RETRY_SECONDS,
                    exc_info=None if foreseen else error,
                )
                pause = _STORE_RETRY_SECONDS
            ends = asyncio.get_running_loop().time() + pause
            wake.clear()
            while _waiting_at(self._store.reads, delivery) is not None:
                try:
                    async with asyncio.timeout_at(ends):
                        await wake.wait()
                except TimeoutError:
                    break
                wake.clear()

    async def _attempt(self, delivery: Delivery) -> float:
        """Tell a delivery once, and note what came of it; gives the pause after it, in seconds."""
        status = _waiting_at(self._store.reads, delivery)
        if status is None:
            await self._store.write(lambda tx: _forget(tx, delivery))
            return 0
        url = status.gate.webhook
        async with self._receiver(url):
            if _waiting_at(self._store.reads, delivery) is None:
                return 0  # it ended while others were told
            error = await self._post(url, delivery)
        now = self._clock()
        await self._store.write(lambda tx: _note(tx, delivery, error, now))
        return min(_FIRST_PAUSE * 2.0 ** min(delivery.attempts, 20), _LAST_PAUSE) if error else 0

    def _receiver(self, url: str) -> asyncio.Semaphore:
        return self._receivers.setdefault(httpx.URL(url).netloc.decode(), asyncio.Semaphore(_AT_ONCE))

    async def _post(self, url: str, delivery: Delivery) -> str:
        """Send one request; gives why it was not taken, or nothing. Of the answer only the status is read."""
        at = str(self._clock() // 10**9)
        signature = self._key.sign(f"{delivery.id}.{at}.".encode() + delivery.body)
        headers = {
            "content-type": "application/json",
            "user-agent": "PipelineHost",
            "webhook-id": delivery.id,
            "webhook-timestamp": at,
            "webhook-signature": f"v1a,{base64.b64encode(signature).decode()}",
        }
        if problem := address_problem(url):
            return f"the address {problem}"
        request = httpx.Request("POST", url, headers=headers, content=delivery.body)
        try:
            async with asyncio.timeout(SECONDS):
                response = await self._network.handle_async_request(request)
                # What is left of the answer is dropped with the connection.
                with suppress(Exception):
                    await response.aclose()
        except (TimeoutError, httpx.TimeoutException):
            return f"did not answer within {SECONDS:g} seconds"
        except EnvironmentUnreachable as error:
            return _words(error.message)
        except httpx.ConnectError as error:
            return _words(f"cannot be reached: {error}")
        except Exception as error:  # noqa: BLE001 - whatever a receiver does; its own words are not repeated
            return f"does not speak HTTP, or broke off ({type(error).__name__})"
        status = response.status_code
        if 200 <= status < 300:
            return ""
        return f"answered {status}" + ("; redirects are not followed" if 300 <= status < 400 else "")


def _words(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:_ERROR]


def _waiting_at(reads: Reads, delivery: Delivery) -> GateStatus | None:
    """The gate that a delivery tells of, if it still waits, and still for that."""
    kept = reads.delivery(delivery.run)
    run = reads.run(delivery.run)
    if kept is None or kept.id != delivery.id or run is None or run.state != Run.STATE_AWAITING_GATE:
        return None
    return _status(run, delivery)


def _status(run: Run, delivery: Delivery) -> GateStatus | None:
    return next((s for s in run.gates if s.kind == delivery.kind), None)


def _forget(tx: Transaction, delivery: Delivery) -> None:
    """Drop a delivery that nobody waits for any more."""
    kept = tx.delivery(delivery.run)
    if kept is not None and kept.id == delivery.id and _waiting_at(tx, delivery) is None:
        tx.drop_delivery(delivery.run)


def _note(tx: Transaction, delivery: Delivery, error: str, now: int) -> None:
    """Write down what came of an attempt; the first success and the first failure are events."""
    kept, run = tx.delivery(delivery.run), tx.run(delivery.run)
    status = None if run is None else _status(run, delivery)
    if kept is None or kept.id != delivery.id or run is None or status is None:
        return
    kept = kept._replace(attempts=kept.attempts + 1)
    status.delivery.attempts, status.delivery.error = kept.attempts, error
    if error:
        tx.put_delivery(kept)
        _log.warning("%s: the webhook %s", run.name, error)
    else:
        tx.drop_delivery(run.name)
        status.delivery.deliver_time.CopyFrom(rules.timestamp(now))
    told = f"the webhook {error}" if error else "the webhook was told"
    event = Event(kind=Event.KIND_GATE_NOTIFIED, actor=HOST, subject=run.name, gate=status, message=told)
    tx.save_delivered(run, [event] if not error or kept.attempts == 1 else [])
