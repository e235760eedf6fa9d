"""The composition root: builds a host, starts it, drains it and stops it."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import secrets
import shlex
import signal
import ssl
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from pipelinehost.address import Address
from pipelinehost.v1 import artifacts_pb2, pipeline_host_pb2
from pipelinehost.v1.resources_pb2 import Event
from pipelinehost_server.access import ADMINISTRATOR, Access, may_go_on
from pipelinehost_server.api.artifacts import ArtifactMethods
from pipelinehost_server.api.environments import EnvironmentMethods
from pipelinehost_server.api.freezes import FreezeMethods
from pipelinehost_server.api.guard import Guard, Rpc, generic_handler
from pipelinehost_server.api.host import VERSION, HostMethods
from pipelinehost_server.api.listing import Pages
from pipelinehost_server.api.pipelines import PipelineMethods
from pipelinehost_server.api.principals import PrincipalMethods
from pipelinehost_server.api.record import Record, signing_key
from pipelinehost_server.api.watch import Watch
from pipelinehost_server.blobs import Blobs
from pipelinehost_server.config import Config
from pipelinehost_server.deployment import Deployment, Environments, Webhooks
from pipelinehost_server.encryption import (
    NEW_VARIABLE,
    VARIABLE,
    Encryption,
    KeyUnusable,
    Rotation,
    SealBroken,
    SigningKey,
)
from pipelinehost_server.events import Feed
from pipelinehost_server.issuer import Issuer
from pipelinehost_server.store import Store, Transaction

_SWITCH_SECONDS = 0.0005
GRACE_SECONDS = 10.0
"""How long calls that are under way may take when the host stops."""


def _service(file: Any, name: str) -> ServiceDescriptor:  # a file descriptor, which stubs type in two ways
    service: ServiceDescriptor = file.services_by_name[name]
    return service


_PIPELINE_HOST = _service(pipeline_host_pb2.DESCRIPTOR, "PipelineHost")
_ARTIFACTS = _service(artifacts_pb2.DESCRIPTOR, "Artifacts")
_HEALTH = _service(health_pb2.DESCRIPTOR, "Health")
_REFLECTION = _service(reflection_pb2.DESCRIPTOR, "ServerReflection")
_SERVICES = (_PIPELINE_HOST, _ARTIFACTS, _HEALTH, _REFLECTION)

_OPTIONS = (
    # Only together do these three stand a herd of watchers and a flood of resets: with grpc's own limit on
    # pending requests the calls of bystanders are cancelled, and without the limit on streams memory grows.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.max_concurrent_streams", 100),
    # A second host on the same port is an error, not half of the calls.
    ("grpc.so_reuseport", 0),
    # Clients probe every 30 seconds; less than every 10 is too many pings.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
)
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+)):([0-9]{1,5})")
_TOKEN_SECRET = "host/tokens"  # noqa: S105 - the name of a secret
_LOG = logging.getLogger(__name__)


class AddressRefused(Exception):
    """The host cannot serve on this address; the message says why."""


class Host:
    """One host on one data folder.

    Args:
        config: its settings; port 0 of the address means any free one.
        state_file: leaves the administrator's token where a client of this user finds it.
    """

    def __init__(self, config: Config, *, state_file: bool = True) -> None:
        self._config = config
        self._state_file = state_file
        self._store = Store(config.folder, config.address)
        self._guard: Guard | None = None
        self._issuer: Issuer | None = None
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._deployment: Deployment | None = None
        self._environments: Environments | None = None
        self._webhooks: Webhooks | None = None
        self.services: Mapping[ServiceDescriptor, Mapping[str, Rpc]] = {}
        """The guarded methods of every service, after :meth:`start`."""
        self.address = Address("", 0)
        """Where it serves, after :meth:`start`."""
        self.token_file = config.folder / "admin-token"
        """Where the administrator's token lies, if it was not taken away."""

    async def start(self) -> None:
        """Opens everything and serves.

        Raises:
            AddressRefused: the address is none, is taken, or is not on loopback.
            StoreLocked: another host has the data folder.
            StoreTooNew: a newer program has written the store.
            PolicyIncomplete: an RPC has no policy entry.
        """
        host, port = parse_address(self._config.address, encrypted=self._config.certificate is not None)
        for service in _SERVICES:
            await self._health.set(service.full_name, health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._store.open()
        try:
            await self._serve(host, port)
        except BaseException:
            await self.stop(0)
            raise

    async def _serve(self, host: str, port: int) -> None:
        config, store = self._config, self._store
        encryption = Encryption(config.folder)
        blobs = Blobs(config.folder)
        blobs.start()
        feed = Feed(store)
        self._environments = environments = Environments(config, store, encryption)
        self._deployment = deployment = Deployment(config, store, blobs, encryption, environments, may_go_on)
        secret = await _token_secret(store, encryption)
        record = Record(store, await signing_key(store, encryption))
        self._webhooks = webhooks = Webhooks(store, SigningKey.derived(secret, "webhooks"), time.time_ns)
        pages = Pages(store.reads, secret)
        watch = Watch(store, feed, secret, config.heartbeat_seconds)
        if config.oidc_issuer:
            self._issuer = Issuer(
                config.oidc_issuer, config.oidc_audience, config.oidc_claim, config.oidc_keys
            )
            await self._issuer.start()
        access = Access(store, secret, self._issuer)
        self._guard = guard = Guard(access, certificates=config.client_ca is not None)
        own = HostMethods(config, store, deployment, pages, watch, record, secret, access, webhooks.key)
        self.services = {
            _PIPELINE_HOST: guard.protect(
                _PIPELINE_HOST,
                own,
                EnvironmentMethods(config, store, environments, deployment, pages, own.once),
                PipelineMethods(config, store, pages, own.once),
                PrincipalMethods(store, access, pages, own.once),
                FreezeMethods(store, pages, own.once),
            ),
            _ARTIFACTS: guard.protect(
                _ARTIFACTS, ArtifactMethods(config, store, blobs, pages, access, own.once)
            ),
            _HEALTH: guard.protect_foreign(_HEALTH, self._health),
            _REFLECTION: guard.protect_foreign(
                _REFLECTION, reflection.aio.ReflectionServicer([s.full_name for s in _SERVICES])
            ),
        }
        self._server = server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers([generic_handler(s, methods) for s, methods in self.services.items()])
        try:
            where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            credentials = _credentials(config)
            if credentials is None:
                bound = server.add_insecure_port(where)
            else:
                bound = server.add_secure_port(where, credentials)
        except RuntimeError:
            bound = 0
        if bound == 0:
            raise AddressRefused(
                f"{self._config.address} cannot be served on: another program has the port, or it needs "
                "rights. Choose another one with --address"
            )
        self.address = Address(host, bound)
        self.token_file = await access.prepare(config.folder, self._client_file())
        await store.write(
            lambda tx: tx.append(
                Event(
                    kind=Event.KIND_HOST_STARTED,
                    actor="host",
                    subject="host",
                    message=f"PipelineHost {VERSION} on {self.address}",
                )
            )
        )
        deployment.start()
        webhooks.start()
        await server.start()
        for service in ("", *(s.full_name for s in _SERVICES)):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def _client_file(self) -> Path | None:
        if not self._state_file:
            return None
        try:
            return self.address.token_file()
        except RuntimeError:  # this user has no home
            return None

    async def stop(self, grace: float = GRACE_SECONDS) -> None:
        """Stops: says so to health checks, ends watchers so that they resume, drains, and closes everything.

        Args:
            grace: seconds for calls that are under way.
        """
        await self._health.enter_graceful_shutdown()
        if self._guard is not None:
            await self._guard.drain()
        if self._server is not None:
            await self._server.stop(grace)
        if self._issuer is not None:
            await self._issuer.stop()
        if self._webhooks is not None:
            await self._webhooks.stop()
        if self._deployment is not None:
            await self._deployment.stop()
        if self._environments is not None:
            await self._environments.close()
        await self._store.close()


async def serve(config: Config) -> None:
    """Runs a host until it gets SIGTERM or SIGINT; a line on standard output says that it is ready."""
    # How long a thread that reads or encodes a package may keep the loop waiting. With Python's own 5 ms the
    # callers of a busy host feel every such thread: one in a thousand waited 20 ms during imports, not 9.
    sys.setswitchinterval(_SWITCH_SECONDS)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    host = Host(config)
    await host.start()
    # What is there now stays: the garbage collector need not look at it again. Its rounds stop everybody, and
    # a large package in the making causes several; with all modules among what it looks at, of 50 ms each.
    gc.collect()
    gc.freeze()
    # Callers make much that is gone at once, and Python's own 700 would have it looked at every few of them.
    gc.set_threshold(10_000)
    try:
        facts = {"address": str(host.address), "data": str(config.folder), "token": str(host.token_file)}
        told = " ".join(f"{key}={shlex.quote(value)}" for key, value in facts.items())
        sys.stdout.write(f"pipelinehost-server ready {told}\n")
        sys.stdout.flush()
        await stopping.wait()
        _LOG.info("stopping: open calls have %g seconds", GRACE_SECONDS)
        # A second signal ends it at once.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    finally:
        await host.stop()
    _LOG.info("stopped")


async def rotate_key(folder: Path) -> None:
    """Changes the key of a stopped host; a line on standard output says what was done and what is left.

    Raises:
        KeyUnusable: there is no key to change from or to.
        SealBroken: a secret cannot be opened; nothing was changed.
        StoreLocked: a host serves the folder.
        StoreTooNew: a newer program has written the store.
    """
    if not (folder / "pipelinehost.db").exists():
        raise KeyUnusable(f"{folder} is no data folder of a host: it has no pipelinehost.db")
    store = Store(folder, "rotate-key")
    await store.open()
    try:
        rotation = Rotation(folder)
        try:
            count = await store.write(lambda tx: tx.reseal_secrets(rotation.resealed))
        except SealBroken:
            rotation.abandon()
            raise
    finally:
        await store.close()  # which writes the log back, and with it over what was sealed with the old key
    rotation.finish()
    told = f"pipelinehost-server: {count} secrets are sealed with the key {rotation.new.key_id} now"
    if rotation.by_variable:
        told += f": put what {NEW_VARIABLE} holds into {VARIABLE} before you start the host"
    old = rotation.old.key_id
    sys.stdout.write(f"{told}. The key {old} opens only backups that were made before.\n")


def _credentials(config: Config) -> grpc.ServerCredentials | None:
    """What the host encrypts with; ``None`` where it does not.

    Raises:
        AddressRefused: a file cannot be read, or certificate and key do not belong together.
    """
    if config.certificate is None or config.key is None:
        if config.certificate or config.key or config.client_ca:
            raise AddressRefused("--certificate and --key go together, and --client-ca needs both")
        return None
    try:
        # grpc takes any bytes, and then every handshake fails.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.certificate, config.key)
        if config.client_ca is not None:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(config.client_ca)
        pair = (config.key.read_bytes(), config.certificate.read_bytes())
        authorities = None if config.client_ca is None else config.client_ca.read_bytes()
    except OSError as error:  # of which ssl's own error is one
        raise AddressRefused(
            f"the certificate {config.certificate}, its key {config.key} or the authorities cannot be used: "
            f"{error}"
        ) from error
    return grpc.ssl_server_credentials([pair], authorities, require_client_auth=authorities is not None)


def parse_address(text: str, *, encrypted: bool = False) -> tuple[str, int]:
    """Host and port to serve on; port 0 means any free one.

    Raises:
        AddressRefused: it is no address, or not on loopback.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found[3]) > 65_535:
        raise AddressRefused(
            f"{text!r} is not an address of the form host:port, such as 127.0.0.1:50051 or [::1]:0"
        )
    host, port = found[1] or found[2], int(found[3])
    if not encrypted and not Address(host, port).is_loopback:
        raise AddressRefused(
            f"{text} is not on loopback, and without TLS tokens would travel unencrypted: give the host a "
            "certificate with --certificate and --key, or use 127.0.0.1 and a proxy that ends TLS on this "
            "machine"
        )
    return host, port


async def new_administrator_token(folder: Path) -> None:
    """Makes a new token of the first administrator of a stopped host, whom it brings back if need be.

    Raises:
        StoreLocked: the host runs.
    """
    if not (folder / "pipelinehost.db").exists():
        raise AddressRefused(f"{folder} is no data folder of a host: there is no pipelinehost.db in it")
    store = Store(folder)
    await store.open()
    try:
        encryption = Encryption(folder)
        await signing_key(store, encryption)  # the events of this must not look like somebody else's
        access = Access(store, await _token_secret(store, encryption))
        path = await access.new_administrator_token(folder)
    finally:
        await store.close()
    sys.stdout.write(f"a new token of {ADMINISTRATOR} lies in {path}\n")


async def _token_secret(store: Store, encryption: Encryption) -> bytes:
    """What page and resume tokens are made with: of this store, made once, kept encrypted."""
    sealed = encryption.seal(secrets.token_bytes(32), _TOKEN_SECRET)

    def job(tx: Transaction) -> bytes:
        kept = tx.secret(_TOKEN_SECRET)
        if kept is None:
            tx.put_secret(_TOKEN_SECRET, sealed)
        return kept or sealed

    return encryption.open(await store.write(job), _TOKEN_SECRET)
