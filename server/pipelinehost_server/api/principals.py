"""Principals and their tokens: the part of the service PipelineHost about who is known to the host."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from pipelinehost import names
from pipelinehost.errors import AlreadyExists, FailedPrecondition, Violation
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.artifacts_pb2 import ListArtifactsResponse
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Event, Principal, Token
from pipelinehost_server import access, named
from pipelinehost_server.access import Access, Caller
from pipelinehost_server.api import configure, listing
from pipelinehost_server.store import VISIBLE, Once, Reads, Store, Transaction

_SOME: Final = 5
_ALL: Final = 1_000_000


class PrincipalMethods:
    """What the guard calls for the RPCs about principals and tokens."""

    def __init__(
        self,
        store: Store,
        access: Access,
        pages: listing.Pages,
        once: Callable[[Message, Caller], Once],
    ) -> None:
        self._store = store
        self._reads = store.reads
        self._access = access
        self._pages = pages
        self._once = once

    def get_principal(self, request: api.GetPrincipalRequest, caller: Caller) -> Principal:
        """One principal."""
        del caller
        return named.principal(self._reads, request.name)

    def list_principals(
        self, request: api.ListPrincipalsRequest, caller: Caller
    ) -> api.ListPrincipalsResponse:
        """A page of principals: all for those who may share, themselves and their groups for others."""
        return self._pages.page(listing.PRINCIPALS, api.ListPrincipalsResponse, request, caller)

    async def create_principal(self, request: api.CreatePrincipalRequest, caller: Caller) -> Principal:
        """Makes somebody known."""
        wanted = configure.cleaned(request.principal)
        fields = configure.principal_violations(wanted)
        once = self._once(request, caller)

        def decide(reads: Reads) -> Principal:
            configure.refuse(
                fields, configure.principal_preconditions(wanted, reads.principal, reads.identified)
            )
            configure.require_new(reads.principal(wanted.name))
            return configure.copied(wanted)

        def work(tx: Transaction) -> Principal:
            made = tx.put_principal(decide(tx))
            tx.append(_event(Event.KIND_PRINCIPAL_CREATED, caller, made))
            return made

        if request.validate_only:
            return decide(self._reads)
        return await self._store.write(once.job(Principal, work))

    async def update_principal(self, request: api.UpdatePrincipalRequest, caller: Caller) -> Principal:
        """Changes what somebody is and may do, at once."""
        name = request.principal.name
        names.parse("principal", name, "principal.name")
        once = self._once(request, caller)

        def decide(reads: Reads) -> Principal:
            stored = named.principal(reads, name, "principal.name")
            configure.require_etag(request.principal.etag, stored)
            fresh, found = configure.merged(stored, request.principal, request.update_mask)
            if request.principal.kind not in {Principal.KIND_UNSPECIFIED, stored.kind}:
                found.append(Violation("principal.kind", "cannot be changed: create another principal"))
            configure.refuse(
                [*found, *configure.principal_violations(fresh)],
                configure.principal_preconditions(fresh, reads.principal, reads.identified),
            )
            return fresh

        def work(tx: Transaction) -> Principal:
            before = tx.principal(name)
            changed = tx.put_principal(decide(tx))
            _require_administrator(tx)
            event = _event(Event.KIND_PRINCIPAL_UPDATED, caller, changed)
            event.principal_before.CopyFrom(before or changed)
            tx.append(event)
            return changed

        if request.validate_only:
            return decide(self._reads)
        return await self._store.write(once.job(Principal, work))

    async def delete_principal(self, request: api.DeletePrincipalRequest, caller: Caller) -> Empty:
        """Deletes a principal that nothing names, with its tokens: nobody gets anything with the name."""
        name = request.name
        names.parse("principal", name)
        once = self._once(request, caller)

        def decide(reads: Reads) -> Principal:
            stored = named.principal(reads, name)
            configure.require_etag(request.etag, stored)
            groups = [group.name for group in reads.groups_of(name)]
            users = [*reads.pipelines_of(name), *reads.environments_of(name), *groups, *_left(reads, name)]
            if users:
                raise FailedPrecondition(
                    ErrorReason.ERROR_REASON_RESOURCE_IN_USE,
                    f"{name} is named by {', '.join(users[:5])}" + (" and others" if len(users) > 5 else ""),
                    remedy="Take it out there first; to keep somebody out at once, disable them.",
                    violations=[
                        Violation(user, f"{user} names {name}", "RESOURCE_IN_USE") for user in users[:100]
                    ],
                    metadata={"resource": name},
                )
            return stored

        def work(tx: Transaction) -> Empty:
            before = decide(tx)
            tx.delete_principal(name)
            _require_administrator(tx)
            tx.append(_event(Event.KIND_PRINCIPAL_DELETED, caller, before))
            return Empty()

        if request.validate_only:
            decide(self._reads)
            return Empty()
        return await self._store.write(once.job(Empty, work))

    async def create_token(self, request: api.CreateTokenRequest, caller: Caller) -> api.CreateTokenResponse:
        """Makes a token; its secret is in the answer and nowhere else.

        A repeated call cannot tell it again: it is told which token to revoke.
        """
        name, secret, digest = self._access.new_token()
        names.parse("principal", request.principal, "principal")
        if request.HasField("expire_time") and request.expire_time.ToNanoseconds() <= time.time_ns():
            raise configure.invalid([Violation("expire_time", "is not in the future")])
        once = self._once(request, caller)

        def job(tx: Transaction) -> Token:
            if (seen := once.recall(Token, tx)) is not None:
                raise _told_once(seen)
            holder = named.principal(tx, request.principal, "principal")
            if holder.kind == Principal.KIND_GROUP:
                raise configure.invalid(
                    [Violation("principal", f"{holder.name} is a group: nobody signs in as a group")]
                )
            token = Token(name=name, principal=holder.name, description=request.description)
            if request.HasField("expire_time"):
                token.expire_time.CopyFrom(request.expire_time)
            made = tx.put_token(token, digest)
            event = Event(kind=Event.KIND_TOKEN_CREATED, actor=caller.name, subject=made.name, token=made)
            tx.append(event)
            once.remember(tx, made)
            return made

        return api.CreateTokenResponse(token=await self._store.write(job), secret=secret)

    def list_tokens(self, request: api.ListTokensRequest, caller: Caller) -> api.ListTokensResponse:
        """A page of somebody's tokens, the oldest first."""
        holder = named.principal(self._reads, request.principal, "principal")
        tokens = self._reads.tokens_of(holder.name)
        bound = (caller.name, "token", holder.name)
        start, end, following = self._pages.slice(request, len(tokens), bound)
        return api.ListTokensResponse(tokens=tokens[start:end], next_page_token=following)

    async def revoke_token(self, request: api.RevokeTokenRequest, caller: Caller) -> Token:
        """Refuses a token from now on; a second time changes nothing."""
        name = request.name
        names.parse("token", name)
        once = self._once(request, caller)

        def work(tx: Transaction) -> Token:
            token = named.token(tx, name)
            if not token.HasField("revoke_time"):
                tx.revoke_token(token)
                tx.append(Event(kind=Event.KIND_TOKEN_REVOKED, actor=caller.name, subject=name, token=token))
            return token

        return await self._store.write(once.job(Token, work))


