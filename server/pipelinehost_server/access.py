"""Who is calling, and what each RPC asks of a caller: one table, below every transport."""

from __future__ import annotations

import enum
import hashlib
import hmac
import logging
import operator
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from google.protobuf.message import Message

from pipelinehost import names
from pipelinehost.errors import PermissionDenied, Unauthenticated
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Artifact, Event, Freeze, Identity, Principal, Run, Token
from pipelinehost_server import named, rules
from pipelinehost_server.issuer import Issuer, NotAccepted
from pipelinehost_server.store import VISIBLE, Kind, Operator, Reach, Reads, Store, Transaction, identity_key

ADMINISTRATOR: Final = "principals/admin"
"""The principal that the host's first token belongs to."""
HIDDEN_RUN: Final = "runs/-"
"""Stands for a run that the caller may not see, where its place matters."""
KNOWN: Final = 10_000
"""Most callers whose identity is kept at hand."""

_TOKEN = re.compile(r"ph_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
_LOG = logging.getLogger(__name__)
_AS_OF: Final = ContextVar("as_of", default=-1)
"""How often rights had changed when the caller of this call was identified; decisions come after that."""


class Permission(enum.IntEnum):
    """What an RPC asks of its caller's role; the number is the least role that has it."""

    PUBLIC = -1
    SIGNED_IN = Principal.ROLE_UNSPECIFIED
    VIEW = Principal.ROLE_VIEWER
    RUN = Principal.ROLE_USER
    MAKE = Principal.ROLE_MAKER
    ADMINISTER = Principal.ROLE_ADMINISTRATOR


class Relation(enum.Enum):
    """What an RPC asks of its caller's relation to a resource that the request names."""

    SEES = "see"
    RUNS = "deploy through"
    EDITS = "change"
    OWNS = "share or delete"
    MAKES = "use, in pipelines of their own,"
    IS = "act as"
    FREEZES = "freeze"
    GOVERNS = "give"
    UNPACKS = "have the unmanaged package of"


_REACH: Final = {
    Relation.SEES: Reach.SEE,
    Relation.RUNS: Reach.RUN,
    Relation.EDITS: Reach.EDIT,
    Relation.OWNS: Reach.OWN,
    Relation.FREEZES: Reach.EDIT,
}
_LEAST: Final = {
    Reach.SEE: Permission.VIEW,
    Reach.RUN: Permission.RUN,
    Reach.EDIT: Permission.MAKE,
    Reach.OWN: Permission.MAKE,
}


class Rule:
    """What an RPC asks of its caller: a role, and relations to the resources that the request names.

    Administrators need no relation. A field that the request leaves empty asks for none, but for FREEZES,
    where it stands for the whole host. Nobody else may fill in a field that GOVERNS.
    """

    __slots__ = ("permission", "relations")

    def __init__(self, permission: Permission, **relations: Relation) -> None:
        """The keys are paths of the request's fields, with two underscores for each dot."""
        self.permission = permission
        self.relations: tuple[tuple[str, Callable[[Any], str], Relation], ...] = tuple(
            (path, operator.attrgetter(path), relation)
            for field, relation in relations.items()
            for path in [field.replace("__", ".")]
        )


_HOST = "/pipelinehost.v1.PipelineHost/"
_ARTIFACTS = "/pipelinehost.v1.Artifacts/"
_HEALTH = "/grpc.health.v1.Health/"
_SEES, _RUNS, _EDITS, _OWNS, _MAKES, _IS, _FREEZES, _GOVERNS, _UNPACKS = Relation

POLICY: Mapping[str, Rule] = {
    _HOST + "GetHost": Rule(Permission.SIGNED_IN),
    _HOST + "GetPrincipal": Rule(Permission.SIGNED_IN, name=_SEES),
    _HOST + "ListPrincipals": Rule(Permission.SIGNED_IN),
    _HOST + "CreatePrincipal": Rule(Permission.ADMINISTER),
    _HOST + "UpdatePrincipal": Rule(Permission.ADMINISTER),
    _HOST + "DeletePrincipal": Rule(Permission.ADMINISTER),
    _HOST + "CreateToken": Rule(Permission.ADMINISTER),
    _HOST + "ListTokens": Rule(Permission.SIGNED_IN, principal=_IS),
    _HOST + "RevokeToken": Rule(Permission.SIGNED_IN, name=_IS),
    _HOST + "GetEnvironment": Rule(Permission.VIEW, name=_SEES),
    _HOST + "ListEnvironments": Rule(Permission.VIEW),
    _HOST + "CreateEnvironment": Rule(Permission.ADMINISTER),
    _HOST + "UpdateEnvironment": Rule(Permission.ADMINISTER),
    _HOST + "DeleteEnvironment": Rule(Permission.ADMINISTER),
    _HOST + "SetEnvironmentCredential": Rule(Permission.ADMINISTER),
    _HOST + "TakeOverEnvironment": Rule(Permission.ADMINISTER),
    _HOST + "CheckEnvironment": Rule(Permission.RUN, name=_SEES),
    _HOST + "ListSolutions": Rule(Permission.RUN, environment=_RUNS),
    _HOST + "DescribeSolution": Rule(
        Permission.RUN, artifact=_SEES, installed__environment=_RUNS, stage=_SEES
    ),
    _HOST + "ListConnections": Rule(Permission.RUN, environment=_RUNS),
    _HOST + "CreateConnection": Rule(Permission.ADMINISTER),
    _HOST + "DeleteConnection": Rule(Permission.ADMINISTER),
    _HOST + "GetPipeline": Rule(Permission.VIEW, name=_SEES),
    _HOST + "ListPipelines": Rule(Permission.VIEW),
    _HOST + "CreatePipeline": Rule(Permission.MAKE),
    _HOST + "UpdatePipeline": Rule(Permission.MAKE, pipeline__name=_EDITS),
    _HOST + "DeletePipeline": Rule(Permission.MAKE, name=_OWNS),
    _HOST + "GetFreeze": Rule(Permission.VIEW, name=_SEES),
    _HOST + "ListFreezes": Rule(Permission.VIEW),
    _HOST + "CreateFreeze": Rule(Permission.MAKE, freeze__scope=_FREEZES),
    _HOST + "UpdateFreeze": Rule(Permission.MAKE, freeze__name=_FREEZES),
    _HOST + "DeleteFreeze": Rule(Permission.MAKE, name=_FREEZES),
    _HOST + "ValidateDeployment": Rule(
        Permission.RUN,
        deployment__pipeline=_RUNS,
        deployment__artifact=_SEES,
        deployment__override_reason=_GOVERNS,
    ),
    _HOST + "Deploy": Rule(Permission.RUN, pipeline=_RUNS, artifact=_SEES, override_reason=_GOVERNS),
    _HOST + "RestoreArtifact": Rule(Permission.MAKE, artifact=_UNPACKS, environment=_MAKES),
    _HOST + "GetRun": Rule(Permission.VIEW, name=_SEES),
    _HOST + "ListRuns": Rule(Permission.VIEW),
    _HOST + "WatchRun": Rule(Permission.VIEW, name=_SEES),
    _HOST + "CancelRun": Rule(Permission.RUN, name=_RUNS),
    _HOST + "RescheduleRun": Rule(Permission.RUN, name=_RUNS, override_reason=_GOVERNS),
    _HOST + "RetryRun": Rule(Permission.RUN, name=_RUNS),
    _HOST + "ResolveRun": Rule(Permission.ADMINISTER),
    _HOST + "Approve": Rule(Permission.VIEW, name=_SEES),
    _HOST + "Reject": Rule(Permission.VIEW, name=_SEES),
    _HOST + "ListGateNotes": Rule(Permission.ADMINISTER),
    _HOST + "ListFindings": Rule(Permission.VIEW, run=_SEES),
    _HOST + "ListComponentResults": Rule(Permission.VIEW, run=_SEES),
    _HOST + "ListRunSettings": Rule(Permission.VIEW, run=_SEES),
    _HOST + "GetRunPipeline": Rule(Permission.VIEW, run=_SEES),
    _HOST + "GetQueue": Rule(Permission.VIEW, environment=_SEES),
    _HOST + "ListEvents": Rule(Permission.VIEW),
    _HOST + "WatchEvents": Rule(Permission.VIEW),
    _HOST + "VerifyEvents": Rule(Permission.ADMINISTER),
    _HOST + "ExportEvents": Rule(Permission.ADMINISTER),
    _HOST + "PruneEvents": Rule(Permission.ADMINISTER),
    _ARTIFACTS + "GetArtifact": Rule(Permission.VIEW, name=_SEES),
    _ARTIFACTS + "ListArtifacts": Rule(Permission.VIEW),
    _ARTIFACTS + "BlockArtifact": Rule(Permission.ADMINISTER),
    _ARTIFACTS + "UnblockArtifact": Rule(Permission.ADMINISTER),
    _ARTIFACTS + "UploadArtifact": Rule(Permission.RUN),
    _ARTIFACTS + "DownloadArtifact": Rule(Permission.RUN, name=_SEES),
    _HEALTH + "Check": Rule(Permission.PUBLIC),
    _HEALTH + "List": Rule(Permission.PUBLIC),
    _HEALTH + "Watch": Rule(Permission.PUBLIC),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule(Permission.SIGNED_IN),
}
"""One entry for every RPC that the host serves; the guard refuses to protect a method that has none.

Lists have no relation: what a caller may not see is no row of theirs, as :meth:`Access.rows` says. A watch
of the events shows what their list does, as :meth:`Access.sight` says.
"""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request."""

    name: str
    """``principals/{principal}``."""
    role: int = Principal.ROLE_UNSPECIFIED
    """The highest of the principal's own and its groups'."""
    groups: tuple[str, ...] = ()
    """That it belongs to."""
    person: str = ""
    """Who is behind it: itself, unless it is a service of somebody."""
    token: str = ""
    """``tokens/{token}`` that the call came with."""
    identity: str = ""
    """Key of the identity of another system that it came with in place of a token."""
    until: float = float("inf")
    """When what it came with expires, in seconds since 1970."""

    @property
    def administrator(self) -> bool:
        """Whether everything is allowed."""
        return self.role >= Principal.ROLE_ADMINISTRATOR

    @property
    def principals(self) -> tuple[str, ...]:
        """Whose rights the caller has: its own and its groups'."""
        return (self.name, *self.groups)


class Access:
    """Knows who calls, and decides what they may do.

    A token is 256 random bits. Of it the store has an HMAC under a secret that lies encrypted: whoever steals
    the store can neither sign in nor try tokens out.

    Args:
        store: of the principals.
        secret: of this store, for the HMAC; with another one no token is known.
        issuer: whose tokens are accepted beside the host's own.
    """

    def __init__(self, store: Store, secret: bytes, issuer: Issuer | None = None) -> None:
        self._store = store
        self._pepper = hmac.digest(secret, b"bearer tokens", "sha256")
        self._issuer = issuer
        self._known: dict[bytes, tuple[Caller, float]] = {}
        self._told_of = store.reads.rights_changed
        self._known_as_of = self._told_of, 0
        self._listeners: list[Callable[[], None]] = []
        store.listen(self._on_events)

    def listen(self, callback: Callable[[], None]) -> None:
        """Calls back on the loop when somebody may have lost a right. It must not raise."""
        self._listeners.append(callback)

    def _on_events(self, events: Sequence[Event]) -> None:
        if self._told_of != self._store.reads.rights_changed:
            self._told_of = self._store.reads.rights_changed
            for listener in self._listeners:
                listener()

    def _known_now(self) -> dict[bytes, tuple[Caller, float]]:
        """The callers that were identified since rights or the issuer's keys changed, each with its end."""
        rights = self._store.reads.rights_changed
        _AS_OF.set(rights)
        as_of = rights, 0 if self._issuer is None else self._issuer.fetched
        if as_of != self._known_as_of or len(self._known) >= KNOWN:
            self._known.clear()
            self._known_as_of = as_of
        return self._known

    def identify(self, token: str) -> Caller:
        """The caller that a token belongs to.

        Raises:
            Unauthenticated: the host does not know the token, or refuses it by now.
        """
        key = hashlib.sha256(token.encode(errors="replace")).digest()
        known = self._known_now().get(key)
        if known is not None and time.time() < known[1]:
            return known[0]
        reads = self._store.reads
        if _TOKEN.fullmatch(token):
            found = reads.token_of(self._digest(key))
            return self._remembered(key, None if found is None else _of_token(reads, found))
        return self._remembered(key, self._of_issuer(reads, token))

    def identify_certificate(self, pem: bytes) -> Caller:
        """The caller that a client certificate belongs to, whose chain the connection has checked.

        Raises:
            Unauthenticated: it names nobody, or more than one, or has expired since.
        """
        key = hashlib.sha256(pem).digest()
        known = self._known_now().get(key)
        if known is not None and time.time() < known[1]:
            return known[0]
        reads = self._store.reads
        alternative, until = _alternative_names(pem)
        keys = [identity_key(Identity(certificate=name)) for name in alternative]
        meant = {name: key for key in keys if (name := reads.identified(key))}
        identity = meant.popitem()[1] if len(meant) == 1 else ""
        return self._remembered(key, _of_identity(reads, identity, until))

    def _remembered(self, key: bytes, caller: Caller | None) -> Caller:
        if caller is None or time.time() >= caller.until:
            raise unknown()
        self._known[key] = caller, caller.until
        return caller

    def _of_issuer(self, reads: Reads, token: str) -> Caller | None:
        if self._issuer is None:
            return None
        try:
            bearer = self._issuer.verify(token)
        except NotAccepted as error:
            _LOG.debug("a token was not accepted: %s", error)
            return None
        identity = Identity(issuer=self._issuer.name, subject=bearer.subject)
        return _of_identity(reads, identity_key(identity), bearer.until)

    def still(self, caller_: Caller) -> Caller:
        """The caller as of now.

        Raises:
            Unauthenticated: nobody can sign in as this caller any more, or not with that token.
        """
        fresh = renewed(self._store.reads, caller_)
        if time.time() >= fresh.until:
            raise unknown()
        return fresh

    def check(self, caller: Caller, method: str) -> None:
        """Whether the caller's role allows the method at all.

        Raises:
            PermissionDenied: it does not.
        """
        permission = POLICY[method].permission
        if caller.role < permission:
            raise _denied(
                f"{caller.name} needs the role {_role(permission)} for {method.rpartition('/')[2]}, and has "
                f"{_role(caller.role)}",
                remedy="Ask an administrator of the host to do it, or to give you that role.",
            )

    def require(self, caller: Caller, method: str, request: Message, reads: Reads | None = None) -> None:
        """Whether the caller has the relations that the method asks for.

        Args:
            caller: who, of whom :meth:`check` said yes.
            method: its full name.
            request: what names the resources.
            reads: of a transaction, to decide as of that; the committed state without it.

        Raises:
            NotFound: the request names something that is not there, or that the caller may not see.
            PermissionDenied: the caller sees it, and may not do this with it.
            InvalidArgument: a name has no such shape.
        """
        if caller.role >= Permission.ADMINISTER:
            return
        for field, get, relation in POLICY[method].relations:
            if (name := get(request)) or relation is Relation.FREEZES:
                _relate(reads or self._store.reads, caller, relation, name, field)

    def require_unpacks(self, caller_: Caller, artifact: Artifact) -> None:
        """Whether the caller, who sees an artifact, may by now have its unmanaged package.

        Raises:
            PermissionDenied: they may not.
            Unauthenticated: nobody can sign in as this caller any more.
        """
        if not unpacks(self._store.reads, self.still(caller_), artifact):
            raise _unrelated(caller_, Relation.UNPACKS, artifact.name)

    def again(self, caller_: Caller, method: str, request: Message) -> Callable[[Reads], None]:
        """What decides the same once more, as of a transaction's own writes or of what is committed by then.

        Where no rights have changed since the caller of this call was identified, the guard's decision holds.
        """
        as_of = _AS_OF.get()

        def decide(reads: Reads) -> None:
            if time.time() >= caller_.until:
                raise unknown()
            if reads.rights_changed <= as_of:
                return
            fresh = _again(reads, caller_)
            if fresh is None:
                if caller(reads, caller_.name) is not None:
                    raise unknown()
                raise _denied(f"{caller_.name} may not sign in any more")
            self.check(fresh, method)
            self.require(fresh, method, request, reads)

        return decide

    @staticmethod
    def rows(caller: Caller, kind: Kind) -> tuple[tuple[str, Operator, Any], ...]:
        """The condition that leaves of a list what the caller may see."""
        if caller.administrator or (kind == "principal" and caller.role >= Permission.MAKE):
            return ()
        return ((VISIBLE, "in", caller.principals),)

    def sight(self, caller_: Caller, method: str) -> Callable[[str], bool]:
        """What tells whether the caller sees the events about a subject, as of when it is asked.

        It raises what ends the method for a caller who has lost it: see :meth:`still` and :meth:`check`.
        """
        as_of, fresh = -1, caller_

        def sees(subject: str) -> bool:
            nonlocal as_of, fresh
            if (now := self._store.reads.rights_changed) != as_of:
                fresh, as_of = self.still(caller_), now
                self.check(fresh, method)
            return fresh.administrator or self._store.reads.sees_events_about(subject, fresh.principals)

        return sees

    async def prepare(self, folder: Path, state_file: Path | None) -> Path:
        """Makes the administrator and its token on the first start, and leaves it for clients here.

        A restart keeps the token. A host whose ``admin-token`` was taken away on purpose stays without one.

        Args:
            folder: the host's data folder; the token lies in its ``admin-token``.
            state_file: where the client of this user looks for the token of this host's address.

        Returns:
            The file in the data folder, whether it is there or not.
        """
        path = folder / "admin-token"
        token = _read(path)
        if self._store.reads.last_sequence() == 0:
            if token is None:
                token = _new()
                _write(path, token)
            await self._make_administrator(token, "made at the first start")
        else:
            await self._store.write(self._complete)
            if token is not None and self._store.reads.token_of(self._digest(_sha256(token))) is None:
                _LOG.warning("the token in %s is not of this host's store", path)
                token = None
        if token is not None and state_file is not None:
            _leave(state_file, token)
        return path

    async def new_administrator_token(self, folder: Path) -> Path:
        """Makes another token of the first administrator, whom it brings back if need be.

        Returns:
            The file ``admin-token`` with it, in place of what was there.
        """
        token = _new()
        await self._store.write(self._complete)
        await self._make_administrator(token, "made with new-admin-token")
        _write(folder / "admin-token", token)
        return folder / "admin-token"

    async def _make_administrator(self, token: str, description: str) -> None:
        name, digest = _name(token), self._digest(_sha256(token))

        def job(tx: Transaction) -> None:
            _restore_administrator(tx)
            if tx.token_of(digest) is None:
                made = tx.put_token(
                    Token(name=name, principal=ADMINISTRATOR, description=description), digest
                )
                tx.append(Event(kind=Event.KIND_TOKEN_CREATED, actor="host", subject=made.name, token=made))

        await self._store.write(job)

    def _complete(self, tx: Transaction) -> None:
        """Brings what the first schema kept of tokens up to date."""
        first = tx.first_tokens()
        if first:
            _restore_administrator(tx)
        for name, sha256, principal in first:
            token = Token(name=name, principal=principal, description="of the host's first version")
            token.create_time.GetCurrentTime()
            tx.replace_first_token(token, self._digest(sha256))

    def new_token(self) -> tuple[str, str, bytes]:
        """Name, secret and digest of a new token."""
        secret = _new()
        return _name(secret), secret, self._digest(_sha256(secret))

    def _digest(self, sha256: bytes) -> bytes:
        return hmac.digest(self._pepper, sha256, "sha256")


def caller(reads: Reads, name: str, token: str = "") -> Caller | None:
    """The caller of this name with the rights that it has now; ``None`` if it may not sign in."""
    found = reads.principal(name)
    if found is None or found.disabled or found.kind == Principal.KIND_GROUP:
        return None
    if found.person:
        behind = reads.principal(found.person)
        if behind is None or behind.disabled:
            return None
    groups = [group for group in reads.groups_of(name) if not group.disabled]
    role = max([found.role, *(group.role for group in groups)])
    return Caller(name, role, tuple(group.name for group in groups), found.person or name, token)


def _of_token(reads: Reads, token: Token) -> Caller | None:
    if token.HasField("revoke_time"):
        return None
    found = caller(reads, token.principal, token.name)
    if found is None or not token.HasField("expire_time"):
        return found
    return replace(found, until=token.expire_time.ToNanoseconds() / 1e9)


def _of_identity(reads: Reads, identity: str, until: float) -> Caller | None:
    name = reads.identified(identity)
    found = caller(reads, name) if name else None
    return None if found is None else replace(found, identity=identity, until=until)


def _again(reads: Reads, caller_: Caller) -> Caller | None:
    """The caller as of now; ``None`` if nobody signs in any more with what the call came with."""
    if caller_.token:
        token = reads.token(caller_.token)
        return None if token is None else _of_token(reads, token)
    if caller_.identity:
        found = _of_identity(reads, caller_.identity, caller_.until)
        return found if found is not None and found.name == caller_.name else None
    return caller(reads, caller_.name)


def renewed(reads: Reads, caller_: Caller) -> Caller:
    """The caller with the rights that it has by now, for what a job decides beyond the policy.

    Raises:
        Unauthenticated: nobody signs in any more with what the call came with.
    """
    fresh = _again(reads, caller_)
    if fresh is None:
        raise unknown()
    return fresh


def people(reads: Reads, name: str) -> set[str] | None:
    """Who is behind a principal and may see and approve by now; ``None`` where there is no such principal.

    A group stands for its members, a service for its person.
    """
    found = reads.principal(name)
    if found is None:
        return None
    if found.kind != Principal.KIND_GROUP:
        able = [caller(reads, name)]
    else:
        able = [] if found.disabled else [caller(reads, member) for member in found.members]
    return {who.person for who in able if who is not None and who.role >= Permission.VIEW}


def may_go_on(reads: Reads, run: Run) -> bool:
    """Whether the requester of a run could ask for it now."""
    name = run.requester if "/" in run.requester else names.principal(run.requester)  # of the first version
    found = caller(reads, name)
    if found is None:
        return False
    if found.administrator:
        return True
    if run.pipeline:
        return reach(reads, found, run.pipeline) >= Reach.RUN
    return (
        found.role >= Permission.MAKE
        and reads.makes(run.target_environment, found.principals)
        and unpacks(reads, found, reads.artifact(run.artifact))
    )


def reach(reads: Reads, caller: Caller, pipeline: str) -> int:
    """How far the caller's role and relation together reach into a pipeline; 0 for not at all."""
    if caller.administrator:
        return Reach.OWN
    found = reads.reach(pipeline, caller.principals)
    while found and caller.role < _LEAST[Reach(found)]:
        found -= 1
    return found


def unpacks(reads: Reads, caller: Caller, artifact: Artifact | None) -> bool:
    """Whether the caller, who sees an artifact, may have the unmanaged package beside the managed one.

    Somebody may see an artifact because they had its managed bytes, as every customer has: that gives no
    right to what it was made from. Who sees the environment that it was exported from does.
    """
    if caller.administrator or artifact is None or not artifact.managed or not artifact.source_sha256:
        return True
    return reads.seen("environment", artifact.source_environment, caller.principals)


def _alternative_names(pem: bytes) -> tuple[set[str], float]:
    """The names of a certificate, each with its type, and when it expires."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return set(), 0.0
    typed: dict[str, type[x509.DNSName | x509.UniformResourceIdentifier | x509.RFC822Name]] = {
        "DNS": x509.DNSName,
        "URI": x509.UniformResourceIdentifier,
        "email": x509.RFC822Name,
    }
    alternative = {
        f"{word}:{name}" for word, kind in typed.items() for name in found.get_values_for_type(kind)
    }
    return alternative, certificate.not_valid_after_utc.timestamp()


def unknown() -> Unauthenticated:
    """The error for a token that nobody may sign in with: it does not say why."""
    return Unauthenticated(
        ErrorReason.ERROR_REASON_TOKEN_INVALID,
        "the host does not know this token",
        remedy="Use a token of this very host that was neither revoked nor has expired; its administrators "
        "make new ones.",
    )


def _relate(reads: Reads, caller: Caller, relation: Relation, name: str, field: str) -> None:
    if relation is Relation.GOVERNS or not name:
        what = f"give {field}" if name else "freeze the whole host"
        raise _denied(f"{caller.name} may not {what}: that is for administrators", remedy=_ASK)
    collection = name.partition("/")[0]
    sees = allowed = False
    match collection:
        case "pipelines":
            of_stage = field == "stage" or (relation is Relation.FREEZES and "/stages/" in name)
            kind = "stage" if of_stage else "pipeline"
            parts = names.parse(kind, name, field)
            found = reach(reads, caller, names.pipeline(parts[0]))
            sees, allowed = found > 0, found >= _REACH.get(relation, Reach.OWN + 1)
        case "runs":
            names.parse("run", name, field)
            of = reads.run_of(name)
            if of is not None and of[0]:
                found = reach(reads, caller, of[0])
            else:
                found = Reach.OWN if of is not None and of[1] == caller.name else 0
            sees, allowed = found > 0, found >= _REACH.get(relation, Reach.OWN + 1)
        case "environments":
            names.parse("environment", name, field)
            sees = reads.seen("environment", name, caller.principals)
            asked = reads.runs if relation is Relation.RUNS else reads.makes
            allowed = sees and (relation is Relation.SEES or asked(name, caller.principals))
        case "artifacts":
            names.parse("artifact", name, field)
            sees = reads.seen("artifact", name, caller.principals)
            allowed = relation is Relation.SEES or unpacks(reads, caller, reads.artifact(name))
        case "freezes":
            names.parse("freeze", name, field)
            freeze = reads.freeze(name)
            pipeline = rules.frozen_pipeline(freeze) if freeze is not None else ""
            found = reach(reads, caller, pipeline) if pipeline else 0
            sees = found > 0 or (freeze is not None and not pipeline)
            allowed = sees
            if relation is not Relation.SEES:
                edits = found >= _REACH.get(relation, Reach.OWN + 1)
                allowed = edits and freeze is not None and _made_by_editor(reads, freeze, pipeline)
        case "principals":
            names.parse("principal", name, field)
            own = name in caller.principals
            others = caller.role >= Permission.MAKE and reads.principal(name) is not None
            sees = own or others
            allowed = sees if relation is Relation.SEES else name == caller.name
        case "tokens":
            names.parse("token", name, field)
            token = reads.token(name)
            sees = allowed = token is not None and token.principal == caller.name
        case _:
            names.parse(_KINDS.get(field.rpartition(".")[2], "pipeline"), name, field)
    if not sees:
        raise named.absent(name)
    if not allowed:
        raise _unrelated(caller, relation, name)


def _made_by_editor(reads: Reads, freeze: Freeze, pipeline: str) -> bool:
    """Whether who made a freeze is one of those who may change its pipeline; others' hold against these."""
    creator = caller(reads, freeze.creator)
    return creator is not None and not creator.administrator and reach(reads, creator, pipeline) >= Reach.EDIT


_KINDS: Final = {"environment": "environment", "artifact": "artifact", "stage": "stage", "run": "run"}
"""What a field names; for the error where it names nothing of the kind."""


_ASK: Final = "Ask an administrator of the host."


def _unrelated(caller: Caller, relation: Relation, name: str) -> PermissionDenied:
    return _denied(f"{caller.name} may see {name}, and may not {relation.value} it")


def _denied(message: str, *, remedy: str = "") -> PermissionDenied:
    return PermissionDenied(
        ErrorReason.ERROR_REASON_PERMISSION_DENIED,
        message,
        remedy=remedy
        or "Ask the owner of the pipeline to share it with you, or an administrator of the host.",
    )


def _role(role: int) -> str:
    if role == Principal.ROLE_UNSPECIFIED:
        return "no role"
    return Principal.Role.Name(role).removeprefix("ROLE_")


def _restore_administrator(tx: Transaction) -> None:
    """Makes the first administrator, or makes it one again."""
    found = tx.principal(ADMINISTRATOR)
    if found is not None and found.role == Principal.ROLE_ADMINISTRATOR and not found.disabled:
        return
    fresh = found or Principal(name=ADMINISTRATOR, kind=Principal.KIND_PERSON, display_name="Administrator")
    fresh.role, fresh.disabled = Principal.ROLE_ADMINISTRATOR, False
    kind = Event.KIND_PRINCIPAL_UPDATED if found is not None else Event.KIND_PRINCIPAL_CREATED
    made = tx.put_principal(fresh)
    tx.append(Event(kind=kind, actor="host", subject=made.name, principal=made))


def _new() -> str:
    return f"ph_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"


def _name(token: str) -> str:
    return f"tokens/{token[3:11]}"


def _sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _read(path: Path) -> str | None:
    try:
        text = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if _TOKEN.fullmatch(text) else None


def _write(path: Path, token: str) -> None:
    """Writes a file that nobody else can read, whole or not at all; only one writer at a time.

    The draft has one name, so that a write that was cut off leaves no more than the next one takes away. It
    is made anew: an old one may be somebody's link, or open to be read.
    """
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _leave(path: Path, token: str) -> None:
    """Puts the token where this user's client finds it; where that cannot be written, the host goes on."""
    try:
        if _read(path) == token:
            return
        path.parent.parent.parent.mkdir(parents=True, exist_ok=True)
        for folder in (path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        _write(path, token)
    except OSError as error:
        _LOG.warning("the token could not be left for this user's client in %s: %s", path, error)
