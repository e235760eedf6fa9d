"""Runs: fenced by epoch, one per environment, queued in order, and with the events of each change."""

from collections.abc import Callable
from functools import partial

import pytest

from pipelinehost.errors import NotFound
from pipelinehost.v1.pipeline_host_pb2 import ListComponentResultsResponse
from pipelinehost.v1.resources_pb2 import (
    ComponentResult,
    Event,
    Finding,
    Pipeline,
    Run,
    Setting,
    Step,
    Subject,
)
from pipelinehost_server.store import EnvironmentHeld, Fenced, Store, Transaction

MakeRun = Callable[..., Run]
Note = Callable[[str], Event]
Peek = Callable[..., list[tuple[object, ...]]]
QA = "environments/qa"


async def test_a_run_comes_back_with_its_first_events(store: Store, make_run: MakeRun, note: Note) -> None:
    asked = make_run(note="please")
    run = await store.write(lambda tx: tx.insert_run(asked, events=[note("first"), note("second")]))
    assert run.revision == 2
    assert run.create_time.seconds > 1_700_000_000
    assert store.reads.run(run.name) == run
    events = store.reads.events_of_run(run.name, 0, 10)
    assert [(e.sequence, e.subject, e.message) for e in events] == [
        (1, run.name, "first"),
        (2, run.name, "second"),
    ]
    assert store.reads.events_of_run(run.name, 1, 10) == events[1:]
    assert store.reads.events_of_run(run.name, 0, 1) == events[:1]
    assert store.reads.epoch(run.name) == 0


async def test_the_pipeline_of_a_run_is_kept_as_it_was(store: Store, make_run: MakeRun, peek: Peek) -> None:
    pipeline = await store.write(
        lambda tx: tx.put_pipeline(Pipeline(name="pipelines/sales", display_name="Sales"))
    )
    before = Pipeline.FromString(pipeline.SerializeToString())

    def fails(tx: Transaction) -> None:
        tx.insert_run(make_run(), pipeline=before)
        raise ValueError("later")

    with pytest.raises(ValueError, match="later"):
        await store.write(fails)
    first, second = [
        await store.write(lambda tx: tx.insert_run(make_run(), pipeline=before)) for _ in range(2)
    ]
    pipeline.display_name = "Selling"
    changed = await store.write(lambda tx: tx.put_pipeline(pipeline))
    third = await store.write(lambda tx: tx.insert_run(make_run(), pipeline=changed))
    restore = await store.write(lambda tx: tx.insert_run(make_run(pipeline="", stage="")))
    kept = [store.reads.run_pipeline(run.name) for run in (first, second, third, restore)]
    assert kept == [before, before, changed, None]
    assert peek("SELECT count(*) FROM pipeline_version") == [(2,)]


async def test_saving_replaces_the_run_and_appends_what_happened(
    store: Store, make_run: MakeRun, note: Note
) -> None:
    run = await store.write(lambda tx: tx.insert_run(make_run(), events=[note("asked")]))
    run, epoch = await store.write(lambda tx: tx.claim_run(run.name))
    run.state = Run.STATE_VALIDATING
    run.version = "1.2.0.0"
    await store.write(lambda tx: tx.save_run(run, [note("began"), note("exported")], epoch=epoch))
    stored = store.reads.run(run.name)
    assert stored is not None
    assert (stored.state, stored.version, stored.revision) == (Run.STATE_VALIDATING, "1.2.0.0", 3)
    assert [e.message for e in store.reads.events_of_run(run.name, 0, 9)] == ["asked", "began", "exported"]
    await store.write(lambda tx: tx.save_run(run, epoch=epoch))
    assert store.reads.run(run.name) == stored  # without an event the revision stays


