"""What may be configured: pure checks of environments, pipelines and connections, all violations at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, TypeVar, cast

from google.protobuf.field_mask_pb2 import FieldMask

from pipelinehost import names
from pipelinehost.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    Violation,
    reason_name,
)
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.pipeline_host_pb2 import SetEnvironmentCredentialRequest
from pipelinehost.v1.resources_pb2 import (
    Connection,
    DeploymentSettings,
    Environment,
    Freeze,
    Gate,
    Pipeline,
    Principal,
    Share,
    SignIn,
    Stage,
)
from pipelinehost_dataverse.sign_in import authority_problem, certificate_problem
from pipelinehost_dataverse.webapi import environment_address
from pipelinehost_server import rules
from pipelinehost_server.config import Config
from pipelinehost_server.deployment import freezes
from pipelinehost_server.deployment.environments import CREDENTIALS
from pipelinehost_server.deployment.identities import signs_in
from pipelinehost_server.deployment.webhooks import address_problem
from pipelinehost_server.store import identity_key

_R = TypeVar("_R", Environment, Pipeline, Principal, Freeze)

STAGES: Final = 7
"""Most stages of a pipeline, as in the product."""

APPROVERS: Final = 20
"""Most approvers of a gate; a run carries what each of them says."""

_CHANGEABLE: Final = {
    "Environment": (
        "display_name",
        "description",
        "url",
        "connectivity_url",
        "region",
        "installed_apps",
        "sign_in",
        "makers",
    ),
    "Pipeline": (
        "display_name",
        "description",
        "development_environments",
        "stages",
        "allow_redeployment",
        "owner",
        "shares",
    ),
    "Principal": ("display_name", "role", "person", "members", "identities", "disabled"),
    "Freeze": ("reason", "time_zone", "start", "end", "recurrence"),
}
_KINDS: Final = {Environment.KIND_DEVELOPMENT: "development", Environment.KIND_TARGET: "target"}
_STAMPED: Final = {
    "Environment": ("etag", "create_time", "update_time", "organization_id", "taken_by", "taken_time"),
    "Pipeline": ("etag", "create_time", "update_time"),
    "Principal": ("etag", "create_time", "update_time"),
    "Freeze": ("etag", "create_time", "update_time", "creator"),
}
_APP = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}")
# Printable ASCII without space and backslash, which parsers read differently.
_URL = re.compile(r"[!-\[\]-~]+")
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TENANT = re.compile(rf"{_GUID.pattern}|[A-Za-z0-9](?:[A-Za-z0-9.-]{{0,190}}[A-Za-z0-9])?")
_ISSUER = re.compile(r"https://[!-?A-~]+|http://(?:localhost|127\.0\.0\.1|\[::1\])[!-?A-~]*")
_ALTERNATIVE_NAME = re.compile(r"(?:URI|DNS|email):[!-~]+")
_METHODS: Final = "client_secret, certificate, managed_identity or developer"
_GATES: Final = {
    Gate.KIND_PRE_EXPORT: "PRE_EXPORT",
    Gate.KIND_APPROVAL: "APPROVAL",
    Gate.KIND_PRE_DEPLOYMENT: "PRE_DEPLOYMENT",
}
_TAKES: Final = {
    SignIn.METHOD_CLIENT_SECRET: ("tenant", "client_id", "authority"),
    SignIn.METHOD_CERTIFICATE: ("tenant", "client_id", "authority"),
    SignIn.METHOD_MANAGED_IDENTITY: ("client_id",),
    SignIn.METHOD_DEVELOPER: ("tenant",),
}
"""The fields of a sign-in that its method takes; applications need the first two of theirs."""


def invalid(violations: Sequence[Violation]) -> InvalidArgument:
    """The error for wrong fields; its message tells the first."""
    return InvalidArgument(ErrorReason.ERROR_REASON_INVALID_FIELD, _first(violations), violations=violations)


def refuse(fields: Sequence[Violation], preconditions: Sequence[Violation]) -> None:
    """Ends a call that something stands against.

    Args:
        fields: what is wrong whatever the state of the host.
        preconditions: what is wrong only because of it; each has a reason as its code.

    Raises:
        InvalidArgument: there are wrong fields; it lists the preconditions too, for one round of corrections.
        FailedPrecondition: there are unmet preconditions only; its reason is the first one's.
    """
    if fields:
        raise invalid([*fields, *preconditions])
    if preconditions:
        raise FailedPrecondition(
            cast("ErrorReason", ErrorReason.Value(f"ERROR_REASON_{preconditions[0].code}")),
            _first(preconditions),
            violations=preconditions,
        )


def require_new(found: _R | None) -> None:
    """Lets a resource be created whose name nothing has.

    Raises:
        AlreadyExists: something has it.
    """
    if found is not None:
        raise AlreadyExists(
            ErrorReason.ERROR_REASON_RESOURCE_EXISTS,
            f"{found.name} exists already",
            remedy="Update it, or choose another name.",
            metadata={"resource": found.name},
        )


def require_etag(sent: str, stored: _R) -> None:
    """Lets a change through that was made over what is stored, or over whatever is stored.

    Raises:
        Aborted: the resource has changed since it was read.
    """
    if sent and sent != stored.etag:
        raise Aborted(
            ErrorReason.ERROR_REASON_ETAG_MISMATCH,
            f"{stored.name} has changed since it was read",
            remedy="Read it again and repeat the change.",
            metadata={"resource": stored.name, "etag": stored.etag},
        )


def copied(resource: _R) -> _R:
    """A copy for the store, which stamps what it is given: a job may run twice."""
    copy = type(resource)()
    copy.CopyFrom(resource)
    return copy


def cleaned(resource: _R) -> _R:
    """A copy without what the host sets itself, and without fields that this version does not know."""
    copy = copied(resource)
    copy.DiscardUnknownFields()
    for field in _STAMPED[copy.DESCRIPTOR.name]:
        copy.ClearField(field)
    return copy


def merged(stored: _R, wanted: _R, mask: FieldMask) -> tuple[_R, list[Violation]]:
    """``stored`` with the masked fields of ``wanted``; an empty mask or ``*`` means all that can be changed.

    The violations tell about masked fields that cannot be changed.
    """
    changeable = _CHANGEABLE[stored.DESCRIPTOR.name]
    found: list[Violation] = []
    whole = not mask.paths or list(mask.paths) == ["*"]
    for i, field in enumerate(() if whole else mask.paths):
        if field not in changeable:
            found.append(
                Violation(
                    f"update_mask.paths[{i}]",
                    f"{field!r} cannot be changed; these can: {', '.join(changeable)}",
                )
            )
    fresh = cleaned(stored)
    source = cleaned(wanted)
    for field in changeable if whole else mask.paths:
        if field in changeable:
            fresh.ClearField(field)
            part = type(stored)()
            part.CopyFrom(source)
            for other in part.DESCRIPTOR.fields:
                if other.name != field:
                    part.ClearField(other.name)
            fresh.MergeFrom(part)
    return fresh, found


def transformations(stored: Environment, wanted: Environment, fresh: Environment) -> list[Violation]:
    """What would make another environment out of a stored one.

    Args:
        stored: as it is.
        wanted: as it was sent; its kind may be left out.
        fresh: as it would be.
    """
    found: list[Violation] = []
    if wanted.kind not in {Environment.KIND_UNSPECIFIED, stored.kind}:
        found.append(
            Violation(
                "environment.kind",
                "cannot be changed: delete the environment's record and create it anew with the other kind",
            )
        )
    if bool(fresh.url) != bool(stored.url):
        found.append(
            Violation(
                "environment.url",
                "cannot turn an embedded environment into another one or back: create another environment",
            )
        )
    return found


def environment_violations(environment: Environment) -> list[Violation]:
    """What is wrong with an environment, whatever the state of the host."""
    found = _name("environment", "environment.name", environment.name)
    if environment.kind == Environment.KIND_UNSPECIFIED:
        found.append(Violation("environment.kind", "is required: DEVELOPMENT or TARGET"))
    for field in ("url", "connectivity_url"):
        if (url := getattr(environment, field)) and (wrong := _url(url)):
            found.append(Violation(f"environment.{field}", wrong))
    beside = environment.connectivity_url
    if signs_in(environment) and beside.lower().startswith("http:") and not _url(beside):
        found.append(
            Violation(
                "environment.connectivity_url",
                "must begin with https:// where url does: the host's token would travel unencrypted",
            )
        )
    if not environment.url or not _url(environment.url):
        found += _environment_sign_in(environment)
    if environment.connectivity_url and not environment.url:
        found.append(
            Violation(
                "environment.connectivity_url",
                "is not needed where url is empty: an embedded environment lists its connections itself",
            )
        )
    if environment.installed_apps and environment.url:
        found.append(
            Violation(
                "environment.installed_apps",
                "is for embedded environments only: a real one tells its apps itself",
            )
        )
    for i, maker in enumerate(environment.makers):
        found += _listed("principal", f"environment.makers[{i}]", maker, environment.makers[:i])
    for app, version in environment.installed_apps.items():
        where = f'environment.installed_apps["{app}"]'
        if not _APP.fullmatch(app):
            found.append(
                Violation(where, "is not the unique name of an app: letters, digits and _, at most 100")
            )
        if not _VERSION.fullmatch(version):
            found.append(
                Violation(where, f"{version!r} is not a version: one to four numbers joined by dots")
            )
    return found


def _environment_sign_in(environment: Environment) -> list[Violation]:
    where = "environment.sign_in"
    if signs_in(environment):
        return _sign_in_violations(where, environment.sign_in, environment.url)
    if not environment.HasField("sign_in"):
        return []
    return [Violation(where, "is for https environments only: nobody signs in to others; leave it out")]


def stage_sign_ins(pipeline: Pipeline, environment: Callable[[str], Environment | None]) -> list[Violation]:
    """What is wrong with the identities that stages have of their own; a missing environment says nothing."""
    found: list[Violation] = []
    for i, stage in enumerate(pipeline.stages):
        where, target = f"pipeline.stages[{i}].sign_in", environment(stage.environment)
        if not stage.HasField("sign_in") or target is None:
            continue
        if signs_in(target):
            found += _sign_in_violations(where, stage.sign_in, target.url)
        else:
            told = f"is for https environments only: nobody signs in to {target.name}"
            found.append(Violation(where, told))
    return found


def administered(before: Pipeline | None, after: Pipeline) -> list[str]:
    """The stages whose change is for administrators alone: of their own identity, and of where it acts."""
    old = {stage.name: stage for stage in before.stages} if before is not None else {}
    new = {stage.name: stage for stage in after.stages}
    return sorted(
        name for name in {*old, *new} if _acts(old.get(name, Stage())) != _acts(new.get(name, Stage()))
    )


def _acts(stage: Stage) -> tuple[bytes, str] | None:
    if not stage.HasField("sign_in"):
        return None
    return stage.sign_in.SerializeToString(deterministic=True), stage.environment


def _sign_in_violations(where: str, told: SignIn, url: str) -> list[Violation]:
    if told.method not in _TAKES:
        return [Violation(f"{where}.method", f"is required for an https environment: {_METHODS}")]
    word = SignIn.Method.Name(told.method).removeprefix("METHOD_").lower()
    takes = _TAKES[told.method]
    found = [
        Violation(f"{where}.{field}", f"is not used by the method {word}: leave it out")
        for field in ("tenant", "client_id", "authority")
        if getattr(told, field) and field not in takes
    ]
    if told.method in CREDENTIALS:
        found += [
            Violation(f"{where}.{field}", f"is required by the method {word}")
            for field in ("tenant", "client_id")
            if not getattr(told, field)
        ]
        if problem := authority_problem(told.authority, url):
            found.append(Violation(f"{where}.authority", problem))
    if told.tenant and "tenant" in takes and not _TENANT.fullmatch(told.tenant):
        found.append(Violation(f"{where}.tenant", "is neither an id nor a domain"))
    if told.client_id and "client_id" in takes and not _GUID.fullmatch(told.client_id):
        found.append(
            Violation(
                f"{where}.client_id",
                "is not the id of an application, as in 00000000-0000-0000-0000-000000000000",
            )
        )
    return found


def credential_violations(told: SignIn, request: SetEnvironmentCredentialRequest) -> list[Violation]:
    """What is wrong with a credential for the sign-in of an environment or a stage; never a part of it."""
    needed, given = CREDENTIALS.get(told.method), request.WhichOneof("credential")
    if needed is None:
        how = "takes no credential" if told.method else "is not signed in to"
        return [Violation("name", f"{request.name} {how}: set its sign_in to an application first")]
    text = getattr(request, given) if given else ""
    if given != needed or not text:
        return [Violation(needed, f"is required: {request.name} signs in with it")]
    if needed == "certificate":
        problem = certificate_problem(text)
    else:
        problem = "begins or ends with white space" if text != text.strip() else ""
    return [Violation(needed, problem)] if problem else []


def same_identity(before: Environment, after: Environment) -> bool:
    """Whether a credential that was set for an environment may still be used for it.

    A credential serves the address and the application that it was set for; who may change a record must not
    thereby send its secret elsewhere.
    """
    return before.url == after.url and before.sign_in == after.sign_in


def pipeline_violations(pipeline: Pipeline) -> list[Violation]:
    """What is wrong with a pipeline, whatever the state of the host."""
    found = _name("pipeline", "pipeline.name", pipeline.name)
    for i, name in enumerate(pipeline.development_environments):
        where = f"pipeline.development_environments[{i}]"
        found += _listed("environment", where, name, pipeline.development_environments[:i])
    if pipeline.owner:
        found += _name("principal", "pipeline.owner", pipeline.owner)
    for i, share in enumerate(pipeline.shares):
        where = f"pipeline.shares[{i}]"
        before = [s.principal for s in pipeline.shares[:i]]
        found += _listed("principal", f"{where}.principal", share.principal, before)
        if share.access == Share.ACCESS_UNSPECIFIED:
            found.append(Violation(f"{where}.access", "is required: RUN or EDIT"))
    if not pipeline.stages:
        found.append(Violation("pipeline.stages", "is required: a pipeline has at least one stage"))
    if len(pipeline.stages) > STAGES:
        found.append(
            Violation("pipeline.stages", f"has {len(pipeline.stages)} stages; at most {STAGES} are allowed")
        )
    slugs: set[str] = set()
    targets: set[str] = set()
    for i, stage in enumerate(pipeline.stages):
        where = f"pipeline.stages[{i}]"
        wrong = _name("stage", f"{where}.name", stage.name)
        if not wrong and not stage.name.startswith(f"{pipeline.name}/"):
            wrong.append(Violation(f"{where}.name", f"{stage.name} is not a stage of {pipeline.name}"))
        if not wrong and stage.name in slugs:
            wrong.append(Violation(f"{where}.name", f"{stage.name} is there twice"))
        slugs.add(stage.name)
        found += wrong
        wrong = _name("environment", f"{where}.environment", stage.environment)
        if not wrong and stage.environment in targets:
            wrong.append(
                Violation(
                    f"{where}.environment", f"{stage.environment} is already the target of an earlier stage"
                )
            )
        targets.add(stage.environment)
        found += wrong
        found += settings_violations(f"{where}.settings", stage.settings)
        found += _gate_violations(where, stage, first=i == 0)
        found += _hold_violations(where, stage)
    return found


def _hold_violations(path: str, stage: Stage) -> list[Violation]:
    found: list[Violation] = []
    solutions: set[str] = set()
    for i, hold in enumerate(stage.holds):
        where = f"{path}.holds[{i}]"
        if not _APP.fullmatch(hold.solution):
            found.append(Violation(f"{where}.solution", "is required: the unique name of a solution"))
        elif hold.solution.casefold() in solutions:
            found.append(Violation(f"{where}.solution", f"{hold.solution} is there twice"))
        solutions.add(hold.solution.casefold())
        if not _VERSION.fullmatch(hold.version):
            told = f"{hold.version!r} is not a version: one to four numbers joined by dots"
            found.append(Violation(f"{where}.version", told))
        if not 0 < len(hold.reason.strip()) <= freezes.REASON:
            told = f"is required, at most {freezes.REASON} characters: tell those who would deploy why"
            found.append(Violation(f"{where}.reason", told))
    return found


def _gate_violations(path: str, stage: Stage, *, first: bool) -> list[Violation]:
    found: list[Violation] = []
    kinds: set[Gate.Kind] = set()
    for i, gate in enumerate(stage.gates):
        where = f"{path}.gates[{i}]"
        if gate.kind not in _GATES:
            found.append(Violation(f"{where}.kind", f"is required: {', '.join(_GATES.values())}"))
        elif gate.kind in kinds:
            found.append(Violation(f"{where}.kind", f"{_GATES[gate.kind]} is there twice"))
        elif gate.kind == Gate.KIND_PRE_EXPORT and not first:
            found.append(Violation(f"{where}.kind", "PRE_EXPORT is for the first stage: only that exports"))
        kinds.add(gate.kind)
        if gate.webhook and (wrong := address_problem(gate.webhook)):
            found.append(Violation(f"{where}.webhook", wrong))
        if not gate.approvers:
            found.append(Violation(f"{where}.approvers", "is required: nobody could decide"))
        if len(gate.approvers) > APPROVERS:
            found.append(
                Violation(f"{where}.approvers", f"has {len(gate.approvers)}; at most {APPROVERS} are allowed")
            )
        for j, name in enumerate(gate.approvers):
            found += _listed("principal", f"{where}.approvers[{j}]", name, gate.approvers[:j])
        if not 0 <= gate.required <= APPROVERS:
            found.append(
                Violation(
                    f"{where}.required",
                    f"is {gate.required}: at most {APPROVERS}, and never more than people who may approve; 0 "
                    "means one",
                )
            )
        if not 0 <= gate.timeout_seconds <= rules.MOST_GATE_SECONDS:
            found.append(
                Violation(
                    f"{where}.timeout_seconds",
                    f"is {gate.timeout_seconds}: at most {rules.MOST_GATE_SECONDS}, a year; 0 means a week",
                )
            )
    return found


def settings_violations(path: str, settings: DeploymentSettings) -> list[Violation]:
    """Settings without a name, and settings that are there twice; Dataverse ignores the case of names."""
    found: list[Violation] = []
    named = (
        ("environment_variables", "schema_name", [v.schema_name for v in settings.environment_variables]),
        ("connection_references", "logical_name", [c.logical_name for c in settings.connection_references]),
    )
    for field, key, given in named:
        seen: set[str] = set()
        for i, name in enumerate(given):
            where = f"{path}.{field}[{i}].{key}"
            if not name.strip():
                found.append(Violation(where, "is required"))
            elif name.casefold() in seen:
                found.append(Violation(where, f"{name} is there twice (upper and lower case mean the same)"))
            seen.add(name.casefold())
    return found


def principal_violations(principal: Principal) -> list[Violation]:
    """What is wrong with a principal, whatever the state of the host."""
    found = _name("principal", "principal.name", principal.name)
    group = principal.kind == Principal.KIND_GROUP
    if principal.kind == Principal.KIND_UNSPECIFIED:
        found.append(Violation("principal.kind", "is required: PERSON, SERVICE or GROUP"))
    if principal.members and not group:
        found.append(Violation("principal.members", "is for groups only"))
    if principal.identities and group:
        found.append(Violation("principal.identities", "is not for groups: nobody signs in as a group"))
    if principal.person and principal.kind != Principal.KIND_SERVICE:
        found.append(Violation("principal.person", "is for services only: the person behind it"))
    if principal.person:
        found += _name("principal", "principal.person", principal.person)
    for i, member in enumerate(principal.members):
        found += _listed("principal", f"principal.members[{i}]", member, principal.members[:i])
    for i, identity in enumerate(principal.identities):
        where = f"principal.identities[{i}]"
        if identity.certificate:
            if identity.issuer or identity.subject:
                found.append(Violation(where, "is either issuer and subject, or certificate"))
            if not _ALTERNATIVE_NAME.fullmatch(identity.certificate):
                found.append(
                    Violation(
                        f"{where}.certificate",
                        "is an alternative name with its type before it: URI:…, DNS:… or email:…",
                    )
                )
        else:
            if not _ISSUER.fullmatch(identity.issuer):
                found.append(
                    Violation(f"{where}.issuer", "is the issuer's address, https://…, without a user name")
                )
            if not identity.subject.strip():
                found.append(Violation(f"{where}.subject", "is required: what the issuer calls it"))
    return found


def principal_preconditions(
    wanted: Principal,
    principal: Callable[[str], Principal | None],
    identified: Callable[[str], str | None],
) -> list[Violation]:
    """What the host's state has against a principal: others that are missing, or have its identity."""
    missing = ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND
    found: list[Violation] = []
    for i, name in enumerate(wanted.members):
        member, where = principal(name), f"principal.members[{i}]"
        if member is None:
            found.append(_unmet(missing, where, f"there is no {name}: create it first"))
        elif member.kind == Principal.KIND_GROUP:
            found.append(
                _unmet(missing, where, f"{name} is a group, and groups have persons and services only")
            )
    if wanted.person:
        behind = principal(wanted.person)
        if behind is None or behind.kind != Principal.KIND_PERSON:
            found.append(_unmet(missing, "principal.person", f"there is no person {wanted.person}"))
    for i, identity in enumerate(wanted.identities):
        owner = identified(identity_key(identity))
        if owner not in {None, wanted.name}:
            found.append(
                _unmet(
                    ErrorReason.ERROR_REASON_RESOURCE_IN_USE,
                    f"principal.identities[{i}]",
                    f"{owner} has this identity: take it out there first",
                )
            )
    return found


