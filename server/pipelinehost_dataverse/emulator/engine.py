"""What an environment does with solutions: stage, import, upgrade, uninstall, export, publish.

Everything here runs in threads of work, never on the event loop, but for the few functions that say that they
only read. An import is worked out first, outside of any transaction, with its progress written as it goes;
then one transaction applies it, with its job, history and operation: once, or not at all.
"""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Self

from pipelinehost_dataverse.emulator import layers, results, rules
from pipelinehost_dataverse.emulator.errors import Code, DataverseError, not_modelled
from pipelinehost_dataverse.emulator.facts import platform_solutions
from pipelinehost_dataverse.emulator.odata import GUID
from pipelinehost_dataverse.emulator.rules import Installed, Platform, Verdict
from pipelinehost_dataverse.emulator.store import STORE_ERRORS, Store
from pipelinehost_dataverse.solution import (
    CODE_BY_KIND,
    ComponentKey,
    Dependency,
    PackageError,
    RequiredComponent,
    Solution,
    VariableType,
    Version,
    read,
    rewrite,
)

_log = logging.getLogger(__name__)

Report = Callable[[float], None]
"""Told how far an operation is, in percent."""

_SLICE: Final = 150
"""Components between two reports of progress."""
_SUCCEEDED, _FAILED = 30, 31
_OPERATION_IMPORT, _OPERATION_UNINSTALL = 0, 1
_NEW, _UPGRADE, _UPDATE = 1, 2, 3
_TYPE = "@odata.type"
_STAGED: Final = frozenset(
    {"entity", "workflow", "webresource", "canvasapp", "appmodule", "role", "optionset", "connector"}
)
"""Kinds of components that staging shows beside connection references and environment variables."""


