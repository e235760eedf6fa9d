"""The Client's unary calls over a real server: names, tokens, retries, request ids."""

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from tests.rpc.fake_host import RUN, FakeHost

from pipelinehost import Client, errors
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Artifact, Component, Connection, Environment, Pipeline, Run, Stage


@pytest.fixture
def host() -> Iterator[FakeHost]:
    with FakeHost() as host:
        yield host


@pytest.fixture
def client(host: FakeHost) -> Iterator[Client]:
    with Client(host.address, token="secret") as client:
        yield client


def sales(display_name: str = "") -> Pipeline:
    stages = [
        Stage(name="pipelines/sales/stages/qa", display_name="Quality", environment="environments/qa"),
        Stage(name="pipelines/sales/stages/prod", display_name="Production", environment="environments/prod"),
    ]
    return Pipeline(
        name="pipelines/sales",
        stages=stages,
        development_environments=["environments/dev"],
        display_name=display_name,
    )


def unavailable() -> errors.Unavailable:
    return errors.Unavailable(ErrorReason.ERROR_REASON_HOST_UNAVAILABLE, "The host is starting.")


def test_every_call_carries_the_token(host: FakeHost, client: Client) -> None:
    assert client.host().caller == "admin"
    list(client.pipelines())
    assert [m["authorization"] for m in host.metadata] == ["Bearer secret"] * 2


def test_a_token_goes_unencrypted_to_loopback_only() -> None:
    with pytest.raises(errors.InvalidArgument, match="unencrypted"):
        Client("pipelines.example.com:443", token="secret")
    Client("pipelines.example.com:443", token="").close()
    Client("pipelines.example.com:443", token="secret", tls=True).close()


def test_a_host_that_is_away_for_a_moment_is_not_noticed(host: FakeHost, client: Client) -> None:
    host.failures["ListPipelines"] = [unavailable(), unavailable()]
    assert list(client.pipelines()) == []
    assert len(host.seen("ListPipelines")) == 3


def test_a_host_that_restarts_is_not_noticed(host: FakeHost, client: Client) -> None:
    client.host()
    host.stop()
    host.do(_later(host))
    assert client.host().caller == "admin"


async def _later(host: FakeHost) -> None:
    async def start() -> None:
        await asyncio.sleep(1.0)
        await host._start()

    host.begin(start())


def test_a_repeated_mutation_has_the_same_request_id_and_is_done_once(host: FakeHost, client: Client) -> None:
    host.pipelines["pipelines/sales"] = sales()
    host.failures["Deploy"] = [unavailable()]
    client.deploy("pipelines/sales", solution="ContosoSales")
    first, second = host.seen("Deploy")
    assert first.request_id == second.request_id != ""
    assert len(host.runs) == 1
    client.deploy("pipelines/sales", solution="ContosoSales")
    assert len(host.runs) == 2
    a = client.deploy("pipelines/sales", solution="ContosoSales", request_id="mine")
    assert a == client.deploy("pipelines/sales", solution="ContosoSales", request_id="mine")
    assert len(host.runs) == 3


def test_a_refusal_is_not_repeated_and_is_typed(host: FakeHost, client: Client) -> None:
    violations = [errors.Violation("pipelines/sales/stages/prod", "qa first", "STAGE_OUT_OF_ORDER")]
    host.pipelines["pipelines/sales"] = sales()
    host.failures["Deploy"] = [
        errors.FailedPrecondition(
            ErrorReason.ERROR_REASON_STAGE_OUT_OF_ORDER, "No.", remedy="Deploy to qa.", violations=violations
        )
    ]
    with pytest.raises(errors.FailedPrecondition) as caught:
        client.deploy("sales", solution="ContosoSales", stage="prod")
    assert caught.value.reason_name == "STAGE_OUT_OF_ORDER"
    assert caught.value.remedy == "Deploy to qa."
    assert list(caught.value.violations) == violations
    assert len(host.seen("Deploy")) == 1


def test_nobody_there_is_told_before_the_deadline() -> None:
    with Client("127.0.0.1:1", token="") as client, pytest.raises(errors.Unavailable) as caught:
        client.host()
    assert "running" in caught.value.remedy


def test_a_call_ends_at_its_deadline() -> None:
    class Slow(FakeHost):
        async def called(self, method: str, request: object, context: object) -> None:
            await asyncio.sleep(5)

    with (
        Slow() as slow,
        Client(slow.address, token="", deadline=0.3) as client,
        pytest.raises(errors.DeadlineExceeded),
    ):
        client.host()


def test_lists_go_on_to_the_last_page(host: FakeHost, client: Client) -> None:
    host.pipelines |= {f"pipelines/p{n:03}": Pipeline(name=f"pipelines/p{n:03}") for n in range(23)}
    assert [p.name for p in client.pipelines(page_size=5)] == sorted(host.pipelines)
    assert len(host.seen("ListPipelines")) == 5


@pytest.mark.parametrize("name", ["pipelines/sales", "sales", "Sales of Contoso", "sales of contoso"])
def test_a_pipeline_is_found_by_name_id_and_display_name(host: FakeHost, client: Client, name: str) -> None:
    host.pipelines["pipelines/sales"] = sales(display_name="Sales of Contoso")
    host.pipelines["pipelines/other"] = Pipeline(name="pipelines/other", display_name="Other")
    assert client.pipeline(name).name == "pipelines/sales"
    assert client.deploy(name, solution="X").pipeline == "pipelines/sales"


