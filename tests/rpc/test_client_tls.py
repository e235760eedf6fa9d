"""The Client over TLS."""

import datetime as dt
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.rpc.fake_host import FakeHost

from pipelinehost import Client, errors


def certificate(folder: Path) -> tuple[bytes, bytes]:
    """Writes a certificate for 127.0.0.1 that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(addresses, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    (folder / "ca.pem").write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, pem


@pytest.fixture
def host(tmp_path: Path) -> Iterator[FakeHost]:
    host = FakeHost()
    host.credentials = grpc.ssl_server_credentials([certificate(tmp_path)])
    with host:
        yield host


def test_the_token_travels_over_tls_to_a_host_that_is_trusted(host: FakeHost, tmp_path: Path) -> None:
    with Client(host.address, token="secret", ca_file=tmp_path / "ca.pem") as client:
        assert client.host().caller == "admin"
    assert host.metadata[0]["authorization"] == "Bearer secret"


def test_a_host_that_is_not_trusted_gets_nothing(host: FakeHost) -> None:
    with Client(host.address, token="secret", tls=True) as client, pytest.raises(errors.Unavailable):
        client.host()
    assert host.calls == []


def test_a_ca_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="cannot be read"):
        Client("127.0.0.1:1", ca_file=tmp_path / "nope.pem")
