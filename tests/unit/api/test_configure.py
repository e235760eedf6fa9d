"""The checks of what is configured, without a host."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given
from hypothesis import strategies as st

from pipelinehost.errors import Aborted, FailedPrecondition, InvalidArgument, Violation
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Environment, Gate, Identity, Pipeline, Principal, SignIn, Stage
from pipelinehost_server import rules
from pipelinehost_server.api import configure


def environment(**fields: Any) -> Environment:
    return Environment(name="environments/qa", kind=Environment.KIND_TARGET, **fields)


REAL = "https://contoso.crm4.dynamics.com"
ID = "01234567-89ab-cdef-0123-456789abcdef"
APPLICATION = SignIn(method=SignIn.METHOD_CLIENT_SECRET, tenant="contoso.onmicrosoft.com", client_id=ID)


def linked(url: str, sign_in: SignIn = APPLICATION, **fields: Any) -> Environment:
    """With a sign-in where one is needed."""
    made = environment(url=url, **fields)
    if url.lower().startswith("https:"):
        made.sign_in.CopyFrom(sign_in)
    return made


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://contoso.crm4.dynamics.com",
        "https://contoso.crm4.dynamics.com/",
        "https://contoso.crm4.dynamics.com:443",
        "https://127.0.0.1:8443/qa",
        "https://localhost:8443/qa",
        "http://127.0.0.1:8080",
        "http://127.3.2.1",
        "http://[::1]:8080/qa",
        "http://localhost:8080",
        "HTTPS://contoso.crm4.dynamics.com",
    ],
)
def test_addresses_that_may_be_linked(url: str) -> None:
    assert configure.environment_violations(linked(url)) == []


@pytest.mark.parametrize(
    "url",
    [
        "https://contoso.crm4.dynamics.com:8443",
        "https://contoso.crm4.dynamics.com/api/data",
        "https://contoso.example",
        "https://dynamics.com.example",
        "https://10.0.0.1",
        "https://[::ffff:127.0.0.1]",
        "contoso.crm4.dynamics.com",
        "http://contoso.crm4.dynamics.com",
        "http://10.0.0.1",
        "http://169.254.169.254/latest",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://[::ffff:127.0.0.1]",
        "http://2130706433",
        "http://0x7f.1",
        "http://0.0.0.0",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://user@contoso.example",
        "https://user:secret@contoso.example",
        "https://@contoso.example",
        "https://contoso.example?a=b",
        "https://contoso.example/?",
        "https://contoso.example#a",
        "https://contoso.example/#",
        "https://contoso.example:99999",
        "https://contoso.example:a",
        "https://[::1",
        "https://contoso.example\\@evil.example",
        "https://contoso .example",
        "https://contoso.example/\t",
        "https://contoso.exämple",
        "http://127.0.0.1\n.evil.example",
    ],
)
def test_addresses_that_may_not_be_linked(url: str) -> None:
    for field in ("url", "connectivity_url"):
        wanted = linked(REAL)
        setattr(wanted, field, url)
        found = configure.environment_violations(wanted)
        assert [v.subject for v in found] == [f"environment.{field}"]
        assert "secret" not in found[0].description


@given(st.text(max_size=60))
def test_no_address_is_a_defect(url: str) -> None:
    configure.environment_violations(environment(url=url))


def test_what_belongs_to_embedded_environments_only() -> None:
    found = configure.environment_violations(linked(REAL, installed_apps={"msdyn_App": "1.0"}))
    assert [v.subject for v in found] == ["environment.installed_apps"]
    assert configure.environment_violations(environment(installed_apps={"msdyn_App": "1.0"})) == []
    found = configure.environment_violations(environment(connectivity_url=REAL))
    assert [v.subject for v in found] == ["environment.connectivity_url"]
    found = configure.environment_violations(environment(installed_apps={"a b": "1", "c": "one"}))
    assert {v.subject for v in found} == {
        'environment.installed_apps["a b"]',
        'environment.installed_apps["c"]',
    }


@pytest.mark.parametrize(
    "name", ["", "qa", "environments/", "environments/QA", "environments/a/b", "pipelines/a"]
)
def test_names_have_a_shape(name: str) -> None:
    found = configure.environment_violations(Environment(name=name, kind=Environment.KIND_TARGET))
    assert [v.subject for v in found] == ["environment.name"]


def test_an_environment_is_of_one_kind() -> None:
    found = configure.environment_violations(Environment(name="environments/a"))
    assert [v.subject for v in found] == ["environment.kind"]


def stored() -> Environment:
    return environment(display_name="a", region="b", installed_apps={"x": "1"}, etag="e", description="d")


@pytest.mark.parametrize("paths", [[], ["*"]])
def test_a_whole_update_clears_what_was_left_out(paths: list[str]) -> None:
    fresh, found = configure.merged(stored(), environment(region="c"), FieldMask(paths=paths))
    assert found == []
    assert fresh == environment(region="c")


def test_a_masked_update_touches_its_fields_only() -> None:
    before = stored()
    fresh, found = configure.merged(
        before,
        environment(region="c", display_name="ignored", installed_apps={"y": "2"}),
        FieldMask(paths=["installed_apps", "description"]),
    )
    assert found == []
    assert fresh == environment(display_name="a", region="b", installed_apps={"y": "2"})
    assert before == stored()
    pipeline, _ = configure.merged(
        Pipeline(name="pipelines/a", allow_redeployment=True),
        Pipeline(),
        FieldMask(paths=["allow_redeployment"]),
    )
    assert not pipeline.allow_redeployment


@pytest.mark.parametrize(
    "path", ["name", "kind", "etag", "create_time", "nothing", "installed_apps.x", "", "*"]
)
def test_a_mask_names_what_can_be_changed(path: str) -> None:
    _, found = configure.merged(stored(), environment(), FieldMask(paths=["region", path]))
    assert [v.subject for v in found] == ["update_mask.paths[1]"]


def test_wrong_fields_go_before_preconditions_and_tell_both() -> None:
    field, unmet = Violation("a", "wrong"), Violation("b", "unmet", "ENVIRONMENT_KIND")
    configure.refuse([], [])
    with pytest.raises(InvalidArgument) as refused:
        configure.refuse([field], [unmet])
    assert refused.value.violations == (field, unmet)
    with pytest.raises(FailedPrecondition) as forbidden:
        configure.refuse([], [unmet])
    assert forbidden.value.reason == ErrorReason.ERROR_REASON_ENVIRONMENT_KIND


def test_an_empty_etag_takes_whatever_is_there() -> None:
    configure.require_etag("", stored())
    configure.require_etag("e", stored())
    with pytest.raises(Aborted):
        configure.require_etag("f", stored())


@pytest.mark.parametrize(
    ("sign_in", "wrong"),
    [
        (SignIn(), ["method"]),
        (APPLICATION, []),
        (SignIn(method=SignIn.METHOD_CERTIFICATE, tenant=ID, client_id=ID), []),
        (SignIn(method=SignIn.METHOD_CLIENT_SECRET), ["tenant", "client_id"]),
        (SignIn(method=SignIn.METHOD_CERTIFICATE, client_id="sales"), ["tenant", "client_id"]),
        (SignIn(method=SignIn.METHOD_CLIENT_SECRET, tenant="a/../b", client_id=ID), ["tenant"]),
        (SignIn(method=SignIn.METHOD_MANAGED_IDENTITY), []),
        (SignIn(method=SignIn.METHOD_MANAGED_IDENTITY, client_id=ID), []),
        (SignIn(method=SignIn.METHOD_MANAGED_IDENTITY, tenant=ID, authority="x"), ["tenant", "authority"]),
        (SignIn(method=SignIn.METHOD_DEVELOPER, tenant=ID), []),
        (SignIn(method=SignIn.METHOD_DEVELOPER, client_id=ID), ["client_id"]),
    ],
)
def test_each_method_of_signing_in_has_its_fields(sign_in: SignIn, wrong: list[str]) -> None:
    found = configure.environment_violations(linked(REAL, sign_in))
    assert sorted(v.subject for v in found) == sorted(f"environment.sign_in.{field}" for field in wrong)


@pytest.mark.parametrize("field", ["tenant", "client_id", "authority"])
def test_a_secret_in_the_wrong_field_is_not_repeated(field: str) -> None:
    sign_in = SignIn()
    sign_in.CopyFrom(APPLICATION)
    for text in ("c4n4ry~secret", "https://user:c4n4ry@login.example", "https://[::c4n4ry"):
        setattr(sign_in, field, text)
        [found] = configure.environment_violations(linked(REAL, sign_in))
        assert found.subject == f"environment.sign_in.{field}"
        assert "c4n4ry" not in found.description


@pytest.mark.parametrize("rest", ["?code=c4n4ry", "#c4n4ry", "@c4n4ry"])
@pytest.mark.parametrize("start", ["https://contoso.crm.dynamics.com/", "ftp://contoso", "https://[::1", ""])
def test_a_secret_in_an_address_is_not_repeated(start: str, rest: str) -> None:
    for found in configure.environment_violations(linked(start + rest)):
        assert "c4n4ry" not in found.description


@pytest.mark.parametrize(
    ("issuer", "fine"),
    [
        ("https://login.example/tenant/v2.0", True),
        ("https://user:c4n4ry@login.example", False),
        ("http://127.0.0.1:8080/realm", True),
        ("http://localhost:c4n4ry@login.example", False),
    ],
)
def test_an_issuer_has_no_password(issuer: str, fine: bool) -> None:
    ada = Principal(
        name="principals/ada",
        kind=Principal.KIND_PERSON,
        identities=[Identity(issuer=issuer, subject="ada")],
    )
    found = configure.principal_violations(ada)
    assert [v.subject for v in found] == ([] if fine else ["principal.identities[0].issuer"])
    assert "c4n4ry" not in str(found)


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:8080/qa"])
def test_nobody_signs_in_without_https(url: str) -> None:
    found = configure.environment_violations(environment(url=url, sign_in=APPLICATION))
    assert [v.subject for v in found] == ["environment.sign_in"]


@pytest.mark.parametrize(
    ("url", "authority", "fine"),
    [
        (REAL, "https://login.microsoftonline.us", True),
        (REAL, "https://login.microsoftonline.com/", True),
        (REAL, "https://login.evil.example", False),
        (REAL, "http://login.microsoftonline.com", False),
        (REAL, "https://login.microsoftonline.com.evil.example", False),
        (REAL, "https://login.microsoftonline.com@evil.example", False),
        (REAL, "https://127.0.0.1:8443", False),
        ("https://127.0.0.1:8443/qa", "https://127.0.0.1:8443", True),
        ("https://127.0.0.1:8443/qa", "https://user@127.0.0.1:8443", False),
        ("https://127.0.0.1:8443/qa", "https://10.0.0.1", False),
    ],
)
def test_a_secret_is_sent_to_known_authorities_only(url: str, authority: str, fine: bool) -> None:
    sign_in = SignIn()
    sign_in.CopyFrom(APPLICATION)
    sign_in.authority = authority
    found = configure.environment_violations(linked(url, sign_in))
    assert [v.subject for v in found] == ([] if fine else ["environment.sign_in.authority"])


def test_a_token_would_not_go_to_an_unencrypted_address() -> None:
    found = configure.environment_violations(linked(REAL, connectivity_url="http://127.0.0.1:80"))
    assert [v.subject for v in found] == ["environment.connectivity_url"]


def test_what_a_gate_must_say() -> None:
    stages = [
        Stage(
            name="pipelines/a/stages/qa",
            environment="environments/qa",
            gates=[
                Gate(kind=Gate.KIND_PRE_EXPORT, approvers=["principals/ada", "principals/ben"], required=2),
                Gate(kind=Gate.KIND_APPROVAL, approvers=["principals/ada", "principals/ada"], required=21),
                Gate(kind=Gate.KIND_APPROVAL, timeout_seconds=rules.MOST_GATE_SECONDS + 1),
                Gate(approvers=["no name"]),
            ],
        ),
        Stage(
            name="pipelines/a/stages/prod",
            environment="environments/prod",
            gates=[Gate(kind=Gate.KIND_PRE_EXPORT, approvers=[f"principals/p{i}" for i in range(21)])],
        ),
    ]
    found = configure.pipeline_violations(Pipeline(name="pipelines/a", stages=stages))
    assert [v.subject.removeprefix("pipeline.stages") for v in found] == [
        "[0].gates[1].approvers[1]",
        "[0].gates[1].required",
        "[0].gates[2].kind",
        "[0].gates[2].approvers",
        "[0].gates[2].timeout_seconds",
        "[0].gates[3].kind",
        "[0].gates[3].approvers[0]",
        "[1].gates[0].kind",
        "[1].gates[0].approvers",
    ]
