"""A small host without rules or a store, on a real grpc.aio server: client and CLI are tested on it."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.empty_pb2 import Empty
from grpc_status import rpc_status

from pipelinehost import names
from pipelinehost.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PipelineHostError,
    Unavailable,
)
from pipelinehost.status import to_status
from pipelinehost.v1 import artifacts_pb2 as artifacts_api
from pipelinehost.v1 import artifacts_pb2_grpc, pipeline_host_pb2_grpc
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import (
    Artifact,
    ComponentResult,
    Connection,
    Environment,
    EnvironmentHealth,
    Event,
    Finding,
    Freeze,
    GateNote,
    Pipeline,
    Run,
    RunChange,
    Setting,
    Solution,
    Step,
)

T = TypeVar("T")
FINISHED = {
    Run.STATE_SUCCEEDED,
    Run.STATE_FAILED,
    Run.STATE_REJECTED,
    Run.STATE_EXPIRED,
    Run.STATE_CANCELLED,
}
RUN = "runs/01jd0000000000000000000001"


class FakeHost:
    """Its attributes are its whole state: tests read and write them."""

    def __init__(self, *, max_concurrent_streams: int = 100, min_ping_seconds: int = 10) -> None:
        self.environments: dict[str, Environment] = {}
        self.pipelines: dict[str, Pipeline] = {}
        self.freezes: dict[str, Freeze] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.packages: dict[str, bytes] = {}
        self.runs: dict[str, Run] = {}
        self.log: list[Event] = []
        self.findings: dict[str, list[Finding]] = {}
        self.solutions: dict[str, list[Solution]] = {}
        self.connections: dict[str, list[Connection]] = {}
        self.queues: dict[str, api.Queue] = {}
        self.decided: list[Any] = []
        self.gate_notes: list[GateNote] = []
        self.caller, self.groups = "admin", list[str]()
        self.secrets: dict[str, api.SetEnvironmentCredentialRequest] = {}
        self.health = EnvironmentHealth()
        self.description = api.DescribeSolutionResponse()
        self.updates: list[api.ValidateDeploymentResponse] = []
        self.calls: list[tuple[str, Any]] = []
        self.metadata: list[dict[str, Any]] = []
        self.failures: dict[str, list[PipelineHostError]] = {}
        """Raised by the next calls of a method, one each."""
        self.cut_after: int | None = None
        """Ends each watch as a dying host does after so many events."""
        self.on_deploy: Callable[[Run], Coroutine[Any, Any, None]] | None = None
        self.credentials: grpc.ServerCredentials | None = None
        self.heartbeat_seconds = 2.0
        self.watches = 0
        self.peers: set[str] = set()
        self.port = 0
        self._answers: dict[str, bytes] = {}
        self._options = [
            ("grpc.so_reuseport", 0),
            ("grpc.max_concurrent_streams", max_concurrent_streams),
            ("grpc.http2.min_ping_interval_without_data_ms", min_ping_seconds * 1000),
            ("grpc.server.max_pending_requests", 20000),
            ("grpc.server.max_pending_requests_hard_limit", 40000),
        ]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: grpc.aio.Server | None = None
        self._changed = asyncio.Event()
        """Set by the next event, and then replaced."""
        self._tasks: set[asyncio.Task[None]] = set()

    # Life

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self.do(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs something on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def start(self) -> None:
        self.do(self._start())

    def stop(self, grace: float | None = None) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            self.do(server.stop(grace))

    async def _start(self) -> None:
        server = grpc.aio.server(options=self._options)
        pipeline_host_pb2_grpc.add_PipelineHostServicer_to_server(_Host(self), server)
        artifacts_pb2_grpc.add_ArtifactsServicer_to_server(_Artifacts(self), server)
        address = f"127.0.0.1:{self.port}"
        if self.credentials is None:
            self.port = server.add_insecure_port(address)
        else:
            self.port = server.add_secure_port(address, self.credentials)
        await server.start()
        self._server = server

    async def _end_tasks(self) -> None:
        # A stream may still be suspended in its handler.
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=10)
            assert not left, left

    # What happens to a run

    async def append(self, event: Event) -> None:
        """Writes an event and wakes the watchers."""
        event.sequence = len(self.log) + 1
        if not event.HasField("time"):
            event.time.seconds = 1_760_000_000 + event.sequence
        self.log.append(event)
        if event.subject in self.runs:
            self.runs[event.subject].revision = event.sequence
        self._changed.set()
        self._changed = asyncio.Event()

    async def enter(self, run: Run, state: Run.State, **change: Any) -> None:
        """Puts a run into a state."""
        before, run.state = run.state, state
        detail = RunChange(to=state, attempt=run.attempt, **change)
        setattr(detail, "from", before)
        if detail.HasField("error"):
            run.error.CopyFrom(detail.error)
        await self.append(
            Event(kind=Event.KIND_RUN_STATE_CHANGED, subject=run.name, actor="host", run=detail)
        )

    async def step(self, run: Run, kind: Step.Kind, state: Step.State, detail: str = "") -> None:
        """Puts a step into a state."""
        step = next(s for s in run.steps if s.kind == kind)
        step.state, step.detail = state, detail
        moment = step.start_time if state == Step.STATE_RUNNING else step.end_time
        moment.seconds = 1_760_000_000 + len(self.log)
        await self.append(Event(kind=Event.KIND_STEP_CHANGED, subject=run.name, actor="host", step=step))

    def new_run(self, name: str = RUN, **fields: Any) -> Run:
        run = Run(name=name, state=Run.STATE_QUEUED, attempt=1, requester="admin", **fields)
        run.create_time.seconds = 1_760_000_000
        kinds = [Step.KIND_EXPORT] if not fields.get("artifact") else []
        kinds += [Step.KIND_VALIDATE, Step.KIND_IMPORT, Step.KIND_PUBLISH, Step.KIND_VERIFY]
        run.steps.extend(Step(kind=kind, state=Step.STATE_PENDING) for kind in kinds)
        self.runs[name] = run
        return run

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def seen(self, method: str) -> list[Any]:
        return [request for name, request in self.calls if name == method]

    async def called(self, method: str, request: Any, context: Any) -> None:
        self.calls.append((method, request))
        self.metadata.append(dict(context.invocation_metadata() or ()))
        self.peers.add(context.peer())
        if self.failures.get(method):
            raise self.failures[method].pop(0)

    def once(self, request: Any, kind: type[T]) -> T | None:
        seen = self._answers.get(request.request_id)
        return None if seen is None else kind.FromString(seen)  # type: ignore[attr-defined] # messages

    def remember(self, request: Any, answer: Any) -> None:
        self._answers[request.request_id] = answer.SerializeToString()


async def _refuse(context: Any, error: PipelineHostError) -> None:
    await context.abort_with_status(rpc_status.to_status(to_status(error)))


def _guarded(method: Any) -> Any:
    async def unary(self: Any, request: Any, context: Any) -> Any:
        try:
            await self.host.called(method.__name__, request, context)
            return await method(self, request, context)
        except PipelineHostError as error:
            await _refuse(context, error)

    return unary


def _guarded_stream(method: Any) -> Any:
    async def stream(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            await self.host.called(method.__name__, request, context)
            async for response in method(self, request, context):
                yield response
        except PipelineHostError as error:
            await _refuse(context, error)

    return stream


def missing(name: str) -> NotFound:
    return NotFound(
        ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND, f"There is no {name}.", remedy="Look at the list."
    )


def _one(store: dict[str, T], name: str) -> T:
    if name not in store:
        raise missing(name)
    return store[name]


def _page(items: list[Any], request: Any) -> tuple[list[Any], str]:
    start, size = int(request.page_token or 0), request.page_size or 50
    return items[start : start + size], str(start + size) if start + size < len(items) else ""


class _Host(pipeline_host_pb2_grpc.PipelineHostServicer):
    def __init__(self, host: FakeHost) -> None:
        self.host = host

    @_guarded
    async def GetHost(self, request: Any, context: Any) -> Any:
        return api.Host(version="0.1.0", region="europe", caller=self.host.caller, groups=self.host.groups)

    async def _not_here(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "tests use a real host for this")

    GetPrincipal = ListPrincipals = CreatePrincipal = UpdatePrincipal = DeletePrincipal = _not_here
    CreateToken = ListTokens = RevokeToken = _not_here
    PruneEvents = _not_here

    async def _no_stream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._not_here(request, context)
        yield None

    ExportEvents = VerifyEvents = _no_stream

    @_guarded_stream
    async def WatchEvents(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield api.WatchEventsResponse(resume_token="t0")

    @_guarded
    async def GetEnvironment(self, request: Any, context: Any) -> Any:
        return _one(self.host.environments, request.name)

    @_guarded
    async def ListEnvironments(self, request: Any, context: Any) -> Any:
        page, token = _page(sorted(self.host.environments.values(), key=lambda e: e.name), request)
        return api.ListEnvironmentsResponse(environments=page, next_page_token=token)

    @_guarded
    async def CreateEnvironment(self, request: Any, context: Any) -> Any:
        return self._put(self.host.environments, request, request.environment, new=True)

    @_guarded
    async def UpdateEnvironment(self, request: Any, context: Any) -> Any:
        return self._put(self.host.environments, request, request.environment, new=False)

    @_guarded
    async def DeleteEnvironment(self, request: Any, context: Any) -> Any:
        _one(self.host.environments, request.name)
        del self.host.environments[request.name]
        return Empty()

    def _put(self, store: dict[str, Any], request: Any, resource: Any, *, new: bool) -> Any:
        seen = self.host.once(request, type(resource))
        if seen is not None:
            return seen
        if new and resource.name in store:
            raise AlreadyExists(ErrorReason.ERROR_REASON_RESOURCE_EXISTS, f"{resource.name} exists.")
        answer = type(resource)()
        answer.CopyFrom(resource)
        if not new:
            answer.CopyFrom(_one(store, resource.name))
            for path in request.update_mask.paths or [f.name for f in resource.DESCRIPTOR.fields]:
                answer.ClearField(path)
            request.update_mask.MergeMessage(
                resource, answer
            ) if request.update_mask.paths else answer.MergeFrom(resource)
        answer.etag = f"e{len(self.host.calls)}"
        answer.create_time.seconds = answer.update_time.seconds = 1_760_000_000
        if not request.validate_only:
            store[answer.name] = answer
            self.host.remember(request, answer)
        return answer

    @_guarded
    async def SetEnvironmentCredential(self, request: Any, context: Any) -> Any:
        stages = {s.name: s for p in self.host.pipelines.values() for s in p.stages}
        _one({**self.host.environments, **stages}, request.name)
        self.host.secrets[request.name] = request
        return Empty()

    @_guarded
    async def TakeOverEnvironment(self, request: Any, context: Any) -> Any:
        return _one(self.host.environments, request.name)

    @_guarded
    async def CheckEnvironment(self, request: Any, context: Any) -> Any:
        _one(self.host.environments, request.name)
        return self.host.health

    @_guarded
    async def ListSolutions(self, request: Any, context: Any) -> Any:
        return api.ListSolutionsResponse(solutions=self.host.solutions.get(request.environment, []))

    @_guarded
    async def DescribeSolution(self, request: Any, context: Any) -> Any:
        page, token = _page(list(self.host.description.components), request)
        answer = api.DescribeSolutionResponse()
        answer.CopyFrom(self.host.description)
        del answer.components[:]
        answer.components.extend(page)
        answer.next_page_token = token
        return answer

    @_guarded
    async def ListConnections(self, request: Any, context: Any) -> Any:
        return api.ListConnectionsResponse(connections=self.host.connections.get(request.environment, []))

    @_guarded
    async def CreateConnection(self, request: Any, context: Any) -> Any:
        connection = Connection()
        connection.CopyFrom(request.connection)
        connection.name = connection.name or names.connection(request.environment, "c0ffee")
        self.host.connections.setdefault(request.environment, []).append(connection)
        return connection

    @_guarded
    async def DeleteConnection(self, request: Any, context: Any) -> Any:
        environment = request.name.rpartition("/connections/")[0]
        left = [c for c in self.host.connections.get(environment, []) if c.name != request.name]
        self.host.connections[environment] = left
        return Empty()

    @_guarded
    async def GetPipeline(self, request: Any, context: Any) -> Any:
        return _one(self.host.pipelines, request.name)

    @_guarded
    async def ListPipelines(self, request: Any, context: Any) -> Any:
        page, token = _page(sorted(self.host.pipelines.values(), key=lambda p: p.name), request)
        return api.ListPipelinesResponse(pipelines=page, next_page_token=token)

    @_guarded
    async def CreatePipeline(self, request: Any, context: Any) -> Any:
        return self._put(self.host.pipelines, request, request.pipeline, new=True)

    @_guarded
    async def UpdatePipeline(self, request: Any, context: Any) -> Any:
        return self._put(self.host.pipelines, request, request.pipeline, new=False)

    @_guarded
    async def DeletePipeline(self, request: Any, context: Any) -> Any:
        _one(self.host.pipelines, request.name)
        del self.host.pipelines[request.name]
        return Empty()

    @_guarded_stream
    async def ValidateDeployment(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for update in self.host.updates:
            yield update

    @_guarded
    async def Deploy(self, request: Any, context: Any) -> Any:
        seen = self.host.once(request, Run)
        if seen is not None:
            return seen
        pipeline = _one(self.host.pipelines, request.pipeline)
        stage = next((s for s in pipeline.stages if s.name == request.stage), pipeline.stages[0])
        artifact = self.host.artifacts.get(request.artifact, Artifact())
        source = (
            (request.development_environment or pipeline.development_environments[0])
            if request.solution
            else ""
        )
        run = self.host.new_run(
            f"runs/01jd{len(self.host.runs) + 1:022d}",
            pipeline=pipeline.name,
            stage=stage.name,
            solution=request.solution or artifact.solution,
            artifact=request.artifact,
            version=artifact.version,
            source_environment=source,
            target_environment=stage.environment,
            note=request.note,
        )
        await self.host.append(
            Event(kind=Event.KIND_DEPLOYMENT_REQUESTED, subject=run.name, actor="admin", message=request.note)
        )
        self.host.remember(request, run)
        if self.host.on_deploy is not None:
            self.host.begin(self.host.on_deploy(run))
        return run

    @_guarded
    async def RestoreArtifact(self, request: Any, context: Any) -> Any:
        artifact = _one(self.host.artifacts, request.artifact)
        run = self.host.new_run(
            f"runs/01jd{len(self.host.runs) + 1:022d}",
            artifact=artifact.name,
            solution=artifact.solution,
            version=artifact.version,
            target_environment=request.environment,
        )
        if self.host.on_deploy is not None:
            self.host.begin(self.host.on_deploy(run))
        return run

    @_guarded
    async def GetRun(self, request: Any, context: Any) -> Any:
        return _one(self.host.runs, request.name)

    @_guarded
    async def ListRuns(self, request: Any, context: Any) -> Any:
        page, token = _page(sorted(self.host.runs.values(), key=lambda r: r.name, reverse=True), request)
        return api.ListRunsResponse(runs=page, next_page_token=token)

    @_guarded_stream
    async def WatchRun(self, request: Any, context: Any) -> AsyncIterator[Any]:
        host = self.host
        run = _one(host.runs, request.name)
        host.watches += 1
        try:
            if not request.resume_token:
                after = len(host.log)
                yield api.WatchRunResponse(run=run, resume_token=f"t{after}")
            elif request.resume_token[:1] == "t":
                after = int(request.resume_token[1:])
            else:
                raise OutOfRange(ErrorReason.ERROR_REASON_RESUME_TOKEN_INVALID, "Not a token of this run.")
            sent = 0
            while True:
                for event in host.log[after:]:
                    after += 1
                    if event.subject == run.name:
                        yield api.WatchRunResponse(event=event, resume_token=f"t{after}")
                        sent += 1
                        if host.cut_after is not None and sent >= host.cut_after:
                            raise Unavailable(
                                ErrorReason.ERROR_REASON_HOST_UNAVAILABLE, "The host is stopping."
                            )
                if after < len(host.log):  # more has come while this was sent
                    continue
                if run.state in FINISHED:
                    yield api.WatchRunResponse(run=run, resume_token=f"t{after}")
                    return
                try:
                    await asyncio.wait_for(host._changed.wait(), host.heartbeat_seconds)
                except TimeoutError:
                    waiting = host.queues.get(run.target_environment, api.Queue()).waiting
                    place = list(waiting).index(run.name) + 1 if run.name in waiting else 0
                    beat = api.WatchRunResponse.Heartbeat(queue_position=place)
                    yield api.WatchRunResponse(heartbeat=beat, resume_token=f"t{after}")
        finally:
            host.watches -= 1

    @_guarded
    async def CancelRun(self, request: Any, context: Any) -> Any:
        run = _one(self.host.runs, request.name)
        await self.host.enter(run, Run.STATE_CANCELLED)
        return run

    @_guarded
    async def Approve(self, request: Any, context: Any) -> Any:
        run = _one(self.host.runs, request.name)
        self.host.decided.append(request)
        await self.host.enter(run, Run.STATE_QUEUED)
        return run

    @_guarded
    async def Reject(self, request: Any, context: Any) -> Any:
        run = _one(self.host.runs, request.name)
        self.host.decided.append(request)
        await self.host.enter(run, Run.STATE_REJECTED)
        return run

    @_guarded
    async def ListGateNotes(self, request: Any, context: Any) -> Any:
        return api.ListGateNotesResponse(notes=self.host.gate_notes)

    @_guarded
    async def GetFreeze(self, request: Any, context: Any) -> Any:
        return _one(self.host.freezes, request.name)

    @_guarded
    async def ListFreezes(self, request: Any, context: Any) -> Any:
        return api.ListFreezesResponse(freezes=[f for _, f in sorted(self.host.freezes.items())])

    @_guarded
    async def CreateFreeze(self, request: Any, context: Any) -> Any:
        return self._put(self.host.freezes, request, request.freeze, new=True)

    @_guarded
    async def UpdateFreeze(self, request: Any, context: Any) -> Any:
        return self._put(self.host.freezes, request, request.freeze, new=False)

    @_guarded
    async def DeleteFreeze(self, request: Any, context: Any) -> Any:
        del self.host.freezes[request.name]
        return Empty()

    @_guarded
    async def RescheduleRun(self, request: Any, context: Any) -> Any:
        run = _one(self.host.runs, request.name)
        run.ClearField("schedule_time")
        if request.HasField("schedule_time"):
            run.schedule_time.CopyFrom(request.schedule_time)
            run.wait.until.CopyFrom(request.schedule_time)
            run.wait.reason = "that is its time"
        await self.host.enter(
            run, Run.STATE_SCHEDULED if request.HasField("schedule_time") else Run.STATE_QUEUED
        )
        return run

    @_guarded
    async def RetryRun(self, request: Any, context: Any) -> Any:
        run = _one(self.host.runs, request.name)
        run.attempt += 1
        run.ClearField("error")
        await self.host.enter(run, Run.STATE_QUEUED)
        if self.host.on_deploy is not None:
            self.host.begin(self.host.on_deploy(run))
        return run

    @_guarded
    async def ResolveRun(self, request: Any, context: Any) -> Any:
        run = _one(self.host.runs, request.name)
        applied = request.resolution == api.ResolveRunRequest.RESOLUTION_APPLIED
        await self.host.enter(run, Run.STATE_DEPLOYING if applied else Run.STATE_FAILED)
        return run

    @_guarded
    async def ListFindings(self, request: Any, context: Any) -> Any:
        page, token = _page(self.host.findings.get(request.run, []), request)
        return api.ListFindingsResponse(findings=page, next_page_token=token)

    @_guarded
    async def ListRunSettings(self, request: Any, context: Any) -> Any:
        return api.ListRunSettingsResponse(settings=[Setting(name="contoso_Url")])

    @_guarded
    async def ListComponentResults(self, request: Any, context: Any) -> Any:
        return api.ListComponentResultsResponse(results=[ComponentResult(result="success")])

    @_guarded
    async def GetRunPipeline(self, request: Any, context: Any) -> Any:
        return _one(self.host.pipelines, _one(self.host.runs, request.run).pipeline)

    @_guarded
    async def GetQueue(self, request: Any, context: Any) -> Any:
        return self.host.queues.get(request.environment, api.Queue())

    @_guarded
    async def ListEvents(self, request: Any, context: Any) -> Any:
        log = list(reversed(self.host.log)) if request.order_by == "sequence desc" else self.host.log
        page, token = _page(log, request)
        return api.ListEventsResponse(events=page, next_page_token=token)


class _Artifacts(artifacts_pb2_grpc.ArtifactsServicer):
    def __init__(self, host: FakeHost) -> None:
        self.host = host

    @_guarded
    async def GetArtifact(self, request: Any, context: Any) -> Any:
        return _one(self.host.artifacts, request.name)

    @_guarded
    async def ListArtifacts(self, request: Any, context: Any) -> Any:
        page, token = _page(list(self.host.artifacts.values()), request)
        return artifacts_api.ListArtifactsResponse(artifacts=page, next_page_token=token)

    @_guarded
    async def BlockArtifact(self, request: Any, context: Any) -> Any:
        artifact = _one(self.host.artifacts, request.name)
        artifact.block.reason, artifact.block.principal = request.reason, "principals/admin"
        return artifact

    @_guarded
    async def UnblockArtifact(self, request: Any, context: Any) -> Any:
        artifact = _one(self.host.artifacts, request.name)
        artifact.ClearField("block")
        return artifact

    async def UploadArtifact(self, requests: Any, context: Any) -> Any:
        try:
            await self.host.called("UploadArtifact", None, context)
            declaration, package = None, b""
            async for request in requests:
                if declaration is None:
                    declaration = request.declaration
                package += request.chunk
            digest = hashlib.sha256(package).hexdigest()
            if declaration is None or (declaration.size, declaration.sha256) != (len(package), digest):
                raise InvalidArgument(ErrorReason.ERROR_REASON_DIGEST_MISMATCH, "Other bytes arrived.")
            name = names.artifact(digest)
            artifact = Artifact(
                name=name, solution="ContosoSales", version="1.2.0.0", managed=True, size=len(package)
            )
            self.host.artifacts.setdefault(name, artifact)
            self.host.packages[name] = package
            return self.host.artifacts[name]
        except PipelineHostError as error:
            await _refuse(context, error)

    @_guarded_stream
    async def DownloadArtifact(self, request: Any, context: Any) -> AsyncIterator[Any]:
        artifact = _one(self.host.artifacts, request.name)
        package = self.host.packages[artifact.name]
        sha256 = artifact.source_sha256 if request.source else names.slug(artifact.name)
        if request.source:
            package = self.host.packages[names.artifact(sha256)]
        size = self.host.artifacts[artifact.name].size if not request.source else len(package)
        yield artifacts_api.DownloadArtifactResponse(
            declaration=artifacts_api.DownloadArtifactResponse.Declaration(
                artifact=artifact, size=size, sha256=sha256
            )
        )
        for start in range(0, len(package), 512 * 1024):
            yield artifacts_api.DownloadArtifactResponse(chunk=package[start : start + 512 * 1024])
