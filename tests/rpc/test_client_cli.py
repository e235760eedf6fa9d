"""The CLI against a real server: exit codes, what goes where, and the golden files of its output.

``UPDATE_GOLDEN=1 pytest tests/rpc/test_client_cli.py`` writes the golden files anew; look at the difference.
"""

import asyncio
import datetime as dt
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.rpc.fake_host import FakeHost

from pipelinehost import Client, errors
from pipelinehost.cli import commands, console, progress
from pipelinehost.cli.failure import RUN_FAILED
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import (
    Artifact,
    Component,
    Connection,
    Environment,
    Event,
    Finding,
    Gate,
    GateNote,
    GateStatus,
    Pipeline,
    Progress,
    Requirement,
    Run,
    RunError,
    Setting,
    SettingSource,
    Share,
    Solution,
    Stage,
    Step,
    Subject,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "cli"
SHA = "3fa8c1d2b4e6" + "0" * 52


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHost]:
    with FakeHost() as host:
        seed(host)
        monkeypatch.setenv("PIPELINEHOST_ADDRESS", host.address)
        monkeypatch.setenv("PIPELINEHOST_TOKEN", "secret")
        monkeypatch.setenv("TZ", "XST-02")  # what is written is UTC all the same
        time.tzset()
        monkeypatch.chdir(tmp_path)
        fixed = dt.datetime(2025, 10, 9, 9, 0, tzinfo=dt.UTC)
        monkeypatch.setattr(console, "now", lambda: fixed)
        monkeypatch.setattr(progress, "now", lambda: fixed)
        yield host
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def cli(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], Ended]:
    def call(line: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["pipelinehost", *shlex.split(line)])
        capsys.readouterr()
        code = commands.run()
        written = capsys.readouterr()
        return Ended(code, written.out, written.err)

    return call


def seed(host: FakeHost) -> None:
    host.environments = {
        e.name: e
        for e in (
            Environment(
                name="environments/dev", kind=Environment.KIND_DEVELOPMENT, display_name="Development"
            ),
            Environment(
                name="environments/qa",
                kind=Environment.KIND_TARGET,
                url="https://qa.crm4.dynamics.com",
                region="europe",
            ),
            Environment(name="environments/prod", kind=Environment.KIND_TARGET, region="europe"),
        )
    }
    stages = [
        Stage(name="pipelines/sales/stages/qa", display_name="Quality", environment="environments/qa"),
        Stage(name="pipelines/sales/stages/prod", environment="environments/prod"),
    ]
    host.pipelines["pipelines/sales"] = Pipeline(
        name="pipelines/sales",
        display_name="Sales \x1b[31mof Contoso",
        development_environments=["environments/dev"],
        stages=stages,
    )
    artifact = Artifact(
        name=f"artifacts/{SHA}",
        solution="ContosoSales",
        version="1.2.0.0",
        managed=True,
        size=1_258_291,
        source_environment="environments/dev",
    )
    artifact.create_time.seconds = 1_760_000_000
    host.artifacts[artifact.name] = artifact
    host.solutions["environments/dev"] = [
        Solution(unique_name="ContosoSales", version="1.2.0.0", publisher="contoso")
    ]
    host.connections["environments/qa"] = [
        Connection(
            name="environments/qa/connections/0f1e",
            connector_id="/providers/Microsoft.PowerApps/apis/shared_sql",
            status="Connected",
        )
    ]
    host.description = api.DescribeSolutionResponse(
        solution="ContosoSales",
        version="1.2.0.0",
        publisher="contoso",
        components=[
            Component(kind="entity", name="contoso_order"),
            Component(kind="workflow", name="Approve"),
        ],
        requirements=[
            Requirement(
                required=Subject(kind="entity", name="contoso_base"),
                dependent=Subject(kind="workflow", name="Approve"),
                solution="ContosoBase (1.0)",
            )
        ],
        settings=[
            Setting(
                name="contoso_Sql",
                kind=Setting.KIND_CONNECTION_REFERENCE,
                required=True,
                connector_id="/x/shared_sql",
            ),
            Setting(
                name="contoso_Url",
                kind=Setting.KIND_ENVIRONMENT_VARIABLE,
                type="string",
                value="https://qa",
                source=SettingSource.SETTING_SOURCE_TARGET,
            ),
            Setting(name="contoso_Key", kind=Setting.KIND_ENVIRONMENT_VARIABLE, type="secret", required=True),
        ],
    )


def warning() -> Finding:
    return Finding(
        code="VARIABLE_PACKAGED",
        severity=Finding.SEVERITY_WARNING,
        cause="contoso_Url takes the value that the package carries.",
        remedy="Give it a value of its own.",
        subject=Subject(kind="environmentvariabledefinition", name="contoso_Url", display_name="Address"),
    )


