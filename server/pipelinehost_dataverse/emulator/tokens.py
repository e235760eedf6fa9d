"""Sign-in of applications: a token endpoint like Microsoft Entra's, and a guard that asks for its tokens.

The endpoint answers the client credentials flow (RFC 6749, section 4.4) with the addresses, members and error
codes of the Microsoft identity platform v2.0, and OpenID discovery as far as MSAL needs it to find the
endpoint. The tokens are JWTs that are signed with a key of this process; nobody but it can check them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pipelinehost_dataverse.emulator.face import APPLICATION, Application

SECONDS = 3599
"""How long a token is good, as at Microsoft Entra by default."""
_FORM_BYTES = 64 * 1024
_DEFAULT = "/.default"


def read_clients(path: Path) -> dict[str, str]:
    """Read the applications that may sign in: ``CLIENT_ID=SECRET`` a line; ``#`` begins a comment.

    Raises:
        ValueError: a line is not of that form, or there is none.
        OSError: the file cannot be read.
    """
    clients: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        client, sign, secret = line.strip().partition("=")
        if not sign or not client.strip() or not secret.strip():
            raise ValueError(f"line {number} of {path} is not CLIENT_ID=SECRET")
        clients[client.strip().lower()] = secret.strip()
    if not clients:
        raise ValueError(f"{path} names no application; write CLIENT_ID=SECRET on a line of its own")
    return clients


class Tokens:
    """Gives tokens to applications and tells whether a token is good.

    Args:
        clients: secrets by client id; None lets every application sign in with any secret or assertion.
        readers: client ids of applications that hold no privilege but to read.
        seconds: how long a token is good.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        clients: Mapping[str, str] | None = None,
        *,
        readers: Collection[str] = (),
        seconds: int = SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clients = clients
        self._readers = {client.lower() for client in readers}
        self._seconds = seconds
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self.routes = [
            Route("/{tenant}/oauth2/v2.0/token", self._token, methods=["POST"]),
            Route("/{tenant}/v2.0/.well-known/openid-configuration", self._discovery),
        ]

    def issue(self, client: str, audience: str, tenant: str) -> str:
        """A token for an application and an audience like ``https://127.0.0.1:8443``."""
        at = int(self._clock())
        claims = {
            "aud": audience,
            "iss": f"{audience}/{tenant}/v2.0",
            "iat": at,
            "nbf": at,
            "exp": at + self._seconds,
            "appid": client,
            "oid": str(uuid.uuid5(uuid.NAMESPACE_URL, client)),
            "tid": tenant,
            "ver": "2.0",
        }
        body = f"{_base64({'typ': 'JWT', 'alg': 'HS256'})}.{_base64(claims)}"
        return f"{body}.{self._signature(body)}"

    def defect(self, token: str, origin: str, prefix: str) -> str:
        """What is wrong with a token for the environment at ``origin`` + ``prefix``; empty: nothing."""
        body, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._signature(body).encode(), signature.encode("utf-8", "replace")):
            return "the token was not issued by this emulator since it was started"
        claims = _claims(token)
        if claims["exp"] <= self._clock():
            return "the token has expired"
        if claims["aud"] not in (origin, origin + prefix):
            return f"the token is for {claims['aud']}, not for {origin}"
        return ""

    def guard(self, app: ASGIApp, tenant: str) -> ASGIApp:
        """The application behind a guard that answers 401 to calls without a good token."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                refusal = self._refusal(Request(scope), tenant)
                if refusal is not None:
                    await refusal(scope, receive, send)
                    return
                client = _claims(_bearer(Request(scope)))["appid"].lower()
                scope = {**scope, APPLICATION: Application(client, client in self._readers)}
            await app(scope, receive, send)

        return guarded

    def _refusal(self, request: Request, tenant: str) -> Response | None:
        token = _bearer(request)
        error = ""
        if token:
            defect = self.defect(token, _origin(request), request.scope.get("root_path", ""))
            if not defect:
                return None
            error = f"error=invalid_token, error_description=Error during token validation: {defect}, "
        where = _origin(request)
        challenge = f"Bearer {error}authorization_uri={where}/{tenant}/oauth2/authorize, resource_id={where}/"
        return PlainTextResponse(
            "HTTP Error 401 - Unauthorized: Access is denied",
            status_code=401,
            headers={"WWW-Authenticate": challenge},
        )

    async def _token(self, request: Request) -> Response:
        content = b""
        async for piece in request.stream():
            content += piece
            if len(content) > _FORM_BYTES:
                return _refused(413, "invalid_request", 900144, "The request is too large.")
        form = dict(parse_qsl(content.decode("utf-8", "replace"), keep_blank_values=True))
        for name in ("grant_type", "client_id", "scope"):
            if not form.get(name):
                return _refused(
                    400,
                    "invalid_request",
                    900144,
                    f"The request body must contain the following parameter: '{name}'.",
                )
        if form["grant_type"] != "client_credentials":
            return _refused(
                400,
                "unsupported_grant_type",
                70003,
                f"The app requested an unsupported grant type '{form['grant_type']}'; "
                "this emulator has client_credentials only.",
            )
        wrong = self._wrong_client(form)
        if wrong:
            return _refused(401, "invalid_client", *wrong)
        audience = form["scope"].removesuffix(_DEFAULT).rstrip("/")
        found = urlsplit(audience)
        if not form["scope"].endswith(_DEFAULT) or " " in form["scope"]:
            return _refused(
                400,
                "invalid_scope",
                1002012,
                f"The provided value for scope {form['scope']} is not valid. Client credential flows must "
                "have a scope value with /.default suffixed to the resource identifier.",
            )
        if f"{found.scheme}://{found.netloc}" != _origin(request):
            return _refused(
                400,
                "invalid_resource",
                500011,
                f"The resource principal named {audience} was not found; environments of this emulator are "
                f"below {_origin(request)}.",
            )
        token = self.issue(form["client_id"], audience, request.path_params["tenant"])
        return JSONResponse(
            {
                "token_type": "Bearer",
                "expires_in": self._seconds,
                "ext_expires_in": self._seconds,
                "access_token": token,
            },
            headers={"Cache-Control": "no-store"},
        )

    def _wrong_client(self, form: Mapping[str, str]) -> tuple[int, str] | None:
        given = form.get("client_secret") or form.get("client_assertion")
        if not given:
            return 7000218, "The request body must contain 'client_assertion' or 'client_secret'."
        if self._clients is None:
            return None
        expected = self._clients.get(form["client_id"].lower())
        if expected is None:
            return 700016, f"Application with identifier '{form['client_id']}' was not found."
        secret = form.get("client_secret", "").encode()
        if not hmac.compare_digest(secret, expected.encode()):
            return 7000215, f"Invalid client secret provided for the app '{form['client_id']}'."
        return None

    async def _discovery(self, request: Request) -> Response:
        base = f"{_origin(request)}/{request.path_params['tenant']}"
        return JSONResponse(
            {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
                "response_types_supported": ["token"],
                "subject_types_supported": ["pairwise"],
            }
        )

    def _signature(self, body: str) -> str:
        found = hmac.new(self._key, body.encode("utf-8", "replace"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(found).rstrip(b"=").decode()


def _bearer(request: Request) -> str:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _claims(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=="))
    return claims


def _origin(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}"


def _base64(content: Mapping[str, object]) -> str:
    text = json.dumps(content, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def _refused(status: int, error: str, code: int, message: str) -> Response:
    return JSONResponse(
        {"error": error, "error_description": f"AADSTS{code}: {message}", "error_codes": [code]},
        status_code=status,
        headers={"Cache-Control": "no-store"},
    )
