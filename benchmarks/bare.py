"""The baselines, each a process: ``python -m benchmarks.bare rpc`` and ``python -m benchmarks.bare socket``.

``rpc`` is a grpc.aio server without anything behind it. ``/bare/Keep`` takes bytes, ``/bare/Answer`` gives
them back, ``/bare/Follow`` streams the bytes that ``/bare/Tell`` is called with to all followers at once.

``socket`` receives a file over TCP: eight bytes of length, then the file; it hashes, writes and fsyncs it and
answers with the digest.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from tests.e2e.processes import Process

from pipelinehost_server.app import _OPTIONS

CHUNK = 512 * 1024


class Bare(Process):
    """A baseline as a process of its own.

    Args:
        folder: for its log.
        mode: ``rpc`` or ``socket``.
    """

    def __init__(self, folder: Path, mode: str) -> None:
        super().__init__(folder, "-m", "benchmarks.bare", mode)

    def _where(self) -> list[str]:
        return []

    def environ(self) -> dict[str, str]:
        """With the repository on the path."""
        inherited = super().environ()
        path = [str(Path(__file__).resolve().parents[1]), *inherited.get("PYTHONPATH", "").split(os.pathsep)]
        return {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, path))}


@contextmanager
def running(*processes: Process) -> Iterator[None]:
    """Starts processes, and kills them at the end however that comes."""
    try:
        for process in processes:
            process.start()
        yield
    finally:
        for process in processes:
            process.kill()


async def rpc() -> None:
    """Serves until it is killed."""
    kept = b""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[bytes] = loop.create_future()

    async def keep(request: bytes, context: Any) -> bytes:
        nonlocal kept
        kept = request
        return b"\x08\x01"

    async def answer(request: bytes, context: Any) -> bytes:
        return kept

    async def follow(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield kept
        while True:
            yield await asyncio.shield(told)

    async def tell(request: bytes, context: Any) -> bytes:
        nonlocal told
        before, told = told, loop.create_future()
        before.set_result(request)
        return b"\x08\x01"

    methods: dict[str, grpc.RpcMethodHandler[bytes, Any]] = {
        "Keep": grpc.unary_unary_rpc_method_handler(keep),
        "Answer": grpc.unary_unary_rpc_method_handler(answer),
        "Follow": grpc.unary_stream_rpc_method_handler(follow),
        "Tell": grpc.unary_unary_rpc_method_handler(tell),
    }
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bare", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


def receive_files() -> None:
    """Receives one file after the other until it is killed."""
    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.TemporaryDirectory() as folder:
        print(f"ready 127.0.0.1:{server.getsockname()[1]}", flush=True)
        buffer = memoryview(bytearray(CHUNK))
        while True:
            connection, _ = server.accept()
            with connection, (Path(folder) / "file").open("wb", buffering=0) as file:
                (left,) = struct.unpack(">Q", connection.recv(8, socket.MSG_WAITALL))
                digest = hashlib.sha256()
                while left:
                    count = connection.recv_into(buffer, min(left, CHUNK), socket.MSG_WAITALL)
                    if not count:
                        break
                    digest.update(buffer[:count])
                    file.write(buffer[:count])
                    left -= count
                os.fsync(file.fileno())
                connection.sendall(digest.digest())


if __name__ == "__main__":
    if sys.argv[1] == "rpc":
        asyncio.run(rpc())
    else:
        receive_files()
