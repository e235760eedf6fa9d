"""Signing in to real environments: tokens of Microsoft Entra, got by azure-identity.

Only https environments need this module; azure-identity is imported when the first token is asked for.
"""

from __future__ import annotations

import asyncio
import enum
import re
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from pipelinehost_dataverse.webapi.errors import AccessDenied, EnvironmentUnreachable, plain, without
from pipelinehost_dataverse.webapi.network import is_loopback, trust

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken
    from azure.identity import (
        CertificateCredential,
        ChainedTokenCredential,
        ClientSecretCredential,
        ManagedIdentityCredential,
    )

    _Credential = (
        CertificateCredential | ChainedTokenCredential | ClientSecretCredential | ManagedIdentityCredential
    )

AUTHORITIES = (
    "https://login.microsoftonline.com",
    "https://login.microsoftonline.us",
    "https://login.partner.microsoftonline.cn",
)
"""Where applications sign in: the public cloud first, then the vendor's others."""

_CONNECT_SECONDS, _READ_SECONDS, _WHOLE_SECONDS = 10, 20, 60
_SPARE_SECONDS = 300.0
"""A token is renewed so long before it ends, or when a tenth of its life is left."""
_AT_ONCE = 32
# Threads of its own: a sign-in that hangs must not keep packages from being read. They are made when needed.
_threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="sign-in")

_REMEDIES = {
    "AADSTS7000215": "The client secret is wrong: set the secret's value (not its id) as the credential.",
    "AADSTS7000222": "The client secret has expired: make a new one and set it as the credential.",
    "AADSTS700016": "The tenant does not know the application: correct client_id or tenant.",
    "AADSTS700027": "The application does not know the certificate: upload its public part there.",
    "AADSTS90002": "There is no such tenant: correct it.",
    "AADSTS500011": "The tenant does not know this environment: correct its address or the tenant.",
}
"""What to do, by the code in Entra's message (learn.microsoft.com: AADSTS error codes)."""
_WRONG_SECRET = {"AADSTS7000215", "AADSTS7000222"}
"""Those that another secret mends."""


class Method(enum.Enum):
    """Whose identity is used."""

    CLIENT_SECRET = "an application with a client secret"  # noqa: S105 - words, no secret
    CERTIFICATE = "an application with a certificate"
    MANAGED_IDENTITY = "the machine's managed identity"
    DEVELOPER = "the developer who is signed in on this machine"


@dataclass(frozen=True, slots=True)
class SignIn:
    """How to sign in."""

    method: Method
    tenant: str = ""
    client_id: str = ""
    authority: str = ""
    """Empty means the public cloud's."""
    secret: str = field(default="", repr=False)
    """The client secret, or certificate and private key as PEM."""
    remedy: str = ""
    """How another secret is set; told where this one may be wrong."""


_REMEDY = {
    Method.CLIENT_SECRET: "Correct the sign-in or its client secret.",
    Method.CERTIFICATE: "Correct the sign-in or its certificate.",
    Method.MANAGED_IDENTITY: "Give the host's machine a managed identity, or choose another method.",
    Method.DEVELOPER: "Sign in on the host's machine with `az login` or `azd auth login`, as its user.",
}
"""What to do otherwise."""


class SignInFailed(AccessDenied):
    """There is no token: the identity or its secret is not accepted, or is not there at all."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy
        """What to do about it."""


class Tokens:
    """A ``TokenSource``: signs in when a token is needed, and keeps it until shortly before it ends.

    Args:
        sign_in: gives what holds now, on the loop; asked at each call, so that a changed secret counts at
            once. It may raise ``SignInFailed``.
        clock: seconds since 1970.
    """

    def __init__(self, sign_in: Callable[[], SignIn], clock: Callable[[], float] = time.time) -> None:
        self._sign_in = sign_in
        self._clock = clock
        self._with: SignIn | None = None
        self._tokens: dict[str, _Token] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def __call__(self, scope: str, *, renew: bool = False) -> str:
        """A token for ``scope``; ``renew`` says that the last one was refused.

        Raises:
            SignInFailed: the identity is not accepted; the message and the remedy never hold the secret.
            EnvironmentUnreachable: the sign-in service cannot be reached.
        """
        known = self._known(scope)
        if known is not None and not renew and self._clock() < known.renew_at:
            return known.text
        async with self._turns.setdefault(scope, asyncio.Lock()):
            newer = self._known(scope)
            if newer is not None and newer is not known and self._clock() < newer.renew_at:
                return newer.text  # somebody else got it while we waited for our turn
            how = self._with
            assert how is not None  # noqa: S101 - _known has set it
            try:
                async with asyncio.timeout(_WHOLE_SECONDS):
                    found = await asyncio.get_running_loop().run_in_executor(_threads, _get, how, scope)
            except TimeoutError as error:
                raise EnvironmentUnreachable(
                    f"signing in took longer than {_WHOLE_SECONDS} seconds"
                ) from error
            now = self._clock()
            spare = min(_SPARE_SECONDS, (found.expires_on - now) / 10)
            token = _Token(found.token, found.expires_on - spare)
            if how == self._with:
                self._tokens[scope] = token
            return token.text

    def _known(self, scope: str) -> _Token | None:
        how = self._sign_in()
        if how != self._with:
            self._with, self._tokens = how, {}
        return self._tokens.get(scope)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    renew_at: float = 0.0


def authority_problem(authority: str, url: str) -> str:
    """What is wrong with the authority of an environment at ``url``, or nothing.

    A secret is sent there, so that it must be one of ``AUTHORITIES``. One on loopback is for environments on
    loopback only, which is how the emulator is signed in to.
    """
    if not authority or authority.rstrip("/") in AUTHORITIES:
        return ""
    try:
        here, there = httpx.URL(authority), httpx.URL(url)
    except httpx.InvalidURL:
        return "is not an address"
    plain_address = not (here.userinfo or here.query or here.fragment)
    if here.scheme == "https" and is_loopback(here.host) and is_loopback(there.host) and plain_address:
        return ""
    return f"is none of {', '.join(AUTHORITIES)}"


def certificate_problem(pem: str) -> str:
    """What keeps a PEM text from being used to sign in, or nothing; never a part of the text."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = pem.encode()
    try:
        certificate = x509.load_pem_x509_certificate(content)
    except ValueError:
        return "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"
    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        return "holds a private key with a passphrase: take the passphrase off, the host encrypts it itself"
    except ValueError:
        return "holds no private key in PEM (-----BEGIN PRIVATE KEY-----)"
    if not isinstance(key, rsa.RSAPrivateKey):
        return "holds a private key that is not RSA, which Microsoft Entra does not take"
    if key.public_key() != certificate.public_key():
        return "holds a private key that does not belong to its first certificate"
    return ""


