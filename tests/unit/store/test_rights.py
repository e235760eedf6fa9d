"""What the store says about rights is never older than the last commit that changed them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from pipelinehost.v1.resources_pb2 import Artifact, Environment, Pipeline, Run, Share, Stage
from pipelinehost_server.store import Reads, Store, Transaction

MakeRun = Callable[..., Run]
Change = Callable[[Transaction], object]

ADA, TEAM = "principals/ada", "principals/team"
SALES, QA = "pipelines/sales", "environments/qa"
FIRST, SECOND = (f"artifacts/{digit * 64}" for digit in "12")
RUN = f"runs/{1:026d}"


def pipeline(owner: str = "", **shares: Share.Access) -> Pipeline:
    return Pipeline(
        name=SALES,
        owner=owner,
        stages=[Stage(name=f"{SALES}/stages/qa", environment=QA)],
        shares=[Share(principal=f"principals/{slug}", access=access) for slug, access in shares.items()],
    )


def saved(artifact: str) -> Change:
    def change(tx: Transaction) -> None:
        run, epoch = tx.claim_run(RUN)
        run.artifact = artifact
        tx.save_run(run, epoch=epoch)

    return change


def answers(reads: Reads) -> Mapping[str, object]:
    """Everything that is asked about rights, for somebody alone and as a member of a group."""
    found: dict[str, object] = {f"requester of {RUN}": reads.run_of(RUN)}
    for who in ((ADA,), (ADA, TEAM)):
        found[f"{who} reach {SALES}"] = reads.reach(SALES, who)
        found[f"{who} see {QA}"] = reads.seen("environment", QA, who)
        for artifact in (FIRST, SECOND):
            found[f"{who} see {artifact}"] = reads.seen("artifact", artifact, who)
    return found


CHANGES: Mapping[str, Change] = {
    "the pipeline is shared": lambda tx: tx.put_pipeline(pipeline(team=Share.ACCESS_RUN)),
    "more is shared": lambda tx: tx.put_pipeline(pipeline(team=Share.ACCESS_EDIT)),
    "less is shared": lambda tx: tx.put_pipeline(pipeline(team=Share.ACCESS_UNSPECIFIED)),
    "it is theirs": lambda tx: tx.put_pipeline(pipeline(owner=ADA)),
    "another environment is used": lambda tx: tx.put_pipeline(Pipeline(name=SALES, owner=ADA)),
    "the environment is theirs to use": lambda tx: tx.put_environment(Environment(name=QA, makers=[ADA])),
    "it is no more": lambda tx: tx.put_environment(Environment(name=QA)),
    "they have uploaded": lambda tx: tx.put_uploader(SECOND, TEAM),
    "another artifact is exported": saved(SECOND),
    "and the first again": saved(FIRST),
    "the pipeline is gone": lambda tx: tx.delete_pipeline(SALES),
    "the pipeline is back": lambda tx: tx.put_pipeline(pipeline(owner=ADA)),
    "the environment is gone": lambda tx: tx.delete_environment(QA),
}


async def test_no_answer_about_rights_outlives_a_change(store: Store, make_run: MakeRun) -> None:
    def begin(tx: Transaction) -> None:
        for artifact in (FIRST, SECOND):
            tx.put_artifact(Artifact(name=artifact))
        tx.put_environment(Environment(name=QA))
        tx.insert_run(make_run(name=RUN, artifact=FIRST))

    assert answers(store.reads)[f"requester of {RUN}"] is None
    await store.write(begin)
    stored = Reads(store._read_database)
    unnoticed = []
    for what, change in CHANGES.items():
        before = dict(answers(store.reads))
        assert before == answers(stored), f"before {what}"
        await store.write(change)
        after = answers(store.reads)
        assert after == answers(stored), what
        if after == before:
            unnoticed.append(what)
    assert unnoticed == [], "these changes change nothing, so they show nothing"


async def test_an_answer_about_rights_is_given_again_without_the_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.write(CHANGES["it is theirs"])
    await store.write(CHANGES["the environment is theirs to use"])
    first = (store.reads.reach(SALES, (ADA,)), store.reads.seen("environment", QA, [ADA]))

    def execute(*_: Any) -> Any:
        raise AssertionError("the store is asked")

    monkeypatch.setattr(store.reads, "_execute", execute)
    assert (store.reads.reach(SALES, [ADA]), store.reads.seen("environment", QA, (ADA,))) == first
    with pytest.raises(AssertionError):
        store.reads.seen("environment", QA, (TEAM,))


async def test_a_change_of_rights_that_is_undone_counts_for_nothing(store: Store) -> None:
    def fails(tx: Transaction) -> None:
        tx.put_pipeline(pipeline(owner=ADA))
        raise ValueError("no")

    before = store.reads.rights_changed
    with pytest.raises(ValueError, match="no"):
        await store.write(fails)
    assert store.reads.rights_changed == before
    await store.write(CHANGES["it is theirs"])
    assert store.reads.rights_changed > before
