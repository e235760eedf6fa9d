"""Every decision of the host that needs no environment: pure functions over messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from pipelinehost import names
from pipelinehost.errors import Violation, reason_name
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Artifact, Environment, Freeze, Gate, Pipeline, Run, Stage, Step
from pipelinehost_server.config import Config

FINISHED = frozenset(
    {
        Run.STATE_SUCCEEDED,
        Run.STATE_FAILED,
        Run.STATE_REJECTED,
        Run.STATE_EXPIRED,
        Run.STATE_CANCELLED,
    }
)
"""States that a run ends in; only FAILED can be left, by a retry."""

_WORKING = (Run.STATE_FAILED, Run.STATE_CANCELLED)
TRANSITIONS: Mapping[Run.State, frozenset[Run.State]] = {
    Run.STATE_QUEUED: frozenset(
        {
            Run.STATE_VALIDATING,
            Run.STATE_AWAITING_GATE,
            Run.STATE_SCHEDULED,
            Run.STATE_WAITING_FOR_TARGET,
            Run.STATE_DEPLOYING,
            *_WORKING,
        }
    ),
    Run.STATE_VALIDATING: frozenset(
        {
            Run.STATE_AWAITING_GATE,
            Run.STATE_SCHEDULED,
            Run.STATE_WAITING_FOR_TARGET,
            Run.STATE_DEPLOYING,
            *_WORKING,
        }
    ),
    Run.STATE_AWAITING_GATE: frozenset(
        {Run.STATE_QUEUED, Run.STATE_SCHEDULED, Run.STATE_REJECTED, Run.STATE_EXPIRED, *_WORKING}
    ),
    Run.STATE_SCHEDULED: frozenset({Run.STATE_QUEUED, Run.STATE_AWAITING_GATE, *_WORKING}),
    Run.STATE_WAITING_FOR_TARGET: frozenset(
        {
            Run.STATE_VALIDATING,
            Run.STATE_AWAITING_GATE,
            Run.STATE_SCHEDULED,
            Run.STATE_DEPLOYING,
            *_WORKING,
        }
    ),
    # Back to the gates, to waiting or to validation only as long as nothing was sent.
    Run.STATE_DEPLOYING: frozenset(
        {
            Run.STATE_SUCCEEDED,
            Run.STATE_UNKNOWN,
            Run.STATE_CANCELLING,
            Run.STATE_QUEUED,
            Run.STATE_AWAITING_GATE,
            Run.STATE_SCHEDULED,
            *_WORKING,
        }
    ),
    Run.STATE_CANCELLING: frozenset({Run.STATE_DEPLOYING, Run.STATE_UNKNOWN, *_WORKING}),
    Run.STATE_UNKNOWN: frozenset({Run.STATE_DEPLOYING, Run.STATE_CANCELLING, *_WORKING}),
    Run.STATE_FAILED: frozenset({Run.STATE_QUEUED}),
    Run.STATE_SUCCEEDED: frozenset(),
    Run.STATE_REJECTED: frozenset(),
    Run.STATE_EXPIRED: frozenset(),
    Run.STATE_CANCELLED: frozenset(),
}
"""Which state may follow which."""


_BEFORE_IMPORT = frozenset(
    {
        Run.STATE_QUEUED,
        Run.STATE_VALIDATING,
        Run.STATE_AWAITING_GATE,
        Run.STATE_SCHEDULED,
        Run.STATE_WAITING_FOR_TARGET,
    }
)
_GATES = {
    Gate.KIND_PRE_EXPORT: "the pre-export gate",
    Gate.KIND_APPROVAL: "the approval gate",
    Gate.KIND_PRE_DEPLOYMENT: "the pre-deployment gate",
}
GATE_SECONDS = 7 * 24 * 3600
"""How long a gate waits that says nothing of it."""
MOST_GATE_SECONDS = 366 * 24 * 3600
"""How long a gate may wait."""


def may_follow(before: Run.State, after: Run.State) -> bool:
    """Whether a run may go from one state to another; staying is always allowed."""
    return before == after or after in TRANSITIONS.get(before, frozenset())


def cancelled(run: Run, *, sent: bool) -> Run.State | None:
    """What a run becomes when somebody cancels it; None where that cannot be.

    Until its import is sent the host decides alone. Afterwards it can only ask the environment, and only
    while the import is under way.

    Args:
        run: as it is.
        sent: whether its import may have been received.
    """
    if run.state in _BEFORE_IMPORT:
        return Run.STATE_CANCELLED
    done = any(s.kind == Step.KIND_IMPORT and s.state == Step.STATE_SUCCEEDED for s in run.steps)
    if run.state != Run.STATE_DEPLOYING or done:
        return None
    return Run.STATE_CANCELLING if sent else Run.STATE_CANCELLED


def schedulable(run: Run, *, sent: bool) -> bool:
    """Whether a run may be given another time: a deployment whose import was not sent.

    Args:
        run: as it is.
        sent: whether its import may have been received.
    """
    return bool(run.stage) and not sent and run.state in (*_BEFORE_IMPORT, Run.STATE_DEPLOYING)


def timestamp(nanoseconds: int) -> Timestamp:
    """Nanoseconds since 1970 as messages have them."""
    at = Timestamp()
    at.FromNanoseconds(nanoseconds)
    return at


def state_name(state: Run.State) -> str:
    """A state as people read it: ``WAITING_FOR_TARGET``."""
    return Run.State.Name(state).removeprefix("STATE_")


def redeploy_command(run: Run) -> str:
    """What to type to see what a run would lose, and to accept that."""
    where = f"-p {names.slug(run.pipeline)} --stage {names.slug(run.stage)}"
    return f"pipelinehost redeploy {run.solution} {where} --artifact {run.artifact}"


def gate_name(kind: Gate.Kind) -> str:
    """A gate as people call it."""
    return _GATES[kind]


def gate_seconds(gate: Gate) -> int:
    """How long a run waits at a gate."""
    return gate.timeout_seconds or GATE_SECONDS


def same_person(one: str, other: str) -> bool:
    """Whether two names mean the same; the first version named people without the prefix."""
    return one.removeprefix("principals/") == other.removeprefix("principals/")


def weakened_gates(before: Pipeline, after: Pipeline) -> list[str]:
    """Where a change of a pipeline lets a run pass with less approval than before; in words.

    A gate is weaker with fewer approvals or with approvers that were not named, and gone with its stage or
    with the target that it guarded. It guards the targets of all later stages too, because an artifact comes
    to them by way of its own. More approvals, fewer approvers and other times weaken nothing.
    """
    found: list[str] = []
    places = {stage.environment: i for i, stage in enumerate(after.stages)}
    for i, stage in enumerate(before.stages):
        if not stage.gates:
            continue
        index, where = stage_index(after, stage.name), f"the stage {names.slug(stage.name)}"
        if index is None:
            found.append(f"{where} would be gone, and its gates with it")
            continue
        kept = after.stages[index]
        if kept.environment != stage.environment:
            found.append(f"{where} would no longer guard {stage.environment}")
        found += [
            f"{later.environment} would no longer come after {where}"
            for later in before.stages[i + 1 :]
            if places.get(later.environment, index) < index
        ]
        for gate in stage.gates:
            now = next((g for g in kept.gates if g.kind == gate.kind), None)
            what = f"{_GATES[gate.kind]} of {where}"
            if now is None:
                found.append(f"{what} would be gone")
                continue
            if (now.required or 1) < (gate.required or 1):
                found.append(f"{what} would ask {now.required or 1} instead of {gate.required or 1}")
            if added := [name for name in now.approvers if name not in gate.approvers]:
                found.append(f"{what} would ask {', '.join(added)}, who was not asked before")
    return found


def stage_index(pipeline: Pipeline, stage: str) -> int | None:
    """Position of the stage of that full name, from 0; None where the pipeline has none."""
    return next((i for i, s in enumerate(pipeline.stages) if s.name == stage), None)


def stage_of(pipeline: Pipeline | None, stage: str) -> Stage | None:
    """The stage of that full name; None where the pipeline has none, or there is no pipeline."""
    return next((s for s in pipeline.stages if s.name == stage), None) if pipeline is not None else None


def due_stage(pipeline: Pipeline, succeeded: Callable[[Stage], bool]) -> Stage | None:
    """The first stage in which the artifact in question has not succeeded; None where all have it."""
    return next((s for s in pipeline.stages if not succeeded(s)), None)


def frozen_pipeline(freeze: Freeze) -> str:
    """The pipeline that a freeze is of, or whose stage it is of; empty where it is of the whole host."""
    return "/".join(freeze.scope.split("/")[:2])


def hold_of(stage: Stage, solution: str) -> Stage.Hold | None:
    """What keeps a solution at a version in a stage; names of solutions have no case."""
    return next((h for h in stage.holds if h.solution.casefold() == solution.casefold()), None)


def deployment_steps(*, export: bool) -> list[Step]:
    """The steps of a deployment, all pending; an upload has nothing to export."""
    kinds = [Step.KIND_VALIDATE, Step.KIND_IMPORT, Step.KIND_PUBLISH, Step.KIND_VERIFY]
    if export:
        kinds.insert(0, Step.KIND_EXPORT)
    return [Step(kind=k, state=Step.STATE_PENDING) for k in kinds]


def restore_steps() -> list[Step]:
    """The steps of a restore, all pending."""
    kinds = (Step.KIND_VALIDATE, Step.KIND_IMPORT, Step.KIND_PUBLISH, Step.KIND_VERIFY)
    return [Step(kind=k, state=Step.STATE_PENDING) for k in kinds]


def may_deploy(
    config: Config,
    pipeline: Pipeline,
    stage: Stage,
    *,
    source: Environment | None,
    target: Environment,
    artifact: Artifact | None,
    succeeded_before: bool,
) -> list[Violation]:
    """All reasons that the host's own record gives against a deployment; none means it may begin.

    Args:
        config: region rules of the host.
        pipeline: as configured now.
        stage: one of its stages.
        source: the development environment; None for an upload.
        target: the stage's environment.
        artifact: what would be deployed; None where it is exported first.
        succeeded_before: whether this artifact has a success in the stage before; of no matter for the first.
    """
    used = [e for e in (source, target) if e is not None]
    found = [*region_violations(config, used), *taken_violations(used)]
    if artifact is not None and not artifact.managed:
        found.append(
            _violation(
                ErrorReason.ERROR_REASON_ARTIFACT_UNMANAGED,
                artifact.name,
                f"{artifact.solution} {artifact.version} is an unmanaged package; only managed packages "
                "leave development: restore it into a development environment and deploy the "
                "solution from there",
            )
        )
    index = stage_index(pipeline, stage.name)
    if index and not succeeded_before:
        before = pipeline.stages[index - 1]
        what = f"{artifact.solution} {artifact.version}" if artifact is not None else "the solution"
        found.append(
            _violation(
                ErrorReason.ERROR_REASON_STAGE_OUT_OF_ORDER,
                stage.name,
                f"{what} has not succeeded in the stage before, {title(before)}: deploy it there first",
            )
        )
    return found


def region_violations(config: Config, environments: Sequence[Environment]) -> list[Violation]:
    """Environments that lie in another region than the host or each other, unless the host allows that.

    An environment or a host without a region is taken to be in the right one.
    """
    if config.allow_cross_region:
        return []
    home = config.region or next((e.region for e in environments if e.region), "")
    return [
        _violation(
            ErrorReason.ERROR_REASON_REGION_MISMATCH,
            e.name,
            f"{title(e)} is in the region {e.region}, not in {home}: use an environment of {home}, or let "
            "the host allow runs across regions (serve --allow-cross-region)",
        )
        for e in environments
        if e.region and e.region != home
    ]


def taken_violations(environments: Sequence[Environment]) -> list[Violation]:
    """Environments that belong to another host, as far as this one has noticed."""
    return [
        _violation(
            ErrorReason.ERROR_REASON_ENVIRONMENT_TAKEN,
            e.name,
            f"{title(e)} belongs to {e.taken_by} by now: take it over (pipelinehost environment take-over "
            f"{names.slug(e.name)} --reason TEXT); or look again, once that host has let it go "
            f"(pipelinehost environment check {names.slug(e.name)})",
        )
        for e in environments
        if e.taken_by
    ]


def title(thing: Pipeline | Stage | Environment) -> str:
    """What people call it: the display name, else the id."""
    return thing.display_name or names.slug(thing.name)


def _violation(reason: ErrorReason, subject: str, description: str) -> Violation:
    return Violation(subject, description, reason_name(reason))
