"""What callers ask about deployments: deploy, restore, cancel, retry, resolve, validate, describe."""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing

from pipelinehost import names
from pipelinehost.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Violation,
)
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.pipeline_host_pb2 import (
    ApproveRequest,
    CancelRunRequest,
    DeployRequest,
    DescribeSolutionRequest,
    DescribeSolutionResponse,
    RejectRequest,
    RescheduleRunRequest,
    ResolveRunRequest,
    RestoreArtifactRequest,
    RetryRunRequest,
    ValidateDeploymentResponse,
)
from pipelinehost.v1.resources_pb2 import (
    Artifact,
    Component,
    DeploymentSettings,
    Environment,
    Event,
    Finding,
    ImportMode,
    Progress,
    Requirement,
    Run,
    RunChange,
    Setting,
    Stage,
    Step,
)
from pipelinehost_dataverse.solution import Solution
from pipelinehost_dataverse.webapi import DataverseError, Wait, WebApi
from pipelinehost_server import named, rules
from pipelinehost_server.blobs import Blobs
from pipelinehost_server.config import Config
from pipelinehost_server.deployment import gates, identities, schedule
from pipelinehost_server.deployment.asked import (
    Asked,
    asks_environment,
    deploy_violations,
    forbidden,
    held_version,
    hold_findings,
    leads_there,
    required,
    resolve,
    restore_violations,
)
from pipelinehost_server.deployment.dispatcher import Dispatcher
from pipelinehost_server.deployment.environments import Environments, as_host_error
from pipelinehost_server.deployment.findings import subject
from pipelinehost_server.deployment.journal import (
    CANCEL,
    IMPORT_NOTES,
    WISHED,
    Journal,
    end_cancelled,
    moved,
    settings_key,
)
from pipelinehost_server.deployment.packages import Packages, Stopped
from pipelinehost_server.deployment.run import Execution
from pipelinehost_server.deployment.validation import (
    Plan,
    Validation,
    environment_finding,
    merge_settings,
    wait_words,
)
from pipelinehost_server.encryption import Encryption
from pipelinehost_server.store import Once, Reads, Store, Transaction

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_TEN_BITS = [one + other for one in _CROCKFORD for other in _CROCKFORD]