def test_an_ambiguous_display_name_lists_what_it_could_mean(host: FakeHost, client: Client) -> None:
    for slug in ("a", "b"):
        host.pipelines[f"pipelines/{slug}"] = Pipeline(name=f"pipelines/{slug}", display_name="Sales")
    with pytest.raises(errors.InvalidArgument, match="pipelines/a, pipelines/b"):
        client.pipeline("Sales")


def test_a_name_that_nothing_has_brings_the_nearest(host: FakeHost, client: Client) -> None:
    host.pipelines["pipelines/sales"] = sales(display_name="Contoso")
    with pytest.raises(errors.NotFound) as caught:
        client.pipeline("slaes")
    assert caught.value.remedy == "Did you mean sales?"
    with pytest.raises(errors.NotFound) as caught:
        client.deploy("sales", solution="X", stage="nope")
    assert caught.value.remedy == "There is qa, prod."


@pytest.mark.parametrize("stage", ["prod", "Production", "production", "pipelines/sales/stages/prod"])
def test_a_stage_is_found_by_name_id_and_display_name(host: FakeHost, client: Client, stage: str) -> None:
    host.pipelines["pipelines/sales"] = sales()
    assert client.deploy("sales", solution="X", stage=stage).stage == "pipelines/sales/stages/prod"


def test_describe_takes_a_stage_of_a_pipeline_and_brings_every_component(
    host: FakeHost, client: Client
) -> None:
    host.pipelines["pipelines/sales"] = sales()
    host.artifacts["artifacts/" + "ab" * 32] = Artifact(name="artifacts/" + "ab" * 32)
    host.description.components.extend(Component(name=f"c{n}") for n in range(2500))
    answer = client.describe(artifact="abababab", stage="sales/Quality")
    assert len(answer.components) == 2500
    assert host.seen("DescribeSolution")[0].stage == "pipelines/sales/stages/qa"
    with pytest.raises(errors.InvalidArgument, match="which pipeline"):
        client.describe(artifact="abababab", stage="qa")


def test_an_artifact_is_found_by_the_beginning_of_its_digest(host: FakeHost, client: Client) -> None:
    for digest in ("ab" * 32, "abab12" + "0" * 58):
        host.artifacts[f"artifacts/{digest}"] = Artifact(
            name=f"artifacts/{digest}", solution="Sales", version="1.0"
        )
    assert client.artifact("abab12").name == "artifacts/abab12" + "0" * 58
    assert client.artifact("artifacts/" + "ab" * 32).name == "artifacts/" + "ab" * 32
    host.artifacts["artifacts/abab12" + "1" * 58] = Artifact(name="artifacts/abab12" + "1" * 58)
    with pytest.raises(errors.InvalidArgument, match="2 artifacts begin with abab12"):
        client.artifact("abab12")
    with pytest.raises(errors.NotFound):
        client.artifact("ffffff")
    with pytest.raises(errors.InvalidArgument):
        client.artifact("sales")


def test_environments_are_made_changed_and_deleted(host: FakeHost, client: Client) -> None:
    made = client.create_environment(Environment(name="environments/dev", display_name="Dev"))
    assert made.etag
    changed = client.update_environment(
        Environment(name=made.name, description="new", etag=made.etag), ["description"]
    )
    assert (changed.display_name, changed.description) == ("Dev", "new")
    connection = client.create_connection("Dev", Connection(connector_id="/x/shared_sql"))
    assert client.connections("dev") == [connection]
    client.delete_connection("dev", "c0ffee")
    assert client.connections("dev") == []
    client.delete_environment("Dev")
    assert host.environments == {}


def test_the_other_calls_about_runs(host: FakeHost, client: Client) -> None:
    host.pipelines["pipelines/sales"] = sales()
    run = host.new_run(RUN, pipeline="pipelines/sales")
    assert client.run(RUN.removeprefix("runs/")) == run
    assert client.cancel(RUN, reason="oops").state == Run.STATE_CANCELLED
    assert host.seen("CancelRun")[0].reason == "oops"
    at = datetime(2027, 1, 31, 20, tzinfo=timezone(timedelta(hours=1)))
    assert client.reschedule(RUN, at).wait.until.ToJsonString() == "2027-01-31T19:00:00Z"
    assert not client.reschedule(RUN).HasField("schedule_time")
    assert client.retry(RUN).attempt == 2
    assert client.approve(RUN, comment="fine").state == Run.STATE_QUEUED
    assert client.reject(RUN, comment="no", note="late").state == Run.STATE_REJECTED
    assert [(d.comment, d.name) for d in host.decided] == [("fine", RUN), ("no", RUN)]
    client.resolve(RUN, applied=False, reason="looked")
    assert host.seen("ResolveRun")[0].resolution == api.ResolveRunRequest.RESOLUTION_NOT_APPLIED
    assert [s.name for s in client.run_settings(RUN)] == ["contoso_Url"]
    assert [r.result for r in client.component_results(RUN)] == ["success"]
    assert client.run_pipeline(RUN).name == "pipelines/sales"
    with pytest.raises(errors.InvalidArgument):
        client.run("not a run")


def test_a_closed_client_says_so(host: FakeHost) -> None:
    client = Client(host.address, token="")
    client.close()
    with pytest.raises(errors.Cancelled):
        client.host()
