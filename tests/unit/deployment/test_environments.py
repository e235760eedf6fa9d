"""What the host finds out about an environment: health, whether it was replaced, and when it lets us wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import pytest
from tests.unit.deployment.conftest import Host
from tests.unit.deployment.test_run import package, state
from tests.unit.deployment.way import Way, locked, refusal, slow_down, way_to

from pipelinehost.errors import FailedPrecondition, NotFound, Unavailable
from pipelinehost.v1.pipeline_host_pb2 import (
    DeployRequest,
    DescribeSolutionRequest,
    ValidateDeploymentResponse,
)
from pipelinehost.v1.resources_pb2 import Connection, Environment, Event, Finding, Run, Step

DENIED = refusal(401, "0x80040220", "No.")


async def replace(host: Host, environment: str) -> None:
    """As when somebody resets an environment: the same address, another organization."""
    await host.stop()
    for file in (host.folder / "environments").glob(f"{environment}.sqlite*"):
        file.unlink()
    await host.start()


def codes(findings: Sequence[Finding]) -> list[str]:
    return [f.code for f in findings]


def recorded(host: Host, environment: str) -> Environment:
    found = host.store.reads.environment(f"environments/{environment}")
    assert found is not None
    return found


async def test_a_caller_who_leaves_while_a_file_is_opened_locks_nobody_out(host: Host) -> None:
    await host.stop()
    await host.start()
    leaving = asyncio.create_task(host.environments.check("environments/qa"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert host.environments._opening, "it has come so far"
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    health = await host.environments.check("environments/qa")
    assert (health.reachable, codes(health.findings)) == (True, [])
    await host.stop()
    await host.start()
    assert (await host.environments.check("environments/qa")).reachable


async def test_a_healthy_environment(host: Host) -> None:
    before = recorded(host, "qa")
    health = await host.environments.check("environments/qa")
    assert (health.reachable, health.signed_in, health.privileged) == (True, True, True)
    assert health.version.startswith("9.2.")
    assert codes(health.findings) == []
    assert health.HasField("check_time")
    after = recorded(host, "qa")
    assert after.organization_id == health.organization_id != ""
    assert after.etag == before.etag, "who edits the record need not read it again"
    [told] = host.store.reads.events_of_run("environments/qa", 0, 10)
    assert (told.kind, told.actor) == (Event.KIND_ENVIRONMENT_UPDATED, "host")
    await host.environments.check("environments/qa")
    assert len(host.store.reads.events_of_run("environments/qa", 0, 10)) == 1, "it is recorded once"
    with pytest.raises(NotFound):
        await host.environments.check("environments/nowhere")


@pytest.mark.parametrize(
    ("pattern", "spoil", "found", "reached"),
    [
        ("GET WhoAmI", DENIED, "ENVIRONMENT_DENIED", (True, False, False)),
        ("GET WhoAmI", httpx.ConnectTimeout("no route"), "ENVIRONMENT_UNREACHABLE", (False, False, False)),
        ("GET WhoAmI", httpx.Response(400), "ENVIRONMENT_ERROR", (True, False, False)),
        ("GET Retrieve", DENIED, "ENVIRONMENT_DENIED", (True, True, False)),
        ("GET systemusers", DENIED, "ENVIRONMENT_DENIED", (True, True, False)),
        (
            "GET systemusers",
            httpx.Response(200, json={"RolePrivileges": []}),
            "PRIVILEGE_MISSING",
            (True, True, False),
        ),
    ],
)
async def test_what_stands_in_the_way(
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    pattern: str,
    spoil: httpx.Response | Exception,
    found: str,
    reached: tuple[bool, bool, bool],
) -> None:
    monkeypatch.setattr("pipelinehost_server.deployment.environments._CHECK_SECONDS", 0.3)
    (await way_to(host, "qa")).order(pattern, spoil, times=100)
    health = await host.environments.check("environments/qa")
    assert codes(health.findings) == [found]
    assert (health.reachable, health.signed_in, health.privileged) == reached
    assert health.findings[0].remedy
    assert health.findings[0].step == Step.KIND_UNSPECIFIED


async def test_an_environment_that_is_away_is_named_with_the_cause_before_the_time_is_over(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that there was no answer in time, which whoever asks could have said as well."""
    monkeypatch.setattr("pipelinehost_server.deployment.environments._PATIENCE_SECONDS", 0.2)
    (await way_to(host, "dev")).order("", httpx.ConnectError("connection refused"), times=100)
    health = await host.environments.check("environments/dev")
    assert codes(health.findings) == ["ENVIRONMENT_UNREACHABLE"]
    assert "connection refused" in health.findings[0].cause
    installed = DescribeSolutionRequest.Installed(environment="environments/dev", solution="Sales")
    for asked in (
        host.environments.solutions("environments/dev"),
        host.environments.connections("environments/dev"),
        host.environments.create_connection("environments/dev", Connection(connector_id="shared_sql")),
        host.deployment.describe(DescribeSolutionRequest(installed=installed)),
        host.asked("Sales"),
    ):
        with pytest.raises((Unavailable, FailedPrecondition), match="connection refused"):
            await asked


