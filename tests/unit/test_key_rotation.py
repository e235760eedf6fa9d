"""A change of the key: every secret opens afterwards, with the new key only, wherever it was killed."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelinehost_server.app import rotate_key
from pipelinehost_server.encryption import (
    NEW_VARIABLE,
    VARIABLE,
    Encryption,
    KeyUnusable,
    Rotation,
    SealBroken,
)
from pipelinehost_server.store import Store, StoreLocked, Transaction

SECRETS = {f"environments/e{n}/credential": f"canary {n} ".encode() * 200 for n in range(60)}
OTHER = base64.b64encode(bytes(range(32))).decode()
THIRD = base64.b64encode(bytes(32)).decode()


async def _fill(folder: Path, encryption: Encryption) -> None:
    store = Store(folder)
    await store.open()
    sealed = {name: encryption.seal(text, name) for name, text in SECRETS.items()}

    def job(tx: object) -> None:
        for name, ciphertext in sealed.items():
            tx.put_secret(name, ciphertext)  # type: ignore[attr-defined]  # a transaction

    await store.write(job)
    await store.close()


async def _ciphertexts(folder: Path) -> dict[str, bytes]:
    store = Store(folder)
    await store.open()
    found = {name: store.reads.secret(name) or b"" for name in SECRETS}
    await store.close()
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with secrets, whose key is a file."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv(NEW_VARIABLE, raising=False)
    asyncio.run(_fill(tmp_path, Encryption(tmp_path)))
    return tmp_path


def opens(folder: Path, encryption: Encryption | None = None) -> bool:
    encryption = encryption or Encryption(folder)
    return all(
        encryption.open(c, name) == SECRETS[name] for name, c in asyncio.run(_ciphertexts(folder)).items()
    )


def test_everything_opens_with_the_new_key_only(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Transaction.reseal_secrets

    def resealed(tx: Transaction, reseal: Callable[[bytes, str], bytes | None]) -> int:
        # Some builds of SQLite overwrite by themselves, and others do not.
        tx._execute("PRAGMA secure_delete = 0", ())
        return real(tx, reseal)

    monkeypatch.setattr(Transaction, "reseal_secrets", resealed)
    old, key = Encryption(folder), (folder / "key").read_bytes()
    before = asyncio.run(_ciphertexts(folder))
    asyncio.run(rotate_key(folder))
    assert (folder / "key").read_bytes() != key
    assert (folder / "key").stat().st_mode & 0o777 == 0o600
    assert not (folder / "key.new").exists()
    assert opens(folder)
    after = asyncio.run(_ciphertexts(folder))
    for name, ciphertext in after.items():
        with pytest.raises(SealBroken, match=old.key_id):
            old.open(ciphertext, name)
    told = capsys.readouterr().out
    assert f"{len(SECRETS)} secrets are sealed with the key {Encryption(folder).key_id} now." in told
    assert "canary" not in told
    content = b"".join(p.read_bytes() for p in folder.glob("pipelinehost.db*"))
    assert not any(c[17:] in content for c in before.values()), "what was sealed with the old key is left"
    assert all(c[:200] in content for c in after.values()), "the harness can see what is there"


KILLED = {
    "before anything": "encryption._made = lambda path: kill()",
    "when the new key is on the disk": "Store.write = lambda *_: kill()",
    "in the middle of the secrets": "Rotation.resealed = lambda *a: kill() if next(count) > 30 else real(*a)",
    "when all is sealed anew": "Rotation.finish = lambda self: kill()",
}


@pytest.mark.parametrize("moment", KILLED)
def test_a_killed_change_is_finished_by_the_next_one(folder: Path, moment: str) -> None:
    program = f"""
import asyncio, itertools, os, signal
from pathlib import Path
from pipelinehost_server import app, encryption
from pipelinehost_server.encryption import Rotation
from pipelinehost_server.store import Store
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
count, real = itertools.count(), Rotation.resealed
{KILLED[moment]}
asyncio.run(app.rotate_key(Path({str(folder)!r})))
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    if (folder / "key.new").exists():
        with pytest.raises(KeyUnusable, match="interrupted: finish it with `pipelinehost-server rotate-key"):
            Encryption(folder)
    else:
        assert opens(folder)
    asyncio.run(rotate_key(folder))
    assert opens(folder)
    assert not (folder / "key.new").exists()


def test_a_key_in_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, OTHER)
    monkeypatch.delenv(NEW_VARIABLE, raising=False)
    asyncio.run(_fill(tmp_path, Encryption(tmp_path)))
    with pytest.raises(KeyUnusable, match=f"give the new one in {NEW_VARIABLE}: `openssl rand"):
        asyncio.run(rotate_key(tmp_path))
    monkeypatch.setenv(NEW_VARIABLE, OTHER)
    with pytest.raises(KeyUnusable, match="is the present key"):
        asyncio.run(rotate_key(tmp_path))
    monkeypatch.setenv(NEW_VARIABLE, "c2hvcnQ=")
    with pytest.raises(KeyUnusable, match=f"{NEW_VARIABLE} must be 32 bytes"):
        asyncio.run(rotate_key(tmp_path))
    monkeypatch.setenv(NEW_VARIABLE, THIRD)
    asyncio.run(rotate_key(tmp_path))
    asyncio.run(rotate_key(tmp_path))  # again, as after a kill: there is nothing left to do
    assert (
        f"put what {NEW_VARIABLE} holds into {VARIABLE} before you start the host" in capsys.readouterr().out
    )
    assert not (tmp_path / "key").exists()
    assert opens(tmp_path, Encryption(tmp_path, {VARIABLE: THIRD}))


def test_a_new_key_in_a_variable_needs_the_old_one_there_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NEW_VARIABLE, THIRD)
    with pytest.raises(KeyUnusable, match=f"but not {VARIABLE}"):
        asyncio.run(rotate_key(folder))
    assert opens(folder)


def test_the_wrong_present_key_changes_nothing(folder: Path) -> None:
    key = (folder / "key").read_bytes()
    before = asyncio.run(_ciphertexts(folder))
    (folder / "key").write_bytes(bytes(32))
    with pytest.raises(SealBroken, match="bring the old key back"):
        asyncio.run(rotate_key(folder))
    assert asyncio.run(_ciphertexts(folder)) == before
    (folder / "key").write_bytes(key)
    assert opens(folder), "the host starts as before"


def test_a_swapped_row_stops_the_change(folder: Path) -> None:
    rotation = Rotation(folder)
    with pytest.raises(SealBroken, match="another place"):
        rotation.resealed(rotation.old.seal(b"x", "environments/a/credential"), "environments/b/credential")


def test_a_folder_without_a_host_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match="no data folder"):
        asyncio.run(rotate_key(tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []


async def test_a_host_that_runs_keeps_its_key(folder: Path) -> None:
    store = Store(folder)
    await store.open()
    try:
        with pytest.raises(StoreLocked):
            await rotate_key(folder)
    finally:
        await store.close()
    assert not (folder / "key.new").exists()


def test_the_command(folder: Path) -> None:
    command = [sys.executable, "-m", "pipelinehost_server", "rotate-key", "--data", str(folder)]
    ended = subprocess.run(
        command, timeout=60, capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "secrets are sealed with the key" in ended.stdout
    assert opens(folder)
    (folder / "key").unlink()
    ended = subprocess.run(
        command, timeout=60, capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("pipelinehost-server: ")
    assert "its key is in PIPELINEHOST_KEY" in ended.stderr
