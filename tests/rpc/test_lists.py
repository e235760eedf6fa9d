"""Lists: pages, tokens that cannot be forged, filters, orders."""

from __future__ import annotations

import base64
from functools import partial
from typing import Any

import pytest
from tests.rpc.conftest import DEVELOPMENT, Bed, package

from pipelinehost import errors
from pipelinehost.v1 import artifacts_pb2 as artifacts_api
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Environment, Event, Finding, Pipeline, Stage
from pipelinehost_server.api import listing
from pipelinehost_server.store import Transaction


def fill(bed: Bed, count: int, text: str = "") -> None:
    """Pipelines without the API: their rules are tested elsewhere."""

    async def put() -> None:
        for i in range(count):
            wanted = Pipeline(
                name=f"pipelines/p{i:04}", description=text, display_name="even" if i % 2 == 0 else ""
            )
            await bed.store.write(partial(Transaction.put_pipeline, pipeline=wanted))

    bed.thread.run(put())


def walk(bed: Bed, method: str, request: Any, field: str) -> list[list[Any]]:
    pages = []
    while True:
        page = bed.call(method, request)
        pages.append(list(getattr(page, field)))
        if not page.next_page_token:
            return pages
        request.page_token = page.next_page_token


def test_pages_hold_every_row_once(bed: Bed) -> None:
    fill(bed, 123)
    names = [f"pipelines/p{i:04}" for i in range(123)]
    pages = walk(bed, "ListPipelines", api.ListPipelinesRequest(), "pipelines")
    assert [len(p) for p in pages] == [50, 50, 23]
    assert [p.name for page in pages for p in page] == names
    pages = walk(
        bed, "ListPipelines", api.ListPipelinesRequest(page_size=41, order_by="name desc"), "pipelines"
    )
    assert [len(p) for p in pages] == [41, 41, 41]
    assert [p.name for page in pages for p in page] == names[::-1]


def test_a_page_of_large_rows_is_shorter_rather_than_too_large(bed: Bed) -> None:
    fill(bed, 1000, "x" * 3900)
    pages = walk(bed, "ListPipelines", api.ListPipelinesRequest(page_size=1000), "pipelines")
    assert [p.name for page in pages for p in page] == [f"pipelines/p{i:04}" for i in range(1000)]
    assert len(pages) > 1


def test_rows_added_between_pages_move_none(bed: Bed) -> None:
    fill(bed, 20)
    first = bed.call("ListPipelines", api.ListPipelinesRequest(page_size=10))
    bed.thread.run(bed.store.write(lambda tx: tx.put_pipeline(Pipeline(name="pipelines/a"))))
    bed.thread.run(bed.store.write(lambda tx: tx.delete_pipeline("pipelines/p0009")))
    second = bed.call(
        "ListPipelines", api.ListPipelinesRequest(page_size=10, page_token=first.next_page_token)
    )
    assert [p.name for p in second.pipelines] == [f"pipelines/p{i:04}" for i in range(10, 20)]


@pytest.mark.parametrize("size", [-1, 1001, -(2**31), 2**31 - 1])
def test_page_sizes_have_a_limit(size: int, bed: Bed) -> None:
    for method in ("ListPipelines", "ListRuns", "ListEvents", "ListEnvironments"):
        with pytest.raises(errors.InvalidArgument) as refused:
            bed.call(method, getattr(api, f"{method}Request")(page_size=size))
        assert [v.subject for v in refused.value.violations] == ["page_size"]


def test_a_page_token_is_of_one_caller_and_one_request(bed: Bed) -> None:
    fill(bed, 60)
    token = bed.call("ListPipelines", api.ListPipelinesRequest()).next_page_token
    # A page of another size may follow.
    assert (
        len(bed.call("ListPipelines", api.ListPipelinesRequest(page_token=token, page_size=3)).pipelines) == 3
    )
    other = bed.person("other", "ADMINISTRATOR")
    bed.stop()
    bed.start()
    assert bed.call(
        "ListPipelines", api.ListPipelinesRequest(page_token=token)
    ).pipelines  # a restart keeps it
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    forged = []
    for at in range(len(raw)):
        changed = raw.copy()
        changed[at] ^= 1
        forged.append(base64.urlsafe_b64encode(changed).decode().rstrip("="))
    wrong: list[tuple[str, Any, str]] = [("ListPipelines", api.ListPipelinesRequest(page_token=token), other)]
    wrong += [
        ("ListPipelines", api.ListPipelinesRequest(page_token=token, order_by="name desc"), ""),
        ("ListPipelines", api.ListPipelinesRequest(page_token=token, filter="display_name = even"), ""),
        ("ListEnvironments", api.ListEnvironmentsRequest(page_token=token), ""),
        ("ListEvents", api.ListEventsRequest(page_token=token), ""),
    ]
    wrong += [
        ("ListPipelines", api.ListPipelinesRequest(page_token=text), "")
        for text in [*forged, "x", "=", "é", token[:-2], token + "AA", token[:22], "A" * 4000]
    ]
    for method, request, caller in wrong:
        with pytest.raises(errors.InvalidArgument) as refused:
            bed.call(method, request, token=caller or None)
        assert refused.value.reason == ErrorReason.ERROR_REASON_INVALID_PAGE_TOKEN, request


