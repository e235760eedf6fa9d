"""A gRPC client that costs next to nothing, so that the server under load is what is measured.

It sends prepared bytes on one connection and looks only at the frames of the answers: enough for servers that
behave. A Python client of gRPC takes as much of a processor for a call as the server does.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME = 16_384
"""Largest frame that a server takes unless it says otherwise (RFC 9113, section 6.5.2)."""
_WINDOW = 2**31 - 1
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_FIRST_DYNAMIC = 62


class Broken(Exception):
    """The server ended a call or the connection otherwise than with an answer."""


class Connection:
    """One HTTP/2 connection for calls of one method (RFC 9113; its header table by RFC 7541)."""

    def __init__(self, address: str, method: str, token: str = "") -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = struct.pack(">HIHI", 4, _WINDOW, 2, 0)  # large windows, no pushes
        enlarge = struct.pack(">I", _WINDOW - 65_535)
        self.socket.sendall(
            _PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW_UPDATE, 0, 0, enlarge)
        )
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", address),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "benchmark"),
        ]
        if token:
            headers.append(("authorization", f"Bearer {token}"))
        # The first call puts all headers into the table, the others name their places there.
        self._block = b"".join(b"\x40" + _text(name) + _text(value) for name, value in headers)
        self._places = bytes(0x80 | _FIRST_DYNAMIC + n for n in reversed(range(len(headers))))
        self._next = 1
        self._received = b""
        self._parts: defaultdict[int, bytes] = defaultdict(bytes)

    def call(self, message: bytes) -> int:
        """Begins a call with its one request; gives the number of its stream."""
        stream, self._next = self._next, self._next + 2
        body = struct.pack(">BI", 0, len(message)) + message
        frames = [_frame(_HEADERS, _END_HEADERS, stream, self._block)]
        for at in range(0, len(body), _FRAME):
            last = _END_STREAM if at + _FRAME >= len(body) else 0
            frames.append(_frame(_DATA, last, stream, body[at : at + _FRAME]))
        self.socket.sendall(b"".join(frames))
        self._block = self._places
        return stream

    def receive(self) -> list[tuple[int, bytes | None]]:
        """What has come, after waiting for something: messages by stream, and None where a stream ends.

        Raises:
            Broken: the connection or a call was cut off.
        """
        chunk = self.socket.recv(1 << 20)
        if not chunk:
            raise Broken("the server closed the connection")
        received = self._received + chunk if self._received else chunk
        found: list[tuple[int, bytes | None]] = []
        at, end = 0, len(received)
        while at + 9 <= end:
            size = int.from_bytes(received[at : at + 3])
            if at + 9 + size > end:
                break
            kind, flags = received[at + 3], received[at + 4]
            stream = int.from_bytes(received[at + 5 : at + 9])
            payload = received[at + 9 : at + 9 + size]
            at += 9 + size
            if kind == _DATA:
                self._message(stream, payload, found)
            elif kind == _HEADERS:
                if flags & _END_STREAM:
                    self._parts.pop(stream, None)
                    found.append((stream, None))
            elif kind in (_RESET, _GOAWAY):
                raise Broken(f"the server sent {payload!r} on stream {stream}")
            elif kind in (_SETTINGS, _PING) and not flags & _ACK:
                self.socket.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        self._received = received[at:]
        return found

    def close(self) -> None:
        """Ends all calls."""
        self.socket.close()

    def _message(self, stream: int, payload: bytes, found: list[tuple[int, bytes | None]]) -> None:
        held = self._parts.pop(stream, b"") + payload
        while len(held) >= 5 and len(held) >= (whole := 5 + int.from_bytes(held[1:5])):
            found.append((stream, held[5:whole]))
            held = held[whole:]
        if held:
            self._parts[stream] = held


@dataclass(frozen=True, slots=True)
class Load:
    """What a server did under load."""

    calls: int
    seconds: float

    @property
    def rate(self) -> float:
        """Calls in a second."""
        return self.calls / self.seconds


def load(
    connections: Sequence[Connection], request: Callable[[], bytes], in_flight: int, seconds: float
) -> Load:
    """Keeps calls in flight for some time, evenly on all connections.

    Give it a connection for every 40 calls: a server that allows 100 streams on one still counts those whose
    end it is just writing.

    Raises:
        Broken: a call had no answer.
    """
    answered: set[tuple[Connection, int]] = set()
    calls = open_ = 0
    begun = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            for _ in range(in_flight // len(connections)):
                connection.call(request())
                open_ += 1
        ends = begun + seconds
        while open_:
            more = time.perf_counter() < ends
            for key, _ in selector.select():
                connection = key.data
                for stream, message in connection.receive():
                    if message is not None:
                        answered.add((connection, stream))
                        continue
                    if (connection, stream) not in answered:
                        raise Broken("a call ended with an error instead of an answer")
                    answered.discard((connection, stream))
                    calls += 1
                    if more:
                        connection.call(request())
                    else:
                        open_ -= 1
    return Load(calls, time.perf_counter() - begun)


def one(connection: Connection, request: bytes) -> bytes:
    """The answer to one call.

    Raises:
        Broken: it had none.
    """
    connection.call(request)
    answer: bytes | None = None
    while True:
        for _, message in connection.receive():
            if message is None:
                if answer is None:
                    raise Broken("a call ended with an error instead of an answer")
                return answer
            answer = message


def spread(address: str, method: str, token: str, requests: Sequence[bytes], each: int) -> list[Connection]:
    """Connections with so many calls on each of them."""
    connections = []
    for start in range(0, len(requests), each):
        connection = Connection(address, method, token)
        connections.append(connection)
        for request in requests[start : start + each]:
            connection.call(request)
    return connections


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def _text(text: str) -> bytes:
    raw = text.encode()
    if len(raw) < 127:
        return bytes((len(raw),)) + raw
    return b"\x7f" + bytes((len(raw) - 127,)) + raw  # a length up to 254 is enough here
