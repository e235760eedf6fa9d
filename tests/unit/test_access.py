"""Tokens and rights, on a real store."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipelinehost.errors import PermissionDenied, Unauthenticated
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.pipeline_host_pb2 import GetHostRequest
from pipelinehost.v1.resources_pb2 import Event
from pipelinehost_server.access import POLICY, Access, Caller, Permission
from pipelinehost_server.store import Store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path)
    await store.open()
    yield store
    await store.close()


async def started(store: Store) -> None:
    """What the host writes at the end of its start."""
    await store.write(lambda tx: tx.append(Event(kind=Event.KIND_HOST_STARTED, actor="host")))


async def test_the_first_token_is_the_administrators(store: Store, tmp_path: Path) -> None:
    access = Access(store)
    path = await access.prepare(tmp_path, None)
    token = path.read_text().strip()
    assert access.identify(token) == Caller("admin", True)
    assert access.identify(token) is access.identify(token)
    assert len(token) == 55
    assert len(token[12:]) * 6 >= 256


@pytest.mark.parametrize(
    "change", [str.upper, str.swapcase, lambda t: t + "\0", lambda t: t[:-1], lambda t: " " + t, lambda t: ""]
)
async def test_another_token_is_unknown(change: object, store: Store, tmp_path: Path) -> None:
    access = Access(store)
    token = (await access.prepare(tmp_path, None)).read_text().strip()
    assert callable(change)
    with pytest.raises(Unauthenticated) as refused:
        access.identify(change(token))
    assert refused.value.reason == ErrorReason.ERROR_REASON_TOKEN_INVALID
    assert token not in refused.value.message


async def test_a_first_start_that_was_cut_off_keeps_the_token_it_wrote(store: Store, tmp_path: Path) -> None:
    token = (await Access(store).prepare(tmp_path, None)).read_text()
    again = await Access(store).prepare(tmp_path, None)
    assert again.read_text() == token
    assert Access(store).identify(token.strip()).administrator


async def test_later_starts_make_no_token(store: Store, tmp_path: Path) -> None:
    state = tmp_path / "home" / "pipelinehost" / "here" / "token"
    token = (await Access(store).prepare(tmp_path, state)).read_text()
    await started(store)
    assert state.read_text() == token
    state.unlink()
    (await Access(store).prepare(tmp_path, state)).unlink()
    assert state.read_text() == token
    state.unlink()
    path = await Access(store).prepare(tmp_path, state)
    assert not path.exists()
    assert not state.exists()


async def test_a_token_file_of_another_store_is_not_handed_out(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await started(store)
    foreign = "ph_00000000_" + "x" * 43
    (tmp_path / "admin-token").write_text(foreign)
    state = tmp_path / "home" / "pipelinehost" / "here" / "token"
    access = Access(store)
    await access.prepare(tmp_path, state)
    assert not state.exists()
    assert "not of this host's store" in caplog.text
    assert foreign not in caplog.text
    with pytest.raises(Unauthenticated):
        access.identify(foreign)


async def test_rights_come_with_the_caller(store: Store) -> None:
    digest = hashlib.sha256(b"m").digest()
    await store.write(lambda tx: tx.put_token(digest, "maker"))
    access = Access(store)
    maker = access.identify("m")
    assert maker == Caller("maker", False)
    for method, permission in POLICY.items():
        access.check(Caller("admin", True), method, None)
        if permission is Permission.SIGNED_IN:
            access.check(maker, method, GetHostRequest())
        else:
            with pytest.raises(PermissionDenied, match="maker"):
                access.check(maker, method, None)


def test_only_health_is_public() -> None:
    public = {path for path, permission in POLICY.items() if permission is Permission.PUBLIC}
    assert {path.split("/")[1] for path in public} == {"grpc.health.v1.Health"}
