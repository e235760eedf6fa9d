"""The connections of a Client: TLS, the token, deadlines, retries, and how many streams share one."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc

from pipelinehost.address import Address
from pipelinehost.errors import (
    Cancelled,
    Internal,
    InvalidArgument,
    PipelineHostError,
    Unavailable,
    Violation,
)
from pipelinehost.status import from_rpc_error
from pipelinehost.v1.artifacts_pb2_grpc import ArtifactsStub
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.pipeline_host_pb2_grpc import PipelineHostStub

STREAMS_PER_CONNECTION = 90
"""The host allows 100 streams on a connection; the next one would wait until another ends, in silence."""

KEEPALIVE_SECONDS = 30
"""How often a connection with open calls is probed. The host must accept pings this often."""

_PIPELINE_HOST = "pipelinehost.v1.PipelineHost"
_ARTIFACTS = "pipelinehost.v1.Artifacts"

# Every mutation carries a request_id, so that repeating any unary call is safe. Streams that their reader
# takes up again are left out. CANCELLED is what a host answers that has too many calls pending.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": _PIPELINE_HOST}, {"service": _ARTIFACTS}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "backoffMultiplier": 2.5,
                "maxBackoff": "3s",
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        },
        {
            "name": [
                {"service": _PIPELINE_HOST, "method": "WatchRun"},
                {"service": _PIPELINE_HOST, "method": "WatchEvents"},
                {"service": _PIPELINE_HOST, "method": "ValidateDeployment"},
                {"service": _ARTIFACTS, "method": "UploadArtifact"},
                {"service": _ARTIFACTS, "method": "DownloadArtifact"},
            ]
        },
    ]
}
_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # grpc would otherwise give all channels to one address the same connection.
    ("grpc.use_local_subchannel_pool", 1),
    # Whoever reads a stream waits for it in gRPC's core. Otherwise a thread of the channel reads for all, and
    # each reader wakes up ten times a second to look: 5,000 watches then do nothing but that.
    ("SingleThreadedUnaryStream", 1),
    ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3_000),
    # A page of 1,000 runs of at most 16 KiB.
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_metadata_size", 32 * 1024),
]


# How the messages of grpc begin where no connection was made, and so nothing was sent.
_NOT_CONNECTED = ("failed to connect", "errors resolving")


class Stubs(NamedTuple):
    """The services of a host over one connection."""

    host: PipelineHostStub
    artifacts: ArtifactsStub


class Connections:
    """One connection for unary calls, and as many for streams as there are streams to carry.

    Args:
        address: where the host listens.
        token: sent with every call; empty to send none.
        tls: whether to encrypt; a token goes without it to loopback only.
        ca_file: certificates to trust, PEM; without one those of the system.
        deadline: seconds that a unary call may take unless it says otherwise.

    Raises:
        InvalidArgument: the token would travel unencrypted, or the file cannot be read.
    """

    def __init__(
        self, address: Address, *, token: str, tls: bool, ca_file: Path | None, deadline: float
    ) -> None:
        if token and not tls and not address.is_loopback:
            raise _invalid(
                "tls",
                f"The token would travel to {address} unencrypted.",
                "Use TLS (tls=True, or --tls), or reach the host through a tunnel on 127.0.0.1.",
            )
        if any(not 33 <= ord(character) <= 126 for character in token):
            raise _invalid(
                "token", "The token holds characters that no token has.", "Copy it again, in one line."
            )
        self._address = address
        self._credentials = _tls_credentials(ca_file) if tls else None
        # Sent with each call, not by an interceptor of grpc: that looks its method up at every call, and on a
        # channel that another thread has closed this is a segmentation fault (grpcio 1.85.1). grpc refuses
        # call credentials on a connection without TLS.
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.deadline = deadline
        self._lock = threading.Lock()
        self._streams: dict[grpc.Channel, tuple[Stubs, int]] = {}
        self._channel = self._connect()
        self._closed = False
        self.unary = _stubs(self._channel)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @contextmanager
    def stream(self) -> Iterator[Stubs]:
        """Lends a connection with room for one more stream, and takes it back at the end.

        Raises:
            Cancelled: the connections are closed.
        """
        with self._lock:
            if self._closed:
                raise _closed()
            for channel, (stubs, count) in self._streams.items():  # noqa: B007 - both are used below
                if count < STREAMS_PER_CONNECTION:
                    break
            else:
                channel = self._connect()
                stubs, count = _stubs(channel), 0
            self._streams[channel] = stubs, count + 1
        try:
            yield stubs
        finally:
            self._release(channel)

    @contextmanager
    def typed_errors(self) -> Iterator[None]:
        """Turns what grpc raises into the exceptions of :mod:`pipelinehost.errors`."""
        try:
            yield
        except grpc.RpcError as error:
            typed = from_rpc_error(error)
            if typed.message.startswith(_NOT_CONNECTED):  # grpc's words name neither host nor remedy
                cause = typed.message.rpartition(": ")[2].rstrip("].")
                typed = Unavailable(
                    typed.reason,
                    f"The host at {self._address} cannot be reached: {cause}.",
                    remedy=typed.remedy,
                    metadata={"address": str(self._address)},
                )
            raise typed from error
        except ValueError as error:
            if self._closed:  # what grpc raises for a call on a closed channel
                raise _closed() from error
            raise

    def close(self) -> None:
        """Ends every call and every connection; calls that wait fail with `Cancelled`."""
        with self._lock:
            self._closed = True
            channels = [self._channel, *self._streams]
            self._streams.clear()
        for channel in channels:
            channel.close()

    def _release(self, channel: grpc.Channel) -> None:
        with self._lock:
            if channel not in self._streams:
                return
            stubs, count = self._streams[channel]
            self._streams[channel] = stubs, count - 1
            # One empty connection is kept for the next stream.
            if count > 1 or sum(open_ == 0 for _, open_ in self._streams.values()) < 2:
                return
            del self._streams[channel]
        channel.close()

    def _connect(self) -> grpc.Channel:
        if self._credentials is None:
            return grpc.insecure_channel(str(self._address), _OPTIONS)
        return grpc.secure_channel(str(self._address), self._credentials, _OPTIONS)


def find_token(address: Address, token: str | None = None) -> str:
    """The token to call a host with: the one given, else ``PIPELINEHOST_TOKEN``, else the host's own file.

    Returns:
        The token, or an empty text where there is none: a few calls are public.
    """
    if token is not None:
        return token.strip()
    if from_environment := os.environ.get("PIPELINEHOST_TOKEN", "").strip():
        return from_environment
    try:
        return address.token_file().read_text(encoding="utf-8").strip()
    except OSError:  # not there, or of somebody else
        return ""


def interrupted(error: PipelineHostError) -> bool:
    """Whether a stream that ended like this was cut off, rather than refused: opening it again may help."""
    if isinstance(error, Unavailable):
        return error.reason != ErrorReason.ERROR_REASON_ENVIRONMENT_UNREACHABLE
    if isinstance(error, Internal):  # a reset by a proxy; an error of the host itself names an incident
        return error.reason == ErrorReason.ERROR_REASON_INTERNAL and not error.metadata
    return isinstance(error, Cancelled)


class Patience:
    """How long to go on trying, with pauses that grow and are spread by chance.

    Args:
        seconds: how long from the first failure to the last attempt.
        nobody_there: the same as long as every attempt has failed to find a host at the address at all.
    """

    def __init__(self, seconds: float, nobody_there: float | None = None) -> None:
        self._seconds = seconds
        self._nobody_there = seconds if nobody_there is None else nobody_there
        self.succeeded()

    def succeeded(self) -> None:
        """Forgets the failures so far."""
        self._since: float | None = None
        self._found = False
        self._longest = 0.2

    def failed(self, error: PipelineHostError) -> None:
        """Waits before the next attempt.

        Raises:
            PipelineHostError: it was `error`, and the time is up.
        """
        now = time.monotonic()
        if self._since is None:
            self._since = now
        self._found = self._found or "address" not in error.metadata
        ends = self._since + (self._seconds if self._found else self._nobody_there)
        if now >= ends:
            raise error
        # Thousands of watchers lose a host at the same moment: they must not come back at the same moment.
        pause = random.uniform(self._longest / 4, self._longest)  # noqa: S311 - no secret
        time.sleep(min(pause, ends - now))
        self._longest = min(self._longest * 2, 5.0)


def _stubs(channel: grpc.Channel) -> Stubs:
    return Stubs(PipelineHostStub(channel), ArtifactsStub(channel))


def _closed() -> Cancelled:
    return Cancelled(ErrorReason.ERROR_REASON_UNSPECIFIED, "The client was closed.")


def _tls_credentials(ca_file: Path | None) -> grpc.ChannelCredentials:
    if ca_file is None:
        return grpc.ssl_channel_credentials()
    try:
        return grpc.ssl_channel_credentials(ca_file.read_bytes())
    except OSError as error:
        raise _invalid(
            "ca_file", f"The CA file {ca_file} cannot be read: {error.strerror}.", "Check the path."
        ) from error


def _invalid(field: str, what: str, remedy: str) -> InvalidArgument:
    return InvalidArgument(
        ErrorReason.ERROR_REASON_INVALID_FIELD, what, remedy=remedy, violations=[Violation(field, what)]
    )
