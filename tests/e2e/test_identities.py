"""Service identities of stages, over https with two applications: processes of their own, and no cloud."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.linked import CANARY, CLIENT, READER, SERVICE, WRONG, Bed

from pipelinehost.v1.resources_pb2 import Event, Finding, Pipeline, Run, SignIn, Stage

STAGE = "pipelines/sales/stages/qa"
AS_SERVICE = f"application {SERVICE} of contoso.onmicrosoft.com"


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(tmp_path, "--pace", "1")
    bed.link("qa")
    bed.give("qa")
    yield bed
    bed.stop()


def configure(bed: Bed, client_id: str = SERVICE) -> None:
    """Sales, with an identity of its own to qa, as a file says it."""
    file = bed.folder / "sales.yaml"
    file.write_text(
        f"""pipelines:
  - name: sales
    stages:
      - name: qa
        environment: qa
        sign_in:
          method: client_secret
          tenant: contoso.onmicrosoft.com
          client_id: {client_id}
          authority: https://{bed.emulator.address}
"""
    )
    bed.cli("apply", "-f", str(file))
    assert "0 created, 0 changed, 1 unchanged" in bed.cli("apply", "-f", str(file))


def give(bed: Bed, secret: str = CANARY) -> None:
    bed.give(STAGE, secret)


def deployed(bed: Bed, version: str) -> Run:
    with bed.host.client() as client:
        artifact = client.upload(bed.package(version))
        return client.wait(client.deploy("sales", artifact=artifact.name, stage="qa").name, timeout=60)


def importers(bed: Bed) -> dict[str, str]:
    """Who imported which version into qa, by the environment's own history and users."""
    base = bed.emulator.url("qa")
    trusted = ssl.create_default_context(cafile=bed.folder / "tls" / "authority.pem")
    with httpx.Client(verify=trusted) as web:
        asked = {
            "grant_type": "client_credentials",
            "client_id": CLIENT,
            "client_secret": CANARY,
            "scope": f"https://{bed.emulator.address}/.default",
        }
        origin = f"https://{bed.emulator.address}"
        token = web.post(f"{origin}/contoso/oauth2/v2.0/token", data=asked).json()["access_token"]
        web.headers["Authorization"] = f"Bearer {token}"
        users = web.get(f"{base}/api/data/v9.2/systemusers").json()["value"]
        history = web.get(f"{base}/api/data/v9.2/msdyn_solutionhistories").json()["value"]
    names = {u["systemuserid"]: u["applicationid"] for u in users}
    return {h["msdyn_solutionversion"]: names[h["_createdby_value"]] for h in history}


def found(bed: Bed, run: Run) -> Finding:
    with bed.host.client() as client:
        [finding] = [f for f in client.findings(run.name) if f.severity == Finding.SEVERITY_ERROR]
    return finding


def test_a_stage_deploys_as_itself_also_after_a_kill(bed: Bed) -> None:
    configure(bed)
    give(bed)
    run = deployed(bed, "1.0.0.0")
    assert (Run.State.Name(run.state), run.deployed_as) == ("STATE_SUCCEEDED", AS_SERVICE)
    assert run.requester == "principals/admin"
    assert importers(bed) == {"1.0.0.0": SERVICE}
    assert SERVICE in bed.cli("pipeline", "show", "sales")
    assert AS_SERVICE in bed.cli("run", "show", run.name)
    with bed.host.client() as client:
        told = [e.run for e in client.events(f'subject = "{run.name}"') if e.HasField("run")]
        assert {change.deployed_as for change in told} == {AS_SERVICE}
        # Killed in the middle of an import, it is followed and verified by the same application.
        artifact = client.upload(bed.package("1.1.0.0"))
        run = client.deploy("sales", artifact=artifact.name, stage="qa")
        for update in client.watch(run.name, timeout=30):
            if update.event.progress.percent or update.event.progress.detail == "at work":
                break
    bed.host.kill()
    bed.host.start()
    with bed.host.client() as client:
        ended = client.wait(run.name, timeout=60)
    assert (Run.State.Name(ended.state), ended.deployed_as) == ("STATE_SUCCEEDED", AS_SERVICE)
    # Without the environment's own credential nothing is missed: no call went as its application.
    bed.give("qa", WRONG)
    bed.host.stop()
    bed.host.start()
    assert Run.State.Name(deployed(bed, "1.2.0.0").state) == "STATE_SUCCEEDED"
    assert importers(bed) == {"1.0.0.0": SERVICE, "1.1.0.0": SERVICE, "1.2.0.0": SERVICE}


