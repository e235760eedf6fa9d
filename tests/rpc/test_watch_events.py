"""Watching the record as somebody who sees a part of it: what a list shows, whatever changes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from typing import Any

import grpc
import pytest
from tests.rpc.conftest import DEVELOPMENT, Bed, package, parts
from tests.rpc.test_watch import refusal

from pipelinehost import Client, errors
from pipelinehost.status import from_rpc_error
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import (
    Environment,
    Event,
    Freeze,
    Gate,
    Pipeline,
    Principal,
    Run,
    Share,
    Stage,
)
from pipelinehost_server.api.watch import Watch
from pipelinehost_server.events import Feed

ROLES = ("VIEWER", "USER", "MAKER", "ADMINISTRATOR")
RELATIONS = ("owner", "edit", "run", "group", "approver", "approving-group", "restorer", "hidden")


def update(bed: Bed, slug: str, change: Callable[[Pipeline], None]) -> None:
    """Changes a pipeline."""
    found: Pipeline = bed.call("GetPipeline", api.GetPipelineRequest(name=f"pipelines/{slug}"))
    change(found)
    bed.call("UpdatePipeline", api.UpdatePipelineRequest(pipeline=found))


def happen(bed: Bed, slug: str) -> int:
    """Something happens to a pipeline; gives the sequence of its event."""
    update(bed, slug, lambda p: setattr(p, "description", p.description + "x"))
    sequence: int = bed.events()[-1].sequence
    return sequence


def share(principal: str, access: str = "RUN") -> Callable[[Pipeline], None]:
    return lambda p: p.shares.append(Share(principal=f"principals/{principal}", access=f"ACCESS_{access}"))


def unshare(pipeline: Pipeline) -> None:
    del pipeline.shares[:]


def listed(bed: Bed, token: str | None, text: str = "") -> list[Event]:
    found: list[Event] = []
    page = ""
    while True:
        request = api.ListEventsRequest(page_size=7, page_token=page, filter=text)
        answer = bed.call("ListEvents", request, token=token)
        found += answer.events
        page = answer.next_page_token
        if not page:
            return found


def watched(bed: Bed, token: str | None, text: str = "", *, after: str = "") -> list[Event]:
    """Everything up to the newest event that there is; that one is often hidden, and its place is told."""
    last = bed.events()[-1].sequence
    request = api.WatchEventsRequest(filter=text, from_beginning=not after, resume_token=after)
    stream, found = bed.stream("WatchEvents", request, token=token), []
    for response in stream:
        if response.HasField("event"):
            found.append(response.event)
        if int(response.resume_token.partition(".")[0]) >= last:
            break
    stream.cancel()
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Two pipelines with runs, restores, and one person for each role and relation to the first of them."""
    bed = Bed(tmp_path_factory.mktemp("watched") / "data", advancing=0)
    names: dict[str, list[str]] = {relation: [] for relation in RELATIONS}
    for role in ROLES:
        for relation in RELATIONS:
            slug = f"{relation}-{role.lower()}"
            bed.person(slug, role)
            names[relation].append(f"principals/{slug}")
    for team in ("owner", "group", "approving-group"):
        group = Principal(name=f"principals/team-{team}", kind=Principal.KIND_GROUP, members=names[team])
        bed.call("CreatePrincipal", api.CreatePrincipalRequest(principal=group))
    bed.environment("dev", DEVELOPMENT, makers=names["restorer"])
    for slug in ("qa", "production"):
        bed.environment(slug)
    shares = [Share(principal=p, access="ACCESS_EDIT") for p in names["edit"]]
    shares += [Share(principal=p, access="ACCESS_RUN") for p in (*names["run"], "principals/team-group")]
    approvers = [*names["approver"], "principals/team-approving-group"]
    gate = Gate(kind=Gate.KIND_APPROVAL, approvers=approvers)
    stage = Stage(name="pipelines/sales/stages/qa", environment="environments/qa", gates=[gate])
    bed.pipeline(owner="principals/team-owner", shares=shares, stages=[stage])
    other = Stage(name="pipelines/other/stages/production", environment="environments/production")
    bed.pipeline("other", stages=[other])
    unmanaged = bed.upload(package(managed=False)).name
    restorer = bed.tokens["restorer-maker"]
    assert bed.call("UploadArtifact", iter(parts(package(managed=False))), token=restorer).name == unmanaged
    restore = api.RestoreArtifactRequest(artifact=unmanaged, environment="environments/dev")
    for token in (None, restorer):
        bed.call("RestoreArtifact", restore, token=token)
    artifact = bed.upload(package()).name
    for slug, place in (("sales", "qa"), ("other", "production")):
        request = api.DeployRequest(
            pipeline=f"pipelines/{slug}", stage=f"pipelines/{slug}/stages/{place}", artifact=artifact
        )
        run = bed.call("Deploy", request)
        happen(bed, slug)
        bed.call("CancelRun", api.CancelRunRequest(name=run.name))
    for name, scope in (
        ("all", ""),
        ("sales", "pipelines/sales"),
        ("other", "pipelines/other"),
        ("gone", ""),
    ):
        freeze = Freeze(name=f"freezes/{name}", scope=scope, reason="the audit")
        bed.call("CreateFreeze", api.CreateFreezeRequest(freeze=freeze))
    bed.call("DeleteFreeze", api.DeleteFreezeRequest(name="freezes/gone"))
    bed.call("DeletePipeline", api.DeletePipelineRequest(name="pipelines/other"))
    yield bed
    bed.close()