def test_a_page_token_of_one_run_is_not_of_another(idle: Bed) -> None:
    runs = [
        idle.call(
            "Deploy",
            api.DeployRequest(pipeline="pipelines/sales", stage="pipelines/sales/stages/qa", solution="S"),
        )
        for _ in range(2)
    ]
    for run in runs:
        findings = [Finding(code=f"C{i}") for i in range(60)]
        idle.thread.run(idle.store.write(partial(Transaction.add_findings, run=run.name, findings=findings)))
    pages = walk(idle, "ListFindings", api.ListFindingsRequest(run=runs[0].name), "findings")
    assert [f.code for page in pages for f in page] == [f"C{i}" for i in range(60)]
    token = idle.call("ListFindings", api.ListFindingsRequest(run=runs[0].name)).next_page_token
    for method in ("ListFindings", "ListComponentResults"):
        request = getattr(api, f"{method}Request")(run=runs[1].name, page_token=token)
        with pytest.raises(errors.InvalidArgument):
            idle.call(method, request)


def test_filters_of_every_list(bed: Bed) -> None:
    bed.environment("dev", DEVELOPMENT, region="europe", display_name='The "dev" \\ one')
    bed.environment("qa", region="europe")
    bed.environment("prod")
    bed.pipeline("a")
    bed.pipeline("b", stages=[Stage(name="pipelines/b/stages/p", environment="environments/prod")])
    managed, unmanaged = bed.upload(package()), bed.upload(package("2.0.0.0", managed=False))

    def found(method: str, field: str, text: str, module: Any = api) -> list[str]:
        answer = bed.bridge(method, getattr(module, f"{method}Request")(filter=text))
        return [r.name.rpartition("/")[2] for r in getattr(answer, field)]

    assert found("ListEnvironments", "environments", "kind = TARGET") == ["prod", "qa"]
    assert found("ListEnvironments", "environments", 'kind=TARGET AND region!=""') == ["qa"]
    assert found("ListEnvironments", "environments", r'display_name = "The \"dev\" \\ one"') == ["dev"]
    assert found("ListEnvironments", "environments", """region = "x' OR '1'='1" """) == []
    assert found("ListPipelines", "pipelines", "environment = environments/qa") == ["a"]
    assert found("ListPipelines", "pipelines", "environment != environments/qa") == ["b"]
    assert found("ListPipelines", "pipelines", "environment = environments/dev") == ["a", "b"]
    m, u = managed.name[10:], unmanaged.name[10:]
    assert found("ListArtifacts", "artifacts", "", artifacts_api) == [u, m]
    assert found("ListArtifacts", "artifacts", "managed = true AND solution = Sales", artifacts_api) == [m]
    assert found("ListArtifacts", "artifacts", "version = 2.0.0.0", artifacts_api) == [u]
    assert found("ListArtifacts", "artifacts", 'create_time > "2020-01-01T00:00:00Z"', artifacts_api) == [
        u,
        m,
    ]
    assert found("ListArtifacts", "artifacts", "create_time < 2020-01-01T02:00:00+02:00", artifacts_api) == []
    created = [e.subject for e in bed.events() if e.kind == Event.KIND_ENVIRONMENT_CREATED]
    told = bed.call(
        "ListEvents", api.ListEventsRequest(filter="kind = ENVIRONMENT_CREATED AND actor = principals/admin")
    ).events
    assert [e.subject for e in told] == created
    newest = bed.call("ListEvents", api.ListEventsRequest(order_by="sequence desc", page_size=1)).events
    assert newest[0].subject == unmanaged.name


