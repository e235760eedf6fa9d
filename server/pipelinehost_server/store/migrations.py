"""The schema, version by version. What has been released is never edited; a change is a new version.

A version is one transaction together with the number that says it is there (``PRAGMA user_version``), so an
end in the middle of it leaves the version before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from peewee import SqliteDatabase

_FIRST: Final = """
CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO meta VALUES ('identity', lower(hex(randomblob(8))));

CREATE TABLE environment (
    name TEXT NOT NULL PRIMARY KEY, kind INTEGER NOT NULL, region TEXT NOT NULL, display_name TEXT NOT NULL,
    frame BLOB NOT NULL);

CREATE TABLE pipeline (name TEXT NOT NULL PRIMARY KEY, display_name TEXT NOT NULL, frame BLOB NOT NULL);

CREATE TABLE pipeline_environment (
    environment TEXT NOT NULL, pipeline TEXT NOT NULL,
    PRIMARY KEY (environment, pipeline)) WITHOUT ROWID;
CREATE INDEX pipeline_environment_pipeline ON pipeline_environment (pipeline);

CREATE TABLE artifact (
    name TEXT NOT NULL PRIMARY KEY, solution TEXT NOT NULL, version TEXT NOT NULL, managed INTEGER NOT NULL,
    create_time INTEGER NOT NULL, frame BLOB NOT NULL);
CREATE INDEX artifact_create_time ON artifact (create_time, name);
CREATE INDEX artifact_solution ON artifact (solution, version, managed, create_time, name);

CREATE TABLE run (
    name TEXT NOT NULL PRIMARY KEY, state INTEGER NOT NULL, pipeline TEXT NOT NULL, stage TEXT NOT NULL,
    solution TEXT NOT NULL, version TEXT NOT NULL, artifact TEXT NOT NULL, source_environment TEXT NOT NULL,
    target_environment TEXT NOT NULL, requester TEXT NOT NULL, create_time INTEGER NOT NULL,
    end_time INTEGER NOT NULL, epoch INTEGER NOT NULL, held_environment TEXT, waiting INTEGER,
    frame BLOB NOT NULL);
CREATE INDEX run_create_time ON run (create_time, name);
CREATE INDEX run_pipeline ON run (pipeline, create_time, name);
CREATE INDEX run_target_environment ON run (target_environment, create_time, name);
CREATE INDEX run_state ON run (state, create_time, name);
CREATE INDEX run_unfinished ON run (create_time, name, state) WHERE state < 9;
CREATE INDEX run_succeeded_artifact ON run (stage, artifact) WHERE state = 9;
CREATE INDEX run_succeeded_solution ON run (stage, solution, end_time, name) WHERE state = 9;
CREATE UNIQUE INDEX run_held_environment ON run (held_environment) WHERE held_environment IS NOT NULL;
CREATE INDEX run_waiting ON run (target_environment, waiting) WHERE waiting IS NOT NULL;

CREATE TABLE run_snapshot (run TEXT NOT NULL PRIMARY KEY, request BLOB, pipeline BLOB);

CREATE TABLE output (run TEXT NOT NULL, step TEXT NOT NULL, output BLOB NOT NULL, PRIMARY KEY (run, step));

CREATE TABLE finding (
    run TEXT NOT NULL, position INTEGER NOT NULL, step INTEGER NOT NULL, frame BLOB NOT NULL,
    PRIMARY KEY (run, position));

CREATE TABLE component_result (
    run TEXT NOT NULL, position INTEGER NOT NULL, frame BLOB NOT NULL,
    PRIMARY KEY (run, position));

CREATE TABLE run_setting (
    run TEXT NOT NULL, position INTEGER NOT NULL, frame BLOB NOT NULL,
    PRIMARY KEY (run, position));

CREATE TABLE event (
    sequence INTEGER NOT NULL PRIMARY KEY, subject TEXT NOT NULL, kind INTEGER NOT NULL, actor TEXT NOT NULL,
    time INTEGER NOT NULL, hash BLOB NOT NULL, frame BLOB NOT NULL);
CREATE INDEX event_subject ON event (subject, sequence);

CREATE TABLE secret (name TEXT NOT NULL PRIMARY KEY, ciphertext BLOB NOT NULL);

CREATE TABLE token (sha256 BLOB NOT NULL PRIMARY KEY, principal TEXT NOT NULL);

CREATE TABLE request (
    principal TEXT NOT NULL, request_id TEXT NOT NULL, method TEXT NOT NULL, body_sha256 BLOB NOT NULL,
    time INTEGER NOT NULL, response BLOB NOT NULL,
    PRIMARY KEY (principal, request_id));
CREATE INDEX request_time ON request (time);
"""

# The pipelines and artifacts of the first version belong to its only principal. Its tokens lie by their plain
# SHA-256; the host replaces that by an HMAC when it starts, which SQL cannot.
_PRINCIPALS: Final = """
CREATE TABLE principal (
    name TEXT NOT NULL PRIMARY KEY, kind INTEGER NOT NULL, role INTEGER NOT NULL, display_name TEXT NOT NULL,
    frame BLOB NOT NULL);

CREATE INDEX principal_role ON principal (role, name);

CREATE TABLE membership (
    member TEXT NOT NULL, principal TEXT NOT NULL,
    PRIMARY KEY (member, principal)) WITHOUT ROWID;
