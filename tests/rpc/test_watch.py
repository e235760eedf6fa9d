"""Watching runs: snapshots, tokens, heartbeats, and how watches end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.rpc.conftest import DEVELOPMENT, Bed

from pipelinehost import errors
from pipelinehost.status import from_rpc_error
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Event, Progress, Run, RunChange, Step
from pipelinehost_server.api import guard
from pipelinehost_server.api.watch import Watch
from pipelinehost_server.events import Feed


def asked(bed: Bed) -> Run:
    run: Run = bed.call(
        "Deploy",
        api.DeployRequest(pipeline="pipelines/sales", stage="pipelines/sales/stages/qa", solution="Sales"),
    )
    return run


def move(bed: Bed, run: Run, state: Run.State, *, waiting: bool = False, count: int = 1) -> Run:
    """Takes a run to another state, as the deployment would, with ``count`` steps told before."""

    def job(tx: Any) -> Run:
        now, epoch = tx.claim_run(run.name)
        events = [
            Event(kind=Event.KIND_STEP_CHANGED, actor="host", step=Step(kind=Step.KIND_EXPORT, percent=i))
            for i in range(count - 1)
        ]
        change = RunChange(**{"from": now.state, "to": state})
        now.state = state
        events.append(Event(kind=Event.KIND_RUN_STATE_CHANGED, actor="host", run=change))
        saved: Run = tx.save_run(now, events, epoch=epoch, waiting=waiting)
        return saved

    return bed.thread.run(bed.store.write(job))


def watch(bed: Bed, run: Run, token: str = "", **more: Any) -> Any:
    return bed.stream("WatchRun", api.WatchRunRequest(name=run.name, resume_token=token), **more)


def whole(bed: Bed, run: Run, token: str = "") -> list[Any]:
    """Everything up to the end, but heartbeats."""
    return [r for r in watch(bed, run, token) if not r.HasField("heartbeat")]


def refusal(stream: Any) -> errors.PipelineHostError:
    with pytest.raises(grpc.RpcError) as ended:
        list(stream)
    return from_rpc_error(ended.value)


def test_a_watch_is_a_snapshot_then_events_then_the_end(idle: Bed) -> None:
    run = asked(idle)
    stream = watch(idle, run)
    assert next(stream).run == run
    move(idle, run, Run.STATE_VALIDATING, count=3)
    ended = move(idle, run, Run.STATE_CANCELLED)
    rest = [r for r in stream if not r.HasField("heartbeat")]
    assert [r.WhichOneof("update") for r in rest] == ["event"] * 4 + ["run"]
    assert rest[-1].run == ended
    sequences = [r.event.sequence for r in rest[:-1]]
    assert sequences == sorted(set(sequences))
    assert sequences[0] == run.revision + 1
    assert all(r.resume_token for r in rest)


def test_every_token_goes_on_exactly_there(idle: Bed) -> None:
    run = asked(idle)
    stream = watch(idle, run)
    first = next(stream)
    for state in (Run.STATE_VALIDATING, Run.STATE_DEPLOYING):
        move(idle, run, state, count=4)
    move(idle, run, Run.STATE_SUCCEEDED)
    everything = [first, *(r for r in stream if not r.HasField("heartbeat"))]
    assert len(everything) == 1 + 9 + 1
    for i, response in enumerate(everything):
        resumed = whole(idle, run, response.resume_token)
        assert resumed == (everything[i + 1 :] or everything[-1:])
    assert idle.bridge("WatchRun", api.WatchRunRequest(name=run.name)) == everything[-1:]
    assert (
        idle.bridge("WatchRun", api.WatchRunRequest(name=run.name, resume_token=first.resume_token))
        == everything[1:]
    )


def test_a_failed_run_that_is_retried_has_not_ended(idle: Bed) -> None:
    run = asked(idle)
    token = next(watch(idle, run)).resume_token
    move(idle, run, Run.STATE_FAILED)
    idle.call("RetryRun", api.RetryRunRequest(name=run.name))
    stream = watch(idle, run, token)
    states = [next(stream).event.run.to for _ in range(2)]
    assert states == [Run.STATE_FAILED, Run.STATE_QUEUED]
    ended = move(idle, run, Run.STATE_CANCELLED)
    assert [r.run for r in stream if r.HasField("run")] == [ended]


def test_a_failure_that_is_history_does_not_end_a_watch(idle: Bed) -> None:
    """The run is retried between the event of its failure and the watcher's look at it."""
    run = asked(idle)
    move(idle, run, Run.STATE_FAILED)
    idle.call("RetryRun", api.RetryRunRequest(name=run.name))
    ended = move(idle, run, Run.STATE_CANCELLED)
    events = idle.call("ListEvents", api.ListEventsRequest(filter=f"subject = {run.name}")).events

    class OneByOne(Feed):
        async def follow(
            self,
            run: str,
            after: int,
            idle: float | None = None,
        ) -> AsyncIterator[Sequence[Event]]:
            for event in events:
                if event.sequence > after:
                    yield [event]

    async def seen() -> list[Any]:
        maker = Watch(idle.store, OneByOne(idle.store), b"secret", 1)
        now = idle.store.reads.run(run.name)
        assert now is not None
        return [r async for r in maker.run(now, maker._token(run.name, run.revision))]

    responses = idle.thread.run(seen())
    assert [r.event.run.to for r in responses[:-1]] == [
        Run.STATE_FAILED,
        Run.STATE_QUEUED,
        Run.STATE_CANCELLED,
    ]
    assert responses[-1].run == ended


