"""120 addresses that lead where no environment is: a host, asked over its API, connects to none of them.

Every connection that Python makes is seen by an audit hook, whichever library makes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from tests.rpc.conftest import Bed

from pipelinehost import errors
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import Environment, SignIn
from pipelinehost_dataverse.webapi import DataverseError, Policy, WebApi

INSIDE = [
    *("10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.254", "192.168.0.1", "192.168.255.255"),
    *("169.254.169.254", "169.254.0.1", "169.254.170.2", "168.63.129.16", "100.64.0.1", "100.100.100.200"),
    *("0.0.0.0", "0.1.2.3", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
]
INSIDE_6 = [
    *("::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "100::1"),
    *("::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0.0.0.0"),
    *("64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "2001:0:a9fe:a9fe::1"),
]
LITERAL = [
    *(f"https://{ip}" for ip in INSIDE),
    *(f"http://{ip}" for ip in INSIDE[::2]),
    *(f"https://[{ip}]" for ip in INSIDE_6),
    *(f"http://[{ip}]" for ip in INSIDE_6[::2]),
]
ODD = [
    *("http://2130706433", "https://2852039166", "http://0x7f000001", "http://0x7f.1", "http://0177.0.0.1"),
    *("https://0xa9fea9fe", "https://0251.0376.0251.0376", "http://127.1", "http://0", "https://10.1"),
    *("http://127.0.0.1.nip.io", "http://localhost.evil.example", "https://localtest.me"),
    *("https://metadata.google.internal", "http://metadata", "https://kubernetes.default.svc"),
    *("https://evil.example", "https://dynamics.com.evil.example", "https://evildynamics.com"),
    *("https://dynamics.com", "https://org.crm4.dynamics.com.", "https://org.crm4.dynamics.com:22"),
    *(
        "https://org.crm4.dynamics.com:8443",
        "https://org.crm4.dynamics.com/../x",
        "https://org.dynamics.com/x",
    ),
    *("https://org.crm4.dynamics.com@10.0.0.1", "https://10.0.0.1#.dynamics.com"),
    *(
        "https://10.0.0.1?.dynamics.com",
        "https://10.0.0.1\\.dynamics.com",
        "https://10.0.0.1%2f.dynamics.com",
    ),
    *(
        "http://org.crm4.dynamics.com",
        "ftp://org.crm4.dynamics.com",
        "file:///etc/passwd",
        "gopher://10.0.0.1",
    ),
    *("//10.0.0.1", "10.0.0.1", "https://", "https://10.0.0.1\r\nHost: x.dynamics.com"),
    *("https://user:canary@org.crm4.dynamics.com", "https://１０.0.0.1", "https://ⓔvil.example"),
]
REFUSED = [*LITERAL, *ODD]
"""Refused when they are given, whatever their names lead to."""
NAMED = {
    f"https://n{n}.crm4.dynamics.com": ip for n, ip in enumerate([*INSIDE, *INSIDE_6, "127.0.0.1", "::1"])
}
"""Names that may be given, and where they lead."""

_connected: list[Any] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and _connected is not None:
        _connected.append(arguments[1])


@contextmanager
def connections() -> Iterator[list[Any]]:
    """What this process connects to; an audit hook cannot be taken out again, so it is put in once."""
    global _connected
    if not getattr(sys, "_pipelinehost_hook", False):
        sys.addaudithook(_hook)
        sys._pipelinehost_hook = True  # type: ignore[attr-defined]  # says that the hook is in
    _connected = []
    try:
        yield _connected
    finally:
        _connected = None


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch, bed: Bed) -> list[str]:
    """Every name leads to where ``NAMED`` says, on the host's loop and everywhere else."""
    asked: list[str] = []

    def found(host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else str(host)
        asked.append(name)
        ip = NAMED.get(f"https://{name}", "10.9.8.7")
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (ip, int(port or 0)))]

    async def on_loop(host: Any, port: Any, **_: Any) -> list[Any]:
        return found(host, port)

    async def token(*_: Any, **__: Any) -> str:
        return "canary-token"

    monkeypatch.setattr(socket, "getaddrinfo", found)
    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", lambda _, *a, **k: on_loop(*a, **k))
    monkeypatch.setattr("pipelinehost_dataverse.sign_in.Tokens.__call__", token)
    return asked


