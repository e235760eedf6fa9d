"""Runs on real stores and embedded environments: every step, every end, and what a restart does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import pytest
from tests.unit.deployment.conftest import Host, once
from tests.unit.deployment.way import refusal, way_to

from pipelinehost.errors import FailedPrecondition
from pipelinehost.v1.pipeline_host_pb2 import DeployRequest, RetryRunRequest
from pipelinehost.v1.resources_pb2 import (
    ConnectionReferenceSetting,
    DeploymentSettings,
    EnvironmentVariableSetting,
    Event,
    Run,
    Step,
)
from pipelinehost_dataverse.solution import (
    Column,
    ConnectionReference,
    EnvironmentVariable,
    Table,
    VariableType,
    cloud_flow,
    new_manifest,
    write,
)
from pipelinehost_dataverse.webapi import AnswerLost, WebApi

OFFICE = "/providers/Microsoft.PowerApps/apis/shared_office365"
TEAMS = "/providers/Microsoft.PowerApps/apis/shared_teams"


def package(
    version: str = "1.0.0.0", *more: Any, managed: bool = False, columns: tuple[str, ...] = ("a",)
) -> bytes:
    table = Table("cts_order", columns=tuple(Column(f"cts_{c}") for c in columns))
    return write(new_manifest("Sales", version, managed=managed), table, *more)


NEEDY = (
    ConnectionReference("cts_mail", "Mail", "", OFFICE),
    EnvironmentVariable("cts_limit", "Limit", "", VariableType.NUMBER, None, True),
    cloud_flow("Send mail", connection_references=["cts_mail"], environment_variables=["cts_limit"]),
)


def state(run: Run) -> str:
    return Run.State.Name(run.state).removeprefix("STATE_")


def steps(run: Run) -> str:
    letters = {
        Step.STATE_PENDING: "-",
        Step.STATE_RUNNING: "r",
        Step.STATE_SUCCEEDED: "s",
        Step.STATE_FAILED: "F",
        Step.STATE_SKIPPED: "k",
    }
    return "".join(letters[s.state] for s in run.steps)


async def test_a_solution_travels_from_development_to_production(host: Host) -> None:
    assert state(await host.restored(package())) == "SUCCEEDED"
    qa = await host.deployed()
    assert (state(qa), steps(qa), qa.stage) == ("SUCCEEDED", "sssks", "pipelines/sales/stages/qa")
    assert not qa.steps[3].HasField("end_time"), "a step that was left out took no time"
    production = await host.deployed()
    assert (state(production), steps(production)) == ("SUCCEEDED", "ssks")
    assert production.artifact == qa.artifact, "the very same artifact goes on"
    assert await host.history("qa") == ["1.0.0.0"]
    assert await host.history("production") == ["1.0.0.0"]
    with pytest.raises(FailedPrecondition) as refused:
        await host.asked()
    assert refused.value.reason_name == "NOTHING_DUE"


async def test_every_event_of_a_run_is_about_it_and_in_order(host: Host) -> None:
    await host.restored(package())
    run = await host.deployed()
    events = host.events(run)
    assert [e.sequence for e in events] == sorted({e.sequence for e in events})
    assert events[0].kind == Event.KIND_DEPLOYMENT_REQUESTED
    assert (events[-1].kind, events[-1].run.to) == (Event.KIND_RUN_STATE_CHANGED, Run.STATE_SUCCEEDED)
    assert run.revision == events[-1].sequence


async def test_a_short_import_shows_how_far_it_is_at_most_once_a_second(host: Host) -> None:
    await host.stop()
    await host.start(embedded_pace=2)
    artifact = await host.upload(package(managed=True))
    run = await host.deployed(artifact=artifact.name, stage="qa")
    told = [e for e in host.events(run) if e.kind == Event.KIND_PROGRESS]
    percents = [e.progress.percent for e in told]
    assert len(percents) >= 2
    assert percents == sorted({*percents} - {0})
    times = [e.time.ToNanoseconds() / 1e9 for e in told]
    assert all(later - earlier > 0.9 for earlier, later in pairwise(times))


async def test_an_import_that_does_not_move_is_told_as_at_work(host: Host) -> None:
    await host.stop()
    await host.start(embedded_pace=600)
    artifact = await host.upload(package(managed=True))
    run = await host.asked(artifact=artifact.name, stage="qa")
    await host.until(run, lambda r: any(s.detail == "at work" for s in r.steps))
    assert [e.progress.percent for e in host.events(run) if e.kind == Event.KIND_PROGRESS] == [0]


async def test_an_unchanged_version_is_refused_by_validation(host: Host) -> None:
    await host.restored(package())
    await host.deployed()
    run = await host.deployed(stage="qa")
    assert (state(run), steps(run)) == ("FAILED", "sF---")
    assert [f.code for f in host.findings(run) if f.severity == 3] == ["VERSION_NOT_HIGHER"]
    assert run.error.code == "VERSION_NOT_HIGHER"
    assert await host.history("qa") == ["1.0.0.0"]


async def test_redeployment_of_an_older_artifact_where_the_pipeline_allows_it(host: Host) -> None:
    await host.restored(package("1.0.0.0"))
    first = await host.deployed()
    await host.restored(package("1.1.0.0", columns=("a", "b")))
    await host.deployed()
    refused = await host.deployed(artifact=first.artifact, stage="qa")
    assert refused.error.code == "VERSION_NOT_HIGHER"
    await host.configure("qa", "production", allow_redeployment=True)
    asked = await host.deployed(artifact=first.artifact, stage="qa")
    assert asked.error.code == "LOSS_NOT_ACCEPTED"
    loss = await host.loss(artifact=first.artifact, stage="qa")
    run = await host.deployed(artifact=first.artifact, stage="qa", loss_sha256=loss)
    assert (state(run), run.error.message) == ("SUCCEEDED", "")
    assert [f.code for f in host.findings(run)] == ["REDEPLOYMENT", "STAYS_BEHIND"]
    assert sorted(await host.history("qa")) == ["1.0.0.0", "1.0.0.0", "1.1.0.0"]


async def test_what_is_missing_comes_at_once_and_nothing_is_imported(host: Host) -> None:
    await host.restored(package("1.0.0.0", *NEEDY))
    run = await host.deployed()
    assert state(run) == "FAILED"
    assert [f.code for f in host.findings(run)] == ["CONNECTION_MISSING", "VARIABLE_MISSING"]
    assert await host.history("qa") == []
    assert run.error.message.endswith("And 1 more.")


async def test_settings_reach_the_target_and_leave_no_value_behind(host: Host) -> None:
    await host.restored(package("1.0.0.0", *NEEDY))
    await host.connect("qa", OFFICE, "mail-1")
    run = await host.deployed(settings=filled("mail-1", "4711"))
    assert (state(run), run.error.message) == ("SUCCEEDED", "")
    _, api = await host.environments.named("environments/qa")
    [variable] = await api.environment_variables(["cts_limit"])
    [reference] = await api.connection_references(["cts_mail"])
    assert (variable.value, reference.connection_id) == ("4711", "mail-1")
    stored = host.store.reads.run_settings(run.name)
    assert [s.name for s in stored] == ["cts_mail", "cts_limit"]
    assert not any(s.value for s in stored)
    assert all(len(s.sha256) == 64 for s in stored)
    assert host.store.reads.secret(f"{run.name}/settings") is None, (
        "values go when they are not needed any more"
    )


async def test_a_failed_run_is_retried_from_the_step_that_failed(host: Host) -> None:
    await host.restored(package("1.0.0.0", *NEEDY))
    run = await host.deployed(settings=filled("mail-1", "4711"))
    assert [f.code for f in host.findings(run)] == ["CONNECTION_NOT_FOUND"]
    await host.connect("qa", OFFICE, "mail-1")
    again = await host.deployment.retry(RetryRunRequest(name=run.name), "admin", once())
    ended = await host.ended(again)
    assert (state(ended), ended.attempt, steps(ended)) == ("SUCCEEDED", 2, "sssks")
    assert ended.artifact == run.artifact, "the export is not repeated"
    assert (host.findings(ended), ended.error_count) == ([], 0)
    with pytest.raises(FailedPrecondition, match="SUCCEEDED"):
        await host.deployment.retry(RetryRunRequest(name=run.name), "admin", once())


async def test_an_upload_is_deployed_without_an_export(host: Host) -> None:
    artifact = await host.upload(package(managed=True))
    qa = await host.deployed(artifact=artifact.name)
    assert (state(qa), steps(qa)) == ("SUCCEEDED", "ssks")
    production = await host.deployed(artifact=artifact.name)
    assert (state(production), production.stage) == ("SUCCEEDED", "pipelines/sales/stages/production")


async def test_one_import_per_target_and_the_queue_keeps_its_order(host: Host) -> None:
    await host.stop()
    await host.start(embedded_pace=0.5)
    packages = [write(new_manifest(f"S{i}", "1.0", managed=True), Table(f"cts_t{i}")) for i in range(4)]
    solutions = [await host.upload(p) for p in packages]
    runs = [await host.asked(artifact=a.name, stage="qa") for a in solutions]
    await host.until(runs[0], lambda r: len(host.store.reads.waiting_for("environments/qa")) == 3)
    order = [host.store.reads.held_by("environments/qa"), *host.store.reads.waiting_for("environments/qa")]
    ended = [await host.ended(r) for r in runs]
    assert [state(r) for r in ended] == ["SUCCEEDED"] * 4
    by_end = [r.name for r in sorted(ended, key=lambda r: r.end_time.ToNanoseconds())]
    assert by_end == order
    assert host.store.reads.held_by("environments/qa") is None


async def test_a_restart_goes_on_and_repeats_nothing(host: Host) -> None:
    await host.stop()
    await host.start(embedded_pace=1.0)
    artifact = await host.upload(package(managed=True))
    run = await host.asked(artifact=artifact.name, stage="qa")
    await host.until(run, lambda r: r.state == Run.STATE_DEPLOYING and r.steps[1].state == Step.STATE_RUNNING)
    await asyncio.sleep(0.2)
    await host.stop()
    await host.start()
    ended = await host.ended(run)
    assert (state(ended), ended.error.message) == ("SUCCEEDED", "")
    assert await host.history("qa") == ["1.0.0.0"]


async def test_a_damaged_artifact_is_never_sent(host: Host) -> None:
    artifact = await host.upload(package(managed=True))
    path = host.blobs.path(artifact.name.rpartition("/")[2])
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    run = await host.deployed(artifact=artifact.name, stage="qa")
    assert (state(run), run.error.code) == ("FAILED", "ARTIFACT_DAMAGED")
    assert await host.history("qa") == []


async def test_validation_without_a_run_says_what_a_run_would(host: Host) -> None:
    await host.restored(package("1.0.0.0", *NEEDY))
    request = DeployRequest(pipeline="pipelines/sales", solution="Sales")
    updates = [u async for u in host.deployment.validate(request, "admin")]
    codes = [u.finding.code for u in updates if u.WhichOneof("update") == "finding"]
    assert codes == ["CONNECTION_MISSING", "VARIABLE_MISSING"]
    summary = updates[-1].summary
    assert (summary.deployable, summary.error_count, summary.version) == (False, 2, "1.0.0.0")
    assert [s.name for s in summary.settings] == ["cts_mail", "cts_limit"]
    assert host.store.reads.unfinished_runs() == []


async def test_an_upgrade_shows_what_it_removes(host: Host) -> None:
    first = await host.upload(package("1.0.0.0", managed=True, columns=("a", "b")))
    await host.deployed(artifact=first.name, stage="qa")
    second = await host.upload(package("1.1.0.0", managed=True, columns=("a",)))
    run = await host.deployed(artifact=second.name, stage="qa")
    assert (state(run), run.error.message) == ("SUCCEEDED", "")
    [removed] = host.findings(run)
    assert (removed.code, removed.subject.kind) == ("UPGRADE_REMOVES", "attribute")
    assert "cts_b" in removed.subject.name.lower()


async def test_an_update_removes_nothing(host: Host) -> None:
    first = await host.upload(package("1.0.0.0", managed=True, columns=("a", "b")))
    await host.deployed(artifact=first.name, stage="qa")
    second = await host.upload(package("1.1.0.0", managed=True, columns=("a",)))
    run = await host.deployed(artifact=second.name, stage="qa", import_mode=2)
    assert (state(run), host.findings(run)) == ("SUCCEEDED", [])


async def test_the_same_request_id_gives_the_same_run(host: Host) -> None:
    artifact = await host.upload(package(managed=True))
    request = DeployRequest(pipeline="pipelines/sales", artifact=artifact.name)
    key = once()
    runs = await asyncio.gather(*(host.deployment.deploy(request, "admin", key) for _ in range(64)))
    assert len({r.name for r in runs}) == 1


def filled(connection: str, limit: str) -> DeploymentSettings:
    return DeploymentSettings(
        connection_references=[
            ConnectionReferenceSetting(logical_name="cts_mail", connection_id=connection, connector_id=OFFICE)
        ],
        environment_variables=[EnvironmentVariableSetting(schema_name="cts_limit", value=limit)],
    )


async def test_a_lost_answer_to_a_question_is_asked_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Staging, exporting and publishing may be repeated; only an import may not."""
    lost: list[str] = []

    def once_lost(name: str) -> None:
        real = getattr(WebApi, name)

        async def call(self: WebApi, *arguments: object, **more: object) -> object:
            answer = await real(self, *arguments, **more)
            if name not in lost:
                lost.append(name)
                raise AnswerLost("the connection broke", operation=name)
            return answer

        monkeypatch.setattr(WebApi, name, call)

    for name in ("stage_solution", "export_solution", "publish_all"):
        once_lost(name)
    monkeypatch.setattr("pipelinehost_server.deployment.validation._AGAIN_SECONDS", 0.01)
    assert state(await host.restored(package())) == "SUCCEEDED"
    run = await host.deployed()
    assert (state(run), run.error.message) == ("SUCCEEDED", "")
    assert sorted(lost) == ["export_solution", "publish_all", "stage_solution"]


@pytest.mark.parametrize("written", [str, json.dumps, quote])
async def test_a_value_that_the_environment_repeats_is_told_nobody(
    host: Host, written: Callable[[str], str]
) -> None:
    value = "c4n4ry/of this+run"
    way = await way_to(host, "qa")
    way.order("POST (Import|StageAndUpgrade)", refusal(400, "0x80040216", f"{written(value)} is not valid"))
    text = EnvironmentVariable("cts_text", "Text", "", VariableType.STRING)
    await host.restored(package("1.0.0.0", text))
    given = DeploymentSettings(
        environment_variables=[EnvironmentVariableSetting(schema_name="cts_text", value=value)]
    )
    run = await host.deployed(settings=given)
    assert run.error.code == "IMPORT_FAILED"
    assert "is not valid" in run.error.message
    told = [run, *host.findings(run), *host.events(run)]
    assert not any("c4n4ry" in str(message) for message in told)
