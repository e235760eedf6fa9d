"""Going back with real processes: the CLI shows the loss, an approver reads it, and exactly it is lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.processes import EmulatorProcess, HostProcess

from pipelinehost import Client
from pipelinehost.v1.resources_pb2 import Environment, Gate, GateStatus, Pipeline, Principal, Run, Stage
from pipelinehost_dataverse.solution import Column, Table, new_manifest, write

CALL = "redeploy Sales -p sales --stage qa"


def package(version: str, *columns: str) -> bytes:
    table = Table("cts_order", columns=tuple(Column(f"cts_{c}") for c in columns))
    return write(new_manifest("Sales", version, managed=True), table)


class Bed:
    """A host with an embedded environment, or with one at an address."""

    def __init__(self, folder: Path, url: str = "") -> None:
        self.folder = folder
        self.host = HostProcess(folder / "host")
        self.host.start()
        self.client: Client = self.host.client()
        self.client.create_environment(
            Environment(name="environments/qa", kind=Environment.KIND_TARGET, url=url, connectivity_url=url)
        )
        self.client.create_pipeline(
            Pipeline(
                name="pipelines/sales",
                allow_redeployment=True,
                stages=[Stage(name="pipelines/sales/stages/qa", environment="environments/qa")],
            )
        )
        self.tokens = {"admin": self.host.data / "admin-token"}

    def person(self, name: str, role: Principal.Role) -> None:
        made = Principal(name=f"principals/{name}", kind=Principal.KIND_PERSON, role=role)
        self.client.create_principal(made)
        self.tokens[name] = self.folder / f"{name}.token"
        self.tokens[name].write_text(self.client.create_token(made.name).secret)
        self.tokens[name].chmod(0o600)

    def deploy(self, version: str, *columns: str) -> None:
        path = self.folder / f"{version}.zip"
        path.write_bytes(package(version, *columns))
        run = self.client.deploy("sales", artifact=self.client.upload(path).name, stage="qa")
        *_, last = self.client.watch(run.name, timeout=60)
        assert last.run.state == Run.STATE_SUCCEEDED, last.run.error

    def cli(self, line: str, who: str = "admin") -> subprocess.CompletedProcess[str]:
        program = "from pipelinehost.cli import main; main()"
        where = ["--host", self.host.address, "--token-file", str(self.tokens[who])]
        return subprocess.run(
            [sys.executable, "-c", program, *where, *line.split()],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
            env={**self.host.environ(), "COLUMNS": "200", "PATH": os.environ["PATH"]},
        )

    def close(self) -> None:
        self.client.close()
        self.host.kill()


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(tmp_path)
    yield bed
    bed.close()


def test_a_way_back_that_an_approver_has_read(bed: Bed) -> None:
    bed.deploy("1.0.0.0", "amount")
    bed.deploy("2.0.0.0", "amount", "tax")
    bed.person("ada", Principal.ROLE_VIEWER)
    pipeline = bed.client.pipeline("sales")
    pipeline.stages[0].gates.append(Gate(kind=Gate.KIND_APPROVAL, approvers=["principals/ada"]))
    bed.client.update_pipeline(pipeline)

    looked = bed.cli(CALL)
    assert looked.returncode == 3, looked.stderr
    assert "STAYS_BEHIND" in looked.stderr
    assert "cts_tax of cts_order is not in 1.0.0.0" in looked.stderr
    accepting = re.search(r"Next: pipelinehost --host \S+ (redeploy .* --accept [0-9a-f]{64})", looked.stderr)
    assert accepting is not None, looked.stderr
    asked = bed.cli(f"{accepting[1]} --detach -o name")
    assert asked.returncode == 0, asked.stderr
    run = asked.stdout.strip()

    for update in bed.client.watch(run, timeout=60):
        now = update.run if update.HasField("run") else bed.client.run(run)
        if now.state == Run.STATE_AWAITING_GATE:
            break
    shown = bed.cli(f"run show {run}", who="ada")
    assert shown.returncode == 0, shown.stderr
    assert accepting[1].rpartition(" ")[2] in shown.stdout
    read = bed.cli(f"run findings {run}", who="ada")
    assert "cts_tax of cts_order is not in 1.0.0.0" in read.stdout, read.stdout + read.stderr

    # The host is killed and started again while it waits, and nothing of the agreement is lost.
    bed.client.close()
    bed.host.kill()
    bed.host.start()
    bed.client = bed.host.client()
    approved = bed.cli(f"run approve {run}", who="ada")
    assert approved.returncode == 0, approved.stderr
    *_, last = bed.client.watch(run, timeout=60)
    assert last.run.state == Run.STATE_SUCCEEDED, last.run.error
    assert last.run.gates[0].state == GateStatus.STATE_APPROVED
    assert [s.version for s in bed.client.solutions("qa") if s.unique_name == "Sales"] == ["1.0.0.0"]
    *_, found = bed.client.verify_events()
    assert not found.result.HasField("fault")


def test_the_cli_goes_back_and_says_when_there_is_nothing_to_lose(bed: Bed) -> None:
    bed.deploy("1.0.0.0", "amount")
    bed.deploy("2.0.0.0", "amount", "tax")
    back = bed.cli(f"{CALL} --yes -o name")
    assert back.returncode == 0, back.stderr
    stale = bed.cli(f"{CALL} --version 1.0 --accept {'0' * 64}")
    assert stale.returncode == 3, stale.stderr
    assert "LOSS_NOT_ACCEPTED" in stale.stderr
    nothing = bed.cli(f"{CALL} --version 1.0")
    assert nothing.returncode == 3
    assert "loses nothing" in nothing.stderr
    again = bed.cli(f"{CALL} --version 1.0 --yes --hold for-the-fair")
    assert again.returncode == 0, again.stderr
    assert "held on Sales 1.0.0.0" in again.stderr
    (hold,) = bed.client.pipeline("sales").stages[0].holds
    assert (hold.solution, hold.version, hold.reason) == ("Sales", "1.0.0.0", "for-the-fair")
    forward = bed.cli(f"{CALL} --version 2.0 --yes")
    assert forward.returncode == 3
    assert "STAGE_HELD" in forward.stderr


def test_an_environment_that_wants_higher_versions_says_so_before_and_stays_as_it_is(tmp_path: Path) -> None:
    outside = EmulatorProcess(tmp_path / "outside", "qa")
    outside.start()
    bed = Bed(tmp_path, outside.url("qa"))
    try:
        bed.deploy("1.0.0.0", "amount")
        bed.deploy("2.0.0.0", "amount", "tax")
        looked = bed.cli(CALL)
        assert "REDEPLOYMENT_DOUBTED" in looked.stderr, looked.stderr
        assert "Next: " in looked.stderr
        refused = bed.cli(f"{CALL} --yes")
        assert refused.returncode == 3
        assert "IMPORT_FAILED" in refused.stderr
        assert [s.version for s in bed.client.solutions("qa") if s.unique_name == "Sales"] == ["2.0.0.0"]
    finally:
        bed.close()
        outside.kill()