async def test_whoever_was_fenced_off_changes_nothing(
    store: Store, make_run: MakeRun, note: Note, peek: Peek
) -> None:
    name = (await store.write(lambda tx: tx.insert_run(make_run()))).name
    old, old_epoch = await store.write(lambda tx: tx.claim_run(name))
    new, new_epoch = await store.write(lambda tx: tx.claim_run(name))
    assert (old_epoch, new_epoch, store.reads.epoch(name)) == (1, 2, 2)
    old.state = Run.STATE_DEPLOYING

    def late(transaction: Transaction) -> str:
        # Even a job that goes on after it leaves nothing behind.
        with pytest.raises(Fenced, match="epoch 1 has been followed by 2"):
            transaction.save_run(old, [note("late")], epoch=old_epoch, held=QA, waiting=True)
        return "went on"

    assert await store.write(late) == "went on"
    with pytest.raises(Fenced):
        await store.write(lambda tx: tx.save_run(old, [note("late")], epoch=old_epoch))
    assert store.reads.run(name) == new
    assert store.reads.held_by(QA) is None
    assert store.reads.waiting_for(QA) == []
    assert peek("SELECT count(*) FROM event") == [(0,)]
    await store.write(lambda tx: tx.save_run(new, [note("in time")], epoch=new_epoch))
    with pytest.raises(Fenced):
        await store.write(lambda tx: tx.save_run(make_run(), epoch=0))
    with pytest.raises(NotFound):
        await store.write(lambda tx: tx.claim_run("runs/none"))


async def test_an_environment_has_one_holder(store: Store, make_run: MakeRun, note: Note) -> None:
    first, second = [await store.write(lambda tx: tx.insert_run(make_run())) for _ in range(2)]

    def hold(run: Run, environment: str | None) -> Callable[[Transaction], Run]:
        return lambda tx: tx.save_run(run, [note("held")], epoch=0, held=environment)

    await store.write(hold(first, QA))
    await store.write(hold(first, QA))  # to hold it again is nothing new
    with pytest.raises(EnvironmentHeld) as refused:
        await store.write(hold(second, QA))
    assert (refused.value.environment, refused.value.holder) == (QA, first.name)
    assert store.reads.held_by(QA) == first.name
    assert len(store.reads.events_of_run(second.name, 0, 9)) == 0
    await store.write(hold(second, "environments/prod"))  # another one is free
    await store.write(hold(first, None))
    await store.write(hold(second, QA))
    assert store.reads.held_by(QA) == second.name
    assert store.reads.held_by("environments/prod") is None
    await store.write(lambda tx: tx.save_run(second, epoch=0))
    assert store.reads.held_by(QA) == second.name  # kept unless told otherwise


async def test_the_file_itself_refuses_a_second_holder(store: Store, make_run: MakeRun) -> None:
    runs = [await store.write(lambda tx: tx.insert_run(make_run())) for _ in range(2)]
    sql = "UPDATE run SET held_environment = ? WHERE name = ?"
    await store.write(lambda tx: tx._execute(sql, (QA, runs[0].name)).rowcount)
    with pytest.raises(Exception, match="UNIQUE constraint failed"):
        await store.write(lambda tx: tx._execute(sql, (QA, runs[1].name)).rowcount)


async def test_the_queue_keeps_its_order(store: Store, make_run: MakeRun) -> None:
    a, b, c = [
        await store.write(lambda tx: tx.insert_run(make_run(state=Run.STATE_WAITING_FOR_TARGET)))
        for _ in range(3)
    ]
    other = await store.write(lambda tx: tx.insert_run(make_run(target_environment="environments/prod")))

    async def wait(run: Run, waiting: bool = True) -> None:
        await store.write(lambda tx: tx.save_run(run, epoch=0, waiting=waiting))

    for run in (b, a, other, c, a):
        await wait(run)
    assert store.reads.waiting_for(QA) == [b.name, a.name, c.name]
    assert store.reads.waiting_for("environments/prod") == [other.name]
    await store.write(lambda tx: tx.save_run(a, epoch=0))
    assert store.reads.waiting_for(QA) == [b.name, a.name, c.name]
    await wait(b, waiting=False)
    assert store.reads.waiting_for(QA) == [a.name, c.name]
    await wait(b)  # who comes back stands at the end
    assert store.reads.waiting_for(QA) == [a.name, c.name, b.name]


