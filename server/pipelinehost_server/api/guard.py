"""The guard: what every call passes before its handler sees it, and what every failure becomes.

It wraps handlers rather than intercepting calls, so that tests without a network pass through it too. Ours
are plain methods, named after their RPC in snake case, that take a request and a caller and know nothing of
gRPC:

- ``def get_run(request, caller) -> Run`` answers from the store, inline;
- ``async def deploy(request, caller) -> Run`` has a time limit;
- ``def watch_run(request, caller) -> AsyncIterator[WatchRunResponse]`` streams;
- ``async def upload_artifact(requests, caller) -> Artifact`` takes a stream.

Of a context the guard uses ``invocation_metadata``, ``peer``, ``write`` and ``abort``.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import inspect
import logging
import math
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast
from urllib.parse import unquote

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_status import rpc_status

from pipelinehost.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    PipelineHostError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Violation,
)
from pipelinehost.status import to_status
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost_server.access import POLICY, Access, Caller, Permission, unknown
from pipelinehost_server.api.configure import invalid
from pipelinehost_server.store import PEER

Rpc: TypeAlias = Callable[[Any, Any], Awaitable[Any]]
"""A guarded method as grpc.aio calls it: ``await rpc(request, context)``; streams write to the context."""

REQUEST_BYTES: Final = 1024 * 1024
"""Largest request that is not a chunk of an upload."""
REPEATED: Final = 1_000
"""Most entries of one repeated field or map."""
TEXT: Final[Mapping[str, int]] = {
    "description": 4_000,
    "note": 4_000,
    "reason": 4_000,
    "filter": 4_096,
    "page_token": 4_000,
    "url": 2_000,
    "connectivity_url": 2_000,
    "webhook": 2_000,
    "client_secret": 1_000,
    "certificate": 50_000,
    "value": 100_000,
}
"""Longest text of a field by its name, in characters; every other field holds at most 200."""
_NAME: Final = 200
_LINES: Final = frozenset({"description", "note", "reason", "value", "filter", "certificate"})
"""Fields that may hold tabs and several lines."""

_UNARY_SECONDS: Final = 30.0
_STREAM_SECONDS: Final = 3_600.0
SECONDS: Final[Mapping[str, float]] = {
    "CreateEnvironment": 120,
    "CheckEnvironment": 120,
    "TakeOverEnvironment": 120,
    "ListSolutions": 120,
    "ListConnections": 120,
    "CreateConnection": 120,
    "DeleteConnection": 120,
    "Deploy": 120,
    "DescribeSolution": 600,
    "UploadArtifact": _STREAM_SECONDS,
}
"""Time limit of an RPC that talks to environments or takes a stream, whatever deadline its caller gave. Other
unary calls have 30 seconds, streams to the caller an hour."""
_UNREAD_SECONDS: Final = 60.0
"""How long one message of a stream may wait for its reader."""
_SWEEP_SECONDS: Final = 5.0
_RECHECK_SECONDS: Final = 0.1
"""Within it rights may change several times, and thousands of streams are looked at once."""
_FAREWELL_SECONDS: Final = 0.1
_ENDLESS: Final = frozenset({"WatchRun", "WatchEvents"})
"""Streams that a drain ends at once, because their callers can take them up again."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Marks that hide in a name or turn it around: two would look alike. Other scripts and emoji need the joiners.
_HIDDEN = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
    "|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
)
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LOG = logging.getLogger(__name__)
_GUESSES: Final = 20
_GUESS_SECONDS: Final = 60.0
_GUESSERS: Final = 10_000
"""Most addresses that are remembered for it."""


class PolicyIncomplete(Exception):
    """An RPC has no entry in the policy; a host that would serve it does not start."""


@dataclass(frozen=True, slots=True)
class _Malformed:
    """Stands for a request that is too large or no message, so that the guard refuses it like any other."""

    size: int = 0
    """In bytes, where that is what is wrong."""


