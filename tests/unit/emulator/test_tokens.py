"""Signing in: who gets a token, and which token is taken."""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelinehost_dataverse.emulator import EmbeddedEnvironment
from pipelinehost_dataverse.emulator.__main__ import main
from pipelinehost_dataverse.emulator.serving import application
from pipelinehost_dataverse.emulator.tokens import Tokens, read_clients

ORIGIN = "https://127.0.0.1:8443"
FORM = {
    "grant_type": "client_credentials",
    "client_id": "App-1",
    "client_secret": "s&cret=",
    "scope": f"{ORIGIN}/.default",
}


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def server(tmp_path: Path, clock: Clock) -> AsyncIterator[httpx.AsyncClient]:
    clients = {"app-1": "s&cret=", "app-2": "s&cret=", "looker": "s&cret="}
    tokens = Tokens(clients, readers=["Looker"], seconds=100, clock=clock)
    with (
        EmbeddedEnvironment.open(tmp_path / "qa.sqlite", name="qa") as qa,
        EmbeddedEnvironment.open(tmp_path / "dev.sqlite", name="dev") as dev,
    ):
        app = application({"qa": qa, "dev": dev}, tokens, require_token=True)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            yield client


async def signed_in(server: httpx.AsyncClient, **changed: str) -> str:
    answer = await server.post("/contoso/oauth2/v2.0/token", data={**FORM, **changed})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["token_type"] == "Bearer"
    assert answer.json()["expires_in"] == 100
    token: str = answer.json()["access_token"]
    return token


async def who(server: httpx.AsyncClient, token: str | None, environment: str = "qa") -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return await server.get(f"/{environment}/api/data/v9.2/WhoAmI", headers=headers)


