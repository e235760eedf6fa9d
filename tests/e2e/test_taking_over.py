"""An environment of two hosts: processes of their own, one emulator over https, and no cloud."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.e2e.linked import Bed, TrustingHost
from tests.e2e.processes import HostProcess

from pipelinehost.errors import FailedPrecondition, InvalidArgument
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Event, Run

REASON = "the old host is switched off"


class Two(Bed):
    """Two hosts that have linked the same environment, and sales through it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.one = self.host
        files = self.host.files
        self.two = TrustingHost(folder / "other", files)
        try:
            self.two.start()
            for host in (self.one, self.two):
                self.at(host)
                self.link("qa")
                self.give("qa")
                self.cli("pipeline", "create", "sales", "--stage", "qa=qa")
        except BaseException:
            self.stop()
            raise

    def at(self, host: TrustingHost) -> None:
        """From now on commands go to this host."""
        self.host = host

    def stop(self) -> None:
        self.two.stop()
        self.one.stop()
        self.emulator.stop()

    def deployed(self, host: HostProcess, version: str) -> Run:
        with host.client() as client:
            artifact = client.upload(self.package(version))
            run = client.deploy("sales", artifact=artifact.name, stage="qa")
            return client.wait(run.name, timeout=60)

    def codes(self, host: HostProcess) -> list[str]:
        with host.client() as client:
            return [f.code for f in client.check("qa").findings]

    def installed(self) -> str:
        with self.one.client() as client:
            return next((s.version for s in client.solutions("qa") if s.unique_name == "Sales"), "")


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Two]:
    bed = Two(tmp_path)
    yield bed
    bed.stop()


def told(host: HostProcess, kind: Event.Kind) -> list[Event]:
    with host.client() as client:
        return [e for e in client.events() if e.kind == kind]


def test_an_environment_belongs_to_who_reached_it_first_until_it_is_taken_over(bed: Two) -> None:
    assert Run.State.Name(bed.deployed(bed.one, "1.0.0.0").state) == "STATE_SUCCEEDED"
    run = bed.deployed(bed.two, "1.1.0.0")
    assert (run.error.code, "belongs to the host" in run.error.message) == ("ENVIRONMENT_TAKEN", True)
    assert "environment take-over qa --reason" in run.error.remedy
    assert (bed.installed(), bed.codes(bed.one)) == ("1.0.0.0", [])
    bed.at(bed.two)
    assert "ENVIRONMENT_TAKEN" in bed.cli("environment", "check", "qa", code=1)
    assert "the host" in json.loads(bed.cli("environment", "show", "qa", "-o", "json"))["taken_by"]
    with bed.two.client() as client:
        artifact = next(client.artifacts()).name
        with pytest.raises(FailedPrecondition) as refused:
            client.deploy("sales", artifact=artifact, stage="qa")
        assert refused.value.reason == ErrorReason.ERROR_REASON_ENVIRONMENT_TAKEN
        with pytest.raises(InvalidArgument):
            client.take_over("qa", " ")
    bed.cli("environment", "take-over", "qa", "--reason", REASON, "--yes")
    [taken] = told(bed.two, Event.KIND_ENVIRONMENT_TAKEN_OVER)
    assert taken.message.startswith(f"{REASON} (it belonged to the host ")
    assert (taken.actor, taken.environment_before.taken_by != "", taken.environment.taken_by) == (
        "principals/admin",
        True,
        "",
    )
    assert Run.State.Name(bed.deployed(bed.two, "1.1.0.0").state) == "STATE_SUCCEEDED"
    # The host that lost it notices at its next contact: nothing is sent.
    assert told(bed.one, Event.KIND_ENVIRONMENT_STALE) == []
    run = bed.deployed(bed.one, "1.2.0.0")
    assert (run.error.code, bed.installed()) == ("ENVIRONMENT_TAKEN", "1.1.0.0")
    [stale] = told(bed.one, Event.KIND_ENVIRONMENT_STALE)
    assert (stale.actor, stale.environment.taken_by != "") == ("host", True)
    assert bed.codes(bed.one) == ["ENVIRONMENT_TAKEN"]
    assert len(told(bed.one, Event.KIND_ENVIRONMENT_STALE)) == 1, "it is told once"
    # And takes it back the same way.
    with bed.one.client() as client:
        assert client.take_over("qa", "a mistake").taken_by == ""
        ended = client.wait(client.retry(run.name).name, timeout=60)
    assert (Run.State.Name(ended.state), bed.installed()) == ("STATE_SUCCEEDED", "1.2.0.0")
    assert bed.codes(bed.two) == ["ENVIRONMENT_TAKEN"]


def test_a_deleted_record_lets_the_environment_go(bed: Two) -> None:
    assert (bed.codes(bed.one), bed.codes(bed.two)) == ([], ["ENVIRONMENT_TAKEN"])
    bed.at(bed.one)
    bed.cli("pipeline", "delete", "sales", "--yes")
    bed.cli("environment", "delete", "qa", "--yes")
    assert bed.codes(bed.two) == [], "it is free, and so it belongs to who looks next"
    with bed.two.client() as client:
        assert client.environment("qa").taken_by == ""
    bed.at(bed.two)
    bed.cli("pipeline", "delete", "sales", "--yes")
    bed.emulator.stop()
    said = bed.cli("environment", "delete", "qa", "--yes")
    assert "still says that it belongs to this host" in said
    bed.emulator.start()
    bed.at(bed.one)
    bed.link("qa")
    bed.give("qa")
    assert bed.codes(bed.one) == ["ENVIRONMENT_TAKEN"]
    bed.cli("environment", "take-over", "qa", "--reason", REASON, "--yes")
    assert bed.codes(bed.one) == []


def test_of_two_hosts_that_come_at_once_one_has_it(bed: Two) -> None:
    with ThreadPoolExecutor(2) as both:
        found = sorted(both.map(bed.codes, (bed.one, bed.two)))
    assert found == [[], ["ENVIRONMENT_TAKEN"]]