def test_a_token_of_another_run_or_store_is_out_of_range(idle: Bed, tmp_path: Path) -> None:
    run, other = asked(idle), asked(idle)
    token = next(watch(idle, run)).resume_token
    sequence, _, mac = token.partition(".")
    wrong = [
        next(watch(idle, other)).resume_token,
        f"{int(sequence) + 1}.{mac}",
        f"0{token}",
        token[:-1],
        sequence,
        ".",
        "x",
        "٣.a",
        f"{2**70}.{mac}",
        "0." + "A" * 16,
    ]
    second = Bed(tmp_path / "other", advancing=0)
    try:
        second.environment("dev", DEVELOPMENT)
        second.environment("qa")
        second.pipeline()
        wrong.append(next(watch(second, asked(second))).resume_token)
    finally:
        second.close()
    for text in wrong:
        error = refusal(watch(idle, run, text))
        assert isinstance(error, errors.OutOfRange), text
        assert error.reason == ErrorReason.ERROR_REASON_RESUME_TOKEN_INVALID


def test_a_token_that_is_ahead_of_the_store_is_out_of_range(idle: Bed) -> None:
    """As after the store was restored from an older backup."""
    run = asked(idle)

    async def begin() -> None:
        maker = Watch(idle.store, Feed(idle.store), b"secret", 1)
        token = maker._token(run.name, idle.store.reads.last_sequence() + 1)
        await anext(maker.run(run, token))

    with pytest.raises(errors.OutOfRange):
        idle.thread.run(begin())


def test_an_unknown_run_is_not_found(bed: Bed) -> None:
    request = api.WatchRunRequest(name="runs/01jd0000000000000000000001")
    for send in (bed.call, bed.bridge):
        with pytest.raises(errors.NotFound):
            send("WatchRun", request)


def test_silence_is_broken_by_heartbeats(idle: Bed) -> None:
    run = asked(idle)
    stream = watch(idle, run)
    token = next(stream).resume_token
    begun = time.monotonic()
    beats = [next(stream) for _ in range(3)]
    assert all(b.HasField("heartbeat") and b.heartbeat.queue_position == 0 for b in beats)
    assert {b.resume_token for b in beats} == {token}
    assert time.monotonic() - begun > 0.3
    stream.cancel()


def test_the_place_in_the_queue_is_told_when_it_changes(idle: Bed) -> None:
    runs = [asked(idle) for _ in range(3)]
    for run in runs:
        move(idle, run, Run.STATE_WAITING_FOR_TARGET, waiting=True)
    stream = watch(idle, runs[2])
    assert next(stream).run.state == Run.STATE_WAITING_FOR_TARGET
    move(idle, runs[0], Run.STATE_CANCELLED)
    move(idle, runs[1], Run.STATE_CANCELLED)
    places: list[int] = []
    for response in stream:
        place = response.heartbeat.queue_position
        if not places or places[-1] != place:
            places.append(place)
        if place == 1:
            break
    assert places[-1] == 1
    assert places == sorted(places, reverse=True)
    stream.cancel()


