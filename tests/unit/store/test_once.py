"""A request that comes twice is done once, in one transaction with what it does."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelinehost.errors import AlreadyExists
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Run
from pipelinehost_server.store import Once, Store, Transaction
from pipelinehost_server.store.transaction import REQUEST_KEPT_SECONDS

MakeRun = Callable[..., Run]
DAY = 24 * 3600


def once(**fields: object) -> Once:
    values: dict[str, object] = {
        "principal": "ada",
        "request_id": "r1",
        "method": "/pipelinehost.v1.PipelineHost/Deploy",
        "body_sha256": b"b" * 32,
    }
    return Once(**(values | fields))  # type: ignore[arg-type]  # the tests know the fields


def deploy(this: Once, run: Run) -> Callable[[Transaction], Run]:
    return this.job(Run, lambda transaction: transaction.insert_run(run))


async def test_sixty_four_at_once_make_one_run(store: Store, make_run: MakeRun) -> None:
    runs = await asyncio.gather(*(store.write(deploy(once(), make_run())) for _ in range(64)))
    assert {run.name for run in runs} == {runs[0].name}
    assert store.reads.unfinished_runs() == [runs[0].name]
    assert once().recall(Run, store.reads) == runs[0]


@pytest.mark.parametrize("other", [{"body_sha256": b"c" * 32}, {"method": "/x/RetryRun"}])
async def test_an_id_belongs_to_one_request(
    store: Store, make_run: MakeRun, other: dict[str, object]
) -> None:
    await store.write(deploy(once(), make_run()))
    with pytest.raises(AlreadyExists, match="'r1' was used before") as refused:
        await store.write(deploy(once(**other), make_run()))
    assert refused.value.reason == ErrorReason.ERROR_REASON_REQUEST_ID_REUSED
    assert len(store.reads.unfinished_runs()) == 1


async def test_an_id_means_nothing_to_anybody_else(store: Store, make_run: MakeRun) -> None:
    await store.write(deploy(once(), make_run()))
    await store.write(deploy(once(principal="bob", body_sha256=b"c" * 32), make_run()))
    assert len(store.reads.unfinished_runs()) == 2


async def test_without_an_id_everything_is_done_again(store: Store, make_run: MakeRun) -> None:
    for _ in range(2):
        await store.write(deploy(once(request_id=""), make_run()))
    assert len(store.reads.unfinished_runs()) == 2


async def test_what_fails_is_not_remembered(store: Store, make_run: MakeRun) -> None:
    def failing(transaction: Transaction) -> None:
        deploy(once(), make_run())(transaction)
        raise ValueError("later")

    with pytest.raises(ValueError, match="later"):
        await store.write(failing)
    assert once().recall(Run, store.reads) is None
    await store.write(deploy(once(), make_run()))
    assert len(store.reads.unfinished_runs()) == 1


async def test_answers_are_kept_for_seven_days_and_not_for_ever(
    store: Store, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert REQUEST_KEPT_SECONDS >= 7 * DAY
    real, clock = time.time_ns, time.monotonic
    await store.write(deploy(once(), make_run()))
    for days, kept in ((7, True), (9, False)):
        monkeypatch.setattr(time, "time_ns", lambda days=days: real() + days * DAY * 10**9)
        monkeypatch.setattr(time, "monotonic", lambda days=days: clock() + days * DAY)
        await store.write(deploy(once(request_id=f"on day {days}"), make_run()))
        assert (once().recall(Run, store.reads) is not None) is kept


async def test_a_clock_that_was_put_forward_takes_no_answer_from_who_asks_again(
    tmp_path: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Store(tmp_path)
    await first.open()
    run = await first.write(deploy(once(), make_run()))
    await first.close()
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 400 * DAY * 10**9)
    store = Store(tmp_path)
    await store.open()
    try:
        await store.write(deploy(once(request_id="r2"), make_run()))
        assert await store.write(deploy(once(), make_run())) == run
    finally:
        await store.close()
