"""What a request names, looked up in the host's own record, and what that record forbids.

Callers name pipelines, stages, environments and artifacts; here the names become messages, what is left out
is chosen (the development environment, the stage that is due), and the rules say all that stands against it.
The same look-up serves a deployment, its rehearsal and a restore, within a transaction or without one:
nothing here writes. Only the choice of the due stage may ask an environment, for the version that it holds.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from pipelinehost import names
from pipelinehost.errors import FailedPrecondition, InvalidArgument, NotFound, Violation, reason_name
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.pipeline_host_pb2 import DeployRequest
from pipelinehost.v1.resources_pb2 import Artifact, Environment, Finding, Pipeline, Run, Stage, Step
from pipelinehost_dataverse.webapi import DataverseError
from pipelinehost_server import named, rules
from pipelinehost_server.config import Config
from pipelinehost_server.deployment.environments import Environments, as_host_error
from pipelinehost_server.deployment.findings import finding, subject
from pipelinehost_server.deployment.packages import same_version
from pipelinehost_server.store import Reads


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with its names looked up."""

    pipeline: Pipeline
    stage: Stage
    target: Environment
    source: Environment | None
    """The development environment to export from, or that the artifact came from."""
    artifact: Artifact | None
    """None: it is exported first (or, for a later stage, there is none yet)."""
    solution: str


def resolve(reads: Reads, request: DeployRequest, held: str = "") -> Asked:
    """Look up everything that a request names, or means by leaving it out.

    Args:
        reads: the store, or a transaction on it.
        request: what is asked; without a stage it means the next one that is due.
        held: see ``held_version``.

    Raises:
        NotFound: no such pipeline, stage, environment or artifact.
        InvalidArgument: what to deploy is not said, or contradicts itself.
        FailedPrecondition: which development environment is meant is not clear, or no stage is due.
    """
    if request.loss_sha256 and not re.fullmatch(r"[0-9a-f]{64}", request.loss_sha256):
        what = "is no SHA-256 in hexadecimal; take it from the summary of a validation"
        raise InvalidArgument(
            ErrorReason.ERROR_REASON_INVALID_FIELD,
            f"loss_sha256: {what}",
            violations=[Violation("loss_sha256", what)],
        )
    pipeline = named.pipeline(reads, request.pipeline, "pipeline")
    stage_name = request.stage or _due_stage(reads, pipeline, request, request.version or held)
    index = rules.stage_index(pipeline, stage_name)
    if index is None:
        names.parse("stage", stage_name, "stage")
        raise named.absent(stage_name)
    stage = pipeline.stages[index]
    target = named.environment(reads, stage.environment)
    artifact: Artifact | None = None
    source: Environment | None = None
    match request.WhichOneof("source"):
        case "artifact":
            artifact = named.artifact(reads, request.artifact, "artifact")
        case "solution" if request.solution and index == 0:
            source = _source(reads, pipeline, request)
        case "solution" if request.solution:
            done = _newest_success(reads, pipeline.stages[index - 1], request.solution, request.version)
            artifact = reads.artifact(done.artifact) if done is not None else None
        case _:
            raise required("solution", "name a solution or an artifact")
    if artifact is not None and artifact.source_environment:
        source = reads.environment(artifact.source_environment)
    if artifact is not None and request.version and not same_version(request.version, artifact.version):
        raise InvalidArgument(
            ErrorReason.ERROR_REASON_INVALID_FIELD,
            f"version: {artifact.name} is version {artifact.version}, not {request.version}",
            violations=[Violation("version", f"the artifact is version {artifact.version}")],
        )
    solution = artifact.solution if artifact is not None else request.solution
    return Asked(pipeline, stage, target, source, artifact, solution)


