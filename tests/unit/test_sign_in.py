"""Signing in, with azure-identity itself, at a token endpoint over https on this machine."""

from __future__ import annotations

import asyncio
import html
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import pytest
from starlette.applications import Starlette
from tests.authority import application, certificates

from pipelinehost_dataverse import sign_in
from pipelinehost_dataverse.emulator import serving, tokens
from pipelinehost_dataverse.sign_in import Method, SignIn, SignInFailed, Tokens, certificate_problem
from pipelinehost_dataverse.webapi import (
    AccessDenied,
    EnvironmentUnreachable,
    NotFound,
    Policy,
    WebApi,
    network,
)

CANARY = "s3cret~canary+of/this=test"
CLIENT = "01234567-89ab-cdef-0123-456789abcdef"


@dataclass
class Endpoint:
    """A token endpoint, and what it was asked."""

    origin: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    delay: float = 0.0
    answered: int = 0
    seconds: int = 3600
    broken: int = 0
    """Status to answer with in place of a token."""

    def count(self) -> int:
        return sum(path.endswith("/token") for _, path in self.asked)

    def how(self, method: Method = Method.CLIENT_SECRET, **fields: Any) -> SignIn:
        made = SignIn(method, "contoso.onmicrosoft.com", CLIENT, self.origin, CANARY)
        return replace(made, **fields)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    files = certificates(tmp_path_factory.mktemp("tls"))
    found = Endpoint()
    inner = Starlette(routes=tokens.Tokens({CLIENT: CANARY}).routes)
    lax = Starlette(routes=tokens.Tokens(None).routes)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.asked.append((scope["method"], scope["path"]))
        if scope["path"].endswith("/token"):
            await asyncio.sleep(found.delay)
            found.answered += 1
            if found.broken:
                await send({"type": "http.response.start", "status": found.broken, "headers": []})
                await send({"type": "http.response.body", "body": b"no"})
                return
        await (lax if "/certificate/" in scope["path"] else inner)(scope, receive, send)

    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    found.origin = f"https://127.0.0.1:{listening.getsockname()[1]}"
    server = serving.server(app, files.certificate, files.key)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(files.authority))
        network._trust.cache_clear()
        yield found
        network._trust.cache_clear()
    server.should_exit = True
    thread.join(10)
    listening.close()


@pytest.fixture(autouse=True)
def fresh(endpoint: Endpoint) -> None:
    endpoint.asked.clear()
    endpoint.delay, endpoint.answered, endpoint.broken = 0.0, 0, 0


def scope(endpoint: Endpoint) -> str:
    return f"{endpoint.origin}/.default"


async def test_a_token_is_got_once_and_kept(endpoint: Endpoint) -> None:
    source = Tokens(endpoint.how)
    first = await source(scope(endpoint))
    assert first.count(".") == 2
    assert await source(scope(endpoint)) == first
    assert endpoint.count() == 1


async def test_many_who_need_a_token_at_once_sign_in_once(endpoint: Endpoint) -> None:
    source = Tokens(endpoint.how)
    endpoint.delay = 0.2
    found = await asyncio.gather(*(source(scope(endpoint)) for _ in range(20)))
    assert (len(set(found)), endpoint.count()) == (1, 1)


async def test_a_refused_token_is_not_given_again(endpoint: Endpoint) -> None:
    """Whatever azure-identity has kept."""
    source = Tokens(endpoint.how)
    await source(scope(endpoint))
    await source(scope(endpoint), renew=True)
    assert endpoint.count() == 2
    await source(scope(endpoint))
    assert endpoint.count() == 2


async def test_a_token_is_renewed_before_it_ends(endpoint: Endpoint) -> None:
    now = time.time()
    clock = [now]
    source = Tokens(endpoint.how, clock=lambda: clock[0])
    first = await source(scope(endpoint))
    clock[0] = now + tokens.SECONDS - 400
    assert await source(scope(endpoint)) == first
    clock[0] = now + tokens.SECONDS - 200
    await source(scope(endpoint))  # azure-identity may keep it a little longer; it was asked
    assert source._tokens[scope(endpoint)].renew_at > 0


