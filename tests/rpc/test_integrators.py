"""docs/integrators.md: its programs decide, run as they stand there, and its tables name what there is."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.receiver import Receiver, free_port
from tests.rpc.conftest import DEVELOPMENT, Bed, package
from tests.rpc.test_gates import until, waits

from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import Event, Gate, GateStatus, Principal, Run, Stage

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "integrators.md").read_text("utf-8")
RECEIVER, WATCHER = (
    found for found in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "import" in found
)


@pytest.fixture
def port() -> int:
    """Where the service of a gate is told."""
    return free_port()


@pytest.fixture
def bed(tmp_path: Path, port: int) -> Iterator[Bed]:
    """A host with a gate at which a service decides, who is told at ``port``."""
    bed = Bed(tmp_path / "data")
    bed.environment("dev", DEVELOPMENT)
    bed.environment("qa")
    board = Principal(name="principals/board", kind=Principal.KIND_SERVICE, role="ROLE_VIEWER")
    bed.call("CreatePrincipal", api.CreatePrincipalRequest(principal=board))
    bed.new_token("board")
    url = f"http://127.0.0.1:{port}/"
    gate = Gate(kind=Gate.KIND_APPROVAL, approvers=["principals/board"], webhook=url)
    stage = Stage(name="pipelines/sales/stages/qa", environment="environments/qa", gates=[gate])
    bed.pipeline(stages=[stage])
    yield bed
    bed.close()


@contextmanager
def program(bed: Bed, folder: Path, text: str, *arguments: str) -> Iterator[Path]:
    """A program of the page in a process of its own; gives the file that its errors go to."""
    file, log = folder / "program.py", folder / "errors"
    file.write_text(text, "utf-8")
    command = [sys.executable, str(file), str(bed.host.address), bed.tokens["board"], *arguments]
    with log.open("ab") as errors:
        # grpc tells of a server that leaves, at times.
        environ = {**os.environ, "PYTHONWARNINGS": "error", "GRPC_VERBOSITY": "ERROR"}
        process = subprocess.Popen(command, stderr=errors, env=environ)
        try:
            yield log
            assert process.poll() is None, log.read_text()
        finally:
            process.kill()
            process.wait(10)


def post(port: int, headers: dict[str, str], body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/", body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def listening(port: int) -> None:
    ends = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            assert time.monotonic() < ends
            time.sleep(0.05)


def asked(bed: Bed, note: str, version: str) -> Run:
    artifact = bed.upload(package(version))
    request = api.DeployRequest(pipeline="pipelines/sales", artifact=artifact.name, note=note)
    run: Run = bed.call("Deploy", request)
    return run


def decides(bed: Bed, version: int) -> None:
    """A run with the number of a change is let through, and one without is not."""
    done = until(bed, asked(bed, "CHG1: go", f"{version}.0.0.0"), Run.STATE_SUCCEEDED)
    assert [d.principal for d in done.gates[0].decisions] == ["principals/board"]
    ended = until(bed, asked(bed, "no number", f"{version + 1}.0.0.0"), Run.STATE_REJECTED)
    assert "number of a change" in ended.error.message


@pytest.mark.parametrize("text", [RECEIVER, WATCHER])
def test_a_program_is_short(text: str) -> None:
    assert len([line for line in text.splitlines() if line.strip()]) <= 40


def test_the_receiver_decides(bed: Bed, port: int, tmp_path: Path) -> None:
    with program(bed, tmp_path, RECEIVER, str(port)):
        listening(port)
        decides(bed, 1)


def test_the_receiver_refuses_what_is_changed_or_old_and_does_nothing_twice(
    bed: Bed, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the host has sent is taken down by another receiver first."""
    sender: Any = bed.host._webhooks
    there = Receiver(tmp_path / "there", port)
    there.start()
    sender._clock = lambda: time.time_ns() - 301 * 10**9
    first = waits(bed, note="CHG1")
    there.wait(lambda got: len(got) == 1)
    sender._clock = time.time_ns
    second = waits(bed, note="CHG2", version="2.0.0.0")
    old, good = there.wait(lambda got: len(got) == 2)
    there.kill()

    def sent(request: dict[str, Any], **changed: str) -> int:
        headers = {k: v for k, v in request["headers"].items() if k.startswith("webhook-")}
        return post(port, {**headers, **changed}, request["body"])

    with program(bed, tmp_path, RECEIVER, str(port)) as log:
        listening(port)
        wrong = good["headers"]["webhook-signature"]
        forged = base64.b64encode(b"x" * 64).decode()
        assert sent(old) == 401, "signed, and too old"
        assert sent(old, **{"webhook-timestamp": str(int(time.time()))}) == 401
        assert sent({**good, "body": good["body"].replace(second.name.encode(), first.name.encode())}) == 401
        assert sent(good, **{"webhook-id": "msg_other"}) == 401
        for signature in (f"v1a,{forged}", wrong.replace("v1a", "v1"), wrong[4:], "v1a,", "", "v1a,%"):
            assert sent(good, **{"webhook-signature": signature}) == 401, signature
        assert post(port, {}, good["body"]) == 401
        for run in (first, second):
            assert bed.call("GetRun", api.GetRunRequest(name=run.name)).state == Run.STATE_AWAITING_GATE
        assert sent(good) == 204
        done = until(bed, second, Run.STATE_SUCCEEDED)
        count = len(bed.events())
        assert sent(good) == 204, "the same again"
        assert len(bed.events()) == count
        assert len(done.gates[0].decisions) == 1
        assert second.name not in log.read_text(), "it was not even tried"


