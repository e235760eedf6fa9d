"""Operations: one at a time, seen to move, and alive after a kill."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from tests.unit.emulator.asked import Asked, import_body, package

from pipelinehost_dataverse.emulator import EmbeddedEnvironment, EnvironmentInUseError, layers
from pipelinehost_dataverse.solution import ComponentKey, Solution, Table, WebResource

EXPENSE = Table("cts_expense")
TRAVEL = package("Travel", "1.0", EXPENSE)
LARGE = package("Large", "1.0", *(WebResource(f"cts_{n}.js", b"x") for n in range(400)))


async def test_an_import_moves_through_several_percentages(tmp_path: Path) -> None:
    async with Asked.open(tmp_path / "a.sqlite", pace=0.8) as env:
        started = time.monotonic()
        ids = await env.start(LARGE)
        row = await env.get(f"asyncoperations({ids['AsyncOperationId']})")
        assert (row["operationtype"], row["messagename"]) == (54, "ImportSolutionAsync")
        seen: list[float] = []
        states: list[tuple[int, int]] = []
        while not states or states[-1] != (3, 30):
            job = await env.get(f"importjobs({ids['ImportJobKey']})?$select=progress,completedon")
            row = await env.get(f"asyncoperations({ids['AsyncOperationId']})?$select=statecode,statuscode")
            seen.append(job["progress"])
            states.append((row["statecode"], row["statuscode"]))
            await asyncio.sleep(0.005)
        assert time.monotonic() - started >= 0.72, "the pace was kept"
        assert seen == sorted(seen)
        assert len({percent for percent in seen if 25 < percent < 85}) >= 2, "among the components, too"
        assert (2, 20) in states


@pytest.fixture
def go_on(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Imports wait for it, before their transaction begins."""
    event, plain = threading.Event(), layers.facts

    def waiting(solution: Solution) -> dict[ComponentKey, dict[str, object]]:
        assert event.wait(20)
        return plain(solution)

    monkeypatch.setattr(layers, "facts", waiting)
    return event


async def test_a_second_operation_is_refused_while_one_runs(tmp_path: Path, go_on: threading.Event) -> None:
    async with Asked.open(tmp_path / "a.sqlite") as env:
        first = await env.start(LARGE)
        for path, body in (
            ("ImportSolutionAsync", import_body(TRAVEL)),
            ("ImportSolution", import_body(TRAVEL)),
            ("PublishAllXml", {}),
        ):
            answer = await env.request("POST", path, body)
            assert answer.status_code == 429
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.json()["error"]["code"] == "0x80071151"
            assert "Cannot start another [" in answer.json()["error"]["message"]
        assert (await env.stage(TRAVEL))["StageSolutionStatus"] == "Passed", "staging changes nothing"
        await env.connect("mine")
        go_on.set()
        assert (await env.finished(first["AsyncOperationId"])).succeeded
        assert (await env.install(TRAVEL)).succeeded
        assert [row[0] for row in await env.history()] == ["Large", "Travel"]


async def test_of_many_imports_posted_at_once_one_is_accepted(tmp_path: Path, go_on: threading.Event) -> None:
    async with Asked.open(tmp_path / "a.sqlite") as env:
        answers = await asyncio.gather(
            *(env.request("POST", "ImportSolutionAsync", import_body(TRAVEL)) for _ in range(8))
        )
        assert sorted(answer.status_code for answer in answers) == [200] + [429] * 7
        go_on.set()
        accepted = next(answer.json() for answer in answers if answer.status_code == 200)
        assert (await env.finished(accepted["AsyncOperationId"])).succeeded
        assert len(await env.history()) == 1
        assert len(await env.get("importjobs")) == 1


async def test_the_clients_import_job_id_is_taken_or_ignored(tmp_path: Path) -> None:
    mine = str(uuid.uuid4()).upper()
    async with Asked.open(tmp_path / "a.sqlite") as env:
        outcome = await env.install(TRAVEL, ImportJobId=mine)
        assert outcome.job == mine.lower()
        code, message = await env.error(
            "POST", "ImportSolutionAsync", import_body(TRAVEL, ImportJobId=mine), status=412
        )
        assert (code, mine.lower() in message) == ("0x80040237", True)
    async with Asked.open(tmp_path / "b.sqlite", honour_import_job_id=False) as env:
        outcome = await env.install(TRAVEL, ImportJobId=mine)
        assert outcome.job != mine.lower()
        assert outcome.succeeded
        assert (await env.error("GET", f"importjobs({mine})", status=404))[0] == "0x80040217"


async def test_a_synchronous_import_answers_with_its_end(tmp_path: Path) -> None:
    async with Asked.open(tmp_path / "a.sqlite", pace=0.1) as env:
        job = str(uuid.uuid4())
        answer = await env.request("POST", "ImportSolution", import_body(TRAVEL, ImportJobId=job))
        assert (answer.status_code, answer.content) == (204, b"")
        assert (await env.get(f"importjobs({job})"))["progress"] == 100
        old = package("Travel", "0.9", EXPENSE)
        assert (await env.error("POST", "ImportSolution", import_body(old)))[0] == "0x80048541"


