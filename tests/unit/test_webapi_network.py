"""Which addresses an environment may have, and where a connection really goes."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

import httpx
import pytest
from tests.unit.scripted import INTENT, WHO, Time

from pipelinehost_dataverse.webapi import (
    AnswerLost,
    EnvironmentUnreachable,
    Policy,
    WebApi,
)
from pipelinehost_dataverse.webapi.network import (
    FORBIDDEN_ADDRESS,
    NetworkTransport,
    environment_address,
    is_public,
)


@pytest.mark.parametrize(
    "good",
    [
        "https://org.crm4.dynamics.com",
        "https://org.crm4.dynamics.com:443/",
        "https://ORG.crm9.dynamics.com",
        "https://org.crm.microsoftdynamics.us",
        "https://0123.4.environment.api.powerplatform.com",
        "http://127.0.0.1:8080/qa",
        "http://[::1]:8080",
        "http://localhost:8080/qa/",
    ],
)
def test_addresses_of_environments(good: str) -> None:
    assert not str(environment_address(good)).endswith("//")


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "org.crm4.dynamics.com",
        "ftp://org.crm4.dynamics.com",
        "file:///etc/passwd",
        "http://org.crm4.dynamics.com",
        "https://evil.example",
        "https://dynamics.com.evil.example",
        "https://evildynamics.com",
        "https://org.crm4.dynamics.com.",
        "https://org.crm4.dynamics.com:8443",
        "https://org.crm4.dynamics.com/api",
        "https://org.crm4.dynamics.com?x=.dynamics.com",
        "https://evil.example/?.dynamics.com",
        "https://evil.example#.dynamics.com",
        "https://org.crm4.dynamics.com@evil.example",
        "https://user:pass@org.crm4.dynamics.com",
        "https://user@org.crm4.dynamics.com",
        "https://evil.example\\.dynamics.com",
        "https://127.0.0.1.evil.example",
        "https://2130706433",
        "https://0x7f000001",
        "https://[::ffff:127.0.0.1]",
        "https://[::ffff:169.254.169.254]",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1",
        "http://2130706433",
        "http://0",
        "http://[::ffff:10.0.0.1]",
        "http://127.0.0.1:8080/../x",
        "http://127.0.0.1:8080/%2e%2e/x",
        "http://localhost.evil.example",
        "http://localhost:99999",
    ],
)
def test_addresses_that_are_none(bad: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        environment_address(bad)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("20.50.1.1", True),
        ("2603:1020::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:20.50.1.1", True),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:7f00:1::", False),
        ("168.63.129.16", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


class Resolver:
    """Answers look-ups; every connection that would be made is counted by ``socket.connect``'s stand-in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *rounds: Iterable[str]) -> None:
        self.rounds = [list(r) for r in rounds]
        self.asked = 0
        loop = asyncio.get_running_loop()

        async def getaddrinfo(*_: object, **__: object) -> list[Any]:
            found = self.rounds[min(self.asked, len(self.rounds) - 1)]
            self.asked += 1
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 0)) for a in found]

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)


async def test_a_name_that_leads_inside_is_never_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for inside in (["169.254.169.254"], ["20.50.1.1", "10.0.0.1"], ["::ffff:127.0.0.1"]):
        resolver = Resolver(monkeypatch, inside)
        pools: list[object] = []
        monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", lambda *a, p=pools: p.append(a))
        clock = Time()
        async with WebApi("https://org.crm4.dynamics.com", policy=clock.policy()) as web:
            with pytest.raises(EnvironmentUnreachable, match="not on the public network") as caught:
                await web.who_am_i()
        assert caught.value.code == FORBIDDEN_ADDRESS
        assert caught.value.operation == "GET WhoAmI"
        assert (resolver.asked, pools, clock.slept) == (1, [], [])


async def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch, ["20.50.1.1"], ["127.0.0.1"])  # rebinding: the second answer is inside
    seen: list[httpx.Request] = []

    async def send(_: object, request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=WHO)

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", send)
    async with WebApi("https://org.crm4.dynamics.com", policy=Time().policy()) as web:
        await web.who_am_i()
        assert resolver.asked == 1
        with pytest.raises(EnvironmentUnreachable):
            await web.who_am_i()
    assert len(seen) == 1
    assert seen[0].url.host == "20.50.1.1"
    assert seen[0].headers["host"] == "org.crm4.dynamics.com"
    assert seen[0].extensions["sni_hostname"] == "org.crm4.dynamics.com"


async def test_plain_http_leads_to_this_machine_only() -> None:
    transport = NetworkTransport(1)
    with pytest.raises(EnvironmentUnreachable):
        await transport.handle_async_request(httpx.Request("GET", "http://20.50.1.1/"))
    await transport.aclose()


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        policy = Policy(read_seconds=0.2, retry_budget=0)
        async with WebApi(f"http://127.0.0.1:{port}/qa", policy=policy) as web:
            with pytest.raises(AnswerLost):
                await web.who_am_i()
        accepted, _ = listener.accept()
        assert accepted.recv(100).startswith(b"GET /qa/api/data/v9.2/WhoAmI HTTP/1.1")
        accepted.close()


async def test_nobody_listening_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    clock = Time()
    async with WebApi(f"http://127.0.0.1:{port}", policy=clock.policy(retry_budget=3)) as web:
        with pytest.raises(EnvironmentUnreachable):
            await web.start_import(b"zip", INTENT)
    assert clock.slept


def test_the_loopback_literals_are_not_public() -> None:
    assert not any(is_public(str(a)) for a in ipaddress.ip_network("127.0.0.0/29"))