def claims(token: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return found


async def test_a_token_opens_what_it_was_asked_for(server: httpx.AsyncClient) -> None:
    token = await signed_in(server)
    assert (await who(server, token)).status_code == 200
    assert (await who(server, token, "dev")).status_code == 200
    connections = await server.get(
        "/qa/connectivity/connections?api-version=1", headers={"Authorization": f"bearer {token}"}
    )
    assert connections.status_code == 200
    assert claims(token)["aud"] == ORIGIN
    assert (claims(token)["appid"], claims(token)["tid"]) == ("App-1", "contoso")
    one = await signed_in(server, scope=f"{ORIGIN}/qa/.default")
    assert (await who(server, one)).status_code == 200
    assert (await who(server, one, "dev")).status_code == 401


async def asked(server: httpx.AsyncClient, token: str, method: str, path: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return await server.request(method, f"/qa/api/data/v9.2/{path}", headers=headers)


async def test_each_application_is_a_user_of_its_own(server: httpx.AsyncClient) -> None:
    tokens = [await signed_in(server, client_id=c) for c in ("App-1", "app-1", "app-2")]
    users = [(await who(server, t)).json()["UserId"] for t in tokens]
    assert users[0] == users[1] != users[2], "upper and lower case mean the same application"
    for token in (tokens[0], tokens[2]):
        # The one before is still under way. No event tells when an operation ends: it can only be asked.
        while (  # noqa: ASYNC110  # as the line above says
            answer := await asked(server, token, "POST", "PublishAllXmlAsync")
        ).status_code == 429:
            await asyncio.sleep(0.02)
        assert answer.status_code == 200
    rows = (await asked(server, tokens[0], "GET", "asyncoperations?$select=_createdby_value")).json()["value"]
    assert [row["_createdby_value"] for row in rows] == [users[0], users[2]]
    rows = (await asked(server, tokens[0], "GET", "systemusers?$select=fullname,applicationid")).json()[
        "value"
    ]
    assert {row["applicationid"] for row in rows} == {None, "app-1", "app-2"}
    elsewhere = (await who(server, tokens[0], "dev")).json()["UserId"]
    assert elsewhere not in users, "an environment has users of its own"


async def test_a_reader_looks_and_does_nothing(server: httpx.AsyncClient) -> None:
    token = await signed_in(server, client_id="looker")
    user = (await who(server, token)).json()["UserId"]
    refused = await asked(server, token, "POST", "PublishAllXmlAsync")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "0x80040220")
    function = "Microsoft.Dynamics.CRM.RetrieveUserPrivilegeByPrivilegeName(PrivilegeName=@p)"
    for privilege, held in (("prvImportCustomization", 0), ("prvReadWorkflow", 1)):
        answer = await asked(server, token, "GET", f"systemusers({user})/{function}?@p='{privilege}'")
        assert len(answer.json()["RolePrivileges"]) == held


async def test_a_reader_has_no_way_round(server: httpx.AsyncClient) -> None:
    """Neither beside the Web API, nor by a function that changes something, nor within a batch."""
    token, maker = await signed_in(server, client_id="looker"), await signed_in(server)
    connections = "/qa/connectivity/connections"
    made = {"name": "mine", "properties": {"apiId": "/providers/Microsoft.PowerApps/apis/shared_sql"}}
    for who_asks, status in ((token, 403), (maker, 201)):
        headers = {"Authorization": f"Bearer {who_asks}"}
        answer = await server.post(f"{connections}?api-version=1", json=made, headers=headers)
        assert answer.status_code == status
    headers = {"Authorization": f"Bearer {token}"}
    assert (await server.delete(f"{connections}/mine?api-version=1", headers=headers)).status_code == 403
    seen = (await server.get(f"{connections}?api-version=1", headers=headers)).json()["value"]
    assert [connection["name"] for connection in seen] == ["mine"]
    function = f"RemoveActiveCustomizations(SolutionComponentName='Entity',ComponentId={uuid.uuid4()})"
    assert (await asked(server, token, "GET", function)).status_code == 403
    requests = ("GET /qa/api/data/v9.2/WhoAmI", "POST /qa/api/data/v9.2/PublishAllXmlAsync")
    parts = [f"--b\r\nContent-Type: application/http\r\n\r\n{r} HTTP/1.1\r\n\r\n\r\n" for r in requests]
    batch = await server.post(
        "/qa/api/data/v9.2/$batch",
        content="".join(parts) + "--b--\r\n",
        headers={**headers, "Content-Type": "multipart/mixed; boundary=b"},
    )
    assert batch.text.count("HTTP/1.1 200") == batch.text.count("HTTP/1.1 403") == 1


def test_a_reader_without_tokens_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--data", str(tmp_path), "--environment", "qa", "--reader", "looker"])
    assert ended.value.code == 2
    assert "--reader needs --require-token" in capsys.readouterr().err


async def test_without_a_token_the_answer_says_where_there_are_some(server: httpx.AsyncClient) -> None:
    for path in ("api/data/v9.2/WhoAmI", "connectivity/connections?api-version=1", "elsewhere"):
        answer = await server.get(f"/qa/{path}")
        assert answer.status_code == 401
        challenge = answer.headers["www-authenticate"]
        assert challenge.startswith(f"Bearer authorization_uri={ORIGIN}/")
        assert challenge.endswith(f"/oauth2/authorize, resource_id={ORIGIN}/")
    basic = await server.get("/qa/api/data/v9.2/WhoAmI", headers={"Authorization": "Basic eDp5"})
    assert basic.status_code == 401


async def test_a_token_ends(server: httpx.AsyncClient, clock: Clock) -> None:
    token = await signed_in(server)
    clock.now += 99
    assert (await who(server, token)).status_code == 200
    clock.now += 1
    answer = await who(server, token)
    assert answer.status_code == 401
    assert "error=invalid_token" in answer.headers["www-authenticate"]
    assert "expired" in answer.headers["www-authenticate"]


async def test_tokens_of_others_are_not_taken(server: httpx.AsyncClient, clock: Clock) -> None:
    token = await signed_in(server)
    head, body, signature = token.split(".")
    longer = {**claims(token), "exp": 2_000_000_000}
    forged = base64.urlsafe_b64encode(json.dumps(longer).encode()).rstrip(b"=").decode()
    another = Tokens(clock=clock).issue("App-1", ORIGIN, "contoso")
    elsewhere = Tokens(clock=clock)
    for wrong in ("", "x", "..", f"{head}.{forged}.{signature}", f"{head}.{body}.", another, "é.é.é"):
        headers = {b"Authorization": f"Bearer {wrong}".encode()}
        answer = await server.get("/qa/api/data/v9.2/WhoAmI", headers=headers)
        assert answer.status_code == 401, wrong
    issued = elsewhere.issue("App-1", "https://other.example", "contoso")
    assert "is for https://other.example" in elsewhere.defect(issued, ORIGIN, "/qa")


@pytest.mark.parametrize(
    ("changed", "status", "error", "words"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client", "AADSTS7000215"),
        ({"client_secret": ""}, 401, "invalid_client", "AADSTS7000218"),
        ({"client_secret": "", "client_assertion": "x.y.z"}, 401, "invalid_client", "AADSTS7000215"),
        ({"client_id": "app-3"}, 401, "invalid_client", "AADSTS700016"),
        ({"client_id": ""}, 400, "invalid_request", "'client_id'"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", "'password'"),
        ({"scope": f"{ORIGIN}/user_impersonation"}, 400, "invalid_scope", "/.default"),
        ({"scope": "https://org.crm.dynamics.com/.default"}, 400, "invalid_resource", ORIGIN),
        ({"scope": "x" * 70_000}, 413, "invalid_request", "too large"),
    ],
)
async def test_others_get_no_token(
    server: httpx.AsyncClient, changed: dict[str, str], status: int, error: str, words: str
) -> None:
    answer = await server.post("/contoso/oauth2/v2.0/token", data={**FORM, **changed})
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert words in answer.json()["error_description"]
    assert "s&cret=" not in answer.text


async def test_discovery_names_the_endpoint(server: httpx.AsyncClient) -> None:
    found = (await server.get("/contoso/v2.0/.well-known/openid-configuration")).json()
    assert found["token_endpoint"] == f"{ORIGIN}/contoso/oauth2/v2.0/token"
    assert found["issuer"].startswith(f"{ORIGIN}/contoso")


async def test_without_a_list_every_application_may_sign_in(tmp_path: Path) -> None:
    with EmbeddedEnvironment.open(tmp_path / "qa.sqlite", name="qa") as qa:
        app = application({"qa": qa}, Tokens(), require_token=False)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN) as client:
            form = {**FORM, "client_secret": "", "client_assertion": "x.y.z"}
            answer = await client.post("/t/oauth2/v2.0/token", data=form)
            assert answer.json()["expires_in"] == 3599
            assert (await who(client, None)).status_code == 200
            assert (await who(client, "anything")).status_code == 200


def test_the_list_of_applications_is_read(tmp_path: Path) -> None:
    path = tmp_path / "clients"
    path.write_text("# ours\n\nApp-1 = a=b#c \n")
    assert read_clients(path) == {"app-1": "a=b#c"}
    path.write_text("App-1\n")
    with pytest.raises(ValueError, match=r"line 1 of .* is not CLIENT_ID=SECRET"):
        read_clients(path)
    path.write_text("# none\n")
    with pytest.raises(ValueError, match="names no application"):
        read_clients(path)