async def test_each_audience_has_its_token(endpoint: Endpoint) -> None:
    """The connectivity address of a cloud has one of its own, and never gets the environment's token."""
    asked: list[str] = []

    async def source(scope: str, *, renew: bool = False) -> str:
        asked.append(scope)
        return f"token-for-{scope}"

    seen: dict[str, str] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        seen[str(request.url)] = request.headers["authorization"]
        if request.url.path.endswith("WhoAmI"):
            ids = dict.fromkeys(("UserId", "BusinessUnitId", "OrganizationId"), CLIENT)
            return httpx.Response(200, json=ids)
        return httpx.Response(200, json={"value": []})

    beside = "https://0123456789abcdef.01.environment.api.powerplatform.com"
    home = "https://org.crm4.dynamics.com"
    async with WebApi(
        home, connectivity_url=beside, token=source, transport=httpx.MockTransport(answer)
    ) as web:
        await web.who_am_i()
        await web.connections()
    assert asked == [f"{home}/.default", "https://api.powerplatform.com/.default"]
    for url, sent in seen.items():
        audience = home if url.startswith(home) else "https://api.powerplatform.com"
        assert sent == f"Bearer token-for-{audience}/.default"


async def test_a_changed_secret_counts_at_once(endpoint: Endpoint) -> None:
    now = [endpoint.how(secret="wrong")]
    source = Tokens(lambda: now[0])
    with pytest.raises(SignInFailed):
        await source(scope(endpoint))
    now[0] = endpoint.how()
    await source(scope(endpoint))
    now[0] = endpoint.how(secret="wrong again")
    with pytest.raises(SignInFailed):
        await source(scope(endpoint))
    now[0] = endpoint.how()
    before = endpoint.count()
    await source(scope(endpoint))
    assert endpoint.count() == before + 1, "a token of another identity is not kept"


@pytest.mark.parametrize(
    ("fields", "words", "remedy"),
    [
        ({"secret": "canary-that-is-wrong"}, "AADSTS7000215", "client secret is wrong"),
        ({"client_id": CLIENT.replace("0", "9")}, "AADSTS700016", "correct client_id or tenant"),
        ({"secret": ""}, "client secret", "Correct the sign-in"),
        ({"tenant": "not a tenant"}, "nvalid tenant", "Correct the sign-in"),
        (
            {"method": Method.CERTIFICATE, "secret": "no PEM canary"},
            "PEM",
            "Correct the sign-in",
        ),
    ],
)
async def test_what_is_wrong_is_told_with_a_remedy(
    endpoint: Endpoint, fields: dict[str, Any], words: str, remedy: str
) -> None:
    with pytest.raises(SignInFailed, match=words) as refused:
        await Tokens(lambda: endpoint.how(**fields))(scope(endpoint))
    assert isinstance(refused.value, AccessDenied)
    assert remedy in refused.value.remedy
    assert refused.value.message.isprintable()
    assert "canary" not in str(refused.value) + refused.value.remedy
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("fields", "mends"),
    [
        ({"secret": "canary-that-is-wrong"}, True),
        ({"secret": ""}, True),
        ({"client_id": "9" + CLIENT[1:]}, False),
    ],
)
async def test_how_another_secret_is_set_is_told_where_that_mends_it(
    endpoint: Endpoint, fields: dict[str, Any], mends: bool
) -> None:
    with pytest.raises(SignInFailed) as refused:
        await Tokens(lambda: endpoint.how(remedy="Set it.", **fields))(scope(endpoint))
    assert refused.value.remedy.endswith(" Set it.") is mends


async def test_an_environment_that_the_tenant_does_not_know(endpoint: Endpoint) -> None:
    with pytest.raises(SignInFailed, match="AADSTS500011") as refused:
        await Tokens(endpoint.how)("https://other.crm4.dynamics.com/.default")
    assert "correct its address" in refused.value.remedy


async def test_an_authority_that_is_not_there_is_unreachable(endpoint: Endpoint) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"https://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(EnvironmentUnreachable, match="sign-in service could not be reached"):
            await Tokens(lambda: endpoint.how(authority=nobody))(scope(endpoint))


async def test_an_authority_that_hangs_is_given_up(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in, "_WHOLE_SECONDS", 0.2)
    endpoint.delay = 1.0
    with pytest.raises(EnvironmentUnreachable, match="took longer"):
        await Tokens(endpoint.how)(scope(endpoint))
    assert (endpoint.count(), endpoint.answered) == (1, 0)


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in, "trust", lambda: httpx.create_ssl_context(trust_env=False))
    with pytest.raises(EnvironmentUnreachable, match="could not be reached"):
        await Tokens(endpoint.how)(scope(endpoint))
    assert endpoint.asked == []


