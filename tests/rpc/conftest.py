"""A whole host on a folder of its own, called through grpc_testing and over a real connection."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2
from tests.rpc import bridge

from pipelinehost.status import STATUS_DETAILS, from_rpc_error, from_status
from pipelinehost.v1 import artifacts_pb2 as artifacts_api
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import Artifact, Environment, Pipeline, Principal, Stage
from pipelinehost_dataverse.solution import Column, Table, new_manifest, write
from pipelinehost_server.app import Host
from pipelinehost_server.config import Config

DEVELOPMENT = Environment.KIND_DEVELOPMENT
TARGET = Environment.KIND_TARGET


class Bed:
    """A host in a thread; tests block, and the host does not notice."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = {"address": "127.0.0.1:0", "heartbeat_seconds": 0.2, **settings}
        self.thread = bridge.LoopThread()
        self.tokens: dict[str, str] = {}
        """The newest of everybody but the administrator, by their slugs."""
        self.start()

    def start(self) -> None:
        self.host = Host(Config(folder=self.folder, **self.settings), state_file=False)
        self.thread.run(self.host.start())
        self.token = self.host.token_file.read_text().strip()
        self.store = self.host._store
        self.methods: dict[str, MethodDescriptor] = {
            m.name: m
            for s in self.host.services
            for m in s.methods
            if s.full_name.startswith("pipelinehost.")
        }
        self.bridged = bridge.server(self.thread, self.host.services)
        self.channel: Any = grpc.insecure_channel(
            str(self.host.address),
            [("grpc.max_metadata_size", 8 * 1024), ("grpc.use_local_subchannel_pool", 1)],
        )

    def stop(self, grace: float = 0) -> None:
        self.channel.close()
        self.thread.run(self.host.stop(grace))

    def close(self) -> None:
        self.stop()
        self.thread.close()

    def metadata(self, token: str | None) -> tuple[tuple[str, str], ...]:
        token = self.token if token is None else token
        return (("authorization", f"Bearer {token}"),) if token else ()

    def person(self, name: str, role: str = "VIEWER", **fields: Any) -> str:
        """The token of somebody new, who is no administrator unless told."""
        principal = Principal(
            name=f"principals/{name}",
            kind=Principal.KIND_PERSON,
            role=f"ROLE_{role}",
        )
        principal.MergeFrom(Principal(**fields))
        self.call("CreatePrincipal", api.CreatePrincipalRequest(principal=principal))
        return self.new_token(name)

    def new_token(self, name: str) -> str:
        request = api.CreateTokenRequest(principal=f"principals/{name}")
        secret: str = self.call("CreateToken", request).secret
        self.tokens[name] = secret
        return secret

    def call(self, method: str, request: Any, *, token: str | None = None, timeout: float = 20) -> Any:
        """Over the connection; raises the typed error."""
        kind, path, parse = self._of(method)
        stub = getattr(self.channel, kind)(
            path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=parse
        )
        try:
            answer = stub(request, metadata=self.metadata(token), timeout=timeout)
            return list(answer) if self.methods[method].server_streaming else answer
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def stream(self, method: str, request: Any, *, token: str | None = None, timeout: float = 20) -> Any:
        """The open call of a server stream."""
        _, path, parse = self._of(method)
        stub = self.channel.unary_stream(
            path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=parse
        )
        return stub(request, metadata=self.metadata(token), timeout=timeout)

    def raw(self, method: str, body: bytes, *, token: str | None = None, timeout: float = 20) -> Any:
        """Sends bytes as they are."""
        kind, path, parse = self._of(method)
        sent = iter([body]) if self.methods[method].client_streaming else body
        try:
            answer = getattr(self.channel, kind)(path, response_deserializer=parse)(
                sent, metadata=self.metadata(token), timeout=timeout
            )
            return list(answer) if self.methods[method].server_streaming else answer
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def bridge(self, method: str, request: Any, *, token: str | None = None) -> Any:
        """Through grpc_testing, without a network; raises the typed error."""
        descriptor, metadata = self.methods[method], self.metadata(token)
        if descriptor.client_streaming:
            rpc = self.bridged.invoke_stream_unary(descriptor, metadata, 20)
            for part in request:
                rpc.send_request(part)
            rpc.requests_closed()
            answer, trailers, code, details = rpc.termination()
        elif descriptor.server_streaming:
            rpc = self.bridged.invoke_unary_stream(descriptor, metadata, request, 20)
            trailers, code, details = rpc.termination()
            answer = []
            with suppress(ValueError):  # after the last one
                while True:
                    answer.append(rpc.take_response())
        else:
            rpc = self.bridged.invoke_unary_unary(descriptor, metadata, request, 20)
            answer, trailers, code, details = rpc.termination()
        if code is grpc.StatusCode.OK:
            return answer
        for key, value in trailers:
            if key == STATUS_DETAILS:
                raise from_status(status_pb2.Status.FromString(value))
        raise from_status(status_pb2.Status(code=code.value[0], message=details))

    def _of(self, method: str) -> tuple[str, str, Any]:
        m = self.methods[method]
        kind = f"{'stream' if m.client_streaming else 'unary'}_{'stream' if m.server_streaming else 'unary'}"
        return (
            kind,
            f"/{m.containing_service.full_name}/{m.name}",
            GetMessageClass(m.output_type).FromString,
        )

    def environment(self, slug: str, kind: Environment.Kind = TARGET, **fields: Any) -> Environment:
        environment = Environment(name=f"environments/{slug}", kind=kind, **fields)
        made: Environment = self.call(
            "CreateEnvironment", api.CreateEnvironmentRequest(environment=environment)
        )
        return made

    def pipeline(self, slug: str = "sales", **fields: Any) -> Pipeline:
        """A pipeline of one stage to qa; environments must be there."""
        made: Pipeline = self.call(
            "CreatePipeline", api.CreatePipelineRequest(pipeline=pipeline(slug, **fields))
        )
        return made

    def upload(self, package: bytes) -> Artifact:
        artifact: Artifact = self.call("UploadArtifact", iter(parts(package)))
        return artifact

    def snapshot(self) -> str:
        """Digest of everything in the store."""
        with connected(self.folder / "pipelinehost.db") as database:
            tables = [
                r[0]
                for r in database.execute("select name from sqlite_master where type = 'table' order by 1")
            ]
            rows = [sorted(map(repr, database.execute(f'select * from "{t}"'))) for t in tables]
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    def events(self) -> list[Any]:
        found: list[Any] = list(self.call("ListEvents", api.ListEventsRequest(page_size=1000)).events)
        return found


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        yield database
    finally:
        database.close()