def plays(host: FakeHost, end: Run.State = Run.STATE_SUCCEEDED) -> None:
    """Deployments go through all steps at once, and end as asked."""

    async def script(run: Run) -> None:
        run.start_time.seconds = 1_760_000_001
        while not host.watches:  # noqa: ASYNC110 - the watch shall see everything from its beginning
            await asyncio.sleep(0.01)
        await host.enter(run, Run.STATE_VALIDATING)
        await host.step(run, Step.KIND_EXPORT, Step.STATE_RUNNING)
        run.version, run.artifact = "1.2.0.0", f"artifacts/{SHA}"
        await host.step(run, Step.KIND_EXPORT, Step.STATE_SUCCEEDED, "2 packages")
        await host.step(run, Step.KIND_VALIDATE, Step.STATE_RUNNING)
        await host.append(Event(kind=Event.KIND_FINDING, subject=run.name, finding=warning()))
        run.warning_count = 1
        host.findings[run.name] = [warning()]
        await host.step(run, Step.KIND_VALIDATE, Step.STATE_SUCCEEDED, "1 warning")
        await host.enter(run, Run.STATE_DEPLOYING)
        await host.step(run, Step.KIND_IMPORT, Step.STATE_RUNNING)
        for percent in (4, 15, 50, 100):
            at = Progress(step=Step.KIND_IMPORT, percent=percent)
            await host.append(Event(kind=Event.KIND_PROGRESS, subject=run.name, progress=at))
        if end != Run.STATE_SUCCEEDED:
            await host.step(run, Step.KIND_IMPORT, Step.STATE_FAILED)
            run.end_time.seconds = 1_760_000_030
            error = RunError(message="qa refused.", remedy="Ask its owner.", step=Step.KIND_IMPORT)
            await host.enter(run, end, error=error)
            return
        for kind in (Step.KIND_IMPORT, Step.KIND_PUBLISH, Step.KIND_VERIFY):
            if kind != Step.KIND_IMPORT:
                await host.step(run, kind, Step.STATE_RUNNING)
            await host.step(run, kind, Step.STATE_SUCCEEDED)
        run.end_time.seconds = 1_760_000_030
        run.previous_version = "1.1.0.0"
        await host.enter(run, Run.STATE_SUCCEEDED)

    host.on_deploy = script


def golden(name: str, ended: Ended) -> None:
    text = f"exit code {ended.code}\n--- stdout\n{ended.out}--- stderr\n{ended.err}"
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


READS = {
    "host": "host",
    "pipeline_list": "pipeline list",
    "pipeline_list_json": "pipeline list -o json",
    "pipeline_show": "pipeline show sales",
    "environment_list": "environment list",
    "environment_list_names": "environment list -o name",
    "environment_show": "environment show qa",
    "environment_solutions": "environment solutions dev",
    "connection_list": "connection list qa",
    "artifact_list": "artifact list",
    "artifact_show": f"artifact show {SHA[:8]}",
    "solution_describe": "solution describe ContosoSales --stage sales/qa",
    "settings_create": "settings create ContosoSales --stage sales/qa",
    "get_pipeline": "get pipeline",
    "get_environment": "get environment dev prod",
    "unknown_pipeline": "pipeline show slaes",
    "unknown_command": "pipline list",
    "no_pipeline": "deploy ContosoSales",
}


@pytest.mark.parametrize("name", READS)
def test_what_commands_write(cli: Callable[[str], Ended], name: str) -> None:
    golden(name, cli(READS[name]))


def test_a_deployment_in_plain_lines(host: FakeHost, cli: Callable[[str], Ended]) -> None:
    plays(host)
    golden(
        "deploy_succeeded",
        cli("deploy ContosoSales -p sales --set contoso_Url=https://x --connection contoso_Sql=0f1e"),
    )
    golden("run_list", cli("run list"))
    golden("run_list_jsonl", cli("run list -o jsonl"))
    golden("run_show", cli("run show 01jd0000000000000000000001"))
    golden("run_findings", cli("run findings 01jd0000000000000000000001"))
    golden("event_list", cli("event list -n 5"))
    request = host.seen("Deploy")[0]
    assert request.settings.environment_variables[0].value == "https://x"
    assert request.settings.connection_references[0].connection_id == "0f1e"


def test_a_deployment_that_fails(host: FakeHost, cli: Callable[[str], Ended]) -> None:
    plays(host, Run.STATE_FAILED)
    golden("deploy_failed", cli("deploy ContosoSales -p sales"))


def test_a_deployment_whose_outcome_is_unknown(host: FakeHost, cli: Callable[[str], Ended]) -> None:
    plays(host, Run.STATE_UNKNOWN)
    golden("deploy_unknown", cli("deploy ContosoSales -p sales -o name"))


