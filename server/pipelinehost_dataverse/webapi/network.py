"""Which addresses may be asked, and a transport that connects nowhere else (no redirects, no proxies)."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import ssl
import threading

import httpx

from pipelinehost_dataverse.webapi.errors import EnvironmentUnreachable

FORBIDDEN_ADDRESS = "ForbiddenAddress"
"""Code of ``EnvironmentUnreachable`` where a name leads to an address that is not public."""

PUBLIC_CLOUDS = (
    ".dynamics.com",
    ".dynamics.cn",
    ".microsoftdynamics.us",
    ".appsplatform.us",
    ".api.powerplatform.com",
    ".api.powerplatform.partner.microsoftonline.cn",
    ".api.gov.powerplatform.microsoft.us",
    ".api.high.powerplatform.microsoft.us",
    ".api.appsplatform.us",
)
"""Where real environments live: the endings of their host names, in every cloud of the vendor."""

_AZURE_HOST = ipaddress.ip_address("168.63.129.16")
"""A public number that inside Azure leads to the machine's own host (its metadata and its agents)."""


def is_loopback(host: str) -> bool:
    """Whether a host name or literal address means this machine; nothing is looked up."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # An IPv4 address in IPv6 clothes is loopback to some versions of Python and not to others: never here.
    return address.is_loopback and (address.version == 4 or str(address) == "::1")


@functools.lru_cache(8192)  # a new environment is compared with all that there are
def environment_address(text: str, *, anywhere: bool = False) -> httpx.URL:
    """Read the address of an environment, without a slash at its end.

    An https address must be a host of ``PUBLIC_CLOUDS`` on port 443 without a path. On this machine, where
    emulators are, it may have any port and path, and may be plain http. ``anywhere`` lifts both, for a
    transport that does not use the network.

    Raises:
        ValueError: not such an address; the message says what is wrong with it.
    """
    # First of all, since what follows may quote the address: these parts may hold secrets.
    if "@" in text:
        raise ValueError("the address of an environment has no user name, and so no @")
    if "?" in text or "#" in text:
        raise ValueError("the address of an environment has no query and no fragment")
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ValueError(f"{text!r} is no address: {error}") from error
    if url.scheme not in {"http", "https"} or not url.host or not 0 < (url.port or 1) < 65536:
        raise ValueError(f"{text!r} is no http or https address")
    if ".." in text or "%" in text or "\\" in text:
        raise ValueError(f"the path of {text!r} is not plain")
    if not anywhere and not is_loopback(url.host):
        if url.scheme != "https":
            raise ValueError(f"{text!r} must begin with https:// (plain http is for this machine only)")
        if not url.host.endswith(PUBLIC_CLOUDS) or url.port not in {None, 443} or url.path not in {"", "/"}:
            raise ValueError(
                f"{text!r} is not the address of a Power Platform environment (like https://org.crm4.dynamics.com)"
            )
    return url.copy_with(path=url.path.rstrip("/") or "/")


def is_public(address: str) -> bool:
    """Whether an IP address is on the public network; one wrapped in IPv6 is judged by what is inside."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        elif ip.sixtofour or ip.teredo or ip in ipaddress.ip_network("64:ff9b::/96"):
            return False  # a translated address hides where it leads; no environment needs one
    return ip.is_global and not ip.is_multicast and ip != _AZURE_HOST


_trusting = threading.Lock()


def trust() -> ssl.SSLContext:
    """What the certificates of environments and of sign-in services are checked with.

    Those that this machine trusts (``SSL_CERT_FILE`` counts), so that a company can add its own, and those of
    certifi, for machines that have none. It is made once: reading them takes tens of milliseconds.
    """
    with _trusting:
        return _trust()


@functools.cache
def _trust() -> ssl.SSLContext:
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


class NetworkTransport(httpx.AsyncBaseTransport):
    """Connects to public addresses over https, or to loopback.

    A name is looked up once per request and the connection goes to the very address that was checked, so a
    name that changes between check and use gains nothing. TLS still checks the name.
    """

    def __init__(self, connect_seconds: float) -> None:
        self._connect_seconds = connect_seconds
        # one pool per host name: two names at one address must not share a connection made for the other
        self._pools: dict[str, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request.

        Raises:
            EnvironmentUnreachable: with the code ``FORBIDDEN_ADDRESS``; nothing was sent.
        """
        host = request.url.host
        pool = self._pools.get(host)
        if pool is None:
            made = httpx.AsyncHTTPTransport(
                verify=await asyncio.to_thread(trust),
                trust_env=False,
                limits=httpx.Limits(max_connections=20, max_keepalive_connections=5),
            )
            pool = self._pools.setdefault(host, made)
        if is_loopback(host):
            pass
        elif request.url.scheme == "https":
            address = await self._public_address(host, request)
            request.extensions = {**request.extensions, "sni_hostname": host}
            request.url = request.url.copy_with(host=address)
        else:
            raise EnvironmentUnreachable("plain http is for this machine only", code=FORBIDDEN_ADDRESS)
        return await pool.handle_async_request(request)

    async def _public_address(self, host: str, request: httpx.Request) -> str:
        try:
            async with asyncio.timeout(self._connect_seconds):
                found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise httpx.ConnectTimeout(f"looking up {host} took too long", request=request) from error
        except OSError as error:
            raise httpx.ConnectError(f"{host} cannot be looked up: {error}", request=request) from error
        addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
        if not addresses:
            raise httpx.ConnectError(f"{host} has no address", request=request)
        # all of them: a name that leads to both sides is an attack or a mistake, and never an environment
        if not all(is_public(address) for address in addresses):
            raise EnvironmentUnreachable(
                f"{host} leads to an address that is not on the public network; it is not asked",
                code=FORBIDDEN_ADDRESS,
            )
        return addresses[0]

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()
        self._pools.clear()
