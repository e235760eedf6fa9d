"""Webhooks of gates: told at least once and in order, signed, to safe addresses, whatever receivers do."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from tests.receiver import Receiver
from tests.rpc.conftest import DEVELOPMENT, Bed, package
from tests.rpc.test_gates import until, waits
from tests.rpc.test_hostile_addresses import LITERAL, NAMED, ODD, connections

from pipelinehost import Client, errors
from pipelinehost.cli.commands import cli
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Event, Gate, GateStatus, Pipeline, Principal, Run, Share, Stage
from pipelinehost_server.deployment import webhooks
from pipelinehost_server.deployment.webhooks import address_problem
from pipelinehost_server.store import Delivery, Fenced

WAITING = Run.STATE_AWAITING_GATE


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver(tmp_path / "receiver")
    receiver.start()
    yield receiver
    receiver.kill()


@pytest.fixture
def bed(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    """A host with a gate that has a webhook, which tries again without much ado."""
    monkeypatch.setattr(webhooks, "_FIRST_PAUSE", 0.1)
    monkeypatch.setattr(webhooks, "_LAST_PAUSE", 0.2)
    monkeypatch.setattr(webhooks, "SECONDS", 0.8)
    bed = Bed(tmp_path / "data")
    bed.environment("dev", DEVELOPMENT)
    bed.environment("qa")
    service = Principal(name="principals/board", kind=Principal.KIND_SERVICE, role="ROLE_VIEWER")
    bed.call("CreatePrincipal", api.CreatePrincipalRequest(principal=service))
    bed.new_token("board")
    bed.person("ada", "MAKER")
    gate = Gate(
        kind=Gate.KIND_APPROVAL, approvers=["principals/board", "principals/ada"], webhook=receiver.url
    )
    stage = Stage(name="pipelines/sales/stages/qa", environment="environments/qa", gates=[gate])
    shares = [Share(principal="principals/ada", access="ACCESS_EDIT")]
    bed.pipeline(stages=[stage], shares=shares)
    yield bed
    bed.close()


def found(bed: Bed, run: Run, enough: Callable[[Run], bool]) -> Run:
    ends = time.monotonic() + 20
    while True:
        now: Run = bed.call("GetRun", api.GetRunRequest(name=run.name))
        if enough(now):
            return now
        assert time.monotonic() < ends, now
        time.sleep(0.02)


def more_than(count: int, got: list[dict[str, Any]]) -> bool:
    return len(got) > count


def told(run: Run) -> bool:
    return run.gates[-1].delivery.HasField("deliver_time")


def notified(bed: Bed, run: Run) -> list[str]:
    return [e.message for e in bed.events() if e.subject == run.name and e.kind == Event.KIND_GATE_NOTIFIED]


def change(bed: Bed, token: str | None = None, **fields: Any) -> Pipeline:
    pipeline: Pipeline = bed.call("GetPipeline", api.GetPipelineRequest(name="pipelines/sales"))
    for field, value in fields.items():
        setattr(pipeline.stages[0].gates[0], field, value)
    request = api.UpdatePipelineRequest(pipeline=pipeline)
    changed: Pipeline = bed.call("UpdatePipeline", request, token=token)
    return changed


def pending(bed: Bed) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{bed.folder / 'pipelinehost.db'}?mode=ro", uri=True)) as database:
        return database.execute("SELECT run, id, attempts FROM delivery").fetchall()


async def identity(bed: Bed) -> str:
    return bed.store.reads.identity()


def check(request: dict[str, Any], key: str) -> None:
    """Checks a signature as the specification says, with nothing of ours."""
    headers = request["headers"]
    assert key.startswith("whpk_")
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("whpk_"), validate=True))
    version, signature = headers["webhook-signature"].split(",")
    assert version == "v1a"
    signed = b".".join(
        [headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), request["body"]]
    )
    public.verify(base64.b64decode(signature, validate=True), signed)


# What comes


def test_an_open_gate_is_told_once_and_signed(bed: Bed, receiver: Receiver) -> None:
    run = found(bed, waits(bed, note="CHG1 «größer»"), told)
    (request,) = receiver.got()
    key = bed.call("GetHost", api.GetHostRequest()).webhook_key
    check(request, key)
    for header in ("webhook-id", "webhook-timestamp"):
        value = request["headers"][header]
        changed = {
            **request,
            "headers": {**request["headers"], header: value[:-1] + ("1" if value[-1] != "1" else "2")},
        }
        with pytest.raises(InvalidSignature):
            check(changed, key)
    with pytest.raises(InvalidSignature):
        check({**request, "body": request["body"].replace(b"CHG1", b"CHG2")}, key)
    assert abs(int(request["headers"]["webhook-timestamp"]) - time.time()) < 60
    assert (request["path"], request["headers"]["content-type"]) == ("/hooks?team=a", "application/json")
    assert request["headers"]["host"] == f"127.0.0.1:{receiver.port}"
    gate = run.gates[0]
    assert json.loads(request["body"]) == {
        "id": request["headers"]["webhook-id"],
        "type": "gate.opened",
        "time": gate.open_time.ToJsonString(),
        "host": bed.thread.run(identity(bed)),
        "run": run.name,
        "pipeline": "pipelines/sales",
        "stage": "pipelines/sales/stages/qa",
        "gate": "approval",
        "bound_sha256": gate.bound_sha256,
        "expire_time": gate.expire_time.ToJsonString(),
        "required": 1,
        "approvers": ["principals/board", "principals/ada"],
        "artifact": run.artifact,
        "solution": "Sales",
        "version": "1.0.0.0",
        "previous_version": "",
        "requester": "principals/admin",
        "note": "CHG1 «größer»",
        "error_count": 0,
        "warning_count": run.warning_count,
    }
    assert (gate.delivery.attempts, gate.delivery.error) == (1, "")
    assert notified(bed, run) == ["the webhook was told"]
    assert pending(bed) == []
    answer = api.ApproveRequest(name=run.name, bound_sha256=json.loads(request["body"])["bound_sha256"])
    bed.call("Approve", answer, token=bed.tokens["board"])
    done = until(bed, run, Run.STATE_SUCCEEDED)
    assert told(done), "what became of it stays, whoever goes on with the run"
    assert len(receiver.got()) == 1


def test_the_key_outlives_the_process_and_is_not_that_of_the_record(bed: Bed) -> None:
    host = bed.call("GetHost", api.GetHostRequest())
    assert base64.b64decode(host.webhook_key.removeprefix("whpk_")).hex() != host.record_key
    bed.stop()
    bed.start()
    assert bed.call("GetHost", api.GetHostRequest()).webhook_key == host.webhook_key


def test_a_delivery_is_committed_with_its_gate(bed: Bed, receiver: Receiver) -> None:
    """Looked at on the loop, before anybody hears of the gate."""
    receiver.mode("500")
    seen: list[list[tuple[Any, ...]]] = []

    def listener(events: Any) -> None:
        seen.extend(pending(bed) for e in events if e.kind == Event.KIND_GATE_OPENED)

    bed.store._writer._listeners.insert(0, listener)
    run = waits(bed)
    assert [[row[0] for row in rows] for rows in seen] == [[run.name]]


def test_a_gate_that_is_not_opened_after_all_leaves_no_delivery(bed: Bed) -> None:
    run = Run(name="runs/x")
    status = GateStatus(kind=Gate.KIND_APPROVAL, gate=Gate(webhook="http://127.0.0.1:1"))

    def fail(tx: Any) -> None:
        webhooks.opened(tx, run, status)
        tx.save_run(run, [], epoch=1)  # somebody else has it

    with pytest.raises(Fenced):
        bed.thread.run(bed.store.write(fail))
    assert pending(bed) == []


# Receivers that do not take it


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("500", "answered 500"),
        ("404", "answered 404"),
        ("hang", "did not answer within 0.8 seconds"),
        ("drip", "did not answer within 0.8 seconds"),
        ("garbage", "does not speak HTTP"),
        ("headers", "does not speak HTTP"),
        ("endless 503", "answered 503"),
        ("redirect", "answered 307; redirects are not followed"),
        ("die", "does not speak HTTP, or broke off"),
        ("down", "cannot be reached"),
    ],
)
def test_it_is_repeated_until_it_is_taken(
    bed: Bed, receiver: Receiver, tmp_path: Path, mode: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="pipelinehost_server")
    beyond = Receiver(tmp_path / "beyond")
    receiver.mode(f"redirect {beyond.start()}" if mode == "redirect" else mode)
    if mode == "down":
        receiver.kill()
    least = 1 if mode == "die" else 2
    run = found(bed, waits(bed), lambda r: r.gates[0].delivery.attempts >= least)
    error = run.gates[0].delivery.error
    assert why in error
    assert error.isprintable()
    assert not told(run)
    receiver.mode("204")
    if mode in {"down", "die"}:
        receiver.kill()
        receiver.start()
    run = found(bed, run, told)
    delivery = run.gates[0].delivery
    assert delivery.error == ""
    got = receiver.got()
    assert mode in {"down", "die"} or delivery.attempts == len(got)
    assert len({r["headers"]["webhook-id"] for r in got}) == len({r["body"] for r in got}) == 1
    key = bed.call("GetHost", api.GetHostRequest()).webhook_key
    for request in got:
        check(request, key)
    messages = notified(bed, run)
    assert len(messages) == 2, "the first failure and the success"
    assert messages[1] == "the webhook was told"
    assert beyond.got() == [], "nothing else was asked"
    beyond.kill()
    said = caplog.text + str(bed.events()) + str(run)
    assert "CANARY" not in said, "the receiver's own words are nowhere"


def test_an_endless_answer_that_says_yes_is_a_yes(bed: Bed, receiver: Receiver) -> None:
    receiver.mode("endless 200")
    run = found(bed, waits(bed), told)
    assert (run.gates[0].delivery.attempts, len(receiver.got())) == (1, 1)


def test_a_slow_receiver_holds_nobody_else_up(bed: Bed, receiver: Receiver, tmp_path: Path) -> None:
    receiver.mode("hang")
    run = waits(bed)
    receiver.wait(lambda got: len(got) >= 1)
    quick = Receiver(tmp_path / "quick")
    quick.start()
    bed.environment("production")
    gate = Gate(kind=Gate.KIND_APPROVAL, approvers=["principals/board"], webhook=quick.url)
    stage = Stage(name="pipelines/other/stages/p", environment="environments/production", gates=[gate])
    bed.pipeline("other", stages=[stage])
    other = bed.call("Deploy", api.DeployRequest(pipeline="pipelines/other", artifact=run.artifact))
    found(bed, other, lambda r: bool(r.gates) and told(r))
    quick.kill()


@pytest.mark.parametrize("end", ["approve", "reject", "cancel", "expire"])
def test_nobody_is_told_of_a_gate_that_waits_no_more(bed: Bed, receiver: Receiver, end: str) -> None:
    receiver.mode("500")
    if end == "expire":
        change(bed, timeout_seconds=1)
    run = waits(bed)
    receiver.wait(lambda got: len(got) >= 2)
    ada = bed.tokens["ada"]
    if end == "approve":
        bed.call("Approve", api.ApproveRequest(name=run.name), token=ada)
    elif end == "reject":
        bed.call("Reject", api.RejectRequest(name=run.name, comment="no"), token=ada)
    elif end == "cancel":
        bed.call("CancelRun", api.CancelRunRequest(name=run.name))
    ended = found(bed, run, lambda r: r.state != WAITING)
    ends = time.monotonic() + 10
    while pending(bed):
        assert time.monotonic() < ends
        time.sleep(0.02)
    count = len(receiver.got())
    time.sleep(0.5)
    assert len(receiver.got()) == count
    assert ended.gates[0].delivery.error == "answered 500"


def test_nobody_is_told_of_a_gate_that_ended_while_its_receiver_was_busy_with_others(
    bed: Bed, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "_AT_ONCE", 1)
    receiver.mode("hang")
    first = waits(bed)
    receiver.wait(lambda got: len(got) >= 1)
    second = bed.call("Deploy", api.DeployRequest(pipeline="pipelines/sales", artifact=first.artifact))
    until(bed, second, WAITING)
    bed.call("CancelRun", api.CancelRunRequest(name=second.name))
    ends = time.monotonic() + 10
    while any(run == second.name for run, *_ in pending(bed)):
        assert time.monotonic() < ends
        time.sleep(0.02)
    assert {json.loads(request["body"])["run"] for request in receiver.got()} == {first.name}


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_full_store_is_one_line_in_the_log(
    bed: Bed,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    foreseen: bool,
) -> None:
    full = errors.ResourceExhausted(ErrorReason.ERROR_REASON_LIMIT_EXCEEDED, "the disk is full")
    note, failures = webhooks._note, [full if foreseen else RuntimeError("nobody foresaw it")]

    def failing(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        note(*arguments)

    monkeypatch.setattr(webhooks, "_STORE_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(webhooks, "_note", failing)
    run = found(bed, waits(bed), told)
    [line] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert line.getMessage().startswith(f"what came of the webhook of {run.name} could not be written")
    assert ("the disk is full" in line.getMessage(), bool(line.exc_info)) == (foreseen, not foreseen)


def test_a_run_that_was_rejected_before_its_receiver_answered_can_be_watched(
    bed: Bed, receiver: Receiver
) -> None:
    receiver.mode("hang")
    run = waits(bed)
    receiver.wait(lambda got: len(got) >= 1)
    with Client(str(bed.host.address), token=bed.tokens["ada"]) as ada:
        stream = bed.stream("WatchRun", api.WatchRunRequest(name=run.name))
        first = next(stream)
        ended = ada.reject(run.name, comment="no")
        last = [r for r in stream if r.HasField("run")]
        assert [r.run.state for r in last] == [Run.STATE_REJECTED]
        run = found(bed, run, lambda r: r.revision > ended.revision)
        assert notified(bed, run) == ["the webhook did not answer within 0.8 seconds"]
        for token in ("", first.resume_token, last[0].resume_token):
            watched = bed.call("WatchRun", api.WatchRunRequest(name=run.name, resume_token=token))
            assert watched[-1].run == run


def test_what_was_noted_is_not_lost_to_who_has_the_run_in_hands(bed: Bed, receiver: Receiver) -> None:
    """The receiver decides before it answers, as simple ones do; the run goes on at once."""
    receiver.mode("hang")
    run = waits(bed)
    receiver.wait(lambda got: len(got) >= 1)
    bed.call("Approve", api.ApproveRequest(name=run.name), token=bed.tokens["board"])
    until(bed, run, Run.STATE_SUCCEEDED)
    done = found(bed, run, lambda r: r.gates[0].delivery.attempts == 1)
    assert (done.state, done.gates[0].state) == (Run.STATE_SUCCEEDED, GateStatus.STATE_APPROVED)


def test_who_saves_an_older_copy_of_a_run_does_not_undo_what_was_noted(bed: Bed, receiver: Receiver) -> None:
    run = found(bed, waits(bed), told)

    def job(tx: Any) -> None:
        _, epoch = tx.claim_run(run.name)
        older = Run.FromString(run.SerializeToString())
        older.gates[0].ClearField("delivery")
        older.revision -= 1
        tx.save_run(older, [], epoch=epoch)

    bed.thread.run(bed.store.write(job))
    assert bed.call("GetRun", api.GetRunRequest(name=run.name)) == run


# Gates that are opened again


def test_a_gate_that_is_opened_again_is_told_anew(bed: Bed, receiver: Receiver) -> None:
    run = found(bed, waits(bed), told)
    board = bed.tokens["board"]
    change(bed, timeout_seconds=7200)
    old, new = receiver.wait(lambda got: len(got) == 2)
    first, second = json.loads(old["body"]), json.loads(new["body"])
    assert first["id"] != second["id"]
    assert first["bound_sha256"] != second["bound_sha256"]
    with pytest.raises(errors.Aborted) as stale:
        bed.call(
            "Approve", api.ApproveRequest(name=run.name, bound_sha256=first["bound_sha256"]), token=board
        )
    assert stale.value.reason_name == "GATE_CHANGED"
    with Client(str(bed.host.address), token=board) as client:
        with pytest.raises(errors.Aborted):
            client.approve(run.name, bound_sha256=first["bound_sha256"])
        client.approve(run.name, bound_sha256=second["bound_sha256"])
    until(bed, run, Run.STATE_SUCCEEDED)
    assert len(notified(bed, run)) == 2


def test_a_late_yes_to_what_has_changed_is_no_yes_to_the_new(bed: Bed, receiver: Receiver) -> None:
    receiver.mode("late")
    run = waits(bed)
    receiver.wait(lambda got: len(got) == 1)
    receiver.mode("500")
    change(bed, timeout_seconds=7200)
    run = found(bed, run, lambda r: r.gates[0].delivery.error == "answered 500")
    assert not told(run)
    assert pending(bed)
    assert len({r["headers"]["webhook-id"] for r in receiver.got()}) == 2


def test_only_the_newest_is_told_in_order(bed: Bed, receiver: Receiver) -> None:
    receiver.mode("500")
    run = waits(bed)
    for seconds in (1000, 2000, 3000):
        known = len(receiver.got())
        receiver.wait(partial(more_than, known))
        change(bed, timeout_seconds=seconds)
        time.sleep(0.3)
    receiver.mode("204")
    run = found(bed, run, told)
    bounds = [json.loads(r["body"])["bound_sha256"] for r in receiver.got()]
    assert bounds[-1] == run.gates[0].bound_sha256
    order = list(dict.fromkeys(bounds))
    assert bounds == sorted(bounds, key=order.index), "never an older one after a newer one"
    assert pending(bed) == []


def test_a_webhook_that_is_changed_is_told_at_its_new_address(
    bed: Bed, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.mode("500")
    run = waits(bed)
    receiver.wait(lambda got: len(got) >= 1)
    other = Receiver(tmp_path / "other")
    change(bed, webhook=other.start())
    found(bed, run, told)
    count = len(receiver.got())
    change(bed, webhook="")
    found(bed, run, lambda r: not r.gates[0].gate.webhook)
    time.sleep(0.4)
    assert (len(receiver.got()), len(other.got())) == (count, 1)
    other.kill()


def test_what_is_left_is_told_after_a_restart(bed: Bed, receiver: Receiver) -> None:
    receiver.mode("500")
    run = waits(bed)
    receiver.wait(lambda got: len(got) >= 1)
    bed.stop()
    receiver.mode("204")
    bed.start()
    found(bed, run, told)
    assert len({r["headers"]["webhook-id"] for r in receiver.got()}) == 1
    # What waits no more by then is dropped.
    run = waits(bed, version="2.0.0.0")
    found(bed, run, told)


def test_a_clock_that_jumps_does_no_harm(bed: Bed, receiver: Receiver) -> None:
    receiver.mode("500")
    run = waits(bed)
    sender: Any = bed.host._webhooks
    for days in (-400, 400):
        sender._clock = lambda d=days: time.time_ns() + d * 24 * 3600 * 10**9
        count = len(receiver.got())
        receiver.wait(partial(more_than, count))
    receiver.mode("204")
    found(bed, run, told)


def test_the_cli_says_what_became_of_a_webhook(bed: Bed, receiver: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(bed.token)

    def show(*words: str) -> str:
        command = ["--host", str(bed.host.address), "--token-file", str(file), *words]
        shown = CliRunner().invoke(cli, command, standalone_mode=False, env={"COLUMNS": "200"})
        assert shown.exception is None
        return shown.output

    receiver.mode("500")
    run = found(bed, waits(bed), lambda r: r.gates[0].delivery.attempts >= 2)
    assert re.search(r"answered 500 \(\d+ attempts\)", show("run", "show", run.name))
    receiver.mode("204")
    run = found(bed, run, told)
    assert re.search(r"WEBHOOK.*\n.*told \S", show("run", "show", run.name))
    assert bed.call("GetHost", api.GetHostRequest()).webhook_key in show("host")
    kept = show("get", "pipeline", "sales")
    assert f"webhook: {receiver.url}" in kept
    (tmp_path / "same.yaml").write_text(kept)
    assert "= pipeline" in show("apply", "-f", str(tmp_path / "same.yaml"), "--dry-run")


# Where to


def test_only_administrators_set_webhooks(bed: Bed, receiver: Receiver) -> None:
    ada = bed.tokens["ada"]
    before = bed.snapshot()
    for url in ("https://evil.example/x", "", receiver.url + "&x"):
        with pytest.raises(errors.PermissionDenied, match="only an administrator"):
            change(bed, ada, webhook=url)
    gate = Gate(kind=Gate.KIND_APPROVAL, approvers=["principals/board"], webhook=receiver.url)
    stage = Stage(name="pipelines/own/stages/qa", environment="environments/qa", gates=[gate])
    request = api.CreatePipelineRequest(
        pipeline=Pipeline(name="pipelines/own", development_environments=["environments/dev"], stages=[stage])
    )
    for only in (True, False):
        request.validate_only = only
        with pytest.raises(errors.PermissionDenied, match="only an administrator"):
            bed.call("CreatePipeline", request, token=ada)
    assert bed.snapshot() == before
    assert change(bed, ada, timeout_seconds=77).stages[0].gates[0].webhook == receiver.url


REFUSED = [u for u in (*LITERAL, *ODD) if "dynamics.com" not in u and "example" not in u] + [
    "http://example.com", "https://user:pw@example.com", "https://example.com#x", "https://example.com\\@x",
    "https://metadata", "https://2130706433/x", "https://0x7f.1/x", "https://example.0x7f/", "https://a..example",
    "https://example.com:0", "https://[::ffff:169.254.169.254]/", "ftp://127.0.0.1", "http://127.0.0.1.nip.io/",
    "https://127.0.0.1:65536",
]  # fmt: skip
LOOKED_UP = {"https://localtest.me", "https://metadata.google.internal", "https://kubernetes.default.svc"}
"""Names like any other, as long as nobody looks where they lead."""


def test_hostile_addresses_are_refused(bed: Bed) -> None:
    before = bed.snapshot()
    with connections() as seen:
        for url in REFUSED:
            if url in LOOKED_UP:
                assert address_problem(url) == ""
                continue
            with pytest.raises(errors.InvalidArgument) as refused:
                change(bed, webhook=url)
            assert refused.value.violations[0].subject == "pipeline.stages[0].gates[0].webhook", url
    assert [at for at in seen if at[1] != bed.host.address.port] == []
    assert bed.snapshot() == before
    for url in ("https://example.com", "https://a-b.example.com:8443/x?y=z", "http://localhost:1/x",
                "http://[::1]:1", "https://127.0.0.1/x"):  # fmt: skip
        assert address_problem(url) == ""


def test_names_that_lead_inside_are_not_connected_to(
    bed: Bed, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each name is looked up when it is told, once."""
    asked: list[str] = []

    async def looked_up(_: Any, host: Any, port: Any, **__: Any) -> list[Any]:
        asked.append(host)
        ip = NAMED.get(f"https://{host}") or "169.254.169.254"
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (ip, int(port or 0)))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", looked_up)
    run = found(bed, waits(bed), told)
    sender, delivery = bed.host._webhooks, Delivery(run.name, "msg_1", Gate.KIND_APPROVAL, 0, b"{}")
    assert sender is not None
    with connections() as seen:
        for url in (*NAMED, *LOOKED_UP):
            error = bed.thread.run(sender._post(url, delivery))
            assert "not on the public network" in error, url
        for url in (u for u in LITERAL if u not in LOOKED_UP):
            assert bed.thread.run(sender._post(url, delivery)).startswith("the address "), url
    assert seen == []
    assert len(asked) == len(NAMED) + len(LOOKED_UP), "once for each request"
    assert len(receiver.got()) == 1


