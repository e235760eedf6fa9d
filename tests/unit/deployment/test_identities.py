"""As whom the host acts: a stage's own identity, and nobody else's after a change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.unit.deployment.conftest import Host
from tests.unit.deployment.test_run import package, state

from pipelinehost.v1.pipeline_host_pb2 import SetEnvironmentCredentialRequest
from pipelinehost.v1.resources_pb2 import Environment, Event, Pipeline, Run, SignIn, Stage
from pipelinehost_dataverse.sign_in import SignInFailed
from pipelinehost_server.deployment import identities
from pipelinehost_server.deployment.environments import only_as
from pipelinehost_server.deployment.journal import Journal
from pipelinehost_server.store import Transaction

APP, OTHER = (f"{n}1234567-89ab-cdef-0123-456789abcdef" for n in "09")
STAGE = "pipelines/sales/stages/qa"
RUN = Run(name="runs/1", pipeline="pipelines/sales", stage=STAGE, target_environment="environments/qa")


def application(client: str = APP) -> SignIn:
    return SignIn(method=SignIn.METHOD_CLIENT_SECRET, tenant="contoso.example", client_id=client)


def sales(environment: str = "environments/qa", sign_in: SignIn | None = None) -> Pipeline:
    return Pipeline(
        name="pipelines/sales", stages=[Stage(name=STAGE, environment=environment, sign_in=sign_in)]
    )


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[Host]:
    """Two https environments with an identity, and a stage to the first with one of its own."""
    host = Host(tmp_path)
    await host.start(advancing=0)

    def job(tx: Transaction) -> None:
        for slug in ("qa", "production"):
            url = f"https://{slug}.crm4.dynamics.com"
            environment = Environment(
                name=f"environments/{slug}", kind=Environment.KIND_TARGET, url=url, sign_in=application(OTHER)
            )
            tx.put_environment(environment)
        tx.put_pipeline(sales(sign_in=application()))
        tx.insert_run(RUN, pipeline=sales(sign_in=application()))
        for name, secret in (("environments/qa", "its own"), (STAGE, "the stage's")):
            request = SetEnvironmentCredentialRequest(name=name, client_secret=secret)
            sealed = host.environments.sealed_credential(request)
            tx.put_secret(identities.credential_key(name), sealed)

    await host.store.write(job)
    yield host
    await host.stop()


async def put(host: Host, pipeline: Pipeline) -> None:
    await host.store.write(lambda tx: tx.put_pipeline(pipeline))


async def test_a_stage_signs_in_as_itself(real: Host) -> None:
    reads = real.store.reads
    assert identities.acting_stage(reads, RUN) == STAGE
    assert identities.deployed_as(reads, RUN) == f"application {APP} of contoso.example"
    how = real.environments._sign_in("environments/qa", STAGE)
    assert (how.client_id, how.secret) == (APP, "the stage's")
    own = real.environments._sign_in("environments/qa", "")
    assert (own.client_id, own.secret) == (OTHER, "its own")
    assert f"set-credential {STAGE} --secret-file FILE" in how.remedy
    assert "set-credential qa --secret-file FILE" in own.remedy
    environment = reads.environment("environments/qa")
    assert environment is not None
    assert await real.environments.connect(environment, STAGE) is not await real.environments.connect(
        environment
    )


@pytest.mark.parametrize(
    "after",
    [
        sales("environments/production", application()),
        sales("environments/production"),
        Pipeline(name="pipelines/sales"),
    ],
    ids=["leads elsewhere", "leads elsewhere as that environment's", "is gone"],
)
async def test_a_run_whose_stage_has_changed_acts_as_nobody(real: Host, after: Pipeline) -> None:
    await put(real, after)
    assert identities.acting_stage(real.store.reads, RUN) == STAGE, "and not as the environment"
    assert identities.deployed_as(real.store.reads, RUN) == ""
    with pytest.raises(SignInFailed, match="no identity of its own for it any more"):
        real.environments._sign_in("environments/qa", STAGE)


async def test_what_an_administrator_has_taken_away_is_not_used(real: Host) -> None:
    await put(real, sales())
    assert identities.acting_stage(real.store.reads, RUN) == ""
    assert identities.deployed_as(real.store.reads, RUN) == f"application {OTHER} of contoso.example"


async def test_an_import_is_sent_as_nobody_else(real: Host) -> None:
    with only_as(f"application {APP} of contoso.example"):
        assert real.environments._sign_in("environments/qa", STAGE).client_id == APP
        await put(real, sales(sign_in=application(OTHER)))
        with pytest.raises(SignInFailed, match="has changed"):
            real.environments._sign_in("environments/qa", STAGE)
    assert real.environments._sign_in("environments/qa", STAGE).client_id == OTHER
    may_send = real.deployment._execution(Journal(real.store, RUN, 1))._may_send
    noted = Run()
    noted.CopyFrom(RUN)
    noted.deployed_as = f"application {APP} of contoso.example"
    assert may_send(real.store.reads, noted) is None, "it was validated as another one"
    noted.deployed_as = f"application {OTHER} of contoso.example"
    assert may_send(real.store.reads, noted) is not None


async def test_an_identity_is_used_over_https_alone(real: Host) -> None:
    environment = Environment(name="environments/qa", url="http://127.0.0.1:1/qa")
    with pytest.raises(SignInFailed, match="nobody signs in"):
        await real.environments.connect(environment, STAGE)
    assert await real.environments.connect(environment) is not None


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (application(), f"application {APP} of contoso.example"),
        (SignIn(method=SignIn.METHOD_MANAGED_IDENTITY, client_id=APP), f"managed identity {APP}"),
        (SignIn(method=SignIn.METHOD_MANAGED_IDENTITY), "managed identity of the machine of the host"),
        (SignIn(method=SignIn.METHOD_DEVELOPER), "developer at the machine of the host"),
    ],
)
def test_identities_in_words(told: SignIn, words: str) -> None:
    assert identities.words(told) == words


class Listener(httpx.AsyncBaseTransport):
    """Passes requests on, and keeps the names of their headers."""

    def __init__(self, inner: httpx.AsyncBaseTransport, heard: set[str]) -> None:
        self.inner, self.heard = inner, heard

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.heard |= {name.lower() for name in request.headers}
        return await self.inner.handle_async_request(request)


async def test_nobody_is_impersonated(host: Host) -> None:
    """From the export to the verification no header asks to act on behalf of somebody else."""
    heard: set[str] = set()
    for slug in ("dev", "qa"):
        _, api = await host.environments.named(f"environments/{slug}")
        client = api._calls._client
        client._transport = Listener(client._transport, heard)
    await host.restored(package())
    run = await host.deployed(stage="qa")
    assert (state(run), run.deployed_as) == ("SUCCEEDED", "the environment's owner")
    assert {"user-agent", "x-ms-client-request-id"} <= heard
    assert not heard & {"mscrmcallerid", "callerobjectid", "x-ms-impersonate", "impersonatinguserid"}
    told = [e.run for e in host.events(run) if e.HasField("run")]
    assert {change.deployed_as for change in told} == {run.deployed_as}
    assert host.events(run)[0].kind == Event.KIND_DEPLOYMENT_REQUESTED