@pytest.mark.parametrize("state", [Run.STATE_SUCCEEDED, Run.STATE_FAILED, Run.STATE_CANCELLED])
async def test_a_finished_run_lets_go_of_everything(
    store: Store, make_run: MakeRun, state: Run.State
) -> None:
    run = await store.write(lambda tx: tx.insert_run(make_run()))
    await store.write(lambda tx: tx.save_run(run, epoch=0, held=QA, waiting=True))
    run.state = Run.STATE_UNKNOWN
    await store.write(lambda tx: tx.save_run(run, epoch=0))
    assert store.reads.held_by(QA) == run.name  # unknown is not finished
    run.state = state
    await store.write(lambda tx: tx.save_run(run, epoch=0, held=QA, waiting=True))
    assert store.reads.held_by(QA) is None
    assert store.reads.waiting_for(QA) == []
    assert store.reads.due_runs() == store.reads.unfinished_runs() == []


async def test_what_is_due(store: Store, make_run: MakeRun) -> None:
    states = [
        Run.STATE_QUEUED,
        Run.STATE_VALIDATING,
        Run.STATE_DEPLOYING,
        Run.STATE_UNKNOWN,
        Run.STATE_SUCCEEDED,
        Run.STATE_FAILED,
        Run.STATE_CANCELLED,
        Run.STATE_WAITING_FOR_TARGET,
        Run.STATE_WAITING_FOR_TARGET,
        Run.STATE_WAITING_FOR_TARGET,
    ]
    made = [make_run(state=state) for state in states]
    made[9].target_environment = "environments/prod"
    runs = await store.write(lambda tx: [tx.insert_run(run) for run in made])
    names = [run.name for run in runs]
    for run in runs[7:]:
        await store.write(partial(Transaction.save_run, run=run, epoch=0, waiting=True))
    reads = store.reads
    assert set(reads.due_runs()) == {*names[:3], names[7], names[9]}
    assert set(reads.due_runs()[:2]) == {names[7], names[9]}  # a free target is not kept waiting
    assert reads.due_runs()[2:] == names[:3]  # oldest first
    await store.write(lambda tx: tx.save_run(runs[2], epoch=0, held=QA))
    assert reads.due_runs() == [names[9], *names[:3]]  # nobody's turn at a held environment
    assert set(reads.due_runs(limit=1)) == {names[0], names[9]}
    assert reads.unknown_runs() == [names[3]]
    assert reads.unfinished_runs() == [*names[:4], *names[7:]]
    assert reads.unfinished_runs(pipeline="pipelines/sales") == reads.unfinished_runs()
    assert reads.unfinished_runs(pipeline="pipelines/other") == []
    assert reads.unfinished_runs(environment="environments/dev") == reads.unfinished_runs()
    assert reads.unfinished_runs(environment="environments/prod") == [names[9]]
    with pytest.raises(ValueError, match="not by both"):
        reads.unfinished_runs(pipeline="pipelines/sales", environment=QA)


async def test_what_has_succeeded(store: Store, make_run: MakeRun) -> None:
    stage, artifact = "pipelines/sales/stages/qa", "artifacts/" + "a" * 64

    async def finish(version: str, at: int, state: Run.State = Run.STATE_SUCCEEDED) -> Run:
        run = make_run()
        await store.write(lambda tx: tx.insert_run(run))
        run.state, run.artifact, run.version, run.end_time.seconds = state, artifact, version, at
        return await store.write(lambda tx: tx.save_run(run, epoch=0))

    assert not store.reads.succeeded(stage, artifact)
    await finish("1.0", 100, Run.STATE_FAILED)
    assert not store.reads.succeeded(stage, artifact)
    assert store.reads.newest_success(stage, "Sales") is None
    newest = await finish("2.0", 300)
    older = await finish("1.0", 200)  # asked for later and finished earlier
    assert store.reads.succeeded(stage, artifact)
    assert not store.reads.succeeded("pipelines/sales/stages/prod", artifact)
    assert not store.reads.succeeded(stage, "artifacts/" + "b" * 64)
    assert store.reads.newest_success(stage, "Sales") == newest
    assert store.reads.newest_success(stage, "SALES", "1.0".__eq__) == older
    assert store.reads.newest_success_in(newest.target_environment, "SALES") == newest
    assert store.reads.newest_success(stage, "Sales", "3.0".__eq__) is None
    assert store.reads.newest_success(stage, "Other") is None