def environment_preconditions(
    config: Config,
    environment: Environment,
    others: Iterable[Environment],
    principal: Callable[[str], Principal | None],
) -> list[Violation]:
    """What the host's state has against an environment.

    Its makers may be missing, the host may lie in another region, and another record may have its address:
    then one environment would be development and target, or have two queues.
    """
    found = [
        _unmet(
            ErrorReason.ERROR_REASON_ENVIRONMENT_DUPLICATE,
            "environment.url",
            f"{other.name} has this address: use that record in every pipeline, or delete it first",
        )
        for other in others
        if environment.url and other.name != environment.name and _same_address(environment.url, other.url)
    ]
    found += [
        wrong._replace(subject="environment.region")
        for wrong in rules.region_violations(config, [environment])
    ]
    return found + [
        _unmet(
            ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND,
            f"environment.makers[{i}]",
            f"there is no {name}: create it first",
        )
        for i, name in enumerate(environment.makers)
        if names.matches("principal", name) and principal(name) is None
    ]


def _same_address(one: str, other: str) -> bool:
    try:
        return bool(other) and environment_address(one) == environment_address(other)
    except ValueError:  # which is a violation of its own
        return False


def pipeline_preconditions(
    config: Config,
    pipeline: Pipeline,
    environment: Callable[[str], Environment | None],
    principal: Callable[[str], Principal | None],
) -> list[Violation]:
    """What the host's state has against a pipeline.

    Environments may be missing or of the wrong kind or region, and principals may be missing.
    """
    uses = [
        (f"pipeline.development_environments[{i}]", name, Environment.KIND_DEVELOPMENT)
        for i, name in enumerate(pipeline.development_environments)
    ]
    uses += [
        (f"pipeline.stages[{i}].environment", stage.environment, Environment.KIND_TARGET)
        for i, stage in enumerate(pipeline.stages)
    ]
    named = [("pipeline.owner", pipeline.owner)] if pipeline.owner else []
    named += [(f"pipeline.shares[{i}].principal", share.principal) for i, share in enumerate(pipeline.shares)]
    named += [
        (f"pipeline.stages[{i}].gates[{j}].approvers[{k}]", approver)
        for i, stage in enumerate(pipeline.stages)
        for j, gate in enumerate(stage.gates)
        for k, approver in enumerate(gate.approvers)
    ]
    found: list[Violation] = [
        _unmet(ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND, path, f"there is no {name}: create it first")
        for path, name in named
        if names.matches("principal", name) and principal(name) is None
    ]
    known: dict[str, tuple[str, Environment]] = {}
    for path, name, kind in uses:
        if not names.matches("environment", name):
            continue
        stored = environment(name)
        if stored is None:
            found.append(
                _unmet(
                    ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND,
                    path,
                    f"there is no {name} that you may use: create it first, "
                    "or ask an administrator to name you among its makers",
                )
            )
            continue
        known.setdefault(name, (path, stored))
        if stored.kind != kind:
            has, needed = (_KINDS[k] for k in (stored.kind, kind))
            found.append(
                _unmet(
                    ErrorReason.ERROR_REASON_ENVIRONMENT_KIND,
                    path,
                    f"{name} is a {has} environment, and a {needed} environment belongs here",
                )
            )
    regions = rules.region_violations(config, [stored for _, stored in known.values()])
    return found + [wrong._replace(subject=known[wrong.subject][0]) for wrong in regions]


