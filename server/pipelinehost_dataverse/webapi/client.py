"""One environment, asked through its Web API: what the host needs, each as one method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

import httpx

from pipelinehost_dataverse.solution.model import Version
from pipelinehost_dataverse.webapi.calls import OnWait, Policy, TokenSource
from pipelinehost_dataverse.webapi.model import (
    Connection,
    ConnectionParameter,
    ConnectionReferenceState,
    Dependant,
    EnvironmentVariableState,
    HistoryRow,
    ImportIntent,
    ImportOperation,
    ImportProgress,
    ImportResult,
    InstalledComponent,
    InstalledSolution,
    Organization,
    Reconciled,
    RunningOperation,
    StageResult,
    VariableParameter,
    WhoAmI,
)

QUIET_PERIOD = timedelta(minutes=10)
"""How long nothing may be seen or running before an import counts as never received."""


class WebApi:
    """The Dataverse Web API of one environment.

    Every method may raise any ``DataverseError``: ``EnvironmentUnreachable`` (nothing was sent),
    ``AnswerLost`` (may have been received), ``Throttled`` and ``EnvironmentBusy`` (nothing was done, and
    waiting longer would pass the budget), ``AccessDenied``, ``NotFound``, ``Refused`` (the environment said
    no; ``code`` says why) and ``BadAnswer``. Reads are retried within their budget; a POST is retried only
    on 429 or where no connection could be made, so it reaches the environment at most once.

    Use it as an async context manager, or call ``aclose``. One object serves many tasks at once.
    """

    def __init__(
        self,
        url: str,
        *,
        connectivity_url: str | None = None,
        token: TokenSource | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        policy: Policy | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: the environment, e.g. ``https://org.crm4.dynamics.com`` or ``http://127.0.0.1:8080/qa``.
                Plain http is for loopback, or where ``transport`` is given.
            connectivity_url: the address that lists connections, where there is one.
            token: gives bearer tokens for a scope; None for embedded environments.
            transport: in place of the network, e.g. ``httpx.ASGITransport(app, raise_app_exceptions=False)``.
            policy: timeouts, budgets and caps.

        Raises:
            ValueError: an address is not usable (scheme, user name, query), or a token would go over http.

        """
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; calling it twice does no harm."""
        raise NotImplementedError

    async def who_am_i(self) -> WhoAmI:
        """The identity under which the environment sees us; also the cheapest probe."""
        raise NotImplementedError

    async def organization(self) -> Organization:
        """The environment's own ids, version and region."""
        raise NotImplementedError

    async def solution(self, unique_name: str) -> InstalledSolution | None:
        """The installed solution of that unique name, or None. ``{name}_Upgrade`` is what an upgrade left."""
        raise NotImplementedError

    async def solutions(self) -> list[InstalledSolution]:
        """All visible solutions, ordered by unique name."""
        raise NotImplementedError

    async def installed_components(self, solution: InstalledSolution) -> list[InstalledComponent]:
        """The components of an installed solution."""
        raise NotImplementedError

    async def dependants(self, object_id: str, component_type: int) -> list[Dependant]:
        """What would stop that component from being deleted.

        Raises:
            ValueError: ``object_id`` is no GUID.

        """
        raise NotImplementedError

    async def environment_variables(
        self, names: Iterable[str] | None = None
    ) -> list[EnvironmentVariableState]:
        """The environment variables of these schema names (those that exist), or all; by schema name."""
        raise NotImplementedError

    async def connection_references(
        self, names: Iterable[str] | None = None
    ) -> list[ConnectionReferenceState]:
        """The connection references of these logical names (those that exist), or all; by logical name."""
        raise NotImplementedError

    async def connections(self) -> list[Connection] | None:
        """All connections, by id; None where the environment has no connectivity address."""
        raise NotImplementedError

    async def create_connection(
        self, connector_id: str, display_name: str, *, connection_id: str = ""
    ) -> Connection:
        """Create a connection; embedded environments only. An empty ``connection_id`` gets a random one.

        Raises:
            ValueError: no connectivity address, or ids that cannot be part of an address.

        """
        raise NotImplementedError

    async def delete_connection(self, connection: Connection) -> None:
        """Delete a connection; embedded environments only.

        Raises:
            ValueError: no connectivity address.

        """
        raise NotImplementedError

    async def history(self, solution: str) -> list[HistoryRow]:
        """Past and present operations on the solution of that unique name, newest first."""
        raise NotImplementedError

    async def running_operations(self) -> list[RunningOperation]:
        """Solution operations under way in the environment, whoever started them; oldest first."""
        raise NotImplementedError

    async def export_solution(
        self, unique_name: str, *, managed: bool, on_wait: OnWait | None = None
    ) -> bytes:
        """Export a solution and return the package.

        Raises:
            Refused: the export failed; ``code`` and message are the environment's.

        """
        raise NotImplementedError

    async def stage_solution(self, package: bytes, *, on_wait: OnWait | None = None) -> StageResult:
        """Have the environment validate a package; nothing is installed. A failed validation is a result."""
        raise NotImplementedError

    async def discard_upload(self, upload_id: str) -> None:
        """Remove the upload that ``stage_solution`` left; one that is gone already is fine.

        Raises:
            ValueError: no GUID.

        """
        raise NotImplementedError

    async def prepare_import(self, solution: str, version: Version, *, upgrade: bool) -> ImportIntent:
        """Note what the environment is like before an import; store the result before ``start_import``.

        The mode is UPGRADE where ``upgrade`` is asked and a managed version is installed, else UPDATE.
        """
        raise NotImplementedError

    async def start_import(
        self,
        package: bytes,
        intent: ImportIntent,
        *,
        overwrite_customizations: bool = False,
        publish_workflows: bool = True,
        parameters: Sequence[ConnectionParameter | VariableParameter] = (),
        on_wait: OnWait | None = None,
    ) -> ImportOperation:
        """Post the import, once. It is posted again only when the environment answered that it is busy.

        Raises:
            AnswerLost: it may have been received; also where the answer could not be read. Use ``reconcile``.

        """
        raise NotImplementedError

    async def reconcile(
        self, intent: ImportIntent, *, nothing_since: datetime | None = None, quiet: timedelta = QUIET_PERIOD
    ) -> Reconciled:
        """Find out what became of an import whose answer was lost; posts nothing and does not wait.

        Call it once the POST is over for certain (its answer lost, or its process ended). The first look
        has no ``nothing_since``; each later one is given what the look before returned. NOT_RECEIVED takes
        ``quiet`` between them with no trace of the import and no operation running.
        """
        raise NotImplementedError

    async def import_progress(self, operation: ImportOperation) -> ImportProgress:
        """How far the import is.

        Raises:
            NotFound: the environment knows neither the job nor the operation.

        """
        raise NotImplementedError

    async def import_result(self, operation: ImportOperation) -> ImportResult:
        """How the import ended, component by component, from the import job's log.

        Raises:
            NotFound: the environment knows neither the job nor the operation.
            BadAnswer: the log is too big, not well-formed or has a document type.

        """
        raise NotImplementedError

    async def publish_all(self, *, on_wait: OnWait | None = None) -> None:
        """Publish all customizations; repeating it does no harm."""
        raise NotImplementedError