def test_it_goes_to_the_address_that_was_checked_with_the_name_of_the_url(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender: Any = bed.host._webhooks
    asked: list[str] = []

    async def looked_up(_: Any, host: Any, port: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", ("93.184.215.14" if len(asked) == 1 else "10.0.0.1", 0))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", looked_up)
    sent: list[Any] = []

    class Pool:
        async def handle_async_request(self, request: Any) -> Any:
            sent.append(request)
            raise OSError

        async def aclose(self) -> None:
            """Nothing to close."""

    sender._network._pools["hooks.example.com"] = Pool()
    delivery = Delivery("runs/x", "msg_1", Gate.KIND_APPROVAL, 0, b"{}")
    bed.thread.run(sender._post("https://hooks.example.com/a", delivery))
    (request,) = sent
    assert (request.url.host, request.headers["host"]) == ("93.184.215.14", "hooks.example.com")
    assert request.extensions["sni_hostname"] == "hooks.example.com"
    assert asked == ["hooks.example.com"]


def test_no_proxy_of_the_environment_is_used(
    bed: Bed, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Receiver(tmp_path / "proxy")
    address = proxy.start().partition("/hooks")[0]
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, address)
    found(bed, waits(bed), told)
    assert (len(receiver.got()), proxy.got()) == (1, [])
    proxy.kill()


def test_a_full_queue_asks_one_receiver_a_few_times_at_once(bed: Bed, receiver: Receiver) -> None:
    receiver.mode("hang")
    artifact = bed.upload(package())
    runs = [
        bed.call("Deploy", api.DeployRequest(pipeline="pipelines/sales", artifact=artifact.name))
        for _ in range(8)
    ]
    for run in runs:
        until(bed, run, WAITING)
    receiver.mode("204")
    for run in runs:
        found(bed, run, told)
    assert len({r["headers"]["webhook-id"] for r in receiver.got()}) == 8
