"""Setting the credential of an environment or a stage: who may, what is kept, and what is told of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tests.authority import application
from tests.rpc.conftest import DEVELOPMENT, TARGET, Bed, connected, pipeline

from pipelinehost import errors
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import Environment, Event, Pipeline, SignIn, Stage

ID = "01234567-89ab-cdef-0123-456789abcdef"
SECRET = api.SetEnvironmentCredentialRequest(name="environments/qa", client_secret="canary", request_id="one")


@pytest.fixture
def linked(bed: Bed) -> Bed:
    how = SignIn(method=SignIn.METHOD_CLIENT_SECRET, tenant="contoso.example", client_id=ID)
    bed.environment("qa", url="https://qa.crm4.dynamics.com", sign_in=how)
    return bed


def kept(bed: Bed, holder: str = "environments/qa") -> bytes | None:
    with connected(Path(bed.folder) / "pipelinehost.db") as database:
        row = database.execute(
            "SELECT ciphertext FROM secret WHERE name = ?", (f"{holder}/credential",)
        ).fetchone()
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


STAGE = "pipelines/sales/stages/qa"
OWN = SignIn(method=SignIn.METHOD_CLIENT_SECRET, tenant="contoso.example", client_id=ID)


@pytest.fixture
def sales(linked: Bed) -> Bed:
    """A pipeline of a maker's, to an https environment that they may use."""
    linked.environment("dev", DEVELOPMENT)
    linked.environment("other", url="https://other.crm4.dynamics.com", sign_in=OWN)
    linked.environment("embedded")
    linked.person("ada", "MAKER")
    for name in ("dev", "qa", "other", "embedded"):
        request = api.UpdateEnvironmentRequest(
            environment=Environment(name=f"environments/{name}", makers=["principals/ada"])
        )
        request.update_mask.paths.append("makers")
        linked.call("UpdateEnvironment", request)
    linked.pipeline(owner="principals/ada")
    return linked


def staged(environment: str = "environments/qa", sign_in: SignIn | None = OWN) -> api.UpdatePipelineRequest:
    stage = Stage(name=STAGE, environment=environment, sign_in=sign_in)
    request = api.UpdatePipelineRequest(pipeline=Pipeline(name="pipelines/sales", stages=[stage]))
    request.update_mask.paths.append("stages")
    return request


def test_only_administrators_give_a_stage_its_identity_or_take_it_away(sales: Bed) -> None:
    ada = sales.tokens["ada"]
    changed = SignIn(method=SignIn.METHOD_CLIENT_SECRET, tenant="evil.example", client_id=ID)

    def denied(request: api.UpdatePipelineRequest | api.CreatePipelineRequest) -> None:
        before = sales.snapshot()
        method = type(request).__name__.removesuffix("Request")
        with pytest.raises(errors.PermissionDenied) as refused:
            sales.call(method, request, token=ada)
        assert "administrator" in str(refused.value)
        assert sales.snapshot() == before

    denied(staged())
    denied(api.CreatePipelineRequest(pipeline=pipeline("new", stages=staged().pipeline.stages)))
    sales.call("UpdatePipeline", staged())
    credential = api.SetEnvironmentCredentialRequest(name=STAGE, client_secret="canary")
    with pytest.raises(errors.PermissionDenied):
        sales.call("SetEnvironmentCredential", credential, token=ada)
    sales.call("SetEnvironmentCredential", credential)
    denied(staged(sign_in=changed))
    denied(staged(sign_in=None))
    denied(staged(environment="environments/other"))
    gone = api.UpdatePipelineRequest(pipeline=Pipeline(name="pipelines/sales"))
    gone.pipeline.stages.add(name="pipelines/sales/stages/new", environment="environments/qa")
    gone.update_mask.paths.append("stages")
    denied(gone)
    described = staged()
    described.pipeline.stages[0].description = "kept"
    sales.call("UpdatePipeline", described, token=ada)
    assert kept(sales, STAGE), "a change of anything else leaves the credential"


def test_the_credential_of_a_stage_goes_with_its_identity(sales: Bed) -> None:
    sales.call("UpdatePipeline", staged())
    credential = api.SetEnvironmentCredentialRequest(name=STAGE, client_secret="canary")

    def given() -> None:
        sales.call("SetEnvironmentCredential", credential)
        assert kept(sales, STAGE)

    other = SignIn(method=SignIn.METHOD_CLIENT_SECRET, tenant="other.example", client_id=ID)
    for change in (staged(sign_in=other), staged(sign_in=None), staged(environment="environments/other")):
        given()
        sales.call("UpdatePipeline", change)
        assert kept(sales, STAGE) is None
        assert f"the credential of {STAGE} was deleted" in sales.events()[-1].message
        sales.call("UpdatePipeline", staged())
    given()
    moved = Environment(name="environments/qa", url="https://moved.crm4.dynamics.com")
    request = api.UpdateEnvironmentRequest(environment=moved)
    request.update_mask.paths.append("url")
    sales.call("UpdateEnvironment", request)
    assert kept(sales, STAGE) is None, "it was set for another address"
    given()
    sales.call("DeletePipeline", api.DeletePipelineRequest(name="pipelines/sales"))
    assert kept(sales, STAGE) is None


def test_an_identity_has_to_fit_its_environment(sales: Bed) -> None:
    cases = {
        "nobody signs in to environments/embedded": staged("environments/embedded"),
        "is required by the method": staged(sign_in=SignIn(method=SignIn.METHOD_CLIENT_SECRET, tenant="x")),
        "is required for an https environment": staged(sign_in=SignIn()),
        "is none of": staged(
            sign_in=SignIn(
                method="METHOD_CLIENT_SECRET", tenant="x", client_id=ID, authority="https://evil.example"
            )
        ),
    }
    for words, request in cases.items():
        with pytest.raises(errors.InvalidArgument, match=words) as refused:
            sales.call("UpdatePipeline", request)
        assert refused.value.violations[0].subject.startswith("pipeline.stages[0].sign_in")
    credential = api.SetEnvironmentCredentialRequest(name=STAGE, client_secret="canary")
    with pytest.raises(errors.InvalidArgument, match="set its sign_in to an application first"):
        sales.call("SetEnvironmentCredential", credential)
    credential.name = "pipelines/sales/stages/none"
    with pytest.raises(errors.NotFound):
        sales.call("SetEnvironmentCredential", credential)