async def test_the_newest_success_is_the_last_in_the_record_though_the_clock_was_put_back(
    store: Store, make_run: MakeRun, note: Note
) -> None:
    """However far back, and whatever is told of a run after its end."""
    first = ""
    for at in range(900, 870, -1):
        run = make_run(version=f"{at}.0")
        first = first or run.name
        await store.write(partial(Transaction.insert_run, run=run, events=[note("asked")]))
        run.state, run.end_time.seconds = Run.STATE_SUCCEEDED, at
        last = await store.write(partial(Transaction.save_run, run=run, events=[note("ended")], epoch=0))
    late = store.reads.run(first)
    assert late is not None
    await store.write(lambda tx: tx.save_delivered(late, [note("the webhook was told")]))
    for found in (
        store.reads.newest_success(last.stage, "Sales"),
        store.reads.newest_success_in(last.target_environment, "Sales"),
    ):
        assert found is not None
        assert found == last


async def test_what_belongs_to_a_run(store: Store) -> None:
    reads, run = store.reads, "runs/x"
    found = [Finding(code=f"F{i}", step=Step.KIND_VALIDATE if i % 2 else Step.KIND_IMPORT) for i in range(6)]
    results = [ComponentResult(component=Subject(name=f"c{i}")) for i in range(3)]
    settings = [Setting(name=f"s{i}", sha256="0" * 64) for i in range(3)]

    def listed() -> list[ComponentResult]:
        rows, _ = reads.page("component_result", where=[("run", "=", run)], limit=100)
        return list(ListComponentResultsResponse.FromString(rows).results)

    def put(transaction: Transaction) -> None:
        transaction.put_output(run, "export", b"1")
        transaction.put_output(run, "export", b"2")
        transaction.put_output(run, "import.intent", b"3")
        transaction.put_output("runs/y", "export", b"4")
        transaction.add_findings(run, found[:3])
        transaction.add_findings(run, found[3:])
        transaction.add_findings("runs/y", found[:1])
        transaction.add_component_results(run, results)
        transaction.put_run_settings(run, [Setting(name="before")])
        transaction.put_run_settings(run, settings)

    await store.write(put)
    assert (reads.output(run, "export"), reads.output(run, "import.intent")) == (b"2", b"3")
    assert reads.findings(run) == found
    assert reads.findings(run, limit=2, after=1) == found[1:3]
    assert listed() == results
    assert reads.run_settings(run) == settings

    def clear(transaction: Transaction) -> None:
        transaction.delete_outputs(run, ["export", "none"])
        transaction.clear_findings(run, [Step.KIND_VALIDATE])
        transaction.add_findings(run, found[:1])
        transaction.clear_component_results(run)

    await store.write(clear)
    assert (reads.output(run, "export"), reads.output(run, "import.intent")) == (None, b"3")
    assert reads.output("runs/y", "export") == b"4"
    assert [finding.code for finding in reads.findings(run)] == ["F0", "F2", "F4", "F0"]
    assert reads.findings("runs/y") == found[:1]
    assert listed() == []
    with pytest.raises(ValueError, match="without their values"):
        await store.write(lambda tx: tx.put_run_settings(run, [Setting(name="s", value="secret")]))
