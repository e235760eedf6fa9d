"""The CLI's commands about time: schedules, freezes, holds and blocks, as the host is asked by them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.rpc.fake_host import RUN, FakeHost
from tests.rpc.test_client_cli import SHA, Ended, cli, host

from pipelinehost.v1.resources_pb2 import Freeze, Run, Stage

__all__ = ["cli", "host"]
Cli = Callable[[str], Ended]


def test_deploy_at_a_time(host: FakeHost, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XST-02")  # where this user lives
    time.tzset()
    for text, utc in (
        ("2027-01-31T20:00", "2027-01-31T18:00:00Z"),
        ("2027-01-31T20:00+01:00", "2027-01-31T19:00:00Z"),
        ("2027-01-31T20:00Z", "2027-01-31T20:00:00Z"),
    ):
        ended = cli(f"deploy ContosoSales -p sales --at {text} --override-reason hotfix --detach")
        assert ended.code == 0, ended.err
        asked = host.seen("Deploy")[-1]
        assert (asked.schedule_time.ToJsonString(), asked.override_reason) == (utc, "hotfix")
        assert f"({utc})" in ended.err
        assert "+02:00" in ended.err
    wrong = cli("deploy ContosoSales -p sales --at tomorrow --detach")
    assert (wrong.code, "is no time like" in wrong.err) == (2, True)
    wrong = cli("deploy ContosoSales -p sales --at 2027-02-31T00:00 --detach")
    assert (wrong.code, "day is out of range for month" in wrong.err) == (2, True)
    passed = cli("deploy ContosoSales -p sales --at 2020-01-31T20:00 --detach")
    assert "(2020-01-31T18:00:00Z) has passed: the run goes on now" in passed.err


def test_a_time_that_clocks_skip_is_refused(
    host: FakeHost, cli: Cli, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(time.tzset)  # after the variable is as it was
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    wrong = cli("deploy ContosoSales -p sales --at 2027-03-28T02:30 --detach")
    assert (wrong.code, "is skipped in your zone" in wrong.err) == (2, True)
    assert not host.seen("Deploy")
    for text, utc in (
        ("2027-03-28T02:30+01:00", "2027-03-28T01:30:00Z"),
        ("2027-03-28T03:00", "2027-03-28T01:00:00Z"),
        ("2027-10-31T02:30", "2027-10-31T00:30:00Z"),
    ):
        assert cli(f"deploy ContosoSales -p sales --at {text} --detach").code == 0
        assert host.seen("Deploy")[-1].schedule_time.ToJsonString() == utc


def test_reschedule(host: FakeHost, cli: Cli) -> None:
    host.new_run(RUN, pipeline="pipelines/sales")
    ended = cli(f"run reschedule {RUN} --at 2027-01-31T20:00Z")
    assert ended.code == 0, ended.err
    assert "scheduled: until 2027-01-31T20:00:00Z, because that is its time" in ended.err
    shown = cli(f"run show {RUN}")
    assert "until 2027-01-31T20:00:00Z, because that is its time" in shown.out
    assert cli(f"run reschedule {RUN} --now --override-reason hotfix").out.endswith("QUEUED\n")
    assert host.seen("RescheduleRun")[-1].override_reason == "hotfix"
    for wrong in ("", "--now --at 2027-01-31T20:00Z"):
        assert cli(f"run reschedule {RUN} {wrong}").code == 2


def test_a_scheduled_run_says_why_it_waits(host: FakeHost, cli: Cli) -> None:
    run = host.new_run(RUN, pipeline="pipelines/sales")
    run.state = Run.STATE_SCHEDULED
    run.wait.freeze, run.wait.reason = "freezes/stop", "freezes/stop: an incident"
    ended = cli(f"run watch {RUN} --timeout 0.5")
    assert ended.code == 8
    told = [line for line in ended.err.splitlines() if "scheduled: because freezes/stop: an incident" in line]
    assert len(told) == 2, "when the watch begins, and when it is left"
    assert f"run reschedule {RUN.removeprefix('runs/')} --at TIME" in ended.err


def test_a_retried_run_says_that_it_keeps_its_time(host: FakeHost, cli: Cli) -> None:
    run = host.new_run(RUN, pipeline="pipelines/sales")
    for seconds, keeps in ((32_503_680_000, True), (1_577_836_800, False)):  # 3000 and 2020
        run.state, run.schedule_time.seconds = Run.STATE_FAILED, seconds
        ended = cli(f"run retry {RUN} --detach")
        assert ended.code == 0, ended.err
        assert ("waits until 3000-01-01T00:00:00Z" in ended.err) is keeps
        assert (f"run reschedule {RUN.removeprefix('runs/')} --now" in ended.err) is keeps


def test_freezes(host: FakeHost, cli: Cli) -> None:
    ended = cli('freeze create --stop --stage sales/qa --reason "the audit"')
    assert ended.code == 0, ended.err
    assert "freeze delete stop-sales-qa" in ended.err
    assert host.freezes["freezes/stop-sales-qa"].scope == "pipelines/sales/stages/qa"
    rule = "FREQ=WEEKLY;BYDAY=FR"
    times = "--start 2026-11-06T17:00 --end 2026-11-09T06:00 --zone Europe/Berlin"
    assert cli(f'freeze create weekends -p sales {times} --repeat "{rule}" --reason x').code == 0
    made = host.freezes["freezes/weekends"]
    assert (made.scope, made.recurrence, made.time_zone) == ("pipelines/sales", rule, "Europe/Berlin")
    listed = cli("freeze list").out
    assert "sales/qa" in listed
    assert "weekends" in listed
    assert rule in cli("freeze show weekends").out
    for wrong in (
        "--reason x",
        "--stop --end 2026-11-09T06:00 --reason x",
        "--end 2026-11-09T06:00 --reason x",
        "--stop -p sales --stage sales/qa --reason x",
        "--stop",
    ):
        assert cli(f"freeze create {wrong}").code == 2, wrong
    for wrong, told in (("sales", "as PIPELINE/STAGE"), ("sales/gone", "There is qa, prod.")):
        refused = cli(f"freeze create --stop --stage {wrong} --reason x")
        assert (refused.code, told in refused.err) == (1, True), refused
    assert "has passed" not in ended.err
    for end, passed in (("2020-01-02T00:00", True), ("2999-01-02T00:00", False)):
        ended = cli(f"freeze create x{end[:4]} --end {end} --zone Europe/Berlin --reason x")
        assert ("Its window has passed" in ended.err) is passed
        assert cli(f"freeze delete x{end[:4]} -y").code == 0
    assert cli("freeze delete weekends -y").code == 0
    assert list(host.freezes) == ["freezes/stop-sales-qa"]


def test_hold_and_release(host: FakeHost, cli: Cli) -> None:
    ended = cli('pipeline hold sales/qa ContosoSales 1.2.0.0 --reason "the fair"')
    assert ended.code == 0, ended.err
    stages = host.pipelines["pipelines/sales"].stages
    hold = Stage.Hold(solution="ContosoSales", version="1.2.0.0", reason="the fair")
    assert [[*s.holds] for s in stages] == [[hold], *[[] for _ in stages[1:]]]
    assert "ContosoSales 1.2.0.0" in cli("pipeline show sales").out
    assert cli("pipeline hold sales/qa contososales 1.3.0.0 --reason x").code == 0
    assert [h.version for h in host.pipelines["pipelines/sales"].stages[0].holds] == ["1.3.0.0"]
    assert cli("pipeline release sales/qa Other").code == 2
    assert cli("pipeline release sales/qa ContosoSales").code == 0
    assert not host.pipelines["pipelines/sales"].stages[0].holds


def test_block_and_unblock(host: FakeHost, cli: Cli) -> None:
    assert cli(f'artifact block {SHA[:12]} --reason "it leaks"').code == 0
    assert "it leaks" in cli("artifact list").out
    assert "it leaks (principals/admin)" in cli(f"artifact show {SHA[:12]}").out
    assert cli(f"artifact unblock {SHA[:12]} --reason x").code == 0
    assert [r.reason for r in host.seen("UnblockArtifact")] == ["x"]


def test_files_have_holds_and_freezes(host: FakeHost, cli: Cli, tmp_path: Path) -> None:
    cli('pipeline hold sales/qa ContosoSales 1.2.0.0 --reason "the fair"')
    cli('freeze create --stop --stage sales/qa --reason "the audit"')
    host.freezes["freezes/all"] = Freeze(
        name="freezes/all", reason="x", start="2026-01-01T00:00:30", time_zone="UTC", creator="principals/ada"
    )
    text = cli("get freeze").out
    assert "scope: sales/qa" in text
    assert "ada" not in text
    file = tmp_path / "freezes.yaml"
    file.write_text(text + cli("get pipeline").out, "utf-8")
    ended = cli(f"apply -f {file}")
    assert (ended.code, "0 changed" in ended.err) == (0, True), ended
    assert "+" not in ended.out
    assert "~" not in ended.out
    file.write_text(text.replace("the audit", "the audit, still"), "utf-8")
    assert "reason: the audit -> the audit, still" in cli(f"apply -f {file}").out
    assert host.freezes["freezes/stop-sales-qa"].reason == "the audit, still"
    forgetful = "\n".join(
        line for line in cli("get pipeline sales").out.splitlines()
        if not any(word in line for word in ("holds", "solution:", "version:", "reason:"))
    )  # fmt: skip
    file.write_text(forgetful, "utf-8")
    assert cli(f"apply -f {file}").code == 0
    assert host.pipelines["pipelines/sales"].stages[0].holds, "who forgets a hold does not lift it"
    file.write_text(forgetful.replace("environment: qa", "environment: qa\n        holds: []"), "utf-8")
    assert cli(f"apply -f {file}").code == 0
    assert not host.pipelines["pipelines/sales"].stages[0].holds, "who writes that there is none lifts it"
    del host.freezes["freezes/all"]
    file.write_text("freezes:\n  - name: new\n    scope: sales/prod\n    reason: x\n", "utf-8")
    assert "+ freeze new" in cli(f"apply -f {file} --dry-run").out
    assert "freezes/new" not in host.freezes
    assert cli(f"apply -f {file}").code == 0
    assert host.freezes["freezes/new"].scope == "pipelines/sales/stages/prod"
