"""Setting the credential of an environment: who may, what is kept, and what is told of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tests.authority import application
from tests.rpc.conftest import TARGET, Bed, connected

from pipelinehost import errors
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import Environment, Event, SignIn

ID = "01234567-89ab-cdef-0123-456789abcdef"
SECRET = api.SetEnvironmentCredentialRequest(name="environments/qa", client_secret="canary", request_id="one")
NAME = "environments/qa/credential"


@pytest.fixture
def linked(bed: Bed) -> Bed:
    how = SignIn(method=SignIn.METHOD_CLIENT_SECRET, tenant="contoso.example", client_id=ID)
    bed.environment("qa", url="https://qa.crm4.dynamics.com", sign_in=how)
    return bed


def kept(bed: Bed) -> bytes | None:
    with connected(Path(bed.folder) / "pipelinehost.db") as database:
        row = database.execute("SELECT ciphertext FROM secret WHERE name = ?", (NAME,)).fetchone()
    return row[0] if row else None


def test_an_event_says_that_it_was_set_and_nothing_else(linked: Bed) -> None:
    linked.call("SetEnvironmentCredential", SECRET)
    told = linked.events()[-1]
    assert (told.kind, told.actor, told.subject) == (
        Event.KIND_CREDENTIAL_SET,
        "principals/admin",
        "environments/qa",
    )
    assert told.WhichOneof("detail") is None
    assert told.message == ""
    assert b"canary" not in (kept(linked) or b"canary")


def test_a_repeated_request_is_done_once_and_another_one_needs_an_id_of_its_own(linked: Bed) -> None:
    linked.call("SetEnvironmentCredential", SECRET)
    before = kept(linked)
    linked.call("SetEnvironmentCredential", SECRET)
    assert kept(linked) == before
    other = api.SetEnvironmentCredentialRequest(
        name="environments/qa", client_secret="other", request_id="one"
    )
    with pytest.raises(errors.AlreadyExists):
        linked.call("SetEnvironmentCredential", other)
    other.request_id = "two"
    linked.call("SetEnvironmentCredential", other)
    assert kept(linked) != before
    assert sum(e.kind == Event.KIND_CREDENTIAL_SET for e in linked.events()) == 2


def test_what_is_kept_of_a_request_does_not_help_to_guess_it(linked: Bed) -> None:
    linked.call("SetEnvironmentCredential", SECRET)
    with connected(Path(linked.folder) / "pipelinehost.db") as database:
        [(digest,)] = database.execute("SELECT body_sha256 FROM request WHERE request_id = 'one'").fetchall()
    plain = {hashlib.sha256(text).digest() for text in (SECRET.SerializeToString(), b"canary")}
    assert digest not in plain


def test_only_who_may_configure_sets_it(linked: Bed) -> None:
    maker = linked.person("maker")
    before = linked.snapshot()
    with pytest.raises(errors.PermissionDenied):
        linked.call("SetEnvironmentCredential", SECRET, token=maker)
    assert linked.snapshot() == before


def test_a_certificate_where_one_is_asked_for(linked: Bed) -> None:
    wrong = api.SetEnvironmentCredentialRequest(name="environments/qa", certificate=application())
    with pytest.raises(errors.InvalidArgument) as refused:
        linked.call("SetEnvironmentCredential", wrong)
    assert [v.subject for v in refused.value.violations] == ["client_secret"]
    how = SignIn(method=SignIn.METHOD_CERTIFICATE, tenant="contoso.example", client_id=ID)
    changed = Environment(name="environments/qa", url="https://qa.crm4.dynamics.com", sign_in=how)
    linked.call("UpdateEnvironment", api.UpdateEnvironmentRequest(environment=changed))
    linked.call("SetEnvironmentCredential", wrong)
    assert kept(linked)
    wrong.certificate = application().partition("-----BEGIN RSA")[0]
    with pytest.raises(errors.InvalidArgument) as refused:
        linked.call("SetEnvironmentCredential", wrong)
    assert "no private key" in refused.value.violations[0].description


def test_a_deleted_environment_leaves_no_credential(linked: Bed) -> None:
    linked.call("SetEnvironmentCredential", SECRET)
    assert kept(linked)
    linked.call("DeleteEnvironment", api.DeleteEnvironmentRequest(name="environments/qa"))
    assert kept(linked) is None
    with pytest.raises(errors.NotFound):
        linked.call("SetEnvironmentCredential", api.SetEnvironmentCredentialRequest(name="environments/qa"))


def test_a_refused_update_leaves_the_credential(linked: Bed) -> None:
    linked.call("SetEnvironmentCredential", SECRET)
    before = kept(linked)
    wrong = Environment(name="environments/qa", url="https://10.0.0.1", kind=TARGET)
    with pytest.raises(errors.InvalidArgument):
        linked.call("UpdateEnvironment", api.UpdateEnvironmentRequest(environment=wrong))
    assert kept(linked) == before