@pytest.mark.parametrize(("environment", "privilege"), [("dev", "Export"), ("qa", "Import")])
async def test_an_environment_of_each_kind_has_its_privilege(
    host: Host, environment: str, privilege: str
) -> None:
    way = await way_to(host, environment)
    way.order("GET systemusers", httpx.Response(200, json={"RolePrivileges": []}))
    health = await host.environments.check(f"environments/{environment}")
    assert f"prv{privilege}Customization" in health.findings[0].cause


async def test_a_target_that_was_reset_gets_nothing(host: Host) -> None:
    artifact = await host.upload(package(managed=True))
    assert state(await host.deployed(artifact=artifact.name, stage="qa")) == "SUCCEEDED"
    before = recorded(host, "qa").organization_id
    await replace(host, "qa")
    run = await host.deployed(artifact=artifact.name, stage="qa")
    assert (state(run), run.error.code) == ("FAILED", "ENVIRONMENT_RESET")
    assert run.error.step == Step.KIND_VALIDATE
    assert "pipelinehost environment delete qa" in run.error.remedy
    assert await host.history("qa") == []
    assert recorded(host, "qa").organization_id == before
    assert codes((await host.environments.check("environments/qa")).findings) == ["ENVIRONMENT_RESET"]
    updates = await validated(host, artifact.name)
    assert codes([u.finding for u in updates if u.HasField("finding")]) == ["ENVIRONMENT_RESET"]
    assert not updates[-1].summary.deployable
    await host.store.write(lambda tx: tx.delete_environment("environments/qa"))
    await host.configure("qa", "production")  # the remedy: created anew
    assert state(await host.deployed(artifact=artifact.name, stage="qa")) == "SUCCEEDED"


async def test_a_development_environment_that_was_reset_is_recognized(host: Host) -> None:
    await host.restored(package())
    await replace(host, "dev")
    run = await host.deployed(stage="qa")
    assert (run.error.code, run.error.step) == ("ENVIRONMENT_RESET", Step.KIND_EXPORT)
    assert (await host.restored(package())).error.code == "ENVIRONMENT_RESET"


async def validated(host: Host, artifact: str) -> list[ValidateDeploymentResponse]:
    request = DeployRequest(pipeline="pipelines/sales", artifact=artifact, stage="pipelines/sales/stages/qa")
    return [u async for u in host.deployment.validate(request, "admin")]


def said(host: Host, run: Run, step: Step.Kind) -> list[str]:
    told = [e.progress for e in host.events(run) if e.kind == Event.KIND_PROGRESS]
    return [p.detail for p in told if p.step == step]


