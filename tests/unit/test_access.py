"""Tokens, roles and rights, on a real store."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from pipelinehost.errors import NotFound, PermissionDenied, Unauthenticated
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import (
    Artifact,
    Environment,
    Event,
    Identity,
    Pipeline,
    Principal,
    Run,
    Share,
    Token,
)
from pipelinehost_server import access as module
from pipelinehost_server.access import POLICY, Access, Caller, Permission, may_go_on
from pipelinehost_server.issuer import Bearer
from pipelinehost_server.store import Reach, Store, Transaction, migrations

HOST = "/pipelinehost.v1.PipelineHost/"
ADMIN = Caller("principals/admin", Principal.ROLE_ADMINISTRATOR)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path)
    await store.open()
    yield store
    await store.close()


def opened(store: Store, folder: Path) -> Access:
    return Access(store, b"a secret of " + str(folder).encode())


async def person(store: Store, slug: str, role: str = "MAKER", **fields: Any) -> str:
    made = Principal(name=f"principals/{slug}", kind=Principal.KIND_PERSON, role=f"ROLE_{role}")
    made.MergeFrom(Principal(**fields))

    def job(tx: Any) -> None:
        tx.append(
            Event(kind=Event.KIND_PRINCIPAL_UPDATED, subject=made.name, principal=tx.put_principal(made))
        )

    await store.write(job)
    return made.name


async def token_of(store: Store, access: Access, principal: str, **fields: Any) -> tuple[Token, str]:
    name, secret, digest = access.new_token()
    token = Token(name=name, principal=principal, **fields)
    await store.write(lambda tx: tx.put_token(token, digest))
    return token, secret


async def test_the_first_token_is_the_administrators(store: Store, tmp_path: Path) -> None:
    access = opened(store, tmp_path)
    path = await access.prepare(tmp_path, None)
    token = path.read_text().strip()
    caller = access.identify(token)
    assert (caller.name, caller.administrator) == ("principals/admin", True)
    assert caller.token == f"tokens/{token[3:11]}"
    assert access.identify(token) is caller
    assert len(token) == 55
    assert len(token[12:]) * 6 >= 256


@pytest.mark.parametrize(
    "change", [str.upper, str.swapcase, lambda t: t + "\0", lambda t: t[:-1], lambda t: " " + t, lambda t: ""]
)
async def test_another_token_is_unknown(change: Any, store: Store, tmp_path: Path) -> None:
    access = opened(store, tmp_path)
    token = (await access.prepare(tmp_path, None)).read_text().strip()
    with pytest.raises(Unauthenticated) as refused:
        access.identify(change(token))
    assert refused.value.reason == ErrorReason.ERROR_REASON_TOKEN_INVALID
    assert token not in refused.value.message


async def test_who_steals_the_store_has_nothing_to_try_tokens_against(store: Store, tmp_path: Path) -> None:
    access = opened(store, tmp_path)
    token = (await access.prepare(tmp_path, None)).read_text().strip()
    kept = b"".join((tmp_path / f"pipelinehost.db{end}").read_bytes() for end in ("", "-wal"))
    for form in (
        token.encode(),
        sha256(token.encode()).digest(),
        sha256(token.encode()).hexdigest().encode(),
    ):
        assert form not in kept
    with pytest.raises(Unauthenticated):  # another secret, the same store
        Access(store, b"another secret").identify(token)


async def test_a_start_that_was_cut_off_keeps_the_token_it_wrote(store: Store, tmp_path: Path) -> None:
    token = (await opened(store, tmp_path).prepare(tmp_path, None)).read_text()
    again = await opened(store, tmp_path).prepare(tmp_path, None)
    assert again.read_text() == token
    assert opened(store, tmp_path).identify(token.strip()).administrator


async def test_a_token_that_was_being_written_at_a_kill_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", killed)
            with pytest.raises(Killed):
                await opened(store, folder).prepare(folder, None)
    (draft,) = folder.iterdir()
    draft.chmod(0o644)
    held = draft.open()  # by somebody who saw that anybody may read it
    path = await opened(store, folder).prepare(folder, None)
    assert [*folder.iterdir()] == [path]
    assert path.stat().st_mode & 0o777 == 0o600
    with held:
        assert path.read_text().strip() not in held.read()


async def test_a_token_is_not_written_through_somebody_elses_link(store: Store, tmp_path: Path) -> None:
    folder, other = tmp_path / "data", tmp_path / "other"
    folder.mkdir()
    other.write_text("of somebody else")
    for link in (Path.symlink_to, Path.hardlink_to):
        link(folder / ".admin-token.draft", other)
        path = await opened(store, folder).new_administrator_token(folder)
        assert other.read_text() == "of somebody else"
        assert not path.is_symlink()
        assert [*folder.iterdir()] == [path]


async def test_later_starts_make_no_token(store: Store, tmp_path: Path) -> None:
    state = tmp_path / "home" / "pipelinehost" / "here" / "token"
    token = (await opened(store, tmp_path).prepare(tmp_path, state)).read_text()
    assert state.read_text() == token
    state.unlink()
    (await opened(store, tmp_path).prepare(tmp_path, state)).unlink()
    assert state.read_text() == token
    state.unlink()
    path = await opened(store, tmp_path).prepare(tmp_path, state)
    assert not path.exists()
    assert not state.exists()


async def test_a_token_file_of_another_store_is_not_handed_out(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await store.write(lambda tx: tx.append(Event(kind=Event.KIND_HOST_STARTED, actor="host")))
    foreign = "ph_00000000_" + "x" * 43
    (tmp_path / "admin-token").write_text(foreign)
    state = tmp_path / "home" / "pipelinehost" / "here" / "token"
    access = opened(store, tmp_path)
    await access.prepare(tmp_path, state)
    assert not state.exists()
    assert "not of this host's store" in caplog.text
    assert foreign not in caplog.text
    with pytest.raises(Unauthenticated):
        access.identify(foreign)


async def test_the_tokens_of_the_first_version_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "ph_0badcafe_" + "x" * 43
    whole = migrations.VERSIONS
    monkeypatch.setattr(migrations, "VERSIONS", whole[:1])
    first = Store(tmp_path)
    await first.open()
    await first.write(lambda tx: tx.append(Event(kind=Event.KIND_HOST_STARTED, actor="host")))
    await first.close()
    with sqlite3.connect(tmp_path / "pipelinehost.db") as database:
        database.execute("INSERT INTO token VALUES (?, 'admin')", (sha256(token.encode()).digest(),))
    database.close()
    monkeypatch.setattr(migrations, "VERSIONS", whole)
    store = Store(tmp_path)
    await store.open()
    (tmp_path / "admin-token").write_text(token)
    for _ in range(2):
        access = opened(store, tmp_path)
        await access.prepare(tmp_path, None)
        assert access.identify(token).administrator
    assert store.reads.first_tokens() == []
    (kept,) = store.reads.tokens_of("principals/admin")
    assert kept.HasField("create_time")
    await store.close()


async def test_a_lost_token_can_be_made_anew(store: Store, tmp_path: Path) -> None:
    access = opened(store, tmp_path)
    old = (await access.prepare(tmp_path, None)).read_text().strip()
    await person(store, "admin", "VIEWER", disabled=True)
    with pytest.raises(Unauthenticated):
        access.identify(old)
    new = (await access.new_administrator_token(tmp_path)).read_text().strip()
    assert new != old
    assert access.identify(new).administrator


async def test_whoever_may_not_sign_in_is_refused_at_once(store: Store, tmp_path: Path) -> None:
    access = opened(store, tmp_path)
    await access.prepare(tmp_path, None)
    ada = await person(store, "ada")
    token, secret = await token_of(store, access, ada)
    service = await person(store, "build", kind=Principal.KIND_SERVICE, person=ada)
    _, services = await token_of(store, access, service)
    assert access.identify(secret).name == ada
    assert access.identify(services).person == ada
    await person(store, "ada", disabled=True)
    for refused in (secret, services):
        with pytest.raises(Unauthenticated):
            access.identify(refused)
    await person(store, "ada")
    caller = access.identify(secret)
    assert access.still(caller) == caller

    def revoke(tx: Any) -> None:
        tx.append(Event(kind=Event.KIND_TOKEN_REVOKED, token=tx.revoke_token(token)))

    await store.write(revoke)
    with pytest.raises(Unauthenticated):
        access.identify(secret)
    with pytest.raises(Unauthenticated):
        access.still(caller)
    assert access.identify(services).name == service


async def test_a_token_expires_also_while_it_is_known(store: Store, tmp_path: Path) -> None:
    access = opened(store, tmp_path)
    await access.prepare(tmp_path, None)
    token = Token()
    token.expire_time.FromNanoseconds(time.time_ns() + 300_000_000)
    _, secret = await token_of(store, access, await person(store, "ada"), expire_time=token.expire_time)
    assert access.identify(secret).role
    time.sleep(0.35)  # noqa: ASYNC251 - nothing else runs on this loop
    with pytest.raises(Unauthenticated):
        access.identify(secret)


class _Issuer:
    """Takes any text for a subject."""

    name = "https://issuer.example"
    fetched = 0

    def verify(self, token: str) -> Bearer:
        return Bearer(token, time.time() + 60)


@pytest.mark.parametrize("kept", [True, False])
async def test_an_identity_that_was_taken_away_is_nobodys_at_once(
    kept: bool, store: Store, tmp_path: Path
) -> None:
    """Also for a stream that is open, and for a job that waits in the queue."""
    access = Access(store, b"a secret", _Issuer())  # type: ignore[arg-type]  # all that is used of one
    identity = Identity(issuer=_Issuer.name, subject="ada")
    ada = await person(store, "ada", "USER", identities=[identity])
    await shared(store, ada, Share.ACCESS_RUN)
    job = let_in(access, "ada")
    caller = access.identify("ada")
    await person(store, "ada", "USER", identities=[identity] if kept else [])
    if kept:
        assert access.still(caller) == caller
        await store.write(job)
        return
    with pytest.raises(Unauthenticated):
        access.still(caller)
    with pytest.raises(Unauthenticated):
        await store.write(job)
    assert store.reads.secret("written") is None


LOOKALIKES = (
    "Ada",
    "ADA",
    " ada",
    "ada ",
    "ada\0",
    "ada\u200b",
    "\u202eada",
    "\uff41da",
    "\u0430da",
    "ad\u00e1",
    "ada\u0301",
    "%61da",
    "ada' OR '1'='1",
    "",
)


@pytest.mark.parametrize("subject", LOOKALIKES)
async def test_a_subject_that_looks_alike_is_somebody_else(
    subject: str, store: Store, tmp_path: Path
) -> None:
    access = Access(store, b"a secret", _Issuer())  # type: ignore[arg-type]  # all that is used of one
    identities = [Identity(issuer=_Issuer.name, subject=known) for known in ("ada", "ad\u00e0")]
    ada = await person(store, "ada", identities=identities)
    assert access.identify("ada").name == ada
    with pytest.raises(Unauthenticated):
        access.identify(subject)


async def test_a_token_that_is_revoked_or_expires_before_the_job_denies(store: Store, tmp_path: Path) -> None:
    access = opened(store, tmp_path)
    await a_runner(store, access)
    token, secret = await token_of(store, access, PERSON.name)
    job = let_in(access, secret)
    losing = told(lambda tx: tx.revoke_token(token), Event.KIND_TOKEN_REVOKED)
    outcomes = await asyncio.gather(store.write(losing), store.write(job), return_exceptions=True)
    assert isinstance(outcomes[1], Unauthenticated)
    soon = Token()
    soon.expire_time.FromNanoseconds(time.time_ns() + 200_000_000)
    _, secret = await token_of(store, access, PERSON.name, expire_time=soon.expire_time)
    job = let_in(access, secret)
    time.sleep(0.25)  # noqa: ASYNC251 - nothing else runs on this loop
    with pytest.raises(Unauthenticated):
        await store.write(job)
    assert store.reads.secret("written") is None


async def test_nobody_signs_in_as_a_group_and_its_role_counts(store: Store, tmp_path: Path) -> None:
    access = opened(store, tmp_path)
    await access.prepare(tmp_path, None)
    ada = await person(store, "ada", "VIEWER")
    team = await person(store, "team", "MAKER", kind=Principal.KIND_GROUP, members=[ada])
    _, secret = await token_of(store, access, ada)
    caller = access.identify(secret)
    assert (caller.role, caller.groups) == (Principal.ROLE_MAKER, (team,))
    _, groups = await token_of(store, access, team)
    with pytest.raises(Unauthenticated):
        access.identify(groups)


async def shared(store: Store, principal: str, access: Share.Access) -> None:
    await store.write(
        lambda tx: tx.put_pipeline(
            Pipeline(
                name="pipelines/sales",
                owner="principals/owner",
                shares=[Share(principal=principal, access=access)],
            )
        )
    )


@pytest.mark.parametrize(
    ("role", "access", "expected"),
    [
        ("UNSPECIFIED", Share.ACCESS_EDIT, 0),
        ("VIEWER", Share.ACCESS_EDIT, Reach.SEE),
        ("VIEWER", Share.ACCESS_RUN, Reach.SEE),
        ("USER", Share.ACCESS_EDIT, Reach.RUN),
        ("USER", Share.ACCESS_RUN, Reach.RUN),
        ("MAKER", Share.ACCESS_EDIT, Reach.EDIT),
        ("MAKER", Share.ACCESS_RUN, Reach.RUN),
        ("ADMINISTRATOR", Share.ACCESS_RUN, Reach.OWN),
    ],
)
async def test_the_role_and_the_share_together(
    role: str, access: Share.Access, expected: int, store: Store
) -> None:
    await shared(store, "principals/ada", access)
    ada = Caller("principals/ada", Principal.Role.Value(f"ROLE_{role}"))
    assert module.reach(store.reads, ada, "pipelines/sales") == expected


async def test_a_run_goes_on_only_while_its_requester_may_ask_for_it(store: Store) -> None:
    ada = await person(store, "ada", "USER")
    run = Run(name="runs/x", pipeline="pipelines/sales", requester=ada)
    assert not may_go_on(store.reads, run)
    await shared(store, ada, Share.ACCESS_RUN)
    assert may_go_on(store.reads, run)
    assert may_go_on(store.reads, Run(pipeline="pipelines/sales", requester="ada"))  # of the first version
    await person(store, "ada", "VIEWER")
    assert not may_go_on(store.reads, run)
    await person(store, "ada", "MAKER", disabled=True)
    assert not may_go_on(store.reads, run)
    await person(store, "ada", "MAKER")
    restore = Run(requester=ada, target_environment="environments/dev")
    assert not may_go_on(store.reads, restore)
    await store.write(lambda tx: tx.put_environment(Environment(name="environments/dev", makers=[ada])))
    assert may_go_on(store.reads, restore)
    artifact = Artifact(
        name=f"artifacts/{'a' * 64}",
        managed=True,
        source_sha256="b" * 64,
        source_environment="environments/secret",
    )
    await store.write(lambda tx: tx.put_artifact(artifact))
    restore.artifact = artifact.name
    assert not may_go_on(store.reads, restore)  # the unmanaged package is not for her
    artifact.source_environment = "environments/dev"
    await store.write(lambda tx: tx.put_artifact(artifact))
    assert may_go_on(store.reads, restore)


DEV = "environments/dev"
DEPLOY = api.DeployRequest(pipeline="pipelines/sales")


async def a_runner(store: Store, access: Access) -> str:
    """The secret of somebody who may deploy through the pipeline, as a member of a group."""
    ada = await person(store, "ada", "USER")
    await person(store, "team", "UNSPECIFIED", kind=Principal.KIND_GROUP, members=[ada])
    await shared(store, "principals/team", Share.ACCESS_RUN)
    await store.write(lambda tx: tx.put_environment(Environment(name="environments/dev", makers=[ada])))
    _, secret = await token_of(store, access, ada)
    await person(store, "somebody")  # with an event, so that all of this was heard of
    return secret


def let_in(
    access: Access, secret: str, method: str = HOST + "Deploy", request: Message = DEPLOY
) -> Callable[[Transaction], None]:
    """What the guard does, and a job that writes once it was decided again."""
    caller = access.identify(secret)
    access.check(caller, method)
    access.require(caller, method, request)
    again = access.again(caller, method, request)

    def job(tx: Transaction) -> None:
        again(tx)
        tx.put_secret("written", b"x")

    return job


def told(put: Callable[[Transaction], object], kind: Event.Kind) -> Callable[[Transaction], None]:
    def job(tx: Transaction) -> None:
        put(tx)
        tx.append(Event(kind=kind))

    return job


PERSON = Principal(name="principals/ada", kind=Principal.KIND_PERSON, role=Principal.ROLE_USER)
LOSSES: dict[str, Callable[[Transaction], None]] = {
    "role": told(
        lambda tx: tx.put_principal(Principal(name=PERSON.name, kind=PERSON.kind)),
        Event.KIND_PRINCIPAL_UPDATED,
    ),
    "person": told(lambda tx: tx.delete_principal(PERSON.name), Event.KIND_PRINCIPAL_DELETED),
    "group": told(
        lambda tx: tx.put_principal(Principal(name="principals/team", kind=Principal.KIND_GROUP)),
        Event.KIND_PRINCIPAL_UPDATED,
    ),
    "share": told(
        lambda tx: tx.put_pipeline(Pipeline(name="pipelines/sales", owner="principals/owner")),
        Event.KIND_PIPELINE_UPDATED,
    ),
    "environment": told(
        lambda tx: tx.put_environment(Environment(name="environments/dev")), Event.KIND_ENVIRONMENT_UPDATED
    ),
    "no environment": told(
        lambda tx: tx.delete_environment("environments/dev"), Event.KIND_ENVIRONMENT_DELETED
    ),
    "pipeline": told(lambda tx: tx.delete_pipeline("pipelines/sales"), Event.KIND_PIPELINE_DELETED),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_right_lost_between_the_guard_and_the_job_denies(
    loss: str, store: Store, tmp_path: Path
) -> None:
    access = opened(store, tmp_path)
    secret = await a_runner(store, access)
    if "environment" in loss:
        job = let_in(access, secret, HOST + "CheckEnvironment", api.CheckEnvironmentRequest(name=DEV))
    else:
        job = let_in(access, secret)
    outcomes = await asyncio.gather(store.write(LOSSES[loss]), store.write(job), return_exceptions=True)
    assert isinstance(outcomes[1], PermissionDenied | NotFound)
    assert store.reads.secret("written") is None


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_right_counts_with_the_next_call(loss: str, store: Store, tmp_path: Path) -> None:
    """Although the guard has just allowed the same to the same caller."""
    access = opened(store, tmp_path)
    secret = await a_runner(store, access)
    asked = (
        (HOST + "CheckEnvironment", api.CheckEnvironmentRequest(name=DEV))
        if "environment" in loss
        else (HOST + "Deploy", DEPLOY)
    )
    for _ in range(2):
        let_in(access, secret, *asked)
    await store.write(LOSSES[loss])
    with pytest.raises((PermissionDenied, NotFound, Unauthenticated)):
        let_in(access, secret, *asked)


async def test_a_role_lost_but_not_heard_of_yet_denies(store: Store, tmp_path: Path) -> None:
    """It is committed, and the loop has not come to it: whether the guard knows by then, or the job."""
    access = opened(store, tmp_path)
    secret = await a_runner(store, access)
    let_in(access, secret)
    before = store.reads.last_sequence()
    losing = asyncio.ensure_future(store.write(LOSSES["role"]))
    await asyncio.sleep(0)
    end = time.monotonic() + 10
    while store.reads.last_sequence() == before:
        assert time.monotonic() < end
    assert not losing.done()

    async def call() -> None:
        await store.write(let_in(access, secret))

    with pytest.raises(PermissionDenied):
        await call()
    assert store.reads.secret("written") is None


async def test_nothing_is_decided_again_where_no_rights_have_changed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = opened(store, tmp_path)
    secret = await a_runner(store, access)
    access.identify(secret)
    decided: list[str] = []
    real = module.caller

    def counted(reads: Any, name: str, token: str = "") -> Caller | None:
        decided.append(name)
        return real(reads, name, token)

    monkeypatch.setattr(module, "caller", counted)

    def fails(tx: Transaction) -> None:
        LOSSES["share"](tx)
        raise ValueError("no")

    for change in (lambda tx: tx.append(Event()), fails):
        job = let_in(access, secret)
        await asyncio.gather(store.write(change), store.write(job), return_exceptions=True)
        assert store.reads.secret("written") is not None
        await store.write(lambda tx: tx.delete_secret("written"))
        assert decided == []


async def test_hidden_and_absent_look_alike(store: Store, tmp_path: Path) -> None:
    await shared(store, "principals/else", Share.ACCESS_EDIT)
    access = opened(store, tmp_path)
    ada = Caller("principals/ada", Principal.ROLE_MAKER)
    told = []
    for name in ("pipelines/sales", "pipelines/bales"):
        with pytest.raises(NotFound) as refused:
            access.require(ada, HOST + "GetPipeline", api.GetPipelineRequest(name=name))
        error = refused.value
        told.append(repr((error.message, error.remedy, error.metadata)).replace(name, ""))
    assert told[0] == told[1]


async def test_a_role_is_asked_for_before_anything(store: Store, tmp_path: Path) -> None:
    access = opened(store, tmp_path)
    for method, rule in POLICY.items():
        for role in Principal.Role.values():
            caller = Caller("principals/x", role)
            if role >= rule.permission:
                access.check(caller, method)
            else:
                with pytest.raises(PermissionDenied, match="principals/x"):
                    access.check(caller, method)


def test_only_health_is_public() -> None:
    public = {path for path, rule in POLICY.items() if rule.permission is Permission.PUBLIC}
    assert {path.split("/")[1] for path in public} == {"grpc.health.v1.Health"}
