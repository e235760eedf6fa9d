"""A run, from top to bottom.

Each function reads as if nothing could interrupt it. After a crash, a wait or a retry it is called again:
steps that are done are skipped, noted values are read back, and what may have reached an environment is
reconciled before it is sent again.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from pipelinehost.v1.resources_pb2 import (
    Artifact,
    ComponentResult,
    DeploymentSettings,
    Environment,
    Event,
    Finding,
    Gate,
    ImportMode,
    Pipeline,
    Run,
    RunError,
    Stage,
    Step,
)
from pipelinehost_dataverse import webapi
from pipelinehost_dataverse.solution import Solution, Version
from pipelinehost_dataverse.webapi import (
    AccessDenied,
    AnswerLost,
    BadAnswer,
    ConnectionParameter,
    DataverseError,
    EnvironmentBusy,
    EnvironmentUnreachable,
    ImportIntent,
    ImportOperation,
    ImportProgress,
    ImportResult,
    InstalledSolution,
    NotFound,
    OperationState,
    Refused,
    Severity,
    Throttled,
    VariableParameter,
    Verdict,
    Wait,
    WebApi,
    hush,
)
from pipelinehost_server import rules
from pipelinehost_server.deployment import gates, identities, loss, schedule
from pipelinehost_server.deployment.asked import withdrawn
from pipelinehost_server.deployment.environments import Environments, only_as
from pipelinehost_server.deployment.findings import finding, subject
from pipelinehost_server.deployment.journal import CANCEL, HOST, WISHED, Changed, Journal, settings_key
from pipelinehost_server.deployment.packages import LAST_OPERATION, Packages, Stopped
from pipelinehost_server.deployment.settings import Merged
from pipelinehost_server.deployment.validation import (
    Plan,
    Validation,
    coded,
    environment_finding,
    merge_settings,
    repeated,
    staged_findings,
    wait_words,
)
from pipelinehost_server.encryption import Encryption
from pipelinehost_server.store import Reads, Store, Transaction

_FIRST_POLL, _LAST_POLL = 0.05, 2.0
"""Seconds between looks at an import: short at first, since small solutions take less than a second."""
_PATIENCE = timedelta(minutes=10)
"""How long an environment may be out of reach in the middle of an import before the run is unknown."""
_PASSING = (AnswerLost, BadAnswer, EnvironmentBusy, EnvironmentUnreachable, Throttled)
"""What an environment says, or does not say, while it cannot be asked; it may pass."""
_BUSY_PATIENCE = 600.0
"""Seconds for which an environment may be too busy to take an import."""


class _Busy(Exception):
    """The environment did not take the import, and asks to wait."""

    def __init__(self, wait: Wait) -> None:
        super().__init__(wait)
        self.wait = wait


class _Cancelled(Exception):
    """Somebody has cancelled the run, and its import is known not to be applied."""


class LookAgain(Exception):
    """The outcome of an import cannot be told yet; the run is to be gone on with after a while."""

    def __init__(self, after: timedelta) -> None:
        super().__init__(after)
        self.after = after


class Execution:
    """Everything that one attempt to advance one run works with."""

    def __init__(
        self,
        journal: Journal,
        store: Store,
        packages: Packages,
        environments: Environments,
        encryption: Encryption,
        may_go_on: Callable[[Reads, Run], bool],
        clock: gates.Clock,
    ) -> None:
        self.journal = journal
        self._clock = clock
        self._store = store
        self._packages = packages
        self._environments = environments
        self._encryption = encryption
        self._may_go_on = may_go_on
        self._telling: set[asyncio.Task[None]] = set()
        self._told_at = 0.0

    async def advance(self) -> None:
        """Go on with the run until it ends or has to wait.

        Raises:
            Parked: it waits, for its target or at a gate, or has ended there.
            LookAgain: whether its import was applied cannot be told yet.
            Fenced: somebody else has taken it on, for example to cancel it.
        """
        work = self._deployment if self.journal.run.stage else self._restore
        # Environments may say them again when something goes wrong.
        hush(*(v.value for v in self._run_settings().environment_variables))
        try:
            # Once an import was sent, only its outcome is left to find out.
            if self.journal.output("import.intent") is None:
                self._require_requester(self._store.reads)
            await work()
        except Stopped as stopped:
            await self._fail(stopped)
        except _Cancelled:
            await self.journal.cancelled()
        finally:
            for task in self._telling:
                task.cancel()

    def _require_requester(self, reads: Reads) -> None:
        """Stops a run whose requester may not ask for it any more, or that nobody may."""
        run = self.journal.run
        if not self._may_go_on(reads, run):
            step = next((s.kind for s in run.steps if s.state != Step.STATE_SUCCEEDED), Step.KIND_VALIDATE)
            raise Stopped(finding("REQUESTER_NOT_ALLOWED", step=step, requester=run.requester))
        if found := withdrawn(reads, run):
            raise Stopped(*found)

    async def _deployment(self) -> None:
        journal = self.journal
        first = journal.run.steps[0]
        if first.kind == Step.KIND_EXPORT:
            if first.state != Step.STATE_SUCCEEDED:
                await self._pass(gates.BEFORE_EXPORT)
            await journal.step(Step.KIND_EXPORT, Run.STATE_VALIDATING, self._export)
        await journal.step(Step.KIND_VALIDATE, Run.STATE_VALIDATING, self._validate)
        if not gates.begun(self._store.reads, journal.run):
            await self._come_to_import()
        try:
            await journal.take_target(self._require_turn)
            await journal.step(Step.KIND_IMPORT, Run.STATE_DEPLOYING, self._import)
        except Changed:
            # Only time has changed: it waits, and what was validated and approved stands.
            await journal.rest(lambda tx, run: schedule.come_to(tx, run, self._clock()))
            await journal.validate_again("what was validated and approved has changed")
        await journal.skip(Step.KIND_PUBLISH, "managed solutions arrive published")
        await journal.step(Step.KIND_VERIFY, Run.STATE_DEPLOYING, self._verify)
        await journal.succeed()

    async def _pass(self, kinds: Sequence[Gate.Kind]) -> None:
        """Pass gates.

        Raises:
            Parked: the run waits at one of them, or nobody decided in time.
        """
        run = self.journal.run
        if run.state == Run.STATE_AWAITING_GATE or not gates.all_stand(self._store.reads, run, kinds):
            now = self._clock()
            await self.journal.rest(lambda tx, run: gates.come_to(tx, run, kinds, now))
        if self.journal.run.gates:
            self._require_requester(self._store.reads)

    async def _come_to_import(self) -> None:
        """Pass all that a validated run may have to wait for.

        Raises:
            Parked: it waits, or nobody decided in time.
        """
        run, reads = self.journal.run, self._store.reads
        rests = run.state in (Run.STATE_AWAITING_GATE, Run.STATE_SCHEDULED)
        if rests or not schedule.may_import(reads, run, self._clock()):
            now = self._clock()
            await self.journal.rest(lambda tx, run: schedule.before_import(tx, run, now))
        if rests or run.gates:
            self._require_requester(reads)

    def _require_turn(self, reads: Reads) -> None:
        """Stops a run that may not go on, and lets one wait that may not go on yet."""
        self._require_requester(reads)
        if schedule.wait_of(reads, self.journal.run, self._clock()) is not None:
            raise Changed

    async def _restore(self) -> None:
        journal = self.journal
        await journal.step(Step.KIND_VALIDATE, Run.STATE_VALIDATING, self._validate_restore)
        await journal.take_target(self._require_requester)
        try:
            await journal.step(Step.KIND_IMPORT, Run.STATE_DEPLOYING, self._import)
        except Changed:
            await journal.validate_again("what was validated has changed")
        await journal.step(Step.KIND_PUBLISH, Run.STATE_DEPLOYING, self._publish)
        await journal.step(Step.KIND_VERIFY, Run.STATE_DEPLOYING, self._verify)
        await journal.succeed()

    async def _export(self) -> str:
        journal, run = self.journal, self.journal.run
        await journal.forget_findings(Step.KIND_EXPORT)
        environment, api = await self._recognize(run.source_environment, Step.KIND_EXPORT)
        exported = await self._packages.export(api, environment, run.solution, run.requested_version)
        artifact = await self._packages.store(exported, environment, run.requester)
        others = set(self._store.reads.artifacts_of(artifact.solution, artifact.version, managed=True))
        findings = []
        if others - {artifact.name}:
            findings.append(
                finding(
                    "VERSION_REUSED",
                    subject("solution", artifact.solution, artifact.display_name),
                    step=Step.KIND_EXPORT,
                    name=artifact.solution,
                    version=artifact.version,
                )
            )
        await journal.record(
            findings=findings,
            also=lambda tx: keep_artifact(tx, artifact, HOST),
            artifact=artifact.name,
            solution=artifact.solution,  # as it is written there, whatever its case was in the request
            version=artifact.version,
        )
        return f"version {artifact.version}, {artifact.component_count} components, {artifact.size:,} bytes"

    async def _validate(self) -> str:
        journal, run = self.journal, self.journal.run
        await journal.forget_findings(Step.KIND_VALIDATE)
        await self._note_identity()
        environment, api = await self._recognize(run.target_environment, Step.KIND_VALIDATE)
        solution, package = await self._packages.solution(_sha256(run))
        pipeline = self._snapshot()
        plan = Plan(
            rules.title(environment),
            run.import_mode,
            pipeline.allow_redeployment,
            self._stage_settings(pipeline),
            self._run_settings(),
            functools.partial(self._packages.held, environment.name),
            run.overwrite_customizations,
            run.loss_sha256,
            rules.redeploy_command(run),
        )
        validation = Validation(solution, package, api, plan)
        errors: list[Finding] = []
        batch = withdrawn(self._store.reads, journal.run)  # the export may have told what it is
        told = time.monotonic()
        async for found in validation:
            if isinstance(found, Finding):
                batch.append(found)
                continue
            if batch:
                await journal.record(findings=batch)
                errors += [f for f in batch if f.severity == Finding.SEVERITY_ERROR]
                batch = []
            if time.monotonic() - told >= 1:
                told = time.monotonic()
                await journal.progress(Step.KIND_VALIDATE, found.percent, found.detail)
        errors += [f for f in batch if f.severity == Finding.SEVERITY_ERROR]
        fingerprint = self._encryption.fingerprint
        await journal.record(
            findings=batch,
            settings=validation.merged.stored(lambda text: fingerprint(f"{run.name}\0{text}")),
            settings_sha256=validation.merged.sha256(fingerprint),
            previous_version=str(validation.installed.version) if validation.installed else "",
        )
        if errors:
            raise Stopped(*errors, recorded=True)
        warnings = journal.run.warning_count
        return "no errors" + (f", {warnings} warning{'s' if warnings > 1 else ''}" if warnings else "")

    async def _validate_restore(self) -> str:
        """A restore takes no settings and may bring any version: only the environment's own check matters."""
        journal, run = self.journal, self.journal.run
        await journal.forget_findings(Step.KIND_VALIDATE)
        await self._note_identity()
        environment, api = await self._recognize(run.target_environment, Step.KIND_VALIDATE)
        where = rules.title(environment)
        solution, package = await self._packages.solution(self._unmanaged_sha256(run))
        try:
            staged = await repeated(lambda: api.stage_solution(package))
            if staged.upload_id:
                await api.discard_upload(staged.upload_id)
        except DataverseError as error:
            raise Stopped(environment_finding(error, where, Step.KIND_VALIDATE)) from error
        about = subject("solution", run.solution, solution.manifest.display_name)
        findings = staged_findings(staged, about, where)
        await journal.record(findings=findings)
        errors = [f for f in findings if f.severity == Finding.SEVERITY_ERROR]
        if errors:
            raise Stopped(*errors, recorded=True)
        return "no errors"

    async def _note_identity(self) -> None:
        """Record as whom the host acts in the target, where that has changed since it was asked."""
        now = identities.deployed_as(self._store.reads, self.journal.run)
        if now != self.journal.run.deployed_as:
            await self.journal.record(deployed_as=now)

    async def _import(self) -> str:
        environment, api = await self._connect(self.journal.run.target_environment, Step.KIND_IMPORT)
        await self.journal.forget_findings(Step.KIND_IMPORT)
        operation = await self._operation(environment, api)
        progress = await self._follow(environment, api, operation)
        return await self._outcome(environment, api, operation, progress)

    async def _operation(self, environment: Environment, api: WebApi) -> ImportOperation:
        """The environment's operation: noted, found again, or begun now."""
        if noted := self.journal.output("import.operation"):
            return ImportOperation.from_json(noted.decode())
        if noted := self.journal.output("import.intent"):
            return await self._reconcile(environment, api, ImportIntent.from_json(noted.decode()))
        return await self._post(environment, api)

    async def _post(self, environment: Environment, api: WebApi) -> ImportOperation:
        journal, run = self.journal, self.journal.run
        where = rules.title(environment)
        solution, package = await self._packages.solution(
            _sha256(run) if run.stage else self._unmanaged_sha256(run)
        )
        began, pause = time.monotonic(), 1.0
        while True:
            if journal.output(CANCEL) is not None:
                raise _Cancelled
            try:
                return await self._post_once(environment, api, solution, package)
            except _Busy as busy:
                # Nothing was sent, and nothing is noted: who cancels the run now cancels it for certain.
                wait = busy.wait
                if time.monotonic() - began > _BUSY_PATIENCE:
                    late = EnvironmentBusy(wait.message, code=wait.code)
                    raise Stopped(environment_finding(late, where, Step.KIND_IMPORT)) from None
                pause = min(pause * 2, 30.0)
                seconds = max(wait.seconds, pause / 2)
                await journal.progress(Step.KIND_IMPORT, 0, wait_words(where, wait, seconds))
                await asyncio.sleep(seconds)
            except AnswerLost:
                intent = ImportIntent.from_json((journal.output("import.intent") or b"").decode())
                return await self._reconcile(environment, api, intent)

    async def _post_once(
        self, environment: Environment, api: WebApi, solution: Solution, package: bytes
    ) -> ImportOperation:
        """Send the import, unless the target belongs to another host by now.

        Raises:
            _Busy: it was not taken.
            AnswerLost: it may have been received.
        """
        journal, run, version = self.journal, self.journal.run, solution.manifest.version
        where = rules.title(environment)
        try:
            if (taken := await self._environments.taken(environment, api)) is not None:
                taken.step = Step.KIND_IMPORT
                raise Stopped(taken)
            installed = await api.solution(solution.manifest.unique_name)
            newer = installed is None or version > installed.version
            upgrade = bool(run.stage) and run.import_mode != ImportMode.IMPORT_MODE_UPDATE and newer
            merged = await self._merged(solution, api, where)
            intent = await api.prepare_import(solution.manifest.unique_name, version, upgrade=upgrade)
            if run.stage:
                await self._require_loss(environment, api, solution, installed)
        except DataverseError as error:
            raise Stopped(environment_finding(error, where, Step.KIND_IMPORT)) from error
        if run.stage and merged.sha256(self._encryption.fingerprint) != run.settings_sha256 and run.gates:
            raise Changed
        await journal.note("import.intent", intent.to_json().encode(), self._may_send)
        try:
            with only_as(run.deployed_as):
                operation = await api.telling(_give_up).start_import(
                    package,
                    intent,
                    overwrite_customizations=run.overwrite_customizations,
                    parameters=merged.parameters,
                )
        except AnswerLost:
            raise
        except _Busy:
            await journal.drop("import.intent")
            raise
        except DataverseError as error:
            await journal.drop("import.intent")
            if error.code:
                raise Stopped(_import_failed(where, error.message, error.code)) from error
            raise Stopped(environment_finding(error, where, Step.KIND_IMPORT)) from error
        await journal.note("import.operation", operation.to_json().encode())
        return operation

    def _may_send(self, reads: Reads, run: Run) -> Sequence[Event] | None:
        """What is told with an import that is sent now, as who was validated; None where it may not be."""
        now = self._clock()
        if run.deployed_as != identities.deployed_as(reads, run) or withdrawn(reads, run):
            return None
        if not schedule.may_import(reads, run, now):
            return None
        return schedule.sends_through(reads, run, now)

    async def _require_loss(
        self, environment: Environment, api: WebApi, solution: Solution, installed: InstalledSolution | None
    ) -> None:
        """Stops a run that would lose something else by now than what was accepted and approved."""
        run, found = self.journal.run, ""
        if installed is not None and loss.goes_back(solution, installed):
            known = functools.partial(self._packages.held, environment.name)
            looked = await loss.look(
                solution, installed, api, known, customizations=run.overwrite_customizations
            )
            found = looked.sha256
        where, redeploy = rules.title(environment), rules.redeploy_command(run)
        refused = loss.not_accepted(found, run.loss_sha256, solution, where, redeploy, Step.KIND_IMPORT)
        if refused is not None:
            raise Stopped(refused)

    async def _reconcile(
        self, environment: Environment, api: WebApi, intent: ImportIntent
    ) -> ImportOperation:
        """Find out what became of an import that may have been received; never posts before that is known."""
        journal = self.journal
        where = rules.title(environment)
        quiet = self._environments.quiet_period(environment)
        while True:
            journal.let_go()
            since = journal.output("import.nothing_since")
            try:
                looked = await api.reconcile(
                    intent,
                    nothing_since=datetime.fromisoformat(since.decode()) if since else None,
                    quiet=quiet,
                )
            except DataverseError as error:
                await self._cannot_tell(where, f"It cannot be asked now: {error.message}")
                raise LookAgain(timedelta(seconds=30)) from error
            if looked.verdict is Verdict.FOUND and looked.operation is not None:
                await journal.go_on()
                await journal.note("import.operation", looked.operation.to_json().encode())
                return looked.operation
            if looked.verdict is Verdict.NOT_RECEIVED:
                await journal.go_on()
                await journal.drop("import.intent", "import.nothing_since")
                return await self._post(environment, api)
            if looked.nothing_since is None:
                await journal.drop("import.nothing_since")
            else:
                await journal.note("import.nothing_since", looked.nothing_since.isoformat().encode())
            wait = looked.look_again_in
            if wait is None or wait > timedelta(seconds=5):
                await self._cannot_tell(where, " ".join(looked.evidence))
                raise LookAgain(wait or timedelta(minutes=5))
            await asyncio.sleep(wait.total_seconds())

    async def _follow(
        self, environment: Environment, api: WebApi, operation: ImportOperation
    ) -> ImportProgress:
        """Watch the environment's operation until it has ended, however long that takes."""
        journal = self.journal
        where = rules.title(environment)
        began = answered = time.monotonic()
        delay, told = _FIRST_POLL, 0.0
        while True:
            journal.let_go()
            if journal.output(CANCEL) == WISHED:
                await self._ask_to_cancel(api, operation, where)
            try:
                progress = await api.import_progress(operation)
            except NotFound as error:
                await self._cannot_tell(where, f"It does not know the import any more: {error.message}")
                raise LookAgain(timedelta(minutes=5)) from error
            except DataverseError as error:
                if time.monotonic() - answered > _PATIENCE.total_seconds():
                    await self._cannot_tell(where, f"It could not be asked for {_PATIENCE}: {error.message}")
                    raise LookAgain(timedelta(minutes=1)) from error
                detail = f"{where} does not answer ({error.message}); the import may go on there"
                await journal.progress(Step.KIND_IMPORT, 0, detail)
                delay = _LAST_POLL
            else:
                answered = time.monotonic()
                await journal.go_on()
                if progress.state is not OperationState.RUNNING:
                    return progress
                # The first second's one telling is kept for a percent that shows something.
                if answered - told >= 1 and (progress.percent >= 1 or answered - began >= 1):
                    told = answered
                    await journal.progress(Step.KIND_IMPORT, round(progress.percent), progress.text)
            due = told + 1 - time.monotonic()
            if 0 < due < delay < 1:  # young: look when its percent may be told again
                await asyncio.sleep(due)
            else:
                await asyncio.sleep(delay)
                delay = min(delay * 1.5, _LAST_POLL)

    async def _ask_to_cancel(self, api: WebApi, operation: ImportOperation, where: str) -> None:
        """Ask the environment to cancel the import; where it cannot be asked now, it is asked again later."""
        try:
            await api.cancel_import(operation)
        except (Refused, NotFound, AccessDenied) as error:
            await self.journal.keep_on(f"{where} goes on with the import: {error.message}")
        except DataverseError:
            pass  # the next look tells whether the environment answers at all

    async def _outcome(
        self, environment: Environment, api: WebApi, operation: ImportOperation, progress: ImportProgress
    ) -> str:
        """Record what the import did, component by component.

        Raises:
            Stopped: the environment ended it as failed, or canceled it though nobody here wished that.
            _Cancelled: the environment canceled it.
        """
        where = rules.title(environment)
        if progress.state is OperationState.CANCELED and self.journal.output(CANCEL) is not None:
            raise _Cancelled
        try:
            result = await api.import_result(operation)
        except DataverseError:
            result = None  # the verdict is known; only its details are not
        parts = result.components if result else ()
        findings = [_component_finding(c) for c in parts if c.severity is not Severity.INFO]
        if progress.state is not OperationState.SUCCEEDED:
            findings.insert(0, _import_failed(where, *_reason(progress, result)))
        # A large package has thousands.
        results = await asyncio.to_thread(lambda: [_component_result(c) for c in parts])
        await self.journal.record(findings=findings, results=results)
        if progress.state is not OperationState.SUCCEEDED:
            raise Stopped(findings[0], recorded=True)
        count = sum(c.kind != "solutionManifest" for c in parts)
        return f"{count} components" if count else "done"

    async def _publish(self) -> str:
        environment, api = await self._connect(self.journal.run.target_environment, Step.KIND_PUBLISH)
        try:
            await repeated(api.publish_all)
        except DataverseError as error:
            raise Stopped(environment_finding(error, rules.title(environment), Step.KIND_PUBLISH)) from error
        return "all customizations"

    async def _verify(self) -> str:
        journal, run = self.journal, self.journal.run
        await journal.forget_findings(Step.KIND_VERIFY)
        environment, api = await self._connect(run.target_environment, Step.KIND_VERIFY)
        where = rules.title(environment)
        begun = time.monotonic()
        while True:
            try:
                return await self._verified(api, where)
            except DataverseError as error:
                # The import is applied: that it cannot be looked at for a while does not make it a failure.
                late = time.monotonic() - begun > _PATIENCE.total_seconds()
                if late or not isinstance(error, _PASSING):
                    raise Stopped(environment_finding(error, where, Step.KIND_VERIFY)) from error
                detail = f"{where} does not answer ({error.message}); trying again"
                await journal.progress(Step.KIND_VERIFY, 0, detail)
                await asyncio.sleep(_LAST_POLL)

    async def _verified(self, api: WebApi, where: str) -> str:
        journal, run = self.journal, self.journal.run
        # Before the look at the version: whatever others do after that is a later operation.
        last = loss.last_operation(await api.history(run.solution)) if run.stage else ""
        installed = await api.solution(run.solution)
        if installed is None or installed.version != Version.parse(run.version):
            raise Stopped(
                finding(
                    "VERIFY_FAILED",
                    subject("solution", run.solution),
                    step=Step.KIND_VERIFY,
                    environment=where,
                    name=run.solution,
                    version=run.version,
                    found=f"version {installed.version}" if installed else "no version",
                )
            )
        if run.stage:
            solution, _ = await self._packages.solution(_sha256(run))
            merged = await self._merged(solution, api, where)
            await journal.record(
                findings=await _unapplied(merged, api, where),
                also=lambda tx: tx.put_output(run.name, LAST_OPERATION, last.encode()),
            )
        return f"{where} holds {run.solution} {installed.version}"

    async def _fail(self, stopped: Stopped) -> None:
        if not stopped.recorded:
            await self.journal.record(findings=stopped.findings)
        errors = [f for f in stopped.findings if f.severity == Finding.SEVERITY_ERROR]
        first = errors[0]
        more = f" And {len(errors) - 1} more." if len(errors) > 1 else ""
        await self.journal.fail(
            RunError(
                code=first.code,
                message=first.cause + more,
                remedy=first.remedy,
                retryable=any(f.retryable for f in errors),
            )
        )

    async def _cannot_tell(self, where: str, evidence: str) -> None:
        found = finding(
            "IMPORT_UNDECIDED",
            subject("environment", where),
            step=Step.KIND_IMPORT,
            environment=where,
            evidence=evidence,
        )
        error = RunError(code=found.code, message=found.cause, remedy=found.remedy)
        if self.journal.run.state != Run.STATE_UNKNOWN or self.journal.run.error.message != error.message:
            await self.journal.cannot_tell(error)

    async def _connect(self, name: str, step: Step.Kind) -> tuple[Environment, WebApi]:
        """The record of an environment, and its connector, which tells the run's watchers of waits."""
        run = self.journal.run
        stage = identities.acting_stage(self._store.reads, run) if name == run.target_environment else ""
        try:
            environment, api = await self._environments.named(name, stage)
        except DataverseError as error:
            raise Stopped(environment_finding(error, name, step)) from error
        where = rules.title(environment)

        def on_wait(wait: Wait) -> None:
            now = time.monotonic()
            if now - self._told_at < 1:
                return
            self._told_at = now
            told = self.journal.progress(step, None, wait_words(where, wait, wait.seconds))
            task = asyncio.ensure_future(told)
            self._telling.add(task)
            task.add_done_callback(self._told)

        return environment, api.telling(on_wait)

    def _told(self, task: asyncio.Task[None]) -> None:
        self._telling.discard(task)
        if not task.cancelled():
            task.exception()  # the one who works meets it too, at its next write

    async def _recognize(self, name: str, step: Step.Kind) -> tuple[Environment, WebApi]:
        """The same, after a look whether it still is the environment that it was.

        Raises:
            Stopped: it is not, or it cannot be asked.
        """
        environment, api = await self._connect(name, step)
        try:
            reset = await self._environments.recognize(environment, api)
        except DataverseError as error:
            raise Stopped(environment_finding(error, rules.title(environment), step)) from error
        if reset is not None:
            reset.step = step
            raise Stopped(reset)
        return environment, api

    async def _merged(self, solution: Solution, api: WebApi, where: str) -> Merged:
        if not self.journal.run.stage:
            return Merged()
        stage = self._stage_settings(self._snapshot())
        return await merge_settings(solution, api, where, stage, self._run_settings())

    def _snapshot(self) -> Pipeline:
        return self._store.reads.run_pipeline(self.journal.run.name) or Pipeline()

    def _stage_settings(self, pipeline: Pipeline) -> DeploymentSettings:
        return (rules.stage_of(pipeline, self.journal.run.stage) or Stage()).settings

    def _run_settings(self) -> DeploymentSettings:
        key = settings_key(self.journal.run.name)
        sealed = self._store.reads.secret(key)
        return DeploymentSettings.FromString(self._encryption.open(sealed, key) if sealed else b"")

    def _unmanaged_sha256(self, run: Run) -> str:
        artifact = self._store.reads.artifact(run.artifact) or Artifact()
        return artifact.source_sha256 or _sha256(run)