CREATE INDEX membership_principal ON membership (principal);

CREATE TABLE identity (identity TEXT NOT NULL PRIMARY KEY, principal TEXT NOT NULL);
CREATE INDEX identity_principal ON identity (principal);

CREATE TABLE pipeline_access (
    principal TEXT NOT NULL, pipeline TEXT NOT NULL, reach INTEGER NOT NULL,
    PRIMARY KEY (principal, pipeline)) WITHOUT ROWID;
CREATE INDEX pipeline_access_pipeline ON pipeline_access (pipeline);

CREATE TABLE environment_maker (
    principal TEXT NOT NULL, environment TEXT NOT NULL,
    PRIMARY KEY (principal, environment)) WITHOUT ROWID;
CREATE INDEX environment_maker_environment ON environment_maker (environment);

CREATE TABLE uploader (
    artifact TEXT NOT NULL, principal TEXT NOT NULL,
    PRIMARY KEY (artifact, principal)) WITHOUT ROWID;

CREATE INDEX run_artifact ON run (artifact, pipeline);

ALTER TABLE token RENAME TO first_token;
CREATE TABLE token (
    name TEXT NOT NULL PRIMARY KEY, digest BLOB NOT NULL, principal TEXT NOT NULL, frame BLOB NOT NULL);
CREATE UNIQUE INDEX token_digest ON token (digest);
CREATE INDEX token_principal ON token (principal, name);
INSERT INTO token
    SELECT 'tokens/' || lower(substr(hex(sha256), 1, 8)), sha256, 'principals/' || principal, x''
    FROM first_token;
DROP TABLE first_token;
"""

_GATES: Final = """
CREATE TABLE gate_note (
    run TEXT NOT NULL, position INTEGER NOT NULL, frame BLOB NOT NULL,
    PRIMARY KEY (run, position));
"""

_FREEZES: Final = """
CREATE TABLE freeze (
    name TEXT NOT NULL PRIMARY KEY, scope TEXT NOT NULL, pipeline TEXT NOT NULL, frame BLOB NOT NULL);
CREATE INDEX freeze_scope ON freeze (scope, name);
CREATE INDEX freeze_pipeline ON freeze (pipeline, name);
"""

_DELIVERIES: Final = """
CREATE TABLE delivery (
    run TEXT NOT NULL PRIMARY KEY, id TEXT NOT NULL, kind INTEGER NOT NULL, attempts INTEGER NOT NULL,
    body BLOB NOT NULL);
"""

# Of runs whose events were dropped the clock tells the order, and they come before all others.
_ENDS: Final = """
ALTER TABLE run ADD COLUMN end_sequence INTEGER NOT NULL DEFAULT 0;
UPDATE run SET end_sequence = coalesce((SELECT max(sequence) FROM event WHERE subject = run.name), 0)
    WHERE state >= 9;
DROP INDEX run_succeeded_solution;
CREATE INDEX run_succeeded_solution
    ON run (stage, solution COLLATE NOCASE, end_sequence, end_time, name, version) WHERE state = 9;
CREATE INDEX run_succeeded_target
    ON run (target_environment, solution COLLATE NOCASE, end_sequence, end_time, name) WHERE state = 9;
"""

# A version goes by the etag that the pipeline had; those of older runs by the run. What else a run was asked
# with stands in the run.
_PIPELINE_VERSIONS: Final = """
CREATE TABLE pipeline_version (version TEXT NOT NULL PRIMARY KEY, pipeline BLOB NOT NULL);
INSERT INTO pipeline_version SELECT run, pipeline FROM run_snapshot WHERE pipeline IS NOT NULL;
ALTER TABLE run ADD COLUMN pipeline_version TEXT NOT NULL DEFAULT '';
UPDATE run SET pipeline_version = name WHERE name IN (SELECT version FROM pipeline_version);
DROP TABLE run_snapshot;
"""

VERSIONS: Final = (_FIRST, _PRINCIPALS, _GATES, _FREEZES, _DELIVERIES, _ENDS, _PIPELINE_VERSIONS)
"""Statements, each ended by a semicolon, that lead from the version before."""


class StoreTooNew(Exception):
    """The store was written by a newer PipelineHost than this one; this one could only damage it.

    Attributes:
        found: schema version of the store.
        supported: newest schema version that this program knows.
    """

    def __init__(self, found: int, supported: int) -> None:
        super().__init__(
            f"the store has schema version {found}, and this program knows versions up to {supported}: "
            "start the PipelineHost that served this folder last, or a newer one; to go back to this one, "
            "restore a backup from before the upgrade"
        )
        self.found = found
        self.supported = supported


def migrate(database: SqliteDatabase) -> None:
    """Brings the store to the newest version.

    Raises:
        StoreTooNew: the store is of a newer version already.
    """
    execute: Callable[[str], sqlite3.Cursor] = database.execute_sql
    (found,) = execute("PRAGMA user_version").fetchone()
    if found > len(VERSIONS):
        raise StoreTooNew(found, len(VERSIONS))
    for version, statements in enumerate(VERSIONS[found:], start=found + 1):
        with database.atomic("IMMEDIATE"):
            for statement in statements.split(";")[:-1]:
                execute(statement)
            execute(f"PRAGMA user_version = {version}")
