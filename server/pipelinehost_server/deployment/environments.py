"""The environments that the host talks to: one connector each, and the files of the embedded ones."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta

import httpx

from pipelinehost import names
from pipelinehost.errors import FailedPrecondition, NotFound, PipelineHostError, Unavailable
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.pipeline_host_pb2 import SetEnvironmentCredentialRequest
from pipelinehost.v1.resources_pb2 import (
    Connection,
    Environment,
    EnvironmentHealth,
    Event,
    Finding,
    Solution,
    Step,
)
from pipelinehost.v1.resources_pb2 import SignIn as SignInMessage
from pipelinehost_dataverse import sign_in, webapi
from pipelinehost_dataverse.sign_in import SignIn, SignInFailed, Tokens
from pipelinehost_dataverse.webapi import AnswerLost, DataverseError, EnvironmentUnreachable, WebApi
from pipelinehost_server import named, rules
from pipelinehost_server.config import Config
from pipelinehost_server.deployment import claims, identities
from pipelinehost_server.deployment.findings import finding, subject
from pipelinehost_server.deployment.identities import credential_key, signs_in
from pipelinehost_server.deployment.journal import HOST
from pipelinehost_server.deployment.validation import environment_finding
from pipelinehost_server.embedded import Embedded
from pipelinehost_server.encryption import Encryption, SealBroken
from pipelinehost_server.store import Reads, Store, Transaction

_CHECK_SECONDS = 60.0
_RELEASE_SECONDS = 10.0
_PATIENCE_SECONDS = 10.0
"""For how long an environment that gives no answer is asked again while its caller is told nothing."""
_PRIVILEGES = {
    Environment.KIND_DEVELOPMENT: ("export", "prvExportCustomization"),
    Environment.KIND_TARGET: ("import", "prvImportCustomization"),
}
_METHODS = {
    SignInMessage.METHOD_CLIENT_SECRET: sign_in.Method.CLIENT_SECRET,
    SignInMessage.METHOD_CERTIFICATE: sign_in.Method.CERTIFICATE,
    SignInMessage.METHOD_MANAGED_IDENTITY: sign_in.Method.MANAGED_IDENTITY,
    SignInMessage.METHOD_DEVELOPER: sign_in.Method.DEVELOPER,
}
CREDENTIALS = {
    SignInMessage.METHOD_CLIENT_SECRET: "client_secret",
    SignInMessage.METHOD_CERTIFICATE: "certificate",
}
"""Methods that need a credential, and the field of the request that brings it."""

_ONLY_AS: ContextVar[str | None] = ContextVar("only_as", default=None)


@contextmanager
def only_as(whom: str) -> Iterator[None]:
    """Within it nobody signs in as anybody else, whatever an administrator changes at this moment."""
    token = _ONLY_AS.set(whom)
    try:
        yield
    finally:
        _ONLY_AS.reset(token)


class Environments:
    """Gives the connector of each environment; opens embedded ones when they are first asked."""

    def __init__(self, config: Config, store: Store, encryption: Encryption) -> None:
        self._config = config
        self._store = store
        self._encryption = encryption
        self._open: dict[tuple[str, str], tuple[bytes, WebApi]] = {}
        self._embedded = Embedded()
        self._opening: dict[tuple[str, str], asyncio.Lock] = {}
        self._connecting: set[asyncio.Task[WebApi]] = set()

    async def connect(self, environment: Environment, stage: str = "") -> WebApi:
        """The connector of an environment, kept for the next caller.

        Args:
            environment: its record.
            stage: whose own identity is to be used; empty for the environment's.

        Raises:
            EnvironmentUnreachable: the file of an embedded environment could not be opened.
            SignInFailed: the stage has an identity, and nobody signs in to the environment any more.
        """
        if stage and not signs_in(environment):
            raise SignInFailed(
                f"{stage} has an identity of its own, and nobody signs in to {environment.url or 'it'}",
                "Correct the environment's address, or take sign_in out of the stage.",
            )
        wanted, key = _address(environment), (environment.name, stage)
        known = self._open.get(key)
        if known is not None and known[0] == wanted:
            return known[1]
        # A caller who is cancelled must not leave a file open that nobody knows of: it goes on without them.
        task = asyncio.create_task(self._connect(environment, key, wanted))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return await asyncio.shield(task)

    async def _connect(self, environment: Environment, key: tuple[str, str], wanted: bytes) -> WebApi:
        async with self._opening.setdefault(key, asyncio.Lock()):
            known = self._open.get(key)
            if known is not None and known[0] == wanted:
                return known[1]
            if known is not None:
                await self._close(key)
            if environment.url:
                tokens = None
                if signs_in(environment):
                    # Record and credential are looked up at each call: what is changed counts at once, and
                    # runs that are under way keep their connector.
                    tokens = Tokens(functools.partial(self._sign_in, *key))
                api = WebApi(
                    environment.url, connectivity_url=environment.connectivity_url or None, token=tokens
                )
            else:
                slug = names.slug(environment.name)
                address, way = await self._embedded.open(
                    slug,
                    path=str(self._config.folder / "environments" / f"{slug}.sqlite"),
                    region=environment.region,
                    installed_apps=dict(environment.installed_apps),
                    allow_downgrade=True,  # the pipeline's allow_redeployment decides, not the environment
                    pace=self._config.embedded_pace,
                )
                api = WebApi(address, connectivity_url=address, transport=way)
            self._open[key] = (wanted, api)
            return api

    async def named(self, name: str, stage: str = "") -> tuple[Environment, WebApi]:
        """The record and the connector of the environment of that name; see ``connect``.

        Raises:
            NotFound: there is no such record.
        """
        environment = named.environment(self._store.reads, name)
        return environment, await self.connect(environment, stage)

    async def answering(self, environment: Environment, stage: str = "") -> WebApi:
        """The connector for a caller who waits and is told nothing: it gives up soon, and says why.

        Raises:
            As ``connect``.
        """
        return (await self.connect(environment, stage)).patient(_PATIENCE_SECONDS)

    async def open_embedded(self, environment: Environment) -> None:
        """Make the file of an embedded environment, so that a defect of the disk shows at once.

        Raises:
            DataverseError: it cannot be made.
        """
        await self.recognize(environment, await self.answering(environment))

    async def recognize(self, environment: Environment, api: WebApi) -> Finding | None:
        """The finding for an environment that is not the one that it was, or where we may not act.

        The first time, the organization's id is recorded.

        Raises:
            DataverseError: it cannot be asked.
        """
        who = await api.who_am_i()
        found = await self._recognized(environment, who.organization_id)
        if found is None and signs_in(environment):
            found = await self._unprivileged(environment, api, who.user_id)
        return found or await self.taken(environment, api)

    async def taken(self, environment: Environment, api: WebApi) -> Finding | None:
        """The finding for an environment that belongs to another host; one that is nobody's becomes ours.

        The record follows what the environment says.

        Raises:
            DataverseError: it cannot be asked, or does not let us leave our mark.
        """
        if not environment.url:
            return None
        store = self._store.reads.identity()
        found = await claims.claim(api, store)
        taken_by = "" if found.store == store else found.words
        known = self._store.reads.environment(environment.name) or environment

        def job(tx: Transaction) -> None:
            before = tx.environment(environment.name)
            recorded = tx.record_taken(environment.name, environment.url, taken_by)
            if recorded is None:
                return
            kind = Event.KIND_ENVIRONMENT_STALE if taken_by else Event.KIND_ENVIRONMENT_UPDATED
            told = f"it belongs to {taken_by}" if taken_by else "it belongs to this host again"
            event = Event(kind=kind, actor=HOST, subject=recorded.name, message=told)
            event.environment.CopyFrom(recorded)
            if before is not None:
                event.environment_before.CopyFrom(before)
            tx.append(event)

        if known.taken_by != taken_by:
            await self._store.write(job)
        return _taken(environment, taken_by) if taken_by else None

    async def take_over(self, name: str) -> str:
        """Make an environment ours, whosever it is; gives whose it was, empty where it was nobody's.

        The caller records it.

        Raises:
            PipelineHostError: no such environment, not the one that it was, or it could not be asked.
        """
        environment = named.environment(self._store.reads, name)
        try:
            api = await self.answering(environment)
            who = await api.who_am_i()
            if (reset := await self._recognized(environment, who.organization_id)) is not None:
                raise FailedPrecondition(
                    ErrorReason.ERROR_REASON_ENVIRONMENT_REFUSED,
                    reset.cause,
                    remedy=reset.remedy,
                    metadata={"resource": name},
                )
            before = await claims.take(api, self._store.reads.identity())
        except DataverseError as error:
            raise as_host_error(error, environment) from error
        return before.words if before is not None else ""

    async def release(self, environment: Environment) -> str:
        """Let an environment go that this host will not use any more; gives what is left behind in it."""
        if not environment.url or not environment.organization_id:
            return ""  # never reached
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                await claims.release(await self.connect(environment), self._store.reads.identity())
        except (DataverseError, TimeoutError) as error:
            why = error.message if isinstance(error, DataverseError) else "no answer"
            return (
                f"{environment.url} still says that it belongs to this host ({why}): take it over from "
                f"another one, or delete the environment variable {webapi.MARK} there"
            )
        return ""

    async def _unprivileged(self, environment: Environment, api: WebApi, user_id: str) -> Finding | None:
        what, privilege = _PRIVILEGES[environment.kind]
        if await api.has_privilege(user_id, privilege):
            return None
        return finding(
            "PRIVILEGE_MISSING",
            subject("environment", environment.name, environment.display_name),
            step=Step.KIND_UNSPECIFIED,
            environment=rules.title(environment),
            what=what,
            privilege=privilege,
        )

    async def _recognized(self, environment: Environment, organization_id: str) -> Finding | None:
        def job(tx: Transaction) -> bool:
            if _has_twin(tx, environment, organization_id):
                return False
            recorded = tx.record_organization(environment.name, environment.url, organization_id)
            if recorded is not None:
                kind = Event.KIND_ENVIRONMENT_UPDATED
                told = f"its organization is {organization_id}"
                event = Event(
                    kind=kind, actor=HOST, subject=recorded.name, environment=recorded, message=told
                )
                tx.append(event)
            return True

        if not environment.organization_id:
            if not await self._store.write(job):
                return finding(
                    "ENVIRONMENT_TWICE",
                    subject("environment", environment.name, environment.display_name),
                    environment=rules.title(environment),
                    name=names.slug(environment.name),
                    organization=organization_id,  # not the other's name, which not everybody may see
                )
        elif environment.organization_id != organization_id:
            return finding(
                "ENVIRONMENT_RESET",
                subject("environment", environment.name, environment.display_name),
                environment=rules.title(environment),
                name=names.slug(environment.name),
                recorded=environment.organization_id,
                found=organization_id,
            )
        return None

    async def check(self, name: str) -> EnvironmentHealth:
        """Look whether an environment can be reached and used.

        Raises:
            NotFound: there is no such record.
        """
        environment = named.environment(self._store.reads, name)
        health = EnvironmentHealth()
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await self._look(environment, health)
        except DataverseError as error:
            silent = isinstance(error, EnvironmentUnreachable | AnswerLost | SignInFailed)
            health.reachable = health.reachable or not silent
            health.findings.append(
                environment_finding(error, rules.title(environment), Step.KIND_UNSPECIFIED)
            )
        except TimeoutError:
            late = EnvironmentUnreachable(f"no answer within {_CHECK_SECONDS:g} seconds")
            health.findings.append(environment_finding(late, rules.title(environment), Step.KIND_UNSPECIFIED))
        health.check_time.GetCurrentTime()
        return health

    async def _look(self, environment: Environment, health: EnvironmentHealth) -> None:
        api = await self.answering(environment)
        who = await api.who_am_i()
        health.reachable = health.signed_in = True
        health.organization_id = who.organization_id
        if (reset := await self._recognized(environment, who.organization_id)) is not None:
            reset.step = Step.KIND_UNSPECIFIED
            health.findings.append(reset)
        organization = await api.organization()
        health.version, health.region = organization.version, organization.geo
        lacking = await self._unprivileged(environment, api, who.user_id)
        health.privileged = lacking is None
        if lacking is not None:
            health.findings.append(lacking)
        elif reset is None and (taken := await self.taken(environment, api)) is not None:
            taken.step = Step.KIND_UNSPECIFIED
            health.findings.append(taken)

    def sealed_credential(self, request: SetEnvironmentCredentialRequest) -> bytes:
        """The ciphertext of a credential; it opens for this environment's or stage's row only."""
        kept = SetEnvironmentCredentialRequest()
        kept.CopyFrom(request)
        kept.ClearField("request_id")
        return self._encryption.seal(kept.SerializeToString(), credential_key(request.name))

    def _sign_in(self, environment: str, stage: str) -> SignIn:
        """How to sign in to an environment as its record, or its stage, and the credential are now.

        Raises:
            SignInFailed: the credential is missing or cannot be read, or the identity is not the one that
                was meant.
        """
        told = identities.sign_in_of(self._store.reads, environment, stage)
        if (whom := _ONLY_AS.get()) is not None and whom != identities.words(told):
            raise SignInFailed(f"its identity has changed: it was {whom}", "Retry the run.")
        name, secret, remedy = stage or environment, "", ""
        if (field := CREDENTIALS.get(told.method)) is not None:
            option = "--secret-file" if field == "client_secret" else "--certificate"
            remedy = (
                "Set it with `pipelinehost environment set-credential "
                f"{stage or names.slug(environment)} {option} FILE`."
            )
            key = credential_key(name)
            sealed = self._store.reads.secret(key)
            kept = SetEnvironmentCredentialRequest()
            try:
                if sealed is not None:
                    kept.ParseFromString(self._encryption.open(sealed, key))
            except SealBroken as error:
                raise SignInFailed(str(error), remedy) from None
            secret = getattr(kept, field)
            if not secret:
                raise SignInFailed(f"no {field.replace('_', ' ')} is set for {stage or 'it'}", remedy)
        elif told.method not in _METHODS:
            raise SignInFailed(
                "its record does not say how to sign in", "Set sign_in in the environment's record."
            )
        return SignIn(_METHODS[told.method], told.tenant, told.client_id, told.authority, secret, remedy)

    def quiet_period(self, environment: Environment) -> timedelta:
        """How long nothing may be seen of an import before it counts as never received.

        On this machine a request can lie in a socket or in a thread for a moment. A real environment gets the
        connector's period.
        """
        if not environment.url or webapi.is_loopback(httpx.URL(environment.url).host):
            return timedelta(seconds=2)
        return webapi.QUIET_PERIOD

    async def solutions(self, name: str) -> list[Solution]:
        """The solutions in an environment, by unique name.

        Raises:
            PipelineHostError: no such environment, or it could not be asked.
        """
        environment = named.environment(self._store.reads, name)
        try:
            return [
                Solution(
                    unique_name=s.unique_name,
                    display_name=s.display_name,
                    version=str(s.version),
                    managed=s.managed,
                    publisher=s.publisher_unique_name,
                )
                for s in await (await self.answering(environment)).solutions()
            ]
        except DataverseError as error:
            raise as_host_error(error, environment) from error

    async def connections(self, name: str) -> list[Connection]:
        """The connections in an environment, by id.

        Raises:
            PipelineHostError: no such environment, no address for connections, or it could not be asked.
        """
        environment = named.environment(self._store.reads, name)
        try:
            found = await (await self.answering(environment)).connections()
        except DataverseError as error:
            raise as_host_error(error, environment) from error
        if found is None:
            raise FailedPrecondition(
                ErrorReason.ERROR_REASON_ENVIRONMENT_REFUSED,
                f"{rules.title(environment)} has no address that lists connections.",
                remedy="Set its connectivity address; without one, connection ids are taken as given.",
            )
        return [_connection(environment, c) for c in found]

    async def create_connection(self, name: str, connection: Connection) -> Connection:
        """Create a connection in an embedded environment; an empty name lets it choose an id.

        Raises:
            PipelineHostError: no such environment, not an embedded one, or it refused.
        """
        environment = named.environment(self._store.reads, name)
        require_embedded(environment)
        try:
            made = await (await self.answering(environment)).create_connection(
                connection.connector_id,
                connection.display_name,
                connection_id=names.slug(connection.name),
            )
        except DataverseError as error:
            raise as_host_error(error, environment) from error
        return _connection(environment, made)

    async def connection(self, connection_name: str) -> Connection:
        """A connection of an embedded environment.

        Raises:
            PipelineHostError: no such connection or environment, not an embedded one, or it refused.
        """
        slug, _ = names.parse("connection", connection_name)
        environment = named.environment(self._store.reads, names.environment(slug))
        require_embedded(environment)
        for found in await self.connections(environment.name):
            if found.name == connection_name:
                return found
        raise NotFound(
            ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND,
            f"{rules.title(environment)} has no connection {names.slug(connection_name)}.",
            remedy="List them with `pipelinehost connection list`.",
            metadata={"resource": connection_name},
        )

    async def delete_connection(self, connection_name: str) -> Connection:
        """Delete a connection of an embedded environment; gives what was deleted.

        Raises:
            PipelineHostError: see ``connection``.
        """
        found = await self.connection(connection_name)
        environment = named.environment(
            self._store.reads, names.environment(names.parse("connection", found.name)[0])
        )
        try:
            await (await self.answering(environment)).delete_connection(names.slug(found.name))
        except DataverseError as error:
            raise as_host_error(error, environment) from error
        return found

    async def close(self) -> None:
        """Close all connectors and files; what environments have accepted goes on when they are opened."""
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for key in list(self._open):
            await self._close(key)
        await self._embedded.close()

    async def _close(self, key: tuple[str, str]) -> None:
        _, api = self._open.pop(key)
        await api.aclose()


def require_embedded(environment: Environment) -> None:
    """Lets a connection be created or deleted where the host may do that.

    Raises:
        FailedPrecondition: the environment is not an embedded one.
    """
    if environment.url:
        raise FailedPrecondition(
            ErrorReason.ERROR_REASON_NOT_EMBEDDED,
            f"{rules.title(environment)} is not an embedded environment.",
            remedy="Create the connection in Power Apps, in that environment; then use its id.",
            metadata={"resource": environment.name},
        )


def _has_twin(reads: Reads, environment: Environment, organization_id: str) -> bool:
    """Whether there is another record of the same linked environment, by what it said of itself."""
    return bool(environment.url) and any(
        other.name != environment.name and other.url and other.organization_id == organization_id
        for other in reads.environments()
    )


def _taken(environment: Environment, taken_by: str) -> Finding:
    return finding(
        "ENVIRONMENT_TAKEN",
        subject("environment", environment.name, environment.display_name),
        environment=rules.title(environment),
        name=names.slug(environment.name),
        owner=taken_by,
    )


def as_host_error(error: DataverseError, environment: Environment) -> PipelineHostError:
    """What a caller of the host is told when an environment did not give its result."""
    where = rules.title(environment)
    if isinstance(error, EnvironmentUnreachable):
        return Unavailable(
            ErrorReason.ERROR_REASON_ENVIRONMENT_UNREACHABLE,
            f"{where} could not be reached: {error.message}",
            remedy="Check the environment's address and state, then repeat the call.",
            metadata={"resource": environment.name},
        )
    if isinstance(error, SignInFailed):
        return FailedPrecondition(
            ErrorReason.ERROR_REASON_ENVIRONMENT_REFUSED,
            f"The host could not sign in to {where}: {error.message}",
            remedy=error.remedy,
            metadata={"resource": environment.name},
        )
    code = f" ({error.code})" if error.code else ""
    return FailedPrecondition(
        ErrorReason.ERROR_REASON_ENVIRONMENT_REFUSED,
        f"{where} answered: {error.message}{code}",
        remedy="Mend that in the environment, then repeat the call.",
        metadata={"resource": environment.name, "code": error.code, "request_id": error.request_id},
    )


def _connection(environment: Environment, connection: webapi.Connection) -> Connection:
    return Connection(
        name=names.connection(environment.name, connection.id),
        display_name=connection.display_name,
        connector_id=connection.connector_id,
        status=connection.status,
    )


def _address(environment: Environment) -> bytes:
    """What a connector depends on; a change of anything else leaves it open."""
    kept = Environment(
        url=environment.url,
        connectivity_url=environment.connectivity_url,
        region=environment.region,
        installed_apps=environment.installed_apps,
    )
    return kept.SerializeToString(deterministic=True)