def create(bed: Bed, url: str, name: str = "hostile", **fields: Any) -> Environment:
    wanted = Environment(name=f"environments/{name}", kind=Environment.KIND_TARGET, url=url, **fields)
    if url.lower().startswith("https"):
        wanted.sign_in.method = SignIn.METHOD_MANAGED_IDENTITY
    made: Environment = bed.call("CreateEnvironment", api.CreateEnvironmentRequest(environment=wanted))
    return made


def test_there_are_120_of_them() -> None:
    assert len({*REFUSED, *NAMED}) >= 120


def test_the_hook_sees_connections() -> None:
    """Blocking, on a loop, and through httpx."""
    with socket.create_server(("127.0.0.1", 0)) as listening, connections() as seen:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            pass

        async def ask() -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
            async with httpx.AsyncClient(timeout=0.2, trust_env=False) as client:
                with contextlib.suppress(httpx.HTTPError):
                    await client.get(f"http://127.0.0.1:{port}")

        asyncio.run(ask())
        assert seen == [("127.0.0.1", port)] * 3


def test_hostile_addresses_are_refused_by_the_host(bed: Bed, looked_up: list[str]) -> None:
    with connections() as seen:
        for url in REFUSED:
            with pytest.raises(errors.InvalidArgument) as refused:
                create(bed, url)
            subjects = {v.subject for v in refused.value.violations}
            assert subjects & {"environment.url", "environment.sign_in"}, url
            assert "canary" not in str(refused.value)
            with pytest.raises(errors.InvalidArgument):
                create(bed, "https://org.crm4.dynamics.com", connectivity_url=url)
        made = create(bed, "https://org.crm4.dynamics.com", "org")
        for url in REFUSED:
            made.url = url
            with pytest.raises(errors.InvalidArgument):
                bed.call("UpdateEnvironment", api.UpdateEnvironmentRequest(environment=made))
    assert seen == []
    assert looked_up == [], "nobody is even asked where these names lead"


def test_names_that_lead_inside_are_not_connected_to(bed: Bed, looked_up: list[str]) -> None:
    with connections() as seen:
        for number, url in enumerate(NAMED):
            create(bed, url, f"e{number}", connectivity_url=url)
            name = f"environments/e{number}"
            health = bed.call("CheckEnvironment", api.CheckEnvironmentRequest(name=name))
            assert [f.code for f in health.findings] == ["ENVIRONMENT_UNREACHABLE"], url
            assert "not on the public network" in health.findings[0].cause, url
            assert not health.reachable
            for method, request in (
                ("ListSolutions", api.ListSolutionsRequest(environment=name)),
                ("ListConnections", api.ListConnectionsRequest(environment=name)),
            ):
                with pytest.raises(errors.Unavailable):
                    bed.call(method, request)
    assert seen == []
    assert len(looked_up) == 3 * len(NAMED), "each was looked up once for each question, and not again"


def test_the_harness_would_see_a_connection_inside(
    bed: Bed, looked_up: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the policy taken out the very same question connects."""
    monkeypatch.setattr("pipelinehost_dataverse.webapi.network.is_public", lambda _: True)
    monkeypatch.setattr("pipelinehost_server.deployment.environments._CHECK_SECONDS", 0.5)
    url = next(url for url, ip in NAMED.items() if ip == "127.0.0.1")
    create(bed, url, "inside")
    with connections() as seen:
        bed.call("CheckEnvironment", api.CheckEnvironmentRequest(name="environments/inside"))
    assert ("127.0.0.1", 443) in seen


async def test_the_connector_alone_refuses_them_too() -> None:
    with connections() as seen:
        for url in REFUSED:
            try:
                web = WebApi(url, policy=Policy(retry_budget=0, connect_seconds=0.2, read_seconds=0.2))
            except ValueError:
                continue
            async with web:
                with pytest.raises(DataverseError):
                    await web.who_am_i()
    assert seen == []
