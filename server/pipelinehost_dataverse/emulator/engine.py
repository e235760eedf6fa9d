"""What an environment does with packages: stage, import, upgrade, promote, uninstall, export, publish.

Everything here runs in threads of work, never on the event loop. An import is worked out first, outside of
any transaction, with its progress written as it goes; then one transaction applies it, with its job, history
and operation: once, or not at all. The one exception is Dataverse's: an upgrade that is blocked after its
package was imported as ``{name}_Upgrade`` leaves that behind.
"""

from __future__ import annotations

import logging
import sqlite3
import uuid
from collections.abc import Mapping
from typing import Any

from pipelinehost_dataverse.emulator import importing, journal, layers, makers, removal, rules, staging
from pipelinehost_dataverse.emulator.answers import find_solution, promotable
from pipelinehost_dataverse.emulator.baseline import Platform
from pipelinehost_dataverse.emulator.errors import Code, DataverseError, not_modelled
from pipelinehost_dataverse.emulator.journal import Abandoned, Line, Report, Work, now
from pipelinehost_dataverse.emulator.parameters import ImportRequest, check_parameters
from pipelinehost_dataverse.emulator.rules import Installed, Mode
from pipelinehost_dataverse.emulator.store import STORE_ERRORS, Store
from pipelinehost_dataverse.solution import ComponentKey, PackageError, Solution, read, rewrite