@pytest.mark.parametrize(
    ("environment", "pattern", "step"),
    [
        ("dev", "POST ExportSolutionAsync", Step.KIND_EXPORT),
        ("dev", "GET asyncoperations", Step.KIND_EXPORT),
        ("qa", "GET WhoAmI", Step.KIND_VALIDATE),
        ("qa", "POST StageSolution", Step.KIND_VALIDATE),
        ("qa", "POST ImportSolutionAsync", Step.KIND_IMPORT),
    ],
)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [(slow_down(), "qa asks to slow down"), (locked(), "qa is busy with another operation")],
)
async def test_waits_are_said_to_who_watches(
    host: Host, environment: str, pattern: str, step: Step.Kind, spoil: httpx.Response, words: str
) -> None:
    await host.restored(package())
    way = await way_to(host, environment)
    way.order(pattern, spoil)
    run = await host.deployed(stage="qa")
    assert (state(run), run.error.message) == ("SUCCEEDED", "")
    told = [d for d in said(host, run, step) if "trying again in" in d]
    assert len(told) == 1
    assert told[0].startswith(words.replace("qa", environment))


async def test_a_lock_is_waited_out_in_the_middle_of_an_import(host: Host) -> None:
    artifact = await host.upload(package(managed=True))
    way = await way_to(host, "qa")
    way.order("POST ImportSolutionAsync", locked(), times=3)
    run = await host.deployed(artifact=artifact.name, stage="qa")
    assert (state(run), way.count("POST ImportSolutionAsync")) == ("SUCCEEDED", 4)


async def test_an_environment_that_stays_busy_ends_the_run(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelinehost_server.deployment.run._BUSY_PATIENCE", 0.0)
    artifact = await host.upload(package(managed=True))
    way = await way_to(host, "qa")
    way.order("POST ImportSolutionAsync", locked(), times=1000)
    run = await host.deployed(artifact=artifact.name, stage="qa")
    assert (state(run), run.error.code, run.error.retryable) == ("FAILED", "ENVIRONMENT_BUSY", True)
    assert host.store.reads.output(run.name, "import.intent") is None


async def test_a_validation_without_a_run_tells_of_its_waits_as_they_come(host: Host) -> None:
    artifact = await host.upload(package(managed=True))
    way = await way_to(host, "qa")
    way.order("POST StageSolution", slow_down(1))
    request = DeployRequest(
        pipeline="pipelines/sales", artifact=artifact.name, stage="pipelines/sales/stages/qa"
    )
    waited = False
    async for update in host.deployment.validate(request, "admin"):
        if "asks to slow down" in update.progress.detail:
            waited = True
            assert way.count("POST StageSolution") == 1, "it is told before the wait, not afterwards"
    assert waited


async def test_who_leaves_a_validation_ends_it(host: Host) -> None:
    artifact = await host.upload(package(managed=True))
    way = await way_to(host, "qa")
    way.order("POST StageSolution", slow_down(30))
    request = DeployRequest(
        pipeline="pipelines/sales", artifact=artifact.name, stage="pipelines/sales/stages/qa"
    )
    before = len(asyncio.all_tasks())
    updates = host.deployment.validate(request, "admin")
    async for update in updates:
        if "asks to slow down" in update.progress.detail:
            break
    await updates.aclose()  # type: ignore[attr-defined]  # a generator, told as an iterator
    assert len(asyncio.all_tasks()) == before


def test_the_way_is_no_friend(tmp_path: object) -> None:
    """The harness itself: an order is given as often as it says, and only where it matches."""
    way = Way(httpx.MockTransport(lambda _: httpx.Response(200)))
    way.order("GET a", httpx.Response(500), times=2)

    async def ask(path: str) -> int:
        request = httpx.Request("GET", f"http://x/api/data/v9.2/{path}")
        return (await way.handle_async_request(request)).status_code

    async def asked() -> list[int]:
        return [await ask(p) for p in ("b", "a", "a", "a")]

    assert asyncio.run(asked()) == [200, 500, 500, 200]
