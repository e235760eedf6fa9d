"""The record over a real connection: who did what from where, provable, exportable and watchable."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from tests.rpc.conftest import Bed, package

from pipelinehost import Client, errors
from pipelinehost.cli import record_file
from pipelinehost.cli.commands import cli
from pipelinehost.v1 import artifacts_pb2 as artifacts_api
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Environment, Event, RecordFault, RecordHead, Run, SignIn

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "record.md"


@pytest.fixture
def client(idle: Bed) -> Iterator[Client]:
    with Client(str(idle.host.address), token=idle.token) as client:
        yield client


def tomorrow() -> Timestamp:
    at = Timestamp()
    at.FromDatetime(datetime.now(UTC) + timedelta(days=1))
    return at


def tamper(bed: Bed, statement: str) -> None:
    with closing(sqlite3.connect(bed.folder / "pipelinehost.db", timeout=10)) as database:
        database.execute(statement)
        database.commit()


def verified(client: Client, *heads: RecordHead) -> api.VerifyEventsResponse.Result:
    return list(client.verify_events(heads))[-1].result


def exported(client: Client, path: Path, **bounds: int) -> RecordHead:
    path.write_bytes(b"".join(client.export_events(**bounds)))
    return record_file.read(path)


def happen(bed: Bed, count: int) -> None:
    """So many changes of the pipeline."""
    for number in range(count):
        pipeline = bed.call("GetPipeline", api.GetPipelineRequest(name="pipelines/sales"))
        pipeline.description = f"change {number}"
        bed.call("UpdatePipeline", api.UpdatePipelineRequest(pipeline=pipeline))


def deploy(bed: Bed) -> Run:
    run: Run = bed.call(
        "Deploy",
        api.DeployRequest(pipeline="pipelines/sales", stage="pipelines/sales/stages/qa", solution="Sales"),
    )
    return run


# Who, from where, before and after


def test_every_event_of_a_caller_says_from_where(idle: Bed) -> None:
    happen(idle, 1)
    artifact = idle.upload(package())
    idle.call("DownloadArtifact", artifacts_api.DownloadArtifactRequest(name=artifact.name))
    run = deploy(idle)
    idle.call("CancelRun", api.CancelRunRequest(name=run.name, reason="test"))
    environment = Environment(
        name="environments/far",
        kind=Environment.KIND_TARGET,
        url="https://far.crm4.dynamics.com",
        sign_in=SignIn(
            method=SignIn.METHOD_CLIENT_SECRET,
            tenant="example.com",
            client_id="00000000-0000-0000-0000-000000000001",
        ),
    )
    idle.call("CreateEnvironment", api.CreateEnvironmentRequest(environment=environment))
    request = api.SetEnvironmentCredentialRequest(name=environment.name, client_secret="c" * 20)
    idle.call("SetEnvironmentCredential", request)
    idle.call("DeletePipeline", api.DeletePipelineRequest(name="pipelines/sales"))
    of_callers = [e for e in idle.events() if e.actor != "host"]
    assert len({e.kind for e in of_callers}) >= 9
    for event in of_callers:
        assert re.fullmatch(r"127\.0\.0\.1:\d+", event.peer), event
    assert {e.peer for e in idle.events() if e.actor == "host"} == {""}


def test_metadata_does_not_say_from_where(idle: Bed) -> None:
    request = api.DeletePipelineRequest(name="pipelines/sales")
    stub = idle.channel.unary_unary(
        "/pipelinehost.v1.PipelineHost/DeletePipeline",
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=lambda raw: raw,
    )
    forged = [(key, "203.0.113.9:1") for key in ("x-forwarded-for", "forwarded", "peer", "x-real-ip")]
    stub(request, metadata=[*idle.metadata(None), *forged], timeout=10)
    assert "203.0.113.9" not in idle.events()[-1].peer


def test_an_address_of_ipv6_reads_as_people_write_it(idle: Bed) -> None:
    idle.bridge("DeletePipeline", api.DeletePipelineRequest(name="pipelines/sales"))
    assert idle.events()[-1].peer == "[::1]:50123"


def test_updates_say_what_was_before(idle: Bed) -> None:
    happen(idle, 2)
    event = idle.events()[-1]
    assert (event.pipeline_before.description, event.pipeline.description) == ("change 0", "change 1")
    assert event.pipeline_before.etag != event.pipeline.etag
    environment = idle.call("GetEnvironment", api.GetEnvironmentRequest(name="environments/qa"))
    environment.display_name = "Quality"
    idle.call("UpdateEnvironment", api.UpdateEnvironmentRequest(environment=environment))
    event = idle.events()[-1]
    assert (event.environment_before.display_name, event.environment.display_name) == ("", "Quality")


# Verify


def test_the_record_of_a_host_is_found_right(idle: Bed, client: Client) -> None:
    happen(idle, 30)
    deploy(idle)
    result = verified(client)
    last = idle.thread.run(_last(idle))
    assert not result.HasField("fault")
    assert (result.checked, result.head.last_sequence, result.head.first_sequence) == (last, last, 1)
    assert result.head.key == client.host().record_key


async def _last(bed: Bed) -> int:
    return bed.store.reads.last_sequence()


def test_a_change_behind_the_hosts_back_is_named(idle: Bed, client: Client) -> None:
    happen(idle, 10)
    tamper(idle, "UPDATE event SET actor = 'mallory' WHERE sequence = 7")
    result = verified(client)
    assert (result.fault.kind, result.fault.sequence, result.checked) == (RecordFault.KIND_CHANGED, 7, 6)
    # The host goes on and the fault stays, over a restart too.
    happen(idle, 1)
    idle.stop()
    idle.start()
    with Client(str(idle.host.address), token=idle.token) as again:
        assert verified(again).fault.sequence == 7


def test_the_tail_cut_off_while_the_host_is_down_is_found_for_good(idle: Bed) -> None:
    happen(idle, 10)
    idle.stop()
    tamper(idle, "DELETE FROM event WHERE sequence > 9")
    for _ in range(2):
        idle.start()
        with Client(str(idle.host.address), token=idle.token) as client:
            fault = verified(client).fault
        assert (fault.kind, fault.sequence) == (RecordFault.KIND_TRUNCATED, 10)
        idle.stop()
    idle.start()


def test_a_secret_of_a_record_that_is_taken_away_shows(idle: Bed) -> None:
    """Without its sealed key the record gets another one, and no head that this one has signed."""
    with Client(str(idle.host.address), token=idle.token) as client:
        before = client.host().record_key
    idle.stop()
    tamper(idle, "DELETE FROM secret WHERE name = 'host/record'")
    idle.start()
    with Client(str(idle.host.address), token=idle.token) as client:
        assert client.host().record_key != before


def test_only_heads_that_this_host_signed_are_compared(idle: Bed, client: Client, tmp_path: Path) -> None:
    head = exported(client, tmp_path / "record.jsonl")
    happen(idle, 3)
    assert not verified(client, head).HasField("fault")
    changes: list[dict[str, Any]] = [
        {"sha256": "0" * 64},
        {"last_sequence": head.last_sequence + 1},
        {"store": "another"},
        {"signature": "zz"},
        {"signature": ""},
        {"key": "0" * 64},
        {"time": Timestamp(seconds=1)},
    ]
    for change in changes:
        forged = RecordHead()
        forged.CopyFrom(head)
        for name, value in change.items():
            forged.ClearField(name)
            forged.MergeFrom(RecordHead(**{name: value}))
        with pytest.raises(errors.InvalidArgument) as refused:
            verified(client, forged)
        assert refused.value.violations[0].subject == "heads[0]"


# Export


def outsider(path: Path, key: str) -> subprocess.CompletedProcess[str]:
    """Runs what the documentation tells others to check an export with."""
    script = re.search(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert script is not None
    command = [sys.executable, "-c", script[1], str(path), key]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_an_export_can_be_checked_by_others(idle: Bed, client: Client, tmp_path: Path) -> None:
    happen(idle, 120)
    path = tmp_path / "record.jsonl"
    exported(client, path)
    lines, key = path.read_bytes().splitlines(), client.host().record_key
    count = len(lines) - 1
    assert outsider(path, key).stdout == f"{count} events are what the host wrote\n"
    assert outsider(path, "0" * 64).returncode != 0
    changed = bytearray(path.read_bytes())
    changed[changed.index(b'"bytes":"') + 15] ^= 1
    path.write_bytes(changed)
    assert outsider(path, key).returncode != 0
    told = idle.events()
    assert count == len(told) - 1
    for line, event in zip(lines[:-1], told[:-1], strict=True):
        assert json_format.ParseDict(json.loads(line)["event"], Event()) == event
    assert (told[-1].kind, told[-1].head.last_sequence) == (Event.KIND_EVENTS_EXPORTED, count)
    assert told[-1].head.signature == json.loads(lines[-1])["head"]["signature"]


def test_parts_of_the_record_fit_together(idle: Bed, client: Client, tmp_path: Path) -> None:
    happen(idle, 20)
    heads = [exported(client, tmp_path / f"{n}.jsonl", first=n, last=n + 6) for n in (1, 8, 15)]
    assert [head.sha256 for head in heads[:2]] == [head.previous_sha256 for head in heads[1:]]
    assert not verified(client, *heads).HasField("fault")


@pytest.mark.parametrize(("first", "last"), [(5, 4), (0, 10_000), (9_999, 0), (-3, 0)])
def test_what_the_record_does_not_have_is_not_exported(
    idle: Bed, client: Client, first: int, last: int
) -> None:
    with pytest.raises(errors.InvalidArgument, match="the record has events 1 to"):
        list(client.export_events(first=first, last=last))


def test_a_broken_record_is_not_signed(idle: Bed, client: Client, tmp_path: Path) -> None:
    happen(idle, 10)
    tamper(idle, "UPDATE event SET frame = (SELECT frame FROM event WHERE sequence = 5) WHERE sequence = 8")
    pieces: list[bytes] = []
    with pytest.raises(errors.DataLoss, match="event 8") as refused:
        pieces.extend(client.export_events())
    assert refused.value.reason == ErrorReason.ERROR_REASON_RECORD_BROKEN
    assert not any(b'"head"' in piece for piece in pieces)
    assert exported(client, tmp_path / "before.jsonl", last=7).last_sequence == 7


def test_what_is_done_to_an_export_is_found(idle: Bed, client: Client, tmp_path: Path) -> None:
    happen(idle, 8)
    path = tmp_path / "record.jsonl"
    exported(client, path)
    lines = path.read_bytes().splitlines(keepends=True)
    key = client.host().record_key
    record_file.require_signature(path, record_file.read(path), key)

    def with_event(change: str) -> bytes:
        line = json.loads(lines[4])
        line["event"]["actor"] = change
        return json.dumps(line).encode() + b"\n"

    broken = {
        "is missing": lines[:4] + lines[5:],
        "no signed head": lines[:-1],
        "missing": [*lines[:-3], lines[-1]],
        "here should be event": [*lines[:4], lines[5], lines[4], *lines[6:]],
        "reads otherwise": [*lines[:4], with_event("mallory"), *lines[5:]],
        "no line of an export": [*lines[:4], b"{}}\n", *lines[5:]],
        "does not tell of": [*lines[:-1], lines[-2], lines[-1]],
        "here should": [lines[1], *lines[1:]],
    }
    for number, content in enumerate(broken.values()):
        (tmp_path / str(number)).write_bytes(b"".join(content))
        with pytest.raises(record_file.RecordFileError):
            record_file.read(tmp_path / str(number))
    changed = json.loads(lines[-1])
    changed["head"]["time"] = "2020-01-01T00:00:00Z"
    path.write_bytes(b"".join([*lines[:-1], json.dumps(changed).encode()]))
    head = record_file.read(path)
    with pytest.raises(record_file.RecordFileError, match="not signed"):
        record_file.require_signature(path, head, key)
    with pytest.raises(errors.InvalidArgument):
        verified(client, head)


def test_an_export_has_no_secrets(idle: Bed, client: Client) -> None:
    canary = "canary-7f3a-" + "x" * 20
    environment = Environment(
        name="environments/far",
        kind=Environment.KIND_TARGET,
        url="https://far.crm4.dynamics.com",
        sign_in=SignIn(
            method=SignIn.METHOD_CLIENT_SECRET,
            tenant="example.com",
            client_id="00000000-0000-0000-0000-000000000001",
        ),
    )
    idle.call("CreateEnvironment", api.CreateEnvironmentRequest(environment=environment))
    request = api.SetEnvironmentCredentialRequest(name=environment.name, client_secret=canary)
    idle.call("SetEnvironmentCredential", request)
    text = b"".join(client.export_events())
    raw = b"".join(base64.b64decode(json.loads(line).get("bytes", "")) for line in text.splitlines())
    for secret in (canary, idle.token):
        assert secret.encode() not in text
        assert secret.encode() not in raw


# Prune


def test_what_was_exported_can_be_dropped_and_the_rest_stays_provable(
    idle: Bed, client: Client, tmp_path: Path
) -> None:
    happen(idle, 20)
    with pytest.raises(errors.FailedPrecondition, match="no given export holds them") as refused:
        client.prune_events(tomorrow())
    assert refused.value.reason == ErrorReason.ERROR_REASON_EVENTS_NOT_PRUNABLE
    one = exported(client, tmp_path / "1.jsonl", last=9)
    two = exported(client, tmp_path / "2.jsonl", first=10)
    gap = exported(client, tmp_path / "3.jsonl", first=11, last=two.last_sequence)
    before = idle.snapshot()
    for heads in ([one], [two], [one, gap]):
        with pytest.raises(errors.FailedPrecondition, match=r"events (1|10) to"):
            client.prune_events(_time_of(idle, two.last_sequence + 1), heads)
    planned = client.prune_events(_time_of(idle, two.last_sequence + 1), [two, one], validate_only=True)
    assert idle.snapshot() == before
    event = client.prune_events(_time_of(idle, two.last_sequence + 1), [two, one])
    last = two.last_sequence
    assert planned.checkpoint.sequence == event.checkpoint.sequence == event.checkpoint.dropped == last
    assert (event.actor, event.checkpoint.sha256, event.checkpoint.forced) == (
        "principals/admin",
        two.sha256,
        False,
    )
    assert event.peer.startswith("127.0.0.1:")
    assert idle.events()[0].sequence == last + 1
    result = verified(client, one, two)
    assert not result.HasField("fault")
    assert result.checkpoint == event.checkpoint
    # What is left is exported on from the checkpoint.
    rest = exported(client, tmp_path / "4.jsonl")
    assert (rest.first_sequence, rest.previous_sha256) == (last + 1, two.sha256)
    idle.stop()
    idle.start()
    with Client(str(idle.host.address), token=idle.token) as again:
        assert not verified(again, one, rest).HasField("fault")


def _time_of(bed: Bed, sequence: int) -> Timestamp:
    found: Timestamp = next(e.time for e in bed.events() if e.sequence == sequence)
    return found


def test_dropping_by_force_is_told(idle: Bed, client: Client) -> None:
    happen(idle, 5)
    event = client.prune_events(tomorrow(), force=True)
    assert event.checkpoint.forced
    assert len(idle.events()) == 1
    assert not verified(client).HasField("fault")


def test_events_of_unfinished_runs_and_after_them_stay(idle: Bed, client: Client) -> None:
    happen(idle, 3)
    run = deploy(idle)
    happen(idle, 3)
    watched = api.WatchRunRequest(name=run.name)
    token = next(idle.stream("WatchRun", watched)).resume_token
    event = client.prune_events(tomorrow(), force=True)
    first = next(e.sequence for e in idle.events() if e.subject == run.name)
    assert event.checkpoint.sequence == first - 1
    with pytest.raises(errors.FailedPrecondition, match="nothing to drop"):
        client.prune_events(tomorrow(), force=True)
    # A watch of the run goes on as if nothing had been dropped.
    watch = idle.stream("WatchRun", api.WatchRunRequest(name=run.name, resume_token=token))
    idle.call("CancelRun", api.CancelRunRequest(name=run.name))
    assert [r.run.state for r in watch if r.HasField("run")] == [Run.STATE_CANCELLED]


@pytest.mark.parametrize("before", [Timestamp(nanos=-1), Timestamp(seconds=2**62), None])
def test_what_is_no_time_is_refused(idle: Bed, before: Timestamp | None) -> None:
    with pytest.raises(errors.InvalidArgument, match="before"):
        idle.call("PruneEvents", api.PruneEventsRequest(before=before, force=True))


def test_times_that_are_far_off_are_times(idle: Bed) -> None:
    early, late = Timestamp(seconds=-62135596800), Timestamp(seconds=253402300799)
    with pytest.raises(errors.FailedPrecondition, match="nothing to drop"):
        idle.call("PruneEvents", api.PruneEventsRequest(before=early, force=True))
    assert idle.call("PruneEvents", api.PruneEventsRequest(before=late, force=True)).checkpoint.dropped


def test_a_repeated_request_drops_once(idle: Bed) -> None:
    happen(idle, 3)
    request = api.PruneEventsRequest(before=tomorrow(), force=True, request_id="once")
    first = idle.call("PruneEvents", request)
    assert idle.call("PruneEvents", request) == first
    assert len(idle.events()) == 1


def test_a_token_from_before_the_checkpoint_is_out_of_range(idle: Bed, client: Client) -> None:
    watch = idle.stream("WatchEvents", api.WatchEventsRequest())
    old = next(watch).resume_token
    watch.cancel()
    run = deploy(idle)
    of_run = next(idle.stream("WatchRun", api.WatchRunRequest(name=run.name))).resume_token
    idle.call("CancelRun", api.CancelRunRequest(name=run.name))
    happen(idle, 2)
    client.prune_events(tomorrow(), force=True)
    fresh = next(idle.stream("WatchEvents", api.WatchEventsRequest())).resume_token
    requests = {
        "WatchEvents": api.WatchEventsRequest(resume_token=old),
        "WatchRun": api.WatchRunRequest(name=run.name, resume_token=of_run),
    }
    for method, request in requests.items():
        with pytest.raises(errors.OutOfRange) as refused:
            idle.call(method, request)
        assert refused.value.reason == ErrorReason.ERROR_REASON_EVENTS_PRUNED
    with pytest.raises(errors.OutOfRange) as refused:
        next(client.watch_events(resume_token=old))
    assert next(client.watch_events(resume_token=fresh)).HasField("heartbeat")
    again = client.watch_events(from_beginning=True)
    assert [next(again).WhichOneof("update"), next(again).event.kind] == [
        "heartbeat",
        Event.KIND_EVENTS_PRUNED,
    ]


# Watch


def take(updates: Iterator[api.WatchEventsResponse], count: int) -> list[api.WatchEventsResponse]:
    """So many responses with an event."""
    found = []
    for update in updates:
        if update.HasField("event"):
            found.append(update)
        if len(found) == count:
            break
    return found


def test_a_watch_of_the_record_brings_what_a_list_brings(idle: Bed, client: Client) -> None:
    happen(idle, 5)
    deploy(idle)
    told = idle.events()
    filters: dict[str, Callable[[Event], bool]] = {
        "": lambda e: True,
        'subject = "pipelines/sales"': lambda e: e.subject == "pipelines/sales",
        "kind = PIPELINE_UPDATED": lambda e: e.kind == Event.KIND_PIPELINE_UPDATED,
        'actor != host AND kind != "PIPELINE_UPDATED"': lambda e: (
            e.actor != "host" and e.kind != Event.KIND_PIPELINE_UPDATED
        ),
        f'time >= "{told[5].time.ToJsonString()}"': lambda e: (
            e.time.ToNanoseconds() >= told[5].time.ToNanoseconds()
        ),
    }
    for text, selected in filters.items():
        wanted = [e for e in told if selected(e)]
        assert wanted
        assert list(client.events(text)) == wanted
        with closing(client.watch_events(text, from_beginning=True)) as watch:
            assert [u.event for u in take(watch, len(wanted))] == wanted


def test_a_watch_without_a_token_begins_now(idle: Bed, client: Client) -> None:
    with closing(client.watch_events()) as watch:
        first = next(watch)
        assert first.HasField("heartbeat")
        happen(idle, 1)
        assert take(watch, 1)[0].event == idle.events()[-1]


def test_a_watch_that_is_resumed_anywhere_has_no_gap_and_no_repetition(idle: Bed) -> None:
    writing = threading.Thread(target=happen, args=(idle, 60))
    writing.start()
    seen: list[int] = []
    token = ""
    while len(seen) < 60:
        with closing(Client(str(idle.host.address), token=idle.token)) as client:
            watch = client.watch_events("kind = PIPELINE_UPDATED", resume_token=token, from_beginning=True)
            with closing(watch):
                for update in take(watch, 7 if len(seen) < 56 else 60 - len(seen)):
                    seen.append(update.event.sequence)
                    token = update.resume_token
    writing.join()
    assert seen == [e.sequence for e in idle.events() if e.kind == Event.KIND_PIPELINE_UPDATED]


def test_heartbeats_carry_the_place_past_what_a_filter_leaves_out(idle: Bed, client: Client) -> None:
    happen(idle, 5)
    with closing(client.watch_events("actor = nobody", from_beginning=True)) as watch:
        tokens = [next(watch).resume_token for _ in range(3)]
    assert tokens[0] != tokens[1] == tokens[2]
    with closing(client.watch_events(resume_token=tokens[2])) as watch:
        assert next(watch).HasField("heartbeat")
        happen(idle, 1)
        assert take(watch, 1)[0].event == idle.events()[-1]


def test_a_drain_ends_a_watch_so_that_it_can_go_on(idle: Bed) -> None:
    watch = idle.stream("WatchEvents", api.WatchEventsRequest())
    token = next(watch).resume_token
    guard = idle.host._guard
    assert guard is not None
    idle.thread.run(guard.drain())
    with pytest.raises(grpc.RpcError) as ended:
        list(watch)
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    idle.stop()
    idle.start()
    watch = idle.stream("WatchEvents", api.WatchEventsRequest(resume_token=token))
    assert [next(watch).WhichOneof("update"), next(watch).event.kind] == [
        "heartbeat",
        Event.KIND_HOST_STARTED,
    ]


def test_the_clients_watch_outlives_a_restart(idle: Bed) -> None:
    address = str(idle.host.address)
    idle.settings["address"] = address
    seen: list[Event] = []
    lost: list[errors.PipelineHostError] = []
    ready, done = threading.Event(), threading.Event()

    def follow() -> None:
        with closing(Client(address, token=idle.token)) as client:
            for update in client.watch_events(on_interruption=lost.append):
                ready.set()
                if update.HasField("event"):
                    seen.append(update.event)
                if update.event.pipeline.description == "change 2":
                    break
        done.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert ready.wait(10)
    first = len(idle.events())
    idle.stop()
    idle.start()
    happen(idle, 3)
    assert done.wait(30)
    thread.join()
    assert lost
    assert seen == idle.events()[first : first + len(seen)]


def test_a_resume_token_of_a_run_is_none_of_the_record(idle: Bed) -> None:
    run = deploy(idle)
    token = next(idle.stream("WatchRun", api.WatchRunRequest(name=run.name))).resume_token
    for wrong in (token, token.replace(".", ".A"), "1.", "999999.AAAAAAAAAAAAAAAA", "x"):
        with pytest.raises(errors.OutOfRange):
            idle.call("WatchEvents", api.WatchEventsRequest(resume_token=wrong))


# Who may


def test_the_whole_record_is_for_administrators(idle: Bed) -> None:
    token = idle.person("ada")
    before = idle.snapshot()
    requests = {
        "VerifyEvents": api.VerifyEventsRequest(),
        "ExportEvents": api.ExportEventsRequest(),
        "PruneEvents": api.PruneEventsRequest(before=tomorrow(), force=True),
    }
    for method, request in requests.items():
        with pytest.raises(errors.PermissionDenied):
            idle.call(method, request, token=token)
    assert idle.snapshot() == before


# The CLI


@pytest.fixture
def run(idle: Bed, tmp_path: Path) -> Any:
    token = tmp_path / "token"
    token.write_text(idle.token)

    def call(*arguments: str, host: str = "") -> Result:
        address = host or str(idle.host.address)
        whole = ["--host", address, "--token-file", str(token), *arguments]
        result = CliRunner().invoke(cli, whole, standalone_mode=False)
        assert result.exception is None or isinstance(result.exception, errors.PipelineHostError)
        return result

    return call


def test_the_cli_exports_verifies_and_prunes(idle: Bed, run: Any, tmp_path: Path) -> None:
    happen(idle, 10)
    path = tmp_path / "2026.jsonl"
    assert run("event", "export", "-o", str(path), "--to", "9").output.splitlines()[-1] == str(path)
    told = run("event", "verify", "--file", str(path))
    assert told.return_value == 0
    assert re.search(r"intact +\d+ events, up to \d+", told.output)
    assert re.search(r"exports +1 to 9", told.output)
    key = re.search(r"record key +([0-9a-f]{64})", run("host").output)
    assert key is not None
    nowhere = "127.0.0.1:1"
    offline = ("event", "verify", "--file", str(path), "--key")
    assert run(*offline, key[1], host=nowhere).return_value == 0
    assert run(*offline, "0" * 64, host=nowhere).return_value == 1
    before = _time_of(idle, 10).ToJsonString()
    assert (
        "dropped events 1 to 9"
        in run("event", "prune", "--before", before, "--export", str(path), "-y").output
    )
    tamper(idle, "DELETE FROM event WHERE sequence = 12")
    told = run("event", "verify")
    assert told.return_value == 1
    assert "event 12 (missing)" in told.output
    path.write_bytes(path.read_bytes().replace(b"pipelines", b"pipelinez", 1))
    assert run("event", "verify", "--file", str(path)).return_value == 1


def test_the_cli_takes_times_for_the_ends_of_an_export(idle: Bed, run: Any, tmp_path: Path) -> None:
    happen(idle, 6)
    path = tmp_path / "part.jsonl"
    first, last = (_time_of(idle, n).ToJsonString() for n in (4, 8))
    run("event", "export", "-o", str(path), "--from", first, "--to", last)
    head = record_file.read(path)
    assert (head.first_sequence, head.last_sequence) == (4, 7)