def pipeline(slug: str = "sales", **fields: Any) -> Pipeline:
    fields.setdefault("development_environments", ["environments/dev"])
    fields.setdefault("stages", [Stage(name=f"pipelines/{slug}/stages/qa", environment="environments/qa")])
    return Pipeline(name=f"pipelines/{slug}", **fields)


def package(version: str = "1.0.0.0", *, managed: bool = True, name: str = "Sales") -> bytes:
    table = Table("cts_order", columns=(Column("cts_number"),))
    return write(new_manifest(name, version, managed=managed), table)


def parts(content: bytes, *, chunk: int = 64 * 1024, **declared: Any) -> Iterable[Any]:
    declaration = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), **declared}
    request = artifacts_api.UploadArtifactRequest
    yield request(declaration=request.Declaration(**declaration))
    for start in range(0, len(content), chunk):
        yield request(chunk=content[start : start + chunk])


@pytest.fixture
def unlimited_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that try more wrong tokens in a minute than an address may."""
    monkeypatch.setattr("pipelinehost_server.api.guard._GUESSES", 1_000_000)


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    """A host on loopback, without environments."""
    bed = Bed(tmp_path / "data")
    yield bed
    bed.close()


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Bed]:
    """A host with environments and a pipeline that accepts runs and keeps them queued."""
    bed = Bed(tmp_path / "data", advancing=0)
    bed.environment("dev", DEVELOPMENT)
    bed.environment("qa")
    bed.pipeline()
    yield bed
    bed.close()
