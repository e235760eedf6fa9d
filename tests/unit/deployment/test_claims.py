"""Whose an environment is: marks, races, crashes between mark and record, and what is left behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from tests.unit.deployment.conftest import Host, once
from tests.unit.deployment.test_run import package, state
from tests.unit.deployment.way import Way, refusal

from pipelinehost.v1.pipeline_host_pb2 import RetryRunRequest
from pipelinehost.v1.resources_pb2 import Environment, Event, Run
from pipelinehost_dataverse.emulator import EmbeddedEnvironment
from pipelinehost_dataverse.solution import read
from pipelinehost_dataverse.webapi import DataverseError, Mark, Refused, WebApi
from pipelinehost_server.deployment import claims

HERE = "http://127.0.0.1:1"
ENVIRONMENT = Environment(name="environments/qa", kind=Environment.KIND_TARGET, url=HERE)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[WebApi]:
    with EmbeddedEnvironment.open(tmp_path / "qa.sqlite", name="qa") as qa:
        way = Way(httpx.ASGITransport(qa.app, raise_app_exceptions=False))
        async with WebApi(HERE, transport=way) as api:
            yield api


@pytest.fixture
async def linked(host: Host, api: WebApi) -> Host:
    """The host of the other tests, with qa as a linked environment."""
    await host.store.write(lambda tx: tx.put_environment(ENVIRONMENT))
    wanted, _ = await _connected(host), None
    host.environments._open["environments/qa", ""] = (wanted, api)
    return host


async def _connected(host: Host) -> bytes:
    await host.environments.connect(ENVIRONMENT)
    address, opened = host.environments._open["environments/qa", ""]
    await opened.aclose()
    return address


def way(api: WebApi) -> Way:
    found = api._calls._client._transport
    assert isinstance(found, Way)
    return found


def recorded(host: Host) -> Environment:
    found = host.store.reads.environment("environments/qa")
    assert found is not None
    return found


def kinds(host: Host) -> list[str]:
    events = host.store.reads.events_of_run("environments/qa", 0, 100)
    return [Event.Kind.Name(e.kind).removeprefix("KIND_ENVIRONMENT_") for e in events]


async def test_the_first_has_it_and_lets_it_go(api: WebApi) -> None:
    assert await claims.owner(api) is None
    assert (await claims.claim(api, "one")).store == "one"
    assert (await claims.claim(api, "two")).store == "one"
    [mark] = await api.marks()
    await claims.release(api, "two")
    assert (await claims.claim(api, "one")).store == "one", "who has it has it, and leaves no second mark"
    assert await api.marks() == [mark], "nobody releases what is another host's"
    before = await claims.take(api, "two")
    assert before is not None
    assert before.store == "one"
    assert (await claims.claim(api, "one")).store == "two"
    await claims.release(api, "two")
    assert await claims.owner(api) is None
    assert await claims.take(api, "two") is None


async def test_taking_over_outruns_another_host_that_comes_at_the_same_time(
    api: WebApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = claims.owner

    async def late(asked: WebApi) -> claims.Claim | None:
        found = await look(asked)
        await claims.claim(asked, "one")
        return found

    monkeypatch.setattr(claims, "owner", late)
    before = await claims.take(api, "two")
    assert before is not None
    assert before.store == "one"
    assert (await claims.claim(api, "two")).store == "two"


async def test_many_that_come_at_once_agree(api: WebApi) -> None:
    found = await asyncio.gather(*(claims.claim(api, f"host {n}") for n in range(8)))
    assert len({c.store for c in found}) == 1
    assert len(await api.marks()) == 1


class Loose(WebApi):
    """An environment that does not keep the name of the mark unique; several may look before one writes."""

    def __init__(self) -> None:
        self.rows: dict[str, Mark] = {}
        self.writing = asyncio.Event()
        self.parties = 0

    async def marks(self) -> list[Mark]:
        found = list(self.rows.values())
        await asyncio.sleep(0)
        return found

    async def leave_mark(self, text: str) -> None:
        self.parties -= 1
        if not self.parties:
            self.writing.set()
        await self.writing.wait()
        self.rows[str(len(self.rows))] = Mark(str(len(self.rows)), text)

    async def remove_mark(self, mark: Mark) -> None:
        self.rows.pop(mark.id, None)


async def test_a_race_that_the_environment_does_not_decide(api: WebApi) -> None:
    loose = Loose()
    loose.parties = 5
    for _ in range(2):  # who was first may not have seen an older mark that came later
        found = await asyncio.gather(*(claims.claim(loose, f"host {n}") for n in range(5)))
    assert len({c.store for c in found}) == 1, "all see the oldest mark"
    assert [json.loads(m.text)["store"] for m in loose.rows.values()] == [found[0].store]


async def test_a_lost_answer_leaves_one_mark(api: WebApi) -> None:
    way(api).order("POST environmentvariabledefinitions", httpx.ReadError("gone"), done=True)
    assert (await claims.claim(api, "one")).store == "one"
    assert len(await api.marks()) == 1


async def test_who_may_not_write_is_refused_loudly(api: WebApi) -> None:
    way(api).order("POST environmentvariabledefinitions", refusal(403, "0x80040220", "No."), times=9)
    with pytest.raises(DataverseError, match="No"):
        await claims.claim(api, "one")
    way(api).orders.clear()
    way(api).order("POST environmentvariabledefinitions", refusal(400, "0x80040203", "Bad prefix."), times=9)
    with pytest.raises(Refused, match="Bad prefix"):
        await claims.claim(api, "one")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"store": {"a": 1}}', "\x1b[31m"])
async def test_a_mark_that_nobody_can_read_is_somebody_elses(api: WebApi, text: str) -> None:
    await api.leave_mark("x" if not text else text[:2000])
    found = await claims.claim(api, "one")
    assert found.store != "one"
    assert found.words.isprintable()


async def test_a_host_that_lost_it_sends_nothing(linked: Host, api: WebApi) -> None:
    artifact = await linked.upload(package(managed=True))
    await claims.claim(api, "another")
    run = await linked.deployed(artifact=artifact.name, stage="qa")
    assert (state(run), run.error.code) == ("FAILED", "ENVIRONMENT_TAKEN")
    assert kinds(linked)[-1] == "STALE"
    assert way(api).count("POST (?!environmentvariable)") == 0
    await claims.release(api, "another")
    run = await linked.ended(await _retried(linked, run.name))
    assert (state(run), recorded(linked).taken_by, kinds(linked)[-1]) == ("SUCCEEDED", "", "UPDATED")


async def _retried(host: Host, name: str) -> Run:
    return await host.deployment.retry(RetryRunRequest(name=name), "admin", once())


async def test_it_is_looked_at_again_just_before_the_import(linked: Host, api: WebApi) -> None:
    """Taken over between validation and import: validated, and not imported."""
    artifact = await linked.upload(package(managed=True))
    after(way(api), "POST StageSolution", lambda: claims.take(api, "another"))
    run = await linked.deployed(artifact=artifact.name, stage="qa")
    assert (state(run), run.error.code) == ("FAILED", "ENVIRONMENT_TAKEN")
    assert way(api).count("POST ImportSolutionAsync|POST StageAndUpgradeAsync") == 0
    assert linked.store.reads.output(run.name, "import.intent") is None


def after(way: Way, what: str, do: Callable[[], Awaitable[object]]) -> None:
    """Do something once, when a request has been answered."""
    inner = way.inner

    class Then(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            answer = await inner.handle_async_request(request)
            if way.asked[-1] == what:
                way.inner = inner
                await do()
            return answer

    way.inner = Then()


async def test_a_crash_between_mark_and_record_is_put_right(linked: Host, api: WebApi) -> None:
    await claims.claim(api, "another")
    await linked.environments.check("environments/qa")
    assert recorded(linked).taken_by
    # The mark was written, and the host died before it recorded that.
    await claims.take(api, linked.store.reads.identity())
    assert await linked.environments.taken(recorded(linked), api) is None
    assert (recorded(linked).taken_by, recorded(linked).HasField("taken_time")) == ("", False)
    # Or it is asked to take over once more.
    whose = await linked.environments.take_over("environments/qa")
    assert linked.store.reads.identity() in whose


async def test_the_mark_is_in_no_solution_no_difference_and_no_dependency(api: WebApi) -> None:
    manage = package("1.0.0.0")
    intent = await api.prepare_import("Sales", read(manage).manifest.version, upgrade=False)
    operation = await api.start_import(manage, intent)
    while (await api.import_progress(operation)).state.value == "running":  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.02)
    before = await api.export_solution("Sales", managed=True)
    [solution] = [s for s in await api.solutions() if s.unique_name == "Sales"]
    components = await api.installed_components(solution)
    await claims.claim(api, "one")
    assert await api.export_solution("Sales", managed=True) == before
    assert await api.installed_components(solution) == components
    assert not [s for s in await api.solutions() if "pipehost" in s.unique_name.lower()]
    [mark] = await api.marks()
    assert await api.dependants(mark.id, 380) == []


async def test_one_environment_at_two_addresses_is_recognized(linked: Host, api: WebApi) -> None:
    """What the host cannot know from the addresses alone."""
    assert (await linked.environments.check("environments/qa")).findings == []
    other = Environment(name="environments/twin", kind=Environment.KIND_TARGET, url="http://localhost:1")
    await linked.store.write(lambda tx: tx.put_environment(other))
    found = await linked.environments.recognize(other, api)
    assert found is not None
    assert found.code == "ENVIRONMENT_TWICE"
    assert recorded(linked).organization_id in found.cause
    assert "qa" not in found.cause + found.remedy, "whoever sees this one need not see the other"
    twin = linked.store.reads.environment(other.name)
    assert twin is not None
    assert twin.organization_id == ""
