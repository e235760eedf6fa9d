"""The CLI about environments that are signed in to, and about waits and cancels, on a small host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from tests.rpc.fake_host import RUN, FakeHost
from tests.rpc.test_client_cli import Ended, cli, host

from pipelinehost.cli import progress
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import (
    Environment,
    EnvironmentHealth,
    Event,
    Finding,
    Progress,
    Run,
    SignIn,
    Step,
)

__all__ = ["cli", "host"]  # fixtures
Cli = Callable[[str], Ended]


def test_a_credential_comes_from_a_file(host: FakeHost, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    for written in ("canary", "canary\n", "canary\r\n"):
        file.write_bytes(written.encode())
        ended = cli(f"environment set-credential qa --secret-file {file}")
        assert (ended.code, ended.out) == (0, "")
        assert "Next: pipelinehost environment check qa" in ended.err
        assert "canary" not in ended.err
        assert host.secrets.pop("environments/qa").client_secret == "canary"
    file.write_text("-----BEGIN\nx\n")
    assert cli(f"environment set-credential qa --certificate {file}").code == 0
    assert host.secrets["environments/qa"].certificate == "-----BEGIN\nx\n"


def test_a_stage_has_a_credential_of_its_own(host: FakeHost, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("canary")
    for name in ("sales/qa", "pipelines/sales/stages/qa"):
        ended = cli(f"environment set-credential {name} --secret-file {file}")
        assert (ended.code, "environment check" in ended.err) == (0, False), ended.err
        assert host.secrets.pop("pipelines/sales/stages/qa").client_secret == "canary"
    gone = cli(f"environment set-credential sales/gone --secret-file {file}")
    assert (gone.code, "gone" in gone.err, host.secrets) == (1, True, {})
    assert cli(f"environment set-credential environments/qa --secret-file {file}").code == 0
    assert list(host.secrets) == ["environments/qa"]


def test_a_credential_is_not_taken_from_the_command_line(host: FakeHost, cli: Cli) -> None:
    assert cli("environment set-credential qa").code == 2
    assert cli("environment set-credential qa canary").code == 2
    assert cli("environment set-credential qa --client-secret canary").code == 2
    assert host.secrets == {}


def test_how_a_host_signs_in_is_given_and_shown(host: FakeHost, cli: Cli) -> None:
    ended = cli(
        "environment create real --kind target --url https://real.crm4.dynamics.com"
        " --sign-in managed-identity"
    )
    assert ended.code == 0
    made = host.environments["environments/real"]
    assert made.sign_in == SignIn(method=SignIn.METHOD_MANAGED_IDENTITY)
    assert "sign-in      managed_identity" in cli("environment show real").out
    host.environments["environments/real"].sign_in.CopyFrom(
        SignIn(method=SignIn.METHOD_CERTIFICATE, tenant="contoso.com", client_id="0123")
    )
    assert "certificate (application 0123, tenant contoso.com)" in cli("environment show real").out
    assert "sign-in" not in cli("environment show dev").out


@pytest.mark.parametrize(
    ("health", "code", "words"),
    [
        (EnvironmentHealth(reachable=True, signed_in=True, privileged=True, version="9.2"), 0, "9.2"),
        (
            EnvironmentHealth(
                reachable=True,
                findings=[
                    Finding(code="SIGN_IN_FAILED", severity=Finding.SEVERITY_ERROR, cause="No.", remedy="Do.")
                ],
            ),
            1,
            "SIGN_IN_FAILED",
        ),
        (
            EnvironmentHealth(findings=[Finding(code="X", severity=Finding.SEVERITY_WARNING)]),
            0,
            "X",
        ),
    ],
)
def test_a_check_ends_as_the_environment_is(
    host: FakeHost, cli: Cli, health: EnvironmentHealth, code: int, words: str
) -> None:
    host.health = health
    ended = cli("environment check qa")
    assert ended.code == code
    assert words in ended.out + ended.err
    assert ("yes" in ended.out) == health.reachable
    assert cli("environment check qa -o json").code == code


def test_a_cancel_says_that_the_environment_decides(
    host: FakeHost, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.runs[RUN] = Run(name=RUN, state=Run.STATE_CANCELLING, target_environment="environments/qa")
    monkeypatch.setattr(
        "pipelinehost.client.Client.cancel", lambda *_, **__: host.runs[RUN]
    )  # the small host has no rules
    ended = cli(f"run cancel {RUN.removeprefix('runs/')}")
    assert ended.code == 0
    assert "the environment decides" in ended.err
    assert "run watch" in ended.err
    assert "CANCELLING" in ended.out


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Console:
    console = Console(force_terminal=False, width=200, record=True)
    monkeypatch.setattr(progress, "err", lambda: console)
    return console


def test_plain_lines_tell_of_waits(lines: Console) -> None:
    run = Run(name=RUN, state=Run.STATE_DEPLOYING, steps=[Step(kind=Step.KIND_IMPORT)])
    view = progress.view_of(run)

    def told(percent: int, detail: str) -> None:
        about = Progress(step=Step.KIND_IMPORT, percent=percent, detail=detail)
        view.take(api.WatchRunResponse(event=Event(progress=about)))

    running = Step(kind=Step.KIND_IMPORT, state=Step.STATE_RUNNING)
    view.take(api.WatchRunResponse(event=Event(step=running)))
    told(0, "qa is busy with another operation; trying again in 20 s")
    told(0, "qa is busy with another operation; trying again in 20 s")
    told(3, "at work")
    told(4, "still at work")
    told(12, "at work")
    cancelling = Event()
    cancelling.run.to = Run.STATE_CANCELLING
    view.take(api.WatchRunResponse(event=cancelling))
    text = lines.export_text()
    assert text.count("busy with another operation") == 1
    assert "import 12%" in text
    assert text.count("at work") == 1, "what moves is told by its percents"
    assert "being cancelled" in text


def test_an_unknown_environment_is_told(host: FakeHost, cli: Cli) -> None:
    assert Environment(name="environments/none").name not in host.environments
    assert cli("environment check none").code == 1