def _told_once(token: Token) -> AlreadyExists:
    return AlreadyExists(
        ErrorReason.ERROR_REASON_RESOURCE_EXISTS,
        f"this request has made {token.name} already, and the secret of a token is told only once",
        remedy=f"If the answer was lost: `pipelinehost token revoke {names.slug(token.name)}`, then make "
        "another.",
        metadata={"resource": token.name},
    )


def _left(reads: Reads, name: str) -> list[str]:
    """What the next one of that name would get of somebody: services, and some of the runs and packages."""
    rows, _ = reads.page("principal", where=[("kind", "=", Principal.KIND_SERVICE)], limit=_ALL)
    services = [p.name for p in api.ListPrincipalsResponse.FromString(rows).principals if p.person == name]
    rows, _ = reads.page("run", where=[("requester", "=", name)], limit=_SOME)
    runs = [run.name for run in api.ListRunsResponse.FromString(rows).runs]
    rows, _ = reads.page("artifact", where=[(VISIBLE, "in", [name])], limit=_SOME)
    return services + runs + [a.name for a in ListArtifactsResponse.FromString(rows).artifacts]


def _require_administrator(tx: Transaction) -> None:
    """Lets a change stand after which somebody can still administer the host."""
    able = {p.name for p in tx.administrators()}
    able |= {member for p in tx.administrators() for member in p.members}
    for name in able:
        found = access.caller(tx, name)
        if found is not None and found.administrator:
            return
    raise FailedPrecondition(
        ErrorReason.ERROR_REASON_LAST_ADMINISTRATOR,
        "nobody could administer the host afterwards",
        remedy="Make somebody else an administrator first.",
    )


def _event(kind: Event.Kind, caller: Caller, principal: Principal) -> Event:
    return Event(kind=kind, actor=caller.name, subject=principal.name, principal=principal)