def test_filters_of_runs(idle: Bed) -> None:
    request = api.DeployRequest(
        pipeline="pipelines/sales", stage="pipelines/sales/stages/qa", solution="Sales"
    )
    runs = [idle.call("Deploy", request) for _ in range(3)]
    idle.call("CancelRun", api.CancelRunRequest(name=runs[1].name))
    newest_first = [r.name for r in reversed(runs)]
    listed = idle.call("ListRuns", api.ListRunsRequest())
    assert [r.name for r in listed.runs] == newest_first
    listed = idle.call("ListRuns", api.ListRunsRequest(order_by="create_time", page_size=2))
    assert [r.name for r in listed.runs] == [r.name for r in runs[:2]]
    for text, expected in (
        ("state = CANCELLED", [runs[1]]),
        ("state != CANCELLED AND pipeline = pipelines/sales", [runs[2], runs[0]]),
        ("target_environment = environments/qa AND requester = principals/admin", runs[::-1]),
        ("solution = Other", []),
        (f'create_time >= "{runs[2].create_time.ToJsonString()}"', [runs[2]]),
        ('create_time < "9999-12-31T23:59:59Z"', runs[::-1]),
        ('create_time < "0001-01-01T00:00:00Z"', []),
    ):
        listed = idle.call("ListRuns", api.ListRunsRequest(filter=text))
        assert [r.name for r in listed.runs] == [r.name for r in expected], text


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("nothing = 1", 0),
        ("state = LOST", 8),
        ("state = 10", 8),
        ("state < FAILED", 6),
        ("solution > a", 9),
        ("create_time > yesterday", 14),
        ("create_time > 2026-02-30T00:00:00Z", 14),
        ("solution", 0),
        ("solution =", 0),
        ("= a", 0),
        ('solution = "a', 0),
        ("solution = a OR solution = b", 12),
        ("solution = a and solution = b", 12),
        ("solution = a AND", 12),
        ("solution = a solution = b", 12),
        ("(solution = a)", 0),
        (" AND ".join(["solution = a"] * 33), 543),
        ("solution = a; drop table run", 13),
    ],
)
def test_a_filter_that_cannot_be_read_says_where(text: str, position: int, bed: Bed) -> None:
    with pytest.raises(errors.InvalidArgument) as refused:
        bed.call("ListRuns", api.ListRunsRequest(filter=text))
    assert refused.value.reason == ErrorReason.ERROR_REASON_INVALID_FILTER
    assert int(refused.value.metadata["position"]) == position, refused.value.message


def test_a_filter_has_limits(bed: Bed) -> None:
    bed.call("ListRuns", api.ListRunsRequest(filter=" AND ".join(["solution = a"] * 32)))
    with pytest.raises(errors.InvalidArgument):
        bed.call("ListRuns", api.ListRunsRequest(filter=f'solution = "{"é" * 2049}"'))
    with pytest.raises(errors.InvalidArgument):
        bed.call("ListRuns", api.ListRunsRequest(filter=f'solution = "{"a" * 4096}"'))


@pytest.mark.parametrize("order", ["state", "create_time asc", "name", "create_time desc, name", " "])
def test_orders_are_those_that_are_documented(order: str, bed: Bed) -> None:
    with pytest.raises(errors.InvalidArgument) as refused:
        bed.call("ListRuns", api.ListRunsRequest(order_by=order))
    assert [v.subject for v in refused.value.violations] == ["order_by"]


def test_every_filter_field_and_order_is_known_to_the_store(bed: Bed) -> None:
    values: dict[Any, Any] = {listing._text: "a", listing._time: 0, listing._boolean: 1}
    lists = [v for v in vars(listing).values() if isinstance(v, listing.Listing)]
    assert len(lists) == 9
    for one in lists:
        for order in one.orders:
            column, _, descending = order.partition(" ")
            where = [(f, "=", values.get(read, 1)) for f, read in one.fields.items()]

            async def read(kind: Any = one.kind, w: Any = where, o: Any = (column, bool(descending))) -> None:
                bed.store.reads.page(kind, where=w, order=o, limit=1)

            bed.thread.run(read())


def test_components_come_in_pages(bed: Bed) -> None:
    artifact = bed.upload(package())
    request = api.DescribeSolutionRequest(artifact=artifact.name, page_size=1)
    pages = walk(bed, "DescribeSolution", request, "components")
    whole = bed.call("DescribeSolution", api.DescribeSolutionRequest(artifact=artifact.name))
    assert [len(p) for p in pages] == [1] * whole.component_count
    assert [c for page in pages for c in page] == list(whole.components)
    token = bed.call(
        "DescribeSolution", api.DescribeSolutionRequest(artifact=artifact.name, page_size=1)
    ).next_page_token
    other = bed.upload(package("2.0.0.0"))
    with pytest.raises(errors.InvalidArgument):
        bed.call("DescribeSolution", api.DescribeSolutionRequest(artifact=other.name, page_token=token))


def test_environments_are_typed_rows(bed: Bed) -> None:
    made = bed.environment("qa")
    assert list(bed.call("ListEnvironments", api.ListEnvironmentsRequest()).environments) == [made]
    assert isinstance(made, Environment)