@dataclass(slots=True, eq=False)
class _Stream:
    task: asyncio.Task[Any]
    until: float
    endless: bool
    foreign: bool
    recheck: Callable[[], object]
    """Raises once the caller may not have the stream any more."""
    expires: float
    """When what the caller has signed in with expires, in seconds since 1970."""
    writing_since: float = 0.0
    begun: bool = False
    """Whether the first response is out."""
    why: PipelineHostError | None = None

    async def send(self, context: Any, response: Any) -> None:
        """Writes a response.

        Raises:
            PipelineHostError: the stream was ended while its first response was on its way.
        """
        self.writing_since = asyncio.get_running_loop().time()
        await context.write(response)
        self.writing_since, self.begun = 0.0, True
        if self.why is not None:
            raise self.why

    @property
    def beginning(self) -> bool:
        """Whether the first response is on its way.

        The call's initial metadata is on its way with it, and grpc counts that as sent only when the write
        has ended. A status before that would take it along once more, which is refused, and the caller would
        wait for an end in vain.
        """
        return not self.begun and self.writing_since > 0

    def end(self, why: PipelineHostError) -> None:
        """Ends the stream, as soon as a status can be sent."""
        if self.why is None:
            self.why = why
            if not self.beginning:
                self.task.cancel()

    def drop(self, why: PipelineHostError) -> None:
        """Ends the stream though a response is on its way; the call breaks off where it is the first."""
        self.why = self.why or why
        self.task.cancel()


class _Watched:
    """A context of grpc's that is written to by others, where the guard has to know when."""

    def __init__(self, context: Any, stream: _Stream) -> None:
        self._context = context
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, response: Any) -> None:
        await self._stream.send(self._context, response)


class Guesses:
    """How many calls came lately from each address with what nobody may sign in with.

    After 20 within a minute the address is told to wait until that minute is over. Who has a valid token is
    not asked: nobody can lock out others who come from the same address, as through a proxy.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` tells seconds that only grow."""
        self._clock = clock
        self._failed: dict[str, tuple[float, int]] = {}

    def wrong(self, address: str) -> float:
        """Counts one more; how many seconds the address has to wait, 0 where it need not."""
        now = self._clock()
        ends, count = self._failed.get(address, (0.0, 0))
        if now >= ends:
            self._failed.pop(address, None)  # so that those in the front end first
            ends, count = now + _GUESS_SECONDS, 0
            if len(self._failed) >= _GUESSERS:
                del self._failed[next(iter(self._failed))]
        self._failed[address] = ends, count + 1
        return ends - now if count >= _GUESSES else 0.0