def approval_violations(
    pipeline: Pipeline, stored: Pipeline | None, people: Callable[[str], Collection[str] | None]
) -> list[Violation]:
    """Gates that ask for more approvals than there are people who may give them.

    A gate that stays as it is stays: its approvers may have become fewer since.

    Args:
        pipeline: as it is wanted.
        stored: as it is, or None.
        people: who is behind a principal and may approve by now; None where there is no such principal.
    """
    before = [] if stored is None else [(s.name, gate) for s in stored.stages for gate in s.gates]
    found: list[Violation] = []
    for i, stage in enumerate(pipeline.stages):
        for j, gate in enumerate(stage.gates):
            behind = [people(name) for name in gate.approvers if names.matches("principal", name)]
            if (stage.name, gate) in before or not behind or None in behind:
                continue
            count, required = len({p for some in behind for p in some or ()}), gate.required or 1
            if required > count:
                found.append(
                    Violation(
                        f"pipeline.stages[{i}].gates[{j}].required",
                        f"is {required}, and {count} {'person' if count == 1 else 'people'} may approve here "
                        "(not disabled, the role VIEWER at least, with their services as one): name more "
                        "approvers, or ask fewer",
                    )
                )
    return found


def freeze_violations(freeze: Freeze) -> list[Violation]:
    """What is wrong with a freeze, whatever the state of the host."""
    return _name("freeze", "freeze.name", freeze.name) + freezes.violations(freeze)


