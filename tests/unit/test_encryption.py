"""Secrets at rest: what was sealed for one place opens there, with the same key, and unchanged."""

import base64
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelinehost_server.encryption import VARIABLE, Encryption, KeyUnusable, SealBroken

KEY = base64.b64encode(bytes(range(32))).decode()


def with_key(text: str = KEY) -> Encryption:
    return Encryption(Path("/nowhere"), {VARIABLE: text})


@given(st.binary(max_size=2000), st.text(max_size=50))
def test_what_was_sealed_opens(plaintext: bytes, context: str) -> None:
    encryption = with_key()
    sealed = encryption.seal(plaintext, context)
    assert with_key().open(sealed, context) == plaintext
    assert encryption.seal(plaintext, context) != sealed  # never the same nonce
    assert len(plaintext) < 4 or plaintext not in sealed


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_secret_does_not_open_in_another_place(here: str, there: str) -> None:
    sealed = with_key().seal(b"secret", here)
    if here != there:
        with pytest.raises(SealBroken, match="another place"):
            with_key().open(sealed, there)


def test_rows_cannot_be_swapped(tmp_path: Path) -> None:
    """As somebody does who can write the database and has no key."""
    encryption = with_key()
    database = sqlite3.connect(tmp_path / "x.db")
    database.execute("CREATE TABLE secret (name TEXT, ciphertext BLOB)")
    for name in ("runs/a", "runs/b"):
        database.execute("INSERT INTO secret VALUES (?, ?)", (name, encryption.seal(name.encode(), name)))
    database.execute(
        "UPDATE secret SET ciphertext = (SELECT ciphertext FROM secret WHERE name = 'runs/b') "
        "WHERE name = 'runs/a'"
    )
    (swapped,) = database.execute("SELECT ciphertext FROM secret WHERE name = 'runs/a'").fetchone()
    database.close()
    with pytest.raises(SealBroken, match="runs/a"):
        encryption.open(swapped, "runs/a")


def test_every_bit_counts() -> None:
    encryption = with_key()
    sealed = encryption.seal(b"secret", "x")
    for position in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[position] ^= 1 << bit
            with pytest.raises(SealBroken):
                encryption.open(bytes(changed), "x")
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            encryption.open(sealed[:length], "x")


def test_another_key_is_named() -> None:
    other = with_key(base64.b64encode(bytes(32)).decode())
    with pytest.raises(SealBroken, match="bring the old key back"):
        other.open(with_key().seal(b"secret", "x"), "x")


def test_the_key_is_made_once_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    sealed = Encryption(tmp_path, {}).seal(b"secret", "x")
    file = tmp_path / "key"
    assert [p.name for p in tmp_path.iterdir()] == ["key"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(file.read_bytes()) == 32
    assert Encryption(tmp_path, {}).open(sealed, "x") == b"secret"
    (tmp_path / "other").mkdir()
    with pytest.raises(SealBroken):
        Encryption(tmp_path / "other", {}).open(sealed, "x")


def test_a_key_half_written_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "key.part").write_bytes(b"half")
    Encryption(tmp_path, {})
    assert len((tmp_path / "key").read_bytes()) == 32


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
def test_a_wrong_key_file_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(KeyUnusable, match=f"32 bytes and has {len(content)}"):
        Encryption(tmp_path, {})
    assert (tmp_path / "key").read_bytes() == content


def test_a_key_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(KeyUnusable, match="cannot be read"):
        Encryption(tmp_path, {})


@pytest.mark.parametrize("text", ["x", "§", base64.b64encode(bytes(31)).decode(), KEY + "!"])
def test_a_wrong_variable_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(KeyUnusable, match="openssl rand") as refused:
        Encryption(tmp_path, {VARIABLE: text})
    assert text not in str(refused.value) or len(text) < 3
    assert list(tmp_path.iterdir()) == []


def test_the_variable_goes_before_the_file(tmp_path: Path) -> None:
    assert Encryption(tmp_path, {VARIABLE: KEY}).open(with_key().seal(b"s", "x"), "x") == b"s"
    assert list(tmp_path.iterdir()) == []


def test_fingerprints_tell_equal_texts_and_depend_on_the_key() -> None:
    assert with_key().fingerprint("value") == with_key().fingerprint("value")
    assert with_key().fingerprint("value") != with_key().fingerprint("Value")
    other = with_key(base64.b64encode(bytes(32)).decode())
    assert other.fingerprint("value") != with_key().fingerprint("value")
    assert len(other.fingerprint("")) == 64