class Deployment:
    """The runs of a host: asked for here, advanced by the dispatcher."""

    def __init__(
        self,
        config: Config,
        store: Store,
        blobs: Blobs,
        encryption: Encryption,
        environments: Environments,
        may_go_on: Callable[[Reads, Run], bool],
        clock: gates.Clock = time.time_ns,
    ) -> None:
        self._clock = clock
        self._config = config
        self._store = store
        self._encryption = encryption
        self._environments = environments
        self._may_go_on = may_go_on
        self._packages = Packages(store, blobs)
        self._dispatcher = Dispatcher(store, config.advancing, self._execution, clock)

    def _execution(self, journal: Journal) -> Execution:
        return Execution(
            journal,
            self._store,
            self._packages,
            self._environments,
            self._encryption,
            self._may_go_on,
            self._clock,
        )

    def start(self) -> None:
        """Go on with all unfinished runs, and begin new ones as they come."""
        self._dispatcher.start()

    async def stop(self) -> None:
        """Let go of all runs; they go on when the host is started again."""
        await self._dispatcher.stop()

    async def deploy(self, request: DeployRequest, caller: str, once: Once) -> Run:
        """Ask for a deployment; the run is durable when this returns.

        Raises:
            NotFound: no such pipeline, stage, environment or artifact.
            InvalidArgument: what to deploy is not said, or not clearly.
            FailedPrecondition: the host's own record forbids it; every reason is listed.
        """
        # Before an environment is asked: by now it may be away, or hold another version.
        reads = self._store.reads
        if asks_environment(request) and (answered := once.recall(Run, reads)) is not None:
            return answered
        held = await held_version(reads, self._environments, request)
        run_name = names.run(new_run_id())
        settings = request.settings if request.HasField("settings") else None
        sealed = (
            self._encryption.seal(settings.SerializeToString(), settings_key(run_name)) if settings else None
        )

        def work(tx: Transaction) -> Run:
            asked = resolve(tx, request, held)
            now = self._clock()
            violations = deploy_violations(self._config, tx, asked, request.version)
            violations += schedule.frozen_violations(tx, asked.stage, request, now)
            if violations:
                raise forbidden(violations)
            run = Run(
                name=run_name,
                state=Run.STATE_QUEUED,
                pipeline=asked.pipeline.name,
                stage=asked.stage.name,
                solution=asked.solution,
                target_environment=asked.target.name,
                source_environment=asked.source.name if asked.source else "",
                requester=caller,
                note=request.note,
                import_mode=request.import_mode or ImportMode.IMPORT_MODE_UPGRADE,
                overwrite_customizations=request.overwrite_customizations,
                attempt=1,
                steps=rules.deployment_steps(export=asked.artifact is None),
                requested_version=request.version,
                loss_sha256=request.loss_sha256,
                schedule_time=schedule.wanted(request.schedule_time, now),
                deployed_as=identities.acts_as(asked.target, asked.stage),
            )
            if asked.artifact is not None:
                run.artifact = asked.artifact.name
                run.version = asked.artifact.version
                run.source_environment = asked.artifact.source_environment
            if sealed is not None:
                tx.put_secret(settings_key(run_name), sealed)
            # First what the run is let through, so that the request is the last thing that is told of it.
            events = [
                *schedule.override(tx, run, request.override_reason, caller, now),
                _requested(run, caller),
            ]
            return tx.insert_run(run, pipeline=asked.pipeline, events=events)

        return await self._store.write(once.job(Run, work))

    async def restore(self, request: RestoreArtifactRequest, caller: str, once: Once) -> Run:
        """Ask for the unmanaged package of an artifact to be imported into a development environment.

        Raises:
            NotFound: no such artifact or environment.
            FailedPrecondition: the artifact has no unmanaged package, or the environment is a target.
        """
        run_name = names.run(new_run_id())

        def work(tx: Transaction) -> Run:
            artifact = named.artifact(tx, request.artifact, "artifact")
            environment = named.environment(tx, request.environment, "environment")
            if violations := restore_violations(artifact, environment):
                raise forbidden(violations)
            run = Run(
                name=run_name,
                state=Run.STATE_QUEUED,
                solution=artifact.solution,
                version=artifact.version,
                artifact=artifact.name,
                target_environment=environment.name,
                requester=caller,
                note=request.note,
                import_mode=ImportMode.IMPORT_MODE_UPDATE,
                attempt=1,
                steps=rules.restore_steps(),
                deployed_as=identities.acts_as(environment, Stage()),
            )
            return tx.insert_run(run, events=[_requested(run, caller)])

        return await self._store.write(once.job(Run, work))

    async def cancel(self, request: CancelRunRequest, caller: str, once: Once) -> Run:
        """Cancel a run: at once until its import is sent, afterwards if the environment still can.

        Raises:
            NotFound: no such run.
            FailedPrecondition: it is finished or being cancelled, or its import is done or in doubt.
        """

        def change(tx: Transaction, run: Run) -> Event:
            # The epoch is new already: whoever advances the run can note no intent, and so sends nothing.
            sent = any(tx.output(run.name, note) is not None for note in IMPORT_NOTES)
            state = rules.cancelled(run, sent=sent)
            if state is None:
                raise _not_cancellable(run)
            if state == Run.STATE_CANCELLED:
                return end_cancelled(tx, run, caller, request.reason)
            tx.put_output(run.name, CANCEL, WISHED)
            return moved(run, state, caller, request.reason)

        return await self._change(request.name, once, change)

    async def reschedule(self, request: RescheduleRunRequest, caller: str, once: Once) -> Run:
        """Give a run another time, or none: then it goes on as soon as it may.

        Raises:
            NotFound: no such run.
            InvalidArgument: the time lies too far ahead.
            FailedPrecondition: it is a restore or finished, or its import was sent.
        """

        def change(tx: Transaction, run: Run) -> list[Event]:
            # The epoch is new already: whoever advances the run can note no intent, and so sends nothing.
            now = self._clock()
            at = schedule.wanted(request.schedule_time, now)
            return schedule.reschedule(tx, run, at, request.override_reason, caller, now)

        return await self._change(request.name, once, change)

    async def decide(self, request: ApproveRequest | RejectRequest, caller: str, once: Once) -> Run:
        """Take a yes or a no at the gate that a run waits at.

        Raises:
            NotFound: no such run.
            InvalidArgument: a no without a word why.
            PermissionDenied: the gate does not name the caller, or it is the caller's own request.
            FailedPrecondition: the run waits at no such gate, or the caller has approved it already.
            Aborted: what is to be approved has changed since the caller looked at it.
        """
        return await self._change(
            request.name, once, lambda tx, run: gates.decide(tx, run, request, caller, self._clock())
        )

    async def retry(self, request: RetryRunRequest, caller: str, once: Once) -> Run:
        """Let a failed run go on from the step that failed.

        Raises:
            NotFound: no such run.
            FailedPrecondition: it has not failed, or its stage does not lead to its target any more.
        """

        def change(tx: Transaction, run: Run) -> Event:
            if run.state != Run.STATE_FAILED:
                raise FailedPrecondition(
                    ErrorReason.ERROR_REASON_RUN_NOT_RETRYABLE,
                    f"{run.name} is {rules.state_name(run.state)}; only a failed run can be retried.",
                    remedy="Deploy anew instead.",
                )
            if run.stage and not leads_there(tx, run):
                raise FailedPrecondition(
                    ErrorReason.ERROR_REASON_RUN_NOT_RETRYABLE,
                    f"{run.stage} does not lead to {run.target_environment} any more.",
                    remedy="Deploy anew instead.",
                )
            for step in run.steps:
                if step.state == Step.STATE_FAILED:
                    step.CopyFrom(Step(kind=step.kind, state=Step.STATE_PENDING))
            run.attempt += 1
            run.ClearField("error")
            run.ClearField("end_time")
            tx.delete_outputs(run.name, IMPORT_NOTES)
            return moved(run, Run.STATE_QUEUED, caller)

        return await self._change(request.name, once, change)

    async def resolve(self, request: ResolveRunRequest, caller: str, once: Once) -> Run:
        """Take a person's word for what became of an import.

        Raises:
            NotFound: no such run.
            InvalidArgument: no resolution or no reason.
            FailedPrecondition: the run is not UNKNOWN.
        """
        missing = []
        if not request.resolution:
            missing.append(Violation("resolution", "is required: APPLIED or NOT_APPLIED"))
        if not request.reason.strip():
            missing.append(Violation("reason", "is required: say what you saw in the environment"))
        if missing:
            raise InvalidArgument(
                ErrorReason.ERROR_REASON_INVALID_FIELD,
                "; ".join(f"{v.subject} {v.description}" for v in missing),
                violations=missing,
            )
        applied = request.resolution == ResolveRunRequest.RESOLUTION_APPLIED

        def change(tx: Transaction, run: Run) -> Event:
            if run.state != Run.STATE_UNKNOWN:
                raise FailedPrecondition(
                    ErrorReason.ERROR_REASON_RUN_NOT_UNKNOWN,
                    f"{run.name} is {rules.state_name(run.state)}; only an UNKNOWN run can be resolved.",
                    remedy="Look at it with `pipelinehost run show`.",
                )
            for step in run.steps:
                if step.kind == Step.KIND_IMPORT:
                    step.state = Step.STATE_SUCCEEDED if applied else Step.STATE_FAILED
                    step.detail = f"resolved by {caller}: {request.reason}"
                    step.end_time.GetCurrentTime()
            if applied:
                run.ClearField("error")
                event = moved(run, Run.STATE_DEPLOYING, caller, request.reason)
            else:
                run.error.retryable = True
                run.error.step = Step.KIND_IMPORT
                run.error.remedy = "Retry the run: the import was not applied."
                run.end_time.GetCurrentTime()
                event = moved(run, Run.STATE_FAILED, caller, request.reason)
            event.kind = Event.KIND_RUN_RESOLVED
            tx.delete_outputs(run.name, IMPORT_NOTES)
            return event

        return await self._change(request.name, once, change)

    async def validate(
        self, request: DeployRequest, caller: str
    ) -> AsyncIterator[ValidateDeploymentResponse]:
        """Everything that a deployment would find now, as it is found; stores nothing but an event.

        Raises:
            NotFound: no such pipeline, stage, environment or artifact.
            InvalidArgument: what to deploy is not said, or not clearly.
        """
        reads = self._store.reads
        asked = resolve(reads, request, await held_version(reads, self._environments, request))
        summary = ValidateDeploymentResponse.Summary(
            solution=asked.solution, stage=asked.stage.name, deployable=True
        )
        async with aclosing(_as_it_comes(lambda tell: self._look(request, asked, summary, tell))) as updates:
            async for update in updates:
                yield _counted(update, summary) if isinstance(update, Finding) else _update(update)
        event = Event(
            kind=Event.KIND_DEPLOYMENT_VALIDATED,
            actor=caller,
            subject=asked.stage.name,
            message=f"{asked.solution} {summary.version}: {summary.error_count} errors, "
            f"{summary.warning_count} warnings",
        )
        await self._store.write(lambda tx: tx.append(event))
        yield ValidateDeploymentResponse(summary=summary)

    async def _look(
        self,
        request: DeployRequest,
        asked: Asked,
        summary: ValidateDeploymentResponse.Summary,
        tell: Callable[[Finding | Progress], None],
    ) -> None:
        """Validate and tell what is found; what the host's own record forbids is told in any case."""
        reads, now = self._store.reads, self._clock()
        against = deploy_violations(self._config, reads, asked, request.version)
        against += schedule.frozen_violations(reads, asked.stage, request, now)
        found = [_as_finding(v) for v in against]
        try:
            if asked.artifact is None and asked.source is not None:
                tell(Progress(step=Step.KIND_EXPORT, detail=f"exporting from {rules.title(asked.source)}"))
                api = await self._recognized(asked.source, Step.KIND_EXPORT, tell)
                exported = await self._packages.export(api, asked.source, asked.solution, request.version)
                solution, package = exported.solution, exported.managed
            else:
                artifact = asked.artifact or Artifact()
                solution, package = await self._packages.solution(names.slug(artifact.name))
            summary.version = str(solution.manifest.version)
            if asked.artifact is None and not request.version:  # before, nobody could tell
                found += hold_findings(asked.stage, asked.solution, summary.version)
            plan = Plan(
                rules.title(asked.target),
                request.import_mode,
                asked.pipeline.allow_redeployment,
                asked.stage.settings,
                request.settings,
                functools.partial(self._packages.held, asked.target.name),
                request.overwrite_customizations,
                request.loss_sha256,
                rules.redeploy_command(
                    Run(
                        pipeline=asked.pipeline.name,
                        stage=asked.stage.name,
                        solution=asked.solution,
                        artifact=names.artifact(solution.sha256.hex()),
                    )
                ),
            )
            own = asked.stage.name if asked.stage.HasField("sign_in") else ""
            target = await self._recognized(asked.target, Step.KIND_VALIDATE, tell, own)
            validation = Validation(solution, package, target, plan)
            while found:
                tell(found.pop(0))
            async for update in validation:
                tell(update)
            summary.settings.extend(validation.merged.settings)
            summary.loss_sha256 = validation.loss_sha256
            if validation.installed is not None:
                summary.installed_version = str(validation.installed.version)
        except Stopped as stopped:
            told = {finding.code for finding in stopped.findings}
            for finding in [*(f for f in found if f.code not in told), *stopped.findings]:
                tell(finding)
        except DataverseError as error:
            raise as_host_error(error, asked.target) from error

    async def _recognized(
        self,
        environment: Environment,
        step: Step.Kind,
        tell: Callable[[Finding | Progress], None],
        stage: str = "",
    ) -> WebApi:
        """The connector of an environment that still is what it was; it tells of its waits.

        With the own identity of a stage, where one is given.

        Raises:
            Stopped: it is not, or it cannot be asked.
        """
        where = rules.title(environment)

        def on_wait(wait: Wait) -> None:
            tell(Progress(step=step, detail=wait_words(where, wait, wait.seconds)))

        try:
            api = (await self._environments.connect(environment, stage)).telling(on_wait)
            reset = await self._environments.recognize(environment, api)
        except DataverseError as error:
            raise Stopped(environment_finding(error, where, step)) from error
        if reset is not None:
            reset.step = step
            raise Stopped(reset)
        return api

    async def describe(self, request: DescribeSolutionRequest) -> DescribeSolutionResponse:
        """What a solution is made of and what it needs; all components, whatever page is asked for.

        Raises:
            NotFound: no such artifact, environment, solution or stage.
            FailedPrecondition: the package cannot be used, or an environment refused.
            Unavailable: an environment could not be reached.
        """
        reads, environment = self._store.reads, Environment()
        try:
            if request.WhichOneof("source") == "artifact":
                artifact = named.artifact(reads, request.artifact, "artifact")
                solution, _ = await self._packages.solution(names.slug(artifact.name))
            elif request.WhichOneof("source") == "installed":
                environment = named.environment(reads, request.installed.environment, "installed.environment")
                api = await self._environments.answering(environment)
                exported = await self._packages.export(api, environment, request.installed.solution)
                solution = exported.solution
            else:
                raise required("source", "name an artifact, or an environment and a solution")
            target_title, target_api, stage_settings = "the target", None, DeploymentSettings()
            if request.stage:
                stage = named.stage(reads, request.stage, "stage")
                environment = named.environment(reads, stage.environment)
                own = stage.name if stage.HasField("sign_in") else ""
                target_title = rules.title(environment)
                target_api = await self._environments.answering(environment, own)
                stage_settings = stage.settings
            merged = await merge_settings(
                solution, target_api, target_title, stage_settings, DeploymentSettings()
            )
        except Stopped as stopped:
            raise _stopped(stopped) from stopped
        except DataverseError as error:
            raise as_host_error(error, environment) from error
        return _description(solution, merged.settings)

    async def _change(
        self,
        name: str,
        once: Once,
        change: Callable[[Transaction, Run], Event | list[Event]],
    ) -> Run:
        """Change a run as one transaction, and fence off whoever is advancing it."""
        names.parse("run", name)

        def work(tx: Transaction) -> Run:
            named.run(tx, name)
            run, epoch = tx.claim_run(name)
            told = change(tx, run)
            return tx.save_run(run, told if isinstance(told, list) else [told], epoch=epoch)

        return await self._store.write(once.job(Run, work))