_log = logging.getLogger(__name__)


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
        with store.write() as db:
            self._platform.seed(db, now())
            self._namespace = uuid.UUID(db.execute("SELECT id FROM environment").fetchone()[0])

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
            "DeleteAndPromote": self._promote,
            "UninstallSolution": self._uninstall,
            "DeleteSolution": self._uninstall,
            "PublishAllXml": self._publish,
            "PublishXml": self._publish,
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
            journal.end(db, work, failure=failure)
        return failure

    def _import(self, work: Work, report: Report) -> DataverseError | None:
        request = ImportRequest.of(work.parameters, work.message)
        mode = Mode.UPGRADE if request.upgrade else Mode.HOLD if request.hold else Mode.UPDATE
        report(2)
        solution = _read(self._package(work.package))
        manifest = solution.manifest
        with self._store.write() as db:
            there = rules.find(db, manifest.unique_name)
            sub_kind = journal.UPDATE if mode is Mode.UPDATE else journal.UPGRADE
            line = Line(
                manifest.unique_name,
                str(manifest.version),
                manifest.publisher.display_name,
                manifest.managed,
                journal.IMPORT,
                journal.NEW if there is None else sub_kind,
                request.overwrite,
            )
            journal.begin(db, work, line)
            db.execute(
                "UPDATE import_job SET solution_name = ? WHERE id = ?", (manifest.unique_name, work.job)
            )
        report(15)
        blamed: list[ComponentKey] = []
        try:
            with self._store.look() as db:
                verdict = rules.check(
                    db, solution, self._platform, mode, allow_downgrade=self._allow_downgrade
                )
                if verdict.errors:
                    blamed = [dependency.dependent.identity for dependency in verdict.missing]
                    raise verdict.errors[0]
                check_parameters(db, solution, request, blamed)
        except DataverseError as failure:
            with self._store.write() as db:
                journal.end(db, work, failure=failure, solution=solution, blamed=blamed)
            return failure
        report(25)
        plan = importing.plan(solution, self._platform, self._namespace, report)
        with self._store.write() as db:
            blocked = importing.apply(db, work, solution, plan, request, verdict, mode)
            journal.end(db, work, failure=blocked, solution=solution, warnings=verdict.warnings)
        return blocked

    def _promote(self, work: Work, report: Report) -> None:
        name = work.parameters["UniqueName"]
        with self._store.write() as db:
            there = find_solution(db, name)
            journal.begin(db, work, _line(there, journal.IMPORT, journal.UPGRADE))
        with self._store.write() as db:
            coming = promotable(db, there)
            why = removal.refusal(db, removal.leaving_with(db, there.id), coming=coming.id)
            if why:
                raise DataverseError(
                    Code.CANNOT_UNINSTALL, f"Solution dependencies exist, cannot uninstall. {why}"
                )
            importing.replace(db, there, coming.id, there.unique_name)
            db.execute(
                "UPDATE history SET solution_id = ?, version = ? WHERE operation = ?",
                (coming.id, coming.version, work.operation),
            )
            journal.end(db, work)

    def _uninstall(self, work: Work, report: Report) -> None:
        name = work.parameters["SolutionUniqueName"]
        with self._store.write() as db:
            there = find_solution(db, name)
            if there.platform:
                raise not_modelled(f"Removing '{name}', which belongs to the platform or an installed app,")
            journal.begin(db, work, _line(there, journal.UNINSTALL, journal.NONE))
        with self._store.write() as db:
            leaving = removal.leaving_with(db, there.id)
            why = _kept_by(db, there, leaving) or (removal.refusal(db, leaving) if there.managed else None)
            if why:
                raise DataverseError(
                    Code.CANNOT_UNINSTALL, f"Solution dependencies exist, cannot uninstall. {why}"
                )
            for solution in leaving:
                layers.drop_solution(db, solution)
            layers.sweep(db)
            journal.end(db, work)

    def _publish(self, work: Work, report: Report) -> None:
        xml = work.parameters.get("ParameterXml")
        with self._store.write() as db:
            layers.publish(db, None if xml is None else makers.named_in(db, xml))
            journal.end(db, work)

    def _export_job(self, work: Work, report: Report) -> None:
        content = self.export(work.parameters["SolutionName"], managed=work.parameters["Managed"])
        with self._store.write() as db:
            digest = layers.keep_package(db, content)
            db.execute("UPDATE export_job SET package = ? WHERE id = ?", (digest, work.job))
            journal.end(db, work)

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
        upload = str(uuid.uuid4())
        with self._store.look() as db:
            verdict = rules.check(
                db, solution, self._platform, Mode.LOOK, allow_downgrade=self._allow_downgrade
            )
            results = staging.results(db, solution, verdict, upload)
        with self._store.write() as db:
            digest = layers.keep_package(db, package)
            db.execute(
                "INSERT INTO upload VALUES (?, ?, ?, ?, ?)",
                (upload, digest, manifest.unique_name, str(manifest.version), now()),
            )
        return results

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
            DataverseError: there is no such solution, it is managed or locked by its patches, or what makers
                changed is in no package.

        """
        with self._store.look() as db:
            there = rules.find(db, unique_name)
            if there is None or there.unique_name == layers.ACTIVE:
                raise DataverseError(
                    Code.EXPORT_SOLUTION_MISSING,
                    f"The solution '{unique_name}' does not exist here.",
                    status=404,
                )
            if there.managed:
                raise DataverseError(
                    Code.MANAGED_CANNOT_BE_EXPORTED,
                    "An error occurred while exporting a solution. Managed solutions cannot be exported: "
                    f"{unique_name}.",
                )
            makers.check_unlocked(db, there, Code.EXPORT_FAILED, "exported")
            changed = makers.changed_since_package(db, there.id)
        if changed is not None:
            raise not_modelled(
                f"An export of '{unique_name}' after {changed} was changed otherwise than by importing the "
                "package of this solution"
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

    # -- who asks ------------------------------------------------------------------------------------------

    def user(self, application: str, *, reader: bool) -> str:
        """The user that an application acts as; made when it is here for the first time.

        Args:
            application: its client id.
            reader: whether it holds no privilege but to read.
        """
        id_ = str(uuid.uuid5(self._namespace, application.lower()))
        with self._store.write() as db:
            db.execute(
                "INSERT INTO user VALUES (?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET reader = excluded.reader",
                (id_, application, reader, now()),
            )
        return id_

    # -- what makers do ------------------------------------------------------------------------------------

    def set_version(self, solution: str, version: str) -> None:
        """See ``makers.set_version``."""
        with self._store.write() as db:
            makers.set_version(db, solution, version)

    def clone(self, message: str, parent: str, display_name: str, version: str) -> str:
        """CloneAsPatch or CloneAsSolution, see ``makers``; the id of the patch or of the solution."""
        clone = {"CloneAsPatch": makers.clone_as_patch, "CloneAsSolution": makers.clone_as_solution}[message]
        with self._store.write() as db:
            return clone(db, parent, display_name, version)

    def change(self, table: str, row: str, changes: Mapping[str, Any]) -> None:
        """PATCH a row, see ``makers.change``."""
        with self._store.write() as db:
            makers.change(db, table, row, changes)

    def create_definition(self, changes: Mapping[str, Any]) -> str:
        """Make a variable, see ``makers.create_definition``; the id of its definition."""
        with self._store.write() as db:
            return makers.create_definition(db, changes)

    def delete_definition(self, row: str) -> None:
        """Delete a variable, see ``makers.delete_definition``."""
        with self._store.write() as db:
            makers.delete_definition(db, row)

    def create_value(self, changes: Mapping[str, Any]) -> str:
        """Give a variable its value, see ``makers.create_value``; the id of the value's row."""
        with self._store.write() as db:
            return makers.create_value(db, changes)

    def delete_value(self, row: str) -> None:
        """Take a customer's value of a variable away, see ``makers.delete_value``."""
        with self._store.write() as db:
            makers.delete_value(db, row)

    def customize(self, kind: str, object_id: str, name: str) -> None:
        """Change any component, see ``makers.customize``."""
        with self._store.write() as db:
            makers.customize(db, kind, object_id, name)

    def remove_customizations(self, kind: str, object_id: str) -> None:
        """Take the makers' layer of a component away, see ``makers.remove_customizations``."""
        with self._store.write() as db:
            makers.remove_customizations(db, kind, object_id)

    def create_connection(self, name: str, connector_id: str, display_name: str) -> tuple[str, ...]:
        """Add a connection, see ``makers.create_connection``; its row."""
        with self._store.write() as db:
            return makers.create_connection(db, name, connector_id, display_name)

    def delete_connection(self, name: str) -> None:
        """Remove a connection, see ``makers.delete_connection``."""
        with self._store.write() as db:
            makers.delete_connection(db, name)


def _line(there: Installed, kind: int, sub_kind: int) -> Line:
    return Line(there.unique_name, there.version, there.publisher_name, there.managed, kind, sub_kind)


def _kept_by(db: sqlite3.Connection, there: Installed, leaving: list[str]) -> str | None:
    """Which other solution has to go first, or None."""
    coming = rules.holding(db, there)
    if coming is not None:
        return f"Apply or delete '{coming.unique_name}' first."
    if not there.managed and len(leaving) > 1:
        names = ", ".join(f"'{patch.unique_name}'" for patch in reversed(rules.patches(db, there)))
        return f"Delete its patches first: {names}."
    return None


def _read(content: bytes) -> Solution:
    try:
        return read(content)
    except PackageError as error:
        family = error.rule.partition(".")[0]
        codes = {
            "xml": Code.NOT_WELL_FORMED,
            "manifest": Code.INVALID_XML,
            "customizations": Code.INVALID_XML,
        }
        code = codes.get(family, Code.BAD_ZIP)
        raise DataverseError(code, f"The solution file is invalid. {error}") from error