async def held_version(reads: Reads, environments: Environments, request: DeployRequest) -> str:
    """The version in the development environment, where it takes that to choose the stage; else nothing.

    Raises:
        NotFound: no such pipeline, or its development environment holds no such solution.
        FailedPrecondition: which development environment is meant is not clear, or it cannot be asked.
    """
    if not asks_environment(request):
        return ""
    source = _source(reads, named.pipeline(reads, request.pipeline, "pipeline"), request)
    try:
        api = await environments.answering(source)
        installed = await api.solution(request.solution)
    except DataverseError as error:
        raise as_host_error(error, source) from error
    if installed is None:
        raise NotFound(
            ErrorReason.ERROR_REASON_SOLUTION_NOT_FOUND,
            f"{rules.title(source)} holds no solution {request.solution}.",
            remedy=f"See `pipelinehost environment solutions {names.slug(source.name)}`.",
            metadata={"resource": source.name},
        )
    return str(installed.version)


def asks_environment(request: DeployRequest) -> bool:
    """Whether only an environment can say which stage is meant."""
    return not (request.stage or request.artifact or request.version)


def deploy_violations(config: Config, reads: Reads, asked: Asked, version: str = "") -> list[Violation]:
    """All reasons that the host's own record gives against a deployment.

    Args:
        config: of the host.
        reads: the store, or a transaction on it.
        asked: what is asked for.
        version: that was asked for; of an artifact its own counts.
    """
    index = rules.stage_index(asked.pipeline, asked.stage.name) or 0
    before = asked.pipeline.stages[index - 1] if index else None
    found = rules.may_deploy(
        config,
        asked.pipeline,
        asked.stage,
        source=asked.source,
        target=asked.target,
        artifact=asked.artifact,
        succeeded_before=before is not None
        and asked.artifact is not None
        and reads.succeeded(before.name, asked.artifact.name),
    )
    artifact = asked.artifact
    if artifact is not None and artifact.HasField("block"):
        told = (
            f"{artifact.solution} {artifact.version} was blocked by {artifact.block.principal} "
            f"({artifact.block.reason})"
        )
        remedy = "deploy another version, or let an administrator unblock it"
        code = reason_name(ErrorReason.ERROR_REASON_ARTIFACT_BLOCKED)
        found.append(Violation(artifact.name, f"{told}: {remedy}", code))
    version = artifact.version if artifact is not None else version
    hold = rules.hold_of(asked.stage, asked.solution)
    if hold is not None and version and not same_version(hold.version, version):
        where = rules.title(asked.stage)
        told = (
            f"{where} is held on version {hold.version} of {asked.solution} ({hold.reason}), "
            f"and this is {version}"
        )
        remedy = f"deploy version {hold.version}, or let who may change the pipeline release it"
        code = reason_name(ErrorReason.ERROR_REASON_STAGE_HELD)
        found.append(Violation(asked.stage.name, f"{told}: {remedy}", code))
    return found


def withdrawn(reads: Reads, run: Run) -> list[Finding]:
    """What somebody has said since a run was asked for that keeps it from its import for good.

    Its artifact was blocked, or its stage is held on another version. A restore is none of their business.
    """
    if not run.stage:
        return []
    step = next((s.kind for s in run.steps if s.state != Step.STATE_SUCCEEDED), Step.KIND_VALIDATE)
    about, found = subject("solution", run.solution), list[Finding]()
    artifact = reads.artifact(run.artifact) if run.artifact else None
    if artifact is not None and artifact.HasField("block"):
        found.append(
            finding(
                "ARTIFACT_BLOCKED",
                about,
                step=step,
                name=run.solution,
                version=artifact.version,
                principal=artifact.block.principal,
                reason=artifact.block.reason,
            )
        )
    stage = rules.stage_of(reads.pipeline(run.pipeline), run.stage)
    version = run.version or run.requested_version
    if stage is not None and version:
        found += hold_findings(stage, run.solution, version, step)
    return found


def hold_findings(
    stage: Stage, solution: str, version: str, step: Step.Kind = Step.KIND_VALIDATE
) -> list[Finding]:
    """What a hold of a stage has against a version of a solution."""
    hold = rules.hold_of(stage, solution)
    if hold is None or same_version(hold.version, version):
        return []
    return [
        finding(
            "STAGE_HELD",
            subject("solution", solution),
            step=step,
            stage=rules.title(stage),
            held=hold.version,
            name=solution,
            version=version,
            reason=hold.reason,
        )
    ]