async def _as_it_comes(
    work: Callable[[Callable[[Finding | Progress], None]], Awaitable[None]],
) -> AsyncGenerator[Finding | Progress, None]:
    """What some work tells, at once, also while it waits; then its end, or what it raised."""
    told: asyncio.Queue[Finding | Progress | None] = asyncio.Queue()

    async def working() -> None:
        try:
            await work(told.put_nowait)
        finally:
            told.put_nowait(None)

    task = asyncio.create_task(working())
    try:
        while (update := await told.get()) is not None:
            yield update
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _not_cancellable(run: Run) -> FailedPrecondition:
    why, remedy = "it is finished.", "There is nothing left to cancel."
    if run.state == Run.STATE_CANCELLING:
        why = "its environment was asked to cancel the import."
        remedy = f"See what becomes of it: `pipelinehost run watch {names.slug(run.name)}`."
    elif run.state == Run.STATE_UNKNOWN:
        why = "whether its import was applied is not known."
        remedy = "Wait until the host finds out, or say what you know with `pipelinehost run resolve`."
    elif run.state == Run.STATE_DEPLOYING:
        why = "its import is done."
        remedy = "Wait for its end; then deploy another version or redeploy an older one."
    return FailedPrecondition(
        ErrorReason.ERROR_REASON_RUN_NOT_CANCELLABLE,
        f"{run.name} is {rules.state_name(run.state)}: {why}",
        remedy=remedy,
    )