def test_a_deployment_that_is_left(host: FakeHost, cli: Callable[[str], Ended]) -> None:
    golden(
        "deploy_detached", cli(f"--host {host.address} deploy ContosoSales -p sales --stage prod --detach")
    )
    golden("watch_timeout", cli("run watch 01jd0000000000000000000001 --timeout 0.3"))
    golden("run_cancel", cli("run cancel 01jd0000000000000000000001 --reason wrong"))
    golden("watch_cancelled", cli("run watch 01jd0000000000000000000001"))


def test_a_file_is_uploaded_and_then_deployed(
    host: FakeHost, cli: Callable[[str], Ended], tmp_path: Path
) -> None:
    (tmp_path / "ContosoSales.zip").write_bytes(b"package")
    golden("deploy_file", cli("deploy ContosoSales.zip -p sales --detach"))
    assert host.seen("Deploy")[0].artifact in host.packages
    ended = cli("deploy Missing.zip -p sales")
    assert ended.code == 1
    assert "Missing.zip: No such file" in ended.err


def test_a_validation(host: FakeHost, cli: Callable[[str], Ended]) -> None:
    summary = api.ValidateDeploymentResponse.Summary(
        solution="ContosoSales",
        version="1.2.0.0",
        stage="pipelines/sales/stages/qa",
        warning_count=1,
        deployable=True,
    )
    host.updates = [
        api.ValidateDeploymentResponse(progress=Progress(detail="reading the package")),
        api.ValidateDeploymentResponse(finding=warning()),
        api.ValidateDeploymentResponse(summary=summary),
    ]
    golden("validate_ready", cli("validate ContosoSales -p sales"))
    golden("validate_json", cli("validate ContosoSales -p sales -o json"))
    summary.deployable, summary.error_count = False, 1
    host.updates[-1] = api.ValidateDeploymentResponse(summary=summary)
    golden("validate_not_ready", cli("validate ContosoSales -p sales --stage qa"))


LOSS = "10552222" + "0" * 56


def gone_back(host: FakeHost, version: str = "1.1.0.0") -> api.ValidateDeploymentResponse.Summary:
    """prod has held 1.0, 1.1 and then 1.2; what a validation says of 1.1."""
    for n, held in enumerate(("1.0.0.0", "1.1.0.0", "1.2.0.0"), 2):
        sha = f"{n}" * 64
        host.artifacts[f"artifacts/{sha}"] = Artifact(
            name=f"artifacts/{sha}", solution="ContosoSales", version=held, managed=True
        )
        run = Run(
            name=f"runs/01jd{n:022d}",
            state=Run.STATE_SUCCEEDED,
            pipeline="pipelines/sales",
            stage="pipelines/sales/stages/prod",
            solution="ContosoSales",
            version=held,
            artifact=f"artifacts/{sha}",
        )
        run.end_time.seconds = 1_760_000_000 + n
        host.runs[run.name] = run
    parts = [
        ("REDEPLOYMENT", "prod holds 1.2.0.0, which is not lower than 1.1.0.0.", ""),
        ("CHANGES_BACK", "The table Order in prod changes back to what it is in 1.1.0.0.", "Keep 1.2.0.0."),
        ("CHANGES_BACK", "The flow or process Pay\x1b[2J in prod changes back.", "Keep 1.2.0.0."),
        ("STAYS_BEHIND", "The column Tax of order is not in 1.1.0.0: it stays.", "See that nobody uses it."),
        ("LOSS_NOT_ACCEPTED", "Nobody has accepted that.", "Look again."),
    ]
    summary = api.ValidateDeploymentResponse.Summary(
        solution="ContosoSales",
        version=version,
        installed_version="1.2.0.0",
        stage="pipelines/sales/stages/prod",
        loss_sha256=LOSS,
    )
    host.updates = [
        api.ValidateDeploymentResponse(progress=Progress(detail="looking for what going back would lose")),
        *(
            api.ValidateDeploymentResponse(
                finding=Finding(
                    code=code,
                    severity=Finding.SEVERITY_ERROR if code[0] == "L" else Finding.SEVERITY_WARNING,
                    cause=cause,
                    remedy=remedy,
                )
            )
            for code, cause, remedy in parts
        ),
        api.ValidateDeploymentResponse(summary=summary),
    ]
    return summary