FILTERS = ("", "kind = RUN_STATE_CHANGED", 'subject != "pipelines/sales"', "actor = host")


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("role", ROLES)
def test_a_watch_shows_what_a_list_shows(world: Bed, role: str, relation: str) -> None:
    token = world.tokens[f"{relation}-{role.lower()}"]
    everything = world.events()
    for text in FILTERS:
        assert watched(world, token, text) == listed(world, token, text)
    seen = listed(world, token)
    subjects = {e.subject for e in seen}
    if role == "ADMINISTRATOR":
        assert seen == everything
    elif relation == "hidden" or (relation == "restorer" and role != "MAKER"):
        assert subjects == {"freezes/all"}
    elif relation == "restorer":
        assert subjects - {"freezes/all"} == {s for s in subjects if s.startswith("runs/")}
        assert len(subjects) == 2, "their own restore only"
    else:
        assert {"pipelines/sales", "freezes/all", "freezes/sales"} < subjects
        assert len(subjects) == 4, "and the one run of the pipeline"


def test_a_token_leads_over_hidden_events_and_on(world: Bed) -> None:
    token = world.tokens["run-user"]
    stream = world.stream("WatchEvents", api.WatchEventsRequest(), token=token)
    first = next(stream)
    happened = [e.sequence for e in world.events()][-1]
    world.person("stranger-1")
    for response in stream:
        assert response.HasField("heartbeat")
        if int(response.resume_token.partition(".")[0]) > happened:
            break
    stream.cancel()
    visible = happen(world, "sales")
    for place in (first.resume_token, response.resume_token):
        assert [e.sequence for e in watched(world, token, after=place)] == [visible]


def test_a_freeze_is_news_to_who_sees_what_it_freezes(two: Bed) -> None:
    stream = two.stream("WatchEvents", api.WatchEventsRequest(), token=two.tokens["ada"])
    next(stream)
    for scope in ("pipelines/sales", "pipelines/known", ""):
        freeze = Freeze(name=f"freezes/f{scope[-5:-3]}", scope=scope, reason="the audit")
        two.call("CreateFreeze", api.CreateFreezeRequest(freeze=freeze))
    created = [e.sequence for e in two.events() if e.kind == Event.KIND_FREEZE_CREATED]
    marker = happen(two, "known")
    assert until(stream, marker) == [*created[1:], marker]
    stream.cancel()


def test_without_a_role_nothing_is_watched(world: Bed) -> None:
    token = world.person("nobody", "UNSPECIFIED")
    assert isinstance(
        refusal(world.stream("WatchEvents", api.WatchEventsRequest(), token=token)), errors.PermissionDenied
    )


# Rights that change while somebody watches


@pytest.fixture
def two(idle: Bed) -> Bed:
    """A pipeline to lose and to gain, and one that ada always sees."""
    idle.person("ada", "USER")
    idle.environment("production")
    stage = Stage(name="pipelines/known/stages/production", environment="environments/production")
    idle.pipeline("known", stages=[stage], shares=[Share(principal="principals/ada", access="ACCESS_RUN")])
    return idle


def until(stream: Any, marker: int) -> list[int]:
    """The sequences up to a marker that must come."""
    found = []
    for response in stream:
        if response.HasField("event"):
            found.append(response.event.sequence)
            if response.event.sequence == marker:
                return found
    raise AssertionError(found)


def test_a_share_that_is_given_or_taken_away_counts_at_once(two: Bed) -> None:
    stream = two.stream("WatchEvents", api.WatchEventsRequest(), token=two.tokens["ada"])
    next(stream)
    happen(two, "sales")
    for _ in range(10):
        update(two, "sales", share("ada"))
        given = two.events()[-1].sequence
        seen = happen(two, "sales")
        assert until(stream, seen) == [given, seen]
        update(two, "sales", unshare)
        happen(two, "sales")
        marker = happen(two, "known")
        assert until(stream, marker) == [marker]
    stream.cancel()