class Guard:
    """Identity, permission, shape, time limit and errors, the same for every method of every service."""

    def __init__(self, access: Access, *, certificates: bool = False) -> None:
        """``certificates`` lets a client's certificate stand for a token."""
        self._access = access
        self._guesses = Guesses(time.monotonic)
        self._certificates = certificates
        self._streams: set[_Stream] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._rechecking: asyncio.TimerHandle | None = None
        self._draining = False
        access.listen(self._rights_changed)

    def protect(self, service: ServiceDescriptor, *handlers: object) -> Mapping[str, Rpc]:
        """The methods of one of our services, by RPC name, each behind the guard.

        Raises:
            PolicyIncomplete: a method has no policy entry.
            AttributeError: none of the ``handlers`` has a method.
        """
        _require_policy(service)

        def method(name: str) -> Callable[[Any, Caller], Any]:
            having = next((h for h in handlers if hasattr(h, name)), handlers[-1])
            found: Callable[[Any, Caller], Any] = getattr(having, name)
            return found

        return {m.name: self._own(m, method(_snake(m.name))) for m in service.methods}

    def protect_foreign(self, service: ServiceDescriptor, servicer: object) -> Mapping[str, Rpc]:
        """The same for somebody else's servicer, whose methods take a context: identity and permission only.

        Raises:
            PolicyIncomplete: a method has no policy entry.
        """
        _require_policy(service)
        return {m.name: self._foreign(m, getattr(servicer, m.name)) for m in service.methods}

    async def drain(self) -> None:
        """Ends the streams that their callers can take up again, and refuses new ones.

        Streams of other services come a moment later: who watches the host's health hears of the end first.
        """
        self._draining = True
        for timer in (self._sweeping, self._rechecking):
            if timer is not None:
                timer.cancel()
        for foreign in (False, True):
            ending = [s for s in self._streams if s.endless and s.foreign is foreign]
            if ending and foreign:
                await asyncio.sleep(_FAREWELL_SECONDS)
            for stream in ending:
                stream.end(_stopping())

    def _identify(self, method: str, context: Any) -> Caller:  # a grpc.aio context, or the bridge's
        sent = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
        try:
            if len(sent) == 1:
                scheme, _, token = sent[0].partition(" ")
                if scheme.lower() == "bearer" and token:
                    return self._access.identify(token)
            elif not sent and self._certificates:
                for pem in context.auth_context().get("x509_pem_cert", ()):
                    return self._access.identify_certificate(pem)
        except Unauthenticated as error:
            address = _peer(context).rpartition(":")[0]
            if seconds := self._guesses.wrong(address):
                raise _too_many_guesses(address, seconds) from error
            raise
        raise Unauthenticated(
            ErrorReason.ERROR_REASON_TOKEN_MISSING,
            f"{method.rpartition('/')[2]} needs a bearer token",
            remedy="Give the client a token of this host; on the host's own machine it finds one by itself.",
        )

    def _own(self, method: MethodDescriptor, handler: Callable[[Any, Caller], Any]) -> Rpc:
        path = _path(method)
        identify, check, require = self._identify, self._access.check, self._access.require
        if method.client_streaming:
            inspected = _shape(method.input_type)
            limit = SECONDS.get(method.name, _STREAM_SECONDS)

            async def upload(requests: AsyncIterator[Any], context: Any) -> Any:
                scope = asyncio.timeout(limit)
                try:
                    caller = identify(path, context)
                    check(caller, path)
                    PEER.set(_peer(context))
                    async with scope:
                        return await handler(_inspected(requests, inspected), caller)
                except grpc.aio.BaseError:  # the connection broke
                    raise
                except Exception as error:  # noqa: BLE001 - the guard is where every failure becomes a status
                    failure = _failure(path, error, scope, limit)
                return await _refuse(context, failure)

            return upload
        inspected = _shape(method.input_type)
        if method.server_streaming:
            return self._streaming(method, handler, inspected)
        if not inspect.iscoroutinefunction(handler):

            async def read(request: Any, context: Any) -> Any:
                try:
                    caller = identify(path, context)
                    check(caller, path)
                    inspected(request)
                    require(caller, path, request)
                    return handler(request, caller)
                except Exception as error:  # noqa: BLE001 - as above
                    failure = _failure(path, error)
                return await _refuse(context, failure)

            return read
        limit = SECONDS.get(method.name, _UNARY_SECONDS)

        async def call(request: Any, context: Any) -> Any:
            scope = asyncio.timeout(limit)
            try:
                caller = identify(path, context)
                check(caller, path)
                inspected(request)
                require(caller, path, request)
                PEER.set(_peer(context))
                async with scope:
                    return await handler(request, caller)
            except Exception as error:  # noqa: BLE001 - as above
                failure = _failure(path, error, scope, limit)
            return await _refuse(context, failure)

        return call

    def _streaming(
        self,
        method: MethodDescriptor,
        handler: Callable[[Any, Caller], AsyncGenerator[Any, None]],
        inspected: Callable[[Any], None],
    ) -> Rpc:
        path, endless = _path(method), method.name in _ENDLESS
        identify, access = self._identify, self._access

        async def stream(request: Any, context: Any) -> Any:
            opened: _Stream | None = None
            try:
                caller = identify(path, context)
                access.check(caller, path)
                inspected(request)
                access.require(caller, path, request)
                PEER.set(_peer(context))

                def recheck() -> None:
                    fresh = access.still(caller)
                    access.check(fresh, path)
                    access.require(fresh, path, request)

                opened = self._open(recheck, endless=endless, expires=caller.until)
                async with aclosing(handler(request, caller)) as responses:
                    async for response in responses:
                        await opened.send(context, response)
                    return None
            except asyncio.CancelledError:
                if opened is None or opened.why is None or opened.beginning:
                    raise
                opened.task.uncancel()
                failure = opened.why
            except grpc.aio.BaseError:  # the connection broke
                raise
            except Exception as error:  # noqa: BLE001 - as above
                failure = _failure(path, error)
            finally:
                if opened is not None:
                    self._streams.discard(opened)
            return await _refuse(context, failure)

        return stream

    def _foreign(self, method: MethodDescriptor, handler: Callable[[Any, Any], Any]) -> Rpc:
        path = _path(method)
        public = POLICY[path].permission is Permission.PUBLIC
        streams = method.server_streaming
        generator = inspect.isasyncgenfunction(handler)

        async def call(request: Any, context: Any) -> Any:
            opened: _Stream | None = None
            try:
                recheck: Callable[[], object] = _nothing
                expires = float("inf")
                if not public:
                    caller = self._identify(path, context)
                    self._access.check(caller, path)
                    recheck = functools.partial(self._access.still, caller)
                    expires = caller.until
                if isinstance(request, _Malformed):
                    raise _malformed(request)
                if streams:
                    opened = self._open(recheck, endless=True, foreign=True, expires=expires)
                    context = _Watched(context, opened)
                if not generator:
                    return await handler(request, context)
                async with aclosing(handler(request, context)) as responses:
                    async for response in responses:
                        await context.write(response)
                return None
            except asyncio.CancelledError:
                if opened is None or opened.why is None or opened.beginning:
                    raise
                opened.task.uncancel()
                failure = opened.why
            except grpc.aio.BaseError:  # the servicer has ended the call, or the connection broke
                raise
            except Exception as error:  # noqa: BLE001 - as above
                failure = _failure(path, error)
            finally:
                if opened is not None:
                    self._streams.discard(opened)
            return await _refuse(context, failure)

        return call

    def _open(
        self, recheck: Callable[[], object], *, endless: bool, expires: float, foreign: bool = False
    ) -> _Stream:
        if self._draining:
            raise _stopping()
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs is in a task
        stream = _Stream(task, loop.time() + _STREAM_SECONDS, endless, foreign, recheck, expires)
        self._streams.add(stream)
        if self._sweeping is None:
            self._sweeping = loop.call_later(_SWEEP_SECONDS, self._sweep, loop)
        return stream

    def _rights_changed(self) -> None:
        if self._rechecking is None and self._streams and not self._draining:
            self._rechecking = asyncio.get_running_loop().call_later(_RECHECK_SECONDS, self._recheck)

    def _recheck(self) -> None:
        """Ends the streams of those who may not have them any more."""
        self._rechecking = None
        for stream in self._streams:
            try:
                stream.recheck()
            except Exception as error:  # noqa: BLE001 - where it cannot be told, nobody goes on
                stream.end(_failure("a look at who may have a stream", error))

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends streams that are over their time or their caller's, or whose reader has stopped reading."""
        now, wall = loop.time(), time.time()
        for stream in self._streams:
            if stream.writing_since and now - stream.writing_since > _UNREAD_SECONDS:
                stream.drop(_unread())
            elif now > stream.until:
                stream.end(_renew() if stream.endless else _overdue(_STREAM_SECONDS))
            elif wall > stream.expires:
                stream.end(unknown())
        self._sweeping = loop.call_later(_SWEEP_SECONDS, self._sweep, loop) if self._streams else None


