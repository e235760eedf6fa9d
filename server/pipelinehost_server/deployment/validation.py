"""Validation of a package against a target, in a fixed order, with all findings at once."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pipelinehost.v1.resources_pb2 import DeploymentSettings, Finding, ImportMode, Progress, Step, Subject
from pipelinehost_dataverse.sign_in import SignInFailed
from pipelinehost_dataverse.solution import Solution
from pipelinehost_dataverse.solution.kinds import kind_of
from pipelinehost_dataverse.webapi import (
    SOLUTION_LOCK,
    AccessDenied,
    AnswerLost,
    DataverseError,
    Dependant,
    EnvironmentBusy,
    EnvironmentUnreachable,
    InstalledComponent,
    InstalledSolution,
    MissingDependency,
    Severity,
    StageResult,
    Throttled,
    Wait,
    WebApi,
)
from pipelinehost_server.deployment import loss
from pipelinehost_server.deployment.findings import (
    component_subject,
    component_title,
    finding,
    kind_word,
    subject,
)
from pipelinehost_server.deployment.settings import Merged, TargetValues, merge

_T = TypeVar("_T")
_LOSS = {
    "entity": " with all its rows",
    "attribute": " with its values in all rows",
    "workflow": "",
    "appmodule": "",
    "canvasapp": "",
    "environmentvariabledefinition": " with its value",
    "connectionreference": "",
}
"""Removed components that get a finding of their own, and what is lost with them."""
_THROTTLED = "0x8007232"
"""Begins the codes of the limits on requests."""
_MISSING_DEPENDENCIES = "0x8004801D"
_NOT_HIGHER = "0x80048541"
_OWN_CHECKS = frozenset({_NOT_HIGHER, "0x80048040", "0x80048041", "0x8004801C", "0x80048539", "0x8004F042"})
"""Codes of the environment that say what a check of ours has said already, with a better remedy."""
_AGAIN, _AGAIN_SECONDS = 2, 2.0
"""How often, and after how long, a question is asked again whose answer was lost."""
_AT_ONCE = 8
"""Questions to one environment at the same time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of a validation, beside the package and the target."""

    environment: str
    """What people call the target."""
    mode: ImportMode
    allow_redeployment: bool
    stage: DeploymentSettings
    run: DeploymentSettings
    known: loss.Known
    overwrite_customizations: bool
    accepted: str
    """Digest of what the requester has accepted to lose."""
    redeploy: str
    """The command that shows what would be lost."""


class Validation:
    """One look at one target with one package. Iterate it; then read what it came to.

    It yields ``Progress`` when it begins another part and ``Finding`` for each finding, in the order: mode,
    version and publisher; operations under way; missing dependencies; connection references; environment
    variables; what an upgrade would remove.
    """

    def __init__(self, solution: Solution, package: bytes, target: WebApi, plan: Plan) -> None:
        self.solution = solution
        self.package = package
        self.target = target
        self.plan = plan
        self.installed: InstalledSolution | None = None
        """The solution of the same name in the target."""
        self.upgrade = plan.mode != ImportMode.IMPORT_MODE_UPDATE
        """Whether the import would be an upgrade; a redeployment is always an update."""
        self._too_low = self._redeploys = False
        self.loss_sha256 = ""
        """Digest of what would be lost; empty where nothing would."""
        self.merged = Merged()

    async def __aiter__(self) -> AsyncIterator[Finding | Progress]:
        try:
            async for found in self._parts():
                yield found
        except DataverseError as error:
            yield environment_finding(error, self.plan.environment, Step.KIND_VALIDATE)

    async def _parts(self) -> AsyncIterator[Finding | Progress]:
        where = self.plan.environment
        yield _progress(5, f"asking {where} what it holds")
        unique_name = self.solution.manifest.unique_name
        self.installed = await self.target.solution(unique_name)
        for found in self._version():
            yield found
        if (orphan := await self._parent()) is not None:
            yield orphan
        leftover = await self.target.solution(f"{unique_name}_Upgrade")
        if leftover is not None:
            yield finding("PENDING_UPGRADE", self._about(), environment=where, name=unique_name)
        for operation in await self.target.running_operations():
            yield finding("OPERATION_RUNNING", self._about(), environment=where, operation=operation.name)
        yield _progress(20, f"letting {where} check the package")
        staged = await repeated(lambda: self.target.stage_solution(self.package))
        if staged.upload_id:
            await self.target.discard_upload(staged.upload_id)
        for found in staged_findings(staged, self._about(), where, known=_OWN_CHECKS):
            yield found
        doubts = [r for r in staged.findings if r.code == _NOT_HIGHER and self._redeploys]
        for remark in doubts[:1]:
            message, code = remark.message, coded(remark.code)
            yield finding(
                "REDEPLOYMENT_DOUBTED", self._about(), environment=where, message=message, remark=code
            )
        yield _progress(60, "checking connections and environment variables")
        self.merged = await merge_settings(self.solution, self.target, where, self.plan.stage, self.plan.run)
        for found in self.merged.findings:
            yield found
        if self.installed is not None and self.installed.managed and self.upgrade:
            yield _progress(80, "looking for what the upgrade would remove")
            async for found in self._removals(self.installed):
                yield found
        if not self._too_low:
            async for told in self._losses():
                yield told
        yield _progress(100, "")

    def _about(self) -> Subject:
        manifest = self.solution.manifest
        return subject("solution", manifest.unique_name, manifest.display_name)

    def _version(self) -> list[Finding]:
        """Mode, version and publisher against what is installed; decides between upgrade and update."""
        manifest, installed, about = self.solution.manifest, self.installed, self._about()
        facts: dict[str, Any] = {"environment": self.plan.environment, "name": manifest.unique_name}
        found: list[Finding] = []
        if installed is None:
            return found
        if not installed.managed:
            found.append(finding("MODE_MISMATCH", about, **facts))
        if not manifest.version > installed.version:
            redeploys = self.plan.allow_redeployment
            self._redeploys, self._too_low = redeploys, not redeploys
            found.append(
                finding(
                    "REDEPLOYMENT" if redeploys else "VERSION_NOT_HIGHER",
                    about,
                    installed=installed.version,
                    version=manifest.version,
                    **facts,
                )
            )
            self.upgrade = False
        publisher = manifest.publisher.unique_name
        if installed.managed and installed.publisher_unique_name.casefold() != publisher.casefold():
            found.append(
                finding(
                    "PUBLISHER_MISMATCH",
                    about,
                    installed=installed.publisher_unique_name,
                    publisher=publisher,
                    **facts,
                )
            )
        return found

    async def _losses(self) -> AsyncIterator[Finding | Progress]:
        """What a redeployment would lose, and whether that is what was accepted."""
        plan, installed = self.plan, self.installed
        if installed is not None and loss.goes_back(self.solution, installed):
            yield _progress(80, "looking for what going back would lose")
            found = await loss.look(
                self.solution,
                installed,
                self.target,
                plan.known,
                customizations=plan.overwrite_customizations,
            )
            self.loss_sha256 = found.sha256
            for told in loss.told(found, self.solution, installed, plan.environment):
                yield told
        refused = loss.not_accepted(
            self.loss_sha256,
            plan.accepted,
            self.solution,
            plan.environment,
            plan.redeploy,
            Step.KIND_VALIDATE,
        )
        if refused is not None:
            yield refused

    async def _parent(self) -> Finding | None:
        """A patch needs the solution that it patches."""
        manifest = self.solution.manifest
        if manifest.parent_solution is None:
            return None
        if await self.target.solution(manifest.parent_solution) is not None:
            return None
        return finding(
            "PATCH_PARENT_MISSING",
            self._about(),
            name=manifest.unique_name,
            parent=manifest.parent_solution,
            version=manifest.parent_version or "",
            environment=self.plan.environment,
        )

    async def _removals(self, installed: InstalledSolution) -> AsyncIterator[Finding]:
        """What the new version no longer has, and what in the target still needs it."""
        where = self.plan.environment
        held = await self.target.installed_components(installed)
        kept = {c.identity for c in self.solution.components}
        removed = [c for c in held if c.key is not None and c.key not in kept]
        others = Counter[str]()
        for component in removed:
            kind = component.key.kind if component.key else ""
            if kind in _LOSS:
                yield finding(
                    "UPGRADE_REMOVES",
                    _subject_of(component),
                    environment=where,
                    kind=kind_word(kind),
                    name=_title_of(component),
                    loss=_LOSS[kind],
                )
            else:
                others[kind_word(kind)] += 1
        if others:
            kinds = ", ".join(f"{n} × {kind}" for kind, n in sorted(others.items()))
            yield finding("UPGRADE_REMOVES_MORE", self._about(), count=others.total(), kinds=kinds)
        own = {c.object_id for c in held}
        gate = asyncio.Semaphore(_AT_ONCE)

        async def ask(component: InstalledComponent) -> list[Dependant]:
            async with gate:
                return await self.target.dependants(component.object_id, component.type_code)

        answers = await asyncio.gather(*(ask(c) for c in removed))
        names = _Names(self.target)
        for component, dependants in zip(removed, answers, strict=True):
            blocking = [d for d in dependants if d.object_id not in own]
            if not blocking:
                continue
            kind = component.key.kind if component.key else ""
            yield finding(
                "UPGRADE_BLOCKED",
                _subject_of(component),
                environment=where,
                kind=kind_word(kind),
                name=_title_of(component),
                dependants=_listed([await names.of(d) for d in blocking]),
            )


async def merge_settings(
    solution: Solution,
    target: WebApi | None,
    environment: str,
    stage: DeploymentSettings,
    run: DeploymentSettings,
) -> Merged:
    """Merge the settings of a deployment with what the target holds now.

    Args:
        solution: what takes the settings.
        target: the target's connector; None where there is no target to look at.
        environment: what people call the target.
        stage: preconfigured by an administrator.
        run: given with the run.
    """
    if target is None:
        return merge(solution, TargetValues(environment=environment), stage, run)
    variables = [v.schema_name for v in solution.environment_variables]
    references = [r.logical_name for r in solution.connection_references]
    values = TargetValues(
        await target.environment_variables(variables) if variables else (),
        await target.connection_references(references) if references else (),
        await target.connections() if references else (),
        environment,
    )
    return merge(solution, values, stage, run)


class _Names:
    """What people call a component that only its id is known of, looked up in the solution that holds it."""

    def __init__(self, target: WebApi) -> None:
        self._target = target
        self._solutions: dict[str, InstalledSolution] | None = None
        self._components: dict[str, dict[str, InstalledComponent]] = {}

    async def of(self, dependant: Dependant) -> str:
        if self._solutions is None:
            self._solutions = {s.id: s for s in await self._target.solutions()}
        solution = self._solutions.get(dependant.solution_id or "")
        if solution is None:
            return f"the component {dependant.object_id}"
        if solution.id not in self._components:
            held = await self._target.installed_components(solution)
            self._components[solution.id] = {c.object_id: c for c in held}
        component = self._components[solution.id].get(dependant.object_id)
        if component is None:
            return f"a component of {solution.unique_name}"
        kind = component.key.kind if component.key else component.type_name
        return f"the {kind_word(kind)} {_title_of(component)} of {solution.unique_name}"


def staged_findings(
    staged: StageResult, about: Subject, environment: str, *, known: Container[str] = ()
) -> list[Finding]:
    """What the environment's own check of a package says.

    Args:
        staged: its answer.
        about: the solution.
        environment: what people call it.
        known: codes that other findings say better; missing dependencies are always listed one by one.
    """
    found = _missing(staged.missing_dependencies, environment)
    for remark in staged.findings:
        listed = remark.code == _MISSING_DEPENDENCIES and found
        if remark.severity is Severity.INFO or remark.code in known or listed:
            continue
        code = "ENVIRONMENT_OBJECTS" if remark.severity is Severity.ERROR else "ENVIRONMENT_REMARKS"
        found.append(
            finding(code, about, environment=environment, message=remark.message, remark=coded(remark.code))
        )
    return found


async def repeated(ask: Callable[[], Awaitable[_T]]) -> _T:
    """Ask an environment something that may be asked twice; where the answer is lost, ask again.

    For staging, exporting and publishing. An import is never repeated: it is reconciled.
    """
    for _ in range(_AGAIN):
        try:
            return await ask()
        except AnswerLost:
            await asyncio.sleep(_AGAIN_SECONDS)
    return await ask()


def environment_finding(error: DataverseError, environment: str, step: Step.Kind) -> Finding:
    """The finding for a call to an environment that did not give its result."""
    code, remedy = "ENVIRONMENT_ERROR", ""
    if isinstance(error, EnvironmentUnreachable):
        code = "ENVIRONMENT_UNREACHABLE"
    elif isinstance(error, SignInFailed):
        code, remedy = "SIGN_IN_FAILED", error.remedy
    elif isinstance(error, AccessDenied):
        code = "ENVIRONMENT_DENIED"
    elif isinstance(error, (EnvironmentBusy, Throttled)):
        code = "ENVIRONMENT_BUSY"
    about = subject("environment", environment)
    return finding(
        code,
        about,
        step=step,
        environment=environment,
        message=error.message,
        remark=coded(error.code),
        remedy=remedy,
    )


def wait_words(environment: str, wait: Wait, seconds: float) -> str:
    """What a watcher is told while an environment lets the host wait."""
    if wait.code == SOLUTION_LOCK:
        why = "is busy with another operation"
    elif wait.code.startswith(_THROTTLED):
        why = "asks to slow down"
    else:
        why = "does not answer"
    return f"{environment} {why} ({wait.message}); trying again in {max(seconds, 1):.0f} s"


def coded(code: str) -> str:
    """A code as it follows a message: `` (0x8004801D)``, or nothing."""
    return f" ({code})" if code else ""


def _missing(pairs: Sequence[MissingDependency], environment: str) -> list[Finding]:
    """One finding for each component that is missing, however many need it."""
    needed: dict[tuple[str, str], list[MissingDependency]] = defaultdict(list)
    for pair in pairs:
        end = pair.required
        needed[end.type, (end.schema_name or end.id or end.display_name).casefold()].append(pair)
    found = []
    for group in needed.values():
        end, origin = group[0].required, group[0].required_solution
        kind = _kind(end.type)
        name = end.schema_name or end.id or end.display_name
        shown = f"the {kind_word(kind)} {end.display_name or name}"
        if end.parent_schema_name:
            shown += f" of {end.parent_display_name or end.parent_schema_name}"
        dependents = sorted(
            {d.dependent.display_name or d.dependent.schema_name or d.dependent.id for d in group}
        )
        unmanaged = origin.casefold() == "active" or not origin
        found.append(
            finding(
                "MISSING_DEPENDENCY",
                subject(kind, name, end.display_name),
                environment=environment,
                required=shown,
                dependents=_listed(dependents),
                verb="needs" if len(dependents) == 1 else "need",
                origin="" if unmanaged else f"; where the solution was built it came with {origin}",
                remedy=(
                    "Add it to this solution, or deploy the solution that holds it first: where "
                    "this one was built it "
                    "is an unmanaged customization."
                    if unmanaged
                    else f"Install {origin} in {environment} first, in that version or a higher one."
                ),
            )
        )
    return found


def _kind(type_name: str) -> str:
    return kind_of(type_name) if type_name else "component"


def _listed(names: Sequence[str], most: int = 3) -> str:
    shown = [n for n in names if n][:most]
    rest = len(names) - len(shown)
    if rest > 0:
        return f"{', '.join(shown)} and {rest} more" if shown else f"{rest} components"
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]])) if shown else "a component"


def _subject_of(component: InstalledComponent) -> Subject:
    return component_subject(component.key, component.name, component.display_name)


def _title_of(component: InstalledComponent) -> str:
    return component_title(component.key, component.name, component.display_name)


def _progress(percent: int, detail: str) -> Progress:
    return Progress(step=Step.KIND_VALIDATE, percent=percent, detail=detail)