def freeze_preconditions(
    freeze: Freeze, pipeline: Callable[[str], Pipeline | None], others: int
) -> list[Violation]:
    """What the host's state has against a freeze: it is of something that is not there, or one too many.

    Args:
        freeze: without violations.
        pipeline: looks one up.
        others: how many there are of its scope.
    """
    found: list[Violation] = []
    if freeze.scope:
        of = pipeline(rules.frozen_pipeline(freeze))
        known = {of.name, *(s.name for s in of.stages)} if of is not None else ()
        if freeze.scope not in known:
            missing = ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND
            found.append(_unmet(missing, "freeze.scope", f"there is no {freeze.scope}"))
    if others >= freezes.MOST:
        told = f"there are {others} freezes of this scope already: delete those that have ended"
        found.append(_unmet(ErrorReason.ERROR_REASON_LIMIT_EXCEEDED, "freeze.scope", told))
    return found


def connection_violations(environment: str, connection: Connection) -> list[Violation]:
    """What is wrong with a connection that is to be created in ``environment``."""
    found: list[Violation] = []
    if connection.name:
        found += _name("connection", "connection.name", connection.name)
        if not found and not connection.name.startswith(f"{environment}/"):
            found.append(
                Violation("connection.name", f"{connection.name} is not a connection of {environment}")
            )
    if not connection.connector_id:
        found.append(
            Violation(
                "connection.connector_id",
                "is required, e.g. /providers/Microsoft.PowerApps/apis/shared_office365",
            )
        )
    return found