def generic_handler(service: ServiceDescriptor, methods: Mapping[str, Rpc]) -> grpc.GenericRpcHandler:
    """What ``grpc.aio.Server.add_generic_rpc_handlers`` takes.

    Requests are parsed here rather than by gRPC, which answers a malformed one with UNKNOWN and a traceback
    in the log.
    """
    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    handlers = {}
    for m in service.methods:
        kind = kinds[m.client_streaming, m.server_streaming]
        answer = GetMessageClass(m.output_type)
        handlers[m.name] = kind(
            methods[m.name],
            request_deserializer=_parser(m.input_type),
            response_serializer=answer.SerializeToString,
        )
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _parser(descriptor: Descriptor) -> Callable[[bytes], Message | _Malformed]:
    parse = GetMessageClass(descriptor).FromString

    def parsed(raw: bytes) -> Message | _Malformed:
        if len(raw) > REQUEST_BYTES:
            return _Malformed(len(raw))
        try:
            return parse(raw)
        except DecodeError:
            return _Malformed()

    return parsed


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _peer(context: Any) -> str:
    """From where a call comes, for the record: the connection's address, whatever the metadata claims."""
    return _address(str(context.peer() or ""))


@functools.lru_cache(maxsize=4096)
def _address(peer: str) -> str:
    peer = unquote(peer)
    scheme, _, address = peer.partition(":")
    return _CONTROL.sub("", address if scheme in {"ipv4", "ipv6"} else peer)[:_NAME]


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _require_policy(service: ServiceDescriptor) -> None:
    missing = [path for m in service.methods if (path := _path(m)) not in POLICY]
    if missing:
        raise PolicyIncomplete(f"no policy entry for {', '.join(missing)}: add one to access.POLICY")


