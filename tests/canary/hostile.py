"""Environments that repeat in their answers whatever secret they were sent; so do sign-in and webhooks."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import random
import ssl
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote

import httpx
from tests.authority import Certificates
from tests.canary.canaries import Canaries, Kind

from pipelinehost_dataverse.webapi import MARK

ENVIRONMENTS = ("echo-refused", "echo-failed", "echo-running", "echo-token", "echo-sign-in", "echo-names")
"""What each repeats secrets in: the refusal of an import, the result of one, its progress, the refusal of any
call (the token of the call), the refusal to sign in, and the names of its components and of the host that it
belongs to (the token)."""
WEBHOOKS = ("taken", "failing", "moved", "denied", "broken", "no-http")
"""How each answers, repeating its address and what it was told: with 200, 500, 307, 401, a header that is
none, and bytes that are no HTTP."""


class Hostile:
    """Serves ``ENVIRONMENTS`` over https. Behind each is an emulator: all but the echo is as it should be.

    Args:
        files: to serve https with.
        behind: address of the emulator.
        canaries: told of the tokens that are given out.
        dice: chooses how a secret is written down.
    """

    def __init__(self, files: Certificates, behind: str, canaries: Canaries, dice: random.Random) -> None:
        self.behind = behind
        self.canaries = canaries
        self.dice = dice
        self.echoes = 0
        """Answers with a secret in them."""
        self.given: dict[str, list[str]] = {}
        """What came with the last import, by environment."""
        self.told: Counter[str] = Counter()
        """Webhooks that were told, of ``WEBHOOKS``."""
        self.taken: set[str] = set()
        """Environments that belong to another host until they are taken over."""
        self.issued: list[str] = []
        self.asserted: list[str] = []
        self.upstream = httpx.Client(timeout=30)
        hostile = self

        class Handler(_Handler):
            world = hostile

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self.upstream.close()

    def url(self, name: str) -> str:
        """Address of one of ``ENVIRONMENTS``."""
        return f"https://{self.address}/{name}"

    def bring(self, name: str, package: bytes) -> None:
        """Import a package into one of ``ENVIRONMENTS``, as somebody does who is no host."""
        body = {
            "CustomizationFile": base64.b64encode(package).decode(),
            "OverwriteUnmanagedCustomizations": False,
            "PublishWorkflows": True,
            "ImportJobId": str(uuid.uuid4()),
        }
        answer = self.upstream.post(f"{self.behind}/{name}/api/data/v9.2/ImportSolution", json=body)
        answer.raise_for_status()

    def webhook(self, way: str, secret: str) -> str:
        """Address of one of ``WEBHOOKS``, with a secret in its path or its query."""
        written = quote(secret, safe="")
        return f"https://{self.address}/hooks/{way}" + (
            f"/{written}" if self.dice.random() < 0.3 else f"?team=a&sig={written}"
        )

    def quoted(self, secret: str) -> str:
        """A secret as a careless program would put it into its words."""
        self.echoes += 1
        ways = (
            str,
            lambda s: json.dumps(s, ensure_ascii=False),
            json.dumps,
            html.escape,
            lambda s: quote(s, safe=""),
            quote,
            repr,
        )
        return self.dice.choice(ways)(secret)


class _Handler(BaseHTTPRequestHandler):
    world: Hostile
    protocol_version = "HTTP/1.1"

    def __getattr__(self, name: str) -> Callable[[], None]:
        """The base class asks for ``do_GET`` and the like."""
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def log_message(self, *_: object) -> None:
        return

    def _answer(self) -> None:
        with contextlib.suppress(OSError, httpx.HTTPError):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path.endswith("/oauth2/v2.0/token"):
                self._token(body)
            elif self.path.startswith("/hooks/"):
                self._webhook(body)
            elif "/.well-known/" in self.path or "/discovery/" in self.path:
                self._document()
            else:
                self._environment(body)

    def _webhook(self, body: bytes) -> None:
        way = self.path.split("/")[2].partition("?")[0]
        address = f"https://{self.world.address}{self.path}"
        secret = unquote(self.path.rpartition("=")[2] if "=" in self.path else self.path.rpartition("/")[2])
        said = f"{address} with {self.world.quoted(secret)}, and {body.decode()}"
        self.world.told[way] += 1
        if way in ("broken", "no-http"):
            head = f"HTTP/1.1 200 OK\r\n{quote(secret)} {address}" if way == "broken" else said
            self.wfile.write(f"{head}\r\n\r\n".encode())
            self.close_connection = True
            return
        status = {"taken": 200, "failing": 500, "moved": 307, "denied": 401}[way]
        where = address.replace("//", f"//user:{quote(secret, safe='')}@")
        headers = {
            "Location": where,
            "WWW-Authenticate": f'Bearer error="invalid_token", error_description="{quote(secret)}"',
            "Retry-After": quote(secret),
            "Set-Cookie": f"sig={quote(secret)}",
        }
        self._send(status, {"error": {"code": quote(secret), "message": f"refused {said}"}}, headers)

    def _token(self, body: bytes) -> None:
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        secret = form.get("client_secret") or form.get("client_assertion") or "-"
        if "client_assertion" in form and len(self.world.asserted) < 5:
            self.world.asserted.append(secret)
            self.world.canaries.watch(
                Kind.ACCESS, secret.rpartition(".")[2], "signed assertion of an application"
            )
        if "echo-sign-in" in self.path:
            said = self.world.quoted(secret)
            self._send(
                401,
                {
                    "error": "invalid_client",
                    "error_description": f"AADSTS7000215: Invalid client secret {said} provided, "
                    f"in the form {body.decode()}. Trace ID: 1",
                    "error_codes": [7000215],
                },
                {"X-Seen": quote(secret)},
            )
            return
        token = (
            self.world.canaries.plant(Kind.ACCESS, style="plain").text
            if len(self.world.issued) < 8
            else self.world.dice.choice(self.world.issued)
        )
        self.world.issued.append(token)
        # Short, so that there are many of them.
        self._send(200, {"token_type": "Bearer", "expires_in": 60, "access_token": token})

    def _document(self) -> None:
        here = f"https://{self.world.address}{self.path.partition('/.well-known/')[0]}"
        tenant = here.removesuffix("/v2.0")
        self._send(
            200,
            {
                "issuer": f"{tenant}/v2.0",
                "token_endpoint": f"{tenant}/oauth2/v2.0/token",
                "authorization_endpoint": f"{tenant}/oauth2/v2.0/authorize",
                "jwks_uri": f"{tenant}/discovery/v2.0/keys",
                "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
            },
        )

    def _environment(self, body: bytes) -> None:
        name = self.path.split("/")[1]
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        imports = self.command == "POST" and any(
            w in self.path for w in ("ImportSolution", "StageAndUpgrade")
        )
        if imports:
            sent = json.loads(body).get("ComponentParameters") or []
            self.world.given[name] = [str(p["value"]) for p in sent if "value" in p]
        said = ", ".join(self.world.quoted(v) for v in self.world.given.get(name, ()))
        if self.command == "PATCH" and "environmentvariabledefinitions(" in self.path:
            self.world.taken.discard(name)  # the mark is the only one that the host changes
        if name == "echo-token" and "/api/" in self.path:
            self._refuse(403, f"The token {self.world.quoted(bearer)} may not do this; got Bearer {bearer}")
        elif imports and name == "echo-refused":
            self._refuse(400, f"The values {said} are not valid here.")
        else:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("authorization", "host")}
            answer = self.world.upstream.request(
                self.command, f"{self.world.behind}{self.path}", content=body, headers=headers
            )
            content = answer.content.replace(
                self.world.behind.encode(), f"https://{self.world.address}".encode()
            )
            if answer.is_success and content.startswith(b"{") and said:
                content = json.dumps(self._spoilt(name, json.loads(content), said)).encode()
            if answer.is_success and content.startswith(b"{") and name == "echo-names":
                content = json.dumps(self._named(name, json.loads(content), bearer)).encode()
            extra = {"Date": answer.headers["Date"], "X-Echo": quote(bearer), "Set-Cookie": f"t={bearer}"}
            self._send(answer.status_code, content, extra)

    def _spoilt(self, name: str, row: dict[str, Any], said: str) -> dict[str, Any]:
        if name == "echo-running" and "asyncoperations(" in self.path and row.get("statecode") != 3:
            row |= {"message": f"now at {said}", "friendlymessage": f"now at {said}"}
        if name != "echo-failed":
            return row
        if "asyncoperations(" in self.path and row.get("statecode") == 3:
            row |= {
                "statuscode": 31,
                "errorcode": -2147188706,
                "message": f"Failed with {said}",
                "friendlymessage": f"The value {said} is not valid.",
            }
        if "importjobs(" in self.path and row.get("data"):
            row["data"] = (
                '<importexportxml succeeded="failure" processed="true"><entities>'
                f'<entity LocalizedName="Order"><result result="failure" errorcode="0x80040216" '
                f'errortext="{html.escape(said)}"/></entity></entities></importexportxml>'
            )
        return row

    def _named(self, name: str, row: dict[str, Any], bearer: str) -> dict[str, Any]:
        """The same with names that repeat the token of the call."""
        for one in row.get("value", ()) if isinstance(row.get("value"), list) else ():
            if "msdyn_displayname" in one:
                one["msdyn_displayname"] = f"Bearer {self.world.quoted(bearer)}"
            if MARK in unquote(self.path) and name in self.world.taken and "defaultvalue" in one:
                host = {k: self.world.quoted(bearer) for k in ("store", "host", "time")}
                one["defaultvalue"] = json.dumps(host)
        return row

    def _refuse(self, status: int, message: str) -> None:
        self._send(status, {"error": {"code": "0x80040216", "message": message}}, {"X-Echo": quote(message)})

    def _send(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status, "See " + quote(json.dumps(headers or {}))[:200])
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
