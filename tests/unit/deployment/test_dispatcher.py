"""Who is advanced when: races with callers, and what is looked at again later."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.deployment.conftest import Host, once

from pipelinehost.errors import ResourceExhausted, Unavailable
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.pipeline_host_pb2 import CancelRunRequest, ResolveRunRequest, RetryRunRequest
from pipelinehost.v1.resources_pb2 import Event, Run, Step
from pipelinehost_dataverse.solution import Table, new_manifest, write
from pipelinehost_dataverse.webapi import AnswerLost, Reconciled, Verdict, WebApi
from pipelinehost_server.deployment import dispatcher
from pipelinehost_server.deployment.journal import Journal
from pipelinehost_server.store import Reads, Store, Transaction


def managed(name: str = "Sales", version: str = "1.0.0.0") -> bytes:
    return write(new_manifest(name, version, managed=True), Table(f"cts_{name.lower()}"))


async def test_a_run_that_is_cancelled_before_it_is_taken_up_stays_so(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = await host.upload(managed())

    async def ask_and_cancel() -> Run:
        run = await host.asked(artifact=artifact.name, stage="qa")
        return await host.deployment.cancel(CancelRunRequest(name=run.name), "admin", once())

    cancelled = await asyncio.gather(*(ask_and_cancel() for _ in range(40)))
    await asyncio.sleep(0.3)
    for run in cancelled:
        assert (await host.ended(run)).state == Run.STATE_CANCELLED
        assert host.events(run)[-1].run.to == Run.STATE_CANCELLED
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == []


async def unknown(host: Host, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of which nobody can tell what became of its import; it is looked at again in an hour."""

    async def cannot_tell(*_: object, **__: object) -> Reconciled:
        return Reconciled(
            Verdict.UNDECIDED, None, datetime.now(UTC), None, timedelta(hours=1), ("there is nothing to see",)
        )

    async def lost(*_: object, **__: object) -> None:
        raise AnswerLost("the connection broke", operation="POST ImportSolutionAsync")

    monkeypatch.setattr(WebApi, "reconcile", cannot_tell)
    with monkeypatch.context() as patched:
        patched.setattr(WebApi, "start_import", lost)
        artifact = await host.upload(managed())
        run = await host.asked(artifact=artifact.name, stage="qa")
        return await host.until(run, lambda r: r.state == Run.STATE_UNKNOWN)


async def test_a_resolved_run_goes_on_at_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await unknown(host, monkeypatch)
    request = ResolveRunRequest(
        name=run.name, resolution=ResolveRunRequest.RESOLUTION_APPLIED, reason="I saw it there"
    )
    await host.deployment.resolve(request, "admin", once())
    ended = await host.ended(run, seconds=5)
    assert ended.error.code == "VERIFY_FAILED", "verify looks for itself"


async def test_a_run_resolved_as_not_applied_is_retried_at_once(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await unknown(host, monkeypatch)
    request = ResolveRunRequest(
        name=run.name, resolution=ResolveRunRequest.RESOLUTION_NOT_APPLIED, reason="It is not there"
    )
    await host.deployment.resolve(request, "admin", once())
    await host.deployment.retry(RetryRunRequest(name=run.name), "admin", once())
    ended = await host.ended(run, seconds=5)
    assert (ended.state, ended.steps[1].state) == (Run.STATE_SUCCEEDED, Step.STATE_SUCCEEDED)
    assert await host.history("qa") == ["1.0.0.0"]
    assert host.events(ended)[-1].kind == Event.KIND_RUN_STATE_CHANGED


async def test_a_run_outlives_a_store_that_could_not_be_written(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "_STORE_RETRY_SECONDS", 0.05)
    locked = Unavailable(ErrorReason.ERROR_REASON_HOST_UNAVAILABLE, "another program keeps the store locked")
    fails = [Step.KIND_VALIDATE, Step.KIND_IMPORT, Step.KIND_VERIFY]
    save_run = Transaction.save_run

    def sometimes(self: Transaction, run: Run, *rest: Any, **more: Any) -> Run:
        step = next((s.kind for s in run.steps if s.state == Step.STATE_RUNNING), Step.KIND_UNSPECIFIED)
        if step in fails:
            fails.remove(step)
            raise locked
        return save_run(self, run, *rest, **more)

    monkeypatch.setattr(Transaction, "save_run", sometimes)
    artifact = await host.upload(managed())
    ended = await host.ended(await host.asked(artifact=artifact.name, stage="qa"))
    assert (ended.state, ended.error.code, fails) == (Run.STATE_SUCCEEDED, "", [])
    assert await host.history("qa") == ["1.0.0.0"]


async def test_a_look_that_fails_does_not_end_the_dispatcher(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = await host.upload(managed())
    look, failures = Reads.due_runs, 2

    def failing(self: Reads, limit: int = 100) -> list[str]:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError("disk I/O error")
        return look(self, limit)

    monkeypatch.setattr(Reads, "due_runs", failing)
    monkeypatch.setattr("pipelinehost_server.deployment.dispatcher._STORE_RETRY_SECONDS", 0.05)
    run = await host.deployed(artifact=artifact.name, stage="qa")
    assert run.state == Run.STATE_SUCCEEDED


async def test_of_two_looks_planned_for_a_run_the_last_counts(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipeline is changed while a run is at work, and then its import cannot be told."""
    begun: list[str] = []
    monkeypatch.setattr(host.deployment._dispatcher, "_begin", begun.append)
    for milliseconds in (10, 50):
        host.deployment._dispatcher._look_again("runs/x", timedelta(milliseconds=milliseconds))
    await asyncio.sleep(0.15)
    assert begun == ["runs/x"]
    assert caplog.records == []


async def test_an_environment_that_cannot_be_opened_is_a_finding(host: Host) -> None:
    artifact = await host.upload(managed())
    folder = host.folder / "environments"
    folder.mkdir(exist_ok=True)
    (folder / "qa.sqlite").write_bytes(b"not a database, but long enough to be taken for one" * 100)
    run = await host.deployed(artifact=artifact.name, stage="qa")
    assert (run.state, run.error.code) == (Run.STATE_FAILED, "ENVIRONMENT_UNREACHABLE")


@pytest.mark.parametrize(
    "error",
    [
        ResourceExhausted(ErrorReason.ERROR_REASON_LIMIT_EXCEEDED, "the disk is full"),
        Unavailable(ErrorReason.ERROR_REASON_HOST_UNAVAILABLE, "the store is locked"),
        RuntimeError("nobody foresaw it"),
    ],
)
async def test_a_full_store_is_one_line_in_the_log(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    monkeypatch.setattr(dispatcher, "_STORE_RETRY_SECONDS", 0.05)
    claim, failures = Journal.claim, 2

    async def failing(store: Store, name: str) -> Journal:
        nonlocal failures
        if failures:
            failures -= 1
            raise error
        return await claim(store, name)

    monkeypatch.setattr(Journal, "claim", failing)
    artifact = await host.upload(managed())
    run = await host.deployed(artifact=artifact.name, stage="qa")
    assert run.state == Run.STATE_SUCCEEDED
    told = [r for r in caplog.records if r.levelname == "ERROR"]
    unforeseen = isinstance(error, RuntimeError)
    why = "" if unforeseen else f": {error}"
    assert [r.getMessage() for r in told] == [
        f"{run.name} could not be advanced{why}; trying again in 0.05 s"
    ] * 2
    assert [bool(r.exc_info) for r in told] == [unforeseen] * 2