def test_what_keeps_an_identity_from_deploying_is_found_before_anything_is_sent(bed: Bed) -> None:
    configure(bed)
    missing = found(bed, deployed(bed, "1.0.0.0"))
    assert missing.code == "SIGN_IN_FAILED"
    assert f"no client secret is set for {STAGE}" in missing.cause
    assert f"pipelinehost environment set-credential {STAGE} --secret-file FILE" in missing.remedy
    give(bed, WRONG)
    wrong = found(bed, deployed(bed, "1.0.0.0"))
    assert (wrong.code, "AADSTS7000215" in wrong.cause) == ("SIGN_IN_FAILED", True)
    assert "secret's value" in wrong.remedy
    configure(bed, READER)
    give(bed)
    run = deployed(bed, "1.0.0.0")
    unprivileged = found(bed, run)
    assert (unprivileged.code, "prvImportCustomization" in unprivileged.cause) == ("PRIVILEGE_MISSING", True)
    assert "System Administrator" in unprivileged.remedy
    rehearsed = bed.cli(
        *("validate", str(bed.package()), "-p", "sales", "--stage", "qa", "-o", "json"), code=3
    )
    assert "PRIVILEGE_MISSING" in rehearsed
    assert importers(bed) == {}, "nothing was imported by anybody"
    # Mended, the same run goes on, as who it is now.
    configure(bed)
    give(bed)
    with bed.host.client() as client:
        ended = client.wait(client.retry(run.name).name, timeout=60)
    assert (Run.State.Name(ended.state), ended.deployed_as) == ("STATE_SUCCEEDED", AS_SERVICE)
    assert importers(bed) == {"1.0.0.0": SERVICE}


def test_the_credential_of_a_stage_is_forgotten_with_what_it_was_set_for(bed: Bed) -> None:
    bed.link("other")
    configure(bed)
    with bed.host.client() as client:
        for change in ("environment", "client_id", "taken away", "address"):
            give(bed)
            before = client.pipeline("sales")
            stage = Stage()
            stage.CopyFrom(before.stages[0])
            if change == "address":
                moved = client.environment("qa")
                moved.url = bed.emulator.url("dev")
                client.update_environment(moved, ["url"])
                moved.url, moved.etag = bed.emulator.url("qa"), ""
                client.update_environment(moved, ["url"])
            else:
                if change == "environment":
                    stage.environment = "environments/other"
                elif change == "client_id":
                    stage.sign_in.client_id = CLIENT
                else:
                    stage.ClearField("sign_in")
                client.update_pipeline(Pipeline(name=before.name, stages=[stage]), ["stages"])
                client.update_pipeline(Pipeline(name=before.name, stages=before.stages), ["stages"])
            told = [e for e in client.events() if f"the credential of {STAGE} was deleted" in e.message]
            assert told, change
            error = found(bed, deployed(bed, "1.0.0.0"))
            assert (error.code, f"set for {STAGE}" in error.cause) == ("SIGN_IN_FAILED", True), change
        give(bed)
        client.update_pipeline(Pipeline(name="pipelines/sales", description="kept"), ["description"])
        assert Run.State.Name(deployed(bed, "1.0.0.0").state) == "STATE_SUCCEEDED", "others leave it"
        kinds = [e.kind for e in client.events() if e.subject == STAGE]
        assert kinds.count(Event.KIND_CREDENTIAL_SET) == 5
        client.delete_pipeline("sales")
        configure(bed)
        assert found(bed, deployed(bed, "1.1.0.0")).code == "SIGN_IN_FAILED"
        assert client.pipeline("sales").stages[0].sign_in.method == SignIn.METHOD_CLIENT_SECRET
    assert json.loads(bed.cli("pipeline", "show", "sales", "-o", "json"))["stages"][0]["sign_in"]