def test_going_back_shows_the_loss_and_takes_exactly_that(
    host: FakeHost, cli: Callable[[str], Ended]
) -> None:
    gone_back(host)
    golden("redeploy_preview", cli("redeploy ContosoSales -p sales --stage prod"))
    assert not host.seen("Deploy"), "nobody was there to accept"
    assert host.seen("ValidateDeployment")[-1].deployment.artifact == "artifacts/" + "3" * 64
    kept = "--note 'CR 1' --hold 'the fair' --override-reason urgent --overwrite-customizations"
    again = cli(f"redeploy ContosoSales -p sales --stage prod {kept} --set contoso_Key=hush").err
    assert f"--artifact artifacts/{'3' * 64} {kept} … --accept {LOSS}" in again
    assert "hush" not in again
    golden("redeploy_yes", cli("redeploy ContosoSales -p sales --stage prod --yes --detach --note why"))
    assert host.seen("Deploy")[-1].loss_sha256 == LOSS
    later = cli("redeploy ContosoSales -p sales --stage prod --yes --detach --at 2099-01-01T00:00+00:00")
    assert (later.code, "scheduled: not before 2099-01-01" in later.err) == (0, True)
    assert host.seen("Deploy")[-1].schedule_time.seconds == 4_070_908_800
    looked = len(host.seen("ValidateDeployment"))
    accepted = f"redeploy ContosoSales -p sales --stage prod --version 1.0 --accept {LOSS} --detach"
    golden("redeploy_accepted", cli(accepted))
    assert len(host.seen("ValidateDeployment")) == looked, "what was accepted needs no second look"
    assert host.seen("Deploy")[-1].artifact == "artifacts/" + "2" * 64
    assert host.seen("Deploy")[-1].loss_sha256 == LOSS


def test_what_a_stage_holds_is_what_the_record_has_last_whatever_the_clock(
    host: FakeHost, cli: Callable[[str], Ended]
) -> None:
    gone_back(host)
    for order, run in enumerate(sorted(host.runs.values(), key=lambda r: r.name), 1):
        run.revision = order
        run.end_time.seconds = 1_770_000_000 - order  # the clock went back all the while
    cli("redeploy ContosoSales -p sales --stage prod")
    assert host.seen("ValidateDeployment")[-1].deployment.artifact == "artifacts/" + "3" * 64


@pytest.mark.parametrize(("answer", "deployed"), [("y", 1), ("n", 0), ("", 0)])
def test_going_back_asks_on_a_terminal(
    host: FakeHost,
    cli: Callable[[str], Ended],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    deployed: int,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    gone_back(host)
    monkeypatch.setattr(sys, "stdin", Terminal(f"{answer}\n"))
    ended = cli("redeploy ContosoSales -p sales --stage prod --detach")
    assert "Bring prod from 1.2.0.0 to 1.1.0.0, and lose this?" in ended.err
    assert len(host.seen("Deploy")) == deployed


def test_going_back_that_cannot_be(host: FakeHost, cli: Callable[[str], Ended]) -> None:
    call = "redeploy ContosoSales -p sales --stage prod"
    golden("redeploy_nothing_before", cli(call))
    gone_back(host)
    unknown = cli(f"{call} --version 0.9")
    assert (unknown.code, "knows of no version 0.9" in unknown.err) == (1, True)
    assert cli(f"{call} --version 1.0 --artifact {SHA}").code == 2
    refused = Finding(code="VERSION_NOT_HIGHER", severity=Finding.SEVERITY_ERROR, cause="It is not higher.")
    host.updates.insert(1, api.ValidateDeploymentResponse(finding=refused))
    golden("redeploy_not_allowed", cli(f"{call} --yes"))
    assert cli(f"{call} --yes --detach --hold why").code == 2
    host.failures["UpdatePipeline"] = [
        errors.PermissionDenied(ErrorReason.ERROR_REASON_PERMISSION_DENIED, "You may not change sales.")
    ]
    assert cli(f"{call} --yes --hold why").code == 4, "who may not hold the stage learns it before"
    del host.updates[1:-1]
    higher = cli(f"{call} --yes")
    assert (higher.code, "is no way back" in higher.err) == (2, True)
    assert not host.seen("Deploy")


def test_a_refused_deployment_lists_every_reason(host: FakeHost, cli: Callable[[str], Ended]) -> None:
    host.failures["Deploy"] = [
        errors.FailedPrecondition(
            ErrorReason.ERROR_REASON_STAGE_OUT_OF_ORDER,
            "The deployment is not possible now.",
            remedy="Deploy to qa first.",
            violations=[
                errors.Violation(
                    "pipelines/sales/stages/prod", "qa has not succeeded yet", "STAGE_OUT_OF_ORDER"
                ),
                errors.Violation("environments/prod", "it lies in asia\x1b]0;x\x07", "REGION_MISMATCH"),
            ],
            metadata={"resource": "pipelines/sales/stages/prod"},
        )
    ]
    golden("deploy_refused", cli("deploy ContosoSales -p sales --stage prod"))


@pytest.mark.parametrize(
    ("stage", "following"),
    [("--stage sales/qa", "-p sales --stage qa"), ("-e dev", "-p PIPELINE")],
)
def test_settings_of_a_stage_are_for_that_stage(
    cli: Callable[[str], Ended], stage: str, following: str
) -> None:
    ended = cli(f"settings create ContosoSales {stage} -o 'of qa.json'")
    assert ended.err.endswith(f"deploy ContosoSales {following} --settings 'of qa.json'\n"), ended.err


@pytest.mark.parametrize(
    ("reason", "following"),
    [
        (ErrorReason.ERROR_REASON_STAGE_FROZEN, "freeze list"),
        (ErrorReason.ERROR_REASON_STAGE_HELD, "pipeline show sales"),
        (ErrorReason.ERROR_REASON_ARTIFACT_BLOCKED, "artifact list"),
    ],
)
def test_where_to_look_when_somebody_stands_in_the_way(
    host: FakeHost, cli: Callable[[str], Ended], reason: ErrorReason, following: str
) -> None:
    where = {"resource": "pipelines/sales/stages/prod"}
    host.failures["Deploy"] = [errors.FailedPrecondition(reason, "Not now.", metadata=where)]
    ended = cli("deploy ContosoSales -p sales --stage prod")
    assert ended.err.endswith(f"\n  Next: pipelinehost {following}\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Unauthenticated(ErrorReason.ERROR_REASON_TOKEN_INVALID, "The token is not known."), 4),
        (errors.PermissionDenied(ErrorReason.ERROR_REASON_PERMISSION_DENIED, "You may not."), 4),
        (errors.Internal(ErrorReason.ERROR_REASON_INTERNAL, "A defect.", metadata={"incident": "x"}), 1),
    ],
)
def test_exit_codes_of_refusals(
    host: FakeHost, cli: Callable[[str], Ended], error: errors.PipelineHostError, code: int
) -> None:
    host.failures["GetHost"] = [error]
    ended = cli("host")
    assert ended.code == code
    assert error.message in ended.err
    assert "\n  Next: " in ended.err


