"""What secrets are put into, and everything that comes out of it: processes, calls, files."""

from __future__ import annotations

import atexit
import base64
import binascii
import contextlib
import functools
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from tests.authority import Certificates, application, certificates
from tests.canary.canaries import Canaries, Canary, Found, Kind, joined
from tests.canary.hostile import ENVIRONMENTS, Hostile
from tests.e2e.processes import EmulatorProcess, HostProcess

from pipelinehost.transfer import Upload
from pipelinehost.v1 import pipeline_host_pb2
from pipelinehost.v1.artifacts_pb2_grpc import ArtifactsStub
from pipelinehost.v1.pipeline_host_pb2_grpc import PipelineHostStub
from pipelinehost.v1.resources_pb2 import (
    Environment,
    Gate,
    Identity,
    Pipeline,
    Principal,
    Run,
    Setting,
    SignIn,
    Stage,
)
from pipelinehost_dataverse.solution import (
    Column,
    EnvironmentVariable,
    Table,
    VariableType,
    new_manifest,
    write,
)

ISSUER, AUDIENCE = "https://issuer.example", "api://canaries"
SIGNED = ("signed-0", "signed-1", "signed-2")
"""Environments that want a client secret and look at it."""
EMBEDDED = ("qa", "production")
VARIABLES = {
    "cts_text": VariableType.STRING,
    "cts_number": VariableType.NUMBER,
    "cts_json": VariableType.JSON,
    "cts_flag": VariableType.BOOLEAN,
    "cts_secret": VariableType.SECRET,
}
OLD_VARIABLES = {"cts_attic_text": VariableType.STRING, "cts_attic_secret": VariableType.SECRET}
"""Of the solution ``Attic``, whose older version has less than the newer one."""
TENANT, ECHO = "contoso.example", "echo-sign-in.example"
"""The second one's sign-in repeats the secret."""
OWN = {
    "own-signed": SIGNED[0],
    "own-refused": "echo-running",
    "own-token": "echo-token",
    "own-certificate": "echo-refused",
}
"""Pipelines whose stage has an identity of its own, and where it acts."""
BACK, FROZEN = "back", "frozen"
"""Pipelines that go back, and that freezes hold up."""
TOLD = {f"told-{n}": f"gated-{n}" for n in range(5)}
"""Pipelines whose gates have webhooks, and where they lead: a target that another run changes opens a gate
again."""
_UNFINISHED = 8
_T = TypeVar("_T")
_PROGRAM = "from pipelinehost.cli import main; main()"


@dataclass(frozen=True)
class ByDesign:
    """A place where secrets of some kinds are by design."""

    name: str
    surface: str | tuple[str, ...]
    """How the surface's name begins."""
    kinds: frozenset[Kind]
    reason: str


EXCEPTIONS = (
    ByDesign(
        "an embedded environment's own file",
        "file host/data/environments/",
        frozenset({Kind.VALUE, Kind.SECRET_VALUE, Kind.PART}),
        "values that were deployed are the environment's data, and unfinished operations lie there too",
    ),
    ByDesign(
        "the files of an emulator",
        "file emulator/environments/",
        frozenset({Kind.VALUE, Kind.SECRET_VALUE, Kind.PART}),
        "the same, for an environment in another process",
    ),
    ByDesign(
        "the files of the hostile environments",
        "file behind/environments/",
        frozenset({Kind.VALUE, Kind.SECRET_VALUE, Kind.PART}),
        "the same",
    ),
    ByDesign(
        "an address of a webhook, in the rows of what has it",
        (
            *(f"database {table}" for table in ("pipeline", "run", "run_snapshot", "event", "request")),
            "file host/data/pipelinehost.db",
        ),
        frozenset({Kind.ADDRESS}),
        "it is configuration, which whoever sees the pipeline sees",
    ),
    ByDesign(
        "an address of a webhook, in the record as a file",
        ("answer of ExportEvents", "file cli/record.jsonl"),
        frozenset({Kind.ADDRESS}),
        "an event has the pipeline or the gate",
    ),
    ByDesign(
        "text for people",
        (
            *("answer of", "error of", "output of", "errors of", "database "),
            *("file host/data/pipelinehost.db", "file cli/record.jsonl"),
        ),
        frozenset({Kind.TEXT}),
        "notes and reasons are there to be read; a log is not where",
    ),
    ByDesign(
        "text that is told back to who sent it",
        ("error of", "errors of"),
        frozenset({Kind.REFUSED_TEXT}),
        "what is wrong with it could not be said otherwise; it is kept nowhere",
    ),
)
"""Beside these there are, each at the one place that it is about: the secret in the answer to its own
CreateToken (and on the standard output of its own ``token create``), exactly once; the effective values of
settings that are not of type Secret, in the field ``value`` of DescribeSolution's and ValidateDeployment's
settings; the address of a webhook, in the field ``webhook`` of any message and of JSON that the CLI writes;
``OWN_FILES``."""


