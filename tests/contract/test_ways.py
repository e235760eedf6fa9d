"""One suite for every way to an environment: in process, over https with a sign-in, and to a real one.

The last is left out unless ``PIPELINEHOST_TEST_URL`` names a real environment that may be changed; see
CONTRIBUTING. What the suite installs there has names that begin with ``phcontract``, and it is uninstalled.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
from tests.authority import certificates
from tests.e2e.processes import EmulatorProcess

from pipelinehost_dataverse.emulator import EmbeddedEnvironment
from pipelinehost_dataverse.sign_in import Method, SignIn, Tokens
from pipelinehost_dataverse.solution import (
    EnvironmentVariable,
    VariableType,
    Version,
    WebResource,
    new_manifest,
    write,
)
from pipelinehost_dataverse.webapi import (
    ImportIntent,
    ImportMode,
    ImportOperation,
    ImportProgress,
    NotFound,
    OperationState,
    Refused,
    TokenSource,
    VariableParameter,
    WebApi,
    network,
)

CLIENT, SECRET = "01234567-89ab-cdef-0123-456789abcdef", "a-secret-of-this-test"
PREFIX = "phcontract"
Way = Callable[[], AbstractAsyncContextManager[WebApi]]


@contextmanager
def _in_process(folder: Path) -> Iterator[Way]:
    with EmbeddedEnvironment.open(folder / "qa.sqlite", name="qa") as environment:

        @asynccontextmanager
        async def way() -> AsyncIterator[WebApi]:
            transport = httpx.ASGITransport(environment.app, raise_app_exceptions=False)
            async with WebApi("http://embedded.invalid", transport=transport) as web:
                yield web

        yield way


@contextmanager
def _https(folder: Path) -> Iterator[Way]:
    files = certificates(folder / "tls")
    (folder / "clients").write_text(f"{CLIENT}={SECRET}\n")
    tls = ("--certificate", str(files.certificate), "--key", str(files.key))
    process = EmulatorProcess(
        folder, "qa", options=(*tls, "--require-token", "--clients", str(folder / "clients"))
    )
    process.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(files.authority))
        network._trust.cache_clear()
        origin = f"https://{process.address}"
        try:
            yield _signed_in(f"{origin}/qa", SignIn(Method.CLIENT_SECRET, "contoso", CLIENT, origin, SECRET))
        finally:
            process.stop()
            network._trust.cache_clear()


@contextmanager
def _real(_: Path) -> Iterator[Way]:
    url = os.environ.get("PIPELINEHOST_TEST_URL")
    if not url:
        pytest.skip("PIPELINEHOST_TEST_URL names no real environment (see CONTRIBUTING)")
    tenant, client, secret = (
        os.environ.get(f"PIPELINEHOST_TEST_{name}", "") for name in ("TENANT", "CLIENT_ID", "CLIENT_SECRET")
    )
    if secret:
        yield _signed_in(url, SignIn(Method.CLIENT_SECRET, tenant, client, secret=secret))
    else:
        yield _signed_in(url, SignIn(Method.DEVELOPER, tenant))


def _signed_in(url: str, how: SignIn) -> Way:
    @asynccontextmanager
    async def way() -> AsyncIterator[WebApi]:
        tokens: TokenSource = Tokens(lambda: how)
        async with WebApi(url, token=tokens) as web:
            yield web

    return way


WAYS = {"in process": _in_process, "https": _https, "real": _real}


@pytest.fixture(params=WAYS, scope="module")
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """A way to an environment that the tests of this module share, and leave as they have found it."""
    with WAYS[request.param](tmp_path_factory.mktemp("way")) as found:
        yield found


@pytest.fixture
async def solution(way: Way) -> AsyncIterator[str]:
    """A unique name; what is installed under it is uninstalled afterwards."""
    name = f"{PREFIX}{secrets.token_hex(4)}"
    yield name
    async with way() as web:
        if await web.solution(name) is not None:
            await _uninstall(web, name)
            assert await web.solution(name) is None


async def _uninstall(web: WebApi, name: str) -> None:
    """No part of the connector: a host never uninstalls."""
    from pipelinehost_dataverse.webapi.calls import Body

    started = await web._action("UninstallSolutionAsync", Body({"SolutionUniqueName": name}))
    await _ended(web, ImportOperation("", started.id("AsyncOperationId")))


async def _ended(web: WebApi, operation: ImportOperation, seconds: float = 900) -> ImportProgress:
    async with asyncio.timeout(seconds):
        pause = 0.05
        while True:
            progress = await web.import_progress(operation)
            if progress.state is not OperationState.RUNNING:
                return progress
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 5)


def package(name: str, version: str, *scripts: str) -> bytes:
    return write(
        new_manifest(name, version, managed=True, publisher=PREFIX, prefix=PREFIX),
        *(WebResource(f"{PREFIX}_/{name}/{script}.js", b"// contract\n") for script in scripts),
        EnvironmentVariable(
            f"{PREFIX}_{name}_limit", "Limit", "", VariableType.NUMBER, "100", required=False
        ),
    )


async def install(web: WebApi, name: str, version: str, *scripts: str) -> tuple[ImportIntent, ImportProgress]:
    parameter = VariableParameter(f"{PREFIX}_{name}_limit", "7")
    intent = await web.prepare_import(name, Version.parse(version), upgrade=True)
    values = () if intent.installed_version else (parameter,)
    operation = await web.start_import(package(name, version, *scripts), intent, parameters=values)
    return intent, await _ended(web, operation)


async def test_it_says_who_it_is_and_who_we_are(way: Way) -> None:
    async with way() as web:
        who, organization = await web.who_am_i(), await web.organization()
        assert who.organization_id == organization.id
        assert organization.version.startswith("9.")
        for privilege in ("prvExportCustomization", "prvImportCustomization"):
            assert await web.has_privilege(who.user_id, privilege)


async def test_nothing_is_found_where_nothing_is(way: Way, solution: str) -> None:
    async with way() as web:
        user = (await web.who_am_i()).user_id
        assert await web.solution(solution) is None
        assert await web.history(solution) == []
        assert await web.environment_variables([f"{PREFIX}_none"]) == []
        assert await web.connection_references([f"{PREFIX}_none"]) == []
        with pytest.raises(NotFound):
            await web.import_progress(ImportOperation(user, user))


async def test_a_package_is_checked_without_being_installed(way: Way, solution: str) -> None:
    async with way() as web:
        staged = await web.stage_solution(package(solution, "1.0.0.0", "a"))
        assert staged.solution is not None
        assert staged.solution.unique_name == solution
        assert staged.missing_dependencies == ()
        if staged.upload_id:
            await web.discard_upload(staged.upload_id)
        assert await web.solution(solution) is None


async def test_an_import_and_an_upgrade(way: Way, solution: str) -> None:
    async with way() as web:
        intent, progress = await install(web, solution, "1.0.0.0", "a", "b")
        assert intent.mode is ImportMode.UPDATE
        assert progress.state is OperationState.SUCCEEDED, progress
        found = await web.solution(solution)
        assert found is not None
        assert (found.version, found.managed) == (Version.parse("1.0"), True)
        assert found.publisher_unique_name.casefold() == PREFIX
        scripts = {c.name for c in await web.installed_components(found) if c.type_code == 61}
        assert len(scripts) == 2
        [variable] = await web.environment_variables([f"{PREFIX}_{solution}_limit"])
        assert variable.value == "7"
        intent, progress = await install(web, solution, "1.1.0.0", "a")
        assert intent.mode is ImportMode.UPGRADE
        assert progress.state is OperationState.SUCCEEDED, progress
        found = await web.solution(solution)
        assert found is not None
        assert found.version == Version.parse("1.1")
        scripts = {c.name for c in await web.installed_components(found) if c.type_code == 61}
        assert len(scripts) == 1
        assert await web.solution(f"{solution}_Upgrade") is None
        [variable] = await web.environment_variables([f"{PREFIX}_{solution}_limit"])
        assert variable.value == "7", "an upgrade leaves the value that somebody has set"
        versions = [row.version for row in await web.history(solution) if row.operation == 0]
        assert {Version.parse(v) for v in versions} == {Version.parse("1.0"), Version.parse("1.1")}


async def test_what_is_not_higher_is_no_upgrade(way: Way, solution: str) -> None:
    async with way() as web:
        await install(web, solution, "1.1.0.0", "a")
        intent = await web.prepare_import(solution, Version.parse("1.0"), upgrade=True)
        try:
            operation = await web.start_import(package(solution, "1.0.0.0", "a"), intent)
        except Refused as refused:
            code = refused.code  # refused at once
        else:
            code = (await _ended(web, operation)).code
        assert code == "0x80048541"
        found = await web.solution(solution)
        assert found is not None
        assert found.version == Version.parse("1.1")


async def test_an_import_that_has_ended_is_found_again_and_not_canceled(way: Way, solution: str) -> None:
    async with way() as web:
        intent = await web.prepare_import(solution, Version.parse("1.0"), upgrade=True)
        operation = await web.start_import(package(solution, "1.0.0.0", "a"), intent)
        assert (await _ended(web, operation)).state is OperationState.SUCCEEDED
        looked = await web.reconcile(intent)
        assert looked.operation is not None
        assert looked.operation.import_job_id == operation.import_job_id
        with pytest.raises(Refused):
            await web.cancel_import(operation)
        result = await web.import_result(operation)
        assert (result.state, result.solution) == (OperationState.SUCCEEDED, solution)
