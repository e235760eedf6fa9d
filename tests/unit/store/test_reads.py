"""Resources come back as they went in, and pages neither repeat nor hide a row."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelinehost.v1.pipeline_host_pb2 import (
    ListEnvironmentsResponse,
    ListEventsResponse,
    ListFindingsResponse,
    ListPipelinesResponse,
    ListRunsResponse,
)
from pipelinehost.v1.resources_pb2 import (
    Artifact,
    Environment,
    Event,
    Finding,
    Freeze,
    Pipeline,
    Run,
    Stage,
    Token,
)
from pipelinehost_server.store import Key, Kind, Store, Transaction, reads, tables, transaction

MakeRun = Callable[..., Run]


@given(st.lists(st.integers(0, 40_000), max_size=5))
def test_frames_joined_are_a_list(sizes: Sequence[int]) -> None:
    runs = [Run(name="r", note="x" * size) for size in sizes]
    frames = [tables.frame(run) for run in runs]
    assert list(ListRunsResponse.FromString(b"".join(frames)).runs) == runs
    assert [Run.FromString(tables.body(frame)) for frame in frames] == runs


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_frames_at_the_edges_of_their_length(size: int) -> None:
    overhead = Run(note="x" * size).ByteSize() - size
    run = Run(note="x" * max(size - overhead, 0))
    frame = tables.frame(run)
    assert frame == ListRunsResponse(runs=[run]).SerializeToString()
    assert tables.body(frame) == run.SerializeToString()


def test_a_compiled_query_loses_no_value() -> None:
    with pytest.raises(TypeError, match="may not carry values"):
        tables.text(tables.Run.select().where(tables.Run.name == "runs/x"))


async def test_environments_and_pipelines(store: Store) -> None:
    qa = Environment(name="environments/qa", kind=Environment.KIND_TARGET, region="europe")
    created = await store.write(lambda tx: tx.put_environment(qa))
    assert created.etag
    assert created.create_time == created.update_time
    assert store.reads.environment(qa.name) == created
    before = Environment.FromString(created.SerializeToString())
    changed = await store.write(lambda tx: tx.put_environment(Environment(name=qa.name, display_name="QA")))
    assert changed.etag not in ("", before.etag)
    assert changed.create_time == before.create_time
    assert changed.update_time.ToNanoseconds() > before.update_time.ToNanoseconds()

    pipeline = Pipeline(
        name="pipelines/sales",
        development_environments=["environments/dev", "environments/dev2"],
        stages=[
            Stage(name="pipelines/sales/stages/qa", environment=qa.name),
            Stage(name="pipelines/sales/stages/qa2", environment=qa.name),
        ],
    )
    await store.write(lambda tx: tx.put_pipeline(pipeline))
    await store.write(lambda tx: tx.put_pipeline(Pipeline(name="pipelines/b", stages=pipeline.stages)))
    assert store.reads.pipeline("pipelines/sales") == pipeline
    assert store.reads.pipelines_using(qa.name) == ["pipelines/b", "pipelines/sales"]
    assert store.reads.pipelines_using("environments/dev2") == ["pipelines/sales"]
    pipeline.ClearField("stages")
    await store.write(lambda tx: tx.put_pipeline(pipeline))
    assert store.reads.pipelines_using(qa.name) == ["pipelines/b"]
    await store.write(lambda tx: tx.delete_pipeline("pipelines/b"))
    await store.write(lambda tx: tx.delete_environment(qa.name))
    assert store.reads.pipelines_using(qa.name) == []
    assert store.reads.pipeline("pipelines/b") is None
    assert store.reads.environment(qa.name) is None


async def test_artifacts_secrets_and_tokens(store: Store) -> None:
    def put(transaction: Transaction) -> None:
        for number in range(3):
            transaction.put_artifact(
                Artifact(name=f"artifacts/{number}", solution="Sales", version="1.0", managed=True)
            )
        transaction.put_artifact(Artifact(name="artifacts/source", solution="Sales", version="1.0"))
        transaction.put_secret("a", b"1")
        transaction.put_secret("a", b"2")
        transaction.put_secret("b", b"3")
        transaction.delete_secret("b")
        transaction.put_token(Token(name="tokens/00000000", principal="principals/ada"), b"\0" * 32)

    await store.write(put)
    first = store.reads.artifact("artifacts/0")
    assert first is not None
    again = await store.write(
        lambda tx: tx.put_artifact(
            Artifact(name="artifacts/0", solution="Sales", version="1.0", managed=True, source_sha256="s")
        )
    )
    assert (again.create_time, again.source_sha256) == (first.create_time, "s")
    assert store.reads.artifacts_of("Sales", "1.0", True) == ["artifacts/2", "artifacts/1", "artifacts/0"]
    assert store.reads.artifacts_of("Sales", "1.0", False) == ["artifacts/source"]
    assert store.reads.artifacts_of("Sales", "2.0", True) == []
    assert (store.reads.secret("a"), store.reads.secret("b")) == (b"2", None)
    token = store.reads.token_of(b"\0" * 32)
    assert token == store.reads.token("tokens/00000000")
    assert token is not None
    assert token.principal == "principals/ada"
    assert token.HasField("create_time")
    assert store.reads.token_of(b"\1" * 32) is None
    assert store.reads.tokens_of("principals/ada") == [token]


def walk(store: Store, kind: Kind, response: Any, limit: int, **how: Any) -> list[Any]:
    """All rows of a list, page by page."""
    items: list[Any] = []
    after: Key | None = None
    while True:
        frames, after = store.reads.page(kind, after=after, limit=limit, **how)
        page: list[Any] = next(iter(response.FromString(frames).ListFields()), (None, []))[1]
        assert len(page) == limit or after is None
        items.extend(page)
        assert len(items) < 1000, "the pages do not come to an end"
        if after is None:
            return items


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 20, 21])
async def test_pages_of_every_size(store: Store, make_run: MakeRun, limit: int) -> None:
    names = [(await store.write(lambda tx: tx.insert_run(make_run()))).name for _ in range(20)]
    # Times that are equal must not lose a row at the edge of a page.
    sql = "UPDATE run SET create_time = create_time / 1000000000"
    await store.write(lambda tx: tx._execute(sql, ()).rowcount)
    for column in ("create_time", "name", "state"):
        for descending in (False, True):
            found = walk(store, "run", ListRunsResponse, limit, order=(column, descending))
            assert [run.name for run in found] == sorted(names, reverse=descending)
    assert store.reads.page("run", order=("create_time", True), limit=limit, where=[("state", "=", 99)]) == (
        b"",
        None,
    )


async def test_pages_under_inserts_and_deletes(store: Store) -> None:
    """Whatever is there throughout comes exactly once, in order."""
    rng = random.Random(7)
    staying = sorted(f"environments/s{rng.randrange(10**6):06d}" for _ in range(60))
    await store.write(lambda tx: [tx.put_environment(Environment(name=name)) for name in staying])
    passing: list[str] = []

    def stir(transaction: Transaction) -> None:
        for _ in range(10):
            passing.append(f"environments/s{rng.randrange(10**6):06d}x")
            transaction.put_environment(Environment(name=passing[-1]))
        for _ in range(5):
            transaction.delete_environment(passing.pop(rng.randrange(len(passing))))

    found: list[str] = []
    after: Key | None = None
    while True:
        frames, after = store.reads.page("environment", after=after, limit=4)
        found += [e.name for e in ListEnvironmentsResponse.FromString(frames).environments]
        if after is None:
            break
        await store.write(stir)
    assert found == sorted(set(found))
    assert [name for name in found if not name.endswith("x")] == staying


async def test_filters(store: Store, make_run: MakeRun) -> None:
    def put(transaction: Transaction) -> None:
        for state in (Run.STATE_QUEUED, Run.STATE_FAILED, Run.STATE_SUCCEEDED):
            for solution in ("Sales", "Hr"):
                transaction.insert_run(make_run(state=state, solution=solution))
        for name, environment in (("a", "qa"), ("b", "qa"), ("c", "prod")):
            stage = Stage(name=f"pipelines/{name}/stages/x", environment=f"environments/{environment}")
            transaction.put_pipeline(Pipeline(name=f"pipelines/{name}", stages=[stage]))
        for number in range(4):
            transaction.append(Event(subject=f"s{number % 2}", actor="ada"))
        transaction.add_findings("runs/x", [Finding(code=f"F{number}") for number in range(4)])

    await store.write(put)

    def numbers(*where: tuple[str, str, Any], limit: int = 2) -> list[int]:
        found = walk(store, "run", ListRunsResponse, limit, where=where, order=("create_time", False))
        return [int(run.name[-2:]) for run in found]

    assert numbers(("solution", "=", "Hr")) == [2, 4, 6]
    assert numbers(("solution", "!=", "Hr")) == [1, 3, 5]
    assert numbers(("solution", "=", "Hr"), ("state", "=", Run.STATE_FAILED)) == [4]
    assert numbers(("state", "in", [Run.STATE_QUEUED, Run.STATE_FAILED])) == [1, 2, 3, 4]
    assert numbers(("state", "in", [])) == []
    times = [run.create_time.ToNanoseconds() for run in walk(store, "run", ListRunsResponse, 9)]
    assert numbers(("create_time", "<", times[2])) == [1, 2]
    assert numbers(("create_time", "<=", times[2])) == [1, 2, 3]
    assert numbers(("create_time", ">", times[3])) == [5, 6]
    assert numbers(("create_time", ">=", times[3])) == [4, 5, 6]

    def pipelines(operator: str, value: Any) -> list[str]:
        where = [("environment", operator, value)]
        return [p.name[-1] for p in walk(store, "pipeline", ListPipelinesResponse, 1, where=where)]

    assert pipelines("=", "environments/qa") == ["a", "b"]
    assert pipelines("!=", "environments/qa") == ["c"]
    assert pipelines("in", ["environments/qa", "environments/prod"]) == ["a", "b", "c"]
    events = walk(
        store, "event", ListEventsResponse, 1, where=[("subject", "=", "s1")], order=("sequence", True)
    )
    assert [event.sequence for event in events] == [4, 2]
    found = walk(store, "finding", ListFindingsResponse, 3, where=[("run", "=", "runs/x")])
    assert [finding.code for finding in found] == ["F0", "F1", "F2", "F3"]


@pytest.mark.parametrize(
    ("kind", "how", "words"),
    [
        ("run", {"where": [("epoch", "=", 1)]}, "cannot be filtered by 'epoch'"),
        ("run", {"where": [("frame; DROP TABLE run", "=", 1)]}, "cannot be filtered"),
        ("run", {"where": [("state", "LIKE", 1)]}, "'LIKE' is no operator"),
        ("run", {"order": ("frame", False)}, "cannot be ordered by 'frame'"),
        ("pipeline", {"order": ("environment", False)}, "cannot be ordered by 'environment'"),
        ("pipeline", {"where": [("environment", "<", "x")]}, "cannot be compared with '<'"),
    ],
)
async def test_a_page_that_cannot_be_asked_for(store: Store, kind: Kind, how: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        store.reads.page(kind, limit=1, **how)


async def test_no_question_goes_through_a_whole_history(store: Store) -> None:
    """Each names an index; what is scanned is a small partial index, or read from its end."""
    allowed = {
        "_FIRST_TOKENS": "SCAN t1",  # once, at the start
        "_HEAD": "SCAN t1",  # backwards, one row
        "_LAST_SEQUENCE": "SEARCH t1",  # max() of the key
        "_UNFINISHED_ALL": "SCAN t1 USING COVERING INDEX run_unfinished",
        "_UNFINISHED_OF_PIPELINE": "SCAN t1 USING INDEX run_unfinished",
        "_UNFINISHED_AT_ENVIRONMENT": "SCAN t1 USING INDEX run_unfinished",
        "_IN_QUEUES": "SCAN t1 USING INDEX run_waiting",
        "_RESTING": "SCAN t1 USING COVERING INDEX run_unfinished",
        "_DUE": "SCAN t1 USING COVERING INDEX run_unfinished",
        "_FIRST_IN_QUEUE": "SCAN t1 USING INDEX run_waiting",
        "_DELIVERIES": "SCAN t1 USING COVERING INDEX sqlite_autoindex_delivery_1",  # once; the table is small
        "_SECRETS": "SCAN t1",  # all of them, for a host that is stopped
    }
    seen = 0
    for module in (reads, transaction):
        for name, sql in vars(module).items():
            if not isinstance(sql, str) or sql.split(" ")[0] not in ("SELECT", "UPDATE", "DELETE"):
                continue
            seen += 1
            values = [1] * sql.count("?")
            plan = [row[3] for row in store.reads._execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()]
            assert plan[0] == allowed.get(name, plan[0]), name
            assert name in allowed or "SEARCH" in plan[0], (name, plan)
            assert not any("TEMP B-TREE" in line for line in plan), (name, plan)
            assert all("SEARCH" in line or "SUBQUERY" in line for line in plan[1:]), (name, plan)
    assert seen > 40


async def test_a_transaction_reads_what_was_written_last_and_not_undone(store: Store) -> None:
    """Environments, pipelines, artifacts and freezes are kept at hand there."""
    names = ("environments/qa", "pipelines/sales", f"artifacts/{'1' * 64}")

    def found(tx: Transaction) -> list[str]:
        """What each says of itself; empty for what is not there."""
        read = tx.environment(names[0]), tx.pipeline(names[1]), tx.artifact(names[2])
        reasons = "".join(freeze.reason for freeze in tx.freezes_of(names[1]))
        return [*(each.display_name if each else "" for each in read), reasons]

    def put(words: str, *, ends: bool = False) -> Callable[[Transaction], list[str]]:
        def job(tx: Transaction) -> list[str]:
            before = found(tx)
            tx.put_environment(Environment(name=names[0], display_name=words))
            assert found(tx) == [words, *before[1:]]
            tx.put_pipeline(Pipeline(name=names[1], display_name=words))
            assert found(tx) == [words, words, *before[2:]]
            tx.put_artifact(Artifact(name=names[2], display_name=words))
            assert found(tx) == [*[words] * 3, before[3]]
            tx.put_freeze(Freeze(name="freezes/year-end", scope=names[1], reason=words))
            assert found(tx) == [words] * 4
            if ends:
                raise ValueError(words)
            return before

        return job

    def delete(tx: Transaction) -> list[str]:
        before = found(tx)
        tx.delete_environment(names[0])
        assert found(tx)[0] == ""
        tx.delete_pipeline(names[1])
        assert found(tx)[1] == ""
        tx.delete_freeze("freezes/year-end")
        return before

    assert await store.write(put("one")) == [""] * 4
    assert await store.write(put("two")) == ["one"] * 4
    # Alone and with others in a group: what is undone was never there.
    with pytest.raises(ValueError, match="undone"):
        await store.write(put("undone", ends=True))
    jobs = [put("three"), put("undone", ends=True), put("four"), delete, put("five")]
    three, undone, four, gone, five = await asyncio.gather(*map(store.write, jobs), return_exceptions=True)
    assert (three, four, gone) == (["two"] * 4, ["three"] * 4, ["four"] * 4)
    assert isinstance(undone, ValueError)
    assert five == ["", "", "four", ""]
    assert await store.write(found) == ["five"] * 4

    def meddle(tx: Transaction) -> None:
        environment = tx.environment(names[0])
        assert environment is not None
        environment.display_name = "changed, and not put back"

    await store.write(meddle)
    assert await store.write(found) == ["five"] * 4
