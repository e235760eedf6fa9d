"""Following a run: no gap, no repetition, whoever else follows and however slowly."""

import asyncio
import gc
import random
import time
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelinehost.v1.resources_pb2 import Event, Progress, Run, RunChange
from pipelinehost_server import events
from pipelinehost_server.events import Feed
from pipelinehost_server.store import Store

RUN = "runs/followed"
Batches = AsyncIterator[Sequence[Event]]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def feed(store: Store) -> Feed:
    return Feed(store)


def step(words: str = "", run: str = RUN) -> Event:
    return Event(kind=Event.KIND_STEP_CHANGED, subject=run, message=words)


def progress(percent: int) -> Event:
    return Event(kind=Event.KIND_PROGRESS, subject=RUN, progress=Progress(percent=percent))


async def write(store: Store, *written: Event) -> list[int]:
    return await store.write(lambda tx: [tx.append(event).sequence for event in written])


async def soon(following: Batches) -> list[int]:
    """Sequences of the next batch."""
    return [event.sequence for event in await asyncio.wait_for(anext(following), 5)]


async def nothing_comes(following: Batches) -> bool:
    """Whether no batch is there; the following is over afterwards."""
    try:
        await asyncio.wait_for(anext(following), 0.05)
    except TimeoutError:
        return True
    return False


async def test_first_the_record_and_then_what_happens(store: Store, feed: Feed) -> None:
    await write(store, step(), step(run="runs/other"), step())
    following = feed.follow(RUN, 0)
    assert await soon(following) == [1, 3]
    next_batch = asyncio.ensure_future(soon(following))
    await asyncio.sleep(0.01)
    assert not next_batch.done()
    await write(store, step(run="runs/other"))
    await write(store, step(), step())
    assert await next_batch == [5, 6]
    assert await soon(feed.follow(RUN, 3)) == [5, 6]
    assert await nothing_comes(following)


async def test_what_is_committed_and_not_yet_told_comes_once(store: Store, feed: Feed) -> None:
    writing = asyncio.ensure_future(write(store, step()))
    await asyncio.sleep(0)  # the writer has the job
    while store.reads.last_sequence() == 0:
        time.sleep(0.001)  # noqa: ASYNC251 - the loop must not hear of the commit yet
    assert not writing.done()
    following = feed.follow(RUN, 0)
    assert await soon(following) == [1]
    await writing
    await write(store, step())
    assert await soon(following) == [2]
    assert await nothing_comes(following)