# What follows runs in a thread.


def _get(how: SignIn, scope: str) -> AccessToken:
    from azure.core.exceptions import AzureError, ClientAuthenticationError

    try:
        # Made for this one token: what azure-identity keeps would be a second memory beside ours.
        with _credential(how) as credential:
            return credential.get_token(scope)
    # From None: the chain of these errors holds requests, and those hold the secret.
    except ClientAuthenticationError as error:
        message = _told(error, how)
        if _unreached(error):
            raise EnvironmentUnreachable(f"the sign-in service could not be reached: {message}") from None
        code = re.search(r"AADSTS\d+", message)
        raise SignInFailed(message, _remedy(how, code[0] if code else "")) from None
    except AzureError as error:
        raise EnvironmentUnreachable(
            f"the sign-in service could not be reached: {_told(error, how)}"
        ) from None
    except ValueError as error:
        raise SignInFailed(_told(error, how), _remedy(how)) from None


def _remedy(how: SignIn, code: str = "") -> str:
    about_secret = code in _WRONG_SECRET or code not in _REMEDIES
    told = _REMEDIES.get(code, _REMEDY[how.method])
    return f"{told} {how.remedy}" if how.remedy and about_secret else told


def _unreached(error: BaseException) -> bool:
    """Whether a refusal is none: azure-identity says "authentication failed" of broken connections too."""
    from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError

    met: BaseException | None = error
    while met is not None:
        if isinstance(met, ServiceRequestError | ServiceResponseError):
            return True
        if isinstance(met, HttpResponseError) and (met.status_code or 0) >= 500:
            return True
        met = met.__cause__ or met.__context__
    return False


def _credential(how: SignIn) -> _Credential:
    from azure import identity

    options: dict[str, Any] = {"transport": _transport(), "retry_total": 1}
    if how.method is Method.DEVELOPER:
        return identity.ChainedTokenCredential(
            identity.AzureCliCredential(tenant_id=how.tenant),
            identity.AzureDeveloperCliCredential(tenant_id=how.tenant),
        )
    if how.method is Method.MANAGED_IDENTITY:
        return identity.ManagedIdentityCredential(client_id=how.client_id or None, **options)
    authority = how.authority or AUTHORITIES[0]
    options["authority"] = authority
    # Asks the public cloud whether it knows the authority; ours are known, or on this machine.
    options["disable_instance_discovery"] = True
    if how.method is Method.CERTIFICATE:
        return identity.CertificateCredential(
            how.tenant, how.client_id, certificate_data=how.secret.encode(), **options
        )
    return identity.ClientSecretCredential(how.tenant, how.client_id, how.secret, **options)


def _transport() -> Any:
    """Requests without proxies or settings of the process's environment, with the trust of the connector."""
    from azure.core.pipeline.transport import RequestsTransport
    from requests import Session
    from requests.adapters import HTTPAdapter

    class Trusting(HTTPAdapter):
        def init_poolmanager(self, *arguments: Any, **options: Any) -> Any:
            context: ssl.SSLContext = trust()
            return super().init_poolmanager(*arguments, ssl_context=context, **options)

    session = Session()
    session.trust_env = False
    session.mount("https://", Trusting())
    return RequestsTransport(
        session=session,
        session_owner=True,
        use_env_settings=False,
        connection_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
    )


def _told(error: Exception, how: SignIn) -> str:
    """What an error says, on one line, without the secret: libraries may quote what they could not read."""
    text = str(getattr(error, "message", "") or error)
    text = without(text, [how.secret])
    return plain(text.partition("Trace ID")[0], 500) or type(error).__name__