def _stopped(stopped: Stopped) -> FailedPrecondition | NotFound:
    first = stopped.findings[0]
    if first.code == "SOLUTION_NOT_FOUND":
        return NotFound(ErrorReason.ERROR_REASON_SOLUTION_NOT_FOUND, first.cause, remedy=first.remedy)
    return FailedPrecondition(
        ErrorReason.ERROR_REASON_ENVIRONMENT_REFUSED,
        first.cause,
        remedy=first.remedy,
        violations=[Violation(f.subject.name, f.cause, f.code) for f in stopped.findings],
    )


def _requested(run: Run, caller: str) -> Event:
    change = RunChange(
        to=run.state,
        artifact=run.artifact,
        version=run.version,
        attempt=run.attempt,
        deployed_as=run.deployed_as,
        loss_sha256=run.loss_sha256,
    )
    return Event(
        kind=Event.KIND_DEPLOYMENT_REQUESTED, actor=caller, subject=run.name, run=change, message=run.note
    )


def _as_finding(violation: Violation) -> Finding:
    # What people wrote, as the reason of a freeze, stands in the first part.
    what, colon, remedy = violation.description.rpartition(": ")
    if not colon:
        what, remedy = remedy, ""
    return Finding(
        code=violation.code,
        severity=Finding.SEVERITY_ERROR,
        subject=subject("resource", violation.subject),
        cause=f"{what}.",
        remedy=remedy and f"{remedy[:1].upper()}{remedy[1:]}.",
        step=Step.KIND_VALIDATE,
    )