def _give_up(wait: Wait) -> None:
    raise _Busy(wait)


def keep_artifact(tx: Transaction, artifact: Artifact, actor: str) -> Artifact:
    """Record an artifact unless it is known already; the same bytes stay the same artifact."""
    known = tx.artifact(artifact.name)
    if known is not None and (known.source_sha256 or not artifact.source_sha256):
        return known
    kept = tx.put_artifact(artifact)
    tx.append(Event(kind=Event.KIND_ARTIFACT_STORED, actor=actor, subject=kept.name, artifact=kept))
    return kept


async def _unapplied(merged: Merged, api: WebApi, where: str) -> list[Finding]:
    """Settings that were sent with the import and are not what the target holds now."""
    variables = {p.schema_name: p.value for p in merged.parameters if isinstance(p, VariableParameter)}
    references = {
        p.logical_name: p.connection_id for p in merged.parameters if isinstance(p, ConnectionParameter)
    }
    held_values = (
        {v.schema_name.casefold(): v.value for v in await api.environment_variables(variables)}
        if variables
        else {}
    )
    held_connections = (
        {r.logical_name.casefold(): r.connection_id for r in await api.connection_references(references)}
        if references
        else {}
    )
    lost = [("Environment variable", n) for n, v in variables.items() if held_values.get(n.casefold()) != v]
    lost += [
        ("Connection reference", n)
        for n, c in references.items()
        if (held_connections.get(n.casefold()) or "").casefold() != c.casefold()
    ]
    return [
        finding(
            "SETTING_NOT_APPLIED",
            subject("setting", name),
            step=Step.KIND_VERIFY,
            what=what,
            name=name,
            environment=where,
        )
        for what, name in lost
    ]