async def test_an_environment_that_nobody_vouches_for_is_not_asked(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def token(scope: str, *, renew: bool = False) -> str:
        return "token"

    policy = Policy(retry_budget=0)
    async with WebApi(f"{endpoint.origin}/qa", token=token, policy=policy) as web:
        with pytest.raises(NotFound):  # it is asked, and has no Web API
            await web.who_am_i()
    endpoint.asked.clear()
    monkeypatch.setattr(network, "trust", lambda: httpx.create_ssl_context(trust_env=False))
    async with WebApi(f"{endpoint.origin}/qa", token=token, policy=policy) as web:
        with pytest.raises(EnvironmentUnreachable, match="certificate verify failed"):
            await web.who_am_i()
    assert endpoint.asked == []


def test_a_token_does_not_go_over_plain_http() -> None:
    async def token(scope: str, *, renew: bool = False) -> str:
        return "token"

    for url, beside in (("http://127.0.0.1:1", None), ("https://127.0.0.1:1", "http://127.0.0.1:1")):
        with pytest.raises(ValueError, match="plain http"):
            WebApi(url, connectivity_url=beside, token=token)


async def test_an_application_with_a_certificate(endpoint: Endpoint) -> None:
    pem = application()
    assert certificate_problem(pem) == ""
    how = endpoint.how(Method.CERTIFICATE, secret=pem, tenant="certificate")
    assert (await Tokens(lambda: how)(scope(endpoint))).count(".") == 2


async def test_no_developer_and_no_managed_identity_here(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SignInFailed) as refused:
        await Tokens(lambda: SignIn(Method.DEVELOPER))(scope(endpoint))
    assert "az login" in refused.value.remedy
    # A managed identity is where the machine says; here that is a port that nobody listens on.
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:1/token")
    monkeypatch.setenv("IDENTITY_HEADER", "canary")
    with pytest.raises((SignInFailed, EnvironmentUnreachable)) as failed:
        await Tokens(lambda: SignIn(Method.MANAGED_IDENTITY))(scope(endpoint))
    assert "canary" not in str(failed.value)


async def test_nothing_of_a_proxy_is_taken_from_the_process(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    assert await Tokens(endpoint.how)(scope(endpoint))


@pytest.mark.parametrize("level", [logging.DEBUG])
async def test_the_secret_is_in_no_log_and_no_repr(
    endpoint: Endpoint, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(level)
    source = Tokens(endpoint.how)
    token = await source(scope(endpoint))
    with pytest.raises(SignInFailed):
        await Tokens(lambda: endpoint.how(client_id=CLIENT.replace("0", "9")))(scope(endpoint))
    told = caplog.text + repr(endpoint.how()) + repr(vars(source))
    assert CANARY not in told
    assert token not in told


@pytest.mark.parametrize("written", [str, quote, quote_plus, json.dumps, html.escape])
def test_a_secret_that_the_service_repeats_is_not_told(
    endpoint: Endpoint, written: Callable[[str], str]
) -> None:
    error = ValueError(f"client_secret={written(CANARY)} is wrong. Trace ID: 1")
    told = sign_in._told(error, endpoint.how())
    assert told.replace('"', "") == "client_secret=… is wrong."


PROBLEMS: list[tuple[Callable[[str], str], str]] = [
    (lambda pem: pem.partition("-----BEGIN RSA PRIVATE")[0], "no private key"),
    (lambda pem: "-----BEGIN RSA PRIVATE" + pem.partition("-----BEGIN RSA PRIVATE")[2], "no certificate"),
    (lambda pem: pem.replace("MII", "XXX"), "no certificate"),
    (lambda _: "", "no certificate"),
    (
        lambda pem: (
            pem.partition("-----BEGIN RSA PRIVATE")[0]
            + "-----BEGIN RSA PRIVATE"
            + application().partition("-----BEGIN RSA PRIVATE")[2]
        ),
        "does not belong",
    ),
]


@pytest.mark.parametrize(("spoil", "words"), PROBLEMS)
def test_certificates_that_cannot_be_used(spoil: Callable[[str], str], words: str) -> None:
    problem = certificate_problem(spoil(application()))
    assert words in problem
    assert "MII" not in problem