def _counted(finding: Finding, summary: ValidateDeploymentResponse.Summary) -> ValidateDeploymentResponse:
    if finding.severity == Finding.SEVERITY_ERROR:
        summary.error_count += 1
        summary.deployable = False
    elif finding.severity == Finding.SEVERITY_WARNING:
        summary.warning_count += 1
    return ValidateDeploymentResponse(finding=finding)


def _update(progress: Progress) -> ValidateDeploymentResponse:
    return ValidateDeploymentResponse(progress=progress)


def _description(solution: Solution, settings: Sequence[Setting]) -> DescribeSolutionResponse:
    manifest = solution.manifest
    return DescribeSolutionResponse(
        components=(
            Component(kind=c.kind, name=c.schema_name, display_name=c.name)
            for c in sorted(solution.components, key=lambda c: (c.kind, c.key))
        ),
        solution=manifest.unique_name,
        display_name=manifest.display_name,
        version=str(manifest.version),
        managed=manifest.managed,
        publisher=manifest.publisher.unique_name,
        component_count=len(solution.components),
        requirements=(
            Requirement(
                required=subject(d.required.kind, d.required.schema_name, d.required.display_name),
                dependent=subject(d.dependent.kind, d.dependent.schema_name, d.dependent.display_name),
                solution=d.required.solution,
            )
            for d in manifest.missing_dependencies
        ),
        settings=settings,
    )


def new_run_id() -> str:
    """26 characters that sort by time: 48 bits of milliseconds and 80 random bits, in Crockford's base 32."""
    # It need not be hard to guess, and os.urandom lets another thread go first.
    number = time.time_ns() // 1_000_000 << 80 | random.getrandbits(80)
    return "".join([_TEN_BITS[number >> shift & 1023] for shift in range(120, -1, -10)])
