"""What the host asks of an environment beside deploying: who it is, what the host may do, and to cancel."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_webapi_contract import Place, opened

from pipelinehost_dataverse.emulator import environment, journal
from pipelinehost_dataverse.solution import Column, Table, Version, new_manifest, write
from pipelinehost_dataverse.webapi import ImportOperation, NotFound, OperationState, Refused, WebApi

V1 = Version.parse("1.0.0.0")
PACKAGE = write(new_manifest("Sales", "1.0.0.0", managed=True), Table("cts_order", (Column("cts_note"),)))


@pytest.fixture(params=["in process", "loopback"])
def slow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An environment that takes a minute for an import, so that there is time to cancel it."""
    with opened(tmp_path, request.param, pace=60) as found:
        yield found


@pytest.fixture(params=["in process", "loopback"])
def fast(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with opened(tmp_path, request.param) as found:
        yield found


async def started(web: WebApi) -> ImportOperation:
    intent = await web.prepare_import("Sales", V1, upgrade=False)
    return await web.start_import(PACKAGE, intent)


async def ended(web: WebApi, operation: ImportOperation) -> OperationState:
    async with asyncio.timeout(20):
        while True:
            progress = await web.import_progress(operation)
            if progress.state is not OperationState.RUNNING:
                return progress.state
            await asyncio.sleep(0.02)


async def test_an_environment_says_who_it_is_and_what_its_user_may_do(fast: Place) -> None:
    async with fast.web() as web:
        who = await web.who_am_i()
        assert (await web.organization()).id == who.organization_id
        assert await web.has_privilege(who.user_id, "prvImportCustomization")
        assert not await web.has_privilege(who.user_id, "no privilege")
        with pytest.raises(NotFound):
            await web.has_privilege(str(uuid.uuid4()), "prvImportCustomization")


async def test_an_import_that_is_under_way_is_canceled_and_leaves_nothing(slow: Place) -> None:
    async with slow.web() as web:
        operation = await started(web)
        await web.cancel_import(operation)
        await web.cancel_import(operation)  # again does no harm
        assert await ended(web, operation) is OperationState.CANCELED
        assert (await web.import_result(operation)).state is OperationState.CANCELED
        assert await web.solution("Sales") is None
        assert await web.running_operations() == []
        second = await started(web)  # the environment is free again
        await web.cancel_import(second)
        assert await ended(web, second) is OperationState.CANCELED


async def test_an_import_that_has_ended_is_not_canceled(fast: Place) -> None:
    async with fast.web() as web:
        operation = await started(web)
        assert await ended(web, operation) is OperationState.SUCCEEDED
        with pytest.raises(Refused):
            await web.cancel_import(operation)
        assert (await web.import_progress(operation)).state is OperationState.SUCCEEDED
        with pytest.raises(Refused, match="not known"):
            await web.cancel_import(ImportOperation(operation.import_job_id, ""))


async def test_a_canceled_operation_is_not_run_when_the_environment_is_opened_again(tmp_path: Path) -> None:
    with opened(tmp_path, "in process", pace=60) as place:
        async with place.web() as web:
            operation = await started(web)
            await web.cancel_import(operation)
    with opened(tmp_path, "in process") as place:
        async with place.web() as web:
            assert (await web.import_progress(operation)).state is OperationState.CANCELED
            await asyncio.sleep(0.2)
            assert await web.solution("Sales") is None


async def test_a_cancel_between_the_last_report_and_the_transaction(
    fast: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The latest moment at which it can come: nothing of the import may stay then."""
    real = environment._Progress.__call__

    def reported(progress: Any, percent: float) -> None:
        real(progress, percent)
        if percent >= 90:
            with progress._store.write() as db:
                assert journal.cancel(db, progress._operation) == ""

    monkeypatch.setattr(environment._Progress, "__call__", reported)
    async with fast.web() as web:
        operation = await started(web)
        assert await ended(web, operation) is OperationState.CANCELED
        monkeypatch.undo()
        assert await web.solution("Sales") is None
        second = await started(web)
        assert await ended(web, second) is OperationState.SUCCEEDED


async def test_cancel_and_the_end_of_an_import_agree(fast: Place) -> None:
    """Whatever comes first: the answer to cancel, the operation and the environment say the same."""
    outcomes = set()
    async with fast.web() as web:
        for number in range(60):
            name = f"Sales{number}"
            intent = await web.prepare_import(name, V1, upgrade=False)
            table = Table(f"cts_order{number}", (Column("cts_note"),))
            package = write(new_manifest(name, "1.0.0.0", managed=True), table)
            operation = await web.start_import(package, intent)
            await asyncio.sleep(number * 0.0005)
            try:
                await web.cancel_import(operation)
                canceled = True
            except Refused:
                canceled = False
            state = await ended(web, operation)
            assert (state is OperationState.CANCELED) == canceled
            assert (await web.solution(name) is None) == canceled
            outcomes.add(canceled)
    assert outcomes == {True, False}, "the race was run both ways"
