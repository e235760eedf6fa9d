"""A host and an emulator over https with a sign-in, as real environments are, and the CLI between them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.authority import Certificates, certificates
from tests.e2e.processes import EmulatorProcess, HostProcess

from pipelinehost_dataverse.solution import Column, Table, new_manifest, write

CLIENT = "01234567-89ab-cdef-0123-456789abcdef"
CANARY = "c4n4ry~client/secret+of=this&test"
SERVICE = "89abcdef-0123-4567-89ab-cdef01234567"
READER = "fedcba98-7654-3210-fedc-ba9876543210"
WRONG = "wr0ng~c4n4ry/secret+that=is&refused"


class Emulator(EmulatorProcess):
    """Asks for tokens; it has an application for environments, one for a stage, and one that only looks."""

    def __init__(self, folder: Path, files: Certificates, *names: str, options: tuple[str, ...] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "clients").write_text("".join(f"{c}={CANARY}\n" for c in (CLIENT, SERVICE, READER)))
        tls = (
            "--certificate",
            str(files.certificate),
            "--key",
            str(files.key),
            "--require-token",
            "--reader",
            READER,
        )
        super().__init__(folder, *names, options=(*tls, "--clients", str(folder / "clients"), *options))

    def url(self, name: str) -> str:
        return f"https://{self.address}/{name}"


class TrustingHost(HostProcess):
    """Trusts the authority of the emulator's certificate."""

    def __init__(self, folder: Path, files: Certificates, *options: str) -> None:
        super().__init__(folder, *options)
        self.files = files

    def environ(self) -> dict[str, str]:
        return {**super().environ(), "SSL_CERT_FILE": str(self.files.authority)}


class Bed:
    """A host and an emulator that do not know each other yet."""

    def __init__(self, folder: Path, *options: str) -> None:
        files = certificates(folder / "tls")
        self.folder = folder
        self.emulator = Emulator(folder / "emulator", files, "dev", "qa", "other", options=options)
        self.host = TrustingHost(folder / "host", files, "--log-level", "debug")
        self.emulator.start()
        try:
            self.host.start()
        except BaseException:
            self.emulator.stop()
            raise
        self.said: list[str] = []
        """All that the CLI has written."""

    def stop(self) -> None:
        self.host.stop()
        self.emulator.stop()

    def cli(self, *words: str, stdin: str = "", code: int = 0) -> str:
        program = "from pipelinehost.cli import main; main()"
        command = [sys.executable, "-c", program, "--host", self.host.address, *words]
        token = self.host.data / "admin-token"
        ended = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "PIPELINEHOST_TOKEN": token.read_text().strip(), "COLUMNS": "200"},
        )
        self.said += [ended.stdout, ended.stderr]
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def link(self, name: str, kind: str = "target") -> None:
        self.cli(
            *("environment", "create", name, "--kind", kind, "--url", self.emulator.url(name)),
            *("--sign-in", "client-secret", "--tenant", "contoso.onmicrosoft.com", "--client-id", CLIENT),
            *("--authority", f"https://{self.emulator.address}"),
        )

    def give(self, name: str, secret: str = CANARY) -> None:
        self.cli("environment", "set-credential", name, "--secret-file", "-", stdin=secret + "\n")

    def package(self, version: str = "1.0.0.0") -> Path:
        path = self.folder / f"sales-{version}.zip"
        table = Table("cts_order", (Column("cts_number"),))
        path.write_bytes(write(new_manifest("Sales", version, managed=True), table))
        return path
