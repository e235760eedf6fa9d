"""A host that is killed between a gate and its webhook: it is told all the same, and known by the same id."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from tests.e2e.processes import HostProcess
from tests.receiver import Receiver, free_port

from pipelinehost import Client
from pipelinehost.v1.resources_pb2 import Environment, Gate, Pipeline, Run, Stage
from pipelinehost_dataverse.solution import Table, new_manifest, write

ROUNDS = 8


class Bed:
    """A host whose gate has a webhook, and who receives it; the receiver does not listen yet."""

    def __init__(self, folder: Path) -> None:
        self.receiver = Receiver(folder / "receiver", free_port())
        self.host = HostProcess(folder / "host")
        self.host.start()
        self.client: Client = self.host.client()
        for name, kind in (("dev", Environment.KIND_DEVELOPMENT), ("qa", Environment.KIND_TARGET)):
            self.client.create_environment(Environment(name=f"environments/{name}", kind=kind))
        gate = Gate(kind=Gate.KIND_APPROVAL, approvers=["principals/admin"], webhook=self.receiver.url)
        stage = Stage(name="pipelines/sales/stages/qa", environment="environments/qa", gates=[gate])
        pipeline = Pipeline(
            name="pipelines/sales", development_environments=["environments/dev"], stages=[stage]
        )
        self.client.create_pipeline(pipeline)
        self.package = folder / "package.zip"

    def deploy(self, version: str = "1.0") -> Run:
        self.package.write_bytes(write(new_manifest("Sales", version, managed=True), Table("cts_order")))
        return self.client.deploy("sales", artifact=self.client.upload(self.package).name)

    def found(self, run: Run, *, told: bool) -> Run:
        """The run at its gate, whose webhook was told or not."""
        ends = time.monotonic() + 60
        while True:
            now = self.client.run(run.name)
            if now.state == Run.STATE_AWAITING_GATE and (
                not told or now.gates[0].delivery.HasField("deliver_time")
            ):
                return now
            assert time.monotonic() < ends, now
            time.sleep(0.02)


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(tmp_path)
    yield bed
    bed.client.close()
    bed.host.stop()
    bed.receiver.kill()


def checked(request: dict[str, Any], key: str) -> dict[str, Any]:
    """What a request tells, if it is signed."""
    headers = request["headers"]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + request["body"]
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("whpk_")))
    public.verify(base64.b64decode(headers["webhook-signature"].removeprefix("v1a,")), signed)
    told: dict[str, Any] = json.loads(request["body"])
    assert told["id"] == headers["webhook-id"]
    return told


def test_a_host_that_is_killed_before_it_could_tell_tells_later(bed: Bed) -> None:
    run = bed.found(bed.deploy(), told=False)
    bed.host.kill()
    bed.receiver.start()
    bed.host.start()
    run = bed.found(run, told=True)
    (request,) = bed.receiver.got()
    assert checked(request, bed.client.host().webhook_key)["bound_sha256"] == run.gates[0].bound_sha256


def test_a_host_that_is_killed_while_it_tells_tells_the_same_again(bed: Bed) -> None:
    bed.receiver.mode("hang")
    bed.receiver.start()
    key = bed.client.host().webhook_key
    run = bed.deploy()
    bed.receiver.wait(lambda got: len(got) == 1)
    bed.host.kill()
    bed.receiver.mode("204")
    bed.host.start()
    bed.found(run, told=True)
    first, second = bed.receiver.got()
    assert checked(first, key) == checked(second, key)
    assert first["body"] == second["body"]
    # Nothing is told once more.
    bed.host.kill()
    bed.host.start()
    time.sleep(1.5)
    assert len(bed.receiver.got()) == 2


def test_whenever_a_host_is_killed_every_open_gate_is_told(bed: Bed) -> None:
    bed.receiver.start()
    rng = random.Random(7)
    runs: list[Run] = []
    for number in range(ROUNDS):
        runs.append(bed.deploy(f"{number + 1}.0"))
        time.sleep(rng.uniform(0, 0.25))
        bed.host.kill()
        bed.host.start()
    key = bed.client.host().webhook_key
    for run in runs:
        bed.found(run, told=True)
    told = [checked(request, key) for request in bed.receiver.got()]
    bounds = {r.name: bed.client.run(r.name).gates[0].bound_sha256 for r in runs}
    assert {t["run"]: t["bound_sha256"] for t in told} == bounds
    assert len({t["id"] for t in told}) == ROUNDS, "an id for each opening, however often it came"