def restore_violations(artifact: Artifact, environment: Environment) -> list[Violation]:
    """All reasons against a restore of the artifact's unmanaged package into the environment."""
    found = []
    if artifact.managed and not artifact.source_sha256:
        found.append(
            Violation(
                artifact.name,
                f"{artifact.solution} {artifact.version} was uploaded as a managed package: there is no "
                "unmanaged one to restore; upload the unmanaged export",
                reason_name(ErrorReason.ERROR_REASON_ARTIFACT_MANAGED),
            )
        )
    if environment.kind != Environment.KIND_DEVELOPMENT:
        found.append(
            Violation(
                environment.name,
                f"{rules.title(environment)} is a target: only managed solutions arrive there; choose a "
                "development environment",
                reason_name(ErrorReason.ERROR_REASON_ENVIRONMENT_KIND),
            )
        )
    return found + rules.taken_violations([environment])


def leads_there(reads: Reads, run: Run) -> bool:
    """Whether the stage of a run still leads to its target; another pipeline may have its name by now."""
    pipeline = reads.pipeline(run.pipeline) or Pipeline()
    return any(s.name == run.stage and s.environment == run.target_environment for s in pipeline.stages)


def required(field: str, what: str) -> InvalidArgument:
    """The refusal of a request without a field that it needs."""
    return InvalidArgument(
        ErrorReason.ERROR_REASON_INVALID_FIELD,
        f"{field}: is required; {what}",
        violations=[Violation(field, f"is required; {what}")],
    )


def forbidden(violations: Sequence[Violation]) -> FailedPrecondition:
    """One refusal that lists every reason; its own reason is the first.

    It often begins with a name, so that its first letter is left as it is.
    """
    first = violations[0]
    return FailedPrecondition(
        cast("ErrorReason", ErrorReason.Value(f"ERROR_REASON_{first.code}")),
        f"{first.description}.",
        violations=violations,
        metadata={"resource": first.subject},
    )


def _due_stage(reads: Reads, pipeline: Pipeline, request: DeployRequest, version: str) -> str:
    artifact = request.artifact
    if not artifact:
        first = pipeline.stages[0]
        before = _newest_success(reads, first, request.solution, version)
        if before is None:
            return first.name
        artifact = before.artifact
    due = rules.due_stage(pipeline, lambda stage: reads.succeeded(stage.name, artifact))
    if due is None:
        raise FailedPrecondition(
            ErrorReason.ERROR_REASON_NOTHING_DUE,
            f"Every stage of {rules.title(pipeline)} has "
            + (f"{request.solution} {version}." if request.solution else f"{artifact}."),
            remedy="Raise the version in the development environment, or name a stage.",
        )
    return due.name


def _newest_success(reads: Reads, stage: Stage, solution: str, version: str) -> Run | None:
    """The last success in a stage; of that version, however it is written, where one is given."""
    fits = functools.partial(same_version, version) if version else None
    return reads.newest_success(stage.name, solution, fits)


def _source(reads: Reads, pipeline: Pipeline, request: DeployRequest) -> Environment:
    linked = pipeline.development_environments
    wanted = request.development_environment
    if wanted and wanted not in linked:
        raise InvalidArgument(
            ErrorReason.ERROR_REASON_INVALID_FIELD,
            f"development_environment: {wanted} is not linked to {rules.title(pipeline)}",
            violations=[
                Violation("development_environment", f"is none of {', '.join(linked) or 'no environments'}")
            ],
        )
    if not wanted and len(linked) != 1:
        what = f"has {len(linked)} development environments" if linked else "has no development environment"
        raise FailedPrecondition(
            ErrorReason.ERROR_REASON_SOURCE_AMBIGUOUS,
            f"{rules.title(pipeline)} {what}.",
            remedy=f"Name one of {', '.join(linked)}."
            if linked
            else "Link one, or deploy an uploaded artifact.",
            metadata={"resource": pipeline.name},
        )
    return named.environment(reads, wanted or linked[0], "development_environment")