async def test_what_is_committed_between_the_record_and_the_log_comes(store: Store, feed: Feed) -> None:
    await write(store, step())
    following = feed.follow(RUN, 0)
    assert await soon(following) == [1]
    # The follower has read the record and does not wait yet.
    await write(store, step())
    assert await soon(following) == [2]
    assert await nothing_comes(following)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_every_follower_sees_every_event_once(
    tmp_path_factory: pytest.TempPathFactory, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers and followers at random: late, slow, cancelled and coming back with the token they have."""
    rng = random.Random(seed)
    monkeypatch.setattr(events, "_KEPT", rng.choice([1, 3, 1000]))
    monkeypatch.setattr(events, "_PAGE", rng.choice([1, 4, 500]))
    store = Store(tmp_path_factory.mktemp("store"))
    await store.open()
    feed = Feed(store)
    total = 60

    async def writer() -> None:
        while store.reads.last_sequence() < total:
            kinds = [
                rng.choice([step(), progress(1), step(run="runs/other")]) for _ in range(rng.randint(1, 3))
            ]
            if rng.random() < 0.5:
                await write(store, *kinds)
            else:
                await asyncio.gather(*(write(store, event) for event in kinds))
            await asyncio.sleep(rng.choice([0, 0, 0.001]))
        await write(store, step("end"))

    async def follower() -> tuple[int, list[Event]]:
        start = after = rng.choice([0, 0, rng.randint(0, total)])
        if start:  # a token is of an event that has been
            while store.reads.last_sequence() < start:  # noqa: ASYNC110 - any of many events
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(rng.random() * 0.02)
        seen: list[Event] = []
        while True:
            following = feed.follow(RUN, after, idle=rng.choice([None, 0.001]))
            async for batch in following:
                seen.extend(batch)
                if batch:
                    after = batch[-1].sequence
                if seen and seen[-1].message == "end":
                    return start, seen
                if rng.random() < 0.3:
                    await asyncio.sleep(rng.random() * 0.005)
                if rng.random() < 0.1:
                    break  # the line was cut; come back with the token
            await following.aclose()  # type: ignore[attr-defined]  # it is a generator

    async def gives_up() -> None:
        async for _ in feed.follow(RUN, 0):
            await asyncio.sleep(0)

    lost = [asyncio.ensure_future(gives_up()) for _ in range(4)]
    jobs = [asyncio.ensure_future(follower()) for _ in range(8)]
    writing = asyncio.ensure_future(writer())
    await asyncio.sleep(0.005)
    for task in lost:
        task.cancel()
    outcomes = await asyncio.wait_for(asyncio.gather(*jobs), 20)
    await writing
    await asyncio.gather(*lost, return_exceptions=True)
    written = store.reads.events_of_run(RUN, 0, 10_000)
    for start, seen in outcomes:
        sequences = [event.sequence for event in seen]
        assert sequences == sorted(set(sequences))
        assert sequences[0] > start
        kept = [
            event.sequence
            for event in written
            if event.sequence > start and event.kind != Event.KIND_PROGRESS
        ]
        assert [event.sequence for event in seen if event.kind != Event.KIND_PROGRESS] == kept
        assert {event.sequence for event in seen} <= {event.sequence for event in written}
    del lost, jobs
    gc.collect()
    await asyncio.sleep(0)
    assert feed._logs == {}
    await store.close()


async def test_only_progress_is_skipped_and_the_newest_comes(store: Store, feed: Feed) -> None:
    following = feed.follow(RUN, 0)
    waiting = asyncio.ensure_future(soon(following))
    await asyncio.sleep(0.01)
    await write(store, progress(1))
    assert await waiting == [1]  # who keeps up sees all of it
    await write(store, progress(2), step(), progress(3))
    await write(store, progress(4), step())
    assert await soon(following) == [3, 5, 6]
    assert await soon(feed.follow(RUN, 0)) == [3, 5, 6]


async def test_who_falls_far_behind_reads_the_store(
    store: Store, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_KEPT", 10)
    following = feed.follow(RUN, 0)
    await write(store, step())
    assert await soon(following) == [1]
    for _ in range(100):
        await write(store, step())
    assert len(feed._logs[RUN].events) <= 20  # the log is bounded
    seen: list[int] = []
    while len(seen) < 100:
        seen += await soon(following)
    assert seen == list(range(2, 102))
    await write(store, step())
    assert await soon(following) == [102]


async def test_one_who_gives_up_takes_nobody_along(store: Store, feed: Feed) -> None:
    tasks = [asyncio.ensure_future(soon(feed.follow(RUN, 0))) for _ in range(3)]
    await asyncio.sleep(0.01)
    tasks[1].cancel()
    await asyncio.sleep(0)
    await write(store, step())
    assert [await tasks[0], await tasks[2]] == [[1], [1]]
    assert tasks[1].cancelled()


async def test_those_who_leave_leave_nothing_behind(store: Store, feed: Feed) -> None:
    tasks = [asyncio.ensure_future(soon(feed.follow(RUN, 0, idle=1))) for _ in range(5)]
    await asyncio.sleep(0.01)
    assert len(feed._logs[RUN].waiters) == 5
    for task in tasks[1:]:
        task.cancel()
    await asyncio.gather(*tasks[1:], return_exceptions=True)
    assert len(feed._logs[RUN].waiters) == 1
    await write(store, step())
    assert await tasks[0] == [1]
    del tasks, task
    await asyncio.sleep(0)
    gc.collect()
    assert feed._logs == {}
    assert not [thing for thing in gc.get_objects() if isinstance(thing, events._Alarm)]


async def test_silence_is_told(store: Store, feed: Feed) -> None:
    following = feed.follow(RUN, 0, idle=0.02)
    start = time.monotonic()
    assert await soon(following) == []
    assert await soon(following) == []
    assert time.monotonic() - start >= 0.035
    await write(store, step())
    assert await soon(following) == [1]


async def test_a_move_in_the_queue_is_told_to_those_who_wait(store: Store, feed: Feed) -> None:
    def change(run: str, state: Run.State) -> Event:
        return Event(kind=Event.KIND_RUN_STATE_CHANGED, subject=run, run=RunChange(to=state))

    waits = Run(name=RUN, state=Run.STATE_WAITING_FOR_TARGET)
    await store.write(lambda tx: tx.insert_run(waits))
    queued, busy = feed.follow(RUN, 0), feed.follow("runs/busy", 0)
    in_queue, elsewhere = asyncio.ensure_future(soon(queued)), asyncio.ensure_future(soon(busy))
    await asyncio.sleep(0.01)
    await write(store, step(run="runs/first"))
    await asyncio.sleep(0.01)
    assert not in_queue.done()
    await write(store, change("runs/first", Run.STATE_SUCCEEDED))
    assert await in_queue == []
    assert not elsewhere.done()  # who does not wait is left alone
    in_queue = asyncio.ensure_future(soon(queued))
    await write(store, change(RUN, Run.STATE_DEPLOYING))
    assert await in_queue == [3]
    in_queue = asyncio.ensure_future(soon(queued))
    await write(store, change("runs/second", Run.STATE_SUCCEEDED))
    await asyncio.sleep(0.01)
    assert not in_queue.done()
    for task in (in_queue, elsewhere):
        task.cancel()


async def test_a_thousand_followers_of_one_run(store: Store, feed: Feed) -> None:
    followers = 1000

    async def follow() -> int:
        seen = 0
        async for batch in feed.follow(RUN, 0, idle=15):
            seen += len(batch)
            if batch and batch[-1].message == "end":
                break
        return seen

    gc.collect()
    tracemalloc.start()
    tasks = [asyncio.ensure_future(follow()) for _ in range(followers)]
    await asyncio.sleep(0.05)
    each = tracemalloc.get_traced_memory()[0] / followers
    tracemalloc.stop()
    assert len(feed._logs) == 1
    for number in range(20):
        await write(store, step(str(number)))
    await write(store, step("end"))
    assert set(await asyncio.gather(*tasks)) == {21}
    assert each < 8 * 1024
    del tasks
    await asyncio.sleep(0)
    assert feed._logs == {}


async def test_who_follows_everything_gets_every_event_also_progress(store: Store, feed: Feed) -> None:
    written = await write(store, *(step(run=f"runs/{n % 5}") for n in range(events._PAGE + 7)))
    first = feed.follow(events.RECORD, 0)
    seen: list[int] = []
    while len(seen) < len(written):
        seen += await soon(first)
    gathered = await write(store, progress(1), step(run="environments/qa"), progress(2), progress(3))
    late = feed.follow(events.RECORD, written[-1])
    assert await soon(first) == gathered
    assert await soon(late) == gathered
    assert seen == written
    of_run = feed.follow(RUN, written[-1])
    assert await soon(of_run) == gathered[-1:]
    for following in (first, late, of_run):
        await following.aclose()  # type: ignore[attr-defined]  # an asynchronous generator


async def test_who_follows_everything_and_falls_behind_misses_nothing(store: Store, feed: Feed) -> None:
    following = feed.follow(events.RECORD, 0)
    await write(store, step())
    seen = await soon(following)
    count = 2 * events._KEPT + 100
    for begin in range(0, count, 100):
        await write(store, *(step(str(begin + n), f"runs/{n}") for n in range(100)))
    while len(seen) < count + 1:
        seen += await soon(following)
    assert seen == list(range(1, count + 2))
    await following.aclose()  # type: ignore[attr-defined]  # an asynchronous generator
