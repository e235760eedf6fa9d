"""How callers prove who they are: tokens of an issuer, certificates, TLS; and what proves nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.rpc.conftest import Bed

from pipelinehost import Client, errors
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import Identity, Principal
from pipelinehost_server.access import Access
from pipelinehost_server.app import AddressRefused, Host, parse_address
from pipelinehost_server.config import Config
from pipelinehost_server.issuer import Issuer, KeysUnusable, NotAccepted
from pipelinehost_server.store import Store

pytestmark = pytest.mark.usefixtures("unlimited_guesses")
ISSUER = "https://login.example.com/tenant/v2.0"
AUDIENCE = "api://pipelinehost"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
WEAK = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC = ec.generate_private_key(ec.SECP256R1())
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def jwk(key: Any, kid: str, **more: Any) -> dict[str, Any]:
    algorithm: Any = jwt.algorithms.ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else None
    algorithm = algorithm or jwt.algorithms.RSAAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, **more}


KEYS = {
    "keys": [
        jwk(RSA, "rsa"),
        jwk(EC, "ec", alg="ES256", use="sig"),
        jwk(WEAK, "weak"),
        jwk(OTHER, "sealing", use="enc"),
        {"kty": "oct", "kid": "oct", "k": base64.urlsafe_b64encode(b"k" * 32).decode()},
    ]
}
PUBLIC = RSA.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def claims(**changed: Any) -> dict[str, Any]:
    now = int(time.time())
    whole = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "iat": now,
        "nbf": now,
        "exp": now + 600,
        **changed,
    }
    return {k: v for k, v in whole.items() if v is not None}


def token(key: Any = RSA, algorithm: str = "RS256", kid: Any = "rsa", **changed: Any) -> str:
    header = changed.pop("header", {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jwt.warnings.InsecureKeyLengthWarning)
        return jwt.encode(claims(**changed), key, algorithm=algorithm, headers={"kid": kid, **header})


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def by_hand(header: Any, payload: Any = None, secret: bytes = PUBLIC) -> str:
    """A token with any header, signed with HMAC under a key that is public."""
    text = f"{part(header)}.{part(claims() if payload is None else payload)}"
    return f"{text}.{part(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def hostile() -> dict[str, str]:
    good = token()
    head, body, signature = good.split(".")
    later, before = int(time.time()) + 3600, int(time.time()) - 3600
    return {
        "no algorithm": f"{part({'alg': 'none', 'kid': 'rsa'})}.{body}.",
        "no algorithm, in capitals": f"{part({'alg': 'NONE', 'kid': 'rsa'})}.{body}.{signature}",
        "no algorithm, mixed": f"{part({'alg': 'nOnE', 'kid': 'rsa'})}.{body}.AA",
        "HMAC under the public key": by_hand({"alg": "HS256", "typ": "JWT", "kid": "rsa"}),
        "HMAC called RS256": by_hand({"alg": "RS256", "typ": "JWT", "kid": "rsa"}),
        "HMAC under the shared key": by_hand({"alg": "HS256", "kid": "oct"}, secret=b"k" * 32),
        "HMAC under nothing": by_hand({"alg": "HS256", "kid": "rsa"}, secret=b""),
        "RS512": token(algorithm="RS512"),
        "RS384": token(algorithm="RS384"),
        "PS512": token(algorithm="PS512"),
        "ES256 named, RSA key": f"{part({'alg': 'ES256', 'kid': 'rsa'})}.{body}.{signature}",
        "RS256 named, EC key": f"{part({'alg': 'RS256', 'kid': 'ec'})}.{body}.{signature}",
        "another key": token(OTHER),
        "a key that is too short": token(WEAK, kid="weak"),
        "a key for encryption": token(OTHER, kid="sealing"),
        "an unknown key": token(kid="nobody"),
        "no key's id": jwt.encode(claims(), RSA, algorithm="RS256"),
        "a number for a key's id": by_hand({"alg": "RS256", "kid": 1}),
        "a path for a key's id": token(kid="../../../../dev/null"),
        "a query for a key's id": token(kid="' UNION SELECT 'x"),
        "brings its key": token(OTHER, header={"jwk": jwk(OTHER, "rsa")}),
        "brings a link to its keys": token(OTHER, header={"jku": "https://evil.example.com/keys"}),
        "brings a link to its certificate": token(OTHER, header={"x5u": "https://evil.example.com/c"}),
        "brings its certificate": token(OTHER, header={"x5c": ["MIIB"]}),
        "critical extension": token(header={"crit": ["exp"], "exp": later}),
        "critical unknown": token(header={"crit": ["x"], "x": 1}),
        "unencoded payload": token(header={"b64": False, "crit": ["b64"]}),
        "compressed": token(header={"zip": "DEF"}),
        "another type": token(header={"typ": "dpop+jwt"}),
        "another audience": token(aud="api://other"),
        "no audience": token(aud=None),
        "a number for an audience": by_hand({"alg": "RS256", "kid": "rsa"}, claims(aud=1)),
        "another issuer": token(iss="https://login.example.com/other/v2.0"),
        "the issuer with a slash": token(iss=ISSUER + "/"),
        "no issuer": token(iss=None),
        "expired": token(exp=before),
        "no expiry": token(exp=None),
        "not yet valid": token(nbf=later),
        "issued in the future": token(iat=later),
        "no time of issue": token(iat=None),
        "a text for an expiry": token(exp="never"),
        "no subject": token(sub=None),
        "an empty subject": token(sub=""),
        "somebody else": token(sub="eve"),
        "the name of a principal": token(sub="principals/admin"),
        "the subject in capitals": token(sub="ADA"),
        "a changed payload": f"{head}.{part(claims(sub='admin'))}.{signature}",
        "a changed signature": f"{head}.{body}.{'A' * len(signature)}",
        "no signature": f"{head}.{body}.",
        "four parts": good + ".x",
        "an encrypted one": ".".join([head, "a", "b", "c", "d"]),
        "white space in it": f"{head}.{body} .{signature}",
        "padding": f"{head}=.{body}.{signature}",
        "deep nesting": f"{part(b'[' * 3000)}.{body}.{signature}",
        "a very long one": token(x="x" * 20_000),
        "a list for a header": f"{part([])}.{body}.{signature}",
        "a list for a payload": by_hand({"alg": "RS256", "kid": "rsa"}, []),
        "nothing at all": "..",
    }


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder = tmp_path_factory.mktemp("issued")
    (folder / "keys.json").write_text(json.dumps(KEYS))
    bed = Bed(folder / "data", oidc_issuer=ISSUER, oidc_audience=AUDIENCE, oidc_keys=folder / "keys.json")
    bed.person("ada", identities=[Identity(issuer=ISSUER, subject="ada")])
    yield bed
    bed.close()


def who(bed: Bed, secret: str) -> str:
    name: str = bed.call("GetHost", api.GetHostRequest(), token=secret).caller
    return name


@pytest.mark.parametrize(
    "good", [token(), token(algorithm="PS256"), token(EC, "ES256", "ec"), token(aud=["x", AUDIENCE])]
)
def test_a_token_of_the_issuer_is_the_principals(good: str, issued: Bed) -> None:
    assert who(issued, good) == "principals/ada"


@pytest.mark.parametrize("case", list(hostile()))
def test_a_hostile_token_proves_nothing(case: str, issued: Bed) -> None:
    assert who(issued, token()) == "principals/ada"
    with pytest.raises((errors.Unauthenticated, errors.ResourceExhausted)) as refused:
        who(issued, hostile()[case])
    # grpc itself refuses metadata over 8 KiB.
    assert isinstance(refused.value, errors.Unauthenticated) or case == "a very long one"


def test_there_are_at_least_forty() -> None:
    assert len(hostile()) >= 40


def test_metadata_proves_nothing(issued: Bed) -> None:
    call = issued.channel.unary_unary("/pipelinehost.v1.PipelineHost/GetHost")
    bearer = ("authorization", f"Bearer {issued.token}")
    spoofed = [
        [(key, "principals/admin")]
        for key in (
            "x-forwarded-user",
            "x-remote-user",
            "x-forwarded-client-cert",
            "caller",
            "principal",
            "role",
            "x-ms-client-principal",
            "grpc-internal-encoding-request-x",
        )
    ]
    for metadata in [
        *spoofed,
        [("authorization-bin", b"x")],
        [bearer, bearer],
        [("x-authorization", bearer[1])],
    ]:
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED, metadata
    maker = issued.new_token("ada")
    answer = api.Host.FromString(
        call(b"", metadata=[("authorization", f"Bearer {maker}"), ("role", "ADMINISTRATOR")])
    )
    assert answer.caller == "principals/ada"


def test_guesses_of_tokens_prove_nothing(issued: Bed) -> None:
    good = issued.new_token("ada")
    head, identity, secret = good.split("_", 2)
    guesses = [f"{head}_{identity}_{secret[:-1]}{c}" for c in "AQgw" if c != secret[-1]]
    guesses += [
        f"{head}_{'0' * 8}_{secret}",
        secret,
        good[:-1],
        good + "A",
        good.upper(),
        f"{identity}_{secret}",
    ]
    guesses += [
        f"{head}_{identity}_{'A' * 43}",
        good.replace("_", "-"),
        f"{good}%00",
        "ph__",
        "null",
        "undefined",
    ]
    for guess in guesses:
        with pytest.raises(errors.Unauthenticated):
            who(issued, guess)
    assert who(issued, good) == "principals/ada"


def test_a_disabled_principals_jwt_is_refused_at_once(issued: Bed) -> None:
    good = token(sub="bob")
    issued.person("bob", identities=[Identity(issuer=ISSUER, subject="bob")])
    assert who(issued, good) == "principals/bob"
    request = api.UpdatePrincipalRequest()
    request.principal.name = "principals/bob"
    request.principal.disabled = True
    request.update_mask.paths.append("disabled")
    issued.call("UpdatePrincipal", request)
    with pytest.raises(errors.Unauthenticated):
        who(issued, good)


def test_a_revoked_token_ends_its_streams_within_a_second(idle: Bed) -> None:
    watcher = idle.person("watcher", "ADMINISTRATOR")
    stream = idle.stream("WatchEvents", api.WatchEventsRequest(), token=watcher)
    iterator, ended = iter(stream), threading.Event()
    idle.environment("other")
    next(iterator)

    def drain() -> None:
        with pytest.raises(grpc.RpcError):
            for _ in iterator:
                pass
        ended.set()

    threading.Thread(target=drain, daemon=True).start()
    idle.call("RevokeToken", api.RevokeTokenRequest(name=f"tokens/{watcher[3:11]}"))
    with pytest.raises(errors.Unauthenticated):
        who(idle, watcher)
    assert ended.wait(1)
    assert stream.code() is grpc.StatusCode.UNAUTHENTICATED


@dataclass
class Authority:
    ca: trustme.CA
    folder: Path

    def files(self, *identities: str) -> tuple[Path, Path]:
        made = self.ca.issue_cert(*identities)
        stem = hashlib.sha256(repr(identities).encode()).hexdigest()[:8]
        certificate, key = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        certificate.write_bytes(b"".join(b.bytes() for b in made.cert_chain_pems))
        key.write_bytes(made.private_key_pem.bytes())
        return certificate, key

    @property
    def pem(self) -> Path:
        path = self.folder / "ca.pem"
        self.ca.cert_pem.write_to_path(path)
        return path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(trustme.CA(), tmp_path)


def test_every_address_may_be_served_with_a_certificate_and_none_without(
    authority: Authority, tmp_path: Path
) -> None:
    for address in ("0.0.0.0:0", "192.0.2.1:443", "[::]:0", "host.example.com:443"):
        with pytest.raises(AddressRefused, match="certificate"):
            parse_address(address)
        assert parse_address(address, encrypted=True)
    certificate, key = authority.files("localhost", "127.0.0.1")
    bed = Bed(tmp_path / "data", address="0.0.0.0:0", certificate=certificate, key=key)
    with Client(f"127.0.0.1:{bed.host.address.port}", token=bed.token, ca_file=authority.pem) as client:
        assert client.host().caller == "principals/admin"
    clear: Any = grpc.insecure_channel(f"127.0.0.1:{bed.host.address.port}")
    with pytest.raises(grpc.RpcError):
        clear.unary_unary("/x")(b"", timeout=3)
    bed.close()


@pytest.mark.parametrize("missing", ["key", "certificate"])
async def test_half_of_a_certificate_keeps_the_host_from_starting(
    missing: str, authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.files("localhost")
    given: dict[str, Any] = {"certificate": certificate, "key": key, missing: None}
    with pytest.raises(AddressRefused):
        await Host(Config(folder=tmp_path / "d", address="127.0.0.1:0", **given), state_file=False).start()
    given[missing] = tmp_path / "ca.pem"
    authority.pem.touch()
    with pytest.raises(AddressRefused):
        await Host(Config(folder=tmp_path / "e", address="127.0.0.1:0", **given), state_file=False).start()


def test_a_client_certificate_stands_for_its_principal(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.files("localhost")
    bed = Bed(tmp_path / "data", certificate=certificate, key=key, client_ca=authority.pem)
    address = f"localhost:{bed.host.address.port}"

    def caller(files: tuple[Path, Path] | None, bearer: str = "") -> str:
        pair = (None, None) if files is None else (files[1].read_bytes(), files[0].read_bytes())
        credentials = grpc.ssl_channel_credentials(authority.pem.read_bytes(), *pair)
        with grpc.secure_channel(address, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            metadata = [("authorization", f"Bearer {bearer}")] if bearer else []
            call: Any = channel.unary_unary("/pipelinehost.v1.PipelineHost/GetHost")
            return str(api.Host.FromString(call(b"", metadata=metadata, timeout=5)).caller)

    build = authority.files("build.example.com")
    bed.channel.close()
    bed.channel = grpc.secure_channel(
        address,
        grpc.ssl_channel_credentials(
            authority.pem.read_bytes(), build[1].read_bytes(), build[0].read_bytes()
        ),
    )
    bed.person("build", identities=[Identity(certificate="DNS:build.example.com")])
    bed.person("eve", identities=[Identity(certificate="email:build@example.com")])
    assert caller(build) == "principals/build"
    assert caller(build, bed.token) == "principals/admin"
    assert caller(authority.files("build@example.com")) == "principals/eve"
    stranger = Authority(trustme.CA(), tmp_path / "x")
    stranger.folder.mkdir()
    refused = {
        "nobody's": (authority.files("other.example.com"), ""),
        "of two principals": (authority.files("build.example.com", "build@example.com"), ""),
        "a wrong token beside it": (build, "ph_00000000_" + "x" * 43),
    }
    for case, (files, bearer) in refused.items():
        with pytest.raises(grpc.RpcError) as error:
            caller(files, bearer)
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED, case
    for none in (None, stranger.files("build.example.com")):  # no certificate, or another authority's
        with pytest.raises(grpc.RpcError) as error:
            caller(none)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    bed.close()


class _Answers(BaseHTTPRequestHandler):
    pages: dict[str, Any]

    def do_GET(self) -> None:
        body = json.dumps(self.pages.get(self.path, {})).encode()
        self.send_response(200 if self.path in self.pages else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        del arguments


async def test_a_key_that_the_issuer_has_withdrawn_lets_nobody_in_who_is_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who has stolen it also chose when the token expires."""
    server = HTTPServer(("127.0.0.1", 0), _Answers)
    here = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    about = "/.well-known/openid-configuration"
    _Answers.pages = {about: {"issuer": here, "jwks_uri": f"{here}/keys"}, "/keys": KEYS}
    store, issuer = Store(tmp_path), Issuer(here, AUDIENCE)
    await store.open()
    await issuer.start()
    access = Access(store, b"a secret", issuer)
    ada = Principal(name="principals/ada", kind=Principal.KIND_PERSON)
    ada.identities.add(issuer=here, subject="ada")
    await store.write(lambda tx: tx.put_principal(ada))
    forged = token(iss=here)
    for _ in range(2):
        assert access.identify(forged).name == ada.name
    _Answers.pages["/keys"] = {"keys": [key for key in KEYS["keys"] if key["kid"] != "rsa"]}
    await issuer.stop()
    await issuer.start()
    with pytest.raises(errors.Unauthenticated):
        access.identify(forged)
    _Answers.pages["/keys"] = {"keys": []}  # rather a mistake of theirs than everybody's end
    await issuer.stop()
    await issuer.start()
    assert issuer.verify(token(EC, "ES256", "ec", iss=here)).subject == "ada"
    assert "none of its keys is for" in caplog.text
    await issuer.stop()
    await store.close()
    server.shutdown()
    server.server_close()


async def test_keys_come_from_the_pinned_issuer_only(tmp_path: Path) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Answers)
    here = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    about = "/.well-known/openid-configuration"
    _Answers.pages = {about: {"issuer": here, "jwks_uri": f"{here}/keys"}, "/keys": KEYS}
    issuer = Issuer(here, AUDIENCE)
    await issuer.start()
    assert issuer.verify(token(iss=here)).subject == "ada"
    await issuer.stop()
    _Answers.pages = {
        about: {"issuer": "https://other.example.com", "jwks_uri": f"{here}/keys"},
        "/keys": KEYS,
    }
    issuer = Issuer(here, AUDIENCE)
    await issuer.start()
    with pytest.raises(NotAccepted):
        issuer.verify(token(iss=here))
    await issuer.stop()
    server.shutdown()
    server.server_close()
    (tmp_path / "none.json").write_text('{"keys": []}')
    with pytest.raises(KeysUnusable):
        Issuer(ISSUER, AUDIENCE, keys=tmp_path / "none.json")
