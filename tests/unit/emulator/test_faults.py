"""Faults on demand, over a real socket, since some of them are about connections."""

import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.unit.emulator.asked import import_body, package

from pipelinehost_dataverse.emulator import EmbeddedEnvironment
from pipelinehost_dataverse.emulator.serving import application, server
from pipelinehost_dataverse.emulator.tokens import Tokens
from pipelinehost_dataverse.solution import Table as TablePart


@pytest.fixture
def qa(tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of an environment that is served on loopback."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    with EmbeddedEnvironment.open(tmp_path / "qa.sqlite", name="qa") as environment:
        running = server(application({"qa": environment}, Tokens(), require_token=False))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        base = f"http://127.0.0.1:{listening.getsockname()[1]}/qa/api/data/v9.2/"
        with httpx.Client(base_url=base, trust_env=False, timeout=20) as client:
            yield client
        running.should_exit = True
        thread.join(10)
        listening.close()


def at(qa: httpx.Client, path: str) -> httpx.URL:
    """An address beside the Web API's."""
    return qa.base_url.join(f"/qa/{path}")


def ordered(qa: httpx.Client, fault: str, **more: object) -> None:
    answer = qa.post(at(qa, "faults"), json={"fault": fault, **more})
    assert answer.status_code == 201, answer.text


def listed(qa: httpx.Client) -> Any:
    return qa.get(at(qa, "faults")).json()["value"]


def jobs(qa: httpx.Client) -> int:
    return len(qa.get("importjobs").json()["value"])


IMPORT = import_body(package("Travel", "1.0", TablePart("cts_trip")))


@pytest.mark.parametrize(
    ("fault", "status", "code", "retry_after"),
    [
        ("throttled", 429, "0x80072322", "2"),
        ("locked", 429, "0x80071151", "2"),
        ("failed", 503, "0x80040216", None),
    ],
)
def test_refusals_do_nothing(
    qa: httpx.Client, fault: str, status: int, code: str, retry_after: str | None
) -> None:
    ordered(qa, fault, path="ImportSolution*", method="post")
    answer = qa.post("ImportSolutionAsync", json=IMPORT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers.get("retry-after") == retry_after
    assert jobs(qa) == 0
    assert qa.post("ImportSolutionAsync", json=IMPORT).status_code == 200
    assert jobs(qa) == 1


def test_an_unanswered_request_is_done_and_an_unreceived_one_is_not(qa: httpx.Client) -> None:
    ordered(qa, "unreceived", path="ImportSolution*")
    ordered(qa, "unanswered", path="ImportSolution*")
    for done in (0, 1):
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError)):
            qa.post("ImportSolutionAsync", json=IMPORT)
        assert jobs(qa) == done
    assert [f["given"] for f in listed(qa)] == [1, 1]


def test_a_slow_answer_comes_late_and_is_done_at_once(qa: httpx.Client) -> None:
    ordered(qa, "slow", path="ImportSolution*", seconds=1)
    with pytest.raises(httpx.ReadTimeout):
        qa.post("ImportSolutionAsync", json=IMPORT, timeout=0.3)
    assert jobs(qa) == 1
    assert qa.post("ImportSolutionAsync", json=IMPORT, timeout=0.3).status_code in (200, 429)
    ordered(qa, "slow", path="WhoAmI", seconds=1)
    assert qa.get("WhoAmI", timeout=20).status_code == 200


def test_requests_are_counted(qa: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    ordered(qa, "failed", path="solutions*", skip=1, times=2, status=500)
    with caplog.at_level(logging.WARNING, "pipelinehost_dataverse.emulator.faults"):
        found = [qa.get(path).status_code for path in ("WhoAmI", *["solutions?$top=1"] * 4, "WhoAmI")]
    assert found == [200, 200, 500, 500, 200, 200]
    assert [record.getMessage() for record in caplog.records] == [
        "qa: GET solutions is failed (fault 1 of 2)",
        "qa: GET solutions is failed (fault 2 of 2)",
    ]
    assert [(f["given"], f["skip"]) for f in listed(qa)] == [(2, 0)]


def test_connections_are_met_too_and_orders_are_taken_back(qa: httpx.Client) -> None:
    ordered(qa, "failed", path="connectivity/*", times=5)
    connections = at(qa, "connectivity/connections?api-version=1")
    assert qa.get(connections).status_code == 503
    assert qa.get("WhoAmI").status_code == 200
    assert qa.delete(at(qa, "faults")).status_code == 204
    assert listed(qa) == []
    assert qa.get(connections).status_code == 200


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (b"{", "no JSON"),
        (b"[]", "as a JSON object"),
        (b"{}", "'None' is no fault; known are throttled, locked"),
        (b'{"fault": "x"}', "'x' is no fault"),
        (b'{"fault": ["failed"]}', "is no fault"),
        (b'{"fault": "failed", "percent": 5}', "'percent' is no member of a fault"),
        (b'{"fault": "failed", "times": 0}', "'times' must be a whole number from 1"),
        (b'{"fault": "failed", "times": true}', "'times' must be"),
        (b'{"fault": "failed", "status": 200}', "'status' must be a whole number from 400"),
        (b'{"fault": "failed", "path": ""}', "'path' must be text"),
        (b" " * 70_000, "larger than"),
    ],
)
def test_orders_that_mean_nothing_are_refused(qa: httpx.Client, order: bytes, words: str) -> None:
    answer = qa.post(at(qa, "faults"), content=order)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
    assert listed(qa) == []
