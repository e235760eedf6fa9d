"""What the README shows, word for word, against a host in a process of its own."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.processes import HostProcess

from pipelinehost import address
from pipelinehost_dataverse.solution import (
    Column,
    EnvironmentVariable,
    Table,
    VariableType,
    new_manifest,
    write,
)

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
USE_IT = README.partition("\n## Use it\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", USE_IT, re.MULTILINE | re.DOTALL)
SERVE, WALK = ([line for line in text.splitlines() if line] for kind, text in BLOCKS if not kind)
(CONFIGURATION,) = (text for kind, text in BLOCKS if kind == "yaml")
(SNIPPET,) = (text for kind, text in BLOCKS if kind == "python")
RUN_SECONDS = 60

Cli = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostProcess]:
    assert SERVE == ["pipelinehost-server serve --data ./data"]  # what a HostProcess runs in its folder
    host = HostProcess(tmp_path)
    host.start()
    yield host
    assert host.stop() == 0


@pytest.fixture
def cli(host: HostProcess) -> Cli:
    """Runs a command line in the host's folder, where the README's files lie; it has to end with 0."""
    program = Path(sys.executable).with_name("pipelinehost")
    (host.folder / "pipeline.yaml").write_text(CONFIGURATION, encoding="utf-8")

    def call(line: str) -> subprocess.CompletedProcess[str]:
        name, *arguments = shlex.split(line)
        assert name == "pipelinehost"
        ended = subprocess.run(
            [program, *arguments],
            cwd=host.folder,
            env=host.environ() | {"PIPELINEHOST_ADDRESS": host.address},
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        assert ended.returncode == 0, f"{line}\n{ended.stdout}{ended.stderr}"
        return ended

    return call


def sales(version: str, *, managed: bool = False) -> bytes:
    limit = EnvironmentVariable("cts_limit", "Credit limit", "", VariableType.NUMBER, None, True)
    columns = (Column("cts_total", display_name="Total"),)
    return write(new_manifest("Sales", version, managed=managed), Table("cts_order", columns, "Order"), limit)


def fill_in(settings: Path) -> None:
    """What the README asks a person to do."""
    root = json.loads(settings.read_text(encoding="utf-8"))
    for variable in root["EnvironmentVariables"]:
        assert variable == {"SchemaName": "cts_limit", "Value": ""}
        variable["Value"] = "1000"
    settings.write_text(json.dumps(root), encoding="utf-8")


def test_the_walk_through_goes_as_it_is_written(host: HostProcess, cli: Cli) -> None:
    (host.folder / "sales_1_0_0_0.zip").write_bytes(sales("1.0.0.0"))
    for line in WALK:
        told = cli(line).stderr
        if line.endswith("--dry-run"):
            assert "4 would be created, 0 would be changed" in told
        elif line.startswith("pipelinehost settings create"):
            fill_in(host.folder / "settings.json")
    assert "0 created, 0 changed, 4 unchanged" in cli("pipelinehost apply -f pipeline.yaml").stderr
    runs = [json.loads(line) for line in cli("pipelinehost run list -o jsonl").stdout.splitlines()]
    assert [(run["state"], run["target_environment"]) for run in runs] == [
        ("SUCCEEDED", "environments/production"),
        ("SUCCEEDED", "environments/qa"),
        ("SUCCEEDED", "environments/dev"),
    ]
    assert len({run["artifact"] for run in runs[:2]}) == 1  # the same artifact, as the README says
    assert "Sales" in cli("pipelinehost environment solutions production").stdout


def test_the_build_servers_command_and_the_snippet_of_python_work(host: HostProcess, cli: Cli) -> None:
    (build,) = re.findall(r"`(pipelinehost deploy \S+_managed\.zip [^`]*)`", USE_IT)
    cli("pipelinehost apply -f pipeline.yaml")
    (host.folder / shlex.split(build)[2]).write_bytes(sales("1.0.0.0", managed=True))
    cli(f"{build} --set cts_limit=1000")
    (host.folder / "next.zip").write_bytes(sales("1.1.0.0"))
    cli("pipelinehost artifact restore next.zip -e dev")
    assert address.DEFAULT in SNIPPET
    ended = subprocess.run(
        [sys.executable, "-c", SNIPPET.replace(address.DEFAULT, host.address)],
        cwd=host.folder,
        env=host.environ(),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    with host.client() as client:
        last = next(client.runs())
    assert ended.stdout.splitlines()[-1] == "STATE_SUCCEEDED"
    assert (last.version, last.target_environment) == ("1.1.0.0", "environments/qa")
    assert last.State.Name(last.state) == "STATE_SUCCEEDED"