OWN_FILES = {"admin-token", "key", "token"}
"""They hold a token or a key and nothing else; with anything beside it they are searched like others."""


@dataclass
class Leak:
    """A secret where none may be."""

    surface: str
    label: str
    how: str
    operation: str


@dataclass
class Record:
    """What happened, and what was found."""

    operations: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    """Messages, errors, files and lines that were searched."""
    bytes: Counter[str] = field(default_factory=Counter)
    allowed: Counter[str] = field(default_factory=Counter)
    leaks: dict[tuple[str, str], Leak] = field(default_factory=dict)
    """The first of each surface and kind of secret."""
    leaked: int = 0
    troubles: Counter[str] = field(default_factory=Counter)
    """What kept an operation from doing what it is for."""
    planted: Counter[str] = field(default_factory=Counter)
    """How often a secret of each kind was handed over."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """How runs ended, and with which codes calls were refused."""


class _Host(HostProcess):
    def __init__(self, folder: Path, files: Certificates, *options: str) -> None:
        super().__init__(folder, *options)
        (folder / "tmp").mkdir(parents=True)
        self._files = files
        # By a short name: that of a socket in it has 107 bytes at most.
        short = Path(tempfile.mkdtemp(prefix="canary-"))
        atexit.register(shutil.rmtree, short, ignore_errors=True)
        self._tmp = short / "tmp"
        self._tmp.symlink_to((folder / "tmp").resolve())

    def environ(self) -> dict[str, str]:
        return {
            **super().environ(),
            "SSL_CERT_FILE": str(self._files.authority),
            "TMPDIR": str(self._tmp),
        }


class _Emulator(EmulatorProcess):
    def url(self, name: str) -> str:
        return f"https://{self.address}/{name}"


class Bed:
    """A host in debug mode, embedded environments, an emulator that wants secrets, and hostile environments.

    Args:
        folder: for everything.
        number: of canaries.
        seed: what all choices follow from.
    """

    def __init__(self, folder: Path, number: int, seed: int) -> None:
        self.folder = folder
        self.dice = random.Random(f"{seed}/operations")
        self.canaries = Canaries(random.Random(f"{seed}/canaries"))
        self.record = Record()
        self.operation = "setting up"
        self.runs: list[str] = []
        self.open: list[str] = []
        """Runs that may be unfinished."""
        self.tokens: list[tuple[str, str]] = []
        """Names and secrets of tokens that are good."""
        self.revoked: list[str] = []
        self.artifacts: list[str] = []
        self.old: list[str] = []
        """Artifacts of ``Attic``, the older one first."""
        self.addresses: frozenset[str] = frozenset()
        """Of webhooks, with secrets in them."""
        self._lock = threading.Lock()
        self._log_at: dict[Path, int] = {}
        self._own: set[str] = set()
        """Tokens and keys that have a file of their own."""
        self._pools: dict[Kind, list[Canary]] = {}
        self._turns: dict[str, int] = {}
        self._plant(number)
        self._tokens_limit = max(4, number // 8)
        files = certificates(folder / "inputs" / "tls")
        self.pem = [self._certificate() for _ in range(2)]
        self.clients = {f"00000000-0000-0000-0000-00000000000{n}": c for n, c in enumerate(self.right())}
        (folder / "inputs" / "clients").write_text(
            "".join(f"{client}={canary.text}\n" for client, canary in self.clients.items())
        )
        self._key = generate_private_key(SECP256R1())
        public = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(self._key.public_key()))
        keys = folder / "inputs" / "keys.json"
        keys.write_text(json.dumps({"keys": [{**public, "kid": "k", "use": "sig"}]}))
        self.jwts = [self._jwt(n) for n in range(6)]
        # What the emulator gives out begins like this, and is a secret while it is good.
        self.canaries.watch(Kind.ACCESS, "eyJ0eXAiOiJKV1QiLCJh", "token of the emulator")
        tls = ("--certificate", str(files.certificate), "--key", str(files.key), "--require-token")
        named = ("--clients", str(folder / "inputs" / "clients"))
        self.emulator = _Emulator(folder / "emulator", *SIGNED, options=(*tls, *named))
        self.behind = EmulatorProcess(folder / "behind", *ENVIRONMENTS, options=("--pace", "0.05"))
        issuer = ("--oidc-issuer", ISSUER, "--oidc-audience", AUDIENCE, "--oidc-keys", str(keys))
        self.host = _Host(folder / "host", files, "--log-level", "debug", *issuer)
        self._files = files
        self.hostile: Hostile | None = None
        self._channel: grpc.Channel | None = None
        self._watching: threading.Thread | None = None
        self._over = threading.Event()

    # Starting and stopping.

    def start(self) -> None:
        """Start everything and configure it."""
        for process in (self.emulator, self.behind):
            process.start()
        self.hostile = Hostile(
            self._files, f"http://{self.behind.address}", self.canaries, random.Random(self.dice.random())
        )
        self.host.start()
        self.admin = (self.host.data / "admin-token").read_text().strip()
        self._keep("admin-token", self.admin.encode(), Kind.TOKEN)
        self._keep("key", (self.host.data / "key").read_bytes(), Kind.KEY)
        self._connect()
        self._configure()
        self._watching = threading.Thread(target=self._watch_events, daemon=True)
        self._watching.start()

    def stop(self) -> None:
        """Stop everything."""
        self._over.set()
        if self._channel is not None:
            self._channel.close()
        self.host.kill()
        if self.hostile is not None:
            self.hostile.close()
        self.emulator.kill()
        self.behind.kill()

    def crash(self) -> None:
        """Kill the host, look at what it leaves, and start it again."""
        self.host.kill()
        self.files()
        self.host.start()
        self.processes()

    def rotate_key(self) -> None:
        """Stop the host, give it another key, and start it again."""
        self.host.stop()
        self.server("rotate-key")
        self._keep("key", (self.host.data / "key").read_bytes(), Kind.KEY)
        self.host.start()

    def new_admin_token(self) -> None:
        """Stop the host, make a new administrator's token, and start it again."""
        self.host.stop()
        self.server("new-admin-token")
        self.admin = (self.host.data / "admin-token").read_text().strip()
        self._keep("admin-token", self.admin.encode(), Kind.TOKEN)
        self.host.start()

    def server(self, command: str) -> None:
        """A command of the server on the stopped host's folder."""
        line = [sys.executable, "-m", "pipelinehost_server", command, "--data", str(self.host.data)]
        ended = subprocess.run(
            [*line, "--log-level", "debug"],
            capture_output=True,
            timeout=60,
            check=False,
            env=self.host.environ(),
        )
        if ended.returncode:
            self.trouble(f"{command} ended with {ended.returncode}: {ended.stderr[-300:]!r}")
        if command == "new-admin-token":
            self._keep("admin-token", (self.host.data / "admin-token").read_bytes(), Kind.TOKEN)
        self.heard(f"output of pipelinehost-server {command}", ended.stdout + b"\n" + ended.stderr)

    def _connect(self) -> None:
        options = [("grpc.max_receive_message_length", 16 * 2**20), ("grpc.max_reconnect_backoff_ms", 300)]
        self._channel = grpc.insecure_channel(self.host.address, options)
        self._stubs = (PipelineHostStub(self._channel), ArtifactsStub(self._channel))

    # Secrets.

    def _plant(self, number: int) -> None:
        share: dict[Kind, tuple[int, str]] = {
            Kind.CREDENTIAL: (1, "ascii"),
            Kind.REFUSED_CREDENTIAL: (4, ""),
            Kind.GUESS: (3, "ascii"),
            Kind.VALUE: (5, ""),
            Kind.REFUSED_VALUE: (4, ""),
            Kind.SECRET_VALUE: (3, "plain"),
            Kind.REFUSED_SECRET_VALUE: (2, ""),
            Kind.USERINFO: (3, ""),
            Kind.HEADER: (1, "ascii"),
            Kind.MISPLACED: (4, ""),
            Kind.ADDRESS: (2, ""),
            Kind.TEXT: (2, ""),
            Kind.REFUSED_TEXT: (1, ""),
        }
        for kind in share:
            self._pools[kind] = [self.canaries.plant(kind, style=share[kind][1])]
        kinds = list(share)
        weights = [weight for weight, _ in share.values()]
        for kind in self.dice.choices(kinds, weights, k=number - len(kinds)):
            if kind is Kind.CREDENTIAL and len(self._pools[kind]) == len(SIGNED):
                kind = Kind.REFUSED_CREDENTIAL
            self._pools[kind].append(self.canaries.plant(kind, style=share[kind][1]))

    def secret(self, kind: Kind) -> str:
        """One of the canaries of a kind, to be handed over now."""
        self.record.planted[kind] += 1
        return self.dice.choice(self._pools[kind]).text

    def turn(self, choices: Sequence[_T]) -> _T:
        """Of these the next one, each time that the same operation asks: a short run does not miss any."""
        where = f"{sys._getframe(1).f_code.co_name} {len(choices)}"
        self._turns.setdefault(where, self.dice.randrange(len(choices)))
        self._turns[where] += 1
        return choices[self._turns[where] % len(choices)]

    def right(self) -> list[Canary]:
        """The client secrets that the emulator accepts."""
        return self._pools[Kind.CREDENTIAL]

    def _certificate(self) -> str:
        pem = application()
        private = pem.partition("-----BEGIN RSA PRIVATE KEY-----")[2] or pem.partition("PRIVATE KEY-----")[2]
        for line in private.split("\n")[3:5]:
            self.canaries.watch(Kind.CERTIFICATE, line)
        return pem

    def _jwt(self, number: int) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE if number % 2 == 0 else "api://elsewhere",
            "sub": "ada" if number % 3 else "nobody",
            "iat": now,
            "exp": now + 3 * 3600 if number < 4 else now - 3600,
            "nonce": self.canaries.plant(Kind.JWT).text,
        }
        token = jwt.encode(claims, self._key, "ES256", headers={"kid": "k"})
        self.canaries.watch(Kind.JWT, token.rpartition(".")[2], "signature of a JWT")
        return token

    def _keep(self, file: str, content: bytes, kind: Kind) -> None:
        content = content.strip()
        self.canaries.watch(kind, content, f"what lies in {file}")
        with contextlib.suppress(binascii.Error):  # what is worked with is the bytes
            self.canaries.watch(kind, base64.b64decode(content, validate=True), f"the bytes of {file}")
        self._own.add(content.decode("latin-1"))

    # Calls.

    def call(
        self,
        method: str,
        request: Any,
        *,
        token: str | None = None,
        metadata: Sequence[tuple[str, str | bytes]] = (),
        seconds: float = 60,
        most: int = 10_000,
    ) -> Any:
        """The answer to a call, or None where it was refused; a list where the answer is a stream.

        Answers, errors, details and metadata are searched. ``token`` None is the administrator's; empty sends
        none.
        """
        stub = next(s for s in self._stubs if hasattr(s, method))
        bearer = self.admin if token is None else token
        sent = (*((("authorization", f"Bearer {bearer}"),) if bearer else ()), *metadata)
        surface = f"answer of {method}"
        try:
            found = getattr(stub, method)(request, metadata=sent, timeout=seconds, wait_for_ready=True)
            if isinstance(found, Message):
                self.message(surface, found)
                return found
            messages: list[Message] = []
            for message in found:
                self.message(surface, message)
                messages.append(message)
                if len(messages) == most:
                    found.cancel()
                    break
            self.heard(f"metadata of {method}", joined((found.initial_metadata(), found.trailing_metadata())))
            return messages
        except grpc.RpcError as error:
            self._refused(method, error)
            return None

    def _refused(self, method: str, error: Any) -> None:
        """Search what a refused call brought."""
        code = error.code()
        if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED):
            self.trouble(f"{method}: {code.name} {error.details()}")
        with self._lock:
            self.record.outcomes[f"call {code.name}"] += 1
        parts: list[object] = [code.name, error.details(), error.debug_error_string()]
        for key, value in (*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())):
            parts.append(f"{key}={value!r}")
            if key == "grpc-status-details-bin":
                status = Status.FromString(value)
                parts += [status, *(d.value.decode("utf-8", "replace") for d in status.details)]
        self.heard(f"error of {method}", joined(parts))

    def message(self, surface: str, message: Message) -> None:
        """Search a message, but for what its own fields are for."""
        settings: Iterable[Setting] = ()
        if isinstance(message, pipeline_host_pb2.CreateTokenResponse):
            kept = pipeline_host_pb2.CreateTokenResponse()
            kept.CopyFrom(message)
            with self._lock:
                self.canaries.watch(Kind.TOKEN, message.secret)
            kept.ClearField("secret")
            self.record.allowed["the secret in the answer to CreateToken"] += 1
            message = kept
        elif isinstance(message, pipeline_host_pb2.ValidateDeploymentResponse):
            settings = message.summary.settings
        elif isinstance(message, pipeline_host_pb2.DescribeSolutionResponse):
            settings = message.settings
        if any(s.value and s.type != "secret" for s in settings):
            copy = type(message)()
            copy.CopyFrom(message)
            mine: Any = copy
            for setting in mine.settings if hasattr(mine, "settings") else mine.summary.settings:
                if setting.type != "secret":
                    setting.ClearField("value")
            self.record.allowed["effective values that are no secrets"] += 1
            message = copy
        content = message.SerializeToString()
        if any(address.encode() in content for address in self.addresses):
            told = type(message).FromString(content)
            if self._without_addresses(told):
                self.record.allowed["the address of a webhook"] += 1
            content = told.SerializeToString()
        self.heard(surface, content)

    def _without_addresses(self, message: Message) -> bool:
        """Take addresses of webhooks out of the fields for them; whether there was one."""
        found = False
        for described, value in message.ListFields():
            if described.type == described.TYPE_MESSAGE:
                inner = value.values() if isinstance(value, Mapping) else value
                for one in inner if described.is_repeated else (value,):
                    found = (isinstance(one, Message) and self._without_addresses(one)) or found
            elif described.name == "webhook" and value in self.addresses:
                message.ClearField("webhook")
                found = True
        return found

    def upload(self, path: Path) -> str:
        """Upload a package; gives the artifact's name."""
        _, artifacts = self._stubs
        found = artifacts.UploadArtifact(
            iter(Upload(path)), metadata=(("authorization", f"Bearer {self.admin}"),)
        )
        self.message("answer of UploadArtifact", found)
        return str(found.name)

    def cli(
        self,
        *words: str,
        stdin: str = "",
        token: str | None = None,
        expect: Callable[[str], str] | None = None,
    ) -> str:
        """What the CLI writes to standard output.

        Args:
            words: the command.
            stdin: what it reads.
            token: the administrator's if None; empty for none, so that it finds its profile.
            expect: given the output, takes out of it what it may hold.
        """
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PIPELINEHOST_")}
        environment |= {"XDG_STATE_HOME": str(self.folder / "cli"), "COLUMNS": "200"}
        if token != "":
            environment["PIPELINEHOST_TOKEN"] = token or self.admin
        ended = subprocess.run(
            [sys.executable, "-c", _PROGRAM, "--host", self.host.address, *words],
            input=stdin.encode(),
            capture_output=True,
            timeout=120,
            check=False,
            env=environment,
        )
        name = " ".join(w for w in words[:2] if w.replace("-", "").isalpha())
        told = ended.stdout.decode()
        told = expect(told) if expect is not None else told
        for address in self.addresses:
            told = told.replace(f'"webhook": {json.dumps(address)}', "")
        with self._lock:
            self.record.outcomes[f"command line {ended.returncode}"] += 1
        if b"Traceback" in ended.stderr:
            self.trouble(f"pipelinehost {name} failed: {ended.stderr[-300:]!r}")
        self.heard(f"output of pipelinehost {name}", told.encode())
        self.heard(f"errors of pipelinehost {name}", ended.stderr)
        return told

    def _watch_events(self) -> None:
        """Everything that WatchEvents brings, over all restarts."""
        token = ""
        while not self._over.is_set():
            try:
                request = pipeline_host_pb2.WatchEventsRequest(resume_token=token, from_beginning=not token)
                for response in self._stubs[0].WatchEvents(
                    request, metadata=(("authorization", f"Bearer {self.admin}"),), wait_for_ready=True
                ):
                    token = response.resume_token
                    self.message("answer of WatchEvents", response)
            except (grpc.RpcError, ValueError) as error:  # ValueError: the channel is closed
                if isinstance(error, grpc.RpcError) and not self._over.is_set():
                    self._refused("WatchEvents", error)
                time.sleep(0.05)

    # Searching.

    def heard(self, surface: str, content: bytes) -> None:
        """Search what came out."""
        self._judge(surface, content, self.canaries.look(content))

    def _judge(self, surface: str, content: bytes, found: Sequence[Found]) -> None:
        with self._lock:
            self.record.answers[surface.partition(" ")[0]] += 1
            self.record.bytes[surface.partition(" ")[0]] += len(content)
            for one in found:
                exception = next(
                    (e for e in EXCEPTIONS if surface.startswith(e.surface) and one.canary.kind in e.kinds),
                    None,
                )
                if exception is not None:
                    self.record.allowed[exception.name] += 1
                    continue
                self.record.leaked += 1
                key = (surface, one.canary.kind)
                self.record.leaks.setdefault(key, Leak(surface, one.canary.label, one.how, self.operation))

    def trouble(self, what: str) -> None:
        """Something kept an operation from doing what it is for."""
        with self._lock:
            self.record.troubles[what] += 1

    def files(self, *, environments: bool = False) -> None:
        """Search the files of the host, of the CLI and of the log of the emulators.

        Args:
            environments: also what environments have written: most of it is theirs.
        """
        for root in (self.host.folder, self.folder / "cli", self.emulator.folder, self.behind.folder):
            for path in sorted(root.rglob("*")):
                if path.parent.name == "environments" and not environments:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if path.is_file():
                        self._file(path)
                        self.heard("name of a file", str(path.relative_to(self.folder)).encode())

    def database(self) -> None:
        """Unpack and search every cell of the host's database."""
        for table, content in self._cells():
            self.heard(f"database {table}", content)

    def _file(self, path: Path) -> None:
        surface = f"file {path.relative_to(self.folder)}"
        if path.name == "log":
            with path.open("rb") as file:
                file.seek(max(0, self._log_at.get(path, 0) - 4_000))
                content = file.read()
            self._log_at[path] = path.stat().st_size
            for start in range(0, len(content), 60_000):
                self.heard(surface, content[start : start + 64_000])
            return
        content = path.read_bytes()
        # Bytes first: a key is raw, and text counts more of them as blanks.
        if path.name in OWN_FILES and content.strip().decode("latin-1") in self._own:
            self.record.allowed["a file that holds a token or a key and nothing else"] += 1
            return
        found = self.canaries.skim(content)
        if "/blobs/" in surface:
            found = [*found, *self.canaries.look(content)]
        self._judge(surface, content, found)

    def _cells(self) -> Iterator[tuple[str, bytes]]:
        """Everything in the host's database, in pieces of tables; pages would cut long values."""
        copy = self.folder / "inputs" / "copy.db"
        for ending in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{self.host.data / 'pipelinehost.db'}{ending}", f"{copy}{ending}")
        with contextlib.closing(sqlite3.connect(copy)) as database:
            database.text_factory = bytes
            tables = [
                row[0].decode()
                for row in database.execute("SELECT name FROM sqlite_schema WHERE type='table'")
            ]
            for table in tables:
                piece = b""
                for row in database.execute(f'SELECT * FROM "{table}"'):
                    for cell in row:
                        piece += b"\n" + (cell if isinstance(cell, bytes) else str(cell).encode())
                    if len(piece) > 30_000:
                        yield table, piece
                        piece = b""
                yield table, piece
        for path in copy.parent.glob("copy.db*"):
            path.unlink()

    def processes(self) -> None:
        """Search what everybody on the machine sees of the host's process, and its environment variables."""
        folder = Path("/proc") / str(self.host.pid)
        for name in ("cmdline", "environ", "comm", "task"):
            path = folder / name
            if path.is_dir():
                content = b"\n".join(p.read_bytes() for p in path.glob("*/comm"))
            else:
                content = path.read_bytes()
            self.heard(f"process {name}", content.replace(b"\0", b"\n"))

    # Configuration and runs.

    def _configure(self) -> None:
        assert self.hostile is not None
        api = pipeline_host_pb2

        def create(name: str, kind: Environment.Kind, url: str = "", **sign_in: Any) -> None:
            told = SignIn(**sign_in) if sign_in else None
            self._must(
                "CreateEnvironment",
                api.CreateEnvironmentRequest(
                    environment=Environment(name=f"environments/{name}", kind=kind, url=url, sign_in=told)
                ),
            )

        create("dev", Environment.KIND_DEVELOPMENT)
        for name in (*EMBEDDED, *TOLD.values()):
            create(name, Environment.KIND_TARGET)
        application_ = {"method": SignIn.METHOD_CLIENT_SECRET, "tenant": TENANT}
        for name, client in zip(SIGNED, self.wanted(), strict=True):
            create(
                name,
                Environment.KIND_TARGET,
                self.emulator.url(name),
                **application_,
                client_id=client,
                authority=f"https://{self.emulator.address}",
            )
        for name in ENVIRONMENTS:
            tenant = ECHO if name == "echo-sign-in" else TENANT
            method = SignIn.METHOD_CERTIFICATE if name == "echo-failed" else SignIn.METHOD_CLIENT_SECRET
            create(
                name,
                Environment.KIND_TARGET,
                self.hostile.url(name),
                method=method,
                tenant=tenant,
                client_id=next(iter(self.clients)),
                authority=f"https://{self.hostile.address}",
            )
        for name, kind, role in (
            ("ada", Principal.KIND_PERSON, Principal.ROLE_MAKER),
            ("build", Principal.KIND_SERVICE, Principal.ROLE_VIEWER),
        ):
            identities = [Identity(issuer=ISSUER, subject=name)]
            self._must(
                "CreatePrincipal",
                api.CreatePrincipalRequest(
                    principal=Principal(
                        name=f"principals/{name}", kind=kind, role=role, identities=identities
                    )
                ),
            )
        for name in self.pipelines():
            self._must("CreatePipeline", api.CreatePipelineRequest(pipeline=self.pipeline(name)))
        for version in (1, 2, 3):
            self.artifacts.append(self.upload(self.package(version)))
        self.old = [self.upload(self.attic(version)) for version in (1, 2)]
        restored = self._must(
            "RestoreArtifact",
            api.RestoreArtifactRequest(
                artifact=self.upload(self.package(1, managed=False)), environment="environments/dev"
            ),
        )
        self.ran(restored)
        for name in (*SIGNED, *ENVIRONMENTS):
            self.give_right(name)
        for name in OWN:
            self.give_right_to_stage(name)
        self.hostile.bring("echo-names", self.attic(2).read_bytes())
        older = api.DeployRequest(pipeline=f"pipelines/{BACK}", artifact=self.old[0])
        self.ran(self._must("Deploy", older))

    def _must(self, method: str, request: Any) -> Any:
        answer = self.call(method, request)
        if answer is None:
            raise AssertionError(f"{method} was refused: {request}")
        return answer

    def wanted(self) -> list[str]:
        """For each of ``SIGNED`` the application that it is signed in to with."""
        known = list(self.clients)
        return [known[n % len(known)] for n in range(len(SIGNED))]

    def pipelines(self) -> dict[str, tuple[str, ...]]:
        """Pipelines and their targets; a stage has the name of its target."""
        single = {f"to-{name}": (name,) for name in (*SIGNED, *ENVIRONMENTS)}
        apart = {name: (environment,) for name, environment in {**OWN, **TOLD}.items()}
        return {"main": EMBEDDED, **single, **apart, BACK: EMBEDDED[:1], FROZEN: EMBEDDED[:1]}

    def stage(self, pipeline: str) -> str:
        """The first stage of a pipeline."""
        return f"pipelines/{pipeline}/stages/{self.pipelines()[pipeline][0]}"

    def pipeline(self, name: str, *webhooks: str) -> Pipeline:
        """A pipeline as it is configured, with gates that tell these addresses."""
        made = Pipeline(
            name=f"pipelines/{name}",
            development_environments=["environments/dev"],
            allow_redeployment=True,
            stages=[
                Stage(name=f"pipelines/{name}/stages/{s}", environment=f"environments/{s}")
                for s in self.pipelines()[name]
            ],
        )
        for kind, webhook in zip((Gate.KIND_APPROVAL, Gate.KIND_PRE_DEPLOYMENT), webhooks, strict=False):
            made.stages[0].gates.add(kind=kind, approvers=["principals/ada"], webhook=webhook)
        if name in OWN:
            made.stages[0].sign_in.CopyFrom(self._own_sign_in(name))
        return made

    def _own_sign_in(self, pipeline: str) -> SignIn:
        assert self.hostile is not None
        server = self.emulator if pipeline == "own-signed" else self.hostile
        return SignIn(
            method=SignIn.METHOD_CERTIFICATE
            if pipeline == "own-certificate"
            else SignIn.METHOD_CLIENT_SECRET,
            tenant=ECHO if pipeline in ("own-refused", "own-certificate") else TENANT,
            client_id=list(self.clients)[-1],
            authority=f"https://{server.address}",
        )

    def give_right_to_stage(self, pipeline: str) -> None:
        """Set the credential that belongs to a stage of ``OWN``."""
        request = pipeline_host_pb2.SetEnvironmentCredentialRequest(name=self.stage(pipeline))
        if pipeline == "own-certificate":
            request.certificate = self.dice.choice(self.pem)
            self.record.planted[Kind.CERTIFICATE] += 1
        else:
            request.client_secret = list(self.clients.values())[-1].text
            self.record.planted[Kind.CREDENTIAL] += 1
        self.call("SetEnvironmentCredential", request)

    @property
    def ada(self) -> str:
        """A token of a maker who approves what the administrator asks for."""
        return self.jwts[2]

    def give_right(self, name: str) -> None:
        """Set the credential that belongs to an environment."""
        request = pipeline_host_pb2.SetEnvironmentCredentialRequest(name=f"environments/{name}")
        if name == "echo-failed":
            request.certificate = self.dice.choice(self.pem)
            self.record.planted[Kind.CERTIFICATE] += 1
        else:
            client = self.wanted()[SIGNED.index(name)] if name in SIGNED else next(iter(self.clients))
            request.client_secret = self.clients[client].text
            self.record.planted[Kind.CREDENTIAL] += 1
        self.call("SetEnvironmentCredential", request)

    @functools.cache  # noqa: B019 - a bed lives as long as its process
    def package(self, version: int, *, managed: bool = True) -> Path:
        """A package that takes a value of every type."""
        variables = [
            EnvironmentVariable(name, name.removeprefix("cts_"), "", kind) for name, kind in VARIABLES.items()
        ]
        path = self.folder / "inputs" / f"vault-{version}-{managed}.zip"
        path.write_bytes(
            write(new_manifest("Vault", f"1.0.0.{version}", managed=managed), Table("cts_box"), *variables)
        )
        return path

    @functools.cache  # noqa: B019 - a bed lives as long as its process
    def attic(self, version: int) -> Path:
        """A package whose first version has less than its second one."""
        label = "what it was" if version == 1 else "what it is"
        variables = [EnvironmentVariable(name, label, "", kind) for name, kind in OLD_VARIABLES.items()]
        columns = tuple(Column(f"cts_{name}") for name in ("chest", "lamp")[:version])
        path = self.folder / "inputs" / f"attic-{version}.zip"
        made = new_manifest("Attic", f"{version}.0.0.0", managed=True)
        path.write_bytes(write(made, Table("cts_attic", columns=columns), *variables))
        return path

    def ran(self, run: Run | None) -> None:
        """A run was accepted; waits where too many are unfinished."""
        if run is None:
            return
        self.runs.append(run.name)
        self.open.append(run.name)
        while len(self.open) > _UNFINISHED:
            self.ended(self.open.pop(0))

    def ended(self, name: str, seconds: float = 90) -> Run | None:
        """Wait for a run's end."""
        until = time.monotonic() + seconds
        mend: float | None = time.monotonic() + 3
        run: Run | None = None
        while time.monotonic() < until:
            run = self.call("GetRun", pipeline_host_pb2.GetRunRequest(name=name))
            if run is None:
                return None
            if run.state >= Run.STATE_SUCCEEDED or run.state == Run.STATE_UNKNOWN:
                ended = Run.State.Name(run.state).removeprefix("STATE_")
                self.record.outcomes[f"run {ended} {run.error.code}".strip()] += 1
                if run.state == Run.STATE_UNKNOWN:  # after a kill; until somebody decides it has its target
                    decided = pipeline_host_pb2.ResolveRunRequest(name=name, reason="of no matter here")
                    decided.resolution = decided.RESOLUTION_NOT_APPLIED
                    self.call("ResolveRun", decided)
                return run
            if mend is not None and time.monotonic() > mend:
                mend = None
                # An import whose environment got a wrong credential meanwhile waits for a right one.
                for environment in SIGNED:
                    self.give_right(environment)
            time.sleep(0.05)
        state = Run.State.Name(run.state) if run is not None else ""
        where = run.stage if run is not None else ""
        self.trouble(f"a run to {where} was {state} after {seconds:g} s, in {self.operation}")
        return None

    def token_made(self, answer: Any) -> None:
        """A token was made; the oldest ones are revoked."""
        if answer is None:
            return
        self.tokens.append((answer.token.name, answer.secret))
        if len(self.tokens) > 4:
            name, secret = self.tokens.pop(0)
            self.call("RevokeToken", pipeline_host_pb2.RevokeTokenRequest(name=name))
            self.revoked.append(secret)

    @property
    def may_make_tokens(self) -> bool:
        """Whether another token can be watched for: each makes every search slower."""
        return len(self.tokens) + len(self.revoked) < self._tokens_limit

    def input(self, name: str, content: str) -> Path:
        """A file that the harness itself hands over."""
        path = self.folder / "inputs" / name
        path.write_text(content)
        return path


__all__ = ["EXCEPTIONS", "Bed", "Leak", "Record"]
