"""Rules: every decision of the host that needs no environment."""

from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelinehost.v1.resources_pb2 import Artifact, Environment, Gate, Pipeline, Run, Stage, Step
from pipelinehost_server import rules
from pipelinehost_server.config import Config

PIPELINE = Pipeline(
    name="pipelines/sales",
    stages=[
        Stage(name="pipelines/sales/stages/qa", environment="environments/qa"),
        Stage(name="pipelines/sales/stages/production", environment="environments/production"),
    ],
)
DEV = Environment(name="environments/dev", kind=Environment.KIND_DEVELOPMENT)
QA = Environment(name="environments/qa", kind=Environment.KIND_TARGET)
MANAGED = Artifact(name="artifacts/" + "0" * 64, solution="Sales", version="1.0", managed=True)
STATES = st.sampled_from([s for s in Run.State.values() if s])


def codes(
    *,
    config: Config | None = None,
    stage: int = 0,
    source: Environment | None = DEV,
    target: Environment = QA,
    artifact: Artifact | None = MANAGED,
    before: bool = False,
) -> list[str]:
    violations = rules.may_deploy(
        config or Config(folder=Path("unused")),
        PIPELINE,
        PIPELINE.stages[stage],
        source=source,
        target=target,
        artifact=artifact,
        succeeded_before=before,
    )
    return [v.code for v in violations]


def test_the_first_stage_needs_no_success_before_it() -> None:
    assert codes(stage=0) == []


def test_a_later_stage_needs_a_success_of_the_same_artifact() -> None:
    assert codes(stage=1, before=True) == []
    assert codes(stage=1, before=False) == ["STAGE_OUT_OF_ORDER"]
    assert codes(stage=1, artifact=None) == ["STAGE_OUT_OF_ORDER"]


def test_unmanaged_packages_are_not_deployed() -> None:
    unmanaged = Artifact(name=MANAGED.name, solution="Sales", version="1.0", managed=False)
    assert codes(artifact=unmanaged) == ["ARTIFACT_UNMANAGED"]


def test_all_reasons_come_at_once() -> None:
    unmanaged = Artifact(name=MANAGED.name, solution="Sales", version="1.0", managed=False)
    far = Environment(name="environments/qa", region="asia")
    assert codes(
        config=Config(folder=Path("unused"), region="europe"), stage=1, artifact=unmanaged, target=far
    ) == ["REGION_MISMATCH", "ARTIFACT_UNMANAGED", "STAGE_OUT_OF_ORDER"]


@pytest.mark.parametrize(
    ("host", "source", "target", "allowed", "expected"),
    [
        ("", "", "", False, 0),
        ("", "europe", "europe", False, 0),
        ("", "europe", "asia", False, 1),
        ("europe", "europe", "asia", False, 1),
        ("europe", "asia", "asia", False, 2),
        ("europe", "", "", False, 0),
        ("europe", "asia", "asia", True, 0),
    ],
)
def test_regions(host: str, source: str, target: str, allowed: bool, expected: int) -> None:
    config = Config(folder=Path("unused"), region=host, allow_cross_region=allowed)
    found = rules.region_violations(
        config,
        [
            Environment(name="environments/a", region=source),
            Environment(name="environments/b", region=target),
        ],
    )
    assert len(found) == expected


def test_the_due_stage_is_the_first_without_a_success() -> None:
    done: set[str] = set()
    assert rules.due_stage(PIPELINE, lambda s: s.name in done) == PIPELINE.stages[0]
    done.add(PIPELINE.stages[0].name)
    assert rules.due_stage(PIPELINE, lambda s: s.name in done) == PIPELINE.stages[1]
    done.add(PIPELINE.stages[1].name)
    assert rules.due_stage(PIPELINE, lambda s: s.name in done) is None


@given(before=STATES, after=STATES)
def test_finished_states_are_left_only_by_a_retry(before: Run.State, after: Run.State) -> None:
    if before in rules.FINISHED and before != after and rules.may_follow(before, after):
        assert (before, after) == (Run.STATE_FAILED, Run.STATE_QUEUED)


@given(before=STATES)
def test_every_state_has_its_row(before: Run.State) -> None:
    assert before in rules.TRANSITIONS