async def test_closing_leaves_an_operation_that_the_next_opening_finishes(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    async with Asked.open(path, pace=60) as env:
        ids = await env.start(LARGE)
        await asyncio.sleep(0.05)
    with closing(sqlite3.connect(path)) as left:
        assert left.execute("SELECT state FROM operation").fetchall() != [(3,)], "it did not wait for the end"
    async with Asked.open(path) as env:
        assert (await env.finished(ids["AsyncOperationId"])).succeeded
        assert await env.history() == [("Large", "1.0", 1, True)]
        job = await env.get(f"importjobs({ids['ImportJobKey']})")
        assert job["progress"] == 100
        assert (await env.install(TRAVEL)).succeeded, "its turn is over"


async def test_the_clock_is_in_every_answer(qa: Asked) -> None:
    for answer in (
        await qa.request("GET", "WhoAmI"),
        await qa.request("GET", "nothing"),
        await qa.request("POST", "ImportSolutionAsync", import_body(TRAVEL)),
        await qa.request("GET", "http://environment/connectivity/connections?api-version=1"),
    ):
        told = parsedate_to_datetime(answer.headers["Date"])
        assert abs((datetime.now(UTC) - told).total_seconds()) < 5


async def test_a_defect_in_the_engine_fails_the_operation_and_not_the_worker(
    qa: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("planted")

    with monkeypatch.context() as patched:
        patched.setattr("pipelinehost_dataverse.emulator.layers.put_managed", broken)
        outcome = await qa.install(TRAVEL)
    assert (outcome.succeeded, outcome.code) == (False, "80040216")
    assert "planted" in outcome.message
    assert await qa.solution("Travel") is None, "the transaction was rolled back"
    assert (await qa.install(TRAVEL)).succeeded


async def test_a_package_stays_while_its_operation_waits_for_another_one(
    qa: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    await qa.install(package("Draft", "1.0", EXPENSE, managed=False))
    engine, go_on = qa.environment.engine, threading.Event()
    plain = engine.export

    def slow(unique_name: str, *, managed: bool) -> bytes:
        assert go_on.wait(20)
        return plain(unique_name, managed=managed)

    monkeypatch.setattr(engine, "export", slow)
    body = {"SolutionName": "Draft", "Managed": True}
    export = (await qa.request("POST", "ExportSolutionAsync", body)).json()
    ids = await qa.start(LARGE)
    go_on.set()
    assert (await qa.finished(export["AsyncOperationId"])).succeeded
    outcome = await qa.finished(ids["AsyncOperationId"])
    assert outcome.succeeded, outcome


async def test_reads_do_not_wait_for_the_transaction_of_an_import(
    qa: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go_on = threading.Event(), threading.Event()
    plain = layers.switch_flows

    def slow(*arguments: Any, **named: Any) -> None:
        plain(*arguments, **named)
        inside.set()
        assert go_on.wait(20)

    monkeypatch.setattr(layers, "switch_flows", slow)
    ids = await qa.start(LARGE)
    assert await asyncio.to_thread(inside.wait, 20)
    async with asyncio.timeout(5):
        assert (await qa.get(f"importjobs({ids['ImportJobKey']})"))["progress"] == 90
        assert await qa.solution("Large") is None, "nothing is seen before its commit"
        connecting = asyncio.create_task(qa.connect("mine"))
        await qa.get("WhoAmI")
    assert not connecting.done(), "a write has to wait for its turn"
    go_on.set()
    await connecting
    assert (await qa.finished(ids["AsyncOperationId"])).succeeded


async def test_an_operation_outlives_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def limit(pages: int) -> None:
        with env.environment.store.look() as db:
            now = db.execute("PRAGMA page_count").fetchone()[0]
            db.execute(f"PRAGMA max_page_count = {now + pages}")

    async with Asked.open(tmp_path / "a.sqlite", pace=0.3) as env:
        ids = await env.start(LARGE)
        await asyncio.to_thread(limit, 2)
        async with asyncio.timeout(20):
            while "cannot use its file" not in caplog.text:  # noqa: ASYNC110  # the log has no event
                await asyncio.sleep(0.02)
        assert "full" in caplog.text
        assert await env.solution("Large") is None
        await asyncio.to_thread(limit, 1_000_000)
        assert (await env.finished(ids["AsyncOperationId"])).succeeded
        assert await env.history() == [("Large", "1.0", 1, True)]


def test_a_file_belongs_to_one_process(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    code = "import sys, pathlib; from pipelinehost_dataverse.emulator import EmbeddedEnvironment as E\n"
    code += "E.open(pathlib.Path(sys.argv[1]), name='x')"
    with EmbeddedEnvironment.open(path, name="a"):
        with pytest.raises(EnvironmentInUseError, match=f"by process {os.getpid()};"):
            EmbeddedEnvironment.open(path, name="b")
        other = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=30)
        assert f"is open already, by process {os.getpid()}" in other.stderr
        assert other.returncode != 0
    EmbeddedEnvironment.open(path, name="b").close()


async def test_declared_apps_come_and_go_with_the_declaration(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    async with Asked.open(path, installed_apps={"Survey": "2.0", "AppModule": "9.1"}) as env:
        rows = await env.get("solutions?$filter=isvisible eq true&$select=uniquename,version")
        assert {(row["uniquename"], row["version"]) for row in rows} == {
            ("Survey", "2.0"),
            ("AppModule", "9.1"),
        }
        assert "installed app" in (await env.install(package("Survey", "3.0", EXPENSE))).message
    async with Asked.open(path) as env:
        assert await env.solution("Survey") is None
        assert (await env.solution("AppModule"))["isvisible"] is False
        assert (await env.install(package("Survey", "3.0", EXPENSE))).succeeded


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database " * 100)
    with pytest.raises(ValueError, match=r"text\.sqlite is not the file of an environment"):
        EmbeddedEnvironment.open(tmp_path / "text.sqlite", name="a")
    with pytest.raises(ValueError, match="installed app 'Apps' has no usable version"):
        EmbeddedEnvironment.open(tmp_path / "a.sqlite", name="a", installed_apps={"Apps": "new"})


class Served:
    """``pipelinehost-emulator serve`` in a process of its own."""

    def __init__(self, data: Path, *options: str, before: str = "") -> None:
        code = (
            textwrap.dedent(before)
            + "\nimport sys\nfrom pipelinehost_dataverse.emulator.__main__ import main\n"
        )
        code += "sys.exit(main(sys.argv[1:]))"
        self.child = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "error",
                "-c",
                code,
                "serve",
                "--data",
                data,
                "--environment",
                "qa",
                *options,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.child.stdout is not None
        self.url = self.child.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), self.url
        assert self.url.endswith("/qa/api/data/v9.2/")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.wait()
        assert self.child.stdout is not None
        self.child.stdout.close()


def _post(url: str, content: bytes, message: str = "ImportSolutionAsync") -> dict[str, str]:
    answer = httpx.post(f"{url}{message}", json=import_body(content), timeout=30)
    assert answer.status_code == 200, answer.text
    found: dict[str, str] = answer.json()
    return found


def test_a_server_stops_on_sigterm_and_serves_links_below_its_prefix(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        answer = httpx.get(f"{served.url}solutions", headers={"Prefer": "odata.maxpagesize=100"})
        assert answer.headers.get_list("date") == [answer.headers["date"]], "one clock only"
        following = httpx.get(answer.json()["@odata.nextLink"])
        assert following.url.path == "/qa/api/data/v9.2/solutions"
        assert len(following.json()["value"]) == 426 + 1 - 100
        served.child.send_signal(signal.SIGTERM)
        assert served.child.wait(20) == 0
    EmbeddedEnvironment.open(tmp_path / "qa.sqlite", name="qa").close()


# Kills the serving process out of its own transaction: rows are in it, the commit is not.
DIE_INSIDE = """
    import os, signal
    from pipelinehost_dataverse.emulator import layers
    plain = layers.{function}
    def dying(*arguments, **named):
        plain(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    layers.{function} = dying
"""


@pytest.mark.parametrize("where", ["switch_flows", "forget_packages", "while it waits"])
async def test_a_killed_upgrade_is_applied_once(tmp_path: Path, where: str) -> None:
    path = tmp_path / "qa.sqlite"
    async with Asked.open(path) as env:
        assert (await env.install(package("Large", "0.9", EXPENSE))).succeeded
    if where == "while it waits":
        with Served(tmp_path, "--pace", "60") as served:
            ids = _post(served.url, LARGE, "StageAndUpgradeAsync")
            async with httpx.AsyncClient() as client:
                job = await client.get(f"{served.url}importjobs({ids['ImportJobKey']})")
            assert job.json()["progress"] < 100
    else:
        with Served(tmp_path, "--pace", "0.5", before=DIE_INSIDE.format(function=where)) as served:
            ids = _post(served.url, LARGE, "StageAndUpgradeAsync")
            assert served.child.wait(20) == -signal.SIGKILL
    async with Asked.open(path) as env:
        outcome = await env.finished(ids["AsyncOperationId"])
        assert outcome.succeeded, outcome
        assert await env.history() == [("Large", "0.9", 1, True), ("Large", "1.0", 2, True)]
        assert len(await env.get("asyncoperations")) == 2
        assert len(await env.components("Large")) == 400
        assert (await env.install(TRAVEL)).succeeded, "nothing holds the environment any more"


async def test_kills_at_any_moment_never_apply_an_import_twice_or_half(tmp_path: Path) -> None:
    for moment in (0.0, 0.01, 0.03, 0.06, 0.1):
        data = tmp_path / str(moment)
        with Served(data) as served:
            ids = _post(served.url, LARGE)
            await asyncio.sleep(moment)
        async with Asked.open(data / "qa.sqlite") as env:
            assert (await env.finished(ids["AsyncOperationId"])).succeeded
            assert await env.history() == [("Large", "1.0", 1, True)]
            assert len(await env.components("Large")) == 400