def test_nobody_there(host: FakeHost, cli: Callable[[str], Ended]) -> None:
    host.stop()
    golden("nobody_there", cli("host"))


CONFIG = """\
environments:
  - name: test
    kind: target
pipelines:
  - name: sales
    display_name: Sales
    development_environments: [dev]
    allow_redeployment: true
    stages:
      - name: test
        environment: test
      - name: qa
        display_name: Quality
        environment: qa
        settings:
          environment_variables:
            - schema_name: contoso_Url
              value: https://qa
      - name: prod
        environment: prod
"""


def test_applying_a_file_a_second_time_changes_nothing(
    host: FakeHost, cli: Callable[[str], Ended], tmp_path: Path
) -> None:
    (tmp_path / "x.yaml").write_text(CONFIG, encoding="utf-8")
    before = {name: p.SerializeToString() for name, p in (host.pipelines | host.environments).items()}
    golden("apply_dry_run", cli("apply -f x.yaml --dry-run"))
    assert before == {n: p.SerializeToString() for n, p in (host.pipelines | host.environments).items()}
    host.pipelines["pipelines/sales"].etag = "as read"
    host.pipelines["pipelines/sales"].owner = "principals/ann"
    golden("apply", cli("apply -f x.yaml"))
    assert host.seen("UpdatePipeline")[-1].pipeline.etag == "as read"
    assert host.seen("UpdatePipeline")[-1].pipeline.owner == "principals/ann"
    assert host.seen("UpdatePipeline")[-1].update_mask.paths == [
        "display_name",
        "stages",
        "allow_redeployment",
    ]
    calls = len(host.calls)
    golden("apply_again", cli("apply -f x.yaml"))
    assert {method for method, _ in host.calls[calls:]} == {"GetPipeline", "GetEnvironment"}