def gated(*slugs: str, **gates: tuple[int, str]) -> Pipeline:
    """Stages ``qa`` or ``qa=environment``, some with a gate: how many of which approvers."""
    made = Pipeline(name="pipelines/sales")
    for entry in slugs:
        slug, _, environment = entry.partition("=")
        stage = made.stages.add(
            name=f"pipelines/sales/stages/{slug}", environment=f"environments/{environment or slug}"
        )
        if slug in gates:
            required, approvers = gates[slug]
            named = [f"principals/{a}" for a in approvers]
            stage.gates.add(kind=Gate.KIND_APPROVAL, required=required, approvers=named)
    return made


GATED = gated("qa", "uat", "prod", uat=(2, "abc"))


@pytest.mark.parametrize(
    "after",
    [
        GATED,
        gated("qa", "uat", "prod", uat=(3, "abc")),
        gated("qa", "uat", "prod", uat=(2, "ab")),
        gated("qa", "uat", "prod", uat=(2, "abc"), prod=(1, "x")),
        gated("uat", "qa", "prod", uat=(2, "abc")),
        gated("qa", "uat", "prod=other", uat=(2, "abc")),
        gated("qa", "uat", uat=(2, "abc")),
        gated("new", "uat", "last", "prod", uat=(2, "abc")),
    ],
)
def test_what_leaves_approvals_as_strong_as_they_were(after: Pipeline) -> None:
    assert rules.weakened_gates(GATED, after) == []


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (gated("qa", "uat", "prod"), "the approval gate of the stage uat would be gone"),
        (gated("qa", "uat", "prod", uat=(1, "abc")), "would ask 1 instead of 2"),
        (gated("qa", "uat", "prod", uat=(0, "abc")), "would ask 1 instead of 2"),
        (gated("qa", "uat", "prod", uat=(2, "abd")), "would ask principals/d, who was not asked before"),
        (gated("qa", "prod"), "the stage uat would be gone, and its gates with it"),
        (gated("qa", "uat=x", "prod", uat=(2, "abc")), "would no longer guard environments/uat"),
        (gated("qa", "uat2=uat", "prod"), "the stage uat would be gone"),
        (
            gated("prod", "qa", "uat", uat=(2, "abc")),
            "environments/prod would no longer come after",
        ),
        (gated("first=prod", "qa", "uat", uat=(2, "abc")), "environments/prod would no longer come after"),
    ],
)
def test_what_weakens_approvals(after: Pipeline, told: str) -> None:
    (found,) = rules.weakened_gates(GATED, after)
    assert told in found


def test_another_kind_of_gate_is_no_substitute() -> None:
    other = gated("qa", "uat", "prod", uat=(2, "abc"))
    other.stages[1].gates[0].kind = Gate.KIND_PRE_DEPLOYMENT
    assert rules.weakened_gates(GATED, other) == ["the approval gate of the stage uat would be gone"]
    assert rules.weakened_gates(gated("qa", "uat"), other) == []


def cast_state(number: int) -> Run.State:
    return cast("Run.State", number)  # the stubs say int


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("imported", [False, True])
def test_who_decides_about_a_cancel(sent: bool, imported: bool) -> None:
    """Until the import is sent the host, then the environment, and nobody when it is done."""
    found = {}
    for state in map(cast_state, Run.State.values()):
        run = Run(state=state, steps=rules.deployment_steps(export=False))
        run.steps[1].state = Step.STATE_SUCCEEDED if imported else Step.STATE_RUNNING
        after = rules.cancelled(run, sent=sent)
        if after is not None:
            assert rules.may_follow(state, after)
            found[rules.state_name(state)] = rules.state_name(after)
    before = ("QUEUED", "VALIDATING", "AWAITING_GATE", "SCHEDULED", "WAITING_FOR_TARGET")
    expected = dict.fromkeys(before, "CANCELLED")
    if not imported:
        expected["DEPLOYING"] = "CANCELLING" if sent else "CANCELLED"
    assert found == expected


def test_an_upload_has_nothing_to_export() -> None:
    assert next(s.kind for s in rules.deployment_steps(export=False)) == Step.KIND_VALIDATE
    assert next(s.kind for s in rules.deployment_steps(export=True)) == Step.KIND_EXPORT