def test_a_group_that_is_left_counts_at_once(two: Bed) -> None:
    team = Principal(name="principals/team", kind=Principal.KIND_GROUP, members=["principals/ada"])
    team = two.call("CreatePrincipal", api.CreatePrincipalRequest(principal=team))
    update(two, "sales", share("team"))
    stream = two.stream("WatchEvents", api.WatchEventsRequest(), token=two.tokens["ada"])
    next(stream)
    seen = happen(two, "sales")
    assert until(stream, seen) == [seen]
    del team.members[:]
    two.call("UpdatePrincipal", api.UpdatePrincipalRequest(principal=team))
    happen(two, "sales")
    marker = happen(two, "known")
    assert until(stream, marker) == [marker]
    stream.cancel()


def test_an_administrator_who_is_one_no_more_sees_their_own_from_then_on(two: Bed) -> None:
    ada = two.call("GetPrincipal", api.GetPrincipalRequest(name="principals/ada"))
    ada.role = Principal.ROLE_ADMINISTRATOR
    ada = two.call("UpdatePrincipal", api.UpdatePrincipalRequest(principal=ada))
    stream = two.stream("WatchEvents", api.WatchEventsRequest(), token=two.tokens["ada"])
    next(stream)
    seen = happen(two, "sales")
    assert until(stream, seen) == [seen]
    ada.role = Principal.ROLE_VIEWER
    two.call("UpdatePrincipal", api.UpdatePrincipalRequest(principal=ada))
    happen(two, "sales")
    marker = happen(two, "known")
    assert until(stream, marker) == [marker]
    stream.cancel()


@pytest.mark.parametrize("how", ["disable", "revoke", "demote"])
def test_who_may_not_watch_any_more_is_told_so_and_no_event(two: Bed, how: str) -> None:
    stream = two.stream("WatchEvents", api.WatchEventsRequest(), token=two.tokens["ada"])
    next(stream)
    if how == "revoke":
        name = f"tokens/{two.tokens['ada'][3:11]}"
        two.call("RevokeToken", api.RevokeTokenRequest(name=name))
    else:
        ada = two.call("GetPrincipal", api.GetPrincipalRequest(name="principals/ada"))
        ada.disabled = how == "disable"
        if how == "demote":
            ada.role = Principal.ROLE_UNSPECIFIED
        two.call("UpdatePrincipal", api.UpdatePrincipalRequest(principal=ada))
    happen(two, "known")
    rest: list[Any] = []
    with pytest.raises(grpc.RpcError) as ended:
        rest.extend(stream)
    assert not [r for r in rest if r.HasField("event")]
    wanted = errors.PermissionDenied if how == "demote" else errors.Unauthenticated
    assert isinstance(from_rpc_error(ended.value), wanted)


def test_what_waits_to_be_sent_is_decided_again_when_rights_change(two: Bed) -> None:
    """A watcher reads slowly: of a page that the host has read long ago nothing more comes."""
    update(two, "sales", share("ada"))
    for _ in range(20):
        happen(two, "sales")
    access = two.host._guard._access  # type: ignore[union-attr]  # it has started
    token, path = two.tokens["ada"], "/pipelinehost.v1.PipelineHost/WatchEvents"
    seen: list[int] = []
    asked: list[bool] = []

    async def read() -> None:
        watch = Watch(two.store, Feed(two.store), b"secret", 0.2)
        caller = access.identify(token)
        request = api.WatchEventsRequest(from_beginning=True)
        async with aclosing(watch.events(request, access.sight(caller, path))) as responses:
            async for response in responses:
                if not response.HasField("event"):
                    if asked:
                        return
                    continue
                seen.append(response.event.sequence)
                if len(seen) == 10:
                    await asyncio.to_thread(update, two, "sales", unshare)
                    asked.append(True)

    two.thread.run(read())
    kept = {e.sequence for e in listed(two, token)}
    assert kept
    assert len(set(seen[:10]) - kept) == 9
    assert set(seen[10:]) <= kept


def test_an_environment_is_nobodys_news_but_the_administrators(two: Bed) -> None:
    stream = two.stream("WatchEvents", api.WatchEventsRequest(), token=two.tokens["ada"])
    next(stream)
    two.environment("secret", Environment.KIND_TARGET)
    marker = happen(two, "known")
    assert until(stream, marker) == [marker]
    stream.cancel()


def test_the_client_watches_for_somebody_who_is_no_administrator(two: Bed) -> None:
    stage = "pipelines/known/stages/production"
    request = api.DeployRequest(pipeline="pipelines/known", stage=stage, solution="Sales")
    run: Run = two.call("Deploy", request, token=two.tokens["ada"])
    with (
        Client(str(two.host.address), token=two.tokens["ada"]) as client,
        closing(client.watch_events("kind = DEPLOYMENT_REQUESTED", from_beginning=True)) as updates,
    ):
        assert next(updates).HasField("heartbeat")
        assert next(updates).event.subject == run.name
