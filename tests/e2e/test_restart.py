"""The host is killed at a chosen point of a run, or an answer is lost there: the run still ends right, once.

The environments live in a process of their own. Between them and the host stands a proxy that sees every
request, so that a point is named by the request that marks it.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.crash import checks
from tests.crash.record import OUTSIDE, Asked, Record
from tests.e2e.processes import EmulatorProcess, HostProcess
from tests.e2e.proxy import Proxy

from pipelinehost import Client, FailedPrecondition
from pipelinehost.transfer import Upload
from pipelinehost.v1.artifacts_pb2 import UploadArtifactRequest
from pipelinehost.v1.artifacts_pb2_grpc import ArtifactsStub
from pipelinehost.v1.resources_pb2 import Artifact, Environment, Pipeline, Run, Stage
from pipelinehost_dataverse.solution import Column, Table, new_manifest, write

IMPORT = r"POST /qa/.*/(ImportSolutionAsync|StageAndUpgradeAsync)$"
SECONDS = 60.0


class Bed:
    """A host, environments beside it, and the proxy between them."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.proxy = Proxy()
        self.environments = EmulatorProcess(
            folder / "outside", "dev", "qa", options=("--pace", "0.5", *options)
        )
        self.host = HostProcess(folder / "host")
        self.record = Record()
        self.killed = threading.Event()
        self.environments.start()
        self.proxy.target = self.environments.address
        self.host.start()
        self.client: Client = self.host.client()
        for name, kind in (("dev", Environment.KIND_DEVELOPMENT), ("qa", Environment.KIND_TARGET)):
            url = self.proxy.url(name)
            self.client.create_environment(
                Environment(name=f"environments/{name}", kind=kind, url=url, connectivity_url=url)
            )
        self.client.create_pipeline(
            Pipeline(
                name="pipelines/sales",
                development_environments=["environments/dev"],
                stages=[Stage(name="pipelines/sales/stages/qa", environment="environments/qa")],
            )
        )
        self.folder = folder

    def upload(self, version: str = "1.0.0.0", *, managed: bool = True) -> Artifact:
        columns = tuple(Column(f"cts_c{i}") for i in range(3))
        path = self.folder / "package.zip"
        path.write_bytes(
            write(new_manifest("Sales", version, managed=managed), Table("cts_order", columns=columns))
        )
        return self.client.upload(path)

    def restored(self, version: str = "1.0.0.0") -> None:
        run = self.accepted(self.client.restore(self.upload(version, managed=False).name, "dev"))
        assert self.ended(run).state == Run.STATE_SUCCEEDED

    def accepted(self, run: Run, *ends: str) -> Run:
        self.record.accept(Asked(run.name, OUTSIDE, set(ends or ("SUCCEEDED",))))
        return run

    def ended(self, run: Run) -> Run:
        return self.client.wait(run.name, timeout=SECONDS)

    def kill(self) -> bool:
        self.host.kill()
        self.killed.set()
        return False

    def drop(self) -> bool:
        self.killed.set()
        return False

    def restart(self) -> None:
        assert self.killed.wait(SECONDS), "the point was not reached"
        self.host.start()

    def judge(self) -> None:
        """Everything that must hold after a storm must hold here as well."""
        runs = {run.name: run for run in self.client.runs()}
        for problem in checks.leftovers(self.host.data):
            self.record.violated(problem)
        urls = {f"environments/{name}": self.environments.url(name) for name in ("dev", "qa")}
        checks.imports(self.record, runs, urls)
        assert self.host.stop() == 0
        with contextlib.closing(sqlite3.connect(self.host.data / "pipelinehost.db")) as database:
            checks.store(self.record, runs, database)
        checks.logs(self.record, self.host.folder, self.environments.folder)
        assert self.record.violations == []

    def close(self) -> None:
        self.client.close()
        self.host.kill()
        self.environments.kill()
        self.proxy.close()


@pytest.fixture
def options() -> tuple[str, ...]:
    return ()