def test_apply_names_what_is_refused(host: FakeHost, cli: Callable[[str], Ended], tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(CONFIG, encoding="utf-8")
    wrong = errors.InvalidArgument(ErrorReason.ERROR_REASON_INVALID_FIELD, "url: no address")
    host.failures["CreateEnvironment"] = [wrong]
    ended = cli("apply -f x.yaml")
    assert (ended.code, "error: environment test: url: no address" in ended.err) == (1, True), ended.err


def test_apply_takes_no_package_for_a_file(
    host: FakeHost, cli: Callable[[str], Ended], tmp_path: Path
) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04\xb2\xff")
    ended = cli("apply -f x.zip")
    assert (ended.code, "x.zip: is no YAML" in ended.err) == (1, True), ended.err


def test_events_of_an_actor_by_id(host: FakeHost, cli: Callable[[str], Ended]) -> None:
    for said, asked in (("ada", "principals/ada"), ("principals/ada", "principals/ada"), ("host", "host")):
        assert cli(f"event list --actor {said}").code == 0
        assert host.seen("ListEvents")[-1].filter == f'actor = "{asked}"'


def test_a_file_leaves_who_may_what_as_it_is_until_it_says_otherwise(
    host: FakeHost, cli: Callable[[str], Ended], tmp_path: Path
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(CONFIG, encoding="utf-8")
    assert cli("apply -f x.yaml").code == 0
    ben = Share(principal="principals/ben", access=Share.ACCESS_EDIT)
    host.pipelines["pipelines/sales"].owner = "principals/ann"
    host.pipelines["pipelines/sales"].shares.append(ben)
    host.environments["environments/test"].makers.append("principals/ben")

    def applied(more: str = "", maker: str = "", *, dry: bool = False) -> str:
        text = CONFIG.replace("    stages:\n", f"{more}    stages:\n")
        file.write_text(text.replace("    kind: target\n", f"    kind: target\n{maker}"), encoding="utf-8")
        ended = cli("apply -f x.yaml" + " --dry-run" * dry)
        assert ended.code == 0
        return ended.out

    for dry in (True, False):
        assert applied(dry=dry) == "= environment test\n= pipeline sales\n"
        assert applied("    owner:\n", dry=dry) == "= environment test\n= pipeline sales\n"
    assert [*host.pipelines["pipelines/sales"].shares] == [ben]
    for dry in (True, False):
        assert applied("    shares: []\n", "    makers: []\n", dry=dry) == (
            "~ environment test\n    makers: ben -> (empty)\n"
            "~ pipeline sales\n    shares: ben -> (empty)\n    shares[ben].principal: ben -> (empty)\n"
            "    shares[ben].access: edit -> (empty)\n"
        )
        left = host.pipelines["pipelines/sales"]
        assert (len(left.shares), left.owner) == (int(dry), "principals/ann")
    assert not host.environments["environments/test"].makers


def test_what_get_writes_is_what_apply_reads(
    host: FakeHost, cli: Callable[[str], Ended], tmp_path: Path
) -> None:
    (tmp_path / "x.yaml").write_text(CONFIG, encoding="utf-8")
    cli("apply -f x.yaml")
    for kind in ("pipeline", "environment"):
        (tmp_path / "y.yaml").write_text(cli(f"get {kind}").out, encoding="utf-8")
        ended = cli("apply -f y.yaml")
        assert ended.code == 0
        assert "0 created, 0 changed" in ended.err


def test_a_wrong_file_is_told_with_its_lines(cli: Callable[[str], Ended], tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        CONFIG.replace("stages:", "stage:").replace("target", "prod"), encoding="utf-8"
    )
    golden("apply_wrong", cli("apply -f x.yaml"))
    (tmp_path / "s.json").write_text('[{"SchemaName": "x", "Value": "y"}]', encoding="utf-8")
    golden("settings_array", cli("deploy ContosoSales -p sales --settings s.json"))


def test_environments_pipelines_and_connections_are_made_and_deleted(
    host: FakeHost, cli: Callable[[str], Ended]
) -> None:
    assert cli("environment create uat --kind target --app msdyn_App=1.0 -o name").out == "environments/uat\n"
    assert host.environments["environments/uat"].installed_apps == {"msdyn_App": "1.0"}
    assert (
        cli("connection create qa shared_office365 --id abc -o name").out
        == "environments/qa/connections/abc\n"
    )
    assert cli("connection delete qa abc -y").code == 0
    assert cli("pipeline create hr --from dev --stage uat=uat --stage prod=prod").code == 0
    assert [s.name for s in host.pipelines["pipelines/hr"].stages] == [
        "pipelines/hr/stages/uat",
        "pipelines/hr/stages/prod",
    ]
    assert cli("pipeline create hr --stage uat").code == 2
    assert cli("pipeline delete hr -y").err == "deleted pipelines/hr\n"
    assert cli("environment delete uat -y").err == "deleted environments/uat\n"


def test_packages_up_and_down(host: FakeHost, cli: Callable[[str], Ended], tmp_path: Path) -> None:
    (tmp_path / "in.zip").write_bytes(b"package")
    name = cli("artifact upload in.zip -o name").out.strip()
    assert cli(f"artifact download {name}").out == "ContosoSales_1_2_0_0_managed.zip\n"
    assert cli(f"artifact download {name}").code == 2
    assert cli(f"artifact download {name} --force").code == 0
    assert (tmp_path / "ContosoSales_1_2_0_0_managed.zip").read_bytes() == b"package"


def test_a_watch_of_the_record_that_is_left_goes_on_with_its_filter(
    cli: Callable[[str], Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    def updates(*_: object, **__: object) -> Iterator[api.WatchEventsResponse]:
        yield api.WatchEventsResponse(resume_token="t7")
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "watch_events", updates)
    ended = cli("event watch --kind gate_opened --filter 'actor != host' -o jsonl")
    following = """--resume-token t7 --filter 'kind = "GATE_OPENED" AND actor != host' -o jsonl"""
    assert ended.code == 8
    assert ended.err == f"  Next: pipelinehost event watch {following}\n"


def test_an_export_that_is_cut_off_leaves_no_file(
    cli: Callable[[str], Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Client, "export_events", lambda *_, **__: iter([b"{}\n"]))
    ended = cli("event export -o record.jsonl")
    assert (ended.code, ended.err.startswith("error: "), ended.err.count("\n")) == (1, True, 2), ended
    assert list(tmp_path.iterdir()) == []


def test_filters_are_quoted(host: FakeHost, cli: Callable[[str], Ended]) -> None:
    cli('run list -p sales --state failed --solution \'a"b\\c\' --filter "requester != bob"')
    assert host.seen("ListRuns")[0].filter == (
        'state = "FAILED" AND pipeline = "pipelines/sales" AND solution = "a\\"b\\\\c" AND requester != bob'
    )


def test_every_command_has_help(cli: Callable[[str], Ended]) -> None:
    pending, seen = [([], commands.cli)], 0  # type: ignore[var-annotated] # commands of several kinds
    while pending:
        path, command = pending.pop()
        ended = cli(" ".join([*path, "--help"]))
        assert ended.code == 0
        assert command.help
        assert "\b" not in ended.out
        seen += 1
        pending += [([*path, name], inner) for name, inner in getattr(command, "commands", {}).items()]
    assert seen > 40


def test_json_is_json(host: FakeHost, cli: Callable[[str], Ended]) -> None:
    assert json.loads(cli("pipeline list -o json").out)[0]["display_name"] == "Sales \x1b[31mof Contoso"
    assert json.loads(cli("pipeline show sales -o json").out)["name"] == "pipelines/sales"


def test_ctrl_c_leaves_the_run_and_says_how_to_go_on(host: FakeHost, tmp_path: Path) -> None:
    host.new_run("runs/01jd0000000000000000000001", solution="X", stage="pipelines/sales/stages/qa")
    program = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from pipelinehost.cli import main; main()",
            "run",
            "watch",
            "01jd0000000000000000000001",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    while not host.watches and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=20)
    assert program.returncode == 8
    assert out == ""
    assert "  Next: pipelinehost run watch 01jd0000000000000000000001\n" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("command", "first"), [("pipeline list -o json", b"["), ("get pipeline", b"p")])
def test_a_reader_that_has_enough_is_no_error(host: FakeHost, command: str, first: bytes) -> None:
    # more than a pipe holds
    many = [Pipeline(name=f"pipelines/p{n}", display_name="x" * 200) for n in range(1000)]
    host.pipelines |= {p.name: p for p in many}
    # An unbuffered stdout never tells of a broken pipe: what Python writes in part it takes for written.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-c", "from pipelinehost.cli import main; main()", *shlex.split(command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=buffered,
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.read(1) == first
        program.stdout.close()
        assert program.stderr.read() == b""
        assert program.wait(60) == 1


def test_without_its_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['rich'] = None; from pipelinehost.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 1
    assert "pip install 'pipelinehost[cli]'" in ended.stderr


@pytest.mark.parametrize("state", [Run.STATE_REJECTED, Run.STATE_EXPIRED, Run.STATE_CANCELLED])
def test_an_end_without_success_says_how_to_ask_anew(
    host: FakeHost, cli: Callable[[str], Ended], state: Run.State
) -> None:
    name = "runs/01jd0000000000000000000001"
    run = host.new_run(name, pipeline="pipelines/sales", stage="pipelines/sales/stages/qa", solution="Sales")
    run.state = state
    assert cli(f"run watch {name}").err.endswith("  Next: pipelinehost deploy Sales -p sales\n")
    restore = host.new_run(name, artifact="artifacts/" + "a" * 64, target_environment="environments/dev")
    restore.state = state
    assert cli(f"run watch {name}").err.endswith(f"  Next: pipelinehost artifact restore {'a' * 64} -e dev\n")


def test_a_run_at_a_gate(host: FakeHost, cli: Callable[[str], Ended]) -> None:
    gate = Gate(kind=Gate.KIND_APPROVAL, approvers=["principals/ada", "principals/ben"], required=2)
    status = GateStatus(
        kind=Gate.KIND_APPROVAL, state=GateStatus.STATE_WAITING, gate=gate, bound_sha256="b" * 64
    )
    status.decisions.add(principal="ben", approved=True, comment="fine")
    run = host.new_run(
        "runs/01jd0000000000000000000001",
        pipeline="pipelines/sales",
        stage="pipelines/sales/stages/qa",
        solution="Sales",
        target_environment="environments/qa",
        gates=[status],
    )
    run.state = Run.STATE_AWAITING_GATE
    shown = cli("run show 01jd0000000000000000000001")
    assert "yes ben: fine; 1 of 2" in shown.out
    assert "Approvers: principals/ada, principals/ben" in shown.err
    assert "Next: ask principals/ada, principals/ben\n" in shown.err, "this caller is no approver"
    asked = cli("run approve 01jd0000000000000000000001 --comment ok --note quiet")
    assert (asked.code, asked.out) == (0, "runs/01jd0000000000000000000001 QUEUED\n")
    [request] = host.decided
    assert (request.bound_sha256, request.gate) == ("b" * 64, Gate.KIND_APPROVAL), "as it was looked at"
    assert (request.comment, request.note) == ("ok", "quiet")
    assert cli("run reject 01jd0000000000000000000001").code == 2, "a no says why"
    run.error.message = "ada rejected it: late"
    run.error.remedy = "Mend it."
    refused = cli("run reject 01jd0000000000000000000001 --comment late")
    assert refused.out == "runs/01jd0000000000000000000001 REJECTED\n"
    ended = cli("run watch 01jd0000000000000000000001")
    assert ended.code == RUN_FAILED
    assert "Rejected" in ended.err
    assert "ada rejected it: late" in ended.err
    assert ended.err.endswith("  Next: pipelinehost deploy Sales -p sales\n")
    run.gates[0].decisions.add(principal="ada", comment="late")
    assert "yes ben: fine; no ada: late; 1 of 2" in cli("run show 01jd0000000000000000000001").out
    host.gate_notes.append(GateNote(run=run.name, kind=gate.kind, principal="ada", note="careful"))
    assert "careful" in cli("run notes 01jd0000000000000000000001").out


@pytest.mark.parametrize(
    ("caller", "groups", "following"),
    [
        ("principals/ada", [], "pipelinehost run approve 01jd0000000000000000000001"),
        ("principals/cy", ["principals/team"], "pipelinehost run approve 01jd0000000000000000000001"),
        ("principals/cy", [], "ask principals/ada, principals/team"),
        ("principals/ben", [], "ask principals/ada, principals/team"),  # has approved
        ("principals/eve", ["principals/team"], "ask principals/ada, principals/team"),  # asked for it
    ],
)
def test_who_is_told_to_approve(
    host: FakeHost, cli: Callable[[str], Ended], caller: str, groups: list[str], following: str
) -> None:
    host.caller, host.groups = caller, groups
    approvers = ["principals/ada", "principals/ben", "principals/team"]
    gate = Gate(kind=Gate.KIND_APPROVAL, approvers=approvers, required=2)
    status = GateStatus(kind=Gate.KIND_APPROVAL, state=GateStatus.STATE_WAITING, gate=gate)
    status.decisions.add(principal="principals/ben", approved=True)
    run = host.new_run(stage="pipelines/sales/stages/qa", gates=[status])
    run.state, run.requester = Run.STATE_AWAITING_GATE, "principals/eve"
    shown = cli(f"run show {run.name}")
    assert f"  Next: {following}\n" in shown.err


@pytest.mark.parametrize(
    ("error", "following"),
    [
        (
            errors.FailedPrecondition(
                ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND,
                "pipeline.stages[0].environment: there is no environments/gone: create it first",
            ),
            "environment list",
        ),
        (
            errors.NotFound(
                ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND,
                "There is no environments/gone.",
                metadata={"resource": "environments/gone"},
            ),
            "environment list",
        ),
        (
            errors.AlreadyExists(
                ErrorReason.ERROR_REASON_RESOURCE_EXISTS,
                "freezes/xmas exists already",
                metadata={"resource": "freezes/xmas"},
            ),
            "freeze show xmas",
        ),
        (
            errors.AlreadyExists(
                ErrorReason.ERROR_REASON_RESOURCE_EXISTS,
                "principals/ada exists already",
                metadata={"resource": "principals/ada"},
            ),
            "principal list",
        ),
        (
            errors.FailedPrecondition(
                ErrorReason.ERROR_REASON_RUN_NOT_RETRYABLE,
                "pipelines/sales/stages/qa does not lead to environments/qa any more.",
            ),
            "run show RUN",
        ),
    ],
)
def test_what_to_type_next(
    host: FakeHost, cli: Callable[[str], Ended], error: errors.PipelineHostError, following: str
) -> None:
    host.failures["GetHost"] = [error]
    assert cli("host").err.endswith(f"  Next: pipelinehost {following}\n")


def test_an_error_lists_nothing_twice(host: FakeHost, cli: Callable[[str], Ended]) -> None:
    uses = [f"pipelines/{p} uses environments/qa: take it out of the pipeline first" for p in ("a", "b")]
    host.failures["DeleteEnvironment"] = [
        errors.FailedPrecondition(
            ErrorReason.ERROR_REASON_RESOURCE_IN_USE,
            "environments/qa is in use by 2 pipelines",
            violations=[errors.Violation(told.partition(" ")[0], told) for told in uses],
        )
    ]
    told = cli("environment delete qa -y").err
    assert [told.count(f"pipelines/{p}") for p in ("a", "b")] == [1, 1], told
