"""Serves the host's asynchronous methods to grpc_testing, which calls synchronous ones only."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import Any, TypeVar

import grpc
import grpc_testing  # type: ignore[import-untyped]  # it has no stubs
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from pipelinehost_server.api.guard import Rpc

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, for tests that block."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="host", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = 30) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def close(self) -> None:
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class _Aborted(Exception):
    def __init__(self, code: grpc.StatusCode, details: str, trailers: Any) -> None:
        self.code, self.details, self.trailers = code, details, trailers


class _Context:
    """What the guard uses of a grpc.aio context, and nothing else: using more fails the test."""

    def __init__(self, context: Any, written: Callable[[Any], None]) -> None:
        self._context = context
        self._written = written

    def invocation_metadata(self) -> Any:
        return self._context.invocation_metadata()

    def peer(self) -> str:
        return "ipv6:%5B::1%5D:50123"

    async def write(self, message: Any) -> None:
        self._written(message)

    async def abort(self, code: grpc.StatusCode, details: str, trailers: Any) -> None:
        raise _Aborted(code, details, trailers)


def server(loop: LoopThread, services: Mapping[ServiceDescriptor, Mapping[str, Rpc]]) -> Any:
    """A grpc_testing server over the guarded methods."""
    servicers = {service: _servicer(loop, service, methods) for service, methods in services.items()}
    return grpc_testing.server_from_dictionary(servicers, grpc_testing.strict_real_time())


def _servicer(loop: LoopThread, service: ServiceDescriptor, methods: Mapping[str, Rpc]) -> object:
    class Servicer:
        pass

    servicer = Servicer()
    for method in service.methods:
        setattr(servicer, method.name, _method(loop, method, methods[method.name]))
    return servicer


def _method(loop: LoopThread, method: MethodDescriptor, rpc: Rpc) -> Callable[[Any, Any], Any]:
    def unary(request: Any, context: Any) -> Any:
        try:
            sent = _requests(request) if method.client_streaming else request
            return loop.run(_call(rpc, sent, _Context(context, _unexpected)))
        except _Aborted as aborted:
            _end(context, aborted)
            return None

    def streaming(request: Any, context: Any) -> Iterator[Any]:
        out: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        call = _call(rpc, request, _Context(context, lambda message: out.put(("message", message))))
        future = asyncio.run_coroutine_threadsafe(call, loop.loop)
        future.add_done_callback(lambda _: out.put(("end", None)))
        context.add_callback(future.cancel)
        while True:
            kind, message = out.get()
            if kind == "end":
                break
            yield message
        if not future.cancelled():
            try:
                future.result()
            except _Aborted as aborted:
                _end(context, aborted)

    return streaming if method.server_streaming else unary


async def _call(rpc: Rpc, request: Any, context: _Context) -> Any:
    return await rpc(request, context)


async def _requests(iterator: Iterator[Any]) -> AsyncIterator[Any]:
    loop, end = asyncio.get_running_loop(), object()
    while (request := await loop.run_in_executor(None, next, iterator, end)) is not end:
        yield request


def _unexpected(message: Any) -> None:
    raise AssertionError(f"a unary method wrote {message!r}")


def _end(context: Any, aborted: _Aborted) -> None:
    # Not context.abort: that of grpc_testing drops the trailing metadata, and the rich details with it.
    context.set_trailing_metadata(aborted.trailers)
    context.set_code(aborted.code)
    context.set_details(aborted.details)