def now() -> str:
    """The environment's clock, to the second as Dataverse shows it: ``2026-01-31T12:00:00Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Work(NamedTuple):
    """An accepted operation, as the worker gets it. ``package`` is a digest."""

    operation: str
    message: str
    parameters: dict[str, Any]
    job: str
    package: bytes | None


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What an import was asked to do, read and checked from the request's body."""

    upload: str | None = None
    job: str | None = None
    overwrite: bool = False
    publish: bool = False
    values: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    """Schema name as given -> value, and the id of its row where one was named."""
    connections: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Logical name as given -> connection id, connector id."""

    @classmethod
    def of(cls, body: Mapping[str, Any], message: str) -> Self:
        """Read the body of one of the import messages, without its package.

        Raises:
            DataverseError: a parameter that is not known, of the wrong type, or not modelled.

        """
        upgrade = message.startswith("StageAndUpgrade")
        known = {
            "OverwriteUnmanagedCustomizations",
            "PublishWorkflows",
            "SkipProductUpdateDependencies",
            "HoldingSolution",
            "ConvertToManaged",
            "ImportJobId",
            "SolutionParameters",
            "ComponentParameters",
            "CustomizationFile",
        }
        for name in sorted(body.keys() - known):
            raise DataverseError(
                Code.INVALID_REQUEST,
                f"The parameter '{name}' in the request payload is not a valid parameter.",
            )
        flags = {}
        for name in ("OverwriteUnmanagedCustomizations", "PublishWorkflows", "SkipProductUpdateDependencies"):
            value = body.get(name, False)
            if not isinstance(value, bool):
                raise DataverseError(Code.INVALID_REQUEST, f"The parameter '{name}' is not true or false.")
            flags[name] = value
        if flags["SkipProductUpdateDependencies"]:
            raise not_modelled("SkipProductUpdateDependencies")
        if body.get("HoldingSolution"):
            raise not_modelled(
                "HoldingSolution (stage for upgrade) on StageAndUpgrade" if upgrade else "HoldingSolution"
            )
        if body.get("ConvertToManaged"):
            raise not_modelled("ConvertToManaged")
        upload = (body.get("SolutionParameters") or {}).get("StageSolutionUploadId")
        for name, value in (("StageSolutionUploadId", upload), ("ImportJobId", body.get("ImportJobId"))):
            if value is not None and not (isinstance(value, str) and GUID.fullmatch(value)):
                raise DataverseError(Code.INVALID_ARGUMENT, f"{name} '{value}' is not a GUID.")
        values: dict[str, tuple[str, str | None]] = {}
        connections: dict[str, tuple[str, str]] = {}
        for parameter in body.get("ComponentParameters") or ():
            _component_parameter(parameter, values, connections)
        job = body.get("ImportJobId")
        return cls(
            upload=upload.lower() if upload else None,
            job=job.lower() if job else None,
            overwrite=flags["OverwriteUnmanagedCustomizations"],
            publish=flags["PublishWorkflows"],
            values=values,
            connections=connections,
        )


def _component_parameter(
    parameter: object, values: dict[str, tuple[str, str | None]], connections: dict[str, tuple[str, str]]
) -> None:
    kind = parameter.get(_TYPE) if isinstance(parameter, dict) else None
    if not isinstance(parameter, dict) or not isinstance(kind, str):
        raise DataverseError(Code.INVALID_REQUEST, f"Each of ComponentParameters needs an '{_TYPE}'.")
    table = kind.rpartition(".")[2].lower()

    def text(name: str) -> str:
        value = parameter.get(name)
        if not isinstance(value, str):
            raise DataverseError(Code.INVALID_REQUEST, f"A component parameter of {table} needs '{name}'.")
        return value

    if table == "environmentvariablevalue":
        row = parameter.get("environmentvariablevalueid") or None
        if row is not None and not (isinstance(row, str) and GUID.fullmatch(row)):
            raise DataverseError(Code.INVALID_ARGUMENT, f"environmentvariablevalueid '{row}' is not a GUID.")
        values[text("schemaname")] = (text("value"), row.lower() if row else None)
    elif table == "connectionreference":
        name = text("connectionreferencelogicalname")
        connections[name] = (text("connectionid"), str(parameter.get("connectorid") or ""))
    else:
        raise not_modelled(f"A component parameter of type '{kind}'")


class Abandoned(Exception):  # no error: the environment closes, its next opening goes on
    """The environment closes; the operation under way stays unfinished in the file."""


class Engine:
    """The work of one environment.

    Args:
        store: its file.
        installed_apps: solutions beyond the platform's that count as present, unique name to version.
        allow_downgrade: whether an update may bring a lower version.

    Raises:
        ValueError: an installed app has no usable version.

    """

    def __init__(
        self, store: Store, installed_apps: Mapping[str, str], *, allow_downgrade: bool = False
    ) -> None:
        self._store = store
        self._platform = Platform(installed_apps)
        self._allow_downgrade = allow_downgrade
        self._seed()
        with store.look() as db:
            self._namespace = uuid.UUID(db.execute("SELECT id FROM environment").fetchone()[0])

    def _seed(self) -> None:
        at = now()
        with self._store.write() as db:
            if not db.execute("SELECT 1 FROM environment").fetchone():
                ids = [str(uuid.uuid4()) for _ in range(4)]
                db.execute("INSERT INTO environment VALUES (?, ?, ?, ?, ?)", (*ids, at))
                publisher = layers.publisher_id(db, "MicrosoftCorporation", "MicrosoftCorporation", "", 0, at)
                db.executemany(
                    layers.INSERT_SOLUTION,
                    [
                        layers.solution_row(name, "9.2.0.0", publisher, position, at, platform=True)
                        for position, name in enumerate(platform_solutions(), 1)
                    ],
                )
                own = layers.publisher_id(
                    db, f"DefaultPublisher{ids[0][:8]}", "Default Publisher", "new", 10000, at
                )
                row = layers.solution_row(
                    layers.ACTIVE, "1.0.0.0", own, len(platform_solutions()) + 1, at, platform=True
                )
                db.execute(layers.INSERT_SOLUTION, row)
                db.execute("UPDATE solution SET managed = 0 WHERE unique_name = ?", (layers.ACTIVE,))
                db.executemany("INSERT INTO kind_code VALUES (?, ?)", CODE_BY_KIND.items())
            # An app that is no longer declared is no longer there.
            stay = json.dumps([*platform_solutions(), layers.ACTIVE, *self._platform.installed_apps])
            db.execute(
                "DELETE FROM solution WHERE platform AND unique_name NOT IN (SELECT value FROM json_each(?))",
                (stay,),
            )
            db.execute("UPDATE solution SET visible = 0 WHERE platform")
            for name, version in self._platform.installed_apps.items():
                found = rules.find(db, name)
                if found is None:
                    publisher = layers.publisher_id(
                        db, "microsoftdynamics", "Dynamics 365", "msdyn", 19235, at
                    )
                    row = layers.solution_row(
                        name, version, publisher, layers.next_position(db), at, platform=True
                    )
                    db.execute(layers.INSERT_SOLUTION, row)
                    found = rules.find(db, name)
                elif found.platform:
                    db.execute("UPDATE solution SET version = ? WHERE id = ?", (version, found.id))
                db.execute("UPDATE solution SET visible = 1 WHERE unique_name = ? AND platform", (name,))

    # -- operations ----------------------------------------------------------------------------------------

    def run(self, work: Work, report: Report) -> DataverseError | None:
        """Carry an accepted operation out, and write down how it ended.

        Args:
            work: the operation.
            report: told of progress; what it raises leaves the operation unfinished.

        Returns:
            Why it failed, or None. Both are on the disk already.

        """
        carry_out = {
            "ImportSolution": self._import,
            "StageAndUpgrade": self._import,
            "UninstallSolution": self._uninstall,
            "DeleteSolution": self._uninstall,
            "PublishAllXml": self._publish,
            "ExportSolution": self._export_job,
        }
        try:
            return carry_out[work.message.removesuffix("Async")](work, report)
        except DataverseError as error:
            failure = error
        except (Abandoned, *STORE_ERRORS):
            raise
        except Exception as error:  # noqa: BLE001  # a defect here fails the operation, not the worker
            _log.exception("operation %s", work.message)
            failure = DataverseError(Code.UNEXPECTED, f"An unexpected error occurred: {error!r}.", status=500)
        with self._store.write() as db:
            self._finish(db, work, None, failure)
        return failure

    def _import(self, work: Work, report: Report) -> DataverseError | None:
        request = ImportRequest.of(work.parameters, work.message)
        asked_upgrade = work.message.startswith("StageAndUpgrade")
        report(2)
        solution = _read(self._package(work.package))
        manifest = solution.manifest
        with self._store.write() as db:
            there = rules.find(db, manifest.unique_name)
            sub_kind = _NEW if there is None else _UPGRADE if asked_upgrade else _UPDATE
            self._start_history(
                db,
                work,
                manifest.unique_name,
                str(manifest.version),
                manifest.publisher.display_name,
                managed=manifest.managed,
                overwrite=request.overwrite,
                kind=_OPERATION_IMPORT,
                sub_kind=sub_kind,
            )
            db.execute(
                "UPDATE import_job SET solution_name = ? WHERE id = ?", (manifest.unique_name, work.job)
            )
        report(15)
        blamed: list[ComponentKey] = []
        try:
            with self._store.look() as db:
                verdict = rules.check(
                    db, solution, self._platform, upgrade=asked_upgrade, allow_downgrade=self._allow_downgrade
                )
                if verdict.errors:
                    blamed = [dependency.dependent.identity for dependency in verdict.missing]
                    raise verdict.errors[0]
                _check_parameters(db, solution, request, blamed)
        except DataverseError as failure:
            with self._store.write() as db:
                self._finish(db, work, solution, failure, blamed)
            return failure
        report(25)
        plan = self._plan(solution, report)
        with self._store.write() as db:
            blocked = self._apply(db, work, solution, plan, request, verdict, upgrade=asked_upgrade)
            self._finish(db, work, solution, blocked, warnings=verdict.warnings)
        return blocked

    def _plan(self, solution: Solution, report: Report) -> layers.Plan:
        """Work the rows out, a slice at a time: others need the interpreter too."""
        plan = layers.Plan([], [], [])
        known = layers.facts(solution)
        total = len(solution.components)
        step = min(_SLICE, max(1, -(-total // 5)))
        for start in range(0, total, step):
            rows = layers.plan_rows(solution, start, start + step, self._namespace, known)
            plan.components.extend(rows[0])
            plan.layers.extend(rows[1])
            report(25 + 60 * min(start + step, total) // total)
        for dependency in solution.dependencies:
            dependent, required = dependency.dependent, dependency.required
            outside = dependency.declared and not rules.from_platform(required, self._platform)
            ends = (*dependent.identity, layers.shown(dependent), *required.identity, layers.shown(required))
            plan.edges.append((*ends, outside))
        report(90)
        return plan

    def _apply(
        self,
        db: sqlite3.Connection,
        work: Work,
        solution: Solution,
        plan: layers.Plan,
        request: ImportRequest,
        verdict: Verdict,
        *,
        upgrade: bool,
    ) -> DataverseError | None:
        """Change the environment. The error of a blocked upgrade comes back; what it leaves is written."""
        manifest = solution.manifest
        there = verdict.installed
        at = now()
        publisher = manifest.publisher
        owner = layers.publisher_id(
            db,
            publisher.unique_name,
            publisher.display_name,
            publisher.prefix,
            publisher.option_value_prefix,
            at,
        )
        keys = {component.identity for component in solution.components}
        blocked: DataverseError | None = None
        if there is not None and upgrade:
            blocked = _upgrade_error(db, there, keys, solution.dependencies)
        if there is None or blocked is not None:
            name = manifest.unique_name if there is None else f"{manifest.unique_name}_Upgrade"
            row = layers.solution_row(
                name,
                str(manifest.version),
                owner,
                layers.next_position(db),
                at,
                managed=manifest.managed,
                upgrade_of=there.id if there is not None else None,
            )
            db.execute(layers.INSERT_SOLUTION, row)
            solution_id = row[0]
        else:
            solution_id = there.id
        db.execute(
            "UPDATE solution SET unique_name = CASE WHEN upgrade_of IS NULL THEN ? ELSE unique_name END, "
            "display_name = ?, description = ?, version = ?, platform_version = ?, publisher = ?, package "
            "= ?, updated_on = ? WHERE id = ?",
            (
                manifest.unique_name,
                manifest.display_name,
                manifest.description,
                str(manifest.version),
                manifest.platform_version,
                owner,
                work.package,
                at,
                solution_id,
            ),
        )
        ids = layers.put_layers(db, solution_id, plan, managed=manifest.managed)
        if there is not None and blocked is None and (upgrade or not manifest.managed):
            kept = set(ids.values())
            dropped = [id_ for id_ in layers.layers_of(db, solution_id) if id_ not in kept]
            if manifest.managed:
                layers.drop_layers(db, solution_id, dropped)
            else:
                layers.leave_to_active(db, solution_id, dropped)
        layers.put_edges(db, solution_id, plan, whole=upgrade)
        if manifest.managed and request.overwrite:
            layers.drop_layers(db, layers.active_id(db), list(ids.values()))
        layers.set_values(db, solution, request.values, at)
        layers.bind(db, request.connections)
        layers.switch_flows(db, solution.flows, ids, publish=request.publish)
        db.execute("UPDATE history SET solution_id = ? WHERE operation = ?", (solution_id, work.operation))
        return blocked

    def _uninstall(self, work: Work, report: Report) -> None:
        name = work.parameters["SolutionUniqueName"]
        with self._store.write() as db:
            there = find_solution(db, name)
            if there.platform:
                raise not_modelled(f"Removing '{name}', which belongs to the platform or an installed app,")
            self._start_history(
                db,
                work,
                there.unique_name,
                there.version,
                there.publisher_name,
                managed=there.managed,
                overwrite=False,
                kind=_OPERATION_UNINSTALL,
                sub_kind=0,
            )
            mine = layers.layers_of(db, there.id)
            if there.managed:
                removed = rules.removed_by(db, there.id, ())
                edges = rules.blockers(db, removed, leaving=there.id)
                foreign = rules.foreign_layer_above(db, there, mine)
                if edges or foreign:
                    why = rules.dependency_text(db, edges) if edges else _foreign_text(foreign)
                    raise DataverseError(
                        Code.CANNOT_UNINSTALL, f"Solution dependencies exist, cannot uninstall. {why}"
                    )
                layers.drop_layers(db, there.id, mine)
            else:
                # The solution is only the container: what is in it stays in the environment.
                layers.leave_to_active(db, there.id, mine, whole=True)
            db.execute("DELETE FROM dependency WHERE solution = ?", (there.id,))
            db.execute("DELETE FROM solution WHERE id = ?", (there.id,))
            self._finish(db, work, None, None)

    def _publish(self, work: Work, report: Report) -> None:
        with self._store.write() as db:
            db.execute("UPDATE layer SET published = 1 WHERE NOT published")
            self._finish(db, work, None, None)

    def _export_job(self, work: Work, report: Report) -> None:
        content = self.export(work.parameters["SolutionName"], managed=work.parameters["Managed"])
        with self._store.write() as db:
            digest = layers.keep_package(db, content)
            db.execute("UPDATE export_job SET package = ? WHERE id = ?", (digest, work.job))
            self._finish(db, work, None, None)

    def _start_history(
        self,
        db: sqlite3.Connection,
        work: Work,
        name: str,
        version: str,
        publisher: str,
        *,
        managed: bool,
        overwrite: bool,
        kind: int,
        sub_kind: int,
    ) -> None:
        """The one history row of an operation; run again after a crash, it finds its row."""
        db.execute(
            "INSERT INTO history (id, number, operation, name, version, publisher, managed, overwrite, kind,"
            " sub_kind, status, started_on) VALUES (?, (SELECT coalesce(max(number), 0) + 1 FROM history),"
            " ?, ?, ?, ?, ?, ?, ?, ?, 0, ?) ON CONFLICT (operation) DO NOTHING",
            (
                str(uuid.uuid4()),
                work.operation,
                name,
                version,
                publisher,
                managed,
                overwrite,
                kind,
                sub_kind,
                now(),
            ),
        )

    def _finish(
        self,
        db: sqlite3.Connection,
        work: Work,
        solution: Solution | None,
        failure: DataverseError | None,
        failed: Iterable[ComponentKey] = (),
        warnings: Iterable[str] = (),
    ) -> None:
        """Complete operation, job and history, in the caller's transaction."""
        at = now()
        code = failure.code.signed if failure else 0
        text = failure.message if failure else None
        db.execute(
            "UPDATE operation SET state = 3, status = ?, turn = NULL, text = ?, error_code = ?, "
            "completed_on = ?, package = NULL WHERE id = ?",
            (_FAILED if failure else _SUCCEEDED, text, code, at, work.operation),
        )
        job = db.execute("SELECT progress, started_on FROM import_job WHERE id = ?", (work.job,)).fetchone()
        if job:
            progress = job[0] if failure else 100.0
            content = results.log(
                solution, started=job[1] or at, ended=at, progress=progress, failure=failure, failed=failed
            )
            db.execute(
                "UPDATE import_job SET progress = ?, content = ?, errors = ?, warnings = ?, completed_on = "
                "? WHERE id = ?",
                (
                    progress,
                    content,
                    json.dumps([[code, text]] if failure else []),
                    json.dumps(list(warnings)),
                    at,
                    work.job,
                ),
            )
        if failure and work.message.startswith(("Uninstall", "Delete")):
            # Its own transaction was rolled back, with the history row of the start.
            there = rules.find(db, work.parameters["SolutionUniqueName"])
            if there:
                self._start_history(
                    db,
                    work,
                    there.unique_name,
                    there.version,
                    there.publisher_name,
                    managed=there.managed,
                    overwrite=False,
                    kind=_OPERATION_UNINSTALL,
                    sub_kind=0,
                )
        db.execute(
            "UPDATE history SET status = 1, result = ?, error_code = ?, error = ?, ended_on = ? WHERE "
            "operation = ?",
            (failure is None, code, text, at, work.operation),
        )
        layers.forget_packages(db)

    def _package(self, digest: bytes | None) -> bytes:
        with self._store.look() as db:
            row = db.execute("SELECT content FROM package WHERE sha256 = ?", (digest,)).fetchone()
        if row is None:
            raise DataverseError(Code.UNEXPECTED, "The package of this operation is gone.", status=500)
        return bytes(row[0])

    # -- what answers a request at once --------------------------------------------------------------------

    def stage(self, package: bytes) -> dict[str, object]:
        """Validate a package and keep it as an upload.

        Returns:
            ``StageSolutionResults`` as the Web API shows it.

        Raises:
            DataverseError: the bytes are no solution package, or one of a sort that is not modelled.

        """
        solution = _read(package)
        manifest = solution.manifest
        with self._store.look() as db:
            verdict = rules.check(
                db, solution, self._platform, upgrade=None, allow_downgrade=self._allow_downgrade
            )
            details = _details(db, solution)
        upload = str(uuid.uuid4())
        with self._store.write() as db:
            digest = layers.keep_package(db, package)
            db.execute(
                "INSERT INTO upload VALUES (?, ?, ?, ?, ?)",
                (upload, digest, manifest.unique_name, str(manifest.version), now()),
            )
        there = verdict.installed
        findings = [_validation("Error", error.message, error.code.signed) for error in verdict.errors]
        findings += [_validation("Warning", warning, 0) for warning in verdict.warnings]
        return {
            "StageSolutionUploadId": upload,
            "StageSolutionStatus": "Failed" if verdict.errors else "Passed",
            "SolutionComponentsDetails": details,
            "SolutionDetails": {
                "SolutionUniqueName": manifest.unique_name,
                "SolutionFriendlyName": manifest.display_name,
                "SolutionDescription": manifest.description,
                "PublisherUniqueName": manifest.publisher.unique_name,
                "PublisherFriendlyName": manifest.publisher.display_name,
                "PreviousSolutionUniqueName": there.unique_name if there else None,
                "PreviousSolutionFriendlyName": there.display_name if there else None,
                "PreviousPublisherUniqueName": there.publisher if there else None,
                "PreviousPublisherFriendlyName": there.publisher_name if there else None,
                "IsPatchSolution": False,
                "IsManaged": manifest.managed,
                "PreviousIsManaged": there.managed if there else False,
                "SolutionVersion": str(manifest.version),
                "PreviousSolutionVersion": there.version if there else None,
                "PreviousPatchSolutionsNames": [],
                "IsPrerequisitesExport": False,
                "HasPendingUpgrade": verdict.pending,
            },
            "MissingDependencies": [_missing(dependency) for dependency in verdict.missing],
            "SolutionValidationResults": findings,
        }

    def discard_upload(self, upload: str) -> None:
        """Delete a staged upload.

        Raises:
            DataverseError: there is none of that id.

        """
        with self._store.write() as db:
            if not db.execute("DELETE FROM upload WHERE id = ?", (upload,)).rowcount:
                raise DataverseError(
                    Code.NOT_FOUND, f"stagesolutionupload With Id = {upload} Does Not Exist", status=404
                )

    def export(self, unique_name: str, *, managed: bool) -> bytes:
        """The package of an unmanaged solution, as unmanaged or as managed.

        Raises:
            DataverseError: there is no such solution, or it is managed.

        """
        with self._store.look() as db:
            there = rules.find(db, unique_name)
        if there is None or there.unique_name == layers.ACTIVE:
            raise DataverseError(
                Code.EXPORT_SOLUTION_MISSING, f"The solution '{unique_name}' does not exist here.", status=404
            )
        if there.managed:
            raise DataverseError(
                Code.MANAGED_CANNOT_BE_EXPORTED,
                "An error occurred while exporting a solution. Managed solutions cannot be exported: "
                f"{unique_name}.",
            )
        return rewrite(self._package(there.package), managed=managed, version=there.version)

    def exported(self, job: str) -> bytes:
        """The package that ExportSolutionAsync made.

        Raises:
            DataverseError: there is no such job, or it has no result (yet).

        """
        with self._store.look() as db:
            row = db.execute(
                "SELECT p.content FROM export_job e LEFT JOIN package p ON p.sha256 = e.package WHERE e.id "
                "= ?",
                (job,),
            ).fetchone()
        if row is None or row[0] is None:
            why = "does not exist" if row is None else "has no result: it is not complete, or it failed"
            raise DataverseError(Code.NOT_FOUND, f"The export job {job} {why}.", status=404)
        return bytes(row[0])

    def set_version(self, solution: str, version: str) -> None:
        """Give an unmanaged solution another version, as a maker does before a deployment.

        Raises:
            DataverseError: no such solution, a managed one, or no version.

        """
        try:
            Version.parse(version)
        except ValueError as error:
            raise DataverseError(Code.INVALID_ARGUMENT, f"{error}.") from None
        with self._store.write() as db:
            there = find_solution(db, solution_name(db, solution))
            if there.managed or there.platform or there.unique_name == layers.ACTIVE:
                raise DataverseError(
                    Code.INVALID_ARGUMENT,
                    f"The version of '{there.unique_name}' cannot be changed: it is managed.",
                )
            db.execute(
                "UPDATE solution SET version = ?, updated_on = ? WHERE id = ?",
                (version.strip(), now(), solution),
            )

    def create_connection(self, name: str, connector_id: str, display_name: str) -> tuple[str, ...]:
        """Add a connection.

        Returns:
            id, display name, connector id, status, time of creation.

        Raises:
            DataverseError: the name is taken or not usable in an address, or the connector id is not one.

        """
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name):
            raise DataverseError(
                Code.INVALID_ARGUMENT,
                f"The connection name '{name}' is not usable; letters, digits, '.', '_', '-'.",
            )
        if not re.fullmatch(
            r"/providers/Microsoft\.PowerApps/apis/[A-Za-z0-9_.-]+", connector_id, re.IGNORECASE
        ):
            raise DataverseError(
                Code.INVALID_ARGUMENT,
                f"The connector id '{connector_id}' is not of the form "
                "/providers/Microsoft.PowerApps/apis/NAME.",
            )
        row = (name, display_name or name, connector_id, "Connected", now())
        with self._store.write() as db:
            try:
                db.execute("INSERT INTO connection VALUES (?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:
                raise DataverseError(
                    Code.DUPLICATE_RECORD, f"There is a connection '{name}' already.", status=409
                ) from None
        return row

    def delete_connection(self, name: str) -> None:
        """Remove a connection; references that were bound to it stay bound to nothing that works.

        Raises:
            DataverseError: there is none of that name.

        """
        with self._store.write() as db:
            if not db.execute("DELETE FROM connection WHERE id = ?", (name,)).rowcount:
                raise DataverseError(Code.NOT_FOUND, f"There is no connection '{name}'.", status=404)


# -- reads by function; these run on the event loop and are short -------------------------------------------


def find_solution(db: sqlite3.Connection, unique_name: str) -> Installed:
    """The installed solution of that name.

    Raises:
        DataverseError: there is none.

    """
    there = rules.find(db, unique_name)
    if there is None:
        raise DataverseError(
            Code.NOT_FOUND, f"solution With uniquename = {unique_name} Does Not Exist", status=404
        )
    return there


def solution_name(db: sqlite3.Connection, solution: str) -> str:
    """The unique name of the solution with that id.

    Raises:
        DataverseError: there is none.

    """
    row = db.execute("SELECT unique_name FROM solution WHERE id = ?", (solution,)).fetchone()
    if row is None:
        raise DataverseError(Code.NOT_FOUND, f"solution With Id = {solution} Does Not Exist", status=404)
    return str(row[0])


def import_result(db: sqlite3.Connection, job: str) -> dict[str, object]:
    """``SolutionOperationResult`` of an import job.

    Raises:
        DataverseError: there is no such job.

    """
    row = db.execute(
        "SELECT errors, warnings, completed_on, coalesce(solution_name, '') FROM import_job WHERE id = ?",
        (job,),
    ).fetchone()
    if row is None:
        raise DataverseError(Code.NOT_FOUND, f"importjob With Id = {job} Does Not Exist", status=404)
    errors, warnings = json.loads(row[0]), json.loads(row[1])

    def message(code: int, text: str) -> dict[str, object]:
        return {"ErrorCode": code, "Message": text}

    lines = [("Failure", text) for _, text in errors] + [("Warning", text) for text in warnings]
    return {
        "Type": "Import",
        "Status": "Failed" if errors else "Passed" if row[2] else "InProgress",
        "WarningMessages": [message(0, text) for text in warnings],
        "ErrorMessages": [message(*pair) for pair in errors],
        "ActionLink": {"Label": None, "Target": None},
        "FormattedResults": results.workbook(row[3], lines or [("Success", row[3])]),
    }


def dependencies_for_delete(db: sqlite3.Connection, object_id: str, code: int) -> list[dict[str, object]]:
    """Rows of ``dependency`` that would stop a component from being deleted.

    Raises:
        DataverseError: the environment has no such component.

    """
    row = db.execute(
        "SELECT c.id, c.kind, c.key FROM component c JOIN kind_code k ON k.kind = c.kind"
        " WHERE c.object_id = ? AND k.code = ?",
        (object_id, code),
    ).fetchone()
    if row is None:
        raise DataverseError(
            Code.NOT_FOUND, f"No component of type {code} has the id {object_id}.", status=404
        )
    return _rows_of(db, rules.blockers(db, {ComponentKey(row[1], row[2]): row[0]}))


def dependencies_for_uninstall(db: sqlite3.Connection, unique_name: str) -> list[dict[str, object]]:
    """Rows of ``dependency`` that would stop a solution from being uninstalled.

    Raises:
        DataverseError: there is no such solution.

    """
    there = find_solution(db, unique_name)
    if not there.managed:
        return []
    return _rows_of(db, rules.blockers(db, rules.removed_by(db, there.id, ()), leaving=there.id))


def missing_dependencies(db: sqlite3.Connection, unique_name: str) -> list[dict[str, object]]:
    """Rows of ``dependency`` of an installed solution whose required component is not here.

    Raises:
        DataverseError: there is no such solution.

    """
    there = find_solution(db, unique_name)
    rows = db.execute(
        "SELECT solution, dependent_kind, dependent_key, dependent_name, required_kind, required_key, "
        "required_name FROM dependency d WHERE solution = ? AND declared AND NOT EXISTS (SELECT 1 FROM "
        "component c WHERE c.kind = d.required_kind AND c.key = d.required_key)",
        (there.id,),
    ).fetchall()
    return _rows_of(
        db,
        [
            rules.Edge(row[0], ComponentKey(row[1], row[2]), row[3], ComponentKey(row[4], row[5]), row[6])
            for row in rows
        ],
    )


def _rows_of(db: sqlite3.Connection, edges: Iterable[rules.Edge]) -> list[dict[str, object]]:
    codes: dict[str, int] = dict(db.execute("SELECT kind, code FROM kind_code").fetchall())
    rows: list[dict[str, object]] = []
    for edge in edges:
        row: dict[str, object] = {
            "dependencyid": str(uuid.uuid5(uuid.NAMESPACE_OID, repr(edge))),
            "dependencytype": 2,
        }
        for side, key in (("dependent", edge.dependent), ("required", edge.required)):
            found = db.execute(
                "SELECT c.object_id, p.object_id, (SELECT l.solution FROM layer l JOIN solution s"
                " ON s.id = l.solution WHERE l.component = c.id ORDER BY NOT s.managed, s.position LIMIT 1)"
                " FROM component c LEFT JOIN component p ON p.kind = c.parent_kind AND p.key = c.parent_key"
                " WHERE c.kind = ? AND c.key = ?",
                key,
            ).fetchone() or (rules.guid_in(key.key) or None, None, edge.solution or None)
            row[f"{side}componenttype"] = codes.get(key.kind)
            row[f"{side}componentobjectid"] = found[0]
            row[f"{side}componentparentid"] = found[1]
            row[f"{side}componentbasesolutionid"] = found[2]
        rows.append(row)
    return rows


# -- packages -----------------------------------------------------------------------------------------------


def _read(content: bytes) -> Solution:
    try:
        return read(content)
    except PackageError as error:
        code = Code.NOT_WELL_FORMED if error.rule.startswith("xml.") else Code.BAD_ZIP
        raise DataverseError(code, f"The solution file is invalid. {error}") from error


# -- what the answers say ------------------------------------------------------------------------------------


def _upgrade_error(
    db: sqlite3.Connection, there: Installed, keep: set[ComponentKey], coming: Iterable[Dependency]
) -> DataverseError | None:
    """Why the base of an upgrade cannot be uninstalled, or None."""
    removed = rules.removed_by(db, there.id, keep)
    edges = rules.blockers(db, removed, leaving=there.id, coming=coming)
    dropped = db.execute(
        "SELECT c.id, c.kind, c.key FROM layer l JOIN component c ON c.id = l.component WHERE l.solution = ?",
        (there.id,),
    )
    gone = [id_ for id_, kind, key in dropped.fetchall() if (kind, key) not in keep]
    foreign = None if edges else rules.foreign_layer_above(db, there, gone)
    if not edges and foreign is None:
        return None
    inner = rules.dependency_text(db, edges) if edges else _foreign_text(foreign)
    return DataverseError(
        Code.UPGRADE_FAILED,
        f"Solution Upgrade action failed after import as holding. InnerException is: {inner}",
    )


def _foreign_text(component: str | None) -> str:
    return (
        f"The uninstall operation will delete the base layer for the component {component}. The operation "
        "cannot continue because there are other managed layers over the base layer."
    )


def _check_parameters(
    db: sqlite3.Connection, solution: Solution, request: ImportRequest, blamed: list[ComponentKey]
) -> None:
    """Hold the component parameters against package and environment.

    Raises:
        DataverseError: a name that the package does not define (its letter case counts), a value of the wrong
            type, a value row that was not named, a connection that is not there or of another connector.

    """
    variables = {variable.schema_name: variable for variable in solution.environment_variables}
    for name, (value, row) in request.values.items():
        blamed[:] = [ComponentKey("environmentvariabledefinition", name.lower())]
        if name not in variables:
            raise _not_in_package("environmentvariabledefinition", name, variables)
        if not _fits(variables[name].type, value):
            raise DataverseError(
                Code.INVALID_ARGUMENT,
                f"The value of the environment variable '{name}' is not valid for its type "
                f"{variables[name].type.name}.",
            )
        there = db.execute("SELECT id FROM variable_value WHERE schema_name = ?", (name,)).fetchone()
        if there and there[0] != row:
            raise DataverseError(
                Code.DUPLICATE_KEY_VALUE,
                f"A record that has the attribute values Schema Name = {name} already exists. The entity "
                "key ndx_envvarval_schemaname requires that this set of attributes contains unique values. "
                "Select unique values and try again.",
            )
    references = {reference.logical_name: reference for reference in solution.connection_references}
    for name, (connection, connector) in request.connections.items():
        blamed[:] = [ComponentKey("connectionreference", name.lower())]
        if name not in references:
            raise _not_in_package("connectionreference", name, references)
        wanted = references[name].connector_id
        found = db.execute("SELECT connector_id FROM connection WHERE id = ?", (connection,)).fetchone()
        if found is None:
            raise DataverseError(
                Code.IMPORT_FAILED,
                f"The connection '{connection}' of connection reference '{name}' does not exist.",
            )
        for given in (connector, found[0]):
            if given and given.lower() != wanted.lower():
                raise DataverseError(
                    Code.IMPORT_FAILED,
                    f"The connection '{connection}' is of the connector {given}, but connection reference "
                    f"'{name}' needs {wanted}.",
                )
    blamed.clear()


def _not_in_package(table: str, name: str, there: Mapping[str, object]) -> DataverseError:
    near = next((other for other in there if other.lower() == name.lower()), None)
    hint = f" Its letter case differs: '{near}'." if near else ""
    return DataverseError(
        Code.INVALID_ARGUMENT,
        f"A component parameter names the {table} '{name}', which is not in the package.{hint}",
    )


def _fits(kind: VariableType, value: str) -> bool:
    if kind is VariableType.BOOLEAN:
        return value.lower() in ("yes", "no", "true", "false")
    try:
        if kind is VariableType.NUMBER:
            float(value)
        elif kind is VariableType.JSON:
            json.loads(value)
    except ValueError:
        return False
    return True


def _validation(kind: str, message: str, code: int) -> dict[str, object]:
    return {
        "SolutionValidationResultType": kind,
        "Message": message,
        "ErrorCode": code,
        "AdditionalInfo": "",
    }


def _missing(dependency: Dependency) -> dict[str, object]:
    def end(name: str, component: RequiredComponent) -> dict[str, object]:
        return {
            f"{name}SchemaName": component.schema_name,
            f"{name}DisplayName": component.display_name,
            f"{name}ParentSchemaName": component.parent_schema_name,
            f"{name}ParentDisplayName": component.parent_display_name,
            f"{name}Id": rules.guid_in(component.key),
            f"{name}Type": component.type,
        }

    return {
        **end("RequiredComponent", dependency.required),
        **end("DependentComponent", dependency.dependent),
        "RequiredSolutionName": dependency.required.solution,
    }


def _details(db: sqlite3.Connection, solution: Solution) -> list[dict[str, object]]:
    """``SolutionComponentsDetails``: the solution, then the components that staging shows."""

    def detail(name: str, kind: str, there: str, attributes: Mapping[str, str]) -> dict[str, object]:
        return {
            "ComponentName": name,
            "ComponentTypeName": kind,
            "IsPresentInOrg": there,
            "Attributes": {
                "Count": len(attributes),
                "Keys": list(attributes),
                "Values": list(attributes.values()),
            },
        }

    def there(kind: str, key: str) -> str:
        return str(rules.object_id_of(db, ComponentKey(kind, key.lower())) is not None)

    manifest = solution.manifest
    details = [
        detail(
            manifest.display_name,
            "solution",
            "Unknown",
            {"localizedname": manifest.display_name, "description": manifest.description},
        )
    ]
    for component in solution.components:
        if component.parent is None and component.kind in _STAGED:
            present = there(*component.identity)
            details.append(detail(component.name, component.kind, present, {"name": component.schema_name}))
    for reference in solution.connection_references:
        attributes = {
            "connectorid": reference.connector_id,
            "connectionreferencelogicalname": reference.logical_name,
            "connectionreferencedisplayname": reference.display_name,
            "description": reference.description,
        }
        present = there("connectionreference", reference.logical_name)
        details.append(detail(reference.logical_name, "connectionreference", present, attributes))
    # Against the order of the package's files, as in the one answer that was captured.
    variables = solution.environment_variables[::-1]
    for variable in variables:
        attributes = {
            "schemaname": variable.schema_name,
            "displayname": variable.display_name,
            "description": variable.description,
            "type": str(int(variable.type)),
            "defaultvalue": variable.default or "",
            "isrequired": str(variable.required).lower(),
            "parameterkey": variable.parameter_key,
            "parentdefinitionid": variable.parent_definition,
            "apiid": variable.api_id,
        }
        present = there("environmentvariabledefinition", variable.schema_name)
        details.append(detail(variable.display_name, "EnvironmentVariableDefinition", present, attributes))
    for variable in variables:
        if variable.packaged_value is None and variable.packaged_value_id is None:
            continue
        attributes = {
            "schemaname": variable.schema_name,
            "environmentvariablevalueid": variable.packaged_value_id or "",
            "value": variable.packaged_value or "",
        }
        row = db.execute(
            "SELECT 1 FROM variable_value WHERE schema_name = ?", (variable.schema_name,)
        ).fetchone()
        details.append(
            detail(variable.schema_name, "EnvironmentVariableValue", str(row is not None), attributes)
        )
    return details
