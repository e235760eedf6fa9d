"""Client and emulator against each other: one suite, in process and over a real socket on loopback.

What both must agree on is the Web API; where an environment may or may not honour our ImportJobId, the suite
runs both ways.
"""

import asyncio
import contextlib
import json
import random
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from pipelinehost_dataverse.emulator import EmbeddedEnvironment
from pipelinehost_dataverse.solution import (
    Column,
    ComponentKey,
    ConnectionReference,
    EnvironmentVariable,
    Part,
    Table,
    VariableType,
    Version,
    WebResource,
    cloud_flow,
    missing,
    new_manifest,
    read,
    rewrite,
    write,
)
from pipelinehost_dataverse.webapi import (
    SOLUTION_LOCK,
    AnswerLost,
    BadAnswer,
    ConnectionParameter,
    EnvironmentBusy,
    ImportIntent,
    ImportMode,
    ImportOperation,
    ImportProgress,
    NotFound,
    OperationState,
    Policy,
    Refused,
    Severity,
    VariableParameter,
    Verdict,
    Wait,
    WebApi,
)

MAIL = "/providers/Microsoft.PowerApps/apis/shared_office365"
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
Wrap = Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport]


@dataclass
class Place:
    """An environment and the way to it."""

    environment: EmbeddedEnvironment
    url: str
    transport: Callable[[], httpx.AsyncBaseTransport]

    @asynccontextmanager
    async def web(self, wrap: Wrap | None = None, policy: Policy | None = None) -> AsyncIterator[WebApi]:
        transport = self.transport() if wrap is None else wrap(self.transport())
        async with WebApi(self.url, connectivity_url=self.url, transport=transport, policy=policy) as web:
            yield web


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """The application on a free port of loopback, in a thread, below /qa as the emulator serves it."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            Starlette(routes=[Mount("/qa", app)]),
            log_level="critical",
            lifespan="off",
            date_header=False,
            ws="none",
            timeout_graceful_shutdown=2,
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/qa"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


@contextmanager
def opened(folder: Path, way: str, **options: Any) -> Iterator[Place]:
    with EmbeddedEnvironment.open(folder / "qa.sqlite", name="qa", region="Europe", **options) as environment:
        if way == "in process":
            yield Place(
                environment,
                "http://embedded.invalid",
                lambda: httpx.ASGITransport(environment.app, raise_app_exceptions=False),
            )
        else:
            with served(environment.app) as url:
                yield Place(environment, url, httpx.AsyncHTTPTransport)


WAYS = pytest.mark.parametrize("way", ["in process", "loopback"])


@pytest.fixture(params=["in process", "loopback"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with opened(tmp_path, request.param) as found:
        yield found


PARTS: tuple[Part, ...] = (
    Table("cts_expense", (Column("cts_amount", "money"), Column("cts_note")), display_name="Expense"),
    ConnectionReference("cts_Mail", "Mail", "", MAIL),
    EnvironmentVariable("cts_Approver", "Approver", "", VariableType.STRING, None, required=True),
    EnvironmentVariable("cts_Limit", "Limit", "", VariableType.NUMBER, "100", required=False),
    cloud_flow("Approve", connection_references=["cts_Mail"], environment_variables=["cts_Approver"]),
)
V1 = write(new_manifest("Expenses", "1.0.0.0", managed=True, display_name="Contoso expenses"), *PARTS)
V2 = write(
    new_manifest("Expenses", "2.0", managed=True),
    Table("cts_expense", (Column("cts_amount", "money"),)),
    *PARTS[1:],
)
SOURCE = rewrite(V1, managed=False)
NOTE = ComponentKey("attribute", "cts_expense.cts_note")


async def ended(web: WebApi, operation: ImportOperation) -> ImportProgress:
    """Follow an import until it has ended; its percent never goes back."""
    percent = 0.0
    async with asyncio.timeout(20):
        while True:
            progress = await web.import_progress(operation)
            assert percent <= progress.percent <= 100
            percent = progress.percent
            if progress.state is not OperationState.RUNNING:
                return progress
            await asyncio.sleep(0.02)


async def installed(web: WebApi, package: bytes, *, upgrade: bool = True, **options: Any) -> ImportOperation:
    manifest = read(package).manifest
    intent = await web.prepare_import(manifest.unique_name, manifest.version, upgrade=upgrade)
    operation = await web.start_import(package, intent, **options)
    progress = await ended(web, operation)
    assert progress.state is OperationState.SUCCEEDED, progress
    return operation


async def keys(web: WebApi, name: str) -> set[ComponentKey | None]:
    solution = await web.solution(name)
    assert solution is not None
    return {c.key for c in await web.installed_components(solution)}


# ---- reading an environment -------------------------------------------------------------------------------


async def test_an_environment_tells_who_it_is(place: Place) -> None:
    async with place.web() as web:
        me = await web.who_am_i()
        organization = await web.organization()
        assert me.organization_id == organization.id
        assert (organization.display_name, organization.geo) == ("qa", "Europe")
        assert organization.version.startswith("9.2.")
        assert await web.solution("Expenses") is None
        assert await web.solution("O'Brien's \"Expenses\" & more") is None
        assert await web.running_operations() == []
        assert await web.history("Expenses") == []


async def test_what_does_not_exist_is_not_found(place: Place) -> None:
    async with place.web() as web:
        nobody = (await web.who_am_i()).user_id
        with pytest.raises(NotFound):
            await web.import_progress(ImportOperation(nobody, nobody))
        await web.discard_upload(nobody)  # gone already is fine


# ---- import ---------------------------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize("honour", [True, False])
async def test_a_first_import_and_what_it_leaves(tmp_path: Path, way: str, honour: bool) -> None:
    with opened(tmp_path, way, honour_import_job_id=honour) as place:
        async with place.web() as web:
            intent = await web.prepare_import("Expenses", Version.parse("1.0"), upgrade=True)
            assert (intent.mode, intent.installed_version, intent.known_job_ids) == (
                ImportMode.UPDATE,
                None,
                (),
            )
            assert abs(datetime.now(UTC) - intent.environment_time) < timedelta(seconds=5)
            operation = await web.start_import(V1, intent)
            assert (operation.import_job_id == intent.import_job_id) is honour
            assert (await ended(web, operation)).percent == 100

            result = await web.import_result(operation)
            assert (result.solution, str(result.version)) == ("Expenses", "1.0.0.0")
            assert (result.state, result.code) == (OperationState.SUCCEEDED, "")
            assert {c.severity for c in result.components} == {Severity.INFO}
            assert ("entity", "Expense") in {(c.kind, c.name) for c in result.components}
            assert result.started_on is not None
            assert result.completed_on is not None

            solution = await web.solution("EXPENSES")
            assert solution is not None
            assert (solution.unique_name, solution.display_name) == ("Expenses", "Contoso expenses")
            assert (solution.version, solution.managed) == (Version.parse("1.0"), True)
            assert solution.publisher_unique_name == "contoso"
            assert not solution.is_upgrade_leftover
            assert solution.unique_name in {s.unique_name for s in await web.solutions()}
            assert await keys(web, "Expenses") == {c.identity for c in read(V1).components}
            (row,) = await web.history("expenses")
            assert (row.operation, row.version, row.completed, row.succeeded) == (0, "1.0.0.0", True, True)
            later = await web.prepare_import("Expenses", Version.parse("2.0"), upgrade=True)
            assert later.known_history_ids == (row.id,)
            assert later.known_job_ids == (operation.import_job_id,)
            assert later.installed_version == Version.parse("1.0")
            assert later.mode is ImportMode.UPGRADE


async def test_an_upgrade_deletes_and_an_update_does_not(place: Place) -> None:
    async with place.web() as web:
        await installed(web, V1)
        assert NOTE in await keys(web, "Expenses")
        await installed(web, V2, upgrade=False)
        assert NOTE in await keys(web, "Expenses")
        await installed(web, rewrite(V2, version="3.0"))
        assert NOTE not in await keys(web, "Expenses")
        solution = await web.solution("Expenses")
        assert solution is not None
        assert solution.version == Version.parse("3.0")
        assert await web.solution("Expenses_Upgrade") is None


async def test_an_import_that_fails_tells_why(place: Place) -> None:
    async with place.web() as web:
        await installed(web, SOURCE)
        intent = await web.prepare_import("Expenses", Version.parse("2.0"), upgrade=True)
        assert intent.mode is ImportMode.UPDATE  # an unmanaged solution cannot be upgraded
        operation = await web.start_import(V2, intent)
        progress = await ended(web, operation)
        assert (progress.state, progress.code) == (OperationState.FAILED, "0x80048040")
        assert progress.message
        result = await web.import_result(operation)
        assert (result.state, result.code) == (OperationState.FAILED, "0x80048040")
        assert Severity.ERROR in {c.severity for c in result.components}
        row = (await web.history("Expenses"))[0]
        assert (row.succeeded, row.code) == (False, "0x80048040")


async def test_an_upgrade_that_is_blocked_leaves_its_holding_solution(place: Place) -> None:
    other = write(
        new_manifest(
            "Reports",
            "1.0",
            managed=True,
            prefix="rep",
            missing_dependencies=[missing(NOTE, ("workflow", "x"))],
        ),
        cloud_flow("Report"),
    )
    async with place.web() as web:
        await installed(web, V1)
        await installed(web, other)
        intent = await web.prepare_import("Expenses", Version.parse("2.0"), upgrade=True)
        progress = await ended(web, await web.start_import(V2, intent))
        assert (progress.state, progress.code) == (OperationState.FAILED, "0x8004F046")
        leftover = await web.solution("Expenses_Upgrade")
        assert leftover is not None
        assert leftover.is_upgrade_leftover
        staged = await web.stage_solution(V2)
        assert staged.solution is not None
        assert staged.solution.has_pending_upgrade


async def test_a_second_import_waits_and_says_so(tmp_path: Path) -> None:
    told: list[Wait] = []
    with opened(tmp_path, "in process", pace=0.5) as place:
        async with place.web(policy=Policy(lock_budget=0)) as impatient, place.web() as web:
            intent = await web.prepare_import("Expenses", Version.parse("1.0"), upgrade=True)
            operation = await web.start_import(V1, intent)
            (running,) = await web.running_operations()
            assert (running.id, running.imports, running.user_id) == (
                operation.async_operation_id,
                True,
                intent.user_id,
            )
            with pytest.raises(EnvironmentBusy) as caught:
                await impatient.start_import(V1, intent)
            assert (caught.value.code, caught.value.retry_after) == (SOLUTION_LOCK, 2)
            second = await web.prepare_import("Expenses", Version.parse("1.0"), upgrade=False)
            again = await web.telling(told.append).start_import(V1, second)
            assert [(w.code, w.attempt) for w in told] == [(SOLUTION_LOCK, 1)]
            assert told[0].seconds >= 2
            assert (await ended(web, again)).state is OperationState.SUCCEEDED
            assert await web.running_operations() == []


# ---- a lost answer ----------------------------------------------------------------------------------------


class Losing(httpx.AsyncBaseTransport):
    """Loses the answer to every import: after the environment has it, or before it gets there."""

    def __init__(self, inner: httpx.AsyncBaseTransport, *, received: bool) -> None:
        self.inner = inner
        self.received = received
        self.posts = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        lost = request.method == "POST" and request.url.path.endswith(
            tuple(mode.value for mode in ImportMode)
        )
        self.posts += lost
        if lost and not self.received:
            raise httpx.WriteError("cut off", request=request)
        response = await self.inner.handle_async_request(request)
        if lost:
            await response.aclose()
            raise httpx.ReadError("cut off", request=request)
        return response

    async def aclose(self) -> None:
        await self.inner.aclose()


@WAYS
@pytest.mark.parametrize("honour", [True, False])
@pytest.mark.parametrize("package", [V1, V2], ids=["first", "upgrade"])
async def test_an_import_whose_answer_is_lost_is_found(
    tmp_path: Path, way: str, honour: bool, package: bytes
) -> None:
    losing: list[Losing] = []

    def wrap(inner: httpx.AsyncBaseTransport) -> Losing:
        losing.append(Losing(inner, received=True))
        return losing[0]

    with opened(tmp_path, way, honour_import_job_id=honour, pace=0.1) as place:
        async with place.web(wrap) as web, place.web() as sound:
            if package is V2:
                await installed(sound, V1)
            version = read(package).manifest.version
            intent = await web.prepare_import("Expenses", version, upgrade=True)
            with pytest.raises(AnswerLost):
                await web.start_import(package, intent)
            intent = ImportIntent.from_json(intent.to_json())
            async with asyncio.timeout(10):
                while (seen := await web.reconcile(intent)).verdict is Verdict.UNDECIDED:
                    assert seen.look_again_in is not None, seen.evidence
                    await asyncio.sleep(0.05)
            assert seen.verdict is Verdict.FOUND
            assert seen.operation is not None
            assert (seen.operation.import_job_id == intent.import_job_id) is honour
            operation = ImportOperation.from_json(seen.operation.to_json())
            assert (await ended(web, operation)).state is OperationState.SUCCEEDED
            again = await web.reconcile(intent)
            assert (again.verdict, again.operation) == (Verdict.FOUND, operation)
            solution = await web.solution("Expenses")
            assert solution is not None
            assert solution.version == version
    assert losing[0].posts == 1


@WAYS
@pytest.mark.parametrize("honour", [True, False])
async def test_an_import_that_never_arrived_may_be_posted_after_quiet(
    tmp_path: Path, way: str, honour: bool
) -> None:
    with opened(tmp_path, way, honour_import_job_id=honour) as place:
        async with place.web(lambda inner: Losing(inner, received=False)) as web, place.web() as sound:
            await installed(sound, V1)
            intent = await web.prepare_import("Expenses", Version.parse("2.0"), upgrade=True)
            with pytest.raises(AnswerLost):
                await web.start_import(V2, intent)
            first = await web.reconcile(intent)
            assert (first.verdict, first.nothing_since) == (Verdict.UNDECIDED, first.asked_at)
            assert first.look_again_in == timedelta(minutes=10)
            quiet = timedelta(seconds=1)
            since = first.nothing_since
            async with asyncio.timeout(10):
                while (seen := await web.reconcile(intent, nothing_since=since, quiet=quiet)).look_again_in:
                    since = seen.nothing_since
                    await asyncio.sleep(0.2)
            assert seen.verdict is Verdict.NOT_RECEIVED


@WAYS
@pytest.mark.parametrize("honour", [True, False])
@pytest.mark.parametrize("received", [True, False])
async def test_an_older_version_is_told_from_its_import_a_moment_ago(
    tmp_path: Path, way: str, honour: bool, received: bool
) -> None:
    """Whoever goes back finds the first import of that version in the history, of the same second maybe."""
    with opened(tmp_path, way, honour_import_job_id=honour, allow_downgrade=True) as place:
        async with place.web(lambda inner: Losing(inner, received=received)) as web, place.web() as sound:
            await installed(sound, V1)
            await installed(sound, V2)
            older = Version.parse("1.0")
            intent = await web.prepare_import("Expenses", older, upgrade=False)
            assert len(intent.known_history_ids) == 2
            with pytest.raises(AnswerLost):
                await web.start_import(V1, intent)
            intent, since, quiet = (
                ImportIntent.from_json(intent.to_json()),
                None,
                timedelta(seconds=1),
            )
            async with asyncio.timeout(10):
                while True:
                    seen = await web.reconcile(intent, nothing_since=since, quiet=quiet)
                    if seen.verdict is not Verdict.UNDECIDED:
                        break
                    assert seen.look_again_in is not None, seen.evidence
                    since = seen.nothing_since
                    await asyncio.sleep(0.1)
            if not received:
                assert seen.verdict is Verdict.NOT_RECEIVED
                return
            assert seen.verdict is Verdict.FOUND
            assert seen.operation is not None
            assert seen.operation.import_job_id not in intent.known_job_ids
            assert (seen.operation.import_job_id == intent.import_job_id) is honour
            assert (await ended(web, seen.operation)).percent == 100


async def test_an_import_by_another_is_not_taken_for_ours(place: Place) -> None:
    async with place.web(lambda inner: Losing(inner, received=False)) as web, place.web() as other:
        intent = await web.prepare_import("Expenses", Version.parse("2.0"), upgrade=True)
        with pytest.raises(AnswerLost):
            await web.start_import(V2, intent)
        await installed(other, V1)
        seen = await web.reconcile(intent, quiet=timedelta(0))
        assert (seen.verdict, seen.operation, seen.look_again_in) == (Verdict.UNDECIDED, None, None)
        assert "installed version: 1.0.0.0" in seen.evidence


# ---- stage, export, publish -------------------------------------------------------------------------------


async def test_a_package_is_staged_and_its_upload_discarded(place: Place) -> None:
    async with place.web() as web:
        staged = await web.stage_solution(V1)
        assert staged.passed
        assert staged.solution is not None
        assert (staged.solution.unique_name, staged.solution.managed) == ("Expenses", True)
        assert staged.solution.previous_version is None
        names = {c.attributes.get("schemaname") for c in staged.components}
        assert {"cts_Approver", "cts_Limit"} <= names
        assert staged.upload_id is not None
        await web.discard_upload(staged.upload_id)
        await web.discard_upload(staged.upload_id)
        assert await web.solution("Expenses") is None
        await installed(web, V1)
        staged = await web.stage_solution(V2)
        assert staged.solution is not None
        assert staged.solution.previous_version == Version.parse("1.0")
        assert staged.solution.previous_managed


async def test_a_package_that_cannot_be_imported_fails_its_stage(place: Place) -> None:
    required = ("connectionreference", "other_ref")
    package = write(
        new_manifest(
            "Needy", "1.0", managed=True, missing_dependencies=[missing(required, ("workflow", "x"))]
        ),
        cloud_flow("Needs"),
    )
    async with place.web() as web:
        staged = await web.stage_solution(package)
        assert not staged.passed
        assert "0x8004801D" in {f.code for f in staged.findings if f.severity is Severity.ERROR}
        (lacking,) = staged.missing_dependencies
        assert "other_ref" in {lacking.required.schema_name, lacking.required.display_name}
        assert lacking.required.type


async def test_what_is_no_package_is_refused_or_fails(place: Place) -> None:
    async with place.web() as web:
        # Which of the two a real environment does is not known.
        with contextlib.suppress(Refused):
            assert not (await web.stage_solution(b"no zip at all")).passed


async def test_a_solution_is_exported_both_ways(place: Place) -> None:
    async with place.web() as web:
        await installed(web, SOURCE)
        await web.publish_all()
        for managed in (True, False):
            manifest = read(await web.export_solution("Expenses", managed=managed)).manifest
            assert (manifest.unique_name, str(manifest.version)) == ("Expenses", "1.0.0.0")
            assert manifest.managed is managed
        with pytest.raises(Refused) as caught:
            await web.export_solution("Nothing", managed=True)
        assert caught.value.code


async def test_a_managed_solution_cannot_be_exported(place: Place) -> None:
    async with place.web() as web:
        await installed(web, V1)
        with pytest.raises(Refused) as caught:
            await web.export_solution("Expenses", managed=False)
        assert caught.value.code == "0x80048036"


async def test_a_large_package_does_not_hold_others_up(place: Place) -> None:
    noise = random.Random(1).randbytes(12 * 2**20)  # does not compress
    large = write(new_manifest("Large", "1.0"), WebResource("cts_/noise", noise))
    async with place.web() as web:
        answered = 0

        async def ask() -> None:
            nonlocal answered
            while True:
                await web.who_am_i()
                answered += 1
                await asyncio.sleep(0.005)  # in process, a read alone never lets go of the loop

        asking = asyncio.create_task(ask())
        staged = await web.stage_solution(large)
        asking.cancel()
        assert staged.passed
        assert answered >= 4, "how long each of them waits is measured by a benchmark"


# ---- variables, connections, dependencies -----------------------------------------------------------------


async def test_values_and_connections_travel_with_an_import(place: Place) -> None:
    async with place.web() as web:
        made = await web.create_connection(MAIL, "Mail of finance", connection_id="mail-1")
        assert (made.id, made.connector_id, made.status) == ("mail-1", MAIL, "Connected")
        other = await web.create_connection(MAIL, "Another")
        assert {c.id for c in await web.connections() or ()} == {"mail-1", other.id}
        await web.delete_connection(other.id)
        with pytest.raises(NotFound):
            await web.delete_connection(other.id)
        assert await web.connections() == [made]

        parameters = (
            ConnectionParameter("cts_Mail", "mail-1", MAIL),
            VariableParameter("cts_Approver", "Ännchen 'O\"Brien' <a@b>\n"),
        )
        await installed(web, V1, parameters=parameters)
        variables = {v.schema_name: v for v in await web.environment_variables()}
        approver = variables["cts_Approver"]
        assert approver.value == "Ännchen 'O\"Brien' <a@b>\n"
        assert approver.value_id
        assert (approver.default, approver.required, approver.type) == (None, True, VariableType.STRING)
        limit = variables["cts_Limit"]
        assert (limit.default, limit.value, limit.value_id, limit.required) == ("100", None, None, False)
        assert await web.environment_variables(["cts_limit", "no_such"]) == [limit]
        (reference,) = await web.connection_references(["cts_Mail"])
        assert (reference.connection_id, reference.connector_id) == ("mail-1", MAIL)
        assert await web.connection_references(["O'Brien"]) == []

        replaced = (VariableParameter("cts_Approver", "second", approver.value_id),)
        await installed(web, V2, parameters=replaced)
        (approver,) = await web.environment_variables(["cts_Approver"])
        assert approver.value == "second"


async def test_what_depends_on_a_component(place: Place) -> None:
    async with place.web() as web:
        await installed(web, V1)
        solution = await web.solution("Expenses")
        assert solution is not None
        components = {c.key: c for c in await web.installed_components(solution)}
        reference = components[ComponentKey("connectionreference", "cts_mail")]
        flow = next(c for c in components.values() if c.key and c.key.kind == "workflow")
        assert reference.type_code >= 10_000
        found = await web.dependants(reference.object_id, reference.type_code)
        assert (flow.object_id, flow.type_code) in {(d.object_id, d.type_code) for d in found}


# ---- pages, and answers that are not as documented --------------------------------------------------------


class Tampering(httpx.AsyncBaseTransport):
    """Changes requests or answers on their way."""

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        on_request: Callable[[httpx.Request], None] | None = None,
        on_answer: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.inner = inner
        self.on_request = on_request
        self.on_answer = on_answer
        self.requests = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if self.on_request:
            self.on_request(request)
        response = await self.inner.handle_async_request(request)
        if self.on_answer:
            content = json.loads(await response.aread())
            self.on_answer(content)
            return httpx.Response(response.status_code, json=content)
        return response

    async def aclose(self) -> None:
        await self.inner.aclose()


async def test_all_pages_are_read(place: Place) -> None:
    counted: list[Tampering] = []

    def small_pages(inner: httpx.AsyncBaseTransport) -> Tampering:
        def ask(request: httpx.Request) -> None:
            request.headers["Prefer"] = "odata.maxpagesize=3"

        counted.append(Tampering(inner, ask))
        return counted[0]

    async with place.web(small_pages) as web, place.web() as whole:
        await installed(whole, V1)
        solution = await whole.solution("Expenses")
        assert solution is not None
        everything = await whole.installed_components(solution)
        assert len(everything) > 6
        assert await web.installed_components(solution) == everything
        assert counted[0].requests == -(-len(everything) // 3)


async def test_a_page_elsewhere_is_not_asked(place: Place) -> None:
    def elsewhere(content: dict[str, Any]) -> None:
        content["@odata.nextLink"] = "https://evil.example/api/data/v9.2/solutions"

    async with place.web(lambda inner: Tampering(inner, on_answer=elsewhere)) as web:
        with pytest.raises(BadAnswer, match="another address"):
            await web.solutions()


# ---- real packages ----------------------------------------------------------------------------------------


async def test_the_captured_answer_is_given_for_the_captured_package(
    place: Place, real_solutions: Path
) -> None:
    package = (real_solutions / "valid" / "TerraformTestSolution_1_1_0_0_unmanaged.zip").read_bytes()
    captured = json.loads((GOLDEN / "stage_solution_terraform_test_1_1_0_0.json").read_text("utf-8-sig"))

    def replay(inner: httpx.AsyncBaseTransport) -> Tampering:
        def capture(content: dict[str, Any]) -> None:
            content.clear()
            content.update(captured)

        return Tampering(inner, on_answer=capture)

    async with place.web() as ours, place.web(replay) as theirs:
        given, expected = await ours.stage_solution(package), await theirs.stage_solution(package)
    assert given.passed
    assert given.solution == expected.solution
    assert given.findings == expected.findings
    assert {(c.type_name, c.name) for c in expected.components} == {
        (c.type_name, c.name) for c in given.components
    }


@pytest.mark.parametrize(
    "name", ["CenterofExcellenceCoreComponents_1_70", "VARify_1_0_0_3", "Success_1_1_0_0"]
)
async def test_components_of_real_packages_keep_their_identity(
    tmp_path: Path, real_solutions: Path, name: str
) -> None:
    package = next((real_solutions / "valid").glob(f"{name}_*.zip")).read_bytes()
    with opened(tmp_path, "in process") as place:
        async with place.web() as web:
            await installed(web, package)
            solution = read(package)
            assert await keys(web, solution.manifest.unique_name) == {c.identity for c in solution.components}