def _sha256(run: Run) -> str:
    return run.artifact.rpartition("/")[2]


def _reason(progress: ImportProgress, result: ImportResult | None) -> tuple[str, str]:
    message = progress.message or (result.message if result else "")
    if progress.state is OperationState.CANCELED:
        message = f"it was canceled there. {message}".strip()
    return message or "it gave no reason", progress.code or (result.code if result else "")


def _import_failed(where: str, message: str, code: str) -> Finding:
    about = subject("environment", where)
    return finding(
        "IMPORT_FAILED", about, step=Step.KIND_IMPORT, environment=where, message=message, remark=coded(code)
    )


def _component_finding(result: webapi.ComponentResult) -> Finding:
    failed = result.severity is Severity.ERROR
    return finding(
        "IMPORT_COMPONENT_FAILED" if failed else "IMPORT_COMPONENT_WARNING",
        subject(result.kind, result.name),
        step=Step.KIND_IMPORT,
        kind=result.kind,
        name=result.name,
        message=result.text or "the environment gave no reason",
        remark=coded(result.code),
    )


def _component_result(result: webapi.ComponentResult) -> ComponentResult:
    return ComponentResult(
        component=subject(result.kind, result.name),
        result=_RESULTS[result.severity],
        error_code=result.code,
        error_text=result.text,
    )


_RESULTS = {Severity.INFO: "success", Severity.WARNING: "warning", Severity.ERROR: "failure"}