def test_what_the_receiver_could_not_do_comes_again(bed: Bed, port: int, tmp_path: Path) -> None:
    """The host is asked for a decision in vain, so there is no answer, and no yes."""
    broken = RECEIVER.replace(
        "def decide(told: dict) -> None:\n",
        """\
def decide(told: dict) -> None:
    if not Path(__file__).with_name("mended").exists():
        raise OSError("the change system is away")
""",
    )
    with program(bed, tmp_path, "from pathlib import Path\n" + broken, str(port)):
        listening(port)
        run = waits(bed, note="CHG1")
        ends = time.monotonic() + 20
        while not bed.call("GetRun", api.GetRunRequest(name=run.name)).gates[0].delivery.error:
            assert time.monotonic() < ends
            time.sleep(0.05)
        (tmp_path / "mended").touch()
        until(bed, run, Run.STATE_SUCCEEDED)


def test_the_watcher_decides_and_goes_on_where_it_was(bed: Bed, tmp_path: Path) -> None:
    place = tmp_path / "place"
    with program(bed, tmp_path, WATCHER, str(place)):
        decides(bed, 1)
    missed = waits(bed, note="CHG3", version="3.0.0.0")
    with program(bed, tmp_path, WATCHER, str(place)) as errors:
        until(bed, missed, Run.STATE_SUCCEEDED)
        decides(bed, 4)
        bed.stop()
        bed.settings["address"] = str(bed.host.address)
        bed.start()
        decides(bed, 6)
        assert errors.read_text() == "", "nothing was decided twice"


# Names of the real product


def cells(width: int) -> list[list[str]]:
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    return [row for row in rows if len(row) == width or len(row) == width - 1]


def test_the_tables_name_what_there_is() -> None:
    rows = [row for row in cells(3) if row[0].startswith("`On")]
    assert {row[0].strip("`") for row in rows} == {
        "OnDeploymentRequested", "OnApprovalStarted", "OnApprovalCompleted", "OnPreDeploymentStarted",
        "OnPreDeploymentCompleted", "OnDeploymentStarted", "OnDeploymentCompleted",
    }  # fmt: skip
    kinds = dict(Event.Kind.items())
    conditions = 0
    for row in rows:
        assert row[1].strip("`") in kinds
        for path, names in re.findall(r"`([a-z_.]+)` = ((?:`\w+`(?:, | or )?)+)", " ".join(row[2:])):
            descriptor: Any = Event.DESCRIPTOR
            *fields, last = path.split(".")
            for name in fields:
                descriptor = descriptor.fields_by_name[name].message_type
            conditions += 1
            assert {*re.findall(r"`(\w+)`", names)} <= {
                *descriptor.fields_by_name[last].enum_type.values_by_name
            }
    assert conditions == 9
    calls = [row for row in cells(3) if row[0].startswith("`Update")]
    assert len(calls) == 3
    for row in calls:
        assert row[1] == "`Approve` or `Reject`"
        assert re.findall(r"KIND_\w+", row[2])[0] in dict(Gate.Kind.items())
    counterparts = re.findall(r"^\| `\w+` \| `(Event|Run)\.([a-z_.]+)`.*\|$", PAGE, re.MULTILINE)
    assert len(counterparts) == 9
    for message, path in counterparts:
        descriptor = (Event if message == "Event" else Run).DESCRIPTOR
        for name in path.split("."):
            field = descriptor.fields_by_name[name]
            descriptor = field.message_type


def test_the_table_of_a_webhook_names_all_that_it_tells(bed: Bed, port: int, tmp_path: Path) -> None:
    there = Receiver(tmp_path / "there", port)
    there.start()
    waits(bed)
    (request,) = there.wait(lambda got: len(got) == 1)
    there.kill()
    table = PAGE[PAGE.index("| Field | What it says |") : PAGE.index("There are no values of settings in it")]
    named = {n for line in table.splitlines()[2:] for n in re.findall(r"`(\w+)`", line.split(" | ")[0])}
    assert named == {*json.loads(request["body"])}


def test_a_deployment_tells_its_counterparts_in_order(bed: Bed, port: int, tmp_path: Path) -> None:
    with program(bed, tmp_path, RECEIVER, str(port)):
        listening(port)
        run = asked(bed, "CHG1", "1.0.0.0")
        until(bed, run, Run.STATE_SUCCEEDED)
    told = [e for e in bed.events() if e.subject == run.name]
    order: list[Callable[[Event], bool]] = [
        lambda e: e.kind == Event.KIND_DEPLOYMENT_REQUESTED,
        lambda e: e.kind == Event.KIND_GATE_OPENED and e.gate.kind == Gate.KIND_APPROVAL,
        lambda e: e.kind == Event.KIND_GATE_DECIDED and e.gate.state == GateStatus.STATE_APPROVED,
        lambda e: e.kind == Event.KIND_RUN_STATE_CHANGED and e.run.to == Run.STATE_DEPLOYING,
        lambda e: e.kind == Event.KIND_RUN_STATE_CHANGED and e.run.to == Run.STATE_SUCCEEDED,
    ]
    places = [next(n for n, e in enumerate(told) if matches(e)) for matches in order]
    assert places == sorted(places)
