"""Environments over https with a sign-in, as real ones are: processes of their own, the CLI, and no cloud."""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.e2e.linked import CANARY, CLIENT, WRONG, Bed

from pipelinehost.errors import FailedPrecondition, InvalidArgument, PipelineHostError
from pipelinehost.v1.resources_pb2 import Environment, Run, SignIn


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(tmp_path)
    yield bed
    bed.stop()


def pipeline(bed: Bed) -> None:
    bed.cli("pipeline", "create", "sales", "--stage", "qa=qa")


def test_a_deployment_to_an_environment_that_is_signed_in_to(bed: Bed) -> None:
    bed.link("qa")
    told = bed.cli("environment", "check", "qa", code=1)
    assert "SIGN_IN_FAILED" in told
    assert "pipelinehost environment set-credential qa --secret-file FILE" in told
    bed.give("qa", WRONG)
    assert "AADSTS7000215" in bed.cli("environment", "check", "qa", code=1)
    bed.give("qa")
    health = json.loads(bed.cli("environment", "check", "qa", "-o", "json"))
    assert (health["reachable"], health["signed_in"], health["privileged"]) == (True, True, True)
    pipeline(bed)
    assert "Succeeded" in bed.cli("deploy", str(bed.package()), "-p", "sales")
    assert "Sales" in bed.cli("environment", "solutions", "qa")
    shown = bed.cli("environment", "show", "qa")
    assert f"client_secret (application {CLIENT}, tenant contoso.onmicrosoft.com" in shown
    assert health["organization_id"] in shown
    # A restart forgets tokens and keeps the credential; so does a new key.
    bed.host.stop()
    rotated = subprocess.run(
        [sys.executable, "-m", "pipelinehost_server", "rotate-key", "--data", str(bed.host.data)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "secrets are sealed" in rotated.stdout
    bed.host.start()
    assert "Succeeded" in bed.cli("deploy", str(bed.package("1.1.0.0")), "-p", "sales", "--stage", "qa")
    # The emulator makes new keys at a start, and with them refuses the host's token: it is renewed.
    bed.emulator.stop()
    bed.emulator.start()
    bed.cli("environment", "check", "qa")


def test_the_file_says_how_to_sign_in(bed: Bed) -> None:
    file = bed.folder / "hosts.yaml"
    file.write_text(
        f"""environments:
  - name: qa
    kind: target
    url: {bed.emulator.url("qa")}
    sign_in:
      method: client_secret
      tenant: contoso.onmicrosoft.com
      client_id: {CLIENT}
      authority: https://{bed.emulator.address}
"""
    )
    bed.cli("apply", "-f", str(file))
    bed.give("qa")
    bed.cli("environment", "check", "qa")
    assert "0 created, 0 changed, 1 unchanged" in bed.cli("apply", "-f", str(file))
    shown = bed.folder / "shown.yaml"
    shown.write_text(bed.cli("get", "environment"))
    assert "method: client_secret" in shown.read_text()
    assert "organization_id" not in shown.read_text()
    assert "0 created, 0 changed, 1 unchanged" in bed.cli("apply", "-f", str(shown))
    with bed.host.client() as client:
        assert client.environment("qa").sign_in.method == SignIn.METHOD_CLIENT_SECRET


def test_a_credential_serves_its_environment_only(bed: Bed) -> None:
    """Neither another row nor another address or identity can be given the secret."""
    for name in ("qa", "other"):
        bed.link(name)
    bed.give("qa")
    bed.give("other", WRONG)
    bed.cli("environment", "check", "qa")
    with bed.host.client() as client:
        for change in ("url", "sign_in.tenant", "sign_in.client_id", "sign_in.authority"):
            bed.give("qa")
            moved = client.environment("qa")
            if change == "url":
                moved.url = bed.emulator.url("dev")
            elif change == "sign_in.tenant":
                moved.sign_in.tenant = "evil.example"
            elif change == "sign_in.client_id":
                moved.sign_in.client_id = CLIENT.replace("0", "9")
            else:
                moved.sign_in.authority = f"https://localhost:{bed.emulator.address.partition(':')[2]}"
            client.update_environment(moved)
            [found] = client.check("qa").findings
            assert (found.code, "no client secret is set" in found.cause) == ("SIGN_IN_FAILED", True), change
            moved.url = bed.emulator.url("qa")
            moved.sign_in.tenant, moved.sign_in.client_id = "contoso.onmicrosoft.com", CLIENT
            moved.sign_in.authority, moved.etag = f"https://{bed.emulator.address}", ""
            client.update_environment(moved)
        told = [e.message for e in client.events() if "was deleted: it was set for" in e.message]
        assert len(told) == 4
        bed.give("qa")
        client.update_environment(Environment(name="environments/qa", description="kept"), ["description"])
        assert client.check("qa").signed_in, "another change leaves it"
    bed.host.stop()
    with sqlite3.connect(bed.host.data / "pipelinehost.db") as database:
        database.execute(
            "UPDATE secret SET ciphertext = (SELECT ciphertext FROM secret"
            " WHERE name = 'environments/qa/credential') WHERE name = 'environments/other/credential'"
        )
    database.close()
    bed.host.start()
    with bed.host.client() as client:
        [found] = client.check("other").findings
        assert found.code == "SIGN_IN_FAILED"
        assert "sealed for another place" in found.cause
        client.delete_environment("qa")
        bed.link("qa")
        [found] = client.check("qa").findings
        assert "no client secret is set" in found.cause, "a deleted environment leaves no credential behind"


def test_wrong_credentials_are_refused_without_being_quoted(bed: Bed) -> None:
    bed.link("qa")
    with bed.host.client() as client:
        client.create_environment(
            Environment(
                name="environments/managed",
                kind=Environment.KIND_TARGET,
                url="https://org.crm4.dynamics.com",
                sign_in=SignIn(method=SignIn.METHOD_MANAGED_IDENTITY),
            )
        )
        client.create_environment(Environment(name="environments/own", kind=Environment.KIND_TARGET))
        cases = [
            ("qa", {"client_secret": ""}),
            ("qa", {"client_secret": f" {CANARY}"}),
            ("qa", {"client_secret": f"{CANARY}\n"}),
            ("qa", {"client_secret": CANARY * 100}),
            ("qa", {"certificate": CANARY}),
            ("managed", {"client_secret": CANARY}),
            ("own", {"client_secret": CANARY}),
        ]
        for name, given in cases:
            with pytest.raises((InvalidArgument, FailedPrecondition)) as refused:
                client.set_credential(name, **given)
            error = refused.value
            told = f"{error} {error.remedy} {error.violations} {error.metadata}"
            assert CANARY not in told
    told = bed.cli("environment", "set-credential", "qa", code=2)
    assert "Give either --secret-file or --certificate" in told


def encodings(secret: str) -> Mapping[str, bytes]:
    raw = secret.encode()
    found = {
        "raw": raw,
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "url": quote(secret, safe="").encode(),
        "UTF-16-LE": secret.encode("utf-16-le"),
        "UTF-16-BE": secret.encode("utf-16-be"),
        "JSON": json.dumps(secret).strip('"').encode(),
    }
    for shift in range(3):  # base64 looks different at each place modulo 3; its middle is the same
        text = base64.b64encode(b"x" * shift + raw)
        found[f"base64 +{shift}"] = text[4 if shift else 0 : len(text) - 4]
        found[f"base64url +{shift}"] = base64.urlsafe_b64encode(b"x" * shift + raw)[
            4 if shift else 0 : len(text) - 4
        ]
    return found


def found_in(content: bytes) -> list[str]:
    return [
        how for secret in (CANARY, WRONG) for how, needle in encodings(secret).items() if needle in content
    ]


def test_the_search_finds_what_it_looks_for() -> None:
    for secret in (CANARY, WRONG):
        assert len(set(encodings(secret).values())) > 8
        for shift in range(3):
            text = b"y" * shift + secret.encode() + b"zz"
            assert found_in(base64.b64encode(text))
            assert found_in(base64.urlsafe_b64encode(text))
        for content in (secret.encode("utf-16"), secret.encode().hex().encode(), quote(secret, "").encode()):
            assert found_in(b"..." + content + b"...")


def test_a_secret_is_found_nowhere(bed: Bed) -> None:
    """Neither one that is right nor one that is refused; nor a token that was got with it."""
    bed.link("qa")
    for secret in (WRONG, CANARY):
        bed.give("qa", secret)
        bed.cli("environment", "check", "qa", code=0 if secret == CANARY else 1)
    pipeline(bed)
    bed.cli("deploy", str(bed.package()), "-p", "sales")
    heard: list[bytes] = []
    with bed.host.client() as client:
        bed.give("qa", WRONG)
        run = client.wait(
            client.deploy("sales", artifact=next(client.artifacts()).name, stage="qa").name, timeout=60
        )
        heard += [u.SerializeToString() for u in client.watch(run.name)]
        bed.give("qa")
        heard += [e.SerializeToString() for e in client.events()]
        findings = list(client.findings(run.name))
        heard += [f.SerializeToString() for f in findings]
        heard += [e.SerializeToString() for e in client.environments()]
        for name in ("qa", "nothing"):
            try:
                heard.append(client.check(name).SerializeToString())
            except PipelineHostError as error:
                heard.append(repr((error, error.metadata)).encode())
    assert [f.code for f in findings] == ["SIGN_IN_FAILED"]
    wal = bed.host.data / "pipelinehost.db-wal"
    assert wal.stat().st_size > 0, "the log of the store is there to be searched"
    looked = {str(p): p.read_bytes() for p in bed.host.folder.rglob("*") if p.is_file()}
    looked |= {f"message {n}": content for n, content in enumerate(heard)}
    looked |= {f"CLI {n}": text.encode() for n, text in enumerate(bed.said)}
    places = {str(bed.host.folder / "log"), str(bed.host.data / "pipelinehost.db"), str(wal)}
    assert places <= set(looked)
    assert b"DEBUG" in looked[str(bed.host.folder / "log")], "the log tells all that it ever tells"
    bed.host.stop()
    looked |= {f"{p} (stopped)": p.read_bytes() for p in bed.host.folder.rglob("*") if p.is_file()}
    leaks = {place: how for place, content in looked.items() if (how := found_in(content))}
    assert leaks == {}
    jwt = base64.b64encode(b'{"typ":"JWT"').rstrip(b"=")[:12]
    assert [place for place, content in looked.items() if jwt in content] == []
    assert Run.State.Name(run.state) == "STATE_FAILED"


def test_an_unfinished_cancel_of_a_real_import(tmp_path: Path) -> None:
    """Over https, with a token: the run is CANCELLING until the environment has cancelled the import."""
    bed = Bed(tmp_path, "--pace", "60")
    try:
        bed.link("qa")
        bed.give("qa")
        pipeline(bed)
        with bed.host.client() as client:
            artifact = client.upload(bed.package())
            run = client.deploy("sales", artifact=artifact.name)
            for update in client.watch(run.name, timeout=30):
                if update.event.progress.percent or update.event.progress.detail == "at work":
                    break
            asked = client.cancel(run.name, reason="too late")
            assert Run.State.Name(asked.state) == "STATE_CANCELLING"
            ended = client.wait(run.name, timeout=30)
            assert Run.State.Name(ended.state) == "STATE_CANCELLED"
            assert [s.unique_name for s in client.solutions("qa") if s.unique_name == "Sales"] == []
    finally:
        bed.stop()
