"""A run goes on only while its requester may ask for it, also after it has waited."""

from __future__ import annotations

from tests.unit.deployment.conftest import Host

from pipelinehost.v1.resources_pb2 import Run
from pipelinehost_dataverse.solution import new_manifest, write


async def test_a_requester_who_may_not_any_more_fails_the_run_before_its_import(host: Host) -> None:
    await host.restored(write(new_manifest("Sales", "1.0.0.0", managed=False)))
    host.allowed = False
    run = await host.deployed()
    assert (run.state, run.error.code) == (Run.STATE_FAILED, "REQUESTER_NOT_ALLOWED")
    assert await host.history("qa") == []
    host.allowed = True
    assert (await host.deployed()).state == Run.STATE_SUCCEEDED


async def test_rights_that_go_while_a_run_waits_for_its_target_are_missed_there(host: Host) -> None:
    await host.restored(write(new_manifest("Sales", "1.0.0.0", managed=False)))
    asked = 0

    def may_go_on(_reads: object, _run: object) -> bool:
        nonlocal asked
        asked += 1
        return asked < 2  # when it begins, and not when it takes its target

    host.deployment._may_go_on = may_go_on
    run = await host.deployed()
    assert asked == 2
    assert (run.state, run.error.code) == (Run.STATE_FAILED, "REQUESTER_NOT_ALLOWED")
    assert await host.history("qa") == []
    assert host.store.reads.held_by("environments/qa") is None
