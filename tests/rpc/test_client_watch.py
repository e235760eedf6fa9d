"""Watching runs over a real server: it outlives the host, skips nothing, and does not block other calls."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from tests.rpc.fake_host import RUN, FakeHost

from pipelinehost import Client, errors
from pipelinehost.channel import STREAMS_PER_CONNECTION
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Event, Run


@pytest.fixture
def host() -> Iterator[FakeHost]:
    with FakeHost() as host:
        yield host


@pytest.fixture
def client(host: FakeHost) -> Iterator[Client]:
    with Client(host.address, token="") as client:
        yield client


async def events(host: FakeHost, run: Run, count: int, pause: float = 0.0) -> None:
    for n in range(count):
        await host.append(Event(kind=Event.KIND_FINDING, subject=run.name, message=str(n)))
        await asyncio.sleep(pause)


async def whole(host: FakeHost, run: Run, count: int, pause: float = 0.0) -> None:
    await events(host, run, count, pause)
    await host.enter(run, Run.STATE_SUCCEEDED)


def sequences(responses: list[api.WatchRunResponse]) -> list[int]:
    return [r.event.sequence for r in responses if r.HasField("event")]


def test_a_watch_begins_with_the_run_and_ends_with_it_finished(host: FakeHost, client: Client) -> None:
    run = host.new_run()
    watch = client.watch(RUN)
    assert next(watch).run.state == Run.STATE_QUEUED
    host.do(whole(host, run, 5))
    rest = list(watch)
    assert sequences(rest) == [1, 2, 3, 4, 5, 6]
    assert rest[-1].run.state == Run.STATE_SUCCEEDED


def test_a_watch_that_is_cut_again_and_again_has_no_gap_and_no_repetition(
    host: FakeHost, client: Client
) -> None:
    run = host.new_run()
    host.cut_after = 7
    lost: list[errors.PipelineHostError] = []
    watch = client.watch(RUN, on_interruption=lost.append)
    seen = [next(watch)]
    host.do(whole(host, run, 50))
    seen += list(watch)
    assert sequences(seen) == list(range(1, 52))
    assert [r.HasField("run") for r in seen].count(True) == 2
    assert len(lost) == 7


def test_a_watch_outlives_a_restart_of_the_host(host: FakeHost, client: Client) -> None:
    run = host.new_run()
    seen: list[api.WatchRunResponse] = []
    thread = threading.Thread(target=lambda: seen.extend(client.watch(RUN)))
    thread.start()
    while not host.watches:
        time.sleep(0.01)
    host.do(events(host, run, 3))
    host.stop()
    host.log.append(Event(kind=Event.KIND_FINDING, subject=RUN, sequence=4))  # while nobody listens
    time.sleep(0.5)
    host.start()
    host.do(whole(host, run, 3))
    thread.join(30)
    assert not thread.is_alive()
    assert sequences(seen) == list(range(1, 9))
    assert seen[-1].run.state == Run.STATE_SUCCEEDED


def test_a_host_that_repeats_itself_is_not_repeated(host: FakeHost, client: Client) -> None:
    run = host.new_run()
    watch = client.watch(RUN, resume_token="t0")
    host.log.append(Event(subject=RUN, sequence=1))
    host.do(whole(host, run, 2))
    host.log.insert(1, Event(subject=RUN, sequence=1))
    assert sequences(list(watch)) == [1, 2, 3, 4]


def test_a_later_watch_goes_on_after_the_token(host: FakeHost, client: Client) -> None:
    run = host.new_run()
    host.do(whole(host, run, 9))
    rest = list(client.watch(RUN, resume_token="t6"))
    assert sequences(rest) == [7, 8, 9, 10]
    assert not rest[0].HasField("run")


def test_a_wrong_token_and_a_wrong_run_are_refused_at_once(host: FakeHost, client: Client) -> None:
    host.new_run()
    with pytest.raises(errors.OutOfRange):
        list(client.watch(RUN, resume_token="x"))
    with pytest.raises(errors.NotFound):
        list(client.watch("01jd0000000000000000000009"))
    assert len(host.seen("WatchRun")) == 2


def test_a_stream_that_is_cancelled_on_opening_is_opened_again(host: FakeHost, client: Client) -> None:
    run = host.new_run()
    cancelled = errors.Cancelled(ErrorReason.ERROR_REASON_UNSPECIFIED, "too many")
    host.failures["WatchRun"] = [cancelled, cancelled]
    host.do(whole(host, run, 1))
    assert sequences(list(client.watch(RUN, resume_token="t0"))) == [1, 2]
    assert len(host.seen("WatchRun")) == 3


def test_a_watcher_of_the_record_hears_of_every_interruption(host: FakeHost, client: Client) -> None:
    away = errors.Unavailable(ErrorReason.ERROR_REASON_HOST_UNAVAILABLE, "Stopping.")
    host.failures["WatchEvents"] = [away, away]
    lost: list[errors.PipelineHostError] = []
    with closing(client.watch_events(on_interruption=lost.append)) as updates:
        assert next(updates).resume_token == "t0"
    assert len(lost) == 2, "grpc would repeat it and say nothing"


def test_waiting_gives_the_finished_run_however_it_ended(host: FakeHost, client: Client) -> None:
    run = host.new_run()
    host.do(host.enter(run, Run.STATE_FAILED))
    assert client.wait(RUN).state == Run.STATE_FAILED


def test_waiting_ends_at_its_timeout(host: FakeHost, client: Client) -> None:
    host.new_run()
    with pytest.raises(errors.DeadlineExceeded, match=r"not finished within 0\.5 seconds"):
        client.wait(RUN, timeout=0.5)
    host.stop()
    with pytest.raises(errors.DeadlineExceeded):
        client.wait(RUN, timeout=0.5)


def test_a_watch_that_is_dropped_ends_its_call(host: FakeHost, client: Client) -> None:
    host.new_run()
    watch = client.watch(RUN)
    next(watch)
    assert host.watches == 1
    watch.close()
    for _ in range(100):
        if host.watches == 0:
            break
        time.sleep(0.02)
    assert host.watches == 0


def test_closing_the_client_ends_a_watch(host: FakeHost) -> None:
    host.new_run()
    client = Client(host.address, token="")
    ended: list[BaseException] = []

    def read() -> None:
        try:
            list(client.watch(RUN))
        except errors.PipelineHostError as error:
            ended.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    while not host.watches:
        time.sleep(0.01)
    client.close()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(ended[0], errors.Cancelled)


def test_250_watches_do_not_make_another_call_wait(host: FakeHost, client: Client) -> None:
    run = host.new_run()
    client.run(RUN)
    watches = [client.watch(RUN) for _ in range(250)]
    with ThreadPoolExecutor(250) as pool, closing(client):  # else a failure would wait for its threads
        firsts = list(pool.map(next, watches, timeout=30))  # each is open: its first answer has come
        assert len(firsts) == host.watches == 250
        assert client.run(RUN).name == RUN
        # one connection for unary calls, and three for 250 streams
        assert len(host.peers) == 1 + -(-250 // STREAMS_PER_CONNECTION)
        host.do(host.enter(run, Run.STATE_SUCCEEDED))
        ends = list(pool.map(lambda watch: list(watch)[-1], watches, timeout=30))
    assert {end.run.state for end in ends} == {Run.STATE_SUCCEEDED}


def test_idle_stream_connections_are_closed_but_for_one(host: FakeHost, client: Client) -> None:
    host.new_run()
    watches = [client.watch(RUN) for _ in range(2 * STREAMS_PER_CONNECTION + 1)]
    for watch in watches:
        next(watch)
    assert len(client._connections._streams) == 3
    for watch in watches:
        watch.close()
    assert len(client._connections._streams) == 1