@pytest.fixture
def bed(tmp_path: Path, options: tuple[str, ...]) -> Iterator[Bed]:
    bed = Bed(tmp_path, *options)
    yield bed
    bed.close()


def test_right_after_a_deployment_was_acknowledged(bed: Bed) -> None:
    run = bed.accepted(bed.client.deploy("sales", artifact=bed.upload().name))
    bed.kill()
    bed.restart()
    assert bed.ended(run).state == Run.STATE_SUCCEEDED
    bed.judge()


POINTS = {
    "the-export-is-asked-for": ("before", r"POST /dev/.*/ExportSolutionAsync"),
    "in-the-middle-of-the-export": ("after", r"POST /dev/.*/ExportSolutionAsync"),
    "the-package-has-not-arrived": ("after", r"POST /dev/.*/DownloadSolutionExportData"),
    "the-target-validates": ("after", r"POST /qa/.*/StageSolution"),
    "between-intent-and-POST": ("before", IMPORT),
    "after-the-POST-before-its-answer": ("after", IMPORT),
    "during-the-import": ("after", r"GET /qa/.*/asyncoperations\("),
    "after-the-import-before-its-outcome": ("before", r"GET /qa/.*/importjobs\(.*\?\$select=data"),
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_when(bed: Bed, point: str) -> None:
    bed.restored()
    bed.proxy.at(*POINTS[point], bed.kill)
    run = bed.accepted(bed.client.deploy("sales", solution="Sales"))
    bed.restart()
    assert bed.ended(run).state == Run.STATE_SUCCEEDED
    bed.judge()


def test_killed_after_the_import_and_before_verify(bed: Bed) -> None:
    def imported() -> bool:
        bed.proxy.at("before", r"GET /qa/.*/solutions\?", bed.kill)
        return True

    bed.proxy.at("before", r"GET /qa/.*/importjobs\(.*\?\$select=data", imported)
    run = bed.accepted(bed.client.deploy("sales", artifact=bed.upload().name))
    bed.restart()
    assert bed.ended(run).state == Run.STATE_SUCCEEDED
    bed.judge()


@pytest.mark.parametrize("options", [("--pace", "0.02")], ids=["fast"])
def test_the_import_arrives_when_the_host_is_back_already(bed: Bed) -> None:
    back = threading.Event()

    def late() -> bool:
        bed.kill()
        assert back.wait(SECONDS)
        time.sleep(0.8)  # by now the host has looked and seen nothing
        return True

    bed.proxy.at("before", IMPORT, late)
    run = bed.accepted(bed.client.deploy("sales", artifact=bed.upload().name))
    bed.restart()
    back.set()
    assert bed.ended(run).state == Run.STATE_SUCCEEDED
    bed.proxy.wait_until_idle()
    bed.judge()


def test_what_has_arrived_of_an_upload_does_not_outlive_the_host(bed: Bed) -> None:
    path = bed.folder / "package.zip"
    path.write_bytes(bytes(2 * 2**20))
    arriving, killed = bed.host.data / "blobs" / "arriving", threading.Event()

    def part() -> Iterator[UploadArtifactRequest]:
        yield from itertools.islice(Upload(path, None), 3)
        killed.wait(SECONDS)

    with grpc.insecure_channel(bed.host.address) as channel:
        token = (bed.host.data / "admin-token").read_text().strip()
        upload = ArtifactsStub(channel).UploadArtifact.future(
            part(), metadata=(("authorization", f"Bearer {token}"),)
        )
        ends = time.monotonic() + SECONDS
        while not any(arriving.glob("*")) and time.monotonic() < ends:
            time.sleep(0.01)
        assert any(arriving.iterdir())
        bed.kill()
        killed.set()
        assert upload.exception() is not None
    bed.restart()
    assert not any(arriving.iterdir())
    bed.judge()


def test_killed_again_while_it_reconciles(bed: Bed) -> None:
    bed.proxy.at("before", IMPORT, bed.kill)
    run = bed.accepted(bed.client.deploy("sales", artifact=bed.upload().name))
    assert bed.killed.wait(SECONDS)
    bed.killed.clear()
    bed.proxy.at("before", r"GET /qa/.*/msdyn_solutionhistories", bed.kill)
    bed.host.start()
    bed.restart()
    assert bed.ended(run).state == Run.STATE_SUCCEEDED
    bed.judge()


def test_an_upgrade_killed_before_its_answer(bed: Bed) -> None:
    first = bed.accepted(bed.client.deploy("sales", artifact=bed.upload("1.0.0.0").name))
    assert bed.ended(first).state == Run.STATE_SUCCEEDED
    bed.proxy.at("after", r"POST /qa/.*/StageAndUpgradeAsync", bed.kill)
    run = bed.accepted(bed.client.deploy("sales", artifact=bed.upload("1.1.0.0").name))
    bed.restart()
    assert bed.ended(run).state == Run.STATE_SUCCEEDED
    bed.judge()


@pytest.mark.parametrize("options", [(), ("--ignore-import-job-id",)], ids=["own-id", "foreign-id"])
def test_the_answer_to_the_import_is_lost(bed: Bed) -> None:
    bed.proxy.at("after", IMPORT, bed.drop)
    run = bed.accepted(bed.client.deploy("sales", artifact=bed.upload().name))
    assert bed.ended(run).state == Run.STATE_SUCCEEDED
    assert bed.killed.is_set()
    bed.judge()


def test_the_import_is_lost_on_its_way(bed: Bed) -> None:
    bed.proxy.at("before", IMPORT, bed.drop)
    run = bed.accepted(bed.client.deploy("sales", artifact=bed.upload().name))
    assert bed.ended(run).state == Run.STATE_SUCCEEDED
    assert bed.killed.is_set()
    bed.judge()


@pytest.mark.parametrize("options", [("--ignore-import-job-id",)], ids=["foreign-id"])
def test_killed_before_the_answer_where_job_ids_are_ignored(bed: Bed) -> None:
    bed.proxy.at("after", IMPORT, bed.kill)
    run = bed.accepted(bed.client.deploy("sales", artifact=bed.upload().name))
    bed.restart()
    assert bed.ended(run).state == Run.STATE_SUCCEEDED
    bed.judge()


def test_the_environment_is_killed_during_the_import(bed: Bed) -> None:
    def kill() -> bool:
        bed.environments.kill()
        bed.killed.set()
        return False

    bed.proxy.at("before", r"GET /qa/.*/asyncoperations\(", kill)
    run = bed.accepted(bed.client.deploy("sales", artifact=bed.upload().name))
    assert bed.killed.wait(SECONDS)
    bed.environments.start()
    assert bed.ended(run).state == Run.STATE_SUCCEEDED
    bed.judge()


def test_a_lost_answer_to_publish_is_asked_for_again_and_imports_nothing_twice(bed: Bed) -> None:
    bed.proxy.at("after", r"POST /dev/.*/PublishAllXml", bed.drop)
    asked = bed.client.restore(bed.upload(managed=False).name, "dev")
    bed.record.accept(Asked(asked.name, OUTSIDE, {"SUCCEEDED"}))
    assert bed.ended(asked).state == Run.STATE_SUCCEEDED
    assert bed.killed.is_set(), "the answer was lost"
    bed.judge()


def test_a_request_that_is_repeated_gives_the_same_run_whatever_has_happened_since(bed: Bed) -> None:
    """A client that was never answered repeats its request when it is back: here after the run has ended."""
    bed.restored()
    run = bed.accepted(bed.client.deploy("sales", solution="Sales", request_id="the-same"))
    assert bed.ended(run).state == Run.STATE_SUCCEEDED
    with pytest.raises(FailedPrecondition, match="Every stage of sales"):
        bed.client.deploy("sales", solution="Sales")
    assert bed.client.deploy("sales", solution="Sales", request_id="the-same").name == run.name
    bed.environments.kill()
    assert bed.client.deploy("sales", solution="Sales", request_id="the-same").name == run.name
    bed.environments.start()
    bed.judge()