def _nothing() -> None:
    """A public stream has nobody to lose a right."""


async def _refuse(context: Any, error: PipelineHostError) -> Any:
    status = rpc_status.to_status(to_status(error))
    trailers = tuple(status.trailing_metadata or ())
    if error.reason == ErrorReason.ERROR_REASON_ENVIRONMENT_UNREACHABLE:
        # It was asked several times, while the caller waited. gRPC would ask for all that again:
        # https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
        trailers += (("grpc-retry-pushback-ms", "-1"),)
    return await context.abort(status.code, status.details, trailers)


def _failure(
    path: str, error: Exception, scope: asyncio.Timeout | None = None, limit: float = 0
) -> PipelineHostError:
    """The error that the caller gets for one that a handler raised."""
    if isinstance(error, PipelineHostError):
        return error
    if isinstance(error, TimeoutError) and scope is not None and scope.expired():
        return _overdue(limit)
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        _LOG.error("%s: the disk of the data folder is full", path)
        return disk_full()
    incident = secrets.token_hex(6)
    _LOG.error("incident %s in %s", incident, path, exc_info=error)
    return Internal(
        ErrorReason.ERROR_REASON_INTERNAL,
        f"the host failed (incident {incident})",
        remedy="This is a defect of the host: give the incident to its administrator, whose log tells more.",
        metadata={"incident": incident},
    )


def disk_full() -> ResourceExhausted:
    """The error for a full disk."""
    return ResourceExhausted(
        ErrorReason.ERROR_REASON_LIMIT_EXCEEDED,
        "the disk of the host's data folder is full; nothing was changed",
        remedy="Free space on the host's disk, then repeat the call.",
        metadata={"limit": "disk"},
    )


def _too_many_guesses(address: str, seconds: float) -> ResourceExhausted:
    return ResourceExhausted(
        ErrorReason.ERROR_REASON_LIMIT_EXCEEDED,
        f"more than {_GUESSES} calls from {address} came within a minute with what nobody may sign in with",
        remedy=f"Use a valid token: calls with it are answered. Or wait {math.ceil(seconds)} seconds.",
        metadata={"limit": "failed sign-ins"},
    )


def _overdue(limit: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        ErrorReason.ERROR_REASON_TIME_LIMIT,
        f"the host gave up after {limit:g} seconds; what was asked for may have been done",
        remedy="See whether it was done before you repeat it; with the same request_id it is not done twice.",
        metadata={"limit": f"{limit:g} seconds"},
    )


def _stopping() -> Unavailable:
    return Unavailable(
        ErrorReason.ERROR_REASON_HOST_UNAVAILABLE,
        "the host is stopping",
        remedy="Repeat the call, or watch again with the resume token, when it is back.",
    )


def _renew() -> Unavailable:
    return Unavailable(
        ErrorReason.ERROR_REASON_HOST_UNAVAILABLE,
        f"the stream was open for {_STREAM_SECONDS:g} seconds, the longest that the host allows",
        remedy="Watch again with the resume token.",
    )


def _unread() -> ResourceExhausted:
    return ResourceExhausted(
        ErrorReason.ERROR_REASON_LIMIT_EXCEEDED,
        f"a message of the stream was not read for {_UNREAD_SECONDS:g} seconds",
        remedy="Read faster; watch again with the resume token.",
        metadata={"limit": "unread messages"},
    )


def _malformed(request: _Malformed) -> InvalidArgument:
    if request.size:
        return InvalidArgument(
            ErrorReason.ERROR_REASON_INVALID_FIELD,
            f"the request has {request.size:,} bytes; the host takes {REQUEST_BYTES:,}",
            remedy="Shorten its texts and settings.",
        )
    return InvalidArgument(
        ErrorReason.ERROR_REASON_INVALID_FIELD,
        "the request is not a message of the declared type, or one of its texts is not UTF-8",
        remedy="Build the request with stubs of this API.",
    )