def require_unused(name: str, *, pipelines: Collection[str] = (), runs: Collection[str] = ()) -> None:
    """Lets a resource be deleted that nothing uses.

    Raises:
        FailedPrecondition: pipelines or unfinished runs use it; it names them all.
    """
    if not pipelines and not runs:
        return
    reason = ErrorReason.ERROR_REASON_RESOURCE_IN_USE
    found = [_unmet(reason, p, f"{p} uses {name}: take it out of the pipeline first") for p in pipelines]
    found += [
        _unmet(reason, r, f"{r} uses {name} and is not finished: wait for it or cancel it") for r in runs
    ]
    told = [
        f"{len(of)} {word}{'s' * (len(of) > 1)}"
        for of, word in ((pipelines, "pipeline"), (runs, "run"))
        if of
    ]
    raise FailedPrecondition(
        reason,
        f"{name} is in use by {' and '.join(told)}",
        remedy="Take it out of the pipelines, and let the runs finish or cancel them.",
        violations=found,
        metadata={"resource": name},
    )


def _name(kind: str, path: str, name: str) -> list[Violation]:
    try:
        names.parse(kind, name, path)
    except InvalidArgument as error:
        return list(error.violations)
    return []


def _listed(kind: str, path: str, name: str, before: Sequence[str]) -> list[Violation]:
    found = _name(kind, path, name)
    if not found and name in before:
        found.append(Violation(path, f"{name} is listed twice"))
    return found


def _url(url: str) -> str:
    """What is wrong with an address, or nothing."""
    if not _URL.fullmatch(url):
        return "holds characters that no address has"
    try:
        environment_address(url)
    except ValueError as error:
        return str(error)
    return ""


def _first(violations: Sequence[Violation]) -> str:
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return f"{violations[0].subject}: {violations[0].description}{more}"


def _unmet(reason: ErrorReason, subject: str, description: str) -> Violation:
    return Violation(subject, description, reason_name(reason))