def test_a_host_that_stops_ends_its_watchers_so_that_they_go_on(idle: Bed) -> None:
    run = asked(idle)
    streams = [watch(idle, run) for _ in range(20)]
    tokens = [next(s).resume_token for s in streams]
    with ThreadPoolExecutor(20) as threads:
        ends = [threads.submit(refusal, s) for s in streams]
        idle.thread.run(idle.host.stop(10))
        told = [e.result(10) for e in ends]
    assert {type(e) for e in told} == {errors.Unavailable}
    assert {e.reason for e in told} == {ErrorReason.ERROR_REASON_HOST_UNAVAILABLE}
    idle.channel.close()
    idle.start()
    ended = move(idle, run, Run.STATE_CANCELLED)
    for token in set(tokens):
        assert [r.WhichOneof("update") for r in whole(idle, run, token)] == ["event", "run"]
        assert whole(idle, run, token)[-1].run == ended


def test_a_watch_that_is_open_for_too_long_is_to_be_renewed(
    idle: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_STREAM_SECONDS", 0.3)
    monkeypatch.setattr(guard, "_SWEEP_SECONDS", 0.1)
    error = refusal(watch(idle, asked(idle)))
    assert isinstance(error, errors.Unavailable)
    assert "0.3 seconds" in error.message


def test_a_watcher_who_does_not_read_is_let_go(idle: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_UNREAD_SECONDS", 0.5)
    monkeypatch.setattr(guard, "_SWEEP_SECONDS", 0.1)
    run = asked(idle)
    stream = watch(idle, run, timeout=60)
    next(stream)
    text = "x" * 3000

    async def flood() -> None:
        for _ in range(40):

            def job(tx: Any) -> None:
                now, epoch = tx.claim_run(run.name)
                step = Step(kind=Step.KIND_EXPORT, detail=text)
                events = [Event(kind=Event.KIND_STEP_CHANGED, actor="host", step=step) for _ in range(50)]
                tx.save_run(now, events, epoch=epoch)

            await idle.store.write(job)

    deadline = time.monotonic() + 40
    streams = idle.host._guard._streams  # type: ignore[union-attr]  # it has started
    while streams and time.monotonic() < deadline:
        # grpc takes as much as it thinks a fast connection holds, before anybody reads: the more the faster.
        if not any(s.writing_since for s in streams):
            idle.thread.run(flood(), 60)
        time.sleep(0.05)
    assert not streams
    stream.cancel()
    assert idle.call("GetHost", api.GetHostRequest()).caller == "principals/admin"


def test_an_event_is_put_into_a_response_once(idle: Bed) -> None:
    run = asked(idle)
    move(idle, run, Run.STATE_VALIDATING)

    async def seen() -> list[Any]:
        maker = Watch(idle.store, Feed(idle.store), b"secret", 1)
        token = maker._token(run.name, run.revision)
        found = []
        for _ in range(2):
            responses = maker.run(idle.store.reads.run(run.name) or run, token)
            found.append(await anext(responses))
            await responses.aclose()
        return found

    first, second = idle.thread.run(seen())
    assert first is second
    assert first.event.run.to == Run.STATE_VALIDATING


def test_progress_comes_and_the_last_one_is_never_missing(idle: Bed) -> None:
    run = asked(idle)
    stream = watch(idle, run)
    next(stream)

    def job(tx: Any) -> None:
        now, epoch = tx.claim_run(run.name)
        events = [
            Event(kind=Event.KIND_PROGRESS, actor="host", progress=Progress(percent=p))
            for p in range(0, 101, 10)
        ]
        tx.save_run(now, events, epoch=epoch)

    idle.thread.run(idle.store.write(job))
    move(idle, run, Run.STATE_CANCELLED)
    percents = [r.event.progress.percent for r in stream if r.event.kind == Event.KIND_PROGRESS]
    assert percents[-1] == 100
