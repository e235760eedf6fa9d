"""Schedules and freezes against a real process that is killed in between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.e2e.processes import HostProcess

from pipelinehost import Client, FailedPrecondition
from pipelinehost.v1.resources_pb2 import Environment, Event, Freeze, Pipeline, Run, Stage
from pipelinehost_dataverse.solution import Column, Table, new_manifest, write

SECONDS = 40.0


@pytest.fixture
def process(tmp_path: Path) -> Iterator[HostProcess]:
    process = HostProcess(tmp_path)
    process.start()
    with process.client() as client:
        client.create_environment(Environment(name="environments/dev", kind=Environment.KIND_DEVELOPMENT))
        client.create_environment(Environment(name="environments/qa", kind=Environment.KIND_TARGET))
        client.create_pipeline(
            Pipeline(
                name="pipelines/sales",
                development_environments=["environments/dev"],
                stages=[Stage(name="pipelines/sales/stages/qa", environment="environments/qa")],
            )
        )
    yield process
    process.kill()


def upload(client: Client, folder: Path) -> str:
    file = folder / "sales.zip"
    table = Table("cts_order", columns=(Column("cts_number"),))
    file.write_bytes(write(new_manifest("Sales", "1.0.0.0", managed=True), table))
    return client.upload(file).name


def waits(client: Client, run: Run) -> Run:
    ends = time.monotonic() + SECONDS
    while (now := client.run(run.name)).state != Run.STATE_SCHEDULED:
        assert time.monotonic() < ends, now
        time.sleep(0.05)
    return now


def imports(client: Client, run: Run) -> int:
    """How often the import was begun."""
    events = client.events(f'subject = "{run.name}" AND kind = RUN_STATE_CHANGED')
    return sum(e.run.to == Run.STATE_DEPLOYING for e in events)


def test_a_scheduled_run_survives_kill_9_and_runs_once(process: HostProcess, tmp_path: Path) -> None:
    with process.client() as client:
        at = datetime.now(UTC) + timedelta(seconds=6)
        run = client.deploy("sales", artifact=upload(client, tmp_path), schedule_time=at)
        waits(client, run)
    for _ in range(2):
        process.kill()
        process.start()
    with process.client() as client:
        ended = client.wait(run.name, timeout=SECONDS)
        assert ended.state == Run.STATE_SUCCEEDED
        begun = next(s.start_time for s in ended.steps if s.kind == 3)
        assert begun.ToDatetime(UTC) >= at
        assert imports(client, run) == 1
        assert [s.version for s in client.solutions("qa") if s.unique_name == "Sales"] == ["1.0.0.0"]


def test_a_time_that_comes_while_the_host_is_down(process: HostProcess, tmp_path: Path) -> None:
    with process.client() as client:
        at = datetime.now(UTC) + timedelta(seconds=3)
        run = client.deploy("sales", artifact=upload(client, tmp_path), schedule_time=at)
        waits(client, run)
    process.kill()
    time.sleep(max((at - datetime.now(UTC)).total_seconds(), 0) + 0.5)
    process.start()
    with process.client() as client:
        assert client.wait(run.name, timeout=SECONDS).state == Run.STATE_SUCCEEDED
        assert imports(client, run) == 1


def test_a_freeze_holds_a_run_through_kill_9_until_it_is_lifted(process: HostProcess, tmp_path: Path) -> None:
    with process.client() as client:
        artifact = upload(client, tmp_path)
        at = datetime.now(UTC) + timedelta(seconds=3)
        run = client.deploy("sales", artifact=artifact, schedule_time=at)
        waits(client, run)
        client.create_freeze(Freeze(name="freezes/stop", reason="an incident"))
        with pytest.raises(FailedPrecondition, match="an incident"):
            client.deploy("sales", artifact=artifact)
        ends = time.monotonic() + SECONDS
        while client.run(run.name).wait.freeze != "freezes/stop":
            assert time.monotonic() < ends
            time.sleep(0.05)
    process.kill()
    process.start()
    with process.client() as client:
        time.sleep(0.5)
        assert client.run(run.name).state == Run.STATE_SCHEDULED
        assert client.queue("qa").holder == ""
        client.delete_freeze("stop")
        assert client.wait(run.name, timeout=SECONDS).state == Run.STATE_SUCCEEDED
        assert imports(client, run) == 1
        kinds = [e.kind for e in client.events('subject = "freezes/stop"')]
        assert kinds == [Event.KIND_FREEZE_CREATED, Event.KIND_FREEZE_DELETED]
