"""The demo: a host of its own, three embedded environments, and a solution that travels through them.

Usage: python demo/run.py [SOLUTION.zip]

Everything that matters is done with the commands that are printed. The host stays up until the demo ends, its
folder (.demo) until the next one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelinehost import Client, PipelineHostError
from pipelinehost.v1.resources_pb2 import Artifact, Connection, Setting
from pipelinehost_dataverse.solution import (
    Column,
    ConnectionReference,
    EnvironmentVariable,
    Part,
    Table,
    VariableType,
    cloud_flow,
    new_manifest,
    write,
)

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent / ".demo"
PACE = "1.2"
"""Seconds that an import takes at least, so that there is something to watch."""
OFFICE = "/providers/Microsoft.PowerApps/apis/shared_office365"
PLACEHOLDERS = {
    "number": "1",
    "boolean": "yes",
    "json": "{}",
    "secret": "/subscriptions/demo/resourceGroups/demo/providers/Microsoft.KeyVault/vaults/demo/secrets/demo",
}


def main() -> int:
    """Run the demo; gives the exit code of the last deployment."""
    package = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None
    if package is not None and not package.is_file():
        say(f"There is no file {package}.")
        return 2
    begun = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    with host() as address:
        os.environ["PIPELINEHOST_ADDRESS"] = address
        chapter("Three environments and a pipeline, from one file")
        run("apply", "-f", str(HERE / "pipeline.yaml"))
        with Client(address) as client:
            try:
                code = ours(client) if package is None else yours(client, package)
            except PipelineHostError as error:
                say(f"\n{error.message}\n  Next: {error.remedy}")
                return 1
        chapter("What was done")
        run("run", "list")
    say(f"\nThe demo took {time.monotonic() - begun:.0f} s. Its data is in .demo; the next demo replaces it.")
    return code


def ours(client: Client) -> int:
    """A small solution of our own, in two versions."""
    first, second = FOLDER / "Orders_1_0_0_0.zip", FOLDER / "Orders_1_1_0_0.zip"
    first.write_bytes(orders("1.0.0.0", ("total", "fax")))
    second.write_bytes(orders("1.1.0.0", ("total", "status")))

    chapter("A maker's solution, in the development environment")
    run("artifact", "restore", str(first), "-e", "dev")

    chapter("Would it deploy? All that is wrong comes at once, before anything is touched")
    run("validate", "Orders", "-p", "demo")

    chapter("With a connection and a value it goes to QA, and the same artifact on to production")
    for environment in ("qa", "production"):
        connect(client, environment, OFFICE, "office-of-the-demo")
    given = ["--connection", "cts_mail=office-of-the-demo", "--set", "cts_limit=1000"]
    run("deploy", "Orders", "-p", "demo", *given)
    run("deploy", "Orders", "-p", "demo", *given)

    chapter("The next version no longer has a column: the host says what the upgrade removes")
    run("artifact", "restore", str(second), "-e", "dev")
    return run("deploy", "Orders", "-p", "demo")


def yours(client: Client, package: Path) -> int:
    """A package that nobody here wrote; asks for nothing that it could find out itself."""
    artifact = client.upload(package)
    kind = "managed" if artifact.managed else "unmanaged"
    chapter(f"{artifact.display_name or artifact.solution} {artifact.version}, {kind}")
    what = artifact.name
    if not artifact.managed:
        if run("artifact", "restore", artifact.name, "-e", "dev"):
            return refused(artifact)
        what = artifact.solution
    given = fill(client, artifact)
    for _ in ("qa", "production"):
        if code := run("deploy", what, "-p", "demo", *given):
            refused(artifact)
            return code
    return 0


def refused(artifact: Artifact) -> int:
    """Say that nothing is wrong with the demo."""
    say(
        f"\n{artifact.solution} was refused, and nothing was imported: the findings above are all that "
        "stands in its way.\nThe demo's environments are empty; yours may hold what is missing."
    )
    return 3


def fill(client: Client, artifact: Artifact) -> list[str]:
    """Create the connections that a package asks for, make up values for variables that have none, and write
    both into a settings file.
    """
    connections: list[dict[str, str]] = []
    values: list[dict[str, str]] = []
    for setting in client.describe(artifact=artifact.name).settings:
        if setting.kind == Setting.KIND_CONNECTION_REFERENCE:
            name = f"demo-{len(connections) + 1}"
            for environment in ("qa", "production"):
                connect(client, environment, setting.connector_id, name)
            connections.append(
                {"LogicalName": setting.name, "ConnectionId": name, "ConnectorId": setting.connector_id}
            )
        elif setting.required and not setting.source:
            values.append({"SchemaName": setting.name, "Value": PLACEHOLDERS.get(setting.type, "demo")})
            say(f"  (the demo makes up a value for {setting.name})")
    if not connections and not values:
        return []
    file = FOLDER / "settings.json"
    file.write_text(
        json.dumps({"EnvironmentVariables": values, "ConnectionReferences": connections}, indent=2)
    )
    return ["--settings", str(file)]


def connect(client: Client, environment: str, connector: str, name: str) -> None:
    """Create a connection, and say so: in a real environment that is a person's work."""
    say(f"  (the demo creates the connection {name} to {connector.rpartition('/')[2]} in {environment})")
    full_name = f"environments/{environment}/connections/{name}"
    client.create_connection(environment, Connection(name=full_name, connector_id=connector))


def orders(version: str, columns: tuple[str, ...]) -> bytes:
    """A table, a flow that sends mail through a connection, and a limit that differs by environment."""
    parts: list[Part] = [
        Table("cts_order", tuple(Column(f"cts_{c}", display_name=c.title()) for c in columns), "Order"),
        ConnectionReference("cts_mail", "Mail", "Sends the confirmation", OFFICE),
        EnvironmentVariable("cts_limit", "Credit limit", "", VariableType.NUMBER, None, True),
        cloud_flow("Confirm order", connection_references=["cts_mail"], environment_variables=["cts_limit"]),
    ]
    return write(new_manifest("Orders", version, display_name="Orders"), *parts)


@contextmanager
def host() -> Iterator[str]:
    """A host in a folder of its own; gives its address."""
    os.environ["XDG_STATE_HOME"] = str(FOLDER / "state")
    command = [sys.executable, "-m", "pipelinehost_server", "serve", "--data", str(FOLDER / "data")]
    command += ["--address", "127.0.0.1:0", "--embedded-pace", PACE]
    with (FOLDER / "host.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            line = process.stdout.readline() if process.stdout else ""
            words = dict(w.split("=", 1) for w in line.split() if "=" in w)
            if "address" not in words:
                raise SystemExit(f"The host did not start; its log is {FOLDER / 'host.log'}.")
            yield words["address"]
        finally:
            process.terminate()
            process.wait(20)


def run(*arguments: str) -> int:
    """Print a command as it would be typed, and run it."""
    shown = " ".join(a.replace(f"{HERE.parent}/", "") for a in arguments)
    say(f"\n$ pipelinehost {shown}")
    return subprocess.run(
        [Path(sys.executable).with_name("pipelinehost"), *arguments], check=False
    ).returncode


def chapter(title: str) -> None:
    """A heading."""
    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    say(f"\n{bold}── {title} {'─' * max(3, 90 - len(title))}{plain}")


def say(text: str) -> None:
    """Print at once: what a command prints follows."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