_Look: TypeAlias = Callable[[Any, str, list[Violation]], None]


def _shape(descriptor: Descriptor) -> Callable[[Any], None]:
    """What checks a request of this type: lengths, characters, enum values, times; all violations at once."""
    look = _looks(descriptor)

    def inspected(request: Any) -> None:
        if isinstance(request, _Malformed):
            raise _malformed(request)
        found: list[Violation] = []
        look(request, "", found)
        if found:
            raise invalid(found)

    return inspected


def _looks(descriptor: Descriptor) -> _Look:
    steps = [step for f in descriptor.fields if (step := _field(f)) is not None]

    def look(message: Any, path: str, found: list[Violation]) -> None:
        for step in steps:
            step(message, path, found)

    return look


def _field(f: FieldDescriptor) -> _Look | None:
    name = f.name
    value = _value(f)
    if value is None:
        return None
    if f.is_repeated:
        entry = f.message_type
        if entry is not None and entry.GetOptions().map_entry:
            key, held = (_value(entry.fields_by_name[part]) for part in ("key", "value"))

            def mapped(message: Any, path: str, found: list[Violation]) -> None:
                entries = getattr(message, name)
                if not entries:
                    return
                if _too_many(entries, path + name, found):
                    return
                for k, v in entries.items():
                    where = f'{path}{name}["{k[:_NAME]}"]'
                    if key is not None:
                        key(k, where, found)
                    if held is not None:
                        held(v, where, found)

            return mapped

        def repeated(message: Any, path: str, found: list[Violation]) -> None:
            entries = getattr(message, name)
            if not entries or _too_many(entries, path + name, found):
                return
            for i, v in enumerate(entries):
                value(v, f"{path}{name}[{i}]", found)

        return repeated
    if f.message_type is not None:

        def nested(message: Any, path: str, found: list[Violation]) -> None:
            if message.HasField(name):
                value(getattr(message, name), path + name, found)

        return nested

    def single(message: Any, path: str, found: list[Violation]) -> None:
        if v := getattr(message, name):
            value(v, path + name, found)

    return single


def _value(f: FieldDescriptor) -> _Look | None:
    """What checks one value of a field; ``path`` is then the value's own."""
    if f.message_type is not None:
        if f.message_type.full_name == "google.protobuf.Timestamp":
            return cast("_Look", _time)
        look = _looks(f.message_type)
        return lambda message, path, found: look(message, path + ".", found)
    if f.enum_type is not None:
        numbers, kind = frozenset(f.enum_type.values_by_number), f.enum_type.name

        def known(number: int, path: str, found: list[Violation]) -> None:
            if number not in numbers:
                found.append(Violation(path, f"{number} is no {kind} that this host knows"))

        return cast("_Look", known)
    if f.type != FieldDescriptor.TYPE_STRING:
        return None
    longest = TEXT.get(f.name, _NAME)
    control = _CONTROL_BUT_LINES if f.name in _LINES else _CONTROL

    def text(value: str, path: str, found: list[Violation]) -> None:
        if len(value) > longest:
            found.append(Violation(path, f"has {len(value):,} characters; at most {longest:,} are allowed"))
        elif not value.isprintable():
            if control.search(value):
                found.append(Violation(path, "holds control characters; remove them"))
            elif f.name == "display_name" and (mark := _HIDDEN.search(value)):
                found.append(
                    Violation(path, f"holds U+{ord(mark[0]):04X}, which is not seen in a name; remove it")
                )

    return cast("_Look", text)


def _time(value: Timestamp, path: str, found: list[Violation]) -> None:
    try:
        value.ToNanoseconds()
    except ValueError:
        told = "is no time: its seconds go from the year 1 to 9999, its nanos from 0 to 999,999,999"
        found.append(Violation(path, told))


def _too_many(entries: Any, path: str, found: list[Violation]) -> bool:
    if len(entries) <= REPEATED:
        return False
    found.append(Violation(path, f"has {len(entries):,} entries; at most {REPEATED:,} are allowed"))
    return True


async def _inspected(
    requests: AsyncIterator[Any], inspected: Callable[[Any], None]
) -> AsyncGenerator[Any, None]:
    async for request in requests:
        inspected(request)
        yield request
