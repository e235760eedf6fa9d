"""Configuring environments, connections and pipelines: rules, etags, masks, request ids, events."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tests.rpc.conftest import DEVELOPMENT, TARGET, Bed, connected, pipeline

from pipelinehost import errors, names
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import (
    Connection,
    DeploymentSettings,
    Environment,
    EnvironmentVariableSetting,
    Event,
    Pipeline,
    Principal,
    SignIn,
    Stage,
)

OFFICE = "/providers/Microsoft.PowerApps/apis/shared_office365"


@pytest.fixture
def sales(bed: Bed) -> Bed:
    """Environments dev, qa and prod."""
    bed.environment("dev", DEVELOPMENT)
    bed.environment("qa")
    bed.environment("prod")
    return bed


def kinds(bed: Bed) -> list[str]:
    return [Event.Kind.Name(e.kind).removeprefix("KIND_") for e in bed.events()]


def test_an_environment_lives(bed: Bed) -> None:
    made = bed.environment("qa", display_name="Quality", region="europe")
    assert made.etag
    assert made.create_time == made.update_time
    assert (bed.folder / "environments" / "qa.sqlite").is_file()
    got = bed.bridge("GetEnvironment", api.GetEnvironmentRequest(name="environments/qa"))
    assert got == made
    changed = bed.call(
        "UpdateEnvironment",
        api.UpdateEnvironmentRequest(
            environment=Environment(name="environments/qa", region="asia", etag=made.etag),
            update_mask=FieldMask(paths=["region"]),
        ),
    )
    assert (changed.display_name, changed.region) == ("Quality", "asia")
    assert changed.etag != made.etag
    assert changed.create_time == made.create_time
    bed.bridge("DeleteEnvironment", api.DeleteEnvironmentRequest(name="environments/qa", etag=changed.etag))
    with pytest.raises(errors.NotFound):
        bed.call("GetEnvironment", api.GetEnvironmentRequest(name="environments/qa"))
    told = bed.events()[-4:]
    assert [Event.Kind.Name(e.kind) for e in told] == [
        "KIND_ENVIRONMENT_CREATED",
        "KIND_ENVIRONMENT_UPDATED",  # by the host, which has learnt its organization
        "KIND_ENVIRONMENT_UPDATED",
        "KIND_ENVIRONMENT_DELETED",
    ]
    assert [e.environment for e in told[1:]] == [made, changed, changed]
    assert made.organization_id
    assert [e.actor for e in told] == ["principals/admin", "host", "principals/admin", "principals/admin"]
    assert {e.subject for e in told} == {"environments/qa"}


def test_a_pipeline_lives(sales: Bed) -> None:
    made = sales.pipeline(display_name="Sales")
    assert sales.bridge("GetPipeline", api.GetPipelineRequest(name="pipelines/sales")) == made
    wanted = pipeline(display_name="ignored", allow_redeployment=True)
    wanted.stages.add(name="pipelines/sales/stages/prod", environment="environments/prod")
    changed = sales.call(
        "UpdatePipeline",
        api.UpdatePipelineRequest(
            pipeline=wanted, update_mask=FieldMask(paths=["stages", "allow_redeployment"])
        ),
    )
    assert (changed.display_name, len(changed.stages), changed.allow_redeployment) == ("Sales", 2, True)
    cleared = sales.call("UpdatePipeline", api.UpdatePipelineRequest(pipeline=pipeline()))
    assert (cleared.display_name, len(cleared.stages), cleared.allow_redeployment) == ("", 1, False)
    sales.call("DeletePipeline", api.DeletePipelineRequest(name="pipelines/sales"))
    assert kinds(sales)[-4:] == [
        "PIPELINE_CREATED",
        "PIPELINE_UPDATED",
        "PIPELINE_UPDATED",
        "PIPELINE_DELETED",
    ]
    assert [e.pipeline for e in sales.events()[-4:]] == [made, changed, cleared, cleared]


def test_all_that_is_wrong_with_a_pipeline_comes_at_once(sales: Bed) -> None:
    settings = DeploymentSettings(
        environment_variables=[
            EnvironmentVariableSetting(schema_name="cts_a"),
            EnvironmentVariableSetting(schema_name="CTS_A"),
            EnvironmentVariableSetting(schema_name=" "),
        ]
    )
    stages = [
        Stage(name="pipelines/sales/stages/qa", environment="environments/qa", settings=settings),
        Stage(name="pipelines/sales/stages/qa", environment="environments/dev"),
        Stage(name="pipelines/other/stages/a", environment="environments/qa"),
        Stage(name="prod", environment="environments/nowhere"),
        Stage(name="pipelines/sales/stages/b"),
    ]
    wanted = pipeline(stages=stages, development_environments=["environments/qa", "environments/qa"])
    before = sales.snapshot()
    with pytest.raises(errors.InvalidArgument) as refused:
        sales.call("CreatePipeline", api.CreatePipelineRequest(pipeline=wanted))
    found = {v.subject for v in refused.value.violations}
    assert found == {
        "pipeline.development_environments[0]",
        "pipeline.development_environments[1]",
        "pipeline.stages[0].settings.environment_variables[1].schema_name",
        "pipeline.stages[0].settings.environment_variables[2].schema_name",
        "pipeline.stages[1].name",
        "pipeline.stages[1].environment",
        "pipeline.stages[2].name",
        "pipeline.stages[2].environment",
        "pipeline.stages[3].name",
        "pipeline.stages[3].environment",
        "pipeline.stages[4].environment",
    }
    assert sales.snapshot() == before


def test_what_the_state_of_the_host_forbids_is_a_failed_precondition(sales: Bed) -> None:
    stages = [
        Stage(name="pipelines/sales/stages/qa", environment="environments/dev"),
        Stage(name="pipelines/sales/stages/prod", environment="environments/nowhere"),
    ]
    with pytest.raises(errors.FailedPrecondition) as refused:
        sales.call("CreatePipeline", api.CreatePipelineRequest(pipeline=pipeline(stages=stages)))
    assert [(v.subject, v.code) for v in refused.value.violations] == [
        ("pipeline.stages[0].environment", "ENVIRONMENT_KIND"),
        ("pipeline.stages[1].environment", "RESOURCE_NOT_FOUND"),
    ]
    assert "no environments/nowhere that you may use" in refused.value.violations[1].description
    assert refused.value.reason == ErrorReason.ERROR_REASON_ENVIRONMENT_KIND


@pytest.mark.parametrize("count", [0, 8])
def test_a_pipeline_has_one_to_seven_stages(count: int, sales: Bed) -> None:
    for i in range(count):
        sales.environment(f"e{i}")
    stages = [
        Stage(name=f"pipelines/sales/stages/s{i}", environment=f"environments/e{i}") for i in range(count)
    ]
    with pytest.raises(errors.InvalidArgument) as refused:
        sales.call("CreatePipeline", api.CreatePipelineRequest(pipeline=pipeline(stages=stages)))
    assert [v.subject for v in refused.value.violations] == ["pipeline.stages"]
    if count:
        del stages[-1]
        sales.call("CreatePipeline", api.CreatePipelineRequest(pipeline=pipeline(stages=stages)))


def test_regions_must_be_the_same_unless_the_host_allows_otherwise(tmp_path: Any) -> None:
    for allow in (False, True):
        bed = Bed(tmp_path / str(allow), region="europe", allow_cross_region=allow)
        try:
            bed.environment("dev", DEVELOPMENT, region="europe")
            if allow:
                bed.environment("qa", region="asia")
                bed.pipeline()
                assert bed.call("GetHost", api.GetHostRequest()).allow_cross_region
                continue
            with pytest.raises(errors.FailedPrecondition) as refused:
                bed.environment("qa", region="asia")
            assert [(v.subject, v.code) for v in refused.value.violations] == [
                ("environment.region", "REGION_MISMATCH")
            ]
        finally:
            bed.close()


def test_an_etag_lets_no_change_be_lost(sales: Bed) -> None:
    read = sales.pipeline()
    newer = sales.call("UpdatePipeline", api.UpdatePipelineRequest(pipeline=pipeline(description="b")))
    stale = pipeline(description="c", etag=read.etag)
    for method, request in (
        ("UpdatePipeline", api.UpdatePipelineRequest(pipeline=stale)),
        ("UpdatePipeline", api.UpdatePipelineRequest(pipeline=stale, validate_only=True)),
        ("DeletePipeline", api.DeletePipelineRequest(name=read.name, etag=read.etag)),
    ):
        for send in (sales.call, sales.bridge):
            with pytest.raises(errors.Aborted) as refused:
                send(method, request)
            assert refused.value.reason == ErrorReason.ERROR_REASON_ETAG_MISMATCH
    assert sales.call("GetPipeline", api.GetPipelineRequest(name=read.name)) == newer
    sales.call(
        "UpdatePipeline", api.UpdatePipelineRequest(pipeline=pipeline(description="c", etag=newer.etag))
    )


def test_validate_only_checks_everything_and_changes_nothing(sales: Bed) -> None:
    sales.pipeline("other")
    sales.environment("far", url="http://127.0.0.1:1")
    before = sales.snapshot()
    created = sales.call(
        "CreatePipeline", api.CreatePipelineRequest(pipeline=pipeline(), validate_only=True, request_id="a")
    )
    assert created.stages[0].environment == "environments/qa"
    assert not created.etag
    sales.call(
        "CreateEnvironment",
        api.CreateEnvironmentRequest(
            environment=Environment(name="environments/new", kind=TARGET), validate_only=True
        ),
    )
    sales.call(
        "UpdateEnvironment",
        api.UpdateEnvironmentRequest(environment=Environment(name="environments/qa"), validate_only=True),
    )
    sales.call(
        "UpdatePipeline",
        api.UpdatePipelineRequest(pipeline=pipeline("other", display_name="x"), validate_only=True),
    )
    sales.call("DeletePipeline", api.DeletePipelineRequest(name="pipelines/other", validate_only=True))
    sales.call(
        "CreateConnection",
        api.CreateConnectionRequest(
            environment="environments/qa", connection=Connection(connector_id=OFFICE), validate_only=True
        ),
    )
    refused: list[tuple[str, Any, type[Exception]]] = [
        (
            "CreatePipeline",
            api.CreatePipelineRequest(pipeline=pipeline("other"), validate_only=True),
            errors.AlreadyExists,
        ),
        (
            "CreateEnvironment",
            api.CreateEnvironmentRequest(
                environment=Environment(name="environments/qa", kind=TARGET), validate_only=True
            ),
            errors.AlreadyExists,
        ),
        (
            "DeleteEnvironment",
            api.DeleteEnvironmentRequest(name="environments/qa", validate_only=True),
            errors.FailedPrecondition,
        ),
        (
            "CreateConnection",
            api.CreateConnectionRequest(
                environment="environments/far",
                connection=Connection(connector_id=OFFICE),
                validate_only=True,
            ),
            errors.FailedPrecondition,
        ),
        (
            "DeleteConnection",
            api.DeleteConnectionRequest(name="environments/far/connections/mail", validate_only=True),
            errors.FailedPrecondition,
        ),
        (
            "DeleteConnection",
            api.DeleteConnectionRequest(name="environments/qa/connections/none", validate_only=True),
            errors.NotFound,
        ),
        (
            "DeletePipeline",
            api.DeletePipelineRequest(name="pipelines/none", validate_only=True),
            errors.NotFound,
        ),
    ]
    for method, request, kind in refused:
        with pytest.raises(kind):
            sales.call(method, request)
    assert sales.snapshot() == before
    assert not (sales.folder / "environments" / "new.sqlite").exists()


def test_a_request_id_makes_a_repeated_call_give_the_same_answer(sales: Bed) -> None:
    create = api.CreatePipelineRequest(pipeline=pipeline(), request_id="create")
    made = sales.call("CreatePipeline", create)
    update = api.UpdatePipelineRequest(
        pipeline=pipeline(description="b", etag=made.etag), request_id="update"
    )
    changed = sales.call("UpdatePipeline", update)
    delete = api.DeletePipelineRequest(name=made.name, etag=changed.etag, request_id="delete")
    sales.call("DeletePipeline", delete)
    after = sales.snapshot()
    for send in (sales.call, sales.bridge):
        assert send("CreatePipeline", create) == made
        assert send("UpdatePipeline", update) == changed
        send("DeletePipeline", delete)
        with pytest.raises(errors.AlreadyExists) as refused:
            send("CreatePipeline", api.CreatePipelineRequest(pipeline=pipeline("b"), request_id="create"))
        assert refused.value.reason == ErrorReason.ERROR_REASON_REQUEST_ID_REUSED
        with pytest.raises(errors.AlreadyExists):
            send("DeletePipeline", api.DeletePipelineRequest(name=made.name, request_id="create"))
    assert sales.snapshot() == after
    sales.stop()
    sales.start()
    assert sales.call("CreatePipeline", create) == made


def test_a_request_without_an_id_is_done_again_and_leaves_nothing_to_remember(sales: Bed) -> None:
    for description in ("a", "a"):
        changed = pipeline("sales", description=description)
        sales.call("CreatePipeline", api.CreatePipelineRequest(pipeline=changed))
        sales.call("DeletePipeline", api.DeletePipelineRequest(name=changed.name))
    with connected(sales.folder / "pipelinehost.db") as database:
        assert database.execute("select count(*) from request").fetchone() == (0,)


def test_a_request_id_means_nothing_to_another_caller(sales: Bed) -> None:
    create = api.CreatePipelineRequest(pipeline=pipeline(), request_id="create")
    sales.call("CreatePipeline", create)
    other = sales.person("other", "ADMINISTRATOR")
    with pytest.raises(errors.AlreadyExists) as refused:
        sales.call("CreatePipeline", create, token=other)
    assert refused.value.reason == ErrorReason.ERROR_REASON_RESOURCE_EXISTS


def test_64_repeats_at_once_are_done_once(sales: Bed) -> None:
    request = api.CreatePipelineRequest(pipeline=pipeline(), request_id="herd")
    with ThreadPoolExecutor(64) as threads:
        answers = list(threads.map(lambda _: sales.call("CreatePipeline", request), range(64)))
    assert all(answer == answers[0] for answer in answers)
    assert kinds(sales).count("PIPELINE_CREATED") == 1


def test_a_repeated_request_makes_no_second_token(bed: Bed) -> None:
    bed.person("ada")
    request = api.CreateTokenRequest(principal="principals/ada", description="laptop", request_id="lost")
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: outcome(bed, request), range(8)))
    (answer,) = [a for a in made if isinstance(a, api.CreateTokenResponse)]
    for refused in (a for a in made if not isinstance(a, api.CreateTokenResponse)):
        assert isinstance(refused, errors.AlreadyExists)
        assert refused.metadata["resource"] == answer.token.name
        assert names.slug(answer.token.name) in refused.remedy
        assert answer.secret not in repr((refused, refused.metadata, refused.remedy))
    tokens = api.ListTokensRequest(principal="principals/ada")
    assert sorted(t.description for t in bed.call("ListTokens", tokens).tokens) == ["", "laptop"]
    assert bed.call("GetHost", api.GetHostRequest(), token=answer.secret).caller == "principals/ada"
    request.description = "phone"
    with pytest.raises(errors.AlreadyExists) as reused:
        bed.call("CreateToken", request)
    assert reused.value.reason_name == "REQUEST_ID_REUSED"
    with pytest.raises(errors.InvalidArgument):
        bed.call("CreateToken", api.CreateTokenRequest(principal="principals/ada", request_id="x" * 201))
    request.ClearField("request_id")
    assert bed.call("CreateToken", request).token.name != bed.call("CreateToken", request).token.name


def test_tokens_are_listed_oldest_first(bed: Bed) -> None:
    bed.person("ada")
    wanted = [
        f"token {n}" for n in range(8)
    ]  # that their random names happen to be in this order: 1 in 40,320
    for description in wanted:
        request = api.CreateTokenRequest(principal="principals/ada", description=description)
        bed.call("CreateToken", request)
    listed: list[str] = []
    page = api.ListTokensRequest(principal="principals/ada", page_size=3)
    while True:
        answer = bed.call("ListTokens", page)
        assert len(answer.tokens) <= 3
        listed += [t.description for t in answer.tokens]
        if not answer.next_page_token:
            break
        page.page_token = answer.next_page_token
    assert [d for d in listed if d] == wanted
    page.principal = "principals/admin"
    with pytest.raises(errors.InvalidArgument, match="page_token"):
        bed.call("ListTokens", page)


@pytest.mark.parametrize("mark", ["\u202e", "\u200b", "\u2066", "\ufeff", "\u00ad", "\u200d", "\U000e0041"])
def test_a_display_name_hides_nothing(bed: Bed, mark: str) -> None:
    wrong = Principal(name="principals/eve", kind=Principal.KIND_PERSON, display_name=f"Ad{mark}a")
    with pytest.raises(errors.InvalidArgument, match=f"display_name: holds U\\+{ord(mark):04X}, "):
        bed.call("CreatePrincipal", api.CreatePrincipalRequest(principal=wrong))


@pytest.mark.parametrize("name", ["نرم\u200cافزار", "👩\u200d💻 Ada", "Zoë\u00a0Ω", "עדה"])
def test_a_display_name_is_of_any_script(bed: Bed, name: str) -> None:
    right = Principal(name="principals/eve", kind=Principal.KIND_PERSON, display_name=name)
    assert bed.call("CreatePrincipal", api.CreatePrincipalRequest(principal=right)).display_name == name


def outcome(bed: Bed, request: api.CreateTokenRequest) -> object:
    try:
        return bed.call("CreateToken", request)
    except errors.PipelineHostError as error:
        return error


def test_64_connections_at_once_are_one_connection(bed: Bed) -> None:
    bed.environment("qa")
    request = api.CreateConnectionRequest(
        environment="environments/qa", connection=Connection(connector_id=OFFICE), request_id="herd"
    )
    with ThreadPoolExecutor(64) as threads:
        answers = list(threads.map(lambda _: bed.call("CreateConnection", request), range(64)))
    assert all(answer == answers[0] for answer in answers)
    listed = bed.call("ListConnections", api.ListConnectionsRequest(environment="environments/qa"))
    assert list(listed.connections) == [answers[0]]
    assert kinds(bed).count("CONNECTION_CREATED") == 1


def test_a_connection_lives(bed: Bed) -> None:
    bed.environment("qa")
    wanted = Connection(name="environments/qa/connections/mail", connector_id=OFFICE, display_name="Mail")
    made = bed.call(
        "CreateConnection", api.CreateConnectionRequest(environment="environments/qa", connection=wanted)
    )
    assert made.name == wanted.name
    bed.call("DeleteConnection", api.DeleteConnectionRequest(name=made.name, request_id="gone"))
    bed.call("DeleteConnection", api.DeleteConnectionRequest(name=made.name, request_id="gone"))
    with pytest.raises(errors.NotFound):
        bed.call("DeleteConnection", api.DeleteConnectionRequest(name=made.name))
    assert kinds(bed)[-2:] == ["CONNECTION_CREATED", "CONNECTION_DELETED"]
    with pytest.raises(errors.InvalidArgument) as refused:
        bed.call(
            "CreateConnection",
            api.CreateConnectionRequest(
                environment="environments/qa",
                connection=Connection(name="environments/other/connections/mail"),
            ),
        )
    assert {v.subject for v in refused.value.violations} == {"connection.name", "connection.connector_id"}


@pytest.mark.parametrize("named", ["", "environments/qa/connections/mail"])
def test_a_connection_that_was_made_at_a_kill_is_recorded_by_the_repeated_call(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    bed.environment("qa")
    wanted = Connection(name=named, connector_id=OFFICE)
    request = api.CreateConnectionRequest(
        environment="environments/qa", connection=wanted, request_id="cut off"
    )

    async def killed(job: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(bed.store, "write", killed)
        with pytest.raises(errors.Internal):
            bed.call("CreateConnection", request)
    bed.stop()
    bed.start()
    (there,) = bed.call(
        "ListConnections", api.ListConnectionsRequest(environment="environments/qa")
    ).connections
    assert "CONNECTION_CREATED" not in kinds(bed)
    other = Connection(name=there.name, connector_id=OFFICE.replace("office365", "sql"))
    with pytest.raises(errors.FailedPrecondition, match="already"):
        bed.call(
            "CreateConnection", api.CreateConnectionRequest(environment="environments/qa", connection=other)
        )
    for _ in range(2):
        assert bed.call("CreateConnection", request) == there
    assert kinds(bed).count("CONNECTION_CREATED") == 1
    with pytest.raises(errors.FailedPrecondition, match="already"):  # it is somebody's by now
        bed.call(
            "CreateConnection", api.CreateConnectionRequest(environment="environments/qa", connection=there)
        )
    assert kinds(bed).count("CONNECTION_CREATED") == 1


def test_a_connection_that_was_deleted_at_a_kill_is_recorded_by_the_repeated_call(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.environment("qa")
    wanted = Connection(name="environments/qa/connections/mail", connector_id=OFFICE)
    made = bed.call(
        "CreateConnection", api.CreateConnectionRequest(environment="environments/qa", connection=wanted)
    )
    request = api.DeleteConnectionRequest(name=made.name, request_id="cut off")

    async def killed(job: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(bed.store, "write", killed)
        with pytest.raises(errors.Internal):
            bed.call("DeleteConnection", request)
    bed.stop()
    bed.start()
    listed = bed.call("ListConnections", api.ListConnectionsRequest(environment="environments/qa"))
    assert not listed.connections
    for _ in range(2):
        bed.call("DeleteConnection", request)
    assert bed.events()[-1].connection == made
    assert kinds(bed).count("CONNECTION_DELETED") == 1
    for name in (made.name, "environments/qa/connections/never"):
        with pytest.raises(errors.NotFound):
            bed.call("DeleteConnection", api.DeleteConnectionRequest(name=name))


def test_what_is_in_use_is_not_deleted(idle: Bed) -> None:
    run = idle.call(
        "Deploy",
        api.DeployRequest(pipeline="pipelines/sales", stage="pipelines/sales/stages/qa", solution="Sales"),
    )
    for slug in ("dev", "qa"):
        with pytest.raises(errors.FailedPrecondition) as refused:
            idle.call("DeleteEnvironment", api.DeleteEnvironmentRequest(name=f"environments/{slug}"))
        assert refused.value.reason == ErrorReason.ERROR_REASON_RESOURCE_IN_USE
        assert {v.subject for v in refused.value.violations} == {"pipelines/sales", run.name}
        told = f"environments/{slug} is in use by 1 pipeline and 1 run"
        assert refused.value.message == told, "the violations name them, once"
    with pytest.raises(errors.FailedPrecondition) as refused:
        idle.call("DeletePipeline", api.DeletePipelineRequest(name="pipelines/sales"))
    assert [v.subject for v in refused.value.violations] == [run.name]
    idle.call("CancelRun", api.CancelRunRequest(name=run.name))
    idle.call("DeletePipeline", api.DeletePipelineRequest(name="pipelines/sales"))
    idle.call("DeleteEnvironment", api.DeleteEnvironmentRequest(name="environments/qa"))
    assert idle.call("GetRunPipeline", api.GetRunPipelineRequest(run=run.name)).name == "pipelines/sales"


def test_immutable_fields_stay(bed: Bed) -> None:
    bed.environment("qa")
    developer = SignIn(method=SignIn.METHOD_DEVELOPER)
    bed.environment("real", url="https://contoso.crm4.dynamics.com", sign_in=developer)
    cases = [
        (Environment(name="environments/qa", kind=DEVELOPMENT), [], "environment.kind"),
        (Environment(name="environments/qa", kind=DEVELOPMENT), ["kind"], "update_mask.paths[0]"),
        (Environment(name="environments/qa", url="http://127.0.0.1:1"), ["url"], "environment.url"),
        (Environment(name="environments/real"), [], "environment.url"),
        (Environment(name="environments/qa"), ["region", "stages.name"], "update_mask.paths[1]"),
    ]
    for wanted, paths, where in cases:
        with pytest.raises(errors.InvalidArgument) as refused:
            bed.call(
                "UpdateEnvironment",
                api.UpdateEnvironmentRequest(environment=wanted, update_mask=FieldMask(paths=paths)),
            )
        assert where in {v.subject for v in refused.value.violations}, wanted
    moved = bed.call(
        "UpdateEnvironment",
        api.UpdateEnvironmentRequest(
            environment=Environment(
                name="environments/real", url="https://fabrikam.crm4.dynamics.com", sign_in=developer
            ),
            update_mask=FieldMask(paths=["*"]),
        ),
    )
    assert moved.url == "https://fabrikam.crm4.dynamics.com"


def test_fields_that_the_host_does_not_know_are_not_kept(sales: Bed) -> None:
    raw = pipeline().SerializeToString() + b"\xca\x3e\x04evil"  # field 1001
    assert Pipeline.FromString(raw).SerializeToString() == raw
    sales.raw(
        "CreatePipeline", api.CreatePipelineRequest(pipeline=Pipeline.FromString(raw)).SerializeToString()
    )
    assert (
        b"evil"
        not in sales.call("GetPipeline", api.GetPipelineRequest(name="pipelines/sales")).SerializeToString()
    )
