"""The commands about principals and tokens, and signing in, against a real host."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.rpc.conftest import Bed

from pipelinehost import errors
from pipelinehost.cli import profiles
from pipelinehost.cli.commands import cli
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import Share


class Shell:
    """The CLI of one user, who has a state folder of their own."""

    def __init__(self, bed: Bed, state: Path) -> None:
        self.address = str(bed.host.address)
        self.state = state

    def run(self, *arguments: str, token: str = "", fails: bool = False, text: str = "") -> Result:
        environment = {"XDG_STATE_HOME": str(self.state), "PIPELINEHOST_TOKEN": token or None}
        result = CliRunner(env=environment).invoke(cli, arguments, input=text)
        assert (result.exception is not None) is fails, (result.output, result.exception)
        return result

    def admin(self, bed: Bed, *arguments: str, text: str = "") -> str:
        return self.run("--host", self.address, *arguments, token=bed.token, text=text).stdout


@pytest.fixture
def shell(idle: Bed, tmp_path: Path) -> Shell:
    return Shell(idle, tmp_path / "state")


def test_from_a_new_person_to_a_shared_pipeline(idle: Bed, shell: Shell) -> None:
    shell.admin(idle, "principal", "create", "ada", "--role", "user", "--display-name", "Ada L.")
    shell.admin(idle, "principal", "create", "team", "--kind", "group", "--member", "Ada L.")
    secret = shell.admin(idle, "token", "create", "ada", "--description", "laptop").strip()
    result = shell.run("--host", shell.address, "login", "--as", "work", text=secret + "\n")
    assert f"signed in to {shell.address} as ada" in result.stderr
    assert secret not in result.output
    kept = [p for p in shell.state.rglob("*") if p.is_file()]
    assert len(kept) == 2
    assert {stat.S_IMODE(p.stat().st_mode) for p in kept} == {0o600}
    assert [p.name for p in kept if secret in p.read_text()] == ["token"]
    told = shell.run("whoami").stdout  # the profile in use
    assert "ada" in told
    assert "user" in told
    assert json.loads(shell.run("whoami", "-o", "json").stdout)["groups"] == ["principals/team"]
    assert shell.run("--host", "work", "pipeline", "list", "-o", "name").stdout == ""
    shell.admin(idle, "pipeline", "share", "sales", "team")
    assert shell.run("pipeline", "list", "-o", "name").stdout.strip() == "pipelines/sales"
    denied = shell.run("pipeline", "share", "sales", "ada", "--edit", fails=True)
    assert isinstance(denied.exception, errors.PermissionDenied)
    assert "Ask an administrator of the host to do it" in denied.exception.remedy
    shell.admin(idle, "pipeline", "share", "sales", "ada", "--edit")
    shell.admin(idle, "pipeline", "share", "sales", "team", "--remove")
    stored = idle.call("GetPipeline", api.GetPipelineRequest(name="pipelines/sales"))
    assert list(stored.shares) == [Share(principal="principals/ada", access=Share.ACCESS_EDIT)]
    (token,) = json.loads(shell.run("token", "list", "-o", "json").stdout)
    assert token["description"] == "laptop"
    shell.run("token", "revoke", token["name"])
    assert isinstance(shell.run("whoami", fails=True).exception, errors.Unauthenticated)
    assert "* work" in shell.run("profile", "list").stdout


def test_a_token_that_is_wrong_is_not_kept(idle: Bed, shell: Shell) -> None:
    result = shell.run("--host", shell.address, "login", text="ph_00000000_" + "x" * 43 + "\n", fails=True)
    assert isinstance(result.exception, errors.Unauthenticated)
    assert [p for p in shell.state.rglob("*") if p.is_file()] == []


def test_profiles_of_several_hosts(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(shell.state))
    profiles.write({"a": profiles.Profile("a:1", tls=True), "b": profiles.Profile("b:2")}, "b")
    assert profiles.find(None) == profiles.Profile("b:2")
    assert profiles.find("a") == profiles.Profile("a:1", tls=True)
    assert profiles.find("c:3") is None
    shell.run("profile", "use", "a")
    assert profiles.find(None) == profiles.Profile("a:1", tls=True)
    shell.run("profile", "use", "c", fails=True)


def test_principals_and_shares_in_a_file(idle: Bed, shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "people.yaml"
    path.write_text(
        """
principals:
  - {name: team, kind: group, role: user, members: [ada, build]}
  - {name: build, kind: service, person: ada, identities: [{certificate: 'URI:spiffe://example.com/build'}]}
  - {name: ada, kind: person, role: maker, identities: [{issuer: 'https://login.example.com', subject: a}]}
environments:
  - {name: dev, kind: development, makers: [team]}
pipelines:
  - name: sales
    owner: ada
    development_environments: [dev]
    shares: [{principal: team, access: run}]
    stages: [{name: qa, environment: qa}]
"""
    )
    shell.admin(idle, "apply", "-f", str(path))
    again = shell.admin(idle, "apply", "-f", str(path))
    assert all(line.startswith("=") for line in again.splitlines())
    for kind in ("principal", "environment", "pipeline"):
        written = shell.admin(idle, "get", kind)
        unchanged = shell.admin(idle, "apply", "-f", "-", text=written)
        assert all(line.startswith("=") for line in unchanged.splitlines()), written
    stored = idle.call("GetPipeline", api.GetPipelineRequest(name="pipelines/sales"))
    assert stored.owner == "principals/ada"
    dev = idle.call("GetEnvironment", api.GetEnvironmentRequest(name="environments/dev"))
    assert list(dev.makers) == ["principals/team"]


def test_a_file_lets_nobody_in_again_without_saying_so(idle: Bed, shell: Shell) -> None:
    idle.person("ada", role="MAKER", disabled=True)
    file = "principals:\n  - name: ada\n    kind: person\n    role: maker\n"
    assert shell.admin(idle, "apply", "-f", "-", text=file) == "= principal ada\n"
    ada = api.GetPrincipalRequest(name="principals/ada")
    assert idle.call("GetPrincipal", ada).disabled
    shell.admin(idle, "apply", "-f", "-", text=file + "    disabled: false\n")
    assert not idle.call("GetPrincipal", ada).disabled


def test_a_dry_run_of_a_new_team(idle: Bed, shell: Shell) -> None:
    file = """principals:
  - {name: ada, kind: person, role: maker}
  - {name: team, kind: group, role: user, members: [ada]}
environments:
  - {name: new-dev, kind: development, makers: [team]}
  - {name: new-qa, kind: target, makers: [ada]}
pipelines:
  - name: fresh
    owner: ada
    shares: [{principal: team, access: run}]
    development_environments: [new-dev]
    stages: [{name: qa, environment: new-qa, gates: [{kind: approval, approvers: [team]}]}]
"""
    told = shell.admin(idle, "apply", "--dry-run", "-f", "-", text=file)
    made = ["principal ada", "principal team", "environment new-dev", "environment new-qa", "pipeline fresh"]
    assert told.splitlines() == [f"+ {one}" for one in made]
    assert "ada" not in shell.admin(idle, "principal", "list")
    lone = "principals:\n  - {name: lone, kind: group, role: user, members: [gone]}\n"
    arguments = ("--host", shell.address, "apply", "--dry-run", "-f", "-")
    refused = shell.run(*arguments, token=idle.token, text=lone, fails=True).exception
    assert isinstance(refused, errors.FailedPrecondition)
    assert refused.message.startswith("principal lone: principal.members[0]: there is no principals/gone")
